package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/internal/pg"
)

// The crash points of sharing, in the order of a slot's life.
const (
	FailShareMake   failpoint.Point = "X13.share.make"   // two are level; the shared slot is not there
	FailShareMade   failpoint.Point = "X13.share.made"   // it is there, and nobody reads it
	FailShareJoin   failpoint.Point = "X14.share.join"   // one is counted and reads the ring; its own slot is there
	FailShareJoined failpoint.Point = "X14.share.joined" // its own slot is gone
	FailShareTurn   failpoint.Point = "X14.share.turn"   // the stream has ended, to begin with other publications
	FailShareLeave  failpoint.Point = "X15.share.leave"  // one leaves; its own slot is not there
	FailShareLeft   failpoint.Point = "X15.share.left"   // its own slot is there; it is still counted
	FailShareRetire failpoint.Point = "X15.share.retire" // everybody has an own slot; the shared one is to be dropped
)

const (
	hubTick = 100 * time.Millisecond
	// levelBytes is how near to the server's end one has to be to share.
	levelBytes = 16 << 20
	// stallLimit: one whose target makes nothing durable for so long, although there is something and the others have it,
	// holds the shared slot back and leaves.
	stallLimit = 10 * time.Second
	// loneLimit is how long one goes on alone with the shared slot. Leaving and coming back make the server read its log
	// again from where the slot begins.
	loneLimit = 10 * time.Second
	// hubPause is how long a step that failed is left alone.
	hubPause  = 5 * time.Second
	hubLimit  = 10 * time.Second // of one conversation with the server
	exitLimit = 15 * time.Second
	turnPause = time.Second
)

// Hubs are the shared streams of a process.
type Hubs struct {
	env   *env.Env
	peers func(ctx context.Context, source *pg.Config, identity pg.Identity) ([]Peer, error)

	mu struct {
		sync.Mutex
		hubs map[string]*Hub
	}
}

// Peer is a mirror of a database, whether it runs or not.
type Peer struct {
	Slot string // its own
	// Stands tells whether it has a position that a slot must keep log for. In doubt it does.
	Stands func(ctx context.Context) bool
}

// NewHubs returns an empty registry. peers lists every mirror of this installation that reads the database.
func NewHubs(e *env.Env, peers func(ctx context.Context, source *pg.Config, identity pg.Identity) ([]Peer, error)) *Hubs {
	h := &Hubs{env: e, peers: peers}
	h.mu.hubs = map[string]*Hub{}
	return h
}

func (h *Hubs) hub(identity pg.Identity, slot string) *Hub {
	key := identity.System + "/" + identity.Database
	h.mu.Lock()
	defer h.mu.Unlock()
	hub := h.mu.hubs[key]
	if hub == nil {
		hub = &Hub{env: h.env.With("part", "shared slot", "slot", slot), hubs: h, slot: slot, identity: identity, wake: make(chan struct{}, 1), space: make(chan struct{}, 1)}
		hub.mu.members, hub.mu.leaving, hub.mu.unwanted = map[*member]bool{}, map[*member]bool{}, map[string]bool{}
		hub.mu.roster.counted = map[string]pg.LSN{}
		h.mu.hubs[key] = hub
	}
	return hub
}

func (h *Hubs) all() []*Hub {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.mu.hubs))
}

// Sharing says who reads the slot of a database together with the pipeline, itself included, and how much the ring holds
// for them. Nobody: the pipeline reads its own slot.
func (h *Hubs) Sharing(slot string) (pipelines []string, ringBytes int64) {
	for _, hub := range h.all() {
		hub.mu.Lock()
		found := false
		var names []string
		for m := range hub.mu.members {
			if m.tap != nil {
				names = append(names, m.pipeline)
				found = found || m.slot == slot
			}
		}
		if found {
			pipelines, ringBytes = names, int64(hub.mu.ring.used)
		}
		hub.mu.Unlock()
	}
	slices.Sort(pipelines)
	return pipelines, ringBytes
}

