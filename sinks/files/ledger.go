package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
)

// ledgerName is the file beside a table's data that tells what is published.
const ledgerName = ".weir-ledger"

// ledger is the content of that file, as lines of text:
//
//	weir files 1
//	generation 7
//	checkpoint 42
//	file day=2026-01-01/part-00000000000000000042-0.csv
//
// Replacing it is the commit point of a checkpoint: from then on its files, which lie there under temporary names, are
// published, and whoever opens the directory next gives them their names if that was left undone.
type ledger struct {
	generation dataflow.Generation
	checkpoint dataflow.Checkpoint
	files      []string // of the checkpoint, relative to the table's directory
}

func (l ledger) encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "weir files 1\ngeneration %d\ncheckpoint %d\n", l.generation, l.checkpoint)
	for _, f := range l.files {
		fmt.Fprintf(&b, "file %s\n", f)
	}
	b.WriteString("end\n")
	return b.Bytes()
}

func decodeLedger(text []byte) (l ledger, err error) {
	broken := errors.New("the ledger is damaged")
	body, ok := strings.CutPrefix(string(text), "weir files 1\n")
	body, whole := strings.CutSuffix(body, "end\n")
	if !ok || !whole {
		return l, broken
	}
	for line := range strings.Lines(body) {
		word, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch word {
		case "generation":
			_, err = fmt.Sscan(value, &l.generation)
		case "checkpoint":
			_, err = fmt.Sscan(value, &l.checkpoint)
		case "file":
			l.files = append(l.files, value)
		default:
			err = broken
		}
		if err != nil {
			return l, broken
		}
	}
	return l, nil
}

// readLedger reads a directory's ledger; there is none before the first checkpoint.
func readLedger(fs vfs.FS, dir string) (l ledger, err error) {
	f, err := fs.Open(fs.PathJoin(dir, ledgerName))
	if errors.Is(err, os.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	text, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return l, err
	}
	return decodeLedger(text)
}

// writeLedger replaces a directory's ledger durably.
func writeLedger(fs vfs.FS, dir string, l ledger) error {
	name := fs.PathJoin(dir, ledgerName)
	f, err := fs.Create(name+".tmp", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(l.encode())
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(name+".tmp", name); err != nil {
		return err
	}
	return syncDir(fs, dir)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes a directory below base durably.
func makeDir(fs vfs.FS, dir string) error {
	if info, err := fs.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := fs.PathDir(dir)
	if parent != dir {
		if err := makeDir(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return syncDir(fs, parent)
}

// temporary is the name under which a file lies until it is published.
func temporary(fs vfs.FS, path string) string {
	return fs.PathJoin(fs.PathDir(path), "."+fs.PathBase(path)+".tmp")
}

// reveal gives the files of a ledger their names. Those that have theirs already are left alone.
func reveal(fs vfs.FS, dir string, l ledger) error {
	dirs := map[string]bool{}
	for _, rel := range l.files {
		path := fs.PathJoin(dir, rel)
		err := fs.Rename(temporary(fs, path), path)
		if errors.Is(err, os.ErrNotExist) {
			continue // it was renamed before, and perhaps taken away by who reads the directory
		}
		if err != nil {
			return err
		}
		dirs[fs.PathDir(path)] = true
	}
	for d := range dirs {
		if err := syncDir(fs, d); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes what attempts left behind, and gives the largest checkpoint that a file's name has.
func sweep(fs vfs.FS, dir string) (last dataflow.Checkpoint, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		var c dataflow.Checkpoint
		var n int
		if _, err := fmt.Sscanf(name, ".part-%020d-%d.", &c, &n); err == nil && strings.HasSuffix(name, ".tmp") || name == ledgerName+".tmp" {
			if err := fs.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return 0, err
			}
			continue
		}
		if _, err := fmt.Sscanf(name, "part-%020d-%d.", &c, &n); err == nil {
			last = max(last, c)
			continue
		}
		if !strings.Contains(name, "=") {
			continue // no partition of ours
		}
		info, err := fs.Stat(path)
		if err != nil || !info.IsDir() {
			continue
		}
		below, err := sweep(fs, path)
		if err != nil {
			return 0, err
		}
		last = max(last, below)
	}
	return last, nil
}

func cannot(what, path string, err error) error {
	if _, ok := errs.As(err); ok {
		return err
	}
	return errs.New(errs.TargetFile, "cannot %s %s: %w", what, path, err).WithHint("check free space and that the user of this process may write there")
}
