package postgres

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/pg"
)

// modelTx is a transaction of the model's server.
type modelTx struct {
	xid        uint32
	rel        uint32
	version    int
	rows       []string
	big        bool // sent ahead of its commit where that is allowed
	begin, end pg.LSN
	aborted    bool
}

// modelServer has a log and nothing else.
type modelServer struct {
	next      pg.LSN
	xid       uint32
	version   int
	committed []*modelTx
	open      []*modelTx // big ones
}

func (s *modelServer) grow(t *rapid.T) {
	tx := &modelTx{xid: s.xid, rel: 1, version: s.version}
	s.xid++
	for i := range rapid.IntRange(0, 6).Draw(t, "rows") {
		tx.rows = append(tx.rows, fmt.Sprintf("%d:%d:%d", tx.version, tx.xid, i))
	}
	s.commit(tx)
}

func (s *modelServer) commit(tx *modelTx) {
	tx.begin, tx.end = s.next, s.next+5
	s.next += 5 // the next record begins where this one ends
	s.committed = append(s.committed, tx)
}

// modelStream is one START_REPLICATION.
type modelStream struct {
	srv   *modelServer
	at    pg.LSN
	ahead bool
	next  int
	queue []pgoutput.Message
	sent  map[*modelTx]int // rows of big ones
	told  map[uint32]int   // versions
	enc   pgoutput.Encoder
}

func (s *modelServer) stream(at pg.LSN, ahead bool) *modelStream {
	st := &modelStream{srv: s, at: at, ahead: ahead, sent: map[*modelTx]int{}, told: map[uint32]int{}}
	for st.next < len(s.committed) && s.committed[st.next].begin < at {
		st.next++
	}
	return st
}

func (st *modelStream) describe(tx *modelTx) {
	m := pgoutput.Message{Kind: pgoutput.Relation, Xid: tx.xid, Relation: &pgoutput.RelationMsg{ID: tx.rel, Namespace: "public", Name: "t", Identity: 'd',
		Columns: []pgoutput.Column{{Key: true, Name: fmt.Sprint(tx.version), TypeOID: 25}}}}
	st.queue = append(st.queue, m)
}

func (st *modelStream) insert(tx *modelTx, row string) {
	st.queue = append(st.queue, pgoutput.Message{Kind: pgoutput.Insert, Xid: tx.xid, RelationID: tx.rel, New: pgoutput.Tuple(nil).AppendColumn('t', []byte(row))})
}

func (st *modelStream) block(tx *modelTx, n int) {
	from := st.sent[tx]
	st.queue = append(st.queue, pgoutput.Message{Kind: pgoutput.StreamStart, Xid: tx.xid, FirstSegment: from == 0})
	if from == 0 && st.told[tx.rel] != tx.version {
		st.describe(tx)
	}
	for _, row := range tx.rows[from:n] {
		st.insert(tx, row)
	}
	st.queue = append(st.queue, pgoutput.Message{Kind: pgoutput.StreamStop})
	st.sent[tx] = n
}

// envelope is the next one, if the server has something to send.
func (st *modelStream) envelope(t *rapid.T) ([]byte, bool) {
	if len(st.queue) == 0 {
		st.produce(t)
	}
	var e pgoutput.Envelope
	if len(st.queue) > 0 {
		m := st.queue[0]
		st.queue = st.queue[1:]
		e = pgoutput.Envelope{Kind: pgoutput.XLogData, Payload: st.enc.Append(nil, &m)}
	} else {
		if st.next < len(st.srv.committed) || rapid.Bool().Draw(t, "silent") {
			return nil, false
		}
		e = pgoutput.Envelope{Kind: pgoutput.Keepalive, WALEnd: pgoutput.LSN(st.srv.next)}
	}
	return pgoutput.AppendEnvelope(nil, e), true
}