// Forget makes the shared streams do without a pipeline that is deleted: its publication is dropped next, and a stream
// that named it would fail.
func (h *Hubs) Forget(ctx context.Context, slot, publication string) error {
	for _, hub := range h.all() {
		if err := hub.forget(ctx, slot, publication); err != nil {
			return err
		}
	}
	return nil
}

// Sweep drops a shared slot that nobody reads, after everybody who needs one has an own slot.
func (h *Hubs) Sweep(ctx context.Context, conn *pgx.Conn, source *pg.Config, slot string) error {
	identity, err := pg.SystemIdentity(ctx, conn)
	if err != nil {
		return err
	}
	hub := h.hub(identity, slot)
	hub.mu.Lock()
	running := hub.mu.done != nil
	hub.mu.leftover = hub.mu.leftover || running
	hub.mu.Unlock()
	if running {
		hub.kick()
		return nil
	}
	return hub.retire(ctx, conn, source)
}

// Hub is one slot's stream, shared by the Sources of a database that keep up.
//
// Its life is in DESIGN.md. One goroutine (run) decides and talks to the server about slots, another (read) writes the
// ring. What happens is decided by run alone, except that a Source joins by itself, between two of its transactions.
type Hub struct {
	env      *env.Env
	hubs     *Hubs
	slot     string
	identity pg.Identity
	wake     chan struct{}
	space    chan struct{} // a cursor has moved on

	mu struct {
		sync.Mutex
		members map[*member]bool
		leaving map[*member]bool // own slot to be made; perhaps its pipeline has ended
		done    chan struct{}    // of run; nil: it does not run

		session  *session
		ring     *ring
		roster   roster
		spans    []span
		leftover bool // a shared slot exists that no session reads
		unwanted map[string]bool
		dissolve bool
	}

	// Of run:
	ctl       *pgx.Conn
	ctlConfig *pg.Config
	notYet    time.Time // nothing new is begun before
	lonely    time.Time // since when there is nobody to share with
	lastTurn  time.Time
	tryAgain  time.Time // to make the own slot of one who leaves
}

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

// member is a Source as its hub knows it.
type member struct {
	slot, publication, pipeline string
	group                       string // options of the stream that it can share; "": it does not share
	config                      *pg.Config
	ringBytes                   int
	entered                     pg.LSN // behind the start of its own slot
	wake                        func()

	position atomic.Uint64
	level    atomic.Bool // nothing waits at position
	invited  atomic.Bool // the ring may have what comes behind position

	// Guarded by the hub's lock.
	tap         *tap
	dropping    bool          // its own slot, which cannot be made meanwhile
	left        chan struct{} // its own slot is there
	failed      chan struct{} // it could not be made so far
	err         error
	notBefore   time.Time
	joined      time.Time
	expulsions  int
	durable     pg.LSN
	behindSince time.Time
}

// errExpelled: the ring has no more for this reader.
var errExpelled = errors.New("left the shared slot")

