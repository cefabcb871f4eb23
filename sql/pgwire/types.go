package pgwire

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/weirstream/weir/engine/row"
)

// The types of Postgres that the engine's are shown as, by their object ids.
const (
	oidBool        = 16
	oidBytea       = 17
	oidName        = 19
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidOID         = 26
	oidJSON        = 114
	oidFloat4      = 700
	oidFloat8      = 701
	oidUnknown     = 705
	oidBPChar      = 1042
	oidVarchar     = 1043
	oidDate        = 1082
	oidTime        = 1083
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidInterval    = 1186
	oidNumeric     = 1700
	oidUUID        = 2950
)

// pgType is how a type is shown: object id, size of a value (-1: it varies) and modifier (-1: none).
type pgType struct {
	oid  uint32
	size int16
	mod  int32
}

func typeOf(t row.Type) pgType {
	length := func() int32 {
		if t.Precision > 0 {
			return int32(t.Precision) + 4
		}
		return -1
	}
	switch t.Kind {
	case row.Boolean:
		return pgType{oidBool, 1, -1}
	case row.TinyInt, row.SmallInt:
		return pgType{oidInt2, 2, -1}
	case row.Int:
		return pgType{oidInt4, 4, -1}
	case row.BigInt:
		return pgType{oidInt8, 8, -1}
	case row.Float:
		return pgType{oidFloat4, 4, -1}
	case row.Double:
		return pgType{oidFloat8, 8, -1}
	case row.Decimal:
		return pgType{oidNumeric, -1, (int32(t.Precision)<<16 | int32(t.Scale)) + 4}
	case row.Numeric:
		return pgType{oidNumeric, -1, -1}
	case row.String:
		switch {
		case t.Fixed:
			return pgType{oidBPChar, -1, length()}
		case t.Precision > 0 && t.Precision < math.MaxInt32:
			return pgType{oidVarchar, -1, length()}
		}
		return pgType{oidText, -1, -1}
	case row.Bytes:
		return pgType{oidBytea, -1, -1}
	case row.Date:
		return pgType{oidDate, 4, -1}
	case row.Time:
		return pgType{oidTime, 8, -1}
	case row.Timestamp:
		return pgType{oidTimestamp, 8, -1}
	case row.TimestampLTZ:
		return pgType{oidTimestamptz, 8, -1}
	case row.IntervalMonths, row.IntervalTime:
		return pgType{oidInterval, 16, -1}
	case row.UUID:
		return pgType{oidUUID, 16, -1}
	case row.JSON:
		return pgType{oidJSON, -1, -1}
	}
	return pgType{oidText, -1, -1}
}

// typeName is the type as psql's \d shows it.
func typeName(oid uint32, mod int32) string {
	switch oid {
	case oidBool:
		return "boolean"
	case oidBytea:
		return "bytea"
	case oidName:
		return "name"
	case oidInt8:
		return "bigint"
	case oidInt2:
		return "smallint"
	case oidInt4:
		return "integer"
	case oidOID:
		return "oid"
	case oidJSON:
		return "json"
	case oidFloat4:
		return "real"
	case oidFloat8:
		return "double precision"
	case oidBPChar, oidVarchar:
		name := "character varying"
		if oid == oidBPChar {
			name = "character"
		}
		if mod > 4 {
			name += "(" + strconv.Itoa(int(mod-4)) + ")"
		}
		return name
	case oidDate:
		return "date"
	case oidTime:
		return "time without time zone"
	case oidTimestamp:
		return "timestamp without time zone"
	case oidTimestamptz:
		return "timestamp with time zone"
	case oidInterval:
		return "interval"
	case oidNumeric:
		if mod > 4 {
			return "numeric(" + strconv.Itoa(int(mod-4)>>16) + "," + strconv.Itoa(int(mod-4)&0xffff) + ")"
		}
		return "numeric"
	case oidUUID:
		return "uuid"
	}
	return "text"
}

