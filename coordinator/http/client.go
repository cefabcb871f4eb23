package rest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// ClientOptions says where the server is. Addr wins over State; with neither it is the default address.
type ClientOptions struct {
	Addr  string // host:port
	State string // a state directory, whose endpoints.json is read
	// Named: the user named State, and so means the server that owns it, and nobody else's on the default address.
	Named bool
}

// Client calls a server. It may be used from several goroutines.
type Client struct {
	env  *env.Env
	addr string
	http *http.Client
	// state is the directory where addr was found; instance is who wrote it there.
	state, instance string
}

// InstanceHeader is sent by a client that has found its server in a state directory. A server that does not own that
// directory does nothing and answers 421 (Misdirected Request).
const InstanceHeader = "Weir-Instance"

// answerLimit bounds what a client reads of an answer.
const answerLimit = 64 << 20

// NewClient finds the server, but does not connect yet. The caller closes it.
func NewClient(e *env.Env, o ClientOptions) (*Client, error) {
	addr := o.Addr
	instance := ""
	if addr == "" && o.State != "" {
		ep, err := coordinator.ReadEndpoints(e.FS, o.State)
		switch {
		case err == nil && ep.HTTP != "":
			addr, instance = ep.HTTP, cmp.Or(ep.Instance, "unknown")
		case o.Named && (err == nil || errors.Is(err, fs.ErrNotExist)):
			return nil, nobodyOn(o.State)
		case err == nil, errors.Is(err, fs.ErrNotExist):
			// No server owns the directory now; one on the default port may still serve it to be.
		default:
			return nil, errs.New(errs.StateCorrupt, "find the server of %s: %v", o.State, err).
				WithHint("name the address with --addr")
		}
	}
	if addr == "" {
		addr = DefaultAddress
	}
	addr = strings.TrimSuffix(strings.TrimPrefix(addr, "http://"), "/")
	transport := &http.Transport{DialContext: e.Net.DialContext, MaxIdleConnsPerHost: 4, ForceAttemptHTTP2: false}
	return &Client{env: e, addr: addr, http: &http.Client{Transport: transport}, state: o.State, instance: instance}, nil
}

func nobodyOn(state string) *errs.Error {
	return errs.New(errs.NotReachable, "no weir runs on the state directory %s", state).
		WithHint("weir server --state %s starts one; for another server name its address with --addr", state)
}

// Addr is the server's host:port.
func (c *Client) Addr() string { return c.addr }

// Close gives idle connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// send makes a request; the caller closes the answer's body.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, errs.New(errs.EngineInternal, "encode the request: %v", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.addr+Prefix+path, body)
	if err != nil {
		return nil, errs.New(errs.BadFlag, "%q is not the address of a server: %v", c.addr, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.instance != "" {
		req.Header.Set(InstanceHeader, c.instance)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, errs.New(errs.NotReachable, "no weir server answers at %s", c.addr).
			WithHint("start one with: weir server, or name its address with --addr or its directory with --state").Because(err)
	}
	return resp, nil
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit+1))
	switch {
	case err != nil:
		return errs.New(errs.NotReachable, "the answer of the weir server at %s was cut off", c.addr).Because(err)
	case len(b) > answerLimit:
		return errs.New(errs.NotReachable, "the answer of the weir server at %s is above the limit of %d bytes", c.addr, answerLimit)
	case resp.StatusCode == http.StatusMisdirectedRequest && c.instance != "":
		return nobodyOn(c.state).WithDetail("the address in it, %s, was left by a process that is gone; another weir answers there", c.addr)
	case resp.StatusCode >= 400:
		return asError(c.addr, resp, b)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return errs.New(errs.NotReachable, "what answers at %s is not a weir server", c.addr).Because(err)
	}
	return nil
}

func asError(addr string, resp *http.Response, b []byte) error {
	var p Problem
	if err := json.Unmarshal(b, &p); err != nil || p.Code == "" {
		return errs.New(errs.NotReachable, "what answers at %s is not a weir server", addr).
			WithDetail("it answered with status %s", resp.Status)
	}
	return &errs.Error{Code: errs.Code(p.Code), Message: p.Title, Detail: p.Detail, Hint: p.Hint, Fix: p.Fix, Pos: p.Position}
}

func pipelinePath(name string) string { return "/pipelines/" + url.PathEscape(name) }

// Pipelines lists all pipelines.
func (c *Client) Pipelines(ctx context.Context) ([]coordinator.PipelineView, error) {
	var out PipelineList
	err := c.call(ctx, "GET", "/pipelines", nil, &out)
	return out.Pipelines, err
}

// Pipeline gives one, by name or id.
func (c *Client) Pipeline(ctx context.Context, name string) (coordinator.PipelineView, error) {
	var out coordinator.PipelineView
	err := c.call(ctx, "GET", pipelinePath(name), nil, &out)
	return out, err
}

// CreateMirror makes a mirror, which then starts.
func (c *Client) CreateMirror(ctx context.Context, m api.MirrorSpec) (coordinator.PipelineView, error) {
	var out coordinator.PipelineView
	err := c.call(ctx, "POST", "/pipelines", m, &out)
	return out, err
}

// CreateQuery makes a pipeline of queries, which then starts.
func (c *Client) CreateQuery(ctx context.Context, q api.QuerySpec) (coordinator.PipelineView, error) {
	var out coordinator.PipelineView
	err := c.call(ctx, "POST", "/queries", q, &out)
	return out, err
}

// Update changes the tables of a mirror.
func (c *Client) Update(ctx context.Context, name string, change coordinator.Change) (coordinator.PipelineView, error) {
	var out coordinator.PipelineView
	err := c.call(ctx, "PATCH", pipelinePath(name), change, &out)
	return out, err
}

