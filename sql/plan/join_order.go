package plan

import (
	"slices"

	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/sql/parser"
)

// reorder gives chains of inner joins an order in which every join has a key if the conditions allow one, and makes stars
// of relations that are joined on one key. It follows push, which has brought the conditions into the joins.
//
// The order begins with the first relation that is written and goes on with one that an equality ties to those before it:
// one of which a row matches at most one (a unique key is compared) if there is one, else the first that is written. So
// FROM a, b, c WHERE a.x = c.y AND c.z = b.w multiplies nothing. What nothing ties together is joined last.
func reorder(r rel) rel {
	switch r := r.(type) {
	case *filter:
		return &filter{in: reorder(r.in), cond: r.cond}
	case *expiring:
		e := *r
		e.in = reorder(r.in)
		return &e
	case *project:
		return &project{in: reorder(r.in), exprs: r.exprs, schema: r.schema}
	case *aggregate:
		return &aggregate{in: reorder(r.in), group: r.group, calls: r.calls, schema: r.schema, pos: r.pos}
	case *top:
		t := *r
		t.in = reorder(r.in)
		return &t
	case *unnest:
		u := *r
		u.in = reorder(r.in)
		return &u
	case *union:
		u := &union{schema: r.schema}
		for _, in := range r.in {
			u.in = append(u.in, reorder(in))
		}
		return u
	case *join:
		if r.kind == innerJoin && !r.static {
			return reorderInner(r)
		}
		j := *r
		j.left, j.right = reorder(r.left), reorder(r.right)
		if s := leftStar(&j); s != nil {
			return s
		}
		return &j
	}
	return r
}

// chain is relations that are joined by inner joins, with all conditions over the columns of all of them side by side.
type chain struct {
	leaves []rel
	first  []int // the number of each leaf's first column
	conds  []expr.Expr
	pos    parser.Pos
	// ties are equalities of whole leaves, each a class of expressions that are all equal, at most one of each leaf.
	ties []tie
	done []bool // by condition
}

// tie is expressions that are equal, by leaf. Each is over all columns.
type tie map[int]expr.Expr

// part is a join of some of the leaves: where each leaf's columns begin in it, -1 for leaves that are not in it.
type part struct {
	rel rel
	at  []int
}

func (c *chain) add(r rel, from int) {
	if j, ok := r.(*join); ok && j.kind == innerJoin && !j.static {
		c.add(j.left, from)
		c.add(j.right, from+len(j.left.columns()))
		if j.cond != nil {
			for _, e := range expr.Conjuncts(j.cond) {
				c.conds = append(c.conds, remap(e, func(i int) int { return i + from }))
			}
		}
		return
	}
	c.leaves = append(c.leaves, r)
	c.first = append(c.first, from)
}

// leaf is the leaf that a column is of.
func (c *chain) leaf(column int) int {
	i, found := slices.BinarySearch(c.first, column)
	if !found {
		i--
	}
	// A leaf without columns begins where the next one does.
	for i+1 < len(c.first) && c.first[i+1] == column {
		i++
	}
	return i
}

// only is the leaf that an expression speaks of alone, -1 if there is none.
func (c *chain) only(e expr.Expr) int {
	at := -1
	for _, i := range expr.Columns(e) {
		l := c.leaf(i)
		if at >= 0 && at != l {
			return -1
		}
		at = l
	}
	return at
}

