package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/errs"
)

// viewRow is a view with the pipeline that keeps it.
type viewRow struct {
	Pipeline string `json:"pipeline"`
	api.View
}

func (p *program) viewsList(ctx context.Context, c *cli.Call) error {
	return p.withClient(c, func(cl client) error {
		return c.Watch(ctx, func(ctx context.Context, c *cli.Call) error {
			pipelines, err := cl.Pipelines(ctx)
			if err != nil {
				return err
			}
			rows := []viewRow{}
			for _, v := range pipelines {
				if v.Status.Query == nil {
					continue
				}
				for _, view := range v.Status.Query.Views {
					rows = append(rows, viewRow{v.Name, view})
				}
			}
			return cli.PrintList(c, cli.List[viewRow]{
				Rows: rows, Name: func(r viewRow) string { return r.Name }, Empty: "no views; CREATE MATERIALIZED VIEW in a file for `weir run` makes one",
				Columns: []cli.Column[viewRow]{
					{Head: "NAME", Cell: func(r viewRow) string { return r.Name }},
					{Head: "KIND", Cell: func(r viewRow) string { return r.Kind }},
					{Head: "PIPELINE", Cell: func(r viewRow) string { return r.Pipeline }},
					{Head: "COLUMNS", Cell: func(r viewRow) string { return columnsText(r.Columns) }},
					{Head: "KEY", Cell: func(r viewRow) string { return join(r.Key) }},
					{Head: "ROWS", Right: true, Cell: func(r viewRow) string { return rowsText(r.Rows) }, Raw: func(r viewRow) string { return fmt.Sprint(r.Rows) }},
				},
			})
		})
	})
}

func columnsText(columns []api.Column) string {
	var out []string
	for _, c := range columns {
		out = append(out, c.Name+" "+c.Type)
	}
	return strings.Join(out, ", ")
}

func rowsText(n int64) string {
	if n < 0 {
		return cli.Unknown
	}
	return cli.Count(n)
}

// statusOf is what a pipeline of queries tells of itself while it runs or after it has finished.
func statusOf(ctx context.Context, cl client, name string) (*api.QueryStatus, error) {
	v, err := cl.Pipeline(ctx, name)
	switch {
	case err != nil:
		return nil, err
	case v.Query == nil:
		return nil, errs.New(errs.PipelineState, "pipeline %s is a mirror: its state is at its target", v.Name).WithHint("weir pipelines get %s", v.Name)
	case v.Status.Query == nil:
		return nil, errs.New(errs.PipelineState, "pipeline %s does not run", v.Name).WithDetail("it is %s", v.Status.Phase).WithHint("weir pipelines resume %s", v.Name)
	}
	return v.Status.Query, nil
}

func (p *program) checkpointsList(ctx context.Context, c *cli.Call) error {
	return p.withClient(c, func(cl client) error {
		return c.Watch(ctx, func(ctx context.Context, c *cli.Call) error {
			q, err := statusOf(ctx, cl, c.Arg(0))
			if err != nil {
				return err
			}
			type row = api.CheckpointInfo
			return cli.PrintList(c, cli.List[row]{
				Rows: q.Checkpoints, Name: func(r row) string { return fmt.Sprint(r.Checkpoint) }, Empty: "no checkpoint yet",
				Columns: []cli.Column[row]{
					{Head: "CHECKPOINT", Right: true, Cell: func(r row) string { return fmt.Sprint(r.Checkpoint) }},
					{Head: "AGE", Right: true, Cell: func(r row) string { return cli.Ago(c.Now(), r.At) }, Raw: func(r row) string { return stamp(r.At) }},
					{Head: "TOOK", Right: true, Cell: func(r row) string { return cli.Took(time.Duration(r.TookMS * float64(time.Millisecond))) }, Raw: func(r row) string { return fmt.Sprint(r.TookMS) }},
					{Head: "BYTES", Right: true, Cell: func(r row) string { return cli.Bytes(r.Bytes) }, Raw: func(r row) string { return fmt.Sprint(r.Bytes) }},
				},
			})
		})
	})
}

func (p *program) stateSize(ctx context.Context, c *cli.Call) error {
	return p.withClient(c, func(cl client) error {
		return c.Watch(ctx, func(ctx context.Context, c *cli.Call) error {
			q, err := statusOf(ctx, cl, c.Arg(0))
			if err != nil {
				return err
			}
			type row = api.StateSize
			return cli.PrintList(c, cli.List[row]{
				Rows: q.States, Name: func(r row) string { return r.Operator }, Empty: "no state; it is looked at with each checkpoint",
				Columns: []cli.Column[row]{
					{Head: "OPERATOR", Cell: func(r row) string { return r.Operator }},
					{Head: "STATE", Cell: func(r row) string { return r.State }},
					{Head: "ENTRIES", Right: true, Cell: func(r row) string { return cli.Count(r.Entries) }, Raw: func(r row) string { return fmt.Sprint(r.Entries) }},
					{Head: "ROWS", Right: true, Cell: func(r row) string { return cli.Count(r.Rows) }, Raw: func(r row) string { return fmt.Sprint(r.Rows) }},
					{Head: "BYTES", Right: true, Cell: func(r row) string { return cli.Bytes(r.Bytes) }, Raw: func(r row) string { return fmt.Sprint(r.Bytes) }},
				},
			})
		})
	})
}
