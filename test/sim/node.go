package sim

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/engine/checkpoint"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/worker"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
)

// node is one life of the weir process: from a disk as a crash left it to the next crash. A dead node's goroutines go on
// for a while, as nothing can end them from outside; its disk is a copy that nobody will read, and its link is cut, so
// nothing they do matters any more. With a zombie the link stays up for a time.
type node struct {
	w      *world
	number int
	env    *env.Env
	disk   *vfs.MemFS
	link   *link
	state  *coordinator.State
	c      *coordinator.Coordinator

	badSync atomic.Bool // the next sync fails
	dead    atomic.Bool
	zombie  atomic.Bool
	image   *vfs.MemFS // the disk at the moment of the crash

	mu     sync.Mutex
	starts int
	source *source // of the running pipe
}

var errDisk = errors.New("the disk failed")

// stream derives a random stream from the run's seed and a name.
func stream(seed uint64, name string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", seed, name)
	return h.Sum64()
}

type seeded struct {
	seed uint64
	name string
}

func (s seeded) Stream(name string) *rand.Rand {
	return rand.New(rand.NewPCG(stream(s.seed, s.name+" "+name), 0))
}

type ids struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (i *ids) New() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var b [16]byte
	for j := range b {
		b[j] = byte(i.rng.IntN(256))
	}
	return hex.EncodeToString(b[:])
}

// noNet: nothing in a node opens a socket.
type noNet struct{}

var errNoNet = errors.New("a simulated node has no network")

func (noNet) DialContext(context.Context, string, string) (net.Conn, error) { return nil, errNoNet }
func (noNet) DialSmall(context.Context, string, string, int) (net.Conn, error) {
	return nil, errNoNet
}
func (noNet) Listen(context.Context, string, string) (net.Listener, error) { return nil, errNoNet }

func newNode(w *world, number int, disk *vfs.MemFS) *node {
	n := &node{w: w, number: number, disk: disk, link: &link{}}
	name := fmt.Sprintf("node %d", number)
	n.env = env.Real(nil) // its clock is the bubble's
	n.env.Rand = seeded{w.plan.Seed, name}
	n.env.IDs = &ids{rng: rand.New(rand.NewPCG(stream(w.plan.Seed, name+" ids"), 0))}
	n.env.Net = noNet{}
	n.env.Crash = n.crash
	n.env.FS = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			if n.badSync.CompareAndSwap(true, false) {
				w.chk.sometimes("node: sync failed")
				return errDisk
			}
		}
		return nil
	}))
	return n
}

// crash kills the node. It is called by the node itself, at any place, and by the plan. It comes back, and whoever
// called goes on as a ghost.
func (n *node) crash(reason error) {
	if !n.dead.CompareAndSwap(false, true) {
		return
	}
	if !errors.Is(reason, failpoint.ErrKill) && !errs.Is(reason, errs.DiskFailed) {
		n.w.chk.wrong("node %d ended itself: %v", n.number, reason)
	}
	n.w.chk.tell("node %d dies: %.200v", n.number, reason)
	rng := rand.New(rand.NewPCG(stream(n.w.plan.Seed, fmt.Sprintf("crash %d", n.number)), 0))
	unsynced := n.w.plan.Unsynced
	n.image = n.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rng})
	if n.w.mutant == mutantNoSync && n.w.firstImage != nil {
		n.image = n.w.firstImage.CrashClone(vfs.CrashCloneCfg{})
	} else if n.w.firstImage == nil && n.number > 1 {
		n.w.firstImage = n.image.CrashClone(vfs.CrashCloneCfg{})
	}
	if n.zombie.Load() {
		n.link.isolate()
	} else {
		n.link.cut()
	}
	n.w.crashed <- n
}

const pipelineName = "sim"

// start opens the node and makes sure that it knows the pipeline.
func (n *node) start(ctx context.Context) error {
	var err error
	if n.state, err = coordinator.OpenState(n.env, "/state"); err != nil {
		return err
	}
	n.c, err = coordinator.Open(ctx, n.env, coordinator.Options{State: n.state, Runner: &runner{n}})
	if err != nil {
		return errors.Join(err, n.state.Close())
	}
	if _, err := n.c.Pipeline(pipelineName); !errs.Is(err, errs.PipelineNotFound) {
		return err
	}
	_, err = n.c.CreateMirror(ctx, api.MirrorSpec{Name: pipelineName, Source: api.Connection{Name: "s", URL: "postgres://source/db"},
		Target: api.Connection{Name: "t", URL: "postgres://target/db"}, Tables: []string{"*"}})
	return err
}

// reap ends the goroutines of a node, dead or alive.
func (n *node) reap(ctx context.Context) error {
	if n.c == nil {
		return nil
	}
	err := n.c.Close(ctx)
	return errors.Join(err, n.state.Close())
}

// runner is what the coordinator runs: a Pipe between the models.
type runner struct{ n *node }

// Start implements coordinator.Runner.
func (r *runner) Start(_ context.Context, _ api.Pipeline, gen dataflow.Generation) (coordinator.Running, error) {
	n := r.n
	n.mu.Lock()
	n.starts++
	name := fmt.Sprintf("node %d start %d", n.number, n.starts)
	n.mu.Unlock()
	w := n.w
	if w.mutant == mutantOldGeneration {
		gen = 1
	}
	seed := w.plan.Seed
	src := newSource(n.env, w.src, n.link, rand.New(rand.NewPCG(stream(seed, name+" source"), 0)), w.chk, w.mutant, w.plan.Ahead)
	dst := newTarget(n.env, w.dst, n.link, stream(seed, name+" target"), w.mutant)
	pipe := worker.New(n.env, worker.Options{Source: src, Target: dst, Generation: gen, Copies: w.plan.Copies,
		Epochs: checkpoint.Options{GoalBytes: w.plan.GoalBytes, InFlight: w.plan.InFlight}})
	w.chk.tell("%s: generation %d", name, gen)
	n.mu.Lock()
	n.source = src
	n.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	run := &running{pipe: pipe, cancel: cancel, done: make(chan struct{})}
	n.env.Go("pipe", func() {
		defer close(run.done)
		defer cancel()
		run.err = pipe.Run(ctx)
		w.chk.tell("%s: generation %d ends: %.300v", name, gen, run.err)
	})
	return run, nil
}

// Remove implements coordinator.Runner.
func (r *runner) Remove(context.Context, api.Pipeline) error { return nil }

// running implements coordinator.Running.
type running struct {
	pipe   *worker.Pipe
	cancel context.CancelFunc
	done   chan struct{}
	err    error // once done is closed
}

func (r *running) Done() <-chan struct{} { return r.done }
func (r *running) Err() error            { return r.err }

func (r *running) Status() api.PipelineStatus {
	s := r.pipe.Status()
	return api.PipelineStatus{Phase: api.PhaseLive, Checkpoint: uint64(s.Checkpoint), Durable: uint64(s.Durable)}
}

func (r *running) Source(context.Context) (api.SourceStatus, error) { return api.SourceStatus{}, nil }
func (r *running) Command(context.Context, api.Command) error       { return nil }

func (r *running) Stop(ctx context.Context) error {
	r.pipe.Stop()
	select {
	case <-r.done:
	case <-ctx.Done():
		r.cancel()
		<-r.done
		return ctx.Err()
	}
	return nil
}
