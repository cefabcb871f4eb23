package query

import (
	"path/filepath"
	"strings"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/worker/keyed"
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
	Source func(e *env.Env, s plan.Source, w With) (dataflow.Source, error)
	Sink   func(e *env.Env, s plan.Sink, w With) (dataflow.Sink, error)
}

// With reads the options of a table, secrets put in. The table stands at pos of the file, and so does what is wrong.
type With func(values map[string]string) *with.Clause

// Env is what making the parts of a program takes.
type Env struct {
	Env        *env.Env
	Connectors map[string]Connector
	Expand     func(text string) (string, error)
	// Dir is where relative paths begin.
	Dir        string
	File, Text string // for positions
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
	p := parser.Locate(x.File, x.Text, pos)
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

// with is the reader of the options of tables of one source or sink. The first reference that cannot be resolved is kept
// in failed.
func (x Env) with(pos parser.Pos, failed *error) With {
	return func(values map[string]string) *with.Clause {
		full, err := expanded(values, x.Expand)
		if err != nil {
			*failed, full = err, values
		}
		if p, ok := full["path"]; ok && x.Dir != "" && p != "" && !filepath.IsAbs(p) && !strings.Contains(p, ":/") {
			full["path"] = filepath.Join(x.Dir, p)
			if strings.HasSuffix(p, "/") {
				full["path"] += "/"
			}
		}
		return with.New(full, func(string) *errs.Position { return x.at(pos) })
	}
}

// Sources makes a program's sources.
func (x Env) Sources(p *plan.Program) ([]keyed.Source, error) {
	var out []keyed.Source
	for _, s := range p.Sources {
		if s.Connector == "values" {
			out = append(out, keyed.Source{Name: s.Name, Source: &values{rows: s.Rows}, Tables: [][]row.Type{s.Tables[0].Types()}})
			continue
		}
		c, ok := x.Connectors[s.Connector]
		if !ok || c.Source == nil {
			return nil, x.placed(errs.New(errs.NotBuiltYet, "connector '%s' cannot be read from", s.Connector), s.Pos)
		}
		var failed error
		made, err := c.Source(x.Env, s, x.with(s.Pos, &failed))
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
		out = append(out, keyed.Source{Name: s.Name, Source: made, Tables: tables})
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
		made, err := c.Sink(x.Env, s, x.with(s.Pos, &failed))
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
