package joins

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// A bed is a graph of sources, indexes and joins in a task, beside it the multisets of what came in and went out, and
// the answer that a nested loop gives.
type bed struct {
	t       testing.TB
	groups  int
	backing *fake
	store   *state.Store
	nodes   []*node
	epoch   uint64
	clock   int64

	checkpoint, absorbed uint64
	pending              []*state.Delta
	saved                []multiset
}

// node is a source, an index or a join.
type node struct {
	name  string
	types []row.Type
	rows  multiset // what came in (source), or what the join has emitted
	fresh multiset // since it was last asked for
	feeds []*node  // indexes

	input *node // of an index
	index IndexOptions

	kind      Kind // of a join; 0: a star
	inputs    []*node
	left      []bool
	output    []Column
	condition bool

	op   dataflow.Operator
	busy bool // an index got something in this epoch
	bed  *bed
}

type values []any // int64, string or nil

func (v values) String() string {
	var b []byte
	for i, x := range v {
		if i > 0 {
			b = append(b, ' ')
		}
		switch x := x.(type) {
		case nil:
			b = append(b, '-')
		case int64:
			b = strconv.AppendInt(b, x, 10)
		case string:
			b = append(b, x...)
		}
	}
	return string(b)
}

type counted struct {
	row    values
	weight int64
}

type multiset map[string]counted

func (m multiset) add(r values, w int64) {
	k := r.String()
	if c := m[k]; c.weight+w == 0 {
		delete(m, k)
	} else {
		m[k] = counted{r, c.weight + w}
	}
}

func (m multiset) lines(prefix string) []string {
	var out []string
	for k, c := range m {
		out = append(out, fmt.Sprintf("%s%+d %s", prefix, c.weight, k))
	}
	sort.Strings(out)
	return out
}

// The Task of every operator.
func (b *bed) Index() int          { return 0 }
func (b *bed) Count() int          { return 1 }
func (b *bed) State() *state.Store { return b.store }
func (b *bed) Peer(n int) dataflow.Operator {
	return b.nodes[n].op
}
func (b *bed) Clock() int64 { return b.clock }

func (b *bed) Fault(dataflow.Fault) {}

func newBed(t testing.TB, groups int) *bed {
	return &bed{t: t, groups: groups, backing: newFake()}
}

func (b *bed) add(n *node) *node {
	n.bed, n.rows, n.fresh = b, multiset{}, multiset{}
	if n.index.Codec != nil {
		n.index.Input = n.input.types
		n.input.feeds = append(n.input.feeds, n)
	}
	for _, c := range n.output {
		if c == MarkColumn {
			n.types = append(n.types, row.Type{Kind: row.Boolean})
			continue
		}
		n.types = append(n.types, n.inputs[c.Input].input.types[c.Column].Nullable())
	}
	b.nodes = append(b.nodes, n)
	return n
}

// open makes the operators.
func (b *bed) open() {
	var err error
	b.store, err = state.New(state.Options{Groups: b.groups, Backing: b.backing})
	must(b.t, err)
	for _, n := range b.nodes {
		switch {
		case n.index.Codec != nil:
			n.op, err = NewIndex(b, n.index)
		case n.inputs == nil:
		case n.kind == 0:
			o := StarOptions{Left: n.left, Output: n.output}
			for _, x := range n.inputs {
				o.Inputs = append(o.Inputs, x.op.(*Index))
			}
			n.op, err = NewStar(n, o)
		default:
			o := Options{Name: n.name, Kind: n.kind, Left: n.inputs[0].op.(*Index), Right: n.inputs[1].op.(*Index), Output: n.output}
			if n.condition {
				o.Condition, o.Tested = less{}, []Column{{1, 1}, {0, 1}}
			}
			n.op, err = NewRegular(b, n, o)
		}
		must(b.t, err)
	}
}

// less is the condition "left column 1 < right column 1"; it gets them the other way round.
type less struct{}

func (less) Run(b *row.Batch, _ int64, sel []int32) ([]int32, error) {
	for k := range b.Rows() {
		i := b.At(k)
		if r, l := b.Cols[0], b.Cols[1]; !r.Nulls.Is(i) && !l.Nulls.Is(i) && l.Int64[i] < r.Int64[i] {
			sel = append(sel, int32(i))
		}
	}
	return sel, nil
}

