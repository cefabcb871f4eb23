package operator

import (
	"encoding/binary"
	"math"
	"math/big"
	"slices"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/internal/errs"
)

// AggFunc is an aggregate function.
type AggFunc uint8

// The aggregate functions.
const (
	Count AggFunc = iota + 1 // of rows, or of values that are not NULL
	Sum
	Avg
	Min
	Max
	VarPop
	VarSamp
	StddevPop
	StddevSamp
	Single // the one value of a scalar subquery: NULL of no row, a fault of several
	// These depend on the order of a group's rows, which is that of AggCall.Order and then of the values themselves.
	FirstValue
	LastValue
	ListAgg  // the values with a separator between them
	ArrayAgg // an ARRAY of them
	Collect  // a MULTISET of them
)

// AggCall is a call of an aggregate function over the columns of the operator's input.
type AggCall struct {
	Func AggFunc
	// Arg is the column that is aggregated, -1 for COUNT(*).
	Arg      int
	Distinct bool
	// Filter is a BOOLEAN column that has to be TRUE, -1 for none.
	Filter int
	// Order is that of the values of FirstValue, LastValue, ListAgg and ArrayAgg. Rows that are equal in it, all of them if
	// it is empty, are ordered by their values, from the smallest: the result is a function of the multiset of rows.
	Order []AggOrder
	// KeepNulls: NULL is a value, too; of FirstValue, LastValue and ArrayAgg.
	KeepNulls bool
	// Separator of ListAgg.
	Separator string
	// Type is the result's, as ResultType gives it.
	Type row.Type
}

// AggOrder is a column that an aggregate's values are ordered by.
type AggOrder struct {
	Column          int
	Desc, NullsLast bool
}

// Equal tells whether two calls compute the same.
func (c AggCall) Equal(o AggCall) bool {
	return c.Func == o.Func && c.Arg == o.Arg && c.Distinct == o.Distinct && c.Filter == o.Filter && c.KeepNulls == o.KeepNulls &&
		c.Separator == o.Separator && slices.Equal(c.Order, o.Order)
}

// Ordered tells that the result is made of the group's values one by one, as needValues keeps them.
func (f AggFunc) Ordered() bool { return f >= FirstValue && f <= Collect }

// counted tells that DISTINCT is counted in a set beside the accumulator: the others keep their values anyway, or do not
// ask how often one comes.
func (c AggCall) counted() bool {
	return c.Distinct && c.Func != Min && c.Func != Max && !c.Func.Ordered()
}

// ResultType is the type of an aggregate over an argument of type t, by Flink's rules; false if the function does not
// take it.
func (f AggFunc) ResultType(t row.Type) (row.Type, bool) {
	elem := t
	t.NotNull = false
	switch f {
	case ArrayAgg:
		return row.Type{Kind: row.Array, Elem: &elem}, t.Kind != row.Null
	case Collect:
		return row.Type{Kind: row.Multiset, Elem: &elem, NotNull: true}, t.Kind != row.Null
	case ListAgg:
		return row.Type{Kind: row.String}, t.Kind == row.String
	case FirstValue, LastValue:
		return t, t.Kind != row.Null
	case Count:
		return row.Type{Kind: row.BigInt, NotNull: true}, true
	case Min, Max:
		switch t.Kind {
		case row.Array, row.Map, row.Multiset, row.Struct, row.Foreign, row.JSON, row.Null:
			return t, false
		}
		return t, true
	case Single:
		return t, true
	}
	if !t.Kind.Number() || t.Kind == row.Numeric {
		return t, false
	}
	switch f {
	case Sum:
		if t.Kind == row.Decimal {
			t.Precision = 38
		}
		return t, true
	case Avg:
		if t.Kind == row.Decimal {
			t.Precision, t.Scale = 38, max(6, t.Scale)
		}
		return t, true
	default:
		// VARIANCE and STDDEV.
		if t.Kind == row.Decimal {
			t.Precision, t.Scale = 38, max(6, t.Scale)
			return t, true
		}
		if t.Kind != row.Float {
			t.Kind = row.Double
		}
		return t, true
	}
}

// Name is the function as SQL writes it.
func (f AggFunc) Name() string {
	return [...]string{"", "COUNT", "SUM", "AVG", "MIN", "MAX", "VAR_POP", "VAR_SAMP", "STDDEV_POP", "STDDEV_SAMP", "SINGLE_VALUE",
		"FIRST_VALUE", "LAST_VALUE", "LISTAGG", "ARRAY_AGG", "COLLECT"}[f]
}

// accumulator is how an aggregate keeps what it knows of a group, in size bytes at off of the group's value: zero for no
// rows, and a function of the multiset of rows, whatever their order.
type accumulator struct {
	call   AggCall
	in     row.Type // the argument's
	layout row.Layout
	off    int
	size   int
	// values keeps what has no fixed place: those of Single and of the ordered functions, and of Min and Max over input that
	// retracts. Over input that grows, text is the one of Min and Max that has no fixed length.
	values *values
	text   *text
	set    *distinct // of a DISTINCT: its values, and which of their counters is this call's
	slot   int
}

