// Package files is the connector 'filesystem' as a sink: each checkpoint becomes files of its own in the table's
// directory, named part-<checkpoint>-<number>.
//
// A checkpoint is written under temporary names that begin with a point, synced, noted in the directory's ledger and then
// renamed. The ledger's replacement decides: before it nothing is published, behind it everything is, if need be by the
// renames of whoever opens the directory next. A checkpoint that the ledger has is not written again. Several tables of
// one sink are published one after the other; after a crash between them the checkpoint is asked for again.
package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format"
	"github.com/weirstream/weir/internal/format/record"
)

// Sink writes files.
type Sink struct {
	env    *env.Env
	tables []*table
	gen    dataflow.Generation
}

var _ dataflow.Sink = (*Sink)(nil)

// table is a table's directory, and the checkpoint that is being written to it.
type table struct {
	Options
	fs      vfs.FS
	led     ledger
	columns []int // of a batch that stand in files
	parts   []int // of a batch that name directories

	next    int // number of the next file
	files   []string
	writers map[string]*writer // by directory, relative; "" without partitions
	order   []string           // of the writers, as they were opened

	head row.Batch // what a writer is given
	op   row.Vector
	sels map[string][]int32
	sel  []int32
	name []byte
}

// writer is the open file of a directory.
type writer struct {
	rel  string
	file vfs.File
	out  format.Writer
	size int64
}

// Write is the format's way to the file.
func (w *writer) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.size += int64(n)
	return n, err
}

const (
	defaultFileSize = 128 << 20
	// mostOpen bounds the open files of a table. A checkpoint with more directories gets more files in some of them.
	mostOpen = 100
)

// New returns a sink of the tables.
func New(e *env.Env, tables ...Options) (*Sink, error) {
	s := &Sink{env: e}
	for _, o := range tables {
		if o.FileSize == 0 {
			o.FileSize = defaultFileSize
		}
		if o.Path == "" || o.Format == nil {
			return nil, fmt.Errorf("files: path %q, format %v", o.Path, o.Format)
		}
		t := &table{Options: o, fs: e.FS}
		for i, f := range o.Schema {
			if !slices.Contains(o.Partitions, f.Name) {
				t.columns = append(t.columns, i)
			}
		}
		for _, name := range o.Partitions {
			i := o.Schema.Index(name)
			if i < 0 {
				return nil, errs.New(errs.SQLUnknownName, "PARTITIONED BY names %s, which is no column of the table", name)
			}
			t.parts = append(t.parts, i)
		}
		s.tables = append(s.tables, t)
	}
	return s, nil
}

// Open finishes the last checkpoint, removes what an attempt has left behind and returns the last one that every table
// has.
func (s *Sink) Open(_ context.Context, gen dataflow.Generation, _ dataflow.Checkpoint) (dataflow.Checkpoint, error) {
	s.gen = gen
	var last dataflow.Checkpoint
	for i, t := range s.tables {
		c, err := t.open(gen)
		if err != nil {
			return 0, cannot("open", t.Path, err)
		}
		if i == 0 || c < last {
			last = c
		}
	}
	return last, nil
}

func (t *table) open(gen dataflow.Generation) (dataflow.Checkpoint, error) {
	t.abandon()
	if err := record.MkdirAll(t.fs, t.Path, 0o755); err != nil {
		return 0, err
	}
	var err error
	if t.led, err = readLedger(t.fs, t.Path); err != nil {
		return 0, err
	}
	if t.led.Pipeline != "" && t.Pipeline != "" && t.led.Pipeline != t.Pipeline {
		// Its checkpoints are no checkpoints of ours: rows would be taken for published that never were.
		e := errs.New(errs.TargetFile, "%s holds what another pipeline has written", t.Path).
			WithHint("name another directory, or empty this one, with its hidden files, if what is in it is not needed any more")
		e.Final = true
		return 0, e
	}
	if t.led.Generation > gen {
		return 0, t.fenced(t.led.Generation, gen)
	}
	if err := reveal(t.fs, t.Path, t.led); err != nil {
		return 0, err
	}
	named, err := sweep(t.fs, t.Path)
	if err != nil {
		return 0, err
	}
	// Files without their ledger: somebody removed it, and what is there must not be written again.
	if named > t.led.Checkpoint {
		t.led.Checkpoint, t.led.Files = named, nil
	}
	t.led.Generation = gen
	if t.Pipeline != "" {
		t.led.Pipeline = t.Pipeline
	}
	return t.led.Checkpoint, writeLedger(t.fs, t.Path, t.led)
}

