// Package operator holds the operators of a query that match no rows of two inputs: filter and projection, the elements of
// lists as rows, aggregates, Top-N and deduplication, and what feeds and ends a graph.
package operator

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/internal/invariants"
)

// Aggregation groups rows and computes aggregates over each group.
type Aggregation struct {
	// Node is the node's ID.
	Node string
	// Input are the types of the input's columns.
	Input []row.Type
	// Group are the columns to group by; none makes one group, which is there without a row, too.
	Group []int
	Calls []AggCall
	// Retract: the input may hold weights other than positive ones.
	Retract bool
}

// Schema of the output: the group's columns, then the calls'.
func (a *Aggregation) types() (group, all []row.Type) {
	for _, c := range a.Group {
		group = append(group, a.Input[c])
	}
	all = append(all, group...)
	for _, c := range a.Calls {
		all = append(all, c.Type)
	}
	return group, all
}

// States are the names of the states that the operator opens behind the node's ID.
func (a *Aggregation) States() []string {
	names := []string{"groups"}
	sets := map[int]bool{}
	for i, c := range a.Calls {
		if c.counted() && !sets[c.Arg] {
			sets[c.Arg] = true
			names = append(names, "distinct"+strconv.Itoa(c.Arg))
		}
		if a.needsValues(c) {
			names = append(names, "values"+strconv.Itoa(i))
		}
	}
	return names
}

func (a *Aggregation) needsValues(c AggCall) bool {
	if c.Func == Single || c.Func.Ordered() {
		return true
	}
	return (c.Func == Min || c.Func == Max) && a.Retract
}

// aggregate keeps, for each group, the sum of its rows' weights and an accumulator for each call. When a group is touched
// for the first time in an epoch its result is put aside; at the barrier that is retracted and the new one inserted,
// where they differ.
type aggregate struct {
	spec    Aggregation
	task    dataflow.Task
	out     dataflow.Emitter
	codec   *row.KeyCodec
	groups  *state.Map
	accs    []accumulator
	sets    []*distinct
	keys    row.Keys
	refs    []state.Ref
	places  []state.Ref // of a call's values: the groups' entries in its bag
	touched []touched
	old     *row.Builder // results before the epoch
	fresh   *row.Builder // and after it
	emit    *row.Builder
	faulty  []faulty
	started bool
	keyRow  [1][]byte
	scratch []byte
}

type touched struct {
	group state.Ref
	old   int32 // its row in old; -1: the group was not there
}

type faulty struct {
	old bool // its result before the epoch
	row int32
	fault
}

// The value of a group: the sum of its rows' weights, then the accumulators.
const groupWeight = 0

// NewAggregate returns a task's instance.
func NewAggregate(spec Aggregation, task dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
	groupTypes, all := spec.types()
	a := &aggregate{spec: spec, task: task, out: out, codec: row.GroupKey(groupTypes)}
	size := 8
	sets := map[int]*distinct{}
	s := task.State()
	for i, c := range spec.Calls {
		acc := accumulator{call: c, off: size}
		if c.Arg >= 0 {
			acc.in = spec.Input[c.Arg]
			acc.layout = acc.in.Layout()
		}
		acc.setSize()
		size += acc.size
		if spec.needsValues(c) {
			var err error
			if acc.values, err = newValues(s, spec.Node+"/values"+strconv.Itoa(i), a.codec, &acc, &spec); err != nil {
				return nil, err
			}
		} else if (c.Func == Min || c.Func == Max) && acc.layout == row.LayoutBytes {
			acc.text = newText(&acc)
		}
		if c.counted() {
			d := sets[c.Arg]
			if d == nil {
				d = newDistinct(c.Arg, acc.in, a.codec)
				sets[c.Arg] = d
				a.sets = append(a.sets, d)
			}
			acc.set, acc.slot = d, d.slotOf(c.Filter)
		}
		a.accs = append(a.accs, acc)
	}
	for _, d := range a.sets {
		if err := d.open(s, spec.Node+"/distinct"+strconv.Itoa(d.arg), spec.Retract); err != nil {
			return nil, err
		}
	}
	var kept state.Values
	for i := range a.accs {
		if a.accs[i].values != nil || a.accs[i].text != nil {
			kept = groupValues{a}
		}
	}
	var err error
	if a.groups, err = s.Map(spec.Node+"/groups", a.codec, size, kept); err != nil {
		return nil, err
	}
	a.old, a.fresh, a.emit = row.NewBuilder(all), row.NewBuilder(all), row.NewBuilder(all)
	a.reset()
	return a, nil
}

