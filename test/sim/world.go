package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
)

// world is one run.
type world struct {
	plan       Plan
	mutant     mutant
	chk        *checker
	src        *sourceDB
	dst        *targetDB
	load       *workload
	rng        *rand.Rand // of the world's goroutine
	node       *node      // nil while none runs
	nodes      int
	crashed    chan *node
	firstImage *vfs.MemFS // for mutantNoSync
	reaping    sync.WaitGroup
	timers     sync.WaitGroup
	stuck      bool // goroutines are left that will not end
}

// Result is what a run found.
type Result struct {
	Seed       uint64         `json:"seed"`
	Violations []string       `json:"violations"`
	Counts     map[string]int `json:"counts"`
	Trace      []string       `json:"trace,omitempty"`
	Commits    int            `json:"commits"` // visible states that were compared
	Virtual    time.Duration  `json:"virtual"`
	Stuck      bool           `json:"stuck,omitempty"` // goroutines are left; the process has to end
}

// run plays a plan in the caller's bubble. It returns after the last goroutine of the run has ended.
func run(plan Plan, m mutant) Result {
	chk := newChecker()
	w := &world{plan: plan, mutant: m, chk: chk, rng: rand.New(rand.NewPCG(plan.Seed, 9)), crashed: make(chan *node, 16)}
	w.src = newSourceDB(chk, tables()...)
	w.dst = newTargetDB(chk, m, tables()...)
	chk.src = w.src
	w.load = newWorkload(w)
	ctx := context.Background()
	w.boot(vfs.NewCrashableMem())
	backupAt := jitter(w.rng, active)
	for _, a := range plan.Actions {
		if a.At > backupAt && w.dst.backup == nil {
			w.dst.takeBackup()
		}
		w.until(chk.start.Add(a.At))
		if chk.broken() {
			break
		}
		chk.tell("%s %v", a.Kind, a.N)
		if !w.load.do(a) {
			w.fault(ctx, a)
		}
	}
	if !chk.broken() {
		w.until(chk.start.Add(active))
		w.heal()
		w.arrive()
	}
	if !chk.broken() && plan.Finale != "" {
		w.finale()
	}
	w.end()
	chk.mu.Lock()
	defer chk.mu.Unlock()
	return Result{Seed: plan.Seed, Violations: chk.violations, Counts: chk.counts, Trace: chk.trace, Commits: chk.strict, Virtual: time.Since(chk.start), Stuck: w.stuck}
}

// boot starts a node on a disk. A death after the start lies in the channel and is dealt with there.
func (w *world) boot(disk *vfs.MemFS) {
	w.nodes++
	n := newNode(w, w.nodes, disk)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w.node = n
	if err := n.start(ctx); err != nil && !n.dead.Load() {
		w.chk.wrong("node %d does not start: %v", n.number, err)
	}
}

// until lets the world go on up to a moment, and starts nodes anew that die.
func (w *world) until(at time.Time) {
	for {
		timer := time.NewTimer(time.Until(at))
		select {
		case n := <-w.crashed:
			timer.Stop()
			w.bury(n)
		case <-timer.C:
			return
		}
	}
}

// bury ends what is left of a dead node and starts the next one on its disk.
func (w *world) bury(n *node) {
	w.reaping.Add(1)
	// A ghost is left alone until the proposals it had under way are answered: closed in the middle of one, raft.Node
	// waits for ever for an answer that hashicorp/raft drops with its queue to the state machine. The odd nanoseconds
	// keep the moment apart from the ghost's own timers.
	haunts := time.Second + 7
	if n.zombie.Load() {
		haunts = 6*time.Second + 7
	}
	go func() {
		defer w.reaping.Done()
		time.Sleep(haunts)
		n.link.cut()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = n.reap(ctx) // it is dead
	}()
	if w.chk.broken() {
		return
	}
	time.Sleep(jitter(w.rng, 2*time.Second))
	w.boot(n.image)
}

