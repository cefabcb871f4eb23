package keyed

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state/statetest"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// A sink that is ahead of the state took its checkpoints from another state. Were it believed, everything up to its number
// would be lost without a word.
func TestSinkAheadOfState(t *testing.T) {
	e := env.Real(slog.New(slog.DiscardHandler))
	g := bankGraph()
	l := &ledger{t: t, last: 500, tables: []map[string]int64{{}, {}}}
	p := New(e, Options{Graph: g, Groups: 16,
		Sources: []Source{{Name: "bank", Source: &bank{count: 100}, Tables: [][]row.Type{transferTypes}}},
		Sinks:   []Sink{{Name: "ledger", Sink: l, Tables: [][]row.Type{g.Nodes[3].Schema.Types(), g.Nodes[4].Schema.Types()}}}})
	err := p.Run(t.Context())
	e.Wait()
	var named *errs.Error
	if !errors.As(err, &named) || named.Code != errs.TargetTable {
		t.Fatalf("got %v, want the named error", err)
	}
}

// A sink that holds less than it was given was restored from an older copy. What it lacks is kept nowhere, and to go on
// would leave it out without a word; a sink that lags because nothing changed for it, or whose checkpoint is still in the
// outbox, goes on.
func TestSinkWentBack(t *testing.T) {
	m := &memory{t: t, backing: statetest.New(), outboxes: map[dataflow.Checkpoint][]byte{}, rand: rand.New(rand.NewPCG(1, 1))}
	l := &ledger{t: t, tables: []map[string]int64{{}, {}}, check: func([]map[string]int64) {}}
	g := bankGraph()
	run := func(count int64) error {
		e := env.Real(slog.New(slog.DiscardHandler))
		defer e.Wait()
		return New(e, Options{Graph: g, Durable: m,
			Sources: []Source{{Name: "bank", Source: &bank{count: count}, Tables: [][]row.Type{transferTypes}}},
			Sinks:   []Sink{{Name: "ledger", Sink: l, Tables: [][]row.Type{g.Nodes[3].Schema.Types(), g.Nodes[4].Schema.Types()}}}}).Run(t.Context())
	}
	for _, count := range []int64{10_000, 20_000, 20_000} { // the last one changes nothing
		if err := run(count); err != nil {
			t.Fatal(err)
		}
	}
	last := l.last
	if last >= m.last {
		t.Fatalf("the last checkpoint, %d, had rows", m.last)
	}
	l.last = last - 1
	err := run(20_000)
	if e, ok := errs.As(err); !ok || e.Code != errs.TargetTable || !e.Final {
		t.Errorf("with a sink that went back it ends with %v", err)
	}
	if l.last != last-1 {
		t.Error("something was published")
	}
	l.last = last
	if err := run(20_000); err != nil {
		t.Error(err)
	}
}