func (st *modelStream) produce(t *rapid.T) {
	if st.ahead {
		for tx, n := range st.sent {
			if tx.aborted && n > 0 {
				st.queue = append(st.queue, pgoutput.Message{Kind: pgoutput.StreamAbort, Xid: tx.xid, SubXid: tx.xid})
				delete(st.sent, tx)
				return
			}
		}
		for _, tx := range st.srv.open {
			if n := len(tx.rows); n > st.sent[tx] && rapid.Bool().Draw(t, "block") {
				st.block(tx, n)
				return
			}
		}
	}
	if st.next == len(st.srv.committed) {
		return
	}
	tx := st.srv.committed[st.next]
	st.next++
	if tx.big && st.ahead {
		if st.sent[tx] < len(tx.rows) || st.sent[tx] == 0 {
			st.block(tx, len(tx.rows))
		}
		st.queue = append(st.queue, pgoutput.Message{Kind: pgoutput.StreamCommit, Xid: tx.xid, LSN: pgoutput.LSN(tx.begin), EndLSN: pgoutput.LSN(tx.end)})
		st.told[tx.rel] = tx.version
		delete(st.sent, tx)
		return
	}
	st.queue = append(st.queue, pgoutput.Message{Kind: pgoutput.Begin, Xid: tx.xid, LSN: pgoutput.LSN(tx.begin)})
	for _, row := range tx.rows {
		if st.told[tx.rel] != tx.version {
			st.describe(tx)
			st.told[tx.rel] = tx.version
		}
		st.insert(tx, row)
	}
	st.queue = append(st.queue, pgoutput.Message{Kind: pgoutput.Commit, LSN: pgoutput.LSN(tx.begin), EndLSN: pgoutput.LSN(tx.end)})
}

// modelReader is a pipeline: the reader of the real Source over a stream of its own or a cursor.
type modelReader struct {
	t       *rapid.T
	srv     *modelServer
	start   pg.LSN
	name    string
	r       *reader
	own     *modelStream
	cursor  *cursor
	ending  bool // own brings the rest of a transaction
	version map[uint32]int

	applied, pending []string
	opened           map[uint32][]string
	boundary         pg.LSN
	durable          pg.LSN
}

func newModelReader(t *rapid.T, srv *modelServer, name string, at pg.LSN) *modelReader {
	m := &modelReader{t: t, srv: srv, start: at, own: srv.stream(at, true), name: name, version: map[uint32]int{}, opened: map[uint32][]string{}, boundary: at, durable: at}
	m.r = &reader{relations: m, emit: m.emit, dec: pgoutput.NewDecoder(2), rels: map[uint32]*relation{}, open: map[uint32]bool{}, position: at, emitted: at}
	return m
}

func (m *modelReader) resolve(msg *pgoutput.RelationMsg, _ *relation) (*relation, *changelog.SchemaChange, []dataflow.StateChange, error) {
	var v int
	if _, err := fmt.Sscan(msg.Columns[0].Name, &v); err != nil {
		m.t.Fatal(err)
	}
	if v < m.version[msg.ID] {
		m.t.Fatalf("%s: the shape of table %d went back from %d to %d", m.name, msg.ID, m.version[msg.ID], v)
	}
	m.version[msg.ID] = v
	return &relation{msg: msg, rel: &changelog.Relation{ID: msg.ID, Version: uint32(v), Schema: "public", Name: "t"}}, nil, nil, nil
}
func (m *modelReader) takeNames() error                                   { return nil }
func (m *modelReader) startOver(uint32) error                             { return nil }
func (m *modelReader) filterOf(uint32) rowFilter                          { return nil }
func (m *modelReader) renewed(uint32) (bool, error)                       { return false, nil }
func (m *modelReader) reshapes(*pgoutput.RelationMsg) bool                { return false }
func (m *modelReader) partition(_, _ *pgoutput.RelationMsg, _ bool) error { return nil }

func (m *modelReader) emit(msg dataflow.Message) error {
	var rows []string
	if msg.Rows != nil {
		for i := range msg.Rows.Entries {
			e := &msg.Rows.Entries[i]
			it := msg.Rows.New(e).Iter()
			_, raw := it.Next()
			row := string(raw[4:])
			var v int
			_, _ = fmt.Sscanf(row, "%d:", &v)
			if rel := msg.Rows.Relation(e); int(rel.Version) != v {
				m.t.Fatalf("%s: row %s was read as shape %d", m.name, row, rel.Version)
			}
			rows = append(rows, row)
		}
		msg.Rows.Release()
	}
	switch msg.Kind {
	case dataflow.KindOpenRows:
		for _, tx := range m.srv.committed {
			if tx.xid == msg.Tx && tx.end <= m.boundary {
				m.t.Fatalf("%s: transaction %d is written ahead a second time", m.name, msg.Tx)
			}
		}
		m.opened[msg.Tx] = append(m.opened[msg.Tx], rows...)
		return nil
	case dataflow.KindOpenAbort:
		delete(m.opened, msg.Tx)
		return nil
	case dataflow.KindOpenCommit:
		if len(m.pending) > 0 {
			m.t.Fatalf("%s: a transaction ended inside of another", m.name)
		}
		m.pending = m.opened[msg.Tx]
		delete(m.opened, msg.Tx)
	default:
		m.pending = append(m.pending, rows...)
	}
	if msg.Boundary {
		if m.r.inTx || m.r.inBlock {
			m.t.Fatalf("%s: a boundary inside of a transaction", m.name)
		}
		m.applied, m.pending = append(m.applied, m.pending...), nil
		m.boundary = m.r.position
	}
	return nil
}

