package joins

import (
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// changes is what an epoch changed in an index: which keys, what the sum of their weights was before, and if a join
// asks for it, which rows by how much. It lasts until the index's first delta of the next epoch, so that joins, whose
// barrier comes behind the index's, can read it; a restored task begins with an epoch, and has none.
//
// A key's entry in the bag has its number here as its mark. A mark of an earlier epoch may name any number, also one that
// is in use, but then refs tells that it is another key's.
type changes struct {
	bag      *state.Bag
	intKey   bool
	withRows bool
	ended    bool   // the barrier has come
	epoch    uint64 // which one it ended

	keys        row.Keys
	refs        []state.Ref
	sums        []int64 // before the epoch
	first, last []int32 // places in rows; -1 for none

	rows []changedRow
	heap []byte

	part      row.Keys
	partBatch row.Batch
}

// changedRow is a change of a row's weight. Changes of a row are not added up.
type changedRow struct {
	off, len int
	weight   int64
	next     int32 // of the same key, -1 behind the last
}

// begin makes ready for a delta.
func (c *changes) begin() {
	if c.ended {
		c.reset()
	}
}

// end is the index's barrier.
func (c *changes) end(epoch uint64) {
	if c.ended {
		c.reset() // nothing came in between
	}
	c.ended, c.epoch = true, epoch
}

func (c *changes) reset() {
	c.ended = false
	c.keys = row.Keys{Hash: c.keys.Hash[:0], Int: c.keys.Int[:0], Spans: c.keys.Spans[:0], Heap: c.keys.Heap[:0]}
	c.refs, c.sums, c.first, c.last = c.refs[:0], c.sums[:0], c.first[:0], c.last[:0]
	c.rows, c.heap = c.rows[:0], c.heap[:0]
}

// note takes down that row i of the delta, whose binary row is r, is about to be added with weight w.
func (c *changes) note(d *delta, i int, r []byte, w int64) {
	ref := d.refs[i]
	at := c.find(ref)
	if at < 0 {
		at = len(c.refs)
		c.bag.SetMark(ref, uint32(at))
		c.refs = append(c.refs, ref)
		c.sums = append(c.sums, c.bag.Sum(ref))
		c.keys.Hash = append(c.keys.Hash, d.keys.Hash[i])
		if c.intKey {
			c.keys.Int = append(c.keys.Int, d.keys.Int[i])
		} else {
			k := d.keys.Bytes(i)
			c.keys.Spans = append(c.keys.Spans, row.Span{Off: uint32(len(c.keys.Heap)), Len: uint32(len(k))})
			c.keys.Heap = append(c.keys.Heap, k...)
		}
		c.first, c.last = append(c.first, -1), append(c.last, -1)
	}
	if !c.withRows {
		return
	}
	n := int32(len(c.rows))
	if c.first[at] < 0 {
		c.first[at] = n
	} else {
		c.rows[c.last[at]].next = n
	}
	c.last[at] = n
	c.rows = append(c.rows, changedRow{off: len(c.heap), len: len(r), weight: w, next: -1})
	c.heap = append(c.heap, r...)
}

// find is the number of a key, -1 if it was not changed.
func (c *changes) find(ref state.Ref) int {
	if m := int(c.bag.Mark(ref)); m < len(c.refs) && c.refs[m] == ref {
		return m
	}
	return -1
}

// of is c, if it is about the epoch that ends, or nil.
func (c *changes) of(epoch uint64) *changes {
	if c.ended && c.epoch == epoch {
		return c
	}
	return nil
}

// sum is the sum of a key's weights before the epoch, of which c is changes.of; now is the present one.
func (c *changes) sum(ref state.Ref, now int64) int64 {
	if c == nil || ref == 0 {
		return now
	}
	if at := c.find(ref); at >= 0 {
		return c.sums[at]
	}
	return now
}

func (c *changes) row(n int32) []byte {
	r := &c.rows[n]
	return c.heap[r.off : r.off+r.len : r.off+r.len]
}

// slice are the keys from one number to another, for Find, with a batch that fits. They are lent until the next call.
func (c *changes) slice(from, to int) (*row.Keys, *row.Batch) {
	c.part = row.Keys{Hash: c.keys.Hash[from:to], Heap: c.keys.Heap}
	if c.intKey {
		c.part.Int = c.keys.Int[from:to]
	} else {
		c.part.Spans = c.keys.Spans[from:to]
	}
	c.partBatch.Len = to - from
	return &c.part, &c.partBatch
}
