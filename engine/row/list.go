package row

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// A list is the values of an ARRAY, or the keys or the values of a MAP:
//
//	count: 4 bytes, little endian like everything here
//	NULL bits, one for each element, rounded up to bytes
//	fixed part: each element in as many bytes as in a binary row; for the bytes layout the 4-byte end of its value in the
//	            variable part
//	variable part
//
// As with rows, equal lists have equal bytes. A map is the length of its list of keys in 4 bytes, that list, and the list
// of its values. Its entries keep the order in which they came; no key comes twice.

// AppendList appends the list of the values sel of v, or of the first n if sel is nil.
func AppendList(dst []byte, elem Type, v *Vector, sel []int32, n int) []byte {
	if sel != nil {
		n = len(sel)
	}
	layout, width := elem.Layout(), fixedWidth(elem)
	start := len(dst)
	bits := start + 4
	fixed := bits + (n+7)/8
	dst = extend(dst, 4+(n+7)/8+n*width)
	vars := len(dst)
	binary.LittleEndian.PutUint32(dst[start:], uint32(n))
	for k := range n {
		i := k
		if sel != nil {
			i = int(sel[k])
		}
		at := fixed + k*width
		if v.Nulls.Is(i) {
			dst[bits+k>>3] |= 1 << (k & 7)
			if layout == LayoutBytes {
				binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-vars))
			}
			continue
		}
		switch layout {
		case LayoutInt64:
			putInt(dst[at:], v.Int64[i], width)
		case LayoutFloat64:
			if width == 4 {
				binary.LittleEndian.PutUint32(dst[at:], math.Float32bits(float32(v.Float64[i])))
			} else {
				binary.LittleEndian.PutUint64(dst[at:], math.Float64bits(v.Float64[i]))
			}
		case LayoutDecimal:
			d := v.Decimal[i]
			binary.LittleEndian.PutUint64(dst[at:], d.Lo)
			if width == 16 {
				binary.LittleEndian.PutUint64(dst[at+8:], uint64(d.Hi))
			}
		case LayoutBytes:
			dst = append(dst, v.Bytes(i)...)
			binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-vars))
		}
	}
	return dst
}

// AppendMap appends the map of a list of keys and one of values, of equal length.
func AppendMap(dst, keys, values []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(keys)))
	dst = append(dst, keys...)
	return append(dst, values...)
}

// SplitMap gives the list of a map's keys and that of its values.
func SplitMap(b []byte) (keys, values []byte) {
	n := binary.LittleEndian.Uint32(b)
	return b[4 : 4+n], b[4+n:]
}

// MapTypes are the types of the keys and the values of a Map or Multiset.
func MapTypes(t Type) (key, value Type) { return t.entry() }

// List reads a list in place.
type List struct {
	layout Layout
	width  int
	n      int
	bits   []byte
	fixed  []byte
	vars   []byte
}

// ReadList opens a list of elem.
func ReadList(elem Type, b []byte) List {
	l := List{layout: elem.Layout(), width: fixedWidth(elem), n: int(binary.LittleEndian.Uint32(b))}
	fixed := 4 + (l.n+7)/8
	vars := fixed + l.n*l.width
	l.bits, l.fixed, l.vars = b[4:fixed], b[fixed:vars], b[vars:]
	return l
}

// ListLen is how many elements a list has.
func ListLen(b []byte) int { return int(binary.LittleEndian.Uint32(b)) }

// Len is how many elements there are.
func (l *List) Len() int { return l.n }

// IsNull tells whether element i is NULL.
func (l *List) IsNull(i int) bool { return l.bits[i>>3]&(1<<(i&7)) != 0 }

// Int64 is element i of the Int64 layout.
func (l *List) Int64(i int) int64 {
	b := l.fixed[i*l.width:]
	switch l.width {
	case 8:
		return int64(binary.LittleEndian.Uint64(b))
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(b)))
	case 2:
		return int64(int16(binary.LittleEndian.Uint16(b)))
	}
	return int64(int8(b[0]))
}

// Float64 is element i of the Float64 layout.
func (l *List) Float64(i int) float64 {
	if l.width == 4 {
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(l.fixed[i*4:])))
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(l.fixed[i*8:]))
}

