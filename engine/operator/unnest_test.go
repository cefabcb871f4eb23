package operator

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// TestUnnestAgainstReference: lists of every kind, with NULL among lists, elements and fields, and more elements than a
// batch holds rows.
func TestUnnestAgainstReference(t *testing.T) {
	number, text := row.Type{Kind: row.Int}, row.Type{Kind: row.String}
	pair := row.Type{Kind: row.Struct, Fields: []row.Field{{Name: "a", Type: text}, {Name: "b", Type: number}}}
	lists := []row.Type{{Kind: row.Array, Elem: &number}, {Kind: row.Array, Elem: &text}, {Kind: row.Array, Elem: &pair},
		{Kind: row.Map, Key: &text, Elem: &number}, {Kind: row.Multiset, Elem: &text}, {Kind: row.Multiset, Elem: &pair}}
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 5))
		list := lists[seed%uint64(len(lists))]
		spec := Unnest{Node: "unnest", Input: []row.Type{number, list, text}, List: 1, Keep: [][]int{{}, {0}, {2, 0}, {0, 1, 2}}[r.IntN(4)],
			Outer: r.IntN(2) == 0, Ordinality: r.IntN(2) == 0}
		var types []row.Type
		for _, c := range spec.Keep {
			types = append(types, spec.Input[c])
		}
		types = append(types, ElementColumns(list).Types()...)
		if spec.Ordinality {
			types = append(types, number)
		}
		h := newHarness(t, types, func(task dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
			return NewUnnest(spec, task, out)
		})
		want := map[string]int64{}
		for range 3 {
			b := row.NewBuilder(spec.Input)
			b.Reset()
			var sel []int32
			for i := range 1 + r.IntN(6) {
				b.Cols[0].Int64 = append(b.Cols[0].Int64, r.Int64N(9))
				b.Cols[2].AppendString(fmt.Sprint("row", r.IntN(9)))
				elements := []string(nil)
				if r.IntN(5) == 0 {
					b.Cols[1].AppendNull(row.LayoutBytes)
				} else {
					n := r.IntN(5)
					if r.IntN(20) == 0 && len(spec.Keep) < 3 { // the third keeps the list, too
						n = row.MaxBatch + r.IntN(100)
					}
					var bytes []byte
					bytes, elements = randomList(r, list, n)
					b.Cols[1].AppendBytes(bytes)
				}
				w := r.Int64N(5) - 2
				if w == 0 {
					w = 1
				}
				b.EndRow(w)
				if r.IntN(4) == 0 {
					continue // not selected
				}
				sel = append(sel, int32(i))
				var kept []string
				for _, c := range spec.Keep {
					kept = append(kept, valueText(spec.Input[c], b.Cols[c], i))
				}
				if len(elements) == 0 && spec.Outer {
					elements = []string{strings.TrimSuffix(strings.Repeat("NULL|", len(types)-len(spec.Keep)), "|")}
				} else if spec.Ordinality {
					for k := range elements {
						elements[k] += fmt.Sprint("|", k+1)
					}
				}
				for _, e := range elements {
					add(want, strings.Join(append(kept[:len(kept):len(kept)], e), "|"), w)
				}
			}
			batch := *b.Seal()
			batch.Sel = sel
			if sel == nil {
				batch.Sel = []int32{}
			}
			if err := h.op.Process(0, &batch); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := dump(h.out), dump(want); got != want {
			t.Fatalf("seed %d, %s, %+v\n got %s\nwant %s", seed, list, spec, got, want)
		}
		h.store.Close()
	}
}

// randomList makes a list of n elements, and the text of each row that comes of it.
func randomList(r *rand.Rand, t row.Type, n int) ([]byte, []string) {
	first := *t.Elem
	if t.Kind == row.Map {
		first = *t.Key
	}
	keys, values := &row.Vector{}, &row.Vector{}
	var texts []string
	for i := range n {
		text := randomElement(r, first, keys)
		times := 1
		switch t.Kind {
		case row.Map:
			text += "|" + randomElement(r, *t.Elem, values)
		case row.Multiset:
			times = 1 + r.IntN(3)
			values.Int64 = append(values.Int64, int64(times))
		}
		for range times {
			texts = append(texts, text)
		}
		keys.Seal(i + 1)
		values.Seal(i + 1)
	}
	list := row.AppendList(nil, first, keys, nil, n)
	if t.Kind == row.Array {
		return list, texts
	}
	_, value := row.MapTypes(t)
	return row.AppendMap(nil, list, row.AppendList(nil, value, values, nil, n)), texts
}

func randomElement(r *rand.Rand, t row.Type, v *row.Vector) string {
	if r.IntN(4) == 0 {
		v.AppendNull(t.Layout())
		return strings.TrimSuffix(strings.Repeat("NULL|", max(1, len(t.Fields))), "|")
	}
	switch t.Kind {
	case row.Int:
		v.Int64 = append(v.Int64, r.Int64N(100)-50)
		return fmt.Sprint(v.Int64[len(v.Int64)-1])
	case row.String:
		s := strings.Repeat("x", r.IntN(3))
		v.AppendString(s)
		return s
	}
	a, b := &row.Vector{}, &row.Vector{}
	text := randomElement(r, t.Fields[0].Type, a) + "|" + randomElement(r, t.Fields[1].Type, b)
	v.AppendBytes(row.NewCodec(row.Schema(t.Fields).Types()).AppendColumns(nil, []*row.Vector{a, b}, 0))
	return text
}
