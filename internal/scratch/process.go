package scratch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a postmaster this process started.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended; err is valid then
	err  error
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// postmasterFile is the content of postmaster.pid: process id, data directory, start time, port, socket directory,
// listen address, shared memory key and id, status (src/include/utils/pidfile.h).
type postmasterFile struct {
	pid    int
	shmID  int
	status string
}

func readPostmasterFile(dataDir string) (f postmasterFile, err error) {
	text, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return f, err
	}
	f.shmID = -1
	for i, line := range strings.Split(string(text), "\n") {
		switch i {
		case 0:
			f.pid, err = strconv.Atoi(strings.TrimSpace(line))
		case 6:
			if _, scanErr := fmt.Sscanf(line, "%d %d", new(int), &f.shmID); scanErr != nil {
				f.shmID = -1 // not yet written
			}
		case 7:
			f.status = strings.TrimSpace(line)
		}
	}
	return f, err
}

// killTree ends a postmaster and its children in a way none of them can answer. The postmaster is stopped first, or it
// could start a child after the list of children was read.
func killTree(ctx context.Context, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	children, err := childrenOf(pid)
	if err != nil {
		return err
	}
	victims := append(children, pid)
	for _, victim := range victims {
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill process %d: %w", victim, err)
		}
	}
	// A process that was killed still holds the shared memory until it is gone, and then a new server refuses to start.
	return Poll(ctx, 2*time.Millisecond, func() (bool, error) {
		for _, victim := range victims {
			if alive(victim) {
				return false, nil
			}
		}
		return true, nil
	})
}

// endStray kills the server another process left running in a data directory, if there is one, and frees the shared
// memory a killed server leaves.
func endStray(ctx context.Context, dataDir string) error {
	f, err := readPostmasterFile(dataDir)
	if err != nil {
		return nil // stopped in an orderly way, or never started
	}
	if worksIn(f.pid, dataDir) {
		if err := killTree(ctx, f.pid); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end the server left in %s: %w", dataDir, err)
		}
	}
	freeSharedMemory(f.shmID)
	return nil
}
