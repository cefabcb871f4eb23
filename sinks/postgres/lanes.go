package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/internal/pg"
)

// FailBetweenLanes is the place where some lanes have committed a checkpoint and others have not.
const FailBetweenLanes failpoint.Point = "X9.target.between-lanes"

// Lanes is a target that commits on several connections at once. Each lane is a Target with a ledger row of its own and
// some of the tables; a table stays in its lane. So each table is exact, and all have the same rows in the end, but a
// reader may see a transaction of the source in some of its tables before the others: the commits are not one.
//
// After a crash the lanes stand at different positions. The source reads again from the least one, and is told which
// tables are further (see Open), whose rows it leaves out until it has passed there.
type Lanes struct {
	env  *env.Env
	opts LaneOptions

	lanes []*Target
	base  []dataflow.Checkpoint // checkpoint of each lane that our first follows
	first dataflow.Checkpoint   // ours that the first follows
	dirty []bool                // lanes with something of the open epoch
	at    []pg.LSN              // where each lane stood at Open; while the source is not past it, the lane keeps it

	byID   map[uint32]int // lane of a source table
	byName map[string]int // and of a target table, which may have been dropped and made again
	pool   changelog.Pool
	split  splitter

	acks  chan dataflow.Ack
	stop  chan struct{}
	waits sync.WaitGroup
	seen  merged
}

// LaneOptions configures Lanes.
type LaneOptions struct {
	Options
	Count int // of lanes
	// TableOf tells which source table a key of the source's state is about; false: about all.
	TableOf func(key string) (oid uint32, ok bool)
}

// merged is what has been heard of every lane.
type merged struct {
	sync.Mutex
	visible, durable []dataflow.Checkpoint  // of each lane, counted from base
	told             [2]dataflow.Checkpoint // visible and durable in all of them
	ack              dataflow.Ack           // rows and time since the last one
	joint            map[dataflow.Checkpoint]bool
}

// NewLanes returns a target of several lanes that Open connects.
func NewLanes(e *env.Env, opts LaneOptions) *Lanes {
	if opts.Memory == nil {
		opts.Memory = NewMemory()
	}
	if opts.BatchBytes == 0 {
		opts.BatchBytes = defaultBatchBytes
	}
	opts.BatchBytes = max(opts.BatchBytes/opts.Count, 1)
	return &Lanes{env: e, opts: opts, byID: map[uint32]int{}, byName: map[string]int{}}
}

// laneSink names a lane in the ledger. The first has the name that a target without lanes has.
func laneSink(lane int) string {
	if lane == 0 {
		return DefaultSink
	}
	return fmt.Sprintf("%s/%d", DefaultSink, lane)
}

// Open implements dataflow.Target. Its state holds, besides what was stored, ahead/OID with a position for each table
// whose lane is further than the least position.
func (l *Lanes) Open(ctx context.Context, gen dataflow.Generation) (dataflow.Restored, error) {
	restored, err := l.open(ctx, gen)
	if err != nil {
		l.close(ctx)
		return dataflow.Restored{}, err
	}
	l.dirty = make([]bool, l.opts.Count)
	l.acks, l.stop = make(chan dataflow.Ack, 256), make(chan struct{})
	l.seen.visible, l.seen.durable = make([]dataflow.Checkpoint, l.opts.Count), make([]dataflow.Checkpoint, l.opts.Count)
	for i, t := range l.lanes {
		l.waits.Add(1)
		l.env.Go("target-lane-acks", func() {
			defer l.waits.Done()
			for a := range t.Acks() {
				l.acked(i, a)
			}
		})
	}
	return restored, nil
}

func (l *Lanes) open(ctx context.Context, gen dataflow.Generation) (dataflow.Restored, error) {
	states := make([]dataflow.State, l.opts.Count)
	var sinks []string
	for i := range l.opts.Count {
		sinks = append(sinks, laneSink(i))
	}
	for i := range l.opts.Count {
		opts := l.opts.Options
		opts.Sink, opts.Sinks = laneSink(i), sinks
		t := New(l.env, opts)
		r, err := t.Open(ctx, gen)
		if err != nil {
			return dataflow.Restored{}, err
		}
		l.lanes, l.base, states[i] = append(l.lanes, t), append(l.base, r.Checkpoint), r.State
		l.first = max(l.first, r.Checkpoint)
		if !t.replica {
			return dataflow.Restored{}, errs.New(errs.TargetRejected, "lanes commit rows before the rows that they refer to, and the role may not keep foreign keys and triggers from noticing").
				WithHint("give the role the right to set session_replication_role, or set sink.lanes to 1")
		}
	}
	if len(states[0]) == 0 {
		return dataflow.Restored{Checkpoint: l.first}, nil // the first commit is one of all lanes
	}
	state, err := l.union(states)
	return dataflow.Restored{Checkpoint: l.first, State: state}, err
}

