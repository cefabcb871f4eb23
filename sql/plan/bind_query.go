package plan

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// around is what a query may see of what it stands in.
type around struct {
	outer *scope // of a subquery
	ctes  *ctes
	// pulled takes the conditions of a subquery that speak of the query around it; nil where none may.
	pulled *[]expr.Expr
	// empty takes what an aggregate of a subquery is over no rows, if it has no GROUP BY and conditions were pulled: then
	// no row of the relation stands for that. It is over no columns.
	empty *expr.Expr
	// domain has the columns of outer that the query names; nil: they are outer columns, and conditions on them are pulled.
	domain *domain
}

// query binds a query. The columns of the relation are named as the query names them.
func (b *binder) query(q parser.Query, a around) (rel, error) {
	if b.depth++; b.depth > 400 {
		return nil, b.fail(errs.SQLSyntax, q.Position(), "the query is nested too deeply")
	}
	defer func() { b.depth-- }()
	switch q := q.(type) {
	case *parser.With:
		a, err := b.common(q, a)
		if err != nil {
			return nil, err
		}
		return b.query(q.Body, a)
	case *parser.Ordered:
		return b.ordered(q, a)
	case *parser.SetOp:
		return b.setOp(q, a)
	case *parser.Values:
		r, err := b.values(q)
		if err != nil {
			return nil, err
		}
		return b.overDomain(r, a, q.Pos)
	case *parser.TableQuery:
		r, _, err := b.namedTable(q.Name, a.ctes)
		if err != nil {
			return nil, err
		}
		return b.overDomain(r, a, q.Position())
	case *parser.Select:
		r, _, err := b.selectQuery(q, a, nil)
		return r, err
	}
	return nil, b.fail(errs.NotBuiltYet, q.Position(), "this query is not built yet")
}

// common binds what WITH names.
func (b *binder) common(q *parser.With, a around) (around, error) {
	if q.Recursive {
		return a, b.fail(errs.NotBuiltYet, q.Pos, "WITH RECURSIVE is not built yet")
	}
	for _, t := range q.Tables {
		r, err := b.query(t.Query, around{ctes: a.ctes})
		if err != nil {
			return a, err
		}
		if r, err = b.rename(r, t.Columns, t.Name.Pos); err != nil {
			return a, err
		}
		a.ctes = &ctes{name: t.Name.Text, rel: r, parent: a.ctes}
	}
	return a, nil
}

// rename gives a relation's columns other names.
func (b *binder) rename(r rel, names []parser.Ident, at parser.Pos) (rel, error) {
	if len(names) == 0 {
		return r, nil
	}
	s := r.columns()
	if len(names) != len(s) {
		return nil, b.fail(errs.SQLTypeMismatch, at, "%d names for %d columns", len(names), len(s))
	}
	p := identity(r)
	p.schema = append(row.Schema(nil), s...)
	for i, n := range names {
		p.schema[i].Name = n.Text
	}
	return p, nil
}

func (b *binder) values(q *parser.Values) (rel, error) {
	var bound [][]expr.Expr
	place := &exprPlace{scope: &scope{}}
	for _, r := range q.Rows {
		es, err := b.exprs(place, r...)
		if err != nil {
			return nil, err
		}
		if len(bound) > 0 && len(es) != len(bound[0]) {
			return nil, b.fail(errs.SQLTypeMismatch, q.Pos, "rows of %d and of %d values", len(bound[0]), len(es))
		}
		bound = append(bound, es)
	}
	v := &values{rows: make([][]*expr.Const, len(bound))}
	for c := range bound[0] {
		var types []row.Type
		for _, r := range bound {
			types = append(types, r[c].Type())
		}
		t, err := expr.CommonType(types...)
		if err != nil {
			return nil, b.place(err, q.Rows[0][c].Position())
		}
		for i, r := range bound {
			e, err := expr.Coerce(r[c], t)
			if err != nil {
				return nil, b.place(err, q.Rows[i][c].Position())
			}
			if e, err = expr.Fold(e, expr.Settings{Zone: b.env.Zone}); err != nil {
				return nil, b.place(err, q.Rows[i][c].Position())
			}
			k, ok := e.(*expr.Const)
			if !ok {
				return nil, b.fail(errs.NotBuiltYet, q.Rows[i][c].Position(), "VALUES of anything but constants is not built yet")
			}
			v.rows[i] = append(v.rows[i], k)
		}
		v.schema = append(v.schema, row.Field{Name: "EXPR$" + strconv.Itoa(c), Type: t})
	}
	return v, nil
}

