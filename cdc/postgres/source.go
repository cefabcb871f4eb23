// Package postgres reads a Postgres database: its tables' first copy and then its log, without a gap, a lock or a
// duplicate between the two.
package postgres

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/cdc/snapshot"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/internal/pg"
)

// Options configures a Source. The zero value of a field means its default.
type Options struct {
	Config      *pg.Config
	Slot        string // required
	Publication string // required
	// KeepNames: tables go on under the names that they had when they joined, because the target does not follow renames.
	KeepNames bool
	// NamesApart: names that change hands end the source with NamesMoved, because the target commits tables apart from
	// each other.
	NamesApart bool
	// KeepPublication: the publication is somebody else's; tables are not added to it.
	KeepPublication bool
	Failover        bool // 17 and later: the slot is synchronised to standbys
	// Includes says which tables are mirrored; Excluded which of their columns are left out; Filter which rows are kept.
	Includes func(schema, table string) bool
	Excluded func(schema, table, column string) bool
	Filter   func(schema, table string) string

	RangeBytes      int64         // tables larger than this are copied in ranges of about this size; default 64 MiB
	RangeRows       int64         // and those of more rows of about that many; 0: their number does not count
	StatusPeriod    time.Duration // default 10 s; keep it under the server's wal_sender_timeout
	DiscoveryPeriod time.Duration // how often new and dropped tables are looked for; default 2 s
	HeartbeatPeriod time.Duration // how often an idle position moves; default 10 s
	Text            bool          // never take values in binary
	// CopyText says which tables are to be copied as text, because the target's columns have other types.
	CopyText func(schema, table string) bool
	NoCopy   bool // snapshot.mode never: stream only
	// Join makes at the target what tables that join, or get columns of other types, need: schemas, extensions, types.
	Join func(ctx context.Context, tables []uint32) error
	// Prepare makes the target's tables before the first copy; snapshot shows them as the copy will read them. A table
	// that is there and not among them joins later.
	Prepare func(ctx context.Context, snapshot string, tables []uint32) error
	// WriteAhead: large transactions are sent while they are still open. From 14 on.
	WriteAhead bool

	// Shared is the slot that mirrors of this database may share; "": none of them does. Hubs are the process's shared
	// streams. Without Share the source only takes its own slot back from a shared one that was left over.
	Shared    string
	Hubs      *Hubs
	Share     bool
	Pipeline  string // for those who look at who shares
	RingBytes int64
}

const (
	appName  = "weir source"
	slotPoll = 50 * time.Millisecond
)

// The crash points of a source.
const (
	FailCopyStart failpoint.Point = "X0.source.copy-start"
	FailRead      failpoint.Point = "X0.source.read"
	FailConfirm   failpoint.Point = "X11.source.confirm"
	FailConfirmed failpoint.Point = "X12.source.confirmed"
	FailChunk     failpoint.Point = "X2.source.chunk"
)

// ErrTextNeeded says that a type turned up whose binary form is not exact; the stream is read again as text.
var ErrTextNeeded = errors.New("values are needed as text")

