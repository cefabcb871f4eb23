package lab_test

import (
	"errors"
	"testing"

	testenv "github.com/weirstream/weir/test/env"

	"github.com/weirstream/weir/test/bench/internal/lab"
)

// TestJudges plays a replica by hand, so that the benchmark is seen to refuse what a wrong replica would show it.
func TestJudges(t *testing.T) {
	ctx := t.Context()
	pair, err := lab.Start(ctx, 15, testenv.TempDir(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pair.Close(); err != nil {
			t.Error(err)
		}
	})
	tables := append(lab.Tables(1, 20_000), lab.Marks())
	if err := errors.Join(pair.RenewSource(ctx, tables), pair.RenewTarget(ctx)); err != nil {
		t.Fatal(err)
	}
	source, err := pair.ConnectSource(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	target, err := pair.ConnectTarget(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	exec := func(s *lab.Session, sql ...string) {
		t.Helper()
		if err := s.Exec(ctx, sql...); err != nil {
			t.Fatal(err)
		}
	}
	c, err := lab.NewCopy(ctx, source, target, tables)
	if err != nil {
		t.Fatal(err)
	}
	copied := func(want bool, when string) {
		t.Helper()
		if done, err := c.Done(ctx); err != nil || done != want {
			t.Fatalf("%s: copy done is %v, %v; want %v", when, done, err, want)
		}
	}
	differ := func(want bool, when string) {
		t.Helper()
		err := lab.Compare(ctx, source, target, tables)
		if errors.Is(err, lab.ErrDifferent) != want || !want && err != nil {
			t.Fatalf("%s: comparison says %v", when, err)
		}
	}

	copied(false, "no tables")
	if err := target.CreateTables(ctx, tables); err != nil {
		t.Fatal(err)
	}
	copied(false, "empty tables")
	if err := target.Fill(ctx, tables[0], 1, 19_999); err != nil {
		t.Fatal(err)
	}
	copied(false, "a row is missing")
	if err := errors.Join(target.Fill(ctx, tables[0], 20_000, 20_000), target.Fill(ctx, tables[1], 1, 2)); err != nil {
		t.Fatal(err)
	}
	copied(true, "all rows")
	differ(false, "all rows")

	exec(target, "UPDATE public.t1 SET amount = amount + 1 WHERE id = 77")
	differ(true, "another value")
	exec(target, "UPDATE public.t1 SET amount = amount - 1 WHERE id = 77")
	differ(false, "the value is back")
	exec(target, "ALTER TABLE public.t1 DROP CONSTRAINT t1_pkey", "CREATE UNIQUE INDEX ON public.t1 (id)")
	differ(true, "an index, but no primary key")
	exec(target, "ALTER TABLE public.t1 ADD PRIMARY KEY (id)")
	differ(true, "an index too many")

	// Backlogs tell how many rows they wrote, which is what a rate is computed from.
	exec(source, "TRUNCATE public.t1")
	if written, err := source.Inserts(ctx, 1_050, 100); err != nil || written != 1_050 {
		t.Fatalf("inserts wrote %d rows, %v", written, err)
	}
	written, err := source.Updates(ctx, 1_050, 100, 1_050)
	if err != nil || written < 950 || written > 1_050 {
		t.Fatalf("updates wrote %d rows, %v", written, err)
	}
	updated, err := source.Int(ctx, "SELECT sum(n - (id * 7919) % 1000003)::bigint FROM public.t1")
	if err != nil || updated != written {
		t.Fatalf("updates wrote %d rows, but the table tells of %d, %v", written, updated, err)
	}

	exec(source, "CREATE PUBLICATION left_over FOR ALL TABLES", "SELECT pg_create_logical_replication_slot('left_over', 'pgoutput')")
	if err := pair.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	left, err := source.Int(ctx, "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)")
	if err != nil || left != 0 {
		t.Fatalf("%d slots and publications are left after Clear, %v", left, err)
	}
}