// ordered binds ORDER BY and LIMIT. An order without a limit says nothing about a relation and is left out.
func (b *binder) ordered(q *parser.Ordered, a around) (rel, error) {
	before := 0
	if a.pulled != nil {
		before = len(*a.pulled)
	}
	r, _, width, err := b.orderedWith(q, a)
	if err != nil {
		return nil, err
	}
	var pulled []expr.Expr
	if a.pulled != nil {
		pulled = (*a.pulled)[before:]
	}
	// What only the order needed goes; what the conditions of a subquery compare stays.
	s := r.columns()
	p := &project{in: r}
	at := map[int]int{}
	for i := range s {
		if i < width || strings.HasPrefix(s[i].Name, outerPrefix) {
			at[i] = len(p.exprs)
			p.exprs = append(p.exprs, column(s, i))
			p.schema = append(p.schema, s[i])
		}
	}
	if len(p.exprs) < len(s) {
		for i, e := range pulled {
			pulled[i] = remap(e, func(c int) int {
				if c < 0 {
					return c
				}
				return at[c]
			})
		}
		r = p
	}
	return r, nil
}

// orderedWith is ordered that gives the order, too. Columns that only the order needs stand behind the output, which is
// width columns.
func (b *binder) orderedWith(q *parser.Ordered, a around) (r rel, order []orderColumn, width int, err error) {
	before := 0
	if a.pulled != nil {
		before = len(*a.pulled)
	}
	if s, ok := q.Body.(*parser.Select); ok {
		r, order, err = b.selectQuery(s, a, q.OrderBy)
		if err != nil {
			return nil, nil, 0, err
		}
		width = b.width
	} else {
		if r, err = b.query(q.Body, a); err != nil {
			return nil, nil, 0, err
		}
		width = ownColumns(r.columns())
		place := &exprPlace{scope: scopeOf("", r.columns()), in: &r}
		for _, o := range q.OrderBy {
			e, err := b.outputOrder(place.scope, o.X)
			if err != nil {
				return nil, nil, 0, err
			}
			c := e.(*expr.Column)
			order = append(order, orderOf(o, c.Index))
		}
	}
	t := &top{in: r, order: order, limit: -1}
	for _, x := range []struct {
		e  parser.Expr
		to *int64
	}{{q.Limit, &t.limit}, {q.Offset, &t.offset}} {
		if x.e == nil {
			continue
		}
		v, ok := b.rowCount(x.e)
		if n, number := x.e.(*parser.NumberLit); number {
			ok = true
			v, err = strconv.ParseInt(n.Text, 10, 40)
		}
		if !ok || err != nil || v < 0 {
			return nil, nil, 0, b.fail(errs.SQLSyntax, x.e.Position(), "LIMIT and OFFSET take a whole number")
		}
		*x.to = v
	}
	var pulled []expr.Expr
	if a.pulled != nil {
		pulled = (*a.pulled)[before:]
	}
	if t.limit >= 0 || t.offset > 0 {
		// In a correlated subquery the limit is one for each value of what it is compared with.
		for _, e := range pulled {
			l, x, ok := tiedTo(e)
			if ok && insideOnly(x) {
				l, x = x, l
			}
			c, column := uncast(l).(*expr.Column)
			if !ok || !column || c.Index < 0 || !outsideOnly(x) {
				return nil, nil, 0, b.fail(errs.NotBuiltYet, q.Position(), "LIMIT in a subquery that is compared with the query around it by anything but a column and = is not built yet")
			}
			t.partition = append(t.partition, c.Index)
		}
		r = t
	}
	return r, order, width, nil
}

// outputOrder finds what ORDER BY names among the output: a column, or its number.
func (b *binder) outputOrder(out *scope, x parser.Expr) (expr.Expr, error) {
	if n, ok := x.(*parser.NumberLit); ok {
		i, err := strconv.Atoi(n.Text)
		if err != nil || i < 1 || i > len(out.cols) {
			return nil, b.fail(errs.SQLUnknownName, n.Pos, "there is no column number %s", n.Text).WithHint("the output has %d columns", len(out.cols))
		}
		return &expr.Column{Index: i - 1, T: out.cols[i-1].typ}, nil
	}
	if c, ok := x.(*parser.ColumnRef); ok && len(c.Name) == 1 {
		return b.column(out, c)
	}
	return nil, b.fail(errs.SQLUnknownName, x.Position(), "not a column of the output")
}

// orderOf is a column to order by. NULL is the smallest value unless it is said where it stands.
func orderOf(o parser.OrderItem, c int) orderColumn {
	oc := orderColumn{column: c, desc: o.Desc, nullsLast: o.Desc}
	if o.Nulls != parser.NullsDefault {
		oc.nullsLast = o.Nulls == parser.NullsLast
	}
	return oc
}

