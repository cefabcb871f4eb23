package raft

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// guard stands between the library and the disk. Its first failure is its last: it ends the process, and should that
// come back, as in a simulator, it refuses everything from then on.
type guard struct {
	env    *env.Env
	failed chan struct{}
	busy   atomic.Int64 // unix nanoseconds since when writes are running; 0: none is
	mu     struct {
		sync.Mutex
		cause    error
		shutdown func() // nil until the node is open
		writes   int
	}
}

func newGuard(e *env.Env) *guard { return &guard{env: e, failed: make(chan struct{})} }

func (g *guard) opened(shutdown func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.shutdown = shutdown
}

func (g *guard) err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.cause
}

// note records the first failure and ends the process. Where that returns, the node is told to stop.
func (g *guard) note(cause error) {
	g.mu.Lock()
	first, shutdown := g.mu.cause == nil, g.mu.shutdown
	if first {
		g.mu.cause = errs.New(errs.DiskFailed, "raft: %v", cause).
			WithHint("check the disk under the state directory; weir recovers from the log when it starts again")
	}
	stored := g.mu.cause
	g.mu.Unlock()
	if first {
		g.env.Crash(stored)
		close(g.failed)
	}
	if shutdown != nil {
		shutdown()
	}
}

// leave is for callers whose caller panics on an error, as hashicorp/raft does when it cannot store its term: it does
// not come back. It leaves the opening by a panic that Open catches, and a running node by ending the goroutine, whose
// deferred calls then answer everybody who still waits.
func (g *guard) leave(err error) {
	g.mu.Lock()
	running := g.mu.shutdown != nil
	g.mu.Unlock()
	if !running {
		panic(err)
	}
	runtime.Goexit()
}

// write runs one write that has to reach the disk. An error has been noted.
func (g *guard) write(what string, fn func() error) error {
	if !g.begin() {
		return g.err()
	}
	defer g.end()
	if err := g.isolate(what, fn); err != nil {
		g.note(fmt.Errorf("%s: %w", what, err))
		return g.err()
	}
	return nil
}

// isolate runs fn on a goroutine of its own, because Pebble's way to report a failed commit is a call that must not
// return: it ends that goroutine, and the caller still gets an error to pass on.
func (g *guard) isolate(what string, fn func() error) error {
	err := errors.New("the store gave up")
	done := make(chan struct{})
	g.env.Go("raft "+what, func() {
		defer close(done)
		err = fn()
	})
	<-done
	if cause := g.err(); cause != nil {
		return cause
	}
	return err
}

func (g *guard) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.cause != nil {
		return false
	}
	if g.mu.writes == 0 {
		g.busy.Store(g.env.Clock.Now().UnixNano())
	}
	g.mu.writes++
	return true
}

func (g *guard) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.writes--; g.mu.writes == 0 {
		g.busy.Store(0)
	}
}

func (g *guard) busyFor() time.Duration {
	began := g.busy.Load()
	if began == 0 {
		return 0
	}
	return time.Duration(g.env.Clock.Now().UnixNano() - began)
}
