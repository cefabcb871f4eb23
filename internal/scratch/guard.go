package scratch

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// A Guard is a process that ends another when this one dies, however it dies: panic, timeout, SIGKILL.
//
// It waits on a pipe whose other end only this process holds. A signal at the death of the parent (prctl) would be
// simpler but comes at the death of the thread that started the child, and Go's threads come and go; and only Linux
// has it.
type Guard struct {
	cmd  *exec.Cmd
	pipe *os.File
}

// GuardOptions names what is ended.
type GuardOptions struct {
	Dir     string // the guarded process works in it, or names it in its arguments
	PIDFile string // its first line is the process id; it may be replaced while the guard waits
	Remove  string // deleted afterwards, and then its parent if that is empty; "": nothing is
}

// guardScript gets the three options. It reads the process id only at the end, because the process may be restarted many
// times, and believes it only if that process works in the directory or was started for it: after a crash the id may be
// somebody else's. Where there is no /proc it asks ps.
const guardScript = `
read -r word && exit 0
pid=$(head -n 1 "$2" 2>/dev/null)
works() {
	[ -n "$pid" ] || return 1
	if [ -d /proc/self ]; then [ "$(readlink "/proc/$pid/cwd")" = "$1" ]; return; fi
	case "$(ps -ww -o args= -p "$pid" 2>/dev/null)" in *"$1"*) return 0 ;; esac
	return 1
}
if works "$1"; then
	kill -QUIT "$pid"
	n=0
	while works "$1" && [ $n -lt 100 ]; do sleep 0.05; n=$((n + 1)); done
	works "$1" && kill -KILL "$pid"
	while works "$1" && [ $n -lt 200 ]; do sleep 0.05; n=$((n + 1)); done
fi
[ -n "$3" ] || exit 0
rm -rf "$3"
rmdir "$(dirname "$3")" 2>/dev/null
`

// StartGuard starts a guard.
func StartGuard(o GuardOptions) (*Guard, error) {
	if strings.Contains(o.Dir+o.PIDFile+o.Remove, "\n") {
		return nil, fmt.Errorf("start the guard of %q: the path has a line break", o.Dir)
	}
	wait, pipe, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the guard of %s: %w", o.Dir, err)
	}
	defer wait.Close()
	cmd := exec.Command("sh", "-c", guardScript, "weir-guard", o.Dir, o.PIDFile, o.Remove)
	cmd.Dir = "/"
	cmd.Stdin = wait
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it must survive what kills this process's group
	if err := cmd.Start(); err != nil {
		pipe.Close()
		return nil, fmt.Errorf("start the guard of %s: %w", o.Dir, err)
	}
	return &Guard{cmd, pipe}, nil
}

// PID is the guard's own process id.
func (g *Guard) PID() int { return g.cmd.Process.Pid }

// Dismiss ends the guard without its doing anything.
func (g *Guard) Dismiss() error {
	_, err := g.pipe.WriteString("dismissed\n")
	return errors.Join(err, g.pipe.Close(), g.cmd.Wait())
}
