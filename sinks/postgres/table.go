package postgres

import (
	"fmt"
	"strings"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/internal/pg"
)

// table is where the rows of one relation go, and how.
type table struct {
	rel    *changelog.Relation
	spec   *pg.Table
	schema string
	name   string
	cols   []column // one for each column of rel, in its order
	key    []int    // columns of rel that find a row; empty: the table has no key and rows are found by all their columns
	all    []int    // set if rows may share a key within a transaction: the columns that tell pending rows apart, all of them
	stored string   // soft delete: the column that tells deleted rows, "" if rows really go

	// careful: a unique index besides the key refused an order of updates, so touched rows are taken out before they
	// are put back (see apply.go).
	careful bool
	uniques bool // has unique indexes besides the key, or exclusion constraints

	count *tableCount
	buf   buffer
	// converted: some column's type differs from the source's, so that rows in binary cannot be handed to COPY.
	converted bool
	stmts     map[string]string // name of the prepared statement by what it does
	known     bool              // in the list of tables with something buffered
}

// column is one column's way into the target.
type column struct {
	name string // as in the target, quoted; "" when the column is not written (excluded, generated, dropped there)
	typ  string // the target's type, qualified and quoted, for casts
	// elem is the built-in type's number when arrays of it can be sent in binary; 0 when the values go as text[].
	elem     uint32
	elemName string
	plain    bool // text needs no cast
	// equals is the operator: "=", but for an extension's type that of its own schema. Sessions look only into
	// pg_catalog, where citext would be compared as text, and without its index.
	equals    string
	generated bool
}

func (t *table) qualified() string { return pg.Qualified(t.schema, t.name) }

// shape resolves the columns of rel against the target's table.
func (t *table) shape(rel *changelog.Relation, target *pg.Table, excluded func(column string) bool) error {
	t.rel, t.spec = rel, target
	t.cols = make([]column, len(rel.Columns))
	t.key, t.converted = t.key[:0], false
	t.stmts = map[string]string{}
	byName := make(map[string]*pg.Column, len(target.Columns))
	for i := range target.Columns {
		byName[target.Columns[i].Name] = &target.Columns[i]
	}
	index := make(map[string]int, len(rel.Columns))
	for i, c := range rel.Columns {
		index[c.Name] = i
		if c.LeftOut || excluded(c.Name) {
			continue
		}
		tc, ok := byName[c.Name]
		if !ok {
			return fmt.Errorf("table %s has no column %s", t.qualified(), pg.Ident(c.Name))
		}
		if tc.Generated != 0 {
			t.cols[i].generated = true
			continue
		}
		t.cols[i] = targetColumn(tc.Name, &tc.Type, rel.Binary)
		t.convert(&t.cols[i], &c, &tc.Type)
	}
	t.key = keyColumns(rel, target, index)
	t.all = t.all[:0]
	if rel.KeyShared && len(t.key) > 0 {
		for i := range rel.Columns {
			t.all = append(t.all, i)
		}
	}
	t.uniques = false
	for i := range target.Indexes {
		ix := &target.Indexes[i]
		if ix.Exclusion || ix.Unique && !sameColumns(ix.Columns, t.key, rel) {
			t.uniques = true
		}
		// Updates that exchange ranges are common, and there is seldom more than a few at once.
		t.careful = t.careful || ix.Exclusion
	}
	return nil
}

func targetColumn(name string, typ *pg.Type, binary bool) column {
	c := column{name: pg.Ident(name), typ: pg.Qualified(typ.Schema, typ.Name), equals: "="}
	base := typ
	for base.BaseType != nil {
		base = base.BaseType
	}
	if base.Kind == 'b' && base.Schema != "pg_catalog" && !base.Array {
		c.equals = "OPERATOR(" + pg.Ident(base.Schema) + ".=)"
	}
	if binary && base.Builtin() && pg.BinaryExact(*base) && !base.Array && strings.IndexByte("brm", base.Kind) >= 0 {
		c.elem, c.elemName = base.OID, pg.Qualified(base.Schema, base.Name)
		c.plain = base == typ
		return c
	}
	c.elem, c.elemName = textOID, `"pg_catalog"."text"`
	c.plain = typ.OID == textOID
	return c
}

// convert lets a column take binary values of another built-in type: they are sent as what they are and cast.
func (t *table) convert(c *column, from *changelog.Column, to *pg.Type) {
	for to.BaseType != nil {
		to = to.BaseType
	}
	if !t.rel.Binary || from.TypeSchema != "pg_catalog" || from.TypeOID == to.OID {
		return
	}
	t.converted = true
	c.elem, c.elemName, c.plain = from.TypeOID, pg.Qualified(from.TypeSchema, from.TypeName), false
}

const textOID = 25

// keyColumns are what finds a row: the relation's identity when it is a key, else the target's primary key if the
// source sends full old rows.
func keyColumns(rel *changelog.Relation, target *pg.Table, index map[string]int) []int {
	var key []int
	switch rel.Identity {
	case changelog.IdentityKey:
		for i, c := range rel.Columns {
			if c.Key {
				key = append(key, i)
			}
		}
	case changelog.IdentityFull, changelog.IdentityNothing:
		candidates := []*pg.Index{}
		if target.PrimaryKey != nil {
			candidates = append(candidates, target.PrimaryKey)
		}
		for _, ix := range candidates {
			key = key[:0]
			for _, name := range ix.Columns {
				i, ok := index[name]
				if !ok {
					key = nil
					break
				}
				key = append(key, i)
			}
			if len(key) > 0 {
				break
			}
		}
	}
	return key
}

