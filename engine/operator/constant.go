package operator

import (
	"context"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// Constant is a source of rows that are known beforehand: VALUES. Its one table is given once.
type Constant struct {
	batch *row.Batch
	given bool
}

// NewConstant returns the source of the rows of b, which it keeps.
func NewConstant(b *row.Batch) *Constant { return &Constant{batch: b} }

// Open is part of dataflow.Source.
func (c *Constant) Open(_ context.Context, s dataflow.State) error {
	c.given = len(s["given"]) > 0
	return nil
}

// Read is part of dataflow.Source.
func (c *Constant) Read(context.Context) (dataflow.Message, error) {
	if c.given || c.batch.Len == 0 {
		return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, nil
	}
	c.given = true
	return dataflow.Message{Kind: dataflow.KindBatch, Batch: c.batch, Boundary: true, State: []dataflow.StateChange{{Key: "given", Value: []byte{1}}}}, nil
}

// Lasting is part of dataflow.Lasting.
func (c *Constant) Lasting() {}

// Whole is part of dataflow.Whole.
func (c *Constant) Whole() {}

// Confirm is part of dataflow.Source.
func (c *Constant) Confirm([]dataflow.StateChange) {}

// Close is part of dataflow.Source.
func (c *Constant) Close(context.Context) error { return nil }
