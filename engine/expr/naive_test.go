package expr

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/weirstream/weir/engine/row"
)

// This file is the naive second answer: random trees, computed for each row by a slow interpreter over big numbers and Go
// strings, must give what the compiled program gives, faults included.

// val is a value of the interpreter: i of whole numbers, BOOLEAN, dates and timestamps, r of DECIMAL.
type val struct {
	null bool
	i    *big.Int
	f    float64
	r    *big.Rat
	s    string
}

var nullVal = val{null: true}

type faulted struct{}

func whole(i int64) val { return val{i: big.NewInt(i)} }

func truth(b bool) val {
	if b {
		return whole(1)
	}
	return whole(0)
}

func (v val) isTrue() bool { return !v.null && v.i.Sign() != 0 }

// interpret computes e for row i of b; a fault is a panic with faulted.
func interpret(e Expr, b *row.Batch, i int) val {
	switch e := e.(type) {
	case *Column:
		return load(e.T, b.Cols[e.Index], i)
	case *Const:
		return load(e.T, e.Vec, 0)
	case *Cast:
		return castVal(interpret(e.Arg, b, i), e)
	case *Case:
		for _, w := range e.Whens {
			if interpret(w.Cond, b, i).isTrue() {
				return interpret(w.Then, b, i)
			}
		}
		return interpret(e.Else, b, i)
	case *Coalesce:
		for _, a := range e.Args {
			if v := interpret(a, b, i); !v.null {
				return v
			}
		}
		return nullVal
	case *Logic:
		unknown := false
		for _, a := range e.Args {
			v := interpret(a, b, i)
			if v.null {
				unknown = true
			} else if v.isTrue() == e.Or {
				return truth(e.Or)
			}
		}
		if unknown {
			return nullVal
		}
		return truth(!e.Or)
	case *In:
		v := interpret(e.Arg, b, i)
		if v.null {
			return v
		}
		for _, c := range e.List {
			if compareVals(e.Arg.Type(), v, load(c.T, c.Vec, 0)) == 0 {
				return truth(!e.Not)
			}
		}
		if e.Null {
			return nullVal
		}
		return truth(e.Not)
	case *Call:
		return callVal(e, b, i)
	}
	panic(fmt.Sprintf("%T", e))
}

func load(t row.Type, v *row.Vector, i int) val {
	if v.Nulls.Is(i) || t.Kind == row.Null {
		return nullVal
	}
	switch t.Layout() {
	case row.LayoutInt64:
		return whole(v.Int64[i])
	case row.LayoutFloat64:
		return val{f: v.Float64[i]}
	case row.LayoutDecimal:
		return val{r: new(big.Rat).SetFrac(v.Decimal[i].Big(), bigPow10(t.Scale))}
	}
	return val{s: string(v.Bytes(i))}
}

func compareVals(t row.Type, a, b val) int {
	switch t.Layout() {
	case row.LayoutInt64:
		return a.i.Cmp(b.i)
	case row.LayoutFloat64:
		an, bn := math.IsNaN(a.f), math.IsNaN(b.f)
		switch {
		case an && bn:
			return 0
		case an || !bn && a.f > b.f:
			return 1
		case bn || a.f < b.f:
			return -1
		}
		return 0
	case row.LayoutDecimal:
		return a.r.Cmp(b.r)
	}
	return strings.Compare(a.s, b.s)
}

// fitInt refuses what an integer type does not hold.
func fitInt(i *big.Int, t row.Type) val {
	low, high := row.IntegerRange(t.Kind)
	if t.Kind == row.Date {
		low, high = -4371953, 2932896
	}
	if i.Cmp(big.NewInt(low)) < 0 || i.Cmp(big.NewInt(high)) > 0 {
		panic(faulted{})
	}
	return val{i: i}
}

// fitDecimal rounds half up to the type's scale.
func fitDecimal(r *big.Rat, t row.Type) val {
	scaled := new(big.Rat).Mul(r, new(big.Rat).SetInt(bigPow10(t.Scale)))
	q, rem := new(big.Int).QuoRem(new(big.Int).Abs(scaled.Num()), scaled.Denom(), new(big.Int))
	if rem.Lsh(rem, 1).Cmp(scaled.Denom()) >= 0 {
		q.Add(q, big.NewInt(1))
	}
	if q.CmpAbs(bigPow10(t.Precision)) >= 0 {
		panic(faulted{})
	}
	if r.Sign() < 0 {
		q.Neg(q)
	}
	return val{r: new(big.Rat).SetFrac(q, bigPow10(t.Scale))}
}

