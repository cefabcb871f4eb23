package main

import (
	"context"
	"slices"

	cdcdoctor "github.com/weirstream/weir/cdc/postgres/doctor"
	"github.com/weirstream/weir/cdc/postgres/plan"
	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/cdc/postgres/verify"
	"github.com/weirstream/weir/cmd/weir/mirror"
	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
	sinkdoctor "github.com/weirstream/weir/sinks/postgres/doctor"
)

// examine asks both servers what could stop the mirror. Without a target only the source is asked.
func examine(ctx context.Context, e *env.Env, spec api.MirrorSpec, source, target *pg.Config, installation string) ([]api.Check, error) {
	return examination{env: e, spec: spec, source: source, target: target, installation: installation}.run(ctx)
}

// examination is what is asked about whom.
type examination struct {
	env            *env.Env
	spec           api.MirrorSpec
	source, target *pg.Config
	installation   string
	// itself: the question comes from the pipeline. A slot of its own name that is still active is then read by an earlier
	// start of it that died, whose walsender has not noticed yet.
	itself bool
	begun  bool       // the mirror is there, perhaps at work: it may be the one that reads the slot
	plan   *plan.Plan // nil: one is made
}

// run asks both servers at once; the source's answers come first.
func (x examination) run(ctx context.Context) ([]api.Check, error) {
	sel, err := selection.New(x.spec)
	if err != nil {
		return nil, err
	}
	if x.target == nil {
		return x.ofSource(ctx, sel)
	}
	type answer struct {
		checks []api.Check
		err    error
	}
	answered := make(chan answer, 1)
	x.env.Go("doctor-target", func() {
		checks, err := x.ofTarget(ctx, sel)
		answered <- answer{checks, err}
	})
	checks, err := x.ofSource(ctx, sel)
	target := <-answered
	if err != nil {
		return checks, err
	}
	if _, coded := errs.As(target.err); coded && !x.itself && api.Worst(checks) == api.SeverityFatal {
		target.err = nil // which tables the target needs cannot be told before that is mended
	}
	return append(checks, target.checks...), target.err
}

func (x examination) ofSource(ctx context.Context, sel *selection.Selection) ([]api.Check, error) {
	slot, publication := x.spec.Options["slot.name"], x.spec.Options["publication.name"]
	shared := ""
	known := x.installation != coordinator.NoInstallation
	if known && x.spec.Name != "" { // else nobody can say what they will be called
		slot, publication, _ = mirror.Names(x.spec, x.source.Database(), x.installation)
	}
	if x.spec.Options["slot.name"] == "" && known {
		shared = mirror.SlotName(x.source.Database(), x.installation)
	}
	return cdcdoctor.Check(ctx, x.env, x.source, cdcdoctor.Options{Selection: sel, Slot: slot, Publication: publication, Shared: shared, KeepPublication: x.spec.Options["publication.name"] != "",
		Running: (x.itself || x.begun) && x.spec.Options["slot.name"] == ""})
}

