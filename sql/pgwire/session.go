package pgwire

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirstream/weir/engine/table"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/internal/errs"
)

// The states of a session, as ReadyForQuery tells them.
const (
	idle    = 'I'
	inBlock = 'T'
	failed  = 'E' // in a block that can only be ended
)

// maxMessage bounds what a client may send at once.
const maxMessage = 64 << 20

// session is a client. Its goroutine alone uses it, but for interrupt.
type session struct {
	server   *Server
	conn     net.Conn
	back     *pgproto3.Backend
	id       uint32
	secret   []byte
	settings map[string]string
	zone     *time.Location
	tx       byte
	readOnly bool       // the block is
	rand     *rand.Rand // of RAND and UUID; nil: not yet asked for
	pins     map[*keyed.Pipeline]*keyed.Pin
	reads    map[string]*keyed.Pipeline // by pipeline: the start that the pins are of
	writes   *table.Tx                  // what the block, or what came since the last Sync, writes and reads of internal tables
	// Outside of a block the answer to a statement that writes is held until its transaction has ended. again makes the
	// change once more, if it was the only one; it belongs to the pipeline of againOf.
	held       *pgproto3.CommandComplete
	again      func(context.Context) error
	againOf    View
	statements map[string]*prepared
	portals    map[string]*portal
	skipping   bool // until Sync, after an error
	admitted   bool
	reading    View // the one that was asked for last
	scratch    []byte
	values     [][]byte

	mu struct {
		sync.Mutex
		cancel context.CancelFunc // of what the session is working on
	}
}

func newSession(s *Server, c net.Conn, id uint32) *session {
	x := &session{server: s, conn: c, id: id, tx: idle, zone: time.UTC, settings: defaults(s.opts.Version), pins: map[*keyed.Pipeline]*keyed.Pin{}, reads: map[string]*keyed.Pipeline{},
		statements: map[string]*prepared{}, portals: map[string]*portal{}}
	x.back = pgproto3.NewBackend(c, c)
	x.back.SetMaxBodyLen(maxMessage)
	return x
}

func (x *session) interrupt() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mu.cancel != nil {
		x.mu.cancel()
	}
}

// working is the context of a statement: a cancel request ends it.
func (x *session) working() (context.Context, func()) {
	ctx, cancel := context.WithCancel(x.server.ctx)
	if d, err := timeout(x.settings["statement_timeout"]); err == nil && d > 0 {
		ctx, cancel = context.WithTimeout(x.server.ctx, d)
	}
	x.mu.Lock()
	x.mu.cancel = cancel
	x.mu.Unlock()
	return ctx, func() {
		x.mu.Lock()
		x.mu.cancel = nil
		x.mu.Unlock()
		cancel()
	}
}

// serve talks to the client until it leaves.
func (x *session) serve() {
	defer x.release()
	defer func() {
		// A defect that one query meets ends its session and nothing else.
		if r := recover(); r != nil {
			x.server.env.Log.Error("a session of a Postgres client failed", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			x.back.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "XX000", Message: fmt.Sprintf("the session failed: %v", r)})
			_ = x.back.Flush()
		}
	}()
	if !x.startup() {
		return
	}
	for {
		m, err := x.back.Receive()
		if err != nil {
			return
		}
		if !x.message(m) || x.back.Flush() != nil {
			return
		}
	}
}

// startupTime is how long a client may take to say who it is.
const startupTime = 30 * time.Second

// startup answers what comes before the first query.
func (x *session) startup() bool {
	if x.conn.SetDeadline(x.server.env.Clock.Now().Add(startupTime)) != nil {
		return false
	}
	defer func() { _ = x.conn.SetDeadline(time.Time{}) }()
	for {
		m, err := x.back.ReceiveStartupMessage()
		if err != nil {
			return false
		}
		switch m := m.(type) {
		case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
			if _, err := x.conn.Write([]byte{'N'}); err != nil {
				return false
			}
		case *pgproto3.CancelRequest:
			x.server.interrupt(m.ProcessID, m.SecretKey)
			return false
		case *pgproto3.StartupMessage:
			return x.welcome(m)
		default:
			return false
		}
	}
}