func (m *modelReader) take(body []byte) {
	e, err := pgoutput.ParseCopyData(body)
	if err != nil {
		m.t.Fatal(err)
	}
	if e.Kind == pgoutput.Keepalive {
		err = m.r.idle(pg.LSN(e.WALEnd))
	} else {
		err = m.r.step(e.Payload)
	}
	if err != nil {
		m.t.Fatalf("%s: %v", m.name, err)
	}
	if m.ending && !m.r.inTx {
		m.alone()
	}
}

// expelled goes on from its own slot, as Source.goOn does.
func (m *modelReader) expelled(srv *modelServer) {
	m.cursor = nil
	m.own = srv.stream(m.r.position, false)
	if m.r.inTx && !m.r.skip {
		m.ending = true
		m.r.repeatTx()
		return
	}
	m.alone()
}

func (m *modelReader) alone() {
	m.ending = false
	if err := m.r.restart(); err != nil {
		m.t.Fatal(err)
	}
	m.own = m.own.srv.stream(m.r.position, true)
}

// TestRingAgainstNaive interleaves a shared stream, its readers' joining and leaving, and confirmations at random. The
// naive answer: each reader has every row that commits at or behind its start, once and in order.
func TestRingAgainstNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		srv := &modelServer{next: 100, xid: 10, version: 1}
		protocol := 2
		ring := newRing(rapid.SampledFrom([]int{1 << 10, 4 << 10, 64 << 10}).Draw(t, "limit"), protocol)
		ring.trace.at = 100
		ring.begin(100)
		shared := srv.stream(100, true)
		counted := roster{counted: map[string]pg.LSN{}, confirmed: 100}
		var readers []*modelReader
		for i := range rapid.IntRange(1, 3).Draw(t, "readers") {
			readers = append(readers, newModelReader(t, srv, fmt.Sprintf("r%d", i), 100))
		}
		expel := func(c *cursor) {
			for _, m := range readers {
				if m.cursor == c {
					counted.uncount(m.name) // its own slot was copied
					m.expelled(srv)
				}
			}
		}
		var stuck []byte
		feed := func() bool { // one envelope into the ring
			body := stuck
			stuck = nil
			if body == nil {
				var ok bool
				if body, ok = shared.envelope(t); !ok {
					return false
				}
			}
			e, err := pgoutput.ParseCopyData(body)
			if err != nil {
				t.Fatal(err)
			}
			ok, out := ring.room(len(body))
			for _, c := range out {
				expel(c)
			}
			if !ok {
				stuck = body
				return false
			}
			if disturbs(e) {
				ring.disturb()
			}
			if err := ring.put(body, e); err != nil {
				t.Fatal(err)
			}
			return true
		}
		read := func(m *modelReader) bool {
			if m.cursor == nil {
				body, ok := m.own.envelope(t)
				if ok {
					m.take(body)
				}
				return ok
			}
			if m.cursor.r == m.cursor.w && !m.cursor.fill() {
				return false
			}
			m.take(m.cursor.take())
			return true
		}
		join := func(m *modelReader) {
			if m.cursor != nil || m.ending || !m.r.between() || len(m.own.queue) > 0 {
				return
			}
			p, ok := ring.begins(m.r.position)
			if !ok || !counted.count(m.name, m.durable) {
				return
			}
			m.cursor = ring.attach(p)
			m.r.dec.Reset()
			for _, rel := range ring.descriptions() {
				m.r.describe(rel)
			}
		}
		who := func() *modelReader { return readers[rapid.IntRange(0, len(readers)-1).Draw(t, "who")] }
		joins, expulsions := 0, 0
		t.Repeat(map[string]func(*rapid.T){
			"commit": func(t *rapid.T) {
				if rapid.IntRange(0, 4).Draw(t, "alter") == 0 {
					srv.version++
				}
				srv.grow(t)
			},
			"large": func(t *rapid.T) {
				if len(srv.open) < 2 {
					tx := &modelTx{xid: srv.xid, rel: 2, version: 1, big: true}
					srv.xid++
					srv.open = append(srv.open, tx)
				}
				for _, tx := range srv.open {
					for range 3 {
						tx.rows = append(tx.rows, fmt.Sprintf("1:%d:%d", tx.xid, len(tx.rows)))
					}
				}
			},
			"end": func(t *rapid.T) {
				if len(srv.open) == 0 {
					return
				}
				tx := srv.open[0]
				srv.open = srv.open[1:]
				if rapid.IntRange(0, 3).Draw(t, "abort") == 0 {
					tx.aborted = true
				} else {
					srv.commit(tx)
				}
			},
			"arrive": func(t *rapid.T) { // a slot begins when every transaction before it has ended
				if len(srv.open) == 0 && len(readers) < 4 {
					readers = append(readers, newModelReader(readers[0].t, srv, fmt.Sprintf("r%d", len(readers)), srv.next))
				}
			},
			"feed": func(t *rapid.T) {
				for range rapid.IntRange(1, 12).Draw(t, "n") {
					if !feed() {
						break
					}
				}
				if rapid.Bool().Draw(t, "publish") {
					ring.publish()
				}
			},
			"turn": func(t *rapid.T) {
				if stuck == nil && len(shared.queue) == 0 && ring.trace.between() {
					ring.begin(ring.trace.at)
					shared = srv.stream(ring.trace.at, true)
				}
			},
			"read": func(t *rapid.T) {
				m := who()
				for range rapid.IntRange(1, 12).Draw(t, "n") {
					if !read(m) {
						break
					}
				}
				if rapid.Bool().Draw(t, "pause") {
					if err := m.r.pause(); err != nil {
						t.Fatal(err)
					}
				}
			},
			"join": func(t *rapid.T) {
				ring.publish()
				m := who()
				was := m.cursor
				join(m)
				if m.cursor != was {
					joins++
				}
			},
			"expel": func(t *rapid.T) {
				if m := who(); m.cursor != nil && rapid.IntRange(0, 3).Draw(t, "really") == 0 {
					expulsions++
					ring.detach(m.cursor)
					expel(m.cursor)
				}
			},
			"durable": func(t *rapid.T) {
				m := who()
				m.durable = m.boundary
				counted.durable(m.name, m.durable)
				counted.confirm()
			},
			"": func(t *rapid.T) {
				for _, m := range readers {
					if _, ok := counted.counted[m.name]; ok && counted.confirm() > m.durable {
						t.Fatalf("confirmed %s, and %s has only %s", counted.confirmed, m.name, m.durable)
					}
					var want []string
					for _, tx := range srv.committed {
						if tx.begin >= m.start && tx.end <= m.boundary {
							want = append(want, tx.rows...)
						}
					}
					if !slices.Equal(m.applied, want) {
						t.Fatalf("%s at %s has\n%v, want\n%v", m.name, m.boundary, m.applied, want)
					}
				}
			},
		})
		// Everything that is left arrives.
		for moved := true; moved; {
			moved = feed()
			ring.publish()
			for _, m := range readers {
				for m.r.position < srv.next && read(m) {
					moved = true
				}
			}
			for _, m := range readers {
				moved = moved || m.r.position < srv.next
			}
		}
		for _, m := range readers {
			if err := m.r.pause(); err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, tx := range srv.committed {
				if tx.begin >= m.start {
					n += len(tx.rows)
				}
			}
			if len(m.applied) != n {
				t.Fatalf("%s has %d rows in the end, want %d", m.name, len(m.applied), n)
			}
		}
		t.Logf("joins %d expulsions %d", joins, expulsions)
	})
}

