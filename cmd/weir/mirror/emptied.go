package mirror

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	cdc "github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
	sink "github.com/weirstream/weir/sinks/postgres"
)

// emptied tells whether the target refuses a row because it still has those of a partition that was truncated, of which the
// log says nothing. The table is copied again at the next start then.
func (r *running) emptied(ctx context.Context, refusal *pgconn.PgError, follow bool) (bool, error) {
	source, err := pg.ConnectPgx(ctx, r.env, r.sourceCfg, pg.ConnectOptions{AppName: "weir refresh"})
	if err != nil {
		return false, errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", r.sourceCfg.Server(), err).Because(err)
	}
	defer func() { _ = source.Close(context.WithoutCancel(ctx)) }()
	meant := func(t pg.TargetName) bool {
		schema, name := r.sel.Route(t.Schema, t.Name)
		return schema == refusal.SchemaName && name == refusal.TableName
	}
	found := false
	err = r.onTarget(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return sink.Note(ctx, conn, r.pipeline.ID, cdc.StateTable, func(state dataflow.State) ([]dataflow.StateChange, error) {
			changes, err := cdc.TruncatedLater(ctx, source, state, meant, follow)
			found = len(changes) > 0
			return changes, err
		})
	})
	return found && err == nil, err
}
