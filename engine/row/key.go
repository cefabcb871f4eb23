package row

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"

	"github.com/zeebo/xxh3"
)

// KeyColumn is a column of a key.
type KeyColumn struct {
	Type Type
	Desc bool
	// NullsLast puts NULLs behind all values, whatever Desc says; otherwise they come first.
	NullsLast bool
}

// KeyCodec turns the values of key columns into key bytes: equal keys have equal bytes, and bytes.Compare orders them as
// the columns say. NaN is the largest float and equal to itself, -0 is 0.
//
// A single column of the Int64 layout without NULLs has a path of its own: its key is the number (IntKey).
type KeyCodec struct {
	cols   []KeyColumn
	intKey bool
	flags  bool // a byte before each value that tells NULL
}

// NewKeyCodec returns the codec for keys of the columns. With dropNulls no key with a NULL is ever given to it, so that
// a nullable and a required column have the same bytes: what the two sides of a join need.
func NewKeyCodec(cols []KeyColumn, dropNulls bool) *KeyCodec {
	k := &KeyCodec{cols: cols}
	for _, c := range cols {
		if !c.Type.NotNull && !dropNulls {
			k.flags = true
		}
	}
	k.intKey = len(cols) == 1 && cols[0].Type.Layout() == LayoutInt64 && !k.flags && !cols[0].Desc
	return k
}

// GroupKey is the codec for equality alone.
func GroupKey(types []Type) *KeyCodec {
	cols := make([]KeyColumn, len(types))
	for i, t := range types {
		cols[i].Type = t
	}
	return NewKeyCodec(cols, false)
}

// JoinKey is the codec for equality of keys without NULLs.
func JoinKey(types []Type) *KeyCodec {
	cols := make([]KeyColumn, len(types))
	for i, t := range types {
		cols[i].Type = t
	}
	return NewKeyCodec(cols, true)
}

// IntKey tells whether keys are single numbers.
func (k *KeyCodec) IntKey() bool { return k.intKey }

// Columns are the key's columns.
func (k *KeyCodec) Columns() []KeyColumn { return k.cols }

// Keys are the keys of a batch's rows, at the rows' places: entries of rows that a selection leaves out are undefined.
type Keys struct {
	Hash  []uint64
	Int   []int64 // of an IntKey: the column itself
	Spans []Span  // otherwise: the key bytes in Heap
	Heap  []byte
}

// Bytes is the key of row i, not for an IntKey.
func (k *Keys) Bytes(i int) []byte {
	s := k.Spans[i]
	return k.Heap[s.Off : s.Off+s.Len : s.Off+s.Len]
}

// HashInt is the hash of an IntKey. It is the same in every process and release: it places state.
func HashInt(v int64) uint64 {
	hi, lo := bits.Mul64(uint64(v)^0x9E3779B97F4A7C15, 0xA0761D6478BD642F)
	return hi ^ lo
}

// HashBytes is the hash of key bytes, the same in every process and release.
func HashBytes(b []byte) uint64 { return xxh3.Hash(b) }

// Hash sets keys to those of b's rows, whose key columns are cols in the key's order.
func (k *KeyCodec) Hash(keys *Keys, b *Batch, cols []int) {
	keys.Hash = resize(keys.Hash, b.Len)
	if k.intKey {
		v := b.Cols[cols[0]].Int64
		keys.Int = v
		if b.Sel == nil {
			for i, x := range v[:b.Len] {
				keys.Hash[i] = HashInt(x)
			}
			return
		}
		for _, i := range b.Sel {
			keys.Hash[i] = HashInt(v[i])
		}
		return
	}
	keys.Spans, keys.Heap = resize(keys.Spans, b.Len), keys.Heap[:0]
	if b.Sel == nil {
		for i := range b.Len {
			k.hashRow(keys, b, cols, i)
		}
		return
	}
	for _, i := range b.Sel {
		k.hashRow(keys, b, cols, int(i))
	}
}

