package parser

import "strings"

func (p *parser) create() (Statement, error) {
	at := p.take().pos
	replace := p.acceptWords("OR", "REPLACE")
	alter := !replace && p.acceptWords("OR", "ALTER")
	temporary := p.acceptWord("TEMPORARY")
	system := temporary && p.acceptWord("SYSTEM")
	plain := !replace && !alter && !temporary
	t := p.peek()
	switch {
	case plain && t.isWord("CONNECTION"):
		p.i++
		return p.createConnection(at)
	case plain && t.isWord("MIRROR"):
		p.i++
		return p.createMirror(at)
	case t.isWord("TABLE") && !alter && !system:
		p.i++
		return p.createTable(&CreateTable{Pos: at, OrReplace: replace, Temporary: temporary})
	case t.isWord("VIEW") && !alter && !system:
		p.i++
		return p.createView(&CreateView{Pos: at, OrReplace: replace, Temporary: temporary})
	case p.isWords("MATERIALIZED", "VIEW") && !alter && !temporary:
		p.i += 2
		return p.createMaterializedView(&CreateMaterializedView{Pos: at, OrReplace: replace})
	case p.isWords("MATERIALIZED", "TABLE") && !replace && !temporary:
		p.i += 2
		return p.createMaterializedTable(&CreateMaterializedTable{Pos: at, OrAlter: alter})
	case t.isWord("MATERIALIZED"):
		p.i++
		return nil, p.expected("VIEW or TABLE after MATERIALIZED", "VIEW", "TABLE")
	case t.isWord("FUNCTION") && !replace && !alter:
		p.i++
		return p.createFunction(&CreateFunction{Pos: at, Temporary: temporary, System: system})
	case plain && t.isWord("CATALOG"):
		p.i++
		return p.createCatalog(&CreateCatalog{Pos: at})
	case plain && t.isWord("DATABASE"):
		p.i++
		return p.createDatabase(&CreateDatabase{Pos: at})
	}
	if plain && t.kind == word && oneOf(t.text, unbuiltObjects()) {
		return nil, p.notBuilt(at, "CREATE "+strings.ToUpper(t.text))
	}
	if plain {
		return nil, p.expected("TABLE, VIEW, MATERIALIZED VIEW, CONNECTION, MIRROR or another object after CREATE",
			append(createObjects(), unbuiltObjects()...)...)
	}
	return nil, p.expected("TABLE, VIEW or another object that these words go with", createObjects()...)
}

func (p *parser) ifNotExists() (bool, error) {
	if n := p.ahead(1); !p.isWord("IF") || n.kind != word {
		return false, nil
	}
	p.i++
	return true, p.words("NOT", "EXISTS")
}

func (p *parser) ifExists() (bool, error) {
	if n := p.ahead(1); !p.isWord("IF") || n.kind != word {
		return false, nil
	}
	p.i++
	return true, p.words("EXISTS")
}

func (p *parser) comment() (*Literal, error) {
	if !p.acceptWord("COMMENT") {
		return nil, nil
	}
	l, err := p.literal("a comment")
	return &l, err
}

// elements are what stands in the parentheses of CREATE TABLE.
type elements struct {
	columns    []Column
	primaryKey *PrimaryKey
	watermark  *Watermark
}

func (p *parser) tableElements() (elements, error) {
	var e elements
	if p.isSymbol("(") && p.ahead(1).isSymbol(")") {
		p.i++
		return e, p.expected("a column")
	}
	err := p.parens("and the columns", func() error { return p.element(&e) })
	return e, err
}

// element reads one column, constraint or watermark.
func (p *parser) element(e *elements) error {
	t, n := p.peek(), p.ahead(1)
	switch {
	case t.isWord("PRIMARY") && n.isWord("KEY"), t.isWord("CONSTRAINT") && (n.kind == word || n.kind == quoted) && p.ahead(2).isWord("PRIMARY"):
		k := &PrimaryKey{Pos: t.pos}
		if p.acceptWord("CONSTRAINT") {
			n := p.take()
			k.Name = Ident{n.text, n.pos}
		}
		if err := p.words("PRIMARY", "KEY"); err != nil {
			return err
		}
		var err error
		if k.Columns, err = p.idents("a column's name"); err != nil {
			return err
		}
		k.Enforcement = p.enforcement()
		return p.setPrimaryKey(e, k)
	case t.isWord("WATERMARK") && n.isWord("FOR"):
		p.i += 2
		w := &Watermark{Pos: t.pos}
		if e.watermark != nil {
			return p.fail(t.pos, "a table has one watermark")
		}
		var err error
		if w.Column, err = p.name("a column's name"); err != nil {
			return err
		}
		if err = p.words("AS"); err != nil {
			return err
		}
		w.X, err = p.expr()
		e.watermark = w
		return err
	}
	return p.column(e)
}

