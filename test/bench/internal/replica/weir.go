package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/test/bench/internal/lab"
	"github.com/weirstream/weir/test/bench/internal/proc"
)

// Options configures Weir.
type Options struct {
	Binary string   // path of weir
	Set    []string // KEY=VALUE options; none means weir's defaults
}

// Weir is `weir mirror` as a user runs it: one process beside the servers, which reaches both over TCP and makes the
// target's tables, keys and indexes itself, on the clock.
type Weir struct {
	pair *lab.Pair
	opts Options

	dir     string // state and log
	addr    string // of its REST server
	http    *http.Client
	process *process
}

// NewWeir returns weir, not yet running.
func NewWeir(pair *lab.Pair, opts Options) *Weir {
	return &Weir{pair: pair, opts: opts, http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}}
}

// pipeline is the name of the one pipeline.
const pipeline = "bench"

// Prepare implements Replica.
func (w *Weir) Prepare(context.Context, []lab.Table) (err error) {
	if w.dir, err = os.MkdirTemp(w.pair.Dir(), "weir-"); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("find a port for weir: %w", err)
	}
	w.addr = listener.Addr().String()
	return listener.Close()
}

// Start implements Replica. Its clock covers the start of the process.
func (w *Weir) Start(context.Context) error {
	args := []string{"mirror", w.pair.Source.URL(lab.SourceDB), w.pair.Target.URL(lab.TargetDB), "--tables", "public.*",
		"--name", pipeline, "--state", filepath.Join(w.dir, "state"), "--http-addr", w.addr, "--quiet"}
	for _, set := range w.opts.Set {
		args = append(args, "--set", set)
	}
	log, err := os.Create(w.logFile())
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(w.opts.Binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	w.process, err = startProcess(cmd)
	return err
}

func (w *Weir) logFile() string { return filepath.Join(w.dir, "log") }

// Following implements Replica.
func (w *Weir) Following(ctx context.Context) (bool, error) {
	st, err := w.status(ctx)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, errNoPipeline) {
		return false, nil // it is still starting
	}
	if err != nil || st.Phase != api.PhaseLive || len(st.Tables) == 0 {
		return false, err
	}
	for _, t := range st.Tables {
		if t.Phase != api.PhaseLive {
			return false, nil
		}
	}
	return true, nil
}

// Pause implements Replica.
func (w *Weir) Pause(ctx context.Context) error {
	if _, err := w.call(ctx, http.MethodPost, "/pause"); err != nil {
		return fmt.Errorf("pause weir: %w", err)
	}
	err := lab.Poll(ctx, 20*time.Millisecond, func() (bool, error) {
		st, err := w.status(ctx)
		return st.Phase == api.PhasePaused, errors.Join(err, w.ended())
	})
	if err != nil {
		return fmt.Errorf("pause weir: %w", err)
	}
	return w.pair.Detached(ctx)
}

// Resume implements Replica.
func (w *Weir) Resume(ctx context.Context) error {
	if _, err := w.call(ctx, http.MethodPost, "/resume"); err != nil {
		return fmt.Errorf("resume weir: %w", err)
	}
	return nil
}

// Check implements Replica. A retry is a failure here, although weir would go on: its time is not that of the work.
func (w *Weir) Check(ctx context.Context) error {
	if err := w.ended(); err != nil {
		return err
	}
	st, err := w.status(ctx)
	if err != nil {
		return nil // starting, or too busy to answer; that is no verdict
	}
	if st.Phase == api.PhaseFailed || st.Phase == api.PhaseRetrying || st.Restarts > 0 {
		cause, _ := json.Marshal(st.Error)
		return fmt.Errorf("weir's pipeline is %s after %d restarts: %s", st.Phase, st.Restarts, cause)
	}
	return nil
}

func (w *Weir) ended() error {
	if w.process == nil {
		return nil
	}
	select {
	case <-w.process.done:
		return fmt.Errorf("weir ended by itself: %w", w.process.verdict())
	default:
		return nil
	}
}

// PID implements Replica.
func (w *Weir) PID() int { return w.process.cmd.Process.Pid }

// stopLimit bounds an orderly end.
const stopLimit = 30 * time.Second

// Stop implements Replica.
func (w *Weir) Stop(context.Context) (peak int64, err error) {
	w.http.CloseIdleConnections()
	if w.process == nil {
		return 0, nil
	}
	if err := w.ended(); err != nil {
		return 0, err
	}
	peak, err = proc.PeakBytes(w.PID())
	if err != nil {
		err = fmt.Errorf("read weir's peak memory: %w", err)
	}
	return peak, errors.Join(err, w.process.end(stopLimit))
}

// Log implements Replica.
func (w *Weir) Log() string {
	text, err := os.ReadFile(w.logFile())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// errNoPipeline means that weir answers, but has not created its pipeline yet.
var errNoPipeline = errors.New("no such pipeline yet")

func (w *Weir) status(ctx context.Context) (api.PipelineStatus, error) {
	return w.call(ctx, http.MethodGet, "")
}

func (w *Weir) call(ctx context.Context, method, order string) (api.PipelineStatus, error) {
	var view struct {
		Status api.PipelineStatus `json:"status"`
	}
	url := "http://" + w.addr + "/api/v1/pipelines/" + pipeline + order
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return view.Status, err
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return view.Status, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return view.Status, errNoPipeline
	case resp.StatusCode >= 400:
		return view.Status, fmt.Errorf("%s %s: %s", method, url, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&view); err != nil {
		return view.Status, fmt.Errorf("read the answer of %s: %w", url, err)
	}
	return view.Status, nil
}

// process is a weir this process started.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended; err is valid then
	err  error
}

// startProcess starts a child that dies with this process, however that dies. The kernel sends the signal when the
// thread that made the child ends, so that thread is kept until the child has ended.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// verdict is how it ended, and never nil.
func (p *process) verdict() error {
	if p.err != nil {
		return p.err
	}
	return errors.New("exit status 0")
}

// end asks the process to end, and makes it end after the limit.
func (p *process) end(limit time.Duration) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop weir: %w", err)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("weir did not stop cleanly: %w", p.err)
		}
		return nil
	case <-timer.C:
		err := p.cmd.Process.Kill()
		<-p.done
		return errors.Join(fmt.Errorf("weir did not stop within %s of SIGTERM", limit), err)
	}
}
