package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/cdc/snapshot"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// The first copy.
//
// The slot is created with an exported snapshot, which holds exactly what the stream does not bring, and tables are
// read under it, several ranges at once, before the stream is started: nothing has to be reconciled. Each range is
// loaded in one transaction together with the note that it is done.
//
// After a crash that snapshot is gone with the connection that exported it. What was loaded stays; the remaining ranges
// are read under a new snapshot, later than the slot's start, and the stream, which still begins at the slot's start,
// brings changes that the new snapshot already held. Those are told by transaction number (cdc/snapshot) and dropped
// until the stream is past where the log stood after the last such range was read.

// copyState is the first copy's plan and progress.
type copyState struct {
	later  map[uint32]bool // tables whose copy was put off; guarded by mu
	ranges []copyRange
	byID   map[string]copyRange // ranges by their ids
	done   map[string]doneRange
	bounds map[uint32]copyBounds

	exporter *pgconn.PgConn // holds the slot's snapshot; nil after a restart
	holder   *pgx.Conn      // holds a later snapshot
	snapshot string         // exported name
	view     *snapshot.View // of a later snapshot; nil: the slot's own
	mu       sync.Mutex
	viewing  map[int]*pgconn.PgConn
	initial  []dataflow.StateChange
}

// copyRange is a table, or a range (lo, hi] of its integer key.
type copyRange struct {
	oid    uint32
	part   int
	parts  int
	lo, hi *int64
}

func (r copyRange) id() string { return fmt.Sprintf("%d/%d", r.oid, r.part) }

// doneRange is the note that a range was loaded, and under which view if that was not the slot's.
type doneRange struct {
	View  string `json:"view,omitempty"`
	High  string `json:"high,omitempty"`
	Later bool   `json:"later,omitempty"` // put off: the table is copied beside the stream
}

const (
	doneKey   = "done/"   // done/OID/PART
	boundsKey = "bounds/" // bounds/OID: copyBounds of a table copied in ranges
)

// copyBounds are where a table's copy is cut into ranges.
type copyBounds struct {
	Key int16   `json:"key"` // number of the integer key's column
	At  []int64 `json:"at"`  // inner bounds; a range holds its upper one
}

// begin makes the slot and plans the copy.
func (s *Source) begin(ctx context.Context, specs []*pg.Table) error {
	if err := s.env.Fail.Hit(FailCopyStart); err != nil {
		return s.failpoint(err)
	}
	if err := s.dropStaleSlot(ctx); err != nil {
		return err
	}
	parts, err := s.partitions(ctx, s.ctl) // before anything of them is read
	if err != nil {
		return s.lost(err)
	}
	conn, err := pg.Connect(ctx, s.env, s.opts.Config, pg.ConnectOptions{AppName: appName, Replication: true})
	if err != nil {
		return errs.New(errs.SourceUnreachable, "cannot open a replication connection to %s: %w", s.opts.Config.Server(), err).Because(err)
	}
	c := &s.copy
	c.exporter = conn
	// The catalog tells an older timeline until the checkpoint after a promotion has ended; a walsender does not.
	now, err := pg.IdentifySystem(ctx, conn)
	if err != nil {
		return s.lost(err)
	}
	s.timeline.Store(uint32(now.Timeline))
	if s.position, c.snapshot, err = s.createSlot(ctx, conn); err != nil {
		return err
	}
	if specs, err = s.settleSpecs(ctx, specs); err != nil {
		c.close(ctx)
		// What could not be begun must not hold the server's log back.
		if _, derr := s.ctl.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, s.opts.Slot); derr != nil {
			s.env.Log.Warn("the slot of a start that failed stays until the next", "slot", s.opts.Slot, "error", derr)
		}
		return err
	}
	c.initial = []dataflow.StateChange{s.systemState(), {Key: slotKey, Value: []byte(s.opts.Slot)}}
	c.initial = append(c.initial, positionState(s.position)...)
	c.bounds, c.done = map[uint32]copyBounds{}, map[string]doneRange{}
	s.parts = filesOf(parts)
	for _, t := range specs {
		c.initial = append(c.initial, s.leaveColumns(t)...)
		shape := s.shapeOf(t)
		s.tables[t.OID] = shape
		c.initial = append(c.initial, shape.state(t.OID))
		if files := s.parts[t.OID]; files != nil {
			c.initial = append(c.initial, partitionsState(t.OID, files))
		}
		if s.opts.NoCopy {
			continue
		}
		bounds, err := s.planRanges(ctx, t)
		if err != nil {
			return err
		}
		if len(bounds) > 0 {
			b := copyBounds{Key: integerKey(t).Attnum, At: bounds}
			c.bounds[t.OID] = b
			v, err := json.Marshal(b)
			if err != nil {
				return err
			}
			c.initial = append(c.initial, dataflow.StateChange{Key: boundsKey + strconv.FormatUint(uint64(t.OID), 10), Value: v})
		}
	}
	if s.opts.NoCopy {
		return nil // no ranges: the copy is complete as it is
	}
	c.plan(specs)
	return nil
}

