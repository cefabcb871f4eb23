package pg

import (
	"fmt"
	"slices"
	"strings"
)

// CreateTypes makes user types and collations in the given order, which LoadTypes has put right, and the schemas they
// lie in. Types keep their names whatever tables are renamed to. The notes tell what stays behind.
func CreateTypes(defs []TypeDef, opts TargetOptions) (create []Statement, notes []string) {
	t := &Target{Options: opts, Source: &Table{}}
	schemas := map[string]bool{}
	for i := range defs {
		d := &defs[i]
		sql, why := t.typeDef(d)
		name := Qualified(d.Schema, d.Name)
		if d.Collation == nil {
			for _, n := range t.typeNotes(d) {
				notes = append(notes, "type "+name+": "+n)
			}
		}
		if why != "" {
			notes = append(notes, "type "+name+" is not created: "+why)
			continue
		}
		if !schemas[d.Schema] {
			schemas[d.Schema] = true
			create = append(create, CreateSchema(d.Schema))
		}
		create = append(create, Statement{What: "type " + name, Exists: typeExists(d), SQL: []string{sql}})
	}
	return create, notes
}

func (t *Target) typeDef(d *TypeDef) (sql, whyNot string) {
	name := Qualified(d.Schema, d.Name)
	switch {
	case d.Collation != nil:
		return d.Collation.create(name), ""
	case d.RowOf != "":
		return "", "it is the row of table " + d.RowOf
	case d.Kind == 'e':
		labels := make([]string, len(d.Labels))
		for i, l := range d.Labels {
			labels[i] = Literal(l)
		}
		return "CREATE TYPE " + name + " AS ENUM (" + strings.Join(labels, ", ") + ")", ""
	case d.Kind == 'd':
		return t.domain(name, d), ""
	case d.Kind == 'c':
		var fields []string
		for i := range d.Attributes {
			a := &d.Attributes[i]
			f := Ident(a.Name) + " " + t.Options.moved(&a.Type, a.Formatted)
			if a.Collate != "" && !t.Options.MissingCollations[a.Collate] {
				f += " COLLATE " + a.Collate
			}
			fields = append(fields, f)
		}
		return "CREATE TYPE " + name + " AS (" + strings.Join(fields, ", ") + ")", ""
	case d.Kind == 'r':
		return t.rangeType(name, d), ""
	}
	return "", "a base type is C code that has to be installed on the target first"
}

func (t *Target) domain(name string, d *TypeDef) string {
	formatted := d.Formatted
	if d.BaseType != nil {
		formatted = t.Options.moved(d.BaseType, formatted)
	}
	sql := "CREATE DOMAIN " + name + " AS " + formatted
	if d.Collate != "" && !t.Options.MissingCollations[d.Collate] {
		sql += " COLLATE " + d.Collate
	}
	if d.Default != "" && t.whyNotDomainDefault(d) == "" {
		sql += " DEFAULT " + d.Default
	}
	if d.NotNull {
		sql += " NOT NULL"
	}
	for _, k := range d.Checks {
		if t.whyNotDomainCheck(d, &k) == "" {
			sql += " CONSTRAINT " + Ident(k.Name) + " " + k.Def
		}
	}
	return sql
}

func (t *Target) whyNotDomainDefault(d *TypeDef) string {
	if missing := t.missing(d.Needs); missing != "" {
		return "it needs " + missing
	}
	if why := t.misplaced(d.extensions(d.Needs), d.Default); why != "" {
		return why
	}
	return t.olderThan(d.Default)
}

// extensions are those that an expression of the domain may name: its own type's and what else it needs.
func (d *TypeDef) extensions(needs []Need) []string {
	exts := []string{d.extension()}
	for _, n := range needs {
		exts = append(exts, n.Extension)
	}
	return exts
}

func (t *Target) whyNotDomainCheck(d *TypeDef, k *DomainDef) string {
	switch missing := t.missing(k.Needs); {
	case !k.Validated:
		return "it was never validated: old rows may break it"
	case k.Volatile:
		return "its answer can differ from one day, setting or server to another"
	case missing != "":
		return "it needs " + missing
	}
	if why := t.misplaced(d.extensions(k.Needs), k.Def); why != "" {
		return why
	}
	return t.olderThan(k.Def)
}

