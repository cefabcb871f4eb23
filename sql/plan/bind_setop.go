package plan

import (
	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// setOp binds UNION, INTERSECT and EXCEPT.
func (b *binder) setOp(q *parser.SetOp, a around) (rel, error) {
	side := around{outer: a.outer, ctes: a.ctes, domain: a.domain}
	var pulled, same []expr.Expr
	if a.domain != nil {
		side.pulled = &pulled
	}
	left, err := b.query(q.Left, side)
	if err != nil {
		return nil, err
	}
	if a.domain != nil {
		side.pulled = &same
	}
	right, err := b.query(q.Right, side)
	if err != nil {
		return nil, err
	}
	if len(pulled) > 0 {
		*a.pulled = append(*a.pulled, pulled...)
	}
	l, r := left.columns(), right.columns()
	if ownColumns(l) != ownColumns(r) || len(l) != len(r) {
		return nil, b.fail(errs.SQLTypeMismatch, q.OpPos, "the queries have %d and %d columns", ownColumns(l), ownColumns(r)).WithHint("both sides of a set operation need the same number of columns")
	}
	schema := make(row.Schema, len(l))
	for i := range l {
		t, err := expr.CommonType(l[i].Type, r[i].Type)
		if err != nil {
			return nil, b.place(err, q.OpPos)
		}
		schema[i] = row.Field{Name: l[i].Name, Type: t}
	}
	for _, side := range []*rel{&left, &right} {
		if *side, err = b.coerceTo(*side, schema, q.OpPos); err != nil {
			return nil, err
		}
	}
	switch q.Kind {
	case parser.Union:
		u := &union{schema: schema}
		for _, r := range []rel{left, right} {
			if in, ok := r.(*union); ok {
				u.in = append(u.in, in.in...)
			} else {
				u.in = append(u.in, r)
			}
		}
		if q.All {
			return u, nil
		}
		return distinctAt(u, q.OpPos), nil
	default:
		out := len(schema)
		if q.All { // equal rows are numbered, so that each has its counterpart
			left, right = numbered(left), numbered(right)
			schema = left.columns()
		}
		var conds []expr.Expr
		n := len(schema)
		for i, f := range schema {
			e, err := expr.Resolve("IS NOT DISTINCT FROM", []expr.Expr{column(schema, i), &expr.Column{Index: n + i, T: f.Type}})
			if err != nil {
				return nil, b.place(err, q.OpPos)
			}
			conds = append(conds, e)
		}
		kind := semiJoin
		if q.Kind == parser.Except {
			kind = antiJoin
		}
		j := &join{kind: kind, left: left, right: right, cond: expr.And(conds...), pos: q.OpPos}
		if !q.All {
			return distinct(j), nil
		}
		p := identity(j)
		p.exprs, p.schema = p.exprs[:out], p.schema[:out:out]
		return p, nil
	}
}

// numbered numbers the rows that are equal.
func numbered(r rel) rel {
	t := &top{in: r, limit: -1, rank: true, rankName: "$number"}
	for i := range r.columns() {
		t.partition = append(t.partition, i)
	}
	return t
}

// coerceTo casts a relation's columns to the types of a schema.
func (b *binder) coerceTo(r rel, schema row.Schema, at parser.Pos) (rel, error) {
	s := r.columns()
	p := &project{in: r, schema: schema}
	same := true
	for i := range schema {
		e, err := expr.Coerce(column(s, i), schema[i].Type)
		if err != nil {
			return nil, b.place(err, at)
		}
		same = same && s[i].Type.Equal(schema[i].Type) && s[i].Name == schema[i].Name
		p.exprs = append(p.exprs, e)
	}
	if same {
		return r, nil
	}
	return p, nil
}

func distinct(r rel) rel {
	s := r.columns()
	a := &aggregate{in: r, schema: s}
	for i := range s {
		a.group = append(a.group, i)
	}
	return a
}

// distinctAt is a DISTINCT that somebody wrote.
func distinctAt(r rel, at parser.Pos) rel {
	a := distinct(r).(*aggregate)
	a.pos = at
	return a
}
