package operator

import (
	"encoding/binary"
	"sync/atomic"
)

// Pins is what views know of the epochs that readers hold. The epoch driver alone sets it, and only while no task is
// between two barriers, so that all of them see the same at the next one.
type Pins struct {
	oldest, newest atomic.Uint64 // 0: nobody holds one
	bytes          atomic.Int64
}

// Set tells the oldest and the newest epoch that is pinned; 0, 0 if none is.
func (p *Pins) Set(oldest, newest uint64) {
	p.newest.Store(newest)
	p.oldest.Store(oldest)
}

// Bytes is about how much all views keep for the pins.
func (p *Pins) Bytes() int64 { return p.bytes.Load() }

// undo keeps, for the epochs that are pinned, the old rows of the keys that were changed since. The rows of a key as of
// epoch N are those of its first version of an epoch above N, or what the view has if there is none.
type undo struct {
	pins   *Pins // nil: nothing can be pinned
	on     bool  // something is
	epoch  uint64
	newest uint64
	pruned uint64                       // up to which oldest pin
	groups map[int]map[string]*versions // by key group and key bytes
	bytes  int64
}

// versions of a key, rising by epoch.
type versions struct {
	list []version
}

// version is what a key's rows were before the barrier of an epoch: one by one weight i32 | length u32 | row.
type version struct {
	epoch uint64
	rows  []byte
}

func (v *version) add(weight int64, r []byte) {
	v.rows = binary.LittleEndian.AppendUint32(v.rows, uint32(int32(weight)))
	v.rows = binary.LittleEndian.AppendUint32(v.rows, uint32(len(r)))
	v.rows = append(v.rows, r...)
}

func (v *version) each(f func(weight int64, r []byte) error) error {
	for b := v.rows; len(b) > 0; {
		n := binary.LittleEndian.Uint32(b[4:])
		if err := f(int64(int32(binary.LittleEndian.Uint32(b))), b[8:8+n]); err != nil {
			return err
		}
		b = b[8+n:]
	}
	return nil
}

// versionCost is about what a version takes besides key and rows.
const versionCost = 96

// begin comes before the changes of an epoch. What no pin needs any more is forgotten.
func (u *undo) begin(epoch uint64) {
	if u.pins == nil {
		return
	}
	oldest := u.pins.oldest.Load()
	u.on, u.epoch, u.newest = oldest != 0, epoch, u.pins.newest.Load()
	if !u.on {
		u.pins.bytes.Add(-u.bytes)
		u.groups, u.bytes = nil, 0
		return
	}
	if u.groups == nil {
		u.groups = map[int]map[string]*versions{}
	}
	if oldest > u.pruned {
		u.pruned = oldest
		u.prune(oldest)
	}
}

// prune forgets the versions that only pins before oldest needed. It goes through all of them, so it is done when the
// oldest pin has changed and not at every barrier.
func (u *undo) prune(oldest uint64) {
	freed := int64(0)
	for _, keys := range u.groups {
		for k, vs := range keys {
			n := 0
			for n < len(vs.list) && vs.list[n].epoch <= oldest {
				freed += int64(len(vs.list[n].rows)+len(k)) + versionCost
				n++
			}
			if n == len(vs.list) {
				delete(keys, k)
			} else if n > 0 {
				vs.list = append([]version(nil), vs.list[n:]...)
			}
		}
	}
	u.bytes -= freed
	u.pins.bytes.Add(-freed)
}

// wants returns the place for what a key has now, if a pin may ask for it.
func (u *undo) wants(group int, key []byte) (*version, bool) {
	keys := u.groups[group]
	if keys == nil {
		keys = map[string]*versions{}
		u.groups[group] = keys
	}
	vs := keys[string(key)]
	if vs == nil {
		vs = &versions{}
		keys[string(key)] = vs
	}
	// The last version serves the pins below its epoch. If there is none at or above it, nobody can ask for the rows since.
	if n := len(vs.list); n > 0 && vs.list[n-1].epoch > u.newest {
		return nil, false
	}
	vs.list = append(vs.list, version{epoch: u.epoch})
	u.bytes += int64(len(key)) + versionCost
	u.pins.bytes.Add(int64(len(key)) + versionCost)
	return &vs.list[len(vs.list)-1], true
}

func (u *undo) took(v *version) {
	u.bytes += int64(len(v.rows))
	u.pins.bytes.Add(int64(len(v.rows)))
}

// at is the version of a key that epoch sees, nil if that is what the view has.
func (vs *versions) at(epoch uint64) *version {
	if vs == nil {
		return nil
	}
	for i := range vs.list {
		if vs.list[i].epoch > epoch {
			return &vs.list[i]
		}
	}
	return nil
}
