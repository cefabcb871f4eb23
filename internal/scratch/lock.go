package scratch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// A fileLock excludes other processes and other holders in this one. The kernel drops it when its holder dies, which is
// what makes it a proof of life: no process id that could have been given to somebody else meanwhile.
type fileLock struct{ file *os.File }

// ErrLocked means that another process uses a directory.
var ErrLocked = errors.New("locked by another process")

// tryLock takes the lock or returns ErrLocked.
func tryLock(path string) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &fileLock{f}, nil
}

// waitLock waits until it has the lock or ctx ends.
func waitLock(ctx context.Context, path string) (*fileLock, error) {
	var lock *fileLock
	err := Poll(ctx, 20*time.Millisecond, func() (done bool, err error) {
		lock, err = tryLock(path)
		if errors.Is(err, ErrLocked) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return nil, fmt.Errorf("wait for lock %s: %w", path, err)
	}
	return lock, nil
}

// release gives the lock up; the file stays, because removing it would let two holders lock two files of one name.
func (l *fileLock) release() { l.file.Close() }

// Poll calls check until it is done or fails, or ctx ends. It serves conditions nobody announces: a line in a file, the
// end of a process that is not our child.
func Poll(ctx context.Context, every time.Duration, check func() (done bool, err error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		done, err := check()
		if err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Once makes dir with the given function unless it exists. It holds a lock, so parallel processes make it once, and
// renames a finished directory into place, so an interrupted run leaves nothing that looks complete.
func Once(ctx context.Context, dir string, fill func(tmp string) error) error {
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
