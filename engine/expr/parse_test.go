package expr

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/weirstream/weir/engine/row"
)

// parser reads the expressions of the stories: enough SQL for them, straight into Resolve. Forms with words of their own
// are written as Resolve takes them: EXTRACT('YEAR', t).
type parser struct {
	toks []string
	at   int
	cols row.Schema
}

func parseExpr(text string, cols row.Schema) (e Expr, err error) {
	p := &parser{cols: cols}
	defer func() {
		if r := recover(); r != nil {
			if pe, ok := r.(parseError); ok {
				e, err = nil, pe.err
				return
			}
			panic(r)
		}
	}()
	p.toks = tokens(text)
	e = p.expr(0)
	if p.at != len(p.toks) {
		p.fail("left over: %s", strings.Join(p.toks[p.at:], " "))
	}
	return e, nil
}

type parseError struct{ err error }

func (p *parser) fail(format string, args ...any) { panic(parseError{fmt.Errorf(format, args...)}) }

func (p *parser) must(e Expr, err error) Expr {
	if err != nil {
		panic(parseError{err})
	}
	return e
}

func tokens(s string) []string {
	var out []string
	for i := 0; i < len(s); {
		c := rune(s[i])
		switch {
		case c == ' ' || c == '\n':
			i++
		case c == '\'':
			j := i + 1
			for j < len(s) && (s[j] != '\'' || j+1 < len(s) && s[j+1] == '\'') {
				if s[j] == '\'' {
					j++
				}
				j++
			}
			out = append(out, s[i:j+1])
			i = j + 1
		case unicode.IsDigit(c):
			j := i
			for j < len(s) && (s[j] >= '0' && s[j] <= '9' || s[j] == '.' || s[j] == 'e' || s[j] == 'E' || (s[j] == '-' || s[j] == '+') && (s[j-1]|0x20) == 'e') {
				j++
			}
			out = append(out, s[i:j])
			i = j
		case unicode.IsLetter(c) || c == '_':
			j := i
			for j < len(s) && (s[j] == '_' || unicode.IsLetter(rune(s[j])) || unicode.IsDigit(rune(s[j]))) {
				j++
			}
			out = append(out, s[i:j])
			i = j
		default:
			n := 1
			for _, op := range []string{"<>", "<=", ">=", "||", "!="} {
				if strings.HasPrefix(s[i:], op) {
					n = 2
				}
			}
			out = append(out, s[i:i+n])
			i += n
		}
	}
	return out
}

func (p *parser) peek() string {
	if p.at < len(p.toks) {
		return strings.ToUpper(p.toks[p.at])
	}
	return ""
}

func (p *parser) next() string {
	t := p.peek()
	p.at++
	return t
}

func (p *parser) accept(words ...string) bool {
	for k, w := range words {
		if p.at+k >= len(p.toks) || !strings.EqualFold(p.toks[p.at+k], w) {
			return false
		}
	}
	p.at += len(words)
	return true
}

func (p *parser) want(w string) {
	if !p.accept(w) {
		p.fail("expected %s before %q", w, p.peek())
	}
}

func (p *parser) resolve(name string, args ...Expr) Expr { return p.must(Resolve(name, args)) }

func (p *parser) expr(level int) Expr {
	e := p.unary(level)
	for {
		op, prec := p.peek(), 0
		switch op {
		case "OR":
			prec = 1
		case "AND":
			prec = 2
		case "=", "<>", "!=", "<", "<=", ">", ">=":
			prec = 4
		case "||":
			prec = 5
		case "+", "-":
			prec = 6
		case "*", "/", "%":
			prec = 7
		case "IS", "NOT", "BETWEEN", "IN", "LIKE", "ILIKE", "SIMILAR":
			if level > 4 {
				return e
			}
			e = p.predicate(e)
			continue
		case "[":
			p.at++
			i := p.expr(0)
			p.want("]")
			e = p.resolve("[]", e, i)
			continue
		case ".":
			p.at++
			p.at++
			e = p.resolve(".", e, Str(p.toks[p.at-1]))
			continue
		case "AT":
			p.at += 3
			e = p.resolve("AT TIME ZONE", e, p.expr(8))
			continue
		}
		if prec == 0 || prec <= level {
			return e
		}
		p.at++
		e = p.resolve(op, e, p.expr(prec))
	}
}

