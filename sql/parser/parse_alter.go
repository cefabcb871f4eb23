package parser

import "strings"

// objects are what DROP and ALTER act on, the longer names first.
func objects() []ObjectKind {
	return []ObjectKind{ObjectMaterializedView, ObjectMaterializedTable, ObjectTable, ObjectView, ObjectCatalog, ObjectDatabase,
		ObjectFunction, ObjectConnection, ObjectMirror}
}

func (p *parser) object(what string) (ObjectKind, error) {
	for _, o := range objects() {
		if o == ObjectMaterializedView && p.acceptWords("MATERIALIZED", "VIEW") ||
			o == ObjectMaterializedTable && p.acceptWords("MATERIALIZED", "TABLE") || p.acceptWord(string(o)) {
			return o, nil
		}
	}
	if p.acceptWord("MATERIALIZED") {
		return "", p.expected("VIEW or TABLE after MATERIALIZED", "VIEW", "TABLE")
	}
	words := []string{"MATERIALIZED"}
	for _, o := range objects()[2:] {
		words = append(words, string(o))
	}
	return "", p.expected(what, words...)
}

func (p *parser) drop() (Statement, error) {
	s := &Drop{Pos: p.take().pos}
	if t := p.peek(); t.kind == word && oneOf(t.text, unbuiltObjects()) {
		return nil, p.notBuilt(s.Pos, "DROP "+strings.ToUpper(t.text))
	}
	s.Temporary = p.acceptWord("TEMPORARY")
	s.System = s.Temporary && p.acceptWord("SYSTEM")
	var err error
	if s.Object, err = p.object("TABLE, VIEW, MATERIALIZED VIEW or another object after DROP"); err != nil {
		return nil, err
	}
	if s.IfExists, err = p.ifExists(); err != nil {
		return nil, err
	}
	if s.Name, err = p.name("a name"); err != nil {
		return nil, err
	}
	if s.Cascade = p.acceptWord("CASCADE"); !s.Cascade {
		p.acceptWord("RESTRICT")
	}
	return s, nil
}

func (p *parser) alter() (Statement, error) {
	s := &Alter{Pos: p.take().pos}
	var err error
	if s.Object, err = p.object("TABLE, VIEW, MATERIALIZED TABLE or another object after ALTER"); err != nil {
		return nil, err
	}
	if s.IfExists, err = p.ifExists(); err != nil {
		return nil, err
	}
	if s.Name, err = p.name("a name"); err != nil {
		return nil, err
	}
	s.Action, err = p.alterAction(s.Object)
	return s, err
}

func (p *parser) alterAction(o ObjectKind) (AlterAction, error) {
	t := p.peek()
	table := o == ObjectTable || o == ObjectMaterializedTable
	materialized := o == ObjectMaterializedTable || o == ObjectMaterializedView
	switch {
	case t.isWord("SET"):
		return p.alterSet(materialized)
	case t.isWord("RESET"):
		p.i++
		a := &ResetOptions{Pos: t.pos}
		err := p.parens("and the options' keys", func() error {
			l, err := p.literal("an option's key")
			a.Keys = append(a.Keys, l)
			return err
		})
		return a, err
	case t.isWord("RENAME"):
		return p.rename(table)
	case t.isWord("AS") && o != ObjectTable:
		q, err := p.asQuery()
		return &AlterQuery{t.pos, q}, err
	case (t.isWord("ADD") || t.isWord("DROP")) && table && p.ahead(1).isWord("PARTITION") && p.ahead(2).isSymbol("("):
		return nil, p.notBuilt(t.pos, strings.ToUpper(t.text)+" PARTITION")
	case t.isWord("ADD") && table:
		p.i++
		e, d, err := p.altered()
		return &AddColumns{t.pos, e.columns, e.primaryKey, e.watermark, d}, err
	case t.isWord("MODIFY") && table:
		p.i++
		e, d, err := p.altered()
		return &ModifyColumns{t.pos, e.columns, e.primaryKey, e.watermark, d}, err
	case t.isWord("DROP") && table:
		return p.alterDrop()
	case t.isWord("SUSPEND") && materialized:
		p.i++
		return &Suspend{t.pos}, nil
	case t.isWord("RESUME") && materialized:
		p.i++
		a := &Resume{Pos: t.pos}
		var err error
		if p.isWord("WITH") {
			a.Properties, err = p.options()
		}
		return a, err
	case t.isWord("REFRESH") && materialized:
		p.i++
		a := &Refresh{Pos: t.pos}
		var err error
		if p.acceptWord("PARTITION") {
			a.Partition, err = p.partition()
		}
		return a, err
	}
	return nil, p.expected("ADD, MODIFY, DROP, RENAME, SET or another change", "SET", "RESET", "RENAME", "AS", "ADD", "MODIFY", "DROP", "SUSPEND", "RESUME", "REFRESH")
}

