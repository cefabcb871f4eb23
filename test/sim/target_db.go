package sim

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/test/conform"
)

// targetDB is the model of a database that is written: tables, a ledger with a fence, and commits that are visible
// before they are durable. A crash of the server takes back a suffix of what was not flushed, each commit as a whole.
type targetDB struct {
	obs     targetObserver
	mutant  mutant
	faults  targetFaults
	latency time.Duration // longest way of a message

	mu         sync.Mutex
	db         *database
	fence      dataflow.Generation
	checkpoint dataflow.Checkpoint
	state      dataflow.State
	history    []commitRecord // what is not flushed yet, oldest first
	life       int            // rises with each crash of the server
	down       bool
	conns      map[*targetConn]bool
	backup     *targetBackup
}

// commitRecord can be taken back.
type commitRecord struct {
	rows       []undo
	state      []dataflow.StateChange // as it was before
	checkpoint dataflow.Checkpoint    // before
}

// targetObserver hears of every change that becomes visible, under the database's lock.
type targetObserver interface {
	observer
	visible(c visibleChange)
	tookBack(commits int)
	flushed(state dataflow.State)
	raised(gen dataflow.Generation)
	wrong(format string, args ...any)
}

// visibleChange is a transaction that just became visible.
type visibleChange struct {
	gen        dataflow.Generation
	checkpoint dataflow.Checkpoint // 0: a load
	previous   dataflow.State      // before
	state      dataflow.State
	db         *database
	xids       []uint32
}

// targetFaults are armed by the plan and disarmed by the first that meets them.
type targetFaults struct {
	mu         sync.Mutex
	next       []targetFault // what happens to the next commits
	loads      []targetFault
	refuseTill time.Time // no connections until then
	keepOld    bool      // raising the fence does not end who holds it
}

type targetFault uint8

const (
	noFault     targetFault = iota
	dropBefore              // the connection breaks, the commit never arrives
	dropAfter               // it takes effect and the reply is lost
	retryable               // the server answers with an error that goes away by itself
	lateCommit              // it arrives long after it was sent
	slowReply               // the reply takes long
	serverCrash             // the server crashes right behind it
)

func (f *targetFaults) arm(x targetFault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = append(f.next, x)
}

func (f *targetFaults) armLoad(x targetFault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loads = append(f.loads, x)
}

func (f *targetFaults) take(load bool) targetFault {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := &f.next
	if load {
		list = &f.loads
	}
	if len(*list) == 0 {
		return noFault
	}
	x := (*list)[0]
	*list = (*list)[1:]
	return x
}

func (f *targetFaults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next, f.loads, f.refuseTill, f.keepOld = nil, nil, time.Time{}, false
}

func (f *targetFaults) refuse(till time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuseTill = till
}

func (f *targetFaults) refuses(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return now.Before(f.refuseTill)
}

func (f *targetFaults) leavesOld() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keepOld
}

func (f *targetFaults) keep(old bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keepOld = old
}

func newTargetDB(obs targetObserver, m mutant, defs ...conform.Table) *targetDB {
	return &targetDB{obs: obs, mutant: m, latency: 3 * time.Millisecond, db: newDatabase(defs...), state: dataflow.State{}, conns: map[*targetConn]bool{}}
}

// raise puts the fence to gen and gives what the last cut left. It is durable, and so is everything before it.
func (d *targetDB) raise(by *targetConn, gen dataflow.Generation) (dataflow.Restored, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if by.dead() {
		return dataflow.Restored{}, unreachable()
	}
	if gen <= d.fence {
		return dataflow.Restored{}, errs.New(errs.Fenced, "the target is held by generation %d, ours is %d", d.fence, gen)
	}
	d.fence = gen
	d.obs.raised(gen)
	d.flushLocked()
	for c := range d.conns {
		if c.gen >= gen || c == by {
			continue
		}
		if d.faults.leavesOld() {
			d.obs.sometimes("zombie: connection outlives the fence")
			continue
		}
		c.end()
	}
	by.gen = gen
	return dataflow.Restored{Checkpoint: d.checkpoint, State: maps.Clone(d.state)}, nil
}

func unreachable() error { return errs.New(errs.TargetUnreachable, "the target does not answer") }

func fenced(gen dataflow.Generation) error {
	return errs.New(errs.Fenced, "the target refused generation %d", gen)
}

// request is a transaction as it arrives.
type request struct {
	gen        dataflow.Generation
	prev, next dataflow.Checkpoint // of a load: both 0
	steps      []step
	state      []dataflow.StateChange
	xids       []uint32
}

// step is a change or the emptying of a range.
type step struct {
	change
	clear *clearRange
	sub   uint32 // of a transaction written ahead
}

