package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"

	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/internal/format/record"
)

// A large delta is not written into the log and read again: its records are sorted and make a table that Pebble takes in
// as it is. The table lies beside the log, synced before the frame that names it, and as long as that frame's records may
// be needed; Pebble gets a link to it. So a large checkpoint is written once, and recovering it is another link.

const tableSuffix = ".table"

func (d *Disk) tablePath(n uint64) string {
	return d.env.FS.PathJoin(d.logDir, fmt.Sprintf("%012d%s", n, tableSuffix))
}

// large tells whether deltas become a table.
func (d *Disk) large(deltas []*state.Delta) bool {
	records, size := 0, 0
	for _, delta := range deltas {
		records, size = records+delta.Len(), size+delta.Bytes()
	}
	return records >= d.opts.IngestRecords || size > d.opts.MemTableBytes/2
}

// hashedFile hashes what is written to it, and writes it in long pieces: a table comes in blocks, and the system calls for
// each of them would be a good part of its cost.
type hashedFile struct {
	vfs.File
	hash  xxh3.Hasher
	bytes int64
	wait  []byte
}

const hashedPiece = 256 << 10

func (f *hashedFile) Write(b []byte) (int, error) {
	f.bytes += int64(len(b))
	if len(f.wait)+len(b) > hashedPiece {
		if err := f.flush(); err != nil {
			return 0, err
		}
	}
	f.wait = append(f.wait, b...)
	return len(b), nil
}

func (f *hashedFile) flush() error {
	_, _ = f.hash.Write(f.wait) // before the file has it, which may change it; what is not written whole is not used
	_, err := f.File.Write(f.wait)
	f.wait = f.wait[:0]
	return err
}

// Sync is the last call but Close.
func (f *hashedFile) Sync() error {
	if err := f.flush(); err != nil {
		return err
	}
	return f.File.Sync()
}

