package disk

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/internal/errs"
)

// Pipeline is one pipeline's part of a Disk. Recover and Drop are called while no other call is under way; Prepare one
// after another; the rest from any goroutine.
type Pipeline struct {
	d        *Disk
	name     string
	space    space
	backing  backing
	absorbed atomic.Uint64
	encoder  encoder // Prepare's

	// d.mu guards these.
	frames     map[uint64]*frame // those in the log, by checkpoint
	pending    []*frame          // prepared and not decided, each building on the one before
	queued     int               // committed and not taken in
	last       uint64            // the newest checkpoint that is prepared or committed
	lastOutbox uint64            // the newest that has an outbox; 0: none that is not published
	published  uint64
	stamp      stamp // what Pebble has
	recovered  bool
	dropped    bool

	ids struct {
		sync.Mutex
		byName map[string]*stateID
		next   uint32
	}
}

// stateID is the number of a state.
type stateID struct {
	id    uint32
	since uint64 // the checkpoint whose frame says so; 0: none yet
}

// Frame is a checkpoint in the log.
type Frame struct {
	Checkpoint uint64
	Bytes      int64    // in the log, and of its table
	Digest     [16]byte // xxh3 over what it holds
}

// Restored is what a checkpoint held beside the tables.
type Restored struct {
	Frame             // of the checkpoint, to be compared with the manifest's; zero for checkpoint 0
	Meta     []byte   // as given to Prepare: positions of the sources and the like
	Outboxes []uint64 // checkpoints, in order, whose outbox may not have been published; Outbox gives them
}

// Backing is what the tasks read. What it gives is the recovered checkpoint's state and every absorbed one since. Several
// tasks may use it at a time.
func (p *Pipeline) Backing() state.Backing { return &p.backing }

// Absorbed is the checkpoint up to which Pebble, and so Backing, has everything: what state.Store.Absorbed wants to hear.
func (p *Pipeline) Absorbed() uint64 { return p.absorbed.Load() }

// maxMeta is how much a checkpoint may hold beside deltas and outbox: Pebble keeps it under one key.
const maxMeta = 64 << 20

// keepEncoder is up to what size the memory for a frame is kept for the next.
const keepEncoder = 8 << 20

// Prepare appends a checkpoint and returns when it is on disk. deltas are those of all tasks and are sorted already
// (Delta.Sort); they, outbox (what sinks will publish; may be empty) and meta may be used again when it returns.
// checkpoint is above every earlier one of the pipeline.
//
// Each checkpoint builds on the one prepared before it. Prepare waits while committed deltas that Pebble has yet to take
// in are longer than the log may be; ctx ends only that wait.
func (p *Pipeline) Prepare(ctx context.Context, checkpoint uint64, deltas []*state.Delta, outbox, meta []byte) (Frame, error) {
	d := p.d
	if err := d.await(ctx, func() bool { return d.mu.unabsorbedBytes <= d.opts.LogBytes }); err != nil {
		return Frame{}, err
	}
	d.mu.Lock()
	ready, last := p.recovered, p.last
	d.mu.Unlock()
	if !ready || checkpoint <= last {
		return Frame{}, fmt.Errorf("pipeline %q is asked to prepare checkpoint %d after %d; it is recovered: %v", p.name, checkpoint, last, ready)
	}
	e := &p.encoder
	e.reset()
	e.blob(pieceMeta, meta)
	e.names(p.newNames(checkpoint))
	e.blob(pieceOutbox, outbox)
	if d.large(deltas) {
		if err := p.writeTable(&e.h, deltas); err != nil {
			return Frame{}, d.fail(err)
		}
	} else {
		for _, delta := range deltas {
			e.delta(delta)
		}
	}
	e.finish()
	if len(meta) > maxMeta {
		e.err = fmt.Errorf("%d bytes beside the state, the limit is %d", len(meta), maxMeta)
	}
	if e.err != nil {
		p.Abort(checkpoint)
		if e.h.table != 0 {
			e.err = errors.Join(e.err, d.env.FS.Remove(d.tablePath(e.h.table)))
		}
		return Frame{}, fmt.Errorf("checkpoint %d of pipeline %q: %w", checkpoint, p.name, e.err)
	}
	f := &frame{head: e.h}
	f.space, f.name, f.checkpoint, f.metaBytes, f.outboxBytes = uint32(p.space), p.name, checkpoint, uint64(len(meta)), uint64(len(outbox))

	d.mu.Lock()
	f.previous, f.published = p.last, p.published
	if p.lastOutbox > p.published {
		f.outbox = p.lastOutbox
	}
	p.last = checkpoint
	if len(outbox) > 0 {
		p.lastOutbox = checkpoint
	}
	p.pending = append(p.pending, f)
	d.mu.Unlock()

	w := &write{parts: [2][]byte{f.append(nil), e.body}, frame: f, pipeline: p, done: make(chan error, 1)}
	d.submit(w)
	select {
	case err := <-w.done:
		if err != nil {
			return Frame{}, err
		}
	case <-d.failed:
		return Frame{}, d.Err()
	}
	if cap(e.body) > keepEncoder {
		e.body = nil
	}
	return f.describe(), nil
}

