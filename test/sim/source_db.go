package sim

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/test/conform"
)

// lsn is a place in the source's log: the number of the events before it.
type lsn uint64

func (l lsn) String() string { return strconv.FormatUint(uint64(l), 10) }

func parseLSN(b []byte) (lsn, error) {
	n, err := strconv.ParseUint(string(b), 10, 64)
	return lsn(n), err
}

// event is an entry of the source's log.
type event struct {
	kind     eventKind
	xid, sub uint32
	changes  []change // committed: all of the transaction; openRows: a piece
	at       time.Time
}

type eventKind uint8

const (
	committed  eventKind = iota + 1 // a transaction, whole
	openRows                        // a piece of a large transaction that is still open
	openAbort                       // it, or its subtransaction sub, was rolled back
	openCommit                      // it committed
)

// sourceDB is the model of a database that is read. Its log is kept whole, so that the checker can replay it; readers
// are only given what the slot still holds.
type sourceDB struct {
	defs []conform.Table
	obs  observer

	mu      sync.Mutex
	db      *database
	log     []event // the event with LSN n is log[n-1]
	open    map[uint32][]event
	xid     uint32
	system  string
	slot    *slot
	session *sourceSession // who reads the slot
	down    bool
	grown   chan struct{} // closed and replaced when the log grows
}

type slot struct{ confirmed lsn }

// observer hears what happens in the models, under their locks.
type observer interface {
	confirmed(at lsn)
	sometimes(what string)
}

func newSourceDB(obs observer, defs ...conform.Table) *sourceDB {
	return &sourceDB{defs: defs, obs: obs, db: newDatabase(defs...), open: map[uint32][]event{}, xid: 100, system: "1", grown: make(chan struct{})}
}

func (s *sourceDB) append(e event) {
	s.log = append(s.log, e)
	close(s.grown)
	s.grown = make(chan struct{})
}

func (s *sourceDB) end() lsn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return lsn(len(s.log))
}

// commit runs a transaction. make sees the database as it is; a change it makes impossible is a defect of the workload.
func (s *sourceDB) commit(at time.Time, changes []change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var log []undo
	for _, c := range changes {
		if err := s.db.apply(c, &log); err != nil {
			s.db.rollback(log)
			return err
		}
	}
	s.xid++
	s.append(event{kind: committed, xid: s.xid, changes: changes, at: at})
	return nil
}

// begin opens a transaction that is written to the log in pieces.
func (s *sourceDB) begin() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.xid++
	s.open[s.xid] = nil
	return s.xid
}

func (s *sourceDB) piece(xid, sub uint32, changes []change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := event{kind: openRows, xid: xid, sub: sub, changes: changes}
	s.open[xid] = append(s.open[xid], e)
	s.append(e)
}

func (s *sourceDB) nextSub() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.xid++
	return s.xid
}

// rollbackTo rolls a subtransaction back, and with it all that came behind its first row.
func (s *sourceDB) rollbackTo(xid, sub uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[xid] = withoutSub(s.open[xid], sub)
	s.append(event{kind: openAbort, xid: xid, sub: sub})
}

func withoutSub(pieces []event, sub uint32) []event {
	for i, p := range pieces {
		if p.sub == sub {
			return slices.Clone(pieces[:i])
		}
	}
	return pieces
}

func (s *sourceDB) rollback(xid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, xid)
	s.append(event{kind: openAbort, xid: xid, sub: xid})
}

func (s *sourceDB) commitOpen(at time.Time, xid uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var log []undo
	var all []change
	for _, p := range s.open[xid] {
		all = append(all, p.changes...)
	}
	for _, c := range all {
		if err := s.db.apply(c, &log); err != nil {
			s.db.rollback(log)
			return err
		}
	}
	delete(s.open, xid)
	s.append(event{kind: openCommit, xid: xid, changes: all, at: at})
	return nil
}

// transactions are those that committed in (from, to], with their places.
func (s *sourceDB) transactions(from, to lsn) []placed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transactionsLocked(from, to)
}

type placed struct {
	event
	at lsn
}

func (s *sourceDB) transactionsLocked(from, to lsn) []placed {
	var out []placed
	for i := from; i < to && int(i) < len(s.log); i++ {
		if e := s.log[i]; e.kind == committed || e.kind == openCommit {
			out = append(out, placed{e, i + 1})
		}
	}
	return out
}

