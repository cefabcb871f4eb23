package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/internal/pg"
)

// feed is what a Source reads: a stream of its own, or its place in the ring of a shared one. The reading goroutine
// changes it; others wake it, confirm to it and end it.
type feed struct {
	stream *stream // one of the two is nil
	tap    *tap

	mu struct {
		sync.Mutex
		stream *stream
		tap    *tap
		closed bool
		began  bool
		hub    *Hub
		member *member
	}
}

// set changes what is read and ends the stream that was read before. False: the Source was closed meanwhile.
func (f *feed) set(st *stream, t *tap) bool {
	f.mu.Lock()
	old, closed := f.mu.stream, f.mu.closed
	f.mu.stream, f.mu.tap, f.mu.began = st, t, true
	f.stream, f.tap = st, t
	f.mu.Unlock()
	if old != nil {
		old.close()
	}
	if closed && st != nil {
		st.close()
	}
	return !closed
}

func (f *feed) started() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.began
}

func (f *feed) buffered() bool {
	if f.tap != nil {
		return f.tap.buffered()
	}
	return f.stream.buffered()
}

func (f *feed) next() (pgoutput.Envelope, error) {
	if f.tap != nil {
		return f.tap.next()
	}
	return f.stream.next()
}

// interruptIn ends a wait that is still going on after d.
func (f *feed) interruptIn(d time.Duration) {
	if f.tap != nil {
		f.tap.timer.Reset(d)
		return
	}
	f.stream.interruptIn(d)
}

func (f *feed) interrupt() {
	f.mu.Lock()
	st, t := f.mu.stream, f.mu.tap
	f.mu.Unlock()
	if t != nil {
		t.interrupt()
	} else if st != nil {
		st.interrupt()
	}
}

func (f *feed) close() {
	f.mu.Lock()
	f.mu.closed = true
	st := f.mu.stream
	f.mu.Unlock()
	if st != nil {
		st.close()
	}
}

// confirm tells whoever holds the log for us that everything before lsn is durable.
func (s *Source) confirm(lsn pg.LSN) {
	if uint64(lsn) > s.durable.Load() {
		s.durable.Store(uint64(lsn))
	}
	s.feed.mu.Lock()
	st, hub, m := s.feed.mu.stream, s.feed.mu.hub, s.feed.mu.member
	s.feed.mu.Unlock()
	if st != nil {
		st.confirm(lsn)
	}
	// A pipeline that joins at this moment may be known to either.
	if m != nil {
		hub.durable(m, lsn)
	}
}

func (s *Source) protocol() int {
	if s.version >= 140000 {
		return 2
	}
	return 1
}

// streamOptions are those of START_REPLICATION that two who share must have in common.
func (s *Source) streamOptions(ahead bool) []string {
	options := []string{fmt.Sprintf("proto_version '%d'", s.protocol())}
	if s.binary {
		options = append(options, "binary 'true'")
	}
	if ahead && s.protocol() >= 2 {
		options = append(options, "streaming 'on'")
	}
	return options
}

func publicationNames(names []string) string {
	var quoted []string
	for _, n := range names {
		quoted = append(quoted, pg.Ident(n))
	}
	return "publication_names " + pg.Literal(strings.Join(quoted, ","))
}

// recoverSlot takes a slot of our own back from the shared one, when an earlier process ended while it shared. The shared
// slot stands at or before our position, because nobody confirms to it past those who need it.
func (s *Source) recoverSlot(ctx context.Context) error {
	if s.opts.Shared == "" || s.opts.Hubs == nil {
		return nil
	}
	own, err := s.slot(ctx, s.ctl)
	if err != nil {
		return err
	}
	shared, err := slotNamed(ctx, s.ctl, s.opts.Shared)
	if err != nil {
		return s.lost(err)
	}
	s.leftover = shared != nil && shared.plugin == "pgoutput" && shared.database == s.identity.Database
	if own == nil && s.leftover && shared.confirmed <= s.position {
		if s.env.Fail.Hit(FailShareLeave) != nil {
			s.env.Crash(failpoint.ErrKill)
		}
		s.env.Log.Info("the pipeline's own slot is taken back from the shared one")
		if err := copySlot(ctx, s.ctl, s.opts.Shared, s.opts.Slot); err != nil {
			return err
		}
		if s.env.Fail.Hit(FailShareLeft) != nil {
			s.env.Crash(failpoint.ErrKill)
		}
	}
	return nil
}

