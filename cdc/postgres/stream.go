package postgres

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// stream is a connection in START_REPLICATION. One goroutine reads it; another reports how far the target is, on a
// timer that no target can block, because a silent reader is disconnected after wal_sender_timeout and a server whose
// timeout is off never asks.
type stream struct {
	env  *env.Env
	conn net.Conn

	buf        []byte
	r, w       int
	serverEnd  atomic.Uint64 // newest WAL position the server told
	serverTime atomic.Int64  // its clock then, microseconds since 2000

	confirmed atomic.Uint64 // what may be forgotten by the server
	reply     chan struct{} // an answer is wanted now
	ask       atomic.Bool   // and the server's answer to that
	stop      chan struct{}
	done      sync.WaitGroup
	once      sync.Once
	woken     atomic.Bool
}

const streamBuffer = 256 << 10

// startStream begins to stream from lsn. confirmed is durable; it is the first position that the server is told, and lies
// before lsn when more than that was read already. status is the longest silence towards the server. admit looks at the
// server before anything is read: another one may answer by now.
func startStream(ctx context.Context, e *env.Env, cfg *pg.Config, admit func(context.Context, *pgconn.PgConn) error, slot string, lsn, confirmed pg.LSN, options []string, status time.Duration) (*stream, error) {
	conn, err := pg.Connect(ctx, e, cfg, pg.ConnectOptions{
		AppName: appName, Replication: true,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if network == "unix" {
				return e.Net.DialContext(ctx, network, address)
			}
			c, err := e.Net.DialSmall(ctx, network, address, gulpReceiveBuffer)
			if err != nil {
				return nil, err
			}
			return newGulpConn(c, e.Clock), nil
		},
	})
	if err != nil {
		return nil, errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", cfg.Server(), err).Because(err)
	}
	if err := admit(ctx, conn); err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		return nil, err
	}
	s := &stream{
		env: e, conn: hijacked.Conn, buf: make([]byte, streamBuffer),
		reply: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	s.confirmed.Store(uint64(confirmed))
	query := fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL %s (%s)", pg.Ident(slot), lsn, strings.Join(options, ", "))
	msg, err := (&pgproto3.Query{String: query}).Encode(nil)
	if err != nil {
		return nil, err
	}
	// The server's first answer says whether it streams at all; a cancelled context ends the wait by closing.
	unwatch := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	defer unwatch()
	if _, err := s.conn.Write(msg); err != nil {
		return nil, fmt.Errorf("start replication: %w", err)
	}
	kind, body, err := s.message()
	if err == nil && kind != 'W' {
		err = fmt.Errorf("unexpected message %q", kind)
	}
	_ = body
	if err != nil {
		_ = s.conn.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, slotError(slot, err)
	}
	s.done.Add(1)
	e.Go("source-status", func() { defer s.done.Done(); s.report(status) })
	return s, nil
}

// notUTF8 says that the server cannot send a text, nil if err is about something else. A database in SQL_ASCII holds
// whatever it was given, and its log keeps that when the rows have been put right.
func notUTF8(err error) *errs.Error {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "22021" {
		return nil
	}
	e := errs.New(errs.SourceStream, "the source holds text that is not UTF-8: %s", refused.Message).Because(err).WithDetail("%s", refused.Where).
		WithHint("a database in SQL_ASCII may hold any bytes: put the rows right at the source, then copy anew, because the log keeps the old ones; weir help W1014 tells more")
	e.Final = true
	return e
}

