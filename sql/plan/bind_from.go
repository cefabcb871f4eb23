package plan

import (
	"slices"
	"strings"

	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
	"github.com/weirstream/weir/sql/parser"
)

// from binds FROM. Without it there is one row without columns. The domain of a correlated subquery comes first.
func (b *binder) from(refs []parser.TableRef, a around) (rel, *scope, error) {
	r, sc := a.start()
	for _, x := range refs {
		inside := around{outer: a.outer, ctes: a.ctes}
		var right rel
		var rs *scope
		var err error
		switch x := x.(type) {
		case *parser.Unnest:
			if r == nil {
				right, rs, err = b.tableRef(x, inside)
				break
			}
			if r, sc, err = b.unnest(x, r, sc, a, false); err != nil {
				return nil, nil, err
			}
			continue
		case *parser.Derived:
			if x.Sample != nil || r == nil {
				right, rs, err = b.tableRef(x, inside)
				break
			}
			var j *join
			if x.Lateral {
				j, rs, err = b.lateral(x, r, sc, a, innerJoin, true)
			} else if right, rs, err = b.tableRef(x, inside); err != nil && a.domain != nil && b.namesOuter(a, x) {
				j, rs, err = b.lateral(x, r, sc, a, innerJoin, false)
			}
			if err == nil && j != nil {
				r, sc = j, &scope{cols: append(sc.cols[:len(sc.cols):len(sc.cols)], rs.cols...), star: joinedStar(sc, rs, nil)}
				continue
			}
		default:
			right, rs, err = b.tableRef(x, inside)
		}
		if err != nil {
			if a.domain == nil && b.namesOuter(a, x) {
				err = b.fail(errs.NotBuiltYet, x.Position(), "a column of the query around it is not built yet in FROM")
			}
			return nil, nil, err
		}
		if r == nil {
			r, sc = right, rs
			continue
		}
		r = &join{kind: innerJoin, left: r, right: right, pos: x.Position()}
		sc = &scope{cols: append(sc.cols[:len(sc.cols):len(sc.cols)], rs.cols...), star: joinedStar(sc, rs, nil)}
	}
	if r == nil {
		r, sc = &values{rows: [][]*expr.Const{{}}}, &scope{}
	}
	sc.outer, sc.domain, sc.common = a.outer, a.domain, a.ctes
	return r, sc, nil
}

// namesOuter tells whether something in FROM may name a column of the query around.
func (b *binder) namesOuter(a around, x parser.TableRef) bool {
	return a.outer != nil && len(b.outerColumns(a.outer, &parser.Select{From: []parser.TableRef{x}})) > 0
}

func (b *binder) tableRef(x parser.TableRef, a around) (rel, *scope, error) {
	switch x := x.(type) {
	case *parser.Table:
		if x.AsOf != nil && !b.asOf {
			return nil, nil, b.fail(errs.NotBuiltYet, x.AsOf.Position(), "FOR SYSTEM_TIME AS OF is not built yet in this place").WithHint("it may follow a table at the right side of a JOIN")
		}
		if x.Sample != nil {
			return nil, nil, b.fail(errs.NotBuiltYet, x.Pos, "TABLESAMPLE is not built yet")
		}
		r, name, err := b.namedTable(x.Name, a.ctes)
		if err != nil {
			return nil, nil, err
		}
		if o := b.catalog.find(x.Name.Last().Text); o != nil && len(x.Hints) > 0 {
			with, err := b.withOptions(o, x.Hints)
			if err != nil {
				return nil, nil, err
			}
			if with != o {
				r = with.table.read
			}
		}
		return b.aliased(r, name, x.Alias, x.Pos)
	case *parser.Derived:
		if x.Sample != nil {
			return nil, nil, b.fail(errs.NotBuiltYet, x.Pos, "TABLESAMPLE is not built yet")
		}
		r, err := b.query(x.Query, around{ctes: a.ctes})
		if err != nil {
			return nil, nil, err
		}
		return b.aliased(r, "", x.Alias, x.Pos)
	case *parser.Join:
		return b.join(x, a)
	case *parser.Unnest:
		return b.unnest(x, &values{rows: [][]*expr.Const{{}}}, &scope{}, a, false)
	case *parser.TableFunction:
		return nil, nil, b.fail(errs.NotBuiltYet, x.Pos, "the table function %s is not built yet", strings.ToUpper(x.Call.Name.Last().Text))
	case *parser.MatchRecognize:
		return nil, nil, b.fail(errs.NotBuiltYet, x.Pos, "MATCH_RECOGNIZE is not built yet")
	}
	return nil, nil, b.fail(errs.NotBuiltYet, x.Position(), "this is not built yet in FROM")
}

