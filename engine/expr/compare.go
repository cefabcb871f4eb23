package expr

import (
	"bytes"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// comparisons of all types that have an order or an equality.
func comparisons() []*Function {
	var fs []*Function
	for _, op := range []string{"=", "<>|!=", "<", "<=", ">", ">="} {
		fs = append(fs, &Function{name: op, hidden: true, resolve: resolveCompare, bind: bindCompare, print: printInfix, cost: 1})
	}
	return append(fs,
		&Function{name: "IS DISTINCT FROM", hidden: true, resolve: resolveCompare, bind: bindDistinct(0), print: printInfix, nulls: true, notNull: true, cost: 2},
		&Function{name: "IS NOT DISTINCT FROM", hidden: true, resolve: resolveCompare, bind: bindDistinct(1), print: printInfix, nulls: true, notNull: true, cost: 2},
		isFunction("IS NULL", "x", func(null, _ bool) bool { return null }),
		isFunction("IS NOT NULL", "x", func(null, _ bool) bool { return !null }),
		isFunction("IS TRUE", "b", func(null, v bool) bool { return !null && v }),
		isFunction("IS NOT TRUE", "b", func(null, v bool) bool { return null || !v }),
		isFunction("IS FALSE", "b", func(null, v bool) bool { return !null && !v }),
		isFunction("IS NOT FALSE", "b", func(null, v bool) bool { return null || v }),
		isFunction("IS UNKNOWN", "b", func(null, _ bool) bool { return null }),
		isFunction("IS NOT UNKNOWN", "b", func(null, _ bool) bool { return !null }),
		&Function{name: "NOT", hidden: true, sig: "b", result: boolean, cost: 1, bind: func(*Call, *Settings) (kernel, error) { return notKernel, nil },
			print: func(c *Call) string { return "(NOT " + c.Args[0].String() + ")" }},
		&Function{name: "GREATEST", resolve: resolveExtreme, bind: bindExtreme(true), cost: 3},
		&Function{name: "LEAST", resolve: resolveExtreme, bind: bindExtreme(false), cost: 3},
	)
}

// isFunction is a test that is never NULL. is gives the answer for NULL, FALSE and TRUE.
func isFunction(name, sig string, is func(null, v bool) bool) *Function {
	answer := func(null, v bool) int64 {
		if is(null, v) {
			return 1
		}
		return 0
	}
	onNull, onFalse, onTrue := answer(true, false), answer(false, false), answer(false, true)
	k := func(f *frame) {
		v, out := f.in[0], f.out.Int64
		plain := onFalse == onTrue
		for i := range out {
			if plain {
				out[i] = onFalse
			} else if v.Int64[i]&1 != 0 {
				out[i] = onTrue
			} else {
				out[i] = onFalse
			}
		}
		if len(v.Nulls) > 0 {
			for i := range out {
				if v.Nulls.Is(i) {
					out[i] = onNull
				}
			}
		}
	}
	return &Function{name: name, hidden: true, sig: sig, result: boolean, nulls: true, notNull: true, cost: 1, print: printPostfix,
		bind: func(*Call, *Settings) (kernel, error) { return k, nil }}
}

func notKernel(f *frame) {
	v, out := f.in[0].Int64[:f.n], f.out.Int64
	for i, x := range v {
		out[i] = x&1 ^ 1
	}
}

// comparable tells whether values of a type are ordered, or only equal or not.
func comparable(t row.Type) (ordered, equal bool) {
	switch t.Kind {
	case row.Array, row.Map, row.Multiset, row.Struct:
		return false, true
	case row.JSON, row.Foreign:
		return false, true
	}
	return true, true
}

func resolveCompare(f *Function, args []Expr) (Expr, error) {
	if len(args) != 2 {
		return nil, takes(f, "two values")
	}
	out, t, err := unify(f.name, args)
	if err != nil {
		return nil, err
	}
	ordered, _ := comparable(t)
	if !ordered && (f.name[0] == '<' && f.name != "<>" || f.name[0] == '>') {
		return nil, errs.New(errs.SQLTypeMismatch, "values of %s have no order", t.Nullable()).WithDetail("in %s(%s)", f.name, joinExprs(args, ", "))
	}
	if t.Kind == row.Null {
		return NullOf(kind(row.Boolean)), nil
	}
	return f.typed(out, kind(row.Boolean)), nil
}

// order is an operator as what it answers for less, equal and more.
type order struct{ less, equal, more int64 }

func orderOf(op string) order {
	switch op {
	case "=":
		return order{0, 1, 0}
	case "<>":
		return order{1, 0, 1}
	case "<":
		return order{1, 0, 0}
	case "<=":
		return order{1, 1, 0}
	case ">":
		return order{0, 0, 1}
	}
	return order{0, 1, 1}
}

func bindCompare(c *Call, _ *Settings) (kernel, error) {
	t := c.Args[0].Type()
	op := c.Fn.name
	a, b := 0, 1
	switch op { // two orders are enough
	case ">":
		op, a, b = "<", 1, 0
	case ">=":
		op, a, b = "<=", 1, 0
	}
	switch t.Layout() {
	case row.LayoutInt64:
		return func(f *frame) { compareInts(op, f.out.Int64, f.in[a].Int64, f.in[b].Int64, f.sel) }, nil
	case row.LayoutFloat64:
		o := orderOf(op)
		return func(f *frame) { compareFloats(o, f.out.Int64, f.in[a].Float64, f.in[b].Float64, f.sel) }, nil
	case row.LayoutDecimal:
		o := orderOf(op)
		return func(f *frame) { compareDecimals(o, f.out.Int64, f.in[a].Decimal, f.in[b].Decimal, f.sel) }, nil
	}
	o := orderOf(op)
	if t.Kind == row.Numeric {
		return func(f *frame) {
			f.each(func(i int) { f.out.Int64[i] = o.answer(row.CompareNumeric(f.in[a].Bytes(i), f.in[b].Bytes(i))) })
		}, nil
	}
	if op == "=" || op == "<>" {
		return func(f *frame) { equalBytes(o.equal, f.out.Int64, f.in[a], f.in[b], f.sel) }, nil
	}
	return func(f *frame) { compareBytes(o, f.out.Int64, f.in[a], f.in[b], f.sel) }, nil
}

func (o order) answer(c int) int64 {
	switch {
	case c < 0:
		return o.less
	case c > 0:
		return o.more
	}
	return o.equal
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func compareInts(op string, out, a, b []int64, sel []int32) {
	if sel != nil {
		switch op {
		case "=":
			for _, i := range sel {
				out[i] = bit(a[i] == b[i])
			}
		case "<>":
			for _, i := range sel {
				out[i] = bit(a[i] != b[i])
			}
		case "<":
			for _, i := range sel {
				out[i] = bit(a[i] < b[i])
			}
		default:
			for _, i := range sel {
				out[i] = bit(a[i] <= b[i])
			}
		}
		return
	}
	a, b = a[:len(out)], b[:len(out)]
	switch op {
	case "=":
		for i := range out {
			out[i] = bit(a[i] == b[i])
		}
	case "<>":
		for i := range out {
			out[i] = bit(a[i] != b[i])
		}
	case "<":
		for i := range out {
			out[i] = bit(a[i] < b[i])
		}
	default:
		for i := range out {
			out[i] = bit(a[i] <= b[i])
		}
	}
}

// compareFloat orders NaN behind everything and equal to itself.
func compareFloat(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	case a == b:
		return 0
	case a == a:
		return -1
	case b == b:
		return 1
	}
	return 0
}

func compareFloats(o order, out []int64, a, b []float64, sel []int32) {
	one := func(x, y float64) int64 {
		switch {
		case x < y:
			return o.less
		case x > y:
			return o.more
		case x == y:
			return o.equal
		}
		return o.answer(compareFloat(x, y))
	}
	if sel != nil {
		for _, i := range sel {
			out[i] = one(a[i], b[i])
		}
		return
	}
	a, b = a[:len(out)], b[:len(out)]
	for i := range out {
		out[i] = one(a[i], b[i])
	}
}

func compareDecimals(o order, out []int64, a, b []row.Int128, sel []int32) {
	if sel != nil {
		for _, i := range sel {
			out[i] = o.answer(a[i].Cmp(b[i]))
		}
		return
	}
	a, b = a[:len(out)], b[:len(out)]
	for i := range out {
		out[i] = o.answer(a[i].Cmp(b[i]))
	}
}

func equalBytes(equal int64, out []int64, a, b *row.Vector, sel []int32) {
	if sel != nil {
		for _, i := range sel {
			out[i] = bit(bytes.Equal(a.Bytes(int(i)), b.Bytes(int(i)))) ^ equal ^ 1
		}
		return
	}
	for i := range out {
		out[i] = bit(bytes.Equal(a.Bytes(i), b.Bytes(i))) ^ equal ^ 1
	}
}

func compareBytes(o order, out []int64, a, b *row.Vector, sel []int32) {
	if sel != nil {
		for _, i := range sel {
			out[i] = o.answer(bytes.Compare(a.Bytes(int(i)), b.Bytes(int(i))))
		}
		return
	}
	for i := range out {
		out[i] = o.answer(bytes.Compare(a.Bytes(i), b.Bytes(i)))
	}
}

// comparer orders two values of a type that are not NULL; for rare operators.
func comparer(t row.Type) func(a *row.Vector, i int, b *row.Vector, j int) int {
	switch t.Layout() {
	case row.LayoutInt64:
		return func(a *row.Vector, i int, b *row.Vector, j int) int {
			switch x, y := a.Int64[i], b.Int64[j]; {
			case x < y:
				return -1
			case x > y:
				return 1
			}
			return 0
		}
	case row.LayoutFloat64:
		return func(a *row.Vector, i int, b *row.Vector, j int) int { return compareFloat(a.Float64[i], b.Float64[j]) }
	case row.LayoutDecimal:
		return func(a *row.Vector, i int, b *row.Vector, j int) int { return a.Decimal[i].Cmp(b.Decimal[j]) }
	}
	if t.Kind == row.Numeric {
		return func(a *row.Vector, i int, b *row.Vector, j int) int {
			return row.CompareNumeric(a.Bytes(i), b.Bytes(j))
		}
	}
	return func(a *row.Vector, i int, b *row.Vector, j int) int { return bytes.Compare(a.Bytes(i), b.Bytes(j)) }
}

func bindDistinct(same int64) func(*Call, *Settings) (kernel, error) {
	return func(c *Call, _ *Settings) (kernel, error) {
		compare := comparer(c.Args[0].Type())
		return func(f *frame) {
			a, b := f.in[0], f.in[1]
			f.each(func(i int) {
				an, bn := a.Nulls.Is(i), b.Nulls.Is(i)
				equal := an && bn || !an && !bn && compare(a, i, b, i) == 0
				f.out.Int64[i] = bit(equal) ^ same ^ 1
			})
		}, nil
	}
}

func resolveExtreme(f *Function, args []Expr) (Expr, error) {
	if len(args) == 0 {
		return nil, takes(f, "values")
	}
	out, t, err := unify(f.name, args)
	if err != nil {
		return nil, err
	}
	if ordered, _ := comparable(t); !ordered {
		return nil, f.mismatch(args)
	}
	return f.typed(out, t), nil
}

// bindExtreme is GREATEST and LEAST, which are NULL if one argument is.
func bindExtreme(greatest bool) func(*Call, *Settings) (kernel, error) {
	return func(c *Call, _ *Settings) (kernel, error) {
		compare, layout := comparer(c.T), c.T.Layout()
		return func(f *frame) {
			f.each(func(i int) {
				best := f.in[0]
				for _, v := range f.in[1:] {
					if d := compare(v, i, best, i); d > 0 == greatest && d != 0 {
						best = v
					}
				}
				switch layout {
				case row.LayoutInt64:
					f.out.Int64[i] = best.Int64[i]
				case row.LayoutFloat64:
					f.out.Float64[i] = best.Float64[i]
				case row.LayoutDecimal:
					f.out.Decimal[i] = best.Decimal[i]
				case row.LayoutBytes:
					off := len(f.heap)
					f.heap = append(f.heap, best.Bytes(i)...)
					f.put(i, off)
				}
			})
		}, nil
	}
}

// inKernel looks values up among constants.
func inKernel(e *In) kernel {
	yes := int64(1)
	if e.Not {
		yes = 0
	}
	var has func(v *row.Vector, i int) bool
	switch e.Arg.Type().Layout() {
	case row.LayoutInt64:
		set := map[int64]struct{}{}
		var few []int64
		for _, c := range e.List {
			if _, twice := set[c.Int64()]; !twice {
				few = append(few, c.Int64())
			}
			set[c.Int64()] = struct{}{}
		}
		if len(few) <= 8 && !e.Null {
			return func(f *frame) { inFew(yes, f.out.Int64, f.in[0].Int64, few, f.sel) }
		}
		has = func(v *row.Vector, i int) bool { _, ok := set[v.Int64[i]]; return ok }
	case row.LayoutFloat64, row.LayoutDecimal:
		compare := comparer(e.Arg.Type())
		has = func(v *row.Vector, i int) bool {
			for _, c := range e.List {
				if compare(v, i, c.Vec, 0) == 0 {
					return true
				}
			}
			return false
		}
	default:
		if e.Arg.Type().Kind == row.Numeric {
			has = func(v *row.Vector, i int) bool {
				for _, c := range e.List {
					if row.CompareNumeric(v.Bytes(i), c.Vec.Bytes(0)) == 0 {
						return true
					}
				}
				return false
			}
			break
		}
		set := map[string]struct{}{}
		for _, c := range e.List {
			set[c.Text()] = struct{}{}
		}
		if len(e.List) <= 8 {
			var few []string
			for _, c := range e.List {
				few = append(few, c.Text())
			}
			has = func(v *row.Vector, i int) bool {
				b := v.Bytes(i)
				for _, s := range few {
					if s == string(b) {
						return true
					}
				}
				return false
			}
			break
		}
		has = func(v *row.Vector, i int) bool { _, ok := set[string(v.Bytes(i))]; return ok }
	}
	return func(f *frame) {
		v := f.in[0]
		f.each(func(i int) {
			switch {
			case has(v, i):
				f.out.Int64[i] = yes
			case e.Null:
				f.null(i)
			default:
				f.out.Int64[i] = yes ^ 1
			}
		})
	}
}

func inFew(yes int64, out, a, few []int64, sel []int32) {
	one := func(x int64) int64 {
		found := yes ^ 1
		for _, y := range few {
			if x == y {
				found = yes
			}
		}
		return found
	}
	if sel != nil {
		for _, i := range sel {
			out[i] = one(a[i])
		}
		return
	}
	for i, x := range a[:len(out)] {
		out[i] = one(x)
	}
}
