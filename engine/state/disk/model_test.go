package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testEnv is the machine with another disk, whose process does not end.
func testEnv(fs vfs.FS) *env.Env {
	e := env.Real(nil)
	e.FS = fs
	e.Crash = func(error) {}
	return e
}

// small makes everything happen often.
func small() Options {
	return Options{CacheBytes: 1 << 20, MemTableBytes: 64 << 10, LogBytes: 24 << 10, SegmentBytes: 4 << 10, IngestRecords: 40}
}

// crashable is a file system to be cloned while it is in use. Its Link takes a lock for reading twice, which hangs if
// CrashClone comes between, so the two exclude each other.
type crashable struct {
	*vfs.MemFS
	link sync.Mutex
}

func (c *crashable) Link(old, name string) error {
	c.link.Lock()
	defer c.link.Unlock()
	return c.MemFS.Link(old, name)
}

func (c *crashable) CrashClone(cfg vfs.CrashCloneCfg) *vfs.MemFS {
	c.link.Lock()
	defer c.link.Unlock()
	return c.MemFS.CrashClone(cfg)
}

// kv is the second answer: a map that deltas are applied to.
type kv map[string]string

func (m kv) apply(d *state.Delta) {
	_ = d.Records(func(r state.Record) error {
		switch r.Op {
		case state.Set:
			m[string(r.Key)] = string(r.Value)
		case state.Delete:
			delete(m, string(r.Key))
		case state.DeleteBelow:
			stem := string(r.Key[:len(r.Key)-8])
			for k := range m {
				if len(k) == len(r.Key) && strings.HasPrefix(k, stem) && k < string(r.Key) {
					delete(m, k)
				}
			}
		}
		return nil
	})
}

// contents is everything in a Backing, which has to give it in two ways.
func contents(b state.Backing) (kv, error) {
	m := kv{}
	if err := b.Scan(nil, func(k, v []byte) error {
		m[string(k)] = string(v)
		return nil
	}); err != nil {
		return nil, err
	}
	for k, v := range m {
		got, ok, err := b.Get([]byte("x"), []byte(k))
		if err != nil {
			return nil, err
		}
		if !ok || string(got) != "x"+v {
			return nil, fmt.Errorf("key %x: Get says %x %v, Scan %x", k, got, ok, v)
		}
	}
	return m, nil
}

// task is a task with a map and two bags, whose deltas are like those of joins and aggregates.
type task struct {
	s         *state.Store
	m         *state.Map
	bag, grow *state.Bag
}

var types = []row.Type{{Kind: row.BigInt, NotNull: true}}

func newTask(b state.Backing) (*task, error) {
	codec := row.GroupKey(types)
	s, err := state.New(state.Options{Groups: 4, Backing: b})
	if err != nil {
		return nil, err
	}
	k := &task{s: s}
	if k.m, err = s.Map("sums", codec, 8, nil); err != nil {
		return nil, err
	}
	if k.bag, err = s.Bag("left", codec, true); err != nil {
		return nil, err
	}
	k.grow, err = s.Bag("right", codec, false)
	return k, err
}

// change makes some random changes. Only keys of this task's are used, so that tasks have different ones.
func (k *task) change(r *rand.Rand, self, tasks, n int) error {
	b := row.NewBuilder(types)
	b.Reset()
	for range n {
		b.Cols[0].Int64 = append(b.Cols[0].Int64, r.Int64N(25)*int64(tasks)+int64(self))
		b.EndRow(1)
	}
	batch := b.Seal()
	var keys row.Keys
	row.GroupKey(types).Hash(&keys, batch, []int{0})
	refs := make([]state.Ref, batch.Len)
	if err := k.m.FindOrAdd(&keys, batch, refs); err != nil {
		return err
	}
	for _, ref := range refs {
		k.m.Touch(ref)
		v := k.m.Value(ref)
		binary.LittleEndian.PutUint64(v, binary.LittleEndian.Uint64(v)+1)
	}
	if r.IntN(2) == 0 {
		k.m.Remove(refs[0])
	}
	if err := k.bag.Keys().FindOrAdd(&keys, batch, refs); err != nil {
		return err
	}
	for i, ref := range refs {
		w := int64(1)
		text := fmt.Sprint("row", r.IntN(2))
		if k.bag.Count(ref) > 0 && r.IntN(2) == 0 { // often back to nothing
			n := k.bag.First(ref)
			text, w = string(k.bag.Row(n)), -k.bag.Weight(n)
		}
		if err := k.bag.Add(ref, keys.Hash[i], []byte(text), w); err != nil {
			return err
		}
	}
	if err := k.grow.Keys().FindOrAdd(&keys, batch, refs); err != nil {
		return err
	}
	for i, ref := range refs {
		if err := k.grow.Add(ref, keys.Hash[i], bytes.Repeat([]byte("g"), r.IntN(20)), 1); err != nil {
			return err
		}
	}
	k.s.NextEpoch()
	return nil
}

// checkpoint is what the model knows of one.
type checkpoint struct {
	n        uint64
	previous *checkpoint
	kv       kv
	meta     string
	outbox   string
	frame    Frame
}

