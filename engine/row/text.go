package row

import (
	"math"
	"strconv"
	"time"
)

// AppendText appends the value as CAST(.. AS STRING) gives it. NULL is the caller's business; inside of arrays, maps and
// rows it is NULL. Zone is where a TIMESTAMP_LTZ is shown; nil means UTC.
func AppendText(dst []byte, t Type, v *Vector, i int, zone *time.Location) []byte {
	switch t.Layout() {
	case LayoutFloat64:
		return AppendFloat(dst, v.Float64[i], floatBits(t))
	case LayoutDecimal:
		return AppendDecimal(dst, v.Decimal[i], t.Scale)
	case LayoutBytes:
		return appendBytesText(dst, t, v.Bytes(i), zone)
	}
	return appendIntText(dst, t, v.Int64[i], zone)
}

func floatBits(t Type) int {
	if t.Kind == Float {
		return 32
	}
	return 64
}

func appendIntText(dst []byte, t Type, x int64, zone *time.Location) []byte {
	switch t.Kind {
	case Boolean:
		if x != 0 {
			return append(dst, "TRUE"...)
		}
		return append(dst, "FALSE"...)
	case Date:
		return AppendDate(dst, x)
	case Time:
		return AppendTime(dst, x, t.Precision)
	case Timestamp:
		return AppendTimestamp(dst, x, t.Precision)
	case TimestampLTZ:
		return AppendTimestamp(dst, ToLocal(x, t.Precision, zone), t.Precision)
	case IntervalMonths:
		sign := byte('+')
		if x < 0 {
			sign, x = '-', -x
		}
		dst = strconv.AppendInt(append(dst, sign), x/12, 10)
		return appendPadded(append(dst, '-'), x%12, 2)
	case IntervalTime:
		sign := byte('+')
		u := uint64(x)
		if x < 0 {
			sign, u = '-', -u
		}
		dst = strconv.AppendUint(append(dst, sign), u/uint64(MicrosPerDay), 10)
		u %= uint64(MicrosPerDay)
		dst = AppendTime(append(dst, ' '), int64(u/1000*1000)*1000, 0)
		dst = append(dst, '.')
		if u%1000 == 0 {
			return appendPadded(dst, int64(u/1000%1000), 3)
		}
		return appendPadded(dst, int64(u%1000000), 6)
	}
	return strconv.AppendInt(dst, x, 10)
}

func appendBytesText(dst []byte, t Type, b []byte, zone *time.Location) []byte {
	switch t.Kind {
	case UUID:
		return appendUUID(dst, b)
	case Array:
		l := ReadList(*t.Elem, b)
		dst = append(dst, '[')
		for i := range l.Len() {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = l.appendText(dst, *t.Elem, i, zone)
		}
		return append(dst, ']')
	case Map, Multiset:
		key, value := t.entry()
		kb, vb := SplitMap(b)
		keys, values := ReadList(key, kb), ReadList(value, vb)
		dst = append(dst, '{')
		for i := range keys.Len() {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = keys.appendText(dst, key, i, zone)
			dst = values.appendText(append(dst, '='), value, i, zone)
		}
		return append(dst, '}')
	case Struct:
		c := NewCodec(Schema(t.Fields).Types())
		dst = append(dst, '(')
		var v Vector
		for i, f := range t.Fields {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			if c.IsNull(b, i) {
				dst = append(dst, "NULL"...)
				continue
			}
			v.Truncate()
			c.Decode(&v, 0, i, [][]byte{b})
			dst = AppendText(dst, f.Type, &v, 0, zone)
		}
		return append(dst, ')')
	}
	return append(dst, b...)
}

// entry is the types of a Map's or Multiset's keys and values.
func (t Type) entry() (key, value Type) {
	if t.Kind == Multiset {
		return *t.Elem, Type{Kind: Int, NotNull: true}
	}
	return *t.Key, *t.Elem
}

func appendUUID(dst, b []byte) []byte {
	const hex = "0123456789abcdef"
	for i, c := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hex[c>>4], hex[c&15])
	}
	return dst
}

// AppendFloat appends a float as Java prints it: the shortest digits that read back as the same number, always with a
// point, and with an exponent below 10^-3 and from 10^7 on.
func AppendFloat(dst []byte, f float64, bitSize int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}
	if a := math.Abs(f); a != 0 && (a < 1e-3 || a >= 1e7) {
		start := len(dst)
		dst = strconv.AppendFloat(dst, f, 'E', -1, bitSize)
		return javaExponent(dst, start)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, bitSize)
	for _, c := range dst[start:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, ".0"...)
}

// javaExponent turns 1E+07 into 1.0E7.
func javaExponent(dst []byte, start int) []byte {
	e, point := start, false
	for ; dst[e] != 'E'; e++ {
		point = point || dst[e] == '.'
	}
	var buf [8]byte
	exponent := append(buf[:0], dst[e+1:]...)
	dst = dst[:e]
	if !point {
		dst = append(dst, ".0"...)
	}
	dst = append(dst, 'E')
	if exponent[0] == '-' {
		dst = append(dst, '-')
	}
	exponent = exponent[1:]
	for len(exponent) > 1 && exponent[0] == '0' {
		exponent = exponent[1:]
	}
	return append(dst, exponent...)
}

// appendPadded appends x >= 0 with zeros in front up to width digits.
func appendPadded(dst []byte, x int64, width int) []byte {
	limit := int64(1)
	for range width - 1 {
		limit *= 10
	}
	for ; x < limit && limit > 1; limit /= 10 {
		dst = append(dst, '0')
	}
	return strconv.AppendInt(dst, x, 10)
}

// AppendDate appends days since 1970-01-01 as year-month-day.
func AppendDate(dst []byte, days int64) []byte {
	y, m, d := CivilDate(days)
	if y < 0 {
		dst, y = append(dst, '-'), -y
	}
	if y > 9999 {
		dst = strconv.AppendInt(dst, y, 10)
	} else {
		dst = append(dst, byte('0'+y/1000), byte('0'+y/100%10), byte('0'+y/10%10), byte('0'+y%10))
	}
	return append(dst, '-', byte('0'+m/10), byte('0'+m%10), '-', byte('0'+d/10), byte('0'+d%10))
}

// AppendTime appends nanoseconds of the day with precision digits of a second.
func AppendTime(dst []byte, nanos int64, precision int) []byte {
	s := nanos / 1e9
	h, m := s/3600, s/60%60
	s %= 60
	dst = append(dst, byte('0'+h/10), byte('0'+h%10), ':', byte('0'+m/10), byte('0'+m%10), ':', byte('0'+s/10), byte('0'+s%10))
	if precision <= 0 {
		return dst
	}
	dst = append(dst, '.')
	f := nanos % 1e9
	for div := int64(1e8); precision > 0; precision, div = precision-1, div/10 {
		dst = append(dst, byte('0'+f/div))
		f %= div
		if div == 1 {
			break
		}
	}
	return dst
}

// AppendTimestamp appends a Timestamp's number: micro- or nanoseconds since 1970, as the precision says.
func AppendTimestamp(dst []byte, x int64, precision int) []byte {
	perDay, toNanos := UnitsPerDay(precision), int64(1000)
	if precision > 6 {
		toNanos = 1
	}
	days := floorDiv(x, perDay)
	dst = AppendDate(dst, days)
	return AppendTime(append(dst, ' '), (x-days*perDay)*toNanos, precision)
}
