package disk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
)

func open(t testing.TB, fs vfs.FS, o Options) *Disk {
	t.Helper()
	d, err := Open(testEnv(fs), "/data", o)
	must(t, err)
	return d
}

func pipeline(t testing.TB, d *Disk, name string, checkpoint uint64) (*Pipeline, Restored) {
	t.Helper()
	p, err := d.Pipeline(name)
	must(t, err)
	r, err := p.Recover(checkpoint)
	must(t, err)
	return p, r
}

// delta is some changes of a new task.
func delta(t testing.TB, seed uint64, checkpoint uint64, n int) *state.Delta {
	t.Helper()
	k, err := newTask(nil)
	must(t, err)
	t.Cleanup(k.s.Close) // the delta refers to it
	must(t, k.change(rand.New(rand.NewPCG(seed, 5)), 0, 1, n))
	d := &state.Delta{}
	k.s.TakeDelta(d, checkpoint)
	d.Sort()
	return d
}

func prepare(t testing.TB, p *Pipeline, c uint64, outbox string) (*state.Delta, Frame) {
	t.Helper()
	d := delta(t, c, c, 3)
	f, err := p.Prepare(context.Background(), c, []*state.Delta{d}, []byte(outbox), fmt.Append(nil, "meta ", c))
	must(t, err)
	return d, f
}

func segments(d *Disk) int { return d.Stats().LogSegments }

// TestSegmentsStayWhileTheyAreNeeded: by what is not on disk in Pebble, by an outbox that is not published, and by a
// checkpoint that is not decided; each segment for itself.
func TestSegmentsStayWhileTheyAreNeeded(t *testing.T) {
	d := open(t, vfs.NewCrashableMem(), Options{SegmentBytes: 1})
	defer d.Close()
	p, _ := pipeline(t, d, "orders", 0)
	q, _ := pipeline(t, d, "idle", 0)
	for c := uint64(1); c <= 4; c++ {
		outbox := ""
		if c == 2 {
			outbox = "for the sink"
		}
		prepare(t, p, c, outbox)
	}
	prepare(t, q, 1, "")
	p.Commit(4)
	q.Commit(1)
	must(t, p.settle())
	must(t, q.settle())
	prepare(t, q, 2, "") // undecided
	prepare(t, p, 5, "")
	p.Commit(5)
	must(t, p.settle())
	if p.Absorbed() != 5 || segments(d) != 7 {
		t.Fatalf("absorbed %d, %d segments", p.Absorbed(), segments(d))
	}
	must(t, d.cut())
	if n := segments(d); n != 7 {
		t.Fatalf("%d segments are left of 7, of which none is on disk in Pebble", n)
	}
	must(t, d.flush())
	must(t, d.cut())
	if n := segments(d); n != 3 {
		t.Fatalf("%d segments are left, want those of an outbox, of an undecided checkpoint, and the last", n)
	}
	p.Published(2)
	must(t, d.flush())
	must(t, d.cut())
	if n := segments(d); n != 3 {
		t.Fatalf("%d segments are left: that an outbox is published is not on disk", n)
	}
	must(t, d.notePublished())
	must(t, d.flush())
	must(t, d.cut())
	if n := segments(d); n != 2 {
		t.Fatalf("%d segments are left, want that of an undecided checkpoint, and the last", n)
	}
	if _, err := q.Recover(1); err != nil {
		t.Fatal(err)
	}
	must(t, d.cut())
	if n := segments(d); n != 1 {
		t.Fatalf("%d segments are left, want the last: the other holds garbage", n)
	}
}

// TestTheLogIsCutByItself and Pebble is flushed for it, also of what an idle pipeline has.
func TestTheLogIsCutByItself(t *testing.T) {
	d := open(t, vfs.NewCrashableMem(), Options{LogBytes: 16 << 10})
	defer d.Close()
	idle, _ := pipeline(t, d, "idle", 0)
	prepare(t, idle, 1, "")
	idle.Commit(1)
	p, _ := pipeline(t, d, "orders", 0)
	most := int64(0)
	for c := uint64(1); c <= 400; c++ {
		prepare(t, p, c, "an outbox")
		p.Commit(c)
		must(t, p.settle())
		p.Published(c)
		most = max(most, d.Stats().LogBytes)
	}
	if s := d.Stats(); most > 128<<10 || s.FrameBytes < 160<<10 {
		t.Fatalf("of %d bytes written %d were in the log at once", s.FrameBytes, most)
	}
}

