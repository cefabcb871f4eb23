package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/joins"
)

func (k joinKind) physical() joins.Kind {
	return [...]joins.Kind{0, joins.Inner, joins.Left, joins.Right, joins.Full, joins.Semi, joins.Anti, joins.Mark}[k]
}

// joinKey is an equality that rows are found by: an expression over each side.
type joinKey struct{ left, right expr.Expr }

// keys takes the equalities of a join's condition apart from the rest. Where every one takes NULL for equal to NULL, the
// index does, too.
func (p *physical) keys(r *join) (keys []joinKey, nullsMatch bool, rest []expr.Expr, err error) {
	n := len(r.left.columns())
	if r.cond == nil {
		return nil, false, nil, nil
	}
	conds := expr.Conjuncts(r.cond)
	sides := func(c expr.Expr, name string) (joinKey, bool) {
		call, ok := c.(*expr.Call)
		if !ok || call.Fn.Name() != name || len(call.Args) != 2 {
			return joinKey{}, false
		}
		l, rr := call.Args[0], call.Args[1]
		if side(l, n) == 1 && side(rr, n) == 0 {
			l, rr = rr, l
		}
		if side(l, n) != 0 || side(rr, n) != 1 || !deterministic(l, rr) {
			return joinKey{}, false
		}
		return joinKey{l, remap(rr, func(c int) int { return c - n })}, true
	}
	split := func(name string) {
		keys, rest = nil, nil
		for _, c := range conds {
			if k, ok := sides(c, name); ok {
				keys = append(keys, k)
			} else {
				rest = append(rest, c)
			}
		}
	}
	if split("="); len(keys) == 0 {
		split("IS NOT DISTINCT FROM")
		nullsMatch = len(keys) > 0
	}
	for i, k := range keys {
		t, err := expr.CommonType(k.left.Type(), k.right.Type())
		if err == nil {
			keys[i].left, err = expr.Coerce(k.left, t)
		}
		if err == nil {
			keys[i].right, err = expr.Coerce(k.right, t)
		}
		if err != nil {
			return nil, false, nil, p.b.place(err, r.pos)
		}
	}
	return keys, nullsMatch, rest, nil
}

// withKeys lowers a side of a join, with a column for each key.
func (p *physical) withKeys(r rel, need []bool, keys []expr.Expr) (stream, []int, error) {
	s := r.columns()
	q := identity(r)
	all := slices.Clone(need)
	places := make([]int, len(keys)) // of the keys, in q
	for i, k := range keys {
		if c, ok := k.(*expr.Column); ok {
			places[i], all[c.Index] = c.Index, true
			continue
		}
		places[i] = len(q.exprs)
		q.exprs = append(q.exprs, k)
		q.schema = append(q.schema[:len(q.schema):len(q.schema)], row.Field{Name: fmt.Sprint("$key", i), Type: k.Type()})
		all = append(all, true)
	}
	var in stream
	var err error
	if len(q.exprs) == len(s) {
		in, err = p.lower(r, all)
	} else {
		in, err = p.lower(q, all)
	}
	if err != nil {
		return stream{}, nil, err
	}
	at := make([]int, len(keys))
	for i, c := range places {
		at[i] = in.at[c]
	}
	return stream{node: in.node, at: in.at[:len(s)]}, at, nil
}

// index makes the node that keeps a side of a join.
func (p *physical) index(in stream, keys []int, types []row.Type, nullsMatch, retract bool, columns []int, ttl int64, apart string) int {
	from := p.node(in.node)
	codec := row.JoinKey(types)
	if nullsMatch {
		for i := range types {
			types[i].NotNull = false
		}
		codec = row.GroupKey(types)
	}
	edge := dataflow.Edge{From: in.node, How: dataflow.ByKey, Key: keys, Codec: codec}
	n := dataflow.Node{Kind: "index", Detail: fmt.Sprintf("by %v keeps %v", keys, columns), Schema: from.Schema, Append: from.Append, Key: from.Key, States: []string{""}}
	if len(keys) == 0 {
		edge, n.Single = dataflow.Edge{From: in.node, How: dataflow.ToOne}, true
	}
	more := []string{fmt.Sprint(nullsMatch, retract, types), apart}
	if ttl > 0 {
		n.Detail += " forgets after " + (time.Duration(ttl) * time.Microsecond).String()
		n.States = append(n.States, "touched")
		more = append(more, fmt.Sprint("ttl ", ttl))
	}
	n.Inputs = []dataflow.Edge{edge}
	input := from.Schema.Types()
	return p.addMake(n, func(id string) func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error) {
		return func(t dataflow.Task, _ dataflow.Emitter) (dataflow.Operator, error) {
			return joins.NewIndex(t, joins.IndexOptions{Name: id, Input: input, Key: keys, Codec: codec, NullsMatch: nullsMatch, Columns: columns, Retract: retract || ttl > 0, TTL: ttl})
		}
	}, more...)
}

