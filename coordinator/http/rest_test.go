package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/docs"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format/record"
	"github.com/weirstream/weir/internal/metrics"
	"github.com/weirstream/weir/raft"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// idleRunner starts pipelines that wait to be stopped.
type idleRunner struct {
	mu       sync.Mutex
	startErr error
	away     bool // nothing can be removed
	commands []api.Command
}

func (r *idleRunner) failWith(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.startErr = err
}

func (r *idleRunner) Start(context.Context, api.Pipeline, dataflow.Generation) (coordinator.Running, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.startErr != nil {
		return nil, r.startErr
	}
	return &idle{runner: r, done: make(chan struct{})}, nil
}

func (r *idleRunner) Remove(context.Context, api.Pipeline) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away {
		return errs.New(errs.SourceUnreachable, "no route")
	}
	return nil
}

type idle struct {
	runner *idleRunner
	once   sync.Once
	done   chan struct{}
}

func (i *idle) Status() api.PipelineStatus {
	return api.PipelineStatus{Phase: api.PhaseLive, RowsTotal: 42, Tables: []api.TableStatus{{Source: "public.a", Target: "public.a", Phase: api.PhaseLive}}}
}

func (i *idle) Source(context.Context) (api.SourceStatus, error) {
	return api.SourceStatus{Slot: "weir_shop", SlotActive: true, WALRetainedBytes: 77}, nil
}

func (i *idle) Command(_ context.Context, c api.Command) error {
	i.runner.mu.Lock()
	defer i.runner.mu.Unlock()
	i.runner.commands = append(i.runner.commands, c)
	return nil
}

func (i *idle) Stop(context.Context) error {
	i.once.Do(func() { close(i.done) })
	return nil
}

func (i *idle) Done() <-chan struct{} { return i.done }
func (i *idle) Err() error            { return nil }

type fixture struct {
	t      *testing.T
	env    *env.Env
	runner *idleRunner
	c      *coordinator.Coordinator
	opts   Options
	web    *httptest.Server
	client *Client
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t, env: env.Real(nil), runner: &idleRunner{}}
	f.env.FS = vfs.NewMem()
	state, err := coordinator.OpenState(f.env, "/state")
	if err != nil {
		t.Fatal(err)
	}
	if f.c, err = coordinator.Open(f.ctx(), f.env, coordinator.Options{State: state, Runner: f.runner,
		SealQuery: func(_ context.Context, q api.QuerySpec) (api.QuerySpec, error) { return q, nil }}); err != nil {
		t.Fatal(err)
	}
	reg := metrics.New("1.2.3")
	reg.Pipelines(func() []metrics.Pipeline {
		var out []metrics.Pipeline
		for _, v := range f.c.Pipelines() {
			out = append(out, metrics.Pipeline{Name: v.Name, Status: v.Status})
		}
		return out
	})
	f.opts = Options{
		Coordinator: f.c, Version: Version{Version: "1.2.3"}, PID: 4711, Metrics: reg.Handler(),
		Doctor: func(_ context.Context, r DoctorRequest) ([]api.Check, error) {
			if r.Mirror.Source.Name == "down" {
				return nil, errs.New(errs.SourceUnreachable, "no route to %s", r.Mirror.Source.Name)
			}
			return []api.Check{{ID: "pg.wal_level", Side: "source", Severity: api.SeverityFatal, Message: "it is replica", Fix: "ALTER SYSTEM"}}, nil
		},
		StateEntries: func(context.Context, string, string, string) ([]api.StateEntries, error) {
			return []api.StateEntries{{Operator: "view v", Node: "view-1", Entries: []api.StateEntry{{State: "rows", Row: json.RawMessage(`{"a":1}`), Count: 1}}}}, nil
		},
		Plan: func(_ context.Context, r PlanRequest) (api.Plan, error) {
			return api.Plan{Pipeline: r.Mirror.Name}, nil
		},
	}
	f.web = httptest.NewServer(New(f.env, f.opts).Handler())
	if f.client, err = NewClient(f.env, ClientOptions{Addr: f.web.URL}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.client.Close()
		f.web.Close()
		if err := errors.Join(f.c.Close(f.ctx()), state.Close()); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	f.t.Cleanup(cancel)
	return ctx
}