func (t *table) fenced(theirs, ours dataflow.Generation) error {
	return errs.New(errs.Fenced, "%s belongs to generation %d of its pipeline; this is %d", t.Path, theirs, ours).WithHint("another run of the pipeline has taken over; stop one of the two")
}

// Publish writes the changes and makes them visible.
func (s *Sink) Publish(ctx context.Context, c dataflow.Checkpoint, changes dataflow.Changes) (err error) {
	defer func() {
		if err != nil {
			for _, t := range s.tables {
				t.abandon()
			}
		}
	}()
	for {
		n, b, err := changes.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		t := s.tables[n]
		if t.led.Checkpoint >= c {
			continue
		}
		if err := t.write(c, b); err != nil {
			return cannot("write to", t.Path, err)
		}
	}
	for _, t := range s.tables {
		if t.led.Checkpoint >= c {
			continue
		}
		if err := t.commit(s.gen, c); err != nil {
			return cannot("publish", t.Path, err)
		}
	}
	return nil
}

// write adds the rows of a batch to the files of the checkpoint.
func (t *table) write(c dataflow.Checkpoint, b *row.Batch) error {
	t.head.Len, t.head.Cols = b.Len, t.head.Cols[:0]
	if t.Changelog {
		t.markOps(b)
		t.head.Cols = append(t.head.Cols, &t.op)
	} else if err := t.insertsOnly(b); err != nil {
		return err
	}
	for _, i := range t.columns {
		t.head.Cols = append(t.head.Cols, b.Cols[i])
	}
	if len(t.parts) == 0 {
		t.head.Sel = b.Sel
		if b.Weights != nil {
			t.head.Sel = t.repeated(b)
		}
		if t.head.Rows() == 0 {
			return nil
		}
		return t.append(c, "")
	}
	if t.sels == nil {
		t.sels = map[string][]int32{}
	}
	var dirs []string
	for _, i := range t.repeated(b) {
		t.name = t.appendDirectory(t.name[:0], b, int(i))
		sel, ok := t.sels[string(t.name)]
		if !ok || len(sel) == 0 {
			dirs = append(dirs, string(t.name))
		}
		t.sels[string(t.name)] = append(sel, i)
	}
	for _, dir := range dirs {
		t.head.Sel = t.sels[dir]
		if err := t.append(c, dir); err != nil {
			return err
		}
	}
	clear(t.sels)
	return nil
}

// repeated selects each row that counts as often as its weight says.
func (t *table) repeated(b *row.Batch) []int32 {
	t.sel = t.sel[:0]
	for k := range b.Rows() {
		i := b.At(k)
		w := b.Weight(i)
		for range max(w, -w) {
			t.sel = append(t.sel, int32(i))
		}
	}
	return t.sel
}

func (t *table) markOps(b *row.Batch) {
	const ops = "+I-D"
	t.op.Reset(row.LayoutBytes, b.Len)
	t.op.Heap = append(t.op.Heap, ops...)
	for i := range t.op.Spans {
		t.op.Spans[i] = row.Span{Off: 0, Len: 2}
		if b.Weight(i) < 0 {
			t.op.Spans[i].Off = 2
		}
	}
}