func pass(l, r values) bool {
	x, ok1 := l[1].(int64)
	y, ok2 := r[1].(int64)
	return ok1 && ok2 && x < y
}

// Emit takes what a join emits.
func (n *node) Emit(b *row.Batch) error {
	if b.Rows() == 0 || b.Rows() > row.MaxBatch {
		n.bed.t.Errorf("join %s emits a batch of %d rows", n.name, b.Rows())
	}
	for k := range b.Rows() {
		i := b.At(k)
		if b.Weight(i) == 0 {
			n.bed.t.Errorf("join %s emits a row of weight 0", n.name)
		}
		r := decode(n.types, b, i)
		n.rows.add(r, b.Weight(i))
		n.fresh.add(r, b.Weight(i))
	}
	for _, f := range n.feeds {
		f.busy = true
		if err := f.op.Process(0, b); err != nil {
			return err
		}
	}
	return nil
}

func decode(types []row.Type, b *row.Batch, i int) values {
	r := make(values, len(types))
	for c, t := range types {
		v := b.Cols[c]
		switch {
		case v.Nulls.Is(i):
		case t.Layout() == row.LayoutBytes:
			r[c] = string(v.Bytes(i))
		default:
			r[c] = v.Int64[i]
		}
	}
	return r
}

// change sends rows from a source in one batch, of which nothing is left afterwards. With gaps the batch has rows that
// do not count.
func (n *node) change(rows []counted, gaps bool) {
	b := row.NewBuilder(n.types)
	b.Reset()
	var sel []int32
	put := func(c counted) {
		for k, x := range c.row {
			switch x := x.(type) {
			case nil:
				b.Cols[k].AppendNull(n.types[k].Layout())
			case int64:
				b.Cols[k].Int64 = append(b.Cols[k].Int64, x)
			case string:
				b.Cols[k].AppendString(x)
			}
		}
		b.EndRow(c.weight)
	}
	for i, c := range rows {
		if gaps && i%2 == 1 {
			put(rows[0])
		}
		sel = append(sel, int32(b.Len))
		put(c)
		n.rows.add(c.row, c.weight)
	}
	batch := b.Seal()
	if gaps {
		batch.Sel = sel
	}
	for _, f := range n.feeds {
		f.busy = true
		must(n.bed.t, f.op.Process(0, batch))
	}
	for _, v := range batch.Cols {
		for i := range v.Int64 {
			v.Int64[i] = -77
		}
		for i := range v.Heap {
			v.Heap[i] = '#'
		}
	}
}

// barrier ends the epoch. An index without input is not visited, or in every third epoch is.
func (b *bed) barrier() {
	b.epoch++
	for _, n := range b.nodes {
		if n.op != nil && (n.inputs != nil || n.busy || n.index.TTL > 0 || b.epoch%3 == 0) {
			must(b.t, n.op.Barrier(dataflow.Epoch{N: b.epoch, Clock: b.clock}))
		}
		n.busy = false
	}
	b.store.NextEpoch()
}

// verify compares what each join has emitted with the answer. It holds behind a barrier.
func (b *bed) verify() {
	b.t.Helper()
	for _, n := range b.nodes {
		if n.inputs == nil {
			continue
		}
		if got, want := strings.Join(n.rows.lines(""), "\n"), strings.Join(n.answer().lines(""), "\n"); got != want {
			b.t.Fatalf("epoch %d, join %s (%s): has emitted\n%s\nwant\n%s", b.epoch, n.name, n.about(), got, want)
		}
	}
}

func (n *node) about() string {
	s := fmt.Sprintf("kind %d, condition %v, left %v, output %v", n.kind, n.condition, n.left, n.output)
	for _, x := range n.inputs {
		s += fmt.Sprintf(", %s by %v retract %v", x.input.name, x.index.Key, x.index.Retract)
	}
	return s
}

// save makes a checkpoint, restore goes back to it.
func (b *bed) save() {
	b.checkpoint++
	d := &state.Delta{}
	b.store.TakeDelta(d, b.checkpoint)
	b.pending = append(b.pending, d)
	b.saved = nil
	for _, n := range b.nodes {
		b.saved = append(b.saved, maps.Clone(n.rows))
	}
}

