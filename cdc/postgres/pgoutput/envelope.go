package pgoutput

import (
	"encoding/binary"
	"fmt"
)

// The kinds of CopyData that a replication connection carries.
const (
	XLogData     = 'w' // server: a message of the plugin
	Keepalive    = 'k' // server: its position, and whether it wants to hear from us
	StatusUpdate = 'r' // client: how far it has come
)

// Envelope is the content of one CopyData from the server.
type Envelope struct {
	Kind byte // XLogData or Keepalive

	WALStart LSN   // XLogData: position of the change; 0 for Relation and Type
	WALEnd   LSN   // how far the server has read its log; not a position to confirm while anything received is unsaved
	SendTime int64 // the server's clock, in microseconds since 2000-01-01 UTC

	Payload        []byte // XLogData: the message, for Decode; aliases the input
	ReplyRequested bool   // Keepalive: the server disconnects unless a status update follows soon
}

// ParseCopyData opens the frame around a message.
func ParseCopyData(data []byte) (Envelope, error) {
	if len(data) == 0 {
		return Envelope{}, fmt.Errorf("parse replication data: it is empty")
	}
	e := Envelope{Kind: data[0]}
	switch e.Kind {
	case XLogData:
		if len(data) < 25 {
			return Envelope{}, fmt.Errorf("parse replication data 'w': %d bytes where its header has 25", len(data))
		}
		e.WALStart = LSN(binary.BigEndian.Uint64(data[1:]))
		e.WALEnd = LSN(binary.BigEndian.Uint64(data[9:]))
		e.SendTime = int64(binary.BigEndian.Uint64(data[17:]))
		e.Payload = data[25:]
	case Keepalive:
		if len(data) != 18 {
			return Envelope{}, fmt.Errorf("parse replication keepalive 'k': %d bytes where it has 18", len(data))
		}
		e.WALEnd = LSN(binary.BigEndian.Uint64(data[1:]))
		e.SendTime = int64(binary.BigEndian.Uint64(data[9:]))
		e.ReplyRequested = data[17] != 0 // as Postgres's own receiver reads it
	default:
		return Envelope{}, fmt.Errorf("parse replication data: kind %#02x is neither 'w' nor 'k'", e.Kind)
	}
	return e, nil
}

// AppendStatusUpdate appends the CopyData content that tells the server what was received (write), made durable (flush)
// and made visible (apply). Only flush moves the slot: the server forgets every transaction that ends at or before it,
// so it must be the end LSN of a transaction that is durable in every sink. With reply the server answers at once with
// a keepalive.
func AppendStatusUpdate(dst []byte, write, flush, apply LSN, timeMicros int64, reply bool) []byte {
	dst = append(dst, StatusUpdate)
	dst = binary.BigEndian.AppendUint64(dst, uint64(write))
	dst = binary.BigEndian.AppendUint64(dst, uint64(flush))
	dst = binary.BigEndian.AppendUint64(dst, uint64(apply))
	dst = binary.BigEndian.AppendUint64(dst, uint64(timeMicros))
	return appendBool(dst, reply)
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}