// The layouts of accumulators. A number of values that are not NULL comes first in all of them.
const (
	accCount = 0
	accSum   = 8 // Int128, or a float sum
	accValue = 8 // of Min and Max: the value's 16 bytes, or a text's; of those with values, u32 Ref of the result's row
)

func (a *accumulator) setSize() {
	switch a.call.Func {
	case Count:
		a.size = 8
	case Sum, Avg:
		a.size = accSum + 16
		if a.layout == row.LayoutFloat64 {
			a.size = accSum + floatSumLen
		}
	case VarPop, VarSamp, StddevPop, StddevSamp:
		a.size = accSum + floatSumLen + squareSumLen
	default:
		a.size = accValue + 16
	}
}

func getDecimal(b []byte) row.Int128 {
	return row.Int128{Hi: getInt64(b[8:]), Lo: binary.LittleEndian.Uint64(b)}
}

func putDecimal(b []byte, d row.Int128) {
	binary.LittleEndian.PutUint64(b, d.Lo)
	putInt64(b[8:], d.Hi)
}

// addWeighted adds w*v to the 128-bit sum. It wraps where the true sum needs more: no sum of fewer than 2^63 64-bit terms
// does, and one of DECIMAL(38) comes back when the terms are retracted.
func addWeighted(b []byte, v row.Int128, w int64) {
	switch w {
	case 1:
	case -1:
		v = v.Neg()
	default:
		v = mulWrap(v, w)
	}
	s, _ := getDecimal(b).Add(v)
	putDecimal(b, s)
}

func mulWrap(v row.Int128, w int64) row.Int128 {
	x := new(big.Int).Mul(bigInt(v), big.NewInt(w))
	return fromBig(x)
}

func bigInt(v row.Int128) *big.Int {
	x := new(big.Int).Lsh(big.NewInt(v.Hi), 64)
	return x.Add(x, new(big.Int).SetUint64(v.Lo))
}

// fromBig takes the low 128 bits.
func fromBig(x *big.Int) row.Int128 {
	mask := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(1))
	y := new(big.Int).And(x, mask)
	lo := new(big.Int).And(y, new(big.Int).SetUint64(math.MaxUint64)).Uint64()
	return row.Int128{Hi: int64(new(big.Int).Rsh(y, 64).Uint64()), Lo: lo}
}

const (
	codeOverflow errs.Code = "W2010"
	codeTooLong  errs.Code = "W2013"
	codeSubquery errs.Code = "W2014"
)

// fault is why a group has no result.
type fault struct {
	code    errs.Code
	message string
}

var maxDecimal38 = func() *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(38), nil) }()

// result appends the aggregate's value of a group to v.
func (a *accumulator) result(groups *state.Map, v *row.Vector, value []byte, group state.Ref) *fault {
	acc := value[a.off : a.off+a.size]
	n := getInt64(acc)
	if a.call.Func == Count {
		v.Int64 = append(v.Int64, n)
		return nil
	}
	layout := a.call.Type.Layout()
	if n == 0 && a.call.Func != Collect {
		v.AppendNull(layout)
		return nil
	}
	switch a.call.Func {
	case ListAgg, ArrayAgg, Collect:
		return a.values.list(v, a, group)
	case Sum:
		switch a.layout {
		case row.LayoutInt64:
			x, ok := getDecimal(acc[accSum:]).Int64()
			if lo, hi := intRange(a.call.Type.Kind); !ok || x < lo || x > hi {
				v.AppendNull(layout)
				return &fault{codeOverflow, "SUM is out of the range of " + a.call.Type.Nullable().String()}
			}
			v.Int64 = append(v.Int64, x)
		case row.LayoutFloat64:
			v.Float64 = append(v.Float64, round(floatSum(acc[accSum:]), a.call.Type.Kind))
		default:
			d := getDecimal(acc[accSum:])
			if new(big.Int).Abs(bigInt(d)).Cmp(maxDecimal38) >= 0 {
				v.AppendNull(layout)
				return &fault{codeOverflow, "SUM is out of the range of " + a.call.Type.Nullable().String()}
			}
			v.Decimal = append(v.Decimal, d)
		}
	case Avg:
		return a.average(v, acc, n)
	case VarPop, VarSamp, StddevPop, StddevSamp:
		a.variance(v, acc, n)
	case Single:
		if n > 1 {
			v.AppendNull(layout)
			return &fault{codeSubquery, "a subquery used as a value returned more than one row"}
		}
		fallthrough
	default:
		switch {
		case a.values != nil:
			a.values.result(v, a, acc, group)
		case a.text != nil:
			a.text.result(v, groups.Blob(acc[accValue:]))
		default:
			appendFixed(v, layout, acc[accValue:])
		}
	}
	return nil
}

