// Package keyed runs a graph of operators: it cuts the graph into fragments and tasks, feeds sources in, ends epochs, and
// makes checkpoints of them.
//
// One driver goroutine owns the pipeline's time. It asks the feeders for a barrier, and each cuts its source where no
// transaction is open; when every task has passed the barrier the epoch is visible. An epoch that is a checkpoint also
// brings each task's changed state and the sinks' rows along; they are made durable beside the next epochs, one
// checkpoint at a time. After the commit the sinks publish, and only then do the sources confirm.
package keyed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/exchange"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// Options describes a Pipeline.
type Options struct {
	Graph       *dataflow.Graph
	Sources     []Source
	Sinks       []Sink
	Parallelism int // default 1
	Groups      int // key groups, default state.DefaultGroups
	Generation  dataflow.Generation
	// MemoryBytes is what the states of all tasks may take in memory; what is more is fetched from the Durable when it is
	// asked for. 0: no limit.
	MemoryBytes int64
	// Durable keeps checkpoints; nil: nothing outlives the process, and a checkpoint is what sinks publish.
	Durable Durable
	// CheckpointInterval is how long after a checkpoint the next may begin.
	CheckpointInterval time.Duration
	// MaxEpoch is how long an epoch lasts at most while rows come; default 100 ms.
	MaxEpoch time.Duration
	// OnEpoch and OnCheckpoint are told how long each took, and a checkpoint its bytes; nil: nobody is. They are called
	// by the driver's goroutines and must not block.
	OnEpoch      func(took time.Duration)
	OnCheckpoint func(c dataflow.Checkpoint, took time.Duration, bytes int)
	// PinWait is how long a reader waits for an epoch that can be seen, while a first copy is under way; default 3 s.
	PinWait time.Duration
	// Stay: the pipeline does not end when its sources have, so that its views can be read on.
	Stay bool
	// PinTime is how long an epoch may be pinned while the views change, and PinBytes how much may be kept for pins; then
	// they end. Default 5 minutes and 256 MiB.
	PinTime  time.Duration
	PinBytes int64
	// FollowBytes is how much of a view's changes waits for each that follows it; default 64 MiB.
	FollowBytes int
}

// Source is a source of the pipeline.
type Source struct {
	Name   string // by which its state is found again
	Source dataflow.Source
	// First: the source ends by itself, and no other is read before it has.
	First bool
	// Tables are the types of the columns of each of its tables, as the source gives them.
	Tables [][]row.Type
}

// Sink is a sink of the pipeline.
type Sink struct {
	Name string
	Sink dataflow.Sink
	// Tables are the types of each of its tables.
	Tables [][]row.Type
}

// Durable is where checkpoints go. One goroutine calls Commit, Outbox and Published; Backing and Absorbed may be called
// by any.
type Durable interface {
	// Restored is what the last committed checkpoint left; zero values at the beginning.
	Restored() (checkpoint dataflow.Checkpoint, meta []byte)
	Backing() state.Backing
	// Commit makes a checkpoint durable and returns when nothing can take it back. The deltas are sorted.
	Commit(ctx context.Context, c dataflow.Checkpoint, deltas []*state.Delta, outbox, meta []byte) error
	// Absorbed is up to which checkpoint Backing has everything.
	Absorbed() uint64
	// Unpublished lists the checkpoints whose outbox is kept, rising.
	Unpublished() []dataflow.Checkpoint
	Outbox(c dataflow.Checkpoint) ([]byte, error)
	// Published: no outbox up to c is needed any more.
	Published(c dataflow.Checkpoint)
}

// Pipeline runs a graph once; after an error a new one is made, which begins at the last checkpoint.
type Pipeline struct {
	env  *env.Env
	opts Options

	of        []*fragment
	fragments []*fragment
	tasks     [][]*task // by fragment
	feeders   []*feeder
	clock     int64 // at the start
	laws      *laws
	passed    chan passed
	cutDone   chan cutDone
	stir      chan struct{} // rows came since it was last read
	hurry     chan struct{} // somebody waits for the next checkpoint
	ended     chan int
	stop      chan struct{}
	stopOnce  sync.Once
	pins      pins
	pressure  *pressure
	built     chan struct{}  // closed when the tasks are there
	shown     chan struct{}  // closed when an epoch can be seen
	over      chan struct{}  // closed when Run has ended
	replays   map[[2]int]int // of a graph that has grown: see fillPlan

	mu struct {
		sync.Mutex
		status Status
		faults map[string]faulty // that stand, by node
		// What Status asks, once all of it is built.
		feeders []*feeder
		inboxes []*exchange.Inbox
		waiting []chan struct{} // closed when the next epoch is visible
	}
}

