// Package raft replicates decisions: an entry whose Apply returned a result is on stable storage of a quorum, and every
// node applies the same entries in the same order.
//
// It wraps hashicorp/raft with what that library leaves open. Its log, stable values and snapshots lie in Pebble and in
// checksummed files, and the first write or sync that fails ends the process: hashicorp/raft would step down and go on,
// and the next fsync of a page the kernel has already dropped may falsely succeed. Nothing is acknowledged after such a
// failure, also not in a simulator where the process lives on. docs/formats/raft.md shows the bytes.
//
// The library runs its own goroutines and timers; they end with Shutdown. A simulator runs it under testing/synctest.
package raft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/internal/format/record"
)

// What became of a proposal that has no result.
var (
	// ErrNotApplied: the entry was not appended and never will be. Proposing again is safe.
	ErrNotApplied = errors.New("not applied")
	// ErrUnknown: the entry may have been appended and may yet be applied (crash point X7). The proposer must do
	// nothing on the strength of it. Whoever leads next calls Barrier and reads the state machine: what is there
	// counts, what is not there will not come any more.
	ErrUnknown = errors.New("outcome unknown")
)

// FailUnknown is crash point X7: the entry is decided, but its proposer does not learn it.
const FailUnknown failpoint.Point = "X7"

// MaxEntry is the largest entry in bytes. Big data does not belong into the log: it stalls heartbeats.
const MaxEntry = 1 << 20

// FSM is the state machine behind the log. Apply and Snapshot are called from one goroutine, in log order.
type FSM interface {
	// Apply changes the state by an entry; index is its place in the log. It must be deterministic: no clock, no
	// chance, no map order. A refusal is a result. An error means that this node cannot know the state from here on
	// (an entry it does not understand), and ends the process.
	Apply(index uint64, entry []byte) (result any, err error)
	// Snapshot captures the state. It must be quick; writing happens beside later Apply calls.
	Snapshot() (io.WriterTo, error)
	// Restore replaces the state. On an error the state must be as before.
	Restore(r io.Reader) error
}

// Options configures a Node.
type Options struct {
	Dir    string // required; the node owns it
	NodeID string // required; stable for the life of Dir
	FSM    FSM    // required

	// Transport reaches the other nodes. Nil is the transport of a cluster of one, which opens no port.
	Transport hraft.Transport

	SnapshotEvery uint64        // entries between snapshots; default 1024
	Trailing      uint64        // entries kept behind a snapshot; default 256
	StallLimit    time.Duration // a write that takes longer ends the process; default 20s
	EnqueueLimit  time.Duration // how long Apply waits for its turn; default 10s
}

// Node is one member of the cluster.
type Node struct {
	env *env.Env
	// futures runs the waits for the library's answers. Shutdown does not wait for them: proposals that stand in the
	// library's queue then are never answered.
	futures *env.Env
	opts    Options
	raft    *hraft.Raft
	guard   *guard
	disk    *store
	snaps   *snapshots

	leadership chan bool
	stop       chan struct{}
	stopOnce   sync.Once
	shutErr    error

	mu struct {
		sync.Mutex
		leader  bool
		changed chan struct{} // closed and replaced when leader changes
	}
}

// soleAddress is how a cluster of one names itself in its configuration. A node that gets a transport later replaces
// it through a configuration change.
const soleAddress = "local"

