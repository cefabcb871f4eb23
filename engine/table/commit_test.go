package table

import (
	"context"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/row"
)

func (g *engine) begin() *Tx {
	g.t.Helper()
	tx, err := g.s.Begin(g.t.Context(), g.pin, true, false)
	if err != nil {
		g.t.Fatal(err)
	}
	return tx
}

func (g *engine) insert(tx *Tx, rows ...[2]int64) {
	g.t.Helper()
	if _, there, err := tx.Insert(g.t.Context(), 0, batch(rows...)); err != nil || len(there.At) > 0 {
		g.t.Fatal(there, err)
	}
}

// commits begins a commit and returns when it is accepted.
func (g *engine) commits(ctx context.Context, tx *Tx) chan error {
	g.t.Helper()
	done := make(chan error, 1)
	before := g.s.head()
	go func() { done <- tx.Commit(ctx) }()
	for g.s.head() == before {
		select {
		case err := <-done:
			g.t.Fatalf("ended with %v", err)
		default:
		}
	}
	return done
}

func (s *Sequencer) head() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.head
}

// TestCommit: a commit ends when a checkpoint has it, and not when it is visible; those that wait go together.
func TestCommit(t *testing.T) {
	g := newEngine(t, Options{})
	a, b := g.begin(), g.begin()
	g.insert(a, [2]int64{1, 1})
	g.insert(b, [2]int64{2, 2})
	first := g.commits(t.Context(), a)
	g.take()
	g.epoch(false)
	second := g.commits(t.Context(), b)
	g.take()
	select {
	case err := <-first:
		t.Fatalf("a commit ended with %v before it was durable", err)
	default:
	}
	g.epoch(true)
	for _, done := range []chan error{first, second} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	// Nothing changed: nothing to wait for.
	c := g.begin()
	if got := sees(t, c, 0, keysOf(1, 5), true); len(got) != 1 {
		t.Error(got)
	}
	if err := c.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	// Who does not want to wait, and who waits when the pipeline ends, does not know how it will be.
	ctx, cancel := context.WithCancel(t.Context())
	d, e := g.begin(), g.begin()
	g.insert(d, [2]int64{3, 3})
	g.insert(e, [2]int64{4, 4})
	third, fourth := g.commits(ctx, d), g.commits(t.Context(), e)
	cancel()
	if got := state(t, <-third); got != stateUnknown {
		t.Errorf("canceled: %q", got)
	}
	f := g.begin()
	g.insert(f, [2]int64{5, 5})
	if err := g.s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := state(t, <-fourth); got != stateUnknown {
		t.Errorf("ended: %q", got)
	}
	if got := state(t, f.Commit(t.Context())); got != stateEnded {
		t.Errorf("behind the end: %q", got)
	}
}