// rowType is the engine's type for a parameter that a client declares; of kind Null if the client leaves it open.
func rowType(oid uint32) (row.Type, bool) {
	switch oid {
	case 0, oidUnknown:
		return row.Type{}, true
	case oidBool:
		return row.Type{Kind: row.Boolean}, true
	case oidInt2:
		return row.Type{Kind: row.SmallInt}, true
	case oidInt4:
		return row.Type{Kind: row.Int}, true
	case oidInt8, oidOID:
		return row.Type{Kind: row.BigInt}, true
	case oidFloat4:
		return row.Type{Kind: row.Float}, true
	case oidFloat8:
		return row.Type{Kind: row.Double}, true
	case oidNumeric:
		return row.Type{Kind: row.Decimal, Precision: 38, Scale: 18}, true
	case oidText, oidVarchar, oidBPChar, oidName:
		return row.Type{Kind: row.String}, true
	case oidBytea:
		return row.Type{Kind: row.Bytes}, true
	case oidDate:
		return row.Type{Kind: row.Date}, true
	case oidTime:
		return row.Type{Kind: row.Time, Precision: 6}, true
	case oidTimestamp:
		return row.Type{Kind: row.Timestamp, Precision: 6}, true
	case oidTimestamptz:
		return row.Type{Kind: row.TimestampLTZ, Precision: 6}, true
	case oidUUID:
		return row.Type{Kind: row.UUID}, true
	case oidJSON:
		return row.Type{Kind: row.JSON}, true
	}
	return row.Type{}, false
}

// epochMicros is 2000-01-01, from which Postgres counts, in µs since 1970; epochDays in days.
const (
	epochMicros = 946_684_800_000_000
	epochDays   = 10_957
)

// appendText appends a value that is not NULL as Postgres prints it.
func appendText(dst []byte, t row.Type, v *row.Vector, i int, zone *time.Location) []byte {
	switch t.Kind {
	case row.Boolean:
		if v.Int64[i] != 0 {
			return append(dst, 't')
		}
		return append(dst, 'f')
	case row.Float:
		return appendFloat(dst, v.Float64[i], 32)
	case row.Double:
		return appendFloat(dst, v.Float64[i], 64)
	case row.Bytes:
		return hex.AppendEncode(append(dst, `\x`...), v.Bytes(i))
	case row.Time, row.Timestamp:
		return trimFraction(row.AppendText(dst, t, v, i, zone), len(dst))
	case row.TimestampLTZ:
		start := len(dst)
		dst = trimFraction(row.AppendText(dst, t, v, i, zone), start)
		return appendOffset(dst, micros(t, v.Int64[i]), zone)
	case row.IntervalMonths:
		return appendMonths(dst, v.Int64[i])
	case row.IntervalTime:
		return appendInterval(dst, v.Int64[i])
	}
	return row.AppendText(dst, t, v, i, zone)
}

// micros is a timestamp in µs, whatever its precision.
func micros(t row.Type, x int64) int64 {
	if t.Precision > 6 {
		n := x / 1000
		if x%1000 < 0 {
			n--
		}
		return n
	}
	return x
}

// trimFraction takes the zeros at the end of a fraction away, as Postgres does.
func trimFraction(b []byte, start int) []byte {
	if !strings.Contains(string(b[start:]), ".") {
		return b
	}
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	if b[len(b)-1] == '.' {
		b = b[:len(b)-1]
	}
	return b
}

func appendOffset(dst []byte, micros int64, zone *time.Location) []byte {
	offset := 0
	if zone != nil {
		_, offset = time.UnixMicro(micros).In(zone).Zone()
	}
	sign := byte('+')
	if offset < 0 {
		sign, offset = '-', -offset
	}
	dst = append(dst, sign, byte('0'+offset/36000), byte('0'+offset/3600%10))
	if m := offset / 60 % 60; m != 0 {
		dst = append(dst, ':', byte('0'+m/10), byte('0'+m%10))
	}
	return dst
}

func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}
	limit := 1e15
	if bits == 32 {
		limit = 1e6
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= limit) {
		return strconv.AppendFloat(dst, f, 'e', -1, bits)
	}
	return strconv.AppendFloat(dst, f, 'f', -1, bits)
}

func appendMonths(dst []byte, months int64) []byte {
	if months == 0 {
		return append(dst, "00:00:00"...)
	}
	unit := func(n int64, name string) {
		if n == 0 {
			return
		}
		if dst = strconv.AppendInt(dst, n, 10); n != 1 && n != -1 {
			name += "s"
		}
		dst = append(append(append(dst, ' '), name...), ' ')
	}
	unit(months/12, "year")
	unit(months%12, "mon")
	return dst[:len(dst)-1]
}

