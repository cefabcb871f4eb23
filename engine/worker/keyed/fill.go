package keyed

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// A pipeline whose graph has grown goes on at its last checkpoint: nodes that the checkpoint knows have their state, and
// the others begin with what those have made so far. Before its first batch every task replays, to new nodes only, what
// the old nodes in front of them have emitted in all: the rows that one of them has kept (dataflow.Keeper). What a new
// node then emits goes its usual way. All of it is part of the first epoch, which nobody sees before it is complete, and
// which becomes durable with the first checkpoint; a crash before that begins again.
//
// The rows come from below memory, a batch at a time: filling a view loads nothing of the one that it reads.

// fillPlan is a graph with what its new nodes are filled from.
type fillPlan struct {
	graph *dataflow.Graph
	// replays are the inputs, by node and port, over which an old node's kept rows are replayed. Where the rows are kept by
	// another node, the graph has one more input for it, behind the others; the value is the port that it stands for.
	replays map[[2]int]int
	fresh   int // nodes that are new
}

// Fillable tells whether a pipeline with checkpoints of nodes of these IDs can go on with g.
func Fillable(g *dataflow.Graph, old map[string]bool) error {
	_, err := planFill(g, old)
	return err
}

func planFill(g *dataflow.Graph, old map[string]bool) (*fillPlan, error) {
	f := &fillPlan{graph: &dataflow.Graph{Nodes: slices.Clone(g.Nodes)}, replays: map[[2]int]int{}}
	for n := range g.Nodes {
		node := &g.Nodes[n]
		if old[node.ID] {
			continue
		}
		f.fresh++
		inputs := slices.Clone(node.Inputs)
		probes, filled := 0, 0
		for port, e := range node.Inputs {
			from := &g.Nodes[e.From]
			switch {
			case e.How == dataflow.Probe:
				probes++
				if !old[from.ID] {
					filled++
				}
			case !old[from.ID]:
			case from.Keeps == dataflow.KeepsOutput:
				f.replays[[2]int{n, port}] = port
			default:
				keeper := slices.IndexFunc(g.Nodes, func(k dataflow.Node) bool {
					return k.Keeps == dataflow.KeepsInput && old[k.ID] && k.Inputs[0].From == e.From
				})
				if keeper < 0 {
					return nil, nothingKept(g, e.From)
				}
				f.replays[[2]int{n, len(inputs)}] = port
				e.From = keeper
				inputs = append(inputs, e)
			}
		}
		if probes > 0 && filled == 0 {
			return nil, errs.New(errs.EngineInternal, "%s %s is new, and the indexes that it reads are not", node.Kind, node.Detail)
		}
		f.graph.Nodes[n].Inputs = inputs
	}
	return f, nil
}

func nothingKept(g *dataflow.Graph, n int) error {
	what := strings.TrimSpace(g.Nodes[n].Kind + " " + g.Nodes[n].Detail)
	if g.Nodes[n].Source != nil {
		what = "table " + g.Nodes[n].Detail
	}
	return errs.New(errs.SQLConnector, "nothing has kept the rows that %s has given so far, so what reads it cannot be added while the pipeline runs", what).
		WithHint("read a materialized view of it, which keeps its rows; or put the statement into a file of its own, and run that")
}

// fill replays what the task's nodes have kept.
func (t *task) fill(ctx context.Context) error {
	for _, n := range t.fragment.nodes {
		to := t.fills[n]
		if len(to) == 0 {
			continue
		}
		keeper, ok := t.operators[n].(dataflow.Keeper)
		if !ok {
			return errs.New(errs.EngineInternal, "%s %s keeps no rows", t.p.opts.Graph.Nodes[n].Kind, t.p.opts.Graph.Nodes[n].Detail)
		}
		if err := keeper.Kept(func(b *row.Batch) error {
			for _, x := range to {
				if err := x.process(x.port, b); err != nil {
					return err
				}
			}
			return ctx.Err()
		}); err != nil {
			return fmt.Errorf("fill from %s: %w", t.p.opts.Graph.Nodes[n].Detail, err)
		}
	}
	t.fills = nil
	return nil
}

// Forgetter is what a Durable may have besides: it deletes the states whose names keep does not want. It may be called
// while tasks work with those that are kept.
type Forgetter interface {
	Forget(keep func(name string) bool) (int, error)
}

// forget deletes the states of all nodes but those of these IDs.
func (p *Pipeline) forget(ids map[string]bool) error {
	x, ok := p.opts.Durable.(Forgetter)
	if !ok {
		return nil
	}
	_, err := x.Forget(func(name string) bool {
		for id := range ids {
			if strings.HasPrefix(name, id) {
				return true
			}
		}
		return false
	})
	return err
}

// grow makes the pipeline that of its graph, where the checkpoint is of another. The state of nodes that are gone stays
// until a checkpoint no longer lists them: a crash may bring a graph that has them again.
func (p *Pipeline) grow(d *driver) error {
	if d.nodes == nil {
		return nil // there is no checkpoint, or one of a time when graphs did not change
	}
	f, err := planFill(p.opts.Graph, d.nodes)
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for _, n := range p.opts.Graph.Nodes {
		if d.nodes[n.ID] {
			kept[n.ID] = true
		}
	}
	if f.fresh == 0 && len(kept) == len(d.nodes) {
		return nil
	}
	p.env.Log.Info("the pipeline's graph has changed", "nodes kept", len(kept), "new", f.fresh, "gone", len(d.nodes)-len(kept))
	// A node that is new may have been there before, and what it left may not be gone yet.
	if err := p.forget(d.nodes); err != nil {
		return err
	}
	d.shrunk = len(kept) < len(d.nodes)
	p.opts.Graph, p.replays = f.graph, f.replays
	return nil
}

// moved is an outbox of an earlier graph with the sinks and tables of this one. Of a table that nobody writes any more
// nothing is left.
func (d *driver) moved(outbox []byte) []byte {
	now := map[string][2]uint16{}
	for _, n := range d.opts.Graph.Nodes {
		if n.Sink != nil {
			now[n.ID] = [2]uint16{uint16(n.Sink.Sink), uint16(n.Sink.Table)}
		}
	}
	same := true
	for at, id := range d.sinkNodes {
		to, there := now[id]
		same = same && there && to == at
	}
	if same {
		return outbox
	}
	var out []byte
	for len(outbox) >= outboxHeader {
		n := outboxHeader + int(binary.LittleEndian.Uint32(outbox[12:]))
		if n > len(outbox) {
			break
		}
		at := [2]uint16{binary.LittleEndian.Uint16(outbox), binary.LittleEndian.Uint16(outbox[2:])}
		to, there := now[d.sinkNodes[at]]
		if d.sinkNodes[at] == "" {
			to, there = at, true
		}
		if there {
			entry := len(out)
			out = append(out, outbox[:n]...)
			binary.LittleEndian.PutUint16(out[entry:], to[0])
			binary.LittleEndian.PutUint16(out[entry+2:], to[1])
		}
		outbox = outbox[n:]
	}
	return append(out, outbox...)
}