// Source implements dataflow.Source and dataflow.Copier.
type Source struct {
	env  *env.Env
	opts Options
	ctx  context.Context // of the goroutines that Open and Read start
	stop context.CancelFunc

	ctl        *pgx.Conn // catalog; used by one goroutine at a time
	version    int
	standby    bool
	identity   pg.Identity
	timeline   atomic.Uint32  // that the log was read on last
	crossed    bool           // it is a new one, which is not stored yet
	names      []pg.TableName // selected when Prepare looked
	binary     bool
	types      map[uint32][2]string
	tables     map[uint32]*tableShape
	specs      map[uint32]*pg.Table // as loaded at Open; what the copy and the plan use
	files      map[uint32]string    // see filenodes; from before the copy's view was taken
	filters    map[uint32]*tableFilter
	copies     map[uint32]*liveCopy                 // beside the stream
	sending    *listing                             // what it sent at the last look
	unlisted   map[uint32]bool                      // tables that the publication does not send any more; see relist.go
	parts      map[uint32]map[uint32]partitionFiles // of the partitions of each table; see partition_files.go
	partsDue   map[uint32]partitionLook             // of tables whose partitions changed
	watching   bool                                 // a look at the partitions has been compared since the start
	conditions map[uint32]string                    // of rows, as the publication had them when they were read; see condition.go
	lists      map[uint32][]int16                   // of columns, as weir's own publication has them; nil: all of a table's
	left       map[uint32][]int16                   // numbers of the columns of each table that are left out; see leftout.go
	notes      notes
	sent       map[uint32][]string // the columns that somebody else's publication sends of a table; nil: all
	copying    atomic.Bool
	streaming  atomic.Bool     // orders are obeyed from now on
	lookAgain  atomic.Bool     // the last look at the catalog could not be obeyed
	resumed    bool            // a slot of ours exists; its publication must
	waiting    map[uint32]bool // new tables that do not join yet; the user was told
	nextChunk  time.Time
	moving     []moved  // tables that made way for another's name
	seen       uint32   // the transaction at hand, once the catalog shows it
	again      []uint32 // tables whose rows changed without a word in the log: to be copied again
	position   pg.LSN
	reached    pg.LSN            // newest place of the log that the target had something from when we began
	ahead      map[uint32]pg.LSN // tables that the target has further than position
	live       bool              // the first copy is complete
	consistent bool              // and the stream is past all that it saw

	copy copyState

	feed      feed
	reader    *reader
	delivered snapshot.Delivered
	hub       *Hub
	member    *member       // nil: not known to the hub
	durable   atomic.Uint64 // newest position that the target has made durable
	finishing bool          // reads the rest of a transaction that began in the ring
	leftover  bool          // a shared slot was there at the start
	commands  chan command
	out       chan dataflow.Message
	failed    chan error
	running   sync.WaitGroup
	started   bool

	progress Progress
}

// Progress is what the source tells about itself; it is read from other goroutines.
type Progress struct {
	LogEnd     atomic.Uint64 // of the source's log, when the catalog was last looked at; 0: not yet
	ServerEnd  atomic.Uint64 // what the stream told last: how far the server has decoded
	sent       atomic.Uint64 // position of the last boundary that was sent
	nothing    atomic.Uint64 // up to here the server has told that there is nothing more than what was sent
	Looked     atomic.Int64  // Unix ns of the newest look at the catalog whose tables are all known
	heard      atomic.Int64  // Unix ns of the last word of the source's server; 0: none yet
	Received   atomic.Int64  // bytes of the stream
	mu         sync.Mutex
	tables     map[uint32]*TableProgress
	Streaming  atomic.Bool
	LastCommit atomic.Int64 // microseconds since 2000 of the newest transaction that was read
}

// TableProgress is one table's copy.
type TableProgress struct {
	Schema, Name      string
	EstRows, EstBytes int64
	Rows, Bytes       int64
	Copying, Done     bool

	sent bool // all chunks of the copy were sent; it is done when the target has stored that
}

// New returns a Source that Open connects.
func New(e *env.Env, opts Options) *Source {
	if opts.RangeBytes == 0 {
		opts.RangeBytes = 64 << 20
	}
	if opts.StatusPeriod == 0 {
		opts.StatusPeriod = 10 * time.Second
	}
	if opts.DiscoveryPeriod == 0 {
		opts.DiscoveryPeriod = 2 * time.Second
	}
	if opts.HeartbeatPeriod == 0 {
		opts.HeartbeatPeriod = 10 * time.Second
	}
	if opts.Excluded == nil {
		opts.Excluded = func(string, string, string) bool { return false }
	}
	if opts.Filter == nil {
		opts.Filter = func(string, string) string { return "" }
	}
	s := &Source{
		env: e.With("part", "source", "slot", opts.Slot), opts: opts,
		types: map[uint32][2]string{}, tables: map[uint32]*tableShape{}, specs: map[uint32]*pg.Table{}, filters: map[uint32]*tableFilter{}, sent: map[uint32][]string{}, left: map[uint32][]int16{}, conditions: map[uint32]string{}, unlisted: map[uint32]bool{}, copies: map[uint32]*liveCopy{}, waiting: map[uint32]bool{},
		commands: make(chan command, 16), out: make(chan dataflow.Message, 8), failed: make(chan error, 1),
	}
	s.progress.tables = map[uint32]*TableProgress{}
	return s
}

