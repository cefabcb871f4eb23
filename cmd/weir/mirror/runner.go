// Package mirror puts sources, engine and targets together: it is what the coordinator runs for a mirror.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/zeebo/xxh3"

	cdc "github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/cdc/postgres/plan"
	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/options"
	"github.com/weirstream/weir/internal/pg"
	sink "github.com/weirstream/weir/sinks/postgres"
)

// Options configures a Runner.
type Options struct {
	Installation string // names slots and publications
	// Expand puts secrets into a connection's URL.
	Expand func(url string) (string, error)
	// Doctor looks for what would stop a mirror; its fatal findings do. It makes a plan of its own when it is given none.
	Doctor func(ctx context.Context, spec api.MirrorSpec, source, target *pg.Config, p *plan.Plan) ([]api.Check, error)
	// Pipelines lists all there are, those that do not run too. Before it can tell, a shared slot that an earlier process
	// left stays as it is.
	Pipelines func() ([]api.Pipeline, error)
}

// Runner implements coordinator.Runner for mirrors between Postgres databases.
type Runner struct {
	env  *env.Env
	opts Options

	mu     sync.Mutex
	memory map[string]*memory // by pipeline id
	began  time.Time
	hubs   *cdc.Hubs
}

// memory is what one start of a pipeline learned and the next should know.
type memory struct {
	sink  *sink.Memory
	text  bool        // values are needed as text
	begun atomic.Bool // something was made for the pipeline, or may have been
}

// NewRunner returns a Runner.
func NewRunner(e *env.Env, opts Options) *Runner {
	r := &Runner{env: e, opts: opts, memory: map[string]*memory{}, began: e.Clock.Now()}
	r.hubs = cdc.NewHubs(e, r.peers)
	return r
}

// shares tells whether a mirror may read its database's slot together with others: not when somebody else named its slot
// or publication, and not when its publication says what of a table is sent, which everybody would get,
// nor when its target commits in lanes, after a fault of which it reads some tables from elsewhere than others.
func shares(spec api.MirrorSpec, opts options.Set) bool {
	return opts.Bool("slot.shared") && opts.Int("sink.lanes") == 1 && !opts.Bool("slot.failover") && spec.Options["slot.name"] == "" && spec.Options["publication.name"] == "" &&
		len(spec.Exclude) == 0 && len(spec.Filters) == 0
}

// peers lists the mirrors of a database by their own slots.
func (r *Runner) peers(ctx context.Context, source *pg.Config, identity pg.Identity) ([]cdc.Peer, error) {
	if r.opts.Pipelines == nil {
		return nil, errs.New(errs.EngineInternal, "it is not known which mirrors there are")
	}
	pipelines, err := r.opts.Pipelines()
	if err != nil {
		return nil, err
	}
	var peers []cdc.Peer
	for _, p := range pipelines {
		if p.Desired == api.WantDeleted || p.Mirror.Options["slot.name"] != "" {
			continue
		}
		cfg, target, err := r.Configs(p.Mirror)
		if err != nil {
			return nil, err
		}
		if SlotName(cfg.Database(), r.opts.Installation) != SlotName(source.Database(), r.opts.Installation) {
			continue
		}
		if cfg.Server() != source.Server() {
			// Perhaps the same database under another address.
			theirs, err := r.identity(ctx, cfg)
			if err != nil {
				return nil, err
			}
			if theirs.System != identity.System || theirs.Database != identity.Database {
				continue
			}
		}
		slot, _, _ := r.Names(p, cfg)
		run := &running{runner: r, env: r.env, pipeline: p, targetCfg: target}
		peers = append(peers, cdc.Peer{Slot: slot, Stands: func(ctx context.Context) bool {
			known, _, err := run.progress(ctx)
			return known || err != nil
		}})
	}
	return peers, nil
}

