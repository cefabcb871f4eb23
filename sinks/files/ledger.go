package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format/record"
)

// ledgerName is the file beside a table's data that tells what is published.
const ledgerName = ".weir-ledger"

// ledger is the content of that file: one record. Replacing it is the commit point of a checkpoint: from then on its
// files, which lie there under temporary names, are published, and whoever opens the directory next gives them their
// names if that was left undone.
type ledger struct {
	Pipeline   string              `json:"pipeline,omitempty"` // whose the directory is
	Generation dataflow.Generation `json:"generation"`
	Checkpoint dataflow.Checkpoint `json:"checkpoint"`
	Files      []string            `json:"files,omitempty"` // of the checkpoint, relative to the table's directory
}

const ledgerBytes = 64 << 20

func ledgerFormat() record.Format {
	return record.Format{Magic: record.Magic{'W', 'F', 'S', 'L'}, Version: 1, Limit: ledgerBytes}
}

// readLedger reads a directory's ledger; there is none before the table is opened first.
func readLedger(fs vfs.FS, dir string) (l ledger, err error) {
	text, err := record.ReadFile(fs, fs.PathJoin(dir, ledgerName), ledgerBytes+record.HeaderSize)
	if errors.Is(err, os.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	r, err := ledgerFormat().DecodeOne(text)
	if err != nil {
		return l, fmt.Errorf("%s: %w", ledgerName, err)
	}
	return l, json.Unmarshal(r.Payload, &l)
}

// writeLedger replaces a directory's ledger durably.
func writeLedger(fs vfs.FS, dir string, l ledger) error {
	payload, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if len(payload) > ledgerBytes {
		return fmt.Errorf("a checkpoint of %d files is too large to be published at once", len(l.Files))
	}
	return record.WriteFile(fs, fs.PathJoin(dir, ledgerName), func(w io.Writer) error {
		_, err := w.Write(ledgerFormat().Append(nil, payload))
		return err
	}, nil)
}

// temporary is the name under which a file lies until it is published.
func temporary(fs vfs.FS, path string) string {
	return fs.PathJoin(fs.PathDir(path), "."+fs.PathBase(path)+".tmp")
}

// reveal gives the files of a ledger their names. Those that have theirs already are left alone.
func reveal(fs vfs.FS, dir string, l ledger) error {
	dirs := map[string]bool{}
	for _, rel := range l.Files {
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
		if err := record.SyncDir(fs, d); err != nil {
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
		if _, err := fmt.Sscanf(name, ".part-%020d-%d.", &c, &n); err == nil && strings.HasSuffix(name, ".tmp") || name == ledgerName+record.TempSuffix {
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