// enterHub makes us known to those who could share.
func (s *Source) enterHub(ctx context.Context) error {
	if s.opts.Shared == "" || s.opts.Hubs == nil {
		return nil
	}
	m := &member{timeline: s.timeline.Load(), slot: s.opts.Slot, publication: s.opts.Publication, pipeline: s.opts.Pipeline, config: s.opts.Config,
		ringBytes: int(s.opts.RingBytes), entered: s.position, wake: s.wake}
	if s.opts.Share && !s.standby {
		m.group = strings.Join(s.streamOptions(s.opts.WriteAhead), ", ")
	}
	hub := s.opts.Hubs.hub(s.identity, s.opts.Shared)
	hub.uncount(m.slot) // our own slot is there
	if err := hub.enter(ctx, m, s.leftover); err != nil {
		return err
	}
	s.hub, s.member = hub, m
	s.feed.mu.Lock()
	s.feed.mu.hub, s.feed.mu.member = hub, m
	s.feed.mu.Unlock()
	return nil
}

// share is called between two transactions. When we are level the hub is told, and when it has what comes next for us, we
// read there from now on, and our own slot goes.
func (s *Source) share(quiet bool) error {
	m := s.member
	if m == nil || m.group == "" || s.feed.tap != nil || s.finishing || !s.reader.between() || s.copying.Load() || !s.consistent || len(s.filters) > 0 || len(s.again) > 0 {
		return nil
	}
	if quiet {
		m.position.Store(uint64(s.reader.position))
		if !m.level.Swap(true) {
			s.hub.kick()
		}
	}
	if !m.invited.Load() {
		return nil
	}
	t, described := s.hub.join(s.ctx, m, s.reader.position, pg.LSN(s.durable.Load()))
	if t == nil {
		return nil
	}
	s.env.Log.Info("reading the shared slot", "position", s.reader.position.String())
	if !s.feed.set(nil, t) {
		return s.ctx.Err()
	}
	s.reader.dec.Reset()
	for _, rel := range described {
		s.reader.describe(rel)
	}
	if s.env.Fail.Hit(FailShareJoin) != nil {
		s.env.Crash(failpoint.ErrKill)
	}
	if !s.hub.drop(m) {
		return nil // we had to leave again already
	}
	defer s.hub.dropped(m)
	if err := Drop(s.ctx, s.ctl, s.opts.Slot, ""); err != nil {
		return s.lost(err)
	}
	if s.env.Fail.Hit(FailShareJoined) != nil {
		s.env.Crash(failpoint.ErrKill)
	}
	return nil
}

// goOn reads our own slot again from where we are, because the ring has no more for us. A transaction of which we have a
// part is sent again from its beginning; what we have of it is passed over. For that it must come with the same
// publications, and whole.
func (s *Source) goOn() error {
	m, t := s.member, s.feed.tap
	select {
	case <-m.left:
	case <-m.failed:
		return errs.New(errs.SourceUnreachable, "lost source %s: %w", s.opts.Config.Server(), m.err).Because(m.err)
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	s.env.Log.Info("reading the pipeline's own slot again", "position", s.reader.position.String())
	if !s.reader.inTx || s.reader.skip {
		return s.alone()
	}
	s.finishing = true
	s.reader.repeatTx()
	return s.readOwn(append(s.streamOptions(false), publicationNames(t.names())))
}

// alone reads our own slot as at a start.
func (s *Source) alone() error {
	s.finishing = false
	if err := s.reader.restart(); err != nil {
		return err
	}
	return s.readOwn(append(s.streamOptions(s.opts.WriteAhead), publicationNames([]string{s.opts.Publication})))
}

func (s *Source) readOwn(options []string) error {
	durable := pg.LSN(s.durable.Load())
	s.feed.set(nil, s.feed.tap) // the slot has one reader
	if err := s.checkSlot(s.ctx, durable); err != nil {
		return err
	}
	admit := func(ctx context.Context, conn *pgconn.PgConn) error {
		return s.admit(ctx, conn, max(s.reached, s.reader.position))
	}
	st, err := startStream(s.ctx, s.env, s.opts.Config, admit, s.opts.Slot, s.reader.position, durable, options, s.opts.StatusPeriod)
	if err != nil {
		return err
	}
	if !s.feed.set(st, nil) {
		return s.ctx.Err()
	}
	if s.finishing {
		return nil // in the middle of a transaction; its end comes here again
	}
	return s.noteTimeline()
}
