package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/coordinator"
	rest "github.com/weirstream/weir/coordinator/http"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

func (p *program) pipelineNames(ctx context.Context, c *cli.Call) []string {
	var names []string
	// Completion has no place to tell an error.
	_ = p.withClient(c, func(cl client) error {
		views, err := cl.Pipelines(ctx)
		for _, v := range views {
			names = append(names, v.Name)
		}
		return err
	})
	return names
}

func (p *program) pipelinesList(ctx context.Context, c *cli.Call) error {
	return p.withClient(c, func(cl client) error {
		return c.Watch(ctx, func(ctx context.Context, c *cli.Call) error {
			views, err := cl.Pipelines(ctx)
			if err != nil {
				return err
			}
			return cli.PrintList(c, pipelineList(c, views))
		})
	})
}

func pipelineList(c *cli.Call, views []coordinator.PipelineView) cli.List[coordinator.PipelineView] {
	type view = coordinator.PipelineView
	now := c.Now()
	return cli.List[view]{
		Rows: views, Name: func(v view) string { return v.Name },
		Empty: "no pipelines; `weir run FILE` or `weir mirror SOURCE TARGET` starts one",
		Columns: []cli.Column[view]{
			{Head: "NAME", Cell: func(v view) string { return v.Name }},
			{Head: "PHASE", Cell: func(v view) string { return c.Paint(cli.PhaseStyle(v.Status.Phase), string(v.Status.Phase)) },
				Raw: func(v view) string { return string(v.Status.Phase) }},
			{Head: "SINCE", Cell: func(v view) string { return cli.Ago(now, v.Status.Since) }, Raw: func(v view) string { return stamp(v.Status.Since) }},
			{Head: "TABLES", Right: true, Cell: func(v view) string { return cmp.Or(tablesLive(v.Status), "–") }, Raw: func(v view) string { return tablesLive(v.Status) }},
			{Head: "ROWS/S", Right: true, Cell: func(v view) string { return cli.RowRate(v.Status.RowsPerSec) }, Raw: func(v view) string { return fmt.Sprint(v.Status.RowsPerSec) }},
			{Head: "BYTES/S", Right: true, Wide: true, Cell: func(v view) string { return cli.ByteRate(v.Status.BytesPerSec) }, Raw: func(v view) string { return fmt.Sprint(v.Status.BytesPerSec) }},
			{Head: "LAG", Right: true, Cell: func(v view) string { return cli.Millis(v.Status.LagMS) }, Raw: func(v view) string { return fmt.Sprint(v.Status.LagMS) }},
			{Head: "LAG BYTES", Right: true, Wide: true, Cell: func(v view) string { return cli.Bytes(v.Status.LagBytes) }, Raw: func(v view) string { return fmt.Sprint(v.Status.LagBytes) }},
			{Head: "CHECKPOINT", Right: true, Cell: func(v view) string { return fmt.Sprint(v.Status.Durable) }},
			{Head: "POSITION", Wide: true, Cell: func(v view) string { return v.Status.Position }},
			{Head: "AS OF", Wide: true, Cell: func(v view) string { return cli.Ago(now, v.Status.UpdatedAt) }, Raw: func(v view) string { return stamp(v.Status.UpdatedAt) }},
			{Head: "CAUSE", Cell: func(v view) string {
				if v.Status.Error == nil {
					return ""
				}
				return v.Status.Error.Code + " " + v.Status.Error.Message
			}},
		},
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// tablesLive is how many tables of how many are live; "" for a pipeline that does not run, of which nobody knows.
func tablesLive(st api.PipelineStatus) string {
	if len(st.Tables) == 0 {
		return ""
	}
	n := 0
	for _, t := range st.Tables {
		if t.Phase == api.PhaseLive {
			n++
		}
	}
	return fmt.Sprintf("%d/%d", n, len(st.Tables))
}

func (p *program) pipelinesGet(ctx context.Context, c *cli.Call) error {
	return p.withClient(c, func(cl client) error {
		return c.Watch(ctx, func(ctx context.Context, c *cli.Call) error {
			v, err := cl.Pipeline(ctx, c.Arg(0))
			if err != nil {
				return err
			}
			return cli.PrintRecord(c, v, v.Name, func(w io.Writer) { printPipeline(w, c, v) })
		})
	})
}

func printPipeline(w io.Writer, c *cli.Call, v coordinator.PipelineView) {
	width := 0
	if c.OutTerminal && c.Width != nil {
		width = c.Width()
	}
	if width == 0 {
		width = 140
	}
	show := cli.Progress{Name: v.Name, Status: v.Status, Now: c.Now(), Width: width, Colour: c.OutTerminal && c.Colour(), Once: true}
	if c.Format == cli.FormatWide {
		show.MaxTables = len(v.Status.Tables)
	}
	for _, line := range show.Block() {
		fmt.Fprintln(w, line)
	}
	if v.Query != nil {
		printQuery(w, c, v)
		return
	}
	t := cli.Table{Rows: [][]string{
		{"source", endpointName(v.Mirror.Source)}, {"target", endpointName(v.Mirror.Target)}, {"tables", join(v.Mirror.Tables)},
	}}
	add := func(name string, values []string) {
		if len(values) > 0 {
			t.Rows = append(t.Rows, []string{name, join(values)})
		}
	}
	add("except", v.Mirror.Except)
	var routes, filters []string
	for _, r := range v.Mirror.Routes {
		routes = append(routes, r.From+" → "+r.To)
	}
	for _, f := range v.Mirror.Filters {
		filters = append(filters, f.Table+": "+f.Where)
	}
	add("routes", routes)
	add("without columns", v.Mirror.Exclude)
	add("filters", filters)
	for _, key := range sortedKeys(v.Mirror.Options) {
		t.Rows = append(t.Rows, []string{key, v.Mirror.Options[key]})
	}
	t.Rows = append(t.Rows, []string{"wanted", string(v.Desired)}, []string{"created", cli.Ago(c.Now(), v.CreatedAt)},
		[]string{"generation", fmt.Sprint(v.Generation)}, []string{"id", v.ID})
	fmt.Fprintf(w, "\n%s", t.String())
}

// printQuery tells of a pipeline of queries: its sources, sinks and views, and what it was made of.
func printQuery(w io.Writer, c *cli.Call, v coordinator.PipelineView) {
	if q := v.Status.Query; q != nil {
		flows := func(what string, flows []api.Flow) {
			t := cli.Table{Head: []string{"  " + what, "CONNECTOR", "ROWS", "RATE"}, Right: []bool{false, false, true, true}}
			for _, f := range flows {
				t.Rows = append(t.Rows, []string{"  " + f.Name, f.Connector, cli.Count(f.Rows), cli.RowRate(f.RowsPerSec)})
			}
			if len(flows) > 0 {
				fmt.Fprint(w, "\n", t.String())
			}
		}
		flows("SOURCE", q.Sources)
		flows("SINK", q.Sinks)
		t := cli.Table{Head: []string{"  VIEW", "KIND", "COLUMNS", "KEY", "ROWS"}, Right: []bool{false, false, false, false, true}}
		for _, view := range q.Views {
			t.Rows = append(t.Rows, []string{"  " + view.Name, view.Kind, columnsText(view.Columns), join(view.Key), rowsText(view.Rows)})
		}
		if len(q.Views) > 0 {
			fmt.Fprint(w, "\n", t.String())
		}
	}
	t := cli.Table{Rows: [][]string{{"file", v.Query.File}, {"directory", v.Query.Dir}}}
	for _, key := range sortedKeys(v.Query.Options) {
		t.Rows = append(t.Rows, []string{key, v.Query.Options[key]})
	}
	t.Rows = append(t.Rows, []string{"wanted", string(v.Desired)}, []string{"created", cli.Ago(c.Now(), v.CreatedAt)},
		[]string{"generation", fmt.Sprint(v.Generation)}, []string{"id", v.ID})
	fmt.Fprintf(w, "\n%s", t.String())
}

func endpointName(conn api.Connection) string {
	if conn.Name != "" && conn.URL != "" {
		return conn.Name + "  " + conn.URL
	}
	return conn.Name + conn.URL
}

// act runs a change of one pipeline and, with --wait, waits for its phase.
func (p *program) act(ctx context.Context, c *cli.Call, done string, change func(client) (coordinator.PipelineView, error), phases ...api.Phase) error {
	return p.withClient(c, func(cl client) error {
		v, err := change(cl)
		if err != nil {
			return err
		}
		if c.Bool("wait") {
			wait, cancel := c.Waiting(ctx)
			defer cancel()
			id := v.ID
			if v, err = p.await(wait, c, cl, id, phases); err != nil {
				return waited(ctx, cl, id, cli.Waited(wait, err))
			}
		}
		return cli.PrintRecord(c, v, v.Name, func(w io.Writer) {
			if !c.Quiet {
				fmt.Fprintf(w, "%s %s\n", v.Name, done)
			}
		})
	})
}

// waited adds to the end of a wait in vain what the pipeline has been failing with.
func waited(ctx context.Context, cl client, id string, err error) error {
	if _, coded := errs.As(err); coded || ctx.Err() != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	v, verr := cl.Pipeline(ctx, id)
	if verr != nil || v.Status.Error == nil {
		return err
	}
	last := v.Status.Error
	return errs.New(errs.NotCaughtUp, "%w", err).WithDetail("%s (%s)", last.Message, last.Code).WithHint("%s", last.Hint)
}

const askPeriod = 200 * time.Millisecond

func (p *program) await(ctx context.Context, c *cli.Call, cl client, name string, phases []api.Phase) (coordinator.PipelineView, error) {
	for {
		v, err := cl.Pipeline(ctx, name)
		if err != nil {
			return v, err
		}
		for _, ph := range phases {
			if v.Status.Phase == ph {
				return v, nil
			}
		}
		if v.Status.Phase == api.PhaseFailed && v.Status.Error != nil {
			return v, recordOf(v.Status.Error)
		}
		if err := c.Sleep(ctx, askPeriod); err != nil {
			return v, err
		}
	}
}

func (p *program) pipelinesPause(ctx context.Context, c *cli.Call) error {
	return p.act(ctx, c, "pauses", func(cl client) (coordinator.PipelineView, error) { return cl.Pause(ctx, c.Arg(0)) }, api.PhasePaused, api.PhaseStopped)
}

func (p *program) pipelinesResume(ctx context.Context, c *cli.Call) error {
	return p.act(ctx, c, "resumes", func(cl client) (coordinator.PipelineView, error) { return cl.Resume(ctx, c.Arg(0)) },
		api.PhaseCopy, api.PhaseCatchUp, api.PhaseLive, api.PhaseFinished)
}

func (p *program) pipelinesDelete(ctx context.Context, c *cli.Call) error {
	return p.withClient(c, func(cl client) error {
		v, err := cl.Pipeline(ctx, c.Arg(0))
		if err != nil {
			return err
		}
		effect := fmt.Sprintf("deletes pipeline %s with its state and checkpoints; what it has written stays", v.Name)
		if v.Query == nil {
			effect = fmt.Sprintf("deletes pipeline %s, its %s and its ledger on the target; the target's tables stay", v.Name, slotOf(ctx, cl, v))
		}
		if c.Bool("dry-run") {
			return cli.PrintRecord(c, v.Pipeline, v.Name, func(w io.Writer) { fmt.Fprintln(w, effect) })
		}
		if err := c.Confirm(effect); err != nil {
			return err
		}
		wait, cancel := ctx, context.CancelFunc(func() {})
		if c.Bool("wait") {
			wait, cancel = c.Waiting(ctx)
		}
		defer cancel()
		if err := cl.Delete(wait, v.ID, rest.DeleteOptions{Force: c.Bool("force"), Wait: c.Bool("wait")}); err != nil {
			return waited(ctx, cl, v.ID, cli.Waited(wait, err))
		}
		tellPasswords(ctx, c, cl, v)
		return cli.PrintRecord(c, v.Pipeline, v.Name, func(w io.Writer) {
			if !c.Quiet {
				fmt.Fprintf(w, "%s deleted\n", v.Name)
			}
		})
	})
}

// tellPasswords names the secrets that only a pipeline used which is deleted. They stay: who gave its URLs may give them
// again at this moment.
func tellPasswords(ctx context.Context, c *cli.Call, cl client, gone coordinator.PipelineView) {
	views, err := cl.Pipelines(ctx)
	if err != nil {
		return
	}
	names := secretsIn(gone.Pipeline)
	for _, v := range views {
		if v.ID != gone.ID {
			names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(secretsIn(v.Pipeline), n) })
		}
	}
	slices.Sort(names)
	var lines []string
	for _, n := range slices.Compact(names) {
		lines = append(lines, "weir secrets delete "+n)
	}
	if len(lines) > 0 {
		c.Note("the passwords that only it used stay in the secrets; to remove them: %s", strings.Join(lines, "; "))
	}
}