// indexes makes the indexes of a join's sides, which other joins may have made already. An index is not shared with a join
// that this one's other side comes from by way of other tasks: no task could work on both.
func (p *physical) indexes(left, right func(apart string) int, join string) (lx, rx int) {
	g := p.program.Graph
	before := len(g.Nodes)
	for _, apart := range [][2]string{{"", ""}, {"", join}, {join, ""}, {join, join}} {
		for _, n := range g.Nodes[before:] {
			delete(p.byID, n.ID)
		}
		g.Nodes = g.Nodes[:before]
		lx, rx = left(apart[0]), right(apart[1])
		with := append(slices.Clone(g.Nodes), dataflow.Node{Inputs: []dataflow.Edge{{From: lx, How: dataflow.Probe}, {From: rx, How: dataflow.Probe}}})
		if _, ok := dataflow.Levels(with, func(e dataflow.Edge) bool { return e.How.Crosses() }); ok {
			break
		}
	}
	return lx, rx
}

func (p *physical) lowerJoin(r *join, need []bool) (stream, error) {
	nl, nr := len(r.left.columns()), len(r.right.columns())
	keys, nullsMatch, rest, err := p.keys(r)
	if err != nil {
		return stream{}, err
	}
	if len(keys) == 0 && len(rest) == 0 && r.kind == innerJoin && !single(r.left) && !single(r.right) {
		p.b.warn(errs.New(errs.SQLUnbounded, "every row of one side is joined with every row of the other").
			WithHint("say which rows belong together: ON a.key = b.key").At(p.b.at(r.pos)))
	}
	// What the output and the rest of the condition read is kept; a key that nobody else reads is not.
	kept := needs(nl+nr, rest...)
	for i, yes := range need {
		if i < nl || r.kind != markJoin {
			kept[i] = kept[i] || yes
		}
	}
	var le, re []expr.Expr
	types := make([]row.Type, len(keys))
	for i, k := range keys {
		le, re, types[i] = append(le, k.left), append(re, k.right), k.left.Type()
	}
	left, lk, err := p.withKeys(r.left, kept[:nl], le)
	if err != nil {
		return stream{}, err
	}
	right, rk, err := p.withKeys(r.right, kept[nl:], re)
	if err != nil {
		return stream{}, err
	}
	if r.static {
		return p.lowerLookup(r, need, left, right, lk, rk, types, nullsMatch, rest, keptColumns(right, kept[nl:]))
	}
	// A join that speaks of rows of a side that match, or do not, finds them by what is kept of them.
	counts := len(rest) > 0 && r.kind != innerJoin
	forgets := r.kind == innerJoin && len(keys) > 0
	lt, rt := p.ttlOf(r.left, forgets), p.ttlOf(r.right, forgets)
	lx, rx := p.indexes(func(apart string) int {
		// An index that is there already and one that is new make every pair once, when the new one is filled. That is so of
		// pairs, and only if one of the two is new.
		defer p.share(r.kind == innerJoin)()
		return p.index(left, lk, slices.Clone(types), nullsMatch, !p.node(left.node).Append || counts, keptColumns(left, kept[:nl]), lt, apart)
	}, func(apart string) int {
		return p.index(right, rk, slices.Clone(types), nullsMatch, !p.node(right.node).Append || counts, keptColumns(right, kept[nl:]), rt, apart)
	}, p.node(left.node).ID+p.node(right.node).ID)
	p.growingSide(r.pos, left.node, lt)
	p.growingSide(r.pos, right.node, rt)
	spec := joins.Options{Kind: r.kind.physical()}
	cols := r.columns()
	n := dataflow.Node{Kind: "join", Inputs: []dataflow.Edge{{From: lx, How: dataflow.Probe}, {From: rx, How: dataflow.Probe}}, Single: len(keys) == 0}
	at := func(c int) joins.Column {
		if c < nl {
			return joins.Column{Input: 0, Column: left.at[c]}
		}
		return joins.Column{Input: 1, Column: right.at[c-nl]}
	}
	output := func(c int) joins.Column {
		if c == nl && r.kind == markJoin {
			return joins.MarkColumn
		}
		return at(c)
	}
	result := stream{at: want(len(need), need)}
	for c, yes := range need {
		if !yes {
			continue
		}
		result.at[c] = len(spec.Output)
		spec.Output = append(spec.Output, output(c))
		n.Schema = append(n.Schema, cols[c])
	}
	n.Append = r.kind == innerJoin && p.node(lx).Append && p.node(rx).Append
	if lt == 0 && rt == 0 { // what was forgotten may come again under a key that was given
		n.Key = outputKey(r.kind, p.node(left.node).Key, p.node(right.node).Key, lk, rk, spec.Output)
	}
	var text []string
	for i := range lk {
		text = append(text, fmt.Sprintf("l$%d = r$%d", lk[i], rk[i]))
	}
	n.Detail = r.kind.String() + " on " + strings.Join(text, " and ")
	if len(lk) == 0 {
		n.Detail = r.kind.String() + ", every row with every row"
	}
	var cond expr.Expr
	if len(rest) > 0 {
		if cond, spec.Tested, err = p.tested(rest, at); err != nil {
			return stream{}, err
		}
		n.Detail += fmt.Sprintf(" where %s over %v", cond, spec.Tested)
	}
	n.Detail += fmt.Sprintf(" gives %v", spec.Output)
	for _, s := range joins.States("", spec.Kind, cond != nil) {
		n.States = append(n.States, strings.TrimPrefix(s, "/"))
	}
	settings := p.settings()
	result.node = p.addMake(n, func(id string) func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error) {
		return func(t dataflow.Task, o dataflow.Emitter) (dataflow.Operator, error) {
			s := spec
			s.Name, s.Left, s.Right = id, t.Peer(lx).(*joins.Index), t.Peer(rx).(*joins.Index)
			if cond != nil {
				f, err := expr.CompileFilter(cond, settings)
				if err != nil {
					return nil, err
				}
				s.Condition = &condition{filter: f, task: t, node: id}
			}
			return joins.NewRegular(t, o, s)
		}
	})
	return result, nil
}

