package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// The ledger is one row for each pipeline and sink. A target transaction that publishes a checkpoint moves the row from
// the checkpoint before to its own, and only under its generation; when no row matches, the function raises, so that
// even a client that ignored the answer could not commit. State is what the source needs to go on, stored by the same
// transaction.
//
// fenceState is the SQLSTATE of a refused advance. Class WR is not used by Postgres.
const fenceState = "WR001"

const ledgerDDL = `
CREATE SCHEMA IF NOT EXISTS "_weir";
CREATE TABLE IF NOT EXISTS "_weir"."ledger" (
	pipeline text NOT NULL,
	sink text NOT NULL,
	fence bigint NOT NULL,
	checkpoint bigint NOT NULL,
	holder_pid int,
	holder_start timestamptz,
	updated_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (pipeline, sink)
) WITH (fillfactor = 20);
CREATE TABLE IF NOT EXISTS "_weir"."state" (
	pipeline text NOT NULL,
	sink text NOT NULL,
	key text NOT NULL,
	value bytea NOT NULL,
	PRIMARY KEY (pipeline, sink, key)
) WITH (fillfactor = 50);
CREATE OR REPLACE FUNCTION "_weir"."remove"(p text, s text, keys text[]) RETURNS void
-- A plan made while the table was small would look through all of it for each key, and be kept.
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $fn$
BEGIN
	DELETE FROM "_weir"."state" AS t USING unnest(keys) AS u(k) WHERE t.pipeline = p AND t.sink = s AND t.key = u.k;
END $fn$;
CREATE OR REPLACE FUNCTION "_weir"."put"(p text, s text, keys text[], vals bytea[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $fn$
BEGIN
	INSERT INTO "_weir"."state" AS t SELECT p, s, u.k, u.v FROM unnest(keys, vals) AS u(k, v) WHERE u.v IS NOT NULL
	ON CONFLICT (pipeline, sink, key) DO UPDATE SET value = EXCLUDED.value;
	IF array_position(vals, NULL) IS NOT NULL THEN
		PERFORM "_weir"."remove"(p, s, ARRAY(SELECT u.k FROM unnest(keys, vals) AS u(k, v) WHERE u.v IS NULL));
	END IF;
END $fn$;
CREATE OR REPLACE FUNCTION "_weir"."advance"(p text, s text, f bigint, prev bigint, next bigint, keys text[], vals bytea[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $fn$
BEGIN
	UPDATE "_weir"."ledger" SET checkpoint = next, updated_at = clock_timestamp()
	WHERE pipeline = p AND sink = s AND fence = f AND checkpoint = prev;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'weir: pipeline % may not move from checkpoint % to % under generation %', p, prev, next, f
			USING ERRCODE = 'WR001';
	END IF;
	PERFORM "_weir"."put"(p, s, keys, vals);
END $fn$;
CREATE OR REPLACE FUNCTION "_weir"."publish"(p text, s text, f bigint, next bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $fn$
BEGIN
	UPDATE "_weir"."ledger" SET checkpoint = next, updated_at = clock_timestamp()
	WHERE pipeline = p AND sink = s AND fence = f AND checkpoint < next;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'weir: pipeline % may not publish checkpoint % under generation %', p, next, f USING ERRCODE = 'WR001';
	END IF;
END $fn$;
CREATE OR REPLACE FUNCTION "_weir"."load"(p text, s text, f bigint, keys text[], vals bytea[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $fn$
BEGIN
	PERFORM 1 FROM "_weir"."ledger" WHERE pipeline = p AND sink = s AND fence = f FOR SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'weir: pipeline % may not load under generation %', p, f USING ERRCODE = 'WR001';
	END IF;
	PERFORM "_weir"."put"(p, s, keys, vals);
END $fn$;
`

// ledgerVersion is compared before the objects are made again: most starts find them in place.
const ledgerVersion = "weir ledger 3"

// ledger reads and fences; advancing is part of the applier's transaction.
type ledger struct {
	conn           *pgx.Conn
	pipeline, sink string
	flushing       string // synchronous_commit of the fence
}

