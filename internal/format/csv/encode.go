package csv

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format"
)

// Encoder appends rows as lines.
type Encoder struct {
	schema row.Schema
	opts   Options
	nested []byte
}

var _ format.Encoder = (*Encoder)(nil)

// NewEncoder returns an encoder of all columns.
func (f *Format) NewEncoder() *Encoder { return &Encoder{schema: f.schema, opts: f.opts} }

// AppendHeader appends the line of names if the format has one.
func (e *Encoder) AppendHeader(dst []byte) []byte {
	if !e.opts.Header {
		return dst
	}
	for i, f := range e.schema {
		if i > 0 {
			dst = append(dst, e.opts.Delimiter)
		}
		start := len(dst)
		dst, _ = e.protect(append(dst, f.Name...), start, false, false)
	}
	return append(dst, '\n')
}

// AppendRows appends the rows of b that count.
func (e *Encoder) AppendRows(dst []byte, b *row.Batch) ([]byte, error) {
	begin := len(dst)
	for k := range b.Rows() {
		i := b.At(k)
		line := len(dst)
		for c := range e.schema {
			if c > 0 {
				dst = append(dst, e.opts.Delimiter)
			}
			v, t := b.Cols[c], e.schema[c].Type
			if v.Nulls.Is(i) {
				dst = append(dst, e.opts.Null...)
				continue
			}
			start := len(dst)
			var err error
			if dst, err = e.appendValue(dst, t, v, i); err == nil && !harmless(t.Kind, e.opts.Delimiter) {
				dst, err = e.protect(dst, start, c == 0, t.Kind != row.String && t.Kind != row.Bytes)
			}
			if err != nil {
				return dst[:begin], errs.New(errs.TargetRejected, "csv cannot hold a value of column %s: %w", e.schema[c].Name, err).
					WithHint("allow quotes or set 'csv.escape-character', or write json")
			}
		}
		if len(dst) == line { // an empty line would be no record
			q := e.opts.Quote
			if q == 0 {
				return dst[:begin], errs.New(errs.TargetRejected, "csv cannot hold a line without text: its only column %s is empty", e.schema[0].Name).
					WithHint("allow quotes or set 'csv.null-literal'")
			}
			if !b.Cols[0].Nulls.Is(i) {
				dst = append(dst, q, q)
			} else {
				return dst[:begin], errs.New(errs.TargetRejected, "csv cannot hold a line without text: its only column %s is NULL", e.schema[0].Name).
					WithHint("set 'csv.null-literal'")
			}
		}
		dst = append(dst, '\n')
	}
	return dst, nil
}

// harmless tells kinds whose text holds nothing that could need protection.
func harmless(k row.Kind, delimiter byte) bool {
	return k.Integer() && (delimiter < '0' || delimiter > '9') && delimiter != '-'
}

func (e *Encoder) appendValue(dst []byte, t row.Type, v *row.Vector, i int) ([]byte, error) {
	switch t.Kind {
	case row.BigInt, row.Int, row.SmallInt, row.TinyInt:
		return strconv.AppendInt(dst, v.Int64[i], 10), nil
	case row.Boolean:
		return strconv.AppendBool(dst, v.Int64[i] != 0), nil
	case row.TimestampLTZ:
		return append(row.AppendText(dst, t, v, i, time.UTC), 'Z'), nil
	case row.Bytes:
		return base64.StdEncoding.AppendEncode(dst, v.Bytes(i)), nil
	case row.Array:
		l := row.ReadList(*t.Elem, v.Bytes(i))
		var one row.Vector
		for n := range l.Len() {
			one.Truncate()
			l.AppendTo(&one, n)
			var err error
			if dst, err = e.appendElement(dst, *t.Elem, &one, n); err != nil {
				return dst, err
			}
		}
		return dst, nil
	case row.Struct:
		codec := row.NewCodec(row.Schema(t.Fields).Types())
		bytes := [][]byte{v.Bytes(i)}
		var one row.Vector
		for n, f := range t.Fields {
			one.Truncate()
			codec.Decode(&one, 0, n, bytes)
			var err error
			if dst, err = e.appendElement(dst, f.Type, &one, n); err != nil {
				return dst, err
			}
		}
		return dst, nil
	}
	return row.AppendText(dst, t, v, i, nil), nil
}

// appendElement appends the n-th part of a nested value, which there are no quotes for.
func (e *Encoder) appendElement(dst []byte, t row.Type, v *row.Vector, n int) ([]byte, error) {
	if n > 0 {
		dst = append(dst, e.opts.ArrayDelimiter)
	}
	if v.Nulls.Is(0) {
		return append(dst, e.opts.Null...), nil
	}
	start := len(dst)
	dst, err := e.appendValue(dst, t, v, 0)
	if bytes.IndexByte(dst[start:], e.opts.ArrayDelimiter) >= 0 {
		return dst, fmt.Errorf("an element contains the delimiter %q of elements", e.opts.ArrayDelimiter)
	}
	return dst, err
}

// protect puts quotes around dst[start:], or escapes into it, where it would not be read back as it is.
//
// First: it begins a line. Empty: without text it would be NULL.
func (e *Encoder) protect(dst []byte, start int, first, empty bool) ([]byte, error) {
	text := dst[start:]
	needs := len(text) == 0 && empty || e.opts.HasNull && string(text) == e.opts.Null ||
		first && e.opts.AllowComments && len(text) > 0 && text[0] == '#'
	for _, b := range text {
		if b == e.opts.Delimiter || b == '\n' || b == '\r' || b == e.opts.Quote && e.opts.Quote != 0 || b == e.opts.Escape && e.opts.Escape != 0 {
			needs = true
			break
		}
	}
	if !needs {
		return dst, nil
	}
	e.nested = append(e.nested[:0], text...)
	dst = dst[:start]
	q, esc := e.opts.Quote, e.opts.Escape
	if q == 0 && esc == 0 {
		return dst, fmt.Errorf("%q needs quotes", e.nested)
	}
	if q != 0 {
		dst = append(dst, q)
	}
	for _, b := range e.nested {
		switch {
		case esc != 0 && (b == esc || b == q && q != 0 || q == 0 && b == e.opts.Delimiter):
			dst = append(dst, esc)
		case b == q && q != 0:
			dst = append(dst, q)
		case q == 0 && b == '\n':
			dst, b = append(dst, esc), 'n'
		case q == 0 && b == '\r':
			dst, b = append(dst, esc), 'r'
		}
		dst = append(dst, b)
	}
	if q != 0 {
		return append(dst, q), nil
	}
	if len(e.nested) == 0 || string(e.nested) == e.opts.Null && e.opts.HasNull || first && e.nested[0] == '#' {
		return dst, fmt.Errorf("%q needs quotes", e.nested)
	}
	return dst, nil
}
