package state

// table is the slots of a key group: open addressing with linear probing. A slot is 32 bits of the hash (the tag) and a
// Ref, so that growing the table and deleting from it look at nothing else.
type table struct {
	slots   Ref
	mask    uint32 // slots - 1, 0 if there are none
	used    uint32
	ghosts  uint32
	partial bool // the backing may hold keys that are not here, and nothing tells which
}

// ghost is the Ref in the slot of a key that was evicted. The tag stays, so that of keys which the backing does not have
// next to none is asked for there.
const ghost Ref = 1

// slotBytes is the size of a slot.
const slotBytes = 8

// layGhosts makes the table anew without its ghosts, and returns by how many bytes it shrank.
func layGhosts(a *arena, t *table) (shrunk int64) {
	old, n := t.slots, int(t.mask)+1
	living := int(t.used - t.ghosts)
	size := 8
	for size/4*3 < living+1 {
		size *= 2
	}
	fresh := a.alloc(size * slotBytes)
	to := a.words(fresh, size)
	clear(to)
	for _, s := range a.words(old, n) {
		if Ref(s) > ghost {
			place(to, uint32(size-1), s)
		}
	}
	a.release(old, n*slotBytes)
	t.slots, t.mask, t.used, t.ghosts, t.partial = fresh, uint32(size-1), uint32(living), 0, true
	return int64(n-size) * slotBytes
}

// linkBack puts r into the place of its ghost, or of one with the same tag, which serves either key; without one it is
// linked anew.
func linkBack(a *arena, t *table, tag uint32, r Ref) (grown int64) {
	if t.ghosts > 0 {
		slots := a.words(t.slots, int(t.mask)+1)
		for at := tag & t.mask; uint32(slots[at]) != 0; at = (at + 1) & t.mask {
			if slots[at] == uint64(tag)<<32|uint64(ghost) {
				slots[at] = uint64(tag)<<32 | uint64(r)
				t.ghosts--
				return 0
			}
		}
	}
	return linkSlot(a, t, tag, r)
}

// linkSlot puts r into the table, which doubles when three quarters are taken, and returns by how many bytes it grew.
func linkSlot(a *arena, t *table, tag uint32, r Ref) (grown int64) {
	if t.mask == 0 || t.used+1 > (t.mask+1)/4*3 {
		old, n := t.slots, int(t.mask)+1
		size := 2 * n
		if t.mask == 0 {
			n, size = 0, 8
		}
		fresh := a.alloc(size * 8)
		to := a.words(fresh, size)
		clear(to)
		mask := uint32(size - 1)
		if n > 0 {
			for _, s := range a.words(old, n) {
				if uint32(s) != 0 {
					place(to, mask, s)
				}
			}
			a.release(old, n*8)
		}
		grown = int64(size-n) * 8
		t.slots, t.mask = fresh, mask
	}
	place(a.words(t.slots, int(t.mask)+1), t.mask, uint64(tag)<<32|uint64(r))
	t.used++
	return grown
}

func place(slots []uint64, mask uint32, s uint64) {
	at := uint32(s>>32) & mask
	for uint32(slots[at]) != 0 {
		at = (at + 1) & mask
	}
	slots[at] = s
}

// unlinkSlot takes r out of the table and closes the gap, so that no probe ends before what it looks for.
func unlinkSlot(a *arena, t *table, tag uint32, r Ref) {
	slots := a.words(t.slots, int(t.mask)+1)
	at := tag & t.mask
	for Ref(slots[at]) != r {
		at = (at + 1) & t.mask
	}
	hole := at
	for {
		at = (at + 1) & t.mask
		s := slots[at]
		if uint32(s) == 0 {
			break
		}
		// s may move into the hole unless its home lies cyclically behind the hole.
		if home := uint32(s>>32) & t.mask; (at-home)&t.mask >= (at-hole)&t.mask {
			slots[hole], hole = s, at
		}
	}
	slots[hole] = 0
	t.used--
}
