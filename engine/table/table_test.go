package table

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
)

// engine is what a Sequencer feeds: it applies what it reads and keeps the rows of every epoch.
type engine struct {
	t      *testing.T
	s      *Sequencer
	now    []map[[2]int64]int64   // by table: rows with their numbers
	epochs [][]map[[2]int64]int64 // by epoch
	state  []dataflow.StateChange // since the last epoch
	undone []dataflow.StateChange // since the last checkpoint
}

func defs() []Def {
	schema := row.Schema{{Name: "a", Type: row.Type{Kind: row.BigInt, NotNull: true}}, {Name: "b", Type: row.Type{Kind: row.BigInt, NotNull: true}}}
	return []Def{{Name: "keyed", Schema: schema, Key: []int{0}}, {Name: "bag", Schema: schema}}
}

func newEngine(t *testing.T, o Options) *engine {
	t.Helper()
	g := &engine{t: t, s: New(env.Real(slog.New(slog.DiscardHandler)), defs(), o), now: []map[[2]int64]int64{{}, {}}}
	if err := g.s.Open(t.Context(), dataflow.State{}); err != nil {
		t.Fatal(err)
	}
	g.epoch(false)
	return g
}

// take reads what was accepted.
func (g *engine) take() {
	g.t.Helper()
	for len(g.s.work) > 0 || len(g.s.source.messages) > 0 {
		m, err := g.s.Read(g.t.Context())
		if err != nil {
			g.t.Fatal(err)
		}
		for k := range m.Batch.Rows() {
			i := m.Batch.At(k)
			r := [2]int64{m.Batch.Cols[0].Int64[i], m.Batch.Cols[1].Int64[i]}
			if g.now[m.Table][r] += m.Batch.Weight(i); g.now[m.Table][r] == 0 {
				delete(g.now[m.Table], r)
			}
		}
		g.state = append(g.state, m.State...)
		if m.Boundary != (len(m.State) > 0) || m.Boundary != m.Urgent {
			g.t.Fatalf("message with boundary %v, urgent %v and state %v", m.Boundary, m.Urgent, m.State)
		}
		if m.Boundary && g.now[0] != nil {
			for r, n := range g.now[0] {
				if n != 1 {
					g.t.Fatalf("behind a transaction row %v is there %d times", r, n)
				}
			}
		}
	}
}

func (g *engine) epoch(check bool) {
	g.epochs = append(g.epochs, []map[[2]int64]int64{maps.Clone(g.now[0]), maps.Clone(g.now[1])})
	g.s.Visible(uint64(len(g.epochs)), g.state)
	g.undone = append(g.undone, g.state...)
	g.state = nil
	if check {
		g.s.Durable(g.undone)
		g.undone = nil
	}
}

// pin pins the newest epoch.
func (g *engine) pin(context.Context) (Base, error) { return &held{g: g, n: len(g.epochs)}, nil }

type held struct {
	g        *engine
	n        int
	released bool
}

func (h *held) Epoch() uint64 { return uint64(h.n) }
func (h *held) Release()      { h.released = true }
func (h *held) Read(_ context.Context, table int, keys *row.Batch, f func(*row.Batch) error) error {
	if h.released {
		h.g.t.Fatal("a released epoch is read")
	}
	b := row.NewBuilder(defs()[0].Schema.Types())
	b.Reset()
	for r, n := range h.g.epochs[h.n-1][table] {
		if keys != nil && !slices.ContainsFunc(keys.Sel, func(i int32) bool { return keys.Cols[0].Int64[i] == r[0] }) {
			continue
		}
		b.Cols[0].Int64, b.Cols[1].Int64 = append(b.Cols[0].Int64, r[0]), append(b.Cols[1].Int64, r[1])
		b.EndRow(n)
	}
	return f(b.Seal())
}

func batch(rows ...[2]int64) *row.Batch {
	b := row.NewBuilder(defs()[0].Schema.Types())
	b.Reset()
	for _, r := range rows {
		b.Cols[0].Int64, b.Cols[1].Int64 = append(b.Cols[0].Int64, r[0]), append(b.Cols[1].Int64, r[1])
		b.EndRow(1)
	}
	return b.Seal()
}