// fault carries out what is not a user's.
func (w *world) fault(ctx context.Context, a Action) {
	n := w.node
	after := func(d time.Duration, fn func()) {
		w.timers.Add(1)
		go func() {
			defer w.timers.Done()
			time.Sleep(d)
			fn()
		}()
	}
	ms := func(i int) time.Duration { return time.Duration(a.N[i]) * time.Millisecond }
	switch a.Kind {
	case "crash-at":
		p, left := points()[a.N[0]], a.N[1]
		var mu sync.Mutex
		n.env.Fail.Arm(p, func() error {
			mu.Lock()
			defer mu.Unlock()
			if left--; left != 0 || n.dead.Load() {
				return nil
			}
			w.chk.sometimes("crash at " + string(p))
			return failpoint.ErrKill
		})
		if strings.HasPrefix(string(p), "X7") {
			// Pausing and resuming makes the catalog decide something.
			after(100*time.Millisecond, func() { w.repeatedly(ctx, n) })
		}
	case "crash":
		w.chk.sometimes("node: crash at any moment")
		n.crash(failpoint.ErrKill)
	case "zombie":
		w.chk.sometimes("zombie: pipe outlives its node")
		n.zombie.Store(true)
		w.dst.faults.keep(true)
		after(8*time.Second, func() { w.dst.faults.keep(false) })
		n.crash(failpoint.ErrKill)
	case "disk-fails":
		n.badSync.Store(true)
		after(50*time.Millisecond, func() { w.repeatedly(ctx, n) })
	case "target-fault":
		w.dst.faults.arm(targetFault(a.N[0]))
	case "load-fault":
		w.dst.faults.armLoad(targetFault(a.N[0]))
	case "target-refuses":
		w.dst.faults.refuse(time.Now().Add(ms(0)))
		w.dst.crash(1000, false)
	case "target-crash":
		w.chk.sometimes("target: server down")
		w.dst.crash(a.N[0], true)
		after(ms(1), w.dst.up)
	case "source-cut":
		w.chk.sometimes("source: connection lost")
		w.src.restart(false)
	case "source-down":
		w.chk.sometimes("source: server down")
		w.src.restart(true)
		after(ms(0), func() { w.src.restart(false) })
	case "pause":
		after(0, func() {
			if _, err := n.c.Pause(ctx, pipelineName); err == nil {
				w.chk.sometimes("node: paused")
			}
			time.Sleep(ms(0))
			_, _ = n.c.Resume(ctx, pipelineName) // tried again at the end
		})
	case "refresh":
		n.mu.Lock()
		src := n.source
		n.mu.Unlock()
		if src != nil {
			src.Refresh([]string{"acct_a", "seq", "scratch", "bag"}[a.N[0]])
		}
	default:
		panic("no action " + a.Kind)
	}
}

// repeatedly makes the catalog of a node decide things, so that its log is written.
func (w *world) repeatedly(ctx context.Context, n *node) {
	if n.c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, _ = n.c.Pause(ctx, pipelineName)  // the answer may be that the node has died,
	_, _ = n.c.Resume(ctx, pipelineName) // which is the point
}

