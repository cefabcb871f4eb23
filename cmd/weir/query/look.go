package query

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
)

// StateEntries is what the state of a view, or of nodes, has for a key. node is a view's name, the ID of a node or its
// beginning, or a kind of operators, such as aggregate. key is the values of the key's columns as text, with commas in
// between.
func (r *Runner) StateEntries(ctx context.Context, pipeline, node, key string) ([]api.StateEntries, error) {
	r.mu.Lock()
	var run *running
	for _, x := range r.mu.runs {
		if x.pipeline.Name == pipeline || x.pipeline.ID == pipeline {
			run = x
		}
	}
	r.mu.Unlock()
	if run == nil {
		return nil, errs.New(errs.PipelineNotFound, "no pipeline of queries %s runs", pipeline).WithHint("weir pipelines list shows all")
	}
	run.mu.Lock()
	pipe := run.pipe
	run.mu.Unlock()
	select {
	case <-run.done:
		pipe = nil
	default:
	}
	if pipe == nil {
		return nil, errs.New(errs.PipelineState, "pipeline %s does not run", pipeline).WithHint("weir pipelines get %s shows why", pipeline)
	}
	out := []api.StateEntries{}
	matched, fits := false, false
	for n := range run.program.Graph.Nodes {
		x := &run.program.Graph.Nodes[n]
		if len(x.States) == 0 || !(x.Kind == "view" && x.Detail == node || x.Kind == node || strings.HasPrefix(x.ID, node)) {
			continue
		}
		matched = true
		entries, err := pipe.Look(ctx, n, func(c *row.KeyCodec) *row.Batch {
			b := keyOf(c, key)
			fits = fits || b != nil
			return b
		})
		if err != nil {
			return nil, err
		}
		if len(entries) == 0 {
			continue
		}
		found := api.StateEntries{Operator: strings.TrimSpace(x.Kind + " " + x.Detail), Node: x.ID, Entries: []api.StateEntry{}}
		for _, e := range entries {
			found.Entries = append(found.Entries, entryOf(x, e.State, e.Bytes, e.Weight))
		}
		out = append(out, found)
	}
	switch {
	case !matched:
		var views []string
		for _, v := range run.program.Views {
			views = append(views, v.Name)
		}
		slices.Sort(views)
		return nil, errs.New(errs.BadFlag, "pipeline %s has no view or operator with state that is called %s", pipeline, node).
			WithHint("views are %s; weir state size %s shows the operators", strings.Join(views, ", "), pipeline)
	case !fits:
		return nil, errs.New(errs.BadFlag, "%q is no key of %s", key, node).WithHint("write the values of its key's columns in their order, with commas in between")
	}
	return out, nil
}

// keyOf makes a key of a text, nil if it is none for the codec.
func keyOf(c *row.KeyCodec, text string) *row.Batch {
	columns := c.Columns()
	parts := []string{text}
	if len(columns) != 1 {
		parts = strings.Split(text, ",")
	}
	if len(columns) == 0 {
		parts = nil
	}
	if len(parts) != len(columns) {
		return nil
	}
	var types []row.Type
	for _, k := range columns {
		types = append(types, k.Type)
	}
	b := row.NewBuilder(types)
	b.Reset()
	for i, p := range parts {
		if p = strings.TrimSpace(p); p == "NULL" {
			b.Cols[i].AppendNull(types[i].Layout())
		} else if row.ParseText(b.Cols[i], types[i], []byte(p), time.UTC) != nil {
			return nil
		}
	}
	b.EndRow(1)
	return b.Seal()
}

func entryOf(n *dataflow.Node, state string, b []byte, weight int64) api.StateEntry {
	e := api.StateEntry{State: strings.TrimPrefix(strings.TrimPrefix(state, n.ID), "/"), Count: weight}
	if e.State == "" {
		e.State = "rows"
	}
	if n.Keeps != dataflow.KeepsNothing && weight != 0 {
		codec := row.NewCodec(n.Schema.Types())
		if codec.Check(b) == nil {
			out := row.NewBuilder(n.Schema.Types())
			out.Reset()
			for c := range out.Cols {
				codec.Decode(out.Cols[c], 0, c, [][]byte{b})
			}
			out.EndRow(1)
			e.Row = rowJSON(n.Schema, out.Seal(), 0)
			return e
		}
	}
	e.Bytes = hex.EncodeToString(b)
	return e
}
