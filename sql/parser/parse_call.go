package parser

import "strings"

// nameOrCall reads a column's name or the call of a function.
func (p *parser) nameOrCall() (Expr, error) {
	t := p.peek()
	if t.kind == word {
		if bareCall(t.text) && !p.ahead(1).isSymbol("(") {
			p.i++
			return &Call{Pos: t.pos, Name: Name{{t.text, t.pos}}, Bare: true}, nil
		}
		if next := p.ahead(1); (t.isWord("RUNNING") || t.isWord("FINAL")) && next.kind == word && !follows(next.text) && p.ahead(2).isSymbol("(") {
			p.i++
			x, err := p.nameOrCall()
			if c, ok := x.(*Call); ok && err == nil {
				c.Pos, c.Matching = t.pos, MatchingRunning
				if t.isWord("FINAL") {
					c.Matching = MatchingFinal
				}
			}
			return x, err
		}
		if p.ahead(1).isSymbol("(") {
			if x, err := p.ownGrammar(t); x != nil || err != nil {
				return x, err
			}
		}
	}
	p.i++
	n := Name{{t.text, t.pos}}
	for p.isSymbol(".") && !p.ahead(1).isSymbol("*") {
		p.i++
		part, err := p.anyIdent("a name after the dot")
		if err != nil {
			return nil, err
		}
		n = append(n, part)
	}
	if !p.isSymbol("(") {
		return &ColumnRef{t.pos, n}, nil
	}
	return p.call(n)
}

// call reads a call's parentheses and what stands behind them.
func (p *parser) call(n Name) (*Call, error) {
	c := &Call{Pos: n[0].Pos, Name: n}
	p.i++
	switch {
	case p.accept(")"):
	case p.isSymbol("*") && p.ahead(1).isSymbol(")"):
		p.i += 2
		c.Star = true
	default:
		if err := p.arguments(c); err != nil {
			return nil, err
		}
	}
	return c, p.callTail(c)
}

func (p *parser) arguments(c *Call) error {
	if p.acceptWord("DISTINCT") {
		c.Distinct = true
	} else {
		p.acceptWord("ALL")
	}
	fn := ""
	if len(c.Name) == 1 {
		fn = strings.ToUpper(c.Name[0].Text)
	}
	for more := true; more; {
		x, err := p.argument()
		if err != nil {
			return err
		}
		c.Args = append(c.Args, x)
		// SUBSTRING(x FROM a FOR b), OVERLAY(x PLACING y FROM a FOR b) and CEIL(x TO unit)
		switch fn {
		case "SUBSTRING":
			more = p.acceptWord("FROM") || p.acceptWord("FOR") || p.accept(",")
		case "OVERLAY":
			more = p.acceptWord("PLACING") || p.acceptWord("FROM") || p.acceptWord("FOR") || p.accept(",")
		case "CEIL", "CEILING", "FLOOR":
			if len(c.Args) == 1 && p.acceptWord("TO") {
				u, err := p.unit()
				if err != nil {
					return err
				}
				c.Args = append(c.Args, u)
				more = false
				continue
			}
			more = p.accept(",")
		default:
			more = p.accept(",")
		}
	}
	if p.acceptWords("ORDER", "BY") {
		var err error
		if c.OrderBy, err = p.orderItems(); err != nil {
			return err
		}
	}
	c.OnNull = p.onNull()
	p.nullHandling(c)
	return p.closing()
}

// argument reads what may stand as one argument: an expression, a table, or either of them with a name.
func (p *parser) argument() (Expr, error) {
	t := p.peek()
	if (t.kind == word || t.kind == quoted) && p.ahead(1).isSymbol("=>") {
		p.i += 2
		x, err := p.argument()
		return &NamedArg{t.pos, Ident{t.text, t.pos}, x}, err
	}
	arg := &TableArg{Pos: t.pos}
	var err error
	switch {
	case t.isWord("TABLE") && p.ahead(1).isSymbol("("):
		p.i += 2
		if arg.Query, err = p.query(); err == nil {
			err = p.symbol(")", "")
		}
	case t.isWord("TABLE"):
		p.i++
		arg.Table, err = p.name("the table's name")
	default:
		if p.queryBegins() {
			return nil, p.expected("an argument").WithHint("put parentheses around the query")
		}
		x, err := p.expr()
		sub, ok := x.(*Subquery)
		if err != nil || !ok || !p.isWords("PARTITION", "BY") && !p.isWords("ORDER", "BY") {
			return x, err
		}
		arg.Query = sub.Query
	}
	if err != nil {
		return nil, err
	}
	if p.acceptWords("PARTITION", "BY") {
		// Without parentheses it is one expression, because the next comma ends the argument.
		if arg.PartitionBy, err = p.tupleOrOne(); err != nil {
			return nil, err
		}
	}
	if p.acceptWords("ORDER", "BY") {
		if p.accept("(") {
			if arg.OrderBy, err = p.orderItems(); err == nil {
				err = p.closing()
			}
		} else {
			var item OrderItem
			item, err = p.orderItem()
			arg.OrderBy = []OrderItem{item}
		}
	}
	return arg, err
}

