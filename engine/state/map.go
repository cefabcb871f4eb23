package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/weirstream/weir/engine/row"
)

// Map holds a value of fixed size for each key: accumulators, counters, the head of a list.
//
// For each key group there is a table of slots, open addressing with linear probing. A slot is 32 bits of the hash (the
// tag) and the entry's Ref, so that growing a table and deleting from it look at no entry. An entry is
//
//	touched u32 | dirty u32 | the number, or u32 length of the key and 4 bytes unused | value | key bytes
type Map struct {
	store     *Store
	name      string
	id        uint32
	codec     *row.KeyCodec
	intKey    bool
	valueSize int
	values    Values
	bag       *Bag // whose keys these are
	groups    []table
	dirty     []Ref
	kept      []byte // scratch
	entries   int64
	bytes     int64
	missing   []int32
	single    row.Keys // of FindEntry
	gone      int64    // entries that are linked and not there
	haunted   bool     // the last lookup came by a ghost of the same tag
	resident  bool     // nothing is evicted
	graves    []grave  // buried ones
}

// grave is an entry that checkpoint took away.
type grave struct {
	entry      Ref
	checkpoint uint64
}

const (
	entryTouched = 0
	entryDirty   = 4
	entryKey     = 8
	entryValue   = 16
	// In the dirty field: the entry is gone, and the next delta has to say so (removed), or the backing has yet to take
	// that delta in (buried). Where there is a backing, a gone entry stays linked until then, lest the old
	// value be fetched from there. Intervals are smaller numbers.
	removed = 1<<32 - 1
	buried  = 1<<32 - 2
)

// Values turns values into bytes and back where a value refers to other memory. Without it the value's bytes are kept as
// they are.
type Values interface {
	// Append appends what is kept of a value.
	Append(dst, value []byte) []byte
	// Load sets a zeroed value to what was kept.
	Load(value, kept []byte) error
	// Release frees what the value refers to.
	Release(value []byte)
}

// Map opens the state of that name. Values have valueSize bytes, zero at first; v may be nil.
func (s *Store) Map(name string, codec *row.KeyCodec, valueSize int, v Values) (*Map, error) {
	id, err := s.id(name)
	if err != nil {
		return nil, err
	}
	m := &Map{store: s, name: name, id: id, codec: codec, intKey: codec.IntKey(), valueSize: (valueSize + 7) &^ 7, values: v, groups: make([]table, s.groups)}
	if s.backing != nil && !s.backing.Empty(id) {
		for g := range m.groups {
			m.groups[g].partial = true
		}
	}
	s.maps = append(s.maps, m)
	return m, nil
}

// Len is how many keys are in memory.
func (m *Map) Len() int64 { return m.entries }

// entrySize is the size of an entry whose key has n bytes outside the header.
func (m *Map) entrySize(n int) int { return entryValue + m.valueSize + n }

// Value is the value of an entry, to be read and written. It is valid until an entry is added or removed.
func (m *Map) Value(r Ref) []byte { return m.store.arena.bytes(r, entryValue, m.valueSize) }

// KeyLen and Key are the entry's key bytes, not of an int key.
func (m *Map) keyLen(r Ref) int { return int(m.store.arena.u32(r, entryKey)) }

// Key is the key of an entry as KeyCodec.Append makes it: the entry's own memory, or of an int key appended to scratch.
func (m *Map) Key(scratch []byte, r Ref) []byte {
	if m.intKey {
		return row.AppendIntKey(scratch, m.IntKey(r), m.codec.IntKeyWidth())
	}
	return m.store.arena.bytes(r, entryValue+m.valueSize, m.keyLen(r))
}

// IntKey is the number that is the key.
func (m *Map) IntKey(r Ref) int64 {
	return int64(binary.LittleEndian.Uint64(m.store.arena.bytes(r, entryKey, 8)))
}

// hash of an entry's key.
func (m *Map) hash(r Ref) uint64 {
	if m.intKey {
		return row.HashInt(m.IntKey(r))
	}
	return row.HashBytes(m.store.arena.bytes(r, entryValue+m.valueSize, m.keyLen(r)))
}

// Touch tells that the value of r is about to change, and whether it is the first time in this epoch.
func (m *Map) Touch(r Ref) (first bool) {
	h := m.store.arena.bytes(r, 0, 8)
	if binary.LittleEndian.Uint32(h[entryTouched:]) == m.store.epoch {
		return false
	}
	binary.LittleEndian.PutUint32(h[entryTouched:], m.store.epoch)
	if binary.LittleEndian.Uint32(h[entryDirty:]) != m.store.interval {
		binary.LittleEndian.PutUint32(h[entryDirty:], m.store.interval)
		m.dirty = append(m.dirty, r)
	}
	return true
}

// Find sets refs[i] for each row i of b that counts to the entry of its key, 0 if there is none.
func (m *Map) Find(keys *row.Keys, b *row.Batch, refs []Ref) error {
	return m.find(keys, b, refs, false)
}

// FindOrAdd is Find that adds an entry with a zero value for each key that has none.
func (m *Map) FindOrAdd(keys *row.Keys, b *row.Batch, refs []Ref) error {
	return m.find(keys, b, refs, true)
}

