package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/docs"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
)

// bodyLimit bounds a request. The largest is a definition, which has to fit an entry of the catalog.
const bodyLimit = 1 << 20

// reply is what a handler answers with.
type reply struct {
	status int
	body   any // nil: no body
	// stream writes the body line by line, each a JSON value, until it returns; nil: there is no such body.
	stream func(line func(any) error) error
}

func ok(body any) (reply, error) { return reply{status: http.StatusOK, body: body}, nil }

// route is one operation. docs/openapi.yaml has the same list, and a test compares them.
type route struct {
	method, path string
	handle       func(s *Server, r *http.Request) (reply, error)
}

// Prefix precedes every path of the interface.
const Prefix = "/api/v1"

func routes() []route {
	return []route{
		{"GET", "/pipelines", (*Server).listPipelines},
		{"POST", "/pipelines", (*Server).createPipeline},
		{"POST", "/queries", (*Server).createQuery},
		{"GET", "/pipelines/{name}", (*Server).getPipeline},
		{"PATCH", "/pipelines/{name}", (*Server).updatePipeline},
		{"DELETE", "/pipelines/{name}", (*Server).deletePipeline},
		{"POST", "/pipelines/{name}/pause", (*Server).pausePipeline},
		{"POST", "/pipelines/{name}/resume", (*Server).resumePipeline},
		{"POST", "/pipelines/{name}/commands", (*Server).commandPipeline},
		{"GET", "/pipelines/{name}/state/{node}", (*Server).stateEntries},
		{"GET", "/views/{name}/tail", (*Server).tailView},
		{"GET", "/sources", (*Server).listSources},
		{"GET", "/sources/{name}", (*Server).getSource},
		{"POST", "/sources/{name}/refresh", (*Server).refreshSource},
		{"POST", "/doctor", (*Server).doctor},
		{"POST", "/plan", (*Server).plan},
		{"GET", "/version", (*Server).version},
		{"GET", "/status", (*Server).status},
	}
}

func (s *Server) listPipelines(*http.Request) (reply, error) {
	return ok(PipelineList{Pipelines: s.opts.Coordinator.Pipelines()})
}

func (s *Server) createPipeline(r *http.Request) (reply, error) {
	var m api.MirrorSpec
	if err := decode(r, &m); err != nil {
		return reply{}, err
	}
	p, err := s.opts.Coordinator.CreateMirror(r.Context(), m)
	if err != nil {
		return reply{}, err
	}
	v, err := s.opts.Coordinator.Pipeline(p.ID)
	return reply{status: http.StatusCreated, body: v}, err
}

func (s *Server) createQuery(r *http.Request) (reply, error) {
	var q api.QuerySpec
	if err := decode(r, &q); err != nil {
		return reply{}, err
	}
	p, err := s.opts.Coordinator.CreateQuery(r.Context(), q)
	if err != nil {
		return reply{}, err
	}
	v, err := s.opts.Coordinator.Pipeline(p.ID)
	return reply{status: http.StatusCreated, body: v}, err
}

func (s *Server) getPipeline(r *http.Request) (reply, error) {
	v, err := s.opts.Coordinator.Pipeline(r.PathValue("name"))
	return reply{status: http.StatusOK, body: v}, err
}

func (s *Server) updatePipeline(r *http.Request) (reply, error) {
	var change coordinator.Change
	if err := decode(r, &change); err != nil {
		return reply{}, err
	}
	p, err := s.opts.Coordinator.Update(r.Context(), r.PathValue("name"), change)
	return s.viewed(p, err)
}

// viewed answers with the pipeline as it is after a change.
func (s *Server) viewed(p api.Pipeline, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	v, err := s.opts.Coordinator.Pipeline(p.ID)
	return reply{status: http.StatusOK, body: v}, err
}

func (s *Server) deletePipeline(r *http.Request) (reply, error) {
	force, err := boolParam(r, "force")
	if err != nil {
		return reply{}, err
	}
	wait, err := boolParam(r, "wait")
	if err != nil {
		return reply{}, err
	}
	c := s.opts.Coordinator
	v, err := c.Pipeline(r.PathValue("name"))
	if err != nil {
		return reply{}, err
	}
	if err := c.Delete(r.Context(), v.ID, force); err != nil {
		return reply{}, err
	}
	if !wait {
		return reply{status: http.StatusAccepted}, nil
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	err = c.WaitGone(ctx, v.ID)
	if e, ok := errs.As(err); ok && s.ctx.Err() != nil {
		return reply{}, e.WithHint("the server stops; the delete goes on when it is started again").Because(nil)
	}
	return reply{status: http.StatusNoContent}, err
}

func boolParam(r *http.Request, name string) (bool, error) {
	switch v := r.URL.Query().Get(name); v {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, errs.New(errs.BadFlag, "%s is true or false, not %q", name, v)
	}
}

func (s *Server) pausePipeline(r *http.Request) (reply, error) {
	return s.viewed(s.opts.Coordinator.Pause(r.Context(), r.PathValue("name")))
}

func (s *Server) resumePipeline(r *http.Request) (reply, error) {
	return s.viewed(s.opts.Coordinator.Resume(r.Context(), r.PathValue("name")))
}

func (s *Server) commandPipeline(r *http.Request) (reply, error) {
	var cmd api.Command
	if err := decode(r, &cmd); err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusAccepted}, s.opts.Coordinator.Command(r.Context(), r.PathValue("name"), cmd)
}

