package state

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// Delta is what the states of a task changed since the last checkpoint. It is independent of the store: another
// goroutine sorts and writes it while the task goes on.
//
// Its records are absolute, so that applying them again changes nothing: Set gives a key its value, Delete takes a key
// away, and the changes of a bag's key are the value of a key that ends with the checkpoint's number. DeleteBelow takes
// away what a bag's key has of earlier checkpoints.
type Delta struct {
	heap    []byte
	records []record
	// adds are the changes of bags in the order in which they came; Sort makes records of them.
	adds       []byte
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

// recordKey begins the key of a record: the top 16 bits of the hash and the state's number. The key's bytes follow, and
// in a bag the checkpoint.
func recordKey(dst []byte, hash uint64, id uint32) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(hash>>48))
	return binary.BigEndian.AppendUint32(dst, id)
}

// recordPrefix is how long the part before the key's bytes is.
const recordPrefix = 6

// Empty tells that nothing changed.
func (d *Delta) Empty() bool { return len(d.records) == 0 && len(d.adds) == 0 }

// Bytes is about how much the delta holds.
func (d *Delta) Bytes() int { return len(d.heap) + len(d.adds) }

func (d *Delta) reset() { d.heap, d.records, d.adds = d.heap[:0], d.records[:0], d.adds[:0] }

func (d *Delta) bytes(s span) []byte { return d.heap[s.off : s.off+s.len : s.off+s.len] }

// TakeDelta moves what changed since the last call into d, whose memory is used again, as the changes of checkpoint.
func (s *Store) TakeDelta(d *Delta, checkpoint uint64) {
	d.reset()
	for _, m := range s.maps {
		if m.bag == nil {
			m.takeDelta(d, checkpoint)
		}
	}
	d.adds, s.adds, d.checkpoint = s.adds, d.adds, checkpoint
	for _, b := range s.bags {
		b.takeDelta(d, checkpoint)
	}
	if s.interval++; s.interval == buried {
		s.interval = 1
		s.unmark(entryDirty)
	}
}

// Absorbed tells that the backing has taken in every delta up to that of checkpoint.
func (s *Store) Absorbed(checkpoint uint64) {
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
			if m.groups[m.store.group(m.hash(r))].partial {
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
		d.records = append(d.records, record{op: Set, key: key, value: span{uint32(at), uint32(len(d.heap) - at)}})
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
	return span{uint32(at), uint32(len(d.heap) - at)}
}

// Sort brings the records into the order of their keys. It is called once, from any goroutine, before Records.
func (d *Delta) Sort() {
	d.gatherAdds()
	slices.SortStableFunc(d.records, func(x, y record) int { return bytes.Compare(d.bytes(x.key), d.bytes(y.key)) })
	// Records of takeDelta stand before those of adds.
	kept := d.records[:0]
	for _, r := range d.records {
		if n := len(kept); n > 0 && kept[n-1].op == rewrite && bytes.Equal(d.bytes(kept[n-1].key), d.bytes(r.key)) {
			continue
		}
		kept = append(kept, r)
	}
	d.records = kept
}

// Records calls f with every record in order.
func (d *Delta) Records(f func(Record) error) error {
	for _, r := range d.records {
		if err := f(Record{Op: r.op &^ 0x80, Key: d.bytes(r.key), Value: d.bytes(r.value)}); err != nil {
			return err
		}
	}
	return nil
}

// An add in Delta.adds is
//
//	u32 length of the record's key | u32 length of the row | i32 weight | record key, without the checkpoint | row
const addHeader = 12

// gatherAdds makes one record of all adds of a key: its value is the adds' weights and rows, as bagValue reads them.
func (d *Delta) gatherAdds() {
	if len(d.adds) == 0 {
		return
	}
	var at []uint32
	for p := 0; p < len(d.adds); {
		at = append(at, uint32(p))
		p += addHeader + int(binary.LittleEndian.Uint32(d.adds[p:])) + int(binary.LittleEndian.Uint32(d.adds[p+4:]))
	}
	key := func(p uint32) []byte {
		n := binary.LittleEndian.Uint32(d.adds[p:])
		return d.adds[p+addHeader : p+addHeader+n]
	}
	slices.SortFunc(at, func(x, y uint32) int {
		if c := bytes.Compare(key(x), key(y)); c != 0 {
			return c
		}
		return cmp.Compare(x, y)
	})
	for i := 0; i < len(at); {
		k := key(at[i])
		from := len(d.heap)
		d.heap = append(d.heap, k...)
		d.heap = binary.BigEndian.AppendUint64(d.heap, d.checkpoint)
		rec := record{op: Set, key: span{uint32(from), uint32(len(k) + 8)}}
		from = len(d.heap)
		for ; i < len(at) && bytes.Equal(key(at[i]), k); i++ {
			p := at[i] + addHeader + uint32(len(k))
			n := binary.LittleEndian.Uint32(d.adds[at[i]+4:])
			d.heap = append(d.heap, d.adds[at[i]+8:at[i]+12]...)
			d.heap = binary.LittleEndian.AppendUint32(d.heap, n)
			d.heap = append(d.heap, d.adds[p:p+n]...)
		}
		rec.value = span{uint32(from), uint32(len(d.heap) - from)}
		d.records = append(d.records, rec)
	}
	d.adds = d.adds[:0]
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
