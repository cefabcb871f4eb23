package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

func (d *doctor) checkPublication(ctx context.Context) error {
	if d.opts.Publication != "" {
		var err error
		if d.pub, err = pg.LoadPublication(ctx, d.conn, d.opts.Publication); err != nil {
			return err
		}
	}
	if err := d.checkCoverage(ctx); err != nil {
		return err
	}
	d.checkViaRoot()
	d.checkGenerated()
	return d.checkOrder(ctx)
}

// publishable gives the tables that have to be in the publication. Postgres 12 cannot publish a partitioned table, so
// there its partitions are.
func (d *doctor) publishable(byRoot bool) []*table {
	var out []*table
	for i := range d.tables {
		t := &d.tables[i]
		if byRoot && t.isRoot() || !byRoot && t.kind == "r" {
			out = append(out, t)
		}
	}
	return out
}

func (d *doctor) checkCoverage(ctx context.Context) error {
	const id = "pg.publication"
	p, byRoot := d.pub, d.server.version >= 130000
	want := d.publishable(byRoot)
	if p == nil {
		return d.checkMissingPublication(ctx, want)
	}
	var found []api.Check
	if len(p.Off) > 0 {
		found = append(found, finding(api.SeverityFatal, errs.SourcePreflight, p.Name,
			"ALTER PUBLICATION "+pg.Ident(p.Name)+" SET (publish = 'insert, update, delete, truncate');",
			"publication %s leaves out %s%s", p.Name, strings.Join(p.Off, ", "), d.shared("sends them")))
	}
	if byRoot && !p.ViaRoot {
		want = d.publishable(false) // it lists partitions; checkViaRoot has its say
	}
	joined := 0
	for _, t := range want {
		w := d.wanted(t)
		if _, ok := p.Tables[t.oid]; !ok {
			why := "role " + d.server.role + " may not add it"
			switch {
			case d.opts.KeepPublication:
				why = "a publication that is given by name is used as it is"
			case p.Owned && t.owned && !d.server.recovery:
				joined++ // it is added when the mirror starts
				continue
			}
			found = append(found, finding(api.SeverityFatal, errs.SourcePreflight, t.String(), p.Repair(w), "publication %s does not hold %s, and %s", p.Name, t, why))
			continue
		}
		why, price, err := p.Differs(ctx, d.conn, w)
		var ours *pg.ConditionError
		if errors.As(err, &ours) {
			continue // pg.filter tells
		}
		if err != nil {
			return fmt.Errorf("compare the filters of %s: %w", t, err)
		}
		if why == "" {
			continue
		}
		fix := p.Repair(w)
		if fix == "" {
			another := pg.Shorten(p.Name + "_weir")
			fix = d.create(another, want) + ";"
			why += "; make another one and give --set publication.name=" + another
		} else if d.opts.KeepPublication {
			why += "; " + price
		}
		found = append(found, finding(api.SeverityFatal, errs.SourcePreflight, t.String(), fix, "%s", why))
	}
	if d.opts.KeepPublication {
		d.out.Each(id, found, "publication %s covers the tables", p.Name)
	} else {
		d.out.Each(id, found, "publication %s covers the tables; %d of them are added at the start", p.Name, joined)
	}
	return nil
}

// shared adds what a fix of a publication of the user's own means for its other readers.
func (d *doctor) shared(does string) string {
	if !d.opts.KeepPublication {
		return ""
	}
	return "; with the fix it " + does + " to everybody who reads it; to keep it as it is, " + pg.WithoutName
}

// wanted is what the mirror takes of a table, as the source publishes it. A partition that is published under its own
// name has no filter to be compared: with publish_via_partition_root, which it lacks, that of the root counts.
func (d *doctor) wanted(t *table) pg.Wanted {
	w := pg.Wanted{OID: t.oid, Schema: t.schema, Name: t.name, Partitioned: t.kind == "p", Columns: t.columns, Types: t.columnTypes,
		Excluded: func(column string) bool { return d.opts.Selection.Excluded(t.schema, t.name, column) }}
	if d.server.version < 150000 {
		return w // neither rows nor columns can be left out
	}
	switch {
	case t.isRoot():
		w.Filter = d.opts.Selection.Filter(t.schema, t.name)
	case d.pub != nil:
		w.Filter = d.pub.Tables[t.oid].Filter
	}
	// The server refuses an application's updates when a list lacks a column of the identity.
	if t.identity != "f" && slices.ContainsFunc(t.columns, w.Excluded) && !slices.ContainsFunc(t.key, w.Excluded) {
		w.List = slices.DeleteFunc(slices.Clone(t.columns), w.Excluded)
	}
	return w
}

// create is the SQL of a publication with all that the mirror takes.
func (d *doctor) create(name string, want []*table) string {
	items := make([]string, len(want))
	for i, t := range want {
		items[i] = d.wanted(t).Item()
	}
	sql := "CREATE PUBLICATION " + pg.Ident(name) + " FOR TABLE " + strings.Join(items, ", ")
	if d.server.version >= 130000 {
		sql += " WITH (publish_via_partition_root = true)"
	}
	return sql
}

