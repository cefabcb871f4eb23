package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// table is one that exists: what the plan wants and what is there.
type table struct {
	want *pg.Target
	have *pg.Table

	oid     uint32
	kind    string
	usage   bool
	lacks   []string // privileges
	owned   bool
	owner   string
	trusted bool // the owner is one that nobody else should be able to act as
	rls     bool
	always  []string // triggers that fire for replicas too
	enabled int      // triggers that fire for an ordinary session
	foreign int      // foreign keys from and to the table that are checked at once
}

func (t *table) sql() string    { return t.want.Name.String() }
func (t *table) String() string { return pg.DottedName(t.want.Name.Schema, t.want.Name.Name) }

func (d *doctor) loadTables(ctx context.Context) error {
	var schemas, names []string
	for _, t := range d.opts.Tables {
		schemas, names = append(schemas, t.Name.Schema), append(names, t.Name.Name)
	}
	var oids []uint32
	err := d.rows(ctx, "read the target's tables", `
		SELECT (u.n - 1)::int, c.oid, c.relkind::text, coalesce(has_schema_privilege(s.oid, 'USAGE'), true),
		       ARRAY(SELECT p FROM unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) p WHERE NOT has_table_privilege(c.oid, p)),
		       pg_has_role(c.relowner, 'USAGE'), pg_get_userbyid(c.relowner)::text,
		       coalesce((SELECT rolsuper FROM pg_roles WHERE oid = c.relowner), false), c.relrowsecurity AND row_security_active(c.oid),
		       ARRAY(SELECT g.tgname::text FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled IN ('A', 'R') ORDER BY 1),
		       (SELECT count(*) FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled IN ('O', 'A'))::int,
		       coalesce(f.n, 0)::int
		FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u(schema, name, n)
		JOIN pg_namespace s ON s.nspname = u.schema
		JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = u.name
		LEFT JOIN (SELECT x.rel, count(*) AS n FROM pg_constraint k, LATERAL (VALUES (k.conrelid), (k.confrelid)) x(rel)
		           WHERE k.contype = 'f' AND NOT k.condeferred GROUP BY x.rel) f ON f.rel = c.oid
		ORDER BY u.n`,
		func(r pgx.Rows) error {
			var i int
			t := &table{}
			if err := r.Scan(&i, &t.oid, &t.kind, &t.usage, &t.lacks, &t.owned, &t.owner, &t.trusted, &t.rls, &t.always, &t.enabled, &t.foreign); err != nil {
				return err
			}
			t.want = d.opts.Tables[i]
			d.tables = append(d.tables, t)
			oids = append(oids, t.oid)
			return nil
		}, schemas, names)
	if err != nil {
		return err
	}
	loaded, err := pg.LoadTables(ctx, d.conn, oids)
	if err != nil {
		return err
	}
	byOID := make(map[uint32]*pg.Table, len(loaded))
	for _, x := range loaded {
		byOID[x.OID] = x
	}
	for _, t := range d.tables {
		t.have = byOID[t.oid]
	}
	// What is not a table, or was dropped meanwhile, is looked at no further.
	var kinds []api.Check
	d.tables = slices.DeleteFunc(d.tables, func(t *table) bool {
		if t.kind != "r" && t.kind != "p" {
			kinds = append(kinds, finding(api.SeverityFatal, errs.TargetTable, t.String(), "",
				"%s is not a table on the target (kind %s): route %s elsewhere", t.want.Name, t.kind, t.want.Source))
			return true
		}
		return t.have == nil
	})
	d.out.Each("tgt.kind", kinds, "%d of %d tables exist", len(d.tables), len(d.opts.Tables))
	return nil
}

