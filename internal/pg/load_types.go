package pg

import (
	"context"
	"fmt"
)

// TypeDef is what is needed to make a user's type, or the collation that a type or column uses, on another server.
type TypeDef struct {
	Type
	Labels     []string    // of an enum, in order
	Formatted  string      // what a domain is over, or a range's bound, as SQL
	Collate    string      // quoted and qualified; "" when it is the underlying type's own
	NotNull    bool        // of a domain
	Default    string      // of a domain
	Checks     []DomainDef // of a domain
	Attributes []Attribute // of a composite
	Opclass    string      // of a range, quoted and qualified; "" when it is the default one
	SubDiff    string      // of a range, a built-in function
	Multirange string      // of a range from 14 on: the name of its multirange, in the range's schema
	RowOf      string      // a composite that is a table's row: that table
	Collation  *Collation  // not nil: this is a collation and everything above but Schema and Name is empty
	Needs      []Need      // what its default or a range's functions use
}

// DomainDef is one check of a domain.
type DomainDef struct {
	Name, Def string
	Validated bool
	Volatile  bool
	Needs     []Need
}

// Attribute is one field of a composite.
type Attribute struct {
	Name, Formatted, Collate string
	Type                     Type
}

// Collation is a collation made by a user.
type Collation struct {
	Provider      byte // c libc, i icu, b builtin
	Deterministic bool
	Collate       string // libc
	Ctype         string // libc
	Locale        string // icu and builtin
	Rules         string // icu, from 16 on
}

// loadTypeGraph reads types and everything they are made of, level by level; each level is one query and there are as
// many as types are nested.
func loadTypeGraph(ctx context.Context, q Querier, oids []uint32) (map[uint32]*Type, error) {
	types := map[uint32]*Type{}
	for next := unknown(types, oids); len(next) > 0; {
		rows, err := q.Query(ctx, `
			SELECT t.oid, n.nspname::text, t.typname::text, t.typtype::text, t.typcategory::text,
			       coalesce(e.typarray = t.oid, false),
			       CASE t.typtype
			           WHEN 'r' THEN (SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid)
			           WHEN 'm' THEN (SELECT r.rngtypid FROM pg_range r WHERE (to_jsonb(r) ->> 'rngmultitypid')::oid = t.oid)
			           ELSE t.typelem END,
			       t.typbasetype, coalesce(x.extname::text, ''), t.typrelid, t.typcollation, t.typlen
			FROM pg_type t
			JOIN pg_namespace n ON n.oid = t.typnamespace
			LEFT JOIN pg_type e ON e.oid = t.typelem
			LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
			LEFT JOIN pg_extension x ON x.oid = d.refobjid
			WHERE t.oid IN (SELECT unnest($1::text::oid[]))`, oidList(next))
		var parts []uint32
		_, err = collect(rows, err, "read types", func(scan func(...any) error) (struct{}, error) {
			t := &Type{}
			var kind, category string
			err := scan(&t.OID, &t.Schema, &t.Name, &kind, &category, &t.Array, &t.Elem, &t.Base, &t.Extension, &t.Relation,
				&t.Collation, &t.Len)
			t.Kind, t.Category = first(kind), first(category)
			types[t.OID] = t
			parts = append(parts, t.Elem, t.Base)
			return struct{}{}, err
		})
		if err != nil {
			return nil, err
		}
		next = unknown(types, parts)
	}
	for _, t := range types {
		t.ElemType, t.BaseType = types[t.Elem], types[t.Base]
	}
	return types, nil
}

// unknown gives the oids that are not loaded yet, each once. A type that vanished meanwhile stays unknown; it is marked
// by a nil entry so that it is not asked for again.
func unknown(types map[uint32]*Type, oids []uint32) []uint32 {
	var out []uint32
	for _, oid := range oids {
		if _, ok := types[oid]; !ok && oid != 0 {
			types[oid] = nil
			out = append(out, oid)
		}
	}
	return out
}

