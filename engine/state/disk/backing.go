package disk

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirstream/weir/internal/errs"
)

// backing is what the tasks of a pipeline read.
type backing struct {
	p    *Pipeline
	keys sync.Pool // *[]byte that begin with the pipeline's space
}

func (b *backing) init(p *Pipeline) {
	b.p = p
	b.keys.New = func() any {
		prefix := p.space.data()
		k := append(make([]byte, 0, 64), prefix[:]...)
		return &k
	}
}

// Empty implements state.Backing: a state is empty until the first checkpoint that can have anything of it is absorbed.
func (b *backing) Empty(id uint32) bool {
	ids := &b.p.ids
	ids.Lock()
	defer ids.Unlock()
	for _, s := range ids.byName {
		if s.id == id {
			return s.since == 0 || s.since > b.p.absorbed.Load()
		}
	}
	return true
}

// Get implements state.Backing. dst and key may be the same memory.
func (b *backing) Get(dst, key []byte) ([]byte, bool, error) {
	d := b.p.d
	if err := d.Err(); err != nil {
		return dst, false, err
	}
	k := b.keys.Get().(*[]byte)
	defer b.keys.Put(k)
	*k = append((*k)[:4], key...)
	it, err := d.iters.take()
	if err != nil {
		return dst, false, b.failed(err)
	}
	defer d.iters.put(it)
	// Not DB.Get: it makes an iterator each time, and asks no filter of the lowest level, where most keys are not.
	if !it.SeekPrefixGE(*k) || !bytes.Equal(it.Key(), *k) {
		if err := it.Error(); err != nil {
			return dst, false, b.failed(err)
		}
		return dst, false, nil
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return dst, false, b.failed(err)
	}
	return append(dst, v...), true, nil
}

// Scan implements state.Backing.
func (b *backing) Scan(prefix []byte, f func(key, value []byte) error) error {
	d := b.p.d
	if err := d.Err(); err != nil {
		return err
	}
	k := b.keys.Get().(*[]byte)
	defer b.keys.Put(k)
	*k = append((*k)[:4], prefix...)
	it, err := d.iters.take()
	if err != nil {
		return b.failed(err)
	}
	defer d.iters.put(it)
	for ok := it.SeekGE(*k); ok && bytes.HasPrefix(it.Key(), *k); ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return b.failed(err)
		}
		if err := f(it.Key()[4:], v); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return b.failed(err)
	}
	return nil
}

func (b *backing) failed(err error) error {
	return errs.New(errs.DiskFailed, "read the state of pipeline %q: %v", b.p.name, err)
}

// ID implements state.Backing. The number is durable with the next checkpoint; before that nothing of the state is.
func (b *backing) ID(name string) (uint32, error) {
	if err := b.p.d.Err(); err != nil {
		return 0, err
	}
	if name == "" || len(name) > maxName {
		return 0, fmt.Errorf("a state's name of %d bytes", len(name))
	}
	ids := &b.p.ids
	ids.Lock()
	defer ids.Unlock()
	if ids.byName == nil {
		return 0, fmt.Errorf("pipeline %q is not recovered yet", b.p.name)
	}
	s := ids.byName[name]
	if s == nil {
		s = &stateID{id: ids.next}
		ids.byName[name] = s
		ids.next++
	}
	return s.id, nil
}

// iterPool keeps iterators for the next Scan: making one costs several times what a seek does. An iterator sees Pebble as
// it was when it was made, and keeps that from being freed, so all of them go whenever a frame is absorbed.
type iterPool struct {
	d    *Disk
	age  atomic.Uint64 // counts absorptions
	mu   sync.Mutex
	idle []aged
}

type aged struct {
	*pebble.Iterator
	age uint64
}

func (p *iterPool) take() (aged, error) {
	p.mu.Lock()
	age := p.age.Load()
	if n := len(p.idle); n > 0 {
		it := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return it, nil
	}
	p.mu.Unlock()
	it, err := p.d.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
	return aged{it, age}, err
}

// maxIdle is how many iterators wait for use at most.
const maxIdle = 16

func (p *iterPool) put(it aged) {
	p.mu.Lock()
	if it.age == p.age.Load() && len(p.idle) < maxIdle {
		p.idle = append(p.idle, it)
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	_ = it.Close() // it has told its errors
}

// refresh makes everyone see what is in Pebble now.
func (p *iterPool) refresh() {
	p.mu.Lock()
	p.age.Add(1)
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, it := range idle {
		_ = it.Close()
	}
}
