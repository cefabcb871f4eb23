package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
)

// physical turns relations into the nodes of a graph. Equal nodes are one: what two views have in common is computed
// once, and joins of one table by one key share its index.
type physical struct {
	b       *binder
	program *Program
	byID    map[string]int
	sources map[string]int // by name
	// used are the columns that are read of each table, over all of the file.
	used map[*table]map[int]bool
	// wanted are the conditions under which each use of a table wants a row; nil: a use wants all.
	wanted map[*table][]expr.Expr
	// scans are the nodes at which tables enter.
	scans map[*table]int
	sinks map[string]int // by name
	// salt tells the nodes of an added statement from those of others, except where they are shared.
	salt   string
	shared bool
}

// stream is what a node emits, with the place of each column of the relation: -1 for columns that nothing asked for.
type stream struct {
	node int
	at   []int
}

// add makes a node, or finds the one that computes the same.
func (p *physical) add(n dataflow.Node, more ...string) int {
	h := sha256.New()
	fmt.Fprintf(h, "%s|%s|%v|%v|%v", n.Kind, n.Detail, n.Single, more, n.Schema.Types())
	if p.salt != "" && !p.shared {
		fmt.Fprintf(h, "|for %s", p.salt)
	}
	for _, e := range n.Inputs {
		fmt.Fprintf(h, "|%s %d %v", p.program.Graph.Nodes[e.From].ID, e.How, e.Key)
	}
	n.ID = n.Kind + "-" + hex.EncodeToString(h.Sum(nil))[:16]
	if at, ok := p.byID[n.ID]; ok {
		return at
	}
	at := len(p.program.Graph.Nodes)
	p.program.Graph.Nodes = append(p.program.Graph.Nodes, n)
	p.byID[n.ID] = at
	return at
}

func (p *physical) node(n int) *dataflow.Node { return &p.program.Graph.Nodes[n] }

// place is where the columns are of which need says that they are needed; the rest is -1.
func want(n int, need []bool) []int {
	at := make([]int, n)
	for i := range at {
		at[i] = -1
	}
	return at
}

// needs marks the columns of expressions.
func needs(n int, es ...expr.Expr) []bool {
	need := make([]bool, n)
	for _, e := range es {
		if e == nil {
			continue
		}
		for _, c := range expr.Columns(e) {
			need[c] = true
		}
	}
	return need
}

// collect notes which columns of tables a relation reads if need of its own columns are needed.
func (p *physical) collect(r rel, need []bool) {
	switch r := r.(type) {
	case *scan:
		p.wants(r.table, nil)
		if p.used[r.table] == nil {
			p.used[r.table] = map[int]bool{}
		}
		for i, yes := range need {
			if yes {
				p.used[r.table][i] = true
			}
		}
	case *filter, *project, *expiring:
		base, conds, _, below := p.peel(r, need)
		p.collect(base, below)
		if sc, ok := base.(*scan); ok {
			p.wants(sc.table, conds)
		}
	case *join:
		l, rr := r.split(need)
		p.collect(r.left, l)
		p.collect(r.right, rr)
	case *star:
		for i, below := range r.below(need) {
			p.collect(r.in[i], below)
		}
	case *aggregate:
		p.collect(r.in, r.below(need))
	case *top:
		p.collect(r.in, r.below(need))
	case *unnest:
		p.collect(r.in, r.below(need))
	case *union:
		for _, in := range r.in {
			p.collect(in, need)
		}
	}
}

// peel takes a run of filters and projections off: what is below, the conditions and the needed expressions over it,
// and what they need of it.
func (p *physical) peel(r rel, need []bool) (base rel, conds []expr.Expr, exprs []expr.Expr, below []bool) {
	s := r.columns()
	exprs = make([]expr.Expr, len(s))
	for i := range s {
		if need[i] {
			exprs[i] = column(s, i)
		}
	}
	for {
		switch x := r.(type) {
		case *expiring: // whoever wants to know has looked
			r = x.in
			continue
		case *filter:
			conds = append(expr.Conjuncts(x.cond), conds...)
			r = x.in
			continue
		case *project:
			all := slices.Clone(conds)
			for _, e := range exprs {
				if e != nil {
					all = append(all, e)
				}
			}
			// What is not the same each time it is computed must not be computed twice.
			if !deterministic(x.exprs...) && len(conds) > 0 {
				break
			}
			for i, e := range exprs {
				if e != nil {
					exprs[i] = expr.Substitute(e, x.exprs)
				}
			}
			for i, c := range conds {
				conds[i] = expr.Substitute(c, x.exprs)
			}
			r = x.in
			continue
		}
		break
	}
	below = needs(len(r.columns()), append(slices.Clone(conds), exprs...)...)
	return r, conds, exprs, below
}

