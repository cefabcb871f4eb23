package main

import (
	"context"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weirstream/weir/cmd/weir/query"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
	"github.com/weirstream/weir/internal/options"
	"github.com/weirstream/weir/internal/secrets"
	"github.com/weirstream/weir/sql/parser"
	"github.com/weirstream/weir/sql/plan"
)

// readSQL reads the file that is the command's first argument, and the settings in force.
func (p *program) readSQL(c *cli.Call) (*sqlFile, options.Set, error) {
	path := c.Arg(0)
	text, err := readLimited(path, parser.MaxBytes)
	if err != nil {
		return nil, options.Set{}, err
	}
	f := &sqlFile{program: p, call: c, name: filepath.ToSlash(path), text: string(text), connections: map[string]api.Connection{}}
	if err := f.read(); err != nil {
		return nil, options.Set{}, err
	}
	set, err := p.options(c, f.settings())
	return f, set, err
}

func (p *program) run(ctx context.Context, c *cli.Call) error {
	f, set, err := p.readSQL(c)
	if err != nil {
		return err
	}
	d := definitions{mirrors: f.specs}
	if f.queries != nil {
		q, err := f.query(ctx, set)
		if err != nil {
			return err
		}
		d.queries = append(d.queries, q)
	} else if c.Given("name") {
		return errs.New(errs.BadFlag, "--name names a pipeline of queries, and %s has none", f.name).WithHint("a mirror's name stands in its CREATE MIRROR")
	}
	return p.start(ctx, c, d, set)
}

// sqlFile turns the statements of a file into definitions. SET holds for the mirrors after it, as in Flink.
type sqlFile struct {
	program     *program
	call        *cli.Call
	name, text  string
	sets        []*parser.Set
	connections map[string]api.Connection
	specs       []api.MirrorSpec
	script      *parser.Script
	queries     *parser.Script // nil: only mirrors
}

func (f *sqlFile) fail(code errs.Code, at parser.Pos, format string, args ...any) *errs.Error {
	return errs.New(code, format, args...).At(parser.Locate(f.name, f.text, at))
}

// place gives an error that came from checking a definition its position in the file.
func (f *sqlFile) place(err error, at parser.Pos) error {
	if e, ok := errs.As(err); ok && e.Pos == nil {
		return e.At(parser.Locate(f.name, f.text, at))
	}
	return err
}

func (f *sqlFile) read() error {
	script, err := parser.Parse(f.name, f.text)
	if err != nil {
		return err
	}
	f.script, f.queries = script, query.Queries(script)
	for _, s := range script.Statements {
		switch s := s.(type) {
		case *parser.Set:
			if query.Foreign(s.Key.Text) {
				if s.Key.Text != plan.StateTTL { // which the planner takes
					f.call.Note("note: %s is Flink's and changes nothing here", s.Key.Text)
				}
				continue
			}
			// Checked at once, so that a mistake is told at its place even if no mirror follows.
			f.sets = append(f.sets, s)
			if _, err := options.Resolve(f.settings()); err != nil {
				return err
			}
		case *parser.Reset:
			f.reset(s)
		case *parser.CreateConnection:
			err = f.connection(s)
		case *parser.CreateMirror:
			err = f.mirror(s)
		}
		if err != nil {
			return err
		}
	}
	if len(f.specs) == 0 && f.queries == nil {
		return errs.New(errs.SQLUnknownName, "%s has nothing to run", f.name).
			WithDetail("it has no INSERT INTO, no CREATE MATERIALIZED VIEW and no CREATE MIRROR").
			WithHint("for a query: INSERT INTO sink SELECT ... FROM source; for a mirror: CREATE MIRROR name FROM source TO target TABLES 'public.*';")
	}
	return nil
}

// reset takes settings back.
func (f *sqlFile) reset(s *parser.Reset) {
	f.sets = slices.DeleteFunc(f.sets, func(set *parser.Set) bool { return s.Key == nil || set.Key.Text == s.Key.Text })
}

// settings are the SETs so far. Of several for one key the last counts.
func (f *sqlFile) settings() options.Layer {
	l := options.Layer{Origin: f.name, Values: map[string]string{}}
	at := map[string]parser.Pos{}
	for _, s := range f.sets {
		l.Values[s.Key.Text], at[s.Key.Text] = s.Value.Text, s.Key.Pos
	}
	l.Pos = func(key string) *errs.Position {
		p := parser.Locate(f.name, f.text, at[key])
		return &p
	}
	return l
}

