package state

import (
	"bytes"
	"encoding/binary"
)

// Delta is what the states of a task changed since the last checkpoint. Another goroutine sorts and writes it while the
// task goes on. It is good until the next TakeDelta of the store and no longer than the store: the rows of a bag that only
// grows lie where they lie, since nothing that is not absorbed is evicted; everything else is the delta's own.
//
// Its records are absolute, so that applying them again changes nothing: Set gives a key its value, Delete takes a key
// away, and the changes of a bag's key are the value of a key that ends with the checkpoint's number. DeleteBelow takes
// away what a bag's key has of earlier checkpoints.
type Delta struct {
	records    addLog    // of maps, and what of bags is not an add; laid out as below
	order      []sortKey // of those
	log        addLog    // the changes of bags whose rows can be taken out, of which records are made
	adds       []sortKey // of those, and the rows that came into bags that only grow: chunk is the key's entry, off the row
	spare      []sortKey // for sorting
	grownBytes int
	sorted     bool
	mem        []byte // the store's
	bags       []*Bag // the store's
	checkpoint uint64
}

// Op is what a record does.
type Op uint8

// The operations.
const (
	Set Op = iota + 1
	Delete
	DeleteBelow // every key that has all of Key but its last 8 bytes and is smaller than Key

	rewrite Op = 0x80 | Set // a Set that holds what the adds of its key in the same delta say, too
)

// Record is one change. It is lent until the delta is used again.
type Record struct {
	Op         Op
	Key, Value []byte
}

// A record among the records is u32 length of the key | u32 length of the value | u32 op | key | value.
const (
	recordKeyLen = 0
	recordValue  = 4
	recordOp     = 8
	recordHeader = 12
)

// recordKey begins the key of a record: the top 16 bits of the hash and the state's number. The key's bytes follow, and
// in a bag the checkpoint.
func recordKey(dst []byte, hash uint64, id uint32) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(hash>>48))
	return binary.BigEndian.AppendUint32(dst, id)
}

// recordPrefix is how long the part before the key's bytes is.
const recordPrefix = 6

// Empty tells that nothing changed.
func (d *Delta) Empty() bool { return len(d.order) == 0 && d.log.used == 0 && len(d.adds) == 0 }

// Bytes is about how much the delta holds.
func (d *Delta) Bytes() int { return d.records.bytes + d.log.bytes + d.grownBytes }

// Len is about how many records it has, or more. The delta is sorted.
func (d *Delta) Len() int { return len(d.order) + len(d.adds) }

func (d *Delta) reset() {
	d.records.reset()
	d.log.reset()
	d.order, d.adds = d.order[:0], d.adds[:0]
}

// put adds a record: its key is that of an entry, and in a bag the checkpoint behind it.
func (d *Delta) put(op Op, hash uint64, id uint32, key, checkpoint, value []byte) {
	k := recordPrefix + len(key) + len(checkpoint)
	n := recordHeader + k + len(value)
	i := d.records.room(n)
	c := d.records.chunks[i]
	at := len(c)
	d.records.chunks[i] = c[:at+n]
	d.records.bytes += n
	r := c[at : at+n]
	binary.LittleEndian.PutUint32(r[recordKeyLen:], uint32(k))
	binary.LittleEndian.PutUint32(r[recordValue:], uint32(len(value)))
	binary.LittleEndian.PutUint32(r[recordOp:], uint32(op))
	to := r[recordHeader:]
	binary.BigEndian.PutUint16(to, uint16(hash>>48))
	binary.BigEndian.PutUint32(to[2:], id)
	m := recordPrefix + copy(to[recordPrefix:], key)
	m += copy(to[m:], checkpoint)
	copy(to[m:], value)
	s := sortKey{addPlace: addPlace{uint32(i), uint32(at)}}
	s.hi, s.lo = keyPrefix(to[:k])
	d.order = append(d.order, s)
}

// op and key of a record.
func (d *Delta) op(p addPlace) Op {
	return Op(binary.LittleEndian.Uint32(d.records.chunks[p.chunk][p.off+recordOp:]))
}

func (d *Delta) key(p addPlace) []byte {
	r := d.records.chunks[p.chunk][p.off:]
	n := recordHeader + binary.LittleEndian.Uint32(r)
	return r[recordHeader:n:n]
}