func (r *join) split(need []bool) (left, right []bool) {
	n, m := len(r.left.columns()), len(r.right.columns())
	all := needs(n+m, r.cond)
	for i, yes := range need {
		if i < n || r.kind != markJoin {
			all[i] = all[i] || yes
		}
	}
	return all[:n], all[n:]
}

func (r *aggregate) below(need []bool) []bool {
	below := make([]bool, len(r.in.columns()))
	for _, c := range r.group {
		below[c] = true
	}
	for i, c := range r.calls {
		if !need[len(r.group)+i] {
			continue
		}
		if c.Arg >= 0 {
			below[c.Arg] = true
		}
		if c.Filter >= 0 {
			below[c.Filter] = true
		}
		for _, o := range c.Order {
			below[o.Column] = true
		}
	}
	return below
}

func (r *top) below(need []bool) []bool {
	below := make([]bool, len(r.in.columns()))
	copy(below, need)
	for _, c := range r.partition {
		below[c] = true
	}
	for _, o := range r.order {
		below[o.column] = true
	}
	return below
}

// lower makes the nodes of a relation.
func (p *physical) lower(r rel, need []bool) (stream, error) {
	switch r := r.(type) {
	case *scan:
		return p.lowerScan(r)
	case *values:
		return p.lowerValues(r)
	case *filter, *project, *expiring:
		return p.lowerCalc(r, need)
	case *join:
		return p.lowerJoin(r, need)
	case *star:
		return p.lowerStar(r, need)
	case *aggregate:
		return p.lowerAggregate(r, need)
	case *top:
		return p.lowerTop(r, need)
	case *unnest:
		return p.lowerUnnest(r, need)
	case *union:
		return p.lowerUnion(r, need)
	}
	panic("plan: a relation that cannot be lowered")
}

// moved gives expressions over a relation the places of its columns in a stream.
func moved(e expr.Expr, s stream) expr.Expr { return remap(e, func(c int) int { return s.at[c] }) }

func (p *physical) lowerCalc(r rel, need []bool) (stream, error) {
	base, conds, exprs, below := p.peel(r, need)
	in, err := p.lower(base, below)
	if err != nil {
		return stream{}, err
	}
	out := stream{at: want(len(exprs), need)}
	plain := len(conds) == 0
	for i, e := range exprs {
		if e == nil {
			continue
		}
		c, ok := e.(*expr.Column)
		plain = plain && ok
		if ok {
			out.at[i] = in.at[c.Index]
		}
	}
	if plain {
		out.node = in.node
		return out, nil
	}
	return p.calc(in, conds, exprs, r.columns())
}

// calc makes the node of conditions and expressions over the relation below a stream. An expression that is nil is not
// needed.
func (p *physical) calc(in stream, conds, exprs []expr.Expr, names row.Schema) (stream, error) {
	from := p.node(in.node)
	out := stream{at: make([]int, len(exprs))}
	n := dataflow.Node{Kind: "calc", Inputs: []dataflow.Edge{{From: in.node}}, Append: from.Append, Single: from.Single}
	spec := operator.Calc{Settings: p.settings()}
	var text []string
	byText := map[string]int{}
	kept := map[int]int{} // column of the input: its place in the output
	for i, e := range exprs {
		out.at[i] = -1
		if e == nil {
			continue
		}
		e = moved(e, in)
		t := e.String()
		at, ok := byText[t]
		if !ok {
			at = len(spec.Exprs)
			byText[t] = at
			spec.Exprs = append(spec.Exprs, e)
			n.Schema = append(n.Schema, row.Field{Name: names[i].Name, Type: e.Type()})
			text = append(text, t)
			if c, plain := e.(*expr.Column); plain {
				kept[c.Index] = at
			}
		}
		out.at[i] = at
	}
	n.Detail = strings.Join(text, ", ")
	if len(conds) > 0 {
		for i := range conds {
			conds[i] = moved(conds[i], in)
		}
		spec.Cond = expr.And(conds...)
		n.Detail += " where " + spec.Cond.String()
	}
	if !from.Append {
		for _, e := range append(slices.Clone(spec.Exprs), conds...) {
			if !expr.Deterministic(e) {
				return stream{}, p.b.notRepeatable(e)
			}
		}
	}
	n.Key = mapKey(from.Key, kept)
	out.node = p.addMake(n, func(id string) func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error) {
		s := spec
		s.Node = id
		return func(t dataflow.Task, o dataflow.Emitter) (dataflow.Operator, error) { return operator.NewCalc(s, t, o) }
	})
	return out, nil
}

