// Package query puts SQL programs, the keyed engine and its durable state together: it is what the coordinator runs for a
// pipeline of queries.
package query

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/state/disk"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/options"
	"github.com/weirstream/weir/sql/plan"
)

// Planner makes a program of a text.
type Planner func(file, text string, e plan.Environment) (*plan.Program, error)

// Options configures a Runner.
type Options struct {
	Dir        string // of the durable state; made when the first pipeline of queries starts
	Connectors map[string]Connector
	Plan       Planner
	// Expand puts secrets into a text.
	Expand func(text string) (string, error)
	// Manifests gives the catalog, and waits until it is open.
	Manifests func(ctx context.Context) (Manifests, error)
	// Known tells whether the catalog has a pipeline of that id; asked when Manifests has answered.
	Known func(id string) bool
	// Catalog is where statements that are added to pipelines are kept; it waits until that is open. nil: none can be added.
	Catalog func(ctx context.Context) (Catalog, error)
	// Begin is called before the first pipeline runs: it takes memory that a node of mirrors does not need. It may be nil.
	Begin func()
	// StateMemory is how many bytes a pipeline's state may take in memory; 0: no limit.
	StateMemory int64
	// CacheMemory is how many bytes of the state on disk are kept in memory besides; 0: the disk's default.
	CacheMemory int64
	// OnEpoch and OnCheckpoint are told how long a pipeline's epochs and checkpoints take; nil: nobody is.
	OnEpoch      func(pipeline string, took time.Duration)
	OnCheckpoint func(pipeline string, took time.Duration, bytes int)
	// OnCommit is told of the transactions of internal tables; nil: nobody is.
	OnCommit func(pipeline string, took time.Duration, failed bool)
}

// Runner implements coordinator.Runner for pipelines of queries.
type Runner struct {
	env  *env.Env
	opts Options

	failed chan struct{} // closed when the disk has failed
	ended  chan struct{} // closed by Close

	mu struct {
		sync.Mutex
		disk   *disk.Disk
		closed bool
		kept   map[string]*kept    // by pipeline id
		runs   map[string]*running // the last start of each, by pipeline id
		// Of pipelines that could not be started: the version, and why.
		refused map[string]refusal
		turned  chan struct{}            // closed when one of them changes
		changes map[string]chan struct{} // by pipeline name: a statement is being added or dropped until it is closed
	}
	ddl chan struct{} // has a value while a statement changes a pipeline
}

// refusal is why a start was none.
type refusal struct {
	version uint64
	err     error
}

// kept is what outlives the starts of a pipeline within this process.
type kept struct {
	mu          sync.Mutex
	checkpoints []api.CheckpointInfo // the newest last
	begun       bool                 // a checkpoint was committed, by this process or an earlier one
}

// keptCheckpoints is how many checkpoints `weir checkpoints list` can show.
const keptCheckpoints = 32

func (k *kept) add(c api.CheckpointInfo) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.begun = true
	if len(k.checkpoints) == keptCheckpoints {
		k.checkpoints = slices.Delete(k.checkpoints, 0, 1)
	}
	k.checkpoints = append(k.checkpoints, c)
}

func (k *kept) list() []api.CheckpointInfo {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := append([]api.CheckpointInfo{}, k.checkpoints...)
	slices.Reverse(out)
	return out
}

// unbegun marks an error of a pipeline that has no checkpoint yet: nothing that counts was made.
func (k *kept) unbegun(err error) error {
	e, coded := errs.As(err)
	k.mu.Lock()
	defer k.mu.Unlock()
	if !coded || k.begun {
		return err
	}
	early := *e
	early.Unbegun = true
	return &early
}

// NewRunner returns a Runner. It takes nothing before the first Start.
func NewRunner(e *env.Env, opts Options) *Runner {
	r := &Runner{env: e, opts: opts, failed: make(chan struct{}), ended: make(chan struct{})}
	r.mu.kept, r.mu.runs = map[string]*kept{}, map[string]*running{}
	r.mu.refused, r.mu.turned, r.mu.changes = map[string]refusal{}, make(chan struct{}), map[string]chan struct{}{}
	r.ddl = make(chan struct{}, 1)
	return r
}