// selectQuery binds a SELECT and what ORDER BY asks of it. Columns that only the order needs stand behind the output,
// whose width is b.width.
func (b *binder) selectQuery(q *parser.Select, a around, orderBy []parser.OrderItem) (rel, []orderColumn, error) {
	outside := b.fromTTLs
	ttls, err := b.stateTTL(q.Hints)
	if err != nil {
		return nil, nil, err
	}
	b.fromTTLs = ttls
	in, sc, err := b.from(q.From, a)
	b.fromTTLs = outside
	if err != nil {
		return nil, nil, err
	}
	if err := b.hintedTables(ttls, sc); err != nil {
		return nil, nil, err
	}
	place := &exprPlace{scope: sc, in: &in, plain: in}
	pulled, err := a.compared(0)
	if err != nil {
		return nil, nil, b.place(err, q.Pos)
	}
	if q.Where != nil {
		// What asks no query comes first: there are fewer rows to ask about.
		conds := conjuncts(q.Where)
		for _, asks := range []bool{false, true} {
			for _, x := range conds {
				if hasQuery(x) != asks {
					continue
				}
				if err := b.where(place, x, a, &pulled); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	items, names, err := b.expandItems(q, sc)
	if err != nil {
		return nil, nil, err
	}
	grouped := q.GroupBy != nil || q.Having != nil
	for _, x := range items {
		grouped = grouped || hasAggregate(x)
	}
	for _, o := range orderBy {
		grouped = grouped || hasAggregate(o.X)
	}
	rows := place
	if grouped {
		g := &grouping{before: place}
		if q.GroupBy != nil {
			if err := b.groupKeys(g, q, items, names); err != nil {
				return nil, nil, err
			}
		}
		// A correlated subquery is computed for each value of what it is compared with.
		if len(pulled) > 0 {
			if pulled, err = b.groupByPulled(g, pulled, a, q.Pos); err != nil {
				return nil, nil, err
			}
		}
		rows = &exprPlace{scope: &scope{outer: sc.outer, common: sc.common}, grouped: g, in: new(rel)}
	}
	// Expressions are bound before the aggregate is made: they say what it has to compute.
	var having expr.Expr
	if q.Having != nil {
		if having, err = b.condition(rows, q.Having, "HAVING"); err != nil {
			return nil, nil, err
		}
	}
	ranks, err := b.findRanks(q, items)
	if err != nil {
		return nil, nil, err
	}
	if len(ranks) > 0 {
		if grouped {
			return nil, nil, b.fail(errs.NotBuiltYet, ranks[0].Pos, "ROW_NUMBER over groups in the same SELECT is not built yet").WithHint("group in a subquery of FROM")
		}
		if len(pulled) > 0 && a.domain == nil {
			return nil, nil, b.fail(errs.NotBuiltYet, ranks[0].Pos, "ROW_NUMBER in a subquery that uses a column of the query around it is not built yet in this place")
		}
		if err := b.rank(place, ranks, a); err != nil {
			return nil, nil, err
		}
	}
	exprs, err := b.exprs(rows, items...)
	if err != nil {
		return nil, nil, err
	}
	var qualify expr.Expr
	if q.Qualify != nil {
		if qualify, err = b.condition(rows, q.Qualify, "QUALIFY"); err != nil {
			return nil, nil, err
		}
	}
	out := &scope{}
	for i, e := range exprs {
		out.cols = append(out.cols, scopeColumn{name: names[i], typ: e.Type()})
	}
	width := len(exprs)
	var order []orderColumn
	for _, o := range orderBy {
		e, oerr := b.outputOrder(out, o.X)
		if oerr == nil {
			order = append(order, orderOf(o, e.(*expr.Column).Index))
			continue
		}
		if _, number := o.X.(*parser.NumberLit); number {
			return nil, nil, oerr
		}
		if e, err = b.expr(rows, o.X); err != nil {
			return nil, nil, err
		}
		at := -1
		for i, x := range exprs {
			if x.String() == e.String() {
				at = i
			}
		}
		if at < 0 {
			at = len(exprs)
			exprs, names = append(exprs, e), append(names, fmt.Sprint("$order", at))
		}
		order = append(order, orderOf(o, at))
	}
	if qualify != nil && usesOuter(qualify) || having != nil && usesOuter(having) || grouped && usesOuter(rows.grouped.args...) {
		return nil, nil, b.fail(errs.NotBuiltYet, q.Pos, "a subquery that uses a column of the query around it anywhere but in its WHERE is not built yet")
	}
	if grouped {
		if in, err = b.aggregated(rows.grouped, q, a, pulled); err != nil {
			return nil, nil, err
		}
		settle := func(e expr.Expr) expr.Expr { return rows.grouped.settle(e) }
		if len(pulled) > 0 && q.GroupBy == nil && a.empty != nil {
			if q.Having != nil {
				return nil, nil, b.fail(errs.NotBuiltYet, q.Having.Position(), "HAVING without GROUP BY in a subquery that uses a column of the query around it is not built yet")
			}
			*a.empty = overNoRows(exprs[0], rows.grouped.calls)
		}
		for i := range exprs {
			exprs[i] = settle(exprs[i])
		}
		for i := range pulled {
			pulled[i] = settle(pulled[i])
		}
		if having != nil {
			in = &filter{in: in, cond: settle(having)}
		}
		if qualify != nil {
			qualify = settle(qualify)
		}
	}
	if qualify != nil {
		in = &filter{in: in, cond: qualify}
	}
	b.width = width // not before: subqueries have one, too
	p := &project{in: in}
	for i, e := range exprs {
		for _, c := range expr.Columns(e) {
			if c < 0 {
				return nil, nil, b.fail(errs.NotBuiltYet, q.Pos, "a subquery that uses a column of the query around it anywhere but in its WHERE is not built yet")
			}
		}
		p.exprs = append(p.exprs, e)
		p.schema = append(p.schema, row.Field{Name: names[i], Type: e.Type()})
	}
	if q.Distinct && len(exprs) > width {
		return nil, nil, b.fail(errs.SQLGrouping, orderBy[0].X.Position(), "SELECT DISTINCT can be ordered by its own columns only")
	}
	// Columns that the conditions of a subquery compare stand behind its own.
	if len(pulled) > 0 {
		if a.pulled == nil {
			return nil, nil, b.fail(errs.NotBuiltYet, q.Pos, "a subquery that uses a column of the query around it is not built yet in this place")
		}
		s := in.columns()
		moved := map[int]int{}
		for i, e := range pulled {
			for _, c := range expr.Columns(e) {
				if _, ok := moved[c]; c >= 0 && !ok {
					moved[c] = len(p.exprs)
					p.exprs = append(p.exprs, column(s, c))
					p.schema = append(p.schema, row.Field{Name: fmt.Sprint(outerPrefix, c), Type: s[c].Type})
				}
			}
			pulled[i] = remap(e, func(c int) int {
				if c < 0 {
					return c
				}
				return moved[c]
			})
		}
		*a.pulled = append(*a.pulled, pulled...)
	}
	if q.Distinct {
		return distinctAt(p, q.Pos), order, nil
	}
	return p, order, nil
}

// remap gives an expression's columns other numbers.
func remap(e expr.Expr, f func(int) int) expr.Expr {
	return expr.Rewrite(e, func(e expr.Expr) expr.Expr {
		if c, ok := e.(*expr.Column); ok {
			return &expr.Column{Index: f(c.Index), T: c.T}
		}
		return e
	})
}

// condition binds what has to be BOOLEAN.
func (b *binder) condition(p *exprPlace, x parser.Expr, where string) (expr.Expr, error) {
	e, err := b.expr(p, x)
	if err != nil {
		return nil, err
	}
	if k := e.Type().Kind; k != row.Boolean && k != row.Null {
		return nil, b.fail(errs.SQLTypeMismatch, x.Position(), "%s takes a condition, this is %s", where, e.Type().Nullable())
	}
	return e, nil
}

// expandItems writes * out, and gives each item its name.
func (b *binder) expandItems(q *parser.Select, sc *scope) (items []parser.Expr, names []string, err error) {
	for i, item := range q.Items {
		if star, ok := item.X.(*parser.Star); ok {
			found := false
			table := star.Qualifier.Last().Text
			order := sc.starOrder()
			if table != "" {
				order = (&scope{cols: sc.cols}).starOrder()
			}
			for _, c := range order {
				col := &sc.cols[c]
				if col.hidden && (table == "" || !col.merged) || table != "" && !strings.EqualFold(col.table, table) {
					continue
				}
				found = true
				items = append(items, &boundColumn{Expr: &parser.NullLit{Pos: star.Pos}, index: c})
				names = append(names, col.name)
			}
			if !found {
				return nil, nil, b.fail(errs.SQLUnknownName, star.Pos, "* finds no columns").WithHint("there is no FROM, or no table of that name in it")
			}
			continue
		}
		name := item.Alias.Text
		if name == "" {
			switch x := item.X.(type) {
			case *parser.ColumnRef:
				name = x.Name.Last().Text
			case *parser.Field:
				name = x.Name.Text
			default:
				name = "EXPR$" + strconv.Itoa(i)
			}
		}
		items, names = append(items, item.X), append(names, name)
	}
	return items, names, nil
}
