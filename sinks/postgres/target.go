// Package postgres writes changes into a Postgres database exactly once.
//
// The target is the truth: one transaction on one connection applies the rows of an epoch to all tables and moves the
// ledger, with the source's position, from the checkpoint before to its own. Whatever crashes, rows and position agree.
// sinks/DESIGN.md goes through every crash point.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/internal/pg"
)

// Options configures a Target.
type Options struct {
	Config   *pg.Config
	Pipeline string // key of the ledger: the pipeline's id
	Sink     string // default "target"
	// Sinks are all that the pipeline has in the ledger; default only Sink.
	Sinks []string
	// Route names the target's table for a source table; false: the table is not mirrored.
	Route func(schema, name string) (targetSchema, targetName string, ok bool)
	// Excluded tells which generated columns of a source table are left out. Of the others their relation tells.
	Excluded func(schema, table, column string) bool
	// SyncCommit is the sessions' synchronous_commit. Default "off": a commit is acknowledged as durable, and the
	// source told, only after the target has flushed it, as Postgres's own subscriptions do.
	SyncCommit string
	// BatchBytes bounds what is held before it is sent into the open transaction. Default 8 MiB.
	BatchBytes int
	// SchemaChange is the behaviour on changes of shape. Default Evolve.
	SchemaChange Behavior
	// SoftDelete names a timestamptz column that marks deleted rows; "" deletes them.
	SoftDelete string
	// MissingRow: what an update or delete does that finds no row: "warn" (default) counts it, "error" stops.
	MissingRow string
	// Memory survives restarts of the Target within the process.
	Memory *Memory
	// Tables are the source's tables as planned, for what is built after the copy.
	AfterCopy func(ctx context.Context, conn *pgx.Conn) error
	// AfterTable builds of that what concerns one table of the target; it may be called for several at once. See
	// dataflow.TableFinisher.
	AfterTable func(ctx context.Context, conn *pgx.Conn, schema, name string, beside bool) error
	// AfterConsistent builds what only tables that agree with each other can have.
	AfterConsistent func(ctx context.Context, conn *pgx.Conn) error
}

// The crash points of a publish; sinks/DESIGN.md argues each.
const (
	FailBeforeApply  failpoint.Point = "X1.target.before-apply"
	FailBeforeLedger failpoint.Point = "X5.target.before-ledger"
	FailBeforeCommit failpoint.Point = "X8.target.before-commit"
	FailAfterCommit  failpoint.Point = "X10.target.after-commit"
	FailLoad         failpoint.Point = "X3.target.load"
	FailLoaded       failpoint.Point = "X4.target.loaded"
)

// Target implements dataflow.Target and dataflow.Loader.
type Target struct {
	env      *env.Env
	opts     Options
	gen      dataflow.Generation
	last     dataflow.Checkpoint // of the last Commit
	ctl      *pgx.Conn           // control: catalog, flush position; never the data
	started  string              // when the server was, as it says
	ledger   ledger
	*session                     // of the epochs
	ahead    map[uint32]*session // of open source transactions, by their number
	spare    []*session          // ended ones, to be used again
	ending   *session            // whose transaction the next Commit ends; nil: that of the epochs

	acks    chan dataflow.Ack
	stop    chan struct{}
	waits   sync.WaitGroup
	durable durability
	loads   loader
	replica bool // session_replication_role could be set
	begun   bool // something of the open epoch was sent
	// freed are names of the target that a change took from their tables, maybe in the transaction that is open.
	freed map[[2]string]bool
	// unwritten are source columns (schema, table, column) that the target was not given when they appeared.
	unwritten map[[3]string]bool
}

const defaultBatchBytes = 8 << 20

// DefaultSink is the sink's name in the ledger when none is given.
const DefaultSink = "target"

// New returns a Target that Open connects.
func New(e *env.Env, opts Options) *Target {
	if opts.Sink == "" {
		opts.Sink = DefaultSink
	}
	if opts.Sinks == nil {
		opts.Sinks = []string{opts.Sink}
	}
	if opts.SyncCommit == "" {
		opts.SyncCommit = "off"
	}
	if opts.BatchBytes == 0 {
		opts.BatchBytes = defaultBatchBytes
	}
	if opts.SchemaChange == "" {
		opts.SchemaChange = Evolve
	}
	if opts.Memory == nil {
		opts.Memory = NewMemory()
	}
	if opts.Excluded == nil {
		opts.Excluded = func(string, string, string) bool { return false }
	}
	return &Target{env: e.With("part", "target"), opts: opts, ahead: map[uint32]*session{}, unwritten: map[[3]string]bool{}, freed: map[[2]string]bool{}}
}

