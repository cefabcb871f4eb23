package testenv

import (
	"testing"

	"github.com/weirstream/weir/internal/scratch"
)

// TempDir makes a directory that exists until the test ends and that server processes can read. t.TempDir makes one
// that only the test can enter, which is not enough when the test is run by root and the server is not.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, remove, err := scratch.TempDir(t.Context())
	if err != nil {
		t.Fatalf("make a directory for servers: %v", err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}
