package operator

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/engine/state/statetest"
)

// harness is a task with one operator, whose output it adds up.
type harness struct {
	t       *testing.T
	types   []row.Type
	limit   uint64 // of memory
	store   *state.Store
	backing *statetest.Backing
	make    func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error)
	op      dataflow.Operator
	out     map[string]int64
	faults  map[string]int64
	epoch   uint64
	saved   map[string]int64
	savedF  map[string]int64
}

func newHarness(t *testing.T, out []row.Type, mk func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error)) *harness {
	h := &harness{t: t, types: out, backing: statetest.New(), make: mk, saved: map[string]int64{}, savedF: map[string]int64{}, limit: uint64(len(out)%3) * 2000}
	h.restore()
	return h
}

func (h *harness) Index() int                 { return 0 }
func (h *harness) Count() int                 { return 1 }
func (h *harness) State() *state.Store        { return h.store }
func (h *harness) Clock() int64               { return 0 }
func (h *harness) Peer(int) dataflow.Operator { return nil }
func (h *harness) Fault(f dataflow.Fault)     { add(h.faults, f.Message, f.Weight) }

func add(m map[string]int64, k string, w int64) {
	if m[k] += w; m[k] == 0 {
		delete(m, k)
	}
}

func (h *harness) Emit(b *row.Batch) error {
	for k := range b.Rows() {
		add(h.out, rowText(h.types, b, b.At(k)), b.Weight(b.At(k)))
	}
	return nil
}

func rowText(types []row.Type, b *row.Batch, i int) string {
	var s []string
	for c, t := range types {
		s = append(s, valueText(t, b.Cols[c], i))
	}
	return strings.Join(s, "|")
}

func valueText(t row.Type, v *row.Vector, i int) string {
	if v.Nulls.Is(i) {
		return "NULL"
	}
	switch t.Layout() {
	case row.LayoutInt64:
		return fmt.Sprint(v.Int64[i])
	case row.LayoutFloat64:
		return fmt.Sprint(v.Float64[i])
	case row.LayoutDecimal:
		r := new(big.Rat).SetFrac(bigInt(v.Decimal[i]), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.Scale)), nil))
		return r.FloatString(t.Scale)
	}
	switch t.Kind {
	case row.Array:
		return "[" + strings.Join(listTexts(*t.Elem, v.Bytes(i)), " ") + "]"
	case row.Multiset:
		elem, count := row.MapTypes(t)
		keys, values := row.SplitMap(v.Bytes(i))
		return "{" + strings.Join(listTexts(elem, keys), " ") + ": " + strings.Join(listTexts(count, values), " ") + "}"
	}
	return string(v.Bytes(i))
}

func listTexts(elem row.Type, b []byte) (s []string) {
	l := row.ReadList(elem, b)
	for k := range l.Len() {
		v := &row.Vector{}
		l.AppendTo(v, k)
		s = append(s, valueText(elem, v, 0))
	}
	return s
}

func (h *harness) barrier() {
	h.epoch++
	if err := h.op.Barrier(dataflow.Epoch{N: h.epoch}); err != nil {
		h.t.Fatal(err)
	}
	h.store.NextEpoch()
	h.store.Evict()
}

func (h *harness) checkpoint() {
	var d state.Delta
	h.store.TakeDelta(&d, h.epoch)
	h.backing.Apply(h.t, &d)
	h.store.Absorbed(h.epoch)
	h.saved, h.savedF = clone(h.out), clone(h.faults)
}

func (h *harness) restore() {
	if h.store != nil {
		h.store.Close()
	}
	var err error
	if h.store, err = state.New(state.Options{Groups: 4, Backing: h.backing, MemoryBytes: h.limit}); err != nil {
		h.t.Fatal(err)
	}
	if h.op, err = h.make(h, h); err != nil {
		h.t.Fatal(err)
	}
	h.out, h.faults = clone(h.saved), clone(h.savedF)
}

func clone(m map[string]int64) map[string]int64 {
	c := map[string]int64{}
	for k, v := range m {
		c[k] = v
	}
	return c
}