// settleSpecs describes the tables once more as the slot's snapshot has them, and lets the target's tables be made from
// the same view: a table may have changed while the slot waited for the transactions before it.
func (s *Source) settleSpecs(ctx context.Context, specs []*pg.Table) ([]*pg.Table, error) {
	conn, err := pg.ConnectPgx(ctx, s.env, s.opts.Config, pg.ConnectOptions{AppName: appName + " snapshot"})
	if err != nil {
		return nil, s.lost(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "SET TRANSACTION SNAPSHOT " + pg.Literal(s.copy.snapshot)} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return nil, s.lost(err)
		}
	}
	oids := make([]uint32, len(specs))
	for i, t := range specs {
		oids[i] = t.OID
	}
	clear(s.specs)
	s.progress.mu.Lock()
	clear(s.progress.tables) // those that are gone by now would never be done
	s.progress.mu.Unlock()
	if specs, err = pg.LoadShapes(ctx, conn, oids); err != nil {
		return nil, s.lost(err)
	}
	if err := s.describe(specs); err != nil {
		return nil, err
	}
	_ = conn.Close(context.WithoutCancel(ctx)) // Prepare reads on connections of its own, and must not queue behind this one
	if s.opts.Prepare == nil {
		return specs, nil
	}
	return specs, s.opts.Prepare(ctx, s.copy.snapshot, oids)
}

// integerKey is the column of a one-column integer key, the kind of key that both sides order alike.
func integerKey(t *pg.Table) *pg.Column {
	if t.PrimaryKey == nil || len(t.PrimaryKey.Columns) != 1 || !t.PrimaryKey.Arbiter() {
		return nil
	}
	if c := t.Column(t.PrimaryKey.Columns[0]); c != nil && isInteger(c.Type.OID) {
		return c
	}
	return nil
}

// isInteger tells bigint, smallint and integer.
func isInteger(oid uint32) bool { return oid == 20 || oid == 21 || oid == 23 }

func (s *Source) planRanges(ctx context.Context, t *pg.Table) ([]int64, error) {
	key := integerKey(t)
	n := int((t.Bytes + s.opts.RangeBytes - 1) / s.opts.RangeBytes)
	if s.opts.RangeRows > 0 {
		n = max(n, int((t.RelTuples+s.opts.RangeRows-1)/s.opts.RangeRows))
	}
	if key == nil || n <= 1 {
		return nil, nil
	}
	var lo, hi *int64
	name := pg.Ident(key.Name)
	sql := "SELECT (SELECT " + name + "::int8 FROM " + only(t) + " ORDER BY " + name + " LIMIT 1), (SELECT " + name + "::int8 FROM " + only(t) + " ORDER BY " + name + " DESC LIMIT 1)"
	if err := s.ctl.QueryRow(ctx, sql).Scan(&lo, &hi); err != nil {
		return nil, s.lost(err)
	}
	if lo == nil || hi == nil {
		return nil, nil
	}
	return snapshot.Bounds(*lo, *hi, min(n, 4096)), nil
}

func only(t *pg.Table) string {
	if t.Kind == 'p' {
		return pg.Qualified(t.Schema, t.Name)
	}
	return "ONLY " + pg.Qualified(t.Schema, t.Name)
}

func (c *copyState) plan(specs []*pg.Table) {
	c.byID = map[string]copyRange{}
	for _, t := range specs {
		bounds := c.bounds[t.OID].At
		parts := len(bounds) + 1
		for i := range parts {
			r := copyRange{oid: t.OID, part: i, parts: parts}
			if i > 0 {
				r.lo = &bounds[i-1]
			}
			if i < len(bounds) {
				r.hi = &bounds[i]
			}
			if _, done := c.done[r.id()]; !done {
				c.ranges = append(c.ranges, r)
				c.byID[r.id()] = r
			}
		}
	}
}

