package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	testenv "github.com/weirstream/weir/test/env"
)

var (
	seedFlag    = flag.Uint64("seed", 0, "seed of the hostile workload; 0 takes a new one")
	soakFlag    = flag.Bool("soak", false, "run for long and over every version of Postgres")
	binaryFlag  = flag.String("binary", "", "test this weir binary instead of building one")
	hostileFlag = flag.Duration("hostile.for", 0, "how long the hostile workload runs")
)

// build holds the binary under test, made once by the first test that needs it.
var build struct {
	once sync.Once
	dir  string
	path string
	err  error
}

func TestMain(m *testing.M) { testenv.Main(m) }

// binary is the path of the weir binary, built with the race detector off because what is tested is what ships.
func binary(t testing.TB) string {
	t.Helper()
	build.once.Do(func() {
		if build.path = *binaryFlag; build.path != "" {
			return
		}
		parent := filepath.Join(os.TempDir(), fmt.Sprintf("weir-e2e-%d", os.Getuid()))
		if build.err = os.MkdirAll(parent, 0o755); build.err != nil {
			return
		}
		sweep(parent)
		if build.dir, build.err = os.MkdirTemp(parent, "bin-"); build.err != nil {
			return
		}
		build.path = filepath.Join(build.dir, "weir")
		cmd := exec.Command("go", "build", "-o", build.path, "github.com/weirstream/weir/cmd/weir")
		if out, err := cmd.CombinedOutput(); err != nil {
			build.err = fmt.Errorf("build weir: %w\n%s", err, out)
		}
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

// sweep removes the binaries of runs that are over: nothing of this package runs for a day.
func sweep(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, "bin-*"))
	for _, d := range dirs {
		if info, err := os.Stat(d); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.RemoveAll(d)
		}
	}
}