func (f *sqlFile) connection(s *parser.CreateConnection) error {
	if _, twice := f.connections[s.Name.Text]; twice {
		return f.fail(errs.SQLSyntax, s.Name.Pos, "connection %s is created twice", s.Name.Text)
	}
	known := []string{"url", "connector", "hostname", "port", "username", "password", "database-name", "sslmode"}
	given := map[string]string{}
	for _, o := range s.Properties {
		if !slices.Contains(known, o.Key.Text) {
			e := f.fail(errs.UnknownOption, o.Key.Pos, "a connection has no option '%s'", o.Key.Text)
			if hint := nearest.Hint(o.Key.Text, known); hint != "" {
				return e.WithHint("%s", hint)
			}
			return e.WithHint("it takes %s", strings.Join(known, ", "))
		}
		given[o.Key.Text] = o.Value.Text
	}
	if connector := given["connector"]; connector != "" && !slices.Contains([]string{"postgres", "postgres-cdc"}, connector) {
		return f.fail(errs.NotBuiltYet, s.Pos, "connector '%s' is not built yet", connector).WithHint("postgres is")
	}
	full := given["url"]
	switch {
	case full != "" && given["hostname"] != "":
		return f.fail(errs.SQLSyntax, s.Pos, "connection %s has both a url and a hostname", s.Name.Text)
	case full == "" && given["hostname"] == "":
		return f.fail(errs.SQLSyntax, s.Pos, "connection %s has neither a url nor a hostname", s.Name.Text)
	case full == "":
		full = urlOf(given)
	}
	f.connections[s.Name.Text] = api.Connection{Name: s.Name.Text, URL: full}
	return nil
}

// urlOf puts a URL together. A value that is a reference stays one; every other is escaped.
func urlOf(given map[string]string) string {
	escape := func(s string) string {
		if secrets.References(s) {
			return s
		}
		return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
	}
	s := "postgres://"
	if given["username"] != "" {
		s += escape(given["username"])
		if given["password"] != "" {
			s += ":" + escape(given["password"])
		}
		s += "@"
	}
	s += given["hostname"]
	if given["port"] != "" {
		s += ":" + given["port"]
	}
	s += "/" + escape(given["database-name"])
	if given["sslmode"] != "" {
		s += "?sslmode=" + escape(given["sslmode"])
	}
	return s
}

func (f *sqlFile) endpoint(e parser.Endpoint) (api.Connection, error) {
	if e.URL.Text != "" {
		return api.Connection{URL: e.URL.Text}, nil
	}
	if conn, ok := f.connections[e.Name.Text]; ok {
		return conn, nil
	}
	var names []string
	for name := range f.connections {
		names = append(names, name)
	}
	slices.Sort(names)
	err := f.fail(errs.SQLUnknownName, e.Name.Pos, "there is no connection %s", e.Name.Text)
	if hint := nearest.Hint(e.Name.Text, names); hint != "" {
		return api.Connection{}, err.WithHint("%s", hint)
	}
	return api.Connection{}, err.WithHint("CREATE CONNECTION %s WITH ('url' = '...') must stand before it", e.Name.Text)
}

func (f *sqlFile) mirror(s *parser.CreateMirror) error {
	spec := api.MirrorSpec{Name: s.Name.Text, Tables: textsOf(s.Tables), Except: textsOf(s.Except), Exclude: textsOf(s.ExcludeColumns)}
	for _, other := range f.specs {
		if other.Name == spec.Name {
			return f.fail(errs.SQLSyntax, s.Name.Pos, "mirror %s is created twice", spec.Name)
		}
	}
	var err error
	if spec.Source, err = f.endpoint(s.From); err != nil {
		return err
	}
	if spec.Target, err = f.endpoint(s.To); err != nil {
		return err
	}
	for _, r := range s.Routes {
		spec.Routes = append(spec.Routes, api.Route{From: r.From.Text, To: r.To.Text})
	}
	for _, w := range s.Filters {
		spec.Filters = append(spec.Filters, api.Filter{Table: w.Table.Text, Where: w.Where.Text})
	}
	if err := finish(&spec); err != nil {
		return f.place(err, s.Pos)
	}
	with := options.Layer{Origin: f.name, Values: map[string]string{}, Pos: func(key string) *errs.Position {
		for _, o := range s.Properties {
			if o.Key.Text == key {
				p := parser.Locate(f.name, f.text, o.Key.Pos)
				return &p
			}
		}
		return nil
	}}
	for _, o := range s.Properties {
		with.Values[o.Key.Text] = o.Value.Text
	}
	// WITH is nearer to the mirror than SET.
	set, err := f.program.options(f.call, with, f.settings())
	if err != nil {
		return err
	}
	spec.Options = set.Stored(options.Pipeline)
	f.specs = append(f.specs, spec)
	return nil
}

func textsOf(ls []parser.Literal) []string {
	var out []string
	for _, l := range ls {
		out = append(out, split([]string{l.Text})...)
	}
	return out
}