func intRange(k row.Kind) (lo, hi int64) {
	switch k {
	case row.TinyInt:
		return math.MinInt8, math.MaxInt8
	case row.SmallInt:
		return math.MinInt16, math.MaxInt16
	case row.Int:
		return math.MinInt32, math.MaxInt32
	}
	return math.MinInt64, math.MaxInt64
}

func round(f float64, k row.Kind) float64 {
	if k == row.Float {
		return float64(float32(f))
	}
	return f
}

// average divides; integers truncate towards zero, decimals round half up to the result's scale.
func (a *accumulator) average(v *row.Vector, acc []byte, n int64) *fault {
	switch a.layout {
	case row.LayoutInt64:
		s := getDecimal(acc[accSum:])
		if x, ok := s.Int64(); ok && !(x == math.MinInt64 && n == -1) {
			v.Int64 = append(v.Int64, x/n)
			return nil
		}
		q := new(big.Int).Quo(bigInt(s), big.NewInt(n))
		v.Int64 = append(v.Int64, q.Int64())
	case row.LayoutFloat64:
		s := acc[accSum:]
		f := floatSum(s)
		if !math.IsNaN(f) && !math.IsInf(f, 0) || getInt64(s[sumNaN:]) == 0 && getInt64(s[sumPosInf:]) == 0 && getInt64(s[sumNegInf:]) == 0 {
			f, _ = new(big.Float).Quo(exactSum(s), new(big.Float).SetInt64(n)).Float64()
		}
		v.Float64 = append(v.Float64, round(f, a.call.Type.Kind))
	default:
		x := bigInt(getDecimal(acc[accSum:]))
		scale := int64(a.call.Type.Scale - a.in.Scale)
		x.Mul(x, new(big.Int).Exp(big.NewInt(10), big.NewInt(scale), nil))
		d := big.NewInt(n)
		half := new(big.Int).Quo(d, big.NewInt(2))
		odd := n%2 != 0
		q, r := new(big.Int).QuoRem(x, d, new(big.Int))
		if r.CmpAbs(half) > 0 || !odd && r.CmpAbs(half) == 0 && r.Sign() != 0 {
			q.Add(q, big.NewInt(int64(x.Sign())))
		}
		if new(big.Int).Abs(q).Cmp(maxDecimal38) >= 0 {
			v.AppendNull(row.LayoutDecimal)
			return &fault{codeOverflow, "AVG is out of the range of " + a.call.Type.Nullable().String()}
		}
		v.Decimal = append(v.Decimal, fromBig(q))
	}
	return nil
}

// variance is computed from the exact sums of values and squares: (Q - S*S/n) / n, or n-1 for a sample.
func (a *accumulator) variance(v *row.Vector, acc []byte, n int64) {
	sum, squares := acc[accSum:accSum+floatSumLen], acc[accSum+floatSumLen:]
	layout := a.call.Type.Layout()
	sample := a.call.Func == VarSamp || a.call.Func == StddevSamp
	if sample && n == 1 {
		v.AppendNull(layout)
		return
	}
	f := math.NaN()
	if getInt64(sum[sumNaN:]) == 0 && getInt64(sum[sumPosInf:]) == 0 && getInt64(sum[sumNegInf:]) == 0 {
		s := exactSum(sum)
		s.SetPrec(2*sumWords*64).Mul(s, s)
		s.Quo(s, new(big.Float).SetInt64(n))
		q := exactSquares(squares)
		q.SetPrec(2*squareWords*64).Sub(q, s)
		d := n
		if sample {
			d--
		}
		q.Quo(q, new(big.Float).SetInt64(d))
		if a.call.Func == StddevPop || a.call.Func == StddevSamp {
			if q.Sign() > 0 {
				q.SetPrec(200).Sqrt(q)
			}
		}
		f, _ = q.Float64()
		if layout == row.LayoutDecimal {
			// Decimals were scaled down to doubles on the way in.
			scaled, _ := new(big.Float).Mul(q, new(big.Float).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(a.call.Type.Scale)), nil))).Int(nil)
			v.Decimal = append(v.Decimal, fromBig(scaled))
			return
		}
	}
	v.Float64 = append(v.Float64, round(f, a.call.Type.Kind))
}

func appendFixed(v *row.Vector, l row.Layout, b []byte) {
	switch l {
	case row.LayoutInt64:
		v.Int64 = append(v.Int64, getInt64(b))
	case row.LayoutFloat64:
		v.Float64 = append(v.Float64, math.Float64frombits(binary.LittleEndian.Uint64(b)))
	case row.LayoutDecimal:
		v.Decimal = append(v.Decimal, getDecimal(b))
	}
}
