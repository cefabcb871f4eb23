package expr

import (
	"math"
	"math/rand/v2"
	"strings"

	"github.com/weirstream/weir/engine/row"
)

// maker makes random trees.
type maker struct {
	r    *rand.Rand
	cols []*Column
}

func naiveTypes() []row.Type {
	return []row.Type{kind(row.Boolean), kind(row.TinyInt), kind(row.Int), kind(row.BigInt), kind(row.Double), decimalType(6, 2), decimalType(20, 5),
		decimalType(38, 10), kind(row.String), kind(row.Date), timestampType(3)}
}

func (m *maker) leaf(t row.Type) Expr {
	var fit []Expr
	for _, c := range m.cols {
		if c.T.Same(t) {
			fit = append(fit, c)
		}
	}
	if len(fit) > 0 && m.r.IntN(4) > 0 {
		return fit[m.r.IntN(len(fit))]
	}
	v := &row.Vector{}
	appendNaive(m.r, v, t, 10)
	return NewConst(t, v)
}

func (m *maker) try(name string, args ...Expr) Expr {
	e, err := Resolve(name, args)
	if err != nil {
		return nil
	}
	return e
}

func (m *maker) number() row.Type {
	ts := naiveTypes()[1:8]
	return ts[m.r.IntN(len(ts))]
}

// tree is an expression of type t, or of one that t was asked for and the operator widened.
func (m *maker) tree(t row.Type, depth int) Expr {
	if depth <= 0 {
		return m.leaf(t)
	}
	sub := func(t row.Type) Expr { return m.tree(t, depth-1-m.r.IntN(2)) }
	pick := func(names ...string) string { return names[m.r.IntN(len(names))] }
	var e Expr
	switch m.r.IntN(8) {
	case 0:
		e = m.leaf(t)
	case 1:
		e = m.try("CASE", sub(kind(row.Boolean)), sub(t), sub(kind(row.Boolean)), sub(t), sub(t))
	case 2:
		e = m.try("COALESCE", sub(t), sub(t))
	case 3:
		e = m.try(pick("NULLIF", "GREATEST", "LEAST"), sub(t), sub(t))
	}
	if e != nil {
		return e
	}
	switch {
	case t.Kind == row.Boolean:
		u := naiveTypes()[m.r.IntN(11)]
		switch m.r.IntN(7) {
		case 0, 1:
			e = m.try(pick("AND", "OR"), sub(t), sub(t))
		case 2:
			e = m.try(pick("NOT", "IS TRUE", "IS NOT TRUE", "IS FALSE", "IS NOT FALSE", "IS UNKNOWN"), sub(t))
		case 3:
			e = m.try(pick("IS NULL", "IS NOT NULL"), sub(u))
		case 4:
			e = m.try("LIKE", sub(kind(row.String)), Str(pick("a%", "%b", "%ab%", "_b%", "%", "a_c", "", "%ä%_")))
		case 5:
			list := []Expr{sub(u)}
			for range 1 + m.r.IntN(10) {
				list = append(list, (&maker{r: m.r}).leaf(u))
			}
			e = m.try(pick("IN", "NOT IN"), list...)
		default:
			if u.Kind == row.Boolean {
				u = m.number()
			}
			v := u
			if u.Kind.Number() {
				v = m.number()
			}
			e = m.try(pick("=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"), sub(u), sub(v))
		}
	case t.Kind == row.String:
		switch m.r.IntN(6) {
		case 0:
			e = m.try(pick("||", "CONCAT"), sub(t), sub(t))
		case 1:
			e = m.try(pick("UPPER", "LOWER", "REVERSE", "TRIM"), sub(t))
		case 2:
			e = m.try("SUBSTRING", sub(t), sub(kind(row.TinyInt)), sub(kind(row.Int)))
		case 3:
			e = m.try("SPLIT_INDEX", sub(t), Str(pick(",", "ab", "b")), sub(kind(row.TinyInt)))
		case 4:
			e = m.try("REPLACE", sub(t), Str(pick("a", "bc", "ä")), sub(t))
		default:
			if e2, err := CastTo(sub(naiveTypes()[m.r.IntN(11)]), t, false); err == nil {
				e = e2
			}
		}
	case t.Kind.Number():
		switch m.r.IntN(8) {
		case 0:
			e = m.try(pick("-", "ABS"), sub(t))
		case 1:
			if t.Kind == row.Int {
				e = m.try(pick("CHAR_LENGTH"), sub(kind(row.String)))
			} else {
				e = m.try("COUNT_CHAR", sub(kind(row.String)), Str(pick("a", ",", "")))
			}
		case 2:
			e = m.try("POSITION", Str(pick("a", "b", "äb", "")), sub(kind(row.String)))
		case 3:
			if e2, err := CastTo(sub(m.number()), t, m.r.IntN(2) == 0); err == nil {
				e = e2
			}
		case 4:
			if t.Kind.Integer() {
				if e2, err := CastTo(sub(kind(row.String)), t, m.r.IntN(4) > 0); err == nil {
					e = e2
				}
			}
		default:
			e = m.try(pick("+", "-", "*", "/", "%"), sub(t), sub(m.number()))
		}
	}
	if e == nil {
		return m.leaf(t)
	}
	return e
}

// appendNaive appends a random value, one in nulls of them NULL; edges among them.
func appendNaive(r *rand.Rand, v *row.Vector, t row.Type, nulls int) {
	if r.IntN(nulls) == 0 {
		v.AppendNull(t.Layout())
		return
	}
	small := r.Int64N(9) - 4
	switch t.Kind {
	case row.Boolean:
		v.Int64 = append(v.Int64, r.Int64N(2))
	case row.TinyInt, row.Int, row.BigInt:
		low, high := row.IntegerRange(t.Kind)
		v.Int64 = append(v.Int64, []int64{small, small, small, low, high, low + 1, high / 3}[r.IntN(7)])
	case row.Date:
		v.Int64 = append(v.Int64, []int64{small, 19000 + small, -4371953, 2932896}[r.IntN(4)])
	case row.Timestamp:
		v.Int64 = append(v.Int64, 1.7e15+small*1000)
	case row.Double:
		fs := []float64{0, 1.5, -2, 0.1, 1e300, -1e300, math.NaN(), math.Inf(1), math.Inf(-1), float64(small), 12345.678}
		v.Float64 = append(v.Float64, fs[r.IntN(len(fs))])
	case row.Decimal:
		d := row.Int128From(small)
		switch r.IntN(4) {
		case 0:
			d, _ = row.Pow10(t.Precision).Sub(row.Int128From(1 + r.Int64N(3)))
		case 1:
			d = row.Pow10(r.IntN(t.Precision))
		case 2:
			d, _ = row.Int128From(small).MulPow10(t.Scale)
			if !d.Fits(t.Precision) {
				d = row.Int128{}
			}
		}
		if r.IntN(2) == 0 {
			d = d.Neg()
		}
		v.Decimal = append(v.Decimal, d)
	default:
		ss := []string{"", "a", "ab", "abc", "a,b,,c", "äbÄ", "  x ", "12", "-7.5", "300", strings.Repeat("ab,", 30), "xyzab", "\xff"}
		v.AppendString(ss[r.IntN(len(ss)-1)]) // the last is no UTF-8, which Go's string functions see otherwise
	}
}
