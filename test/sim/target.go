package sim

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	sink "github.com/weirstream/weir/sinks/postgres"
	"github.com/weirstream/weir/test/conform"
)

// target is the model's client: dataflow.Target and dataflow.Loader. Like sinks/postgres it sends transactions one
// behind the other on one connection and does not wait for replies in between; the network keeps what was sent after
// its sender has died.
type target struct {
	env    *env.Env
	db     *targetDB
	link   *link
	rng    *rand.Rand // of the writing goroutine
	seed   uint64
	mutant mutant

	gen    dataflow.Generation
	last   dataflow.Checkpoint
	conn   *targetConn
	steps  []step
	xids   []uint32
	ahead  map[uint32][]step
	ending bool // the next Commit ends a transaction that was written ahead
	endTx  uint32
	begun  bool

	outbox chan request
	wake   chan dataflow.Checkpoint
	acks   chan dataflow.Ack
	stop   chan struct{}
	waits  sync.WaitGroup
}

func newTarget(e *env.Env, db *targetDB, l *link, seed uint64, m mutant) *target {
	return &target{env: e, db: db, link: l, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), mutant: m, ahead: map[uint32][]step{},
		outbox: make(chan request, 64), wake: make(chan dataflow.Checkpoint, 256), acks: make(chan dataflow.Ack, 256), stop: make(chan struct{})}
}

// Open implements dataflow.Target.
func (t *target) Open(ctx context.Context, gen dataflow.Generation) (dataflow.Restored, error) {
	if err := t.env.Clock.Sleep(ctx, jitter(t.rng, 20*time.Millisecond)); err != nil {
		return dataflow.Restored{}, err
	}
	conn, err := t.db.connect(t.link, t.env.Clock.Now(), gen)
	if err != nil {
		return dataflow.Restored{}, err
	}
	t.link.cutting(conn.end)
	restored, err := t.db.raise(conn, gen)
	if err != nil {
		t.db.disconnect(conn)
		return dataflow.Restored{}, err
	}
	t.conn, t.gen, t.last = conn, gen, restored.Checkpoint
	t.waits.Add(2)
	t.env.Go("sim-target-send", t.send)
	t.env.Go("sim-target-flush", t.flushes)
	return restored, nil
}

func (t *target) hit(p failpoint.Point) error {
	err := t.env.Fail.Hit(p)
	if errors.Is(err, failpoint.ErrKill) {
		t.env.Crash(err)
	}
	return err
}

// Write implements dataflow.Target.
func (t *target) Write(ctx context.Context, m dataflow.Message) error {
	defer m.Rows.Release()
	if !t.begun {
		t.begun = true
		if err := t.hit(sink.FailBeforeApply); err != nil {
			return err
		}
	}
	if t.conn.dead() {
		return unreachable()
	}
	switch m.Kind {
	case dataflow.KindTruncate:
		for _, rel := range m.Truncate.Relations {
			t.steps = append(t.steps, step{change: truncateOf(rel.Name)})
		}
	case dataflow.KindChunk:
		if m.Chunk.Replace && t.mutant != mutantChunkAdds {
			r, err := rangeOf(m.Chunk)
			if err != nil {
				return err
			}
			t.steps = append(t.steps, step{clear: r})
		}
	case dataflow.KindOpenRows:
		if t.db.visibleNow() != t.last && !t.conn.dead() {
			t.db.obs.wrong("rows of open transaction %d were written before checkpoint %d was visible", m.Tx, t.last)
		}
		steps := t.decode(m.Rows)
		for i := range steps {
			steps[i].sub = m.Sub
		}
		if t.mutant == mutantOpenVisible {
			t.steps = append(t.steps, steps...)
			return nil
		}
		t.ahead[m.Tx] = append(t.ahead[m.Tx], steps...)
		return nil
	case dataflow.KindOpenAbort:
		if m.Sub == m.Tx {
			delete(t.ahead, m.Tx)
			return nil
		}
		if t.mutant == mutantKeepAborted {
			return nil
		}
		for i, s := range t.ahead[m.Tx] {
			if s.sub == m.Sub {
				t.ahead[m.Tx] = t.ahead[m.Tx][:i]
				break
			}
		}
		return nil
	case dataflow.KindOpenCommit:
		t.ending, t.endTx = true, m.Tx
		return nil
	}
	if m.Rows != nil {
		t.steps = append(t.steps, t.decode(m.Rows)...)
		for _, tx := range m.Rows.Txs {
			t.xids = append(t.xids, tx.Xid)
		}
	}
	if t.rng.IntN(20) == 0 {
		return t.env.Clock.Sleep(ctx, jitter(t.rng, 5*time.Millisecond)) // back-pressure
	}
	return nil
}

