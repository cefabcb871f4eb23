package pg

import (
	"context"
	"slices"
	"strings"
)

// Extension is one extension, on a server or needed from one.
type Extension struct {
	Name, Schema, Version string
	Required              bool // from Extensions: a column's type is in it; otherwise only defaults and indexes use it
}

// LoadExtensions gives the extensions of a database by name.
func LoadExtensions(ctx context.Context, q Querier) (map[string]Extension, error) {
	rows, err := q.Query(ctx, `SELECT x.extname::text, n.nspname::text, x.extversion
		FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace`)
	list, err := collect(rows, err, "read extensions", func(scan func(...any) error) (Extension, error) {
		var x Extension
		err := scan(&x.Name, &x.Schema, &x.Version)
		return x, err
	})
	out := map[string]Extension{}
	for _, x := range list {
		out[x.Name] = x
	}
	return out, err
}

// Extensions tells which extensions tables and types use, completed from those installed at their source; sorted by
// name. Languages are left out: plpgsql is everywhere, and functions are not mirrored.
func Extensions(tables []*Table, types []TypeDef, installed map[string]Extension) []Extension {
	required := map[string]bool{}
	add := func(name string, needed bool) {
		if name != "" && name != "plpgsql" {
			required[name] = required[name] || needed
		}
	}
	for _, t := range tables {
		for _, c := range t.Columns {
			add(c.Type.extension(), true)
			for _, n := range c.DefaultNeeds {
				add(n.Extension, false)
			}
		}
		for _, x := range t.Indexes {
			for _, n := range x.Needs {
				add(n.Extension, x.Primary)
			}
		}
		for _, k := range t.Checks {
			for _, n := range k.Needs {
				add(n.Extension, false)
			}
		}
	}
	for _, d := range types {
		for _, n := range d.Needs {
			add(n.Extension, false)
		}
		d.Type.reach(func(t *Type) { add(t.Extension, true) })
		for i := range d.Attributes {
			add(d.Attributes[i].Type.extension(), true)
		}
	}
	var out []Extension
	for name, needed := range required {
		x := installed[name]
		x.Name, x.Required = name, needed
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b Extension) int { return strings.Compare(a.Name, b.Name) })
	return out
}
