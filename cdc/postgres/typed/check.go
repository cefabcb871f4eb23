package typed

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
	"github.com/weirstream/weir/internal/pg"
)

// check holds the tables as they are declared against the database's catalog. It returns, for each table, the columns by
// which the log names its rows.
func (s *Source) check(ctx context.Context) (identity []map[string]bool, err error) {
	conn, err := pg.ConnectPgx(ctx, s.env, s.opts.Config, pg.ConnectOptions{AppName: "weir source check"})
	if err != nil {
		return nil, errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", s.opts.Config.Server(), err).Because(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	lost := func(err error) error {
		return errs.New(errs.SourceUnreachable, "source %s: %w", s.opts.Config.Server(), err).Because(err)
	}
	names, err := pg.ListTables(ctx, conn)
	if err != nil {
		return nil, lost(err)
	}
	var oids []uint32
	for _, t := range s.tables {
		at := slices.IndexFunc(names, func(n pg.TableName) bool { return n.Schema == t.Schema && n.Name == t.Name })
		if at < 0 {
			e := errs.New(errs.SourcePreflight, "there is no table %s in %s", t, s.opts.Config.Server())
			var all []string
			for _, n := range names {
				all = append(all, n.String())
			}
			if hint := nearest.Hint(t.String(), all); hint != "" {
				return nil, e.WithHint("%s", hint)
			}
			return nil, e.WithHint("'schema-name' and 'table-name' name it, and case counts")
		}
		n := names[at]
		if n.Kind != 'r' && n.Kind != 'p' || n.Persistence != 'p' || n.Apart || n.Parent != 0 {
			return nil, errs.New(errs.TableUnsupported, "%s cannot be read as a stream: views, foreign and unlogged tables have no log, and a partition is read through its partitioned table", t)
		}
		t.oid = n.OID
		oids = append(oids, n.OID)
	}
	specs, err := pg.PeekShapes(ctx, conn, oids)
	if err != nil {
		return nil, lost(err)
	}
	for _, t := range s.tables {
		at := slices.IndexFunc(specs, func(p *pg.Table) bool { return p.OID == t.oid })
		if at < 0 {
			return nil, errs.New(errs.SourcePreflight, "table %s was dropped at this moment", t)
		}
		if err := t.check(specs[at], s.opts.Config.Database()); err != nil {
			return nil, err
		}
		cols := map[string]bool{}
		for _, c := range specs[at].IdentityKey {
			cols[c] = true
		}
		identity = append(identity, cols)
	}
	if s.opts.KeepPublication {
		// What somebody else's publication sends of a table is the table, in the first copy, too.
		p, err := pg.LoadPublication(ctx, conn, s.opts.Publication)
		if err != nil {
			return nil, lost(err)
		}
		if p != nil {
			for _, t := range s.tables {
				t.filter = p.Tables[t.oid].Filter
			}
		}
	}
	return identity, nil
}

// check compares one table with the catalog and decides how its columns are read.
func (t *table) check(spec *pg.Table, database string) error {
	t.read = make([]reader, len(t.Columns))
	for c, col := range t.Columns {
		var err error
		if t.Metadata[c] != "" {
			if t.read[c], err = t.metadata(c, database); err != nil {
				return err
			}
			continue
		}
		have := spec.Column(col.Name)
		if have == nil {
			var all []string
			for _, x := range spec.Columns {
				all = append(all, x.Name)
			}
			e := errs.New(errs.SQLUnknownName, "table %s has no column %s", t, col.Name)
			if hint := nearest.Hint(col.Name, all); hint != "" {
				return e.WithHint("%s", hint)
			}
			return e.WithHint("it has %s; case counts", strings.Join(all, ", "))
		}
		if have.Generated != 0 {
			return errs.New(errs.SQLTypeMismatch, "column %s of table %s is generated, and the log does not carry it", col.Name, t).
				WithHint("declare it as a computed column: %s AS (...)", col.Name)
		}
		if t.read[c], err = readerOf(have, col.Type); err != nil {
			return errs.New(errs.SQLTypeMismatch, "column %s of table %s is %s in the database and declared as %s", col.Name, t, have.FormattedType, col.Type).WithHint("%v", err)
		}
		if col.Type.NotNull && !have.NotNull && !t.isKey(c) {
			return errs.New(errs.SQLTypeMismatch, "column %s of table %s may hold NULL and is declared NOT NULL", col.Name, t).
				WithHint("take NOT NULL out of the declaration, or ALTER TABLE %s ALTER COLUMN %s SET NOT NULL", t, pg.Ident(col.Name))
		}
	}
	return t.checkKey(spec)
}

// checkKey tells whether the log names the rows by the declared key.
func (t *table) checkKey(spec *pg.Table) error {
	full := "ALTER TABLE " + t.String() + " REPLICA IDENTITY FULL;"
	if t.Key == nil {
		if spec.Identity != 'f' {
			return errs.New(errs.SourcePreflight, "table %s is declared without a PRIMARY KEY, and its log does not hold the rows that go", t).
				WithHint("declare its key, or have the log hold whole rows: %s", full).WithFix(full)
		}
		return nil
	}
	key := map[string]bool{}
	for _, c := range t.Key {
		key[t.Columns[c].Name] = true
	}
	same := func(cols []string) bool {
		for _, c := range cols {
			if !key[c] {
				return false
			}
		}
		return len(cols) == len(key)
	}
	declared := strings.Join(slices.Sorted(maps.Keys(key)), ", ")
	if spec.Identity == 'f' {
		for _, x := range spec.Indexes {
			if x.Unique && x.Immediate && !x.Predicate && same(x.Columns) {
				return nil
			}
		}
		return errs.New(errs.SourcePreflight, "table %s is declared with PRIMARY KEY (%s), and nothing in the database makes those columns unique", t, declared).
			WithHint("declare the key that the table has, or none")
	}
	if !same(spec.IdentityKey) {
		have := strings.Join(spec.IdentityKey, ", ")
		if have == "" {
			have = "nothing"
		}
		return errs.New(errs.SourcePreflight, "table %s is declared with PRIMARY KEY (%s), and its log names rows by %s", t, declared, have).
			WithHint("declare the key that the table has, or have the log hold whole rows: %s", full)
	}
	return nil
}