func (r *Runner) identity(ctx context.Context, cfg *pg.Config) (pg.Identity, error) {
	conn, err := pg.ConnectPgx(ctx, r.env, cfg, pg.ConnectOptions{AppName: "weir status"})
	if err != nil {
		return pg.Identity{}, errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", cfg.Server(), err).Because(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return pg.SystemIdentity(ctx, conn)
}

func (r *Runner) remember(p api.Pipeline) *memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.memory[p.ID]
	if m == nil {
		m = &memory{sink: sink.NewMemory()}
		m.begun.Store(p.CreatedAt.Before(r.began)) // an earlier process had it
		r.memory[p.ID] = m
	}
	return m
}

// Configs opens a definition's connections, secrets put in.
func (r *Runner) Configs(spec api.MirrorSpec) (source, target *pg.Config, err error) {
	if source, err = r.config(spec.Source); err != nil {
		return nil, nil, err
	}
	target, err = r.config(spec.Target)
	return source, target, err
}

func (r *Runner) config(c api.Connection) (*pg.Config, error) {
	url, err := r.opts.Expand(c.URL)
	if err != nil {
		return nil, err
	}
	return pg.ParseURL(url)
}

// Names are a mirror's objects at its source.
func (r *Runner) Names(p api.Pipeline, source *pg.Config) (slot, publication string, own bool) {
	return Names(p.Mirror, source.Database(), r.opts.Installation)
}

// Names are the slot and the publication of a mirror, and whether the publication is weir's own.
func Names(spec api.MirrorSpec, database, installation string) (slot, publication string, own bool) {
	base := SlotName(database, installation)
	// One slot belongs to one reader: each mirror of a database has its own, by its name.
	base += fmt.Sprintf("_%06x", xxh3.HashString(spec.Name)&0xffffff)
	slot, publication, own = base, base, true
	if v := spec.Options["slot.name"]; v != "" {
		slot = v
	}
	if v := spec.Options["publication.name"]; v != "" {
		publication, own = v, false
	}
	return slot, publication, own
}

// SlotName is weir_<database>_<8 hex digits of the installation>, in the letters that a slot's name may have.
func SlotName(database, installation string) string {
	clean := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_':
			return c
		case c >= 'A' && c <= 'Z':
			return c + 'a' - 'A'
		}
		return '_'
	}, database)
	if len(clean) > 40 {
		clean = clean[:40]
	}
	return "weir_" + clean + "_" + installation[:8]
}

// Start implements coordinator.Runner.
func (r *Runner) Start(ctx context.Context, p api.Pipeline, gen dataflow.Generation) (coordinator.Running, error) {
	memory := r.remember(p)
	source, target, err := r.Configs(p.Mirror)
	if err != nil {
		return nil, memory.unbegun(err)
	}
	sel, err := selection.New(p.Mirror)
	if err != nil {
		return nil, memory.unbegun(err)
	}
	opts, err := options.Resolve(options.Layer{Origin: "pipeline " + p.Name, Values: p.Mirror.Options})
	if err != nil {
		return nil, memory.unbegun(err)
	}
	run := &running{
		runner: r, env: r.env.With("pipeline", p.Name), pipeline: p, gen: gen, sel: sel, opts: opts,
		sourceCfg: source, targetCfg: target, memory: memory, done: make(chan struct{}),
	}
	run.since = r.env.Clock.Now()
	run.slot, run.publication, run.ownPublication = r.Names(p, source)
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	run.cancel = cancel
	run.env.Go("pipeline "+p.Name, func() {
		defer close(run.done)
		defer cancel()
		err := memory.unbegun(run.hopeless(passing(run.run(runCtx))))
		run.mu.Lock()
		run.err = err
		run.mu.Unlock()
	})
	return run, nil
}

// unbegun marks an error from before anything was made for the mirror.
func (m *memory) unbegun(err error) error {
	e, coded := errs.As(err)
	if !coded || m.begun.Load() {
		return err
	}
	early := *e
	early.Unbegun = true
	return &early
}

