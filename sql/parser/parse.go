package parser

import (
	"strings"

	"github.com/weirstream/weir/internal/errs"
)

// maxDepth bounds how deep a text may nest, so that no input exhausts the stack. maxHeight bounds the tree, which chains
// such as a + b + c make high without nesting.
const (
	maxDepth  = 500
	maxHeight = 10_000
)

// Parse reads a script. The error is one record: that of the first place that is wrong.
func Parse(file, text string) (*Script, error) {
	p, err := start(file, text)
	if err != nil {
		return nil, err
	}
	script := &Script{File: file}
	for {
		for p.accept(";") {
		}
		if p.peek().kind == end {
			return script, nil
		}
		p.params = 0
		s, err := p.statement()
		if err != nil {
			return nil, err
		}
		script.Statements = append(script.Statements, s)
		if t := p.peek(); t.kind != end && !p.isSymbol(";") {
			return nil, p.notEnded()
		}
	}
}

// ParseQuery reads one query, with or without a semicolon behind it.
func ParseQuery(file, text string) (Query, error) {
	p, err := start(file, text)
	if err != nil {
		return nil, err
	}
	q, err := p.query()
	if err == nil {
		p.accept(";")
		if p.peek().kind != end {
			err = p.notEnded()
		}
	}
	if err != nil {
		return nil, err
	}
	return q, nil
}

// ParseExpr reads one expression.
func ParseExpr(file, text string) (Expr, error) {
	p, err := start(file, text)
	if err != nil {
		return nil, err
	}
	x, err := p.expr()
	if err == nil && p.peek().kind != end {
		err = p.expected("the end of the expression")
	}
	if err != nil {
		return nil, err
	}
	return x, nil
}

// Locate is a place as the error record shows it, for checks that come after parsing.
func Locate(file, text string, at Pos) errs.Position {
	return (&lexer{file: file, text: strings.TrimPrefix(text, "\ufeff")}).position(at)
}

// parser goes over the tokens from left to right. It never goes back; where a token alone does not say what begins, it
// looks at a few of the next ones.
type parser struct {
	lex    *lexer
	tokens []token
	i      int
	depth  int
	height int // of the highest tree made since the last enter
	alias  int // index behind the last alias without AS, which may be a misspelt keyword
	params int // question marks in this statement
	dollar bool
}

func start(file, text string) (*parser, error) {
	lex := &lexer{file: file, text: text}
	tokens, err := lex.tokens()
	if err != nil {
		return nil, err
	}
	return &parser{lex: lex, tokens: tokens, alias: -1}, nil
}

// enter begins a part that may hold parts of its own kind; leave ends it with what enter gave.
func (p *parser) enter() (outer int, err error) {
	if p.depth++; p.depth > maxDepth {
		return 0, p.lex.errorAt(p.peek().pos, "the text is nested more than %d deep", maxDepth)
	}
	outer, p.height = p.height, 0
	return outer, nil
}

func (p *parser) leave(outer int) {
	p.depth--
	p.height = max(outer, p.height+1)
}

// chain counts one more link of a chain whose links so far are all below the next one.
func (p *parser) chain() error {
	if p.height++; p.height > maxHeight {
		return p.lex.errorAt(p.peek().pos, "the chain of operators is more than %d long", maxHeight)
	}
	return nil
}

func (p *parser) peek() token { return p.tokens[p.i] }

// ahead is the n-th token after the next one.
func (p *parser) ahead(n int) token { return p.tokens[min(p.i+n, len(p.tokens)-1)] }

func (p *parser) take() token {
	t := p.tokens[p.i]
	if t.kind != end {
		p.i++
	}
	return t
}

func (t token) isWord(w string) bool   { return t.kind == word && strings.EqualFold(t.text, w) }
func (t token) isSymbol(s string) bool { return t.kind == symbol && t.text == s }

func (p *parser) isWord(w string) bool   { return p.peek().isWord(w) }
func (p *parser) isSymbol(s string) bool { return p.peek().isSymbol(s) }

// isWords tells whether these keywords come next.
func (p *parser) isWords(ws ...string) bool {
	for i, w := range ws {
		if !p.ahead(i).isWord(w) {
			return false
		}
	}
	return true
}

// accept takes the symbol if it is next, acceptWord the keyword, acceptWords all of the keywords or none.
func (p *parser) accept(s string) bool {
	if p.isSymbol(s) {
		p.i++
		return true
	}
	return false
}

