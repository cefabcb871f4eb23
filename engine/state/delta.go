package state

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
)

// Delta is what the states of a task changed since the last checkpoint. It is independent of the store: another
// goroutine sorts and writes it while the task goes on.
//
// Its records are absolute, so that applying them again changes nothing: Set gives a key its value, Delete takes a key
// away, and the changes of a bag's key are the value of a key that ends with the checkpoint's number. DeleteBelow takes
// away what a bag's key has of earlier checkpoints.
type Delta struct {
	heap       []byte
	records    []record
	order      []sortKey // of records: chunk is the number
	log        addLog    // the changes of bags, of which Records makes values
	adds       []sortKey
	checkpoint uint64
	key, value []byte
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
func (d *Delta) Empty() bool { return len(d.records) == 0 && d.log.used == 0 }

// Bytes is about how much the delta holds.
func (d *Delta) Bytes() int { return len(d.heap) + d.log.bytes }

func (d *Delta) reset() {
	if cap(d.heap) > 4*max(len(d.heap), 1<<20) {
		d.heap = nil // it was needed once
	}
	d.heap, d.records = d.heap[:0], d.records[:0]
	d.log.reset()
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

// Sort brings the records into the order of their keys. It is called once, from any goroutine, before Records.
func (d *Delta) Sort() {
	d.order = d.order[:0]
	for i := range d.records {
		k := sortKey{addPlace: addPlace{chunk: uint32(i)}}
		k.hi, k.lo = keyPrefix(d.bytes(d.records[i].key))
		d.order = append(d.order, k)
	}
	sortByKey(d.order, func(x, y sortKey) int {
		if c := bytes.Compare(d.bytes(d.records[x.chunk].key), d.bytes(d.records[y.chunk].key)); c != 0 {
			return c
		}
		return cmp.Compare(x.chunk, y.chunk)
	})
	d.adds = d.log.sorted(d.adds[:0])
}

// Records calls f with every record in order.
func (d *Delta) Records(f func(Record) error) error {
	adds := d.adds
	// next gives the adds of a key as one record: their weights and rows, as bagValue reads them.
	have := false
	next := func() {
		if have = len(adds) > 0; !have {
			return
		}
		first := adds[0]
		k := d.log.key(first.addPlace)
		d.key = binary.BigEndian.AppendUint64(append(d.key[:0], k...), d.checkpoint)
		d.value = d.value[:0]
		for len(adds) > 0 && adds[0].hi == first.hi && adds[0].lo == first.lo && bytes.Equal(d.log.key(adds[0].addPlace), k) {
			d.value = d.log.appendValue(d.value, adds[0].addPlace)
			adds = adds[1:]
		}
	}
	next()
	for _, o := range d.order {
		r := &d.records[o.chunk]
		key := d.bytes(r.key)
		for have && bytes.Compare(d.key, key) < 0 {
			if err := f(Record{Op: Set, Key: d.key, Value: d.value}); err != nil {
				return err
			}
			next()
		}
		if r.op == rewrite && have && bytes.Equal(d.key, key) {
			next()
		}
		if err := f(Record{Op: r.op &^ 0x80, Key: key, Value: d.bytes(r.value)}); err != nil {
			return err
		}
	}
	for have {
		if err := f(Record{Op: Set, Key: d.key, Value: d.value}); err != nil {
			return err
		}
		next()
	}
	return nil
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