func (k *KeyCodec) hashRow(keys *Keys, b *Batch, cols []int, i int) {
	off := len(keys.Heap)
	keys.Heap = k.Append(keys.Heap, b, cols, i)
	keys.Spans[i] = Span{uint32(off), uint32(len(keys.Heap) - off)}
	keys.Hash[i] = xxh3.Hash(keys.Heap[off:])
}

// Append appends the key bytes of row i of b, also for an IntKey.
func (k *KeyCodec) Append(dst []byte, b *Batch, cols []int, i int) []byte {
	for c := range k.cols {
		col := &k.cols[c]
		start := len(dst)
		dst = k.appendColumn(dst, col, b.Cols[cols[c]], i)
		if col.Desc {
			for j := start; j < len(dst); j++ {
				dst[j] = ^dst[j]
			}
		}
	}
	return dst
}

func (k *KeyCodec) appendColumn(dst []byte, col *KeyColumn, v *Vector, i int) []byte {
	if k.flags {
		null, value := byte(0), byte(1)
		if col.NullsLast != col.Desc {
			null = 2
		}
		if v.Nulls.Is(i) {
			return append(dst, null)
		}
		dst = append(dst, value)
	}
	switch col.Type.Layout() {
	case LayoutInt64:
		return AppendIntKey(dst, v.Int64[i], fixedWidth(col.Type))
	case LayoutFloat64:
		return binary.BigEndian.AppendUint64(dst, floatKey(v.Float64[i]))
	case LayoutDecimal:
		d := v.Decimal[i]
		if col.Type.Precision > 18 {
			dst = binary.BigEndian.AppendUint64(dst, uint64(d.Hi)^1<<63)
			return binary.BigEndian.AppendUint64(dst, d.Lo)
		}
		return binary.BigEndian.AppendUint64(dst, d.Lo^1<<63)
	}
	switch col.Type.Kind {
	case UUID:
		return append(dst, v.Bytes(i)...)
	case Numeric:
		return appendNumericKey(dst, v.Bytes(i))
	}
	return appendBytesKey(dst, v.Bytes(i))
}

// AppendIntKey appends a number so that bytes order as numbers do, in width bytes.
func AppendIntKey(dst []byte, v int64, width int) []byte {
	switch width {
	case 8:
		return binary.BigEndian.AppendUint64(dst, uint64(v)^1<<63)
	case 4:
		return binary.BigEndian.AppendUint32(dst, uint32(v)^1<<31)
	case 2:
		return binary.BigEndian.AppendUint16(dst, uint16(v)^1<<15)
	}
	return append(dst, byte(v)^1<<7)
}

// IntKeyFront is the bytes that AppendIntKey appends as the front of a number, zeros behind them.
func IntKeyFront(v int64, width int) uint64 {
	bits := 8 * width
	return (uint64(v) ^ 1<<(bits-1)) << (64 - bits)
}

// IntKeyWidth is the width of an IntKey's bytes.
func (k *KeyCodec) IntKeyWidth() int { return fixedWidth(k.cols[0].Type) }

func floatKey(f float64) uint64 {
	switch {
	case f != f:
		return math.MaxUint64
	case f == 0:
		f = 0
	}
	u := math.Float64bits(f)
	if u>>63 != 0 {
		return ^u
	}
	return u | 1<<63
}

func floatFromKey(u uint64) float64 {
	if u == math.MaxUint64 {
		return math.NaN()
	}
	if u>>63 != 0 {
		return math.Float64frombits(u &^ (1 << 63))
	}
	return math.Float64frombits(^u)
}

// A zero byte inside is 00 FF, the end is 00 01: a prefix comes before what it is a prefix of.
func appendBytesKey(dst, b []byte) []byte {
	if bytes.IndexByte(b, 0) < 0 {
		return append(append(dst, b...), 0, 1)
	}
	for _, c := range b {
		if c == 0 {
			dst = append(dst, 0, 0xFF)
		} else {
			dst = append(dst, c)
		}
	}
	return append(dst, 0, 1)
}

