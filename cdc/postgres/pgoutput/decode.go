package pgoutput

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// MaxVersion is the newest protocol version the package knows: Postgres 16 to 18.
const MaxVersion = 4

// A DecodeError says which byte of a message was not what the protocol asks for. The stream cannot be trusted after it;
// a new connection from the last durable position can.
type DecodeError struct {
	Kind   Kind   // 0 if the message is empty
	Offset int    // of the first byte that is wrong, or of the field that is cut short
	What   string // what is wrong there
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("decode pgoutput %v message: byte %d: %s", e.Kind, e.Offset, e.What)
}

// Decoder decodes the messages of one connection in the order they arrive. It is not safe for concurrent use.
type Decoder struct {
	version int
	// inStream is true between StreamStart and StreamStop. Nothing in a row message tells whether it carries an xid;
	// only the place does. A message lost or repeated across a block's edge would shift every field by four bytes.
	inStream bool
}

// NewDecoder returns a decoder for the proto_version that was asked for at START_REPLICATION. It panics on versions
// outside 1 to MaxVersion, which the caller chose and no server can cause.
func NewDecoder(version int) *Decoder {
	if version < 1 || version > MaxVersion {
		panic(fmt.Sprintf("pgoutput: protocol version %d is not between 1 and %d", version, MaxVersion))
	}
	return &Decoder{version: version}
}

// Reset prepares the decoder for a new connection, which never starts inside a stream block.
func (d *Decoder) Reset() { d.inStream = false }

// Decode reads the one message in data into m, replacing what m held. The error is always a *DecodeError; m then holds
// nothing of use and the decoder is where it was before the call.
func (d *Decoder) Decode(data []byte, m *Message) error {
	*m = Message{Relations: m.Relations[:0]}
	if len(data) == 0 {
		return &DecodeError{What: "message is empty"}
	}
	m.Kind = Kind(data[0])
	at := 1
	if d.inStream {
		allowed, withXid := m.Kind.inBlock()
		switch {
		case !allowed:
			return d.misplaced(m.Kind)
		case withXid && len(data) < 5:
			return &DecodeError{Kind: m.Kind, Offset: 1, What: "xid is cut short"}
		case withXid:
			m.Xid = binary.BigEndian.Uint32(data[1:])
			at = 5
		}
	}
	switch m.Kind {
	case Insert, Update, Delete:
		if at, fault := m.readRow(data, at); fault != "" {
			return &DecodeError{Kind: m.Kind, Offset: at, What: fault}
		}
		return nil
	}
	return d.decodeOther(data, at, m)
}

// misplaced is the error for a kind that is unknown, newer than the protocol version, or on the wrong side of a stream
// block's edge.
func (d *Decoder) misplaced(k Kind) error {
	what := "not allowed inside a stream block"
	switch v := k.minVersion(); {
	case v == 0:
		what = "unknown kind of message"
	case v > d.version:
		what = fmt.Sprintf("not part of protocol version %d", d.version)
	case k == StreamStop:
		what = "not inside a stream block"
	}
	return &DecodeError{Kind: k, What: what}
}

// readRow reads a row message from its relation on. It shares no helper with the rarer kinds: rows outnumber them by
// orders of magnitude. It returns the offset of the fault and what it is, or no fault.
func (m *Message) readRow(data []byte, at int) (int, string) {
	if len(data)-at < 5 {
		return at, "relation is cut short"
	}
	m.RelationID = binary.BigEndian.Uint32(data[at:])
	at += 4
	part := data[at]
	if part == 'K' || part == 'O' {
		if m.Kind == Insert {
			return at, "Insert has an old tuple"
		}
		end, fault := tupleEnd(data, at+1)
		if fault != "" {
			return end, fault
		}
		m.OldKind, m.Old = part, data[at+1:end:end]
		at = end
		if m.Kind == Delete {
			return m.atEnd(data, at)
		}
		if at == len(data) {
			return at, "new tuple is missing"
		}
		part = data[at]
	}
	if m.Kind == Delete {
		return at, "expected an old tuple"
	}
	if part != 'N' {
		return at, "expected a new tuple"
	}
	end, fault := tupleEnd(data, at+1)
	if fault != "" {
		return end, fault
	}
	m.New = data[at+1 : end : end]
	return m.atEnd(data, end)
}

