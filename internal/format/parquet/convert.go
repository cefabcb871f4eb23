package parquet

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
	pformat "github.com/parquet-go/parquet-go/format"

	"github.com/weirstream/weir/engine/row"
)

// appendValue appends one value that is not NULL.
type appendValue func(v *row.Vector, p *parquet.Value) error

// converter makes values of the table's type of those of the file's type. What it returns gives the place of a value that
// does not fit.
func converter(t row.Type, from parquet.Type) (func(v *row.Vector, values []parquet.Value) (int, error), error) {
	one := appender(t, from)
	if one == nil {
		return nil, fmt.Errorf("the file has it as %s, which cannot be read as %s", from, t.Nullable())
	}
	layout := t.Layout()
	return func(v *row.Vector, values []parquet.Value) (int, error) {
		for i := range values {
			if values[i].IsNull() {
				if t.NotNull {
					return i, errors.New("NULL in a column that is NOT NULL")
				}
				v.AppendNull(layout)
				continue
			}
			if err := one(v, &values[i]); err != nil {
				return i, err
			}
		}
		return 0, nil
	}, nil
}

// appender finds how a value is read, nil where it cannot be.
func appender(t row.Type, from parquet.Type) appendValue {
	kind := from.Kind()
	whole := kind == parquet.Int32 || kind == parquet.Int64
	number := func(p *parquet.Value) int64 {
		if kind == parquet.Int32 {
			return int64(p.Int32())
		}
		return p.Int64()
	}
	text := kind == parquet.ByteArray || kind == parquet.FixedLenByteArray
	switch t.Kind {
	case row.Boolean:
		if kind == parquet.Boolean {
			return func(v *row.Vector, p *parquet.Value) error {
				x := int64(0)
				if p.Boolean() {
					x = 1
				}
				v.Int64 = append(v.Int64, x)
				return nil
			}
		}
	case row.TinyInt, row.SmallInt, row.Int, row.BigInt, row.IntervalMonths, row.IntervalTime:
		if whole && decimalScale(from) <= 0 && timeUnit(from) == 0 {
			least, most := row.IntegerRange(t.Kind)
			return func(v *row.Vector, p *parquet.Value) error {
				x := number(p)
				if x < least || x > most {
					return fmt.Errorf("%d is out of range of %s", x, t.Nullable())
				}
				v.Int64 = append(v.Int64, x)
				return nil
			}
		}
	case row.Float, row.Double:
		if kind == parquet.Float {
			return func(v *row.Vector, p *parquet.Value) error {
				v.Float64 = append(v.Float64, float64(p.Float()))
				return nil
			}
		}
		if kind == parquet.Double && t.Kind == row.Double {
			return func(v *row.Vector, p *parquet.Value) error { v.Float64 = append(v.Float64, p.Double()); return nil }
		}
	case row.Decimal:
		return decimalAppender(t, from, whole, number)
	case row.Date:
		if kind == parquet.Int32 && timeUnit(from) == 0 {
			return func(v *row.Vector, p *parquet.Value) error { v.Int64 = append(v.Int64, number(p)); return nil }
		}
	case row.Time:
		if u := int64(timeUnit(from)); whole && u > 0 {
			return func(v *row.Vector, p *parquet.Value) error {
				x := number(p) * u
				if x < 0 || x >= int64(24*time.Hour) {
					return fmt.Errorf("%d is no time of day", number(p))
				}
				v.Int64 = append(v.Int64, x)
				return nil
			}
		}
	case row.Timestamp, row.TimestampLTZ:
		return timestampAppender(t, from, kind)
	case row.UUID:
		if kind == parquet.FixedLenByteArray && from.Length() == 16 {
			return func(v *row.Vector, p *parquet.Value) error { v.AppendBytes(p.ByteArray()); return nil }
		}
	case row.Bytes:
		if text {
			return func(v *row.Vector, p *parquet.Value) error { return row.ParseText(v, t, p.ByteArray(), nil) }
		}
	}
	if kind == parquet.ByteArray && t.Layout() == row.LayoutBytes {
		return func(v *row.Vector, p *parquet.Value) error {
			b := p.ByteArray()
			if !utf8.Valid(b) {
				return errors.New("the text is not UTF-8")
			}
			if t.Kind == row.String && t.Precision == 0 {
				v.AppendBytes(b)
				return nil
			}
			return row.ParseText(v, t, b, nil)
		}
	}
	return nil
}

