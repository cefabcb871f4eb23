package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirstream/weir/internal/env"
)

// wire is a connection to the target on which whole transactions are sent ahead of their replies.
//
// A transaction is one run of extended-protocol messages that ends with Sync: BEGIN, the statements with their data
// (COPY included), the ledger, COMMIT. The server works through it while the next one is being encoded, and nobody
// waits for a reply in between. That is safe because of how errors end: the server skips to the Sync, COMMIT is not
// executed, and every transaction sent behind it finds the ledger one checkpoint short and fails as well.
// (protocol-flow, "Pipelining"; a client may send CopyData before it has seen CopyInResponse, since the server reads
// in order, and drops them when the COPY has failed.)
type wire struct {
	conn net.Conn
	pid  uint32
	env  *env.Env

	out    []byte // encoded, not yet sent
	copyAt int    // start of the open CopyData message in out, 0 if none

	mu struct {
		sync.Mutex
		expect []expectation // replies owed by the server, in order
		err    error         // the connection's end
	}
	replies chan reply // one per Sync
	done    chan struct{}
}

// expectation is a statement whose row count matters.
type expectation struct {
	count *tableCount
	rows  int64
	op    statementOp
	loose bool         // rows that are not found are not missing
	sql   string       // of a statement that is not prepared
	sync  *pendingSync // set: this is a Sync
}

// String says what was to be done.
func (x expectation) String() string {
	if x.count == nil {
		return x.sql
	}
	return x.op.String() + " " + x.count.table
}

// refusal is the server's error about one of the statements that were sent.
type refusal struct {
	*pgconn.PgError
	of expectation
}

func (r *refusal) Unwrap() error { return r.PgError }

type statementOp uint8

const (
	opOther statementOp = iota
	opInsert
	opUpdate
	opDelete
)

func (op statementOp) String() string {
	return [...]string{"write to", "INSERT INTO", "UPDATE", "DELETE FROM"}[op]
}

// pendingSync is what the writer knows about a transaction when it sends its Sync.
type pendingSync struct {
	tag  any
	sent time.Time
}

// reply is the outcome of everything up to a Sync.
type reply struct {
	tag     any
	rows    int64
	missing int64 // rows that updates and deletes did not find
	err     error
	busy    time.Duration
}

func newWire(e *env.Env, pc *pgconn.PgConn) (*wire, error) {
	h, err := pc.Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	w := &wire{conn: h.Conn, pid: h.PID, env: e, replies: make(chan reply, 64), done: make(chan struct{})}
	e.Go("target-replies", func() { w.receive(h.Frontend) })
	return w, nil
}

// close ends the connection and waits for its goroutine.
func (w *wire) close() {
	_ = w.conn.Close()
	for {
		select {
		case <-w.replies:
		case <-w.done:
			return
		}
	}
}

// message starts a message of the given type; end patches its length.
func (w *wire) message(kind byte) int {
	w.out = append(w.out, kind, 0, 0, 0, 0)
	return len(w.out) - 4
}

func (w *wire) end(at int) { binary.BigEndian.PutUint32(w.out[at:], uint32(len(w.out)-at)) }

func (w *wire) cstring(s string) {
	w.out = append(w.out, s...)
	w.out = append(w.out, 0)
}

func (w *wire) uint16(v int) { w.out = binary.BigEndian.AppendUint16(w.out, uint16(v)) }
func (w *wire) uint32(v int) { w.out = binary.BigEndian.AppendUint32(w.out, uint32(v)) }

// parse prepares a named statement; paramOIDs may be shorter than the parameters.
func (w *wire) parse(name, sql string, paramOIDs ...uint32) {
	at := w.message('P')
	w.cstring(name)
	w.cstring(sql)
	w.uint16(len(paramOIDs))
	for _, oid := range paramOIDs {
		w.uint32(int(oid))
	}
	w.end(at)
}

// bindStart opens a Bind of the unnamed portal with n parameters in the given format (0 text, 1 binary); the caller
// appends each by bindValue and then calls bindEnd.
func (w *wire) bindStart(name string, n int, format int) int {
	at := w.message('B')
	w.cstring("")
	w.cstring(name)
	w.uint16(1)
	w.uint16(format)
	w.uint16(n)
	return at
}

func (w *wire) bindValue(v []byte) {
	if v == nil {
		w.uint32(-1)
		return
	}
	w.uint32(len(v))
	w.out = append(w.out, v...)
}

