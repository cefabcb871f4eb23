package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirstream/weir/coordinator"
	rest "github.com/weirstream/weir/coordinator/http"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
	"github.com/weirstream/weir/internal/secrets"
)

// fakeServer is a server in memory. Each look at a pipeline moves its script on by one.
type fakeServer struct {
	mu      sync.Mutex
	away    bool
	views   map[string]coordinator.PipelineView
	scripts map[string][]api.PipelineStatus
	calls   []string
	lsn     string
	forgets bool // a delete that is waited for forgets any pipeline
}

func newFakeServer() *fakeServer {
	return &fakeServer{views: map[string]coordinator.PipelineView{}, scripts: map[string][]api.PipelineStatus{}, lsn: "0/200"}
}

func (f *fakeServer) note(format string, args ...any) {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}
func (f *fakeServer) Addr() string { return "127.0.0.1:7070" }
func (f *fakeServer) Close()       {}

func (f *fakeServer) Version(context.Context) (rest.Version, error) {
	if f.away {
		return rest.Version{}, errs.New(errs.NotReachable, "no weir server answers")
	}
	return rest.Version{Version: "9.9"}, nil
}

func (f *fakeServer) Pipelines(context.Context) ([]coordinator.PipelineView, error) {
	var out []coordinator.PipelineView
	for _, v := range f.views {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b coordinator.PipelineView) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (f *fakeServer) Pipeline(_ context.Context, name string) (coordinator.PipelineView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, v := range f.views {
		if v.Name != name && v.ID != name {
			continue
		}
		if script := f.scripts[v.Name]; len(script) > 0 {
			v.Status = script[0]
			f.views[key] = v
			if len(script) > 1 {
				f.scripts[v.Name] = script[1:]
			}
		}
		return v, nil
	}
	return coordinator.PipelineView{}, errs.New(errs.PipelineNotFound, "there is no pipeline %s", name)
}

func (f *fakeServer) CreateQuery(_ context.Context, q api.QuerySpec) (coordinator.PipelineView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("create query %s", q.Name)
	v := coordinator.PipelineView{Pipeline: api.Pipeline{ID: "id-" + q.Name, Name: q.Name, Query: &q, Desired: api.WantRunning}}
	f.views[q.Name] = v
	return v, nil
}

func (f *fakeServer) CreateMirror(_ context.Context, m api.MirrorSpec) (coordinator.PipelineView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := json.Marshal(m)
	if err != nil {
		return coordinator.PipelineView{}, err
	}
	f.note("create %s", b)
	v := coordinator.PipelineView{Pipeline: api.Pipeline{ID: "id-" + m.Name, Name: m.Name, Mirror: m, Desired: api.WantRunning}}
	f.views[m.Name] = v
	return v, nil
}

func (f *fakeServer) Update(ctx context.Context, name string, c coordinator.Change) (coordinator.PipelineView, error) {
	if c.Options != nil {
		f.note("update %s %v", name, c.Options)
	} else {
		f.note("update %s +%v -%v", name, c.AddTables, c.RemoveTables)
	}
	return f.Pipeline(ctx, name)
}

// Delete forgets a pipeline that was being deleted; others stay, so that one test can try many commands on them.
func (f *fakeServer) Delete(_ context.Context, name string, o rest.DeleteOptions) error {
	f.note("delete %s %+v", name, o)
	for key, v := range f.views {
		if v.ID == name && (v.Desired == api.WantDeleted || f.forgets) && o.Wait {
			delete(f.views, key)
		}
	}
	return nil
}

func (f *fakeServer) Pause(ctx context.Context, name string) (coordinator.PipelineView, error) {
	f.note("pause %s", name)
	return f.Pipeline(ctx, name)
}

func (f *fakeServer) Resume(ctx context.Context, name string) (coordinator.PipelineView, error) {
	f.note("resume %s", name)
	return f.Pipeline(ctx, name)
}

func (f *fakeServer) Sources(context.Context) ([]api.SourceStatus, error) {
	return []api.SourceStatus{{Name: "shop", Pipeline: "shop_copy", Server: "db:5432/shop", ServerVersion: "17.2", Slot: "weir_shop", SlotActive: true, SlotState: "reserved",
		LagBytes: 1024, LagMS: 40, WALRetainedBytes: 118 << 20, WALLimitBytes: -1, ConfirmedLSN: "0/100", CurrentLSN: f.lsn, UpdatedAt: testNow}}, nil
}

func (f *fakeServer) Source(ctx context.Context, _ string) (api.SourceStatus, error) {
	s, err := f.Sources(ctx)
	return s[0], err
}

func (f *fakeServer) RefreshSource(_ context.Context, name string, tables []string) error {
	f.note("refresh %s %v", name, tables)
	return nil
}

func (f *fakeServer) Tail(_ context.Context, pipeline, view string, each func(api.TailLine) error) error {
	f.note("tail %s of %q", view, pipeline)
	for _, l := range []api.TailLine{
		{View: &api.View{Name: view, Columns: []api.Column{{Name: "city", Type: "STRING"}, {Name: "n", Type: "BIGINT"}}}},
		{Epoch: 9, Change: "+", Row: json.RawMessage(`{"city":"oslo","n":2}`)}, {Epoch: 9, Change: "+", Count: 3, Row: json.RawMessage(`{"city":null,"n":1}`)}, {Epoch: 9, Complete: true},
		{Epoch: 12, Change: "-", Row: json.RawMessage(`{"city":"oslo","n":2}`)}, {Epoch: 12, Change: "+", Row: json.RawMessage(`{"city":"a longer name","n":3}`)}, {Epoch: 12, Complete: true},
	} {
		if err := each(l); err != nil {
			return err
		}
	}
	return errs.New(errs.SnapshotTooOld, "some are lost")
}

func (f *fakeServer) StateEntries(_ context.Context, pipeline, node, key string) ([]api.StateEntries, error) {
	f.note("state of %s %s %s", pipeline, node, key)
	return []api.StateEntries{{Operator: "view v", Node: "view-1", Entries: []api.StateEntry{{State: "rows", Row: json.RawMessage(`{"n":2}`), Count: 1}}},
		{Operator: "aggregate count(*)", Node: "aggregate-2", Entries: []api.StateEntry{{State: "groups", Bytes: "0200"}}}}, nil
}

var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// quick is a clock whose sleeps take no time.
type quick struct {
	env.Clock
	sleeps int
	each   func()
	until  int // sleeps before the context is cancelled; 0: never
	cancel context.CancelFunc
}

func (q *quick) Sleep(ctx context.Context, _ time.Duration) error {
	q.sleeps++
	if q.each != nil {
		q.each()
	}
	if q.until > 0 && q.sleeps >= q.until || q.sleeps > 10_000 { // a loop that never ends shall fail, not hang
		q.cancel()
	}
	return ctx.Err()
}

type fixture struct {
	*fakeServer
	p        *program
	dir      string
	out, err bytes.Buffer
	in       string
	vars     map[string]string
	clock    *quick
	tty      bool
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{fakeServer: newFakeServer(), dir: t.TempDir(), vars: map[string]string{}, clock: &quick{}}
	f.p = &program{version: "1.2.3", commit: "abc", getwd: func() (string, error) { return f.dir, nil },
		dial: func(*env.Env, rest.ClientOptions) (client, error) { return f.fakeServer, nil },
		environment: func(log *slog.Logger) *env.Env {
			e := env.Real(log)
			f.clock.Clock = e.Clock
			e.Clock = f.clock
			return e
		}}
	return f
}

func (f *fixture) run(args ...string) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f.clock.cancel = cancel
	f.clock.sleeps = 0
	f.out.Reset()
	f.err.Reset()
	io := cli.IO{In: strings.NewReader(f.in), Out: &f.out, Err: &f.err, Now: func() time.Time { return testNow },
		Getenv:     func(k string) (string, bool) { v, ok := f.vars[k]; return v, ok },
		Sleep:      f.clock.Sleep,
		InTerminal: f.tty, ErrTerminal: f.tty,
		ReadSecret: func() (string, error) { return f.in, nil },
	}
	return f.p.app(io).Main(ctx, append([]string{"--state", filepath.Join(f.dir, "state")}, args...))
}