func (h *Hub) kick() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// enter makes a Source known. leftover: it saw a shared slot.
func (h *Hub) enter(ctx context.Context, m *member, leftover bool) error {
	for {
		h.mu.Lock()
		done := h.mu.done
		if done == nil {
			h.mu.done = make(chan struct{})
			h.mu.members[m] = true
			h.mu.leftover = h.mu.leftover || leftover
			done = h.mu.done
			h.mu.Unlock()
			h.env.Go("share", func() { h.run(done) })
			return nil
		}
		if len(h.mu.members) > 0 {
			h.mu.members[m] = true
			h.mu.leftover = h.mu.leftover || leftover
			h.mu.Unlock()
			h.kick()
			return nil
		}
		h.mu.Unlock()
		select { // the last one has just left
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// exit is for a Source that ends, whatever the reason. It returns when its own slot is there, or cannot be made for now;
// then it stays counted.
func (h *Hub) exit(ctx context.Context, m *member) {
	limit := h.env.Clock.NewTimer(exitLimit)
	defer limit.Stop()
	h.mu.Lock()
	if m.tap != nil {
		h.expel(m)
	}
	waiting := h.mu.leaving[m]
	h.mu.Unlock()
	h.kick()
	if waiting {
		select {
		case <-m.left:
		case <-m.failed:
		case <-limit.C():
		}
	}
	h.mu.Lock()
	delete(h.mu.members, m)
	last, done := len(h.mu.members) == 0, h.mu.done
	h.mu.Unlock()
	h.kick()
	if !last || done == nil {
		return
	}
	select {
	case <-done:
	case <-limit.C():
	}
}

// uncount is told that a pipeline has its own slot, or needs none.
func (h *Hub) uncount(slot string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for m := range h.mu.leaving {
		if m.slot == slot {
			delete(h.mu.leaving, m)
		}
	}
	h.mu.roster.uncount(slot)
	h.confirm()
}

func (h *Hub) forget(ctx context.Context, slot, publication string) error {
	h.uncount(slot)
	began := h.env.Clock.Now()
	for {
		h.mu.Lock()
		named := h.mu.session != nil && slices.Contains(h.mu.session.names, publication)
		if named {
			h.mu.unwanted[publication] = true
			// An open transaction that is sent ahead can take hours; the others go on by themselves meanwhile.
			h.mu.dissolve = h.mu.dissolve || h.env.Clock.Now().Sub(began) > hubPause
		}
		h.mu.Unlock()
		if !named {
			return nil
		}
		h.kick()
		if err := h.env.Clock.Sleep(ctx, hubTick); err != nil {
			return err
		}
	}
}

// confirm lets the server forget what everybody who is counted has made durable. Called under the lock.
func (h *Hub) confirm() {
	at := h.mu.roster.confirm()
	if h.mu.session != nil {
		h.mu.session.stream.confirm(at)
	}
}

// durable is a member's word that its target is so far.
func (h *Hub) durable(m *member, at pg.LSN) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.roster.durable(m.slot, at)
	h.confirm()
}

// join lets a Source that stands between two transactions at position read the ring from there on. It is counted from
// now on. Nil: not now.
func (h *Hub) join(ctx context.Context, m *member, position, durable pg.LSN) (*tap, map[uint32]*pgoutput.RelationMsg) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.invited.Store(false)
	x := h.mu.session
	if x == nil || h.mu.dissolve || m.tap != nil || h.mu.leaving[m] || x.group != m.group || x.turn.Load() || !slices.Contains(x.names, m.publication) {
		return nil, nil
	}
	select {
	case <-x.done:
		return nil, nil
	default:
	}
	point, ok := h.mu.ring.begins(position)
	if !ok {
		if position > h.mu.ring.at {
			x.stream.solicit()
		}
		return nil, nil
	}
	if !h.mu.roster.count(m.slot, durable) {
		return nil, nil
	}
	m.joined, m.behindSince, m.durable = h.env.Clock.Now(), time.Time{}, durable
	m.tap = &tap{hub: h, ctx: ctx, cursor: h.mu.ring.attach(point), ready: make(chan struct{}, 1), woken: make(chan struct{}, 1), timer: h.env.Clock.NewTimer(time.Hour)}
	return m.tap, h.mu.ring.descriptions()
}

// drop tells whether a member that has joined may drop its own slot now. When it may, dropped has to follow.
func (h *Hub) drop(m *member) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.dropping = m.tap != nil
	return m.dropping
}

func (h *Hub) dropped(m *member) {
	h.mu.Lock()
	m.dropping = false
	h.mu.Unlock()
	h.kick()
}

// expel ends a member's reading of the ring. It stays counted until its own slot is there. Called under the lock.
func (h *Hub) expel(m *member) {
	h.mu.ring.detach(m.tap.cursor)
	m.tap.spans = slices.Clone(h.mu.spans)
	m.tap.notify()
	m.tap = nil
	m.level.Store(false)
	now := h.env.Clock.Now()
	if now.Sub(m.joined) > time.Minute {
		m.expulsions = 0
	}
	m.notBefore = now.Add(time.Second << min(m.expulsions, 6))
	m.expulsions++
	m.invited.Store(false)
	m.left, m.failed, m.err = make(chan struct{}), make(chan struct{}), nil
	h.mu.leaving[m] = true
	h.kick()
}

