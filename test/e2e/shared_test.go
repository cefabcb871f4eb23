package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	cdc "github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/internal/pg"
)

// fleet is one weir server with several mirrors of one database.
type fleet struct {
	*mirror
	targets map[string]db
}

const bankSchema = `CREATE TABLE account(id int PRIMARY KEY, balance bigint NOT NULL, pad text);
	INSERT INTO account SELECT i, 0, repeat('x', 100) FROM generate_series(1, 400) i;
	CREATE TABLE entry(id bigserial PRIMARY KEY, account int NOT NULL, amount bigint NOT NULL)`

// bankStep is a transaction of many rows whose balances always add up to nothing. Some are large enough to be sent ahead of their
// commit, some roll back.
func bankStep(n int) string {
	a, b := n%400+1, n*7%400+1
	switch {
	case n%41 == 40:
		return fmt.Sprintf(`BEGIN; UPDATE account SET balance = balance + CASE id %% 2 WHEN 0 THEN 1 ELSE -1 END, pad = repeat('%d', 300); COMMIT`, n%10)
	case n%37 == 36:
		return `BEGIN; UPDATE account SET balance = balance + 1, pad = repeat('z', 300); ROLLBACK`
	}
	return fmt.Sprintf(`BEGIN; UPDATE account SET balance = balance - 5 WHERE id = %[1]d; INSERT INTO entry(account, amount) VALUES (%[1]d, -5);
		UPDATE account SET balance = balance + 5 WHERE id = %[2]d; INSERT INTO entry(account, amount) VALUES (%[2]d, 5); COMMIT`, a, b)
}

func newFleet(t *testing.T, env string) *fleet {
	t.Helper()
	src := newDB(t, source(t, 15), "src")
	src.exec(t, bankSchema)
	f := &fleet{mirror: newMirror(t, src, db{}, "public.*"), targets: map[string]db{}}
	f.restart(env)
	return f
}

func (f *fleet) restart(failpoints string) {
	f.t.Helper()
	f.env = nil
	if failpoints != "" {
		f.env = []string{"WEIR_FAILPOINTS=" + failpoints}
	}
	f.server()
}

// add creates a mirror of the source into a database of its own.
func (f *fleet) add(names ...string) {
	f.t.Helper()
	for _, name := range names {
		f.targets[name] = newDB(f.t, target(f.t, 15), "dst"+name)
		spec := api.MirrorSpec{Name: name, Source: api.Connection{Name: "src", URL: f.src.url}, Target: api.Connection{Name: "dst" + name, URL: f.targets[name].url},
			Tables: []string{"public.*"}, Options: map[string]string{"heartbeat.interval": "200ms", "discovery.interval": "200ms"}}
		body, err := json.Marshal(spec)
		if err != nil {
			f.t.Fatal(err)
		}
		base, err := f.address()
		if err != nil {
			f.t.Fatal(err)
		}
		resp, err := http.Post(base+"/api/v1/pipelines", "application/json", bytes.NewReader(body))
		if err != nil {
			if f.env != nil {
				return // it may crash any time
			}
			f.t.Fatal(err)
		}
		var text bytes.Buffer
		_, _ = text.ReadFrom(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			f.t.Fatalf("create %s: %s %s", name, resp.Status, &text)
		}
	}
}

func (f *fleet) look(name string) (coordinator.PipelineView, error) {
	var v coordinator.PipelineView
	b, err := f.rest("GET", "/api/v1/pipelines/"+name)
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	return v, err
}

// level waits until the named targets durably hold what the source has committed now.
func (f *fleet) level(names ...string) {
	f.t.Helper()
	goal, err := pg.ParseLSN(f.src.one(f.t, "SELECT pg_current_wal_insert_lsn()"))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, name := range names {
		eventually(f.t, waitLimit, name+" catches up", func() (bool, string) {
			if !f.running() {
				f.t.Fatalf("weir is not running\n%s", f.logTail(30))
			}
			v, err := f.look(name)
			if err != nil {
				return false, err.Error()
			}
			if v.Status.Phase == api.PhaseFailed {
				f.t.Fatalf("pipeline %s failed: %+v", name, *v.Status.Error)
			}
			at, err := pg.ParseLSN(v.Status.DurablePosition)
			return err == nil && v.Status.Phase == api.PhaseLive && at >= goal, describe(v.Status)
		})
	}
}

