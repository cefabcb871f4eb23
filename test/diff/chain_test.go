package diff

import (
	"fmt"
	"strings"
)

// chain is three or four relations, most of which are joined on one key: as JOIN and LEFT JOIN one behind the other, or
// side by side with the conditions in WHERE, in an order that has nothing to do with that of FROM.
func (g *generator) chain(depth int) (from *node, cols []column, where []*node) {
	var sources []*node
	var columns [][]column
	for range 3 + g.r.IntN(2) {
		s, c := g.source(depth - 1)
		sources, columns = append(sources, s), append(columns, c)
	}
	class := "int"
	keys := make([]*node, len(sources))
	for i, c := range columns {
		if keys[i] = g.columnOf(c, class); keys[i] == nil {
			keys[i] = of("expression int", "1", "")
		}
	}
	eq := func(i, j int) *node {
		l := keys[i]
		if g.one(4) { // another column
			if l = g.columnOf(columns[i], class); l == nil {
				l = keys[i]
			}
		}
		if g.one(8) {
			return of("expression boolean", "{0} + 1 = {1}", "", l, keys[j])
		}
		return of("expression boolean", "{0} = {1}", "", l, keys[j])
	}
	if g.one(3) { // a constant goes to all that is equal to it
		where = append(where, of("expression boolean", "{0} = "+pick(g, []string{"1", "2", "3"}), "", pick(g, keys)))
	}
	if g.one(2) {
		var kids []*node
		text := "{0}"
		kids = append(kids, sources[0])
		cols = columns[0]
		for i := 1; i < len(sources); i++ {
			on := []*node{eq(g.r.IntN(i), i)}
			if g.one(6) {
				on = append(on, g.condition(append(append([]column(nil), cols...), columns[i]...), 1))
			}
			kids = append(kids, sources[i], list("conjuncts", " AND ", on...))
			text += fmt.Sprintf(" %s {%d} ON {%d}", pick(g, []string{"JOIN", "JOIN", "LEFT JOIN"}), len(kids)-2, len(kids)-1)
			cols = append(append([]column(nil), cols...), columns[i]...)
		}
		return of("from", text, "", kids...), cols, where
	}
	var places []string
	for i := range sources {
		places = append(places, fmt.Sprintf("{%d}", i))
		cols = append(append([]column(nil), cols...), columns[i]...)
	}
	order := g.r.Perm(len(sources))
	for k := 1; k < len(order); k++ {
		if !g.one(8) {
			where = append(where, eq(order[g.r.IntN(k)], order[k]))
		}
	}
	return of("from", strings.Join(places, ", "), "", sources...), cols, where
}
