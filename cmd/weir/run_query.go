package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/weirstream/weir/cmd/weir/query"
	"github.com/weirstream/weir/coordinator"
	rest "github.com/weirstream/weir/coordinator/http"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/options"
	"github.com/weirstream/weir/internal/secrets"
	"github.com/weirstream/weir/sql/parser"
	"github.com/weirstream/weir/sql/plan"
)

// definitions are the pipelines that a command is about.
type definitions struct {
	mirrors []api.MirrorSpec
	queries []queryDefinition
}

// queryDefinition is a pipeline of queries that is meant.
type queryDefinition struct {
	spec    api.QuerySpec
	meant   string       // its SQL with references in the place of secrets, as it will be stored
	keep    func() error // puts the secrets into the store of this machine; nil: they are the server's to keep
	program *plan.Program
	script  *parser.Script // what SQL is the text of; sealing changes it
}

func (d definitions) names() []string {
	var out []string
	for _, m := range d.mirrors {
		out = append(out, m.Name)
	}
	for _, q := range d.queries {
		out = append(out, q.spec.Name)
	}
	return out
}

// query plans the queries of the file.
func (f *sqlFile) query(_ context.Context, set options.Set) (queryDefinition, error) {
	c := f.call
	q := queryDefinition{script: f.queries}
	dir, err := f.program.getwd()
	if err != nil {
		return q, fmt.Errorf("find the working directory: %w", err)
	}
	q.spec = api.QuerySpec{Name: c.Text("name"), File: f.name, Dir: dir, Options: set.Stored(options.Pipeline)}
	if q.spec.Name == "" {
		q.spec.Name = baseName(f.name)
	}
	if err := coordinator.CheckName(q.spec.Name); err != nil {
		return q, err
	}
	for _, m := range f.specs {
		if m.Name == q.spec.Name {
			return q, errs.New(errs.BadFlag, "the queries of %s and one of its mirrors are both called %s", f.name, m.Name).WithHint("name the queries with --name")
		}
	}
	if q.program, err = f.plan(set); err != nil {
		return q, err
	}
	if !relative(q.program) {
		q.spec.Dir = "" // it decides nothing, and so makes no other definition
	}
	for _, w := range q.program.Warnings {
		where := ""
		if w.Pos != nil {
			where = fmt.Sprintf("%s:%d: ", w.Pos.File, w.Pos.Line)
		}
		c.Note("warning: %s%s", where, w.Message)
		if w.Hint != "" {
			c.Note("  hint: %s", w.Hint)
		}
	}
	e := f.program.env(c)
	zone, err := query.Zone(set)
	if err != nil {
		return q, err
	}
	x := query.Env{Env: e, Connectors: connectors(coordinator.NoInstallation), Expand: expandText(f.program.store(c, e)), Zone: zone, Parallelism: set.Int("parallelism"), Spec: q.spec, Text: f.text}
	return q, x.Check(q.program)
}

// relative tells whether a table of the program has a path that begins in the working directory.
func relative(p *plan.Program) bool {
	is := func(options map[string]string) bool { return query.Relative(options["path"]) }
	for _, s := range p.Sources {
		if slices.ContainsFunc(s.Tables, func(t plan.SourceTable) bool { return is(t.Options) }) {
			return true
		}
	}
	for _, s := range p.Sinks {
		if slices.ContainsFunc(s.Tables, func(t plan.SinkTable) bool { return is(t.Options) }) {
			return true
		}
	}
	return false
}

// plan makes the program of the file's queries.
func (f *sqlFile) plan(set options.Set) (*plan.Program, error) {
	zone, err := query.Zone(set)
	if err != nil {
		return nil, err
	}
	return plan.Build(f.name, query.Planned(f.script, f.text), plan.Environment{Connectors: query.Kinds(connectors(coordinator.NoInstallation)), Zone: zone, Parallelism: set.Int("parallelism")})
}

// baseName is a pipeline's name after its file's.
func baseName(file string) string {
	base := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	name := strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, base)
	return strings.TrimLeft(name, ".-")
}

