package operator

import (
	"bytes"
	"encoding/binary"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// values are the values of a call by group, as key bytes, so that they compare as bytes: the columns of the call's order,
// the value, and in 4 bytes the length of the former, if there is an order. Where the input retracts, and for lists, the bag has all of them;
// for the others, where the input only grows, none but the best.
//
// The accumulator remembers which row of the bag is the result, and how many evictions there were then. It is forgotten
// when that value is retracted, when rows may have been evicted since, and at a restart; then the group's values are
// looked through once. Lists are made anew at each barrier that changed the group.
type values struct {
	store   *state.Store
	bag     *state.Bag
	order   *row.KeyCodec
	codec   *row.KeyCodec
	max     bool
	retract bool
	key     []byte
	out     [1]*row.Vector
	one     [1][]byte
	orders  []int
	cols    [1]int
	lists   lists
}

func newValues(s *state.Store, name string, group *row.KeyCodec, a *accumulator, spec *Aggregation) (*values, error) {
	bag, err := s.Bag(name, group, true)
	if err != nil {
		return nil, err
	}
	value := a.in.Required()
	if a.call.KeepNulls {
		value = a.in.Nullable()
	}
	v := &values{store: s, bag: bag, codec: row.GroupKey([]row.Type{value}), max: a.call.Func == Max || a.call.Func == LastValue,
		retract: spec.Retract, cols: [1]int{a.call.Arg}}
	v.lists.init(a, value)
	var keys []row.KeyColumn
	for _, o := range a.call.Order {
		keys = append(keys, row.KeyColumn{Type: spec.Input[o.Column], Desc: o.Desc, NullsLast: o.NullsLast})
		v.orders = append(v.orders, o.Column)
	}
	v.order = row.NewKeyCodec(keys, false)
	return v, nil
}

// value is the part of a row of the bag that the value is.
func (v *values) value(r []byte) []byte {
	if len(v.orders) == 0 {
		return r
	}
	end := len(r) - 4
	return r[binary.LittleEndian.Uint32(r[end:]):end]
}

// add takes a value of the group in; refs are the groups' entries in the bag.
func (v *values) add(acc []byte, group state.Ref, hash uint64, b *row.Batch, i int, w int64) error {
	v.key = v.order.Append(v.key[:0], b, v.orders, i)
	n := len(v.key)
	v.key = v.codec.Append(v.key, b, v.cols[:], i)
	if len(v.orders) > 0 {
		v.key = binary.LittleEndian.AppendUint32(v.key, uint32(n))
	}
	if v.lists.kind != 0 {
		return v.bag.Add(group, hash, v.key, w)
	}
	best := v.remembered(acc)
	if best == 0 {
		best = v.best(group)
	}
	if !v.retract && best != 0 {
		old := v.bag.Row(best)
		if !v.better(v.key, old) {
			return nil
		}
		v.one[0] = append(v.one[0][:0], old...)
		if err := v.bag.Add(group, hash, v.one[0], -v.bag.Weight(best)); err != nil {
			return err
		}
		best = 0
	}
	if best != 0 && w < 0 && bytes.Equal(v.bag.Row(best), v.key) {
		best = 0 // looked for again when it is asked for
	}
	put, err := v.bag.Put(group, hash, v.key, w)
	if err != nil {
		return err
	}
	if put != 0 && v.bag.Weight(put) > 0 && best != 0 && v.better(v.key, v.bag.Row(best)) {
		best = put
	}
	v.remember(acc, best)
	return nil
}

func (v *values) remembered(acc []byte) state.Ref {
	if binary.LittleEndian.Uint32(acc[accValue+4:]) != v.store.Evictions() {
		return 0
	}
	return state.Ref(binary.LittleEndian.Uint32(acc[accValue:]))
}

// looksThrough tells that the result is not remembered: the group's values are needed.
func (v *values) looksThrough(acc []byte) bool { return v.lists.kind != 0 || v.remembered(acc) == 0 }

func (v *values) remember(acc []byte, best state.Ref) {
	binary.LittleEndian.PutUint32(acc[accValue:], uint32(best))
	binary.LittleEndian.PutUint32(acc[accValue+4:], v.store.Evictions())
}

func (v *values) better(a, b []byte) bool {
	c := bytes.Compare(a, b)
	return v.max && c > 0 || !v.max && c < 0
}

// best looks through the values of a group.
func (v *values) best(group state.Ref) state.Ref {
	var best state.Ref
	for n := v.bag.First(group); n != 0; n = v.bag.Next(n) {
		if v.bag.Weight(n) > 0 && (best == 0 || v.better(v.bag.Row(n), v.bag.Row(best))) {
			best = n
		}
	}
	return best
}

// result appends the group's best value; group is its entry in the bag.
func (v *values) result(out *row.Vector, a *accumulator, acc []byte, group state.Ref) {
	best := v.remembered(acc)
	if best == 0 {
		if best = v.best(group); best == 0 {
			out.AppendNull(a.call.Type.Layout())
			return
		}
		v.remember(acc, best)
	}
	v.out[0] = out
	v.one[0] = append(v.one[0][:0], v.value(v.bag.Row(best))...)
	have := vectorLen(out, a.call.Type.Layout())
	if err := v.codec.Decode(v.out[:], have, v.one[:]); err != nil {
		panic("state of an aggregate: " + err.Error())
	}
}

func vectorLen(v *row.Vector, l row.Layout) int {
	switch l {
	case row.LayoutInt64:
		return len(v.Int64)
	case row.LayoutFloat64:
		return len(v.Float64)
	case row.LayoutDecimal:
		return len(v.Decimal)
	}
	return len(v.Spans)
}

// grow makes s of length n. What it holds is undefined.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, 2*n)
	}
	return s[:n]
}