func rangeOf(c *dataflow.Chunk) (*clearRange, error) {
	r := &clearRange{table: c.Rel.Name, column: -1}
	if len(c.Key) == 0 {
		return r, nil
	}
	for i, col := range c.Rel.Columns {
		if col.Name == c.Key[0] {
			r.column = i
		}
	}
	for _, b := range []struct {
		text []string
		to   **int64
	}{{c.After, &r.after}, {c.Through, &r.through}} {
		if b.text == nil {
			continue
		}
		v, err := strconv.ParseInt(b.text[0], 10, 64)
		if err != nil {
			return nil, err
		}
		*b.to = &v
	}
	return r, nil
}

func (t *target) decode(rows *changelog.Rows) []step {
	out := make([]step, 0, len(rows.Entries))
	for i := range rows.Entries {
		e := &rows.Entries[i]
		rel := rows.Relation(e)
		s := step{change: change{table: rel.Name, op: e.Op, old: conform.Decode(rel, rows.Old(e)), new: conform.Decode(rel, rows.New(e))}}
		if t.mutant == mutantNullUnsent {
			for j, v := range s.new {
				if v == conform.Unsent {
					s.new[j] = conform.Null
				}
			}
		}
		out = append(out, s)
	}
	return out
}

// Commit implements dataflow.Target.
func (t *target) Commit(ctx context.Context, cut dataflow.Cut) error {
	if cut.Checkpoint != t.last+1 {
		return errs.New(errs.EngineInternal, "checkpoint %d follows %d", cut.Checkpoint, t.last)
	}
	if err := t.hit(sink.FailBeforeLedger); err != nil {
		return err
	}
	r := request{gen: t.gen, prev: t.last, next: cut.Checkpoint, steps: t.steps, state: cut.State, xids: t.xids}
	if t.ending {
		r.steps, r.xids = t.ahead[t.endTx], []uint32{t.endTx}
		delete(t.ahead, t.endTx)
		t.ending = false
	} else {
		t.steps, t.xids = nil, nil
	}
	if err := t.hit(sink.FailBeforeCommit); err != nil {
		return err
	}
	t.last, t.begun = cut.Checkpoint, false
	select {
	case t.outbox <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-t.conn.gone:
		return unreachable()
	}
	return t.hit(sink.FailAfterCommit)
}

func (t *target) ack(a dataflow.Ack) {
	select {
	case t.acks <- a:
	case <-t.stop:
	}
}

// send is the connection with its server behind it. After the first error nothing more is told, but what was sent is
// still carried out: the ledger has to refuse it.
func (t *target) send() {
	defer t.waits.Done()
	rng := rand.New(rand.NewPCG(t.seed, 2))
	ctx := context.Background()
	failed := false
	fail := func(err error) {
		if !failed {
			failed = true
			t.ack(dataflow.Ack{Err: err})
		}
	}
	for {
		var r request
		select {
		case r = <-t.outbox:
		case <-t.conn.gone:
			fail(unreachable())
			t.delivered(ctx, rng)
			return
		case <-t.stop:
			t.delivered(ctx, rng)
			return
		}
		_ = t.env.Clock.Sleep(ctx, jitter(rng, t.db.latency)) // the context has no end
		fault := t.db.faults.take(false)
		switch fault {
		case dropBefore:
			t.db.obs.sometimes("target: connection lost before the commit")
			t.conn.end()
			continue
		case retryable:
			t.db.obs.sometimes("target: retryable error")
			fail(errs.New(errs.TargetUnreachable, "the target chose this transaction as a deadlock's victim"))
			continue
		case lateCommit:
			t.db.obs.sometimes("target: commit arrives late")
			_ = t.env.Clock.Sleep(ctx, jitter(rng, 8*time.Second))
		}
		if t.conn.dead() && rng.IntN(2) == 0 {
			continue // the network lost it
		}
		err := t.db.commit(r, t.conn.life)
		switch {
		case err == nil && fault == dropAfter:
			t.db.obs.sometimes("target: reply lost after the commit")
			t.conn.end()
			continue
		case err == nil && fault == serverCrash:
			t.db.obs.sometimes("target: server crash")
			t.db.crash(rng.IntN(3), false)
			continue
		case fault == slowReply:
			t.db.obs.sometimes("target: slow reply")
			_ = t.env.Clock.Sleep(ctx, jitter(rng, 3*time.Second))
		default:
			_ = t.env.Clock.Sleep(ctx, jitter(rng, t.db.latency))
		}
		if failed || t.conn.dead() {
			continue // nobody hears the reply
		}
		if err != nil {
			fail(err)
			continue
		}
		t.ack(dataflow.Ack{Checkpoint: r.next, Rows: int64(len(r.steps)), Busy: t.db.latency})
		if t.mutant == mutantDurableEarly {
			t.ack(dataflow.Ack{Checkpoint: r.next, Durable: true})
			continue
		}
		t.wake <- r.next
	}
}

