// Package files is the connector 'filesystem' as a source: the files at a path, in the order of their names, each read
// once.
//
// A file must be complete when it appears, and stay as it is: it is written under a name that begins with a point, or
// elsewhere, and renamed. The state holds how far each file was read, so a restart goes on behind the last row that was
// in a cut.
package files

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format"
)

// Source reads files.
type Source struct {
	env  *env.Env
	opts Options

	seen  map[string]progress // by path
	queue []string            // files to read, the next one first
	open  *openFile

	rows   *row.Builder // of the columns that are in the files
	batch  row.Batch    // those and the partition columns
	consts []constant
}

// progress is how far a file was read.
type progress struct {
	done bool
	at   format.Position
}

// constant is a partition column, whose value is that of the directory.
type constant struct {
	column int // in the batch
	field  row.Field
	value  row.Vector // one value
	filled row.Vector
}

type openFile struct {
	path   string
	file   vfs.File
	unpack io.Closer // nil if it is not compressed
	reader format.Reader
}

var _ dataflow.Source = (*Source)(nil)

// New returns a source.
func New(e *env.Env, opts Options) (*Source, error) {
	if opts.Splits == 0 {
		opts.Splits = 1
	}
	if opts.Columns == nil {
		for i := range opts.Schema {
			opts.Columns = append(opts.Columns, i)
		}
	}
	if opts.Split < 0 || opts.Split >= opts.Splits || opts.Format == nil || opts.Path == "" {
		return nil, fmt.Errorf("files: path %q, split %d of %d, format %v", opts.Path, opts.Split, opts.Splits, opts.Format)
	}
	s := &Source{env: e, opts: opts}
	var types []row.Type
	for i, c := range opts.Columns {
		if f := opts.Schema[c]; slices.Contains(opts.Partitions, f.Name) {
			s.consts = append(s.consts, constant{column: i, field: f})
		} else {
			types = append(types, f.Type)
		}
	}
	s.rows = row.NewBuilder(types)
	s.batch.Cols = make([]*row.Vector, len(opts.Columns))
	return s, nil
}

const keyPrefix = "file:"

// Open goes on with the files that state tells of, and looks for others.
func (s *Source) Open(_ context.Context, state dataflow.State) error {
	s.seen = map[string]progress{}
	for key, value := range state {
		path, ok := strings.CutPrefix(key, keyPrefix)
		p, err := decodeProgress(value)
		if !ok || err != nil {
			return fmt.Errorf("files: the state holds %q = %x", key, value)
		}
		s.seen[path] = p
	}
	return s.look()
}

func (p progress) encode() []byte {
	if p.done {
		return []byte{1}
	}
	return binary.AppendUvarint(binary.AppendUvarint([]byte{0}, uint64(p.at.Offset)), uint64(p.at.Line))
}

func decodeProgress(b []byte) (p progress, err error) {
	if len(b) == 1 && b[0] == 1 {
		return progress{done: true}, nil
	}
	if len(b) < 3 || b[0] != 0 {
		return p, errors.New("no position in a file")
	}
	offset, n := binary.Uvarint(b[1:])
	if n <= 0 {
		return p, errors.New("no offset in a file")
	}
	line, m := binary.Uvarint(b[1+n:])
	if m <= 0 || 1+n+m != len(b) {
		return p, errors.New("no line in a file")
	}
	return progress{at: format.Position{Offset: int64(offset), Line: int64(line)}}, nil
}

// look queues the files that are not read to their end.
func (s *Source) look() error {
	paths, err := s.list()
	if err != nil {
		return err
	}
	s.queue = s.queue[:0]
	for _, path := range paths {
		if !s.seen[path].done {
			s.queue = append(s.queue, path)
		}
	}
	return nil
}

// Read gives the next rows.
func (s *Source) Read(ctx context.Context) (dataflow.Message, error) {
	for {
		if err := ctx.Err(); err != nil {
			return dataflow.Message{}, err
		}
		if s.open != nil {
			m, ok, err := s.next()
			if ok || err != nil {
				return m, err
			}
			continue
		}
		if len(s.queue) > 0 {
			if err := s.begin(s.queue[0]); err != nil {
				return dataflow.Message{}, err
			}
			s.queue = s.queue[1:]
			continue
		}
		if s.opts.Monitor == 0 {
			return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, nil
		}
		if err := s.look(); err != nil {
			return dataflow.Message{}, err
		}
		if len(s.queue) == 0 {
			if err := s.env.Clock.Sleep(ctx, s.opts.Monitor); err != nil {
				return dataflow.Message{}, err
			}
		}
	}
}

