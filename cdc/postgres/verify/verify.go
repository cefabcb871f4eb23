// Package verify compares a source with its target row by row, while both are being written.
//
// It says "different" only of rows that are: a row on its way differs for a moment, so one that differs is looked at
// again until it has stayed different for longer than the target may lag, while the source's row stood still. And it
// says "equal" only when every row was compared.
//
// Each server sums up its own rows: the same expression, over the text of the same columns, gives the same sum on every
// version from 12 to 18. Ranges whose sums differ are divided until single rows are left; only those travel. What is
// held in memory does not grow with the tables.
package verify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// Request says what is compared. The zero value of a field means its default.
type Request struct {
	Source, Target *pg.Config
	Selection      *selection.Selection // default: every table, under its own name
	Check          bool                 // refuse patterns that keep nothing back: the user has just written them
	SoftDelete     string               // column that marks rows the source has deleted
	MaxDiffRows    int                  // per table: differences reported before it is given up. Default 100
	Parallel       int                  // ranges compared at once. Default 2
	RangeRows      int                  // rows of a range. Default 50,000
	// Settle is how long a row must differ, unchanged at the source, to count. Default 15 s.
	Settle time.Duration
	// CaughtUp, if given, waits until the target shows everything that the source had committed before position. Rows
	// are then judged by it and not by Settle.
	CaughtUp func(ctx context.Context, position pg.LSN) error
}

// Report is what Run found.
type Report = api.VerifyReport

// Run compares. A difference is no error; an error means that the comparison could not be made.
func Run(ctx context.Context, e *env.Env, r Request) (*Report, error) {
	if r.Selection == nil {
		all, err := selection.New(api.MirrorSpec{})
		if err != nil {
			return nil, err
		}
		r.Selection = all
	}
	if r.MaxDiffRows == 0 {
		r.MaxDiffRows = 100
	}
	if r.Parallel == 0 {
		r.Parallel = 2
	}
	if r.RangeRows == 0 {
		r.RangeRows = 50_000
	}
	if r.Settle == 0 {
		r.Settle = 15 * time.Second
	}
	v := &verifier{env: e, r: r, report: &Report{StartedAt: e.Clock.Now()}}
	if err := v.run(ctx); err != nil {
		return nil, err
	}
	v.sum()
	return v.report, nil
}

// appName is shown in pg_stat_activity.
const appName = "weir verify"

type verifier struct {
	env    *env.Env
	r      Request
	report *Report
	tables []*table
}

// connections are one worker's: a session each can run one statement at a time.
type connections struct{ source, target *pgx.Conn }

func (v *verifier) connect(ctx context.Context) (*connections, error) {
	opts := pg.ConnectOptions{AppName: appName, Settings: map[string]string{"default_transaction_read_only": "on", "jit": "off"}}
	source, err := pg.ConnectPgx(ctx, v.env, v.r.Source, opts)
	if err != nil {
		return nil, errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", v.r.Source.Server(), err)
	}
	target, err := pg.ConnectPgx(ctx, v.env, v.r.Target, opts)
	if err != nil {
		_ = source.Close(context.WithoutCancel(ctx))
		return nil, errs.New(errs.TargetUnreachable, "cannot reach target %s: %w", v.r.Target.Server(), err)
	}
	return &connections{source, target}, nil
}

func (c *connections) close(ctx context.Context) {
	_ = c.source.Close(context.WithoutCancel(ctx))
	_ = c.target.Close(context.WithoutCancel(ctx))
}

func (v *verifier) run(ctx context.Context) error {
	conns, err := v.connect(ctx)
	if err != nil {
		return err
	}
	defer conns.close(ctx)
	if err := v.pair(ctx, conns); err != nil {
		return fmt.Errorf("verify %s: %w", v.r.Source.Server(), err)
	}
	if err := v.compareAll(ctx, conns); err != nil {
		return fmt.Errorf("verify %s: %w", v.r.Source.Server(), err)
	}
	for _, t := range v.tables {
		if err := v.settle(ctx, conns, t); err != nil {
			return fmt.Errorf("verify %s: %w", v.r.Source.Server(), err)
		}
	}
	return nil
}

