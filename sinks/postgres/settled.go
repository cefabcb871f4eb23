package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
)

// The last that a cut-over does before it deletes its pipeline is to give foreign keys what the source's have. A pipeline
// that goes on all the same may need them as they were: rows come in any order within a transaction, and actions have been
// carried out at the source. So what undoes the change is stored by the transaction that makes it, and the next Open that
// finds it runs it.
const settledKey = "settled"

// NoteSettled stores, in the transaction that settles foreign keys, the statements that undo it. The ledger's row stays
// locked to the end of tx: a start that comes meanwhile waits at its fence, and finds the note behind it. resting tells,
// asked under that lock, whether the pipeline has none that came before.
func NoteSettled(ctx context.Context, tx pgx.Tx, pipeline string, undo []string, resting func(context.Context) error) error {
	if _, err := tx.Exec(ctx, `SELECT FROM "_weir"."ledger" WHERE pipeline = $1 AND sink = $2 FOR UPDATE`, pipeline, DefaultSink); err != nil {
		return err
	}
	if err := resting(ctx); err != nil {
		return err
	}
	value, err := json.Marshal(undo)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO "_weir"."state" VALUES ($1, $2, $3, $4)`, pipeline, DefaultSink, settledKey, value)
	return err
}

// unsettle undoes what a cut-over that did not come to its end has done to foreign keys. The fence is ours already.
func (t *Target) unsettle(ctx context.Context, state dataflow.State) error {
	stored, ok := state[settledKey]
	if !ok {
		return nil
	}
	delete(state, settledKey)
	var undo []string
	if err := json.Unmarshal(stored, &undo); err != nil {
		return errs.New(errs.StateCorrupt, "stored key %q: %w", settledKey, err).Because(err)
	}
	t.env.Log.Info("a cut-over did not come to its end; foreign keys wait for the commit again", "keys", len(undo))
	return pgx.BeginFunc(ctx, t.ctl, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '30s'"); err != nil {
			return err
		}
		for _, sql := range undo {
			err := pgx.BeginFunc(ctx, tx, func(one pgx.Tx) error {
				_, err := one.Exec(ctx, sql)
				return err
			})
			var pgErr *pgconn.PgError
			if errors.As(err, &pgErr) && slices.Contains([]string{"42704", "42P01"}, pgErr.Code) {
				continue // somebody has dropped the key, or its table
			}
			if err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `DELETE FROM "_weir"."state" WHERE pipeline = $1 AND sink = $2 AND key = $3`, t.opts.Pipeline, t.opts.Sink, settledKey)
		return err
	})
}
