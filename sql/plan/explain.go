package plan

import (
	"fmt"
	"strings"

	"github.com/weirstream/weir/engine/dataflow"
)

// Explain is the graph as text: for each sink and view the tree of what it is computed from. A part that was shown
// before is named and not shown again.
func (p *Program) Explain() string {
	var b strings.Builder
	read := map[int]bool{}
	for _, n := range p.Graph.Nodes {
		for _, e := range n.Inputs {
			read[e.From] = true
		}
	}
	shown := map[int]bool{}
	var tree func(n int, indent string, how string)
	tree = func(n int, indent, how string) {
		node := &p.Graph.Nodes[n]
		fmt.Fprintf(&b, "%s#%d %s %s", indent, n, node.Kind, node.Detail)
		if shown[n] {
			b.WriteString(" (see above)\n")
			return
		}
		shown[n] = true
		var facts []string
		if how != "" {
			facts = append(facts, how)
		}
		if node.Append {
			facts = append(facts, "append")
		} else {
			facts = append(facts, "changelog")
		}
		if len(node.Key) > 0 {
			var names []string
			for _, c := range node.Key {
				names = append(names, node.Schema[c].Name)
			}
			facts = append(facts, "key "+strings.Join(names, ", "))
		}
		if len(node.States) > 0 {
			facts = append(facts, "state")
		}
		if node.Source != nil {
			if t := &p.Sources[node.Source.Source].Tables[node.Source.Table]; t.Filter != nil {
				facts = append(facts, "wanted "+t.filterText())
			}
		}
		if node.Single {
			facts = append(facts, "one task")
		}
		fmt.Fprintf(&b, "  [%s]\n", strings.Join(facts, "; "))
		for _, e := range node.Inputs {
			way := map[dataflow.Routing]string{dataflow.ByKey: "by key", dataflow.Broadcast: "to all", dataflow.ToOne: "to one"}[e.How]
			tree(e.From, indent+"  ", way)
		}
	}
	for n := range p.Graph.Nodes {
		if !read[n] {
			tree(n, "", "")
		}
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "warning %s\n", w.Render())
	}
	return b.String()
}
