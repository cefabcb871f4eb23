// Package checkpoint decides when a pipeline's epochs end. It is a step function: what happened goes in, whether to cut
// comes out; the worker does the rest, and a simulator can drive it through any order of events.
package checkpoint

import (
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/invariants"
)

// Options bounds epochs. The zero value of a field means its default.
type Options struct {
	// GoalBytes: with a cut in flight the next one waits for so much, so that the target always has work queued and
	// transactions grow with the backlog. Default 4 MiB.
	GoalBytes int
	// InFlight is how many cuts the target may be working on. Default 2: one being applied, one sent behind it.
	InFlight int
	// MarkPeriod is how long a moved position without rows waits to be stored. Default 500 ms.
	MarkPeriod time.Duration
	// Interval is the shortest time between two cuts. Default 0.
	Interval time.Duration
}

// Driver is the epoch driver of one pipeline.
//
// The first transaction after a pause is cut at once, since nothing is in flight: low load means small epochs and low
// latency. While a cut is in flight, rows gather; when it is done, or when enough have gathered to keep the target busy,
// the next one is made. No timer decides it.
type Driver struct {
	opts Options

	last     dataflow.Checkpoint // handed out
	visible  dataflow.Checkpoint
	durable  dataflow.Checkpoint
	inFlight int

	bytes    int  // gathered since the last cut
	effects  bool // something that a reader of the target would see
	state    bool // state to be stored
	boundary bool // the last message allows a cut
	since    time.Time
	lastCut  time.Time
}

// NewDriver starts behind the checkpoint that was restored.
func NewDriver(opts Options, restored dataflow.Checkpoint) *Driver {
	if opts.GoalBytes == 0 {
		opts.GoalBytes = 4 << 20
	}
	if opts.InFlight == 0 {
		opts.InFlight = 2
	}
	if opts.MarkPeriod == 0 {
		opts.MarkPeriod = 500 * time.Millisecond
	}
	return &Driver{opts: opts, last: restored, visible: restored, durable: restored}
}

// Wrote notes a message that was given to the target. effects: it changes what a reader sees.
func (d *Driver) Wrote(now time.Time, bytes int, effects, state, boundary bool) {
	if !d.effects && !d.state {
		d.since = now
	}
	d.bytes += bytes
	d.effects = d.effects || effects
	d.state = d.state || state
	d.boundary = boundary
}

// Due tells whether to cut now, and otherwise how long until a cut is due by time alone; 0 means that only an event can
// bring one. more: another message is waiting to be written.
func (d *Driver) Due(now time.Time, more bool) (cut bool, wait time.Duration) {
	if !d.boundary || d.inFlight >= d.opts.InFlight {
		return false, 0
	}
	if d.opts.Interval > 0 && (d.effects || d.state) {
		if age := now.Sub(d.lastCut); age < d.opts.Interval {
			return false, d.opts.Interval - age
		}
	}
	if d.effects {
		return d.inFlight == 0 || d.bytes >= d.opts.GoalBytes, 0
	}
	if !d.state {
		return false, 0
	}
	// What is waiting may have rows, and then the position goes with them. But a source whose position moves all the
	// time without rows must not be put off for ever: its log would grow.
	period := d.opts.MarkPeriod
	if more {
		period *= 2
	}
	if age := now.Sub(d.since); age < period {
		return false, period - age
	}
	return d.inFlight == 0, 0
}

// Cut hands out the next checkpoint's number.
func (d *Driver) Cut(now time.Time) dataflow.Checkpoint {
	invariants.Check(d.boundary, "cut inside a source transaction")
	d.last++
	d.lastCut = now
	d.inFlight++
	d.bytes, d.effects, d.state = 0, false, false
	return d.last
}

// Pending tells whether something was written that no cut has taken up.
func (d *Driver) Pending() bool { return d.effects || d.state }

// AtBoundary tells whether a cut is allowed.
func (d *Driver) AtBoundary() bool { return d.boundary }

// Idle tells whether no cut is in flight.
func (d *Driver) Idle() bool { return d.inFlight == 0 }

// Acked takes a target's word. Cuts become visible one after another, and durable after visible.
func (d *Driver) Acked(a dataflow.Ack) {
	if a.Durable {
		invariants.Check(a.Checkpoint >= d.durable && a.Checkpoint <= d.visible, "checkpoint %d durable, %d visible", a.Checkpoint, d.visible)
		d.durable = a.Checkpoint
		return
	}
	invariants.Check(a.Checkpoint == d.visible+1, "checkpoint %d visible after %d", a.Checkpoint, d.visible)
	d.visible = a.Checkpoint
	d.inFlight--
}

// Visible and Durable are the newest checkpoints that are so.
func (d *Driver) Visible() dataflow.Checkpoint { return d.visible }

// Durable is the newest checkpoint that a crash of the target cannot take back.
func (d *Driver) Durable() dataflow.Checkpoint { return d.durable }
