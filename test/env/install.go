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
	"time"

	"github.com/weirstream/weir/internal/scratch"
)

// fetchLimit bounds the time to get programs that are not on the machine yet.
const fetchLimit = 8 * time.Minute

// findPrograms locates a version, fetching it into the cache when this machine does not have it yet.
func findPrograms(ctx context.Context, v Version) (p *scratch.Programs, cache string, err error) {
	if v < Oldest || v > Newest {
		return nil, "", fmt.Errorf("no Postgres %s: supported are %s to %s", v, Oldest, Newest)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	if cache, err = scratch.CacheDir(ctx); err != nil {
		return nil, "", err
	}
	if v == 15 {
		p, err = fromDistribution(ctx, v)
	} else {
		p, err = fromMaven(ctx, v, cache)
	}
	if err != nil {
		return nil, "", fmt.Errorf("find Postgres %s: %w", v, err)
	}
	return p, cache, nil
}

// fromDistribution finds the programs of the distribution's package, installing it if root may do that here.
func fromDistribution(ctx context.Context, v Version) (*scratch.Programs, error) {
	p, err := scratch.FindVersion(ctx, v)
	if !errors.Is(err, scratch.ErrNotInstalled) {
		return p, err
	}
	pkg := "postgresql-" + v.String()
	if err := scratch.AptInstall(ctx, pkg); err != nil {
		return nil, fmt.Errorf("%w; hint: install the server of Postgres %s, on Debian with `apt-get install -y %s`, "+
			"or put a pg_config of that version in PATH", err, v, pkg)
	}
	return scratch.FindVersion(ctx, v)
}

// fromMaven takes the programs from the cache or fetches them as a Maven artifact, so that the user's own Maven
// settings decide which server they come from.
func fromMaven(ctx context.Context, v Version, cache string) (*scratch.Programs, error) {
	release, err := releaseOf(v)
	if err != nil {
		return nil, err
	}
	home := filepath.Join(cache, release)
	if err := scratch.Once(ctx, home, func(tmp string) error { return fetch(ctx, release, tmp) }); err != nil {
		return nil, err
	}
	return scratch.Open(ctx, filepath.Join(home, "bin"))
}

func fetch(ctx context.Context, release, dir string) error {
	platform, ok := map[string]string{"amd64": "amd64", "arm64": "arm64v8"}[runtime.GOARCH]
	if !ok || runtime.GOOS != "linux" {
		return fmt.Errorf("there are no programs to fetch for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		if err := scratch.AptInstall(ctx, "maven"); err != nil {
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
