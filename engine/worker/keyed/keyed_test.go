package keyed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/engine/state/statetest"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

var transferTypes = []row.Type{{Kind: row.BigInt, NotNull: true}, {Kind: row.BigInt, NotNull: true}}

// bank is a source of transfers: each is a transaction of two rows whose amounts sum to zero, and now and then the rows
// of an earlier one are taken back.
type bank struct {
	count int64 // transfers
	seed  uint64
	at    int64
	half  bool
	b     *row.Builder
}

func (s *bank) Open(_ context.Context, st dataflow.State) error {
	s.b = row.NewBuilder(transferTypes)
	if v := st["at"]; v != nil {
		s.at = int64(binary.LittleEndian.Uint64(v))
	}
	return nil
}

func (s *bank) transfer(n int64) (from, to, amount, weight int64) {
	r := rand.New(rand.NewPCG(s.seed, uint64(n)))
	if n > 10 && r.IntN(3) == 0 {
		// Takes an even transfer back, each at most once: that of number n/2 if it is even and n is.
		if m := n / 2; n%4 == 0 && m%4 != 0 {
			f, t, a, _ := s.transfer(m)
			return f, t, a, -1
		}
	}
	return r.Int64N(50), r.Int64N(50), r.Int64N(1000), 1
}

// Read gives half a transaction at a time, so that a barrier may come in between.
func (s *bank) Read(ctx context.Context) (dataflow.Message, error) {
	if err := ctx.Err(); err != nil {
		return dataflow.Message{}, err
	}
	if s.at == s.count && !s.half {
		return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, nil
	}
	from, to, amount, w := s.transfer(s.at)
	s.b.Reset()
	if !s.half {
		s.b.Cols[0].Int64, s.b.Cols[1].Int64 = append(s.b.Cols[0].Int64, from), append(s.b.Cols[1].Int64, -amount)
	} else {
		s.b.Cols[0].Int64, s.b.Cols[1].Int64 = append(s.b.Cols[0].Int64, to), append(s.b.Cols[1].Int64, amount)
	}
	s.b.EndRow(w)
	m := dataflow.Message{Kind: dataflow.KindBatch, Batch: s.b.Seal()}
	if s.half {
		s.at++
		m.Boundary = true
		m.State = []dataflow.StateChange{{Key: "at", Value: binary.LittleEndian.AppendUint64(nil, uint64(s.at))}}
	}
	s.half = !s.half
	return m, nil
}

func (s *bank) Confirm([]dataflow.StateChange) {}
func (s *bank) Close(context.Context) error    { return nil }

// ledger is a sink that survives the pipelines: what a database would hold.
type ledger struct {
	t      *testing.T
	mu     sync.Mutex
	last   dataflow.Checkpoint
	tables []map[string]int64
	failAt int // publishes left until one fails, after it took effect or before
	rand   *rand.Rand
	check  func(tables []map[string]int64)
}

func (l *ledger) Open(context.Context, dataflow.Generation, dataflow.Checkpoint) (dataflow.Checkpoint, error) {
	return l.last, nil
}

var errCrash = errors.New("crash")

func (l *ledger) Publish(_ context.Context, c dataflow.Checkpoint, changes dataflow.Changes) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failAt--; l.failAt == 0 && l.rand.IntN(2) == 0 {
		return errCrash
	}
	if c <= l.last {
		l.t.Errorf("checkpoint %d is published behind %d", c, l.last)
	}
	for {
		table, b, err := changes.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		for k := range b.Rows() {
			i := b.At(k)
			var text string
			for _, v := range b.Cols {
				text += fmt.Sprint(v.Int64[i], " ")
			}
			if l.tables[table][text] += b.Weight(i); l.tables[table][text] == 0 {
				delete(l.tables[table], text)
			}
			if l.tables[table][text] < 0 {
				l.t.Errorf("row %s has weight %d", text, l.tables[table][text])
			}
		}
	}
	l.last = c
	l.check(l.tables)
	if l.failAt == 0 {
		return errCrash
	}
	return nil
}

func (l *ledger) Close(context.Context) error { return nil }