func castVal(v val, c *Cast) (out val) {
	if c.Try {
		defer func() {
			if r := recover(); r != nil {
				if _, ok := r.(faulted); !ok {
					panic(r)
				}
				out = nullVal
			}
		}()
	}
	if v.null {
		return v
	}
	from, to := c.Arg.Type(), c.T
	if from.Same(to) {
		return v
	}
	exact := func() *big.Rat {
		switch {
		case v.r != nil:
			return v.r
		case v.i != nil:
			return new(big.Rat).SetInt(v.i)
		case math.IsNaN(v.f) || math.IsInf(v.f, 0):
			panic(faulted{})
		}
		r, _ := new(big.Rat).SetString(fmt.Sprint(v.f))
		return r
	}
	switch {
	case to.Kind == row.String && from.Kind == row.String:
		return v
	case to.Kind == row.String:
		return val{s: show(from, v)}
	case to.Kind == row.Boolean:
		return truth(v.i.Sign() != 0)
	case to.Kind.Integer() && from.Kind == row.String:
		var vec row.Vector
		if row.ParseText(&vec, to, []byte(v.s), nil) != nil {
			panic(faulted{})
		}
		return whole(vec.Int64[0])
	case to.Kind.Integer():
		r := exact()
		if v.r == nil && v.i == nil { // a float is cut as it is, its text is for decimals
			r.SetFloat64(v.f)
		}
		return fitInt(new(big.Int).Quo(r.Num(), r.Denom()), to)
	case to.Kind == row.Decimal:
		return fitDecimal(exact(), to)
	case to.Kind == row.Double:
		if v.i == nil && v.r == nil {
			return v
		}
		f, _ := exact().Float64()
		return val{f: f}
	case to.Kind == row.Timestamp && from.Kind == row.Date:
		return val{i: new(big.Int).Mul(v.i, big.NewInt(86400e6))}
	}
	panic(fmt.Sprintf("cast %s to %s", from, to))
}

func callVal(c *Call, b *row.Batch, i int) val {
	// Arguments are all computed, whatever the others are: a fault in one is the row's.
	args := make([]val, len(c.Args))
	null := false
	for k, a := range c.Args {
		args[k] = interpret(a, b, i)
		null = null || args[k].null
	}
	same := func() bool {
		return args[0].null && args[1].null || !args[0].null && !args[1].null && compareVals(c.Args[0].Type(), args[0], args[1]) == 0
	}
	switch c.Fn.name {
	case "IS NULL", "IS UNKNOWN":
		return truth(args[0].null)
	case "IS NOT NULL", "IS NOT UNKNOWN":
		return truth(!args[0].null)
	case "IS TRUE":
		return truth(args[0].isTrue())
	case "IS NOT TRUE":
		return truth(!args[0].isTrue())
	case "IS FALSE":
		return truth(!args[0].null && !args[0].isTrue())
	case "IS NOT FALSE":
		return truth(args[0].null || args[0].isTrue())
	case "IS DISTINCT FROM":
		return truth(!same())
	case "IS NOT DISTINCT FROM":
		return truth(same())
	}
	if null {
		return nullVal
	}
	switch c.Fn.name {
	case "=", "<>", "<", "<=", ">", ">=":
		d := compareVals(c.Args[0].Type(), args[0], args[1])
		return truth(map[string]bool{"=": d == 0, "<>": d != 0, "<": d < 0, "<=": d <= 0, ">": d > 0, ">=": d >= 0}[c.Fn.name])
	case "NOT":
		return truth(!args[0].isTrue())
	case "GREATEST", "LEAST":
		best := args[0]
		for _, a := range args[1:] {
			if d := compareVals(c.T, a, best); d > 0 == (c.Fn.name == "GREATEST") && d != 0 {
				best = a
			}
		}
		return best
	case "NEGATE":
		switch c.T.Layout() {
		case row.LayoutFloat64:
			return val{f: -args[0].f}
		case row.LayoutDecimal:
			return val{r: new(big.Rat).Neg(args[0].r)}
		}
		return fitInt(new(big.Int).Neg(args[0].i), c.T)
	case "ABS":
		switch c.T.Layout() {
		case row.LayoutFloat64:
			return val{f: math.Abs(args[0].f)}
		case row.LayoutDecimal:
			return val{r: new(big.Rat).Abs(args[0].r)}
		}
		return fitInt(new(big.Int).Abs(args[0].i), c.T)
	case "+", "-", "*", "/", "%":
		return arithmeticVal(c, args[0], args[1])
	case "||", "CONCAT":
		s := ""
		for _, a := range args {
			s += a.s
		}
		return val{s: s}
	case "UPPER":
		return val{s: strings.ToUpper(args[0].s)}
	case "LOWER":
		return val{s: strings.ToLower(args[0].s)}
	case "CHAR_LENGTH":
		return whole(int64(utf8.RuneCountInString(args[0].s)))
	case "REVERSE":
		r := []rune(args[0].s)
		slices.Reverse(r)
		return val{s: string(r)}
	case "TRIM":
		return val{s: strings.Trim(args[0].s, " ")}
	case "COUNT_CHAR":
		if args[1].s == "" {
			return whole(0)
		}
		return whole(int64(strings.Count(args[0].s, args[1].s)))
	case "SUBSTRING":
		r := []rune(args[0].s)
		pos, n := args[1].i.Int64(), args[2].i.Int64()
		if n < 0 {
			return nullVal
		}
		begin := max(pos-1, 0)
		if pos < 0 {
			if begin = int64(len(r)) + pos; begin < 0 {
				return val{}
			}
		}
		begin = min(begin, int64(len(r)))
		return val{s: string(r[begin : begin+min(n, int64(len(r))-begin)])}
	case "SPLIT_INDEX":
		parts := strings.Split(args[0].s, args[1].s)
		if n := args[2].i.Int64(); n >= 0 && n < int64(len(parts)) && args[0].s != "" {
			return val{s: parts[n]}
		}
		return nullVal
	case "REPLACE":
		return val{s: strings.ReplaceAll(args[0].s, args[1].s, args[2].s)}
	case "POSITION":
		k := strings.Index(args[1].s, args[0].s)
		if k < 0 {
			return whole(0)
		}
		return whole(int64(utf8.RuneCountInString(args[1].s[:k])) + 1)
	case "LIKE":
		return truth(likeRegexp(args[1].s).MatchString(args[0].s))
	}
	panic(c.Fn.name)
}

