package operator

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// maxList is about how many bytes a result of ListAgg, ArrayAgg or Collect may have, and its elements while it is made. The
// arena of a vector has 4 GiB, see chunkBytes.
const maxList = 256 << 20

// elementBytes is what an element takes beside its own bytes.
const elementBytes = 8

// lists makes the results of ListAgg, ArrayAgg and Collect, in memory that is used again.
type lists struct {
	kind      AggFunc // one of these, or 0
	elem      row.Type
	distinct  bool
	separator string
	rows      []listRow
	values    row.Vector
	counts    row.Vector
	buf, more []byte
}

// listRow is a row of a bag with the first bytes that tell the group's rows apart: most comparisons need no more, and
// stay in the cache.
type listRow struct {
	prefix uint64
	row    state.Ref
}

// sort orders the rows by their bytes.
func (v *values) sort(rows []listRow) {
	if len(rows) < 2 {
		return
	}
	first := v.bag.Row(rows[0].row)
	common := len(first)
	for _, r := range rows[1:] {
		b := v.bag.Row(r.row)
		common = min(common, len(b))
		if bytes.Equal(b[:common], first[:common]) {
			continue
		}
		for k := range common {
			if b[k] != first[k] {
				common = k
				break
			}
		}
	}
	for k := range rows {
		var prefix [8]byte
		copy(prefix[:], v.bag.Row(rows[k].row)[common:])
		rows[k].prefix = binary.BigEndian.Uint64(prefix[:])
	}
	slices.SortFunc(rows, func(x, y listRow) int {
		if c := cmp.Compare(x.prefix, y.prefix); c != 0 {
			return c
		}
		return bytes.Compare(v.bag.Row(x.row), v.bag.Row(y.row))
	})
}

func (l *lists) init(a *accumulator, elem row.Type) {
	switch a.call.Func {
	case ListAgg, ArrayAgg, Collect:
		l.kind, l.elem, l.distinct, l.separator = a.call.Func, elem, a.call.Distinct, a.call.Separator
	}
}

// list appends the group's list to out; group is its entry in the bag.
func (v *values) list(out *row.Vector, a *accumulator, group state.Ref) *fault {
	l := &v.lists
	l.rows = l.rows[:0]
	size := int64(0)
	for n := v.bag.First(group); n != 0; n = v.bag.Next(n) {
		w := v.bag.Weight(n)
		if w <= 0 {
			continue
		}
		if l.kind == Collect || l.distinct {
			w = 1
		}
		size += w * int64(len(v.bag.Row(n))+len(l.separator)+elementBytes)
		l.rows = append(l.rows, listRow{row: n})
	}
	if size > maxList {
		out.AppendNull(row.LayoutBytes)
		return &fault{codeTooLong, a.call.Func.Name() + " is longer than 256 MiB"}
	}
	v.sort(l.rows)
	l.values.Truncate()
	l.counts.Truncate()
	n := 0
	for k, r := range l.rows {
		value := v.value(v.bag.Row(r.row))
		// Equal values stand beside each other: with DISTINCT the argument is what is ordered by first.
		if l.distinct && k > 0 && bytes.Equal(value, v.value(v.bag.Row(l.rows[k-1].row))) {
			continue
		}
		w := v.bag.Weight(r.row)
		if l.distinct {
			w = 1
		}
		if l.kind == Collect {
			l.counts.Int64 = append(l.counts.Int64, w)
			w = 1
		}
		v.out[0], v.one[0] = &l.values, append(v.one[0][:0], value...)
		for range w {
			if err := v.codec.Decode(v.out[:], n, v.one[:]); err != nil {
				panic("state of an aggregate: " + err.Error())
			}
			n++
		}
	}
	l.buf = l.buf[:0]
	switch l.kind {
	case ListAgg:
		for i := range n {
			if i > 0 {
				l.buf = append(l.buf, l.separator...)
			}
			l.buf = append(l.buf, l.values.Bytes(i)...)
		}
	case ArrayAgg:
		l.buf = row.AppendList(l.buf, l.elem, &l.values, nil, n)
	case Collect:
		_, count := row.MapTypes(a.call.Type)
		l.more = row.AppendList(l.more[:0], l.elem, &l.values, nil, n)
		at := len(l.more)
		l.more = row.AppendList(l.more, count, &l.counts, nil, n)
		l.buf = row.AppendMap(l.buf, l.more[:at], l.more[at:])
	}
	out.AppendBytes(l.buf)
	return nil
}
