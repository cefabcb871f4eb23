package plan

import (
	"slices"
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

// conjuncts takes AND apart.
func conjuncts(x parser.Expr) []parser.Expr {
	if and, ok := x.(*parser.Binary); ok && and.Op == parser.OpAnd {
		return append(conjuncts(and.Left), conjuncts(and.Right)...)
	}
	return []parser.Expr{x}
}

// hasQuery tells whether an expression asks a query.
func hasQuery(x parser.Expr) bool {
	found := false
	parser.Walk(x, func(n parser.Node) bool {
		_, q := n.(parser.Query)
		found = found || q
		return !found
	})
	return found
}

// where binds one of the conditions that AND joins. IN and EXISTS with a query become joins.
func (b *binder) where(p *exprPlace, x parser.Expr, a around, pulled *[]expr.Expr) error {
	switch x := x.(type) {
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
	if p.plain != nil && deterministic(e) && !slices.ContainsFunc(expr.Columns(e), func(c int) bool { return c >= len(p.plain.columns()) }) {
		p.plain = &filter{in: p.plain, cond: e}
	}
	*p.in = &filter{in: *p.in, cond: e}
	return nil
}

func (b *binder) exists(p *exprPlace, x *parser.Exists, no bool, _ around) error {
	r, conds, _, err := b.subquery(p, x.Query, 0, true)
	if err != nil {
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

// in makes x IN (query) a semi-join and x NOT IN (query) an anti-join, behind which those rows go, too, of which it is not
// known whether they are in the query, because of a NULL.
func (b *binder) in(p *exprPlace, x *parser.In, _ around) error {
	c, err := b.compared(p, x.X, "=", x.Query, x.Pos)
	if err != nil {
		return err
	}
	match, err := c.pair(nil)
	if err != nil {
		return b.place(err, x.Pos)
	}
	kind := semiJoin
	if x.Not {
		kind = antiJoin
	}
	*p.in = &join{kind: kind, left: *p.in, right: c.r, cond: conjunction(append(append([]expr.Expr{}, c.conds...), match...)), pos: x.Pos}
	if left, right := c.nullable(); !x.Not || !left && !right {
		return nil
	}
	unknown, err := b.unknown(p, c)
	if err != nil {
		return b.place(err, x.Pos)
	}
	known, err := expr.Resolve("NOT", []expr.Expr{unknown})
	if err != nil {
		return b.place(err, x.Pos)
	}
	*p.in = &filter{in: *p.in, cond: known}
	return nil
}

// oneForEach tells whether the conditions of a subquery on the n columns around it tie each of them to one value of what
// is compared.
func oneForEach(conds []expr.Expr, n int) bool {
	for _, e := range conds {
		for _, c := range expr.Conjuncts(e) {
			call, ok := c.(*expr.Call)
			if !ok || call.Fn.Name() != "=" && call.Fn.Name() != "IS NOT DISTINCT FROM" || len(call.Args) != 2 {
				return false
			}
			l, r := call.Args[0], call.Args[1]
			if side(l, n) == 0 {
				l, r = r, l
			}
			if _, column := uncast(l).(*expr.Column); !column || side(l, n) != 1 || side(r, n) != 0 {
				return false
			}
		}
	}
	return true
}

// oneRow tells whether a subquery of n columns always has one row, or, if columns behind its value are compared with those
// around, never more than one for what is compared.
func oneRow(r rel, n int) bool {
	if n == 1 {
		return single(r)
	}
	var compared []int
	for c := 1; c < n; c++ {
		compared = append(compared, c)
	}
	return covers(uniqueKeys(r), compared)
}

// scalar makes a query that is used as a value a column of the relation: a single row joined to every row, or, if it
// speaks of the query around it, a row for each value of what it is compared with.
func (b *binder) scalar(p *exprPlace, x *parser.Subquery) (expr.Expr, error) {
	if p.grouped != nil {
		return b.scalarOfGroups(p, x)
	}
	if err := b.asks(p, x.Pos, "a subquery"); err != nil {
		return nil, err
	}
	r, conds, empty, err := b.subquery(p, x.Query, 1, false)
	if err != nil {
		return nil, err
	}
	n := len((*p.in).columns())
	if !oneForEach(conds, n) {
		// More than one value of what is compared may fit.
		if r, conds, err = b.domainSubquery(p, x.Query); err != nil {
			return nil, err
		}
		empty = nil
	}
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
	var value rel = agg
	if oneRow(r, len(s)) { // nobody has to look whether there is a second one
		p := &project{in: r, schema: agg.schema}
		for c := 1; c < len(s); c++ {
			p.exprs = append(p.exprs, column(s, c))
		}
		p.exprs = append(p.exprs, column(s, 0))
		value = p
	}
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
	*p.in = &join{kind: kind, left: *p.in, right: value, cond: conjunction(conds), pos: x.Pos}
	for _, f := range agg.schema {
		p.scope.cols = append(p.scope.cols, scopeColumn{table: "$subquery", name: f.Name, typ: f.Type, hidden: true})
	}
	return e, nil
}
