// Package failpoint marks the places where a crash is interesting. A point costs one atomic load while nothing is
// armed, so points stay in the shipped binary; only tests arm them, through a Set or through WEIR_FAILPOINTS.
package failpoint

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Point names a place. The X0 to X15 of sinks/DESIGN.md are Points.
type Point string

// ErrKill asks the caller to end the process at once, as kill -9 would.
var ErrKill = errors.New("failpoint: kill")

// Action is what an armed point does. A nil error lets the caller go on.
type Action func() error

// Set holds the armed points of one process. A nil *Set is never armed.
type Set struct {
	armed atomic.Bool
	mu    struct {
		sync.Mutex
		actions map[Point]Action
		hits    map[Point]int
	}
}

// NewSet returns a Set with nothing armed.
func NewSet() *Set {
	s := &Set{}
	s.mu.actions = map[Point]Action{}
	s.mu.hits = map[Point]int{}
	return s
}

// Arm makes p run a each time it is hit.
func (s *Set) Arm(p Point, a Action) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.actions[p] = a
	s.armed.Store(true)
}

// Hit runs p's action. Callers return its error as if the step itself had failed; ErrKill goes to Env.Crash.
func (s *Set) Hit(p Point) error {
	if s == nil || !s.armed.Load() {
		return nil
	}
	s.mu.Lock()
	s.mu.hits[p]++
	a := s.mu.actions[p]
	s.mu.Unlock()
	if a == nil {
		return nil
	}
	if err := a(); err != nil {
		return fmt.Errorf("failpoint %s: %w", p, err)
	}
	return nil
}

// Hits tells how often p was reached while anything was armed.
func (s *Set) Hits(p Point) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.hits[p]
}

// Parse arms the points of a specification such as "X8=kill,sink.commit=error@3": the action after "=", and after
// "@" the hit at which it happens once (default 1).
func (s *Set) Parse(spec string) error {
	for _, item := range strings.Split(spec, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		name, action, ok := strings.Cut(item, "=")
		if !ok {
			return fmt.Errorf("failpoint %q: want NAME=kill|error[@HIT]", item)
		}
		action, nth, hasNth := strings.Cut(action, "@")
		at := 1
		if hasNth {
			n, err := strconv.Atoi(nth)
			if err != nil || n < 1 {
				return fmt.Errorf("failpoint %q: %q is not a hit number", item, nth)
			}
			at = n
		}
		var fail error
		switch action {
		case "kill":
			fail = ErrKill
		case "error":
			fail = errors.New("injected error")
		default:
			return fmt.Errorf("failpoint %q: unknown action %q", item, action)
		}
		var count atomic.Int64
		s.Arm(Point(name), func() error {
			if count.Add(1) == int64(at) {
				return fail
			}
			return nil
		})
	}
	return nil
}

// Armed lists the armed points in order of name.
func (s *Set) Armed() []Point {
	s.mu.Lock()
	defer s.mu.Unlock()
	points := make([]Point, 0, len(s.mu.actions))
	for p := range s.mu.actions {
		points = append(points, p)
	}
	sort.Slice(points, func(i, j int) bool { return points[i] < points[j] })
	return points
}
