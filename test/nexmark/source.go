package nexmark

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/weirstream/weir/engine/dataflow"
)

// Options configures a Source and a Prepared.
type Options struct {
	Seed  uint64
	TPS   int64 // events per second of event time; default 100,000
	First int64 // number of the first event
	Count int64 // how many events; 0 means without end
	// Split of Splits: the source gives the blocks whose number has this remainder. The zero values mean the whole stream.
	Split, Splits int
	Tables        []Table // default Everything(); a Message counts them in this order
}

func (o Options) withDefaults() (Options, error) {
	if o.TPS == 0 {
		o.TPS = 100_000
	}
	if o.Splits == 0 {
		o.Splits = 1
	}
	if o.Tables == nil {
		o.Tables = Everything()
	}
	if o.TPS < 0 || o.First < 0 || o.Count < 0 || o.Split < 0 || o.Split >= o.Splits {
		return o, fmt.Errorf("nexmark: first %d, count %d, tps %d, split %d of %d", o.First, o.Count, o.TPS, o.Split, o.Splits)
	}
	return o, nil
}

// end is the number behind the last event.
func (o Options) end() int64 {
	if o.Count == 0 {
		return math.MaxInt64/1000 - BlockEvents // where the time overflows
	}
	return o.First + o.Count
}

// stateKey is the name of a split's position. It holds the number of splits, because a position among two says nothing
// about the blocks of three.
func (o Options) stateKey() string { return fmt.Sprintf("nexmark/%d/%d", o.Split, o.Splits) }

// position reads where to go on.
func (o Options) position(state dataflow.State) (int64, error) {
	v, ok := state[o.stateKey()]
	if !ok {
		if len(state) > 0 {
			return 0, fmt.Errorf("nexmark: the state has no position of split %d of %d", o.Split, o.Splits)
		}
		return o.First, nil
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("nexmark: a position of %d bytes", len(v))
	}
	return int64(binary.BigEndian.Uint64(v)), nil
}

func (o Options) stateOf(next int64) []dataflow.StateChange {
	return []dataflow.StateChange{{Key: o.stateKey(), Value: binary.BigEndian.AppendUint64(nil, uint64(next))}}
}

// block is the next block of the split at or behind n: its events are [from, to), none at the end of the stream.
func (o Options) block(n int64) (from, to int64) {
	number := n / BlockEvents
	if r := (number%int64(o.Splits) - int64(o.Split) + int64(o.Splits)) % int64(o.Splits); r != 0 {
		number += int64(o.Splits) - r
		n = number * BlockEvents
	}
	if n >= o.end() {
		return o.end(), o.end()
	}
	return n, min((number+1)*BlockEvents, o.end())
}

// Source makes the stream while it is read.
type Source struct {
	opts    Options
	gen     *Generator
	targets []*target
	next    int64 // the first event that no block before held
	from    int64 // the open block
	to      int64
	table   int // the table of the open block that comes next; len(targets) when there is no open block
	last    int // the last table that has rows in the open block, which carries the boundary
}

var _ dataflow.Source = (*Source)(nil)

// New returns a source over the stream of a generator, which splits may share; nil makes one.
func New(opts Options, gen *Generator) (*Source, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if gen == nil {
		gen = NewGenerator(opts.Seed, opts.TPS)
	}
	if gen.seed != opts.Seed || gen.tps != opts.TPS {
		return nil, fmt.Errorf("nexmark: a generator of seed %d and tps %d for a source of %d and %d", gen.seed, gen.tps, opts.Seed, opts.TPS)
	}
	s := &Source{opts: opts, gen: gen}
	for _, t := range opts.Tables {
		g, err := newTarget(t)
		if err != nil {
			return nil, err
		}
		s.targets = append(s.targets, g)
	}
	return s, nil
}

// Open goes on at the event that state names.
func (s *Source) Open(_ context.Context, state dataflow.State) (err error) {
	s.next, err = s.opts.position(state)
	s.table, s.last = len(s.targets), -1
	return err
}

// Read makes the next table of the block. A block without rows of any table asked for is a mark.
func (s *Source) Read(ctx context.Context) (dataflow.Message, error) {
	if err := ctx.Err(); err != nil {
		return dataflow.Message{}, err
	}
	if s.table > s.last {
		s.from, s.to = s.opts.block(s.next)
		if s.from == s.to {
			return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, nil
		}
		s.next, s.table, s.last = s.to, 0, -1
		for i, t := range s.targets {
			if t.kind.rows(s.from, s.to) > 0 {
				s.last = i
			}
		}
		if s.last < 0 {
			return dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: s.opts.stateOf(s.next)}, nil
		}
	}
	for s.targets[s.table].kind.rows(s.from, s.to) == 0 {
		s.table++
	}
	t := s.targets[s.table]
	s.gen.fill(t, s.from, s.to)
	m := dataflow.Message{Kind: dataflow.KindBatch, Batch: &t.batch, Table: s.table}
	if s.table == s.last {
		m.Boundary, m.State = true, s.opts.stateOf(s.next)
	}
	s.table++
	return m, nil
}

// Confirm has nothing to do: the stream can be made again from any event.
func (s *Source) Confirm([]dataflow.StateChange) {}

// Close has nothing to end.
func (s *Source) Close(context.Context) error { return nil }
