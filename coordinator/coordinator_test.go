package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeRunner runs pipelines that do nothing, and notes what it was asked to.
type fakeRunner struct {
	mu        sync.Mutex
	trace     []string
	running   map[string]*fakeRunning // by name
	startErr  error
	removeErr error
	command   func(api.Command) error
	checkAdd  func(api.MirrorSpec, []string) error
	covers    func(api.MirrorSpec, string) bool
}

func newFakeRunner() *fakeRunner { return &fakeRunner{running: map[string]*fakeRunning{}} }

func (f *fakeRunner) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trace = append(f.trace, fmt.Sprintf(format, args...))
}

func (f *fakeRunner) set(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

func (f *fakeRunner) get(name string) *fakeRunning {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running[name]
}

func (f *fakeRunner) Start(_ context.Context, p api.Pipeline, gen dataflow.Generation) (Running, error) {
	f.note("start %s %d", p.Name, gen)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.startErr != nil {
		return nil, f.startErr
	}
	r := &fakeRunning{runner: f, p: p, done: make(chan struct{})}
	f.running[p.Name] = r
	return r, nil
}

func (f *fakeRunner) Remove(_ context.Context, p api.Pipeline) error {
	f.note("remove %s %d", p.Name, p.Generation)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.removeErr
}

type fakeRunning struct {
	runner *fakeRunner
	p      api.Pipeline
	once   sync.Once
	done   chan struct{}
	err    error
}

func (r *fakeRunning) Status() api.PipelineStatus {
	return api.PipelineStatus{Phase: api.PhaseLive, Checkpoint: 7, RowsTotal: 42}
}

func (r *fakeRunning) Source(context.Context) (api.SourceStatus, error) {
	return api.SourceStatus{Slot: "weir_" + r.p.Name, LagBytes: 9}, nil
}

func (r *fakeRunning) Command(_ context.Context, c api.Command) error {
	r.runner.note("command %s %s %v", r.p.Name, c.Verb, c.Tables)
	r.runner.mu.Lock()
	defer r.runner.mu.Unlock()
	if r.runner.command != nil {
		return r.runner.command(c)
	}
	return nil
}

func (r *fakeRunning) end(err error) {
	r.once.Do(func() { r.err = err; close(r.done) })
}

func (r *fakeRunning) Stop(context.Context) error {
	r.runner.note("stop %s", r.p.Name)
	r.end(nil)
	return nil
}

func (r *fakeRunning) Done() <-chan struct{} { return r.done }
func (r *fakeRunning) Err() error            { return r.err }

type fixture struct {
	t       *testing.T
	fs      vfs.FS
	env     *env.Env
	runner  *fakeRunner
	as      Runner // what the coordinator gets; nil: runner
	state   *State
	c       *Coordinator
	crashed atomic.Pointer[error]
}

func newFixture(t *testing.T, fs vfs.FS) *fixture {
	f := &fixture{t: t, fs: fs, runner: newFakeRunner()}
	f.open()
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	f.env = env.Real(nil)
	f.env.FS = f.fs
	f.env.Crash = func(reason error) { f.crashed.CompareAndSwap(nil, &reason) }
	var err error
	if f.state, err = OpenState(f.env, "/state"); err != nil {
		f.t.Fatal(err)
	}
	if f.c, err = Open(f.ctx(), f.env, Options{State: f.state, Runner: cmp.Or[Runner](f.as, f.runner), CheckAdd: f.runner.checkAdd, Covers: f.runner.covers}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) close() {
	f.t.Helper()
	if err := errors.Join(f.c.Close(f.ctx()), f.state.Close()); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	f.t.Cleanup(cancel)
	return ctx
}

func (f *fixture) create(name string) api.Pipeline {
	f.t.Helper()
	p, err := f.c.CreateMirror(f.ctx(), spec(name))
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

func (f *fixture) wait(name string, phase api.Phase) PipelineView {
	f.t.Helper()
	v, err := f.c.WaitPhase(f.ctx(), name, phase)
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

func (f *fixture) trace() string {
	f.runner.mu.Lock()
	defer f.runner.mu.Unlock()
	return fmt.Sprint(f.runner.trace)
}

func TestLifeOfAPipeline(t *testing.T) {
	f := newFixture(t, vfs.NewMem())
	p := f.create("orders")
	v := f.wait("orders", api.PhaseLive)
	if v.Status.RowsTotal != 42 || v.Generation != 1 || v.ID != p.ID {
		t.Errorf("view %+v", v)
	}
	if _, err := f.c.Pause(f.ctx(), "orders"); err != nil {
		t.Fatal(err)
	}
	f.wait("orders", api.PhasePaused)
	if _, err := f.c.Resume(f.ctx(), p.ID); err != nil { // ids address too
		t.Fatal(err)
	}
	if v := f.wait("orders", api.PhaseLive); v.Generation != 2 {
		t.Errorf("generation %d after the resume", v.Generation)
	}
	if err := f.c.Delete(f.ctx(), "orders", false); err != nil {
		t.Fatal(err)
	}
	if err := f.c.WaitGone(f.ctx(), p.ID); err != nil {
		t.Fatal(err)
	}
	if got, want := f.trace(), "[start orders 1 stop orders start orders 2 stop orders remove orders 3]"; got != want {
		t.Errorf("the runner was asked to %s, want %s", got, want)
	}
	if again := f.create("orders"); again.ID == p.ID {
		t.Error("a new pipeline has the id of the old one")
	}
	f.wait("orders", api.PhaseLive)
	f.close()
}

func TestRestartRecoversTheCatalogAndItsPipelines(t *testing.T) {
	mem := vfs.NewCrashableMem()
	f := newFixture(t, mem)
	f.create("orders")
	f.create("users")
	f.wait("orders", api.PhaseLive)
	f.wait("users", api.PhaseLive)
	if _, err := f.c.Pause(f.ctx(), "users"); err != nil {
		t.Fatal(err)
	}
	f.wait("users", api.PhasePaused)
	if err := f.c.Snapshot(f.ctx()); err != nil {
		t.Fatal(err)
	}
	if err := f.c.PutConnection(f.ctx(), api.Connection{Name: "late", URL: "postgres://db/late"}); err != nil {
		t.Fatal(err)
	}
	id, installation := f.c.Pipelines()[0].ID, f.state.Installation()
	afterCrash := mem.CrashClone(vfs.CrashCloneCfg{})
	f.close()

	f.fs = afterCrash
	f.open()
	if v := f.wait("orders", api.PhaseLive); v.ID != id || v.Generation != 2 {
		t.Errorf("after the crash %+v", v.Pipeline)
	}
	f.wait("users", api.PhasePaused)
	if conns := f.c.Connections(); len(conns) != 1 || conns[0].Name != "late" {
		t.Errorf("connections %v", conns)
	}
	if f.state.Installation() != installation {
		t.Error("the installation has another id")
	}
	f.close()
}

func TestFailuresRestartWithANewGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, vfs.NewMem())
		f.create("orders")
		f.wait("orders", api.PhaseLive)
		f.runner.get("orders").end(errors.New("connection reset"))
		v := f.wait("orders", api.PhaseRetrying)
		if v.Status.Error == nil || v.Status.Error.Message != "connection reset" {
			t.Errorf("status %+v", v.Status)
		}
		began := time.Now()
		v = f.wait("orders", api.PhaseLive)
		if took := time.Since(began); took > 1100*time.Millisecond {
			t.Errorf("the first restart came after %s", took)
		}
		if v.Status.Restarts != 1 || v.Generation != 2 || v.Status.Error != nil {
			t.Errorf("after the restart %+v", v)
		}
		f.close()
	})
}

func TestUserErrorWaitsForResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, vfs.NewMem())
		f.runner.set(func() { f.runner.startErr = errs.New(errs.SlotLost, "slot lost").WithHint("refresh it") })
		f.create("orders")
		v := f.wait("orders", api.PhaseFailed)
		if v.Status.Error == nil || v.Status.Error.Code != string(errs.SlotLost) || v.Status.Error.Hint != "refresh it" {
			t.Errorf("status %+v", v.Status.Error)
		}
		if _, err := f.c.WaitPhase(f.ctx(), "orders", api.PhaseLive); !errs.Is(err, errs.SlotLost) {
			t.Errorf("a wait for a failed pipeline: %v", err)
		}
		if err := f.env.Clock.Sleep(f.ctx(), 50*time.Second); err != nil { // virtual time
			t.Fatal(err)
		}
		if got := f.trace(); got != "[start orders 1]" {
			t.Errorf("meanwhile: %s", got)
		}
		f.runner.set(func() { f.runner.startErr = nil })
		if _, err := f.c.Resume(f.ctx(), "orders"); err != nil {
			t.Fatal(err)
		}
		for f.c.Pipelines()[0].Status.Phase != api.PhaseLive {
			if err := f.env.Clock.Sleep(f.ctx(), time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		f.close()
	})
}

