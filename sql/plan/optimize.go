package plan

import (
	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
)

// push is r with only the rows for which every condition is true. Conditions go down as far as they may: into joins,
// where they become keys; to the side that they speak of; below groups; into the number of places of a Top-N.
func push(r rel, conds []expr.Expr) rel {
	switch r := r.(type) {
	case *filter:
		return push(r.in, append(append([]expr.Expr{}, expr.Conjuncts(r.cond)...), conds...))
	case *project:
		return pushProject(r, conds)
	case *expiring:
		e := *r
		e.in = push(r.in, conds)
		return &e
	case *join:
		return pushJoin(r, conds)
	case *aggregate:
		return pushAggregate(r, conds)
	case *top:
		return pushTop(r, conds)
	case *unnest:
		return pushUnnest(r, conds)
	case *union:
		u := &union{schema: r.schema}
		for _, in := range r.in {
			u.in = append(u.in, push(in, conds))
		}
		return u
	}
	return filtered(r, conds)
}

func filtered(r rel, conds []expr.Expr) rel {
	if len(conds) == 0 {
		return r
	}
	return &filter{in: r, cond: expr.And(conds...)}
}

func deterministic(es ...expr.Expr) bool {
	for _, e := range es {
		if !expr.Deterministic(e) {
			return false
		}
	}
	return true
}

func pushProject(r *project, conds []expr.Expr) rel {
	var down, above []expr.Expr
	for _, c := range conds {
		var used []expr.Expr
		for _, i := range expr.Columns(c) {
			used = append(used, r.exprs[i])
		}
		if deterministic(used...) {
			down = append(down, expr.Substitute(c, r.exprs))
		} else {
			above = append(above, c)
		}
	}
	return filtered(&project{in: push(r.in, down), exprs: r.exprs, schema: r.schema}, above)
}

// side tells which of a join's inputs an expression speaks of: 0, 1, or -1 for both or none.
func side(e expr.Expr, left int) int {
	s := -1
	for _, c := range expr.Columns(e) {
		of := 0
		if c >= left {
			of = 1
		}
		if s >= 0 && s != of {
			return -1
		}
		s = of
	}
	return s
}

func pushJoin(r *join, conds []expr.Expr) rel {
	n := len(r.left.columns())
	right := func(e expr.Expr) expr.Expr { return remap(e, func(c int) int { return c - n }) }
	var left, rights, on, above []expr.Expr
	var own []expr.Expr
	if r.cond != nil {
		own = expr.Conjuncts(r.cond)
	}
	keepsLeft := r.kind == leftJoin || r.kind == fullJoin || r.kind == antiJoin || r.kind == markJoin
	keepsRight := r.kind == rightJoin || r.kind == fullJoin
	for _, c := range own {
		switch s := side(c, n); {
		case s == 0 && !keepsLeft:
			left = append(left, c)
		case s == 1 && !keepsRight:
			rights = append(rights, right(c))
		default:
			on = append(on, c)
		}
	}
	for _, c := range conds {
		switch s := side(c, n); {
		case r.kind == markJoin && s != 0:
			above = append(above, c)
		case s == 0 && (r.kind == markJoin || r.kind == innerJoin || r.kind == leftJoin || r.kind == semiJoin || r.kind == antiJoin):
			left = append(left, c)
		case s == 1 && (r.kind == innerJoin || r.kind == rightJoin):
			rights = append(rights, right(c))
		case r.kind == innerJoin:
			on = append(on, c)
		default:
			above = append(above, c)
		}
	}
	return filtered(&join{kind: r.kind, left: push(r.left, left), right: push(r.right, rights), cond: conjunction(on), pos: r.pos, static: r.static}, above)
}

func pushAggregate(r *aggregate, conds []expr.Expr) rel {
	var down, above []expr.Expr
	for _, c := range conds {
		keys := len(r.group) > 0 && expr.Deterministic(c)
		for _, i := range expr.Columns(c) {
			keys = keys && i < len(r.group)
		}
		if keys {
			down = append(down, remap(c, func(i int) int { return r.group[i] }))
		} else {
			above = append(above, c)
		}
	}
	return filtered(&aggregate{in: push(r.in, down), group: r.group, calls: r.calls, schema: r.schema, pos: r.pos}, above)
}

func pushTop(r *top, conds []expr.Expr) rel {
	t := *r
	rank := -1
	if r.rank {
		rank = len(r.in.columns())
	}
	part := map[int]bool{}
	for _, c := range r.partition {
		part[c] = true
	}
	var down, above []expr.Expr
	for _, c := range conds {
		if limit, ok := placeLimit(c, rank); ok && r.offset == 0 {
			if t.limit < 0 || limit < t.limit {
				t.limit = max(limit, 0)
			}
			continue
		}
		keys := len(part) > 0 && expr.Deterministic(c)
		for _, i := range expr.Columns(c) {
			keys = keys && part[i]
		}
		if keys {
			down = append(down, c)
		} else {
			above = append(above, c)
		}
	}
	t.in = push(r.in, down)
	return filtered(&t, above)
}

// placeLimit reads rank <= n, rank < n and rank = 1.
func placeLimit(e expr.Expr, rank int) (int64, bool) {
	c, ok := e.(*expr.Call)
	if !ok || len(c.Args) != 2 || rank < 0 {
		return 0, false
	}
	name := c.Fn.Name()
	l, r := uncast(c.Args[0]), uncast(c.Args[1])
	if _, swapped := l.(*expr.Const); swapped {
		l, r = r, l
		name = map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "="}[name]
	}
	col, ok1 := l.(*expr.Column)
	k, ok2 := r.(*expr.Const)
	if !ok1 || !ok2 || col.Index != rank || k.T.Layout() != row.LayoutInt64 || k.IsNull() {
		return 0, false
	}
	v := k.Vec.Int64[0]
	switch {
	case name == "<=":
		return v, true
	case name == "<":
		return v - 1, true
	case name == "=" && v == 1:
		return 1, true
	}
	return 0, false
}

// uncast looks through a widening of whole numbers.
func uncast(e expr.Expr) expr.Expr {
	if c, ok := e.(*expr.Cast); ok && c.T.Kind.Integer() && c.Arg.Type().Kind.Integer() && c.T.Kind >= c.Arg.Type().Kind {
		return c.Arg
	}
	return e
}