func (r *Runner) kept(id string) *kept {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.mu.kept[id]
	if k == nil {
		k = &kept{}
		r.mu.kept[id] = k
	}
	return k
}

// Failed is closed when the disk of the state has failed: nothing that needs it can go on in this process. Err says why.
func (r *Runner) Failed() <-chan struct{} { return r.failed }

// Err is what ended the disk.
func (r *Runner) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.disk == nil {
		return nil
	}
	return r.mu.disk.Err()
}

// state opens the node's durable state at the first call.
func (r *Runner) state() (*disk.Disk, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.closed {
		return nil, errs.New(errs.PipelineState, "the node ends")
	}
	if r.mu.disk != nil {
		return r.mu.disk, nil
	}
	if r.opts.Begin != nil {
		r.opts.Begin()
	}
	d, err := disk.Open(r.env, r.opts.Dir, disk.Options{CacheBytes: r.opts.CacheMemory})
	if err != nil {
		return nil, err
	}
	if r.opts.Known != nil {
		// A node that ended between the delete of a pipeline and its cleaning up leaves it to the next; one whose catalog
		// was put back does, too.
		for _, id := range d.Pipelines() {
			if r.opts.Known(id) {
				continue
			}
			r.env.Log.Info("state of a pipeline that does not exist any more is removed", "pipeline", id)
			if err := drop(d, id); err != nil {
				r.env.Log.Warn("state of a pipeline that does not exist any more stays", "pipeline", id, "error", err)
			}
		}
	}
	r.mu.disk = d
	r.env.Go("watch the disk of the state", func() {
		select {
		case <-d.Failed():
			close(r.failed)
		case <-r.ended:
		}
	})
	return d, nil
}

func drop(d *disk.Disk, id string) error {
	p, err := d.Pipeline(id)
	if err != nil {
		return err
	}
	return p.Drop()
}

// Close closes the state. It follows the end of every pipeline.
func (r *Runner) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.closed {
		return nil
	}
	r.mu.closed = true
	close(r.ended)
	if r.mu.disk == nil {
		return nil
	}
	return r.mu.disk.Close()
}

// Remove implements coordinator.Runner: it deletes what the pipeline's connectors have made outside, then its state. What
// its sinks have written stays.
func (r *Runner) Remove(ctx context.Context, p api.Pipeline) error {
	if _, err := r.env.FS.Stat(r.opts.Dir); err != nil {
		return nil // no pipeline of queries ever ran here
	}
	d, err := r.state()
	if err != nil {
		return err
	}
	// The state is begun before anything outside is, and goes last: without it there is nothing.
	if slices.Contains(d.Pipelines(), p.ID) {
		if err := r.removeOutside(ctx, p); err != nil {
			return err
		}
		if err := drop(d, p.ID); err != nil {
			return err
		}
	}
	r.mu.Lock()
	delete(r.mu.kept, p.ID)
	delete(r.mu.runs, p.ID)
	delete(r.mu.refused, p.ID)
	r.mu.Unlock()
	return nil
}

func (r *Runner) removeOutside(ctx context.Context, p api.Pipeline) error {
	set, err := settingsOf(p)
	if err != nil {
		return err
	}
	program, err := r.plan(p, set)
	if err != nil {
		return err
	}
	return r.making(r.env, p, set).Remove(ctx, program)
}

func (r *Runner) plan(p api.Pipeline, set settings) (*plan.Program, error) {
	return r.opts.Plan(p.Query.File, p.Query.SQL, plan.Environment{Connectors: Kinds(r.opts.Connectors), Zone: set.zone, Parallelism: set.parallelism, Added: p.Query.Added})
}

// making is what the parts of a pipeline are made with.
func (r *Runner) making(e *env.Env, p api.Pipeline, set settings) Env {
	return Env{Env: e, Connectors: r.opts.Connectors, Expand: r.opts.Expand, Pipeline: p, Zone: set.zone, Parallelism: set.parallelism,
		Spec: *p.Query, Text: p.Query.SQL}
}