// passing takes errors that a server's restart, a failover or a lock can cause anywhere for what they are: the same work
// can succeed on a new connection, whatever it was that they met.
func passing(err error) error {
	e, coded := errs.As(err)
	if coded && slices.Contains(triedAgain, e.Code) || !pg.Passing(err) {
		return err
	}
	again := errs.New(errs.TargetUnreachable, "interrupted: %w", err)
	if hint := pg.RefusedHint(err); hint != "" {
		again = again.WithHint("%s", hint)
	}
	return again
}

// triedAgain are the codes that say so themselves.
var triedAgain = []errs.Code{errs.SourceUnreachable, errs.SourceStream, errs.TargetUnreachable, errs.TargetConflict}

// Remove implements coordinator.Runner. A database that refuses the login is not asked again before the user has done
// something about it.
func (r *Runner) Remove(ctx context.Context, p api.Pipeline) error {
	err := r.remove(ctx, p)
	if err == nil {
		return nil
	}
	e := *errs.From(err, errs.EngineInternal)
	var refused *pgconn.PgError
	first := "it is tried again until it works"
	switch {
	case errors.As(err, &refused) && loginRefused(refused):
		e.Final = true
		first = "when the login works (weir secrets set changes a password), delete it again"
	case e.Code == errs.SecretMissing && e.Hint != "":
		first = e.Hint + " and delete it again"
	}
	return e.WithHint("%s; weir pipelines delete %s --force gives up on what it has at databases that are gone for good", first, p.Name)
}

func (r *Runner) remove(ctx context.Context, p api.Pipeline) error {
	source, target, err := r.Configs(p.Mirror)
	if err != nil {
		return err
	}
	slot, publication, own := r.Names(p, source)
	if !own {
		publication = ""
	}
	conn, err := pg.ConnectPgx(ctx, r.env, source, pg.ConnectOptions{AppName: "weir remove"})
	if err != nil {
		return errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", source.Server(), err).Because(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	// Its own slot is not there when it shared until the process ended; the shared one is what others need.
	if err := r.hubs.Forget(ctx, slot, publication); err != nil {
		return err
	}
	if err := cdc.Drop(ctx, conn, slot, publication); err != nil {
		return errs.New(errs.SourceUnreachable, "%w", err).Because(err)
	}
	if err := r.hubs.Sweep(ctx, conn, source, SlotName(source.Database(), r.opts.Installation)); err != nil {
		r.env.Log.Warn("a shared slot may be left over", "pipeline", p.Name, "error", err)
	}
	tconn, err := pg.ConnectPgx(ctx, r.env, target, pg.ConnectOptions{AppName: "weir remove"})
	if err != nil {
		return errs.New(errs.TargetUnreachable, "cannot reach target %s: %w", target.Server(), err).Because(err)
	}
	defer func() { _ = tconn.Close(context.WithoutCancel(ctx)) }()
	return sink.Forget(ctx, tconn, p.ID)
}

// CommandLater implements coordinator.LaterCommander.
func (r *Runner) CommandLater(ctx context.Context, p api.Pipeline, c api.Command, resting func() error) error {
	switch c.Verb {
	case "refresh":
	case "remove-tables":
		return r.forgetLater(ctx, p, c.Tables, resting)
	default:
		return errs.New(errs.PipelineState, "pipeline %s does not run", p.Name)
	}
	target, err := r.config(p.Mirror.Target)
	if err != nil {
		return err
	}
	conn, err := pg.ConnectPgx(ctx, r.env, target, pg.ConnectOptions{AppName: "weir refresh"})
	if err != nil {
		return errs.New(errs.TargetUnreachable, "cannot reach target %s: %w", target.Server(), err).Because(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	opts, err := options.Resolve(options.Layer{Origin: "pipeline " + p.Name, Values: p.Mirror.Options})
	if err != nil {
		return err
	}
	behavior := sink.Behavior(opts.Text("schema.change.behavior"))
	follow := behavior == sink.Evolve || behavior == sink.TryEvolve
	return sink.Note(ctx, conn, p.ID, cdc.StateTable, func(state dataflow.State) ([]dataflow.StateChange, error) {
		if err := resting(); err != nil {
			return nil, err
		}
		return cdc.RefreshLater(state, c.Tables, follow)
	})
}
