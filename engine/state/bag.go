package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/weirstream/weir/engine/row"
)

// Bag holds, for each key, rows with weights: what a join keeps of a side. Its keys are the entries of a Map (Keys),
// found there by the batch; the rows of a key are a list in the order of arrival.
//
// A bag that takes retractions finds the row that one belongs to by going through the key's list while it is short, and
// otherwise by a second hash table over the rows of all keys that have many; one that only ever grows has none and keeps
// each arrival as it is.
//
// Below memory a key's changes of each checkpoint are one value, and the rows are their sum: adding to a key of a
// million rows writes what was added. When the values of a key have become many and long beside what is left of it,
// they are written anew as one.
type Bag struct {
	m        *Map
	store    *Store
	retract  bool
	header   int     // length of a row's header
	index    []table // rows by the hash of key and row, of the keys whose bagRows say indexed
	rows     int64
	rowBytes int64
	touched  []Ref // keys changed since the last checkpoint
	loading  bool
}

// The value of a bag's key.
const (
	bagHead     = 0  // u32 Ref of the first row
	bagTail     = 4  // u32
	bagRows     = 8  // u32; with the bit indexed
	bagSegments = 12 // u32 how many values lie below memory, the open one included
	bagSince    = 16 // u32 how many changes they hold
	bagGrave    = 20 // u32 the checkpoint that left the key without rows, if it is among the graves
	bagWeight   = 24 // i64 sum of the rows' weights
	bagValueLen = 32
)

// A row is next u32 | length u32 | weight i32, where rows can be taken out also prev u32 | key's entry u32, and the bytes.
const (
	nodeNext    = 0
	nodeLen     = 4
	nodeWeight  = 8
	nodeGrowing = 12 // length of the header of a bag that only grows
	nodePrev    = 12
	nodeKey     = 16
	nodeStamp   = 20 // u32 the interval in which the row's weight changed last, and u32 chunk and place of its add then
	nodeChunk   = 24
	nodeOff     = 28
	nodeRetract = 32 // length of the header otherwise
)

// indexed tells that the rows of a key are in the index: so they are from the first time that it has more than listRows
// until it has none.
const (
	indexed  = 1 << 31
	listRows = 4
)

// rewriteSegments is from how many values on a key's are written anew, if they hold twice what is left.
const rewriteSegments = 16

// Bag opens the state of that name. Without retract no weight below 1 may be added.
func (s *Store) Bag(name string, codec *row.KeyCodec, retract bool) (*Bag, error) {
	m, err := s.Map(name, codec, bagValueLen, nil)
	if err != nil {
		return nil, err
	}
	b := &Bag{m: m, store: s, retract: retract, header: nodeGrowing}
	m.bag = b
	if retract {
		b.header = nodeRetract
		b.index = make([]table, s.groups)
	}
	s.bags = append(s.bags, b)
	return b, nil
}

// Keys are the bag's keys: Find and FindOrAdd there. Their values are the bag's own.
func (b *Bag) Keys() *Map { return b.m }

// First is the first row of a key, 0 if it has none, and Next the one behind a row.
func (b *Bag) First(key Ref) Ref {
	if key == 0 {
		return 0
	}
	return Ref(b.store.arena.u32(key, entryValue+bagHead))
}

// Next is the row behind one, 0 behind the last.
func (b *Bag) Next(r Ref) Ref { return Ref(b.store.arena.u32(r, nodeNext)) }

// Row is the bytes of a row, valid until it is taken out.
func (b *Bag) Row(r Ref) []byte {
	return b.store.arena.bytes(r, b.header, int(b.store.arena.u32(r, nodeLen)))
}

// Weight of a row.
func (b *Bag) Weight(r Ref) int64 { return int64(int32(b.store.arena.u32(r, nodeWeight))) }

// Sum is the sum of the weights of a key's rows.
func (b *Bag) Sum(key Ref) int64 {
	if key == 0 {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(b.store.arena.bytes(key, entryValue+bagWeight, 8)))
}

