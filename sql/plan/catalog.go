package plan

import (
	"sort"
	"strings"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
	"github.com/weirstream/weir/sql/parser"
)

// catalog is the tables and views of a file, by name.
type catalog struct {
	objects map[string]*object
}

type object struct {
	table *table
	view  *view
}

type view struct {
	name         string
	rel          rel
	materialized bool
	internal     bool // it is the rows of an internal table
	pos          parser.Pos
	node         int                 // of a materialized one: whose rows it keeps
	kept         *table              // how added statements read it; nil: nobody has
	again        func() (rel, error) // binds it anew
}

// table is a CREATE TABLE.
type table struct {
	name      string
	connector string
	kind      Kind
	options   map[string]string
	schema    row.Schema // physical and metadata columns
	metadata  map[int]string
	key       []int
	partition []int
	read      rel // what a query reads: the scan, with computed columns
	all       row.Schema
	pos       parser.Pos
	scan      *scan
	kept      *view // it stands for the rows of a view
}

// find looks a name up; where no object has it, one of another case is taken, if it is the only one.
func (c *catalog) find(name string) *object {
	if o := c.objects[name]; o != nil {
		return o
	}
	var found *object
	for n, o := range c.objects {
		if strings.EqualFold(n, name) {
			if found != nil {
				return nil
			}
			found = o
		}
	}
	return found
}