func (p *parser) setPrimaryKey(e *elements, k *PrimaryKey) error {
	if e.primaryKey != nil {
		return p.fail(k.Pos, "a table has one primary key").WithHint("a key of several columns is written PRIMARY KEY (a, b)")
	}
	e.primaryKey = k
	return nil
}

func (p *parser) enforcement() Enforcement {
	switch {
	case p.acceptWords("NOT", "ENFORCED"):
		return NotEnforced
	case p.acceptWord("ENFORCED"):
		return Enforced
	}
	return EnforcementUnstated
}

func (p *parser) column(e *elements) error {
	c := Column{Pos: p.peek().pos}
	var err error
	if c.Name, err = p.ident("a column's name"); err != nil {
		return err
	}
	switch t := p.peek(); {
	case t.isSymbol(","), t.isSymbol(")"): // CREATE TABLE t (a, b) AS query
	case t.isWord("AS"):
		p.i++
		if c.Computed, err = p.expr(); err != nil {
			return err
		}
	default:
		if c.Type, err = p.typeOf(true); err != nil {
			return err
		}
	}
	for {
		t, n := p.peek(), p.ahead(1)
		switch {
		case t.isWord("METADATA") && c.Type != nil && c.Metadata == nil:
			p.i++
			c.Metadata = &Metadata{Pos: t.pos}
			if p.acceptWord("FROM") {
				l, err := p.literal("the metadata's key")
				if err != nil {
					return err
				}
				c.Metadata.From = &l
			}
			c.Metadata.Virtual = p.acceptWord("VIRTUAL")
		case t.isWord("PRIMARY") && c.Type != nil, t.isWord("CONSTRAINT") && c.Type != nil:
			k := &PrimaryKey{Pos: t.pos, Columns: []Ident{c.Name}}
			if p.acceptWord("CONSTRAINT") {
				if k.Name, err = p.ident("the constraint's name"); err != nil {
					return err
				}
			}
			if err = p.words("PRIMARY", "KEY"); err != nil {
				return err
			}
			k.Enforcement = p.enforcement()
			if err = p.setPrimaryKey(e, k); err != nil {
				return err
			}
		case t.isWord("NOT") && n.isWord("NULL") && c.Type != nil: // behind PRIMARY KEY
			p.i += 2
			c.Type.NotNull = true
		case t.isWord("COMMENT") && c.Comment == nil:
			if c.Comment, err = p.comment(); err != nil {
				return err
			}
		case t.isWord("FIRST"):
			p.i++
			c.Place = &Place{Pos: t.pos, First: true}
		case t.isWord("AFTER"):
			p.i++
			c.Place = &Place{Pos: t.pos}
			if c.Place.After, err = p.ident("a column's name"); err != nil {
				return err
			}
		case t.isWord("DEFAULT"):
			return p.notBuilt(t.pos, "a column's DEFAULT")
		default:
			e.columns = append(e.columns, c)
			return nil
		}
	}
}

func (p *parser) createTable(s *CreateTable) (Statement, error) {
	var err error
	if s.IfNotExists, err = p.ifNotExists(); err != nil {
		return nil, err
	}
	if s.Name, err = p.name("the table's name"); err != nil {
		return nil, err
	}
	if p.isSymbol("(") {
		e, err := p.tableElements()
		if err != nil {
			return nil, err
		}
		s.Columns, s.PrimaryKey, s.Watermark = e.columns, e.primaryKey, e.watermark
		for _, c := range s.Columns {
			if c.Place != nil {
				return nil, p.fail(c.Place.Pos, "a column's place is given in ALTER TABLE only")
			}
		}
	}
	if err = p.tableOptions(&s.Comment, &s.Distribution, &s.PartitionedBy, &s.Properties); err != nil {
		return nil, err
	}
	if p.isWord("LIKE") {
		if s.Like, err = p.tableLike(); err != nil {
			return nil, err
		}
	}
	if p.acceptWord("AS") {
		s.Query, err = p.query()
	} else if len(s.Columns) == 0 && s.Like == nil {
		return nil, p.expected("( and the columns, LIKE or AS", "LIKE", "AS", "WITH", "COMMENT", "PARTITIONED")
	}
	return s, err
}

