package query

import (
	"context"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// values is the source of VALUES: rows that stand in the text.
type values struct {
	rows *row.Batch
	done bool
}

var _ dataflow.Source = (*values)(nil)

// Open is part of dataflow.Source.
func (v *values) Open(_ context.Context, s dataflow.State) error {
	v.done = s["values"] != nil || v.rows == nil || v.rows.Rows() == 0
	return nil
}

// Read gives the rows once.
func (v *values) Read(ctx context.Context) (dataflow.Message, error) {
	if err := ctx.Err(); err != nil {
		return dataflow.Message{}, err
	}
	if v.done {
		return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, nil
	}
	v.done = true
	return dataflow.Message{Kind: dataflow.KindBatch, Batch: v.rows, Boundary: true, State: []dataflow.StateChange{{Key: "values", Value: []byte{1}}}}, nil
}

// Lasting is part of dataflow.Lasting.
func (v *values) Lasting() {}

// Whole is part of dataflow.Whole.
func (v *values) Whole() {}

// Confirm is part of dataflow.Source.
func (v *values) Confirm([]dataflow.StateChange) {}

// Close is part of dataflow.Source.
func (v *values) Close(context.Context) error { return nil }