// Decimal is element i of the Decimal layout.
func (l *List) Decimal(i int) Int128 {
	b := l.fixed[i*l.width:]
	if l.width == 8 {
		return Int128From(int64(binary.LittleEndian.Uint64(b)))
	}
	return Int128{int64(binary.LittleEndian.Uint64(b[8:])), binary.LittleEndian.Uint64(b)}
}

// Bytes is element i of the bytes layout, lent.
func (l *List) Bytes(i int) []byte {
	begin := uint32(0)
	if i > 0 {
		begin = binary.LittleEndian.Uint32(l.fixed[i*4-4:])
	}
	return l.vars[begin:binary.LittleEndian.Uint32(l.fixed[i*4:])]
}

// AppendTo appends element i to v, which holds values of the list's type.
func (l *List) AppendTo(v *Vector, i int) {
	if l.IsNull(i) {
		v.AppendNull(l.layout)
		return
	}
	switch l.layout {
	case LayoutInt64:
		v.Int64 = append(v.Int64, l.Int64(i))
	case LayoutFloat64:
		v.Float64 = append(v.Float64, l.Float64(i))
	case LayoutDecimal:
		v.Decimal = append(v.Decimal, l.Decimal(i))
	case LayoutBytes:
		v.AppendBytes(l.Bytes(i))
	}
}

// appendText is for printing: one element at a time through a vector of its own.
func (l *List) appendText(dst []byte, elem Type, i int, zone *time.Location) []byte {
	if l.IsNull(i) {
		return append(dst, "NULL"...)
	}
	switch l.layout {
	case LayoutInt64:
		return appendIntText(dst, elem, l.Int64(i), zone)
	case LayoutFloat64:
		return AppendFloat(dst, l.Float64(i), floatBits(elem))
	case LayoutDecimal:
		return AppendDecimal(dst, l.Decimal(i), elem.Scale)
	}
	return appendBytesText(dst, elem, l.Bytes(i), zone)
}

// CheckList tells whether bytes that came from outside are a list of elem.
func CheckList(elem Type, b []byte) error {
	if len(b) < 4 {
		return fmt.Errorf("list of %d bytes", len(b))
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	head := 4 + (n+7)/8 + n*uint64(fixedWidth(elem))
	if head > uint64(len(b)) {
		return fmt.Errorf("list of %d elements in %d bytes", n, len(b))
	}
	vars := b[head:]
	end := uint32(0)
	if elem.Layout() == LayoutBytes {
		l := ReadList(elem, b)
		for i := range int(n) {
			e := binary.LittleEndian.Uint32(l.fixed[i*4:])
			if e < end || uint64(e) > uint64(len(vars)) {
				return fmt.Errorf("list: element %d ends at %d of %d", i, e, len(vars))
			}
			if !l.IsNull(i) {
				if err := checkNested(elem, vars[end:e]); err != nil {
					return err
				}
			}
			end = e
		}
	}
	if int(end) != len(vars) {
		return fmt.Errorf("list: %d bytes behind the last element", len(vars)-int(end))
	}
	return nil
}

// CheckMap tells whether bytes that came from outside are a map of type t.
func CheckMap(t Type, b []byte) error {
	key, value := t.entry()
	if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
		return fmt.Errorf("map of %d bytes", len(b))
	}
	keys, values := SplitMap(b)
	if err := CheckList(key, keys); err != nil {
		return err
	}
	if err := CheckList(value, values); err != nil {
		return err
	}
	if ListLen(keys) != ListLen(values) {
		return fmt.Errorf("map of %d keys and %d values", ListLen(keys), ListLen(values))
	}
	return nil
}

func checkNested(t Type, b []byte) error {
	switch t.Kind {
	case Array:
		return CheckList(*t.Elem, b)
	case Map, Multiset:
		return CheckMap(t, b)
	case Struct:
		return NewCodec(Schema(t.Fields).Types()).Check(b)
	case UUID:
		if len(b) != 16 {
			return fmt.Errorf("UUID of %d bytes", len(b))
		}
	}
	return nil
}
