package testenv

import (
	"io"
	"net"
	"sync"
	"time"
)

// link is one connection through a Proxy.
type link struct {
	client *net.TCPConn
	server *net.TCPConn  // set by connected, before the goroutines that use it start
	done   chan struct{} // closed by reset
	passed chan struct{} // closed when the request whose answer is to be lost has gone to the server

	mu struct {
		sync.Mutex
		closed  bool
		request []byte    // what the client sent since the last answer
		rule    *dropRule // set when the answer to come is to be lost
	}
}

// connected reports false if the link was reset while the server was being dialled.
func (l *link) connected(server *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		server.Close()
		return false
	}
	l.server = server
	return true
}

// reset closes both ends without the polite ending of TCP, so that peers see an error and not an end of file.
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return
	}
	l.mu.closed = true
	close(l.done)
	for _, conn := range []*net.TCPConn{l.client, l.server} {
		if conn != nil {
			_ = conn.SetLinger(0)
			conn.Close()
		}
	}
}

// sent appends to the request and returns the end of it, valid until the next call. Only the goroutine that passes
// requests calls it; the other one merely shortens the slice, so match may read it without the lock.
func (l *link) sent(chunk []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.request = append(l.mu.request, chunk...)
	if extra := len(l.mu.request) - maxRequest; extra > 0 {
		l.mu.request = append(l.mu.request[:0], l.mu.request[extra:]...)
	}
	return l.mu.request
}

// answered forgets the request, and returns the rule if the answer must not pass.
func (l *link) answered() *dropRule {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.request = l.mu.request[:0]
	return l.mu.rule
}

func (l *link) swallow(rule *dropRule) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.rule = rule
	_ = l.server.SetReadDeadline(time.Now().Add(replyLimit))
}

// drain reads answers into nowhere until the server has closed its end, then closes the client's. Closing the sending
// direction only now, after the first byte of an answer, serves both kinds of servers: one that drops a request whose
// client has gone, as HTTP servers do, has already answered, and Postgres carries out all that was sent before the end
// of file, even if the first bytes answered an earlier statement of a pipeline.
func (l *link) drain() {
	select {
	case <-l.passed:
	case <-l.done:
	}
	_ = l.server.CloseWrite()
	_, _ = io.Copy(io.Discard, l.server)
	l.reset()
}