const (
	systemKey = "system"
	slotKey   = "slot"
	liveKey   = "live"
	// consistentKey: the target has been told that its tables agree with each other.
	consistentKey = "consistent"
)

// Prepare implements dataflow.Preparer.
func (s *Source) Prepare(ctx context.Context) error {
	var err error
	if s.ctl, err = pg.ConnectPgx(ctx, s.env, s.opts.Config, pg.ConnectOptions{AppName: appName + " control",
		Settings: map[string]string{"default_transaction_read_only": "off"}}); err != nil { // a database on its way to a cut-over is read-only for everybody else
		return errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", s.opts.Config.Server(), err).Because(err)
	}
	if s.version, _, err = pg.ServerVersion(ctx, s.ctl); err != nil {
		return s.lost(err)
	}
	if err := s.ctl.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&s.standby); err != nil {
		return s.lost(err)
	}
	if s.identity, err = pg.SystemIdentity(ctx, s.ctl); err != nil {
		return s.lost(err)
	}
	if s.names, err = s.selected(ctx, s.ctl); err != nil {
		return s.lost(err)
	}
	return nil
}

// Open implements dataflow.Source.
func (s *Source) Open(ctx context.Context, state dataflow.State) error {
	if s.ctl == nil {
		if err := s.Prepare(ctx); err != nil {
			return err
		}
	}
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := s.know(string(state[systemKey])); err != nil {
		return err
	}
	var err error
	if s.tables, err = loadShapes(state); err != nil {
		return err
	}
	if s.left, err = LeftOut(state); err != nil {
		return err
	}
	if s.parts, err = restorePartitions(state); err != nil {
		return err
	}
	s.partsDue = map[uint32]partitionLook{}
	s.live, s.consistent = state[liveKey] != nil, state[consistentKey] != nil
	var oids []uint32
	for _, n := range s.names {
		// Once live, a table that is not known yet joins by a copy of its own (see live.go).
		if _, known := s.tables[n.OID]; known || len(state) == 0 {
			oids = append(oids, n.OID)
		}
	}
	specs, err := pg.LoadShapes(ctx, s.ctl, oids)
	if err != nil {
		return s.lost(err)
	}
	s.binary = s.version >= 140000 && !s.opts.Text
	s.resumed = len(state) > 0
	if s.files, err = s.filenodes(ctx, s.ctl, oids); err != nil {
		return err
	}
	if err := s.describe(specs); err != nil {
		return err
	}
	if err := s.publish(ctx, specs); err != nil {
		return err
	}
	if err := s.learnPublished(ctx); err != nil {
		return err
	}
	if len(state) == 0 {
		return s.begin(ctx, specs)
	}
	if s.position, err = pg.ParseLSN(string(state[positionKey])); err != nil {
		return errs.New(errs.StateCorrupt, "stored position: %w", err).Because(err)
	}
	s.durable.Store(uint64(s.position))
	if s.ahead, err = restoreAhead(state); err != nil {
		return err
	}
	if s.reached, err = furthest(state, s.position, s.ahead); err != nil {
		return err
	}
	if uint32(s.identity.Timeline) != s.timeline.Load() {
		if err := s.ask(ctx); err != nil {
			return err
		}
	}
	if err := s.recoverSlot(ctx); err != nil {
		return err
	}
	if err := s.checkSlot(ctx, s.position); err != nil {
		return err
	}
	if err := s.copy.restore(s, state); err != nil {
		return err
	}
	return s.restoreLive(state)
}