// task is a range of a table; nil bounds are open.
type task struct {
	t           *table
	after, upTo []string
	buckets     int
}

// compareAll has one goroutine find ranges and others compare them.
func (v *verifier) compareAll(ctx context.Context, conns *connections) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tasks := make(chan task)
	var wg sync.WaitGroup
	for range v.r.Parallel {
		wg.Add(1)
		v.env.Go("verify", func() {
			defer wg.Done()
			if err := v.work(ctx, tasks); err != nil {
				cancel(err)
			}
		})
	}
	err := v.plan(ctx, conns.source, tasks)
	close(tasks)
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (v *verifier) work(ctx context.Context, tasks <-chan task) error {
	conns, err := v.connect(ctx)
	if err != nil {
		return err
	}
	defer conns.close(ctx)
	for k := range tasks {
		if err := v.compare(ctx, conns, k); err != nil {
			if ctx.Err() != nil || conns.source.IsClosed() || conns.target.IsClosed() {
				return fmt.Errorf("compare %s: %w", k.t.report.Source, err)
			}
			k.t.fail(k.t.explain(err)) // a statement that a server refused is this table's trouble alone
		}
	}
	return nil
}

// plan divides each table into tasks.
func (v *verifier) plan(ctx context.Context, source *pgx.Conn, tasks chan<- task) error {
	send := func(k task) error {
		select {
		case tasks <- k:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, t := range v.tables {
		if t.failed() {
			continue
		}
		if !t.ranged {
			// One pass over the table sums up many buckets; a statement for each would read the table as often.
			buckets := min(max(int(t.source.table.RelTuples)/v.r.RangeRows, 1), maxBuckets)
			if err := send(task{t: t, buckets: buckets}); err != nil {
				return err
			}
			continue
		}
		var after []string
		for {
			upTo, err := t.source.bound(ctx, source, after, v.r.RangeRows)
			if err != nil {
				if ctx.Err() != nil || source.IsClosed() {
					return fmt.Errorf("divide %s: %w", t.report.Source, err)
				}
				t.fail(err)
				break
			}
			if err := send(task{t: t, after: after, upTo: upTo, buckets: 1}); err != nil {
				return err
			}
			if upTo == nil {
				break
			}
			after = upTo
		}
	}
	return nil
}

// sum closes the report.
func (v *verifier) sum() {
	r := v.report
	r.Equal = true
	for _, t := range v.tables {
		x := t.report
		x.Equal = x.Error == "" && x.Differing == 0 && !x.More
		r.Equal = r.Equal && x.Equal
		r.Rows += x.SourceRows
		r.Ranges += x.Ranges
		r.Differing += x.Differing
		r.Unsettled += x.Unsettled
		r.Tables = append(r.Tables, x)
	}
	r.FinishedAt = v.env.Clock.Now()
}

// table is a pair of tables and what is known about it so far.
type table struct {
	source, target side
	keyless        bool
	cast           []string // columns whose values are compared in the form that the target's type gives them
	ranged         bool     // key ranges mean the same on both servers, and an index finds them

	mu       sync.Mutex
	report   api.VerifyTable
	suspects []*suspect
}

func (t *table) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.report.Error == "" {
		t.report.Error = err.Error()
	}
}

// explain names the columns whose types can be to blame when a value has no form in the target's type.
func (t *table) explain(err error) error {
	var refused *pgconn.PgError
	if len(t.cast) == 0 || !errors.As(err, &refused) || !strings.HasPrefix(refused.Code, "22") && refused.Code != "42846" {
		return err
	}
	return fmt.Errorf("a value does not fit the target's type of %s: %w", strings.Join(t.cast, " or "), err)
}

func (t *table) failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.report.Error != ""
}

// errNoTables is for a comparison of nothing, which would be "equal".
var errNoTables = errors.New("no table to compare")
