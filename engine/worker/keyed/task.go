package keyed

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/exchange"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/invariants"
)

// task is one of a fragment's, with its instances of the nodes and its range of key groups. Its goroutine alone uses
// what is in it, but for the inbox.
type task struct {
	p         *Pipeline
	fragment  *fragment
	index     int
	inbox     *exchange.Inbox
	reads     chan *read
	worked    time.Duration // on the last item of the inbox
	store     *state.Store
	operators []dataflow.Operator // by node; nil for those of other fragments
	emitters  []*fan              // by node
	fills     map[int][]port      // by node: where the rows are replayed that it has kept
	senders   []*exchange.Sender
	sinks     []*sinkNode
	discards  []*discardNode
	faults    []dataflow.Fault
	// Of the store, as they were last told: its memory and what changed in it.
	memory, dirty uint64
	watchers      []*watcher // under the invariants tag
	// Of the last checkpoint: the driver has them until it is done, before which there is no other.
	delta  state.Delta
	outbox []byte
}

// fan passes a node's rows on to the nodes that read it.
type fan struct {
	to   []port
	rows int64
	// guard is asked before each batch of a query that is run once, which may have to end; otherwise nil.
	guard func() error
	watch *watcher // under the invariants tag
}

type port struct {
	process func(port int, b *row.Batch) error
	port    int
	empty   func(e *dataflow.Emptied) error // nil: whoever reads there cannot be told
}

// Emit is part of dataflow.Emitter.
func (f *fan) Emit(b *row.Batch) error {
	f.rows += int64(b.Rows())
	if invariants.Enabled && f.watch != nil {
		f.watch.see(b)
	}
	if f.guard != nil {
		if err := f.guard(); err != nil {
			return err
		}
	}
	for _, p := range f.to {
		if err := p.process(p.port, b); err != nil {
			return err
		}
	}
	return nil
}

// Empty tells whoever reads the node's rows that some of them are gone.
func (f *fan) Empty(e *dataflow.Emptied) error {
	for _, p := range f.to {
		if p.empty == nil {
			return errs.New(errs.EngineInternal, "a table was emptied whose rows nobody keeps by key")
		}
		if err := p.empty(e); err != nil {
			return err
		}
	}
	return nil
}

// emptied is how an operator is told that rows are gone.
func emptied(op dataflow.Operator) func(*dataflow.Emptied) error {
	if e, ok := op.(dataflow.Emptier); ok {
		return e.Empty
	}
	return nil
}

// Index is part of dataflow.Task.
func (t *task) Index() int { return t.index }

// Count is part of dataflow.Task.
func (t *task) Count() int { return t.fragment.tasks }

// State is part of dataflow.Task.
func (t *task) State() *state.Store { return t.store }

// Peer is part of dataflow.Task.
func (t *task) Peer(n int) dataflow.Operator { return t.operators[n] }

// Clock is part of dataflow.Task.
func (t *task) Clock() int64 { return t.p.clock }

// Fault is part of dataflow.Task.
func (t *task) Fault(f dataflow.Fault) { t.faults = append(t.faults, f) }

// through passes rows on unchanged: a union, or the place where a source's table enters.
type through struct{ out *fan }

func (t through) Process(_ int, b *row.Batch) error { return t.out.Emit(b) }
func (t through) Barrier(dataflow.Epoch) error      { return nil }
func (t through) Empty(e *dataflow.Emptied) error   { return t.out.Empty(e) }

// build makes the task's instances, in the order of the nodes, so that each finds its peers.
func (t *task) build() error {
	g := t.p.opts.Graph
	t.operators, t.emitters = make([]dataflow.Operator, len(g.Nodes)), make([]*fan, len(g.Nodes))
	for _, n := range t.fragment.nodes {
		node := &g.Nodes[n]
		t.emitters[n] = &fan{}
		switch {
		case node.Sink != nil:
			if d, ok := t.p.opts.Sinks[node.Sink.Sink].Sink.(dataflow.Discarder); ok {
				dn := &discardNode{to: d, task: t.index, sink: node.Sink.Sink, table: node.Sink.Table}
				t.discards = append(t.discards, dn)
				t.operators[n] = dn
				break
			}
			s := newSinkNode(node)
			t.sinks = append(t.sinks, s)
			t.operators[n] = s
		case node.Make == nil:
			t.operators[n] = through{t.emitters[n]}
		default:
			op, err := node.Make(t, t.emitters[n])
			if err != nil {
				return fmt.Errorf("%s %s: %w", node.Kind, node.Detail, err)
			}
			if v, ok := op.(*operator.View); ok {
				v.Pin(&t.p.pins.Pins)
			}
			t.operators[n] = op
		}
	}
	t.watchAll()
	return nil
}

