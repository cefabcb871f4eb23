// Package proc promises what the kernel itself says a process has used: CPU seconds and peak memory, read from /proc, so
// that no process under measurement has to be trusted or changed.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of CPU time in /proc/PID/stat. The kernel's USER_HZ is 100 on every architecture Go runs on.
const tick = 10 * time.Millisecond

// CPU is the user and system time of a process, in all its threads. A process that is gone has used nothing.
func CPU(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	// The name in parentheses may contain anything; after it come state, ten more fields, then utime and stime.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("read CPU time of process %d: %q is no stat line", pid, text)
	}
	user, uerr := strconv.ParseInt(fields[11], 10, 64)
	system, serr := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(uerr, serr); err != nil {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
	}
	return time.Duration(user+system) * tick, nil
}

// PeakBytes is the most memory that the process ever had resident.
func PeakBytes(pid int) (int64, error) {
	kib, err := field(fmt.Sprintf("/proc/%d/status", pid), "VmHWM")
	return kib << 10, err
}

// field reads a line such as `VmHWM:   12345 kB`.
func field(path, name string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no line %s", path, name)
}

// Usage remembers what processes had used at a moment.
type Usage map[int]time.Duration

// UsageOf reads the processes.
func UsageOf(pids []int) (Usage, error) {
	u := Usage{}
	for _, pid := range pids {
		cpu, err := CPU(pid)
		if err != nil {
			return nil, err
		}
		u[pid] = cpu
	}
	return u, nil
}

// Since is what the processes of u have used since before. One that before does not know was started after it.
func (u Usage) Since(before Usage) time.Duration {
	var sum time.Duration
	for pid, cpu := range u {
		sum += cpu - before[pid]
	}
	return sum
}

// Machine describes the machine in a line. The load average is part of it: a figure from a busy machine is worth less.
func Machine() (string, error) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	cores, model := 0, "unknown processor"
	for line := range strings.Lines(string(info)) {
		name, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "processor":
			cores++
		case "model name":
			model = strings.TrimSpace(value)
		}
	}
	memKiB, err := field("/proc/meminfo", "MemTotal")
	if err != nil {
		return "", err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", err
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("ask for the kernel's version: %w", err)
	}
	loads := strings.Fields(string(load))
	return fmt.Sprintf("%d cores of %s, %.1f GiB, Linux %s, load average %s at the start",
		cores, model, float64(memKiB)/(1<<20), unix.ByteSliceToString(name.Release[:]), strings.Join(loads[:3], " ")), nil
}