// tupleOrOne reads expressions in parentheses, or one without them.
func (p *parser) tupleOrOne() ([]Expr, error) {
	at := p.peek()
	x, err := p.expr()
	if err != nil {
		return nil, err
	}
	if r, ok := x.(*Row); ok && at.isSymbol("(") && r.Pos == at.pos {
		return r.Items, nil
	}
	return []Expr{x}, nil
}

func (p *parser) nullHandling(c *Call) {
	switch {
	case c.Nulls != NullsUnstated:
	case p.acceptWords("IGNORE", "NULLS"):
		c.Nulls = NullsIgnore
	case p.acceptWords("RESPECT", "NULLS"):
		c.Nulls = NullsRespect
	}
}

func (p *parser) onNull() OnNull {
	switch {
	case p.acceptWords("NULL", "ON", "NULL"):
		return NullOnNull
	case p.acceptWords("ABSENT", "ON", "NULL"):
		return AbsentOnNull
	}
	return OnNullUnstated
}

// callTail reads what may stand behind a call.
func (p *parser) callTail(c *Call) (err error) {
	p.nullHandling(c)
	if p.isWords("WITHIN", "GROUP") {
		p.i += 2
		if err := p.symbol("(", "after WITHIN GROUP"); err != nil {
			return err
		}
		if err := p.words("ORDER", "BY"); err != nil {
			return err
		}
		if c.WithinGroup, err = p.orderItems(); err != nil {
			return err
		}
		if err := p.closing(); err != nil {
			return err
		}
	}
	if p.isWord("FILTER") && p.ahead(1).isSymbol("(") {
		p.i += 2
		if err := p.words("WHERE"); err != nil {
			return err
		}
		if c.Filter, err = p.expr(); err != nil {
			return err
		}
		if err := p.symbol(")", ""); err != nil {
			return err
		}
	}
	p.nullHandling(c)
	next := p.ahead(1)
	if p.isWord("OVER") && (next.isSymbol("(") || next.kind == quoted || next.kind == word && !follows(next.text)) {
		p.i++
		if p.isSymbol("(") {
			c.Over, err = p.window()
			return err
		}
		t := p.take()
		c.Over = &Window{Pos: t.pos, Base: Ident{t.text, t.pos}}
	}
	return nil
}

// window reads a window's specification in parentheses.
func (p *parser) window() (*Window, error) {
	w := &Window{Pos: p.take().pos}
	var err error
	if t := p.peek(); t.kind == quoted || t.kind == word && !reserved(t.text) && !t.isWord("PARTITION") && !t.isWord("ROWS") && !t.isWord("RANGE") {
		p.i++
		w.Base = Ident{t.text, t.pos}
	}
	if p.acceptWord("PARTITION") {
		if err = p.words("BY"); err != nil {
			return nil, err
		}
		if w.PartitionBy, err = p.exprs(); err != nil {
			return nil, err
		}
	}
	if p.acceptWord("ORDER") {
		if err = p.words("BY"); err != nil {
			return nil, err
		}
		if w.OrderBy, err = p.orderItems(); err != nil {
			return nil, err
		}
	}
	if p.isWord("ROWS") || p.isWord("RANGE") {
		if w.Frame, err = p.frame(); err != nil {
			return nil, err
		}
	}
	if !p.accept(")") {
		return nil, p.expected("PARTITION BY, ORDER BY, ROWS, RANGE or )", "PARTITION", "ORDER", "ROWS", "RANGE")
	}
	return w, nil
}

func (p *parser) frame() (*Frame, error) {
	t := p.take()
	f := &Frame{Pos: t.pos, Unit: FrameRows, End: Bound{Kind: CurrentRow}}
	if t.isWord("RANGE") {
		f.Unit = FrameRange
	}
	var err error
	if !p.acceptWord("BETWEEN") {
		f.Start, err = p.bound()
		return f, err
	}
	if f.Start, err = p.bound(); err != nil {
		return nil, err
	}
	if err = p.words("AND"); err != nil {
		return nil, err
	}
	f.End, err = p.bound()
	return f, err
}

