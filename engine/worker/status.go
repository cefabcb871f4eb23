package worker

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
)

// Phase is where a Pipe stands.
type Phase uint8

// The phases in their order.
const (
	PhasePrepare Phase = iota
	PhaseCopy
	PhaseCatchUp
)

// Status is what a Pipe tells about itself.
type Status struct {
	Phase      Phase
	Since      time.Time
	Checkpoint dataflow.Checkpoint // visible
	Durable    dataflow.Checkpoint
	Rows       int64
	Bytes      int64
	// State of the newest visible and durable cuts that moved a key.
	Visible, Stored map[string][]byte
	// LastCommit is the source's time of the newest transaction that is visible, Written of the newest that was handed
	// to the target.
	LastCommit, Written time.Time
}

type status struct {
	rows, bytes atomic.Int64
	mu          sync.Mutex
	s           Status
}

func (t *status) set(fn func(*Status)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fn(&t.s)
}

func (t *status) wrote(commit time.Time) {
	if commit.IsZero() {
		return
	}
	t.set(func(s *Status) { s.Written = commit })
}

func (t *status) written() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.s.Written
}

func (t *status) visible(n dataflow.Checkpoint, commit time.Time, state []dataflow.StateChange) {
	t.set(func(s *Status) {
		s.Checkpoint, s.LastCommit = n, commit
		s.Visible = keep(s.Visible, state)
	})
}

func (t *status) durable(n dataflow.Checkpoint, state []dataflow.StateChange) {
	t.set(func(s *Status) {
		s.Durable = n
		s.Stored = keep(s.Stored, state)
	})
}

// keep remembers only the keys that a status shows.
func keep(m map[string][]byte, state []dataflow.StateChange) map[string][]byte {
	for _, c := range state {
		if c.Key == "position" {
			m = map[string][]byte{c.Key: c.Value}
		}
	}
	return m
}

// Status returns a copy.
func (p *Pipe) Status() Status {
	p.status.mu.Lock()
	defer p.status.mu.Unlock()
	s := p.status.s
	s.Rows, s.Bytes = p.status.rows.Load(), p.status.bytes.Load()
	return s
}

func largestFirst(ranges []dataflow.Range) []dataflow.Range {
	out := slices.Clone(ranges)
	slices.SortStableFunc(out, func(a, b dataflow.Range) int {
		switch {
		case a.EstBytes > b.EstBytes:
			return -1
		case a.EstBytes < b.EstBytes:
			return 1
		}
		return 0
	})
	return out
}