func (s *Server) tailView(r *http.Request) (reply, error) {
	if s.opts.Tail == nil {
		return reply{}, errs.New(errs.NotBuiltYet, "this node has no views")
	}
	ctx, cancel := context.WithCancel(r.Context())
	lines := make(chan api.TailLine)
	done := make(chan error, 1)
	s.env.Go("tail a view", func() {
		done <- s.opts.Tail(ctx, r.URL.Query().Get("pipeline"), r.PathValue("name"), func(l api.TailLine) error {
			select {
			case lines <- l:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	var first api.TailLine
	select {
	case first = <-lines:
	case err := <-done:
		cancel()
		return reply{}, err
	}
	stop := context.AfterFunc(s.ctx, cancel)
	return reply{status: http.StatusOK, stream: func(line func(any) error) error {
		defer stop()
		defer cancel()
		for err := line(first); ; {
			if err != nil {
				cancel()
				<-done
				return err
			}
			select {
			case l := <-lines:
				err = line(l)
			case err := <-done:
				if r.Context().Err() != nil {
					return err
				}
				if s.ctx.Err() != nil {
					err = errs.New(errs.PipelineState, "the server stops")
				}
				e := errs.From(err, errs.EngineInternal)
				return line(api.TailLine{Error: &api.ErrorInfo{Code: string(e.Code), Message: e.Message, Detail: e.Detail, Hint: e.Hint, At: s.env.Clock.Now()}})
			}
		}
	}}, nil
}

func (s *Server) stateEntries(r *http.Request) (reply, error) {
	if s.opts.StateEntries == nil {
		return reply{}, errs.New(errs.NotBuiltYet, "this node has no state")
	}
	list, err := s.opts.StateEntries(r.Context(), r.PathValue("name"), r.PathValue("node"), r.URL.Query().Get("key"))
	return reply{status: http.StatusOK, body: StateList{States: list}}, err
}

func (s *Server) listSources(r *http.Request) (reply, error) {
	return ok(SourceList{Sources: s.opts.Coordinator.Sources(r.Context())})
}

func (s *Server) getSource(r *http.Request) (reply, error) {
	st, err := s.opts.Coordinator.Source(r.Context(), r.PathValue("name"))
	return reply{status: http.StatusOK, body: st}, err
}

func (s *Server) refreshSource(r *http.Request) (reply, error) {
	var req RefreshRequest
	if err := decode(r, &req); err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusAccepted}, s.opts.Coordinator.RefreshSource(r.Context(), r.PathValue("name"), req.Tables)
}

func (s *Server) doctor(r *http.Request) (reply, error) {
	var req DoctorRequest
	if err := decode(r, &req); err != nil {
		return reply{}, err
	}
	switch {
	case req.Pipeline != "" && req.Mirror != nil, req.Pipeline == "" && req.Mirror == nil:
		return reply{}, errs.New(errs.BadFlag, "name a pipeline or describe a mirror, one of them")
	case req.Pipeline != "":
		v, err := s.opts.Coordinator.Pipeline(req.Pipeline)
		if err != nil {
			return reply{}, err
		}
		if v.Query != nil {
			return reply{}, errs.New(errs.PipelineState, "pipeline %q is no mirror: there are no databases to look at", v.Name)
		}
		req.Mirror = &v.Mirror
	}
	checks, err := s.opts.Doctor(r.Context(), req)
	return reply{status: http.StatusOK, body: DoctorReport{Checks: list(checks)}}, err
}

func (s *Server) plan(r *http.Request) (reply, error) {
	var req PlanRequest
	if err := decode(r, &req); err != nil {
		return reply{}, err
	}
	p, err := s.opts.Plan(r.Context(), req)
	p.Tables, p.DDL, p.AfterCopy, p.Checks = list(p.Tables), list(p.DDL), list(p.AfterCopy), list(p.Checks)
	return reply{status: http.StatusOK, body: p}, err
}

// list keeps an empty list from being written as null, which the description does not allow.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

func (s *Server) version(*http.Request) (reply, error) { return ok(s.opts.Version) }

func (s *Server) status(*http.Request) (reply, error) {
	c := s.opts.Coordinator
	st := Status{
		Version: s.opts.Version, Installation: c.State().Installation(), Ready: true, Raft: c.Raft(),
		Pipelines: map[api.Phase]int{},
	}
	if err := c.Ready(); err != nil {
		st.Ready, st.Reason = false, err.Error()
	}
	for _, v := range c.Pipelines() {
		st.Pipelines[v.Status.Phase]++
	}
	return ok(st)
}

// httpError is an error whose status does not follow from its code.
type httpError struct {
	status int
	record *errs.Error
}

func (e httpError) Error() string { return e.record.Error() }
func (e httpError) Unwrap() error { return e.record }

// decode reads a request strictly: a field nobody reads is a mistyped one.
func decode(r *http.Request, into any) error {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return httpError{http.StatusUnsupportedMediaType, errs.New(errs.BadFlag, "the request is not application/json")}
	}
	b, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return httpError{http.StatusRequestEntityTooLarge, errs.New(errs.BadFlag, "the request is above the limit of %d bytes", tooLarge.Limit)}
	}
	if err != nil {
		return errs.New(errs.BadFlag, "read the request: %v", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errs.New(errs.BadFlag, "the request is not the JSON that is wanted here: %v", err).
			WithHint("GET %s/openapi.yaml describes it", Prefix)
	}
	if _, err := d.Token(); err != io.EOF {
		return errs.New(errs.BadFlag, "something follows the JSON of the request")
	}
	return nil
}

// serve runs a handler and writes its answer.
func (s *Server) serve(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, bodyLimit)
		got, err := rt.handle(s, r)
		if err != nil {
			s.problem(w, err)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		if got.stream != nil {
			s.lines(w, got)
			return
		}
		if got.body == nil {
			w.WriteHeader(got.status)
			return
		}
		s.write(w, got.status, "application/json", got.body)
	}
}

// lines writes a body of lines as they come. Each is flushed: who reads waits for it.
func (s *Server) lines(w http.ResponseWriter, got reply) {
	c := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(got.status)
	out := json.NewEncoder(w)
	_ = got.stream(func(v any) error { // it ends when the client leaves, or has said why
		if err := out.Encode(v); err != nil {
			return err
		}
		if line, ok := v.(api.TailLine); ok && line.Row != nil {
			return nil // the rest of the epoch follows
		}
		return c.Flush()
	})
}

func (s *Server) write(w http.ResponseWriter, status int, mediaType string, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		s.env.Log.Error("encode an answer", "error", err)
		http.Error(w, "encoding failed", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the client may have left
}

// problem writes an error.
func (s *Server) problem(w http.ResponseWriter, err error) {
	e := errs.From(err, errs.EngineInternal)
	status := statusOf(e.Code)
	var he httpError
	if errors.As(err, &he) {
		status = he.status
	}
	if errors.Is(err, context.Canceled) {
		status = 499 // nobody reads it; a log or a proxy may
	}
	p := Problem{
		Type: "urn:weir:error:" + string(e.Code), Title: e.Message, Status: status, Code: string(e.Code),
		Detail: e.Detail, Hint: e.Hint, Fix: e.Fix, Position: e.Pos,
	}
	if p.Detail == "" && e.Cause != nil && e.Cause.Error() != e.Message {
		p.Detail = e.Cause.Error()
	}
	if status >= 500 {
		s.env.Log.Warn("request failed", "error", err)
	}
	s.write(w, status, "application/problem+json", p)
}

// statusOf maps an error's code. What the user wrote is 400, what the state does not allow 409, what weir depends on
// and does not get 502 or 503, and what no rule covers weir's own fault.
func statusOf(c errs.Code) int {
	switch c {
	case errs.PipelineNotFound:
		return http.StatusNotFound
	case errs.PipelineExists, errs.PipelineState, errs.Fenced:
		return http.StatusConflict
	case errs.NotCaughtUp:
		return http.StatusGatewayTimeout
	case errs.SourceUnreachable, errs.TargetUnreachable:
		return http.StatusBadGateway
	case errs.NotBuiltYet, errs.SQLNotBuilt:
		return http.StatusNotImplemented
	case errs.EngineInternal:
		return http.StatusInternalServerError
	}
	switch c[1] {
	case '2', '6':
		return http.StatusBadRequest
	case '5':
		return http.StatusServiceUnavailable
	default:
		return http.StatusUnprocessableEntity
	}
}

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(docs.OpenAPI()) // the client may have left
}

// live says that the process answers. That is all a supervisor needs to know before it restarts one.
func (s *Server) live(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

// ready says whether decisions can be made here. A failed pipeline does not make a node unready: another node would
// not run it better.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	err := s.opts.Coordinator.Ready()
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	switch {
	case r.URL.Query().Has("verbose"):
		st := s.opts.Coordinator.Raft()
		fmt.Fprintf(w, "[%s] raft: %s, term %d, applied %d of %d\n", mark(err == nil), st.State, st.Term, st.AppliedIndex, st.LastIndex)
		for _, v := range s.opts.Coordinator.Pipelines() {
			fmt.Fprintf(w, "[%s] pipeline %s: %s\n", mark(v.Status.Phase != api.PhaseFailed), v.Name, v.Status.Phase)
		}
		if err != nil {
			fmt.Fprintln(w, "not ready:", err)
		}
	case err != nil:
		fmt.Fprintln(w, "not ready")
	default:
		fmt.Fprintln(w, "ok")
	}
}

func mark(good bool) string {
	if good {
		return "+"
	}
	return "-"
}
