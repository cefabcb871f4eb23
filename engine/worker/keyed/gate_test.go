package keyed

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/engine/state/statetest"
)

// slowDisk commits a checkpoint when it is told to.
type slowDisk struct {
	*memory
	commit chan struct{}
}

func (d *slowDisk) Commit(ctx context.Context, c dataflow.Checkpoint, deltas []*state.Delta, outbox, meta []byte) error {
	select {
	case <-d.commit:
	case <-ctx.Done():
		return ctx.Err()
	}
	return d.memory.Commit(ctx, c, deltas, outbox, meta)
}

// TestNothingComesInFarOverTheLimit: while state is far over its memory and the disk is slow, sources wait, too, and not only
// the ends of epochs.
func TestNothingComesInFarOverTheLimit(t *testing.T) {
	g, _, _ := viewGraph()
	d := &slowDisk{&memory{t: t, backing: statetest.New(), outboxes: map[dataflow.Checkpoint][]byte{}, rand: rand.New(rand.NewPCG(1, 1))}, make(chan struct{})}
	p := runPipeline(Options{Graph: g, MemoryBytes: 1, Durable: d,
		Sources: []Source{{Name: "bank", Source: &openBank{bank{count: 1 << 40, seed: 3}}, Tables: [][]row.Type{transferTypes}}}})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	still := func() int64 {
		rows, same := int64(-1), 0
		for range 1000 {
			now := p.Status().RowsIn[0]
			if same++; now != rows {
				rows, same = now, 0
			}
			if same == 10 && rows > 0 {
				return rows
			}
			<-tick.C
		}
		t.Fatal("rows come in without end")
		return 0
	}
	before := still()
	d.commit <- struct{}{}
	d.commit <- struct{}{}
	if after := still(); after <= before {
		t.Errorf("%d rows came in, and %d when two checkpoints were on disk", before, after)
	}
	close(d.commit)
	if err := p.stop(); err != nil {
		t.Error(err)
	}
}
