package parser

import "strings"

// The levels of expressions, the loosest first. An operand is read at the level above its operator's.
const (
	levelOr = iota + 1
	levelAnd
	levelNot
	levelIs
	levelCompare
	levelConcat
	levelAdd
	levelMul
	levelSign
	levelZone
	levelPostfix
)

func (p *parser) expr() (Expr, error) { return p.level(levelOr) }

// exprs reads expressions separated by commas.
func (p *parser) exprs() ([]Expr, error) {
	var out []Expr
	err := p.list(func() error {
		x, err := p.expr()
		out = append(out, x)
		return err
	})
	return out, err
}

// level reads an expression whose operators are of this level or tighter.
func (p *parser) level(least int) (Expr, error) {
	outer, err := p.enter()
	if err != nil {
		return nil, err
	}
	at := p.peek().pos
	var x Expr
	if least <= levelNot && p.acceptWord("NOT") {
		x, err = p.level(levelNot)
		x = &Unary{at, OpNot, x}
	} else {
		x, err = p.sign()
	}
	for more := true; more && err == nil; {
		x, more, err = p.operator(at, x, least)
	}
	if err != nil {
		return nil, err
	}
	p.leave(outer)
	return x, nil
}

// binaryOp is the operator that begins at the next token, with the number of its tokens; 0 if there is none.
func (p *parser) binaryOp() (op Op, level, tokens int) {
	t := p.peek()
	switch t.kind {
	case symbol:
		switch t.text {
		case "=":
			return OpEq, levelCompare, 1
		case "<>", "!=":
			return OpNe, levelCompare, 1
		case "<":
			return OpLt, levelCompare, 1
		case "<=":
			return OpLe, levelCompare, 1
		case ">":
			return OpGt, levelCompare, 1
		case ">=":
			return OpGe, levelCompare, 1
		case "||":
			return OpConcat, levelConcat, 1
		case "+":
			return OpAdd, levelAdd, 1
		case "-":
			return OpSub, levelAdd, 1
		case "*":
			return OpMul, levelMul, 1
		case "/":
			return OpDiv, levelMul, 1
		case "%":
			return OpMod, levelMul, 1
		}
	case word:
		switch strings.ToUpper(t.text) {
		case "OR":
			return OpOr, levelOr, 1
		case "AND":
			return OpAnd, levelAnd, 1
		case "OVERLAPS":
			return OpOverlaps, levelCompare, 1
		case "IS":
			if p.isWords("IS", "DISTINCT", "FROM") {
				return OpDistinct, levelIs, 3
			}
			if p.isWords("IS", "NOT", "DISTINCT", "FROM") {
				return OpNotDistinct, levelIs, 4
			}
		}
	}
	return 0, 0, 0
}

// operator reads one operator behind x with what belongs to it, if its level is at least least.
func (p *parser) operator(at Pos, x Expr, least int) (Expr, bool, error) {
	if op, level, tokens := p.binaryOp(); op != 0 {
		if level < least {
			return x, false, nil
		}
		opAt := p.peek().pos
		p.i += tokens
		if level == levelCompare && (p.isWord("ANY") || p.isWord("SOME") || p.isWord("ALL")) && op != OpOverlaps {
			q, err := p.quantified(at, op, x)
			return q, true, err
		}
		right, err := p.level(level + 1)
		if err != nil {
			return nil, false, err
		}
		return &Binary{at, op, opAt, x, right}, true, p.chain()
	}
	n := 0
	if p.isWord("NOT") {
		n = 1
	}
	switch t := p.ahead(n); {
	case t.kind != word:
		return x, false, nil
	case n == 0 && t.isWord("IS") && least <= levelIs:
		is, err := p.is(at, x)
		return is, true, err
	case least > levelCompare:
		return x, false, nil
	case t.isWord("BETWEEN"):
		p.i += n + 1
		b, err := p.between(at, x, n == 1)
		return b, true, err
	case t.isWord("IN"):
		p.i += n + 1
		in, err := p.in(at, x, n == 1)
		return in, true, err
	case t.isWord("LIKE"):
		p.i += n + 1
		l, err := p.like(at, x, n == 1, PatternLike)
		return l, true, err
	case t.isWord("ILIKE") && p.ahead(n+1).kind != end:
		p.i += n + 1
		l, err := p.like(at, x, n == 1, PatternILike)
		return l, true, err
	case t.isWord("SIMILAR") && p.ahead(n+1).isWord("TO"):
		p.i += n + 2
		l, err := p.like(at, x, n == 1, PatternSimilar)
		return l, true, err
	}
	return x, false, nil
}

func (p *parser) is(at Pos, x Expr) (Expr, error) {
	p.i++
	is := &Is{Pos: at, X: x, Not: p.acceptWord("NOT")}
	w, err := p.choice("NULL", "TRUE", "FALSE", "UNKNOWN", "JSON", "DISTINCT")
	if err != nil {
		return nil, err
	}
	switch w {
	case "NULL":
		is.Test = IsNull
	case "TRUE":
		is.Test = IsTrue
	case "FALSE":
		is.Test = IsFalse
	case "UNKNOWN":
		is.Test = IsUnknown
	case "JSON":
		is.Test = IsJSON
		switch {
		case p.acceptWord("VALUE"):
		case p.acceptWord("OBJECT"):
			is.Test = IsJSONObject
		case p.acceptWord("ARRAY"):
			is.Test = IsJSONArray
		case p.acceptWord("SCALAR"):
			is.Test = IsJSONScalar
		}
	case "DISTINCT":
		return nil, p.expected("FROM", "FROM")
	}
	return is, p.chain()
}

