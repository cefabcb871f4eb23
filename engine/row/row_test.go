package row

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// anyType is a random type of the kinds that a key may have.
func anyType(r *rand.Rand) Type {
	ts := []Type{{Kind: Boolean}, {Kind: TinyInt}, {Kind: SmallInt}, {Kind: Int}, {Kind: BigInt}, {Kind: Float}, {Kind: Double}, {Kind: Decimal, Precision: 10, Scale: 2},
		{Kind: Decimal, Precision: 38, Scale: 4}, {Kind: Numeric}, {Kind: String}, {Kind: Bytes}, {Kind: Date}, {Kind: Timestamp, Precision: 3}, {Kind: UUID}}
	t := ts[r.IntN(len(ts))]
	t.NotNull = r.IntN(2) == 0
	return t
}

// appendAny adds a random value of type t; few different ones, edge values among them.
func appendAny(r *rand.Rand, v *Vector, t Type) {
	if !t.NotNull && r.IntN(4) == 0 {
		v.AppendNull(t.Layout())
		return
	}
	pick := func(edges ...int64) int64 {
		if r.IntN(2) == 0 {
			return edges[r.IntN(len(edges))]
		}
		return r.Int64N(7) - 3
	}
	switch t.Kind {
	case Boolean:
		v.Int64 = append(v.Int64, r.Int64N(2))
	case TinyInt:
		v.Int64 = append(v.Int64, pick(math.MinInt8, math.MaxInt8))
	case SmallInt:
		v.Int64 = append(v.Int64, pick(math.MinInt16, math.MaxInt16))
	case Int, Date:
		v.Int64 = append(v.Int64, pick(math.MinInt32, math.MaxInt32))
	case BigInt, Timestamp:
		v.Int64 = append(v.Int64, pick(math.MinInt64, math.MaxInt64))
	case Float, Double:
		fs := []float64{0, 1, -1, 1.5, -2.25, math.Inf(1), math.Inf(-1), math.NaN(), math.MaxFloat32, -math.MaxFloat32}
		v.Float64 = append(v.Float64, fs[r.IntN(len(fs))])
	case Decimal:
		d := Int128From(pick(math.MinInt64/2, math.MaxInt64/2))
		if t.Precision > 18 {
			d.Hi ^= r.Int64N(5) - 2
		}
		v.Decimal = append(v.Decimal, d)
	case Numeric:
		ns := strings.Fields("NaN Infinity -Infinity 0 1 -1 10 100 -100 0.1 0.01 -0.01 12.5 -12.5 99999999999999999999999999.5 120 12")
		v.AppendString(ns[r.IntN(len(ns))])
	case UUID:
		var u [16]byte
		u[r.IntN(16)] = byte(r.IntN(3))
		v.AppendBytes(u[:])
	default:
		ss := []string{"", "a", "ab", "a\x00", "a\x00b", "\x00", "\xff", "b", strings.Repeat("long", 50)}
		v.AppendString(ss[r.IntN(len(ss))])
	}
}

// compare is the naive second answer: NULL first, then by value.
func compare(t Type, v *Vector, i, j int) int {
	switch a, b := v.Nulls.Is(i), v.Nulls.Is(j); {
	case a && b:
		return 0
	case a:
		return -1
	case b:
		return 1
	}
	switch t.Layout() {
	case LayoutInt64:
		return cmp.Compare(v.Int64[i], v.Int64[j])
	case LayoutFloat64:
		a, b := v.Float64[i], v.Float64[j]
		switch {
		case a != a && b != b:
			return 0
		case a != a:
			return 1
		case b != b:
			return -1
		}
		return cmp.Compare(a, b)
	case LayoutDecimal:
		return v.Decimal[i].Cmp(v.Decimal[j])
	}
	if t.Kind == Numeric {
		order := strings.Fields("-Infinity -100 -12.5 -1 -0.01 0 0.01 0.1 1 10 12 12.5 100 120 99999999999999999999999999.5 Infinity NaN")
		return cmp.Compare(slices.Index(order, string(v.Bytes(i))), slices.Index(order, string(v.Bytes(j))))
	}
	return bytes.Compare(v.Bytes(i), v.Bytes(j))
}

func randomBatch(r *rand.Rand, types []Type, n int) *Batch {
	b := NewBuilder(types)
	b.Reset()
	for range n {
		for c, t := range types {
			appendAny(r, b.Cols[c], t)
		}
		b.EndRow(1 - 2*r.Int64N(2))
	}
	return b.Seal()
}