// Count is how many different rows a key has, or how many arrivals in a bag that only grows.
func (b *Bag) Count(key Ref) int {
	if key == 0 {
		return 0
	}
	return int(b.store.arena.u32(key, entryValue+bagRows) &^ indexed)
}

// Mark is a number that the bag's owner has set for a key in this process, 0 or any other at first. It is not kept.
func (b *Bag) Mark(key Ref) uint32 { return b.store.arena.u32(key, entryTouched) }

// SetMark sets the key's mark.
func (b *Bag) SetMark(key Ref, mark uint32) { b.store.arena.setU32(key, entryTouched, mark) }

// Find is the row of a key with these bytes, 0 if it has none; only of a bag that takes retractions. hash is the key's.
func (b *Bag) Find(key Ref, hash uint64, r []byte) Ref {
	if key == 0 {
		return 0
	}
	return b.find(key, hash, r)
}

// Near brings the first rows of keys into the cache, so that the waits for memory overlap: of the rows of b that count,
// whose keys' entries are refs.
func (b *Bag) Near(batch *row.Batch, refs []Ref) {
	var sum byte
	for k := range batch.Rows() {
		if r := b.First(refs[batch.At(k)]); r != 0 {
			sum += b.store.arena.bytes(r, nodeWeight, 1)[0]
		}
	}
	b.store.sink(sum)
}

// AddAll is Add of every row of batch that counts, with its weight: its key's entry and hash are in refs and keys, its
// bytes are a span of heap.
func (b *Bag) AddAll(batch *row.Batch, keys *row.Keys, refs []Ref, spans []row.Span, heap []byte) error {
	var sum byte
	a, n := b.store.arena, batch.Rows()
	for from := 0; from < n; from += probeWidth {
		to := min(from+probeWidth, n)
		for k := from; k < to; k++ {
			i := batch.At(k)
			e := a.bytes(refs[i], entryValue, bagValueLen)
			near := binary.LittleEndian.Uint32(e[bagTail:])
			if b.retract && binary.LittleEndian.Uint32(e[bagRows:])&indexed == 0 {
				near = binary.LittleEndian.Uint32(e[bagHead:])
			}
			if near != 0 {
				sum += a.bytes(Ref(near), nodeNext, 1)[0]
			}
		}
		for k := from; k < to; k++ {
			i := batch.At(k)
			s := spans[i]
			if _, err := b.Put(refs[i], keys.Hash[i], heap[s.Off:s.Off+s.Len], batch.Weight(i)); err != nil {
				return err
			}
		}
	}
	b.store.sink(sum)
	return nil
}

// Add changes the weight of a row under a key by w. hash is the key's.
func (b *Bag) Add(key Ref, hash uint64, r []byte, w int64) error {
	_, err := b.Put(key, hash, r, w)
	return err
}

// Put is Add that returns the row, 0 if it is gone by it.
func (b *Bag) Put(key Ref, hash uint64, r []byte, w int64) (Ref, error) {
	if w < math.MinInt32 || w > math.MaxInt32 {
		return 0, fmt.Errorf("state %s: a row of weight %d", b.m.name, w)
	}
	a := b.store.arena
	e := a.bytes(key, 0, entryValue+bagValueLen)
	if !b.loading {
		if binary.LittleEndian.Uint32(e[entryDirty:]) != b.store.interval {
			binary.LittleEndian.PutUint32(e[entryDirty:], b.store.interval)
			b.touched = append(b.touched, key)
			addU32(e, entryValue+bagSegments, 1)
		}
	}
	addU32(e, entryValue+bagSince, 1)
	sum := e[entryValue+bagWeight:]
	binary.LittleEndian.PutUint64(sum, binary.LittleEndian.Uint64(sum)+uint64(w))
	if !b.retract {
		if w < 1 {
			return 0, fmt.Errorf("state %s only grows and got a row of weight %d", b.m.name, w)
		}
		n := b.append(key, e, r, int32(w))
		if !b.loading && b.store.keepAdds {
			b.grew(key, hash, n, len(r))
		}
		return n, nil
	}
	if n := b.find(key, hash, r); n != 0 {
		old := int64(int32(a.u32(n, nodeWeight)))
		if old+w > math.MaxInt32 || old+w < math.MinInt32 {
			return 0, fmt.Errorf("state %s: a row of weight %d", b.m.name, old+w)
		}
		b.logRow(key, hash, n, r, int32(w))
		if old+w == 0 {
			b.remove(e, hash, n)
			return 0, nil
		}
		a.setU32(n, nodeWeight, uint32(int32(old+w)))
		return n, nil
	}
	n := b.append(key, e, r, int32(w))
	b.logRow(key, hash, n, r, int32(w))
	switch rows := binary.LittleEndian.Uint32(e[entryValue+bagRows:]); {
	case rows&indexed != 0:
		b.link(hash, n)
	case rows > listRows:
		addU32(e, entryValue+bagRows, indexed)
		for n := b.First(key); n != 0; n = b.Next(n) {
			b.link(hash, n)
		}
	}
	return n, nil
}

