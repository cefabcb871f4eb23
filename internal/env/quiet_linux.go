package env

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// quietConn is a socket whose arrivals wake nobody who does not wait.
//
// The runtime watches all sockets it knows, and every arrival wakes one of its threads, also while the reader sleeps on
// purpose: dear to us, and dearer to the sender, in whose send() the wake-up happens. This socket is known to an epoll
// instance of its own, which is asked for one event when a read has to wait; the runtime watches that instance.
type quietConn struct {
	local, remote net.Addr
	file          *os.File // the socket, out of the runtime's sight; never waits
	socket        syscall.RawConn
	epoll         *os.File
	waiter        syscall.RawConn

	writeDeadline atomic.Int64 // Unix ns; 0: none
}

// writeLook is how often a write that has to wait looks at its deadline. What we write is small and rarely waits.
const writeLook = 20 * time.Millisecond

// newQuiet takes the connection over. It returns nil if c is no socket of the runtime's; then c is as it was.
func newQuiet(c net.Conn) net.Conn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	fd, epfd := -1, -1
	_ = raw.Control(func(old uintptr) {
		if fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return
		}
		if epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			return
		}
		if err = unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: int32(fd)}); err != nil {
			return
		}
		// A descriptor that may block is not watched by the runtime; the socket becomes non-blocking again behind its back.
		// The flag is also c's: it changes last, when nothing else can fail.
		if err = unix.SetNonblock(epfd, true); err == nil {
			err = unix.SetNonblock(fd, false)
		}
	})
	if err != nil || fd < 0 || epfd < 0 {
		for _, d := range []int{fd, epfd} {
			if d >= 0 {
				_ = unix.Close(d)
			}
		}
		return nil
	}
	q := &quietConn{local: c.LocalAddr(), remote: c.RemoteAddr(), file: os.NewFile(uintptr(fd), "socket"), epoll: os.NewFile(uintptr(epfd), "epoll")}
	_ = unix.SetNonblock(fd, true)
	q.socket, _ = q.file.SyscallConn()
	q.waiter, _ = q.epoll.SyscallConn()
	_ = c.Close() // the duplicate stays open
	return q
}

// TryRead implements QuietConn.
func (q *quietConn) TryRead(p []byte) (n int, err error) {
	// A deadline holds for reads that need not wait, too.
	if err := q.waiter.Read(func(uintptr) bool { return true }); err != nil {
		return 0, err
	}
	if cerr := q.socket.Read(func(fd uintptr) bool {
		for {
			if n, err = unix.Read(int(fd), p); err != unix.EINTR {
				return true
			}
		}
	}); cerr != nil {
		return 0, cerr
	}
	switch {
	case err == unix.EAGAIN:
		return 0, nil
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// wait returns when there is something to read, or the deadline is over.
func (q *quietConn) wait() error {
	var err error
	cerr := q.socket.Control(func(fd uintptr) { err = q.arm(int(fd)) })
	if err = errors.Join(cerr, err); err != nil {
		return err
	}
	return q.waiter.Read(func(epfd uintptr) bool {
		var events [1]unix.EpollEvent
		n, err := unix.EpollWait(int(epfd), events[:], 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

// arm asks for one event.
func (q *quietConn) arm(fd int) (err error) {
	cerr := q.waiter.Control(func(epfd uintptr) {
		err = unix.EpollCtl(int(epfd), unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(fd)})
	})
	return errors.Join(cerr, os.NewSyscallError("epoll_ctl", err))
}

func (q *quietConn) Read(p []byte) (int, error) {
	for {
		if n, err := q.TryRead(p); n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		if err := q.wait(); err != nil {
			return 0, err
		}
	}
}

func (q *quietConn) Write(p []byte) (done int, err error) {
	for done < len(p) {
		if d := q.writeDeadline.Load(); d != 0 && time.Now().UnixNano() >= d {
			return done, os.ErrDeadlineExceeded
		}
		var n int
		cerr := q.socket.Write(func(fd uintptr) bool {
			if n, err = unix.Write(int(fd), p[done:]); err == unix.EAGAIN {
				_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(writeLook/time.Millisecond))
				n = 0
			}
			return true
		})
		if cerr != nil {
			return done, cerr
		}
		if err != nil && err != unix.EINTR {
			return done, os.NewSyscallError("write", err)
		}
		done += max(n, 0)
	}
	return done, nil
}

func (q *quietConn) Close() error {
	// A read that waits ends with the epoll instance.
	return errors.Join(q.epoll.Close(), q.file.Close())
}

func (q *quietConn) LocalAddr() net.Addr  { return q.local }
func (q *quietConn) RemoteAddr() net.Addr { return q.remote }

func (q *quietConn) SetDeadline(t time.Time) error {
	return errors.Join(q.SetReadDeadline(t), q.SetWriteDeadline(t))
}

func (q *quietConn) SetReadDeadline(t time.Time) error { return q.epoll.SetReadDeadline(t) }

func (q *quietConn) SetWriteDeadline(t time.Time) error {
	var ns int64
	if !t.IsZero() {
		ns = max(t.UnixNano(), 1)
	}
	q.writeDeadline.Store(ns)
	return nil
}
