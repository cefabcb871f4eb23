// Package doctor asks a source Postgres everything that could stop a mirror, before the first byte moves, and gives
// with each finding the SQL that repairs it.
//
// It only reads. Its questions are about sets: their number does not grow with the number of tables, so a database
// with thousands of them is asked in a second or two. docs/doctor.md describes every check by its id.
package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// Options says what the source is wanted for. The zero value of a field means its default.
type Options struct {
	Selection   *selection.Selection // default: every table
	Slot        string               // "": not decided yet
	Publication string               // "": not decided yet
	// KeepPublication: the user gave the publication by name. What it lacks is not added to it.
	KeepPublication bool
	// Running: this pipeline holds the slot now, so an active slot is as it should be.
	Running bool
	// Stored is where the pipeline stands; nil for a new one.
	Stored *Stored
	// FullRows: the pipeline needs whole old rows. A mirror does not: it leaves alone what an update did not send.
	FullRows bool
	LongTx   time.Duration // how old a transaction may be. Default 5 min
	// Shared is the slot that the database's mirrors may read together: a pipeline without its own reads that one.
	Shared string
	// SlotPrefix is what the names of weir's slots begin with. Default "weir_".
	SlotPrefix string
}

// Stored is the position of a pipeline that has run before, and the server it belongs to.
type Stored struct {
	System   string
	Timeline int32
	Position pg.LSN // 0: none yet
}

// Check runs all checks. A server that cannot be reached is a finding; an error means that the checks themselves could
// not be carried out.
func Check(ctx context.Context, e *env.Env, cfg *pg.Config, opts Options) ([]api.Check, error) {
	if opts.Selection == nil {
		all, err := selection.New(api.MirrorSpec{})
		if err != nil {
			return nil, err
		}
		opts.Selection = all
	}
	if opts.LongTx == 0 {
		opts.LongTx = 5 * time.Minute
	}
	if opts.SlotPrefix == "" {
		opts.SlotPrefix = "weir_"
	}
	d := &doctor{env: e, cfg: cfg, opts: opts, out: api.NewFindings("source")}
	if err := d.run(ctx); err != nil {
		return d.out.List(), fmt.Errorf("check source %s: %w", cfg.Server(), err)
	}
	return d.out.List(), nil
}

// appName is shown in pg_stat_activity.
const appName = "weir doctor"

// statementTimeout ends a question that meets a lock or a broken server, in milliseconds.
const statementTimeout = "20000"

type doctor struct {
	env  *env.Env
	cfg  *pg.Config
	opts Options
	out  *api.Findings

	conn     *pgx.Conn
	server   server
	names    []pg.TableName
	picked   []pg.TableName
	left     []selection.Left
	tables   []table
	identity *pg.Identity    // as a walsender told it; nil when none could be opened
	pub      *pg.Publication // nil: there is none
}

func (d *doctor) run(ctx context.Context) (err error) {
	d.conn, err = pg.ConnectPgx(ctx, d.env, d.cfg, pg.ConnectOptions{AppName: appName, Settings: map[string]string{
		"statement_timeout":             statementTimeout,
		"default_transaction_read_only": "on",
		"jit":                           "off", // compiling a query about a large catalog takes longer than the query
	}})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.out.Fatal("pg.connect", errs.SourceUnreachable, "", "%s", pg.Hinted(err))
		return nil
	}
	defer func() { _ = d.conn.Close(context.WithoutCancel(ctx)) }()
	for _, step := range []func(context.Context) error{
		d.loadServer, d.checkServer, d.checkPooler, d.checkReplication,
		d.loadTables, d.checkTables, d.checkPublication, d.checkFilters,
		d.checkSlot, d.checkOrphans, d.checkTransactions,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// finding is one object's entry of a check about many.
func finding(severity api.Severity, code errs.Code, object, fix, format string, args ...any) api.Check {
	return api.Check{Severity: severity, Code: string(code), Object: object, Fix: fix, Message: fmt.Sprintf(format, args...)}
}

// rows runs a query and hands each row to one.
func (d *doctor) rows(ctx context.Context, what, sql string, one func(pgx.Rows) error, args ...any) error {
	rows, err := d.conn.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := one(rows); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
