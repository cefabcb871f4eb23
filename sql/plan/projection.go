package plan

import (
	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// Projection computes expressions for the rows of batches for which a condition is true. One goroutine uses it.
type Projection struct {
	Schema   row.Schema // what comes out
	cond     expr.Expr  // nil: every row
	exprs    []expr.Expr
	settings expr.Settings
	filter   *expr.Filter
	program  *expr.Program
	sel      []int32
}

// Run gives what it makes of a batch to out, lent for the call. Now is the clock, in microseconds since 1970. An
// expression that cannot be computed is an error.
func (p *Projection) Run(b *row.Batch, now int64, out func(*row.Batch) error) error {
	if p.program == nil {
		var err error
		if p.cond != nil {
			if p.filter, err = expr.CompileFilter(p.cond, p.settings); err != nil {
				return err
			}
		}
		if p.program, err = expr.Compile(p.exprs, p.settings); err != nil {
			return err
		}
	}
	in := *b
	if p.filter != nil {
		var faults expr.Faults
		if p.sel, faults = p.filter.Run(&in, now, p.sel[:0]); len(faults) > 0 {
			return faulted(faults)
		}
		if len(p.sel) == 0 {
			return nil
		}
		in.Sel = p.sel
	}
	if in.Rows() == 0 {
		return nil
	}
	cols, faults := p.program.Run(&in, now)
	if len(faults) > 0 {
		return faulted(faults)
	}
	in.Cols = cols
	return out(&in)
}

func faulted(f expr.Faults) error { return errs.New(f[0].Code, "%s", f[0].Message) }
