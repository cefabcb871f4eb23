package verify

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/pg"
)

const (
	maxBuckets = 4096 // of a table that is compared in one pass
	split      = 64   // pieces that a bucket is divided into
	fetched    = 32   // pieces whose rows are read at once
	looked     = 500  // keys looked up by one statement
	// heldSuspects bounds what a table keeps to look at again; beyond it, the worker waits until they have settled.
	heldSuspects = 2000
)

// both runs a question on both servers at once, so that the two answers are as close in time as can be.
func both[T any](v *verifier, conns *connections, t *table, ask func(s *side, source bool) (T, error)) (source, target T, err error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	v.env.Go("verify-target", func() {
		value, err := ask(&t.target, false)
		done <- answer{value, err}
	})
	source, err = ask(&t.source, true)
	a := <-done
	switch {
	case err != nil:
		return source, a.value, fmt.Errorf("source: %w", err)
	case a.err != nil:
		return source, a.value, fmt.Errorf("target: %w", a.err)
	}
	return source, a.value, nil
}

// compare sums up one range on both sides and goes into the buckets that differ.
func (v *verifier) compare(ctx context.Context, conns *connections, k task) error {
	t := k.t
	totals := func(n, of int, only []int64) (map[int64]total, map[int64]total, error) {
		return both(v, conns, t, func(s *side, source bool) (map[int64]total, error) {
			conn := conns.target
			if source {
				conn = conns.source
			}
			return s.totals(ctx, conn, k, n, of, only)
		})
	}
	a, b, err := totals(k.buckets, 1, nil)
	if err != nil {
		return err
	}
	t.mu.Lock()
	for _, x := range a {
		t.report.SourceRows += x.rows
	}
	for _, x := range b {
		t.report.TargetRows += x.rows
	}
	t.report.Ranges += int64(k.buckets)
	over := t.report.More
	t.mu.Unlock()
	differ := differing(a, b)
	if len(differ) == 0 || over {
		return nil
	}
	pieces := k.buckets * split
	for part := range slices.Chunk(differ, 256) {
		a, b, err := totals(pieces, k.buckets, part)
		if err != nil {
			return err
		}
		for few := range slices.Chunk(differing(a, b), fetched) {
			if stop, err := v.rows(ctx, conns, k, pieces, few); err != nil || stop {
				return err
			}
		}
	}
	return nil
}