func likeRegexp(p string) *regexp.Regexp {
	s := regexp.QuoteMeta(p)
	return regexp.MustCompile("(?s)^" + strings.ReplaceAll(strings.ReplaceAll(s, "%", ".*"), "_", ".") + "$")
}

func arithmeticVal(c *Call, a, b val) val {
	op := c.Fn.name
	switch c.T.Kind {
	case row.Double:
		return val{f: map[string]func() float64{"+": func() float64 { return a.f + b.f }, "-": func() float64 { return a.f - b.f },
			"*": func() float64 { return a.f * b.f }, "/": func() float64 { return a.f / b.f }, "%": func() float64 { return math.Mod(a.f, b.f) }}[op]()}
	case row.Decimal:
		x, y := a.r, b.r
		if x == nil {
			x = new(big.Rat).SetInt(a.i)
		}
		if y == nil {
			y = new(big.Rat).SetInt(b.i)
		}
		z := new(big.Rat)
		switch op {
		case "+":
			z.Add(x, y)
		case "-":
			z.Sub(x, y)
		case "*":
			z.Mul(x, y)
		default:
			if y.Sign() == 0 {
				panic(faulted{})
			}
			z.Quo(x, y)
			if op == "%" {
				q := new(big.Int).Quo(z.Num(), z.Denom())
				z.Sub(x, new(big.Rat).Mul(new(big.Rat).SetInt(q), y))
			}
		}
		return fitDecimal(z, c.T)
	}
	z := new(big.Int)
	switch op {
	case "+":
		z.Add(a.i, b.i)
	case "-":
		z.Sub(a.i, b.i)
	case "*":
		z.Mul(a.i, b.i)
	default:
		if b.i.Sign() == 0 {
			panic(faulted{})
		}
		if op == "/" {
			z.Quo(a.i, b.i)
		} else {
			z.Rem(a.i, b.i)
		}
	}
	return fitInt(z, c.T)
}

// show is a value as CAST to STRING writes it.
func show(t row.Type, v val) string {
	if v.null {
		return "NULL"
	}
	var vec row.Vector
	switch t.Layout() {
	case row.LayoutInt64:
		vec.Int64 = []int64{v.i.Int64()}
	case row.LayoutFloat64:
		vec.Float64 = []float64{v.f}
	case row.LayoutDecimal:
		return v.r.FloatString(t.Scale)
	default:
		return v.s
	}
	return string(row.AppendText(nil, t, &vec, 0, nil))
}

// safely tells a fault from a value.
func safely(e Expr, b *row.Batch, i int) (v val, fault bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(faulted); !ok {
				panic(r)
			}
			fault = true
		}
	}()
	return interpret(e, b, i), false
}