// restore takes up a copy, or what is left of its consequences, after a restart.
func (c *copyState) restore(s *Source, state dataflow.State) error {
	c.bounds, c.done = map[uint32]copyBounds{}, map[string]doneRange{}
	for key, value := range state {
		switch {
		case strings.HasPrefix(key, boundsKey):
			oid, err := strconv.ParseUint(key[len(boundsKey):], 10, 32)
			if err != nil {
				return errs.New(errs.StateCorrupt, "stored key %q", key)
			}
			var b copyBounds
			if err := json.Unmarshal(value, &b); err != nil {
				return errs.New(errs.StateCorrupt, "stored bounds of table %d: %w", oid, err).Because(err)
			}
			c.bounds[uint32(oid)] = b
		case strings.HasPrefix(key, doneKey):
			var d doneRange
			if err := json.Unmarshal(value, &d); err != nil {
				return errs.New(errs.StateCorrupt, "stored range %q: %w", key, err).Because(err)
			}
			c.done[key[len(doneKey):]] = d
		}
	}
	if s.live {
		return c.arm(s)
	}
	var specs []*pg.Table
	for _, t := range s.specs {
		specs = append(specs, t)
	}
	c.plan(specs)
	for _, r := range c.ranges {
		key := integerKey(s.specs[r.oid])
		rekeyed := r.parts > 1 && (key == nil || key.Attnum != c.bounds[r.oid].Key)
		if known := s.tables[r.oid]; rekeyed || known != nil && !sameColumns(known, s.shapeOf(s.specs[r.oid])) {
			c.postponed(r.oid, true)
		}
	}
	// What is left of a table that is gone is not copied; what the stream has of it must not look for its rows.
	for oid := range s.tables {
		if s.specs[oid] == nil {
			c.postponed(oid, true)
		}
	}
	for _, t := range specs {
		s.tableProgress(t.OID, func(p *TableProgress) {
			p.Done = true
			for _, r := range c.ranges {
				if r.oid == t.OID {
					p.Done = false
				}
			}
		})
	}
	return nil
}

// arm sets the filters that ranges copied under later views need.
func (c *copyState) arm(s *Source) error {
	later := map[uint32]bool{}
	for id, d := range c.done {
		if d.View != "" {
			oid, _, _ := strings.Cut(id, "/")
			n, err := strconv.ParseUint(oid, 10, 32)
			if err != nil {
				return errs.New(errs.StateCorrupt, "stored range %q", id)
			}
			later[uint32(n)] = true
		}
	}
	for oid := range later {
		bounds := c.bounds[oid].At
		f := &tableFilter{num: c.bounds[oid].Key, standby: s.standby}
		if known := s.tables[oid]; known != nil && !f.follow(known) {
			return errs.New(errs.StateCorrupt, "stored bounds of table %d: it has no column %d", oid, f.num)
		}
		for part := 0; part <= len(bounds); part++ {
			r := filterRange{}
			if part < len(bounds) {
				r.through = &bounds[part]
			}
			if d := c.done[fmt.Sprintf("%d/%d", oid, part)]; d.View != "" {
				view, err := snapshot.ParseView(d.View)
				if err != nil {
					return errs.New(errs.StateCorrupt, "stored range %d/%d: %w", oid, part, err).Because(err)
				}
				if r.high, err = pg.ParseLSN(d.High); err != nil {
					return errs.New(errs.StateCorrupt, "stored range %d/%d: %w", oid, part, err).Because(err)
				}
				r.view = &view
			}
			f.ranges = append(f.ranges, r)
		}
		if !f.past(s.position) {
			s.setFilter(oid, f)
		}
	}
	return nil
}

// Copied implements dataflow.Copier.
func (s *Source) Copied() bool { return s.live }

// Ranges implements dataflow.Copier.
func (s *Source) Ranges(ctx context.Context) ([]dataflow.Range, []dataflow.StateChange, error) {
	c := &s.copy
	initial := c.initial
	c.initial = nil
	if s.live || len(c.ranges) == 0 {
		return nil, initial, nil
	}
	if c.exporter == nil {
		if err := s.laterSnapshot(ctx); err != nil {
			return nil, nil, err
		}
	}
	var out []dataflow.Range
	for _, r := range c.ranges {
		t := s.specs[r.oid]
		if t == nil {
			continue // dropped since
		}
		known := s.tables[r.oid] // the target has it under this name, until the stream tells of another
		out = append(out, dataflow.Range{
			ID: r.id(), Rel: &changelog.Relation{ID: r.oid, Schema: known.Schema, Name: known.Name},
			EstRows: t.RelTuples / int64(r.parts), EstBytes: t.Bytes / int64(r.parts),
		})
	}
	return out, initial, nil
}

