package plan

import (
	"slices"

	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// wants notes that a use of a table wants the rows that fulfil all of conds. collect calls it with none for every use
// and, where conditions stand right above the scan, again with them, which then count.
func (p *physical) wants(t *table, conds []expr.Expr) {
	if len(conds) == 0 {
		p.wanted[t] = append(p.wanted[t], nil)
		return
	}
	var certain []expr.Expr
	for _, c := range conds {
		if expr.Deterministic(c) {
			certain = append(certain, c)
		}
	}
	if len(certain) > 0 {
		p.wanted[t][len(p.wanted[t])-1] = expr.And(certain...)
	}
}

// filter is the condition that some use of a table makes of a row; nil if one wants all of them.
func (p *physical) filter(t *table) expr.Expr {
	var any expr.Expr
	seen := map[string]bool{}
	for _, e := range p.wanted[t] {
		if e == nil {
			return nil
		}
		if seen[e.String()] {
			continue
		}
		seen[e.String()] = true
		if any == nil {
			any = e
			continue
		}
		var err error
		if any, err = expr.Resolve("OR", []expr.Expr{any, e}); err != nil {
			return nil
		}
	}
	return any
}

func (p *physical) filterByKey(t *table) bool {
	f := p.filter(t)
	if f == nil {
		return false
	}
	for _, c := range expr.Columns(f) {
		if !slices.Contains(t.key, c) {
			return false
		}
	}
	return true
}

// filterText is the filter with the columns' names.
func (t *SourceTable) filterText() string {
	return expr.Rewrite(t.Filter, func(e expr.Expr) expr.Expr {
		if c, ok := e.(*expr.Column); ok {
			return &expr.Column{Index: c.Index, T: c.T, Name: t.Schema[c.Index].Name}
		}
		return e
	}).String()
}

// endless tells whether a node only ever gets more rows: one of its sources does not end, and none takes rows back.
func (p *physical) endless(n int) bool {
	node := p.node(n)
	if !node.Append || p.b.serves {
		return false
	}
	if node.Source != nil {
		s := &p.program.Sources[node.Source.Source]
		k := p.b.env.Connectors[s.Connector]
		return s.Connector != "values" && (k.Bounded == nil || !k.Bounded(s.Options))
	}
	for _, e := range node.Inputs {
		if p.endless(e.From) {
			return true
		}
	}
	return false
}

// growingSide is growing of a side of a join.
func (p *physical) growingSide(at parser.Pos, n int, ttl int64) {
	if ttl == 0 {
		p.growing(at, "a join keeps every row of its sides for good", n)
	}
}

// growing warns of state that keeps every row of endless inputs.
func (p *physical) growing(at parser.Pos, what string, nodes ...int) {
	if at == (parser.Pos{}) {
		return
	}
	for _, n := range nodes {
		if p.endless(n) {
			p.b.warn(errs.New(errs.SQLUnbounded, "%s, and its input never ends", what).
				WithHint("that is as much state as there are rows; aggregate before, or leave rows out that are not needed").At(p.b.at(at)))
			return
		}
	}
}
