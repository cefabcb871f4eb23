package expr

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weirstream/weir/internal/errs"
)

// jsonPath is an SQL/JSON path: $, members, elements and wildcards. In lax mode, the default, what is not there is no
// error and an array in the place of an object stands for its elements.
type jsonPath struct {
	strict bool
	steps  []jsonStep
}

// jsonStep goes from a value to one or all of its parts.
type jsonStep struct {
	member string
	index  int
	array  bool // an element, not a member
	all    bool
}

func parseJSONPath(s string) (*jsonPath, error) {
	bad := func(at int) error {
		return errs.New(errs.EvalArgument, "'%s' is no JSON path from its character %d on", s, at+1).WithHint("a path is like $.name[0]['other name'].*")
	}
	p := &jsonPath{}
	i := 0
	word := strings.TrimLeft(s, " ")
	switch {
	case strings.HasPrefix(word, "strict "):
		p.strict = true
		word = word[len("strict "):]
	case strings.HasPrefix(word, "lax "):
		word = word[len("lax "):]
	}
	i = len(s) - len(strings.TrimLeft(word, " "))
	s = strings.TrimRight(s, " ")
	if i >= len(s) || s[i] != '$' {
		return nil, bad(i)
	}
	for i++; i < len(s); {
		switch {
		case s[i] == '.' && i+1 < len(s) && s[i+1] == '*':
			p.steps = append(p.steps, jsonStep{all: true})
			i += 2
		case s[i] == '.':
			begin := i + 1
			if begin < len(s) && s[begin] == '"' {
				end := strings.IndexByte(s[begin+1:], '"')
				if end < 0 {
					return nil, bad(begin)
				}
				p.steps = append(p.steps, jsonStep{member: s[begin+1 : begin+1+end]})
				i = begin + end + 2
				continue
			}
			for i = begin; i < len(s) && s[i] != '.' && s[i] != '[' && s[i] != ' '; i++ {
			}
			if i == begin {
				return nil, bad(i)
			}
			p.steps = append(p.steps, jsonStep{member: s[begin:i]})
		case s[i] == '[':
			end := strings.IndexByte(s[i:], ']')
			if i+1 < len(s) && (s[i+1] == '\'' || s[i+1] == '"') {
				q := s[i+1]
				if end = strings.Index(s[i:], string(q)+"]"); end < 2 {
					return nil, bad(i)
				}
				p.steps = append(p.steps, jsonStep{member: s[i+2 : i+end]})
				i += end + 2
				continue
			}
			if end < 0 {
				return nil, bad(i)
			}
			inner := strings.TrimSpace(s[i+1 : i+end])
			if inner == "*" {
				p.steps = append(p.steps, jsonStep{array: true, all: true})
			} else {
				n, err := strconv.Atoi(inner)
				if err != nil || n < 0 {
					return nil, bad(i + 1)
				}
				p.steps = append(p.steps, jsonStep{array: true, index: n})
			}
			i += end + 1
		default:
			return nil, bad(i)
		}
	}
	return p, nil
}

// jsonSpan is a value inside a text.
type jsonSpan struct{ begin, end int }

// find appends the values that the path leads to, in b, which is valid JSON. It is false if strict mode has an error.
func (p *jsonPath) find(b []byte, out []jsonSpan) ([]jsonSpan, bool) {
	at := skipSpace(b, 0)
	return p.walk(b, jsonSpan{at, skipValue(b, at)}, p.steps, out)
}

