package parser

import "strings"

// tableRef reads one item of FROM with all of its joins.
func (p *parser) tableRef() (TableRef, error) {
	outer, err := p.enter()
	if err != nil {
		return nil, err
	}
	at := p.peek().pos
	left, err := p.tableFactor()
	if err != nil {
		return nil, err
	}
	left, err = p.joins(at, left)
	if err != nil {
		return nil, err
	}
	p.leave(outer)
	return left, nil
}

// joins reads the joins behind a table. A join without a condition yet takes the joins behind its right side first:
// a JOIN b JOIN c ON x ON y is a JOIN (b JOIN c ON x) ON y.
func (p *parser) joins(at Pos, left TableRef) (TableRef, error) {
	for {
		j, err := p.joinKind()
		if j == nil || err != nil {
			return left, err
		}
		j.Pos, j.Left = at, left
		rightAt := p.peek().pos
		if j.Right, err = p.tableFactor(); err != nil {
			return nil, err
		}
		if j.Kind != CrossJoin && !j.Natural {
			if p.joinBegins() {
				outer, err := p.enter()
				if err != nil {
					return nil, err
				}
				if j.Right, err = p.joins(rightAt, j.Right); err != nil {
					return nil, err
				}
				p.leave(outer)
			}
			switch {
			case p.acceptWord("ON"):
				j.On, err = p.expr()
			case p.acceptWord("USING"):
				j.Using, err = p.idents("a column's name")
			default:
				err = p.expected("ON or USING", "ON", "USING")
			}
			if err != nil {
				return nil, err
			}
		}
		left = j
		if err := p.chain(); err != nil {
			return nil, err
		}
		if !p.joinBegins() {
			return left, nil
		}
	}
}

func (p *parser) joinBegins() bool {
	t, next := p.peek(), p.ahead(1)
	if t.kind != word {
		return false
	}
	switch strings.ToUpper(t.text) {
	case "JOIN", "NATURAL", "INNER", "LEFT", "RIGHT", "CROSS":
		return true
	case "FULL":
		return next.isWord("JOIN") || next.isWord("OUTER")
	case "SEMI", "ANTI":
		return next.isWord("JOIN")
	}
	return false
}

// joinKind reads the keywords of a join; nil if none follows.
func (p *parser) joinKind() (*Join, error) {
	if !p.joinBegins() {
		return nil, nil
	}
	j := &Join{OpPos: p.peek().pos, Kind: InnerJoin, Natural: p.acceptWord("NATURAL")}
	side := true
	switch {
	case p.acceptWord("LEFT"):
		j.Kind = LeftJoin
		if p.acceptWord("SEMI") {
			j.Kind, side = SemiJoin, false
		} else if p.acceptWord("ANTI") {
			j.Kind, side = AntiJoin, false
		}
	case p.acceptWord("RIGHT"):
		j.Kind = RightJoin
	case p.acceptWord("FULL"):
		j.Kind = FullJoin
	case p.acceptWord("SEMI"):
		j.Kind, side = SemiJoin, false
	case p.acceptWord("ANTI"):
		j.Kind, side = AntiJoin, false
	case p.isWord("CROSS") && !j.Natural:
		p.i++
		j.Kind, side = CrossJoin, false
	default:
		p.acceptWord("INNER")
		side = false
	}
	if side {
		p.acceptWord("OUTER")
	}
	return j, p.words("JOIN")
}

// tableFactor reads a table, a query, a function or a join in parentheses, with what belongs to it.
func (p *parser) tableFactor() (TableRef, error) {
	t, err := p.tablePrimary()
	for err == nil && p.isWord("MATCH_RECOGNIZE") && p.ahead(1).isSymbol("(") {
		if t, err = p.matchRecognize(t); err == nil {
			err = p.chain()
		}
	}
	return t, err
}

func (p *parser) tablePrimary() (TableRef, error) {
	t := p.peek()
	lateral := t.isWord("LATERAL")
	if lateral {
		p.i++
	}
	next := p.peek()
	switch {
	case next.isSymbol("("):
		p.i++
		return p.tableParens(t.pos, lateral)
	case next.isWord("UNNEST") && p.ahead(1).isSymbol("("):
		return p.unnest(t.pos, lateral)
	case next.isWord("TABLE") && p.ahead(1).isSymbol("("):
		p.i += 2
		c, err := p.tableCall()
		if err != nil {
			return nil, err
		}
		if err := p.symbol(")", ""); err != nil {
			return nil, err
		}
		f := &TableFunction{Pos: t.pos, Lateral: lateral, Call: c}
		f.Alias, err = p.tableAlias()
		return f, err
	case next.isWord("TABLE"):
		p.i++ // TABLE t is t
	}
	if next = p.peek(); next.kind == word && follows(next.text) {
		return nil, p.noName("a table")
	}
	n, err := p.name("a table")
	if err != nil {
		return nil, err
	}
	if p.isSymbol("(") {
		c, err := p.call(n)
		if err != nil {
			return nil, err
		}
		f := &TableFunction{Pos: t.pos, Lateral: lateral, Call: c}
		f.Alias, err = p.tableAlias()
		return f, err
	}
	if lateral {
		return nil, p.fail(t.pos, "LATERAL stands before a query in parentheses, a function or UNNEST")
	}
	return p.table(&Table{Pos: t.pos, Name: n})
}