// heal ends every fault.
func (w *world) heal() {
	w.timers.Wait()
	w.dst.faults.clear()
	w.dst.up()
	w.src.restart(false)
	for _, p := range points() {
		w.node.env.Fail.Arm(p, nil)
	}
	w.node.badSync.Store(false)
	w.until(time.Now().Add(time.Second))
	for _, p := range points() {
		w.node.env.Fail.Arm(p, nil)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := w.node.c.Resume(ctx, pipelineName); err != nil {
		w.chk.wrong("resume: %v", err)
	}
	w.chk.tell("faults end")
}

// patience is how long everything may take to arrive once nothing breaks any more: the longest back-off and the
// slowest timers, several times over.
const patience = 5 * time.Minute

// arrive waits until the target holds everything and the slot has followed.
func (w *world) arrive() {
	limit := time.Now().Add(patience)
	for {
		end := w.src.end()
		if w.dst.position() >= end && w.src.slotAt() >= end {
			break
		}
		if time.Now().After(limit) {
			v, err := w.node.c.Pipeline(pipelineName)
			w.chk.wrong("the source ends at %s, the target stands at %s and the slot at %s after %s; pipeline %s %+v %v",
				end, w.dst.position(), w.src.slotAt(), patience, v.Status.Phase, v.Status.Error, err)
			return
		}
		w.until(time.Now().Add(200 * time.Millisecond))
		if w.chk.broken() {
			return
		}
	}
	source, at := w.src.view()
	w.dst.mu.Lock()
	defer w.dst.mu.Unlock()
	if diff := w.dst.db.differs(source); diff != "" {
		w.chk.wrong("at the end, %s, the target is not the source: %s", at, diff)
	}
	w.chk.tell("everything arrived")
}

// finale takes the history away that the pipeline stands on. It must stop with a named error and not go on.
func (w *world) finale() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	want := errs.SlotGap
	switch w.plan.Finale {
	case "target regressed": // X14
		if w.dst.backup == nil {
			return // the run was over before there was one
		}
		at := w.dst.restoreBackup(w.chk.reset)
		if at >= w.src.slotAt() {
			return // nothing is missing
		}
		if w.dst.backup.checkpoint == 0 {
			return // there was nothing yet; the pipeline copies anew
		}
		w.chk.sometimes("X14: target put back to an older state")
	case "source replaced": // X15
		w.src.mu.Lock()
		w.src.system = "2"
		w.src.mu.Unlock()
		w.src.restart(false)
		want = errs.SourceReplaced
		w.chk.sometimes("X15: another server answers at the source's address")
	case "slot moved": // X15
		if _, err := w.node.c.Pause(ctx, pipelineName); err != nil {
			w.chk.wrong("pause: %v", err)
		}
		if _, err := w.node.c.WaitPhase(ctx, pipelineName, api.PhasePaused); err != nil {
			w.chk.wrong("pause: %v", err)
		}
		w.load.commit(w.load.transfer(0, 1, 1)...)
		w.src.moveSlot()
		if _, err := w.node.c.Resume(ctx, pipelineName); err != nil {
			w.chk.wrong("resume: %v", err)
		}
		w.chk.sometimes("X15: somebody else moved the slot")
	}
	_, err := w.node.c.WaitPhase(ctx, pipelineName, api.PhaseFailed)
	if !errs.Is(err, want) {
		if v, verr := w.node.c.Pipeline(pipelineName); verr == nil && v.Status.Error != nil && v.Status.Error.Code == string(want) {
			return
		}
		w.chk.wrong("%s: the pipeline does not stop with %s: %v", w.plan.Finale, want, err)
	}
}

// end closes everything and waits for it.
func (w *world) end() {
	w.timers.Wait()
	w.dst.faults.clear()
	w.dst.up()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		select {
		case n := <-w.crashed:
			w.bury(n)
			continue
		default:
		}
		break
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if !w.node.dead.Load() {
			if err := w.node.reap(ctx); err != nil && !w.chk.broken() && !errors.Is(err, context.Canceled) {
				w.chk.wrong("close: %v", err)
			}
		}
		w.reaping.Wait()
	}()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		w.chk.wrong("a node was closed and has not ended after %s", patience)
		w.stuck = true
	}
}

// describe prints a plan.
func (p Plan) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: ahead %t, goal %d bytes, %d in flight, %d copies at once, %d%% of unsynced kept, finale %q\n", p.Seed, p.Ahead, p.GoalBytes, p.InFlight, p.Copies, p.Unsynced, p.Finale)
	for _, a := range p.Actions {
		fmt.Fprintln(&b, a)
	}
	return b.String()
}
