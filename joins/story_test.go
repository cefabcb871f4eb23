package joins

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/weirstream/weir/engine/row"
)

// TestStories runs testdata. A story declares its graph, one node a line:
//
//	graph
//	index orders                          a source (key BIGINT, number INT, text STRING) and its index by key
//	index pairs from=NAME                 an index of what a join emits
//	join NAME KIND left right [less]      less: left number < right number
//	star NAME input input? ...            a question mark: by LEFT JOIN
//
// Options of an index: by=COLUMN,COLUMN (the key; by= is none), append, nulls-match. Joins emit all columns of their
// inputs, Semi and Anti those of the left.
//
//	changes       lines "orders +1 1 10 ann", - is NULL; consecutive lines of a source are a batch. Prints what is emitted.
//	barrier       clock=µs; prints what is emitted at the barrier, and asks the nested loop
//	checkpoint-and-restore
//	holds         prints what each join has emitted in all
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		b := newBed(t, 4)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			b.t = t
			switch d.Cmd {
			case "graph":
				for _, line := range strings.Split(d.Input, "\n") {
					declare(t, b, strings.Fields(line))
				}
				b.open()
			case "changes":
				sendLines(t, b, strings.Split(d.Input, "\n"))
			case "barrier":
				if d.HasArg("clock") {
					d.ScanArgs(t, "clock", &b.clock)
				}
				b.barrier()
				if !slices.ContainsFunc(b.nodes, func(n *node) bool { return n.index.TTL > 0 }) {
					b.verify()
				}
			case "checkpoint-and-restore":
				b.save()
				b.restore()
			case "holds":
				return b.print(func(n *node) multiset { return n.rows })
			default:
				d.Fatalf(t, "no command %s", d.Cmd)
			}
			return b.print(func(n *node) multiset {
				m := n.fresh
				n.fresh = multiset{}
				return m
			})
		})
		b.store.Close()
	})
}

func (b *bed) print(of func(n *node) multiset) string {
	var out []string
	for _, n := range b.nodes {
		if n.inputs != nil {
			out = append(out, of(n).lines(n.name+" ")...)
		}
	}
	if out == nil {
		return ""
	}
	return strings.Join(out, "\n") + "\n"
}

func (b *bed) named(t *testing.T, name string) *node {
	for _, n := range b.nodes {
		if n.name == name {
			return n
		}
	}
	t.Fatalf("no node %s", name)
	return nil
}

func declare(t *testing.T, b *bed, f []string) {
	n := &node{name: f[1]}
	add := func(name string) {
		x := b.named(t, name)
		for c := range 3 {
			if n.kind < Semi || len(n.inputs) == 0 {
				n.output = append(n.output, Column{len(n.inputs), c})
			}
		}
		n.inputs = append(n.inputs, x)
	}
	switch f[0] {
	case "index":
		types := []row.Type{{Kind: row.BigInt}, {Kind: row.Int}, {Kind: row.String}}
		o := IndexOptions{Name: f[1], Key: []int{0}, Columns: []int{0, 1, 2}, Retract: true}
		nulls := false
		for _, opt := range f[2:] {
			name, value, _ := strings.Cut(opt, "=")
			switch name {
			case "from":
				n.input = b.named(t, value)
				types = n.input.types
			case "by":
				o.Key = nil
				for _, c := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' }) {
					k, err := strconv.Atoi(c)
					must(t, err)
					o.Key = append(o.Key, k)
				}
			case "append":
				o.Retract = false
			case "nulls-match":
				nulls = true
			case "ttl":
				_, err := fmt.Sscan(value, &o.TTL)
				must(t, err)
			default:
				t.Fatalf("no option %s", opt)
			}
		}
		var key []row.Type
		for _, c := range o.Key {
			key = append(key, types[c])
		}
		if o.Codec = row.JoinKey(key); nulls {
			o.Codec, o.NullsMatch = row.GroupKey(key), true
		}
		if n.input == nil {
			n.input = b.add(&node{name: f[1] + " source", types: types})
		}
		n.index = o
	case "join":
		n.kind = map[string]Kind{"inner": Inner, "left": Left, "right": Right, "full": Full, "semi": Semi, "anti": Anti, "mark": Mark}[f[2]]
		add(f[3])
		add(f[4])
		if n.kind == Mark {
			n.output = append(n.output, MarkColumn)
		}
		n.condition = len(f) > 5
	case "star":
		for i, name := range f[2:] {
			name, optional := strings.CutSuffix(name, "?")
			if optional && n.left == nil {
				n.left = make([]bool, len(f)-2)
			}
			if optional {
				n.left[i] = true
			}
			add(name)
		}
	default:
		t.Fatalf("no node of kind %s", f[0])
	}
	b.add(n)
}

func sendLines(t *testing.T, b *bed, lines []string) {
	var rows []counted
	for i, line := range lines {
		f := strings.Fields(line)
		w, err := strconv.ParseInt(f[1], 10, 64)
		must(t, err)
		v := values{nil, nil, nil}
		for c, text := range f[2:5] {
			switch {
			case text == "-":
			case c < 2:
				n, err := strconv.ParseInt(text, 10, 64)
				must(t, err)
				v[c] = n
			default:
				v[c] = text
			}
		}
		rows = append(rows, counted{v, w})
		if i+1 == len(lines) || strings.Fields(lines[i+1])[0] != f[0] {
			b.named(t, f[0]+" source").change(rows, false)
			rows = nil
		}
	}
}

// TestManyMatches: a row that matches many thousands goes out in chunks, and a condition that few pairs fulfil does not
// make a batch for each chunk that was tested.
func TestManyMatches(t *testing.T) {
	for _, condition := range []bool{false, true} {
		b := newBed(t, 1)
		index := func(name string) *node {
			s := b.add(&node{name: name, types: []row.Type{{Kind: row.BigInt}, {Kind: row.Int}, {Kind: row.String}}})
			return b.add(&node{name: name + " index", input: s, index: IndexOptions{Name: name, Codec: row.JoinKey(nil), Columns: []int{0, 1, 2}, Retract: true}})
		}
		l, r := index("l"), index("r")
		j := b.add(&node{name: "j", kind: Full, inputs: []*node{l, r}, condition: condition, output: []Column{{0, 0}, {0, 1}, {1, 0}}})
		b.open()
		var rows []counted
		for i := range int64(3*row.MaxBatch + 5) {
			rows = append(rows, counted{values{i, i, fmt.Sprint(i)}, 1})
		}
		for from := 0; from < len(rows); from += row.MaxBatch {
			r.input.change(rows[from:min(from+row.MaxBatch, len(rows))], false)
		}
		limit := int64(len(rows) - 3)
		l.input.change([]counted{{values{int64(1), limit, "x"}, 2}}, false)
		b.barrier()
		matches := 0
		for _, c := range j.rows {
			if c.row[0] != nil && c.row[2] != nil {
				matches++
			}
		}
		if want := map[bool]int{false: len(rows), true: 2}[condition]; matches != want {
			t.Errorf("condition %v: %d matches, want %d", condition, matches, want)
		}
		if got, want := len(j.rows), len(rows); got != want {
			t.Errorf("condition %v: %d rows, want %d", condition, got, want)
		}
		b.store.Close()
	}
}
