package keyed

import (
	"encoding/binary"
	"slices"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
)

// written is what a pipeline knows of a sink: its last two checkpoints that had rows for it. When a checkpoint is made,
// every one before it is published, or held for the first that can be seen (unseen.go) and then published under that one's
// number; so a sink that holds less than the one before has gone back, and what it lacks is kept nowhere any more.
type written struct {
	before, last dataflow.Checkpoint
	held         bool // there are rows for it, held for a checkpoint to come
}

// sectionSinks is the section of a checkpoint's meta data that has them: for each sink its name, with its length before
// it, the two numbers, and 1 if rows are held.
const sectionSinks = "sinks"

// note is told of the checkpoint that is being made, and whether it can be seen.
func (d *driver) note(c dataflow.Checkpoint, outbox []byte, visible bool) {
	for i := range d.opts.Sinks {
		w := &d.out[i]
		w.held = w.held || !newChanges(outbox, i, nil).empty()
		if !visible {
			continue
		}
		w.before = w.last
		if w.held {
			w.last, w.held = c, false
		}
	}
}

func (d *driver) sinkSection() (b []byte) {
	for i, w := range d.out {
		name := d.opts.Sinks[i].Name
		b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
		b = binary.AppendUvarint(b, uint64(w.before))
		b = binary.AppendUvarint(b, uint64(w.last))
		held := byte(0)
		if w.held {
			held = 1
		}
		b = append(b, held)
	}
	return b
}

// restoreSinks reads the section. What cannot be read was not written by this version.
func (d *driver) restoreSinks(b []byte) {
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			b = nil
			return 0
		}
		b = b[n:]
		return v
	}
	for len(b) > 0 {
		n := number()
		if n > uint64(len(b)) {
			return
		}
		name := string(b[:n])
		b = b[n:]
		w := written{before: dataflow.Checkpoint(number()), last: dataflow.Checkpoint(number()), held: number() == 1}
		if i := slices.IndexFunc(d.opts.Sinks, func(s Sink) bool { return s.Name == name }); i >= 0 {
			d.out[i] = w
		}
	}
}

// wentBack refuses a sink that holds less than it was given: a place that was restored from a backup, or made anew.
func (d *driver) wentBack(sink int, at dataflow.Checkpoint) error {
	w := d.out[sink]
	lost := w.before
	if at >= lost && at < w.last && d.opts.Durable != nil {
		// That one may not have been published yet. If it has, nothing up to it is kept.
		kept := slices.ContainsFunc(d.opts.Durable.Unpublished(), func(c dataflow.Checkpoint) bool { return c <= w.last })
		if !kept {
			lost = w.last
		}
	}
	if at >= lost {
		return nil
	}
	e := errs.New(errs.TargetTable, "sink %s holds checkpoint %d, and this pipeline has written checkpoint %d there", d.opts.Sinks[sink].Name, at, lost).
		WithDetail("it was restored from an older copy, or emptied with its ledger; the changes between the two are kept nowhere").
		WithHint("bring back the newer copy. If there is none, delete the pipeline, empty what it writes to, and start it anew")
	e.Final = true
	return e
}
