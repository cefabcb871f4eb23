package expr

import (
	"fmt"
	"math/rand/v2"
	"sort"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// Compile makes the program that computes exprs over batches of one input.
func Compile(exprs []Expr, s Settings) (*Program, error) {
	p := &Program{out: make([]*row.Vector, len(exprs))}
	c := newCompiler(&p.machine, s)
	for _, e := range exprs {
		e, err := Fold(e, s)
		if err != nil {
			return nil, err
		}
		o, err := c.compile(e, 0)
		if err != nil {
			return nil, err
		}
		p.results, p.layouts = append(p.results, o), append(p.layouts, e.Type().Layout())
	}
	p.steps = c.steps
	return p, nil
}

// CompileFilter makes the filter for a condition. Parts joined by AND are computed one after the other, each for the rows
// that the earlier ones left; where nothing can fail, the cheapest comes first.
func CompileFilter(e Expr, s Settings) (*Filter, error) {
	if e.Type().Kind != row.Boolean && e.Type().Kind != row.Null {
		return nil, errs.New(errs.SQLTypeMismatch, "a condition is BOOLEAN, this is %s", e.Type().Nullable()).WithDetail("the condition is %s", e)
	}
	e, err := Fold(castNode(e, kind(row.Boolean), false), s)
	if err != nil {
		return nil, err
	}
	f := &Filter{}
	c := newCompiler(&f.machine, s)
	parts := Conjuncts(e)
	orderByCost(parts)
	for _, part := range parts {
		ctx := 0
		if len(f.stages) > 0 {
			ctx = c.narrower(f.stages[len(f.stages)-1].sel)
		}
		o, err := c.compile(part, ctx)
		if err != nil {
			return nil, err
		}
		f.stages = append(f.stages, stage{steps: c.steps, cond: o, sel: ctx})
		c.steps = nil
	}
	return f, nil
}

// orderByCost sorts each run of conditions that cannot fail. One that can fail stays where it is: moved back it would fail
// for fewer rows, and what moved before it would hide its fault.
func orderByCost(parts []Expr) {
	for begin := 0; begin < len(parts); {
		end := begin
		for end < len(parts) && !CanFault(parts[end]) {
			end++
		}
		run := parts[begin:end]
		sort.SliceStable(run, func(i, j int) bool { return cost(run[i]) < cost(run[j]) })
		begin = end + 1
	}
}

// cost is a guess at the nanoseconds for a row.
func cost(e Expr) int {
	n := 0
	Walk(e, func(e Expr) bool {
		switch e := e.(type) {
		case *Call:
			n += e.Fn.cost
		case *Cast:
			n += 5
			if e.T.Layout() == row.LayoutBytes || e.Arg.Type().Layout() == row.LayoutBytes {
				n += 20
			}
		case *Case, *Logic, *Coalesce, *In:
			n += 3
		}
		if e.Type().Layout() == row.LayoutBytes {
			n += 2
		}
		return true
	})
	return n
}

// compiler turns trees into steps. A context is the selection that a step works under: 0 is the batch's, each branch has
// one that is a part of its parent's.
type compiler struct {
	m       *machine
	s       Settings
	steps   []step
	parent  []int // of each context, -1 for the first
	known   map[placed]operand
	numbers map[Expr]int
	texts   map[string]int
	serials int
}

// placed is an expression in a context: what has been computed there, or in a context around it, is not computed again.
type placed struct{ number, ctx int }

func newCompiler(m *machine, s Settings) *compiler {
	m.sel = []rows{{}}
	if s.Rand != nil {
		m.random = rand.New(s.Rand)
	}
	return &compiler{m: m, s: s, parent: []int{-1}, known: map[placed]operand{}, numbers: map[Expr]int{}, texts: map[string]int{}}
}

// narrower is a new context inside ctx.
func (c *compiler) narrower(ctx int) int {
	c.m.sel = append(c.m.sel, rows{})
	c.parent = append(c.parent, ctx)
	return len(c.parent) - 1
}

func (c *compiler) register() int {
	c.m.regs = append(c.m.regs, &register{})
	return len(c.m.regs) - 1
}

// identity is a number that two expressions share only if they have the same value. It is found by a text in which the
// parts stand with their numbers, so that a tree of shared parts does not become as large as what it stands for.
func (c *compiler) identity(e Expr) int {
	if n, ok := c.numbers[e]; ok {
		return n
	}
	var t string
	switch e := e.(type) {
	case *Column:
		t = fmt.Sprintf("$%d", e.Index)
	case *Const:
		t = e.T.Nullable().String() + " " + e.String()
	default:
		t = fmt.Sprintf("%T %s(", e, e.Type())
		switch e := e.(type) {
		case *Call:
			t += e.Fn.name
			if e.Fn.volatile == randomFunction {
				c.serials++
				t += fmt.Sprint(" random ", c.serials)
			}
		case *In:
			t += fmt.Sprint(e.Not, e.Null)
			for _, k := range e.List {
				t += fmt.Sprint(" #", c.identity(k))
			}
		case *Logic:
			t += fmt.Sprint(e.Or)
		case *Cast:
			t += fmt.Sprint(e.Try, e.Keep)
		}
		for _, child := range e.children() {
			t += fmt.Sprint(" #", c.identity(child))
		}
	}
	n, ok := c.texts[t]
	if !ok {
		n = len(c.texts)
		c.texts[t] = n
	}
	c.numbers[e] = n
	return n
}

// compile emits the steps for e in ctx and says where its value is.
func (c *compiler) compile(e Expr, ctx int) (operand, error) {
	if col, ok := e.(*Column); ok {
		return operand{column: true, index: col.Index}, nil
	}
	id := c.identity(e)
	if _, ok := e.(*Const); ok {
		ctx = 0
	}
	for around := ctx; around >= 0; around = c.parent[around] {
		if o, ok := c.known[placed{id, around}]; ok {
			return o, nil
		}
	}
	o, err := c.emit(e, ctx)
	if err != nil {
		return o, err
	}
	c.known[placed{id, ctx}] = o
	return o, nil
}

func (c *compiler) emit(e Expr, ctx int) (operand, error) {
	switch e := e.(type) {
	case *Const:
		return c.emitConst(e), nil
	case *Call:
		k, err := e.Fn.bind(e, &c.s)
		if err != nil {
			return operand{}, err
		}
		if e.Fn.volatile == randomFunction && c.m.random == nil {
			return operand{}, errs.New(errs.EngineInternal, "%s has no source of random numbers here", e.Fn.name)
		}
		return c.emitKernel(e, e.Args, ctx, k, !e.Fn.nulls)
	case *Cast:
		if e.Keep || sameValues(e.Arg.Type(), e.T) {
			return c.compile(e.Arg, ctx)
		}
		k, err := castKernel(e, &c.s)
		if err != nil {
			return operand{}, err
		}
		return c.emitKernel(e, []Expr{e.Arg}, ctx, k, true)
	case *In:
		return c.emitKernel(e, []Expr{e.Arg}, ctx, inKernel(e), true)
	case *Case:
		return c.emitCase(e, ctx)
	case *Logic:
		return c.emitLogic(e, ctx)
	case *Coalesce:
		return c.emitCoalesce(e, ctx)
	}
	return operand{}, errs.New(errs.EngineInternal, "no way to compute %T", e)
}

func (c *compiler) emitKernel(e Expr, args []Expr, ctx int, k kernel, strict bool) (operand, error) {
	st := &call{ctx: ctx, layout: e.Type().Layout(), strict: strict, kernel: k}
	for _, a := range args {
		o, err := c.compile(a, ctx)
		if err != nil {
			return o, err
		}
		st.args = append(st.args, o)
	}
	st.to = c.register()
	st.frame.in = make([]*row.Vector, len(args))
	st.frame.e = e
	c.steps = append(c.steps, st)
	return operand{index: st.to}, nil
}

// spread is the step that makes a constant as long as the batch. The register keeps it from run to run.
type spread struct {
	to     int
	layout row.Layout
	from   *row.Vector
	have   int
}

func (s *spread) run(m *machine) {
	if m.n <= s.have {
		r := m.regs[s.to]
		r.Int64, r.Float64, r.Decimal, r.Spans = cut(r.Int64, m.n), cut(r.Float64, m.n), cut(r.Decimal, m.n), cut(r.Spans, m.n)
		if s.from.Nulls.Is(0) {
			r.Nulls = cut(r.Nulls, (m.n+63)>>6)
			for i := range r.Nulls {
				r.Nulls[i] = ^uint64(0)
			}
		} else {
			r.Nulls = r.Nulls[:0]
		}
		return
	}
	r := m.regs[s.to]
	s.have = max(m.n, min(2*s.have, row.MaxBatch), 64)
	r.size(s.layout, s.have)
	r.Heap = s.from.Heap
	if s.from.Nulls.Is(0) {
		r.Nulls = make(row.Nulls, (s.have+63)>>6)
	}
	for i := range s.have {
		switch s.layout {
		case row.LayoutInt64:
			r.Int64[i] = s.from.Int64[0]
		case row.LayoutFloat64:
			r.Float64[i] = s.from.Float64[0]
		case row.LayoutDecimal:
			r.Decimal[i] = s.from.Decimal[0]
		case row.LayoutBytes:
			r.Spans[i] = s.from.Spans[0]
		}
	}
	s.run(m)
}

func cut[T any](s []T, n int) []T {
	if cap(s) == 0 {
		return s
	}
	return s[:n]
}

func (c *compiler) emitConst(e *Const) operand {
	to := c.register()
	c.steps = append(c.steps, &spread{to: to, layout: e.T.Layout(), from: e.Vec})
	return operand{constant: true, index: to}
}

// Fold computes the parts that are constant. A part that fails stays an expression: it fails for the rows that need it.
// An expression's text names it only once it is folded: CAST(1 AS DECIMAL(3, 1)) and 1.0 are one then.
func Fold(e Expr, s Settings) (Expr, error) {
	var failed error
	out := Rewrite(e, func(n Expr) Expr {
		if failed != nil {
			return n
		}
		if folded, ok := foldForm(n); ok {
			return folded
		}
		if !constantParts(n) {
			return n
		}
		v, err := evaluate(n, s)
		if err != nil {
			failed = err
			return n
		}
		if v == nil {
			return n
		}
		return v
	})
	return out, failed
}

// constantParts tells a node, not a leaf, that can be computed once and for all.
func constantParts(e Expr) bool {
	switch e := e.(type) {
	case *Column, *Const:
		return false
	case *Call:
		if e.Fn.volatile != pureFunction {
			return false
		}
	}
	for _, c := range e.children() {
		if _, ok := c.(*Const); !ok {
			return false
		}
	}
	return true
}

// foldForm shortens conditional forms that a constant decides.
func foldForm(e Expr) (Expr, bool) {
	switch e := e.(type) {
	case *Case:
		return foldCase(e)
	case *Logic:
		return foldLogic(e)
	case *Coalesce:
		return foldCoalesce(e)
	}
	return nil, false
}

func foldCase(c *Case) (Expr, bool) {
	kept := &Case{Else: c.Else, T: c.T}
	for _, w := range c.Whens {
		k, constant := w.Cond.(*Const)
		if !constant {
			kept.Whens = append(kept.Whens, w)
			continue
		}
		if !k.IsNull() && k.Int64() != 0 {
			kept.Else = w.Then
			break
		}
	}
	if len(kept.Whens) == 0 {
		return kept.Else, true
	}
	if len(kept.Whens) == len(c.Whens) && kept.Else == c.Else {
		return nil, false
	}
	return kept, true
}

// foldLogic drops constants that decide nothing, and what stands behind one that decides. What stands before it is still
// computed if it can fail.
func foldLogic(l *Logic) (Expr, bool) {
	kept := &Logic{Or: l.Or}
	mayFail := false
	for n, a := range l.Args {
		k, constant := a.(*Const)
		switch {
		case !constant || k.IsNull():
			kept.Args = append(kept.Args, a)
			mayFail = mayFail || CanFault(a)
			continue
		case k.Int64() == 0 == l.Or:
			continue
		case !mayFail:
			return k, true
		}
		if n == len(l.Args)-1 && len(kept.Args) == n {
			return nil, false
		}
		kept.Args = append(kept.Args, a)
		return kept, true
	}
	switch len(kept.Args) {
	case 0:
		return Bool(!l.Or), true
	case 1:
		return kept.Args[0], true
	case len(l.Args):
		return nil, false
	}
	return kept, true
}

func foldCoalesce(c *Coalesce) (Expr, bool) {
	kept := &Coalesce{T: c.T}
	for _, a := range c.Args {
		k, constant := a.(*Const)
		if constant && k.IsNull() {
			continue
		}
		kept.Args = append(kept.Args, a)
		if constant {
			break
		}
	}
	switch len(kept.Args) {
	case 0:
		return NullOf(c.T), true
	case 1:
		return kept.Args[0], true
	case len(c.Args):
		return nil, false
	}
	return kept, true
}

// evaluate computes an expression without columns; nil if it fails.
func evaluate(e Expr, s Settings) (*Const, error) {
	p := &Program{out: make([]*row.Vector, 1)}
	c := newCompiler(&p.machine, s)
	o, err := c.compile(e, 0)
	if err != nil {
		return nil, err
	}
	p.results, p.layouts, p.steps = []operand{o}, []row.Layout{e.Type().Layout()}, c.steps
	out, faults := p.Run(&row.Batch{Len: 1}, 0)
	if len(faults) > 0 {
		return nil, nil
	}
	v := &row.Vector{}
	v.Gather(e.Type().Layout(), 0, out[0], nil, 1)
	if !v.Nulls.Is(0) {
		v.NoNulls()
	}
	return NewConst(e.Type(), v), nil
}
