package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// memoryLimit is what a mirror may ever take of a machine, whatever passes through it.
const memoryLimit = 256 << 20

// TestMemory sends through a mirror what does not fit into it: a large table, long rows, a long transaction and one
// huge value.
func TestMemory(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t,
		`CREATE TABLE long_rows(id int PRIMARY KEY, body text)`, `ALTER TABLE long_rows ALTER body SET STORAGE EXTERNAL`,
		`INSERT INTO long_rows SELECT i, repeat(md5(i::text), 32768) FROM generate_series(1, 300) i`,
		`CREATE TABLE many(id int PRIMARY KEY, n int)`,
		`CREATE TABLE huge(id int PRIMARY KEY, body text, raw bytea)`, `ALTER TABLE huge ALTER body SET STORAGE EXTERNAL`)
	m := newMirror(t, src, dst, "public.*")
	m.start()
	m.caughtUp()
	peak(t, m, "after the copy of 300 rows of 1 MB")
	src.exec(t, `INSERT INTO many SELECT i, 0 FROM generate_series(1, 500000) i`)
	m.caughtUp()
	peak(t, m, "after a transaction of 500,000 rows")
	src.exec(t, `UPDATE long_rows SET body = repeat(md5(id::text || 'x'), 32768) WHERE id <= 100`)
	m.caughtUp()
	peak(t, m, "after a transaction of 100 rows of 1 MB")
	src.exec(t, `INSERT INTO huge SELECT 1, repeat(md5('a'), 2097152), NULL`)
	m.caughtUp()
	peak(t, m, "after a row of 64 MB")
	src.exec(t, `UPDATE huge SET id = 2`)
	m.caughtUp()
	requireEqual(t, src, dst)
	if n := diskUse(t, m.state); n > 16<<20 {
		t.Errorf("the state directory takes %d MB", n>>20)
	}
}

// peak fails when the process has ever held more than the limit.
func peak(t *testing.T, m *mirror, when string) {
	t.Helper()
	m.mu.Lock()
	pid := m.cmd.Process.Pid
	m.mu.Unlock()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		rest, ok := strings.CutPrefix(line, "VmHWM:")
		if !ok {
			continue
		}
		kb, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: at most %d MB", when, kb>>10)
		if kb<<10 > memoryLimit {
			t.Errorf("%s the process had taken %d MB, more than %d MB", when, kb>>10, memoryLimit>>20)
		}
		return
	}
	t.Fatal("no VmHWM in /proc/PID/status")
}

func diskUse(t *testing.T, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			n += diskUse(t, dir+"/"+e.Name())
			continue
		}
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}
