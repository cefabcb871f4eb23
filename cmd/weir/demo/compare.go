package demo

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// digest is a table in a few bytes. The checksum adds up a hash of each row's text, so that it does not depend on the
// order of rows and counts equal rows as often as they are there.
type digest struct {
	table    string
	columns  []string // sorted
	rows     int64
	checksum string
}

func (d digest) equal(o digest) bool {
	return d.table == o.table && slices.Equal(d.columns, o.columns) && d.rows == o.rows && d.checksum == o.checksum
}

const tablesSQL = `SELECT c.relname::text, array_agg(a.attname::text ORDER BY a.attname::text COLLATE "C")
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' GROUP BY c.relname ORDER BY c.relname::text COLLATE "C"`

// digests reads all tables of a database at one moment.
func digests(ctx context.Context, url string) (out []digest, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("read the tables: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	// Both sides must write times and numbers alike, whatever the roles and databases are set to.
	if _, err := conn.PgConn().Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET timezone = 'UTC'; SET datestyle = 'ISO'; "+
		"SET intervalstyle = 'iso_8601'; SET bytea_output = 'hex'; SET extra_float_digits = 1").ReadAll(); err != nil {
		return nil, fmt.Errorf("read the tables: %w", err)
	}
	rows, err := conn.Query(ctx, tablesSQL)
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	out, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (d digest, err error) {
		return d, row.Scan(&d.table, &d.columns)
	})
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	for i := range out {
		d := &out[i]
		var names []string
		for _, c := range d.columns {
			names = append(names, pgx.Identifier{c}.Sanitize())
		}
		// The hash is one of 64 bits with a seed; two of them with different seeds make chance no explanation.
		row := "ROW(" + strings.Join(names, ", ") + ")::text"
		sql := fmt.Sprintf("SELECT count(*), coalesce(sum(hashtextextended(%[1]s, 1)::numeric), 0)::text || ' ' || coalesce(sum(hashtextextended(%[1]s, 2)::numeric), 0)::text FROM %[2]s",
			row, pgx.Identifier{"public", d.table}.Sanitize())
		if err := conn.QueryRow(ctx, sql).Scan(&d.rows, &d.checksum); err != nil {
			return nil, fmt.Errorf("read table %s: %w", d.table, err)
		}
	}
	return out, nil
}

// comparison is one table on both sides. A side that does not have it has no columns.
type comparison struct{ source, target digest }

func (c comparison) name() string {
	if c.source.table != "" {
		return c.source.table
	}
	return c.target.table
}

func (c comparison) equal() bool { return c.source.equal(c.target) }

// compare reads both databases at the same time.
func compare(ctx context.Context, source, target string) ([]comparison, error) {
	var sides [2][]digest
	g, ctx := errgroup.WithContext(ctx)
	for i, url := range []string{source, target} {
		g.Go(func() (err error) {
			sides[i], err = digests(ctx, url)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var out []comparison
	for _, s := range sides[0] {
		c := comparison{source: s}
		if i := slices.IndexFunc(sides[1], func(t digest) bool { return t.table == s.table }); i >= 0 {
			c.target = sides[1][i]
		}
		out = append(out, c)
	}
	for _, t := range sides[1] {
		if !slices.ContainsFunc(sides[0], func(s digest) bool { return s.table == t.table }) {
			out = append(out, comparison{target: t})
		}
	}
	return out, nil
}

// short is enough of the checksum to compare by eye.
func (d digest) short() string {
	if d.table == "" {
		return "no such table"
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(d.checksum)) // a hash takes everything
	return fmt.Sprintf("%016x", h.Sum64())
}
