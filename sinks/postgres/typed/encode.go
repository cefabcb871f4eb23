package typed

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"time"

	"github.com/weirstream/weir/engine/row"
)

// array is one parameter of a statement: a binary array with a value for each row.
type array struct {
	buf   []byte // behind its header
	nulls bool
}

// arrayHeader is dimensions, whether there are NULLs, type of the elements, how many, and the first one's number.
const arrayHeader = 20

func (a *array) reset() {
	if a.buf == nil {
		a.buf = make([]byte, arrayHeader, 4096)
	}
	a.buf, a.nulls = a.buf[:arrayHeader], false
}

// seal writes the header.
func (a *array) seal(elem uint32, rows int) {
	header(a.buf, elem, rows, a.nulls)
}

func header(b []byte, elem uint32, rows int, nulls bool) {
	binary.BigEndian.PutUint32(b, 1)
	flag := uint32(0)
	if nulls {
		flag = 1
	}
	binary.BigEndian.PutUint32(b[4:], flag)
	binary.BigEndian.PutUint32(b[8:], elem)
	binary.BigEndian.PutUint32(b[12:], uint32(rows))
	binary.BigEndian.PutUint32(b[16:], 1)
}

// element is the element at *at, with its length, and moves *at behind it.
func element(buf []byte, at *int) []byte {
	from := *at
	*at += 4 + int(max(int32(binary.BigEndian.Uint32(buf[from:])), 0))
	return buf[from:*at]
}

// cut is the part of a sealed array from row lo to row hi.
func cut(buf []byte, lo, hi int) []byte {
	at := arrayHeader
	from := at
	for i := 0; i < hi; i++ {
		if i == lo {
			from = at
		}
		element(buf, &at)
	}
	out := append(append(make([]byte, 0, arrayHeader+at-from), buf[:arrayHeader]...), buf[from:at]...)
	binary.BigEndian.PutUint32(out[12:], uint32(hi-lo))
	return out
}

// Postgres counts days and microseconds from 2000-01-01.
const (
	days2000   = 10957
	micros2000 = days2000 * 86_400_000_000
)

// add appends the values of v in the rows at. They are of type t.
func (a *array) add(c *coder, t *row.Type, v *row.Vector, at []int32) error {
	be := binary.BigEndian
	nulls := len(v.Nulls) > 0
	for _, i32 := range at {
		i := int(i32)
		if nulls && v.Nulls.Is(i) {
			a.buf, a.nulls = be.AppendUint32(a.buf, math.MaxUint32), true
			continue
		}
		switch c.wire {
		case wireBool:
			a.buf = append(be.AppendUint32(a.buf, 1), byte(v.Int64[i]))
		case wireInt2:
			a.buf = be.AppendUint16(be.AppendUint32(a.buf, 2), uint16(v.Int64[i]))
		case wireInt4:
			a.buf = be.AppendUint32(be.AppendUint32(a.buf, 4), uint32(v.Int64[i]))
		case wireInt8:
			a.buf = be.AppendUint64(be.AppendUint32(a.buf, 8), uint64(v.Int64[i]))
		case wireFloat4:
			a.buf = be.AppendUint32(be.AppendUint32(a.buf, 4), math.Float32bits(float32(v.Float64[i])))
		case wireFloat8:
			a.buf = be.AppendUint64(be.AppendUint32(a.buf, 8), math.Float64bits(v.Float64[i]))
		case wireNumeric:
			start := len(a.buf)
			a.buf = appendNumeric(append(a.buf, 0, 0, 0, 0), v.Decimal[i], t.Scale)
			be.PutUint32(a.buf[start:], uint32(len(a.buf)-start-4))
		case wireText, wireBytes, wireUUID:
			b := v.Bytes(i)
			a.buf = append(be.AppendUint32(a.buf, uint32(len(b))), b...)
		case wireDate:
			d := v.Int64[i] - days2000
			if d <= math.MinInt32 || d >= math.MaxInt32 {
				return fmt.Errorf("a date %d days after 1970 is out of Postgres's range", v.Int64[i])
			}
			a.buf = be.AppendUint32(be.AppendUint32(a.buf, 4), uint32(d))
		case wireTime:
			a.buf = be.AppendUint64(be.AppendUint32(a.buf, 8), uint64(v.Int64[i]/1000))
		case wireTimestamp, wireInstant:
			if v.Int64[i] <= math.MinInt64+micros2000 {
				return fmt.Errorf("a time %d microseconds after 1970 is out of Postgres's range", v.Int64[i])
			}
			a.buf = be.AppendUint64(be.AppendUint32(a.buf, 8), uint64(v.Int64[i]-micros2000))
		case wireMonths:
			if v.Int64[i] != int64(int32(v.Int64[i])) {
				return fmt.Errorf("an interval of %d months is out of Postgres's range", v.Int64[i])
			}
			a.buf = be.AppendUint64(be.AppendUint32(a.buf, 16), 0)
			a.buf = be.AppendUint32(be.AppendUint32(a.buf, 0), uint32(v.Int64[i]))
		case wireInterval:
			a.buf = be.AppendUint64(be.AppendUint32(a.buf, 16), uint64(v.Int64[i]))
			a.buf = be.AppendUint64(a.buf, 0)
		case wireList:
			start := len(a.buf)
			a.buf = appendList(append(a.buf, 0, 0, 0, 0), c.elem, v.Bytes(i))
			be.PutUint32(a.buf[start:], uint32(len(a.buf)-start-4))
		}
	}
	return nil
}

