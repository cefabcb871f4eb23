package typed

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
	"github.com/weirstream/weir/internal/pg"
)

// table is a Table as it is in the database.
type table struct {
	Table
	coders []coder
	keys   *row.KeyCodec
	// guarded: it has another unique index or an exclusion constraint, so that the order of its changes matters.
	guarded bool
	// cascades: rows of other tables follow those that are deleted, so that nothing may be deleted that comes back.
	cascades bool
	identity bool // a column of it is GENERATED ALWAYS AS IDENTITY, and written to

	putting, deleting string // SQL
	put, del          string // names of the prepared statements

	gone pending // keys to be deleted
	// latest is, of a guarded table, what the checkpoint so far does last to each key.
	latest map[keyHash]place
	seen   map[keyHash]int32
	hash   []keyHash
	rows   []int32
	key    []byte
}

// check holds the tables as they are declared against the database's catalog.
func (s *Sink) check(ctx context.Context) error {
	s.tables = nil
	for i := range s.opts.Tables {
		t := &table{Table: s.opts.Tables[i]}
		if err := s.checkTable(ctx, t); err != nil {
			return err
		}
		s.tables = append(s.tables, t)
	}
	return nil
}

func (s *Sink) checkTable(ctx context.Context, t *table) error {
	var oid *uint32
	if err := s.conn.QueryRow(ctx, `SELECT to_regclass($1::text)::oid`, pg.Qualified(t.Schema, t.Name)).Scan(&oid); err != nil {
		return fmt.Errorf("look for table %s: %w", t, err)
	}
	if oid == nil {
		return s.missing(ctx, t)
	}
	specs, err := pg.PeekShapes(ctx, s.conn, []uint32{*oid})
	if err != nil {
		return fmt.Errorf("look at table %s: %w", t, err)
	}
	if len(specs) == 0 {
		return s.missing(ctx, t)
	}
	spec := specs[0]
	if spec.Kind != 'r' && spec.Kind != 'p' {
		return errs.New(errs.TargetTable, "%s in %s is no table", t, s.opts.Config.Server()).WithHint("a table is written to: %s", t.ddl())
	}
	if spec.Persistence != 'p' {
		return errs.New(errs.TargetTable, "table %s is unlogged: a crash of the server would empty it, and what was written would be lost", t).
			WithHint("make it one that is logged").WithFix("ALTER TABLE " + pg.Qualified(t.Schema, t.Name) + " SET LOGGED;")
	}
	var defaults []string
	if err := s.conn.QueryRow(ctx, `SELECT coalesce(array_agg(attname::text), '{}') FROM pg_attribute WHERE attrelid = $1::oid AND atthasdef`, *oid).Scan(&defaults); err != nil {
		return fmt.Errorf("look at the defaults of table %s: %w", t, err)
	}
	if err := t.checkColumns(spec, defaults); err != nil {
		return err
	}
	if err := t.checkKey(spec); err != nil {
		return err
	}
	return s.checkRights(ctx, t, *oid)
}

func (s *Sink) missing(ctx context.Context, t *table) error {
	e := errs.New(errs.TargetTable, "there is no table %s in %s", t, s.opts.Config.Server())
	names, err := pg.ListTables(ctx, s.conn)
	if err != nil {
		return err
	}
	var all []string
	for _, n := range names {
		all = append(all, n.String())
	}
	if hint := nearest.Hint(t.String(), all); hint != "" {
		e = e.WithHint("%s or make it; case counts", hint)
	} else {
		e = e.WithHint("make it; 'table-name' = 'schema.table' names it, and case counts")
	}
	return e.WithFix(t.ddl())
}

// ddl makes the table as it is declared.
func (t *Table) ddl() string {
	var cols []string
	for i, c := range t.Columns {
		col := pg.Ident(c.Name) + " " + ddlType(c.Type)
		if c.Type.NotNull || slices.Contains(t.Key, i) {
			col += " NOT NULL"
		}
		cols = append(cols, col)
	}
	if t.Key != nil {
		cols = append(cols, "PRIMARY KEY ("+pg.Idents(t.keyNames())+")")
	}
	return "CREATE TABLE " + pg.Qualified(t.Schema, t.Name) + " (" + strings.Join(cols, ", ") + ");"
}