// defaultInterval is how long after a checkpoint the next may begin, if the pipeline says nothing: local storage takes one
// in a few milliseconds.
const defaultInterval = 50 * time.Millisecond

// settings are a pipeline's options, as they are used.
type settings struct {
	interval    time.Duration
	parallelism int
	groups      int
	zone        *time.Location
}

func settingsOf(p api.Pipeline) (s settings, err error) {
	set, err := options.Resolve(options.Layer{Origin: "pipeline " + p.Name, Values: p.Query.Options})
	if err != nil {
		return s, err
	}
	s = settings{interval: defaultInterval, parallelism: set.Int("parallelism"), groups: set.Int("state.key-groups"), zone: time.UTC}
	if _, given := p.Query.Options["checkpoint.interval"]; given {
		s.interval = set.Duration("checkpoint.interval")
	}
	if s.groups&(s.groups-1) != 0 {
		return s, errs.New(errs.UnknownOption, "option state.key-groups is %d: it wants a power of two", s.groups)
	}
	s.zone, err = Zone(set)
	return s, err
}

// Zone is the session's time zone.
func Zone(set options.Set) (*time.Location, error) {
	name := set.Text("table.local-time-zone")
	if name == "" || name == "default" {
		return time.UTC, nil
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return nil, errs.New(errs.UnknownOption, "option table.local-time-zone names the time zone %q, which is not known", name).
			WithHint("write it as in Europe/Berlin, or UTC")
	}
	return z, nil
}

// Start implements coordinator.Runner.
func (r *Runner) Start(ctx context.Context, p api.Pipeline, gen dataflow.Generation) (coordinator.Running, error) {
	run, err := r.start(ctx, p, gen)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.mu.refused[p.ID] = refusal{p.Version, err}
	} else {
		delete(r.mu.refused, p.ID)
		r.mu.runs[p.ID] = run
	}
	close(r.mu.turned)
	r.mu.turned = make(chan struct{})
	if err != nil {
		return nil, err
	}
	return run, nil
}

func (r *Runner) start(ctx context.Context, p api.Pipeline, gen dataflow.Generation) (*running, error) {
	k := r.kept(p.ID)
	set, err := settingsOf(p)
	if err != nil {
		return nil, k.unbegun(err)
	}
	program, err := r.plan(p, set)
	if err != nil {
		return nil, k.unbegun(err)
	}
	run := &running{runner: r, env: r.env.With("pipeline", p.Name), pipeline: p, gen: gen, set: set, program: program, kept: k,
		done: make(chan struct{}), ready: make(chan struct{})}
	run.since = r.env.Clock.Now()
	run.flows = newFlows(program)
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	run.cancel = cancel
	run.env.Go("pipeline "+p.Name, func() {
		defer close(run.done)
		defer cancel()
		err := k.unbegun(run.run(runCtx))
		run.mu.Lock()
		run.err = err
		run.mu.Unlock()
	})
	return run, nil
}

// pipelineOptions are the engine's.
func (r *running) pipelineOptions(sources []keyed.Source, sinks []keyed.Sink, d keyed.Durable) keyed.Options {
	name := r.pipeline.Name
	o := keyed.Options{Graph: r.program.Graph, Sources: sources, Sinks: sinks, Parallelism: r.set.parallelism, Groups: r.set.groups,
		Generation: r.gen, Durable: d, CheckpointInterval: r.set.interval, MemoryBytes: r.runner.opts.StateMemory,
		Stay: len(r.program.Views) > 0 || len(r.pipeline.Query.Added) > 0}
	if f := r.runner.opts.OnEpoch; f != nil {
		o.OnEpoch = func(took time.Duration) { f(name, took) }
	}
	o.OnCheckpoint = func(c dataflow.Checkpoint, took time.Duration, bytes int) {
		r.kept.add(api.CheckpointInfo{Checkpoint: uint64(c), At: r.env.Clock.Now(), TookMS: millis(took), Bytes: int64(bytes)})
		if f := r.runner.opts.OnCheckpoint; f != nil {
			f(name, took, bytes)
		}
	}
	return o
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
