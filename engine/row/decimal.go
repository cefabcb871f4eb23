package row

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
)

// errDecimalRange: the number has more digits before the point than its type takes.
func errDecimalRange(t Type) error { return fmt.Errorf("out of range of %s", t.Nullable()) }

// MulRound is a*b/10^drop rounded half up, and whether it fits 128 bits. The product in between may be twice as wide.
func (a Int128) MulRound(b Int128, drop int) (Int128, bool) {
	if p, ok := a.Mul(b); ok {
		return p.QuoPow10(drop), true
	}
	if drop == 0 {
		return Int128{}, false
	}
	p := wideProduct(a, b)
	for drop > 19 { // digits far behind the last one never decide the rounding of a magnitude that is cut, see QuoPow10
		step := min(drop-1, 19)
		p.divide(pow10(step))
		drop -= step
	}
	r := p.divide(pow10(drop))
	return p.rounded(r >= pow10(drop)-r, (a.Hi < 0) != (b.Hi < 0))
}

// QuoRound is a*10^shift/b rounded half up, and whether it fits 128 bits. b is not 0.
func (a Int128) QuoRound(b Int128, shift int) (Int128, bool) {
	negative := (a.Hi < 0) != (b.Hi < 0)
	bh, bl := b.abs()
	var p wide
	if shift <= MaxPrecision {
		p = wideProduct(a, Pow10(shift))
	} else {
		p = wideProduct(a, Pow10(MaxPrecision))
		for shift -= MaxPrecision; shift > 0; shift-- {
			if !p.multiply(10) {
				return Int128{}, false
			}
		}
	}
	rh, rl := p.divideWide(bh, bl)
	// Twice what is left against the divisor, without a bit that falls off.
	dl, borrow := bits.Sub64(bl, rl, 0)
	dh, _ := bits.Sub64(bh, rh, borrow)
	return p.rounded(rh > dh || rh == dh && rl >= dl, negative)
}

// wide is a magnitude of 256 bits, least word first.
type wide [4]uint64

func wideProduct(a, b Int128) (p wide) {
	ah, al := a.abs()
	bh, bl := b.abs()
	var c uint64
	p[1], p[0] = bits.Mul64(al, bl)
	h1, l1 := bits.Mul64(al, bh)
	h2, l2 := bits.Mul64(ah, bl)
	h3, l3 := bits.Mul64(ah, bh)
	p[1], c = bits.Add64(p[1], l1, 0)
	p[2], c = bits.Add64(h1, l3, c)
	p[3] = h3 + c
	p[1], c = bits.Add64(p[1], l2, 0)
	p[2], c = bits.Add64(p[2], h2, c)
	p[3] += c
	return p
}

func (p *wide) multiply(x uint64) bool {
	carry := uint64(0)
	for i := range p {
		h, l := bits.Mul64(p[i], x)
		var c uint64
		p[i], c = bits.Add64(l, carry, 0)
		carry = h + c
	}
	return carry == 0
}

// divide leaves the quotient and gives what is left.
func (p *wide) divide(d uint64) (r uint64) {
	for i := 3; i >= 0; i-- {
		p[i], r = bits.Div64(r, p[i], d)
	}
	return r
}

// divideWide is divide by two words: one bit at a time where the divisor has two words, which only numbers of more than
// 19 digits do.
func (p *wide) divideWide(bh, bl uint64) (rh, rl uint64) {
	if bh == 0 {
		return 0, p.divide(bl)
	}
	var q wide
	for i := 255; i >= 0; i-- {
		top := rh >> 63
		rh, rl = rh<<1|rl>>63, rl<<1|p[i>>6]>>(i&63)&1
		if top != 0 || rh > bh || rh == bh && rl >= bl {
			var borrow uint64
			rl, borrow = bits.Sub64(rl, bl, 0)
			rh, _ = bits.Sub64(rh, bh, borrow)
			q[i>>6] |= 1 << (i & 63)
		}
	}
	*p = q
	return rh, rl
}

func (p *wide) rounded(up, negative bool) (Int128, bool) {
	if up {
		var c uint64
		p[0], c = bits.Add64(p[0], 1, 0)
		p[1], c = bits.Add64(p[1], 0, c)
		p[2] += c
	}
	if p[2] != 0 || p[3] != 0 {
		return Int128{}, false
	}
	return signed(p[1], p[0], negative)
}

// DecimalFromFloat is f with so many digits behind the point, rounded half up from its shortest text as Java's
// BigDecimal.valueOf does, and whether it fits precision.
func DecimalFromFloat(f float64, bitSize, precision, scale int) (Int128, bool) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Int128{}, false
	}
	var buf [32]byte
	d, err := ParseDecimal(strconv.AppendFloat(buf[:0], f, 'e', -1, bitSize), precision, scale)
	return d, err == nil
}

// AppendDecimal appends a number of the scale with all digits of its scale: 5 of scale 2 is 0.05.
func AppendDecimal(dst []byte, d Int128, scale int) []byte {
	var buf [40]byte
	hi, lo := d.abs()
	at := len(buf)
	if hi != 0 {
		var r uint64
		hi, lo, r = divideWord(hi, lo, 1e19)
		at = putDigits(&buf, at, r, 19)
		if hi != 0 {
			_, lo, r = divideWord(hi, lo, 1e19)
			at = putDigits(&buf, at, r, 19)
		}
	}
	if lo != 0 {
		at = putDigits(&buf, at, lo, 0)
	}
	for len(buf)-at <= scale && at > 0 {
		at--
		buf[at] = '0'
	}
	if d.Hi < 0 {
		dst = append(dst, '-')
	}
	point := len(buf) - scale
	dst = append(dst, buf[at:point]...)
	if scale > 0 {
		dst = append(dst, '.')
		dst = append(dst, buf[point:]...)
	}
	return dst
}

