package lab

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// ErrDifferent means that a replica does not hold what the source holds: its figures are worth nothing.
var ErrDifferent = errors.New("source and target differ")

// Compare reads all tables on both sides, each side in one snapshot, the target's taken first and at once: what a
// contender shows too early counts as missing.
func Compare(ctx context.Context, source, target *Session, tables []Table) error {
	got, err := target.digests(ctx, tables)
	if err != nil {
		return err
	}
	want, err := source.digests(ctx, tables)
	if err != nil {
		return err
	}
	for i, t := range tables {
		if got[i] != want[i] {
			return fmt.Errorf("%w: table %s has %s at the source and %s at the target", ErrDifferent, t.Name, want[i], got[i])
		}
	}
	return compareShapes(ctx, source, target)
}

func (s *Session) digests(ctx context.Context, tables []Table) (all []string, err error) {
	if err := s.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Exec(ctx, "COMMIT")) }()
	for _, t := range tables {
		// A sum of hashes does not depend on the order of rows.
		rows, err := s.simple(ctx, `SELECT count(*) || ' rows, hash ' ||
			coalesce(sum(hashtextextended(ROW(id, n, amount, note, at)::text, 0)::numeric), 0) FROM public.`+t.Name)
		if err != nil {
			return nil, err
		}
		all = append(all, rows[0])
	}
	return all, nil
}

// shape lists columns, indexes and constraints. Names of indexes are left out: they are the replica's own affair.
const shape = `
	SELECT c.relname || ' column ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
	UNION ALL
	SELECT c.relname || ' index ' || regexp_replace(pg_get_indexdef(i.indexrelid), ' INDEX \S+ ON ', ' INDEX ON ') ||
		CASE WHEN i.indisprimary THEN ' primary' ELSE '' END || CASE WHEN i.indisvalid THEN '' ELSE ' invalid' END
	FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid
	WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
	UNION ALL
	SELECT c.relname || ' constraint ' || pg_get_constraintdef(k.oid)
	FROM pg_class c JOIN pg_constraint k ON k.conrelid = c.oid
	WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
	ORDER BY 1`

// compareShapes makes sure that a replica is not faster because it built less.
func compareShapes(ctx context.Context, source, target *Session) error {
	want, err := source.Texts(ctx, shape)
	if err != nil {
		return err
	}
	got, err := target.Texts(ctx, shape)
	if err != nil {
		return err
	}
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(got):
			return fmt.Errorf("%w: the target lacks %q", ErrDifferent, want[i])
		case i >= len(want):
			return fmt.Errorf("%w: only the target has %q", ErrDifferent, got[i])
		case want[i] != got[i]:
			return fmt.Errorf("%w: %q at the source, %q at the target", ErrDifferent, want[i], got[i])
		}
	}
	return nil
}

// simple runs a query without preparing it and returns its first column.
func (s *Session) simple(ctx context.Context, sql string) ([]string, error) {
	results, err := s.conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("ask %q in database %s: %w", short(sql), s.db, err)
	}
	var column []string
	for _, row := range results[len(results)-1].Rows {
		column = append(column, string(row[0]))
	}
	return column, nil
}

func (s *Session) count(ctx context.Context, sql string) (int64, error) {
	column, err := s.simple(ctx, sql)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(column[0], 10, 64)
}
