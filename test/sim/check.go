package sim

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
)

// checker is the independent reader. It is told of every commit under the target's lock, so it misses no state that
// anybody could have seen, and replays the source's log by itself.
type checker struct {
	src   *sourceDB
	start time.Time

	// Under the target's lock.
	raisedTo dataflow.Generation
	last     dataflow.Checkpoint
	commits  []seenCommit // that a crash of the target may take back
	applied  map[uint32]dataflow.Checkpoint
	replay   *database
	replayAt lsn
	strict   int // comparisons made

	mu         sync.Mutex // of what follows; nothing is called under it
	counts     map[string]int
	violations []string
	durable    lsn
	trace      []string
}

type seenCommit struct {
	before dataflow.Checkpoint
	xids   []uint32
}

func newChecker() *checker {
	return &checker{start: time.Now(), applied: map[uint32]dataflow.Checkpoint{}, counts: map[string]int{}}
}

func (c *checker) sometimes(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[what]++
	c.note(what)
}

func (c *checker) note(what string) {
	c.trace = append(c.trace, fmt.Sprintf("%10s  %s", time.Since(c.start).Round(time.Millisecond), what))
}

func (c *checker) tell(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note(fmt.Sprintf(format, args...))
}

func (c *checker) wrong(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := fmt.Sprintf(format, args...)
	c.violations = append(c.violations, v)
	c.note("VIOLATION " + v)
}

func (c *checker) broken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.violations) > 0
}

func (c *checker) raised(gen dataflow.Generation) {
	if gen <= c.raisedTo {
		c.wrong("the fence went from %d to %d", c.raisedTo, gen)
	}
	c.raisedTo = gen
}

func (c *checker) confirmed(at lsn) {
	c.mu.Lock()
	durable := c.durable
	c.note("slot at " + at.String())
	c.mu.Unlock()
	if at > durable {
		c.wrong("the slot was moved to %s, and the target is durable up to %s", at, durable)
	}
}

func (c *checker) flushed(state dataflow.State) {
	at, _ := parseLSN(orZero(state["position"]))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.durable = at
	c.commits = nil
}

// visible checks a state of the target.
func (c *checker) visible(v visibleChange) {
	if v.gen != c.raisedTo {
		c.wrong("generation %d changed the target, which %d holds", v.gen, c.raisedTo)
	}
	before, _ := parseLSN(orZero(v.previous["position"]))
	now, err := parseLSN(orZero(v.state["position"]))
	if err != nil {
		c.wrong("position %q", v.state["position"])
	}
	c.commits = append(c.commits, seenCommit{c.last, v.xids})
	if v.checkpoint != 0 {
		if v.checkpoint != c.last+1 {
			c.wrong("checkpoint %d follows %d", v.checkpoint, c.last)
		}
		c.last = v.checkpoint
	}
	c.tell("generation %d: checkpoint %d visible at %s, %d transactions", v.gen, v.checkpoint, now, len(v.xids))
	if now < before {
		c.wrong("the position went from %s to %s", before, now)
	}
	for _, xid := range v.xids {
		if n, ok := c.applied[xid]; ok {
			c.wrong("transaction %d is applied by checkpoint %d, and was by %d", xid, v.checkpoint, n)
		}
		c.applied[xid] = v.checkpoint
	}
	if !consistent(v.state, now) {
		return
	}
	c.strict++
	if sum, total := bank(v.db); sum != total {
		c.wrong("checkpoint %d: the bank holds %d of %d", v.checkpoint, sum, total)
	}
	c.forward(now)
	if diff := v.db.differs(c.replay); diff != "" {
		c.wrong("checkpoint %d is not the source at %s: %s", v.checkpoint, now, diff)
	}
}

// consistent tells whether the first copy, and copies beside the stream, are behind the position. Until then a table
// mixes rows of several moments, which its reader is told by its phase.
func consistent(state dataflow.State, at lsn) bool {
	if state["live"] == nil {
		return false
	}
	for key, value := range state {
		if key != "high" && !strings.HasPrefix(key, "copy/") {
			continue
		}
		if high, err := parseLSN(value); err != nil || high > at {
			return false
		}
	}
	return true
}

func (c *checker) forward(to lsn) {
	if c.replay == nil || c.replayAt > to {
		c.replay, c.replayAt = newDatabase(c.src.defs...), 0
	}
	for _, tx := range c.src.transactions(c.replayAt, to) {
		var log []undo
		for _, ch := range tx.changes {
			if err := c.replay.apply(ch, &log); err != nil {
				c.wrong("replay: %v", err)
			}
		}
	}
	c.replayAt = to
}

func (c *checker) tookBack(n int) {
	for range n {
		if len(c.commits) == 0 {
			return // not a commit of ours
		}
		s := c.commits[len(c.commits)-1]
		c.commits = c.commits[:len(c.commits)-1]
		c.last = s.before
		for _, xid := range s.xids {
			delete(c.applied, xid)
		}
	}
}

// reset takes an older state of the target for granted.
func (c *checker) reset(b *targetBackup, at lsn) {
	c.last, c.raisedTo = b.checkpoint, b.fence
	clear(c.applied)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.durable = at
}

// bank adds up what the accounts hold. The total is kept in a row that nobody changes.
func bank(d *database) (sum, total int) {
	for _, name := range []string{"acct_a", "acct_b"} {
		for _, r := range d.tables[name].rows {
			n, _ := strconv.Atoi(r[1])
			if r[0] == "-1" {
				total += n
				continue
			}
			sum += n
		}
	}
	return sum, total
}
