package plan

import (
	"slices"

	"github.com/weirstream/weir/engine/expr"
)

// uniqueKeys lists sets of a relation's columns of which no two rows have the same values at the end of an epoch. They
// are those that a table, a group or a place declares; none is an empty list, and the empty set is that of one row.
func uniqueKeys(r rel) [][]int {
	switch r := r.(type) {
	case *scan:
		if len(r.table.key) > 0 {
			return [][]int{r.table.key}
		}
	case *values:
		if len(r.rows) <= 1 {
			return [][]int{{}}
		}
	case *filter:
		return uniqueKeys(r.in)
	case *expiring:
		return uniqueKeys(r.in)
	case *project:
		at := map[int]int{}
		for i, e := range r.exprs {
			if c, ok := e.(*expr.Column); ok {
				at[c.Index] = i
			}
		}
		var out [][]int
		for _, key := range uniqueKeys(r.in) {
			if k := mapKey(key, at); k != nil {
				out = append(out, k)
			}
		}
		return out
	case *aggregate:
		key := []int{}
		for i := range r.group {
			key = append(key, i)
		}
		return [][]int{key}
	case *top:
		out := uniqueKeys(r.in)
		if r.limit == 1 {
			out = append(out, append([]int{}, r.partition...))
		}
		if r.rank {
			out = append(out, append(slices.Clone(r.partition), len(r.in.columns())))
		}
		return out
	case *join:
		if r.kind == semiJoin || r.kind == antiJoin || r.kind == markJoin {
			return uniqueKeys(r.left)
		}
		n := len(r.left.columns())
		var lcols, rcols []int
		if r.cond != nil {
			for _, c := range expr.Conjuncts(r.cond) {
				if l, rr, ok := tiedTo(c); ok {
					lc, ok1 := l.(*expr.Column)
					rc, ok2 := rr.(*expr.Column)
					if ok1 && ok2 && lc.Index >= n {
						lc, rc = rc, lc
					}
					if ok1 && ok2 && lc.Index < n && rc.Index >= n {
						lcols, rcols = append(lcols, lc.Index), append(rcols, rc.Index-n)
					}
				}
			}
		}
		var out [][]int
		if r.kind != rightJoin && r.kind != fullJoin && covers(uniqueKeys(r.right), rcols) {
			out = append(out, uniqueKeys(r.left)...)
		}
		if r.kind != leftJoin && r.kind != fullJoin && covers(uniqueKeys(r.left), lcols) {
			for _, key := range uniqueKeys(r.right) {
				moved := []int{}
				for _, c := range key {
					moved = append(moved, c+n)
				}
				out = append(out, moved)
			}
		}
		return out
	}
	return nil
}

// covers tells whether rows that have the same values in cols are one row.
func covers(keys [][]int, cols []int) bool {
	for _, key := range keys {
		all := true
		for _, c := range key {
			all = all && slices.Contains(cols, c)
		}
		if all {
			return true
		}
	}
	return false
}