func (b *binder) aliased(r rel, name string, alias parser.Alias, at parser.Pos) (rel, *scope, error) {
	if alias.Name.Text != "" {
		name = alias.Name.Text
	}
	r, err := b.rename(r, alias.Columns, at)
	if err != nil {
		return nil, nil, err
	}
	if e := b.fromTTLs[name]; e != nil && name != "" {
		r = &expiring{in: r, ttl: e.ttl, pos: e.pos, used: e.used}
	}
	return r, scopeOf(name, r.columns()), nil
}

// namedTable is a CTE, a view or a table.
func (b *binder) namedTable(name parser.Name, c *ctes) (rel, string, error) {
	last := name.Last().Text
	if len(name) == 1 {
		for ; c != nil; c = c.parent {
			if strings.EqualFold(c.name, last) {
				return c.rel, last, nil
			}
		}
	}
	o := b.catalog.find(last)
	if len(name) > 1 {
		if in := b.catalog.objects[name[len(name)-2].Text+"."+last]; in != nil {
			o = in
		}
	}
	if o == nil {
		e := b.fail(errs.SQLUnknownName, name.Position(), "there is no table or view %s", name)
		if hint := nearest.Hint(last, b.catalog.names()); hint != "" {
			return nil, "", e.WithHint("%s", hint)
		}
		return nil, "", e.WithHint("CREATE TABLE and CREATE VIEW must stand before the statement that uses them")
	}
	if o.view != nil {
		b.read(o.view.name)
		if b.added > 0 {
			r, err := b.readKept(o.view)
			return r, last, err
		}
		return o.view.rel, last, nil
	}
	b.read(o.table.name)
	if !o.table.kind.Source {
		return nil, "", b.fail(errs.SQLUnknownName, name.Position(), "table %s cannot be read: connector '%s' only writes", last, o.table.connector)
	}
	return o.table.read, last, nil
}

// static tells whether a join looks rows up in a table that does not change: JOIN t FOR SYSTEM_TIME AS OF, where t ends
// by itself and only has inserts.
func (b *binder) static(x *parser.Join, left *scope, a around) (bool, error) {
	t, ok := x.Right.(*parser.Table)
	if !ok || t.AsOf == nil {
		return false, nil
	}
	if b.added > 0 {
		return false, b.fail(errs.NotBuiltYet, t.AsOf.Position(), "FOR SYSTEM_TIME AS OF is not built yet in a statement that is added to a running pipeline")
	}
	if _, err := b.expr(&exprPlace{scope: &scope{cols: left.cols, outer: a.outer}}, t.AsOf); err != nil {
		return false, err
	}
	o := b.catalog.find(t.Name.Last().Text)
	if o == nil || o.table == nil || o.table.kind.Changelog || o.table.kind.Bounded == nil || !o.table.kind.Bounded(o.table.options) {
		return false, b.fail(errs.NotBuiltYet, t.AsOf.Position(), "FOR SYSTEM_TIME AS OF over a table that changes is not built yet").
			WithHint("over a table that ends by itself, such as a file, it is a look-up")
	}
	if x.Kind != parser.InnerJoin && x.Kind != parser.LeftJoin {
		return false, b.fail(errs.SQLSyntax, x.OpPos, "FOR SYSTEM_TIME AS OF goes with JOIN and LEFT JOIN only")
	}
	return true, nil
}