// Decode appends the columns of each key to out, which holds have values, and is how an operator gets its key columns
// back from its state.
func (k *KeyCodec) Decode(out []*Vector, have int, keys [][]byte) error {
	var scratch []byte
	for n, key := range keys {
		rest := key
		for c := range k.cols {
			var err error
			if rest, scratch, err = k.decodeColumn(out[c], &k.cols[c], rest, scratch); err != nil {
				return fmt.Errorf("key %x, column %d: %w", key, c, err)
			}
		}
		if len(rest) != 0 {
			return fmt.Errorf("key %x: %d bytes too many", keys[n], len(rest))
		}
	}
	for c := range k.cols {
		out[c].Seal(have + len(keys))
	}
	return nil
}

// decodeColumn takes one column off the front of b. scratch is for turning descending columns round.
func (k *KeyCodec) decodeColumn(v *Vector, col *KeyColumn, b, scratch []byte) (rest, sc []byte, err error) {
	if col.Desc {
		// The end of the column is not known yet: the whole rest is turned round, and so is what is left, afterwards.
		scratch = append(scratch[:0], b...)
		for j := range scratch {
			scratch[j] = ^scratch[j]
		}
		left, err := k.decodeAscending(v, col, scratch)
		if err != nil {
			return nil, scratch, err
		}
		return b[len(b)-len(left):], scratch, nil
	}
	rest, err = k.decodeAscending(v, col, b)
	return rest, scratch, err
}

var errShort = errors.New("too short for its column")

func (k *KeyCodec) decodeAscending(v *Vector, col *KeyColumn, b []byte) ([]byte, error) {
	if k.flags {
		if len(b) == 0 {
			return nil, errShort
		}
		if b[0] != 1 {
			v.AppendNull(col.Type.Layout())
			return b[1:], nil
		}
		b = b[1:]
	}
	width := fixedWidth(col.Type)
	switch col.Type.Layout() {
	case LayoutInt64:
		if len(b) < width {
			return nil, errShort
		}
		v.Int64 = append(v.Int64, IntFromKey(b, width))
		return b[width:], nil
	case LayoutFloat64:
		if len(b) < 8 {
			return nil, errShort
		}
		v.Float64 = append(v.Float64, floatFromKey(binary.BigEndian.Uint64(b)))
		return b[8:], nil
	case LayoutDecimal:
		if len(b) < width {
			return nil, errShort
		}
		if width == 8 {
			v.Decimal = append(v.Decimal, Int128From(int64(binary.BigEndian.Uint64(b)^1<<63)))
		} else {
			v.Decimal = append(v.Decimal, Int128{int64(binary.BigEndian.Uint64(b) ^ 1<<63), binary.BigEndian.Uint64(b[8:])})
		}
		return b[width:], nil
	}
	off := len(v.Heap)
	switch col.Type.Kind {
	case UUID:
		if len(b) < 16 {
			return nil, errShort
		}
		v.AppendBytes(b[:16])
		return b[16:], nil
	case Numeric:
		heap, rest, ok := decodeNumericKey(v.Heap, b)
		if !ok {
			return nil, errShort
		}
		v.Heap = heap
		v.Spans = append(v.Spans, Span{uint32(off), uint32(len(heap) - off)})
		return rest, nil
	}
	for i := 0; i+1 < len(b); i++ {
		if b[i] != 0 {
			v.Heap = append(v.Heap, b[i])
			continue
		}
		if b[i+1] == 1 {
			v.Spans = append(v.Spans, Span{uint32(off), uint32(len(v.Heap) - off)})
			return b[i+2:], nil
		}
		v.Heap = append(v.Heap, 0)
		i++
	}
	return nil, errShort
}

// IntFromKey is the number that AppendIntKey wrote.
func IntFromKey(b []byte, width int) int64 {
	switch width {
	case 8:
		return int64(binary.BigEndian.Uint64(b) ^ 1<<63)
	case 4:
		return int64(int32(binary.BigEndian.Uint32(b) ^ 1<<31))
	case 2:
		return int64(int16(binary.BigEndian.Uint16(b) ^ 1<<15))
	}
	return int64(int8(b[0] ^ 1<<7))
}
