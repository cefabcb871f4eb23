package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	cdc "github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/raft"
	sink "github.com/weirstream/weir/sinks/postgres"
)

// Plan is a run, fixed by its seed.
type Plan struct {
	Seed      uint64
	Ahead     bool // large transactions are sent while they are open
	GoalBytes int
	InFlight  int
	Copies    int
	Unsynced  int // percent of what was not synced that a crash of a disk keeps
	Actions   []Action
	Finale    string
}

// Action is something that happens at a moment.
type Action struct {
	At   time.Duration
	Kind string
	N    []int
}

func (a Action) String() string { return fmt.Sprintf("%10s  %s %v", a.At, a.Kind, a.N) }

// active is how long users write and things break. Afterwards everything must come right by itself.
const active = 40 * time.Second

// points are the crash points that a node of the simulator passes. sinks/DESIGN.md says what each means.
func points() []failpoint.Point {
	return []failpoint.Point{cdc.FailCopyStart, cdc.FailRead, sink.FailBeforeApply, cdc.FailChunk, sink.FailLoad, sink.FailLoaded,
		sink.FailBeforeLedger, raft.FailUnknown, sink.FailBeforeCommit, sink.FailAfterCommit, cdc.FailConfirm, cdc.FailConfirmed}
}

// MakePlan draws a run.
func MakePlan(seed uint64) Plan {
	r := rand.New(rand.NewPCG(seed, 0))
	p := Plan{Seed: seed, Ahead: r.IntN(2) == 0, GoalBytes: []int{1, 300, 4000, 1 << 20}[r.IntN(4)], InFlight: 1 + r.IntN(4), Copies: 1 + r.IntN(3),
		Unsynced: []int{0, 0, 50, 100}[r.IntN(4)]}
	add := func(at time.Duration, kind string, n ...int) { p.Actions = append(p.Actions, Action{at, kind, n}) }
	at := func() time.Duration { return jitter(r, active) }

	for range 60 + r.IntN(100) {
		switch n := r.IntN(20); {
		case n < 8:
			add(at(), "transfer", r.IntN(8), r.IntN(8), 1+r.IntN(50))
		case n < 12:
			add(at(), "sequence", r.IntN(10), r.IntN(3))
		case n < 13:
			add(at(), "rename", r.IntN(10))
		case n < 15:
			add(at(), "bag", r.IntN(3), r.IntN(2))
		case n < 17:
			add(at(), "scratch", r.IntN(20))
		case n < 18:
			add(at(), "truncate", r.IntN(4))
		case n < 19:
			add(at(), "burst", 5+r.IntN(30))
		default:
			add(at(), "huge", 20+r.IntN(100), r.IntN(8), r.IntN(8))
		}
	}
	for i := range r.IntN(5) {
		begin := jitter(r, active-12*time.Second)
		step := func() time.Duration { begin += jitter(r, 2*time.Second); return begin }
		add(step(), "open", i)
		for range 1 + r.IntN(3) {
			add(step(), "open-rows", i, 1+r.IntN(20))
			if r.IntN(2) == 0 {
				add(step(), "open-sub", i, 1+r.IntN(10))
				if r.IntN(2) == 0 {
					add(step(), "open-rollback-to", i)
				}
			}
		}
		if r.IntN(4) == 0 {
			add(step(), "open-rollback", i)
		} else {
			add(step(), "open-commit", i)
		}
	}

	for range 4 + r.IntN(10) {
		switch r.IntN(16) {
		case 0, 1, 2:
			add(at(), "crash-at", r.IntN(len(points())), 1+r.IntN(4))
		case 3:
			add(at(), "crash")
		case 4:
			add(at(), "zombie", 500+r.IntN(9000))
		case 5:
			add(at(), "disk-fails")
		case 6, 7, 8:
			add(at(), "target-fault", 1+r.IntN(int(serverCrash)))
		case 9:
			add(at(), "target-fault", int(retryable))
		case 10:
			add(at(), "target-refuses", r.IntN(6000))
		case 11:
			add(at(), "target-crash", r.IntN(3), r.IntN(5000))
		case 12:
			add(at(), "source-cut")
		case 13:
			add(at(), "source-down", r.IntN(5000))
		case 14:
			add(at(), "pause", r.IntN(4000))
		case 15:
			add(at(), "refresh", r.IntN(4))
		}
	}
	// The first copy is short, and what breaks in it has to come early.
	early := func() time.Duration { return jitter(r, 400*time.Millisecond) }
	switch r.IntN(10) {
	case 0:
		add(0, "crash-at", 0, 1)
	case 1, 2:
		add(0, "crash-at", 4, 1+r.IntN(6))
	case 3, 4:
		add(0, "crash-at", 5, 1+r.IntN(6))
	case 5:
		add(0, "load-fault", int(dropBefore))
	case 6:
		add(0, "load-fault", int(dropAfter))
	case 7:
		add(early(), "crash")
	case 8:
		add(early(), "target-crash", r.IntN(5), 100)
	}
	if r.IntN(3) == 0 {
		begin := jitter(r, active-5*time.Second)
		add(begin, "target-fault", int(lateCommit))
		add(begin+time.Millisecond, "zombie", 6000)
		add(begin+2*time.Millisecond, "transfer", 0, 1, 1)
	}
	if r.IntN(4) == 0 {
		begin := jitter(r, active-8*time.Second)
		add(begin, "crash-at", 3, 1)
		add(begin+time.Second, "refresh", r.IntN(4))
		add(begin+3*time.Second, "refresh", r.IntN(4))
	}
	slices.SortStableFunc(p.Actions, func(a, b Action) int { return int(a.At - b.At) })
	p.Finale = []string{"", "", "", "", "target regressed", "source replaced", "slot moved", ""}[r.IntN(8)]
	return p
}
