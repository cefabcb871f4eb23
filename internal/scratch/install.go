package scratch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Programs are those of one installed version of Postgres.
type Programs struct {
	Version Version
	Bin     string // directory of initdb and postgres
	Exact   string // what `postgres --version` prints after the name, such as 15.18

	account account
}

// ErrNotInstalled means that this machine has no Postgres that weir can use.
var ErrNotInstalled = errors.New("no Postgres server is installed")

// Open takes the programs in a directory if they run as the account of servers and are of a supported version.
func Open(ctx context.Context, bin string) (*Programs, error) {
	acct, err := serverAccount(ctx)
	if err != nil {
		return nil, err
	}
	return open(acct, bin)
}

func open(acct account, bin string) (*Programs, error) {
	out, err := acct.command("/", filepath.Join(bin, "postgres"), "--version").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("run %s/postgres: %w %s", bin, err, out)
	}
	// postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
	words := strings.Fields(string(out))
	if len(words) < 3 {
		return nil, fmt.Errorf("%s/postgres calls itself %q", bin, out)
	}
	// A version that is not released yet calls itself 18beta1 or 19devel.
	digits := words[2]
	if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		digits = digits[:end]
	}
	major, err := strconv.Atoi(digits)
	if v := Version(major); err != nil || v < Oldest {
		return nil, fmt.Errorf("%s/postgres is %q; weir needs Postgres %s or newer", bin, bytes.TrimSpace(out), Oldest)
	}
	if _, err := os.Stat(filepath.Join(bin, "initdb")); err != nil {
		return nil, fmt.Errorf("find initdb: %w", err)
	}
	return &Programs{Version: Version(major), Bin: bin, Exact: words[2], account: acct}, nil
}

// Find lists what is installed, the best first: released versions that weir supports before newer ones, newer before
// older. Where it looks: PATH, pg_config, and the places where distributions put a server outside PATH.
func Find(ctx context.Context) ([]*Programs, error) {
	acct, err := serverAccount(ctx)
	if err != nil {
		return nil, err
	}
	var found []*Programs
	seen := map[string]bool{}
	for _, bin := range candidates(ctx) {
		real, err := filepath.EvalSymlinks(bin)
		if err != nil || seen[real] {
			continue
		}
		seen[real] = true
		if p, err := open(acct, bin); err == nil {
			found = append(found, p)
		}
	}
	slices.SortStableFunc(found, func(a, b *Programs) int {
		known := func(p *Programs) int { return map[bool]int{true: 0, false: 1}[p.Version <= Newest] }
		return cmp.Or(cmp.Compare(known(a), known(b)), cmp.Compare(b.Version, a.Version))
	})
	if len(found) == 0 {
		return nil, ErrNotInstalled
	}
	return found, nil
}

// candidates are directories that may hold a server.
func candidates(ctx context.Context) []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",                               // Debian, Ubuntu
		"/usr/pgsql-*/bin",                                        // packages of postgresql.org for Red Hat
		"/usr/libexec/postgresql*",                                // Alpine
		"/opt/homebrew/opt/postgresql*/bin",                       // macOS, Homebrew
		"/usr/local/opt/postgresql*/bin",                          // macOS on Intel, Homebrew
		"/Applications/Postgres.app/Contents/Versions/[0-9]*/bin", // macOS, Postgres.app
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			continue // the patterns are constants; a bad one is seen by every test of Find
		}
		dirs = append(dirs, found...)
	}
	return dirs
}

// FindVersion gives the programs of one version, or ErrNotInstalled.
func FindVersion(ctx context.Context, v Version) (*Programs, error) {
	found, err := Find(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range found {
		if p.Version == v {
			return p, nil
		}
	}
	return nil, fmt.Errorf("version %s of Postgres: %w", v, ErrNotInstalled)
}

// CanInstall reports whether AptInstall could work here: as root, on Debian and its descendants.
func CanInstall() bool {
	_, err := exec.LookPath("apt-get")
	return err == nil && os.Geteuid() == 0
}

// AptInstall installs the first of some packages that the machine's package sources have.
//
// Debian's package of a server also creates a database cluster and starts it on port 5432. Nobody asked for that, so
// it is told not to.
func AptInstall(ctx context.Context, packages ...string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s is missing and only root can install it", packages[0])
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("%s is missing and there is no apt-get to install it", packages[0])
	}
	return aptInstall(ctx, "/etc/postgresql-common/createcluster.d", packages)
}

// aptInstall does it; conf is where the package looks for whether to create a cluster.
func aptInstall(ctx context.Context, conf string, packages []string) (err error) {
	undo, err := withoutMainCluster(conf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo()) }()
	// The first try uses the package lists that are there; only if they are missing or old is an update worth its time.
	if _, err = installAny(ctx, packages); err == nil {
		return nil
	}
	var out []byte
	if out, err = apt(ctx, "update"); err == nil {
		out, err = installAny(ctx, packages)
	}
	if err != nil {
		return fmt.Errorf("apt-get: %w\n%s", err, lastLines(out, 10))
	}
	return nil
}

func installAny(ctx context.Context, packages []string) (out []byte, err error) {
	for _, pkg := range packages {
		if out, err = apt(ctx, "install", "-y", "--no-install-recommends", pkg); err == nil || ctx.Err() != nil {
			return out, err
		}
	}
	return out, err
}

func apt(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "DPkg::Lock::Timeout=300"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	return cmd.CombinedOutput()
}

// withoutMainCluster leaves a word for the package's script in the place where administrators leave it, and gives the
// function that takes it away again, with the directories it had to make.
func withoutMainCluster(dir string) (undo func() error, err error) {
	var made []string
	for _, d := range []string{filepath.Dir(dir), dir} {
		switch err := os.Mkdir(d, 0o755); {
		case err == nil:
			made = append([]string{d}, made...)
		case !errors.Is(err, os.ErrExist):
			return nil, err
		}
	}
	file := filepath.Join(dir, "weir.conf")
	undo = func() error {
		err := os.Remove(file)
		for _, d := range made {
			_ = os.Remove(d) // stays if the package has put something there meanwhile
		}
		return err
	}
	if err := os.WriteFile(file, []byte("create_main_cluster = false\n"), 0o644); err != nil {
		return nil, err
	}
	return undo, nil
}

func lastLines(text []byte, n int) string {
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
