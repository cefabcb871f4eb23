// Package conform is the suite that every Source and every Target passes.
//
// A part that passes it keeps the contract of engine/dataflow as the worker relies on it: nothing is visible before its
// cut, rows and state move together, an older generation is refused, a position read again gives exactly what follows
// it. The suite knows nothing of the database behind the part: a harness makes tables, reads them as an outsider does,
// and breaks connections. The simulator's models pass it too, or what the simulator proves would say nothing about the
// real parts.
package conform

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/weirstream/weir/engine/changelog"
)

// Row is one row's values as text, in the order of its table's columns.
type Row []string

// Null and Unsent stand for a value that is absent, and for one that the source left out of an image.
const (
	Null   = "\x00null"
	Unsent = "\x00unsent"
)

// Key gives a row's key. It is unique among rows.
func (r Row) Key(cols []int) string {
	var b strings.Builder
	for _, c := range cols {
		b.WriteString(strconv.Itoa(len(r[c])))
		b.WriteByte(':')
		b.WriteString(r[c])
	}
	return b.String()
}

func (r Row) String() string {
	return strings.ReplaceAll(strings.Join(r, "|"), Null, "NULL")
}

// Lines renders rows for comparison, sorted.
func Lines(rows []Row) []string {
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i] = r.String()
	}
	sort.Strings(out)
	return out
}

// The types a Column may have.
const (
	Int  = "int8"
	Text = "text"
)

// Column is a column of a Table.
type Column struct {
	Name, Type string
	Key        bool
}

// Table is a table that a harness makes. It lies in schema public. A table without key columns has no key at all, and
// its source identifies rows by all their values.
type Table struct {
	Name    string
	Columns []Column
	Unique  [][]string // further unique indexes, checked after each row as Postgres does
}

// KeyColumns are the indexes of the key's columns.
func (t Table) KeyColumns() []int {
	var key []int
	for i, c := range t.Columns {
		if c.Key {
			key = append(key, i)
		}
	}
	return key
}

// DDL creates the table in Postgres.
func (t Table) DDL() string {
	var cols, key []string
	for _, c := range t.Columns {
		cols = append(cols, c.Name+" "+c.Type)
		if c.Key {
			key = append(key, c.Name)
		}
	}
	if len(key) > 0 {
		cols = append(cols, "PRIMARY KEY ("+strings.Join(key, ", ")+")")
	}
	for _, u := range t.Unique {
		cols = append(cols, "UNIQUE ("+strings.Join(u, ", ")+")")
	}
	sql := fmt.Sprintf("CREATE TABLE public.%s (%s)", t.Name, strings.Join(cols, ", "))
	if len(key) == 0 {
		sql += fmt.Sprintf("; ALTER TABLE public.%s REPLICA IDENTITY FULL", t.Name)
	}
	return sql
}

// Relation describes the table as a source would.
func (t Table) Relation(id uint32) *changelog.Relation {
	rel := &changelog.Relation{ID: id, Version: 1, Schema: "public", Name: t.Name, Identity: changelog.IdentityFull}
	for _, c := range t.Columns {
		col := changelog.Column{Name: c.Name, TypeSchema: "pg_catalog", TypeName: c.Type, TypeMod: -1, Key: c.Key, TypeOID: 25}
		if c.Type == Int {
			col.TypeOID = 20
		}
		rel.Columns = append(rel.Columns, col)
		if c.Key {
			rel.Identity = changelog.IdentityKey
		}
	}
	if rel.Identity == changelog.IdentityFull {
		for i := range rel.Columns {
			rel.Columns[i].Key = true
		}
	}
	return rel
}

// Image encodes a row as sources send it, values as text.
func Image(r Row) changelog.Image {
	if r == nil {
		return nil
	}
	out := binary.BigEndian.AppendUint16(nil, uint16(len(r)))
	for _, v := range r {
		switch v {
		case Null:
			out = append(out, changelog.ValueNull)
		case Unsent:
			out = append(out, changelog.ValueUnsent)
		default:
			out = append(out, changelog.ValueText)
			out = binary.BigEndian.AppendUint32(out, uint32(len(v)))
			out = append(out, v...)
		}
	}
	return out
}

// Decode reads an image back; an absent one is nil.
func Decode(rel *changelog.Relation, im changelog.Image) Row {
	if len(im) == 0 {
		return nil
	}
	row := make(Row, 0, im.Columns())
	it := im.Iter()
	for i := 0; ; i++ {
		kind, raw := it.Next()
		switch kind {
		case 0:
			return row
		case changelog.ValueNull:
			row = append(row, Null)
		case changelog.ValueUnsent:
			row = append(row, Unsent)
		case changelog.ValueText:
			row = append(row, string(raw[4:]))
		case changelog.ValueBinary:
			row = append(row, binaryText(rel.Columns[i].TypeOID, raw[4:]))
		}
	}
}

func binaryText(oid uint32, b []byte) string {
	switch oid {
	case 20:
		return strconv.FormatInt(int64(binary.BigEndian.Uint64(b)), 10)
	case 23:
		return strconv.FormatInt(int64(int32(binary.BigEndian.Uint32(b))), 10)
	}
	return string(b)
}

// keyImage is the old image of a table with a key: the key's values, and nothing of the others.
func keyImage(t Table, r Row) Row {
	out := slices.Clone(r)
	for i, c := range t.Columns {
		if !c.Key {
			out[i] = Null
		}
	}
	return out
}

// A Change is one change of one row, for tests to write.
type Change struct {
	Table    Table
	Op       changelog.Op
	Old, New Row
}

// Insert, Update, Move, Delete make changes. Update keeps the key; Move changes it.
func Insert(t Table, row ...string) Change {
	return Change{Table: t, Op: changelog.Insert, New: row}
}

// Update sets a row's values; old is wanted for tables without a key.
func Update(t Table, old Row, row ...string) Change {
	return Change{Table: t, Op: changelog.Update, Old: old, New: row}
}

// Move changes a row's key.
func Move(t Table, old Row, row ...string) Change {
	return Change{Table: t, Op: changelog.Update, Old: keyImage(t, old), New: row}
}

// Delete removes a row.
func Delete(t Table, row ...string) Change {
	if len(t.KeyColumns()) > 0 {
		row = keyImage(t, row)
	}
	return Change{Table: t, Op: changelog.Delete, Old: row}
}

// Relations hands out one Relation for each table, as a source does.
type Relations struct {
	byName map[string]*changelog.Relation
}

// Of gives the relation of a table.
func (r *Relations) Of(t Table) *changelog.Relation {
	if r.byName == nil {
		r.byName = map[string]*changelog.Relation{}
	}
	rel := r.byName[t.Name]
	if rel == nil {
		rel = t.Relation(uint32(16384 + len(r.byName)))
		r.byName[t.Name] = rel
	}
	return rel
}

// Append puts a change into a batch.
func (r *Relations) Append(rows *changelog.Rows, c Change) {
	keyed := len(c.Table.KeyColumns()) > 0
	rows.Append(rows.UseRelation(r.Of(c.Table)), c.Op, keyed && c.Old != nil, Image(c.Old), Image(c.New))
}
