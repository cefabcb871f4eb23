package joins

import (
	"fmt"
	"slices"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// IndexOptions describes an Index.
type IndexOptions struct {
	// Name is that of its state, in which nothing else is kept.
	Name string
	// Input are the types of the rows that it gets.
	Input []row.Type
	// Key are the columns of the key, in the order of Codec: row.JoinKey of the types that the sides of the joins have in
	// common, so that equal keys have equal bytes. No columns (a cross join) make one key for all rows.
	Key   []int
	Codec *row.KeyCodec
	// NullsMatch: NULL is a value like any other (IS NOT DISTINCT FROM), for which Codec must have been made
	// (row.GroupKey of nullable types). Otherwise rows with a NULL in the key match nothing and are not kept.
	NullsMatch bool
	// Columns are the columns that are kept: those that any join puts out or tests. Rows that are equal in them are one
	// row with the sum of their weights.
	Columns []int
	// Retract: rows may be taken back. Without it every weight is above 0 and memory is saved. A side whose rows a join
	// with a Condition gives where they match something, or nothing (Left, Right, Full, Semi, Anti), needs it in any case.
	Retract bool
	// TTL, in µs, lets the rows of a key go that was not touched for that long; 0: they stay. It needs Retract, and joins
	// of kind Inner, or a Star without LEFT JOIN: only there what is given does not depend on what is missing. Its state has
	// the name of the index and "/touched".
	TTL int64
}

// Index keeps the rows of its one input by key and emits nothing: joins read it. They attach to it when they are made.
//
// It handles one delta (a batch) at a time, from the finding of its entries to the last join: the joins that need the
// index without the delta are called, then the delta is applied, then the joins that need it applied are called. A join's
// change is then the delta on one side times the other side as it stands, and nothing is counted twice: of two deltas,
// exactly the later one sees the earlier one.
//
// What a join emits may go straight into another index of the task, whose joins may read this one. That is within the
// call, so such a join meets the other index's delta applied and this one's not, or the other way round. Joins are
// attached in the order of the graph, and called in this order before the delta is applied, in the reverse order
// afterwards: a delta that comes of this one has always run through before the join that reads both is called with this
// one.
type Index struct {
	o       IndexOptions
	codec   *row.Codec // of the kept columns
	padded  *row.Codec // the same bytes, of which every column may be NULL
	null    []byte     // the row that is all NULL
	place   []int      // where an input column is among the kept ones, -1 if it is not
	bag     *state.Bag
	before  []port // called before the delta is applied
	after   []port // called afterwards, the last one first
	delta   delta
	changes *changes // of the epoch; nil if no join asks
	keyless []int32
	keyed   []int32
	expiry  *expiry // nil without TTL
}

// port is a join's end at an index.
type port interface {
	// matched takes the rows of a delta that have a key.
	matched(d *delta) error
	// unmatched takes rows with a NULL in the key.
	unmatched(b *row.Batch) error
}

// delta is the rows of a batch that have a key, with what the index found out about them. Everything lies at the rows'
// places in the batch.
type delta struct {
	row.Batch
	keys  row.Keys
	refs  []state.Ref // their entries in the index
	spans []row.Span  // the binary rows of their kept columns, in heap
	heap  []byte
	kept  []*row.Vector
}

// bytes is the binary row of place i.
func (d *delta) bytes(i int32) []byte {
	s := d.spans[i]
	return d.heap[s.Off : s.Off+s.Len : s.Off+s.Len]
}

// NewIndex opens the index's state in the task.
func NewIndex(task dataflow.Task, o IndexOptions) (*Index, error) {
	x := &Index{o: o, place: make([]int, len(o.Input))}
	if len(o.Key) != len(o.Codec.Columns()) {
		return nil, fmt.Errorf("index %s: %d key columns for a codec of %d", o.Name, len(o.Key), len(o.Codec.Columns()))
	}
	for i := range x.place {
		x.place[i] = -1
	}
	types, nullable := make([]row.Type, len(o.Columns)), make([]row.Type, len(o.Columns))
	for k, c := range o.Columns {
		types[k], nullable[k] = o.Input[c], o.Input[c].Nullable()
		x.place[c] = k
	}
	x.codec, x.padded = row.NewCodec(types), row.NewCodec(nullable)
	nulls := row.NewBuilder(nullable)
	for k, t := range nullable {
		nulls.Cols[k].AppendNull(t.Layout())
	}
	x.null = x.padded.AppendColumns(nil, nulls.Cols, 0)
	x.delta.kept = make([]*row.Vector, len(o.Columns))
	var err error
	if x.bag, err = task.State().Bag(o.Name, o.Codec, o.Retract); err != nil || o.TTL == 0 {
		return x, err
	}
	if !o.Retract {
		return nil, fmt.Errorf("index %s: a TTL without retractions", o.Name)
	}
	x.expiry, err = newExpiry(task, x)
	return x, err
}

// attach adds a join's port. after: the join needs the index with the delta applied.
func (x *Index) attach(p port, after bool) {
	if after {
		x.after = append(x.after, p)
	} else {
		x.before = append(x.before, p)
	}
}

// track makes the index remember what an epoch changes, for a join that speaks at the barrier: the sums of the changed
// keys, and with rows their changed rows.
func (x *Index) track(rows bool) {
	if x.changes == nil {
		x.changes = &changes{bag: x.bag, intKey: x.o.Codec.IntKey()}
	}
	x.changes.withRows = x.changes.withRows || rows
}

// check tells whether a join may use a column.
func (x *Index) check(c Column) error {
	if c.Column < 0 || c.Column >= len(x.place) || x.place[c.Column] < 0 {
		return fmt.Errorf("index %s keeps no column %d", x.o.Name, c.Column)
	}
	return nil
}

// Process takes a batch of the input; there is only port 0.
func (x *Index) Process(_ int, b *row.Batch) error {
	if err := x.split(b); err != nil {
		return err
	}
	d := &x.delta
	if x.expiry != nil {
		x.expiry.hold(d)
	}
	if d.Rows() == 0 {
		return nil
	}
	x.o.Codec.Hash(&d.keys, &d.Batch, x.o.Key)
	d.refs = grow(d.refs, d.Len)
	if err := x.bag.Keys().FindOrAdd(&d.keys, &d.Batch, d.refs); err != nil {
		return fmt.Errorf("index %s: find the keys: %w", x.o.Name, err)
	}
	x.encode()
	return x.pass()
}

// pass shows the delta to the joins and brings it into the state.
func (x *Index) pass() error {
	d := &x.delta
	for _, p := range x.before {
		if err := p.matched(d); err != nil {
			return err
		}
	}
	if err := x.apply(); err != nil {
		return err
	}
	for _, p := range slices.Backward(x.after) {
		if err := p.matched(d); err != nil {
			return err
		}
	}
	return nil
}

// split sets the delta to the rows of b that have a key and hands the others to the joins.
func (x *Index) split(b *row.Batch) error {
	d := &x.delta
	d.Batch = *b
	nulls := false
	for _, c := range x.o.Key {
		nulls = nulls || len(b.Cols[c].Nulls) != 0
	}
	if !nulls || x.o.NullsMatch {
		return nil
	}
	x.keyed, x.keyless = x.keyed[:0], x.keyless[:0]
	for k := range b.Rows() {
		i := b.At(k)
		null := false
		for _, c := range x.o.Key {
			null = null || b.Cols[c].Nulls.Is(i)
		}
		if null {
			x.keyless = append(x.keyless, int32(i))
		} else {
			x.keyed = append(x.keyed, int32(i))
		}
	}
	if len(x.keyless) == 0 {
		return nil
	}
	if d.Sel = x.keyed; len(x.keyed) == 0 {
		d.Batch = row.Batch{}
	}
	without := *b
	without.Sel = x.keyless
	for _, ports := range [2][]port{x.before, x.after} {
		for _, p := range ports {
			if err := p.unmatched(&without); err != nil {
				return err
			}
		}
	}
	return nil
}

// encode makes the binary rows of the delta.
func (x *Index) encode() {
	d := &x.delta
	for k, c := range x.o.Columns {
		d.kept[k] = d.Cols[c]
	}
	d.spans, d.heap = grow(d.spans, d.Len), d.heap[:0]
	for k := range d.Rows() {
		i, off := d.At(k), len(d.heap)
		d.heap = x.codec.AppendColumns(d.heap, d.kept, i)
		d.spans[i] = row.Span{Off: uint32(off), Len: uint32(len(d.heap) - off)}
	}
}

// apply brings the delta into the state.
func (x *Index) apply() error {
	d := &x.delta
	if x.changes != nil {
		x.changes.begin()
		for k := range d.Rows() {
			i := d.At(k)
			x.changes.note(d, i, d.bytes(int32(i)), d.Weight(i))
		}
	}
	if x.expiry != nil {
		if err := x.expiry.touch(d); err != nil {
			return fmt.Errorf("index %s: %w", x.o.Name, err)
		}
	}
	if err := x.bag.AddAll(&d.Batch, &d.keys, d.refs, d.spans, d.heap); err != nil {
		return fmt.Errorf("index %s: %w", x.o.Name, err)
	}
	return nil
}

// Barrier ends the epoch.
func (x *Index) Barrier(e dataflow.Epoch) error {
	if x.expiry != nil {
		if err := x.expiry.barrier(e.Clock); err != nil {
			return err
		}
	}
	if x.changes != nil {
		x.changes.end(e.N)
	}
	return nil
}

// grow makes s of length n. What it holds is undefined.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, max(n, 2*cap(s)))
	}
	return s[:n]
}