// tested is the condition of what is left of a join's, over the columns that it reads, of both sides, one behind the
// other; at says where a column of the join is.
func (p *physical) tested(rest []expr.Expr, at func(c int) joins.Column) (cond expr.Expr, columns []joins.Column, err error) {
	place := map[int]int{}
	cond = remap(expr.And(rest...), func(c int) int {
		if i, ok := place[c]; ok {
			return i
		}
		place[c] = len(columns)
		columns = append(columns, at(c))
		return place[c]
	})
	if !expr.Deterministic(cond) {
		return nil, nil, p.b.notRepeatable(cond)
	}
	return cond, columns, nil
}

// condition is a compiled expression as a join's condition.
type condition struct {
	filter *expr.Filter
	task   dataflow.Task
	node   string
}

// Run is part of joins.Condition.
func (c *condition) Run(b *row.Batch, clock int64, sel []int32) ([]int32, error) {
	sel, faults := c.filter.Run(b, clock, sel)
	for _, f := range faults {
		c.task.Fault(dataflow.Fault{Node: c.node, Code: string(f.Code), Message: f.Message, Weight: b.Weight(int(f.Row))})
	}
	return sel, nil
}

// single tells whether a relation has one row at all times.
func single(r rel) bool {
	switch r := r.(type) {
	case *aggregate:
		return len(r.group) == 0
	case *project:
		return single(r.in)
	case *values:
		return len(r.rows) <= 1
	}
	return false
}

// outputKey is a key of a join's output, from those of its sides and the columns that are compared: where one side's rows
// match at most one of the other, the first side's; of an inner join otherwise both together.
func outputKey(kind joinKind, lkey, rkey, lcols, rcols []int, out []joins.Column) []int {
	within := func(key, cols []int) bool {
		for _, c := range key {
			if !slices.Contains(cols, c) {
				return false
			}
		}
		return key != nil
	}
	find := func(input int, key []int) []int {
		got := []int{}
		for _, c := range key {
			i := slices.Index(out, joins.Column{Input: input, Column: c})
			if i < 0 {
				return nil
			}
			got = append(got, i)
		}
		return got
	}
	switch {
	case kind == semiJoin || kind == antiJoin || kind == markJoin:
		if lkey == nil {
			return nil
		}
		return find(0, lkey)
	case kind == fullJoin:
		return nil
	}
	if kind != rightJoin && lkey != nil && within(rkey, rcols) {
		if k := find(0, lkey); k != nil {
			return k
		}
	}
	if kind != leftJoin && rkey != nil && within(lkey, lcols) {
		if k := find(1, rkey); k != nil {
			return k
		}
	}
	if kind != innerJoin || lkey == nil || rkey == nil {
		return nil
	}
	l, r := find(0, lkey), find(1, rkey)
	if l == nil || r == nil {
		return nil
	}
	return append(l, r...)
}
