package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	cdc "github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/cdc/postgres/plan"
	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/engine/checkpoint"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/worker"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/options"
	"github.com/weirstream/weir/internal/pg"
	sink "github.com/weirstream/weir/sinks/postgres"
)

// running is one start of a pipeline. It implements coordinator.Running.
type running struct {
	runner               *Runner
	env                  *env.Env
	pipeline             api.Pipeline
	gen                  dataflow.Generation
	sel                  *selection.Selection
	opts                 options.Set
	sourceCfg, targetCfg *pg.Config
	slot, publication    string
	ownPublication       bool
	memory               *memory
	since                time.Time

	cancel context.CancelFunc
	done   chan struct{}

	mu        sync.Mutex
	err       error
	pipe      *worker.Pipe
	source    *cdc.Source
	rate      rate
	ratePhase worker.Phase     // what rate is of
	paces     map[string]*pace // of tables, by their name at the source
	live      bool

	building atomic.Bool // unique and foreign keys and indexes of the first copy are still owed
}

func (r *running) run(ctx context.Context) error {
	known, copied, err := r.progress(ctx)
	if err != nil {
		return err
	}
	r.building.Store(!copied)
	if !known {
		if err := r.prepare(ctx); err != nil {
			return err
		}
	}
	r.memory.begun.Store(true)
	// A first start plans when the slot is there, for the tables as the slot's snapshot has them.
	var p *plan.Plan
	var asText map[[2]string]bool
	prepare := func(ctx context.Context, snapshot string, tables []uint32) (err error) {
		if p, err = plan.MakeAt(ctx, r.env, r.request(), snapshot, tables); err != nil {
			return err
		}
		return r.onTargetWith(ctx, min(r.opts.Int("snapshot.parallelism"), p.Makers()), func(ctx context.Context, conns []*pgx.Conn) (err error) {
			if asText, err = otherTypes(ctx, conns[0], p); err != nil {
				return err
			}
			return p.Prepare(ctx, conns...)
		})
	}
	var resumed map[uint32]cdc.KnownTable // what p was made from, unless the tables were as they are at first
	resume := func(ctx context.Context, conn *pgx.Conn) (err error) {
		p, resumed, err = r.resume(ctx, conn)
		return err
	}
	if known && !copied {
		if err := r.onTarget(ctx, resume); err != nil {
			return err
		}
	}
	finish := func(step func(*plan.Plan, context.Context, *pgx.Conn) error) func(context.Context, *pgx.Conn) error {
		return func(ctx context.Context, conn *pgx.Conn) error {
			if p == nil {
				return nil
			}
			return step(p, ctx, conn)
		}
	}
	supply := func(ctx context.Context, tables []uint32) (labels bool, err error) {
		now, err := plan.MakeAt(ctx, r.env, r.request(), "", tables)
		if errs.Is(err, errs.NoTables) {
			return false, nil // dropped again meanwhile
		}
		if err != nil {
			return false, err
		}
		err = r.onTarget(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			labels, err = now.Supply(ctx, conn)
			return err
		})
		return labels, err
	}
	behavior := sink.Behavior(r.opts.Text("schema.change.behavior"))
	follows := behavior == sink.Evolve || behavior == sink.TryEvolve
	copies := r.opts.Int("snapshot.parallelism")
	r.mu.Lock()
	text := r.memory.text
	r.mu.Unlock()
	src := cdc.New(r.env, cdc.Options{
		Config: r.sourceCfg, Slot: r.slot, Publication: r.publication, KeepPublication: !r.ownPublication,
		KeepNames: behavior == sink.Lenient || behavior == sink.Ignore, NamesApart: follows && r.opts.Int("sink.lanes") > 1,
		Failover: r.opts.Bool("slot.failover"),
		CopyText: func(schema, table string) bool { return asText[[2]string{schema, table}] },
		Includes: r.sel.Includes, Excluded: r.sel.Excluded, Filter: r.sel.Filter,
		RangeBytes: r.opts.Size("snapshot.chunk.bytes"), Text: text,
		HeartbeatPeriod: r.opts.Duration("heartbeat.interval"), DiscoveryPeriod: r.opts.Duration("discovery.interval"),
		Prepare: prepare,
		Join:    func(ctx context.Context, tables []uint32) error { _, err := supply(ctx, tables); return err },
		NoCopy:  r.opts.Text("snapshot.mode") == "never", WriteAhead: r.opts.Int("sink.lanes") == 1 && r.memory.sink.WriteAhead(r.env.Clock.Now()),
		Hubs: r.runner.hubs, Shared: r.sharedSlot(), Share: shares(r.pipeline.Mirror, r.opts), Pipeline: r.pipeline.Name, RingBytes: r.opts.Size("slot.ring.bytes"),
	})
	into := sink.Options{
		Config: r.targetCfg, Pipeline: r.pipeline.ID,
		Route: func(schema, name string) (string, string, bool) {
			if !r.sel.Includes(schema, name) {
				return "", "", false
			}
			s, n := r.sel.Route(schema, name)
			return s, n, true
		},
		Excluded: r.sel.Excluded, SyncCommit: r.opts.Text("sink.synchronous_commit"), BatchBytes: int(r.opts.Size("sink.batch.bytes")),
		SchemaChange: behavior, SoftDelete: r.opts.Text("soft.delete.column"),
		MissingRow: r.opts.Text("on.missing.row"), Memory: r.memory.sink, AfterCopy: finish((*plan.Plan).FinishKeys),
		AfterTable: func(ctx context.Context, conn *pgx.Conn, schema, name string, beside bool) error {
			if p == nil {
				return nil
			}
			return p.FinishKey(ctx, conn, pg.TargetName{Schema: schema, Name: name}, beside)
		},
		AfterConsistent: func(ctx context.Context, conn *pgx.Conn) error {
			changed, err := r.changed(ctx, conn, p, resumed)
			if err == nil && changed {
				err = resume(ctx, conn)
			}
			if err == nil {
				err = finish((*plan.Plan).Finish)(ctx, conn)
			}
			r.building.Store(err != nil)
			return err
		},
	}
	var dst dataflow.Target = sink.New(r.env, into)
	if n := r.opts.Int("sink.lanes"); n > 1 {
		dst = sink.NewLanes(r.env, sink.LaneOptions{Options: into, Count: n, TableOf: cdc.StateTable})
	}
	pipe := worker.New(r.env, worker.Options{Source: src, Target: dst, Generation: r.gen, Copies: copies, Epochs: checkpoint.Options{Interval: r.opts.Duration("checkpoint.interval")}})
	r.mu.Lock()
	r.pipe, r.source = pipe, src
	r.mu.Unlock()
	err = pipe.Run(ctx)
	if errors.Is(err, cdc.ErrTextNeeded) {
		r.mu.Lock()
		r.memory.text = true
		r.mu.Unlock()
		return learned("a new type needs values as text; reading on in text")
	}
	// The log does not tell of a new label; its first value does.
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "22P02" {
		if labels, serr := supply(ctx, nil); serr == nil && labels {
			return learned("an enum has new labels; the target has them now")
		}
	}
	if errs.Is(err, errs.TargetRejected) && errors.As(err, &pgErr) && (pgErr.Code == "23505" || pgErr.Code == "23P01") {
		if again, eerr := r.emptied(ctx, pgErr, follows); eerr == nil && again {
			return learned("rows of a partition came again that was truncated, detached or dropped, of which the log says nothing; its table is copied again")
		}
	}
	var moved *cdc.NamesMoved
	if errors.As(err, &moved) {
		if err := r.onTarget(ctx, func(ctx context.Context, conn *pgx.Conn) error { return r.bringNames(ctx, conn, moved.Names) }); err != nil {
			return err
		}
		return learned("names of tables changed hands; the target's tables have them now")
	}
	if errors.Is(err, cdc.ErrWriteAheadRefused) {
		r.memory.sink.RefuseWriteAhead(r.env.Clock.Now())
		return learned("an open transaction cannot be written ahead; reading on with whole transactions")
	}
	return err
}