// memory is a Durable that crashes where it is told to.
type memory struct {
	t        *testing.T
	mu       sync.Mutex
	backing  *statetest.Backing
	last     dataflow.Checkpoint
	meta     []byte
	outboxes map[dataflow.Checkpoint][]byte
	failAt   int
	rand     *rand.Rand
}

func (m *memory) Restored() (dataflow.Checkpoint, []byte) { return m.last, m.meta }
func (m *memory) Backing() state.Backing                  { return lockedBacking{m} }
func (m *memory) Absorbed() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(m.last)
}
func (m *memory) Commit(_ context.Context, c dataflow.Checkpoint, deltas []*state.Delta, outbox, meta []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failAt--; m.failAt == 0 && m.rand.IntN(2) == 0 {
		return errCrash
	}
	for _, d := range deltas {
		m.backing.Apply(m.t, d)
	}
	m.last, m.meta = c, meta
	m.outboxes[c] = append([]byte(nil), outbox...)
	if m.failAt == 0 {
		return errCrash
	}
	return nil
}
func (m *memory) Unpublished() []dataflow.Checkpoint {
	var out []dataflow.Checkpoint
	for c := range dataflow.Checkpoint(m.last + 1) {
		if m.outboxes[c] != nil {
			out = append(out, c)
		}
	}
	return out
}
func (m *memory) Outbox(c dataflow.Checkpoint) ([]byte, error) { return m.outboxes[c], nil }
func (m *memory) Published(c dataflow.Checkpoint) {
	for k := range m.outboxes {
		if k <= c {
			delete(m.outboxes, k)
		}
	}
}

type lockedBacking struct{ m *memory }

func (l lockedBacking) Empty(id uint32) bool {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.backing.Empty(id)
}
func (l lockedBacking) Get(dst, key []byte) ([]byte, bool, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.backing.Get(dst, key)
}
func (l lockedBacking) Scan(p []byte, f func(k, v []byte) error) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.backing.Scan(p, f)
}
func (l lockedBacking) ID(name string) (uint32, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.backing.ID(name)
}

// bankGraph has two views: the balance of each account, and the sum of all balances, which is zero at every barrier.
func bankGraph() *dataflow.Graph {
	account := operator.Aggregation{Node: "balances", Input: transferTypes, Group: []int{0}, Retract: true,
		Calls: []operator.AggCall{{Func: operator.Sum, Arg: 1, Filter: -1, Type: row.Type{Kind: row.BigInt}}}}
	balance := row.Schema{{Name: "account", Type: transferTypes[0]}, {Name: "balance", Type: row.Type{Kind: row.BigInt}}}
	total := operator.Aggregation{Node: "total", Input: balance.Types(), Retract: true,
		Calls: []operator.AggCall{{Func: operator.Sum, Arg: 1, Filter: -1, Type: row.Type{Kind: row.BigInt}}, {Func: operator.Count, Arg: -1, Filter: -1, Type: row.Type{Kind: row.BigInt, NotNull: true}}}}
	transfers := row.Schema{{Name: "account", Type: transferTypes[0]}, {Name: "amount", Type: transferTypes[1]}}
	sums := row.Schema{{Name: "sum", Type: row.Type{Kind: row.BigInt}}, {Name: "accounts", Type: row.Type{Kind: row.BigInt}}}
	return &dataflow.Graph{Nodes: []dataflow.Node{
		{ID: "transfers", Kind: "source", Schema: transfers, Source: &dataflow.SourceTable{}},
		{ID: "balances", Kind: "aggregate", Schema: balance, Inputs: []dataflow.Edge{{From: 0, How: dataflow.ByKey, Key: []int{0}, Codec: row.GroupKey(transferTypes[:1])}},
			Make: func(t dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
				return operator.NewAggregate(account, t, out)
			}},
		{ID: "total", Kind: "aggregate", Schema: sums, Single: true, Inputs: []dataflow.Edge{{From: 1, How: dataflow.ToOne}},
			Make: func(t dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
				return operator.NewAggregate(total, t, out)
			}},
		{ID: "sink0", Kind: "sink", Schema: balance, Inputs: []dataflow.Edge{{From: 1}}, Sink: &dataflow.SinkTable{Table: 0, Key: []int{0}}},
		{ID: "sink1", Kind: "sink", Schema: sums, Single: true, Inputs: []dataflow.Edge{{From: 2}}, Sink: &dataflow.SinkTable{Table: 1}},
	}}
}

