package conform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
)

// TargetHarness is a database that Targets write to. Each case gets a fresh one.
type TargetHarness struct {
	// New makes a Target on the database, as another process would: nothing is shared with earlier ones but what a
	// restart within the process keeps. A Target holds at most BatchBytes before it sends.
	New        func(t testing.TB) dataflow.Target
	BatchBytes int
	Create     func(t testing.TB, tables ...Table)
	// Look reads all at one moment, as somebody who knows nothing of the Target.
	Look func(t testing.TB) View
	// LoseReply makes the next commit's reply vanish: it takes effect, and the connection breaks before the word of it
	// arrives. Cut breaks every connection now.
	LoseReply func(t testing.TB)
	Cut       func(t testing.TB)
}

// View is what an outsider sees of the database at one moment.
type View struct {
	Checkpoint dataflow.Checkpoint
	State      dataflow.State
	Rows       map[string][]Row // by table name, all columns
}

// ackLimit is how long a Target may take for a word. It is virtual time under synctest.
const ackLimit = 30 * time.Second

// Target runs every case against databases made by open.
func Target(t *testing.T, open func(t *testing.T) TargetHarness) {
	for _, c := range targetCases {
		t.Run(c.name, func(t *testing.T) { c.run(newWriter(t, open(t))) })
	}
}

// TargetCases lists the cases, for callers that give each a bubble of its own.
func TargetCases() []TargetCase { return targetCases }

// TargetCase is one case of the suite.
type TargetCase struct {
	name string
	run  func(*writer)
}

// Name is the case's name.
func (c TargetCase) Name() string { return c.name }

// Run runs it.
func (c TargetCase) Run(t testing.TB, h TargetHarness) { c.run(newWriter(t, h)) }

var targetCases = []TargetCase{
	{"NothingBeforeCommit", nothingBeforeCommit},
	{"RowsAndStateAtOnce", rowsAndStateAtOnce},
	{"AckOrder", ackOrder},
	{"OlderGenerationRefused", olderGenerationRefused},
	{"ZombieRefused", zombieRefused},
	{"LostReply", lostReply},
	{"CutBeforeCommit", cutBeforeCommit},
	{"CommitNumbers", commitNumbers},
	{"StateDeleted", stateDeleted},
	{"OpenTransaction", openTransaction},
	{"OpenTransactionAborted", openTransactionAborted},
	{"OpenTransactionLost", openTransactionLost},
	{"Truncate", truncate},
	{"KeyChange", keyChange},
	{"OneKeyOneEpoch", oneKeyOneEpoch},
	{"UniqueSwap", uniqueSwap},
	{"UnsentKept", unsentKept},
	{"KeylessTouchesOne", keylessTouchesOne},
	{"LargerThanBatch", largerThanBatch},
	{"ChunkReplaces", chunkReplaces},
	{"Load", load},
	{"RandomEpochs", randomEpochs},
}

// The tables of the cases.
var (
	items = Table{Name: "items", Columns: []Column{{"id", Int, true}, {"v", Text, false}, {"big", Text, false}}}
	other = Table{Name: "other", Columns: []Column{{"id", Int, true}, {"v", Text, false}}}
	plain = Table{Name: "plain", Columns: []Column{{"n", Int, false}, {"v", Text, false}}}
	slots = Table{Name: "slots", Columns: []Column{{"id", Int, true}, {"place", Text, false}}, Unique: [][]string{{"place"}}}
)

// writer drives a Target as the worker does.
type writer struct {
	testing.TB
	h      TargetHarness
	target dataflow.Target
	gen    dataflow.Generation
	last   dataflow.Checkpoint
	seen   dataflow.Checkpoint // acknowledged as visible
	stored dataflow.Checkpoint // acknowledged as durable
	rels   Relations
	pool   *changelog.Pool
}

func newWriter(t testing.TB, h TargetHarness) *writer {
	h.Create(t, items, other, plain, slots)
	w := &writer{TB: t, h: h, pool: &changelog.Pool{}}
	w.open()
	// The last one opened is closed; those before were closed when they were replaced.
	t.Cleanup(func() { w.close() })
	return w
}

