// Package disk keeps the state of a worker's pipelines on its disk: every checkpoint that the catalog's manifest names
// can be brought back exactly, and none that it does not name.
//
// There are two places. The delta log takes what a checkpoint changed, with one fsync for all pipelines whose
// checkpoints come together, or the name of a table with that if it is much; it is what makes a checkpoint durable. Pebble takes the same changes afterwards, in the
// background, without a write-ahead log and without syncs of its own, and is what the tasks read. After a crash Pebble
// may be behind; each pipeline's part of it is stamped with the checkpoint that it has taken in, and the log reaches back
// to what of that is on disk. The log never decides: a frame counts when the replicated manifest names its checkpoint,
// and is garbage otherwise.
//
// docs/formats/delta.md shows the bytes.
package disk

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/internal/format/record"
)

// Options sizes a Disk. The zero value of a field means its default.
type Options struct {
	CacheBytes    int64 // Pebble's block cache; default 32 MiB
	MemTableBytes int   // Pebble's memtable, of which there may be a few; default 16 MiB
	LogBytes      int64 // how long the log with its tables may become before Pebble is flushed and the log cut; default 64 MiB
	SegmentBytes  int64 // from which length on a segment of the log is followed by the next; default LogBytes/8
	IngestRecords int   // from how many records on a delta is a table of its own beside the log; default 20,000
}

// Disk is the durable state of one worker process. Its methods may be called from any goroutine.
//
// The first error of a write or a sync is the last thing that a Disk does: what the file system kept is unknown then, and
// a second fsync that succeeds would prove nothing. Every later call returns that error; a new process recovers.
type Disk struct {
	env        *env.Env
	opts       Options
	logDir     string
	ingestDir  string
	cache      *pebble.Cache
	db         *pebble.DB
	pebbleOpts *pebble.Options
	iters      iterPool
	tables     atomic.Uint64 // the newest table's number
	links      atomic.Uint64 // counts tables on their way into Pebble

	writer, absorber chan struct{} // wake the goroutines
	quit             chan struct{}
	group            sync.WaitGroup

	failed chan struct{}
	cause  atomic.Pointer[errs.Error]
	stuck  atomic.Bool // Pebble has given up, and may hold locks

	mu struct {
		sync.Mutex
		spaces    map[space]*Pipeline
		byName    map[string]*Pipeline
		nextSpace space

		segments    []*segment // in order
		active      *segment   // the one that is written to
		nextSegment uint64
		logBytes    int64
		logFrames   int
		flushAt     int64 // bytes of the log from which on Pebble is flushed
		flushFrames int   // likewise

		writes          []*write
		committed       []absorption  // what Pebble has yet to take in, in order
		unabsorbedBytes int64         // of those
		changed         chan struct{} // closed and replaced when one was taken in
		stats           Stats         // the counters among them
	}
}

// maxFrames is from how many frames on the log is cut, however short they are: each takes memory.
const maxFrames = 50_000

// Open opens the state below dir, which nobody else may use meanwhile: Pebble in dir/state, the log in dir/log. It reads
// the log's frame heads; what they hold is read by Pipeline.Recover. It starts goroutines, which end with Close.
func Open(e *env.Env, dir string, o Options) (*Disk, error) {
	d := &Disk{
		env: e, opts: o, logDir: e.FS.PathJoin(dir, "log"), ingestDir: e.FS.PathJoin(dir, "ingest"),
		writer: make(chan struct{}, 1), absorber: make(chan struct{}, 1), quit: make(chan struct{}), failed: make(chan struct{}),
	}
	d.opts.setDefaults()
	d.iters.d = d
	d.mu.spaces, d.mu.byName = map[space]*Pipeline{}, map[string]*Pipeline{}
	d.mu.nextSegment, d.mu.flushAt, d.mu.flushFrames = 1, d.opts.LogBytes, maxFrames
	d.mu.changed = make(chan struct{})
	d.cache = pebble.NewCache(d.opts.CacheBytes)
	if err := d.isolate("open", func() error { return d.open(dir) }); err != nil {
		d.cache.Unref()
		if _, ok := errs.As(err); !ok {
			err = errs.New(errs.DiskFailed, "open the state in %s: %v", dir, err)
		}
		return nil, err
	}
	d.goroutine("state log", d.writeLog)
	d.goroutine("state absorber", d.absorbLog)
	return d, nil
}

func (o *Options) setDefaults() {
	o.CacheBytes = cmp.Or(o.CacheBytes, 32<<20)
	o.MemTableBytes = cmp.Or(o.MemTableBytes, 16<<20)
	o.LogBytes = cmp.Or(o.LogBytes, 64<<20)
	o.SegmentBytes = cmp.Or(o.SegmentBytes, o.LogBytes/8)
	o.IngestRecords = cmp.Or(o.IngestRecords, 20_000)
}

func (d *Disk) open(dir string) error {
	stateDir := d.env.FS.PathJoin(dir, "state")
	if err := record.MkdirAll(d.env.FS, stateDir, 0o700); err != nil {
		return err
	}
	if err := d.openPebble(stateDir); err != nil {
		return err
	}
	// Pebble's lock is held from here on.
	err := d.env.FS.RemoveAll(d.ingestDir) // tables that never became Pebble's
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = record.MkdirAll(d.env.FS, d.ingestDir, 0o700)
	}
	if err == nil {
		err = d.openLog()
	}
	if err != nil {
		return errors.Join(err, d.db.Close())
	}
	return nil
}