// LoadTypes gives the definitions of all user types and user collations that the columns of tables are made of, each
// after those it needs. Types of extensions are not in it (see Extensions), nor types without a definition in SQL.
func LoadTypes(ctx context.Context, q Querier, tables []*Table) ([]TypeDef, error) {
	var oids []uint32
	collations := map[uint32]bool{}
	for _, t := range tables {
		for _, c := range t.Columns {
			oids = append(oids, c.Type.OID)
			collations[c.collation] = true
		}
	}
	l := &typeLoader{ctx: ctx, q: q, defs: map[uint32]*TypeDef{}, collations: collations}
	if err := l.load(oids); err != nil {
		return nil, err
	}
	return l.ordered()
}

type typeLoader struct {
	ctx        context.Context
	q          Querier
	types      map[uint32]*Type
	defs       map[uint32]*TypeDef
	collations map[uint32]bool
}

// load follows composites too, whose fields loadTypeGraph does not.
func (l *typeLoader) load(oids []uint32) error {
	l.types = map[uint32]*Type{}
	for len(oids) > 0 {
		found, err := loadTypeGraph(l.ctx, l.q, oids)
		if err != nil {
			return err
		}
		var fresh []uint32
		for oid, t := range found {
			if t == nil || l.types[oid] != nil {
				continue
			}
			l.types[oid] = t
			l.collations[t.Collation] = true
			// What a user made over an extension's type is the user's to make; only the members come with the extension.
			if !t.Builtin() && t.Extension == "" && !t.Array && t.Kind != 'm' {
				l.defs[oid] = &TypeDef{Type: *t}
				fresh = append(fresh, oid)
			}
		}
		if err := l.definitions(fresh); err != nil {
			return err
		}
		oids = nil
		for _, oid := range fresh {
			for _, a := range l.defs[oid].Attributes {
				if l.types[a.Type.OID] == nil {
					oids = append(oids, a.Type.OID)
				}
			}
		}
	}
	return nil
}

func (l *typeLoader) definitions(oids []uint32) error {
	if len(oids) == 0 {
		return nil
	}
	list := oidList(oids)
	// typdefault is the text as it was printed when the domain was made, under the search_path of that day; only the
	// expression itself is printed with schemas.
	rows, err := l.q.Query(l.ctx, `
		SELECT t.oid,
		       ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder),
		       coalesce(CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod)
		                               WHEN 'r' THEN format_type(r.rngsubtype, NULL) END, ''),
		       coalesce((SELECT quote_ident(n.nspname) || '.' || quote_ident(k.collname)
		                 FROM pg_collation k JOIN pg_namespace n ON n.oid = k.collnamespace
		                 WHERE k.oid = CASE t.typtype WHEN 'd' THEN t.typcollation ELSE r.rngcollation END
		                   AND k.oid <> b.typcollation), ''),
		       coalesce(CASE t.typtype WHEN 'd' THEN t.typcollation ELSE r.rngcollation END, 0::oid),
		       t.typnotnull, coalesce(pg_get_expr(t.typdefaultbin, 'pg_type'::regclass), t.typdefault, ''),
		       coalesce((SELECT quote_ident(n.nspname) || '.' || quote_ident(o.opcname)
		                 FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace
		                 WHERE o.oid = r.rngsubopc AND NOT o.opcdefault), ''),
		       coalesce((SELECT m.typname::text FROM pg_type m WHERE m.oid = (to_jsonb(r) ->> 'rngmultitypid')::oid), ''),
		       coalesce((SELECT c.oid::regclass::text FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c'), ''),
		       t.typtype = 'r' AND r.rngcanonical <> 0, coalesce(r.rngsubdiff, 0::oid)::oid >= 16384,
		       CASE WHEN r.rngsubdiff <> 0 AND r.rngsubdiff::oid < 16384
		            THEN (SELECT p.proname::text FROM pg_proc p WHERE p.oid = r.rngsubdiff) ELSE '' END
		FROM pg_type t
		LEFT JOIN pg_range r ON r.rngtypid = t.oid
		LEFT JOIN pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE r.rngsubtype END
		WHERE t.oid IN (SELECT unnest($1::text::oid[]))`, list)
	_, err = collect(rows, err, "read definitions of types", func(scan func(...any) error) (struct{}, error) {
		var d TypeDef
		var oid, collation uint32
		var canonical, subdiff bool
		err := scan(&oid, &d.Labels, &d.Formatted, &d.Collate, &collation, &d.NotNull, &d.Default, &d.Opclass, &d.Multirange,
			&d.RowOf, &canonical, &subdiff, &d.SubDiff)
		if err != nil {
			return struct{}{}, err
		}
		if canonical {
			d.Needs = append(d.Needs, Need{Object: "its canonical function"})
		}
		if subdiff {
			d.Needs = append(d.Needs, Need{Object: "its subtype_diff function"})
		}
		d.Type = *l.types[oid]
		*l.defs[oid] = d
		l.collations[collation] = true
		return struct{}{}, nil
	})
	if err != nil {
		return err
	}
	for _, step := range []func(string) error{l.attributes, l.domainChecks, l.domainNeeds} {
		if err := step(list); err != nil {
			return err
		}
	}
	return nil
}