func TestNamesAndNumbers(t *testing.T) {
	fs := vfs.NewCrashableMem()
	d := open(t, fs, Options{})
	p, _ := pipeline(t, d, "orders", 0)
	id := func(name string) uint32 {
		n, err := p.Backing().ID(name)
		must(t, err)
		return n
	}
	a, b := id("a"), id("b")
	if a == b || id("a") != a || !p.Backing().Empty(a) {
		t.Fatalf("a is %d and %d, b is %d, a is empty: %v", a, id("a"), b, p.Backing().Empty(a))
	}
	prepare(t, p, 1, "")
	if c := id("c"); c == a || c == b {
		t.Fatalf("c is %d", c)
	}
	if !p.Backing().Empty(a) {
		t.Fatal("a is not empty before its first checkpoint is absorbed")
	}
	p.Commit(1)
	must(t, p.settle())
	if p.Backing().Empty(a) || !p.Backing().Empty(id("c")) {
		t.Fatal("a may hold something, c does not")
	}
	left := fs.CrashClone(vfs.CrashCloneCfg{})
	must(t, d.Close())
	d = open(t, left, Options{})
	defer d.Close()
	p, _ = pipeline(t, d, "orders", 1)
	if id("b") != b || id("a") != a || p.Backing().Empty(b) {
		t.Fatalf("a and b were %d and %d and are %d and %d", a, b, id("a"), id("b"))
	}
	if p2, err := d.Pipeline("orders"); p2 != p || err != nil {
		t.Fatal("one pipeline has two parts", err)
	}
}

// TestDrop: what is dropped stays so, and one of the same name begins with nothing; also where the worker was away when
// the pipeline was deleted.
func TestDrop(t *testing.T) {
	fs := vfs.NewCrashableMem()
	d := open(t, fs, Options{SegmentBytes: 1})
	p, _ := pipeline(t, d, "orders", 0)
	q, _ := pipeline(t, d, "payments", 0)
	for c := uint64(7); c < 10; c++ {
		prepare(t, p, c, "an outbox")
		prepare(t, q, c, "")
	}
	p.Commit(9)
	q.Commit(9)
	must(t, p.Drop())
	must(t, q.settle())
	if got := d.Pipelines(); !slices.Equal(got, []string{"payments"}) {
		t.Fatalf("there are %q", got)
	}
	must(t, d.flush())
	must(t, d.cut())
	if n := segments(d); n != 1 {
		t.Fatalf("%d segments are left", n)
	}
	left := fs.CrashClone(vfs.CrashCloneCfg{})
	must(t, d.Close())

	fs, d = left, open(t, left, Options{})
	p, _ = pipeline(t, d, "orders", 0)
	if have, err := contents(p.Backing()); err != nil || len(have) > 0 {
		t.Fatalf("%d keys are left of what was dropped, %v", len(have), err)
	}
	q, _ = pipeline(t, d, "payments", 0) // deleted and made anew elsewhere
	if have, err := contents(q.Backing()); err != nil || len(have) > 0 {
		t.Fatalf("%d keys are left of an earlier pipeline, %v", len(have), err)
	}
	delta, _ := prepare(t, q, 2, "")
	q.Commit(2)
	must(t, q.settle())
	left = fs.CrashClone(vfs.CrashCloneCfg{})
	must(t, d.Close())

	d = open(t, left, Options{})
	defer d.Close()
	q, r := pipeline(t, d, "payments", 2)
	want := kv{}
	want.apply(delta)
	if have, err := contents(q.Backing()); err != nil || !maps.Equal(have, want) || string(r.Meta) != "meta 2" {
		t.Fatalf("%d keys, want %d; %q, %v", len(have), len(want), r.Meta, err)
	}
}

func TestOrderIsKept(t *testing.T) {
	d := open(t, vfs.NewCrashableMem(), Options{})
	defer d.Close()
	p, err := d.Pipeline("orders")
	must(t, err)
	if _, err := p.Prepare(t.Context(), 1, nil, nil, nil); err == nil {
		t.Error("a checkpoint before recovery")
	}
	if _, err := p.Backing().ID("a"); err == nil {
		t.Error("a state before recovery")
	}
	_, err = p.Recover(0)
	must(t, err)
	prepare(t, p, 5, "")
	if _, err := p.Prepare(t.Context(), 5, nil, nil, nil); err == nil {
		t.Error("a checkpoint twice")
	}
	p.Abort(5)
	if _, err := p.Prepare(t.Context(), 6, nil, nil, nil); err == nil {
		t.Error("a checkpoint that builds on nothing")
	}
	_, err = p.Recover(0)
	must(t, err)
	prepare(t, p, 6, "")
	p.Commit(6)
	must(t, p.settle())
	prepare(t, p, 7, "")
	p.Commit(7)
	must(t, p.settle())
	_, err = p.Recover(6)
	wantCode(t, err, errs.StateLogDamaged)
	_, err = p.Recover(8)
	if e := wantCode(t, err, errs.StateLogDamaged); !strings.Contains(e.Message, `lacks checkpoint 8 of pipeline "orders"`) {
		t.Error(e)
	}
}

