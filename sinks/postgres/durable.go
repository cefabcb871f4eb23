package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// durability finds out when commits that were acknowledged without waiting for the disk have reached it.
//
// With synchronous_commit off the server answers COMMIT before the record is flushed; a crash of the server then takes
// back the last commits, in order and each as a whole. The slot may move only past what was flushed: the insert
// position read after a commit became visible is behind its record, and once the flush position has passed it the
// commit is durable.
type durability struct {
	conn *pgx.Conn
	wake chan struct{}
	mu   sync.Mutex
	last dataflow.Checkpoint // newest visible checkpoint
}

const flushPoll = 20 * time.Millisecond

func (d *durability) start(t *Target) {
	if t.opts.SyncCommit != "off" {
		return
	}
	d.wake = make(chan struct{}, 1)
	t.waits.Add(1)
	ctx, cancel := context.WithCancel(context.Background())
	t.env.Go("target-durable-stop", func() { <-t.stop; cancel() })
	t.env.Go("target-durable", func() {
		defer t.waits.Done()
		if err := d.run(ctx, t); err != nil && ctx.Err() == nil {
			t.ack(dataflow.Ack{Err: t.wrap(err)})
		}
		if d.conn != nil {
			_ = d.conn.Close(context.Background())
		}
	})
}

func (d *durability) visible(n dataflow.Checkpoint) {
	d.mu.Lock()
	d.last = n
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *durability) newest() dataflow.Checkpoint {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

func (d *durability) run(ctx context.Context, t *Target) error {
	var err error
	if d.conn, err = pg.ConnectPgx(ctx, t.env, t.opts.Config, pg.ConnectOptions{AppName: appName + " flush"}); err != nil {
		return err
	}
	// A server that was started again since may have lost what was visible, and knows of nothing that is not on disk.
	started, err := startOf(ctx, d.conn)
	if err != nil {
		return err
	}
	if started != t.started {
		return errs.New(errs.TargetUnreachable, "target %s was started again", t.opts.Config.Server())
	}
	var done dataflow.Checkpoint
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		}
		for n := d.newest(); n > done; n = d.newest() {
			insert, _, err := d.positions(ctx)
			if err != nil {
				return err
			}
			for {
				_, flush, err := d.positions(ctx)
				if err != nil {
					return err
				}
				if flush >= insert {
					break
				}
				if err := t.env.Clock.Sleep(ctx, flushPoll); err != nil {
					return nil
				}
			}
			done = n
			t.ack(dataflow.Ack{Checkpoint: n, Durable: true})
		}
	}
}

func startOf(ctx context.Context, conn *pgx.Conn) (string, error) {
	var at string
	if err := conn.QueryRow(ctx, "SELECT pg_postmaster_start_time()::text").Scan(&at); err != nil {
		return "", fmt.Errorf("read when the target was started: %w", err)
	}
	return at, nil
}

func (d *durability) positions(ctx context.Context) (insert, flush pg.LSN, err error) {
	var i, f string
	if err := d.conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text, pg_current_wal_flush_lsn()::text").Scan(&i, &f); err != nil {
		return 0, 0, fmt.Errorf("read the target's flush position: %w", err)
	}
	if insert, err = pg.ParseLSN(i); err != nil {
		return 0, 0, err
	}
	flush, err = pg.ParseLSN(f)
	return recordEnd(insert), flush, err
}

// recordEnd undoes what the server's insert position does at a page's start: it points behind the page header that the
// next record will be preceded by, where the flush position does not get before there is a next record.
func recordEnd(insert pg.LSN) pg.LSN {
	const pageSize, shortHeader, longHeader = 8192, 24, 40
	if off := insert % pageSize; off == shortHeader || off == longHeader {
		return insert - off
	}
	return insert
}
