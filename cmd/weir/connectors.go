package main

import (
	"os"

	"github.com/weirstream/weir/cdc/datagen"
	sourcefiles "github.com/weirstream/weir/cdc/files"
	"github.com/weirstream/weir/cmd/weir/query"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sinks/blackhole"
	sinkfiles "github.com/weirstream/weir/sinks/files"
	"github.com/weirstream/weir/sinks/print"
	"github.com/weirstream/weir/sql/plan"
)

// connectors lists what a table of SQL can be, by the name in WITH. installation is the state directory's, by which
// objects in users' databases are named.
func connectors(installation string) map[string]query.Connector {
	return map[string]query.Connector{
		"postgres-cdc": postgresCDC(installation),
		"jdbc":         jdbc(),
		"filesystem": {
			Kind: plan.Kind{Source: true, Sink: true, SinkChangelog: true, SinkKeyless: true,
				Bounded: func(o map[string]string) bool { return o["source.monitor-interval"] == "" }},
			Source: filesSource, Sink: filesSink,
		},
		"datagen": {
			Kind: plan.Kind{Source: true, Bounded: func(o map[string]string) bool {
				for k, v := range o {
					if k == "number-of-rows" || v == "sequence" { // fields.x.kind = sequence ends with the sequence
						return true
					}
				}
				return false
			}},
			Source: func(m query.Make, s plan.Source) (dataflow.Source, error) {
				t := s.Tables[0]
				if err := noMetadata(s); err != nil {
					return nil, err
				}
				o, err := datagen.ParseOptions(t.Schema, m.With(t.Options))
				if err != nil {
					return nil, err
				}
				o.Columns, o.Zone = append([]int{}, t.Columns...), m.Zone
				return datagen.New(m.Env, o)
			},
		},
		"print": {
			Kind: plan.Kind{Sink: true, SinkChangelog: true, SinkKeyless: true},
			Sink: func(m query.Make, s plan.Sink) (dataflow.Sink, error) {
				var tables []print.Options
				out := os.Stdout
				for _, t := range s.Tables {
					o, err := print.ParseOptions(t.Schema, t.Key, m.With(t.Options))
					if err != nil {
						return nil, err
					}
					if o.StandardError {
						out = os.Stderr
					}
					o.Zone = m.Zone
					tables = append(tables, o)
				}
				return print.New(out, tables...), nil
			},
		},
		"blackhole": {
			Kind: plan.Kind{Sink: true, SinkChangelog: true, SinkKeyless: true},
			Sink: func(m query.Make, s plan.Sink) (dataflow.Sink, error) {
				for _, t := range s.Tables {
					if err := blackhole.ParseOptions(m.With(t.Options)); err != nil {
						return nil, err
					}
				}
				return blackhole.New(blackhole.Options{Tables: len(s.Tables), Tasks: m.Parallelism}), nil
			},
		},
	}
}

func filesSource(m query.Make, s plan.Source) (dataflow.Source, error) {
	t := s.Tables[0]
	if err := noMetadata(s); err != nil {
		return nil, err
	}
	o, err := sourcefiles.ParseOptions(t.Schema, append([]int{}, t.Columns...), nil, m.With(t.Options))
	if err != nil {
		return nil, err
	}
	return sourcefiles.New(m.Env, o)
}

func filesSink(m query.Make, s plan.Sink) (dataflow.Sink, error) {
	var tables []sinkfiles.Options
	for _, t := range s.Tables {
		o, err := sinkfiles.ParseOptions(t.Schema, query.ColumnNames(t.Schema, t.PartitionBy), m.With(t.Options))
		if err != nil {
			return nil, err
		}
		if !t.Append && !o.Changelog {
			return nil, errs.New(errs.SQLNotBuilt, "the rows of table %s change after they were written, and files hold inserts only", t.Name).
				WithHint("'sink.changelog' = 'true' adds a column op with +I and -D to the files, so that they can hold both")
		}
		o.Pipeline = m.Pipeline.ID
		tables = append(tables, o)
	}
	return sinkfiles.New(m.Env, tables...)
}

// noMetadata refuses metadata columns of connectors that have none.
func noMetadata(s plan.Source) error {
	for _, t := range s.Tables {
		for c := range t.Metadata {
			return errs.New(errs.NotBuiltYet, "column %s of table %s is a metadata column, which connector '%s' does not have", t.Schema[c].Name, t.Name, s.Connector)
		}
	}
	return nil
}
