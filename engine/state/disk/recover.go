package disk

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/internal/errs"
)

// Recover brings the tables to checkpoint, the one that the replicated manifest names; 0 is before the first, and leaves
// nothing. What was prepared after it and for checkpoints that were aborted is dropped for ever. It is an error (W5010)
// if a frame that checkpoint needs is missing or damaged, or if the tables are further than that. It may be called again
// later, when tasks have failed and start anew.
//
// What is needed is known without the log: the manifest says where to end, Pebble's stamp where to begin, and each frame
// which one it builds on. So a frame that is lost is noticed, whatever happened to it, and damage to one that is not
// needed does no harm.
func (p *Pipeline) Recover(checkpoint uint64) (Restored, error) {
	if err := p.settle(); err != nil {
		return Restored{}, err
	}
	if p.dropped {
		return Restored{}, fmt.Errorf("pipeline %q was dropped", p.name)
	}
	var r Restored
	err := p.d.isolate("recover "+p.name, func() (err error) {
		r, err = p.recover(checkpoint)
		return err
	})
	return r, err
}

func (p *Pipeline) recover(checkpoint uint64) (Restored, error) {
	d := p.d
	if checkpoint == 0 {
		if err := p.clear(); err != nil {
			return Restored{}, err
		}
		return Restored{}, p.loadNames()
	}
	d.mu.Lock()
	plan, err := p.plan(checkpoint)
	if err == nil {
		p.recovered = false
		p.pending = nil
		for c, f := range p.frames {
			// Those that Pebble has may still be needed after a crash.
			if c > p.stamp.frame.Checkpoint && !slices.Contains(plan.frames, f) {
				delete(p.frames, c)
			}
		}
	}
	d.mu.Unlock()
	if err != nil {
		return Restored{}, err
	}
	if err := p.replay(plan.frames); err != nil {
		return Restored{}, err
	}
	if err := p.loadNames(); err != nil {
		return Restored{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p.recovered = true
	p.last, p.published = checkpoint, plan.published
	p.lastOutbox = 0
	if n := len(plan.outboxes); n > 0 {
		p.lastOutbox = plan.outboxes[n-1]
	}
	return Restored{Frame: p.stamp.frame, Meta: slices.Clone(p.stamp.meta), Outboxes: plan.outboxes}, nil
}

// clear is recovery to before the first checkpoint. The manifest says that there never was one, so what is here is of a
// pipeline of the same name that was deleted while this worker was away.
func (p *Pipeline) clear() error {
	d := p.d
	d.mu.Lock()
	some := p.stamp.frame.Checkpoint > 0
	p.recovered = true
	p.pending, p.frames, p.stamp = nil, map[uint64]*frame{}, stamp{}
	p.last, p.lastOutbox, p.published = 0, 0, 0
	d.mu.Unlock()
	p.absorbed.Store(0)
	if !some {
		return nil
	}
	d.env.Log.Info("the state of an earlier pipeline of the same name is deleted", "pipeline", p.name)
	if err := p.wipe(func(*pebble.Batch) error { return nil }); err != nil {
		return err
	}
	// Else a crash would bring the old stamp back, and with it a state that nothing new builds on.
	return d.flush()
}

// plan is what recovery has to do.
type plan struct {
	frames    []*frame // that Pebble has to take in, in order
	outboxes  []uint64
	published uint64
}

// plan wants d.mu.
func (p *Pipeline) plan(checkpoint uint64) (plan, error) {
	has := p.stamp.frame.Checkpoint
	pl := plan{published: p.published}
	outbox := p.stamp.outbox
	at := checkpoint
	for at > has {
		f := p.frames[at]
		if f == nil {
			return pl, p.missingLocked(at, checkpoint)
		}
		if at == checkpoint {
			if outbox = f.outbox; f.outboxBytes > 0 {
				outbox = at
			}
		}
		pl.frames = append(pl.frames, f)
		pl.published = max(pl.published, f.published)
		at = f.previous
	}
	slices.Reverse(pl.frames)
	if at < has {
		return pl, errs.New(errs.StateLogDamaged, "the state of pipeline %q holds checkpoint %d, and checkpoint %d, which the catalog names, does not build on it", p.name, has, checkpoint).
			WithHint("state directory and catalog are of different times: restore both from one backup")
	}
	for outbox > pl.published {
		f := p.frames[outbox]
		if f == nil {
			return pl, p.missingLocked(outbox, checkpoint)
		}
		pl.outboxes = append(pl.outboxes, outbox)
		outbox = f.outbox
		pl.published = max(pl.published, f.published)
	}
	slices.Reverse(pl.outboxes)
	return pl, nil
}

func (p *Pipeline) missing(checkpoint, wanted uint64) error {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	return p.missingLocked(checkpoint, wanted)
}

const damageHint = "check the disk; restore the state directory from a backup of the whole directory, or delete the pipeline and create it again, which reads its sources from the beginning"

func (p *Pipeline) missingLocked(checkpoint, wanted uint64) error {
	var places []string
	for _, seg := range p.d.mu.segments {
		if seg.damage != nil {
			places = append(places, fmt.Sprintf("%s, %v", seg.path, seg.damage))
		}
	}
	e := errs.New(errs.StateLogDamaged, "the state log in %s lacks checkpoint %d of pipeline %q, which checkpoint %d needs", p.d.logDir, checkpoint, p.name, wanted).WithHint(damageHint)
	if len(places) > 0 {
		e.WithDetail("the log cannot be read on from here: %s", strings.Join(places, "; "))
	}
	return e
}

// damaged says where. Errors of reading, which are not about what is there, are the disk's.
func (p *Pipeline) damaged(f *frame, err error) error {
	if !damaged(err) {
		return errs.New(errs.DiskFailed, "read %s: %v", f.seg.path, err)
	}
	return errs.New(errs.StateLogDamaged, "the state log is damaged: %s, the frame at offset %d, checkpoint %d of pipeline %q: %v", f.seg.path, f.at, f.checkpoint, p.name, err).WithHint(damageHint)
}

// readFront calls f with the pieces of a frame before its records, until it returns false.
func (p *Pipeline) readFront(f *frame, each func(kind byte, data []byte) (bool, error)) error {
	file, err := p.d.env.FS.Open(f.seg.path, vfs.RandomReadsOption)
	if err != nil {
		return errs.New(errs.DiskFailed, "read the state log: %v", err)
	}
	defer file.Close()
	return p.front(file, f, each)
}

func (p *Pipeline) front(file vfs.File, f *frame, each func(kind byte, data []byte) (bool, error)) error {
	end := f.bodyBytes
	if len(f.runs) > 0 {
		end = f.runs[0]
	}
	in := readPieces(file, f.bodyAt, f.bodyAt+end)
	for in.offset() < end {
		at := f.bodyAt + in.offset()
		kind, data, err := in.next()
		more := false
		if err == nil {
			more, err = each(kind, data)
		}
		if err != nil {
			return p.damaged(f, fmt.Errorf("offset %d: %w", at, err))
		}
		if !more {
			break
		}
	}
	return nil
}
