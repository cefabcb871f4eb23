package keyed

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/invariants"
)

// laws holds every node of a pipeline to what it says of its rows:
//
//   - what is append has inserts only;
//   - at a barrier no row has been taken back more often than it was given;
//   - at a barrier no key stands twice, where the node names one.
//
// It is there under the invariants tag alone, and only in a pipeline that began at its first epoch: what was given before
// is not known to it. Rows of one node may come and go in different tasks, so tasks hand in what an epoch changed and the
// driver judges it when all of them have passed the barrier.
type laws struct {
	seed  maphash.Seed
	graph *dataflow.Graph

	mu    sync.Mutex
	nodes []nodeLaws
	wrong error
}

// nodeLaws is what a node has given so far.
type nodeLaws struct {
	rows    map[uint64]int64 // hash of a row: its weight
	keys    map[uint64]int64
	changed map[string]int64 // of this epoch
	codec   *row.Codec
}

// watcher is a task's part of a node's laws.
type watcher struct {
	laws    *laws
	node    int
	codec   *row.Codec
	changed map[string]int64
	buf     []byte
}

// newLaws returns nil where nothing is to be watched.
func newLaws(g *dataflow.Graph, first bool) *laws {
	if !invariants.Enabled || !first {
		return nil
	}
	return &laws{seed: maphash.MakeSeed(), graph: g, nodes: make([]nodeLaws, len(g.Nodes))}
}

// watch is the watcher of a node in a task; nil if there is nothing to watch: a node whose rows are no multiset, because
// they only name what is to go.
func (l *laws) watch(n int) *watcher {
	if l == nil || l.graph.Nodes[n].Sink != nil {
		return nil
	}
	for _, x := range l.graph.Nodes {
		for _, e := range x.Inputs {
			if e.From == n && x.Kind == "normalize" {
				return nil
			}
		}
	}
	return &watcher{laws: l, node: n, codec: row.NewCodec(l.graph.Nodes[n].Schema.Types()), changed: map[string]int64{}}
}

func (w *watcher) see(b *row.Batch) {
	node := &w.laws.graph.Nodes[w.node]
	for k := range b.Rows() {
		i := b.At(k)
		weight := b.Weight(i)
		if node.Append && weight <= 0 {
			w.laws.fail("#%d %s %s is append and gives a row with weight %d: %s", w.node, node.Kind, node.Detail, weight, w.laws.text(w.node, w.codec.AppendColumns(nil, b.Cols, i)))
		}
		if node.Append && node.Key == nil {
			continue
		}
		w.buf = w.codec.AppendColumns(w.buf[:0], b.Cols, i)
		w.changed[string(w.buf)] += weight
	}
}

// barrier hands in what the epoch changed.
func (w *watcher) barrier() {
	if len(w.changed) == 0 {
		return
	}
	w.laws.mu.Lock()
	defer w.laws.mu.Unlock()
	n := &w.laws.nodes[w.node]
	if n.changed == nil {
		n.changed, n.rows, n.keys, n.codec = map[string]int64{}, map[uint64]int64{}, map[uint64]int64{}, w.codec
	}
	for r, weight := range w.changed {
		n.changed[r] += weight
	}
	clear(w.changed)
}

// judge tells what law the epoch broke. Every task has passed its barrier.
func (l *laws) judge() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.nodes {
		n, node := &l.nodes[i], &l.graph.Nodes[i]
		if !node.Append {
			for r, weight := range n.changed {
				h := maphash.String(l.seed, r)
				if n.rows[h] += weight; n.rows[h] < 0 {
					l.wrong = broken("#%d %s %s has a row with weight %d: %s", i, node.Kind, node.Detail, n.rows[h], l.text(i, []byte(r)))
				} else if n.rows[h] == 0 {
					delete(n.rows, h)
				}
			}
		}
		if node.Key != nil {
			touched := map[uint64]string{}
			for r, weight := range n.changed {
				h := maphash.String(l.seed, l.key(n.codec, node, r))
				if touched[h] = r; weight != 0 {
					n.keys[h] += weight
				}
			}
			for h, r := range touched {
				if w := n.keys[h]; w < 0 || w > 1 {
					l.wrong = broken("#%d %s %s has %d rows of a key %v: %s", i, node.Kind, node.Detail, w, node.Key, l.text(i, []byte(r)))
				} else if w == 0 {
					delete(n.keys, h)
				}
			}
		}
		clear(n.changed)
	}
	return l.wrong
}

// key is the text of a row's key.
func (l *laws) key(codec *row.Codec, node *dataflow.Node, r string) string {
	return fields(codec, node, []byte(r), node.Key)
}

// text writes a row.
func (l *laws) text(n int, r []byte) string {
	node := &l.graph.Nodes[n]
	all := make([]int, len(node.Schema))
	for i := range all {
		all[i] = i
	}
	return fields(row.NewCodec(node.Schema.Types()), node, r, all)
}

func fields(codec *row.Codec, node *dataflow.Node, r []byte, cols []int) string {
	var parts []string
	for _, c := range cols {
		var v row.Vector
		codec.Decode(&v, 0, c, [][]byte{r})
		text := "NULL"
		if !v.Nulls.Is(0) {
			text = fmt.Sprintf("%q", row.AppendText(nil, node.Schema[c].Type, &v, 0, time.UTC))
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

func (l *laws) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wrong == nil {
		l.wrong = broken(format, args...)
	}
}

func broken(format string, args ...any) error {
	e := errs.New(errs.EngineInternal, "a law is broken: "+format, args...)
	e.Final = true
	return e
}

// watchAll puts a watcher behind every node of the task.
func (t *task) watchAll() {
	for _, n := range t.fragment.nodes {
		if w := t.p.laws.watch(n); w != nil {
			t.emitters[n].watch = w
			t.watchers = append(t.watchers, w)
		}
	}
	t.watchers = slices.Clip(t.watchers)
}
