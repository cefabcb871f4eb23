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
	found := false
	err = r.onTarget(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		// The target's table may be partitioned, too; then the refusal names a partition.
		var at pg.TargetName
		if err := conn.QueryRow(ctx, `SELECT n.nspname::text, c.relname::text FROM pg_class l JOIN pg_namespace m ON m.oid = l.relnamespace
			JOIN pg_class c ON c.oid = CASE WHEN l.relispartition THEN pg_partition_root(l.oid)::oid ELSE l.oid END JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE m.nspname = $1 AND l.relname = $2`, refusal.SchemaName, refusal.TableName).Scan(&at.Schema, &at.Name); err != nil {
			return err
		}
		meant := func(t pg.TargetName) bool {
			schema, name := r.sel.Route(t.Schema, t.Name)
			return at == pg.TargetName{Schema: schema, Name: name}
		}
		return sink.Note(ctx, conn, r.pipeline.ID, cdc.StateTable, func(state dataflow.State) ([]dataflow.StateChange, error) {
			changes, err := cdc.TruncatedLater(ctx, source, state, meant, follow)
			found = len(changes) > 0
			return changes, err
		})
	})
	return found && err == nil, err
}