func appendInterval(dst []byte, x int64) []byte {
	days, rest := x/row.MicrosPerDay, x%row.MicrosPerDay
	if days != 0 {
		dst = strconv.AppendInt(dst, days, 10)
		dst = append(dst, " day"...)
		if days != 1 && days != -1 {
			dst = append(dst, 's')
		}
		if rest == 0 {
			return dst
		}
		dst = append(dst, ' ')
	}
	if rest < 0 {
		dst, rest = append(dst, '-'), -rest
	}
	start := len(dst)
	return trimFraction(row.AppendTime(dst, rest*1000, 6), start)
}

// appendBinary appends a value that is not NULL in Postgres's binary form.
func appendBinary(dst []byte, t row.Type, v *row.Vector, i int, zone *time.Location) []byte {
	be := binary.BigEndian
	switch t.Kind {
	case row.Boolean:
		return append(dst, byte(v.Int64[i]))
	case row.TinyInt, row.SmallInt:
		return be.AppendUint16(dst, uint16(v.Int64[i]))
	case row.Int:
		return be.AppendUint32(dst, uint32(v.Int64[i]))
	case row.BigInt:
		return be.AppendUint64(dst, uint64(v.Int64[i]))
	case row.Float:
		return be.AppendUint32(dst, math.Float32bits(float32(v.Float64[i])))
	case row.Double:
		return be.AppendUint64(dst, math.Float64bits(v.Float64[i]))
	case row.Decimal, row.Numeric:
		return appendNumeric(dst, string(row.AppendText(nil, t, v, i, zone)))
	case row.Bytes, row.UUID:
		return append(dst, v.Bytes(i)...)
	case row.Date:
		return be.AppendUint32(dst, uint32(int32(v.Int64[i]-epochDays)))
	case row.Time:
		return be.AppendUint64(dst, uint64(v.Int64[i]/1000))
	case row.Timestamp, row.TimestampLTZ:
		return be.AppendUint64(dst, uint64(micros(t, v.Int64[i])-epochMicros))
	case row.IntervalMonths:
		return be.AppendUint32(be.AppendUint32(be.AppendUint64(dst, 0), 0), uint32(int32(v.Int64[i])))
	case row.IntervalTime:
		x := v.Int64[i]
		return be.AppendUint32(be.AppendUint32(be.AppendUint64(dst, uint64(x%row.MicrosPerDay)), uint32(int32(x/row.MicrosPerDay))), 0)
	}
	return row.AppendText(dst, t, v, i, zone)
}

// appendNumeric appends a decimal in Postgres's binary form: digits of base 10,000 with the weight of the first.
func appendNumeric(dst []byte, text string) []byte {
	be := binary.BigEndian
	header := func(digits int, weight int16, sign uint16, scale int) {
		dst = be.AppendUint16(dst, uint16(digits))
		dst = be.AppendUint16(dst, uint16(weight))
		dst = be.AppendUint16(dst, sign)
		dst = be.AppendUint16(dst, uint16(scale))
	}
	sign := uint16(0)
	switch text {
	case "NaN":
		header(0, 0, 0xC000, 0)
		return dst
	case "Infinity":
		header(0, 0, 0xD000, 0)
		return dst
	case "-Infinity":
		header(0, 0, 0xF000, 0)
		return dst
	}
	if rest, ok := strings.CutPrefix(text, "-"); ok {
		sign, text = 0x4000, rest
	}
	whole, frac, _ := strings.Cut(text, ".")
	scale := len(frac)
	whole = strings.Repeat("0", (4-len(whole)%4)%4) + whole
	frac += strings.Repeat("0", (4-len(frac)%4)%4)
	all := whole + frac
	weight := len(whole)/4 - 1
	for len(all) > 0 && all[:4] == "0000" {
		all, weight = all[4:], weight-1
	}
	for len(all) > 0 && all[len(all)-4:] == "0000" {
		all = all[:len(all)-4]
	}
	if len(all) == 0 {
		weight, sign = 0, 0
	}
	header(len(all)/4, int16(weight), sign, scale)
	for ; len(all) > 0; all = all[4:] {
		n, _ := strconv.Atoi(all[:4])
		dst = be.AppendUint16(dst, uint16(n))
	}
	return dst
}