func (b *binder) join(x *parser.Join, a around) (rel, *scope, error) {
	if u, ok := x.Right.(*parser.Unnest); ok {
		return b.unnestJoin(x, u, a)
	}
	left, ls, err := b.tableRef(x.Left, a)
	if err != nil {
		return nil, nil, err
	}
	if d, ok := x.Right.(*parser.Derived); ok && d.Lateral && d.Sample == nil {
		return b.lateralJoin(x, d, left, ls, a)
	}
	static, err := b.static(x, ls, a)
	if err != nil {
		return nil, nil, err
	}
	b.asOf = static
	right, rs, err := b.tableRef(x.Right, a)
	b.asOf = false
	if err != nil {
		return nil, nil, err
	}
	kind := map[parser.JoinKind]joinKind{parser.InnerJoin: innerJoin, parser.LeftJoin: leftJoin, parser.RightJoin: rightJoin, parser.FullJoin: fullJoin,
		parser.CrossJoin: innerJoin, parser.SemiJoin: semiJoin, parser.AntiJoin: antiJoin}[x.Kind]
	both := &scope{cols: append(ls.cols[:len(ls.cols):len(ls.cols)], rs.cols...), outer: a.outer, common: a.ctes}
	j := &join{kind: kind, left: left, right: right, pos: x.OpPos, static: static}
	using := x.Using
	var common []int  // the columns of USING that are there
	var full [][2]int // the two columns of each, of a FULL JOIN
	if x.Natural {
		for _, c := range ls.cols {
			if len(rs.lookup("", c.name)) == 1 {
				using = append(using, parser.Ident{Text: c.name, Pos: x.OpPos})
			}
		}
	}
	switch {
	case x.On != nil && kind == innerJoin && !static && hasQuery(x.On):
		// An inner join may be asked afterwards.
		var r rel = j
		place := &exprPlace{scope: both, in: &r}
		both.star = joinedStar(ls, rs, nil)
		for _, c := range conjuncts(x.On) {
			var pulled []expr.Expr
			if err := b.where(place, c, a, &pulled); err != nil {
				return nil, nil, err
			}
			if len(pulled) > 0 {
				return nil, nil, b.fail(errs.NotBuiltYet, c.Position(), "ON with a column of the query around it is not built yet")
			}
		}
		return r, both, nil
	case x.On != nil:
		if j.cond, err = b.condition(&exprPlace{scope: both}, x.On, "ON"); err != nil {
			return nil, nil, err
		}
		if !insideOnly(j.cond) {
			return nil, nil, b.fail(errs.NotBuiltYet, x.On.Position(), "ON with a column of the query around it is not built yet")
		}
	case len(using) > 0:
		var conds []expr.Expr
		for _, u := range using {
			l, r := ls.lookup("", u.Text), rs.lookup("", u.Text)
			if len(l) != 1 || len(r) != 1 {
				return nil, nil, b.fail(errs.SQLUnknownName, u.Pos, "USING needs column %s once on each side", u.Text)
			}
			eq, err := expr.Resolve("=", []expr.Expr{&expr.Column{Index: l[0], T: ls.cols[l[0]].typ}, &expr.Column{Index: len(ls.cols) + r[0], T: rs.cols[r[0]].typ}})
			if err != nil {
				return nil, nil, b.place(err, u.Pos)
			}
			conds = append(conds, eq)
			// The column is there once: the right one is reached by its table's name alone.
			hide, keep := &both.cols[len(ls.cols)+r[0]], l[0]
			if kind == rightJoin {
				hide, keep = &both.cols[l[0]], len(ls.cols)+r[0]
			}
			common = append(common, keep)
			hide.hidden, hide.merged = true, true
			if kind == fullJoin { // it is in neither side alone
				both.cols[l[0]].hidden, both.cols[l[0]].merged = true, true
				full = append(full, [2]int{l[0], len(ls.cols) + r[0]})
				common[len(common)-1] = len(ls.cols) + len(rs.cols) + len(full) - 1
			}
		}
		j.cond = expr.And(conds...)
	}
	both.star = joinedStar(ls, rs, common)
	// Whether a column may be NULL is another matter behind an outer join.
	for i, f := range append(append(j.left.columns()[:0:0], j.left.columns()...), j.right.columns()...) {
		both.cols[i].typ = f.Type
		if kind == rightJoin || kind == fullJoin {
			if i < len(ls.cols) {
				both.cols[i].typ.NotNull = false
			}
		}
		if (kind == leftJoin || kind == fullJoin) && i >= len(ls.cols) {
			both.cols[i].typ.NotNull = false
		}
	}
	if kind == semiJoin || kind == antiJoin {
		both.cols, both.star = both.cols[:len(ls.cols)], ls.star
	}
	if len(full) == 0 {
		return j, both, nil
	}
	p := identity(j)
	p.schema = append(row.Schema(nil), p.schema...)
	for _, f := range full {
		e, err := expr.Resolve("COALESCE", []expr.Expr{column(j.columns(), f[0]), column(j.columns(), f[1])})
		if err != nil {
			return nil, nil, b.place(err, x.OpPos)
		}
		name := both.cols[f[0]].name
		p.exprs, p.schema = append(p.exprs, e), append(p.schema, row.Field{Name: name, Type: e.Type()})
		both.cols = append(both.cols, scopeColumn{name: name, typ: e.Type()})
	}
	return p, both, nil
}

