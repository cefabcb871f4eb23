package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
	"github.com/weirstream/weir/sql/pgwire"
	"github.com/weirstream/weir/sql/plan"
)

// A statement that makes or drops a table or a view over a SQL session changes the program of a pipeline while it runs.
// All that could be wrong is found out before: the program is planned with the statement and compared with the one that
// runs. Then the catalog is told, which is the moment at which the change counts, and the pipeline is stopped at a last
// checkpoint and started with the new program on it. A crash leaves the one or the other program; what the new one has and
// the checkpoint has not is filled at whatever start comes next.

// Catalog keeps the definitions of pipelines.
type Catalog interface {
	Pipelines() []coordinator.PipelineView
	CreateQuery(ctx context.Context, q api.QuerySpec) (api.Pipeline, error)
	SetAdded(ctx context.Context, id string, version uint64, added []string) (api.Pipeline, error)
	Delete(ctx context.Context, name string, force bool) error
	WaitGone(ctx context.Context, id string) error
}

// Home is the pipeline of statements that name nothing of any pipeline: it is called like the database.
const Home = "weir"

// revertTime is how long a change that failed has to be taken back.
const revertTime = 30 * time.Second

// owner is a pipeline of queries with its program, as it is defined now.
type owner struct {
	coordinator.PipelineView
	program *plan.Program
}

func (o *owner) object(name string) *plan.Object {
	for i := range o.program.Objects {
		if x := &o.program.Objects[i]; x.Name == name && x.Kind != plan.ObjectInsert {
			return x
		}
	}
	for i := range o.program.Objects {
		if x := &o.program.Objects[i]; strings.EqualFold(x.Name, name) && x.Kind != plan.ObjectInsert {
			return x
		}
	}
	return nil
}

