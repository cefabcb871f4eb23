package mirror

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	cdc "github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
	sink "github.com/weirstream/weir/sinks/postgres"
)

// forgetLater forgets what is stored of tables that leave a mirror which does not run. Nobody would let go of one that is
// added again before the next start, and the rows that its table at the target lost meanwhile would never come.
func (r *Runner) forgetLater(ctx context.Context, p api.Pipeline, patterns []string, resting func() error) error {
	if !r.remember(p).begun.Load() {
		return resting() // nothing is stored, and the target may be what it waits for
	}
	target, err := r.config(p.Mirror.Target)
	if err != nil {
		return err
	}
	conn, err := pg.ConnectPgx(ctx, r.env, target, pg.ConnectOptions{AppName: "weir tables"})
	if err != nil {
		return errs.New(errs.TargetUnreachable, "cannot reach target %s: %w", target.Server(), err).Because(err).
			WithHint("what is known of the tables is stored there; try again when it can be reached, or resume %s first", p.Name)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var oids []uint32
	known := false
	err = sink.Note(ctx, conn, p.ID, cdc.StateTable, func(state dataflow.State) (changes []dataflow.StateChange, err error) {
		known = true
		if err := resting(); err != nil {
			return nil, err
		}
		changes, oids, err = cdc.ForgetLater(state, patterns)
		return changes, err
	})
	if errs.Is(err, errs.PipelineState) && !known {
		return resting() // it failed before it stored anything
	}
	if err != nil || len(oids) == 0 {
		return passing(err)
	}
	if err := r.unpublish(ctx, p, oids); err != nil {
		// A source that is down may be why the mirror does not run.
		r.env.Log.Warn("tables that left stay in the publication", "pipeline", p.Name, "error", err)
	}
	return nil
}

// unpublish takes tables out of a mirror's own publication: no start does it for tables of which nothing is known, and their
// rows would go on being sent for nothing.
func (r *Runner) unpublish(ctx context.Context, p api.Pipeline, oids []uint32) error {
	source, err := r.config(p.Mirror.Source)
	if err != nil {
		return err
	}
	_, publication, own := r.Names(p, source)
	if !own {
		return nil
	}
	conn, err := pg.ConnectPgx(ctx, r.env, source, pg.ConnectOptions{AppName: "weir tables"})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "SET lock_timeout = '1s'"); err != nil {
		return err
	}
	for _, oid := range oids {
		// The name that it has now: the stored one may be another table's.
		var name pg.TargetName
		err := conn.QueryRow(ctx, `SELECT n.nspname::text, c.relname::text FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
			JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1 AND c.oid = $2::oid`,
			publication, fmt.Sprint(oid)).Scan(&name.Schema, &name.Name)
		if err == pgx.ErrNoRows {
			continue
		}
		if err == nil {
			_, err = conn.Exec(ctx, "ALTER PUBLICATION "+pg.Ident(publication)+" DROP TABLE "+pg.Qualified(name.Schema, name.Name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
