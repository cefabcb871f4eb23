package keyed

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
)

var upsertTypes = []row.Type{{Kind: row.BigInt, NotNull: true}, {Kind: row.BigInt, NotNull: true}, {Kind: row.BigInt, NotNull: true}}

// upserts is a source of a table by key: in every batch each of ten keys gets the next number. In the middle the table is
// emptied, and from then on there are five.
type upserts struct {
	at, batches int64
	told        bool
	b           *row.Builder
}

func (s *upserts) Open(context.Context, dataflow.State) error {
	s.b = row.NewBuilder(upsertTypes)
	return nil
}

func (s *upserts) Read(ctx context.Context) (dataflow.Message, error) {
	if s.at == s.batches {
		<-ctx.Done()
		return dataflow.Message{}, ctx.Err()
	}
	if s.at == s.batches/2 && !s.told {
		s.told = true
		return dataflow.Message{Kind: dataflow.KindEmptied, Emptied: &dataflow.Emptied{}}, nil
	}
	s.at++
	s.b.Reset()
	for k := range int64(10) {
		if s.told && k >= 5 {
			break
		}
		s.b.Cols[0].Int64, s.b.Cols[1].Int64, s.b.Cols[2].Int64 = append(s.b.Cols[0].Int64, k), append(s.b.Cols[1].Int64, s.at), append(s.b.Cols[2].Int64, 0)
		s.b.EndRow(1)
	}
	return dataflow.Message{Kind: dataflow.KindBatch, Batch: s.b.Seal(), Boundary: true}, nil
}

func (s *upserts) Confirm([]dataflow.StateChange) {}
func (s *upserts) Close(context.Context) error    { return nil }

// TestOrderedTables: of a table whose rows depend on those before them the last word counts, and emptied is what was there
// before, however many tasks there are.
func TestOrderedTables(t *testing.T) {
	for _, parallelism := range []int{1, 3} {
		t.Run(fmt.Sprint(parallelism), func(t *testing.T) {
			schema := row.Schema{{Name: "k", Type: upsertTypes[0]}, {Name: "n", Type: upsertTypes[1]}, {Name: "$unsent", Type: upsertTypes[2]}}
			spec := operator.Normalize{Node: "n", Input: upsertTypes[:2], Key: []int{0}, Unsent: true}
			g := &dataflow.Graph{Nodes: []dataflow.Node{
				{ID: "table", Kind: "source", Schema: schema, Source: &dataflow.SourceTable{Ordered: true}},
				{ID: "n", Kind: "normalize", Schema: schema[:2], Inputs: []dataflow.Edge{{From: 0, How: dataflow.ByKey, Key: []int{0}, Codec: row.GroupKey(upsertTypes[:1])}},
					Make: func(t dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
						return operator.NewNormalize(spec, t, out)
					}}}}
			v, view := viewNode(g, 1, []int{0})
			g.Nodes = append(g.Nodes, v)
			const batches = 3000
			p := runPipeline(Options{Graph: g, Parallelism: parallelism, Groups: 16,
				Sources: []Source{{Name: "upserts", Source: &upserts{batches: batches}, Tables: [][]row.Type{upsertTypes}}}})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			rows := map[int64]int64{}
			for want := int64(0); want < batches && ctx.Err() == nil; {
				pin, err := p.Pin(ctx)
				if err == nil {
					rows, err = rowsOf(ctx, pin, view, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
				pin.Release()
				for k, n := range rows { // every batch is a transaction
					if n != rows[0] || n < want || n > batches/2 && k >= 5 {
						t.Fatalf("epoch %d behind number %d: %v", pin.Epoch(), want, rows)
					}
				}
				want = rows[0]
			}
			if len(rows) != 5 || rows[4] != batches {
				t.Errorf("in the end there is %v", rows)
			}
			if err := p.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
