package plan

import (
	"strconv"
	"strings"

	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// callColumn is the number of a call's column as long as it is not known how many keys stand before it.
const callColumn = -1 << 20

// groupingColumn is the same of a call of GROUPING.
const groupingColumn = 2 * callColumn

// settle gives the columns of calls their numbers.
func (g *grouping) settle(e expr.Expr) expr.Expr {
	return remap(e, func(c int) int {
		if c < 3*callColumn {
			return c - extraColumn + len(g.keys) + len(g.calls) + len(g.groupings)
		}
		if c < callColumn+callColumn/2 {
			return c - groupingColumn + len(g.keys) + len(g.calls)
		}
		if c < callColumn/2 {
			return c - callColumn + len(g.keys)
		}
		return c
	})
}

// groupKeys binds GROUP BY: expressions, numbers and names of items.
func (b *binder) groupKeys(g *grouping, q *parser.Select, items []parser.Expr, names []string) error {
	key := func(x parser.Expr) (int, error) {
		if n, ok := x.(*parser.NumberLit); ok {
			i, err := strconv.Atoi(n.Text)
			if err != nil || i < 1 || i > len(items) {
				return 0, b.fail(errs.SQLUnknownName, n.Pos, "there is no item number %s", n.Text)
			}
			x = items[i-1]
		}
		if c, ok := x.(*parser.ColumnRef); ok && len(c.Name) == 1 && len(g.before.scope.lookup("", c.Name[0].Text)) == 0 {
			for i, name := range names {
				if strings.EqualFold(name, c.Name[0].Text) {
					x = items[i]
				}
			}
		}
		if hasAggregate(x) {
			return 0, b.fail(errs.SQLGrouping, x.Position(), "GROUP BY of an aggregate")
		}
		e, err := b.expr(g.before, x)
		if err != nil {
			return 0, err
		}
		for i, k := range g.keys {
			if k.String() == e.String() {
				return i, nil
			}
		}
		g.keys, g.wrote = append(g.keys, e), append(g.wrote, x)
		return len(g.keys) - 1, nil
	}
	for i := range q.GroupBy.Items {
		item := &q.GroupBy.Items[i]
		sets, err := b.groupItem(item, key)
		if err != nil {
			return err
		}
		if err := b.addSets(g, sets, item.Pos); err != nil {
			return err
		}
	}
	if q.GroupBy.Distinct {
		g.sets = distinctSets(g.sets)
	}
	if len(g.sets) == 1 {
		g.sets = nil
	}
	return nil
}

// groupByPulled adds what the conditions of a correlated subquery compare to its keys. Each has to be an equality of an
// expression inside with one outside.
func (b *binder) groupByPulled(g *grouping, pulled []expr.Expr, a around, at parser.Pos) ([]expr.Expr, error) {
	if g.sets != nil {
		return nil, b.fail(errs.NotBuiltYet, at, "grouping sets in a subquery that is compared with the query around it are not built yet")
	}
	var out []expr.Expr
	for _, e := range pulled {
		for _, c := range expr.Conjuncts(e) {
			l, r, ok := equality(c)
			if a.domain != nil {
				l, r, ok = tiedTo(c)
			}
			if ok && insideOnly(r) {
				l, r = r, l
			}
			if !ok || !insideOnly(l) || !outsideOnly(r) {
				return nil, b.fail(errs.NotBuiltYet, at, "a subquery with an aggregate that is compared with the query around it by anything but = is not built yet")
			}
			k := -1
			for i, key := range g.keys {
				if key.String() == l.String() {
					k = i
				}
			}
			if k < 0 {
				k = len(g.keys)
				g.keys, g.wrote = append(g.keys, l), append(g.wrote, &parser.Star{}) // which no expression is
			}
			eq, err := expr.Resolve(c.(*expr.Call).Fn.Name(), []expr.Expr{&expr.Column{Index: k, T: l.Type()}, r})
			if err != nil {
				return nil, b.place(err, at)
			}
			out = append(out, eq)
		}
	}
	return out, nil
}

func insideOnly(e expr.Expr) bool {
	for _, c := range expr.Columns(e) {
		if c < 0 {
			return false
		}
	}
	return true
}

func outsideOnly(e expr.Expr) bool {
	for _, c := range expr.Columns(e) {
		if c >= 0 {
			return false
		}
	}
	return true
}

// equality is the sides of a = b.
func equality(e expr.Expr) (l, r expr.Expr, ok bool) {
	c, ok := e.(*expr.Call)
	if !ok || c.Fn.Name() != "=" || len(c.Args) != 2 {
		return nil, nil, false
	}
	return c.Args[0], c.Args[1], true
}

// tiedTo is the sides of a = b and of a IS NOT DISTINCT FROM b.
func tiedTo(e expr.Expr) (l, r expr.Expr, ok bool) {
	c, ok := e.(*expr.Call)
	if !ok || c.Fn.Name() != "=" && c.Fn.Name() != "IS NOT DISTINCT FROM" || len(c.Args) != 2 {
		return nil, nil, false
	}
	return c.Args[0], c.Args[1], true
}

// aggregated is the aggregate of a SELECT, with the subqueries among its aggregates.
func (b *binder) aggregated(g *grouping, q *parser.Select, a around, pulled []expr.Expr) (rel, error) {
	if len(g.extras) > 0 && len(pulled) > 0 && a.domain == nil {
		return nil, b.fail(errs.NotBuiltYet, q.Pos, "a subquery among the aggregates of another one that uses a column of the query around it is not built yet")
	}
	r := b.makeAggregate(g)
	if a.domain != nil && q.GroupBy == nil {
		var err error
		if r, err = b.withNone(r, g, a, q.Pos); err != nil {
			return nil, err
		}
	}
	for _, add := range g.extras {
		r = add(r)
	}
	return r, nil
}

// makeAggregate is the aggregate that the bound expressions ask for, over a projection of keys and arguments.
func (b *binder) makeAggregate(g *grouping) rel {
	in := *g.before.in
	p := &project{in: in}
	agg := &aggregate{in: p}
	add := func(e expr.Expr, name string) {
		p.exprs = append(p.exprs, e)
		p.schema = append(p.schema, row.Field{Name: name, Type: e.Type()})
	}
	for i, k := range g.keys {
		add(k, "$key"+strconv.Itoa(i))
		agg.group = append(agg.group, i)
		agg.schema = append(agg.schema, row.Field{Name: "$key" + strconv.Itoa(i), Type: k.Type()})
	}
	for i, a := range g.args {
		add(a, "$arg"+strconv.Itoa(i))
	}
	agg.calls = append(agg.calls, g.calls...)
	// Arguments were counted by themselves: behind the keys they stand now.
	for i := range agg.calls {
		if agg.calls[i].Arg >= 0 {
			agg.calls[i].Arg += len(g.keys)
		}
		if agg.calls[i].Filter >= 0 {
			agg.calls[i].Filter += len(g.keys)
		}
		agg.calls[i].Order = movedOrder(agg.calls[i].Order, func(c int) int { return c + len(g.keys) })
	}
	for i := range agg.calls {
		agg.schema = append(agg.schema, row.Field{Name: "$call" + strconv.Itoa(i), Type: agg.calls[i].Type})
	}
	if g.sets != nil || g.groupings != nil {
		return g.groupSets(agg)
	}
	return agg
}

// findRanks lists the calls of ROW_NUMBER() OVER in the items and in QUALIFY.
func (b *binder) findRanks(q *parser.Select, items []parser.Expr) ([]*parser.Call, error) {
	var found []*parser.Call
	look := func(n parser.Node) bool {
		switch n := n.(type) {
		case *parser.Subquery, *parser.Exists:
			return false
		case *parser.Call:
			if n.Over != nil && strings.EqualFold(n.Name.Last().Text, "ROW_NUMBER") {
				found = append(found, n)
			}
		}
		return true
	}
	for _, x := range items {
		if _, ok := x.(*boundColumn); !ok {
			parser.Walk(x, look)
		}
	}
	if q.Qualify != nil {
		parser.Walk(q.Qualify, look)
	}
	for _, c := range found {
		if c.Over.Base.Text != "" {
			for _, w := range q.Windows {
				if strings.EqualFold(w.Name.Text, c.Over.Base.Text) {
					over := *w.Window
					if len(c.Over.PartitionBy) > 0 {
						over.PartitionBy = c.Over.PartitionBy
					}
					if len(c.Over.OrderBy) > 0 {
						over.OrderBy = c.Over.OrderBy
					}
					c.Over = &over
				}
			}
		}
	}
	return found, nil
}

// rank adds the column of each ROW_NUMBER to the relation. Equal ones are one.
func (b *binder) rank(p *exprPlace, calls []*parser.Call, a around) error {
	var ranks []rankCall
	for _, c := range calls {
		if len(c.Over.OrderBy) == 0 {
			return b.fail(errs.SQLSyntax, c.Pos, "ROW_NUMBER() needs an order").WithHint("OVER (PARTITION BY .. ORDER BY ..)")
		}
		base := identity(*p.in)
		column := func(x parser.Expr) (int, error) {
			e, err := b.expr(p, x)
			if err != nil {
				return 0, err
			}
			if col, ok := e.(*expr.Column); ok && col.Index >= 0 {
				return col.Index, nil
			}
			if usesOuter(e) {
				return 0, b.fail(errs.NotBuiltYet, x.Position(), "a column of the query around it in OVER is not built yet in this place")
			}
			base.exprs = append(base.exprs, e)
			base.schema = append(base.schema[:len(base.schema):len(base.schema)], row.Field{Name: "$over" + strconv.Itoa(len(base.exprs)), Type: e.Type()})
			p.scope.cols = append(p.scope.cols, scopeColumn{table: "$over", name: "$over", typ: e.Type(), hidden: true})
			return len(base.exprs) - 1, nil
		}
		t := &top{limit: -1, rank: true, pos: c.Pos, rankName: "$rank" + strconv.Itoa(len(ranks))}
		if a.domain != nil {
			for i := range a.domain.rel.columns() {
				t.partition = append(t.partition, i)
			}
		}
		for _, x := range c.Over.PartitionBy {
			i, err := column(x)
			if err != nil {
				return err
			}
			t.partition = append(t.partition, i)
		}
		for _, o := range c.Over.OrderBy {
			i, err := column(o.X)
			if err != nil {
				return err
			}
			t.order = append(t.order, orderOf(o, i))
		}
		t.in = *p.in
		if len(base.exprs) > len((*p.in).columns()) {
			t.in = base
		}
		ranks = append(ranks, rankCall{call: c, column: len(t.in.columns())})
		p.scope.cols = append(p.scope.cols, scopeColumn{table: "$rank", name: t.rankName, typ: row.Type{Kind: row.BigInt, NotNull: true}, hidden: true})
		*p.in = t
	}
	p.ranks = &ranks
	return nil
}