// link puts a row into the index.
func (b *Bag) link(hash uint64, n Ref) {
	b.rowBytes += linkSlot(b.store.arena, &b.index[b.store.group(hash)], uint32(rowHash(hash, b.Row(n))), n)
}

func addU32(b []byte, off int, v uint32) {
	binary.LittleEndian.PutUint32(b[off:], binary.LittleEndian.Uint32(b[off:])+v)
}

// rowHash spreads the rows of a key; its tag must not depend on the key alone.
func rowHash(key uint64, r []byte) uint64 { return row.HashBytes(r) ^ key*0x9E3779B97F4A7C15 }

// grew notes a row for the next delta, which finds it where it lies.
func (b *Bag) grew(key Ref, hash uint64, n Ref, size int) {
	s := b.store
	k := sortKey{hi: hash>>48<<48 | uint64(b.m.id)<<16, addPlace: addPlace{uint32(key), uint32(n)}}
	var front uint64 // the first 8 of the key's bytes, and 2 more
	if b.m.intKey {
		front = row.IntKeyFront(b.m.IntKey(key), b.m.codec.IntKeyWidth())
	} else {
		var more uint64
		front, more = keyPrefix(b.m.Key(nil, key))
		k.lo = more >> 48
	}
	k.hi |= front >> 48
	k.lo |= front << 16
	s.grown = append(s.grown, k)
	s.grownBytes += addHeader + recordPrefix + size
}

// log notes an add for the next delta.
func (b *Bag) log(key Ref, hash uint64, r []byte, w int32) addPlace {
	s := b.store
	var prefix [recordPrefix]byte
	binary.BigEndian.PutUint16(prefix[:], uint16(hash>>48))
	binary.BigEndian.PutUint32(prefix[2:], b.m.id)
	if b.m.intKey {
		s.scratch = b.m.Key(s.scratch[:0], key)
		return s.log.append(prefix, s.scratch, r, w)
	}
	return s.log.append(prefix, b.m.Key(nil, key), r, w)
}

// logRow is log of a row that can be taken out: within a checkpoint it has one add, whose weight changes.
func (b *Bag) logRow(key Ref, hash uint64, n Ref, r []byte, w int32) {
	if b.loading || !b.store.keepAdds {
		return
	}
	node := b.store.arena.bytes(n, 0, nodeRetract)
	if binary.LittleEndian.Uint32(node[nodeStamp:]) == b.store.interval {
		b.store.log.change(addPlace{binary.LittleEndian.Uint32(node[nodeChunk:]), binary.LittleEndian.Uint32(node[nodeOff:])}, w)
		return
	}
	p := b.log(key, hash, r, w)
	binary.LittleEndian.PutUint32(node[nodeStamp:], b.store.interval)
	binary.LittleEndian.PutUint32(node[nodeChunk:], p.chunk)
	binary.LittleEndian.PutUint32(node[nodeOff:], p.off)
}

func (b *Bag) appendKey(dst []byte, key Ref) []byte {
	if b.m.intKey {
		return b.m.Key(dst, key)
	}
	return append(dst, b.m.Key(nil, key)...)
}