// putDigits writes v before place at, with leading zeros up to width.
func putDigits(buf *[40]byte, at int, v uint64, width int) int {
	end := at
	for v != 0 || end-at < width {
		at--
		buf[at] = byte('0' + v%10)
		v /= 10
	}
	return at
}

var (
	errNotNumber = errors.New("not a number")
	errTooLarge  = errors.New("number out of range")
)

// number is the text of a number taken apart: 0.digits times 10^point.
type number struct {
	negative bool
	whole    []byte // digits before the point
	frac     []byte // digits behind it
	exponent int
}

// scanNumber takes apart [+-]digits[.digits][e[+-]digits].
func scanNumber(text []byte) (n number, err error) {
	b := text
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		n.negative = b[0] == '-'
		b = b[1:]
	}
	i := digits(b)
	n.whole, b = b[:i], b[i:]
	if len(b) > 0 && b[0] == '.' {
		i = digits(b[1:])
		n.frac, b = b[1:1+i], b[1+i:]
	}
	if len(n.whole)+len(n.frac) == 0 {
		return n, errNotNumber
	}
	if len(b) > 1 && b[0]|0x20 == 'e' {
		b = b[1:]
		negative := b[0] == '-'
		if negative || b[0] == '+' {
			b = b[1:]
		}
		i = digits(b)
		if i == 0 || i != len(b) {
			return n, errNotNumber
		}
		for _, c := range b {
			n.exponent = min(n.exponent*10+int(c-'0'), 100000)
		}
		if negative {
			n.exponent = -n.exponent
		}
		b = nil
	}
	if len(b) != 0 {
		return n, errNotNumber
	}
	return n, nil
}

func digits(b []byte) int {
	for i, c := range b {
		if c < '0' || c > '9' {
			return i
		}
	}
	return len(b)
}

// ParseDecimal reads a number, rounded half up to the scale.
func ParseDecimal(text []byte, precision, scale int) (Int128, error) {
	n, err := scanNumber(bytes.TrimSpace(text))
	if err != nil {
		return Int128{}, err
	}
	keep := len(n.whole) + n.exponent + scale // how many of whole and frac stand before the rounding
	var d Int128
	ok := true
	for i := 0; i < keep && ok; i++ {
		c := n.digit(i)
		if c == 0 && i >= len(n.whole)+len(n.frac) && d == (Int128{}) {
			break // only zeros follow
		}
		if d, ok = d.MulPow10(1); ok {
			d, ok = d.Add(Int128From(int64(c)))
		}
	}
	if ok && keep >= 0 && n.digit(keep) >= 5 {
		d, ok = d.Add(Int128From(1))
	}
	if !ok || !d.Fits(precision) {
		return Int128{}, errTooLarge
	}
	if n.negative {
		d = d.Neg()
	}
	return d, nil
}

func (n *number) digit(i int) byte {
	if i < len(n.whole) {
		return n.whole[i] - '0'
	}
	if i -= len(n.whole); i < len(n.frac) {
		return n.frac[i] - '0'
	}
	return 0
}

// AppendNumeric appends the canonical text of an unbounded number that text writes in any way: its sign, its digits and
// its scale stay, exponents and leading zeros go. NaN and the infinities are taken as well.
func AppendNumeric(dst, text []byte) ([]byte, error) {
	text = bytes.TrimSpace(text)
	switch {
	case bytes.EqualFold(text, []byte("NaN")):
		return append(dst, "NaN"...), nil
	case bytes.EqualFold(text, []byte("Infinity")), bytes.EqualFold(text, []byte("inf")):
		return append(dst, "Infinity"...), nil
	case bytes.EqualFold(text, []byte("-Infinity")), bytes.EqualFold(text, []byte("-inf")):
		return append(dst, "-Infinity"...), nil
	}
	n, err := scanNumber(text)
	if err != nil {
		return dst, err
	}
	point := len(n.whole) + n.exponent // where the point stands in whole and frac
	total := len(n.whole) + len(n.frac)
	if point > 20000 || total-point > 20000 {
		return dst, errTooLarge
	}
	start := len(dst)
	if n.negative {
		dst = append(dst, '-')
	}
	zero, begun := true, false
	for i := 0; i < point; i++ {
		c := n.digit(i)
		if c == 0 && !begun {
			continue
		}
		begun, zero = true, zero && c == 0
		dst = append(dst, '0'+c)
	}
	if !begun {
		dst = append(dst, '0')
	}
	if total > point {
		dst = append(dst, '.')
		for i := point; i < total; i++ {
			c := byte(0)
			if i >= 0 {
				c = n.digit(i)
			}
			zero = zero && c == 0
			dst = append(dst, '0'+c)
		}
	}
	if zero && n.negative {
		dst = append(dst[:start], dst[start+1:]...)
	}
	return dst, nil
}

// CompareNumeric orders the canonical texts of unbounded numbers as numbers: NaN is the largest.
func CompareNumeric(a, b []byte) int {
	var x, y [64]byte
	return bytes.Compare(appendNumericKey(x[:0], a), appendNumericKey(y[:0], b))
}
