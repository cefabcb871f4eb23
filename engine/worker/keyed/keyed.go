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
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
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
}

// Source is a source of the pipeline.
type Source struct {
	Name   string // by which its state is found again
	Source dataflow.Source
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
	passed    chan passed
	cutDone   chan cutDone
	stir      chan struct{} // rows came since it was last read
	ended     chan int
	stop      chan struct{}
	stopOnce  sync.Once

	mu struct {
		sync.Mutex
		status Status
		// What Status asks, once all of it is built.
		feeders []*feeder
		inboxes []*exchange.Inbox
	}
}

// Status is how the pipeline stands.
type Status struct {
	Epoch      uint64 // visible
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
	Ended                     bool  // every source has ended
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
	state   dataflow.State // with a checkpoint
}

// New returns a pipeline that Run runs.
func New(e *env.Env, opts Options) *Pipeline {
	if opts.Parallelism == 0 {
		opts.Parallelism = 1
	}
	if opts.MaxEpoch == 0 {
		opts.MaxEpoch = 100 * time.Millisecond
	}
	p := &Pipeline{env: e, opts: opts, passed: make(chan passed, 64), cutDone: make(chan cutDone, 16), stir: make(chan struct{}, 1),
		ended: make(chan int, len(opts.Sources)), stop: make(chan struct{})}
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

func (p *Pipeline) end(source int) { p.ended <- source }

func unexpected(source string, k dataflow.Kind) error {
	return fmt.Errorf("source %s sent a message of kind %d, which a pipeline with state does not take", source, k)
}

var errDone = errors.New("done")

// Run works until Stop, the end of all sources, an error, or the end of ctx. When it returns, sources and sinks are
// closed and every goroutine has ended.
func (p *Pipeline) Run(ctx context.Context) (err error) {
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
	for i := range p.opts.Sinks {
		opened++
		at, err := p.opts.Sinks[i].Sink.Open(ctx, p.opts.Generation, d.checkpoint)
		if err != nil {
			return err
		}
		if at > d.checkpoint {
			// Publishing follows the commit, so the sink's number is not of this state. Going on would leave out every
			// checkpoint up to it, as if it were published.
			return errs.New(errs.TargetTable, "sink %s has checkpoint %d, but the pipeline's state ends at %d", p.opts.Sinks[i].Name, at, d.checkpoint).
				WithHint("the state directory was removed or replaced, or another pipeline writes there; restore the state, or give the sink a new, empty place")
		}
		d.published = append(d.published, at)
	}
	d.now = max(d.now, p.env.Clock.Now().UnixMicro())
	p.clock = d.now
	if err := d.publishOld(ctx); err != nil {
		return err
	}
	g, running := errgroup.WithContext(ctx)
	if err := p.buildTasks(running); err != nil {
		return err
	}
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
			messages: make(chan dataflow.Message, 4), cuts: make(chan dataflow.Epoch, 1), state: dataflow.State{}})
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
			t := &task{p: p, fragment: f, index: i, inbox: exchange.NewInbox(queues)}
			ts = append(ts, t)
			for source, q := range feeds {
				p.feeders[source].inboxes = append(p.feeders[source].inboxes, inboxQueue{t.inbox, q})
			}
			if t.store, err = state.New(state.Options{Groups: p.opts.Groups, Backing: backing, Volatile: p.opts.Durable == nil}); err != nil {
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
			e := entry{node: n}
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

// queues is how many queues a task has for an edge: one for each upstream task that may send to it.
func (e cutEdge) queues() int {
	if e.edge.How == dataflow.Forward && e.from.tasks > 1 {
		return 1
	}
	return e.from.tasks
}

// targets are the queues of the receiving fragment's tasks for an edge, as a task of the sending one sees them.
func (p *Pipeline) targets(from *task, e dataflow.Edge, node, port int) []exchange.Target {
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
				out = append(out, exchange.Target{Inbox: t.inbox, Queue: first, Node: node, Port: port})
			}
		default:
			out = append(out, exchange.Target{Inbox: t.inbox, Queue: first + from.index, Node: node, Port: port})
		}
	}
	return out
}

// driver ends epochs. One goroutine owns it.
type driver struct {
	*Pipeline
	epoch      uint64
	checkpoint dataflow.Checkpoint
	published  []dataflow.Checkpoint // by sink
	states     []dataflow.State      // by source, as of the last checkpoint
	confirm    [][]dataflow.StateChange
	now        int64 // the clock's last reading
	lastCheck  time.Time
	lastCut    time.Time
	cost       time.Duration // of the last barrier, in the slowest task
	committing chan error    // a checkpoint is being made durable
	dirty      bool          // something came since the last checkpoint
	ends       int
}

