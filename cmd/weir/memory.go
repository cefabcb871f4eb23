package main

import (
	"math"
	"os"
	"strconv"
	"strings"
)

// machineMemory is how much memory the process may take as the machine and its control group have it, in bytes; 0 if
// neither tells.
func machineMemory() int64 {
	least := int64(math.MaxInt64)
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
				if kB, err := strconv.ParseInt(f[1], 10, 64); err == nil {
					least = min(least, kB<<10)
				}
			}
		}
	}
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if b, err := os.ReadFile(file); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
				least = min(least, n)
			}
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}

// share is so many hundredths of what there is, and never less than mirrors take.
func share(bytes, percent int64) int64 { return max(bytes/100*percent, memoryTarget) }