func (d *doctor) checkTables(context.Context) error {
	for _, c := range []struct {
		id     string
		one    func(*table) []api.Check
		passed string
	}{
		{"tgt.write", d.write, "the role may write to every table that exists"},
		{"tgt.owner", d.owner, "the role may change the shape of every table that exists"},
		{"tgt.rls", d.rowSecurity, "row security stands in nobody's way"},
		{"tgt.columns", d.columns, "tables that exist have the source's columns"},
		{"tgt.types", d.types, "columns of tables that exist can hold the source's values"},
		{"tgt.pk", d.key, "tables that exist have the source's keys"},
		{"tgt.unique", d.unique, "no table has a unique key that the source's lacks"},
		{"tgt.triggers", d.triggers, "no trigger or foreign key acts on what the mirror writes"},
	} {
		var found []api.Check
		for _, t := range d.tables {
			found = append(found, c.one(t)...)
		}
		d.out.Each(c.id, found, "%s", c.passed)
	}
	return nil
}

// tablesAtOnce bounds the length of a question about many tables.
const tablesAtOnce = 200

// checkEmpty looks for rows in tables that the first copy would fill: with a key they collide, without one they stay
// beside the copy and nobody notices. Where mirrors are at work already the rows may be theirs.
func (d *doctor) checkEmpty(ctx context.Context) error {
	const id = "tgt.empty"
	if !d.opts.Copies {
		return nil
	}
	var asked []*table
	for _, t := range d.tables {
		if d.itself && d.opts.Selected(t.want.Name.Schema, t.want.Name.Name) {
			continue // a table of the source: tgt.loop says so, and nobody may empty it
		}
		if t.usage && !slices.Contains(t.lacks, "SELECT") { // else tgt.write says so
			asked = append(asked, t)
		}
	}
	severity := api.SeverityFatal
	var mirrors bool
	err := d.conn.QueryRow(ctx, `SELECT to_regclass('_weir.ledger') IS NOT NULL`).Scan(&mirrors)
	if err != nil && !denied(err) { // another role's ledger, which tgt.create tells of
		return fmt.Errorf("look for other mirrors: %w", err)
	}
	if mirrors {
		if err := d.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM _weir.ledger)`).Scan(&mirrors); err != nil && !denied(err) {
			return fmt.Errorf("look for other mirrors: %w", err)
		}
	}
	if mirrors || err != nil {
		severity = api.SeverityWarning
	}
	var found []api.Check
	for some := range slices.Chunk(asked, tablesAtOnce) {
		var sql strings.Builder
		for i, t := range some {
			if i > 0 {
				sql.WriteString(" UNION ALL ")
			}
			// What an interrupted start of ours has left is filled again.
			fmt.Fprintf(&sql, `SELECT %d WHERE EXISTS (SELECT FROM %s) AND coalesce(obj_description(%d, 'pg_class'), '') NOT LIKE 'weir: unfinished copy of %%'`, i, t.sql(), t.oid)
		}
		err := d.rows(ctx, "look for rows in the target's tables", sql.String(), func(r pgx.Rows) error {
			var i int
			if err := r.Scan(&i); err != nil {
				return err
			}
			t := some[i]
			if severity == api.SeverityWarning {
				found = append(found, finding(severity, errs.TargetTable, t.String(), "-- only if no mirror fills it: TRUNCATE "+t.sql()+";",
					"%s already holds rows: those of a mirror that is at work here, or others, to which the first copy of a new mirror would add its own", t))
				return nil
			}
			found = append(found, finding(severity, errs.TargetTable, t.String(), "TRUNCATE "+t.sql()+";", "%s already holds rows, and the first copy would add its own", t))
			return nil
		})
		if err != nil {
			return err
		}
	}
	d.out.Each(id, found, "tables that exist are empty")
	return nil
}

func denied(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "42501"
}

func (d *doctor) write(t *table) []api.Check {
	role := pg.Ident(d.server.role)
	var fixes []string
	if !t.usage {
		fixes = append(fixes, "GRANT USAGE ON SCHEMA "+pg.Ident(t.want.Name.Schema)+" TO "+role+";")
	}
	if len(t.lacks) > 0 {
		fixes = append(fixes, "GRANT "+strings.Join(t.lacks, ", ")+" ON "+t.sql()+" TO "+role+";")
	}
	if len(fixes) == 0 {
		return nil
	}
	return []api.Check{finding(api.SeverityFatal, errs.TargetRejected, t.String(), strings.Join(fixes, "\n"),
		"role %s lacks rights to %s: %s", d.server.role, t, strings.Join(t.lacks, ", "))}
}

func (d *doctor) owner(t *table) []api.Check {
	if t.owned {
		return nil
	}
	fix := "GRANT " + pg.Ident(t.owner) + " TO " + pg.Ident(d.server.role) + ";"
	if t.trusted {
		fix = "ALTER TABLE " + t.sql() + " OWNER TO " + pg.Ident(d.server.role) + ";"
	}
	return []api.Check{finding(api.SeverityWarning, errs.TargetDDL, t.String(), fix,
		"role %s does not own %s: when the source's table changes its shape, the mirror cannot follow", d.server.role, t)}
}

func (d *doctor) rowSecurity(t *table) []api.Check {
	if !t.rls {
		return nil
	}
	return []api.Check{finding(api.SeverityFatal, errs.TargetRejected, t.String(), "ALTER ROLE "+pg.Ident(d.server.role)+" BYPASSRLS;",
		"row security of %s applies to role %s: rows would be refused or not found", t, d.server.role)}
}

// columns: what the source has must be there; what only the target has must be able to stay empty.
func (d *doctor) columns(t *table) []api.Check {
	var found []api.Check
	wanted := map[string]bool{}
	for _, c := range t.want.Columns() {
		wanted[c.Name] = true
		have := t.have.Column(c.Name)
		switch {
		case have == nil && c.Generated == 0:
			found = append(found, finding(api.SeverityFatal, errs.TargetTable, t.String(),
				"ALTER TABLE "+t.sql()+" ADD COLUMN "+pg.Ident(c.Name)+" "+c.FormattedType+";", "%s lacks column %s %s", t, pg.Ident(c.Name), c.FormattedType))
		case have != nil && have.Generated != 0 && c.Generated == 0:
			found = append(found, finding(api.SeverityFatal, errs.TargetTable, t.String(),
				"ALTER TABLE "+t.sql()+" ALTER COLUMN "+pg.Ident(c.Name)+" DROP EXPRESSION;",
				"column %s of %s is generated on the target: it cannot take the source's values", pg.Ident(c.Name), t))
		case have != nil && have.NotNull && !c.NotNull && c.Generated == 0:
			found = append(found, finding(api.SeverityWarning, errs.TargetTable, t.String(),
				"ALTER TABLE "+t.sql()+" ALTER COLUMN "+pg.Ident(c.Name)+" DROP NOT NULL;",
				"column %s of %s is NOT NULL on the target only: a NULL of the source stops the mirror", pg.Ident(c.Name), t))
		}
	}
	if s := t.want.Options.SoftDelete; s != "" {
		wanted[s] = true
		if t.have.Column(s) == nil {
			found = append(found, finding(api.SeverityFatal, errs.TargetTable, t.String(),
				"ALTER TABLE "+t.sql()+" ADD COLUMN "+pg.Ident(s)+" timestamp with time zone;", "%s lacks the column %s that marks deleted rows", t, pg.Ident(s)))
		}
	}
	for i := range t.have.Columns {
		c := &t.have.Columns[i]
		if !wanted[c.Name] && c.NotNull && c.Default == "" && c.Identity == 0 && c.Generated == 0 {
			found = append(found, finding(api.SeverityFatal, errs.TargetTable, t.String(),
				"ALTER TABLE "+t.sql()+" ALTER COLUMN "+pg.Ident(c.Name)+" DROP NOT NULL;",
				"column %s of %s exists on the target only and must have a value, which the mirror does not bring", pg.Ident(c.Name), t))
		}
	}
	return found
}

func (d *doctor) types(t *table) []api.Check {
	var found []api.Check
	for _, c := range t.want.Columns() {
		have := t.have.Column(c.Name)
		if have == nil || c.Generated != 0 {
			continue
		}
		fit := fits(&c, have)
		if fit == same {
			continue
		}
		severity, how := api.SeverityFatal, "is another kind of value"
		if fit == narrower {
			severity, how = api.SeverityWarning, "cannot hold all of its values, or holds them changed"
		}
		typ := c.FormattedType
		found = append(found, finding(severity, errs.TargetTable, t.String(),
			"ALTER TABLE "+t.sql()+" ALTER COLUMN "+pg.Ident(c.Name)+" TYPE "+typ+" USING "+pg.Ident(c.Name)+"::text::"+typ+";",
			"column %s of %s is %s on the target and %s on the source, which %s", pg.Ident(c.Name), t, have.FormattedType, typ, how))
	}
	return found
}

// arbiter finds a unique index over exactly the given columns.
func arbiter(x *pg.Table, columns []string) bool {
	return slices.ContainsFunc(x.Indexes, func(i pg.Index) bool { return i.Arbiter() && equalSets(i.Columns, columns) })
}

func equalSets(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for _, c := range a {
		if !slices.Contains(b, c) {
			return false
		}
	}
	return true
}

// key: rows are found by the columns that the source sends with a delete. Without a unique index over them an update
// searches the whole table, and an upsert is impossible.
func (d *doctor) key(t *table) []api.Check {
	s := t.want.Source
	var columns []string
	switch {
	case s.Identity != 'f' && len(s.IdentityKey) > 0:
		columns = s.IdentityKey
	case s.PrimaryKey != nil:
		columns = s.PrimaryKey.Columns
	default:
		return nil
	}
	if arbiter(t.have, columns) {
		return nil
	}
	for _, c := range columns {
		if t.have.Column(c) == nil {
			return nil // tgt.columns has said so
		}
	}
	sql := "ALTER TABLE " + t.sql() + " ADD PRIMARY KEY (" + pg.Idents(columns) + ");"
	if t.have.PrimaryKey != nil {
		sql = "CREATE UNIQUE INDEX ON " + t.sql() + " (" + pg.Idents(columns) + ");"
	}
	return []api.Check{finding(api.SeverityFatal, errs.TargetTable, t.String(), sql, "%s has no unique index over the key %s", t, pg.Idents(columns))}
}

func (d *doctor) unique(t *table) []api.Check {
	var found []api.Check
	for _, x := range t.have.Indexes {
		if !x.Unique && !x.Exclusion {
			continue
		}
		known := slices.ContainsFunc(t.want.Source.Indexes, func(y pg.Index) bool {
			return (y.Unique || y.Exclusion) && equalSets(x.Columns, y.Columns) && (x.Predicate || !y.Predicate)
		})
		if known || slices.Contains(x.Columns, "") && x.Predicate {
			continue
		}
		drop := "DROP INDEX " + pg.Qualified(t.want.Name.Schema, x.Name) + ";"
		if x.ConstraintName != "" {
			drop = "ALTER TABLE " + t.sql() + " DROP CONSTRAINT " + pg.Ident(x.ConstraintName) + ";"
		}
		found = append(found, finding(api.SeverityWarning, errs.TargetConflict, t.String(), drop,
			"%s is unique by %s on the target only: two rows that the source allows can collide", t, x.Name))
	}
	return found
}

// triggers: as a replica the session fires none but those meant for replicas.
func (d *doctor) triggers(t *table) []api.Check {
	if d.server.replica {
		if len(t.always) == 0 {
			return nil
		}
		var fixes []string
		for _, g := range t.always {
			fixes = append(fixes, "ALTER TABLE "+t.sql()+" ENABLE TRIGGER "+pg.Ident(g)+";")
		}
		return []api.Check{finding(api.SeverityWarning, errs.TargetConflict, t.String(), strings.Join(fixes, "\n"),
			"%s has triggers that fire for mirrored rows too: %s", t, strings.Join(t.always, ", "))}
	}
	if t.enabled == 0 && t.foreign == 0 {
		return nil
	}
	fix := "ALTER TABLE " + t.sql() + " DISABLE TRIGGER USER;"
	if d.server.version >= 150000 {
		fix = "GRANT SET ON PARAMETER session_replication_role TO " + pg.Ident(d.server.role) + ";"
	}
	return []api.Check{finding(api.SeverityWarning, errs.TargetConflict, t.String(), fix,
		"role %s may not set session_replication_role: %s and %s of %s act on mirrored rows", d.server.role,
		api.Counted(t.enabled, "trigger", "triggers"), api.Counted(t.foreign, "foreign key", "foreign keys"), t)}
}