// Status is how the pipeline stands.
type Status struct {
	Epoch      uint64 // visible; 0: none is yet
	Copying    bool   // epochs end and are not to be seen yet: see unseen.go
	Checkpoint dataflow.Checkpoint
	Published  dataflow.Checkpoint
	// Rows that came in, by source, and went out, by sink.
	RowsIn, RowsOut []int64
	StateBytes      uint64
	// States are the sizes as of the last checkpoint, by name, over all tasks.
	States []state.StateSize
	// QueueItems of QueueRoom batches wait in the queues of the tasks.
	QueueItems, QueueRoom int
	// How long the last epoch took from its barrier until it was visible, and the last checkpoint until it was durable.
	EpochTook, CheckpointTook time.Duration
	CheckpointBytes           int
	Faults                    int64 // rows whose evaluation failed, less those that were taken back
	Ended                     bool  // every source has ended, and with Stay all is durable and published
	Started                   time.Time
}

// passed is a task's word that it has passed a barrier.
type passed struct {
	task   *task
	epoch  uint64
	cost   time.Duration
	delta  *state.Delta
	outbox []byte
	faults []dataflow.Fault
	memory uint64
	sizes  []state.StateSize // with a checkpoint
	// Rows of the epoch that went to sinks which keep nothing.
	discarded []discarded
}

type discarded struct {
	sink int
	rows int64
}

// cutDone is a feeder's word that it has cut.
type cutDone struct {
	source  int
	epoch   uint64
	changed []dataflow.StateChange
	urgent  int64          // how many urgent messages lie before it
	state   dataflow.State // with a checkpoint
	agrees  bool           // the source's tables, with each other
}

// New returns a pipeline that Run runs.
func New(e *env.Env, opts Options) *Pipeline {
	if opts.Parallelism == 0 {
		opts.Parallelism = 1
	}
	if opts.MaxEpoch == 0 {
		opts.MaxEpoch = 100 * time.Millisecond
	}
	if opts.PinWait == 0 {
		opts.PinWait = defaultPinWait
	}
	if opts.PinTime == 0 {
		opts.PinTime = defaultPinTime
	}
	if opts.PinBytes == 0 {
		opts.PinBytes = defaultPinBytes
	}
	if opts.FollowBytes == 0 {
		opts.FollowBytes = defaultFollowBytes
	}
	p := &Pipeline{env: e, opts: opts, passed: make(chan passed, 64), cutDone: make(chan cutDone, 16), stir: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
		ended: make(chan int, len(opts.Sources)), stop: make(chan struct{}), built: make(chan struct{}), shown: make(chan struct{}), over: make(chan struct{})}
	limit := opts.MemoryBytes
	if opts.Durable == nil {
		limit = 0 // there is no store below
	}
	p.pressure = newPressure(limit)
	p.pins.ask, p.pins.mu.held = make(chan chan *held), map[uint64]*held{}
	p.mu.status.Started = e.Clock.Now()
	p.mu.status.RowsIn, p.mu.status.RowsOut = make([]int64, len(opts.Sources)), make([]int64, len(opts.Sinks))
	return p
}

// Stop asks for a graceful end: a last checkpoint, then Run returns nil.
func (p *Pipeline) Stop() { p.stopOnce.Do(func() { close(p.stop) }) }

// Status may be called at any time.
func (p *Pipeline) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.mu.status
	s.RowsIn, s.RowsOut = slices.Clone(s.RowsIn), slices.Clone(s.RowsOut)
	for i, f := range p.mu.feeders {
		s.RowsIn[i] = f.rows.Load()
	}
	for _, in := range p.mu.inboxes {
		items, room := in.Fill()
		s.QueueItems, s.QueueRoom = s.QueueItems+items, s.QueueRoom+room
	}
	return s
}