func (m *Map) find(keys *row.Keys, b *row.Batch, refs []Ref, add bool) error {
	m.missing = m.missing[:0]
	m.findAhead(keys, b, refs, add)
	if len(m.missing) > 0 {
		return m.fetch(keys, refs, add)
	}
	return nil
}

// probeWidth is how many rows are on their way at a time: their slots are loaded first, then their entries, so that the
// waits for memory overlap.
const probeWidth = 32

func (m *Map) findAhead(keys *row.Keys, b *row.Batch, refs []Ref, add bool) {
	var first [probeWidth]uint64
	n := b.Rows()
	far := !m.intKey && entryValue+m.valueSize > cacheLine/2
	var sum byte
	for from := 0; from < n; from += probeWidth {
		to := min(from+probeWidth, n)
		for k := from; k < to; k++ {
			h := keys.Hash[b.At(k)]
			t := &m.groups[m.store.group(h)]
			first[k-from] = 0
			if t.mask != 0 {
				first[k-from] = m.store.arena.words(t.slots, int(t.mask)+1)[uint32(h)&t.mask]
			}
		}
		for k := from; k < to; k++ {
			if s := first[k-from]; uint32(s>>32) == uint32(keys.Hash[b.At(k)]) && uint32(s) != 0 {
				sum += m.store.arena.bytes(Ref(s), entryKey, 1)[0]
				if far { // the key's bytes lie in another line
					sum += m.store.arena.bytes(Ref(s), entryValue+m.valueSize, 1)[0]
				}
			}
		}
		for k := from; k < to; k++ {
			i := b.At(k)
			m.one(keys.Hash[i], refs, i, add, keys)
		}
	}
	m.store.sink(sum)
}

// sink keeps the compiler from leaving a load out that is made only to have the memory near.
//
//go:noinline
func (s *Store) sink(byte) {}

func (m *Map) one(h uint64, refs []Ref, i int, add bool, keys *row.Keys) {
	t := &m.groups[m.store.group(h)]
	if r := m.lookup(t, h, keys, i); r != 0 {
		refs[i] = m.present(r, add)
		return
	}
	switch {
	case t.partial || m.haunted:
		refs[i] = 0
		m.missing = append(m.missing, int32(i))
	case add:
		refs[i] = m.add(t, h, keys, i)
	default:
		refs[i] = 0
	}
}

// present is r, or 0 if the entry is gone; with add it comes back, with a zero value.
func (m *Map) present(r Ref, add bool) Ref {
	if m.gone == 0 || r == 0 {
		return r
	}
	a := m.store.arena
	state := a.u32(r, entryDirty)
	switch {
	case state < buried:
		return r
	case !add:
		return 0
	case state == removed: // still in the list of changes
		a.setU32(r, entryDirty, m.store.interval)
	default:
		a.setU32(r, entryDirty, 0)
	}
	a.setU32(r, entryTouched, 0)
	clear(m.Value(r))
	m.gone--
	m.entries++
	return r
}

func (m *Map) lookup(t *table, h uint64, keys *row.Keys, i int) Ref {
	m.haunted = false
	if t.mask == 0 {
		return 0
	}
	slots := m.store.arena.words(t.slots, int(t.mask)+1)
	tag := uint32(h)
	for at := tag & t.mask; ; at = (at + 1) & t.mask {
		s := slots[at]
		if uint32(s) == 0 {
			return 0
		}
		if uint32(s>>32) == tag {
			r := Ref(s)
			if r == ghost {
				m.haunted = true
				continue
			}
			if m.intKey {
				if m.IntKey(r) == keys.Int[i] {
					return r
				}
			} else if bytes.Equal(m.store.arena.bytes(r, entryValue+m.valueSize, m.keyLen(r)), keys.Bytes(i)) {
				return r
			}
		}
	}
}

// add makes an entry for the key of row i, which has none.
func (m *Map) add(t *table, h uint64, keys *row.Keys, i int) Ref {
	r := m.entry(keys, i)
	m.bytes += linkSlot(m.store.arena, t, uint32(h), r)
	return r
}

// back makes an entry for the key of row i, which the backing has.
func (m *Map) back(t *table, h uint64, keys *row.Keys, i int) Ref {
	r := m.entry(keys, i)
	m.bytes += linkBack(m.store.arena, t, uint32(h), r)
	return r
}

// entry makes an entry that is not linked yet.
func (m *Map) entry(keys *row.Keys, i int) Ref {
	var key []byte
	if !m.intKey {
		key = keys.Bytes(i)
	}
	size := m.entrySize(len(key))
	r := m.store.arena.alloc(size)
	e := m.store.arena.bytes(r, 0, size)
	clear(e[:entryValue+m.valueSize])
	if m.intKey {
		binary.LittleEndian.PutUint64(e[entryKey:], uint64(keys.Int[i]))
	} else {
		binary.LittleEndian.PutUint32(e[entryKey:], uint32(len(key)))
		copy(e[entryValue+m.valueSize:], key)
	}
	m.bytes += int64(size)
	m.entries++
	return r
}

