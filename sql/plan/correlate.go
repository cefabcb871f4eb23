package plan

import (
	"fmt"
	"maps"
	"slices"

	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// A correlated subquery is computed in one of two ways.
//
// Where it only compares columns of its own with columns around it, in WHERE, those conditions are pulled out, and the
// subquery is a relation of its own, joined on them.
//
// All others are computed for every combination of values that the columns around have, their domain: it is the first
// relation of the subquery's FROM, its columns take the place of those around, stay among the columns through everything
// that the subquery does (they are grouped by, they divide what is ordered and limited) and are compared with the columns
// around at the end. Changed rows around change the domain, and with it the subquery's rows.

// domain is the combinations of values of some columns around a subquery.
type domain struct {
	rel   rel
	outer []int // the column of the scope around that each column of rel has
	used  map[int]bool
}

// at is the column of the domain that has a column of the scope around.
func (d *domain) at(outer int) (int, bool) {
	i := slices.Index(d.outer, outer)
	if i >= 0 {
		d.used[outer] = true
	}
	return i, i >= 0
}

// maxDomains bounds how many subqueries of a statement may be bound again with a domain: each level may be bound twice.
const maxDomains = 100

// subquery binds a query inside an expression of p. Its conditions on p's columns are over p's columns and, behind them,
// the query's.
//
// width is how many columns it has to give, or 0. empty is what an aggregate is that it gives where no condition holds,
// else nil; with rows, that is refused and the relation has a row for it.
func (b *binder) subquery(p *exprPlace, q parser.Query, width int, rows bool) (r rel, conds []expr.Expr, empty expr.Expr, err error) {
	warnings := len(b.warnings)
	r, conds, empty, err = b.pulledSubquery(p, q)
	if e, ok := errs.As(err); err == nil && empty != nil && rows || ok && e.Code == errs.NotBuiltYet {
		b.warnings = b.warnings[:warnings]
		empty = nil
		again, cs, derr := b.domainSubquery(p, q)
		if again != nil || derr != nil {
			r, conds, err = again, cs, derr
		}
	}
	if err != nil {
		return nil, nil, nil, err
	}
	if w := ownColumns(r.columns()); width > 0 && w != width {
		return nil, nil, nil, b.fail(errs.SQLTypeMismatch, q.Position(), "a subquery of %d columns, %d wanted", w, width)
	}
	return r, conds, empty, nil
}

func (b *binder) pulledSubquery(p *exprPlace, q parser.Query) (r rel, conds []expr.Expr, empty expr.Expr, err error) {
	var pulled []expr.Expr
	r, err = b.query(q, around{outer: p.scope, ctes: p.scope.common, pulled: &pulled, empty: &empty})
	return r, overBoth(p, pulled), empty, err
}

// domainSubquery binds a subquery over the domain of the columns of p that it names. It returns nil if it names none.
func (b *binder) domainSubquery(p *exprPlace, q parser.Query) (rel, []expr.Expr, error) {
	names := b.outerColumns(p.scope, q)
	for len(names) > 0 {
		if b.domains++; b.domains > maxDomains {
			return nil, nil, b.fail(errs.NotBuiltYet, q.Position(), "more than %d correlated subqueries in each other are not built yet", maxDomains)
		}
		from := *p.in
		if p.plain != nil && names[len(names)-1] < len(p.plain.columns()) {
			from = p.plain
		}
		s := from.columns()
		base := &project{in: from}
		for _, c := range names {
			base.exprs = append(base.exprs, column(s, c))
			base.schema = append(base.schema, s[c])
		}
		d := &domain{rel: distinct(base), outer: names, used: map[int]bool{}}
		var pulled []expr.Expr
		r, err := b.query(q, around{outer: p.scope, ctes: p.scope.common, pulled: &pulled, domain: d})
		if err != nil {
			return nil, nil, err
		}
		if len(d.used) == len(names) || len(d.used) == 0 {
			return r, overBoth(p, pulled), nil
		}
		// A name that also is one of its own was taken for one around.
		names = slices.Sorted(maps.Keys(d.used))
	}
	return nil, nil, nil
}

// overBoth puts the conditions of a subquery over the columns of p and, behind them, the subquery's.
func overBoth(p *exprPlace, pulled []expr.Expr) []expr.Expr {
	n := len((*p.in).columns())
	for i, e := range pulled {
		pulled[i] = remap(e, func(c int) int {
			if c < 0 {
				return -1 - c
			}
			return n + c
		})
	}
	return pulled
}

// outerColumns are the columns of a scope that a subquery may name.
func (b *binder) outerColumns(s *scope, q parser.Query) []int {
	found := map[int]bool{}
	parser.Walk(q, func(n parser.Node) bool {
		if ref, ok := n.(*parser.ColumnRef); ok {
			if e, err := b.column(&scope{outer: s}, ref); err == nil {
				for _, c := range expr.Columns(e) {
					found[-1-c] = true
				}
			}
		}
		return true
	})
	return slices.Sorted(maps.Keys(found))
}

// start is the relation of a FROM before its first table: the domain, if there is one.
func (a around) start() (rel, *scope) {
	if a.domain == nil {
		return nil, nil
	}
	sc := &scope{star: []int{}}
	for _, f := range a.domain.rel.columns() {
		sc.cols = append(sc.cols, scopeColumn{table: "$domain", typ: f.Type, hidden: true})
	}
	return a.domain.rel, sc
}

// compared are the conditions that tie the columns of the domain, which begin at a column of the relation, to those around.
func (a around) compared(from int) ([]expr.Expr, error) {
	var out []expr.Expr
	if a.domain == nil {
		return nil, nil
	}
	for i, f := range a.domain.rel.columns() {
		e, err := expr.Resolve("IS NOT DISTINCT FROM", []expr.Expr{&expr.Column{Index: from + i, T: f.Type}, &expr.Column{Index: outerColumn(a.domain.outer[i]), T: f.Type}})
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// overDomain is a relation that does not speak of the columns around, for each row of the domain.
func (b *binder) overDomain(r rel, a around, at parser.Pos) (rel, error) {
	if a.domain == nil {
		return r, nil
	}
	n := len(r.columns())
	conds, err := a.compared(n)
	if err != nil {
		return nil, b.place(err, at)
	}
	p := identity(&join{kind: innerJoin, left: r, right: a.domain.rel, pos: at})
	p.schema = append(row.Schema(nil), p.schema...)
	for i := n; i < len(p.schema); i++ {
		p.schema[i].Name = fmt.Sprint(outerPrefix, i-n)
	}
	*a.pulled = append(*a.pulled, conds...)
	return p, nil
}

// withNone gives each row of the domain a row of the aggregate that groups by it: COUNT is 0 of no rows, all others are
// NULL.
func (b *binder) withNone(agg rel, g *grouping, a around, at parser.Pos) (rel, error) {
	d := a.domain.rel.columns()
	n := len(d)
	j := &join{kind: leftJoin, left: a.domain.rel, right: agg, pos: at}
	s := agg.columns()
	var conds []expr.Expr
	p := &project{in: j}
	for i, f := range d {
		e, err := expr.Resolve("IS NOT DISTINCT FROM", []expr.Expr{column(d, i), &expr.Column{Index: n + i, T: s[i].Type}})
		if err != nil {
			return nil, b.place(err, at)
		}
		conds = append(conds, e)
		p.exprs, p.schema = append(p.exprs, column(d, i)), append(p.schema, row.Field{Name: s[i].Name, Type: f.Type})
	}
	j.cond = conjunction(conds)
	all := j.columns()
	for i, c := range g.calls {
		e := expr.Expr(column(all, n+len(d)+i))
		if c.Func == operator.Count {
			var err error
			if e, err = expr.Resolve("COALESCE", []expr.Expr{e, expr.Int(c.Type, 0)}); err != nil {
				return nil, b.place(err, at)
			}
		} else if c.Type.NotNull {
			return nil, b.fail(errs.NotBuiltYet, at, "this aggregate in a subquery that uses a column of the query around it is not built yet")
		}
		p.exprs, p.schema = append(p.exprs, e), append(p.schema, row.Field{Name: s[len(d)+i].Name, Type: c.Type})
	}
	return p, nil
}

// usesOuter tells whether an expression has columns of the query around, which only conditions that are pulled may have.
func usesOuter(es ...expr.Expr) bool {
	for _, e := range es {
		if e == nil {
			continue
		}
		for _, c := range expr.Columns(e) {
			if c < 0 && c > callColumn/2 {
				return true
			}
		}
	}
	return false
}

// lateral binds a query of FROM that may name the columns of what stands before it, and joins it to that.
func (b *binder) lateral(x *parser.Derived, left rel, ls *scope, a around, kind joinKind, visible bool) (*join, *scope, error) {
	names := &scope{cols: ls.cols, outer: a.outer, domain: a.domain, common: a.ctes}
	if !visible {
		names.cols = make([]scopeColumn, len(ls.cols))
		for i, c := range ls.cols {
			names.cols[i] = scopeColumn{table: "$hidden", typ: c.typ, hidden: true}
		}
	}
	r, conds, _, err := b.subquery(&exprPlace{scope: names, in: &left}, x.Query, 0, true)
	if err != nil {
		return nil, nil, err
	}
	own := ownColumns(r.columns())
	rs := scopeOf(x.Alias.Name.Text, r.columns())
	if n := x.Alias.Columns; len(n) > 0 {
		if len(n) != own {
			return nil, nil, b.fail(errs.SQLTypeMismatch, x.Pos, "%d names for %d columns", len(n), own)
		}
		for i := range n {
			rs.cols[i].name = n[i].Text
		}
	}
	for i := own; i < len(rs.cols); i++ {
		rs.cols[i] = scopeColumn{table: "$hidden", typ: rs.cols[i].typ, hidden: true}
	}
	return &join{kind: kind, left: left, right: r, cond: conjunction(conds), pos: x.Pos}, rs, nil
}
