package parser

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weirstream/weir/internal/errs"
)

// prefixed tells whether a string with a prefix begins here: U&'..', E'..' or X'..'. No name can be followed by a
// string without space between them, so the prefixes take nothing away from names.
func (l *lexer) prefixed(r rune) bool {
	rest := l.text[l.at.Offset:]
	switch r {
	case 'u', 'U':
		return strings.HasPrefix(rest[1:], "&'")
	case 'e', 'E', 'x', 'X':
		return strings.HasPrefix(rest[1:], "'")
	}
	return false
}

func (l *lexer) prefixedString(start Pos) (token, error) {
	switch prefix := l.step(); prefix {
	case 'x', 'X':
		s, err := l.delimited("string")
		if err == nil && (len(s)%2 != 0 || strings.Trim(s, "0123456789abcdefABCDEF") != "") {
			err = l.errorAt(start, "X'..' holds pairs of hexadecimal digits")
		}
		return token{hexed, s, start}, err
	case 'e', 'E':
		s, err := l.escaped()
		return token{str, s, start}, err
	}
	l.step()
	s, err := l.delimited("string")
	if err != nil {
		return token{}, err
	}
	escape, err := l.unicodeEscape()
	if err != nil {
		return token{}, err
	}
	s, wrong := decodeUnicode(s, escape)
	if wrong != "" {
		return token{}, l.errorAt(start, "%s in a U&'..' string", wrong).
			WithHint("%cXXXX and %c+XXXXXX are characters by their hexadecimal number, %c%c is the escape character itself", escape, escape, escape, escape)
	}
	return token{str, s, start}, nil
}

// unicodeEscape reads UESCAPE 'c' if it follows.
func (l *lexer) unicodeEscape() (rune, error) {
	before := l.at
	if err := l.skip(); err != nil {
		return 0, err
	}
	rest := l.text[l.at.Offset:]
	if len(rest) < 7 || !strings.EqualFold(rest[:7], "UESCAPE") {
		l.at = before
		return '\\', nil
	}
	for range 7 {
		l.step()
	}
	if err := l.skip(); err != nil {
		return 0, err
	}
	at := l.at
	if l.peek() != '\'' {
		return 0, l.errorAt(at, "expected a character in single quotes after UESCAPE")
	}
	s, err := l.delimited("string")
	if err != nil {
		return 0, err
	}
	if r, size := utf8.DecodeRuneInString(s); size == len(s) && size > 0 && !strings.ContainsRune("+'\" \t\n0123456789abcdefABCDEF", r) {
		return r, nil
	}
	return 0, l.errorAt(at, "UESCAPE takes one character that is neither a hexadecimal digit, a plus, a quote nor white space")
}

// decodeUnicode gives what is wrong with the string, or "".
func decodeUnicode(s string, escape rune) (decoded, wrong string) {
	var b strings.Builder
	for s != "" {
		r, size := utf8.DecodeRuneInString(s)
		s = s[size:]
		if r != escape {
			b.WriteRune(r)
			continue
		}
		if rest, ok := strings.CutPrefix(s, string(escape)); ok {
			b.WriteRune(escape)
			s = rest
			continue
		}
		digits := 4
		if rest, ok := strings.CutPrefix(s, "+"); ok {
			digits, s = 6, rest
		}
		r, ok := hexRune(s, digits)
		if !ok {
			return "", "an escape is not a character"
		}
		b.WriteRune(r)
		s = s[digits:]
	}
	return b.String(), ""
}

// hexRune reads a character by its number. NUL is none, as in Postgres.
func hexRune(s string, digits int) (rune, bool) {
	if len(s) < digits {
		return 0, false
	}
	n, err := strconv.ParseUint(s[:digits], 16, 32)
	if err != nil || n == 0 || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
		return 0, false
	}
	return rune(n), true
}

// escaped reads Postgres's E'..', where a backslash escapes.
func (l *lexer) escaped() (string, error) {
	start := l.at
	l.step()
	var b strings.Builder
	for {
		at := l.at
		switch r := l.peek(); r {
		case -1:
			return "", l.errorAt(start, "the string that begins here has no end").WithHint("close it with '; inside, the quote is written twice")
		case '\'':
			l.step()
			if l.peek() != '\'' {
				if !utf8.ValidString(b.String()) {
					return "", l.errorAt(start, "the escapes of the string do not make UTF-8 text")
				}
				return b.String(), nil
			}
			b.WriteRune(l.step())
		case '\\':
			l.step()
			if err := l.escape(at, &b); err != nil {
				return "", err
			}
		default:
			l.step()
			if r == 0 || r == utf8.RuneError && l.at.Offset-at.Offset == 1 {
				return "", l.errorAt(at, "the string holds a byte that is not UTF-8 text")
			}
			b.WriteRune(r)
		}
	}
}

// escape reads what follows a backslash.
func (l *lexer) escape(at Pos, b *strings.Builder) error {
	bad := func() *errs.Error { return l.errorAt(at, "an escape is not a character") }
	r := l.peek()
	if r == -1 {
		return bad()
	}
	l.step()
	digits := 0
	switch r {
	case 'b':
		r = '\b'
	case 'f':
		r = '\f'
	case 'n':
		r = '\n'
	case 'r':
		r = '\r'
	case 't':
		r = '\t'
	case 'u':
		digits = 4
	case 'U':
		digits = 8
	case 'x', '0', '1', '2', '3', '4', '5', '6', '7':
		return l.escapeByte(r, bad, b)
	case 0, utf8.RuneError:
		return bad()
	}
	if digits > 0 {
		var ok bool
		if r, ok = hexRune(l.text[l.at.Offset:], digits); !ok {
			return bad()
		}
		for range digits {
			l.step()
		}
	}
	b.WriteRune(r)
	return nil
}

// escapeByte reads \xHH or \OOO, of which one to the most digits may be given.
func (l *lexer) escapeByte(first rune, bad func() *errs.Error, b *strings.Builder) error {
	base, most, text := 8, 3, string(first)
	if first == 'x' {
		base, most, text = 16, 2, ""
	}
	for len(text) < most {
		r := l.peek()
		if !isDigit(r) && !(base == 16 && strings.ContainsRune("abcdefABCDEF", r)) || base == 8 && r > '7' {
			break
		}
		text += string(l.step())
	}
	n, err := strconv.ParseUint(text, base, 8)
	if err != nil || n == 0 {
		return bad()
	}
	b.WriteByte(byte(n))
	return nil
}
