// Package joins holds the operators that match rows of changelogs.
//
// An Index keeps the rows of one changelog by key. A Regular join matches two indexes, a Star any number of them on one
// key; several joins share an index. Every join is symmetric: which input is read first is not part of the contract, the
// net changelog of an epoch is, and the tests compare it with a nested loop over the accumulated inputs.
package joins

import (
	"github.com/weirstream/weir/engine/row"
)

// Column is a column of one of a join's inputs.
type Column struct {
	Input  int // which index: 0 is the left one of a Regular, 1 the right one; the place in a Star's Inputs
	Column int // of the index's input; it is among the index's Columns
}

// Condition is what pairs of equal keys have to fulfil besides. It is a pure function of the pair.
type Condition interface {
	// Run appends to sel those of the rows of b that count for which the condition is TRUE, in their order. Weights of b
	// are what the pairs change by, so that a fault can be told with its weight. clock is that of the last barrier.
	Run(b *row.Batch, clock int64, sel []int32) ([]int32, error)
}
