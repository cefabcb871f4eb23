package postgres

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/internal/invariants"
	"github.com/weirstream/weir/internal/pg"
)

// ring holds what a shared stream brought until its readers have it. It does no I/O, takes no lock and knows no clock:
// the Hub guards it, and a test steps it.
//
// It is a row of blocks. One writer appends envelopes behind what readers may see and publishes them in runs; each
// cursor walks over the same bytes. A block that every cursor has passed is written again. When the blocks reach the
// limit, whoever holds up the fastest cursor is expelled; the writer waits only for the fastest, because without it the
// ring would outrun everybody in every burst.
//
// The ring also knows where a reader may begin: at a point where no transaction is open, behind which it has every
// transaction that commits later, whole and with the descriptions of its tables.
type ring struct {
	limit, blockSize int

	blocks  []*block // kept, oldest first
	last    *block   // the one that is written; it may have left blocks, when everybody has read it
	used    int      // bytes of blocks
	free    []*block
	head    uint64 // behind the newest envelope that was published
	cursors []*cursor

	// at: every transaction that commits before it is in front of head.
	at     pg.LSN
	commit pg.LSN // end of the newest transaction in front of head
	// points are where a reader may begin, oldest first. Between the oldest and head no table is described and no
	// transaction is sent ahead of its commit.
	points []ringPoint
	rels   map[uint32]*pgoutput.RelationMsg // as the rows behind the points know them

	w     int // of the writer, in last
	trace trace
}

type block struct {
	buf     []byte
	base    uint64 // offset of its first byte
	n       int    // published
	readers int    // cursors that may look into it, expelled ones too
	next    *block
}

// ringPoint is a place between two transactions.
type ringPoint struct {
	offset uint64
	at     pg.LSN // every transaction that commits before it is in front of offset
}

// trace follows the transactions that are written.
type trace struct {
	dec     *pgoutput.Decoder
	msg     pgoutput.Message
	inTx    bool
	inBlock bool
	block   uint32
	open    map[uint32][]*pgoutput.RelationMsg // descriptions that hold when their transaction commits
	at      pg.LSN
	commit  pg.LSN
	point   ringPoint // newest; offset 0: none since the last publish
}

func (t *trace) between() bool { return !t.inTx && !t.inBlock && len(t.open) == 0 }

// cursor is a place in a ring. Between two calls of fill its owner reads buf[r:w] without asking.
type cursor struct {
	ring  *ring
	block *block
	r, w  int
	from  uint64 // offset where the batch at hand begins
	gone  bool   // expelled, or ended by its owner
}

const (
	ringBlock = 256 << 10
	entryHead = 4 // length of an envelope
)

func newRing(limit int, protocol int) *ring {
	r := &ring{limit: limit, blockSize: min(ringBlock, max(limit/16, 64)), rels: map[uint32]*pgoutput.RelationMsg{}}
	r.trace = trace{dec: pgoutput.NewDecoder(protocol), open: map[uint32][]*pgoutput.RelationMsg{}}
	r.last = &block{base: 1} // offset 0 is no place
	r.head = 1
	return r
}

// begin starts a new stream that brings every transaction that commits at or behind at. Nothing is open.
func (r *ring) begin(at pg.LSN) {
	if invariants.Enabled && !r.trace.between() {
		panic("a shared stream begins inside of a transaction")
	}
	r.publish()
	r.at, r.trace.at = at, at
	clear(r.rels)
	r.points = append(r.points[:0], ringPoint{offset: r.head, at: at})
}

// room makes place for an envelope of n bytes. Not ok: the writer has to wait until a cursor has moved on.
func (r *ring) room(n int) (ok bool, expelled []*cursor) {
	n += entryHead
	if len(r.last.buf)-r.w >= n {
		return true, nil
	}
	r.publish()
	size := max(r.blockSize, n)
	for r.trim(); r.used > 0 && r.used+size > r.limit; r.trim() {
		fast, slow := r.ends()
		if r.head-fast.from > uint64(r.limit/2) || slow.from == fast.from {
			return false, expelled
		}
		r.detach(slow)
		expelled = append(expelled, slow)
	}
	r.extend(size)
	return true, expelled
}

// ends are the cursors that have come farthest and least far.
func (r *ring) ends() (fast, slow *cursor) {
	fast, slow = r.cursors[0], r.cursors[0]
	for _, c := range r.cursors[1:] {
		if c.from > fast.from {
			fast = c
		}
		if c.from < slow.from {
			slow = c
		}
	}
	return fast, slow
}

