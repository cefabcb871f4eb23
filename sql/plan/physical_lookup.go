package plan

import (
	"fmt"
	"strings"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/joins"
)

// lowerLookup makes the node of a join with a table that does not change: only the table is kept.
func (p *physical) lowerLookup(r *join, need []bool, left, right stream, lk, rk []int, types []row.Type, nullsMatch bool, rest []expr.Expr, kept []int) (stream, error) {
	if len(lk) == 0 {
		return stream{}, p.b.fail(errs.SQLTypeMismatch, r.pos, "a look-up needs an equality with a column of the table")
	}
	if err := p.first(right.node, r); err != nil {
		return stream{}, err
	}
	nl := len(r.left.columns())
	from := p.node(left.node)
	rx := p.index(right, rk, append([]row.Type(nil), types...), nullsMatch, false, kept, 0, "lookup for "+from.ID)
	codec := p.node(rx).Inputs[0].Codec
	spec := joins.LookupOptions{Left: r.kind == leftJoin, Input: from.Schema.Types(), Key: lk}
	n := dataflow.Node{Kind: "lookup", Append: from.Append,
		Inputs: []dataflow.Edge{{From: left.node, How: dataflow.ByKey, Key: lk, Codec: codec}, {From: rx, How: dataflow.Probe}}}
	cols := r.columns()
	at := func(c int) joins.Column {
		if c < nl {
			return joins.Column{Input: 0, Column: left.at[c]}
		}
		return joins.Column{Input: 1, Column: right.at[c-nl]}
	}
	out := stream{at: want(len(need), need)}
	for c, yes := range need {
		if yes {
			out.at[c] = len(spec.Output)
			spec.Output = append(spec.Output, at(c))
			n.Schema = append(n.Schema, cols[c])
		}
	}
	n.Key = outputKey(r.kind, from.Key, p.node(right.node).Key, lk, rk, spec.Output)
	var text []string
	for i := range lk {
		text = append(text, fmt.Sprintf("l$%d = r$%d", lk[i], rk[i]))
	}
	n.Detail = r.kind.String() + " on " + strings.Join(text, " and ")
	var cond expr.Expr
	var err error
	if len(rest) > 0 {
		if cond, spec.Tested, err = p.tested(rest, at); err != nil {
			return stream{}, err
		}
		n.Detail += fmt.Sprintf(" where %s over %v", cond, spec.Tested)
	}
	n.Detail += fmt.Sprintf(" gives %v", spec.Output)
	settings := p.settings()
	out.node = p.addMake(n, func(id string) func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error) {
		return func(t dataflow.Task, o dataflow.Emitter) (dataflow.Operator, error) {
			s := spec
			s.Name, s.Table = id, t.Peer(rx).(*joins.Index)
			if cond != nil {
				f, err := expr.CompileFilter(cond, settings)
				if err != nil {
					return nil, err
				}
				s.Condition = &condition{filter: f, task: t, node: id}
			}
			return joins.NewLookup(t, o, s)
		}
	})
	return out, nil
}

// first marks the sources below a node as those that are read before all others.
func (p *physical) first(n int, r *join) error {
	if s := p.node(n).Source; s != nil {
		for _, other := range p.program.Graph.Nodes {
			if other.Source != nil && other.Source.Source == s.Source && other.Source.Table != s.Table {
				return p.b.fail(errs.NotBuiltYet, r.pos, "a look-up in a table of a source that other tables are read from is not built yet")
			}
		}
		p.program.Sources[s.Source].First = true
	}
	for _, e := range p.node(n).Inputs {
		if err := p.first(e.From, r); err != nil {
			return err
		}
	}
	return nil
}