// TestRingWaitsForTheFastest: in a burst nobody is expelled as long as the fastest is behind, and the slow one is as soon
// as the fastest waits for nothing else.
func TestRingWaitsForTheFastest(t *testing.T) {
	r := newRing(64<<10, 2)
	r.begin(100)
	fast, slow := r.attach(r.points[0]), r.attach(r.points[0])
	body := pgoutput.AppendEnvelope(nil, pgoutput.Envelope{Kind: pgoutput.Keepalive, WALEnd: 200})
	e, _ := pgoutput.ParseCopyData(body)
	fill := func() (expelled []*cursor) {
		for range 1 << 16 {
			ok, out := r.room(len(body))
			expelled = append(expelled, out...)
			if !ok {
				return expelled
			}
			if err := r.put(body, e); err != nil {
				t.Fatal(err)
			}
			r.publish()
		}
		return expelled
	}
	if out := fill(); len(out) != 0 || slow.gone {
		t.Fatal("expelled although both are equally far")
	}
	if r.used > r.limit {
		t.Fatalf("%d bytes in a ring of %d", r.used, r.limit)
	}
	for fast.r < fast.w || fast.fill() {
		fast.take()
	}
	fast.fill()
	out := fill()
	if len(out) != 1 || out[0] != slow || fast.gone {
		t.Fatalf("expelled %d, want the slow one", len(out))
	}
	if r.used > r.limit {
		t.Fatalf("%d bytes in a ring of %d", r.used, r.limit)
	}
}
