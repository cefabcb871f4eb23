package row

// Span is a value of the bytes layout: Heap[Off:Off+Len] of its vector. Spans may overlap and need not be in order, so a
// substring or a constant costs no copy.
type Span struct{ Off, Len uint32 }

// Nulls is a bitmap with a bit set for each NULL. Empty means that there is none; otherwise it covers the vector.
type Nulls []uint64

// Is tells whether value i is NULL.
func (n Nulls) Is(i int) bool { return len(n) != 0 && n[i>>6]&(1<<(i&63)) != 0 }

// Vector is a column of a batch. One of the four slices is in use, by the layout of the column's type; it is as long as
// the batch. A value under a NULL bit is zero or an empty span. Values of rows that a selection leaves out are
// undefined.
type Vector struct {
	Int64   []int64
	Float64 []float64
	Decimal []Int128
	Spans   []Span
	Heap    []byte
	Nulls   Nulls
}

// Bytes is value i of a vector of the bytes layout. It is lent: valid as long as the vector is.
func (v *Vector) Bytes(i int) []byte {
	s := v.Spans[i]
	return v.Heap[s.Off : s.Off+s.Len : s.Off+s.Len]
}

// SetNull marks value i as NULL in a vector that holds n values.
func (v *Vector) SetNull(i, n int) {
	if len(v.Nulls) == 0 {
		v.Nulls = resize(v.Nulls, (n+63)>>6)
		clear(v.Nulls)
	}
	v.Nulls[i>>6] |= 1 << (i & 63)
}

// NoNulls says that every value is there.
func (v *Vector) NoNulls() { v.Nulls = v.Nulls[:0] }

// Reset makes room for n values of the layout and forgets NULLs and heap. What the slice holds is undefined.
func (v *Vector) Reset(l Layout, n int) {
	v.Nulls, v.Heap = v.Nulls[:0], v.Heap[:0]
	switch l {
	case LayoutInt64:
		v.Int64 = resize(v.Int64, n)
	case LayoutFloat64:
		v.Float64 = resize(v.Float64, n)
	case LayoutDecimal:
		v.Decimal = resize(v.Decimal, n)
	case LayoutBytes:
		v.Spans = resize(v.Spans, n)
	}
}

// Truncate is Reset to no values, for a vector that is appended to.
func (v *Vector) Truncate() {
	v.Int64, v.Float64, v.Decimal, v.Spans = v.Int64[:0], v.Float64[:0], v.Decimal[:0], v.Spans[:0]
	v.Nulls, v.Heap = v.Nulls[:0], v.Heap[:0]
}

// resize makes s of length n. What it holds is undefined.
func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, max(n, 2*cap(s), 16))
	}
	return s[:n]
}

// AppendBytes adds a value of the bytes layout.
func (v *Vector) AppendBytes(b []byte) {
	v.Spans = append(v.Spans, Span{uint32(len(v.Heap)), uint32(len(b))})
	v.Heap = append(v.Heap, b...)
}

// AppendString is AppendBytes of a string.
func (v *Vector) AppendString(s string) {
	v.Spans = append(v.Spans, Span{uint32(len(v.Heap)), uint32(len(s))})
	v.Heap = append(v.Heap, s...)
}

// AppendNull adds a NULL. Appended to is the layout l.
func (v *Vector) AppendNull(l Layout) {
	n := v.appendZero(l)
	for len(v.Nulls) < (n+63)>>6 {
		v.Nulls = append(v.Nulls, 0)
	}
	v.Nulls[(n-1)>>6] |= 1 << ((n - 1) & 63)
}

func (v *Vector) appendZero(l Layout) int {
	switch l {
	case LayoutFloat64:
		v.Float64 = append(v.Float64, 0)
		return len(v.Float64)
	case LayoutDecimal:
		v.Decimal = append(v.Decimal, Int128{})
		return len(v.Decimal)
	case LayoutBytes:
		v.Spans = append(v.Spans, Span{})
		return len(v.Spans)
	default:
		v.Int64 = append(v.Int64, 0)
		return len(v.Int64)
	}
}

// Seal makes the NULL bitmap of a vector that was appended to cover its n values.
func (v *Vector) Seal(n int) {
	if len(v.Nulls) == 0 {
		return
	}
	for len(v.Nulls) < (n+63)>>6 {
		v.Nulls = append(v.Nulls, 0)
	}
}

// Gather appends the values sel of from, or all n of them if sel is nil. Have is how many values v holds.
func (v *Vector) Gather(l Layout, have int, from *Vector, sel []int32, n int) {
	if sel != nil {
		n = len(sel)
	}
	switch l {
	case LayoutInt64:
		v.Int64 = gather(v.Int64, from.Int64, sel, n)
	case LayoutFloat64:
		v.Float64 = gather(v.Float64, from.Float64, sel, n)
	case LayoutDecimal:
		v.Decimal = gather(v.Decimal, from.Decimal, sel, n)
	case LayoutBytes:
		v.gatherBytes(from, sel, n)
	}
	if len(from.Nulls) == 0 {
		v.Seal(have + n)
		return
	}
	for len(v.Nulls) < (have+n+63)>>6 {
		v.Nulls = append(v.Nulls, 0)
	}
	for k := range n {
		i := k
		if sel != nil {
			i = int(sel[k])
		}
		if from.Nulls.Is(i) {
			v.Nulls[(have+k)>>6] |= 1 << ((have + k) & 63)
		}
	}
}

func gather[T any](to, from []T, sel []int32, n int) []T {
	if sel == nil {
		return append(to, from[:n]...)
	}
	for _, i := range sel {
		to = append(to, from[i])
	}
	return to
}

func (v *Vector) gatherBytes(from *Vector, sel []int32, n int) {
	if sel == nil {
		for _, s := range from.Spans[:n] {
			v.Spans = append(v.Spans, Span{uint32(len(v.Heap)), s.Len})
			v.Heap = append(v.Heap, from.Heap[s.Off:s.Off+s.Len]...)
		}
		return
	}
	for _, i := range sel {
		s := from.Spans[i]
		v.Spans = append(v.Spans, Span{uint32(len(v.Heap)), s.Len})
		v.Heap = append(v.Heap, from.Heap[s.Off:s.Off+s.Len]...)
	}
}
