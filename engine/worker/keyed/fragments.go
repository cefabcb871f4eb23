package keyed

import (
	"fmt"

	"github.com/weirstream/weir/engine/dataflow"
)

// fragment is nodes that run in one goroutine: rows pass between them by calls. The graph is cut where rows change the
// task; with one task they never do, and all of the graph is one fragment.
type fragment struct {
	number int
	nodes  []int // rising
	tasks  int
	in     []cutEdge
}

// cutEdge is an edge between fragments.
type cutEdge struct {
	from     *fragment
	into     *fragment
	edge     dataflow.Edge
	to, port int
}

// cut makes fragments. Each node has a level, and an edge that is cut goes up at least one, so fragments form no cycle:
// nodes of one level that are joined by edges without a cut are a fragment. Where a node's inputs have different levels,
// the lower ones are cut, too.
func cut(g *dataflow.Graph, parallelism int) (of []*fragment, fragments []*fragment, err error) {
	crosses := func(e dataflow.Edge) bool {
		return parallelism > 1 && e.How.Crosses()
	}
	level, ok := dataflow.Levels(g.Nodes, crosses)
	if !ok {
		return nil, nil, fmt.Errorf("an index is read by two joins of which one feeds the other by way of other tasks")
	}
	parent := make([]int, len(g.Nodes))
	for n := range parent {
		parent[n] = n
	}
	root := func(n int) int {
		for parent[n] != n {
			n = parent[n]
		}
		return n
	}
	for n := range g.Nodes {
		for _, e := range g.Nodes[n].Inputs {
			if !crosses(e) && level[e.From] == level[n] {
				parent[root(n)] = root(e.From)
			}
		}
	}
	of = make([]*fragment, len(g.Nodes))
	byRoot := map[int]*fragment{}
	for n := range g.Nodes {
		f := byRoot[root(n)]
		if f == nil {
			f = &fragment{number: len(fragments), tasks: parallelism}
			byRoot[root(n)] = f
			fragments = append(fragments, f)
		}
		of[n] = f
		f.nodes = append(f.nodes, n)
		if g.Nodes[n].Single {
			f.tasks = 1
		}
	}
	for n := range g.Nodes {
		for port, e := range g.Nodes[n].Inputs {
			if of[e.From] != of[n] {
				of[n].in = append(of[n].in, cutEdge{of[e.From], of[n], e, n, port})
			}
		}
	}
	return of, fragments, nil
}
