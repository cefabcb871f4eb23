//go:build !linux

package scratch

import (
	"os/exec"
	"strconv"
	"strings"
)

// ps asks the program that every Unix has, because there is no /proc.
func ps(pid int, column string) string {
	out, err := exec.Command("ps", "-ww", "-o", column+"=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func childrenOf(pid int) ([]int, error) {
	out, err := exec.Command("ps", "-axo", "pid=,ppid=").Output()
	if err != nil {
		return nil, err
	}
	var children []int
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		if len(words) != 2 || words[1] != strconv.Itoa(pid) {
			continue
		}
		if child, err := strconv.Atoi(words[0]); err == nil {
			children = append(children, child)
		}
	}
	return children, nil
}

// alive is false for a process that has ended and was not waited for yet.
func alive(pid int) bool {
	state := ps(pid, "state")
	return state != "" && state[0] != 'Z'
}

// worksIn reports whether a process was started for dir: a postmaster has its data directory among its arguments.
func worksIn(pid int, dir string) bool { return strings.Contains(ps(pid, "args"), dir) }

// freeSharedMemory has nothing to do: the next start of a server frees what a killed one has left.
func freeSharedMemory(int) {}
