package expr

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Settings are what expressions take from their session.
type Settings struct {
	// Zone is the session's time zone: how TIMESTAMP_LTZ is shown and read. nil is UTC.
	Zone *time.Location
	// Rand feeds RAND and UUID; a program with one of them cannot be compiled without it.
	Rand rand.Source
}

// Children are the direct parts of an expression, not to be changed.
func Children(e Expr) []Expr { return e.children() }

// Rewrite applies f to every node, leaves first. Nodes whose parts did not change stay the same, and a part that is
// shared stays shared: RAND() BETWEEN 1 AND 2 has one RAND().
func Rewrite(e Expr, f func(Expr) Expr) Expr { return rewrite(e, f, map[Expr]Expr{}) }

func rewrite(e Expr, f func(Expr) Expr, done map[Expr]Expr) Expr {
	if n, ok := done[e]; ok {
		return n
	}
	n := e
	if cs := e.children(); len(cs) > 0 {
		fresh := make([]Expr, len(cs))
		changed := false
		for i, c := range cs {
			fresh[i] = rewrite(c, f, done)
			changed = changed || fresh[i] != c
		}
		if changed {
			n = e.with(fresh)
		}
	}
	n = f(n)
	done[e] = n
	return n
}

// Walk calls f for every node, roots first, and leaves out what is below a node for which f is false. A node that is part
// of the tree in several places comes once.
func Walk(e Expr, f func(Expr) bool) { walk(e, f, map[Expr]bool{}) }

func walk(e Expr, f func(Expr) bool, seen map[Expr]bool) {
	if seen[e] {
		return
	}
	seen[e] = true
	if !f(e) {
		return
	}
	for _, c := range e.children() {
		walk(c, f, seen)
	}
}

// Deterministic tells whether e is a pure function of its columns: without clock and chance.
func Deterministic(e Expr) bool {
	pure := true
	Walk(e, func(n Expr) bool {
		if c, ok := n.(*Call); ok && c.Fn.volatile != pureFunction {
			pure = false
		}
		return pure
	})
	return pure
}

// ReadsClock tells whether e depends on the clock that Run is given.
func ReadsClock(e Expr) bool {
	reads := false
	Walk(e, func(n Expr) bool {
		if c, ok := n.(*Call); ok && c.Fn.volatile == clockFunction {
			reads = true
		}
		return !reads
	})
	return reads
}

// CanFault tells whether computing e can fail for a row. FALSE is certain, TRUE is not.
func CanFault(e Expr) bool {
	can := false
	Walk(e, func(n Expr) bool {
		switch n := n.(type) {
		case *Call:
			can = can || n.Fn.faults
		case *Cast:
			can = can || !n.Try && castFaults(n.Arg.Type(), n.T)
		}
		return !can
	})
	return can
}

// Columns are the indexes of the columns that e reads, rising.
func Columns(e Expr) []int {
	var cols []int
	Walk(e, func(n Expr) bool {
		if c, ok := n.(*Column); ok {
			cols = append(cols, c.Index)
		}
		return true
	})
	slices.Sort(cols)
	return slices.Compact(cols)
}

// Shift gives each column i the index m[i].
func Shift(e Expr, m []int) Expr {
	return Rewrite(e, func(n Expr) Expr {
		if c, ok := n.(*Column); ok && m[c.Index] != c.Index {
			return &Column{m[c.Index], c.T, c.Name}
		}
		return n
	})
}

// Substitute puts by[i] in the place of column i: an expression over a projection becomes one over its input.
func Substitute(e Expr, by []Expr) Expr {
	return Rewrite(e, func(n Expr) Expr {
		if c, ok := n.(*Column); ok {
			return by[c.Index]
		}
		return n
	})
}

// Conjuncts takes nested ANDs apart.
func Conjuncts(e Expr) []Expr {
	if l, ok := e.(*Logic); ok && !l.Or {
		var out []Expr
		for _, a := range l.Args {
			out = append(out, Conjuncts(a)...)
		}
		return out
	}
	return []Expr{e}
}

// And joins conditions, none of which makes TRUE.
func And(es ...Expr) Expr {
	switch len(es) {
	case 0:
		return Bool(true)
	case 1:
		return es[0]
	}
	return &Logic{Args: es}
}