var inputTypes = []row.Type{{Kind: row.BigInt}, {Kind: row.String}, {Kind: row.BigInt}, {Kind: row.Double}, {Kind: row.Decimal, Precision: 10, Scale: 2}, {Kind: row.String}, {Kind: row.Boolean}}

// value is a row of the tests' input; nil fields are NULL.
type value struct {
	g1  *int64
	g2  *string
	x   *int64
	d   *float64
	dec *int64 // hundredths
	s   *string
	f   *bool
}

func maybe[T any](r *rand.Rand, v T) *T {
	if r.IntN(5) == 0 {
		return nil
	}
	return &v
}

func randomValue(r *rand.Rand) value {
	ds := []float64{0, 1.5, -2.25, 1e300, -1e300, 1e-300, 3, 1e16, 1}
	return value{maybe(r, r.Int64N(3)), maybe(r, fmt.Sprint("g", r.IntN(2))), maybe(r, r.Int64N(20)-10), maybe(r, ds[r.IntN(len(ds))]),
		maybe(r, r.Int64N(2000)-1000), maybe(r, strings.Repeat(string(rune('a'+r.IntN(5))), 1+r.IntN(3))), maybe(r, r.IntN(2) == 0)}
}

func appendValue(b *row.Builder, v value, w int64) {
	str := func(c int, s *string) {
		if s == nil {
			b.Cols[c].AppendNull(row.LayoutBytes)
		} else {
			b.Cols[c].AppendString(*s)
		}
	}
	num := func(c int, x *int64) {
		if x == nil {
			b.Cols[c].AppendNull(row.LayoutInt64)
		} else {
			b.Cols[c].Int64 = append(b.Cols[c].Int64, *x)
		}
	}
	num(0, v.g1)
	str(1, v.g2)
	num(2, v.x)
	if v.d == nil {
		b.Cols[3].AppendNull(row.LayoutFloat64)
	} else {
		b.Cols[3].Float64 = append(b.Cols[3].Float64, *v.d)
	}
	if v.dec == nil {
		b.Cols[4].AppendNull(row.LayoutDecimal)
	} else {
		b.Cols[4].Decimal = append(b.Cols[4].Decimal, row.Int128From(*v.dec))
	}
	str(5, v.s)
	var f *int64
	if v.f != nil {
		n := int64(0)
		if *v.f {
			n = 1
		}
		f = &n
	}
	num(6, f)
	b.EndRow(w)
}

// feed gives changes to the operator in batches of random size, with selections that leave some rows out.
func (h *harness) feed(r *rand.Rand, rows []value, weights []int64) {
	for len(rows) > 0 {
		n := 1 + r.IntN(len(rows))
		b := row.NewBuilder(inputTypes)
		b.Reset()
		var sel []int32
		for k := range n {
			if r.IntN(4) == 0 {
				appendValue(b, randomValue(r), 1)
			}
			sel = append(sel, int32(b.Len))
			appendValue(b, rows[k], weights[k])
		}
		batch := *b.Seal()
		if len(sel) < batch.Len {
			batch.Sel = sel
		}
		if err := h.op.Process(0, &batch); err != nil {
			h.t.Fatal(err)
		}
		rows, weights = rows[n:], weights[n:]
	}
}

