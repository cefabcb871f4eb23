package parser

import (
	"fmt"
	"strings"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
)

// Parse reads a script. The error is one record: that of the first place that is wrong.
func Parse(file, text string) (*Script, error) {
	lex := &lexer{file: file, text: text}
	tokens, err := lex.tokens()
	if err != nil {
		return nil, err
	}
	p := &parser{lex: lex, tokens: tokens}
	script := &Script{File: file}
	for {
		for p.accept(";") {
		}
		if p.peek().kind == end {
			return script, nil
		}
		s, err := p.statement()
		if err != nil {
			return nil, err
		}
		script.Statements = append(script.Statements, s)
		if t := p.peek(); t.kind != end && !p.isSymbol(";") {
			return nil, p.expected("; at the end of the statement")
		}
	}
}

// Locate is a place as the error record shows it, for checks that come after parsing.
func Locate(file, text string, at Pos) errs.Position {
	return (&lexer{file: file, text: strings.TrimPrefix(text, "\ufeff")}).position(at)
}

type parser struct {
	lex    *lexer
	tokens []token
	i      int
}

func (p *parser) peek() token { return p.tokens[p.i] }

func (p *parser) take() token {
	t := p.tokens[p.i]
	if t.kind != end {
		p.i++
	}
	return t
}

func (p *parser) isWord(w string) bool {
	t := p.peek()
	return t.kind == word && strings.EqualFold(t.text, w)
}

func (p *parser) isSymbol(s string) bool {
	t := p.peek()
	return t.kind == symbol && t.text == s
}

// accept takes the symbol if it is next, acceptWord the keyword.
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

// expected is the error at the next token. Keywords among what was expected serve as spelling suggestions.
func (p *parser) expected(what string, keywords ...string) *errs.Error {
	t := p.peek()
	e := p.lex.errorAt(t.pos, "expected %s, found %s", what, describe(t))
	if t.kind == word {
		if near := nearest.Of(t.text, keywords); near != "" {
			return e.WithHint("did you mean %s?", near)
		}
	}
	return e
}

func describe(t token) string {
	switch t.kind {
	case end:
		return "the end of the file"
	case str:
		if strings.ContainsAny(t.text, "@=") { // it may hold a password
			return "a string"
		}
		return "the string '" + clip(t.text) + "'"
	case quoted:
		return "the identifier " + quoteIdent(clip(t.text))
	default:
		return clip(t.text)
	}
}

func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}

func (p *parser) words(ws ...string) error {
	for _, w := range ws {
		if !p.acceptWord(w) {
			return p.expected(w, w)
		}
	}
	return nil
}

// clauses begin the parts of CREATE MIRROR; unquoted they are never names, so that a forgotten name is told as such.
var clauses = [...]string{"FROM", "TO", "TABLES", "EXCEPT", "ROUTE", "EXCLUDE", "WHERE", "WITH"}

func isClause(text string) bool {
	for _, c := range clauses {
		if strings.EqualFold(c, text) {
			return true
		}
	}
	return false
}

