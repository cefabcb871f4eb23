package disk

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/internal/format/record"
)

// The places where a crash is interesting.
const (
	FailTable    failpoint.Point = "disk.table"    // a table is on disk and no frame names it
	FailAppended failpoint.Point = "disk.appended" // frames are in the file system's memory
	FailSync     failpoint.Point = "disk.sync"     // before the fsync
	FailSynced   failpoint.Point = "disk.synced"   // before anyone hears of it
	FailAbsorb   failpoint.Point = "disk.absorb"   // before Pebble takes a delta in
	FailIngest   failpoint.Point = "disk.ingest"   // a table is about to be Pebble's
	FailAbsorbed failpoint.Point = "disk.absorbed" // after Pebble has taken a delta in
	FailFlush    failpoint.Point = "disk.flush"    // before Pebble is told to flush, because the log is long
	FailDelete   failpoint.Point = "disk.delete"   // before a segment is deleted
)

// FailPoints lists them in the order of a checkpoint's way.
func FailPoints() []failpoint.Point {
	return []failpoint.Point{FailTable, FailAppended, FailSync, FailSynced, FailAbsorb, FailIngest, FailAbsorbed, FailFlush, FailDelete}
}

// segment is a file of the log. A process begins a new one: what follows the last whole frame of an older one was never
// synced, or is damaged, and nothing is written behind it.
type segment struct {
	number uint64
	path   string
	bytes  int64
	frames []*frame
	damage error // what ended the reading of it, and where; most likely the torn end of a write that no one heard of
}

// frame is a frame in the log.
type frame struct {
	head
	seg    *segment
	at     int64 // where its head begins
	bodyAt int64

	tableHeld bool // its table is there; d.mu guards it
}

// extent is what it takes in its segment, and bytes what it takes with its table.
func (f *frame) extent() int64 { return f.bodyAt - f.at + f.bodyBytes }
func (f *frame) bytes() int64  { return f.extent() + f.tableBytes }

func (f *frame) describe() Frame {
	return Frame{Checkpoint: f.checkpoint, Bytes: f.bytes(), Digest: f.digest}
}

const segmentSuffix = ".delta"

func segmentName(n uint64) string { return fmt.Sprintf("%012d%s", n, segmentSuffix) }

// scanSegment reads the heads of a segment's frames. The error says what ends them early; where that is damage and not
// the torn end of a write shows in whether a frame is missing.
func scanSegment(f io.ReaderAt, size int64) (frames []*frame, damage, err error) {
	for at := int64(0); at < size; {
		in := io.NewSectionReader(f, at, size-at)
		r, err := headFormat.Read(in)
		if err != nil {
			if !damaged(err) {
				return nil, nil, err
			}
			return frames, fmt.Errorf("offset %d: %w", at, err), nil
		}
		fr := &frame{at: at, bodyAt: at + record.HeaderSize + int64(len(r.Payload))}
		if err := fr.parse(r.Payload); err != nil {
			return frames, fmt.Errorf("offset %d: %w", at, err), nil
		}
		if fr.bodyBytes > size-fr.bodyAt {
			return frames, fmt.Errorf("offset %d: %w: checkpoint %d of %s has %d bytes of %d", at, record.ErrTorn, fr.checkpoint, fr.name, size-fr.bodyAt, fr.bodyBytes), nil
		}
		frames = append(frames, fr)
		at = fr.bodyAt + fr.bodyBytes
	}
	return frames, nil, nil
}

