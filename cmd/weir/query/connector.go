package query

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/with"
	"github.com/weirstream/weir/sql/parser"
	"github.com/weirstream/weir/sql/plan"
)

// Connector makes the sources and sinks of one name in WITH ('connector' = ..). Making one has no effect outside: that
// begins when it is opened.
type Connector struct {
	Kind   plan.Kind
	Source func(m Make, s plan.Source) (dataflow.Source, error)
	Sink   func(m Make, s plan.Sink) (dataflow.Sink, error)
	// RemoveSource and RemoveSink delete what a pipeline that is deleted has made outside, and may be called again: slots,
	// ledgers. nil: there is nothing.
	RemoveSource func(ctx context.Context, m Make, s plan.Source) error
	RemoveSink   func(ctx context.Context, m Make, s plan.Sink) error
}

// Make is what a connector may use to make a source or a sink.
type Make struct {
	Env *env.Env
	// Pipeline is whose it will be; its ID is "" when it is made only to be looked at.
	Pipeline api.Pipeline
	// Zone is the session's time zone.
	Zone *time.Location
	// Parallelism is how many tasks a fragment has.
	Parallelism int
	// With reads the options of a table, with secrets put in and relative paths made absolute. What is wrong is placed
	// where the source or sink stands in the file.
	With func(values map[string]string) *with.Clause
}

// Env is what making the parts of a program takes.
type Env struct {
	Env         *env.Env
	Connectors  map[string]Connector
	Expand      func(text string) (string, error)
	Pipeline    api.Pipeline // see Make
	Zone        *time.Location
	Parallelism int
	Spec        api.QuerySpec // of which File and Dir are used
	Text        string        // that was planned: positions are in it
	// OnCommit is told of the transactions of internal tables; nil: nobody is.
	OnCommit func(took time.Duration, failed bool)
}

// Kinds is what the planner knows of connectors.
func Kinds(connectors map[string]Connector) map[string]plan.Kind {
	out := map[string]plan.Kind{}
	for name, c := range connectors {
		out[name] = c.Kind
	}
	return out
}

func (x Env) at(pos parser.Pos) *errs.Position {
	if pos.Offset < 0 {
		return nil // it came from a statement that was added
	}
	p := parser.Locate(x.Spec.File, x.Text, pos)
	return &p
}

// placed gives an error its place in the file, if it has none.
func (x Env) placed(err error, pos parser.Pos) error {
	if e, ok := errs.As(err); ok && e.Pos == nil {
		placed := *e
		placed.Pos = x.at(pos)
		return &placed
	}
	return err
}

// make is what the connector of a source or sink at pos is given. The first reference that cannot be resolved is kept in
// failed.
func (x Env) make(pos parser.Pos, failed *error) Make {
	m := Make{Env: x.Env, Pipeline: x.Pipeline, Zone: x.Zone, Parallelism: max(x.Parallelism, 1)}
	m.With = func(values map[string]string) *with.Clause {
		full, err := expanded(values, x.Expand)
		if err != nil {
			*failed, full = err, values
		}
		if p := full["path"]; x.Spec.Dir != "" && Relative(p) {
			full["path"] = filepath.Join(x.Spec.Dir, p)
			if strings.HasSuffix(p, "/") {
				full["path"] += "/"
			}
		}
		return with.New(full, func(string) *errs.Position { return x.at(pos) })
	}
	return m
}

// Sources makes a program's sources.
func (x Env) Sources(p *plan.Program) ([]keyed.Source, error) {
	var out []keyed.Source
	for _, s := range p.Sources {
		if s.Connector == "values" {
			out = append(out, keyed.Source{Name: s.Name, First: s.First, Source: operator.NewConstant(s.Rows), Tables: [][]row.Type{s.Tables[0].Types()}})
			continue
		}
		if s.Connector == plan.TableConnector {
			out = append(out, x.tables(s))
			continue
		}
		c, ok := x.Connectors[s.Connector]
		if !ok || c.Source == nil {
			return nil, x.placed(errs.New(errs.NotBuiltYet, "connector '%s' cannot be read from", s.Connector), s.Pos)
		}
		var failed error
		made, err := c.Source(x.make(s.Pos, &failed), s)
		if failed != nil {
			err = failed
		}
		if err != nil {
			return nil, x.placed(err, s.Pos)
		}
		var tables [][]row.Type
		for i := range s.Tables {
			tables = append(tables, s.Tables[i].Types())
		}
		out = append(out, keyed.Source{Name: s.Name, First: s.First, Source: made, Tables: tables})
	}
	return out, nil
}

// Sinks makes a program's sinks.
func (x Env) Sinks(p *plan.Program) ([]keyed.Sink, error) {
	var out []keyed.Sink
	for _, s := range p.Sinks {
		c, ok := x.Connectors[s.Connector]
		if !ok || c.Sink == nil {
			return nil, x.placed(errs.New(errs.NotBuiltYet, "connector '%s' cannot be written to", s.Connector), s.Pos)
		}
		var failed error
		made, err := c.Sink(x.make(s.Pos, &failed), s)
		if failed != nil {
			err = failed
		}
		if err != nil {
			return nil, x.placed(err, s.Pos)
		}
		var tables [][]row.Type
		for _, t := range s.Tables {
			tables = append(tables, t.Schema.Types())
		}
		out = append(out, keyed.Sink{Name: s.Name, Sink: made, Tables: tables})
	}
	return out, nil
}

// Remove deletes what the program's sources and sinks have made outside.
func (x Env) Remove(ctx context.Context, p *plan.Program) error {
	for _, s := range p.Sources {
		if remove := x.Connectors[s.Connector].RemoveSource; remove != nil {
			var failed error
			if err := errors.Join(remove(ctx, x.make(s.Pos, &failed), s), failed); err != nil {
				return err
			}
		}
	}
	for _, s := range p.Sinks {
		if remove := x.Connectors[s.Connector].RemoveSink; remove != nil {
			var failed error
			if err := errors.Join(remove(ctx, x.make(s.Pos, &failed), s), failed); err != nil {
				return err
			}
		}
	}
	return nil
}

// Relative tells whether a path of a table begins in the pipeline's directory.
func Relative(path string) bool {
	return path != "" && !filepath.IsAbs(path) && !strings.Contains(path, ":/")
}

// Check makes a program's sources and sinks and throws them away, so that what is wrong with their options is told before
// anything begins.
func (x Env) Check(p *plan.Program) error {
	if _, err := x.Sources(p); err != nil {
		return err
	}
	_, err := x.Sinks(p)
	return err
}

// Names are the names of a schema's columns.
func Names(s row.Schema) []string {
	var out []string
	for _, f := range s {
		out = append(out, f.Name)
	}
	return out
}

// ColumnNames are the names of some of them.
func ColumnNames(s row.Schema, columns []int) []string {
	var out []string
	for _, c := range columns {
		out = append(out, s[c].Name)
	}
	return out
}
