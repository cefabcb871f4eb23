package parquet

import (
	"encoding/binary"

	"github.com/parquet-go/parquet-go"

	"github.com/weirstream/weir/engine/row"
)

type writer struct {
	schema row.Schema
	out    *parquet.GenericWriter[any]
	values []parquet.Value
	rows   []parquet.Row
	bytes  []byte // of decimals, 16 for each value
}

// Write adds the rows of b that count, as rows of values that the library divides into columns again.
func (w *writer) Write(b *row.Batch) error {
	n, width := b.Rows(), len(w.schema)
	if n == 0 {
		return nil
	}
	if cap(w.values) < n*width {
		w.values = make([]parquet.Value, n*width)
	}
	w.values, w.rows, w.bytes = w.values[:n*width], w.rows[:0], w.bytes[:0]
	for c, f := range w.schema {
		w.column(w.values[c:], width, c, f.Type, b)
	}
	for k := range n {
		w.rows = append(w.rows, w.values[k*width:(k+1)*width:(k+1)*width])
	}
	_, err := w.out.WriteRows(w.rows)
	return err
}

// column fills every width-th value with those of column c.
func (w *writer) column(values []parquet.Value, width, c int, t row.Type, b *row.Batch) {
	v := b.Cols[c]
	level := 1
	if t.NotNull {
		level = 0
	}
	divisor := int64(1)
	switch t.Kind {
	case row.Timestamp, row.TimestampLTZ: // a batch has microseconds, or nanoseconds beyond a precision of 6
		if t.Precision <= 3 {
			divisor = 1000
		}
	case row.Time: // and always nanoseconds here
		if divisor = 1000; t.Precision <= 3 {
			divisor = 1_000_000
		} else if t.Precision > 6 {
			divisor = 1
		}
	}
	for k := range b.Rows() {
		i := b.At(k)
		if v.Nulls.Is(i) {
			values[k*width] = parquet.NullValue().Level(0, 0, c)
			continue
		}
		var p parquet.Value
		switch t.Kind {
		case row.Boolean:
			p = parquet.BooleanValue(v.Int64[i] != 0)
		case row.TinyInt, row.SmallInt, row.Int, row.Date, row.IntervalMonths:
			p = parquet.Int32Value(int32(v.Int64[i]))
		case row.Time:
			if t.Precision <= 3 {
				p = parquet.Int32Value(int32(v.Int64[i] / divisor))
			} else {
				p = parquet.Int64Value(v.Int64[i] / divisor)
			}
		case row.BigInt, row.IntervalTime:
			p = parquet.Int64Value(v.Int64[i])
		case row.Timestamp, row.TimestampLTZ:
			p = parquet.Int64Value(floorDiv(v.Int64[i], divisor))
		case row.Float:
			p = parquet.FloatValue(float32(v.Float64[i]))
		case row.Double:
			p = parquet.DoubleValue(v.Float64[i])
		case row.Decimal:
			p = w.decimal(t, v.Decimal[i])
		case row.UUID:
			p = parquet.FixedLenByteArrayValue(v.Bytes(i))
		default:
			p = parquet.ByteArrayValue(v.Bytes(i))
		}
		values[k*width] = p.Level(0, level, c)
	}
}

func (w *writer) decimal(t row.Type, d row.Int128) parquet.Value {
	if t.Precision <= 18 {
		x, _ := d.Int64()
		if t.Precision <= 9 {
			return parquet.Int32Value(int32(x))
		}
		return parquet.Int64Value(x)
	}
	start := len(w.bytes)
	w.bytes = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(w.bytes, uint64(d.Hi)), d.Lo)
	return parquet.FixedLenByteArrayValue(w.bytes[start:])
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// Close writes the rest and the footer.
func (w *writer) Close() error { return w.out.Close() }