func (m *Map) unlink(h uint64, r Ref) {
	unlinkSlot(m.store.arena, &m.groups[m.store.group(h)], uint32(h), r)
}

// Remove takes an entry away. Its Ref is not to be used any more.
func (m *Map) Remove(r Ref) {
	if m.store.backing != nil {
		m.gone++
	} else {
		m.unlink(m.hash(r), r)
	}
	m.entries--
	if m.values != nil {
		m.values.Release(m.Value(r))
	}
	a := m.store.arena
	d := a.u32(r, entryDirty)
	a.setU32(r, entryDirty, removed)
	if d != m.store.interval {
		m.dirty = append(m.dirty, r)
	}
}

// unbury frees what is buried since checkpoints that the backing has taken in.
func (m *Map) unbury(absorbed uint64) {
	kept := m.graves[:0]
	for _, g := range m.graves {
		switch a := m.store.arena; {
		case g.checkpoint > absorbed:
			kept = append(kept, g)
		case a.u32(g.entry, entryDirty) == buried && a.u32(g.entry, entryTouched) == uint32(g.checkpoint):
			m.unlink(m.hash(g.entry), g.entry)
			m.releaseEntry(g.entry)
			m.gone--
		}
	}
	m.graves = kept
}

func (m *Map) releaseEntry(r Ref) {
	n := 0
	if !m.intKey {
		n = m.keyLen(r)
	}
	m.bytes -= int64(m.entrySize(n))
	m.store.arena.release(r, m.entrySize(n))
}

// All calls f for every entry in memory, group by group; f must not add or remove entries.
func (m *Map) All(f func(r Ref) error) error {
	for g := range m.groups {
		if err := m.Group(g, f); err != nil {
			return err
		}
	}
	return nil
}

// Group is All of one key group.
func (m *Map) Group(g int, f func(r Ref) error) error {
	t := &m.groups[g]
	if t.mask == 0 {
		return nil
	}
	for at := range t.mask + 1 {
		if r := Ref(m.store.arena.words(t.slots, int(t.mask)+1)[at]); r > ghost && m.present(r, false) != 0 {
			if err := f(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetch asks the backing for the keys of the missing rows, in the backing's order, and adds what it has; with add also
// what it has not.
func (m *Map) fetch(keys *row.Keys, refs []Ref, add bool) error {
	slices.SortFunc(m.missing, func(x, y int32) int {
		if c := int(keys.Hash[x]>>48) - int(keys.Hash[y]>>48); c != 0 {
			return c
		}
		if m.intKey {
			switch a, b := keys.Int[x], keys.Int[y]; {
			case a < b:
				return -1
			case a > b:
				return 1
			}
			return 0
		}
		return bytes.Compare(keys.Bytes(int(x)), keys.Bytes(int(y)))
	})
	for _, i := range m.missing {
		h := keys.Hash[i]
		t := &m.groups[m.store.group(h)]
		if r := m.lookup(t, h, keys, int(i)); r != 0 { // a row before this one has the same key
			refs[i] = m.present(r, add)
			continue
		}
		r, err := m.load(t, h, keys, int(i))
		if err != nil {
			return err
		}
		if r == 0 && add {
			r = m.add(t, h, keys, int(i))
		}
		refs[i] = r
	}
	return nil
}

// load adds the entry that the backing has for the key of row i; 0 if it has none.
func (m *Map) load(t *table, h uint64, keys *row.Keys, i int) (Ref, error) {
	s := m.store
	s.scratch = recordKey(s.scratch[:0], h, m.id)
	s.scratch = keyBytes(s.scratch, m.codec, keys, i)
	if m.bag != nil {
		return m.bag.load(t, h, keys, i, s.scratch)
	}
	n := len(s.scratch)
	both, ok, err := s.backing.Get(s.scratch, s.scratch)
	if err != nil || !ok {
		return 0, err
	}
	s.scratch = both
	r := m.back(t, h, keys, i)
	if err := m.setValue(r, both[n:]); err != nil {
		return 0, err
	}
	return r, nil
}

func (m *Map) setValue(r Ref, kept []byte) error {
	if m.values != nil {
		return m.values.Load(m.Value(r), kept)
	}
	if len(kept) != m.valueSize {
		return fmt.Errorf("state %s holds a value of %d bytes, want %d", m.name, len(kept), m.valueSize)
	}
	copy(m.Value(r), kept)
	return nil
}

// FindEntry is the entry that has the same key as entry r of another map with the same codec, 0 if there is none.
func (m *Map) FindEntry(from *Map, r Ref) (Ref, error) {
	h := from.hash(r)
	k := &m.single
	if m.intKey {
		k.Int = append(k.Int[:0], from.IntKey(r))
	} else {
		k.Heap = append(k.Heap[:0], from.Key(nil, r)...)
		k.Spans = append(k.Spans[:0], row.Span{Len: uint32(len(k.Heap))})
	}
	t := &m.groups[m.store.group(h)]
	if e := m.lookup(t, h, k, 0); e != 0 || !t.partial && !m.haunted {
		return m.present(e, false), nil
	}
	return m.load(t, h, k, 0)
}
