// Package print is the connector that writes each change as a line of text, for trying queries out:
//
//	+I[1, ann]     inserted
//	-U[1, ann]     an update of a table with a primary key: its old row
//	+U[1, bob]     and its new one
//	-D[1, bob]     deleted
//
// The line is that of Flink's print connector. Values are written as CAST AS STRING writes them, NULL as null.
package print

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/with"
)

// Options configures a table of a Sink.
type Options struct {
	Schema row.Schema
	// Key is the places of the primary key's columns. Without one every change is an insert or a delete.
	Key []int
	// Identifier stands before each line, with "> " behind it; nothing does when it is empty.
	Identifier string
	// StandardError asks for standard error instead of standard output; who makes the sink hands in the writer.
	StandardError bool
	Zone          *time.Location // in which a TIMESTAMP_LTZ is shown; default UTC
}

// ParseOptions reads the WITH clause of a table.
func ParseOptions(schema row.Schema, key []int, c *with.Clause) (Options, error) {
	o := Options{Schema: schema, Key: key, Identifier: c.Text("print-identifier", ""), StandardError: c.Bool("standard-error", false)}
	c.Has("sink.parallelism") // one sink prints, whatever it says
	return o, c.End("connector 'print'")
}

// Sink prints. The lines of a checkpoint reach the writer in one piece, or in pieces of about 64 kB.
type Sink struct {
	out    io.Writer
	tables []table
	buf    []byte
}

type table struct {
	Options
	types []row.Type
	keys  *row.Codec
	cols  []*row.Vector // of the key, for the batch at hand
	seen  map[string]int
}

var _ dataflow.Sink = (*Sink)(nil)

// New returns a sink of the tables that writes to out.
func New(out io.Writer, tables ...Options) *Sink {
	s := &Sink{out: out}
	for _, o := range tables {
		t := table{Options: o, types: o.Schema.Types(), seen: map[string]int{}}
		var key []row.Type
		for _, c := range o.Key {
			key = append(key, t.types[c])
		}
		t.keys, t.cols = row.NewCodec(key), make([]*row.Vector, len(key))
		s.tables = append(s.tables, t)
	}
	return s
}

// Open returns resume: a terminal does not tell what it has shown.
func (s *Sink) Open(_ context.Context, _ dataflow.Generation, resume dataflow.Checkpoint) (dataflow.Checkpoint, error) {
	return resume, nil
}

const flushBytes = 64 << 10

// Publish prints the changes. After a crash in between, the same lines may come twice.
func (s *Sink) Publish(ctx context.Context, _ dataflow.Checkpoint, changes dataflow.Changes) error {
	s.buf = s.buf[:0]
	for {
		n, b, err := changes.Next()
		if errors.Is(err, io.EOF) {
			return s.flush()
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		t := &s.tables[n]
		t.note(b)
		for k := range b.Rows() {
			i := b.At(k)
			w := b.Weight(i)
			start := len(s.buf)
			s.buf = t.appendLine(s.buf, b, i, w)
			line := s.buf[start:]
			for range max(w, -w) - 1 {
				s.buf = append(s.buf, line...)
			}
			if len(s.buf) >= flushBytes {
				if err := s.flush(); err != nil {
					return err
				}
			}
		}
	}
}

func (s *Sink) flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	_, err := s.out.Write(s.buf)
	s.buf = s.buf[:0]
	if err != nil {
		return errs.New(errs.TargetUnreachable, "print: %w", err).WithHint("the reader of weir's output has gone away")
	}
	return nil
}

const (
	retracted = 1 << iota
	inserted
)

// note finds the keys that have both an old row and a new one in the batch: their changes are an update.
func (t *table) note(b *row.Batch) {
	clear(t.seen)
	if len(t.Key) == 0 || b.Weights == nil {
		return
	}
	for k := range b.Rows() {
		i := b.At(k)
		bit := inserted
		if b.Weight(i) < 0 {
			bit = retracted
		}
		t.seen[t.key(b, i)] |= bit
	}
}

func (t *table) key(b *row.Batch, i int) string {
	for k, c := range t.Key {
		t.cols[k] = b.Cols[c]
	}
	return string(t.keys.AppendColumns(nil, t.cols, i))
}

func (t *table) appendLine(dst []byte, b *row.Batch, i int, weight int64) []byte {
	if t.Identifier != "" {
		dst = append(append(dst, t.Identifier...), "> "...)
	}
	update := len(t.seen) > 0 && t.seen[t.key(b, i)] == retracted|inserted
	switch {
	case weight > 0 && update:
		dst = append(dst, "+U["...)
	case weight > 0:
		dst = append(dst, "+I["...)
	case update:
		dst = append(dst, "-U["...)
	default:
		dst = append(dst, "-D["...)
	}
	for c, v := range b.Cols {
		if c > 0 {
			dst = append(dst, ", "...)
		}
		switch {
		case v.Nulls.Is(i):
			dst = append(dst, "null"...)
		case t.types[c].Kind == row.Boolean:
			dst = fmt.Append(dst, v.Int64[i] != 0)
		default:
			dst = row.AppendText(dst, t.types[c], v, i, t.Zone)
		}
	}
	return append(dst, "]\n"...)
}

// Close has nothing to end.
func (s *Sink) Close(context.Context) error { return nil }