func TestNaive(t *testing.T) {
	faults, nulls, values := 0, 0, 0
	for seed := range uint64(2500) {
		r := rand.New(rand.NewPCG(seed, 11))
		m := &maker{r: r}
		types := naiveTypes()
		var cols []row.Type
		for i := range 11 + r.IntN(6) {
			typ := types[i%len(types)]
			cols = append(cols, typ)
			m.cols = append(m.cols, &Column{i, typ, ""})
		}
		var exprs []Expr
		for range 1 + r.IntN(3) {
			exprs = append(exprs, m.tree(types[r.IntN(len(types))], 1+r.IntN(4)))
		}
		cond := m.tree(kind(row.Boolean), 1+r.IntN(4))
		p, err := Compile(exprs, Settings{})
		if err != nil {
			t.Fatalf("seed %d: %v: %v", seed, exprs, err)
		}
		f, err := CompileFilter(cond, Settings{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for range 3 { // the same program over several batches: registers are used again
			b := naiveBatch(r, cols)
			out, fs := p.Run(b, 0)
			failed := map[int]bool{}
			for _, ft := range fs {
				if failed[int(ft.Row)] {
					t.Fatalf("seed %d: two faults of row %d", seed, ft.Row)
				}
				failed[int(ft.Row)] = true
			}
			for k := range b.Rows() {
				i := b.At(k)
				want := make([]val, len(exprs))
				fault := false
				for x, e := range exprs {
					var bad bool
					want[x], bad = safely(e, b, i)
					fault = fault || bad
				}
				if fault != failed[i] {
					t.Fatalf("seed %d, row %d: fault is %v, want %v\n%v\n%v", seed, i, failed[i], fault, exprs, fs)
				}
				if fault {
					faults++
					continue
				}
				for x, e := range exprs {
					got, w := cellOf(e.Type(), out[x], i), show(e.Type(), want[x])
					if got != w {
						t.Fatalf("seed %d, row %d of %d: %s is %q, want %q", seed, i, b.Len, e, got, w)
					}
					if want[x].null {
						nulls++
						if e.Type().NotNull {
							t.Fatalf("seed %d: %s is NULL and its type %s", seed, e, e.Type())
						}
					} else {
						values++
					}
				}
			}
			checkFilter(t, seed, f, cond, b)
		}
	}
	if faults < 1000 || nulls < 1000 || values < 10000 {
		t.Errorf("%d faults, %d NULLs, %d values: the trees are too tame", faults, nulls, values)
	}
}

func cellOf(t row.Type, v *row.Vector, i int) string {
	if v.Nulls.Is(i) {
		return "NULL"
	}
	return string(row.AppendText(nil, t, v, i, nil))
}

func naiveBatch(r *rand.Rand, cols []row.Type) *row.Batch {
	n := []int{1, 2, 63, 64, 65, 1 + r.IntN(300)}[r.IntN(6)]
	b := &row.Batch{Len: n}
	for _, typ := range cols {
		v := &row.Vector{}
		nulls := []int{3, 20, 1 << 30}[r.IntN(3)]
		for range n {
			appendNaive(r, v, typ, nulls)
		}
		v.Seal(n)
		b.Cols = append(b.Cols, v)
	}
	if r.IntN(2) == 0 {
		b.Sel = []int32{}
		keep := 1 + r.IntN(4)
		for i := range n {
			if r.IntN(keep) == 0 {
				b.Sel = append(b.Sel, int32(i))
			}
		}
	}
	return b
}

// checkFilter: a filter goes from condition to condition and stops at the first that is not TRUE.
func checkFilter(t *testing.T, seed uint64, f *Filter, cond Expr, b *row.Batch) {
	sel, fs := f.Run(b, 0, []int32{-1})
	if sel[0] != -1 {
		t.Fatalf("seed %d: the filter wrote over what was in the selection", seed)
	}
	var want []int32
	faults := map[int32]bool{}
	for k := range b.Rows() {
		i := b.At(k)
		pass, fault := true, false
		for _, c := range Conjuncts(cond) {
			v, bad := safely(c, b, i)
			if fault = bad; bad || !v.isTrue() {
				pass = false
				break
			}
		}
		if fault {
			faults[int32(i)] = true
		} else if pass {
			want = append(want, int32(i))
		}
	}
	if !slices.Equal(sel[1:], want) {
		t.Fatalf("seed %d: %s lets pass %v, want %v", seed, cond, sel[1:], want)
	}
	for _, ft := range fs {
		if !faults[ft.Row] {
			t.Fatalf("seed %d: %s: unexpected fault %v", seed, cond, ft)
		}
		delete(faults, ft.Row)
	}
	if len(faults) > 0 {
		t.Fatalf("seed %d: %s: faults missing for rows %v", seed, cond, faults)
	}
}
