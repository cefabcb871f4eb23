package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// shared holds the servers that outlive a test. It is the one variable of the package: the testing package has no other
// place that all tests of a process and its TestMain can reach.
var shared sharedServers

type sharedServers struct {
	mu struct {
		sync.Mutex
		open    bool // Main is running
		servers map[string]*sharedServer
	}
}

// sharedServer is started by the first test that asks; others that ask meanwhile wait for it.
type sharedServer struct {
	start  sync.Once
	server *Server
	err    error
}

// Shared returns the server of this version and these options that all tests of the process share. Each test makes its
// own database in it. The package's TestMain must call Main, which ends the server.
func Shared(t testing.TB, v Version, opts ...Option) *Server {
	t.Helper()
	cfg := makeConfig(opts)
	entry, err := shared.entry(fmt.Sprintf("%s %+v", v, cfg))
	if err != nil {
		t.Fatal(err)
	}
	entry.start.Do(func() {
		// The context is not the test's: it ends with the first test, and the server does not.
		entry.server, entry.err = startTemporary(context.Background(), v, cfg)
		if entry.err == nil {
			entry.server.shared = true
		}
	})
	if entry.err != nil {
		t.Fatalf("start shared Postgres %s: %v", v, entry.err)
	}
	return entry.server
}

var errShared = errors.New("it is shared with other tests; hint: use testenv.Postgres for a server of your own")

// Stop ends the server and waits until it has ended.
func (s *Server) Stop(mode StopMode) error {
	if s.shared {
		return fmt.Errorf("stop Postgres %s: %w", s.Version, errShared)
	}
	return s.Server.Stop(mode)
}

// Restart stops and starts the server.
func (s *Server) Restart(mode StopMode) error {
	if s.shared {
		return fmt.Errorf("restart Postgres %s: %w", s.Version, errShared)
	}
	return s.Server.Restart(mode)
}

// Kill ends the postmaster and all its children with SIGKILL, as when the machine loses power: no goodbye to clients,
// no flush, no checkpoint.
func (s *Server) Kill() error {
	if s.shared {
		return fmt.Errorf("kill Postgres %s: %w", s.Version, errShared)
	}
	return s.Server.Kill()
}

func (s *sharedServers) entry(key string) (*sharedServer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.open {
		return nil, fmt.Errorf("nobody would end a shared server; " +
			"hint: add `func TestMain(m *testing.M) { testenv.Main(m) }` to the package")
	}
	if s.mu.servers[key] == nil {
		if s.mu.servers == nil {
			s.mu.servers = map[string]*sharedServer{}
		}
		s.mu.servers[key] = &sharedServer{}
	}
	return s.mu.servers[key], nil
}

func (s *sharedServers) setOpen(open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.open = open
}

// close ends all shared servers; no test runs any more.
func (s *sharedServers) close() (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ok = true
	for _, entry := range s.mu.servers {
		if entry.server == nil {
			continue
		}
		if err := entry.server.Close(); err != nil {
			fmt.Fprintf(os.Stderr, "end shared Postgres %s: %v\n", entry.server.Version, err)
			ok = false
		}
	}
	s.mu.servers = nil
	return ok
}

// A MainOption adds a check to Main.
type MainOption func(*mainChecks)

type mainChecks struct {
	leaks  bool
	ignore []goleak.Option
}

// CheckLeaks makes the package fail if goroutines are left after its last test.
func CheckLeaks(ignore ...goleak.Option) MainOption {
	return func(c *mainChecks) { c.leaks, c.ignore = true, ignore }
}

// Main is the body of a TestMain: it runs the tests, ends the shared servers and exits.
func Main(m *testing.M, opts ...MainOption) {
	var checks mainChecks
	for _, opt := range opts {
		opt(&checks)
	}
	shared.setOpen(true)
	code := m.Run()
	shared.setOpen(false)
	if !shared.close() && code == 0 {
		code = 1
	}
	if checks.leaks && code == 0 {
		if err := goleak.Find(checks.ignore...); err != nil {
			fmt.Fprintf(os.Stderr, "goroutines left after the last test: %v\n", err)
			code = 1
		}
	}
	os.Exit(code)
}