func reorderInner(r *join) rel {
	c := &chain{pos: r.pos}
	c.add(r, 0)
	if len(c.leaves) == 2 {
		j := *r
		j.left, j.right = reorder(r.left), reorder(r.right)
		return &j
	}
	for i := range c.leaves {
		c.leaves[i] = reorder(c.leaves[i])
	}
	c.findTies()
	star, group := c.star()
	var parts []part
	left := make([]bool, len(c.leaves)) // to do
	for i := range left {
		left[i] = true
	}
	for i := range c.leaves {
		if !left[i] {
			continue
		}
		p := c.alone(i)
		if slices.Contains(group, i) {
			p = star
		}
		for more := true; more; {
			for l := range left {
				left[l] = left[l] && p.at[l] < 0
			}
			next := c.next(&p, left)
			if more = next >= 0; !more {
				break
			}
			if slices.Contains(group, next) {
				p = c.join(p, star)
			} else {
				p = c.join(p, c.alone(next))
			}
		}
		parts = append(parts, p)
	}
	// What is left is tied by no equality of two: by another condition, or by none. Single rows cost nothing.
	p := parts[0]
	parts = parts[1:]
	for len(parts) > 0 {
		best, grade := 0, -1
		for i := range parts {
			g := 0
			switch {
			case c.tied(&p, &parts[i]):
				g = 3
			case single(parts[i].rel):
				g = 2
			case c.ready(&p, &parts[i]):
				g = 1
			}
			if g > grade {
				best, grade = i, g
			}
		}
		p = c.join(p, parts[best])
		parts = slices.Delete(parts, best, best+1)
	}
	return c.restored(p)
}

// findTies takes the equalities of leaves out of the conditions. Equal expressions are one class where the comparison of
// their types is transitive, so that a.x = b.y AND b.y = c.z also ties a to c.
func (c *chain) findTies() {
	c.done = make([]bool, len(c.conds))
	for n, e := range c.conds {
		l, r, ok := equality(e)
		if !ok {
			continue
		}
		a, b := c.only(l), c.only(r)
		if a < 0 || b < 0 || a == b || !deterministic(l, r) {
			continue
		}
		same := alike(l.Type(), r.Type())
		var into []int // ties that have one of the two
		for i, t := range c.ties {
			for leaf, x := range map[int]expr.Expr{a: l, b: r} {
				if y := t[leaf]; same && y != nil && x.String() == y.String() && alike(x.Type(), y.Type()) && c.mergeable(t) && !slices.Contains(into, i) {
					into = append(into, i)
				}
			}
		}
		t := tie{}
		fits := true
		for _, i := range into {
			for leaf, x := range c.ties[i] {
				fits = fits && (t[leaf] == nil || t[leaf].String() == x.String())
				t[leaf] = x
			}
		}
		for leaf, x := range map[int]expr.Expr{a: l, b: r} {
			fits = fits && (t[leaf] == nil || t[leaf].String() == x.String())
			t[leaf] = x
		}
		if !fits { // two expressions of one leaf are equal: it stays a tie of two
			t, into = tie{a: l, b: r}, nil
		}
		slices.Sort(into)
		for _, i := range slices.Backward(into) {
			c.ties = slices.Delete(c.ties, i, i+1)
		}
		c.ties = append(c.ties, t)
		c.done[n] = true
	}
}

// mergeable tells whether all of a tie may be compared with each other.
func (c *chain) mergeable(t tie) bool {
	var first expr.Expr
	for _, x := range t {
		if first == nil {
			first = x
		}
		if !alike(first.Type(), x.Type()) {
			return false
		}
	}
	return true
}

// alike: values of the two types are compared as values of one type that both fit into.
func alike(a, b row.Type) bool {
	if a.Kind.Integer() && b.Kind.Integer() {
		return true
	}
	return a.Kind == b.Kind && a.Fixed == b.Fixed && (a.Kind == row.String || a.Nullable().Equal(b.Nullable()))
}

func (c *chain) alone(i int) part {
	at := make([]int, len(c.leaves))
	for k := range at {
		at[k] = -1
	}
	at[i] = 0
	return part{c.leaves[i], at}
}

// moved is an expression over all columns as one over a part's, if it has them.
func (c *chain) moved(e expr.Expr, p *part) expr.Expr {
	return remap(e, func(i int) int {
		l := c.leaf(i)
		return p.at[l] + i - c.first[l]
	})
}

