package expr

import (
	"math"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

func mathFunctions() []*Function {
	fs := []*Function{
		{name: "ABS", sig: "n", resolve: resolveSameNumber, faults: true, bind: bindAbs, cost: 2},
		{name: "SIGN", sig: "n", resolve: resolveSameNumber, bind: bindSign, cost: 2},
		{name: "FLOOR", sig: "n|tk", resolve: resolveFloor, bind: bindFloor(false), faults: true, cost: 6},
		{name: "CEIL|CEILING", sig: "n|tk", resolve: resolveFloor, bind: bindFloor(true), faults: true, cost: 6},
		{name: "ROUND", sig: "n?i", resolve: resolveRound, bind: bindRound(false), faults: true, cost: 6},
		{name: "TRUNCATE|TRUNC", sig: "n?i", resolve: resolveRound, bind: bindRound(true), faults: true, cost: 6},
		{name: "POWER|POW", sig: "dd", result: double, bind: floats2(math.Pow), cost: 30},
		{name: "ATAN2", sig: "dd", result: double, bind: floats2(math.Atan2), cost: 30},
		{name: "LN", sig: "d", result: double, bind: logarithm(math.Log), cost: 15, faults: true},
		{name: "LOG10", sig: "d", result: double, bind: logarithm(math.Log10), cost: 15, faults: true},
		{name: "LOG2", sig: "d", result: double, bind: logarithm(math.Log2), cost: 15, faults: true},
		{name: "LOG", sig: "d|dd", result: double, bind: bindLog, cost: 20, faults: true},
		constantFn("PI", math.Pi),
		constantFn("E", math.E),
	}
	for name, fn := range map[string]func(float64) float64{
		"SQRT": math.Sqrt, "CBRT": math.Cbrt, "EXP": math.Exp, "SIN": math.Sin, "COS": math.Cos, "TAN": math.Tan, "ASIN": math.Asin, "ACOS": math.Acos,
		"ATAN": math.Atan, "SINH": math.Sinh, "COSH": math.Cosh, "TANH": math.Tanh,
		"COT":     func(x float64) float64 { return 1 / math.Tan(x) },
		"DEGREES": func(x float64) float64 { return x * 180 / math.Pi },
		"RADIANS": func(x float64) float64 { return x / 180 * math.Pi },
	} {
		fs = append(fs, &Function{name: name, sig: "d", result: double, bind: floats1(fn), cost: 15})
	}
	return fs
}

func constantFn(name string, x float64) *Function {
	return &Function{name: name, result: double, notNull: true, bind: func(*Call, *Settings) (kernel, error) {
		return func(f *frame) {
			for i := range f.out.Float64 {
				f.out.Float64[i] = x
			}
		}, nil
	}}
}

func floats1(fn func(float64) float64) func(*Call, *Settings) (kernel, error) {
	return func(*Call, *Settings) (kernel, error) {
		return func(f *frame) {
			x := f.in[0].Float64
			f.each(func(i int) { f.out.Float64[i] = fn(x[i]) })
		}, nil
	}
}

func floats2(fn func(a, b float64) float64) func(*Call, *Settings) (kernel, error) {
	return func(*Call, *Settings) (kernel, error) {
		return func(f *frame) {
			x, y := f.in[0].Float64, f.in[1].Float64
			f.each(func(i int) { f.out.Float64[i] = fn(x[i], y[i]) })
		}, nil
	}
}

// positive refuses what has no logarithm, as Flink does.
func (f *frame) positive(i int, x float64) bool {
	if x <= 0 {
		f.fail(i, errs.EvalArgument, "only positive numbers have a logarithm")
		return false
	}
	return true
}

func logarithm(fn func(float64) float64) func(*Call, *Settings) (kernel, error) {
	return func(*Call, *Settings) (kernel, error) {
		return func(f *frame) {
			x := f.in[0].Float64
			f.each(func(i int) {
				if f.positive(i, x[i]) {
					f.out.Float64[i] = fn(x[i])
				}
			})
		}, nil
	}
}

// bindLog is LOG(x), the natural one, and LOG(base, x).
func bindLog(c *Call, s *Settings) (kernel, error) {
	if len(c.Args) == 1 {
		return logarithm(math.Log)(c, s)
	}
	return func(f *frame) {
		base, x := f.in[0].Float64, f.in[1].Float64
		f.each(func(i int) {
			if base[i] <= 1 && base[i] > 0 {
				f.fail(i, errs.EvalArgument, "the base of a logarithm is greater than 1")
				return
			}
			if f.positive(i, base[i]) && f.positive(i, x[i]) {
				f.out.Float64[i] = math.Log(x[i]) / math.Log(base[i])
			}
		})
	}, nil
}

func resolveSameNumber(f *Function, args []Expr) (Expr, error) {
	if len(args) == 1 {
		t := args[0].Type()
		if t.Kind == row.Null {
			return NullOf(kind(row.Int)), nil
		}
		if t.Kind.Number() && t.Kind != row.Numeric || f.name == "ABS" && interval(t) {
			return f.typed(args, t), nil
		}
	}
	return nil, f.mismatch(args)
}

func bindAbs(c *Call, _ *Settings) (kernel, error) {
	switch c.T.Layout() {
	case row.LayoutFloat64:
		return func(f *frame) {
			for i, x := range f.in[0].Float64[:f.n] {
				f.out.Float64[i] = math.Abs(x)
			}
		}, nil
	case row.LayoutDecimal:
		return func(f *frame) {
			for i, x := range f.in[0].Decimal[:f.n] {
				if x.Hi < 0 {
					x = x.Neg()
				}
				f.out.Decimal[i] = x
			}
		}, nil
	}
	_, high := rangeOf(c.T)
	return singles(func(f *frame, i int, x int64) {
		if x < 0 {
			x = -x
		}
		f.setInt(i, x, x >= 0 && x <= high)
	}), nil
}

func bindSign(c *Call, _ *Settings) (kernel, error) {
	scale := c.T.Scale
	switch c.T.Layout() {
	case row.LayoutFloat64:
		return func(f *frame) {
			for i, x := range f.in[0].Float64[:f.n] {
				switch {
				case x > 0:
					x = 1
				case x < 0:
					x = -1
				}
				f.out.Float64[i] = x
			}
		}, nil
	case row.LayoutDecimal:
		if c.T.Scale >= c.T.Precision { // a 1 does not fit the type: DECIMAL(3,3)
			return nil, errs.New(errs.SQLTypeMismatch, "SIGN does not take %s: it has no place before the point", c.T.Nullable())
		}
		return func(f *frame) {
			f.each(func(i int) {
				d, _ := row.Int128From(int64(f.in[0].Decimal[i].Sign())).MulPow10(scale)
				f.out.Decimal[i] = d
			})
		}, nil
	}
	return singles(func(f *frame, i int, x int64) {
		switch {
		case x > 0:
			x = 1
		case x < 0:
			x = -1
		}
		f.out.Int64[i] = x
	}), nil
}

// resolveFloor is FLOOR(number) and FLOOR(time TO unit), CEIL alike.
func resolveFloor(f *Function, args []Expr) (Expr, error) {
	switch len(args) {
	case 1:
		t := args[0].Type()
		switch {
		case t.Kind == row.Null:
			return NullOf(kind(row.Int)), nil
		case t.Kind.Integer():
			return args[0], nil
		case t.Kind == row.Decimal:
			return f.typed(args, decimalType(min(row.MaxPrecision, max(1, t.Precision-t.Scale+1)), 0)), nil
		case t.Kind == row.Float || t.Kind == row.Double:
			return f.typed(args, t), nil
		}
	case 2:
		e, ok := matchArg('t', args[0])
		if !ok {
			break
		}
		u, err := constUnit(f.name, args[1])
		if err != nil {
			return nil, err
		}
		if u.length() == 0 && u.months() == 0 {
			return nil, errs.New(errs.SQLTypeMismatch, "%s does not go to %s", f.name, args[1])
		}
		if e.Type().Kind == row.Date && u.length() != 0 && u.length() < row.NanosPerDay {
			return e, nil
		}
		return f.typed([]Expr{e, args[1]}, e.Type()), nil
	}
	return nil, f.mismatch(args)
}

func bindFloor(up bool) func(*Call, *Settings) (kernel, error) {
	return func(c *Call, s *Settings) (kernel, error) {
		t := c.Args[0].Type()
		if len(c.Args) == 2 {
			u, err := constUnit(c.Fn.name, c.Args[1])
			return roundKernel(t, u, up, s.Zone), err
		}
		if t.Kind == row.Decimal {
			p := row.Pow10(t.Scale)
			return func(f *frame) {
				f.each(func(i int) {
					q, r := f.in[0].Decimal[i].QuoRem(p)
					switch {
					case up && r.Sign() > 0:
						q, _ = q.Add(row.Int128From(1))
					case !up && r.Sign() < 0:
						q, _ = q.Sub(row.Int128From(1))
					}
					f.out.Decimal[i] = q
				})
			}, nil
		}
		fn := math.Floor
		if up {
			fn = math.Ceil
		}
		return floats1(fn)(c, s)
	}
}

// resolveRound is ROUND(x[, digits]), TRUNCATE alike. The digits must be known for a DECIMAL's type to be known.
func resolveRound(f *Function, args []Expr) (Expr, error) {
	if len(args) != 1 && len(args) != 2 {
		return nil, f.mismatch(args)
	}
	t := args[0].Type()
	digits := Expr(Int(kind(row.BigInt), 0))
	if len(args) == 2 {
		var ok bool
		if digits, ok = matchArg('i', args[1]); !ok {
			return nil, f.mismatch(args)
		}
	}
	switch {
	case t.Kind == row.Null:
		return NullOf(kind(row.Int)), nil
	case t.Kind == row.Decimal:
		folded, err := Fold(digits, Settings{})
		if err != nil {
			return nil, err
		}
		if c, ok := folded.(*Const); ok && !c.IsNull() {
			n := int(max(min(c.Int64(), 100), -100))
			r := roundType(t.Precision, t.Scale, n)
			if f.name != "ROUND" {
				r = decimalType(min(row.MaxPrecision, max(1, t.Precision)), min(t.Scale, max(n, 0)))
			}
			return f.typed([]Expr{args[0], folded}, r), nil
		}
		return f.typed([]Expr{args[0], digits}, t), nil
	case t.Kind.Number() && t.Kind != row.Numeric:
		return f.typed([]Expr{args[0], digits}, t), nil
	}
	return nil, f.mismatch(args)
}

func bindRound(cut bool) func(*Call, *Settings) (kernel, error) {
	return func(c *Call, _ *Settings) (kernel, error) {
		t := c.Args[0].Type()
		switch t.Layout() {
		case row.LayoutFloat64:
			return func(f *frame) {
				f.each(func(i int) {
					x := roundFloat(f.in[0].Float64[i], f.in[1].Int64[i], cut)
					if t.Kind == row.Float {
						x = float64(float32(x))
					}
					f.out.Float64[i] = x
				})
			}, nil
		case row.LayoutDecimal:
			return func(f *frame) {
				f.each(func(i int) {
					d, ok := roundDecimal(f.in[0].Decimal[i], t.Scale, f.in[1].Int64[i], c.T.Scale, cut)
					if f.out.Decimal[i] = d; !ok || !d.Fits(c.T.Precision) {
						f.overflow(i)
					}
				})
			}, nil
		}
		low, high := rangeOf(c.T)
		return pairs(func(f *frame, i int, x, n int64) {
			if n < 0 {
				d, ok := roundDecimal(row.Int128From(x), 0, n, 0, cut)
				if x, _ = d.Int64(); !ok || d != row.Int128From(x) || x < low || x > high {
					f.overflow(i)
					return
				}
			}
			f.out.Int64[i] = x
		}), nil
	}
}

// roundDecimal rounds to digits behind the point, or before it if there are less than none, and writes it with scale to.
func roundDecimal(d row.Int128, scale int, digits int64, to int, cut bool) (row.Int128, bool) {
	digits = max(digits, -1000)
	if digits < int64(scale) {
		drop := int(min(int64(scale)-digits, 2*row.MaxPrecision))
		if cut {
			if drop > row.MaxPrecision {
				return row.Int128{}, true
			}
			d, _ = d.QuoRem(row.Pow10(drop))
		} else {
			d = d.QuoPow10(drop)
		}
		scale -= drop
	}
	return d.Rescale(scale, to)
}

func roundFloat(x float64, digits int64, cut bool) float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) || digits > 300 {
		return x
	}
	if digits < -308 {
		return 0
	}
	// The shortest text of the number decides, as in Java: 1.005 rounds to 1.01 although the double is a little less.
	if d, ok := row.DecimalFromFloat(x, 64, row.MaxPrecision, 18); ok && digits >= -18 && digits <= 18 && math.Abs(x) < 1e18 && math.Abs(x) > 1e-6 {
		if r, ok := roundDecimal(d, 18, digits, 18, cut); ok {
			return r.Float64(18)
		}
	}
	p := math.Pow(10, float64(digits))
	if cut {
		return math.Trunc(x*p) / p
	}
	return math.Round(x*p) / p
}
