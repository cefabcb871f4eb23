// Package validate judges what arrived at a target: nothing lost, nothing twice, nothing out of order, and never a moment
// that the source did not have. The validators read as an outsider does and trust no number that weir reports.
package validate

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// ident quotes a name for SQL.
func ident(name string) string { return pgx.Identifier(strings.Split(name, ".")).Sanitize() }

// Bank is accounts over one or several tables whose transfers always balance.
type Bank struct {
	Tables []string // schema.table
	Column string   // the balance
	Total  int64
	Pause  time.Duration // between two looks; default 5 ms
}

// Watch looks until ctx ends and returns how often it did. An error is a moment at which the total was another one. The
// sum over all tables is one statement, which sees one moment.
func (b Bank) Watch(ctx context.Context, url string) (looks int, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, fmt.Errorf("watch the bank: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var sums []string
	for _, t := range b.Tables {
		sums = append(sums, fmt.Sprintf("(SELECT coalesce(sum(%s), 0) FROM %s)", ident(b.Column), ident(t)))
	}
	query := "SELECT (" + strings.Join(sums, " + ") + ")::int8"
	pause := b.Pause
	if pause == 0 {
		pause = 5 * time.Millisecond
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return looks, nil
		case <-timer.C:
			timer.Reset(pause)
		}
		var sum int64
		if err := conn.QueryRow(ctx, query).Scan(&sum); err != nil {
			if ctx.Err() != nil {
				return looks, nil
			}
			return looks, fmt.Errorf("watch the bank: %w", err)
		}
		looks++
		if sum != b.Total {
			return looks, fmt.Errorf("look %d: the bank holds %d of %d", looks, sum, b.Total)
		}
	}
}