func mirror(name string) api.MirrorSpec {
	return api.MirrorSpec{
		Name: name, Tables: []string{"public.*"}, Options: map[string]string{"copy.lanes": "2"},
		Source: api.Connection{Name: "shop", URL: "postgres://u@db/shop"}, Target: api.Connection{Name: "dw", URL: "postgres://u@dw/dw"},
	}
}

// raw sends a request as it stands and checks the answer against its description.
func (f *fixture) raw(method, path, body string, header ...string) (int, map[string]any) {
	f.t.Helper()
	req, err := http.NewRequest(method, f.web.URL+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := f.web.Client().Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	var out map[string]any
	if len(b) > 0 && strings.Contains(resp.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(b, &out); err != nil {
			f.t.Fatalf("%s %s: %v", method, path, err)
		}
	} else if len(b) > 0 {
		out = map[string]any{"text": string(b)}
	}
	if strings.HasSuffix(resp.Header.Get("Content-Type"), "problem+json") {
		if err := described(f.t).check("#/components/schemas/Problem", out); err != nil {
			f.t.Errorf("%s %s answers a problem that is not as described: %v", method, path, err)
		}
	}
	return resp.StatusCode, out
}

func TestClientAgainstServer(t *testing.T) {
	f := newFixture(t)
	c, ctx := f.client, f.ctx()
	v, err := c.CreateMirror(ctx, mirror("orders"))
	if err != nil || v.Name != "orders" || len(v.ID) != 32 {
		t.Fatal(v, err)
	}
	if v, err = c.WaitPhase(ctx, "orders", api.PhaseLive); err != nil || v.Status.RowsTotal != 42 {
		t.Fatal(v, err)
	}
	if list, err := c.Pipelines(ctx); err != nil || len(list) != 1 || list[0].ID != v.ID {
		t.Error(list, err)
	}
	if v, err = c.Update(ctx, "orders", coordinator.Change{AddTables: []string{"sales.*"}}); err != nil || v.Version != 2 {
		t.Error(v, err)
	}
	if err := c.Command(ctx, "orders", api.Command{Verb: "refresh", Tables: []string{"public.a"}}); err != nil {
		t.Error(err)
	}
	if s, err := c.Sources(ctx); err != nil || len(s) != 1 || s[0].WALRetainedBytes != 77 {
		t.Error(s, err)
	}
	if s, err := c.Source(ctx, "shop"); err != nil || s.Slot != "weir_shop" {
		t.Error(s, err)
	}
	if err := c.RefreshSource(ctx, "shop", nil); err != nil {
		t.Error(err)
	}
	f.runner.mu.Lock()
	if got := fmt.Sprint(f.runner.commands); got != "[{add-tables [sales.*]} {refresh [public.a]} {refresh []}]" {
		t.Errorf("commands %s", got)
	}
	f.runner.mu.Unlock()
	m := mirror("x")
	if checks, err := c.Doctor(ctx, DoctorRequest{Mirror: &m}); err != nil || len(checks) != 1 || checks[0].Fix != "ALTER SYSTEM" {
		t.Error(checks, err)
	}
	if checks, err := c.Doctor(ctx, DoctorRequest{Pipeline: "orders"}); err != nil || len(checks) != 1 {
		t.Error(checks, err)
	}
	if p, err := c.Plan(ctx, PlanRequest{Mirror: m}); err != nil || p.Pipeline != "x" {
		t.Error(p, err)
	}
	if ver, err := c.Version(ctx); err != nil || ver.Version != "1.2.3" {
		t.Error(ver, err)
	}
	if st, err := c.Status(ctx); err != nil || !st.Ready || st.Raft.State != "Leader" || st.Pipelines[api.PhaseLive] != 1 || len(st.Installation) != 32 {
		t.Error(st, err)
	}
	if _, err := c.Pause(ctx, "orders"); err != nil {
		t.Error(err)
	}
	if _, err := c.WaitPhase(ctx, "orders", api.PhasePaused); err != nil {
		t.Error(err)
	}
	if _, err := c.Resume(ctx, v.ID); err != nil {
		t.Error(err)
	}
	if err := c.Delete(ctx, "orders", DeleteOptions{Wait: true}); err != nil {
		t.Error(err)
	}
	if _, err := c.Pipeline(ctx, "orders"); !errs.Is(err, errs.PipelineNotFound) {
		t.Error(err)
	}
	f.runner.failWith(errs.New(errs.SlotLost, "slot lost").WithFix("SELECT 1"))
	if _, err := c.CreateMirror(ctx, mirror("broken")); err != nil {
		t.Error(err)
	}
	_, err = c.WaitPhase(ctx, "broken", api.PhaseLive)
	if e, ok := errs.As(err); !ok || e.Code != errs.SlotLost || e.Fix != "SELECT 1" {
		t.Errorf("waiting for a pipeline that fails: %v", err)
	}
}

func TestErrorsAreProblems(t *testing.T) {
	f := newFixture(t)
	if _, err := f.client.CreateMirror(f.ctx(), mirror("orders")); err != nil {
		t.Fatal(err)
	}
	body := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	leaky, down := mirror("leaky"), mirror("down")
	leaky.Source.URL = "postgres://u:hunter2@db/shop"
	down.Source.Name = "down"
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		code               errs.Code
	}{
		"unknown pipeline":   {"GET", "/api/v1/pipelines/ordres", "", 404, errs.PipelineNotFound},
		"unknown source":     {"GET", "/api/v1/sources/zebra", "", 404, errs.PipelineNotFound},
		"unknown path":       {"GET", "/api/v1/nothing", "", 404, errs.BadFlag},
		"wrong method":       {"PUT", "/api/v1/pipelines/orders", "{}", 405, errs.BadFlag},
		"name taken":         {"POST", "/api/v1/pipelines", body(mirror("orders")), 409, errs.PipelineExists},
		"password in a URL":  {"POST", "/api/v1/pipelines", body(leaky), 400, errs.BadURL},
		"no JSON":            {"POST", "/api/v1/pipelines", "name: orders", 400, errs.BadFlag},
		"unknown field":      {"POST", "/api/v1/pipelines", `{"nmae":"x"}`, 400, errs.BadFlag},
		"two values":         {"POST", "/api/v1/plan", `{} {}`, 400, errs.BadFlag},
		"too large":          {"POST", "/api/v1/pipelines", `{"name":"` + strings.Repeat("x", bodyLimit) + `"}`, 413, errs.BadFlag},
		"bad parameter":      {"DELETE", "/api/v1/pipelines/orders?force=maybe", "", 400, errs.BadFlag},
		"nothing to doctor":  {"POST", "/api/v1/doctor", `{}`, 400, errs.BadFlag},
		"source unreachable": {"POST", "/api/v1/doctor", body(DoctorRequest{Mirror: &down}), 502, errs.SourceUnreachable},
		"unknown command":    {"POST", "/api/v1/pipelines/orders/commands", `{"verb":"dance"}`, 400, errs.UnknownOption},
	} {
		t.Run(name, func(t *testing.T) {
			status, p := f.raw(c.method, c.path, c.body)
			if status != c.status || p["code"] != string(c.code) || p["status"] != float64(c.status) || p["type"] != "urn:weir:error:"+string(c.code) {
				t.Errorf("status %d, problem %v", status, p)
			}
			if strings.Contains(fmt.Sprint(p), "hunter2") {
				t.Error("the answer shows the password")
			}
		})
	}
	if status, p := f.raw("POST", "/api/v1/plan", "{}", "Content-Type", "text/plain"); status != 415 {
		t.Errorf("a form a browser may send unasked: %d %v", status, p)
	}
}

