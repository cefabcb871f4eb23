package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/pg"
)

// Which rows of a table are mirrored is told by its name when it joins. From then on the publication tells: the server keeps
// its condition with the table and its columns, whatever they are called, and sends by it. A copy that went by another one
// would bring rows that the stream never changes, or leave out rows that it does.

// filter is the condition of a table's copy, "" for all rows.
func (s *Source) filter(ctx context.Context, q pg.Querier, t *pg.Table) (string, error) {
	if s.version < 150000 {
		return "", nil // which have none
	}
	var where string
	err := q.QueryRow(ctx, `SELECT coalesce(pg_get_expr(r.prqual, r.prrelid), '') FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
		WHERE p.pubname = $1 AND r.prrelid = $2::oid`, s.opts.Publication, fmt.Sprint(t.OID)).Scan(&where)
	if errors.Is(err, pgx.ErrNoRows) {
		if where, known := s.conditions[t.OID]; known { // somebody took it out
			return where, nil
		}
		return s.opts.Filter(t.Schema, t.Name), nil
	}
	if err != nil {
		return "", s.lost(err)
	}
	return where, nil
}

// learnConditions reads those of all tables, for the first copy.
func (s *Source) learnConditions(ctx context.Context) error {
	if s.version < 150000 {
		return nil
	}
	rows, err := s.ctl.Query(ctx, `SELECT r.prrelid::int8, coalesce(pg_get_expr(r.prqual, r.prrelid), '') FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
		WHERE p.pubname = $1`, s.opts.Publication)
	if err != nil {
		return s.lost(err)
	}
	s.conditions = map[uint32]string{}
	var oid int64
	var where string
	if _, err := pgx.ForEachRow(rows, []any{&oid, &where}, func() error { s.conditions[uint32(oid)] = where; return nil }); err != nil {
		return s.lost(err)
	}
	return nil
}
