package disk

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/engine/state"
)

// absorption is a committed frame that Pebble has yet to take in.
type absorption struct {
	p *Pipeline
	f *frame
}

// absorbLog is the goroutine that brings committed deltas into Pebble and keeps the log short.
func (d *Disk) absorbLog() {
	var flushed <-chan struct{}
	for {
		d.mu.Lock()
		var a absorption
		if len(d.mu.committed) > 0 {
			a = d.mu.committed[0]
		}
		d.mu.Unlock()
		if a.f == nil {
			select {
			case <-d.absorber:
			case <-flushed:
				flushed = d.cutOrFail()
			case <-d.failed:
				return
			case <-d.quit:
				return
			}
		} else {
			select {
			case <-flushed:
				flushed = d.cutOrFail()
			case <-d.failed:
				return
			case <-d.quit:
				return
			default:
			}
			if err := a.p.absorb(a.f, false); err != nil {
				_ = d.fail(err) // a committed checkpoint is not there: nothing can go on
				return
			}
			d.mu.Lock()
			d.mu.committed = slices.Delete(d.mu.committed, 0, 1)
			d.mu.unabsorbedBytes -= a.f.bytes()
			a.p.queued--
			close(d.mu.changed)
			d.mu.changed = make(chan struct{})
			d.mu.Unlock()
		}
		if flushed == nil {
			flushed = d.flushIfLong()
		}
	}
}

func (d *Disk) cutOrFail() <-chan struct{} {
	if d.Err() == nil {
		if err := d.cut(); err != nil {
			_ = d.fail(err)
		}
	}
	return nil
}

// flushIfLong tells Pebble to flush when the log is long. What it returns is closed when that is done.
func (d *Disk) flushIfLong() <-chan struct{} {
	d.mu.Lock()
	long := d.mu.logBytes > d.mu.flushAt || d.mu.logFrames > d.mu.flushFrames
	d.mu.Unlock()
	if !long {
		return nil
	}
	err := d.hit(FailFlush)
	if err == nil {
		err = d.notePublished()
	}
	var done <-chan struct{}
	if err == nil {
		done, err = d.db.AsyncFlush()
	}
	if err != nil {
		_ = d.fail(err)
		return nil
	}
	return done
}

// notePublished writes up to where each pipeline's outboxes are published, so that their frames can go.
func (d *Disk) notePublished() error {
	b := d.db.NewBatch()
	d.mu.Lock()
	for _, p := range d.mu.spaces {
		if p.published > 0 {
			_ = b.Set(p.space.meta(keyPublished), binary.LittleEndian.AppendUint64(nil, p.published), nil) // a batch in memory takes all
		}
	}
	d.mu.Unlock()
	return b.Commit(pebble.NoSync)
}

// opened is a frame that is read: what is beside its records, and its records.
type opened struct {
	file  vfs.File
	stamp stamp
	names []nameID
	runs  []*run
}