func (w *writer) ctx() context.Context { return context.Background() }

// open opens the next generation.
func (w *writer) open() dataflow.Restored {
	w.Helper()
	w.gen++
	w.target = w.h.New(w)
	r, err := w.target.Open(w.ctx(), w.gen)
	if err != nil {
		w.Fatalf("open generation %d: %v", w.gen, err)
	}
	w.last, w.seen, w.stored = r.Checkpoint, r.Checkpoint, r.Checkpoint
	return r
}

func (w *writer) close() {
	if w.target != nil {
		_ = w.target.Close(w.ctx()) // a broken connection cannot say goodbye
		w.target = nil
	}
}

func (w *writer) reopen() dataflow.Restored {
	w.Helper()
	w.close()
	return w.open()
}

func (w *writer) batch(changes ...Change) *changelog.Rows {
	rows := w.pool.Get()
	for _, c := range changes {
		w.rels.Append(rows, c)
	}
	return rows
}

func (w *writer) write(changes ...Change) {
	w.Helper()
	w.send(dataflow.Message{Kind: dataflow.KindRows, Rows: w.batch(changes...), Boundary: true})
}

func (w *writer) send(m dataflow.Message) {
	w.Helper()
	if err := w.target.Write(w.ctx(), m); err != nil {
		w.Fatalf("write: %v", err)
	}
}

// begin hands a cut over without waiting for its outcome.
func (w *writer) begin(state ...dataflow.StateChange) error {
	if len(state) == 0 {
		state = position(fmt.Sprint(w.last + 1))
	}
	err := w.target.Commit(w.ctx(), dataflow.Cut{Checkpoint: w.last + 1, Clock: time.Now(), State: state})
	if err == nil {
		w.last++
	}
	return err
}

func position(v string) []dataflow.StateChange {
	return []dataflow.StateChange{{Key: "position", Value: []byte(v)}}
}

// next takes the Target's next word.
func (w *writer) next() (dataflow.Ack, bool) {
	w.Helper()
	limit := time.NewTimer(ackLimit)
	defer limit.Stop()
	select {
	case a, ok := <-w.target.Acks():
		if ok && a.Err == nil {
			w.checkAck(a)
		}
		return a, ok
	case <-limit.C:
		w.Fatalf("no word of the target for %s; %d is visible and %d durable of %d", ackLimit, w.seen, w.stored, w.last)
	}
	panic("not reached")
}

func (w *writer) checkAck(a dataflow.Ack) {
	w.Helper()
	if a.Durable {
		if a.Checkpoint <= w.stored || a.Checkpoint > w.seen {
			w.Fatalf("checkpoint %d is durable after %d, when %d is visible", a.Checkpoint, w.stored, w.seen)
		}
		w.stored = a.Checkpoint
		return
	}
	if a.Checkpoint != w.seen+1 || a.Checkpoint > w.last {
		w.Fatalf("checkpoint %d is visible after %d; %d were committed", a.Checkpoint, w.seen, w.last)
	}
	w.seen = a.Checkpoint
}

// settle waits until the last cut is visible.
func (w *writer) settle() error {
	w.Helper()
	for w.seen < w.last {
		a, ok := w.next()
		if !ok {
			return errors.New("the target closed")
		}
		if a.Err != nil {
			return a.Err
		}
	}
	return nil
}

func (w *writer) commit(changes ...Change) {
	w.Helper()
	if len(changes) > 0 {
		w.write(changes...)
	}
	if err := w.begin(); err != nil {
		w.Fatalf("commit: %v", err)
	}
	if err := w.settle(); err != nil {
		w.Fatalf("commit: %v", err)
	}
}

// fails waits until the Target tells that it failed: by an error of Commit, or by a word about it.
func (w *writer) fails(err error) error {
	w.Helper()
	for err == nil {
		a, ok := w.next()
		if !ok {
			w.Fatal("the target closed instead of telling its error")
		}
		err = a.Err
	}
	return err
}