// begin opens a file where it was left.
func (s *Source) begin(path string) error {
	if err := s.directory(path); err != nil {
		return err
	}
	f, err := s.env.FS.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return s.cannot("open", path, err)
	}
	s.open = &openFile{path: path, file: f}
	in := format.File{Stream: f}
	at := s.seen[path].at
	switch {
	case strings.HasSuffix(path, ".gz"), strings.HasSuffix(path, ".gzip"):
		z, err := gzip.NewReader(f)
		if err != nil {
			return s.cannot("decompress", path, err)
		}
		in.Stream, s.open.unpack = z, z
	case strings.HasSuffix(path, ".zst"), strings.HasSuffix(path, ".zstd"):
		z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return s.cannot("decompress", path, err)
		}
		c := z.IOReadCloser()
		in.Stream, s.open.unpack = c, c
	default:
		info, err := f.Stat()
		if err != nil {
			return s.cannot("open", path, err)
		}
		if in.ReaderAt, in.Size = f, info.Size(); at.Line > 0 && at.Offset > in.Size {
			return errs.New(errs.SourceFile, "%s has %d bytes; it was read up to byte %d before", path, in.Size, at.Offset).
				WithHint("a file must not change while it is read; put the old one back, or start the pipeline anew")
		}
	}
	if s.open.reader, err = s.opts.Format.NewReader(in, at); err != nil {
		return s.failed(err)
	}
	return nil
}

// next reads rows of the open file; not ok means that it ended without any and without a change of state.
func (s *Source) next() (m dataflow.Message, ok bool, err error) {
	s.rows.Reset()
	err = s.open.reader.Read(s.rows, row.MaxBatch)
	end := errors.Is(err, io.EOF)
	if err != nil && !end && s.rows.Len == 0 {
		return m, false, s.failed(err)
	}
	// An error behind rows comes again with the next call, when they have gone their way.
	path, p := s.open.path, progress{done: end, at: s.open.reader.Position()}
	s.seen[path] = p
	m = dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: []dataflow.StateChange{{Key: keyPrefix + path, Value: p.encode()}}}
	if s.rows.Len > 0 {
		m.Kind, m.Batch = dataflow.KindBatch, s.assemble(s.rows.Seal())
	}
	if end {
		if err := s.closeFile(); err != nil {
			return m, false, s.cannot("close", path, err)
		}
	}
	return m, end || s.rows.Len > 0, nil
}

// assemble puts the columns of the file and those of the directory together.
func (s *Source) assemble(b *row.Batch) *row.Batch {
	if len(s.consts) == 0 {
		return b
	}
	s.batch.Len = b.Len
	k, c := 0, 0
	for i := range s.batch.Cols {
		if c < len(s.consts) && s.consts[c].column == i {
			p := &s.consts[c]
			p.filled.Truncate()
			for n := range b.Len {
				p.filled.Gather(p.field.Type.Layout(), n, &p.value, nil, 1)
			}
			s.batch.Cols[i] = &p.filled
			c++
			continue
		}
		s.batch.Cols[i] = b.Cols[k]
		k++
	}
	return &s.batch
}

// defaultPartition is the directory of NULL, as in Flink and Hive.
const defaultPartition = "__DEFAULT_PARTITION__"

// directory reads the partition columns from a file's path.
func (s *Source) directory(path string) error {
	for i := range s.consts {
		p := &s.consts[i]
		p.value.Truncate()
		found := false
		for part := range strings.SplitSeq(path, "/") {
			name, value, ok := strings.Cut(part, "=")
			if !ok || name != p.field.Name {
				continue
			}
			found = true
			value = unescape(value)
			if value == defaultPartition {
				p.value.AppendNull(p.field.Type.Layout())
			} else if err := row.ParseText(&p.value, p.field.Type, []byte(value), nil); err != nil {
				return errs.New(errs.SourceRecord, "%s: column %s of type %s does not take %q: %w", path, p.field.Name, p.field.Type, value, err).
					WithHint("rename the directory, or move it out of 'path'")
			}
			break
		}
		if !found {
			return errs.New(errs.SourceFile, "%s lies in no directory %s=...", path, p.field.Name).WithHint("the files of a table PARTITIONED BY (%s) lie in such directories", p.field.Name)
		}
	}
	return nil
}

// unescape turns %2F into /.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var out []byte
	for i := 0; i < len(s); i++ {
		var b byte
		if s[i] == '%' && i+2 < len(s) {
			if _, err := fmt.Sscanf(s[i+1:i+3], "%02x", &b); err == nil {
				out = append(out, b)
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// failed is the error for the user about the open file.
func (s *Source) failed(err error) error {
	path := s.open.path
	if bad, ok := errors.AsType[*format.BadRecord](err); ok {
		hint := "correct the file or the column's type"
		if bad.Line > 0 {
			hint = fmt.Sprintf("correct the record or the column's type; with '%s.ignore-parse-errors' = 'true' a bad field is NULL and a bad record is left out", s.opts.Format.Extension())
		}
		return bad.In(path, hint)
	}
	if e, ok := errs.As(err); ok {
		return e
	}
	return s.cannot("read", path, err)
}

func (s *Source) cannot(what, path string, err error) error {
	return errs.New(errs.SourceFile, "cannot %s %s: %w", what, path, err).WithHint("check that it exists and that the user of this process may read it")
}

func (s *Source) closeFile() (err error) {
	f := s.open
	s.open = nil
	if f == nil {
		return nil
	}
	if f.reader != nil {
		err = f.reader.Close()
	}
	if f.unpack != nil {
		err = errors.Join(err, f.unpack.Close())
	}
	return errors.Join(err, f.file.Close())
}

// Confirm has nothing to do: files stay where they are.
func (s *Source) Confirm([]dataflow.StateChange) {}

// Close closes the open file.
func (s *Source) Close(context.Context) error { return s.closeFile() }
