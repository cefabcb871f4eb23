package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// One range of the first copy: how it is read, and the stream of its bytes.

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
	ctx, cancel := context.WithCancel(ctx)
	st := &rangeStream{source: s, oid: cr.oid, binary: binary, columns: cols, conn: conn, worker: worker,
		cancel: cancel, pieces: make(chan piece, 2), free: make(chan []byte, 4), stop: make(chan struct{})}
	sql := s.copyOut(t, cols, cr.where(t), binary)
	s.tableProgress(cr.oid, func(p *TableProgress) { p.Copying = true })
	s.running.Add(1)
	s.env.Go("source-copy", func() {
		defer s.running.Done()
		st.run(ctx, sql)
	})
	return st, nil
}

// RangeKey is the column that bounds a range of the first copy and its bounds, (after, through]; "" and nil for a table that
// is copied in one piece.
func (s *Source) RangeKey(r dataflow.Range) (column string, after, through *int64) {
	cr := s.copy.byID[r.ID]
	if key := integerKey(s.specs[cr.oid]); key != nil && cr.parts > 1 {
		return key.Name, cr.lo, cr.hi
	}
	return "", nil, nil
}

// Agrees tells, behind Open, whether what was stored is past the first copy and everything that it saw.
func (s *Source) Agrees() bool { return s.consistent }

// Agreed tells whether what is stored says that the stream is past the first copy and everything that it saw, and
// AgreedBy whether a change of it does.
func Agreed(state dataflow.State) bool { return state[consistentKey] != nil }

// AgreedBy is Agreed of changes.
func AgreedBy(state []dataflow.StateChange) bool {
	return slices.ContainsFunc(state, func(c dataflow.StateChange) bool { return c.Key == consistentKey && c.Value != nil })
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
		if !s.leftOut(oid, s.tables[oid].Schema, s.tables[oid].Name, c.Name, c.Attnum) {
			e.columns = append(e.columns, c.Name)
		}
	}
	return e
}

// copyColumns are the columns to copy and whether binary is exact for all of them.
func (s *Source) copyColumns(t *pg.Table) (cols []string, binary bool) {
	binary = !s.opts.Text && (s.opts.CopyText == nil || !s.opts.CopyText(t.Schema, t.Name))
	for _, c := range t.Columns {
		if c.Generated != 0 || s.leaves(t, &c) {
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
	filter, known := s.conditions[t.OID]
	if !known {
		filter = s.opts.Filter(t.Schema, t.Name)
	}
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
	cancel  context.CancelFunc // of its reading
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
			if bad := notUTF8(r.err); bad != nil {
				known := r.source.tables[r.oid]
				return nil, bad.WithDetail("while table %s was copied", pg.DottedName(known.Schema, known.Name))
			}
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
		r.cancel()
		if !r.ended {
			for range r.pieces { // until it has let go of its connection
			}
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
