package main

import (
	"context"
	"fmt"
	"io"
	"time"

	rest "github.com/weirstream/weir/coordinator/http"
	"github.com/weirstream/weir/internal/cli"
)

func (p *program) cutover(ctx context.Context, c *cli.Call) error {
	if p.engines.Cutover == nil {
		return notBuilt(c)
	}
	return p.withClient(c, func(cl client) error {
		v, err := cl.Pipeline(ctx, c.Arg(0))
		if err != nil {
			return err
		}
		e := p.env(c)
		source, target, err := p.both(ctx, v.Mirror, p.store(c, e), cl)
		if err != nil {
			return err
		}
		dry := c.Bool("dry-run")
		if !dry {
			if err := c.Confirm(fmt.Sprintf("cutover makes the target of %s writable for applications and ends the mirror; writes to the source after that are not copied", v.Name)); err != nil {
				return err
			}
		}
		wait, cancel := c.Waiting(ctx)
		defer cancel()
		report, err := p.engines.Cutover(wait, e, cutoverRequest{Source: source, Target: target, Pipeline: v.Pipeline, DryRun: dry, Force: c.Bool("force"),
			Progress: func(s cutoverStep) { c.Note("%s", stepLine(c, s)) }})
		if err != nil {
			return cli.Waited(wait, err)
		}
		if report.Ready && !dry {
			if err := cl.Delete(wait, v.Name, rest.DeleteOptions{Wait: true}); err != nil {
				return cli.Waited(wait, err)
			}
			report.Steps[len(report.Steps)-1].Done = true
			c.Note("%s", stepLine(c, report.Steps[len(report.Steps)-1]))
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
			return cli.No("the target is not ready: " + notReady(report.Steps[len(report.Steps)-1], c.Bool("force")))
		}
		return err
	})
}

// notReady says what stood in the way, which is the last step, and whether anything helps.
func notReady(s cutoverStep, forced bool) string {
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
