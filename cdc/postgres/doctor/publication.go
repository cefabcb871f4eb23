package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// publication is ours as the catalog has it.
type publication struct {
	exists    bool
	owned     bool
	all       bool
	viaRoot   bool
	generated string // publish_generated_columns: n none, s stored; "" before 18
	actions   map[string]bool
	tables    map[[2]string]published
}

type published struct {
	// columns are those of an explicit list, else nil. Without one the server names all that there are when it is asked,
	// which may be more or fewer than a moment before.
	columns []string
	filter  string
}

func (d *doctor) loadPublication(ctx context.Context) error {
	p := &d.pub
	p.tables = map[[2]string]published{}
	err := d.rows(ctx, "read the publication", `
		SELECT pg_has_role(p.pubowner, 'USAGE'), p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate,
		       coalesce((to_jsonb(p) ->> 'pubviaroot')::bool, false), coalesce(to_jsonb(p) ->> 'pubgencols', '')
		FROM pg_publication p WHERE p.pubname = $1::text`,
		func(r pgx.Rows) error {
			var insert, update, del, truncate bool
			p.exists = true
			err := r.Scan(&p.owned, &p.all, &insert, &update, &del, &truncate, &p.viaRoot, &p.generated)
			p.actions = map[string]bool{"insert": insert, "update": update, "delete": del, "truncate": truncate}
			return err
		}, d.opts.Publication)
	if err != nil || !p.exists {
		return err
	}
	return d.rows(ctx, "read the publication's tables", `
		SELECT t.schemaname::text, t.tablename::text, coalesce(CASE WHEN to_jsonb(r) ->> 'prattrs' IS NOT NULL THEN to_jsonb(t) ->> 'attnames' END, ''),
		       coalesce(to_jsonb(t) ->> 'rowfilter', '')
		FROM pg_publication_tables t JOIN pg_publication p ON p.pubname = t.pubname
		JOIN pg_namespace n ON n.nspname = t.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
		LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid WHERE t.pubname = $1::text`,
		func(r pgx.Rows) error {
			var name [2]string
			var columns string
			var x published
			if err := r.Scan(&name[0], &name[1], &columns, &x.filter); err != nil {
				return err
			}
			if columns != "" {
				if err := json.Unmarshal([]byte(columns), &x.columns); err != nil {
					return fmt.Errorf("read the columns of %s.%s: %w", name[0], name[1], err)
				}
			}
			p.tables[name] = x
			return nil
		}, d.opts.Publication)
}

func (d *doctor) checkPublication(ctx context.Context) error {
	if d.opts.Publication != "" {
		if err := d.loadPublication(ctx); err != nil {
			return err
		}
	}
	d.checkCoverage()
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

func (d *doctor) checkCoverage() {
	const id = "pg.publication"
	p, byRoot := &d.pub, d.server.version >= 130000
	want := d.publishable(byRoot)
	if !p.exists {
		d.checkMissingPublication(want)
		return
	}
	var found []api.Check
	name := pg.Ident(d.opts.Publication)
	var off []string
	for _, action := range []string{"insert", "update", "delete", "truncate"} {
		if !p.actions[action] {
			off = append(off, action)
		}
	}
	if len(off) > 0 {
		found = append(found, finding(api.SeverityFatal, errs.SourcePreflight, d.opts.Publication,
			"ALTER PUBLICATION "+name+" SET (publish = 'insert, update, delete, truncate');",
			"publication %s leaves out %s", d.opts.Publication, strings.Join(off, ", ")))
	}
	if byRoot && !p.viaRoot {
		want = d.publishable(false) // it lists partitions; checkViaRoot has its say
	}
	joined := 0
	for _, t := range want {
		x, ok := p.tables[[2]string{t.schema, t.name}]
		if !ok {
			if p.owned && t.owned && !d.server.recovery {
				joined++ // it is added when the mirror starts
				continue
			}
			found = append(found, finding(api.SeverityFatal, errs.SourcePreflight, t.String(),
				"ALTER PUBLICATION "+name+" ADD TABLE "+t.sql()+";", "publication %s does not hold %s, and role %s may not add it", d.opts.Publication, t, d.server.role))
			continue
		}
		if c, ok := d.narrowed(t, x); ok {
			found = append(found, c)
		}
	}
	d.out.Each(id, found, "publication %s covers the tables; %d of them are added at the start", d.opts.Publication, joined)
}

// narrowed tells when a table is published with fewer columns or rows than the mirror takes.
func (d *doctor) narrowed(t *table, x published) (api.Check, bool) {
	name := pg.Ident(d.opts.Publication)
	again := "ALTER PUBLICATION " + name + " DROP TABLE " + t.sql() + ";\nALTER PUBLICATION " + name + " ADD TABLE " + t.sql() + ";"
	if x.filter != "" && d.opts.Selection.Filter(t.schema, t.name) == "" {
		return finding(api.SeverityFatal, errs.SourcePreflight, t.String(), again,
			"publication %s sends only the rows of %s where %s", d.opts.Publication, t, x.filter), true
	}
	if x.columns == nil {
		return api.Check{}, false
	}
	var lacks []string
	for _, c := range t.columns {
		if !slices.Contains(x.columns, c) && !d.opts.Selection.Excluded(t.schema, t.name, c) {
			lacks = append(lacks, c)
		}
	}
	if len(lacks) == 0 {
		return api.Check{}, false
	}
	return finding(api.SeverityFatal, errs.SourcePreflight, t.String(), again,
		"publication %s leaves out columns of %s: %s", d.opts.Publication, t, strings.Join(lacks, ", ")), true
}

func (d *doctor) checkMissingPublication(want []*table) {
	const id = "pg.publication"
	may := d.server.mayCreate && !d.server.recovery
	var foreign []string
	var names []string
	for _, t := range want {
		names = append(names, t.sql())
		if !t.owned {
			foreign = append(foreign, t.String())
		}
	}
	// Weir's own name for it may not be known; then the user makes one under a plain name and gives it.
	name, missing, given := d.opts.Publication, "publication "+d.opts.Publication+" does not exist", ""
	if name == "" {
		name = pg.Shorten("weir_" + d.server.database)
		missing, given = "there is no publication yet", "; make it and give --set publication.name="+name
	}
	sql := "CREATE PUBLICATION " + pg.Ident(name) + " FOR TABLE " + strings.Join(names, ", ")
	if d.server.version >= 130000 {
		sql += " WITH (publish_via_partition_root = true)"
	}
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
	case !d.pub.exists || d.pub.viaRoot:
		d.out.OK(id, "changes of partitions are published under the name of their root")
	default:
		d.out.Fatal(id, errs.SourcePreflight, "ALTER PUBLICATION "+pg.Ident(d.opts.Publication)+" SET (publish_via_partition_root = true);",
			"publication %s sends changes under the names of partitions, and the mirror knows %s", d.opts.Publication, listed(roots))
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
		case d.server.version < 180000 || !d.pub.exists:
		case t.identity == "f" && t.virtual > 0:
			fix := ""
			if t.primary && !t.deferrable {
				fix = "ALTER TABLE " + t.sql() + " REPLICA IDENTITY DEFAULT;"
			}
			found = append(found, finding(api.SeverityFatal, errs.SourcePreflight, t.String(), fix,
				"the replica identity of %s covers a virtual generated column, which cannot be published: UPDATE and DELETE on it fail", t))
		case stored && d.pub.generated != "s":
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
	if d.pub.exists && d.opts.Slot != "" && !d.server.recovery {
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