// ensure creates the ledger's objects. Two pipelines may start at once, hence the lock.
func (l *ledger) ensure(ctx context.Context) error {
	var have *string
	err := l.conn.QueryRow(ctx, `SELECT obj_description(to_regnamespace('_weir'), 'pg_namespace')`).Scan(&have)
	if err != nil {
		return fmt.Errorf("look for the ledger: %w", err)
	}
	if have != nil && *have == ledgerVersion {
		return nil
	}
	script := "BEGIN; SELECT pg_advisory_xact_lock(8387229391);" + ledgerDDL +
		"COMMENT ON SCHEMA \"_weir\" IS '" + ledgerVersion + "'; COMMIT"
	if _, err := l.conn.PgConn().Exec(ctx, script).ReadAll(); err != nil {
		_, _ = l.conn.PgConn().Exec(ctx, "ROLLBACK").ReadAll()
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pg.Passing(pgErr) {
			return fmt.Errorf("create the ledger: %w", err)
		}
		return errs.New(errs.TargetRejected, "cannot create schema _weir with weir's ledger: %w", err).Because(err).
			WithHint("the role needs CREATE on the database")
	}
	return nil
}

// alone refuses to go on beside sinks of the pipeline that are not of this start: their tables would stand still.
func (l *ledger) alone(ctx context.Context, sinks []string) error {
	var others *string
	if err := l.conn.QueryRow(ctx, `SELECT string_agg(sink, ', ') FROM "_weir"."ledger" WHERE pipeline = $1 AND sink <> ALL ($2) AND checkpoint > 0`,
		l.pipeline, sinks).Scan(&others); err != nil {
		return fmt.Errorf("look for other sinks in the ledger: %w", err)
	}
	if others != nil {
		return errs.New(errs.TargetRejected, "the mirror was begun with more lanes: its ledger holds %s too", *others).
			WithHint("set sink.lanes as it was, or delete the pipeline and copy anew")
	}
	return nil
}