// writeTable makes a table of the deltas' records, on disk when it returns, and notes it in the head.
func (p *Pipeline) writeTable(h *head, deltas []*state.Delta) error {
	d := p.d
	h.table = d.tables.Add(1)
	path := d.tablePath(h.table)
	file, err := d.env.FS.Create(path, writeCategory)
	if err != nil {
		return fmt.Errorf("begin %s: %w", path, err)
	}
	hashed := &hashedFile{File: file, wait: make([]byte, 0, hashedPiece)}
	t := newTableWriter(p.space, sstable.NewWriter(objstorageprovider.NewFileWritable(hashed), d.pebbleOpts.MakeWriterOptions(0, d.db.TableFormat())))
	err = mergeDeltas(deltas, t.add)
	if err = errors.Join(err, t.w.Close()); err == nil {
		err = record.SyncDir(d.env.FS, d.logDir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	h.records, h.recordBytes, h.tableBytes, h.tableDigest = t.records, t.recordBytes, hashed.bytes, hashed.hash.Sum128().Bytes()
	return d.hit(FailTable)
}

// tableWriter writes the records of a delta as a table.
type tableWriter struct {
	w                    *sstable.Writer
	key, from            []byte // scratch, beginning with the space
	records, recordBytes uint64
}

func newTableWriter(s space, w *sstable.Writer) *tableWriter {
	prefix := s.data()
	return &tableWriter{w: w, key: slices.Clone(prefix[:]), from: slices.Clone(prefix[:])}
}

// add relies on what a Cursor says: all entries of a table are of one age, and a range deletion takes away only what is
// older.
func (t *tableWriter) add(r state.Record) error {
	t.records++
	t.recordBytes += uint64(len(r.Key) + len(r.Value))
	t.key = append(t.key[:4], r.Key...)
	switch r.Op {
	case state.Set:
		return t.w.Set(t.key, r.Value)
	case state.Delete:
		return t.w.Delete(t.key)
	}
	t.from = append(t.from[:4], r.Key[:len(r.Key)-8]...)
	return t.w.DeleteRange(t.from, t.key)
}

// mergeDeltas calls f with the records of all deltas in order. They are mostly those of tasks, each with key groups of its
// own, so that one delta goes on for long; no two have a key in common.
func mergeDeltas(deltas []*state.Delta, f func(state.Record) error) error {
	type part struct {
		*state.Cursor
		record state.Record
	}
	var live []part
	for _, d := range deltas {
		c := d.Cursor()
		if r, ok := c.Next(); ok {
			live = append(live, part{c, r})
		}
	}
	slices.SortFunc(live, func(x, y part) int { return bytes.Compare(x.record.Key, y.record.Key) })
	for len(live) > 0 {
		first := &live[0]
		if err := f(first.record); err != nil {
			return err
		}
		var ok bool
		if first.record, ok = first.Next(); !ok {
			live = live[1:]
			continue
		}
		if len(live) == 1 || bytes.Compare(first.record.Key, live[1].record.Key) <= 0 {
			continue
		}
		// Before it come all that are smaller.
		moved := *first
		i, _ := slices.BinarySearchFunc(live[1:], moved.record.Key, func(r part, k []byte) int { return bytes.Compare(r.record.Key, k) })
		copy(live, live[1:i+1])
		live[i] = moved
	}
	return nil
}

// ingest absorbs a frame with a table. verify: the table was written by another process.
func (p *Pipeline) ingest(f *frame, verify bool, names []nameID, st *stamp) error {
	d, table := p.d, p.d.tablePath(f.table)
	if verify {
		if err := p.verifyTable(f, table); err != nil {
			return err
		}
	}
	link := d.env.FS.PathJoin(d.ingestDir, fmt.Sprintf("%012d.sst", d.links.Add(1)))
	if err := vfs.LinkOrCopy(d.env.FS, table, link); err != nil {
		return err
	}
	return p.ingestTable(link, f.records, names, st)
}

// ingestTable gives Pebble a table of so many records, and another one with what is written beside them, in one step.
func (p *Pipeline) ingestTable(path string, records uint64, names []nameID, st *stamp) error {
	d := p.d
	meta := path + ".meta"
	file, err := d.env.FS.Create(meta, writeCategory)
	if err != nil {
		return err
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(file), d.pebbleOpts.MakeWriterOptions(0, d.db.TableFormat()))
	if err := errors.Join(p.meta(names, st, w.Set), w.Close()); err != nil {
		return err
	}
	if err := d.hit(FailIngest); err != nil {
		return err
	}
	paths := []string{meta, path}
	if records == 0 {
		paths = paths[:1] // a table of nothing, which Pebble would not take
	}
	return d.db.Ingest(context.Background(), paths)
}

// verifyTable compares a table with the digest that its frame has.
func (p *Pipeline) verifyTable(f *frame, path string) error {
	file, err := p.d.env.FS.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return fmt.Errorf("%w: its table %s cannot be opened: %v", errBody, path, err)
	}
	defer file.Close()
	var h xxh3.Hasher
	n, err := io.CopyBuffer(&h, struct{ io.Reader }{file}, make([]byte, 1<<20))
	if err != nil {
		return err
	}
	if n != f.tableBytes || h.Sum128().Bytes() != f.tableDigest {
		return fmt.Errorf("%w: its table %s is not what was written", errBody, path)
	}
	return nil
}

// sweepTables deletes at the start the tables that no frame needs, and finds the next number.
func (d *Disk) sweepTables(names []string) error {
	needed := map[uint64]*frame{}
	for _, p := range d.mu.spaces {
		for c, f := range p.frames {
			if f.table != 0 && c > p.stamp.frame.Checkpoint {
				needed[f.table] = f
			}
		}
	}
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, tableSuffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			continue
		}
		d.tables.Store(max(d.tables.Load(), n))
		if f := needed[n]; f != nil {
			f.tableHeld = true
			d.mu.logBytes += f.tableBytes
			continue
		}
		if err := d.env.FS.Remove(d.tablePath(n)); err != nil {
			return fmt.Errorf("delete %s: %w", d.tablePath(n), err)
		}
	}
	return nil
}

// releaseTables wants d.mu. It returns the tables of a segment whose records Pebble has on disk, or that never count.
func (d *Disk) releaseTables(seg *segment, durable map[space]marks) (gone []uint64) {
	for _, f := range seg.frames {
		if !f.tableHeld {
			continue
		}
		p := d.mu.spaces[space(f.space)]
		if p != nil && p.frames[f.checkpoint] == f && f.checkpoint > durable[space(f.space)].absorbed {
			continue
		}
		f.tableHeld = false
		d.mu.logBytes -= f.tableBytes
		gone = append(gone, f.table)
	}
	return gone
}
