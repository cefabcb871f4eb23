package verify

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// pair finds the tables of both sides and decides how each pair is compared.
func (v *verifier) pair(ctx context.Context, conns *connections) error {
	names, err := pg.ListTables(ctx, conns.source)
	if err != nil {
		return err
	}
	picked, left := v.r.Selection.Pick(names)
	for _, l := range left {
		if !l.Part {
			v.report.Notes = append(v.report.Notes, fmt.Sprintf("%s is not compared: %s", l.Table, l.Why))
		}
	}
	if len(picked) == 0 {
		return errs.New(errs.NoTables, "no table of %s matches", v.r.Source.Server()).Because(errNoTables)
	}
	if v.r.Check {
		if err := v.r.Selection.Check(names, func() ([]pg.ColumnName, error) { return pg.ListColumns(ctx, conns.source, names) }); err != nil {
			return err
		}
	}
	var oids []uint32
	for _, n := range picked {
		oids = append(oids, n.OID)
	}
	sources, err := pg.LoadTables(ctx, conns.source, oids)
	if err != nil {
		return err
	}
	targets, err := loadTargets(ctx, conns.target)
	if err != nil {
		return err
	}
	from, err := readDatabase(ctx, conns.source)
	if err != nil {
		return err
	}
	to, err := readDatabase(ctx, conns.target)
	if err != nil {
		return err
	}
	wanted := map[[2]string]bool{}
	for _, s := range sources {
		schema, name := v.r.Selection.Route(s.Schema, s.Name)
		wanted[[2]string{schema, name}] = true
	}
	found, err := targets(wanted)
	if err != nil {
		return err
	}
	for _, s := range sources {
		schema, name := v.r.Selection.Route(s.Schema, s.Name)
		t := &table{report: api.VerifyTable{Source: s.String(), Target: pg.DottedName(schema, name)}}
		v.tables = append(v.tables, t)
		x := found[[2]string{schema, name}]
		if x == nil {
			t.report.Error = fmt.Sprintf("the target has no table %s", pg.Qualified(schema, name))
			continue
		}
		if why := v.match(t, s, x, from, to); why != "" {
			t.report.Error = why
		}
	}
	return nil
}

// loadTargets lists the target's tables and describes those that are wanted.
func loadTargets(ctx context.Context, conn *pgx.Conn) (func(map[[2]string]bool) (map[[2]string]*pg.Table, error), error) {
	names, err := pg.ListTables(ctx, conn)
	if err != nil {
		return nil, err
	}
	return func(wanted map[[2]string]bool) (map[[2]string]*pg.Table, error) {
		var oids []uint32
		for _, n := range names {
			if wanted[[2]string{n.Schema, n.Name}] {
				oids = append(oids, n.OID)
			}
		}
		tables, err := pg.LoadTables(ctx, conn, oids)
		if err != nil {
			return nil, err
		}
		out := make(map[[2]string]*pg.Table, len(tables))
		for _, t := range tables {
			out[[2]string{t.Schema, t.Name}] = t
		}
		return out, nil
	}, nil
}

// database is what decides over text.
type database struct {
	utf8    bool
	inOrder bool // text without COLLATE is ordered by bytes
}

func readDatabase(ctx context.Context, conn *pgx.Conn) (d database, err error) {
	err = conn.QueryRow(ctx, `
		SELECT current_setting('server_encoding') = 'UTF8',
		       datcollate IN ('C', 'POSIX') AND coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c'
		FROM pg_database d WHERE datname = current_database()`).Scan(&d.utf8, &d.inOrder)
	if err != nil {
		return d, fmt.Errorf("read the database's encoding: %w", err)
	}
	return d, nil
}