func (t *Target) rangeType(name string, d *TypeDef) string {
	formatted := d.Formatted
	if d.ElemType != nil {
		formatted = t.Options.moved(d.ElemType, formatted)
	}
	parts := []string{"SUBTYPE = " + formatted}
	if d.Opclass != "" {
		parts = append(parts, "SUBTYPE_OPCLASS = "+d.Opclass)
	}
	if d.Collate != "" && !t.Options.MissingCollations[d.Collate] {
		parts = append(parts, "COLLATION = "+d.Collate)
	}
	if d.SubDiff != "" {
		parts = append(parts, "SUBTYPE_DIFF = pg_catalog."+Ident(d.SubDiff))
	}
	if d.Multirange != "" && !t.older(140000) {
		parts = append(parts, "MULTIRANGE_TYPE_NAME = "+Qualified(d.Schema, d.Multirange))
	}
	return "CREATE TYPE " + name + " AS RANGE (" + strings.Join(parts, ", ") + ")"
}

func (c *Collation) create(name string) string {
	var parts []string
	switch c.Provider {
	case 'i':
		parts = append(parts, "PROVIDER = icu", "LOCALE = "+Literal(c.Locale))
	case 'b':
		parts = append(parts, "PROVIDER = builtin", "LOCALE = "+Literal(c.Locale))
	default:
		parts = append(parts, "PROVIDER = libc", "LC_COLLATE = "+Literal(c.Collate), "LC_CTYPE = "+Literal(c.Ctype))
	}
	if !c.Deterministic {
		parts = append(parts, "DETERMINISTIC = false")
	}
	if c.Rules != "" {
		parts = append(parts, "RULES = "+Literal(c.Rules))
	}
	return "CREATE COLLATION " + name + " (" + strings.Join(parts, ", ") + ")"
}

func (t *Target) typeNotes(d *TypeDef) (notes []string) {
	switch missing := t.missing(d.Needs); {
	case d.Kind == 'd':
		if why := t.whyNotDomainDefault(d); why != "" {
			notes = append(notes, "its default is not created: "+why)
		}
	case d.Kind == 'r' && missing != "":
		notes = append(notes, missing+" is not created; values keep the form they have at the source")
	}
	for i := range d.Checks {
		if why := t.whyNotDomainCheck(d, &d.Checks[i]); why != "" {
			notes = append(notes, fmt.Sprintf("check %s is not created: %s", Ident(d.Checks[i].Name), why))
		}
	}
	return notes
}

func typeExists(d *TypeDef) string {
	catalog, prefix := "pg_type", "typ"
	if d.Collation != nil {
		catalog, prefix = "pg_collation", "coll"
	}
	return "SELECT EXISTS (SELECT FROM pg_catalog." + catalog + " x JOIN pg_catalog.pg_namespace n ON n.oid = x." + prefix +
		"namespace WHERE n.nspname = " + Literal(d.Schema) + " AND x." + prefix + "name = " + Literal(d.Name) + ")"
}

// AddEnumLabels brings an enum that has some labels to those wanted, each in its place among the wanted ones. Labels
// that only the target has stay. A label cannot be used in the transaction that adds it (55P04), so these run, and
// commit, before the rows that hold them.
func AddEnumLabels(schema, name string, have, want []string) []string {
	var sql []string
	have = slices.Clone(have)
	for i, label := range want {
		if slices.Contains(have, label) {
			continue
		}
		add := "ALTER TYPE " + Qualified(schema, name) + " ADD VALUE IF NOT EXISTS " + Literal(label)
		if i > 0 {
			add += " AFTER " + Literal(want[i-1]) // there, or added just before
		} else if len(have) > 0 {
			add += " BEFORE " + Literal(have[0])
		}
		sql = append(sql, add)
		have = append(have, label)
	}
	return sql
}