// union is the lanes' states as one, with the least position.
func (l *Lanes) union(states []dataflow.State) (dataflow.State, error) {
	all := dataflow.State{}
	at := make([]pg.LSN, len(states))
	for i, state := range states {
		var err error
		if at[i], err = pg.ParseLSN(string(state[positionKey])); err != nil {
			return nil, errs.New(errs.TargetRejected, "the mirror was begun with fewer than %d lanes", len(states)).
				WithHint("set sink.lanes as it was, or delete the pipeline and copy anew")
		}
		for key, value := range state {
			if oid, ok := l.opts.TableOf(key); ok {
				l.byID[oid] = i
			}
			all[key] = value
		}
	}
	l.at = at
	least := at[0]
	for _, p := range at {
		least = min(least, p)
	}
	all[positionKey] = []byte(least.String())
	for oid, i := range l.byID {
		if at[i] > least {
			all[fmt.Sprintf("%s%d", aheadKey, oid)] = []byte(at[i].String())
		}
	}
	return all, nil
}

// The source's keys that lanes must know: its position, which every lane stores, and how it is told of tables that are
// further.
const (
	positionKey = "position"
	aheadKey    = "ahead/"
)

// laneOf gives a table its lane: that which it has, or had under its name at the target, or the next in turn.
func (l *Lanes) laneOf(rel *changelog.Relation) int {
	lane, known := l.byID[rel.ID]
	schema, name, ok := l.opts.Route(rel.Schema, rel.Name)
	if !ok {
		return lane
	}
	target := pg.Qualified(schema, name)
	if !known {
		if lane, known = l.byName[target]; !known {
			lane = l.next()
		}
		l.byID[rel.ID] = lane
	}
	l.byName[target] = lane
	return lane
}

// next is the lane of a table that has none: in turn.
func (l *Lanes) next() int { return len(l.byID) % len(l.lanes) }

// Write implements dataflow.Target.
func (l *Lanes) Write(ctx context.Context, m dataflow.Message) error {
	switch m.Kind {
	case dataflow.KindRows:
		return l.rows(ctx, m)
	case dataflow.KindChunk:
		return l.write(ctx, l.laneOf(m.Chunk.Rel), m)
	case dataflow.KindSchema:
		if m.Schema.Old != nil {
			l.laneOf(m.Schema.Old) // the name it has until now stays with its lane, too
		}
		rel := m.Schema.New
		if rel == nil {
			rel = m.Schema.Old
		}
		return l.write(ctx, l.laneOf(rel), m)
	case dataflow.KindTruncate:
		return l.truncate(ctx, m)
	case dataflow.KindMark, dataflow.KindEnd:
		return nil
	}
	return errs.New(errs.EngineInternal, "lanes cannot write a message of kind %d", m.Kind)
}

func (l *Lanes) write(ctx context.Context, lane int, m dataflow.Message) error {
	l.dirty[lane] = true
	return l.lanes[lane].Write(ctx, m)
}

// splitter holds what dividing a batch needs, to be used again.
type splitter struct {
	lane  []int             // of each relation of the batch
	index []uint32          // of each relation in its part
	parts []*changelog.Rows // of each lane; nil: it gets none
}

