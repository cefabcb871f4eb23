package keyed

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// What Options say unless they say otherwise.
const (
	defaultPinWait     = 3 * time.Second
	defaultPinTime     = 5 * time.Minute
	defaultPinBytes    = 256 << 20
	defaultFollowBytes = 64 << 20
)

// A slice of a scan ends when it has sliceRows rows or has taken sliceTime: between two slices the task works on its
// stream. Where the stream's batches take longer than that, as they do while state is cold, slices may, too, up to
// longSliceTime: a scan gets up to half of the task's time, however slow it is.
const (
	sliceRows     = row.MaxBatch
	sliceTime     = 200 * time.Microsecond
	longSliceTime = 500 * time.Millisecond
)

// Pin holds an epoch still: whatever is read under it, of any view, is as of that epoch. It belongs to one goroutine.
type Pin struct {
	p    *Pipeline
	held *held
	over bool
}

// held is a pinned epoch, which several Pins may share.
type held struct {
	epoch uint64
	since time.Time
	users int
	dead  atomic.Bool // it was taken away from its users
}

// pins are the epochs that are pinned.
type pins struct {
	operator.Pins
	ask chan chan *held
	mu  struct {
		sync.Mutex
		held map[uint64]*held
		settled
	}
}

// set tells the views. The caller has locked.
func (p *pins) set() {
	var oldest, newest uint64
	for e := range p.mu.held {
		newest = max(newest, e)
		if oldest == 0 || e < oldest {
			oldest = e
		}
	}
	p.Set(oldest, newest)
}

// use is another user of an epoch that is held, nil if it is not.
func (p *pins) use(epoch uint64) *held {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.mu.held[epoch]
	if h != nil {
		h.users++
	}
	return h
}