func (p *jsonPath) walk(b []byte, v jsonSpan, steps []jsonStep, out []jsonSpan) ([]jsonSpan, bool) {
	if len(steps) == 0 {
		return append(out, v), true
	}
	step := steps[0]
	c := b[v.begin]
	ok := true
	switch {
	case step.array && c == '[':
		n := 0
		found := false
		eachElement(b, v, func(e jsonSpan) bool {
			if step.all || n == step.index {
				var fine bool
				out, fine = p.walk(b, e, steps[1:], out)
				ok, found = ok && fine, true
			}
			n++
			return step.all || !found
		})
		return out, ok && (found || step.all || !p.strict)
	case step.array: // lax: what is no array is one of itself
		if !p.strict && (step.all || step.index == 0) {
			return p.walk(b, v, steps[1:], out)
		}
		return out, !p.strict
	case c == '{':
		found := false
		eachMember(b, v, func(key, e jsonSpan) bool {
			if step.all || jsonTextIs(b[key.begin+1:key.end-1], step.member) {
				var fine bool
				out, fine = p.walk(b, e, steps[1:], out)
				ok, found = ok && fine, true
			}
			return step.all || !found
		})
		return out, ok && (found || step.all || !p.strict)
	case c == '[' && !p.strict:
		eachElement(b, v, func(e jsonSpan) bool {
			if b[e.begin] == '{' {
				out, _ = p.walk(b, e, steps, out)
			}
			return true
		})
		return out, true
	}
	return out, !p.strict
}

func eachElement(b []byte, v jsonSpan, do func(e jsonSpan) bool) {
	at := skipSpace(b, v.begin+1)
	for b[at] != ']' {
		end := skipValue(b, at)
		if !do(jsonSpan{at, end}) {
			return
		}
		if at = skipSpace(b, end); b[at] == ',' {
			at = skipSpace(b, at+1)
		}
	}
}

func eachMember(b []byte, v jsonSpan, do func(key, e jsonSpan) bool) {
	at := skipSpace(b, v.begin+1)
	for b[at] != '}' {
		key := jsonSpan{at, skipValue(b, at)}
		at = skipSpace(b, skipSpace(b, key.end)+1) // over the colon
		e := jsonSpan{at, skipValue(b, at)}
		if !do(key, e) {
			return
		}
		if at = skipSpace(b, e.end); b[at] == ',' {
			at = skipSpace(b, at+1)
		}
	}
}

func skipSpace(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\n' || b[at] == '\t' || b[at] == '\r') {
		at++
	}
	return at
}

// skipValue is the end of the value at a place of valid JSON.
func skipValue(b []byte, at int) int {
	depth := 0
	for at < len(b) {
		switch c := b[at]; c {
		case '"':
			for at++; b[at] != '"'; at++ {
				if b[at] == '\\' {
					at++
				}
			}
			at++
		case '{', '[':
			depth++
			at++
			continue
		case '}', ']':
			depth--
			at++
		case ',', ':', ' ', '\n', '\t', '\r':
			at++
			continue
		default:
			for at < len(b) && !bytes.ContainsRune([]byte(",:]} \n\t\r"), rune(b[at])) {
				at++
			}
		}
		if depth == 0 {
			return at
		}
	}
	return at
}

// jsonTextIs compares the inside of a JSON text with a word.
func jsonTextIs(b []byte, word string) bool {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b) == word
	}
	return string(appendJSONText(nil, b)) == word
}

// appendJSONText appends the inside of a JSON text with its escapes undone.
func appendJSONText(dst, b []byte) []byte {
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			dst = append(dst, b[i])
			continue
		}
		i++
		switch c := b[i]; c {
		case 'n':
			dst = append(dst, '\n')
		case 't':
			dst = append(dst, '\t')
		case 'r':
			dst = append(dst, '\r')
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'u':
			r := hexRune(b[i+1:])
			i += 4
			if r >= 0xD800 && r < 0xDC00 && i+6 < len(b)+0 && b[i+1] == '\\' && b[i+2] == 'u' {
				if low := hexRune(b[i+3:]); low >= 0xDC00 && low < 0xE000 {
					r = (r-0xD800)<<10 + (low - 0xDC00) + 0x10000
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func hexRune(b []byte) rune {
	x, err := strconv.ParseUint(string(b[:min(4, len(b))]), 16, 32)
	if err != nil {
		return utf8.RuneError
	}
	return rune(x)
}

// appendJSONQuoted appends a text as JSON writes it.
func appendJSONQuoted(dst, b []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for len(b) > 0 {
		c := b[0]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\b':
			dst = append(dst, '\\', 'b')
		case c == '\f':
			dst = append(dst, '\\', 'f')
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, size := utf8.DecodeRune(b)
			dst = utf8.AppendRune(dst, r)
			b = b[size:]
			continue
		}
		b = b[1:]
	}
	return append(dst, '"')
}
