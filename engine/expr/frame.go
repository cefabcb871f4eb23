package expr

import (
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/invariants"
)

// kernel is the loop of a function: it fills f.out for the rows of f.
type kernel func(f *frame)

// maxValue is how many bytes a text made by a function may have.
const maxValue = 16 << 20

// maxHeap is how many bytes all values of a register may have: spans have 32 bits.
const maxHeap = 1 << 31

// frame is a call at work: what a kernel sees. Values under a NULL are zero, and what is written there is made zero
// afterwards. Rows that are not asked for must not be looked at in a vector of the bytes layout.
type frame struct {
	*machine
	out  *row.Vector
	in   []*row.Vector
	sel  []int32 // the rows asked for, nil: all n
	n    int
	e    Expr   // for messages
	heap []byte // what out's spans are in, unless out.Heap was set to another
	// shared tells that out.Heap was set by the kernel.
	shared bool
}

// call is the step that runs a kernel.
type call struct {
	ctx    int
	args   []operand
	to     int
	layout row.Layout
	strict bool
	kernel kernel
	frame  frame
}

func (c *call) run(m *machine) {
	sel := m.sel[c.ctx]
	if !sel.all && len(sel.list) == 0 {
		return
	}
	f := &c.frame
	f.machine, f.n, f.sel = m, m.n, sel.list
	if sel.all {
		f.sel = nil
	}
	for i, a := range c.args {
		f.in[i] = m.vector(a)
	}
	r := m.regs[c.to]
	f.out = &r.Vector
	r.size(c.layout, m.n)
	if c.strict {
		f.orNulls()
	}
	f.heap, f.shared = r.own[:0], false
	c.kernel(f)
	if c.layout == row.LayoutBytes {
		r.own = f.heap
		if !f.shared {
			f.out.Heap = f.heap
		}
	}
	if len(f.out.Nulls) > 0 {
		f.zeroNulls(c.layout)
	}
	if cap(f.heap) > spareHeap && len(f.heap) < cap(f.heap)/4 {
		r.own = nil // one large batch is no reason to hold its memory for ever
	}
	if invariants.Enabled {
		f.check(c.layout)
	}
}

// spareHeap is how many bytes a register keeps although it does not use a quarter of them.
const spareHeap = 16 << 20

// check proves what kernels promise: values lie inside of their heap, BOOLEAN is 0 or 1, and under a NULL lies zero.
func (f *frame) check(l row.Layout) {
	t := f.e.Type()
	one := func(i int) {
		null := f.out.Nulls.Is(i)
		switch l {
		case row.LayoutInt64:
			x := f.out.Int64[i]
			if null && x != 0 {
				invariants.Check(false, "%s: %d under a NULL", f.e, x)
			}
			if t.Kind == row.Boolean && uint64(x) > 1 {
				invariants.Check(false, "%s: BOOLEAN %d", f.e, x)
			}
			if low, high := rangeOf(t); t.Kind.Integer() && (x < low || x > high) {
				invariants.Check(false, "%s: %d is no %s", f.e, x, t)
			}
			if temporal(t) && t.Kind != row.Date && digitsTooMany(t, x) {
				invariants.Check(false, "%s: %d has more digits than %s", f.e, x, t)
			}
		case row.LayoutBytes:
			s := f.out.Spans[i]
			if null && s != (row.Span{}) {
				invariants.Check(false, "%s: %v under a NULL", f.e, s)
			}
			if uint64(s.Off)+uint64(s.Len) > uint64(len(f.out.Heap)) {
				invariants.Check(false, "%s: value %v in %d bytes", f.e, s, len(f.out.Heap))
			}
		case row.LayoutFloat64:
			if x := f.out.Float64[i]; t.Kind == row.Float && x == x && x != float64(float32(x)) {
				invariants.Check(false, "%s: %v is no FLOAT", f.e, x)
			}
		case row.LayoutDecimal:
			d := f.out.Decimal[i]
			if !d.Fits(t.Precision) {
				invariants.Check(false, "%s: %s does not fit %s", f.e, d.Big(), t)
			}
		}
	}
	if f.sel == nil {
		for i := range f.n {
			one(i)
		}
		return
	}
	for _, i := range f.sel {
		one(int(i))
	}
}

