package diff

import "fmt"

// inner is a relation in a subquery, with its columns.
func (g *generator) inner() (string, []column) {
	rel := pick(g, g.relations())
	a := g.alias()
	var cols []column
	for _, c := range rel.columns {
		cols = append(cols, column{a + "." + c.text, c.class})
	}
	return rel.name + " AS " + a, cols
}

// correlation is a condition of a subquery that mostly speaks of the query around it: not only by equality, not only in
// one comparison.
func (g *generator) correlation(scope, inner []column) *node {
	cat := "expression boolean"
	o := pick(g, scope)
	i := g.columnOf(inner, o.class)
	if i == nil || g.one(5) {
		return g.condition(append(append([]column(nil), inner...), scope...), 1)
	}
	c := of(cat, "{0} "+pick(g, []string{"=", "=", "=", "<", "<>", "IS NOT DISTINCT FROM"})+" {1}", "", i, of("expression "+o.class, o.text, ""))
	if g.one(6) {
		return of(cat, "({0} OR {1})", "", c, g.condition(inner, 1))
	}
	return c
}

func (g *generator) correlations(scope, inner []column) *node {
	conds := []*node{}
	for len(conds) < 3 && !g.one(3) {
		conds = append(conds, g.correlation(scope, inner))
	}
	if g.one(3) {
		conds = append(conds, g.condition(inner, 1))
	}
	if len(conds) == 0 {
		return optional("")
	}
	return optional(" WHERE {0}", list("conjuncts", " AND ", conds...))
}

// asked is a condition that asks a query, as a value: it may stand wherever a condition may.
func (g *generator) asked(scope []column, depth int) *node {
	cat := "expression boolean"
	from, inner := g.inner()
	where := g.correlations(scope, inner)
	no := pick(g, []string{"", "NOT "})
	i := pick(g, inner)
	col := of("expression "+i.class, i.text, "")
	x := g.expression(scope, i.class, 1)
	switch g.r.IntN(7) {
	case 0, 1:
		return of(cat, "("+no+"EXISTS (SELECT {0} FROM "+from+"{1}))", "", col, where)
	case 2:
		return of(cat, "({0} "+no+"IN (SELECT {1} FROM "+from+"{2}))", "", x, col, where)
	case 3:
		op := pick(g, []string{"=", "<>", "<", "<=", ">", ">="}) + pick(g, []string{" ANY", " ALL", " SOME"})
		return of(cat, "({0} "+op+" (SELECT {1} FROM "+from+"{2}))", "", x, col, where)
	case 4:
		j := pick(g, inner)
		return of(cat, "(({0}, {1}) "+no+"IN (SELECT {2}, {3} FROM "+from+"{4}))", "", x, g.expression(scope, j.class, 1), col, of("expression "+j.class, j.text, ""), where)
	case 5:
		f, more := g.inner()
		m := g.columnOf(more, i.class)
		if m == nil {
			m = g.literal(i.class)
		}
		op := pick(g, []string{"UNION", "UNION ALL", "EXCEPT", "INTERSECT"})
		return of(cat, "({0} IN (SELECT {1} FROM "+from+"{2} "+op+" SELECT {3} FROM "+f+"{4}))", "", x, col, where, m, g.correlations(scope, more))
	}
	// An aggregate without groups always has a row.
	v, class := g.aggregate(inner, pick(g, []string{"int", "decimal", "string"}))
	having := optional("")
	if g.one(3) {
		having = optional(" HAVING {0} > 1", of("expression int", "COUNT(*)", ""))
	}
	return of(cat, "({0} "+pick(g, []string{"=", "<", "<>"})+" (SELECT {1} FROM "+from+"{2}{3}))", "", g.expression(scope, class, 1), v, where, having)
}

// correlatedValue is a query as a value.
func (g *generator) correlatedValue(scope []column, class string) *node {
	from, inner := g.inner()
	where := g.correlations(scope, inner)
	if i := g.columnOf(inner, class); i != nil && g.one(3) {
		dir, pg := pick(g, []string{"", " DESC"}), " NULLS FIRST"
		if dir != "" {
			pg = dir + " NULLS LAST"
		}
		limit := fmt.Sprint(" LIMIT 1 OFFSET ", g.r.IntN(2))
		return of("expression "+class, "(SELECT {0} FROM "+from+"{1} ORDER BY {0}"+dir+limit+")", "(SELECT {0} FROM "+from+"{1} ORDER BY {0}"+pg+limit+")", i, where)
	}
	if o := g.columnOf(scope, class); o != nil && class == "int" && g.one(2) { // a column around inside of the aggregate
		if i := g.columnOf(inner, class); i != nil {
			return of("expression "+class, "(SELECT "+pick(g, []string{"SUM", "MAX", "COUNT"})+"({0} + {1}) FROM "+from+"{2})", "", i, o, where)
		}
	}
	if g.one(4) {
		v, _ := g.aggregate(inner, class)
		return of("expression "+class, "(SELECT COALESCE({0}, {1}) FROM "+from+"{2})", "", v, g.expression(scope, class, 1), where)
	}
	v, _ := g.aggregate(inner, class)
	return of("expression "+class, "(SELECT {0} FROM "+from+"{1})", "", v, where)
}

// lateral joins a query that names the columns before it.
func (g *generator) lateral(n *node, cols []column) (*node, []column) {
	from, inner := g.inner()
	where := g.correlations(cols, inner)
	a := g.alias()
	class := g.class()
	out := []column{{a + ".c0", class}, {a + ".c1", "int"}}
	var q *node
	switch g.r.IntN(3) {
	case 0:
		v, _ := g.aggregate(inner, class)
		q = of("lateral", "SELECT {0} AS c0, COUNT(*) AS c1 FROM "+from+"{1}", "", v, where)
	case 1:
		k := g.expression(append(append([]column(nil), inner...), cols...), class, 1)
		q = of("lateral", "SELECT {0} AS c0, 1 AS c1 FROM "+from+"{1}", "", k, where)
	default:
		k, i := g.expression(inner, class, 1), g.expression(inner, "int", 1)
		limit := fmt.Sprint(" LIMIT ", 1+g.r.IntN(3))
		q = of("lateral", "SELECT {0} AS c0, {1} AS c1 FROM "+from+"{2} ORDER BY c0, c1 DESC"+limit, "SELECT {0} AS c0, {1} AS c1 FROM "+from+"{2} ORDER BY c0 NULLS FIRST, c1 DESC NULLS LAST"+limit, k, i, where)
	}
	all := append(append([]column(nil), cols...), out...)
	switch g.r.IntN(3) {
	case 0:
		return of("from", "{0} CROSS JOIN LATERAL ({1}) AS "+a, "", n, q), all
	case 1:
		return of("from", "{0} LEFT JOIN LATERAL ({1}) AS "+a+" ON {2}", "", n, q, of("expression boolean", "TRUE", "")), all
	}
	return of("from", "{0}, LATERAL ({1}) AS "+a, "", n, q), all
}
