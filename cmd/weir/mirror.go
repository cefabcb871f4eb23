package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/weirstream/weir/coordinator"
	rest "github.com/weirstream/weir/coordinator/http"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/options"
	"github.com/weirstream/weir/internal/pg"
	"github.com/weirstream/weir/internal/secrets"
)

func (p *program) mirror(ctx context.Context, c *cli.Call) error {
	spec, err := specFromFlags(c, c.Arg(0), c.Arg(1))
	if err != nil {
		return err
	}
	set, err := p.options(c)
	if err != nil {
		return err
	}
	spec.Options = set.Stored(options.Pipeline)
	return p.start(ctx, c, definitions{mirrors: []api.MirrorSpec{spec}}, set)
}

// start plans pipelines, or runs them: in a server that is already there, or in this process.
func (p *program) start(ctx context.Context, c *cli.Call, d definitions, set options.Set) error {
	specs := d.mirrors
	if len(d.queries) > 0 && c.Bool("until-caught-up") {
		return errs.New(errs.NotBuiltYet, "--until-caught-up is about mirrors, and the file has queries").
			WithHint("a pipeline whose sources end by themselves ends with them, and then so does weir run")
	}
	e := p.env(c)
	store := p.store(c, e)
	server, err := p.running(ctx, c, e)
	if err != nil {
		return err
	}
	if server != nil {
		defer server.Close()
	}
	for i := range specs {
		if specs[i].Name == "" {
			specs[i].Name = mirrorName(specs[i], store)
		}
		if err := coordinator.CheckName(specs[i].Name); err != nil {
			return err
		}
	}
	if c.Bool("dry-run") {
		for _, q := range d.queries {
			if err := q.explain(c); err != nil {
				return err
			}
		}
		if len(specs) == 0 {
			return nil
		}
		return p.plan(ctx, c, e, specs, store, server)
	}
	here := server == nil || addr(c) == ""
	if server != nil && addr(c) == "" {
		if err := handOver(c, e); err != nil {
			return err
		}
	}
	// A server elsewhere has a secret store of its own and seals what it is given. Here nothing may leave unsealed, and of
	// what is refused nothing stays.
	var was before
	if here {
		for _, spec := range specs {
			if _, _, err := p.both(ctx, spec, store, server); err != nil {
				return err
			}
		}
		if was, err = beforeSealing(ctx, specs, store, secrets.Open(e, secrets.Options{Getenv: c.Getenv})); err != nil {
			return err
		}
		for i := range specs {
			if err := seal(ctx, &specs[i], store, p.login(c, e)); err != nil {
				return errors.Join(err, was.restore(nil, nil))
			}
		}
	}
	if err := d.sealAll(e, c, store, here); err != nil {
		return errors.Join(err, was.restore(nil, nil))
	}
	if server != nil {
		c.Note("handed to the weir that runs at %s; it goes on when this command ends", server.Addr())
		if err = p.follow(ctx, c, e, server, d, nil); errors.Is(err, errDeleted) || errors.Is(err, errFinished) {
			return nil
		}
		return was.unlessBegun(e, server, specs, err)
	}
	if p.engines.Node == nil {
		return notBuilt(c)
	}
	opts := p.nodeOptions(c, store, set)
	opts.Follows = d.names()
	n, err := p.engines.Node(ctx, e, opts)
	if err != nil {
		return errors.Join(err, was.restore(nil, nil))
	}
	err = p.startIn(ctx, c, e, n, d, was)
	more := err == nil || errors.Is(err, context.Canceled)
	if errors.Is(err, errDeleted) || errors.Is(err, errFinished) {
		err = nil
	}
	next := ""
	switch {
	case more && p.redefined(e, n, specs):
		next = "; its tables were changed while it ran: weir server --state " + state(c) + " goes on from here"
	case more:
		next = sameCommand
	}
	if cerr := p.close(c, e, n, next); err == nil {
		err = cerr
	}
	return err
}

func (p *program) login(c *cli.Call, e *env.Env) login {
	return func(ctx context.Context, cfg *pg.Config) error {
		if p.engines.Login == nil {
			return notBuilt(c)
		}
		return p.engines.Login(ctx, e, cfg)
	}
}

const sameCommand = "; the same command goes on from here"

