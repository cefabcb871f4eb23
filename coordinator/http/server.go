// Package rest is the control plane over HTTP: everything the command line and the console do, they do through these
// paths, and docs/openapi.yaml describes every one of them.
//
// Without authentication it is served on loopback only, and there a page in a browser cannot reach it: requests whose
// Host or Origin is not this machine are refused, also when a name resolves to it (DNS rebinding).
package rest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// Options configures a Server.
type Options struct {
	Coordinator *coordinator.Coordinator // required
	Version     Version
	PID         int    // for endpoints.json
	Command     string // for endpoints.json

	// Doctor checks the mirror of a request; its Mirror is never nil. Plan says what a mirror would do. Both required.
	Doctor func(ctx context.Context, r DoctorRequest) ([]api.Check, error)
	Plan   func(ctx context.Context, r PlanRequest) (api.Plan, error)

	// Tail follows a view, of any pipeline if that is "", until ctx ends; StateEntries is what a node or view of a pipeline
	// has in its state for a key. nil: this node has none.
	Tail         func(ctx context.Context, pipeline, view string, out func(api.TailLine) error) error
	StateEntries func(ctx context.Context, pipeline, node, key string) ([]api.StateEntries, error)

	Metrics http.Handler // serves /metrics; nil: none
	Console http.Handler // serves every other path; nil: none

	// Address is host:port. Empty is the default, which gives way to the next free port when it is taken.
	Address string
	// AllowRemote: the operator has said in words that an address beyond loopback may be served without authentication.
	AllowRemote bool
}

// DefaultAddress is where a server listens and a client looks.
const DefaultAddress = "127.0.0.1:7070"

// Server serves the interface.
type Server struct {
	env      *env.Env
	opts     Options
	handler  http.Handler
	http     *http.Server
	listener net.Listener
	local    bool // only loopback is served

	ctx  context.Context // ends when Close begins; for requests that wait
	stop context.CancelFunc
}

// New makes a server that does not listen yet.
func New(e *env.Env, opts Options) *Server {
	s := &Server{env: e.With("part", "http"), opts: opts, local: true}
	s.ctx, s.stop = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	methods := map[string][]string{}
	for _, rt := range routes() {
		mux.HandleFunc(rt.method+" "+Prefix+rt.path, s.serve(rt))
		methods[rt.path] = append(methods[rt.path], rt.method)
	}
	for path, allowed := range methods {
		slices.Sort(allowed)
		mux.HandleFunc(Prefix+path, s.wrongMethod(strings.Join(allowed, ", ")))
	}
	mux.HandleFunc("GET "+Prefix+"/openapi.yaml", s.openAPI)
	mux.HandleFunc("/api/", s.unknownPath)
	mux.HandleFunc("GET /livez", s.live)
	mux.HandleFunc("GET /readyz", s.ready)
	if opts.Metrics != nil {
		mux.Handle("GET /metrics", opts.Metrics)
	}
	if opts.Console != nil {
		mux.Handle("/", opts.Console)
	}
	s.handler = s.guard(mux)
	return s
}

// Handler serves the interface without a listener, guarded as on loopback.
func (s *Server) Handler() http.Handler { return s.handler }

func (s *Server) wrongMethod(allowed string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allowed)
		s.problem(w, httpError{http.StatusMethodNotAllowed, errs.New(errs.BadFlag, "%s does not understand %s", r.URL.Path, r.Method).
			WithHint("it understands %s", allowed)})
	}
}

func (s *Server) unknownPath(w http.ResponseWriter, r *http.Request) {
	s.problem(w, httpError{http.StatusNotFound, errs.New(errs.BadFlag, "there is nothing at %s", r.URL.Path).
		WithHint("GET %s/openapi.yaml lists what there is", Prefix)})
}