func (d *Disk) goroutine(name string, f func()) {
	d.group.Add(1)
	d.env.Go(name, func() {
		defer d.group.Done()
		f()
	})
}

// isolate runs f on a goroutine of its own: Pebble's way to report that it cannot go on is a call that must not return,
// which ends that goroutine and not the caller's.
func (d *Disk) isolate(what string, f func() error) error {
	if err := d.Err(); err != nil {
		return err
	}
	err := errors.New("the store gave up")
	done := make(chan struct{})
	d.env.Go("state "+what, func() {
		defer close(done)
		err = f()
	})
	<-done
	if cause := d.Err(); cause != nil {
		return cause
	}
	return err
}

// Err is the error that ended the Disk, or nil.
func (d *Disk) Err() error {
	if e := d.cause.Load(); e != nil {
		return e
	}
	return nil
}

// Failed is closed when there is an Err.
func (d *Disk) Failed() <-chan struct{} { return d.failed }

// fail ends the Disk, unless it has ended, and returns what ended it.
func (d *Disk) fail(err error) error {
	e, ok := errs.As(err)
	if !ok {
		e = errs.New(errs.DiskFailed, "state: %v", err).
			WithHint("check the disk under the state directory; weir recovers from the last checkpoint when it starts again")
	}
	if d.cause.CompareAndSwap(nil, e) {
		close(d.failed)
	}
	return d.Err()
}

// hit is a place where a test may want a crash.
func (d *Disk) hit(p failpoint.Point) error {
	err := d.env.Fail.Hit(p)
	if err == nil {
		return nil
	}
	err = d.fail(err)
	if errors.Is(err, failpoint.ErrKill) {
		d.env.Crash(err)
	}
	return err
}

// Close ends the goroutines and closes the files. No other call may be under way or follow, and no task may use a Backing.
func (d *Disk) Close() error {
	close(d.quit)
	d.group.Wait()
	d.iters.refresh()
	if d.stuck.Load() {
		return d.Err() // and Pebble does not come back from its Close
	}
	err := d.Err()
	if err == nil {
		// The log would do; but so the next start has nothing to read.
		if err = d.notePublished(); err == nil {
			err = d.flush()
		}
	}
	err = errors.Join(err, d.db.Close())
	d.cache.Unref()
	return err
}

// Pipelines lists the pipelines that have something here, in order of name. Those that the catalog does not know any more
// are to be dropped, else their part of the log stays for ever.
func (d *Disk) Pipelines() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.mu.byName))
}

// maxName is how long a pipeline's name may be.
const maxName = 1024

// Pipeline opens the part of that name, or begins one, which takes a few fsyncs. Recover comes next.
func (d *Disk) Pipeline(name string) (*Pipeline, error) {
	if err := d.Err(); err != nil {
		return nil, err
	}
	if name == "" || len(name) > maxName {
		return nil, fmt.Errorf("a pipeline's name of %d bytes", len(name))
	}
	d.mu.Lock()
	p := d.mu.byName[name]
	if p != nil {
		d.mu.Unlock()
		return p, nil
	}
	s := d.mu.nextSpace
	d.mu.nextSpace++
	p = d.add(name, s)
	d.mu.Unlock()
	// The number must not be given out again once anything may carry it, so it is on disk first.
	return p, d.isolate("begin "+name, func() error {
		b := d.db.NewBatch()
		err := errors.Join(
			b.Set(space(0).meta(keyLayout), []byte{layoutVersion}, nil),
			b.Set(space(0).meta(keySpaces), binary.LittleEndian.AppendUint32(nil, uint32(s)+1), nil),
			b.Set(append(space(0).meta(keyName), name...), binary.LittleEndian.AppendUint32(nil, uint32(s)), nil),
			b.Commit(pebble.NoSync))
		if err != nil {
			return d.fail(fmt.Errorf("begin pipeline %q: %w", name, err))
		}
		return d.flush()
	})
}

// add wants d.mu, or nobody else.
func (d *Disk) add(name string, s space) *Pipeline {
	p := &Pipeline{d: d, name: name, space: s, frames: map[uint64]*frame{}}
	p.backing.init(p)
	d.mu.spaces[s], d.mu.byName[name] = p, p
	return p
}

// Stats is what a Disk takes and has done.
type Stats struct {
	LogBytes        int64  // on disk, with the tables
	LogSegments     int    // files
	StateBytes      int64  // Pebble's files
	MemoryBytes     int64  // Pebble's memtables and block cache
	UnabsorbedBytes int64  // of committed frames that Pebble has not taken in
	Syncs           uint64 // of the log; Frames over Syncs is how many checkpoints share one
	Frames          uint64 // written
	FrameBytes      uint64 // written
	Absorbed        uint64 // records that Pebble has taken in
}

// Stats reads the counters.
func (d *Disk) Stats() Stats {
	m := d.db.Metrics()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.mu.stats
	s.LogBytes, s.LogSegments, s.UnabsorbedBytes = d.mu.logBytes, len(d.mu.segments), d.mu.unabsorbedBytes
	s.StateBytes, s.MemoryBytes = int64(m.DiskSpaceUsage()), int64(m.MemTable.Size)+m.BlockCache.Size
	return s
}
