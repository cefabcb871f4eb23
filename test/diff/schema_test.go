package diff

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// class is a family of types whose values go into each other: of all whole numbers there is one.
type class struct {
	name     string
	types    []string // of columns, in Flink's words
	flink    string   // the type that a NULL is cast to
	postgres string
	values   []string // few, so that rows meet
	sample   string
	format   string // of a literal, in both dialects
	pgFormat string
}

func classes() []class {
	return []class{
		{name: "int", types: []string{"INT", "BIGINT", "SMALLINT"}, flink: "BIGINT", postgres: "bigint", values: []string{"0", "1", "2", "3", "5", "7", "-2"}, sample: "1", format: "%s", pgFormat: "(%s)::bigint"},
		{name: "decimal", types: []string{"DECIMAL(10, 2)", "DECIMAL(6, 1)"}, flink: "DECIMAL(12, 2)", postgres: "numeric", values: []string{"0.0", "1.5", "2.0", "3.5", "-1.5", "10.1"}, sample: "1.5", format: "%s", pgFormat: "(%s)::numeric"},
		{name: "double", types: []string{"DOUBLE"}, flink: "DOUBLE", postgres: "float8", values: []string{"0.25", "1", "1.5", "-2.75"}, sample: "1", format: "CAST(%s AS DOUBLE)", pgFormat: "(%s)::float8"},
		{name: "string", types: []string{"STRING", "VARCHAR(10)"}, flink: "STRING", postgres: "text", values: []string{"a", "b", "ab", "abc", "", "ann"}, sample: "a", format: "'%s'", pgFormat: "'%s'::text"},
		{name: "boolean", types: []string{"BOOLEAN"}, flink: "BOOLEAN", postgres: "boolean", values: []string{"true", "false"}, sample: "true", format: "%s"},
		{name: "date", types: []string{"DATE"}, flink: "DATE", postgres: "date", values: []string{"2024-01-01", "2024-02-29", "2023-12-31"}, sample: "2024-01-01", format: "DATE '%s'"},
		{name: "timestamp", types: []string{"TIMESTAMP(3)"}, flink: "TIMESTAMP(3)", postgres: "timestamp(3)", values: []string{"2024-01-01 00:00:00.000", "2024-01-01 12:30:00.500", "2023-12-31 23:59:59.999"}, sample: "2024-01-01 00:00:00.000", format: "TIMESTAMP '%s'"},
	}
}

func classNamed(name string) class {
	for _, c := range classes() {
		if c.name == name {
			return c
		}
	}
	panic("no class " + name)
}

func (c class) literal(v string) *node {
	n := &node{category: "expression " + c.name}
	if v == "NULL" {
		n.flink, n.postgres = "CAST(NULL AS "+c.flink+")", "CAST(NULL AS "+c.postgres+")"
		return n
	}
	n.flink = fmt.Sprintf(c.format, v)
	if c.pgFormat != "" {
		n.postgres = fmt.Sprintf(c.pgFormat, v)
	}
	return n
}

type tableColumn struct {
	name, typ, class string
	notNull          bool
}

type table struct {
	name    string
	columns []tableColumn
	key     int // columns of the primary key, which stand in front; 0: none
}

func (t *table) flink() string {
	var parts []string
	for _, c := range t.columns {
		n := ""
		if c.notNull {
			n = " NOT NULL"
		}
		parts = append(parts, c.name+" "+c.typ+n)
	}
	if t.key > 0 {
		var names []string
		for _, c := range t.columns[:t.key] {
			names = append(names, c.name)
		}
		parts = append(parts, "PRIMARY KEY ("+strings.Join(names, ", ")+") NOT ENFORCED")
	}
	return "CREATE TABLE " + t.name + " (" + strings.Join(parts, ", ") + ") WITH ('connector' = 'rows');\n"
}

func (t *table) postgres() string {
	var parts []string
	for _, c := range t.columns {
		parts = append(parts, c.name+" "+classNamed(c.class).postgres)
	}
	return "CREATE TABLE " + t.name + " (" + strings.Join(parts, ", ") + ")"
}

func randomTables(r *rand.Rand) []*table {
	var out []*table
	for i := range 2 + r.IntN(3) {
		t := &table{name: fmt.Sprintf("t%d", i)}
		cs := classes()
		for j := range 2 + r.IntN(4) {
			k := 0 // the first is a whole number, and whole numbers are more than others
			if j > 0 && r.IntN(3) > 0 {
				k = r.IntN(len(cs))
			}
			if cs[k].name == "double" && r.IntN(2) == 0 {
				k = 3
			}
			c := cs[k]
			t.columns = append(t.columns, tableColumn{name: string(rune('a' + j)), typ: c.types[r.IntN(len(c.types))], class: c.name, notNull: r.IntN(4) == 0})
		}
		if t.key = r.IntN(3); t.key == 2 && r.IntN(2) == 0 {
			t.key = 1
		}
		out = append(out, t)
	}
	return out
}

// change is a row of a table with its weight, as text by column.
type change struct {
	values []string
	weight int64
}

// transaction is the changes of one, by table.
type transaction map[string][]change

// randomHistory changes the tables in 5 to 15 transactions.
func randomHistory(r *rand.Rand, tables []*table) []transaction {
	var out []transaction
	rows := map[string][][]string{}
	for range 5 + r.IntN(11) {
		x := transaction{}
		for range 1 + r.IntN(7) {
			t := tables[r.IntN(len(tables))]
			have := rows[t.name]
			fresh := func() []string {
				var vs []string
				for i, c := range t.columns {
					v := "NULL"
					if i < t.key || c.notNull || r.IntN(4) > 0 {
						vals := classNamed(c.class).values
						v = vals[r.IntN(len(vals))]
					}
					vs = append(vs, v)
				}
				return vs
			}
			taken := func(vs []string, but int) bool {
				for i, h := range have {
					if t.key > 0 && i != but && strings.Join(h[:t.key], "|") == strings.Join(vs[:t.key], "|") {
						return true
					}
				}
				return false
			}
			switch op := r.IntN(10); {
			case op < 6 || len(have) == 0:
				if vs := fresh(); !taken(vs, -1) && len(have) < 12 {
					x[t.name] = append(x[t.name], change{vs, 1})
					rows[t.name] = append(have, vs)
				}
			case op < 8:
				i := r.IntN(len(have))
				vs := fresh()
				if r.IntN(2) == 0 {
					copy(vs[:t.key], have[i])
				}
				if !taken(vs, i) {
					x[t.name] = append(x[t.name], change{have[i], -1}, change{vs, 1})
					have[i] = vs
				}
			default:
				i := r.IntN(len(have))
				x[t.name] = append(x[t.name], change{have[i], -1})
				rows[t.name] = append(append([][]string(nil), have[:i]...), have[i+1:]...)
			}
		}
		out = append(out, x)
	}
	return out
}

// contents is what a table holds after the first n transactions.
func contents(history []transaction, n int, t *table) [][]string {
	count := map[string]int64{}
	rows := map[string][]string{}
	var order []string
	for _, x := range history[:n] {
		for _, c := range x[t.name] {
			k := strings.Join(c.values, "|")
			if rows[k] == nil {
				order = append(order, k)
			}
			rows[k] = c.values
			count[k] += c.weight
		}
	}
	var out [][]string
	for _, k := range order {
		for range count[k] {
			out = append(out, rows[k])
		}
	}
	return out
}