func differing(a, b map[int64]total) []int64 {
	var out []int64
	for k, x := range a {
		if b[k] != x {
			out = append(out, k)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// rows compares the rows of some pieces one by one; what differs becomes a suspect. stop: the table has as many
// differences as are reported.
func (v *verifier) rows(ctx context.Context, conns *connections, k task, pieces int, few []int64) (stop bool, err error) {
	t := k.t
	a, b, err := both(v, conns, t, func(s *side, source bool) (map[string]entry, error) {
		if source {
			return s.fetch(ctx, conns.source, k, pieces, few)
		}
		return s.fetch(ctx, conns.target, k, pieces, few)
	})
	if err != nil {
		return false, err
	}
	now := v.env.Clock.Now()
	var fresh []*suspect
	add := func(e entry) { fresh = append(fresh, newSuspect(e.key, now)) }
	for _, id := range slices.Sorted(maps.Keys(a)) {
		if b[id].value != a[id].value {
			add(a[id])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[id]; !ok {
			add(b[id])
		}
	}
	// A first look at once: most of what differs was on its way.
	for part := range slices.Chunk(fresh, looked) {
		left, err := v.try(ctx, conns, t, part)
		if err != nil {
			return false, err
		}
		t.mu.Lock()
		t.report.Rechecked += int64(len(part))
		t.suspects = append(t.suspects, left...)
		full := len(t.suspects) > max(heldSuspects, 2*v.r.MaxDiffRows)
		t.mu.Unlock()
		if full {
			if err := v.settle(ctx, conns, t); err != nil {
				return false, err
			}
		}
		t.mu.Lock()
		stop = t.report.More
		t.mu.Unlock()
		if stop {
			return true, nil
		}
	}
	return false, nil
}

// try looks at suspects once and returns those that are still ones; the others are put into the report.
func (v *verifier) try(ctx context.Context, conns *connections, t *table, suspects []*suspect) ([]*suspect, error) {
	keys := make([][]string, len(suspects))
	for i, s := range suspects {
		keys[i] = s.key
	}
	before, err := t.source.look(ctx, conns.source, keys)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	if v.r.CaughtUp != nil {
		if err := v.catchUp(ctx, conns); err != nil {
			return nil, err
		}
	}
	target, err := t.target.look(ctx, conns.target, keys)
	if err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	after, err := t.source.look(ctx, conns.source, keys)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	now := v.env.Clock.Now()
	rule := rule{settle: v.r.Settle, caughtUp: v.r.CaughtUp != nil}
	var left, real []*suspect
	unsettled := int64(0)
	for i, s := range suspects {
		switch s.look(rule, now, before[i], target[i], after[i]) {
		case pending:
			left = append(left, s)
		case different:
			real = append(real, s)
		case unsettledRow:
			unsettled++
		case equal:
		}
	}
	t.mu.Lock()
	t.report.Unsettled += unsettled
	t.mu.Unlock()
	return left, v.record(ctx, conns, t, real)
}

func (v *verifier) catchUp(ctx context.Context, conns *connections) error {
	var text string
	err := conns.source.QueryRow(ctx, "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text").Scan(&text)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	position, err := pg.ParseLSN(text)
	if err != nil {
		return err
	}
	if err := v.r.CaughtUp(ctx, position); err != nil {
		return fmt.Errorf("wait for the target to reach %s: %w", position, err)
	}
	return nil
}

// settle looks at a table's suspects again and again, slower each time, until every one is decided.
func (v *verifier) settle(ctx context.Context, conns *connections, t *table) error {
	t.mu.Lock()
	suspects := t.suspects
	t.suspects = nil
	t.mu.Unlock()
	window := v.r.Settle
	if v.r.CaughtUp != nil {
		window = 0 // the waiting is done there
	}
	pause := max(window/300, minPause)
	for len(suspects) > 0 {
		if err := v.env.Clock.Sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, max(window/10, minPause))
		var left []*suspect
		for part := range slices.Chunk(suspects, looked) {
			still, err := v.try(ctx, conns, t, part)
			if err != nil {
				if ctx.Err() != nil || conns.source.IsClosed() || conns.target.IsClosed() {
					return fmt.Errorf("compare %s: %w", t.report.Source, err)
				}
				t.fail(err)
				return nil
			}
			left = append(left, still...)
		}
		suspects = left
		t.mu.Lock()
		over := t.report.More
		t.mu.Unlock()
		if over {
			return nil
		}
	}
	return nil
}

// record reports real differences with their values. Two keys that one server takes for equal (1.0 and 1.00) are two
// suspects and one difference.
func (v *verifier) record(ctx context.Context, conns *connections, t *table, real []*suspect) error {
	if len(real) == 0 {
		return nil
	}
	keys := make([][]string, len(real))
	for i, s := range real {
		keys[i] = s.key
	}
	source, sourceCount, err := t.source.details(ctx, conns.source, keys)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	target, targetCount, err := t.target.details(ctx, conns.target, keys)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range real {
		d := t.diff(source[i], target[i])
		d.SourceCount, d.TargetCount = sourceCount[i], targetCount[i]
		if len(d.Columns) == 0 && d.SourceCount == d.TargetCount || t.known(d) {
			continue
		}
		if len(t.report.Diffs) >= v.r.MaxDiffRows {
			t.report.More = true
			return nil
		}
		t.report.Differing++
		t.report.Diffs = append(t.report.Diffs, d)
	}
	slices.SortStableFunc(t.report.Diffs, func(a, b api.VerifyDiff) int {
		return cmp.Or(slices.Compare(texts(a.Key), texts(b.Key)), slices.Compare(texts(a.Columns), texts(b.Columns)), cmp.Compare(a.Kind, b.Kind))
	})
	return nil
}

// diff names the columns that differ; of a row that one side lacks, all.
func (t *table) diff(source, target []*string) api.VerifyDiff {
	d := api.VerifyDiff{Kind: api.VerifyChanged}
	switch {
	case source == nil:
		d.Kind = api.VerifyExtra
	case target == nil:
		d.Kind = api.VerifyMissing
	}
	at := func(row []*string, i int) *string {
		if row == nil {
			return nil
		}
		return row[i]
	}
	for i, name := range t.source.names {
		c := api.VerifyColumn{Name: name, Source: at(source, i), Target: at(target, i)}
		if slices.Contains(t.source.key, i) {
			d.Key = append(d.Key, c)
		}
		if source == nil || target == nil || t.keyless || !sameText(c.Source, c.Target) {
			d.Columns = append(d.Columns, c)
		}
	}
	return d
}

func sameText(a, b *string) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// known: the same row was found under another spelling of its key.
func (t *table) known(d api.VerifyDiff) bool {
	return !t.keyless && slices.ContainsFunc(t.report.Diffs, func(x api.VerifyDiff) bool {
		return x.Kind == d.Kind && slices.Equal(texts(x.Key), texts(d.Key))
	})
}

func texts(columns []api.VerifyColumn) []string {
	var out []string
	for _, c := range columns {
		for _, v := range []*string{c.Source, c.Target} {
			if v == nil {
				v = new(string)
			}
			out = append(out, *v)
		}
	}
	return out
}