func (t *Table) keyNames() []string {
	var names []string
	for _, k := range t.Key {
		names = append(names, t.Columns[k].Name)
	}
	return names
}

func (t *table) checkColumns(spec *pg.Table, defaults []string) error {
	name := pg.Qualified(t.Schema, t.Name)
	for i, col := range t.Columns {
		have := spec.Column(col.Name)
		if have == nil {
			var all []string
			for _, x := range spec.Columns {
				all = append(all, x.Name)
			}
			e := errs.New(errs.TargetTable, "table %s has no column %s", t, col.Name).WithHint("it has %s; case counts", strings.Join(all, ", "))
			if hint := nearest.Hint(col.Name, all); hint != "" {
				e = e.WithHint("%s or add the column", hint)
			}
			return e.WithFix("ALTER TABLE " + name + " ADD COLUMN " + pg.Ident(col.Name) + " " + ddlType(col.Type) + ";")
		}
		isKey := slices.Contains(t.Key, i)
		switch {
		case have.Generated != 0:
			return errs.New(errs.TargetTable, "column %s of table %s is generated and cannot be written to", col.Name, t).WithHint("leave it out of the declaration")
		case have.Identity == 'a' && !isKey && t.Key != nil:
			return errs.New(errs.TargetTable, "column %s of table %s is GENERATED ALWAYS AS IDENTITY and cannot be updated", col.Name, t).
				WithFix("ALTER TABLE " + name + " ALTER COLUMN " + pg.Ident(col.Name) + " SET GENERATED BY DEFAULT;")
		case have.Identity == 'a':
			t.identity = true
		}
		c, err := coderOf(have, col.Type)
		if err != nil {
			e := errs.New(errs.TargetTable, "column %s of table %s is %s in the database and declared as %s", col.Name, t, have.FormattedType, col.Type).WithHint("%v", err)
			if fits, ok := ddlTypeOf(col.Type); ok {
				e = e.WithFix("ALTER TABLE " + name + " ALTER COLUMN " + pg.Ident(col.Name) + " TYPE " + fits + ";")
			}
			return e
		}
		t.coders = append(t.coders, c)
	}
	for _, c := range spec.Columns {
		if c.NotNull && !slices.Contains(defaults, c.Name) && c.Generated == 0 && c.Identity == 0 && t.Columns.Index(c.Name) < 0 {
			return errs.New(errs.TargetTable, "column %s of table %s is NOT NULL without a default, and the declaration leaves it out", c.Name, t).
				WithHint("declare and write it, or give it a default").
				WithFix("ALTER TABLE " + name + " ALTER COLUMN " + pg.Ident(c.Name) + " DROP NOT NULL;")
		}
	}
	return nil
}

// checkKey looks for an index that makes the declared key unique, and for others that have to be kept in mind.
func (t *table) checkKey(spec *pg.Table) error {
	if t.Key == nil {
		return nil
	}
	want := slices.Sorted(slices.Values(t.keyNames()))
	found := false
	for i := range spec.Indexes {
		x := &spec.Indexes[i]
		is := slices.Equal(slices.Sorted(slices.Values(x.Columns)), want)
		if x.Arbiter() && is {
			found = true
			continue
		}
		t.guarded = t.guarded || x.Unique && x.Immediate || x.Exclusion
	}
	if !found {
		fix := "ALTER TABLE " + pg.Qualified(t.Schema, t.Name) + " ADD "
		if spec.PrimaryKey == nil {
			fix += "PRIMARY KEY (" + pg.Idents(t.keyNames()) + ");"
		} else {
			fix += "UNIQUE (" + pg.Idents(t.keyNames()) + ");"
		}
		return errs.New(errs.TargetTable, "table %s is declared with PRIMARY KEY (%s), and no unique index of it has exactly these columns", t, strings.Join(t.keyNames(), ", ")).
			WithHint("declare the key that the table has, or give it one; a DEFERRABLE one does not do").WithFix(fix)
	}
	var types []row.Type
	for _, k := range t.Key {
		types = append(types, t.Columns[k].Type)
	}
	t.keys, t.seen, t.latest = row.GroupKey(types), map[keyHash]int32{}, map[keyHash]place{}
	return nil
}

