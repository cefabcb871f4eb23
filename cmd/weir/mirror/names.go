package mirror

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	cdc "github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
	sink "github.com/weirstream/weir/sinks/postgres"
)

// bringNames gives the target's tables, and what the ledger says of them, the names that the source's have, in one
// transaction. It is for a mirror that does not run: lanes cannot let a name go from one to the other, as each would wait
// for the other's commit. names lacks tables that were dropped.
func (r *running) bringNames(ctx context.Context, conn *pgx.Conn, names map[uint32]pg.TargetName) error {
	known, err := r.knownTables(ctx, conn)
	if err != nil {
		return err
	}
	target := func(n pg.TargetName) pg.TargetName {
		schema, name := r.sel.Route(n.Schema, n.Name)
		return pg.TargetName{Schema: schema, Name: name}
	}
	var aside, then []string
	var gone []string
	renamed := map[uint32]pg.TargetName{}
	for _, oid := range slices.Sorted(maps.Keys(known)) {
		now, exists := names[oid]
		if exists && now == known[oid].Name {
			continue
		}
		from := target(known[oid].Name)
		to := sink.StepAside(oid, from)
		aside = append(aside, sink.RenameTable(oid, from, to)...)
		switch {
		case !exists:
			then = append(then, sink.DropTable(to)...)
			gone = append(gone, cdc.StateKeys(oid)...)
		case !r.sel.Includes(now.Schema, now.Name):
			gone = append(gone, cdc.StateKeys(oid)...)
		default:
			then = append(then, sink.RenameTable(oid, to, target(now))...)
			renamed[oid] = now
		}
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, sql := range append(aside, then...) {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return errs.New(errs.TargetRejected, "bring the names of the target's tables to the source's: %w", err).WithDetail("%s", sql)
			}
		}
		if _, err := tx.Exec(ctx, `DELETE FROM "_weir"."state" WHERE pipeline = $1 AND key = ANY ($2)`, r.pipeline.ID, gone); err != nil {
			return err
		}
		for oid, name := range renamed {
			key := cdc.StateKeys(oid)[0]
			var state []byte
			if err := tx.QueryRow(ctx, `SELECT value FROM "_weir"."state" WHERE pipeline = $1 AND key = $2`, r.pipeline.ID, key).Scan(&state); err != nil {
				return err
			}
			state, err := cdc.Renamed(state, name)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `UPDATE "_weir"."state" SET value = $3 WHERE pipeline = $1 AND key = $2`, r.pipeline.ID, key, state); err != nil {
				return err
			}
		}
		return nil
	})
	if _, coded := errs.As(err); err != nil && !coded {
		return fmt.Errorf("bring the names of the target's tables to the source's: %w", err)
	}
	return err
}
