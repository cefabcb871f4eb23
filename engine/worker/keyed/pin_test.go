package keyed

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state/statetest"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// viewNode keeps what node from gives.
func viewNode(g *dataflow.Graph, from int, key []int) (dataflow.Node, int) {
	n := g.Nodes[from]
	spec := operator.Materialize{Node: fmt.Sprint("view", from), Types: n.Schema.Types(), Key: key}
	edge := dataflow.Edge{From: from}
	if len(key) > 0 {
		var types []row.Type
		for _, c := range key {
			types = append(types, n.Schema[c].Type)
		}
		edge = dataflow.Edge{From: from, How: dataflow.ByKey, Key: key, Codec: row.GroupKey(types)}
	}
	return dataflow.Node{ID: spec.Node, Kind: "view", Schema: n.Schema, Single: n.Single, Inputs: []dataflow.Edge{edge},
		Make: func(t dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
			return operator.NewMaterialize(spec, t, out)
		}}, len(g.Nodes)
}

// viewGraph is the bank with its two views served, and without sinks.
func viewGraph() (g *dataflow.Graph, balances, total int) {
	g = bankGraph()
	g.Nodes = g.Nodes[:3]
	v, balances := viewNode(g, 1, []int{0})
	g.Nodes = append(g.Nodes, v)
	v, total = viewNode(g, 2, []int{})
	g.Nodes = append(g.Nodes, v)
	return g, balances, total
}

func rowsOf(ctx context.Context, pin *Pin, node int, keys *row.Batch) (map[int64]int64, error) {
	out := map[int64]int64{}
	err := pin.Read(ctx, node, keys, func(b *row.Batch) error {
		for k := range b.Rows() {
			i := b.At(k)
			if b.Weight(i) != 1 {
				return fmt.Errorf("a row of weight %d", b.Weight(i))
			}
			if _, twice := out[b.Cols[0].Int64[i]]; twice {
				return fmt.Errorf("key %d is there twice", b.Cols[0].Int64[i])
			}
			out[b.Cols[0].Int64[i]] = b.Cols[1].Int64[i]
		}
		return nil
	})
	return out, err
}

// checkBank reads both views under one pin, and each balance by its key.
func checkBank(ctx context.Context, pin *Pin, balances, total int) (map[int64]int64, error) {
	rows, err := rowsOf(ctx, pin, balances, nil)
	if err != nil {
		return nil, err
	}
	sum := int64(0)
	keys := row.NewBuilder(transferTypes[:1])
	for a, b := range rows {
		sum += b
		keys.Cols[0].Int64 = append(keys.Cols[0].Int64, a)
		keys.EndRow(1)
	}
	if sum != 0 {
		return nil, fmt.Errorf("epoch %d: the balances sum to %d", pin.Epoch(), sum)
	}
	one, err := rowsOf(ctx, pin, total, nil)
	if err != nil {
		return nil, err
	}
	if n, ok := one[0]; !ok || n != int64(len(rows)) || len(one) != 1 {
		return nil, fmt.Errorf("epoch %d: the total is %v, and there are %d accounts", pin.Epoch(), one, len(rows))
	}
	keys.Cols[0].Int64 = append(keys.Cols[0].Int64, -7) // nobody's
	keys.EndRow(1)
	byKey, err := rowsOf(ctx, pin, balances, keys.Seal())
	if err != nil {
		return nil, err
	}
	if fmt.Sprint(byKey) != fmt.Sprint(rows) {
		return nil, fmt.Errorf("epoch %d: by key %v, by scan %v", pin.Epoch(), byKey, rows)
	}
	return rows, nil
}

// openBank does not end by itself.
type openBank struct{ bank }

func (s *openBank) Read(ctx context.Context) (dataflow.Message, error) {
	m, err := s.bank.Read(ctx)
	if m.Kind == dataflow.KindEnd {
		<-ctx.Done()
		return m, ctx.Err()
	}
	return m, err
}

type runningPipeline struct {
	*Pipeline
	stop func() error
}

