package testenv

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// install is one version of Postgres on this machine.
type install struct {
	version Version
	bin     string // directory of the programs initdb and postgres
	exact   string // what `postgres --version` prints after the name, such as 15.18
	cache   string // directory shared by all test processes of this user
	account account
}

// findInstall locates a version, fetching it when this machine does not have it yet.
func findInstall(ctx context.Context, v Version) (*install, error) {
	if v < Oldest || v > Newest {
		return nil, fmt.Errorf("no Postgres %s: supported are %s to %s", v, Oldest, Newest)
	}
	acct, err := serverAccount(ctx)
	if err != nil {
		return nil, err
	}
	cache, err := cacheDir(acct)
	if err != nil {
		return nil, err
	}
	in := &install{version: v, cache: cache, account: acct}
	if v == 15 {
		err = in.fromDistribution(ctx)
	} else {
		err = in.fromMaven(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("find Postgres %s: %w", v, err)
	}
	return in, nil
}

// cacheDir is where fetched programs and prepared clusters stay between runs.
func cacheDir(acct account) (string, error) {
	dir := os.Getenv("WEIR_CACHE")
	if dir == "" {
		if user, err := os.UserCacheDir(); err == nil && acct.reaches(user) {
			dir = filepath.Join(user, "weir")
		} else if os.Geteuid() == 0 {
			dir = "/var/cache/weir"
		} else {
			return "", fmt.Errorf("find a cache directory: %w; hint: set WEIR_CACHE to a directory", err)
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for _, d := range []string{dir, filepath.Join(dir, "postgres")} {
		if err := makeOpen(d); err != nil {
			return "", fmt.Errorf("make the cache: %w; hint: set WEIR_CACHE to a directory you can write", err)
		}
	}
	if !acct.reaches(dir) {
		return "", fmt.Errorf("cache %s cannot be read by user %d, which runs the servers; "+
			"hint: set WEIR_CACHE to a directory whose parents everybody may enter", dir, acct.uid)
	}
	return filepath.Join(dir, "postgres"), nil
}

// fromDistribution finds the programs of the distribution's package, installing it if root may do that here.
func (in *install) fromDistribution(ctx context.Context) error {
	if in.searchDistribution() {
		return nil
	}
	pkg := "postgresql-" + in.version.String()
	if err := in.aptInstall(ctx, pkg); err != nil {
		return fmt.Errorf("%w; hint: install the server of Postgres %s, on Debian with `apt-get install -y %s`, "+
			"or put a pg_config of that version in PATH", err, in.version, pkg)
	}
	if !in.searchDistribution() {
		return fmt.Errorf("package %s is installed but /usr/lib/postgresql/%s/bin has no working server",
			pkg, in.version)
	}
	return nil
}

func (in *install) searchDistribution() bool {
	if in.use(fmt.Sprintf("/usr/lib/postgresql/%s/bin", in.version)) == nil {
		return true
	}
	out, err := exec.Command("pg_config", "--bindir").Output()
	return err == nil && in.use(strings.TrimSpace(string(out))) == nil
}

// use takes the programs in bin if they run and are of the wanted version.
func (in *install) use(bin string) error {
	out, err := in.account.command("/", filepath.Join(bin, "postgres"), "--version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s/postgres: %w %s", bin, err, out)
	}
	// postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
	words := strings.Fields(string(out))
	if len(words) < 3 || !strings.HasPrefix(words[2], in.version.String()+".") {
		return fmt.Errorf("%s/postgres is %q, not version %s", bin, out, in.version)
	}
	in.bin, in.exact = bin, words[2]
	return nil
}

// aptInstall installs a package where that is possible: as root, on Debian and its descendants.
func (in *install) aptInstall(ctx context.Context, pkg string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s is missing and only root can install it", pkg)
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("%s is missing and there is no apt-get to install it", pkg)
	}
	lock, err := waitLock(ctx, filepath.Join(in.cache, "apt.lock"))
	if err != nil {
		return err
	}
	defer lock.release()
	// The first try uses the package lists that are there; only if they are missing or old is an update worth its time.
	out, err := apt(ctx, "install", "-y", "--no-install-recommends", pkg)
	if err == nil {
		return nil
	}
	if out, err = apt(ctx, "update"); err == nil {
		out, err = apt(ctx, "install", "-y", "--no-install-recommends", pkg)
	}
	if err != nil {
		return fmt.Errorf("apt-get: %w\n%s", err, lastLines(out, 10))
	}
	return nil
}

func apt(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "DPkg::Lock::Timeout=300"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	return cmd.CombinedOutput()
}

// fromMaven takes the programs from the cache or fetches them as a Maven artifact, so that the user's own Maven
// settings decide which server they come from.
func (in *install) fromMaven(ctx context.Context) error {
	release, err := in.version.release()
	if err != nil {
		return err
	}
	home := filepath.Join(in.cache, release)
	if err := once(ctx, home, func(tmp string) error { return in.fetch(ctx, release, tmp) }); err != nil {
		return err
	}
	return in.use(filepath.Join(home, "bin"))
}

// once makes dir with the given function unless it exists. It holds a lock, so parallel test processes make it once,
// and renames a finished directory into place, so an interrupted run leaves nothing that looks complete.
func once(ctx context.Context, dir string, fill func(tmp string) error) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	lock, err := waitLock(ctx, dir+".lock")
	if err != nil {
		return err
	}
	defer lock.release()
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	tmp := dir + ".part" // only the holder of the lock uses it; a rest is of a run that died
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := makeOpen(tmp); err != nil {
		return err
	}
	if err := fill(tmp); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return os.Rename(tmp, dir)
}

