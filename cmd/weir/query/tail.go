package query

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
	"github.com/weirstream/weir/sql/pgwire"
)

// view finds a view by its name, and its pipeline's where several have one of that name ("": any).
func (r *Runner) view(pipeline, name string) (pgwire.View, error) {
	var found []pgwire.View
	var names []string
	for _, v := range r.Views() {
		names = append(names, v.Name)
		if v.Name == name && (pipeline == "" || v.Pipeline == pipeline) {
			found = append(found, v)
		}
	}
	switch {
	case len(found) == 0:
		e := errs.New(errs.PipelineNotFound, "there is no view %s", name)
		if hint := nearest.Hint(name, names); hint != "" {
			return pgwire.View{}, e.WithHint("%s", hint)
		}
		return pgwire.View{}, e.WithHint("weir views list shows all")
	case len(found) > 1:
		var of []string
		for _, v := range found {
			of = append(of, v.Pipeline)
		}
		return pgwire.View{}, errs.New(errs.BadFlag, "view %s is in more than one pipeline: %s", name, strings.Join(of, ", ")).WithHint("name one of them with --pipeline")
	case found[0].Keyed == nil:
		return pgwire.View{}, errs.New(errs.PipelineState, "view %s cannot be read: pipeline %s is not running", name, found[0].Pipeline)
	}
	return found[0], nil
}

// Tail gives the rows of a view and then what each epoch changes in it, line by line, until ctx ends or out has an error.
func (r *Runner) Tail(ctx context.Context, pipeline, name string, out func(api.TailLine) error) error {
	v, err := r.view(pipeline, name)
	if err != nil {
		return err
	}
	first := api.View{Name: v.Name, Rows: -1, Columns: []api.Column{}, Key: append([]string{}, ColumnNames(v.Schema, v.Key)...)}
	for _, f := range v.Schema {
		first.Columns = append(first.Columns, api.Column{Name: f.Name, Type: f.Type.String()})
	}
	if err := out(api.TailLine{View: &first, Pipeline: v.Pipeline}); err != nil {
		return err
	}
	return v.Keyed.Follow(ctx, v.Node, func(epoch uint64, b *row.Batch, last bool) error {
		for k := range b.Rows() {
			i := b.At(k)
			line := api.TailLine{Epoch: epoch, Change: "+", Count: b.Weight(i), Row: rowJSON(v.Schema, b, i)}
			if line.Count < 0 {
				line.Change, line.Count = "-", -line.Count
			}
			if line.Count == 1 {
				line.Count = 0
			}
			if err := out(line); err != nil {
				return err
			}
		}
		if last {
			return out(api.TailLine{Epoch: epoch, Complete: true})
		}
		return nil
	})
}

// rowJSON is a row as an object, its columns in their order. Numbers and truth values are JSON's, where they are exact
// there; all else is text.
func rowJSON(s row.Schema, b *row.Batch, i int) json.RawMessage {
	out := []byte{'{'}
	for c, f := range s {
		if c > 0 {
			out = append(out, ',')
		}
		name, _ := json.Marshal(f.Name)
		out = append(append(out, name...), ':')
		out = append(out, valueJSON(f.Type, b.Cols[c], i)...)
	}
	return append(out, '}')
}

func valueJSON(t row.Type, v *row.Vector, i int) []byte {
	if v.Nulls.Is(i) {
		return []byte("null")
	}
	text := row.AppendText(nil, t, v, i, time.UTC)
	switch t.Kind {
	case row.TinyInt, row.SmallInt, row.Int, row.BigInt:
		return text
	case row.Boolean:
		return []byte(strings.ToLower(string(text)))
	case row.Float, row.Double, row.Decimal:
		if _, err := strconv.ParseFloat(string(text), 64); err == nil && json.Valid(text) {
			return text
		}
	}
	quoted, _ := json.Marshal(string(text)) // a string can always be
	return quoted
}
