package operator

import (
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
)

// Calc keeps the rows for which a condition is TRUE and computes expressions over them, in one pass: a run of filters and
// projections of a query.
type Calc struct {
	Node     string
	Cond     expr.Expr // nil: every row
	Exprs    []expr.Expr
	Settings expr.Settings
}

type calc struct {
	spec    Calc
	task    dataflow.Task
	out     dataflow.Emitter
	filter  *expr.Filter
	program *expr.Program
	clock   int64
	sel     []int32
	kept    []int32
	batch   row.Batch
}

// NewCalc returns a task's instance.
func NewCalc(spec Calc, task dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
	c := &calc{spec: spec, task: task, out: out, clock: task.Clock()}
	var err error
	if spec.Cond != nil {
		if c.filter, err = expr.CompileFilter(spec.Cond, spec.Settings); err != nil {
			return nil, err
		}
	}
	c.program, err = expr.Compile(spec.Exprs, spec.Settings)
	return c, err
}

// Process passes on what the condition lets through. A row that cannot be evaluated becomes a fault.
func (c *calc) Process(_ int, b *row.Batch) error {
	c.batch = *b
	in := &c.batch
	if c.filter != nil {
		var faults expr.Faults
		c.sel, faults = c.filter.Run(in, c.clock, c.sel[:0])
		c.report(in, faults)
		if len(c.sel) == 0 {
			return nil
		}
		in.Sel = c.sel
		if len(c.sel) == in.Len {
			in.Sel = nil
		}
	}
	cols, faults := c.program.Run(in, c.clock)
	if len(faults) > 0 {
		c.report(in, faults)
		c.without(in, faults)
	}
	in.Cols = cols
	if in.Rows() == 0 {
		return nil
	}
	return c.out.Emit(in)
}

func (c *calc) report(b *row.Batch, faults expr.Faults) {
	for _, f := range faults {
		c.task.Fault(dataflow.Fault{Node: c.spec.Node, Code: string(f.Code), Message: f.Message, Weight: b.Weight(int(f.Row))})
	}
}

// without takes the faulty rows out of the selection.
func (c *calc) without(b *row.Batch, faults expr.Faults) {
	c.kept = grow(c.kept, b.Len)[:0] // not nil, which would select all rows
	for k := range b.Rows() {
		i := int32(b.At(k))
		faulty := false
		for _, f := range faults {
			if f.Row == i {
				faulty = true
				break
			}
		}
		if !faulty {
			c.kept = append(c.kept, i)
		}
	}
	b.Sel = c.kept
}

// Barrier brings the clock on.
func (c *calc) Barrier(e dataflow.Epoch) error {
	c.clock = e.Clock
	return nil
}
