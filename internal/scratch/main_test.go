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

// TestAptInstall has an apt-get that writes down what it is asked, whether it was told to create no cluster, and that
// knows one package, after an update.
func TestAptInstall(t *testing.T) {
	dir := t.TempDir()
	conf, said := filepath.Join(dir, "etc", "createcluster.d"), filepath.Join(dir, "said")
	script := fmt.Sprintf(`#!/bin/sh
shift 2
echo "$* $(cat %[1]s/weir.conf)" >> %[2]s
case "$*" in
update) touch %[2]s.updated ;;
*" postgresql") [ -f %[2]s.updated ] ;;
*) echo "E: Unable to locate package"; exit 100 ;;
esac
`, conf, said)
	if err := os.WriteFile(filepath.Join(dir, "apt-get"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	if err := aptInstall(t.Context(), conf, []string{"postgresql-15", "postgresql"}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(said)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, line := range []string{"install -y --no-install-recommends postgresql-15", "install -y --no-install-recommends postgresql", "update",
		"install -y --no-install-recommends postgresql-15", "install -y --no-install-recommends postgresql"} {
		want.WriteString(line + " create_main_cluster = false\n")
	}
	if string(got) != want.String() {
		t.Errorf("apt-get was asked\n%swant\n%s", got, want.String())
	}
	if exists(filepath.Join(dir, "etc")) {
		t.Error("the word for the package is still there")
	}
	if err := aptInstall(t.Context(), conf, []string{"nonesuch"}); err == nil || !strings.Contains(err.Error(), "Unable to locate package") {
		t.Errorf("error %v does not say what apt-get said", err)
	}
}