// slotOf names the pipeline's slot, if its source says in time which it is.
func slotOf(ctx context.Context, cl client, v coordinator.PipelineView) string {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	s, err := cl.Source(ctx, v.Name)
	switch {
	case err != nil || s.Slot == "" || s.SlotState == "missing":
		return "replication slot"
	case len(s.SharedWith) > 0:
		return fmt.Sprintf("place in the shared slot %s", s.Slot)
	}
	return "replication slot " + s.Slot
}

func (p *program) tablesAdd(ctx context.Context, c *cli.Call) error {
	tables, err := globsOf(c.Args[1:])
	if err != nil {
		return err
	}
	return p.act(ctx, c, "adds "+join(tables), func(cl client) (coordinator.PipelineView, error) {
		v, err := cl.Update(ctx, c.Arg(0), coordinator.Change{AddTables: tables})
		if err == nil {
			p.noteUnmatched(ctx, c, cl, v.Mirror, tables)
		}
		return v, err
	})
}

func (p *program) tablesRemove(ctx context.Context, c *cli.Call) error {
	tables, err := globsOf(c.Args[1:])
	if err != nil {
		return err
	}
	if err := p.withClient(c, func(cl client) error { return p.checkMirrored(ctx, c, cl, tables) }); err != nil {
		return err
	}
	if err := c.Confirm(fmt.Sprintf("stops mirroring %s in pipeline %s; to mirror them again they are copied anew", join(tables), c.Arg(0))); err != nil {
		return err
	}
	return p.act(ctx, c, "removes "+join(tables), func(cl client) (coordinator.PipelineView, error) {
		v, err := cl.Update(ctx, c.Arg(0), coordinator.Change{RemoveTables: tables})
		if err == nil {
			p.noteUnmatched(ctx, c, cl, v.Mirror, tables)
		}
		return v, err
	})
}

