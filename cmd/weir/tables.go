package main

import (
	"slices"
	"strings"

	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
)

// addable refuses a table that is added by its name and that m, which names it already, would still not take: the
// command would report success and nothing would be mirrored. A glob may match as little as it likes.
func addable(m api.MirrorSpec, added []string) error {
	sel, err := selection.New(m)
	if err != nil {
		return err
	}
	for _, globs := range added {
		for _, t := range literals(globs) {
			if sel.Includes(t.schema, t.name) {
				continue
			}
			for _, glob := range split(m.Except) {
				without, err := selection.New(api.MirrorSpec{Except: []string{glob}})
				if err != nil {
					return err
				}
				if !without.Includes(t.schema, t.name) {
					return errs.New(errs.BadPattern, "%s is left out by %s, a pattern of --except of pipeline %s", t.text, glob, m.Name).
						WithHint("weir pipelines tables add %s '%s' takes the pattern back and adds every table that it matches", m.Name, glob)
				}
			}
			return errs.New(errs.BadPattern, "%s cannot be mirrored: system schemas and weir's own are never selected", t.text)
		}
	}
	return nil
}

// covers tells whether the tables of m take all that globs are about, whatever m.Except leaves out of it.
func covers(m api.MirrorSpec, globs string) bool {
	named, err := selection.New(api.MirrorSpec{Tables: m.Tables})
	if err != nil {
		return false
	}
	// A star takes whatever text there is, other wildcards too. The rest that a pattern may hold takes one letter of a name,
	// or what would be a wildcard without its quotes.
	plain := slices.DeleteFunc(split(m.Tables), func(glob string) bool { return strings.ContainsAny(glob, `?["`) })
	wide, err := selection.New(api.MirrorSpec{Tables: plain})
	if err != nil {
		return false
	}
	read := parts(globs)
	if len(read) != len(split([]string{globs})) {
		return false // a lone star
	}
	for _, g := range read {
		if g.wild && (len(plain) == 0 && len(m.Tables) > 0 || !wide.Includes(g.schema, g.name)) || !g.wild && !named.Includes(g.schema, g.name) {
			return false
		}
	}
	return true
}

type literal struct {
	text, schema, name string
	wild               bool
}

// literals are those of comma-separated globs that name one table, without wildcards outside quotes.
func literals(globs string) []literal {
	return slices.DeleteFunc(parts(globs), func(l literal) bool { return l.wild })
}

// parts reads comma-separated globs of a schema and a name. Both are without their quotes.
func parts(globs string) []literal {
	var out []literal
	var parts []string
	var part, text strings.Builder
	quoted, wild := false, false
	end := func() {
		if parts = append(parts, part.String()); len(parts) == 2 {
			out = append(out, literal{strings.TrimSpace(text.String()), parts[0], parts[1], wild})
		}
		parts, wild = nil, false
		part.Reset()
		text.Reset()
	}
	runes := []rune(globs)
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		if r == ',' && !quoted {
			end()
			continue
		}
		text.WriteRune(r)
		switch {
		case r == '"' && quoted && i+1 < len(runes) && runes[i+1] == '"':
			i++
			text.WriteRune(r)
			part.WriteRune(r)
		case r == '"':
			quoted = !quoted
		case quoted:
			part.WriteRune(r)
		case r == '.':
			parts = append(parts, part.String())
			part.Reset()
		case r == ' ', r == '\t', r == '\r', r == '\n':
		default:
			wild = wild || strings.ContainsRune("*?[", r)
			part.WriteRune(r)
		}
	}
	end()
	return out
}