// sealed is the definition as it is stored, its secrets in store.
func (q queryDefinition) sealed(store *secrets.Store) (queryDefinition, error) {
	script, err := parser.Parse(q.spec.File, parser.Print(q.script))
	if err != nil {
		return q, err
	}
	q.meant, err = query.Seal(q.spec.Name, script, store)
	return q, err
}

// sealQuery seals a definition that came as a text. One that is sealed already stays what it is.
func sealQuery(q api.QuerySpec, store *secrets.Store) (api.QuerySpec, error) {
	added := make([]string, len(q.Added))
	for i, text := range q.Added {
		script, err := parser.Parse("", text)
		if err == nil {
			added[i], err = query.Seal(q.Name, script, store)
		}
		if err != nil {
			return q, err
		}
	}
	if q.Added = added; len(added) == 0 {
		q.Added = nil
	}
	if q.File == "" && q.SQL == "" {
		return q, nil
	}
	script, err := parser.Parse(q.File, q.SQL)
	if err != nil {
		return q, err
	}
	if script = query.Queries(script); script == nil {
		return q, errs.New(errs.SQLUnknownName, "%s has no query to run", q.File).WithHint("INSERT INTO sink SELECT ... FROM source;")
	}
	if _, err := options.Resolve(options.Layer{Origin: "the request", Values: q.Options}); err != nil {
		return q, err
	}
	q.SQL, err = query.Seal(q.Name, script, store)
	return q, err
}

func (q queryDefinition) keeps() error {
	if q.keep == nil {
		return nil
	}
	return q.keep()
}

// ensureQuery is ensure for a pipeline of queries; dir is the state directory, for the hint of a refusal.
func ensureQuery(ctx context.Context, c *cli.Call, cl client, q queryDefinition, dir string) (created bool, err error) {
	name := q.spec.Name
	v, err := settled(ctx, c, cl, name)
	if errs.Is(err, errs.PipelineNotFound) {
		if err := q.keeps(); err != nil {
			return false, err
		}
		_, err = cl.CreateQuery(ctx, q.spec)
		return err == nil, err
	}
	if err != nil {
		return false, err
	}
	if v.Query == nil {
		return false, errs.New(errs.PipelineExists, "pipeline %s exists and is a mirror", name).WithHint("name the queries with --name")
	}
	meant := q.spec
	meant.SQL = q.meant
	if diff := query.Differences(*v.Query, meant); len(diff) > 0 {
		return false, errs.New(errs.PipelineExists, "pipeline %s exists with another definition", name).
			WithDetail("%s", "different: "+join(diff)).
			WithHint("its state belongs to the definition that it has; run the changed file under another --name, or delete the pipeline first: weir server --state %[2]s & weir pipelines delete %[1]s --state %[2]s", name, dir)
	}
	if err := q.keeps(); err != nil {
		return false, err
	}
	if query.OtherOptions(*v.Query, meant) {
		c.Note("pipeline %s takes its new options", name)
		change := coordinator.Change{Options: meant.Options}
		if change.Options == nil {
			change.Options = map[string]string{}
		}
		if _, err := cl.Update(ctx, name, change); err != nil {
			return false, err
		}
	}
	if v.Desired != api.WantRunning || v.Status.Phase == api.PhaseFailed {
		_, err = cl.Resume(ctx, name)
	}
	return false, err
}

// settled is the pipeline of that name; one that is being deleted goes first.
func settled(ctx context.Context, c *cli.Call, cl client, name string) (coordinator.PipelineView, error) {
	v, err := cl.Pipeline(ctx, name)
	if err == nil && v.Desired == api.WantDeleted {
		c.Note("pipeline %s is being deleted; the new one starts when it is gone", name)
		if err := cl.Delete(ctx, v.ID, rest.DeleteOptions{Wait: true}); err != nil && !errs.Is(err, errs.PipelineNotFound) {
			return v, err
		}
		v, err = cl.Pipeline(ctx, name)
	}
	return v, err
}

