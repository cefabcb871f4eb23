package row

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// ParseText appends to v the value that CAST from STRING makes of text; when it says an error, it appended nothing.
// White space around numbers, times and BOOLEAN does not count. Zone is where a TIMESTAMP_LTZ without a zone of its own
// was written; nil means UTC. Arrays, maps and rows cannot be read.
func ParseText(v *Vector, t Type, text []byte, zone *time.Location) error {
	switch t.Layout() {
	case LayoutInt64:
		x, err := parseInt(t, bytes.TrimSpace(text), zone)
		if err != nil {
			return err
		}
		v.Int64 = append(v.Int64, x)
	case LayoutFloat64:
		f, err := ParseFloat(text, floatBits(t))
		if err != nil {
			return err
		}
		v.Float64 = append(v.Float64, f)
	case LayoutDecimal:
		d, err := ParseDecimal(text, t.Precision, t.Scale)
		if errors.Is(err, errTooLarge) {
			return errDecimalRange(t)
		}
		if err != nil {
			return err
		}
		v.Decimal = append(v.Decimal, d)
	default:
		off := len(v.Heap)
		heap, err := appendParsed(v.Heap, t, text)
		if err != nil {
			v.Heap = v.Heap[:off]
			return err
		}
		v.Heap = heap
		v.Spans = append(v.Spans, Span{uint32(off), uint32(len(heap) - off)})
	}
	return nil
}

func parseInt(t Type, b []byte, zone *time.Location) (int64, error) {
	switch t.Kind {
	case Boolean:
		return ParseBool(b)
	case TinyInt, SmallInt, Int, BigInt:
		return ParseInteger(t.Kind, b)
	case Date:
		return ParseDate(b)
	case Time:
		x, err := ParseTime(b)
		return x - x%int64(pow10(9-min(t.Precision, 9))), err
	case Timestamp:
		return ParseTimestamp(b, t.Precision)
	case TimestampLTZ:
		return ParseTimestampLTZ(b, t.Precision, zone)
	case IntervalMonths:
		return parseIntervalMonths(b)
	case IntervalTime:
		return parseIntervalTime(b)
	}
	return 0, fmt.Errorf("no text is a value of %s", t)
}

func appendParsed(dst []byte, t Type, text []byte) ([]byte, error) {
	switch t.Kind {
	case Numeric:
		return AppendNumeric(dst, text)
	case String:
		return AppendFitted(dst, t, text), nil
	case Bytes:
		if t.Precision > 0 && len(text) > t.Precision {
			text = text[:t.Precision]
		}
		dst = append(dst, text...)
		for n := len(text); t.Fixed && n < t.Precision; n++ {
			dst = append(dst, 0)
		}
		return dst, nil
	case UUID:
		return appendParsedUUID(dst, bytes.TrimSpace(text))
	case JSON:
		if !json.Valid(text) {
			return dst, errors.New("not JSON")
		}
		return append(dst, text...), nil
	case Foreign:
		return append(dst, text...), nil
	}
	return dst, fmt.Errorf("%s cannot be read from text", t.Nullable())
}

// AppendFitted appends text as a value of a CHAR or VARCHAR: cut to its length in characters, and filled with spaces if
// the type is fixed.
func AppendFitted(dst []byte, t Type, text []byte) []byte {
	if t.Precision == 0 && !t.Fixed {
		return append(dst, text...)
	}
	if !t.Fixed && len(text) <= t.Precision {
		return append(dst, text...)
	}
	n, at := 0, 0
	for at < len(text) && n < t.Precision {
		_, size := utf8.DecodeRune(text[at:])
		at += size
		n++
	}
	dst = append(dst, text[:at]...)
	for ; t.Fixed && n < t.Precision; n++ {
		dst = append(dst, ' ')
	}
	return dst
}

// ParseBool reads what Flink takes for a BOOLEAN.
func ParseBool(b []byte) (int64, error) {
	is := func(words ...string) bool {
		for _, w := range words {
			if len(b) == len(w) && bytes.EqualFold(b, []byte(w)) {
				return true
			}
		}
		return false
	}
	switch {
	case is("true", "t", "yes", "y", "1"):
		return 1, nil
	case is("false", "f", "no", "n", "0"):
		return 0, nil
	}
	return 0, errors.New("not a BOOLEAN")
}

// IntegerRange is the smallest and largest value of an integer kind.
func IntegerRange(k Kind) (low, high int64) {
	switch k {
	case TinyInt:
		return math.MinInt8, math.MaxInt8
	case SmallInt:
		return math.MinInt16, math.MaxInt16
	case Int:
		return math.MinInt32, math.MaxInt32
	}
	return math.MinInt64, math.MaxInt64
}

// ParseInteger reads a number of an integer kind. Digits behind a point are read and dropped, as Flink does.
func ParseInteger(k Kind, b []byte) (int64, error) {
	text := b
	negative := len(b) > 0 && b[0] == '-'
	if negative || len(b) > 0 && b[0] == '+' {
		b = b[1:]
	}
	i := digits(b)
	whole, rest := b[:i], b[i:]
	if len(rest) > 0 && rest[0] == '.' {
		n := digits(rest[1:])
		i += n
		rest = rest[1+n:]
	}
	if i == 0 || len(rest) != 0 {
		return 0, fmt.Errorf("%q is not a whole number", text)
	}
	var x int64 // negative: there is one more of them
	for _, c := range whole {
		d := int64(c - '0')
		if x < (math.MinInt64+d)/10 {
			return 0, errTooLarge
		}
		x = x*10 - d
	}
	low, high := IntegerRange(k)
	if !negative {
		if x == math.MinInt64 {
			return 0, errTooLarge
		}
		x = -x
	}
	if x < low || x > high {
		return 0, fmt.Errorf("out of range of %s", Type{Kind: k})
	}
	return x, nil
}

// ParseFloat reads a FLOAT or DOUBLE.
func ParseFloat(text []byte, bitSize int) (float64, error) {
	b := bytes.TrimSpace(text)
	sign := 1
	word := b
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		if b[0] == '-' {
			sign = -1
		}
		word = b[1:]
	}
	switch {
	case bytes.EqualFold(word, []byte("nan")):
		return math.NaN(), nil
	case bytes.EqualFold(word, []byte("infinity")), bytes.EqualFold(word, []byte("inf")):
		return math.Inf(sign), nil
	}
	if len(word) == 0 || word[0] != '.' && (word[0] < '0' || word[0] > '9') || bytes.ContainsAny(word, "_xXpP") {
		return 0, errNotNumber
	}
	f, err := strconv.ParseFloat(string(b), bitSize)
	if errors.Is(err, strconv.ErrRange) && bitSize == 64 || errors.Is(err, strconv.ErrRange) && math.IsInf(f, 0) {
		return 0, errTooLarge
	}
	if err != nil {
		return 0, errNotNumber
	}
	return f, nil
}

func appendParsedUUID(dst, b []byte) ([]byte, error) {
	start := len(dst)
	var half, n byte
	for _, c := range b {
		var x byte
		switch {
		case c >= '0' && c <= '9':
			x = c - '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			x = c | 0x20 - 'a' + 10
		case c == '-' && n&1 == 0 || c == '{' || c == '}':
			continue
		default:
			return dst[:start], errors.New("not a UUID")
		}
		if n&1 == 0 {
			half = x << 4
		} else {
			dst = append(dst, half|x)
		}
		if n++; n > 32 {
			break
		}
	}
	if n != 32 {
		return dst[:start], errors.New("not a UUID")
	}
	return dst, nil
}
