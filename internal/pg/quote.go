package pg

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// MaxName is how many bytes of a name Postgres keeps; it cuts the rest with a notice that nobody reads.
const MaxName = 63

// Ident quotes a name. It quotes always: a name that needs no quotes today becomes a keyword in the next release. A NUL
// byte, which no name can hold, is left out, because the server would end the whole statement there.
func Ident(name string) string {
	return `"` + strings.ReplaceAll(strings.ReplaceAll(name, "\x00", ""), `"`, `""`) + `"`
}

// Qualified quotes schema.name.
func Qualified(schema, name string) string { return Ident(schema) + "." + Ident(name) }

// Idents quotes names and separates them with commas.
func Idents(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = Ident(n)
	}
	return strings.Join(quoted, ", ")
}

// Literal quotes a string. With a backslash in it the E form is used, the only one that means the same whatever
// standard_conforming_strings says; without one the plain form does.
func Literal(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", "''")
	if strings.Contains(s, `\`) {
		return "E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}

// Shorten makes a name fit. A long one is cut between two characters and ends in a hash of the whole, so two long names
// with one beginning stay two.
func Shorten(name string) string {
	if len(name) <= MaxName {
		return name
	}
	return withHash(name, name)
}

// withHash is name, cut as needed, and a hash of what tells it from others.
func withHash(name, of string) string {
	sum := sha256.Sum256([]byte(of))
	tail := "_" + hex.EncodeToString(sum[:4])
	end := min(len(name), MaxName-len(tail))
	for end > 0 && end < len(name) && !utf8.RuneStart(name[end]) {
		end--
	}
	return name[:end] + tail
}

// DottedName is schema.name for people. A part that holds a dot or a quote stands in quotes, as a pattern needs it, so
// that the two can be told apart.
func DottedName(schema, name string) string { return dotted(schema) + "." + dotted(name) }

func dotted(part string) string {
	if strings.ContainsAny(part, `."`) {
		return Ident(part)
	}
	return part
}