func runPipeline(o Options) *runningPipeline {
	e := env.Real(slog.New(slog.DiscardHandler))
	p := New(e, o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return &runningPipeline{p, func() error {
		p.Stop()
		err := <-done
		cancel()
		e.Wait()
		return err
	}}
}

// TestReadersSeeOneEpoch: while transfers come, every reader sees balances that sum to zero and the total that belongs to
// them, and a pin that is held sees the same until it is let go.
func TestReadersSeeOneEpoch(t *testing.T) {
	for _, parallelism := range []int{1, 3} {
		t.Run(fmt.Sprint(parallelism), func(t *testing.T) {
			g, balances, total := viewGraph()
			p := runPipeline(Options{Graph: g, Parallelism: parallelism, Groups: 16,
				Sources: []Source{{Name: "bank", Source: &openBank{bank{count: 20_000, seed: 3}}, Tables: [][]row.Type{transferTypes}}}})
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			var wg sync.WaitGroup
			var mu sync.Mutex
			epochs := map[uint64]bool{}
			for reader := range 4 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					r := rand.New(rand.NewPCG(1, uint64(reader)))
					for p.Status().RowsIn[0] < 40_000 {
						pin, err := p.Pin(ctx)
						if err != nil {
							t.Error(err)
							return
						}
						first, err := checkBank(ctx, pin, balances, total)
						for range r.IntN(30) {
							var again map[int64]int64
							if err == nil {
								again, err = checkBank(ctx, pin, balances, total)
							}
							if err == nil && fmt.Sprint(again) != fmt.Sprint(first) {
								err = fmt.Errorf("epoch %d changed under a pin", pin.Epoch())
							}
						}
						mu.Lock()
						epochs[pin.Epoch()] = true
						mu.Unlock()
						pin.Release()
						pin.Release()
						if err != nil {
							t.Error(err)
							return
						}
					}
				}()
			}
			wg.Wait()
			if len(epochs) < 5 {
				t.Errorf("only %d epochs were read", len(epochs))
			}
			if err := p.stop(); err != nil {
				t.Error(err)
			}
			if len(p.pins.mu.held) != 0 {
				t.Errorf("%d epochs stay pinned", len(p.pins.mu.held))
			}
			if _, err := p.Pin(ctx); !errs.Is(err, errs.PipelineState) {
				t.Errorf("a pipeline that has ended was pinned: %v", err)
			}
		})
	}
}

