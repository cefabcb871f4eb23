package main

import (
	"context"
	"fmt"
	"io"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/errs"
)

func (p *program) sourceNames(ctx context.Context, c *cli.Call) []string {
	var names []string
	_ = p.withClient(c, func(cl client) error { // completion has no place to tell an error
		sources, err := cl.Sources(ctx)
		for _, s := range sources {
			names = append(names, s.Name)
		}
		return err
	})
	return names
}

func (p *program) sourcesList(ctx context.Context, c *cli.Call) error {
	return p.withClient(c, func(cl client) error {
		return c.Watch(ctx, func(ctx context.Context, c *cli.Call) error {
			sources, err := cl.Sources(ctx)
			if err != nil {
				return err
			}
			return cli.PrintList(c, sourceList(c, sources))
		})
	})
}

func sourceList(c *cli.Call, sources []api.SourceStatus) cli.List[api.SourceStatus] {
	type source = api.SourceStatus
	return cli.List[source]{
		Rows: sources, Name: func(s source) string { return s.Name }, Empty: "no sources",
		Columns: []cli.Column[source]{
			{Head: "NAME", Cell: func(s source) string { return s.Name }},
			{Head: "PIPELINE", Cell: func(s source) string { return s.Pipeline }},
			{Head: "SERVER", Cell: func(s source) string { return s.Server }},
			{Head: "VERSION", Wide: true, Cell: func(s source) string { return s.ServerVersion }},
			{Head: "SLOT", Cell: func(s source) string { return s.Slot }},
			{Head: "SHARED BY", Cell: sharedBy, Raw: func(s source) string { return join(s.SharedWith) }},
			{Head: "STATE", Cell: func(s source) string { return slotState(c, s) }, Raw: func(s source) string { return s.SlotState }},
			{Head: "LAG", Right: true, Cell: func(s source) string { return cli.Millis(s.LagMS) }, Raw: func(s source) string { return fmt.Sprint(s.LagMS) }},
			{Head: "LAG BYTES", Right: true, Cell: func(s source) string { return cli.Bytes(s.LagBytes) }, Raw: func(s source) string { return fmt.Sprint(s.LagBytes) }},
			{Head: "WAL KEPT", Right: true, Cell: func(s source) string { return cli.Bytes(s.WALRetainedBytes) }, Raw: func(s source) string { return fmt.Sprint(s.WALRetainedBytes) }},
			{Head: "WAL LIMIT", Right: true, Cell: walLimit, Raw: func(s source) string { return fmt.Sprint(s.WALLimitBytes) }},
			{Head: "CONFIRMED", Wide: true, Cell: func(s source) string { return s.ConfirmedLSN }},
			{Head: "CURRENT", Wide: true, Cell: func(s source) string { return s.CurrentLSN }},
			{Head: "AS OF", Cell: func(s source) string { return cli.Ago(c.Now(), s.UpdatedAt) }, Raw: func(s source) string { return stamp(s.UpdatedAt) }},
		},
	}
}

func slotState(c *cli.Call, s api.SourceStatus) string {
	switch {
	case s.SlotState == "":
		return cli.Unknown
	case s.SlotState == "lost" || s.SlotState == "unreserved" || s.SlotState == "missing":
		return c.Paint(cli.Bad, s.SlotState)
	case !s.SlotActive:
		return c.Paint(cli.Warn, "idle")
	}
	return c.Paint(cli.Good, "active")
}

func sharedBy(s api.SourceStatus) string {
	if len(s.SharedWith) == 0 {
		return "nobody"
	}
	return join(s.SharedWith)
}

func walLimit(s api.SourceStatus) string {
	if s.WALLimitBytes < 0 && s.SlotState != "" && s.SlotState != "missing" {
		return "none"
	}
	return cli.Bytes(s.WALLimitBytes)
}

func (p *program) sourcesGet(ctx context.Context, c *cli.Call) error {
	return p.withClient(c, func(cl client) error {
		return c.Watch(ctx, func(ctx context.Context, c *cli.Call) error {
			s, err := cl.Source(ctx, c.Arg(0))
			if err != nil {
				return err
			}
			return cli.PrintRecord(c, s, s.Name, func(w io.Writer) {
				var t cli.Table
				for _, col := range sourceList(c, nil).Columns {
					t.Rows = append(t.Rows, []string{lower(col.Head), col.Cell(s)})
				}
				fmt.Fprint(w, t.String())
			})
		})
	})
}

func (p *program) sourcesRefresh(ctx context.Context, c *cli.Call) error {
	tables, err := globsOf(c.Args)
	if err != nil {
		return err
	}
	return p.withClient(c, func(cl client) error {
		source := c.Text("source")
		if source == "" {
			if source, err = onlySource(ctx, cl); err != nil {
				return err
			}
		}
		if err := c.Confirm(fmt.Sprintf("copies %s of source %s anew; until that is done the target shows their old rows", join(tables), source)); err != nil {
			return err
		}
		if err := cl.RefreshSource(ctx, source, tables); err != nil {
			return err
		}
		if s, err := cl.Source(ctx, source); err == nil {
			if v, err := cl.Pipeline(ctx, s.Pipeline); err == nil && halted(v) != nil {
				c.Note("%s: %s will be copied anew when %s runs again", source, join(tables), v.Name)
				c.Next("weir pipelines resume %s", v.Name)
				return nil
			}
		}
		c.Note("%s: copying %s anew", source, join(tables))
		c.Next("weir pipelines list --watch")
		return nil
	})
}

func onlySource(ctx context.Context, cl client) (string, error) {
	sources, err := cl.Sources(ctx)
	if err != nil {
		return "", err
	}
	if len(sources) == 1 {
		return sources[0].Name, nil
	}
	var names []string
	for _, s := range sources {
		names = append(names, s.Name)
	}
	if len(names) == 0 {
		return "", errs.New(errs.PipelineNotFound, "there is no source")
	}
	return "", errs.New(errs.BadFlag, "there are several sources: %s", join(names)).WithHint("say which with --source NAME")
}
