package pgoutput

import (
	"fmt"
	"slices"
	"time"
)

// Kind is the first byte of a message.
type Kind byte

const (
	Begin          Kind = 'B'
	Commit         Kind = 'C'
	Origin         Kind = 'O' // the transaction came to the server by replication from elsewhere
	Relation       Kind = 'R'
	Type           Kind = 'Y'
	Insert         Kind = 'I'
	Update         Kind = 'U'
	Delete         Kind = 'D'
	Truncate       Kind = 'T'
	LogicalMessage Kind = 'M' // written with pg_logical_emit_message

	// Streaming of transactions still in progress, protocol version 2.
	StreamStart  Kind = 'S'
	StreamStop   Kind = 'E'
	StreamCommit Kind = 'c'
	StreamAbort  Kind = 'A'

	// Two-phase commit, protocol version 3.
	BeginPrepare     Kind = 'b'
	Prepare          Kind = 'P'
	CommitPrepared   Kind = 'K'
	RollbackPrepared Kind = 'r'
	StreamPrepare    Kind = 'p'
)

// String names the kind as Postgres's documentation does.
func (k Kind) String() string {
	switch k {
	case Begin:
		return "Begin"
	case Commit:
		return "Commit"
	case Origin:
		return "Origin"
	case Relation:
		return "Relation"
	case Type:
		return "Type"
	case Insert:
		return "Insert"
	case Update:
		return "Update"
	case Delete:
		return "Delete"
	case Truncate:
		return "Truncate"
	case LogicalMessage:
		return "Message"
	case StreamStart:
		return "Stream Start"
	case StreamStop:
		return "Stream Stop"
	case StreamCommit:
		return "Stream Commit"
	case StreamAbort:
		return "Stream Abort"
	case BeginPrepare:
		return "Begin Prepare"
	case Prepare:
		return "Prepare"
	case CommitPrepared:
		return "Commit Prepared"
	case RollbackPrepared:
		return "Rollback Prepared"
	case StreamPrepare:
		return "Stream Prepare"
	}
	return fmt.Sprintf("kind %#02x", byte(k))
}

// minVersion is the protocol version that introduced the kind, or 0 if there is no such kind.
func (k Kind) minVersion() int {
	switch k {
	case Begin, Commit, Origin, Relation, Type, Insert, Update, Delete, Truncate, LogicalMessage:
		return 1
	case StreamAbort:
		return 1 // belongs to version 2, but Postgres 18 sends stray ones to everybody
	case StreamStart, StreamStop, StreamCommit:
		return 2
	case BeginPrepare, Prepare, CommitPrepared, RollbackPrepared, StreamPrepare:
		return 3
	}
	return 0
}

// inBlock says whether the kind is sent inside a stream block, and whether with an xid in front of its fields.
func (k Kind) inBlock() (allowed, withXid bool) {
	switch k {
	case Relation, Type, Insert, Update, Delete, Truncate, LogicalMessage:
		return true, true
	case Origin, StreamStop:
		return true, false
	}
	return false, false
}

// Message is one decoded message. It is one struct for all kinds so that a reader decodes into the same one again and
// again; the fields a kind does not have are zero.
//
// Old, New, Prefix, Content, Origin and GID alias the bytes given to Decode and live as long as those. Relations is
// overwritten by the next Decode into the same Message. Relation and Type own their memory and may be kept.
type Message struct {
	Kind Kind

	// Xid is the top transaction of Begin, StreamStart, StreamCommit, StreamAbort and the two-phase kinds. Inside a
	// stream block Relation, Type, Insert, Update, Delete and Truncate have that of the subtransaction that wrote the
	// change, LogicalMessage always the top one; outside of a block these have 0.
	Xid    uint32
	SubXid uint32 // StreamAbort: what was rolled back; equal to Xid if everything was

	// LSN and EndLSN are the start and the end of a record:
	//
	//	Begin                          start of the commit record; its end is not sent
	//	Commit, StreamCommit           commit record
	//	BeginPrepare, Prepare,
	//	StreamPrepare                  prepare record
	//	CommitPrepared                 record of COMMIT PREPARED
	//	RollbackPrepared               LSN is the END of the prepare record, EndLSN that of ROLLBACK PREPARED
	//	LogicalMessage                 the message's own position
	//	StreamAbort                    abort record, if HasAbortLSN
	//	Origin                         commit position on the server of origin
	LSN    LSN
	EndLSN LSN

	// Time is when the transaction committed, prepared or rolled back, in microseconds since 2000-01-01 UTC.
	Time        int64
	PrepareTime int64 // RollbackPrepared: when the transaction had been prepared
	HasAbortLSN bool  // StreamAbort under streaming=parallel: LSN and Time were sent

	RelationID uint32 // Insert, Update, Delete
	OldKind    byte   // 'K' if Old is a key, 'O' if it is the old row, 0 if there is none
	Old, New   Tuple

	Relation *RelationMsg
	Type     *TypeMsg

	Relations       []uint32 // Truncate: everything truncated by one command
	Cascade         bool
	RestartIdentity bool

	Transactional   bool // LogicalMessage
	Prefix, Content []byte

	FirstSegment bool   // StreamStart: the first block of its transaction
	Origin       []byte // name of the replication origin
	GID          []byte // name given to PREPARE TRANSACTION
	Flags        byte   // as sent by the kinds that have flags; the booleans above are its meaning
}

// CommitTime is Time as a time.Time. It means something only for kinds that have a Time.
func (m *Message) CommitTime() time.Time { return TimeOf(m.Time) }

// RelationMsg describes a table as the rows after it are sent.
type RelationMsg struct {
	ID        uint32 // OID of the table; rows refer to it
	Namespace string // empty for pg_catalog
	Name      string
	Identity  byte // replica identity: 'd'efault, 'n'othing, 'f'ull or 'i'ndex
	Columns   []Column
}

// Column describes one published column.
type Column struct {
	Key     bool // part of the replica identity: all columns under FULL, none under NOTHING
	Name    string
	TypeOID uint32
	TypeMod int32
}

// Equal says whether o describes the same table in the same way. Servers repeat identical descriptions freely.
func (r *RelationMsg) Equal(o *RelationMsg) bool {
	if r == nil || o == nil {
		return r == o
	}
	return r.ID == o.ID && r.Namespace == o.Namespace && r.Name == o.Name && r.Identity == o.Identity &&
		slices.Equal(r.Columns, o.Columns)
}

// TypeMsg names a type that is not built in. For a domain, ID is the domain's and the name its base type's.
type TypeMsg struct {
	ID        uint32
	Namespace string // empty for pg_catalog
	Name      string
}