// redefined tells whether a mirror is not any more what the command said, because others changed its tables meanwhile.
func (p *program) redefined(e *env.Env, n node, specs []api.MirrorSpec) bool {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	cl, err := p.dial(e, rest.ClientOptions{Addr: n.Addr()})
	if err != nil {
		return false
	}
	defer cl.Close()
	for _, spec := range specs {
		if v, err := cl.Pipeline(ctx, spec.Name); err == nil && v.Desired != api.WantDeleted && len(difference(v.Mirror, spec)) > 0 {
			return true
		}
	}
	return false
}

// handOver refuses to give a mirror to a process that ends with its own mirrors: only a server is there for others.
func handOver(c *cli.Call, e *env.Env) error {
	ep, err := coordinator.ReadEndpoints(e.FS, state(c))
	if err != nil || ep.Command == "" || ep.Command == serverCommand {
		return nil // it answers, and does not say that it is no server
	}
	return errs.New(errs.StateLocked, "weir %s already runs on the state directory %s", ep.Command, state(c)).
		WithDetail("pid %d, address %s", ep.PID, ep.HTTP).
		WithHint("weir pipelines list --state %s shows its mirrors; for another one name another directory with --state, or run weir server on this one, which takes mirrors from other commands", state(c))
}

func (p *program) startIn(ctx context.Context, c *cli.Call, e *env.Env, n node, d definitions, was before) error {
	cl, err := p.dial(e, rest.ClientOptions{Addr: n.Addr()})
	if err != nil {
		return err
	}
	defer cl.Close()
	c.Note("weir %s  http://%s  state %s", p.version, n.Addr(), state(c))
	for _, q := range d.queries {
		q.introduce(c)
		if len(q.program.Views) > 0 {
			c.Note("views are read with  psql postgres://weir@%s/weir", n.PGAddr())
		}
	}
	return was.unlessBegun(e, cl, d.mirrors, p.follow(ctx, c, e, cl, d, n))
}

func (p *program) nodeOptions(c *cli.Call, store *secrets.Store, set options.Set) nodeOptions {
	return nodeOptions{
		State: state(c), Command: strings.TrimPrefix(c.Path, "weir "), HTTPAddr: c.Text("http-addr"), PGAddr: c.Text("pg-addr"), AllowRemote: c.Bool("allow-remote-without-authentication"),
		Secrets: store, Options: set.Stored(options.Server), Version: p.version, Commit: p.commit,
	}
}

// closeLimit bounds the last checkpoints. What was durable before stays so.
const closeLimit = 30 * time.Second

// errDeleted ends a look at mirrors that are all gone: it is how a cutover ends, and no failure.
var errDeleted = errors.New("no mirror is left")

// errFinished ends a look at pipelines whose sources had no more to give.
var errFinished = errors.New("every pipeline has finished")

// close ends the node; next is what it says of how the mirrors go on.
func (p *program) close(c *cli.Call, e *env.Env, n node, next string) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	began := e.Clock.Now()
	if err := n.Close(ctx); err != nil {
		return err
	}
	c.Note("stopped in %s%s", cli.Took(e.Clock.Now().Sub(began)), next)
	return nil
}

// lookPeriod is how often progress is shown: often enough to look alive, seldom enough to cost nothing.
const lookPeriod = 250 * time.Millisecond

