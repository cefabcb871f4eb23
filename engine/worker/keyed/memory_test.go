package keyed

import (
	"context"
	"encoding/binary"
	"log/slog"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/engine/state/statetest"
	"github.com/weirstream/weir/internal/env"
)

// keysSource gives each number once, as fast as it is read.
type keysSource struct {
	count, at int64
	b         *row.Builder
}

func (s *keysSource) Open(_ context.Context, st dataflow.State) error {
	s.b = row.NewBuilder(transferTypes)
	return nil
}

func (s *keysSource) Read(ctx context.Context) (dataflow.Message, error) {
	if s.at == s.count {
		return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, ctx.Err()
	}
	s.b.Reset()
	for range 100 {
		s.b.Cols[0].Int64, s.b.Cols[1].Int64 = append(s.b.Cols[0].Int64, s.at), append(s.b.Cols[1].Int64, 1)
		s.b.EndRow(1)
		s.at++
	}
	return dataflow.Message{Kind: dataflow.KindBatch, Batch: s.b.Seal(), Boundary: true,
		State: []dataflow.StateChange{{Key: "at", Value: binary.LittleEndian.AppendUint64(nil, uint64(s.at))}}}, ctx.Err()
}

func (s *keysSource) Confirm([]dataflow.StateChange) {}
func (s *keysSource) Close(context.Context) error    { return nil }

// slowDurable is a Durable that takes its time, while the source does not.
type slowDurable struct {
	*memory
	p    *Pipeline
	most int64
}

func (s *slowDurable) Commit(ctx context.Context, c dataflow.Checkpoint, deltas []*state.Delta, outbox, meta []byte) error {
	for range 5 {
		s.most = max(s.most, s.p.pressure.live.Load())
		<-time.After(2 * time.Millisecond)
	}
	return s.memory.Commit(ctx, c, deltas, outbox, meta)
}

// TestMemoryIsHeld: state of many times the limit goes through, and memory stays near the limit although checkpoints are
// slower than the source and come by themselves only once an hour.
func TestMemoryIsHeld(t *testing.T) {
	const limit, keys = 4 << 20, 400_000
	g := bankGraph()
	g.Nodes = g.Nodes[:2] // the balances, which nobody reads
	g.Nodes[1].States = []string{"groups"}
	m := &slowDurable{memory: &memory{t: t, backing: statetest.New(), outboxes: map[dataflow.Checkpoint][]byte{}}}
	e := env.Real(slog.New(slog.DiscardHandler))
	p := New(e, Options{Graph: g, Groups: 16, CheckpointInterval: time.Hour, MemoryBytes: limit, Durable: m,
		Sources: []Source{{Name: "keys", Source: &keysSource{count: keys}, Tables: [][]row.Type{transferTypes}}}})
	m.p = p
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	e.Wait()
	if m.most > limit*3/2 {
		t.Errorf("the state took %d bytes of %d", m.most, limit)
	}
	n := 0
	if err := m.backing.Scan(nil, func(_, _ []byte) error { n++; return nil }); err != nil || n != keys {
		t.Errorf("%d keys are durable, want %d; %v", n, keys, err)
	}
}

// TestWhatStaysIsLetBe: state that must stay in memory and is larger than the limit costs a checkpoint now and then, and
// holds nobody up: rows for whose durability somebody waits come through one after the other.
func TestWhatStaysIsLetBe(t *testing.T) {
	p := newPressure(1000)
	d := &driver{Pipeline: &Pipeline{pressure: p, opts: Options{Durable: &memory{t: t, last: 7}}}, last: 7, evicted: 5}
	p.changed(2000, 0)
	if p.waits() == nil {
		t.Fatal("twice the limit holds nobody")
	}
	if now, wait := d.relieve(); !now || wait {
		t.Error("what the store below has taken in is not let go of")
	}
	d.evicted = 7 // an epoch has ended, and all of it is still there
	if d.changed() {
		t.Error("a checkpoint is due of what has not changed")
	}
	p.stays()
	if now, wait := d.relieve(); now || wait || p.waits() != nil {
		t.Error("sources wait for room that nobody can make")
	}
	p.changed(50, 50)
	if p.over() || p.waits() != nil {
		t.Error("the next row holds them again")
	}
}
