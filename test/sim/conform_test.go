package sim

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/test/conform"
)

// The models keep the contract that the real parts keep, or what TestSeeds proves would not be about them. No case
// touches Pebble, so each may have a bubble of its own.

func TestModelTarget(t *testing.T) {
	for _, c := range conform.TargetCases() {
		t.Run(c.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.Run(t, targetHarness()) })
		})
	}
}

func targetHarness() conform.TargetHarness {
	chk := newChecker()
	var db *targetDB
	opened := uint64(0)
	return conform.TargetHarness{
		BatchBytes: 4 << 10,
		New: func(testing.TB) dataflow.Target {
			opened++
			return newTarget(env.Real(nil), db, &link{}, opened, sound)
		},
		Create: func(_ testing.TB, tables ...conform.Table) {
			db = newTargetDB(quiet{chk}, sound, tables...)
		},
		Look:      func(testing.TB) conform.View { return db.view() },
		LoseReply: func(testing.TB) { db.faults.arm(dropAfter) },
		Cut: func(testing.TB) {
			// The network loses everything, too: the case wants a commit that never arrives.
			db.mu.Lock()
			defer db.mu.Unlock()
			db.life++
			for c := range db.conns {
				c.end()
			}
		},
	}
}

// quiet hears and says nothing: the suite does the checking.
type quiet struct{ *checker }

func (quiet) visible(visibleChange)      {}
func (quiet) tookBack(int)               {}
func (quiet) flushed(dataflow.State)     {}
func (quiet) raised(dataflow.Generation) {}
func (quiet) confirmed(lsn)              {}

func TestModelSource(t *testing.T) {
	for _, ahead := range []bool{false, true} {
		name := "whole"
		if ahead {
			name = "ahead"
		}
		for _, c := range conform.SourceCases() {
			t.Run(name+"/"+c.Name(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { c.Run(t, sourceHarness(ahead)) })
			})
		}
	}
}

func sourceHarness(ahead bool) conform.SourceHarness {
	chk := newChecker()
	var db *sourceDB
	opened := uint64(0)
	return conform.SourceHarness{
		New: func(testing.TB) dataflow.Source {
			opened++
			return newSource(env.Real(nil), db, &link{}, rand.New(rand.NewPCG(opened, 0)), quiet{chk}, sound, ahead)
		},
		Create: func(_ testing.TB, tables ...conform.Table) { db = newSourceDB(quiet{chk}, tables...) },
		Begin: func(t testing.TB) conform.Transaction {
			time.Sleep(time.Millisecond) // virtual: users think
			return &modelTx{t: t, db: db}
		},
		Look: func(testing.TB) map[string][]conform.Row { return db.look() },
		Slot: func(testing.TB) string { return db.slotAt().String() },
		Passed: func(a, b string) bool {
			x, errA := parseLSN([]byte(a))
			y, errB := parseLSN([]byte(b))
			return errA == nil && errB == nil && x >= y
		},
		MoveSlot: func(testing.TB) { db.moveSlot() },
		Settled:  func(testing.TB) { time.Sleep(1200 * time.Millisecond) },
	}
}

// modelTx is a transaction of the suite. A large one is written to the log while it is open.
type modelTx struct {
	t     testing.TB
	db    *sourceDB
	steps []txStep
	size  int
}

type txStep struct {
	changes    []change
	savepoint  string
	rollbackTo string
}

func (x *modelTx) Do(changes ...conform.Change) {
	var s txStep
	for _, c := range changes {
		m := change{table: c.Table.Name, op: c.Op, old: c.Old, new: c.New}
		if m.op == changelog.Update && len(c.Table.KeyColumns()) > 0 && c.Old != nil && c.Old.Key(c.Table.KeyColumns()) == c.New.Key(c.Table.KeyColumns()) {
			m.old = nil
		}
		s.changes = append(s.changes, m)
	}
	x.size += len(changes)
	x.steps = append(x.steps, s)
}

func (x *modelTx) Savepoint(name string)  { x.steps = append(x.steps, txStep{savepoint: name}) }
func (x *modelTx) RollbackTo(name string) { x.steps = append(x.steps, txStep{rollbackTo: name}) }

// large is what a transaction has to be to reach the log before its end.
const large = 200

func (x *modelTx) Rollback() {
	if x.size < large {
		return
	}
	x.db.rollback(x.write())
}

func (x *modelTx) Commit() {
	if x.size >= large {
		if err := x.db.commitOpen(time.Now(), x.write()); err != nil {
			x.t.Error(err)
		}
		return
	}
	var all []change
	at := map[string]int{}
	for _, s := range x.steps {
		switch {
		case s.savepoint != "":
			at[s.savepoint] = len(all)
		case s.rollbackTo != "":
			all = all[:at[s.rollbackTo]]
		default:
			all = append(all, s.changes...)
		}
	}
	if err := x.db.commit(time.Now(), all); err != nil {
		x.t.Error(err)
	}
}

// write puts the transaction into the log, piece by piece, and leaves it open.
func (x *modelTx) write() uint32 {
	xid := x.db.begin()
	type sub struct {
		name string
		xid  uint32
	}
	stack := []sub{{"", xid}}
	for _, s := range x.steps {
		switch {
		case s.savepoint != "":
			stack = append(stack, sub{s.savepoint, x.db.nextSub()})
		case s.rollbackTo != "":
			for {
				top := stack[len(stack)-1]
				stack = stack[:len(stack)-1]
				x.db.rollbackTo(xid, top.xid)
				if top.name == s.rollbackTo {
					break
				}
			}
			stack = append(stack, sub{s.rollbackTo, x.db.nextSub()})
		default:
			for rest := s.changes; len(rest) > 0; {
				n := min(len(rest), 64)
				x.db.piece(xid, stack[len(stack)-1].xid, rest[:n])
				rest = rest[n:]
			}
		}
	}
	return xid
}