func (b *bed) absorb(n int) {
	for range n {
		b.backing.apply(b.t, b.pending[0])
		b.pending = b.pending[1:]
		b.absorbed++
	}
	b.store.Absorbed(b.absorbed)
}

func (b *bed) restore() {
	b.absorb(len(b.pending))
	b.store.Close()
	for i, n := range b.nodes {
		n.rows, n.fresh = maps.Clone(b.saved[i]), multiset{}
	}
	b.open()
}

// answer is what a join's rows ought to be, by a nested loop over its inputs.
func (n *node) answer() multiset {
	out := multiset{}
	of := func(i int) []counted { return slices.Collect(maps.Values(n.inputs[i].input.rows)) }
	equal := func(i int, l values, k int, r values) bool {
		for c := range n.inputs[i].index.Key {
			x, y := l[n.inputs[i].index.Key[c]], r[n.inputs[k].index.Key[c]]
			if x != y || x == nil && !n.inputs[i].index.NullsMatch {
				return false
			}
		}
		return true
	}
	mark := int64(0)
	put := func(w int64, rows ...values) {
		var r values
		for _, c := range n.output {
			switch {
			case c == MarkColumn:
				r = append(r, mark)
			case rows[c.Input] == nil:
				r = append(r, nil)
			default:
				r = append(r, rows[c.Input][c.Column])
			}
		}
		out.add(r, w)
	}
	if n.kind == 0 {
		var product func(i int, w int64, rows []values)
		product = func(i int, w int64, rows []values) {
			if i == len(n.inputs) {
				put(w, rows...)
				return
			}
			found := false
			for _, c := range of(i) {
				if i == 0 || equal(0, rows[0], i, c.row) {
					found = true
					product(i+1, w*c.weight, append(rows[:i:i], c.row))
				}
			}
			if !found && n.left != nil && n.left[i] {
				product(i+1, w, append(rows[:i:i], nil))
			}
		}
		product(0, 1, nil)
		return out
	}
	matched := [2]map[string]bool{{}, {}}
	for _, l := range of(0) {
		for _, r := range of(1) {
			if equal(0, l.row, 1, r.row) && (!n.condition || pass(l.row, r.row)) {
				matched[0][l.row.String()], matched[1][r.row.String()] = true, true
				if n.kind <= Full {
					put(l.weight*r.weight, l.row, r.row)
				}
			}
		}
	}
	for side := range 2 {
		for _, c := range of(side) {
			match := matched[side][c.row.String()]
			if mark = 0; match {
				mark = 1
			}
			if n.kind.counts(side) && (match == (n.kind == Semi) || n.kind == Mark) {
				put(c.weight, [2][]values{{c.row, nil}, {nil, c.row}}[side]...)
			}
		}
	}
	return out
}

// fake is a Backing in a map: what Pebble and the log are together.
type fake struct {
	kv  map[string][]byte
	ids map[string]uint32
}

func newFake() *fake { return &fake{kv: map[string][]byte{}, ids: map[string]uint32{}} }

func (f *fake) Empty(id uint32) bool {
	for k := range f.kv {
		if binary.BigEndian.Uint32([]byte(k)[2:]) == id {
			return false
		}
	}
	return true
}

func (f *fake) Get(dst, key []byte) ([]byte, bool, error) {
	v, ok := f.kv[string(key)]
	return append(dst, v...), ok, nil
}

func (f *fake) Scan(prefix []byte, fn func(k, v []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(f.kv)) {
		if strings.HasPrefix(k, string(prefix)) {
			if err := fn([]byte(k), f.kv[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fake) ID(name string) (uint32, error) {
	if f.ids[name] == 0 {
		f.ids[name] = uint32(len(f.ids) + 1)
	}
	return f.ids[name], nil
}

func (f *fake) apply(t testing.TB, d *state.Delta) {
	d.Sort()
	must(t, d.Records(func(r state.Record) error {
		switch r.Op {
		case state.Set:
			f.kv[string(r.Key)] = bytes.Clone(r.Value)
		case state.Delete:
			delete(f.kv, string(r.Key))
		case state.DeleteBelow:
			for k := range f.kv {
				if len(k) == len(r.Key) && k[:len(k)-8] == string(r.Key[:len(k)-8]) && k < string(r.Key) {
					delete(f.kv, k)
				}
			}
		}
		return nil
	}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
