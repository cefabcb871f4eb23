package parser

import "strings"

// The levels of set operations, the loosest first.
const (
	setLoosest   = iota + 1 // UNION, EXCEPT
	setIntersect            // INTERSECT
)

// queryBegins tells whether the next token can only begin a query. A parenthesis may begin one as well.
func (p *parser) queryBegins() bool {
	switch {
	case p.isWord("SELECT"), p.isWord("WITH"), p.isWord("VALUES"):
		return true
	case p.isWord("TABLE"):
		next := p.ahead(1)
		return next.kind == quoted || next.kind == word && !reserved(next.text)
	}
	return false
}

// queryGoesOn tells whether what follows makes a longer query of the one that was read.
func (p *parser) queryGoesOn() bool {
	return p.isWord("UNION") || p.isWord("INTERSECT") || p.isWord("EXCEPT") || p.orderBegins()
}

func (p *parser) orderBegins() bool {
	return p.isWord("ORDER") || p.isWord("LIMIT") || p.isWord("OFFSET") || p.isWord("FETCH")
}

// query reads a query with everything that belongs to it.
func (p *parser) query() (Query, error) {
	outer, err := p.enter()
	if err != nil {
		return nil, err
	}
	var q Query
	if p.isWord("WITH") {
		q, err = p.with()
	} else {
		at := p.peek().pos
		if q, err = p.queryOperand(); err == nil {
			q, err = p.queryRest(at, q, setLoosest)
		}
	}
	if err != nil {
		return nil, err
	}
	p.leave(outer)
	return q, nil
}

// queryRest reads the set operations, the order and the limit behind a query that was read.
func (p *parser) queryRest(at Pos, q Query, least int) (Query, error) {
	var err error
	for {
		kind, level := p.setOp()
		if kind == 0 || level < least {
			break
		}
		s := &SetOp{Pos: at, Kind: kind, OpPos: p.take().pos, Left: q}
		if p.acceptWord("ALL") {
			s.All = true
		} else {
			p.acceptWord("DISTINCT")
		}
		rightAt := p.peek().pos
		if s.Right, err = p.queryOperand(); err != nil {
			return nil, err
		}
		if level == setLoosest {
			if s.Right, err = p.queryRest(rightAt, s.Right, setIntersect); err != nil {
				return nil, err
			}
		}
		q = s
		if err = p.chain(); err != nil {
			return nil, err
		}
	}
	if least > setLoosest || !p.orderBegins() {
		return q, nil
	}
	o := &Ordered{Pos: at, Body: q}
	if p.acceptWord("ORDER") {
		if err = p.words("BY"); err != nil {
			return nil, err
		}
		if o.OrderBy, err = p.orderItems(); err != nil {
			return nil, err
		}
	}
	if err = p.limits(o); err != nil {
		return nil, err
	}
	if o.OrderBy == nil && o.Limit == nil && o.Offset == nil { // LIMIT ALL
		return q, nil
	}
	return o, p.chain()
}

func (p *parser) setOp() (SetKind, int) {
	switch {
	case p.isWord("UNION"):
		return Union, setLoosest
	case p.isWord("EXCEPT"):
		return Except, setLoosest
	case p.isWord("INTERSECT"):
		return Intersect, setIntersect
	}
	return 0, 0
}

