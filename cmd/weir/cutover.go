package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weirstream/weir/coordinator"
	rest "github.com/weirstream/weir/coordinator/http"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

func (p *program) cutover(ctx context.Context, c *cli.Call) error {
	if p.engines.Cutover == nil {
		return notBuilt(c)
	}
	return p.withClient(c, func(cl client) (err error) {
		v, err := cl.Pipeline(ctx, c.Arg(0))
		if err != nil {
			return err
		}
		if v.Query != nil {
			return errs.New(errs.PipelineState, "pipeline %s is no mirror", v.Name)
		}
		e := p.env(c)
		source, target, err := p.both(ctx, v.Mirror, p.store(c, e), cl)
		if err != nil {
			return err
		}
		if err := halted(v); err != nil {
			return err
		}
		dry := c.Bool("dry-run")
		if !dry {
			if err := c.Confirm(fmt.Sprintf("cutover makes the target of %s writable for applications and ends the mirror; writes to the source after that are not copied", v.Name)); err != nil {
				return err
			}
		}
		if !dry {
			defer func() { err = goneMeanwhile(err, v.Name) }()
		}
		wait, cancel := c.Waiting(ctx)
		defer cancel()
		r := cutoverRequest{Source: source, Target: target, Pipeline: v.Pipeline, DryRun: dry, Force: c.Bool("force"),
			Progress: func(s cutoverStep) { c.Note("%s", stepLine(c, s)) },
			Durable: func(ctx context.Context) pg.LSN {
				now, err := cl.Pipeline(ctx, v.Name)
				if err != nil {
					return 0 // whoever watches the pipeline says so
				}
				at, err := pg.ParseLSN(now.Status.DurablePosition)
				if err != nil {
					return 0
				}
				return at
			}}
		if at, err := cl.Source(ctx, v.Name); err == nil {
			r.Publication = at.Publication
		}
		var report *cutoverReport
		err = whileRunning(wait, e, cl, v, func(ctx context.Context) (err error) {
			report, err = p.engines.Cutover(ctx, e, r)
			return err
		})
		if err != nil {
			return cli.Waited(wait, err)
		}
		if report.Ready && !dry {
			r.Set = report.set
			steps, err := p.settle(wait, c, e, cl, r)
			if errors.Is(err, errWritten) {
				return cli.No("the target is not ready: " + err.Error())
			}
			if err != nil {
				return cli.Waited(wait, err)
			}
			report.Steps = append(report.Steps, steps...)
			if err := cl.Delete(wait, v.Name, rest.DeleteOptions{Wait: true}); err != nil {
				return cli.Waited(wait, err)
			}
			step := detached
			step.Done = true
			report.Steps = append(report.Steps, step)
			c.Note("%s", stepLine(c, step))
			tellPasswords(ctx, c, cl, v)
		}
		err = cli.PrintRecord(c, report, report.Pipeline, func(w io.Writer) {
			if !dry && !report.Ready {
				return // the error says so
			}
			if !dry {
				fmt.Fprintf(w, "%s: the target holds everything up to %s and can take over\n", report.Pipeline, report.Position)
				return
			}
			for i, s := range report.Steps {
				fmt.Fprintf(w, "%d. %s\n", i+1, stepLine(c, s))
				if s.SQL != "" {
					fmt.Fprintf(w, "   %s\n", indentMore(s.SQL))
				}
			}
		})
		if err == nil && !report.Ready {
			return cli.No("the target is not ready: " + notReady(report.Steps, c.Bool("force")))
		}
		return err
	})
}

// goneMeanwhile says what has become of a cut-over whose server ended in the middle of it.
func goneMeanwhile(err error, pipeline string) error {
	var away *errs.Error
	if !errs.Is(err, errs.NotReachable) || !errors.As(err, &away) {
		return err
	}
	e := *away
	e.Hint = fmt.Sprintf("when it runs again (weir server), weir pipelines get %s shows whether the cut-over got through, for then the pipeline is gone; if it is there, ask for the cut-over again", pipeline)
	return &e
}

