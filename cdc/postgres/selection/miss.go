package selection

import (
	"cmp"
	"slices"
	"strings"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
	"github.com/weirstream/weir/internal/pg"
)

// Check refuses patterns of exclude and filters that hold for nothing the source has. They keep data back, so that a
// misspelt one would copy what was meant to stay. It is for what a user has just written: a table may be dropped later.
// Columns, which gives those of the tables ordered by their OIDs, is only asked when it matters.
func (s *Selection) Check(tables []pg.TableName, columns func() ([]pg.ColumnName, error)) error {
	_, left := s.Pick(tables)
	var names [][]string // what a filter can be about: rows of a partition come under the name of its root
	parts := map[uint32]bool{}
	for _, l := range left {
		parts[l.Table.OID] = l.Part
	}
	for _, t := range tables {
		if !parts[t.OID] {
			names = append(names, []string{t.Schema, t.Name})
		}
	}
	for _, f := range s.filters {
		if err := miss("filters", "table", f.table, names); err != nil {
			return err
		}
	}
	if len(s.exclude) == 0 {
		return nil
	}
	have, err := columns()
	if err != nil {
		return err
	}
	names = nil
	for _, t := range tables {
		if parts[t.OID] {
			continue
		}
		from, _ := slices.BinarySearchFunc(have, t.OID, func(c pg.ColumnName, oid uint32) int { return cmp.Compare(c.Table, oid) })
		for _, c := range have[from:] {
			if c.Table != t.OID {
				break
			}
			names = append(names, []string{t.Schema, t.Name, c.Name})
		}
	}
	for _, p := range s.exclude {
		if err := miss("exclude", "column", p, names); err != nil {
			return err
		}
	}
	return nil
}

// miss is the error of a pattern that none of the names matches.
func miss(option, kind string, p *pattern, names [][]string) error {
	if slices.ContainsFunc(names, func(n []string) bool { _, ok := p.matches(n...); return ok }) {
		return nil
	}
	e := errs.New(errs.BadPattern, "pattern %s of %s matches no %s of the source", p.text, option, kind).
		At(errs.Position{File: option, Line: 1, Column: 1, Source: p.text})
	if near := near(p, names); near != "" {
		e.WithHint("did you mean %s?", near)
	}
	return e
}

// near is the name that differs from a pattern without wildcards in one part, and there by little.
func near(p *pattern, names [][]string) string {
	for i := len(p.literal) - 1; i >= 0; i-- {
		var candidates []string
		for _, n := range names {
			same := true
			for j := range n {
				same = same && (j == i || n[j] == p.literal[j])
			}
			if same {
				candidates = append(candidates, n[i])
			}
		}
		if c := nearest.Of(p.literal[i], candidates); c != "" {
			found := slices.Clone(p.literal)
			found[i] = c
			for j := range found {
				found[j] = written(found[j])
			}
			return strings.Join(found, ".")
		}
	}
	return ""
}

// written is a name as a pattern that means just it.
func written(name string) string {
	if name != "" && !strings.ContainsAny(name, " \t\r\n.,*?[\"") {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// Idle lists the options whose patterns match no table and only lack an effect: except and routes.
func (s *Selection) Idle(tables []pg.TableName) []string {
	var out []string
	look := func(option string, p *pattern) {
		if !slices.ContainsFunc(tables, func(t pg.TableName) bool { _, ok := p.matches(t.Schema, t.Name); return ok }) {
			out = append(out, option+" "+p.text)
		}
	}
	for _, p := range s.except {
		look("except", p)
	}
	for _, r := range s.routes {
		look("route", r.from)
	}
	return out
}