// delivered lets what the network still holds arrive, a prefix of it.
func (t *target) delivered(ctx context.Context, rng *rand.Rand) {
	for rng.IntN(3) > 0 {
		select {
		case r := <-t.outbox:
			_ = t.env.Clock.Sleep(ctx, jitter(rng, t.db.latency))
			if t.db.commit(r, t.conn.life) == nil {
				t.db.obs.sometimes("target: commit of a dead client takes effect")
			}
		default:
			return
		}
	}
}

// flushes waits for the disk behind visible commits.
func (t *target) flushes() {
	defer t.waits.Done()
	rng := rand.New(rand.NewPCG(t.seed, 3))
	for {
		var n dataflow.Checkpoint
		select {
		case n = <-t.wake:
		case <-t.stop:
			return
		case <-t.conn.gone:
			return
		}
		_ = t.env.Clock.Sleep(context.Background(), jitter(rng, 200*time.Millisecond))
		for more := true; more; {
			select {
			case n = <-t.wake:
			default:
				more = false
			}
		}
		if t.conn.dead() {
			return
		}
		if _, err := t.db.flush(t.conn.life); err != nil {
			return // whoever sends learns it too
		}
		t.ack(dataflow.Ack{Checkpoint: n, Durable: true})
	}
}

// Acks implements dataflow.Target.
func (t *target) Acks() <-chan dataflow.Ack { return t.acks }

// Close implements dataflow.Target.
func (t *target) Close(context.Context) error {
	close(t.stop)
	t.waits.Wait()
	t.db.disconnect(t.conn)
	close(t.acks)
	return nil
}

// Load implements dataflow.Loader.
func (t *target) Load(ctx context.Context, _ int, r dataflow.Range, s dataflow.RangeStream, state func(int64) []dataflow.StateChange, progress func(int64)) (int64, error) {
	if err := t.hit(sink.FailLoad); err != nil {
		return 0, err
	}
	var data []byte
	for {
		p, err := s.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		progress(int64(len(p)))
		data = append(data, p...)
	}
	rows, err := conform.ParseCopyText(data)
	if err != nil {
		return 0, err
	}
	req := request{gen: t.gen}
	for _, row := range rows {
		req.steps = append(req.steps, step{change: insertOf(r.Rel.Name, row...)})
	}
	req.state = state(int64(len(rows)))
	fault := t.db.faults.take(true)
	if fault == dropBefore || t.conn.dead() {
		t.db.obs.sometimes("target: load lost before its commit")
		return 0, unreachable()
	}
	if err := t.db.commit(req, t.conn.life); err != nil {
		return 0, err
	}
	if fault == dropAfter {
		t.db.obs.sometimes("target: reply of a load lost")
		return 0, unreachable()
	}
	return int64(len(rows)), t.hit(sink.FailLoaded)
}

// FinishConstraints implements dataflow.Loader: the model has none.
func (t *target) FinishConstraints(context.Context) error { return nil }

// FinishCopy implements dataflow.Loader.
func (t *target) FinishCopy(ctx context.Context) error {
	if err := t.env.Clock.Sleep(ctx, jitter(t.rng, 50*time.Millisecond)); err != nil {
		return err
	}
	if t.conn.dead() {
		return unreachable()
	}
	return nil
}

// visibleNow is the checkpoint that a reader of the server would see.
func (d *targetDB) visibleNow() dataflow.Checkpoint {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.checkpoint
}

var (
	_ dataflow.Target = (*target)(nil)
	_ dataflow.Loader = (*target)(nil)
	_ dataflow.Source = (*source)(nil)
	_ dataflow.Copier = (*source)(nil)
)