// TestFirst: one that has lost too often goes first, and the others wait for it.
func TestFirst(t *testing.T) {
	g := newEngine(t, Options{})
	first, err := g.s.Begin(t.Context(), g.pin, true, true)
	if err != nil {
		t.Fatal(err)
	}
	other := g.begin()
	g.insert(other, [2]int64{1, 1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := other.accept(ctx); err == nil {
		t.Error("another was accepted before the one that goes first")
	}
	g.insert(first, [2]int64{1, 2})
	if _, err := first.accept(t.Context()); err != nil {
		t.Error(err)
	}
	first.Rollback()
	if _, err := other.accept(t.Context()); state(t, err) != stateConflict {
		t.Errorf("the other: %v", err)
	}
	other.Rollback()
}

// TestLimits: a transaction that keeps too much, and one for which too much is kept, end.
func TestLimits(t *testing.T) {
	g := newEngine(t, Options{TxBytes: 10_000, KeptBytes: 4_000})
	big := g.begin()
	var err error
	for k := int64(0); err == nil; k++ {
		_, _, err = big.Insert(t.Context(), 0, batch([2]int64{k, k}))
	}
	if state(t, err) != stateTooLarge {
		t.Error(err)
	}
	big.Rollback()
	old := g.begin()
	for k := int64(0); k < 40; k++ {
		tx := g.begin()
		g.insert(tx, [2]int64{k, k})
		if _, err := tx.accept(t.Context()); err != nil {
			t.Fatal(err)
		}
		tx.Rollback()
		g.take()
		g.epoch(true)
	}
	if err := old.Read(t.Context(), 0, nil, false, func(*row.Batch) error { return nil }); state(t, err) != stateTooOld {
		t.Errorf("the old one: %v", err)
	}
	old.Rollback()
	// While nothing is durable of what was accepted, the next waits.
	var done []chan error
	for k := int64(100); k < 125; k++ {
		tx := g.begin()
		g.insert(tx, [2]int64{k, k})
		g.s.mu.Lock()
		full := g.s.mu.bytes > g.s.opts.KeptBytes
		g.s.mu.Unlock()
		if full {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := tx.accept(ctx); err == nil {
				t.Error("accepted beyond what may be kept")
			}
			tx.Rollback()
			break
		}
		done = append(done, g.commits(t.Context(), tx))
	}
	g.take()
	g.epoch(true)
	for _, d := range done {
		if err := <-d; err != nil {
			t.Error(err)
		}
	}
}

// TestLateBegin: an epoch behind which newer ones have become visible is pinned again.
func TestLateBegin(t *testing.T) {
	g := newEngine(t, Options{})
	pins := 0
	tx, err := g.s.Begin(t.Context(), func(ctx context.Context) (Base, error) {
		b, err := g.pin(ctx)
		if pins++; pins == 1 {
			other := g.begin()
			g.insert(other, [2]int64{1, 1})
			if _, err := other.accept(ctx); err != nil {
				t.Fatal(err)
			}
			other.Rollback()
			g.take()
			g.epoch(true)
		}
		return b, err
	}, false, false)
	if err != nil || pins != 2 {
		t.Fatal(pins, err)
	}
	if got := sees(t, tx, 0, keysOf(1), true); len(got) != 1 {
		t.Errorf("it sees %v", got)
	}
	tx.Rollback()
}

// TestRefusals are the errors that Postgres has, in its words.
func TestRefusals(t *testing.T) {
	g := newEngine(t, Options{})
	tx := g.begin()
	g.insert(tx, [2]int64{7, 1})
	b := batch([2]int64{7, 2})
	_, there, err := tx.Insert(t.Context(), 0, b)
	if err != nil || len(there.At) != 1 || there.Rows.Cols[1].Int64[0] != 1 {
		t.Fatal(there, err)
	}
	dup := tx.Duplicate(0, b, 0).(*Fault)
	if dup.Message != `duplicate key value violates unique constraint "keyed_pkey"` || dup.Detail != "Key (a)=(7) already exists." {
		t.Errorf("%+v", dup)
	}
	null := batch([2]int64{8, 0})
	null.Cols[1].SetNull(0, 1)
	if _, _, err := tx.Insert(t.Context(), 1, null); state(t, err) != stateNotNull || !strings.Contains(err.(*Fault).Detail, "(8, null)") {
		t.Errorf("%v", err)
	}
	// Keys may be exchanged, and not be taken from others.
	g.insert(tx, [2]int64{8, 2})
	if _, err := tx.Update(t.Context(), 0, []*row.Batch{pairs([][2]int64{{7, 1}, {8, 2}}, [][2]int64{{8, 1}, {7, 2}})}, false); err != nil {
		t.Error(err)
	}
	if _, err := tx.Update(t.Context(), 0, []*row.Batch{pairs([][2]int64{{7, 2}}, [][2]int64{{8, 2}})}, false); state(t, err) != stateUnique {
		t.Error(err)
	}
	tx.Rollback()
	tx.Rollback()
}