// rows divides a batch. The rows of each table keep their order, which is all that counts within a lane.
func (l *Lanes) rows(ctx context.Context, m dataflow.Message) error {
	s := &l.split
	s.lane, s.index = s.lane[:0], s.index[:0]
	if s.parts == nil {
		s.parts = make([]*changelog.Rows, len(l.lanes))
	}
	clear(s.parts)
	used, only := 0, 0
	for _, rel := range m.Rows.Relations {
		lane := l.laneOf(rel)
		if s.parts[lane] == nil {
			s.parts[lane] = l.pool.Get()
			used, only = used+1, lane
		}
		s.lane, s.index = append(s.lane, lane), append(s.index, s.parts[lane].UseRelation(rel))
	}
	if used == 1 {
		s.parts[only].Release()
		return l.write(ctx, only, m)
	}
	for i := range m.Rows.Entries {
		e := &m.Rows.Entries[i]
		s.parts[s.lane[e.Rel]].Append(s.index[e.Rel], e.Op, e.OldIsKey, m.Rows.Old(e), m.Rows.New(e))
	}
	m.Rows.Release()
	for lane, part := range s.parts {
		if part == nil {
			continue
		}
		m.Rows = part
		if err := l.write(ctx, lane, m); err != nil {
			return err
		}
	}
	return nil
}

// truncate empties each lane's own tables. One TRUNCATE of all is not to be had, and one of some is refused where a
// foreign key refers to them; so tables of several lanes are emptied by deletes.
func (l *Lanes) truncate(ctx context.Context, m dataflow.Message) error {
	parts := make([][]*changelog.Relation, len(l.lanes))
	used := 0
	for _, rel := range m.Truncate.Relations {
		lane := l.laneOf(rel)
		if parts[lane] == nil {
			used++
		}
		parts[lane] = append(parts[lane], rel)
	}
	for lane, rels := range parts {
		if rels == nil {
			continue
		}
		tr := *m.Truncate
		tr.Relations, tr.ByDelete = rels, tr.ByDelete || used > 1
		part := m
		part.Truncate = &tr
		if err := l.write(ctx, lane, part); err != nil {
			return err
		}
	}
	return nil
}

// Commit implements dataflow.Target. Every lane stores the position, so that no lane without rows keeps it back. What a
// cut says of the pipeline as a whole, as that the first copy is complete, must not be true of some lanes only: it is
// stored by one transaction for all, on the first lane's connection. The worker lets nothing be in flight then, before
// or behind it, so the lanes' own transactions cannot overtake it.
func (l *Lanes) Commit(ctx context.Context, cut dataflow.Cut) error {
	states, whole, err := l.divide(cut.State)
	if err != nil {
		return err
	}
	n := cut.Checkpoint - l.first
	of := func(lane int) dataflow.Cut {
		return dataflow.Cut{Checkpoint: l.base[lane] + n, Clock: cut.Clock, State: states[lane], Durable: cut.Durable}
	}
	if whole != "" {
		if slices.Contains(l.dirty, true) || !l.idle(n) {
			return errs.New(errs.EngineInternal, "%s is to be stored while lanes have rows under way", whole)
		}
		var others []ledgerStep
		for i, t := range l.lanes[1:] {
			others = append(others, ledgerStep{t, of(i + 1)})
		}
		return l.lanes[0].commit(of(0), others)
	}
	clear(l.dirty)
	for i := len(l.lanes) - 1; i >= 0; i-- {
		if i == 0 {
			if err := l.hit(FailBetweenLanes); err != nil {
				return err
			}
		}
		if err := l.lanes[i].Commit(ctx, of(i)); err != nil {
			return err
		}
	}
	return nil
}

// divide gives each lane its state. whole is a key, if there is one, that is not about a table and not the position.
func (l *Lanes) divide(changes []dataflow.StateChange) (states [][]dataflow.StateChange, whole string, err error) {
	states = make([][]dataflow.StateChange, len(l.lanes))
	for _, c := range changes {
		if oid, ok := l.opts.TableOf(c.Key); ok {
			lane, known := l.byID[oid]
			if !known {
				lane = l.next()
				l.byID[oid] = lane
			}
			states[lane] = append(states[lane], c)
			continue
		}
		if c.Key != positionKey {
			whole, states[0] = c.Key, append(states[0], c)
			continue
		}
		position, err := pg.ParseLSN(string(c.Value))
		if err != nil {
			return nil, "", errs.New(errs.EngineInternal, "the source's position: %w", err)
		}
		for i := range states {
			// A lane that is further holds rows up to there; a lower position would have them read and written again.
			if l.at == nil || position >= l.at[i] {
				states[i] = append(states[i], c)
			}
		}
	}
	return states, whole, nil
}

