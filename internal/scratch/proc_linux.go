package scratch

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func childrenOf(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var children []int
	for _, entry := range entries {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if parent, _, err := processStat(child); err == nil && parent == pid {
			children = append(children, child)
		}
	}
	return children, nil
}

// processStat reads parent and state from /proc/PID/stat: `123 (name) S 1 ...`, where the name may contain anything.
func processStat(pid int) (parent int, state byte, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	_, err = fmt.Sscanf(string(text[bytes.LastIndexByte(text, ')')+1:]), " %c %d", &state, &parent)
	return parent, state, err
}

// alive is false for a process that has ended and was not waited for yet.
func alive(pid int) bool {
	_, state, err := processStat(pid)
	return err == nil && state != 'Z' && state != 'X'
}

// worksIn reports whether a process has dir as its working directory, as a postmaster has its data directory.
func worksIn(pid int, dir string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && cwd == dir
}

// freeSharedMemory removes the System V segment of a killed server. It has a few bytes and only serves as a lock, but a
// machine has only some thousand of them. An error means that it is gone already.
func freeSharedMemory(id int) {
	if id >= 0 {
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
}