// lateralJoin is a join with a query that may name the columns of the left side.
func (b *binder) lateralJoin(x *parser.Join, d *parser.Derived, left rel, ls *scope, a around) (rel, *scope, error) {
	kind := innerJoin
	switch {
	case x.Kind == parser.LeftJoin:
		kind = leftJoin
	case x.Kind != parser.InnerJoin && x.Kind != parser.CrossJoin:
		return nil, nil, b.fail(errs.SQLSyntax, x.OpPos, "LATERAL goes with JOIN, CROSS JOIN and LEFT JOIN only")
	case x.Natural || len(x.Using) > 0:
		return nil, nil, b.fail(errs.NotBuiltYet, x.OpPos, "NATURAL and USING with LATERAL are not built yet").WithHint("write ON")
	}
	j, rs, err := b.lateral(d, left, ls, around{outer: a.outer, ctes: a.ctes}, kind, true)
	if err != nil {
		return nil, nil, err
	}
	both := &scope{cols: append(ls.cols[:len(ls.cols):len(ls.cols)], rs.cols...), star: joinedStar(ls, rs, nil), outer: a.outer, common: a.ctes}
	if x.On != nil {
		on, err := b.condition(&exprPlace{scope: both}, x.On, "ON")
		if err != nil {
			return nil, nil, err
		}
		if !insideOnly(on) {
			return nil, nil, b.fail(errs.NotBuiltYet, x.On.Position(), "ON with a column of the query around it is not built yet")
		}
		if j.cond != nil {
			on = expr.And(j.cond, on)
		}
		j.cond = on
	}
	for i, f := range j.columns() {
		both.cols[i].typ = f.Type
	}
	return j, both, nil
}

// joinedStar is the order of * over two scopes side by side: the columns that they have in common come first.
func joinedStar(left, right *scope, common []int) []int {
	star := slices.Clone(common)
	add := func(c int) {
		if !slices.Contains(common, c) {
			star = append(star, c)
		}
	}
	for _, c := range left.starOrder() {
		add(c)
	}
	for _, c := range right.starOrder() {
		add(len(left.cols) + c)
	}
	return star
}