// meta is what a checkpoint keeps besides state and outbox: the clock, and each source's state by the source's name.
func (d *driver) meta(states []dataflow.State) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(d.now))
	b = binary.AppendUvarint(b, d.epoch)
	text := func(s []byte) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	b = binary.AppendUvarint(b, uint64(len(states)))
	for i, s := range states {
		text([]byte(d.opts.Sources[i].Name))
		b = binary.AppendUvarint(b, uint64(len(s)))
		keys := make([]string, 0, len(s))
		for k := range s {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			text([]byte(k))
			text(s[k])
		}
	}
	return b
}

func (d *driver) restore() error {
	d.states = make([]dataflow.State, len(d.opts.Sources))
	for i := range d.states {
		d.states[i] = dataflow.State{}
	}
	d.confirm = make([][]dataflow.StateChange, len(d.opts.Sources))
	if d.opts.Durable == nil {
		return nil
	}
	c, meta := d.opts.Durable.Restored()
	d.checkpoint = c
	if c == 0 {
		return nil
	}
	bad := errs.New(errs.StateCorrupt, "the meta data of checkpoint %d cannot be read", c)
	if len(meta) < 8 {
		return bad
	}
	d.now = int64(binary.LittleEndian.Uint64(meta))
	meta = meta[8:]
	number := func() uint64 {
		v, n := binary.Uvarint(meta)
		if n <= 0 {
			meta = nil
			return 0
		}
		meta = meta[n:]
		return v
	}
	text := func() string {
		n := number()
		if n > uint64(len(meta)) {
			meta = nil
			return ""
		}
		s := string(meta[:n])
		meta = meta[n:]
		return s
	}
	d.epoch = number()
	for range number() {
		name := text()
		s := dataflow.State{}
		for range number() {
			k := text()
			s[k] = []byte(text())
		}
		i := slices.IndexFunc(d.opts.Sources, func(x Source) bool { return x.Name == name })
		if i >= 0 {
			d.states[i] = s
		}
	}
	d.update(func(s *Status) { s.Checkpoint, s.Epoch = c, d.epoch })
	return nil
}

// publishOld publishes what was committed before and is not published everywhere.
func (d *driver) publishOld(ctx context.Context) error {
	if d.opts.Durable == nil {
		return nil
	}
	for _, c := range d.opts.Durable.Unpublished() {
		if c > d.checkpoint {
			continue
		}
		outbox, err := d.opts.Durable.Outbox(c)
		if err != nil {
			return err
		}
		if err := d.publish(ctx, c, outbox); err != nil {
			return err
		}
	}
	return nil
}

// publish hands a committed checkpoint to every sink that does not have it.
func (d *driver) publish(ctx context.Context, c dataflow.Checkpoint, outbox []byte) error {
	for i := range d.opts.Sinks {
		if d.published[i] >= c {
			continue
		}
		ch := newChanges(outbox, i, d.opts.Sinks[i].Tables)
		if !ch.empty() {
			counted := &counter{changes: ch}
			if err := d.opts.Sinks[i].Sink.Publish(ctx, c, counted); err != nil {
				return err
			}
			d.update(func(s *Status) { s.RowsOut[i] += counted.rows })
		}
		d.published[i] = c
	}
	if d.opts.Durable != nil {
		d.opts.Durable.Published(c)
	}
	d.update(func(s *Status) { s.Published = c })
	return nil
}

// run ends epochs until the pipeline is stopped or has no more to read.
func (d *driver) run(ctx context.Context) error {
	for i, f := range d.feeders {
		for k, v := range d.states[i] {
			f.state[k] = v
		}
	}
	defer func() {
		if d.committing != nil {
			<-d.committing // it sees the end of ctx, too
		}
	}()
	d.lastCut, d.lastCheck = d.env.Clock.Now(), d.env.Clock.Now()
	// The first epoch comes at once: what an aggregate without rows says is visible before anything was read.
	first := true
	for {
		last := false
		if !first {
			var err error
			if last, err = d.wait(ctx); err != nil {
				return err
			}
		}
		first = false
		if last {
			if d.committing != nil {
				if err := d.committed(ctx); err != nil {
					return err
				}
			}
			if err := d.end(ctx, true); err != nil {
				return err
			}
			return d.committed(ctx)
		}
		due := d.committing == nil && d.env.Clock.Now().Sub(d.lastCheck) >= d.opts.CheckpointInterval
		if err := d.end(ctx, due); err != nil {
			return err
		}
	}
}

