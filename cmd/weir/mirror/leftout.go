package mirror

import (
	"context"

	"github.com/jackc/pgx/v5"

	cdc "github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// LeftOut gives patterns for the columns that a mirror leaves out by the names that they have now. The mirror's own patterns
// are about the names that they had. Tables have the names given, else those of the source.
func LeftOut(ctx context.Context, source, target pg.Querier, pipeline string, names map[uint32]pg.TargetName) ([]string, error) {
	state, err := stored(ctx, target, pipeline, "left/")
	if err != nil {
		return nil, errs.New(errs.TargetUnreachable, "read the columns that are left out: %w", err)
	}
	left, err := cdc.LeftOut(state)
	if err != nil || len(left) == 0 {
		return nil, err
	}
	var tables []int64
	var columns []int32
	for oid, nums := range left {
		for _, n := range nums {
			tables, columns = append(tables, int64(oid)), append(columns, int32(n))
		}
	}
	rows, err := source.Query(ctx, `SELECT c.oid::int8, n.nspname::text, c.relname::text, a.attname::text
		FROM unnest($1::int8[], $2::int4[]) AS l(oid, num) JOIN pg_attribute a ON a.attrelid = l.oid::oid AND a.attnum = l.num AND NOT a.attisdropped
		JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, a.attnum`, tables, columns)
	if err != nil {
		return nil, errs.New(errs.SourceUnreachable, "name the columns that are left out: %w", err)
	}
	var oid int64
	var name pg.TargetName
	var column string
	var patterns []string
	_, err = pgx.ForEachRow(rows, []any{&oid, &name.Schema, &name.Name, &column}, func() error {
		if known, ok := names[uint32(oid)]; ok {
			name = known
		}
		patterns = append(patterns, selection.Quote(name)+"."+pg.Ident(column))
		return nil
	})
	if err != nil {
		return nil, errs.New(errs.SourceUnreachable, "name the columns that are left out: %w", err)
	}
	return patterns, nil
}

// Filters gives filters for the tables whose rows the publication chooses otherwise than the mirror's own filters say, which
// are about the names that tables had when they joined.
func Filters(ctx context.Context, source pg.Querier, spec api.MirrorSpec, publication string) ([]api.Filter, error) {
	if len(spec.Filters) == 0 || publication == "" {
		return nil, nil
	}
	sel, err := selection.New(spec)
	if err != nil {
		return nil, err
	}
	rows, err := source.Query(ctx, `SELECT n.nspname::text, c.relname::text, coalesce(pg_get_expr(r.prqual, r.prrelid), '')
		FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE p.pubname = $1 ORDER BY 1, 2`, publication)
	if err != nil {
		return nil, errs.New(errs.SourceUnreachable, "read the publication's filters: %w", err)
	}
	var name pg.TargetName
	var where string
	var filters []api.Filter
	if _, err := pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &where}, func() error {
		switch named := sel.Filter(name.Schema, name.Name); {
		case where != "":
			filters = append(filters, api.Filter{Table: selection.Quote(name), Where: where})
		case named != "":
			filters = append(filters, api.Filter{Table: selection.Quote(name), Where: "true"})
		}
		return nil
	}); err != nil {
		return nil, errs.New(errs.SourceUnreachable, "read the publication's filters: %w", err)
	}
	return filters, nil
}