func (f *fleet) slots() []string {
	f.t.Helper()
	var names []string
	for _, row := range f.src.query(f.t, `SELECT slot_name FROM pg_replication_slots WHERE database = current_database() ORDER BY 1`) {
		names = append(names, row[0])
	}
	return names
}

// shared is the name of the slot that mirrors share: what is common to all.
func (f *fleet) shared() string {
	f.t.Helper()
	var pub string
	eventually(f.t, waitLimit, "a publication is there", func() (bool, string) {
		rows := f.src.query(f.t, `SELECT pubname FROM pg_publication ORDER BY 1 LIMIT 1`)
		if len(rows) > 0 {
			pub = rows[0][0]
		}
		return len(rows) > 0, ""
	})
	return pub[:strings.LastIndex(pub, "_")]
}

// own is a mirror's own slot.
func (f *fleet) own(name string) string {
	f.t.Helper()
	var v struct {
		Sources []api.SourceStatus `json:"sources"`
	}
	b, err := f.rest("GET", "/api/v1/sources")
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	for _, s := range v.Sources {
		if s.Pipeline == name {
			return s.Publication // by the same name
		}
	}
	f.t.Fatalf("no source of pipeline %s", name)
	return ""
}

func (f *fleet) wantSlots(what string, want ...string) {
	f.t.Helper()
	slices.Sort(want)
	eventually(f.t, waitLimit, what, func() (bool, string) {
		got := f.slots()
		return slices.Equal(got, want), fmt.Sprintf("slots %v, want %v", got, want)
	})
}

// together waits until everybody reads the shared slot and nothing else is there.
func (f *fleet) together() {
	f.t.Helper()
	f.wantSlots("all share one slot", f.shared())
	if got := f.src.one(f.t, `SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE s.database = current_database()`); got != "1" {
		f.t.Fatalf("%s walsenders, want one", got)
	}
}

func (f *fleet) equal() {
	f.t.Helper()
	for name, dst := range f.targets {
		requireEqual(f.t, f.src, dst)
		if got := dst.one(f.t, `SELECT sum(balance) FROM account`); got != "0" {
			f.t.Fatalf("the balances in %s add up to %s", name, got)
		}
	}
}

// safe checks the invariant of sharing: for each target a slot is left that stands at or before its position.
func (f *fleet) safe() {
	f.t.Helper()
	confirmed := map[string]pg.LSN{}
	for _, row := range f.src.query(f.t, `SELECT slot_name, confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()`) {
		at, err := pg.ParseLSN(row[1])
		if err != nil {
			f.t.Fatal(err)
		}
		confirmed[row[0]] = at
	}
	for name, dst := range f.targets {
		if dst.one(f.t, `SELECT to_regclass('_weir.state') IS NOT NULL`) != "t" {
			continue
		}
		state := map[string]string{}
		for _, row := range dst.query(f.t, `SELECT key, convert_from(value, 'UTF8') FROM "_weir"."state" WHERE key IN ('position', 'slot')`) {
			state[row[0]] = row[1]
		}
		if state["position"] == "" {
			continue
		}
		at, err := pg.ParseLSN(state["position"])
		if err != nil {
			f.t.Fatal(err)
		}
		slot := state["slot"]
		if _, ok := confirmed[slot]; !ok {
			slot = f.shared()
		}
		if c, ok := confirmed[slot]; !ok || c > at {
			f.t.Fatalf("%s stands at %s, and no slot keeps log for it: %v", name, at, confirmed)
		}
	}
}

// watch reads the targets all the time: no moment shows half of a transfer.
func (f *fleet) watch(name string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	url := f.targets[name].url
	go func() {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			done <- nil
			return
		}
		defer func() { _ = conn.Close(context.Background()) }()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ; ctx.Err() == nil; <-tick.C {
			var sum, entries int64
			err := conn.QueryRow(context.Background(), `SELECT (SELECT coalesce(sum(balance), 0) FROM account)::int8, (SELECT coalesce(sum(amount), 0) FROM entry)::int8`).Scan(&sum, &entries)
			if err != nil || sum != 0 || entries != 0 {
				done <- fmt.Errorf("%s showed the sums %d and %d (%v)", name, sum, entries, err)
				return
			}
		}
		done <- nil
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	}
}

