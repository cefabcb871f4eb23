package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/joins"
	"github.com/weirstream/weir/sql/parser"
)

// star joins three or more relations on one key, each by its own expressions. Its columns are theirs side by side. Those
// joined by LEFT JOIN have NULLs where they have no row of the key; the first never is.
type star struct {
	in   []rel
	keys [][]expr.Expr // of each input, over its columns; all of the same types, one by one
	left []bool
	pos  parser.Pos
}

func (r *star) columns() row.Schema {
	var out row.Schema
	for i, in := range r.in {
		for _, f := range in.columns() {
			f.Type.NotNull = f.Type.NotNull && !r.left[i]
			out = append(out, f)
		}
	}
	return out
}

// split is what of each input's columns is needed, the keys not counted.
func (r *star) split(need []bool) [][]bool {
	out := make([][]bool, len(r.in))
	at := 0
	for i, in := range r.in {
		n := len(in.columns())
		out[i] = slices.Clone(need[at : at+n])
		at += n
	}
	return out
}

// below is split with the columns of the keys.
func (r *star) below(need []bool) [][]bool {
	out := r.split(need)
	for i, keys := range r.keys {
		for c, yes := range needs(len(out[i]), keys...) {
			out[i][c] = out[i][c] || yes
		}
	}
	return out
}

// commonKeys casts the keys of a star to the types that they have in common; false if there are none.
func commonKeys(keys [][]expr.Expr) bool {
	for k := range keys[0] {
		var types []row.Type
		for i := range keys {
			types = append(types, keys[i][k].Type())
		}
		t, err := expr.CommonType(types...)
		if err != nil {
			return false
		}
		for i := range keys {
			if keys[i][k], err = expr.Coerce(keys[i][k], t); err != nil {
				return false
			}
		}
	}
	return true
}

// star is the largest group of three or more leaves that all are joined on one key, nil if there is none. Where two of
// them are compared by more than the key, pairs of them are fewer than the rows of a key, and a chain of joins does less.
func (c *chain) star() (part, []int) {
	for i := range c.ties {
		t := c.ties[i]
		group := slices.Sorted(maps.Keys(t))
		if len(group) < 3 || !c.mergeable(t) {
			continue
		}
		same := []tie{}
		fits := true
		for _, other := range c.ties {
			shared := 0
			for _, l := range group {
				if other[l] != nil {
					shared++
				}
			}
			switch {
			case shared == len(group) && len(other) == len(group) && c.mergeable(other):
				same = append(same, other)
			case shared > 1:
				fits = false
			}
		}
		if !fits {
			continue
		}
		s := &star{pos: c.pos, left: make([]bool, len(group)), keys: make([][]expr.Expr, len(group))}
		p := c.alone(group[0])
		at := 0
		for n, l := range group {
			s.in = append(s.in, c.leaves[l])
			for _, t := range same {
				s.keys[n] = append(s.keys[n], remap(t[l], func(i int) int { return i - c.first[l] }))
			}
			p.at[l] = at
			at += len(c.leaves[l].columns())
		}
		if !commonKeys(s.keys) {
			continue
		}
		p.rel = s
		p.rel = filtered(s, c.rest(&p))
		return p, group
	}
	return part{}, nil
}

// leftStar makes a star of a LEFT JOIN whose left side is one on the same key, or a join of two on it; nil if it is none.
func leftStar(r *join) rel {
	if r.kind != leftJoin || r.static || r.cond == nil {
		return nil
	}
	lk, rk := plainKeys(r)
	if lk == nil {
		return nil
	}
	s := &star{pos: r.pos}
	switch l := r.left.(type) {
	case *star:
		s.in, s.left = slices.Clone(l.in), slices.Clone(l.left)
		for _, k := range l.keys {
			s.keys = append(s.keys, slices.Clone(k))
		}
	case *join:
		if l.kind != innerJoin && l.kind != leftJoin || l.static {
			return nil
		}
		ll, lr := plainKeys(l)
		if ll == nil {
			return nil
		}
		s.in, s.left, s.keys = []rel{l.left, l.right}, []bool{false, l.kind == leftJoin}, [][]expr.Expr{ll, lr}
		if !sameTypes(s.keys) || !commonKeys(s.keys) {
			return nil
		}
	default:
		return nil
	}
	// The key has to be that of an input that always is there.
	if len(lk) != len(s.keys[0]) {
		return nil
	}
	ordered := make([]expr.Expr, len(lk))
	for i, e := range lk {
		at, from := -1, 0
		for n, in := range s.in {
			w := len(in.columns())
			for k, key := range s.keys[n] {
				if !s.left[n] && at < 0 && ordered[k] == nil && remap(uncast(key), func(c int) int { return c + from }).String() == uncast(e).String() {
					at = k
				}
			}
			from += w
		}
		if at < 0 {
			return nil
		}
		ordered[at] = rk[i]
	}
	s.in, s.left, s.keys = append(s.in, r.right), append(s.left, true), append(s.keys, ordered)
	if !sameTypes(s.keys) || !commonKeys(s.keys) {
		return nil
	}
	return s
}

// sameTypes tells whether keys may be compared with each other, whichever two they are.
func sameTypes(keys [][]expr.Expr) bool {
	for _, ks := range keys[1:] {
		for k := range ks {
			if !alike(keys[0][k].Type(), ks[k].Type()) {
				return false
			}
		}
	}
	return true
}

