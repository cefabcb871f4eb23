package postgres

import (
	"bytes"

	"github.com/zeebo/xxh3"

	"github.com/weirstream/weir/engine/changelog"
)

// buffer holds what an epoch does to one table, one row for each key: a row written ten times is written once. That is
// right because nobody sees the target between two commits; what the order inside the epoch still matters for (a value
// that moves from one row to another under a unique index) is dealt with where rows are applied.
//
// While only inserts have come, keys are not even looked at. Rows refer to the batches' arenas, which the applier keeps
// until the buffer is applied.
type buffer struct {
	rows    []pending
	keyed   bool     // rows are indexed by key
	slots   []uint32 // open addressing: index+1 into rows, 0 free
	keys    []byte   // the rows' key bytes
	merged  []byte   // images completed here
	live    int
	scratch []byte
}

// pending is the net effect on one key.
type pending struct {
	op     changelog.Op // 0: nothing is left to do
	fresh  bool         // the target has no such row: it was inserted in this epoch
	keyAt  uint32       // range in keys, once keyed
	keyEnd uint32
	net    int32 // of tally: how many more rows there are than before
	hash   uint64
	img    changelog.Image // the row after, or for a delete an image that holds the key
}

func (b *buffer) reset() {
	clear(b.rows)
	b.rows = b.rows[:0]
	b.keyed, b.live = false, 0
	b.keys, b.merged = b.keys[:0], b.merged[:0]
	if cap(b.keys) > 1<<20 {
		b.keys = nil
	}
	if cap(b.merged) > 1<<20 {
		b.merged = nil
	}
}

// appendKey appends the key columns' kinds and bytes.
func appendKey(dst []byte, img changelog.Image, key []int) []byte {
	it := img.Iter()
	next := 0
	if len(key) == 1 || ascending(key) {
		for col := 0; next < len(key); col++ {
			kind, raw := it.Next()
			if kind == 0 {
				break
			}
			if col == key[next] {
				dst = append(dst, kind)
				dst = append(dst, raw...)
				next++
			}
		}
		return dst
	}
	for _, k := range key {
		it := img.Iter()
		for col := 0; ; col++ {
			kind, raw := it.Next()
			if kind == 0 {
				break
			}
			if col == k {
				dst = append(dst, kind)
				dst = append(dst, raw...)
				break
			}
		}
	}
	return dst
}

func ascending(key []int) bool {
	for i := 1; i < len(key); i++ {
		if key[i] <= key[i-1] {
			return false
		}
	}
	return true
}

// insert takes a new row. img must stay valid until reset.
func (b *buffer) insert(img changelog.Image, key []int) {
	if !b.keyed {
		b.rows = append(b.rows, pending{op: changelog.Insert, fresh: true, img: img})
		b.live++
		return
	}
	p, isNew := b.find(img, key)
	switch {
	case isNew:
		*p = pending{op: changelog.Insert, fresh: true, keyAt: p.keyAt, keyEnd: p.keyEnd, hash: p.hash, img: img}
		b.live++
	case p.op == 0 && p.fresh:
		p.op, p.img = changelog.Insert, img
		b.live++
	case p.fresh:
		p.op, p.img = changelog.Insert, img
	default:
		// Deleted in this epoch and inserted again: the row is still in the target, so it is overwritten.
		p.op, p.img = changelog.Update, img
	}
}

// update takes a row whose key did not change.
func (b *buffer) update(img changelog.Image, key []int) {
	b.index(key)
	p, isNew := b.find(img, key)
	if isNew {
		p.op, p.img = changelog.Update, img
		b.live++
		return
	}
	if p.op == 0 {
		// Inserted and deleted in this epoch, then updated: the source cannot do that. Keep the word of the last one.
		p.op, p.img = changelog.Update, img
		b.live++
		return
	}
	if p.op != changelog.Delete && img.HasUnsent() {
		at := len(b.merged)
		b.merged = changelog.AppendMerged(b.merged, img, p.img)
		img = changelog.Image(b.merged[at:len(b.merged):len(b.merged)])
	}
	if p.op == changelog.Delete {
		p.op = changelog.Update
	}
	p.img = img
}

