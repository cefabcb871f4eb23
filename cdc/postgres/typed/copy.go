package typed

import (
	"bytes"
	"context"
	"io"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// copyStream turns a range of the first copy, in the text format of COPY, into rows.
type copyStream struct {
	s      dataflow.RangeStream
	table  int
	places []int
	vals   []value
	rest   []byte // of the piece at hand
	part   []byte // a line whose end is in the next piece
	plain  []byte // values without their escapes
	shape  shape
}

// fill appends rows to the table's batch until it is full, or io.EOF.
func (c *copyStream) fill(ctx context.Context, t *table) error {
	if c.s.Format() != "pgcopy-text" {
		return errs.New(errs.EngineInternal, "a copy in the format %s", c.s.Format())
	}
	if c.vals == nil {
		c.vals = make([]value, len(c.s.Columns()))
		for col, at := range c.places {
			if at < 0 && t.Metadata[col] == "" {
				return errs.New(errs.SourceSchemaChange, "table %s has no column %s any more, which a query reads", t, t.Columns[col].Name)
			}
		}
		c.shape = shape{places: c.places}
	}
	for t.batch.Len < row.MaxBatch {
		line, err := c.line(ctx)
		if err != nil {
			return err
		}
		if err := c.values(line); err != nil {
			return err
		}
		if err := t.append(&c.shape, c.vals, 1, 0); err != nil {
			return err
		}
	}
	return nil
}

// line is the next row, without its end.
func (c *copyStream) line(ctx context.Context) ([]byte, error) {
	c.part = c.part[:0]
	for {
		if end := bytes.IndexByte(c.rest, '\n'); end >= 0 {
			line := c.rest[:end]
			c.rest = c.rest[end+1:]
			if len(c.part) > 0 {
				c.part = append(c.part, line...)
				return c.part, nil
			}
			return line, nil
		}
		c.part = append(c.part, c.rest...)
		c.rest = nil
		piece, err := c.s.Next(ctx)
		if err == io.EOF && len(c.part) > 0 {
			return nil, errs.New(errs.SourceProtocol, "a copy ended in the middle of a row")
		}
		if err != nil {
			return nil, err
		}
		c.rest = piece
	}
}

// values takes a line apart.
func (c *copyStream) values(line []byte) error {
	c.plain = c.plain[:0]
	if cap(c.plain) < len(line) {
		c.plain = make([]byte, 0, 2*len(line)) // it must not move while values point into it
	}
	for i := range c.vals {
		if i > 0 {
			if len(line) == 0 || line[0] != '\t' {
				return errs.New(errs.SourceProtocol, "a copied row of %d values where %d were asked for", i, len(c.vals))
			}
			line = line[1:]
		}
		end := bytes.IndexByte(line, '\t')
		if end < 0 {
			end = len(line)
		}
		text := line[:end]
		line = line[end:]
		if len(text) == 2 && text[0] == '\\' && text[1] == 'N' {
			c.vals[i] = value{kind: changelog.ValueNull}
			continue
		}
		if bytes.IndexByte(text, '\\') >= 0 {
			from := len(c.plain)
			c.plain = unescape(c.plain, text)
			text = c.plain[from:]
		}
		c.vals[i] = value{changelog.ValueText, text}
	}
	if len(line) != 0 {
		return errs.New(errs.SourceProtocol, "a copied row of more than %d values", len(c.vals))
	}
	return nil
}

// unescape appends text without the escapes of COPY. The result is not longer than text.
func unescape(dst, text []byte) []byte {
	for i := 0; i < len(text); i++ {
		b := text[i]
		if b == '\\' && i+1 < len(text) {
			i++
			switch b = text[i]; b {
			case 'b':
				b = '\b'
			case 'f':
				b = '\f'
			case 'n':
				b = '\n'
			case 'r':
				b = '\r'
			case 't':
				b = '\t'
			case 'v':
				b = '\v'
			}
		}
		dst = append(dst, b)
	}
	return dst
}