func TestBrowsersFromElsewhereAreRefused(t *testing.T) {
	f := newFixture(t)
	host := strings.TrimPrefix(f.web.URL, "http://")
	_, port, _ := net.SplitHostPort(host)
	for name, c := range map[string]struct {
		header []string
		status int
	}{
		"no browser":            {nil, 200},
		"localhost":             {[]string{"Host", "localhost:" + port}, 200},
		"own page":              {[]string{"Origin", "http://" + host}, 200},
		"rebound name":          {[]string{"Host", "evil.example:" + port}, 403},
		"name that looks local": {[]string{"Host", "127.0.0.1.evil.example"}, 403},
		"page from elsewhere":   {[]string{"Origin", "http://evil.example"}, 403},
		"page on another port":  {[]string{"Origin", "http://127.0.0.1:1"}, 403},
		"sandboxed page":        {[]string{"Origin", "null"}, 403},
	} {
		for _, path := range []string{"/api/v1/status", "/metrics", "/livez"} {
			if status, got := f.raw("GET", path, "", c.header...); status != c.status {
				t.Errorf("%s on %s: %d %v", name, path, status, got)
			}
		}
	}
	if status, _ := f.raw("POST", "/api/v1/pipelines/x/pause", "", "Sec-Fetch-Site", "cross-site"); status != 403 {
		t.Errorf("a form post from elsewhere: %d", status)
	}
}

