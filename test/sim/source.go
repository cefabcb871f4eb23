package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	cdc "github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/test/conform"
)

// source is the model's client: dataflow.Source and dataflow.Copier. It keeps the protocol of cdc/postgres and hits the
// same crash points.
type source struct {
	env    *env.Env
	db     *sourceDB
	link   *link
	rng    *rand.Rand
	obs    observer
	mutant mutant
	ahead  bool // large transactions are sent while they are open

	session  *sourceSession
	position lsn
	live     bool
	system   string

	// The first copy.
	snapshot *database // of the slot, or a later one
	later    bool
	viewAt   lsn
	ranges   []tableRange
	done     map[string]lsn // loaded ranges; 0: under the slot's own view
	initial  []dataflow.StateChange

	// The stream.
	started bool
	next    lsn
	skip    map[uint32]bool
	pieces  map[uint32][]event // of open transactions, as read
	queue   []dataflow.Message
	filters map[string]*filter
	rels    *conform.Relations
	pool    changelog.Pool
	refresh chan string
	want    atomic.Uint64 // confirmed
	stop    chan struct{}
	waits   sync.WaitGroup
}

// tableRange is a table or a part of it, (after, through] of its first column.
type tableRange struct {
	table          string
	part           int
	after, through *int64
}

func (r tableRange) id() string { return fmt.Sprintf("%s/%d", r.table, r.part) }

func (r tableRange) holds(row conform.Row) bool {
	return clearRange{column: 0, after: r.after, through: r.through}.holds(row)
}

// filter drops what a later view of a table's ranges has seen.
type filter struct {
	ranges []tableRange
	views  []lsn
	high   lsn
}

const splitAt = 50 // tables with an integer key are copied in two ranges

func newSource(e *env.Env, db *sourceDB, l *link, rng *rand.Rand, obs observer, m mutant, ahead bool) *source {
	return &source{env: e, db: db, link: l, rng: rng, obs: obs, mutant: m, ahead: ahead, done: map[string]lsn{},
		pieces: map[uint32][]event{}, filters: map[string]*filter{}, rels: &conform.Relations{}, refresh: make(chan string, 1), stop: make(chan struct{})}
}

// Open implements dataflow.Source.
func (s *source) Open(ctx context.Context, state dataflow.State) error {
	if err := s.env.Clock.Sleep(ctx, jitter(s.rng, 20*time.Millisecond)); err != nil {
		return err
	}
	var err error
	if s.session, err = s.db.connect(s.link); err != nil {
		return err
	}
	s.link.cutting(s.session.end)
	if len(state) == 0 {
		if err := s.hit(cdc.FailCopyStart); err != nil {
			return err
		}
		s.snapshot, s.position = s.db.createSlot(s.session)
		s.system = s.db.system
		s.initial = append(positionState(s.position), dataflow.StateChange{Key: "system", Value: []byte(s.system)})
		s.ranges = s.plan()
		return nil
	}
	if s.position, err = parseLSN(state["position"]); err != nil {
		return err
	}
	if s.mutant == mutantSlotPosition {
		s.position = s.db.slotAt()
	}
	s.system = string(state["system"])
	if err := s.db.take(s.session, s.system, s.position); err != nil {
		return err
	}
	s.live = state["live"] != nil
	for key, value := range state {
		if name, ok := strings.CutPrefix(key, "done/"); ok {
			at, err := parseLSN(value)
			if err != nil {
				return err
			}
			s.done[name] = at
		}
		if name, ok := strings.CutPrefix(key, "copy/"); ok {
			at, err := parseLSN(value)
			if err != nil {
				return err
			}
			s.filters[name] = &filter{ranges: []tableRange{{table: name}}, views: []lsn{at}, high: at}
		}
	}
	if s.live {
		high, err := parseLSN(orZero(state["high"]))
		if err != nil {
			return err
		}
		s.arm(high)
		return nil
	}
	for _, r := range s.plan() {
		if _, ok := s.done[r.id()]; !ok {
			s.ranges = append(s.ranges, r)
		}
	}
	return nil
}

