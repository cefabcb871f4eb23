package plan

import (
	"slices"

	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// ChangeKind is what a statement does to an internal table.
type ChangeKind uint8

// The kinds.
const (
	Insert ChangeKind = iota + 1
	Update
	Delete
)

// Change is a planned INSERT, UPDATE, DELETE or TRUNCATE of an internal table. One of Values, Direct and Query says where
// its rows come from: of an INSERT the new rows, of a DELETE the old ones, and of an UPDATE both, the columns of the old
// row and then those of the new one.
type Change struct {
	Kind   ChangeKind
	Table  string
	Params []row.Type // of $1, $2, ..
	Values []*row.Batch
	Direct *Direct
	Query  *Served
	// Upsert is what ON CONFLICT says of rows whose key exists.
	Upsert Upsert
	// Returning is what RETURNING computes of each row that was changed; of a DELETE the old, else the new one. nil: nothing.
	Returning *Projection
}

// Direct is rows of the changed table itself, which need no graph.
type Direct struct {
	*Projection
	// Keys are the only keys that the condition can be true for; nil: it may be any.
	Keys *row.Batch
}

// Upsert is what becomes of an inserted row whose key exists.
type Upsert struct {
	Ignore bool        // nothing
	Update *Projection // over the columns of the existing row and then of the inserted one: as Query of an UPDATE; nil: it is an error
}

// Changes plans a statement that writes a table of relations. Parameters are as in Serve.
func Changes(text string, st parser.Statement, env Environment, relations []Relation, params []Param) (*Change, error) {
	b := serving(text, env, relations, params)
	c := &Change{}
	var err error
	switch s := st.(type) {
	case *parser.Insert:
		err = b.insertRows(c, s, relations)
	case *parser.Update:
		err = b.updateRows(c, s, relations)
	case *parser.Delete:
		err = b.deleteRows(c, s.Table, s.Alias, s.Where, s.Returning, relations)
	case *parser.Truncate:
		err = b.deleteRows(c, s.Table, parser.Ident{}, nil, nil, relations)
	default:
		err = b.fail(errs.SQLNotBuilt, st.Position(), "%s is not built yet", parser.Keywords(st))
	}
	if err != nil {
		return nil, err
	}
	c.Params = b.paramTypes()
	return c, nil
}

// target is the table that a statement changes.
func (b *binder) target(c *Change, name parser.Name, relations []Relation) (*table, error) {
	if _, _, err := b.namedTable(name, nil); err != nil {
		return nil, err
	}
	t := b.catalog.find(name.Last().Text).table
	if !slices.ContainsFunc(relations, func(r Relation) bool { return r.Name == t.name && r.Table }) {
		return nil, b.fail(errs.SQLUpdates, name.Position(), "%s is a view and cannot be written", t.name).
			WithHint("its rows follow from what it reads: change that")
	}
	c.Table = t.name
	return t, nil
}

// columnOf is the column that an assignment or a list names.
func (b *binder) columnOf(t *table, name parser.Ident) (int, error) {
	found := scopeOf(t.name, t.schema).lookup("", name.Text)
	if len(found) != 1 {
		return 0, b.fail(errs.SQLUnknownName, name.Pos, "column %s of table %s does not exist", name.Text, t.name)
	}
	return found[0], nil
}

// value binds what is put into a column: DEFAULT is NULL, and a parameter that nothing else tells the type of has the
// column's.
func (b *binder) value(p *exprPlace, t *table, col int, x parser.Expr) (expr.Expr, error) {
	typ := t.schema[col].Type.Nullable()
	switch x := x.(type) {
	case *parser.Default:
		return expr.NullOf(typ), nil
	case *parser.Param:
		if at := b.paramAt(x); at.Type.Kind == row.Null {
			at.Type = roomy(typ)
		}
	}
	e, err := b.expr(p, x)
	if err != nil {
		return nil, err
	}
	return b.assign(e, t, col, x.Position())
}

// assign is the cast of an assignment, which takes more than others do: any number for a number, and a text that is
// written in the statement for everything. A text is never cut.
func (b *binder) assign(e expr.Expr, t *table, col int, at parser.Pos) (expr.Expr, error) {
	typ := t.schema[col].Type.Nullable()
	if k, ok := e.(*expr.Const); ok && !k.IsNull() && k.T.Kind == row.Decimal && typ.Kind == row.Decimal && k.T.Scale == typ.Scale && k.T.Precision <= typ.Precision {
		return expr.NewConst(typ, k.Vec), nil // as it is: a cast of each of many constants would take its time
	}
	cast, err := expr.Coerce(e, typ)
	if err == nil {
		return cast, nil
	}
	_, constant := e.(*expr.Const)
	from := e.Type()
	if from.Kind.Number() && typ.Kind.Number() || constant && from.Kind == row.String || typ.Kind == row.String && typ.Precision == 0 ||
		from.Kind == row.String && (typ.Kind == row.UUID || typ.Kind == row.JSON) {
		if cast, cerr := expr.CastTo(e, typ, false); cerr == nil {
			return cast, nil
		}
	}
	return nil, b.fail(errs.SQLTypeMismatch, at, "%s is not taken as %s", from.Nullable(), typ).
		WithDetail("column %s of table %s", t.schema[col].Name, t.name).WithHint("CAST(.. AS %s) says that it is meant", typ)
}

func (b *binder) exprSettings() expr.Settings {
	return expr.Settings{Zone: b.env.Zone, Rand: b.env.Rand}
}

// insertRows binds INSERT.
func (b *binder) insertRows(c *Change, s *parser.Insert, relations []Relation) error {
	c.Kind = Insert
	t, err := b.target(c, s.Table, relations)
	if err != nil {
		return err
	}
	if s.Overwrite || len(s.Partition) > 0 {
		return b.fail(errs.NotBuiltYet, s.Pos, "INSERT OVERWRITE and PARTITION are not built yet")
	}
	var to []int
	for i := range t.schema {
		if s.Columns == nil {
			to = append(to, i)
		}
	}
	for _, name := range s.Columns {
		i, err := b.columnOf(t, name)
		if err != nil {
			return err
		}
		if slices.Contains(to, i) {
			return b.fail(errs.SQLConnector, name.Pos, "column %s is written twice", name.Text)
		}
		to = append(to, i)
	}
	width := func(n int, at parser.Pos) error {
		// As in Postgres, what stands at the end may be left out where no columns are named.
		if n == len(to) || s.Columns == nil && n < len(to) {
			return nil
		}
		return b.fail(errs.SQLSyntax, at, "INSERT has %d values for %d columns", n, len(to)).WithHint("name the columns that are written: INSERT INTO %s (a, b, ..)", t.name)
	}
	if v, ok := s.Query.(*parser.Values); ok {
		if err := b.insertValues(c, t, v, to, width); err != nil {
			return err
		}
	} else {
		r, err := b.query(s.Query, around{})
		if err != nil {
			return err
		}
		given := r.columns()
		if err := width(len(given), s.Query.Position()); err != nil {
			return err
		}
		p := &project{in: r, schema: nullables(t.schema)}
		for i := range t.schema {
			p.exprs = append(p.exprs, expr.NullOf(t.schema[i].Type.Nullable()))
		}
		for k := range given {
			if p.exprs[to[k]], err = b.assign(column(given, k), t, to[k], s.Query.Position()); err != nil {
				return err
			}
		}
		if c.Query, err = b.served(p, nil, len(p.exprs), s.Query.Position()); err != nil {
			return err
		}
	}
	if err := b.upsert(c, t, s); err != nil {
		return err
	}
	return b.returning(c, t, t.name, s.Returning)
}

// nullables are columns as they are before NOT NULL is asked for.
func nullables(s row.Schema) row.Schema {
	out := append(row.Schema(nil), s...)
	for i := range out {
		out[i].Type.NotNull = false
	}
	return out
}

// insertValues computes the rows of VALUES.
func (b *binder) insertValues(c *Change, t *table, v *parser.Values, to []int, width func(int, parser.Pos) error) error {
	types := nullables(t.schema).Types()
	place := &exprPlace{scope: &scope{}}
	var out *row.Builder
	for _, r := range v.Rows {
		at := v.Pos
		if len(r) > 0 {
			at = r[0].Position()
		}
		if err := width(len(r), at); err != nil {
			return err
		}
		if out == nil || out.Len == row.MaxBatch {
			out = row.NewBuilder(types)
			out.Reset()
			c.Values = append(c.Values, &out.Batch)
		}
		given := 0 // columns, as bits
		var many []bool
		if len(types) > 63 {
			many = make([]bool, len(types))
		}
		for k, x := range r {
			col := to[k]
			if many != nil {
				many[col] = true
			} else {
				given |= 1 << col
			}
			e, err := b.value(place, t, col, x)
			if err == nil {
				err = b.appendConstant(out.Cols[col], out.Len, types[col], e)
			}
			if err != nil {
				return b.place(err, x.Position())
			}
		}
		for col := range types {
			if many != nil && !many[col] || many == nil && given&(1<<col) == 0 {
				out.Cols[col].AppendNull(types[col].Layout())
			}
		}
		out.EndRow(1)
		if out.Len == row.MaxBatch {
			out.Seal()
		}
	}
	if out != nil {
		out.Seal()
	}
	return nil
}

// appendConstant appends the value of an expression without columns to a vector of have values.
func (b *binder) appendConstant(v *row.Vector, have int, t row.Type, e expr.Expr) error {
	k, ok := e.(*expr.Const)
	if !ok {
		folded, err := expr.Fold(e, b.exprSettings())
		if err != nil {
			return err
		}
		if k, ok = folded.(*expr.Const); !ok {
			// It cannot be computed, or is another value each time: CURRENT_TIMESTAMP.
			p, err := expr.Compile([]expr.Expr{folded}, b.exprSettings())
			if err != nil {
				return err
			}
			cols, faults := p.Run(&row.Batch{Len: 1}, b.env.Now)
			if len(faults) > 0 {
				return errs.New(faults[0].Code, "%s", faults[0].Message)
			}
			v.Gather(t.Layout(), have, cols[0], nil, 1)
			return nil
		}
	}
	if k.IsNull() {
		v.AppendNull(t.Layout())
		return nil
	}
	v.Gather(t.Layout(), have, k.Vec, nil, 1)
	return nil
}

// upsert binds ON CONFLICT.
func (b *binder) upsert(c *Change, t *table, s *parser.Insert) error {
	if s.OnConflict == parser.ConflictUnstated {
		return nil
	}
	if s.ConflictKey != nil {
		var cols []int
		for _, name := range s.ConflictKey {
			i, err := b.columnOf(t, name)
			if err != nil {
				return err
			}
			cols = append(cols, i)
		}
		key := slices.Clone(t.key)
		slices.Sort(cols)
		slices.Sort(key)
		if !slices.Equal(cols, key) || len(key) == 0 {
			return b.fail(errs.SQLUpdates, s.ConflictKey[0].Pos, "ON CONFLICT names other columns than the primary key of table %s", t.name)
		}
	}
	switch s.OnConflict {
	case parser.ConflictNothing:
		c.Upsert.Ignore = true
	case parser.ConflictDeduplicate:
		return b.fail(errs.NotBuiltYet, s.Pos, "ON CONFLICT DO DEDUPLICATE is not built yet").WithHint("DO NOTHING keeps the first row of a key, DO UPDATE SET takes the last")
	case parser.ConflictUpdate:
		if t.key == nil {
			return b.fail(errs.SQLConnector, s.Pos, "ON CONFLICT DO UPDATE wants a table with a primary key, which %s does not have", t.name)
		}
		// Names alone are the existing row's, as in Postgres.
		sc := scopeOf(t.name, t.schema)
		for _, x := range scopeOf("excluded", t.schema).cols {
			x.merged, x.hidden = true, true
			sc.cols = append(sc.cols, x)
		}
		p, err := b.updated(&exprPlace{scope: sc}, t, 2*len(t.schema), s.ConflictSet, s.ConflictWhere)
		if err != nil {
			return err
		}
		c.Upsert.Update = p
	}
	return nil
}

// updated is old rows with what SET makes of them.
func (b *binder) updated(place *exprPlace, t *table, width int, set []parser.Assignment, where parser.Expr) (*Projection, error) {
	exprs, err := b.assignments(place, t, set)
	if err != nil {
		return nil, err
	}
	p := &Projection{settings: b.exprSettings(), exprs: exprs, Schema: append(nullables(t.schema), nullables(t.schema)...)}
	if where != nil {
		if p.cond, err = b.condition(place, where, "WHERE"); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// assignments are the columns of the old row, and then those of the new one.
func (b *binder) assignments(place *exprPlace, t *table, set []parser.Assignment) ([]expr.Expr, error) {
	n := len(t.schema)
	exprs := make([]expr.Expr, 2*n)
	for i := range n {
		exprs[i], exprs[n+i] = column(t.schema, i), column(t.schema, i)
	}
	seen := map[int]bool{}
	for _, a := range set {
		i, err := b.columnOf(t, a.Column)
		if err != nil {
			return nil, err
		}
		if seen[i] {
			return nil, b.fail(errs.SQLSyntax, a.Column.Pos, "multiple assignments to same column %q", a.Column.Text)
		}
		seen[i] = true
		if exprs[n+i], err = b.value(place, t, i, a.Value); err != nil {
			return nil, err
		}
	}
	return exprs, nil
}

func (b *binder) updateRows(c *Change, s *parser.Update, relations []Relation) error {
	c.Kind = Update
	t, err := b.target(c, s.Table, relations)
	if err != nil {
		return err
	}
	name := t.name
	if s.Alias.Text != "" {
		name = s.Alias.Text
	}
	schema := append(nullables(t.schema), nullables(t.schema)...)
	if err := b.changed(c, t, name, s.Where, schema, func(p *exprPlace) ([]expr.Expr, error) { return b.assignments(p, t, s.Set) }, s.Pos); err != nil {
		return err
	}
	return b.returning(c, t, name, s.Returning)
}

func (b *binder) deleteRows(c *Change, table parser.Name, alias parser.Ident, where parser.Expr, returning []parser.SelectItem, relations []Relation) error {
	c.Kind = Delete
	t, err := b.target(c, table, relations)
	if err != nil {
		return err
	}
	name := t.name
	if alias.Text != "" {
		name = alias.Text
	}
	if err := b.changed(c, t, name, where, t.schema, func(*exprPlace) ([]expr.Expr, error) {
		var all []expr.Expr
		for i := range t.schema {
			all = append(all, column(t.schema, i))
		}
		return all, nil
	}, table.Position()); err != nil {
		return err
	}
	return b.returning(c, t, name, returning)
}

// changed finds the rows of a table that an UPDATE or DELETE is about.
func (b *binder) changed(c *Change, t *table, name string, where parser.Expr, schema row.Schema, exprs func(*exprPlace) ([]expr.Expr, error), pos parser.Pos) error {
	in := rel(t.scan)
	place := &exprPlace{scope: scopeOf(name, t.schema), in: &in}
	if where != nil {
		var pulled []expr.Expr
		if err := b.where(place, where, around{}, &pulled); err != nil {
			return err
		}
	}
	es, err := exprs(place)
	if err != nil {
		return err
	}
	p := &project{in: in, exprs: es, schema: schema}
	pushed, ok := push(p, nil).(*project)
	if ok {
		base, cond := pushed.in, expr.Expr(nil)
		if f, ok := base.(*filter); ok {
			base, cond = f.in, f.cond
		}
		if base == rel(t.scan) {
			c.Direct = &Direct{Projection: &Projection{cond: cond, exprs: es, settings: b.exprSettings(), Schema: schema}}
			uses := map[*scan][]map[int][]*expr.Const{}
			b.keyConditions(pushed, nil, uses)
			c.Direct.Keys = keyBatch(t, uses[t.scan][0])
			return nil
		}
	}
	c.Query, err = b.served(p, nil, len(es), pos)
	return err
}

// returning binds RETURNING.
func (b *binder) returning(c *Change, t *table, name string, items []parser.SelectItem) error {
	if items == nil {
		return nil
	}
	sc := scopeOf(name, t.schema)
	xs, names, err := b.expandItems(&parser.Select{Items: items}, sc)
	if err != nil {
		return err
	}
	place := &exprPlace{scope: sc}
	p := &Projection{settings: b.exprSettings()}
	for i, x := range xs {
		if hasSubquery(x) {
			return b.fail(errs.NotBuiltYet, x.Position(), "a subquery in RETURNING is not built yet")
		}
		e, err := b.expr(place, x)
		if err != nil {
			return err
		}
		p.exprs = append(p.exprs, e)
		p.Schema = append(p.Schema, row.Field{Name: names[i], Type: e.Type()})
	}
	c.Returning = p
	return nil
}

func hasSubquery(x parser.Expr) bool {
	found := false
	parser.Walk(x, func(n parser.Node) bool {
		_, query := n.(parser.Query)
		found = found || query
		return !found
	})
	return found
}