// follow makes sure that the pipelines run and shows them until they are done, one fails for good, or ctx ends. n is the
// node of this process, or nil.
func (p *program) follow(ctx context.Context, c *cli.Call, e *env.Env, cl client, d definitions, n node) error {
	made := map[string]bool{}
	began := e.Clock.Now()
	for _, spec := range d.mirrors {
		created, err := ensure(ctx, c, cl, spec)
		if err != nil {
			return err
		}
		made[spec.Name] = created
	}
	for _, q := range d.queries {
		created, err := ensureQuery(ctx, c, cl, q, state(c))
		if err != nil {
			return err
		}
		made[q.spec.Name] = created
	}
	names := d.names()
	var stopped <-chan struct{}
	if n != nil {
		stopped = n.Done()
	}
	watch := newCatchUp(e.Clock.Now, c.Note)
	show := p.displays(c, names)
	deleted := map[string]bool{}
	for {
		looked := e.Clock.Now()
		select {
		case <-stopped:
			return n.Err()
		default:
		}
		views := make([]coordinator.PipelineView, 0, len(names))
		finished := 0
		for _, name := range names {
			if deleted[name] {
				continue
			}
			v, err := cl.Pipeline(ctx, name)
			if errs.Is(err, errs.PipelineNotFound) && !c.Bool("until-caught-up") {
				deleted[name] = true
				if slices.ContainsFunc(d.queries, func(q queryDefinition) bool { return q.spec.Name == name }) {
					c.Note("pipeline %s was deleted and has ended; what it wrote stays", name)
				} else {
					c.Note("mirror %s was cut over or deleted and has ended; its tables on the target stay", name)
				}
				continue
			}
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			views = append(views, v)
			if v.Status.Phase == api.PhaseFinished {
				finished++
			}
			if made[name] && stillborn(v.Status, e.Clock.Now().Sub(began)) {
				// The corrected command makes it anew.
				if err := cl.Delete(ctx, v.ID, rest.DeleteOptions{Force: true, Wait: true}); err != nil && !errs.Is(err, errs.PipelineNotFound) {
					return err
				}
				return recordOf(v.Status.Error)
			}
			if v.Status.Phase == api.PhaseFailed && v.Status.Error != nil && v.Desired != api.WantDeleted {
				return recordOf(v.Status.Error)
			}
		}
		if len(deleted) == len(names) {
			return errDeleted
		}
		if err := show(views); err != nil {
			return err
		}
		if finished > 0 && finished == len(views) {
			for _, v := range views {
				c.Note("%s", conclusion(v, e.Clock.Now().Sub(began)))
			}
			return errFinished
		}
		if c.Bool("until-caught-up") {
			done, err := watch.done(ctx, cl, views)
			if err != nil && ctx.Err() == nil {
				return err
			}
			if done {
				c.Note("caught up")
				return nil
			}
		}
		if e.Clock.Sleep(ctx, lookPause(e.Clock.Now().Sub(looked))) != nil {
			return interrupted(c)
		}
	}
}

// lookPause is the pause after a look that took so long. With thousands of tables a look takes a while, of a processor
// that the copy could use.
func lookPause(took time.Duration) time.Duration {
	return min(max(lookPeriod, 19*took), 8*lookPeriod)
}

// firstContact is how long a mirror that was just made tries to reach its databases.
const firstContact = 30 * time.Second

// stillborn tells that nothing was made for a mirror yet and nothing will be: what it was given is a mistake, or one of
// its databases is away.
func stillborn(st api.PipelineStatus, age time.Duration) bool {
	if st.Error == nil || !st.Error.Unbegun {
		return false
	}
	if st.Error.Code == string(errs.SourceFile) && st.Phase == api.PhaseRetrying {
		return true // files are here or they are not: nothing has to come up first
	}
	away := st.Error.Code == string(errs.SourceUnreachable) || st.Error.Code == string(errs.TargetUnreachable)
	return st.Phase == api.PhaseFailed || st.Phase == api.PhaseRetrying && away && age > firstContact
}

// interrupted: stopping a mirror that should run forever is how it ends, but "until caught up" was not reached.
func interrupted(c *cli.Call) error {
	if c.Bool("until-caught-up") {
		return context.Canceled
	}
	return nil
}

func recordOf(i *api.ErrorInfo) error {
	return &errs.Error{Code: errs.Code(i.Code), Message: i.Message, Detail: i.Detail, Hint: i.Hint, Fix: i.Fix}
}

// ensure creates the mirror, and tells so, or takes up one of the same definition. One that is being deleted goes first:
// its node may be this process, and would otherwise end with the refusal before it has done the rest of the delete.
func ensure(ctx context.Context, c *cli.Call, cl client, spec api.MirrorSpec) (created bool, err error) {
	v, err := settled(ctx, c, cl, spec.Name)
	if errs.Is(err, errs.PipelineNotFound) {
		_, err = cl.CreateMirror(ctx, spec)
		return err == nil, err
	}
	if err != nil {
		return false, err
	}
	if v.Query != nil {
		return false, errs.New(errs.PipelineExists, "pipeline %s exists and is one of queries", spec.Name).WithHint("name the mirror otherwise")
	}
	if diff := difference(v.Mirror, spec); len(diff) > 0 {
		return false, errs.New(errs.PipelineExists, "pipeline %s exists with another definition", spec.Name).
			WithDetail("%s", "different: "+join(diff)).
			WithHint("`weir server --state %[2]s` goes on with it as it is, with the tables that were added or removed since; a new mirror needs another --name or --state; while the server runs, `weir pipelines delete %[1]s --state %[2]s` deletes this one", spec.Name, c.Text("state"))
	}
	if v.Desired != api.WantRunning || v.Status.Phase == api.PhaseFailed {
		_, err = cl.Resume(ctx, spec.Name)
	}
	return false, err
}

