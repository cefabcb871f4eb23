// Package state keeps what the operators of a task know: maps from a key to a value and bags of rows by key, in memory
// outside Go's heap, with what each checkpoint changed handed out as a Delta.
//
// A task's state is owned by the task's goroutine; nothing here is locked. Keys are grouped by the top bits of their
// hash (key groups), so that tables grow a group at a time and a group can move to another task. What is not in memory
// is asked of the Backing; a state that began empty asks for nothing.
package state

import (
	"fmt"

	"github.com/weirstream/weir/engine/row"
)

// DefaultGroups is how many key groups a pipeline has unless it says otherwise.
const DefaultGroups = 256

// Options describes a Store. The zero value of a field means its default.
type Options struct {
	Groups  int     // key groups; a power of two up to 65,536
	Backing Backing // what the last checkpoint holds; nil: the state begins empty
	// MemoryBytes is what Evict brings the state down to; 0: no limit.
	MemoryBytes uint64
	// Volatile: no delta is ever taken, so that none is gathered.
	Volatile bool
}

// Backing is the durable state below memory, as of the checkpoint that the task was restored from and everything that it
// wrote since. Prefixes and keys are those of Delta records.
type Backing interface {
	// Empty tells that no state of that ID holds anything.
	Empty(id uint32) bool
	// Get appends the value of key to dst, and says whether there is one.
	Get(dst, key []byte) ([]byte, bool, error)
	// Scan calls f with every key and value from the prefix on, in order; they are lent for the call.
	Scan(prefix []byte, f func(key, value []byte) error) error
	// ID is the number of the state of that name, minted at the first call for it.
	ID(name string) (uint32, error)
}

// Store is the state of one task.
type Store struct {
	arena      *arena
	groupShift uint // hash >> groupShift is the key group
	groups     int
	backing    Backing
	epoch      uint32 // counts epochs, to tell the first touch of an entry
	interval   uint32 // counts checkpoints, to tell the first change since the last
	maps       []*Map
	bags       []*Bag
	names      map[string]uint32
	limit      uint64
	taken      []taken // deltas that the backing does not have yet
	clean      uint32  // up to this interval it has every change
	hand       int     // where the next eviction goes on
	evictions  uint32  // how many there were: Refs that were kept from before may be gone
	scratch    []byte
	log        addLog    // changes of bags that take retractions since the last checkpoint
	grown      []sortKey // rows that came into the others since then
	grownBytes int       // about how much their records take
	keepAdds   bool
}

// New returns an empty store.
func New(o Options) (*Store, error) {
	if o.Groups == 0 {
		o.Groups = DefaultGroups
	}
	if o.Groups < 1 || o.Groups > 1<<16 || o.Groups&(o.Groups-1) != 0 {
		return nil, fmt.Errorf("%d key groups: a power of two up to 65536 is needed", o.Groups)
	}
	a, err := newArena()
	if err != nil {
		return nil, err
	}
	s := &Store{arena: a, groups: o.Groups, groupShift: 64, backing: o.Backing, epoch: 1, interval: 1, names: map[string]uint32{}, keepAdds: !o.Volatile, limit: o.MemoryBytes}
	for g := o.Groups; g > 1; g >>= 1 {
		s.groupShift--
	}
	return s, nil
}

// Close gives the memory back. Nothing of the store may be used afterwards.
func (s *Store) Close() { s.arena.close() }

// MemoryBytes is what the state takes in memory.
func (s *Store) MemoryBytes() uint64 { return s.arena.live() }

// DirtyBytes is about how much changed since the last delta, and will be in the next.
func (s *Store) DirtyBytes() uint64 {
	n := uint64(s.log.bytes + s.grownBytes)
	for _, m := range s.maps {
		if m.bag == nil && m.entries > 0 {
			n += uint64(len(m.dirty)) * uint64(m.bytes) / uint64(m.entries)
		}
	}
	return n
}

// NextEpoch begins a new epoch: every entry is untouched.
func (s *Store) NextEpoch() {
	if s.epoch++; s.epoch == 0 {
		// Once in 2^32 epochs the marks are taken off, lest one of that age be taken for one of today.
		s.epoch = 1
		s.unmark(entryTouched)
	}
}

func (s *Store) unmark(field int) {
	for _, m := range s.maps {
		_ = m.All(func(r Ref) error { s.arena.setU32(r, field, 0); return nil })
	}
}

// group is the key group of a hash. Shifting by 64 gives 0, as it should for a single group.
func (s *Store) group(hash uint64) int { return int(hash >> s.groupShift) }

// Group is the key group of a key's hash where there are groups of them: what an exchange sends rows by.
func Group(hash uint64, groups int) int {
	return int(hash >> 48 * uint64(groups) >> 16)
}

func (s *Store) id(name string) (uint32, error) {
	if _, twice := s.names[name]; twice {
		return 0, fmt.Errorf("state %q is opened twice", name)
	}
	id := uint32(len(s.names) + 1)
	if s.backing != nil {
		var err error
		if id, err = s.backing.ID(name); err != nil {
			return 0, err
		}
	}
	s.names[name] = id
	return id, nil
}

// StateSize is what one state takes.
type StateSize struct {
	Name    string
	Entries int64
	Rows    int64 // of a bag
	Bytes   int64 // in memory
}

// Sizes lists every state, in the order in which they were opened.
func (s *Store) Sizes() []StateSize {
	var out []StateSize
	for _, m := range s.maps {
		if m.bag == nil {
			out = append(out, StateSize{Name: m.name, Entries: m.entries, Bytes: m.bytes})
		}
	}
	for _, b := range s.bags {
		out = append(out, StateSize{Name: b.m.name, Entries: b.m.entries, Rows: b.rows, Bytes: b.m.bytes + b.rowBytes})
	}
	return out
}

// keyBytes is the key of a row as it lies in records.
func keyBytes(dst []byte, c *row.KeyCodec, keys *row.Keys, i int) []byte {
	if c.IntKey() {
		return row.AppendIntKey(dst, keys.Int[i], c.IntKeyWidth())
	}
	return append(dst, keys.Bytes(i)...)
}