// idle tells that every checkpoint before the n-th is visible, and notes that this one is of all lanes.
func (l *Lanes) idle(n dataflow.Checkpoint) bool {
	l.seen.Lock()
	defer l.seen.Unlock()
	if l.seen.told[0] != n-1 {
		return false
	}
	if l.seen.joint == nil {
		l.seen.joint = map[dataflow.Checkpoint]bool{}
	}
	l.seen.joint[n] = true
	return true
}

// hit runs a failpoint; a kill comes when what was sent may have arrived.
func (l *Lanes) hit(p failpoint.Point) error {
	err := l.env.Fail.Hit(p)
	if errors.Is(err, failpoint.ErrKill) {
		l.env.Crash(err)
	}
	return err
}

// acked tells on what every lane has reached.
func (l *Lanes) acked(lane int, a dataflow.Ack) {
	s := &l.seen
	s.Lock()
	defer s.Unlock()
	if a.Err != nil {
		l.ack(a)
		return
	}
	reached, kind := s.visible, 0
	if a.Durable {
		reached, kind = s.durable, 1
	}
	n := a.Checkpoint - l.base[lane]
	reached[lane] = max(reached[lane], n)
	if s.joint[n] {
		for i := range reached {
			reached[i] = max(reached[i], n)
		}
		if a.Durable {
			delete(s.joint, n)
		}
	}
	s.ack.Rows += a.Rows
	s.ack.Busy = max(s.ack.Busy, a.Busy)
	least := reached[0]
	for _, n := range reached {
		least = min(least, n)
	}
	for s.told[kind] < least {
		if s.told[kind]++; a.Durable {
			s.told[kind] = least // the newest speaks for all
		}
		out := dataflow.Ack{Checkpoint: l.first + s.told[kind], Durable: a.Durable}
		if !a.Durable {
			out.Rows, out.Busy = s.ack.Rows, s.ack.Busy
			s.ack = dataflow.Ack{}
		}
		l.ack(out)
	}
}

func (l *Lanes) ack(a dataflow.Ack) {
	select {
	case l.acks <- a:
	case <-l.stop:
	}
}

// Acks implements dataflow.Target.
func (l *Lanes) Acks() <-chan dataflow.Ack { return l.acks }

// Close implements dataflow.Target.
func (l *Lanes) Close(ctx context.Context) error {
	if l.stop == nil {
		return nil
	}
	close(l.stop)
	err := l.close(ctx)
	l.waits.Wait()
	close(l.acks)
	l.stop = nil
	return err
}

func (l *Lanes) close(ctx context.Context) error {
	var failed []error
	for _, t := range l.lanes {
		failed = append(failed, t.Close(ctx))
	}
	return errors.Join(failed...)
}

// Load implements dataflow.Loader. The range's note goes where its table's changes go.
func (l *Lanes) Load(ctx context.Context, worker int, r dataflow.Range, s dataflow.RangeStream, state func(rows int64) []dataflow.StateChange, progress func(bytes int64)) (int64, error) {
	return l.lanes[l.byID[r.Rel.ID]].Load(ctx, worker, r, s, state, progress)
}

// FinishTable implements dataflow.TableFinisher.
func (l *Lanes) FinishTable(ctx context.Context, worker int, rel *changelog.Relation, beside bool) error {
	return l.lanes[l.byID[rel.ID]].FinishTable(ctx, worker, rel, beside)
}

// FinishCopy implements dataflow.Loader.
func (l *Lanes) FinishCopy(ctx context.Context) error {
	for _, t := range l.lanes[1:] {
		t.closeLoads(ctx)
	}
	return l.lanes[0].FinishCopy(ctx)
}

// FinishConstraints implements dataflow.Loader.
func (l *Lanes) FinishConstraints(ctx context.Context) error {
	if err := l.lanes[0].FinishConstraints(ctx); err != nil {
		return err
	}
	for _, t := range l.lanes[1:] {
		t.forgetShapes()
	}
	return nil
}

var (
	_ dataflow.Target        = (*Lanes)(nil)
	_ dataflow.Loader        = (*Lanes)(nil)
	_ dataflow.TableFinisher = (*Lanes)(nil)
)
