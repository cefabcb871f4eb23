// Package typed writes the checkpoints of queries into tables of a Postgres database, exactly once.
//
// All tables of a database are one Sink: a checkpoint is one transaction over all of them, which also moves the ledger of
// sinks/postgres to the checkpoint's number under the pipeline's generation. So whoever reads several tables in one
// transaction sees one cut of the inputs, and after any crash the ledger says what is there. sinks/DESIGN.md argues it.
//
// # How rows are applied
//
// A table with a key is upserted into and deleted from, many rows a statement, through binary arrays: what the table held
// under a key before the pipeline came is replaced, as by Flink. Keys that go are deleted before others come where the
// table has another unique index. If a unique value moves between rows that both stay, the first try is refused; then the
// rows that changed are taken out before they are put back (apply.go). A table without a key is only added to.
//
// Triggers, defaults and foreign keys of the tables have their say; DEFERRABLE constraints wait for the commit.
package typed

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/internal/pg"
	"github.com/weirstream/weir/sinks/postgres"
)

// The crash points of a publish; sinks/DESIGN.md argues each.
const (
	FailBeforeRows   failpoint.Point = "jdbc.before-rows"   // nothing was sent
	FailBeforeCommit failpoint.Point = "jdbc.before-commit" // rows and ledger were sent, COMMIT was not
	FailAfterCommit  failpoint.Point = "jdbc.after-commit"  // it is committed, and nobody was told
)

// FailPoints lists them.
func FailPoints() []failpoint.Point {
	return []failpoint.Point{FailBeforeRows, FailBeforeCommit, FailAfterCommit}
}

// Options configures a Sink.
type Options struct {
	Config *pg.Config
	// Pipeline is the pipeline's id and Sink the name of this one in it: the key of the ledger.
	Pipeline, Sink string
	Tables         []Table
}

// Table is a table that is written to.
type Table struct {
	Schema, Name string
	// Columns are those that the pipeline writes, by the names that they have in the database.
	Columns row.Schema
	// Key are the columns of the primary key, by their places in Columns; nil: rows are added only.
	Key []int
}

func (t Table) String() string { return pg.DottedName(t.Schema, t.Name) }

// Sink implements dataflow.Sink.
type Sink struct {
	env    *env.Env
	opts   Options
	gen    dataflow.Generation
	conn   *pgx.Conn
	tables []*table
	free   []*piece
}

// New returns a Sink that Open connects.
func New(e *env.Env, opts Options) *Sink {
	return &Sink{env: e.With("part", "sink"), opts: opts}
}

// userPath is the search_path of the session that writes, for triggers and defaults of the tables: Postgres's default.
// What this package says itself is qualified.
const userPath = `"$user", public`

// Open implements dataflow.Sink.
func (s *Sink) Open(ctx context.Context, gen dataflow.Generation, _ dataflow.Checkpoint) (dataflow.Checkpoint, error) {
	s.gen = gen
	c, err := s.open(ctx)
	return c, s.wrap(err)
}

func (s *Sink) open(ctx context.Context) (dataflow.Checkpoint, error) {
	var err error
	s.conn, err = pg.ConnectPgx(ctx, s.env, s.opts.Config, pg.ConnectOptions{AppName: "weir sink", Settings: map[string]string{
		// What is published is not kept here, so it has to be on the server's disk when a commit is answered.
		"synchronous_commit": "on",
		// How many keys are deleted decides how they are looked up.
		"plan_cache_mode": "force_custom_plan",
	}})
	if err != nil {
		return 0, errs.New(errs.TargetUnreachable, "cannot reach %s: %w", s.opts.Config.Server(), err).Because(err)
	}
	// Tables that do not fit are told before a ledger is made or anybody is fenced off.
	if err := s.check(ctx); err != nil {
		return 0, err
	}
	ledger := postgres.NewPublishLedger(s.conn, s.opts.Pipeline, s.opts.Sink)
	c, err := ledger.Raise(ctx, s.gen, s.env.Clock.Sleep)
	if err != nil {
		return 0, err
	}
	if err := ledger.Hold(ctx, s.gen, s.conn.PgConn().PID()); err != nil {
		return 0, fmt.Errorf("note our backend in the ledger: %w", err)
	}
	if _, err := s.conn.Exec(ctx, "SET search_path = "+userPath); err != nil {
		return 0, err
	}
	return c, s.prepare(ctx)
}

// Publish implements dataflow.Sink.
func (s *Sink) Publish(ctx context.Context, c dataflow.Checkpoint, changes dataflow.Changes) error {
	return s.wrap(s.publish(ctx, c, changes))
}

// Close implements dataflow.Sink.
func (s *Sink) Close(ctx context.Context) error {
	if s.conn == nil {
		return nil
	}
	_ = s.conn.Close(ctx) // what it has not committed the server rolls back
	return nil
}

func (s *Sink) hit(p failpoint.Point) error {
	err := s.env.Fail.Hit(p)
	if errors.Is(err, failpoint.ErrKill) {
		s.env.Crash(err)
	}
	return err
}

var _ dataflow.Sink = (*Sink)(nil)
