package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

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

// learnPublished reads what weir's own publication, or the user's, sends of all tables: which rows, and of its own which
// columns. A list is as old as the latest change of the publication, not as the table's columns.
func (s *Source) learnPublished(ctx context.Context) error {
	if s.version < 150000 {
		return nil
	}
	rows, err := s.ctl.Query(ctx, `SELECT r.prrelid::int8, coalesce(pg_get_expr(r.prqual, r.prrelid), ''), r.prattrs::int2[] FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
		WHERE p.pubname = $1`, s.opts.Publication)
	if err != nil {
		return s.lost(err)
	}
	s.lists = map[uint32][]int16{} // conditions stay: a table that somebody took out comes back with its own
	var oid int64
	var where string
	var list []int16
	if _, err := pgx.ForEachRow(rows, []any{&oid, &where, &list}, func() error {
		s.conditions[uint32(oid)], s.lists[uint32(oid)] = where, slices.Clone(list)
		return nil
	}); err != nil {
		return s.lost(err)
	}
	return nil
}