func orZero(b []byte) []byte {
	if b == nil {
		return []byte("0")
	}
	return b
}

func positionState(at lsn) []dataflow.StateChange {
	return []dataflow.StateChange{{Key: "position", Value: []byte(at.String())}}
}

func (s *source) plan() []tableRange {
	var out []tableRange
	split := int64(splitAt)
	for _, d := range s.db.defs {
		if len(d.KeyColumns()) == 1 {
			out = append(out, tableRange{table: d.Name, through: &split}, tableRange{table: d.Name, part: 1, after: &split})
			continue
		}
		out = append(out, tableRange{table: d.Name})
	}
	return out
}

func (s *source) hit(p failpoint.Point) error {
	err := s.env.Fail.Hit(p)
	if errors.Is(err, failpoint.ErrKill) {
		s.env.Crash(err)
	}
	return err
}

func (s *source) lost() error { return errs.New(errs.SourceUnreachable, "lost the source") }

// Copied implements dataflow.Copier.
func (s *source) Copied() bool { return s.live }

// Ranges implements dataflow.Copier.
func (s *source) Ranges(context.Context) ([]dataflow.Range, []dataflow.StateChange, error) {
	initial := s.initial
	s.initial = nil
	if s.live || len(s.ranges) == 0 {
		return nil, initial, nil
	}
	if s.snapshot == nil {
		s.later = true
		s.snapshot, s.viewAt = s.db.view()
		s.obs.sometimes("source: copy resumed under a later view")
	}
	var out []dataflow.Range
	for _, r := range s.ranges {
		out = append(out, dataflow.Range{ID: r.id(), Rel: s.rels.Of(s.db.defOf(r.table)), EstBytes: int64(len(r.table))})
	}
	return out, initial, nil
}

// OpenRange implements dataflow.Copier.
func (s *source) OpenRange(_ context.Context, _ int, r dataflow.Range) (dataflow.RangeStream, error) {
	i := slices.IndexFunc(s.ranges, func(x tableRange) bool { return x.id() == r.ID })
	if s.session.ended() || i < 0 {
		return nil, s.lost()
	}
	def := s.db.defOf(s.ranges[i].table)
	st := &rangeStream{source: s}
	for _, c := range def.Columns {
		st.columns = append(st.columns, c.Name)
	}
	var text strings.Builder
	for _, row := range s.snapshot.tables[def.Name].rows {
		if len(def.KeyColumns()) == 1 && !s.ranges[i].holds(row) {
			continue
		}
		st.rows++
		text.WriteString(strings.ReplaceAll(strings.Join(row, "\t"), conform.Null, `\N`) + "\n")
	}
	st.data = []byte(text.String())
	return st, nil
}

type rangeStream struct {
	source  *source
	columns []string
	data    []byte
	rows    int64
}

func (r *rangeStream) Format() string    { return "pgcopy-text" }
func (r *rangeStream) Columns() []string { return r.columns }
func (r *rangeStream) Rows() int64       { return r.rows }
func (r *rangeStream) Close() error      { return nil }

func (r *rangeStream) Next(ctx context.Context) ([]byte, error) {
	if len(r.data) == 0 {
		return nil, io.EOF
	}
	if err := r.source.env.Clock.Sleep(ctx, 2*time.Millisecond); err != nil {
		return nil, err
	}
	if r.source.session.ended() {
		return nil, r.source.lost()
	}
	n := min(len(r.data), 97)
	p := r.data[:n]
	r.data = r.data[n:]
	return p, nil
}

// RangeState implements dataflow.Copier.
func (s *source) RangeState(r dataflow.Range, _ int64) []dataflow.StateChange {
	return []dataflow.StateChange{{Key: "done/" + r.ID, Value: []byte(s.viewAt.String())}}
}