func (w *writer) want(t Table, rows ...Row) {
	w.Helper()
	got := Lines(w.h.Look(w).Rows[t.Name])
	if want := Lines(rows); !slices.Equal(got, want) {
		w.Fatalf("table %s:\n  got  %s\n  want %s", t.Name, strings.Join(got, " "), strings.Join(want, " "))
	}
}

func nothingBeforeCommit(w *writer) {
	var rows []Row
	for i := range 200 {
		row := Row{strconv.Itoa(i), "v", strings.Repeat("x", w.h.BatchBytes/50)}
		rows = append(rows, row)
		w.write(Insert(items, row...), Insert(plain, row[0], "v"))
	}
	w.want(items)
	w.want(plain)
	if v := w.h.Look(w); v.Checkpoint != 0 || len(v.State) != 0 {
		w.Fatalf("before the commit: checkpoint %d, state %v", v.Checkpoint, v.State)
	}
	w.commit()
	w.want(items, rows...)
	if v := w.h.Look(w); v.Checkpoint != 1 || string(v.State["position"]) != "1" {
		w.Fatalf("behind the commit: checkpoint %d, state %v", v.Checkpoint, v.State)
	}
}

func rowsAndStateAtOnce(w *writer) {
	const cuts = 60
	check := func() dataflow.Checkpoint {
		v := w.h.Look(w)
		if n := int(v.Checkpoint); len(v.Rows["items"]) != n || len(v.Rows["other"]) != n || n > 0 && string(v.State["position"]) != fmt.Sprint(n) {
			w.Fatalf("checkpoint %d with position %q: %d items, %d other", n, v.State["position"], len(v.Rows["items"]), len(v.Rows["other"]))
		}
		return v.Checkpoint
	}
	for i := range cuts {
		id := strconv.Itoa(i)
		w.write(Insert(items, id, "v", Null))
		w.write(Insert(other, id, "v"))
		if err := w.begin(); err != nil {
			w.Fatal(err)
		}
		check() // while it is being applied
	}
	if err := w.settle(); err != nil {
		w.Fatal(err)
	}
	if n := check(); n != cuts {
		w.Fatalf("acknowledged as visible, and only %d is", n)
	}
}

func ackOrder(w *writer) {
	for i := range 30 {
		w.write(Insert(items, strconv.Itoa(i), "v", Null))
		if err := w.begin(); err != nil {
			w.Fatal(err)
		}
	}
	for w.stored < w.last { // next checks every word
		if a, ok := w.next(); !ok || a.Err != nil {
			w.Fatalf("%+v", a)
		}
	}
	if w.seen != 30 {
		w.Fatalf("visible %d of 30", w.seen)
	}
}

func olderGenerationRefused(w *writer) {
	w.commit(Insert(items, "1", "a", Null))
	w.reopen()
	w.reopen() // generation 3
	for gen := range w.gen + 1 {
		late := w.h.New(w)
		if _, err := late.Open(w.ctx(), gen); !errs.Is(err, errs.Fenced) {
			w.Fatalf("generation %d was opened behind %d: %v", gen, w.gen, err)
		}
	}
	w.commit(Insert(items, "2", "b", Null)) // the refused ones did no harm
	w.want(items, Row{"1", "a", Null}, Row{"2", "b", Null})
}

func zombieRefused(w *writer) {
	w.commit(Insert(items, "1", "a", Null))
	w.write(Insert(items, "2", "zombie", Null), Delete(items, "1", "a", Null))
	old := *w
	if r := w.open(); r.Checkpoint != 1 {
		w.Fatalf("restored %d", r.Checkpoint)
	}
	old.fails(old.begin(position("zombie")...))
	old.close()
	w.want(items, Row{"1", "a", Null})
	w.commit(Insert(items, "3", "c", Null))
	w.want(items, Row{"1", "a", Null}, Row{"3", "c", Null})
	if v := w.h.Look(w); string(v.State["position"]) != "2" || v.Checkpoint != 2 {
		w.Fatalf("checkpoint %d, position %q", v.Checkpoint, v.State["position"])
	}
}

