package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirstream/weir/engine/state"
)

// ScanState implements state.RangeScanner. What lies between the state's own records is leapt over.
func (b *backing) ScanState(id uint32, first, behind int, f func(key, value []byte) error) error {
	if err := b.p.d.Err(); err != nil {
		return err
	}
	it, err := b.p.d.iters.take()
	if err != nil {
		return b.failed(err)
	}
	defer b.p.d.iters.put(it)
	space := b.p.space.data()
	seek := func(top int) bool {
		return top < behind && it.SeekGE(append(space[:4:4], state.RecordPrefix(top, id)...)) && bytes.HasPrefix(it.Key(), space[:])
	}
	for ok := seek(first); ok; {
		top, of := state.RecordState(it.Key()[4:])
		switch {
		case top >= behind:
			ok = false
		case of < id:
			ok = seek(top)
		case of > id:
			ok = seek(top + 1)
		default:
			v, err := it.ValueAndErr()
			if err != nil {
				return b.failed(err)
			}
			if err := f(it.Key()[4:], v); err != nil {
				return err
			}
			ok = it.Next() && bytes.HasPrefix(it.Key(), space[:])
		}
	}
	if err := it.Error(); err != nil {
		return b.failed(err)
	}
	return nil
}

// forgetBatch is how many ranges are deleted at a time.
const forgetBatch = 4096

// Forget deletes every state whose name keep does not want, durably, and returns how many there were. It is called after
// Recover; no task may have opened one of them. A state of the same name then begins empty.
func (p *Pipeline) Forget(keep func(name string) bool) (int, error) {
	type gone struct {
		name string
		id   uint32
	}
	var list []gone
	p.ids.Lock()
	for name, s := range p.ids.byName {
		if !keep(name) {
			list = append(list, gone{name, s.id})
		}
	}
	p.ids.Unlock()
	if len(list) == 0 {
		return 0, nil
	}
	slices.SortFunc(list, func(x, y gone) int { return int(x.id) - int(y.id) })
	d := p.d
	err := d.isolate("forget states of "+p.name, func() error {
		space := p.space.data()
		for _, g := range list {
			b := d.db.NewBatch()
			n, last := 0, -1
			err := p.backing.ScanState(g.id, 0, 1<<16, func(k, _ []byte) error {
				top, _ := state.RecordState(k)
				if top == last {
					return nil
				}
				last = top
				from := append(space[:4:4], state.RecordPrefix(top, g.id)...)
				to := append(space[:4:4], binary.BigEndian.AppendUint32(from[4:6:6], g.id+1)...)
				if err := b.DeleteRange(from, to, nil); err != nil {
					return err
				}
				if n++; n%forgetBatch == 0 {
					if err := b.Commit(pebble.NoSync); err != nil {
						return err
					}
					b = d.db.NewBatch()
				}
				return nil
			})
			// The name goes with the last of the records, or stays with them.
			if err == nil {
				err = errors.Join(b.Delete(stateIDKey(p.space, g.name), nil), b.Commit(pebble.NoSync))
			}
			if err != nil {
				return d.fail(err)
			}
		}
		d.iters.refresh()
		// A crash must not bring records back that another state of that number would then take for its own.
		return d.flush()
	})
	if err != nil {
		return 0, err
	}
	p.ids.Lock()
	defer p.ids.Unlock()
	for _, g := range list {
		delete(p.ids.byName, g.name)
	}
	return len(list), nil
}

var _ state.RangeScanner = (*backing)(nil)
