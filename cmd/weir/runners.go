package main

import (
	"context"

	"github.com/weirstream/weir/cmd/weir/mirror"
	"github.com/weirstream/weir/cmd/weir/query"
	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
)

// runners gives each pipeline to the runner of its kind.
type runners struct {
	mirrors *mirror.Runner
	queries *query.Runner
}

func (r runners) of(p api.Pipeline) coordinator.Runner {
	if p.Query != nil {
		return r.queries
	}
	return r.mirrors
}

// Start implements coordinator.Runner.
func (r runners) Start(ctx context.Context, p api.Pipeline, gen dataflow.Generation) (coordinator.Running, error) {
	return r.of(p).Start(ctx, p, gen)
}

// Remove implements coordinator.Runner.
func (r runners) Remove(ctx context.Context, p api.Pipeline) error { return r.of(p).Remove(ctx, p) }

// ProbeSource implements coordinator.SourceProber.
func (r runners) ProbeSource(ctx context.Context, p api.Pipeline) (api.SourceStatus, error) {
	if p.Query != nil {
		return api.SourceStatus{}, errs.New(errs.PipelineState, "pipeline %s is no mirror", p.Name)
	}
	return r.mirrors.ProbeSource(ctx, p)
}

// CommandLater implements coordinator.LaterCommander.
func (r runners) CommandLater(ctx context.Context, p api.Pipeline, c api.Command, resting func() error) error {
	if p.Query != nil {
		return errs.New(errs.PipelineState, "pipeline %s is no mirror", p.Name)
	}
	return r.mirrors.CommandLater(ctx, p, c, resting)
}
