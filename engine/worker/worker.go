// Package worker runs pipelines: it moves messages from sources to targets, cuts epochs, and tells sources what has
// become durable.
package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weirstream/weir/engine/checkpoint"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// Options configures a Pipe.
type Options struct {
	Source     dataflow.Source
	Target     dataflow.Target
	Generation dataflow.Generation
	Copies     int // ranges copied at once; default 2
	Epochs     checkpoint.Options
}

// Pipe is a pipeline of one source and one target that is its truth. It runs once: after an error a new one is made,
// which begins where the target's ledger stands.
type Pipe struct {
	env  *env.Env
	opts Options

	stop     chan struct{}
	stopOnce sync.Once
	status   status
}

// New returns a Pipe that Run runs.
func New(e *env.Env, opts Options) *Pipe {
	if opts.Copies == 0 {
		opts.Copies = 2
	}
	return &Pipe{env: e, opts: opts, stop: make(chan struct{})}
}

// Stop asks for a graceful end: what was written is cut and made durable, then Run returns nil.
func (p *Pipe) Stop() { p.stopOnce.Do(func() { close(p.stop) }) }

// ErrStopped: Stop came before the first copy was complete.
var ErrStopped = errors.New("stopped")

// Run works until Stop, the end of the source, an error, or the end of ctx. When it returns, source and target are
// closed.
func (p *Pipe) Run(ctx context.Context) (err error) {
	p.status.set(func(s *Status) { s.Phase = PhasePrepare; s.Since = p.env.Clock.Now() })
	prepared := p.prepare(ctx)
	restored, err := p.opts.Target.Open(ctx, p.opts.Generation)
	perr := <-prepared
	if err != nil {
		_ = p.opts.Source.Close(context.WithoutCancel(ctx))
		return err
	}
	defer func() {
		if cerr := p.opts.Target.Close(context.WithoutCancel(ctx)); err == nil {
			err = cerr
		}
	}()
	if perr == nil {
		perr = p.opts.Source.Open(ctx, restored.State)
	}
	if perr != nil {
		_ = p.opts.Source.Close(context.WithoutCancel(ctx))
		return perr
	}
	defer func() {
		if cerr := p.opts.Source.Close(context.WithoutCancel(ctx)); err == nil {
			err = cerr
		}
	}()
	r := &run{Pipe: p, driver: checkpoint.NewDriver(p.opts.Epochs, restored.Checkpoint)}
	p.status.set(func(s *Status) {
		s.Checkpoint, s.Durable = restored.Checkpoint, restored.Checkpoint
		// A source that nobody writes to gives no cut for long.
		if at, ok := restored.State["position"]; ok {
			s.Visible, s.Stored = map[string][]byte{"position": at}, map[string][]byte{"position": at}
		}
	})
	if err := r.copy(ctx); err != nil {
		return err
	}
	return r.stream(ctx)
}

// prepare lets the source connect while the target is opened.
func (p *Pipe) prepare(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	source, ok := p.opts.Source.(dataflow.Preparer)
	if !ok {
		done <- nil
		return done
	}
	p.env.Go("worker-prepare", func() { done <- source.Prepare(ctx) })
	return done
}

// run is a Pipe at work; one goroutine owns it.
type run struct {
	*Pipe
	driver *checkpoint.Driver
	state  []dataflow.StateChange // for the next cut
	cuts   []cutInFlight          // not yet durable, oldest first
}

type cutInFlight struct {
	checkpoint dataflow.Checkpoint
	state      []dataflow.StateChange
	commit     time.Time // the source's time of its last transaction
}

// copy runs the first copy, if the source has one to give.
func (r *run) copy(ctx context.Context) error {
	copier, ok := r.opts.Source.(dataflow.Copier)
	if !ok {
		return nil
	}
	loader, ok := r.opts.Target.(dataflow.Loader)
	if !ok {
		return errs.New(errs.EngineInternal, "the target cannot load the source's first copy")
	}
	if copier.Copied() {
		return nil
	}
	ranges, initial, err := copier.Ranges(ctx)
	if err != nil {
		return err
	}
	if len(initial) > 0 {
		if err := r.cutNow(ctx, initial); err != nil {
			return err
		}
	}
	if err := r.load(ctx, copier, loader, ranges); err != nil {
		return err
	}
	// A crash may have come between the last range and here: everything below can be done twice.
	if err := loader.FinishCopy(ctx); err != nil {
		return err
	}
	state, err := copier.CopyDone(ctx)
	if err != nil {
		return err
	}
	return r.cutNow(ctx, state)
}