func join(words []string) string {
	out := ""
	for i, w := range words {
		if i > 0 {
			out += ", "
		}
		out += w
	}
	return out
}

// displays shows progress where a person looks for it: on standard error, so that standard output stays data. With a
// -o json and -o ndjson each change of a phase is a record on standard output; the other formats cannot hold records that
// follow one another, and say nothing.
func (p *program) displays(c *cli.Call, names []string) func([]coordinator.PipelineView) error {
	if c.Format == cli.FormatJSON || c.Format == cli.FormatNDJSON {
		return phases(c)
	}
	if c.Quiet || !c.Human() {
		return func([]coordinator.PipelineView) error { return nil }
	}
	single := len(names) == 1 && c.ErrTerminal
	shown := make(map[string]*cli.Display, len(names))
	for _, name := range names {
		// Several blocks cannot be redrawn over each other, so that several mirrors are told in lines.
		shown[name] = &cli.Display{Out: c.Err, Terminal: single, Colour: single && c.Colour(), Width: c.Width}
	}
	return func(views []coordinator.PipelineView) error {
		for _, v := range views {
			if err := shown[v.Name].Show(v.Name, v.Status, c.Now()); err != nil {
				return err
			}
		}
		return nil
	}
}

// phases prints a pipeline when its phase is another than at the last look. What lies between is not told: a program that
// wants figures asks for them.
func phases(c *cli.Call) func([]coordinator.PipelineView) error {
	told := map[string]api.Phase{}
	return func(views []coordinator.PipelineView) error {
		for _, v := range views {
			if told[v.ID] == v.Status.Phase {
				continue
			}
			told[v.ID] = v.Status.Phase
			if err := cli.PrintRecord(c, v, v.Name, nil); err != nil {
				return err
			}
		}
		return nil
	}
}

// catchUp decides when mirrors have caught up: the tables that the source had at the start are known, all are live, what
// belongs to them is built, and the position is past where the source's log ended at a moment after that. A lag of zero
// would do only for a source that nobody writes to.
type catchUp struct {
	began map[string]time.Time // by the clock of whoever runs the mirror
	goals map[string]pg.LSN
	waits map[string]time.Time // since when only a look at the source's catalog is missing; zero: that was told
	now   func() time.Time
	note  func(format string, args ...any)
}

func newCatchUp(now func() time.Time, note func(format string, args ...any)) *catchUp {
	return &catchUp{began: map[string]time.Time{}, goals: map[string]pg.LSN{}, waits: map[string]time.Time{}, now: now, note: note}
}

// tellWait says once what a mirror is waited for that looks as if nothing were missing. The next look can be a day away.
func (w *catchUp) tellWait(m api.MirrorSpec) {
	const patience = 5 * time.Second
	since, waits := w.waits[m.Name]
	switch {
	case !waits:
		w.waits[m.Name] = w.now()
		return
	case since.IsZero() || w.now().Sub(since) < patience:
		return
	}
	w.waits[m.Name] = time.Time{}
	every := m.Options["discovery.interval"]
	if set, err := options.Resolve(options.Layer{Values: m.Options}); err == nil {
		every = set.Text("discovery.interval")
	}
	w.note("%s is live; waiting for its next look at the source's catalog, for tables that it does not know yet (discovery.interval is %s; a pause and a resume look at once)", m.Name, every)
}

func (w *catchUp) done(ctx context.Context, cl client, views []coordinator.PipelineView) (bool, error) {
	all := true
	for _, v := range views {
		began, seen := w.began[v.Name]
		if !seen {
			began = v.Status.UpdatedAt
			w.began[v.Name] = began
		}
		if !live(v.Status) || v.Status.Building {
			all = false
			continue
		}
		if v.Status.CatalogAt.Before(began) {
			w.tellWait(v.Mirror)
			all = false
			continue
		}
		goal, known := w.goals[v.Name]
		if !known {
			s, err := cl.Source(ctx, v.Name)
			if err != nil {
				return false, err
			}
			if goal, err = pg.ParseLSN(s.CurrentLSN); err != nil {
				all = false // the source did not answer this time
				continue
			}
			w.goals[v.Name] = goal
		}
		at, err := pg.ParseLSN(v.Status.DurablePosition)
		if err != nil || at < goal {
			all = false
		}
	}
	return all, nil
}