// TestGroupCommit: frames that come while an fsync is under way share the next.
func TestGroupCommit(t *testing.T) {
	d := open(t, vfs.NewCrashableMem(), Options{})
	defer d.Close()
	hold, held := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	d.env.Fail.Arm(FailSync, func() error {
		if once.CompareAndSwap(false, true) {
			close(held)
			<-hold
		}
		return nil
	})
	done := make(chan error)
	const n = 6
	var ps []*Pipeline
	for i := range n {
		p, _ := pipeline(t, d, fmt.Sprint("p", i), 0)
		ps = append(ps, p)
	}
	one := func(p *Pipeline) {
		_, err := p.Prepare(context.Background(), 1, nil, nil, []byte("here"))
		done <- err
	}
	go one(ps[0])
	<-held
	for _, p := range ps[1:] {
		go one(p)
	}
	for waiting := 0; waiting < n-1; {
		d.mu.Lock()
		waiting = len(d.mu.writes)
		d.mu.Unlock()
	}
	close(hold)
	for range n {
		must(t, <-done)
	}
	if s := d.Stats(); s.Syncs != 2 || s.Frames != n {
		t.Fatalf("%d frames with %d fsyncs", s.Frames, s.Syncs)
	}
	for _, p := range ps {
		p.Commit(1)
		must(t, p.settle())
		r, err := p.Recover(1)
		must(t, err)
		if string(r.Meta) != "here" {
			t.Fatalf("%q", r.Meta)
		}
	}
}

// TestFailedSyncIsTheEnd: nothing is promised after it, although the next fsync would succeed.
func TestFailedSyncIsTheEnd(t *testing.T) {
	for _, kinds := range [][]errorfs.OpKind{{errorfs.OpFileSync, errorfs.OpFileSyncData}, {errorfs.OpFileWrite}, {errorfs.OpCreate}} {
		mem := vfs.NewCrashableMem()
		var fail atomic.Bool
		d := open(t, errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if fail.Load() && slices.Contains(kinds, op.Kind) && strings.HasSuffix(op.Path, segmentSuffix) {
				return errorfs.ErrInjected
			}
			return nil
		})), Options{SegmentBytes: 1})
		p, _ := pipeline(t, d, "orders", 0)
		delta, _ := prepare(t, p, 1, "")
		p.Commit(1)
		must(t, p.settle())
		fail.Store(true)
		_, err := p.Prepare(t.Context(), 2, nil, nil, nil)
		wantCode(t, err, errs.DiskFailed)
		fail.Store(false)
		<-d.Failed()
		left := mem.CrashClone(vfs.CrashCloneCfg{})
		_, err = p.Prepare(t.Context(), 3, nil, nil, nil)
		wantCode(t, err, errs.DiskFailed)
		_, err = p.Recover(1)
		wantCode(t, err, errs.DiskFailed)
		_, _, err = p.Backing().Get(nil, []byte("key"))
		wantCode(t, err, errs.DiskFailed)
		_, err = d.Pipeline("another")
		wantCode(t, err, errs.DiskFailed)
		wantCode(t, p.Drop(), errs.DiskFailed)
		wantCode(t, d.Close(), errs.DiskFailed)
		d = open(t, left, Options{})
		p, _ = pipeline(t, d, "orders", 1)
		want := kv{}
		want.apply(delta)
		if have, err := contents(p.Backing()); err != nil || !maps.Equal(have, want) {
			t.Fatalf("%d keys, want %d; %v", len(have), len(want), err)
		}
		must(t, d.Close())
	}
}

// TestPebblesFailureIsTheEnd: a flush that fails in the background is not tried again for us.
func TestPebblesFailureIsTheEnd(t *testing.T) {
	mem := vfs.NewCrashableMem()
	var fail atomic.Bool
	d := open(t, errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if fail.Load() && op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst") {
			return errorfs.ErrInjected
		}
		return nil
	})), Options{})
	p, _ := pipeline(t, d, "orders", 0)
	prepare(t, p, 1, "")
	p.Commit(1)
	must(t, p.settle())
	fail.Store(true)
	wantCode(t, d.flush(), errs.DiskFailed)
	fail.Store(false)
	_, err := p.Prepare(t.Context(), 2, nil, nil, nil)
	wantCode(t, err, errs.DiskFailed)
	wantCode(t, d.Close(), errs.DiskFailed)
}