// introduce says what is about to run.
func (q queryDefinition) introduce(c *cli.Call) {
	var lines []string
	for _, s := range q.program.Sources {
		lines = append(lines, fmt.Sprintf("  reads   %s (%s)", s.Name, s.Connector))
	}
	for _, s := range q.program.Sinks {
		lines = append(lines, fmt.Sprintf("  writes  %s (%s)", s.Name, s.Connector))
	}
	for _, v := range q.program.Views {
		kind := "view "
		if v.Table {
			kind = "table"
		}
		lines = append(lines, fmt.Sprintf("  %s   %s (%s)", kind, v.Name, join(query.Names(v.Schema))))
	}
	end := "runs until interrupted"
	if q.program.Bounded {
		end = "ends when its sources have no more to give"
	}
	c.Note("pipeline %s: %s\n%s", q.spec.Name, end, strings.Join(lines, "\n"))
}

// conclusion is what a pipeline that has finished came to.
func conclusion(v coordinator.PipelineView, took time.Duration) string {
	text := fmt.Sprintf("%s finished in %s", v.Name, cli.Took(took))
	q := v.Status.Query
	if q == nil {
		return text
	}
	var in, out int64
	for _, f := range q.Sources {
		in += f.Rows
	}
	for _, f := range q.Sinks {
		out += f.Rows
	}
	text += fmt.Sprintf(": %s rows read, %s written", cli.Count(in), cli.Count(out))
	if q.Faults > 0 {
		text += fmt.Sprintf("; %s could not be evaluated", cli.Plural(int(q.Faults), "row"))
	}
	return text
}

// explainRecord is a program in `weir explain -o json` and `weir run --dry-run -o json`.
type explainRecord struct {
	Pipeline string   `json:"pipeline"`
	Bounded  bool     `json:"bounded"`
	Sources  []string `json:"sources"`
	Sinks    []string `json:"sinks"`
	Views    []string `json:"views"`
	Plan     string   `json:"plan"`
}

func (q queryDefinition) explain(c *cli.Call) error {
	r := explainRecord{Pipeline: q.spec.Name, Bounded: q.program.Bounded, Sources: []string{}, Sinks: []string{}, Views: []string{}, Plan: q.program.Explain()}
	for _, s := range q.program.Sources {
		r.Sources = append(r.Sources, s.Name)
	}
	for _, s := range q.program.Sinks {
		r.Sinks = append(r.Sinks, s.Name)
	}
	for _, v := range q.program.Views {
		r.Views = append(r.Views, v.Name)
	}
	return cli.PrintRecord(c, r, r.Pipeline, func(w io.Writer) { fmt.Fprintln(w, strings.TrimRight(r.Plan, "\n")) })
}

// explain plans a file and says how.
func (p *program) explain(ctx context.Context, c *cli.Call) error {
	f, set, err := p.readSQL(c)
	if err != nil {
		return err
	}
	if f.queries == nil {
		return errs.New(errs.SQLUnknownName, "%s has no query", f.name).WithHint("weir run %s --dry-run says what its mirrors would do", f.name)
	}
	q, err := f.query(ctx, set)
	if err != nil {
		return err
	}
	return q.explain(c)
}

// move stores secrets of those names that are in one store in another.
func move(names []string, from, to *secrets.Store) error {
	for _, name := range names {
		v, err := from.Get(name)
		if errs.Is(err, errs.SecretMissing) {
			continue // it was a reference before
		}
		if err == nil {
			err = to.Set(name, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sealAll gives the definitions as they are stored. Secrets go to the store of this machine, when it is known that the
// definition is not refused, if the node that runs it reads that store; a server elsewhere has its own and is given the
// text as it is.
func (d *definitions) sealAll(e *env.Env, c *cli.Call, store *secrets.Store, here bool) error {
	for i, q := range d.queries {
		aside := secrets.Open(e, secrets.Options{Getenv: c.Getenv})
		q, err := q.sealed(aside)
		if err != nil {
			return err
		}
		if here {
			q.spec.SQL, q.keep = q.meant, func() error { return move(query.Secrets(q.meant), aside, store) }
		} else {
			q.spec.SQL = parser.Print(q.script)
		}
		d.queries[i] = q
	}
	return nil
}
