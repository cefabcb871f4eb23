package plan

import (
	"strings"

	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// outerPrefix begins the names of the columns that conditions of a subquery compare with the query around it. They stand
// behind the subquery's own.
const outerPrefix = "$outer"

// ownColumns is how many columns of a subquery are its own.
func ownColumns(s row.Schema) int {
	for i, f := range s {
		if strings.HasPrefix(f.Name, outerPrefix) {
			return i
		}
	}
	return len(s)
}

// overNoRows is an expression over aggregates, not yet settled, when they have no rows: COUNT is 0, the others are NULL.
func overNoRows(e expr.Expr, calls []operator.AggCall) expr.Expr {
	return expr.Rewrite(e, func(e expr.Expr) expr.Expr {
		c, ok := e.(*expr.Column)
		if !ok {
			return e
		}
		if i := c.Index - callColumn; c.Index < callColumn/2 && calls[i].Func == operator.Count {
			return expr.Int(c.T, 0)
		}
		return expr.NullOf(c.T.Nullable())
	})
}

// where binds a condition. IN and EXISTS with a query, joined by AND, become joins.
func (b *binder) where(p *exprPlace, x parser.Expr, a around, pulled *[]expr.Expr) error {
	switch x := x.(type) {
	case *parser.Binary:
		if x.Op == parser.OpAnd {
			if err := b.where(p, x.Left, a, pulled); err != nil {
				return err
			}
			return b.where(p, x.Right, a, pulled)
		}
	case *parser.Unary:
		if x.Op == parser.OpNot {
			switch y := x.X.(type) {
			case *parser.Exists:
				return b.exists(p, y, true, a)
			case *parser.In:
				if y.Query != nil {
					z := *y
					z.Not = !z.Not
					return b.in(p, &z, a)
				}
			}
		}
	case *parser.Exists:
		return b.exists(p, x, false, a)
	case *parser.In:
		if x.Query != nil {
			return b.in(p, x, a)
		}
	}
	e, err := b.condition(p, x, "WHERE")
	if err != nil {
		return err
	}
	for _, c := range expr.Columns(e) {
		if c < 0 {
			*pulled = append(*pulled, e)
			return nil
		}
	}
	*p.in = &filter{in: *p.in, cond: e}
	return nil
}

// subquery binds a query inside an expression of p. Its conditions on p's columns are over p's columns and, behind them,
// the query's.
//
// width is how many columns it has to give, or 0; empty is what an aggregate is that it gives where no condition holds, else nil.
func (b *binder) subquery(p *exprPlace, q parser.Query, width int) (r rel, conds []expr.Expr, empty expr.Expr, err error) {
	var pulled []expr.Expr
	r, err = b.query(q, around{outer: p.scope, ctes: p.scope.common, pulled: &pulled, empty: &empty})
	if err != nil {
		return nil, nil, nil, err
	}
	if w := ownColumns(r.columns()); width > 0 && w != width {
		return nil, nil, nil, b.fail(errs.SQLTypeMismatch, q.Position(), "a subquery of %d columns, %d wanted", w, width)
	}
	n := len((*p.in).columns())
	for i, e := range pulled {
		pulled[i] = remap(e, func(c int) int {
			if c < 0 {
				return -1 - c
			}
			return n + c
		})
	}
	return r, pulled, empty, nil
}

// rowForNone refuses an aggregate that has a row even where nothing is equal to the row around it: as a table it cannot
// be written down.
func (b *binder) rowForNone(empty expr.Expr, at parser.Pos) error {
	if empty == nil {
		return nil
	}
	return b.fail(errs.NotBuiltYet, at, "IN and EXISTS of an aggregate without GROUP BY that uses a column of the query around it are not built yet").
		WithHint("compare with it as a value: x = (SELECT ..)")
}

func (b *binder) exists(p *exprPlace, x *parser.Exists, no bool, _ around) error {
	r, conds, empty, err := b.subquery(p, x.Query, 0)
	if err != nil {
		return err
	}
	if err := b.rowForNone(empty, x.Pos); err != nil {
		return err
	}
	kind := semiJoin
	if no {
		kind = antiJoin
	}
	*p.in = &join{kind: kind, left: *p.in, right: r, cond: conjunction(conds), pos: x.Pos}
	return nil
}

func conjunction(conds []expr.Expr) expr.Expr {
	if len(conds) == 0 {
		return nil
	}
	return expr.And(conds...)
}

// in makes x IN (query) a semi-join and x NOT IN (query) an anti-join: the latter keeps a row only if no row of the query
// is equal or could be, because one of the two is NULL.
func (b *binder) in(p *exprPlace, x *parser.In, _ around) error {
	items := []parser.Expr{x.X}
	if rw, ok := x.X.(*parser.Row); ok {
		items = rw.Items
	}
	lefts, err := b.exprs(p, items...)
	if err != nil {
		return err
	}
	for i, l := range lefts {
		if !insideOnly(l) {
			return b.fail(errs.NotBuiltYet, items[i].Position(), "IN with a query of a column of the query around it is not built yet")
		}
	}
	r, conds, empty, err := b.subquery(p, x.Query, len(items))
	if err != nil {
		return err
	}
	if err := b.rowForNone(empty, x.Pos); err != nil {
		return err
	}
	n := len((*p.in).columns())
	s := r.columns()
	kind := semiJoin
	if x.Not {
		kind = antiJoin
	}
	for i, left := range lefts {
		right := &expr.Column{Index: n + i, T: s[i].Type}
		eq, err := expr.Resolve("=", []expr.Expr{left, right})
		if err != nil {
			return b.place(err, x.Pos)
		}
		for _, side := range []expr.Expr{left, right} {
			if !x.Not || side.Type().NotNull {
				continue
			}
			null, err := expr.Resolve("IS NULL", []expr.Expr{side})
			if err != nil {
				return b.place(err, x.Pos)
			}
			if eq, err = expr.Resolve("OR", []expr.Expr{eq, null}); err != nil {
				return b.place(err, x.Pos)
			}
		}
		conds = append(conds, eq)
	}
	*p.in = &join{kind: kind, left: *p.in, right: r, cond: expr.And(conds...), pos: x.Pos}
	return nil
}

// scalar makes a query that is used as a value a column of the relation: a single row joined to every row, or, if it
// speaks of the query around it, a row for each value of what it is compared with.
func (b *binder) scalar(p *exprPlace, x *parser.Subquery) (expr.Expr, error) {
	if p.grouped != nil {
		return nil, b.fail(errs.NotBuiltYet, x.Pos, "a subquery among aggregates is not built yet").WithHint("group in a subquery of FROM")
	}
	r, conds, empty, err := b.subquery(p, x.Query, 1)
	if err != nil {
		return nil, err
	}
	n := len((*p.in).columns())
	s := r.columns()
	single := operator.AggCall{Func: operator.Single, Filter: -1}
	single.Type, _ = operator.Single.ResultType(s[0].Type)
	agg := &aggregate{in: r, calls: []operator.AggCall{single}}
	kind := innerJoin
	if len(conds) > 0 {
		if len(s) == 1 {
			return nil, b.fail(errs.NotBuiltYet, x.Pos, "this subquery is not built yet")
		}
		kind = leftJoin
		for c := 1; c < len(s); c++ {
			agg.group = append(agg.group, c)
			agg.schema = append(agg.schema, s[c])
		}
		for i, e := range conds {
			conds[i] = remap(e, func(c int) int {
				if c <= n {
					return c
				}
				return c - 1
			})
		}
	}
	agg.schema = append(agg.schema, row.Field{Name: "$value", Type: single.Type})
	at := n + len(agg.group)
	var e expr.Expr = &expr.Column{Index: at, T: single.Type}
	if k, null := empty.(*expr.Const); empty != nil && !(null && k.IsNull()) {
		// What is compared is equal and so not NULL, except where the join found nothing.
		key := agg.schema[0].Type
		none, err := expr.Resolve("IS NULL", []expr.Expr{&expr.Column{Index: n, T: key.Nullable()}})
		if err != nil {
			return nil, b.place(err, x.Pos)
		}
		if e, err = expr.Resolve("CASE", []expr.Expr{none, empty, e}); err != nil {
			return nil, b.place(err, x.Pos)
		}
	}
	*p.in = &join{kind: kind, left: *p.in, right: agg, cond: conjunction(conds), pos: x.Pos}
	for _, f := range agg.schema {
		p.scope.cols = append(p.scope.cols, scopeColumn{table: "$subquery", name: f.Name, typ: f.Type, hidden: true})
	}
	return e, nil
}