// Open starts the node, restores its state machine and, when Dir is new, makes it the only voter of a new cluster. It
// returns before there is a leader.
func Open(e *env.Env, opts Options) (*Node, error) {
	if opts.Dir == "" || opts.NodeID == "" || opts.FSM == nil {
		return nil, errs.New(errs.RaftFailed, "open raft: directory, node id and state machine are required")
	}
	opts.SnapshotEvery = orDefault(opts.SnapshotEvery, 1024)
	opts.Trailing = orDefault(opts.Trailing, 256)
	opts.StallLimit = orDefault(opts.StallLimit, 20*time.Second)
	opts.EnqueueLimit = orDefault(opts.EnqueueLimit, 10*time.Second)

	n := &Node{
		env: e.With("part", "raft"), futures: e.With(), opts: opts,
		leadership: make(chan bool, 8), stop: make(chan struct{}),
	}
	n.mu.changed = make(chan struct{})
	n.guard = newGuard(n.env)
	if err := n.open(); err != nil {
		n.stopGoroutines()
		if n.disk != nil && n.guard.err() == nil {
			_ = n.disk.close() // the first error is the one to tell
		}
		return nil, errs.From(err, errs.StateCorrupt)
	}
	return n, nil
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func (n *Node) open() (err error) {
	// While the node opens, a failure of the guard panics through the libraries to here, because hashicorp/raft and
	// Pebble report some of them by panicking anyway. From then on it ends the goroutine it happens in.
	defer func() {
		if r := recover(); r != nil {
			if cause := n.guard.err(); cause != nil {
				err = cause
				return
			}
			err = errs.New(errs.StateCorrupt, "open raft in %s: %v", n.opts.Dir, r).
				WithHint("restore the state directory from a backup; the files in it do not fit together")
		}
	}()
	fs := n.env.FS
	for _, dir := range []string{"log", "snapshots"} {
		if err := record.MkdirAll(fs, fs.PathJoin(n.opts.Dir, dir), 0o700); err != nil {
			return errs.New(errs.DiskFailed, "create the raft directory: %v", err)
		}
	}
	if n.disk, err = openStore(fs, fs.PathJoin(n.opts.Dir, "log"), n.guard); err != nil {
		return err
	}
	n.snaps, err = openSnapshots(n.env, fs.PathJoin(n.opts.Dir, "snapshots"), n.guard)
	if err != nil {
		return err
	}
	if err := checkNoGap(n.disk, n.snaps); err != nil {
		return err
	}

	transport, sole := n.opts.Transport, n.opts.Transport == nil
	if sole {
		_, own := hraft.NewInmemTransport(soleAddress)
		own.Connect(soleAddress, own)
		transport = own
	}
	conf := n.config()
	fresh, err := n.isFresh()
	if err != nil {
		return err
	}
	if fresh {
		self := hraft.Configuration{Servers: []hraft.Server{{
			ID: conf.LocalID, Address: transport.LocalAddr(), Suffrage: hraft.Voter,
		}}}
		if err := hraft.BootstrapCluster(conf, n.disk, n.disk, n.snaps, transport, self); err != nil {
			return errs.New(errs.RaftFailed, "found the cluster in %s: %v", n.opts.Dir, err)
		}
	}
	machine := &machine{fsm: n.opts.FSM, guard: n.guard}
	r, err := hraft.NewRaft(conf, machine, n.disk, n.disk, n.snaps, transport)
	if err != nil {
		return errs.New(errs.StateCorrupt, "open raft in %s: %v", n.opts.Dir, errors.Join(err, machine.restoreErr))
	}
	n.raft = r
	// hashicorp/raft falls back to an older snapshot when the newest does not restore, and later trips over the log
	// that was compacted up to the newest. The files were verified, so this is a state machine that cannot read what
	// it wrote.
	if machine.restoreErr != nil {
		_ = r.Shutdown().Error() // always nil
		return errs.New(errs.StateCorrupt, "restore the newest snapshot in %s: %v", n.opts.Dir, machine.restoreErr).
			WithHint("if a newer weir wrote this state directory, start that version")
	}
	n.guard.opened(func() { r.Shutdown() })
	n.env.Go("raft leadership", n.followLeadership)
	n.env.Go("raft stall watch", n.watchStalls)
	if sole {
		n.env.Go("raft sole election", func() { n.electSelf(transport) })
	}
	return nil
}

func (n *Node) config() *hraft.Config {
	c := hraft.DefaultConfig()
	c.LocalID = hraft.ServerID(n.opts.NodeID)
	c.Logger = newLogger(n.env.Log)
	c.NotifyCh = n.leadership
	c.SnapshotThreshold = n.opts.SnapshotEvery
	c.SnapshotInterval = 30 * time.Second
	c.TrailingLogs = n.opts.Trailing
	c.NoLegacyTelemetry = true
	return c
}

// isFresh tells whether the cluster has yet to be founded. The library founds it in two writes, so a crash between
// them leaves a term and no configuration: that counts as fresh too, and the term is taken back.
func (n *Node) isFresh() (bool, error) {
	last, err := n.disk.LastIndex()
	if err != nil {
		return false, err
	}
	list, err := n.snaps.List()
	if err != nil {
		return false, err
	}
	if last > 0 || len(list) > 0 {
		return false, nil
	}
	return true, n.disk.clearStable()
}

// electSelf saves a cluster of one the wait for a leader that cannot exist: it tells the only voter, in the words of a
// leadership transfer, to stand for election now. Should the message be lost, the usual timeout elects it.
func (n *Node) electSelf(t hraft.Transport) {
	servers := n.raft.GetConfiguration()
	if servers.Error() != nil {
		return
	}
	if s := servers.Configuration().Servers; len(s) != 1 || s[0].ID != hraft.ServerID(n.opts.NodeID) {
		return
	}
	var resp hraft.TimeoutNowResponse
	req := &hraft.TimeoutNowRequest{RPCHeader: hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(n.opts.NodeID)}}
	if err := t.TimeoutNow(hraft.ServerID(n.opts.NodeID), t.LocalAddr(), req, &resp); err != nil {
		n.env.Log.Debug("immediate election failed; waiting for the timeout", "error", err)
	}
}