func (p *parser) ident(what string) (Ident, error) {
	t := p.peek()
	if t.kind == quoted || t.kind == word && !isClause(t.text) {
		p.i++
		return Ident{t.text, t.pos}, nil
	}
	e := p.expected(what)
	if t.kind == word {
		e.Hint = fmt.Sprintf("%s is missing before %s; a name that is also a keyword is written \"%s\"", what, strings.ToUpper(t.text), t.text)
	} else if t.kind == str {
		e.Hint = fmt.Sprintf("names are not strings: write %s", quoteIdent(clip(t.text)))
	}
	return Ident{}, e
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

func (p *parser) statement() (Statement, error) {
	t := p.peek()
	switch {
	case p.isWord("SET"):
		return p.set()
	case p.isWord("CREATE"):
		p.i++
		switch {
		case p.isWord("CONNECTION"):
			p.i++
			return p.createConnection(t.pos)
		case p.isWord("MIRROR"):
			p.i++
			return p.createMirror(t.pos)
		}
		return nil, p.notBuilt(t, "CREATE", createObjects())
	}
	return nil, p.notBuilt(t, "", firstWords())
}

// notBuilt tells a statement of Flink's that is not built yet from a mistake.
func (p *parser) notBuilt(first token, verb string, known []string) error {
	t := p.peek()
	name := strings.ToUpper(t.text)
	for _, k := range known {
		if t.kind == word && name == k {
			if verb == "" && name == "DROP" || verb == "" && name == "ALTER" || verb == "" && name == "EXECUTE" {
				if next := p.tokens[min(p.i+1, len(p.tokens)-1)]; next.kind == word {
					name += " " + strings.ToUpper(next.text)
				}
			}
			if verb != "" {
				name = verb + " " + name
			}
			return errs.New(errs.SQLNotBuilt, "%s is not built yet", name).At(p.lex.position(first.pos)).
				WithHint("this release runs CREATE CONNECTION, CREATE MIRROR and SET")
		}
	}
	if verb != "" {
		return p.expected("CONNECTION or MIRROR after CREATE", append([]string{"CONNECTION", "MIRROR"}, known...)...)
	}
	return p.expected("a statement", append([]string{"CREATE", "SET"}, known...)...)
}

func createObjects() []string {
	return []string{"TABLE", "VIEW", "MATERIALIZED", "TEMPORARY", "FUNCTION", "CATALOG", "DATABASE", "MODEL", "OR", "SYSTEM", "SOURCE", "SINK", "INDEX"}
}

func firstWords() []string {
	return []string{"ADD", "ALTER", "ANALYZE", "BEGIN", "CALL", "CHECKPOINT", "COMPILE", "DELETE", "DESC", "DESCRIBE", "DROP", "END", "EXECUTE",
		"EXPLAIN", "INSERT", "LOAD", "REMOVE", "REPLACE", "RESET", "SELECT", "SHOW", "STOP", "SUBSCRIBE", "TRUNCATE", "UNLOAD", "UPDATE", "USE", "VALUES", "WITH"}
}

func (p *parser) set() (Statement, error) {
	s := &Set{Pos: p.take().pos}
	var err error
	if s.Key, err = p.literal("an option's key"); err != nil {
		return nil, err
	}
	if !p.accept("=") {
		return nil, p.expected("=")
	}
	if s.Value, err = p.literal("the option's value"); err != nil {
		return nil, err
	}
	return s, nil
}

func (p *parser) createConnection(at Pos) (Statement, error) {
	s := &CreateConnection{Pos: at}
	var err error
	if s.Name, err = p.ident("the connection's name"); err != nil {
		return nil, err
	}
	if !p.isWord("WITH") {
		return nil, p.expected("WITH ('url' = '...')", "WITH")
	}
	s.Properties, err = p.with()
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (p *parser) with() ([]Property, error) {
	if err := p.words("WITH"); err != nil {
		return nil, err
	}
	if !p.accept("(") {
		return nil, p.expected("( after WITH")
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

func (p *parser) endpoint(what string) (Endpoint, error) {
	if p.peek().kind == str {
		t := p.take()
		if t.text == "" {
			return Endpoint{}, p.lex.errorAt(t.pos, "the %s's URL is empty", what)
		}
		return Endpoint{URL: Literal{t.text, t.pos}}, nil
	}
	name, err := p.ident("the " + what + "'s connection or its URL")
	return Endpoint{Name: name}, err
}

func (p *parser) createMirror(at Pos) (Statement, error) {
	s := &CreateMirror{Pos: at}
	var err error
	if s.Name, err = p.ident("the mirror's name"); err != nil {
		return nil, err
	}
	if err := p.words("FROM"); err != nil {
		return nil, err
	}
	if s.From, err = p.endpoint("source"); err != nil {
		return nil, err
	}
	if err := p.words("TO"); err != nil {
		return nil, err
	}
	if s.To, err = p.endpoint("target"); err != nil {
		return nil, err
	}
	if p.isSymbol(",") {
		return nil, errs.New(errs.SQLNotBuilt, "a mirror with several targets is not built yet").At(p.lex.position(p.peek().pos)).
			WithHint("create one mirror for each target")
	}
	for {
		done, err := p.clause(s)
		if err != nil || done {
			return s, err
		}
	}
}

// clause reads one optional part. They come in any order; those that are lists come once, so that a second one is not
// taken for an override.
func (p *parser) clause(s *CreateMirror) (done bool, err error) {
	once := func(given bool, name string) error {
		if given {
			return p.lex.errorAt(p.peek().pos, "%s is given twice", name).WithHint("separate several entries by commas")
		}
		return nil
	}
	switch {
	case p.isWord("TABLES"):
		if err = once(s.Tables != nil, "TABLES"); err == nil {
			p.i++
			s.Tables, err = p.literals("a pattern of tables")
		}
	case p.isWord("EXCEPT"):
		if err = once(s.Except != nil, "EXCEPT"); err == nil {
			p.i++
			s.Except, err = p.literals("a pattern of tables")
		}
	case p.isWord("EXCLUDE"):
		if err = once(s.ExcludeColumns != nil, "EXCLUDE COLUMNS"); err == nil {
			if err = p.words("EXCLUDE", "COLUMNS"); err == nil {
				s.ExcludeColumns, err = p.literals("a pattern of columns")
			}
		}
	case p.isWord("ROUTE"):
		p.i++
		err = p.routes(s)
	case p.isWord("WHERE"):
		p.i++
		err = p.filters(s)
	case p.isWord("WITH"):
		if err = once(s.Properties != nil, "WITH"); err == nil {
			s.Properties, err = p.with()
		}
	case p.peek().kind == end || p.isSymbol(";"):
		return true, nil
	default:
		err = p.expected("a clause or ;", clauses[2:]...)
	}
	return false, err
}

func (p *parser) routes(s *CreateMirror) error {
	for {
		from, err := p.literal("a pattern of tables")
		if err != nil {
			return err
		}
		if err := p.words("TO"); err != nil {
			return err
		}
		to, err := p.literal("the target's pattern")
		if err != nil {
			return err
		}
		s.Routes = append(s.Routes, Route{from, to})
		if !p.accept(",") {
			return nil
		}
	}
}

func (p *parser) filters(s *CreateMirror) error {
	for {
		if err := p.words("TABLE"); err != nil {
			return err
		}
		table, err := p.literal("a pattern of tables")
		if err != nil {
			return err
		}
		if err := p.words("IS"); err != nil {
			return err
		}
		where, err := p.literal("the condition")
		if err != nil {
			return err
		}
		s.Filters = append(s.Filters, Filter{table, where})
		if !p.accept(",") {
			return nil
		}
	}
}
