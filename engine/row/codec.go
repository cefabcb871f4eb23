package row

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Codec turns rows of a fixed list of types into binary rows and back. A binary row is
//
//	NULL bits, one for each column, rounded up to bytes
//	fixed part: each column's value in as many bytes as its type needs, little endian; for the bytes layout the 4-byte
//	            end of its value in the variable part
//	variable part: the values of the bytes layout, one behind the other
//
// Equal rows have equal bytes and the other way round: what lies under a NULL is zero, a float keeps its bits.
type Codec struct {
	types []Type
	cols  []codecColumn
	fixed int // where the variable part begins
	vars  int // how many columns are in it
}

type codecColumn struct {
	layout Layout
	width  int // bytes in the fixed part
	at     int
	prev   int // where the end of the bytes column before this one stands, -1 for the first
}

// NewCodec returns the codec for rows of the types.
func NewCodec(types []Type) *Codec {
	c := &Codec{types: types, cols: make([]codecColumn, len(types))}
	at, prev := (len(types)+7)/8, -1
	for i, t := range types {
		col := codecColumn{layout: t.Layout(), width: fixedWidth(t), at: at, prev: -1}
		if col.layout == LayoutBytes {
			col.prev, prev = prev, at
			c.vars++
		}
		c.cols[i] = col
		at += col.width
	}
	c.fixed = at
	return c
}

// Types are the types that the codec was made for.
func (c *Codec) Types() []Type { return c.types }

// fixedWidth is how many bytes a value takes in the fixed part.
func fixedWidth(t Type) int {
	switch t.Kind {
	case Boolean, TinyInt, Null:
		return 1
	case SmallInt:
		return 2
	case Int, Date, Float, IntervalMonths:
		return 4
	case Decimal:
		if t.Precision <= 18 {
			return 8
		}
		return 16
	}
	if t.Layout() == LayoutBytes {
		return 4
	}
	return 8
}

// Append appends row i of b.
func (c *Codec) Append(dst []byte, b *Batch, i int) []byte { return c.AppendColumns(dst, b.Cols, i) }

// AppendColumns appends the row that the i-th values of cols make.
func (c *Codec) AppendColumns(dst []byte, cols []*Vector, i int) []byte {
	start := len(dst)
	dst = extend(dst, c.fixed)
	for k := range c.cols {
		col, v := &c.cols[k], cols[k]
		row := dst[start:]
		if v.Nulls.Is(i) {
			row[k>>3] |= 1 << (k & 7)
			if col.layout == LayoutBytes {
				binary.LittleEndian.PutUint32(row[col.at:], uint32(len(row)-c.fixed))
			}
			continue
		}
		switch col.layout {
		case LayoutInt64:
			putInt(row[col.at:], v.Int64[i], col.width)
		case LayoutFloat64:
			if col.width == 4 {
				binary.LittleEndian.PutUint32(row[col.at:], math.Float32bits(float32(v.Float64[i])))
			} else {
				binary.LittleEndian.PutUint64(row[col.at:], math.Float64bits(v.Float64[i]))
			}
		case LayoutDecimal:
			d := v.Decimal[i]
			binary.LittleEndian.PutUint64(row[col.at:], d.Lo)
			if col.width == 16 {
				binary.LittleEndian.PutUint64(row[col.at+8:], uint64(d.Hi))
			}
		case LayoutBytes:
			dst = append(dst, v.Bytes(i)...)
			binary.LittleEndian.PutUint32(dst[start+col.at:], uint32(len(dst)-start-c.fixed))
		}
	}
	return dst
}

// extend appends n zero bytes.
func extend(dst []byte, n int) []byte {
	l := len(dst)
	if cap(dst)-l < n {
		dst = append(dst, make([]byte, n)...)
		return dst
	}
	dst = dst[:l+n]
	clear(dst[l:])
	return dst
}

