package pgwire

import "strings"

// piece is a statement of a query text that may hold several.
type piece struct {
	text  string
	begin int // where it begins, in bytes of the whole
}

// split cuts a text at its semicolons. Those in strings, quoted names and comments do not count.
func split(text string) []piece {
	var out []piece
	begin := 0
	add := func(end int) {
		s := text[begin:end]
		trimmed := strings.TrimLeft(s, " \t\r\n")
		if blank(trimmed) {
			return
		}
		out = append(out, piece{text: strings.TrimRight(trimmed, " \t\r\n"), begin: begin + len(s) - len(trimmed)})
	}
	for i := 0; i < len(text); {
		if n := skip(text[i:]); n > 0 {
			i += n
			continue
		}
		if text[i] == ';' {
			add(i)
			begin = i + 1
		}
		i++
	}
	add(len(text))
	return out
}

// skip is the length of a string, quoted name or comment that s begins with, 0 if it does with none.
func skip(s string) int {
	closed := func(end string, from int) int {
		i := strings.Index(s[from:], end)
		if i < 0 {
			return len(s)
		}
		return from + i + len(end)
	}
	switch {
	case s[0] == '\'' || s[0] == '"' || s[0] == '`':
		return closed(s[:1], 1) // a doubled quote is two strings one behind the other
	case strings.HasPrefix(s, "--"):
		return closed("\n", 2)
	case strings.HasPrefix(s, "/*"):
		return closed("*/", 2)
	}
	return 0
}

// blank tells whether nothing but space and comments is there.
func blank(s string) bool {
	for len(s) > 0 {
		switch {
		case strings.ContainsRune(" \t\r\n", rune(s[0])):
			s = s[1:]
		case strings.HasPrefix(s, "--") || strings.HasPrefix(s, "/*"):
			s = s[skip(s):]
		default:
			return false
		}
	}
	return true
}

// words are the first words of a statement, upper case, without what stands around them.
func words(s string, n int) []string {
	var out []string
	for len(s) > 0 && len(out) < n {
		if strings.HasPrefix(s, "--") || strings.HasPrefix(s, "/*") {
			s = s[skip(s):]
			continue
		}
		i := 0
		for i < len(s) && (s[i] == '_' || s[i] >= 'a' && s[i] <= 'z' || s[i] >= 'A' && s[i] <= 'Z' || s[i] >= '0' && s[i] <= '9') {
			i++
		}
		if i > 0 {
			out = append(out, strings.ToUpper(s[:i]))
			s = s[i:]
			continue
		}
		if !strings.ContainsRune(" \t\r\n(", rune(s[0])) {
			break
		}
		s = s[1:]
	}
	return out
}