func (s *Sink) checkRights(ctx context.Context, t *table, oid uint32) error {
	rights := []string{"INSERT"}
	if t.Key != nil {
		rights = []string{"SELECT", "INSERT", "UPDATE", "DELETE"}
	}
	var lacking *string
	err := s.conn.QueryRow(ctx, `SELECT string_agg(r, ', ') FROM unnest($2::text[]) AS r WHERE NOT has_table_privilege($1::oid, r)`, oid, rights).Scan(&lacking)
	if err != nil {
		return fmt.Errorf("look at the rights on table %s: %w", t, err)
	}
	if lacking != nil {
		return errs.New(errs.TargetTable, "role %s may not %s on table %s", s.opts.Config.User(), *lacking, t).WithHint("grant it").
			WithFix("GRANT " + strings.Join(rights, ", ") + " ON " + pg.Qualified(t.Schema, t.Name) + " TO " + pg.Ident(s.opts.Config.User()) + ";")
	}
	err = s.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = $1::oid AND confdeltype <> 'a' AND confdeltype <> 'r')`, oid).Scan(&t.cascades)
	if err != nil {
		return fmt.Errorf("look at who refers to table %s: %w", t, err)
	}
	return nil
}

// prepare makes the statements of every table.
func (s *Sink) prepare(ctx context.Context) error {
	for i, t := range s.tables {
		t.statements()
		t.put, t.del = fmt.Sprintf("put%d", i), fmt.Sprintf("del%d", i)
		if _, err := s.conn.PgConn().Prepare(ctx, t.put, t.putting, t.paramOIDs(nil)); err != nil {
			return fmt.Errorf("write to table %s: %w", t, err)
		}
		if t.Key == nil {
			continue
		}
		if _, err := s.conn.PgConn().Prepare(ctx, t.del, t.deleting, t.paramOIDs(t.Key)); err != nil {
			return fmt.Errorf("delete from table %s: %w", t, err)
		}
	}
	return nil
}

// paramOIDs are the types of a statement's parameters: one array for each of the columns, nil for all.
func (t *table) paramOIDs(cols []int) []uint32 {
	var out []uint32
	for _, c := range t.all(cols) {
		out = append(out, oids[t.coders[c].wire][1])
	}
	return out
}

func (t *table) all(cols []int) []int {
	if cols != nil {
		return cols
	}
	for c := range t.Columns {
		cols = append(cols, c)
	}
	return cols
}

// unnest is the rows that the parameters hold, as u(c0, c1, ...).
func unnest(n int) string {
	var params, names []string
	for i := range n {
		params, names = append(params, fmt.Sprintf("pg_catalog.unnest($%d)", i+1)), append(names, fmt.Sprintf("c%d", i))
	}
	return "ROWS FROM (" + strings.Join(params, ", ") + ") AS u(" + strings.Join(names, ", ") + ")"
}

func (t *table) statements() {
	name := pg.Qualified(t.Schema, t.Name)
	var cols, vals, sets []string
	for i, c := range t.Columns {
		id := pg.Ident(c.Name)
		cols, vals = append(cols, id), append(vals, fmt.Sprintf("u.c%d%s", i, t.coders[i].cast))
		if !slices.Contains(t.Key, i) {
			sets = append(sets, id+" = EXCLUDED."+id)
		}
	}
	overriding := ""
	if t.identity {
		overriding = " OVERRIDING SYSTEM VALUE"
	}
	t.putting = "INSERT INTO " + name + " (" + strings.Join(cols, ", ") + ")" + overriding + " SELECT " + strings.Join(vals, ", ") + " FROM " + unnest(len(cols))
	if t.Key == nil {
		return
	}
	t.putting += " ON CONFLICT (" + pg.Idents(t.keyNames()) + ") DO "
	if len(sets) == 0 {
		t.putting += "NOTHING"
	} else {
		t.putting += "UPDATE SET " + strings.Join(sets, ", ")
	}
	var same []string
	for i, k := range t.Key {
		same = append(same, fmt.Sprintf("t.%s = u.c%d%s", pg.Ident(t.Columns[k].Name), i, t.coders[k].same))
	}
	t.deleting = "DELETE FROM " + name + " AS t USING " + unnest(len(t.Key)) + " WHERE " + strings.Join(same, " AND ")
}

var _ pg.Querier = (*pgx.Conn)(nil)