func (l *typeLoader) attributes(list string) error {
	rows, err := l.q.Query(l.ctx, `
		SELECT t.oid, a.attname::text, format_type(a.atttypid, a.atttypmod), a.atttypid, a.attcollation,
		       coalesce((SELECT quote_ident(n.nspname) || '.' || quote_ident(k.collname)
		                 FROM pg_collation k JOIN pg_namespace n ON n.oid = k.collnamespace
		                 WHERE k.oid = a.attcollation AND k.oid <> y.typcollation), '')
		FROM pg_type t
		JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
		JOIN pg_type y ON y.oid = a.atttypid
		WHERE t.oid IN (SELECT unnest($1::text::oid[])) AND t.typtype = 'c'
		ORDER BY t.oid, a.attnum`, list)
	_, err = collect(rows, err, "read fields of types", func(scan func(...any) error) (struct{}, error) {
		var oid, collation uint32
		var a Attribute
		if err := scan(&oid, &a.Name, &a.Formatted, &a.Type.OID, &collation, &a.Collate); err != nil {
			return struct{}{}, err
		}
		l.defs[oid].Attributes = append(l.defs[oid].Attributes, a)
		l.collations[collation] = true
		return struct{}{}, nil
	})
	return err
}

func (l *typeLoader) domainChecks(list string) error {
	rows, err := l.q.Query(l.ctx, `
		SELECT k.contypid, k.conname::text, coalesce(pg_get_constraintdef(k.oid), ''), k.convalidated, `+volatileCheck+`
		FROM pg_constraint k
		WHERE k.contypid IN (SELECT unnest($1::text::oid[])) AND k.contype = 'c'
		ORDER BY k.contypid, k.conname`, list)
	_, err = collect(rows, err, "read checks of domains", func(scan func(...any) error) (struct{}, error) {
		var oid uint32
		var c DomainDef
		if err := scan(&oid, &c.Name, &c.Def, &c.Validated, &c.Volatile); err != nil {
			return struct{}{}, err
		}
		if c.Def != "" {
			l.defs[oid].Checks = append(l.defs[oid].Checks, c)
		}
		return struct{}{}, nil
	})
	return err
}

// domainNeeds reads what defaults (recorded with the type) and checks use. A domain's types and collations are made
// before it; what an expression casts to beyond those counts as a need.
func (l *typeLoader) domainNeeds(list string) error {
	rows, err := l.q.Query(l.ctx, `
		WITH o(typ, name, classid, objid) AS (
		    SELECT t.oid, '', 'pg_type'::regclass, t.oid FROM pg_type t
		    WHERE t.oid IN (SELECT unnest($1::text::oid[])) AND t.typtype = 'd'
		    UNION ALL
		    SELECT k.contypid, k.conname::text, 'pg_constraint'::regclass, k.oid FROM pg_constraint k
		    WHERE k.contypid IN (SELECT unnest($1::text::oid[])) AND k.contype = 'c'
		)
		SELECT o.typ, o.name, r.relname::text, d.refobjid, pg_describe_object(d.refclassid, d.refobjid, 0),
		       coalesce(x.extname::text, '')
		FROM o
		JOIN pg_depend d ON d.classid = o.classid AND d.objid = o.objid AND d.objsubid = 0 AND d.deptype IN ('n', 'a')
		JOIN pg_class r ON r.oid = d.refclassid
		LEFT JOIN pg_depend e ON e.classid = d.refclassid AND e.objid = d.refobjid AND e.objsubid = 0 AND e.deptype = 'e'
		LEFT JOIN pg_extension x ON x.oid = e.refobjid
		WHERE d.refclassid NOT IN ('pg_namespace'::regclass, 'pg_extension'::regclass)
		ORDER BY 1, 2, 5`, list)
	_, err = collect(rows, err, "read dependencies of domains", func(scan func(...any) error) (struct{}, error) {
		var oid, object uint32
		var name, class string
		var need Need
		if err := scan(&oid, &name, &class, &object, &need.Object, &need.Extension); err != nil {
			return struct{}{}, err
		}
		d := l.defs[oid]
		if class == "pg_type" && d.Type.has(object) || class == "pg_collation" {
			return struct{}{}, nil
		}
		if name == "" {
			d.Needs = appendNew(d.Needs, need)
		}
		for i := range d.Checks {
			if d.Checks[i].Name == name {
				d.Checks[i].Needs = appendNew(d.Checks[i].Needs, need)
			}
		}
		return struct{}{}, nil
	})
	return err
}

