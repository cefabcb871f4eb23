package conform

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
)

// SourceHarness is a database that Sources read. Each case gets a fresh one.
type SourceHarness struct {
	// New makes a reader of the database's one slot, as another process would. Readers that came before were closed.
	New    func(t testing.TB) dataflow.Source
	Create func(t testing.TB, tables ...Table)
	// Begin starts a transaction. It is called from several goroutines at once.
	Begin func(t testing.TB) Transaction
	// Look reads tables at one moment, as an outsider.
	Look func(t testing.TB) map[string][]Row
	// Slot is the position behind which the database still keeps its log, comparable with stored positions by Passed.
	Slot func(t testing.TB) string
	// Passed tells whether position a is at or behind b.
	Passed func(a, b string) bool
	// MoveSlot moves the slot to the log's end, as somebody else who reads it would. No reader is connected.
	MoveSlot func(t testing.TB)
	// Settled returns after a position confirmed before would have moved the slot.
	Settled func(t testing.TB)
}

// Transaction is one that the suite writes.
type Transaction interface {
	Do(changes ...Change)
	Savepoint(name string)
	RollbackTo(name string)
	Commit()
	Rollback()
}

// Source runs every case against databases made by open.
func Source(t *testing.T, open func(t *testing.T) SourceHarness) {
	for _, c := range sourceCases {
		t.Run(c.name, func(t *testing.T) { c.run(newSubject(t, open(t))) })
	}
}

// SourceCase is one case of the suite.
type SourceCase struct {
	name string
	run  func(*subject)
}

// SourceCases lists the cases, for callers that give each a bubble of its own.
func SourceCases() []SourceCase { return sourceCases }

// Name is the case's name.
func (c SourceCase) Name() string { return c.name }

// Run runs it.
func (c SourceCase) Run(t testing.TB, h SourceHarness) { c.run(newSubject(t, h)) }

var sourceCases = []SourceCase{
	{"CopyAndStream", copyAndStream},
	{"CopyResumed", copyResumed},
	{"RestartReadsExactly", restartReadsExactly},
	{"OnlyConfirmMovesSlot", onlyConfirmMovesSlot},
	{"GapRefused", gapRefused},
	{"RolledBack", rolledBack},
	{"BoundaryOutsideTransactions", boundaryOutsideTransactions},
	{"ReadEndsWithContext", readEndsWithContext},
}

// accounts and moves are the two halves of a bank: a transfer changes both or neither.
var (
	accounts = Table{Name: "accounts", Columns: []Column{{"id", Int, true}, {"balance", Int, false}}}
	moves    = Table{Name: "moves", Columns: []Column{{"id", Int, true}, {"amount", Int, false}}}
)

// subject reads a Source as the worker does, and keeps what a target would.
type subject struct {
	testing.TB
	h      SourceHarness
	source dataflow.Source
	state  dataflow.State
	mirror *mirror
	// stored is the mirror as of state: rows behind the last boundary are not in it.
	pending []dataflow.StateChange
}

func newSubject(t testing.TB, h SourceHarness) *subject {
	s := &subject{TB: t, h: h, state: dataflow.State{}}
	h.Create(t, items, plain, accounts, moves)
	s.mirror = newMirror(items, plain, accounts, moves)
	t.Cleanup(s.close)
	return s
}

func (s *subject) ctx() context.Context { return context.Background() }

func (s *subject) close() {
	if s.source != nil {
		_ = s.source.Close(s.ctx()) // a broken connection cannot say goodbye
		s.source = nil
	}
}

// open opens the source at what is stored. What was read behind that is forgotten by the caller.
func (s *subject) open() {
	s.Helper()
	s.close()
	s.source = s.h.New(s)
	if err := s.source.Open(s.ctx(), maps.Clone(s.state)); err != nil {
		s.source = nil
		s.Fatalf("open: %v", err)
	}
	s.pending = nil
}

func (s *subject) store(changes []dataflow.StateChange) {
	for _, c := range changes {
		if c.Value == nil {
			delete(s.state, c.Key)
		} else {
			s.state[c.Key] = slices.Clone(c.Value)
		}
	}
}