// line is a pipeline and its model.
type line struct {
	name      string
	p         *Pipeline
	tasks     []*task
	next      uint64
	pending   []*checkpoint
	committed *checkpoint // nil: none
	published uint64
}

func (l *line) head() *checkpoint {
	if n := len(l.pending); n > 0 {
		return l.pending[n-1]
	}
	return l.committed
}

// crashed is what is left after a crash: the disk, and what the catalog says.
type crashed struct {
	fs        *vfs.MemFS
	manifest  map[string]*checkpoint
	published map[string]uint64
}

// world is a Disk with two pipelines, its model, and crashes.
type world struct {
	t     *testing.T
	r     *rand.Rand
	fs    *crashable
	d     *Disk
	lines []*line

	mu    sync.Mutex // held while the model and the disk are of one moment
	dice  *rand.Rand // for crashes
	crash *crashed
	where failpoint.Point
}

// clone is what a crash now leaves. It is known for every checkpoint that was prepared whether the catalog names it.
func (w *world) clone() *crashed {
	cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[w.dice.IntN(3)], RNG: rand.New(rand.NewPCG(w.dice.Uint64(), 1))}
	c := &crashed{manifest: map[string]*checkpoint{}, published: map[string]uint64{}}
	for _, l := range w.lines {
		c.manifest[l.name], c.published[l.name] = l.committed, l.published
		if n := w.dice.IntN(len(l.pending) + 1); n > 0 {
			c.manifest[l.name] = l.pending[n-1]
		}
	}
	c.fs = w.fs.CrashClone(cfg)
	return c
}

// arm makes the next hit of a point, or one of the next, the end of the process.
func (w *world) arm(p failpoint.Point, hits int) {
	w.d.env.Fail.Arm(p, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if hits--; hits > 0 || w.crash != nil {
			return nil
		}
		w.crash, w.where = w.clone(), p
		return failpoint.ErrKill
	})
}

// open recovers from what a crash left and compares.
func (w *world) open(c *crashed) {
	t := w.t
	t.Helper()
	w.fs = &crashable{MemFS: c.fs}
	var err error
	w.d, err = Open(testEnv(w.fs), "/data", small())
	must(t, err)
	for _, l := range w.lines {
		l.p, err = w.d.Pipeline(l.name)
		must(t, err)
		l.pending, l.committed, l.published = nil, c.manifest[l.name], c.published[l.name]
		must(t, w.recover(l))
	}
}

// recover fails the test where what it gets is wrong, and returns what the disk says.
func (w *world) recover(l *line) error {
	t := w.t
	t.Helper()
	var want checkpoint
	if l.committed != nil {
		want = *l.committed
	}
	got, err := l.p.Recover(want.n)
	if err != nil {
		return fmt.Errorf("%s, recovery of %s to %d: %w", w.where, l.name, want.n, err)
	}
	if got.Frame != want.frame || string(got.Meta) != want.meta || l.p.Absorbed() != want.n {
		t.Fatalf("%s: recovered %+v with %q, absorbed %d, want %+v with %q", w.where, got.Frame, got.Meta, l.p.Absorbed(), want.frame, want.meta)
	}
	have, err := contents(l.p.Backing())
	if err != nil {
		return err
	}
	if !maps.Equal(have, want.kv) {
		t.Fatalf("%s: %s at %d holds %d keys, want %d\n%q\n%q", w.where, l.name, want.n, len(have), len(want.kv), have, want.kv)
	}
	var outboxes []uint64
	for c := l.committed; c != nil; c = c.previous {
		if c.outbox == "" {
			continue
		}
		listed := slices.Contains(got.Outboxes, c.n)
		if c.n > l.published && !listed {
			t.Fatalf("%s: the outbox of %d is not listed in %d", w.where, c.n, got.Outboxes)
		}
		if listed {
			outboxes = append(outboxes, c.n)
			b, err := l.p.Outbox(c.n)
			if err != nil {
				return err
			}
			if string(b) != c.outbox {
				t.Fatalf("%s: the outbox of %d is %q, want %q", w.where, c.n, b, c.outbox)
			}
		}
	}
	slices.Reverse(outboxes)
	if !slices.Equal(outboxes, got.Outboxes) {
		t.Fatalf("%s: outboxes %d are listed, of which %d exist", w.where, got.Outboxes, outboxes)
	}
	for _, k := range l.tasks {
		k.s.Close()
	}
	l.tasks = l.tasks[:0]
	for range 2 {
		k, err := newTask(l.p.Backing())
		if err != nil {
			return err
		}
		l.tasks = append(l.tasks, k)
	}
	return nil
}