func lostReply(w *writer) {
	w.commit(Insert(items, "1", "a", Null))
	w.write(Insert(items, "2", "b", Null))
	w.h.LoseReply(w)
	err := w.fails(w.begin())
	if _, named := errs.As(err); !named {
		w.Fatalf("the lost reply has no record: %v", err)
	}
	if r := w.reopen(); r.Checkpoint != 2 || string(r.State["position"]) != "2" {
		w.Fatalf("the commit took effect, and the ledger says %d, %q", r.Checkpoint, r.State["position"])
	}
	w.commit(Insert(items, "3", "c", Null))
	w.want(items, Row{"1", "a", Null}, Row{"2", "b", Null}, Row{"3", "c", Null})
}

func cutBeforeCommit(w *writer) {
	w.commit(Insert(items, "1", "a", Null))
	w.write(Insert(items, "2", "b", Null))
	w.h.Cut(w)
	w.fails(w.begin())
	if r := w.reopen(); r.Checkpoint != 1 || string(r.State["position"]) != "1" {
		w.Fatalf("nothing was committed, and the ledger says %d, %q", r.Checkpoint, r.State["position"])
	}
	w.want(items, Row{"1", "a", Null})
	w.commit(Insert(items, "2", "b", Null))
	w.want(items, Row{"1", "a", Null}, Row{"2", "b", Null})
}

func commitNumbers(w *writer) {
	w.commit()
	for _, n := range []dataflow.Checkpoint{0, 1, 3} {
		if err := w.target.Commit(w.ctx(), dataflow.Cut{Checkpoint: n, Clock: time.Now(), State: position("wrong")}); err == nil {
			w.Fatalf("checkpoint %d was taken behind 1", n)
		}
	}
	w.reopen()
	w.commit()
	if v := w.h.Look(w); v.Checkpoint != 2 || string(v.State["position"]) != "2" {
		w.Fatalf("checkpoint %d, position %q", v.Checkpoint, v.State["position"])
	}
}

func stateDeleted(w *writer) {
	odd := "a\"b\\c,{}é"
	if err := w.begin(dataflow.StateChange{Key: odd, Value: []byte{0, 1, 255}}, dataflow.StateChange{Key: "gone", Value: []byte("x")},
		dataflow.StateChange{Key: "empty", Value: []byte{}}); err != nil {
		w.Fatal(err)
	}
	if err := w.begin(dataflow.StateChange{Key: "gone"}, dataflow.StateChange{Key: "never"}); err != nil {
		w.Fatal(err)
	}
	if err := w.settle(); err != nil {
		w.Fatal(err)
	}
	r := w.reopen()
	if v, ok := r.State["empty"]; len(r.State) != 2 || string(r.State[odd]) != "\x00\x01\xff" || !ok || len(v) != 0 {
		w.Fatalf("state %q", r.State)
	}
}

func (w *writer) openRows(tx, sub uint32, changes ...Change) {
	w.Helper()
	w.send(dataflow.Message{Kind: dataflow.KindOpenRows, Tx: tx, Sub: sub, Rows: w.batch(changes...)})
}

func (w *writer) openAbort(tx, sub uint32) {
	w.Helper()
	w.send(dataflow.Message{Kind: dataflow.KindOpenAbort, Tx: tx, Sub: sub})
}

func (w *writer) openCommit(tx uint32) {
	w.Helper()
	w.send(dataflow.Message{Kind: dataflow.KindOpenCommit, Tx: tx, Boundary: true})
	w.commit()
}

