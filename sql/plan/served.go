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
	"github.com/weirstream/weir/sql/parser"
)

// Relation is what a served query reads: a view of a running pipeline.
type Relation struct {
	Name   string
	Schema row.Schema
	Key    []int // nil: rows may be equal
	// Table: it is an internal table, which can be written, too.
	Table bool
}

// Served is a query that is answered at once, over views that stand still. Its program has sources of the connector
// "view", each with one table, and "values", and one sink with one table, whose columns are Columns and behind them those
// that only Order needs.
type Served struct {
	*Program
	Columns row.Schema
	Order   []OrderColumn // how the rows are to be sorted; none: in any order
	Params  []row.Type    // of $1, $2, ..
	// Keys are, by source, the only keys of the view that the query can have rows of, as a batch of the view's key columns.
	Keys map[int]*row.Batch
}

// OrderColumn is a column of the sink by which the answer is sorted.
type OrderColumn struct {
	Column    int
	Desc      bool
	NullsLast bool
}

// Param is what is known of a parameter of a served query.
type Param struct {
	Type  row.Type // of kind Null: what the query makes of it
	Value *expr.Const
}

const viewConnector = "view"

// Serve plans a query over relations. Parameters without a value are taken as NULL: the plan then tells columns and
// types.
func Serve(text string, q parser.Query, env Environment, relations []Relation, params []Param) (*Served, error) {
	b := serving(text, env, relations, params)
	r, order, width, err := b.ranked(q, around{})
	if err != nil {
		return nil, err
	}
	return b.served(r, order, width, q.Position())
}

// serving is a binder of statements that are answered at once.
func serving(text string, env Environment, relations []Relation, params []Param) *binder {
	if env.Zone == nil {
		env.Zone = time.UTC
	}
	env.Parallelism = 1
	b := &binder{env: env, text: text, catalog: &catalog{objects: map[string]*object{}}, params: append([]Param{}, params...), serves: true}
	for _, r := range relations {
		t := &table{name: r.Name, connector: viewConnector, kind: Kind{Source: true}, options: map[string]string{}, schema: r.Schema, all: r.Schema, key: r.Key}
		t.scan = &scan{table: t}
		t.read = t.scan
		b.catalog.objects[r.Name] = &object{table: t}
	}
	return b
}

// paramTypes are the types of the parameters, as far as the statement has told them.
func (b *binder) paramTypes() []row.Type {
	var out []row.Type
	for _, p := range b.params {
		if p.Type.Kind == row.Null {
			p.Type = row.Type{Kind: row.String}
		}
		out = append(out, p.Type)
	}
	return out
}

// served makes the plan of a relation whose first width columns are asked for.
func (b *binder) served(r rel, order []orderColumn, width int, pos parser.Pos) (*Served, error) {
	s := &Served{Program: &Program{Graph: &dataflow.Graph{}, Bounded: true}, Columns: r.columns()[:width:width], Params: b.paramTypes(), Keys: map[int]*row.Batch{}}
	for _, o := range order {
		s.Order = append(s.Order, OrderColumn{o.column, o.desc, o.nullsLast})
	}
	result := &table{name: "result", connector: "result", kind: Kind{Sink: true, SinkChangelog: true, SinkKeyless: true}, options: map[string]string{}, schema: r.columns()}
	inserts := []insert{{table: result, rel: r, pos: pos}}
	if err := b.physical(s.Program, inserts, nil); err != nil {
		return nil, err
	}
	s.Warnings = b.warnings
	keys := map[*scan][]map[int][]*expr.Const{}
	b.keyConditions(inserts[0].rel, nil, keys) // physical has pushed the conditions down
	for sc, uses := range keys {
		if slices.ContainsFunc(uses[1:], func(u map[int][]*expr.Const) bool { return keyText(sc.table, u) != keyText(sc.table, uses[0]) }) {
			continue // one reader of the view serves them all
		}
		batch := keyBatch(sc.table, uses[0])
		for i := range s.Sources {
			if batch != nil && s.Sources[i].Connector == viewConnector && s.Sources[i].Name == sc.table.name {
				s.Keys[i] = batch
			}
		}
	}
	return s, nil
}

