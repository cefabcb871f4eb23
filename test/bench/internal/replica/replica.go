// Package replica promises that the contenders of the mirror benchmark are driven alike: prepared off the clock, then
// started, paused and resumed by one order each, and gone without a trace at the end of a turn.
package replica

import (
	"context"

	"github.com/weirstream/weir/test/bench/internal/lab"
)

// A Replica makes the target of a lab.Pair a replica of its source. One value serves one turn.
type Replica interface {
	// Prepare does what is not measured. The target is empty then; the source has these tables.
	Prepare(ctx context.Context, tables []lab.Table) error
	// Start orders the first copy and does not wait for it.
	Start(ctx context.Context) error
	// Following tells whether all tables are copied and followed, by the replica's own word.
	Following(ctx context.Context) (bool, error)
	// Pause returns when nothing reads the source any more.
	Pause(ctx context.Context) error
	// Resume orders the replica to go on and does not wait for anything.
	Resume(ctx context.Context) error
	// Check returns why the replica will not get any further, or nil.
	Check(ctx context.Context) error
	// PID is the process of its own that a replica has, or 0.
	PID() int
	// Stop ends the replica; nothing of it is running afterwards. Peak is the most memory its own process had.
	Stop(ctx context.Context) (peakBytes int64, err error)
	// Log is the end of what it wrote about itself.
	Log() string
}