func (p *parser) alterSet(materialized bool) (AlterAction, error) {
	at := p.take().pos
	switch {
	case materialized && p.isWord("FRESHNESS"):
		x, err := p.freshness()
		return &SetFreshness{Pos: at, Freshness: x}, err
	case materialized && p.isWord("REFRESH_MODE"):
		mode, err := p.refreshMode()
		return &SetFreshness{Pos: at, RefreshMode: mode}, err
	}
	props, err := p.optionList("SET")
	return &SetOptions{at, props}, err
}

func (p *parser) rename(table bool) (AlterAction, error) {
	at := p.take().pos
	// RENAME TO name, or of a column: RENAME a TO b
	if p.isWord("TO") && !(table && p.ahead(1).isWord("TO")) {
		p.i++
		n, err := p.name("the new name")
		return &RenameTo{at, n}, err
	}
	if !table {
		return nil, p.expected("TO", "TO")
	}
	a := &RenameColumn{Pos: at}
	var err error
	if a.From, err = p.ident("a column's name"); err != nil {
		return nil, err
	}
	if err = p.words("TO"); err != nil {
		return nil, err
	}
	a.To, err = p.ident("the new name")
	return a, err
}

// altered reads what ADD and MODIFY take: one element, or several in parentheses, or a distribution.
func (p *parser) altered() (elements, *Distribution, error) {
	switch {
	case p.isWord("DISTRIBUTION"):
		d, err := p.distribution()
		return elements{}, d, err
	case p.isSymbol("("):
		e, err := p.tableElements()
		return e, nil, err
	}
	var e elements
	if n := p.ahead(1); p.isWord("COLUMN") && (n.kind == word || n.kind == quoted) {
		p.i++
	}
	err := p.element(&e)
	return e, nil, err
}

func (p *parser) alterDrop() (AlterAction, error) {
	at := p.take().pos
	switch n := p.ahead(1); {
	case p.acceptWords("PRIMARY", "KEY"):
		return &DropElement{Pos: at, What: "PRIMARY KEY"}, nil
	case p.isWord("WATERMARK") && n.kind != word:
		p.i++
		return &DropElement{Pos: at, What: "WATERMARK"}, nil
	case p.isWord("DISTRIBUTION") && n.kind != word:
		p.i++
		return &DropElement{Pos: at, What: "DISTRIBUTION"}, nil
	case p.isWord("CONSTRAINT") && (n.kind == word || n.kind == quoted):
		p.i++
		name, err := p.ident("the constraint's name")
		return &DropElement{Pos: at, What: "CONSTRAINT", Name: name}, err
	case p.isWord("COLUMN") && (n.kind == word || n.kind == quoted):
		p.i++
	}
	a := &DropColumns{Pos: at}
	var err error
	if p.isSymbol("(") {
		a.Columns, err = p.idents("a column's name")
		return a, err
	}
	id, err := p.ident("a column's name")
	a.Columns = []Ident{id}
	return a, err
}
