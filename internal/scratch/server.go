package scratch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// startLimit bounds a start including crash recovery, and a stop; both normally take tens of milliseconds.
const startLimit = 60 * time.Second

// A Server is a Postgres server of this process. Its address stays the same over Stop, Kill and Start.
type Server struct {
	Version Version
	Port    int
	Dir     string // holds the data directory, the log, the socket and certificates
	CAFile  string // certificate to verify the server with; empty without TLS
	Name    string // unique; a standby reports it to its primary as application_name

	cfg       Config
	programs  *Programs
	prepared  string
	port      *Port
	guard     *Guard
	temporary bool // Dir is deleted by Close
	standby   bool
	discard   func() error // deletes Dir or just lets go of it

	mu struct {
		sync.Mutex
		process *process // nil before the first start and after a stop
	}
}

// StopMode is how a server ends its work; the words are those of pg_ctl.
type StopMode syscall.Signal

const (
	Smart     = StopMode(syscall.SIGTERM) // waits until all clients have left
	Fast      = StopMode(syscall.SIGINT)  // disconnects clients and writes a checkpoint
	Immediate = StopMode(syscall.SIGQUIT) // as a crash: the next start recovers from WAL
)

// Start starts a server that was stopped or killed and waits until it accepts connections.
func (s *Server) Start() error { return s.start(context.Background()) }

// PID is the process id of the postmaster, 0 when it is not running.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.running(); p != nil {
		return p.pid()
	}
	return 0
}

// Exact is the full version, such as 15.18.
func (s *Server) Exact() string { return s.programs.Exact }

// Config is what the server was started with.
func (s *Server) Config() Config { return s.cfg.clone() }

func (s *Server) start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running() != nil {
		return fmt.Errorf("start Postgres %s on port %d: it is running", s.Version, s.Port)
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.programs.account.command(s.Dir, filepath.Join(s.programs.Bin, "postgres"), "-D", s.dataDir())
	cmd.Stdout, cmd.Stderr = log, log
	p, err := startProcess(cmd)
	if err != nil {
		return fmt.Errorf("start Postgres %s: %w", s.Version, err)
	}
	s.mu.process = p
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := s.waitReady(ctx, p); err != nil {
		return fmt.Errorf("start Postgres %s on port %d: %w; its log ends with\n%s",
			s.Version, s.Port, err, s.LogTail(10))
	}
	return nil
}

// waitReady reads the status a postmaster writes into its file, as pg_ctl does; asking by connecting would fill the log
// with refused connections. After a crash the file of the dead server is still there, so its process id must match.
func (s *Server) waitReady(ctx context.Context, p *process) error {
	return Poll(ctx, 2*time.Millisecond, func() (bool, error) {
		select {
		case <-p.done:
			return false, fmt.Errorf("it ended: %w", p.err)
		default:
		}
		f, err := readPostmasterFile(s.dataDir())
		if err != nil || f.pid != p.pid() {
			return false, nil
		}
		return f.status == "ready" || f.status == "standby" && s.cfg.Settings["hot_standby"] == "off", nil
	})
}

// running is the process if it is alive; the caller holds the lock.
func (s *Server) running() *process {
	if s.mu.process == nil {
		return nil
	}
	select {
	case <-s.mu.process.done:
		return nil
	default:
		return s.mu.process
	}
}

// Running reports whether the server is up.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running() != nil
}

// Stop ends the server and waits until it has ended.
func (s *Server) Stop(mode StopMode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.running()
	if p == nil {
		return fmt.Errorf("stop Postgres %s on port %d: it is not running", s.Version, s.Port)
	}
	if err := syscall.Kill(p.pid(), syscall.Signal(mode)); err != nil {
		return fmt.Errorf("stop Postgres %s on port %d: %w", s.Version, s.Port, err)
	}
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case <-p.done:
		return nil
	case <-limit.C:
		return fmt.Errorf("stop Postgres %s on port %d: still running after %s; its log ends with\n%s",
			s.Version, s.Port, startLimit, s.LogTail(10))
	}
}

// Restart stops and starts the server.
func (s *Server) Restart(mode StopMode) error {
	if err := s.Stop(mode); err != nil {
		return err
	}
	return s.Start()
}

// Kill ends the postmaster and all its children with SIGKILL, as when the machine loses power: no goodbye to clients,
// no flush, no checkpoint.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.running()
	if p == nil {
		return fmt.Errorf("kill Postgres %s on port %d: it is not running", s.Version, s.Port)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if err := killTree(ctx, p.pid()); err != nil {
		return fmt.Errorf("kill Postgres %s on port %d: %w", s.Version, s.Port, err)
	}
	<-p.done
	return nil
}

// Close ends the server for good. Its directory stays if Options named one and not Remove.
func (s *Server) Close() error {
	var errs []error
	if s.Running() {
		mode := Fast
		if s.temporary {
			mode = Immediate // nobody will ask for the data again
		}
		if err := s.Stop(mode); err != nil {
			errs = append(errs, err, s.Kill())
		}
	}
	if f, err := readPostmasterFile(s.dataDir()); err == nil {
		freeSharedMemory(f.shmID) // it was killed and not started again
	}
	if s.guard != nil {
		errs = append(errs, s.guard.Dismiss())
		s.guard = nil
	}
	if s.discard != nil {
		errs = append(errs, s.discard())
		s.discard = nil
	}
	if s.port != nil {
		s.port.Release()
		s.port = nil
	}
	return errors.Join(errs...)
}

// LogTail returns the last n lines of the server's log.
func (s *Server) LogTail(n int) string {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return lastLines(text, n)
}
