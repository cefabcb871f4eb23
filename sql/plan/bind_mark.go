package plan

import (
	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// mark adds a column to p that tells whether a row of r matches.
func (b *binder) mark(p *exprPlace, r rel, conds []expr.Expr, at parser.Pos) expr.Expr {
	if p.grouped != nil {
		return p.grouped.mark(r, conds, at)
	}
	n := len((*p.in).columns())
	j := &join{kind: markJoin, left: *p.in, right: r, cond: conjunction(conds), pos: at}
	*p.in = j
	t := row.Type{Kind: row.Boolean, NotNull: true}
	p.scope.cols = append(p.scope.cols, scopeColumn{table: "$mark", typ: t, hidden: true})
	return &expr.Column{Index: n, T: t}
}

// moveRight moves the right side's columns of conditions that were bound when p had n columns: marks have come in between.
func moveRight(p *exprPlace, n int, conds []expr.Expr) []expr.Expr {
	if p.grouped != nil {
		return conds
	}
	by := len((*p.in).columns()) - n
	out := make([]expr.Expr, len(conds))
	for i, e := range conds {
		out[i] = remap(e, func(c int) int {
			if c >= n {
				return c + by
			}
			return c
		})
	}
	return out
}

// asks refuses a query inside an expression that stands where nothing can be joined to.
func (b *binder) asks(p *exprPlace, at parser.Pos, what string) error {
	if p.grouped == nil && p.in == nil {
		return b.fail(errs.NotBuiltYet, at, "%s is not built yet in this place", what).WithHint("let it be a condition of WHERE")
	}
	return nil
}

// existsValue is EXISTS as a value.
func (b *binder) existsValue(p *exprPlace, x *parser.Exists) (expr.Expr, error) {
	if err := b.asks(p, x.Pos, "EXISTS"); err != nil {
		return nil, err
	}
	r, conds, err := b.asked(p, x.Query, 0)
	if err != nil {
		return nil, err
	}
	return b.mark(p, r, conds, x.Pos), nil
}

// comparison is x op ANY (query).
type comparison struct {
	lefts []expr.Expr
	op    string
	r     rel
	conds []expr.Expr // of the subquery on the columns around
	n     int         // how many columns p had when they were bound
	pos   parser.Pos
}

// compared binds the sides of x op ANY (query).
func (b *binder) compared(p *exprPlace, x parser.Expr, op string, q parser.Query, at parser.Pos) (*comparison, error) {
	items := []parser.Expr{x}
	if rw, ok := x.(*parser.Row); ok {
		items = rw.Items
	}
	c := &comparison{op: op, pos: at}
	var err error
	if c.lefts, err = b.exprs(p, items...); err != nil {
		return nil, err
	}
	if usesOuter(c.lefts...) {
		return nil, b.fail(errs.NotBuiltYet, at, "a column of the query around it, compared with a query, is not built yet in this place")
	}
	if c.r, c.conds, err = b.asked(p, q, len(items)); err != nil {
		return nil, err
	}
	if c.n = rightOfGroups; p.grouped == nil {
		c.n = len((*p.in).columns())
	}
	return c, nil
}

// pair compares the left values with the columns of the right, which begin at column c.n.
func (c *comparison) pair(f func(left, right, compared expr.Expr) (expr.Expr, error)) ([]expr.Expr, error) {
	s := c.r.columns()
	var out []expr.Expr
	for i, left := range c.lefts {
		right := &expr.Column{Index: c.n + i, T: s[i].Type}
		e, err := expr.Resolve(c.op, []expr.Expr{left, right})
		if err == nil && f != nil {
			e, err = f(left, right, e)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// nullable tells whether a left or a right value can be NULL.
func (c *comparison) nullable() (left, right bool) {
	s := c.r.columns()
	for i, l := range c.lefts {
		left, right = left || !l.Type().NotNull, right || !s[i].Type.NotNull
	}
	return left, right
}

// anyValue is x op ANY (query): TRUE if a row fulfils it; else NULL if one could, were it known what stands for NULL; else
// FALSE.
func (b *binder) anyValue(p *exprPlace, c *comparison) (expr.Expr, error) {
	match, err := c.pair(nil)
	if err != nil {
		return nil, b.place(err, c.pos)
	}
	yes := b.mark(p, c.r, append(append([]expr.Expr{}, c.conds...), match...), c.pos)
	left, right := c.nullable()
	if !left && !right {
		return yes, nil
	}
	unknown, err := b.unknown(p, c)
	if err != nil {
		return nil, b.place(err, c.pos)
	}
	e, err := expr.Resolve("CASE", []expr.Expr{yes, expr.Bool(true), unknown, expr.NullOf(row.Type{Kind: row.Boolean}), expr.Bool(false)})
	return e, b.place(err, c.pos)
}

// unknown tells, of rows for which no row fulfils the comparison, whether NULL keeps it from being known. With a single
// value that is so if it is NULL and there is any row, or if NULL is among the rows: both can be looked up.
func (b *binder) unknown(p *exprPlace, c *comparison) (expr.Expr, error) {
	left, right := c.nullable()
	if len(c.lefts) > 1 {
		could, err := c.pair(func(_, _, e expr.Expr) (expr.Expr, error) { return expr.Resolve("IS NOT FALSE", []expr.Expr{e}) })
		if err != nil {
			return nil, err
		}
		return b.mark(p, c.r, moveRight(p, c.n, append(append([]expr.Expr{}, c.conds...), could...)), c.pos), nil
	}
	var parts []expr.Expr
	if right {
		null, err := c.pair(func(_, right, _ expr.Expr) (expr.Expr, error) { return expr.Resolve("IS NULL", []expr.Expr{right}) })
		if err != nil {
			return nil, err
		}
		parts = append(parts, b.mark(p, c.r, moveRight(p, c.n, append(append([]expr.Expr{}, c.conds...), null...)), c.pos))
	}
	if left {
		some := b.mark(p, c.r, moveRight(p, c.n, c.conds), c.pos)
		null, err := expr.Resolve("IS NULL", c.lefts)
		if err != nil {
			return nil, err
		}
		parts = append(parts, expr.And(null, some))
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	return expr.Resolve("OR", parts)
}

// inValue is IN with a query as a value.
func (b *binder) inValue(p *exprPlace, x *parser.In) (expr.Expr, error) {
	if err := b.asks(p, x.Pos, "IN with a query"); err != nil {
		return nil, err
	}
	c, err := b.compared(p, x.X, "=", x.Query, x.Pos)
	if err != nil {
		return nil, err
	}
	e, err := b.anyValue(p, c)
	if err == nil && x.Not {
		e, err = expr.Resolve("NOT", []expr.Expr{e})
	}
	return e, b.place(err, x.Pos)
}

// quantified is x op ANY (query) and x op ALL (query): what holds for all is what holds for none the other way round.
func (b *binder) quantified(p *exprPlace, x *parser.Quantified) (expr.Expr, error) {
	if x.Query == nil {
		return b.quantifiedArray(p, x)
	}
	if err := b.asks(p, x.Pos, "ANY and ALL"); err != nil {
		return nil, err
	}
	op := binaryNames[x.Op]
	if x.All {
		op = map[string]string{"=": "<>", "<>": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}[op]
	}
	if _, several := x.X.(*parser.Row); several {
		return nil, b.fail(errs.NotBuiltYet, x.Pos, "ANY and ALL of several columns are not built yet").WithHint("(a, b) IN (SELECT ..)")
	}
	c, err := b.compared(p, x.X, op, x.Query, x.Pos)
	if err != nil {
		return nil, err
	}
	e, err := b.anyValue(p, c)
	if err == nil && x.All {
		e, err = expr.Resolve("NOT", []expr.Expr{e})
	}
	return e, b.place(err, x.Pos)
}

// quantifiedArray is x op ANY (ARRAY[a, b]): x op a OR x op b; with ALL, AND.
func (b *binder) quantifiedArray(p *exprPlace, x *parser.Quantified) (expr.Expr, error) {
	list, ok := x.Array.(*parser.Array)
	if !ok || list.Query != nil {
		return nil, b.fail(errs.NotBuiltYet, x.Pos, "ANY and ALL of an array that is not written out are not built yet").WithHint("ARRAY_CONTAINS(array, value)")
	}
	var parts []expr.Expr
	for _, item := range list.Items {
		e, err := b.call(p, binaryNames[x.Op], x.X, item)
		if err != nil {
			return nil, b.place(err, item.Position())
		}
		parts = append(parts, e)
	}
	switch {
	case len(parts) == 0:
		return expr.Bool(x.All), nil
	case len(parts) == 1:
		return parts[0], nil
	case x.All:
		return expr.And(parts...), nil
	}
	return expr.Resolve("OR", parts)
}

// extraColumn is the number of a column that a subquery adds to groups, as long as it is not known how many stand before
// it.
const extraColumn = 4 * callColumn

// rightOfGroups is where the columns of a subquery begin in its conditions on groups, as long as that is not known.
const rightOfGroups = 1 << 20

// extra adds a column to the groups, when they are made.
func (g *grouping) extra(t row.Type, add func(groups rel) rel) expr.Expr {
	g.extras = append(g.extras, add)
	return &expr.Column{Index: extraColumn + len(g.extras) - 1, T: t}
}

// mark is binder.mark over groups.
func (g *grouping) mark(r rel, conds []expr.Expr, at parser.Pos) expr.Expr {
	return g.extra(row.Type{Kind: row.Boolean, NotNull: true}, func(groups rel) rel {
		n := len(groups.columns())
		var on []expr.Expr
		for _, e := range conds {
			on = append(on, remap(g.settle(e), func(c int) int {
				if c >= rightOfGroups {
					return c - rightOfGroups + n
				}
				return c
			}))
		}
		return &join{kind: markJoin, left: groups, right: r, cond: conjunction(on), pos: at}
	})
}

// asked is subquery for one that becomes a mark. Over groups it may not speak of them.
func (b *binder) asked(p *exprPlace, q parser.Query, width int) (r rel, conds []expr.Expr, err error) {
	if p.grouped == nil {
		r, conds, _, err = b.subquery(p, q, width, true)
		return r, conds, err
	}
	r, err = b.query(q, around{ctes: p.grouped.before.scope.common})
	if err != nil && len(b.outerColumns(p.grouped.before.scope, q)) > 0 {
		return nil, nil, b.fail(errs.NotBuiltYet, q.Position(), "a subquery among aggregates that uses a column of the query around it is not built yet").WithHint("group in a subquery of FROM")
	}
	if err == nil && width > 0 && len(r.columns()) != width {
		err = b.fail(errs.SQLTypeMismatch, q.Position(), "a subquery of %d columns, %d wanted", len(r.columns()), width)
	}
	return r, nil, err
}

// scalarOfGroups is a query as a value among aggregates: a row that is joined to every group.
func (b *binder) scalarOfGroups(p *exprPlace, x *parser.Subquery) (expr.Expr, error) {
	r, _, err := b.asked(p, x.Query, 1)
	if err != nil {
		return nil, err
	}
	single := operator.AggCall{Func: operator.Single, Filter: -1}
	single.Type, _ = operator.Single.ResultType(r.columns()[0].Type)
	value := &aggregate{in: r, calls: []operator.AggCall{single}, schema: row.Schema{{Name: "$value", Type: single.Type}}}
	return p.grouped.extra(single.Type, func(groups rel) rel {
		return &join{kind: innerJoin, left: groups, right: value, pos: x.Pos}
	}), nil
}
