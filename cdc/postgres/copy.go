package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
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
	if key == nil || t.Bytes <= s.opts.RangeBytes {
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
	n := int((t.Bytes + s.opts.RangeBytes - 1) / s.opts.RangeBytes)
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

// OpenRange implements dataflow.Copier.
func (s *Source) OpenRange(ctx context.Context, worker int, r dataflow.Range) (dataflow.RangeStream, error) {
	c := &s.copy
	cr := c.byID[r.ID]
	t := s.specs[cr.oid]
	if t == nil {
		return nil, errs.New(errs.EngineInternal, "range %s is not part of the copy", r.ID)
	}
	conn, err := s.viewing(ctx, worker)
	if err != nil {
		return nil, err
	}
	if !c.postponed(cr.oid, false) {
		same, err := s.hold(ctx, conn, t)
		if err != nil {
			return nil, err
		}
		if !same {
			s.env.Log.Info("table changed before its copy; it is copied beside the stream", "table", t.String())
			c.postponed(cr.oid, true)
		}
	}
	if c.postponed(cr.oid, false) {
		return s.emptyRange(cr.oid), nil
	}
	cols, binary := s.copyColumns(t)
	st := &rangeStream{source: s, oid: cr.oid, binary: binary, columns: cols, conn: conn, worker: worker,
		pieces: make(chan piece, 2), free: make(chan []byte, 4), stop: make(chan struct{})}
	sql := s.copyOut(t, cols, cr.where(t), binary)
	s.tableProgress(cr.oid, func(p *TableProgress) { p.Copying = true })
	s.running.Add(1)
	s.env.Go("source-copy", func() {
		defer s.running.Done()
		st.run(ctx, sql)
	})
	return st, nil
}

// hold keeps the table from being changed until the worker ends. It tells whether the table is still as the copy's plan
// has it: it has its name, no column came or went, and it was not written anew since before the worker's view was taken;
// see filenodes.
func (s *Source) hold(ctx context.Context, conn *pgconn.PgConn, t *pg.Table) (same bool, err error) {
	results, err := conn.Exec(ctx, fmt.Sprintf(`SAVEPOINT hold; LOCK TABLE %[1]s IN ACCESS SHARE MODE;
		SELECT coalesce(%[2]s, ''), (SELECT string_agg(concat_ws(' ', attnum, attname, atttypid::int8, atttypmod), ',' ORDER BY attnum)
			FROM pg_attribute WHERE attrelid = %[3]d AND attnum > 0 AND NOT attisdropped);
		RELEASE hold`,
		only(t), filenodesOf(fmt.Sprintf("%d::oid", t.OID)), t.OID)).ReadAll()
	var refused *pgconn.PgError
	if errors.As(err, &refused) && (refused.Code == "42P01" || refused.Code == "3F000") { // renamed or dropped
		if _, err := conn.Exec(ctx, "ROLLBACK TO hold; RELEASE hold").ReadAll(); err != nil {
			return false, s.lost(err)
		}
		return false, nil
	}
	if err != nil {
		return false, s.lost(err)
	}
	answer := results[len(results)-2].Rows
	if len(answer) != 1 {
		return false, errs.New(errs.SourceProtocol, "lock %s: unexpected answer", t)
	}
	var cols []string
	for _, c := range t.Columns {
		cols = append(cols, fmt.Sprintf("%d %s %d %d", c.Attnum, c.Name, c.Type.OID, c.Mod))
	}
	return string(answer[0][0]) == s.files[t.OID] && string(answer[0][1]) == strings.Join(cols, ","), nil
}

// emptyRange stands for a range of a table that changed before its copy: it is copied beside the stream instead, which
// knows how to follow a change of shape.
type emptyRange struct{ columns []string }

func (e emptyRange) Format() string                       { return "pgcopy-text" }
func (e emptyRange) Columns() []string                    { return e.columns }
func (e emptyRange) Next(context.Context) ([]byte, error) { return nil, io.EOF }
func (e emptyRange) Rows() int64                          { return 0 }
func (e emptyRange) Close() error                         { return nil }

// postponed tells whether the table's copy was put off, and puts it off if now is set.
func (c *copyState) postponed(oid uint32, now bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now {
		if c.later == nil {
			c.later = map[uint32]bool{}
		}
		c.later[oid] = true
	}
	return c.later[oid]
}

func (s *Source) emptyRange(oid uint32) emptyRange {
	var e emptyRange
	for _, c := range s.tables[oid].Columns {
		if !s.opts.Excluded(s.tables[oid].Schema, s.tables[oid].Name, c.Name) {
			e.columns = append(e.columns, c.Name)
		}
	}
	return e
}

// copyColumns are the columns to copy and whether binary is exact for all of them.
func (s *Source) copyColumns(t *pg.Table) (cols []string, binary bool) {
	binary = !s.opts.Text && (s.opts.CopyText == nil || !s.opts.CopyText(t.Schema, t.Name))
	for _, c := range t.Columns {
		if c.Generated != 0 || s.opts.Excluded(t.Schema, t.Name, c.Name) {
			continue
		}
		cols = append(cols, c.Name)
		binary = binary && pg.BinaryExact(c.Type)
	}
	return cols, binary
}

func (r copyRange) where(t *pg.Table) string {
	var conds []string
	if key := integerKey(t); key != nil {
		if r.lo != nil {
			conds = append(conds, fmt.Sprintf("%s > %d", pg.Ident(key.Name), *r.lo))
		}
		if r.hi != nil {
			conds = append(conds, fmt.Sprintf("%s <= %d", pg.Ident(key.Name), *r.hi))
		}
	}
	return strings.Join(conds, " AND ")
}

func (s *Source) copyOut(t *pg.Table, cols []string, where string, binary bool) string {
	filter := s.opts.Filter(t.Schema, t.Name)
	if filter != "" {
		if where != "" {
			where += " AND "
		}
		where += "(" + filter + ")"
	}
	format := ""
	if binary {
		format = " (FORMAT binary)"
	}
	if where == "" && t.Kind == 'r' {
		return "COPY " + pg.Qualified(t.Schema, t.Name) + " (" + pg.Idents(cols) + ") TO STDOUT" + format
	}
	sql := "COPY (SELECT " + pg.Idents(cols) + " FROM " + only(t)
	if where != "" {
		sql += " WHERE " + where
	}
	return sql + ") TO STDOUT" + format
}

// viewing is a worker's connection inside a transaction with the copy's snapshot.
func (s *Source) viewing(ctx context.Context, worker int) (*pgconn.PgConn, error) {
	c := &s.copy
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.viewing[worker]; conn != nil {
		return conn, nil
	}
	conn, err := pg.Connect(ctx, s.env, s.opts.Config, pg.ConnectOptions{AppName: appName + " copy", ReadBuffer: pieceSize})
	if err != nil {
		return nil, s.lost(err)
	}
	_, err = conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT "+pg.Literal(c.snapshot)).ReadAll()
	if err != nil {
		_ = conn.Close(ctx)
		return nil, s.lost(err)
	}
	if c.viewing == nil {
		c.viewing = map[int]*pgconn.PgConn{}
	}
	c.viewing[worker] = conn
	return conn, nil
}

// unknownHigh stands for the log's end as it will be at the end of the copy.
const unknownHigh = pg.LSN(math.MaxUint64)

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

// rangeStream reads one COPY TO and hands it on in pieces; the server sends one message a row, so they are gathered.
type rangeStream struct {
	source  *Source
	oid     uint32
	binary  bool
	columns []string
	conn    *pgconn.PgConn
	worker  int
	pieces  chan piece
	free    chan []byte
	stop    chan struct{}
	once    sync.Once
	ended   bool
	last    []byte
	cur     piece
	err     error
	rows    int64
	told    int64 // of them, to the progress
}

// piece is what was read of a COPY, and how many messages that took: about one a row.
type piece struct {
	data []byte
	rows int64
}

const pieceSize = 128 << 10

func (r *rangeStream) run(ctx context.Context, sql string) {
	defer close(r.pieces)
	tag, err := r.conn.CopyTo(ctx, r, sql)
	if err != nil {
		r.err = err
		return
	}
	r.rows = tag.RowsAffected()
	if len(r.cur.data) > 0 {
		select {
		case r.pieces <- r.cur:
		case <-r.stop:
		}
	}
}

// Write implements io.Writer for CopyTo.
func (r *rangeStream) Write(p []byte) (int, error) {
	if len(r.cur.data) > 0 && len(r.cur.data)+len(p) > pieceSize {
		select {
		case r.pieces <- r.cur:
		case <-r.stop:
			return 0, context.Canceled
		}
		r.cur.rows = 0
		select {
		case used := <-r.free:
			r.cur.data = used[:0]
		default:
			r.cur.data = make([]byte, 0, pieceSize)
		}
	}
	r.cur.data = append(r.cur.data, p...)
	r.cur.rows++
	return len(p), nil
}

func (r *rangeStream) Format() string {
	if r.binary {
		return "pgcopy-binary"
	}
	return "pgcopy-text"
}

func (r *rangeStream) Columns() []string { return r.columns }
func (r *rangeStream) Rows() int64       { return r.rows }

func (r *rangeStream) Next(ctx context.Context) ([]byte, error) {
	if r.last != nil && cap(r.last) <= 2*pieceSize {
		select {
		case r.free <- r.last:
		default:
		}
	}
	r.last = nil
	select {
	case p, ok := <-r.pieces:
		if !ok {
			r.ended = true
			if r.err != nil {
				return nil, r.source.lost(r.err)
			}
			r.source.tableProgress(r.oid, func(p *TableProgress) { p.Rows += r.rows - r.told })
			return nil, io.EOF
		}
		r.last, r.told = p.data, r.told+p.rows
		r.source.tableProgress(r.oid, func(t *TableProgress) { t.Rows, t.Bytes = t.Rows+p.rows, t.Bytes+int64(len(p.data)) })
		return p.data, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends the stream early; a COPY cannot be stopped half-way without its connection.
func (r *rangeStream) Close() error {
	r.once.Do(func() {
		close(r.stop)
		if !r.ended {
			r.source.dropViewing(r.worker)
		}
	})
	return nil
}

func (s *Source) dropViewing(worker int) {
	s.copy.mu.Lock()
	defer s.copy.mu.Unlock()
	if c := s.copy.viewing[worker]; c != nil {
		delete(s.copy.viewing, worker)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = c.Close(ctx)
	}
}
