package expr

import (
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// The forms in this file compute some of their parts for some rows only: so CASE WHEN y <> 0 THEN x / y END never divides
// by zero.

// branch is a value and the context in which it was computed.
type branch struct {
	ctx   int
	value operand
}

func (c *compiler) emitCase(e *Case, ctx int) (operand, error) {
	m := &merge{ctx: ctx, layout: e.T.Layout()}
	rest := ctx
	constants := true
	add := func(e Expr, ctx int) error {
		v, err := c.compile(e, ctx)
		if err != nil {
			return err
		}
		_, constant := e.(*Const)
		constants = constants && constant
		m.branches = append(m.branches, branch{ctx, v})
		return nil
	}
	for _, w := range e.Whens {
		cond, err := c.compile(w.Cond, rest)
		if err != nil {
			return cond, err
		}
		sp := &split{from: rest, cond: cond, yes: c.narrower(rest), no: c.narrower(rest)}
		c.steps = append(c.steps, sp)
		if err := add(w.Then, sp.yes); err != nil {
			return operand{}, err
		}
		rest = sp.no
	}
	if err := add(e.Else, rest); err != nil {
		return operand{}, err
	}
	m.to = c.register()
	if constants && m.layout == row.LayoutBytes {
		m.constants(e)
	}
	c.steps = append(c.steps, m)
	return operand{index: m.to}, nil
}

// split parts a selection by a condition.
type split struct {
	from, yes, no int
	cond          operand
}

func (s *split) run(m *machine) {
	from, v := m.sel[s.from], m.vector(s.cond)
	yes, no := &m.sel[s.yes], &m.sel[s.no]
	yes.all, no.all = false, false
	if !from.all && len(from.list) == 0 {
		yes.list, no.list = yes.list[:0], no.list[:0]
		return
	}
	n := m.n
	if !from.all {
		n = len(from.list)
	}
	yes.list, no.list = resized(yes.list, n), resized(no.list, n)
	y, o := 0, 0
	if from.all {
		for i, x := range v.Int64[:n] {
			yes.list[y], no.list[o] = int32(i), int32(i)
			y += int(x & 1)
			o += int(x&1 ^ 1)
		}
	} else {
		for _, i := range from.list {
			x := v.Int64[i] & 1
			yes.list[y], no.list[o] = i, i
			y += int(x)
			o += int(x ^ 1)
		}
	}
	yes.list, no.list = yes.list[:y], no.list[:o]
}

// merge puts the values of branches into one vector.
type merge struct {
	ctx      int
	layout   row.Layout
	to       int
	branches []branch
	heap     []byte     // of branches that are all constants: their values, one behind the other
	spans    []row.Span // and where each is
	null     []bool
}

func (s *merge) constants(e *Case) {
	s.heap = []byte{}
	for _, b := range branchesOf(e) {
		c := b.(*Const)
		off := len(s.heap)
		s.heap = append(s.heap, c.Text()...)
		s.spans = append(s.spans, row.Span{Off: uint32(off), Len: uint32(len(s.heap) - off)})
		s.null = append(s.null, c.IsNull())
	}
}

func branchesOf(e *Case) []Expr {
	var vs []Expr
	for _, w := range e.Whens {
		vs = append(vs, w.Then)
	}
	return append(vs, e.Else)
}

func (s *merge) run(m *machine) {
	if sel := m.sel[s.ctx]; !sel.all && len(sel.list) == 0 {
		return
	}
	r := m.regs[s.to]
	r.size(s.layout, m.n)
	if s.heap != nil {
		r.Heap = s.heap
		for k, b := range s.branches {
			span, null := s.spans[k], s.null[k]
			for _, i := range m.sel[b.ctx].list {
				r.Spans[i] = span
				if null {
					r.SetNull(int(i), m.n)
				}
			}
		}
		return
	}
	r.own = r.own[:0]
	for _, b := range s.branches {
		if sel := m.sel[b.ctx]; sel.all || len(sel.list) > 0 {
			m.move(s.layout, r, m.vector(b.value), sel)
		}
	}
	r.Heap = r.own
}

// move copies the values of the rows of sel. Bytes go behind r.own.
func (m *machine) move(l row.Layout, r *register, from *row.Vector, sel rows) {
	switch l {
	case row.LayoutInt64:
		moveValues(r.Int64, from.Int64, sel, m.n)
	case row.LayoutFloat64:
		moveValues(r.Float64, from.Float64, sel, m.n)
	case row.LayoutDecimal:
		moveValues(r.Decimal, from.Decimal, sel, m.n)
	case row.LayoutBytes:
		if sel.all {
			for i := range m.n {
				m.moveBytes(r, from, i)
			}
		} else {
			for _, i := range sel.list {
				m.moveBytes(r, from, int(i))
			}
		}
	}
	if len(from.Nulls) == 0 {
		return
	}
	if sel.all {
		r.Nulls = append(r.Nulls[:0], from.Nulls[:(m.n+63)>>6]...)
		return
	}
	for _, i := range sel.list {
		if from.Nulls.Is(int(i)) {
			r.SetNull(int(i), m.n)
		}
	}
}

func (m *machine) moveBytes(r *register, from *row.Vector, i int) {
	s := from.Spans[i]
	if len(r.own)+int(s.Len) > maxHeap {
		m.fault(i, errs.EvalArgument, "the values of one batch are larger than 2 GiB")
		s.Len = 0
	}
	r.Spans[i] = row.Span{Off: uint32(len(r.own)), Len: s.Len}
	r.own = append(r.own, from.Heap[s.Off:s.Off+s.Len]...)
}

func moveValues[T any](to, from []T, sel rows, n int) {
	if sel.all {
		copy(to[:n], from[:n])
		return
	}
	for _, i := range sel.list {
		to[i] = from[i]
	}
}

// emitCoalesce fills the NULLs of the first argument with the second, what is left with the third, and so on.
func (c *compiler) emitCoalesce(e *Coalesce, ctx int) (operand, error) {
	first, err := c.compile(e.Args[0], ctx)
	if err != nil {
		return first, err
	}
	to, layout := c.register(), e.T.Layout()
	c.steps = append(c.steps, &begin{ctx: ctx, layout: layout, to: to, from: first})
	for _, a := range e.Args[1:] {
		f := &fill{from: ctx, open: c.narrower(ctx), to: to, layout: layout}
		c.steps = append(c.steps, (*stillNull)(f))
		if f.value, err = c.compile(a, f.open); err != nil {
			return operand{}, err
		}
		c.steps = append(c.steps, f)
		ctx = f.open
	}
	return operand{index: to}, nil
}

// begin copies a value to a register that later steps change.
type begin struct {
	ctx, to int
	layout  row.Layout
	from    operand
}

func (s *begin) run(m *machine) {
	sel := m.sel[s.ctx]
	if !sel.all && len(sel.list) == 0 {
		return
	}
	r := m.regs[s.to]
	r.size(s.layout, m.n)
	r.own = r.own[:0]
	m.move(s.layout, r, m.vector(s.from), sel)
	r.Heap = r.own
}

// fill puts a value where the register is NULL. stillNull is the step before, which finds those rows.
type fill struct {
	from, open int
	to         int
	layout     row.Layout
	value      operand
}

type stillNull fill

func (s *stillNull) run(m *machine) {
	r, open := m.regs[s.to], &m.sel[s.open]
	open.all, open.list = false, open.list[:0]
	from := m.sel[s.from]
	if !from.all && len(from.list) == 0 || len(r.Nulls) == 0 {
		return
	}
	open.list = appendWhere(open.list, from, m.n, r.Nulls.Is)
}

func (s *fill) run(m *machine) {
	open := m.sel[s.open]
	if len(open.list) == 0 {
		return
	}
	r := m.regs[s.to]
	for _, i := range open.list {
		r.Nulls[i>>6] &^= 1 << (i & 63)
	}
	m.move(s.layout, r, m.vector(s.value), open)
	r.Heap = r.own
}

// emitLogic computes AND and OR. Where nothing can fail and all is cheap, every part is computed for every row.
func (c *compiler) emitLogic(e *Logic, ctx int) (operand, error) {
	first, err := c.compile(e.Args[0], ctx)
	if err != nil {
		return first, err
	}
	to := c.register()
	c.steps = append(c.steps, &begin{ctx: ctx, layout: row.LayoutInt64, to: to, from: first})
	for _, a := range e.Args[1:] {
		l := &combine{or: e.Or, from: ctx, open: ctx, to: to}
		if CanFault(a) || cost(a) > 8 {
			l.open = c.narrower(ctx)
			c.steps = append(c.steps, (*undecided)(l))
		}
		if l.value, err = c.compile(a, l.open); err != nil {
			return operand{}, err
		}
		c.steps = append(c.steps, l)
		ctx = l.open
	}
	return operand{index: to}, nil
}

// combine takes another condition into the register. undecided is the step before, which finds the rows that need it.
type combine struct {
	or         bool
	from, open int
	to         int
	value      operand
}

type undecided combine

func (s *undecided) run(m *machine) {
	r, open := m.regs[s.to], &m.sel[s.open]
	open.all, open.list = false, open.list[:0]
	from := m.sel[s.from]
	switch {
	case !from.all && len(from.list) == 0:
	case s.or:
		open.list = appendOthers(open.list, &r.Vector, from, m.n)
	case len(r.Nulls) == 0:
		open.list = appendTrue(open.list, &r.Vector, from, m.n)
	default:
		open.list = appendWhere(open.list, from, m.n, func(i int) bool { return r.Int64[i]&1 != 0 || r.Nulls.Is(i) })
	}
}

func (s *combine) run(m *machine) {
	sel := m.sel[s.open]
	if !sel.all && len(sel.list) == 0 {
		return
	}
	r, v := m.regs[s.to], m.vector(s.value)
	if len(r.Nulls) > 0 || len(v.Nulls) > 0 {
		s.threeValued(m, r, v, sel)
		return
	}
	switch {
	case sel.all && s.or:
		for i, x := range v.Int64[:m.n] {
			r.Int64[i] |= x
		}
	case sel.all:
		for i, x := range v.Int64[:m.n] {
			r.Int64[i] &= x
		}
	case s.or:
		for _, i := range sel.list {
			r.Int64[i] |= v.Int64[i]
		}
	default:
		for _, i := range sel.list {
			r.Int64[i] &= v.Int64[i]
		}
	}
}

// threeValued works a word of 64 rows at a time if the selection is whole: a row is TRUE, FALSE or NULL, and of the values
// one decides (FALSE for AND, TRUE for OR) whatever the other side is.
func (s *combine) threeValued(m *machine, r *register, v *row.Vector, sel rows) {
	decides := int64(0)
	if s.or {
		decides = 1
	}
	one := func(i int) {
		a, b := r.Int64[i], v.Int64[i]
		an, bn := r.Nulls.Is(i), v.Nulls.Is(i)
		switch {
		case !an && a == decides:
		case !bn && b == decides:
			r.Int64[i] = decides
			if an {
				r.Nulls[i>>6] &^= 1 << (i & 63)
			}
		case an || bn:
			r.SetNull(i, m.n)
			r.Int64[i] = 0
		}
	}
	if sel.all {
		for i := range m.n {
			one(i)
		}
		return
	}
	for _, i := range sel.list {
		one(int(i))
	}
}