const appName = "weir target"

// Open implements dataflow.Target.
func (t *Target) Open(ctx context.Context, gen dataflow.Generation) (dataflow.Restored, error) {
	restored, err := t.open(ctx, gen)
	if err != nil {
		if t.stop != nil {
			close(t.stop)
			if t.session != nil {
				t.wire.close()
				t.session = nil
			}
			t.waits.Wait()
		}
		if t.ctl != nil {
			_ = t.ctl.Close(context.WithoutCancel(ctx))
		}
		return dataflow.Restored{}, t.wrap(err)
	}
	return restored, nil
}

func (t *Target) open(ctx context.Context, gen dataflow.Generation) (dataflow.Restored, error) {
	t.gen = gen
	t.opts.Memory.noneAhead()
	var err error
	if t.ctl, err = pg.ConnectPgx(ctx, t.env, t.opts.Config, pg.ConnectOptions{AppName: appName}); err != nil {
		return dataflow.Restored{}, errs.New(errs.TargetUnreachable, "cannot reach target %s: %w", t.opts.Config.Server(), err).Because(err)
	}
	if t.started, err = startOf(ctx, t.ctl); err != nil {
		return dataflow.Restored{}, err
	}
	t.ledger = ledger{conn: t.ctl, pipeline: t.opts.Pipeline, sink: t.opts.Sink, flushing: t.flushing()}
	if err := t.ledger.ensure(ctx); err != nil {
		return dataflow.Restored{}, err
	}
	if err := t.ledger.alone(ctx, t.opts.Sinks); err != nil {
		return dataflow.Restored{}, err
	}
	if t.last, err = t.ledger.raise(ctx, gen, t.env.Clock.Sleep); err != nil {
		return dataflow.Restored{}, err
	}
	state, err := t.ledger.state(ctx)
	if err != nil {
		return dataflow.Restored{}, fmt.Errorf("read the ledger's state: %w", err)
	}
	if err := t.unsettle(ctx, state); err != nil {
		return dataflow.Restored{}, err
	}
	t.acks = make(chan dataflow.Ack, 256)
	t.stop = make(chan struct{})
	if t.session, err = t.newSession(ctx); err != nil {
		return dataflow.Restored{}, err
	}
	if err := t.ledger.hold(ctx, gen, t.wire.pid); err != nil {
		return dataflow.Restored{}, fmt.Errorf("note our backend in the ledger: %w", err)
	}
	t.durable.start(t)
	return dataflow.Restored{Checkpoint: t.last, State: state}, nil
}

// flushing is the synchronous_commit of what has to be on disk before anything goes on: without a wait for standbys
// unless the user asked for one.
func (t *Target) flushing() string {
	if t.opts.SyncCommit == "off" {
		return "local"
	}
	return t.opts.SyncCommit
}

func (t *Target) forData() pg.ConnectOptions {
	return pg.ConnectOptions{AppName: appName, Settings: map[string]string{
		"synchronous_commit": t.opts.SyncCommit,
		"plan_cache_mode":    "force_generic_plan",
		// Nothing waits for ever: an open transaction that is written ahead may hold what an epoch needs.
		"lock_timeout": "10s",
	}}
}

// connect opens a connection for data.
func (t *Target) connect(ctx context.Context) (*pgconn.PgConn, error) {
	conn, err := pg.Connect(ctx, t.env, t.opts.Config, t.forData())
	if err != nil {
		return nil, errs.New(errs.TargetUnreachable, "cannot reach target %s: %w", t.opts.Config.Server(), err).Because(err)
	}
	if err := t.silence(ctx, conn); err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// silence keeps triggers and foreign keys from having their say again, as an apply worker does: they had it at the
// source. Without the right to it the target's own triggers fire; doctor says so.
func (t *Target) silence(ctx context.Context, conn *pgconn.PgConn) error {
	_, err := conn.Exec(ctx, "SET session_replication_role = replica").ReadAll()
	t.replica = err == nil
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return nil
	}
	return err
}

// Write implements dataflow.Target.
func (t *Target) Write(ctx context.Context, m dataflow.Message) error {
	if !t.begun {
		t.begun = true
		if err := t.hit(FailBeforeApply); err != nil {
			return err
		}
	}
	return t.wrap(t.write(ctx, m))
}

