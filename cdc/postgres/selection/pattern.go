package selection

import (
	"regexp"
	"strings"

	"github.com/weirstream/weir/internal/errs"
)

// sep stands between the parts of a name while it is matched. No name in Postgres holds a NUL byte.
const sep = "\x00"

// pattern is one glob: parts separated by dots, each with literal text and wildcards.
type pattern struct {
	text    string // as the user wrote it
	match   *regexp.Regexp
	stars   []int    // stars of each part
	literal []string // the parts, when none has a wildcard; else nil
}

// matches returns what the stars stand for.
func (p *pattern) matches(parts ...string) (stars []string, ok bool) {
	m := p.match.FindStringSubmatch(strings.Join(parts, sep))
	if m == nil {
		return nil, false
	}
	return m[1:], true
}

// scanner reads a list of patterns rune by rune, so that an error can point at the place.
type scanner struct {
	option string // where the user wrote it: "tables"
	text   string
	runes  []rune
	pos    int
}

func newScanner(option, text string) *scanner {
	return &scanner{option: option, text: text, runes: []rune(text)}
}

func (s *scanner) fail(at int, hint, format string, args ...any) error {
	e := errs.New(errs.BadPattern, format, args...).
		At(errs.Position{File: s.option, Line: 1, Column: at + 1, Source: s.text})
	if hint != "" {
		e.WithHint("%s", hint)
	}
	return e
}

func (s *scanner) spaces() {
	for s.pos < len(s.runes) && strings.ContainsRune(" \t\r\n", s.runes[s.pos]) {
		s.pos++
	}
}

// list reads patterns separated by commas. Each has the given number of parts.
func (s *scanner) list(parts int) ([]*pattern, error) {
	var out []*pattern
	for {
		p, err := s.pattern(parts)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
		if s.pos == len(s.runes) {
			return out, nil
		}
		s.pos++ // the comma
	}
}

// one reads a single pattern.
func (s *scanner) one(parts int) (*pattern, error) {
	p, err := s.pattern(parts)
	if err == nil && s.pos < len(s.runes) {
		return nil, s.fail(s.pos, `write a name that holds a comma in quotes: "a,b"`, "only one pattern can stand here")
	}
	return p, err
}

// partBuilder collects one part.
type partBuilder struct {
	re    strings.Builder
	plain strings.Builder
	stars int
	wild  bool
	any   bool // something was read, if only ""
}

// pattern reads up to a comma or the end.
func (s *scanner) pattern(want int) (*pattern, error) {
	s.spaces()
	start := s.pos
	var parts []*partBuilder
	part := &partBuilder{}
	for {
		if s.pos == len(s.runes) || s.runes[s.pos] == ',' || s.runes[s.pos] == '.' {
			if !part.any {
				return nil, s.fail(s.pos, "", "a name is missing here")
			}
			parts = append(parts, part)
			part = &partBuilder{}
			if s.pos == len(s.runes) || s.runes[s.pos] == ',' {
				break
			}
			s.pos++
			continue
		}
		if err := s.piece(part); err != nil {
			return nil, err
		}
	}
	text := strings.TrimSpace(string(s.runes[start:s.pos]))
	if len(parts) == 1 && text == "*" && want == 2 {
		parts = append(parts, parts[0]) // a lone star means everything
	}
	if len(parts) != want {
		return nil, s.wrongParts(start, text, len(parts), want)
	}
	return build(text, parts)
}

func (s *scanner) wrongParts(start int, text string, have, want int) error {
	switch {
	case want == 2 && have == 1:
		return s.fail(start, "write public."+text+", or *."+text+" for every schema", "pattern %s names no schema", text)
	case want == 2:
		return s.fail(start, QuoteHint(text), "pattern %s has %d parts, want schema.table", text, have)
	}
	return s.fail(start, `write schema.table.column, with a name that holds a dot in quotes`, "pattern %s has %d parts, want schema.table.column", text, have)
}