// limits reads LIMIT, OFFSET and FETCH, which come in any order.
func (p *parser) limits(o *Ordered) error {
	limited := false
	for {
		t := p.peek()
		var err error
		switch {
		case (t.isWord("LIMIT") || t.isWord("FETCH")) && limited:
			return p.fail(t.pos, "the number of rows is limited twice")
		case p.acceptWord("LIMIT"):
			limited = true
			if !p.acceptWord("ALL") {
				o.Limit, err = p.expr()
			}
		case t.isWord("OFFSET"):
			if o.Offset != nil {
				return p.fail(t.pos, "OFFSET is given twice")
			}
			p.i++
			o.Offset, err = p.expr()
			if !p.acceptWord("ROWS") {
				p.acceptWord("ROW")
			}
		case p.acceptWord("FETCH"):
			limited = true
			if _, err = p.choice("FIRST", "NEXT"); err == nil {
				o.Limit, err = p.fetched()
			}
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fetched reads what stands behind FETCH FIRST.
func (p *parser) fetched() (Expr, error) {
	var x Expr = &NumberLit{Pos: p.peek().pos, Text: "1"}
	if !p.isWord("ROW") && !p.isWord("ROWS") {
		var err error
		if x, err = p.expr(); err != nil {
			return nil, err
		}
	}
	if _, err := p.choice("ROWS", "ROW"); err != nil {
		return nil, err
	}
	return x, p.words("ONLY")
}

// queryOperand reads an operand of a set operation.
func (p *parser) queryOperand() (Query, error) {
	t := p.peek()
	switch {
	case t.isSymbol("("):
		p.i++
		q, err := p.query()
		if err != nil {
			return nil, err
		}
		return q, p.symbol(")", "")
	case t.isWord("SELECT"):
		return p.selectQuery()
	case t.isWord("VALUES"):
		return p.values()
	case p.queryBegins() && t.isWord("TABLE"):
		p.i++
		n, err := p.name("the table's name")
		return &TableQuery{t.pos, n}, err
	case t.isWord("WITH"):
		return nil, p.expected("a query").WithHint("put parentheses around a query that begins with WITH")
	}
	return nil, p.expected("a query", "SELECT", "VALUES", "WITH", "TABLE")
}

func (p *parser) with() (Query, error) {
	w := &With{Pos: p.take().pos}
	if t := p.ahead(1); p.isWord("RECURSIVE") && (t.kind == word || t.kind == quoted) && !t.isWord("AS") {
		p.i++
		w.Recursive = true
	}
	err := p.list(func() error {
		var c CommonTable
		var err error
		if c.Name, err = p.ident("the query's name"); err != nil {
			return err
		}
		if p.isSymbol("(") {
			if c.Columns, err = p.idents("a column's name"); err != nil {
				return err
			}
		}
		if err = p.words("AS"); err != nil {
			return err
		}
		if err = p.symbol("(", "and a query"); err != nil {
			return err
		}
		if c.Query, err = p.query(); err != nil {
			return err
		}
		w.Tables = append(w.Tables, c)
		return p.symbol(")", "")
	})
	if err != nil {
		return nil, err
	}
	at := p.peek().pos
	if w.Body, err = p.queryOperand(); err != nil {
		return nil, err
	}
	w.Body, err = p.queryRest(at, w.Body, setLoosest)
	return w, err
}

func (p *parser) values() (Query, error) {
	v := &Values{Pos: p.take().pos}
	err := p.list(func() error {
		t := p.peek()
		if t.isWord("ROW") && p.ahead(1).isSymbol("(") && p.ahead(2).isSymbol(")") || t.isSymbol("(") && p.ahead(1).isSymbol(")") {
			return p.fail(t.pos, "a row of VALUES is empty")
		}
		x, err := p.expr()
		if r, ok := x.(*Row); ok && err == nil {
			// A row among the values of a row would stand in parentheses of its own.
			v.Rows = append(v.Rows, r.Items)
		} else {
			v.Rows = append(v.Rows, []Expr{x})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (p *parser) orderItems() ([]OrderItem, error) {
	var out []OrderItem
	err := p.list(func() error {
		item, err := p.orderItem()
		out = append(out, item)
		return err
	})
	return out, err
}

func (p *parser) orderItem() (OrderItem, error) {
	var o OrderItem
	var err error
	if o.X, err = p.expr(); err != nil {
		return o, err
	}
	if p.acceptWord("DESC") {
		o.Desc = true
	} else {
		p.acceptWord("ASC")
	}
	if p.acceptWord("NULLS") {
		var w string
		if w, err = p.choice("FIRST", "LAST"); w == "FIRST" {
			o.Nulls = NullsFirst
		} else {
			o.Nulls = NullsLast
		}
	}
	return o, err
}

func (p *parser) selectQuery() (Query, error) {
	s := &Select{Pos: p.take().pos}
	var err error
	if s.Hints, err = p.hints(); err != nil {
		return nil, err
	}
	if p.acceptWord("DISTINCT") {
		s.Distinct = true
	} else {
		p.acceptWord("ALL")
	}
	err = p.list(func() error {
		item, err := p.selectItem()
		s.Items = append(s.Items, item)
		return err
	})
	if err != nil {
		return nil, err
	}
	if p.acceptWord("FROM") {
		err = p.list(func() error {
			t, err := p.tableRef()
			s.From = append(s.From, t)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if p.acceptWord("WHERE") {
		if s.Where, err = p.expr(); err != nil {
			return nil, err
		}
	}
	if p.isWord("GROUP") {
		if s.GroupBy, err = p.groupBy(); err != nil {
			return nil, err
		}
	}
	if p.acceptWord("HAVING") {
		if s.Having, err = p.expr(); err != nil {
			return nil, err
		}
	}
	if p.acceptWord("WINDOW") {
		err = p.list(func() error {
			var w NamedWindow
			var err error
			if w.Name, err = p.ident("the window's name"); err != nil {
				return err
			}
			if err = p.words("AS"); err != nil {
				return err
			}
			if !p.isSymbol("(") {
				return p.expected("( and the window")
			}
			w.Window, err = p.window()
			s.Windows = append(s.Windows, w)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if p.acceptWord("QUALIFY") {
		if s.Qualify, err = p.expr(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// star reads * or t.*; nil if the next item is none.
func (p *parser) star() *Star {
	s := &Star{Pos: p.peek().pos}
	n := 0
	for ; n < 8; n += 2 {
		t := p.ahead(n)
		if t.isSymbol("*") {
			p.i += n + 1
			return s
		}
		if t.kind != quoted && (t.kind != word || n == 0 && reserved(t.text)) || !p.ahead(n+1).isSymbol(".") {
			return nil
		}
		s.Qualifier = append(s.Qualifier, Ident{t.text, t.pos})
	}
	return nil
}

func (p *parser) selectItem() (SelectItem, error) {
	var item SelectItem
	if s := p.star(); s != nil {
		item.X = s
		return item, nil
	}
	var err error
	if item.X, err = p.expr(); err != nil {
		return item, err
	}
	item.Alias, err = p.aliasName()
	return item, err
}

// aliasName reads [AS] name if it follows.
func (p *parser) aliasName() (Ident, error) {
	if p.acceptWord("AS") {
		return p.ident("a name after AS")
	}
	t := p.peek()
	joins := (t.isWord("SEMI") || t.isWord("ANTI")) && p.ahead(1).isWord("JOIN")
	if t.kind == quoted || t.kind == word && !follows(t.text) && !joins {
		p.i++
		p.alias = p.i
		return Ident{t.text, t.pos}, nil
	}
	return Ident{}, nil
}

func (p *parser) groupBy() (*GroupBy, error) {
	g := &GroupBy{Pos: p.take().pos}
	if err := p.words("BY"); err != nil {
		return nil, err
	}
	if p.acceptWord("DISTINCT") {
		g.Distinct = true
	} else {
		p.acceptWord("ALL")
	}
	err := p.list(func() error {
		item, err := p.groupItem(true)
		g.Items = append(g.Items, item)
		return err
	})
	return g, err
}

// groupItem reads one item of GROUP BY. Inside ROLLUP and CUBE there are only expressions and sets of them.
func (p *parser) groupItem(nested bool) (GroupItem, error) {
	outer, err := p.enter()
	if err != nil {
		return GroupItem{}, err
	}
	t := p.peek()
	item := GroupItem{Pos: t.pos}
	items := func() error {
		return p.parens("and the columns", func() error {
			sub, err := p.groupItem(item.Kind == GroupingSets)
			item.Items = append(item.Items, sub)
			return err
		})
	}
	switch {
	case t.isSymbol("(") && p.ahead(1).isSymbol(")"):
		p.i += 2
	case nested && t.isWord("ROLLUP") && p.ahead(1).isSymbol("("):
		p.i++
		item.Kind = GroupRollup
		err = items()
	case nested && t.isWord("CUBE") && p.ahead(1).isSymbol("("):
		p.i++
		item.Kind = GroupCube
		err = items()
	case nested && p.acceptWords("GROUPING", "SETS"):
		item.Kind = GroupingSets
		err = items()
	default:
		item.Exprs, err = p.tupleOrOne()
	}
	p.leave(outer)
	return item, err
}

// hints reads /*+ .. */ if it follows.
func (p *parser) hints() ([]Hint, error) {
	var out []Hint
	for p.accept("/*+") {
		for {
			var h Hint
			var err error
			if h.Name, err = p.anyIdent("a hint's name"); err != nil {
				return nil, err
			}
			if p.accept("(") && !p.accept(")") {
				err = p.list(func() error {
					arg, err := p.hintArg()
					h.Args = append(h.Args, arg)
					return err
				})
				if err == nil {
					err = p.closing()
				}
			}
			if err != nil {
				return nil, err
			}
			out = append(out, h)
			if p.accept("*/") {
				break
			}
			p.accept(",")
		}
	}
	return out, nil
}

func (p *parser) hintArg() (HintArg, error) {
	var arg HintArg
	key, err := p.hintText()
	if err != nil {
		return arg, err
	}
	arg.Key = key
	if p.accept("=") {
		value, err := p.hintText()
		if err != nil {
			return arg, err
		}
		arg.Value = &value
	}
	return arg, nil
}

func (p *parser) hintText() (HintText, error) {
	t := p.peek()
	h := HintText{Pos: t.pos, Text: t.text}
	switch t.kind {
	case str:
		h.Kind = HintString
	case number:
		h.Kind = HintNumber
	case word, quoted:
		parts := []string{t.text}
		for p.ahead(1).isSymbol(".") && (p.ahead(2).kind == word || p.ahead(2).kind == quoted) {
			p.i += 2
			parts = append(parts, p.peek().text)
		}
		h.Text = strings.Join(parts, ".")
	default:
		return h, p.expected("a hint's argument")
	}
	p.i++
	return h, nil
}
