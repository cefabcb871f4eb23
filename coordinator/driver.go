package coordinator

import (
	"context"
	"log/slog"
	mrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// Runner runs pipelines on a node; the assembly of the engine implements it. Calls for one pipeline never overlap.
type Runner interface {
	// Start returns when the pipeline's goroutines run. ctx ends the starting only: what runs afterwards ends by Stop
	// or by itself. It is called again with a larger generation after a failure, a pause or a change.
	Start(ctx context.Context, p api.Pipeline, gen dataflow.Generation) (Running, error)
	// Remove cleans up outside (slot, publication, ledger) after a delete, under p's generation. It is idempotent: it
	// runs again when it failed, or when the node ended before the delete was recorded as done.
	Remove(ctx context.Context, p api.Pipeline) error
}

// SourceProber is what a Runner may have besides: it asks a pipeline's source while the pipeline does not run. A slot
// keeps its source's log above all when nobody reads it.
type SourceProber interface {
	ProbeSource(ctx context.Context, p api.Pipeline) (api.SourceStatus, error)
}

// LaterCommander is what a Runner may have besides: it takes orders for a pipeline that is paused, has failed or waits to
// try again, which its next start carries out. resting is asked when no start can come in between any more: one that has
// begun may have missed the order. Tables are removed by it before the definition says so: of those that are added again
// by the next start it then knows nothing.
type LaterCommander interface {
	CommandLater(ctx context.Context, p api.Pipeline, c api.Command, resting func() error) error
}

// Running is a pipeline that was started. Its methods may be called from several goroutines at once, also after its end.
type Running interface {
	Status() api.PipelineStatus
	Source(ctx context.Context) (api.SourceStatus, error)
	Command(ctx context.Context, c api.Command) error
	// Stop makes a final cut and returns after the last goroutine has ended. When ctx ends first it gives up the cut,
	// not the waiting for goroutines.
	Stop(ctx context.Context) error
	// Done is closed when the pipeline has ended, and then Err says why; nil means its source had no more to give.
	Done() <-chan struct{}
	Err() error
}

// stopLimit is how long a pipeline has for its final cut.
const stopLimit = 30 * time.Second

// driver carries out what a supervisor decides. One goroutine steps it; what takes time runs beside it and reports back
// as an event.
type driver struct {
	env    *env.Env
	c      *Coordinator
	id     string
	name   string
	log    *slog.Logger
	rand   *mrand.Rand // of the driver's goroutine
	wake   chan struct{}
	done   chan struct{}
	cancel context.CancelFunc // of the work under way; of the driver's goroutine

	mu struct {
		sync.Mutex
		inbox   []event
		sup     supervisor
		since   time.Time // of the supervisor's state
		running Running
		forget  []string // patterns of tables of which the next start has to know nothing
	}
}

func newDriver(c *Coordinator, p api.Pipeline) *driver {
	d := &driver{
		env: c.env, c: c, id: p.ID, name: p.Name, log: c.env.Log.With("pipeline", p.Name),
		rand: c.env.Rand.Stream("supervisor " + p.ID),
		wake: make(chan struct{}, 1), done: make(chan struct{}), cancel: func() {},
	}
	d.mu.since = c.env.Clock.Now()
	d.env.Go("supervise "+p.Name, d.run)
	return d
}

// post hands an event over. The inbox stays short: each action is answered once, and of wishes only the newest counts.
func (d *driver) post(ev event) {
	d.mu.Lock()
	if _, ok := ev.(wanted); ok && len(d.mu.inbox) > 0 {
		if last := len(d.mu.inbox) - 1; isWanted(d.mu.inbox[last]) {
			d.mu.inbox = d.mu.inbox[:last]
		}
	}
	d.mu.inbox = append(d.mu.inbox, ev)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func isWanted(ev event) bool { _, ok := ev.(wanted); return ok }

func (d *driver) run() {
	defer close(d.done)
	timer := d.env.Clock.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		for actions, now, ok := d.step(); ok; actions, now, ok = d.step() {
			for _, a := range actions {
				d.do(a, timer)
			}
			if now == gone {
				return
			}
		}
		select {
		case <-d.wake:
		case <-timer.C():
			d.post(elapsed{})
		}
	}
}

// step takes the next event out of the inbox, if there is one. That and the step are one to whoever asks for the status:
// at no moment is an event neither waiting nor heard.
func (d *driver) step() ([]action, state, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.mu.inbox) == 0 {
		return nil, d.mu.sup.state, false
	}
	ev := d.mu.inbox[0]
	d.mu.inbox = d.mu.inbox[1:]
	before := d.mu.sup.state
	actions := d.mu.sup.step(ev)
	s := &d.mu.sup
	if s.lesson != nil {
		d.log.Info("pipeline starts again and goes on another way", "because", s.lesson)
		s.lesson = nil
	}
	if s.state != before {
		d.mu.since = d.env.Clock.Now()
		d.log.Debug("pipeline state", "from", before.String(), "to", s.state.String(), "generation", uint64(s.gen))
		switch s.state {
		case waiting:
			d.log.Warn("pipeline failed and will be started again", "error", s.failure, "attempt", s.attempts)
		case failed:
			detail := ""
			if e, ok := errs.As(s.failure); ok {
				detail = e.Detail
			}
			level := slog.LevelError
			if told := d.c.opts.Told; told != nil && told(d.name) {
				level = slog.LevelInfo
			}
			d.log.Log(d.c.ctx, level, "pipeline failed and waits for the user", "error", s.failure, "detail", detail)
		}
	}
	if s.state != starting && s.state != running && s.state != stopping && s.state != ended {
		d.mu.running = nil
	}
	return actions, s.state, true
}

