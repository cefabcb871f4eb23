package keyed

import (
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// driver ends epochs. One goroutine owns it.
type driver struct {
	*Pipeline
	epoch       uint64
	checkpoint  dataflow.Checkpoint
	published   []dataflow.Checkpoint // by sink
	states      []dataflow.State      // by source, as of the last checkpoint
	out         []written             // by sink, as of the last checkpoint
	confirm     [][]dataflow.StateChange
	now         int64 // the clock's last reading
	lastCheck   time.Time
	lastCut     time.Time
	cost        time.Duration // of the last barrier, in the slowest task
	committing  chan error    // a checkpoint is being made durable
	memory      uint64        // of all states, after the last epoch
	dirty       bool          // something came since the last checkpoint
	last        uint64        // the last checkpoint that was begun
	evicted     uint64        // what the store below had at the last barrier
	ends        int
	firsts      int  // sources that are read before the others and have not ended
	firstsEnded bool // the last of them has just ended
	seen        seen
	// Checkpoints whose rows for sinks are held, without a Durable their outboxes. The goroutine of the checkpoint that is
	// being made durable has them.
	held         []dataflow.Checkpoint
	restored     dataflow.Checkpoint // where it began
	heldOutboxes [][]byte
	// The faults that stand, by node; of which nodes they matter to sinks; and from which checkpoint on rows for sinks are held
	// for them, 0: they are not.
	faults   map[string]faulty
	written  map[string]bool
	heldFrom dataflow.Checkpoint
	// Of each source: how many urgent messages the last checkpoint has.
	urgent    []int64
	finishing bool // all have ended, and the pipeline stays
	shrunk    bool // there is state of nodes that are not in the graph any more
	// What the checkpoint says of the graph that it is of: its nodes, nil if it says nothing, and those that write sinks, by
	// sink and table.
	nodes     map[string]bool
	sinkNodes map[[2]uint16]string
	follows   bool // a source is a Follower
}

// meta is what a checkpoint keeps besides state and outbox: the clock, each source's state by the source's name, and the
// graph's nodes.
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
	b = binary.AppendUvarint(b, uint64(d.seen.since))
	b = binary.AppendUvarint(b, uint64(len(d.opts.Graph.Nodes)))
	for _, n := range d.opts.Graph.Nodes {
		text([]byte(n.ID))
		if n.Sink == nil {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(append(b, 1), uint64(n.Sink.Sink))
		b = binary.AppendUvarint(b, uint64(n.Sink.Table))
	}
	// What follows are sections, each with its name; one that is not known is passed over.
	text([]byte(sectionSinks))
	text(d.sinkSection())
	text([]byte(sectionFaults))
	text(d.faultSection())
	return b
}

func (d *driver) restore() error {
	d.states = make([]dataflow.State, len(d.opts.Sources))
	for i := range d.states {
		d.states[i] = dataflow.State{}
	}
	d.confirm = make([][]dataflow.StateChange, len(d.opts.Sources))
	d.out = make([]written, len(d.opts.Sinks))
	d.faults = map[string]faulty{}
	d.urgent = make([]int64, len(d.opts.Sources))
	for _, s := range d.opts.Sources {
		_, ok := s.Source.(dataflow.Follower)
		d.follows = d.follows || ok
	}
	if d.opts.Durable == nil {
		return nil
	}
	c, meta := d.opts.Durable.Restored()
	d.checkpoint, d.restored = c, c
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
	d.seen.since = 1
	if len(meta) > 0 {
		d.seen.since = dataflow.Checkpoint(number())
	}
	if len(meta) > 0 {
		d.nodes, d.sinkNodes = map[string]bool{}, map[[2]uint16]string{}
		for range number() {
			id := text()
			d.nodes[id] = true
			if number() == 1 {
				sink := uint16(number())
				d.sinkNodes[[2]uint16{sink, uint16(number())}] = id
			}
		}
		if meta == nil {
			return bad
		}
	}
	for len(meta) > 0 {
		switch name, section := text(), text(); name {
		case sectionSinks:
			d.restoreSinks([]byte(section))
		case sectionFaults:
			d.restoreFaults([]byte(section))
		}
	}
	d.update(func(s *Status) {
		s.Checkpoint = c
		if d.seen.since > 0 {
			s.Epoch = d.epoch
		}
	})
	return nil
}

// publishOld publishes what was committed before and is not published everywhere.
func (d *driver) publishOld(ctx context.Context) error {
	if d.opts.Durable == nil {
		return nil
	}
	for _, c := range d.opts.Durable.Unpublished() {
		switch {
		case c > d.checkpoint:
		case d.seen.since == 0 || c < d.seen.since || d.heldFrom > 0 && c >= d.heldFrom:
			d.held = append(d.held, c)
		default:
			if err := d.publishHeld(ctx, c); err != nil {
				return err
			}
			outbox, err := d.opts.Durable.Outbox(c)
			if err != nil {
				return err
			}
			if err := d.publish(ctx, c, d.moved(outbox)); err != nil {
				return err
			}
		}
	}
	switch {
	case d.heldFrom == 0:
		return d.publishHeld(ctx, d.checkpoint+1)
	case d.seen.since == 0 || d.blocked() != nil:
		return nil
	}
	d.heldFrom = 0
	return d.publish(ctx, d.checkpoint, nil)
}

// publish hands a committed checkpoint to every sink that does not have it, behind those that were held for it.
func (d *driver) publish(ctx context.Context, c dataflow.Checkpoint, outbox []byte) error {
	for i := range d.opts.Sinks {
		if d.published[i] >= c {
			continue
		}
		ch := d.changesOf(i, outbox)
		if some, err := ch.some(); err != nil {
			return err
		} else if some {
			if err := d.opts.Sinks[i].Sink.Publish(ctx, c, ch); err != nil {
				return err
			}
			d.update(func(s *Status) { s.RowsOut[i] += ch.rows })
		}
		d.published[i] = c
	}
	d.held, d.heldOutboxes = nil, nil
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
	for i, f := range d.feeders {
		if d.opts.Sources[i].First {
			d.firsts++
			close(f.open)
		}
	}
	if d.firsts == 0 {
		d.openRest()
	}
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
			if err := d.committed(ctx); err != nil {
				return err
			}
			if blocked := d.blocked(); blocked != nil && d.ends == len(d.opts.Sources) {
				e, _ := errs.As(blocked)
				e.Final = true // there is no more to come that could take the rows back
				return e
			}
			return nil
		}
		due := d.committing == nil && (d.pressure.over() && d.changed() || d.awaited() || d.env.Clock.Now().Sub(d.lastCheck) >= d.opts.CheckpointInterval)
		if err := d.end(ctx, due); err != nil {
			return err
		}
		if d.firstsEnded {
			// Their rows have passed every task.
			d.firstsEnded = false
			d.openRest()
		}
	}
}