// laterSnapshot takes the view that what is left will be read under.
func (s *Source) laterSnapshot(ctx context.Context) error {
	c := &s.copy
	var err error
	if c.holder, err = pg.ConnectPgx(ctx, s.env, s.opts.Config, pg.ConnectOptions{AppName: appName + " snapshot"}); err != nil {
		return s.lost(err)
	}
	if _, err := c.holder.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return s.lost(err)
	}
	var view string
	if err := c.holder.QueryRow(ctx, "SELECT pg_export_snapshot(), "+s.currentSnapshot()).Scan(&c.snapshot, &view); err != nil {
		return s.lost(err)
	}
	v, err := snapshot.ParseView(view)
	if err != nil {
		return err
	}
	c.view = &v
	return s.sealView(ctx)
}

// currentSnapshot is the SQL for the session's view; 12 has it under an older name.
func (s *Source) currentSnapshot() string {
	if s.version < 130000 {
		return "txid_current_snapshot()::text"
	}
	return "pg_current_snapshot()::text"
}

// walNow is the SQL for the end of the log.
func (s *Source) walNow() string {
	if s.standby {
		return "pg_last_wal_replay_lsn()::text"
	}
	return "pg_current_wal_insert_lsn()::text"
}

// RangeState implements dataflow.Copier.
func (s *Source) RangeState(r dataflow.Range, rows int64) []dataflow.StateChange {
	d := doneRange{Later: s.copy.postponed(oidOf(r.ID), false)}
	if s.copy.view != nil {
		d.View = s.copy.view.String()
		// Everything that the view holds lies before the log's end as it is now; MaxUint64 stands for "asked at the
		// end of the copy", see CopyDone.
		d.High = unknownHigh.String()
	}
	v, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	_ = rows
	// With its timeline: behind a failover the view means nothing on the old one.
	return []dataflow.StateChange{s.systemState(), {Key: doneKey + r.ID, Value: v}}
}

// oidOf is the table of a range, which the range's id begins with.
func oidOf(id string) uint32 {
	oid, _, _ := strings.Cut(id, "/")
	n, err := strconv.ParseUint(oid, 10, 32)
	if err != nil {
		panic(err) // ids are made by copyRange
	}
	return uint32(n)
}

// CopyDone implements dataflow.Copier.
func (s *Source) CopyDone(ctx context.Context) ([]dataflow.StateChange, error) {
	c := &s.copy
	state := []dataflow.StateChange{{Key: liveKey, Value: []byte("1")}}
	if !s.live {
		for _, r := range c.ranges {
			if _, ok := c.done[r.id()]; !ok {
				d := doneRange{}
				if c.view != nil {
					d = doneRange{View: c.view.String()}
				}
				c.done[r.id()] = d
			}
		}
		for id, d := range c.done {
			if d.Later {
				c.postponed(oidOf(id), true)
			}
		}
		var high string
		for id, d := range c.done {
			if c.later[oidOf(id)] {
				state = append(state, dataflow.StateChange{Key: doneKey + id})
				delete(c.done, id)
				continue
			}
			if d.View == "" {
				// Read under the slot's own snapshot: nothing is left to remember.
				state = append(state, dataflow.StateChange{Key: doneKey + id})
				continue
			}
			if high == "" {
				if err := s.ctl.QueryRow(ctx, "SELECT "+s.walNow()).Scan(&high); err != nil {
					return nil, s.lost(err)
				}
			}
			d.High = high
			c.done[id] = d
			v, err := json.Marshal(d)
			if err != nil {
				return nil, err
			}
			state = append(state, dataflow.StateChange{Key: doneKey + id, Value: v})
		}
	}
	s.live = true
	c.close(ctx)
	if err := c.arm(s); err != nil {
		return nil, err
	}
	for oid := range c.later {
		s.copies[oid] = &liveCopy{First: true}
		if err := s.armLive(oid); err != nil {
			return nil, err
		}
		state = append(state, liveCopyState(oid, s.copies[oid]))
		s.copying.Store(true)
	}
	for oid := range s.specs {
		s.tableProgress(oid, func(p *TableProgress) { p.Done, p.Copying = !c.later[oid], c.later[oid] })
	}
	return state, nil
}

func (c *copyState) close(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	for _, l := range c.viewing {
		_ = l.Close(ctx)
	}
	c.viewing = nil
	if c.exporter != nil {
		_ = c.exporter.Close(ctx)
		c.exporter = nil
	}
	if c.holder != nil {
		_ = c.holder.Close(ctx)
		c.holder = nil
	}
}