// connect joins the nodes of the fragment, after every task was built.
func (t *task) connect(ctx context.Context) {
	g := t.p.opts.Graph
	for n := range g.Nodes {
		for portNumber, e := range g.Nodes[n].Inputs {
			if e.How == dataflow.Probe || t.p.of[e.From] != t.fragment {
				continue
			}
			asPort, replayed := t.p.replays[[2]int{n, portNumber}]
			if !replayed {
				asPort = portNumber
			}
			var to port
			if t.p.of[n] == t.fragment {
				to = port{t.operators[n].Process, asPort, emptied(t.operators[n])}
			} else {
				s := exchange.NewSender(ctx, e, g.Nodes[e.From].Schema.Types(), t.p.targets(t, e, n, portNumber, asPort))
				t.senders = append(t.senders, s)
				to = port{func(_ int, b *row.Batch) error { return s.Emit(b) }, 0, s.Empty}
			}
			if replayed {
				if t.fills == nil {
					t.fills = map[int][]port{}
				}
				t.fills[e.From] = append(t.fills[e.From], to)
			}
			if asPort == portNumber {
				t.emitters[e.From].to = append(t.emitters[e.From].to, to)
			}
		}
	}
}

// run works until ctx ends or something fails.
func (t *task) run(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errs.New(errs.EngineInternal, "a task of the pipeline failed: %v", r).WithDetail("%s", debug.Stack())
		}
	}()
	if err := t.fill(ctx); err != nil {
		return err
	}
	for {
		select {
		case r := <-t.reads:
			t.serveMany(r, t.worked)
		default:
		}
		it, _, ok := t.inbox.Take()
		if !ok {
			for _, s := range t.senders {
				if err := s.Flush(); err != nil {
					return err
				}
			}
			select {
			case <-t.inbox.Filled():
			case r := <-t.reads:
				t.serve(r, 0)
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		began := t.p.env.Clock.Now()
		switch it.Kind {
		case exchange.Rows:
			if err := t.operators[it.Node].Process(it.Port, it.Batch); err != nil {
				return t.failed(it.Node, err)
			}
			if it.Release != nil {
				it.Release()
			}
			t.weigh()
		case exchange.Emptied:
			at := fan{to: []port{{empty: emptied(t.operators[it.Node])}}}
			if err := at.Empty(it.Gone); err != nil {
				return t.failed(it.Node, err)
			}
		case exchange.Barrier:
			if aligned, _ := t.inbox.Aligned(); aligned {
				if err := t.barrier(ctx, it.Epoch); err != nil {
					return err
				}
				t.inbox.Resume()
			}
		}
		t.worked = t.p.env.Clock.Now().Sub(began)
	}
}

// weigh tells how much memory the store has.
func (t *task) weigh() {
	m, d := t.store.MemoryBytes(), t.store.DirtyBytes()
	if m != t.memory || d != t.dirty {
		t.p.pressure.changed(int64(m)-int64(t.memory), int64(d)-int64(t.dirty))
		t.memory, t.dirty = m, d
	}
}

func (t *task) failed(n int, err error) error {
	node := &t.p.opts.Graph.Nodes[n]
	return fmt.Errorf("%s %s: %w", node.Kind, node.Detail, err)
}

// barrier ends the epoch in this task and tells the driver.
func (t *task) barrier(ctx context.Context, e dataflow.Epoch) error {
	began := t.p.env.Clock.Now()
	for _, n := range t.fragment.nodes {
		if err := t.operators[n].Barrier(e); err != nil {
			return t.failed(n, err)
		}
	}
	for _, w := range t.watchers {
		w.barrier()
	}
	for _, s := range t.senders {
		if err := s.Barrier(exchange.Item{Kind: exchange.Barrier, Epoch: e}); err != nil {
			return err
		}
	}
	t.store.NextEpoch()
	if t.p.opts.Durable != nil {
		t.store.Absorbed(t.p.opts.Durable.Absorbed())
	}
	p := passed{task: t, epoch: e.N, faults: t.faults}
	t.faults = nil
	for _, d := range t.discards {
		if d.rows > 0 {
			p.discarded = append(p.discarded, discarded{d.sink, d.rows})
			d.rows = 0
		}
	}
	if e.Checkpoint {
		if t.p.opts.Durable != nil {
			t.store.TakeDelta(&t.delta, e.N)
			p.delta = &t.delta
		}
		t.outbox = t.outbox[:0]
		for _, s := range t.sinks {
			t.outbox = s.take(t.outbox)
		}
		p.outbox = t.outbox
		p.sizes = t.store.Sizes()
	}
	t.store.Evict()
	t.weigh()
	p.memory = t.memory
	p.cost = t.p.env.Clock.Now().Sub(began)
	select {
	case t.p.passed <- p:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