// slotError gives what the server says about a slot its record.
func slotError(slot string, err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return errs.New(errs.SourceStream, "read slot %q: %w", slot, err).Because(err)
	}
	switch {
	case e.Code == "55006":
		return errs.New(errs.SlotInUse, "slot %q is read by somebody else: %s", slot, e.Message).Because(err)
	case e.Code == "42704" && strings.Contains(e.Message, "publication"):
		return errs.New(errs.PublicationMissing, "%s", e.Message).Because(err).
			WithHint("a publication must exist where the slot reads its WAL: one made again later does not help an older slot; copy anew, as weir help W1003 tells")
	case e.Code == "42704":
		return errs.New(errs.SlotLost, "slot %q is gone: %s", slot, e.Message).Because(err)
	case e.Code == "55000", e.Code == "58P01", e.Code == "58P02":
		return errs.New(errs.SlotLost, "slot %q is of no more use: %s", slot, e.Message).Because(err).
			WithDetail("%s", cmp.Or(e.Detail, "the server dropped WAL that the slot still needed"))
	}
	if bad := notUTF8(err); bad != nil {
		return bad
	}
	return errs.New(errs.SourceStream, "read slot %q: %s", slot, e.Message).Because(err).WithDetail("%s", e.Detail)
}

// message reads one protocol message other than notices.
func (s *stream) message() (kind byte, body []byte, err error) {
	for {
		frame, err := s.frame()
		if err != nil {
			return 0, nil, err
		}
		switch frame[0] {
		case 'N':
			// 18 goes on without a publication that is missing where it reads, and only tells; older ones fail.
			var n pgproto3.NoticeResponse
			if err := n.Decode(frame[5:]); err != nil {
				return 0, nil, err
			}
			if strings.HasPrefix(n.Message, "skipped loading publication") {
				return 0, nil, errs.New(errs.PublicationMissing, "the server %s", n.Message).WithDetail("%s", n.Detail).
					WithHint("what was written without it cannot be read; delete the pipeline and copy anew, as weir help W1003 tells")
			}
			continue
		case 'S':
			continue
		case 'E':
			var m pgproto3.ErrorResponse
			if err := m.Decode(frame[5:]); err != nil {
				return 0, nil, err
			}
			return 0, nil, pgconn.ErrorResponseToPgError(&m)
		}
		return frame[0], frame[5:], nil
	}
}

// buffered tells whether a whole message is there to be read without waiting.
func (s *stream) buffered() bool {
	have := s.w - s.r
	return have >= 5 && have >= 1+int(binary.BigEndian.Uint32(s.buf[s.r+1:]))
}

// maxFrame is the server's own limit on one message.
const maxFrame = 1 << 30

// frame returns the next message, type byte and length included; it is valid until the next call.
func (s *stream) frame() ([]byte, error) {
	for {
		if have := s.w - s.r; have >= 5 {
			n := 1 + int(binary.BigEndian.Uint32(s.buf[s.r+1:]))
			if n < 5 || n > maxFrame {
				return nil, errs.New(errs.SourceProtocol, "the server sent a message of %d bytes", n)
			}
			if have >= n {
				f := s.buf[s.r : s.r+n]
				s.r += n
				return f, nil
			}
			if n > len(s.buf)-s.r {
				s.makeRoom(n)
			}
		} else if len(s.buf)-s.r < 5 {
			s.makeRoom(5)
		}
		if s.r == s.w {
			s.r, s.w = 0, 0
			if len(s.buf) > streamBuffer {
				s.buf = make([]byte, streamBuffer) // a huge row is past
			}
		}
		if s.w == len(s.buf) {
			s.makeRoom(s.w - s.r + 1)
		}
		n, err := s.conn.Read(s.buf[s.w:])
		s.w += n
		if n == 0 && err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && s.woken.CompareAndSwap(true, false) {
				_ = s.conn.SetReadDeadline(time.Time{})
				return nil, errInterrupted
			}
			if errors.Is(err, io.EOF) {
				err = errors.New("the server closed the connection")
			}
			return nil, err
		}
	}
}

// errInterrupted: somebody wants the reading goroutine's attention; reading can go on.
var errInterrupted = errors.New("interrupted")

// interrupt ends a wait for the server.
func (s *stream) interrupt() {
	s.woken.Store(true)
	_ = s.conn.SetReadDeadline(time.Unix(1, 0))
}