// copy runs the first copy, at most limit ranges of it; false: something is left.
func (s *subject) copy(limit int) bool {
	s.Helper()
	copier, ok := s.source.(dataflow.Copier)
	if !ok {
		s.Fatal("the source has no first copy")
	}
	if copier.Copied() {
		return true
	}
	ranges, initial, err := copier.Ranges(s.ctx())
	if err != nil {
		s.Fatal(err)
	}
	s.store(initial)
	for i, r := range ranges {
		if i == limit {
			return false
		}
		st, err := copier.OpenRange(s.ctx(), i%2, r)
		if err != nil {
			s.Fatal(err)
		}
		var data []byte
		for {
			p, err := st.Next(s.ctx())
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				s.Fatal(err)
			}
			data = append(data, p...)
		}
		n, err := s.mirror.load(r.Rel.Name, st.Format(), st.Columns(), data)
		if err != nil {
			s.Fatal(err)
		}
		if n != st.Rows() {
			s.Fatalf("range %s gave %d rows and tells of %d", r.ID, n, st.Rows())
		}
		s.store(copier.RangeState(r, n))
		if err := st.Close(); err != nil {
			s.Fatal(err)
		}
	}
	state, err := copier.CopyDone(s.ctx())
	if err != nil {
		s.Fatal(err)
	}
	s.store(state)
	return true
}

// read applies one message; true: a cut may follow it, and its state is stored.
func (s *subject) read() bool {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx(), ackLimit)
	defer cancel()
	m, err := s.source.Read(ctx)
	if err != nil {
		s.Fatalf("read: %v", err)
	}
	if err := s.mirror.take(m); err != nil {
		s.Fatal(err)
	}
	s.pending = append(s.pending, m.State...)
	switch m.Kind {
	case dataflow.KindOpenRows, dataflow.KindOpenAbort:
		return false
	}
	if m.Boundary {
		s.store(s.pending)
		s.pending = nil
	}
	return m.Boundary
}

// until reads up to a boundary at which fn holds.
func (s *subject) until(fn func() bool) {
	s.Helper()
	for !s.read() || !fn() {
	}
}

func (s *subject) has(table string, id int) bool {
	return s.mirror.rows[table][Row{strconv.Itoa(id)}.Key([]int{0})] != nil
}

func (s *subject) equal(tables ...Table) {
	s.Helper()
	look := s.h.Look(s)
	for _, t := range tables {
		got, want := Lines(s.mirror.all(t.Name)), Lines(look[t.Name])
		if !slices.Equal(got, want) {
			s.Fatalf("table %s: %d rows, want %d\n  got  %.2000s\n  want %.2000s", t.Name, len(got), len(want), strings.Join(got, " "), strings.Join(want, " "))
		}
	}
}

func (s *subject) tx(changes ...Change) {
	s.Helper()
	tx := s.h.Begin(s)
	tx.Do(changes...)
	tx.Commit()
}

// load is writers at work: each has keys of its own, so they never wait for each other.
func (s *subject) writers(n int) (stop func()) {
	quit := make(chan struct{})
	var done sync.WaitGroup
	for w := range n {
		done.Add(1)
		go func() {
			defer done.Done()
			base := (w + 1) * 1_000_000
			live := []Row{}
			for i := 0; ; i++ {
				select {
				case <-quit:
					return
				default:
				}
				tx := s.h.Begin(s)
				id := strconv.Itoa(base + i)
				row := Row{id, "w" + id, Null}
				tx.Do(Insert(items, row...), Insert(plain, "1", "same"))
				// Rows that were there before the copy change and go as well.
				old := strconv.Itoa(1 + w + n*(i%50))
				tx.Do(Update(items, nil, old, "changed "+id, Null))
				before := slices.Clone(live)
				live = append(live, row)
				if i%5 == 4 {
					tx.Do(Delete(items, live[0]...))
					live = live[1:]
				}
				if i%7 == 6 {
					moved := Row{strconv.Itoa(-base - i), "moved", Null}
					tx.Do(Move(items, live[0], moved...))
					live[0] = moved
				}
				if i%3 == 2 {
					tx.Do(Delete(plain, "1", "same"))
				}
				if i%11 == 10 {
					tx.Rollback()
					live = before
					continue
				}
				tx.Commit()
			}
		}()
	}
	return func() { close(quit); done.Wait() }
}