// guard refuses requests that a browser was tricked into, and those that are meant for another weir. The check is on every path: also a GET can tell secrets, and
// a console on the same port is exposed to the same pages.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if s.local && !isLoopbackHost(r.Host) {
			s.problem(w, httpError{http.StatusForbidden, errs.New(errs.BadFlag, "this server does not answer for host %q", r.Host).
				WithHint("it is served on loopback: use 127.0.0.1 or localhost")})
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" {
			u, err := url.Parse(origin)
			if err != nil || u.Host == "" || u.Host != r.Host {
				s.problem(w, httpError{http.StatusForbidden, errs.New(errs.BadFlag, "a page from %q may not use this server", origin)})
				return
			}
		}
		if r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Origin") == "" && r.Method != http.MethodGet {
			s.problem(w, httpError{http.StatusForbidden, errs.New(errs.BadFlag, "a page from elsewhere may not use this server")})
			return
		}
		if state := s.opts.Coordinator.State(); r.Header.Get(InstanceHeader) != "" && r.Header.Get(InstanceHeader) != state.Instance() {
			s.problem(w, httpError{http.StatusMisdirectedRequest, errs.New(errs.NotReachable, "this weir owns another state directory than the one that its address was found in").
				WithDetail("it owns %s", state.Dir())})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLoopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// Listen opens the port, writes it to endpoints.json and serves in the background until Close. It returns the address.
func (s *Server) Listen(ctx context.Context) (string, error) {
	l, err := s.listen(ctx)
	if err != nil {
		return "", err
	}
	addr := l.Addr().String()
	s.local = isLoopbackHost(addr)
	s.listener = l
	err = s.opts.Coordinator.State().SetEndpoints(func(ep *coordinator.Endpoints) {
		ep.PID, ep.Command, ep.HTTP = s.opts.PID, s.opts.Command, addr
	})
	if err != nil {
		return "", errors.Join(err, l.Close())
	}
	s.http = &http.Server{
		Handler: s.handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
	s.env.Go("http", func() {
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.env.Log.Error("http server ended", "error", err)
		}
	})
	return addr, nil
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	if s.opts.Address != "" {
		host, _, err := net.SplitHostPort(s.opts.Address)
		if err != nil {
			return nil, errs.New(errs.BadFlag, "%q is not host:port", s.opts.Address)
		}
		if !isLoopbackHost(host) && !s.opts.AllowRemote {
			return nil, errs.New(errs.BadFlag, "%s is not a loopback address, and there is no authentication yet", s.opts.Address).
				WithHint("listen on 127.0.0.1 and let a proxy with authentication forward to it")
		}
		l, err := s.env.Net.Listen(ctx, "tcp", s.opts.Address)
		switch {
		case isBusy(err):
			return nil, errs.New(errs.AddressBusy, "address %s is in use", s.opts.Address).
				WithHint("stop what uses it, name another one, or name none to take the next free one").Because(err)
		case err != nil:
			return nil, errs.New(errs.BadFlag, "listen on %s: %v", s.opts.Address, err)
		}
		return l, nil
	}
	var busy error
	for _, addr := range defaultAddresses() {
		l, err := s.env.Net.Listen(ctx, "tcp", addr)
		if err == nil {
			return l, nil
		}
		if !isBusy(err) {
			return nil, errs.New(errs.BadFlag, "listen on %s: %v", addr, err)
		}
		busy = err
	}
	return nil, errs.New(errs.AddressBusy, "address %s and those after it are in use", DefaultAddress).
		WithHint("name a free one with --http-addr").Because(busy)
}

// defaultAddresses are the default and those to move on to. The two ports behind the default belong to the Postgres
// protocol and to the nodes.
func defaultAddresses() []string {
	host, port, _ := net.SplitHostPort(DefaultAddress)
	first, _ := strconv.Atoi(port)
	out := []string{DefaultAddress}
	for p := first + 3; p < first+100; p++ {
		out = append(out, net.JoinHostPort(host, strconv.Itoa(p)))
	}
	return out
}

func isBusy(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// Close lets requests under way finish until ctx ends, then cuts them off. Those that only wait are answered at once: a
// delete that cannot reach a database would use up the time in which pipelines make their final cut.
func (s *Server) Close(ctx context.Context) error {
	s.stop()
	if s.http == nil {
		return nil
	}
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	s.env.Wait()
	return err
}
