package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/cmd/weir/query"
	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
	"github.com/weirstream/weir/internal/options"
	"github.com/weirstream/weir/internal/pg"
	"github.com/weirstream/weir/internal/secrets"
)

// mirrorFlags describe what is mirrored; mirror and verify share the selecting ones.
func selectionFlags() []cli.Flag {
	return []cli.Flag{
		{Name: "tables", Short: "t", Kind: cli.ListFlag, Value: "GLOBS", Help: "tables to mirror, comma-separated globs over schema.table (default *.*)"},
		{Name: "except", Kind: cli.ListFlag, Value: "GLOBS", Help: "tables to leave out"},
		{Name: "route", Kind: cli.ListFlag, Value: "FROM=TO", Help: "rename tables: the stars of FROM fill those of TO; the first route that matches wins"},
		{Name: "exclude-column", Kind: cli.ListFlag, Value: "GLOBS", Help: "columns to leave out, globs over schema.table.column"},
		{Name: "filter", Kind: cli.ListFlag, Value: "'TABLE: CONDITION'", Help: "keep only the rows for which the SQL condition is true"},
	}
}

// specFromFlags reads the description of a mirror. Its connections are still as the user wrote them.
func specFromFlags(c *cli.Call, source, target string) (api.MirrorSpec, error) {
	spec := api.MirrorSpec{
		Name:   c.Text("name"),
		Source: connectionOf(source), Target: connectionOf(target),
		Tables: split(c.List("tables")), Except: split(c.List("except")), Exclude: split(c.List("exclude-column")),
	}
	for _, text := range split(c.List("route")) {
		from, to, ok := strings.Cut(text, "=")
		if !ok || from == "" || to == "" {
			return spec, errs.New(errs.BadPattern, "--route takes FROM=TO, not %q", text).WithHint("for example --route 'public.*=mirror.*'")
		}
		spec.Routes = append(spec.Routes, api.Route{From: strings.TrimSpace(from), To: strings.TrimSpace(to)})
	}
	for _, text := range c.List("filter") {
		table, where, ok := strings.Cut(text, ":")
		if table, where = strings.TrimSpace(table), strings.TrimSpace(where); !ok || table == "" || where == "" {
			return spec, errs.New(errs.BadPattern, "--filter takes 'TABLE: CONDITION', not %q", text).
				WithHint(`for example --filter "public.orders: region = 'eu'"`)
		} else {
			spec.Filters = append(spec.Filters, api.Filter{Table: table, Where: where})
		}
	}
	return spec, finish(&spec)
}

// finish fills in defaults and refuses patterns that cannot be meant.
func finish(spec *api.MirrorSpec) error {
	if len(spec.Tables) == 0 {
		spec.Tables = []string{"*.*"}
	}
	for _, list := range [][]string{spec.Tables, spec.Except} {
		for _, glob := range list {
			if err := checkGlob(glob, 2); err != nil {
				return err
			}
		}
	}
	for _, glob := range spec.Exclude {
		if err := checkGlob(glob, 3); err != nil {
			return err
		}
	}
	for _, f := range spec.Filters {
		if err := checkGlob(f.Table, 2); err != nil {
			return err
		}
	}
	for _, r := range spec.Routes {
		if err := checkGlob(r.From, 2); err != nil {
			return err
		}
		if err := checkGlob(r.To, 2); err != nil {
			return err
		}
		if from, to := strings.Count(r.From, "*"), strings.Count(r.To, "*"); to > from {
			return errs.New(errs.BadPattern, "route %s=%s: the right side has %d stars, the left side only %d to fill them", r.From, r.To, to, from)
		}
	}
	return nil
}

