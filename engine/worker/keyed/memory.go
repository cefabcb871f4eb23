package keyed

import (
	"sync"
	"sync/atomic"
	"time"
)

// The states of a pipeline share MemoryBytes. What changed since the last checkpoint cannot be let go of before the
// store below has it, and is copied for it, so two things happen where memory runs out or much has changed: the next
// checkpoint comes at once, and a good way behind that the sources are held, between two transactions, until a checkpoint
// has made room. A transaction that has begun is let through to its end, whatever it takes.

// pressure is what the tasks, the feeders and the driver share of that.
type pressure struct {
	limit int64         // of all tasks; 0: none
	live  atomic.Int64  // what all of them have
	mark  atomic.Int64  // what live may be: the limit, or a little more than what has to stay
	dirty atomic.Int64  // what changed since the last checkpoint
	full  chan struct{} // has a value when live has passed the mark, or dirty its own
	mu    struct {
		sync.Mutex
		held   bool
		opened chan struct{} // closed when held ends
	}
}

func newPressure(limit int64) *pressure {
	p := &pressure{limit: limit, full: make(chan struct{}, 1)}
	p.mark.Store(limit)
	return p
}

// maxDirty is how much may change until a checkpoint comes early. With a delta under way there may be as much twice, and
// copies of it.
func (p *pressure) maxDirty() int64 { return min(p.limit/8, 256<<20) }

// changed tells that a task has so many bytes more than it last said, and so many more that changed. Tasks call it between
// two batches.
func (p *pressure) changed(by, dirty int64) {
	live, changed := p.live.Add(by), p.dirty.Add(dirty)
	if p.limit == 0 || by <= 0 && dirty <= 0 {
		return
	}
	mark := p.mark.Load()
	if live <= mark && changed <= p.maxDirty() {
		return
	}
	if live > mark+p.limit/5 || changed > 2*p.maxDirty() {
		p.hold()
	}
	select {
	case p.full <- struct{}{}:
	default:
	}
}

func (p *pressure) over() bool {
	return p.limit > 0 && (p.live.Load() > p.mark.Load() || p.dirty.Load() > p.maxDirty())
}

// stays tells that all that could be let go of is gone. What is left besides the last changes (views that are read, one
// key's rows) may be more than the limit; then a checkpoint comes early only for what is added to it.
func (p *pressure) stays() { p.mark.Store(max(p.limit, p.live.Load()-p.dirty.Load()+p.limit/8)) }

func (p *pressure) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.held {
		p.mu.held, p.mu.opened = true, make(chan struct{})
	}
}

// open lets the sources go on.
func (p *pressure) open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.held {
		p.mu.held = false
		close(p.mu.opened)
	}
}

// waits is what a feeder between two transactions waits for; nil: it may go on.
func (p *pressure) waits() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.held {
		return nil
	}
	return p.mu.opened
}

// changed tells whether a checkpoint would have anything that the last one has not.
func (d *driver) changed() bool { return d.dirty || d.pressure.dirty.Load() > 0 }

// absorbing is how often the driver looks whether the store below has taken a checkpoint in.
const absorbing = 2 * time.Millisecond

// relieve says what memory over the limit wants: that the epoch ends now, or that the store below is waited for. Where
// neither helps, since what is there has to stay, the sources go on.
func (d *driver) relieve() (now, wait bool) {
	if !d.pressure.over() {
		d.pressure.open()
		return false, false
	}
	absorbed := d.opts.Durable.Absorbed()
	switch {
	case absorbed > d.evicted:
		return true, false // the barrier lets go of it
	case d.committing == nil && d.changed():
		return true, false
	case d.committing != nil || d.last > absorbed:
		return false, true
	}
	d.pressure.open()
	return false, false
}
