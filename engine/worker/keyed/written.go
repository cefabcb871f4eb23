package keyed

import (
	"encoding/binary"
	"slices"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
)

// written is what a pipeline knows of a sink: its last two checkpoints that had rows for it. When a checkpoint is made,
// every one before it is published; so a sink that holds less than the one before has gone back, and what it lacks is
// kept nowhere any more.
type written struct {
	before, last dataflow.Checkpoint
}

// sectionSinks is the section of a checkpoint's meta data that has them: for each sink its name, with its length before
// it, and the two numbers.
const sectionSinks = "sinks"

// note is told of the checkpoint that is being made.
func (d *driver) note(c dataflow.Checkpoint, outbox []byte) {
	for i := range d.opts.Sinks {
		d.out[i].before = d.out[i].last
		if !newChanges(outbox, i, nil).empty() {
			d.out[i].last = c
		}
	}
}

func (d *driver) sinkSection() (b []byte) {
	for i, w := range d.out {
		name := d.opts.Sinks[i].Name
		b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
		b = binary.AppendUvarint(b, uint64(w.before))
		b = binary.AppendUvarint(b, uint64(w.last))
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
		w := written{before: dataflow.Checkpoint(number()), last: dataflow.Checkpoint(number())}
		if i := slices.IndexFunc(d.opts.Sinks, func(s Sink) bool { return s.Name == name }); i >= 0 {
			d.out[i] = w
		}
	}
}

// wentBack refuses a sink that holds less than it was given: a place that was restored from a backup, or made anew.
func (d *driver) wentBack(sink int, at dataflow.Checkpoint) error {
	w := d.out[sink]
	lost := w.before
	if at >= lost && at < w.last && d.opts.Durable != nil && !slices.Contains(d.opts.Durable.Unpublished(), w.last) {
		lost = w.last
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