func openTransaction(w *writer) {
	w.commit(Insert(items, "1", "a", Null))
	w.openRows(7, 7, Update(items, nil, "1", "ahead", Null), Insert(items, "2", "ahead", Null))
	w.openRows(7, 8, Insert(items, "3", "rolled back", Null), Update(items, nil, "2", "rolled back", Null))
	w.openRows(7, 9, Insert(items, "4", "rolled back with 8", Null))
	w.openAbort(7, 8)
	w.openRows(7, 10, Insert(items, "5", "kept", Null))
	w.openRows(7, 7, Insert(other, "5", "top"))
	w.want(items, Row{"1", "a", Null})
	// Others commit meanwhile.
	w.commit(Insert(other, "1", "between"))
	w.want(items, Row{"1", "a", Null})
	w.openCommit(7)
	w.want(items, Row{"1", "ahead", Null}, Row{"2", "ahead", Null}, Row{"5", "kept", Null})
	w.want(other, Row{"1", "between"}, Row{"5", "top"})
	w.commit(Update(items, nil, "5", "after", Null))
	w.openRows(11, 11, Insert(other, "9", "second")) // the connection is used again
	w.openCommit(11)
	w.want(other, Row{"1", "between"}, Row{"5", "top"}, Row{"9", "second"})
	if v := w.h.Look(w); v.Checkpoint != w.last {
		w.Fatalf("checkpoint %d of %d", v.Checkpoint, w.last)
	}
}

func openTransactionAborted(w *writer) {
	w.commit(Insert(items, "1", "a", Null))
	w.openRows(7, 7, Delete(items, "1", "a", Null))
	w.openRows(8, 8, Insert(other, "1", "of another"))
	w.openAbort(7, 7)
	w.commit(Update(items, nil, "1", "b", Null)) // needs what the aborted one had locked
	w.openCommit(8)
	w.openAbort(99, 99) // of a transaction that never sent anything
	w.openCommit(100)   // neither did this one: only its position is stored
	w.want(items, Row{"1", "b", Null})
	w.want(other, Row{"1", "of another"})
}

func openTransactionLost(w *writer) {
	w.commit(Insert(items, "1", "a", Null))
	w.openRows(7, 7, Insert(items, "2", "never committed", Null))
	if r := w.reopen(); r.Checkpoint != 1 {
		w.Fatalf("restored %d", r.Checkpoint)
	}
	w.want(items, Row{"1", "a", Null})
	w.openRows(7, 7, Insert(items, "2", "read again", Null))
	w.openCommit(7)
	w.want(items, Row{"1", "a", Null}, Row{"2", "read again", Null})
}

func (w *writer) truncate(tables ...Table) {
	w.Helper()
	tr := &changelog.Truncate{}
	for _, t := range tables {
		tr.Relations = append(tr.Relations, w.rels.Of(t))
	}
	w.send(dataflow.Message{Kind: dataflow.KindTruncate, Truncate: tr})
}

func truncate(w *writer) {
	w.commit(Insert(items, "1", "a", Null), Insert(other, "1", "a"), Insert(plain, "1", "a"))
	w.write(Insert(items, "2", "gone too", Null))
	w.truncate(items, plain)
	w.write(Insert(items, "1", "new", Null))
	w.want(items, Row{"1", "a", Null})
	w.commit()
	w.want(items, Row{"1", "new", Null})
	w.want(other, Row{"1", "a"})
	w.want(plain)
}

func keyChange(w *writer) {
	big := strings.Repeat("b", 3000)
	w.commit(Insert(items, "1", "a", big), Insert(items, "2", "b", big))
	w.commit(Move(items, Row{"1", "", ""}, "10", "moved", Unsent))
	w.want(items, Row{"10", "moved", big}, Row{"2", "b", big})
	// A chain in one epoch: 2 makes room, 10 takes its place, and a new row takes that of 10.
	w.commit(Move(items, Row{"2", "", ""}, "3", "b3", Unsent), Move(items, Row{"10", "", ""}, "2", "b2", Unsent), Insert(items, "10", "new", Null))
	w.want(items, Row{"3", "b3", big}, Row{"2", "b2", big}, Row{"10", "new", Null})
	// Moved, changed, moved back, and deleted.
	w.commit(Move(items, Row{"3", "", ""}, "4", "x", Unsent), Update(items, nil, "4", "y", Unsent), Move(items, Row{"4", "", ""}, "3", "z", Unsent),
		Move(items, Row{"10", "", ""}, "11", "w", Unsent), Delete(items, "11", "", ""))
	w.want(items, Row{"3", "z", big}, Row{"2", "b2", big})
}