// reference computes one aggregate over rows the slow way.
func reference(c AggCall, rows []value) string {
	if c.Func.Ordered() {
		return orderedReference(c, rows)
	}
	var ints []int64
	var floats []float64
	var texts []string
	n := 0
	seen := map[string]bool{}
	for _, v := range rows {
		if c.Filter >= 0 && (v.f == nil || !*v.f) {
			continue
		}
		text := ""
		switch c.Arg {
		case 2:
			if v.x == nil {
				continue
			}
			text = fmt.Sprint(*v.x)
		case 3:
			if v.d == nil {
				continue
			}
			text = fmt.Sprint(*v.d)
		case 4:
			if v.dec == nil {
				continue
			}
			text = fmt.Sprint(*v.dec)
		case 5:
			if v.s == nil {
				continue
			}
			text = *v.s
		}
		if c.Distinct && seen[text] {
			continue
		}
		seen[text] = true
		n++
		switch c.Arg {
		case 2:
			ints = append(ints, *v.x)
		case 3:
			floats = append(floats, *v.d)
		case 4:
			ints = append(ints, *v.dec)
		case 5:
			texts = append(texts, *v.s)
		}
	}
	if c.Func == Count {
		return fmt.Sprint(n)
	}
	if n == 0 {
		return "NULL"
	}
	switch c.Func {
	case Min, Max:
		pick := func(i int) int {
			if c.Func == Max {
				return i - 1
			}
			return 0
		}
		switch c.Arg {
		case 2:
			slices.Sort(ints)
			return fmt.Sprint(ints[pick(len(ints))])
		case 3:
			slices.Sort(floats)
			return fmt.Sprint(floats[pick(len(floats))])
		case 4:
			slices.Sort(ints)
			return big.NewRat(ints[pick(len(ints))], 100).FloatString(2)
		default:
			slices.Sort(texts)
			return texts[pick(len(texts))]
		}
	}
	sum := new(big.Rat)
	squares := new(big.Rat)
	for _, x := range ints {
		d := int64(1)
		if c.Arg == 4 {
			d = 100
		}
		sum.Add(sum, big.NewRat(x, d))
	}
	for _, f := range floats {
		q := new(big.Rat).SetFloat64(f)
		sum.Add(sum, q)
		squares.Add(squares, new(big.Rat).Mul(q, q))
	}
	switch {
	case c.Func == Sum && c.Arg == 2:
		return sum.Num().String()
	case c.Func == Sum && c.Arg == 3:
		f, _ := sum.Float64()
		return fmt.Sprint(f)
	case c.Func == Sum:
		return sum.FloatString(2)
	case c.Func == Avg && c.Arg == 2:
		return new(big.Int).Quo(sum.Num(), big.NewInt(int64(n))).String()
	case c.Func == Avg && c.Arg == 3:
		f, _ := sum.Quo(sum, big.NewRat(int64(n), 1)).Float64()
		return fmt.Sprint(f)
	case c.Func == Avg:
		return sum.Quo(sum, big.NewRat(int64(n), 1)).FloatString(6)
	}
	m := big.NewRat(int64(n), 1)
	v := new(big.Rat).Sub(squares, new(big.Rat).Quo(new(big.Rat).Mul(sum, sum), m))
	if c.Func == VarSamp {
		if n == 1 {
			return "NULL"
		}
		m = big.NewRat(int64(n-1), 1)
	}
	f, _ := v.Quo(v, m).Float64()
	return fmt.Sprint(f)
}

