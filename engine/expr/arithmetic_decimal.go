package expr

import (
	"math/big"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

func bindDecimals(op string, ta, tb, t row.Type) kernel {
	switch op {
	case "+", "-":
		return bindDecimalSum(op == "-", ta, tb, t)
	case "*":
		return bindDecimalProduct(ta, tb, t)
	case "/":
		return bindDecimalQuotient(ta, tb, t)
	}
	return bindDecimalRemainder(ta, tb, t)
}

func bindDecimalSum(minus bool, ta, tb, t row.Type) kernel {
	scale := max(ta.Scale, tb.Scale)
	if t.Precision <= 18 { // sums of 64 bits that cannot overflow: the result's type has a digit more
		ma, mb := int64(row.Pow10(scale-ta.Scale).Lo), int64(row.Pow10(scale-tb.Scale).Lo)
		if minus {
			mb = -mb
		}
		return func(f *frame) {
			a, b, out := f.in[0].Decimal, f.in[1].Decimal, f.out.Decimal
			if f.sel == nil {
				a, b = a[:len(out)], b[:len(out)]
				for i := range out {
					out[i] = row.Int128From(int64(a[i].Lo)*ma + int64(b[i].Lo)*mb)
				}
				return
			}
			for _, i := range f.sel {
				out[i] = row.Int128From(int64(a[i].Lo)*ma + int64(b[i].Lo)*mb)
			}
		}
	}
	return func(f *frame) {
		a, b, out := f.in[0].Decimal, f.in[1].Decimal, f.out.Decimal
		f.each(func(i int) {
			x, y := a[i], b[i]
			if minus {
				y = y.Neg()
			}
			x, ok1 := x.MulPow10(scale - ta.Scale)
			y, ok2 := y.MulPow10(scale - tb.Scale)
			s, ok3 := x.Add(y)
			if !ok1 || !ok2 || !ok3 {
				f.bigDecimal(i, new(big.Int).Add(scaledBig(a[i], scale-ta.Scale), signedBig(scaledBig(b[i], scale-tb.Scale), minus)), scale, t)
				return
			}
			s = s.QuoPow10(scale - t.Scale)
			if !s.Fits(t.Precision) {
				f.overflow(i)
				return
			}
			out[i] = s
		})
	}
}

func scaledBig(d row.Int128, n int) *big.Int { return new(big.Int).Mul(d.Big(), bigPow10(n)) }

func bigPow10(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

func signedBig(b *big.Int, minus bool) *big.Int {
	if minus {
		b.Neg(b)
	}
	return b
}

// bigDecimal is the way out for numbers that left 128 bits on the way to a result that may fit.
func (f *frame) bigDecimal(i int, b *big.Int, scale int, t row.Type) {
	b = quoHalfUp(b, bigPow10(scale-t.Scale))
	text := row.Int128{}
	if b.IsInt64() {
		text = row.Int128From(b.Int64())
	} else {
		d, err := row.ParseDecimal([]byte(b.String()), row.MaxPrecision, 0)
		if err != nil {
			f.overflow(i)
			return
		}
		text = d
	}
	if !text.Fits(t.Precision) {
		f.overflow(i)
		return
	}
	f.out.Decimal[i] = text
}

func quoHalfUp(a, b *big.Int) *big.Int {
	q, r := new(big.Int).QuoRem(a, b, new(big.Int))
	if r.Abs(r).Lsh(r, 1).CmpAbs(b) >= 0 {
		q.Add(q, big.NewInt(int64(a.Sign()*b.Sign())))
	}
	return q
}

func bindDecimalProduct(ta, tb, t row.Type) kernel {
	pa, sa := digitsOf(ta)
	pb, sb := digitsOf(tb)
	if ta.Kind.Integer() {
		ta, tb = tb, ta
		pa, pb = pb, pa
		return withOperandsSwapped(bindDecimalProductOf(ta, tb, t, pa, pb, sa+sb))
	}
	return bindDecimalProductOf(ta, tb, t, pa, pb, sa+sb)
}

func withOperandsSwapped(k kernel) kernel {
	return func(f *frame) {
		f.in[0], f.in[1] = f.in[1], f.in[0]
		k(f)
	}
}

func bindDecimalProductOf(ta, tb, t row.Type, pa, pb, scale int) kernel {
	whole := tb.Kind.Integer()
	if pa <= 18 && (pb <= 18 || whole) && t.Scale == scale && pa+pb < t.Precision { // 64 bits times 64 bits
		if whole {
			return func(f *frame) {
				a, b, out := f.in[0].Decimal, f.in[1].Int64, f.out.Decimal
				if f.sel == nil {
					a, b = a[:len(out)], b[:len(out)]
					for i := range out {
						out[i] = row.MulInt64(int64(a[i].Lo), b[i])
					}
					return
				}
				for _, i := range f.sel {
					out[i] = row.MulInt64(int64(a[i].Lo), b[i])
				}
			}
		}
		return func(f *frame) {
			a, b, out := f.in[0].Decimal, f.in[1].Decimal, f.out.Decimal
			if f.sel == nil {
				a, b = a[:len(out)], b[:len(out)]
				for i := range out {
					out[i] = row.MulInt64(int64(a[i].Lo), int64(b[i].Lo))
				}
				return
			}
			for _, i := range f.sel {
				out[i] = row.MulInt64(int64(a[i].Lo), int64(b[i].Lo))
			}
		}
	}
	return func(f *frame) {
		a, b, out := f.in[0].Decimal, f.in[1], f.out.Decimal
		f.each(func(i int) {
			var y row.Int128
			if whole {
				y = row.Int128From(b.Int64[i])
			} else {
				y = b.Decimal[i]
			}
			p, ok := a[i].MulRound(y, scale-t.Scale)
			if !ok || !p.Fits(t.Precision) {
				f.overflow(i)
				return
			}
			out[i] = p
		})
	}
}

func bindDecimalQuotient(ta, tb, t row.Type) kernel {
	shift := t.Scale - ta.Scale + tb.Scale
	return func(f *frame) {
		a, b, out := f.in[0].Decimal, f.in[1].Decimal, f.out.Decimal
		f.each(func(i int) {
			if b[i] == (row.Int128{}) {
				f.fail(i, errs.EvalDivisionByZero, "division by zero")
				return
			}
			if shift < 0 {
				q := quoHalfUp(a[i].Big(), scaledBig(b[i], -shift))
				f.bigDecimal(i, q, t.Scale, t)
				return
			}
			q, ok := a[i].QuoRound(b[i], shift)
			if !ok || !q.Fits(t.Precision) {
				f.overflow(i)
				return
			}
			out[i] = q
		})
	}
}

func bindDecimalRemainder(ta, tb, t row.Type) kernel {
	scale := max(ta.Scale, tb.Scale)
	return func(f *frame) {
		a, b, out := f.in[0].Decimal, f.in[1].Decimal, f.out.Decimal
		f.each(func(i int) {
			if b[i] == (row.Int128{}) {
				f.fail(i, errs.EvalDivisionByZero, "division by zero")
				return
			}
			x, ok1 := a[i].MulPow10(scale - ta.Scale)
			y, ok2 := b[i].MulPow10(scale - tb.Scale)
			if !ok1 || !ok2 {
				r := new(big.Int).Rem(scaledBig(a[i], scale-ta.Scale), scaledBig(b[i], scale-tb.Scale))
				f.bigDecimal(i, r, scale, t)
				return
			}
			_, r := x.QuoRem(y)
			r = r.QuoPow10(scale - t.Scale)
			if !r.Fits(t.Precision) {
				f.overflow(i)
				return
			}
			out[i] = r
		})
	}
}

// bindNumeric is arithmetic without a bound on the digits, which is rare and need not be fast. NaN and the infinities are
// not computed with.
func bindNumeric(op string) kernel {
	return func(f *frame) {
		f.each(func(i int) {
			x, sx, ok1 := numericOf(f.in[0].Bytes(i))
			y, sy, ok2 := numericOf(f.in[1].Bytes(i))
			if !ok1 || !ok2 {
				f.fail(i, errs.EvalArgument, "NaN and infinite numbers are not computed with")
				return
			}
			scale := max(sx, sy)
			up := func(b *big.Int, s int) *big.Int { return new(big.Int).Mul(b, bigPow10(scale-s)) }
			z := new(big.Int)
			switch op {
			case "+":
				z.Add(up(x, sx), up(y, sy))
			case "-":
				z.Sub(up(x, sx), up(y, sy))
			case "*":
				scale = sx + sy
				z.Mul(x, y)
			default:
				if y.Sign() == 0 {
					f.fail(i, errs.EvalDivisionByZero, "division by zero")
					return
				}
				if op == "%" {
					z.Rem(up(x, sx), up(y, sy))
					break
				}
				a, b := up(x, sx), up(y, sy)
				scale = max(16, sx, sy)
				z = quoHalfUp(a.Mul(a, bigPow10(scale)), b)
			}
			off := len(f.heap)
			f.heap = appendBigDecimal(f.heap, z, scale)
			f.put(i, off)
		})
	}
}

// numericOf takes a canonical text apart: b times 10^-scale.
func numericOf(text []byte) (b *big.Int, scale int, ok bool) {
	digits := make([]byte, 0, len(text))
	point := -1
	for i, c := range text {
		if c == '.' {
			point = i
			continue
		}
		digits = append(digits, c)
	}
	if point >= 0 {
		scale = len(text) - point - 1
	}
	b, ok = new(big.Int).SetString(string(digits), 10)
	return b, scale, ok
}

func appendBigDecimal(dst []byte, b *big.Int, scale int) []byte {
	s := new(big.Int).Abs(b).String()
	for len(s) <= scale {
		s = "0" + s
	}
	if b.Sign() < 0 {
		dst = append(dst, '-')
	}
	dst = append(dst, s[:len(s)-scale]...)
	if scale > 0 {
		dst = append(dst, '.')
		dst = append(dst, s[len(s)-scale:]...)
	}
	return dst
}