// CopyDone implements dataflow.Copier.
func (s *source) CopyDone(context.Context) ([]dataflow.StateChange, error) {
	state := []dataflow.StateChange{{Key: "live", Value: []byte("1")}}
	if s.live {
		return state, nil
	}
	if s.session.ended() {
		return nil, s.lost()
	}
	for _, r := range s.ranges {
		s.done[r.id()] = s.viewAt
	}
	var high lsn
	for id, at := range s.done {
		if at == 0 {
			state = append(state, dataflow.StateChange{Key: "done/" + id})
			continue
		}
		high = max(high, at)
		state = append(state, dataflow.StateChange{Key: "done/" + id, Value: []byte(at.String())})
	}
	if high > 0 {
		state = append(state, dataflow.StateChange{Key: "high", Value: []byte(high.String())})
	}
	s.live = true
	s.arm(high)
	return state, nil
}

// arm sets the filters that ranges copied under later views need.
func (s *source) arm(high lsn) {
	if s.mutant == mutantNoFilter {
		return
	}
	for _, r := range s.plan() {
		at := s.done[r.id()]
		if at == 0 || high <= s.position {
			continue
		}
		f := s.filters[r.table]
		if f == nil {
			f = &filter{high: high}
			s.filters[r.table] = f
		}
		f.ranges, f.views = append(f.ranges, r), append(f.views, at)
	}
}

// seen tells whether a view that the row's range was copied under holds the transaction at the place.
func (f *filter) seen(row conform.Row, keyed bool, at lsn) bool {
	for i, r := range f.ranges {
		if !keyed || r.after == nil && r.through == nil || r.holds(row) {
			return at <= f.views[i]
		}
	}
	return false
}

// filtered judges the halves of a change by themselves: a row may move from one range to another.
func (s *source) filtered(c change, at lsn) []change {
	f := s.filters[c.table]
	if f == nil {
		return []change{c}
	}
	keyed := len(s.db.defOf(c.table).KeyColumns()) == 1
	switch {
	case c.op == 0:
		for _, v := range f.views {
			if at <= v {
				return nil // the tables that are emptied have one range
			}
		}
		return []change{c}
	case c.op == changelog.Update && c.old != nil && keyed:
		dropOld, dropNew := f.seen(c.old, keyed, at), f.seen(c.new, keyed, at)
		switch {
		case dropOld && dropNew:
			return nil
		case dropNew:
			return []change{{table: c.table, op: changelog.Delete, old: c.old}}
		case dropOld:
			return []change{{table: c.table, op: changelog.Insert, new: c.new}}
		}
		return []change{c}
	}
	row := c.new
	if row == nil {
		row = c.old
	}
	if f.seen(row, keyed, at) {
		return nil
	}
	return []change{c}
}

// Read implements dataflow.Source.
func (s *source) Read(ctx context.Context) (dataflow.Message, error) {
	if !s.started {
		s.started = true
		s.next, s.skip = s.db.restartPoint(s.position)
		s.want.Store(uint64(s.position))
		s.waits.Add(1)
		s.env.Go("sim-source-report", s.report)
	}
	for {
		if s.session.ended() {
			return dataflow.Message{}, s.lost()
		}
		if len(s.queue) > 0 {
			m := s.queue[0]
			s.queue = s.queue[1:]
			if s.mutant == mutantConfirmRead && m.Boundary {
				s.Confirm(m.State)
			}
			return m, nil
		}
		if ctx.Err() != nil {
			return dataflow.Message{}, ctx.Err()
		}
		events, grown := s.db.events(s.next, 1+s.rng.IntN(6))
		if len(events) > 0 {
			if err := s.hit(cdc.FailRead); err != nil {
				return dataflow.Message{}, err
			}
			s.take(events)
			continue
		}
		idle := s.env.Clock.NewTimer(2 * time.Second)
		select {
		case <-grown:
		case <-s.session.gone:
		case name := <-s.refresh:
			if err := s.copyChunk(name); err != nil {
				idle.Stop()
				return dataflow.Message{}, err
			}
		case <-idle.C():
			// A heartbeat: the position goes on over what was not for us.
			if len(s.pieces) == 0 && s.next > s.position {
				s.position = s.next
				s.emit(s.settled(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: positionState(s.position)}))
			}
		case <-ctx.Done():
		}
		idle.Stop()
	}
}