func (p *parser) predicate(e Expr) Expr {
	if p.accept("IS") {
		not := ""
		if p.accept("NOT") {
			not = "NOT "
		}
		if p.accept("DISTINCT") {
			p.want("FROM")
			return p.resolve("IS "+not+"DISTINCT FROM", e, p.expr(4))
		}
		what := p.next()
		if what == "JSON" {
			for _, w := range []string{"VALUE", "SCALAR", "ARRAY", "OBJECT"} {
				if p.accept(w) {
					return p.resolve("IS "+not+"JSON", e, Str(w))
				}
			}
		}
		return p.resolve("IS "+not+what, e)
	}
	not := ""
	if p.accept("NOT") {
		not = "NOT "
	}
	switch op := p.next(); op {
	case "BETWEEN":
		if p.accept("SYMMETRIC") {
			op = "BETWEEN SYMMETRIC"
		}
		low := p.expr(4)
		p.want("AND")
		return p.resolve(not+op, e, low, p.expr(4))
	case "IN":
		p.want("(")
		return p.resolve(not+"IN", append([]Expr{e}, p.list(")")...)...)
	default:
		if op == "SIMILAR" {
			op = "SIMILAR TO"
			p.want("TO")
		}
		args := []Expr{e, p.expr(4)}
		if p.accept("ESCAPE") {
			args = append(args, p.expr(4))
		}
		return p.resolve(not+op, args...)
	}
}

func (p *parser) list(end string) []Expr {
	var out []Expr
	for !p.accept(end) {
		if len(out) > 0 {
			p.want(",")
		}
		out = append(out, p.expr(0))
	}
	return out
}

func (p *parser) unary(level int) Expr {
	switch {
	case p.accept("NOT"):
		return p.resolve("NOT", p.expr(3))
	case p.accept("-"):
		return p.resolve("-", p.expr(8))
	}
	_ = level
	return p.primary()
}

func (p *parser) text() string {
	t := p.toks[p.at]
	if t[0] != '\'' {
		p.fail("expected a text before %s", t)
	}
	p.at++
	return strings.ReplaceAll(t[1:len(t)-1], "''", "'")
}

func (p *parser) primary() Expr {
	if p.at >= len(p.toks) {
		p.fail("unexpected end")
	}
	t := p.toks[p.at]
	switch {
	case t[0] == '\'':
		return Str(p.text())
	case t[0] >= '0' && t[0] <= '9':
		p.at++
		c, err := Number(t)
		return p.must(c, err)
	case p.accept("("):
		e := p.expr(0)
		if p.accept(",") {
			return p.resolve("ROW", append([]Expr{e}, p.list(")")...)...)
		}
		p.want(")")
		return e
	case p.accept("NULL"):
		return Null()
	case p.accept("TRUE"):
		return Bool(true)
	case p.accept("FALSE"):
		return Bool(false)
	case p.accept("CASE"):
		var args []Expr
		for p.accept("WHEN") {
			args = append(args, p.expr(0))
			p.want("THEN")
			args = append(args, p.expr(0))
		}
		if p.accept("ELSE") {
			args = append(args, p.expr(0))
		}
		p.want("END")
		return p.resolve("CASE", args...)
	case p.accept("CAST"), p.accept("TRY_CAST"):
		try := strings.EqualFold(t, "TRY_CAST")
		p.want("(")
		e := p.expr(0)
		p.want("AS")
		typ := p.typ()
		p.want(")")
		return p.must(CastTo(e, typ, try))
	}
	if p.at+1 < len(p.toks) {
		nextTok := p.toks[p.at+1]
		switch u := p.peek(); {
		case (u == "DATE" || u == "TIME" || u == "TIMESTAMP" || u == "TIMESTAMP_LTZ") && nextTok[0] == '\'':
			p.at++
			s := p.text()
			typ := map[string]row.Type{"DATE": kind(row.Date), "TIME": {Kind: row.Time}, "TIMESTAMP": timestampType(3), "TIMESTAMP_LTZ": {Kind: row.TimestampLTZ, Precision: 3}}[u]
			if i := strings.IndexByte(s, '.'); i >= 0 {
				typ.Precision = len(s) - i - 1
			}
			return p.must(ParseLiteral(typ, s, nil))
		case u == "X" && nextTok[0] == '\'':
			p.at++
			var b []byte
			for s := p.text(); len(s) > 1; s = s[2:] {
				x, err := strconv.ParseUint(s[:2], 16, 8)
				p.must(nil, err)
				b = append(b, byte(x))
			}
			return Binary(b)
		case u == "INTERVAL":
			p.at++
			return p.interval(p.text())
		case nextTok == "[" && (u == "ARRAY" || u == "MAP"):
			p.at += 2
			return p.resolve(u, p.list("]")...)
		case nextTok == "(":
			p.at += 2
			return p.resolve(u, p.list(")")...)
		}
	}
	i := p.cols.Index(t)
	if i < 0 {
		if IsFunction(t) {
			p.at++
			return p.resolve(t)
		}
		p.fail("no column %s", t)
	}
	p.at++
	return &Column{i, p.cols[i].Type, t}
}

