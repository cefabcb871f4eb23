package csv

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/format"
)

// Decoder reads records. It is of one file, because a header is.
type Decoder struct {
	opts    Options
	names   []string // of the file's columns
	targets []int    // for each column of the file its place in the builder, -1 if nobody asked for it
	cols    []column // of the builder
	missing []int    // columns of the builder that the file lacks
	schema  row.Schema

	cells   []cell
	scratch []byte // of cells with escapes
}

type column struct {
	t      row.Type
	layout row.Layout
	name   string
	elems  []elem // of an array, one; of a row, one for each field
	codec  *row.Codec
	vs     []*row.Vector
}

type elem struct {
	t row.Type
	v row.Vector
}

// cell is the text of a field.
type cell struct {
	text   []byte
	quoted bool
	open   bool // the file ends within the quotes
}

var _ format.Decoder = (*Decoder)(nil)

// NewDecoder returns a decoder of one file.
func (f *Format) NewDecoder() *Decoder {
	d := &Decoder{opts: f.opts, schema: f.schema, targets: make([]int, len(f.schema))}
	for i := range d.targets {
		d.targets[i] = slices.Index(f.columns, i)
		d.names = append(d.names, f.schema[i].Name)
	}
	for _, c := range f.columns {
		t := f.schema[c].Type
		col := column{t: t, layout: t.Layout(), name: f.schema[c].Name}
		switch t.Kind {
		case row.Array:
			col.elems = []elem{{t: *t.Elem}}
		case row.Struct:
			for _, field := range t.Fields {
				col.elems = append(col.elems, elem{t: field.Type})
			}
			col.codec = row.NewCodec(row.Schema(t.Fields).Types())
		}
		d.cols = append(d.cols, col)
	}
	return d
}

// HasHeader tells whether the first line names columns.
func (d *Decoder) HasHeader() bool { return d.opts.Header }

// Header reads the first line.
func (d *Decoder) Header(data []byte, last bool) (used int, err error) {
	used, _, ok := d.split(data, last)
	if !ok || len(data) == 0 {
		return 0, nil
	}
	place := map[string]int{}
	for i, name := range d.names {
		place[name] = d.targets[i]
	}
	d.names, d.targets = nil, nil
	found := make([]bool, len(d.cols))
	for i, c := range d.cells {
		name := string(c.text)
		if i == 0 {
			name = string(bytes.TrimPrefix(c.text, []byte("\xef\xbb\xbf"))) // the mark that some editors begin a file with
		}
		if slices.Contains(d.names, name) {
			return 0, fmt.Errorf("the header names column %s twice", name)
		}
		target, ok := place[name]
		if !ok {
			target = -1
		}
		d.names, d.targets = append(d.names, name), append(d.targets, target)
		if target >= 0 {
			found[target] = true
		}
	}
	for i, ok := range found {
		if !ok && d.cols[i].t.NotNull {
			return 0, fmt.Errorf("the header lacks column %s, which is NOT NULL", d.cols[i].name)
		}
		if !ok {
			d.missing = append(d.missing, i)
		}
	}
	if len(d.missing) == len(d.cols) && len(d.cols) > 0 {
		return 0, errors.New("the header names no column of the table")
	}
	return used, nil
}

// Decode is that of format.Decoder.
func (d *Decoder) Decode(b *row.Builder, data []byte, last bool, limit int) (used int, lines int64, err error) {
	end := b.Len + limit
	for b.Len < end && used < len(data) {
		rest := data[used:]
		n := bytes.IndexByte(rest, '\n')
		if n < 0 && !last {
			return used, lines, nil
		}
		line, next := rest, len(rest)
		if n >= 0 {
			line, next = rest[:n], n+1
		}
		span := int64(1)
		if len(line) > 0 && line[len(line)-1] == '\r' {
			line = line[:len(line)-1]
		}
		if len(line) == 0 || d.opts.AllowComments && line[0] == '#' {
			used, lines = used+next, lines+1
			continue
		}
		if d.opts.Quote != 0 && bytes.IndexByte(line, d.opts.Quote) >= 0 || d.opts.Escape != 0 && bytes.IndexByte(line, d.opts.Escape) >= 0 {
			var ok bool
			if next, span, ok = d.split(rest, last); !ok {
				return used, lines, nil
			}
			line = rest[:next]
		} else {
			d.splitPlain(line)
		}
		if bad := d.appendRow(b, !utf8.Valid(line)); bad != nil {
			d.cut(b)
			if !d.opts.IgnoreParseErrors {
				bad.Line, bad.Offset = lines+1, int64(used)
				return used, lines, bad
			}
		}
		used, lines = used+next, lines+span
	}
	return used, lines, nil
}

