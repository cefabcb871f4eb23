package testenv

import (
	"context"
	"testing"

	"github.com/weirstream/weir/internal/scratch"
)

// A Server is a Postgres server of this process. Its address stays the same over Stop, Kill and Start.
type Server struct {
	*scratch.Server
	shared bool
}

// StopMode is how a server ends its work; the words are those of pg_ctl.
type StopMode = scratch.StopMode

// The modes: wait until all clients have left; disconnect them and write a checkpoint; end as in a crash.
const (
	Smart     = scratch.Smart
	Fast      = scratch.Fast
	Immediate = scratch.Immediate
)

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
	return StartPostgres(ctx, v, "", cfg)
}

// StartPostgres starts a server for a program that is not a test. Its data stays in dir: a later call with the same dir
// continues with it. The server ends with Close or with this process.
func StartPostgres(ctx context.Context, v Version, dir string, cfg Config) (*Server, error) {
	programs, cache, err := findPrograms(ctx, v)
	if err != nil {
		return nil, err
	}
	s, err := scratch.Start(ctx, scratch.Options{Programs: programs, Dir: dir, Prepared: cache, Config: cfg})
	if err != nil {
		return nil, err
	}
	return &Server{Server: s}, nil
}
