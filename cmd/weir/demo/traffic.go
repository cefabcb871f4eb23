package demo

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/weirstream/weir/internal/env"
)

// writers is how many customers are served at the same time.
const writers = 3

// traffic runs the writers of the shop and counts what they do.
type traffic struct {
	env  *env.Env
	url  string
	shop sizes
	rate int // rows per second, over all writers

	alter   atomic.Bool // the next transaction of the first writer is the ALTER TABLE
	altered atomic.Bool
	changes atomic.Int64 // rows that statements have inserted, updated or deleted, without those of cascades
	commits atomic.Int64
	done    [kinds]atomic.Int64
}

// run serves customers until ctx ends, which is no error. A transaction that has begun is finished.
func (t *traffic) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for w := range writers {
		s := &script{rng: t.env.Rand.Stream(fmt.Sprintf("shop.writer.%d", w)), writer: w, writers: writers, shop: t.shop}
		g.Go(func() error { return t.write(ctx, s) })
	}
	return g.Wait()
}

// write is one writer.
func (t *traffic) write(ctx context.Context, s *script) (err error) {
	// The connection outlives ctx by one transaction.
	whole := context.WithoutCancel(ctx)
	conn, err := pgx.Connect(whole, t.url)
	if err != nil {
		return fmt.Errorf("open the shop: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(whole)) }()
	began, written := t.env.Clock.Now(), int64(0)
	for {
		due := began.Add(time.Duration(float64(written) * writers / float64(t.rate) * float64(time.Second)))
		now := t.env.Clock.Now()
		if now.Sub(due) > time.Second {
			began = began.Add(now.Sub(due)) // what a slow second missed is not made up for: no wave follows a stall
		}
		if t.env.Clock.Sleep(ctx, max(due.Sub(now), 0)) != nil {
			return nil
		}
		next := s.next
		if s.writer == 0 && t.alter.CompareAndSwap(true, false) {
			next = s.addColumn
		}
		tx := next()
		rows, err := apply(whole, conn, tx)
		if err != nil {
			return fmt.Errorf("serve a customer: %w", err)
		}
		if tx.kind == columnAdded {
			t.altered.Store(true)
		}
		written += max(rows, 1)
		t.changes.Add(rows)
		t.commits.Add(1)
		t.done[tx.kind].Add(1)
	}
}

// apply runs a transaction in one round trip.
func apply(ctx context.Context, conn *pgx.Conn, tx transaction) (rows int64, err error) {
	var batch pgx.Batch
	batch.Queue("BEGIN")
	for _, s := range tx.statements {
		batch.Queue(s.sql, s.args...)
	}
	batch.Queue("COMMIT")
	results := conn.SendBatch(ctx, &batch)
	defer func() { err = errors.Join(err, results.Close()) }()
	var saved int64
	for i := range batch.Len() {
		tag, err := results.Exec()
		if err != nil {
			return 0, fmt.Errorf("%w in %q", err, batch.QueuedQueries[i].SQL)
		}
		rows += tag.RowsAffected()
		switch tag.String() {
		case "SAVEPOINT":
			saved = rows
		case "ROLLBACK":
			rows = saved
		}
	}
	return rows, nil
}