// remove takes a row's end; img holds its key.
func (b *buffer) remove(img changelog.Image, key []int) {
	b.index(key)
	p, isNew := b.find(img, key)
	if isNew {
		p.op, p.img = changelog.Delete, img
		b.live++
		return
	}
	if p.fresh {
		if p.op != 0 {
			b.live--
		}
		p.op = 0
		return
	}
	p.op, p.img = changelog.Delete, img
}

// tally counts a row that comes or goes, where the key is all columns and rows of one image may come and go many times.
// What is left of it are deletes of rows that the target has, and inserts.
func (b *buffer) tally(img changelog.Image, all []int, by int32) {
	b.index(all)
	p, isNew := b.find(img, all)
	if isNew {
		p.img = img
	}
	if p.op != 0 {
		b.live--
	}
	p.net += by
	switch {
	case p.net > 0:
		p.op = changelog.Insert
	case p.net < 0:
		p.op = changelog.Delete
	default:
		p.op = 0
		return
	}
	b.live++
}

// peek returns what is pending for img's key, nil if nothing is.
func (b *buffer) peek(img changelog.Image, key []int) *pending {
	if len(b.rows) == 0 {
		return nil
	}
	b.index(key)
	b.scratch = appendKey(b.scratch[:0], img, key)
	i, ok := b.lookup(b.scratch, xxh3.Hash(b.scratch))
	if !ok {
		return nil
	}
	return &b.rows[b.slots[i]-1]
}

// index starts keeping keys, for the inserts that came before the first change that needs them.
func (b *buffer) index(key []int) {
	if b.keyed {
		return
	}
	b.keyed = true
	clear(b.slots)
	b.grow(len(b.rows) + 1)
	for i := range b.rows {
		p := &b.rows[i]
		p.keyAt = uint32(len(b.keys))
		b.keys = appendKey(b.keys, p.img, key)
		p.keyEnd = uint32(len(b.keys))
		p.hash = xxh3.Hash(b.keys[p.keyAt:p.keyEnd])
		at, found := b.lookup(b.keys[p.keyAt:p.keyEnd], p.hash)
		if found { // the same key inserted twice: the later one counts, as the target would have refused it
			older := &b.rows[b.slots[at]-1]
			older.op, older.keyEnd = 0, older.keyAt
			b.live--
		}
		b.slots[at] = uint32(i) + 1
	}
}

// find returns the row for img's key, adding one if there is none.
func (b *buffer) find(img changelog.Image, key []int) (p *pending, isNew bool) {
	b.grow(len(b.rows) + 1)
	at := len(b.keys)
	b.keys = appendKey(b.keys, img, key)
	k := b.keys[at:]
	hash := xxh3.Hash(k)
	slot, found := b.lookup(k, hash)
	if found {
		b.keys = b.keys[:at]
		return &b.rows[b.slots[slot]-1], false
	}
	b.rows = append(b.rows, pending{keyAt: uint32(at), keyEnd: uint32(len(b.keys)), hash: hash})
	b.slots[slot] = uint32(len(b.rows))
	return &b.rows[len(b.rows)-1], true
}

func (b *buffer) lookup(key []byte, hash uint64) (slot int, found bool) {
	mask := uint64(len(b.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := b.slots[i]
		if s == 0 {
			return int(i), false
		}
		p := &b.rows[s-1]
		if p.hash == hash && bytes.Equal(b.keys[p.keyAt:p.keyEnd], key) {
			return int(i), true
		}
	}
}

// grow keeps the table at most half full.
func (b *buffer) grow(rows int) {
	if rows*2 <= len(b.slots) {
		return
	}
	n := max(len(b.slots)*2, 256)
	for n < rows*2 {
		n *= 2
	}
	b.slots = make([]uint32, n)
	mask := uint64(n - 1)
	for i := range b.rows {
		p := &b.rows[i]
		if p.keyEnd == p.keyAt {
			continue // not indexed yet
		}
		j := p.hash & mask
		for b.slots[j] != 0 {
			j = (j + 1) & mask
		}
		b.slots[j] = uint32(i) + 1
	}
}
