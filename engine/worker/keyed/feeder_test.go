package keyed

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// broken is a source that fails behind the first half of a transaction.
type broken struct {
	bank
	reads int
}

var errBroken = errors.New("connection lost")

func (s *broken) Read(ctx context.Context) (dataflow.Message, error) {
	if s.reads++; s.reads > 1 {
		return dataflow.Message{}, errBroken
	}
	return s.bank.Read(ctx)
}

// A source that fails within a transaction must not be cut there: the checkpoint would hold half of it, and reading on
// from the position before it would double that half.
func TestNoCutBehindAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &broken{bank: bank{count: 2, seed: 1}}
		if err := source.Open(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		p := &Pipeline{opts: Options{Sources: []Source{{Source: source, Tables: [][]row.Type{transferTypes}}}},
			cutDone: make(chan cutDone, 1), stir: make(chan struct{}, 1)}
		f := &feeder{p: p, source: source, tables: make([][]entry, 1), messages: make(chan dataflow.Message, 4),
			cuts: make(chan dataflow.Epoch, 1), state: dataflow.State{}}
		if err := f.read(t.Context()); !errors.Is(err, errBroken) {
			t.Fatalf("read: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.feed(ctx) }()
		synctest.Wait() // the half has been passed on
		f.cuts <- dataflow.Epoch{N: 1, Checkpoint: true}
		synctest.Wait()
		if len(p.cutDone) > 0 {
			t.Error("cut within a transaction")
		}
		cancel()
		<-done
	})
}