func live(st api.PipelineStatus) bool {
	if st.Phase != api.PhaseLive {
		return false
	}
	for _, t := range st.Tables {
		if t.Phase != api.PhaseLive && t.Phase != api.PhaseStopped {
			return false
		}
	}
	return true
}

// plan shows what the mirrors would do.
func (p *program) plan(ctx context.Context, c *cli.Call, e *env.Env, specs []api.MirrorSpec, store *secrets.Store, server client) error {
	if p.engines.Plan == nil {
		return notBuilt(c)
	}
	var plans []*api.Plan
	for _, spec := range specs {
		source, target, err := p.both(ctx, spec, store, server)
		if err != nil {
			return err
		}
		// What goes into the plan is shown, so it is sealed, but into memory: a dry run writes nothing.
		shown := spec
		if err := seal(ctx, &shown, secrets.Open(e, secrets.Options{Getenv: c.Getenv}), nil); err != nil {
			return err
		}
		plan, err := p.engines.Plan(ctx, e, planRequest{Source: source, Target: target, Mirror: shown, State: state(c)})
		if err != nil {
			return err
		}
		plans = append(plans, plan)
	}
	fatal := false
	for _, plan := range plans {
		fatal = fatal || api.Worst(plan.Checks) == api.SeverityFatal
	}
	var err error
	if len(plans) == 1 {
		err = cli.PrintRecord(c, plans[0], plans[0].Pipeline, func(w io.Writer) { printPlan(w, c, plans[0]) })
	} else {
		err = cli.PrintRecord(c, plans, "", func(w io.Writer) {
			for i, plan := range plans {
				if i > 0 {
					fmt.Fprintln(w)
				}
				printPlan(w, c, plan)
			}
		})
	}
	if err != nil {
		return err
	}
	if fatal {
		return cli.Exit{Code: cli.ExitRejected}
	}
	c.Next("the same command without --dry-run")
	return nil
}

// both gives the complete URLs of a mirror's two sides.
func (p *program) both(ctx context.Context, spec api.MirrorSpec, store *secrets.Store, server client) (source, target string, err error) {
	if source, err = complete(ctx, spec.Source, store, server); err != nil {
		return "", "", err
	}
	if spec.Target == (api.Connection{}) {
		return source, "", nil
	}
	target, err = complete(ctx, spec.Target, store, server)
	return source, target, err
}

func printPlan(w io.Writer, c *cli.Call, plan *api.Plan) {
	head := fmt.Sprintf("%s  %s", plan.Pipeline, cli.Plural(len(plan.Tables), "table"))
	if plan.Rows >= 0 {
		head += fmt.Sprintf("  about %s rows, %s", cli.Count(plan.Rows), cli.Bytes(plan.Bytes))
	}
	if plan.EstSeconds > 0 {
		head += "  copied in about " + cli.Seconds(plan.EstSeconds)
	}
	fmt.Fprintf(w, "%s\nslot %s  publication %s\n", head, plan.Slot, plan.Publication)
	if len(plan.Tables) > 0 {
		t := cli.Table{Head: []string{"SOURCE", "TARGET", "ROWS", "BYTES", "KEY", "ON THE TARGET", ""}, Right: []bool{false, false, true, true}}
		for _, tab := range plan.Tables {
			key, there := join(tab.Key), "will be created"
			if key == "" {
				key = "none"
			}
			if tab.Exists {
				there = "exists"
			}
			t.Rows = append(t.Rows, []string{tab.Source, tab.Target, "~" + cli.Count(tab.Rows), cli.Bytes(tab.Bytes), key, there, join(tab.Notes)})
		}
		fmt.Fprintf(w, "\n%s", t.String())
	}
	for _, part := range []struct {
		title string
		sql   []string
	}{{"on the target before the copy", plan.DDL}, {"on the target after the copy", plan.AfterCopy}} {
		if len(part.sql) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s: %s\n", part.title, cli.Plural(len(part.sql), "statement"))
		const few = 10
		for i, sql := range part.sql {
			if i == few && c.Format != cli.FormatWide {
				fmt.Fprintf(w, "  … %d more (-o wide shows all)\n", len(part.sql)-few)
				break
			}
			fmt.Fprintf(w, "  %s\n", indentMore(sql))
		}
	}
	for _, n := range plan.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	if len(plan.Checks) > 0 {
		fmt.Fprintln(w)
		printChecks(w, c, plan.Checks, false)
	}
}
