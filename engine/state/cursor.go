package state

import (
	"bytes"
	"encoding/binary"
)

// Cursor goes through a delta's records in order of their keys. No two of them are about the same key, and none is about
// a key that a DeleteBelow of the same delta takes away.
type Cursor struct {
	d     *Delta
	order []sortKey
	adds  []sortKey
	bag   *Bag // the last one asked for
	key   []byte
	value []byte
	keyed bool // key is that of the first adds
	// How many adds from the first on have been brought near, and how many of order.
	near, nearOrder int
	sum             byte
}

// Cursor begins at the first record. The delta is sorted.
func (d *Delta) Cursor() *Cursor { return &Cursor{d: d, order: d.order, adds: d.adds} }

// Next is the next record, lent until the one after it; false behind the last.
func (c *Cursor) Next() (Record, bool) {
	for {
		if !c.keyed && len(c.adds) > 0 {
			c.keyAdds()
		}
		if len(c.adds) > 0 && (len(c.order) == 0 || c.addsFirst()) {
			if len(c.order) > 0 {
				if p := c.order[0].addPlace; c.d.op(p) == DeleteBelow && sameStem(c.key, c.d.key(p)) {
					c.takeAdds(false)
					continue
				}
			}
			c.takeAdds(true)
			return Record{Op: Set, Key: c.key, Value: c.value}, true
		}
		if len(c.order) == 0 {
			return Record{}, false
		}
		if c.nearOrder == 0 {
			c.touchOrder()
		}
		at := c.order[0]
		op, r := c.d.op(at.addPlace), c.d.recordOf(at.addPlace)
		c.order, c.nearOrder = c.order[1:], c.nearOrder-1
		if op == rewrite && len(c.adds) > 0 && bytes.Equal(c.key, r.Key) {
			c.takeAdds(false)
		}
		if op != DeleteBelow && len(c.order) > 0 && c.order[0].hi == at.hi && c.order[0].lo == at.lo && bytes.Equal(c.d.key(c.order[0].addPlace), r.Key) {
			continue // a key that was removed and came back
		}
		return r, true
	}
}

// touchOrder brings the next records into the cache, so that the waits for memory overlap.
func (c *Cursor) touchOrder() {
	c.nearOrder = min(probeWidth, len(c.order))
	for _, k := range c.order[:c.nearOrder] {
		chunk := c.d.records.chunks[k.chunk]
		c.sum += chunk[k.off]
		if at := int(k.off) + cacheLine; at < len(chunk) {
			c.sum += chunk[at]
		}
	}
}

func sameStem(x, y []byte) bool { return len(x) == len(y) && bytes.Equal(x[:len(x)-8], y[:len(y)-8]) }

// addsFirst compares the adds' key with the record's. Of equal ones the record comes first.
func (c *Cursor) addsFirst() bool {
	// Up to here no byte of a checkpoint's number is among them.
	if x, y := c.adds[0].hi>>16, c.order[0].hi>>16; x != y {
		return x < y
	}
	return bytes.Compare(c.key, c.d.key(c.order[0].addPlace)) < 0
}

// bagOf is the bag of an add.
func (c *Cursor) bagOf(k sortKey) *Bag {
	id := uint32(k.hi >> 16)
	if c.bag == nil || c.bag.m.id != id {
		c.bag = c.d.bag(id)
	}
	return c.bag
}

func (d *Delta) bag(id uint32) *Bag {
	for _, b := range d.bags {
		if b.m.id == id {
			return b
		}
	}
	panic("a delta of a bag that is not there")
}

// keyAdds makes the key of the first adds.
func (c *Cursor) keyAdds() {
	c.keyed = true
	c.key = append(c.key[:0], c.d.addKey(c.key, c.bagOf(c.adds[0]), c.adds[0])...)
	c.key = binary.BigEndian.AppendUint64(c.key, c.d.checkpoint)
}