func (s *subject) seed(rows int) {
	s.Helper()
	tx := s.h.Begin(s)
	for i := 1; i <= rows; i++ {
		tx.Do(Insert(items, strconv.Itoa(i), "seed", Null))
	}
	tx.Do(Insert(plain, "1", "same"), Insert(plain, "1", "same"), Insert(plain, "2", Null))
	tx.Commit()
}

// marker writes a row that nobody else does and reads up to it.
func (s *subject) marker(id int) {
	s.Helper()
	s.tx(Insert(items, strconv.Itoa(id), "marker", Null))
	s.until(func() bool { return s.has("items", id) })
}

func copyAndStream(s *subject) {
	s.seed(300)
	stop := s.writers(3)
	s.open()
	if !s.copy(1 << 30) {
		s.Fatal("the copy is not complete")
	}
	for range 20 {
		s.read()
	}
	stop()
	s.marker(90_000_000)
	s.equal(items, plain)
	// A second reader begins behind what is stored and finds nothing to copy.
	s.open()
	s.copy(0)
	s.marker(90_000_001)
	s.equal(items, plain)
}

func copyResumed(s *subject) {
	s.seed(300)
	stop := s.writers(2)
	s.open()
	if s.copy(1) {
		s.Fatal("there was one range only")
	}
	// The process dies; what is left is copied under a later view.
	s.open()
	s.copy(1 << 30)
	for range 10 {
		s.read()
	}
	s.discard()
	s.open()
	s.copy(0)
	stop()
	s.marker(90_000_000)
	s.equal(items, plain)
}

// discard reads on to a boundary, because what the mirror holds must be what the state says.
func (s *subject) discard() {
	s.Helper()
	for !s.read() {
	}
}

func restartReadsExactly(s *subject) {
	s.open()
	s.copy(1 << 30)
	const txs = 60
	for i := range txs {
		s.tx(Insert(items, strconv.Itoa(i), "v", Null), Insert(plain, strconv.Itoa(i), "once"))
	}
	// Whatever was read twice would be inserted twice, and whatever was skipped be missing.
	for restart := range 6 {
		for i := range restart {
			// Something unread is there to be waited for.
			s.tx(Insert(items, strconv.Itoa(2000+10*restart+i), "awaited", Null))
			s.discard()
		}
		s.open()
		s.copy(0)
		s.tx(Insert(items, strconv.Itoa(1000+restart), "between", Null))
	}
	s.marker(90_000_000)
	s.equal(items, plain)
	if n := len(s.mirror.all("plain")); n != txs {
		s.Fatalf("%d rows of %d transactions", n, txs)
	}
}

func onlyConfirmMovesSlot(s *subject) {
	s.open()
	s.copy(1 << 30)
	start := s.h.Slot(s)
	s.marker(1)
	first := string(s.state["position"])
	s.h.Settled(s)
	if got := s.h.Slot(s); got != start {
		s.Fatalf("the slot moved from %s to %s, and nothing was confirmed", start, got)
	}
	s.marker(2)
	s.source.Confirm([]dataflow.StateChange{{Key: "other"}, {Key: "position", Value: []byte(first)}})
	limit := time.NewTimer(ackLimit)
	defer limit.Stop()
	for !s.h.Passed(s.h.Slot(s), first) {
		select {
		case <-limit.C:
			s.Fatalf("confirmed %s, and the slot stays at %s", first, s.h.Slot(s))
		default:
			s.h.Settled(s)
		}
	}
	if got := s.h.Slot(s); s.h.Passed(got, string(s.state["position"])) {
		s.Fatalf("confirmed %s, and the slot moved to %s, which was only read", first, got)
	}
	// A position that is older does no harm.
	s.source.Confirm(position(start))
	s.h.Settled(s)
	if got := s.h.Slot(s); !s.h.Passed(got, first) {
		s.Fatalf("the slot went back from %s to %s", first, got)
	}
}

func gapRefused(s *subject) {
	s.open()
	s.copy(1 << 30)
	s.marker(1)
	s.close()
	s.tx(Insert(items, "2", "lost", Null))
	s.h.MoveSlot(s)
	late := s.h.New(s)
	if err := late.Open(s.ctx(), maps.Clone(s.state)); !errs.Is(err, errs.SlotGap) {
		s.Fatalf("the log between %s and %s is gone: %v", s.state["position"], s.h.Slot(s), err)
	}
}