// view is the committed state now, and its place.
func (s *sourceDB) view() (*database, lsn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.db.clone(), lsn(len(s.log))
}

func (s *sourceDB) look() map[string][]conform.Row {
	db, _ := s.view()
	out := map[string][]conform.Row{}
	for name, t := range db.tables {
		out[name] = slices.Collect(maps.Values(t.rows))
	}
	return out
}

// restart disconnects everybody; while down, nobody gets in.
func (s *sourceDB) restart(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	if s.session != nil {
		s.session.end()
		s.session = nil
	}
}

// confirm moves the slot, for the session that reads it. It never goes back.
func (s *sourceDB) confirm(by *sourceSession, at lsn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slot == nil || by.ended() || at <= s.slot.confirmed || int(at) > len(s.log) {
		return
	}
	s.slot.confirmed = at
	s.obs.confirmed(at)
}

func (s *sourceDB) slotAt() lsn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slot == nil {
		return 0
	}
	return s.slot.confirmed
}

// moveSlot is somebody else reading the slot to the log's end.
func (s *sourceDB) moveSlot() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slot.confirmed = lsn(len(s.log))
}

// sourceSession is a connection.
type sourceSession struct {
	gone chan struct{}
	once sync.Once
}

func (s *sourceSession) end() { s.once.Do(func() { close(s.gone) }) }

func (s *sourceSession) ended() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

func (s *sourceDB) connect(l *link) (*sourceSession, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down || !l.dials() {
		return nil, errs.New(errs.SourceUnreachable, "the source does not answer")
	}
	return &sourceSession{gone: make(chan struct{})}, nil
}

// createSlot makes the slot where the log ends and gives the view that begins there. One of ours that is left over is
// dropped.
func (s *sourceDB) createSlot(by *sourceSession) (*database, lsn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != nil && s.session != by {
		s.session.end()
	}
	s.session = by
	s.slot = &slot{confirmed: lsn(len(s.log))}
	return s.db.clone(), s.slot.confirmed
}

// take makes by the reader of the slot, which ends the one before, and refuses a gap.
func (s *sourceDB) take(by *sourceSession, system string, position lsn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case system != s.system:
		return errs.New(errs.SourceReplaced, "the source is system %s, %s was read", s.system, system)
	case s.slot == nil:
		return errs.New(errs.SlotLost, "the slot is gone")
	case s.slot.confirmed > position:
		return errs.New(errs.SlotGap, "the slot stands at %s, past our position %s", s.slot.confirmed, position)
	}
	if s.session != nil && s.session != by {
		s.obs.sometimes("source: reader taken over")
		s.session.end()
	}
	s.session = by
	return nil
}

// events gives what the log holds from at on, and what to wait for when that is nothing.
func (s *sourceDB) events(from lsn, most int) ([]event, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := min(len(s.log), int(from)+most)
	return s.log[from:to:to], s.grown
}

// restartPoint is the first event that a reader at position needs: the earliest of the transactions that were open there.
func (s *sourceDB) restartPoint(position lsn) (from lsn, skip map[uint32]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, skip = position, map[uint32]bool{}
	first := map[uint32]lsn{}
	for i, e := range s.log[:position] {
		switch e.kind {
		case openRows:
			if _, ok := first[e.xid]; !ok {
				first[e.xid] = lsn(i)
			}
		case openAbort:
			if e.sub == e.xid {
				delete(first, e.xid)
				skip[e.xid] = true
			}
		case openCommit:
			delete(first, e.xid)
			skip[e.xid] = true
		}
	}
	for _, at := range first {
		from = min(from, at)
	}
	return from, skip
}

// placeOf is where a transaction committed, and behind everything while it has not. A real view knows transactions by
// their numbers, which says the same.
func (s *sourceDB) placeOf(xid uint32) lsn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range s.log {
		if e.kind == openCommit && e.xid == xid {
			return lsn(i + 1)
		}
	}
	return math.MaxUint64
}

func (s *sourceDB) defOf(name string) conform.Table {
	for _, d := range s.defs {
		if d.Name == name {
			return d
		}
	}
	panic("no table " + name)
}

func truncateOf(table string) change { return change{table: table} }

func insertOf(table string, row ...string) change {
	return change{table: table, op: changelog.Insert, new: row}
}

func updateOf(table string, row ...string) change {
	return change{table: table, op: changelog.Update, new: row}
}
