package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cdc/postgres/plan"
	"github.com/weirstream/weir/cmd/weir/mirror"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/internal/pg"
	sink "github.com/weirstream/weir/sinks/postgres"
)

// runCutover brings the target to where the source ended and sets what the log does not carry. The pipeline goes on
// running meanwhile; whoever asked deletes it when the report says that the target is ready. With DryRun nothing is
// changed and the steps say what they would do.
func runCutover(ctx context.Context, e *env.Env, r cutoverRequest) (*cutoverReport, error) {
	c := &cutting{env: e, r: r, report: &cutoverReport{Pipeline: r.Pipeline.Name, DryRun: r.DryRun, Ready: true}}
	if err := c.with(ctx, c.steps); err != nil {
		return nil, err
	}
	return c.report, nil
}

// FailSettled is the place where foreign keys have what the source's have, and the pipeline is still there.
const FailSettled failpoint.Point = "cutover.settled"

// runSettle is the last thing before the pipeline is deleted, which rests meanwhile: no row comes any more whose number the
// sequences do not know, and the mirror needs the keys as they are. What undoes a change of these is noted for it with the
// change, should it ever go on.
func runSettle(ctx context.Context, e *env.Env, r cutoverRequest) ([]cutoverStep, error) {
	if err := arm(e); err != nil {
		return nil, err
	}
	c := &cutting{env: e, r: r, report: &cutoverReport{}}
	if err := c.with(ctx, c.settle); err != nil {
		return nil, err
	}
	err := e.Fail.Hit(FailSettled)
	if errors.Is(err, failpoint.ErrKill) {
		e.Crash(err)
	}
	return c.report.Steps, err
}

// errWritten: somebody wrote to the source while the cut-over was under way.
var errWritten = errors.New("stop the writers and ask again, or --force")

type cutting struct {
	env            *env.Env
	r              cutoverRequest
	report         *cutoverReport
	source, target *pgx.Conn
	plan           *plan.Plan
}

// with does work on both databases.
func (c *cutting) with(ctx context.Context, work func(context.Context) error) error {
	sourceCfg, err := pg.ParseURL(c.r.Source)
	if err != nil {
		return err
	}
	targetCfg, err := pg.ParseURL(c.r.Target)
	if err != nil {
		return err
	}
	const app = "weir cutover"
	if c.source, err = pg.ConnectPgx(ctx, c.env, sourceCfg, pg.ConnectOptions{AppName: app}); err != nil {
		return errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", sourceCfg.Server(), err)
	}
	defer func() { _ = c.source.Close(context.WithoutCancel(ctx)) }()
	if c.target, err = pg.ConnectPgx(ctx, c.env, targetCfg, pg.ConnectOptions{AppName: app}); err != nil {
		return errs.New(errs.TargetUnreachable, "cannot reach target %s: %w", targetCfg.Server(), err)
	}
	defer func() { _ = c.target.Close(context.WithoutCancel(ctx)) }()
	left, err := mirror.LeftOut(ctx, c.source, c.target, c.r.Pipeline.ID, nil)
	if err != nil {
		return err
	}
	spec := &c.r.Pipeline.Mirror
	spec.Exclude = slices.Concat(spec.Exclude, left)
	filters, err := mirror.Filters(ctx, c.source, *spec, c.r.Publication)
	if err != nil {
		return err
	}
	spec.Filters = slices.Concat(filters, spec.Filters) // the first that matches counts
	// Tables that a pattern was about may have been dropped since the start.
	if c.plan, err = plan.MakeAt(ctx, c.env, plan.Request{Spec: c.r.Pipeline.Mirror, Source: sourceCfg, Target: targetCfg, Pipeline: c.r.Pipeline.ID}, "", nil); err != nil {
		return err
	}
	return work(ctx)
}

func (c *cutting) steps(ctx context.Context) error {
	for _, step := range []func(context.Context) error{c.built, c.writes, c.position, c.sequences, c.defaults, c.verify, c.still, c.keys} {
		if err := step(ctx); err != nil {
			return err
		}
		if !c.report.Ready && !c.r.DryRun {
			return nil
		}
	}
	if c.r.DryRun {
		c.report.Steps = append(c.report.Steps, detached)
	}
	return nil
}

