package joins

import (
	"bytes"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// benchTask is a Task, and an Emitter that counts.
type benchTask struct {
	store *state.Store
	rows  int
}

func (b *benchTask) Index() int                 { return 0 }
func (b *benchTask) Count() int                 { return 1 }
func (b *benchTask) State() *state.Store        { return b.store }
func (b *benchTask) Peer(int) dataflow.Operator { return nil }
func (b *benchTask) Fault(dataflow.Fault)       {}
func (b *benchTask) Clock() int64               { return 0 }
func (b *benchTask) Emit(r *row.Batch) error    { b.rows += r.Rows(); return nil }

// benchJoin is orders (key, amount) and customers (key, region), or with text (key, 150 bytes).
type benchJoin struct {
	benchTask
	left, right *Index
	join        *Regular
	batches     [2]*row.Builder
	text        bool
	filler      []byte
}

func newBenchJoin(t testing.TB, kind Kind, condition Condition, text, retract bool) *benchJoin {
	store, err := state.New(state.Options{Volatile: true})
	must(t, err)
	b := &benchJoin{benchTask: benchTask{store: store}, text: text, filler: bytes.Repeat([]byte("x"), 150)}
	key := row.Type{Kind: row.BigInt, NotNull: true}
	types := [2][]row.Type{{key, {Kind: row.BigInt}}, {key, {Kind: row.BigInt}}}
	if text {
		types[1][1] = row.Type{Kind: row.String}
	}
	index := func(name string, types []row.Type) *Index {
		x, err := NewIndex(b, IndexOptions{Name: name, Input: types, Key: []int{0}, Codec: row.JoinKey([]row.Type{key}), Columns: []int{0, 1}, Retract: retract})
		must(t, err)
		return x
	}
	b.left, b.right = index("left", types[0]), index("right", types[1])
	output := []Column{{0, 0}, {0, 1}, {1, 1}}
	if kind == Semi || kind == Anti {
		output = output[:2]
	}
	b.join, err = NewRegular(b, b, Options{Name: "join", Kind: kind, Left: b.left, Right: b.right, Output: output, Condition: condition, Tested: []Column{{1, 1}, {0, 1}}})
	must(t, err)
	b.batches = [2]*row.Builder{row.NewBuilder(types[0]), row.NewBuilder(types[1])}
	return b
}

// send gives a side n rows with weight w.
func (b *benchJoin) send(t testing.TB, side, n int, w int64, of func(i int) (key, value int64)) {
	batch := b.batches[side]
	batch.Reset()
	for i := range n {
		k, v := of(i)
		batch.Cols[0].Int64 = append(batch.Cols[0].Int64, k)
		if side == 1 && b.text {
			batch.Cols[1].AppendBytes(b.filler)
		} else {
			batch.Cols[1].Int64 = append(batch.Cols[1].Int64, v)
		}
		batch.EndRow(w)
	}
	must(t, []*Index{b.left, b.right}[side].Process(0, batch.Seal()))
}

func (b *benchJoin) barrier(t testing.TB, n uint64) {
	for _, o := range []dataflow.Operator{b.left, b.right, b.join} {
		must(t, o.Barrier(dataflow.Epoch{N: n}))
	}
	b.store.NextEpoch()
}

// TestNoAllocations: in the steady state neither a batch nor a barrier allocates.
func TestNoAllocations(t *testing.T) {
	for _, c := range []struct {
		name      string
		kind      Kind
		condition Condition
		text      bool
	}{
		{"inner", Inner, nil, false}, {"inner text", Inner, nil, true}, {"inner condition", Inner, less{}, false},
		{"full", Full, nil, false}, {"full condition", Full, less{}, false}, {"semi", Semi, nil, true}, {"anti condition", Anti, less{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBenchJoin(t, c.kind, c.condition, c.text, true)
			defer b.store.Close()
			epoch := uint64(0)
			work := func() {
				for _, w := range []int64{1, -1} {
					b.send(t, 0, 500, w, func(i int) (int64, int64) { return int64(i), int64(i) })
					b.send(t, 1, 1000, w, func(i int) (int64, int64) { return int64(i / 3), int64(2 * i) })
					epoch++
					b.barrier(t, epoch)
				}
			}
			work()
			work()
			if n := testing.AllocsPerRun(10, work); n > 0 {
				t.Errorf("%v allocations for 3000 rows", n)
			}
		})
	}
}

// BenchmarkInner sends left rows that each find one of a million right rows, and are kept themselves.
func BenchmarkInner(b *testing.B) {
	const stored, batch = 1 << 20, 1024
	for _, c := range []struct {
		name          string
		text, retract bool
	}{{"ints", false, true}, {"ints-append", false, false}, {"text150", true, true}} {
		b.Run(c.name, func(b *testing.B) {
			j := newBenchJoin(b, Inner, nil, c.text, c.retract)
			defer j.store.Close()
			for at := 0; at < stored; at += batch {
				j.send(b, 1, batch, 1, func(i int) (int64, int64) { return int64(at + i), int64(i) })
			}
			perRow := float64(j.store.MemoryBytes()) / stored
			r := rand.New(rand.NewPCG(1, 1))
			sent, cpu := int64(0), cpuNS()
			for b.Loop() {
				j.send(b, 0, batch, 1, func(int) (int64, int64) { sent++; return r.Int64N(stored), sent })
			}
			if j.rows != int(sent) {
				b.Fatalf("%d rows from %d", j.rows, sent)
			}
			b.ReportMetric(perRow, "B/row")
			b.ReportMetric(float64(cpuNS()-cpu)/float64(sent), "cpu-ns/row")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sent), "ns/row")
		})
	}
}

// cpuNS is the processor time that the process has taken: on a machine that is shared, the elapsed time tells little.
func cpuNS() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}