// TestBankThroughCrashes: whatever crashes, every published state is consistent, and the last one is the answer.
func TestBankThroughCrashes(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 5))
			m := &memory{t: t, backing: statetest.New(), outboxes: map[dataflow.Checkpoint][]byte{}, rand: r}
			l := &ledger{t: t, tables: []map[string]int64{{}, {}}, rand: r}
			publishes := 0
			l.check = func(tables []map[string]int64) {
				publishes++
				sum, n := int64(0), int64(0)
				for k := range tables[0] {
					var account, balance int64
					fmt.Sscan(k, &account, &balance)
					sum += balance
					n++
				}
				if sum != 0 {
					t.Errorf("the balances sum to %d", sum)
				}
				if want := fmt.Sprint(0, " ", n, " "); n > 0 && (len(tables[1]) != 1 || tables[1][want] != 1) {
					t.Errorf("the total is %v, want %q", tables[1], want)
				}
			}
			g := bankGraph()
			for run := 0; ; run++ {
				if run > 200 {
					t.Fatal("no end")
				}
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				e := env.Real(slog.New(slog.DiscardHandler))
				p := New(e, Options{Graph: g, Parallelism: 1 + r.IntN(3), Groups: 16, CheckpointInterval: time.Duration(r.IntN(3)) * time.Millisecond,
					Sources: []Source{{Name: "bank", Source: &bank{count: 20_000, seed: seed}, Tables: [][]row.Type{transferTypes}}},
					Sinks:   []Sink{{Name: "ledger", Sink: l, Tables: [][]row.Type{g.Nodes[3].Schema.Types(), g.Nodes[4].Schema.Types()}}},
					Durable: m})
				m.failAt, l.failAt = r.IntN(12), r.IntN(12)
				err := p.Run(ctx)
				cancel()
				e.Wait()
				if err == nil {
					break
				}
				if !errors.Is(err, errCrash) {
					t.Fatal(err)
				}
			}
			want := map[int64]int64{}
			rows := map[int64]int64{}
			s := &bank{seed: seed}
			for n := range int64(20_000) {
				from, to, amount, w := s.transfer(n)
				want[from] -= amount * w
				want[to] += amount * w
				rows[from] += w
				rows[to] += w
			}
			if len(l.tables[0]) != len(want) {
				t.Errorf("%d accounts, want %d", len(l.tables[0]), len(want))
			}
			for a, b := range want {
				if k := fmt.Sprint(a, " ", b, " "); l.tables[0][k] != 1 {
					t.Errorf("account %d should have %d", a, b)
				}
			}
			if publishes < 2 {
				t.Errorf("only %d checkpoints were published", publishes)
			}
		})
	}
}

// TestSinkOfAnother: a sink that holds more than was ever committed is not this pipeline's, and its rows would be left out.
func TestSinkOfAnother(t *testing.T) {
	m := &memory{t: t, backing: statetest.New(), outboxes: map[dataflow.Checkpoint][]byte{}, rand: rand.New(rand.NewPCG(1, 1))}
	l := &ledger{t: t, tables: []map[string]int64{{}, {}}, last: 5, check: func([]map[string]int64) { t.Error("it is published to") }}
	g := bankGraph()
	e := env.Real(slog.New(slog.DiscardHandler))
	p := New(e, Options{Graph: g, Durable: m,
		Sources: []Source{{Name: "bank", Source: &bank{count: 10}, Tables: [][]row.Type{transferTypes}}},
		Sinks:   []Sink{{Name: "ledger", Sink: l, Tables: [][]row.Type{g.Nodes[3].Schema.Types(), g.Nodes[4].Schema.Types()}}}})
	if err := p.Run(t.Context()); !errs.Is(err, errs.TargetTable) {
		t.Errorf("it ends with %v", err)
	}
	e.Wait()
}