func oneKeyOneEpoch(w *writer) {
	w.commit(Insert(items, "1", "a", Null), Insert(items, "5", "old", "kept"))
	w.commit(
		Insert(items, "2", "b", Null), Update(items, nil, "2", "c", Null), Delete(items, "2", "", ""),
		Delete(items, "1", "", ""), Insert(items, "1", "again", Null), Update(items, nil, "1", "last", Unsent),
		Insert(items, "3", "x", Null), Delete(items, "3", "", ""), Insert(items, "3", "y", Null),
		Update(items, nil, "5", "n1", Unsent), Update(items, nil, "5", "n2", Unsent))
	w.want(items, Row{"1", "last", Null}, Row{"3", "y", Null}, Row{"5", "n2", "kept"})
	w.commit(Update(items, nil, "5", "n3", "new big"), Update(items, nil, "5", "n4", Unsent), Delete(items, "3", "", ""), Insert(items, "3", "z", Null), Delete(items, "3", "", ""))
	w.want(items, Row{"1", "last", Null}, Row{"5", "n4", "new big"})
}

// uniqueSwap: no order of single updates avoids that the value is in two rows for a moment. A Target may find that out
// by failing once, with an error that says what collided; the next one of the pipeline must know better.
func uniqueSwap(w *writer) {
	w.commit(Insert(slots, "1", "a"), Insert(slots, "2", "b"), Insert(slots, "3", "c"))
	for round, swap := range [][]Change{
		{Update(slots, nil, "1", "tmp"), Update(slots, nil, "2", "a"), Update(slots, nil, "1", "b")},
		{Update(slots, nil, "1", "tmp"), Update(slots, nil, "3", "b"), Update(slots, nil, "2", "c"), Update(slots, nil, "1", "a")},
	} {
		for attempt := 0; ; attempt++ {
			w.write(swap...)
			err := w.begin()
			if err == nil {
				err = w.settle()
			}
			if err == nil {
				break
			}
			if !errs.Is(err, errs.TargetConflict) || attempt > 0 || round > 0 {
				w.Fatalf("round %d, attempt %d: %v", round, attempt, err)
			}
			if r := w.reopen(); r.Checkpoint != 1 {
				w.Fatalf("restored %d", r.Checkpoint)
			}
		}
	}
	w.want(slots, Row{"1", "a"}, Row{"2", "c"}, Row{"3", "b"})
	// A value passes from a row that goes to one that comes, and to one that stays.
	w.commit(Delete(slots, "1", ""), Insert(slots, "4", "a"), Delete(slots, "3", ""), Update(slots, nil, "2", "b"))
	w.want(slots, Row{"4", "a"}, Row{"2", "b"})
}

func unsentKept(w *writer) {
	big := strings.Repeat("t", 5000)
	w.commit(Insert(items, "1", "a", big), Insert(items, "2", "b", big), Insert(items, "3", "c", big))
	w.commit(Update(items, nil, "1", "a2", Unsent), Update(items, nil, "2", Unsent, "small"), Update(items, nil, "3", Unsent, Unsent))
	w.want(items, Row{"1", "a2", big}, Row{"2", "b", "small"}, Row{"3", "c", big})
	w.commit(Update(items, nil, "1", Null, Unsent), Update(items, nil, "1", Unsent, Null), Update(items, nil, "2", "x", Unsent), Update(items, nil, "2", Unsent, big))
	w.want(items, Row{"1", Null, Null}, Row{"2", "x", big}, Row{"3", "c", big})
}