// Change carries out a statement that makes or drops something: CREATE TABLE, VIEW or MATERIALIZED VIEW, INSERT INTO a
// table of a connector, DROP. It returns when what was made can be read. notices are for the user.
func (r *Runner) Change(ctx context.Context, text string) (notices []string, err error) {
	if r.opts.Catalog == nil {
		return nil, errs.New(errs.NotBuiltYet, "this node takes no statements that change pipelines")
	}
	script, err := parser.Parse("", text)
	if err != nil {
		return nil, err
	}
	if len(script.Statements) != 1 {
		return nil, errs.New(errs.SQLSyntax, "%d statements where one is taken", len(script.Statements))
	}
	select {
	case r.ddl <- struct{}{}:
		defer func() { <-r.ddl }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c, err := r.opts.Catalog(ctx)
	if err != nil {
		return nil, err
	}
	x := &change{r: r, ctx: ctx, catalog: c, text: text, statement: script.Statements[0]}
	for _, v := range c.Pipelines() {
		if v.Query == nil || v.Desired == api.WantDeleted {
			continue
		}
		set, err := settingsOf(v.Pipeline)
		if err != nil {
			continue // it says so itself
		}
		if p, err := r.plan(v.Pipeline, set); err == nil {
			x.owners = append(x.owners, &owner{v, p})
		}
	}
	if s, ok := x.statement.(*parser.Drop); ok {
		return x.notices, x.drop(s)
	}
	err = x.add()
	return x.notices, err
}

// change is one statement on its way.
type change struct {
	r         *Runner
	ctx       context.Context
	catalog   Catalog
	text      string
	statement parser.Statement
	owners    []*owner
	notices   []string
	moves     []move
}

func (x *change) fail(code errs.Code, at parser.Pos, format string, args ...any) *errs.Error {
	return errs.New(code, format, args...).At(parser.Locate("", x.text, at))
}

func (x *change) note(format string, args ...any) {
	x.notices = append(x.notices, fmt.Sprintf(format, args...))
}

// having are the pipelines that have an object of that name.
func (x *change) having(name string) []*owner {
	var out []*owner
	for _, o := range x.owners {
		if o.object(name) != nil {
			out = append(out, o)
		}
	}
	return out
}

func (x *change) add() error {
	var name parser.Name
	var exists, replace bool
	switch s := x.statement.(type) {
	case *parser.CreateTable:
		if s.Temporary {
			return x.fail(errs.NotBuiltYet, s.Pos, "TEMPORARY is not built yet")
		}
		name, exists, replace = s.Name, s.IfNotExists, s.OrReplace
		s.IfNotExists, s.OrReplace = false, false
	case *parser.CreateView:
		if s.Temporary {
			return x.fail(errs.NotBuiltYet, s.Pos, "TEMPORARY is not built yet")
		}
		name, exists, replace = s.Name, s.IfNotExists, s.OrReplace
		s.IfNotExists, s.OrReplace = false, false
	case *parser.CreateMaterializedView:
		name, exists, replace = s.Name, s.IfNotExists, s.OrReplace
		s.IfNotExists, s.OrReplace = false, false
	case *parser.Insert:
		for _, o := range x.having(s.Table.Last().Text) {
			if t := o.object(s.Table.Last().Text); t.Connector == plan.TableConnector {
				// A session would have written it, had it seen it.
				return errs.New(errs.PipelineState, "pipeline %s is not running yet, so its table %s cannot be written", o.Name, t.Name).
					WithHint("try again; weir pipelines list shows its state")
			}
		}
	default:
		return x.fail(errs.SQLNotBuilt, s.Position(), "%s is not built yet here", parser.Keywords(s)).WithHint("write a file and start it: weir run FILE.sql")
	}
	at := -1 // of the statement that is replaced
	var to *owner
	if name != nil {
		last := name.Last()
		for _, o := range x.having(last.Text) {
			found := o.object(last.Text)
			switch {
			case exists:
				x.note("%s %q already exists, skipping", strings.ToLower(string(found.Kind)), found.Name)
				return nil
			case replace && found.Added > 0:
				to, at = o, found.Added-1
			case replace:
				return x.fail(errs.SQLConnector, last.Pos, "%s %s stands in the file of pipeline %s, and cannot be replaced here", strings.ToLower(string(found.Kind)), found.Name, o.Name).
					WithHint("choose another name")
			default:
				return x.fail(errs.SQLConnector, last.Pos, "%s exists already, in pipeline %s", found.Name, o.Name)
			}
		}
	}
	home, err := x.home()
	switch {
	case err != nil:
		return err
	case to == nil:
		to = home
	case home != nil && home != to:
		return x.fail(errs.SQLConnector, name.Position(), "%s is in pipeline %s, and reads from pipeline %s now", name.Last().Text, to.Name, home.Name).WithHint("drop it first")
	}
	text := x.text
	if exists || replace {
		text = parser.PrintNode(x.statement)
	}
	if to == nil {
		return x.first(text)
	}
	added := slices.Clone(to.Query.Added)
	for _, m := range x.moves {
		added = append(added, m.from.Query.Added[m.table.Added-1])
	}
	if at >= 0 {
		added[at] = text
	} else {
		if slices.Contains(added, printed(text)) {
			return x.fail(errs.SQLConnector, x.statement.Position(), "that statement runs already, in pipeline %s", to.Name)
		}
		added = append(added, text)
	}
	if err := x.apply(to, added, at < 0); err != nil {
		return err
	}
	if len(x.moves) == 0 {
		return nil
	}
	going := map[int]bool{}
	for _, m := range x.moves {
		going[m.table.Added] = true
	}
	return x.remove(x.moves[0].from, going)
}

func printed(text string) string {
	script, err := parser.Parse("", text)
	if err != nil {
		return text
	}
	return parser.Print(script)
}

// home is the pipeline that the statement belongs to, the one of what it names; nil: it does not exist. Tables of
// connectors that were made in the pipeline of the database, and that nothing uses yet, may go with it: they are in moves.
func (x *change) home() (*owner, error) {
	var found *owner
	var by string
	var loose []parser.Name
	for _, n := range named(x.statement) {
		of := x.having(n.Last().Text)
		if len(of) == 0 {
			continue // the planner says what is not there
		}
		if len(of) == 1 && of[0].unused(n.Last().Text) {
			loose = append(loose, n)
			continue
		}
		if len(of) > 1 {
			if found != nil && slices.Contains(of, found) {
				continue
			}
			var names []string
			for _, o := range of {
				names = append(names, o.Name)
			}
			return nil, x.fail(errs.SQLUnknownName, n.Position(), "%s is in more than one pipeline: %s", n, strings.Join(names, ", ")).WithHint("give one of them another name")
		}
		if found != nil && of[0] != found {
			return nil, x.fail(errs.NotBuiltYet, n.Position(), "%s is in pipeline %s, and %s in pipeline %s", by, found.Name, n, of[0].Name).
				WithDetail("Pipelines have epochs of their own, so what reads of both would mix two moments.").WithHint("define both in one file")
		}
		found, by = of[0], n.String()
	}
	if found == nil {
		for _, o := range x.owners {
			if o.Name == Home {
				found = o
			}
		}
	}
	for _, n := range loose {
		o := x.having(n.Last().Text)[0]
		t := *o.object(n.Last().Text)
		if o != found && !slices.ContainsFunc(x.moves, func(m move) bool { return m.table.Added == t.Added }) {
			x.moves = append(x.moves, move{o, t}) // of one pipeline: only that of the database has such
		}
	}
	return found, nil
}

// move is a table that goes to another pipeline.
type move struct {
	from  *owner
	table plan.Object
}

// unused tells whether a name is that of a table of a connector that a session has made in the pipeline of the database,
// and nothing there names it.
func (o *owner) unused(name string) bool {
	t := o.object(name)
	return o.Name == Home && t.Kind == parser.ObjectTable && t.Added > 0 && t.Connector != plan.TableConnector &&
		!slices.ContainsFunc(o.program.Objects, func(d plan.Object) bool { return slices.Contains(d.Reads, t.Name) })
}

// named are the tables and views that a statement names, without its own and the names that its WITHs define.
func named(s parser.Statement) []parser.Name {
	var out []parser.Name
	common := map[string]bool{}
	if i, ok := s.(*parser.Insert); ok {
		out = append(out, i.Table)
	}
	parser.Walk(s, func(n parser.Node) bool {
		switch n := n.(type) {
		case *parser.With:
			for _, c := range n.Tables {
				common[strings.ToLower(c.Name.Text)] = true
			}
		case *parser.Table:
			if !(len(n.Name) == 1 && common[strings.ToLower(n.Name.Last().Text)]) {
				out = append(out, n.Name)
			}
		case *parser.TableQuery:
			out = append(out, n.Name)
		}
		return true
	})
	return out
}

// first makes the pipeline of the database with its first statement.
func (x *change) first(text string) error {
	q := api.QuerySpec{Name: Home, Added: []string{text}}
	p := api.Pipeline{Name: Home, Query: &q}
	program, err := x.planned(p)
	if err != nil {
		return err
	}
	x.warn(program, nil)
	p, err = x.catalog.CreateQuery(x.ctx, q)
	if err != nil {
		return err
	}
	err = x.r.await(x.ctx, p.ID, p.Version)
	if errors.Is(err, errCopying) {
		x.note("a first copy is under way; views can be read when it is complete")
		return nil
	}
	if err != nil {
		// It would be tried again and again, and nobody knows of it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(x.ctx), revertTime)
		defer cancel()
		if derr := x.catalog.Delete(ctx, p.ID, true); derr == nil {
			derr = x.catalog.WaitGone(ctx, p.ID)
			if derr != nil {
				x.r.env.Log.Warn("a pipeline that cannot start is not gone", "pipeline", p.Name, "error", derr)
			}
		}
	}
	return err
}

// planned is the program of a definition, with its sources and sinks looked at.
func (x *change) planned(p api.Pipeline) (*plan.Program, error) {
	set, err := settingsOf(p)
	if err != nil {
		return nil, err
	}
	program, err := x.r.plan(p, set)
	if err != nil {
		return nil, err
	}
	return program, x.r.making(x.r.env, p, set).Check(program)
}

func (x *change) warn(now, was *plan.Program) {
	known := 0
	if was != nil {
		known = len(was.Warnings)
	}
	for i, w := range now.Warnings {
		if i >= known {
			x.note("%s", w.Message)
		}
	}
}

// apply gives a pipeline other added statements and waits until it works with them. With grows nothing that is there may
// go.
func (x *change) apply(o *owner, added []string, grows bool) error {
	next := o.Pipeline
	q := *o.Query
	q.Added = added
	next.Query = &q
	program, err := x.planned(next)
	if err != nil {
		return err
	}
	if err := program.Follows(o.program); err != nil {
		return err
	}
	if n := program.Lacks(o.program); grows && n != nil {
		return errs.New(errs.SQLConnector, "the statement would change %s %s, which runs", n.Kind, n.Detail).WithHint("put it into a file of its own")
	}
	old := map[string]bool{}
	for _, n := range o.program.Graph.Nodes {
		old[n.ID] = true
	}
	if err := keyed.Fillable(program.Graph, old); err != nil {
		return err
	}
	runs := true
	switch o.Status.Phase {
	case api.PhaseCopy:
		return errs.New(errs.PipelineState, "the first copy of the tables of pipeline %s is under way", o.Name).WithHint("try again when it is complete: weir pipelines get %s", o.Name)
	case api.PhasePaused, api.PhaseFailed, api.PhaseRetrying:
		if grows {
			return errs.New(errs.PipelineState, "pipeline %s does not run: it is %s", o.Name, o.Status.Phase).WithHint("weir pipelines resume %s", o.Name)
		}
		runs = false
	}
	x.warn(program, o.program)
	end := x.r.changing(o.Name)
	defer end()
	p, err := x.catalog.SetAdded(x.ctx, o.ID, o.Version, added)
	if err != nil {
		return err
	}
	if runs {
		err = x.r.await(x.ctx, p.ID, p.Version)
	}
	if errors.Is(err, errCopying) {
		x.note("a first copy is under way; the views of pipeline %s can be read when it is complete", o.Name)
		err = nil
	}
	if err != nil && grows {
		// What was added cannot begin. The pipeline goes on as it was.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(x.ctx), revertTime)
		defer cancel()
		back, rerr := x.catalog.SetAdded(ctx, p.ID, p.Version, o.Query.Added)
		if rerr == nil {
			rerr = x.r.await(ctx, back.ID, back.Version)
		}
		if rerr != nil {
			x.r.env.Log.Warn("a statement that failed could not be taken back", "pipeline", o.Name, "error", rerr)
		}
		return err
	}
	if err == nil {
		x.clean(o, program)
	}
	return err
}

// clean removes what sources and sinks that are not used any more have made outside.
func (x *change) clean(o *owner, now *plan.Program) {
	gone := &plan.Program{}
	for _, s := range o.program.Sources {
		if !slices.ContainsFunc(now.Sources, func(n plan.Source) bool { return n.Name == s.Name && n.Connector == s.Connector }) {
			gone.Sources = append(gone.Sources, s)
		}
	}
	for _, s := range o.program.Sinks {
		if !slices.ContainsFunc(now.Sinks, func(n plan.Sink) bool { return n.Name == s.Name && n.Connector == s.Connector }) {
			gone.Sinks = append(gone.Sinks, s)
		}
	}
	set, err := settingsOf(o.Pipeline)
	if err == nil {
		err = x.r.making(x.r.env, o.Pipeline, set).Remove(x.ctx, gone)
	}
	if err != nil {
		x.note("what was dropped may have left something at its database: %v", err)
	}
}

func (x *change) drop(s *parser.Drop) error {
	switch s.Object {
	case parser.ObjectTable, parser.ObjectView, parser.ObjectMaterializedView:
	default:
		return x.fail(errs.SQLNotBuilt, s.Pos, "DROP %s is not built yet here", s.Object)
	}
	last := s.Name.Last()
	of := x.having(last.Text)
	if len(of) == 0 {
		if s.IfExists {
			x.note("%s %q does not exist, skipping", strings.ToLower(string(s.Object)), last.Text)
			return nil
		}
		return x.fail(errs.SQLUnknownName, last.Pos, "there is no %s %s", strings.ToLower(string(s.Object)), last.Text)
	}
	slices.SortFunc(of, func(a, b *owner) int { return strings.Compare(a.Name, b.Name) })
	if i := slices.IndexFunc(of, func(o *owner) bool { return !o.unused(last.Text) }); i > 0 {
		of[0], of[i] = of[i], of[0]
	}
	if len(of) > 1 && slices.ContainsFunc(of[1:], func(o *owner) bool { return !o.unused(last.Text) }) {
		return x.fail(errs.SQLUnknownName, last.Pos, "%s is in more than one pipeline", last.Text)
	}
	o := of[0]
	found := o.object(last.Text)
	switch {
	case found.Kind != s.Object:
		return x.fail(errs.SQLConnector, last.Pos, "%s is a %s", found.Name, strings.ToLower(string(found.Kind))).WithHint("DROP %s %s", found.Kind, found.Name)
	case found.Added == 0:
		return x.fail(errs.SQLConnector, last.Pos, "%s %s stands in the file of pipeline %s, and cannot be dropped here", strings.ToLower(string(found.Kind)), found.Name, o.Name).
			WithHint("only what was added by a SQL session can be; weir pipelines delete %s removes the pipeline", o.Name)
	}
	going := map[int]bool{found.Added: true}
	var dependants []string
	names := []string{found.Name}
	for more := true; more; {
		more = false
		for _, d := range o.program.Objects {
			if d.Added == 0 || going[d.Added] || !slices.ContainsFunc(d.Reads, func(n string) bool { return slices.Contains(names, n) }) {
				continue
			}
			going[d.Added], more = true, true
			if d.Kind == plan.ObjectInsert {
				dependants = append(dependants, "INSERT INTO "+d.Name)
				continue
			}
			names = append(names, d.Name)
			dependants = append(dependants, strings.ToLower(string(d.Kind))+" "+d.Name)
		}
	}
	if len(dependants) > 0 && !s.Cascade {
		return x.fail(errs.SQLConnector, last.Pos, "%s %s cannot be dropped: others depend on it", strings.ToLower(string(found.Kind)), found.Name).
			WithDetail("%s", strings.Join(dependants, "; ")).WithHint("DROP .. CASCADE drops them, too")
	}
	for _, d := range dependants {
		x.note("drop cascades to %s", d)
	}
	if err := x.remove(o, going); err != nil {
		return err
	}
	for _, other := range of[1:] { // a table that was on its way to another pipeline when the node ended
		if err := x.remove(other, map[int]bool{other.object(last.Text).Added: true}); err != nil {
			return err
		}
	}
	return nil
}

// remove takes added statements out of a pipeline, and the pipeline away if nothing is left of it.
func (x *change) remove(o *owner, going map[int]bool) error {
	var added []string
	for i, text := range o.Query.Added {
		if !going[i+1] {
			added = append(added, text)
		}
	}
	if len(added) == 0 && o.Query.SQL == "" {
		if err := x.catalog.Delete(x.ctx, o.ID, false); err != nil {
			return err
		}
		return x.catalog.WaitGone(x.ctx, o.ID)
	}
	return x.apply(o, added, false)
}

// changing marks a pipeline as being changed until what it returns is called.
func (r *Runner) changing(name string) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	over := make(chan struct{})
	r.mu.changes[name] = over
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.mu.changes, name)
		close(over)
	}
}