func (d *Delta) recordOf(p addPlace) Record {
	r := d.records.chunks[p.chunk][p.off:]
	k, v := binary.LittleEndian.Uint32(r), binary.LittleEndian.Uint32(r[recordValue:])
	end := recordHeader + k + v
	return Record{Op: Op(r[recordOp]) &^ 0x80, Key: r[recordHeader : recordHeader+k : recordHeader+k], Value: r[recordHeader+k : end : end]}
}

// TakeDelta moves what changed since the last call into d, whose memory is used again, as the changes of checkpoint.
func (s *Store) TakeDelta(d *Delta, checkpoint uint64) {
	d.reset()
	for _, m := range s.maps {
		if m.bag == nil {
			m.takeDelta(d, checkpoint)
		}
	}
	d.log, s.log, d.checkpoint = s.log, d.log, checkpoint
	d.adds, s.grown = s.grown, d.adds
	d.grownBytes, s.grownBytes = s.grownBytes, 0
	d.mem, d.bags, d.sorted = s.arena.whole, s.bags, false
	for _, b := range s.bags {
		b.takeDelta(d, checkpoint)
	}
	s.taken = append(s.taken, taken{checkpoint, s.interval})
	if s.interval++; s.interval == buried {
		s.interval, s.clean = 1, 0
		s.taken = s.taken[:0]
		s.unmark(entryDirty)
	}
}

// Absorbed tells that the backing has taken in every delta up to that of checkpoint.
func (s *Store) Absorbed(checkpoint uint64) {
	for len(s.taken) > 0 && s.taken[0].checkpoint <= checkpoint {
		s.clean = s.taken[0].interval
		s.taken = append(s.taken[:0], s.taken[1:]...)
	}
	for _, m := range s.maps {
		if len(m.graves) == 0 {
			continue
		}
		if m.bag != nil {
			m.bag.unbury(checkpoint)
		} else {
			m.unbury(checkpoint)
		}
	}
}

func (m *Map) takeDelta(d *Delta, checkpoint uint64) {
	a := m.store.arena
	for _, r := range m.dirty {
		hash := m.hash(r)
		key := m.Key(m.store.scratch[:0], r)
		if m.intKey {
			m.store.scratch = key
		}
		if a.u32(r, entryDirty) == removed {
			d.put(Delete, hash, m.id, key, nil, nil)
			if m.store.backing != nil {
				a.setU32(r, entryDirty, buried)
				a.setU32(r, entryTouched, uint32(checkpoint))
				m.graves = append(m.graves, grave{r, checkpoint})
			} else {
				m.releaseEntry(r)
			}
			continue
		}
		value := m.Value(r)
		if m.values != nil {
			m.kept = m.values.Append(m.kept[:0], value)
			value = m.kept
		}
		d.put(Set, hash, m.id, key, nil, value)
	}
	m.dirty = m.dirty[:0]
}

// Sort brings the records into the order of their keys. It is called before Records, from any goroutine.
func (d *Delta) Sort() {
	if d.sorted {
		return
	}
	d.sorted = true
	d.order, d.spare = sortByKey(d.order, d.spare, func(x, y sortKey) int {
		return bytes.Compare(d.key(x.addPlace), d.key(y.addPlace))
	})
	d.adds = d.log.list(d.adds)
	d.adds, d.spare = sortByKey(d.adds, d.spare, d.compareAdds)
}

// Records calls f with every record in order.
func (d *Delta) Records(f func(Record) error) error {
	c := d.Cursor()
	for {
		r, ok := c.Next()
		if !ok {
			return nil
		}
		if err := f(r); err != nil {
			return err
		}
	}
}

// bagValue calls f with each weight and row of a bag record's value.
func bagValue(v []byte, f func(weight int32, row []byte)) bool {
	for len(v) > 0 {
		if len(v) < 8 {
			return false
		}
		w, n := int32(binary.LittleEndian.Uint32(v)), binary.LittleEndian.Uint32(v[4:])
		if uint64(n) > uint64(len(v)-8) {
			return false
		}
		f(w, v[8:8+n])
		v = v[8+n:]
	}
	return true
}
