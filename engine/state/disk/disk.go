// Package disk keeps the state of a worker's pipelines on its disk: every checkpoint that the catalog's manifest names
// can be brought back exactly, and none that it does not name.
//
// There are two places. The delta log takes what a checkpoint changed, with one fsync for all pipelines whose
// checkpoints come together; it is what makes a checkpoint durable. Pebble takes the same changes afterwards, in the
// background, without a write-ahead log and without syncs of its own, and is what the tasks read. After a crash Pebble
// may be behind; each pipeline's part of it is stamped with the checkpoint that it has taken in, and the log reaches back
// to what of that is on disk. The log never decides: a frame counts when the replicated manifest names its checkpoint,
// and is garbage otherwise.
//
// docs/formats/delta.md shows the bytes.
package disk

import (
	"context"
	"errors"

	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/internal/env"
)

// Options sizes a Disk. The zero value of a field means its default.
type Options struct {
	CacheBytes    int64 // Pebble's block cache; default 32 MiB
	MemTableBytes int   // Pebble's memtable, of which there may be a few; default 16 MiB
	LogBytes      int64 // how long the log may become before Pebble is flushed and the log cut; default 256 MiB
	SegmentBytes  int64 // from which length on a segment of the log is followed by the next; default LogBytes/8
	IngestRecords int   // from how many records on a delta enters Pebble as a table of its own; default 20,000
}

// Disk is the durable state of one worker process. Its methods may be called from any goroutine.
//
// The first error of a write or a sync is the last thing that a Disk does: what the file system kept is unknown then, and
// a second fsync that succeeds would prove nothing. Every later call returns that error; a new process recovers.
type Disk struct{}

var errNotYet = errors.New("not built yet")

// Open opens the state below dir, which nobody else may use meanwhile: Pebble in dir/state, the log in dir/log. It reads
// the log's frame heads; what they hold is read by Pipeline.Recover. It starts goroutines, which end with Close.
func Open(e *env.Env, dir string, o Options) (*Disk, error) { return nil, errNotYet }

// Err is the error that ended the Disk, or nil, and Failed is closed by it.
func (d *Disk) Err() error              { return nil }
func (d *Disk) Failed() <-chan struct{} { return nil }

// Close ends the goroutines and closes the files. No other call may be under way or follow, and no task may use a Backing.
func (d *Disk) Close() error { return errNotYet }

// Pipelines lists the pipelines that have something here, in order of name. Those that the catalog does not know any more
// are to be dropped, else their part of the log stays for ever.
func (d *Disk) Pipelines() []string { return nil }

// Pipeline opens the part of that name, or begins one, which takes a few fsyncs. Recover comes next.
func (d *Disk) Pipeline(name string) (*Pipeline, error) { return nil, errNotYet }

// Stats is what a Disk takes and has done.
type Stats struct {
	LogBytes        int64  // on disk
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
func (d *Disk) Stats() Stats { return Stats{} }

// Pipeline is one pipeline's part of a Disk. Recover and Drop are called while no other call is under way; Prepare one
// after another; the rest from any goroutine.
type Pipeline struct{}

// Restored is what a checkpoint held beside the tables.
type Restored struct {
	Frame           // of the checkpoint, to be compared with the manifest's; zero for checkpoint 0
	Meta     []byte // as given to Prepare: positions of the sources and the like
	Outboxes []uint64 // checkpoints, in order, whose outbox may not have been published; Outbox gives them
}

// Recover brings the tables to checkpoint, the one that the replicated manifest names; 0 is before the first, and leaves
// nothing. What was prepared after it and for checkpoints that were aborted is dropped for ever. It is an error (W5010)
// if a frame that checkpoint needs is missing or damaged, or if the tables are further than that; nothing is changed
// then. It may be called again later, when tasks have failed and start anew.
func (p *Pipeline) Recover(checkpoint uint64) (Restored, error) { return Restored{}, errNotYet }

// Backing is what the tasks read. What it gives is the recovered checkpoint's state and every absorbed one since. Several
// tasks may use it at a time.
func (p *Pipeline) Backing() state.Backing { return nil }

// Frame is a checkpoint in the log.
type Frame struct {
	Checkpoint uint64
	Bytes      int64    // in the log
	Digest     [16]byte // xxh3 over what it holds
}

// Prepare appends a checkpoint and returns when it is on disk. deltas are those of all tasks and are sorted already
// (Delta.Sort); they, outbox (what sinks will publish; may be empty) and meta may be used again when it returns.
// checkpoint is above every earlier one of the pipeline.
//
// Each checkpoint builds on the one prepared before it. Prepare waits while committed deltas that Pebble has yet to take
// in are longer than the log may be; ctx ends only that wait.
func (p *Pipeline) Prepare(ctx context.Context, checkpoint uint64, deltas []*state.Delta, outbox, meta []byte) (Frame, error) {
	return Frame{}, errNotYet
}

// Commit: the manifest that names the checkpoint is replicated, and so are those that it builds on. Their deltas flow
// into Pebble in the background.
func (p *Pipeline) Commit(checkpoint uint64) {}

// Abort: no manifest will ever name the checkpoint, nor those that build on it. The tasks have to be recovered: what they
// changed in it is in no later delta.
func (p *Pipeline) Abort(checkpoint uint64) {}

// Absorbed is the checkpoint up to which Pebble, and so Backing, has everything: what state.Store.Absorbed wants to hear.
func (p *Pipeline) Absorbed() uint64 { return 0 }

// Outbox is what the sinks prepared in a committed checkpoint that is not published yet; empty if that was nothing.
func (p *Pipeline) Outbox(checkpoint uint64) ([]byte, error) { return nil, errNotYet }

// Published: the outboxes up to checkpoint are not needed any more. A crash may forget that; publishing twice is the
// sinks' to notice.
func (p *Pipeline) Published(checkpoint uint64) {}

// Drop deletes everything of the pipeline, durably. The Pipeline is of no use afterwards; a new one of the same name
// begins with nothing.
func (p *Pipeline) Drop() error { return errNotYet }
