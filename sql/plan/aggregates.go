package plan

import (
	"fmt"
	"strings"

	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// onlyBoolean are the aggregates over conditions.
var onlyBoolean = map[string]bool{"EVERY": true, "BOOL_AND": true, "BOOL_OR": true}

// separator is the text between the values of LISTAGG.
func (b *binder) separator(g *grouping, x parser.Expr) (string, error) {
	e, err := b.expr(g.before, x)
	if err != nil {
		return "", err
	}
	if e, err = expr.Fold(e, expr.Settings{Zone: b.env.Zone}); err != nil {
		return "", b.place(err, x.Position())
	}
	c, ok := e.(*expr.Const)
	if !ok || c.IsNull() || c.T.Kind != row.String {
		return "", b.fail(errs.SQLTypeMismatch, x.Position(), "the separator has to be a constant text")
	}
	return c.Text(), nil
}

// orderWithin binds the order of an aggregate's values, inside its parentheses or as WITHIN GROUP, and what it does with
// NULLs. arg gives an expression its number. Where the order does not change the result it is left out.
func (b *binder) orderWithin(g *grouping, x *parser.Call, call *operator.AggCall, arg func(expr.Expr) int) error {
	name := call.Func.Name()
	items := x.OrderBy
	if len(x.WithinGroup) > 0 {
		if len(items) > 0 {
			return b.fail(errs.SQLSyntax, x.WithinGroup[0].X.Position(), "%s is ordered twice", name)
		}
		items = x.WithinGroup
	}
	switch call.Func {
	case operator.ArrayAgg:
		call.KeepNulls = x.Nulls != parser.NullsIgnore
	case operator.FirstValue, operator.LastValue:
		call.KeepNulls = x.Nulls == parser.NullsRespect
		call.Distinct = false
	case operator.ListAgg, operator.Collect:
		if x.Nulls == parser.NullsRespect {
			return b.fail(errs.SQLSyntax, x.Pos, "%s leaves NULLs out", name).WithHint("ARRAY_AGG keeps them")
		}
	default:
		if x.Nulls != parser.NullsUnstated {
			return b.fail(errs.SQLSyntax, x.Pos, "%s has no IGNORE NULLS or RESPECT NULLS", name)
		}
	}
	for i, o := range items {
		e, err := b.expr(g.before, o.X)
		if err != nil {
			return err
		}
		switch e.Type().Kind {
		case row.Array, row.Map, row.Multiset, row.Struct, row.Foreign, row.JSON, row.Null:
			return b.fail(errs.SQLTypeMismatch, o.X.Position(), "values of %s have no order", e.Type().Nullable())
		}
		if i == 0 && call.Distinct && call.Func.Ordered() && (call.Arg < 0 || e.String() != g.args[call.Arg].String()) {
			return b.fail(errs.SQLGrouping, o.X.Position(), "%s(DISTINCT ..) can be ordered by its argument only", name).
				WithHint("a value that comes several times has no place in another order")
		}
		if !call.Func.Ordered() || call.Func == operator.Collect {
			continue
		}
		oc := orderOf(o, arg(e))
		call.Order = append(call.Order, operator.AggOrder{Column: oc.column, Desc: oc.desc, NullsLast: oc.nullsLast})
	}
	return nil
}

func movedOrder(order []operator.AggOrder, to func(int) int) []operator.AggOrder {
	out := append([]operator.AggOrder(nil), order...)
	for i := range out {
		out[i].Column = to(out[i].Column)
	}
	return out
}

// callText is a call as EXPLAIN shows it; the whole of it, since the node's ID depends on it.
func callText(c operator.AggCall) string {
	arg := "*"
	if c.Arg >= 0 {
		arg = fmt.Sprint("$", c.Arg)
	}
	if c.Distinct {
		arg = "DISTINCT " + arg
	}
	if c.Func == operator.ListAgg {
		arg += ", " + expr.Str(c.Separator).String()
	}
	var order []string
	for _, o := range c.Order {
		s := fmt.Sprint("$", o.Column)
		if o.Desc {
			s += " desc"
		}
		if o.NullsLast {
			s += " nulls last"
		}
		order = append(order, s)
	}
	if len(order) > 0 {
		arg += " ORDER BY " + strings.Join(order, ", ")
	}
	if c.KeepNulls {
		arg += " RESPECT NULLS"
	}
	s := c.Func.Name() + "(" + arg + ")"
	if c.Filter >= 0 {
		s += fmt.Sprintf(" FILTER (WHERE $%d)", c.Filter)
	}
	return s
}
