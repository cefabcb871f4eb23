package keyed

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/weirstream/weir/engine/dataflow"
)

// TestNoCutInHalfATransaction: a source that fails in the middle of a transaction ends the pipeline, and until it has
// ended no barrier may come: the checkpoint would have rows that the source gives again.
func TestNoCutInHalfATransaction(t *testing.T) {
	for _, half := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p := &Pipeline{opts: Options{Sources: []Source{{Name: "s"}}}, cutDone: make(chan cutDone, 1), pressure: newPressure(0)}
			f := &feeder{p: p, messages: make(chan dataflow.Message), cuts: make(chan dataflow.Epoch, 1), open: make(chan struct{}), state: dataflow.State{}}
			close(f.open)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- f.feed(ctx) }()
			f.messages <- dataflow.Message{Kind: dataflow.KindMark, Boundary: !half}
			close(f.messages)
			f.cuts <- dataflow.Epoch{N: 1}
			synctest.Wait()
			if cut := len(p.cutDone) > 0; cut == half {
				t.Errorf("in half a transaction: %v; cut: %v", half, cut)
			}
			cancel()
			<-done
		})
	}
}