// addMake adds a node whose operator has to know its ID.
func (p *physical) addMake(n dataflow.Node, mk func(id string) func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error), more ...string) int {
	at := p.add(n, more...)
	if node := p.node(at); node.Make == nil {
		node.Make = mk(node.ID)
	}
	return at
}

// mapKey is a key behind a projection that keeps columns at other places; nil if one is not kept.
func mapKey(key []int, kept map[int]int) []int {
	if key == nil {
		return nil
	}
	out := []int{}
	for _, c := range key {
		at, ok := kept[c]
		if !ok {
			return nil
		}
		out = append(out, at)
	}
	return out
}

func (p *physical) settings() expr.Settings { return p.b.exprSettings() }

func (p *physical) lowerScan(r *scan) (stream, error) {
	t := r.table
	out := stream{at: want(len(t.schema), nil)}
	if t.kept != nil {
		for c := range out.at {
			out.at[c] = c
		}
		out.node = t.kept.node
		return out, nil
	}
	defer p.share(true)()
	var columns []int
	upsert := t.kind.Upsert && t.key != nil
	for c := range t.schema {
		if p.used[t][c] || upsert && slices.Contains(t.key, c) {
			out.at[c] = len(columns)
			columns = append(columns, c)
		}
	}
	if at, ok := p.scans[t]; ok {
		out.node = at
		return out, nil
	}
	name, group := t.name, t.name
	if t.kind.Group != nil {
		group = t.kind.Group(t.options)
		name = group
	}
	s, ok := p.sources[t.connector+"\x00"+group]
	if !ok {
		s = len(p.program.Sources)
		p.sources[t.connector+"\x00"+group] = s
		p.program.Sources = append(p.program.Sources, Source{Name: name, Connector: t.connector, Options: t.options, Pos: t.pos})
	}
	src := &p.program.Sources[s]
	st := SourceTable{Name: t.name, Filter: p.filter(t), FilterByKey: p.filterByKey(t), Options: t.options, Schema: t.schema, Metadata: t.metadata, Columns: columns, Key: t.key, Unsent: upsert, Pos: t.pos}
	src.Tables = append(src.Tables, st)
	n := dataflow.Node{Kind: "source", Detail: t.name, Append: !t.kind.Changelog, Source: &dataflow.SourceTable{Source: s, Table: len(src.Tables) - 1, Ordered: upsert}}
	kept := map[int]int{}
	for i, c := range columns {
		n.Schema = append(n.Schema, t.schema[c])
		kept[c] = i
	}
	n.Key = mapKey(t.key, kept)
	if len(t.key) == 0 {
		n.Key = nil
	}
	if upsert {
		n.Schema = append(n.Schema, row.Field{Name: "$unsent", Type: row.Type{Kind: row.BigInt, NotNull: true}})
		key := n.Key
		n.Key = nil     // a key may come many times
		n.Single = true // of several tasks none would know which change of a key came last
		out.node = p.normalize(p.add(n, t.connector, group), key)
	} else {
		out.node = p.add(n, t.connector, group)
	}
	p.scans[t] = out.node
	return out, nil
}

// normalize makes a changelog of the changes by key that a source gives.
func (p *physical) normalize(from int, key []int) int {
	src := p.node(from)
	schema := src.Schema[: len(src.Schema)-1 : len(src.Schema)-1]
	spec := operator.Normalize{Input: schema.Types(), Key: key, Unsent: true}
	edge, single := p.byKey(from, key)
	n := dataflow.Node{Kind: "normalize", Detail: fmt.Sprintf("%s by %v", src.Detail, key), Schema: schema, Key: key, Single: single, Inputs: []dataflow.Edge{edge}, States: []string{"rows"}, Keeps: dataflow.KeepsOutput}
	return p.addMake(n, func(id string) func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error) {
		s := spec
		s.Node = id
		return func(t dataflow.Task, o dataflow.Emitter) (dataflow.Operator, error) {
			return operator.NewNormalize(s, t, o)
		}
	})
}

