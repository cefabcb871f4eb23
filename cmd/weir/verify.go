package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/options"
)

func (p *program) verify(ctx context.Context, c *cli.Call) error {
	if p.engines.Verify == nil {
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
	e := p.env(c)
	server, err := p.serverFor(ctx, c, spec)
	if err != nil {
		return err
	}
	if server != nil {
		defer server.Close()
	}
	source, target, err := p.both(ctx, spec, p.store(c, e), server)
	if err != nil {
		return err
	}
	spec.Source, spec.Target = api.Connection{Name: spec.Source.Name}, api.Connection{Name: spec.Target.Name}
	report, err := p.engines.Verify(ctx, e, verifyRequest{Source: source, Target: target, Mirror: spec, Parallelism: c.Int("parallelism"),
		Progress: func(table string, part float64, n int) {
			if c.ErrTerminal && !c.Quiet && c.Human() {
				fmt.Fprintf(c.Err, "\r\x1b[K%s %d%%, %s to come\r", table, int(part*100), cli.Plural(n, "table"))
			}
		}})
	if c.ErrTerminal && !c.Quiet && c.Human() {
		fmt.Fprint(c.Err, "\r\x1b[K")
	}
	if err != nil {
		return err
	}
	if err := printVerify(c, report); err != nil {
		return err
	}
	if !report.Equal {
		return cli.Exit{Code: cli.ExitNo}
	}
	return nil
}

func printVerify(c *cli.Call, r *api.VerifyReport) error {
	if c.Format == cli.FormatCSV || c.Format == cli.FormatName {
		return cli.PrintList(c, verifyList(r.Tables))
	}
	return cli.PrintRecord(c, r, "", func(w io.Writer) {
		l := verifyList(r.Tables)
		t := cli.Table{}
		for _, col := range l.Columns {
			t.Head, t.Right = append(t.Head, col.Head), append(t.Right, col.Right)
		}
		for _, row := range l.Rows {
			var cells []string
			for _, col := range l.Columns {
				cells = append(cells, col.Cell(row))
			}
			t.Rows = append(t.Rows, cells)
		}
		fmt.Fprint(w, t.String())
		for _, tab := range r.Tables {
			if tab.Error != "" {
				fmt.Fprintf(w, "\n%s: %s\n", tab.Source, tab.Error)
			}
			printDiffs(w, tab)
		}
		answer := c.Paint(cli.Good, "equal")
		if !r.Equal {
			answer = c.Paint(cli.Bad, "different")
		}
		fmt.Fprintf(w, "%s: %s, %s rows, %s compared in %s\n", answer, cli.Plural(len(r.Tables), "table"), cli.Count(r.Rows),
			cli.Plural(int(r.Ranges), "range"), cli.Took(r.FinishedAt.Sub(r.StartedAt)))
		for _, tab := range r.Tables {
			for _, n := range tab.Notes {
				fmt.Fprintf(w, "note: %s: %s\n", tab.Source, n)
			}
		}
		for _, n := range r.Notes {
			fmt.Fprintf(w, "note: %s\n", n)
		}
	})
}

func printDiffs(w io.Writer, t api.VerifyTable) {
	if len(t.Diffs) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s → %s\n", t.Source, t.Target)
	for _, d := range t.Diffs {
		var key, cols []string
		for _, k := range d.Key {
			v := k.Source
			if v == nil {
				v = k.Target
			}
			key = append(key, k.Name+"="+text(v))
		}
		for _, col := range d.Columns {
			cols = append(cols, fmt.Sprintf("%s: source %s, target %s", col.Name, text(col.Source), text(col.Target)))
		}
		fmt.Fprintf(w, "  %s %s", d.Kind, strings.Join(key, " "))
		if d.Kind == api.VerifyChanged || len(key) == 0 {
			fmt.Fprintf(w, "  %s", strings.Join(cols, "; "))
		}
		if len(key) == 0 {
			fmt.Fprintf(w, "  source has it %s, target %d", cli.Plural(int(d.SourceCount), "time"), d.TargetCount)
		}
		fmt.Fprintln(w)
	}
	if t.More {
		fmt.Fprintln(w, "  … and more")
	}
}

func text(v *string) string {
	if v == nil {
		return "NULL"
	}
	// What would break the line, or could be taken for something else, is quoted.
	if *v == "" || *v == "NULL" || strings.TrimSpace(*v) != *v || strings.ContainsFunc(*v, unicode.IsControl) {
		return strconv.Quote(*v)
	}
	return *v
}

func verifyList(tables []api.VerifyTable) cli.List[api.VerifyTable] {
	count := func(n int64) string { return fmt.Sprint(n) }
	return cli.List[api.VerifyTable]{
		Rows: tables, Name: func(t api.VerifyTable) string { return t.Source },
		Columns: []cli.Column[api.VerifyTable]{
			{Head: "SOURCE", Cell: func(t api.VerifyTable) string { return t.Source }},
			{Head: "TARGET", Cell: func(t api.VerifyTable) string { return t.Target }},
			{Head: "RESULT", Cell: func(t api.VerifyTable) string {
				switch {
				case t.Error != "":
					return "failed"
				case t.Equal:
					return "equal"
				case t.Differing == 0 && t.Unsettled > 0:
					return "unsettled"
				}
				return "different"
			}},
			{Head: "SOURCE ROWS", Right: true, Cell: func(t api.VerifyTable) string { return count(t.SourceRows) }},
			{Head: "TARGET ROWS", Right: true, Cell: func(t api.VerifyTable) string { return count(t.TargetRows) }},
			{Head: "DIFFERING", Right: true, Cell: func(t api.VerifyTable) string {
				if t.More {
					return "≥" + count(t.Differing)
				}
				return count(t.Differing)
			}, Raw: func(t api.VerifyTable) string { return count(t.Differing) }},
			{Head: "UNSETTLED", Right: true, Cell: func(t api.VerifyTable) string { return count(t.Unsettled) }},
		},
	}
}