// interruptIn ends a wait for the server that is still going on after d.
func (s *stream) interruptIn(d time.Duration) {
	s.woken.Store(true)
	_ = s.conn.SetReadDeadline(s.env.Clock.Now().Add(d))
}

// makeRoom moves what is unread to the front of a buffer that holds at least n bytes.
func (s *stream) makeRoom(n int) {
	to := s.buf
	if n > len(to) {
		// A huge row's size is known from its first bytes: exactly so much, since twice would count against the budget.
		to = make([]byte, n)
	}
	s.w = copy(to, s.buf[s.r:s.w])
	s.r, s.buf = 0, to
}

// next returns the next replication envelope; its payload is valid until the next call.
func (s *stream) next() (pgoutput.Envelope, error) {
	_, e, err := s.raw()
	return e, err
}

// raw returns the next replication envelope also as it came.
func (s *stream) raw() ([]byte, pgoutput.Envelope, error) {
	for {
		kind, body, err := s.message()
		if err != nil {
			return nil, pgoutput.Envelope{}, err
		}
		switch kind {
		case 'd':
			e, err := pgoutput.ParseCopyData(body)
			if err != nil {
				return nil, e, errs.New(errs.SourceProtocol, "%w", err).Because(err)
			}
			if end := uint64(e.WALEnd); end > s.serverEnd.Load() {
				s.serverEnd.Store(end)
			}
			s.serverTime.Store(e.SendTime)
			if e.Kind == pgoutput.Keepalive && e.ReplyRequested {
				select {
				case s.reply <- struct{}{}:
				default:
				}
			}
			return body, e, nil
		case 'c':
			return nil, pgoutput.Envelope{}, errors.New("the server ended the stream")
		}
	}
}

// solicit asks the server how far it has read. It answers with a keepalive.
func (s *stream) solicit() {
	s.ask.Store(true)
	select {
	case s.reply <- struct{}{}:
	default:
	}
}

// confirm lets the server forget everything before lsn.
func (s *stream) confirm(lsn pg.LSN) {
	for {
		old := s.confirmed.Load()
		if uint64(lsn) <= old {
			return
		}
		if s.confirmed.CompareAndSwap(old, uint64(lsn)) {
			return
		}
	}
}

// confirmPace is how often a moved position is told to the server.
const confirmPace = 500 * time.Millisecond

// report tells the server how far we are: soon after it moved, when asked, and at least every status period.
func (s *stream) report(status time.Duration) {
	timer := s.env.Clock.NewTimer(confirmPace)
	defer timer.Stop()
	var told uint64
	var buf []byte
	last := s.env.Clock.Now()
	w := bufio.NewWriterSize(s.conn, 64)
	for {
		asked := false
		select {
		case <-s.stop:
			s.send(w, &buf) // a status right before the end may be lost; the target's ledger owns the position
			return
		case <-s.reply:
			asked = true
		case <-timer.C():
			timer.Reset(confirmPace)
		}
		now := s.env.Clock.Now()
		if at := s.confirmed.Load(); asked || at != told || now.Sub(last) >= status {
			if s.send(w, &buf) != nil {
				return // the reader will see the same
			}
			told, last = at, now
		}
	}
}

func (s *stream) send(w *bufio.Writer, buf *[]byte) error {
	at := pgoutput.LSN(s.confirmed.Load())
	*buf = append((*buf)[:0], 'd', 0, 0, 0, 0)
	*buf = pgoutput.AppendStatusUpdate(*buf, at, at, at, pgoutput.MicrosOf(s.env.Clock.Now()), s.ask.Swap(false))
	binary.BigEndian.PutUint32((*buf)[1:], uint32(len(*buf)-1))
	if _, err := w.Write(*buf); err != nil {
		return err
	}
	return w.Flush()
}

// close ends the connection and its goroutine. A reader blocked in next returns with an error.
func (s *stream) close() {
	s.once.Do(func() {
		close(s.stop)
		s.done.Wait()
		_ = s.conn.Close()
	})
}
