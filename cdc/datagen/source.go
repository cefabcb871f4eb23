// Package datagen is the connector that makes rows up, for tests, demos and trying SQL out.
//
// A value is a function of the seed, the column and the number of its row, and the time of a row is the time at which
// the stream first began plus its number divided by the rate. That first time is part of the state, so a restart goes on
// with exactly the rows that would have come.
package datagen

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// tick is how long the source waits at least before it looks for rows that are due: more would be felt, less would be a
// batch for every few rows.
const tick = 5 * time.Millisecond

// burst is how far a source that was held up catches up.
const burst = time.Second

// Source makes rows at a rate.
type Source struct {
	env  *env.Env
	opts Options
	out  *row.Builder
	gens []column

	began   time.Time // of row 0, by which times are told
	next    int64     // number of the next row
	end     int64     // number behind the last
	paced   time.Time // when the pace was last set
	pacedAt int64     // the row that was due then
}

var _ dataflow.Source = (*Source)(nil)

// New returns a source of one split.
func New(e *env.Env, opts Options) (*Source, error) {
	if opts.RowsPerSecond == 0 {
		opts.RowsPerSecond = 10_000
	}
	if opts.Splits == 0 {
		opts.Splits = 1
	}
	if opts.Zone == nil {
		opts.Zone = time.UTC
	}
	if opts.Columns == nil {
		for i := range opts.Schema {
			opts.Columns = append(opts.Columns, i)
		}
	}
	if opts.RowsPerSecond < 0 || opts.Rows < 0 || opts.Split < 0 || opts.Split >= opts.Splits || len(opts.Fields) != len(opts.Schema) {
		return nil, fmt.Errorf("datagen: %d rows at %d a second, split %d of %d, %d fields of %d columns",
			opts.Rows, opts.RowsPerSecond, opts.Split, opts.Splits, len(opts.Fields), len(opts.Schema))
	}
	s := &Source{env: e, opts: opts, end: math.MaxInt64 - 2*row.MaxBatch*int64(opts.Splits)}
	if opts.Rows > 0 {
		s.end = min(s.end, opts.Rows)
	}
	for _, f := range opts.Fields {
		if n := f.End - f.Start; f.Sequence && n >= 0 && n < math.MaxInt64 {
			s.end = min(s.end, n+1) // the shortest sequence ends the stream
		}
	}
	var types []row.Type
	for _, c := range opts.Columns {
		types = append(types, opts.Schema[c].Type)
		s.gens = append(s.gens, column{source: s, Field: opts.Fields[c], t: opts.Schema[c].Type, state: mix(opts.Seed + uint64(c+1)*streamStep)})
	}
	s.out = row.NewBuilder(types)
	return s, nil
}

func (s *Source) stateKey() string { return fmt.Sprintf("datagen/%d/%d", s.opts.Split, s.opts.Splits) }

// Open goes on behind the rows that state names.
func (s *Source) Open(_ context.Context, state dataflow.State) error {
	now := s.env.Clock.Now()
	s.began, s.next = now.Round(0), int64(s.opts.Split)
	if v, ok := state[s.stateKey()]; ok && len(v) == 16 {
		s.next = int64(binary.BigEndian.Uint64(v))
		s.began = time.Unix(0, int64(binary.BigEndian.Uint64(v[8:])))
	} else if len(state) > 0 {
		return errs.New(errs.SourceReplaced, "datagen: the state holds no position of split %d of %d", s.opts.Split, s.opts.Splits).
			WithHint("scan.parallelism of a running table cannot change; start the pipeline anew")
	}
	s.paced, s.pacedAt = now, s.next
	return nil
}

// Read makes the rows that are due, and waits for some when none are.
func (s *Source) Read(ctx context.Context) (dataflow.Message, error) {
	for {
		if err := ctx.Err(); err != nil {
			return dataflow.Message{}, err
		}
		if s.next >= s.end {
			return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, nil
		}
		due, wait := s.due()
		if due == 0 {
			if err := s.env.Clock.Sleep(ctx, wait); err != nil {
				return dataflow.Message{}, err
			}
			continue
		}
		b := s.make(due)
		s.next += due * int64(s.opts.Splits)
		state := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(s.next)), uint64(s.began.UnixNano()))
		return dataflow.Message{
			Kind: dataflow.KindBatch, Batch: b, Boundary: true,
			State: []dataflow.StateChange{{Key: s.stateKey(), Value: state}},
		}, nil
	}
}

// due is how many rows of this split may be made now, or how long to wait.
func (s *Source) due() (rows int64, wait time.Duration) {
	now := s.env.Clock.Now()
	elapsed := now.Sub(s.paced)
	if behind := elapsed - s.offset(s.next-s.pacedAt); behind > burst {
		s.paced, s.pacedAt = now.Add(-burst), s.next
		elapsed = burst
	}
	splits := int64(s.opts.Splits)
	left := (s.end-s.next-1)/splits + 1
	reached := float64(elapsed) * float64(s.opts.RowsPerSecond) / float64(time.Second) // rows after pacedAt whose time has come
	rows = row.MaxBatch
	if n := (reached-float64(s.next-s.pacedAt))/float64(splits) + 1; n < row.MaxBatch {
		rows = int64(n)
	}
	if rows = min(rows, left); rows > 0 {
		return rows, 0
	}
	return 0, max(s.offset(s.next-s.pacedAt)-elapsed, tick)
}

// offset is the time that n rows take.
func (s *Source) offset(n int64) time.Duration {
	rate := s.opts.RowsPerSecond
	if n/rate >= int64(math.MaxInt64/time.Second) {
		return math.MaxInt64
	}
	rest := float64(n%rate) * float64(time.Second) / float64(rate)
	return time.Duration(n/rate)*time.Second + time.Duration(rest)
}

// at is the time of row n.
func (s *Source) at(n int64) time.Time { return s.began.Add(s.offset(n)) }

func (s *Source) make(n int64) *row.Batch {
	s.out.Reset()
	for i := range s.gens {
		s.gens[i].fill(s.out.Cols[i], int(n))
	}
	s.out.Len = int(n)
	return s.out.Seal()
}

// Confirm has nothing to do: the rows can be made again.
func (s *Source) Confirm([]dataflow.StateChange) {}

// Close has nothing to end.
func (s *Source) Close(context.Context) error { return nil }
