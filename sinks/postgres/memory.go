package postgres

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Memory is what a Target has learned about its tables and the next one of the same pipeline should know.
type Memory struct {
	mu      sync.Mutex
	careful map[string]bool
	counts  map[string]*tableCount
	refused time.Time       // when an open transaction could not be written
	ahead   map[uint32]bool // open transactions that are being written
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{careful: map[string]bool{}, counts: map[string]*tableCount{}, ahead: map[uint32]bool{}}
}

func (m *Memory) isCareful(table string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.careful[table]
}

func (m *Memory) setCareful(table string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.careful[table] = true
}

func (m *Memory) count(table string) *tableCount {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counts[table]
	if c == nil {
		c = &tableCount{table: table}
		m.counts[table] = c
	}
	return c
}

// newlyMissing lists the tables whose first missing rows have come up since the last call.
func (m *Memory) newlyMissing() (tables []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(m.counts)) {
		if c := m.counts[name]; !c.told && c.Missing.Load() > 0 {
			c.told = true
			tables = append(tables, name)
		}
	}
	return tables
}

// Counts is what was applied to one table since the process started.
type Counts struct{ Inserts, Updates, Deletes, Missing int64 }

// Counts returns the counts by target table, schema.name.
func (m *Memory) Counts() map[string]Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]Counts, len(m.counts))
	for name, c := range m.counts {
		out[name] = Counts{c.Inserts.Load(), c.Updates.Load(), c.Deletes.Load(), c.Missing.Load()}
	}
	return out
}

// refusedFor is how long transactions come whole after one could not be written ahead. What stood in its way is often a
// passing thing, a lock or a change of shape.
const refusedFor = 10 * time.Minute

// WriteAhead tells whether a start now may have open transactions written ahead of their commit.
func (m *Memory) WriteAhead(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refused.IsZero() || now.Sub(m.refused) >= refusedFor
}

// RefuseWriteAhead makes transactions come whole from the next start on.
func (m *Memory) RefuseWriteAhead(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused = now
}

func (m *Memory) setAhead(xid uint32, open bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if open {
		m.ahead[xid] = true
	} else {
		delete(m.ahead, xid)
	}
}

func (m *Memory) aheadNow() map[uint32]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.ahead)
}

// noneAhead forgets the transactions of a Target that is gone: the server has rolled them back.
func (m *Memory) noneAhead() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.ahead)
}
