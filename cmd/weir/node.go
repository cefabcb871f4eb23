package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weirstream/weir/cdc/postgres/plan"
	"github.com/weirstream/weir/cmd/weir/mirror"
	"github.com/weirstream/weir/cmd/weir/query"
	"github.com/weirstream/weir/coordinator"
	rest "github.com/weirstream/weir/coordinator/http"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/metrics"
	"github.com/weirstream/weir/internal/options"
	"github.com/weirstream/weir/internal/pg"
	"github.com/weirstream/weir/internal/secrets"
	"github.com/weirstream/weir/sql/pgwire"
	sqlplan "github.com/weirstream/weir/sql/plan"
)

// memoryTarget is what the collector aims at when memory.limit says nothing. A mirror's own memory is a few batches
// and buffers; the limit only keeps the collector from letting garbage of large rows pile up.
const memoryTarget = 160 << 20

// localNode is a whole weir in this process: state directory, catalog, pipelines, REST.
type localNode struct {
	state  *coordinator.State
	coord  *coordinator.Coordinator
	server *rest.Server
	reads  *pgwire.Server
	addr   string
	pgAddr string
	done   chan struct{}
	run    *query.Runner
	ended  chan struct{} // Close has begun
}

// arm arms the crash points that a test asks for.
func arm(e *env.Env) error {
	spec, ok := os.LookupEnv("WEIR_FAILPOINTS")
	if !ok {
		return nil
	}
	return e.Fail.Parse(spec)
}

func openNode(ctx context.Context, e *env.Env, o nodeOptions) (node, error) {
	settings, err := options.Resolve(options.Layer{Origin: "the command line", Values: o.Options})
	if err != nil {
		return nil, err
	}
	limit := settings.Size("memory.limit")
	debug.SetMemoryLimit(cmp.Or(limit, memoryTarget))
	if err := arm(e); err != nil {
		return nil, err
	}
	state, err := coordinator.OpenState(e, o.State)
	if err != nil {
		return nil, err
	}
	n := &localNode{state: state, done: make(chan struct{}), ended: make(chan struct{})}
	if err := n.open(ctx, e, o, limit); err != nil {
		return nil, errors.Join(err, n.Close(context.WithoutCancel(ctx)))
	}
	return n, nil
}