// justMade is how long whoever made a mirror is taken to watch it start.
const justMade = time.Minute

// hopeless marks a login that a server refuses to a mirror that was just made and has nothing yet: the name of a database
// or a role, or a password, is wrong. Of another mirror it is tried again, since somebody may be at work on the server.
func (r *running) hopeless(err error) error {
	var refused *pgconn.PgError
	e, coded := errs.As(err)
	if !coded || !errors.As(err, &refused) || r.env.Clock.Now().Sub(r.pipeline.CreatedAt) > justMade {
		return err
	}
	if !loginRefused(refused) || r.memory.begun.Load() {
		return err
	}
	final := *e
	final.Final = true
	final.Hint = "correct the URL; if weir pipelines list still shows the mirror, delete it first: weir pipelines delete " + r.pipeline.Name
	return &final
}

// loginRefused tells what a server says to a wrong password, role or database. Waiting does not mend it.
func loginRefused(e *pgconn.PgError) bool {
	return slices.Contains([]string{"28000", "28P01", "3D000"}, e.Code)
}

// learned ends a run whose successor does it another way.
func learned(what string) error {
	e := errs.New(errs.SourceStream, "%s", what)
	e.Learned = true
	return e
}

func (r *running) request() plan.Request {
	return plan.Request{Spec: r.pipeline.Mirror, Source: r.sourceCfg, Target: r.targetCfg, Pipeline: r.pipeline.ID}
}

