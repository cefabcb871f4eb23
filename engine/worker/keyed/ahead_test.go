package keyed

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/weirstream/weir/engine/row"
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