func keylessTouchesOne(w *writer) {
	w.commit(Insert(plain, "1", "dup"), Insert(plain, "1", "dup"), Insert(plain, "1", "dup"), Insert(plain, "2", Null), Insert(plain, "2", Null))
	w.commit(Delete(plain, "1", "dup"), Update(plain, Row{"2", Null}, "2", "set"))
	w.want(plain, Row{"1", "dup"}, Row{"1", "dup"}, Row{"2", Null}, Row{"2", "set"})
	w.commit(Insert(plain, "1", "dup"), Update(plain, Row{"1", "dup"}, "3", "x"), Delete(plain, "1", "dup"), Delete(plain, "2", Null))
	w.want(plain, Row{"1", "dup"}, Row{"2", "set"}, Row{"3", "x"})
}

func largerThanBatch(w *writer) {
	rows := max(4*w.h.BatchBytes/100, 1000)
	filler := strings.Repeat("f", 60)
	for from := 0; from < rows; from += 500 {
		var changes []Change
		for i := from; i < min(from+500, rows); i++ {
			changes = append(changes, Insert(items, strconv.Itoa(i), filler, Null))
		}
		w.write(changes...)
	}
	w.want(items)
	// Changes of rows that were sent long before, in the same epoch.
	w.write(Update(items, nil, "0", "changed", Unsent), Delete(items, "1", "", ""), Move(items, Row{"2", "", ""}, "-2", "moved", Unsent))
	w.want(items)
	w.commit()
	got := w.h.Look(w).Rows["items"]
	lines := Lines(got)
	if len(got) != rows-1 || !slices.Contains(lines, "0|changed|NULL") || !slices.Contains(lines, "-2|moved|NULL") {
		w.Fatalf("%d rows of %d", len(got), rows-1)
	}
}

func chunkReplaces(w *writer) {
	w.commit(Insert(items, "1", "old", Null), Insert(items, "2", "old", Null), Insert(items, "3", "old", Null), Insert(items, "4", "old", Null))
	rel := w.rels.Of(items)
	w.send(dataflow.Message{Kind: dataflow.KindChunk, Chunk: &dataflow.Chunk{Rel: rel, Replace: true, Key: []string{"id"}, After: []string{"1"}, Through: []string{"3"}}})
	w.send(dataflow.Message{Kind: dataflow.KindRows, Rows: w.batch(Insert(items, "2", "copied", Null))})
	w.want(items, Row{"1", "old", Null}, Row{"2", "old", Null}, Row{"3", "old", Null}, Row{"4", "old", Null})
	w.commit()
	w.want(items, Row{"1", "old", Null}, Row{"2", "copied", Null}, Row{"4", "old", Null})
	w.send(dataflow.Message{Kind: dataflow.KindChunk, Chunk: &dataflow.Chunk{Rel: rel, Replace: true}, Rows: w.batch(Insert(items, "9", "all", Null))})
	w.commit()
	w.want(items, Row{"9", "all", Null})
}

// rangeText is a RangeStream over text.
type rangeText struct {
	cols   []string
	pieces []string
	rows   int64
	fail   error
}

func (r *rangeText) Format() string    { return "pgcopy-text" }
func (r *rangeText) Columns() []string { return r.cols }
func (r *rangeText) Rows() int64       { return r.rows }
func (r *rangeText) Close() error      { return nil }

func (r *rangeText) Next(context.Context) ([]byte, error) {
	if len(r.pieces) == 0 {
		if r.fail != nil {
			return nil, r.fail
		}
		return nil, io.EOF
	}
	p := r.pieces[0]
	r.pieces = r.pieces[1:]
	return []byte(p), nil
}

