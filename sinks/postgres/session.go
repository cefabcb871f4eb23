package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// session is one connection on which a transaction is written, with the tables as that transaction knows them. The
// epochs have one; each source transaction that is written ahead of its commit has another.
type session struct {
	wire   *wire
	app    applier
	tables map[uint32]*table
	byRel  map[*changelog.Relation]*table
	ahead  bool
	// subs are the savepoints that stand, in order: one for each subtransaction since its first row.
	subs []uint32
	// failed is closed when the target has refused something; failure says what. Whoever waits for a reply on the goroutine
	// that takes the acks would wait for ever for one.
	failed  chan struct{}
	failure error
}

func (t *Target) newSession(ctx context.Context) (*session, error) {
	conn, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	w, err := newWire(t.env, conn)
	if err != nil {
		return nil, err
	}
	s := &session{wire: w, tables: map[uint32]*table{}, byRel: map[*changelog.Relation]*table{}, failed: make(chan struct{})}
	s.app = applier{w: w, limit: t.opts.BatchBytes}
	w.parse("begin", "BEGIN ISOLATION LEVEL READ COMMITTED") // whatever the role's default: what is written ahead builds on what commits meanwhile
	w.parse("commit", "COMMIT")
	w.parse("advance", `SELECT "_weir"."advance"($1, $2, $3, $4, $5, $6, $7)`, textOID, textOID, 20, 20, 20, 1009, 1001)
	t.waits.Add(1)
	t.env.Go("target-acks", func() {
		defer t.waits.Done()
		t.acknowledge(s)
	})
	return s, nil
}

// rolledBack tags the Sync behind a ROLLBACK.
type rolledBack chan struct{}

// acknowledge turns a session's replies into acks until its connection ends.
func (t *Target) acknowledge(s *session) {
	for {
		var r reply
		select {
		case r = <-s.wire.replies:
		case <-t.stop:
			return
		}
		if done, ok := r.tag.(rolledBack); ok && r.err == nil {
			close(done)
			continue
		}
		if r.err != nil {
			s.failure = t.wrap(t.learn(s, r.err))
			close(s.failed)
			t.ack(dataflow.Ack{Err: s.failure})
			return
		}
		n := r.tag.(dataflow.Checkpoint)
		t.ack(dataflow.Ack{Checkpoint: n, Rows: r.rows, Busy: r.busy})
		if r.missing > 0 {
			for _, table := range t.opts.Memory.newlyMissing() {
				t.env.Log.Warn("rows that the source changed are not on the target; they are counted as missing", "table", table, "first in checkpoint", uint64(n))
			}
		}
		if r.missing > 0 && t.opts.MissingRow == "error" {
			t.ack(dataflow.Ack{Err: errs.New(errs.TargetRowMissing, "%d rows that checkpoint %d changes are not on the target", r.missing, n).
				WithHint("somebody else changed the target; weir mirror verify shows where, weir sources refresh TABLE repairs it")})
			return
		}
		if t.opts.SyncCommit != "off" {
			t.ack(dataflow.Ack{Checkpoint: n, Durable: true})
			continue
		}
		t.durable.visible(n)
	}
}

// learn draws conclusions from an error that the next Target of the pipeline should know.
func (t *Target) learn(s *session, err error) error {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return err
	}
	switch {
	case s.ahead && slices.Contains([]string{"55P03", "40P01", "23505", "42P01", "42703"}, pgErr.Code):
		// What was written ahead of its commit got in the way of what committed, or a table that it writes to has gone or
		// has another name by now: what the source's catalog tells of comes before its place in the log.
		t.opts.Memory.RefuseWriteAhead(t.env.Clock.Now())
		return learned("an open transaction cannot be written ahead: %w", err)
	case pgErr.Code == "23505", pgErr.Code == "23P01":
		name := pgErr.SchemaName + "." + pgErr.TableName
		if !t.opts.Memory.isCareful(name) {
			t.opts.Memory.setCareful(name)
			return learned("updates of "+name+" need the careful order: %w", err)
		}
	case pgErr.Code == "55P03", pgErr.Code == "40P01":
		if len(t.opts.Memory.aheadNow()) > 0 {
			t.opts.Memory.RefuseWriteAhead(t.env.Clock.Now())
		}
	}
	return err
}

func learned(format string, err error) error {
	e := errs.New(errs.TargetConflict, format, err).Because(err)
	e.Learned = true
	return e
}

// writeAhead handles a transaction whose end has not been read. The worker has made everything before visible.
func (t *Target) writeAhead(ctx context.Context, m dataflow.Message) error {
	s := t.ahead[m.Tx]
	switch m.Kind {
	case dataflow.KindOpenRows:
		if s == nil {
			var err error
			if s, err = t.openAhead(ctx, m.Tx); err != nil {
				return err
			}
		}
		if m.Sub != m.Tx && !s.stands(m.Sub) {
			// What came before stays when the subtransaction is rolled back.
			if err := s.app.flush(); err != nil {
				return err
			}
			s.app.begin()
			s.wire.statement(fmt.Sprintf("SAVEPOINT s%d", m.Sub), expectation{})
			s.subs = append(s.subs, m.Sub)
		}
		return s.app.rows(m.Rows, t.resolver(ctx, s))
	case dataflow.KindOpenAbort:
		if s == nil {
			return nil
		}
		if m.Sub == m.Tx {
			return t.abandon(ctx, m.Tx, s)
		}
		for i, sub := range s.subs {
			if sub == m.Sub {
				s.app.discard()
				s.wire.statement(fmt.Sprintf("ROLLBACK TO SAVEPOINT s%d", sub), expectation{})
				s.subs = s.subs[:i]
				break
			}
		}
		return s.wire.flush()
	case dataflow.KindOpenCommit:
		delete(t.ahead, m.Tx)
		t.opts.Memory.setAhead(m.Tx, false)
		if s == nil {
			return nil // it had no rows for us; the epochs' session stores the position
		}
		s.subs = s.subs[:0]
		t.ending = s
	}
	return nil
}