func (p *Pipeline) openFrame(f *frame) (*opened, error) {
	d := p.d
	file, err := d.env.FS.Open(f.seg.path, vfs.SequentialReadsOption)
	if err != nil {
		return nil, d.fail(fmt.Errorf("read the state log: %w", err))
	}
	o := &opened{file: file, stamp: stamp{frame: f.describe(), outbox: f.outbox}}
	if f.outboxBytes > 0 {
		o.stamp.outbox = f.checkpoint
	}
	err = p.front(file, f, func(kind byte, data []byte) (bool, error) {
		switch kind {
		case pieceMeta:
			o.stamp.meta = append(o.stamp.meta, data...)
		case pieceNames:
			return true, parseNames(data, func(n nameID) { o.names = append(o.names, n) })
		default:
			return false, nil // the outbox, which comes last and stays in the log
		}
		return true, nil
	})
	if err == nil && uint64(len(o.stamp.meta)) != f.metaBytes {
		err = p.damaged(f, fmt.Errorf("%w: %d bytes beside the state, want %d", errBody, len(o.stamp.meta), f.metaBytes))
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	o.runs = make([]*run, len(f.runs))
	for i, at := range f.runs {
		end := f.bodyBytes
		if i+1 < len(f.runs) {
			end = f.runs[i+1]
		}
		o.runs[i] = &run{pieces: readPieces(file, f.bodyAt+at, f.bodyAt+end)}
	}
	return o, nil
}

// absorb brings a frame into Pebble: records, the numbers of new states, and the stamp, all or nothing. verify: another
// process wrote it.
func (p *Pipeline) absorb(f *frame, verify bool) error {
	d := p.d
	if err := d.hit(FailAbsorb); err != nil {
		return err
	}
	o, err := p.openFrame(f)
	if err != nil {
		return err
	}
	defer o.file.Close()
	if f.table != 0 {
		err = p.ingest(f, verify, o.names, &o.stamp)
	} else {
		err = p.batch(f, o.runs, o.names, &o.stamp)
	}
	if err != nil {
		return p.notAbsorbed(f, err)
	}
	return p.took(o.stamp, f.records)
}

// notAbsorbed tells what is wrong with a frame from a failure of Pebble's.
func (p *Pipeline) notAbsorbed(f *frame, err error) error {
	if damaged(err) {
		return p.damaged(f, err)
	}
	return p.d.fail(fmt.Errorf("bring checkpoint %d of pipeline %q into the state: %w", f.checkpoint, p.name, err))
}

// took tells everyone that Pebble has what the stamp says.
func (p *Pipeline) took(st stamp, records uint64) error {
	d := p.d
	if err := d.hit(FailAbsorbed); err != nil {
		return err
	}
	d.mu.Lock()
	p.stamp = st
	d.mu.stats.Absorbed += records
	d.mu.Unlock()
	p.absorbed.Store(st.frame.Checkpoint)
	d.iters.refresh()
	return nil
}

// meta calls set with what is written beside the records, in order of key.
func (p *Pipeline) meta(names []nameID, st *stamp, set func(key, value []byte) error) error {
	p.d.mu.Lock()
	published := p.published
	p.d.mu.Unlock()
	slices.SortFunc(names, func(x, y nameID) int { return cmp.Compare(x.name, y.name) })
	for _, n := range names {
		if err := set(stateIDKey(p.space, n.name), binary.LittleEndian.AppendUint32(nil, n.id)); err != nil {
			return err
		}
	}
	if published > 0 {
		if err := set(p.space.meta(keyPublished), binary.LittleEndian.AppendUint64(nil, published)); err != nil {
			return err
		}
	}
	return set(p.space.meta(keyStamp), st.encode())
}

// batch absorbs a frame without a table. Runs need not be merged: their keys are different ones.
func (p *Pipeline) batch(f *frame, runs []*run, names []nameID, st *stamp) error {
	b := p.d.db.NewBatchWithSize(int(f.recordBytes) + int(f.records)*12 + len(st.meta) + 1<<10)
	defer b.Close()
	if err := p.meta(names, st, func(k, v []byte) error { return b.Set(k, v, nil) }); err != nil {
		return err
	}
	prefix := p.space.data()
	var n uint64
	for _, r := range runs {
		for {
			ok, err := r.next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			n++
			switch key := r.record.Key; r.record.Op {
			case state.Set:
				op := b.SetDeferred(len(prefix)+len(key), len(r.record.Value))
				copy(op.Key, prefix[:])
				copy(op.Key[len(prefix):], key)
				copy(op.Value, r.record.Value)
				err = op.Finish()
			case state.Delete:
				op := b.DeleteDeferred(len(prefix) + len(key))
				copy(op.Key, prefix[:])
				copy(op.Key[len(prefix):], key)
				err = op.Finish()
			case state.DeleteBelow:
				from := len(prefix) + len(key) - 8
				op := b.DeleteRangeDeferred(from, len(prefix)+len(key))
				copy(op.Key, prefix[:])
				copy(op.Key[len(prefix):], key)
				copy(op.Value, prefix[:])
				copy(op.Value[len(prefix):], key)
				err = op.Finish()
			}
			if err != nil {
				return err
			}
		}
	}
	if n != f.records {
		return fmt.Errorf("%w: %d records, want %d", errBody, n, f.records)
	}
	return b.Commit(pebble.NoSync)
}