// has tells whether a part has all columns of an expression.
func (c *chain) has(p *part, e expr.Expr) bool {
	for _, i := range expr.Columns(e) {
		if p.at[c.leaf(i)] < 0 {
			return false
		}
	}
	return true
}

// next is the leaf to be joined to a part, -1 if no equality ties one to it.
func (c *chain) next(p *part, left []bool) int {
	best, unique := -1, false
	for l, yes := range left {
		if !yes {
			continue
		}
		one := c.alone(l)
		if !c.tied(p, &one) {
			continue
		}
		var cols []int
		for _, t := range c.ties {
			x := t[l]
			if x == nil {
				continue
			}
			for other := range t {
				if p.at[other] >= 0 {
					if col, ok := uncast(x).(*expr.Column); ok {
						cols = append(cols, col.Index-c.first[l])
					}
					break
				}
			}
		}
		u := covers(uniqueKeys(c.leaves[l]), cols)
		if best < 0 || u && !unique {
			best, unique = l, u
		}
	}
	return best
}

// tied tells whether an equality has one side in each of two parts.
func (c *chain) tied(p, q *part) bool {
	for _, t := range c.ties {
		in, to := false, false
		for l := range t {
			in, to = in || p.at[l] >= 0, to || q.at[l] >= 0
		}
		if in && to {
			return true
		}
	}
	for n, e := range c.conds {
		if l, r, ok := equality(e); ok && !c.done[n] && deterministic(e) && len(expr.Columns(l)) > 0 && len(expr.Columns(r)) > 0 &&
			(c.has(p, l) && c.has(q, r) || c.has(q, l) && c.has(p, r)) {
			return true
		}
	}
	return false
}

// ready tells whether a join of two parts has a condition of both.
func (c *chain) ready(p, q *part) bool {
	both := c.both(p, q)
	for n, e := range c.conds {
		if !c.done[n] && c.has(&both, e) {
			return true
		}
	}
	return false
}

func (c *chain) both(p, q *part) part {
	both := part{at: slices.Clone(p.at)}
	n := len(p.rel.columns())
	for l, at := range q.at {
		if at >= 0 {
			both.at[l] = n + at
		}
	}
	return both
}

// join joins two parts on every condition that then can be told.
func (c *chain) join(p, q part) part {
	both := c.both(&p, &q)
	var on []expr.Expr
	for _, t := range c.ties {
		// Within a part they are equal already.
		l, r := -1, -1
		for leaf := range c.leaves {
			if t[leaf] == nil {
				continue
			}
			if l < 0 && p.at[leaf] >= 0 {
				l = leaf
			}
			if r < 0 && q.at[leaf] >= 0 {
				r = leaf
			}
		}
		if l >= 0 && r >= 0 {
			eq, err := expr.Resolve("=", []expr.Expr{t[l], t[r]})
			if err != nil {
				panic("plan: an equality that follows from two others: " + err.Error())
			}
			on = append(on, c.moved(eq, &both))
		}
	}
	on = append(on, c.rest(&both)...)
	both.rel = &join{kind: innerJoin, left: p.rel, right: q.rel, cond: conjunction(on), pos: c.pos}
	return both
}

// rest is the conditions that a part can tell and has not told yet.
func (c *chain) rest(p *part) []expr.Expr {
	var out []expr.Expr
	for n, e := range c.conds {
		if !c.done[n] && c.has(p, e) && (deterministic(e) || !slices.Contains(p.at, -1)) {
			c.done[n] = true
			out = append(out, c.moved(e, p))
		}
	}
	return out
}

// restored puts the columns back into the order in which they were written.
func (c *chain) restored(p part) rel {
	r := filtered(p.rel, c.rest(&p))
	s := r.columns()
	out := &project{in: r}
	same := true
	for l, leaf := range c.leaves {
		for i, f := range leaf.columns() {
			at := p.at[l] + i
			same = same && at == len(out.exprs)
			out.exprs = append(out.exprs, column(s, at))
			out.schema = append(out.schema, f)
		}
	}
	if same {
		return r
	}
	return out
}
