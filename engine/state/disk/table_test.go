package disk

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/internal/errs"
)

func tables(t testing.TB, fs vfs.FS) (found []string) {
	t.Helper()
	names, err := fs.List("/data/log")
	must(t, err)
	for _, n := range names {
		if strings.HasSuffix(n, tableSuffix) {
			found = append(found, n)
		}
	}
	return found
}

// TestTablesStayWhileTheyAreNeeded: as long as their records are not on disk in Pebble, and no longer, whatever else the
// segment keeps.
func TestTablesStayWhileTheyAreNeeded(t *testing.T) {
	fs := vfs.NewCrashableMem()
	d := open(t, fs, Options{IngestRecords: 1})
	p, _ := pipeline(t, d, "orders", 0)
	for c := uint64(1); c <= 4; c++ {
		prepare(t, p, c, "an outbox")
	}
	p.Commit(2)
	must(t, p.settle())
	p.Abort(4)
	must(t, d.cut())
	before := tables(t, fs)
	must(t, d.flush())
	must(t, d.cut())
	// 1 and 2 are on disk in Pebble, 3 may still be committed, 4 never.
	if n := tables(t, fs); len(before) < 1 || len(n) != 1 || n[0] != "000000000003.table" || segments(d) != 1 {
		t.Fatalf("there were %q and are %q, with %d segments", before, n, segments(d))
	}
	if s := d.Stats(); s.LogBytes <= 0 {
		t.Fatalf("the log has %d bytes", s.LogBytes)
	}
	left := fs.CrashClone(vfs.CrashCloneCfg{})
	must(t, d.Close())
	d = open(t, left, Options{IngestRecords: 1})
	p, r := pipeline(t, d, "orders", 3)
	if b, err := p.Outbox(2); err != nil || string(b) != "an outbox" || len(r.Outboxes) != 3 {
		t.Fatalf("the outbox is %q, %v, of %d", b, err, len(r.Outboxes))
	}
	// 4 is whole in the log, and only recovery tells that it does not count.
	must(t, d.flush())
	must(t, d.cut())
	if n := tables(t, left); len(n) != 0 {
		t.Fatalf("after a recovery there are %q", n)
	}
	prepare(t, p, 5, "")
	if n := tables(t, left); len(n) != 1 || n[0] <= "000000000003.table" {
		t.Fatalf("there are %q", n)
	}
	must(t, d.Close())
}

// TestDamagedTable: recovery notices every byte that differs, and a table that is away, if the checkpoint needs it.
func TestDamagedTable(t *testing.T) {
	fs := vfs.NewCrashableMem()
	d := open(t, fs, Options{IngestRecords: 1})
	p, _ := pipeline(t, d, "orders", 0)
	delta := delta(t, 1, 1, 2)
	_, err := p.Prepare(t.Context(), 1, []*state.Delta{delta}, nil, []byte("meta"))
	must(t, err)
	want := kv{}
	want.apply(delta)
	left := fs.CrashClone(vfs.CrashCloneCfg{})
	must(t, d.Close())
	path := "/data/log/000000000001.table"
	f, err := left.Open(path)
	must(t, err)
	info, err := f.Stat()
	must(t, err)
	whole := make([]byte, info.Size())
	_, err = f.ReadAt(whole, 0)
	must(t, err)
	must(t, f.Close())

	try := func(what string, table []byte, good bool) {
		fs := left.CrashClone(vfs.CrashCloneCfg{})
		must(t, fs.Remove(path))
		if table != nil {
			f, err := fs.Create(path, writeCategory)
			must(t, err)
			_, err = f.Write(append([]byte(nil), table...))
			must(t, err)
			must(t, f.Close())
		}
		d := open(t, fs, Options{})
		defer d.Close()
		p, err := d.Pipeline("orders")
		must(t, err)
		if _, err = p.Recover(1); err != nil {
			e := wantCode(t, err, errs.StateLogDamaged)
			if good || !strings.Contains(e.Message+e.Detail, path) || e.Hint == "" {
				t.Fatalf("%s: %v", what, e)
			}
			return
		}
		if have, err := contents(p.Backing()); err != nil || !maps.Equal(have, want) || !good {
			t.Fatalf("%s: %q, want %q; %v", what, have, want, err)
		}
	}
	try("whole", whole, true)
	try("away", nil, false)
	try("short", whole[:len(whole)-1], false)
	for at := 0; at < len(whole); at += 7 {
		table := append([]byte(nil), whole...)
		table[at] ^= 1 << (at % 8)
		try(fmt.Sprintf("byte %d", at), table, false)
	}
}