// damaged tells an error of what is written from one of reading it.
func damaged(err error) bool {
	for _, e := range []error{record.ErrTorn, record.ErrMagic, record.ErrVersion, record.ErrTooLarge, record.ErrChecksum, record.ErrReserved, errHead, errBody, io.EOF} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// openLog reads what is there.
func (d *Disk) openLog() error {
	if err := record.MkdirAll(d.env.FS, d.logDir, 0o700); err != nil {
		return err
	}
	names, err := d.env.FS.List(d.logDir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, segmentSuffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			continue
		}
		seg := &segment{number: n, path: d.env.FS.PathJoin(d.logDir, name)}
		if err := d.openSegment(seg); err != nil {
			return fmt.Errorf("read %s: %w", seg.path, err)
		}
		d.mu.segments = append(d.mu.segments, seg)
		d.mu.logBytes += seg.bytes
		d.mu.nextSegment = max(d.mu.nextSegment, n+1)
	}
	return d.sweepTables(names)
}

func (d *Disk) openSegment(seg *segment) error {
	f, err := d.env.FS.Open(seg.path, vfs.RandomReadsOption)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	seg.bytes = info.Size()
	if seg.frames, seg.damage, err = scanSegment(f, seg.bytes); err != nil {
		return err
	}
	if seg.damage != nil {
		d.env.Log.Info("a segment of the state log ends early, as after a crash", "file", seg.path, "at", seg.damage)
	}
	for _, fr := range seg.frames {
		fr.seg = seg
		if p := d.mu.spaces[space(fr.space)]; p != nil {
			// No checkpoint has two frames; if it had, the later would be the one that a manifest can name.
			p.frames[fr.checkpoint] = fr
		}
	}
	return nil
}

// write is a frame on its way.
type write struct {
	parts    [2][]byte // head and body
	frame    *frame
	pipeline *Pipeline
	done     chan error
}

