package mirror

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cdc/postgres/plan"
	"github.com/weirstream/weir/internal/pg"
)

// otherTypes finds the source tables whose target was made by somebody else with other column types. Their rows are
// copied as text, which the target's types read for themselves; in binary an int8 column refuses an int4.
func otherTypes(ctx context.Context, conn *pgx.Conn, p *plan.Plan) (map[[2]string]bool, error) {
	planned := map[pg.TargetName]*pg.Table{}
	for _, t := range p.Tables {
		if t.Exists {
			planned[t.Target.Name] = t.Source
		}
	}
	if len(planned) == 0 {
		return nil, nil
	}
	names, err := pg.ListTables(ctx, conn)
	if err != nil {
		return nil, err
	}
	var oids []uint32
	for _, n := range names {
		if planned[pg.TargetName{Schema: n.Schema, Name: n.Name}] != nil {
			oids = append(oids, n.OID)
		}
	}
	tables, err := pg.LoadTables(ctx, conn, oids)
	if err != nil {
		return nil, err
	}
	out := map[[2]string]bool{}
	for _, t := range tables {
		source := planned[pg.TargetName{Schema: t.Schema, Name: t.Name}]
		for _, c := range source.Columns {
			if to := t.Column(c.Name); to != nil && (to.Type.Name != c.Type.Name || to.Type.Schema != c.Type.Schema) {
				out[[2]string{source.Schema, source.Name}] = true
			}
		}
	}
	return out, nil
}
