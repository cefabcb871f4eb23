package format

import (
	"errors"
	"fmt"
	"io"

	"github.com/weirstream/weir/engine/row"
)

// Decoder reads the records of a text format from pieces of a file.
type Decoder interface {
	// Decode appends up to limit rows of the whole records at the beginning of data, and tells how many bytes and lines it
	// is done with. A record that data ends in is left alone unless last says that nothing follows. An error is a
	// *BadRecord whose Line and Offset count from the beginning of data; used and lines end before that record.
	Decode(b *row.Builder, data []byte, last bool, limit int) (used int, lines int64, err error)
	// Header reads the line that begins a file, if the format has one; used is 0 if data does not hold all of it.
	HasHeader() bool
	Header(data []byte, last bool) (used int, err error)
}

const (
	chunkBytes = 256 << 10
	// recordBytes is how large a record may be: behind an unclosed quote lies the rest of the file, which is not a record.
	recordBytes = 64 << 20
)

// NewTextReader reads a file with a decoder.
func NewTextReader(d Decoder, f File, at Position) (Reader, error) {
	r := &textReader{dec: d, in: f.Stream, buf: make([]byte, chunkBytes)}
	if f.ReaderAt != nil {
		r.in = io.NewSectionReader(f.ReaderAt, 0, f.Size)
	}
	if d.HasHeader() {
		if err := r.header(); err != nil {
			return nil, err
		}
	}
	if at.Offset <= r.at.Offset {
		return r, nil
	}
	if f.ReaderAt != nil {
		r.in, r.from, r.to, r.last = io.NewSectionReader(f.ReaderAt, at.Offset, f.Size-at.Offset), 0, 0, false
	} else if err := r.skip(at.Offset - r.at.Offset); err != nil {
		return nil, err
	}
	r.at = at
	return r, nil
}

type textReader struct {
	dec      Decoder
	in       io.Reader
	at       Position
	buf      []byte
	from, to int // what of buf is not decoded
	last     bool
}

func (r *textReader) header() error {
	for {
		if err := r.fill(); err != nil {
			return err
		}
		used, err := r.dec.Header(r.buf[r.from:r.to], r.last)
		if err != nil {
			return &BadRecord{Line: 1, Err: err}
		}
		if used > 0 || r.last {
			r.from += used
			r.at.Offset += int64(used)
			r.at.Line = 1
			return nil
		}
	}
}

// skip passes over n bytes of a stream.
func (r *textReader) skip(n int64) error {
	have := min(n, int64(r.to-r.from))
	r.from += int(have)
	if m, err := io.CopyN(io.Discard, r.in, n-have); err != nil {
		return fmt.Errorf("the file has %d bytes less than were read before: %w", n-have-m, err)
	}
	return nil
}

// fill reads more behind what is not decoded, or finds the end.
func (r *textReader) fill() error {
	if r.last {
		return nil
	}
	if r.from > 0 {
		r.to = copy(r.buf, r.buf[r.from:r.to])
		r.from = 0
	}
	if r.to == len(r.buf) {
		if len(r.buf) >= recordBytes {
			return &BadRecord{Line: r.at.Line + 1, Offset: r.at.Offset, Err: fmt.Errorf("a record of more than %d MB: is a quote open?", recordBytes>>20)}
		}
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
	for r.to < len(r.buf) {
		n, err := r.in.Read(r.buf[r.to:])
		r.to += n
		if errors.Is(err, io.EOF) {
			r.last = true
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *textReader) Read(b *row.Builder, limit int) error {
	until := b.Len + limit
	for {
		used, lines, err := r.dec.Decode(b, r.buf[r.from:r.to], r.last, until-b.Len)
		if bad, ok := errors.AsType[*BadRecord](err); ok {
			bad.Line += r.at.Line
			bad.Offset += r.at.Offset
		}
		r.from += used
		r.at.Offset += int64(used)
		r.at.Line += lines
		switch {
		case err != nil:
			return err
		case b.Len == until:
			return nil
		case r.last:
			return io.EOF
		}
		// What is decoded is given at once: the next bytes may be slow to come.
		if b.Len > until-limit && used > 0 {
			return nil
		}
		if err := r.fill(); err != nil {
			return err
		}
	}
}

func (r *textReader) Position() Position { return r.at }

func (r *textReader) Close() error { return nil }

// Encoder appends the rows of a text format.
type Encoder interface {
	AppendHeader(dst []byte) []byte
	AppendRows(dst []byte, b *row.Batch) ([]byte, error)
}

// NewTextWriter writes a file with an encoder.
func NewTextWriter(e Encoder, w io.Writer) Writer {
	t := &textWriter{enc: e, out: w}
	t.buf = e.AppendHeader(t.buf)
	return t
}

type textWriter struct {
	enc Encoder
	out io.Writer
	buf []byte
}

func (t *textWriter) Write(b *row.Batch) (err error) {
	if t.buf, err = t.enc.AppendRows(t.buf, b); err != nil {
		return err
	}
	if len(t.buf) < chunkBytes {
		return nil
	}
	return t.Close()
}

func (t *textWriter) Close() error {
	if len(t.buf) == 0 {
		return nil
	}
	_, err := t.out.Write(t.buf)
	t.buf = t.buf[:0]
	return err
}