func TestHealthAndMetrics(t *testing.T) {
	f := newFixture(t)
	if _, err := f.client.CreateMirror(f.ctx(), mirror("orders")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.WaitPhase(f.ctx(), "orders", api.PhaseLive); err != nil {
		t.Fatal(err)
	}
	text := func(path string) string {
		status, out := f.raw("GET", path, "")
		if status != 200 {
			t.Errorf("%s: %d", path, status)
		}
		s, _ := out["text"].(string)
		return s
	}
	if got := text("/livez"); got != "ok\n" {
		t.Errorf("livez %q", got)
	}
	if got := text("/readyz"); got != "ok\n" {
		t.Errorf("readyz %q", got)
	}
	if got := text("/readyz?verbose"); !strings.Contains(got, "[+] raft: Leader") || !strings.Contains(got, "[+] pipeline orders: live") {
		t.Errorf("readyz?verbose %q", got)
	}
	if got := text("/metrics"); !strings.Contains(got, `weir_pipeline_rows_total{pipeline="orders"} 42`) {
		t.Errorf("metrics %.200q", got)
	}
	if got := text("/api/v1/openapi.yaml"); got != string(docs.OpenAPI()) {
		t.Error("openapi.yaml is not the one in docs")
	}
	if err := f.c.Close(f.ctx()); err != nil {
		t.Fatal(err)
	}
	if status, _ := f.raw("GET", "/readyz", ""); status != 503 {
		t.Errorf("readyz of a closed node: %d", status)
	}
}

// fakeNet says which addresses are taken, and opens a free port for the others.
type fakeNet struct {
	env.Net
	busy  map[string]bool
	asked []string
}

func (n *fakeNet) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	n.asked = append(n.asked, address)
	l, err := n.Net.Listen(ctx, network, "127.0.0.1:0")
	if err != nil || !n.busy[address] {
		return l, err
	}
	defer l.Close()
	_, err = n.Net.Listen(ctx, network, l.Addr().String()) // a real "address already in use"
	return nil, err
}