func putInt(b []byte, v int64, width int) {
	switch width {
	case 8:
		binary.LittleEndian.PutUint64(b, uint64(v))
	case 4:
		binary.LittleEndian.PutUint32(b, uint32(v))
	case 2:
		binary.LittleEndian.PutUint16(b, uint16(v))
	default:
		b[0] = byte(v)
	}
}

// Decode appends column col of each of the binary rows to v, which holds have values.
func (c *Codec) Decode(v *Vector, have, col int, rows [][]byte) {
	cc := &c.cols[col]
	at := cc.at
	switch cc.layout {
	case LayoutInt64:
		switch cc.width {
		case 8:
			for _, r := range rows {
				v.Int64 = append(v.Int64, int64(binary.LittleEndian.Uint64(r[at:])))
			}
		case 4:
			for _, r := range rows {
				v.Int64 = append(v.Int64, int64(int32(binary.LittleEndian.Uint32(r[at:]))))
			}
		case 2:
			for _, r := range rows {
				v.Int64 = append(v.Int64, int64(int16(binary.LittleEndian.Uint16(r[at:]))))
			}
		default:
			for _, r := range rows {
				v.Int64 = append(v.Int64, int64(int8(r[at])))
			}
		}
	case LayoutFloat64:
		if cc.width == 4 {
			for _, r := range rows {
				v.Float64 = append(v.Float64, float64(math.Float32frombits(binary.LittleEndian.Uint32(r[at:]))))
			}
		} else {
			for _, r := range rows {
				v.Float64 = append(v.Float64, math.Float64frombits(binary.LittleEndian.Uint64(r[at:])))
			}
		}
	case LayoutDecimal:
		if cc.width == 8 {
			for _, r := range rows {
				v.Decimal = append(v.Decimal, Int128From(int64(binary.LittleEndian.Uint64(r[at:]))))
			}
		} else {
			for _, r := range rows {
				v.Decimal = append(v.Decimal, Int128{int64(binary.LittleEndian.Uint64(r[at+8:])), binary.LittleEndian.Uint64(r[at:])})
			}
		}
	case LayoutBytes:
		for _, r := range rows {
			v.AppendBytes(c.bytes(cc, r))
		}
	}
	c.decodeNulls(v, have, col, rows)
}

func (c *Codec) bytes(cc *codecColumn, r []byte) []byte {
	begin := uint32(0)
	if cc.prev >= 0 {
		begin = binary.LittleEndian.Uint32(r[cc.prev:])
	}
	end := binary.LittleEndian.Uint32(r[cc.at:])
	return r[c.fixed+int(begin) : c.fixed+int(end)]
}

func (c *Codec) decodeNulls(v *Vector, have, col int, rows [][]byte) {
	if !c.types[col].NotNull {
		bit := byte(1) << (col & 7)
		for k, r := range rows {
			if r[col>>3]&bit != 0 {
				i := have + k
				for len(v.Nulls) <= i>>6 {
					v.Nulls = append(v.Nulls, 0)
				}
				v.Nulls[i>>6] |= 1 << (i & 63)
			}
		}
	}
	v.Seal(have + len(rows))
}

// IsNull tells whether column col of the binary row is NULL.
func (c *Codec) IsNull(r []byte, col int) bool { return r[col>>3]&(1<<(col&7)) != 0 }

// Check tells whether bytes that came from outside are a binary row of this codec.
func (c *Codec) Check(r []byte) error {
	if len(r) < c.fixed {
		return fmt.Errorf("binary row of %d bytes, its fixed part takes %d", len(r), c.fixed)
	}
	end := uint32(0)
	for k := range c.cols {
		if cc := &c.cols[k]; cc.layout == LayoutBytes {
			e := binary.LittleEndian.Uint32(r[cc.at:])
			if e < end || int(e) > len(r)-c.fixed {
				return fmt.Errorf("binary row: column %d ends at %d of %d", k, e, len(r)-c.fixed)
			}
			end = e
		}
	}
	if int(end) != len(r)-c.fixed {
		return fmt.Errorf("binary row: %d bytes behind the last value", len(r)-c.fixed-int(end))
	}
	return nil
}
