package format

import (
	"encoding/binary"
	"time"

	"github.com/weirstream/weir/engine/row"
)

// Append appends the value that text writes, as row.ParseText does. It knows the usual forms of numbers and times by heart
// and is several times as fast on them.
func Append(v *row.Vector, t row.Type, text []byte, zone *time.Location) error {
	switch t.Kind {
	case row.TinyInt, row.SmallInt, row.Int, row.BigInt:
		if x, ok := integer(text); ok {
			if least, most := row.IntegerRange(t.Kind); x >= least && x <= most {
				v.Int64 = append(v.Int64, x)
				return nil
			}
		}
	case row.Double, row.Float:
		if f, ok := float(text, t.Kind == row.Float); ok {
			v.Float64 = append(v.Float64, f)
			return nil
		}
	case row.Timestamp:
		if x, ok := timestamp(text, t.Precision); ok {
			v.Int64 = append(v.Int64, x)
			return nil
		}
	case row.String:
		if t.Precision == 0 {
			v.AppendBytes(text)
			return nil
		}
	}
	return row.ParseText(v, t, text, zone)
}

// integer reads up to 18 digits with a sign.
func integer(b []byte) (int64, bool) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	x := int64(0)
	for _, c := range b {
		d := c - '0'
		if d > 9 {
			return 0, false
		}
		x = x*10 + int64(d)
	}
	if negative {
		x = -x
	}
	return x, true
}

// float reads a number whose digits fit a double exactly and whose power of ten does, too: then one division rounds once,
// as it must. A FLOAT is rounded twice that way, which may be wrong, so only whole numbers of it are taken.
func float(b []byte, single bool) (float64, bool) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 16 || b[0] == '.' {
		return 0, false
	}
	x, scale, point := int64(0), 0, false
	for _, c := range b {
		if c == '.' && !point {
			point = true
			continue
		}
		d := c - '0'
		if d > 9 {
			return 0, false
		}
		x = x*10 + int64(d)
		if point {
			scale++
		}
	}
	if x > 1<<53 || single && (scale > 0 || x > 1<<24) {
		return 0, false
	}
	f := float64(x)
	power := float64(1)
	for range scale {
		power *= 10
	}
	f /= power
	if negative {
		f = -f
	}
	return f, true
}

// timestamp reads YYYY-MM-DD hh:mm:ss with up to 9 digits behind a point, a T instead of the space and no zone.
func timestamp(b []byte, precision int) (int64, bool) {
	if len(b) < 19 || len(b) > 29 || b[4] != '-' || b[7] != '-' || b[10] != ' ' && b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return 0, false
	}
	bad := byte(0)
	two := func(i int) int64 {
		h, l := b[i]-'0', b[i+1]-'0'
		bad |= above9(h) | above9(l)
		return int64(h)*10 + int64(l)
	}
	year, month, day := two(0)*100+two(2), two(5), two(8)
	hour, minute, second := two(11), two(14), two(17)
	if bad != 0 || month < 1 || month > 12 || day < 1 || day > 28 && day > row.DaysInMonth(year, month) || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	nanos := int64(0)
	if len(b) > 19 {
		if b[19] != '.' || len(b) == 20 {
			return 0, false
		}
		unit := int64(100_000_000)
		for _, c := range b[20:] {
			d := c - '0'
			bad |= above9(d)
			nanos += int64(d) * unit
			unit /= 10
		}
		if bad != 0 {
			return 0, false
		}
	}
	x, err := row.TimestampOf(row.DaysFromCivil(year, month, day), ((hour*60+minute)*60+second)*1e9+nanos, precision)
	return x, err == nil
}

// above9 is not 0 if d is no digit.
func above9(d byte) byte {
	if d > 9 {
		return 1
	}
	return 0
}

// Plain is how many bytes at the beginning of b are printable ASCII without a quote or a backslash.
func Plain(b []byte) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	i := 0
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quote, slash := w^ones*'"', w^ones*'\\'
		// The highest bit of a byte says that it is below 0x20, a quote, a backslash or not ASCII; a borrow may say so of
		// further ones behind the first.
		if ((w-ones*0x20)&^w|(quote-ones)&^quote|(slash-ones)&^slash|w)&highs != 0 {
			break
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < 0x20 || c >= 0x80 || c == '"' || c == '\\' {
			break
		}
	}
	return i
}
