package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/weirstream/weir/test/bench/internal/lab"
	"github.com/weirstream/weir/test/bench/internal/proc"
	"github.com/weirstream/weir/test/bench/internal/replica"
	"github.com/weirstream/weir/test/bench/internal/report"
)

// bench runs works, one turn after another.
type bench struct {
	pair  *lab.Pair
	flags flags
	peaks []float64 // of weir's memory in each turn, MiB
}

// race runs all turns of a work. A side that fails ends the work and not the benchmark: the others may still tell
// something, and the failure is in the report.
func (b *bench) race(ctx context.Context, w work) []report.Record {
	all := map[string]map[string][]float64{}
	for _, side := range w.sides {
		all[side] = map[string][]float64{}
	}
	made := false
	for run := range b.flags.runs {
		for _, side := range w.sides {
			began := time.Now()
			f, err := b.turn(ctx, w, side, w.keep && made)
			if err != nil {
				err = fmt.Errorf("run %d of %s: %w", run+1, side, err)
				fmt.Fprintf(os.Stderr, "%d %s: %v\n", w.id, w.name, err)
				return b.failed(w, err)
			}
			made = true
			for key, value := range f {
				all[side][key] = append(all[side][key], value)
			}
			main := w.lines[0]
			fmt.Fprintf(os.Stderr, "%d %s: run %d of %s: %.4g %s (the turn took %s)\n",
				w.id, w.name, run+1, side, f[main.key], main.Unit, time.Since(began).Round(time.Second))
		}
	}
	var records []report.Record
	for _, l := range w.lines {
		var others []float64
		if l.against != "" {
			others = all[l.against][l.key]
		}
		of := l.of
		if of == "" {
			of = weir
		}
		records = append(records, b.judged(l).Judge(all[of][l.key], others))
	}
	return records
}

func (b *bench) failed(w work, err error) []report.Record {
	var records []report.Record
	for _, l := range w.lines {
		records = append(records, b.judged(l).Fail(err))
	}
	return records
}

// judged is the line with the floor that holds: small sizes say nothing about floors.
func (b *bench) judged(l line) report.Line {
	if b.flags.quick {
		l.Floor = report.Floor{}
	}
	return l.Line
}

// A turn is one run of one side.
type turn struct {
	pair           *lab.Pair
	work           work
	replica        replica.Replica
	source, target *lab.Session
	mark           int
}

// endLimit bounds the end of a turn whose context may be over.
const endLimit = 2 * time.Minute

func (b *bench) turn(ctx context.Context, w work, side string, keepSource bool) (f figures, err error) {
	if err := b.renew(ctx, w, keepSource); err != nil {
		return nil, err
	}
	t := &turn{pair: b.pair, work: w, replica: b.contender(side)}
	if t.source, err = b.pair.ConnectSource(ctx); err != nil {
		return nil, err
	}
	defer t.source.Close()
	if t.target, err = b.pair.ConnectTarget(ctx); err != nil {
		return nil, err
	}
	defer t.target.Close()
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
		defer cancel()
		peak, stopErr := t.replica.Stop(end)
		if side == weir && peak > 0 {
			b.peaks = append(b.peaks, float64(peak)/(1<<20))
		}
		if stopErr != nil {
			stopErr = fmt.Errorf("stop the replica: %w", stopErr)
		}
		if err = errors.Join(err, stopErr); err != nil {
			err = fmt.Errorf("%w; its log ends with\n%s", err, t.replica.Log())
		}
		err = errors.Join(err, b.pair.Clear(end))
	}()
	if err := t.replica.Prepare(ctx, w.tables); err != nil {
		return nil, fmt.Errorf("prepare the replica: %w", err)
	}
	if err := b.pair.Checkpoint(ctx); err != nil {
		return nil, err
	}
	if f, err = w.measure(ctx, t); err != nil {
		return nil, err
	}
	return f, lab.Compare(ctx, t.source, t.target, w.tables)
}

// renew gives the turn the source and the target that every turn of the work gets.
func (b *bench) renew(ctx context.Context, w work, keepSource bool) error {
	if !keepSource {
		if err := b.pair.RenewSource(ctx, w.tables); err != nil {
			return fmt.Errorf("make the source anew: %w", err)
		}
	}
	if err := b.pair.RenewTarget(ctx); err != nil {
		return fmt.Errorf("make the target anew: %w", err)
	}
	return nil
}

func (b *bench) contender(side string) replica.Replica {
	switch side {
	case weir:
		return replica.NewWeir(b.pair, replica.Options{Binary: b.flags.weir, Set: b.flags.set})
	case twoLanes:
		return replica.NewWeir(b.pair, replica.Options{Binary: b.flags.weir, Set: append(slices.Clone(b.flags.set), "sink.lanes=2")})
	}
	return replica.NewPeer(b.pair, side == streaming)
}

// Limits of waiting for a replica, and how often it is asked whether waiting still makes sense.
const (
	waitLimit  = 20 * time.Minute
	checkEvery = 2 * time.Second
)

// wait asks until the answer is yes.
func (t *turn) wait(ctx context.Context, every time.Duration, ask func(context.Context) (bool, error)) error {
	limited, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	checked := time.Now()
	err := lab.Poll(limited, every, func() (bool, error) {
		yes, err := ask(limited)
		if !yes && err == nil && time.Since(checked) > checkEvery {
			checked = time.Now()
			err = t.replica.Check(limited)
		}
		return yes, err
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("not done after %s", waitLimit)
	}
	return err
}

// follow starts the replica and returns when it has copied everything and applies changes as they come; all that is off
// the clock.
func (t *turn) follow(ctx context.Context) error {
	c, err := lab.NewCopy(ctx, t.source, t.target, t.work.tables)
	if err != nil {
		return err
	}
	if err := t.replica.Start(ctx); err != nil {
		return err
	}
	if err := t.wait(ctx, applied, c.Done); err != nil {
		return fmt.Errorf("wait for the first copy: %w", err)
	}
	if err := t.wait(ctx, 20*time.Millisecond, t.replica.Following); err != nil {
		return fmt.Errorf("wait until all tables are followed: %w", err)
	}
	t.mark++
	if err := t.source.SetMark(ctx, lab.Last, t.mark); err != nil {
		return err
	}
	if err := t.waitMark(ctx, lab.Last); err != nil {
		return fmt.Errorf("wait for the first change: %w", err)
	}
	return nil
}

func (t *turn) waitMark(ctx context.Context, m lab.Mark) error {
	return t.wait(ctx, applied, func(ctx context.Context) (bool, error) { return t.target.Marked(ctx, m, t.mark) })
}

// usage is what the processes that work for the replica have used.
type usage struct{ own, readers, writers proc.Usage }

func (t *turn) usage(ctx context.Context) (u usage, err error) {
	var own []int
	if pid := t.replica.PID(); pid != 0 {
		own = []int{pid}
	}
	if u.own, err = proc.UsageOf(own); err != nil {
		return u, err
	}
	readers, err := t.pair.Readers(ctx)
	if err != nil {
		return u, err
	}
	if u.readers, err = proc.UsageOf(readers); err != nil {
		return u, err
	}
	writers, err := t.pair.Writers(ctx)
	if err != nil {
		return u, err
	}
	u.writers, err = proc.UsageOf(writers)
	return u, err
}
