package scratch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Options says which server is started, and where. Programs is required.
type Options struct {
	Programs *Programs
	// Dir holds the server and stays when it is closed; a later Start continues with its data. "": a directory among
	// those of all test processes of this user, deleted by Close.
	Dir string
	// Remove makes Close, and the guard, delete Dir as well.
	Remove bool
	// Prepared is where empty clusters are kept to be copied. "": none is kept.
	Prepared string
	Config   Config
}

// Start starts a server and waits until it accepts connections. It ends with Close or with this process.
func Start(ctx context.Context, o Options) (*Server, error) {
	s, err := newServer(ctx, o)
	if err != nil {
		return nil, err
	}
	return s.begin(ctx, func() error { return s.openCluster(ctx) })
}

// newServer takes a directory.
func newServer(ctx context.Context, o Options) (*Server, error) {
	p := o.Programs
	s := &Server{Version: p.Version, cfg: o.Config, programs: p, prepared: o.Prepared}
	if o.Dir == "" {
		dir, err := newRunDir(ctx, p.account)
		if err != nil {
			return nil, err
		}
		s.Dir, s.temporary, s.discard = dir.path, true, dir.remove
		return s, nil
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := makeOpen(dir); err != nil {
		return nil, fmt.Errorf("make the directory of Postgres %s: %w", p.Version, err)
	}
	// The guard and the sweep know a server by its working directory, which is a path without links.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	if !p.account.reaches(dir) {
		return nil, fmt.Errorf("directory %s cannot be entered by user %d, which runs the server; "+
			"hint: use a directory whose parents everybody may enter", dir, p.account.uid)
	}
	owner, err := tryLock(filepath.Join(dir, ownerFile))
	if err != nil {
		return nil, fmt.Errorf("take the server directory %s: %w", dir, err)
	}
	s.Dir, s.temporary = dir, o.Remove
	s.discard = func() error {
		defer owner.release()
		if o.Remove {
			return os.RemoveAll(dir)
		}
		return nil
	}
	return s, nil
}

// openCluster uses the data an earlier call left in the directory, or makes new data.
func (s *Server) openCluster(ctx context.Context) error {
	if err := s.programs.account.own(s.Dir); err != nil {
		return err
	}
	version, err := os.ReadFile(filepath.Join(s.dataDir(), "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return s.programs.newCluster(ctx, s.dataDir(), s.prepared)
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
	if s.port, err = ReservePort(s.cfg.Port); err != nil {
		return nil, err
	}
	s.Port = s.port.Number
	s.Name = "weir_" + strconv.Itoa(s.Port)
	if path := filepath.Join(s.Dir, ".s.PGSQL.00000"); len(path) > 107 && !s.cfg.TCPOnly {
		return nil, fmt.Errorf("the path of a Unix socket in %s is too long; hint: use a shorter directory", s.Dir)
	}
	// The guard comes before there is anything to delete.
	remove := ""
	if s.temporary {
		remove = s.Dir
	}
	s.guard, err = StartGuard(GuardOptions{Dir: s.dataDir(), PIDFile: filepath.Join(s.dataDir(), "postmaster.pid"), Remove: remove})
	if err != nil {
		return nil, err
	}
	if err := makeData(); err != nil {
		return nil, err
	}
	if err := s.configure(); err != nil {
		return nil, fmt.Errorf("configure Postgres %s: %w", s.Version, err)
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
	return errors.Join(os.Chmod(path, mode), s.programs.account.own(path))
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
	cmd := s.programs.account.command(s.Dir, filepath.Join(s.programs.Bin, "postgres"),
		"--single", "-D", s.dataDir(), "postgres")
	cmd.Stdin = strings.NewReader(sql)
	out, err := cmd.CombinedOutput()
	// The exit status does not tell that a statement failed.
	if err != nil || strings.Contains(string(out), "ERROR:") || strings.Contains(string(out), "FATAL:") {
		return fmt.Errorf("create roles: %w\n%s", err, out)
	}
	return s.writeFile(done, nil, 0o644)
}
