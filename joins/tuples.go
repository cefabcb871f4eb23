package joins

import (
	"fmt"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// tuples gathers combinations of rows, one row of each input, and emits them a chunk at a time, so that a row which
// matches a million others takes no more memory than one which matches a thousand.
//
// The rows of one input may be those of a delta, named by their places there; all others are binary rows, lent by the
// indexes, that are turned into vectors column by column when the chunk is full.
type tuples struct {
	inputs    []*Index
	out       dataflow.Emitter
	condition Condition
	clock     int64
	tested    columns
	output    columns

	delta   *delta
	from    int // the input whose rows are the delta's; -1: there is none, and rows may be their index's null
	at      []int32
	rows    [][][]byte // by input
	weights []int64
	marks   []int64 // of a Mark join: whether the row has a match
	passed  int     // how many have fulfilled the condition; those behind have not been tested
	sel     []int32
}

// columns is a batch of columns of tuples.
type columns struct {
	cols    []Column
	vectors []row.Vector
	batch   row.Batch
}

func newColumns(cols []Column) columns {
	c := columns{cols: cols, vectors: make([]row.Vector, len(cols)), batch: row.Batch{Cols: make([]*row.Vector, len(cols))}}
	for i := range c.vectors {
		c.batch.Cols[i] = &c.vectors[i]
	}
	return c
}

func newTuples(out dataflow.Emitter, inputs []*Index, output []Column, condition Condition, tested []Column) (*tuples, error) {
	for _, c := range append(output[:len(output):len(output)], tested...) {
		if c == MarkColumn {
			continue
		}
		if c.Input < 0 || c.Input >= len(inputs) {
			return nil, fmt.Errorf("join of %d inputs: a column of input %d", len(inputs), c.Input)
		}
		if err := inputs[c.Input].check(c); err != nil {
			return nil, fmt.Errorf("join: %w", err)
		}
	}
	t := &tuples{inputs: inputs, out: out, condition: condition, tested: newColumns(tested), output: newColumns(output), rows: make([][][]byte, len(inputs))}
	t.at, t.weights = make([]int32, 0, row.MaxBatch), make([]int64, 0, row.MaxBatch)
	for i := range t.rows {
		t.rows[i] = make([][]byte, 0, row.MaxBatch)
	}
	return t, nil
}

// begin makes ready for tuples of input from's delta, or of binary rows alone if from is -1.
func (t *tuples) begin(from int, d *delta) {
	t.from, t.delta = from, d
	t.clear()
}

func (t *tuples) clear() {
	t.at, t.weights, t.marks, t.passed = t.at[:0], t.weights[:0], t.marks[:0], 0
	for i := range t.rows {
		t.rows[i] = t.rows[i][:0]
	}
}

// full tells that no tuple may be added.
func (t *tuples) full() bool { return len(t.weights) >= row.MaxBatch }

// test takes those tuples away that were not tested and do not fulfil the condition.
func (t *tuples) test() error {
	n := len(t.weights)
	if t.condition == nil || t.passed == n {
		t.passed = n
		return nil
	}
	b := t.fill(&t.tested, t.passed)
	b.Weights = t.weights[t.passed:]
	var err error
	if t.sel, err = t.condition.Run(b, t.clock, t.sel[:0]); err != nil {
		return err
	}
	to := t.passed
	for _, k := range t.sel {
		k := t.passed + int(k)
		t.weights[to] = t.weights[k]
		if t.from >= 0 {
			t.at[to] = t.at[k]
		}
		for i := range t.rows {
			if i != t.from {
				t.rows[i][to] = t.rows[i][k]
			}
		}
		to++
	}
	t.passed = to
	t.weights = t.weights[:to]
	if t.from >= 0 {
		t.at = t.at[:to]
	}
	for i := range t.rows {
		if i != t.from {
			t.rows[i] = t.rows[i][:to]
		}
	}
	return nil
}

// emit passes on all tuples; none is left. They have been tested.
func (t *tuples) emit() error {
	n := len(t.weights)
	if n == 0 {
		return nil
	}
	b := t.fill(&t.output, 0)
	b.Weights = nil
	for _, w := range t.weights {
		if w != 1 {
			b.Weights = t.weights
			break
		}
	}
	err := t.out.Emit(b)
	t.clear()
	return err
}

// fill makes vectors of the tuples from a number on.
func (t *tuples) fill(c *columns, first int) *row.Batch {
	n := len(t.weights) - first
	for k, col := range c.cols {
		v := &c.vectors[k]
		v.Truncate()
		if col == MarkColumn {
			v.Int64 = append(v.Int64, t.marks[first:]...)
			continue
		}
		x := t.inputs[col.Input]
		if col.Input == t.from {
			v.Gather(x.o.Input[col.Column].Layout(), 0, t.delta.Cols[col.Column], t.at[first:], n)
			continue
		}
		codec := x.codec
		if t.from < 0 {
			codec = x.padded
		}
		codec.Decode(v, 0, x.place[col.Column], t.rows[col.Input][first:])
	}
	c.batch.Len = n
	return &c.batch
}

// no is a vector of FALSE.
func (v *nulls) no(n int) *row.Vector {
	v.falses.Int64 = grow(v.falses.Int64, n)
	return &v.falses
}

// nulls are vectors of NULLs, as long as the batch that they are to stand in.
// Fresh memory is zero, as values under NULL bits are to be, and nobody writes to it.
type nulls struct {
	byLayout [row.LayoutBytes + 1]row.Vector
	falses   row.Vector
}

func (v *nulls) of(l row.Layout, n int) *row.Vector {
	o := &v.byLayout[l]
	switch l {
	case row.LayoutInt64:
		o.Int64 = grow(o.Int64, n)
	case row.LayoutFloat64:
		o.Float64 = grow(o.Float64, n)
	case row.LayoutDecimal:
		o.Decimal = grow(o.Decimal, n)
	case row.LayoutBytes:
		o.Spans = grow(o.Spans, n)
	}
	o.Nulls = grow(o.Nulls, (n+63)>>6)
	for k := range o.Nulls {
		o.Nulls[k] = ^uint64(0)
	}
	if n&63 != 0 {
		o.Nulls[len(o.Nulls)-1] = 1<<(n&63) - 1
	}
	return o
}
