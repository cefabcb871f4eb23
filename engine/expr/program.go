package expr

import (
	"math/rand/v2"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// Fault is a row whose evaluation failed. Its results are NULL, and the row must not be used.
type Fault struct {
	Row     int32 // place in the batch
	Code    errs.Code
	Message string
}

// Faults are the rows that failed, at most one Fault a row, in the order in which they were met. They are lent until the
// next run.
type Faults []Fault

// Program computes expressions over the batches of one input, step by step, a whole batch each. It belongs to one task:
// its registers are used again in each run.
type Program struct {
	machine
	steps   []step
	results []operand
	layouts []row.Layout // of the results
	out     []*row.Vector
}

// operand is a column of the input or a register of the machine.
type operand struct {
	column bool
	// constant: the register is filled once.
	constant bool
	index    int
}

// A step does one thing to the machine for a whole batch.
type step interface{ run(m *machine) }

// register is a vector that a step fills.
type register struct {
	row.Vector
	own []byte // the memory of its heap, also while Heap is somebody else's
}

// rows is a selection: the rows that a step is for.
type rows struct {
	all  bool
	list []int32
}

// machine is what steps work on.
type machine struct {
	batch   *row.Batch
	n       int // length of the batch's vectors
	clock   int64
	regs    []*register
	sel     []rows // 0 is the batch's own
	faults  Faults
	faulted []uint64 // a bit for each row with a fault
	random  *rand.Rand
}

// begin makes the machine ready for a batch.
func (m *machine) begin(b *row.Batch, clock int64) {
	m.batch, m.n, m.clock = b, b.Len, clock
	m.sel[0] = rows{all: b.Sel == nil, list: b.Sel}
	if len(m.faults) > 0 {
		m.faults = m.faults[:0]
		clear(m.faulted)
	}
}

// fault notes that row i failed. The first fault of a row is the one that is told.
func (m *machine) fault(i int, code errs.Code, message string) {
	for len(m.faulted) <= i>>6 {
		m.faulted = append(m.faulted, 0)
	}
	if m.faulted[i>>6]&(1<<(i&63)) != 0 {
		return
	}
	m.faulted[i>>6] |= 1 << (i & 63)
	m.faults = append(m.faults, Fault{int32(i), code, message})
}

// hasFault tells whether row i has failed.
func (m *machine) hasFault(i int) bool {
	return len(m.faulted) > i>>6 && m.faulted[i>>6]&(1<<(i&63)) != 0
}

func (m *machine) vector(o operand) *row.Vector {
	if o.column {
		return m.batch.Cols[o.index]
	}
	return &m.regs[o.index].Vector
}

// Run computes the expressions for the rows of b that count. Clock is what CURRENT_TIMESTAMP and PROCTIME read, in
// microseconds since 1970. The vectors are lent until the next run; a plain column is the batch's own. Values of rows
// that do not count are undefined; a row with a fault is NULL, but in plain columns and constants.
func (p *Program) Run(b *row.Batch, clock int64) ([]*row.Vector, Faults) {
	p.begin(b, clock)
	for _, s := range p.steps {
		s.run(&p.machine)
	}
	for i, o := range p.results {
		if b.Sel != nil && len(b.Sel) == 0 && !o.column && !o.constant { // no step ran
			p.regs[o.index].size(p.layouts[i], b.Len)
		}
		p.out[i] = p.vector(o)
	}
	if len(p.faults) > 0 {
		p.nullFaults()
	}
	return p.out, p.faults
}

// nullFaults makes each result of a failed row NULL, also the results that did not fail. Columns of the batch and
// constants stay as they are.
func (p *Program) nullFaults() {
	for k, o := range p.results {
		if o.column || o.constant {
			continue
		}
		v := p.out[k]
		for _, f := range p.faults {
			i := int(f.Row)
			v.SetNull(i, p.n)
			switch {
			case i < len(v.Int64):
				v.Int64[i] = 0
			case i < len(v.Float64):
				v.Float64[i] = 0
			case i < len(v.Decimal):
				v.Decimal[i] = row.Int128{}
			case i < len(v.Spans):
				v.Spans[i] = row.Span{}
			}
		}
	}
}

// Filter finds the rows for which a condition is TRUE.
type Filter struct {
	machine
	stages []stage
}

// stage is one condition, computed for the rows that the earlier ones left.
type stage struct {
	steps []step
	cond  operand
	sel   int // which selection of the machine it works under
}

// Run appends to sel the places of the rows of b for which the condition is TRUE. Rows with a fault are not among them.
func (f *Filter) Run(b *row.Batch, clock int64, sel []int32) ([]int32, Faults) {
	f.begin(b, clock)
	start := len(sel)
	for k := range f.stages {
		s := &f.stages[k]
		for _, st := range s.steps {
			st.run(&f.machine)
		}
		v, from := f.vector(s.cond), f.sel[s.sel]
		if k == len(f.stages)-1 {
			sel = appendTrue(sel, v, from, f.n)
			break
		}
		next := &f.sel[f.stages[k+1].sel]
		next.all = false
		if next.list = appendTrue(next.list[:0], v, from, f.n); len(next.list) == 0 {
			break
		}
	}
	if len(f.faults) > 0 {
		kept := sel[:start]
		for _, i := range sel[start:] {
			if !f.hasFault(int(i)) {
				kept = append(kept, i)
			}
		}
		sel = kept
	}
	return sel, f.faults
}

// appendTrue appends the rows of from whose value is TRUE. Under a NULL lies 0, so NULLs need no look.
func appendTrue(sel []int32, v *row.Vector, from rows, n int) []int32 {
	if !from.all {
		n = len(from.list)
	}
	at := len(sel)
	if cap(sel)-at < n {
		grown := make([]int32, at, max(at+n, 64))
		copy(grown, sel)
		sel = grown
	}
	out := sel[at : at+n]
	k := 0
	if from.all {
		for i, x := range v.Int64[:n] {
			out[k] = int32(i)
			k += int(x & 1)
		}
	} else {
		values := v.Int64
		for _, i := range from.list {
			out[k] = i
			k += int(values[i] & 1)
		}
	}
	return sel[:at+k]
}

// appendOthers appends the rows of from whose value is not TRUE.
func appendOthers(sel []int32, v *row.Vector, from rows, n int) []int32 {
	return appendWhere(sel, from, n, func(i int) bool { return v.Int64[i]&1 == 0 })
}

// appendWhere is for selections that are made seldom, or of few rows.
func appendWhere(sel []int32, from rows, n int, keep func(i int) bool) []int32 {
	if from.all {
		for i := range n {
			if keep(i) {
				sel = append(sel, int32(i))
			}
		}
		return sel
	}
	for _, i := range from.list {
		if keep(int(i)) {
			sel = append(sel, i)
		}
	}
	return sel
}