func (a *aggregate) reset() {
	a.touched, a.faulty = a.touched[:0], a.faulty[:0]
	a.old.Reset()
	a.fresh.Reset()
}

// Process takes rows in.
func (a *aggregate) Process(_ int, b *row.Batch) error {
	if b.Rows() == 0 {
		return nil
	}
	if err := a.begin(); err != nil {
		return err
	}
	if err := a.find(b); err != nil {
		return err
	}
	if b.Weights == nil {
		for k := range b.Rows() {
			addInt64(a.groups.Value(a.refs[b.At(k)])[groupWeight:], 1)
		}
	} else {
		for k := range b.Rows() {
			i := b.At(k)
			addInt64(a.groups.Value(a.refs[i])[groupWeight:], b.Weights[i])
		}
	}
	for _, d := range a.sets {
		if err := d.count(b, &a.keys); err != nil {
			return err
		}
	}
	for i := range a.accs {
		if err := a.update(&a.accs[i], b); err != nil {
			return err
		}
	}
	return nil
}

// find sets refs to the groups of b's rows and puts the results aside that are about to change.
func (a *aggregate) find(b *row.Batch) error {
	a.codec.Hash(&a.keys, b, a.spec.Group)
	a.refs = grow(a.refs, b.Len)
	if err := a.groups.FindOrAdd(&a.keys, b, a.refs); err != nil {
		return err
	}
	for k := range b.Rows() {
		r := a.refs[b.At(k)]
		if a.groups.Touch(r) {
			if err := a.first(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// first is called when a group is touched for the first time in an epoch.
func (a *aggregate) first(r state.Ref) error {
	t := touched{group: r, old: -1}
	if value := a.groups.Value(r); getInt64(value[groupWeight:]) > 0 || len(a.spec.Group) == 0 {
		t.old = int32(a.old.Len)
		if err := a.results(a.old, r, true); err != nil {
			return err
		}
		if size := arena(a.old); size > math.MaxUint32-maxList {
			return fmt.Errorf("%s: the results that change in one epoch are longer than %d bytes", a.spec.Node, size)
		}
	}
	a.touched = append(a.touched, t)
	return nil
}

// results appends the results of a group to the calls' columns of to.
func (a *aggregate) results(to *row.Builder, r state.Ref, old bool) error {
	value := a.groups.Value(r)
	for i := range a.accs {
		acc := &a.accs[i]
		place := state.Ref(0)
		if acc.values != nil && acc.values.looksThrough(value[acc.off:]) {
			var err error
			if place, err = acc.values.bag.Keys().FindEntry(a.groups, r); err != nil {
				return err
			}
		}
		if f := acc.result(a.groups, to.Cols[len(a.spec.Group)+i], value, place); f != nil {
			a.faulty = append(a.faulty, faulty{old, int32(to.Len), *f})
		}
	}
	to.EndRow(1)
	return nil
}

// update changes the accumulators of one call.
func (a *aggregate) update(acc *accumulator, b *row.Batch) error {
	c := acc.call
	var arg, filter *row.Vector
	if c.Arg >= 0 {
		arg = b.Cols[c.Arg]
	}
	if c.Filter >= 0 {
		filter = b.Cols[c.Filter]
	}
	if c.Func == Count && b.Weights == nil && (acc.set == nil && arg == nil || acc.set != nil && acc.set.bits) {
		a.countOnes(acc, b, filter)
		return nil
	}
	if acc.values != nil {
		a.places = grow(a.places, b.Len)
		if err := acc.values.bag.Keys().FindOrAdd(&a.keys, b, a.places); err != nil {
			return err
		}
	}
	for k := range b.Rows() {
		i := b.At(k)
		if filter != nil && (filter.Int64[i] == 0 || filter.Nulls.Is(i)) {
			continue
		}
		if arg != nil && arg.Nulls.Is(i) && c.Func != Single && !c.KeepNulls {
			continue
		}
		w := b.Weight(i)
		if acc.set != nil {
			if w = acc.set.delta(acc.slot, i); w == 0 {
				continue
			}
		}
		at := a.groups.Value(a.refs[i])[acc.off : acc.off+acc.size]
		addInt64(at, w)
		if c.Func == Count {
			continue
		}
		if acc.values != nil {
			if arg.Nulls.Is(i) && !c.KeepNulls {
				continue
			}
			if err := acc.values.add(at, a.places[i], a.keys.Hash[i], b, i, w); err != nil {
				return err
			}
			continue
		}
		if acc.text != nil {
			acc.text.add(a.groups, at, b, i)
			continue
		}
		acc.add(at, arg, i, w)
	}
	return nil
}

// countOnes is update of a Count where every row that counts is one: of all rows, or of the values that are new.
func (a *aggregate) countOnes(acc *accumulator, b *row.Batch, filter *row.Vector) {
	if acc.set != nil {
		fresh, slot := acc.set.fresh, acc.slot // the filter, and what is NULL, is left out there
		for k := range b.Rows() {
			if i := b.At(k); fresh[i]>>slot&1 != 0 {
				addInt64(a.groups.Value(a.refs[i])[acc.off:], 1)
			}
		}
		return
	}
	for k := range b.Rows() {
		if i := b.At(k); filter == nil || filter.Int64[i] != 0 && !filter.Nulls.Is(i) {
			addInt64(a.groups.Value(a.refs[i])[acc.off:], 1)
		}
	}
}

// add takes a value in with its weight.
func (a *accumulator) add(acc []byte, v *row.Vector, i int, w int64) {
	switch a.call.Func {
	case Sum, Avg:
		switch a.layout {
		case row.LayoutInt64:
			if w == 1 {
				s, _ := getDecimal(acc[accSum:]).Add(row.Int128From(v.Int64[i]))
				putDecimal(acc[accSum:], s)
				return
			}
			addWeighted(acc[accSum:], row.Int128From(v.Int64[i]), w)
		case row.LayoutFloat64:
			addFloat(acc[accSum:], v.Float64[i], w)
		default:
			addWeighted(acc[accSum:], v.Decimal[i], w)
		}
	case VarPop, VarSamp, StddevPop, StddevSamp:
		f := 0.0
		switch a.layout {
		case row.LayoutInt64:
			f = float64(v.Int64[i])
		case row.LayoutFloat64:
			f = v.Float64[i]
		default:
			f = decimalFloat(v.Decimal[i], a.in.Scale)
		}
		addFloat(acc[accSum:], f, w)
		addSquare(acc[accSum+floatSumLen:], f, w)
	case Min, Max:
		first := getInt64(acc) == w // nothing before it
		a.extreme(acc[accValue:], v, i, first)
	}
}

// extreme keeps the better of the value in at and of v's.
func (a *accumulator) extreme(at []byte, v *row.Vector, i int, first bool) {
	sign := 1
	if a.call.Func == Min {
		sign = -1
	}
	switch a.layout {
	case row.LayoutInt64:
		x, y := v.Int64[i], getInt64(at)
		if first || x > y && sign > 0 || x < y && sign < 0 {
			putInt64(at, x)
		}
	case row.LayoutFloat64:
		x, y := v.Float64[i], math.Float64frombits(binary.LittleEndian.Uint64(at))
		if first || sign > 0 && floatLess(y, x) || sign < 0 && floatLess(x, y) {
			binary.LittleEndian.PutUint64(at, math.Float64bits(x))
		}
	default:
		if x := v.Decimal[i]; first || x.Cmp(getDecimal(at)) == sign {
			putDecimal(at, x)
		}
	}
}

// floatLess orders NaN behind all numbers.
func floatLess(a, b float64) bool { return a < b || b != b && a == a }

func decimalFloat(d row.Int128, scale int) float64 {
	f := float64(d.Hi)*18446744073709551616 + float64(d.Lo)
	return f / math.Pow10(scale)
}

// Barrier emits what the epoch changed.
func (a *aggregate) Barrier(dataflow.Epoch) error {
	if err := a.begin(); err != nil {
		return err
	}
	if len(a.touched) == 0 {
		return nil
	}
	a.old.Seal()
	before := len(a.faulty)
	a.report(a.faulty)
	for from := 0; from < len(a.touched); {
		n, err := a.chunk(a.touched[from:])
		if err != nil {
			return err
		}
		a.faulty, from = a.faulty[:before], from+n
	}
	a.reset()
	return a.flush()
}

// chunkBytes bounds the results that are made before they are emitted: a vector's arena has 4 GiB, and one list of a
// group may have maxList.
const chunkBytes = 64 << 20

// arena is the largest arena of a builder's columns.
func arena(b *row.Builder) (n int) {
	for _, c := range b.Cols {
		n = max(n, len(c.Heap))
	}
	return n
}

// chunk emits what changed in the first of the groups, and says in how many.
func (a *aggregate) chunk(touched []touched) (int, error) {
	a.fresh.Reset()
	before := len(a.faulty)
	n := 0
	for n < len(touched) && n < row.MaxBatch && arena(a.fresh) < chunkBytes {
		if err := a.results(a.fresh, touched[n].group, false); err != nil {
			return 0, err
		}
		n++
	}
	a.fresh.Seal()
	a.report(a.faulty[before:])
	for k, t := range touched[:n] {
		value := a.groups.Value(t.group)
		weight := getInt64(value[groupWeight:])
		if invariants.Enabled {
			invariants.Check(weight >= 0, "%s: a group of %d rows", a.spec.Node, weight)
		}
		there := weight > 0 || len(a.spec.Group) == 0
		if !there || t.old < 0 || !a.sameRow(int(t.old), k) {
			if t.old >= 0 && !a.isFaulty(true, t.old) {
				a.append(t.group, a.old, int(t.old), -1)
			}
			if there && !a.isFaulty(false, int32(k)) {
				a.append(t.group, a.fresh, k, 1)
			}
		}
		if !there {
			a.groups.Remove(t.group)
		}
		if a.emit.Len >= row.MaxBatch-1 || arena(a.emit) >= chunkBytes {
			if err := a.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// begin makes the one group of an aggregate without keys, so that its result is there before the first row. After a
// restart it is there already, and so is its result.
func (a *aggregate) begin() error {
	if a.started || len(a.spec.Group) > 0 {
		return nil
	}
	a.started = true
	b := row.Batch{Len: 1}
	a.codec.Hash(&a.keys, &b, nil)
	a.refs = grow(a.refs, 1)
	if err := a.groups.Find(&a.keys, &b, a.refs); err != nil || a.refs[0] != 0 {
		return err
	}
	if err := a.groups.FindOrAdd(&a.keys, &b, a.refs); err != nil {
		return err
	}
	a.groups.Touch(a.refs[0])
	a.touched = append(a.touched, touched{group: a.refs[0], old: -1})
	return nil
}

func (a *aggregate) flush() error {
	if a.emit.Len == 0 {
		return nil
	}
	err := a.out.Emit(a.emit.Seal())
	a.emit.Reset()
	return err
}

// append adds a row to what is emitted: the group's key and row i of the results in from.
func (a *aggregate) append(group state.Ref, from *row.Builder, i int, w int64) {
	n := len(a.spec.Group)
	if n > 0 {
		a.keyRow[0] = a.groups.Key(a.scratch[:0], group)
		if err := a.codec.Decode(a.emit.Cols[:n], a.emit.Len, a.keyRow[:]); err != nil {
			panic("state of an aggregate: " + err.Error())
		}
	}
	sel := [1]int32{int32(i)}
	for c := range a.accs {
		a.emit.Cols[n+c].Gather(a.accs[c].call.Type.Layout(), a.emit.Len, from.Cols[n+c], sel[:], 0)
	}
	a.emit.EndRow(w)
}

// sameRow compares a result before and after the epoch.
func (a *aggregate) sameRow(old, fresh int) bool {
	n := len(a.spec.Group)
	for c := range a.accs {
		x, y := a.old.Cols[n+c], a.fresh.Cols[n+c]
		if x.Nulls.Is(old) != y.Nulls.Is(fresh) {
			return false
		}
		switch a.accs[c].call.Type.Layout() {
		case row.LayoutInt64:
			if x.Int64[old] != y.Int64[fresh] {
				return false
			}
		case row.LayoutFloat64:
			if math.Float64bits(x.Float64[old]) != math.Float64bits(y.Float64[fresh]) {
				return false
			}
		case row.LayoutDecimal:
			if x.Decimal[old] != y.Decimal[fresh] {
				return false
			}
		default:
			if !bytes.Equal(x.Bytes(old), y.Bytes(fresh)) {
				return false
			}
		}
	}
	return len(a.faulty) == 0 || a.isFaulty(true, int32(old)) == a.isFaulty(false, int32(fresh))
}

func (a *aggregate) isFaulty(old bool, i int32) bool {
	// Results are made in the order of their rows, those before the epoch first.
	_, found := slices.BinarySearchFunc(a.faulty, i, func(f faulty, i int32) int {
		switch {
		case f.old == old:
			return cmp.Compare(f.row, i)
		case f.old:
			return -1
		}
		return 1
	})
	return found
}

// report hands over faults that came or went with the epoch.
func (a *aggregate) report(faulty []faulty) {
	for _, f := range faulty {
		w := int64(1)
		if f.old {
			w = -1
		}
		a.task.Fault(dataflow.Fault{Node: a.spec.Node, Code: string(f.code), Message: f.message, Weight: w})
	}
}
