package keyed

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/invariants"
)

// script is a source of given rows, of which each batch is a transaction.
type script struct {
	batches [][][3]int64 // two columns and a weight
	at      int
}

func (s *script) Open(context.Context, dataflow.State) error { return nil }

func (s *script) Read(context.Context) (dataflow.Message, error) {
	if s.at == len(s.batches) {
		return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, nil
	}
	b := row.NewBuilder(transferTypes)
	b.Reset()
	for _, r := range s.batches[s.at] {
		for c := range b.Cols {
			b.Cols[c].Int64 = append(b.Cols[c].Int64, r[c])
		}
		b.EndRow(r[2])
	}
	s.at++
	return dataflow.Message{Kind: dataflow.KindBatch, Batch: b.Seal(), Boundary: true}, nil
}

func (s *script) Confirm([]dataflow.StateChange) {}
func (s *script) Close(context.Context) error    { return nil }

// TestLaws runs nodes that do not keep what they say, and some that do.
func TestLaws(t *testing.T) {
	if !invariants.Enabled {
		t.Skip("there are no laws without the invariants tag")
	}
	for _, c := range []struct {
		name   string
		append bool
		key    []int
		rows   [][3]int64
		want   string
	}{
		{"inserts", true, nil, [][3]int64{{1, 2, 1}, {1, 2, 2}}, ""},
		{"append takes back", true, nil, [][3]int64{{1, 2, 1}, {1, 2, -1}}, `append and gives a row with weight -1: "1", "2"`},
		{"append with a key", true, []int{0}, [][3]int64{{1, 2, 1}, {1, 3, 1}}, `2 rows of a key [0]: "1"`},
		{"more taken back than given", false, nil, [][3]int64{{1, 2, 1}, {1, 2, -2}}, `row with weight -1: "1", "2"`},
		{"negative in between", false, nil, [][3]int64{{1, 2, -1}, {1, 2, 1}}, ""},
		{"a key twice", false, []int{0}, [][3]int64{{1, 2, 1}, {1, 3, 1}}, `2 rows of a key [0]: "1"`},
		{"a row twice under a key", false, []int{0, 1}, [][3]int64{{1, 2, 2}}, `2 rows of a key [0 1]: "1", "2"`},
		{"a key updated", false, []int{0}, [][3]int64{{1, 2, 1}, {1, 2, -1}, {1, 3, 1}}, ""},
		{"two rows where one is to be", false, []int{}, [][3]int64{{1, 2, 1}, {4, 3, 1}}, `2 rows of a key []`},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := &dataflow.Graph{Nodes: []dataflow.Node{
				{ID: "source", Kind: "source", Schema: row.Schema{{Name: "a", Type: transferTypes[0]}, {Name: "b", Type: transferTypes[1]}}, Append: c.append, Key: c.key, Source: &dataflow.SourceTable{}},
				{ID: "sink", Kind: "sink", Inputs: []dataflow.Edge{{From: 0}}, Schema: row.Schema{{Name: "a", Type: transferTypes[0]}, {Name: "b", Type: transferTypes[1]}}, Sink: &dataflow.SinkTable{}},
			}}
			for _, together := range []bool{true, false} {
				if strings.Contains(c.name, "between") && !together {
					continue
				}
				batches := [][][3]int64{c.rows}
				if !together {
					batches = nil
					for _, r := range c.rows {
						batches = append(batches, [][3]int64{r})
					}
				}
				p := New(env.Real(slog.New(slog.DiscardHandler)), Options{Graph: g, Parallelism: 2,
					Sources: []Source{{Name: "s", Source: &script{batches: batches}, Tables: [][]row.Type{transferTypes}}},
					Sinks:   []Sink{{Name: "k", Sink: nowhere{}, Tables: [][]row.Type{transferTypes}}}})
				err := p.Run(context.Background())
				if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("%v, wanted %q", err, c.want)
				}
			}
		})
	}
}

// nowhere is a sink that forgets.
type nowhere struct{}

func (nowhere) Open(_ context.Context, _ dataflow.Generation, c dataflow.Checkpoint) (dataflow.Checkpoint, error) {
	return c, nil
}
func (nowhere) Publish(context.Context, dataflow.Checkpoint, dataflow.Changes) error { return nil }
func (nowhere) Close(context.Context) error                                          { return nil }