func (x *session) welcome(m *pgproto3.StartupMessage) bool {
	refuse := func(err error) bool {
		r := response(err, "", 0)
		r.Severity, r.SeverityUnlocalized = "FATAL", "FATAL"
		x.back.Send(r)
		_ = x.back.Flush()
		return false
	}
	if !x.server.admit(x) {
		return refuse(fail("53300", "sorry, too many clients already"))
	}
	user := m.Parameters["user"]
	if db := m.Parameters["database"]; db != "" && db != database && db != user {
		return refuse(fail("3D000", "database %q does not exist", db).withHint("the views are in database " + database))
	}
	for k, v := range m.Parameters {
		switch k {
		case "user", "database", "replication", "options":
			continue
		}
		if strings.HasPrefix(k, "_pq_.") {
			continue
		}
		if err := x.set(k, v); err != nil {
			return refuse(err)
		}
	}
	if user != "" {
		x.settings["session_authorization"] = user
	}
	if begun := x.server.opts.Began; begun != nil {
		select {
		case <-begun:
		case <-x.server.ctx.Done():
			return refuse(fail("57P03", "the database system is shutting down"))
		}
	}
	x.back.Send(&pgproto3.AuthenticationOk{})
	for _, k := range reported() {
		x.back.Send(&pgproto3.ParameterStatus{Name: k, Value: x.settings[strings.ToLower(k)]})
	}
	x.back.Send(&pgproto3.BackendKeyData{ProcessID: x.id, SecretKey: x.secret})
	x.ready()
	return x.back.Flush() == nil
}

// ready ends what the client asked for. Outside of a block nothing stays pinned.
func (x *session) ready() {
	x.settle()
	if x.tx == idle {
		x.release()
	}
	x.back.Send(&pgproto3.ReadyForQuery{TxStatus: x.tx})
}

func (x *session) release() {
	if x.writes != nil {
		x.writes.Rollback()
		x.writes = nil
	}
	for p, pin := range x.pins {
		pin.Release()
		delete(x.pins, p)
	}
	clear(x.reads)
}

// pin is the epoch of a pipeline that the session reads.
func (x *session) pin(ctx context.Context, v View) (*keyed.Pin, error) {
	x.reading = v
	if v.Keyed == nil {
		return nil, notRunning(v)
	}
	if pin := x.pins[v.Keyed]; pin != nil {
		return pin, nil
	}
	if err := x.sameStart(v); err != nil {
		return nil, err
	}
	pin, err := v.Keyed.Pin(ctx)
	if err == nil {
		x.pins[v.Keyed], x.reads[v.Pipeline] = pin, v.Keyed
	}
	return pin, err
}

// sameStart refuses to read in one block what two starts of a pipeline show: the epoch of the first cannot be read any more.
func (x *session) sameStart(v View) error {
	if was := x.reads[v.Pipeline]; was != nil && was != v.Keyed {
		return errs.New(errs.SnapshotTooOld, "snapshot too old: pipeline %s was started anew since the transaction began", v.Pipeline).WithHint("begin the transaction again")
	}
	return nil
}

// message handles one message; false ends the session.
func (x *session) message(m pgproto3.FrontendMessage) bool {
	var err error
	if _, sync := m.(*pgproto3.Sync); !sync {
		x.flushTag()
	}
	switch m := m.(type) {
	case *pgproto3.Terminate:
		return false
	case *pgproto3.Query:
		x.skipping = false
		x.simple(m.String)
		return true
	case *pgproto3.Sync:
		x.skipping = false
		x.ready()
		if x.tx == idle {
			clear(x.portals)
		}
		return true
	case *pgproto3.Flush:
		return true
	case *pgproto3.CopyData, *pgproto3.CopyDone, *pgproto3.CopyFail:
		return true // of a COPY that has failed: the client had not heard of it
	case *pgproto3.Parse:
		if x.skipping {
			return true
		}
		err = x.parse(m)
		if err != nil {
			x.fail(err, m.Query, 0)
			return true
		}
	case *pgproto3.Bind:
		if x.skipping {
			return true
		}
		err = x.bind(m)
	case *pgproto3.Describe:
		if x.skipping {
			return true
		}
		err = x.describe(m)
	case *pgproto3.Execute:
		if x.skipping {
			return true
		}
		text := ""
		if p := x.portals[m.Portal]; p != nil {
			text = p.of.text
		}
		if err = x.executePortal(m); err != nil {
			x.fail(err, text, 0)
			return true
		}
	case *pgproto3.Close:
		if x.skipping {
			return true
		}
		if m.ObjectType == 'S' {
			delete(x.statements, m.Name)
		} else {
			delete(x.portals, m.Name)
		}
		x.back.Send(&pgproto3.CloseComplete{})
	default:
		err = fail("0A000", "messages of kind %T are not taken", m)
	}
	if err != nil {
		x.fail(err, "", 0)
	}
	return true
}

// fail reports an error of an extended query: what follows until Sync is left out.
func (x *session) fail(err error, text string, begin int) {
	x.skipping = true
	x.report(err, text, begin)
}

func (x *session) report(err error, text string, begin int) {
	if x.tx == inBlock {
		x.tx = failed
	}
	x.held, x.again = nil, nil
	x.release() // of a transaction that has failed nothing is left
	x.back.Send(response(err, text, begin))
}