// raise puts the fence to gen and returns the last checkpoint. The backend of whoever held the ledger before is ended,
// so that nothing it still has under way can come later or stand in our way.
func (l *ledger) raise(ctx context.Context, gen dataflow.Generation, wait func(context.Context, time.Duration) error) (dataflow.Checkpoint, error) {
	const attempts = 40
	for attempt := 0; ; attempt++ {
		checkpoint, err := l.tryRaise(ctx, gen)
		var pgErr *pgconn.PgError
		if err == nil || !errors.As(err, &pgErr) || pgErr.Code != "55P03" || attempt == attempts {
			return checkpoint, err
		}
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

func (l *ledger) tryRaise(ctx context.Context, gen dataflow.Generation) (dataflow.Checkpoint, error) {
	if _, err := l.conn.Exec(ctx, `SELECT pg_terminate_backend(holder_pid) FROM "_weir"."ledger" AS l
		JOIN pg_stat_activity AS a ON a.pid = l.holder_pid AND a.backend_start = l.holder_start
		WHERE l.pipeline = $1 AND l.sink = $2 AND l.fence < $3::bigint`, l.pipeline, l.sink, int64(gen)); err != nil {
		return 0, fmt.Errorf("end the previous holder of the ledger: %w", err)
	}
	tx, err := l.conn.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	// The fence must survive a crash of the target before anything is done under it.
	if _, err := tx.Exec(ctx, `SET LOCAL synchronous_commit = `+l.flushing); err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '500ms'`); err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO "_weir"."ledger" (pipeline, sink, fence, checkpoint) VALUES ($1, $2, 0, 0)
		ON CONFLICT DO NOTHING`, l.pipeline, l.sink); err != nil {
		return 0, err
	}
	var fence, checkpoint int64
	if err := tx.QueryRow(ctx, `SELECT fence, checkpoint FROM "_weir"."ledger" WHERE pipeline = $1 AND sink = $2 FOR UPDATE`,
		l.pipeline, l.sink).Scan(&fence, &checkpoint); err != nil {
		return 0, err
	}
	if fence == int64(gen) {
		return 0, errs.New(errs.Fenced, "another weir has started generation %d of pipeline %s at its target", gen, l.pipeline).
			WithHint("two state directories run this pipeline, one of them a copy of the other: stop one of the two")
	}
	if fence > int64(gen) {
		return 0, errs.New(errs.Fenced, "pipeline %s is held at its target by generation %d, and ours is %d", l.pipeline, fence, gen).
			WithHint("another weir runs this pipeline, or the state directory was restored from an old copy")
	}
	if _, err := tx.Exec(ctx, `UPDATE "_weir"."ledger" SET fence = $3, holder_pid = NULL, updated_at = now()
		WHERE pipeline = $1 AND sink = $2`, l.pipeline, l.sink, int64(gen)); err != nil {
		return 0, err
	}
	return dataflow.Checkpoint(checkpoint), tx.Commit(ctx)
}

// hold notes whose backend writes, for the next owner to end.
func (l *ledger) hold(ctx context.Context, gen dataflow.Generation, pid uint32) error {
	_, err := l.conn.Exec(ctx, `UPDATE "_weir"."ledger" AS l SET holder_pid = a.pid, holder_start = a.backend_start
		FROM pg_stat_activity AS a WHERE a.pid = $4::int AND l.pipeline = $1 AND l.sink = $2 AND l.fence = $3::bigint`,
		l.pipeline, l.sink, int64(gen), int64(pid))
	return err
}

func (l *ledger) state(ctx context.Context) (dataflow.State, error) {
	rows, err := l.conn.Query(ctx, `SELECT key, value FROM "_weir"."state" WHERE pipeline = $1 AND sink = $2`, l.pipeline, l.sink)
	if err != nil {
		return nil, err
	}
	state := dataflow.State{}
	var key string
	var value []byte
	_, err = pgx.ForEachRow(rows, []any{&key, &value}, func() error {
		state[key] = append([]byte{}, value...)
		return nil
	})
	return state, err
}

// Note changes the stored state of a pipeline that does not run, as change tells from what is stored. Where tables are
// committed in lanes, a value goes to the lane of its table, which tableOf tells by the key. The ledger's rows are locked
// meanwhile, so that a start that comes in between finds either nothing or all of it.
func Note(ctx context.Context, conn *pgx.Conn, pipeline string, tableOf func(key string) (uint32, bool), change func(dataflow.State) ([]dataflow.StateChange, error)) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT sink FROM "_weir"."ledger" WHERE pipeline = $1 ORDER BY sink FOR UPDATE`, pipeline)
		var sinks []string
		if err == nil {
			sinks, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		var pgErr *pgconn.PgError
		if err == nil && len(sinks) == 0 || errors.As(err, &pgErr) && (pgErr.Code == "42P01" || pgErr.Code == "3F000") {
			return errs.New(errs.PipelineState, "the target knows nothing of the pipeline yet")
		}
		if err != nil {
			return fmt.Errorf("lock the ledger: %w", err)
		}
		all, lane := dataflow.State{}, map[uint32]string{}
		for _, sink := range sinks {
			l := ledger{conn: tx.Conn(), pipeline: pipeline, sink: sink}
			state, err := l.state(ctx)
			if err != nil {
				return err
			}
			maps.Copy(all, state)
			for key := range state {
				if table, ok := tableOf(key); ok {
					lane[table] = sink
				}
			}
		}
		changes, err := change(all)
		if err != nil {
			return err
		}
		for _, c := range changes {
			if _, err := tx.Exec(ctx, `DELETE FROM "_weir"."state" WHERE pipeline = $1 AND key = $2`, pipeline, c.Key); err != nil {
				return fmt.Errorf("store in the ledger: %w", err)
			}
			if c.Value == nil {
				continue
			}
			sink := sinks[0]
			if table, ok := tableOf(c.Key); ok && lane[table] != "" {
				sink = lane[table]
			}
			if _, err := tx.Exec(ctx, `INSERT INTO "_weir"."state" VALUES ($1, $2, $3, $4)`, pipeline, sink, c.Key, c.Value); err != nil {
				return fmt.Errorf("store in the ledger: %w", err)
			}
		}
		return nil
	})
}

// Forget removes a deleted pipeline's ledger and state. It is idempotent.
func Forget(ctx context.Context, conn *pgx.Conn, pipeline string) error {
	for _, table := range []string{"state", "ledger"} {
		_, err := conn.Exec(ctx, `DELETE FROM "_weir"."`+table+`" WHERE pipeline = $1`, pipeline)
		var pgErr *pgconn.PgError
		if errors.As(err, &pgErr) && (pgErr.Code == "42P01" || pgErr.Code == "3F000") {
			continue // there never was one
		}
		if err != nil {
			return fmt.Errorf("remove pipeline %s from the ledger: %w", pipeline, err)
		}
	}
	return nil
}
