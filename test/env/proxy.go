package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/weirstream/weir/internal/scratch"
)

const (
	maxLinks    = 1024             // connections beyond are reset: a client that leaks them shall notice
	maxRequest  = 64 << 10         // bytes of a request that a match can look at
	chunkSize   = 32 << 10         // bytes on their way in each direction of a connection
	replyLimit  = 10 * time.Second // how long a swallowed reply may take
	dialTimeout = 10 * time.Second
)

// A Proxy passes TCP connections on to a server and breaks them when a test says so. Faults set in are seen by
// connections that exist and by new ones.
type Proxy struct {
	port   *scratch.Port
	wg     sync.WaitGroup
	ctx    context.Context // ends with the proxy
	cancel context.CancelFunc

	mu struct {
		sync.Mutex
		target   string
		listener net.Listener // nil while connections are refused
		links    map[*link]struct{}
		resume   chan struct{} // closed to end a pause; nil when there is none
		drop     *dropRule
	}
}

// dropRule waits for one request whose reply is to be lost.
type dropRule struct {
	match func(request []byte) bool
	done  chan struct{}
}

// NewProxy starts a proxy to targetAddr that lives as long as the test.
func NewProxy(t testing.TB, targetAddr string) *Proxy {
	t.Helper()
	p, err := StartProxy(targetAddr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// StartProxy starts a proxy that lives until Close.
func StartProxy(targetAddr string) (*Proxy, error) {
	port, err := scratch.ReservePort(0)
	if err != nil {
		return nil, fmt.Errorf("start a proxy to %s: %w", targetAddr, err)
	}
	p := &Proxy{port: port}
	p.mu.target = targetAddr
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.links = map[*link]struct{}{}
	if err := p.Refuse(false); err != nil {
		port.Release()
		return nil, err
	}
	return p, nil
}

// Addr is where clients connect to; it never changes.
func (p *Proxy) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port.Number)) }

// Redirect makes new connections lead to another server, as a name does after a failover.
func (p *Proxy) Redirect(targetAddr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.target = targetAddr
}

// Cut resets all connections at once. New ones are accepted.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.mu.links {
		l.reset()
	}
}

// Refuse makes new connections fail as if no server listened, or ends that. Existing connections stay.
func (p *Proxy) Refuse(refuse bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if refuse {
		if p.mu.listener != nil {
			p.mu.listener.Close()
			p.mu.listener = nil
		}
		return nil
	}
	if p.mu.listener != nil || p.ctx.Err() != nil {
		return nil
	}
	listener, err := net.Listen("tcp", p.Addr())
	if err != nil {
		return fmt.Errorf("accept connections for %s: %w", p.mu.target, err)
	}
	p.mu.listener = listener
	p.wg.Go(func() { p.accept(listener) })
	return nil
}

// Pause stalls both directions of all connections without closing them, as a network does that loses every packet.
// Bytes being written at that moment still arrive. Connections made during a pause stall as well.
func (p *Proxy) Pause(pause bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case pause && p.mu.resume == nil:
		p.mu.resume = make(chan struct{})
	case !pause && p.mu.resume != nil:
		close(p.mu.resume)
		p.mu.resume = nil
	}
}

// DropReplyAfter waits for the first request that matches, passes it on, lets the server carry it out and answer, and
// closes the connection without passing on the answer: the client cannot know whether its commit happened. It happens
// once; the channel is closed when both ends of that connection are closed.
//
// match sees what the client has sent since the last answer, at most the last 64 KiB, each time more arrives. It cannot
// look into TLS.
func (p *Proxy) DropReplyAfter(match func(clientBytes []byte) bool) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.drop = &dropRule{match: match, done: make(chan struct{})}
	return p.mu.drop.done
}

// Close resets all connections and returns when nothing of the proxy runs any more.
func (p *Proxy) Close() {
	p.cancel()
	_ = p.Refuse(true)
	p.Cut()
	p.wg.Wait()
	p.port.Release()
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // closed by Refuse
		}
		l := &link{client: client.(*net.TCPConn), done: make(chan struct{}), passed: make(chan struct{})}
		if !p.add(l) {
			l.reset()
			continue
		}
		p.wg.Go(func() {
			defer p.remove(l)
			p.serve(l)
		})
	}
}

func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil || len(p.mu.links) >= maxLinks {
		return false
	}
	p.mu.links[l] = struct{}{}
	return true
}

func (p *Proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.mu.links, l)
}

// serve passes one connection until both directions have ended.
func (p *Proxy) serve(l *link) {
	defer l.reset()
	p.mu.Lock()
	target := p.mu.target
	p.mu.Unlock()
	dialer := net.Dialer{Timeout: dialTimeout}
	server, err := dialer.DialContext(p.ctx, "tcp", target)
	if err != nil || !l.connected(server.(*net.TCPConn)) {
		return
	}
	var up sync.WaitGroup
	up.Go(func() { p.passRequests(l) })
	p.passReplies(l)
	up.Wait()
	if rule := l.answered(); rule != nil {
		l.reset()
		close(rule.done)
	}
}

// flow waits while the proxy is paused and reports whether the connection may go on.
func (p *Proxy) flow(l *link) bool {
	p.mu.Lock()
	resume := p.mu.resume
	p.mu.Unlock()
	if resume == nil {
		return true
	}
	select {
	case <-resume:
		return p.flow(l)
	case <-l.done:
		return false
	}
}

// claim gives the rule to the connection whose request matches it, if there is one.
func (p *Proxy) claim(request []byte) *dropRule {
	p.mu.Lock()
	rule := p.mu.drop
	p.mu.Unlock()
	if rule == nil || !rule.match(request) { // the test's code runs without the lock: it may call the proxy
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.drop != rule {
		return nil // another connection was faster
	}
	p.mu.drop = nil
	return rule
}

func (p *Proxy) passRequests(l *link) {
	chunk := make([]byte, chunkSize)
	for {
		n, err := l.client.Read(chunk)
		if n > 0 {
			if !p.flow(l) {
				return
			}
			rule := p.claim(l.sent(chunk[:n]))
			if rule != nil {
				l.swallow(rule) // before the request leaves, or the answer could overtake
			}
			if _, err := l.server.Write(chunk[:n]); err != nil {
				l.reset()
				return
			}
			if rule != nil {
				close(l.passed)
				return // passReplies ends the connection
			}
		}
		if errors.Is(err, io.EOF) {
			_ = l.server.CloseWrite() // the server may still have something to say
			return
		}
		if err != nil {
			l.reset()
			return
		}
	}
}

func (p *Proxy) passReplies(l *link) {
	chunk := make([]byte, chunkSize)
	for {
		n, err := l.server.Read(chunk)
		if n > 0 {
			if !p.flow(l) {
				return
			}
			if l.answered() != nil {
				l.drain()
				return
			}
			if _, err := l.client.Write(chunk[:n]); err != nil {
				l.reset()
				return
			}
		}
		if err != nil {
			if l.answered() != nil || !errors.Is(err, io.EOF) {
				l.reset()
				return
			}
			_ = l.client.CloseWrite()
			return
		}
	}
}