// detached is the last step, of whoever asked.
var detached = cutoverStep{Name: "detach", Says: "the pipeline is deleted, with its slot and publication"}

func (c *cutting) step(s cutoverStep, began time.Time) {
	if s.Done {
		s.TookMS = c.env.Clock.Now().Sub(began).Milliseconds()
	}
	c.report.Steps = append(c.report.Steps, s)
	if c.r.Progress != nil && !c.r.DryRun {
		c.r.Progress(s)
	}
}

// built looks whether the target has what belongs to its tables.
func (c *cutting) built(context.Context) error {
	began := c.env.Clock.Now()
	var owed []string
	for _, t := range c.plan.Tables {
		if t.Unfinished {
			owed = append(owed, t.Target.Name.String())
		}
	}
	if len(owed) == 0 {
		return nil
	}
	c.report.Ready = false
	c.step(cutoverStep{Name: "built", Says: "the target's tables are not finished",
		Warning: fmt.Sprintf("unique and foreign keys and indexes are still to be built on %s: wait until the first copy and the stream agree", strings.Join(owed, ", "))}, began)
	return nil
}

// writes looks whether anybody can still write to the source.
func (c *cutting) writes(ctx context.Context) error {
	began := c.env.Clock.Now()
	checks, err := plan.Writers(ctx, c.source)
	if err != nil {
		return errs.New(errs.SourceUnreachable, "look for writers: %w", err)
	}
	var found, fixes []string
	for _, x := range checks {
		if x.Severity == api.SeverityOK {
			continue
		}
		found = append(found, x.Message)
		if x.Fix != "" {
			fixes = append(fixes, x.Fix)
		}
		// Whoever is connected can write behind the last position, and nobody would copy it.
		if x.Severity == api.SeverityFatal || !c.r.Force && slices.Contains([]string{"cut.writers", "cut.prepared", "cut.sessions"}, x.ID) {
			c.report.Ready = false
		}
	}
	s := cutoverStep{Name: "writes", Says: "nobody writes to the source", Done: !c.r.DryRun && c.report.Ready, SQL: strings.Join(fixes, "\n"), Warning: strings.Join(found, "; ")}
	if len(found) > 0 {
		s.Says = "somebody may still write to the source"
	}
	c.step(s, began)
	return nil
}

// still looks again: comparing may have taken long.
func (c *cutting) still(ctx context.Context) error {
	if c.r.DryRun {
		return nil
	}
	return c.writes(ctx)
}