func (f *fixture) want(t *testing.T, code int, args ...string) string {
	t.Helper()
	if got := f.run(args...); got != code {
		t.Fatalf("weir %s: exit code %d, want %d\nout: %s\nerr: %s", strings.Join(args, " "), got, code, f.out.String(), f.err.String())
	}
	return f.out.String()
}

// fakeNode is an engine in this process that talks to the fixture's server.
type fakeNode struct {
	done   chan struct{}
	closed int
	opened nodeOptions
}

func (n *fakeNode) Addr() string                { return "127.0.0.1:7070" }
func (n *fakeNode) PGAddr() string              { return "127.0.0.1:7071" }
func (n *fakeNode) Done() <-chan struct{}       { return n.done }
func (n *fakeNode) Err() error                  { return errs.New(errs.DiskFailed, "the disk failed") }
func (n *fakeNode) Close(context.Context) error { n.closed++; return nil }

func (f *fixture) node() *fakeNode {
	n := &fakeNode{done: make(chan struct{})}
	f.p.engines.Node = func(_ context.Context, _ *env.Env, o nodeOptions) (node, error) {
		n.opened = o
		return n, nil
	}
	return n
}

func tables(ph ...api.Phase) []api.TableStatus {
	var out []api.TableStatus
	for i, p := range ph {
		out = append(out, api.TableStatus{Source: fmt.Sprintf("public.t%d", i), Phase: p, Rows: 10})
	}
	return out
}

func TestDocsAreCurrent(t *testing.T) {
	f := newFixture(t)
	f.want(t, 0, "docs", "markdown", f.dir)
	for _, name := range []string{"cli.md", "options.md", "errors/README.md", "errors/W1003.md"} {
		want, err := os.ReadFile(filepath.Join(f.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/%s is not current; run `make docs`", name)
		}
	}
	man := filepath.Join(f.dir, "man")
	f.want(t, 0, "docs", "man", man)
	if b, err := os.ReadFile(filepath.Join(man, "weir-mirror-verify.1")); err != nil || !strings.HasPrefix(string(b), ".TH WEIR\\-MIRROR\\-VERIFY 1\n") {
		t.Errorf("manual page: %v", err)
	}
}

// Every command has help, and everything it says about itself is complete.
func TestTableIsComplete(t *testing.T) {
	var walk func(path string, c cli.Command)
	walk = func(path string, c cli.Command) {
		path += " " + c.Name
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: the short text is %q", path, c.Short)
		}
		if c.Run == nil && len(c.Subs) == 0 {
			t.Errorf("%s does nothing", path)
		}
		for _, fl := range c.Flags {
			if fl.Help == "" || fl.Kind != cli.BoolFlag && fl.Value == "" {
				t.Errorf("%s --%s is not described", path, fl.Name)
			}
		}
		for i, a := range c.Args {
			if a.Many && i != len(c.Args)-1 {
				t.Errorf("%s: only the last argument may repeat", path)
			}
		}
		for _, s := range c.Subs {
			walk(path, s)
		}
	}
	for _, c := range newFixture(t).p.app(cli.IO{}).Commands {
		walk("weir", c)
	}
}

func TestMirrorMovesPasswordsAway(t *testing.T) {
	f := newFixture(t)
	n := f.node()
	f.scripts["mirror_shop"] = []api.PipelineStatus{
		{Phase: api.PhaseCopy, Tables: tables(api.PhaseCopy, api.PhasePrepare)},
		{Phase: api.PhaseLive, Tables: tables(api.PhaseLive, api.PhaseLive), DurablePosition: "0/100"},
		{Phase: api.PhaseLive, Tables: tables(api.PhaseLive, api.PhaseLive), DurablePosition: "0/1FF"},
		{Phase: api.PhaseLive, Tables: tables(api.PhaseLive, api.PhaseLive), DurablePosition: "0/200"},
	}
	f.want(t, 0, "mirror", "postgres://ann:hunter2@db/shop", "postgres://bob:s3cr3t@copy/shop", "--tables", "public.*,sales.*", "--except", "public.tmp_*",
		"--route", "public.*=mirror.*", "--exclude-column", "public.users.ssn", "--filter", "public.orders: region = 'a:b'", "--set", "snapshot.parallelism=2",
		"--set", "memory.limit=1 GB", "--until-caught-up", "--log-level", "debug")
	want := `create {"name":"mirror_shop","source":{"name":"","url":"postgres://ann:${secret:db_shop_ann}@db/shop"},` +
		`"target":{"name":"","url":"postgres://bob:${secret:copy_shop_bob}@copy/shop"},"tables":["public.*","sales.*"],"except":["public.tmp_*"],` +
		`"routes":[{"from":"public.*","to":"mirror.*"}],"exclude":["public.users.ssn"],"filters":[{"table":"public.orders","where":"region = 'a:b'"}],"options":{"snapshot.parallelism":"2"}}`
	if len(f.calls) != 1 || f.calls[0] != want {
		t.Errorf("calls\n%s\nwant\n%s", strings.Join(f.calls, "\n"), want)
	}
	if f.clock.sleeps != 3 {
		t.Errorf("caught up after %d looks, want the one at which the position reached the end of the log", f.clock.sleeps+1)
	}
	if n.closed != 1 || n.opened.Options["memory.limit"] != "1 GB" {
		t.Errorf("node closed %d times, options %v", n.closed, n.opened.Options)
	}
	if text := f.out.String() + f.err.String(); strings.Contains(text, "hunter2") || strings.Contains(text, "s3cr3t") || !strings.Contains(text, "mirror_shop: public.t0 live") || !strings.Contains(text, "caught up") {
		t.Errorf("printed\n%s", text)
	}
	if f.out.Len() > 0 {
		t.Errorf("progress went to standard output: %s", f.out.String())
	}
	v, err := secrets.Open(env.Real(nil), secrets.Options{Dir: filepath.Join(f.dir, "state", "secrets")}).Get("db_shop_ann")
	if err != nil || v.Reveal() != "hunter2" {
		t.Errorf("stored secret: %v", err)
	}
}

// A mirror that never began leaves no password, and none changed that another mirror needs.
func TestMirrorThatNeverBegan(t *testing.T) {
	f := newFixture(t)
	n := f.node()
	f.p.engines.Login = func(context.Context, *env.Env, *pg.Config) error { return nil }
	store := secrets.Open(env.Real(nil), secrets.Options{Dir: filepath.Join(f.dir, "state", "secrets")})
	if err := store.Set("copy_shop_bob", secrets.NewValue("right")); err != nil {
		t.Fatal(err)
	}
	f.views["other"] = coordinator.PipelineView{Pipeline: api.Pipeline{ID: "id-other", Name: "other",
		Mirror: api.MirrorSpec{Source: api.Connection{URL: "postgres://x/y"}, Target: api.Connection{URL: "postgres://bob:${secret:copy_shop_bob}@copy/shop"}}}}
	args := []string{"mirror", "postgres://ann:hunter2@db/shop", "postgres://bob:wrong@copy/shop", "--name", "m"}
	stored := func(want string) {
		t.Helper()
		names, err := store.List()
		v, gerr := store.Get("copy_shop_bob")
		if got := fmt.Sprintf("%s = %s", names, v.Reveal()); err != nil || gerr != nil || got != want {
			t.Errorf("secrets %s, want %s: %v %v", got, want, err, gerr)
		}
	}
	f.scripts["m"] = []api.PipelineStatus{{Phase: api.PhaseFailed, Error: &api.ErrorInfo{Code: "W1002", Message: "not ready", Unbegun: true}}}
	f.forgets = true
	f.want(t, 2, args...)
	if strings.Count(f.err.String(), "not ready") != 1 || !slices.Equal(n.opened.Follows, []string{"m"}) {
		t.Errorf("follows %v, printed\n%s", n.opened.Follows, f.err.String())
	}
	stored("[copy_shop_bob] = right")
	f.scripts["m"] = []api.PipelineStatus{{Phase: api.PhaseFailed, Error: &api.ErrorInfo{Code: "W4003", Message: "refused"}}}
	f.want(t, 1, args...)
	stored("[copy_shop_bob db_shop_ann] = wrong") // it is there, and starts with what it was given
}

