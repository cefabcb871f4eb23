package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// unnest has a row for each row of in and each element of the list in one of its columns: the columns of in, and then
// those of the element.
type unnest struct {
	in         rel
	list       int
	outer      bool // a row without elements stays
	ordinality bool
	elements   row.Schema // with the number, if there is one
}

func (r *unnest) columns() row.Schema {
	s := append(row.Schema(nil), r.in.columns()...)
	for _, f := range r.elements {
		f.Type.NotNull = f.Type.NotNull && !r.outer
		s = append(s, f)
	}
	return s
}

// below is what of the input's columns is needed.
func (r *unnest) below(need []bool) []bool {
	below := slices.Clone(need[:len(r.in.columns())])
	below[r.list] = true
	return below
}

// unnest binds UNNEST(x) beside the relation whose columns x is made of.
func (b *binder) unnest(x *parser.Unnest, in rel, sc *scope, a around, outer bool) (rel, *scope, error) {
	if len(x.Args) != 1 {
		return nil, nil, b.fail(errs.NotBuiltYet, x.Pos, "UNNEST of several lists is not built yet")
	}
	place := &exprPlace{scope: &scope{cols: sc.cols, outer: a.outer, domain: a.domain, common: a.ctes}, in: &in}
	e, err := b.expr(place, x.Args[0])
	if err != nil {
		return nil, nil, err
	}
	if !insideOnly(e) {
		return nil, nil, b.fail(errs.NotBuiltYet, x.Pos, "UNNEST of a column of the query around it is not built yet")
	}
	switch e.Type().Kind {
	case row.Array, row.Map, row.Multiset:
	default:
		return nil, nil, b.fail(errs.SQLTypeMismatch, x.Args[0].Position(), "UNNEST does not take %s", e.Type().Nullable()).WithHint("an ARRAY, a MAP or a MULTISET is possible")
	}
	cols := place.scope.cols[:len(place.scope.cols):len(place.scope.cols)]
	u := &unnest{in: in, outer: outer, ordinality: x.Ordinality, elements: operator.ElementColumns(e.Type())}
	if c, ok := e.(*expr.Column); ok {
		u.list = c.Index
	} else {
		p := identity(in)
		u.list = len(p.exprs)
		p.exprs = append(p.exprs, e)
		p.schema = append(p.schema[:u.list:u.list], row.Field{Name: "$list", Type: e.Type()})
		u.in = p
		cols = append(cols, scopeColumn{table: "$list", name: "$list", typ: e.Type(), hidden: true})
	}
	if u.ordinality {
		u.elements = append(u.elements, row.Field{Name: "ORDINALITY", Type: row.Type{Kind: row.Int, NotNull: true}})
	}
	name, names := x.Alias.Name.Text, x.Alias.Columns
	if len(names) > 0 && len(names) != len(u.elements) {
		return nil, nil, b.fail(errs.SQLTypeMismatch, x.Pos, "%d names for %d columns", len(names), len(u.elements))
	}
	for i := range u.elements {
		f := &u.elements[i]
		switch {
		case len(names) > 0:
			f.Name = names[i].Text
		case f.Name == "" && name != "":
			f.Name = name
		case f.Name == "":
			f.Name = "EXPR$0"
		}
		t := f.Type
		t.NotNull = t.NotNull && !outer
		cols = append(cols, scopeColumn{table: name, name: f.Name, typ: t})
	}
	return u, &scope{cols: cols, outer: a.outer, common: a.ctes}, nil
}

// unnestJoin binds left JOIN UNNEST(x).
func (b *binder) unnestJoin(x *parser.Join, u *parser.Unnest, a around) (rel, *scope, error) {
	left, ls, err := b.tableRef(x.Left, a)
	if err != nil {
		return nil, nil, err
	}
	outer := x.Kind == parser.LeftJoin
	if !outer && x.Kind != parser.InnerJoin && x.Kind != parser.CrossJoin || x.Natural || len(x.Using) > 0 {
		return nil, nil, b.fail(errs.NotBuiltYet, x.OpPos, "this join with UNNEST is not built yet").WithHint("CROSS JOIN UNNEST(..), or LEFT JOIN UNNEST(..) ON TRUE")
	}
	r, sc, err := b.unnest(u, left, ls, a, outer)
	if err != nil || x.On == nil {
		return r, sc, err
	}
	if t, ok := x.On.(*parser.BoolLit); ok && t.Value {
		return r, sc, nil
	}
	if outer {
		return nil, nil, b.fail(errs.NotBuiltYet, x.On.Position(), "LEFT JOIN UNNEST with a condition is not built yet").WithHint("ON TRUE")
	}
	cond, err := b.condition(&exprPlace{scope: sc}, x.On, "ON")
	if err != nil {
		return nil, nil, err
	}
	if !insideOnly(cond) {
		return nil, nil, b.fail(errs.NotBuiltYet, x.On.Position(), "ON with a column of the query around it is not built yet")
	}
	return &filter{in: r, cond: cond}, sc, nil
}

// pushUnnest lets conditions on the input's columns go down.
func pushUnnest(r *unnest, conds []expr.Expr) rel {
	u := *r
	n := len(r.in.columns())
	var down, above []expr.Expr
	for _, c := range conds {
		if side(c, n) == 0 && expr.Deterministic(c) {
			down = append(down, c)
		} else {
			above = append(above, c)
		}
	}
	u.in = push(r.in, down)
	return filtered(&u, above)
}

func (p *physical) lowerUnnest(r *unnest, need []bool) (stream, error) {
	width := len(r.in.columns())
	in, err := p.lower(r.in, r.below(need))
	if err != nil {
		return stream{}, err
	}
	from := p.node(in.node)
	spec := operator.Unnest{Input: from.Schema.Types(), List: in.at[r.list], Outer: r.outer, Ordinality: r.ordinality}
	out := stream{at: want(len(need), need)}
	n := dataflow.Node{Kind: "unnest", Inputs: []dataflow.Edge{{From: in.node}}, Append: from.Append, Single: from.Single}
	kept := map[int]int{}
	for c := range width {
		if !need[c] {
			continue
		}
		at, ok := kept[in.at[c]]
		if !ok {
			at = len(spec.Keep)
			kept[in.at[c]] = at
			spec.Keep = append(spec.Keep, in.at[c])
			n.Schema = append(n.Schema, from.Schema[in.at[c]])
		}
		out.at[c] = at
	}
	for c, f := range r.columns()[width:] {
		out.at[width+c] = len(n.Schema)
		n.Schema = append(n.Schema, f)
	}
	if r.ordinality {
		if key := mapKey(from.Key, kept); key != nil {
			n.Key = append(key, len(n.Schema)-1)
		}
	}
	var more []string
	if r.outer {
		more = append(more, "with rows of no elements")
	}
	if r.ordinality {
		more = append(more, "numbered")
	}
	n.Detail = strings.Join(append([]string{fmt.Sprintf("$%d keeps %v", spec.List, spec.Keep)}, more...), ", ")
	out.node = p.addMake(n, func(id string) func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error) {
		s := spec
		s.Node = id
		return func(t dataflow.Task, o dataflow.Emitter) (dataflow.Operator, error) {
			return operator.NewUnnest(s, t, o)
		}
	})
	return out, nil
}
