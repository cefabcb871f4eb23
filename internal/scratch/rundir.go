package scratch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ownerFile lies in every directory this package makes and is locked by the process that uses it, so whoever gets the
// lock knows that this process is dead.
const ownerFile = "owner"

// A runDir is a directory of this process in the place where all test processes of this user keep theirs.
type runDir struct {
	path  string
	owner *fileLock
}

// newRunDir makes a directory that the account can enter, after removing those of dead processes.
func newRunDir(ctx context.Context, acct account) (*runDir, error) {
	root, err := runRoot(acct)
	if err != nil {
		return nil, err
	}
	// The lock spans from making a directory to locking it; without it a sweep could take a directory just being made
	// for one whose owner is dead.
	lock, err := waitLock(ctx, filepath.Join(root, "lock"))
	if err != nil {
		return nil, err
	}
	defer lock.release()
	if err := sweep(ctx, root); err != nil {
		return nil, fmt.Errorf("remove servers of dead test processes in %s: %w", root, err)
	}
	path, err := os.MkdirTemp(root, "run-")
	if err != nil {
		return nil, err
	}
	owner, err := tryLock(filepath.Join(path, ownerFile))
	if err != nil {
		return nil, err
	}
	return &runDir{path, owner}, errors.Join(os.Chmod(path, 0o755), acct.own(path))
}

// remove deletes the directory and lets go of it, in this order: no sweep sees it half deleted and unowned.
func (d *runDir) remove() error {
	defer d.owner.release()
	return os.RemoveAll(d.path)
}

// runRoot is as short as it can be, because the path of a Unix socket must not exceed 107 bytes.
func runRoot(acct account) (string, error) {
	root := filepath.Join(shortTemp(acct), fmt.Sprintf("weir-env-%d", os.Geteuid()))
	if err := os.Mkdir(root, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(root)
	if err != nil {
		return "", err
	}
	// The place is writable by everybody; a directory somebody else put there is not ours to use.
	if st := info.Sys().(*syscall.Stat_t); !info.IsDir() || int(st.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s belongs to user %d; hint: remove it or set TMPDIR", root, st.Uid)
	}
	spread(root)
	return root, os.Chmod(root, 0o755)
}

func sweep(ctx context.Context, root string) error {
	dirs, err := filepath.Glob(filepath.Join(root, "run-*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		owner, err := tryLock(filepath.Join(dir, ownerFile))
		if errors.Is(err, ErrLocked) || errors.Is(err, os.ErrNotExist) {
			continue // in use, or just being removed by its guard
		}
		if err != nil {
			return err
		}
		err = errors.Join(endStray(ctx, filepath.Join(dir, "data")), os.RemoveAll(dir))
		owner.release()
		if err != nil {
			return err
		}
	}
	return nil
}

// TempDir makes a directory that server processes can read and gives the function that deletes it. One of the testing
// package can only be entered by the test, which is not enough when the test is run by root and the server is not.
func TempDir(ctx context.Context) (path string, remove func() error, err error) {
	acct, err := serverAccount(ctx)
	if err != nil {
		return "", nil, err
	}
	dir, err := newRunDir(ctx, acct)
	if err != nil {
		return "", nil, err
	}
	return dir.path, dir.remove, nil
}

// MakeDir makes a directory in the machine's temporary one that server processes can enter. Its path is short enough
// for Unix sockets two levels below. Nobody but the caller deletes it.
func MakeDir(ctx context.Context, pattern string) (string, error) {
	acct, err := serverAccount(ctx)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(shortTemp(acct), pattern)
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

func shortTemp(acct account) string {
	for _, tmp := range []string{os.TempDir(), "/tmp"} {
		// Without links, as the working directory of a process is shown.
		if real, err := filepath.EvalSymlinks(tmp); err == nil && acct.reaches(real) && len(real) <= 50 {
			return real
		}
	}
	return "/tmp"
}
