package operator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// TestTopNAgainstReference: places, offsets and ties over random changes, against sorting everything at every barrier.
func TestTopNAgainstReference(t *testing.T) {
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 12))
		retract := seed%2 == 0
		spec := TopN{Node: "top", Input: inputTypes, Partition: [][]int{{}, {0}, {0, 1}}[r.IntN(3)], Limit: 1 + r.Int64N(4), Offset: r.Int64N(3), Rank: r.IntN(2) == 0, Retract: retract}
		if r.IntN(10) == 0 {
			spec.Limit = -1
		}
		if r.IntN(2) == 0 {
			spec.Offset = 0
		}
		for _, c := range []int{2, 5}[:1+r.IntN(2)] {
			spec.Order = append(spec.Order, c)
			spec.OrderKeys = append(spec.OrderKeys, row.KeyColumn{Type: inputTypes[c], Desc: r.IntN(2) == 0, NullsLast: r.IntN(2) == 0})
		}
		h := newHarness(t, spec.Types(), func(task dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
			return NewTopN(spec, task, out)
		})
		var rows, saved []value
		codec, order := row.NewCodec(inputTypes), row.NewKeyCodec(spec.OrderKeys, false)
		for range 25 {
			var change []value
			var weights []int64
			for range r.IntN(25) {
				if retract && len(rows) > 0 && r.IntN(2) == 0 {
					i := r.IntN(len(rows))
					change, weights = append(change, rows[i]), append(weights, -1)
					rows = slices.Delete(rows, i, i+1)
					continue
				}
				v, n := randomValue(r), 1+r.Int64N(2)
				change, weights = append(change, v), append(weights, n)
				for range n {
					rows = append(rows, v)
				}
			}
			r.Shuffle(len(change), func(i, j int) {
				change[i], change[j] = change[j], change[i]
				weights[i], weights[j] = weights[j], weights[i]
			})
			h.feed(r, change, weights)
			h.barrier()

			type sorted struct{ key, text string }
			parts := map[string][]sorted{}
			for _, v := range rows {
				b := row.NewBuilder(inputTypes)
				b.Reset()
				appendValue(b, v, 1)
				batch := b.Seal()
				var p []string
				for _, c := range spec.Partition {
					p = append(p, valueText(inputTypes[c], batch.Cols[c], 0))
				}
				s := sorted{string(order.Append(nil, batch, spec.Order, 0)) + string(codec.Append(nil, batch, 0)), rowText(inputTypes, batch, 0)}
				parts[strings.Join(p, "|")] = append(parts[strings.Join(p, "|")], s)
			}
			want := map[string]int64{}
			for _, p := range parts {
				slices.SortFunc(p, func(a, b sorted) int { return strings.Compare(a.key, b.key) })
				for i, s := range p {
					if int64(i) < spec.Offset || spec.Limit >= 0 && int64(i) >= spec.Offset+spec.Limit {
						continue
					}
					if spec.Rank {
						s.text += fmt.Sprint("|", i+1)
					}
					want[s.text]++
				}
			}
			if got, want := dump(h.out), dump(want); got != want {
				t.Fatalf("seed %d, %+v\n got %s\nwant %s", seed, spec, got, want)
			}
			switch r.IntN(6) {
			case 0:
				h.checkpoint()
				saved = slices.Clone(rows)
			case 1:
				h.restore()
				rows = slices.Clone(saved)
			}
		}
		h.store.Close()
	}
}
