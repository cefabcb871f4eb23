package parser

import (
	"encoding/hex"
	"strconv"
	"strings"
)

// primary reads an operand without anything before or behind it.
func (p *parser) primary() (Expr, error) {
	switch t := p.peek(); t.kind {
	case number:
		p.i++
		return &NumberLit{t.pos, numberKind(t.text), t.text}, nil
	case str:
		p.i++
		return &StringLit{t.pos, t.text}, nil
	case hexed:
		p.i++
		b, err := hex.DecodeString(t.text)
		if err != nil {
			return nil, p.fail(t.pos, "X'..' holds pairs of hexadecimal digits")
		}
		return &BinaryLit{t.pos, b}, nil
	case param:
		p.i++
		n, err := strconv.Atoi(t.text)
		if err != nil || n < 1 || n > 65535 {
			return nil, p.fail(t.pos, "there is no parameter $%s", clip(t.text)).WithHint("parameters are $1 to $65535")
		}
		return p.param(t.pos, n, true)
	case symbol:
		switch t.text {
		case "(":
			return p.parenthesized()
		case "?":
			p.i++
			return p.param(t.pos, p.params+1, false)
		case "*":
			return nil, p.expected("an expression").WithHint("* stands alone among the items of SELECT, as t.*, or in COUNT(*)")
		}
	case quoted:
		return p.nameOrCall()
	case word:
		if x, err := p.wordLiteral(t); x != nil || err != nil {
			return x, err
		}
		if !reserved(t.text) || (t.isWord("LEFT") || t.isWord("RIGHT")) && p.ahead(1).isSymbol("(") || bareCall(t.text) {
			return p.nameOrCall()
		}
		e := p.expected("an expression")
		if e.Hint == "" {
			e.Hint = strings.ToUpper(t.text) + " is a keyword; as a name it is quoted with backticks: `" + t.text + "`"
			if t.isWord("NOT") {
				e.Hint = "put parentheses around NOT and its operand"
			}
			if t.isWord("SELECT") || t.isWord("WITH") || t.isWord("VALUES") {
				e.Hint = "put parentheses around the query"
			}
		}
		return nil, e
	}
	return nil, p.expected("an expression")
}

func (p *parser) param(at Pos, n int, dollar bool) (Expr, error) {
	if p.params > 0 && p.dollar != dollar {
		return nil, p.fail(at, "a statement has either ? or $1 as parameters")
	}
	p.params, p.dollar = max(p.params, n), dollar
	return &Param{at, n}, nil
}

func numberKind(text string) NumberKind {
	switch {
	case strings.ContainsAny(text, "eE"):
		return Float
	case strings.Contains(text, "."):
		return Decimal
	}
	return Integer
}

// parenthesized reads (x), (a, b), or a query.
func (p *parser) parenthesized() (Expr, error) {
	at := p.take().pos
	query, list, err := p.queryOrList()
	switch {
	case err != nil:
		return nil, err
	case query != nil:
		return &Subquery{at, query}, nil
	case len(list) > 1:
		return &Row{at, list}, nil
	}
	return list[0], nil
}

// wordLiteral reads the operands that begin with a keyword; nil if the word is a name or begins a call.
func (p *parser) wordLiteral(t token) (Expr, error) {
	next := p.ahead(1)
	switch strings.ToUpper(t.text) {
	case "TRUE", "FALSE":
		p.i++
		return &BoolLit{t.pos, t.isWord("TRUE")}, nil
	case "NULL":
		p.i++
		return &NullLit{t.pos}, nil
	case "DEFAULT":
		p.i++
		return &Default{t.pos}, nil
	case "DATE":
		return p.temporal(TypeDate, next, 1), nil
	case "TIME":
		return p.temporal(TypeTime, next, 1), nil
	case "TIMESTAMP":
		if p.isWords("TIMESTAMP", "WITH", "LOCAL", "TIME", "ZONE") {
			return p.temporal(TypeTimestampLTZ, p.ahead(5), 5), nil
		}
		return p.temporal(TypeTimestamp, next, 1), nil
	case "TIMESTAMP_LTZ", "TIMESTAMPTZ":
		return p.temporal(TypeTimestampLTZ, next, 1), nil
	case "INTERVAL":
		return p.interval()
	case "CASE":
		return p.caseOf()
	case "ARRAY":
		if next.isSymbol("[") {
			p.i++
			items, err := p.brackets()
			return &Array{Pos: t.pos, Items: items}, err
		}
		if next.isSymbol("(") {
			p.i += 2
			if !p.queryBegins() && !p.isSymbol("(") {
				return nil, p.expected("a query").WithHint("an array of values is written with brackets: ARRAY[1, 2]")
			}
			q, err := p.query()
			if err != nil {
				return nil, err
			}
			return &Array{Pos: t.pos, Query: q}, p.symbol(")", "")
		}
	case "MAP":
		if next.isSymbol("[") {
			p.i++
			return p.mapOf(t.pos)
		}
	case "ROW":
		if next.isSymbol("(") {
			p.i++
			r := &Row{Pos: t.pos}
			if p.ahead(1).isSymbol(")") {
				p.i += 2
				return r, nil
			}
			err := p.parens("", func() error {
				x, err := p.expr()
				r.Items = append(r.Items, x)
				return err
			})
			return r, err
		}
	case "EXISTS":
		if next.isSymbol("(") {
			p.i += 2
			q, err := p.query()
			if err != nil {
				return nil, err
			}
			return &Exists{t.pos, q}, p.symbol(")", "")
		}
	}
	return nil, nil
}

