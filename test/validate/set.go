package validate

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Set follows unique elements from their commit at the source to each look at the target. Its methods may be called from
// several goroutines at once.
type Set struct {
	mu       sync.Mutex
	elements map[int64]*element
	looks    int
}

type element struct {
	began, acked  time.Time // of the source's commit; zero acked: its outcome is unknown
	seen, missing time.Time // first seen; last look that missed it
	vanished      bool      // it was missing after it had been seen
	most          int       // times it was there at once
}

// NewSet returns an empty Set.
func NewSet() *Set { return &Set{elements: map[int64]*element{}} }

// Begin notes that an element is about to be committed, Acked that it was. One that was begun and never acknowledged may
// arrive or not.
func (s *Set) Begin(id int64, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.elements[id] = &element{began: at}
}

// Acked notes that the source's commit was acknowledged.
func (s *Set) Acked(id int64, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.elements[id].acked = at
}

// Look takes what the target holds; at is when the look began.
func (s *Set) Look(ids []int64, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	count := map[int64]int{}
	for _, id := range ids {
		count[id]++
		if s.elements[id] == nil {
			s.elements[id] = &element{} // nobody wrote it
		}
	}
	for id, e := range s.elements {
		n := count[id]
		e.most = max(e.most, n)
		switch {
		case n > 0 && e.seen.IsZero():
			e.seen = at
		case n == 0:
			e.missing = at
			e.vanished = e.vanished || !e.seen.IsZero()
		}
	}
}

// SetResult sorts the elements of a run.
type SetResult struct {
	Stable     int     // acknowledged and there to the end
	Lost       []int64 // acknowledged and never seen, or seen and gone again
	Duplicated []int64 // there more than once
	Unexpected []int64 // never written
	// Stale elements were missing in a look that began after their acknowledgement; StaleMost is the longest time.
	Stale     int
	StaleMost time.Duration
	Looks     int
}

// Result judges after the last look.
func (s *Set) Result() SetResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := SetResult{Looks: s.looks}
	for id, e := range s.elements {
		if e.most > 1 {
			r.Duplicated = append(r.Duplicated, id)
		}
		switch {
		case e.began.IsZero():
			r.Unexpected = append(r.Unexpected, id)
		case e.vanished, !e.acked.IsZero() && e.seen.IsZero():
			r.Lost = append(r.Lost, id)
		case !e.seen.IsZero():
			r.Stable++
			if !e.acked.IsZero() && e.missing.After(e.acked) {
				r.Stale++
				r.StaleMost = max(r.StaleMost, e.missing.Sub(e.acked))
			}
		}
	}
	slices.Sort(r.Lost)
	slices.Sort(r.Duplicated)
	slices.Sort(r.Unexpected)
	return r
}

// Err is nil when nothing was lost, doubled or made up. Stale elements are latency, not an error.
func (r SetResult) Err() error {
	if len(r.Lost)+len(r.Duplicated)+len(r.Unexpected) == 0 {
		return nil
	}
	return fmt.Errorf("%d lost %v, %d duplicated %v, %d unexpected %v, of %d stable", len(r.Lost), head(r.Lost),
		len(r.Duplicated), head(r.Duplicated), len(r.Unexpected), head(r.Unexpected), r.Stable)
}

func head(ids []int64) []int64 { return ids[:min(len(ids), 5)] }

// Sequences checks rows that count their own changes: at every look a key's number must not go back, and may not be one
// that was not written yet.
type Sequences struct {
	mu      sync.Mutex
	written map[int64]int64
	seen    map[int64]int64
	err     error
}

// NewSequences returns an empty Sequences.
func NewSequences() *Sequences {
	return &Sequences{written: map[int64]int64{}, seen: map[int64]int64{}}
}

// Write notes that key is about to be set to n, which must be its next number.
func (s *Sequences) Write(key, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n != s.written[key]+1 {
		s.fail(fmt.Errorf("key %d: the test wrote %d after %d", key, n, s.written[key]))
	}
	s.written[key] = n
}

func (s *Sequences) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// Look takes the rows of one moment.
func (s *Sequences) Look(rows map[int64]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, was := range s.seen {
		if _, ok := rows[key]; !ok {
			s.fail(fmt.Errorf("key %d is gone; it stood at %d", key, was))
		}
	}
	for key, n := range rows {
		if n < s.seen[key] {
			s.fail(fmt.Errorf("key %d went from %d back to %d", key, s.seen[key], n))
		}
		if n > s.written[key] {
			s.fail(fmt.Errorf("key %d stands at %d, and %d is the last that was written", key, n, s.written[key]))
		}
		s.seen[key] = n
	}
}

// Err is the first thing that was wrong so far.
func (s *Sequences) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Complete is Err after everything has arrived: every key stands at its last number.
func (s *Sequences) Complete() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, n := range s.written {
		if s.seen[key] != n {
			s.fail(fmt.Errorf("key %d stands at %d of %d", key, s.seen[key], n))
		}
	}
	return s.err
}
