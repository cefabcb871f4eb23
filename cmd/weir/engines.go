package main

import (
	"context"

	cdcdoctor "github.com/weirstream/weir/cdc/postgres/doctor"
	"github.com/weirstream/weir/cdc/postgres/plan"
	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/cdc/postgres/verify"
	"github.com/weirstream/weir/cmd/weir/mirror"
	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/pg"
	sinkdoctor "github.com/weirstream/weir/sinks/postgres/doctor"
)

// examine asks both servers what could stop the mirror. Without a target only the source is asked.
func examine(ctx context.Context, e *env.Env, spec api.MirrorSpec, source, target *pg.Config, installation string) ([]api.Check, error) {
	return examineFor(ctx, e, spec, source, target, installation, false)
}

// examineFor also says that the question comes from the pipeline itself: a slot of its own name that is still active is
// then read by an earlier start of it that died, whose walsender has not noticed yet.
func examineFor(ctx context.Context, e *env.Env, spec api.MirrorSpec, source, target *pg.Config, installation string, itself bool) ([]api.Check, error) {
	sel, err := selection.New(spec)
	if err != nil {
		return nil, err
	}
	slot, publication := spec.Options["slot.name"], spec.Options["publication.name"]
	shared := ""
	known := installation != coordinator.NoInstallation
	if known && spec.Name != "" { // else nobody can say what they will be called
		slot, publication, _ = mirror.Names(spec, source.Database(), installation)
	}
	if spec.Options["slot.name"] == "" && known {
		shared = mirror.SlotName(source.Database(), installation)
	}
	checks, err := cdcdoctor.Check(ctx, e, source, cdcdoctor.Options{Selection: sel, Slot: slot, Publication: publication, Shared: shared,
		Running: itself && spec.Options["slot.name"] == ""})
	if err != nil || target == nil {
		return checks, err
	}
	p, err := plan.Make(ctx, e, plan.Request{Spec: spec, Source: source, Target: target})
	if err != nil {
		// A target that cannot be reached is a finding of its own doctor.
		more, terr := sinkdoctor.Check(ctx, e, target, sinkdoctor.Options{})
		if terr != nil || api.Worst(more) != api.SeverityFatal {
			return checks, err
		}
		return append(checks, more...), nil
	}
	o := sinkdoctor.Options{Types: p.Types, Extensions: p.Extensions, Source: p.SourceIdentity, Selected: sel.Includes,
		Copies: spec.Options["snapshot.mode"] != "never"}
	for _, t := range p.Tables {
		o.Tables = append(o.Tables, &t.Target)
	}
	more, err := sinkdoctor.Check(ctx, e, target, o)
	return append(checks, more...), err
}

func runDoctor(ctx context.Context, e *env.Env, r doctorRequest) ([]api.Check, error) {
	source, err := pg.ParseURL(r.Source)
	if err != nil {
		return nil, err
	}
	var target *pg.Config
	if r.Target != "" {
		if target, err = pg.ParseURL(r.Target); err != nil {
			return nil, err
		}
	}
	return examine(ctx, e, r.Mirror, source, target, coordinator.NoInstallation)
}

func runPlan(ctx context.Context, e *env.Env, r planRequest) (*api.Plan, error) {
	source, err := pg.ParseURL(r.Source)
	if err != nil {
		return nil, err
	}
	target, err := pg.ParseURL(r.Target)
	if err != nil {
		return nil, err
	}
	return planOf(ctx, e, r.Mirror, source, target, coordinator.ReadInstallation(e.FS, r.State))
}

// planOf says what a mirror would do.
func planOf(ctx context.Context, e *env.Env, spec api.MirrorSpec, source, target *pg.Config, installation string) (*api.Plan, error) {
	p, err := plan.Make(ctx, e, plan.Request{Spec: spec, Source: source, Target: target})
	if err != nil {
		return nil, err
	}
	out := p.API
	out.Slot, out.Publication, _ = mirror.Names(spec, source.Database(), installation)
	if out.Checks, err = examine(ctx, e, spec, source, target, installation); err != nil {
		return nil, err
	}
	return &out, nil
}

// unmatched lists the globs that match no table of the source.
func unmatched(ctx context.Context, e *env.Env, sourceURL string, globs []string) ([]string, error) {
	source, err := pg.ParseURL(sourceURL)
	if err != nil {
		return nil, err
	}
	sel, err := selection.New(api.MirrorSpec{Tables: globs})
	if err != nil {
		return nil, err
	}
	conn, err := pg.ConnectPgx(ctx, e, source, pg.ConnectOptions{AppName: "weir tables"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	names, err := pg.ListTables(ctx, conn)
	if err != nil {
		return nil, err
	}
	return sel.Unmatched(names), nil
}

func runVerify(ctx context.Context, e *env.Env, r verifyRequest) (*api.VerifyReport, error) {
	source, err := pg.ParseURL(r.Source)
	if err != nil {
		return nil, err
	}
	target, err := pg.ParseURL(r.Target)
	if err != nil {
		return nil, err
	}
	sel, err := selection.New(r.Mirror)
	if err != nil {
		return nil, err
	}
	return verify.Run(ctx, e, verify.Request{
		Source: source, Target: target, Selection: sel, Check: !r.Running, SoftDelete: r.Mirror.Options["soft.delete.column"], Parallel: r.Parallelism,
	})
}
