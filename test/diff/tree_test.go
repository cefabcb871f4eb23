package diff

import (
	"strconv"
	"strings"
)

// node is a piece of a random query, written in both dialects. {0}, {1}, .. stand for its kids. Pieces of one category
// can stand for each other, which is all that shrinking has to know.
type node struct {
	category string
	flink    string
	postgres string // "": the same
	kids     []*node
}

func (n *node) text(postgres bool) string {
	t := n.flink
	if postgres && n.postgres != "" {
		t = n.postgres
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(t, '{')
		if i < 0 {
			b.WriteString(t)
			return b.String()
		}
		j := i + strings.IndexByte(t[i:], '}')
		k, _ := strconv.Atoi(t[i+1 : j])
		b.WriteString(t[:i])
		b.WriteString(n.kids[k].text(postgres))
		t = t[j+1:]
	}
}

func of(category, flink, postgres string, kids ...*node) *node {
	return &node{category: category, flink: flink, postgres: postgres, kids: kids}
}

// list joins pieces by a separator. Its shrinking leaves pieces out.
func list(category, separator string, kids ...*node) *node {
	n := &node{category: category, kids: kids}
	for i := range kids {
		if i > 0 {
			n.flink += separator
		}
		n.flink += "{" + strconv.Itoa(i) + "}"
	}
	return n
}

// optional is a clause that may be left out.
func optional(flink string, kids ...*node) *node { return of("optional", flink, "", kids...) }

func (n *node) descendants(category string, out []*node) []*node {
	for _, k := range n.kids {
		if k.category == category {
			out = append(out, k)
		}
		out = k.descendants(category, out)
	}
	return out
}

// smaller lists what could stand in n's place: less first.
func (n *node) smaller() []*node {
	var out []*node
	switch {
	case n.category == "optional" && n.flink != "":
		out = append(out, optional(""))
	case n.category == "conjuncts" && len(n.kids) > 1:
		for i := range n.kids {
			out = append(out, list("conjuncts", " AND ", append(append([]*node(nil), n.kids[:i]...), n.kids[i+1:]...)...))
		}
	case strings.HasPrefix(n.category, "expression "):
		c := classNamed(strings.TrimPrefix(n.category, "expression "))
		for _, v := range []string{c.sample, "NULL"} {
			if l := c.literal(v); l.flink != n.flink && len(n.kids) > 0 {
				out = append(out, l)
			}
		}
	}
	return append(out, n.descendants(n.category, nil)...)
}

// shrink replaces pieces of the tree by smaller ones as long as it still fails.
func shrink(root *node, fails func() bool) {
	for again := true; again; {
		again = false
		var visit func(n *node)
		visit = func(n *node) {
			for more := true; more; {
				more = false
				old := *n
				for _, s := range n.smaller() {
					*n = *s
					if fails() {
						again, more = true, true
						break
					}
					*n = old
				}
			}
			for _, k := range n.kids {
				visit(k)
			}
		}
		visit(root)
	}
}
