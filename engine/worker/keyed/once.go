package keyed

import (
	"context"
	"io"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// Rows gives the rows of a bounded table to f, batch by batch, each lent for the call.
type Rows func(f func(*row.Batch) error) error

// Once is a graph that is run a single time, over bounded tables and with one sink of one table.
type Once struct {
	Graph *dataflow.Graph
	// Sources are the tables of each source, with their types.
	Sources [][]Rows
	// Types are the columns of the sink.
	Types []row.Type
	// Append: the sink gets inserts only, so that its rows need not wait for the end.
	Append bool
	// MemoryBytes is how much the query may keep; 0: any amount.
	MemoryBytes int64
}

// RunOnce answers a query: it runs the graph in the calling goroutine, without tasks, queues and epochs, and gives the
// sink's rows to out, each batch lent for the call. Weights are positive. An expression that cannot be computed for a row
// is an error.
func RunOnce(ctx context.Context, e *env.Env, o Once, out func(*row.Batch) error) error {
	c := &collector{out: out}
	opts := Options{Graph: o.Graph, Groups: 1, Sinks: []Sink{{Name: "result", Sink: c, Tables: [][]row.Type{o.Types}}}}
	if !o.Append {
		opts.Sinks[0].Sink = c.nothing
	}
	for range o.Sources {
		opts.Sources = append(opts.Sources, Source{})
	}
	for i, tables := range o.Sources {
		opts.Sources[i].Tables = make([][]row.Type, len(tables))
	}
	p := New(e, opts)
	p.clock = e.Clock.Now().UnixMicro()
	defer func() {
		for _, ts := range p.tasks {
			for _, t := range ts {
				t.store.Close()
			}
		}
	}()
	if err := p.buildTasks(ctx); err != nil {
		return err
	}
	tasks := make([]*task, len(o.Graph.Nodes))
	for _, ts := range p.tasks {
		for _, n := range ts[0].fragment.nodes {
			tasks[n] = ts[0]
			ts[0].emitters[n].guard = func() error { return ts[0].mayGoOn(ctx, o.MemoryBytes) } // a join may emit far more than it reads
		}
	}
	for s, tables := range o.Sources {
		for table, rows := range tables {
			if err := rows(func(b *row.Batch) error {
				if err := ctx.Err(); err != nil {
					return err
				}
				for n := range o.Graph.Nodes {
					if at := o.Graph.Nodes[n].Source; at == nil || at.Source != s || at.Table != table {
						continue
					}
					if err := tasks[n].operators[n].Process(0, b); err != nil {
						return tasks[n].failed(n, err)
					}
				}
				if c.err != nil {
					return c.err
				}
				if o.Append {
					return p.faulted()
				}
				return nil
			}); err != nil {
				return err
			}
		}
	}
	for n, t := range tasks {
		if err := t.operators[n].Barrier(dataflow.Epoch{N: 1, Clock: p.clock}); err != nil {
			return t.failed(n, err)
		}
	}
	if c.err != nil {
		return c.err
	}
	if err := p.faulted(); err != nil {
		return err
	}
	for _, ts := range p.tasks {
		for _, s := range ts[0].sinks {
			for ch := newChanges(s.take(nil), 0, opts.Sinks[0].Tables); ; {
				_, b, err := ch.Next()
				if err == io.EOF {
					break
				}
				if err == nil {
					err = out(b)
				}
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// mayGoOn says why a query has to end.
func (t *task) mayGoOn(ctx context.Context, limit int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	kept := int64(t.store.MemoryBytes())
	for _, s := range t.sinks {
		kept += int64(len(s.heap)) + int64(len(s.entries))*sinkEntryBytes
	}
	if limit > 0 && kept > limit {
		return errs.New(errs.QueryMemory, "the query needs more than the %d MiB of memory that one may take", limit>>20).
			WithHint("ask for less: a narrower condition, fewer columns, or a view that holds the result")
	}
	return nil
}

// sinkEntryBytes is the size of a sinkEntry.
const sinkEntryBytes = 24

// faulted is the first fault that was not taken back.
func (p *Pipeline) faulted() error {
	sums := map[dataflow.Fault]int64{}
	for _, ts := range p.tasks {
		for _, f := range ts[0].faults {
			w := f.Weight
			f.Weight = 0
			sums[f] += w
		}
	}
	for _, ts := range p.tasks {
		for _, f := range ts[0].faults {
			f.Weight = 0
			if sums[f] > 0 {
				return errs.New(errs.Code(f.Code), "%s", f.Message)
			}
		}
	}
	return nil
}

// collector is the sink of RunOnce, which takes rows as they come.
type collector struct {
	nothing
	out func(*row.Batch) error
	err error
}

// Discard is part of dataflow.Discarder.
func (c *collector) Discard(_, _ int, b *row.Batch) {
	if c.err == nil && b.Rows() > 0 {
		c.err = c.out(b)
	}
}

// nothing is a sink that is never published to.
type nothing struct{}

func (nothing) Open(context.Context, dataflow.Generation, dataflow.Checkpoint) (dataflow.Checkpoint, error) {
	return 0, nil
}
func (nothing) Publish(context.Context, dataflow.Checkpoint, dataflow.Changes) error { return nil }
func (nothing) Close(context.Context) error                                          { return nil }
