package row

import (
	"math"
	"math/big"
	"math/bits"
	"strconv"
	"unsafe"
)

// Int128 is a signed 128-bit number in two's complement: a DECIMAL's unscaled value.
type Int128 struct {
	Hi int64
	Lo uint64
}

// MaxPrecision is how many digits a DECIMAL has at most: every number of so many digits fits an Int128.
const MaxPrecision = 38

// Int128From widens a 64-bit number.
func Int128From(v int64) Int128 { return Int128{v >> 63, uint64(v)} }

// Cmp is -1, 0 or 1.
func (a Int128) Cmp(b Int128) int {
	switch {
	case a.Hi < b.Hi || a.Hi == b.Hi && a.Lo < b.Lo:
		return -1
	case a == b:
		return 0
	}
	return 1
}

// Sign is -1, 0 or 1.
func (a Int128) Sign() int {
	if a.Hi < 0 {
		return -1
	}
	if a.Hi == 0 && a.Lo == 0 {
		return 0
	}
	return 1
}

// Neg is -a. The smallest number is its own negative.
func (a Int128) Neg() Int128 {
	lo, borrow := bits.Sub64(0, a.Lo, 0)
	hi, _ := bits.Sub64(0, uint64(a.Hi), borrow)
	return Int128{int64(hi), lo}
}

// Add is a+b, and whether it fits.
func (a Int128) Add(b Int128) (Int128, bool) {
	lo, carry := bits.Add64(a.Lo, b.Lo, 0)
	hi, _ := bits.Add64(uint64(a.Hi), uint64(b.Hi), carry)
	r := Int128{int64(hi), lo}
	return r, (a.Hi < 0) != (b.Hi < 0) || (r.Hi < 0) == (a.Hi < 0)
}

// Sub is a-b, and whether it fits.
func (a Int128) Sub(b Int128) (Int128, bool) {
	lo, borrow := bits.Sub64(a.Lo, b.Lo, 0)
	hi, _ := bits.Sub64(uint64(a.Hi), uint64(b.Hi), borrow)
	r := Int128{int64(hi), lo}
	return r, (a.Hi < 0) == (b.Hi < 0) || (r.Hi < 0) == (a.Hi < 0)
}

// Int64 is a as 64 bits, and whether it fits.
func (a Int128) Int64() (int64, bool) { return int64(a.Lo), a.Hi == int64(a.Lo)>>63 }

// Abs is the magnitude as two words; the smallest number has one as well.
func (a Int128) abs() (hi, lo uint64) {
	if a.Hi < 0 {
		a = a.Neg()
	}
	return uint64(a.Hi), a.Lo
}

// signed puts the sign back on a magnitude, and tells whether it fits.
func signed(hi, lo uint64, negative bool) (Int128, bool) {
	r := Int128{int64(hi), lo}
	if negative {
		r = r.Neg()
		return r, r.Hi < 0 || hi == 0 && lo == 0
	}
	return r, r.Hi >= 0
}

// MulInt64 is a*b, which always fits.
func MulInt64(a, b int64) Int128 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	// The unsigned product counts a negative factor as 2^64 more than it is.
	hi -= uint64(a>>63)&uint64(b) + uint64(b>>63)&uint64(a)
	return Int128{int64(hi), lo}
}

// Mul is a*b, and whether it fits.
func (a Int128) Mul(b Int128) (Int128, bool) {
	x, small := a.Int64()
	if y, ok := b.Int64(); ok && small {
		return MulInt64(x, y), true
	}
	ah, al := a.abs()
	bh, bl := b.abs()
	if ah != 0 && bh != 0 {
		return Int128{}, false
	}
	hi, lo := bits.Mul64(al, bl)
	over, cross := bits.Mul64(ah, bl)
	if ah == 0 {
		over, cross = bits.Mul64(al, bh)
	}
	hi, carry := bits.Add64(hi, cross, 0)
	if over != 0 || carry != 0 {
		return Int128{}, false
	}
	return signed(hi, lo, (a.Hi < 0) != (b.Hi < 0))
}

// QuoRem is a/b cut towards zero, and what is left, which has a's sign. b is not 0.
func (a Int128) QuoRem(b Int128) (q, r Int128) {
	if x, ok := a.Int64(); ok && x != math.MinInt64 {
		if y, ok := b.Int64(); ok {
			return Int128From(x / y), Int128From(x % y)
		}
	}
	ah, al := a.abs()
	bh, bl := b.abs()
	qh, ql, rh, rl := divide128(ah, al, bh, bl)
	q, _ = signed(qh, ql, (a.Hi < 0) != (b.Hi < 0))
	r, _ = signed(rh, rl, a.Hi < 0)
	return q, r
}