// A password takes the place of a stored one, which a mirror may be running with, only when a login with it works.
func TestPasswordIsTriedFirst(t *testing.T) {
	f := newFixture(t)
	f.node()
	tried, login := 0, error(nil)
	f.p.engines.Login = func(_ context.Context, _ *env.Env, cfg *pg.Config) error { tried++; return login }
	f.scripts["m"] = []api.PipelineStatus{{Phase: api.PhaseLive, DurablePosition: "0/200"}}
	mirror := func(code int, source, target string) {
		t.Helper()
		f.want(t, code, "mirror", "postgres://ann:"+source+"@db/shop", "postgres://bob:"+target+"@copy/shop", "--name", "m", "--until-caught-up")
	}
	stored := func(want ...string) {
		t.Helper()
		store := secrets.Open(env.Real(nil), secrets.Options{Dir: filepath.Join(f.dir, "state", "secrets")})
		var got []string
		names, err := store.List()
		for _, name := range names {
			v, err := store.Get(name)
			if err != nil {
				t.Error(err)
			}
			got = append(got, name+"="+v.Reveal())
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("secrets %q, want %q: %v", got, want, err)
		}
	}
	login = errors.New("nobody is let in")
	mirror(0, "one", "two") // nobody needs what is not there yet
	mirror(0, "one", "two")
	if tried != 0 {
		t.Errorf("%d logins for passwords that are new or the same", tried)
	}
	mirror(3, "bad", "two")
	if s := f.err.String(); !strings.Contains(s, "error[W1001]: cannot reach source db:5432/shop: nobody is let in") || !strings.Contains(s, "secret db_shop_ann, which stays") || strings.Contains(s, "bad") {
		t.Errorf("printed\n%s", s)
	}
	mirror(3, "one", "bad")
	if s := f.err.String(); !strings.Contains(s, "error[W4001]: cannot reach target copy:5432/shop: nobody is let in") {
		t.Errorf("printed\n%s", s)
	}
	f.want(t, 3, "mirror", "postgres://eve:new@db/shop", "postgres://bob:bad@copy/shop", "--name", "m")
	stored("copy_shop_bob=two", "db_shop_ann=one")
	login = nil
	mirror(0, "three", "two")
	stored("copy_shop_bob=two", "db_shop_ann=three")
}

// A URL that is mistyped is not repeated: it may hold a password.
func TestMistypedURLs(t *testing.T) {
	f := newFixture(t)
	f.node()
	f.p.engines.Plan = func(context.Context, *env.Env, planRequest) (*api.Plan, error) { return &api.Plan{}, nil }
	f.p.engines.Doctor = func(context.Context, *env.Env, doctorRequest) ([]api.Check, error) { return nil, nil }
	f.p.engines.Verify = func(context.Context, *env.Env, verifyRequest) (*api.VerifyReport, error) {
		return &api.VerifyReport{}, nil
	}
	for _, bad := range []string{"postgres:u:hunter2@localhost/db", "postgres:u:hunter2@localhost/db?sslmode=disable", "postgres//u:hunter2@h/d", "u:hunter2@h/d", "hunter2@h"} {
		for _, command := range [][]string{{"doctor"}, {"mirror"}, {"mirror", "verify"}, {"mirror", "--dry-run"}} {
			for _, ends := range [][]string{{bad, "postgres://copy/shop"}, {"postgres://db/shop", bad}} {
				f.want(t, 2, append(slices.Clone(command), ends...)...)
				if s := f.err.String(); !strings.Contains(s, "error[W6002]: xxxxx is not a Postgres connection string") || strings.Contains(s, "hunter2") {
					t.Errorf("%s %s: %s", command, ends, s)
				}
			}
		}
	}
	f.want(t, 2, "doctor", "shop")
	if s := f.err.String(); !strings.Contains(s, `"shop" is neither a URL nor a connection`) {
		t.Errorf("of a name: %s", s)
	}
}

func TestMirrorAgain(t *testing.T) {
	f := newFixture(t)
	f.node()
	f.scripts["m"] = []api.PipelineStatus{{Phase: api.PhaseLive, DurablePosition: "0/200"}}
	args := []string{"mirror", "postgres://db/shop", "postgres://copy/shop", "--name", "m", "--until-caught-up"}
	f.want(t, 0, args...)
	v := f.views["m"]
	v.Desired = api.WantPaused
	f.views["m"] = v
	f.want(t, 0, args...)
	if got := f.calls[1:]; !slices.Equal(got, []string{"resume m"}) {
		t.Errorf("the second start did %v", got)
	}
	f.want(t, 0, append(args, "--set", "snapshot.parallelism=2", "--set", "checkpoint.interval=0")...) // as by default
	v = f.views["m"]
	v.Desired = api.WantDeleted
	f.views["m"], f.calls = v, nil
	f.want(t, 0, args...)
	if len(f.calls) != 2 || f.calls[0] != "delete id-m {Force:false Wait:true}" || !strings.HasPrefix(f.calls[1], "create ") {
		t.Errorf("a start over an unfinished delete did %v", f.calls)
	}
	f.want(t, 2, append(args, "--except", "public.x", "--set", "snapshot.parallelism=3")...)
	if s := f.err.String(); !strings.Contains(s, "error[W3003]") || !strings.Contains(s, "different: except, option snapshot.parallelism") {
		t.Errorf("printed\n%s", s)
	}
}

func TestMirrorForPrograms(t *testing.T) {
	f := newFixture(t)
	f.node()
	f.scripts["mirror_shop"] = []api.PipelineStatus{
		{Phase: api.PhaseCopy, RowsTotal: 1}, {Phase: api.PhaseCopy, RowsTotal: 2}, {Phase: api.PhaseCatchUp},
		{Phase: api.PhaseLive, DurablePosition: "0/100"}, {Phase: api.PhaseLive, DurablePosition: "0/200"},
	}
	args := []string{"mirror", "postgres://db/shop", "postgres://copy/shop", "--until-caught-up", "-o"}
	got := f.want(t, 0, append(args, "ndjson")...)
	var phases []api.Phase
	for _, line := range strings.Split(strings.TrimSpace(got), "\n") {
		var v coordinator.PipelineView
		if err := json.Unmarshal([]byte(line), &v); err != nil || v.Name != "mirror_shop" {
			t.Errorf("line %q: %v", line, err)
		}
		phases = append(phases, v.Status.Phase)
	}
	if want := []api.Phase{api.PhaseCopy, api.PhaseCatchUp, api.PhaseLive}; !slices.Equal(phases, want) {
		t.Errorf("phases %v, want %v", phases, want)
	}
	if got := f.want(t, 0, append(args, "json")...); !json.Valid([]byte(got)) {
		t.Errorf("one phase as JSON: %q", got)
	}
	if got := f.want(t, 0, append(args, "csv")...); got != "" || f.err.Len() > 0 {
		t.Errorf("as CSV: %q %q", got, f.err.String())
	}
}

func TestMirrorEnds(t *testing.T) {
	f := newFixture(t)
	n := f.node()
	mirror := []string{"mirror", "postgres://db/shop", "postgres://copy/shop"}
	f.scripts["mirror_shop"] = []api.PipelineStatus{{Phase: api.PhaseCopy}}
	f.clock.until = 3
	f.want(t, 0, mirror...)
	f.want(t, 130, append(mirror, "--until-caught-up")...)
	f.clock.until = 0
	f.scripts["mirror_shop"] = []api.PipelineStatus{{Phase: api.PhaseFailed, Error: &api.ErrorInfo{Code: "W4003", Message: "violates a constraint", Fix: "ALTER TABLE x"}}}
	f.want(t, 1, mirror...)
	if s := f.err.String(); !strings.Contains(s, "error[W4003]: violates a constraint\n  fix:  ALTER TABLE x") {
		t.Errorf("printed\n%s", s)
	}
	if s := f.err.String(); strings.Contains(s, "goes on from here") {
		t.Errorf("after a failure it printed\n%s", s)
	}
	f.scripts["mirror_shop"] = []api.PipelineStatus{{Phase: api.PhaseLive}}
	f.clock.each = func() { delete(f.views, "mirror_shop") } // what a cutover ends with
	f.want(t, 0, mirror...)
	if s := f.err.String(); !strings.Contains(s, "mirror mirror_shop was cut over or deleted") || strings.Contains(s, "goes on from here") || strings.Contains(s, "error") {
		t.Errorf("after a cutover it printed\n%s", s)
	}
	f.want(t, 2, append(mirror, "--until-caught-up")...) // which it has not
	f.clock.each = nil
	close(n.done)
	f.want(t, 1, mirror...)
	if n.closed != 6 {
		t.Errorf("the node was closed %d times in 6 runs", n.closed)
	}
}