func (w *world) prepare(l *line) {
	l.next += 1 + w.r.Uint64N(3)
	c := &checkpoint{n: l.next, previous: l.head(), kv: kv{}, meta: fmt.Sprintf("position %d", l.next)}
	if c.previous != nil {
		c.kv = maps.Clone(c.previous.kv)
	}
	if w.r.IntN(3) == 0 {
		c.outbox = strings.Repeat(fmt.Sprintf("%s prepares %d. ", l.name, c.n), 1+w.r.IntN(100))
	}
	var deltas []*state.Delta
	for i, k := range l.tasks {
		if n := w.r.IntN(15); n > 0 {
			if err := k.change(w.r, i, len(l.tasks), n); err != nil {
				w.failed(err)
				return
			}
		}
		d := &state.Delta{}
		k.s.TakeDelta(d, c.n)
		d.Sort()
		c.kv.apply(d)
		deltas = append(deltas, d)
	}
	var err error
	if c.frame, err = l.p.Prepare(context.Background(), c.n, deltas, []byte(c.outbox), []byte(c.meta)); err != nil {
		w.failed(err)
		return
	}
	w.mu.Lock()
	l.pending = append(l.pending, c)
	w.mu.Unlock()
}

// failed wants an error to be that of the crash.
func (w *world) failed(err error) {
	w.t.Helper()
	if !errors.Is(err, failpoint.ErrKill) || w.d.Err() == nil {
		w.t.Fatal(err)
	}
}

func (w *world) step() {
	l := w.lines[w.r.IntN(len(w.lines))]
	switch w.r.IntN(9) {
	case 0, 1, 2, 3:
		w.prepare(l)
	case 4, 5, 6: // one, or all
		if n := len(l.pending); n > 0 {
			n = []int{1, n}[w.r.IntN(2)]
			w.mu.Lock()
			l.committed = l.pending[n-1]
			l.pending = slices.Delete(l.pending, 0, n)
			w.mu.Unlock()
			l.p.Commit(l.committed.n)
			for _, k := range l.tasks {
				k.s.Absorbed(l.p.Absorbed())
			}
		}
	case 7:
		if l.committed != nil {
			w.mu.Lock()
			l.published = l.committed.n
			w.mu.Unlock()
			l.p.Published(l.committed.n)
		}
	case 8: // tasks fail, and are recovered in the same process
		if w.r.IntN(4) > 0 {
			return
		}
		if n := len(l.pending); n > 0 && w.r.IntN(2) == 0 {
			c := l.pending[w.r.IntN(n)].n
			w.mu.Lock()
			l.pending = nil
			w.mu.Unlock()
			l.p.Abort(c)
		} else {
			w.mu.Lock()
			l.pending = nil
			w.mu.Unlock()
		}
		if err := w.recover(l); err != nil {
			w.failed(err)
		}
	}
}

// TestAgainstModel: two pipelines prepare, commit, abort and publish; the process ends at a random place, and the next
// finds exactly what the catalog names.
func TestAgainstModel(t *testing.T) {
	lives, cuts, ingests := 12, 0, uint64(0)
	for seed := range uint64(8) {
		w := &world{t: t, r: rand.New(rand.NewPCG(seed, 3)), dice: rand.New(rand.NewPCG(seed, 4)), lines: []*line{{name: "orders"}, {name: "payments"}}}
		w.open(&crashed{fs: vfs.NewCrashableMem()})
		points := FailPoints()
		for range lives {
			w.where, w.crash = "", nil
			if w.r.IntN(3) > 0 {
				w.arm(points[w.r.IntN(len(points))], 1+w.r.IntN(6))
			}
			for range 10 + w.r.IntN(60) {
				if w.d.Err() != nil {
					break
				}
				w.step()
			}
			w.mu.Lock()
			if w.crash == nil {
				w.crash = w.clone()
			}
			c := w.crash
			w.mu.Unlock()
			w.d.mu.Lock()
			cuts += int(w.d.mu.nextSegment) - 1 - len(w.d.mu.segments)
			w.d.mu.Unlock()
			ingests += w.d.tables.Load()
			_ = w.d.Close()
			w.open(c)
		}
		must(t, w.d.Close())
	}
	if cuts < 50 || ingests < 50 {
		t.Errorf("only %d segments were deleted and %d tables made", cuts, ingests)
	}
}

// TestEveryCrashPoint: the process ends at each point, at its first hits.
func TestEveryCrashPoint(t *testing.T) {
	for _, p := range FailPoints() {
		for hit := range 4 {
			w := &world{t: t, r: rand.New(rand.NewPCG(uint64(hit), 9)), dice: rand.New(rand.NewPCG(uint64(hit), 10)), lines: []*line{{name: "orders"}, {name: "payments"}}}
			w.open(&crashed{fs: vfs.NewCrashableMem()})
			w.arm(p, hit+1)
			for range 3000 {
				if w.d.Err() != nil {
					break
				}
				w.step()
			}
			if w.crash == nil {
				t.Fatalf("%s was not hit %d times", p, hit+1)
			}
			_ = w.d.Close()
			w.open(w.crash)
			for range 5 {
				w.step()
			}
			must(t, w.d.Close())
		}
	}
}

// wantCode fails unless err has the code, and gives it.
func wantCode(t testing.TB, err error, code errs.Code) *errs.Error {
	t.Helper()
	e, ok := errs.As(err)
	if !ok || e.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	return e
}
