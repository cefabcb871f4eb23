package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/pg"
	testenv "github.com/weirstream/weir/test/env"
)

// A db is one database on one server.
type db struct {
	srv  *testenv.Server
	name string
	url  string
}

func newDB(t testing.TB, srv *testenv.Server, name string) db {
	t.Helper()
	url := srv.CreateDatabase(t, name)
	return db{srv: srv, name: testenv.DatabaseOf(t, url), url: url}
}

func (d db) exec(t testing.TB, sql ...string) { t.Helper(); d.srv.Exec(t, d.name, sql...) }
func (d db) query(t testing.TB, sql string) [][]string {
	t.Helper()
	return d.srv.Query(t, d.name, sql)
}
func (d db) one(t testing.TB, sql string) string {
	t.Helper()
	rows := d.query(t, sql)
	if len(rows) != 1 || len(rows[0]) != 1 {
		t.Fatalf("%s: %d rows, want one value", sql, len(rows))
	}
	return rows[0][0]
}

// via is the same database through a proxy.
func (d db) via(p *testenv.Proxy) db {
	d.url = d.srv.URLFor("postgres", p.Addr(), d.name)
	return d
}

// A mirror is the command line of `weir mirror` and the child process that runs it.
type mirror struct {
	t        testing.TB
	src, dst db
	name     string
	state    string
	args     []string // further arguments
	env      []string
	dir      string // where the process runs; "": here

	mu      sync.Mutex
	cmd     *exec.Cmd
	logs    *os.File
	exited  chan struct{} // of the process that runs
	waitErr error
	starts  int

	// undecodable: the source's server cannot read its own log any more ("could not map filenode … to relation OID"),
	// which happens now and then to 15 when tables are altered all the time and it is restarted.
	undecodable bool
}

// newMirror describes a mirror of every table in the given globs. Idle positions move fast, so that tests that wait for
// them do not wait long.
func newMirror(t testing.TB, src, dst db, tables string, args ...string) *mirror {
	t.Helper()
	m := &mirror{t: t, src: src, dst: dst, name: "mirror", state: t.TempDir(),
		args: append([]string{"--tables", tables, "--set", "heartbeat.interval=100ms", "--set", "discovery.interval=200ms"}, args...)}
	t.Cleanup(func() {
		m.kill()
		if t.Failed() {
			t.Logf("log of weir:\n%s", m.logTail(1000))
		}
	})
	return m
}

func (m *mirror) start() {
	m.t.Helper()
	args := append([]string{"mirror", m.src.url, m.dst.url, "--name", m.name, "--state", m.state, "--http-addr", "127.0.0.1:0"}, m.args...)
	m.run(args...)
}

