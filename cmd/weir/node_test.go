package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/coordinator"
	rest "github.com/weirstream/weir/coordinator/http"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
	"github.com/weirstream/weir/internal/secrets"
	testenv "github.com/weirstream/weir/test/env"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// A lost slot is repaired in the way that W1003 tells: what shows the slot shows it while nothing runs, the delete of the
// failed pipeline ends well and leaves nothing behind, and the next mirror copies into tables that were emptied.
func TestLostSlot(t *testing.T) {
	srv := testenv.Shared(t, 15, testenv.FsyncOff())
	sourceURL, targetURL := srv.CreateDatabase(t, "source"), srv.CreateDatabase(t, "target")
	source, target := testenv.DatabaseOf(t, sourceURL), testenv.DatabaseOf(t, targetURL)
	srv.Exec(t, source, `CREATE TABLE item(id int PRIMARY KEY, v text)`, `INSERT INTO item SELECT i, 'x' FROM generate_series(1, 100) i`)

	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	e := env.Real(nil)
	dir := t.TempDir()
	n, err := openNode(ctx, e, nodeOptions{State: dir, HTTPAddr: "127.0.0.1:0",
		Secrets: secrets.Open(e, secrets.Options{Dir: filepath.Join(dir, "secrets")})})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	c, err := rest.NewClient(e, rest.ClientOptions{Addr: n.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	spec := api.MirrorSpec{Name: "shop", Source: api.Connection{URL: sourceURL}, Target: api.Connection{URL: targetURL}, Tables: []string{"public.*"}}
	mirror := func() (coordinator.PipelineView, error) {
		if _, err := c.CreateMirror(ctx, spec); err != nil {
			return coordinator.PipelineView{}, err
		}
		return c.WaitPhase(ctx, "shop", api.PhaseLive)
	}
	if _, err := mirror(); err != nil {
		t.Fatal(err)
	}
	if none, err := unmatched(ctx, e, sourceURL, []string{"public.item", "public.zzz", "nosuch.*"}); err != nil || !slices.Equal(none, []string{"public.zzz", "nosuch.*"}) {
		t.Errorf("unmatched: %q %v", none, err)
	}
	slot := func() api.SourceStatus {
		s, err := c.Source(ctx, "shop")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	running := slot()
	if running.Slot == "" || !running.SlotActive {
		t.Errorf("while it runs: %+v", running)
	}
	if _, err := c.Pause(ctx, "shop"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitPhase(ctx, "shop", api.PhasePaused); err != nil {
		t.Fatal(err)
	}
	srv.Exec(t, source, `INSERT INTO item SELECT i, repeat('y', 1000) FROM generate_series(101, 1100) i`)
	paused := slot()
	if paused.Slot != running.Slot || paused.Server != running.Server || paused.SlotActive || paused.SlotState != "reserved" || paused.WALRetainedBytes < 1<<20 {
		t.Errorf("while it is paused: %+v", paused)
	}

	srv.Exec(t, source, `SELECT pg_drop_replication_slot('`+running.Slot+`')`)
	if _, err := c.Resume(ctx, "shop"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitPhase(ctx, "shop", api.PhaseLive); !errs.Is(err, errs.SlotLost) {
		t.Fatalf("without its slot: %v", err)
	}
	if s := slot(); s.Slot != running.Slot || s.SlotState != "missing" {
		t.Errorf("while it has failed: %+v", s)
	}
	// It can be ordered, and does not help: every table needs the slot.
	if err := c.RefreshSource(ctx, "shop", []string{"public.item"}); err != nil {
		t.Errorf("a refresh of a failed pipeline: %v", err)
	}
	if _, err := c.Resume(ctx, "shop"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitPhase(ctx, "shop", api.PhaseLive); !errs.Is(err, errs.SlotLost) {
		t.Fatalf("after a refresh without its slot: %v", err)
	}
	if err := c.Delete(ctx, "shop", rest.DeleteOptions{Wait: true}); err != nil {
		t.Fatalf("delete of the failed pipeline: %v", err)
	}
	if rows := srv.Query(t, source, `SELECT pubname FROM pg_publication`); len(rows) != 0 {
		t.Errorf("publications that stayed: %v", rows)
	}
	if rows := srv.Query(t, target, `SELECT pipeline FROM _weir.state UNION ALL SELECT pipeline FROM _weir.ledger`); len(rows) != 0 {
		t.Errorf("ledger rows that stayed: %v", rows)
	}

	// What the first mirror copied is in the way of the second one's copy.
	if _, err := mirror(); !errs.Is(err, errs.SourcePreflight) {
		t.Fatalf("a copy into tables that hold rows: %v", err)
	}
	if err := c.Delete(ctx, "shop", rest.DeleteOptions{Wait: true}); err != nil {
		t.Fatalf("delete of the pipeline whose copy failed: %v", err)
	}
	if rows := srv.Query(t, source, `SELECT slot_name FROM pg_replication_slots WHERE database = current_database()`); len(rows) != 0 {
		t.Errorf("slots that stayed: %v", rows)
	}
	srv.Exec(t, target, `TRUNCATE item`)
	if _, err := mirror(); err != nil {
		t.Fatal(err)
	}
	if got := srv.Query(t, target, `SELECT count(*) FROM item`)[0][0]; got != "1100" {
		t.Errorf("the new copy has %s rows", got)
	}

	// A table that a pattern leaves out is refused, and the pattern itself is taken back.
	if _, err := c.Update(ctx, "shop", coordinator.Change{RemoveTables: []string{"public.tmp_*"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Update(ctx, "shop", coordinator.Change{AddTables: []string{"public.tmp_a"}}); !errs.Is(err, errs.BadPattern) {
		t.Errorf("a table that --except leaves out was added: %v", err)
	}
	v, err := c.Update(ctx, "shop", coordinator.Change{AddTables: []string{"public.tmp_*"}})
	if err != nil || len(v.Mirror.Except) != 0 {
		t.Errorf("the pattern itself: %v %v", v.Mirror.Except, err)
	}
}

// A mistyped password for a second mirror of a database does not take the place of the one by which the first connects.
func TestWrongPasswordOverREST(t *testing.T) {
	srv := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSuperuserPassword("right"))
	sourceURL, targetURL := srv.CreateDatabase(t, "source"), srv.CreateDatabase(t, "target")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	e := env.Real(nil)
	dir := t.TempDir()
	store := secrets.Open(e, secrets.Options{Dir: filepath.Join(dir, "secrets")})
	n, err := openNode(ctx, e, nodeOptions{State: dir, HTTPAddr: "127.0.0.1:0", Secrets: store})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	c, err := rest.NewClient(e, rest.ClientOptions{Addr: n.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	create := func(name, source, target string) error {
		_, err := c.CreateMirror(ctx, api.MirrorSpec{Name: name, Source: api.Connection{URL: source}, Target: api.Connection{URL: target}, Tables: []string{"public.*"}})
		return err
	}
	values := func() (out []string) {
		names, err := store.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			v, err := store.Get(name)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, v.Reveal())
		}
		return out
	}
	if err := create("one", sourceURL, targetURL); err != nil {
		t.Fatal(err)
	}
	if got := values(); !slices.Equal(got, []string{"right", "right"}) {
		t.Fatalf("stored at first: %q", got)
	}
	wrong := func(url string) string { return pg.WithPassword(url, "wrong") }
	if err := create("two", wrong(sourceURL), targetURL); !errs.Is(err, errs.SourceUnreachable) || !strings.Contains(err.Error(), "password authentication failed") {
		t.Errorf("a wrong password of the source: %v", err)
	}
	if err := create("two", sourceURL, wrong(targetURL)); !errs.Is(err, errs.TargetUnreachable) {
		t.Errorf("a wrong password of the target: %v", err)
	}
	if got := values(); !slices.Equal(got, []string{"right", "right"}) {
		t.Errorf("stored after wrong ones: %q", got)
	}
	if _, err := c.Pipeline(ctx, "two"); !errs.Is(err, errs.PipelineNotFound) {
		t.Errorf("the refused mirror: %v", err)
	}
	// A changed one is taken.
	srv.Exec(t, "postgres", `ALTER ROLE postgres PASSWORD 'wrong'`)
	if err := create("two", wrong(sourceURL), wrong(targetURL)); err != nil {
		t.Fatal(err)
	}
	if got := values(); !slices.Equal(got, []string{"wrong", "wrong"}) {
		t.Errorf("stored after a change: %q", got)
	}
	if err := srv.Stop(testenv.Immediate); err != nil {
		t.Fatal(err)
	}
	if err := create("three", sourceURL, targetURL); !errs.Is(err, errs.SourceUnreachable) {
		t.Errorf("another password while the server is down: %v", err)
	}
	if got := values(); !slices.Equal(got, []string{"wrong", "wrong"}) {
		t.Errorf("stored after a try that could not be made: %q", got)
	}
}
