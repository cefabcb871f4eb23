package disk

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/weirstream/weir/engine/state"
)

// replayBytes is about how much of the log is made one table at recovery.
const replayBytes = 32 << 20

// replay brings frames into Pebble, in order. While tasks run small frames go through Pebble's memtable one by one, with
// time between them. Here many wait behind each other, and a table of many costs a third of that.
func (p *Pipeline) replay(frames []*frame) error {
	var lot []*frame
	size := uint64(0)
	for _, f := range frames {
		if f.table != 0 {
			if err := p.replayLot(lot); err != nil {
				return err
			}
			lot, size = lot[:0], 0
			if err := p.absorb(f, true); err != nil {
				return err
			}
			continue
		}
		lot = append(lot, f)
		if size += f.recordBytes + 64*f.records; size >= replayBytes {
			if err := p.replayLot(lot); err != nil {
				return err
			}
			lot, size = lot[:0], 0
		}
	}
	return p.replayLot(lot)
}

// replayed is a record of a lot; prefix decides most comparisons, and number, which is that in the order of the frames,
// the last ones.
type replayed struct {
	prefix uint64
	number int
	record state.Record
}

// replayLot absorbs frames without tables, together if they are large enough for one.
func (p *Pipeline) replayLot(lot []*frame) error {
	d, n := p.d, uint64(0)
	for _, f := range lot {
		n += f.records
	}
	if n < uint64(d.opts.IngestRecords) {
		for _, f := range lot {
			if err := p.absorb(f, true); err != nil {
				return err
			}
		}
		return nil
	}
	if err := d.hit(FailAbsorb); err != nil {
		return err
	}
	all := make([]replayed, 0, n)
	var names []nameID
	var st stamp
	for _, f := range lot {
		o, err := p.openFrame(f)
		if err != nil {
			return err
		}
		all, err = readAll(all, f, o.runs)
		names, st = append(names, o.names...), o.stamp
		if err := errors.Join(err, o.file.Close()); err != nil {
			return p.notAbsorbed(f, err)
		}
	}
	slices.SortFunc(all, func(x, y replayed) int {
		if x.prefix != y.prefix {
			return cmp.Compare(x.prefix, y.prefix)
		}
		if c := bytes.Compare(x.record.Key, y.record.Key); c != 0 {
			return c
		}
		return cmp.Compare(x.number, y.number)
	})
	last := lot[len(lot)-1]
	if err := p.ingestLot(all, names, &st); err != nil {
		return p.notAbsorbed(last, err)
	}
	return p.took(st, n)
}

// readAll appends the records of a frame.
func readAll(to []replayed, f *frame, runs []*run) ([]replayed, error) {
	before := len(to)
	for _, r := range runs {
		for {
			ok, err := r.next()
			if err != nil {
				return to, err
			}
			if !ok {
				break
			}
			var prefix [8]byte
			copy(prefix[:], r.record.Key)
			to = append(to, replayed{binary.BigEndian.Uint64(prefix[:]), len(to), r.record})
		}
	}
	if n := uint64(len(to) - before); n != f.records {
		return to, fmt.Errorf("%w: %d records, want %d", errBody, n, f.records)
	}
	return to, nil
}

func (p *Pipeline) ingestLot(all []replayed, names []nameID, st *stamp) error {
	d := p.d
	path := d.env.FS.PathJoin(d.ingestDir, fmt.Sprintf("%012d.sst", d.links.Add(1)))
	file, err := d.env.FS.Create(path, writeCategory)
	if err != nil {
		return err
	}
	t := newTableWriter(p.space, sstable.NewWriter(objstorageprovider.NewFileWritable(file), d.pebbleOpts.MakeWriterOptions(0, d.db.TableFormat())))
	w := netWriter{to: t.add}
	for i := range all {
		if err = w.add(all[i].record); err != nil {
			break
		}
	}
	if err == nil {
		err = w.flush()
	}
	if err = errors.Join(err, t.w.Close()); err != nil {
		return err
	}
	return p.ingestTable(path, t.records, names, st)
}

// netWriter passes the records of several checkpoints on as if they were one's, as a Cursor gives them: of a key the last
// record, and none that a DeleteBelow takes away. Records that such a deletion could concern, those which have all but
// their last eight bytes in common, are held back until the next of another kind shows that none comes. Since a key with
// a higher checkpoint was written later, it does not matter which of the checkpoints the deletion is of.
type netWriter struct {
	to    func(state.Record) error
	held  []state.Record
	below state.Record // the highest DeleteBelow, if it has a Key
	stem  []byte       // a key of those that are held
}

func (w *netWriter) add(r state.Record) error {
	if w.stem != nil && !sameStem(w.stem, r.Key) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.stem = r.Key
	n := len(w.held)
	switch {
	case r.Op == state.DeleteBelow:
		w.below = r // keys rise
		w.held = slices.DeleteFunc(w.held, func(h state.Record) bool { return bytes.Compare(h.Key, r.Key) < 0 })
	case n > 0 && bytes.Equal(w.held[n-1].Key, r.Key):
		w.held[n-1] = r
	default:
		w.held = append(w.held, r)
	}
	return nil
}

func sameStem(x, y []byte) bool {
	return len(x) == len(y) && (len(x) < 8 || bytes.Equal(x[:len(x)-8], y[:len(y)-8]))
}

func (w *netWriter) flush() error {
	if w.below.Key != nil {
		if err := w.to(w.below); err != nil {
			return err
		}
	}
	for _, r := range w.held {
		if err := w.to(r); err != nil {
			return err
		}
	}
	w.held, w.below, w.stem = w.held[:0], state.Record{}, nil
	return nil
}