func (p *physical) lowerUnion(r *union, need []bool) (stream, error) {
	out := stream{at: want(len(r.schema), need)}
	n := dataflow.Node{Kind: "union", Append: true}
	for c, yes := range need {
		if yes {
			out.at[c] = len(n.Schema)
			n.Schema = append(n.Schema, r.schema[c])
		}
	}
	for _, in := range r.in {
		s, err := p.lower(in, need)
		if err != nil {
			return stream{}, err
		}
		// Every input has its columns at the same places.
		cols := in.columns()
		exprs := make([]expr.Expr, len(cols))
		fits := len(p.node(s.node).Schema) == len(n.Schema)
		for c, yes := range need {
			if yes {
				exprs[c] = column(cols, c)
				fits = fits && s.at[c] == out.at[c]
			}
		}
		if !fits {
			if s, err = p.arrange(s, exprs, cols); err != nil {
				return stream{}, err
			}
		}
		n.Append = n.Append && p.node(s.node).Append
		n.Inputs = append(n.Inputs, dataflow.Edge{From: s.node})
	}
	single := true
	for _, e := range n.Inputs {
		single = single && p.node(e.From).Single
	}
	for i := range n.Inputs {
		if p.node(n.Inputs[i].From).Single && !single {
			n.Inputs[i].How = dataflow.ToOne
		}
	}
	n.Single = single
	out.node = p.add(n)
	return out, nil
}

// arrange is a projection that puts each expression into a column of its own, in order.
func (p *physical) arrange(in stream, exprs []expr.Expr, names row.Schema) (stream, error) {
	from := p.node(in.node)
	n := dataflow.Node{Kind: "calc", Inputs: []dataflow.Edge{{From: in.node}}, Append: from.Append, Single: from.Single}
	spec := operator.Calc{Settings: p.settings()}
	out := stream{at: make([]int, len(exprs))}
	var text []string
	kept := map[int]int{}
	for i, e := range exprs {
		out.at[i] = -1
		if e == nil {
			continue
		}
		e = moved(e, in)
		out.at[i] = len(spec.Exprs)
		if c, ok := e.(*expr.Column); ok {
			kept[c.Index] = len(spec.Exprs)
		}
		spec.Exprs = append(spec.Exprs, e)
		n.Schema = append(n.Schema, row.Field{Name: names[i].Name, Type: e.Type()})
		text = append(text, e.String())
	}
	n.Detail, n.Key = strings.Join(text, ", "), mapKey(from.Key, kept)
	out.node = p.addMake(n, func(id string) func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error) {
		s := spec
		s.Node = id
		return func(t dataflow.Task, o dataflow.Emitter) (dataflow.Operator, error) { return operator.NewCalc(s, t, o) }
	})
	return out, nil
}

// byKey is an edge that brings the rows of a key together.
func (p *physical) byKey(from int, cols []int) (dataflow.Edge, bool) {
	if len(cols) == 0 {
		return dataflow.Edge{From: from, How: dataflow.ToOne}, true
	}
	var types []row.Type
	for _, c := range cols {
		types = append(types, p.node(from).Schema[c].Type)
	}
	return dataflow.Edge{From: from, How: dataflow.ByKey, Key: cols, Codec: row.GroupKey(types)}, false
}

