// Package env is everything weir takes from the machine it runs on: time, chance, disk, network, goroutines and the
// right to end the process. Constructors take an *Env, so a simulator that hands in its own owns all of them and one
// seed replays a whole run. Code outside the shell packages (cmd/weir, test, and this one) never calls time.Now,
// math/rand, os, net or the go statement by itself; test/imports_test.go refuses it.
package env

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/internal/failpoint"
)

// Env is handed down from main, or from a simulator, to every part. Its fields are never nil.
type Env struct {
	Clock Clock
	Rand  Rand
	FS    vfs.FS // pebble's file system: the simulator hands in one that crashes
	Net   Net
	IDs   IDs
	Log   *slog.Logger
	Fail  *failpoint.Set // crash points; disarmed outside tests

	// Crash ends the process at once, without cleaning up, because going on could lose rows (a failed sync, a lost
	// fence). It does not return. A simulator kills the node instead.
	Crash func(reason error)

	group sync.WaitGroup
}

// Clock tells time. Now carries a monotonic reading.
type Clock interface {
	Now() time.Time
	NewTimer(d time.Duration) Timer
	// Sleep returns early with the context's error when it ends first.
	Sleep(ctx context.Context, d time.Duration) error
}

// Timer is a time.Timer whose channel is reached by a method.
type Timer interface {
	C() <-chan time.Time
	Stop() bool
	Reset(d time.Duration) bool
}

// Rand hands out random streams by name, so that one part drawing more numbers does not change what another sees.
type Rand interface {
	Stream(name string) *mrand.Rand
}

// Net opens connections. Addresses are as in package net.
type Net interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	// DialSmall is DialContext with a receive buffer of the given size, set before the connection is made, because
	// the window that TCP offers cannot shrink afterwards. The connection is a QuietConn where the system allows it.
	DialSmall(ctx context.Context, network, address string, receiveBuffer int) (net.Conn, error)
	Listen(ctx context.Context, network, address string) (net.Listener, error)
}

// IDs mints identifiers that no other installation mints.
type IDs interface {
	// New returns 32 hexadecimal digits.
	New() string
}

// Go starts a named goroutine that Wait waits for. A panic in it crashes the process with its stack: a goroutine that
// vanished silently would stall a pipeline without a word.
func (e *Env) Go(name string, fn func()) {
	e.group.Add(1)
	go func() {
		defer e.group.Done()
		defer func() {
			if r := recover(); r != nil {
				e.Crash(fmt.Errorf("panic in %s: %v\n%s", name, r, debug.Stack()))
			}
		}()
		fn()
	}()
}

// Wait returns after the last goroutine started by Go has ended.
func (e *Env) Wait() { e.group.Wait() }

// With returns a copy of e that logs with the given attributes and waits for its own goroutines.
func (e *Env) With(args ...any) *Env {
	return &Env{Clock: e.Clock, Rand: e.Rand, FS: e.FS, Net: e.Net, IDs: e.IDs, Log: e.Log.With(args...), Fail: e.Fail, Crash: e.Crash}
}

// Real is the machine itself.
func Real(log *slog.Logger) *Env {
	if log == nil {
		log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return &Env{
		Clock: realClock{}, Rand: realRand{}, FS: vfs.Default, Net: realNet{}, IDs: realIDs{}, Log: log,
		Fail: failpoint.NewSet(),
		Crash: func(reason error) {
			fmt.Fprintf(os.Stderr, "weir: fatal: %v\n", reason)
			os.Exit(1)
		},
	}
}

type realClock struct{}

func (realClock) Now() time.Time                 { return time.Now() }
func (realClock) NewTimer(d time.Duration) Timer { return realTimer{time.NewTimer(d)} }
func (realClock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

type realTimer struct{ t *time.Timer }

func (t realTimer) C() <-chan time.Time        { return t.t.C }
func (t realTimer) Stop() bool                 { return t.t.Stop() }
func (t realTimer) Reset(d time.Duration) bool { return t.t.Reset(d) }

type realRand struct{}

func (realRand) Stream(string) *mrand.Rand {
	return mrand.New(mrand.NewPCG(mrand.Uint64(), mrand.Uint64()))
}

// QuietConn is a connection whose arrivals wake nobody who does not wait. Other sockets wake a thread of the runtime for
// every segment, inside the sender's send() if that is on this machine, also while the reader sleeps on purpose.
type QuietConn interface {
	net.Conn
	// TryRead reads without waiting; 0, nil means that nothing is there.
	TryRead(p []byte) (int, error)
}

type realNet struct{}

func (realNet) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

func (realNet) DialSmall(ctx context.Context, network, address string, receiveBuffer int) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBuffer)
			// On the loopback a segment may be larger than the window that is left of such a buffer. A sender waits for room
			// for a whole one, five times a second at most, and so on for good: 130 kB/s. Without the right to set it the
			// system's own size stays.
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, receiveBuffer/4)
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if q := newQuiet(c); q != nil {
		return q, nil
	}
	return c, nil
}

func (realNet) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, network, address)
}

type realIDs struct{}

func (realIDs) New() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // the kernel's generator does not fail on the systems weir runs on
	}
	return hex.EncodeToString(b[:])
}
