package joins

import (
	"errors"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// Kind is what a join does with rows that match and rows that do not.
type Kind uint8

// The kinds. Left, Right and Full preserve the rows of a side, or both, with NULLs in place of the other's columns where
// nothing matches. Semi gives the left rows that match something, Anti those that match nothing.
const (
	Inner Kind = iota + 1
	Left
	Right
	Full
	Semi
	Anti
)

// Options describes a Regular.
type Options struct {
	// Name begins the names of its states, which it has only if it has a Condition and is not Inner: see States.
	Name string
	Kind Kind
	// Left and Right are indexes of the same task (Task.Peer), made with codecs of the same types. For a self-join they
	// may be the same. A join is made after every join whose rows come to one of its indexes, which is so where operators
	// are made in the graph's order.
	Left, Right *Index
	// Output are the columns that it emits. Those of Semi and Anti are the left side's.
	Output []Column
	// Condition may be nil. It gets batches of the columns Tested.
	Condition Condition
	Tested    []Column
}

// States are the names of the states that a join of that name and kind opens besides its indexes.
func States(name string, kind Kind, condition bool) []string {
	var names []string
	for side, suffix := range [2]string{"/left", "/right"} {
		if condition && kind.counts(side) {
			names = append(names, name+suffix)
		}
	}
	return names
}

// counts tells whether what the join does with a row of a side depends on how many match it.
func (k Kind) counts(side int) bool {
	switch k {
	case Left, Semi, Anti:
		return side == 0
	case Right:
		return side == 1
	}
	return k == Full
}

// Regular joins two indexes. It has no input of its own.
type Regular struct {
	o Options
}

// NewRegular attaches a join to its indexes.
func NewRegular(task dataflow.Task, out dataflow.Emitter, o Options) (*Regular, error) {
	return &Regular{o: o}, nil
}

// Process is never called: what a join gets, it gets from its indexes.
func (j *Regular) Process(int, *row.Batch) error {
	return errors.New("a join has no input beside its indexes")
}

// Barrier emits what the epoch changed of the rows without a match, and of a Semi join of those with one.
func (j *Regular) Barrier(e dataflow.Epoch) error { return nil }