// TestKeyOrder: key bytes are equal and ordered as the values are, in every direction, and decode to them.
func TestKeyOrder(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		types := make([]Type, 1+r.IntN(3))
		cols, at := make([]KeyColumn, len(types)), make([]int, len(types))
		for i := range types {
			types[i] = anyType(r)
			cols[i] = KeyColumn{Type: types[i], Desc: r.IntN(2) == 0, NullsLast: r.IntN(2) == 0}
			at[i] = i
		}
		k := NewKeyCodec(cols, false)
		b := randomBatch(r, types, 40)
		var keys [][]byte
		for i := range b.Len {
			keys = append(keys, k.Append(nil, b, at, i))
		}
		for i := range b.Len {
			for j := range b.Len {
				want := 0
				for c := range cols {
					want = compare(types[c], b.Cols[c], i, j)
					a, z := b.Cols[c].Nulls.Is(i), b.Cols[c].Nulls.Is(j)
					switch {
					case a != z && cols[c].NullsLast:
						want = map[bool]int{true: 1, false: -1}[a]
					case a != z:
					case cols[c].Desc:
						want = -want
					}
					if want != 0 {
						break
					}
				}
				if got := bytes.Compare(keys[i], keys[j]); got != want {
					t.Fatalf("seed %d, %v: keys %x and %x compare %d, rows %d", seed, cols, keys[i], keys[j], got, want)
				}
			}
		}
		back := NewBuilder(types)
		back.Reset()
		if err := k.Decode(back.Cols, 0, keys); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for c := range types {
			for i := range b.Len {
				x, y := text(types[c], b.Cols[c], i), text(types[c], back.Cols[c], i)
				if x != y {
					t.Fatalf("seed %d: %s comes back from its key as %s", seed, x, y)
				}
			}
		}
	}
}

func text(t Type, v *Vector, i int) string {
	if v.Nulls.Is(i) {
		return "NULL"
	}
	switch t.Layout() {
	case LayoutInt64:
		return fmt.Sprint(v.Int64[i])
	case LayoutFloat64:
		return fmt.Sprint(v.Float64[i])
	case LayoutDecimal:
		return fmt.Sprint(v.Decimal[i])
	}
	return fmt.Sprintf("%q", v.Bytes(i))
}

// TestCodec: binary rows decode to what was encoded, also through a selection and a builder.
func TestCodec(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 2))
		types := make([]Type, 1+r.IntN(12))
		for i := range types {
			types[i] = anyType(r)
		}
		b := randomBatch(r, types, 1+r.IntN(200))
		var sel []int32
		for i := range b.Len {
			if r.IntN(3) > 0 {
				sel = append(sel, int32(i))
			}
		}
		b.Sel = sel
		if sel == nil {
			b.Sel = []int32{}
		}
		copied := NewBuilder(types)
		copied.Reset()
		copied.Append(b, nil)
		copied.Append(b, nil)
		two := copied.Seal()
		c := NewCodec(types)
		var rows [][]byte
		for i := range two.Len {
			rows = append(rows, c.Append(nil, two, i))
			if err := c.Check(rows[i]); err != nil {
				t.Fatal(err)
			}
			if two.Weight(i) != b.Weight(b.At(i%b.Rows())) {
				t.Fatalf("seed %d: weight of row %d", seed, i)
			}
		}
		back := NewBuilder(types)
		back.Reset()
		half := len(rows) / 2
		for col, typ := range types {
			c.Decode(back.Cols[col], 0, col, rows[:half])
			c.Decode(back.Cols[col], half, col, rows[half:])
			for i := range rows {
				want, got := text(typ, b.Cols[col], b.At(i%b.Rows())), text(typ, back.Cols[col], i)
				if got != want {
					t.Fatalf("seed %d: column %d (%s) row %d: %s, want %s", seed, col, typ, i, got, want)
				}
			}
		}
	}
}

// TestNoAllocations: hashing, encoding and decoding allocate nothing once their buffers have grown.
func TestNoAllocations(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	types := []Type{{Kind: BigInt, NotNull: true}, {Kind: String}, {Kind: Decimal, Precision: 20, Scale: 2}}
	b := randomBatch(r, types, 1000)
	one, three, codec := GroupKey(types[:1]), GroupKey(types), NewCodec(types)
	var keys, wide Keys
	var rows [][]byte
	var heap []byte
	out := NewBuilder(types)
	if n := testing.AllocsPerRun(20, func() {
		one.Hash(&keys, b, []int{0})
		three.Hash(&wide, b, []int{0, 1, 2})
		rows, heap = rows[:0], heap[:0]
		for i := range b.Len {
			at := len(heap)
			heap = codec.Append(heap, b, i)
			rows = append(rows, heap[at:])
		}
		out.Reset()
		for c := range types {
			codec.Decode(out.Cols[c], 0, c, rows)
		}
		rows, heap = rows[:0], heap[:0]
		for i := range b.Len {
			at := len(heap)
			heap = three.Append(heap, b, []int{0, 1, 2}, i)
			rows = append(rows, heap[at:])
		}
		out.Reset()
		if err := three.Decode(out.Cols, 0, rows); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations for 1000 rows", n)
	}
}