// trim lets go of blocks that every cursor has read.
func (r *ring) trim() {
	low := r.head
	for _, c := range r.cursors {
		low = min(low, c.from)
	}
	for len(r.blocks) > 0 && r.blocks[0].base+uint64(r.blocks[0].n) <= low {
		b := r.blocks[0]
		r.blocks = slices.Delete(r.blocks, 0, 1)
		r.used -= len(b.buf)
		if b.readers == 0 && b != r.last && len(b.buf) == r.blockSize {
			r.free = append(r.free, b)
		}
	}
	for len(r.points) > 0 && len(r.blocks) > 0 && r.points[0].offset < r.blocks[0].base || len(r.blocks) == 0 && len(r.points) > 0 && r.points[0].offset < r.head {
		r.points = r.points[1:]
	}
}

func (r *ring) extend(size int) {
	var b *block
	if n := len(r.free); n > 0 && size == r.blockSize {
		b, r.free = r.free[n-1], r.free[:n-1]
		*b = block{buf: b.buf}
	} else {
		b = &block{buf: make([]byte, size)}
	}
	b.base = r.head
	r.last.next = b
	r.last, r.w = b, 0
	r.blocks = append(r.blocks, b)
	r.used += size
}

// put appends an envelope for which there is room. Readers do not see it before the next publish, so that no lock is
// needed here, except before a message that disturbs.
func (r *ring) put(body []byte, e pgoutput.Envelope) error {
	binary.LittleEndian.PutUint32(r.last.buf[r.w:], uint32(len(body)))
	copy(r.last.buf[r.w+entryHead:], body)
	r.w += entryHead + len(body)
	return r.follow(e)
}

// disturbs tells whether a reader may begin only behind the message: a table is described or a transaction's rows are
// sent ahead. For these put is called under the lock.
func disturbs(e pgoutput.Envelope) bool {
	if e.Kind != pgoutput.XLogData || len(e.Payload) == 0 {
		return false
	}
	switch pgoutput.Kind(e.Payload[0]) {
	case pgoutput.Relation, pgoutput.StreamStart, pgoutput.StreamStop, pgoutput.StreamCommit, pgoutput.StreamAbort:
		return true
	}
	return false
}

func (r *ring) disturb() {
	r.publish()
	r.points = r.points[:0]
}

// follow keeps the trace.
func (r *ring) follow(e pgoutput.Envelope) error {
	t := &r.trace
	if e.Kind == pgoutput.Keepalive {
		if t.between() && pg.LSN(e.WALEnd) > t.at {
			t.at = pg.LSN(e.WALEnd)
			t.point = ringPoint{offset: r.written(), at: t.at}
		}
		return nil
	}
	if len(e.Payload) > 0 {
		switch pgoutput.Kind(e.Payload[0]) {
		case pgoutput.Insert, pgoutput.Update, pgoutput.Delete, pgoutput.Truncate, pgoutput.Type, pgoutput.Origin, pgoutput.LogicalMessage:
			return nil
		}
	}
	m := &t.msg
	if err := t.dec.Decode(e.Payload, m); err != nil {
		return err
	}
	switch m.Kind {
	case pgoutput.Begin:
		t.inTx = true
	case pgoutput.Commit:
		t.inTx = false
		t.at, t.commit = max(t.at, pg.LSN(m.EndLSN)), pg.LSN(m.EndLSN)
	case pgoutput.Relation:
		if t.inBlock {
			t.open[t.block] = append(t.open[t.block], m.Relation)
		} else {
			r.rels[m.Relation.ID] = m.Relation
		}
	case pgoutput.StreamStart:
		t.inBlock, t.block = true, m.Xid
		if _, ok := t.open[m.Xid]; !ok {
			t.open[m.Xid] = nil
		}
	case pgoutput.StreamStop:
		t.inBlock = false
	case pgoutput.StreamCommit:
		for _, rel := range t.open[m.Xid] {
			r.rels[rel.ID] = rel
		}
		delete(t.open, m.Xid)
		t.at, t.commit = max(t.at, pg.LSN(m.EndLSN)), pg.LSN(m.EndLSN)
	case pgoutput.StreamAbort:
		if m.SubXid == m.Xid {
			delete(t.open, m.Xid)
		}
	}
	if t.between() {
		t.point = ringPoint{offset: r.written(), at: t.at}
	}
	return nil
}