func sameColumns(names []string, key []int, rel *changelog.Relation) bool {
	if len(names) != len(key) {
		return false
	}
	for _, n := range names {
		found := false
		for _, k := range key {
			if rel.Columns[k].Name == n {
				found = true
			}
		}
		if !found {
			return false
		}
	}
	return true
}

// columnList is the quoted names of the written columns.
func (t *table) columnList() string {
	var names []string
	for i := range t.cols {
		if t.cols[i].name != "" {
			names = append(names, t.cols[i].name)
		}
	}
	return strings.Join(names, ", ")
}

// copyBinary tells whether rows can be handed to COPY in the source's binary form.
func (t *table) copyBinary() bool { return t.rel.Binary }

func (t *table) copySQL() string {
	if t.copyBinary() {
		return "COPY " + t.qualified() + " (" + t.columnList() + ") FROM STDIN (FORMAT binary)"
	}
	return "COPY " + t.qualified() + " (" + t.columnList() + ") FROM STDIN"
}

// unnest renders the FROM item that turns array parameters for the given columns into rows of v.
func (t *table) unnest(cols []int, firstParam int) string {
	var args, names []string
	for i, c := range cols {
		args = append(args, fmt.Sprintf("$%d::%s[]", firstParam+i, t.cols[c].elemName))
		names = append(names, fmt.Sprintf("c%d", c))
	}
	return "unnest(" + strings.Join(args, ", ") + ") AS v(" + strings.Join(names, ", ") + ")"
}

// value is column c of v in the column's own type.
func (t *table) value(c int) string {
	if t.cols[c].plain {
		return fmt.Sprintf("v.c%d", c)
	}
	return fmt.Sprintf("v.c%d::%s", c, t.cols[c].typ)
}

func (t *table) matchKey(alias string) string {
	var conds []string
	for _, k := range t.key {
		conds = append(conds, alias+"."+t.cols[k].name+" "+t.cols[k].equals+" "+t.value(k))
	}
	return strings.Join(conds, " AND ")
}

func (t *table) isKey(c int) bool {
	for _, k := range t.key {
		if k == c {
			return true
		}
	}
	return false
}

// updateSQL sets the columns of set in the rows found by key; parameters are the key columns and then those of set.
func (t *table) updateSQL(into string, set []int) string {
	var assign []string
	for _, c := range set {
		assign = append(assign, t.cols[c].name+" = "+t.value(c))
	}
	return "UPDATE " + into + " AS t SET " + strings.Join(assign, ", ") +
		" FROM " + t.unnest(append(append([]int{}, t.key...), set...), 1) + " WHERE " + t.matchKey("t")
}

func (t *table) deleteSQL() string {
	if t.stored != "" {
		return "UPDATE " + t.qualified() + " AS t SET " + pg.Ident(t.stored) + " = now() FROM " + t.unnest(t.key, 1) +
			" WHERE " + t.matchKey("t")
	}
	return "DELETE FROM " + t.qualified() + " AS t USING " + t.unnest(t.key, 1) + " WHERE " + t.matchKey("t")
}

// upsertSQL inserts whole rows and overwrites those that are there: soft-deleted rows that came back.
func (t *table) upsertSQL(cols []int) string {
	var names, values, assign, keys []string
	for _, c := range cols {
		names = append(names, t.cols[c].name)
		values = append(values, t.value(c))
		if !t.isKey(c) {
			assign = append(assign, t.cols[c].name+" = EXCLUDED."+t.cols[c].name)
		}
	}
	for _, k := range t.key {
		keys = append(keys, t.cols[k].name)
	}
	if t.stored != "" {
		assign = append(assign, pg.Ident(t.stored)+" = NULL")
	}
	action := "DO NOTHING"
	if len(assign) > 0 {
		action = "DO UPDATE SET " + strings.Join(assign, ", ")
	}
	return "INSERT INTO " + t.qualified() + " AS t (" + strings.Join(names, ", ") + ") OVERRIDING SYSTEM VALUE SELECT " +
		strings.Join(values, ", ") + " FROM " + t.unnest(cols, 1) + " ON CONFLICT (" + strings.Join(keys, ", ") + ") " + action
}

// insertSQL inserts rows by arrays, where COPY cannot.
func (t *table) insertSQL(cols []int) string {
	var values []string
	for _, c := range cols {
		values = append(values, t.value(c))
	}
	return "INSERT INTO " + t.qualified() + " (" + t.columnList() + ") OVERRIDING SYSTEM VALUE SELECT " +
		strings.Join(values, ", ") + " FROM " + t.unnest(cols, 1)
}

// written are the columns that rows carry to the target.
func (t *table) written() []int {
	var cols []int
	for i := range t.cols {
		if t.cols[i].name != "" {
			cols = append(cols, i)
		}
	}
	return cols
}