// QuoteHint is the hint for a pattern with too many dots. Where they can be shared out in several ways, it shows that either
// part can hold one.
func QuoteHint(text string) string {
	parts := strings.Split(text, ".")
	if len(parts) > 3 && !strings.ContainsAny(text, `"*?[`) {
		half := len(parts) / 2
		return `write names that hold a dot in quotes, such as "` + strings.Join(parts[:half], ".") + `"."` + strings.Join(parts[half:], ".") + `"`
	}
	return `write a name that holds a dot in quotes: public."a.b", "a.b".c`
}

// piece reads a wildcard, a quoted text or one plain character.
func (s *scanner) piece(p *partBuilder) error {
	p.any = true
	r := s.runes[s.pos]
	switch r {
	case '*':
		p.re.WriteString("([^" + sep + "]*)")
		p.stars++
		p.wild = true
	case '?':
		p.re.WriteString("[^" + sep + "]")
		p.wild = true
	case '[':
		return s.class(p)
	case '"':
		return s.quoted(p)
	case ' ', '\t', '\r', '\n':
		// Space ends a pattern; inside a name it has to be quoted, or a forgotten comma would pass for one.
		at := s.pos
		s.spaces()
		if s.pos == len(s.runes) || s.runes[s.pos] == ',' {
			return nil
		}
		return s.fail(at, `separate patterns by commas; write a name that holds a space in quotes: "a b"`, "a space ends the pattern, and no comma follows")
	default:
		p.re.WriteString(regexp.QuoteMeta(string(r)))
		p.plain.WriteRune(r)
	}
	s.pos++
	return nil
}

// quoted reads "…", in which nothing but a doubled quote is special.
func (s *scanner) quoted(p *partBuilder) error {
	at := s.pos
	for s.pos++; s.pos < len(s.runes); s.pos++ {
		r := s.runes[s.pos]
		if r == '"' {
			if s.pos+1 == len(s.runes) || s.runes[s.pos+1] != '"' {
				s.pos++
				return nil
			}
			s.pos++
		}
		p.re.WriteString(regexp.QuoteMeta(string(r)))
		p.plain.WriteRune(r)
	}
	return s.fail(at, "", "the quote is not closed")
}

// class reads [abc], [a-z], [!a-z]; a ] right after the [ is a member.
func (s *scanner) class(p *partBuilder) error {
	at := s.pos
	s.pos++
	var re strings.Builder
	re.WriteString("[")
	if s.pos < len(s.runes) && (s.runes[s.pos] == '!' || s.runes[s.pos] == '^') {
		re.WriteString("^" + sep)
		s.pos++
	}
	for first := true; s.pos < len(s.runes); first = false {
		r := s.runes[s.pos]
		if r == ']' && !first {
			s.pos++
			p.re.WriteString(re.String() + "]")
			p.wild = true
			return nil
		}
		re.WriteString(classRune(r))
		s.pos++
		if s.pos+1 < len(s.runes) && s.runes[s.pos] == '-' && s.runes[s.pos+1] != ']' {
			to := s.runes[s.pos+1]
			if to < r {
				return s.fail(s.pos-1, "", "the range %c-%c runs backwards", r, to)
			}
			re.WriteString("-" + classRune(to))
			s.pos += 2
		}
	}
	return s.fail(at, `write a [ that is part of a name in quotes: "["`, "the [ has no ]")
}

func classRune(r rune) string {
	if strings.ContainsRune(`\]^-[&~`, r) {
		return `\` + string(r)
	}
	return string(r)
}

func build(text string, parts []*partBuilder) (*pattern, error) {
	p := &pattern{text: text}
	var res []string
	wild := false
	for _, part := range parts {
		res = append(res, part.re.String())
		p.stars = append(p.stars, part.stars)
		p.literal = append(p.literal, part.plain.String())
		wild = wild || part.wild
	}
	if wild {
		p.literal = nil
	}
	re, err := regexp.Compile("(?s)^" + strings.Join(res, sep) + "$")
	if err != nil {
		return nil, errs.New(errs.BadPattern, "pattern %s cannot be used: %w", text, err)
	}
	p.match = re
	return p, nil
}
