package scratch

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// A guard is a process that ends a server when this process dies, however it dies: panic, timeout, SIGKILL.
//
// It waits on a pipe whose other end only this process holds. A signal at the death of the parent (prctl) would be
// simpler but comes at the death of the thread that started the child, and Go's threads come and go.
type guard struct {
	cmd  *exec.Cmd
	pipe *os.File
}

// guardScript gets the data directory and, if it is to be deleted, the directory of the server. It reads the process id
// only at the end, because a server may be restarted many times, and believes it only if that process works in the
// data directory, as a postmaster does: after a crash the id may be somebody else's.
const guardScript = `
read -r word && exit 0
pid=$(head -n 1 "$1/postmaster.pid" 2>/dev/null)
works() { [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = "$1" ]; }
if works "$1"; then
	kill -QUIT "$pid"
	n=0
	while works "$1" && [ $n -lt 100 ]; do sleep 0.05; n=$((n + 1)); done
	works "$1" && kill -KILL "$pid"
fi
[ -z "$2" ] || rm -rf "$2"
`

func startGuard(dataDir, remove string) (*guard, error) {
	wait, pipe, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the guard of %s: %w", dataDir, err)
	}
	defer wait.Close()
	cmd := exec.Command("sh", "-c", guardScript, "weir-test-guard", dataDir, remove)
	cmd.Dir = "/"
	cmd.Stdin = wait
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it must survive what kills the test's process group
	if err := cmd.Start(); err != nil {
		pipe.Close()
		return nil, fmt.Errorf("start the guard of %s: %w", dataDir, err)
	}
	return &guard{cmd, pipe}, nil
}

// dismiss ends the guard without its doing anything.
func (g *guard) dismiss() error {
	_, err := g.pipe.WriteString("dismissed\n")
	return errors.Join(err, g.pipe.Close(), g.cmd.Wait())
}
