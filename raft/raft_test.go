package raft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tape is a state machine that remembers its entries.
type tape struct {
	mu         sync.Mutex
	entries    []string
	restoreErr error
}

var errUnreadable = errors.New("an entry this machine does not know")

func (f *tape) Apply(_ uint64, entry []byte) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if string(entry) == "unreadable" {
		return nil, errUnreadable
	}
	f.entries = append(f.entries, string(entry))
	return len(f.entries), nil
}

type tapeSnapshot []string

func (s tapeSnapshot) WriteTo(w io.Writer) (int64, error) {
	var b []byte
	for _, e := range s {
		b = binary.AppendUvarint(b, uint64(len(e)))
		b = append(b, e...)
	}
	n, err := w.Write(b)
	return int64(n), err
}

func (f *tape) Snapshot() (io.WriterTo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return tapeSnapshot(append([]string(nil), f.entries...)), nil
}

func (f *tape) Restore(r io.Reader) error {
	if f.restoreErr != nil {
		return f.restoreErr
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	var entries []string
	for len(b) > 0 {
		n, used := binary.Uvarint(b)
		entries = append(entries, string(b[used:used+int(n)]))
		b = b[used+int(n):]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = entries
	return nil
}

func (f *tape) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.entries...)
}

// testEnv crashes by remembering the reason: unlike the real one it returns, as a simulator's does.
func testEnv(fs vfs.FS) (*env.Env, *atomic.Pointer[error]) {
	e := env.Real(nil)
	e.FS = fs
	crashed := &atomic.Pointer[error]{}
	e.Crash = func(reason error) { crashed.CompareAndSwap(nil, &reason) }
	return e, crashed
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func openNode(t *testing.T, e *env.Env, f FSM) *Node {
	t.Helper()
	n, err := Open(e, Options{Dir: "/state/raft", NodeID: "n1", FSM: f})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.WaitLeader(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return n
}

func apply(t *testing.T, n *Node, entry string) {
	t.Helper()
	if _, err := n.Apply(testContext(t), []byte(entry)); err != nil {
		t.Fatal(err)
	}
}

func TestSoleVoterLeadsAtOnce(t *testing.T) {
	e, _ := testEnv(vfs.NewMem())
	began := time.Now()
	n := openNode(t, e, &tape{})
	// The library's own election would take one to two seconds.
	if took := time.Since(began); took > 900*time.Millisecond {
		t.Errorf("the sole voter led after %s", took)
	}
	if s := n.Stats(); s.State != "Leader" || s.Voters != 1 || s.NodeID != "n1" {
		t.Errorf("stats %+v", s)
	}
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
	if err := n.Shutdown(); err != nil {
		t.Fatal("a second Shutdown:", err)
	}
	if _, err := n.Apply(testContext(t), []byte("late")); !errors.Is(err, ErrNotApplied) {
		t.Fatalf("apply after shutdown: %v", err)
	}
}

// What was acknowledged is there after a crash that loses everything not synced, with and without a snapshot between.
func TestAcknowledgedEntriesSurviveACrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	var want []string
	for life := range 4 {
		e, crashed := testEnv(fs)
		f := &tape{}
		n := openNode(t, e, f)
		if err := n.Barrier(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if got := f.all(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("life %d starts with %v, want %v", life, got, want)
		}
		for i := range 20 {
			entry := fmt.Sprintf("life %d entry %d", life, i)
			apply(t, n, entry)
			want = append(want, entry)
			if i == 10 && life > 0 {
				if err := n.Snapshot(testContext(t)); err != nil {
					t.Fatal(err)
				}
			}
		}
		fs2 := fs.CrashClone(vfs.CrashCloneCfg{})
		if err := n.Shutdown(); err != nil {
			t.Fatal(err)
		}
		if r := crashed.Load(); r != nil {
			t.Fatal("crashed:", *r)
		}
		fs = fs2
	}
}

func TestOldSnapshotsAreReapedAndTheLogIsCut(t *testing.T) {
	fs := vfs.NewMem()
	e, _ := testEnv(fs)
	n, err := Open(e, Options{Dir: "/state/raft", NodeID: "n1", FSM: &tape{}, Trailing: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.WaitLeader(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		for j := range 5 {
			apply(t, n, fmt.Sprint(i, j))
		}
		if err := n.Snapshot(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	names, err := fs.List("/state/raft/snapshots")
	if err != nil || len(names) != snapKeep {
		t.Errorf("snapshots %v %v, want %d", names, err, snapKeep)
	}
	first, _ := n.disk.FirstIndex()
	if s := n.Stats(); s.SnapshotIndex != s.LastIndex || first != s.LastIndex-1 {
		t.Errorf("the log starts at %d after %+v", first, s)
	}
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
	f := &tape{}
	n = openNode(t, e, f)
	if err := n.Barrier(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := len(f.all()); got != 30 {
		t.Errorf("%d entries after the restart, want 30", got)
	}
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
}

// failing fails the writes to files whose path holds part, once it is switched on.
func failing(fs vfs.FS, kinds ...errorfs.OpKind) (vfs.FS, *atomic.Bool) {
	on := &atomic.Bool{}
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if on.Load() {
			for _, k := range kinds {
				if op.Kind == k {
					return errorfs.ErrInjected
				}
			}
		}
		return nil
	})), on
}

func TestFailedSyncCrashesAndNothingIsAcknowledgedAfter(t *testing.T) {
	for name, kinds := range map[string][]errorfs.OpKind{
		"sync":  {errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpFileFlush},
		"write": {errorfs.OpFileWrite, errorfs.OpFileWriteAt},
	} {
		t.Run(name, func(t *testing.T) {
			fs, fail := failing(vfs.NewMem(), kinds...)
			e, crashed := testEnv(fs)
			f := &tape{}
			n := openNode(t, e, f)
			apply(t, n, "kept")

			fail.Store(true)
			_, err := n.Apply(testContext(t), []byte("lost"))
			if !errors.Is(err, ErrUnknown) {
				t.Fatalf("apply on a failed disk: %v", err)
			}
			<-n.Failed()
			reason := crashed.Load()
			if reason == nil || !errs.Is(*reason, errs.DiskFailed) {
				t.Fatalf("Crash was told %v", reason)
			}
			fail.Store(false) // the next fsync would falsely succeed
			for range 5 {
				if _, err := n.Apply(testContext(t), []byte("after")); !errors.Is(err, ErrNotApplied) {
					t.Fatalf("apply after the failure: %v", err)
				}
				if err := n.Barrier(testContext(t)); err == nil {
					t.Fatal("a barrier passed after the failure")
				}
			}
			if got := fmt.Sprint(f.all()); got != "[kept]" {
				t.Fatalf("the state machine holds %s", got)
			}
			_ = n.Shutdown() // of a node that is dead; it must only not leave goroutines
		})
	}
}

func TestFailedSnapshotCrashes(t *testing.T) {
	on := &atomic.Bool{}
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if on.Load() && op.Kind == errorfs.OpRename {
			return errorfs.ErrInjected
		}
		return nil
	}))
	e, crashed := testEnv(fs)
	n := openNode(t, e, &tape{})
	apply(t, n, "a")
	on.Store(true)
	if err := n.Snapshot(testContext(t)); err == nil {
		t.Fatal("a snapshot that could not take its name was reported done")
	}
	if crashed.Load() == nil {
		t.Fatal("no crash")
	}
	if _, err := n.Apply(testContext(t), []byte("b")); !errors.Is(err, ErrNotApplied) {
		t.Fatalf("apply after the failure: %v", err)
	}
	_ = n.Shutdown()
}

func TestUnknownEntryStopsTheNode(t *testing.T) {
	e, crashed := testEnv(vfs.NewMem())
	n := openNode(t, e, &tape{})
	if _, err := n.Apply(testContext(t), []byte("unreadable")); !errors.Is(err, ErrUnknown) {
		t.Fatalf("got %v", err)
	}
	<-n.Failed()
	if r := crashed.Load(); r == nil || !errors.Is(*r, errUnreadable) {
		t.Fatalf("Crash was told %v", r)
	}
	_ = n.Shutdown()
}

func TestDamagedNewestSnapshotIsRefusedAtStart(t *testing.T) {
	mem := vfs.NewMem()
	e, _ := testEnv(mem)
	n := openNode(t, e, &tape{})
	for i := range 2 {
		apply(t, n, fmt.Sprint("entry ", i))
		if err := n.Snapshot(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	ids, err := n.snaps.ids()
	if err != nil || len(ids) != 2 {
		t.Fatal(ids, err)
	}
	newest, oldest := n.snaps.path(ids[0]), n.snaps.path(ids[1])
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
	flip := func(path string) {
		f, err := mem.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		w, err := mem.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Close(), w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	flip(oldest) // not needed: the node starts and drops it
	n = openNode(t, e, &tape{})
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
	if _, err := mem.Stat(oldest); err == nil {
		t.Error("the damaged old snapshot is still there")
	}
	flip(newest)
	if _, err := Open(e, Options{Dir: "/state/raft", NodeID: "n1", FSM: &tape{}}); !errs.Is(err, errs.StateCorrupt) {
		t.Fatalf("a damaged newest snapshot: %v", err)
	}
}

func TestMachineThatCannotRestoreIsRefused(t *testing.T) {
	mem := vfs.NewMem()
	e, _ := testEnv(mem)
	n := openNode(t, e, &tape{})
	apply(t, n, "a")
	if err := n.Snapshot(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
	bad := errors.New("made by the future")
	_, err := Open(e, Options{Dir: "/state/raft", NodeID: "n1", FSM: &tape{restoreErr: bad}})
	if !errs.Is(err, errs.StateCorrupt) {
		t.Fatalf("got %v", err)
	}
}

func TestMissingSnapshotIsRefused(t *testing.T) {
	mem := vfs.NewMem()
	e, _ := testEnv(mem)
	n, err := Open(e, Options{Dir: "/state/raft", NodeID: "n1", FSM: &tape{}, Trailing: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.WaitLeader(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		apply(t, n, fmt.Sprint(i))
	}
	if err := n.Snapshot(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
	if err := mem.RemoveAll("/state/raft/snapshots"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(e, Options{Dir: "/state/raft", NodeID: "n1", FSM: &tape{}}); !errs.Is(err, errs.StateCorrupt) {
		t.Fatalf("got %v", err)
	}
}

// A crash at any write of the founding leaves a directory that a later start can use.
func TestCrashWhileFounding(t *testing.T) {
	for at := int32(0); ; at++ {
		mem := vfs.NewCrashableMem()
		var count atomic.Int32
		var left atomic.Pointer[vfs.MemFS]
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			switch op.Kind {
			case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpRename:
				if count.Add(1)-1 == at {
					left.Store(mem.CrashClone(vfs.CrashCloneCfg{}))
				}
			}
			return nil
		}))
		e, _ := testEnv(fs)
		n := openNode(t, e, &tape{})
		if err := n.Shutdown(); err != nil {
			t.Fatal(err)
		}
		after := left.Load()
		if after == nil {
			if at < 5 {
				t.Fatalf("only %d crash points were met", at)
			}
			return
		}
		e2, _ := testEnv(after)
		n = openNode(t, e2, &tape{})
		apply(t, n, "alive")
		if err := n.Shutdown(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLostAnswerIsUnknownAndYetApplied(t *testing.T) {
	e, _ := testEnv(vfs.NewMem())
	f := &tape{}
	n := openNode(t, e, f)
	lost := errors.New("lost")
	e.Fail.Arm(FailUnknown, func() error { return lost })
	if _, err := n.Apply(testContext(t), []byte("a")); !errors.Is(err, ErrUnknown) || !errors.Is(err, lost) {
		t.Fatalf("got %v", err)
	}
	if err := n.Barrier(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(f.all()); got != "[a]" {
		t.Fatalf("the entry is %s", got)
	}
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
}

func TestEndedContext(t *testing.T) {
	e, _ := testEnv(vfs.NewMem())
	n := openNode(t, e, &tape{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := n.Apply(ctx, []byte("a")); !errors.Is(err, ErrNotApplied) || !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if _, err := n.Apply(testContext(t), make([]byte, MaxEntry+1)); !errors.Is(err, ErrNotApplied) {
		t.Fatalf("an entry above the limit: %v", err)
	}
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
}

func TestStalledWriteCrashes(t *testing.T) {
	hang := make(chan struct{})
	on := &atomic.Bool{}
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if on.Load() && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			<-hang
		}
		return nil
	}))
	e, crashed := testEnv(fs)
	n, err := Open(e, Options{Dir: "/state/raft", NodeID: "n1", FSM: &tape{}, StallLimit: 40 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.WaitLeader(testContext(t)); err != nil {
		t.Fatal(err)
	}
	on.Store(true)
	if _, err := n.Apply(testContext(t), []byte("a")); !errors.Is(err, ErrUnknown) {
		t.Fatalf("got %v", err)
	}
	if crashed.Load() == nil {
		t.Fatal("no crash")
	}
	close(hang)
	_ = n.Shutdown()
}

// The log of a node is a small part of its memory budget.
func TestMemory(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	before := heap()
	e, _ := testEnv(vfs.Default)
	n, err := Open(e, Options{Dir: t.TempDir(), NodeID: "n1", FSM: &tape{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.WaitLeader(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		apply(t, n, string(make([]byte, 1000)))
	}
	if grown := int64(heap()) - int64(before); grown > 8<<20 {
		t.Errorf("the node keeps %d KiB", grown>>10)
	}
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
}