// tableOptions reads what stands between the columns and the query, in any order, each of it once.
func (p *parser) tableOptions(comment **Literal, dist **Distribution, partitioned *[]Ident, properties *[]Property) error {
	for {
		t := p.peek()
		var err error
		given := false
		switch {
		case t.isWord("COMMENT"):
			if given = *comment != nil; !given {
				*comment, err = p.comment()
			}
		case t.isWord("DISTRIBUTED"):
			if given = *dist != nil; !given {
				*dist, err = p.distribution()
			}
		case t.isWord("PARTITIONED"):
			if given = *partitioned != nil; !given {
				p.i++
				if err = p.words("BY"); err == nil {
					*partitioned, err = p.idents("a column's name")
				}
			}
		case t.isWord("WITH"):
			if given = *properties != nil; !given {
				*properties, err = p.options()
			}
		default:
			return nil
		}
		if given {
			return p.fail(t.pos, "%s is given twice", strings.ToUpper(t.text))
		}
		if err != nil {
			return err
		}
	}
}

func (p *parser) distribution() (*Distribution, error) {
	d := &Distribution{Pos: p.take().pos}
	var err error
	if p.acceptWord("BY") {
		if !p.isSymbol("(") {
			if d.Kind, err = p.choice("HASH", "RANGE"); err != nil {
				return nil, err
			}
		}
		if d.Columns, err = p.idents("a column's name"); err != nil {
			return nil, err
		}
	} else if !p.isWord("INTO") {
		return nil, p.expected("BY or INTO", "BY", "INTO")
	}
	if p.acceptWord("INTO") {
		if d.Buckets, err = p.digits("the number of buckets"); err != nil {
			return nil, err
		}
		err = p.words("BUCKETS")
	}
	return d, err
}

func (p *parser) tableLike() (*TableLike, error) {
	l := &TableLike{Pos: p.take().pos}
	var err error
	if l.Name, err = p.name("the table's name"); err != nil {
		return nil, err
	}
	if !p.accept("(") {
		return l, nil
	}
	for !p.accept(")") {
		o := LikeOption{Pos: p.peek().pos}
		if o.Action, err = p.choice("INCLUDING", "EXCLUDING", "OVERWRITING"); err != nil {
			return nil, err
		}
		if o.What, err = p.choice("ALL", "CONSTRAINTS", "DISTRIBUTION", "GENERATED", "METADATA", "OPTIONS", "PARTITIONS", "WATERMARKS"); err != nil {
			return nil, err
		}
		l.Options = append(l.Options, o)
	}
	return l, nil
}

func (p *parser) viewColumns() ([]ViewColumn, error) {
	if !p.isSymbol("(") {
		return nil, nil
	}
	var out []ViewColumn
	err := p.parens("", func() error {
		var c ViewColumn
		var err error
		if c.Name, err = p.ident("a column's name"); err != nil {
			return err
		}
		c.Comment, err = p.comment()
		out = append(out, c)
		return err
	})
	return out, err
}

func (p *parser) asQuery() (Query, error) {
	if err := p.words("AS"); err != nil {
		return nil, err
	}
	return p.query()
}

func (p *parser) createView(s *CreateView) (Statement, error) {
	var err error
	if s.IfNotExists, err = p.ifNotExists(); err != nil {
		return nil, err
	}
	if s.Name, err = p.name("the view's name"); err != nil {
		return nil, err
	}
	if s.Columns, err = p.viewColumns(); err != nil {
		return nil, err
	}
	if s.Comment, err = p.comment(); err != nil {
		return nil, err
	}
	s.Query, err = p.asQuery()
	return s, err
}

func (p *parser) createMaterializedView(s *CreateMaterializedView) (Statement, error) {
	var err error
	if s.IfNotExists, err = p.ifNotExists(); err != nil {
		return nil, err
	}
	if s.Name, err = p.name("the view's name"); err != nil {
		return nil, err
	}
	if s.Columns, err = p.viewColumns(); err != nil {
		return nil, err
	}
	if s.Comment, err = p.comment(); err != nil {
		return nil, err
	}
	if p.isWord("WITH") {
		if s.Properties, err = p.options(); err != nil {
			return nil, err
		}
	}
	s.Query, err = p.asQuery()
	return s, err
}