// numericText is the text of a decimal in Postgres's binary form.
func numericText(b []byte) (string, bool) {
	be := binary.BigEndian
	if len(b) < 8 {
		return "", false
	}
	n, weight, sign, scale := int(be.Uint16(b)), int(int16(be.Uint16(b[2:]))), be.Uint16(b[4:]), int(be.Uint16(b[6:]))
	if len(b) != 8+2*n || sign&0xC000 == 0xC000 || scale > 1000 || weight > 1000 || weight < -1000 {
		return "", false
	}
	x := new(big.Int)
	for i := range n {
		d := be.Uint16(b[8+2*i:])
		if d > 9999 {
			return "", false
		}
		x.Mul(x, big.NewInt(10_000)).Add(x, big.NewInt(int64(d)))
	}
	// x is the value times 10,000^(n-1-weight); wanted is the value times 10^scale.
	shift := scale - 4*(n-1-weight)
	ten := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(shift, -shift))), nil)
	if shift >= 0 {
		x.Mul(x, ten)
	} else {
		x.Quo(x, ten)
	}
	s := x.String()
	if len(s) <= scale {
		s = strings.Repeat("0", scale+1-len(s)) + s
	}
	if scale > 0 {
		s = s[:len(s)-scale] + "." + s[len(s)-scale:]
	}
	if sign == 0x4000 {
		s = "-" + s
	}
	return s, true
}

// parseBinary appends a value in Postgres's binary form, of the type oid, to v, whose type is t.
func parseBinary(v *row.Vector, t row.Type, oid uint32, b []byte, zone *time.Location) bool {
	be := binary.BigEndian
	whole := func(x int64) bool {
		if t.Layout() == row.LayoutInt64 {
			v.Int64 = append(v.Int64, x)
			return true
		}
		return row.ParseText(v, t, strconv.AppendInt(nil, x, 10), zone) == nil
	}
	switch {
	case oid == oidBool && len(b) == 1:
		return whole(int64(b[0]))
	case oid == oidInt2 && len(b) == 2:
		return whole(int64(int16(be.Uint16(b))))
	case oid == oidInt4 && len(b) == 4:
		return whole(int64(int32(be.Uint32(b))))
	case oid == oidOID && len(b) == 4:
		return whole(int64(be.Uint32(b)))
	case oid == oidInt8 && len(b) == 8:
		return whole(int64(be.Uint64(b)))
	case oid == oidFloat4 && len(b) == 4:
		v.Float64 = append(v.Float64, float64(math.Float32frombits(be.Uint32(b))))
		return true
	case oid == oidFloat8 && len(b) == 8:
		v.Float64 = append(v.Float64, math.Float64frombits(be.Uint64(b)))
		return true
	case oid == oidDate && len(b) == 4:
		return whole(int64(int32(be.Uint32(b))) + epochDays)
	case oid == oidTime && len(b) == 8:
		return whole(int64(be.Uint64(b)) * 1000)
	case (oid == oidTimestamp || oid == oidTimestamptz) && len(b) == 8:
		x := int64(be.Uint64(b)) + epochMicros
		if t.Precision > 6 {
			x *= 1000
		}
		return whole(x)
	case oid == oidNumeric:
		s, ok := numericText(b)
		return ok && row.ParseText(v, t, []byte(s), zone) == nil
	case oid == oidBytea, oid == oidUUID && len(b) == 16:
		v.AppendBytes(b)
		return true
	case oid == oidText, oid == oidVarchar, oid == oidBPChar, oid == oidName, oid == oidJSON, oid == oidUnknown:
		return row.ParseText(v, t, b, zone) == nil
	}
	return false
}

// parseText appends a value in text form to v, whose type is t.
func parseText(v *row.Vector, t row.Type, b []byte, zone *time.Location) bool {
	if hexed, ok := strings.CutPrefix(string(b), `\x`); ok && t.Kind == row.Bytes {
		raw, err := hex.DecodeString(hexed)
		v.AppendBytes(raw)
		return err == nil
	}
	if t.Kind == row.Boolean {
		switch strings.ToLower(string(b)) {
		case "t", "on", "yes", "1":
			b = []byte("true")
		case "f", "off", "no", "0":
			b = []byte("false")
		}
	}
	return row.ParseText(v, t, b, zone) == nil
}
