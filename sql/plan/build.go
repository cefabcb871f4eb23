package plan

import (
	"slices"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

func (b *binder) at(pos parser.Pos) errs.Position { return parser.Locate(b.file, b.text, pos) }

// warn adds a warning, once: a query may be bound more than once.
func (b *binder) warn(e *errs.Error) {
	for _, w := range b.warnings {
		if w.Render() == e.Render() {
			return
		}
	}
	b.warnings = append(b.warnings, e)
}

func (b *binder) notRepeatable(e expr.Expr) error {
	return errs.New(errs.NotBuiltYet, "%s over rows that may change or be taken back is not built yet", e).
		WithHint("its value would be another one when the row is taken back; compute it where rows are only added")
}

// insert is what the file asks to be written.
type insert struct {
	table *table
	rel   rel
	pos   parser.Pos
}

// Build plans a file. The first mistake ends it.
func Build(file, text string, env Environment) (*Program, error) {
	script, err := parser.Parse(file, text)
	if err != nil {
		return nil, err
	}
	if env.Zone == nil {
		env.Zone = time.UTC
	}
	if env.Parallelism == 0 {
		env.Parallelism = 1
	}
	b := &binder{env: env, file: file, text: text, catalog: &catalog{objects: map[string]*object{}}}
	p := &Program{Graph: &dataflow.Graph{}}
	var inserts []insert
	var views []*view
	for _, s := range script.Statements {
		if err := b.statement(p, s, &inserts, &views); err != nil {
			return nil, err
		}
	}
	ph := newPhysical(b, p)
	if err := ph.all(inserts, views); err != nil {
		return nil, err
	}
	for n, text := range env.Added {
		if err := ph.added(n+1, text); err != nil {
			return nil, err
		}
	}
	b.unusedTTLs()
	p.Warnings = b.warnings
	p.Bounded = true
	for _, s := range p.Sources {
		k := env.Connectors[s.Connector]
		p.Bounded = p.Bounded && (s.Connector == "values" || k.Bounded != nil && k.Bounded(s.Options))
	}
	return p, nil
}

// statement binds one of the file, or one that was added to it.
func (b *binder) statement(p *Program, s parser.Statement, inserts *[]insert, views *[]*view) (err error) {
	b.reads, b.domains = nil, 0
	switch s := s.(type) {
	case *parser.Set:
		p.Settings = append(p.Settings, s)
		if s.Key.Text == StateTTL {
			err = b.setTTL(s)
		}
		if s.Key.Text == "table.local-time-zone" {
			if b.env.Zone, err = time.LoadLocation(s.Value.Text); err != nil {
				return b.fail(errs.SQLConnector, s.Value.Pos, "there is no time zone %q", s.Value.Text)
			}
		}
	case *parser.CreateTable:
		if err = b.createTable(s); err == nil {
			*views = b.keep(*views, s)
			b.object(p, s.Name, parser.ObjectTable)
		}
	case *parser.CreateView:
		if _, err = b.createView(s.Name, s.Columns, s.Query, false, s.OrReplace, s.IfNotExists); err == nil {
			b.object(p, s.Name, parser.ObjectView)
		}
	case *parser.CreateMaterializedView:
		var v *view
		if v, err = b.createView(s.Name, s.Columns, s.Query, true, s.OrReplace, s.IfNotExists); err == nil {
			*views = append(*views, v)
			b.object(p, s.Name, parser.ObjectMaterializedView)
		}
	case *parser.Insert:
		err = b.insertInto(p, s, inserts)
	case *parser.StatementSet:
		for _, x := range s.Inserts {
			b.reads = nil
			if err := b.insertInto(p, x, inserts); err != nil {
				return err
			}
		}
	default:
		err = b.fail(errs.SQLNotBuilt, s.Position(), "%s is not built yet", parser.Keywords(s))
	}
	return err
}

func (b *binder) insertInto(p *Program, s *parser.Insert, inserts *[]insert) error {
	i, err := b.insert(s)
	if err != nil {
		return err
	}
	*inserts = append(*inserts, i)
	b.read(i.table.name)
	p.Objects = append(p.Objects, Object{Name: i.table.name, Kind: ObjectInsert, Reads: b.reads, Added: b.added})
	return nil
}

// object notes what a statement made.
func (b *binder) object(p *Program, name parser.Name, kind parser.ObjectKind) {
	o := Object{Name: name.Last().Text, Kind: kind, Reads: b.reads, Added: b.added}
	if t := b.catalog.objects[o.Name]; t != nil && t.table != nil {
		o.Connector = t.table.connector
	}
	p.Objects = append(p.Objects, o)
}

// read notes that the statement names a table or view.
func (b *binder) read(name string) {
	if !slices.Contains(b.reads, name) {
		b.reads = append(b.reads, name)
	}
}

// insert binds INSERT INTO: the query's columns are cast to the table's; columns that are not named are NULL.
func (b *binder) insert(s *parser.Insert) (insert, error) {
	o := b.catalog.find(s.Table.Last().Text)
	if o == nil || o.table == nil {
		return insert{}, b.fail(errs.SQLUnknownName, s.Table.Position(), "there is no table %s to write to", s.Table)
	}
	o, err := b.withOptions(o, s.Hints)
	if err != nil {
		return insert{}, err
	}
	t := o.table
	if t.connector == TableConnector {
		return insert{}, b.fail(errs.NotBuiltYet, s.Table.Position(), "INSERT INTO %s in a file: table %s has no connector, and what it holds is written by clients", t.name, t.name).
			WithHint("CREATE MATERIALIZED VIEW keeps a query's result; psql can write into %s once the pipeline runs", t.name)
	}
	if !t.kind.Sink {
		return insert{}, b.fail(errs.SQLConnector, s.Table.Position(), "table %s cannot be written: connector '%s' only reads", t.name, t.connector)
	}
	if s.Overwrite || len(s.Partition) > 0 {
		return insert{}, b.fail(errs.NotBuiltYet, s.Pos, "INSERT OVERWRITE and PARTITION are not built yet")
	}
	r, err := b.query(s.Query, around{})
	if err != nil {
		return insert{}, err
	}
	given := r.columns()
	to := make([]int, 0, len(t.schema))
	if s.Columns == nil {
		for i := range t.schema {
			to = append(to, i)
		}
	}
	for _, c := range s.Columns {
		i := t.schema.Index(c.Text)
		if i < 0 {
			return insert{}, b.fail(errs.SQLUnknownName, c.Pos, "table %s has no column %s", t.name, c.Text)
		}
		to = append(to, i)
	}
	if len(to) != len(given) {
		return insert{}, b.fail(errs.SQLTypeMismatch, s.Query.Position(), "the query gives %d columns, table %s takes %d", len(given), t.name, len(to)).
			WithHint("name the columns that are written: INSERT INTO %s (a, b, ..)", t.name)
	}
	p := &project{in: r, schema: t.schema, exprs: make([]expr.Expr, len(t.schema))}
	for k, i := range to {
		e, err := expr.Coerce(column(given, k), t.schema[i].Type)
		if err != nil {
			if e, ok := errs.As(err); ok {
				return insert{}, e.At(b.at(s.Query.Position())).WithDetail("column %s of table %s", t.schema[i].Name, t.name)
			}
			return insert{}, err
		}
		p.exprs[i] = e
	}
	for i, e := range p.exprs {
		if e != nil {
			continue
		}
		if t.schema[i].Type.NotNull {
			return insert{}, b.fail(errs.SQLTypeMismatch, s.Pos, "column %s of table %s takes no NULL and is not written", t.schema[i].Name, t.name)
		}
		p.exprs[i] = expr.NullOf(t.schema[i].Type)
	}
	return insert{table: t, rel: p, pos: s.Table.Position()}, nil
}

// physical makes the graph of everything that the file writes or serves.
func (b *binder) physical(p *Program, inserts []insert, views []*view) error {
	return newPhysical(b, p).all(inserts, views)
}

func newPhysical(b *binder, p *Program) *physical {
	return &physical{b: b, program: p, byID: map[string]int{}, sources: map[string]int{}, sinks: map[string]int{}, used: map[*table]map[int]bool{}, wanted: map[*table][]expr.Expr{}, scans: map[*table]int{}}
}

// everything marks all columns of a relation as needed.
func everything(r rel) []bool {
	need := make([]bool, len(r.columns()))
	for i := range need {
		need[i] = true
	}
	return need
}

// all makes the nodes of statements.
func (p *physical) all(inserts []insert, views []*view) error {
	rels := p.collectAll(inserts, views)
	for i := range views {
		if err := p.view(views[i], rels[i], everything(rels[i])); err != nil {
			return err
		}
	}
	for _, x := range inserts {
		if err := p.sink(x, everything(x.rel)); err != nil {
			return err
		}
	}
	return nil
}

// collectAll pushes conditions down and notes what is read of each table. The result is of the views.
func (p *physical) collectAll(inserts []insert, views []*view) []rel {
	// All are collected before the first is lowered: a table is read once, with every column that anybody reads.
	for i := range inserts {
		inserts[i].rel = spread(reorder(push(inserts[i].rel, nil)))
		p.collect(inserts[i].rel, everything(inserts[i].rel))
	}
	rels := make([]rel, len(views))
	for i, v := range views {
		rels[i] = spread(reorder(push(v.rel, nil)))
		p.collect(rels[i], everything(rels[i]))
	}
	return rels
}

// arranged lowers a relation so that its columns are the node's, one by one.
func (p *physical) arranged(r rel, need []bool) (int, error) {
	s, err := p.lower(r, need)
	if err != nil {
		return 0, err
	}
	fits := len(s.at) == len(p.node(s.node).Schema)
	for i, at := range s.at {
		fits = fits && at == i
	}
	if fits {
		return s.node, nil
	}
	cols := r.columns()
	exprs := make([]expr.Expr, len(cols))
	for i := range cols {
		exprs[i] = column(cols, i)
	}
	s, err = p.arrange(s, exprs, cols)
	return s.node, err
}

func (p *physical) sink(x insert, need []bool) error {
	at, err := p.arranged(x.rel, need)
	if err != nil {
		return err
	}
	t, from := x.table, p.node(at)
	if !from.Append {
		switch {
		case !t.kind.SinkChangelog:
			return p.b.fail(errs.SQLUpdates, x.pos, "table %s takes only inserts, and this query changes and takes back rows", t.name).
				WithHint("write to a table of a connector that takes changes, or serve the result: CREATE MATERIALIZED VIEW")
		case t.key == nil && !t.kind.SinkKeyless:
			return p.b.fail(errs.SQLUpdates, x.pos, "table %s needs a primary key, since this query changes and takes back rows", t.name).
				WithHint("PRIMARY KEY (..) NOT ENFORCED in its CREATE TABLE")
		}
	}
	group := t.name
	if t.kind.Group != nil {
		group = t.kind.Group(t.options)
	}
	s, ok := p.sinks[t.connector+"\x00"+group]
	if !ok {
		s = len(p.program.Sinks)
		p.sinks[t.connector+"\x00"+group] = s
		p.program.Sinks = append(p.program.Sinks, Sink{Name: group, Connector: t.connector, Options: t.options, Pos: t.pos})
	}
	sk := &p.program.Sinks[s]
	edge := dataflow.Edge{From: at}
	single := from.Single
	if t.key != nil && !from.Append && !single {
		edge, _ = p.byKey(at, t.key)
	}
	sk.Tables = append(sk.Tables, SinkTable{Name: t.name, Options: t.options, Schema: t.schema, Key: t.key, Append: from.Append, PartitionBy: t.partition, Pos: t.pos})
	n := dataflow.Node{Kind: "sink", Detail: t.name, Schema: t.schema, Append: from.Append, Single: single, Inputs: []dataflow.Edge{edge},
		Sink: &dataflow.SinkTable{Sink: s, Table: len(sk.Tables) - 1, Key: t.key}}
	p.add(n, group)
	return nil
}

func (p *physical) view(v *view, r rel, need []bool) error {
	at, err := p.arranged(r, need)
	if err != nil {
		return err
	}
	from := p.node(at)
	key := from.Key
	edge := dataflow.Edge{From: at}
	kind := "view"
	if v.internal {
		kind = "table"
	}
	n := dataflow.Node{Kind: kind, Detail: v.name, Schema: r.columns(), Key: key, Append: from.Append, Single: from.Single, States: []string{"rows"}, Keeps: dataflow.KeepsInput}
	v.node = at
	if key != nil && !n.Single && len(key) > 0 {
		edge, _ = p.byKey(at, key)
	}
	if key == nil && !n.Single {
		// What takes a row away has to find it; and equal rows are one entry of the state, which belongs to one task.
		all := make([]int, len(n.Schema))
		for i := range all {
			all[i] = i
		}
		edge, _ = p.byKey(at, all)
	}
	n.Inputs = []dataflow.Edge{edge}
	spec := operator.Materialize{Types: n.Schema.Types(), Key: key}
	node := p.addMake(n, func(id string) func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error) {
		s := spec
		s.Node = id
		return func(t dataflow.Task, o dataflow.Emitter) (dataflow.Operator, error) {
			return operator.NewMaterialize(s, t, o)
		}
	})
	p.program.Views = append(p.program.Views, View{Name: v.name, Node: node, Schema: n.Schema, Key: key, Table: v.internal})
	return nil
}
