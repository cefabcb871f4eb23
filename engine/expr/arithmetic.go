package expr

import (
	"math"
	"math/bits"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// operators of numbers, times and texts.
func operators() []*Function {
	var fs []*Function
	for _, op := range []string{"+", "-", "*", "/", "%|MOD"} {
		fs = append(fs, &Function{name: op, hidden: true, resolve: resolveArithmetic, bind: bindArithmetic, print: printInfix, faults: true, cost: 2})
	}
	return append(fs,
		&Function{name: "||", hidden: true, sig: "ss*|yy*", resolve: resolveJoin, bind: bindConcat, print: printInfix, cost: 15},
		negateFunction)
}

// negateFunction is the unary minus.
var negateFunction = &Function{name: "NEGATE", hidden: true, sig: "n", result: returnsArg(0), bind: bindNegate, faults: true, cost: 1,
	print: func(c *Call) string { return "(-" + c.Args[0].String() + ")" }}

func interval(t row.Type) bool { return t.Kind == row.IntervalMonths || t.Kind == row.IntervalTime }

func temporal(t row.Type) bool {
	return t.Kind == row.Date || t.Kind == row.Time || t.Kind == row.Timestamp || t.Kind == row.TimestampLTZ
}

// resolveJoin makes one step of a || b || c.
func resolveJoin(f *Function, args []Expr) (Expr, error) {
	var flat []Expr
	for _, a := range args {
		if c, ok := a.(*Call); ok && c.Fn == f {
			flat = append(flat, c.Args...)
		} else {
			flat = append(flat, a)
		}
	}
	out, ok := f.match(flat)
	if !ok || len(args) < 2 {
		return nil, f.mismatch(args)
	}
	return f.typed(out, concatType(out)), nil
}

func resolveArithmetic(f *Function, args []Expr) (Expr, error) {
	if len(args) == 1 && (f.name == "+" || f.name == "-") {
		return resolveSign(f, args)
	}
	if len(args) != 2 {
		return nil, takes(f, "two numbers")
	}
	a, b := args[0], args[1]
	if a.Type().Kind == row.Null && b.Type().Kind == row.Null {
		return NullOf(kind(row.Int)), nil
	}
	if a.Type().Kind == row.Null {
		a = NullOf(b.Type())
	}
	if b.Type().Kind == row.Null {
		b = NullOf(a.Type())
	}
	ta, tb := a.Type(), b.Type()
	if ta.Kind.Number() && tb.Kind.Number() {
		return resolveNumbers(f, a, b), nil
	}
	if e := resolveTimes(f, a, b); e != nil {
		return e, nil
	}
	err := f.mismatch(args).(*errs.Error)
	if ta.Kind == row.String || tb.Kind == row.String {
		if f.name == "+" {
			return nil, err.WithHint("texts are joined by ||")
		}
		return nil, err.WithHint("text is not taken as a number: CAST(x AS DOUBLE) or CAST(x AS BIGINT) says that it is meant")
	}
	return nil, err
}

func resolveSign(f *Function, args []Expr) (Expr, error) {
	t := args[0].Type()
	switch {
	case !t.Kind.Number() && !interval(t):
		return nil, f.mismatch(args)
	case f.name == "+":
		return args[0], nil
	}
	if c, ok := args[0].(*Const); ok && !c.IsNull() {
		if n := negated(c); n != nil {
			return n, nil
		}
	}
	return negateFunction.typed(args, t), nil
}

// negated is the literal with its sign; the smallest INT and BIGINT come as numbers that fit only once they have it.
func negated(c *Const) *Const {
	switch t := c.T; {
	case t.Kind == row.BigInt && c.Int64() == -math.MinInt32:
		return Int(kind(row.Int), math.MinInt32)
	case t.Kind.Integer():
		low, _ := rangeOf(t)
		if c.Int64() > low {
			return Int(t, -c.Int64())
		}
	case t.Kind == row.Decimal:
		d := c.Vec.Decimal[0].Neg()
		if x, ok := d.Int64(); ok && x == math.MinInt64 && t.Scale == 0 {
			return Int(kind(row.BigInt), x)
		}
		return NewConst(t, &row.Vector{Decimal: []row.Int128{d}})
	case t.Kind == row.Double:
		return Float(-c.Vec.Float64[0])
	}
	return nil
}

func resolveNumbers(f *Function, a, b Expr) Expr {
	ta, tb := a.Type(), b.Type()
	t := commonNumber(ta.Nullable(), tb.Nullable())
	if t.Kind != row.Decimal {
		args := castAll([]Expr{a, b}, t)
		if f.name == "%" && t.Kind.Integer() {
			t = tb // what is left is smaller than the divisor
		}
		return f.typed(args, t)
	}
	p1, s1 := digitsOf(ta)
	p2, s2 := digitsOf(tb)
	t = decimalResult(f.name, p1, s1, p2, s2)
	if f.name != "*" { // a product takes whole numbers as they are
		a, b = castNode(a, decimalType(p1, s1), false), castNode(b, decimalType(p2, s2), false)
	}
	return f.typed([]Expr{a, b}, t)
}

// resolveTimes is the arithmetic of dates, times and intervals; nil if there is none for the types.
func resolveTimes(f *Function, a, b Expr) Expr {
	ta, tb := a.Type().Nullable(), b.Type().Nullable()
	switch f.name {
	case "+":
		if interval(ta) && temporal(tb) {
			a, b, ta, tb = b, a, tb, ta
		}
		fallthrough
	case "-":
		switch {
		case temporal(ta) && interval(tb) && !(ta.Kind == row.Time && tb.Kind == row.IntervalMonths):
			return f.typed([]Expr{a, b}, ta)
		case interval(ta) && ta.Same(tb):
			return f.typed([]Expr{a, b}, ta)
		case f.name == "-" && temporal(ta) && temporal(tb) && ta.Kind != row.Time && tb.Kind != row.Time:
			t, _ := common(ta, tb)
			if t.Kind == row.Date || t.Precision > 6 {
				t = timestampType(6)
			}
			return f.typed(castAll([]Expr{a, b}, t), kind(row.IntervalTime))
		}
	case "*":
		if tb.Kind != row.Null && interval(tb) && ta.Kind.Integer() {
			a, b, ta, tb = b, a, tb, ta
		}
		fallthrough
	case "/":
		if interval(ta) && tb.Kind.Integer() {
			return f.typed([]Expr{a, b}, ta)
		}
	}
	return nil
}

func bindNegate(c *Call, _ *Settings) (kernel, error) {
	switch c.T.Layout() {
	case row.LayoutFloat64:
		return func(f *frame) {
			for i, x := range f.in[0].Float64[:f.n] {
				f.out.Float64[i] = -x
			}
		}, nil
	case row.LayoutDecimal:
		return func(f *frame) {
			for i, x := range f.in[0].Decimal[:f.n] {
				f.out.Decimal[i] = x.Neg()
			}
		}, nil
	case row.LayoutBytes:
		return func(f *frame) {
			f.each(func(i int) {
				off, b := len(f.heap), f.in[0].Bytes(i)
				switch {
				case len(b) > 0 && b[0] == '-':
					f.heap = append(f.heap, b[1:]...)
				case string(b) == "NaN" || row.CompareNumeric(b, []byte("0")) == 0:
					f.heap = append(f.heap, b...)
				default:
					f.heap = append(append(f.heap, '-'), b...)
				}
				f.put(i, off)
			})
		}, nil
	}
	low, high := rangeOf(c.T)
	return func(f *frame) {
		zero := int64(0)
		addInts(f, func(i int) (int64, int64) { return zero, f.in[0].Int64[i] }, -1, low, high)
	}, nil
}

// rangeOf is what a type of the Int64 layout holds.
func rangeOf(t row.Type) (low, high int64) {
	switch t.Kind {
	case row.Date: // years -9999 to 9999
		return -4371953, 2932896
	case row.IntervalMonths:
		return math.MinInt32, math.MaxInt32
	case row.Time:
		return 0, row.NanosPerDay - 1
	}
	return row.IntegerRange(t.Kind)
}

func bindArithmetic(c *Call, s *Settings) (kernel, error) {
	op := c.Fn.name
	ta, tb := c.Args[0].Type(), c.Args[1].Type()
	if temporal(ta) || interval(ta) {
		return bindTimes(c, s)
	}
	switch c.T.Kind {
	case row.Float, row.Double:
		return bindFloats(op, c.T), nil
	case row.Decimal:
		return bindDecimals(op, ta, tb, c.T), nil
	case row.Numeric:
		return bindNumeric(op), nil
	}
	low, high := rangeOf(c.T)
	big := c.T.Kind == row.BigInt
	switch {
	case op == "+" && big:
		return func(f *frame) { sumBig(f, f.in[0].Int64, f.in[1].Int64) }, nil
	case op == "-" && big:
		return func(f *frame) { differBig(f, f.in[0].Int64, f.in[1].Int64) }, nil
	case op == "*" && big:
		return func(f *frame) { multiplyBig(f, f.in[0].Int64, f.in[1].Int64) }, nil
	}
	switch op {
	case "+":
		return func(f *frame) { sumSmall(f, f.in[0].Int64, f.in[1].Int64, 1, low, high) }, nil
	case "-":
		return func(f *frame) { sumSmall(f, f.in[0].Int64, f.in[1].Int64, -1, low, high) }, nil
	case "*":
		return func(f *frame) { multiplyInts(f, f.in[0].Int64, f.in[1].Int64, low, high) }, nil
	case "/":
		return func(f *frame) { divideInts(f, f.in[0].Int64, f.in[1].Int64, low, high) }, nil
	}
	return func(f *frame) { moduloInts(f, f.in[0].Int64, f.in[1].Int64) }, nil
}

// The loops of whole numbers note in one word whether any row left the type's range; only then is it looked for.

func sumBig(f *frame, a, b []int64) {
	out := f.out.Int64
	bad := int64(0)
	if f.sel == nil {
		a, b = a[:len(out)], b[:len(out)]
		for i := range out {
			x, y := a[i], b[i]
			s := x + y
			out[i] = s
			bad |= (x ^ s) & (y ^ s)
		}
	} else {
		for _, i := range f.sel {
			x, y := a[i], b[i]
			s := x + y
			out[i] = s
			bad |= (x ^ s) & (y ^ s)
		}
	}
	if bad < 0 {
		addInts(f, func(i int) (int64, int64) { return a[i], b[i] }, 1, math.MinInt64, math.MaxInt64)
	}
}

func differBig(f *frame, a, b []int64) {
	out := f.out.Int64
	bad := int64(0)
	if f.sel == nil {
		a, b = a[:len(out)], b[:len(out)]
		for i := range out {
			x, y := a[i], b[i]
			s := x - y
			out[i] = s
			bad |= (x ^ y) & (x ^ s)
		}
	} else {
		for _, i := range f.sel {
			x, y := a[i], b[i]
			s := x - y
			out[i] = s
			bad |= (x ^ y) & (x ^ s)
		}
	}
	if bad < 0 {
		addInts(f, func(i int) (int64, int64) { return a[i], b[i] }, -1, math.MinInt64, math.MaxInt64)
	}
}

// sumSmall is for types of up to 32 bits: the sum, or the difference with sign -1.
func sumSmall(f *frame, a, b []int64, sign, low, high int64) {
	out := f.out.Int64
	bad := int64(0)
	if f.sel == nil {
		a, b = a[:len(out)], b[:len(out)]
		for i := range out {
			s := a[i] + b[i]*sign
			out[i] = s
			bad |= (s - low) | (high - s)
		}
	} else {
		for _, i := range f.sel {
			s := a[i] + b[i]*sign
			out[i] = s
			bad |= (s - low) | (high - s)
		}
	}
	if bad < 0 {
		addInts(f, func(i int) (int64, int64) { return a[i], b[i] }, sign, low, high)
	}
}

// addInts is the careful sum, or difference with sign -1, one row at a time.
func addInts(f *frame, values func(i int) (int64, int64), sign, low, high int64) {
	f.each(func(i int) {
		a, b := values(i)
		var s int64
		var ok bool
		if sign > 0 {
			s, ok = addInt64(a, b)
		} else {
			s, ok = subInt64(a, b)
		}
		if !ok || s < low || s > high {
			f.overflow(i)
			return
		}
		f.out.Int64[i] = s
	})
}

func addInt64(a, b int64) (int64, bool) {
	s := a + b
	return s, (a^s)&(b^s) >= 0
}

func subInt64(a, b int64) (int64, bool) {
	s := a - b
	return s, (a^b)&(a^s) >= 0
}

func mulInt64(a, b int64) (int64, bool) { return row.MulInt64(a, b).Int64() }

// multiplyInts is for types of up to 32 bits, whose products fit 64.
func multiplyInts(f *frame, a, b []int64, low, high int64) {
	out := f.out.Int64
	bad := int64(0)
	if f.sel == nil {
		a, b = a[:len(out)], b[:len(out)]
		for i := range out {
			p := a[i] * b[i]
			out[i] = p
			bad |= (p - low) | (high - p)
		}
	} else {
		for _, i := range f.sel {
			p := a[i] * b[i]
			out[i] = p
			bad |= (p - low) | (high - p)
		}
	}
	if bad < 0 {
		f.each(func(i int) {
			if out[i] < low || out[i] > high {
				f.overflow(i)
			}
		})
	}
}

func multiplyBig(f *frame, a, b []int64) {
	out := f.out.Int64
	bad := uint64(0)
	one := func(x, y int64) int64 {
		hi, lo := bits.Mul64(uint64(x), uint64(y))
		hi -= uint64(x>>63)&uint64(y) + uint64(y>>63)&uint64(x)
		bad |= hi ^ uint64(int64(lo)>>63)
		return int64(lo)
	}
	if f.sel == nil {
		a, b = a[:len(out)], b[:len(out)]
		for i := range out {
			out[i] = one(a[i], b[i])
		}
	} else {
		for _, i := range f.sel {
			out[i] = one(a[i], b[i])
		}
	}
	if bad != 0 {
		f.each(func(i int) {
			if _, ok := mulInt64(a[i], b[i]); !ok {
				f.overflow(i)
			}
		})
	}
}

func divideInts(f *frame, a, b []int64, low, high int64) {
	out := f.out.Int64
	one := func(i int) {
		x, y := a[i], b[i]
		if y == 0 {
			f.fail(i, errs.EvalDivisionByZero, "division by zero")
			out[i] = 0
			return
		}
		q := x / y
		if y == -1 && (q > high || x == math.MinInt64) || q < low {
			f.overflow(i)
		}
		out[i] = q
	}
	if f.sel == nil {
		for i := range out {
			one(i)
		}
		return
	}
	for _, i := range f.sel {
		one(int(i))
	}
}

func moduloInts(f *frame, a, b []int64) {
	out := f.out.Int64
	one := func(i int) {
		x, y := a[i], b[i]
		switch {
		case y == 0:
			f.fail(i, errs.EvalDivisionByZero, "division by zero")
			out[i] = 0
		case uint64(x|y)>>32 == 0: // a division of half the width takes a third of the time
			out[i] = int64(uint32(x) % uint32(y))
		default:
			out[i] = x % y
		}
	}
	if f.sel == nil {
		for i := range out {
			one(i)
		}
		return
	}
	for _, i := range f.sel {
		one(int(i))
	}
}

func bindFloats(op string, t row.Type) kernel {
	single := t.Kind == row.Float
	return func(f *frame) {
		a, b, out := f.in[0].Float64, f.in[1].Float64, f.out.Float64
		if op == "/" || op == "%" {
			floatQuotients(f, op, a, b, out)
		} else if f.sel == nil {
			floatsAll(op, a[:len(out)], b[:len(out)], out)
		} else {
			floatsSelected(op, a, b, out, f.sel)
		}
		if single {
			for i, x := range out {
				out[i] = float64(float32(x))
			}
		}
	}
}

func floatsAll(op string, a, b, out []float64) {
	switch op {
	case "+":
		for i := range out {
			out[i] = a[i] + b[i]
		}
	case "-":
		for i := range out {
			out[i] = a[i] - b[i]
		}
	default:
		for i := range out {
			out[i] = a[i] * b[i]
		}
	}
}

func floatsSelected(op string, a, b, out []float64, sel []int32) {
	switch op {
	case "+":
		for _, i := range sel {
			out[i] = a[i] + b[i]
		}
	case "-":
		for _, i := range sel {
			out[i] = a[i] - b[i]
		}
	default:
		for _, i := range sel {
			out[i] = a[i] * b[i]
		}
	}
}

// floatQuotients: a float divided by zero is infinite or NaN, as in Flink, and no fault.
func floatQuotients(f *frame, op string, a, b, out []float64) {
	one := func(i int) {
		if op == "/" {
			out[i] = a[i] / b[i]
		} else {
			out[i] = math.Mod(a[i], b[i])
		}
	}
	if f.sel == nil {
		for i := range out {
			one(i)
		}
		return
	}
	for _, i := range f.sel {
		one(int(i))
	}
}