func (p *Pipeline) update(f func(s *Status)) {
	p.mu.Lock()
	f(&p.mu.status)
	p.mu.Unlock()
}

func (p *Pipeline) stirred() {
	select {
	case p.stir <- struct{}{}:
	default:
	}
}

func (p *Pipeline) hurried() {
	select {
	case p.hurry <- struct{}{}:
	default:
	}
}

func (p *Pipeline) end(source int) { p.ended <- source }

func unexpected(source string, k dataflow.Kind) error {
	return fmt.Errorf("source %s sent a message of kind %d, which a pipeline with state does not take", source, k)
}

var errDone = errors.New("done")

// Run works until Stop, the end of all sources, an error, or the end of ctx. When it returns, sources and sinks are
// closed and every goroutine has ended.
func (p *Pipeline) Run(ctx context.Context) (err error) {
	defer close(p.over)
	clean := context.WithoutCancel(ctx)
	defer func() {
		for _, ts := range p.tasks {
			for _, t := range ts {
				if t.store != nil {
					t.store.Close()
				}
			}
		}
	}()
	d := &driver{Pipeline: p}
	opened := 0
	defer func() {
		for i := range opened {
			if cerr := p.opts.Sinks[i].Sink.Close(clean); err == nil {
				err = cerr
			}
		}
	}()
	if err := d.restore(); err != nil {
		return err
	}
	if err := p.grow(d); err != nil {
		return err
	}
	d.writes()
	d.tellFaults()
	for i := range p.opts.Sinks {
		opened++
		at, err := p.opts.Sinks[i].Sink.Open(ctx, p.opts.Generation, d.checkpoint)
		if err != nil {
			return err
		}
		if at > d.checkpoint {
			e := errs.New(errs.TargetTable, "sink %s holds checkpoint %d, and this pipeline has committed none after %d", p.opts.Sinks[i].Name, at, d.checkpoint).
				WithDetail("a sink only gets what is committed, so that one was written by another pipeline, or the state directory is older than the sink").
				WithHint("let the pipeline write to another place, or empty that one")
			e.Final = true
			return e
		}
		if err := d.wentBack(i, at); err != nil {
			return err
		}
		d.published = append(d.published, at)
	}
	d.now = max(d.now, p.env.Clock.Now().UnixMicro())
	p.clock = d.now
	p.laws = newLaws(p.opts.Graph, d.epoch == 0)
	if err := d.publishOld(ctx); err != nil {
		return err
	}
	g, running := errgroup.WithContext(ctx)
	if err := p.buildTasks(running); err != nil {
		return err
	}
	close(p.built)
	started := 0
	defer func() {
		for i := range started {
			if cerr := p.opts.Sources[i].Source.Close(clean); err == nil {
				err = cerr
			}
		}
	}()
	for i := range p.opts.Sources {
		started++
		if err := p.opts.Sources[i].Source.Open(ctx, d.states[i]); err != nil {
			return err
		}
		a, ok := p.opts.Sources[i].Source.(dataflow.Agreeing)
		if p.feeders[i].agrees = !ok || a.Agrees(); !p.feeders[i].agrees {
			p.update(func(s *Status) { s.Copying = true })
		}
	}
	for _, ts := range p.tasks {
		for _, t := range ts {
			p.spawn(g, "task", func() error { return t.run(running) })
		}
	}
	for i := range p.feeders {
		f := p.feeders[i]
		p.spawn(g, "read "+p.opts.Sources[i].Name, func() error { return f.read(running) })
		p.spawn(g, "feed "+p.opts.Sources[i].Name, func() error { return f.feed(running) })
	}
	p.spawn(g, "epochs", func() error {
		if err := d.run(running); err != nil {
			return err
		}
		return errDone
	})
	if err := g.Wait(); !errors.Is(err, errDone) {
		return err
	}
	return nil
}

// spawn starts a goroutine of the group under the environment's name for it.
func (p *Pipeline) spawn(g *errgroup.Group, name string, f func() error) {
	done := make(chan error, 1)
	p.env.Go(name, func() { done <- f() })
	g.Go(func() error { return <-done })
}