// discardPublication drops weir's own publication, which a first start that was broken off has left: since then tables may
// have other columns. One that somebody else made beforehand stays, and so does one that the role could not make again.
func (r *running) discardPublication(ctx context.Context) error {
	if !r.ownPublication {
		return nil
	}
	source, err := pg.ConnectPgx(ctx, r.env, r.sourceCfg, pg.ConnectOptions{AppName: "weir plan"})
	if err != nil {
		return nil // the doctor says it better
	}
	defer func() { _ = source.Close(context.WithoutCancel(ctx)) }()
	var ours bool
	if err := source.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_publication p WHERE p.pubname = $1 AND NOT p.puballtables
		AND pg_has_role(p.pubowner, 'USAGE') AND has_database_privilege(current_database(), 'CREATE') AND NOT EXISTS (
			SELECT FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid WHERE r.prpubid = p.oid AND NOT pg_has_role(c.relowner, 'USAGE')))`,
		r.publication).Scan(&ours); err != nil || !ours {
		return err
	}
	_, err = source.Exec(ctx, "SET default_transaction_read_only = off; DROP PUBLICATION IF EXISTS "+pg.Ident(r.publication))
	return err
}

// prepare clears the way for a first start, or tells what stands in it.
func (r *running) prepare(ctx context.Context) error {
	if err := r.discardPublication(ctx); err != nil {
		return errs.New(errs.SourceUnreachable, "drop what an earlier start has left at source %s: %w", r.sourceCfg.Server(), err).Because(err)
	}
	p, err := plan.Make(ctx, r.env, r.request())
	if err == nil {
		dropped := 0
		err = r.onTarget(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			dropped, err = p.Discard(ctx, conn)
			return err
		})
		if dropped > 0 {
			p = nil // it has tables that are gone
		}
	}
	if r.runner.opts.Doctor == nil || brokenOff(err) {
		return err // the doctor would judge tables that should have gone
	}
	checks, derr := r.runner.opts.Doctor(ctx, r.pipeline.Mirror, r.sourceCfg, r.targetCfg, p)
	if derr != nil && !errs.Is(derr, errs.NoTables) {
		return derr
	}
	OfFirstStart(checks)
	if refused := Refusal(checks); refused != nil {
		return refused // it says better than the plan what is wrong
	}
	return cmp.Or(err, derr)
}

// OfFirstStart judges findings about a mirror that has copied nothing yet. The doctor cannot know whose the rows are where
// mirrors are at work. They are not this one's: another mirror of the same tables, perhaps, from another state directory.
func OfFirstStart(checks []api.Check) {
	for i := range checks {
		if checks[i].ID == "tgt.empty" && checks[i].Severity == api.SeverityWarning {
			checks[i].Severity = api.SeverityFatal
		}
	}
}

// brokenOff tells an error of a connection that ended from what a server or weir has to say about the databases.
func brokenOff(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pg.Passing(pgErr)
	}
	_, coded := errs.As(err)
	return err != nil && !coded
}

// sharedSlot is the slot that mirrors of the database may share. One whose own slot the user named has nothing to do with
// it.
func (r *running) sharedSlot() string {
	if r.pipeline.Mirror.Options["slot.name"] != "" {
		return ""
	}
	return SlotName(r.sourceCfg.Database(), r.runner.opts.Installation)
}

// Refusal is the error that fatal findings make.
func Refusal(checks []api.Check) error {
	var fatal []api.Check
	for _, c := range checks {
		if c.Severity == api.SeverityFatal {
			fatal = append(fatal, c)
		}
	}
	if len(fatal) == 0 {
		return nil
	}
	code := errs.SourcePreflight
	if c := errs.Code(fatal[0].Code); c == errs.SourceUnreachable || c == errs.TargetUnreachable {
		code = c // a server that is away now can be back at the next try
	}
	e := errs.New(code, "%s", fatal[0].Message)
	if len(fatal) > 1 {
		e.WithDetail("and %d more fatal findings", len(fatal)-1)
	}
	var fixes []string
	for _, c := range fatal {
		if c.Fix != "" && c.ID == fatal[0].ID { // others have messages of their own
			fixes = append(fixes, c.Fix)
		}
	}
	return e.WithFix(strings.Join(fixes, "\n")).WithHint("weir doctor shows every finding")
}

// progress tells whether the target knows the pipeline, and whether its first copy is complete with all that is built
// over it.
func (r *running) progress(ctx context.Context) (known, copied bool, err error) {
	err = r.onTarget(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var there bool
		if err := conn.QueryRow(ctx, `SELECT to_regclass('_weir.state') IS NOT NULL`).Scan(&there); err != nil || !there {
			return err
		}
		return conn.QueryRow(ctx, `SELECT count(*) > 0, coalesce(bool_or(key = 'consistent'), false) FROM "_weir"."state" WHERE pipeline = $1 AND sink = $2`,
			r.pipeline.ID, sink.DefaultSink).Scan(&known, &copied)
	})
	return known, copied, err
}

// resume plans what the target's tables still need, by the names that they have there.
func (r *running) resume(ctx context.Context, conn *pgx.Conn) (*plan.Plan, map[uint32]cdc.KnownTable, error) {
	known, err := r.knownTables(ctx, conn)
	if err != nil {
		return nil, nil, err
	}
	names := make(map[uint32]pg.TargetName, len(known))
	for oid, t := range known {
		names[oid] = t.Name
	}
	request := r.request()
	if len(request.Spec.Exclude) > 0 {
		source, err := pg.ConnectPgx(ctx, r.env, r.sourceCfg, pg.ConnectOptions{AppName: "weir plan"})
		if err != nil {
			return nil, nil, errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", r.sourceCfg.Server(), err).Because(err)
		}
		defer func() { _ = source.Close(context.WithoutCancel(ctx)) }()
		left, err := LeftOut(ctx, source, conn, r.pipeline.ID, names)
		if err != nil {
			return nil, nil, err
		}
		request.Spec.Exclude = slices.Concat(request.Spec.Exclude, left)
	}
	p, err := plan.Resume(ctx, r.env, request, names)
	if errs.Is(err, errs.NoTables) {
		return nil, known, nil // all were dropped since
	}
	return p, known, err
}

// changed tells whether tables of the plan have got another name or shape since it was made.
func (r *running) changed(ctx context.Context, conn *pgx.Conn, p *plan.Plan, since map[uint32]cdc.KnownTable) (bool, error) {
	if p == nil {
		return false, nil
	}
	known, err := r.knownTables(ctx, conn)
	if err != nil {
		return false, err
	}
	for _, t := range p.Tables {
		now, there := known[t.Source.OID]
		before := cdc.KnownTable{Name: pg.TargetName{Schema: t.Source.Schema, Name: t.Source.Name}, Version: 1}
		if since != nil {
			before = since[t.Source.OID]
		}
		if there && now != before {
			return true, nil
		}
	}
	return false, nil
}

// knownTables reads the mirror's tables from the ledger.
func (r *running) knownTables(ctx context.Context, conn *pgx.Conn) (map[uint32]cdc.KnownTable, error) {
	state, err := stored(ctx, conn, r.pipeline.ID, "table/")
	if err != nil {
		return nil, fmt.Errorf("read the mirror's tables: %w", err)
	}
	return cdc.KnownTables(state)
}

// stored reads a pipeline's state from the ledger, as far as its keys begin with prefix.
func stored(ctx context.Context, target pg.Querier, pipeline, prefix string) (dataflow.State, error) {
	rows, err := target.Query(ctx, `SELECT key, value FROM "_weir"."state" WHERE pipeline = $1 AND starts_with(key, $2)`, pipeline, prefix)
	if err != nil {
		return nil, err
	}
	state := dataflow.State{}
	var key string
	var value []byte
	_, err = pgx.ForEachRow(rows, []any{&key, &value}, func() error {
		state[key] = slices.Clone(value)
		return nil
	})
	return state, err
}

func (r *running) onTarget(ctx context.Context, fn func(context.Context, *pgx.Conn) error) error {
	return r.onTargetWith(ctx, 1, func(ctx context.Context, conns []*pgx.Conn) error { return fn(ctx, conns[0]) })
}

// onTargetWith is onTarget with so many connections.
func (r *running) onTargetWith(ctx context.Context, n int, fn func(context.Context, []*pgx.Conn) error) error {
	var conns []*pgx.Conn
	defer func() {
		for _, conn := range conns {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for range n {
		conn, err := pg.ConnectPgx(ctx, r.env, r.targetCfg, pg.ConnectOptions{AppName: "weir plan"})
		if err != nil {
			return errs.New(errs.TargetUnreachable, "cannot reach target %s: %w", r.targetCfg.Server(), err).Because(err)
		}
		conns = append(conns, conn)
	}
	return fn(ctx, conns)
}

// Done, Err and Stop implement coordinator.Running.
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
	if err := r.Err(); err != nil && !errors.Is(err, worker.ErrStopped) && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Command implements coordinator.Running.
func (r *running) Command(ctx context.Context, c api.Command) error {
	r.mu.Lock()
	src := r.source
	r.mu.Unlock()
	if src == nil {
		return errs.New(errs.PipelineState, "pipeline %s is still preparing", r.pipeline.Name).
			WithHint("ask again when weir pipelines get shows that it catches up or is live")
	}
	switch c.Verb {
	case "refresh":
		return src.Refresh(ctx, c.Tables)
	}
	return errs.New(errs.BadFlag, "a running mirror does not know the command %q", c.Verb)
}