// settle pauses the pipeline and has the sequences set for good, and foreign keys and names settled. If that fails the
// pipeline goes on.
func (p *program) settle(ctx context.Context, c *cli.Call, e *env.Env, cl client, r cutoverRequest) (steps []cutoverStep, err error) {
	name := r.Pipeline.Name
	if _, err := cl.Pause(ctx, name); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			if _, rerr := cl.Resume(context.WithoutCancel(ctx), name); rerr != nil {
				err = errors.Join(err, fmt.Errorf("resume %s: %w", name, rerr))
			}
		}
	}()
	if _, err := p.await(ctx, c, cl, name, []api.Phase{api.PhasePaused, api.PhaseStopped}); err != nil {
		return nil, err
	}
	r.Resting = func(ctx context.Context) error {
		v, err := cl.Pipeline(ctx, name)
		if err == nil && v.Desired != api.WantPaused {
			err = errs.New(errs.PipelineState, "pipeline %s was resumed meanwhile", name)
		}
		return err
	}
	at, err := cl.Source(ctx, name)
	if err != nil {
		return nil, err
	}
	if at.Slot == "" {
		return nil, errs.New(errs.SourceUnreachable, "the source of %s does not tell where its slot stands", name)
	}
	r.Slot, r.Publication = at.Slot, at.Publication
	return p.engines.Settle(ctx, e, r)
}

// errWorkDone ends the watch of whileRunning.
var errWorkDone = errors.New("the work is done")

// whileRunning does the work as long as the pipeline runs: work that waits for the target's position would wait for a
// pipeline that has failed until its time is up.
func whileRunning(ctx context.Context, e *env.Env, cl client, v coordinator.PipelineView, work func(context.Context) error) error {
	g, watched := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := work(watched); err != nil {
			return err
		}
		return errWorkDone
	})
	g.Go(func() error {
		away := 0
		for {
			if err := e.Clock.Sleep(watched, watchPipeline); err != nil {
				return nil
			}
			now, err := cl.Pipeline(watched, v.Name)
			switch {
			case watched.Err() != nil:
				return nil
			case err == nil:
				away = 0
				if err := halted(now); err != nil {
					return err
				}
			case errs.Is(err, errs.PipelineNotFound):
				return err
			default: // it may be starting again
				if away++; away == awayLooks {
					return err
				}
			}
		}
	})
	if err := g.Wait(); err != errWorkDone {
		return err
	}
	return nil
}

const (
	watchPipeline = 500 * time.Millisecond
	awayLooks     = 20 // that find no server in a row
)

// halted is the refusal to wait for a pipeline that makes no progress.
func halted(v coordinator.PipelineView) error {
	switch {
	case v.Desired == api.WantPaused || v.Status.Phase == api.PhasePaused:
		return cli.Refused(errs.New(errs.PipelineState, "pipeline %s is paused, so its target stands still", v.Name).
			WithHint("weir pipelines resume %s, then ask again; a cut-over that was killed leaves its mirror paused", v.Name))
	case v.Status.Phase == api.PhaseFailed:
		e, before := errs.New(errs.PipelineState, "pipeline %s has failed", v.Name), "when the cause is gone"
		if i := v.Status.Error; i != nil {
			e = &errs.Error{Code: errs.Code(i.Code), Message: fmt.Sprintf("pipeline %s has failed: %s", v.Name, i.Message), Detail: i.Detail, Fix: i.Fix}
			before = cmp.Or(i.Hint, before)
		}
		if e.Code == errs.SlotLost || e.Code == errs.SlotGap {
			return cli.Refused(e.WithHint("%s", before)) // to resume it helps nothing
		}
		return cli.Refused(e.WithHint("%s; then weir pipelines resume %s, if need be after weir sources refresh TABLE, and ask again", before, v.Name))
	}
	return nil
}

// notReady says what stood in the way, and whether anything helps. A cut-over ends with that; a dry run goes on.
func notReady(steps []cutoverStep, forced bool) string {
	s := steps[len(steps)-1]
	for _, x := range steps {
		if x.Name == "verify" && x.Warning != "" { // --force does not pass over that
			return x.Says + "; weir mirror verify shows the rows, and weir sources refresh TABLE copies a table anew"
		}
	}
	for _, x := range steps {
		if x.Warning != "" && (x.Name == "built" || x.Name == "writes") {
			s = x
			break
		}
	}
	if s.Name == "writes" && !forced {
		return s.Says + "; --force goes on all the same, unless a check is fatal"
	}
	return s.Says + ", see the warning above"
}

func stepLine(c *cli.Call, s cutoverStep) string {
	line := s.Name + ": " + s.Says
	if s.Done {
		line = c.Paint(cli.Good, "✓") + " " + line
		if s.TookMS > 0 {
			line += "  " + cli.Took(time.Duration(s.TookMS)*time.Millisecond)
		}
	}
	if s.Warning != "" {
		line += "  " + c.Paint(cli.Warn, "! "+s.Warning)
	}
	return line
}