func (p *parser) interval(s string) Expr {
	u := unitNamed(p.next())
	if p.accept("TO") {
		to := unitNamed(p.next())
		if to == unitMonth {
			return p.must(ParseLiteral(kind(row.IntervalMonths), s, nil))
		}
		return p.must(ParseLiteral(kind(row.IntervalTime), s, nil))
	}
	n, err := strconv.ParseInt(s, 10, 64)
	p.must(nil, err)
	if m := u.months(); m != 0 {
		return Int(kind(row.IntervalMonths), n*m)
	}
	return Int(kind(row.IntervalTime), n*(u.length()/1000))
}

// typ reads a type, also for the tables of the stories.
func (p *parser) typ() row.Type {
	name := p.next()
	var args []int
	if p.accept("(") {
		for !p.accept(")") {
			n, err := strconv.Atoi(p.next())
			p.must(nil, err)
			args = append(args, n)
			p.accept(",")
		}
	}
	first := func(d int) int {
		if len(args) > 0 {
			return args[0]
		}
		return d
	}
	t := row.Type{}
	switch name {
	case "BOOLEAN":
		t.Kind = row.Boolean
	case "TINYINT":
		t.Kind = row.TinyInt
	case "SMALLINT":
		t.Kind = row.SmallInt
	case "INT":
		t.Kind = row.Int
	case "BIGINT":
		t.Kind = row.BigInt
	case "FLOAT":
		t.Kind = row.Float
	case "DOUBLE":
		t.Kind = row.Double
	case "DECIMAL":
		t = decimalType(first(10), 0)
		if len(args) > 1 {
			t.Scale = args[1]
		}
	case "NUMERIC":
		t.Kind = row.Numeric
	case "STRING":
		t.Kind = row.String
	case "VARCHAR", "CHAR":
		t = row.Type{Kind: row.String, Precision: first(1), Fixed: name == "CHAR"}
	case "BYTES":
		t.Kind = row.Bytes
	case "VARBINARY", "BINARY":
		t = row.Type{Kind: row.Bytes, Precision: first(1), Fixed: name == "BINARY"}
	case "DATE":
		t.Kind = row.Date
	case "TIME":
		t = row.Type{Kind: row.Time, Precision: first(0)}
	case "TIMESTAMP":
		t = timestampType(first(6))
	case "TIMESTAMP_LTZ":
		t = row.Type{Kind: row.TimestampLTZ, Precision: first(6)}
	case "INTERVAL_MONTHS":
		t.Kind = row.IntervalMonths
	case "INTERVAL_TIME":
		t.Kind = row.IntervalTime
	case "UUID":
		t.Kind = row.UUID
	case "JSON":
		t.Kind = row.JSON
	case "ARRAY", "MULTISET":
		p.want("<")
		elem := p.typ()
		p.want(">")
		t = row.Type{Kind: map[string]row.Kind{"ARRAY": row.Array, "MULTISET": row.Multiset}[name], Elem: &elem}
	case "MAP":
		p.want("<")
		key := p.typ()
		p.want(",")
		elem := p.typ()
		p.want(">")
		t = row.Type{Kind: row.Map, Key: &key, Elem: &elem}
	case "ROW":
		p.want("<")
		t.Kind = row.Struct
		for !p.accept(">") {
			p.accept(",")
			n := p.toks[p.at]
			p.at++
			t.Fields = append(t.Fields, row.Field{Name: n, Type: p.typ()})
		}
	default:
		p.fail("no type %s", name)
	}
	if p.accept("NOT", "NULL") {
		t.NotNull = true
	}
	return t
}
