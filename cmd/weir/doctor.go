package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/options"
)

func (p *program) doctor(ctx context.Context, c *cli.Call) error {
	if p.engines.Doctor == nil {
		return notBuilt(c)
	}
	spec, err := specFromFlags(c, c.Arg(0), c.Arg(1))
	if err != nil {
		return err
	}
	set, err := p.options(c)
	if err != nil {
		return err
	}
	spec.Options = set.Stored(options.Pipeline)
	if c.Arg(1) == "" {
		spec.Target = api.Connection{}
	}
	e := p.env(c)
	store := p.store(c, e)
	server, err := p.serverFor(ctx, c, spec)
	if err != nil {
		return err
	}
	if server != nil {
		defer server.Close()
	}
	source, target, err := p.both(ctx, spec, store, server)
	if err != nil {
		return err
	}
	if spec.Name == "" {
		spec.Name = mirrorName(spec, store)
	}
	spec.Source, spec.Target = api.Connection{Name: spec.Source.Name}, api.Connection{Name: spec.Target.Name}
	checks, err := p.engines.Doctor(ctx, e, doctorRequest{Source: source, Target: target, Mirror: spec, State: state(c)})
	if err != nil {
		return err
	}
	if c.Human() {
		printChecks(c.Out, c, checks, true)
	} else if err := cli.PrintList(c, checkList(checks)); err != nil {
		return err
	}
	if api.Worst(checks) != api.SeverityFatal {
		return nil
	}
	for _, check := range checks { // a database that is away is not a finding about it
		if check.Severity == api.SeverityFatal && (check.Code == string(errs.SourceUnreachable) || check.Code == string(errs.TargetUnreachable)) {
			return cli.Exit{Code: cli.ExitUnreachable}
		}
	}
	return cli.Exit{Code: cli.ExitRejected}
}

// serverFor asks a running server only when a connection is given by its name.
func (p *program) serverFor(ctx context.Context, c *cli.Call, spec api.MirrorSpec) (client, error) {
	if spec.Source.Name == "" && spec.Target.Name == "" {
		return nil, nil
	}
	return p.running(ctx, c, p.env(c))
}

func checkList(checks []api.Check) cli.List[api.Check] {
	return cli.List[api.Check]{
		Rows: checks,
		Name: func(k api.Check) string { return k.ID },
		Columns: []cli.Column[api.Check]{
			{Head: "SEVERITY", Cell: func(k api.Check) string { return string(k.Severity) }},
			{Head: "SIDE", Cell: func(k api.Check) string { return k.Side }},
			{Head: "ID", Cell: func(k api.Check) string { return k.ID }},
			{Head: "CODE", Cell: func(k api.Check) string { return k.Code }},
			{Head: "OBJECT", Cell: func(k api.Check) string { return k.Object }},
			{Head: "MESSAGE", Cell: func(k api.Check) string { return k.Message }},
			{Head: "FIX", Cell: func(k api.Check) string { return k.Fix }},
		},
	}
}

// printChecks shows findings by side, and their repair below. Passing checks are counted, or listed with all.
func printChecks(w io.Writer, c *cli.Call, checks []api.Check, all bool) {
	count := map[api.Severity]int{}
	side := ""
	for _, k := range checks {
		count[k.Severity]++
		if k.Severity == api.SeverityOK && !all {
			continue
		}
		if k.Side != side {
			side = k.Side
			fmt.Fprintf(w, "%s\n", side)
		}
		mark, style := "✓", cli.Good
		switch k.Severity {
		case api.SeverityWarning:
			mark, style = "!", cli.Warn
		case api.SeverityFatal:
			mark, style = "✗", cli.Bad
		}
		fmt.Fprintf(w, "  %s %s", c.Paint(style, mark), k.ID)
		if k.Code != "" {
			fmt.Fprintf(w, " [%s]", k.Code)
		}
		if k.Object != "" {
			fmt.Fprintf(w, " %s", k.Object)
		}
		fmt.Fprintf(w, ": %s\n", k.Message)
		if k.Fix != "" {
			fmt.Fprintf(w, "      → %s\n", strings.ReplaceAll(k.Fix, "\n", "\n        "))
		}
	}
	fmt.Fprintf(w, "%d ok · %s · %d fatal\n", count[api.SeverityOK], cli.Plural(count[api.SeverityWarning], "warning"), count[api.SeverityFatal])
}

func indentMore(sql string) string { return strings.ReplaceAll(sql, "\n", "\n    ") }
