package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/engine/dataflow"
)

// PublishLedger is the ledger of a sink that is given whole checkpoints and keeps no state. Their numbers rise and need
// not follow each other, so what a transaction must find is only a smaller one.
type PublishLedger struct{ ledger }

// PublishSQL moves the ledger to a checkpoint ($4) under a generation ($3), or raises an error that IsFenced knows. $1 and
// $2 are pipeline and sink. It belongs into the transaction that writes the checkpoint's rows.
const PublishSQL = `SELECT "_weir"."publish"($1, $2, $3, $4)`

// NewPublishLedger returns the ledger row of a pipeline's sink. conn stays the caller's.
func NewPublishLedger(conn *pgx.Conn, pipeline, sink string) *PublishLedger {
	return &PublishLedger{ledger{conn: conn, pipeline: pipeline, sink: sink, flushing: "on"}}
}

// Raise makes the ledger if there is none, puts the fence to gen, ends the backend of whoever held it before, and returns
// the checkpoint that is published.
func (l *PublishLedger) Raise(ctx context.Context, gen dataflow.Generation, wait func(context.Context, time.Duration) error) (dataflow.Checkpoint, error) {
	if err := l.ensure(ctx); err != nil {
		return 0, err
	}
	return l.raise(ctx, gen, wait)
}

// Hold notes whose backend writes, for the next owner to end.
func (l *PublishLedger) Hold(ctx context.Context, gen dataflow.Generation, pid uint32) error {
	return l.hold(ctx, gen, pid)
}

// IsFenced tells that the ledger refused to move.
func IsFenced(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == fenceState
}