func (c *catalog) names() []string {
	var names []string
	for n := range c.objects {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// define adds an object under a name that no other has.
func (b *binder) define(name parser.Name, o *object, replace, ifNotExists bool) error {
	n := name.Last()
	if b.catalog.objects[n.Text] != nil && !replace {
		if ifNotExists {
			return nil
		}
		return b.fail(errs.SQLConnector, n.Pos, "%s exists already", n.Text)
	}
	b.catalog.objects[n.Text] = o
	return nil
}

// createTable binds CREATE TABLE.
func (b *binder) createTable(s *parser.CreateTable) error {
	if s.Query != nil || s.Like != nil {
		return b.fail(errs.NotBuiltYet, s.Pos, "CREATE TABLE with AS or LIKE is not built yet")
	}
	t := &table{name: s.Name.Last().Text, options: map[string]string{}, metadata: map[int]string{}, pos: s.Pos}
	for _, o := range s.Properties {
		if _, twice := t.options[o.Key.Text]; twice {
			return b.fail(errs.SQLConnector, o.Key.Pos, "option '%s' is given twice", o.Key.Text)
		}
		t.options[o.Key.Text] = o.Value.Text
	}
	t.connector = t.options["connector"]
	ok := false
	if t.connector == "" {
		if err := b.internal(t, s); err != nil {
			return err
		}
	} else if t.kind, ok = b.env.Connectors[t.connector]; !ok {
		var known []string
		for n := range b.env.Connectors {
			known = append(known, n)
		}
		sort.Strings(known)
		at := s.Pos
		for _, o := range s.Properties {
			if o.Key.Text == "connector" {
				at = o.Value.Pos
			}
		}
		e := b.fail(errs.SQLConnector, at, "there is no connector '%s'", t.connector)
		if hint := nearest.Hint(t.connector, known); hint != "" {
			return e.WithHint("%s", hint)
		}
		return e.WithHint("there are %s", strings.Join(known, ", "))
	}
	if t.kind.Check != nil {
		if err := t.kind.Check(t.options); err != nil {
			at := s.Pos
			for _, o := range s.Properties {
				if strings.Contains(err.Error(), "'"+o.Key.Text+"'") {
					at = o.Key.Pos
				}
			}
			return b.place(err, at)
		}
	}
	for _, c := range s.Columns {
		if c.Computed != nil {
			continue
		}
		if c.Type == nil {
			return b.fail(errs.SQLSyntax, c.Pos, "column %s has no type", c.Name.Text)
		}
		typ, err := b.typeOf(c.Type)
		if err != nil {
			return err
		}
		if t.schema.Index(c.Name.Text) >= 0 {
			return b.fail(errs.SQLConnector, c.Pos, "column %s is there twice", c.Name.Text)
		}
		if c.Metadata != nil {
			key := c.Name.Text
			if c.Metadata.From != nil {
				key = c.Metadata.From.Text
			}
			t.metadata[len(t.schema)] = key
		}
		t.schema = append(t.schema, row.Field{Name: c.Name.Text, Type: typ})
	}
	columns := func(names []parser.Ident, what string) (out []int, err error) {
		for _, k := range names {
			i := t.schema.Index(k.Text)
			if i < 0 {
				return nil, b.fail(errs.SQLUnknownName, k.Pos, "%s names column %s, which the table does not have", what, k.Text)
			}
			out = append(out, i)
		}
		return out, nil
	}
	var err error
	if s.PrimaryKey != nil {
		if t.key, err = columns(s.PrimaryKey.Columns, "PRIMARY KEY"); err != nil {
			return err
		}
		for _, k := range t.key {
			t.schema[k].Type.NotNull = true
		}
	}
	if t.partition, err = columns(s.PartitionedBy, "PARTITIONED BY"); err != nil {
		return err
	}
	t.scan = &scan{table: t}
	t.read, t.all = t.scan, t.schema
	// Computed columns see the physical ones; all of them keep their places.
	computed := false
	p := &project{in: t.scan}
	place := &exprPlace{scope: scopeOf(t.name, t.schema)}
	at := 0
	for _, c := range s.Columns {
		if c.Computed == nil {
			p.exprs = append(p.exprs, column(t.schema, at))
			p.schema = append(p.schema, t.schema[at])
			at++
			continue
		}
		computed = true
		e, err := b.expr(place, c.Computed)
		if err != nil {
			return err
		}
		p.exprs = append(p.exprs, e)
		p.schema = append(p.schema, row.Field{Name: c.Name.Text, Type: e.Type()})
	}
	if computed {
		t.read, t.all = p, p.schema
	}
	if s.Watermark != nil {
		// It is checked; what reads watermarks is not there yet.
		all := &exprPlace{scope: scopeOf(t.name, t.all)}
		if _, err := b.expr(all, &parser.ColumnRef{Pos: s.Watermark.Column.Position(), Name: s.Watermark.Column}); err != nil {
			return err
		}
		if _, err := b.expr(all, s.Watermark.X); err != nil {
			return err
		}
	}
	if b.created == nil {
		b.created = map[string]*parser.CreateTable{}
	}
	b.created[t.name] = s
	return b.define(s.Name, &object{table: t}, s.OrReplace, s.IfNotExists)
}

func (b *binder) createView(name parser.Name, columns []parser.ViewColumn, q parser.Query, materialized, replace, ifNotExists bool) (*view, error) {
	r, err := b.query(q, around{})
	if err != nil {
		return nil, err
	}
	var names []parser.Ident
	for _, c := range columns {
		names = append(names, c.Name)
	}
	if r, err = b.rename(r, names, name.Position()); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, f := range r.columns() {
		if seen[f.Name] {
			return nil, b.fail(errs.SQLConnector, name.Position(), "view %s has two columns %s", name.Last().Text, f.Name).WithHint("name the columns: CREATE VIEW %s (a, b, ..) AS ..", name.Last().Text)
		}
		seen[f.Name] = true
	}
	v := &view{name: name.Last().Text, rel: r, materialized: materialized, pos: name.Position()}
	text := b.text
	v.again = func() (rel, error) {
		defer func(text string) { b.text = text }(b.text)
		b.text = text
		r, err := b.query(q, around{})
		if err != nil {
			return nil, err
		}
		return b.rename(r, names, name.Position())
	}
	return v, b.define(name, &object{view: v}, replace, ifNotExists)
}
