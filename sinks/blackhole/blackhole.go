// Package blackhole is the connector that takes rows and keeps nothing but their number, for measuring what comes before
// it.
package blackhole

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/with"
)

// Options configures a Sink.
type Options struct {
	Tables int // how many tables; default 1
	Tasks  int // how many tasks call Discard; default 1
}

// ParseOptions reads a table's WITH clause, in which there is nothing to set.
func ParseOptions(c *with.Clause) error { return c.End("connector 'blackhole'") }

// counter is of one task and table. Its owner is alone in writing; the padding keeps neighbours off its cache lines.
type counter struct {
	rows, retracted, weight atomic.Int64
	_                       [128 - 24]byte
}

// Sink counts. It is a dataflow.Discarder, so that its rows need not pass the outbox.
type Sink struct {
	tables, tasks int
	counters      []counter // by task, then table
}

var (
	_ dataflow.Sink      = (*Sink)(nil)
	_ dataflow.Discarder = (*Sink)(nil)
)

// New returns a sink.
func New(opts Options) *Sink {
	s := &Sink{tables: max(opts.Tables, 1), tasks: max(opts.Tasks, 1)}
	s.counters = make([]counter, s.tables*s.tasks)
	return s
}

// Discard counts the batch.
func (s *Sink) Discard(task, table int, b *row.Batch) {
	c := &s.counters[task*s.tables+table]
	rows := int64(b.Rows())
	if b.Weights == nil {
		c.rows.Add(rows)
		c.weight.Add(rows)
		return
	}
	var weight, retracted int64
	for k := range int(rows) {
		w := b.Weights[b.At(k)]
		weight += w
		retracted += int64(uint64(w) >> 63)
	}
	c.rows.Add(rows)
	c.weight.Add(weight)
	c.retracted.Add(retracted)
}

// Count is what a table has received.
type Count struct {
	Rows      int64 // rows of batches, whatever their weight
	Retracted int64 // those of them whose weight is negative
	Weight    int64 // the sum of the weights: how many rows a table would hold
}

// Count adds up a table's counters. It may be called at any time and from anywhere.
func (s *Sink) Count(table int) (c Count) {
	for task := range s.tasks {
		from := &s.counters[task*s.tables+table]
		c.Rows += from.rows.Load()
		c.Retracted += from.retracted.Load()
		c.Weight += from.weight.Load()
	}
	return c
}

// Open has nothing to fence: nothing is kept that another run could spoil.
func (s *Sink) Open(_ context.Context, _ dataflow.Generation, resume dataflow.Checkpoint) (dataflow.Checkpoint, error) {
	return resume, nil
}

// Publish counts what did come through an outbox, as the first task's.
func (s *Sink) Publish(ctx context.Context, _ dataflow.Checkpoint, changes dataflow.Changes) error {
	for {
		table, b, err := changes.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		s.Discard(0, table, b)
	}
}

// Close has nothing to end.
func (s *Sink) Close(context.Context) error { return nil }