// run starts the binary; start is the usual way.
func (m *mirror) run(args ...string) {
	m.t.Helper()
	path := binary(m.t)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.logs == nil {
		f, err := os.OpenFile(filepath.Join(m.t.TempDir(), "weir.log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
		if err != nil {
			m.t.Fatal(err)
		}
		m.logs = f
		m.t.Cleanup(func() { _ = f.Close() })
	}
	m.starts++
	fmt.Fprintf(m.logs, "=== start %d at %s\n", m.starts, time.Now().Format(time.TimeOnly))
	m.cmd = exec.Command(path, args...)
	m.cmd.Env, m.cmd.Dir = append(os.Environ(), m.env...), m.dir
	m.cmd.Stdout, m.cmd.Stderr = m.logs, m.logs
	// Its own group, and dead with us: a test that panics leaves nothing behind.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	exited := make(chan struct{})
	m.exited = exited
	cmd := m.cmd
	go func() {
		err := cmd.Wait()
		m.mu.Lock()
		m.waitErr = err
		m.mu.Unlock()
		close(exited)
	}()
}

func (m *mirror) running() bool {
	m.mu.Lock()
	exited := m.exited
	m.mu.Unlock()
	if exited == nil {
		return false
	}
	select {
	case <-exited:
		return false
	default:
		return true
	}
}

func (m *mirror) signal(s syscall.Signal) {
	m.mu.Lock()
	cmd := m.cmd
	m.mu.Unlock()
	if cmd != nil && cmd.Process != nil {
		_ = cmd.Process.Signal(s)
	}
}

// kill ends the process as kill -9 does and waits until it is gone.
func (m *mirror) kill() {
	m.signal(syscall.SIGKILL)
	m.mu.Lock()
	exited := m.exited
	m.mu.Unlock()
	if exited != nil {
		<-exited
	}
}

// goroutines ends the process and returns what its goroutines were doing, for a failure's report.
func (m *mirror) goroutines() string {
	before := len(m.log())
	m.signal(syscall.SIGQUIT)
	m.mu.Lock()
	exited := m.exited
	m.mu.Unlock()
	select {
	case <-exited:
	case <-time.After(10 * time.Second):
		m.kill()
	}
	var ours []string
	for _, g := range strings.Split(m.log()[before:], "\n\n") {
		if strings.Contains(g, "weirstream/weir/cdc") || strings.Contains(g, "weirstream/weir/engine") || strings.Contains(g, "weirstream/weir/sinks") {
			ours = append(ours, g)
		}
	}
	return strings.Join(ours, "\n\n")
}

// stop asks it to end as Ctrl-C does.
func (m *mirror) stop() {
	m.t.Helper()
	m.signal(syscall.SIGINT)
	if err := m.wait(60 * time.Second); err != nil {
		m.t.Fatalf("weir ended with %v after an interrupt\n%s", err, m.logTail(20))
	}
}

// wait returns the process's end.
func (m *mirror) wait(limit time.Duration) error {
	m.t.Helper()
	m.mu.Lock()
	exited := m.exited
	m.mu.Unlock()
	select {
	case <-exited:
	case <-time.After(limit):
		m.t.Fatalf("weir still runs after %v\n%s", limit, m.logTail(30))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waitErr
}

func (m *mirror) log() string {
	m.mu.Lock()
	f := m.logs
	m.mu.Unlock()
	if f == nil {
		return ""
	}
	b, _ := os.ReadFile(f.Name())
	return string(b)
}

func (m *mirror) logTail(n int) string {
	log, _, _ := strings.Cut(m.log(), "SIGQUIT: quit") // goroutines are told apart
	lines := strings.Split(strings.TrimRight(log, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

// cli runs another command of the binary against the mirror's state directory.
func (m *mirror) cli(args ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(m.t), append(args, "--state", m.state)...)
	cmd.Dir = m.dir
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatalf("weir %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

func (m *mirror) mustCLI(args ...string) string {
	m.t.Helper()
	out, errOut, code := m.cli(args...)
	if code != 0 {
		m.t.Fatalf("weir %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errOut)
	}
	return out
}

// address is where the process serves REST, as it says in its state directory.
func (m *mirror) address() (string, error) {
	b, err := os.ReadFile(filepath.Join(m.state, "endpoints.json"))
	if err != nil {
		return "", err
	}
	var e struct {
		HTTP string `json:"http"`
		Addr string `json:"addr"`
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return "", err
	}
	if e.HTTP == "" {
		e.HTTP = e.Addr
	}
	if !strings.Contains(e.HTTP, "://") {
		e.HTTP = "http://" + e.HTTP
	}
	return e.HTTP, nil
}

// rest asks the process. Errors are for callers that wait for it to come up.
func (m *mirror) rest(method, path string) ([]byte, error) {
	base, err := m.address()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, b)
	}
	return b, err
}

func (m *mirror) view() (coordinator.PipelineView, error) {
	var v coordinator.PipelineView
	b, err := m.rest("GET", "/api/v1/pipelines/"+m.name)
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	return v, err
}

// eventually polls until ok, or fails with what was last seen.
func eventually(t testing.TB, limit time.Duration, what string, ok func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done, seen := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v; last: %s", what, limit, seen)
		}
		<-tick.C
	}
}

// waitLimit is generous: the machine may be busy with other things.
const waitLimit = 90 * time.Second

// caughtUp waits until the target durably holds everything that the source has committed now.
func (m *mirror) caughtUp() {
	m.t.Helper()
	m.caughtUpWithin(waitLimit)
	if m.undecodable {
		m.t.Fatalf("the source cannot decode its log\n%s", m.logTail(10))
	}
}

func (m *mirror) caughtUpWithin(limit time.Duration) {
	m.t.Helper()
	goal, err := pg.ParseLSN(m.src.one(m.t, "SELECT pg_current_wal_insert_lsn()"))
	if err != nil {
		m.t.Fatal(err)
	}
	// A new table is noticed by a look at the catalog; it joins behind the first look that begins after now.
	defer func() {
		if m.t.Failed() && m.running() {
			m.t.Logf("what weir was about:\n%s", m.goroutines())
		}
	}()
	missing := ""
	nudged := time.Now()
	eventually(m.t, limit, fmt.Sprintf("the mirror catches up with %s", goal), func() (bool, string) {
		if !m.running() {
			m.t.Fatalf("weir is not running\n%s", m.logTail(30))
		}
		v, err := m.view()
		if err != nil {
			return false, err.Error()
		}
		st := v.Status
		if st.Phase == api.PhaseFailed {
			m.t.Fatalf("the pipeline failed: %+v\n%s", *st.Error, m.logTail(30))
		}
		if st.Error != nil && strings.Contains(st.Error.Message, "could not map filenode") {
			m.undecodable = true
			return true, ""
		}
		if st.Phase == api.PhaseRetrying && time.Since(nudged) > 300*time.Millisecond {
			// What the test broke works again: no need to wait for the back-off.
			nudged = time.Now()
			_, _ = m.rest("POST", "/api/v1/pipelines/"+m.name+"/resume")
		}
		if st.Phase != api.PhaseLive {
			return false, describe(st)
		}
		for _, tab := range st.Tables {
			if tab.Phase != api.PhaseLive {
				return false, describe(st)
			}
		}
		at, err := pg.ParseLSN(st.DurablePosition)
		if err != nil || at < goal {
			return false, describe(st)
		}
		if missing = m.missingTables(st); missing != "" {
			return false, missing
		}
		return true, ""
	})
}

// missingTables names tables of the source that the mirror does not list.
func (m *mirror) missingTables(st api.PipelineStatus) string {
	listed := map[string]bool{}
	for _, tab := range st.Tables {
		listed[tab.Source] = true
	}
	for _, tab := range m.expected() {
		if !listed[tab] {
			return "table " + tab + " has not joined"
		}
	}
	return ""
}

// expected are the tables that the mirror should hold: every one when the glob is *.*, else those of its schemas.
func (m *mirror) expected() []string {
	var glob string
	for i, a := range m.args {
		if a == "--tables" {
			glob = m.args[i+1]
		}
	}
	var out []string
	for _, g := range strings.Split(glob, ",") {
		schema, rest, ok := strings.Cut(g, ".")
		if !ok || rest != "*" || m.src.srv.Version < 13 {
			continue
		}
		where := "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', '_weir')"
		if schema != "*" {
			where = "n.nspname = '" + strings.Trim(schema, `"`) + "'"
		}
		for _, row := range m.src.query(m.t, `SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE c.relkind IN ('r','p') AND c.relpersistence = 'p' AND NOT c.relispartition
			  AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AND `+where) {
			out = append(out, pg.DottedName(row[0], row[1]))
		}
	}
	return out
}

func describe(st api.PipelineStatus) string {
	s := fmt.Sprintf("phase %s position %s durable %s restarts %d", st.Phase, st.Position, st.DurablePosition, st.Restarts)
	if st.Error != nil {
		s += " error " + st.Error.Code + " " + st.Error.Message
	}
	for _, tab := range st.Tables {
		if tab.Phase != api.PhaseLive {
			s += fmt.Sprintf(" %s:%s", tab.Source, tab.Phase)
		}
	}
	return s
}

// failsWith waits until the pipeline has failed for good with the code.
func (m *mirror) failsWith(code string) *api.ErrorInfo {
	m.t.Helper()
	var found *api.ErrorInfo
	eventually(m.t, waitLimit, "the pipeline fails with "+code, func() (bool, string) {
		if !m.running() {
			// `weir mirror` ends with the pipeline's error.
			text := m.log()
			if at := strings.LastIndex(text, "=== start"); at >= 0 {
				text = text[at:]
			}
			if strings.Contains(text, code) {
				found = &api.ErrorInfo{Code: code, Message: text}
				return true, ""
			}
			m.t.Fatalf("weir ended without %s\n%s", code, m.logTail(20))
		}
		v, err := m.view()
		if err != nil {
			return false, err.Error()
		}
		if v.Status.Phase == api.PhaseFailed && v.Status.Error != nil {
			if v.Status.Error.Code != code {
				m.t.Fatalf("the pipeline failed with %+v, want %s", *v.Status.Error, code)
			}
			found = v.Status.Error
			return true, ""
		}
		return false, describe(v.Status)
	})
	return found
}

// slot is the name of the mirror's slot.
func (m *mirror) slot() string {
	m.t.Helper()
	rows := m.src.query(m.t, "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
	if len(rows) != 1 {
		m.t.Fatalf("%d slots in database %s, want one", len(rows), m.src.name)
	}
	return rows[0][0]
}

// server runs `weir server` on the mirror's state directory, for tests that need REST to outlive a pipeline's failure.
func (m *mirror) server() {
	m.t.Helper()
	m.run("server", "--state", m.state, "--http-addr", "127.0.0.1:0")
	eventually(m.t, waitLimit, "the server answers", func() (bool, string) {
		_, err := m.rest("GET", "/api/v1/status")
		return err == nil, fmt.Sprint(err)
	})
}