// freeze stops the target's backends that write for a mirror: nothing is refused, and nothing goes on. A lock would run into
// the mirror's own time limit.
func (f *fleet) freeze(name string) (thaw func()) {
	f.t.Helper()
	var stopped []int
	thaw = func() {
		for _, pid := range stopped {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
		stopped = nil
	}
	f.t.Cleanup(thaw)
	for _, row := range f.targets[name].query(f.t, `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'weir target%'`) {
		pid, err := strconv.Atoi(row[0])
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGSTOP)
		}
		if err != nil {
			f.t.Fatal(err)
		}
		stopped = append(stopped, pid)
	}
	if len(stopped) == 0 {
		f.t.Fatalf("nobody writes into the target of %s", name)
	}
	return thaw
}

// untroubled checks that no pipeline was started again.
func (f *fleet) untroubled(names ...string) {
	f.t.Helper()
	for _, name := range names {
		v, err := f.look(name)
		if err != nil {
			f.t.Fatal(err)
		}
		if v.Status.Restarts != 0 || v.Status.Error != nil {
			f.t.Errorf("%s was started again: %s", name, describe(v.Status))
		}
	}
}

// TestSharedSlot lets several mirrors of a database share a slot, part and meet again.
func TestSharedSlot(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "")
	f.add("a", "b")
	f.level("a", "b")
	d := startProgram(t, f.src, bankStep, 2*time.Millisecond)
	f.together()
	stop := f.watch("a")
	d.more(t, 50)
	f.level("a", "b")
	text := f.mustCLI("sources", "list")
	if !strings.Contains(text, f.shared()+" ") || !strings.Contains(text, "a, b") {
		t.Errorf("weir sources list does not show who shares:\n%s", text)
	}

	f.add("c")
	f.level("c")
	f.together()
	ownB, ownC := f.own("b"), f.own("c")

	// The target of b hangs: the others go on, and their slot is not held back.
	thaw := f.freeze("b")
	f.wantSlots("b reads a slot of its own again", f.shared(), ownB)
	before := f.src.one(t, `SELECT pg_current_wal_lsn()`)
	eventually(t, waitLimit, "the shared slot moves on", func() (bool, string) {
		got := f.src.one(t, fmt.Sprintf(`SELECT count(*) = 1 FROM pg_replication_slots WHERE confirmed_flush_lsn > '%s' AND slot_name = '%s'`, before, f.shared()))
		return got == "t", got
	})
	f.level("a", "c")
	f.safe()
	thaw()
	f.level("b")
	f.together()
	f.untroubled("a", "b", "c")

	// Paused, and back.
	f.mustCLI("pipelines", "pause", "c", "--wait")
	f.wantSlots("a paused mirror has its own slot", f.shared(), ownC)
	f.safe()
	f.mustCLI("pipelines", "resume", "c", "--wait")
	f.level("c")
	f.together()

	stop()
	f.kill()
	f.safe()
	d.more(t, 20)
	f.restart("")
	f.level("a", "b", "c")
	f.together()
	stop = f.watch("b")

	// Deleted while the others share.
	f.mustCLI("pipelines", "delete", "c", "--yes", "--wait")
	delete(f.targets, "c")
	if got := f.src.one(t, `SELECT count(*) FROM pg_publication`); got != "2" {
		t.Errorf("%s publications after a delete, want 2", got)
	}
	d.more(t, 50)
	f.level("a", "b")
	f.together()
	stop()
	d.stop(t)
	f.level("a", "b")
	f.equal()
	f.safe()
	f.untroubled("a", "b")
	ownA := f.own("a")
	f.mustCLI("pipelines", "delete", "b", "--yes", "--wait")
	f.wantSlots("the last one has its own slot", ownA)
	f.mustCLI("pipelines", "delete", "a", "--yes", "--wait")
	f.wantSlots("nothing is left")
	if got := f.src.one(t, `SELECT count(*) FROM pg_publication`); got != "0" {
		t.Errorf("%s publications are left", got)
	}
}