// position waits until the target holds everything that was committed up to now, flushed.
func (c *cutting) position(ctx context.Context) error {
	began := c.env.Clock.Now()
	var text string
	if err := c.source.QueryRow(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text`).Scan(&text); err != nil {
		return errs.New(errs.SourceUnreachable, "read the end of the source's log: %w", err)
	}
	goal, err := pg.ParseLSN(text)
	if err != nil {
		return err
	}
	c.report.Position = goal.String()
	if c.r.DryRun {
		c.step(cutoverStep{Name: "position", Says: fmt.Sprintf("wait until the target holds everything up to %s, now the end of the source's log", goal)}, began)
		return nil
	}
	for {
		at, err := c.stored(ctx)
		if err != nil {
			return err
		}
		if at < goal && c.r.Durable != nil {
			// What the log has behind it may be nobody's: the ledger learns of that at the next heartbeat only.
			at = max(at, c.r.Durable(ctx))
		}
		if at >= goal {
			break
		}
		if err := c.env.Clock.Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	// What was read may be visible only; a commit that waits for the disk makes everything before it durable.
	if _, err := c.target.Exec(ctx, `SET synchronous_commit = on; UPDATE "_weir"."ledger" SET updated_at = now() WHERE false; SELECT txid_current()`); err != nil {
		return errs.New(errs.TargetUnreachable, "flush the target: %w", err)
	}
	c.step(cutoverStep{Name: "position", Says: "the target holds everything up to " + goal.String(), Done: true}, began)
	return nil
}

func (c *cutting) stored(ctx context.Context) (pg.LSN, error) {
	var text string
	err := c.target.QueryRow(ctx, `SELECT convert_from(value, 'UTF8') FROM "_weir"."state" WHERE pipeline = $1 AND key = 'position'
		ORDER BY convert_from(value, 'UTF8')::pg_lsn LIMIT 1`, c.r.Pipeline.ID).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, errs.New(errs.TargetUnreachable, "read the ledger: %w", err)
	}
	return pg.ParseLSN(text)
}

// sequences sets the target's sequences to the source's.
func (c *cutting) sequences(ctx context.Context) error {
	began := c.env.Clock.Now()
	set, notes, err := plan.Sequences(ctx, c.source, c.target, c.plan)
	if err != nil {
		return err
	}
	var sql []string
	for _, st := range set {
		sql = append(sql, st.SQL...)
	}
	again := c.r.Resting != nil
	s := cutoverStep{Name: "sequences", Says: fmt.Sprintf("%d sequences are set", len(set)), SQL: strings.Join(sql, ";\n"), Warning: strings.Join(notes, "; "), Done: !c.r.DryRun}
	c.report.set = settings(sql)
	if again {
		if c.report.set == c.r.Set {
			return nil
		}
		if !c.r.Force {
			return fmt.Errorf("somebody writes to the source: sequences went on since they were set; %w", errWritten)
		}
		s.Says = "sequences went on and are set again: somebody wrote to the source meanwhile"
	}
	if !c.r.DryRun {
		for _, one := range sql {
			if _, err := c.target.Exec(ctx, one); err != nil {
				return errs.New(errs.TargetRejected, "set a sequence: %w", err).WithFix(one + ";")
			}
		}
		s.SQL = ""
	}
	c.step(s, began)
	return nil
}

// settings are the statements that set sequences, without those that make them.
func settings(sql []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(sql), func(s string) bool { return !strings.Contains(s, "pg_catalog.setval(") }), ";\n")
}

// defaults tells which columns applications will find without their default. Whoever asked decides whether they are
// needed: nothing stops for them, and a dry run tells them beforehand.
func (c *cutting) defaults(ctx context.Context) error {
	began := c.env.Clock.Now()
	lacking, err := plan.Defaults(ctx, c.source, c.target, c.plan)
	if err != nil {
		return err
	}
	if len(lacking) == 0 {
		return nil
	}
	var each []string
	for _, l := range lacking {
		each = append(each, fmt.Sprintf("column %s of %s: %s;", pg.Ident(l.Column), l.Table, strings.Join(l.SQL, "; ")))
	}
	c.step(cutoverStep{Name: "defaults", Says: fmt.Sprintf("%d columns lack the source's default on the target", len(lacking)), Warning: strings.Join(each, " ")}, began)
	return nil
}

// unsettled finds what the plan had to make otherwise than the source has it: foreign keys, then names.
func (c *cutting) unsettled(ctx context.Context) (settle []plan.Settling, s cutoverStep, err error) {
	keys, notes, err := plan.ForeignKeys(ctx, c.target, c.plan)
	if err != nil {
		return nil, s, err
	}
	names, err := plan.Names(ctx, c.target, c.plan)
	if err != nil {
		return nil, s, err
	}
	var says []string
	if len(keys) > 0 || len(names) == 0 {
		says = append(says, fmt.Sprintf("%d foreign keys are checked as at the source", len(keys)))
	}
	if len(names) > 0 {
		says = append(says, fmt.Sprintf("%d indexes and sequences have the source's names", len(names)))
	}
	return append(keys, names...), cutoverStep{Name: "keys", Says: strings.Join(says, ", "), Warning: strings.Join(notes, "; ")}, nil
}

// keys looks for foreign keys and names of the target that are not the source's.
func (c *cutting) keys(ctx context.Context) error {
	began := c.env.Clock.Now()
	settle, s, err := c.unsettled(ctx)
	if err != nil {
		return err
	}
	if len(settle) == 0 && s.Warning == "" || len(settle) > 0 && !c.r.DryRun {
		return nil // nothing to do, or done when the mirror rests
	}
	var sql []string
	for _, st := range settle {
		sql = append(sql, st.SQL...)
	}
	s.SQL, s.Done = strings.Join(sql, ";\n"), !c.r.DryRun
	c.step(s, began)
	return nil
}

// settle changes all of that or nothing. Writers are looked for at both ends: to change keys may take long, and what was
// changed is undone when the mirror goes on.
func (c *cutting) settle(ctx context.Context) error {
	if err := c.late(ctx, true); err != nil {
		return err
	}
	if err := c.sequences(ctx); err != nil {
		return err
	}
	began := c.env.Clock.Now()
	settle, s, err := c.unsettled(ctx)
	if err != nil {
		return err
	}
	if len(settle) > 0 {
		if err := c.alter(ctx, settle); err != nil {
			return err
		}
		s.Done = true
		c.step(s, began)
	}
	return c.late(ctx, false)
}

// late looks into the log for transactions that wrote to mirrored tables and that the target does not have, now that the
// mirror rests and nobody will bring them. It reads the mirror's own slot without moving it. With --force the first look
// says that there are some.
func (c *cutting) late(ctx context.Context, first bool) error {
	began := c.env.Clock.Now()
	at, err := c.stored(ctx)
	if err != nil {
		return err
	}
	found, err := plan.Unread(ctx, c.env, c.source, c.r.Slot, c.r.Publication, at, c.plan)
	switch {
	case err != nil:
		return errs.New(errs.SourceStream, "look for late writers in slot %q: %w", c.r.Slot, err)
	case found == 0:
		return nil
	case !c.r.Force:
		return fmt.Errorf("somebody writes to the source: %s committed there behind what the target has; %w", cli.Plural(found, "transaction"), errWritten)
	}
	if first {
		c.step(cutoverStep{Name: "late", Says: "the target does not have everything", Done: true,
			Warning: fmt.Sprintf("%s of the source committed behind what the target has, and will not come any more", cli.Plural(found, "transaction"))}, began)
	}
	return nil
}

func (c *cutting) alter(ctx context.Context, settle []plan.Settling) error {
	failed := func(what string, err error) *errs.Error {
		return errs.New(errs.TargetDDL, "%s: %w", what, err).WithHint("nothing was changed or detached, and the mirror goes on; when the cause is gone, ask again")
	}
	tx, err := c.target.Begin(ctx)
	if err != nil {
		return failed("change foreign keys", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	// Whoever reads a table for long would hold up the mirror, which rests until we are done.
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '30s'"); err != nil {
		return failed("change foreign keys", err)
	}
	var undo []string
	for _, st := range settle {
		undo = append(undo, st.Undo)
	}
	if err := sink.NoteSettled(ctx, tx, c.r.Pipeline.ID, undo, c.r.Resting); err != nil {
		return failed("note what undoes a change of foreign keys", err)
	}
	for _, st := range settle {
		for _, sql := range st.SQL {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return failed("change "+st.What, err).WithDetail("%s", sql)
			}
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return failed("change foreign keys", err)
	}
	return nil
}

// verify compares the two databases row by row.
func (c *cutting) verify(ctx context.Context) error {
	began := c.env.Clock.Now()
	if c.r.DryRun {
		c.step(cutoverStep{Name: "verify", Says: "compare both databases row by row"}, began)
		return nil
	}
	report, err := runVerify(ctx, c.env, verifyRequest{Source: c.r.Source, Target: c.r.Target, Mirror: c.r.Pipeline.Mirror, Running: true})
	if err != nil {
		return err
	}
	s := cutoverStep{Name: "verify", Says: "both databases are equal", Done: report.Equal}
	if !report.Equal {
		c.report.Ready = false
		s.Says, s.Warning = "the databases differ", "weir mirror verify shows the rows"
	}
	c.step(s, began)
	return nil
}