// TestOneOwner: a second process is refused.
func TestOneOwner(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(testEnv(vfs.Default), dir, Options{})
	must(t, err)
	defer d.Close()
	if _, err := Open(testEnv(vfs.Default), dir, Options{}); err == nil {
		t.Fatal("two of one directory")
	}
}

// TestBackpressure: who prepares faster than Pebble takes in waits.
func TestBackpressure(t *testing.T) {
	d := open(t, vfs.NewCrashableMem(), Options{LogBytes: 2000})
	defer d.Close()
	hold := make(chan struct{})
	d.env.Fail.Arm(FailAbsorb, func() error { <-hold; return nil })
	p, _ := pipeline(t, d, "orders", 0)
	c := uint64(1)
	for ; d.Stats().UnabsorbedBytes <= 2000; c++ {
		prepare(t, p, c, "")
		p.Commit(c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Prepare(ctx, c, nil, nil, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("a checkpoint that had to wait: %v", err)
	}
	close(hold)
	prepare(t, p, c, "")
}

// TestDamage: every byte of a log changed, and the log cut at every length. What the manifest names is there exactly, or
// an error says where the damage is.
func TestDamage(t *testing.T) {
	fs := vfs.NewCrashableMem()
	d := open(t, fs, Options{})
	p, _ := pipeline(t, d, "orders", 0)
	want := kv{}
	var ends []int64
	for c := uint64(1); c <= 4; c++ {
		delta := delta(t, c, c, 1)
		_, err := p.Prepare(t.Context(), c, []*state.Delta{delta}, []byte("outbox"), fmt.Append(nil, "meta ", c))
		must(t, err)
		if c < 4 {
			want.apply(delta)
			p.Commit(c)
		}
		ends = append(ends, d.Stats().LogBytes)
	}
	must(t, p.settle())
	left := fs.CrashClone(vfs.CrashCloneCfg{})
	must(t, d.Close())
	path := "/data/log/" + segmentName(1)
	f, err := left.Open(path)
	must(t, err)
	whole := make([]byte, ends[3])
	_, err = f.ReadAt(whole, 0)
	must(t, err)
	must(t, f.Close())

	try := func(what string, log []byte, good bool) {
		fs := left.CrashClone(vfs.CrashCloneCfg{})
		f, err := fs.Create(path, writeCategory)
		must(t, err)
		_, err = f.Write(slices.Clone(log))
		must(t, err)
		must(t, f.Close())
		d := open(t, fs, Options{})
		defer d.Close()
		p, err := d.Pipeline("orders")
		must(t, err)
		r, err := p.Recover(3)
		if err == nil {
			for _, c := range r.Outboxes {
				b, oerr := p.Outbox(c)
				if err = oerr; err == nil && string(b) != "outbox" {
					t.Fatalf("%s: the outbox of %d is %q", what, c, b)
				}
			}
		}
		if err != nil {
			e := wantCode(t, err, errs.StateLogDamaged)
			if good || !strings.Contains(e.Message+e.Detail, path) || e.Hint == "" {
				t.Fatalf("%s: %v", what, e)
			}
			return
		}
		have, err := contents(p.Backing())
		if err != nil || !maps.Equal(have, want) || string(r.Meta) != "meta 3" || len(r.Outboxes) != 3 || !good {
			t.Fatalf("%s: %q with %q and %d, want %q; %v", what, have, r.Meta, r.Outboxes, want, err)
		}
	}
	for at := range whole {
		log := slices.Clone(whole)
		log[at] ^= 1 << (at % 8)
		try(fmt.Sprintf("byte %d", at), log, int64(at) >= ends[2])
	}
	for n := ends[0]; n < ends[3]; n += 1 + n%3 {
		if n > ends[0]+100 && n < ends[2]-100 {
			continue
		}
		if n == ends[2] {
			continue // see below
		}
		// A log that lacks everything that is damaged names no place: it ends between frames, or there is none.
		if n != ends[1] && n != ends[0] {
			try(fmt.Sprintf("%d bytes", n), whole[:n], n >= ends[2])
		}
	}
	try("whole frames", whole[:ends[2]], true)
	try("zeros behind", append(slices.Clone(whole[:ends[2]]), make([]byte, 600)...), true)
}

func TestFailPointsHaveNames(t *testing.T) {
	seen := map[failpoint.Point]bool{}
	for _, p := range FailPoints() {
		if seen[p] || !strings.HasPrefix(string(p), "disk.") {
			t.Errorf("point %q", p)
		}
		seen[p] = true
	}
}
