package demo

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/env"
)

// sumsSQL is one statement, so that the three sums are of one moment. They are equal after every transaction of the
// shop: each writes an order together with its items and its payments.
const sumsSQL = `SELECT (SELECT coalesce(sum(total), 0) FROM orders)::text, (SELECT coalesce(sum(quantity * price), 0) FROM order_items)::text,
	(SELECT coalesce(sum(amount), 0) FROM payments)::text`

// lookPeriod is the reader's: often enough to fall between any two transactions in time.
const lookPeriod = 150 * time.Millisecond

// sums are what a look sees.
type sums struct{ orders, items, payments string }

func (s sums) balanced() bool { return s.orders == s.items && s.items == s.payments }

func (s sums) String() string {
	return fmt.Sprintf("orders %s, items %s, payments %s", s.orders, s.items, s.payments)
}

func readSums(ctx context.Context, conn *pgx.Conn) (s sums, err error) {
	err = conn.QueryRow(ctx, sumsSQL).Scan(&s.orders, &s.items, &s.payments)
	return s, err
}

// reader looks at a database again and again. It knows nothing of the mirror and shares nothing with it.
type reader struct {
	env *env.Env
	url string

	looks     atomic.Int64
	different atomic.Int64 // how often a look saw other sums than the one before: the shop was moving
}

// errUnbalanced is a look that saw part of a transaction.
var errUnbalanced = errors.New("a transaction was seen in part")

// run looks until ctx ends, or until sums are off.
func (r *reader) run(ctx context.Context) (err error) {
	conn, err := pgx.Connect(ctx, r.url)
	if err != nil {
		return unlessEnded(ctx, fmt.Errorf("look at the target: %w", err))
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	var last sums
	for {
		s, err := readSums(ctx, conn)
		if err != nil {
			return unlessEnded(ctx, fmt.Errorf("look at the target: %w", err))
		}
		n := r.looks.Add(1)
		if !s.balanced() {
			return fmt.Errorf("%w: look %d: %s", errUnbalanced, n, s)
		}
		if s != last {
			r.different.Add(1)
			last = s
		}
		if r.env.Clock.Sleep(ctx, lookPeriod) != nil {
			return nil
		}
	}
}

func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