// temporal makes a literal of the string that stands after so many tokens; nil if it is none.
func (p *parser) temporal(kind TypeKind, text token, tokens int) Expr {
	if text.kind != str {
		return nil
	}
	at := p.peek().pos
	p.i += tokens + 1
	return &TemporalLit{at, kind, Literal{text.text, text.pos}}
}

// interval reads INTERVAL '..' unit; nil if the word is a name.
func (p *parser) interval() (Expr, error) {
	at, n := p.peek().pos, 1
	x := &IntervalLit{Pos: at}
	if s := p.ahead(1); s.isSymbol("-") || s.isSymbol("+") {
		x.Negative = s.isSymbol("-")
		n = 2
	}
	text := p.ahead(n)
	if text.kind != str {
		if text.kind == number && n == 1 {
			p.i++
			return nil, p.expected("the interval's length in single quotes").WithHint("write INTERVAL '%s'", clip(text.text))
		}
		return nil, nil
	}
	x.Text = Literal{text.text, text.pos}
	p.i += n + 1
	var err error
	if t := p.peek(); t.kind == word && intervalUnit(t.text) != "" {
		x.Unit, err = p.intervalQualifier()
	}
	return x, err
}

func (p *parser) intervalQualifier() (*IntervalQualifier, error) {
	t := p.peek()
	q := &IntervalQualifier{Pos: t.pos, From: intervalUnit(t.text)}
	if t.kind != word || q.From == "" {
		return nil, p.expected("a unit of time", timeUnits()[:8]...)
	}
	p.i++
	var err error
	if p.accept("(") {
		if q.Precision, err = p.digits("the number of digits"); err != nil {
			return nil, err
		}
		if q.From == "SECOND" && p.accept(",") {
			if q.Fraction, err = p.digits("the number of digits"); err != nil {
				return nil, err
			}
		}
		if err = p.symbol(")", ""); err != nil {
			return nil, err
		}
	}
	if u := p.ahead(1); p.isWord("TO") && u.kind == word && intervalUnit(u.text) != "" {
		p.i += 2
		if q.To = intervalUnit(u.text); q.To == "SECOND" && p.accept("(") {
			if q.Fraction, err = p.digits("the number of digits"); err != nil {
				return nil, err
			}
			err = p.symbol(")", "")
		}
	}
	return q, err
}

// digits reads a whole number.
func (p *parser) digits(what string) (*int, error) {
	t := p.peek()
	n, err := strconv.Atoi(t.text)
	if t.kind != number || err != nil {
		return nil, p.expected(what)
	}
	p.i++
	return &n, nil
}

func (p *parser) caseOf() (Expr, error) {
	c := &Case{Pos: p.take().pos}
	var err error
	if !p.isWord("WHEN") {
		if c.Operand, err = p.expr(); err != nil {
			return nil, err
		}
	}
	if err := p.words("WHEN"); err != nil {
		return nil, err
	}
	for {
		var w When
		if w.If, err = p.expr(); err != nil {
			return nil, err
		}
		if err = p.words("THEN"); err != nil {
			return nil, err
		}
		if w.Then, err = p.expr(); err != nil {
			return nil, err
		}
		c.Whens = append(c.Whens, w)
		if !p.acceptWord("WHEN") {
			break
		}
	}
	if p.acceptWord("ELSE") {
		if c.Else, err = p.expr(); err != nil {
			return nil, err
		}
	}
	if !p.acceptWord("END") {
		return nil, p.expected("WHEN, ELSE or END", "WHEN", "ELSE", "END")
	}
	return c, nil
}

// brackets reads expressions in brackets.
func (p *parser) brackets() ([]Expr, error) {
	if err := p.symbol("[", ""); err != nil {
		return nil, err
	}
	if p.accept("]") {
		return nil, nil
	}
	items, err := p.exprs()
	if err != nil {
		return nil, err
	}
	if !p.accept("]") {
		return nil, p.expected(", or ]")
	}
	return items, nil
}

func (p *parser) mapOf(at Pos) (Expr, error) {
	m := &Map{Pos: at}
	items, err := p.brackets()
	if err != nil {
		return nil, err
	}
	if len(items)%2 != 0 {
		return nil, p.fail(items[len(items)-1].Position(), "a key of MAP has no value").WithHint("write MAP[key, value, key, value]")
	}
	for i := 0; i < len(items); i += 2 {
		m.Entries = append(m.Entries, MapEntry{items[i], items[i+1]})
	}
	return m, nil
}
