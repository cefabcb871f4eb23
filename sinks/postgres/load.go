package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// loader holds one connection for each worker. Loads are transactions of their own, which is sound because nothing is
// streamed before the last of them: the first cut behind the copy is the first consistent one.
type loader struct {
	mu    sync.Mutex
	conns map[int]*pgx.Conn
}

// Load implements dataflow.Loader.
func (t *Target) Load(ctx context.Context, worker int, r dataflow.Range, s dataflow.RangeStream, state func(rows int64) []dataflow.StateChange, progress func(bytes int64)) (int64, error) {
	rows, err := t.load(ctx, worker, r, s, state, progress)
	if err != nil {
		t.dropLoading(ctx, worker)
		return 0, t.wrap(err)
	}
	return rows, nil
}

func (t *Target) load(ctx context.Context, worker int, r dataflow.Range, s dataflow.RangeStream, state func(rows int64) []dataflow.StateChange, progress func(bytes int64)) (int64, error) {
	schema, name, ok := t.opts.Route(r.Rel.Schema, r.Rel.Name)
	if !ok {
		return 0, errs.New(errs.EngineInternal, "range %s is of a table that is not mirrored", r.ID)
	}
	loading, err := t.loading(ctx, worker)
	if err != nil {
		return 0, err
	}
	conn := loading.PgConn()
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

func (t *Target) loading(ctx context.Context, worker int) (*pgx.Conn, error) {
	t.loads.mu.Lock()
	defer t.loads.mu.Unlock()
	if c := t.loads.conns[worker]; c != nil {
		return c, nil
	}
	c, err := pg.ConnectPgx(ctx, t.env, t.opts.Config, t.forData())
	if err != nil {
		return nil, errs.New(errs.TargetUnreachable, "cannot reach target %s: %w", t.opts.Config.Server(), err).Because(err)
	}
	if err := t.silence(ctx, c.PgConn()); err != nil {
		_ = c.Close(ctx)
		return nil, err
	}
	if t.loads.conns == nil {
		t.loads.conns = map[int]*pgx.Conn{}
	}
	t.loads.conns[worker] = c
	return c, nil
}

func (t *Target) dropLoading(ctx context.Context, worker int) {
	t.loads.mu.Lock()
	defer t.loads.mu.Unlock()
	if c := t.loads.conns[worker]; c != nil {
		delete(t.loads.conns, worker)
		_ = c.Close(context.WithoutCancel(ctx))
	}
}

func (t *Target) closeLoads(ctx context.Context) {
	t.loads.mu.Lock()
	defer t.loads.mu.Unlock()
	for _, c := range t.loads.conns {
		_ = c.Close(context.WithoutCancel(ctx))
	}
	t.loads.conns = nil
}

// FinishTable implements dataflow.TableFinisher, on the connection that loaded the table's last range.
func (t *Target) FinishTable(ctx context.Context, worker int, rel *changelog.Relation, beside bool) error {
	schema, name, ok := t.opts.Route(rel.Schema, rel.Name)
	if t.opts.AfterTable == nil || !ok {
		return nil
	}
	conn, err := t.loading(ctx, worker)
	if err != nil {
		return t.wrap(err)
	}
	err = t.opts.AfterTable(ctx, conn, schema, name, beside)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && (refused.Code == "55P03" || refused.Code == "40P01") {
		return nil // somebody reads the table; FinishCopy waits for that
	}
	return t.wrap(err)
}

// FinishCopy implements dataflow.Loader.
func (t *Target) FinishCopy(ctx context.Context) error {
	t.closeLoads(ctx)
	// What follows must hold the loaded rows, also after a crash of the target: their state says that they are there.
	if _, err := t.ctl.Exec(ctx, `SET synchronous_commit = `+t.flushing()); err != nil {
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
	t.forgetShapes()
	return nil
}

// forgetShapes has the target's tables looked at again: they have unique indexes that they had not when they were first
// written.
func (t *Target) forgetShapes() {
	t.tables, t.byRel = map[uint32]*table{}, map[*changelog.Relation]*table{}
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