func (in *install) fetch(ctx context.Context, release, dir string) error {
	platform, ok := map[string]string{"amd64": "amd64", "arm64": "arm64v8"}[runtime.GOARCH]
	if !ok || runtime.GOOS != "linux" {
		return fmt.Errorf("there are no programs to fetch for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		if err := in.aptInstall(ctx, "maven"); err != nil {
			return fmt.Errorf("%w; hint: install Maven, on Debian with `apt-get install -y maven`", err)
		}
	}
	artifact := fmt.Sprintf("io.zonky.test.postgres:embedded-postgres-binaries-linux-%s:%s", platform, release)
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "dependency:copy",
		"-Dartifact="+artifact, "-DoutputDirectory="+dir)
	cmd.Dir = dir // away from any pom.xml
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch %s: %w; hint: `%s` must work\n%s", artifact, err, cmd, lastLines(out, 10))
	}
	jars, err := filepath.Glob(filepath.Join(dir, "*.jar"))
	if err != nil || len(jars) != 1 {
		return fmt.Errorf("fetch %s: Maven left %d jars in %s", artifact, len(jars), dir)
	}
	if err := unpack(ctx, jars[0], dir); err != nil {
		return fmt.Errorf("unpack %s: %w", artifact, err)
	}
	// The archive has no entries for directories, so those got the umask of this process.
	if out, err := exec.CommandContext(ctx, "chmod", "-R", "a+rX", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("open %s to the user that runs servers: %w %s", dir, err, out)
	}
	return os.Remove(jars[0])
}

// unpack extracts the archive of programs that is the jar's only content.
func unpack(ctx context.Context, jar, dir string) error {
	files, err := zip.OpenReader(jar)
	if err != nil {
		return err
	}
	defer files.Close()
	for _, f := range files.File {
		if !strings.HasSuffix(f.Name, ".txz") {
			continue
		}
		archive, err := f.Open()
		if err != nil {
			return err
		}
		defer archive.Close()
		tar := exec.CommandContext(ctx, "tar", "-xJ", "--no-same-owner", "-C", dir)
		tar.Stdin = archive
		if out, err := tar.CombinedOutput(); err != nil {
			return fmt.Errorf("tar: %w %s; hint: tar needs xz, on Debian `apt-get install -y xz-utils`", err, out)
		}
		return nil
	}
	return fmt.Errorf("no .txz in %s: %w", jar, fs.ErrNotExist)
}

func lastLines(text []byte, n int) string {
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
