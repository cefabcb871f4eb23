package record

import (
	"fmt"
	"io"
	iofs "io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TempSuffix ends the name of a file that is being written. Whoever owns a directory removes such files at start.
const TempSuffix = ".tmp"

// WriteFile replaces the file at path as a whole: temporary file, fsync, verify, rename, fsync of the directory. A
// crash leaves the old content or the new one, and at most a temporary file. verify may be nil; it sees the temporary
// file after its fsync, so that what a disk garbled never takes the place of what was good.
func WriteFile(fs vfs.FS, path string, write func(io.Writer) error, verify func(tempPath string) error) (err error) {
	temp := path + TempSuffix
	f, err := fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("create %s: %w", temp, err)
	}
	open := true
	defer func() {
		if err == nil {
			return
		}
		if open {
			_ = f.Close() // the error that led here is the one to tell
		}
		_ = fs.Remove(temp)
	}()
	if err := write(f); err != nil {
		return fmt.Errorf("write %s: %w", temp, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", temp, err)
	}
	open = false
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", temp, err)
	}
	if verify != nil {
		if err := verify(temp); err != nil {
			return fmt.Errorf("verify %s: %w", temp, err)
		}
	}
	if err := fs.Rename(temp, path); err != nil {
		return fmt.Errorf("rename %s: %w", temp, err)
	}
	return SyncDir(fs, fs.PathDir(path))
}

// MkdirAll makes a directory and those above it, and makes their names durable: without that a crash right after may
// take the whole directory away, with every synced file in it.
func MkdirAll(fs vfs.FS, dir string, perm iofs.FileMode) error {
	var missing []string
	for d := dir; ; d = fs.PathDir(d) {
		if _, err := fs.Stat(d); err == nil || d == fs.PathDir(d) {
			break
		}
		missing = append(missing, d)
	}
	if err := fs.MkdirAll(dir, perm); err != nil {
		return fmt.Errorf("create directory %s: %w", dir, err)
	}
	for _, d := range missing {
		if err := SyncDir(fs, fs.PathDir(d)); err != nil {
			return err
		}
	}
	return nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("open directory %s: %w", dir, err)
	}
	if err := d.Sync(); err != nil {
		_ = d.Close()
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	if err := d.Close(); err != nil {
		return fmt.Errorf("close directory %s: %w", dir, err)
	}
	return nil
}

// ReadFile reads a file of at most limit bytes.
func ReadFile(fs vfs.FS, path string, limit int) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("read %s: %w: the limit is %d bytes", path, ErrTooLarge, limit)
	}
	return b, nil
}