// followLeadership keeps reading, because hashicorp/raft blocks while nobody does.
func (n *Node) followLeadership() {
	for {
		select {
		case <-n.stop:
			return
		case leader := <-n.leadership:
			n.mu.Lock()
			n.mu.leader = leader
			close(n.mu.changed)
			n.mu.changed = make(chan struct{})
			n.mu.Unlock()
		}
	}
}

// watchStalls ends the process when one write hangs: a leader whose disk hangs still sends heartbeats, so the cluster
// would keep it for ever.
func (n *Node) watchStalls() {
	t := n.env.Clock.NewTimer(n.opts.StallLimit / 4)
	defer t.Stop()
	for {
		select {
		case <-n.stop:
			return
		case <-n.guard.failed:
			return
		case <-t.C():
		}
		if since := n.guard.busyFor(); since > n.opts.StallLimit {
			n.guard.note(fmt.Errorf("a write to %s has not returned for %s", n.opts.Dir, since.Round(time.Second)))
			return
		}
		t.Reset(n.opts.StallLimit / 4)
	}
}

// Leader tells whether this node believes to lead. Two nodes can believe it at once, so it decides nothing: only what
// the state machine accepts does.
func (n *Node) Leader() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.leader
}

// WaitLeader returns when this node leads.
func (n *Node) WaitLeader(ctx context.Context) error {
	for {
		n.mu.Lock()
		leader, changed := n.mu.leader, n.mu.changed
		n.mu.Unlock()
		if leader {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errs.New(errs.RaftFailed, "wait for a raft leader: %v", ctx.Err())
		case <-n.stop:
			return n.closed()
		case <-n.guard.failed:
			return n.guard.err()
		}
	}
}

// Apply proposes an entry and returns what the state machine answered. An error wraps ErrNotApplied or ErrUnknown; read
// their comments before acting on one. A context that ends early makes the outcome unknown, never void.
func (n *Node) Apply(ctx context.Context, entry []byte) (any, error) {
	if len(entry) > MaxEntry {
		return nil, errs.New(errs.EngineInternal, "a catalog entry of %d bytes is above the limit of %d", len(entry), MaxEntry).
			Because(ErrNotApplied)
	}
	if err := n.ready(ctx); err != nil {
		return nil, err
	}
	f := n.raft.Apply(entry, n.enqueueLimit(ctx))
	if err := n.await(ctx, "propose", f); err != nil {
		return nil, err
	}
	if err := n.env.Fail.Hit(FailUnknown); err != nil {
		if errors.Is(err, failpoint.ErrKill) {
			n.env.Crash(err)
		}
		return nil, errs.New(errs.RaftFailed, "propose: %v", err).Because(errors.Join(ErrUnknown, err))
	}
	// An entry that reached no state machine (its goroutine ended with the node) answers with nothing.
	a, ok := f.Response().(applied)
	if !ok {
		return nil, errs.New(errs.RaftFailed, "propose: the node ended while it applied the entry").
			Because(errors.Join(ErrUnknown, n.guard.err()))
	}
	return a.result, nil
}

// Barrier returns when everything that was decided before is applied here. A new leader calls it before it reads.
func (n *Node) Barrier(ctx context.Context) error {
	if err := n.ready(ctx); err != nil {
		return err
	}
	return n.await(ctx, "barrier", n.raft.Barrier(n.enqueueLimit(ctx)))
}

// Snapshot writes one now, and returns when it is verified and durable. With nothing new it does nothing.
func (n *Node) Snapshot(ctx context.Context) error {
	if err := n.ready(ctx); err != nil {
		return err
	}
	err := n.await(ctx, "snapshot", n.raft.Snapshot())
	if errors.Is(err, hraft.ErrNothingNewToSnapshot) {
		return nil
	}
	return err
}

func (n *Node) ready(ctx context.Context) error {
	select {
	case <-n.guard.failed:
		return errs.New(errs.RaftFailed, "the raft log has failed: %v", n.guard.err()).Because(errors.Join(ErrNotApplied, n.guard.err()))
	case <-n.stop:
		return n.closed()
	case <-ctx.Done():
		return errs.New(errs.RaftFailed, "propose: %v", ctx.Err()).Because(errors.Join(ErrNotApplied, ctx.Err()))
	default:
		return nil
	}
}