// ordered puts collations first, then each type after what it is made of. Types cannot be recursive, so a walk ends.
func (l *typeLoader) ordered() ([]TypeDef, error) {
	out, err := l.userCollations()
	if err != nil {
		return nil, err
	}
	done := map[uint32]bool{}
	var visit func(oid uint32)
	visit = func(oid uint32) {
		t := l.types[oid]
		if t == nil || done[oid] {
			return
		}
		done[oid] = true
		visit(t.Elem)
		visit(t.Base)
		d := l.defs[oid]
		if d == nil {
			return
		}
		for i, a := range d.Attributes {
			visit(a.Type.OID)
			if t := l.types[a.Type.OID]; t != nil {
				d.Attributes[i].Type = *t
			}
		}
		out = append(out, *d)
	}
	for _, oid := range sortedKeys(l.defs) {
		visit(oid)
	}
	return out, nil
}

func (l *typeLoader) userCollations() ([]TypeDef, error) {
	// The columns for locales were renamed twice; to_jsonb finds whichever the server has. Below 16384 stand those that
	// initdb made out of the operating system's: they cannot be made again by name and version of another system.
	rows, err := l.q.Query(l.ctx, `
		SELECT n.nspname::text, k.collname::text, k.collprovider::text, k.collisdeterministic,
		       coalesce(j ->> 'collcollate', ''), coalesce(j ->> 'collctype', ''),
		       coalesce(j ->> 'colllocale', j ->> 'colliculocale', j ->> 'collcollate', ''), coalesce(j ->> 'collicurules', '')
		FROM pg_collation k JOIN pg_namespace n ON n.oid = k.collnamespace, to_jsonb(k) j
		WHERE k.oid IN (SELECT unnest($1::text::oid[])) AND k.oid >= 16384
		  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_collation'::regclass AND d.objid = k.oid AND d.deptype = 'e')
		ORDER BY 1, 2`, oidList(sortedKeys(l.collations)))
	return collect(rows, err, "read collations", func(scan func(...any) error) (TypeDef, error) {
		d := TypeDef{Collation: &Collation{}}
		var provider string
		err := scan(&d.Schema, &d.Name, &provider, &d.Collation.Deterministic, &d.Collation.Collate, &d.Collation.Ctype,
			&d.Collation.Locale, &d.Collation.Rules)
		d.Collation.Provider = first(provider)
		return d, err
	})
}

// EnumLabels gives the labels that an enum has now, in order, and nil when there is no such enum.
func EnumLabels(ctx context.Context, q Querier, schema, name string) ([]string, error) {
	var labels []string
	err := q.QueryRow(ctx, `
		SELECT ARRAY(SELECT e.enumlabel::text FROM pg_enum e
		             JOIN pg_type t ON t.oid = e.enumtypid JOIN pg_namespace n ON n.oid = t.typnamespace
		             WHERE n.nspname = $1::text AND t.typname = $2::text ORDER BY e.enumsortorder)`, schema, name).Scan(&labels)
	if err != nil {
		return nil, fmt.Errorf("read labels of %s: %w", Qualified(schema, name), err)
	}
	return labels, nil
}