func TestForcedDelete(t *testing.T) {
	f := newFixture(t, vfs.NewMem())
	p := f.create("orders")
	f.wait("orders", api.PhaseLive)
	f.runner.set(func() { f.runner.removeErr = errs.New(errs.BadURL, "no such host") })
	if err := f.c.Delete(f.ctx(), "orders", false); err != nil {
		t.Fatal(err)
	}
	f.wait("orders", api.PhaseFailed)
	if err := f.c.Delete(f.ctx(), "orders", true); err != nil {
		t.Fatal(err)
	}
	if err := f.c.WaitGone(f.ctx(), p.ID); err != nil {
		t.Fatal(err)
	}
	f.close()
}

// A delete ends the failure that was before it: nobody who waits is told of that one.
func TestDeleteOfAFailedPipeline(t *testing.T) {
	f := newFixture(t, vfs.NewMem())
	f.runner.set(func() { f.runner.startErr = errs.New(errs.SlotLost, "slot lost") })
	for range 100 { // the wait and the driver race
		p := f.create("orders")
		f.wait("orders", api.PhaseFailed)
		if err := f.c.Delete(f.ctx(), p.ID, false); err != nil {
			t.Fatal(err)
		}
		if err := f.c.WaitGone(f.ctx(), p.ID); err != nil {
			t.Fatal(err)
		}
	}
	f.close()
}

// What waits in the inbox counts for the status before the driver has come to it.
func TestStatusHearsTheInbox(t *testing.T) {
	e := env.Real(nil)
	d := &driver{env: e, log: e.Log, wake: make(chan struct{}, 1)} // nobody runs it
	d.mu.sup = supervisor{state: failed, want: api.WantRunning, failedFor: api.WantRunning, failure: errUser, failedAt: t0}
	d.mu.since = t0
	if st := d.status(); st.Phase != api.PhaseFailed || st.Error == nil || !st.Since.Equal(t0) {
		t.Fatalf("status %+v", st)
	}
	d.post(want(api.WantDeleted))
	if st := d.status(); st.Phase != api.PhaseStarting || st.Error != nil || st.Since.Equal(t0) {
		t.Errorf("after the wish to delete: %+v", st)
	}
	d.mu.inbox = []event{resumed{}}
	if st := d.status(); st.Phase != api.PhaseStarting || st.Error != nil {
		t.Errorf("after a resume: %+v", st)
	}
	if d.mu.sup.state != failed || len(d.mu.inbox) != 1 {
		t.Errorf("the looks changed the driver: %s, %d events", d.mu.sup.state, len(d.mu.inbox))
	}
	if actions, now, ok := d.step(); !ok || now != minting || show(actions) != "mint" || len(d.mu.inbox) != 0 {
		t.Errorf("step: %q, %s, %v", show(actions), now, ok)
	}
	if _, _, ok := d.step(); ok {
		t.Error("a step without an event")
	}
}

// A delete that was cut off is finished by the next start, without being asked again.
func TestDeleteGoesOnAfterARestart(t *testing.T) {
	f := newFixture(t, vfs.NewMem())
	f.runner.set(func() { f.runner.startErr = errs.New(errs.SlotLost, "slot lost") })
	p := f.create("orders")
	f.wait("orders", api.PhaseFailed)
	f.runner.set(func() { f.runner.removeErr = errs.New(errs.SourceUnreachable, "no route") })
	if err := f.c.Delete(f.ctx(), "orders", false); err != nil {
		t.Fatal(err)
	}
	f.wait("orders", api.PhaseRetrying)
	ctx, cancel := context.WithCancel(f.ctx())
	cancel()
	err := f.c.WaitGone(ctx, p.ID)
	if e, ok := errs.As(err); !ok || e.Code != errs.NotCaughtUp || e.Detail != "no route (W1001)" || e.Hint == "" {
		t.Errorf("a wait that is given up says %#v", err)
	}
	f.close()

	f.runner.set(func() { f.runner.removeErr = nil })
	f.open()
	if err := f.c.WaitGone(f.ctx(), p.ID); err != nil {
		t.Fatal(err)
	}
	if left := f.c.Pipelines(); len(left) != 0 {
		t.Errorf("pipelines that stayed: %+v", left)
	}
	f.close()
}