// checkGlob is what can be said of a pattern without the database: its number of parts.
func checkGlob(glob string, parts int) error {
	got, quoted, empty := 1, false, true
	for _, r := range glob {
		switch {
		case r == '"':
			quoted = !quoted
		case r == '.' && !quoted:
			if empty {
				return errs.New(errs.BadPattern, "%q has an empty part", glob)
			}
			got++
			empty = true
			continue
		}
		empty = false
	}
	switch {
	case empty:
		return errs.New(errs.BadPattern, "%q has an empty part", glob)
	case quoted:
		return errs.New(errs.BadPattern, "%q has an opening quote that is not closed", glob)
	case got > parts && parts == 2:
		return errs.New(errs.BadPattern, "%q has %d parts, and tables are named schema.table", glob, got).WithHint("%s", selection.QuoteHint(glob))
	case got != parts && parts == 2:
		return errs.New(errs.BadPattern, "%q does not name tables as schema.table", glob).WithHint("public.%s, or *.%s for every schema", glob, glob)
	case got != parts:
		return errs.New(errs.BadPattern, "%q does not name columns as schema.table.column", glob)
	}
	return nil
}

// connectionOf tells a URL from the name of a stored connection. With a colon, a slash or an @ it is meant as a URL and
// may hold a password, also if it is too broken to be one; as a name it would be repeated in errors.
func connectionOf(text string) api.Connection {
	if strings.ContainsAny(text, "=:/@") || secrets.References(text) {
		return api.Connection{URL: text}
	}
	return api.Connection{Name: text}
}

// mirrorName is the default name of a mirror: that of its source's database.
func mirrorName(spec api.MirrorSpec, store *secrets.Store) string {
	base := spec.Source.Name
	if spec.Source.URL != "" {
		base = "database"
		if full, err := store.ExpandURL(spec.Source.URL); err == nil {
			if cfg, err := pg.ParseURL(full.Reveal()); err == nil {
				base = cfg.Database()
			}
		}
	}
	return "mirror_" + strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, base)
}

// A login opens a connection and ends it again.
type login func(ctx context.Context, cfg *pg.Config) error

// seal moves the passwords of both connections into the store. One that would take the place of another is tried first:
// a mirror that runs connects with the stored one the next time, and a mistyped one would end it. A nil login is for a
// store that nobody connects by.
func seal(ctx context.Context, spec *api.MirrorSpec, store *secrets.Store, try login) error {
	sides := []struct {
		name string
		code errs.Code
		conn *api.Connection
	}{{"source", errs.SourceUnreachable, &spec.Source}, {"target", errs.TargetUnreachable, &spec.Target}}
	for _, side := range sides {
		if try == nil || side.conn.URL == "" {
			continue
		}
		if err := tryNew(ctx, side.name, side.code, side.conn.URL, store, try); err != nil {
			return err
		}
	}
	for _, side := range sides {
		if side.conn.URL == "" {
			continue
		}
		url, err := store.Capture(side.conn.URL)
		if err != nil {
			return err
		}
		side.conn.URL = url
	}
	return nil
}

// tryNew connects if the URL has another password than the store. Only a login that works shows that the new one is
// right; a server that does not answer shows nothing.
func tryNew(ctx context.Context, side string, code errs.Code, url string, store *secrets.Store, try login) error {
	replaced, err := store.Replaces(url)
	if err != nil || len(replaced) == 0 {
		return err
	}
	full, err := store.ExpandURL(url)
	if err != nil {
		return err
	}
	cfg, err := pg.ParseURL(full.Reveal())
	if err != nil {
		return err
	}
	if err := try(ctx, cfg); err != nil {
		return errs.New(code, "cannot reach %s %s: %w", side, cfg.Server(), err).
			WithDetail("its URL has another password than the secret %s, which stays as it was", strings.Join(replaced, ", ")).
			WithHint("correct the password, or write '%s' in its place to go on with the stored one; a new one is stored when a login with it works", secrets.Reference(replaced[0])).
			Because(err)
	}
	return nil
}

// before holds the secrets that sealing some definitions sets, as they were before; empty: there was none of the name.
type before struct {
	store  *secrets.Store
	values map[string]secrets.Value
}

// beforeSealing finds the names by sealing into another store, which is thrown away.
func beforeSealing(ctx context.Context, specs []api.MirrorSpec, store, aside *secrets.Store) (before, error) {
	b := before{store, map[string]secrets.Value{}}
	for _, spec := range specs {
		if err := seal(ctx, &spec, aside, nil); err != nil {
			return b, err
		}
		for _, name := range secretsOf(spec) {
			v, err := store.Get(name)
			if err != nil && !errs.Is(err, errs.SecretMissing) {
				return b, err
			}
			b.values[name] = v
		}
	}
	return b, nil
}