// submit hands a frame to the log's goroutine. The answer comes on done.
func (d *Disk) submit(w *write) {
	d.mu.Lock()
	d.mu.writes = append(d.mu.writes, w)
	d.mu.Unlock()
	wake(d.writer)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// gatherBytes is up to what size frames that came together are one write. Larger ones are not copied for that.
const gatherBytes = 1 << 20

// writeLog is the log's goroutine: it takes all frames that wait, writes them and syncs once. Those that come meanwhile
// are the next group.
func (d *Disk) writeLog() {
	var file vfs.File
	var seg *segment
	var scratch []byte
	defer func() {
		if file != nil {
			_ = file.Close() // what was synced is safe, and nothing else was promised
		}
	}()
	for {
		select {
		case <-d.writer:
		case <-d.quit:
			return
		}
		d.mu.Lock()
		group := d.mu.writes
		d.mu.writes = nil
		d.mu.Unlock()
		if len(group) == 0 {
			continue
		}
		err := d.Err()
		if err == nil && (file == nil || seg.bytes >= d.opts.SegmentBytes) {
			if file, seg, err = d.nextSegment(file); err != nil {
				err = d.fail(err)
			}
		}
		if err == nil {
			if scratch, err = d.writeGroup(file, seg, group, scratch); err != nil {
				err = d.fail(err)
			}
		}
		for _, w := range group {
			w.done <- err
		}
	}
}

func (d *Disk) nextSegment(old vfs.File) (vfs.File, *segment, error) {
	if old != nil {
		if err := old.Close(); err != nil {
			return nil, nil, fmt.Errorf("close a segment of the state log: %w", err)
		}
	}
	d.mu.Lock()
	n := d.mu.nextSegment
	d.mu.nextSegment++
	d.mu.Unlock()
	seg := &segment{number: n, path: d.env.FS.PathJoin(d.logDir, segmentName(n))}
	f, err := d.env.FS.Create(seg.path, writeCategory)
	if err == nil {
		err = record.SyncDir(d.env.FS, d.logDir)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("begin %s: %w", seg.path, err)
	}
	d.mu.Lock()
	d.mu.segments = append(d.mu.segments, seg)
	d.mu.active = seg
	d.mu.Unlock()
	return f, seg, nil
}

func (d *Disk) writeGroup(file vfs.File, seg *segment, group []*write, scratch []byte) ([]byte, error) {
	total := 0
	for _, w := range group {
		total += len(w.parts[0]) + len(w.parts[1])
	}
	put := func(b []byte) error {
		if _, err := file.Write(b); err != nil {
			return fmt.Errorf("write %s: %w", seg.path, err)
		}
		return nil
	}
	scratch = scratch[:0]
	for _, w := range group {
		for _, b := range w.parts {
			if total <= gatherBytes {
				scratch = append(scratch, b...)
			} else if err := put(b); err != nil {
				return scratch, err
			}
		}
	}
	if len(scratch) > 0 {
		if err := put(scratch); err != nil {
			return scratch, err
		}
	}
	if err := d.hit(FailAppended); err != nil {
		return scratch, err
	}
	if err := d.hit(FailSync); err != nil {
		return scratch, err
	}
	if err := file.SyncData(); err != nil {
		return scratch, fmt.Errorf("sync %s: %w", seg.path, err)
	}
	if err := d.hit(FailSynced); err != nil {
		return scratch, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range group {
		f := w.frame
		f.seg, f.at, f.bodyAt = seg, seg.bytes, seg.bytes+int64(len(w.parts[0]))
		seg.bytes += f.extent()
		seg.frames = append(seg.frames, f)
		f.tableHeld = f.table != 0
		d.mu.logBytes += f.tableBytes
		w.pipeline.frames[f.checkpoint] = f
		d.mu.stats.Frames++
		d.mu.stats.FrameBytes += uint64(f.bytes())
	}
	d.mu.logBytes += int64(total)
	d.mu.logFrames += len(group)
	d.mu.stats.Syncs++
	return scratch, nil
}

// cut deletes the segments that nobody needs: every frame is in what Pebble has on disk, and its outbox, if it has one,
// is published, which Pebble has on disk, too. They need not be the oldest: one that keeps an outbox for a sink that is
// away keeps no others.
func (d *Disk) cut() error {
	durable, err := d.durableMarks()
	if err != nil {
		return err
	}
	d.mu.Lock()
	var gone []*segment
	var tables []uint64
	kept := d.mu.segments[:0:0]
	for _, seg := range d.mu.segments {
		tables = append(tables, d.releaseTables(seg, durable)...)
		if seg == d.mu.active || slices.ContainsFunc(seg.frames, func(f *frame) bool { return d.needed(f, durable) }) {
			kept = append(kept, seg)
			continue
		}
		gone = append(gone, seg)
		for _, f := range seg.frames {
			if p := d.mu.spaces[space(f.space)]; p != nil && p.frames[f.checkpoint] == f {
				delete(p.frames, f.checkpoint)
			}
		}
		d.mu.logBytes -= seg.bytes
		d.mu.logFrames -= len(seg.frames)
	}
	d.mu.segments = kept
	// What is left may be held for long; it is looked at again when the log has grown.
	d.mu.flushAt = max(d.opts.LogBytes, d.mu.logBytes+d.opts.LogBytes/4)
	d.mu.flushFrames = max(maxFrames, d.mu.logFrames+maxFrames/4)
	d.mu.Unlock()
	for _, n := range tables {
		if err := d.env.FS.Remove(d.tablePath(n)); err != nil {
			return fmt.Errorf("delete %s: %w", d.tablePath(n), err)
		}
	}
	for _, seg := range gone {
		if err := d.hit(FailDelete); err != nil {
			return err
		}
		if err := d.env.FS.Remove(seg.path); err != nil {
			return fmt.Errorf("delete %s: %w", seg.path, err)
		}
	}
	return nil
}

// marks are what Pebble has of a pipeline on disk.
type marks struct{ absorbed, published uint64 }

// needed wants d.mu.
func (d *Disk) needed(f *frame, durable map[space]marks) bool {
	p := d.mu.spaces[space(f.space)]
	if p == nil || p.frames[f.checkpoint] != f {
		return false // of a pipeline that was dropped, or of a checkpoint that never was
	}
	m := durable[space(f.space)]
	return f.checkpoint > m.absorbed || f.outboxBytes > 0 && f.checkpoint > m.published
}
