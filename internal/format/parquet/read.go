package parquet

import (
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/format"
)

// NewReader reads a file; at counts rows.
func (f *Format) NewReader(file format.File, at format.Position) (format.Reader, error) {
	if file.ReaderAt == nil {
		return nil, &format.BadRecord{Err: errors.New("a parquet file that is compressed as a whole cannot be read")}
	}
	in, err := openFile(file)
	if err != nil {
		return nil, &format.BadRecord{Err: err}
	}
	r := &reader{groups: in.RowGroups(), values: make([]parquet.Value, row.MaxBatch)}
	for _, c := range f.columns {
		field := f.schema[c]
		col := column{name: field.Name, t: field.Type, at: -1}
		leaf, ok := in.Schema().Lookup(field.Name)
		switch {
		case !ok && field.Type.NotNull:
			return nil, &format.BadRecord{Column: field.Name, Err: errors.New("the file does not have it, and it is NOT NULL")}
		case ok && (!leaf.Node.Leaf() || leaf.MaxRepetitionLevel > 0 || len(leaf.Path) != 1):
			return nil, &format.BadRecord{Column: field.Name, Err: errors.New("nested values cannot be read yet")}
		case ok:
			col.at = leaf.ColumnIndex
			if col.convert, err = converter(field.Type, leaf.Node.Type()); err != nil {
				return nil, &format.BadRecord{Column: field.Name, Err: err}
			}
		case in.Root().Column(field.Name) != nil:
			return nil, &format.BadRecord{Column: field.Name, Err: errors.New("nested values cannot be read yet")}
		}
		r.columns = append(r.columns, col)
	}
	return r, r.seek(at.Offset)
}

// openFile opens a file. The library panics over some damaged ones.
func openFile(file format.File) (f *parquet.File, err error) {
	defer caught(&err)
	return parquet.OpenFile(file.ReaderAt, file.Size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
}

func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the file is damaged: %v", p)
	}
}

type reader struct {
	groups  []parquet.RowGroup
	group   int   // the open one
	left    int64 // rows of it that are not read
	row     int64 // in the file
	columns []column
	values  []parquet.Value
}

// column reads a column of the open group, value by value over its pages.
type column struct {
	name    string
	t       row.Type
	at      int // in the file, -1 if it is not there
	convert func(v *row.Vector, values []parquet.Value) (int, error)
	pages   parquet.Pages
	page    parquet.Page
	values  parquet.ValueReader
}

// seek goes to a row.
func (r *reader) seek(to int64) error {
	r.row = to
	for r.group = 0; r.group < len(r.groups); r.group++ {
		if n := r.groups[r.group].NumRows(); to < n {
			return r.open(to)
		} else {
			to -= n
		}
	}
	if to > 0 {
		return fmt.Errorf("the file has %d rows less than were read before", to)
	}
	return nil
}

// open begins the group at a row of it.
func (r *reader) open(at int64) (err error) {
	defer caught(&err)
	g := r.groups[r.group]
	r.left = g.NumRows() - at
	for i := range r.columns {
		c := &r.columns[i]
		if err := c.close(); err != nil || c.at < 0 {
			if err != nil {
				return err
			}
			continue
		}
		c.pages = g.ColumnChunks()[c.at].Pages()
		if at > 0 {
			if err := c.pages.SeekToRow(at); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *column) close() (err error) {
	if c.page != nil {
		parquet.Release(c.page)
	}
	if c.pages != nil {
		err = c.pages.Close()
	}
	c.pages, c.page, c.values = nil, nil, nil
	return err
}

// Read is that of format.Reader.
func (r *reader) Read(b *row.Builder, limit int) (err error) {
	for r.left == 0 {
		if r.group++; r.group >= len(r.groups) {
			return io.EOF
		}
		if err := r.open(0); err != nil {
			return r.bad("", err)
		}
	}
	n := int(min(int64(limit), r.left, int64(len(r.values))))
	for i := range r.columns {
		c := &r.columns[i]
		if err := r.column(c, b.Cols[i], b.Len, n); err != nil {
			for k := range i + 1 {
				format.Cut(b.Cols[k], r.columns[k].t.Layout(), b.Len)
			}
			return err
		}
	}
	for range n {
		b.EndRow(1)
	}
	r.left -= int64(n)
	r.row += int64(n)
	return nil
}

// column appends the next n values of a column to v, which holds have.
func (r *reader) column(c *column, v *row.Vector, have, n int) (err error) {
	defer func() {
		if err != nil {
			err = r.bad(c.name, err)
		}
	}()
	defer caught(&err)
	if c.at < 0 {
		for range n {
			v.AppendNull(c.t.Layout())
		}
		return nil
	}
	for done := 0; done < n; {
		if c.values == nil {
			if c.page, err = c.pages.ReadPage(); err != nil {
				return fmt.Errorf("the column ends before its rows do: %w", err)
			}
			c.values = c.page.Values()
		}
		m, err := c.values.ReadValues(r.values[:n-done])
		if bad, err2 := c.convert(v, r.values[:m]); err2 != nil {
			return &format.BadRecord{Column: c.name, Row: r.row + int64(done+bad) + 1, Err: err2}
		}
		done += m
		if errors.Is(err, io.EOF) {
			parquet.Release(c.page)
			c.page, c.values = nil, nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) bad(name string, err error) error {
	if bad, ok := errors.AsType[*format.BadRecord](err); ok {
		return bad
	}
	return &format.BadRecord{Column: name, Row: r.row + 1, Err: err}
}

// Position counts rows.
func (r *reader) Position() format.Position { return format.Position{Offset: r.row} }

// Close frees the pages.
func (r *reader) Close() (err error) {
	for i := range r.columns {
		err = errors.Join(err, r.columns[i].close())
	}
	return err
}