// ranked is query for the outermost query: it returns the order, too, and how many of the columns are the output's.
func (b *binder) ranked(q parser.Query, a around) (rel, []orderColumn, int, error) {
	switch q := q.(type) {
	case *parser.With:
		a, err := b.common(q, a)
		if err != nil {
			return nil, nil, 0, err
		}
		return b.ranked(q.Body, a)
	case *parser.Ordered:
		return b.orderedWith(q, a)
	}
	r, err := b.query(q, a)
	if err != nil {
		return nil, nil, 0, err
	}
	return r, nil, len(r.columns()), nil
}

// param is the value of a parameter, or a NULL of its type.
func (b *binder) param(x *parser.Param) (expr.Expr, error) {
	if !b.serves {
		return nil, b.fail(errs.SQLSyntax, x.Pos, "a parameter has no value here").WithHint("write the value itself")
	}
	p := b.paramAt(x)
	switch {
	case p.Value != nil:
		return p.Value, nil
	case p.Type.Kind == row.Null:
		p.Type = row.Type{Kind: row.String}
	}
	return expr.NullOf(p.Type), nil
}

func (b *binder) paramAt(x *parser.Param) *Param {
	for len(b.params) < x.Number {
		b.params = append(b.params, Param{})
	}
	return &b.params[x.Number-1]
}

// settle gives parameters that stand beside other arguments, and whose type nobody has told, the type of those.
func (b *binder) settle(p *exprPlace, xs []parser.Expr) {
	if !b.serves {
		return
	}
	var open []int
	var known parser.Expr
	for _, x := range xs {
		if prm, ok := x.(*parser.Param); ok {
			if at := b.paramAt(prm); at.Type.Kind == row.Null {
				open = append(open, prm.Number-1)
				continue
			}
		}
		if known == nil {
			known = x
		}
	}
	if len(open) == 0 || known == nil {
		return
	}
	// What is wrong with it is told when it is bound to stay. Binding a subquery would add to the relation.
	if _, sub := known.(*parser.Subquery); sub {
		return
	}
	e, err := b.expr(p, known)
	if err != nil {
		return
	}
	for _, i := range open {
		b.params[i].Type = roomy(e.Type())
	}
}

// roomy is the type of a parameter that stands where a value of type t does: what is given is taken as it is, and neither
// cut nor rounded before it is compared or put somewhere.
func roomy(t row.Type) row.Type {
	t = t.Nullable()
	switch t.Kind {
	case row.String, row.Bytes:
		t.Precision, t.Fixed = 0, false
	case row.Decimal:
		t.Precision, t.Scale = 38, 18 // whoever has the value gives it a type of its own
	case row.Time, row.Timestamp, row.TimestampLTZ:
		t.Precision = max(t.Precision, 6)
	}
	return t
}

// rowCount is the number that LIMIT or OFFSET takes.
func (b *binder) rowCount(x parser.Expr) (int64, bool) {
	p, ok := x.(*parser.Param)
	if !ok || !b.serves {
		return 0, false
	}
	at := b.paramAt(p)
	if at.Type.Kind == row.Null {
		at.Type = row.Type{Kind: row.BigInt}
	}
	if at.Value == nil {
		return 1, true
	}
	if at.Value.IsNull() || at.Type.Layout() != row.LayoutInt64 {
		return 0, false
	}
	return at.Value.Vec.Int64[0], true
}

