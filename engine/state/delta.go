package state

import (
	"bytes"
	"encoding/binary"
	"math"
)

// Delta is what the states of a task changed since the last checkpoint. Another goroutine sorts and writes it while the
// task goes on. It is good until the next TakeDelta of the store and no longer than the store: the rows of a bag that only
// grows lie where they lie, since nothing that is not absorbed is evicted; everything else is the delta's own.
//
// Its records are absolute, so that applying them again changes nothing: Set gives a key its value, Delete takes a key
// away, and the changes of a bag's key are the value of a key that ends with the checkpoint's number. DeleteBelow takes
// away what a bag's key has of earlier checkpoints.
type Delta struct {
	heap       []byte
	records    []record
	order      []sortKey // of records: chunk is the number
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

type record struct {
	op         Op
	key, value span
}

type span struct{ off, len uint32 }

// spanOf panics where 32 bits do not reach: the checkpoint fails, loudly, and what was durable before stays. Wrapped, a
// place would put other bytes into the state.
func spanOf(at, end int) span {
	if uint64(end) > math.MaxUint32 {
		panic("a task changed more than 4 GiB of state in one checkpoint")
	}
	return span{uint32(at), uint32(end - at)}
}

// recordKey begins the key of a record: the top 16 bits of the hash and the state's number. The key's bytes follow, and
// in a bag the checkpoint.
func recordKey(dst []byte, hash uint64, id uint32) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(hash>>48))
	return binary.BigEndian.AppendUint32(dst, id)
}

// recordPrefix is how long the part before the key's bytes is.
const recordPrefix = 6

// Empty tells that nothing changed.
func (d *Delta) Empty() bool { return len(d.records) == 0 && d.log.used == 0 && len(d.adds) == 0 }

// Bytes is about how much the delta holds.
func (d *Delta) Bytes() int { return len(d.heap) + d.log.bytes + d.grownBytes }

// Len is about how many records it has, or more. The delta is sorted.
func (d *Delta) Len() int { return len(d.records) + len(d.adds) }

func (d *Delta) reset() {
	d.heap, d.records = d.heap[:0], d.records[:0]
	d.log.reset()
	d.adds = d.adds[:0]
}

func (d *Delta) bytes(s span) []byte { return d.heap[s.off : s.off+s.len : s.off+s.len] }

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
		key := m.appendRecordKey(d, r)
		if a.u32(r, entryDirty) == removed {
			d.records = append(d.records, record{op: Delete, key: key})
			if m.store.backing != nil {
				a.setU32(r, entryDirty, buried)
				a.setU32(r, entryTouched, uint32(checkpoint))
				m.graves = append(m.graves, grave{r, checkpoint})
			} else {
				m.releaseEntry(r)
			}
			continue
		}
		at := len(d.heap)
		if m.values != nil {
			d.heap = m.values.Append(d.heap, m.Value(r))
		} else {
			d.heap = append(d.heap, m.Value(r)...)
		}
		d.records = append(d.records, record{op: Set, key: key, value: spanOf(at, len(d.heap))})
	}
	m.dirty = m.dirty[:0]
}

func (m *Map) appendRecordKey(d *Delta, r Ref) span {
	at := len(d.heap)
	d.heap = recordKey(d.heap, m.hash(r), m.id)
	if m.intKey {
		d.heap = m.Key(d.heap, r)
	} else {
		d.heap = append(d.heap, m.Key(nil, r)...)
	}
	return spanOf(at, len(d.heap))
}

// Sort brings the records into the order of their keys. It is called before Records, from any goroutine.
func (d *Delta) Sort() {
	if d.sorted {
		return
	}
	d.sorted = true
	d.order = d.order[:0]
	for i := range d.records {
		k := sortKey{addPlace: addPlace{chunk: uint32(i)}}
		k.hi, k.lo = keyPrefix(d.bytes(d.records[i].key))
		d.order = append(d.order, k)
	}
	d.order, d.spare = sortByKey(d.order, d.spare, func(x, y sortKey) int {
		return bytes.Compare(d.bytes(d.records[x.chunk].key), d.bytes(d.records[y.chunk].key))
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