// splitPlain makes the cells of a line in which nothing is quoted.
func (d *Decoder) splitPlain(line []byte) {
	d.cells = d.cells[:0]
	for {
		n := bytes.IndexByte(line, d.opts.Delimiter)
		if n < 0 {
			d.cells = append(d.cells, cell{text: line})
			return
		}
		d.cells = append(d.cells, cell{text: line[:n]})
		line = line[n+1:]
	}
}

// split makes the cells of the record that data begins with. A quote that does not begin a field is a character like
// others. It says no if data ends before the record does.
func (d *Decoder) split(data []byte, last bool) (used int, lines int64, ok bool) {
	d.cells, d.scratch = d.cells[:0], d.scratch[:0]
	quote, escape := d.opts.Quote, d.opts.Escape
	i := 0
	for {
		start := len(d.scratch)
		c := cell{}
		if quote != 0 && i < len(data) && data[i] == quote {
			c.quoted = true
			i++
			for {
				if i == len(data) {
					if last {
						c.open = true
						break
					}
					return 0, 0, false
				}
				b := data[i]
				switch {
				case escape != 0 && b == escape && escape != quote:
					if i+1 == len(data) && !last {
						return 0, 0, false
					}
					if i++; i < len(data) {
						d.scratch = append(d.scratch, unescaped(data[i]))
						i++
					}
					continue
				case b == quote:
					if i+1 == len(data) && !last {
						return 0, 0, false
					}
					if i++; i < len(data) && data[i] == quote {
						d.scratch = append(d.scratch, quote)
						i++
						continue
					}
				default:
					if b == '\n' {
						lines++
					}
					d.scratch = append(d.scratch, b)
					i++
					continue
				}
				break
			}
		}
		for i < len(data) && data[i] != d.opts.Delimiter && data[i] != '\n' {
			b := data[i]
			if escape != 0 && b == escape {
				if i+1 == len(data) {
					if !last {
						return 0, 0, false
					}
				} else {
					i++
					b = unescaped(data[i])
				}
			}
			d.scratch = append(d.scratch, b)
			i++
		}
		atEnd := i == len(data)
		if atEnd && !last {
			return 0, 0, false
		}
		if (atEnd || data[i] == '\n') && len(d.scratch) > start && data[i-1] == '\r' {
			d.scratch = d.scratch[:len(d.scratch)-1]
		}
		c.text = d.scratch[start:len(d.scratch):len(d.scratch)]
		d.cells = append(d.cells, c)
		if atEnd || data[i] == '\n' {
			if !atEnd {
				i++
				lines++
			}
			return i, max(lines, 1), true
		}
		i++
	}
}

// unescaped is the character that an escape sequence stands for.
func unescaped(b byte) byte {
	switch b {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case '0':
		return 0
	}
	return b
}

func (d *Decoder) cut(b *row.Builder) {
	for i := range d.cols {
		format.Cut(b.Cols[i], d.cols[i].layout, b.Len)
	}
}

var (
	errNull = errors.New("NULL in a column that is NOT NULL")
	errUTF8 = errors.New("not UTF-8")
	errOpen = errors.New("the quote is not closed")
)

