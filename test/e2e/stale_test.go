package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStaleEndpoints: a weir is killed, and another one on another state directory gets its port. Who names the first
// directory does not mean the second weir.
func TestStaleEndpoints(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, "CREATE TABLE item(id int PRIMARY KEY)", "INSERT INTO item SELECT generate_series(1, 100)")
	first := newMirror(t, src, dst, "public.*")
	first.start()
	first.caughtUp()
	base, err := first.address()
	if err != nil {
		t.Fatal(err)
	}
	first.kill()

	otherSrc, otherDst := pair(t, 15, 15)
	otherSrc.exec(t, "CREATE TABLE thing(id int PRIMARY KEY)")
	other := newMirror(t, otherSrc, otherDst, "public.*")
	other.run("mirror", otherSrc.url, otherDst.url, "--name", other.name, "--state", other.state, "--http-addr", strings.TrimPrefix(base, "http://"),
		"--tables", "public.*", "--set", "heartbeat.interval=100ms", "--set", "discovery.interval=200ms")
	other.caughtUp()

	// Both pipelines have one name.
	for _, args := range [][]string{{"pipelines", "list"}, {"pipelines", "delete", first.name, "--yes"}, {"pipelines", "pause", first.name}} {
		out, errOut, code := first.cli(args...)
		if code != 3 || !strings.Contains(errOut, "error[W5003]: no weir runs on the state directory "+first.state) {
			t.Errorf("weir %v: exit code %d\n%s%s", args, code, out, errOut)
		}
	}
	otherSrc.exec(t, "INSERT INTO thing VALUES (1)")
	other.caughtUp()

	// The killed one starts again and replaces the file.
	first.start()
	src.exec(t, "INSERT INTO item VALUES (101)")
	first.caughtUp()
	requireEqual(t, src, dst)
	requireEqual(t, otherSrc, otherDst)
	if now, err := first.address(); err != nil || now == base {
		t.Errorf("the file in %s leads to %s, %v", filepath.Base(first.state), now, err)
	}
	if out := first.mustCLI("pipelines", "get", first.name, "-o", "json"); !strings.Contains(out, src.name) || strings.Contains(out, otherSrc.name) {
		t.Errorf("pid %d shows\n%s", os.Getpid(), out)
	}
}