// TestAggregateAgainstReference: every aggregate over random changes, at every barrier, with restarts.
func TestAggregateAgainstReference(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 11))
		retract := seed%3 > 0
		group := [][]int{{}, {0}, {1}, {0, 1}}[r.IntN(4)]
		spec := Aggregation{Node: "agg", Input: inputTypes, Group: group, Retract: retract}
		for range 1 + r.IntN(6) {
			c := AggCall{Func: []AggFunc{Count, Sum, Avg, Min, Max, VarPop, VarSamp, FirstValue, LastValue, ListAgg, ArrayAgg, Collect}[r.IntN(12)], Arg: 2 + r.IntN(4), Distinct: r.IntN(3) == 0, Filter: -1}
			if r.IntN(3) == 0 {
				c.Filter = 6
			}
			if c.Func == Count && r.IntN(3) == 0 {
				c.Arg, c.Distinct = -1, false
			}
			if c.Func == VarPop || c.Func == VarSamp {
				c.Arg = 3
			}
			if c.Arg == 5 && (c.Func == Sum || c.Func == Avg) {
				c.Arg = 2
			}
			if c.Func == ListAgg {
				c.Arg, c.Separator = 5, []string{",", "", "; "}[r.IntN(3)]
			}
			if c.Func == FirstValue || c.Func == LastValue || c.Func == ArrayAgg {
				c.KeepNulls = r.IntN(2) == 0
			}
			if c.Func.Ordered() && c.Func != Collect {
				for range r.IntN(3) {
					c.Order = append(c.Order, AggOrder{Column: 2 + r.IntN(4), Desc: r.IntN(2) == 0, NullsLast: r.IntN(2) == 0})
				}
				if c.Distinct && len(c.Order) > 0 {
					c.Order[0].Column = c.Arg
				}
			}
			in := row.Type{}
			if c.Arg >= 0 {
				in = inputTypes[c.Arg]
			}
			c.Type, _ = c.Func.ResultType(in)
			spec.Calls = append(spec.Calls, c)
		}
		_, all := spec.types()
		h := newHarness(t, all, func(task dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
			return NewAggregate(spec, task, out)
		})
		var rows, savedRows []value
		for range 25 {
			var change []value
			var weights []int64
			for range r.IntN(30) {
				switch {
				case retract && len(rows) > 0 && r.IntN(2) == 0:
					i := r.IntN(len(rows))
					change, weights = append(change, rows[i]), append(weights, -1)
					rows = slices.Delete(rows, i, i+1)
				default:
					v := randomValue(r)
					n := 1 + r.Int64N(2)
					change, weights = append(change, v), append(weights, n)
					for range n {
						rows = append(rows, v)
					}
				}
			}
			// The order within an epoch does not matter: retractions may come before what they retract.
			r.Shuffle(len(change), func(i, j int) {
				change[i], change[j] = change[j], change[i]
				weights[i], weights[j] = weights[j], weights[i]
			})
			h.feed(r, change, weights)
			h.barrier()
			groups := map[string][]value{}
			if len(group) == 0 {
				groups[""] = nil
			}
			for _, v := range rows {
				b := row.NewBuilder(inputTypes)
				b.Reset()
				appendValue(b, v, 1)
				var k []string
				for _, c := range group {
					k = append(k, valueText(inputTypes[c], b.Cols[c], 0))
				}
				groups[strings.Join(k, "|")] = append(groups[strings.Join(k, "|")], v)
			}
			want := map[string]int64{}
			for k, vs := range groups {
				var s []string
				if len(group) > 0 {
					s = append(s, k)
				}
				for _, c := range spec.Calls {
					s = append(s, reference(c, vs))
				}
				want[strings.Join(s, "|")]++
			}
			if got, want := dump(h.out), dump(want); got != want {
				t.Fatalf("seed %d, %+v\n got %s\nwant %s", seed, spec, got, want)
			}
			switch r.IntN(6) {
			case 0:
				h.checkpoint()
				savedRows = slices.Clone(rows)
			case 1:
				h.restore()
				rows = slices.Clone(savedRows)
			}
		}
		h.store.Close()
	}
}

func dump(m map[string]int64) string {
	var s []string
	for k, w := range m {
		s = append(s, fmt.Sprintf("%+d %s", w, k))
	}
	slices.SortFunc(s, cmp.Compare[string])
	return strings.Join(s, "; ")
}

// TestFloatSumForgets: NaN and infinities go with the rows that brought them, and tiny terms survive huge ones.
func TestFloatSumForgets(t *testing.T) {
	acc := make([]byte, floatSumLen)
	check := func(want float64) {
		t.Helper()
		if got := floatSum(acc); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("sum is %v, want %v", got, want)
		}
	}
	check(0)
	addFloat(acc, 5e-324, 3)
	addFloat(acc, math.MaxFloat64, 1<<40)
	addFloat(acc, math.NaN(), 1)
	check(math.NaN())
	addFloat(acc, math.Inf(1), 2)
	addFloat(acc, math.NaN(), -1)
	check(math.Inf(1))
	addFloat(acc, math.Inf(-1), 1)
	check(math.NaN())
	addFloat(acc, math.Inf(1), -2)
	check(math.Inf(-1))
	addFloat(acc, math.Inf(-1), -1)
	check(math.Inf(1)) // 2^40 times the largest double
	addFloat(acc, math.MaxFloat64, -(1 << 40))
	check(1.5e-323)
	addFloat(acc, -5e-324, 4)
	check(-5e-324)
}
