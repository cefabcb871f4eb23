package scratch

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// childVariable makes the test binary a program that starts a server and waits to be killed (TestOwnerDies).
const childVariable = "WEIR_SCRATCH_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		runChild()
		return
	}
	goleak.VerifyTestMain(m)
}

func runChild() {
	ctx := context.Background()
	programs, err := Find(ctx)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	s, err := Start(ctx, Options{Programs: programs[0], Config: Config{FsyncOff: true}})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(s.Dir, s.PID(), s.guard.PID())
	_, _ = io.Copy(io.Discard, os.Stdin) // until killed
}

// programs are the best on this machine; installed if there are none, so that the tests never skip.
func programs(t *testing.T) *Programs {
	t.Helper()
	found, err := Find(t.Context())
	if err == ErrNotInstalled {
		if err = AptInstall(t.Context(), "postgresql-15", "postgresql"); err == nil {
			found, err = Find(t.Context())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return found[0]
}

func tempDir(t *testing.T) string {
	t.Helper()
	dir, remove, err := TempDir(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFindGivesTheBestFirst(t *testing.T) {
	programs(t)
	found, err := Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range found {
		if p.Version < Oldest || !strings.HasPrefix(p.Exact, p.Version.String()) || p.Bin == "" {
			t.Errorf("programs %+v", p)
		}
		if i > 0 && p.Version > found[i-1].Version && p.Version <= Newest {
			t.Errorf("%s comes after %s", p.Exact, found[i-1].Exact)
		}
	}
}

func TestOpenRefusesWhatWeirDoesNotSupport(t *testing.T) {
	for says, want := range map[string]string{
		"postgres (PostgreSQL) 11.22":                  "12 or newer",
		"something else":                               "calls itself",
		"postgres (PostgreSQL) 18beta1 (Debian 18~b1)": "",
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0)": "",
	} {
		bin := tempDir(t)
		script := fmt.Sprintf("#!/bin/sh\necho '%s'\n", says)
		for _, name := range []string{"postgres", "initdb"} {
			if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		p, err := Open(t.Context(), bin)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: programs %+v, error %v, want %q", says, p, err, want)
		}
	}
}

// TestDirectories starts a server in each kind of directory and looks at what Close leaves.
func TestDirectories(t *testing.T) {
	p := programs(t)
	base := tempDir(t)
	for _, c := range []struct {
		name    string
		options Options
		stays   bool
	}{
		{"kept", Options{Dir: filepath.Join(base, "kept")}, true},
		{"removed", Options{Dir: filepath.Join(base, "removed"), Remove: true}, false},
		{"of its own", Options{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.options.Programs, c.options.Config = p, Config{FsyncOff: true}
			s, err := Start(t.Context(), c.options)
			if err != nil {
				t.Fatal(err)
			}
			pid, guard := s.PID(), s.guard.PID()
			rows, err := s.Run(t.Context(), "postgres", "SHOW wal_level")
			if err != nil || rows[0][0] != "logical" {
				t.Errorf("wal_level %v, error %v", rows, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if alive(pid) || alive(guard) || exists(s.Dir) != c.stays {
				t.Errorf("server alive %t, guard alive %t, directory exists %t", alive(pid), alive(guard), exists(s.Dir))
			}
		})
	}
}

// TestStartEndsWithItsContext interrupts initdb, which would otherwise go on for a second and write into a directory
// that is being deleted.
func TestStartEndsWithItsContext(t *testing.T) {
	p := programs(t)
	dir := filepath.Join(tempDir(t), "interrupted")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		_ = Poll(t.Context(), 1e6, func() (bool, error) { return exists(filepath.Join(dir, "data", "base")), nil })
	}()
	s, err := Start(ctx, Options{Programs: p, Dir: dir, Remove: true})
	if err == nil {
		err = s.Close()
		t.Fatalf("the server has started; close: %v", err)
	}
	if exists(dir) {
		t.Errorf("%s is still there after %v", dir, err)
	}
}
