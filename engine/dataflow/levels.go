package dataflow

// Crosses tells whether rows may change the task on an edge like this.
func (h Routing) Crosses() bool { return h == ByKey || h == Broadcast || h == ToOne }

// Levels gives each node a level so that an edge that crosses goes up at least one, no edge goes down, and what is probed
// is on the level of what probes it, since both work in one task. It is false if there are no such levels: then a node
// that is probed from two places has one of them behind the other by way of other tasks.
func Levels(nodes []Node, crosses func(Edge) bool) ([]int, bool) {
	level := make([]int, len(nodes))
	for changed, rounds := true, 0; changed; rounds++ {
		if rounds > len(nodes)+1 {
			return nil, false
		}
		changed = false
		for n := range nodes {
			for _, e := range nodes[n].Inputs {
				l := level[e.From]
				if crosses(e) {
					l++
				}
				if l > level[n] {
					level[n], changed = l, true
				}
				if e.How == Probe && level[e.From] < level[n] {
					level[e.From], changed = level[n], true
				}
			}
		}
	}
	return level, true
}
