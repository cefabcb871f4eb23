package parser

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/weirstream/weir/internal/errs"
)

// MaxBytes bounds a script. A file larger than that is data, not SQL.
const MaxBytes = 4 << 20

// Pos is a place in the text. Line and Column count from 1, Column in runes.
type Pos struct {
	Offset int
	Line   int
	Column int
}

type kind uint8

const (
	end    kind = iota
	word        // unquoted: a keyword or an identifier
	quoted      // "x" or `x`, unescaped
	str         // 'x', U&'x' or E'x', unescaped
	hexed       // X'00', the digits
	number
	param  // $1, the digits
	symbol // one character, one of the two-character operators, or /*+ and */ around hints
)

type token struct {
	kind kind
	text string
	pos  Pos
}

// lexer cuts the text of one script into tokens.
type lexer struct {
	file   string
	text   string
	at     Pos
	inHint *Pos // where the hint that is open begins
}

func (l *lexer) errorAt(p Pos, format string, args ...any) *errs.Error {
	return errs.New(errs.SQLSyntax, format, args...).At(l.position(p))
}

// position is p as the error record shows it. Tabs become single spaces, so that the caret stands below its column.
func (l *lexer) position(p Pos) errs.Position {
	start := strings.LastIndexByte(l.text[:p.Offset], '\n') + 1
	line, _, _ := strings.Cut(l.text[start:], "\n")
	line = maskPasswords(strings.ReplaceAll(strings.TrimRight(line, "\r"), "\t", " "))
	if utf8.RuneCountInString(line) > 400 {
		line = "" // a line that long would fill the screen and hide the message
	}
	return errs.Position{File: l.file, Line: p.Line, Column: p.Column, Source: line}
}

// maskPasswords keeps what an error shows of a line free of passwords, character by character, so that the caret stays
// right. It may mask too much; the user has the file.
func maskPasswords(line string) string {
	for _, r := range []*regexp.Regexp{
		regexp.MustCompile(`(?://|postgres(?:ql)?:/?)[^:@/\s]*:(.*)@`), // the slashes may be forgotten
		regexp.MustCompile(`(?i)(?:password|secret|token)'?\s*=\s*'?([^&'\s]+)`),
	} {
		for _, m := range r.FindAllStringSubmatchIndex(line, -1) {
			line = line[:m[2]] + strings.Repeat("*", utf8.RuneCountInString(line[m[2]:m[3]])) + line[m[3]:]
		}
	}
	return line
}

// tokens reads the whole text. The last token is an end.
func (l *lexer) tokens() ([]token, error) {
	l.at = Pos{0, 1, 1}
	if len(l.text) > MaxBytes {
		return nil, errs.New(errs.SQLSyntax, "%s has %d bytes; the limit is %d", l.file, len(l.text), MaxBytes)
	}
	l.text = strings.TrimPrefix(l.text, "\ufeff")
	var out []token
	for {
		t, err := l.next()
		if err != nil {
			return nil, err
		}
		out = append(out, t)
		if t.kind == end {
			return out, nil
		}
	}
}

func (l *lexer) peek() rune {
	if l.at.Offset >= len(l.text) {
		return -1
	}
	r, _ := utf8.DecodeRuneInString(l.text[l.at.Offset:])
	return r
}

func (l *lexer) has(prefix string) bool { return strings.HasPrefix(l.text[l.at.Offset:], prefix) }

func (l *lexer) step() rune {
	r, size := utf8.DecodeRuneInString(l.text[l.at.Offset:])
	l.at.Offset += size
	l.at.Column++
	if r == '\n' {
		l.at.Line++
		l.at.Column = 1
	}
	return r
}