// append puts a row at the end of its key's list. e is the key's entry.
func (b *Bag) append(key Ref, e, r []byte, w int32) Ref {
	a := b.store.arena
	n := a.alloc(b.header + len(r))
	node := a.bytes(n, 0, b.header+len(r))
	tail := binary.LittleEndian.Uint32(e[entryValue+bagTail:])
	binary.LittleEndian.PutUint32(node[nodeNext:], 0)
	if b.retract {
		binary.LittleEndian.PutUint32(node[nodePrev:], tail)
		binary.LittleEndian.PutUint32(node[nodeKey:], uint32(key))
		binary.LittleEndian.PutUint32(node[nodeStamp:], 0)
	}
	binary.LittleEndian.PutUint32(node[nodeLen:], uint32(len(r)))
	binary.LittleEndian.PutUint32(node[nodeWeight:], uint32(w))
	copy(node[b.header:], r)
	if tail == 0 {
		binary.LittleEndian.PutUint32(e[entryValue+bagHead:], uint32(n))
	} else {
		a.setU32(Ref(tail), nodeNext, uint32(n))
	}
	binary.LittleEndian.PutUint32(e[entryValue+bagTail:], uint32(n))
	addU32(e, entryValue+bagRows, 1)
	b.rows++
	b.rowBytes += int64(len(node))
	return n
}

// remove takes a row out of its key's list and, if it is there, out of the index. e is the key's entry.
func (b *Bag) remove(e []byte, hash uint64, n Ref) {
	a := b.store.arena
	rows := binary.LittleEndian.Uint32(e[entryValue+bagRows:])
	if rows&indexed != 0 {
		unlinkSlot(a, &b.index[b.store.group(hash)], uint32(rowHash(hash, b.Row(n))), n)
	}
	next, prev, size := a.u32(n, nodeNext), a.u32(n, nodePrev), b.header+int(a.u32(n, nodeLen))
	if prev == 0 {
		binary.LittleEndian.PutUint32(e[entryValue+bagHead:], next)
	} else {
		a.setU32(Ref(prev), nodeNext, next)
	}
	if next == 0 {
		binary.LittleEndian.PutUint32(e[entryValue+bagTail:], prev)
	} else {
		a.setU32(Ref(next), nodePrev, prev)
	}
	if rows--; rows == indexed {
		rows = 0
	}
	binary.LittleEndian.PutUint32(e[entryValue+bagRows:], rows)
	b.rows--
	b.rowBytes -= int64(size)
	a.release(n, size)
}

// find is the row of a key with these bytes, 0 if it has none. Rows of other keys may have the same.
func (b *Bag) find(key Ref, hash uint64, r []byte) Ref {
	if b.store.arena.u32(key, entryValue+bagRows)&indexed == 0 {
		n := b.First(key)
		for n != 0 && !bytes.Equal(b.Row(n), r) {
			n = b.Next(n)
		}
		return n
	}
	t, h := &b.index[b.store.group(hash)], rowHash(hash, r)
	slots := b.store.arena.words(t.slots, int(t.mask)+1)
	tag := uint32(h)
	for at := tag & t.mask; ; at = (at + 1) & t.mask {
		s := slots[at]
		if uint32(s) == 0 {
			return 0
		}
		if uint32(s>>32) == tag && Ref(b.store.arena.u32(Ref(s), nodeKey)) == key && bytes.Equal(b.Row(Ref(s)), r) {
			return Ref(s)
		}
	}
}

