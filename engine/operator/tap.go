package operator

import (
	"encoding/binary"
	"slices"
	"sync"
)

// Tap takes what changes in a view, epoch by epoch, for somebody who follows it. All tasks of the view fill it and one
// reader empties it. A reader that is too slow loses its place: the view does not wait.
type Tap struct {
	limit int
	mu    struct {
		sync.Mutex
		changes []byte // one by one epoch u64 | weight i64 | length u32 | binary row
		lost    bool
	}
}

// NewTap returns a tap that holds up to limit bytes.
func NewTap(limit int) *Tap { return &Tap{limit: limit} }

const tapHeader = 20

func (t *Tap) add(epoch uint64, weight int64, r []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.mu.lost:
	case len(t.mu.changes)+tapHeader+len(r) > t.limit:
		t.mu.lost, t.mu.changes = true, nil
	default:
		b := binary.LittleEndian.AppendUint64(t.mu.changes, epoch)
		b = binary.LittleEndian.AppendUint64(b, uint64(weight))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(r)))
		t.mu.changes = append(b, r...)
	}
}

// Change is one that a tap took: a row of the view came or went.
type Change struct {
	Epoch  uint64
	Weight int64
	Row    []byte
}

// Take gives the changes of the epochs up to one, netted: of each epoch every row once, those that go first. ok is false
// if the reader has lost its place.
func (t *Tap) Take(epoch uint64) (changes []Change, ok bool) {
	t.mu.Lock()
	all, lost := t.mu.changes, t.mu.lost
	t.mu.changes = nil
	var later []byte
	type place struct {
		epoch uint64
		row   string
	}
	sums := map[place]int64{}
	for len(all) > 0 {
		n := tapHeader + int(binary.LittleEndian.Uint32(all[16:]))
		if e := binary.LittleEndian.Uint64(all); e > epoch {
			later = append(later, all[:n]...) // it is not complete yet
		} else {
			sums[place{e, string(all[tapHeader:n])}] += int64(binary.LittleEndian.Uint64(all[8:]))
		}
		all = all[n:]
	}
	t.mu.changes = later
	t.mu.Unlock()
	for p, w := range sums {
		if w != 0 {
			changes = append(changes, Change{p.epoch, w, []byte(p.row)})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int {
		switch {
		case a.Epoch != b.Epoch:
			return int(int64(a.Epoch - b.Epoch))
		case (a.Weight < 0) != (b.Weight < 0):
			if a.Weight < 0 {
				return -1
			}
			return 1
		}
		return slices.Compare(a.Row, b.Row)
	})
	return changes, !lost
}

// AddTap has the view fill a tap from its next barrier on; what it returns ends that. Any goroutine may call it.
func (v *View) AddTap(t *Tap) (remove func()) {
	v.tapping.Lock()
	defer v.tapping.Unlock()
	v.setTaps(append(slices.Clone(v.tapsNow()), t))
	return func() {
		v.tapping.Lock()
		defer v.tapping.Unlock()
		v.setTaps(slices.DeleteFunc(slices.Clone(v.tapsNow()), func(x *Tap) bool { return x == t }))
	}
}

func (v *View) tapsNow() []*Tap {
	if p := v.taps.Load(); p != nil {
		return *p
	}
	return nil
}

func (v *View) setTaps(taps []*Tap) {
	if len(taps) == 0 {
		v.taps.Store(nil)
		return
	}
	v.taps.Store(&taps)
}
