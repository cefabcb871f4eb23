package operator

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// TestViewAgainstCopies: whatever is pinned, whenever, and however a scan is cut, a reader gets the rows of its epoch.
// The second answer is a copy of the view for each epoch.
func TestViewAgainstCopies(t *testing.T) {
	types := map[string][]row.Type{
		"number": {{Kind: row.BigInt, NotNull: true}, {Kind: row.BigInt}},
		"text":   {{Kind: row.String}, {Kind: row.BigInt}},
	}
	for name, columns := range types {
		for _, key := range [][]int{{0}, nil} {
			for seed := range uint64(3) {
				t.Run(fmt.Sprint(name, key, seed), func(t *testing.T) { viewAgainstCopies(t, columns, key, seed) })
			}
		}
	}
}

func viewAgainstCopies(t *testing.T, types []row.Type, key []int, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	h := newHarness(t, types, func(task dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
		return NewMaterialize(Materialize{Node: "view", Types: types, Key: key}, task, out)
	})
	pins := &Pins{}
	view := h.op.(*View)
	view.Pin(pins)
	view.partRows = 16
	keys := 1 + r.Int64N(400)
	appendKey := func(b *row.Builder, k int64) {
		switch {
		case types[0].Kind == row.BigInt:
			b.Cols[0].Int64 = append(b.Cols[0].Int64, k)
		case k == 0:
			b.Cols[0].AppendNull(row.LayoutBytes)
		default:
			b.Cols[0].AppendString(fmt.Sprint("key", k))
		}
	}
	type pair struct{ k, v int64 }
	now := map[pair]int64{}
	text := func(rows map[pair]int64, only func(int64) bool) map[string]int64 {
		out := map[string]int64{}
		b := row.NewBuilder(types)
		for p, w := range rows {
			if !only(p.k) {
				continue
			}
			b.Reset()
			appendKey(b, p.k)
			b.Cols[1].Int64 = append(b.Cols[1].Int64, p.v)
			b.EndRow(1)
			out[rowText(types, b.Seal(), 0)] = w
		}
		return out
	}
	// A scan that is under way.
	type scan struct {
		cursor Cursor
		got    map[string]int64
	}
	type pin struct {
		epoch uint64
		rows  map[pair]int64
		scan  *scan
	}
	var held []*pin
	set := func() {
		var oldest, newest uint64
		for _, p := range held {
			newest = max(newest, p.epoch)
			if oldest == 0 || p.epoch < oldest {
				oldest = p.epoch
			}
		}
		pins.Set(oldest, newest)
	}
	check := func(what string, p *pin, got, want map[string]int64) {
		t.Helper()
		if dump(got) != dump(want) {
			t.Fatalf("epoch %d of %d, %s: got %d rows, want %d", p.epoch, h.epoch, what, len(got), len(want))
		}
	}
	in := row.NewBuilder(types)
	change := func(k, v, w int64) {
		appendKey(in, k)
		in.Cols[1].Int64 = append(in.Cols[1].Int64, v)
		in.EndRow(w)
		if now[pair{k, v}] += w; now[pair{k, v}] == 0 {
			delete(now, pair{k, v})
		}
	}
	value := map[int64]int64{} // of a view with a key
	read := func(p *pin) {
		if p.scan == nil {
			p.scan = &scan{got: map[string]int64{}}
		}
		out := row.NewBuilder(types)
		limit := 1 + r.IntN(300)
		asked := 0
		end, err := view.Scan(p.epoch, &p.scan.cursor, out, func(rows int) bool { asked++; return asked > 1 && rows >= limit })
		if err != nil {
			t.Fatal(err)
		}
		b := out.Seal()
		for i := range b.Len {
			add(p.scan.got, rowText(types, b, i), b.Weight(i))
		}
		if end {
			check("by scan", p, p.scan.got, text(p.rows, func(int64) bool { return true }))
			p.scan = nil
		}
		if key == nil {
			return
		}
		asks := row.NewBuilder(types[:1])
		wanted := map[int64]bool{}
		for range 20 {
			if k := r.Int64N(keys + 2); !wanted[k] {
				wanted[k] = true
				appendKey(asks, k)
				asks.EndRow(1)
			}
		}
		out.Reset()
		if err := view.Lookup(p.epoch, asks.Seal(), out); err != nil {
			t.Fatal(err)
		}
		got := map[string]int64{}
		for i := range out.Seal().Len {
			add(got, rowText(types, &out.Batch, i), out.Weight(i))
		}
		check("by key", p, got, text(p.rows, func(k int64) bool { return wanted[k] }))
	}
	for range 40 {
		in.Reset()
		for range r.IntN(min(400, 2*int(keys))) {
			k := r.Int64N(keys)
			if key == nil {
				if v := r.Int64N(3); now[pair{k, v}] > 0 && r.IntN(2) == 0 {
					change(k, v, -1)
				} else {
					change(k, v, 1)
				}
				continue
			}
			if v, ok := value[k]; ok {
				change(k, v, -1)
				delete(value, k)
			}
			if r.IntN(3) > 0 {
				value[k] = r.Int64N(1000)
				change(k, value[k], 1)
			}
		}
		if err := view.Process(0, in.Seal()); err != nil {
			t.Fatal(err)
		}
		for _, p := range held {
			read(p) // the epoch has begun, and nobody sees it
		}
		h.barrier()
		if r.IntN(5) == 0 {
			h.checkpoint()
		}
		if r.IntN(3) == 0 {
			rows := map[pair]int64{}
			for p, w := range now {
				rows[p] = w
			}
			held = append(held, &pin{epoch: h.epoch, rows: rows})
		}
		if len(held) > 0 && (len(held) > 4 || r.IntN(4) == 0) {
			i := r.IntN(len(held))
			held = append(held[:i], held[i+1:]...)
		}
		set()
		for _, p := range held {
			read(p)
		}
	}
	held = nil
	set()
	h.barrier()
	if pins.Bytes() != 0 {
		t.Errorf("%d bytes are kept for nobody", pins.Bytes())
	}
}
