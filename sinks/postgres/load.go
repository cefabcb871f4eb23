package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// loader holds one connection for each lane. Loads are transactions of their own, which is sound because nothing is
// streamed before the last of them: the first cut behind the copy is the first consistent one.
type loader struct {
	mu    sync.Mutex
	lanes map[int]*pgconn.PgConn
}

// Load implements dataflow.Loader.
func (t *Target) Load(ctx context.Context, lane int, r dataflow.Range, s dataflow.RangeStream, state func(rows int64) []dataflow.StateChange, progress func(bytes int64)) (int64, error) {
	rows, err := t.load(ctx, lane, r, s, state, progress)
	if err != nil {
		t.dropLane(ctx, lane)
		return 0, t.wrap(err)
	}
	return rows, nil
}

func (t *Target) load(ctx context.Context, lane int, r dataflow.Range, s dataflow.RangeStream, state func(rows int64) []dataflow.StateChange, progress func(bytes int64)) (int64, error) {
	schema, name, ok := t.opts.Route(r.Rel.Schema, r.Rel.Name)
	if !ok {
		return 0, errs.New(errs.EngineInternal, "range %s is of a table that is not mirrored", r.ID)
	}
	conn, err := t.lane(ctx, lane)
	if err != nil {
		return 0, err
	}
	if err := t.hit(FailLoad); err != nil {
		return 0, err
	}
	if _, err := conn.Exec(ctx, "BEGIN").ReadAll(); err != nil {
		return 0, err
	}
	var cols []string
	for _, c := range s.Columns() {
		cols = append(cols, pg.Ident(c))
	}
	sql := "COPY " + pg.Qualified(schema, name) + " (" + strings.Join(cols, ", ") + ") FROM STDIN"
	if s.Format() == "pgcopy-binary" {
		sql += " (FORMAT binary)"
	}
	rows := &streamReader{ctx: ctx, s: s, progress: progress}
	tag, err := conn.CopyFrom(ctx, rows, sql)
	if failed := rows.failed.Load(); failed != nil {
		return 0, *failed // the target's own error only repeats it, as a refusal
	}
	if err != nil {
		return 0, err
	}
	// The range's state and the proof that we may load at all go into the same transaction as its rows.
	keys, values := stateArrays(state(tag.RowsAffected()))
	finish := fmt.Sprintf(`SELECT "_weir"."load"(%s, %s, %d, %s, %s)`, pg.Literal(t.opts.Pipeline), pg.Literal(t.opts.Sink),
		uint64(t.gen), pg.Literal(keys)+"::text[]", pg.Literal(values)+"::bytea[]")
	if _, err := conn.Exec(ctx, finish+"; COMMIT").ReadAll(); err != nil {
		return 0, err
	}
	return tag.RowsAffected(), t.hit(FailLoaded)
}

func (t *Target) lane(ctx context.Context, lane int) (*pgconn.PgConn, error) {
	t.loads.mu.Lock()
	defer t.loads.mu.Unlock()
	if c := t.loads.lanes[lane]; c != nil {
		return c, nil
	}
	c, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	if t.loads.lanes == nil {
		t.loads.lanes = map[int]*pgconn.PgConn{}
	}
	t.loads.lanes[lane] = c
	return c, nil
}

func (t *Target) dropLane(ctx context.Context, lane int) {
	t.loads.mu.Lock()
	defer t.loads.mu.Unlock()
	if c := t.loads.lanes[lane]; c != nil {
		delete(t.loads.lanes, lane)
		_ = c.Close(context.WithoutCancel(ctx))
	}
}

func (t *Target) closeLanes(ctx context.Context) {
	t.loads.mu.Lock()
	defer t.loads.mu.Unlock()
	for _, c := range t.loads.lanes {
		_ = c.Close(context.WithoutCancel(ctx))
	}
	t.loads.lanes = nil
}

// FinishCopy implements dataflow.Loader.
func (t *Target) FinishCopy(ctx context.Context) error {
	t.closeLanes(ctx)
	// What follows must hold the loaded rows, also after a crash of the target: their state says that they are there.
	if _, err := t.ctl.Exec(ctx, `SET synchronous_commit = on`); err != nil {
		return t.wrap(err)
	}
	if t.opts.AfterCopy == nil {
		return nil
	}
	return t.wrap(t.opts.AfterCopy(ctx, t.ctl))
}

// FinishConstraints implements dataflow.Loader.
func (t *Target) FinishConstraints(ctx context.Context) error {
	if t.opts.AfterConsistent == nil {
		return nil
	}
	if err := t.opts.AfterConsistent(ctx, t.ctl); err != nil {
		return t.wrap(err)
	}
	// Tables have unique indexes now that they had not when they were first written.
	t.tables, t.byRel = map[uint32]*table{}, map[*changelog.Relation]*table{}
	return nil
}

// streamReader gives a RangeStream to COPY. Pieces are handed on as they are when they fit.
type streamReader struct {
	ctx      context.Context
	s        dataflow.RangeStream
	rest     []byte
	progress func(int64)
	failed   atomic.Pointer[error] // why the rows ended early; the copy may end before its reader does
}

func (r *streamReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		piece, err := r.s.Next(r.ctx)
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			r.failed.Store(&err)
			return 0, err
		}
		r.progress(int64(len(piece)))
		r.rest = piece
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
