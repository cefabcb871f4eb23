// Package format is what the file formats have in common: how rows are read from a file and written to one.
//
// A reader appends to a row.Builder, a writer takes batches; neither keeps anything of a row between calls. A format is
// made once for a table and then opens any number of files.
package format

import (
	"fmt"
	"io"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// Position is a place between two records of a file. A reader that starts there gives exactly the rest.
type Position struct {
	// Offset is in bytes of what was read, behind any decompression, or in rows for formats that are no text.
	Offset int64
	// Line is how many lines lie before it; errors tell the next one.
	Line int64
}

// File is what a reader reads. ReaderAt is nil where only a stream is at hand, as behind a decompression; Size is the
// bytes of ReaderAt.
type File struct {
	Stream   io.Reader
	ReaderAt io.ReaderAt
	Size     int64
}

// Format is a table's file format with its options.
type Format interface {
	// Extension is how the names of its files end, without a point.
	Extension() string
	// NewReader reads from at on.
	NewReader(f File, at Position) (Reader, error)
	// NewWriter begins a file.
	NewWriter(w io.Writer) (Writer, error)
}

// Reader reads the records of one file.
type Reader interface {
	// Read appends up to limit rows to b, at least one unless there are no more: then it returns io.EOF, behind whatever it
	// appended. An error about a record is a *BadRecord; the rows before it have been appended.
	Read(b *row.Builder, limit int) error
	// Position is behind the last row that was read.
	Position() Position
	Close() error
}

// Writer writes the rows of one file. It may keep rows until Close.
type Writer interface {
	// Write appends the rows of b that count; weights are not looked at.
	Write(b *row.Batch) error
	// Close writes what is left and the file's end. The file itself stays open.
	Close() error
}

// BadRecord says that a record of a file cannot be read.
type BadRecord struct {
	Line   int64  // counted from 1; 0 where there are no lines
	Row    int64  // counted from 1; 0 where lines are counted
	Offset int64  // byte at which the record begins
	Column string // "" if it concerns the whole record
	Err    error
}

// Error says what is wrong; the place belongs to whoever knows the file.
func (e *BadRecord) Error() string {
	if e.Column != "" {
		return fmt.Sprintf("column %s: %v", e.Column, e.Err)
	}
	return e.Err.Error()
}

// Unwrap is the cause.
func (e *BadRecord) Unwrap() error { return e.Err }

// In is the error for the user: the record of the file cannot be read. Without a line or row it is the file as a whole.
func (e *BadRecord) In(file, hint string) *errs.Error {
	place := file
	switch {
	case e.Line > 0:
		place = fmt.Sprintf("%s, line %d", file, e.Line)
	case e.Row > 0:
		place = fmt.Sprintf("%s, row %d", file, e.Row)
	}
	r := errs.New(errs.SourceRecord, "%s: %v", place, e).WithHint("%s", hint)
	r.Final = true
	if e.Line > 0 {
		r = r.WithDetail("the record begins at byte %d", e.Offset).At(errs.Position{File: file, Line: int(e.Line), Column: 1})
	}
	return r
}

// Cut takes the values behind the first n from a vector of layout l that was appended to, so that a record that turned
// out to be bad leaves nothing behind.
func Cut(v *row.Vector, l row.Layout, n int) {
	switch l {
	case row.LayoutInt64:
		v.Int64 = v.Int64[:min(n, len(v.Int64))]
	case row.LayoutFloat64:
		v.Float64 = v.Float64[:min(n, len(v.Float64))]
	case row.LayoutDecimal:
		v.Decimal = v.Decimal[:min(n, len(v.Decimal))]
	case row.LayoutBytes:
		v.Spans = v.Spans[:min(n, len(v.Spans))]
	}
	words := (n + 63) >> 6
	if len(v.Nulls) < words || len(v.Nulls) == 0 {
		return
	}
	v.Nulls = v.Nulls[:words]
	if n&63 != 0 {
		v.Nulls[words-1] &= 1<<(n&63) - 1
	}
	if words == 0 {
		v.Nulls = v.Nulls[:0]
	}
}
