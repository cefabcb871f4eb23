package postgres

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/internal/env"
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

// member is a Source as its hub knows it.
type member struct {
	slot, publication, pipeline string
	group                       string // options of the stream that it can share; "": it does not share
	config                      *pg.Config
	ringBytes                   int
	entered                     pg.LSN // behind the start of its own slot
	timeline                    uint32 // that its own slot was read on
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
