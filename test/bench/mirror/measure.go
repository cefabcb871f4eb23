package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirstream/weir/test/bench/internal/lab"
	"github.com/weirstream/weir/test/bench/internal/proc"
	"github.com/weirstream/weir/test/bench/internal/report"
)

// applied is how often the benchmark looks for the end of a backlog: the error of a figure of seconds stays below a
// percent, and the question costs a tenth of a millisecond.
const applied = 5 * time.Millisecond

// copying measures a first copy of so many things, from the order to start until all is visible with its keys.
func copying(every time.Duration, things int) func(context.Context, *turn) (figures, error) {
	return func(ctx context.Context, t *turn) (figures, error) {
		c, err := lab.NewCopy(ctx, t.source, t.target, t.work.tables)
		if err != nil {
			return nil, err
		}
		began := time.Now()
		if err := t.replica.Start(ctx); err != nil {
			return nil, err
		}
		if err := t.wait(ctx, every, c.Done); err != nil {
			return nil, fmt.Errorf("wait for the first copy: %w", err)
		}
		return figures{"rate": float64(things) / time.Since(began).Seconds()}, nil
	}
}

// draining measures how fast a backlog is applied: the replica has caught up and is paused, the backlog is written, and
// the clock runs from the order to go on until the backlog's last transaction is visible.
func draining(write func(context.Context, *lab.Session) (int64, error)) func(context.Context, *turn) (figures, error) {
	return func(ctx context.Context, t *turn) (figures, error) {
		if err := t.follow(ctx); err != nil {
			return nil, err
		}
		if err := t.replica.Pause(ctx); err != nil {
			return nil, err
		}
		t.mark++
		if err := t.source.SetMark(ctx, lab.First, t.mark); err != nil {
			return nil, err
		}
		written, err := write(ctx, t.source)
		if err != nil {
			return nil, fmt.Errorf("write the backlog: %w", err)
		}
		if err := t.source.SetMark(ctx, lab.Last, t.mark); err != nil {
			return nil, err
		}
		if err := t.pair.Checkpoint(ctx); err != nil {
			return nil, err
		}
		before, err := t.usage(ctx)
		if err != nil {
			return nil, err
		}
		began := time.Now()
		if err := t.replica.Resume(ctx); err != nil {
			return nil, err
		}
		if err := t.waitMark(ctx, lab.First); err != nil {
			return nil, fmt.Errorf("wait for the beginning of the backlog: %w", err)
		}
		first := time.Since(began)
		if err := t.waitMark(ctx, lab.Last); err != nil {
			return nil, fmt.Errorf("wait for the end of the backlog: %w", err)
		}
		if t.work.arrived != nil {
			if err := t.wait(ctx, applied, func(ctx context.Context) (bool, error) { return t.work.arrived(ctx, t.target) }); err != nil {
				return nil, fmt.Errorf("wait for all of the backlog: %w", err)
			}
		}
		took := time.Since(began)
		after, err := t.usage(ctx)
		if err != nil {
			return nil, err
		}
		perMillion := func(now, then proc.Usage) float64 { return now.Since(then).Seconds() * 1e6 / float64(written) }
		f := figures{
			"rate":   float64(written) / took.Seconds(),
			"first":  first.Seconds(),
			"own":    perMillion(after.own, before.own),
			"reader": perMillion(after.readers, before.readers),
			"writer": perMillion(after.writers, before.writers),
		}
		f["sum"] = f["own"] + f["reader"] + f["writer"]
		return f, nil
	}
}

// transaction measures one large transaction on a replica that is following, from the start of its only statement
// until its last row is visible.
func transaction(rows int) func(context.Context, *turn) (figures, error) {
	return func(ctx context.Context, t *turn) (figures, error) {
		if err := t.follow(ctx); err != nil {
			return nil, err
		}
		if err := t.pair.Checkpoint(ctx); err != nil {
			return nil, err
		}
		table := t.work.tables[0]
		began := time.Now()
		if err := t.source.Fill(ctx, table, 1, rows); err != nil {
			return nil, err
		}
		err := t.wait(ctx, applied, func(ctx context.Context) (bool, error) { return t.visible(ctx, table, rows) })
		if err != nil {
			return nil, fmt.Errorf("wait for the transaction: %w", err)
		}
		return figures{"seconds": time.Since(began).Seconds()}, nil
	}
}

// Latency is measured at rest: commits are far enough apart that none waits for the one before.
const (
	commitPeriod = 200 * time.Millisecond
	lookPause    = 100 * time.Microsecond // with the question itself the resolution is about 0.2 ms
	warmups      = 5                      // the first rows find no plan and no cache
	lostAfter    = 30 * time.Second
)

// latency measures from the answer to a COMMIT at the source until its row is visible at the target.
func latency(commits int) func(context.Context, *turn) (figures, error) {
	return func(ctx context.Context, t *turn) (figures, error) {
		if err := t.follow(ctx); err != nil {
			return nil, err
		}
		if err := t.pair.Checkpoint(ctx); err != nil {
			return nil, err
		}
		table := t.work.tables[0]
		if _, err := t.visible(ctx, table, 1); err != nil { // prepares the question
			return nil, err
		}
		tick := time.NewTicker(commitPeriod)
		defer tick.Stop()
		var all []float64
		for key := 1; key <= warmups+commits; key++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			took, err := t.commitToVisible(ctx, table, key)
			if err != nil {
				return nil, err
			}
			if key > warmups {
				all = append(all, float64(took)/float64(time.Millisecond))
			}
		}
		return figures{"p50": report.Percentile(all, 0.50), "p99": report.Percentile(all, 0.99)}, nil
	}
}

func (t *turn) commitToVisible(ctx context.Context, table lab.Table, key int) (time.Duration, error) {
	if err := t.source.FillOne(ctx, table, key); err != nil {
		return 0, err
	}
	committed := time.Now()
	for {
		there, err := t.visible(ctx, table, key)
		if err != nil {
			return 0, err
		}
		took := time.Since(committed)
		if there {
			return took, nil
		}
		if took > lostAfter {
			return 0, errors.Join(fmt.Errorf("row %d is not visible %s after its commit", key, lostAfter), t.replica.Check(ctx))
		}
		// The runtime's timers wait in milliseconds when nothing else is going on; the kernel's in microseconds. An
		// interrupted pause is only a shorter one.
		pause := unix.NsecToTimespec(int64(lookPause))
		_ = unix.Nanosleep(&pause, nil)
	}
}

func (t *turn) visible(ctx context.Context, table lab.Table, key int) (bool, error) {
	n, err := t.target.Int(ctx, "SELECT 1::bigint FROM public."+table.Name+" WHERE id = $1", key)
	return n == 1, err
}
