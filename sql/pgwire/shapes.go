package pgwire

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// shape is a query of psql: the items of its SELECT and what stands behind FROM.
type shape struct {
	items []string
	from  string
}

// catalogQuery answers the queries by which psql's \d commands look at the catalog; nil if it is another query. What
// changes between psql's releases are the items of the SELECT, so each item is answered by what it speaks of.
func (x *session) catalogQuery(source string) (*prepared, error) {
	if !strings.Contains(source, "pg_catalog.") {
		return nil, nil
	}
	p := &prepared{text: source}
	if strings.HasPrefix(source, "SELECT pg_catalog.pg_get_viewdef(") {
		p.columns = []column{textColumn("pg_get_viewdef")}
		p.rows = func(*session) *row.Batch { return batchOf(p.types0(), [][]any{{""}}) }
		return p, nil
	}
	s, ok := shapeOf(source)
	if !ok {
		return nil, nil
	}
	for _, item := range s.items {
		c := textColumn(itemName(item))
		if strings.HasSuffix(item, ".oid") {
			c.pg = pgType{oidOID, 4, -1}
		}
		p.columns = append(p.columns, c)
	}
	answer := func(rows func(x *session) [][]any) (*prepared, error) {
		p.rows = func(x *session) *row.Batch { return batchOf(p.types0(), rows(x)) }
		return p, nil
	}
	each := func(value func(v View, item string) any, filter func(v View) bool) (*prepared, error) {
		return answer(func(x *session) (out [][]any) {
			for _, v := range x.views() {
				if !filter(v) {
					continue
				}
				var r []any
				for _, item := range s.items {
					r = append(r, value(v, item))
				}
				out = append(out, r)
			}
			return out
		})
	}
	oid := match(s.from, `(?:oid|attrelid|indrelid) = '(\d+)'`)
	ofOID := func(v View) bool { return strconv.Itoa(int(oidOf(v.Name))) == oid }
	switch {
	case strings.HasPrefix(s.from, "pg_catalog.pg_class c, pg_catalog.pg_class c2, pg_catalog.pg_index i"):
		return each(indexItem, func(v View) bool { return ofOID(v) && len(v.Key) > 0 })
	case strings.HasPrefix(s.from, "pg_catalog.pg_class c ") && oid != "":
		return each(classItem, ofOID)
	case strings.HasPrefix(s.from, "pg_catalog.pg_class c "):
		named, err := patterns(s.from)
		if err != nil {
			return nil, err
		}
		kinds := match(s.from, `relkind IN \(([^)]*)\)`)
		return each(classItem, func(v View) bool { return named(v) && (kinds == "" || strings.Contains(kinds, "'"+relkind(v)+"'")) })
	case strings.HasPrefix(s.from, "pg_catalog.pg_attribute a ") && oid != "":
		return answer(func(x *session) (out [][]any) {
			for _, v := range x.views() {
				if !ofOID(v) {
					continue
				}
				for _, c := range columnsOf(v.Schema) {
					var r []any
					for _, item := range s.items {
						r = append(r, attributeItem(c, item))
					}
					out = append(out, r)
				}
			}
			return out
		})
	case strings.HasPrefix(s.from, "pg_catalog.pg_database d"):
		return answer(func(*session) [][]any {
			var r []any
			for _, item := range s.items {
				r = append(r, first(item, []pair{{"datname", database}, {"pg_get_userbyid", "weir"}, {"pg_encoding_to_char", "UTF8"}, {"datlocprovider", "libc"}, {"datcollate", "C"}, {"datctype", "C"}}))
			}
			return [][]any{r}
		})
	case strings.HasPrefix(s.from, "pg_catalog.pg_namespace n"):
		return answer(func(*session) [][]any {
			var r []any
			for _, item := range s.items {
				r = append(r, first(item, []pair{{"nspname", schema}, {"pg_get_userbyid", "weir"}}))
			}
			return [][]any{r}
		})
	}
	// What \d asks besides: a view has none of it.
	for _, t := range []string{"pg_policy", "pg_statistic_ext", "pg_publication", "pg_inherits", "pg_trigger", "pg_constraint", "pg_foreign", "pg_rewrite", "pg_index", "pg_roles", "pg_proc",
		"pg_description", "pg_extension", "pg_am", "pg_tablespace"} {
		if strings.Contains(s.from, "pg_catalog."+t) {
			return answer(func(*session) [][]any { return nil })
		}
	}
	return nil, nil
}

type pair struct{ in, value string }

// first is the value of the first pair that the item speaks of, empty if it speaks of none.
func first(item string, pairs []pair) any {
	for _, p := range pairs {
		if strings.Contains(item, p.in) {
			return p.value
		}
	}
	return ""
}

// relkind is Postgres's letter for what a view is.
func relkind(v View) string {
	if v.Table {
		return "r"
	}
	return "m"
}