func (d *driver) fail(err error, jitter float64) failure {
	return failure{err: err, at: d.env.Clock.Now(), jitter: jitter}
}

// do starts what an action asks for.
func (d *driver) do(a action, timer env.Timer) {
	ctx, cancel := context.WithCancel(d.c.ctx)
	jitter := d.rand.Float64()
	switch a := a.(type) {
	case arm:
		timer.Reset(a.delay)
	case disarm:
		timer.Stop()
	case cancelWork:
		d.cancel()
	case reportForce:
		d.log.Warn("deleted by force; what the pipeline made outside may still be there", "error", a.err)
	case mint:
		d.work("mint a generation", cancel, func() event {
			gen, err := d.c.newGeneration(ctx, d.id)
			return minted{gen, d.fail(err, jitter)}
		})
		return
	case start:
		d.work("start", cancel, func() event { return started{a.gen, d.fail(d.start(ctx, a.gen), jitter)} })
		return
	case stop:
		d.work("stop", cancel, func() event { d.stop(ctx); return stopped(a) })
		return
	case remove:
		d.work("remove", cancel, func() event { return removed{d.fail(d.remove(ctx), jitter)} })
		return
	case finish:
		d.work("finish a delete", cancel, func() event {
			_, err := d.c.propose(ctx, FinishDelete{ID: d.id, Generation: uint64(a.gen)})
			return finished{d.fail(err, jitter)}
		})
		return
	}
	cancel()
}

func (d *driver) work(what string, cancel context.CancelFunc, fn func() event) {
	d.cancel()
	d.cancel = cancel
	d.env.Go(what+" "+d.name, func() {
		defer cancel()
		d.post(fn())
	})
}

func (d *driver) start(ctx context.Context, gen dataflow.Generation) error {
	p, err := d.c.lookup(d.id)
	if err != nil {
		return err
	}
	// The definition may be newer than the wish to start; the generation must not be.
	if dataflow.Generation(p.Generation) != gen {
		return errs.New(errs.EngineInternal, "generation %d of pipeline %q is no longer current", gen, d.name)
	}
	if err := d.forget(ctx, p); err != nil {
		return err
	}
	r, err := d.c.runner.Start(ctx, p, gen)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.mu.running = r
	d.mu.Unlock()
	jitter := d.env.Rand.Stream("exit " + d.id).Float64()
	d.env.Go("watch "+d.name, func() {
		<-r.Done()
		d.post(exited{gen, d.fail(r.Err(), jitter)})
	})
	return nil
}

// forgetAtStart has the next start forget tables first; nil takes that back.
func (d *driver) forgetAtStart(patterns []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if patterns != nil {
		patterns = append(slices.Clip(d.mu.forget), patterns...)
	}
	d.mu.forget = patterns
}

// forget does it, while nothing runs.
func (d *driver) forget(ctx context.Context, p api.Pipeline) error {
	d.mu.Lock()
	patterns := d.mu.forget
	d.mu.forget = nil
	d.mu.Unlock()
	later, ok := d.c.runner.(LaterCommander)
	if !ok || len(patterns) == 0 {
		return nil
	}
	err := later.CommandLater(ctx, p, api.Command{Verb: "remove-tables", Tables: patterns}, func() error { return nil })
	if err != nil {
		d.forgetAtStart(patterns)
	}
	return err
}

