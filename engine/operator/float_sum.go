package operator

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
)

// A float sum is exact, so that it does not depend on the order of its terms and a retraction takes back precisely what
// its row added: a fixed-point number wide enough for every double, in two's complement (a Kulisch accumulator), and
// counts of what is no number.
//
//	35 words of 64 bits, little endian, of weight 2^-1074 on; NaNs i64 | +Inf i64 | -Inf i64
//
// The finite doubles take 2,098 bits; 2,240 leave room for 2^141 terms.
const (
	sumWords    = 35
	sumNaN      = sumWords * 8
	sumPosInf   = sumNaN + 8
	sumNegInf   = sumNaN + 16
	floatSumLen = sumNaN + 24
)

// addFloat adds w times f to the sum in acc.
func addFloat(acc []byte, f float64, w int64) {
	switch {
	case f != f:
		addInt64(acc[sumNaN:], w)
		return
	case math.IsInf(f, 1):
		addInt64(acc[sumPosInf:], w)
		return
	case math.IsInf(f, -1):
		addInt64(acc[sumNegInf:], w)
		return
	}
	u := math.Float64bits(f)
	exponent := int(u >> 52 & 0x7FF)
	mantissa := u & (1<<52 - 1)
	if exponent == 0 {
		exponent = 1 // subnormal
	} else {
		mantissa |= 1 << 52
	}
	negative := u>>63 != 0
	if w < 0 {
		negative = !negative
		w = -w
	}
	hi, lo := bits.Mul64(mantissa, uint64(w))
	// The product, of up to 117 bits, is shifted by exponent-1 and so touches three words.
	shift := uint(exponent-1) & 63
	word := (exponent - 1) >> 6
	var p [3]uint64
	p[0] = lo << shift
	p[1] = hi<<shift | lo>>(64-shift)
	p[2] = hi >> (64 - shift)
	if shift == 0 {
		p[1], p[2] = hi, 0
	}
	addWords(acc, word, sumWords, p[:], negative)
}

// addWords adds or subtracts p, from a word on, in an accumulator of n words.
func addWords(acc []byte, word, n int, p []uint64, negative bool) {
	var carry uint64
	for i := word; i < n; i++ {
		var term uint64
		if i-word < len(p) {
			term = p[i-word]
		} else if carry == 0 {
			return
		}
		at := acc[i*8:]
		v := binary.LittleEndian.Uint64(at)
		if negative {
			v, carry = bits.Sub64(v, term, carry)
		} else {
			v, carry = bits.Add64(v, term, carry)
		}
		binary.LittleEndian.PutUint64(at, v)
	}
}

// floatSum is the sum in acc, rounded once to nearest even.
func floatSum(acc []byte) float64 {
	nan, pos, neg := getInt64(acc[sumNaN:]), getInt64(acc[sumPosInf:]), getInt64(acc[sumNegInf:])
	switch {
	case nan != 0 || pos != 0 && neg != 0:
		return math.NaN()
	case pos != 0:
		return math.Inf(1)
	case neg != 0:
		return math.Inf(-1)
	}
	f, _ := exactSum(acc).Float64()
	return f
}

// Squares of finite doubles are summed in the same way in words of weight 2^-2148 on; 4,196 bits are taken, and 156 left.
// Whether a value was none is told by its sum.
const (
	squareWords  = 68
	squareSumLen = squareWords * 8
)

// addSquare adds w times f*f.
func addSquare(acc []byte, f float64, w int64) {
	u := math.Float64bits(f)
	exponent := int(u >> 52 & 0x7FF)
	mantissa := u & (1<<52 - 1)
	switch exponent {
	case 0x7FF:
		return
	case 0:
		exponent = 1
	default:
		mantissa |= 1 << 52
	}
	negative := w < 0
	if negative {
		w = -w
	}
	hi, lo := bits.Mul64(mantissa, mantissa)
	// Times the weight: three words. Then the shift, which makes four of them.
	carry, p0 := bits.Mul64(lo, uint64(w))
	p2, p1 := bits.Mul64(hi, uint64(w))
	p1, c := bits.Add64(p1, carry, 0)
	p2 += c
	at := 2 * (exponent - 1)
	shift := uint(at) & 63
	p := [4]uint64{p0, p1, p2, 0}
	if shift != 0 {
		p = [4]uint64{p0 << shift, p1<<shift | p0>>(64-shift), p2<<shift | p1>>(64-shift), p2 >> (64 - shift)}
	}
	addWords(acc, at>>6, squareWords, p[:], negative)
}

// exactSum is the finite part of a sum.
func exactSum(acc []byte) *big.Float { return exact(acc, sumWords, -1074) }

func exactSquares(acc []byte) *big.Float { return exact(acc, squareWords, -2148) }

// exact is the number in n words, the lowest bit of which weighs 2^exponent.
func exact(acc []byte, n, exponent int) *big.Float {
	words := make([]uint64, n)
	negative := acc[n*8-1]&0x80 != 0
	carry := uint64(1)
	top := -1
	for i := range words {
		v := binary.LittleEndian.Uint64(acc[i*8:])
		if negative {
			v, carry = bits.Add64(^v, 0, carry)
		}
		words[i] = v
		if v != 0 {
			top = i
		}
	}
	z := new(big.Float).SetPrec(uint(n) * 64)
	if top < 0 {
		return z
	}
	x := new(big.Int)
	b := make([]byte, (top+1)*8)
	for i := range top + 1 {
		binary.BigEndian.PutUint64(b[(top-i)*8:], words[i])
	}
	x.SetBytes(b)
	z.SetInt(x)
	z.SetMantExp(z, exponent)
	if negative {
		z.Neg(z)
	}
	return z
}

func getInt64(b []byte) int64    { return int64(binary.LittleEndian.Uint64(b)) }
func putInt64(b []byte, v int64) { binary.LittleEndian.PutUint64(b, uint64(v)) }
func addInt64(b []byte, v int64) { putInt64(b, getInt64(b)+v) }