func (t *table) insertsOnly(b *row.Batch) error {
	if b.Weights == nil {
		return nil
	}
	for k := range b.Rows() {
		if b.Weights[b.At(k)] < 0 {
			return errs.New(errs.InsertOnly, "the files in %s take only inserts, and the query takes a row back", t.Path).
				WithHint("set 'sink.changelog' = 'true', which adds a column op with +I or -D, or make the query insert-only")
		}
	}
	return nil
}

// append writes the rows of head to the open file of a directory.
func (t *table) append(c dataflow.Checkpoint, dir string) error {
	w := t.writers[dir]
	if w == nil {
		var err error
		if w, err = t.create(c, dir); err != nil {
			return err
		}
	}
	if err := w.out.Write(&t.head); err != nil {
		return err
	}
	if w.size < t.FileSize {
		return nil
	}
	return t.finish(dir)
}

func (t *table) create(c dataflow.Checkpoint, dir string) (*writer, error) {
	if len(t.writers) == mostOpen {
		if err := t.finishAll(); err != nil {
			return nil, err
		}
	}
	name := fmt.Sprintf("part-%020d-%d.%s", c, t.next, t.Format.Extension())
	t.next++
	w := &writer{rel: name}
	if dir != "" {
		w.rel = t.fs.PathJoin(dir, name)
		if err := record.MkdirAll(t.fs, t.fs.PathJoin(t.Path, dir), 0o755); err != nil {
			return nil, err
		}
	}
	var err error
	if w.file, err = t.fs.Create(temporary(t.fs, t.fs.PathJoin(t.Path, w.rel)), vfs.WriteCategoryUnspecified); err != nil {
		return nil, err
	}
	if t.writers == nil {
		t.writers = map[string]*writer{}
	}
	t.writers[dir] = w
	t.order = append(t.order, dir)
	if w.out, err = t.Format.NewWriter(w); err != nil {
		return nil, err
	}
	return w, nil
}

// finish ends the open file of a directory and syncs it.
func (t *table) finish(dir string) error {
	w := t.writers[dir]
	delete(t.writers, dir)
	if w == nil {
		return nil
	}
	err := w.out.Close()
	if err == nil {
		err = w.file.Sync()
	}
	if err := errors.Join(err, w.file.Close()); err != nil {
		return err
	}
	t.files = append(t.files, w.rel)
	return nil
}

func (t *table) finishAll() error {
	for _, dir := range t.order {
		if err := t.finish(dir); err != nil {
			return err
		}
	}
	t.order = t.order[:0]
	return nil
}

// commit makes the checkpoint's files visible.
func (t *table) commit(gen dataflow.Generation, c dataflow.Checkpoint) error {
	if err := t.finishAll(); err != nil {
		return err
	}
	dirs := map[string]bool{}
	for _, rel := range t.files {
		dirs[t.fs.PathDir(t.fs.PathJoin(t.Path, rel))] = true
	}
	for d := range dirs { // or the temporary names could be lost while the ledger is kept
		if err := record.SyncDir(t.fs, d); err != nil {
			return err
		}
	}
	now, err := readLedger(t.fs, t.Path)
	if err != nil {
		return err
	}
	if now.Generation > gen {
		return t.fenced(now.Generation, gen)
	}
	l := ledger{Pipeline: t.led.Pipeline, Generation: gen, Checkpoint: c, Files: t.files}
	if err := writeLedger(t.fs, t.Path, l); err != nil {
		return err
	}
	if err := reveal(t.fs, t.Path, l); err != nil {
		return err
	}
	t.led = l
	t.files, t.next = nil, 0
	return nil
}

// abandon closes what is open; Open removes the files.
func (t *table) abandon() {
	for _, w := range t.writers {
		if w.file != nil {
			_ = w.file.Close() // the attempt has failed already
		}
	}
	t.files, t.order, t.next = nil, t.order[:0], 0
	clear(t.writers)
	clear(t.sels)
}

// Close gives up what is being written.
func (s *Sink) Close(context.Context) error {
	for _, t := range s.tables {
		t.abandon()
	}
	return nil
}