// addKey is the key of an add's record but for the checkpoint; dst is memory to be used.
func (d *Delta) addKey(dst []byte, b *Bag, k sortKey) []byte {
	if b.retract {
		return d.log.key(k.addPlace)
	}
	dst = binary.BigEndian.AppendUint64(dst[:0], k.hi)
	if b.m.intKey {
		dst = binary.BigEndian.AppendUint64(dst, k.lo)
		return dst[:recordPrefix+b.m.codec.IntKeyWidth()]
	}
	return append(dst[:recordPrefix], d.entryKey(b, Ref(k.chunk))...)
}

// at is the store's memory, n bytes of block r from off on.
func (d *Delta) at(r Ref, off, n int) []byte {
	p := uint64(r)<<unitBits + uint64(off)
	return d.mem[p : p+uint64(n) : p+uint64(n)]
}

// entryKey is the key bytes of a bag's entry.
func (d *Delta) entryKey(b *Bag, e Ref) []byte {
	return d.at(e, entryValue+b.m.valueSize, int(binary.LittleEndian.Uint32(d.at(e, entryKey, 4))))
}

// compareAdds orders adds whose first 16 bytes are the same.
func (d *Delta) compareAdds(x, y sortKey) int {
	b := d.bag(uint32(x.hi >> 16)) // that of y, too
	if b.m.intKey {
		return 0
	}
	if b.retract {
		return bytes.Compare(d.log.key(x.addPlace), d.log.key(y.addPlace))
	}
	return bytes.Compare(d.entryKey(b, Ref(x.chunk)), d.entryKey(b, Ref(y.chunk)))
}

// takeAdds goes past the first adds that have one key; with value it makes a value of them.
func (c *Cursor) takeAdds(value bool) {
	b, first := c.bagOf(c.adds[0]), c.adds[0]
	c.value = c.value[:0]
	n := 0
	for n < len(c.adds) && c.adds[n].hi == first.hi && c.adds[n].lo == first.lo && (n == 0 || c.d.compareAdds(first, c.adds[n]) == 0) {
		if value {
			if n >= c.near {
				c.touch(n)
			}
			if b.retract {
				c.value = c.d.log.appendValue(c.value, c.adds[n].addPlace)
			} else {
				c.value = c.d.appendGrown(c.value, Ref(c.adds[n].off))
			}
		}
		n++
	}
	c.adds, c.near, c.keyed = c.adds[n:], max(c.near-n, 0), false
}

// appendGrown appends a piece of a bag's value, as bagValue reads it, of a row.
func (d *Delta) appendGrown(dst []byte, n Ref) []byte {
	node := d.at(n, 0, nodeGrowing)
	size := binary.LittleEndian.Uint32(node[nodeLen:])
	dst = append(dst, node[nodeWeight:nodeWeight+4]...)
	dst = binary.LittleEndian.AppendUint32(dst, size)
	return append(dst, d.at(n, nodeGrowing, int(size))...)
}

const cacheLine = 64

// touch brings the rows of the next adds, from number n on, into the cache, so that the waits for memory overlap.
func (c *Cursor) touch(n int) {
	var sizes [probeWidth]uint32
	to := min(n+probeWidth, len(c.adds))
	c.near = to
	for k := n; k < to; k++ {
		a := &c.adds[k]
		if c.bagOf(*a).retract {
			sizes[k-n] = binary.LittleEndian.Uint32(c.d.log.chunks[a.chunk][a.off+addRowLen:])
		} else {
			sizes[k-n] = binary.LittleEndian.Uint32(c.d.at(Ref(a.off), nodeLen, 4))
		}
	}
	for k := n; k < to; k++ {
		a := &c.adds[k]
		var row []byte
		if c.bagOf(*a).retract {
			row = c.d.log.chunks[a.chunk][a.off:]
		} else {
			row = c.d.at(Ref(a.off), 0, nodeGrowing+int(sizes[k-n]))
		}
		for off := cacheLine; off < min(int(sizes[k-n]), 4*cacheLine); off += cacheLine {
			c.sum += row[off]
		}
	}
	c.bagOf(c.adds[0])
}