func (p *parser) createMaterializedTable(s *CreateMaterializedTable) (Statement, error) {
	var err error
	if s.IfNotExists, err = p.ifNotExists(); err != nil {
		return nil, err
	}
	if s.Name, err = p.name("the table's name"); err != nil {
		return nil, err
	}
	if p.isSymbol("(") {
		e, err := p.tableElements()
		if err != nil {
			return nil, err
		}
		s.Columns, s.PrimaryKey, s.Watermark = e.columns, e.primaryKey, e.watermark
	}
	if err = p.tableOptions(&s.Comment, &s.Distribution, &s.PartitionedBy, &s.Properties); err != nil {
		return nil, err
	}
	if p.acceptWord("START_MODE") {
		if err = p.symbol("=", ""); err != nil {
			return nil, err
		}
		n, err := p.ident("a mode")
		if err != nil {
			return nil, err
		}
		s.StartMode = &Call{Pos: n.Pos, Name: Name{n}, Bare: true}
		if p.isSymbol("(") {
			if s.StartMode, err = p.call(Name{n}); err != nil {
				return nil, err
			}
		}
	}
	if p.isWord("FRESHNESS") {
		if s.Freshness, err = p.freshness(); err != nil {
			return nil, err
		}
	}
	if p.isWord("REFRESH_MODE") {
		if s.RefreshMode, err = p.refreshMode(); err != nil {
			return nil, err
		}
	}
	s.Query, err = p.asQuery()
	return s, err
}

func (p *parser) freshness() (*IntervalLit, error) {
	p.i++
	if err := p.symbol("=", "and an interval"); err != nil {
		return nil, err
	}
	if p.isWord("INTERVAL") {
		x, err := p.interval()
		if err != nil {
			return nil, err
		}
		if i, ok := x.(*IntervalLit); ok {
			return i, nil
		}
	}
	return nil, p.expected("INTERVAL '..' and a unit", "INTERVAL")
}

func (p *parser) refreshMode() (string, error) {
	p.i++
	if err := p.symbol("=", "and FULL or CONTINUOUS"); err != nil {
		return "", err
	}
	return p.choice("FULL", "CONTINUOUS")
}

func (p *parser) createCatalog(s *CreateCatalog) (Statement, error) {
	var err error
	if s.IfNotExists, err = p.ifNotExists(); err != nil {
		return nil, err
	}
	if s.Name, err = p.ident("the catalog's name"); err != nil {
		return nil, err
	}
	if s.Comment, err = p.comment(); err != nil {
		return nil, err
	}
	if p.isWord("WITH") {
		s.Properties, err = p.options()
	}
	return s, err
}

func (p *parser) createDatabase(s *CreateDatabase) (Statement, error) {
	var err error
	if s.IfNotExists, err = p.ifNotExists(); err != nil {
		return nil, err
	}
	if s.Name, err = p.name("the database's name"); err != nil {
		return nil, err
	}
	if s.Comment, err = p.comment(); err != nil {
		return nil, err
	}
	if p.isWord("WITH") {
		s.Properties, err = p.options()
	}
	return s, err
}

func (p *parser) createFunction(s *CreateFunction) (Statement, error) {
	var err error
	if s.IfNotExists, err = p.ifNotExists(); err != nil {
		return nil, err
	}
	if s.Name, err = p.name("the function's name"); err != nil {
		return nil, err
	}
	if err = p.words("AS"); err != nil {
		return nil, err
	}
	if s.As, err = p.literal("what implements the function"); err != nil {
		return nil, err
	}
	if p.acceptWord("LANGUAGE") {
		t := p.take()
		if s.Language = strings.ToUpper(t.text); t.kind != word {
			p.i--
			return nil, p.expected("a language")
		}
	}
	if p.acceptWord("USING") {
		err = p.list(func() error {
			kind, err := p.choice("JAR", "ARTIFACT", "FILE")
			if err != nil {
				return err
			}
			path, err := p.literal("a path")
			s.Using = append(s.Using, Resource{kind, path})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if p.isWord("WITH") {
		s.Properties, err = p.options()
	}
	return s, err
}
