package selection

import (
	"slices"
	"strings"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
	"github.com/weirstream/weir/internal/pg"
)

// Find gives those of a mirror's tables that a user means by some patterns, each once and in the order of tables. Every
// pattern has to mean one. A text that means none as a pattern, or is none, may still be a table's plain name, dots and
// stars included, if it is the name of only one.
func Find(texts []string, tables []pg.TargetName) ([]pg.TargetName, error) {
	taken := make([]bool, len(tables))
	for _, text := range texts {
		patterns, bad := newScanner("tables", text).list(2)
		unknown := ""
		for _, p := range patterns {
			any := false
			for i, t := range tables {
				if _, ok := p.matches(t.Schema, t.Name); ok {
					any, taken[i] = true, true
				}
			}
			if !any {
				unknown = p.text
			}
		}
		if bad == nil && unknown == "" {
			continue
		}
		named := func(t pg.TargetName) bool { return t.Schema+"."+t.Name == text }
		at := slices.IndexFunc(tables, named)
		switch {
		case at >= 0 && !slices.ContainsFunc(tables[at+1:], named):
			taken[at] = true
		case at >= 0:
			return nil, errs.New(errs.TableUnknown, "%q means several tables of the mirror", text).WithHint("write the one you mean with quotes, such as %s", Quote(tables[at]))
		case bad != nil:
			return nil, bad
		default:
			return nil, notFound(unknown, tables)
		}
	}
	var found []pg.TargetName
	for i, t := range tables {
		if taken[i] {
			found = append(found, t)
		}
	}
	return found, nil
}

func notFound(text string, tables []pg.TargetName) error {
	e := errs.New(errs.TableUnknown, "table %q is not part of the mirror", text)
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = Quote(t)
	}
	if hint := nearest.Hint(text, names); hint != "" {
		return e.WithHint("%s", hint)
	}
	return e.WithHint(`name it schema.table, as the source does; write a name that holds a dot or a star in quotes: public."a.b"`)
}

// Quote writes the name of one table as a pattern that means no other.
func Quote(t pg.TargetName) string { return quotePart(t.Schema) + "." + quotePart(t.Name) }

func quotePart(name string) string {
	if name != "" && !strings.ContainsAny(name, "*?[\".,' \t\r\n") {
		return name
	}
	return pg.Ident(name)
}