func (t *Target) write(ctx context.Context, m dataflow.Message) error {
	switch m.Kind {
	case dataflow.KindRows:
		return t.app.rows(m.Rows, t.resolver(ctx, t.session))
	case dataflow.KindChunk:
		tab, err := t.resolve(ctx, t.session, m.Chunk.Rel)
		if err != nil || tab == nil {
			return err
		}
		if err := t.app.flush(); err != nil {
			return err
		}
		if m.Chunk.Replace {
			t.app.clearRange(tab, m.Chunk.Key, m.Chunk.After, m.Chunk.Through)
		}
		if m.Rows != nil {
			return t.app.rows(m.Rows, t.resolver(ctx, t.session))
		}
		return nil
	case dataflow.KindTruncate:
		// Order matters between tables here, so everything before goes first.
		if err := t.app.flush(); err != nil {
			return err
		}
		var tables []*table
		for _, rel := range m.Truncate.Relations {
			tab, err := t.resolve(ctx, t.session, rel)
			if err != nil {
				return err
			}
			if tab != nil {
				tables = append(tables, tab)
			}
		}
		if len(tables) > 0 {
			t.settleChecks(tables...)
			t.app.truncate(tables, m.Truncate)
		}
		return nil
	case dataflow.KindSchema:
		if err := t.app.flush(); err != nil {
			return err
		}
		return t.evolve(ctx, m.Schema)
	case dataflow.KindOpenRows, dataflow.KindOpenAbort, dataflow.KindOpenCommit:
		return t.writeAhead(ctx, m)
	case dataflow.KindMark, dataflow.KindEnd:
		return nil
	}
	return fmt.Errorf("target: unknown message kind %d", m.Kind)
}

// Commit implements dataflow.Target.
func (t *Target) Commit(_ context.Context, cut dataflow.Cut) error { return t.commit(cut, nil) }

// ledgerStep is the move of one ledger row.
type ledgerStep struct {
	of  *Target
	cut dataflow.Cut
}

// commit also moves the ledger rows of others, which have nothing open and nothing in flight.
func (t *Target) commit(cut dataflow.Cut, others []ledgerStep) error {
	sess := t.session
	if t.ending != nil {
		sess, t.ending = t.ending, nil
	}
	if err := sess.app.flush(); err != nil {
		return t.wrap(err)
	}
	if err := t.hit(FailBeforeLedger); err != nil {
		return err
	}
	sess.app.begin()
	w := sess.wire
	if cut.Durable && t.opts.SyncCommit == "off" {
		// Otherwise the server's own pace decides when the log is written: a fifth of a second later, by default.
		w.statement("SET LOCAL synchronous_commit = local", expectation{}) // not a standby's: off does not wait for those
	}
	for _, step := range append([]ledgerStep{{t, cut}}, others...) {
		if err := step.of.advance(w, step.cut); err != nil {
			return err
		}
	}
	if err := t.hit(FailBeforeCommit); err != nil {
		return err
	}
	w.bindEnd(w.bindStart("commit", 0, 0))
	w.execute(expectation{})
	w.syncUp(cut.Checkpoint)
	sess.app.open, t.begun = false, false
	if sess != t.session {
		t.spare = append(t.spare, sess)
	}
	if err := w.flush(); err != nil {
		return t.wrap(err)
	}
	return t.hit(FailAfterCommit)
}

// advance moves the ledger's row to the cut, in the transaction that is open on w.
func (t *Target) advance(w *wire, cut dataflow.Cut) error {
	if cut.Checkpoint != t.last+1 {
		return errs.New(errs.EngineInternal, "checkpoint %d follows %d", cut.Checkpoint, t.last)
	}
	at := w.bindStart("advance", 7, 0)
	w.bindText(t.opts.Pipeline)
	w.bindText(t.opts.Sink)
	w.bindText(fmt.Sprint(uint64(t.gen)))
	w.bindText(fmt.Sprint(uint64(t.last)))
	w.bindText(fmt.Sprint(uint64(cut.Checkpoint)))
	keys, values := stateArrays(cut.State)
	w.bindText(keys)
	w.bindText(values)
	w.bindEnd(at)
	w.execute(expectation{})
	t.last = cut.Checkpoint
	return nil
}