// simple answers a text of statements. Outside of a block they are one block of their own, up to the first error.
func (x *session) simple(text string) {
	pieces := split(text)
	if len(pieces) == 0 {
		x.back.Send(&pgproto3.EmptyQueryResponse{})
	}
	for _, s := range pieces {
		p, err := x.prepare(s.text, nil)
		if err == nil {
			err = x.allowed(p)
		}
		if err == nil && len(p.types) > 0 {
			err = fail("42P02", "there is no parameter $1")
		}
		if err == nil {
			err = x.execute(p, &portal{of: p, planned: p.planned, alone: len(pieces) == 1})
		}
		if err != nil {
			x.report(err, s.text, utf8.RuneCountInString(text[:s.begin]))
			break
		}
	}
	x.ready()
}

// allowed refuses everything but the end of a block that has failed.
func (x *session) allowed(p *prepared) error {
	if x.tx == failed && !p.ends {
		return fail("25P02", "current transaction is aborted, commands ignored until end of transaction block")
	}
	return nil
}

// parse makes a statement.
func (x *session) parse(m *pgproto3.Parse) error {
	pieces := split(m.Query)
	if len(pieces) > 1 {
		return fail("42601", "cannot insert multiple commands into a prepared statement")
	}
	if _, twice := x.statements[m.Name]; twice && m.Name != "" {
		return fail("42P05", "prepared statement %q already exists", m.Name)
	}
	p := &prepared{}
	if len(pieces) == 1 {
		var err error
		// The text begins where the client's does, so that positions count in it.
		if p, err = x.prepare(m.Query, m.ParameterOIDs); err != nil {
			return err
		}
	}
	if err := x.allowed(p); err != nil {
		return err
	}
	x.statements[m.Name] = p
	x.back.Send(&pgproto3.ParseComplete{})
	return nil
}

// bind gives a statement its parameters.
func (x *session) bind(m *pgproto3.Bind) error {
	p := x.statements[m.PreparedStatement]
	if p == nil {
		return fail("26000", "prepared statement %q does not exist", m.PreparedStatement)
	}
	if err := x.allowed(p); err != nil {
		return err
	}
	if len(m.Parameters) != len(p.types) {
		return fail("08P01", "bind message supplies %d parameters, but prepared statement %q requires %d", len(m.Parameters), m.PreparedStatement, len(p.types))
	}
	if n := len(m.ResultFormatCodes); n > 1 && n != len(p.columns) {
		return fail("08P01", "bind message has %d result formats but query has %d columns", n, len(p.columns))
	}
	o := &portal{of: p, formats: append([]int16(nil), m.ResultFormatCodes...)}
	for i, v := range m.Parameters {
		format := int16(0)
		switch len(m.ParameterFormatCodes) {
		case 0:
		case 1:
			format = m.ParameterFormatCodes[0]
		case len(m.Parameters):
			format = m.ParameterFormatCodes[i]
		default:
			return fail("08P01", "bind message has %d parameter formats but %d parameters", len(m.ParameterFormatCodes), len(m.Parameters))
		}
		value, err := x.parameter(p, i, v, format)
		if err != nil {
			return err
		}
		o.params = append(o.params, value)
	}
	x.portals[m.DestinationPortal] = o
	x.back.Send(&pgproto3.BindComplete{})
	return nil
}

func (x *session) describe(m *pgproto3.Describe) error {
	var p *prepared
	var formats []int16
	if m.ObjectType == 'S' {
		if p = x.statements[m.Name]; p == nil {
			return fail("26000", "prepared statement %q does not exist", m.Name)
		}
		x.back.Send(&pgproto3.ParameterDescription{ParameterOIDs: p.oids})
	} else {
		o := x.portals[m.Name]
		if o == nil {
			return fail("34000", "portal %q does not exist", m.Name)
		}
		p, formats = o.of, o.formats
	}
	if p.columns == nil {
		x.back.Send(&pgproto3.NoData{})
		return nil
	}
	x.back.Send(describeRows(p.columns, formats))
	return nil
}

func (x *session) executePortal(m *pgproto3.Execute) error {
	o := x.portals[m.Portal]
	if o == nil {
		return fail("34000", "portal %q does not exist", m.Portal)
	}
	if o.of.text == "" {
		x.back.Send(&pgproto3.EmptyQueryResponse{})
		return nil
	}
	if err := x.allowed(o.of); err != nil {
		return err
	}
	o.described, o.limit = true, int(m.MaxRows)
	return x.execute(o.of, o)
}

// execute runs a statement and sends its rows and its tag.
func (x *session) execute(p *prepared, o *portal) error {
	ctx, done := x.working()
	defer done()
	began := x.server.env.Clock.Now()
	pinned := len(x.pins)
	err := x.answer(ctx, p, o)
	if err != nil && p.query != nil {
		err = x.afterChange(ctx, p, o, pinned, err)
	}
	if err != nil && errors.Is(err, context.Canceled) && x.server.ctx.Err() != nil {
		err = fail("57P01", "terminating connection because weir ends")
	}
	if f := x.server.opts.OnQuery; f != nil && (p.query != nil || p.change != nil) {
		f(x.server.env.Clock.Now().Sub(began), err != nil)
	}
	return err
}
