package keyed

import (
	"context"
	"io"
	"slices"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// While the tables of a source do not agree with each other (dataflow.Agreeing), epochs end and checkpoints are made as
// always, so that a first copy takes the memory of an epoch and is not begun anew; but nobody sees them. Views cannot be
// read, and what the checkpoints have for sinks stays in their outboxes, in the log of the state. The first checkpoint
// behind the moment at which all sources agree is published together with those that were held for it, as one: a sink goes
// from nothing to what the query says of one cut, and the checkpoints' rows pass through memory one checkpoint at a time.
//
// Held back where rows enter instead, a copy would need a second place for its rows, and what is computed of them would
// have to be computed in one epoch at the end. Netting what is held would spare sinks rows that are taken back at once, for
// the price of a sort of all of it; nothing but outer joins and aggregates makes such rows, once a checkpoint for each
// group.

// seen is from when on epochs can be seen.
type seen struct {
	now   bool                // the last epoch could be
	since dataflow.Checkpoint // the first checkpoint that could be; 0: none yet
}

// visible lets readers in.
func (d *driver) visible() {
	select {
	case <-d.shown:
	default:
		close(d.shown)
	}
}

// hold keeps what a checkpoint has for sinks.
func (d *driver) hold(c dataflow.Checkpoint, outbox []byte) {
	switch {
	case len(outbox) == 0:
	case d.opts.Durable != nil:
		d.held = append(d.held, c)
	default:
		d.heldOutboxes = append(d.heldOutboxes, slices.Clone(outbox))
	}
}

// publishHeld publishes what was held for a checkpoint that comes before the given one and has nothing of its own.
func (d *driver) publishHeld(ctx context.Context, before dataflow.Checkpoint) error {
	if len(d.held) == 0 || d.seen.since == 0 || d.seen.since >= before {
		return nil
	}
	return d.publish(ctx, d.seen.since, nil)
}

// changesOf is what a sink gets of an outbox and of those that are held.
func (d *driver) changesOf(sink int, outbox []byte) *sequence {
	s := &sequence{outboxes: len(d.held) + len(d.heldOutboxes) + 1}
	s.open = func(i int) (*changes, error) {
		b := outbox
		switch {
		case i < len(d.heldOutboxes):
			b = d.heldOutboxes[i]
		case i < s.outboxes-1:
			var err error
			c := d.held[i-len(d.heldOutboxes)]
			if c <= d.published[sink] {
				return newChanges(nil, sink, d.opts.Sinks[sink].Tables), nil
			}
			if b, err = d.opts.Durable.Outbox(c); err != nil {
				return nil, err
			}
			if c <= d.restored {
				b = d.moved(b)
			}
		}
		return newChanges(b, sink, d.opts.Sinks[sink].Tables), nil
	}
	return s
}

// sequence is the changes of several outboxes, one behind the other, of which one is in memory.
type sequence struct {
	outboxes int
	open     func(i int) (*changes, error)
	at       *changes
	next     int // to be opened
	rows     int64
}

// some tells whether there is a change at all. It opens what has none for good.
func (s *sequence) some() (bool, error) {
	for s.next < s.outboxes {
		c, err := s.open(s.next)
		if err != nil {
			return false, err
		}
		s.next++
		if !c.empty() {
			s.at = c
			return true, nil
		}
	}
	return false, nil
}

// Next is part of dataflow.Changes.
func (s *sequence) Next() (int, *row.Batch, error) {
	for {
		if s.at == nil {
			if more, err := s.some(); err != nil {
				return 0, nil, err
			} else if !more {
				return 0, nil, io.EOF
			}
		}
		table, b, err := s.at.Next()
		if err == io.EOF {
			s.at = nil
			continue
		}
		if err == nil {
			s.rows += int64(b.Rows())
		}
		return table, b, err
	}
}

// unseen is the error of a reader that would see what is not to be seen.
func (p *Pipeline) unseen() error {
	var rows, of int64
	for i := range p.opts.Sources {
		if a, ok := p.opts.Sources[i].Source.(dataflow.Agreeing); ok {
			r, n := a.Copied()
			rows, of = rows+r, of+max(n, r)
		}
	}
	e := errs.New(errs.PipelineState, "the first copy of the pipeline's tables is under way, and its views cannot be read before all of them are complete").
		WithHint("ask again later; weir views list shows when there are rows")
	switch {
	case of == 0:
	case rows >= of:
		e = e.WithDetail("%d rows have been copied; what has changed meanwhile is read", rows)
	default:
		e = e.WithDetail("%d of about %d rows have been copied, %d %%", rows, of, rows*100/of)
	}
	return e
}
