package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weirstream/weir/coordinator"
	rest "github.com/weirstream/weir/coordinator/http"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/scratch"
)

// mirror is weir in a process of its own: what a user would have typed.
type mirror struct {
	env            *env.Env
	program        string
	dir            string // the process works in it; its state, log and process id lie there
	source, target string
	httpAddr       string
	keep           bool // dir stays when the demo is killed
	// run is the file of queries that the process runs in place of a mirror, and environ what it is told besides.
	run     string
	environ []string

	guard   *scratch.Guard
	process *os.Process
	done    chan struct{} // closed when the process has ended; err is valid then
	err     error
}

func (m *mirror) state() string { return filepath.Join(m.dir, "state") }
func (m *mirror) log() string   { return filepath.Join(m.dir, "log") }

// pidFile is where the guard finds the process; after a restart it is another.
func (m *mirror) pidFile() string { return filepath.Join(m.dir, "pid") }

// open makes the directory. From here on a guard ends the process and deletes the directory should the demo be killed.
func (m *mirror) open() error {
	o := scratch.GuardOptions{Dir: m.dir, PIDFile: m.pidFile()}
	if !m.keep {
		o.Remove = m.dir
	}
	guard, err := scratch.StartGuard(o)
	if err != nil {
		return err
	}
	m.guard = guard
	return os.Mkdir(m.dir, 0o755)
}

// start starts the process, for the first time or again.
func (m *mirror) start() error {
	log, err := os.OpenFile(m.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"mirror", m.source, m.target, "--tables", "public.*", "--state", m.state(), "--name", pipeline}
	if m.run != "" {
		args = []string{"run", m.run, "--state", m.state()}
	}
	if m.httpAddr != "" {
		args = append(args, "--http-addr", m.httpAddr)
	}
	cmd := exec.Command(m.program, args...)
	cmd.Dir = m.dir
	cmd.Stdout, cmd.Stderr = log, log
	for _, v := range os.Environ() {
		// Settings of the user's own weir would make this another demo.
		if !strings.HasPrefix(v, "WEIR_") && !strings.HasPrefix(v, "PG") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, m.environ...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // an interrupt typed at the terminal is for the demo
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the mirror: %w", err)
	}
	m.process, m.done, m.err = cmd.Process, make(chan struct{}), nil
	go func() {
		m.err = cmd.Wait()
		close(m.done)
	}()
	return os.WriteFile(m.pidFile(), []byte(strconv.Itoa(m.process.Pid)+"\n"), 0o644)
}

// kill ends the process in a way that it cannot notice, and waits until it is gone.
func (m *mirror) kill() error {
	if err := m.process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill the mirror: %w", err)
	}
	<-m.done
	return nil
}

// stop asks the process to end, as Ctrl-C would.
func (m *mirror) stop(ctx context.Context) error {
	if err := m.process.Signal(syscall.SIGTERM); err != nil {
		return errors.Join(fmt.Errorf("stop the mirror: %w", err), m.failed())
	}
	select {
	case <-m.done:
		if m.err != nil {
			return fmt.Errorf("stop the mirror: %w", m.failed())
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close leaves nothing of it running.
func (m *mirror) close() error {
	var err error
	if m.process != nil {
		err = m.kill()
	}
	if m.guard != nil {
		err = errors.Join(err, m.guard.Dismiss())
	}
	return err
}

// failed is nil while the process runs, and then what it said last.
func (m *mirror) failed() error {
	select {
	case <-m.done:
		return fmt.Errorf("the mirror has ended: %v; it said\n%s", m.err, m.logTail())
	default:
		return nil
	}
}

// logTail is the end of what the process wrote.
func (m *mirror) logTail() string {
	f, err := os.Open(m.log())
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const most = 4 << 10
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text))
}

// look asks the process over REST how far it is. It is found anew each time, because its port may be another after a
// start. ok is false as long as it does not answer.
func (m *mirror) look(ctx context.Context) (addr string, st api.PipelineStatus, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// What a killed process has left in the directory must not lead to another weir that listens there now.
	ep, err := coordinator.ReadEndpoints(m.env.FS, m.state())
	if err != nil || ep.PID != m.process.Pid || ep.HTTP == "" {
		return "", st, false
	}
	client, err := rest.NewClient(m.env, rest.ClientOptions{Addr: ep.HTTP})
	if err != nil {
		return "", st, false
	}
	defer client.Close()
	view, err := client.Pipeline(ctx, pipeline)
	if err != nil {
		return "", st, false
	}
	return client.Addr(), view.Status, true
}

// live reports whether all tables have been copied and are followed.
func live(st api.PipelineStatus) bool {
	for _, t := range st.Tables {
		if t.Phase != api.PhaseLive {
			return false
		}
	}
	return st.Phase == api.PhaseLive && len(st.Tables) > 0
}