// buildTasks cuts the graph and makes every fragment's tasks with their queues.
func (p *Pipeline) buildTasks(ctx context.Context) (err error) {
	g := p.opts.Graph
	if p.of, p.fragments, err = cut(g, p.opts.Parallelism); err != nil {
		return err
	}
	var backing state.Backing
	if p.opts.Durable != nil {
		backing = p.opts.Durable.Backing()
	}
	for i := range p.opts.Sources {
		p.feeders = append(p.feeders, &feeder{p: p, number: i, source: p.opts.Sources[i].Source, tables: make([][]entry, len(p.opts.Sources[i].Tables)),
			messages: make(chan dataflow.Message, 4), cuts: make(chan dataflow.Epoch, 1), open: make(chan struct{}), state: dataflow.State{}})
	}
	for _, f := range p.fragments {
		queues := 0
		feeds := map[int]int{} // source: queue
		for _, n := range f.nodes {
			if s := g.Nodes[n].Source; s != nil {
				if _, ok := feeds[s.Source]; !ok {
					feeds[s.Source] = queues
					queues++
				}
			}
		}
		for _, e := range f.in {
			queues += e.queues()
		}
		var ts []*task
		for i := range f.tasks {
			t := &task{p: p, fragment: f, index: i, inbox: exchange.NewInbox(queues), reads: make(chan *read, 4)}
			ts = append(ts, t)
			for source, q := range feeds {
				p.feeders[source].inboxes = append(p.feeders[source].inboxes, inboxQueue{t.inbox, q})
			}
			if t.store, err = state.New(state.Options{Groups: p.opts.Groups, Backing: backing, Volatile: p.opts.Durable == nil, MemoryBytes: p.memoryOfTask()}); err != nil {
				return err
			}
			p.tasks = append(p.tasks, nil)[:max(len(p.tasks), f.number+1)]
			p.tasks[f.number] = ts
			if err := t.build(); err != nil {
				return err
			}
		}
		for _, n := range f.nodes {
			s := g.Nodes[n].Source
			if s == nil {
				continue
			}
			e := entry{node: n, ordered: s.Ordered}
			for _, t := range ts {
				e.tasks = append(e.tasks, inboxQueue{t.inbox, feeds[s.Source]})
			}
			p.feeders[s.Source].tables[s.Table] = append(p.feeders[s.Source].tables[s.Table], e)
		}
	}
	for _, ts := range p.tasks {
		for _, t := range ts {
			t.connect(ctx)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.feeders = p.feeders
	for _, ts := range p.tasks {
		for _, t := range ts {
			p.mu.inboxes = append(p.mu.inboxes, t.inbox)
		}
	}
	return nil
}

// memoryOfTask is the part of the memory that a task with state has.
func (p *Pipeline) memoryOfTask() uint64 {
	n := 0
	for _, f := range p.fragments {
		if slices.ContainsFunc(f.nodes, func(n int) bool { return len(p.opts.Graph.Nodes[n].States) > 0 }) {
			n += f.tasks
		}
	}
	return uint64(p.pressure.limit) / uint64(max(n, 1))
}

// queues is how many queues a task has for an edge: one for each upstream task that may send to it.
func (e cutEdge) queues() int {
	if e.edge.How == dataflow.Forward && e.from.tasks > 1 && e.into.tasks > 1 {
		return 1
	}
	return e.from.tasks
}

// targets are the queues of the receiving fragment's tasks for an edge, as a task of the sending one sees them.
// asPort is the port at which the node takes them.
func (p *Pipeline) targets(from *task, e dataflow.Edge, node, port, asPort int) []exchange.Target {
	f := p.of[node]
	first := 0
	seen := map[int]bool{}
	for _, n := range f.nodes {
		if s := p.opts.Graph.Nodes[n].Source; s != nil && !seen[s.Source] {
			seen[s.Source] = true
			first++
		}
	}
	for _, in := range f.in {
		if in.to == node && in.port == port {
			break
		}
		first += in.queues()
	}
	var out []exchange.Target
	for i, t := range p.tasks[f.number] {
		switch {
		case e.How == dataflow.Forward && from.fragment.tasks > 1 && f.tasks > 1:
			if i == from.index {
				out = append(out, exchange.Target{Inbox: t.inbox, Queue: first, Node: node, Port: asPort})
			}
		default:
			out = append(out, exchange.Target{Inbox: t.inbox, Queue: first + from.index, Node: node, Port: asPort})
		}
	}
	return out
}
