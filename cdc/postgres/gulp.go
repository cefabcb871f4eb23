package postgres

import (
	"context"
	"net"
	"time"

	"github.com/weirstream/weir/internal/env"
)

// gulpConn reads a walsender's socket in gulps.
//
// The server makes one send() per row. While our TCP window is open each of them runs the whole delivery to us, a
// segment and a wake-up, and costs the server twice what it costs while the window is closed: then a send only appends
// to its queue, and our next read pulls the queue over in bulk. An eager reader keeps the window open all the time and
// halves the rate of a busy slot. So under load we let the window close: a small receive buffer, everything drained at
// once, then a pause. An idle connection blocks and answers at once, so latency stays.
//
// What comes in during a pause tells what the next one should be. Much of it (gulpLoad) makes the pauses longer, little
// makes them short, nothing lets the connection block again. A server that gets too little of the processor sends little
// in a short pause because the window was open all the while: that must count as load too, or the short pause would keep
// itself up.
type gulpConn struct {
	net.Conn
	quiet env.QuietConn // nil: none to be had (another system, a simulator's connection); reads are plain
	clock env.Clock

	level   int           // of gulpPauses
	paused  time.Duration // the last pause; 0: since then nothing was there and the connection has blocked
	pending int           // bytes read since then
	drained bool          // the last read was a short one
	fresh   time.Time     // when data came after an idle time
}

const (
	gulpReceiveBuffer = 32 << 10
	// A first row after idle time is often followed at once by the rest of its transaction, which should not wait.
	gulpIdle  = 2 * time.Millisecond
	gulpGrace = time.Millisecond
	// This much in a millisecond of pause is load: some ten thousand rows a second. What comes slower is not worth a
	// longer pause.
	gulpLoad = 2 << 10
	// A read of less has emptied the queue. Looking again would meet a row or two that have just been sent, and so on in
	// step with the server, with the window open.
	gulpShort = 4 << 10
)

// gulpPauses grow while the load lasts: the longer one costs the server least, and nobody waits for a single row then.
var gulpPauses = [...]time.Duration{time.Millisecond, 3 * time.Millisecond, 3 * time.Millisecond, 3 * time.Millisecond, 8 * time.Millisecond}

func newGulpConn(c net.Conn, clock env.Clock) *gulpConn {
	quiet, _ := c.(env.QuietConn)
	return &gulpConn{Conn: c, quiet: quiet, clock: clock}
}

// Read returns what is there; when nothing is, it pauses if the connection was busy, and blocks if it was not.
func (g *gulpConn) Read(p []byte) (n int, err error) {
	if g.quiet == nil {
		return g.Conn.Read(p)
	}
	if !g.drained {
		n, err = g.quiet.TryRead(p)
	}
	if n == 0 && err == nil {
		if g.busy() {
			// Closing the connection does not cut the pause short; it is short enough.
			g.paused, g.pending = gulpPauses[g.level], 0
			_ = g.clock.Sleep(context.Background(), g.paused)
		}
		n, err = g.quiet.TryRead(p)
	}
	if n > 0 || err != nil {
		g.pending += n
		g.drained = n < min(gulpShort, len(p))
		return n, err
	}
	g.paused, g.pending, g.level, g.drained = 0, 0, 0, false
	began := g.clock.Now()
	n, err = g.Conn.Read(p)
	g.pending = n
	if now := g.clock.Now(); now.Sub(began) >= gulpIdle {
		g.fresh = now
	}
	return n, err
}

// busy looks at what came since the last pause, and sets the length of the next.
func (g *gulpConn) busy() bool {
	switch {
	case g.paused == 0:
		return g.clock.Now().Sub(g.fresh) >= gulpGrace
	case int64(g.pending) >= gulpLoad*int64(g.paused/time.Millisecond):
		g.level = min(g.level+1, len(gulpPauses)-1)
	default:
		g.level = max(g.level-1, 0)
	}
	return g.pending > 0
}