func (p *parser) acceptWord(w string) bool {
	if p.isWord(w) {
		p.i++
		return true
	}
	return false
}

func (p *parser) acceptWords(ws ...string) bool {
	if p.isWords(ws...) {
		p.i += len(ws)
		return true
	}
	return false
}

func (p *parser) words(ws ...string) error {
	for _, w := range ws {
		if !p.acceptWord(w) {
			return p.expected(w, w)
		}
	}
	return nil
}

func (p *parser) symbol(s, where string) error {
	if !p.accept(s) {
		return p.expected(strings.TrimSpace(s + " " + where))
	}
	return nil
}

// choice takes one of the keywords.
func (p *parser) choice(ws ...string) (string, error) {
	for _, w := range ws {
		if p.acceptWord(w) {
			return w, nil
		}
	}
	return "", p.expected(orList(ws), ws...)
}

func orList(ws []string) string {
	if len(ws) < 2 {
		return strings.Join(ws, "")
	}
	return strings.Join(ws[:len(ws)-1], ", ") + " or " + ws[len(ws)-1]
}

// list reads items separated by commas.
func (p *parser) list(item func() error) error {
	for {
		if err := item(); err != nil {
			return err
		}
		if !p.accept(",") {
			return nil
		}
	}
}

// parens reads items separated by commas, in parentheses.
func (p *parser) parens(where string, item func() error) error {
	if err := p.symbol("(", where); err != nil {
		return err
	}
	if err := p.list(item); err != nil {
		return err
	}
	return p.closing()
}

func (p *parser) closing() error {
	if !p.accept(")") {
		return p.expected(", or )")
	}
	return nil
}

// ident reads a name.
func (p *parser) ident(what string) (Ident, error) {
	t := p.peek()
	if t.kind == quoted || t.kind == word && !reserved(t.text) {
		p.i++
		return Ident{t.text, t.pos}, nil
	}
	return Ident{}, p.noName(what)
}

// anyIdent reads a name where no keyword can stand.
func (p *parser) anyIdent(what string) (Ident, error) {
	if t := p.peek(); t.kind == quoted || t.kind == word {
		p.i++
		return Ident{t.text, t.pos}, nil
	}
	return Ident{}, p.noName(what)
}

// name reads a name with its qualifiers.
func (p *parser) name(what string) (Name, error) {
	first, err := p.ident(what)
	if err != nil {
		return nil, err
	}
	n := Name{first}
	for p.accept(".") {
		part, err := p.anyIdent("a name after the dot")
		if err != nil {
			return nil, err
		}
		n = append(n, part)
	}
	return n, nil
}

// idents reads names in parentheses.
func (p *parser) idents(what string) ([]Ident, error) {
	var out []Ident
	err := p.parens("before "+what, func() error {
		id, err := p.ident(what)
		out = append(out, id)
		return err
	})
	return out, err
}

func (p *parser) literal(what string) (Literal, error) {
	t := p.peek()
	if t.kind == str {
		p.i++
		return Literal{t.text, t.pos}, nil
	}
	e := p.expected(what + " in single quotes")
	if t.kind == quoted {
		e.Hint = "double quotes and backticks make names; strings take single quotes"
	}
	return Literal{}, e
}

func (p *parser) literals(what string) ([]Literal, error) {
	var out []Literal
	for {
		l, err := p.literal(what)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
		if !p.accept(",") {
			return out, nil
		}
	}
}

// options reads WITH ('key' = 'value', ..).
func (p *parser) options() ([]Property, error) {
	if err := p.words("WITH"); err != nil {
		return nil, err
	}
	return p.optionList("WITH")
}

func (p *parser) optionList(after string) ([]Property, error) {
	if !p.accept("(") {
		return nil, p.expected("( after " + after)
	}
	var out []Property
	for {
		key, err := p.literal("an option's key")
		if err != nil {
			return nil, err
		}
		for _, other := range out {
			if other.Key.Text == key.Text {
				return nil, p.lex.errorAt(key.Pos, "option '%s' is given twice", clip(key.Text))
			}
		}
		if !p.accept("=") {
			return nil, p.expected("= after the key")
		}
		value, err := p.literal("the option's value")
		if err != nil {
			return nil, err
		}
		out = append(out, Property{key, value})
		if p.accept(")") {
			return out, nil
		}
		if !p.accept(",") {
			return nil, p.expected(", or ) in the options")
		}
	}
}