// plainKeys are the sides of a join's condition if it is equalities and nothing else, each over its side's columns.
func plainKeys(r *join) (left, right []expr.Expr) {
	n := len(r.left.columns())
	if r.cond == nil {
		return nil, nil
	}
	for _, c := range expr.Conjuncts(r.cond) {
		a, b, ok := equality(c)
		if !ok || !deterministic(a, b) {
			return nil, nil
		}
		if side(a, n) == 1 && side(b, n) == 0 {
			a, b = b, a
		}
		if side(a, n) != 0 || side(b, n) != 1 {
			return nil, nil
		}
		left, right = append(left, a), append(right, remap(b, func(c int) int { return c - n }))
	}
	return left, right
}

func (p *physical) lowerStar(r *star, need []bool) (stream, error) {
	kept := r.split(need)
	ins, keys := make([]stream, len(r.in)), make([][]int, len(r.in))
	var ids strings.Builder
	for i, in := range r.in {
		var err error
		if ins[i], keys[i], err = p.withKeys(in, kept[i], r.keys[i]); err != nil {
			return stream{}, err
		}
		ids.WriteString(p.node(ins[i].node).ID)
	}
	ttls, forgets := make([]int64, len(ins)), false
	for i, in := range ins {
		ttls[i] = p.ttlOf(r.in[i], !slices.Contains(r.left, true))
		forgets = forgets || ttls[i] > 0
		p.growingSide(r.pos, in.node, ttls[i])
	}
	types := make([]row.Type, len(r.keys[0]))
	for k := range types {
		types[k] = r.keys[0][k].Type()
	}
	indexes := p.starIndexes(len(r.in), ids.String(), func(i int, apart string) int {
		return p.index(ins[i], keys[i], slices.Clone(types), false, !p.node(ins[i].node).Append, keptColumns(ins[i], kept[i]), ttls[i], apart)
	})
	spec := joins.StarOptions{Left: r.left}
	n := dataflow.Node{Kind: "star-join", Append: true}
	var text []string
	for i, x := range indexes {
		n.Inputs = append(n.Inputs, dataflow.Edge{From: x, How: dataflow.Probe})
		n.Append = n.Append && p.node(x).Append && !r.left[i]
		part := fmt.Sprint(keys[i])
		if r.left[i] {
			part = "left " + part
		}
		text = append(text, part)
	}
	if !slices.Contains(r.left, true) {
		spec.Left = nil
	}
	cols := r.columns()
	out := stream{at: want(len(need), need)}
	at := 0
	for i, in := range r.in {
		for c := range in.columns() {
			if need[at] {
				out.at[at] = len(spec.Output)
				spec.Output = append(spec.Output, joins.Column{Input: i, Column: ins[i].at[c]})
				n.Schema = append(n.Schema, cols[at])
			}
			at++
		}
	}
	if !forgets {
		n.Key = p.starKey(r, ins, keys, spec.Output)
	}
	n.Detail = fmt.Sprintf("of %d on %s gives %v", len(r.in), strings.Join(text, " = "), spec.Output)
	out.node = p.addMake(n, func(string) func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error) {
		return func(t dataflow.Task, o dataflow.Emitter) (dataflow.Operator, error) {
			s := spec
			for _, x := range indexes {
				s.Inputs = append(s.Inputs, t.Peer(x).(*joins.Index))
			}
			return joins.NewStar(o, s)
		}
	})
	return out, nil
}

// keptColumns are a stream's columns of which used says that they are used, each once.
func keptColumns(s stream, used []bool) []int {
	cols := []int{}
	for c, yes := range used {
		if yes && !slices.Contains(cols, s.at[c]) {
			cols = append(cols, s.at[c])
		}
	}
	slices.Sort(cols)
	return cols
}

// starIndexes makes the indexes of a star's inputs. No index stands twice in a star, and, as for two sides, one is not
// shared with a join that feeds another input by way of other tasks.
func (p *physical) starIndexes(n int, id string, index func(i int, apart string) int) []int {
	g := p.program.Graph
	before := len(g.Nodes)
	apart := make([]string, n)
	for try := 0; ; try++ {
		for _, x := range g.Nodes[before:] {
			delete(p.byID, x.ID)
		}
		g.Nodes = g.Nodes[:before]
		got := make([]int, n)
		join := dataflow.Node{}
		for i := range got {
			got[i] = index(i, apart[i])
			if slices.Contains(got[:i], got[i]) {
				apart[i] = fmt.Sprint(id, "#", i)
				got[i] = index(i, apart[i])
			}
			join.Inputs = append(join.Inputs, dataflow.Edge{From: got[i], How: dataflow.Probe})
		}
		if _, ok := dataflow.Levels(append(slices.Clone(g.Nodes), join), func(e dataflow.Edge) bool { return e.How.Crosses() }); ok || try == n {
			return got
		}
		apart[try] = fmt.Sprint(id, "#", try)
	}
}

// starKey is a key of a star's output: those of the inputs that have more than one row of a key, together; where none
// has, that of the first.
func (p *physical) starKey(r *star, ins []stream, keys [][]int, out []joins.Column) []int {
	var got []int
	add := func(i int, key []int) bool {
		for _, c := range key {
			at := slices.Index(out, joins.Column{Input: i, Column: c})
			if at < 0 {
				return false
			}
			got = append(got, at)
		}
		return true
	}
	for i, in := range ins {
		key := p.node(in.node).Key
		if key == nil {
			return nil
		}
		if covers([][]int{key}, keys[i]) {
			continue
		}
		if r.left[i] || !add(i, key) {
			return nil
		}
	}
	if got == nil {
		for i, in := range ins {
			if got = []int{}; !r.left[i] && add(i, p.node(in.node).Key) {
				return got
			}
		}
		return nil
	}
	return got
}