// DeleteOptions says how to delete.
type DeleteOptions struct {
	Force bool // end although the databases cannot be cleaned up
	Wait  bool // until everything is gone
}

// Delete removes a pipeline and what it made outside.
func (c *Client) Delete(ctx context.Context, name string, o DeleteOptions) error {
	q := url.Values{}
	if o.Force {
		q.Set("force", "true")
	}
	if o.Wait {
		q.Set("wait", "true")
	}
	path := pipelinePath(name)
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return c.call(ctx, "DELETE", path, nil, nil)
}

// Pause stops a pipeline with a final cut.
func (c *Client) Pause(ctx context.Context, name string) (coordinator.PipelineView, error) {
	var out coordinator.PipelineView
	err := c.call(ctx, "POST", pipelinePath(name)+"/pause", nil, &out)
	return out, err
}

// Resume starts a paused or failed pipeline.
func (c *Client) Resume(ctx context.Context, name string) (coordinator.PipelineView, error) {
	var out coordinator.PipelineView
	err := c.call(ctx, "POST", pipelinePath(name)+"/resume", nil, &out)
	return out, err
}

// Command gives an order to a running pipeline.
func (c *Client) Command(ctx context.Context, name string, cmd api.Command) error {
	return c.call(ctx, "POST", pipelinePath(name)+"/commands", cmd, nil)
}

// Sources lists the sources of all pipelines.
func (c *Client) Sources(ctx context.Context) ([]api.SourceStatus, error) {
	var out SourceList
	err := c.call(ctx, "GET", "/sources", nil, &out)
	return out.Sources, err
}

// Source gives one, by its name or its pipeline's.
func (c *Client) Source(ctx context.Context, name string) (api.SourceStatus, error) {
	var out api.SourceStatus
	err := c.call(ctx, "GET", "/sources/"+url.PathEscape(name), nil, &out)
	return out, err
}

// RefreshSource copies tables anew; none means all.
func (c *Client) RefreshSource(ctx context.Context, name string, tables []string) error {
	return c.call(ctx, "POST", "/sources/"+url.PathEscape(name)+"/refresh", RefreshRequest{Tables: tables}, nil)
}

// Doctor checks a mirror that exists or is described.
func (c *Client) Doctor(ctx context.Context, r DoctorRequest) ([]api.Check, error) {
	var out DoctorReport
	err := c.call(ctx, "POST", "/doctor", r, &out)
	return out.Checks, err
}

// Plan says what a mirror would do.
func (c *Client) Plan(ctx context.Context, r PlanRequest) (api.Plan, error) {
	var out api.Plan
	err := c.call(ctx, "POST", "/plan", r, &out)
	return out, err
}

// Version tells what runs there.
func (c *Client) Version(ctx context.Context) (Version, error) {
	var out Version
	err := c.call(ctx, "GET", "/version", nil, &out)
	return out, err
}

// Status tells how the node is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var out Status
	err := c.call(ctx, "GET", "/status", nil, &out)
	return out, err
}

// clientStep is how often a wait asks.
const clientStep = 100 * time.Millisecond

// WaitPhase returns when the pipeline is in one of the phases, and with the pipeline's error when it fails instead.
func (c *Client) WaitPhase(ctx context.Context, name string, phases ...api.Phase) (coordinator.PipelineView, error) {
	for {
		v, err := c.Pipeline(ctx, name)
		if err != nil {
			return v, err
		}
		if slices.Contains(phases, v.Status.Phase) {
			return v, nil
		}
		if i := v.Status.Error; v.Status.Phase == api.PhaseFailed && i != nil {
			return v, &errs.Error{Code: errs.Code(i.Code), Message: i.Message, Detail: i.Detail, Hint: i.Hint, Fix: i.Fix}
		}
		if err := c.env.Clock.Sleep(ctx, clientStep); err != nil {
			return v, errs.New(errs.NotCaughtUp, "pipeline %q is still in phase %s", v.Name, v.Status.Phase).Because(err)
		}
	}
}

// Tail follows a view, of any pipeline if that is "", until ctx ends or each has an error.
func (c *Client) Tail(ctx context.Context, pipeline, view string, each func(api.TailLine) error) error {
	path := "/views/" + url.PathEscape(view) + "/tail"
	if pipeline != "" {
		path += "?pipeline=" + url.QueryEscape(pipeline)
	}
	resp, err := c.send(ctx, "GET", path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		b, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
		if err != nil {
			return errs.New(errs.NotReachable, "the answer of the weir server at %s was cut off", c.addr).Because(err)
		}
		return asError(c.addr, resp, b)
	}
	for d := json.NewDecoder(resp.Body); ; {
		var line api.TailLine
		switch err := d.Decode(&line); {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return errs.New(errs.NotReachable, "the weir server at %s ended", c.addr).Because(err)
		}
		if i := line.Error; i != nil {
			return &errs.Error{Code: errs.Code(i.Code), Message: i.Message, Detail: i.Detail, Hint: i.Hint, Fix: i.Fix}
		}
		if err := each(line); err != nil {
			return err
		}
	}
}

// StateEntries is what the state of a view or an operator of a pipeline has for a key.
func (c *Client) StateEntries(ctx context.Context, pipeline, node, key string) ([]api.StateEntries, error) {
	var out StateList
	err := c.call(ctx, "GET", pipelinePath(pipeline)+"/state/"+url.PathEscape(node)+"?key="+url.QueryEscape(key), nil, &out)
	return out.States, err
}