// match decides which columns are compared and by which key; it returns why the tables cannot be compared.
func (v *verifier) match(t *table, s, x *pg.Table, from, to database) string {
	t.source = side{table: s, from: only(s), where: v.r.Selection.Filter(s.Schema, s.Name), utf8: from.utf8 && to.utf8}
	t.target = side{table: x, from: only(x), utf8: t.source.utf8}
	if d := v.r.SoftDelete; d != "" && x.Column(d) != nil {
		t.target.where = pg.Ident(d) + " IS NULL"
	}
	for i := range s.Columns {
		c := &s.Columns[i]
		if v.r.Selection.Excluded(s.Schema, s.Name, c.Name) {
			continue
		}
		y := x.Column(c.Name)
		switch {
		case y == nil && c.Generated != 0:
			t.report.Notes = append(t.report.Notes, fmt.Sprintf("generated column %s is on the source only", pg.Ident(c.Name)))
			continue
		case y == nil:
			return fmt.Sprintf("the target's table has no column %s", pg.Ident(c.Name))
		}
		a, b, cast := columnTexts(c, y)
		if cast {
			t.cast = append(t.cast, fmt.Sprintf("%s (%s, at the target %s)", pg.Ident(c.Name), c.FormattedType, y.FormattedType))
		}
		t.source.names, t.target.names = append(t.source.names, c.Name), append(t.target.names, c.Name)
		t.source.columns, t.target.columns = append(t.source.columns, a), append(t.target.columns, b)
	}
	for i := range x.Columns {
		if name := x.Columns[i].Name; s.Column(name) == nil && name != v.r.SoftDelete {
			t.report.Notes = append(t.report.Notes, fmt.Sprintf("column %s is on the target only", pg.Ident(name)))
		}
	}
	key := keyOf(s)
	for _, name := range key {
		i := slices.Index(t.source.names, name)
		if i < 0 {
			key = nil
			break
		}
		t.source.key, t.target.key = append(t.source.key, i), append(t.target.key, i)
	}
	t.keyless = len(key) == 0
	t.report.Keyless = t.keyless
	if t.keyless {
		t.source.key, t.target.key = nil, nil
		return ""
	}
	t.ranged = true
	for _, name := range key {
		a, b := s.Column(name), x.Column(name)
		// Without length and precision, which would cut a key of the other side instead of not finding it.
		t.source.keyTypes = append(t.source.keyTypes, pg.Qualified(a.Type.Schema, a.Type.Name))
		t.target.keyTypes = append(t.target.keyTypes, pg.Qualified(b.Type.Schema, b.Type.Name))
		t.source.equals = append(t.source.equals, equals(&a.Type))
		t.target.equals = append(t.target.equals, equals(&b.Type))
		t.ranged = t.ranged && sameOrder(a, b, from, to)
	}
	return ""
}

// equals is the operator that the key's index uses. That of an extension's type lies in the extension's schema; without
// naming it, citext would be compared as text, and other types not at all.
func equals(typ *pg.Type) string {
	if t := base(typ); !t.Builtin() && t.Kind == 'b' && !t.Array {
		return "OPERATOR(" + pg.Ident(t.Schema) + ".=)"
	}
	return "="
}

// only reads a table without the tables that inherit from it, whose changes travel under their own names. Of a
// partitioned table it reads all partitions.
func only(t *pg.Table) string {
	if t.Kind == 'p' {
		return pg.Qualified(t.Schema, t.Name)
	}
	return "ONLY " + pg.Qualified(t.Schema, t.Name)
}

// keyOf names the columns by which a row of the source can be found again.
func keyOf(t *pg.Table) []string {
	if t.PrimaryKey != nil {
		return t.PrimaryKey.Columns
	}
	for i := range t.Indexes {
		x := &t.Indexes[i]
		full := x.Arbiter() && !slices.ContainsFunc(x.Columns, func(c string) bool { return !t.Column(c).NotNull })
		if full {
			return x.Columns
		}
	}
	return nil
}

// ordered are types whose values have the same order on every server. What is in one group compares alike.
var ordered = [...][]string{
	{"int2", "int4", "int8", "numeric", "oid"}, {"float4", "float8"}, {"date"}, {"timestamp"}, {"timestamptz"}, {"time"},
	{"uuid"}, {"bytea"}, {"bool"}, {"macaddr"}, {"macaddr8"}, {"pg_lsn"}, {"xid8"}, {"interval"},
}

// sameOrder tells whether two servers put a key column's values in the same order. Text is ordered by a collation,
// whose version may differ between them even under one name; only the order by bytes is the same everywhere. An enum's
// order is that of its labels, which may have been added in another order.
func sameOrder(a, b *pg.Column, from, to database) bool {
	x, y := base(&a.Type), base(&b.Type)
	if !x.Builtin() || !y.Builtin() {
		return false
	}
	for _, group := range ordered {
		if slices.Contains(group, x.Name) {
			return slices.Contains(group, y.Name)
		}
	}
	text := []string{"text", "varchar"}
	return slices.Contains(text, x.Name) && slices.Contains(text, y.Name) && byBytes(a, from) && byBytes(b, to)
}

func byBytes(c *pg.Column, d database) bool {
	switch c.Collation {
	case `pg_catalog."C"`, `pg_catalog."POSIX"`:
		return true
	case "":
		return d.inOrder && c.Type.Kind != 'd' // a domain may bring its own collation
	}
	return false
}

func base(t *pg.Type) *pg.Type {
	for t.BaseType != nil {
		t = t.BaseType
	}
	return t
}

// columnTexts gives for both sides the expression whose text is compared. Where the types differ, the source's value is
// brought into the form in which the target holds it, as it was when it was written there.
func columnTexts(a, b *pg.Column) (source, target string, cast bool) {
	source, target = "t."+pg.Ident(a.Name), "t."+pg.Ident(b.Name)
	x, y := base(&a.Type), base(&b.Type)
	if a.FormattedType == b.FormattedType || !y.Builtin() || x.Name == y.Name && a.Mod == b.Mod {
		return source + "::text", target + "::text", false
	}
	if y.Name == "text" || y.Name == "varchar" {
		// A cast to text is not always how a value is written: char loses its padding, a bool becomes true and not t.
		return "CASE WHEN " + source + " IS NOT NULL THEN concat(" + source + ") END", target + "::text", false
	}
	return "(" + source + "::" + b.FormattedType + ")::text", target + "::text", true
}
