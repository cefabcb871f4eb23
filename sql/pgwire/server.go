// Package pgwire serves the views of running pipelines over the Postgres protocol, so that psql and every driver can read
// them, and takes what they write into internal tables.
//
// What a statement reads is of one epoch: a query pins the newest visible one, and a transaction block keeps the one that
// its first query pinned. A query is planned like any other and run over the pinned rows, in the session's goroutine.
package pgwire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/table"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// View is a materialized view that can be read.
type View struct {
	Name     string
	Pipeline string // the name of the pipeline that it belongs to
	Schema   row.Schema
	Key      []int // nil: rows may be equal
	// Keyed is the pipeline as it runs, nil if it does not, and Node the view's node there.
	Keyed *keyed.Pipeline
	Node  int
	// Table: it is an internal table, one of Tables, which are those of the pipeline as it runs; nil if it has none.
	Table  bool
	Tables *table.Sequencer
}

// Options configures a Server. The zero value of a field means its default.
type Options struct {
	Listen      string // host:port; default 127.0.0.1:7071, or the next free port
	AllowRemote bool   // addresses that others can reach may be listened at, although nobody is asked for a password
	Version     string // of weir
	// Views are those of every pipeline at the moment; called for every query, from many goroutines.
	Views func() []View
	// Change carries out a statement that makes or drops a table or a view, and returns when what was made can be read; the
	// notices are for the client. nil: nothing can be made here. Many goroutines call it.
	Change func(ctx context.Context, text string) (notices []string, err error)
	// Began is closed when the views of the pipelines that the node starts with are known: clients are admitted then. nil:
	// they are.
	Began <-chan struct{}
	// Await waits while the pipeline of a view, which could not be read, is started or changed, and tells whether to try
	// again.
	Await func(ctx context.Context, v View) bool
	// ResultBytes is how much of a result may be in memory where it has to be sorted or is fetched in parts; default 256 MiB.
	ResultBytes int64
	QueryBytes  int64 // how much a query may keep besides; default 1 GiB
	MaxClients  int   // default 500
	// OnQuery is told of every query that ended; nil: nobody is. Many goroutines call it.
	OnQuery func(took time.Duration, failed bool)
}

// Server accepts clients.
type Server struct {
	env      *env.Env
	opts     Options
	listener net.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	working  sync.WaitGroup

	mu struct {
		sync.Mutex
		sessions map[uint32]*session // by the number that cancel requests name
		last     uint32
		clients  int // that were admitted
		closed   bool
	}
}

// New returns a server that Start starts.
func New(e *env.Env, o Options) *Server {
	if o.ResultBytes == 0 {
		o.ResultBytes = 256 << 20
	}
	if o.QueryBytes == 0 {
		o.QueryBytes = 1 << 30
	}
	if o.MaxClients == 0 {
		o.MaxClients = 500
	}
	if o.Views == nil {
		o.Views = func() []View { return nil }
	}
	s := &Server{env: e, opts: o}
	s.mu.sessions = map[uint32]*session{}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Start listens and serves until Close. It returns the address.
func (s *Server) Start(ctx context.Context) (string, error) {
	if s.opts.Listen == "" {
		return s.startDefault(ctx)
	}
	host, _, err := net.SplitHostPort(s.opts.Listen)
	if err != nil {
		return "", errs.New(errs.BadFlag, "the address %q for Postgres clients is not host:port", s.opts.Listen)
	}
	if ip := net.ParseIP(host); !s.opts.AllowRemote && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", errs.New(errs.BadFlag, "the address %q for Postgres clients can be reached from other machines, and there is no password", s.opts.Listen).
			WithHint("listen at 127.0.0.1, or say that it is meant: --allow-remote-without-authentication")
	}
	if s.listener, err = s.env.Net.Listen(ctx, "tcp", s.opts.Listen); err != nil {
		return "", errs.New(errs.AddressBusy, "cannot listen at %s for Postgres clients: %w", s.opts.Listen, err).
			WithHint("name another address with --pg-addr, or none to take the next free one")
	}
	return s.listening(), nil
}

func (s *Server) listening() string {
	s.working.Add(1)
	s.env.Go("accept Postgres clients", s.accept)
	return s.listener.Addr().String()
}

// DefaultPort is where Postgres clients look first.
const DefaultPort = 7071

// startDefault takes the default port or the next free one. The ports around it, every three, belong to REST and to the
// nodes.
func (s *Server) startDefault(ctx context.Context) (string, error) {
	var err error
	for p := DefaultPort; p < DefaultPort+100; p += 3 {
		if s.listener, err = s.env.Net.Listen(ctx, "tcp", fmt.Sprint("127.0.0.1:", p)); err == nil {
			return s.listening(), nil
		}
	}
	return "", errs.New(errs.AddressBusy, "port %d and those after it are in use: %w", DefaultPort, err).WithHint("name a free one with --pg-addr")
}

func (s *Server) accept() {
	defer s.working.Done()
	for {
		c, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.env.Log.Warn("a Postgres client could not be accepted", "error", err)
			if s.env.Clock.Sleep(s.ctx, 100*time.Millisecond) != nil {
				return
			}
			continue
		}
		if x := s.open(c); x != nil {
			s.env.Go("Postgres client", func() {
				defer s.working.Done()
				defer s.close(x)
				x.serve()
			})
		}
	}
}

func (s *Server) open(c net.Conn) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		c.Close()
		return nil
	}
	s.mu.last++
	x := newSession(s, c, s.mu.last)
	secret := s.env.Rand.Stream("pgwire").Uint64()
	x.secret = binary.BigEndian.AppendUint32(nil, uint32(secret>>32))
	s.mu.sessions[x.id] = x
	s.working.Add(1)
	return x
}

func (s *Server) close(x *session) {
	x.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.sessions, x.id)
	if x.admitted {
		s.mu.clients--
	}
}

// admit tells whether there is room for a client that has said who it is.
func (s *Server) admit(x *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.clients == s.opts.MaxClients {
		return false
	}
	x.admitted = true
	s.mu.clients++
	return true
}

// interrupt ends what a session is working on, if the secret is its own.
func (s *Server) interrupt(id uint32, secret []byte) {
	s.mu.Lock()
	x := s.mu.sessions[id]
	s.mu.Unlock()
	if x != nil && string(x.secret) == string(secret) {
		x.interrupt()
	}
}

// Close ends every session and returns after the last of them.
func (s *Server) Close() error {
	s.cancel()
	s.mu.Lock()
	s.mu.closed = true
	for _, x := range s.mu.sessions {
		x.conn.Close()
	}
	s.mu.Unlock()
	var err error
	if s.listener != nil {
		err = s.listener.Close()
	}
	s.working.Wait()
	return err
}