func (m *Message) atEnd(data []byte, at int) (int, string) {
	if at != len(data) {
		return at, "bytes after the end of the message"
	}
	return at, ""
}

// decodeOther reads everything that is not a row.
func (d *Decoder) decodeOther(data []byte, at int, m *Message) error {
	if v := m.Kind.minVersion(); v == 0 || v > d.version || m.Kind == StreamStop && !d.inStream {
		return d.misplaced(m.Kind)
	}
	r := reader{data: data, at: at}
	switch m.Kind {
	case Begin:
		m.LSN = r.lsn("final LSN")
		m.Time = r.time("commit time")
		m.Xid = r.uint32("xid")
	case Commit:
		m.readCommit(&r)
	case Origin:
		m.LSN = r.lsn("origin LSN")
		m.Origin = r.cstring("origin name")
	case Relation:
		m.Relation = readRelation(&r)
	case Type:
		m.Type = readType(&r)
	case Truncate:
		m.readTruncate(&r)
	case LogicalMessage:
		m.Flags = r.flags(1)
		m.Transactional = m.Flags == 1
		m.LSN = r.lsn("message LSN")
		m.Prefix = r.cstring("prefix")
		m.Content = r.bytes("content")
	case StreamStart:
		m.Xid = r.uint32("xid")
		m.Flags = r.flags(1)
		m.FirstSegment = m.Flags == 1
	case StreamStop:
	case StreamCommit:
		m.Xid = r.uint32("xid")
		m.readCommit(&r)
	case StreamAbort:
		m.Xid = r.uint32("xid")
		m.SubXid = r.uint32("subtransaction xid")
		// Sent under streaming=parallel only, which version 4 allows but does not force.
		if d.version >= 4 && r.left() > 0 {
			m.HasAbortLSN = true
			m.LSN = r.lsn("abort LSN")
			m.Time = r.time("abort time")
		}
	case BeginPrepare:
		m.readPrepare(&r)
	case Prepare, CommitPrepared, StreamPrepare:
		m.Flags = r.flags(0)
		m.readPrepare(&r)
	case RollbackPrepared:
		m.Flags = r.flags(0)
		m.LSN = r.lsn("end LSN of the prepare")
		m.EndLSN = r.lsn("end LSN of the rollback")
		m.PrepareTime = r.time("prepare time")
		m.Time = r.time("rollback time")
		m.Xid = r.uint32("xid")
		m.GID = r.cstring("gid")
	}
	if r.left() > 0 {
		r.fail(r.at, "bytes after the end of the message")
	}
	if r.what != "" {
		return &DecodeError{Kind: m.Kind, Offset: r.badAt, What: r.what}
	}
	switch m.Kind {
	case StreamStart:
		d.inStream = true
	case StreamStop:
		d.inStream = false
	}
	return nil
}

func (m *Message) readCommit(r *reader) {
	m.Flags = r.flags(0)
	m.LSN = r.lsn("commit LSN")
	m.EndLSN = r.lsn("end LSN")
	m.Time = r.time("commit time")
}

func (m *Message) readPrepare(r *reader) {
	m.LSN = r.lsn("LSN")
	m.EndLSN = r.lsn("end LSN")
	m.Time = r.time("time")
	m.Xid = r.uint32("xid")
	m.GID = r.cstring("gid")
}

func (m *Message) readTruncate(r *reader) {
	n := int64(r.uint32("number of relations"))
	m.Flags = r.flags(3)
	m.Cascade = m.Flags&1 != 0
	m.RestartIdentity = m.Flags&2 != 0
	// The count is believed only after it was compared with the bytes that are there.
	if int64(r.left()) != 4*n {
		r.fail(r.at, "list of relations does not fill the message")
		return
	}
	m.Relations = slices.Grow(m.Relations, int(n))
	for range n {
		m.Relations = append(m.Relations, r.uint32("relation"))
	}
}