// keyConditions collects, for every use of a scan, the columns that a condition right above it compares with constants.
func (b *binder) keyConditions(r rel, conds []expr.Expr, to map[*scan][]map[int][]*expr.Const) {
	switch r := r.(type) {
	case *scan:
		equal := map[int][]*expr.Const{}
		for _, c := range conds {
			if col, values := b.equalTo(c, r.table.schema); values != nil && equal[col] == nil {
				equal[col] = values
			}
		}
		to[r] = append(to[r], equal)
	case *filter:
		b.keyConditions(r.in, append(expr.Conjuncts(r.cond), conds...), to)
	case *project:
		b.keyConditions(r.in, nil, to)
	case *join:
		b.keyConditions(r.left, nil, to)
		b.keyConditions(r.right, nil, to)
	case *expiring:
		b.keyConditions(r.in, conds, to)
	case *star:
		for _, in := range r.in {
			b.keyConditions(in, nil, to)
		}
	case *unnest:
		b.keyConditions(r.in, nil, to)
	case *aggregate:
		b.keyConditions(r.in, nil, to)
	case *top:
		b.keyConditions(r.in, nil, to)
	case *union:
		for _, in := range r.in {
			b.keyConditions(in, nil, to)
		}
	}
}

// equalTo takes column = constant and column IN (constants) apart.
func (b *binder) equalTo(cond expr.Expr, s row.Schema) (int, []*expr.Const) {
	if in, ok := cond.(*expr.In); ok && !in.Not {
		if c, ok := in.Arg.(*expr.Column); ok && len(in.List) > 0 {
			return c.Index, fitting(in.List, s[c.Index].Type)
		}
		return 0, nil
	}
	call, ok := cond.(*expr.Call)
	if !ok || call.Fn.Name() != "=" || len(call.Args) != 2 {
		return 0, nil
	}
	for i, arg := range call.Args {
		c, ok := arg.(*expr.Column)
		if !ok {
			continue
		}
		e, err := expr.Fold(call.Args[1-i], expr.Settings{Zone: b.env.Zone})
		if err != nil {
			return 0, nil
		}
		if k, ok := e.(*expr.Const); ok && !k.IsNull() {
			return c.Index, fitting([]*expr.Const{k}, s[c.Index].Type)
		}
	}
	return 0, nil
}

// fitting is the constants, each once, if they lie in a vector of the type as the column's values do.
func fitting(ks []*expr.Const, t row.Type) []*expr.Const {
	whole := func(t row.Type) bool {
		return t.Kind == row.TinyInt || t.Kind == row.SmallInt || t.Kind == row.Int || t.Kind == row.BigInt
	}
	for _, k := range ks {
		a, b := k.T.Nullable(), t.Nullable()
		if !a.Equal(b) && !(whole(a) && whole(b)) && !(a.Kind == row.String && b.Kind == row.String && !b.Fixed) {
			return nil
		}
	}
	var once []*expr.Const
	seen := map[string]bool{}
	for _, k := range ks {
		if text := k.String(); !seen[text] {
			seen[text] = true
			once = append(once, k)
		}
	}
	return once
}

// keyText tells uses of a table apart by the keys that they ask for.
func keyText(t *table, equal map[int][]*expr.Const) string {
	var text strings.Builder
	for _, c := range t.key {
		fmt.Fprintf(&text, "%v;", equal[c])
	}
	return text.String()
}

// keyBatch makes a batch of the keys of a table that conditions leave over, nil if they do not name every column of it.
func keyBatch(t *table, equal map[int][]*expr.Const) *row.Batch {
	if len(t.key) == 0 {
		return nil
	}
	n := 1
	var types []row.Type
	for _, c := range t.key {
		if equal[c] == nil {
			return nil
		}
		n *= len(equal[c])
		types = append(types, t.schema[c].Type)
	}
	if n > row.MaxBatch {
		return nil
	}
	b := row.NewBuilder(types)
	b.Reset()
	for i := range n {
		rest := i
		for at, c := range t.key {
			k := equal[c][rest%len(equal[c])]
			rest /= len(equal[c])
			b.Cols[at].Gather(types[at].Layout(), b.Len, k.Vec, nil, 1)
		}
		b.EndRow(1)
	}
	return b.Seal()
}
