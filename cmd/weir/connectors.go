package main

import (
	"os"

	"github.com/weirstream/weir/cdc/datagen"
	sourcefiles "github.com/weirstream/weir/cdc/files"
	"github.com/weirstream/weir/cmd/weir/query"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sinks/blackhole"
	sinkfiles "github.com/weirstream/weir/sinks/files"
	"github.com/weirstream/weir/sinks/print"
	"github.com/weirstream/weir/sql/plan"
)

// connectors lists what a table of SQL can be, by the name in WITH.
func connectors() map[string]query.Connector {
	return map[string]query.Connector{
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
			Source: func(e *env.Env, s plan.Source, w query.With) (dataflow.Source, error) {
				t := s.Tables[0]
				if err := noMetadata(s); err != nil {
					return nil, err
				}
				o, err := datagen.ParseOptions(t.Schema, w(t.Options))
				if err != nil {
					return nil, err
				}
				o.Columns = append([]int{}, t.Columns...)
				return datagen.New(e, o)
			},
		},
		"print": {
			Kind: plan.Kind{Sink: true, SinkChangelog: true, SinkKeyless: true},
			Sink: func(_ *env.Env, s plan.Sink, w query.With) (dataflow.Sink, error) {
				var tables []print.Options
				out := os.Stdout
				for _, t := range s.Tables {
					o, err := print.ParseOptions(t.Schema, t.Key, w(t.Options))
					if err != nil {
						return nil, err
					}
					if o.StandardError {
						out = os.Stderr
					}
					tables = append(tables, o)
				}
				return print.New(out, tables...), nil
			},
		},
		"blackhole": {
			Kind: plan.Kind{Sink: true, SinkChangelog: true, SinkKeyless: true},
			Sink: func(_ *env.Env, s plan.Sink, w query.With) (dataflow.Sink, error) {
				for _, t := range s.Tables {
					if err := blackhole.ParseOptions(w(t.Options)); err != nil {
						return nil, err
					}
				}
				return blackhole.New(blackhole.Options{Tables: len(s.Tables), Tasks: maxTasks}), nil
			},
		},
	}
}

// maxTasks is how many tasks a pipeline has of a fragment at most: the largest parallelism.
const maxTasks = 256

func filesSource(e *env.Env, s plan.Source, w query.With) (dataflow.Source, error) {
	t := s.Tables[0]
	if err := noMetadata(s); err != nil {
		return nil, err
	}
	o, err := sourcefiles.ParseOptions(t.Schema, append([]int{}, t.Columns...), nil, w(t.Options))
	if err != nil {
		return nil, err
	}
	return sourcefiles.New(e, o)
}

func filesSink(e *env.Env, s plan.Sink, w query.With) (dataflow.Sink, error) {
	var tables []sinkfiles.Options
	for _, t := range s.Tables {
		o, err := sinkfiles.ParseOptions(t.Schema, query.ColumnNames(t.Schema, t.PartitionBy), w(t.Options))
		if err != nil {
			return nil, err
		}
		if !t.Append && !o.Changelog {
			return nil, errs.New(errs.SQLNotBuilt, "the rows of table %s change after they were written, and files hold inserts only", t.Name).
				WithHint("'sink.changelog' = 'true' adds a column op with +I and -D to the files, so that they can hold both")
		}
		tables = append(tables, o)
	}
	return sinkfiles.New(e, tables...)
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
