package nexmark

import (
	"context"
	"errors"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// Prepared is a stretch of the stream made beforehand, for measuring what comes behind the source. It holds 8 bytes for
// each value of the columns asked for: 10 million events with all columns take 0.6 GB. Any number of sources may read
// it at once.
type Prepared struct {
	opts   Options
	blocks []preparedBlock
}

type preparedBlock struct {
	from, to int64
	parts    []part
}

type part struct {
	table int
	batch row.Batch
}

// Prepare makes the events of opts, which must have a Count; Split and Splits are given to Source instead.
func Prepare(opts Options) (*Prepared, error) {
	opts.Split, opts.Splits = 0, 1
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if opts.Count == 0 {
		return nil, errors.New("nexmark: a stream without end cannot be prepared: set Count")
	}
	gen := NewGenerator(opts.Seed, opts.TPS)
	p := &Prepared{opts: opts}
	for next := opts.First; ; {
		b := preparedBlock{}
		b.from, b.to = opts.block(next)
		if b.from == b.to {
			return p, nil
		}
		for i, t := range opts.Tables {
			g, err := newTarget(t)
			if err != nil {
				return nil, err
			}
			if g.kind.rows(b.from, b.to) > 0 {
				gen.fill(g, b.from, b.to)
				b.parts = append(b.parts, part{i, g.batch})
			}
		}
		p.blocks = append(p.blocks, b)
		next = b.to
	}
}

// Source returns a source over the blocks of a split. Reading costs nothing per row.
func (p *Prepared) Source(split, splits int) (*PreparedSource, error) {
	opts := p.opts
	opts.Split, opts.Splits = split, splits
	opts, err := opts.withDefaults()
	return &PreparedSource{opts: opts, blocks: p.blocks}, err
}

// PreparedSource is a Source over a Prepared.
type PreparedSource struct {
	opts   Options
	blocks []preparedBlock
	next   int64
	block  *preparedBlock
	part   int
}

var _ dataflow.Source = (*PreparedSource)(nil)

// Open goes on at the event that state names.
func (s *PreparedSource) Open(_ context.Context, state dataflow.State) (err error) {
	s.next, err = s.opts.position(state)
	s.block = nil
	return err
}

// Read hands out the next batch. It is shared with other sources: whoever changes it breaks them.
func (s *PreparedSource) Read(ctx context.Context) (dataflow.Message, error) {
	if err := ctx.Err(); err != nil {
		return dataflow.Message{}, err
	}
	if s.block == nil {
		from, to := s.opts.block(s.next)
		if from == to {
			return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, nil
		}
		s.block, s.part, s.next = &s.blocks[from/BlockEvents-s.opts.First/BlockEvents], 0, to
		if len(s.block.parts) == 0 {
			s.block = nil
			return dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: s.opts.stateOf(s.next)}, nil
		}
	}
	p := &s.block.parts[s.part]
	m := dataflow.Message{Kind: dataflow.KindBatch, Batch: &p.batch, Table: p.table}
	if s.part++; s.part == len(s.block.parts) {
		s.block = nil
		m.Boundary, m.State = true, s.opts.stateOf(s.next)
	}
	return m, nil
}

// Confirm has nothing to do.
func (s *PreparedSource) Confirm([]dataflow.StateChange) {}

// Close has nothing to end.
func (s *PreparedSource) Close(context.Context) error { return nil }
