package pgoutput

import (
	"encoding/binary"
	"fmt"
)

// This file is the server's side of the protocol, for tests and simulators: the inverse of Decode and ParseCopyData.
// It trusts its caller and checks nothing but that the kind exists.

// Encoder writes the messages of one connection. Like Decoder it knows whether it stands inside a stream block.
type Encoder struct {
	inStream bool
}

// Append appends m as a server would send it. Flags is not read; the booleans that it repeats are.
func (e *Encoder) Append(dst []byte, m *Message) []byte {
	be := binary.BigEndian
	dst = append(dst, byte(m.Kind))
	if _, withXid := m.Kind.inBlock(); e.inStream && withXid {
		dst = be.AppendUint32(dst, m.Xid)
	}
	switch m.Kind {
	case Begin:
		dst = be.AppendUint64(dst, uint64(m.LSN))
		dst = be.AppendUint64(dst, uint64(m.Time))
		return be.AppendUint32(dst, m.Xid)
	case Commit:
		return appendCommit(dst, m)
	case Origin:
		dst = be.AppendUint64(dst, uint64(m.LSN))
		return appendString(dst, m.Origin)
	case Relation:
		return appendRelation(dst, m.Relation)
	case Type:
		dst = be.AppendUint32(dst, m.Type.ID)
		dst = appendString(dst, m.Type.Namespace)
		return appendString(dst, m.Type.Name)
	case Insert, Update, Delete:
		dst = be.AppendUint32(dst, m.RelationID)
		if m.OldKind != 0 {
			dst = append(append(dst, m.OldKind), m.Old...)
		}
		if m.Kind != Delete {
			dst = append(append(dst, 'N'), m.New...)
		}
		return dst
	case Truncate:
		return appendTruncate(dst, m)
	case LogicalMessage:
		dst = appendBool(dst, m.Transactional)
		dst = be.AppendUint64(dst, uint64(m.LSN))
		dst = appendString(dst, m.Prefix)
		return appendValue(dst, m.Content)
	case StreamStart:
		e.inStream = true
		dst = be.AppendUint32(dst, m.Xid)
		return appendBool(dst, m.FirstSegment)
	case StreamStop:
		e.inStream = false
		return dst
	case StreamCommit:
		dst = be.AppendUint32(dst, m.Xid)
		return appendCommit(dst, m)
	case StreamAbort:
		dst = be.AppendUint32(dst, m.Xid)
		dst = be.AppendUint32(dst, m.SubXid)
		if m.HasAbortLSN {
			dst = be.AppendUint64(dst, uint64(m.LSN))
			dst = be.AppendUint64(dst, uint64(m.Time))
		}
		return dst
	case BeginPrepare:
		return appendPrepare(dst, m)
	case Prepare, CommitPrepared, StreamPrepare:
		return appendPrepare(append(dst, 0), m)
	case RollbackPrepared:
		dst = be.AppendUint64(append(dst, 0), uint64(m.LSN))
		dst = be.AppendUint64(dst, uint64(m.EndLSN))
		dst = be.AppendUint64(dst, uint64(m.PrepareTime))
		dst = be.AppendUint64(dst, uint64(m.Time))
		dst = be.AppendUint32(dst, m.Xid)
		return appendString(dst, m.GID)
	}
	panic(fmt.Sprintf("pgoutput: encode %v", m.Kind))
}

func appendCommit(dst []byte, m *Message) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, 0), uint64(m.LSN))
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.EndLSN))
	return binary.BigEndian.AppendUint64(dst, uint64(m.Time))
}

func appendPrepare(dst []byte, m *Message) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.LSN))
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.EndLSN))
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.Time))
	dst = binary.BigEndian.AppendUint32(dst, m.Xid)
	return appendString(dst, m.GID)
}

func appendTruncate(dst []byte, m *Message) []byte {
	var flags byte
	if m.Cascade {
		flags |= 1
	}
	if m.RestartIdentity {
		flags |= 2
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.Relations)))
	dst = append(dst, flags)
	for _, id := range m.Relations {
		dst = binary.BigEndian.AppendUint32(dst, id)
	}
	return dst
}

func appendRelation(dst []byte, r *RelationMsg) []byte {
	dst = binary.BigEndian.AppendUint32(dst, r.ID)
	dst = appendString(dst, r.Namespace)
	dst = appendString(dst, r.Name)
	dst = append(dst, r.Identity)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(r.Columns)))
	for _, c := range r.Columns {
		dst = appendBool(dst, c.Key)
		dst = appendString(dst, c.Name)
		dst = binary.BigEndian.AppendUint32(dst, c.TypeOID)
		dst = binary.BigEndian.AppendUint32(dst, uint32(c.TypeMod))
	}
	return dst
}

func appendString[S string | []byte](dst []byte, s S) []byte {
	return append(append(dst, s...), 0)
}

func appendValue(dst, v []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(v))), v...)
}

// AppendColumn appends a column to a tuple and counts it, starting the tuple if t is empty. ColumnNull and
// ColumnUnchanged have no value.
func (t Tuple) AppendColumn(kind byte, value []byte) Tuple {
	if len(t) == 0 {
		t = append(t, 0, 0)
	}
	binary.BigEndian.PutUint16(t, uint16(t.Columns()+1))
	t = append(t, kind)
	if kind == ColumnText || kind == ColumnBinary {
		t = appendValue(t, value)
	}
	return t
}

// AppendEnvelope appends e as the content of a CopyData.
func AppendEnvelope(dst []byte, e Envelope) []byte {
	dst = append(dst, e.Kind)
	if e.Kind == XLogData {
		dst = binary.BigEndian.AppendUint64(dst, uint64(e.WALStart))
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.WALEnd))
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.SendTime))
	if e.Kind == XLogData {
		return append(dst, e.Payload...)
	}
	return appendBool(dst, e.ReplyRequested)
}

// Status is what AppendStatusUpdate wrote.
type Status struct {
	Write, Flush, Apply LSN
	Time                int64
	ReplyRequested      bool
}

// ParseStatusUpdate reads a client's status update, for a simulated server.
func ParseStatusUpdate(data []byte) (Status, error) {
	if len(data) != 34 || data[0] != StatusUpdate {
		return Status{}, fmt.Errorf("parse status update: %d bytes, where it has 34 and starts with 'r'", len(data))
	}
	be := binary.BigEndian
	return Status{
		Write:          LSN(be.Uint64(data[1:])),
		Flush:          LSN(be.Uint64(data[9:])),
		Apply:          LSN(be.Uint64(data[17:])),
		Time:           int64(be.Uint64(data[25:])),
		ReplyRequested: data[33] != 0,
	}, nil
}