func (p *parser) between(at Pos, x Expr, not bool) (Expr, error) {
	b := &Between{Pos: at, X: x, Not: not}
	if p.acceptWord("SYMMETRIC") {
		b.Symmetric = true
	} else {
		p.acceptWord("ASYMMETRIC")
	}
	var err error
	if b.Low, err = p.level(levelConcat); err != nil {
		return nil, err
	}
	if err = p.words("AND"); err != nil {
		return nil, err
	}
	if b.High, err = p.level(levelConcat); err != nil {
		return nil, err
	}
	return b, p.chain()
}

func (p *parser) in(at Pos, x Expr, not bool) (Expr, error) {
	in := &In{Pos: at, X: x, Not: not}
	if err := p.symbol("(", "after IN"); err != nil {
		return nil, err
	}
	var err error
	if in.Query, in.List, err = p.queryOrList(); err != nil {
		return nil, err
	}
	return in, p.chain()
}

// queryOrList reads a query or expressions up to the closing parenthesis.
func (p *parser) queryOrList() (Query, []Expr, error) {
	if p.queryBegins() {
		q, err := p.query()
		if err != nil {
			return nil, nil, err
		}
		return q, nil, p.symbol(")", "")
	}
	if p.isSymbol(")") {
		return nil, nil, p.expected("a value")
	}
	list, err := p.exprs()
	if err != nil {
		return nil, nil, err
	}
	if sub, ok := list[0].(*Subquery); ok && len(list) == 1 && p.queryGoesOn() {
		q, err := p.queryRest(sub.Pos, sub.Query, setLoosest)
		if err != nil {
			return nil, nil, err
		}
		return q, nil, p.symbol(")", "")
	}
	return nil, list, p.closing()
}

func (p *parser) like(at Pos, x Expr, not bool, kind LikeKind) (Expr, error) {
	l := &Like{Pos: at, X: x, Not: not, Kind: kind}
	var err error
	if l.Pattern, err = p.level(levelConcat); err != nil {
		return nil, err
	}
	if p.acceptWord("ESCAPE") {
		if l.Escape, err = p.level(levelConcat); err != nil {
			return nil, err
		}
	}
	return l, p.chain()
}

func (p *parser) quantified(at Pos, op Op, x Expr) (Expr, error) {
	q := &Quantified{Pos: at, X: x, Op: op, All: p.take().isWord("ALL")}
	if err := p.symbol("(", "with a query"); err != nil {
		return nil, err
	}
	query, list, err := p.queryOrList()
	if err != nil {
		return nil, err
	}
	if q.Query = query; query == nil {
		if len(list) > 1 {
			return nil, p.fail(list[1].Position(), "ANY and ALL take a query or one array").WithHint("write x IN (a, b) or x = ANY (ARRAY[a, b])")
		}
		q.Array = list[0]
	}
	return q, p.chain()
}

// sign reads an operand with the signs before it.
func (p *parser) sign() (Expr, error) {
	t := p.peek()
	if !t.isSymbol("-") && !t.isSymbol("+") {
		return p.zone()
	}
	outer, err := p.enter()
	if err != nil {
		return nil, err
	}
	p.i++
	x, err := p.sign()
	if err != nil {
		return nil, err
	}
	p.leave(outer)
	if t.text == "-" {
		return &Unary{t.pos, OpNeg, x}, nil
	}
	return &Unary{t.pos, OpPlus, x}, nil
}

func (p *parser) zone() (Expr, error) {
	at := p.peek().pos
	x, err := p.postfix()
	for err == nil && p.acceptWords("AT", "TIME", "ZONE") {
		var zone Expr
		if zone, err = p.postfix(); err == nil {
			x, err = &AtTimeZone{at, x, zone}, p.chain()
		}
	}
	return x, err
}

// postfix reads an operand with its subscripts, fields and casts.
func (p *parser) postfix() (Expr, error) {
	at := p.peek().pos
	x, err := p.primary()
	for cast := false; err == nil; {
		switch {
		case p.isSymbol("[") && !cast:
			outer := p.height
			p.i++
			var index Expr
			if index, err = p.expr(); err == nil {
				err = p.symbol("]", "")
			}
			p.height = max(outer, p.height)
			x = &Subscript{at, x, index}
		case p.isSymbol(".") && !cast:
			p.i++
			var name Ident
			name, err = p.anyIdent("a field's name")
			x = &Field{at, x, name}
		case p.accept("::"):
			cast = true
			var t *DataType
			t, err = p.typeOf(false)
			x = &Cast{Pos: at, X: x, Type: t, Colons: true}
		default:
			return x, nil
		}
		if err == nil {
			err = p.chain()
		}
	}
	return nil, err
}