// describe takes the tables' descriptions.
func (s *Source) describe(specs []*pg.Table) error {
	for _, t := range specs {
		s.specs[t.OID] = t
		for _, c := range t.Columns {
			s.types[c.Type.OID] = [2]string{c.Type.Schema, c.Type.Name}
			if c.Generated == 0 && !streamBinary(c.Type) && !s.leaves(t, &c) {
				s.binary = false
			}
			if where := s.opts.Filter(t.Schema, t.Name); where != "" && s.version < 150000 {
				return errs.New(errs.RowFilterUnsupport, "row filter of %s needs Postgres 15 or later at the source", t)
			}
		}
		p := &TableProgress{Schema: t.Schema, Name: t.Name, EstRows: t.RelTuples, EstBytes: t.Bytes, Done: s.live}
		if known := s.tables[t.OID]; known != nil && s.opts.KeepNames {
			p.Schema, p.Name = known.Schema, known.Name
		}
		s.progress.mu.Lock()
		s.progress.tables[t.OID] = p
		s.progress.mu.Unlock()
	}
	return nil
}

// filenodes names the files that hold each table's rows. They change when a table is written anew (a type is altered,
// the table truncated or clustered), and a view taken before that finds no rows in the new files: a copy under it would
// be empty without an error.
func (s *Source) filenodes(ctx context.Context, conn pg.Querier, oids []uint32) (map[uint32]string, error) {
	rows, err := conn.Query(ctx, `SELECT o::int8, `+filenodesOf("o")+` FROM unnest($1::oid[]) o`, oidArray(oids))
	if err != nil {
		return nil, s.lost(err)
	}
	files := map[uint32]string{}
	var oid int64
	var names *string
	_, err = pgx.ForEachRow(rows, []any{&oid, &names}, func() error {
		if files[uint32(oid)] = ""; names != nil {
			files[uint32(oid)] = *names
		}
		return nil
	})
	if err != nil {
		return nil, s.lost(err)
	}
	return files, nil
}

func filenodesOf(oid string) string {
	return `(SELECT string_agg(pg_relation_filenode(r)::text, ' ' ORDER BY r)
		FROM (SELECT ` + oid + ` AS r UNION SELECT t.relid::oid FROM pg_partition_tree(` + oid + `::regclass) t) p)`
}

// Read implements dataflow.Source.
func (s *Source) Read(ctx context.Context) (dataflow.Message, error) {
	if !s.started {
		if err := s.startStreaming(ctx); err != nil {
			return dataflow.Message{}, err
		}
	}
	select {
	case m := <-s.out:
		return m, nil
	default:
	}
	select {
	case m := <-s.out:
		return m, nil
	case err := <-s.failed:
		return dataflow.Message{}, err
	case <-ctx.Done():
		return dataflow.Message{}, ctx.Err()
	}
}

func (s *Source) startStreaming(ctx context.Context) error {
	// Other readers' changes that weir itself applied here come back only if somebody mirrors both ways; that is
	// refused by doctor, not filtered here.
	s.durable.CompareAndSwap(0, uint64(s.position))
	options := append(s.streamOptions(s.opts.WriteAhead), publicationNames([]string{s.opts.Publication}))
	admit := func(ctx context.Context, conn *pgconn.PgConn) error {
		return s.admit(ctx, conn, max(s.reached, s.position))
	}
	st, err := startStream(ctx, s.env, s.opts.Config, admit, s.opts.Slot, s.position, s.position, options, s.opts.StatusPeriod)
	if err != nil {
		return err
	}
	s.feed.set(st, nil)
	s.started = true
	s.progress.Streaming.Store(true)
	if err := s.seedDelivered(ctx); err != nil {
		return err
	}
	s.reader = &reader{
		relations: s, emit: s.send, dec: pgoutput.NewDecoder(s.protocol()), rels: map[uint32]*relation{}, open: map[uint32]bool{},
		position: s.position, emitted: s.position, delivered: s.delivered.Add, ahead: s.ahead,
	}
	for _, at := range s.ahead {
		s.reader.level = max(s.reader.level, at)
	}
	if err := s.enterHub(ctx); err != nil {
		return err
	}
	s.streaming.Store(true)
	s.running.Add(1)
	s.env.Go("source-receive", func() {
		defer s.running.Done()
		err := s.noteTimeline()
		if err == nil {
			err = s.agree()
		}
		if err == nil {
			err = s.receive()
		}
		if err != nil && s.ctx.Err() == nil {
			s.failed <- err
		}
	})
	s.running.Add(1)
	s.env.Go("source-discover", func() {
		defer s.running.Done()
		s.discover()
	})
	return nil
}

