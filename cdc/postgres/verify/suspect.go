package verify

import "time"

// minPause is the shortest wait between two looks.
const minPause = 20 * time.Millisecond

// patience is how many times Settle a row may go on changing before its history decides.
const patience = 4

// suspect is a row that differed once. Three looks at it, source, target, source, tell one of four things: it is equal
// now; it changed between the looks, so nothing is known; it stood still at the source and the target shows something
// else, which is lag if it goes away and a difference if it stays; or it never stands still. In the last case the
// target decides: if it moves too, it is following, by versions that we happened not to see.
type suspect struct {
	key    []string
	first  time.Time
	stable time.Time // since when the source's row has looked the same
	last   string    // how it looked; "" absent
	asked  int       // looks at the row as it is now
	target string    // how the target's row looked
	moves  int       // how often that changed
	looks  int
}

type verdict uint8

const (
	pending verdict = iota
	equal
	different
	unsettledRow
)

type rule struct {
	settle time.Duration
	// caughtUp: between the first look and the second the target has passed the source's position.
	caughtUp bool
}

func newSuspect(key []string, now time.Time) *suspect {
	return &suspect{key: key, first: now, stable: now}
}

func (s *suspect) look(r rule, now time.Time, before, target, after string) verdict {
	if target == before || target == after {
		return equal
	}
	if s.looks > 0 && target != s.target {
		s.moves++
	}
	s.looks++
	s.target = target
	if s.asked == 0 || before != after || before != s.last {
		s.last, s.stable, s.asked = after, now, 0
	}
	if before == after {
		s.asked++
	}
	switch {
	case s.asked >= 2 && r.caughtUp, s.asked >= 3 && now.Sub(s.stable) >= r.settle:
		return different
	case now.Sub(s.first) < patience*r.settle:
		return pending
	case s.moves > 0:
		return unsettledRow
	}
	return different
}
