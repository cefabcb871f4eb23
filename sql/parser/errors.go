package parser

import (
	"strings"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
)

// expected is the error at the next token. Keywords among what was expected serve as spelling suggestions; other
// frequent mistakes are recognized by what stands around the token.
func (p *parser) expected(what string, keywords ...string) *errs.Error {
	t := p.peek()
	e := p.lex.errorAt(t.pos, "expected %s, found %s", what, describe(t))
	before := token{kind: end}
	if p.i > 0 {
		before = p.tokens[p.i-1]
	}
	if t.kind == word && !reserved(t.text) {
		if near := nearest.Of(t.text, keywords); near != "" && !strings.EqualFold(near, t.text) {
			return e.WithHint("did you mean %s?", near)
		}
	}
	if p.alias == p.i && before.kind == word && !oneOf(before.text, firstWords()) {
		if near := nearest.Of(before.text, clauseWords()); near != "" && len(before.text) > 2 {
			return e.WithHint("did you mean %s instead of %s?", near, clip(before.text))
		}
	}
	adjacent := before.pos.Offset+len(before.text) == t.pos.Offset
	switch {
	case t.isSymbol("=") && before.isSymbol("=") && adjacent:
		return e.WithHint("equality is written with one =")
	case t.isSymbol("&") && p.ahead(1).isSymbol("&"):
		return e.WithHint("write AND")
	case t.isSymbol("/*+"):
		return e.WithHint("hints stand after SELECT or after a table's name; a comment begins with /* and a space")
	case before.isSymbol(",") && (t.isSymbol(")") || t.isSymbol(";") || t.kind == end || t.kind == word && reserved(t.text)):
		return e.WithHint("there is a comma too many before %s", describe(t))
	case strings.Contains(what, ", or )") && (t.kind == word && !reserved(t.text) || t.kind == quoted || t.kind == str || t.kind == number):
		return e.WithHint("a comma may be missing before %s", describe(t))
	}
	return e
}

// noName is the error where a name should stand.
func (p *parser) noName(what string) *errs.Error {
	t := p.peek()
	e := p.expected(what)
	if e.Hint != "" {
		return e
	}
	switch t.kind {
	case word:
		return e.WithHint("%s is a keyword; as a name it is quoted with backticks: `%s`", strings.ToUpper(t.text), t.text)
	case str:
		return e.WithHint("names are not strings: write %s", quoteIdent(clip(t.text)))
	}
	return e
}

// notEnded is the error behind a statement.
func (p *parser) notEnded() *errs.Error {
	t := p.peek()
	// The first word of the next statement may have been taken for an alias.
	if before := p.tokens[max(p.i-1, 0)]; p.alias == p.i && before.kind == word && oneOf(before.text, firstWords()) && t.kind == word {
		t = before
		p.i--
	}
	e := p.expected("; at the end of the statement", clauseWords()...)
	switch {
	case t.kind == word && oneOf(t.text, firstWords()) && !t.isWord("WITH"):
		e.Hint = "statements are separated by semicolons: put one before " + strings.ToUpper(t.text)
	case e.Hint == "" && p.alias == p.i && (t.kind == word && !reserved(t.text) || t.kind == quoted || t.kind == number || t.kind == str):
		e.Hint = "a comma may be missing before " + describe(t)
	}
	return e
}

// fail is an error at a place that is not the next token's.
func (p *parser) fail(at Pos, format string, args ...any) *errs.Error {
	return p.lex.errorAt(at, format, args...)
}

// notBuilt tells a statement of Flink's that is not built yet from a mistake.
func (p *parser) notBuilt(at Pos, name string) *errs.Error {
	return errs.New(errs.SQLNotBuilt, "%s is not built yet", name).At(p.lex.position(at)).
		WithHint("CHANGELOG.md says what each release brings")
}

// describe is a token as errors show it.
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
	case hexed:
		return "the string X'" + clip(t.text) + "'"
	case param:
		return "$" + clip(t.text)
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