func (d *doctor) checkMissingPublication(ctx context.Context, want []*table) error {
	const id = "pg.publication"
	may := d.server.mayCreate && !d.server.recovery
	var foreign []string
	for _, t := range want {
		if !t.owned {
			foreign = append(foreign, t.String())
		}
	}
	// Weir's own name for it may not be known; then the user makes one under a plain name and gives it.
	name, missing, given := d.opts.Publication, "publication "+d.opts.Publication+" does not exist", ""
	if name == "" {
		name = pg.Shorten("weir_" + d.server.database)
		missing, given = "there is no publication yet", "; make it and give --set publication.name="+name
		var owner string
		err := d.conn.QueryRow(ctx, `SELECT pg_get_userbyid(pubowner)::text FROM pg_publication WHERE pubname = $1`, name).Scan(&owner)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("look for publication %s: %w", name, err)
		}
		if err == nil && len(want) > 0 && (!may || len(foreign) > 0) {
			d.out.Fatal(id, errs.PublicationMissing, "", "publication %s is there and is role %s's; --set publication.name=%s makes the mirror use it", name, owner, name)
			return nil
		}
	}
	sql := d.create(name, want)
	switch {
	case len(want) == 0:
		d.out.OK(id, "nothing to publish")
	case may && len(foreign) == 0:
		d.out.OK(id, "the publication is created at the start")
	case d.server.recovery:
		d.out.Fatal(id, errs.PublicationMissing, sql+"; -- on the primary", "%s, and a standby cannot create it%s", missing, given)
	case !may:
		d.out.Fatal(id, errs.PublicationMissing, sql+";", "%s, and role %s may not create it in database %s%s", missing, d.server.role, d.server.database, given)
	default:
		d.out.Fatal(id, errs.PublicationMissing, sql+";", "%s, and role %s does not own %s and so may not publish it%s", missing, d.server.role, listed(foreign), given)
	}
	return nil
}

// listed is a few names and how many more there are.
func listed(names []string) string {
	if len(names) <= 3 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
}

func (d *doctor) checkViaRoot() {
	const id = "pg.viaroot"
	var roots []string
	for i := range d.tables {
		if t := &d.tables[i]; t.isRoot() && t.kind == "p" {
			roots = append(roots, t.String())
		}
	}
	switch {
	case len(roots) == 0:
		d.out.OK(id, "no table is partitioned")
	case d.server.version < 130000:
		d.out.Warn(id, errs.SourcePreflight, "", "Postgres 12 publishes partitions one by one (%s): a partition made later has to be added to the publication before rows go into it", listed(roots))
	case d.pub == nil || d.pub.ViaRoot:
		d.out.OK(id, "changes of partitions are published under the name of their root")
	default:
		d.out.Fatal(id, errs.SourcePreflight, "ALTER PUBLICATION "+pg.Ident(d.opts.Publication)+" SET (publish_via_partition_root = true);",
			"publication %s sends changes under the names of partitions, and the mirror knows %s%s", d.opts.Publication, listed(roots), d.shared("sends them under the names of the roots"))
	}
}

// checkGenerated is about 18, where a published table must not have an unpublished generated column in its identity:
// the publisher's own UPDATE fails.
func (d *doctor) checkGenerated() {
	const id = "pg.identity_gen"
	var found []api.Check
	for i := range d.tables {
		t := &d.tables[i]
		stored := t.inKey > 0 || t.identity == "f" && t.generated > t.virtual
		switch {
		case d.server.version < 180000 || d.pub == nil:
		case t.identity == "f" && t.virtual > 0:
			fix := ""
			if t.primary && !t.deferrable {
				fix = "ALTER TABLE " + t.sql() + " REPLICA IDENTITY DEFAULT;"
			}
			found = append(found, finding(api.SeverityFatal, errs.SourcePreflight, t.String(), fix,
				"the replica identity of %s covers a virtual generated column, which cannot be published: UPDATE and DELETE on it fail", t))
		case stored && d.pub.Generated != "s":
			found = append(found, finding(api.SeverityFatal, errs.SourcePreflight, t.String(),
				"ALTER PUBLICATION "+pg.Ident(d.opts.Publication)+" SET (publish_generated_columns = stored);",
				"the replica identity of %s covers a generated column that publication %s leaves out: UPDATE and DELETE on it fail", t, d.opts.Publication))
		}
	}
	d.out.Each(id, found, "no replica identity covers an unpublished generated column")
}

// checkOrder looks for a slot that is older than its publication: log from before it cannot be decoded with it. Both
// ages count transactions back from now.
func (d *doctor) checkOrder(ctx context.Context) error {
	const id = "pg.pub_order"
	var younger bool
	if d.pub != nil && d.opts.Slot != "" && !d.server.recovery {
		err := d.conn.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM pg_publication p, pg_replication_slots s
			               WHERE p.pubname = $1::text AND s.slot_name = $2::text AND age(p.xmin) < age(s.catalog_xmin))`,
			d.opts.Publication, d.opts.Slot).Scan(&younger)
		if err != nil {
			return fmt.Errorf("compare the ages of slot and publication: %w", err)
		}
	}
	if younger {
		d.out.Warn(id, errs.SourcePreflight, "SELECT pg_drop_replication_slot("+pg.Literal(d.opts.Slot)+"); -- then copy all tables again",
			"publication %s was made or changed after slot %s: changes between the two may be refused or skipped", d.opts.Publication, d.opts.Slot)
		return nil
	}
	d.out.OK(id, "the slot is not older than the publication")
	return nil
}
