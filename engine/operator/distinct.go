package operator

import (
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// distinct is the values of an argument by group, for all calls with DISTINCT of it: a call is told when a value appears
// or goes. The calls differ in their filters.
//
// Where the input retracts it counts, for each value and filter, the rows. Where it only grows a bit for each filter does,
// so that a value which comes again changes nothing and is not written again.
//
// The key is the group's key bytes and those of the argument, which is not NULL, behind them.
type distinct struct {
	arg     int
	layout  row.Layout
	filters []int // a counter or bit for each
	values  *state.Map
	group   *row.KeyCodec
	codec   *row.KeyCodec // of the argument
	cols    [1]int
	keys    row.Keys
	refs    []state.Ref
	batch   row.Batch // the rows whose argument is not NULL
	sel     []int32
	bits    bool
	fresh   []uint64  // with bits: for each row, the filters for which its value is new
	deltas  [][]int64 // otherwise, for each filter and row: how the number of its values changes, -1, 0 or 1
}

// maxBits is how many filters a set of bits has room for.
const maxBits = 64

func newDistinct(arg int, t row.Type, group *row.KeyCodec) *distinct {
	return &distinct{arg: arg, layout: t.Layout(), group: group, codec: row.GroupKey([]row.Type{t.Required()}), cols: [1]int{arg}}
}

// open opens the state, after every call has its slot.
func (d *distinct) open(s *state.Store, name string, retract bool) error {
	d.bits = !retract && len(d.filters) <= maxBits
	size := 8
	if !d.bits {
		size = 8 * len(d.filters)
		d.deltas = make([][]int64, len(d.filters))
	}
	codec := d.codec
	if len(d.group.Columns()) > 0 {
		types := make([]row.Type, 0, len(d.group.Columns())+1)
		for _, c := range d.group.Columns() {
			types = append(types, c.Type)
		}
		codec = row.GroupKey(append(types, d.codec.Columns()[0].Type))
	}
	var err error
	d.values, err = s.Map(name, codec, size, nil)
	return err
}

// slotOf is the place of a filter, made at the first call for it.
func (d *distinct) slotOf(filter int) int {
	for i, f := range d.filters {
		if f == filter {
			return i
		}
	}
	d.filters = append(d.filters, filter)
	return len(d.filters) - 1
}

// delta is by how much the number of values changes that a filter lets through, at row i of the batch.
func (d *distinct) delta(slot, i int) int64 {
	if d.bits {
		return int64(d.fresh[i] >> slot & 1)
	}
	return d.deltas[slot][i]
}

// count takes a batch's values in; groups are the keys of its rows' groups.
func (d *distinct) count(b *row.Batch, groups *row.Keys) error {
	d.batch = *b
	if v := b.Cols[d.arg]; len(v.Nulls) != 0 {
		d.sel = grow(d.sel, b.Len)[:0] // not nil, which would select all rows
		for k := range b.Rows() {
			if i := b.At(k); !v.Nulls.Is(i) {
				d.sel = append(d.sel, int32(i))
			}
		}
		d.batch.Sel = d.sel
	}
	d.hash(groups)
	d.refs = grow(d.refs, b.Len)
	if err := d.values.FindOrAdd(&d.keys, &d.batch, d.refs); err != nil {
		return err
	}
	if d.bits {
		d.mark()
		return nil
	}
	for slot := range d.filters {
		d.countSlot(slot)
	}
	if b.Weights != nil {
		d.sweep()
	}
	return nil
}

// hash makes the keys.
func (d *distinct) hash(groups *row.Keys) {
	if len(d.group.Columns()) == 0 {
		d.codec.Hash(&d.keys, &d.batch, d.cols[:])
		return
	}
	k, arg := &d.keys, d.batch.Cols[d.arg]
	k.Hash, k.Spans, k.Heap = grow(k.Hash, d.batch.Len), grow(k.Spans, d.batch.Len), k.Heap[:0]
	ints := d.group.IntKey()
	for n := range d.batch.Rows() {
		i, off := d.batch.At(n), len(k.Heap)
		if ints {
			k.Heap = row.AppendIntKey(k.Heap, groups.Int[i], d.group.IntKeyWidth())
		} else {
			k.Heap = append(k.Heap, groups.Bytes(i)...)
		}
		if d.layout == row.LayoutInt64 {
			k.Heap = row.AppendIntKey(k.Heap, arg.Int64[i], d.codec.IntKeyWidth())
		} else {
			k.Heap = d.codec.Append(k.Heap, &d.batch, d.cols[:], i)
		}
		k.Spans[i] = row.Span{Off: uint32(off), Len: uint32(len(k.Heap) - off)}
		k.Hash[i] = row.HashBytes(k.Heap[off:])
	}
}

// mark sets the bits of the batch's values, and fresh to those that were not set.
func (d *distinct) mark() {
	d.fresh = grow(d.fresh, d.batch.Len)
	clear(d.fresh)
	for slot, f := range d.filters {
		bit := uint64(1) << slot
		if f < 0 {
			for k := range d.batch.Rows() {
				d.fresh[d.batch.At(k)] |= bit
			}
			continue
		}
		filter := d.batch.Cols[f]
		for k := range d.batch.Rows() {
			if i := d.batch.At(k); filter.Int64[i] != 0 && !filter.Nulls.Is(i) {
				d.fresh[i] |= bit
			}
		}
	}
	for k := range d.batch.Rows() {
		i := d.batch.At(k)
		value := d.values.Value(d.refs[i])
		have := uint64(getInt64(value))
		fresh := d.fresh[i] &^ have
		if d.fresh[i] = fresh; fresh != 0 {
			d.values.Touch(d.refs[i])
			putInt64(value, int64(have|fresh))
		}
	}
}

// countSlot adds the batch's weights to the counters of one filter.
func (d *distinct) countSlot(slot int) {
	d.deltas[slot] = grow(d.deltas[slot], d.batch.Len)
	deltas := d.deltas[slot]
	clear(deltas)
	var filter *row.Vector
	if f := d.filters[slot]; f >= 0 {
		filter = d.batch.Cols[f]
	}
	for k := range d.batch.Rows() {
		i := d.batch.At(k)
		if filter == nil || filter.Int64[i] != 0 && !filter.Nulls.Is(i) {
			deltas[i] = d.change(i, slot, d.batch.Weight(i))
		}
	}
}

// change adds w to a value's counter and says by how much the number of values that are there changes: -1, 0 or 1.
func (d *distinct) change(i, slot int, w int64) int64 {
	d.values.Touch(d.refs[i])
	c := d.values.Value(d.refs[i])[slot*8:]
	old := getInt64(c)
	putInt64(c, old+w)
	switch {
	case old <= 0 && old+w > 0:
		return 1
	case old > 0 && old+w <= 0:
		return -1
	}
	return 0
}

// sweep removes the values of the batch whose counters are all zero.
func (d *distinct) sweep() {
	for k := range d.batch.Rows() {
		i := d.batch.At(k)
		r := d.refs[i]
		if r == 0 {
			continue
		}
		zero := true
		for _, c := range d.values.Value(r) {
			if c != 0 {
				zero = false
				break
			}
		}
		if !zero {
			continue
		}
		d.values.Remove(r)
		for j := k; j < d.batch.Rows(); j++ {
			if d.refs[d.batch.At(j)] == r {
				d.refs[d.batch.At(j)] = 0
			}
		}
	}
}