// TestSharedSlotCrashes kills the process at every step between an own slot and the shared one.
func TestSharedSlotCrashes(t *testing.T) {
	pause := func(f *fleet) {
		f.together()
		_, _, _ = f.cli("pipelines", "pause", "b")
	}
	for _, c := range []struct {
		point failpoint.Point
		hit   int
		then  func(f *fleet)
	}{
		{cdc.FailShareMake, 1, nil},
		{cdc.FailShareMade, 1, nil},
		{cdc.FailShareJoin, 1, nil},
		{cdc.FailShareJoin, 2, nil},
		{cdc.FailShareJoined, 1, nil},
		{cdc.FailShareJoined, 2, nil},
		{cdc.FailShareTurn, 1, func(f *fleet) { f.together(); f.add("c") }},
		{cdc.FailShareLeave, 1, pause},
		{cdc.FailShareLeft, 1, pause},
		{cdc.FailShareRetire, 1, func(f *fleet) { f.together(); f.signal(2) }},
	} {
		t.Run(fmt.Sprintf("%s@%d", c.point, c.hit), func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, fmt.Sprintf("%s=kill@%d", c.point, c.hit))
			d := startProgram(t, f.src, bankStep, 3*time.Millisecond)
			f.add("a", "b")
			if c.then != nil {
				c.then(f)
			}
			if err := f.wait(waitLimit); err == nil || !strings.Contains(f.log(), failpoint.ErrKill.Error()) {
				t.Fatalf("weir ended with %v, not by the crash point", err)
			}
			f.safe()
			d.more(t, 5)
			f.restart("")
			names := []string{"a", "b"}
			if _, ok := f.targets["c"]; ok {
				names = append(names, "c")
			}
			for _, name := range names {
				_, _ = f.rest("POST", "/api/v1/pipelines/"+name+"/resume")
			}
			f.level(names...)
			f.together()
			d.stop(t)
			f.level(names...)
			f.equal()
			f.safe()
			requireLog(t, f)
		})
	}
}

// requireLog looks for what must not have happened on the way.
func requireLog(t *testing.T, f *fleet) {
	t.Helper()
	for _, word := range []string{"W1003", "W1004", "needs the user"} {
		if strings.Contains(f.log(), word) {
			t.Errorf("the log tells of %s\n%s", word, f.logTail(40))
		}
	}
}

// TestCutoverOfSharing: a mirror that shares a slot is cut over, and looks for late writers in the slot that it gets for
// itself; the others go on.
func TestCutoverOfSharing(t *testing.T) {
	f := newFleet(t, "")
	f.add("one", "two")
	f.level("one", "two")
	f.together()
	ctx, stop := context.WithCancel(t.Context())
	written := make(chan struct{})
	go func() {
		defer close(written)
		for n := 0; ctx.Err() == nil; n++ {
			if conn, err := pgx.Connect(ctx, f.src.url); err == nil {
				_, _ = conn.Exec(ctx, fmt.Sprintf(`UPDATE account SET pad = '%d' WHERE id = 7`, n))
				_ = conn.Close(context.Background())
			}
			<-time.After(20 * time.Millisecond)
		}
	}()
	eventually(t, waitLimit, "the cut-over notices", func() (bool, string) {
		out, errOut, code := f.cli("mirror", "cutover", "one", "--yes")
		if code == 0 {
			t.Fatalf("the cut-over went through while somebody wrote\n%s%s", out, errOut)
		}
		return strings.Contains(errOut, "behind what the target has"), out + errOut
	})
	stop()
	<-written
	f.level("one", "two")
	eventually(t, waitLimit, "the cut-over is done", func() (bool, string) {
		out, errOut, code := f.cli("mirror", "cutover", "one", "--yes")
		return code == 0, out + errOut
	})
	requireEqual(t, f.src, f.targets["one"])
	delete(f.targets, "one")
	f.src.exec(t, bankStep(1))
	f.level("two")
	f.equal()
	f.safe()
}
