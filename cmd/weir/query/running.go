package query

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/table"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/plan"
)

// running implements coordinator.Running for one start of a pipeline.
type running struct {
	runner   *Runner
	env      *env.Env
	pipeline api.Pipeline
	gen      dataflow.Generation
	set      settings
	program  *plan.Program
	kept     *kept
	since    time.Time
	done     chan struct{}
	ready    chan struct{} // closed when there is a pipe
	cancel   context.CancelFunc

	mu    sync.Mutex
	pipe  *keyed.Pipeline // nil: still preparing
	table *table.Sequencer
	stop  bool // it was stopped before there was a pipe
	err   error
	flows flows
}

// run brings the state back and works until the sources end, Stop, or an error.
func (r *running) run(ctx context.Context) error {
	manifests, err := r.runner.opts.Manifests(ctx)
	if err != nil {
		return err
	}
	d, err := r.runner.state()
	if err != nil {
		return err
	}
	part, err := d.Pipeline(r.pipeline.ID)
	if err != nil {
		return err
	}
	kept, err := recoverState(ctx, r.env, part, manifests, r.pipeline.ID, r.gen)
	if err != nil {
		return err
	}
	if kept.restored.Checkpoint > 0 {
		r.kept.mu.Lock()
		r.kept.begun = true
		r.kept.mu.Unlock()
	}
	x := r.runner.making(r.env, r.pipeline, r.set)
	if f := r.runner.opts.OnCommit; f != nil {
		x.OnCommit = func(took time.Duration, failed bool) { f(r.pipeline.Name, took, failed) }
	}
	sources, err := x.Sources(r.program)
	if err != nil {
		return err
	}
	sinks, err := x.Sinks(r.program)
	if err != nil {
		return err
	}
	pipe := keyed.New(r.env, r.pipelineOptions(sources, sinks, kept))
	r.mu.Lock()
	r.pipe, r.table = pipe, sequencer(sources)
	stopped := r.stop
	r.mu.Unlock()
	close(r.ready)
	if stopped {
		return nil
	}
	return pipe.Run(ctx)
}

// Done implements coordinator.Running.
func (r *running) Done() <-chan struct{} { return r.done }