// minColumnSize is a Relation's shortest column: flags, an empty name, type and modifier.
const minColumnSize = 1 + 1 + 4 + 4

func readRelation(r *reader) *RelationMsg {
	rel := &RelationMsg{
		ID:        r.uint32("relation"),
		Namespace: r.text("namespace"),
		Name:      r.text("relation name"),
		Identity:  r.byte("replica identity"),
	}
	switch rel.Identity {
	case 'd', 'n', 'f', 'i':
	default:
		r.fail(r.at-1, "unknown replica identity")
	}
	n := int(int16(r.uint16("number of columns")))
	if n < 0 || n > r.left()/minColumnSize {
		r.fail(r.at-2, "number of columns does not fit the message")
		return nil
	}
	rel.Columns = make([]Column, n)
	for i := range rel.Columns {
		rel.Columns[i] = Column{
			Key:     r.flags(1) == 1,
			Name:    r.text("column name"),
			TypeOID: r.uint32("column type"),
			TypeMod: int32(r.uint32("column type modifier")),
		}
	}
	return rel
}

func readType(r *reader) *TypeMsg {
	return &TypeMsg{
		ID:        r.uint32("type"),
		Namespace: r.text("namespace"),
		Name:      r.text("type name"),
	}
}

// A reader walks the fields of a message. It keeps the first fault and from then on returns zeros, so that a message
// reads as the list of its fields. Each method names the field it reads for the error.
type reader struct {
	data  []byte
	at    int
	badAt int
	what  string // the first fault, or empty
	copy  string // of data, made by the first text
}

func (r *reader) left() int { return len(r.data) - r.at }

func (r *reader) fail(at int, what string) {
	if r.what == "" {
		r.badAt, r.what = at, what
	}
	r.at = len(r.data)
}

func (r *reader) take(n int, field string) []byte {
	if n > r.left() {
		r.fail(r.at, field+" is cut short")
		return nil
	}
	b := r.data[r.at : r.at+n : r.at+n]
	r.at += n
	return b
}

func (r *reader) byte(field string) byte {
	if b := r.take(1, field); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16(field string) uint16 {
	if b := r.take(2, field); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32(field string) uint32 {
	if b := r.take(4, field); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64(field string) uint64 {
	if b := r.take(8, field); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) lsn(field string) LSN    { return LSN(r.uint64(field)) }
func (r *reader) time(field string) int64 { return int64(r.uint64(field)) }

// flags reads a byte that may have the bits of known only. A bit we do not know could change what the message means.
func (r *reader) flags(known byte) byte {
	b := r.byte("flags")
	if b&^known != 0 {
		r.fail(r.at-1, "unknown flag")
		return 0
	}
	return b
}

// cstring reads a text that ends with a zero byte, and returns it without.
func (r *reader) cstring(field string) []byte {
	n := bytes.IndexByte(r.data[r.at:], 0)
	if n < 0 {
		r.fail(r.at, field+" has no end")
		return nil
	}
	s := r.data[r.at : r.at+n : r.at+n]
	r.at += n + 1
	return s
}

// text is a cstring that outlives the message. All texts of a message share one copy of it: a description of a thousand
// columns costs three allocations instead of a thousand.
func (r *reader) text(field string) string {
	if r.copy == "" {
		r.copy = string(r.data)
	}
	from := r.at
	return r.copy[from : from+len(r.cstring(field))]
}

// bytes reads a value with its length before it.
func (r *reader) bytes(field string) []byte {
	at := r.at
	n := r.uint32(field + " length")
	if n > math.MaxInt32 || int(n) > r.left() {
		r.fail(at, field+" is cut short")
		return nil
	}
	return r.take(int(n), field)
}