func pairs(olds, news [][2]int64) *row.Batch {
	b, n := batch(olds...), batch(news...)
	b.Cols = append(b.Cols[:2:2], n.Cols...)
	return b
}

// sees is what the transaction reads of a table.
func sees(t *testing.T, tx *Tx, table int, keys *row.Batch, depends bool) map[[2]int64]int64 {
	t.Helper()
	out := map[[2]int64]int64{}
	if err := tx.Read(t.Context(), table, keys, depends, func(b *row.Batch) error {
		for k := range b.Rows() {
			i := b.At(k)
			out[[2]int64{b.Cols[0].Int64[i], b.Cols[1].Int64[i]}] += b.Weight(i)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func keysOf(ks ...int64) *row.Batch {
	b := row.NewBuilder([]row.Type{{Kind: row.BigInt, NotNull: true}})
	b.Reset()
	for _, k := range ks {
		b.Cols[0].Int64 = append(b.Cols[0].Int64, k)
		b.EndRow(1)
	}
	out := b.Seal()
	for i := range out.Len {
		out.Sel = append(out.Sel, int32(i))
	}
	return out
}

func state(t *testing.T, err error) string {
	t.Helper()
	var f *Fault
	if err == nil {
		return ""
	}
	if !errors.As(err, &f) {
		t.Fatal(err)
	}
	return f.State
}

// model is a transaction as a naive second answer: the rows of its snapshot with its changes, and what it depends on.
type model struct {
	tx    *Tx
	rows  []map[[2]int64]int64
	keys  map[int64]bool // of the keyed table that it depends on
	whole [2]bool
	snap  []map[[2]int64]int64 // before the first step
}

// TestRandomTransactions interleaves transactions with an engine that takes, shows and keeps what was accepted whenever it
// likes. Each reads its snapshot with its own changes, fails exactly if what it depends on was changed since, and what
// the engine has in the end is what the accepted ones made one after the other.
func TestRandomTransactions(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { randomTransactions(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func randomTransactions(t *testing.T, r *rand.Rand) {
	g := newEngine(t, Options{})
	head := []map[[2]int64]int64{{}, {}}
	type past struct {
		keys  map[int64]bool
		table [2]bool
	}
	var accepted []past // what each accepted transaction has changed
	begun := map[*model]int{}
	var open []*model
	conflicts := 0
	for range 800 {
		switch p := r.IntN(20); {
		case p < 3 && len(open) < 6:
			tx, err := g.s.Begin(t.Context(), g.pin, true, false)
			if err != nil {
				t.Fatal(err)
			}
			m := &model{tx: tx, rows: []map[[2]int64]int64{maps.Clone(head[0]), maps.Clone(head[1])}, keys: map[int64]bool{}}
			begun[m] = len(accepted)
			open = append(open, m)
		case p < 6:
			g.take()
		case p < 8:
			g.epoch(r.IntN(2) == 0)
		case len(open) > 0:
			i := r.IntN(len(open))
			m := open[i]
			if p < 10 {
				open = slices.Delete(open, i, i+1)
				if r.IntN(5) == 0 {
					m.tx.Rollback()
					continue
				}
				want := ""
				for _, a := range accepted[begun[m]:] {
					if m.whole[0] && a.table[0] || m.whole[1] && a.table[1] {
						want = stateConflict
					}
					for k := range m.keys {
						if a.keys[k] {
							want = stateConflict
						}
					}
				}
				if !m.tx.Written() {
					m.tx.Rollback()
					continue
				}
				_, err := m.tx.accept(t.Context())
				if got := state(t, err); got != want {
					t.Fatalf("accepted with %q, want %q", got, want)
				}
				if want == "" {
					a := past{keys: map[int64]bool{}}
					for n := range 2 {
						snapshot := m.before(n)
						for row := range union(snapshot, m.rows[n]) {
							d := m.rows[n][row] - snapshot[row]
							if d == 0 {
								continue
							}
							a.table[n] = true
							if n == 0 {
								a.keys[row[0]] = true
							}
							if head[n][row] += d; head[n][row] == 0 {
								delete(head[n], row)
							}
						}
					}
					accepted = append(accepted, a)
				} else {
					conflicts++
				}
				m.tx.Rollback()
				continue
			}
			m.step(t, r)
		}
	}
	for _, m := range open {
		m.tx.Rollback()
	}
	g.take()
	g.epoch(true)
	for n := range 2 {
		if !maps.Equal(g.now[n], head[n]) {
			t.Fatalf("table %d has\n%v\nwant\n%v", n, g.now[n], head[n])
		}
	}
	if len(accepted) < 10 || conflicts == 0 {
		t.Errorf("%d transactions, %d conflicts", len(accepted), conflicts)
	}
	if len(g.s.mu.trail) > 0 || g.s.mu.bytes != 0 || len(g.s.mu.over[0].rows)+len(g.s.mu.over[1].rows) > 0 || len(g.s.mu.open) > 0 {
		t.Errorf("kept for nobody: %d steps, %d bytes, %d open", len(g.s.mu.trail), g.s.mu.bytes, len(g.s.mu.open))
	}
}

func union(a, b map[[2]int64]int64) map[[2]int64]bool {
	out := map[[2]int64]bool{}
	for r := range a {
		out[r] = true
	}
	for r := range b {
		out[r] = true
	}
	return out
}

// before is the snapshot of a table: what the transaction would see if it had written nothing.
func (m *model) before(n int) map[[2]int64]int64 {
	if m.snap == nil {
		return m.rows[n]
	}
	return m.snap[n]
}

// step reads or writes something.
func (m *model) step(t *testing.T, r *rand.Rand) {
	t.Helper()
	if m.snap == nil {
		m.snap = []map[[2]int64]int64{maps.Clone(m.rows[0]), maps.Clone(m.rows[1])}
	}
	ctx := t.Context()
	k := r.Int64N(12)
	var old [2]int64
	exists := false
	for row := range m.rows[0] {
		if row[0] == k {
			old, exists = row, true
		}
	}
	one := func() map[[2]int64]int64 {
		got := sees(t, m.tx, 0, keysOf(k, k), true)
		m.keys[k] = true
		want := map[[2]int64]int64{}
		if exists {
			want[old] = 1
		}
		if !maps.Equal(got, want) {
			t.Fatalf("key %d: %v, want %v", k, got, want)
		}
		return got
	}
	check := func(n int, depends bool) {
		if got := sees(t, m.tx, n, nil, depends); !maps.Equal(got, m.rows[n]) {
			t.Fatalf("table %d: %v, want %v", n, got, m.rows[n])
		}
		m.whole[n] = m.whole[n] || depends
	}
	fresh := [2]int64{k, r.Int64N(4)}
	switch r.IntN(8) {
	case 0, 1:
		added, there, err := m.tx.Insert(ctx, 0, batch(fresh))
		if err != nil || exists != (len(there.At) == 1) || exists == (added == 1) {
			t.Fatalf("insert %v: %d, %v, %v", fresh, added, there, err)
		}
		m.keys[k] = true
		if !exists {
			m.rows[0][fresh] = 1
		}
	case 2, 3:
		if one(); exists {
			if _, err := m.tx.Update(ctx, 0, []*row.Batch{pairs([][2]int64{old}, [][2]int64{fresh})}, true); err != nil {
				t.Fatal(err)
			}
			delete(m.rows[0], old)
			m.rows[0][fresh] = 1
		}
	case 4:
		if one(); exists {
			if n, err := m.tx.Delete(0, []*row.Batch{batch(old)}); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			delete(m.rows[0], old)
		}
	case 5:
		if _, _, err := m.tx.Insert(ctx, 1, batch(fresh, fresh)); err != nil {
			t.Fatal(err)
		}
		m.rows[1][fresh] += 2
	case 6:
		check(1, true)
		for x := range m.rows[1] {
			if _, err := m.tx.Delete(1, []*row.Batch{batch(x)}); err != nil {
				t.Fatal(err)
			}
			if m.rows[1][x]--; m.rows[1][x] == 0 {
				delete(m.rows[1], x)
			}
			break
		}
	default:
		check(0, r.IntN(4) == 0)
		check(1, false)
	}
}