func TestMirrorThroughARunningServer(t *testing.T) {
	f := newFixture(t)
	f.p.engines.Node = func(context.Context, *env.Env, nodeOptions) (node, error) {
		return nil, errors.New("a second node was opened")
	}
	f.scripts["mirror_shop"] = []api.PipelineStatus{{Phase: api.PhaseLive, DurablePosition: "0/200"}}
	f.want(t, 0, "mirror", "postgres://ann:pw@db/shop", "postgres://copy/shop", "--addr", "far:7070", "--until-caught-up")
	if !strings.Contains(f.calls[0], "postgres://ann:pw@db/shop") {
		t.Errorf("a server elsewhere seals by itself; it was given %s", f.calls[0])
	}
	if !strings.Contains(f.err.String(), "handed to the weir that runs at 127.0.0.1:7070") {
		t.Errorf("printed\n%s", f.err.String())
	}
	if _, err := os.Stat(filepath.Join(f.dir, "state")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the local state directory was touched: %v", err)
	}
	f.away = true
	f.want(t, 3, "mirror", "postgres://db/shop", "postgres://copy/shop", "--addr", "far:7070")
	f.away = false
	for command, code := range map[string]int{"server": 0, "mirror": 1, "run": 1} {
		if err := os.MkdirAll(filepath.Join(f.dir, "state"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(f.dir, "state", "endpoints.json"), []byte(`{"pid": 4711, "command": "`+command+`", "http": "127.0.0.1:7070"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		f.scripts["second"] = []api.PipelineStatus{{Phase: api.PhaseLive, DurablePosition: "0/200"}}
		f.want(t, code, "mirror", "postgres://db/shop", "postgres://copy/shop", "--name", "second", "--until-caught-up")
		if s := f.err.String(); code != 0 && !strings.Contains(s, "error[W5001]: weir "+command+" already runs") {
			t.Errorf("beside weir %s it printed\n%s", command, s)
		}
	}
}

func TestMirrorRejects(t *testing.T) {
	f := newFixture(t)
	f.node()
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--filter", "public.a:"}, "error[W6007]: --filter takes 'TABLE: CONDITION', not \"public.a:\"\n  hint: for example --filter \"public.orders: region = 'eu'\"\n"},
		{[]string{"--tables", "orders"}, `error[W6007]: "orders" does not name tables as schema.table`},
		{[]string{"--tables", "public."}, `error[W6007]: "public." has an empty part`},
		{[]string{"--exclude-column", "public.users"}, `error[W6007]: "public.users" does not name columns`},
		{[]string{"--route", "public.*"}, "error[W6007]: --route takes FROM=TO"},
		{[]string{"--route", "public.a=*.*"}, "error[W6007]: route public.a=*.*"},
		{[]string{"--filter", "public.a"}, "error[W6007]: --filter takes"},
		{[]string{"--set", "snapshot.mod=never"}, "error[W6004]: there is no option snapshot.mod\n  detail: it comes from --set\n  hint: did you mean snapshot.mode?"},
		{[]string{"--set", "x"}, "error[W6001]: --set takes key=value"},
		{[]string{"--tables", "a.b.c.d"}, "error[W6007]: \"a.b.c.d\" has 4 parts, and tables are named schema.table\n  hint: write names that hold a dot in quotes, such as \"a.b\".\"c.d\"\n"},
		{[]string{"--tables", "a.b.c"}, "error[W6007]: \"a.b.c\" has 3 parts, and tables are named schema.table\n  hint: write a name that holds a dot in quotes: public.\"a.b\", \"a.b\".c\n"},
		{[]string{"--name", "My mirror"}, "error[W6001]: \"My mirror\" cannot name a pipeline"},
		{[]string{"--name", "My mirror", "--dry-run"}, "error[W6001]: \"My mirror\" cannot name a pipeline"},
	} {
		f.want(t, 2, append([]string{"mirror", "postgres://db/shop", "postgres://copy/shop"}, c.args...)...)
		if !strings.HasPrefix(f.err.String(), c.says) {
			t.Errorf("%v: %s", c.args, f.err.String())
		}
	}
	f.want(t, 2, "mirror", "postgres://ann:hun@ter2@db/shop", "postgres://copy/shop")
	if s := f.err.String(); !strings.HasPrefix(s, "error[W6002]") || strings.Contains(s, "ter2") {
		t.Errorf("printed\n%s", s)
	}
	if len(f.calls) > 0 {
		t.Errorf("something was created: %v", f.calls)
	}
}

func samplePlan() *api.Plan {
	p := &api.Plan{Pipeline: "mirror_shop", Slot: "weir_shop_1", Publication: "weir_shop_1", Rows: 19_800_000, Bytes: 10 << 30, EstSeconds: 2160,
		Tables: []api.PlanTable{{Source: "public.orders", Target: "mirror.orders", Rows: 19_800_000, Bytes: 10 << 30, Key: []string{"id"}},
			{Source: "public.log", Target: "mirror.log", Exists: true, Notes: []string{"no key"}}},
		DDL: []string{"CREATE SCHEMA mirror", "CREATE TABLE mirror.orders (\n  id bigint)"}, AfterCopy: []string{"CREATE INDEX x ON mirror.orders (a)"}, Notes: []string{"2 sequences are set at cutover"},
		Checks: []api.Check{{ID: "pg.wal_level", Side: "source", Severity: api.SeverityOK, Message: "logical"},
			{ID: "pg.wal_limit", Side: "source", Severity: api.SeverityWarning, Code: "W1002", Message: "no limit: the disk can fill", Fix: "ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'"}}}
	for i := range 12 {
		p.AfterCopy = append(p.AfterCopy, fmt.Sprintf("ANALYZE t%d", i))
	}
	return p
}

func TestPlan(t *testing.T) {
	f := newFixture(t)
	var asked planRequest
	plan := samplePlan()
	f.p.engines.Plan = func(_ context.Context, _ *env.Env, r planRequest) (*api.Plan, error) {
		asked = r
		return plan, nil
	}
	args := []string{"mirror", "postgres://ann:hunter2@db/shop", "postgres://copy/shop", "--dry-run"}
	golden(t, "plan", f.want(t, 0, args...))
	if asked.Source != "postgres://ann:hunter2@db/shop" || strings.Contains(asked.Mirror.Source.URL, "hunter2") {
		t.Errorf("asked with %+v", asked)
	}
	if !strings.HasSuffix(f.err.String(), "next: the same command without --dry-run\n") {
		t.Errorf("printed %s", f.err.String())
	}
	if _, err := os.Stat(filepath.Join(f.dir, "state")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dry run made the state directory: %v", err)
	}
	var back api.Plan
	if err := json.Unmarshal([]byte(f.want(t, 0, append(args, "-o", "json")...)), &back); err != nil || back.Slot != "weir_shop_1" {
		t.Errorf("as JSON: %v", err)
	}
	plan.Checks[1].Severity = api.SeverityFatal
	f.want(t, 2, args...)
}

func TestDoctor(t *testing.T) {
	f := newFixture(t)
	checks := samplePlan().Checks
	f.p.engines.Doctor = func(_ context.Context, _ *env.Env, r doctorRequest) ([]api.Check, error) {
		if r.Source != "postgres://ann:hunter2@db/shop" || r.Mirror.Source.URL != "" {
			return nil, fmt.Errorf("asked with %+v", r)
		}
		return checks, nil
	}
	args := []string{"doctor", "postgres://ann:hunter2@db/shop"}
	golden(t, "doctor", f.want(t, 0, args...))
	checks[1].Severity = api.SeverityFatal
	var back []api.Check
	if err := json.Unmarshal([]byte(f.want(t, 2, append(args, "-o", "json")...)), &back); err != nil || len(back) != 2 || back[1].Fix == "" {
		t.Errorf("as JSON: %v %v", err, back)
	}
	checks[1].Code = string(errs.SourceUnreachable)
	f.want(t, 3, args...)
	f.want(t, 2, "doctor", "nonsense")
	if !strings.HasPrefix(f.err.String(), "error[W6002]") {
		t.Errorf("printed %s", f.err.String())
	}
}

func TestVerify(t *testing.T) {
	f := newFixture(t)
	a, b := "1", "2"
	report := &api.VerifyReport{Equal: true, StartedAt: testNow, FinishedAt: testNow.Add(2 * time.Second), Rows: 1_200_000, Ranges: 12,
		Tables: []api.VerifyTable{{Source: "public.orders", Target: "mirror.orders", Equal: true, SourceRows: 1_200_000, TargetRows: 1_200_000,
			Notes: []string{`generated column "total" is on the source only`}}}}
	f.p.engines.Verify = func(_ context.Context, _ *env.Env, r verifyRequest) (*api.VerifyReport, error) {
		if r.Parallelism != 2 || !slices.Equal(r.Mirror.Tables, []string{"public.*"}) {
			return nil, fmt.Errorf("asked with %+v", r)
		}
		return report, nil
	}
	args := []string{"mirror", "verify", "postgres://db/shop", "postgres://copy/shop", "--tables", "public.*", "--parallelism", "2"}
	equal := f.want(t, 0, args...)
	report.Equal, report.Differing = false, 3
	report.Tables = append(report.Tables, api.VerifyTable{Source: "public.x", Target: "public.x", SourceRows: 3, TargetRows: 2, Differing: 3, More: true, Diffs: []api.VerifyDiff{
		{Kind: api.VerifyMissing, Key: []api.VerifyColumn{{Name: "id", Source: &a}}},
		{Kind: api.VerifyChanged, Key: []api.VerifyColumn{{Name: "id", Source: &b, Target: &b}}, Columns: []api.VerifyColumn{{Name: "v", Source: &a, Target: nil}}}}})
	golden(t, "verify", equal+"==\n"+f.want(t, 10, args...))
	f.want(t, 10, append(args, "-o", "json")...)
	if f.err.Len() > 0 {
		t.Errorf("printed %s", f.err.String())
	}
}

func TestCutover(t *testing.T) {
	f := newFixture(t)
	f.views["m"] = coordinator.PipelineView{Pipeline: api.Pipeline{ID: "1", Name: "m", Mirror: api.MirrorSpec{Source: api.Connection{URL: "postgres://ann:${env:PW}@db/shop"}, Target: api.Connection{URL: "postgres://copy/shop"}}}}
	f.vars["PW"] = "x/y"
	report := &cutoverReport{Pipeline: "m", Ready: true, Position: "0/200", Steps: []cutoverStep{{Name: "sequences", Says: "set 2 sequences", SQL: "SELECT setval('s', 5)"}}}
	f.p.engines.Cutover = func(_ context.Context, _ *env.Env, r cutoverRequest) (*cutoverReport, error) {
		if r.Source != "postgres://ann:x%2Fy@db/shop" {
			return nil, fmt.Errorf("asked with %+v", r)
		}
		report.DryRun = r.DryRun
		return report, nil
	}
	if got := f.want(t, 0, "mirror", "cutover", "m", "--dry-run"); got != "1. sequences: set 2 sequences\n   SELECT setval('s', 5)\n" {
		t.Errorf("printed %q", got)
	}
	f.want(t, 2, "mirror", "cutover", "m") // nobody to ask
	report.set = "SELECT setval('s', 5)"
	var settled error
	f.p.engines.Settle = func(_ context.Context, _ *env.Env, r cutoverRequest) ([]cutoverStep, error) {
		if r.Set != report.set || r.Resting == nil {
			t.Errorf("asked with %+v", r)
		}
		return nil, settled
	}
	f.scripts["m"] = []api.PipelineStatus{{Phase: api.PhaseStopped}}
	f.calls, settled = nil, fmt.Errorf("sequences went on; %w", errWritten)
	if got := f.want(t, 10, "mirror", "cutover", "m", "--yes"); !strings.Contains(got+f.err.String(), "sequences went on") {
		t.Errorf("printed %q %q", got, f.err.String())
	}
	if want := []string{"pause m", "resume m"}; !slices.Equal(f.calls, want) {
		t.Errorf("calls %v, want %v", f.calls, want)
	}
	settled = nil
	f.want(t, 0, "mirror", "cutover", "m", "--yes")
	report.Ready = false
	f.want(t, 10, "mirror", "cutover", "m", "--dry-run")
}

// TestCutoverTellsWhy: what decides comes last, and says what helps.
func TestCutoverTellsWhy(t *testing.T) {
	writers := cutoverStep{Name: "writes", Says: "somebody may still write to the source", Warning: "sessions"}
	differ := cutoverStep{Name: "verify", Says: "the databases differ", Warning: "weir mirror verify shows the rows"}
	for _, c := range []struct {
		steps []cutoverStep
		want  string
	}{
		{[]cutoverStep{writers, {Name: "verify", Says: "compare"}}, "somebody may still write to the source; --force goes on all the same, unless a check is fatal"},
		{[]cutoverStep{writers, differ, writers}, "the databases differ; weir mirror verify shows the rows, and weir sources refresh TABLE copies a table anew"},
	} {
		if got := notReady(c.steps, false); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	gone := goneMeanwhile(fmt.Errorf("wait: %w", errs.New(errs.NotReachable, "no weir server answers at x")), "m")
	if e, ok := errs.As(gone); !ok || e.Code != errs.NotReachable || !strings.Contains(e.Hint, "weir pipelines get m shows whether the cut-over got through") {
		t.Errorf("a server that ended meanwhile: %v", gone)
	}
	if other := errs.New(errs.PipelineState, "paused"); goneMeanwhile(other, "m") != error(other) {
		t.Error("another failure was changed")
	}
}

// TestCutoverOfHaltedPipeline: a cut-over does not wait for a pipeline that stands still, and notices one that comes to.
func TestCutoverOfHaltedPipeline(t *testing.T) {
	f := newFixture(t)
	view := coordinator.PipelineView{Pipeline: api.Pipeline{ID: "1", Name: "m", Desired: api.WantRunning,
		Mirror: api.MirrorSpec{Source: api.Connection{URL: "postgres://db/shop"}, Target: api.Connection{URL: "postgres://copy/shop"}}}}
	f.views["m"] = view
	asked := false
	f.p.engines.Cutover = func(ctx context.Context, _ *env.Env, _ cutoverRequest) (*cutoverReport, error) {
		asked = true
		<-ctx.Done() // the position is never reached
		return nil, ctx.Err()
	}
	failed := api.PipelineStatus{Phase: api.PhaseFailed, Error: &api.ErrorInfo{Code: string(errs.TargetRejected), Message: "duplicate key", Fix: "DELETE 1"}}
	for name, c := range map[string]struct {
		desired api.Desired
		script  []api.PipelineStatus
		asked   bool
		want    []string
	}{
		"failed":             {api.WantRunning, []api.PipelineStatus{failed}, false, []string{"error[W4003]: pipeline m has failed: duplicate key", "weir pipelines resume m", "weir sources refresh TABLE", "DELETE 1"}},
		"paused":             {api.WantPaused, []api.PipelineStatus{{Phase: api.PhasePaused}}, false, []string{"error[W3004]: pipeline m is paused", "weir pipelines resume m"}},
		"fails while asked":  {api.WantRunning, []api.PipelineStatus{{Phase: api.PhaseLive}, {Phase: api.PhaseLive}, {Phase: api.PhaseRetrying}, failed}, true, []string{"error[W4003]: pipeline m has failed: duplicate key"}},
		"paused while asked": {api.WantRunning, []api.PipelineStatus{{Phase: api.PhaseLive}, {Phase: api.PhasePaused}}, true, []string{"error[W3004]: pipeline m is paused"}},
	} {
		view.Desired, asked = c.desired, false
		f.views["m"], f.scripts["m"] = view, c.script
		f.want(t, 10, "mirror", "cutover", "m", "--yes")
		for _, want := range c.want {
			if !strings.Contains(f.err.String(), want) {
				t.Errorf("%s: no %q in\n%s", name, want, f.err.String())
			}
		}
		if asked != c.asked {
			t.Errorf("%s: the databases were asked: %t", name, asked)
		}
	}
	if len(f.calls) > 0 {
		t.Errorf("it did %q", f.calls)
	}
}

func TestRunFile(t *testing.T) {
	f := newFixture(t)
	f.node()
	file := filepath.Join(f.dir, "shop.sql")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("CREATE CONNECTION shop WITH ('connector'='postgres','hostname'='db','port'='5433','username'='a b','password'='p/w','database-name'='shop');\n" +
		"SET 'snapshot.parallelism' = '2';\nSET 'memory.limit' = '2 GB';\n" +
		"CREATE MIRROR one FROM shop TO 'postgres://copy/a' TABLES 'public.*, sales.*' WITH ('snapshot.parallelism' = '3');\n" +
		"CREATE MIRROR two FROM shop TO 'postgres://copy/b';\n")
	for _, name := range []string{"one", "two"} {
		f.scripts[name] = []api.PipelineStatus{{Phase: api.PhaseLive, DurablePosition: "0/200"}}
	}
	f.want(t, 0, "run", file, "--until-caught-up")
	want := []string{
		`create {"name":"one","source":{"name":"shop","url":"postgres://a%20b:${secret:db-5433_shop_a-b}@db:5433/shop"},"target":{"name":"","url":"postgres://copy/a"},"tables":["public.*","sales.*"],"options":{"snapshot.parallelism":"3"}}`,
		`create {"name":"two","source":{"name":"shop","url":"postgres://a%20b:${secret:db-5433_shop_a-b}@db:5433/shop"},"target":{"name":"","url":"postgres://copy/b"},"tables":["*.*"],"options":{"snapshot.parallelism":"2"}}`}
	if !slices.Equal(f.calls, want) {
		t.Errorf("calls\n%s\nwant\n%s", strings.Join(f.calls, "\n"), strings.Join(want, "\n"))
	}
	f.vars["WEIR_SNAPSHOT_PARALLELISM"] = "7"
	write("SET 'snapshot.parallelism' = '2';\nCREATE MIRROR three FROM 'postgres://db/x' TO 'postgres://copy/b';\n")
	f.scripts["three"] = []api.PipelineStatus{{Phase: api.PhaseLive, DurablePosition: "0/200"}}
	f.want(t, 0, "run", file, "--until-caught-up")
	if got := f.views["three"].Mirror.Options["snapshot.parallelism"]; got != "7" {
		t.Errorf("snapshot.parallelism is %q, want that of the environment", got)
	}
	for text, says := range map[string]string{
		"SET 'snapshot.parallelsim' = '2';":                                                              ":1:5\n",
		"CREATE CONNECTION c WITH ('hots' = 'x');":                                                       "error[W6004]: a connection has no option 'hots'",
		"CREATE CONNECTION c WITH ('connector' = 'mysql');":                                              "error[W6006]: connector 'mysql' is not built yet",
		"CREATE CONNECTION shop WITH ('hostname' = 'x');\nCREATE MIRROR m FROM shp TO 'postgres://h/d';": "hint: did you mean shop?",
		"CREATE MIRROR m FROM 'postgres://a/b' TO 'postgres://h/d' TABLES 'x';":                          "error[W6007]",
		"CREATE MIRROR m FROM 'postgres://a/b' TO 'postgres://h/d' WITH ('snapshot.paralelism' = '1');":  ":1:65\n",
		"SELECT 1;":  "error[W2002]: SELECT is not built yet",
		"-- nothing": "has nothing to run",
	} {
		write(text)
		f.want(t, 2, "run", file)
		if !strings.Contains(f.err.String(), says) {
			t.Errorf("%s\nprinted %s, want %s", text, f.err.String(), says)
		}
	}
	f.want(t, 2, "run", filepath.Join(f.dir, "none.sql"))
}

func TestPipelineCommands(t *testing.T) {
	f := newFixture(t)
	f.views["shop_copy"] = coordinator.PipelineView{
		Pipeline: api.Pipeline{ID: "1", Name: "shop_copy", Desired: api.WantRunning, Generation: 3, CreatedAt: testNow.Add(-72 * time.Hour),
			Mirror: api.MirrorSpec{Source: api.Connection{Name: "shop", URL: "postgres://ann:${secret:x}@db/shop"}, Target: api.Connection{URL: "postgres://copy/shop"},
				Tables: []string{"public.*"}, Options: map[string]string{"snapshot.parallelism": "2"}}},
		Status: api.PipelineStatus{Phase: api.PhaseLive, Since: testNow.Add(-3 * time.Hour), RowsPerSec: 12_400, BytesPerSec: 1 << 20, LagBytes: 12, LagMS: 180, Durable: 14,
			RowsTotal: 5000, Position: "0/200", UpdatedAt: testNow.Add(-time.Second), Tables: tables(api.PhaseLive, api.PhaseCatchUp)},
	}
	f.views["broken"] = coordinator.PipelineView{Pipeline: api.Pipeline{ID: "2", Name: "broken"}, Status: api.PipelineStatus{Phase: api.PhaseFailed, LagBytes: -1, LagMS: -1,
		Error: &api.ErrorInfo{Code: "W1003", Message: "slot lost"}}}
	var b strings.Builder
	for _, args := range [][]string{{"pl", "list"}, {"pipelines", "ls", "-o", "wide"}, {"pl", "list", "-o", "csv"}, {"pl", "list", "-o", "name"}, {"pl", "get", "shop_copy"},
		{"src", "list"}, {"sources", "get", "shop"}, {"pl", "pause", "shop_copy"}, {"pl", "tables", "add", "shop_copy", "public.new,public.other"}} {
		fmt.Fprintf(&b, "$ weir %s\n%s", strings.Join(args, " "), f.want(t, 0, args...))
	}
	golden(t, "pipelines", b.String())
	if got := f.want(t, 0, "pl", "get", "shop_copy", "-o", "json"); strings.Contains(got, "0001-01-01") || strings.Contains(got, "catalog_at") {
		t.Errorf("a time that is not known is printed: %s", got)
	}

	f.views["plain"] = coordinator.PipelineView{Pipeline: api.Pipeline{ID: "3", Name: "plain", Mirror: api.MirrorSpec{Source: api.Connection{URL: "postgres://db/shop"}}}}
	f.p.engines.Unmatched = func(_ context.Context, _ *env.Env, source string, globs []string) ([]string, error) {
		if source != "postgres://db/shop" {
			return nil, fmt.Errorf("asked for %s", source)
		}
		return globs[1:], nil
	}
	f.p.engines.Mirrored = func(context.Context, *env.Env, string, api.MirrorSpec) ([]pg.TargetName, error) {
		return []pg.TargetName{{Schema: "public", Name: "a"}, {Schema: "public", Name: "orders"}}, nil
	}
	f.calls = nil
	f.want(t, 2, "pl", "tables", "remove", "plain", "public.a,public.ordres", "--yes")
	if s := f.err.String(); !strings.Contains(s, "error[W1016]: table \"public.ordres\" is not part of the mirror\n  hint: did you mean public.orders?") || len(f.calls) > 0 {
		t.Errorf("remove of a table that is not there did %v and printed %q", f.calls, s)
	}
	for _, args := range [][]string{{"add"}, {"remove", "--yes"}} {
		f.want(t, 0, append([]string{"pl", "tables", args[0], "plain", "public.a", "nosuch.*"}, args[1:]...)...)
		if s := f.err.String(); !strings.Contains(s, "note: nosuch.* matches no table of the source") || strings.Contains(s, "public.a m") {
			t.Errorf("%s printed %q", args[0], s)
		}
	}

	delete(f.views, "plain")
	f.calls = nil
	f.want(t, 2, "pl", "delete", "shop_copy")
	f.want(t, 0, "pl", "delete", "shop_copy", "--dry-run")
	f.want(t, 2, "pl", "get", "nobody")
	f.want(t, 2, "src", "refresh", "public.orders")
	if len(f.calls) > 0 {
		t.Errorf("refused commands did %v", f.calls)
	}
	f.want(t, 0, "pl", "delete", "shop_copy", "--yes", "--wait", "--force")
	f.want(t, 0, "pl", "tables", "rm", "shop_copy", "public.old", "-y")
	f.want(t, 0, "src", "refresh", "public.orders", "public.b", "-y")
	f.want(t, 0, "src", "refresh", `"sch.dot"."a.b*,?[x]",public.*`, "-y")
	f.tty, f.in = true, "n\n"
	f.want(t, 10, "pl", "delete", "shop_copy")
	if want := []string{"delete 1 {Force:true Wait:true}", "update shop_copy +[] -[public.old]", "refresh shop [public.orders public.b]",
		`refresh shop ["sch.dot"."a.b*,?[x]" public.*]`}; !slices.Equal(f.calls, want) {
		t.Errorf("calls %v, want %v", f.calls, want)
	}
	f.scripts["shop_copy"] = []api.PipelineStatus{{Phase: api.PhaseLive}, {Phase: api.PhaseLive}, {Phase: api.PhasePaused}}
	f.want(t, 0, "pl", "pause", "shop_copy", "--wait")
	f.scripts["shop_copy"] = []api.PipelineStatus{{Phase: api.PhaseFailed, Error: &api.ErrorInfo{Code: "W4001", Message: "away"}}}
	f.want(t, 3, "pl", "resume", "shop_copy", "--wait")
	f.scripts["shop_copy"] = []api.PipelineStatus{{Phase: api.PhaseRetrying, Error: &api.ErrorInfo{Code: "W1001", Message: "no route", Hint: "use --force"}}}
	f.want(t, 4, "pl", "resume", "shop_copy", "--wait", "--timeout", "1ns") // which has passed when the wait begins
	if s := f.err.String(); s != "error[W3005]: waited 0µs in vain\n  detail: no route (W1001)\n  hint: use --force\n  more: weir help W3005\n" {
		t.Errorf("a wait in vain printed %q", s)
	}
}

func TestSlotState(t *testing.T) {
	var c cli.Call
	for _, s := range []struct {
		state, shown string
		active       bool
	}{{"", cli.Unknown, false}, {"missing", "missing", false}, {"lost", "lost", false}, {"reserved", "idle", false}, {"reserved", "active", true}} {
		if got := slotState(&c, api.SourceStatus{SlotState: s.state, SlotActive: s.active}); got != s.shown {
			t.Errorf("state %q is shown as %q, want %q", s.state, got, s.shown)
		}
	}
}

func TestAddable(t *testing.T) {
	m := func(except ...string) api.MirrorSpec {
		return api.MirrorSpec{Name: "m", Tables: []string{"public.*", "sales.x"}, Except: except}
	}
	for _, c := range []struct {
		spec  api.MirrorSpec
		added []string
		says  string // "": accepted
	}{
		{m(), []string{"public.a"}, ""},
		{m("public.tmp_*"), []string{"public.a", "public.tmp_*"}, ""},
		{m("x.*", "public.tmp_*"), []string{"public.a", "public.tmp_a"}, "public.tmp_a is left out by public.tmp_*, a pattern of --except of pipeline m"},
		{m("public.tmp_*"), []string{"public.a, public.tmp_a"}, "public.tmp_a is left out by public.tmp_*"},
		{m("x.*,public.tmp_*"), []string{"public.tmp_a"}, "public.tmp_a is left out by public.tmp_*"},
		{m(`public."a.*"`), []string{`public."a.*"`}, `public."a.*" is left out by public."a.*"`},
		{m(`public."a""b"`), []string{`public."a""b"`}, "is left out"},
		{m(), []string{"pg_catalog.pg_class"}, "pg_catalog.pg_class cannot be mirrored"},
		{m(), []string{"_weir.ledger"}, "_weir.ledger cannot be mirrored"},
		{api.MirrorSpec{Tables: []string{"a"}}, []string{"a"}, "names no schema"},
	} {
		err := addable(c.spec, c.added)
		if c.says == "" && err != nil || c.says != "" && (!errs.Is(err, errs.BadPattern) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%v to %v except %v: %v, want %q", c.added, c.spec.Tables, c.spec.Except, err, c.says)
		}
	}
}

// TestCatchUpTellsItsWait: a mirror that looks as if nothing were missing is not waited for without a word.
func TestCatchUpTellsItsWait(t *testing.T) {
	now := testNow
	var told []string
	w := newCatchUp(func() time.Time { return now }, func(format string, args ...any) { told = append(told, fmt.Sprintf(format, args...)) })
	for name, set := range map[string]map[string]string{"slow": {"discovery.interval": "24h"}, "usual": nil} {
		told = nil
		v := coordinator.PipelineView{Pipeline: api.Pipeline{Name: name, Mirror: api.MirrorSpec{Name: name, Options: set}},
			Status: api.PipelineStatus{Phase: api.PhaseCatchUp, UpdatedAt: now, CatalogAt: now.Add(-time.Hour)}}
		for i := range 20 {
			if i == 3 {
				v.Status.Phase = api.PhaseLive
			}
			if done, err := w.done(t.Context(), nil, []coordinator.PipelineView{v}); done || err != nil {
				t.Fatalf("it ends: %v", err)
			}
			if i < 8 && len(told) > 0 {
				t.Fatalf("told after %d s: %s", i, told)
			}
			now = now.Add(time.Second)
		}
		every := map[string]string{"slow": "24h", "usual": "2s"}[name]
		if len(told) != 1 || !strings.Contains(told[0], "discovery.interval is "+every) {
			t.Errorf("told %q, want one note with %s", told, every)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		tables []string
		globs  string
		want   bool
	}{
		{[]string{"*.*"}, "public.y", true},
		{[]string{"*"}, "public.y", true},
		{nil, "public.y", true},
		{nil, "public.y*", true},
		{[]string{"public.*"}, "public.y, public.z*", true},
		{[]string{"public.*"}, "public.y, sales.z", false},
		{[]string{"public.*"}, "*.y", false},
		{[]string{"public.y*"}, "public.y?z[ab]*", true},
		{[]string{"public.y?"}, "public.y*", false},
		{[]string{"public.y?"}, "public.yy", true},
		{[]string{"public.y[*]"}, "public.y*", false},
		{[]string{`public."y*"`}, "public.y*", false},
		{[]string{`public."y*"`}, `public."y*"`, true},
		{[]string{"public.*"}, "*", false},
	} {
		if got := covers(api.MirrorSpec{Tables: c.tables, Except: []string{"public.y"}}, c.globs); got != c.want {
			t.Errorf("%v cover %s: %v", c.tables, c.globs, got)
		}
	}
}

func TestDebugRaft(t *testing.T) {
	f := newFixture(t)
	e := env.Real(nil)
	state, err := coordinator.OpenState(e, filepath.Join(f.dir, "raft-state"))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	c, err := coordinator.Open(ctx, e, coordinator.Options{State: state})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.PutConnection(ctx, api.Connection{Name: "shop", URL: "postgres://db/shop"}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(f.dir, "raft-state")
	f.want(t, 1, "debug", "raft", dir)
	if err := errors.Join(c.Close(ctx), state.Close()); err != nil {
		t.Fatal(err)
	}
	list := func() (rows []raftRow) {
		if err := json.Unmarshal([]byte(f.want(t, 0, "debug", "raft", dir, "-o", "json", "--bytes", "1000")), &rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	rows := list()
	var kinds []string
	for i, r := range rows {
		if r.Index != uint64(i+1) || r.Term == 0 {
			t.Errorf("entry %d: %+v", i, r)
		}
		kinds = append(kinds, r.Type)
	}
	last := rows[len(rows)-1]
	if kinds[0] != "configuration" || last.Type != "command" || last.Entry != `PutConnection {"connection":{"name":"shop","url":"postgres://db/shop"}}` {
		t.Errorf("entries %+v", rows)
	}
	if again := list(); !slices.Equal(again, rows) {
		t.Errorf("a second look shows %+v", again)
	}
	if got := f.want(t, 0, "debug", "raft", dir, "--bytes", "13"); !strings.Contains(got, "PutConnection…\n") {
		t.Errorf("cut to 13 bytes:\n%s", got)
	}
	f.want(t, 2, "debug", "raft", f.dir)
}

func TestSecrets(t *testing.T) {
	f := newFixture(t)
	f.in = "hunter2\n"
	f.want(t, 0, "secrets", "set", "shop")
	if s := f.err.String(); s != "stored; write ${secret:shop} where it is needed\n" {
		t.Errorf("printed %q", s)
	}
	if got := f.want(t, 0, "secrets", "list", "-o", "json"); !strings.Contains(got, `"${secret:shop}"`) || strings.Contains(got, "hunter2") {
		t.Errorf("list: %s", got)
	}
	f.tty, f.in = true, "typed"
	f.want(t, 0, "secrets", "set", "typed")
	f.tty = false
	store := secrets.Open(env.Real(nil), secrets.Options{Dir: filepath.Join(f.dir, "state", "secrets")})
	for name, want := range map[string]string{"shop": "hunter2", "typed": "typed"} {
		if v, err := store.Get(name); err != nil || v.Reveal() != want {
			t.Errorf("%s = %q, %v", name, v.Reveal(), err)
		}
	}
	f.want(t, 2, "secrets", "set", "a/b")
	f.want(t, 2, "secrets", "delete", "shop")
	f.want(t, 0, "secrets", "delete", "shop", "-y")
	f.want(t, 2, "secrets", "delete", "shop", "-y")
	f.want(t, 2, "secrets", "list", "--addr", "far:7070")
}

func TestConfig(t *testing.T) {
	f := newFixture(t)
	if err := os.WriteFile(filepath.Join(f.dir, "weir.yaml"), []byte("snapshot:\n  parallelism: 4\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	golden(t, "config", f.want(t, 0, "config", "explain", "snapshot.parallelism")+"==\n"+f.want(t, 0, "config", "list", "--set", "execution.checkpointing.interval=2 s"))
	f.want(t, 2, "config", "explain", "snapshot.paralelism")
	if !strings.Contains(f.err.String(), "did you mean snapshot.parallelism?") {
		t.Errorf("printed %s", f.err.String())
	}
	if err := os.WriteFile(filepath.Join(f.dir, "weir.yaml"), []byte("snapshot:\n  parallelism: x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f.want(t, 2, "config", "list")
	if !strings.Contains(f.err.String(), "--> weir.yaml:2:3\n") {
		t.Errorf("printed %s", f.err.String())
	}
}

// Tab offers what the server has, wherever the flags stand that name it. Without a server it offers nothing, in peace.
func TestNamesAreCompleted(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{"shop", "orders"} {
		f.views[name] = coordinator.PipelineView{Pipeline: api.Pipeline{Name: name}}
	}
	for _, c := range []struct{ line, want string }{
		{"pipelines get ", "orders shop :4"},
		{"pipelines get s", "shop :4"},
		{"pipelines delete --state x ", "orders shop :4"},
		{"--addr far:7070 mirror cutover ", "orders shop :4"},
		{"pipelines tables add o", "orders :4"},
		{"pipelines get shop ", ":4"},
		{"sources get ", "shop :4"},
	} {
		got := f.want(t, 0, append([]string{"__complete"}, strings.Split(c.line, " ")...)...)
		if strings.Join(strings.Fields(got), " ") != c.want {
			t.Errorf("%q completes to %q, want %q", c.line, got, c.want)
		}
	}
	f.p.dial = func(*env.Env, rest.ClientOptions) (client, error) {
		return nil, errs.New(errs.NotReachable, "nobody is there")
	}
	if got := f.want(t, 0, "__complete", "pipelines", "get", ""); got != ":4\n" || strings.Contains(f.err.String(), "nobody") {
		t.Errorf("without a server: %q %s", got, f.err.String())
	}
}

// Who deletes a secret is told which pipelines connect by it.
func TestSecretInUse(t *testing.T) {
	f := newFixture(t)
	f.in = "hunter2"
	f.want(t, 0, "secrets", "set", "one")
	f.want(t, 0, "secrets", "set", "two")
	for name, url := range map[string]string{"a": "postgres://u:${secret:one}@h/d", "b": "postgres://u:${secret:two}@h/d", "c": "postgres://u:${secret:one}@h/d"} {
		f.views[name] = coordinator.PipelineView{Pipeline: api.Pipeline{Name: name, Mirror: api.MirrorSpec{Source: api.Connection{URL: url}, Target: api.Connection{URL: url}}}}
	}
	const uses = "deletes the secret one; it is used by a, c, which cannot connect any more\n"
	f.tty, f.in = true, "n\n"
	f.want(t, 10, "secrets", "delete", "one")
	if s := f.err.String(); !strings.HasPrefix(s, uses+"go on?") {
		t.Errorf("the question is %q", s)
	}
	f.tty = false
	f.want(t, 0, "secrets", "delete", "one", "--yes")
	if s := f.err.String(); s != uses {
		t.Errorf("with --yes: %q", s)
	}
	clear(f.views)
	f.want(t, 0, "secrets", "delete", "two", "--yes")
	if s := f.err.String(); s != "" {
		t.Errorf("of an unused one: %q", s)
	}
}

func TestVersionHelpDebug(t *testing.T) {
	f := newFixture(t)
	if got := f.want(t, 0, "version"); !strings.HasPrefix(got, "weir 1.2.3 (abc, go") || !strings.HasSuffix(got, "  server 9.9\n") {
		t.Errorf("version: %q", got)
	}
	f.away = true
	if got := f.want(t, 0, "version", "-o", "name"); got != "1.2.3\n" {
		t.Errorf("version: %q", got)
	}
	f.want(t, 3, "version", "--addr", "x:1")
	if got := f.want(t, 0, "help", "W1003"); !strings.HasPrefix(got, "W1003: the replication slot is lost\n") {
		t.Errorf("help: %q", got)
	}
	var entry map[string]string
	if err := json.Unmarshal([]byte(f.want(t, 0, "help", "w1003", "-o", "json")), &entry); err != nil || entry["code"] != "W1003" || entry["title"] != "the replication slot is lost" || entry["do"] == "" {
		t.Errorf("help for programs: %v, %v", entry, err)
	}
	f.want(t, 2, "sql")
	f.want(t, 2, "server", "--join", "x")
	sql := filepath.Join(f.dir, "x.sql")
	if err := os.WriteFile(sql, []byte("set 'a'='b'"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := f.want(t, 0, "debug", "sql", sql); got != "SET 'a' = 'b';\n" {
		t.Errorf("debug sql: %q", got)
	}
	if err := os.WriteFile(sql, []byte(`CREATE CONNECTION a WITH ('url' = 'postgres://ann:hunter2@db/shop');
		CREATE CONNECTION b WITH ('hostname' = 'db', 'username' = 'ann', 'password' = 'hunter2');
		CREATE CONNECTION c WITH ('url' = 'postgres:ann:hunter2@db/shop');
		CREATE CONNECTION d WITH ('url' = 'postgres://ann:${secret:mine}@db/shop');
		CREATE MIRROR m FROM 'host=db user=ann dbname=shop password=hunter2' TO 'postgres://hunter2@db:hunter2/x';`), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := f.want(t, 0, "debug", "sql", sql); strings.Contains(got, "hunter2") || strings.Count(got, "${secret:db_shop_ann}") != 2 ||
		!strings.Contains(got, "'password' = '${secret:b_password}'") || !strings.Contains(got, "ann:${secret:mine}@db") {
		t.Errorf("debug sql: %q", got)
	}
	if err := os.WriteFile(sql, []byte(`CREATE TABLE t (a INT) WITH ('url' = 'jdbc:postgresql://ann:hunter2@db/shop', 'password' = 'hunter2');
		SELECT * FROM t /*+ OPTIONS('password' = 'hunter2') */;`), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := f.want(t, 0, "debug", "sql", sql); strings.Contains(got, "hunter2") || !strings.Contains(got, "'password' = '${secret:t_password}'") {
		t.Errorf("debug sql: %q", got)
	}
	for _, args := range [][]string{{"demo"}, {"server"}, {"doctor", "postgres://a/b"}, {"mirror", "postgres://a/b", "postgres://a/c"}} {
		f.want(t, 2, args...)
		if !strings.HasPrefix(f.err.String(), "error[W6006]: weir "+args[0]+" is not built yet") {
			t.Errorf("%v without its engine: %s", args, f.err.String())
		}
	}
}