// wait returns when an epoch is to end, and whether it is the last.
func (d *driver) wait(ctx context.Context) (last bool, err error) {
	if len(d.opts.Sources) == 0 {
		return true, nil
	}
	waiting := false // rows wait
	var timer env.Timer
	defer func() {
		if timer != nil {
			timer.Stop()
		}
	}()
	for {
		var due <-chan time.Time
		if waiting || d.dirty && d.committing == nil {
			// No sooner than 20 times the cost of a barrier, so that barriers cost at most a twentieth.
			at := d.lastCut.Add(min(20*d.cost, d.opts.MaxEpoch))
			if !waiting {
				at = d.lastCheck.Add(d.opts.CheckpointInterval) // only the checkpoint is missing
			}
			in := at.Sub(d.env.Clock.Now())
			if in <= 0 {
				return false, nil
			}
			timer = d.env.Clock.NewTimer(in)
			due = timer.C()
		}
		select {
		case <-d.stir:
			waiting, d.dirty = true, true
		case <-due:
			return false, nil
		case <-d.ended:
			if d.ends++; d.ends == len(d.opts.Sources) {
				d.update(func(s *Status) { s.Ended = true })
				return true, nil
			}
		case err := <-d.committing:
			if err := d.settle(err); err != nil {
				return false, err
			}
		case <-d.stop:
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
		if timer != nil {
			timer.Stop()
			timer = nil
		}
	}
}

// end ends an epoch: every source is cut, every task passes the barrier. With check it is a checkpoint, which is made
// durable beside what follows.
func (d *driver) end(ctx context.Context, check bool) error {
	began := d.env.Clock.Now()
	d.lastCut = began
	d.epoch++
	d.now = max(d.now, began.UnixMicro())
	e := dataflow.Epoch{N: d.epoch, Clock: d.now, Checkpoint: check}
	for _, f := range d.feeders {
		select {
		case f.cuts <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	tasks := 0
	for _, ts := range d.tasks {
		tasks += len(ts)
	}
	var deltas []*state.Delta
	var outbox []byte
	states := make([]dataflow.State, len(d.feeders))
	d.cost = 0
	var memory uint64
	sizes := map[string]state.StateSize{}
	for cuts := len(d.feeders); tasks > 0 || cuts > 0; {
		select {
		case c := <-d.cutDone:
			cuts--
			d.confirm[c.source] = append(d.confirm[c.source], c.changed...)
			states[c.source] = c.state
		case p := <-d.passed:
			tasks--
			d.cost = max(d.cost, p.cost)
			memory += p.memory
			for _, x := range p.sizes {
				sum := sizes[x.Name]
				sizes[x.Name] = state.StateSize{Name: x.Name, Entries: sum.Entries + x.Entries, Rows: sum.Rows + x.Rows, Bytes: sum.Bytes + x.Bytes}
			}
			if p.delta != nil {
				deltas = append(deltas, p.delta)
			}
			outbox = append(outbox, p.outbox...)
			for _, x := range p.discarded {
				d.update(func(s *Status) { s.RowsOut[x.sink] += x.rows })
			}
			for _, f := range p.faults {
				d.update(func(s *Status) { s.Faults += f.Weight })
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	took := d.env.Clock.Now().Sub(began)
	d.update(func(s *Status) {
		s.Epoch, s.EpochTook, s.StateBytes = d.epoch, took, memory
		if check {
			s.States = s.States[:0:0] // who was given the last ones keeps them
			for _, name := range slices.Sorted(maps.Keys(sizes)) {
				s.States = append(s.States, sizes[name])
			}
		}
	})
	if d.opts.OnEpoch != nil {
		d.opts.OnEpoch(took)
	}
	if check {
		d.check(ctx, began, deltas, outbox, states)
	}
	return nil
}

// check makes the epoch that has just ended durable and published, in a goroutine of its own.
func (d *driver) check(ctx context.Context, began time.Time, deltas []*state.Delta, outbox []byte, states []dataflow.State) {
	d.lastCheck, d.dirty = began, false
	c := dataflow.Checkpoint(d.epoch)
	meta := d.meta(states)
	confirm := d.confirm
	d.confirm = make([][]dataflow.StateChange, len(d.feeders))
	done := make(chan error, 1)
	d.committing = done
	d.env.Go("checkpoint", func() {
		done <- func() error {
			bytes := len(outbox)
			if d.opts.Durable != nil {
				for _, x := range deltas {
					x.Sort()
					bytes += x.Bytes()
				}
				if err := d.opts.Durable.Commit(ctx, c, deltas, outbox, meta); err != nil {
					return err
				}
			}
			took := d.env.Clock.Now().Sub(began)
			d.update(func(s *Status) {
				s.Checkpoint, s.CheckpointTook, s.CheckpointBytes = c, took, bytes
			})
			if d.opts.OnCheckpoint != nil {
				d.opts.OnCheckpoint(c, took, bytes)
			}
			if err := d.publish(ctx, c, outbox); err != nil {
				return err
			}
			for i := range d.feeders {
				if len(confirm[i]) > 0 {
					d.feeders[i].source.Confirm(confirm[i])
				}
			}
			return nil
		}()
	})
}

// committed waits for the checkpoint that is being made durable.
func (d *driver) committed(ctx context.Context) error {
	select {
	case err := <-d.committing:
		return d.settle(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *driver) settle(err error) error {
	d.committing = nil
	return err
}