func TestListen(t *testing.T) {
	f := newFixture(t)
	fake := &fakeNet{Net: f.env.Net, busy: map[string]bool{DefaultAddress: true, "127.0.0.1:7073": true}}
	e := f.env.With()
	e.Net = fake

	s := New(e, f.opts)
	addr, err := s.Listen(f.ctx())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(fake.asked, []string{DefaultAddress, "127.0.0.1:7073", "127.0.0.1:7074"}) {
		t.Errorf("tried %v", fake.asked)
	}
	if ep, err := coordinator.ReadEndpoints(f.env.FS, "/state"); err != nil || ep.HTTP != addr || ep.PID != 4711 {
		t.Errorf("endpoints %+v, %v", ep, err)
	}
	c, err := NewClient(f.env, ClientOptions{State: "/state"})
	if err != nil || c.Addr() != addr {
		t.Fatalf("the client goes to %s, %v", c.Addr(), err)
	}
	if _, err := c.Version(f.ctx()); err != nil {
		t.Error(err)
	}
	c.Close()
	// Another directory's file that leads here: its process was killed and had our port.
	for name, ep := range map[string]string{"/killed": `"instance": "00000000000000000000000000000000", `, "/older": ""} {
		text := `{"pid": 4710, ` + ep + `"http": "` + addr + `"}`
		if err := f.env.FS.MkdirAll(name, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := record.WriteFile(f.env.FS, f.env.FS.PathJoin(name, "endpoints.json"), func(w io.Writer) error { _, err := io.WriteString(w, text); return err }, nil); err != nil {
			t.Fatal(err)
		}
		stale, err := NewClient(f.env, ClientOptions{State: name})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stale.CreateMirror(f.ctx(), mirror("elsewhere")); !errs.Is(err, errs.NotReachable) || !strings.Contains(err.Error(), "no weir runs on the state directory "+name) {
			t.Errorf("a server of another directory: %v", err)
		}
		stale.Close()
		if list := s.opts.Coordinator.Pipelines(); len(list) != 0 {
			t.Errorf("made in the wrong place: %+v", list)
		}
	}
	if err := s.Close(f.ctx()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Version(f.ctx()); !errs.Is(err, errs.NotReachable) {
		t.Errorf("a server that is gone: %v", err)
	}
	c.Close()

	named := f.opts
	named.Address = DefaultAddress
	if _, err := New(e, named).Listen(f.ctx()); !errs.Is(err, errs.AddressBusy) {
		t.Errorf("a named busy port: %v", err)
	}
	named.Address = "0.0.0.0:7070"
	if _, err := New(e, named).Listen(f.ctx()); !errs.Is(err, errs.BadFlag) {
		t.Errorf("an open port without authentication: %v", err)
	}
	named.Address = "7070"
	if _, err := New(e, named).Listen(f.ctx()); !errs.Is(err, errs.BadFlag) {
		t.Errorf("not an address: %v", err)
	}
}

func TestClientFindsTheDefaultAddress(t *testing.T) {
	e := env.Real(nil)
	e.FS = vfs.NewMem()
	for _, o := range []ClientOptions{{}, {State: "/nowhere"}} {
		c, err := NewClient(e, o)
		if err != nil || c.Addr() != DefaultAddress {
			t.Errorf("%+v: %v %v", o, c, err)
		}
	}
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	c, err := NewClient(e, ClientOptions{Addr: other.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Status(context.Background()); !errs.Is(err, errs.NotReachable) {
		t.Errorf("something else on that port: %v", err)
	}
}

// description is docs/openapi.yaml as data.
type description struct {
	Paths      map[string]map[string]any
	Components struct{ Schemas map[string]schema }
}

type schema struct {
	Ref                  string `yaml:"$ref"`
	Type, Format         string
	Enum                 []string
	Required             []string
	Properties           map[string]schema
	Items                *schema
	AdditionalProperties any `yaml:"additionalProperties"`
	Description          string
}

func described(t *testing.T) description {
	t.Helper()
	var d description
	if err := yaml.Unmarshal(docs.OpenAPI(), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// check holds a value against a schema.
func (d description) check(ref string, v any) error { return d.holds(schema{Ref: ref}, v, ref) }

func (d description) holds(s schema, v any, at string) error {
	if s.Ref != "" {
		named, ok := d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
		if !ok {
			return fmt.Errorf("%s: %s is not described", at, s.Ref)
		}
		s = named
	}
	switch v := v.(type) {
	case map[string]any:
		if s.Type != "object" {
			return fmt.Errorf("%s is an object, want %s", at, s.Type)
		}
		for _, r := range s.Required {
			if _, ok := v[r]; !ok {
				return fmt.Errorf("%s lacks %s", at, r)
			}
		}
		for k, x := range v {
			p, ok := s.Properties[k]
			if _, free := s.AdditionalProperties.(map[string]any); !ok && !free {
				return fmt.Errorf("%s.%s is not described", at, k)
			} else if !ok {
				continue
			}
			if err := d.holds(p, x, at+"."+k); err != nil {
				return err
			}
		}
	case []any:
		if s.Type != "array" {
			return fmt.Errorf("%s is an array, want %s", at, s.Type)
		}
		for _, x := range v {
			if err := d.holds(*s.Items, x, at+"[]"); err != nil {
				return err
			}
		}
	case string:
		if s.Type != "string" || len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
			return fmt.Errorf("%s is %q, want %s %v", at, v, s.Type, s.Enum)
		}
	case float64:
		if s.Type != "number" && (s.Type != "integer" || v != float64(int64(v))) {
			return fmt.Errorf("%s is %v, want %s", at, v, s.Type)
		}
	case bool:
		if s.Type != "boolean" {
			return fmt.Errorf("%s is %v, want %s", at, v, s.Type)
		}
	default:
		return fmt.Errorf("%s is %v, want %s", at, v, s.Type)
	}
	return nil
}

func TestDescriptionMatchesRoutes(t *testing.T) {
	d := described(t)
	served := map[string]bool{}
	for _, rt := range routes() {
		served[rt.method+" "+rt.path] = true
		op, ok := d.Paths[rt.path][strings.ToLower(rt.method)].(map[string]any)
		if !ok {
			t.Errorf("%s %s is served and not described", rt.method, rt.path)
			continue
		}
		if op["summary"] == nil || op["operationId"] == nil {
			t.Errorf("%s %s has no summary or operationId", rt.method, rt.path)
		}
	}
	for path, ops := range d.Paths {
		for method := range ops {
			if method != "parameters" && !served[strings.ToUpper(method)+" "+path] {
				t.Errorf("%s %s is described and not served", strings.ToUpper(method), path)
			}
		}
	}
}

// Every type that crosses the wire is described field by field, and nothing else is.
func TestDescriptionMatchesTypes(t *testing.T) {
	d := described(t)
	names := map[reflect.Type]string{
		reflect.TypeFor[raft.Stats](): "RaftStats",
	}
	seen := map[string]bool{}
	var want func(rt reflect.Type) schema
	var visit func(rt reflect.Type, name string)
	want = func(rt reflect.Type) schema {
		switch {
		case rt == reflect.TypeFor[time.Time]():
			return schema{Type: "string", Format: "date-time"}
		case rt.Kind() == reflect.Pointer:
			return want(rt.Elem())
		case rt == reflect.TypeFor[json.RawMessage]():
			return schema{Type: "object"}
		case rt.Kind() == reflect.Slice:
			items := want(rt.Elem())
			return schema{Type: "array", Items: &items}
		case rt.Kind() == reflect.Map:
			return schema{Type: "object"}
		case rt.Kind() == reflect.Struct || rt.Kind() == reflect.String && rt.Name() != "string":
			name := rt.Name()
			if n, ok := names[rt]; ok {
				name = n
			}
			visit(rt, name)
			return schema{Ref: "#/components/schemas/" + name}
		case rt.Kind() == reflect.String:
			return schema{Type: "string"}
		case rt.Kind() == reflect.Bool:
			return schema{Type: "boolean"}
		case rt.Kind() == reflect.Float64:
			return schema{Type: "number"}
		case rt.Kind() == reflect.Int:
			return schema{Type: "integer"}
		default:
			return schema{Type: "integer", Format: "int64"}
		}
	}
	visit = func(rt reflect.Type, name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		got, ok := d.Components.Schemas[name]
		if !ok {
			t.Errorf("%s is not described", name)
			return
		}
		if got.Description == "" {
			t.Errorf("%s has no description", name)
		}
		if rt.Kind() == reflect.String {
			if got.Type != "string" || len(got.Enum) == 0 {
				t.Errorf("%s is described as %+v, want an enumeration", name, got)
			}
			return
		}
		fields := map[string]bool{}
		var walk func(rt reflect.Type)
		walk = func(rt reflect.Type) {
			for i := range rt.NumField() {
				fd := rt.Field(i)
				tag, opts, _ := strings.Cut(fd.Tag.Get("json"), ",")
				if fd.Anonymous && tag == "" {
					walk(fd.Type)
					continue
				}
				if tag == "-" {
					continue
				}
				fields[tag] = true
				p, ok := got.Properties[tag]
				w := want(fd.Type)
				itemsEqual := w.Items == nil || p.Items != nil && p.Items.Ref == w.Items.Ref && p.Items.Type == w.Items.Type
				if !ok || p.Type != w.Type || p.Ref != w.Ref || p.Format != w.Format || !itemsEqual {
					t.Errorf("%s.%s is described as %+v, want %+v", name, tag, p, w)
				}
				if optional := opts != ""; slices.Contains(got.Required, tag) == optional {
					t.Errorf("%s.%s: required is described wrongly", name, tag)
				}
			}
		}
		walk(rt)
		for p := range got.Properties {
			if !fields[p] {
				t.Errorf("%s.%s is described and does not exist", name, p)
			}
		}
	}
	for _, v := range []any{
		PipelineList{}, SourceList{}, coordinator.PipelineView{}, coordinator.Change{}, api.MirrorSpec{}, api.Command{},
		RefreshRequest{}, DoctorRequest{}, DoctorReport{}, PlanRequest{}, api.QuerySpec{}, api.TailLine{}, StateList{}, api.Plan{}, Version{}, Status{}, Problem{},
	} {
		want(reflect.TypeOf(v))
	}
	for name := range d.Components.Schemas {
		if name != "Phase" && !seen[name] {
			t.Errorf("%s is described and never used", name)
		}
	}
}

// What the server really answers is what is described.
func TestAnswersMatchTheDescription(t *testing.T) {
	f := newFixture(t)
	d := described(t)
	m := mirror("orders")
	m.Tables = nil
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	doctor, err := json.Marshal(DoctorRequest{Mirror: &m})
	if err != nil {
		t.Fatal(err)
	}
	f.raw("POST", "/api/v1/pipelines", string(b))
	if _, err := f.client.WaitPhase(f.ctx(), "orders", api.PhaseLive); err != nil {
		t.Fatal(err)
	}
	met := map[string]bool{"POST /pipelines": true, "GET /views/{name}/tail": true} // see TestTail
	for _, c := range []struct {
		method, path, body, at string
		status                 int
	}{
		{"GET", "/pipelines", "", "/pipelines", 200},
		{"GET", "/pipelines/{name}", "", "/pipelines/orders", 200},
		{"PATCH", "/pipelines/{name}", `{"add_tables":["x.y"]}`, "/pipelines/orders", 200},
		{"POST", "/pipelines/{name}/commands", `{"verb":"refresh"}`, "/pipelines/orders/commands", 202},
		{"GET", "/sources", "", "/sources", 200},
		{"GET", "/sources/{name}", "", "/sources/shop", 200},
		{"POST", "/sources/{name}/refresh", "{}", "/sources/shop/refresh", 202},
		{"POST", "/doctor", string(doctor), "/doctor", 200},
		{"POST", "/plan", `{"mirror":` + string(b) + `}`, "/plan", 200},
		{"GET", "/pipelines/{name}/state/{node}", "", "/pipelines/orders/state/v?key=1", 200},
		{"GET", "/version", "", "/version", 200},
		{"GET", "/status", "", "/status", 200},
		{"POST", "/pipelines/{name}/pause", "", "/pipelines/orders/pause", 200},
		{"POST", "/pipelines/{name}/resume", "", "/pipelines/orders/resume", 200},
		{"DELETE", "/pipelines/{name}", "", "/pipelines/orders", 202},
		{"POST", "/queries", `{"name":"q","file":"q.sql","sql":"INSERT INTO a SELECT * FROM b;"}`, "/queries", 201},
		{"GET", "/pipelines/{name}", "", "/pipelines/q", 200},
	} {
		met[c.method+" "+c.path] = true
		status, got := f.raw(c.method, Prefix+c.at, c.body)
		if status != c.status {
			t.Errorf("%s %s: %d %v", c.method, c.at, status, got)
			continue
		}
		op := d.Paths[c.path][strings.ToLower(c.method)].(map[string]any)
		resp, ok := op["responses"].(map[string]any)[fmt.Sprint(status)].(map[string]any)
		if !ok {
			t.Errorf("%s %s: status %d is not described", c.method, c.path, status)
			continue
		}
		content, ok := resp["content"].(map[string]any)
		if !ok {
			if got != nil {
				t.Errorf("%s %s: a body is not described: %v", c.method, c.path, got)
			}
			continue
		}
		ref := content["application/json"].(map[string]any)["schema"].(map[string]any)["$ref"].(string)
		if err := d.check(ref, got); err != nil {
			t.Errorf("%s %s: %v", c.method, c.path, err)
		}
	}
	for _, rt := range routes() {
		if !met[rt.method+" "+rt.path] {
			t.Errorf("%s %s is not tried", rt.method, rt.path)
		}
	}
}

// A delete that cannot be done must not use up the time in which a node ends.
func TestCloseAnswersAWaitingDelete(t *testing.T) {
	f := newFixture(t)
	f.opts.Address = "127.0.0.1:0"
	server := New(f.env, f.opts)
	addr, err := server.Listen(f.ctx())
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(f.env, ClientOptions{Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.CreateMirror(f.ctx(), mirror("orders")); err != nil {
		t.Fatal(err)
	}
	f.runner.mu.Lock()
	f.runner.away = true
	f.runner.mu.Unlock()
	answer := make(chan error, 1)
	go func() { answer <- client.Delete(f.ctx(), "orders", DeleteOptions{Wait: true}) }()
	if _, err := f.c.WaitPhase(f.ctx(), "orders", api.PhaseRetrying); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := server.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	e, ok := errs.As(<-answer)
	if !ok || e.Code != errs.NotCaughtUp || e.Detail != "no route (W1001)" || !strings.Contains(e.Hint, "goes on when it is started again") {
		t.Errorf("the delete was answered with %#v", e)
	}
}