// size makes room for n values.
func (r *register) size(l row.Layout, n int) {
	r.Nulls = r.Nulls[:0]
	switch l {
	case row.LayoutInt64:
		r.Int64 = resized(r.Int64, n)
	case row.LayoutFloat64:
		r.Float64 = resized(r.Float64, n)
	case row.LayoutDecimal:
		r.Decimal = resized(r.Decimal, n)
	case row.LayoutBytes:
		r.Spans = resized(r.Spans, n)
	}
}

func resized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, max(n, 2*cap(s), 16))
	}
	return s[:n]
}

// orNulls makes the result NULL where an argument is.
func (f *frame) orNulls() {
	for _, v := range f.in {
		if len(v.Nulls) == 0 {
			continue
		}
		words := (f.n + 63) >> 6
		if len(f.out.Nulls) == 0 {
			f.out.Nulls = append(f.out.Nulls[:0], v.Nulls[:words]...)
			continue
		}
		for w, x := range v.Nulls[:words] {
			f.out.Nulls[w] |= x
		}
	}
}

// zeroNulls puts zero under each NULL.
func (f *frame) zeroNulls(l row.Layout) {
	for w, word := range f.out.Nulls {
		if word == 0 {
			continue
		}
		for i := w << 6; word != 0 && i < f.n; i, word = i+1, word>>1 {
			if word&1 == 0 {
				continue
			}
			switch l {
			case row.LayoutInt64:
				f.out.Int64[i] = 0
			case row.LayoutFloat64:
				f.out.Float64[i] = 0
			case row.LayoutDecimal:
				f.out.Decimal[i] = row.Int128{}
			case row.LayoutBytes:
				f.out.Spans[i] = row.Span{}
			}
		}
	}
}

// digitsTooMany tells a time with digits behind the point that its type does not have.
func digitsTooMany(t row.Type, x int64) bool {
	units := 6
	if t.Kind == row.Time || t.Precision > 6 {
		units = 9
	}
	return x%int64(row.Pow10(max(units-t.Precision, 0)).Lo) != 0
}

// null makes row i NULL.
func (f *frame) null(i int) { f.out.SetNull(i, f.n) }

// fail says that row i cannot be computed. A row that is NULL anyway did not fail: its values are zeros that nobody meant.
func (f *frame) fail(i int, code errs.Code, why string) {
	if f.out.Nulls.Is(i) {
		return
	}
	f.machine.fault(i, code, f.e.String()+": "+why)
	f.null(i)
}

func (f *frame) overflow(i int) {
	f.fail(i, errs.EvalRange, "the result is out of range of "+f.e.Type().Nullable().String())
}

// each calls do for the rows asked for that are not NULL so far. It is for functions whose own work outweighs a call.
func (f *frame) each(do func(i int)) {
	nulls := f.out.Nulls
	if f.sel == nil {
		for i := range f.n {
			if !nulls.Is(i) {
				do(i)
			}
		}
		return
	}
	for _, i := range f.sel {
		if !nulls.Is(int(i)) {
			do(int(i))
		}
	}
}

// put ends the value of row i, which was appended to f.heap from off on.
func (f *frame) put(i, off int) {
	n := len(f.heap) - off
	if n > maxValue || len(f.heap) > maxHeap {
		f.heap = f.heap[:off]
		f.fail(i, errs.EvalArgument, "the result is larger than 16 MiB")
		n = 0
	}
	f.out.Spans[i] = row.Span{Off: uint32(off), Len: uint32(n)}
}

// share lets the result's spans point into the heap of argument k.
func (f *frame) share(k int) {
	f.out.Heap, f.shared = f.in[k].Heap, true
}