// tableCall reads the call inside TABLE( ).
func (p *parser) tableCall() (*Call, error) {
	var n Name
	var err error
	if t := p.peek(); t.kind == word && p.ahead(1).isSymbol("(") { // any word can be a function's name here
		p.i++
		n = Name{{t.text, t.pos}}
	} else if n, err = p.name("a function's name"); err != nil {
		return nil, err
	}
	if !p.isSymbol("(") {
		return nil, p.expected("( and the function's arguments")
	}
	return p.call(n)
}

// table reads what stands behind a table's name.
func (p *parser) table(t *Table) (TableRef, error) {
	var err error
	if t.Hints, err = p.hints(); err != nil {
		return nil, err
	}
	if p.isWord("FOR") {
		p.i++
		if err = p.words("SYSTEM_TIME", "AS", "OF"); err != nil {
			return nil, err
		}
		if t.AsOf, err = p.level(levelConcat); err != nil {
			return nil, err
		}
	}
	if t.Sample, err = p.sample(); err != nil {
		return nil, err
	}
	if t.Alias, err = p.tableAlias(); err != nil {
		return nil, err
	}
	if more, err := p.hints(); err != nil || more != nil { // behind the alias they mean the same
		t.Hints = append(t.Hints, more...)
		return t, err
	}
	return t, nil
}

func (p *parser) sample() (*Sample, error) {
	if !p.isWord("TABLESAMPLE") {
		return nil, nil
	}
	s := &Sample{Pos: p.take().pos}
	var err error
	if s.Method, err = p.choice("BERNOULLI", "SYSTEM"); err != nil {
		return nil, err
	}
	if err = p.symbol("(", "and the percentage"); err != nil {
		return nil, err
	}
	if s.Percent, err = p.expr(); err != nil {
		return nil, err
	}
	if err = p.symbol(")", ""); err != nil {
		return nil, err
	}
	if p.acceptWord("REPEATABLE") {
		if err = p.symbol("(", "and the seed"); err != nil {
			return nil, err
		}
		if s.Seed, err = p.expr(); err != nil {
			return nil, err
		}
		err = p.symbol(")", "")
	}
	return s, err
}

func (p *parser) tableAlias() (Alias, error) {
	var a Alias
	var err error
	if a.Name, err = p.aliasName(); err != nil || a.Name.Text == "" || !p.isSymbol("(") {
		return a, err
	}
	a.Columns, err = p.idents("a column's name")
	return a, err
}

// tableParens reads what stands in parentheses in FROM: a query, or tables with their joins.
func (p *parser) tableParens(at Pos, lateral bool) (TableRef, error) {
	if p.queryBegins() {
		q, err := p.query()
		if err != nil {
			return nil, err
		}
		return p.derived(at, lateral, q)
	}
	if lateral && !p.isSymbol("(") {
		return nil, p.expected("a query")
	}
	t, err := p.tableRef()
	if err != nil {
		return nil, err
	}
	// Two parentheses may begin a longer query as well: ((SELECT 1) UNION (SELECT 2)).
	if d, ok := t.(*Derived); ok && !d.Lateral && d.Sample == nil && d.Alias.Name.Text == "" && (p.queryGoesOn() || p.isSymbol(")")) {
		outer, err := p.enter()
		if err != nil {
			return nil, err
		}
		q, err := p.queryRest(d.Pos, d.Query, setLoosest)
		if err != nil {
			return nil, err
		}
		p.leave(outer)
		return p.derived(at, lateral, q)
	}
	if lateral {
		return nil, p.fail(at, "LATERAL stands before a query in parentheses, a function or UNNEST")
	}
	return t, p.symbol(")", "")
}

func (p *parser) derived(at Pos, lateral bool, q Query) (TableRef, error) {
	d := &Derived{Pos: at, Lateral: lateral, Query: q}
	err := p.symbol(")", "")
	if err != nil {
		return nil, err
	}
	if d.Sample, err = p.sample(); err != nil {
		return nil, err
	}
	d.Alias, err = p.tableAlias()
	return d, err
}

func (p *parser) unnest(at Pos, lateral bool) (TableRef, error) {
	p.i++
	u := &Unnest{Pos: at, Lateral: lateral}
	err := p.parens("", func() error {
		x, err := p.expr()
		u.Args = append(u.Args, x)
		return err
	})
	if err != nil {
		return nil, err
	}
	u.Ordinality = p.acceptWords("WITH", "ORDINALITY")
	u.Alias, err = p.tableAlias()
	return u, err
}