// await returns when the condition holds, which it looks at under d.mu whenever something was taken in.
func (d *Disk) await(ctx context.Context, holds func() bool) error {
	for {
		if err := d.Err(); err != nil {
			return err
		}
		d.mu.Lock()
		ok, changed := holds(), d.mu.changed
		d.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-d.failed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Commit: the manifest that names the checkpoint is replicated, and so are those that it builds on. Their deltas flow
// into Pebble in the background.
func (p *Pipeline) Commit(checkpoint uint64) {
	d := p.d
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for n < len(p.pending) && p.pending[n].checkpoint <= checkpoint {
		f := p.pending[n]
		d.mu.committed = append(d.mu.committed, absorption{p, f})
		d.mu.unabsorbedBytes += f.bytes()
		p.queued++
		n++
	}
	p.pending = slices.Delete(p.pending, 0, n)
	wake(d.absorber)
}

// Abort: no manifest will ever name the checkpoint, nor those that build on it. The pipeline has to be recovered before it
// prepares another: what the tasks changed in this one is in no later delta.
func (p *Pipeline) Abort(checkpoint uint64) {
	d := p.d
	d.mu.Lock()
	defer d.mu.Unlock()
	p.recovered = false
	n, _ := slices.BinarySearchFunc(p.pending, checkpoint, func(f *frame, c uint64) int { return cmp.Compare(f.checkpoint, c) })
	for _, f := range p.pending[n:] {
		delete(p.frames, f.checkpoint)
	}
	p.pending = slices.Delete(p.pending, n, len(p.pending))
}

// Outbox is what the sinks prepared in a committed checkpoint that is not published yet; empty if that was nothing.
func (p *Pipeline) Outbox(checkpoint uint64) ([]byte, error) {
	d := p.d
	if err := d.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	f := p.frames[checkpoint]
	d.mu.Unlock()
	if f == nil {
		return nil, p.missing(checkpoint, checkpoint)
	}
	if f.outboxBytes == 0 {
		return nil, nil
	}
	b := make([]byte, 0, min(f.outboxBytes, uint64(f.bodyBytes)))
	err := p.readFront(f, func(kind byte, data []byte) (bool, error) {
		if kind == pieceOutbox {
			b = append(b, data...)
		}
		return true, nil
	})
	if err == nil && uint64(len(b)) != f.outboxBytes {
		err = p.damaged(f, fmt.Errorf("%w: an outbox of %d bytes, %d are here", errBody, f.outboxBytes, len(b)))
	}
	return b, err
}

// Published: the outboxes up to checkpoint are not needed any more. A crash may forget that; publishing twice is the
// sinks' to notice.
func (p *Pipeline) Published(checkpoint uint64) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	p.published = max(p.published, checkpoint)
}

// Drop deletes everything of the pipeline, durably. The Pipeline is of no use afterwards; a new one of the same name
// begins with nothing.
func (p *Pipeline) Drop() error {
	d := p.d
	if err := p.settle(); err != nil {
		return err
	}
	d.mu.Lock()
	if d.mu.byName[p.name] == p {
		delete(d.mu.byName, p.name)
		delete(d.mu.spaces, p.space)
	}
	p.recovered, p.dropped, p.pending, p.frames = false, true, nil, map[uint64]*frame{}
	d.mu.Unlock()
	return d.isolate("drop "+p.name, func() error {
		if err := p.wipe(func(b *pebble.Batch) error {
			return b.Delete(append(space(0).meta(keyName), p.name...), nil)
		}); err != nil {
			return err
		}
		return d.flush()
	})
}

// settle waits until no frame of the pipeline waits for Pebble.
func (p *Pipeline) settle() error {
	return p.d.await(context.Background(), func() bool { return p.queued == 0 })
}

// wipe takes everything away that Pebble has of the pipeline.
func (p *Pipeline) wipe(and func(*pebble.Batch) error) error {
	b := p.d.db.NewBatch()
	from, to := p.space.bounds()
	if err := errors.Join(b.DeleteRange(from, to, nil), and(b), b.Commit(pebble.NoSync)); err != nil {
		return p.d.fail(fmt.Errorf("empty the state of pipeline %q: %w", p.name, err))
	}
	p.d.iters.refresh()
	return nil
}

// newNames are the states whose numbers no frame says yet. The frame of checkpoint will.
func (p *Pipeline) newNames(checkpoint uint64) []nameID {
	p.ids.Lock()
	defer p.ids.Unlock()
	var out []nameID
	for name, s := range p.ids.byName {
		if s.since == 0 {
			s.since = checkpoint
			out = append(out, nameID{name, s.id})
		}
	}
	slices.SortFunc(out, func(x, y nameID) int { return cmp.Compare(x.id, y.id) })
	return out
}

// loadNames forgets what no committed frame says.
func (p *Pipeline) loadNames() error {
	p.ids.Lock()
	defer p.ids.Unlock()
	p.ids.byName, p.ids.next = map[string]*stateID{}, 1
	return p.d.scan(p.space.meta(keyStateID), func(k, v []byte) error {
		if len(v) != 4 {
			return errs.New(errs.StateCorrupt, "the number of state %q of pipeline %q has %d bytes", k[5:], p.name, len(v))
		}
		s := &stateID{id: binary.LittleEndian.Uint32(v), since: p.absorbed.Load()}
		p.ids.byName[string(k[5:])] = s
		p.ids.next = max(p.ids.next, s.id+1)
		return nil
	})
}
