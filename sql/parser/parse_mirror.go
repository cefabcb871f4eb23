package parser

import (
	"fmt"
	"strings"

	"github.com/weirstream/weir/internal/errs"
)

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

// mirrorIdent is ident with the clauses of CREATE MIRROR reserved.
func (p *parser) mirrorIdent(what string) (Ident, error) {
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

func (p *parser) createConnection(at Pos) (Statement, error) {
	s := &CreateConnection{Pos: at}
	var err error
	if s.Name, err = p.mirrorIdent("the connection's name"); err != nil {
		return nil, err
	}
	if !p.isWord("WITH") {
		return nil, p.expected("WITH ('url' = '...')", "WITH")
	}
	s.Properties, err = p.options()
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (p *parser) endpoint(what string) (Endpoint, error) {
	if p.peek().kind == str {
		t := p.take()
		if t.text == "" {
			return Endpoint{}, p.lex.errorAt(t.pos, "the %s's URL is empty", what)
		}
		return Endpoint{URL: Literal{t.text, t.pos}}, nil
	}
	name, err := p.mirrorIdent("the " + what + "'s connection or its URL")
	return Endpoint{Name: name}, err
}

func (p *parser) createMirror(at Pos) (Statement, error) {
	s := &CreateMirror{Pos: at}
	var err error
	if s.Name, err = p.mirrorIdent("the mirror's name"); err != nil {
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
			s.Properties, err = p.options()
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