func (s *session) stands(sub uint32) bool {
	for _, x := range s.subs {
		if x == sub {
			return true
		}
	}
	return false
}

func (t *Target) openAhead(ctx context.Context, xid uint32) (*session, error) {
	var s *session
	if n := len(t.spare); n > 0 {
		s, t.spare = t.spare[n-1], t.spare[:n-1]
	} else {
		var err error
		if s, err = t.newSession(ctx); err != nil {
			return nil, err
		}
		s.ahead = true
	}
	t.ahead[xid] = s
	t.opts.Memory.setAhead(xid, true)
	return s, nil
}

// abandon rolls a transaction back and waits for it: what commits next may need its locks.
func (t *Target) abandon(ctx context.Context, xid uint32, s *session) error {
	delete(t.ahead, xid)
	t.opts.Memory.setAhead(xid, false)
	s.app.discard()
	s.subs = s.subs[:0]
	done := make(rolledBack)
	if s.app.open {
		s.wire.statement("ROLLBACK", expectation{})
		s.app.open = false
	}
	s.wire.syncUp(done)
	if err := s.wire.flush(); err != nil {
		return err
	}
	select {
	case <-done:
	case <-s.failed:
		return s.failure // a statement in front of it waited for a lock, say, until its time was up
	case <-s.wire.done:
		return errs.New(errs.TargetUnreachable, "lost target %s", t.opts.Config.Server())
	case <-ctx.Done():
		return ctx.Err()
	}
	t.spare = append(t.spare, s)
	return nil
}

func (t *Target) resolver(ctx context.Context, s *session) func(*changelog.Relation) (*table, error) {
	return func(rel *changelog.Relation) (*table, error) { return t.resolve(ctx, s, rel) }
}

// resolve finds the target's table of a relation, loading its shape when the relation is new.
func (t *Target) resolve(ctx context.Context, s *session, rel *changelog.Relation) (*table, error) {
	if tab, ok := s.byRel[rel]; ok {
		return tab, nil
	}
	schema, name, ok := t.opts.Route(rel.Schema, rel.Name)
	if !ok {
		s.byRel[rel] = nil
		return nil, nil
	}
	// The catalog shows what is committed; this session may have changed the table in a transaction that is still open.
	if tab := s.tables[rel.ID]; tab != nil && tab.rel.Version == rel.Version && tab.schema == schema && tab.name == name {
		return t.adopt(s, rel, schema, name, tab.spec)
	}
	spec, err := t.loadTable(ctx, schema, name)
	if err != nil {
		return nil, err
	}
	return t.adopt(s, rel, schema, name, spec)
}

// adopt makes the relation's table from the target's shape.
func (t *Target) adopt(s *session, rel *changelog.Relation, schema, name string, spec *pg.Table) (*table, error) {
	tab := s.tables[rel.ID]
	if tab == nil {
		tab = &table{}
		s.tables[rel.ID] = tab
	}
	for old, x := range s.byRel {
		if x == tab {
			delete(s.byRel, old)
		}
	}
	if tab.rel != nil {
		// What is pending is found by the key that its relation named, which may be another one from now on.
		if err := s.app.apply(tab); err != nil {
			return nil, err
		}
	}
	tab.schema, tab.name = schema, name
	full := schema + "." + name
	tab.count = t.opts.Memory.count(full)
	tab.careful = t.opts.Memory.isCareful(full)
	tab.stored = t.opts.SoftDelete
	excluded := func(c string) bool {
		if t.unwritten[[3]string{rel.Schema, rel.Name, c}] {
			return true
		}
		return t.opts.SchemaChange.leavesOut() && spec.Column(c) == nil // also after a restart
	}
	if err := tab.shape(rel, spec, excluded); err != nil {
		hint := "add the column to the target, or exclude it with --exclude-column"
		if t.opts.SchemaChange == Exception {
			// Or the change has been made at the target, as asked, and comes behind rows of its own transaction.
			hint = fmt.Sprintf("if the source has no such column any more, these rows are from before that: have the table copied anew, weir sources refresh '%s', then weir pipelines resume NAME; otherwise %s",
				pg.Qualified(rel.Schema, rel.Name), hint)
		}
		return nil, errs.New(errs.TargetTable, "%w", err).Because(err).WithHint("%s", hint)
	}
	if len(tab.key) == 0 {
		tab.stored = "" // without a key a row that comes back could not find the one that was marked
	}
	s.byRel[rel] = tab
	return tab, nil
}