// stateArrays renders state changes as the text of a text[] and a bytea[]; a nil value is NULL.
func stateArrays(changes []dataflow.StateChange) (keys, values string) {
	var k, v strings.Builder
	k.WriteByte('{')
	v.WriteByte('{')
	for i, c := range changes {
		if i > 0 {
			k.WriteByte(',')
			v.WriteByte(',')
		}
		k.WriteByte('"')
		for _, r := range []byte(c.Key) {
			if r == '"' || r == '\\' {
				k.WriteByte('\\')
			}
			k.WriteByte(r)
		}
		k.WriteByte('"')
		if c.Value == nil {
			v.WriteString("NULL")
		} else {
			fmt.Fprintf(&v, `"\\x%x"`, c.Value)
		}
	}
	k.WriteByte('}')
	v.WriteByte('}')
	return k.String(), v.String()
}

func (t *Target) ack(a dataflow.Ack) {
	select {
	case t.acks <- a:
	case <-t.stop:
	}
}

// Acks implements dataflow.Target.
func (t *Target) Acks() <-chan dataflow.Ack { return t.acks }

// Close implements dataflow.Target.
func (t *Target) Close(ctx context.Context) error {
	if t.session == nil {
		return nil
	}
	close(t.stop)
	t.closeLoads(ctx)
	t.wire.close()
	for _, s := range t.ahead {
		s.wire.close()
	}
	for _, s := range t.spare {
		s.wire.close()
	}
	t.waits.Wait()
	close(t.acks)
	t.session = nil
	return t.ctl.Close(ctx)
}

// hit runs a failpoint; a kill does not come back.
func (t *Target) hit(p failpoint.Point) error {
	err := t.env.Fail.Hit(p)
	if errors.Is(err, failpoint.ErrKill) {
		if t.session != nil {
			_ = t.wire.flush() // what a real crash may already have sent
		}
		t.env.Crash(err)
	}
	return err
}

// wrap gives an error of the target its record.
func (t *Target) wrap(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errs.As(err); ok {
		return err
	}
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return errs.New(errs.TargetUnreachable, "lost target %s: %w", t.opts.Config.Server(), err).Because(err)
	}
	switch {
	case pgErr.Code == fenceState:
		return errs.New(errs.Fenced, "the target refused generation %d: %s", t.gen, pgErr.Message).Because(err).
			WithHint("another weir took the pipeline over")
	case pg.Passing(pgErr):
		e := errs.New(errs.TargetUnreachable, "target %s: %s", t.opts.Config.Server(), pgErr.Message).Because(err)
		if hint := pg.RefusedHint(err); hint != "" {
			e = e.WithHint("%s", hint)
		}
		return e
	}
	e := errs.New(errs.TargetRejected, "the target refused a change: %s", pgErr.Message).Because(err)
	switch {
	case pgErr.Code == "23503": // the table is the one that has the key, also when a row of the other was to go
		e.Message = fmt.Sprintf("foreign key %s of the target's table %s.%s refused a change: %s", pg.Ident(pgErr.ConstraintName), pgErr.SchemaName, pgErr.TableName, pgErr.Message)
	case pgErr.TableName != "":
		e.Message = fmt.Sprintf("the target refused a change of %s.%s: %s", pgErr.SchemaName, pgErr.TableName, pgErr.Message)
	}
	e.Detail = pgErr.Detail
	if pgErr.Where != "" {
		e.Detail = strings.TrimSpace(e.Detail + " " + pgErr.Where)
	}
	var of *refusal
	if errors.As(err, &of) && of.of.String() != "" {
		const enough = 500
		what := []rune(of.of.String())
		if len(what) > enough {
			what = append(what[:enough], '…')
		}
		e.Detail = strings.TrimSpace(e.Detail + " in: " + string(what))
	}
	return e
}

func (t *Target) loadTable(ctx context.Context, schema, name string) (*pg.Table, error) {
	var oid uint32
	err := t.ctl.QueryRow(ctx, `SELECT c.oid::int8 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')`, schema, name).Scan(&oid)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errs.New(errs.TargetTable, "the target has no table %s", pg.Qualified(schema, name))
	}
	if err != nil {
		return nil, err
	}
	tables, err := pg.PeekShapes(ctx, t.ctl, []uint32{oid})
	if err != nil {
		return nil, err
	}
	if len(tables) != 1 {
		return nil, errs.New(errs.TargetTable, "the target has no table %s", pg.Qualified(schema, name))
	}
	return tables[0], nil
}

var (
	_ dataflow.Target        = (*Target)(nil)
	_ dataflow.Loader        = (*Target)(nil)
	_ dataflow.TableFinisher = (*Target)(nil)
)