func secretsOf(m api.MirrorSpec) []string {
	return append(secrets.Names(m.Source.URL), secrets.Names(m.Target.URL)...)
}

// secretsIn lists the stored secrets that a pipeline refers to.
func secretsIn(p api.Pipeline) []string {
	if p.Query != nil {
		return query.Secrets(strings.Join(append(p.Query.Added, p.Query.SQL), "\n"))
	}
	return secretsOf(p.Mirror)
}

// unlessBegun puts the secrets back of those mirrors that err, which it returns, has left nothing of.
func (b before) unlessBegun(e *env.Env, cl client, specs []api.MirrorSpec, err error) error {
	if err == nil || errors.Is(err, errDeleted) || len(b.values) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	views, verr := cl.Pipelines(ctx)
	if verr != nil {
		return err // then it is not known who needs them
	}
	if rerr := b.restore(views, specs); rerr != nil {
		e.Log.Warn("a password may be left in the secrets", "error", rerr)
	}
	return err
}

// restore spares what the mirrors of specs refer to, if they are among views, and takes nothing from the others.
func (b before) restore(views []coordinator.PipelineView, specs []api.MirrorSpec) error {
	ours, others := map[string]bool{}, map[string]bool{}
	for _, v := range views {
		by := others
		if slices.ContainsFunc(specs, func(s api.MirrorSpec) bool { return s.Name == v.Name }) {
			by = ours
		}
		for _, name := range secretsIn(v.Pipeline) {
			by[name] = true
		}
	}
	var failed []error
	for name, was := range b.values {
		switch {
		case ours[name]:
		case !was.Empty():
			failed = append(failed, b.store.Set(name, was))
		case !others[name]:
			if err := b.store.Delete(name); err != nil && !errs.Is(err, errs.SecretMissing) {
				failed = append(failed, err)
			}
		}
	}
	return errors.Join(failed...)
}

// complete gives a connection's URL with its secrets, for use in this process.
func complete(ctx context.Context, conn api.Connection, store *secrets.Store, cl client) (string, error) {
	if conn.URL == "" {
		var names []string
		if cl != nil {
			views, err := cl.Pipelines(ctx)
			if err != nil {
				return "", err
			}
			for _, v := range views {
				for _, known := range []api.Connection{v.Mirror.Source, v.Mirror.Target} {
					if known.Name == conn.Name && known.URL != "" {
						return complete(ctx, known, store, nil)
					}
					names = append(names, known.Name)
				}
			}
		}
		e := errs.New(errs.BadURL, "%q is neither a URL nor a connection that is known here", conn.Name)
		if near := nearest.Of(conn.Name, names); near != "" {
			return "", e.WithHint("did you mean %s?", near)
		}
		return "", e.WithHint("write postgres://USER@HOST:PORT/DATABASE")
	}
	full, err := store.ExpandURL(conn.URL)
	if err != nil {
		return "", err
	}
	// A URL that does not parse is refused here, where the message is made to hide passwords.
	if _, err := pg.ParseURL(full.Reveal()); err != nil {
		return "", err
	}
	return full.Reveal(), nil
}

// difference names the parts in which two definitions differ. Options are compared as stored, after normalizing.
func difference(a, b api.MirrorSpec) []string {
	var out []string
	add := func(name string, same bool) {
		if !same {
			out = append(out, name)
		}
	}
	add("source", sameConnection(a.Source, b.Source))
	add("target", sameConnection(a.Target, b.Target))
	add("tables", equal(a.Tables, b.Tables))
	add("except", equal(a.Except, b.Except))
	add("routes", equal(a.Routes, b.Routes))
	add("excluded columns", equal(a.Exclude, b.Exclude))
	add("filters", equal(a.Filters, b.Filters))
	for _, o := range options.All() {
		add("option "+o.Key, o.InForce(a.Options) == o.InForce(b.Options))
	}
	return out
}

func sameConnection(a, b api.Connection) bool {
	if a.URL == "" || b.URL == "" {
		return a.Name == b.Name
	}
	return a.URL == b.URL
}

func equal[T comparable](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
