package raft

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	hraft "github.com/hashicorp/raft"

	"github.com/weirstream/weir/internal/errs"
)

// The guard must hold by itself, not because hashicorp/raft happens to stop as well.
func TestGuardRefusesEverythingAfterTheFirstFailure(t *testing.T) {
	e, crashed := testEnv(vfs.NewMem())
	g := newGuard(e)
	shutdowns := 0
	g.opened(func() { shutdowns++ })
	bad := errors.New("bad sector")
	if err := g.write("write", func() error { return bad }); !errs.Is(err, errs.DiskFailed) {
		t.Fatalf("got %v", err)
	}
	if r := crashed.Load(); r == nil || !errors.Is(*r, bad) || shutdowns != 1 {
		t.Fatalf("Crash was told %v, %d shutdowns", r, shutdowns)
	}
	ran := false
	if err := g.write("write again", func() error { ran = true; return nil }); !errors.Is(err, bad) || ran {
		t.Errorf("a later write: %v, ran %v", err, ran)
	}
	f := &tape{}
	m := &machine{fsm: f, guard: g}
	if got := m.Apply(&hraft.Log{Index: 9, Data: []byte("late")}); got != nil || len(f.all()) != 0 {
		t.Errorf("a later entry was applied: %v", got)
	}
	e.Wait()
}

// garbling flips a bit of what is written to files with this suffix.
type garbling struct {
	vfs.FS
	suffix string
}

func (g garbling) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.Create(name, c)
	if err != nil || !strings.HasSuffix(name, g.suffix) {
		return f, err
	}
	return garbledFile{f}, nil
}

type garbledFile struct{ vfs.File }

func (f garbledFile) Write(p []byte) (int, error) {
	bad := bytes.Clone(p)
	bad[len(bad)/2] ^= 0x10
	return f.File.Write(bad)
}

// A snapshot that reached the disk damaged never takes a name, because the log before it would be cut.
func TestGarbledSnapshotIsNoticedBeforeTheLogIsCut(t *testing.T) {
	mem := vfs.NewMem()
	e, crashed := testEnv(garbling{mem, ".snap.tmp"})
	n := openNode(t, e, &tape{})
	apply(t, n, "a")
	if err := n.Snapshot(testContext(t)); err == nil {
		t.Error("a garbled snapshot was reported done")
	}
	if crashed.Load() == nil {
		t.Error("no crash")
	}
	_ = n.Shutdown() // of a node that is dead
	e, _ = testEnv(mem)
	f := &tape{}
	n = openNode(t, e, f)
	if err := n.Barrier(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := f.all(); len(got) != 1 {
		t.Errorf("after the restart the state machine holds %v", got)
	}
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
}