func (n *localNode) open(ctx context.Context, e *env.Env, o nodeOptions, limit int64) error {
	var opened atomic.Pointer[coordinator.Coordinator] // pipelines start while it is still being opened
	open := make(chan struct{})                        // closed when it is
	runner := mirror.NewRunner(e, mirror.Options{
		Pipelines: func() ([]api.Pipeline, error) {
			c := opened.Load()
			if c == nil {
				return nil, errs.New(errs.PipelineState, "the node is still starting")
			}
			var out []api.Pipeline
			for _, v := range c.Pipelines() {
				if v.Query == nil {
					out = append(out, v.Pipeline)
				}
			}
			return out, nil
		},
		Installation: n.state.Installation(),
		Expand:       expander(o.Secrets),
		Doctor: func(ctx context.Context, spec api.MirrorSpec, s, t *pg.Config, p *plan.Plan) ([]api.Check, error) {
			return examination{env: e, spec: spec, source: s, target: t, installation: n.state.Installation(), itself: true, plan: p}.run(ctx)
		},
	})
	reg := metrics.New(o.Version)
	work := reg.Queries()
	memory := cmp.Or(limit, share(machineMemory(), 60))
	n.run = query.NewRunner(e, query.Options{
		Dir: n.state.EngineDir(), Connectors: connectors(n.state.Installation()), Plan: sqlplan.Build, Expand: expandText(o.Secrets),
		Manifests: func(ctx context.Context) (query.Manifests, error) {
			select {
			case <-open:
				return opened.Load(), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		Catalog: func(ctx context.Context) (query.Catalog, error) {
			select {
			case <-open:
				return opened.Load(), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		Known: func(id string) bool {
			_, err := opened.Load().Pipeline(id)
			return !errs.Is(err, errs.PipelineNotFound)
		},
		Begin: func() {
			// The state of queries lies outside Go's heap. It may be a fifth above what it is told while a checkpoint makes
			// room, and leaves holes; the program itself takes some, too.
			debug.SetMemoryLimit(memory / 16 * 5)
		},
		StateMemory:  memory / 4,
		CacheMemory:  memory / 16,
		OnEpoch:      work.Epoch,
		OnCheckpoint: work.Checkpoint,
		OnCommit:     work.Commit,
	})
	e.Go("watch the state of queries", func() {
		select {
		case <-n.run.Failed():
			close(n.done)
		case <-n.ended:
		}
	})
	var err error
	n.coord, err = coordinator.Open(ctx, e, coordinator.Options{
		State: n.state, Runner: runners{runner, n.run},
		Seal: func(ctx context.Context, m api.MirrorSpec) (api.MirrorSpec, error) {
			err := seal(ctx, &m, o.Secrets, func(ctx context.Context, cfg *pg.Config) error { return runLogin(ctx, e, cfg) })
			return m, err
		},
		SealQuery: func(_ context.Context, q api.QuerySpec) (api.QuerySpec, error) { return sealQuery(q, o.Secrets) },
		CheckOptions: func(was, will api.QuerySpec) error {
			if diff := query.Differences(was, will); len(diff) > 0 {
				return errs.New(errs.PipelineState, "pipeline %s cannot be given another %s", was.Name, join(diff)).WithHint("make another pipeline with it")
			}
			return nil
		},
		CheckAdd: addable,
		Covers:   covers,
		Told:     func(pipeline string) bool { return slices.Contains(o.Follows, pipeline) },
	})
	if err != nil {
		return err
	}
	opened.Store(n.coord)
	close(open)
	reg.Pipelines(func() []metrics.Pipeline {
		var out []metrics.Pipeline
		for _, p := range n.coord.Pipelines() {
			out = append(out, metrics.Pipeline{Name: p.Name, Status: p.Status})
		}
		return out
	})
	reg.Sources(func() []api.SourceStatus {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return n.coord.Sources(ctx)
	})
	reg.Raft(func() metrics.Raft {
		s := n.coord.Raft()
		return metrics.Raft{Leader: s.State == "Leader", Term: s.Term, LastIndex: s.LastIndex, CommitIndex: s.CommitIndex, AppliedIndex: s.AppliedIndex, SnapshotIdx: s.SnapshotIndex, Voters: s.Voters}
	})
	n.server = rest.New(e, rest.Options{
		Coordinator: n.coord, Version: rest.Version{Version: o.Version, Commit: o.Commit}, PID: os.Getpid(), Command: o.Command,
		Tail: n.run.Tail, StateEntries: n.run.StateEntries, Metrics: reg.Handler(), Address: o.HTTPAddr, AllowRemote: o.AllowRemote,
		Doctor: func(ctx context.Context, r rest.DoctorRequest) ([]api.Check, error) {
			s, t, err := runner.Configs(*r.Mirror)
			if err != nil {
				return nil, err
			}
			return examine(ctx, e, *r.Mirror, s, t, n.state.Installation())
		},
		Plan: func(ctx context.Context, r rest.PlanRequest) (api.Plan, error) {
			s, t, err := runner.Configs(r.Mirror)
			if err != nil {
				return api.Plan{}, err
			}
			p, err := planOf(ctx, e, r.Mirror, s, t, n.state.Installation())
			if err != nil {
				return api.Plan{}, err
			}
			return *p, nil
		},
	})
	if n.addr, err = n.server.Listen(ctx); err != nil {
		return err
	}
	var begins []string
	for _, p := range n.coord.Pipelines() {
		if p.Query != nil && p.Desired == api.WantRunning {
			begins = append(begins, p.ID)
		}
	}
	begun := make(chan struct{})
	e.Go("wait for the first pipelines", func() {
		defer close(begun)
		ctx, done := context.WithTimeout(context.WithoutCancel(ctx), beginTime)
		defer done()
		n.run.Tried(ctx, begins, n.ended)
	})
	n.reads = pgwire.New(e, pgwire.Options{Began: begun, Listen: o.PGAddr, AllowRemote: o.AllowRemote, Version: o.Version, Views: n.run.Views,
		Change: n.run.Change, Await: n.run.Await, OnQuery: reg.Pgwire().Query})
	if n.pgAddr, err = n.reads.Start(ctx); err != nil {
		return err
	}
	return n.state.SetEndpoints(func(ep *coordinator.Endpoints) { ep.PG = n.pgAddr })
}

// beginTime is how long clients wait for the views of pipelines that the node starts with.
const beginTime = 5 * time.Second

// expandText puts secrets into an option of a table, which is a connection string or not.
func expandText(store *secrets.Store) func(string) (string, error) {
	return func(text string) (string, error) {
		plain := strings.TrimPrefix(text, "jdbc:")
		expand := store.Expand
		if strings.Contains(plain, "://") {
			expand = store.ExpandURL
		}
		v, err := expand(plain)
		return text[:len(text)-len(plain)] + v.Reveal(), err
	}
}

func expander(store *secrets.Store) func(string) (string, error) {
	return func(url string) (string, error) {
		v, err := store.ExpandURL(url)
		return v.Reveal(), err
	}
}

// Addr, PGAddr, Done, Err and Close implement node.
func (n *localNode) Addr() string { return n.addr }

// PGAddr implements node.
func (n *localNode) PGAddr() string { return n.pgAddr }

func (n *localNode) Done() <-chan struct{} { return n.done }

// Err implements node.
func (n *localNode) Err() error { return n.run.Err() }

func (n *localNode) Close(ctx context.Context) error {
	var err error
	close(n.ended)
	if n.server != nil {
		err = n.server.Close(ctx)
	}
	if n.reads != nil {
		err = errors.Join(err, n.reads.Close())
	}
	if n.coord != nil {
		err = errors.Join(err, n.coord.Close(ctx))
	}
	if n.run != nil {
		err = errors.Join(err, n.run.Close())
	}
	return errors.Join(err, n.state.Close())
}
