package query

import (
	"slices"
	"strings"

	"github.com/weirstream/weir/sql/pgwire"
)

// Views are the views of all pipelines that were started, by pipeline and name. Those of one that does not run any more
// are there, and cannot be read.
func (r *Runner) Views() []pgwire.View {
	r.mu.Lock()
	var runs []*running
	for _, run := range r.mu.runs {
		runs = append(runs, run)
	}
	r.mu.Unlock()
	var out []pgwire.View
	for _, run := range runs {
		run.mu.Lock()
		pipe, tables := run.pipe, run.table
		run.mu.Unlock()
		select {
		case <-run.done:
			pipe = nil
		default:
		}
		for _, v := range run.program.Views {
			out = append(out, pgwire.View{Name: v.Name, Pipeline: run.pipeline.Name, Schema: v.Schema, Key: v.Key, Keyed: pipe, Node: v.Node, Table: v.Table, Tables: tables})
		}
	}
	slices.SortStableFunc(out, func(a, b pgwire.View) int {
		if c := strings.Compare(a.Pipeline, b.Pipeline); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}
