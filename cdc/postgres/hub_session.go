package postgres

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/internal/pg"
)

// The shared stream: what reads it, writes the ring, and hands it to its readers.

// session is one START_REPLICATION of the shared slot.
type session struct {
	stream *stream
	names  []string
	group  string
	turn   atomic.Bool // to end between two transactions
	quit   chan struct{}
	done   chan struct{}
	err    error
}

// span says which publications were read from an offset on.
type span struct {
	offset uint64
	names  []string
}

// errExpelled: the ring has no more for this reader.
var errExpelled = errors.New("left the shared slot")

// turn begins to read again where it was read to, with the publications that are wanted now.
func (h *Hub) turn(ctx context.Context, x *session) error {
	x.stream.close()
	if h.env.Fail.Hit(FailShareTurn) != nil {
		h.env.Crash(failpoint.ErrKill)
	}
	h.lastTurn = h.env.Clock.Now()
	h.mu.Lock()
	at, names := h.mu.ring.trace.at, h.names(x.group)
	h.mu.Unlock()
	return h.begin(ctx, x.group, at, names)
}

// names are the publications to be read: those of the present, and of those who may come back, since to begin anew costs
// everybody. Only one that is about to be dropped must go. Called under the lock.
func (h *Hub) names(group string) []string {
	var names []string
	if x := h.mu.session; x != nil {
		names = slices.Clone(x.names)
	}
	for m := range h.mu.members {
		if m.group == group && h.mu.ring.trace.at >= m.entered {
			names = append(names, m.publication)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(n string) bool { return h.mu.unwanted[n] })
}

// begin starts a session. The ring goes on.
func (h *Hub) begin(ctx context.Context, group string, at pg.LSN, names []string) error {
	if len(names) == 0 {
		return errors.New("nobody is left to share")
	}
	h.mu.Lock()
	confirmed := h.mu.roster.confirm()
	h.mu.Unlock()
	var quoted []string
	for _, n := range names {
		quoted = append(quoted, pg.Ident(n))
	}
	_, cfg, err := h.conn(ctx)
	if err != nil {
		return err
	}
	options := append(strings.Split(group, ", "), "publication_names "+pg.Literal(strings.Join(quoted, ",")))
	var st *stream
	for attempt := range 100 {
		if st, err = startStream(ctx, h.env, cfg, h.admit, h.slot, at, confirmed, options, 10*time.Second); err == nil || !errs.Is(err, errs.SlotInUse) {
			break
		}
		// Our last walsender has not noticed yet that it is over.
		if attempt == 20 {
			if _, terr := h.ctl.Exec(ctx, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active`, h.slot); terr != nil {
				return terr
			}
		}
		if serr := h.env.Clock.Sleep(ctx, slotPoll); serr != nil {
			return serr
		}
	}
	if err != nil {
		return err
	}
	x := &session{stream: st, names: names, group: group, quit: make(chan struct{}), done: make(chan struct{})}
	h.mu.Lock()
	h.mu.ring.begin(at)
	h.mu.spans = append(h.mu.spans, span{h.mu.ring.head, names})
	// Older ones than the ring holds are of no more use.
	for len(h.mu.spans) > 1 && len(h.mu.ring.blocks) > 0 && h.mu.spans[1].offset <= h.mu.ring.blocks[0].base {
		h.mu.spans = h.mu.spans[1:]
	}
	h.mu.session = x
	clear(h.mu.unwanted)
	h.mu.Unlock()
	h.env.Log.Info("reading the shared slot", "from", at.String(), "publications", len(names))
	h.env.Go("share-read", func() {
		defer close(x.done)
		x.err = h.read(x)
		h.kick()
	})
	return nil
}

// admit refuses a server that has changed its timeline since the members asked: each looks for itself whether it may go on.
func (h *Hub) admit(ctx context.Context, conn *pgconn.PgConn) error {
	now, err := pg.IdentifySystem(ctx, conn)
	if err != nil {
		return err
	}
	var timeline uint32
	h.mu.Lock()
	for m := range h.mu.members {
		timeline = max(timeline, m.timeline)
	}
	h.mu.Unlock()
	if now.System != h.identity.System || uint32(now.Timeline) != timeline {
		return errs.New(errs.SourceUnreachable, "the server of the shared slot is another one, or on timeline %d instead of %d", now.Timeline, timeline)
	}
	return nil
}

// read writes the ring.
func (h *Hub) read(x *session) error {
	r := h.mu.ring // of this goroutine as far as it is not published
	for {
		if x.turn.Load() && r.trace.between() {
			h.publish()
			return nil
		}
		if !x.stream.buffered() {
			h.publish()
		}
		body, e, err := x.stream.raw()
		if errors.Is(err, errInterrupted) {
			continue
		}
		if err != nil {
			return slotError(h.slot, err)
		}
		if len(r.last.buf)-r.w < len(body)+entryHead {
			if err := h.room(x, len(body)); err != nil {
				return err
			}
		}
		if disturbs(e) {
			h.mu.Lock()
			r.disturb()
			err = r.put(body, e)
			h.mu.Unlock()
		} else {
			err = r.put(body, e)
		}
		if err != nil {
			return errs.New(errs.SourceProtocol, "%w", err).Because(err)
		}
	}
}

func (h *Hub) publish() {
	h.mu.Lock()
	h.mu.ring.publish()
	h.notify()
	h.mu.Unlock()
}

// notify wakes whoever waits for the ring. Called under the lock.
func (h *Hub) notify() {
	for m := range h.mu.members {
		if m.tap != nil {
			m.tap.notify()
		}
	}
}

// room makes place in the ring. Whoever holds up the others is expelled; the fastest is waited for.
func (h *Hub) room(x *session, n int) error {
	for {
		h.mu.Lock()
		ok, expelled := h.mu.ring.room(n)
		for m := range h.mu.members {
			if m.tap != nil && slices.Contains(expelled, m.tap.cursor) {
				h.env.Log.Info("a pipeline is too slow for the shared slot and goes on with its own", "pipeline", m.pipeline)
				h.expel(m)
			}
		}
		h.notify()
		h.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-h.space:
		case <-x.quit:
			return errExpelled
		}
	}
}

// tap is a member's place in the ring, with what is needed to wait there. Its owner is the member's reading goroutine.
type tap struct {
	hub    *Hub
	ctx    context.Context
	cursor *cursor
	ready  chan struct{}
	woken  chan struct{}
	timer  env.Timer
	gone   bool
	spans  []span // when gone
}

// names are the publications with which the transaction at hand was read.
func (t *tap) names() (names []string) {
	for _, s := range t.spans {
		if s.offset < t.cursor.offset() {
			names = s.names
		}
	}
	return names
}

func (t *tap) notify() {
	select {
	case t.ready <- struct{}{}:
	default:
	}
}

// interrupt ends a wait.
func (t *tap) interrupt() {
	select {
	case t.woken <- struct{}{}:
	default:
	}
}

// buffered tells whether something can be read without waiting.
func (t *tap) buffered() bool {
	if t.cursor.r < t.cursor.w {
		return true
	}
	h := t.hub
	h.mu.Lock()
	t.gone = t.cursor.gone
	got := !t.gone && t.cursor.fill()
	h.mu.Unlock()
	select {
	case h.space <- struct{}{}:
	default:
	}
	return got
}

// next returns the next envelope; its payload is valid until the next call.
func (t *tap) next() (pgoutput.Envelope, error) {
	for !t.buffered() {
		if t.gone {
			return pgoutput.Envelope{}, errExpelled
		}
		select {
		case <-t.ready:
		case <-t.woken:
			return pgoutput.Envelope{}, errInterrupted
		case <-t.timer.C():
			t.timer.Reset(time.Hour)
			return pgoutput.Envelope{}, errInterrupted
		case <-t.ctx.Done():
			return pgoutput.Envelope{}, t.ctx.Err()
		}
	}
	e, err := pgoutput.ParseCopyData(t.cursor.take())
	if err != nil {
		return e, errs.New(errs.SourceProtocol, "%w", err).Because(err)
	}
	return e, nil
}
