package state

// taken is a delta that was handed out: the checkpoint, and the interval whose changes it has.
type taken struct {
	checkpoint uint64
	interval   uint32
}

// Evict brings memory down to the limit, as far as the backing has what is let go of: entries that did not change since
// the last absorbed delta, those first whose last change is older. It is called between epochs, when nobody holds a Ref.
//
// A key group at a time is gone through, in turn over all states, so that an eviction costs what it frees.
func (s *Store) Evict() {
	if s.limit == 0 || s.arena.live() <= s.limit || len(s.maps) == 0 {
		return
	}
	s.evictions++
	s.layGhosts()
	// A quarter less than the limit: what changes until the next checkpoint is down needs the room.
	target := s.limit - s.limit/4
	const recent = 8 // checkpoints
	for _, newest := range [2]uint32{s.clean - min(s.clean, recent), s.clean} {
		for range s.groups * len(s.maps) {
			if s.arena.live() <= target {
				return
			}
			m := s.maps[s.hand%len(s.maps)]
			g := s.hand / len(s.maps) % s.groups
			s.hand++
			if !m.resident {
				m.evict(&m.groups[g], newest)
			}
		}
	}
}

// layGhosts takes the slots of evicted keys away where all of them have become much beside the limit. From then on the
// backing is asked for every key that is not in memory.
func (s *Store) layGhosts() {
	slots := uint64(0)
	for _, m := range s.maps {
		for g := range m.groups {
			slots += uint64(m.groups[g].ghosts)
		}
	}
	if slots*slotBytes <= s.limit/8 { // tables have up to three times as many slots
		return
	}
	for _, m := range s.maps {
		for g := range m.groups {
			if t := &m.groups[g]; t.ghosts > t.used/2 {
				m.bytes -= layGhosts(s.arena, t)
			}
		}
	}
}

// Evictions tells a holder of Refs from an earlier epoch whether they may be gone: when the number is another one.
func (s *Store) Evictions() uint32 { return s.evictions }

// KeepResident keeps all of the state in memory, whatever the limit.
func (m *Map) KeepResident() { m.resident = true }

// evict turns the entries of a group into ghosts whose last change lies in interval newest or before.
func (m *Map) evict(t *table, newest uint32) {
	if t.mask == 0 {
		return
	}
	a := m.store.arena
	slots := a.words(t.slots, int(t.mask)+1)
	for at, s := range slots {
		r := Ref(s)
		if r <= ghost || a.u32(r, entryDirty) > newest {
			continue
		}
		if m.bag != nil {
			if m.bag.Count(r) == 0 {
				continue // among the graves, or about to be
			}
			m.bag.release(r)
		}
		if m.values != nil {
			m.values.Release(m.Value(r))
		}
		m.entries--
		m.releaseEntry(r)
		slots[at] = s>>32<<32 | uint64(ghost)
		t.ghosts++
	}
}

// release frees the rows of a key that is evicted.
func (b *Bag) release(key Ref) {
	a := b.store.arena
	hash := b.m.hash(key)
	rows := a.u32(key, entryValue+bagRows)
	for n := b.First(key); n != 0; {
		next, size := b.Next(n), b.header+int(a.u32(n, nodeLen))
		if b.retract && rows&indexed != 0 {
			unlinkSlot(a, &b.index[b.store.group(hash)], uint32(rowHash(hash, b.Row(n))), n)
		}
		b.rows--
		b.rowBytes -= int64(size)
		a.release(n, size)
		n = next
	}
}
