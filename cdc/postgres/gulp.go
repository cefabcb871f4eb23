package postgres

import (
	"context"
	"net"
	"syscall"
	"time"

	"github.com/weirstream/weir/internal/env"
)

// gulpConn reads a walsender's socket in gulps.
//
// The server makes one send() per row. While our TCP window is open each of them runs the whole delivery to us, a
// segment and a wake-up, and costs the server twice what it costs while the window is closed: then a send only appends
// to its queue, and our next read pulls the queue over in bulk. An eager reader keeps the window open all the time and
// halves the rate of a busy slot. So under load we let the window close: a small receive buffer, everything drained at
// once, then a pause. An idle connection blocks in the poller and answers at once, so latency stays.
//
// Whether there is load is judged by the bytes since the last pause, and by the queue having been drained to its end:
// a rule that looks at the size of one read alone locks itself into the pause when rows are small.
type gulpConn struct {
	net.Conn
	raw   syscall.RawConn // nil: not a socket (a simulator's); reads are plain
	clock env.Clock

	sincePause int       // bytes read since the last pause
	pauses     int       // in a row
	woke       time.Time // when a wait for data last ended
}

const (
	gulpReceiveBuffer = 16 << 10
	gulpPause         = 3 * time.Millisecond
	// After that many pauses in a row the load is steady and larger gulps cost nobody anything.
	gulpSteady    = 4
	gulpLongPause = 6 * time.Millisecond
	// A trickle that is read row by row wakes us for every row. Data that comes again so soon after the last is read at
	// most so often: on a busy machine the wake-ups cost more than the rows.
	gulpSoon    = 2 * time.Millisecond
	gulpTrickle = time.Millisecond
	// Below this many bytes between two pauses the connection counts as idle. One gulp under load is a window and what
	// waited in the server's queue, far more; an idle system's single transactions are far less.
	gulpLoad = 24 << 10
)

func newGulpConn(c net.Conn, clock env.Clock) *gulpConn {
	g := &gulpConn{Conn: c, clock: clock}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			g.raw = raw
		}
	}
	return g
}

// Read returns what is there; when nothing is, it pauses first if the connection was busy, and then blocks.
func (g *gulpConn) Read(p []byte) (int, error) {
	if g.raw == nil {
		return g.Conn.Read(p)
	}
	n, err := g.try(p)
	if n > 0 || err != nil {
		g.sincePause += n
		return n, err
	}
	if g.sincePause >= gulpLoad {
		g.sincePause = 0
		// Closing the connection does not cut the pause short; it is short enough.
		pause := gulpPause
		if g.pauses++; g.pauses > gulpSteady {
			pause = gulpLongPause
		}
		_ = g.clock.Sleep(context.Background(), pause)
		if n, err := g.try(p); n > 0 || err != nil {
			g.sincePause += n
			return n, err
		}
	}
	g.pauses = 0
	if !g.woke.IsZero() && g.clock.Now().Sub(g.woke) < gulpSoon {
		_ = g.clock.Sleep(context.Background(), gulpTrickle)
	}
	n, err = g.Conn.Read(p)
	g.sincePause = n
	g.woke = g.clock.Now()
	return n, err
}

// try reads without waiting; 0, nil means that nothing is there.
func (g *gulpConn) try(p []byte) (n int, err error) {
	var again bool
	rerr := g.raw.Read(func(fd uintptr) bool {
		for {
			n, err = syscall.Read(int(fd), p)
			if err != syscall.EINTR {
				break
			}
		}
		if err == syscall.EAGAIN {
			again, n, err = true, 0, nil
		}
		return true // never wait here
	})
	if rerr != nil {
		return 0, rerr
	}
	if n <= 0 && err == nil && !again {
		// End of stream: let the ordinary read say so in its own words.
		return g.Conn.Read(p)
	}
	return max(n, 0), err
}
