package validate

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Pair is a table and the one that mirrors it, as schema.table.
type Pair struct{ Source, Target string }

// Same pairs tables with those of the same name.
func Same(tables ...string) []Pair {
	out := make([]Pair, len(tables))
	for i, t := range tables {
		out[i] = Pair{t, t}
	}
	return out
}

// Equal compares tables of two databases by checksum and, where those differ, names the first rows that do. Neither
// database may be written meanwhile.
func Equal(ctx context.Context, source, target string, pairs ...Pair) error {
	a, err := pgx.Connect(ctx, source)
	if err != nil {
		return fmt.Errorf("compare: source: %w", err)
	}
	defer func() { _ = a.Close(context.WithoutCancel(ctx)) }()
	b, err := pgx.Connect(ctx, target)
	if err != nil {
		return fmt.Errorf("compare: target: %w", err)
	}
	defer func() { _ = b.Close(context.WithoutCancel(ctx)) }()
	for _, c := range []*pgx.Conn{a, b} {
		// Text forms must not depend on how each server is set up.
		if _, err := c.Exec(ctx, "SET extra_float_digits = 3; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET timezone = 'UTC'; SET bytea_output = 'hex'"); err != nil {
			return fmt.Errorf("compare: %w", err)
		}
	}
	var wrong []error
	for _, p := range pairs {
		if err := equalTable(ctx, a, b, p); err != nil {
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}

func equalTable(ctx context.Context, a, b *pgx.Conn, p Pair) error {
	columns, err := columnsOf(ctx, a, p.Source)
	if err != nil {
		return err
	}
	ac, an, err := checksum(ctx, a, p.Source, columns)
	if err != nil {
		return fmt.Errorf("checksum of source table %s: %w", p.Source, err)
	}
	bc, bn, err := checksum(ctx, b, p.Target, columns)
	if err != nil {
		return fmt.Errorf("checksum of target table %s: %w", p.Target, err)
	}
	if ac == bc && an == bn {
		return nil
	}
	diff, err := difference(ctx, a, b, p, columns)
	if err != nil {
		return fmt.Errorf("compare %s with %s: %w", p.Source, p.Target, err)
	}
	return fmt.Errorf("%s has %d rows and %s %d; %s", p.Source, an, p.Target, bn, diff)
}

// columnsOf lists the columns that are stored, in order of their names: a mirror may have them in another order.
func columnsOf(ctx context.Context, conn *pgx.Conn, table string) ([]string, error) {
	rows, err := conn.Query(ctx, `SELECT attname::text FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
		ORDER BY attname`, ident(table))
	if err != nil {
		return nil, fmt.Errorf("columns of %s: %w", table, err)
	}
	columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err == nil && len(columns) == 0 {
		err = errors.New("none")
	}
	if err != nil {
		return nil, fmt.Errorf("columns of %s: %w", table, err)
	}
	return columns, nil
}

func rowText(columns []string) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = ident1(c) + "::text"
	}
	return "ROW(" + strings.Join(parts, ", ") + ")::text"
}

func ident1(name string) string { return pgx.Identifier{name}.Sanitize() }

// checksum adds up the hashes of all rows, so order does not matter and duplicates count.
func checksum(ctx context.Context, conn *pgx.Conn, table string, columns []string) (sum string, rows int64, err error) {
	err = conn.QueryRow(ctx, "SELECT coalesce(sum(('x' || left(md5(r), 15))::bit(60)::int8::numeric), 0)::text, count(*) FROM (SELECT "+
		rowText(columns)+" AS r FROM "+ident(table)+") AS t").Scan(&sum, &rows)
	return sum, rows, err
}

// shown is how many differing rows of each side are named.
const shown = 5

// difference walks both tables in one order and collects what only one of them holds.
func difference(ctx context.Context, a, b *pgx.Conn, p Pair, columns []string) (string, error) {
	query := func(conn *pgx.Conn, table string) (pgx.Rows, error) {
		return conn.Query(ctx, `SELECT r COLLATE "C" FROM (SELECT `+rowText(columns)+" AS r FROM "+ident(table)+`) AS t ORDER BY 1`)
	}
	x, err := query(a, p.Source)
	if err != nil {
		return "", err
	}
	defer x.Close()
	y, err := query(b, p.Target)
	if err != nil {
		return "", err
	}
	defer y.Close()
	next := func(rows pgx.Rows) (row string, ok bool, err error) {
		if !rows.Next() {
			return "", false, rows.Err()
		}
		return row, true, rows.Scan(&row)
	}
	var missing, extra []string
	r, more, err := next(x)
	if err != nil {
		return "", err
	}
	s, also, err := next(y)
	for err == nil && (more || also) && len(missing) < shown && len(extra) < shown {
		switch {
		case more && also && r == s:
			if r, more, err = next(x); err == nil {
				s, also, err = next(y)
			}
		case more && (!also || r < s):
			missing = append(missing, r)
			r, more, err = next(x)
		default:
			extra = append(extra, s)
			s, also, err = next(y)
		}
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("columns %v: missing at the target %.1000q, too many there %.1000q", columns, missing, extra), nil
}