// run decides what happens until the last member has left.
func (h *Hub) run(done chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	timer := h.env.Clock.NewTimer(hubTick)
	defer timer.Stop()
	for {
		h.step(ctx)
		h.mu.Lock()
		empty, busy := len(h.mu.members) == 0, h.busy()
		h.mu.Unlock()
		if empty {
			break
		}
		if busy {
			timer.Reset(hubTick)
		}
		select {
		case <-h.wake:
		case <-timer.C():
		}
	}
	h.end(ctx)
	h.mu.Lock()
	h.mu.done = nil
	h.mu.Unlock()
	close(done)
}

// busy tells whether time alone can change something. Called under the lock.
func (h *Hub) busy() bool {
	sharing := 0
	for m := range h.mu.members {
		if m.group != "" {
			sharing++
		}
	}
	return sharing > 1 || h.mu.session != nil || h.mu.leftover || len(h.mu.leaving) > 0
}

// end lets go of the shared slot. What is still counted keeps it.
func (h *Hub) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, hubLimit)
	defer cancel()
	h.stop()
	h.letGo(ctx)
	h.mu.Lock()
	pending, leftover := len(h.mu.leaving), h.mu.leftover
	h.mu.Unlock()
	if leftover && pending == 0 {
		if conn, cfg, err := h.conn(ctx); err == nil {
			if err := h.retire(ctx, conn, cfg); err != nil {
				h.env.Log.Warn("the shared slot stays until the next start", "error", err)
			}
		}
	}
	if h.ctl != nil {
		_ = h.ctl.Close(ctx)
		h.ctl = nil
	}
}

// stop ends the session.
func (h *Hub) stop() {
	h.mu.Lock()
	x := h.mu.session
	h.mu.Unlock()
	if x == nil {
		return
	}
	close(x.quit)
	x.stream.close()
	<-x.done
	h.mu.Lock()
	for m := range h.mu.members {
		if m.tap != nil {
			h.expel(m)
		}
	}
	h.mu.session, h.mu.ring, h.mu.leftover, h.mu.dissolve = nil, nil, true, false
	clear(h.mu.unwanted)
	h.mu.Unlock()
}

func (h *Hub) step(ctx context.Context) {
	now := h.env.Clock.Now()
	h.sessionEnded(ctx)
	h.letGo(ctx)
	h.stalled(now)
	h.mu.Lock()
	x, dissolve, leftover, pending := h.mu.session, h.mu.dissolve, h.mu.leftover, len(h.mu.leaving)
	h.mu.Unlock()
	switch {
	case x != nil && (dissolve || h.alone(now)):
		h.env.Log.Info("the shared slot is given up")
		h.stop()
		h.letGo(ctx)
	case x != nil:
		h.invite(x, now)
	case now.Before(h.notYet) || pending > 0:
	case leftover:
		ctx, cancel := context.WithTimeout(ctx, 3*hubLimit)
		defer cancel()
		conn, cfg, err := h.conn(ctx)
		if err == nil {
			err = h.retire(ctx, conn, cfg)
		}
		if err != nil {
			h.trouble("a shared slot is left over and cannot be dropped yet", err)
		}
	default:
		if err := h.found(ctx); err != nil {
			h.trouble("mirrors of one database go on with a slot each", err)
		}
	}
}

func (h *Hub) trouble(what string, err error) {
	h.notYet = h.env.Clock.Now().Add(hubPause)
	h.env.Log.Warn(what, "error", err)
	if h.ctl != nil {
		_ = h.ctl.Close(context.Background())
		h.ctl = nil
	}
}

