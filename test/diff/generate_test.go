package diff

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generator makes random queries that mean the same in both dialects. Where the dialects differ, the Postgres text says
// what Flink means.
type generator struct {
	r       *rand.Rand
	tables  []*table
	aliases int
	ctes    []relation
}

// column is what an expression can name.
type column struct {
	text, class string
}

// relation is a name that FROM can use.
type relation struct {
	name    string
	columns []column // without a qualifier
}

func (g *generator) one(n int) bool { return g.r.IntN(n) == 0 }

func pick[T any](g *generator, from []T) T { return from[g.r.IntN(len(from))] }

func (g *generator) class() string {
	if g.one(2) {
		return "int"
	}
	return pick(g, []string{"int", "decimal", "string", "string", "boolean", "date", "timestamp", "double"})
}

func (g *generator) alias() string {
	g.aliases++
	return fmt.Sprintf("x%d", g.aliases)
}

func (g *generator) relations() []relation {
	var out []relation
	for _, t := range g.tables {
		rel := relation{name: t.name}
		for _, c := range t.columns {
			rel.columns = append(rel.columns, column{c.name, c.class})
		}
		out = append(out, rel)
	}
	return append(append(out, g.ctes...), g.ctes...)
}

func (g *generator) columnOf(scope []column, class string) *node {
	var fit []column
	for _, c := range scope {
		if c.class == class {
			fit = append(fit, c)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return of("expression "+class, pick(g, fit).text, "")
}

func (g *generator) literal(class string) *node {
	c := classNamed(class)
	if g.one(8) {
		return c.literal("NULL")
	}
	return c.literal(pick(g, c.values))
}

// expression over the columns of a scope.
func (g *generator) expression(scope []column, class string, depth int) *node {
	cat := "expression " + class
	if depth <= 0 || g.one(3) {
		if c := g.columnOf(scope, class); c != nil && !g.one(5) {
			return c
		}
		return g.literal(class)
	}
	sub := func(class string) *node { return g.expression(scope, class, depth-1) }
	switch g.r.IntN(4) {
	case 0:
		e := ""
		ks := []*node{g.condition(scope, depth-1), sub(class)}
		if g.one(3) {
			e, ks = " WHEN {2} THEN {3}", append(ks, g.condition(scope, depth-1), sub(class))
		}
		if !g.one(4) {
			ks = append(ks, sub(class))
			e += fmt.Sprintf(" ELSE {%d}", len(ks)-1)
		}
		if g.one(4) {
			c := g.class()
			return of(cat, "CASE {0} WHEN {1} THEN {2} WHEN {3} THEN {4} END", "", g.expression(scope, c, 1), g.literal(c), sub(class), g.literal(c), sub(class))
		}
		return of(cat, "CASE WHEN {0} THEN {1}"+e+" END", "", ks...)
	case 1:
		if g.one(2) {
			return of(cat, "COALESCE({0}, {1})", "", sub(class), sub(class))
		}
		return of(cat, "NULLIF({0}, {1})", "", sub(class), sub(class))
	}
	switch class {
	case "int":
		switch g.r.IntN(9) {
		case 0, 1:
			return of(cat, "({0} + {1})", "", sub("int"), sub("int"))
		case 2:
			return of(cat, "({0} - {1})", "", sub("int"), sub("int"))
		case 3:
			return of(cat, "({0} * 2)", "", sub("int"))
		case 4:
			return of(cat, "({0} / NULLIF({1}, 0))", "", sub("int"), sub("int"))
		case 5:
			return of(cat, "MOD({0}, NULLIF({1}, 0))", "", sub("int"), sub("int"))
		case 6:
			return of(cat, "CHAR_LENGTH({0})", "", sub("string"))
		case 7:
			return of(cat, "EXTRACT(DAY FROM {0})", "EXTRACT(DAY FROM {0})::bigint", sub("date"))
		default:
			return of(cat, "ABS(-{0})", "", of(cat, "({0})", "", sub("int")))
		}
	case "decimal":
		switch g.r.IntN(4) {
		case 0:
			return of(cat, "({0} + {1})", "", sub("decimal"), sub("decimal"))
		case 1:
			return of(cat, "({0} - {1})", "", sub("decimal"), sub("int"))
		case 2:
			return of(cat, "CAST({0} AS DECIMAL(12, 2))", "", sub("int"))
		default:
			return of(cat, "CAST({0} AS DECIMAL(14, 1))", "", sub("decimal"))
		}
	case "double":
		switch g.r.IntN(3) {
		case 0:
			return of(cat, "({0} + {1})", "", sub("double"), sub("double"))
		case 1:
			return of(cat, "({0} - {1})", "", sub("double"), sub("double"))
		default:
			return of(cat, "CAST({0} AS DOUBLE)", "CAST({0} AS float8)", sub("int"))
		}
	case "string":
		switch g.r.IntN(5) {
		case 0:
			return of(cat, "({0} || {1})", "", sub("string"), sub("string"))
		case 1:
			return of(cat, "UPPER({0})", "", sub("string"))
		case 2:
			return of(cat, "SUBSTRING({0} FROM 1 FOR 2)", "", sub("string"))
		case 3:
			return of(cat, "CAST({0} AS STRING)", "CAST({0} AS text)", sub("int"))
		default:
			return of(cat, "TRIM(({0} || ' '))", "", sub("string"))
		}
	case "boolean":
		return of(cat, "({0})", "", g.condition(scope, depth-1))
	case "date":
		if g.one(2) {
			return of(cat, "CAST({0} AS DATE)", "", sub("timestamp"))
		}
	case "timestamp":
		if g.one(2) {
			return of(cat, "CAST({0} AS TIMESTAMP(3))", "", sub("date"))
		}
		return of(cat, "({0} + INTERVAL '1' HOUR)", "", sub("timestamp"))
	}
	return sub(class)
}

// condition is BOOLEAN.
func (g *generator) condition(scope []column, depth int) *node {
	cat := "expression boolean"
	if depth > 0 && g.one(3) {
		switch g.r.IntN(5) {
		case 0, 1:
			return of(cat, "({0} AND {1})", "", g.condition(scope, depth-1), g.condition(scope, depth-1))
		case 2, 3:
			return of(cat, "({0} OR {1})", "", g.condition(scope, depth-1), g.condition(scope, depth-1))
		default:
			return of(cat, "(NOT {0})", "", g.condition(scope, depth-1))
		}
	}
	class := g.class()
	if c := g.columnOf(scope, class); c == nil && len(scope) > 0 {
		class = pick(g, scope).class
	}
	x := func() *node { return g.expression(scope, class, depth-1) }
	switch g.r.IntN(10) {
	case 0:
		return of(cat, "({0} BETWEEN {1} AND {2})", "", x(), g.literal(class), x())
	case 1:
		no := pick(g, []string{"", "NOT "})
		return of(cat, "({0} "+no+"IN ({1}, {2}))", "", x(), g.literal(class), g.literal(class))
	case 2:
		return of(cat, "({0} IS "+pick(g, []string{"", "NOT "})+"NULL)", "", x())
	case 3:
		if c := g.columnOf(scope, "string"); c != nil {
			return of(cat, "({0} "+pick(g, []string{"", "NOT "})+"LIKE '"+pick(g, []string{"a%", "%b", "_b%", "%", "a_", "ab"})+"')", "", c)
		}
	case 4:
		return of(cat, "({0} IS "+pick(g, []string{"", "NOT "})+"DISTINCT FROM {1})", "", x(), x())
	case 5:
		if class == "boolean" {
			return of(cat, "({0} IS "+pick(g, []string{"TRUE", "NOT TRUE", "FALSE", "NOT FALSE"})+")", "", x())
		}
	}
	op := pick(g, []string{"=", "=", "<>", "<", "<=", ">", ">="})
	return of(cat, "({0} "+op+" {1})", "", x(), x())
}

// source is one item of FROM, with the columns that it brings.
func (g *generator) source(depth int) (*node, []column) {
	a := g.alias()
	var cols []column
	if depth > 0 && g.one(4) {
		classes := g.outputs()
		q := g.query(classes, depth-1)
		for i, c := range classes {
			cols = append(cols, column{fmt.Sprintf("%s.c%d", a, i), c})
		}
		return of("source", "({0}) AS "+a, "", q), cols
	}
	if g.one(15) {
		var rows []string
		var ks []*node
		classes := g.outputs()
		var names []string
		for i, c := range classes {
			cols = append(cols, column{fmt.Sprintf("%s.c%d", a, i), c})
			names = append(names, fmt.Sprintf("c%d", i))
		}
		for range 1 + g.r.IntN(3) {
			var vs []string
			for _, c := range classes {
				vs = append(vs, fmt.Sprintf("{%d}", len(ks)))
				ks = append(ks, g.literal(c))
			}
			rows = append(rows, "("+strings.Join(vs, ", ")+")")
		}
		return of("source", "(VALUES "+strings.Join(rows, ", ")+") AS "+a+"("+strings.Join(names, ", ")+")", "", ks...), cols
	}
	t := pick(g, g.relations())
	for _, c := range t.columns {
		cols = append(cols, column{a + "." + c.text, c.class})
	}
	return of("source", t.name+" AS "+a, ""), cols
}

// on is the condition of a join, mostly with an equality.
func (g *generator) on(left, right []column, depth int) *node {
	var conds []*node
	for range 1 + g.r.IntN(2) {
		l := pick(g, left)
		if r := g.columnOf(right, l.class); r != nil {
			left := of("expression "+l.class, l.text, "")
			switch g.r.IntN(8) {
			case 0:
				conds = append(conds, of("expression boolean", "{0} IS NOT DISTINCT FROM {1}", "", left, r))
			case 1:
				conds = append(conds, of("expression boolean", "{0} = {1}", "", g.expression([]column{l}, l.class, 1), r))
			default:
				conds = append(conds, of("expression boolean", "{0} = {1}", "", left, r))
			}
		}
	}
	if len(conds) == 0 || g.one(4) {
		conds = append(conds, g.condition(append(append([]column(nil), left...), right...), depth))
	}
	return list("conjuncts", " AND ", conds...)
}

func (g *generator) from(depth int) (*node, []column) {
	n, cols := g.source(depth)
	for joins := g.r.IntN(8); joins >= 4 && joins < 8; joins += 3 {
		right, rc := g.source(depth - 1)
		kind := pick(g, []string{"JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", "USING"})
		switch kind {
		case "CROSS JOIN":
			n = of("from", "{0} CROSS JOIN {1}", "", n, right)
		case "FULL JOIN": // Postgres takes nothing but equalities there
			l := pick(g, cols)
			r := g.columnOf(rc, l.class)
			if r == nil {
				continue
			}
			n = of("from", "{0} FULL JOIN {1} ON "+l.text+" = {2}", "", n, right, r)
		case "USING": // every table has a column a of whole numbers
			if right.flink[0] == '(' || !strings.HasPrefix(right.flink, "t") || !strings.HasPrefix(n.flink, "t") {
				continue
			}
			n = of("from", "{0} "+pick(g, []string{"", "LEFT ", "RIGHT "})+"JOIN {1} USING (a)", "", n, right)
		default:
			n = of("from", "{0} "+kind+" {1} ON {2}", "", n, right, g.on(cols, rc, 1))
		}
		cols = append(append([]column(nil), cols...), rc...)
	}
	if g.one(8) {
		return g.lateral(n, cols)
	}
	return n, cols
}

// subquery is a conjunct of WHERE that asks a query.
func (g *generator) subquery(scope []column, depth int) *node {
	cat := "expression boolean"
	rel := pick(g, g.relations())
	a := g.alias()
	var inner []column
	for _, c := range rel.columns {
		inner = append(inner, column{a + "." + c.text, c.class})
	}
	conds := []*node{}
	if !g.one(3) {
		o := pick(g, scope)
		if i := g.columnOf(inner, o.class); i != nil {
			conds = append(conds, of(cat, "{0} = {1}", "", i, of("expression "+o.class, o.text, "")))
		}
		if g.one(4) { // a second column
			o := pick(g, scope)
			if i := g.columnOf(inner, o.class); i != nil {
				conds = append(conds, of(cat, "{0} = {1}", "", of("expression "+o.class, o.text, ""), i))
			}
		}
	}
	correlated := len(conds) > 0
	if g.one(2) {
		conds = append(conds, g.condition(inner, 1))
	}
	where := optional("")
	if len(conds) > 0 {
		where = optional(" WHERE {0}", list("conjuncts", " AND ", conds...))
	}
	no := pick(g, []string{"", "NOT "})
	if i := g.columnOf(inner, "int"); i != nil && g.one(6) {
		// One that is compared by an order can only be asked whether it has a row.
		if o := g.columnOf(scope, "int"); o != nil {
			conds = append(conds, of(cat, "{0} < {1}", "", i, o))
			return of(cat, no+"EXISTS (SELECT 1 FROM "+rel.name+" AS "+a+" WHERE {0})", "", list("conjuncts", " AND ", conds...))
		}
	}
	switch g.r.IntN(3) {
	case 0:
		return of(cat, no+"EXISTS (SELECT 1 FROM "+rel.name+" AS "+a+"{0})", "", where)
	case 1:
		i := pick(g, inner)
		x := g.expression(scope, i.class, 1)
		if !correlated && depth > 0 && g.one(3) {
			return of(cat, "{0} "+no+"IN ({1})", "", x, g.query([]string{i.class}, depth-1))
		}
		return of(cat, "{0} "+no+"IN (SELECT {1} FROM "+rel.name+" AS "+a+"{2})", "", x, of("expression "+i.class, i.text, ""), where)
	}
	v, class := g.aggregate(inner, pick(g, []string{"int", "int", "string", "decimal", "date"}))
	return of(cat, "{0} "+pick(g, []string{"=", "<", ">="})+" (SELECT {1} FROM "+rel.name+" AS "+a+"{2})", "", g.expression(scope, class, 1), v, where)
}

// aggregate is a call over rows of a scope, of the class that is wanted if there is one.
func (g *generator) aggregate(scope []column, class string) (*node, string) {
	cat := "expression " + class
	filter := optional("")
	if g.one(5) {
		filter = optional(" FILTER (WHERE {0})", g.condition(scope, 1))
	}
	distinct := ""
	if g.one(5) {
		distinct = "DISTINCT "
	}
	arg := func(c string) *node { return g.expression(scope, c, 1) }
	if class == "int" {
		switch g.r.IntN(5) {
		case 0:
			return of(cat, "COUNT(*){0}", "", filter), class
		case 1:
			return of(cat, "COUNT("+distinct+"{0}){1}", "", arg(pick(g, scope).class), filter), class
		case 2:
			return of(cat, "AVG("+distinct+"{0}){1}", "TRUNC(AVG("+distinct+"{0}){1})::bigint", arg(class), filter), class
		}
	}
	switch class {
	case "boolean":
		return of(cat, "(MIN({0}){1} > 1)", "", arg("int"), filter), class
	case "int", "decimal", "double":
		if g.one(3) {
			return of(cat, "SUM("+distinct+"{0}){1}", "", arg(class), filter), class
		}
		if c := g.columnOf(scope, class); class == "decimal" && c != nil && g.one(3) {
			return of(cat, "AVG("+distinct+"{0}){1}", "ROUND(AVG("+distinct+"{0}){1}, 6)", c, filter), class
		}
		if class == "double" && g.one(3) {
			return of(cat, "AVG("+distinct+"{0}){1}", "", arg(class), filter), class
		}
	}
	return of(cat, pick(g, []string{"MIN", "MAX"})+"({0}){1}", "", arg(class), filter), class
}

// outputs are the classes of some columns.
func (g *generator) outputs() []string {
	out := []string{g.class()}
	for g.one(2) || len(out) < 2 {
		out = append(out, g.class())
		if len(out) == 4 {
			break
		}
	}
	return out
}

func query(classes []string, flink string, kids ...*node) *node {
	return of("query "+strings.Join(classes, ","), flink, "", kids...)
}

func items(es []*node) *node {
	n := &node{category: "items"}
	for i, e := range es {
		if i > 0 {
			n.flink += ", "
		}
		n.flink += fmt.Sprintf("{%d} AS c%d", i, i)
		n.kids = append(n.kids, e)
	}
	return n
}

func orderBy(g *generator, columns []string) (flink, postgres string) {
	var f, p []string
	for _, c := range columns {
		if g.one(2) {
			f, p = append(f, c+" DESC"), append(p, c+" DESC NULLS LAST")
		} else {
			f, p = append(f, c), append(p, c+" NULLS FIRST")
		}
	}
	return strings.Join(f, ", "), strings.Join(p, ", ")
}

// query whose columns are c0, c1, .. of these classes.
func (g *generator) query(classes []string, depth int) *node {
	if depth > 0 {
		switch g.r.IntN(9) {
		case 0, 1:
			op := pick(g, []string{"UNION", "UNION ALL", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"})
			return query(classes, "({0}) "+op+" ({1})", g.query(classes, depth-1), g.query(classes, depth-1))
		case 2:
			var cs []string
			for i := range classes {
				cs = append(cs, fmt.Sprintf("c%d", i))
			}
			f, p := orderBy(g, cs)
			limit := fmt.Sprint(" LIMIT ", 1+g.r.IntN(4))
			if g.one(4) {
				limit += fmt.Sprint(" OFFSET ", 1+g.r.IntN(2))
			}
			a := g.alias()
			all := strings.Join(cs, ", ")
			n := query(classes, "SELECT "+all+" FROM ({0}) AS "+a+" ORDER BY "+f+limit, g.query(classes, depth-1))
			n.postgres = "SELECT " + all + " FROM ({0}) AS " + a + " ORDER BY " + p + limit
			return n
		case 3:
			return g.topN(classes, depth)
		case 4:
			name := g.alias()
			cs := g.outputs()
			body := g.query(cs, depth-1)
			rel := relation{name: name}
			for i, c := range cs {
				rel.columns = append(rel.columns, column{fmt.Sprintf("c%d", i), c})
			}
			g.ctes = append(g.ctes, rel)
			n := query(classes, "WITH "+name+" AS ({0}) {1}", body, g.selected(classes, depth-1))
			g.ctes = g.ctes[:len(g.ctes)-1]
			return n
		}
	}
	return g.selected(classes, depth)
}

// topN numbers the rows of each partition in a total order.
func (g *generator) topN(classes []string, depth int) *node {
	var cs []string
	for i := range classes {
		cs = append(cs, fmt.Sprintf("c%d", i))
	}
	f, p := orderBy(g, cs[1:])
	if len(cs) == 1 {
		f, p = orderBy(g, cs)
	}
	part := "PARTITION BY c0 "
	if g.one(4) {
		part = ""
		f, p = orderBy(g, cs)
	}
	a, b := g.alias(), g.alias()
	out := strings.Join(cs, ", ")
	if classes[len(classes)-1] == "int" && g.one(2) {
		out = strings.Join(append(append([]string(nil), cs[:len(cs)-1]...), "rn AS "+cs[len(cs)-1]), ", ")
	}
	cond := pick(g, []string{" WHERE rn <= 2", " WHERE rn = 1", " WHERE rn < 4", " WHERE 1 >= rn", " WHERE rn <= 3 AND c0 IS NOT NULL"})
	write := func(order string) string {
		return "SELECT " + out + " FROM (SELECT " + strings.Join(cs, ", ") + ", ROW_NUMBER() OVER (" + part + "ORDER BY " + order + ") AS rn FROM ({0}) AS " + a + ") AS " + b + cond
	}
	n := query(classes, write(f), g.query(classes, depth-1))
	n.postgres = write(p)
	return n
}

func (g *generator) selected(classes []string, depth int) *node {
	from, scope := g.from(depth)
	where := optional("")
	var conds []*node
	if g.one(6) {
		from, scope, conds = g.chain(depth)
	}
	for g.one(2) && len(conds) < 3 {
		conds = append(conds, g.condition(scope, 2))
	}
	if g.one(4) {
		conds = append(conds, g.subquery(scope, depth))
	}
	if g.one(5) {
		c := g.asked(scope, depth)
		switch g.r.IntN(4) {
		case 0:
			c = of(c.category, "({0} OR {1})", "", c, g.condition(scope, 1))
		case 1:
			c = of(c.category, "(NOT {0})", "", c)
		case 2:
			c = of(c.category, "({0} IS NULL)", "", c)
		}
		conds = append(conds, c)
	}
	if len(conds) > 0 {
		where = optional(" WHERE {0}", list("conjuncts", " AND ", conds...))
	}
	var es []*node
	if g.one(3) {
		return g.grouped(classes, from, where, scope)
	}
	for _, c := range classes {
		e := g.expression(scope, c, 2)
		if g.one(12) {
			if e = g.correlatedValue(scope, c); c == "boolean" {
				e = g.asked(scope, depth)
			}
			es = append(es, e)
			continue
		}
		if g.one(16) {
			rel := pick(g, g.relations())
			a := g.alias()
			var inner []column
			for _, c := range rel.columns {
				inner = append(inner, column{a + "." + c.text, c.class})
			}
			v, _ := g.aggregate(inner, c)
			o := pick(g, scope)
			w := optional("")
			if i := g.columnOf(inner, o.class); i != nil && !g.one(3) {
				w = optional(" WHERE {0} = "+o.text, i)
			}
			if i := g.columnOf(inner, c); i != nil && g.one(3) {
				// One row of several is taken: the order says which.
				e = of("expression "+c, "(SELECT {0} FROM "+rel.name+" AS "+a+"{1} ORDER BY {0} DESC LIMIT 1)", "(SELECT {0} FROM "+rel.name+" AS "+a+"{1} ORDER BY {0} DESC NULLS LAST LIMIT 1)", i, w)
				es = append(es, e)
				continue
			}
			if g.one(3) {
				v = of(v.category, "COALESCE({0}, {1})", "", v, g.literal(c))
			}
			e = of("expression "+c, "(SELECT {0} FROM "+rel.name+" AS "+a+"{1})", "", v, w)
		}
		es = append(es, e)
	}
	distinct := ""
	if g.one(6) {
		distinct = "DISTINCT "
	}
	return query(classes, "SELECT "+distinct+"{0} FROM {1}{2}", items(es), from, where)
}

// grouped is a SELECT with aggregates: keys are the first columns of some outputs.
func (g *generator) grouped(classes []string, from, where *node, scope []column) *node {
	var es, keys []*node
	var visible []column
	for _, c := range classes {
		if k := g.columnOf(scope, c); k != nil && g.one(2) {
			es = append(es, k)
			keys = append(keys, k)
			visible = append(visible, column{k.flink, c})
			continue
		}
		v, _ := g.aggregate(scope, c)
		if g.one(4) {
			v = of(v.category, "COALESCE({0}, {1})", "", v, g.literal(c))
		}
		es = append(es, v)
	}
	if len(keys) == 0 && g.one(2) {
		c := pick(g, scope)
		keys = append(keys, of("expression "+c.class, c.text, ""))
		visible = append(visible, c)
	}
	group := &node{category: "group"}
	if len(keys) > 0 {
		var names []string
		for _, k := range keys {
			names = append(names, k.flink)
		}
		if len(keys) == 1 && len(es) > 0 && es[0] == keys[0] && g.one(3) {
			names[0] = "1"
		}
		group.flink = " GROUP BY " + strings.Join(names, ", ")
	}
	having := optional("")
	if g.one(4) {
		v, c := g.aggregate(scope, "int")
		cond := of("expression boolean", "{0} "+pick(g, []string{">", "<", "="})+" {1}", "", v, g.literal(c))
		if len(visible) > 0 && g.one(3) {
			cond = g.condition(visible, 1)
		}
		if len(keys) > 0 || c == "int" {
			having = optional(" HAVING {0}", cond)
		}
	}
	if g.one(10) {
		from, inner := g.inner()
		v, c := g.aggregate(scope, "int")
		if i := g.columnOf(inner, c); i != nil {
			having = optional(" HAVING {0} "+pick(g, []string{"IN", "NOT IN", "> ALL", "= ANY", ">="})+" (SELECT {1} FROM "+from+" ORDER BY 1 LIMIT 1)", v, i)
			having.postgres = strings.Replace(having.flink, "ORDER BY 1", "ORDER BY 1 NULLS FIRST", 1)
		}
	}
	// A grouped query without aggregates is possible: it is DISTINCT in other words.
	return query(classes, "SELECT {0} FROM {1}{2}{3}{4}", items(es), from, where, group, having)
}
