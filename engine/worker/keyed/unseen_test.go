package keyed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state/statetest"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// copiedBank gives the first transfers as a first copy would: all of their one halves, piece by piece with cuts allowed
// between, then all of the other halves. What follows is transfers.
type copiedBank struct {
	bank
	copied int64 // transfers
	piece  int64 // how many of the 2*copied halves have been given
	agreed bool
	hold   chan struct{} // not nil: the second halves wait for it, and there is no end
}

func (s *copiedBank) Open(ctx context.Context, st dataflow.State) error {
	if err := s.bank.Open(ctx, st); err != nil {
		return err
	}
	if v := st["piece"]; v != nil {
		s.piece = int64(binary.LittleEndian.Uint64(v))
	}
	s.agreed = st["agreed"] != nil
	return nil
}

func (s *copiedBank) Agrees() bool           { return s.agreed }
func (s *copiedBank) Copied() (int64, int64) { return 3, 10 }

func (s *copiedBank) Read(ctx context.Context) (dataflow.Message, error) {
	if s.piece == 2*s.copied {
		if s.agreed {
			m, err := s.bank.Read(ctx)
			if m.Kind == dataflow.KindEnd && s.hold != nil {
				<-ctx.Done()
				return m, ctx.Err()
			}
			return m, err
		}
		s.agreed, s.at = true, s.copied
		return dataflow.Message{Kind: dataflow.KindMark, Boundary: true, Consistent: true, State: []dataflow.StateChange{{Key: "agreed", Value: []byte{1}},
			{Key: "at", Value: binary.LittleEndian.AppendUint64(nil, uint64(s.at))}}}, nil
	}
	if s.piece == s.copied && s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return dataflow.Message{}, ctx.Err()
		}
	}
	s.b.Reset()
	for range min(20, 2*s.copied-s.piece) {
		from, to, amount, w := s.transfer(s.piece % s.copied)
		if s.piece < s.copied {
			to, amount = from, -amount
		}
		s.b.Cols[0].Int64, s.b.Cols[1].Int64 = append(s.b.Cols[0].Int64, to), append(s.b.Cols[1].Int64, amount)
		s.b.EndRow(w)
		s.piece++
	}
	return dataflow.Message{Kind: dataflow.KindBatch, Batch: s.b.Seal(), Boundary: true,
		State: []dataflow.StateChange{{Key: "piece", Value: binary.LittleEndian.AppendUint64(nil, uint64(s.piece))}}}, nil
}

// TestNobodySeesACopy: a first copy of many epochs and checkpoints goes on behind crashes, and what is published of it is one
// consistent whole.
func TestNobodySeesACopy(t *testing.T) {
	checkpoints := 0
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 6))
		m := &memory{t: t, backing: statetest.New(), outboxes: map[dataflow.Checkpoint][]byte{}, rand: r}
		l := &ledger{t: t, tables: []map[string]int64{{}, {}}, rand: r}
		l.check = func(tables []map[string]int64) {
			sum := int64(0)
			for k := range tables[0] {
				var account, balance int64
				fmt.Sscan(k, &account, &balance)
				sum += balance
			}
			if sum != 0 || len(tables[0]) < 40 {
				t.Errorf("%d balances sum to %d", len(tables[0]), sum)
			}
		}
		g := bankGraph()
		for run := 0; ; run++ {
			if run > 200 {
				t.Fatal("no end")
			}
			e := env.Real(slog.New(slog.DiscardHandler))
			p := New(e, Options{Graph: g, Parallelism: 1 + r.IntN(2), Groups: 16,
				Sources: []Source{{Name: "bank", Source: &copiedBank{bank: bank{count: 6000, seed: seed}, copied: 5000}, Tables: [][]row.Type{transferTypes}}},
				Sinks:   []Sink{{Name: "ledger", Sink: l, Tables: [][]row.Type{g.Nodes[3].Schema.Types(), g.Nodes[4].Schema.Types()}}},
				Durable: m})
			m.failAt, l.failAt = r.IntN(8), r.IntN(4)
			err := p.Run(t.Context())
			e.Wait()
			if m.last > 0 && l.last == 0 {
				checkpoints++
			}
			if err == nil {
				break
			}
			if !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
		}
		want := map[int64]int64{}
		s := &bank{seed: seed}
		for n := range int64(6000) {
			from, to, amount, w := s.transfer(n)
			want[from] -= amount * w
			want[to] += amount * w
		}
		for a, b := range want {
			if k := fmt.Sprint(a, " ", b, " "); l.tables[0][k] != 1 {
				t.Errorf("seed %d: account %d should have %d", seed, a, b)
			}
		}
	}
	if checkpoints == 0 {
		t.Error("no start went on behind a checkpoint of which nothing was published")
	}
}

// TestReadersWaitForACopy: a reader is told how far the copy is, and one that waits gets the first whole epoch.
func TestReadersWaitForACopy(t *testing.T) {
	g, balances, total := viewGraph()
	hold := make(chan struct{})
	p := runPipeline(Options{Graph: g, PinWait: 20 * time.Millisecond,
		Sources: []Source{{Name: "bank", Source: &copiedBank{bank: bank{count: 5000, seed: 1}, copied: 5000, hold: hold}, Tables: [][]row.Type{transferTypes}}}})
	if _, err := p.Pin(t.Context()); !errs.Is(err, errs.PipelineState) || !strings.Contains(fmt.Sprint(err.(*errs.Error).Detail), "3 of about 10 rows") {
		t.Errorf("a reader during the copy is told %v", err)
	}
	if s := p.Status(); !s.Copying || s.Epoch != 0 {
		t.Errorf("the status is %+v", s)
	}
	p.opts.PinWait = time.Minute // only this goroutine pins
	pinned := make(chan error, 1)
	go func() {
		pin, err := p.Pin(context.Background())
		if err == nil {
			var rows map[int64]int64
			if rows, err = checkBank(context.Background(), pin, balances, total); err == nil && len(rows) < 40 {
				err = fmt.Errorf("the first epoch that can be read has %d accounts", len(rows))
			}
			pin.Release()
		}
		pinned <- err
	}()
	close(hold)
	if err := <-pinned; err != nil {
		t.Error(err)
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
}