// checkMirrored refuses the name of a table that the pipeline neither has nor would take, as a misspelt one is. A glob may
// be about tables that are made later, and what the definition says literally can be taken back. Without the source's
// answer nothing is refused.
func (p *program) checkMirrored(ctx context.Context, c *cli.Call, cl client, globs []string) error {
	v, err := cl.Pipeline(ctx, c.Arg(0))
	if err != nil || p.engines.Mirrored == nil {
		return err
	}
	said := append(split(v.Mirror.Tables), split(v.Mirror.Except)...)
	globs = slices.DeleteFunc(slices.Clone(globs), func(glob string) bool {
		return len(literals(glob)) == 0 || slices.Contains(said, glob)
	})
	if len(globs) == 0 {
		return nil
	}
	e := p.env(c)
	source, err := complete(ctx, v.Mirror.Source, p.store(c, e), cl)
	if err != nil {
		return nil
	}
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tables, err := p.engines.Mirrored(short, e, source, v.Mirror)
	if err != nil {
		return ctx.Err()
	}
	for _, t := range v.Status.Tables { // the source may have dropped some that the mirror keeps
		for _, l := range literals(t.Source) {
			tables = append(tables, pg.TargetName{Schema: l.schema, Name: l.name})
		}
	}
	_, err = selection.Find(globs, tables)
	return err
}

// noteUnmatched tells which globs are about no table yet, as a misspelt one is. Without the source's answer it says
// nothing: the change is made either way, and holds for tables that are made later.
func (p *program) noteUnmatched(ctx context.Context, c *cli.Call, cl client, m api.MirrorSpec, globs []string) {
	if p.engines.Unmatched == nil {
		return
	}
	e := p.env(c)
	source, err := complete(ctx, m.Source, p.store(c, e), cl)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	none, err := p.engines.Unmatched(ctx, e, source, globs)
	if err != nil {
		return
	}
	for _, glob := range none {
		c.Note("note: %s matches no table of the source; it only holds for tables that are made later", glob)
	}
}

func globsOf(args []string) ([]string, error) {
	tables := split(args)
	for _, t := range tables {
		if err := checkGlob(t, 2); err != nil {
			return nil, err
		}
	}
	return tables, nil
}
