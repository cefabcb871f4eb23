package state

import (
	"bytes"
	"fmt"
	"math"

	"github.com/weirstream/weir/engine/row"
)

// Groups is how many key groups the store has.
func (s *Store) Groups() int { return s.groups }

// GroupOf is the key group of a key's hash.
func (s *Store) GroupOf(hash uint64) int { return s.group(hash) }

// Hash is the hash of an entry's key.
func (m *Map) Hash(r Ref) uint64 { return m.hash(r) }

// GroupLen is about how many entries of a key group are in memory: those that are gone may be among them.
func (m *Map) GroupLen(g int) int { return int(m.groups[g].used) }

// Part is Group of one of parts pieces of the group, a power of two. An entry's piece depends on its key alone, so that
// every entry is met once although some come and go between the calls.
func (m *Map) Part(g, part, parts int, f func(r Ref) error) error {
	t := &m.groups[g]
	if t.mask == 0 {
		return nil
	}
	for at := range t.mask + 1 {
		s := m.store.arena.words(t.slots, int(t.mask)+1)[at]
		if Ref(s) <= ghost || PartOf(s>>32, parts) != part {
			continue
		}
		if r := m.present(Ref(s), false); r != 0 {
			if err := f(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// PartOf is the piece of its group, of parts, that a key with that hash is in.
func PartOf(hash uint64, parts int) int { return int(hash & math.MaxUint32 * uint64(parts) >> 32) }

// Below tells whether the backing may hold keys of a group that are not in memory.
func (m *Map) Below(g int) bool { return m.groups[g].partial }

// Load brings every key whose hash begins with these 16 bits into memory. It reads them all in one sweep: one by one they
// would cost a search each.
func (b *Bag) Load(top uint16) error {
	m := b.m
	t := &m.groups[b.store.group(uint64(top)<<48)]
	if !t.partial {
		return nil
	}
	one := row.Keys{Int: make([]int64, 1), Spans: make([]row.Span, 1)}
	last := make([]byte, 0, 64) // the key of the record before
	begun := false
	var key Ref // its entry; 0: it was in memory already, with all that has happened since
	var hash uint64
	return b.store.backing.Scan(recordKey(nil, uint64(top)<<48, m.id), func(k, v []byte) error {
		if len(k) < recordPrefix+8 {
			return fmt.Errorf("state %s: the key %x is too short", m.name, k)
		}
		if of := k[recordPrefix : len(k)-8]; !begun || !bytes.Equal(last, of) { // the checkpoint's number ends it
			begun, last = true, append(last[:0], of...)
			if m.intKey {
				one.Int[0] = row.IntFromKey(last, m.codec.IntKeyWidth())
				hash = row.HashInt(one.Int[0])
			} else {
				one.Heap, one.Spans[0] = last, row.Span{Len: uint32(len(last))}
				hash = row.HashBytes(last)
			}
			if key = 0; m.lookup(t, hash, &one, 0) == 0 {
				key = m.back(t, hash, &one, 0)
			}
		}
		if key == 0 {
			return nil
		}
		return b.loadValue(key, hash, k, v)
	})
}