func load(w *writer) {
	loader, ok := w.target.(dataflow.Loader)
	if !ok {
		w.Fatal("the target cannot load a first copy")
	}
	rel := w.rels.Of(items)
	done := func(id string) func(int64) []dataflow.StateChange {
		return func(rows int64) []dataflow.StateChange {
			return []dataflow.StateChange{{Key: "done/" + id, Value: []byte(fmt.Sprint(rows))}}
		}
	}
	var passed int64
	progress := func(n int64) { passed += n }
	// Pieces need not end with a row.
	n, err := loader.Load(w.ctx(), 0, dataflow.Range{ID: "a", Rel: rel}, &rangeText{cols: []string{"id", "v", "big"}, pieces: []string{"1\ta\t", "\\N\n2\tb", "\tx\n"}, rows: 2}, done("a"), progress)
	if err != nil || n != 2 || passed == 0 {
		w.Fatalf("load: %d rows, %d bytes, %v", n, passed, err)
	}
	broken := errors.New("the source is gone")
	if _, err := loader.Load(w.ctx(), 1, dataflow.Range{ID: "b", Rel: rel}, &rangeText{cols: []string{"id", "v", "big"}, pieces: []string{"3\tc\t\\N\n"}, fail: broken}, done("b"), progress); err == nil {
		w.Fatal("a range that ended early was stored")
	}
	v := w.h.Look(w)
	if string(v.State["done/a"]) != "2" || v.State["done/b"] != nil {
		w.Fatalf("state %q", v.State)
	}
	w.want(items, Row{"1", "a", Null}, Row{"2", "b", "x"})

	old := w.target
	w.open()
	if _, err := old.(dataflow.Loader).Load(w.ctx(), 0, dataflow.Range{ID: "c", Rel: rel}, &rangeText{cols: []string{"id", "v", "big"}, pieces: []string{"5\te\t\\N\n"}, rows: 1}, done("c"), progress); err == nil {
		w.Fatal("a zombie loaded a range")
	}
	_ = old.Close(w.ctx()) // it was fenced
	if err := w.target.(dataflow.Loader).FinishCopy(w.ctx()); err != nil {
		w.Fatal(err)
	}
	w.commit(Update(items, nil, "1", "streamed", Unsent))
	w.want(items, Row{"1", "streamed", Null}, Row{"2", "b", "x"})
}

// randomEpochs compares with a map that applies changes one by one.
func randomEpochs(w *writer) {
	rng := rand.New(rand.NewPCG(1, 2))
	model := map[string]Row{}
	loose := []Row{}
	key := func() string { return strconv.Itoa(rng.IntN(12)) }
	value := func(unsent bool) string {
		switch n := rng.IntN(10); {
		case n == 0:
			return Null
		case n < 4 && unsent:
			return Unsent
		}
		return "v" + strconv.Itoa(rng.IntN(1000))
	}
	merge := func(now, before Row) Row {
		out := slices.Clone(now)
		for i := range out {
			if out[i] == Unsent {
				out[i] = before[i]
			}
		}
		return out
	}
	for epoch := range 120 {
		for range 1 + rng.IntN(12) {
			id := key()
			before := model[id]
			switch n := rng.IntN(10); {
			case n == 9:
				w.truncate(items)
				clear(model)
			case n >= 7 && len(loose) > 0:
				i := rng.IntN(len(loose))
				if rng.IntN(2) == 0 {
					w.write(Delete(plain, loose[i]...))
					loose = slices.Delete(loose, i, i+1)
				} else {
					row := Row{key(), value(false)}
					w.write(Update(plain, loose[i], row...))
					loose[i] = row
				}
			case n >= 6:
				row := Row{key(), value(false)}
				w.write(Insert(plain, row...))
				loose = append(loose, row)
			case before == nil:
				row := Row{id, value(false), value(false)}
				w.write(Insert(items, row...))
				model[id] = row
			case n < 2:
				w.write(Delete(items, before...))
				delete(model, id)
			case n < 4:
				row := Row{id, value(true), value(true)}
				w.write(Update(items, nil, row...))
				model[id] = merge(row, before)
			default:
				to := key()
				if to == id || model[to] != nil {
					continue
				}
				row := Row{to, value(true), value(true)}
				w.write(Move(items, before, row...))
				delete(model, id)
				model[to] = merge(row, before)
			}
		}
		w.commit()
		var rows []Row
		for _, r := range model {
			rows = append(rows, r)
		}
		w.want(items, rows...)
		w.want(plain, loose...)
		if epoch%40 == 39 {
			w.reopen()
		}
	}
}