// TestPinsExpire: a pin that is held for too long, or for which too much is kept, ends, and says so.
func TestPinsExpire(t *testing.T) {
	for name, o := range map[string]Options{"time": {PinTime: time.Millisecond}, "bytes": {PinBytes: 100}} {
		t.Run(name, func(t *testing.T) {
			g, balances, _ := viewGraph()
			o.Graph, o.Groups = g, 16
			o.Sources = []Source{{Name: "bank", Source: &openBank{bank{count: 1 << 40, seed: 3}}, Tables: [][]row.Type{transferTypes}}}
			p := runPipeline(o)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			pin, err := p.Pin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = rowsOf(ctx, pin, balances, nil)
			}
			if !errs.Is(err, errs.SnapshotTooOld) {
				t.Errorf("got %v", err)
			}
			pin.Release()
			// The pipeline goes on, nothing is kept, and others read.
			at := p.Status().Epoch
			for p.Status().Epoch < at+3 || p.pins.Bytes() != 0 {
				if err := ctx.Err(); err != nil {
					t.Fatal(err)
				}
				<-time.After(time.Millisecond)
			}
			if err := p.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestViewsAfterRestart: what a view holds below memory is read, too.
func TestViewsAfterRestart(t *testing.T) {
	m := &memory{t: t, backing: statetest.New(), outboxes: map[dataflow.Checkpoint][]byte{}}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var last map[int64]int64
	for run, count := range []int64{2_000, 2_000, 3_000, 3_000} {
		g, balances, total := viewGraph()
		src := &openBank{bank{count: count, seed: 9}}
		p := runPipeline(Options{Graph: g, Parallelism: 1 + run%3, Groups: 16, Durable: m,
			Sources: []Source{{Name: "bank", Source: src, Tables: [][]row.Type{transferTypes}}}})
		want := map[int64]int64{}
		for n := range count {
			from, to, amount, w := src.transfer(n)
			want[from] -= amount * w
			want[to] += amount * w
		}
		for {
			pin, err := p.Pin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			rows, err := checkBank(ctx, pin, balances, total)
			if err != nil {
				t.Fatal(err)
			}
			pin.Release()
			if run%2 == 1 && fmt.Sprint(rows) != fmt.Sprint(last) {
				t.Fatalf("after the restart %v, before %v", rows, last)
			}
			last = rows
			if fmt.Sprint(want) == fmt.Sprint(rows) {
				break
			}
			<-time.After(time.Millisecond)
		}
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// numbers gives rows (n, round) for n below keys, round after round, and so replaces all rows of a view again and again.
type numbers struct {
	keys, rounds int64
	at, round    int64
	pause        time.Duration // after each batch behind the first round
	b            *row.Builder
}

func (s *numbers) Open(context.Context, dataflow.State) error {
	s.b = row.NewBuilder(transferTypes)
	return nil
}

func (s *numbers) Read(ctx context.Context) (dataflow.Message, error) {
	if err := ctx.Err(); err != nil {
		return dataflow.Message{}, err
	}
	if s.round == s.rounds {
		<-ctx.Done()
		return dataflow.Message{}, ctx.Err()
	}
	if s.round > 0 {
		<-time.After(s.pause)
	}
	s.b.Reset()
	for range 512 {
		if s.at == s.keys {
			break
		}
		s.b.Cols[0].Int64, s.b.Cols[1].Int64 = append(s.b.Cols[0].Int64, s.at), append(s.b.Cols[1].Int64, 1)
		s.b.EndRow(1)
		s.at++
	}
	if s.at == s.keys {
		s.at = 0
		s.round++
	}
	return dataflow.Message{Kind: dataflow.KindBatch, Batch: s.b.Seal(), Boundary: true,
		State: []dataflow.StateChange{{Key: "at", Value: binary.LittleEndian.AppendUint64(nil, uint64(s.at))}}}, nil
}

func (s *numbers) Confirm([]dataflow.StateChange) {}
func (s *numbers) Close(context.Context) error    { return nil }

// TestScanBesideTheStream: while all rows of a large view are read, epochs go on.
func TestScanBesideTheStream(t *testing.T) {
	const keys = 200_000
	g, balances, total := viewGraph()
	p := runPipeline(Options{Graph: g, Sources: []Source{{Name: "numbers", Source: &numbers{keys: keys, rounds: 1 << 40, pause: time.Millisecond}, Tables: [][]row.Type{transferTypes}}}})
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var pin *Pin
	for pin == nil {
		var err error
		if pin, err = p.Pin(ctx); err != nil {
			t.Fatal(err)
		}
		accounts := int64(0)
		if err := pin.Read(ctx, total, nil, func(b *row.Batch) error {
			accounts = b.Cols[1].Int64[0]
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if accounts < keys {
			pin.Release()
			pin = nil
			<-time.After(time.Millisecond)
		}
	}
	began, rows := time.Now(), 0
	first, last, longest := pin.Epoch(), pin.Epoch(), time.Duration(0)
	changed := began
	if err := pin.Read(ctx, balances, nil, func(b *row.Batch) error {
		rows += b.Rows()
		if now, e := time.Now(), p.Status().Epoch; e != last {
			longest = max(longest, now.Sub(changed))
			last, changed = e, now
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("%d rows in %v, %d epochs meanwhile, the longest %v, %d bytes kept", rows, took, last-first, longest, p.pins.Bytes())
	pin.Release()
	if rows != keys || last == first && took > time.Second || longest > 10*time.Second {
		t.Errorf("%d rows, epochs %d to %d, the longest took %v", rows, first, last, longest)
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
}

// BenchmarkLookup is a pin and a lookup by key of an idle pipeline.
func BenchmarkLookup(b *testing.B) {
	g, balances, _ := viewGraph()
	p := runPipeline(Options{Graph: g, Sources: []Source{{Name: "numbers", Source: &numbers{keys: 100_000, rounds: 1}, Tables: [][]row.Type{transferTypes}}}})
	ctx := context.Background()
	for p.Status().RowsIn[0] < 100_000 {
		<-time.After(time.Millisecond)
	}
	keys := row.NewBuilder(transferTypes[:1])
	keys.Cols[0].Int64 = append(keys.Cols[0].Int64, 4711)
	keys.EndRow(1)
	for b.Loop() {
		pin, err := p.Pin(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if err := pin.Read(ctx, balances, keys.Seal(), func(*row.Batch) error { return nil }); err != nil {
			b.Fatal(err)
		}
		pin.Release()
	}
	if err := p.stop(); err != nil {
		b.Error(err)
	}
}