// decimalScale is the scale of a DECIMAL in the file, -1 if it is none.
func decimalScale(from parquet.Type) int {
	if l := from.LogicalType(); l != nil {
		if d, ok := l.Value.(*pformat.DecimalType); ok {
			return int(d.Scale)
		}
	}
	return -1
}

// timeUnit is the unit of a time or timestamp in the file, 0 if it is none.
func timeUnit(from parquet.Type) time.Duration {
	if l := from.LogicalType(); l != nil {
		switch l := l.Value.(type) {
		case *pformat.TimestampType:
			return l.Unit.Value.Duration()
		case *pformat.TimeType:
			return l.Unit.Value.Duration()
		}
	}
	if c := from.ConvertedType(); c != nil { // of older files
		switch *c {
		case deprecated.TimestampMillis, deprecated.TimeMillis:
			return time.Millisecond
		case deprecated.TimestampMicros, deprecated.TimeMicros:
			return time.Microsecond
		}
	}
	return 0
}

func decimalAppender(t row.Type, from parquet.Type, whole bool, number func(p *parquet.Value) int64) appendValue {
	scale := max(decimalScale(from), 0)
	if scale > t.Scale {
		return nil
	}
	add := func(v *row.Vector, d row.Int128) error {
		d, ok := d.MulPow10(t.Scale - scale)
		if !ok || !d.Fits(t.Precision) {
			return fmt.Errorf("the number is out of range of %s", t.Nullable())
		}
		v.Decimal = append(v.Decimal, d)
		return nil
	}
	if whole && timeUnit(from) == 0 {
		return func(v *row.Vector, p *parquet.Value) error { return add(v, row.Int128From(number(p))) }
	}
	if decimalScale(from) < 0 {
		return nil
	}
	return func(v *row.Vector, p *parquet.Value) error {
		b := p.ByteArray() // big endian, two's complement
		d := row.Int128{}
		if len(b) > 0 && b[0] >= 0x80 {
			d = row.Int128{Hi: -1, Lo: ^uint64(0)}
		}
		sign := byte(d.Hi)
		for len(b) > 16 {
			if b[0] != sign {
				return fmt.Errorf("the number is out of range of %s", t.Nullable())
			}
			b = b[1:]
		}
		for _, c := range b {
			d = row.Int128{Hi: d.Hi<<8 | int64(d.Lo>>56), Lo: d.Lo<<8 | uint64(c)}
		}
		return add(v, d)
	}
}

// timestampAppender reads 64-bit numbers with a unit, and the 96-bit form of older writers: nanoseconds of a Julian day.
func timestampAppender(t row.Type, from parquet.Type, kind parquet.Kind) appendValue {
	add := func(v *row.Vector, days, nanos int64) error {
		x, err := row.TimestampOf(days, nanos, t.Precision)
		if err != nil {
			return err
		}
		v.Int64 = append(v.Int64, x)
		return nil
	}
	const unixDay = 2_440_588 // the Julian day of 1970-01-01
	if kind == parquet.Int96 {
		return func(v *row.Vector, p *parquet.Value) error {
			x := p.Int96()
			nanos := int64(x[1])<<32 | int64(x[0])
			if nanos < 0 || nanos >= int64(24*time.Hour) {
				return errors.New("no time of day")
			}
			return add(v, int64(int32(x[2]))-unixDay, nanos)
		}
	}
	u := int64(timeUnit(from))
	if kind != parquet.Int64 || u == 0 {
		return nil
	}
	perDay := int64(24*time.Hour) / u
	return func(v *row.Vector, p *parquet.Value) error {
		x := p.Int64()
		days := floorDiv(x, perDay)
		return add(v, days, (x-days*perDay)*u)
	}
}
