package keyed

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// TestFollow: who follows a view sees, behind each epoch, balances that sum to zero, and in the end what the view has.
func TestFollow(t *testing.T) {
	for _, parallelism := range []int{1, 3} {
		t.Run(fmt.Sprint(parallelism), func(t *testing.T) {
			g, balances, _ := viewGraph()
			p := runPipeline(Options{Graph: g, Parallelism: parallelism, Groups: 16, Stay: true,
				Sources: []Source{{Name: "bank", Source: &bank{count: 20_000, seed: 3}, Tables: [][]row.Type{transferTypes}}}})
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			have := map[[2]int64]int64{}
			epochs := map[uint64]bool{}
			var before uint64
			enough := errors.New("enough")
			err := p.Follow(ctx, balances, func(epoch uint64, b *row.Batch, last bool) error {
				if epoch < before {
					return fmt.Errorf("epoch %d behind %d", epoch, before)
				}
				before = epoch
				for k := range b.Rows() {
					i := b.At(k)
					key := [2]int64{b.Cols[0].Int64[i], b.Cols[1].Int64[i]}
					if have[key] += b.Weight(i); have[key] == 0 {
						delete(have, key)
					}
					if have[key] < 0 {
						return fmt.Errorf("epoch %d: %v goes, and was not there", epoch, key)
					}
				}
				if !last {
					return nil
				}
				epochs[epoch] = true
				sum := int64(0)
				for key, w := range have {
					sum += key[1]
					if w != 1 {
						return fmt.Errorf("epoch %d: %v is there %d times", epoch, key, w)
					}
				}
				if sum != 0 {
					return fmt.Errorf("epoch %d: the balances sum to %d", epoch, sum)
				}
				if p.Status().Ended && epoch == p.Status().Epoch {
					return enough
				}
				return nil
			})
			// The last epoch may have changed nothing, and is then not told of.
			if err != nil && !errors.Is(err, enough) && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			pin, err := p.Pin(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			want, err := rowsOf(context.Background(), pin, balances, nil)
			pin.Release()
			if err != nil {
				t.Fatal(err)
			}
			if len(have) != len(want) {
				t.Errorf("%d rows, want %d", len(have), len(want))
			}
			for key := range have {
				if want[key[0]] != key[1] {
					t.Errorf("account %d has %d, want %d", key[0], key[1], want[key[0]])
				}
			}
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d epochs", len(epochs))
		})
	}
}

// TestFollowTooSlow: who does not take the changes is told, and the view goes on.
func TestFollowTooSlow(t *testing.T) {
	g, balances, _ := viewGraph()
	p := runPipeline(Options{Graph: g, Groups: 16, FollowBytes: 4 << 10, Stay: true,
		Sources: []Source{{Name: "bank", Source: &bank{count: 20_000, seed: 3}, Tables: [][]row.Type{transferTypes}}}})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	err := p.Follow(ctx, balances, func(uint64, *row.Batch, bool) error {
		for !p.Status().Ended {
			<-tick.C
		}
		return nil
	})
	if !errs.Is(err, errs.SnapshotTooOld) {
		t.Errorf("it ends with %v", err)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
}