func (p *physical) lowerAggregate(r *aggregate, need []bool) (stream, error) {
	in, err := p.lower(r.in, r.below(need))
	if err != nil {
		return stream{}, err
	}
	from := p.node(in.node)
	if p.b.ttl > 0 && len(r.group) > 0 {
		p.b.noTTL(StateTTL, p.b.ttlAt)
	}
	p.growing(r.pos, "DISTINCT keeps every different row for good", in.node)
	spec := operator.Aggregation{Input: from.Schema.Types(), Retract: !from.Append}
	out := stream{at: want(len(r.schema), need)}
	n := dataflow.Node{Kind: "aggregate"}
	var keys, calls []string
	for i, c := range r.group {
		spec.Group = append(spec.Group, in.at[c])
		out.at[i] = i
		n.Key = append(n.Key, i)
		n.Schema = append(n.Schema, row.Field{Name: r.schema[i].Name, Type: from.Schema[in.at[c]].Type})
		keys = append(keys, from.Schema[in.at[c]].Name)
	}
	if len(r.group) == 0 {
		n.Key = []int{} // one row
	}
	for i, c := range r.calls {
		at := len(r.group) + i
		if !need[at] {
			continue
		}
		if c.Arg >= 0 {
			c.Arg = in.at[c.Arg]
		}
		if c.Filter >= 0 {
			c.Filter = in.at[c.Filter]
		}
		c.Order = movedOrder(c.Order, func(i int) int { return in.at[i] })
		out.at[at] = len(n.Schema)
		n.Schema = append(n.Schema, row.Field{Name: r.schema[at].Name, Type: c.Type})
		spec.Calls = append(spec.Calls, c)
		calls = append(calls, callText(c))
	}
	n.Detail = fmt.Sprintf("group by %v: %s", spec.Group, strings.Join(calls, ", "))
	if len(keys) == 0 {
		n.Detail = strings.Join(calls, ", ")
	}
	edge, single := p.byKey(in.node, spec.Group)
	n.Inputs, n.Single, n.States = []dataflow.Edge{edge}, single, spec.States()
	out.node = p.addMake(n, func(id string) func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error) {
		s := spec
		s.Node = id
		return func(t dataflow.Task, o dataflow.Emitter) (dataflow.Operator, error) {
			return operator.NewAggregate(s, t, o)
		}
	}, fmt.Sprint(spec.Retract))
	return out, nil
}

func (p *physical) lowerTop(r *top, need []bool) (stream, error) {
	width := len(r.in.columns())
	in, err := p.lower(r.in, r.below(need[:width]))
	if err != nil {
		return stream{}, err
	}
	from := p.node(in.node)
	if r.limit < 0 {
		p.growing(r.pos, "ROW_NUMBER without a bound keeps every row for good", in.node)
	}
	// Only what is needed is kept: the columns that order or divide and those that are asked for.
	spec := operator.TopN{Input: from.Schema.Types(), Limit: r.limit, Offset: r.offset, Retract: !from.Append}
	spec.Rank = r.rank && need[width]
	for _, c := range r.partition {
		spec.Partition = append(spec.Partition, in.at[c])
	}
	var order []string
	for _, o := range r.order {
		c := in.at[o.column]
		spec.Order = append(spec.Order, c)
		spec.OrderKeys = append(spec.OrderKeys, row.KeyColumn{Type: from.Schema[c].Type, Desc: o.desc, NullsLast: o.nullsLast})
		s := fmt.Sprint("$", c)
		if o.desc {
			s += " desc"
		}
		if o.nullsLast {
			s += " nulls last"
		}
		order = append(order, s)
	}
	n := dataflow.Node{Kind: "top-n", Schema: append(row.Schema(nil), from.Schema...), States: []string{"rows"}}
	out := stream{at: append(slices.Clone(in.at), -1)[:len(need)]}
	if spec.Rank {
		out.at[width] = len(n.Schema)
		n.Schema = append(n.Schema, row.Field{Name: r.rankName, Type: row.Type{Kind: row.BigInt, NotNull: true}})
		n.Key = append(slices.Clone(spec.Partition), out.at[width])
	} else if r.limit == 1 {
		n.Key = append([]int{}, spec.Partition...)
	} else {
		n.Key = from.Key
	}
	n.Detail = fmt.Sprintf("partition by %v order by %s limit %d offset %d rank %v", spec.Partition, strings.Join(order, ", "), r.limit, r.offset, spec.Rank)
	edge, single := p.byKey(in.node, spec.Partition)
	n.Inputs, n.Single = []dataflow.Edge{edge}, single
	out.node = p.addMake(n, func(id string) func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error) {
		s := spec
		s.Node = id
		return func(t dataflow.Task, o dataflow.Emitter) (dataflow.Operator, error) { return operator.NewTopN(s, t, o) }
	}, fmt.Sprint(spec.Retract))
	return out, nil
}