// appendRow appends the cells as a row.
func (d *Decoder) appendRow(b *row.Builder, suspect bool) *format.BadRecord {
	if n := len(d.cells); n > 0 && d.cells[n-1].open {
		return &format.BadRecord{Err: errOpen}
	}
	if len(d.cells) != len(d.targets) {
		return &format.BadRecord{Err: fmt.Errorf("%d fields, the table has %d columns", len(d.cells), len(d.targets))}
	}
	for i, target := range d.targets {
		if target < 0 {
			continue
		}
		col := &d.cols[target]
		err := d.appendCell(b.Cols[target], col, d.cells[i], suspect)
		if err != nil && d.opts.IgnoreParseErrors && !col.t.NotNull {
			b.Cols[target].AppendNull(col.layout)
		} else if err != nil {
			return &format.BadRecord{Column: col.name, Err: err}
		}
	}
	for _, target := range d.missing {
		b.Cols[target].AppendNull(d.cols[target].layout)
	}
	b.EndRow(1)
	return nil
}

// isNull tells whether a cell of type t is NULL.
func (d *Decoder) isNull(c cell, t row.Type) bool {
	if c.quoted {
		return false
	}
	if d.opts.HasNull && string(c.text) == d.opts.Null {
		return true
	}
	return len(c.text) == 0 && t.Kind != row.String && t.Kind != row.Bytes
}

func (d *Decoder) appendCell(v *row.Vector, col *column, c cell, suspect bool) error {
	if d.isNull(c, col.t) {
		if col.t.NotNull {
			return errNull
		}
		v.AppendNull(col.layout)
		return nil
	}
	if len(col.elems) > 0 {
		return d.appendNested(v, col, c, suspect)
	}
	return d.appendScalar(v, col.t, c.text, suspect)
}

func (d *Decoder) appendScalar(v *row.Vector, t row.Type, text []byte, suspect bool) error {
	if suspect && !utf8.Valid(text) {
		return errUTF8
	}
	if t.Kind == row.Bytes {
		start := len(v.Heap)
		heap, err := base64.StdEncoding.AppendDecode(v.Heap, text)
		if err != nil {
			return errors.New("not base64")
		}
		v.Heap = heap
		v.Spans = append(v.Spans, row.Span{Off: uint32(start), Len: uint32(len(heap) - start)})
		return nil
	}
	if err := format.Append(v, t, text, d.opts.Zone); err != nil {
		return fmt.Errorf("%s does not take %s: %w", t.Nullable(), shown(text), err)
	}
	return nil
}

// shown is text as an error quotes it.
func shown(text []byte) string {
	const most = 60
	if len(text) > most {
		return fmt.Sprintf("%q...", text[:most])
	}
	return fmt.Sprintf("%q", text)
}

// appendNested appends an array or a row of scalars.
func (d *Decoder) appendNested(v *row.Vector, col *column, c cell, suspect bool) error {
	for i := range col.elems {
		col.elems[i].v.Truncate()
	}
	text, n := c.text, 0
	for more := len(text) > 0 || col.codec != nil; more; n++ {
		var part []byte
		part, text, more = bytes.Cut(text, []byte{d.opts.ArrayDelimiter})
		e := &col.elems[0]
		if col.codec != nil {
			if n == len(col.elems) {
				return fmt.Errorf("more than the %d fields of %s", n, col.t.Nullable())
			}
			e = &col.elems[n]
		}
		if d.isNull(cell{text: part}, e.t) {
			if e.t.NotNull {
				return errNull
			}
			e.v.AppendNull(e.t.Layout())
		} else if err := d.appendScalar(&e.v, e.t, part, suspect); err != nil {
			return err
		}
	}
	start := len(v.Heap)
	if col.codec == nil {
		col.elems[0].v.Seal(n)
		v.Heap = row.AppendList(v.Heap, *col.t.Elem, &col.elems[0].v, nil, n)
	} else {
		if n != len(col.elems) {
			return fmt.Errorf("%d of the %d fields of %s", n, len(col.elems), col.t.Nullable())
		}
		col.vs = col.vs[:0]
		for i := range col.elems {
			col.elems[i].v.Seal(1)
			col.vs = append(col.vs, &col.elems[i].v)
		}
		v.Heap = col.codec.AppendColumns(v.Heap, col.vs, 0)
	}
	v.Spans = append(v.Spans, row.Span{Off: uint32(start), Len: uint32(len(v.Heap) - start)})
	return nil
}
