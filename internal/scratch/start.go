package scratch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fetchLimit bounds the time to get programs that are not on the machine yet.
const fetchLimit = 8 * time.Minute

// Postgres starts a server that lives as long as the test.
func Postgres(t testing.TB, v Version, opts ...Option) *Server {
	t.Helper()
	s, err := startTemporary(t.Context(), v, makeConfig(opts))
	if err != nil {
		t.Fatalf("start Postgres %s: %v", v, err)
	}
	t.Cleanup(func() { s.cleanup(t) })
	return s
}

// cleanup ends the server of a test and shows its log if the test failed.
func (s *Server) cleanup(t testing.TB) {
	if t.Failed() {
		t.Logf("last lines of the log of Postgres %s on port %d:\n%s", s.Version, s.Port, s.LogTail(30))
	}
	if err := s.Close(); err != nil {
		t.Errorf("end Postgres %s on port %d: %v", s.Version, s.Port, err)
	}
}

// startTemporary starts a server in a directory that is deleted by Close.
func startTemporary(ctx context.Context, v Version, cfg Config) (*Server, error) {
	s, err := newTemporary(ctx, v, cfg)
	if err != nil {
		return nil, err
	}
	return s.begin(ctx, func() error { return s.install.newCluster(ctx, s.dataDir()) })
}

func newTemporary(ctx context.Context, v Version, cfg Config) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	in, err := findInstall(ctx, v)
	if err != nil {
		return nil, err
	}
	dir, err := newRunDir(ctx, in.account)
	if err != nil {
		return nil, err
	}
	return &Server{Version: v, Dir: dir.path, cfg: cfg, install: in, temporary: true, discard: dir.remove}, nil
}

// StartPostgres starts a server for a program that is not a test. Its data stays in dir: a later call with the same dir
// continues with it. The server ends with Close or with this process.
func StartPostgres(ctx context.Context, v Version, dir string, cfg Config) (*Server, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	fetching, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	in, err := findInstall(fetching, v)
	if err != nil {
		return nil, err
	}
	if err := makeOpen(dir); err != nil {
		return nil, fmt.Errorf("make the directory of Postgres %s: %w", v, err)
	}
	if !in.account.reaches(dir) {
		return nil, fmt.Errorf("directory %s cannot be entered by user %d, which runs the server; "+
			"hint: use a directory whose parents everybody may enter", dir, in.account.uid)
	}
	owner, err := tryLock(filepath.Join(dir, ownerFile))
	if err != nil {
		return nil, fmt.Errorf("take the server directory %s: %w", dir, err)
	}
	s := &Server{Version: v, Dir: dir, cfg: cfg, install: in}
	s.discard = func() error { owner.release(); return nil }
	return s.begin(ctx, func() error { return s.openCluster(ctx) })
}

// openCluster uses the data an earlier call left in the directory, or makes new data.
func (s *Server) openCluster(ctx context.Context) error {
	if err := s.install.account.own(s.Dir); err != nil {
		return err
	}
	version, err := os.ReadFile(filepath.Join(s.dataDir(), "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return s.install.newCluster(ctx, s.dataDir())
	}
	if err != nil {
		return err
	}
	if found := strings.TrimSpace(string(version)); found != s.Version.String() {
		return fmt.Errorf("%s holds data of Postgres %s; hint: remove it or start that version", s.dataDir(), found)
	}
	return endStray(ctx, s.dataDir())
}

// begin brings a server to life for the first time: data, configuration, guard, start. On failure it leaves nothing.
func (s *Server) begin(ctx context.Context, makeData func() error) (_ *Server, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.port, err = reservePort(s.cfg.Port); err != nil {
		return nil, err
	}
	s.Port = s.port.number
	s.Name = "weir_" + strconv.Itoa(s.Port)
	if path := filepath.Join(s.Dir, ".s.PGSQL.00000"); len(path) > 107 && !s.cfg.TCPOnly {
		return nil, fmt.Errorf("the path of a Unix socket in %s is too long; hint: use a shorter directory", s.Dir)
	}
	if err := makeData(); err != nil {
		return nil, err
	}
	if err := s.configure(); err != nil {
		return nil, fmt.Errorf("configure Postgres %s: %w", s.Version, err)
	}
	remove := ""
	if s.temporary {
		remove = s.Dir
	}
	if s.guard, err = startGuard(s.dataDir(), remove); err != nil {
		return nil, err
	}
	return s, s.start(ctx)
}

func (s *Server) dataDir() string { return filepath.Join(s.Dir, "data") }
func (s *Server) logFile() string { return filepath.Join(s.Dir, "log") }

// configure writes what differs between servers of one version into the data directory.
func (s *Server) configure() error {
	if s.cfg.TLS {
		if err := s.writeCertificates(); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{settingsFile: s.cfg.settings(s), "pg_hba.conf": s.cfg.hba()} {
		if err := s.writeFile(filepath.Join(s.dataDir(), name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return s.createRoles()
}

func (s *Server) writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.WriteFile(path, data, mode); err != nil {
		return err
	}
	return errors.Join(os.Chmod(path, mode), s.install.account.own(path))
}

// createRoles runs in single-user mode, so that it needs neither a listening server nor a hole in pg_hba.conf. It runs
// once per data directory.
func (s *Server) createRoles() error {
	sql, err := s.cfg.roles()
	if err != nil || sql == "" || s.standby {
		return err
	}
	done := filepath.Join(s.Dir, "roles")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	cmd := s.install.account.command(s.Dir, filepath.Join(s.install.bin, "postgres"),
		"--single", "-D", s.dataDir(), "postgres")
	cmd.Stdin = strings.NewReader(sql)
	out, err := cmd.CombinedOutput()
	// The exit status does not tell that a statement failed.
	if err != nil || strings.Contains(string(out), "ERROR:") || strings.Contains(string(out), "FATAL:") {
		return fmt.Errorf("create roles: %w\n%s", err, out)
	}
	return s.writeFile(done, nil, 0o644)
}