// Err implements coordinator.Running.
func (r *running) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Stop implements coordinator.Running.
func (r *running) Stop(ctx context.Context) error {
	r.mu.Lock()
	pipe := r.pipe
	r.stop = true
	r.mu.Unlock()
	if pipe != nil {
		pipe.Stop()
	} else {
		r.cancel()
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		r.cancel()
		<-r.done
		return ctx.Err()
	}
	if err := r.Err(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Command implements coordinator.Running.
func (r *running) Command(context.Context, api.Command) error {
	return errs.New(errs.PipelineState, "pipeline %s is no mirror", r.pipeline.Name)
}

// Source implements coordinator.Running.
func (r *running) Source(context.Context) (api.SourceStatus, error) {
	return api.SourceStatus{}, errs.New(errs.PipelineState, "pipeline %s is no mirror", r.pipeline.Name)
}

// Status implements coordinator.Running.
func (r *running) Status() api.PipelineStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.env.Clock.Now()
	st := api.PipelineStatus{Phase: api.PhasePrepare, Since: r.since, LagBytes: -1, LagMS: -1, UpdatedAt: now}
	q := &api.QueryStatus{Parallelism: r.set.parallelism, Views: []api.View{}, States: []api.StateSize{}, Checkpoints: r.kept.list()}
	st.Query = q
	if r.pipe == nil {
		q.Sources, q.Sinks, _ = r.flows.look(now, nil, nil)
		r.views(q)
		return st
	}
	s := r.pipe.Status()
	st.Phase = api.PhaseLive
	switch {
	case s.Copying:
		st.Phase = api.PhaseCopy
	case s.Ended:
		st.Phase = api.PhaseFinished // and its views can be read on
	}
	st.Checkpoint, st.Durable = uint64(s.Published), uint64(s.Checkpoint)
	for _, n := range s.RowsIn {
		st.RowsTotal += n
	}
	q.Sources, q.Sinks, st.RowsPerSec = r.flows.look(now, s.RowsIn, s.RowsOut)
	q.Epoch, q.Published, q.EpochMS = s.Epoch, uint64(s.Published), millis(s.EpochTook)
	q.StateBytes, q.Faults = int64(s.StateBytes), s.Faults
	q.QueueItems, q.QueueRoom = int64(s.QueueItems), int64(s.QueueRoom)
	for _, x := range s.States {
		size := api.StateSize{Operator: x.Name, State: x.Name, Entries: x.Entries, Rows: x.Rows, Bytes: x.Bytes}
		if n := r.owner(x.Name); n >= 0 {
			node := &r.program.Graph.Nodes[n]
			size.Operator = strings.TrimSpace(node.Kind + " " + node.Detail)
			size.State = strings.Trim(strings.TrimPrefix(x.Name, node.ID), "/.:- ")
		}
		if size.State == "" {
			size.State = "rows"
		}
		q.States = append(q.States, size)
	}
	r.views(q)
	for i := range q.Views {
		node := r.program.Views[i].Node
		for _, x := range s.States {
			if r.owner(x.Name) == node {
				q.Views[i].Rows = max(x.Rows, x.Entries)
			}
		}
	}
	return st
}

// owner is the node whose ID a state's name begins with, -1 if there is none. Of several it is the longest.
func (r *running) owner(state string) int {
	best := -1
	for n := range r.program.Graph.Nodes {
		id := r.program.Graph.Nodes[n].ID
		if strings.HasPrefix(state, id) && (best < 0 || len(id) > len(r.program.Graph.Nodes[best].ID)) {
			best = n
		}
	}
	return best
}

func (r *running) views(q *api.QueryStatus) {
	for _, v := range r.program.Views {
		kind := "view"
		if v.Table {
			kind = "table"
		}
		view := api.View{Name: v.Name, Kind: kind, Rows: -1, Columns: []api.Column{}, Key: append([]string{}, ColumnNames(v.Schema, v.Key)...)}
		for _, f := range v.Schema {
			view.Columns = append(view.Columns, api.Column{Name: f.Name, Type: f.Type.String()})
		}
		q.Views = append(q.Views, view)
	}
}

// flows turns counts of rows into rates over the last few seconds.
type flows struct {
	sources, sinks []api.Flow // without rows
	samples        []sample
}

type sample struct {
	at      time.Time
	in, out []int64
}

func newFlows(p *plan.Program) flows {
	f := flows{sources: []api.Flow{}, sinks: []api.Flow{}}
	for _, s := range p.Sources {
		f.sources = append(f.sources, api.Flow{Name: s.Name, Connector: s.Connector})
	}
	for _, s := range p.Sinks {
		f.sinks = append(f.sinks, api.Flow{Name: s.Name, Connector: s.Connector})
	}
	return f
}

// look gives sources and sinks with their rows, and the rate of all that came in.
func (f *flows) look(now time.Time, in, out []int64) (sources, sinks []api.Flow, rate float64) {
	if n := len(f.samples); in != nil && (n == 0 || now.Sub(f.samples[n-1].at) >= 200*time.Millisecond) {
		f.samples = append(f.samples, sample{now, in, out})
	}
	for len(f.samples) > 2 && now.Sub(f.samples[0].at) > 5*time.Second {
		f.samples = f.samples[1:]
	}
	flow := func(flows []api.Flow, rows []int64, first func(sample) []int64) ([]api.Flow, float64) {
		list, sum := append([]api.Flow{}, flows...), 0.0
		for i := range rows {
			list[i].Rows = rows[i]
			if d := now.Sub(f.samples[0].at).Seconds(); d >= 0.1 {
				list[i].RowsPerSec = float64(rows[i]-first(f.samples[0])[i]) / d
				sum += list[i].RowsPerSec
			}
		}
		return list, sum
	}
	sources, rate = flow(f.sources, in, func(s sample) []int64 { return s.in })
	sinks, _ = flow(f.sinks, out, func(s sample) []int64 { return s.out })
	return sources, sinks, rate
}