func (d *driver) stop(ctx context.Context) {
	d.mu.Lock()
	r := d.mu.running
	d.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	limit := make(chan struct{})
	d.env.Go("limit the stop of "+d.name, func() {
		defer close(limit)
		if d.env.Clock.Sleep(ctx, stopLimit) == nil {
			cancel()
		}
	})
	if err := r.Stop(ctx); err != nil {
		d.log.Warn("pipeline stopped without its final cut", "error", err)
	}
	cancel()
	<-limit
}

func (d *driver) remove(ctx context.Context) error {
	p, err := d.c.lookup(d.id)
	if err != nil {
		return err
	}
	return d.c.runner.Remove(ctx, p)
}

// now gives the running pipeline, or why there is none.
func (d *driver) now() (Running, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.sup.state != running || d.mu.running == nil {
		return nil, errs.New(errs.PipelineState, "pipeline %q is not running", d.name).
			WithDetail("it is %s", d.mu.sup.state)
	}
	return d.mu.running, nil
}

// resting refuses while something runs, starts or ends.
func (d *driver) resting() error {
	s, _, _ := d.heard()
	if s.state == idle || s.state == failed || s.state == waiting {
		return nil
	}
	return errs.New(errs.PipelineState, "pipeline %q is not running", d.name).WithDetail("it is %s", s.state).
		WithHint("ask again when weir pipelines get shows another phase")
}

// unsettled tells that a pipeline neither rests nor works: it is about to pause, or tries again what failed and has got
// nowhere yet.
func (d *driver) unsettled() bool {
	s, _, r := d.heard()
	switch s.state {
	case stopping:
		return s.want != api.WantRunning
	case minting, starting:
		return s.attempts > 0
	case running:
		return s.attempts > 0 && r != nil && r.Status().Phase == api.PhasePrepare
	}
	return false
}

// heard is the supervisor as it will be when it has heard what waits in the inbox, and since when it is in that state.
// Whoever has just asked for a delete or a resume must not be shown the failure that this very wish is to end: a wait
// would take it for the answer. A copy is stepped and its actions are dropped, so the driver does all of it once.
func (d *driver) heard() (s supervisor, since time.Time, r Running) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, since = d.mu.sup, d.mu.since
	for _, ev := range d.mu.inbox {
		s.step(ev)
	}
	if s.state != d.mu.sup.state {
		since = d.env.Clock.Now()
	}
	return s, since, d.mu.running
}

// status merges what the pipeline tells of itself with what is known about it.
func (d *driver) status() api.PipelineStatus {
	s, since, r := d.heard()
	var st api.PipelineStatus
	if r != nil && (s.state == running || s.state == stopping || s.state == ended) {
		st = r.Status()
		if s.state == ended {
			st.Phase, st.Since = api.PhaseFinished, since // with the figures that it ended with
		}
	} else {
		st = api.PipelineStatus{Phase: s.phase(), Since: since, LagBytes: -1, LagMS: -1, UpdatedAt: d.env.Clock.Now()}
	}
	st.Restarts = s.restarts
	if st.Error == nil && s.failure != nil {
		st.Error = errorInfo(s.failure, s.failedAt)
	}
	return st
}

// phase is what a pipeline that does not run shows.
func (s *supervisor) phase() api.Phase {
	switch s.state {
	case waiting:
		return api.PhaseRetrying
	case failed:
		return api.PhaseFailed
	case idle:
		if s.want == api.WantPaused {
			return api.PhasePaused
		}
		return api.PhaseStarting
	case minting, starting:
		return api.PhaseStarting
	case ended:
		return api.PhaseFinished
	default:
		return api.PhaseStopped
	}
}

func errorInfo(err error, at time.Time) *api.ErrorInfo {
	e := errs.From(err, errs.EngineInternal)
	info := &api.ErrorInfo{Code: string(e.Code), Message: e.Message, Detail: e.Detail, Hint: e.Hint, Fix: e.Fix, At: at, Unbegun: e.Unbegun}
	if info.Detail == "" && e.Cause != nil && e.Cause.Error() != e.Message {
		info.Detail = e.Cause.Error()
	}
	return info
}