func (w *wire) bindText(s string) {
	w.uint32(len(s))
	w.out = append(w.out, s...)
}

func (w *wire) bindEnd(at int) {
	w.uint16(0)
	w.end(at)
}

// execute runs the portal and notes what the server owes for it.
func (w *wire) execute(x expectation) {
	at := w.message('E')
	w.cstring("")
	w.uint32(0)
	w.end(at)
	w.mu.Lock()
	w.mu.expect = append(w.mu.expect, x)
	w.mu.Unlock()
}

// statement runs SQL without parameters through the unnamed statement.
func (w *wire) statement(sql string, x expectation) {
	w.parse("", sql)
	w.bindEnd(w.bindStart("", 0, 0))
	x.sql = sql
	w.execute(x)
}

// copyStart opens a CopyData message; rows are appended to w.out.
func (w *wire) copyStart() { w.copyAt = w.message('d') }

func (w *wire) copyEnd() {
	w.end(w.copyAt)
	w.copyAt = 0
	w.end(w.message('c'))
}

// syncUp ends the transaction's run of messages. Its reply carries tag.
func (w *wire) syncUp(tag any) {
	w.end(w.message('S'))
	w.mu.Lock()
	w.mu.expect = append(w.mu.expect, expectation{sync: &pendingSync{tag: tag, sent: w.env.Clock.Now()}})
	w.mu.Unlock()
}

// flush sends what is encoded. It blocks while the server is busy and its buffers are full: that is the back-pressure
// on everything before it.
func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	_, err := w.conn.Write(w.out)
	if cap(w.out) > 4<<20 {
		w.out = nil
	}
	w.out = w.out[:0]
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.mu.err != nil { // the reader knows the server's own words
			return w.mu.err
		}
		return fmt.Errorf("send to target: %w", err)
	}
	return nil
}

// receive matches replies with what was sent. It ends with the connection and then reports the end as a reply.
func (w *wire) receive(f *pgproto3.Frontend) {
	defer close(w.done)
	var failed error
	var rows, missing int64
	var last time.Time
	next := func() (expectation, bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.mu.expect) == 0 {
			return expectation{}, false
		}
		x := w.mu.expect[0]
		w.mu.expect = w.mu.expect[1:]
		return x, true
	}
	fatal := func(err error) {
		w.mu.Lock()
		if failed != nil {
			err = failed
		}
		w.mu.err = err
		w.mu.Unlock()
		w.replies <- reply{err: err}
	}
	for {
		msg, err := f.Receive()
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = errors.New("the server closed the connection")
			}
			fatal(fmt.Errorf("read from target: %w", err))
			return
		}
		switch m := msg.(type) {
		case *pgproto3.CommandComplete:
			x, ok := next()
			if !ok || x.sync != nil {
				fatal(fmt.Errorf("read from target: unexpected %q", m.CommandTag))
				return
			}
			n := pgconn.NewCommandTag(string(m.CommandTag)).RowsAffected()
			if x.op != opOther {
				rows += n
				absent := x.rows - n
				if x.op == opInsert || x.loose {
					absent = 0
				}
				missing += max(absent, 0)
				if x.count != nil {
					x.count.add(x.op, n, absent)
				}
			}
		case *pgproto3.EmptyQueryResponse:
			next()
		case *pgproto3.ErrorResponse:
			e := pgconn.ErrorResponseToPgError(m)
			if failed == nil {
				w.mu.Lock()
				if failed = e; len(w.mu.expect) > 0 && w.mu.expect[0].sync == nil {
					failed = &refusal{e, w.mu.expect[0]}
				}
				w.mu.Unlock()
			}
			if e.Severity == "FATAL" || e.Severity == "PANIC" {
				fatal(e)
				return
			}
		case *pgproto3.ReadyForQuery:
			// After an error the server skipped the rest of the run; so do we.
			for {
				x, ok := next()
				if !ok {
					fatal(errors.New("read from target: ready without a request"))
					return
				}
				if x.sync == nil {
					continue
				}
				now := w.env.Clock.Now()
				start := x.sync.sent
				if last.After(start) {
					start = last // it waited behind the one before
				}
				last = now
				w.replies <- reply{tag: x.sync.tag, rows: rows, missing: missing, err: failed, busy: now.Sub(start)}
				failed, rows, missing = nil, 0, 0
				break
			}
		}
	}
}