// takeDelta makes records for the keys that have no rows any more and for those whose values are written anew. The adds
// themselves are in the store's log.
func (b *Bag) takeDelta(d *Delta, checkpoint uint64) {
	a := b.store.arena
	for _, key := range b.touched {
		e := a.bytes(key, 0, entryValue+bagValueLen)
		rows := binary.LittleEndian.Uint32(e[entryValue+bagRows:]) &^ indexed
		switch {
		case rows == 0:
			d.below(b, key, checkpoint+1)
			if b.store.backing != nil {
				a.setU32(key, entryValue+bagGrave, uint32(checkpoint))
				b.m.graves = append(b.m.graves, grave{key, checkpoint})
			} else {
				b.m.unlink(b.m.hash(key), key)
				b.m.entries--
				b.m.releaseEntry(key)
			}
		case binary.LittleEndian.Uint32(e[entryValue+bagSegments:]) >= rewriteSegments && binary.LittleEndian.Uint32(e[entryValue+bagSince:]) >= 2*rows:
			d.below(b, key, checkpoint)
			d.rewrite(b, key, checkpoint)
			binary.LittleEndian.PutUint32(e[entryValue+bagSegments:], 1)
			binary.LittleEndian.PutUint32(e[entryValue+bagSince:], rows)
		}
	}
	b.touched = b.touched[:0]
}

func (d *Delta) bagRecord(op Op, b *Bag, key Ref, checkpoint uint64, value []byte) {
	var c [8]byte
	binary.BigEndian.PutUint64(c[:], checkpoint)
	b.store.scratch = b.appendKey(b.store.scratch[:0], key)
	d.put(op, b.m.hash(key), b.m.id, b.store.scratch, c[:], value)
}

func (d *Delta) below(b *Bag, key Ref, checkpoint uint64) {
	d.bagRecord(DeleteBelow, b, key, checkpoint, nil)
}

func (d *Delta) rewrite(b *Bag, key Ref, checkpoint uint64) {
	value := b.m.kept[:0]
	for n := b.First(key); n != 0; n = b.Next(n) {
		r := b.Row(n)
		value = binary.LittleEndian.AppendUint32(value, uint32(int32(b.Weight(n))))
		value = binary.LittleEndian.AppendUint32(value, uint32(len(r)))
		value = append(value, r...)
	}
	b.m.kept = value
	d.bagRecord(rewrite, b, key, checkpoint, value)
}

// unbury is Map.unbury for keys that are there without a row.
func (b *Bag) unbury(absorbed uint64) {
	m, a := b.m, b.store.arena
	kept := m.graves[:0]
	for _, g := range m.graves {
		switch {
		case g.checkpoint > absorbed:
			kept = append(kept, g)
		case a.u32(g.entry, entryValue+bagGrave) != uint32(g.checkpoint) || a.u32(g.entry, entryValue+bagRows) != 0:
			// It has rows again, or was emptied again since.
		case a.u32(g.entry, entryDirty) == b.store.interval:
			// Changed since the last delta: the next one decides, and counts it anew.
		default:
			m.unlink(m.hash(g.entry), g.entry)
			m.entries--
			m.releaseEntry(g.entry)
		}
	}
	m.graves = kept
}

// load brings the rows of a key into memory; prefix is the key's records'. It returns 0 if there is none.
func (b *Bag) load(t *table, h uint64, keys *row.Keys, i int, prefix []byte) (Ref, error) {
	var key Ref
	err := b.store.backing.Scan(prefix, func(k, v []byte) error {
		if len(k) != len(prefix)+8 {
			return fmt.Errorf("state %s: key %x in the place of %x and a checkpoint", b.m.name, k, prefix)
		}
		if key == 0 {
			key = b.m.back(t, h, keys, i)
		}
		return b.loadValue(key, h, k, v)
	})
	if err != nil || key == 0 {
		return 0, err
	}
	return key, nil
}

// loadValue adds what lies below memory for a key at record k to the key's rows.
func (b *Bag) loadValue(key Ref, hash uint64, k, v []byte) error {
	addU32(b.store.arena.bytes(key, 0, entryValue+bagValueLen), entryValue+bagSegments, 1)
	var err error
	b.loading = true
	ok := bagValue(v, func(w int32, r []byte) {
		if err == nil {
			err = b.Add(key, hash, r, int64(w))
		}
	})
	b.loading = false
	if err == nil && !ok {
		err = fmt.Errorf("state %s: the value of key %x is not a list of rows", b.m.name, k)
	}
	return err
}
