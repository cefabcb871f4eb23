// Package selection decides which tables, columns and rows of a source a mirror takes, and what they are called at the
// target. It asks no server: the same specification and the same names always give the same answer, so the plan, the
// stream and the verification agree on it.
//
// A pattern is a glob over schema.table: * stands for any text, ? for one character, [a-z] and [!a-z] for one of a set;
// none of them crosses the dot. Text in double quotes is literal, dots, commas and stars included. Names are compared
// as they are stored; nothing is folded to lower case.
package selection

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// Selection is a compiled specification. It is immutable.
type Selection struct {
	tables  []*pattern
	except  []*pattern
	exclude []*pattern
	routes  []*route
	filters []filter
}

type filter struct {
	table *pattern
	where string
}

// New compiles the patterns of a specification. Without any in Tables it takes every table.
func New(spec api.MirrorSpec) (*Selection, error) {
	s := &Selection{}
	for _, list := range []struct {
		option string
		texts  []string
		parts  int
		into   *[]*pattern
	}{
		{"tables", spec.Tables, 2, &s.tables},
		{"except", spec.Except, 2, &s.except},
		{"exclude", spec.Exclude, 3, &s.exclude},
	} {
		for _, text := range list.texts {
			patterns, err := newScanner(list.option, text).list(list.parts)
			if err != nil {
				return nil, err
			}
			*list.into = append(*list.into, patterns...)
		}
	}
	if len(spec.Tables) == 0 {
		all, err := newScanner("tables", "*").list(2)
		if err != nil {
			return nil, err
		}
		s.tables = all
	}
	for _, r := range spec.Routes {
		compiled, err := newRoute(r)
		if err != nil {
			return nil, err
		}
		s.routes = append(s.routes, compiled)
	}
	for _, f := range spec.Filters {
		p, err := newScanner("filters", f.Table).one(2)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(f.Where) == "" {
			return nil, errs.New(errs.BadPattern, "the filter of %s has no condition", f.Table).
				At(errs.Position{File: "filters", Line: 1, Column: 1, Source: f.Table})
		}
		s.filters = append(s.filters, filter{p, f.Where})
	}
	return s, nil
}

// reserved schemas are never mirrored and never written to.
func reserved(schema string) bool {
	return strings.HasPrefix(schema, "pg_") || schema == "information_schema" || schema == pg.LedgerSchema
}

// Includes tells whether the patterns take a table.
func (s *Selection) Includes(schema, table string) bool {
	return !reserved(schema) && anyMatch(s.tables, schema, table) && !anyMatch(s.except, schema, table)
}

// Named tells whether the user wrote this very name, without wildcards. What cannot be mirrored is then an error and
// not a note.
func (s *Selection) Named(schema, table string) bool {
	return s.Includes(schema, table) && slices.ContainsFunc(s.tables, func(p *pattern) bool {
		return p.literal != nil && p.literal[0] == schema && p.literal[1] == table
	})
}

// Route gives the table's name at the target.
func (s *Selection) Route(schema, table string) (targetSchema, targetName string) {
	for _, r := range s.routes {
		if found, ok := r.from.matches(schema, table); ok {
			n := r.name(found)
			return n.Schema, n.Name
		}
	}
	return schema, table
}

// Excluded tells whether a column is left out.
func (s *Selection) Excluded(schema, table, column string) bool {
	return anyMatch(s.exclude, schema, table, column)
}

// Filter gives the condition that a table's rows must meet, "" for all rows. The first filter that matches counts.
func (s *Selection) Filter(schema, table string) string {
	for _, f := range s.filters {
		if _, ok := f.table.matches(schema, table); ok {
			return f.where
		}
	}
	return ""
}

func anyMatch(patterns []*pattern, parts ...string) bool {
	return slices.ContainsFunc(patterns, func(p *pattern) bool { _, ok := p.matches(parts...); return ok })
}

// Left is a table that the patterns take and the mirror cannot.
type Left struct {
	Table pg.TableName
	Why   string
	Named bool // the user wrote its very name
	// Part: it is a partition whose root is mirrored, so its rows are.
	Part bool
}

// Pick sorts what a source has into the tables to mirror and those that stay out. The root of a partitioned table
// stands for its leaves, except where the server cannot publish it.
func (s *Selection) Pick(tables []pg.TableName) (picked []pg.TableName, left []Left) {
	byOID := make(map[uint32]pg.TableName, len(tables))
	for _, t := range tables {
		byOID[t.OID] = t
	}
	for _, t := range tables {
		if !s.Includes(t.Schema, t.Name) {
			continue
		}
		l := Left{Table: t, Named: s.Named(t.Schema, t.Name)}
		switch {
		case t.Kind == 'v':
			l.Why = "it is a view: its changes are not in the log"
		case t.Kind == 'm':
			l.Why = "it is a materialized view: its changes are not in the log"
		case t.Kind == 'f':
			l.Why = "it is a foreign table: its changes are not in the log"
		case t.Persistence == 'u':
			l.Why = "it is unlogged: its changes are not in the log"
		case t.Apart:
			l.Why, l.Part = "Postgres before 13 cannot publish a partitioned table: its partitions are tables of their own", true
		case t.Parent != 0:
			root := byOID[t.Parent]
			if l.Part = s.Includes(root.Schema, root.Name); l.Part {
				l.Why = fmt.Sprintf("it is a partition of %s and comes with it", root)
			} else {
				l.Why = fmt.Sprintf("it is a partition: mirror %s, whose changes are published as a whole", root)
			}
		case len(t.Columns) == 0:
			l.Why = "it has no columns whose values are in the log"
		case s.allExcluded(t):
			l.Why = "all its columns are left out"
		default:
			picked = append(picked, t)
			continue
		}
		left = append(left, l)
	}
	return picked, left
}

func (s *Selection) allExcluded(t pg.TableName) bool {
	return !slices.ContainsFunc(t.Columns, func(c string) bool { return !s.Excluded(t.Schema, t.Name, c) })
}

// Unmatched lists the patterns of Tables that take nothing, which is how a misspelt name looks.
func (s *Selection) Unmatched(tables []pg.TableName) []string {
	var out []string
	for _, p := range s.tables {
		if !slices.ContainsFunc(tables, func(t pg.TableName) bool { _, ok := p.matches(t.Schema, t.Name); return ok }) {
			out = append(out, p.text)
		}
	}
	return out
}

// Collisions tells when two tables would go to one, or one to a schema that is not for users.
func (s *Selection) Collisions(tables []pg.TableName) error {
	from := make(map[pg.TargetName]pg.TableName, len(tables))
	for _, t := range tables {
		schema, name := s.Route(t.Schema, t.Name)
		to := pg.TargetName{Schema: schema, Name: name}
		if reserved(schema) {
			return errs.New(errs.BadPattern, "table %s would go to %s, and schema %s is not for users' tables", t, to, schema)
		}
		if schema == "" || name == "" {
			return errs.New(errs.BadPattern, "the route of table %s gives it no name", t)
		}
		if other, ok := from[to]; ok {
			return errs.New(errs.BadPattern, "tables %s and %s would both go to %s", other, t, to).
				WithHint("rows of two tables cannot share one: their keys would meet; route one of them elsewhere, or leave it out with except")
		}
		from[to] = t
	}
	return nil
}
