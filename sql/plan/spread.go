package plan

import (
	"slices"

	"github.com/weirstream/weir/engine/expr"
)

// spread brings a constant that one side of a join is compared with to the other side, where the join's condition says
// that the two are equal: a.x = 5 AND a.x = b.y leaves only those rows of b in the join's state for which b.y = 5. It
// follows reorder.
func spread(r rel) rel {
	switch r := r.(type) {
	case *filter:
		return &filter{in: spread(r.in), cond: r.cond}
	case *project:
		return &project{in: spread(r.in), exprs: r.exprs, schema: r.schema}
	case *expiring:
		e := *r
		e.in = spread(r.in)
		return &e
	case *aggregate:
		a := *r
		a.in = spread(r.in)
		return &a
	case *top:
		t := *r
		t.in = spread(r.in)
		return &t
	case *unnest:
		u := *r
		u.in = spread(r.in)
		return &u
	case *union:
		u := &union{schema: r.schema}
		for _, in := range r.in {
			u.in = append(u.in, spread(in))
		}
		return u
	case *join:
		return spreadJoin(r)
	case *star:
		return spreadStar(r)
	}
	return r
}

// equalTo is a comparison of an expression over a relation with a constant.
type equalTo struct{ x, value expr.Expr }

// constants are the comparisons with constants that every row of a relation fulfils.
func constants(r rel) []equalTo {
	switch r := r.(type) {
	case *filter:
		out := constants(r.in)
		for _, c := range expr.Conjuncts(r.cond) {
			l, v, ok := equality(c)
			if ok && len(expr.Columns(l)) == 0 {
				l, v = v, l
			}
			if ok && len(expr.Columns(l)) > 0 && len(expr.Columns(v)) == 0 && deterministic(l, v) {
				out = append(out, equalTo{uncast(l), v})
			}
		}
		return out
	case *project:
		at := map[int]int{}
		for i, e := range r.exprs {
			if c, ok := e.(*expr.Column); ok {
				at[c.Index] = i
			}
		}
		var out []equalTo
		for _, e := range constants(r.in) {
			if !slices.ContainsFunc(expr.Columns(e.x), func(c int) bool { _, ok := at[c]; return !ok }) {
				out = append(out, equalTo{remap(e.x, func(c int) int { return at[c] }), e.value})
			}
		}
		return out
	case *expiring:
		return constants(r.in)
	case *join:
		var out []equalTo
		if r.kind != rightJoin && r.kind != fullJoin {
			out = constants(r.left)
		}
		if r.kind == innerJoin || r.kind == rightJoin {
			n := len(r.left.columns())
			for _, e := range constants(r.right) {
				out = append(out, equalTo{remap(e.x, func(c int) int { return c + n }), e.value})
			}
		}
		return out
	case *star:
		var out []equalTo
		n := 0
		for i, in := range r.in {
			if !r.left[i] {
				for _, e := range constants(in) {
					out = append(out, equalTo{remap(e.x, func(c int) int { return c + n }), e.value})
				}
			}
			n += len(in.columns())
		}
		return out
	}
	return nil
}

// withConstants is a relation with those comparisons that follow for it: from[i] is equal to to[i], an expression over it.
func withConstants(r rel, known []equalTo, from, to []expr.Expr) rel {
	have := constants(r)
	var more []expr.Expr
	for i, x := range from {
		for _, k := range known {
			// The comparison has to mean the same for both.
			if k.x.String() != uncast(x).String() || !alike(k.x.Type(), uncast(to[i]).Type()) ||
				slices.ContainsFunc(have, func(h equalTo) bool { return h.x.String() == uncast(to[i]).String() }) {
				continue
			}
			if eq, err := expr.Resolve("=", []expr.Expr{uncast(to[i]), k.value}); err == nil {
				more = append(more, eq)
				break
			}
		}
	}
	if more == nil {
		return r
	}
	return spread(push(r, more))
}

func spreadJoin(r *join) rel {
	j := *r
	j.left, j.right = spread(r.left), spread(r.right)
	if r.static || r.cond == nil {
		return &j
	}
	n := len(r.left.columns())
	var left, right []expr.Expr
	for _, c := range expr.Conjuncts(r.cond) {
		a, b, ok := equality(c)
		if !ok || !deterministic(a, b) {
			continue
		}
		if side(a, n) == 1 && side(b, n) == 0 {
			a, b = b, a
		}
		if side(a, n) == 0 && side(b, n) == 1 {
			left, right = append(left, a), append(right, remap(b, func(c int) int { return c - n }))
		}
	}
	// Rows that no row of the other side can match may go where such rows are not given.
	if r.kind != rightJoin && r.kind != fullJoin {
		j.right = withConstants(j.right, constants(j.left), left, right)
	}
	if r.kind == innerJoin || r.kind == rightJoin || r.kind == semiJoin {
		j.left = withConstants(j.left, constants(j.right), right, left)
	}
	return &j
}

func spreadStar(r *star) rel {
	s := *r
	s.in = slices.Clone(r.in)
	for i, in := range r.in {
		s.in[i] = spread(in)
	}
	for i, from := range s.in {
		if s.left[i] {
			continue
		}
		known := constants(from)
		for k := range s.in {
			if k != i && known != nil {
				s.in[k] = withConstants(s.in[k], known, s.keys[i], s.keys[k])
			}
		}
	}
	return &s
}