func TestUpdateAndCommands(t *testing.T) {
	f := newFixture(t, vfs.NewMem())
	f.create("orders")
	f.wait("orders", api.PhaseLive)
	p, err := f.c.Update(f.ctx(), "orders", Change{AddTables: []string{"sales.*"}, RemoveTables: []string{"public.tmp"}})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(p.Mirror.Tables, p.Mirror.Except, p.Version) != "[public.* sales.*] [public.tmp] 2" {
		t.Errorf("definition %+v", p.Mirror)
	}
	if err := f.c.Command(f.ctx(), "orders", api.Command{Verb: "refresh", Tables: []string{"public.a"}}); err != nil {
		t.Fatal(err)
	}
	if err := f.c.RefreshSource(f.ctx(), "shop", nil); err != nil {
		t.Fatal(err)
	}
	if got, want := f.trace(), "[start orders 1 command orders remove-tables [public.tmp] command orders add-tables [sales.*]"+
		" command orders refresh [public.a] command orders refresh []]"; got != want {
		t.Errorf("the runner was asked to\n%s, want\n%s", got, want)
	}
	if err := f.c.Command(f.ctx(), "orders", api.Command{Verb: "refesh"}); !errs.Is(err, errs.UnknownOption) {
		t.Errorf("unknown verb: %v", err)
	}
	// A pipeline that cannot follow is started anew with the new definition.
	f.runner.set(func() { f.runner.command = func(api.Command) error { return errs.New(errs.NotBuiltYet, "later") } })
	if _, err := f.c.Update(f.ctx(), "orders", Change{RemoveTables: []string{"sales.*"}}); err != nil {
		t.Fatal(err)
	}
	for f.c.Pipelines()[0].Generation != 2 {
		if err := f.env.Clock.Sleep(f.ctx(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	f.wait("orders", api.PhaseLive)
	for f.runner.get("orders").p.Version != 3 {
		if err := f.env.Clock.Sleep(f.ctx(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.c.Pause(f.ctx(), "orders"); err != nil {
		t.Fatal(err)
	}
	f.wait("orders", api.PhasePaused)
	if err := f.c.Command(f.ctx(), "orders", api.Command{Verb: "refresh"}); !errs.Is(err, errs.PipelineState) {
		t.Errorf("a command to a paused pipeline: %v", err)
	}
	f.close()
}

// laterRunner takes orders for pipelines that do not run.
type laterRunner struct{ *fakeRunner }

func (r laterRunner) CommandLater(_ context.Context, p api.Pipeline, c api.Command, resting func() error) error {
	if err := resting(); err != nil {
		return err
	}
	if slices.Contains(c.Tables, "public.refused") {
		return errs.New(errs.TargetUnreachable, "no route")
	}
	r.note("later %s %s %v", p.Name, c.Verb, c.Tables)
	return nil
}

// TestRemoveAtRest: tables are forgotten before the definition lets them go, and again before it takes them back: they may have
// left while the pipeline ran and had no time to see it.
func TestRemoveAtRest(t *testing.T) {
	f := &fixture{t: t, fs: vfs.NewMem(), runner: newFakeRunner()}
	f.as = laterRunner{f.runner}
	f.open()
	f.create("orders")
	f.wait("orders", api.PhaseLive)
	update := func(c Change) error {
		_, err := f.c.Update(f.ctx(), "orders", c)
		return err
	}
	if err := update(Change{RemoveTables: []string{"public.early"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.c.Pause(f.ctx(), "orders"); err != nil { // what comes now waits until it rests
		t.Fatal(err)
	}
	for _, c := range []Change{{RemoveTables: []string{"public.a", "public.b*"}}, {AddTables: []string{"public.new"}}, {AddTables: []string{"public.early", "public.a"}}} {
		if err := update(c); err != nil {
			t.Fatal(err)
		}
	}
	want := "later orders remove-tables [public.a public.b*] later orders remove-tables [public.early public.a]"
	if got := f.trace(); !strings.Contains(got, want) || strings.Contains(got, "later orders remove-tables [public.early] ") {
		t.Errorf("the runner was asked to\n%s, want\n%s", got, want)
	}
	if err := update(Change{RemoveTables: []string{"public.refused"}}); !errs.Is(err, errs.TargetUnreachable) {
		t.Errorf("a removal that the target cannot take: %v", err)
	}
	if m := f.c.Pipelines()[0].Mirror; !slices.Equal(m.Except, []string{"public.b*"}) {
		t.Errorf("except %v", m.Except)
	}
	f.close()
}

// TestAddBackWhileRunning: a removal that is taken back before the pipeline has seen it is made good when it starts anew.
func TestAddBackWhileRunning(t *testing.T) {
	f := &fixture{t: t, fs: vfs.NewMem(), runner: newFakeRunner()}
	f.as = laterRunner{f.runner}
	f.runner.command = func(api.Command) error { return errs.New(errs.NotBuiltYet, "only by a start") }
	f.open()
	f.create("orders")
	f.wait("orders", api.PhaseLive)
	for i, c := range []Change{{RemoveTables: []string{"public.a"}}, {AddTables: []string{"public.a", "public.b"}}} {
		if _, err := f.c.Update(f.ctx(), "orders", c); err != nil {
			t.Fatal(err)
		}
		for f.c.Pipelines()[0].Generation != uint64(i+2) {
			if err := f.env.Clock.Sleep(f.ctx(), time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		f.wait("orders", api.PhaseLive)
	}
	if got, want := f.trace(), "later orders remove-tables [public.a] start orders 3"; !strings.Contains(got, want) || strings.Count(got, "later") != 1 {
		t.Errorf("the runner was asked to\n%s, want\n%s", got, want)
	}
	f.close()
}

// TestAddTakesBack: an add is the inverse of a remove, and neither makes the last pattern one for every table.
func TestAddTakesBack(t *testing.T) {
	f := &fixture{t: t, fs: vfs.NewMem(), runner: newFakeRunner()}
	f.runner.covers = func(m api.MirrorSpec, s string) bool { return slices.Contains(m.Tables, "public.*") && s != "sales.y" }
	f.open()
	f.create("orders") // of public.*
	f.wait("orders", api.PhaseLive)
	for _, c := range []struct {
		change Change
		want   string
	}{
		{Change{RemoveTables: []string{"public.y", "sales.y"}}, "[public.*] [public.y sales.y]"},
		{Change{AddTables: []string{"public.y"}}, "[public.*] [sales.y]"},
		{Change{AddTables: []string{"sales.y"}}, "[public.* sales.y] []"},
		{Change{AddTables: []string{"public.z"}}, "[public.* sales.y public.z] []"},
		{Change{RemoveTables: []string{"sales.y", "public.z"}}, "[public.*] [sales.y public.z]"},
		{Change{RemoveTables: []string{"public.*"}}, "[public.*] [sales.y public.z public.*]"},
		{Change{AddTables: []string{"public.*", "public.z"}}, "[public.*] [sales.y]"},
	} {
		p, err := f.c.Update(f.ctx(), "orders", c.change)
		if got := fmt.Sprint(p.Mirror.Tables, p.Mirror.Except); err != nil || got != c.want {
			t.Errorf("%+v: %s %v, want %s", c.change, got, err, c.want)
		}
	}
	f.close()
}

// TestCommandWhileRetrying: an order is remembered by a pipeline that waits for its next attempt as by one that has failed.
func TestCommandWhileRetrying(t *testing.T) {
	f := &fixture{t: t, fs: vfs.NewMem(), runner: newFakeRunner()}
	f.as = laterRunner{f.runner}
	f.open()
	for code, phase := range map[errs.Code]api.Phase{errs.SourceUnreachable: api.PhaseRetrying, errs.SlotLost: api.PhaseFailed} {
		name := "shop-" + string(phase)
		f.runner.set(func() { f.runner.startErr = errs.New(code, "not now") })
		f.create(name)
		f.wait(name, phase)
		for {
			err := f.c.Command(f.ctx(), name, api.Command{Verb: "refresh", Tables: []string{"public.a"}})
			if err == nil {
				break
			}
			if !errs.Is(err, errs.PipelineState) { // an attempt was under way
				t.Fatalf("%s: %v", phase, err)
			}
			if err := f.env.Clock.Sleep(f.ctx(), time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := f.trace(), "later "+name+" refresh [public.a]"; !strings.Contains(got, want) {
			t.Errorf("%s: %s", phase, got)
		}
	}
	f.close()
}

func TestSources(t *testing.T) {
	f := newFixture(t, vfs.NewMem())
	f.create("orders")
	f.wait("orders", api.PhaseLive)
	list := f.c.Sources(f.ctx())
	if len(list) != 1 || list[0].Name != "shop" || list[0].Pipeline != "orders" || list[0].LagBytes != 9 {
		t.Errorf("sources %+v", list)
	}
	if s, err := f.c.Source(f.ctx(), "shop"); err != nil || s.Slot != "weir_orders" {
		t.Errorf("source %+v, %v", s, err)
	}
	if _, err := f.c.Source(f.ctx(), "shp"); !errs.Is(err, errs.PipelineNotFound) {
		t.Errorf("unknown source: %v", err)
	}
	f.close()
}

// prober is a runner that also answers for pipelines that do not run.
type prober struct {
	*fakeRunner
	err error
}

func (p *prober) ProbeSource(_ context.Context, pl api.Pipeline) (api.SourceStatus, error) {
	return api.SourceStatus{Name: "x", Slot: "probed_" + pl.Name, WALRetainedBytes: 5}, p.err
}

func TestSourcesOfPipelinesThatDoNotRun(t *testing.T) {
	f := newFixture(t, vfs.NewMem())
	f.create("orders")
	f.wait("orders", api.PhaseLive)
	look := func(r Runner) api.SourceStatus {
		f.c.runner = r // the driver starts nothing in this test while it is exchanged
		s, err := f.c.Source(f.ctx(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	probes := &prober{fakeRunner: f.runner}
	if s := look(probes); s.Slot != "weir_orders" {
		t.Errorf("while it runs: %+v", s)
	}
	if _, err := f.c.Pause(f.ctx(), "orders"); err != nil {
		t.Fatal(err)
	}
	f.wait("orders", api.PhasePaused)
	if s := look(probes); s.Slot != "probed_orders" || s.WALRetainedBytes != 5 || s.Name != "shop" || s.Pipeline != "orders" {
		t.Errorf("while it is paused: %+v", s)
	}
	probes.err = errs.New(errs.SourceUnreachable, "no route")
	for _, r := range []Runner{probes, f.runner} {
		if s := look(r); s.Slot != "" || s.WALRetainedBytes != -1 || s.LagBytes != -1 || s.Name != "shop" {
			t.Errorf("without an answer: %+v", s)
		}
	}
	f.close()
}

func TestAddIsChecked(t *testing.T) {
	f := &fixture{t: t, fs: vfs.NewMem(), runner: newFakeRunner()}
	var asked string
	f.runner.checkAdd = func(m api.MirrorSpec, added []string) error {
		asked = fmt.Sprint(m.Tables, m.Except, added)
		if added[0] == "public.tmp" {
			return errs.New(errs.BadPattern, "left out")
		}
		return nil
	}
	f.open()
	f.create("orders")
	f.wait("orders", api.PhaseLive)
	if _, err := f.c.Update(f.ctx(), "orders", Change{AddTables: []string{"public.tmp"}}); !errs.Is(err, errs.BadPattern) {
		t.Errorf("a refused table: %v", err)
	}
	if want := "[public.* public.tmp] [] [public.tmp]"; asked != want {
		t.Errorf("asked about %s, want %s", asked, want)
	}
	if p := f.c.Pipelines()[0]; p.Version != 1 || len(p.Mirror.Tables) != 1 {
		t.Errorf("the refused change was made: %+v", p.Mirror)
	}
	if p, err := f.c.Update(f.ctx(), "orders", Change{AddTables: []string{"public.a"}}); err != nil || p.Version != 2 {
		t.Errorf("an accepted table: %+v, %v", p, err)
	}
	f.close()
}

func TestNamesAndSecrets(t *testing.T) {
	f := newFixture(t, vfs.NewMem())
	f.create("orders")
	_, err := f.c.Pipeline("ordres")
	if e, ok := errs.As(err); !ok || e.Code != errs.PipelineNotFound || e.Hint != `did you mean "orders"?` {
		t.Errorf("a mistyped name: %v", err)
	}
	m := spec("leaky")
	m.Source.URL = "postgres://u:hunter2@db/shop"
	if _, err := f.c.CreateMirror(f.ctx(), m); !errs.Is(err, errs.BadURL) {
		t.Errorf("a password in a URL: %v", err)
	}
	m = spec("named")
	m.Source = api.Connection{Name: "shp"}
	if err := f.c.PutConnection(f.ctx(), api.Connection{Name: "shop", URL: "postgres://db/shop"}); err != nil {
		t.Fatal(err)
	}
	_, err = f.c.CreateMirror(f.ctx(), m)
	if e, ok := errs.As(err); !ok || e.Code != errs.BadURL || e.Hint != `did you mean "shop"?` {
		t.Errorf("a mistyped connection: %v", err)
	}
	m.Source.Name = "shop"
	if p, err := f.c.CreateMirror(f.ctx(), m); err != nil || p.Mirror.Source.URL != "postgres://db/shop" {
		t.Errorf("a named connection: %+v %v", p, err)
	}
	f.close()
}

func TestCheckpointsThroughRaft(t *testing.T) {
	f := newFixture(t, vfs.NewMem())
	p := f.create("orders")
	f.wait("orders", api.PhaseLive)
	cp := Checkpoint{ID: p.ID, Generation: 1, Checkpoint: 3, Digest: "d3", Bytes: 77, Positions: []Position{{"s", "tl1", 10}}}
	if err := f.c.RecordCheckpoint(f.ctx(), cp); err != nil {
		t.Fatal(err)
	}
	got, err := f.c.LastCheckpoint(f.ctx(), p.ID)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(cp) {
		t.Errorf("last checkpoint %+v, %v", got, err)
	}
	cp.Checkpoint, cp.Generation = 4, 0
	if err := f.c.RecordCheckpoint(f.ctx(), cp); !errs.Is(err, errs.Fenced) {
		t.Errorf("a checkpoint of an older generation: %v", err)
	}
	f.close()
}

// A definition that an older weir wrote still means the same, and one of queries has no mirror in it.
func TestQueriesInTheCatalog(t *testing.T) {
	old := append([]byte{byte(KindCreatePipeline)}, `{"id":"a","at":"2026-01-02T03:04:05Z","mirror":{"name":"m","source":{"name":"s","url":"postgres://s/d"},"target":{"name":"","url":"postgres://t/d"},"tables":[]}}`...)
	e, err := DecodeEntry(entryFormat.Append(nil, old))
	if c, ok := e.(CreatePipeline); err != nil || !ok || c.Query != nil || c.name() != "m" {
		t.Fatalf("%+v, %v", e, err)
	}
	q := CreatePipeline{ID: "b", Query: &api.QuerySpec{Name: "q", File: "q.sql", SQL: "SELECT 1;"}}
	b, err := EncodeEntry(q)
	if err != nil || strings.Contains(string(b), "mirror") {
		t.Errorf("%s, %v", b, err)
	}
	c := newCatalog()
	for _, e := range []Entry{e, q, NewGeneration{ID: "b"}, Checkpoint{ID: "b", Generation: 1, Checkpoint: 4, Digest: "d", Bytes: 9}} {
		if _, err := c.apply(e); err != nil {
			t.Fatal(err)
		}
	}
	if r := c.pipelines["b"]; r.Pipeline.Query.SQL != "SELECT 1;" || r.Checkpoint != 4 || r.Bytes != 9 {
		t.Errorf("%+v", r)
	}
	for _, e := range []Entry{
		CreatePipeline{ID: "c", Query: &api.QuerySpec{Name: "q", SQL: "x"}},
		CreatePipeline{ID: "c", Query: &api.QuerySpec{Name: "no spaces", SQL: "x"}},
		CreatePipeline{ID: "c", Query: &api.QuerySpec{Name: "empty", SQL: " "}},
		UpdatePipeline{ID: "b", Version: 1, Mirror: api.MirrorSpec{Name: "q"}},
		UpdatePipeline{ID: "a", Version: 1, Query: &api.QuerySpec{Name: "m", SQL: "x"}},
		UpdatePipeline{ID: "b", Version: 1, Query: &api.QuerySpec{Name: "other", SQL: "x"}},
		UpdatePipeline{ID: "b", Version: 1, Query: &api.QuerySpec{Name: "q"}},
		UpdatePipeline{ID: "b", Version: 2, Query: &api.QuerySpec{Name: "q", SQL: "x"}},
	} {
		if _, err := c.apply(e); err == nil {
			t.Errorf("accepted %+v", e)
		}
	}
	f := newFixture(t, vfs.NewMem())
	if _, err := f.c.CreateQuery(f.ctx(), *q.Query); !errs.Is(err, errs.NotBuiltYet) {
		t.Errorf("a node without a way to keep secrets: %v", err)
	}
	f.c.opts.SealQuery = func(_ context.Context, q api.QuerySpec) (api.QuerySpec, error) {
		q.SQL = "sealed"
		return q, nil
	}
	if p, err := f.c.CreateQuery(f.ctx(), *q.Query); err != nil || p.Query.SQL != "sealed" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := f.c.Update(f.ctx(), "q", Change{AddTables: []string{"a.b"}}); !errs.Is(err, errs.PipelineState) {
		t.Errorf("update: %v", err)
	}
	f.wait("q", api.PhaseLive)
	if _, err := f.c.Update(f.ctx(), "q", Change{}); !errs.Is(err, errs.BadFlag) {
		t.Errorf("an update of nothing: %v", err)
	}
	if p, err := f.c.Update(f.ctx(), "q", Change{Options: map[string]string{"parallelism": "2"}}); err != nil || p.Version != 2 || p.Query.Options["parallelism"] != "2" {
		t.Errorf("other options: %+v, %v", p, err)
	}
	for {
		p, err := f.c.Pipeline("q")
		if err != nil {
			t.Fatal(err)
		}
		if p.Generation == 2 && p.Status.Phase == api.PhaseLive {
			break // it was started anew
		}
		if err := f.c.env.Clock.Sleep(f.ctx(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	f.c.opts.CheckOptions = func(was, will api.QuerySpec) error { return errs.New(errs.PipelineState, "no") }
	if _, err := f.c.Update(f.ctx(), "q", Change{Options: map[string]string{}}); !errs.Is(err, errs.PipelineState) {
		t.Errorf("refused options: %v", err)
	}
	if err := f.c.Command(f.ctx(), "q", api.Command{Verb: "refresh"}); !errs.Is(err, errs.PipelineState) {
		t.Errorf("command: %v", err)
	}
	if s := f.c.Sources(f.ctx()); len(s) != 0 {
		t.Errorf("sources %+v", s)
	}
	f.close()
}

func BenchmarkRecordCheckpoint(b *testing.B) {
	e := env.Real(nil)
	state, err := OpenState(e, b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	c, err := Open(ctx, e, Options{State: state, Runner: newFakeRunner()})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := c.propose(ctx, CreatePipeline{ID: "a", Query: &api.QuerySpec{Name: "q", SQL: "x"}}); err != nil {
		b.Fatal(err)
	}
	c.reconcile()
	if _, err := c.WaitPhase(ctx, "q", api.PhaseLive); err != nil {
		b.Fatal(err)
	}
	n := uint64(0)
	for b.Loop() {
		n++
		if err := c.RecordCheckpoint(ctx, Checkpoint{ID: "a", Generation: 1, Checkpoint: n, Digest: "0123456789abcdef0123456789abcdef", Bytes: 1 << 20}); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(c.Close(ctx), state.Close()); err != nil {
		b.Fatal(err)
	}
}

func TestFailedDiskEndsEverything(t *testing.T) {
	on := &atomic.Bool{}
	f := newFixture(t, errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if on.Load() && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			return errorfs.ErrInjected
		}
		return nil
	})))
	f.create("orders")
	f.wait("orders", api.PhaseLive)
	on.Store(true)
	if _, err := f.c.Pause(f.ctx(), "orders"); err == nil {
		t.Fatal("a decision was acknowledged on a failed disk")
	}
	if f.crashed.Load() == nil {
		t.Fatal("the process was not ended")
	}
	on.Store(false)
	if _, err := f.c.CreateMirror(f.ctx(), spec("users")); err == nil {
		t.Fatal("a decision was acknowledged after a failed sync")
	}
	if err := f.c.Ready(); err == nil {
		t.Fatal("the node still calls itself ready")
	}
	_ = f.c.Close(f.ctx()) // of a node that is dead
	if err := f.state.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStateDirectory(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": vfs.Default} {
		t.Run(name, func(t *testing.T) {
			e := env.Real(nil)
			e.FS = fs
			dir := "/state"
			if name == "disk" {
				dir = t.TempDir()
			}
			s, err := OpenState(e, dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.SetEndpoints(func(ep *Endpoints) { ep.PID, ep.HTTP = 4711, "127.0.0.1:7073" }); err != nil {
				t.Fatal(err)
			}
			_, err = OpenState(e, dir)
			if rec, ok := errs.As(err); !ok || rec.Code != errs.StateLocked || rec.Detail != "pid 4711, address 127.0.0.1:7073" {
				t.Fatalf("a second process: %v", err)
			}
			id := s.Installation()
			if len(id) != 32 || s.NodeID() != "node-"+id[:8] {
				t.Errorf("installation %q, node %q", id, s.NodeID())
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = OpenState(e, dir); err != nil {
				t.Fatal(err)
			}
			if s.Installation() != id {
				t.Errorf("the installation id changed to %s", s.Installation())
			}
			if ep, err := ReadEndpoints(fs, dir); err == nil {
				t.Errorf("endpoints of the process before: %+v", ep)
			}
			for _, sub := range []string{s.RaftDir(), s.SpillDir(), s.SecretsDir()} {
				if _, err := fs.Stat(sub); err != nil {
					t.Error(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			w, err := fs.Create(fs.PathJoin(dir, installationFile), vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, "not an id\n"); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenState(e, dir); !errs.Is(err, errs.StateCorrupt) {
				t.Errorf("a damaged installation id: %v", err)
			}
		})
	}
}