// load copies ranges as many at once as allowed. The largest go first, so that nobody is left with a long one.
func (r *run) load(ctx context.Context, copier dataflow.Copier, loader dataflow.Loader, ranges []dataflow.Range) error {
	r.status.set(func(s *Status) { s.Phase = PhaseCopy })
	queue := make(chan dataflow.Range, len(ranges))
	for _, x := range largestFirst(ranges) {
		queue <- x
	}
	close(queue)
	var mu sync.Mutex
	left, unfinished := map[uint32]int{}, len(ranges) // ranges of each table, and of all
	for _, x := range ranges {
		left[x.Rel.ID]++
	}
	g, ctx := errgroup.WithContext(ctx)
	for worker := range min(r.opts.Copies, len(ranges)) {
		g.Go(func() error {
			for x := range queue {
				select {
				case <-r.stop:
					return ErrStopped
				case <-ctx.Done():
					return ctx.Err()
				default:
				}
				if err := r.loadRange(ctx, worker, copier, loader, x); err != nil {
					return err
				}
				mu.Lock()
				left[x.Rel.ID]--
				unfinished--
				last, beside := left[x.Rel.ID] == 0, unfinished > 0
				mu.Unlock()
				if finisher, ok := loader.(dataflow.TableFinisher); ok && last {
					if err := finisher.FinishTable(ctx, worker, x.Rel, beside); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (r *run) loadRange(ctx context.Context, worker int, copier dataflow.Copier, loader dataflow.Loader, x dataflow.Range) error {
	s, err := copier.OpenRange(ctx, worker, x)
	if err != nil {
		return err
	}
	rows, err := loader.Load(ctx, worker, x, s, func(rows int64) []dataflow.StateChange { return copier.RangeState(x, rows) },
		func(bytes int64) { r.status.bytes.Add(bytes) })
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	r.status.rows.Add(rows)
	return err
}

// cutNow stores state with a cut of its own and waits until it is durable.
func (r *run) cutNow(ctx context.Context, state []dataflow.StateChange) error {
	r.driver.Wrote(r.env.Clock.Now(), 0, false, true, true)
	r.state = append(r.state, state...)
	if err := r.cutDurable(ctx); err != nil {
		return err
	}
	return r.drain(ctx)
}

func (r *run) cut(ctx context.Context) error { return r.cutAs(ctx, false) }

// cutDurable is a cut that is waited for.
func (r *run) cutDurable(ctx context.Context) error { return r.cutAs(ctx, true) }

func (r *run) cutAs(ctx context.Context, durable bool) error {
	n := r.driver.Cut(r.env.Clock.Now())
	state := compact(r.state)
	r.state = nil
	r.cuts = append(r.cuts, cutInFlight{checkpoint: n, state: state, commit: r.status.written()})
	return r.opts.Target.Commit(ctx, dataflow.Cut{Checkpoint: n, Clock: r.env.Clock.Now(), State: state, Durable: durable})
}

// compact keeps the last change of each key, in order of first use.
func compact(changes []dataflow.StateChange) []dataflow.StateChange {
	if len(changes) < 2 {
		return changes
	}
	at := make(map[string]int, len(changes))
	out := changes[:0]
	for _, c := range changes {
		if i, ok := at[c.Key]; ok {
			out[i] = c
			continue
		}
		at[c.Key] = len(out)
		out = append(out, c)
	}
	return out
}

// acked takes a word of the target.
func (r *run) acked(a dataflow.Ack) error {
	if a.Err != nil {
		return a.Err
	}
	r.driver.Acked(a)
	if !a.Durable {
		r.status.rows.Add(a.Rows)
		for _, c := range r.cuts {
			if c.checkpoint == a.Checkpoint {
				r.status.visible(a.Checkpoint, c.commit, c.state)
			}
		}
		return nil
	}
	for len(r.cuts) > 0 && r.cuts[0].checkpoint <= a.Checkpoint {
		r.opts.Source.Confirm(r.cuts[0].state)
		r.status.durable(r.cuts[0].checkpoint, r.cuts[0].state)
		r.cuts = r.cuts[1:]
	}
	return nil
}

// drain waits until every cut is durable.
func (r *run) drain(ctx context.Context) error {
	for len(r.cuts) > 0 {
		select {
		case a, ok := <-r.opts.Target.Acks():
			if !ok {
				return errs.New(errs.TargetUnreachable, "the target closed")
			}
			if err := r.acked(a); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

type readResult struct {
	m   dataflow.Message
	err error
}

// stream moves messages until something ends it.
func (r *run) stream(ctx context.Context) error {
	r.status.set(func(s *Status) { s.Phase = PhaseCatchUp })
	readCtx, cancel := context.WithCancel(ctx)
	messages := make(chan readResult, 4)
	var reading sync.WaitGroup
	reading.Add(1)
	r.env.Go("worker-read", func() {
		defer reading.Done()
		for {
			m, err := r.opts.Source.Read(readCtx)
			select {
			case messages <- readResult{m, err}:
			case <-readCtx.Done():
				m.Rows.Release()
				return
			}
			if err != nil || m.Kind == dataflow.KindEnd {
				return
			}
		}
	})
	defer func() {
		cancel()
		reading.Wait()
	}()
	timer := r.env.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		cut, wait := r.driver.Due(r.env.Clock.Now(), len(messages) > 0)
		if cut {
			if err := r.cut(ctx); err != nil {
				return r.failure(err)
			}
			continue
		}
		if wait == 0 {
			wait = time.Hour
		}
		timer.Reset(wait)
		// Acks first: they are cheap, and what they free is what the messages wait for.
		select {
		case a, ok := <-r.opts.Target.Acks():
			if err := r.ackOrEnd(a, ok); err != nil {
				return err
			}
			continue
		default:
		}
		select {
		case a, ok := <-r.opts.Target.Acks():
			if err := r.ackOrEnd(a, ok); err != nil {
				return err
			}
		case x := <-messages:
			if x.err != nil {
				return x.err
			}
			if x.m.Kind == dataflow.KindEnd {
				return r.finish(ctx)
			}
			if err := r.write(ctx, x.m); err != nil {
				return r.failure(err)
			}
		case <-timer.C():
		case <-r.stop:
			return r.finish(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *run) ackOrEnd(a dataflow.Ack, ok bool) error {
	if !ok {
		return errs.New(errs.TargetUnreachable, "the target closed")
	}
	return r.acked(a)
}

// failure prefers the target's own word about why it failed: a write that met a broken connection knows less than the
// reply that broke it.
func (r *run) failure(err error) error {
	for {
		select {
		case a, ok := <-r.opts.Target.Acks():
			if !ok {
				return err
			}
			if a.Err != nil {
				return a.Err
			}
		default:
			return err
		}
	}
}

func (r *run) write(ctx context.Context, m dataflow.Message) error {
	switch m.Kind {
	case dataflow.KindOpenRows, dataflow.KindOpenAbort, dataflow.KindOpenCommit:
		return r.writeAhead(ctx, m)
	}
	if m.Consistent {
		return r.consistent(ctx, m)
	}
	if m.Kind == dataflow.KindSchema && r.driver.AtBoundary() && r.driver.Pending() {
		// The target may refuse the change, or be told to. What committed before is not to go down with it.
		if err := r.cut(ctx); err != nil {
			return err
		}
		if err := r.settle(ctx); err != nil {
			return err
		}
	}
	bytes := 0
	if m.Rows != nil {
		bytes = m.Rows.Bytes()
	}
	effects := m.Kind != dataflow.KindMark
	r.status.bytes.Add(int64(bytes))
	r.status.wrote(m.Commit)
	if err := r.opts.Target.Write(ctx, m); err != nil {
		return err
	}
	r.state = append(r.state, m.State...)
	r.driver.Wrote(r.env.Clock.Now(), bytes, effects, len(m.State) > 0, m.Boundary)
	return nil
}

// writeAhead passes on what belongs to an open transaction. Its rows may build on everything that committed before
// them, so that is made visible first; its commit is a checkpoint of its own.
func (r *run) writeAhead(ctx context.Context, m dataflow.Message) error {
	if r.driver.Pending() {
		if err := r.cut(ctx); err != nil {
			return err
		}
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	if m.Rows != nil {
		r.status.bytes.Add(int64(m.Rows.Bytes()))
	}
	r.status.wrote(m.Commit)
	if err := r.opts.Target.Write(ctx, m); err != nil {
		return err
	}
	if m.Kind != dataflow.KindOpenCommit {
		return nil
	}
	r.state = append(r.state, m.State...)
	r.driver.Wrote(r.env.Clock.Now(), 0, true, true, true)
	if err := r.cut(ctx); err != nil {
		return err
	}
	return r.settle(ctx)
}

// consistent lets the target build what could not be true before. Its state is stored only afterwards: a crash in
// between makes the source say it again.
func (r *run) consistent(ctx context.Context, m dataflow.Message) error {
	if r.driver.Pending() {
		if err := r.cutDurable(ctx); err != nil {
			return err
		}
	}
	if err := r.drain(ctx); err != nil {
		return err
	}
	if loader, ok := r.opts.Target.(dataflow.Loader); ok {
		if err := loader.FinishConstraints(ctx); err != nil {
			return err
		}
	}
	return r.cutNow(ctx, m.State)
}

// settle waits until every cut is visible.
func (r *run) settle(ctx context.Context) error {
	for !r.driver.Idle() {
		select {
		case a, ok := <-r.opts.Target.Acks():
			if err := r.ackOrEnd(a, ok); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// finish makes what was written durable and ends. Rows behind the last boundary are dropped: they will be read again.
func (r *run) finish(ctx context.Context) error {
	if r.driver.AtBoundary() && r.driver.Pending() {
		if err := r.cutDurable(ctx); err != nil {
			return r.failure(err)
		}
	}
	return r.drain(ctx)
}