func (l *lexer) next() (token, error) {
	if err := l.skip(); err != nil {
		return token{}, err
	}
	start := l.at
	text := func() string { return l.text[start.Offset:l.at.Offset] }
	switch r := l.peek(); {
	case r == -1:
		if l.inHint != nil {
			return token{}, l.errorAt(*l.inHint, "a hint has no end").WithHint("close it with */")
		}
		return token{end, "", start}, nil
	case r == '\'':
		s, err := l.delimited("string")
		return token{str, s, start}, err
	case r == '"' || r == '`':
		s, err := l.delimited("identifier")
		if err == nil && s == "" {
			err = l.errorAt(start, "an identifier is empty")
		}
		return token{quoted, s, start}, err
	case l.prefixed(r):
		return l.prefixedString(start)
	case isWordStart(r):
		for isWordStart(l.peek()) || unicode.IsDigit(l.peek()) || l.peek() == '$' {
			l.step()
		}
		return token{word, text(), start}, nil
	case isDigit(r) || r == '.' && l.at.Offset+1 < len(l.text) && isDigit(rune(l.text[l.at.Offset+1])):
		l.number()
		if isWordStart(l.peek()) {
			for isWordStart(l.peek()) || unicode.IsDigit(l.peek()) {
				l.step()
			}
			return token{}, l.errorAt(start, "%s is neither a number nor a name", clip(text())).
				WithHint("a name that begins with a digit is written %s", quoteIdent(clip(text())))
		}
		return token{number, text(), start}, nil
	case r == '$' && l.at.Offset+1 < len(l.text) && isDigit(rune(l.text[l.at.Offset+1])):
		l.step()
		for isDigit(l.peek()) {
			l.step()
		}
		return token{param, text()[1:], start}, nil
	case l.inHint == nil && l.has("/*+"):
		l.inHint = &start
		l.step()
		l.step()
		l.step()
		return token{symbol, "/*+", start}, nil
	case l.inHint != nil && l.has("*/"):
		l.inHint = nil
		l.step()
		l.step()
		return token{symbol, "*/", start}, nil
	case r == utf8.RuneError || r < ' ' || r == 0x7f:
		return token{}, l.errorAt(start, "the character U+%04X cannot stand here", r).
			WithHint("the file must be UTF-8 text")
	case strings.ContainsRune("\u2018\u2019\u201c\u201d", r):
		return token{}, l.errorAt(start, "%q is a typographic quote", r).WithHint("strings take the plain quote: 'text'")
	default:
		for _, two := range []string{"<=", ">=", "<>", "!=", "||", "::", "=>", "->"} {
			if l.has(two) {
				l.step()
				l.step()
				return token{symbol, two, start}, nil
			}
		}
		l.step()
		return token{symbol, text(), start}, nil
	}
}

// skip passes white space and comments. Block comments do not nest, as in Flink.
func (l *lexer) skip() error {
	for {
		switch {
		case l.peek() != -1 && unicode.IsSpace(l.peek()):
			l.step()
		case l.has("--"):
			for l.peek() != -1 && l.peek() != '\n' {
				l.step()
			}
		case l.has("/*") && !(l.inHint == nil && l.has("/*+")):
			start := l.at
			l.step()
			l.step()
			for !l.has("*/") {
				if l.peek() == -1 {
					return l.errorAt(start, "a comment has no end").WithHint("close it with */")
				}
				l.step()
			}
			l.step()
			l.step()
		default:
			return nil
		}
	}
}

// delimited reads a text between two equal quotes, inside of which the quote is doubled.
func (l *lexer) delimited(what string) (string, error) {
	start := l.at
	quote := l.step()
	var b strings.Builder
	for {
		r := l.peek()
		if r == -1 {
			return "", l.errorAt(start, "the %s that begins here has no end", what).
				WithHint("close it with %c; inside, the quote is written twice", quote)
		}
		at := l.at
		l.step()
		switch {
		case r == quote && l.peek() == quote:
			l.step()
		case r == quote:
			return b.String(), nil
		case r == utf8.RuneError && l.at.Offset-at.Offset == 1 || r == 0:
			return "", l.errorAt(at, "the %s holds a byte that is not UTF-8 text", what)
		}
		b.WriteRune(r)
	}
}

func (l *lexer) number() {
	digits := func() {
		for isDigit(l.peek()) {
			l.step()
		}
	}
	digits()
	if l.peek() == '.' {
		l.step()
		digits()
	}
	if r := l.peek(); r == 'e' || r == 'E' {
		rest := l.text[l.at.Offset+1:]
		if rest != "" && (rest[0] == '+' || rest[0] == '-') {
			rest = rest[1:]
		}
		if rest != "" && isDigit(rune(rest[0])) {
			l.step()
			l.step()
			digits()
		}
	}
}

func isDigit(r rune) bool     { return '0' <= r && r <= '9' }
func isWordStart(r rune) bool { return r == '_' || unicode.IsLetter(r) }