// sessionEnded looks whether the stream has ended, on purpose or not.
func (h *Hub) sessionEnded(ctx context.Context) {
	h.mu.Lock()
	x := h.mu.session
	h.mu.Unlock()
	if x == nil {
		return
	}
	select {
	case <-x.done:
	default:
		return
	}
	if x.err == nil {
		x.err = h.turn(ctx, x)
	}
	if x.err != nil {
		h.env.Log.Warn("the shared slot cannot be read; everybody goes on with a slot of their own", "error", x.err)
		h.notYet = h.env.Clock.Now().Add(hubPause)
		h.stop()
	}
}

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
		if st, err = startStream(ctx, h.env, cfg, h.slot, at, confirmed, options, 10*time.Second); err == nil || !errs.Is(err, errs.SlotInUse) {
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

// stalled expels whoever holds the shared slot back although the others are farther.
func (h *Hub) stalled(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.session == nil {
		return
	}
	best := h.mu.roster.best()
	for m := range h.mu.members {
		if m.tap == nil {
			continue
		}
		at := h.mu.roster.counted[m.slot]
		behind := at < h.mu.ring.commit && at < best
		if !behind || at != m.durable || m.behindSince.IsZero() {
			m.durable, m.behindSince = at, time.Time{}
			if behind {
				m.behindSince = now
			}
			continue
		}
		if now.Sub(m.behindSince) >= stallLimit {
			h.env.Log.Info("a pipeline makes nothing durable and goes on with its own slot", "pipeline", m.pipeline)
			h.expel(m)
		}
	}
}

// alone tells that there has been nobody to share with for long.
func (h *Hub) alone(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for m := range h.mu.members {
		// Those who are about to come count too, unless they lag far behind.
		if m.tap != nil || m.group == h.mu.session.group && m.level.Load() && !now.Before(m.notBefore) {
			n++
		}
	}
	if n > 1 {
		h.lonely = time.Time{}
		return false
	}
	if h.lonely.IsZero() {
		h.lonely = now
	}
	return now.Sub(h.lonely) >= loneLimit
}

// invite tells those who could join that they may try, and takes up their publications.
func (h *Hub) invite(x *session, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	turn := false
	for m := range h.mu.members {
		if m.group != x.group || m.tap != nil || h.mu.leaving[m] || now.Before(m.notBefore) || !m.level.Load() {
			continue
		}
		if !slices.Contains(x.names, m.publication) {
			turn = turn || h.mu.ring.at >= m.entered
			continue
		}
		m.invited.Store(true)
		m.wake()
	}
	for n := range h.mu.unwanted {
		turn = turn || slices.Contains(x.names, n)
	}
	if turn && !x.turn.Load() && now.Sub(h.lastTurn) >= turnPause {
		x.turn.Store(true)
		x.stream.interrupt()
	}
}

// conn is the connection for what concerns slots.
func (h *Hub) conn(ctx context.Context) (*pgx.Conn, *pg.Config, error) {
	h.mu.Lock()
	var cfg *pg.Config
	for _, set := range []map[*member]bool{h.mu.members, h.mu.leaving} {
		for m := range set {
			cfg = m.config
		}
	}
	h.mu.Unlock()
	if h.ctl != nil && !h.ctl.IsClosed() {
		if cfg == nil {
			cfg = h.ctlConfig
		}
		return h.ctl, cfg, nil
	}
	if cfg == nil {
		return nil, nil, errors.New("nobody is left")
	}
	conn, err := pg.ConnectPgx(ctx, h.env, cfg, pg.ConnectOptions{AppName: appName + " share"})
	if err != nil {
		return nil, nil, errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", cfg.Server(), err).Because(err)
	}
	identity, err := pg.SystemIdentity(ctx, conn)
	if err == nil && (identity.System != h.identity.System || identity.Database != h.identity.Database) {
		err = errs.New(errs.SourceReplaced, "source %s is another server than the one whose slot is shared", cfg.Server())
	}
	if err != nil {
		_ = conn.Close(ctx)
		return nil, nil, err
	}
	h.ctl, h.ctlConfig = conn, cfg
	return conn, cfg, nil
}

// letGo makes the own slots of those who leave, and only then stops counting them.
func (h *Hub) letGo(ctx context.Context) {
	h.mu.Lock()
	leaving := slices.Collect(maps.Keys(h.mu.leaving))
	leaving = slices.DeleteFunc(leaving, func(m *member) bool { return m.dropping })
	h.mu.Unlock()
	now := h.env.Clock.Now()
	for _, m := range leaving {
		select {
		case <-m.failed:
			if now.Before(h.tryAgain) {
				continue
			}
		default:
		}
		if err := h.part(ctx, m); err != nil {
			h.tryAgain = now.Add(time.Second)
			h.mu.Lock()
			m.err = err
			select {
			case <-m.failed:
			default:
				h.env.Log.Warn("a pipeline's own slot cannot be made; the shared one keeps its log", "pipeline", m.pipeline, "error", err)
				close(m.failed)
			}
			h.mu.Unlock()
			if h.ctl != nil {
				_ = h.ctl.Close(context.Background())
				h.ctl = nil
			}
			return
		}
	}
}

func (h *Hub) part(ctx context.Context, m *member) error {
	ctx, cancel := context.WithTimeout(ctx, hubLimit)
	defer cancel()
	conn, _, err := h.conn(ctx)
	if err != nil {
		return err
	}
	if h.env.Fail.Hit(FailShareLeave) != nil {
		h.env.Crash(failpoint.ErrKill)
	}
	if err := copySlot(ctx, conn, h.slot, m.slot); err != nil {
		return err
	}
	if h.env.Fail.Hit(FailShareLeft) != nil {
		h.env.Crash(failpoint.ErrKill)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.mu.leaving[m] {
		return nil
	}
	delete(h.mu.leaving, m)
	h.mu.roster.uncount(m.slot)
	h.confirm()
	close(m.left)
	return nil
}

// found makes the shared slot when two that can share are level.
func (h *Hub) found(ctx context.Context) error {
	group, level := h.level()
	if len(level) < 2 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, hubLimit)
	defer cancel()
	conn, _, err := h.conn(ctx)
	if err != nil {
		return err
	}
	identity, err := pg.SystemIdentity(ctx, conn)
	if err != nil {
		return err
	}
	var at pg.LSN
	near := 0
	for _, m := range level {
		p := pg.LSN(m.position.Load())
		if p+levelBytes >= identity.Flushed {
			near++
		}
		at = max(at, p, m.entered)
	}
	if near < 2 {
		return nil
	}
	if shared, err := slotNamed(ctx, conn, h.slot); err != nil {
		return err
	} else if shared != nil {
		h.mu.Lock()
		h.mu.leftover = true
		h.mu.Unlock()
		return nil
	}
	if h.env.Fail.Hit(FailShareMake) != nil {
		h.env.Crash(failpoint.ErrKill)
	}
	if err := copySlot(ctx, conn, level[0].slot, h.slot); err != nil {
		return err
	}
	h.mu.Lock()
	h.mu.leftover = true // until it is read
	h.mu.Unlock()
	if h.env.Fail.Hit(FailShareMade) != nil {
		h.env.Crash(failpoint.ErrKill)
	}
	shared, err := slotNamed(ctx, conn, h.slot)
	if err != nil {
		return err
	}
	if shared == nil {
		return errs.New(errs.SlotLost, "slot %q is gone as soon as it was made", h.slot)
	}
	bytes := 0
	for _, m := range level {
		bytes = max(bytes, m.ringBytes)
	}
	protocol := 1
	if strings.Contains(group, "proto_version '2'") {
		protocol = 2
	}
	h.mu.Lock()
	h.mu.ring = newRing(bytes, protocol)
	h.mu.ring.trace.at = at
	h.mu.roster = roster{counted: map[string]pg.LSN{}, confirmed: shared.confirmed}
	h.mu.spans = nil
	names := h.names(group)
	h.mu.Unlock()
	h.lonely, h.lastTurn = time.Time{}, h.env.Clock.Now()
	if err := h.begin(ctx, group, at, names); err != nil {
		return err
	}
	h.mu.Lock()
	h.mu.leftover = false
	h.mu.Unlock()
	return nil
}

// level finds a group of members that could share.
func (h *Hub) level() (group string, level []*member) {
	now := h.env.Clock.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	groups := map[string][]*member{}
	for m := range h.mu.members {
		if m.group != "" && m.level.Load() && !now.Before(m.notBefore) && !h.mu.leaving[m] {
			groups[m.group] = append(groups[m.group], m)
		}
	}
	for g, members := range groups {
		if len(members) > len(level) || len(members) == len(level) && g < group {
			group, level = g, members
		}
	}
	slices.SortFunc(level, func(a, b *member) int { return strings.Compare(a.slot, b.slot) })
	return group, level
}

// retire drops a shared slot that nobody reads, after it was copied for everybody who has no slot and needs one.
func (h *Hub) retire(ctx context.Context, conn *pgx.Conn, source *pg.Config) error {
	shared, err := slotNamed(ctx, conn, h.slot)
	if err != nil {
		return err
	}
	if shared != nil && shared.database == h.identity.Database && shared.plugin == "pgoutput" {
		peers, err := h.hubs.peers(ctx, source, h.identity)
		if err != nil {
			return err
		}
		for _, p := range peers {
			own, err := slotNamed(ctx, conn, p.Slot)
			if err != nil {
				return err
			}
			if own != nil || !p.Stands(ctx) {
				continue
			}
			if err := copySlot(ctx, conn, h.slot, p.Slot); err != nil {
				return err
			}
		}
		if h.env.Fail.Hit(FailShareRetire) != nil {
			h.env.Crash(failpoint.ErrKill)
		}
		if err := Drop(ctx, conn, h.slot, ""); err != nil {
			return err
		}
	}
	h.mu.Lock()
	h.mu.leftover = false
	h.mu.roster = roster{counted: map[string]pg.LSN{}}
	h.mu.Unlock()
	return nil
}

// slotNamed looks a slot up; nil: there is none.
func slotNamed(ctx context.Context, conn *pgx.Conn, name string) (*slotInfo, error) {
	var info slotInfo
	var confirmed string
	err := conn.QueryRow(ctx, `SELECT coalesce(plugin::text, ''), coalesce(database::text, ''), coalesce(confirmed_flush_lsn, '0/0')::text
		FROM pg_replication_slots WHERE slot_name = $1`, name).Scan(&info.plugin, &info.database, &confirmed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up slot %q: %w", name, err)
	}
	info.confirmed, err = pg.ParseLSN(confirmed)
	return &info, err
}

// copySlot makes a slot that stands where another stands. One that is there already is as good, unless the server gave
// it up: nobody has confirmed more to it than its own pipeline did.
func copySlot(ctx context.Context, conn *pgx.Conn, from, to string) error {
	for range 2 {
		_, err := conn.Exec(ctx, `SELECT pg_copy_logical_replication_slot($1::name, $2::name)`, from, to)
		var e *pgconn.PgError
		if err == nil {
			return nil
		}
		if !errors.As(err, &e) || e.Code != "42710" {
			return errs.New(errs.SourceStream, "copy slot %q to %q: %w", from, to, err).Because(err)
		}
		var lost bool
		err = conn.QueryRow(ctx, `SELECT coalesce(to_jsonb(s) ->> 'wal_status', '') = 'lost' FROM pg_replication_slots s WHERE slot_name = $1`, to).Scan(&lost)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("look up slot %q: %w", to, err)
		}
		if err == nil && !lost {
			return nil
		}
		if err := Drop(ctx, conn, to, ""); err != nil {
			return err
		}
	}
	return errs.New(errs.SlotInUse, "slot %q comes and goes", to)
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