// divide128 divides magnitudes.
func divide128(ah, al, bh, bl uint64) (qh, ql, rh, rl uint64) {
	if bh == 0 {
		qh, rh = ah/bl, ah%bl
		ql, rl = bits.Div64(rh, al, bl)
		return qh, ql, 0, rl
	}
	// The quotient is one word. It is guessed from the divisor's leading word and is at most one too large.
	shift := uint(bits.LeadingZeros64(bh))
	top := bh<<shift | bl>>1>>(63-shift)
	q, _ := bits.Div64(ah>>1, ah<<63|al>>1, top)
	q = q >> (63 - shift)
	if q != 0 {
		q--
	}
	ph, pl := bits.Mul64(q, bl)
	ph += q * bh
	rl, borrow := bits.Sub64(al, pl, 0)
	rh, _ = bits.Sub64(ah, ph, borrow)
	if rh > bh || rh == bh && rl >= bl {
		q++
		rl, borrow = bits.Sub64(rl, bl, 0)
		rh, _ = bits.Sub64(rh, bh, borrow)
	}
	return 0, q, rh, rl
}

// Pow10 is 10^n for n from 0 to 38.
func Pow10(n int) Int128 {
	if n <= 18 {
		return Int128{0, pow10(n)}
	}
	hi, lo := bits.Mul64(pow10(min(n-19, 19)), pow10(19))
	return Int128{int64(hi), lo}
}

// pow10 is 10^n for n from 0 to 19.
func pow10(n int) uint64 { return powers[n] }

// powers is a table that is only read.
var powers = [...]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19}

// MulPow10 is a*10^n for n >= 0, and whether it fits.
func (a Int128) MulPow10(n int) (Int128, bool) {
	if n == 0 || a == (Int128{}) {
		return a, true
	}
	if n > MaxPrecision {
		return Int128{}, false
	}
	return a.Mul(Pow10(n))
}

// QuoPow10 is a/10^n for n >= 0, rounded half away from zero.
func (a Int128) QuoPow10(n int) Int128 {
	if n == 0 {
		return a
	}
	if n > MaxPrecision+1 {
		return Int128{}
	}
	if x, ok := a.Int64(); ok && n <= 18 {
		p := int64(pow10(n))
		q, r := x/p, x%p
		if r >= p-r {
			q++
		} else if -r >= p+r {
			q--
		}
		return Int128From(q)
	}
	negative := a.Hi < 0
	ah, al := a.abs()
	for ; n > 19; n -= 19 { // what falls off here can only matter if it is less than half anyway: the last step rounds
		if n == 20 {
			ah, al, _ = divideWord(ah, al, 10)
			n = 19
			break
		}
		ah, al, _ = divideWord(ah, al, pow10(19))
	}
	p := pow10(n)
	qh, ql, r := divideWord(ah, al, p)
	if r >= p-r {
		var carry uint64
		ql, carry = bits.Add64(ql, 1, 0)
		qh += carry
	}
	q, _ := signed(qh, ql, negative)
	return q
}

func divideWord(h, l, d uint64) (qh, ql, r uint64) {
	qh, r = h/d, h%d
	ql, r = bits.Div64(r, l, d)
	return qh, ql, r
}

// Rescale is the number of scale from written with scale to, rounded half up, and whether it fits 128 bits.
func (a Int128) Rescale(from, to int) (Int128, bool) {
	if to >= from {
		return a.MulPow10(to - from)
	}
	return a.QuoPow10(from - to), true
}

// Fits tells whether a has at most so many digits.
func (a Int128) Fits(precision int) bool {
	if precision <= 18 {
		x, ok := a.Int64()
		p := int64(pow10(precision))
		return ok && x < p && x > -p
	}
	if precision > MaxPrecision {
		return true
	}
	p := Pow10(precision)
	return a.Cmp(p) < 0 && a.Cmp(p.Neg()) > 0
}

// Float64 is the double nearest to a/10^scale.
func (a Int128) Float64(scale int) float64 {
	if x, ok := a.Int64(); ok && x <= 1<<53 && x >= -1<<53 && scale <= 18 {
		return float64(x) / float64(pow10(scale)) // both exact, so the quotient is rounded once
	}
	var buf [48]byte
	text := AppendDecimal(buf[:0], a, scale)
	f, _ := strconv.ParseFloat(unsafe.String(&text[0], len(text)), 64)
	return f
}

// Big is a for slow paths and tests.
func (a Int128) Big() *big.Int {
	hi, lo := a.abs()
	b := new(big.Int).Lsh(new(big.Int).SetUint64(hi), 64)
	b.Or(b, new(big.Int).SetUint64(lo))
	if a.Hi < 0 {
		b.Neg(b)
	}
	return b
}