// openRest lets the sources in that wait for others to end.
func (d *driver) openRest() {
	for i, f := range d.feeders {
		if !d.opts.Sources[i].First {
			close(f.open)
		}
	}
}

// wait returns when an epoch is to end, and whether it is the last.
func (d *driver) wait(ctx context.Context) (last bool, err error) {
	if len(d.opts.Sources) == 0 && !d.opts.Stay {
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
		var ask chan chan *held
		if d.seen.now {
			d.pinned()
			ask = d.pins.ask
		}
		if d.committing == nil && d.awaited() {
			return false, nil
		}
		var due, look <-chan time.Time
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
		switch now, wait := d.relieve(); {
		case now:
			return false, nil
		case wait && timer == nil:
			timer = d.env.Clock.NewTimer(absorbing)
			look = timer.C()
		}
		select {
		case <-d.stir:
			waiting, d.dirty = true, true
		case <-d.hurry:
		case <-due:
			return false, nil
		case <-d.pressure.full:
		case <-look:
		case source := <-d.ended:
			if d.ends++; d.ends == len(d.opts.Sources) {
				if d.opts.Stay {
					waiting, d.dirty, d.finishing = true, true, true
					break
				}
				d.update(func(s *Status) { s.Ended = true })
				return true, nil
			}
			if d.opts.Sources[source].First {
				if d.firsts--; d.firsts == 0 {
					d.firstsEnded = true
					return false, nil
				}
			}
		case err := <-d.committing:
			if err := d.settle(err); err != nil {
				return false, err
			}
		case answer := <-ask:
			answer <- d.pin()
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

// awaited tells whether somebody waits for a checkpoint of what came since the last.
func (d *driver) awaited() bool {
	for i, f := range d.feeders {
		if f.urgent.Load() > d.urgent[i] {
			return true
		}
	}
	return false
}

// pinned answers who waits for a pin. It is called where every task has passed the last barrier and the next is not cut.
func (d *driver) pinned() {
	for {
		select {
		case answer := <-d.pins.ask:
			answer <- d.pin()
		default:
			return
		}
	}
}

// pin pins the epoch that readers get.
func (d *driver) pin() *held {
	if h := d.pins.readable(d.epoch); h != nil {
		return h
	}
	return d.pins.hold(d.epoch, d.env.Clock.Now())
}

// end ends an epoch: every source is cut, every task passes the barrier. With check it is a checkpoint, which is made
// durable beside what follows.
func (d *driver) end(ctx context.Context, check bool) error {
	began := d.env.Clock.Now()
	d.pins.expire(began, d.opts)
	var before *held // until it is known what the epoch has
	if d.follows {
		before = d.pins.hold(d.epoch, began)
	}
	d.lastCut = began
	d.epoch++
	d.now = max(d.now, began.UnixMicro())
	if d.opts.Durable != nil {
		d.evicted = d.opts.Durable.Absorbed() // or more, when the tasks come to it
	}
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
	changed := make([][]dataflow.StateChange, len(d.feeders))
	d.cost = 0
	d.memory = 0
	agree, faulted := true, false
	sizes := map[string]state.StateSize{}
	for cuts := len(d.feeders); tasks > 0 || cuts > 0; {
		select {
		case c := <-d.cutDone:
			cuts--
			d.confirm[c.source] = append(d.confirm[c.source], c.changed...)
			states[c.source], changed[c.source] = c.state, c.changed
			agree = agree && c.agrees
			if check {
				d.urgent[c.source] = c.urgent
			}
		case p := <-d.passed:
			tasks--
			d.cost = max(d.cost, p.cost)
			d.memory += p.memory
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
				d.fault(f)
			}
			faulted = faulted || len(p.faults) > 0
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := d.laws.judge(); err != nil {
		return err
	}
	if !check && d.committing == nil && d.evicted >= d.last {
		d.pressure.stays()
	}
	took := d.env.Clock.Now().Sub(began)
	d.seen.now = d.seen.now || agree
	followed := false
	for i, f := range d.feeders {
		if follower, ok := f.source.(dataflow.Follower); ok && len(changed[i]) > 0 {
			follower.Visible(d.epoch, changed[i])
			followed = true
		}
	}
	if d.follows {
		d.pins.after(before, d.epoch, followed, check, began)
	}
	d.update(func(s *Status) {
		if d.seen.now {
			s.Epoch = d.epoch
			for _, w := range d.mu.waiting {
				close(w)
			}
			d.mu.waiting = nil
		}
		s.Copying, s.EpochTook, s.StateBytes = !d.seen.now, took, d.memory
		if check {
			s.States = s.States[:0:0] // who was given the last ones keeps them
			for _, name := range slices.Sorted(maps.Keys(sizes)) {
				s.States = append(s.States, sizes[name])
			}
		}
	})
	if faulted {
		d.tellFaults()
	}
	if d.seen.now {
		d.visible()
	}
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
	blocked := d.blocked()
	if blocked != nil && d.heldFrom == 0 {
		d.heldFrom = c
		d.env.Log.Warn("sinks are given nothing while rows cannot be evaluated", "error", blocked)
	}
	unseen := !d.seen.now || blocked != nil
	d.note(c, outbox, !unseen)
	d.last = d.epoch
	if d.seen.now && d.seen.since == 0 {
		d.seen.since = c
	}
	meta := d.meta(states)
	if blocked == nil {
		d.heldFrom = 0
	}
	confirm, shrunk := d.confirm, d.shrunk
	d.shrunk = false
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
			d.pins.durable(uint64(c)) // before anybody is told: who is may want to read it
			for i, f := range d.feeders {
				if follower, ok := f.source.(dataflow.Follower); ok && len(confirm[i]) > 0 {
					follower.Durable(confirm[i])
				}
			}
			took := d.env.Clock.Now().Sub(began)
			d.update(func(s *Status) {
				s.Checkpoint, s.CheckpointTook, s.CheckpointBytes = c, took, bytes
			})
			if d.opts.OnCheckpoint != nil {
				d.opts.OnCheckpoint(c, took, bytes)
			}
			if unseen {
				d.hold(c, outbox)
			} else if err := d.publish(ctx, c, outbox); err != nil {
				return err
			}
			for i := range d.feeders {
				if len(confirm[i]) > 0 {
					d.feeders[i].source.Confirm(confirm[i])
				}
			}
			if shrunk {
				left := map[string]bool{}
				for _, n := range d.opts.Graph.Nodes {
					left[n.ID] = true
				}
				return d.forget(left)
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
	if err == nil && d.finishing && !d.dirty {
		d.update(func(s *Status) { s.Ended = true })
	}
	return err
}