// classItem is what an item of a query over pg_class is for a view.
func classItem(v View, item string) any {
	indexed := "f"
	if len(v.Key) > 0 {
		indexed = "t"
	}
	switch {
	case item == "c.relkind":
		return relkind(v)
	case item == "c.oid":
		return strconv.Itoa(int(oidOf(v.Name)))
	case strings.HasPrefix(item, "CASE c.relkind") && v.Table:
		return "table"
	case strings.HasPrefix(item, "CASE c.relkind"):
		return "materialized view"
	}
	return first(item, []pair{{"relname", v.Name}, {"nspname", schema}, {"pg_get_userbyid", "weir"}, {"relchecks", "0"}, {"relhasindex", indexed}, {"relhasrules", "f"},
		{"relhastriggers", "f"}, {"relrowsecurity", "f"}, {"relforcerowsecurity", "f"}, {"relhasoids", "f"}, {"relispartition", "f"}, {"reltablespace", "0"},
		{"CASE c.relpersistence", "permanent"}, {"relpersistence", "p"}, {"relreplident", "d"}, {"amname", "weir"}})
}

func attributeItem(c column, item string) any {
	notNull := "f"
	if c.typ.NotNull {
		notNull = "t"
	}
	switch {
	case strings.Contains(item, "pg_get_expr"), strings.Contains(item, "collname"):
		return nil
	case strings.Contains(item, "attstorage"):
		return "p"
	case strings.Contains(item, "attstattarget"), strings.Contains(item, "col_description"):
		return nil
	}
	return first(item, []pair{{"attname", c.name}, {"format_type", typeName(c.pg.oid, c.pg.mod)}, {"attnotnull", notNull}})
}

// indexItem shows a view's key as the index by which it is looked up.
func indexItem(v View, item string) any {
	var cols []string
	for _, k := range v.Key {
		cols = append(cols, v.Schema[k].Name)
	}
	name, primary := v.Name+"_key", "f"
	if v.Table {
		name, primary = v.Name+"_pkey", "t"
	}
	return first(item, []pair{{"relname", name}, {"indisprimary", primary}, {"indisunique", "t"}, {"indisclustered", "f"}, {"indisvalid", "t"},
		{"pg_get_indexdef", "CREATE UNIQUE INDEX " + name + " ON " + schema + "." + v.Name + " USING hash (" + strings.Join(cols, ", ") + ")"},
		{"condeferrable", "f"}, {"condeferred", "f"}, {"indisreplident", "f"}, {"reltablespace", "0"}})
}

// patterns is the filter of psql's name patterns.
func patterns(from string) (func(v View) bool, error) {
	all := []struct {
		column string
		of     func(v View) string
	}{{"relname", func(v View) string { return v.Name }}, {"nspname", func(View) string { return schema }}}
	var filters []func(v View) bool
	for _, c := range all {
		text := match(from, c.column+` OPERATOR\(pg_catalog\.~\) '((?:[^']|'')*)'`)
		if text == "" {
			continue
		}
		re, err := regexp.Compile(strings.ReplaceAll(text, "''", "'"))
		if err != nil {
			return nil, errs.New(errs.SQLSyntax, "the pattern %s cannot be used: %w", text, err)
		}
		filters = append(filters, func(v View) bool { return re.MatchString(c.of(v)) })
	}
	return func(v View) bool {
		for _, f := range filters {
			if !f(v) {
				return false
			}
		}
		return true
	}, nil
}

func match(s, pattern string) string {
	if m := regexp.MustCompile(pattern).FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return ""
}

// shapeOf takes a SELECT apart at the commas and at the FROM that lie in no parentheses.
func shapeOf(source string) (shape, bool) {
	text := strings.Join(strings.Fields(source), " ")
	const head = "SELECT "
	if len(text) < len(head) || !strings.EqualFold(text[:len(head)], head) {
		return shape{}, false
	}
	text = strings.TrimPrefix(text[len(head):], "DISTINCT ")
	var s shape
	depth, begin := 0, 0
	for i := 0; i < len(text); {
		if n := skip(text[i:]); n > 0 {
			i += n
			continue
		}
		switch c := text[i]; {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			s.items = append(s.items, strings.TrimSpace(text[begin:i]))
			begin = i + 1
		case depth == 0 && strings.HasPrefix(text[i:], " FROM "):
			s.items = append(s.items, strings.TrimSpace(text[begin:i]))
			s.from = text[i+len(" FROM "):]
			return s, true
		}
		i++
	}
	return shape{}, false
}

// itemName is the name of the column that an item makes.
func itemName(item string) string {
	if i := strings.LastIndex(strings.ToUpper(item), " AS "); i >= 0 && !strings.Contains(item[i:], ")") {
		return unquote(item[i+len(" AS "):])
	}
	if i := strings.LastIndexByte(item, '.'); i >= 0 && !strings.ContainsAny(item[i:], "() ") {
		return item[i+1:]
	}
	if m := match(item, `^(?:pg_catalog\.)?(\w+)\(`); m != "" {
		return m
	}
	return "?column?"
}