func rolledBack(s *subject) {
	s.open()
	s.copy(1 << 30)
	filler := strings.Repeat("x", 200)
	for _, rows := range []int{2, 600} { // the second kind is large enough to be sent while it is open
		base := rows * 1000
		many := func(tx Transaction, from int, v string) {
			var changes []Change
			for i := range rows {
				changes = append(changes, Insert(items, strconv.Itoa(base+from+i), v, filler))
			}
			tx.Do(changes...)
		}
		whole := s.h.Begin(s)
		many(whole, 0, "never")
		whole.Rollback()

		tx := s.h.Begin(s)
		many(tx, 10_000, "kept")
		tx.Savepoint("a")
		many(tx, 20_000, "rolled back")
		tx.Do(Update(items, nil, strconv.Itoa(base+10_000), "rolled back", filler), Delete(items, strconv.Itoa(base+10_001), "", ""))
		tx.Savepoint("b")
		many(tx, 30_000, "rolled back with a")
		tx.RollbackTo("a")
		many(tx, 40_000, "kept too")
		tx.Savepoint("c")
		many(tx, 50_000, "and this")
		tx.Commit()
	}
	s.marker(90_000_000)
	s.equal(items)
	for _, r := range s.mirror.all("items") {
		if strings.HasPrefix(r[1], "rolled back") || r[1] == "never" {
			s.Fatalf("row %s was rolled back", r)
		}
	}
	if len(s.mirror.open) > 0 {
		s.Fatalf("%d transactions are still open", len(s.mirror.open))
	}
}

func boundaryOutsideTransactions(s *subject) {
	const n, start = 8, 100
	seed := s.h.Begin(s)
	for i := range n {
		seed.Do(Insert(accounts, strconv.Itoa(i), strconv.Itoa(start)))
	}
	seed.Commit()
	s.open()
	s.copy(1 << 30)
	total := func() int {
		sum := 0
		for _, table := range []string{"accounts", "moves"} {
			for _, r := range s.mirror.all(table) {
				v, err := strconv.Atoi(r[1])
				if err != nil {
					s.Fatal(err)
				}
				sum += v
			}
		}
		return sum
	}
	var writers sync.WaitGroup
	const each = 60
	for w := range 3 {
		writers.Add(1)
		go func() {
			defer writers.Done()
			// Accounts w and w+3 are this writer's: money leaves them piece by piece.
			for i := 1; i <= each; i++ {
				size := 1
				if i%20 == 0 {
					size = 700 // more than one message
				}
				tx := s.h.Begin(s)
				tx.Do(Update(accounts, nil, strconv.Itoa(w), strconv.Itoa(start-i)))
				var changes []Change
				for j := range size {
					amount := 0
					if j == size-1 {
						amount = 1
					}
					changes = append(changes, Insert(moves, strconv.Itoa(w*10_000_000+i*10_000+j), strconv.Itoa(amount)))
				}
				tx.Do(changes...)
				tx.Commit()
			}
		}()
	}
	last := func(w int) bool {
		r := s.mirror.rows["accounts"][Row{strconv.Itoa(w)}.Key([]int{0})]
		return r != nil && r[1] == strconv.Itoa(start-each)
	}
	s.until(func() bool {
		if sum := total(); sum != n*start {
			s.Fatalf("at position %s the bank holds %d of %d", s.state["position"], sum, n*start)
		}
		return last(0) && last(1) && last(2)
	})
	writers.Wait()
	s.equal(accounts, moves)
}

func readEndsWithContext(s *subject) {
	s.open()
	s.copy(1 << 30)
	s.marker(1)
	ctx, cancel := context.WithCancel(s.ctx())
	ended := make(chan error, 1)
	go func() {
		for {
			m, err := s.source.Read(ctx)
			m.Rows.Release()
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	cancel()
	limit := time.NewTimer(ackLimit)
	defer limit.Stop()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			s.Fatalf("read: %v", err)
		}
	case <-limit.C:
		s.Fatal("the read goes on though its context ended")
	}
	s.close() // returns although a read was cut short
	if s.source != nil {
		s.Fatal("not closed")
	}
	s.open()
	s.copy(0)
	s.marker(2)
	s.equal(items)
}