// Await waits while the pipeline of a view is being changed, and tells whether the view may be read then though it could
// not be before.
func (r *Runner) Await(ctx context.Context, v pgwire.View) bool {
	r.mu.Lock()
	over := r.mu.changes[v.Pipeline]
	r.mu.Unlock()
	if over != nil {
		select {
		case <-over:
		case <-ctx.Done():
			return false
		}
	}
	if run := r.named(v.Pipeline); run != nil {
		select {
		case <-run.ready:
		case <-run.done:
		case <-ctx.Done():
			return false
		}
	}
	for _, now := range r.Views() {
		if now.Pipeline == v.Pipeline && now.Keyed != nil {
			return now.Keyed != v.Keyed
		}
	}
	return over != nil
}

// named is the last start of a pipeline, nil if there was none.
func (r *Runner) named(pipeline string) *running {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, run := range r.mu.runs {
		if run.pipeline.Name == pipeline {
			return run
		}
	}
	return nil
}

// Tried waits until each of the pipelines, by id, was started or refused to, or the node ends.
func (r *Runner) Tried(ctx context.Context, ids []string, ended <-chan struct{}) {
	for _, id := range ids {
		for {
			r.mu.Lock()
			_, refused := r.mu.refused[id]
			known, turned := refused || r.mu.runs[id] != nil, r.mu.turned
			r.mu.Unlock()
			if known {
				break
			}
			select {
			case <-turned:
			case <-ended:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// errCopying: the pipeline works, and its views cannot be read yet.
var errCopying = errors.New("a first copy is under way")

// await returns when a pipeline works with a version of its definition, or cannot.
func (r *Runner) await(ctx context.Context, id string, version uint64) error {
	for {
		r.mu.Lock()
		run, refused, turned := r.mu.runs[id], r.mu.refused[id], r.mu.turned
		r.mu.Unlock()
		if refused.err != nil && refused.version >= version {
			return refused.err
		}
		if run == nil || run.pipeline.Version < version {
			select {
			case <-turned:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-run.ready:
			pin, err := run.pipe.Pin(ctx)
			if err == nil {
				pin.Release()
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if run.pipe.Status().Copying {
				return errCopying
			}
			<-run.done
		case <-run.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := run.Err(); err != nil {
			return err
		}
		return errs.New(errs.PipelineState, "pipeline %s has ended", run.pipeline.Name)
	}
}