// commit applies a transaction whole, under the fence and from the checkpoint before, or not at all.
func (d *targetDB) commit(r request, life int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down || life != d.life {
		return unreachable()
	}
	if r.gen != d.fence && d.mutant != mutantNoFence {
		d.obs.sometimes("zombie: commit refused by the fence")
		return fenced(r.gen)
	}
	load := r.next == 0
	if !load && r.prev != d.checkpoint && d.mutant != mutantNoPrevious {
		d.obs.sometimes("target: transaction behind a failed one refused")
		return fenced(r.gen)
	}
	rec := commitRecord{checkpoint: d.checkpoint}
	for _, s := range r.steps {
		if s.clear != nil {
			d.db.clear(*s.clear, &rec.rows)
			continue
		}
		if err := d.db.apply(s.change, &rec.rows); err != nil {
			d.db.rollback(rec.rows)
			return errs.New(errs.TargetRejected, "%w", err).Because(err)
		}
	}
	if err := d.db.unique(); err != nil {
		d.db.rollback(rec.rows)
		return err
	}
	previous := maps.Clone(d.state)
	changes := r.state
	if d.mutant == mutantStateApart && !load {
		changes = nil
	}
	rec.state = setState(d.state, changes)
	if !load {
		d.checkpoint = r.next
	}
	d.history = append(d.history, rec)
	d.obs.visible(visibleChange{gen: r.gen, checkpoint: r.next, previous: previous, state: d.state, db: d.db, xids: r.xids})
	if d.mutant == mutantStateApart && !load {
		rec := commitRecord{checkpoint: d.checkpoint, state: setState(d.state, r.state)}
		d.history = append(d.history, rec)
	}
	return nil
}

// setState changes state and returns what undoes it.
func setState(state dataflow.State, changes []dataflow.StateChange) []dataflow.StateChange {
	var undo []dataflow.StateChange
	for _, c := range changes {
		was, ok := state[c.Key]
		if !ok {
			was = nil
		}
		undo = append(undo, dataflow.StateChange{Key: c.Key, Value: was})
		if c.Value == nil {
			delete(state, c.Key)
		} else {
			state[c.Key] = slices.Clone(c.Value)
		}
	}
	slices.Reverse(undo)
	return undo
}

// flush makes everything durable and tells up to which checkpoint.
func (d *targetDB) flush(life int) (dataflow.Checkpoint, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down || life != d.life {
		return 0, unreachable()
	}
	d.flushLocked()
	return d.checkpoint, nil
}

func (d *targetDB) flushLocked() {
	d.history = nil
	d.obs.flushed(d.state)
}

// crash takes back all but keep of what was not flushed and disconnects everybody.
func (d *targetDB) crash(keep int, down bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crashLocked(keep, down)
}

func (d *targetDB) crashLocked(keep int, down bool) {
	lost := 0
	for len(d.history) > keep {
		rec := d.history[len(d.history)-1]
		d.history = d.history[:len(d.history)-1]
		d.db.rollback(rec.rows)
		setState(d.state, rec.state)
		d.checkpoint = rec.checkpoint
		lost++
	}
	if lost > 0 {
		d.obs.sometimes("target: crash takes back visible commits")
	}
	d.obs.tookBack(lost)
	d.flushLocked()
	d.life++
	d.down = down
	for c := range d.conns {
		c.end()
	}
}

func (d *targetDB) up() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down = false
}

// targetBackup is a copy of the database that somebody may put back (crash point X14).
type targetBackup struct {
	db         *database
	fence      dataflow.Generation
	checkpoint dataflow.Checkpoint
	state      dataflow.State
}

func (d *targetDB) takeBackup() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.backup = &targetBackup{d.db.clone(), d.fence, d.checkpoint, maps.Clone(d.state)}
}

func (d *targetDB) restoreBackup(told func(b *targetBackup, at lsn)) lsn {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.backup
	d.crashLocked(len(d.history), false)
	d.db, d.fence, d.checkpoint, d.state = b.db.clone(), b.fence, b.checkpoint, maps.Clone(b.state)
	at, _ := parseLSN(orZero(b.state["position"]))
	told(b, at) // before anybody raises the fence that went back
	return at
}

func (d *targetDB) view() conform.View {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := conform.View{Checkpoint: d.checkpoint, State: maps.Clone(d.state), Rows: map[string][]conform.Row{}}
	for name, t := range d.db.tables {
		v.Rows[name] = slices.Collect(maps.Values(t.rows))
	}
	return v
}

// position is where the visible state stands.
func (d *targetDB) position() lsn {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, _ := parseLSN(orZero(d.state["position"]))
	return at
}

// targetConn is a connection to the server.
type targetConn struct {
	db   *targetDB
	gen  dataflow.Generation
	life int
	gone chan struct{}
	once sync.Once
}

func (c *targetConn) end() { c.once.Do(func() { close(c.gone) }) }

func (c *targetConn) dead() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

func (d *targetDB) connect(l *link, now time.Time, gen dataflow.Generation) (*targetConn, error) {
	if d.faults.refuses(now) {
		d.obs.sometimes("target: connection refused")
		return nil, unreachable()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down || !l.dials() {
		return nil, unreachable()
	}
	c := &targetConn{db: d, gen: gen, life: d.life, gone: make(chan struct{})}
	d.conns[c] = true
	return c, nil
}

func (d *targetDB) disconnect(c *targetConn) {
	c.end()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c)
}