// appendNumeric appends a number as Postgres sends one: digits of base 10000, the power of the first, sign, and how many
// decimal digits stand behind the point.
func appendNumeric(dst []byte, d row.Int128, scale int) []byte {
	be := binary.BigEndian
	head := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	var digits [16]uint16 // 38 decimal digits and a broken group on both sides
	n, groups := 0, 0     // how many, and how many of them before the point
	negative := d.Sign() < 0
	if x, ok := d.Int64(); ok && scale <= 16 && x != math.MinInt64 {
		if x < 0 {
			x = -x
		}
		whole, frac := x, int64(0)
		if scale > 0 {
			whole, frac = x/pow10[scale], x%pow10[scale]*pow10[(4-scale%4)%4]
		}
		var rev [5]uint16
		for ; whole > 0; whole /= 10000 {
			rev[groups] = uint16(whole % 10000)
			groups++
		}
		for i := range groups {
			digits[i] = rev[groups-1-i]
		}
		n = groups + (scale+3)/4
		for i := n - 1; i >= groups; i-- {
			digits[i] = uint16(frac % 10000)
			frac /= 10000
		}
	} else {
		var room [64]byte
		n, groups = digitsOf(&digits, row.AppendDecimal(room[:0], d, scale))
	}
	first := 0
	for first < n && digits[first] == 0 {
		first++
	}
	for n > first && digits[n-1] == 0 {
		n--
	}
	for _, g := range digits[first:n] {
		dst = be.AppendUint16(dst, g)
	}
	be.PutUint16(dst[head:], uint16(n-first))
	if n > first {
		be.PutUint16(dst[head+2:], uint16(groups-1-first))
		if negative {
			be.PutUint16(dst[head+4:], 0x4000)
		}
	}
	be.PutUint16(dst[head+6:], uint16(scale))
	return dst
}

var pow10 = [...]int64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16}

// digitsOf groups the digits of a number's text by four, from the point on to both sides.
func digitsOf(digits *[16]uint16, text []byte) (n, groups int) {
	if text[0] == '-' {
		text = text[1:]
	}
	point := len(text)
	for i, b := range text {
		if b == '.' {
			point = i
		}
	}
	groups = (point + 3) / 4
	for i := range point {
		g := &digits[groups-1-(point-1-i)/4]
		*g = *g*10 + uint16(text[i]-'0')
	}
	n = groups
	if point < len(text) {
		frac := text[point+1:]
		n += (len(frac) + 3) / 4
		for i := range (len(frac) + 3) / 4 * 4 {
			g := &digits[groups+i/4]
			*g *= 10
			if i < len(frac) {
				*g += uint16(frac[i] - '0')
			}
		}
	}
	return n, groups
}

// appendList appends an array as Postgres reads one.
func appendList(dst []byte, elem *row.Type, b []byte) []byte {
	l := row.ReadList(*elem, b)
	dst = append(dst, '{')
	var v row.Vector
	for i := range l.Len() {
		if i > 0 {
			dst = append(dst, ',')
		}
		if l.IsNull(i) {
			dst = append(dst, "NULL"...)
			continue
		}
		if elem.Kind == row.Array {
			dst = appendList(dst, elem.Elem, l.Bytes(i))
			continue
		}
		v.Truncate()
		l.AppendTo(&v, i)
		dst = append(dst, '"')
		start := len(dst)
		dst = appendText(dst, elem, &v)
		dst = append(escape(dst, start), '"')
	}
	return append(dst, '}')
}

func appendText(dst []byte, t *row.Type, v *row.Vector) []byte {
	switch t.Kind {
	case row.Bytes:
		return hex.AppendEncode(append(dst, '\\', 'x'), v.Bytes(0))
	case row.TimestampLTZ:
		return append(row.AppendText(dst, *t, v, 0, time.UTC), "+00"...)
	}
	return row.AppendText(dst, *t, v, 0, nil)
}

// escape puts a backslash before quotes and backslashes of dst[start:].
func escape(dst []byte, start int) []byte {
	n := 0
	for _, b := range dst[start:] {
		if b == '"' || b == '\\' {
			n++
		}
	}
	if n == 0 {
		return dst
	}
	from := len(dst)
	dst = append(dst, make([]byte, n)...)
	for to := len(dst); from > start; {
		from--
		to--
		dst[to] = dst[from]
		if b := dst[from]; b == '"' || b == '\\' {
			to--
			dst[to] = '\\'
		}
	}
	return dst
}