func (p *parser) bound() (Bound, error) {
	switch {
	case p.acceptWords("UNBOUNDED", "PRECEDING"):
		return Bound{Kind: UnboundedPreceding}, nil
	case p.acceptWords("UNBOUNDED", "FOLLOWING"):
		return Bound{Kind: UnboundedFollowing}, nil
	case p.acceptWords("CURRENT", "ROW"):
		return Bound{Kind: CurrentRow}, nil
	}
	x, err := p.level(levelConcat)
	if err != nil {
		return Bound{}, err
	}
	w, err := p.choice("PRECEDING", "FOLLOWING")
	if w == "FOLLOWING" {
		return Bound{Following, x}, err
	}
	return Bound{Preceding, x}, err
}

// ownGrammar reads the calls whose arguments are not a plain list; nil for all others.
func (p *parser) ownGrammar(t token) (Expr, error) {
	fn := strings.ToUpper(t.text)
	if !ownGrammar(fn) || fn == "ROLLUP" || fn == "CUBE" {
		return nil, nil
	}
	p.i += 2
	var x Expr
	var err error
	c := &Call{Pos: t.pos, Name: Name{{t.text, t.pos}}}
	switch fn {
	case "CAST", "TRY_CAST":
		x, err = p.cast(t.pos, fn == "TRY_CAST")
	case "EXTRACT":
		e := &Extract{Pos: t.pos}
		var u *Unit
		if u, err = p.unit(); err == nil {
			e.Unit = u.Unit
			if err = p.words("FROM"); err == nil {
				e.X, err = p.expr()
			}
		}
		x = e
	case "TRIM":
		x, err = p.trim(t.pos)
	case "DESCRIPTOR":
		d := &Descriptor{Pos: t.pos}
		err = p.list(func() error {
			id, err := p.ident("a column's name")
			d.Columns = append(d.Columns, id)
			return err
		})
		x = d
	case "POSITION":
		var a, b Expr
		if a, err = p.level(levelConcat); err == nil {
			if !p.acceptWord("IN") && !p.accept(",") {
				return nil, p.expected("IN", "IN")
			}
			if b, err = p.expr(); err == nil {
				c.Args = []Expr{a, b}
			}
		}
		x = c
	case "TIMESTAMPADD", "TIMESTAMPDIFF":
		var u *Unit
		if u, err = p.unit(); err == nil {
			c.Args = []Expr{u}
			for err == nil && p.accept(",") {
				var arg Expr
				arg, err = p.expr()
				c.Args = append(c.Args, arg)
			}
		}
		x = c
	case "JSON_EXISTS", "JSON_VALUE", "JSON_QUERY":
		x, err = p.jsonPath(t.pos, fn)
	case "JSON_OBJECT", "JSON_OBJECTAGG":
		err = p.jsonEntries(c, fn == "JSON_OBJECTAGG")
		x = c
	}
	if err != nil {
		return nil, err
	}
	if err := p.closing(); err != nil {
		return nil, err
	}
	if x == Expr(c) {
		err = p.callTail(c)
	}
	return x, err
}

// unit reads a unit of time, which may stand in quotes as Postgres writes it.
func (p *parser) unit() (*Unit, error) {
	t := p.peek()
	if u := timeUnit(t.text); u != "" && (t.kind == word || t.kind == str) {
		p.i++
		return &Unit{t.pos, u}, nil
	}
	return nil, p.expected("a unit of time", timeUnits()...)
}

func (p *parser) cast(at Pos, try bool) (Expr, error) {
	c := &Cast{Pos: at, Try: try}
	var err error
	if c.X, err = p.expr(); err != nil {
		return nil, err
	}
	if !p.acceptWord("AS") {
		return nil, p.expected("AS and a type", "AS")
	}
	c.Type, err = p.typeOf(true)
	return c, err
}

func (p *parser) trim(at Pos) (Expr, error) {
	x := &Trim{Pos: at}
	stated := true
	switch {
	case p.isWord("BOTH") && !p.ahead(1).isSymbol(")") && !p.ahead(1).isSymbol("."):
		p.i++
	case p.isWord("LEADING") && !p.ahead(1).isSymbol(")") && !p.ahead(1).isSymbol("."):
		p.i++
		x.Side = TrimLeading
	case p.isWord("TRAILING") && !p.ahead(1).isSymbol(")") && !p.ahead(1).isSymbol("."):
		p.i++
		x.Side = TrimTrailing
	default:
		stated = false
	}
	var err error
	if stated && p.acceptWord("FROM") {
		x.X, err = p.expr()
		return x, err
	}
	if x.X, err = p.expr(); err != nil {
		return nil, err
	}
	switch {
	case p.acceptWord("FROM"):
		x.Chars = x.X
		x.X, err = p.expr()
	case stated && p.isSymbol(")"):
		return nil, p.expected("FROM", "FROM")
	case p.accept(","): // Postgres's TRIM(x, chars)
		x.Chars, err = p.expr()
	}
	return x, err
}
