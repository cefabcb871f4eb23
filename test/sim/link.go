package sim

import "sync"

// link is a node's way to the databases. Cutting it ends every connection made over it.
type link struct {
	mu   sync.Mutex
	deaf bool // no new connections
	ends []func()
}

// dials tells whether a new connection can be made.
func (l *link) dials() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.deaf
}

// cutting registers what ends a connection.
func (l *link) cutting(end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends = append(l.ends, end)
}

// isolate lets the connections that exist go on and refuses new ones: what is behind the link is dead to everybody
// else, and does not know it yet.
func (l *link) isolate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = true
}

func (l *link) cut() {
	l.isolate()
	l.mu.Lock()
	ends := l.ends
	l.ends = nil
	l.mu.Unlock()
	for _, end := range ends {
		end()
	}
}
