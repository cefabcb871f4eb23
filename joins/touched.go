package joins

import (
	"bytes"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// touched are the rows of a side that an epoch changed, or whose matches it changed, each once with the sums of the
// changes. It lives within an epoch.
type touched struct {
	slots []uint32 // open addressing; the number of a row + 1
	rows  []touchedRow
	heap  []byte
}

type touchedRow struct {
	hash     uint64
	keyHash  uint64
	key      state.Ref // in the side's index, where it stays during the epoch: it has the row, or had it
	off, len int
	weight   int64 // the row's weight has changed by so much
	matches  int64 // and the weights of its matches, times its own
}

// find is the number of a row under a key, which is added without changes if it is new.
func (t *touched) find(key state.Ref, keyHash uint64, r []byte) int {
	if 4*(len(t.rows)+1) > 3*len(t.slots) {
		t.grow()
	}
	h := row.HashBytes(r) ^ keyHash*0x9E3779B97F4A7C15
	mask := uint64(len(t.slots) - 1)
	at := h & mask
	for ; t.slots[at] != 0; at = (at + 1) & mask {
		n := int(t.slots[at] - 1)
		if o := &t.rows[n]; o.hash == h && o.key == key && bytes.Equal(t.row(n), r) {
			return n
		}
	}
	t.rows = append(t.rows, touchedRow{hash: h, keyHash: keyHash, key: key, off: len(t.heap), len: len(r)})
	t.heap = append(t.heap, r...)
	t.slots[at] = uint32(len(t.rows))
	return len(t.rows) - 1
}

func (t *touched) grow() {
	t.slots = make([]uint32, max(2*len(t.slots), 64))
	mask := uint64(len(t.slots) - 1)
	for n := range t.rows {
		at := t.rows[n].hash & mask
		for t.slots[at] != 0 {
			at = (at + 1) & mask
		}
		t.slots[at] = uint32(n + 1)
	}
}

func (t *touched) row(n int) []byte {
	r := &t.rows[n]
	return t.heap[r.off : r.off+r.len : r.off+r.len]
}

// reset forgets all rows. After an epoch with few of them it does not go through a table that one with many has made.
func (t *touched) reset() {
	if mask := uint64(len(t.slots) - 1); len(t.rows) < len(t.slots)/16 {
		for n := range t.rows {
			at := t.rows[n].hash & mask
			for t.slots[at] != uint32(n+1) { // slots on the way may be cleared already
				at = (at + 1) & mask
			}
			t.slots[at] = 0
		}
	} else {
		clear(t.slots)
	}
	t.rows, t.heap = t.rows[:0], t.heap[:0]
}
