package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// RangeScanner is a Backing that can go through all of a state at once.
type RangeScanner interface {
	// ScanState calls f with every key and value of the state whose hash's top 16 bits are first or above and below behind,
	// in order; they are lent for the call.
	ScanState(id uint32, first, behind int, f func(key, value []byte) error) error
}

// Kept calls f with every row that the backing has of keys whose hash's top 16 bits are first or above and below behind,
// with its weight, which is not 0; the bytes are lent for the call. Nothing is brought into memory, and what changed since
// the last checkpoint is not seen.
func (b *Bag) Kept(first, behind int, f func(r []byte, weight int64) error) error {
	backing := b.store.backing
	if backing == nil || backing.Empty(b.m.id) {
		return nil
	}
	var last []byte // the key of the records that sums adds up
	sums := map[string]int64{}
	var order []string
	flush := func() error {
		for _, r := range order {
			if w := sums[r]; w != 0 {
				if err := f([]byte(r), w); err != nil {
					return err
				}
			}
		}
		clear(sums)
		order = order[:0]
		return nil
	}
	each := func(k, v []byte) error {
		if len(k) < recordPrefix+8 {
			return fmt.Errorf("state %s: the key %x is too short", b.m.name, k)
		}
		if of := k[:len(k)-8]; !bytes.Equal(of, last) { // the checkpoint's number ends it
			if err := flush(); err != nil {
				return err
			}
			last = append(last[:0], of...)
		}
		if !bagValue(v, func(w int32, r []byte) {
			if _, seen := sums[string(r)]; !seen {
				order = append(order, string(r))
			}
			sums[string(r)] += int64(w)
		}) {
			return fmt.Errorf("state %s: the value of key %x is not a list of rows", b.m.name, k)
		}
		return nil
	}
	if s, ok := backing.(RangeScanner); ok {
		if err := s.ScanState(b.m.id, first, behind, each); err != nil {
			return err
		}
		return flush()
	}
	for top := first; top < behind; top++ {
		if err := backing.Scan(recordKey(nil, uint64(top)<<48, b.m.id), each); err != nil {
			return err
		}
	}
	return flush()
}

// RecordState is the top 16 bits of the hash and the number of the state that a record's key begins with.
func RecordState(key []byte) (top int, id uint32) {
	return int(binary.BigEndian.Uint16(key)), binary.BigEndian.Uint32(key[2:])
}

// RecordPrefix is what the keys of a state's records begin with, for those top 16 bits.
func RecordPrefix(top int, id uint32) []byte { return recordKey(nil, uint64(top)<<48, id) }