// written is the offset behind everything that was put.
func (r *ring) written() uint64 { return r.last.base + uint64(r.w) }

// publish lets readers see what was put.
func (r *ring) publish() {
	r.last.n, r.head = r.w, r.written()
	r.at, r.commit = r.trace.at, r.trace.commit
	p := r.trace.point
	r.trace.point = ringPoint{}
	if p.offset == 0 {
		return
	}
	// A few points are enough: one for about each hundredth of the ring.
	if n := len(r.points); n >= 2 && r.points[n-1].offset-r.points[n-2].offset < uint64(r.limit/128) {
		r.points = r.points[:n-1]
	}
	r.points = append(r.points, p)
}

// begins finds where a reader that has everything that commits before position may begin: behind the place everything
// else comes, and what is there twice commits before position and is sent whole.
func (r *ring) begins(position pg.LSN) (ringPoint, bool) {
	if position > r.at {
		// A transaction that commits before position may still come, ahead of its commit. Its reader would write it a
		// second time and find out only at its end.
		return ringPoint{}, false
	}
	for i := len(r.points) - 1; i >= 0; i-- {
		p := r.points[i]
		if p.at > position {
			continue
		}
		// Only from head on, or from within a block that is kept.
		return p, p.offset == r.head || len(r.blocks) > 0 && p.offset >= r.blocks[0].base
	}
	return ringPoint{}, false
}

// attach puts a cursor at a point.
func (r *ring) attach(p ringPoint) *cursor {
	c := &cursor{ring: r, block: r.last, from: p.offset}
	for _, b := range r.blocks {
		if p.offset >= b.base && p.offset < b.base+uint64(b.n) {
			c.block = b
			break
		}
	}
	c.r = int(p.offset - c.block.base)
	c.w = c.r
	c.block.readers++
	r.cursors = append(r.cursors, c)
	return c
}

// detach ends the claim of a cursor. Its block is not written again while it may still look into it.
func (r *ring) detach(c *cursor) {
	c.gone = true
	if i := slices.Index(r.cursors, c); i >= 0 {
		r.cursors = slices.Delete(r.cursors, i, i+1)
	}
}

// fill gives the cursor what is there to be read.
func (c *cursor) fill() bool {
	if c.r == c.block.n && c.block.next != nil {
		c.block.readers--
		c.block, c.r = c.block.next, 0
		c.block.readers++
	}
	c.w = c.block.n
	c.from = c.block.base + uint64(c.r)
	return c.r < c.w
}

// take returns the next envelope of the batch at hand. It is valid until the next fill.
func (c *cursor) take() []byte {
	n := int(binary.LittleEndian.Uint32(c.block.buf[c.r:]))
	body := c.block.buf[c.r+entryHead : c.r+entryHead+n]
	c.r += entryHead + n
	return body
}

func (c *cursor) offset() uint64 { return c.block.base + uint64(c.r) }

// roster says how far the shared slot may be confirmed: no farther than the least durable position of those who need it.
type roster struct {
	counted   map[string]pg.LSN // durable positions, by own slot
	confirmed pg.LSN            // newest that the server may have been told
}

// count counts a pipeline whose own slot is still there. It cannot be done when the server was told more already.
func (r *roster) count(slot string, durable pg.LSN) bool {
	if durable < r.confirmed {
		return false
	}
	r.counted[slot] = durable
	return true
}

// durable notes a position of one that is counted.
func (r *roster) durable(slot string, at pg.LSN) {
	if old, ok := r.counted[slot]; ok && at > old {
		r.counted[slot] = at
	}
}

// uncount is for one whose own slot exists, or who needs none.
func (r *roster) uncount(slot string) { delete(r.counted, slot) }

// confirm returns what the server may be told now.
func (r *roster) confirm() pg.LSN {
	low, any := pg.LSN(0), false
	for _, at := range r.counted {
		if !any || at < low {
			low, any = at, true
		}
	}
	if any && low > r.confirmed {
		r.confirmed = low
	}
	return r.confirmed
}

// best is the newest durable position.
func (r *roster) best() (at pg.LSN) {
	for _, x := range r.counted {
		at = max(at, x)
	}
	return at
}

func (r *ring) descriptions() map[uint32]*pgoutput.RelationMsg { return maps.Clone(r.rels) }
