package joins

import (
	"fmt"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// LookupOptions describes a Lookup.
type LookupOptions struct {
	Name string
	// Left keeps rows that match nothing, with NULLs for the table's columns.
	Left bool
	// Input are the types of the rows that are looked up, Key their key columns, in the order of the table's.
	Input []row.Type
	Key   []int
	// Table is complete before the first row comes, and does not change afterwards.
	Table *Index
	// Output are the columns that are emitted: Input 0 is the row's side, 1 the table's.
	Output    []Column
	Condition Condition // may be nil; gets batches of the columns Tested
	Tested    []Column
}

// Lookup joins rows with a table that does not change. It keeps nothing of the rows: what a row matches is the same
// whenever it comes, and when it is taken back.
type Lookup struct {
	o       LookupOptions
	codec   *row.KeyCodec
	out     dataflow.Emitter
	clock   int64
	keys    row.Keys
	refs    []state.Ref
	keyed   []int32
	batch   row.Batch
	tested  columns
	output  columns
	at      []int32
	rows    [][]byte
	weights []int64
	sel     []int32
	matched []bool
	null    [1][]byte
}

// NewLookup returns a task's instance.
func NewLookup(task dataflow.Task, out dataflow.Emitter, o LookupOptions) (*Lookup, error) {
	l := &Lookup{o: o, codec: o.Table.o.Codec, out: out, clock: task.Clock(), tested: newColumns(o.Tested), output: newColumns(o.Output)}
	for _, c := range append(o.Output[:len(o.Output):len(o.Output)], o.Tested...) {
		if c.Input == 1 {
			if err := o.Table.check(c); err != nil {
				return nil, fmt.Errorf("lookup %s: %w", o.Name, err)
			}
		}
	}
	l.null[0] = o.Table.null
	return l, nil
}

// Process looks rows up.
func (l *Lookup) Process(_ int, b *row.Batch) error {
	l.batch = *b
	l.keyed = l.keyed[:0]
	for k := range b.Rows() {
		i := int32(b.At(k))
		null := false
		for _, c := range l.o.Key {
			null = null || b.Cols[c].Nulls.Is(int(i))
		}
		if !null || l.o.Table.o.NullsMatch {
			l.keyed = append(l.keyed, i)
		}
	}
	l.batch.Sel = l.keyed
	l.codec.Hash(&l.keys, &l.batch, l.o.Key)
	l.refs = grow(l.refs, b.Len)
	bag := l.o.Table.bag
	if err := bag.Keys().Find(&l.keys, &l.batch, l.refs); err != nil {
		return fmt.Errorf("lookup %s: %w", l.o.Name, err)
	}
	if l.o.Left {
		l.matched = grow(l.matched, b.Len)
		clear(l.matched)
	}
	bag.Near(&l.batch, l.refs)
	for _, i := range l.keyed {
		for n := bag.First(l.refs[i]); n != 0; n = bag.Next(n) {
			if len(l.weights) == row.MaxBatch {
				if err := l.emit(b); err != nil {
					return err
				}
			}
			l.at, l.rows, l.weights = append(l.at, i), append(l.rows, bag.Row(n)), append(l.weights, b.Weight(int(i))*bag.Weight(n))
		}
	}
	if err := l.emit(b); err != nil || !l.o.Left {
		return err
	}
	for k := range b.Rows() {
		if i := b.At(k); !l.matched[i] {
			l.at, l.rows, l.weights = append(l.at, int32(i)), append(l.rows, l.null[0]), append(l.weights, b.Weight(i))
		}
	}
	return l.send(b)
}

// emit tests the pairs at hand and passes those on that fulfil the condition.
func (l *Lookup) emit(b *row.Batch) error {
	if l.o.Condition != nil && len(l.weights) > 0 {
		t := l.fill(&l.tested, b)
		t.Weights = l.weights
		var err error
		if l.sel, err = l.o.Condition.Run(t, l.clock, l.sel[:0]); err != nil {
			return err
		}
		for to, k := range l.sel {
			l.at[to], l.rows[to], l.weights[to] = l.at[k], l.rows[k], l.weights[k]
		}
		n := len(l.sel)
		l.at, l.rows, l.weights = l.at[:n], l.rows[:n], l.weights[:n]
	}
	if l.o.Left {
		for _, i := range l.at {
			l.matched[i] = true
		}
	}
	return l.send(b)
}

func (l *Lookup) send(b *row.Batch) error {
	if len(l.weights) == 0 {
		return nil
	}
	out := l.fill(&l.output, b)
	out.Weights = nil
	for _, w := range l.weights {
		if w != 1 {
			out.Weights = l.weights
			break
		}
	}
	err := l.out.Emit(out)
	l.at, l.rows, l.weights = l.at[:0], l.rows[:0], l.weights[:0]
	return err
}

func (l *Lookup) fill(c *columns, b *row.Batch) *row.Batch {
	for k, col := range c.cols {
		v := &c.vectors[k]
		v.Truncate()
		if col.Input == 0 {
			v.Gather(l.o.Input[col.Column].Layout(), 0, b.Cols[col.Column], l.at, len(l.at))
			continue
		}
		x := l.o.Table
		codec := x.codec
		if l.o.Left {
			codec = x.padded
		}
		codec.Decode(v, 0, x.place[col.Column], l.rows)
	}
	c.batch.Len = len(l.weights)
	return &c.batch
}

// Barrier brings the clock on.
func (l *Lookup) Barrier(e dataflow.Epoch) error {
	l.clock = e.Clock
	return nil
}
