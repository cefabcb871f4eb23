package row

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
)

// An unbounded number is kept as canonical text: no sign but '-', no leading zero before another digit, no exponent;
// its scale counts (1.0 and 1.00 are equal numbers of different text, and here the same key, read back as 1). NaN and
// the infinities are Postgres's.
//
// Key: class byte (0 -Infinity, 1 negative, 2 zero, 3 positive, 4 Infinity, 5 NaN); for negative and positive numbers
// 0.ddd times 10^e follows as e + 2^31 in four bytes and the digits ddd without trailing zeros, ended by a byte below
// all digits; of a negative number every byte behind the class is turned round.
func appendNumericKey(dst, text []byte) []byte {
	switch {
	case bytes.EqualFold(text, []byte("NaN")):
		return append(dst, 5)
	case bytes.EqualFold(text, []byte("Infinity")):
		return append(dst, 4)
	case bytes.EqualFold(text, []byte("-Infinity")):
		return append(dst, 0)
	}
	negative := len(text) > 0 && text[0] == '-'
	if negative {
		text = text[1:]
	}
	whole, frac, _ := bytes.Cut(text, []byte("."))
	whole = bytes.TrimLeft(whole, "0")
	frac = bytes.TrimRight(frac, "0")
	exponent := len(whole)
	if exponent == 0 {
		trimmed := bytes.TrimLeft(frac, "0")
		exponent, frac = len(trimmed)-len(frac), trimmed
		if len(frac) == 0 {
			return append(dst, 2)
		}
	} else if len(frac) == 0 {
		whole = bytes.TrimRight(whole, "0")
	}
	class := byte(3)
	if negative {
		class = 1
	}
	dst = append(dst, class)
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, uint32(int64(exponent)+math.MaxInt32+1))
	dst = append(dst, whole...)
	dst = append(dst, frac...)
	dst = append(dst, 1)
	if negative {
		for i := start; i < len(dst); i++ {
			dst[i] = ^dst[i]
		}
	}
	return dst
}

// decodeNumericKey appends the number's text to heap.
func decodeNumericKey(heap, b []byte) (out, rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, nil, false
	}
	class, b := b[0], b[1:]
	switch class {
	case 0:
		return append(heap, "-Infinity"...), b, true
	case 2:
		return append(heap, '0'), b, true
	case 4:
		return append(heap, "Infinity"...), b, true
	case 5:
		return append(heap, "NaN"...), b, true
	}
	flip := byte(0)
	if class == 1 {
		flip = 0xFF
		heap = append(heap, '-')
	}
	if len(b) < 5 {
		return nil, nil, false
	}
	var e [4]byte
	for i := range e {
		e[i] = b[i] ^ flip
	}
	exponent := int(int64(binary.BigEndian.Uint32(e[:])) - math.MaxInt32 - 1)
	b = b[4:]
	n := 0
	for n < len(b) && b[n]^flip != 1 {
		n++
	}
	if n == len(b) {
		return nil, nil, false
	}
	digit := func(i int) byte { return b[i] ^ flip }
	if exponent <= 0 {
		heap = append(heap, "0."...)
		for range -exponent {
			heap = append(heap, '0')
		}
	}
	for i := range n {
		if i == exponent && i > 0 {
			heap = append(heap, '.')
		}
		heap = append(heap, digit(i))
	}
	for i := n; i < exponent; i++ {
		heap = append(heap, '0')
	}
	return heap, b[n+1:], true
}

// NumericFromInt is the canonical text of a whole number.
func NumericFromInt(dst []byte, v int64) []byte { return strconv.AppendInt(dst, v, 10) }