// hold pins the epoch that every task has passed and none has left. Only the driver may do that.
func (p *pins) hold(epoch uint64, now time.Time) *held {
	if h := p.use(epoch); h != nil {
		return h
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &held{epoch: epoch, since: now, users: 1}
	p.mu.held[epoch] = h
	p.set()
	return h
}

func (p *pins) release(h *held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.users--; h.users == 0 && p.mu.held[h.epoch] == h {
		delete(p.mu.held, h.epoch)
		p.set()
	}
}

// expire takes the pins away that are older than the time, and all of them if what is kept for them has become too much.
func (p *pins) expire(now time.Time, o Options) {
	if p.Bytes() == 0 {
		return // nothing changed under a pin
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.Bytes() > o.PinBytes
	for e, h := range p.mu.held {
		if e == p.mu.base || e == p.mu.next {
			continue // it will not be long
		}
		if all || now.Sub(h.since) > o.PinTime {
			h.dead.Store(true)
			delete(p.mu.held, e)
		}
	}
	p.set()
}

func tooOld(h *held) error {
	return errs.New(errs.SnapshotTooOld, "snapshot too old: epoch %d is not kept any more", h.epoch).
		WithHint("read in shorter transactions, and fetch results without long pauses")
}

func (p *Pipeline) notRunning() error {
	return errs.New(errs.PipelineState, "the pipeline is not running, so its views cannot be read").WithHint("weir pipelines list shows its state")
}

// Pin pins the newest visible epoch of all tasks, or the last one that is settled (see settled). It waits until there is
// one, for a first copy no longer than PinWait, and while an epoch ends.
func (p *Pipeline) Pin(ctx context.Context) (*Pin, error) {
	if err := p.awaitShown(ctx); err != nil {
		return nil, err
	}
	p.mu.Lock()
	visible := p.mu.status.Epoch
	p.mu.Unlock()
	if h := p.pins.readable(visible); h != nil {
		return &Pin{p: p, held: h}, nil
	}
	answer := make(chan *held, 1)
	select {
	case p.pins.ask <- answer:
	case <-p.over:
		return nil, p.notRunning()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return &Pin{p: p, held: <-answer}, nil // the driver answers at once
}

// awaitShown returns when an epoch can be seen.
func (p *Pipeline) awaitShown(ctx context.Context) error {
	select {
	case <-p.shown:
		return nil
	default:
	}
	patience := p.env.Clock.NewTimer(p.opts.PinWait)
	defer func() { patience.Stop() }()
	for {
		select {
		case <-p.shown:
			return nil
		case <-p.over:
			return p.notRunning()
		case <-ctx.Done():
			return ctx.Err()
		case <-patience.C():
			if p.Status().Copying {
				return p.unseen()
			}
			patience = p.env.Clock.NewTimer(p.opts.PinWait) // it starts
		}
	}
}

// Epoch is the epoch that is held.
func (pin *Pin) Epoch() uint64 { return pin.held.epoch }

// Release lets go of the epoch. It may be called again.
func (pin *Pin) Release() {
	if !pin.over {
		pin.over = true
		pin.p.pins.release(pin.held)
	}
}

// Read gives the rows of a view, which is the node of an operator.View, to f batch by batch, with their weights; a batch is
// lent for the call. With keys, whose columns are those of the view's key, it gives the rows of these keys only, which are
// looked up where they are. The order is none in particular. Readers of one pin come one after another.
//
// The tasks that own the rows read them between two batches of their stream, a slice at a time, so a scan of many rows
// takes the longer the busier they are, and does not stop them.
func (pin *Pin) Read(ctx context.Context, node int, keys *row.Batch, f func(*row.Batch) error) error {
	p := pin.p
	if keys != nil && keys.Rows() == 0 {
		return nil
	}
	select {
	case <-p.built:
	case <-p.over:
		return p.notRunning()
	}
	if err := p.faultOf(node); err != nil {
		return err
	}
	tasks := p.tasks[p.of[node].number]
	of := make([][]int32, len(tasks)) // which keys are whose
	if keys != nil {
		var hashed row.Keys
		tasks[0].operators[node].(*operator.View).KeyHash(&hashed, keys)
		for k := range keys.Rows() {
			i := keys.At(k)
			t := (hashed.Hash[i] >> 48) * uint64(len(tasks)) >> 16
			of[t] = append(of[t], int32(i))
		}
	}
	for i, t := range tasks {
		if keys == nil {
			if err := pin.scan(ctx, t, node, f); err != nil {
				return err
			}
			continue
		}
		if len(of[i]) == 0 {
			continue
		}
		view := t.operators[node].(*operator.View)
		r := &read{view: view, held: pin.held, keys: &row.Batch{Len: keys.Len, Cols: keys.Cols, Sel: of[i]}, out: row.NewBuilder(view.Types()), done: make(chan struct{})}
		if err := pin.ask(ctx, t, r); err != nil {
			return err
		}
		if err := pin.wait(ctx, r); err != nil {
			return err
		}
		if r.out.Len > 0 {
			if err := f(r.out.Seal()); err != nil {
				return err
			}
		}
	}
	return nil
}

// scan reads all of a task's part of a view. The next slice is on its way while f has one.
func (pin *Pin) scan(ctx context.Context, t *task, node int, f func(*row.Batch) error) error {
	view := t.operators[node].(*operator.View)
	cursor := &operator.Cursor{}
	slice := func(out *row.Builder) (*read, error) {
		out.Reset()
		r := &read{view: view, held: pin.held, cursor: cursor, out: out, done: make(chan struct{})}
		return r, pin.ask(ctx, t, r)
	}
	spare := row.NewBuilder(view.Types())
	r, err := slice(row.NewBuilder(view.Types()))
	for err == nil {
		if err = pin.wait(ctx, r); err != nil {
			break
		}
		this := r
		if !this.end {
			if r, err = slice(spare); err != nil {
				break
			}
		}
		if this.out.Len > 0 {
			if err = f(this.out.Seal()); err != nil {
				break
			}
		}
		if this.end {
			return nil
		}
		spare = this.out
	}
	return err
}

// read is a request to a task: a slice of a scan, a lookup, or a call. Until done is closed it is the task's.
type read struct {
	view   *operator.View
	held   *held
	cursor *operator.Cursor
	keys   *row.Batch // of a lookup
	out    *row.Builder
	end    bool
	err    error
	done   chan struct{}
	call   func() error // does something else in the task instead
}

func (pin *Pin) ask(ctx context.Context, t *task, r *read) error {
	select {
	case t.reads <- r:
		return nil
	case <-pin.p.over:
		return pin.p.notRunning()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (pin *Pin) wait(ctx context.Context, r *read) error {
	select {
	case <-r.done:
		return r.err
	case <-pin.p.over:
		return pin.p.notRunning()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// nextSlice is how long a task waits for the next request of a reader that has just got a slice.
const nextSlice = 50 * time.Microsecond

// serveMany answers a request and those that follow at once, for as long as the last item of the inbox took.
func (t *task) serveMany(r *read, worked time.Duration) {
	began := t.p.env.Clock.Now()
	for {
		t.serve(r, worked-t.p.env.Clock.Now().Sub(began))
		if t.p.env.Clock.Now().Sub(began)+nextSlice > min(worked, longSliceTime) {
			return
		}
		timer := t.p.env.Clock.NewTimer(nextSlice)
		select {
		case r = <-t.reads:
			timer.Stop()
		case <-timer.C():
			return
		}
	}
}

// serve answers a request, between two items of the inbox of which the last took worked.
func (t *task) serve(r *read, worked time.Duration) {
	may := max(sliceTime, min(worked, longSliceTime))
	defer close(r.done)
	if r.call != nil {
		r.err = r.call()
		return
	}
	if r.held.dead.Load() {
		r.err = tooOld(r.held)
		return
	}
	if r.cursor == nil {
		r.err = r.view.Lookup(r.held.epoch, r.keys, r.out)
		return
	}
	began := t.p.env.Clock.Now()
	first := true
	r.end, r.err = r.view.Scan(r.held.epoch, r.cursor, r.out, func(rows int) bool {
		if first { // every slice gets on
			first = false
			return false
		}
		return rows >= sliceRows || t.p.env.Clock.Now().Sub(began) >= may
	})
}
