package joins

import "github.com/weirstream/weir/engine/state"

// cursor goes through an input's rows of a key, with weights: those in the bag, then those that the epoch changed, then
// the NULL row.
type cursor struct {
	bag     *state.Bag
	first   state.Ref // the first row in the bag, 0: none
	changes *changes
	changed int32 // the first changed row, -1: none; used if changes is set
	times   int64 // what their weights are multiplied by
	null    []byte
	nulls   int64 // the weight of the NULL row, 0: it is not there
	fixed   int64 // of a delta's row, which stands alone: its weight

	stage  stage
	ref    state.Ref
	number int32
	row    []byte
	weight int64
}

type stage uint8

const (
	inBag stage = iota
	inChanges
	atNull
	atEnd
)

// rewind goes to the first row, and tells whether there is one.
func (c *cursor) rewind() bool {
	if c.fixed != 0 {
		c.stage, c.weight = atNull, c.fixed
		return true
	}
	if c.first != 0 {
		c.stage = inBag
		c.stand(c.first)
		return true
	}
	return c.toChanges()
}

// next goes on, and tells whether there was another row.
func (c *cursor) next() bool {
	switch c.stage {
	case inBag:
		if n := c.bag.Next(c.ref); n != 0 {
			c.stand(n)
			return true
		}
		return c.toChanges()
	case inChanges:
		return c.change(c.changes.rows[c.number].next)
	}
	return false
}

func (c *cursor) stand(r state.Ref) {
	c.ref, c.row, c.weight = r, c.bag.Row(r), c.bag.Weight(r)
}

func (c *cursor) toChanges() bool {
	if c.changes == nil {
		return c.toNull()
	}
	return c.change(c.changed)
}

func (c *cursor) change(n int32) bool {
	if n < 0 {
		return c.toNull()
	}
	c.stage, c.number = inChanges, n
	c.row, c.weight = c.changes.row(n), c.times*c.changes.rows[n].weight
	return true
}

func (c *cursor) toNull() bool {
	if c.nulls == 0 {
		c.stage = atEnd
		return false
	}
	c.stage, c.row, c.weight = atNull, c.null, c.nulls
	return true
}