func (n *Node) closed() error {
	return errs.New(errs.RaftFailed, "this node is shutting down").Because(ErrNotApplied)
}

func (n *Node) enqueueLimit(ctx context.Context) time.Duration {
	limit := n.opts.EnqueueLimit
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, max(deadline.Sub(n.env.Clock.Now()), time.Millisecond))
	}
	return limit
}

// await waits for a future, which itself knows nothing of contexts.
func (n *Node) await(ctx context.Context, what string, f hraft.Future) error {
	done := make(chan error, 1)
	n.futures.Go("raft "+what, func() { done <- f.Error() })
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		return errs.New(errs.RaftFailed, "%s: %v", what, ctx.Err()).Because(errors.Join(ErrUnknown, ctx.Err()))
	case <-n.stop:
		return errs.New(errs.RaftFailed, "%s: this node is shutting down", what).Because(ErrUnknown)
	case <-n.guard.failed:
		return errs.New(errs.RaftFailed, "%s: the raft log has failed: %v", what, n.guard.err()).
			Because(errors.Join(ErrUnknown, n.guard.err()))
	}
	if err == nil {
		if failed := n.guard.err(); failed != nil { // both were ready and select chose this one
			return errs.New(errs.RaftFailed, "%s: the raft log has failed: %v", what, failed).
				Because(errors.Join(ErrUnknown, failed))
		}
		return nil
	}
	return errs.New(errs.RaftFailed, "%s: %v", what, err).Because(errors.Join(outcome(err), err))
}

// outcome sorts the library's errors. Whatever is not known to come before the append is unknown.
func outcome(err error) error {
	switch {
	case errors.Is(err, hraft.ErrNotLeader), errors.Is(err, hraft.ErrEnqueueTimeout),
		errors.Is(err, hraft.ErrLeadershipTransferInProgress), errors.Is(err, hraft.ErrNothingNewToSnapshot):
		return ErrNotApplied
	default:
		return ErrUnknown
	}
}

// Stats is where the node stands.
type Stats struct {
	NodeID        string `json:"node_id"`
	State         string `json:"state"` // Leader, Follower, Candidate, Shutdown
	Leader        string `json:"leader,omitempty"`
	Term          uint64 `json:"term"`
	LastIndex     uint64 `json:"last_index"`
	CommitIndex   uint64 `json:"commit_index"`
	AppliedIndex  uint64 `json:"applied_index"`
	SnapshotIndex uint64 `json:"snapshot_index"`
	Voters        int    `json:"voters"`
}

// Stats reads the node's counters. It does not block.
func (n *Node) Stats() Stats {
	_, leader := n.raft.LeaderWithID()
	s := Stats{
		NodeID: n.opts.NodeID, State: n.raft.State().String(), Leader: string(leader),
		Term: n.raft.CurrentTerm(), LastIndex: n.raft.LastIndex(), CommitIndex: n.raft.CommitIndex(),
		AppliedIndex: n.raft.AppliedIndex(), SnapshotIndex: n.snaps.newest.Load(),
	}
	if f := n.raft.GetConfiguration(); f.Error() == nil {
		for _, server := range f.Configuration().Servers {
			if server.Suffrage == hraft.Voter {
				s.Voters++
			}
		}
	}
	return s
}

// Failed is closed when the node can no longer store anything. Its process is about to end.
func (n *Node) Failed() <-chan struct{} { return n.guard.failed }

// Shutdown leaves the cluster's work and closes the files. It returns after the last goroutine has ended.
func (n *Node) Shutdown() error {
	n.stopOnce.Do(func() {
		n.shutErr = n.raft.Shutdown().Error()
		n.stopGoroutines()
		if n.guard.err() != nil {
			// A commit of Pebble that failed has left its locks behind; the files are as a crash leaves them.
			n.disk.abandon()
			return
		}
		n.shutErr = errors.Join(n.shutErr, n.disk.close())
	})
	return n.shutErr
}

func (n *Node) stopGoroutines() {
	select {
	case <-n.stop:
	default:
		close(n.stop)
	}
	n.env.Wait()
}

// checkNoGap refuses a log that does not reach down to the newest snapshot: entries between them would be missing, and
// the library notices only when it is too late to say so.
func checkNoGap(disk *store, snaps *snapshots) error {
	first, err := disk.FirstIndex()
	if err != nil {
		return err
	}
	newest := snaps.newest.Load()
	if first > newest+1 {
		return errs.New(errs.StateCorrupt, "raft log starts at entry %d, but the newest snapshot ends at %d", first, newest).
			WithHint("restore the state directory from a backup; a snapshot file is missing")
	}
	return nil
}