// send hands a message to the worker; a full queue is the back-pressure that stops the socket from being read.
func (s *Source) send(m dataflow.Message) error {
	if m.Boundary && s.reader != nil {
		if err := s.reader.mayCut(); err != nil {
			return err
		}
		s.progress.sent.Store(uint64(s.reader.position))
	}
	select {
	case s.out <- m:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// receive reads the stream until it ends.
func (s *Source) receive() error {
	lastMark := s.env.Clock.Now()
	var idleEnd pg.LSN
	moved, heard := true, false
	for {
		if !s.feed.buffered() {
			if heard {
				heard = false
				s.progress.heard.Store(s.env.Clock.Now().UnixNano())
			}
			// Nothing more is waiting: what was gathered goes out at once.
			if err := s.reader.pause(); err != nil {
				return err
			}
			if !s.reader.inTx && !s.reader.inBlock {
				// The first word of the server after rows moves the position at once; then it moves at its own pace.
				if idleEnd > s.reader.position && (moved || s.env.Clock.Now().Sub(lastMark) >= s.opts.HeartbeatPeriod) {
					lastMark, moved = s.env.Clock.Now(), false
					if err := s.reader.idle(idleEnd); err != nil {
						return err
					}
				}
				if err := s.attend(); err != nil {
					return err
				}
				// What was waited for may be a table that has just been let go.
				if s.reader.levelled() || !s.consistent {
					if err := s.agree(); err != nil {
						return err
					}
				}
				if err := s.share(true); err != nil {
					return err
				}
			}
		}
		e, err := s.feed.next()
		if errors.Is(err, errInterrupted) {
			continue
		}
		if errors.Is(err, errExpelled) {
			if err := s.goOn(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			var pe *pgconn.PgError
			if errors.As(err, &pe) {
				return slotError(s.opts.Slot, err)
			}
			if _, ok := errs.As(err); ok {
				return err
			}
			return errs.New(errs.SourceUnreachable, "lost source %s: %w", s.opts.Config.Server(), err).Because(err)
		}
		heard = true
		if e.Kind == pgoutput.Keepalive {
			idleEnd = pg.LSN(e.WALEnd)
			if err := s.keepalive(idleEnd); err != nil {
				return err
			}
			continue
		}
		s.progress.Received.Add(int64(len(e.Payload)))
		if end := uint64(e.WALEnd); end > s.progress.ServerEnd.Load() {
			s.progress.ServerEnd.Store(end)
		}
		if err := s.env.Fail.Hit(FailRead); err != nil {
			return s.failpoint(err)
		}
		wasTx := s.reader.inTx
		if err := s.reader.step(e.Payload); err != nil {
			return err
		}
		if wasTx && !s.reader.inTx {
			moved = true
			if len(s.filters) > 0 {
				if err := s.settle(s.reader.position); err != nil {
					return err
				}
			}
			if s.reader.levelled() {
				if err := s.agree(); err != nil {
					return err
				}
			}
			if s.finishing {
				if err := s.alone(); err != nil {
					return err
				}
			}
			// Under steady load the socket is hardly ever empty between two transactions.
			if len(s.commands) > 0 || len(s.again) > 0 || s.copying.Load() {
				if err := s.attend(); err != nil {
					return err
				}
			}
			if s.member != nil && s.member.invited.Load() {
				if err := s.share(false); err != nil {
					return err
				}
			}
		}
	}
}

// keepalive is told the server's position. The server tells it in the middle of a transaction too.
func (s *Source) keepalive(end pg.LSN) error {
	s.progress.ServerEnd.Store(uint64(end))
	if !s.reader.between() {
		return nil // a mark would cut the transaction in two
	}
	if s.reader.rows == nil && s.reader.position == s.reader.emitted {
		s.progress.nothing.Store(uint64(end))
	}
	return s.settle(end)
}

func (s *Source) failpoint(err error) error {
	if errors.Is(err, failpoint.ErrKill) {
		s.env.Crash(err)
	}
	return err
}

// Confirm implements dataflow.Source.
func (s *Source) Confirm(state []dataflow.StateChange) {
	if !s.feed.started() {
		return
	}
	for _, c := range state {
		s.notes.durable(c)
		s.copyStored(c)
		if c.Key != positionKey {
			continue
		}
		if lsn, err := pg.ParseLSN(string(c.Value)); err == nil {
			if s.env.Fail.Hit(FailConfirm) != nil {
				s.env.Crash(failpoint.ErrKill)
			}
			s.confirm(lsn)
			if s.env.Fail.Hit(FailConfirmed) != nil {
				s.env.Crash(failpoint.ErrKill)
			}
		}
	}
}

// Close implements dataflow.Source.
func (s *Source) Close(ctx context.Context) error {
	if s.stop != nil {
		s.stop()
	}
	s.copy.close(ctx)
	s.feed.close()
	s.running.Wait()
	if s.member != nil {
		s.hub.exit(ctx, s.member)
	}
	if s.ctl != nil {
		return s.ctl.Close(ctx)
	}
	return nil
}

// Lag is how much of the source's log is not at the target, which is at the given position; -1 if it is not known. What
// the server has decoded and found nothing in counts as there.
func (s *Source) Lag(at pg.LSN) int64 {
	end := s.progress.LogEnd.Load()
	if end == 0 {
		return -1
	}
	end = max(end, s.progress.ServerEnd.Load())
	return max(int64(end)-int64(s.Reached(at)), 0)
}

// Reached is how far a target has come that has everything up to at: if that is all that was sent, then up to where the
// server has told that there is nothing more. What is stored of it follows at the pace of an idle position.
func (s *Source) Reached(at pg.LSN) pg.LSN {
	nothing := s.progress.nothing.Load() // first: what was sent before the server said so counts
	if uint64(at) < s.progress.sent.Load() {
		return at
	}
	return max(at, pg.LSN(nothing))
}

// hearLimit is what an answer of the server may take.
const hearLimit = 3 * time.Second

// Silence is for how long nothing has been heard of the server, neither on the stream nor as an answer about its log's end,
// for which it is asked in each discovery period; 0 as long as that is nothing out of the ordinary. What the source has
// committed meanwhile is not known, so that is the least by which the target may be behind.
func (s *Source) Silence(now time.Time) time.Duration {
	heard := s.progress.heard.Load()
	if heard == 0 {
		return 0
	}
	if silence := now.Sub(time.Unix(0, heard)); silence > s.opts.DiscoveryPeriod+hearLimit {
		return silence
	}
	return 0
}

// Looked is when the catalog was last seen with no table that is not known here; zero if never.
func (s *Source) Looked() time.Time {
	if ns := s.progress.Looked.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// Tables reports the progress of every table's copy.
func (s *Source) Tables() []TableProgress {
	s.progress.mu.Lock()
	defer s.progress.mu.Unlock()
	out := make([]TableProgress, 0, len(s.progress.tables))
	for _, t := range s.progress.tables {
		out = append(out, *t)
	}
	return out
}

// Specs are the mirrored tables as the catalog described them when the Source was opened.
func (s *Source) Specs() map[uint32]*pg.Table { return s.specs }

func (s *Source) tableProgress(oid uint32, fn func(*TableProgress)) {
	s.progress.mu.Lock()
	defer s.progress.mu.Unlock()
	if t := s.progress.tables[oid]; t != nil {
		fn(t)
	}
}

var (
	_ dataflow.Source = (*Source)(nil)
	_ dataflow.Copier = (*Source)(nil)
)