func (x examination) ofTarget(ctx context.Context, sel *selection.Selection) ([]api.Check, error) {
	p := x.plan
	if p == nil {
		var err error
		if p, err = plan.Make(ctx, x.env, plan.Request{Spec: x.spec, Source: x.source, Target: x.target, Judged: true}); err != nil {
			// A target that cannot be reached is a finding of its own doctor. What it says of tables it was not asked.
			more, terr := sinkdoctor.Check(ctx, x.env, x.target, sinkdoctor.Options{})
			if terr != nil {
				return nil, err
			}
			more = slices.DeleteFunc(more, func(c api.Check) bool { return !sinkdoctor.OfServer(c.ID) })
			if api.Worst(more) == api.SeverityFatal {
				err = nil
			}
			return more, err
		}
	}
	o := sinkdoctor.Options{Types: p.Types, Extensions: p.Extensions, Source: p.SourceIdentity, Selected: sel.Includes,
		Copies: x.spec.Options["snapshot.mode"] != "never"}
	for _, t := range p.Tables {
		o.Tables = append(o.Tables, &t.Target)
	}
	return sinkdoctor.Check(ctx, x.env, x.target, o)
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
	x := examination{env: e, spec: r.Mirror, source: source, target: target, installation: coordinator.NoInstallation}
	// A mirror that is to be made has no slot yet that could be judged. That its source is away the checks tell.
	if id := coordinator.ReadInstallation(e.FS, r.State); id != coordinator.NoInstallation {
		if x.begun, _, err = hasBegun(ctx, e, r.Mirror, source, id); x.begun && err == nil {
			x.installation = id
		}
	}
	return x.run(ctx)
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
	p, err := plan.Make(ctx, e, plan.Request{Spec: spec, Source: source, Target: target, Judged: true})
	if err != nil {
		return nil, err
	}
	out := p.API
	out.Slot, out.Publication, _ = mirror.Names(spec, source.Database(), installation)
	began, by, err := hasBegun(ctx, e, spec, source, installation)
	if err != nil {
		return nil, err
	}
	if began {
		out.Notes = append([]string{by + " is there, so this mirror has begun: started again it goes on from where it was. The rest is the plan of a first start"}, out.Notes...)
	}
	if out.Checks, err = (examination{env: e, spec: spec, source: source, target: target, installation: installation, plan: p}).run(ctx); err != nil {
		return nil, err
	}
	if !began {
		mirror.OfFirstStart(out.Checks)
	}
	return &out, nil
}

// hasBegun tells whether a mirror was started before, and by what that is seen: its slot, or, while it shares one, the
// shared slot and the publication of its own.
func hasBegun(ctx context.Context, e *env.Env, spec api.MirrorSpec, source *pg.Config, installation string) (began bool, by string, err error) {
	slot, publication, own := mirror.Names(spec, source.Database(), installation)
	shared := ""
	if own && spec.Options["slot.name"] == "" {
		shared = mirror.SlotName(source.Database(), installation)
	}
	conn, err := pg.ConnectPgx(ctx, e, source, pg.ConnectOptions{AppName: "weir plan"})
	if err != nil {
		return false, "", errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", source.Server(), err).Because(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var there, sharing bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1),
		EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $2) AND EXISTS (SELECT FROM pg_publication WHERE pubname = $3)`,
		slot, shared, publication).Scan(&there, &sharing)
	if there {
		return true, "slot " + slot, err
	}
	return sharing, "publication " + publication, err
}

func runLogin(ctx context.Context, e *env.Env, cfg *pg.Config) error {
	conn, err := pg.ConnectPgx(ctx, e, cfg, pg.ConnectOptions{AppName: "weir login"})
	if err != nil {
		return err
	}
	_ = conn.Close(context.WithoutCancel(ctx)) // it was let in, which is all that was asked
	return nil
}

// unmatched lists the globs that match no table of the source.
func unmatched(ctx context.Context, e *env.Env, sourceURL string, globs []string) ([]string, error) {
	sel, err := selection.New(api.MirrorSpec{Tables: globs})
	if err != nil {
		return nil, err
	}
	names, err := tablesOf(ctx, e, sourceURL)
	if err != nil {
		return nil, err
	}
	return sel.Unmatched(names), nil
}

// mirrored lists the tables of a source that a mirror's patterns take.
func mirrored(ctx context.Context, e *env.Env, sourceURL string, m api.MirrorSpec) ([]pg.TargetName, error) {
	sel, err := selection.New(m)
	if err != nil {
		return nil, err
	}
	names, err := tablesOf(ctx, e, sourceURL)
	if err != nil {
		return nil, err
	}
	var out []pg.TargetName
	for _, t := range names {
		if sel.Includes(t.Schema, t.Name) {
			out = append(out, pg.TargetName{Schema: t.Schema, Name: t.Name})
		}
	}
	return out, nil
}

func tablesOf(ctx context.Context, e *env.Env, sourceURL string) ([]pg.TableName, error) {
	source, err := pg.ParseURL(sourceURL)
	if err != nil {
		return nil, err
	}
	conn, err := pg.ConnectPgx(ctx, e, source, pg.ConnectOptions{AppName: "weir tables"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return pg.ListTables(ctx, conn)
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