func (s *source) emit(m dataflow.Message) { s.queue = append(s.queue, m) }

// settled lets go of filters that the position has passed, together with it.
func (s *source) settled(m dataflow.Message) dataflow.Message {
	for name, f := range s.filters {
		if f.high > s.position {
			continue
		}
		delete(s.filters, name)
		for _, r := range f.ranges {
			m.State = append(m.State, dataflow.StateChange{Key: "done/" + r.id()})
		}
		m.State = append(m.State, dataflow.StateChange{Key: "copy/" + name})
	}
	return m
}

// take turns events into messages.
func (s *source) take(events []event) {
	var b batch
	for _, e := range events {
		s.next++
		at := s.next
		switch e.kind {
		case committed:
			if at > s.position {
				s.rows(&b, e.xid, e.changes, at, e.at)
			}
		case openRows, openAbort, openCommit:
			if s.skip[e.xid] {
				continue
			}
			s.flush(&b, true)
			s.openEvent(&b, e, at)
		}
	}
	s.flush(&b, true)
}

// batch gathers rows of several transactions.
type batch struct {
	rows   *changelog.Rows
	moved  bool // the position went on since the last message that allowed a cut
	commit time.Time
}

// rows gathers a committed transaction. Now and then a batch leaves in the middle of it, which allows no cut.
func (s *source) rows(b *batch, xid uint32, changes []change, at lsn, commit time.Time) {
	for _, c := range changes {
		for _, c := range s.filtered(c, at) {
			if c.op == 0 {
				s.flush(b, false)
				s.emit(s.wrong(dataflow.Message{Kind: dataflow.KindTruncate, Truncate: &changelog.Truncate{Relations: []*changelog.Relation{s.rels.Of(s.db.defOf(c.table))}}}))
				continue
			}
			if b.rows == nil {
				b.rows = s.pool.Get()
			}
			s.rels.Append(b.rows, conform.Change{Table: s.db.defOf(c.table), Op: c.op, Old: c.old, New: c.new})
			if s.rng.IntN(12) == 0 {
				s.obs.sometimes("source: batch ends inside a transaction")
				s.flush(b, false)
			}
		}
	}
	s.position, b.moved, b.commit = at, true, commit
	if b.rows != nil {
		b.rows.Txs = append(b.rows.Txs, changelog.Tx{End: len(b.rows.Entries), Xid: xid, Commit: commit})
	}
}

func (s *source) flush(b *batch, boundary bool) {
	m := dataflow.Message{Kind: dataflow.KindRows, Rows: b.rows, Boundary: boundary, Commit: b.commit}
	b.rows = nil
	if m.Rows == nil {
		if !boundary || !b.moved {
			return
		}
		m.Kind = dataflow.KindMark
	}
	if boundary {
		m.State = positionState(s.position)
		b.moved = false
		m = s.settled(m)
	}
	s.emit(s.wrong(m))
}

// wrong is a mutant's hand in a message.
func (s *source) wrong(m dataflow.Message) dataflow.Message {
	if s.mutant == mutantCutInside && !m.Boundary {
		m.Boundary = true
		m.State = append(m.State, positionState(s.position)...)
	}
	return m
}

// openEvent handles a large transaction's event: passed on at once, or kept until its commit.
func (s *source) openEvent(b *batch, e event, at lsn) {
	switch e.kind {
	case openRows:
		s.pieces[e.xid] = append(s.pieces[e.xid], e)
		if s.ahead {
			s.openRows(e)
		}
	case openAbort:
		if _, ok := s.pieces[e.xid]; !ok {
			return
		}
		if e.sub == e.xid {
			delete(s.pieces, e.xid)
		} else {
			s.pieces[e.xid] = withoutSub(s.pieces[e.xid], e.sub)
		}
		if s.ahead {
			s.emit(dataflow.Message{Kind: dataflow.KindOpenAbort, Tx: e.xid, Sub: e.sub})
		}
	case openCommit:
		pieces := s.pieces[e.xid]
		delete(s.pieces, e.xid)
		if !s.ahead {
			var all []change
			for _, p := range pieces {
				all = append(all, p.changes...)
			}
			s.rows(b, e.xid, all, at, e.at)
			return
		}
		s.position = at
		s.emit(s.settled(dataflow.Message{Kind: dataflow.KindOpenCommit, Tx: e.xid, Boundary: true, State: positionState(at), Commit: e.at}))
	}
}

func (s *source) openRows(e event) {
	rows := s.pool.Get()
	place := s.db.placeOf(e.xid)
	for _, c := range e.changes {
		for _, c := range s.filtered(c, place) {
			s.rels.Append(rows, conform.Change{Table: s.db.defOf(c.table), Op: c.op, Old: c.old, New: c.new})
		}
	}
	if len(rows.Entries) == 0 {
		rows.Release()
		return
	}
	s.emit(dataflow.Message{Kind: dataflow.KindOpenRows, Rows: rows, Tx: e.xid, Sub: e.sub})
}

// copyChunk copies a table again beside the stream: the chunk takes its place between two transactions, and what its
// view has seen is dropped behind it.
func (s *source) copyChunk(name string) error {
	if len(s.pieces) > 0 || s.filters[name] != nil {
		return nil // asked again later, or never: a copy beside the stream is nobody's duty here
	}
	if err := s.hit(cdc.FailChunk); err != nil {
		return err
	}
	s.obs.sometimes("source: table copied beside the stream")
	view, at := s.db.view()
	def := s.db.defOf(name)
	rel := s.rels.Of(def)
	s.emit(dataflow.Message{Kind: dataflow.KindChunk, Chunk: &dataflow.Chunk{Rel: rel, Replace: true}})
	rows := s.pool.Get()
	for _, r := range view.tables[name].rows {
		s.rels.Append(rows, conform.Change{Table: def, Op: changelog.Insert, New: r})
	}
	s.emit(dataflow.Message{Kind: dataflow.KindRows, Rows: rows})
	state := positionState(s.position)
	if at > s.position {
		s.filters[name] = &filter{ranges: []tableRange{{table: name}}, views: []lsn{at}, high: at}
		state = append(state, dataflow.StateChange{Key: "copy/" + name, Value: []byte(at.String())})
	}
	s.emit(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: state})
	return nil
}

// Refresh asks for a copy of a table beside the stream.
func (s *source) Refresh(name string) {
	select {
	case s.refresh <- name:
	default:
	}
}

// Confirm implements dataflow.Source.
func (s *source) Confirm(state []dataflow.StateChange) {
	for _, c := range state {
		if c.Key != "position" || s.mutant == mutantNeverConfirm {
			continue
		}
		if s.hit(cdc.FailConfirm) != nil {
			return
		}
		if at, err := parseLSN(c.Value); err == nil && uint64(at) > s.want.Load() {
			s.want.Store(uint64(at))
		}
		_ = s.hit(cdc.FailConfirmed) // a kill has crashed the node
	}
}

// report tells the server what was confirmed, twice a second as a walreceiver would.
func (s *source) report() {
	defer s.waits.Done()
	timer := s.env.Clock.NewTimer(500 * time.Millisecond)
	defer timer.Stop()
	for {
		select {
		case <-timer.C():
			timer.Reset(500 * time.Millisecond)
			s.db.confirm(s.session, lsn(s.want.Load()))
		case <-s.session.gone:
			return
		case <-s.stop:
			s.db.confirm(s.session, lsn(s.want.Load()))
			return
		}
	}
}

// Close implements dataflow.Source.
func (s *source) Close(context.Context) error {
	close(s.stop)
	s.waits.Wait()
	if s.session != nil {
		s.session.end()
	}
	for _, m := range s.queue {
		m.Rows.Release()
	}
	return nil
}

func jitter(rng *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(most) + 1))
}

func sortedKeys(m map[string]int) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func itoa(n int) string { return strconv.Itoa(n) }
