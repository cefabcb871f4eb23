package pgoutput

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// TestRoundTrip encodes random sequences of messages, as the state of the stream allows them, and decodes them again
// into one Message.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		version := rapid.IntRange(1, MaxVersion).Draw(t, "version")
		d, e := NewDecoder(version), Encoder{}
		var m Message
		for range rapid.IntRange(1, 20).Draw(t, "messages") {
			want := drawMessage(t, version, e.inStream)
			data := e.Append(nil, &want)
			if err := d.Decode(data, &m); err != nil {
				t.Fatalf("%x: %v", data, err)
			}
			requireEqual(t, &m, want)
		}
	})
}

var allKinds = []Kind{
	Begin, Commit, Origin, Relation, Type, Insert, Update, Delete, Truncate, LogicalMessage,
	StreamStart, StreamStop, StreamCommit, StreamAbort,
	BeginPrepare, Prepare, CommitPrepared, RollbackPrepared, StreamPrepare,
}

func drawMessage(t *rapid.T, version int, inStream bool) Message {
	var kinds []Kind
	for _, k := range allKinds {
		allowed, _ := k.inBlock()
		if k.minVersion() <= version && (!inStream && k != StreamStop || inStream && allowed) {
			kinds = append(kinds, k)
		}
	}
	m := Message{Kind: rapid.SampledFrom(kinds).Draw(t, "kind")}
	if _, withXid := m.Kind.inBlock(); withXid && inStream {
		m.Xid = rapid.Uint32().Draw(t, "xid")
	}
	lsn := func(name string) LSN { return LSN(rapid.Uint64().Draw(t, name)) }
	micros := rapid.Int64()
	prepared := func() {
		m.LSN, m.EndLSN = lsn("lsn"), lsn("end")
		m.Time = micros.Draw(t, "time")
		m.Xid = rapid.Uint32().Draw(t, "xid")
		m.GID = []byte(cstring.Draw(t, "gid"))
	}
	switch m.Kind {
	case Begin:
		m.LSN, m.Time, m.Xid = lsn("lsn"), micros.Draw(t, "time"), rapid.Uint32().Draw(t, "xid")
	case StreamCommit:
		m.Xid = rapid.Uint32().Draw(t, "xid")
		fallthrough
	case Commit:
		m.LSN, m.EndLSN, m.Time = lsn("lsn"), lsn("end"), micros.Draw(t, "time")
	case Origin:
		m.LSN, m.Origin = lsn("lsn"), []byte(cstring.Draw(t, "origin"))
	case Relation:
		m.Relation = &RelationMsg{
			ID: rapid.Uint32().Draw(t, "relation"), Namespace: cstring.Draw(t, "namespace"), Name: cstring.Draw(t, "name"),
			Identity: rapid.SampledFrom([]byte("dnfi")).Draw(t, "identity"),
			Columns: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Column {
				return Column{rapid.Bool().Draw(t, "key"), cstring.Draw(t, "column"), rapid.Uint32().Draw(t, "type"), rapid.Int32().Draw(t, "mod")}
			}), 0, 8).Draw(t, "columns"),
		}
		if m.Relation.Columns == nil {
			m.Relation.Columns = []Column{}
		}
	case Type:
		m.Type = &TypeMsg{rapid.Uint32().Draw(t, "type"), cstring.Draw(t, "namespace"), cstring.Draw(t, "name")}
	case Insert, Update, Delete:
		m.RelationID = rapid.Uint32().Draw(t, "relation")
		if m.Kind == Delete || m.Kind == Update && rapid.Bool().Draw(t, "has old") {
			m.OldKind = rapid.SampledFrom([]byte("KO")).Draw(t, "old kind")
			m.Old = drawTuple(t)
		}
		if m.Kind != Delete {
			m.New = drawTuple(t)
		}
	case Truncate:
		m.Flags = rapid.SampledFrom([]byte{0, 1, 2, 3}).Draw(t, "flags")
		m.Cascade, m.RestartIdentity = m.Flags&1 != 0, m.Flags&2 != 0
		m.Relations = rapid.SliceOfN(rapid.Uint32(), 1, 5).Draw(t, "relations")
	case LogicalMessage:
		m.Transactional = rapid.Bool().Draw(t, "transactional")
		if m.Transactional {
			m.Flags = 1
		}
		m.LSN, m.Prefix = lsn("lsn"), []byte(cstring.Draw(t, "prefix"))
		m.Content = append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(t, "content")...)
	case StreamStart:
		m.Xid, m.FirstSegment = rapid.Uint32().Draw(t, "xid"), rapid.Bool().Draw(t, "first")
		if m.FirstSegment {
			m.Flags = 1
		}
	case StreamAbort:
		m.Xid, m.SubXid = rapid.Uint32().Draw(t, "xid"), rapid.Uint32().Draw(t, "subxid")
		if version >= 4 && rapid.Bool().Draw(t, "parallel") {
			m.HasAbortLSN, m.LSN, m.Time = true, lsn("lsn"), micros.Draw(t, "time")
		}
	case BeginPrepare, Prepare, CommitPrepared, StreamPrepare:
		prepared()
	case RollbackPrepared:
		prepared()
		m.PrepareTime = micros.Draw(t, "prepare time")
	}
	return m
}

var cstring = rapid.StringMatching(`[a-zß \x01"]{0,12}`)

// drawTuple also checks that iterating gives back what was put in.
func drawTuple(t *rapid.T) Tuple {
	type column struct {
		kind  byte
		value []byte
	}
	tuple := Tuple{0, 0}
	var columns []column
	for range rapid.IntRange(0, 6).Draw(t, "columns") {
		c := column{kind: rapid.SampledFrom([]byte("nutb")).Draw(t, "kind")}
		if c.kind == ColumnText || c.kind == ColumnBinary {
			c.value = rapid.SliceOf(rapid.Byte()).Draw(t, "value")
		}
		columns = append(columns, c)
		tuple = tuple.AppendColumn(c.kind, c.value)
	}
	it := tuple.Iter()
	for _, c := range columns {
		if kind, value, ok := it.Next(); !ok || kind != c.kind || !bytes.Equal(value, c.value) {
			t.Fatalf("%x: column is %c %x %t, was %c %x", tuple, kind, value, ok, c.kind, c.value)
		}
	}
	if _, _, ok := it.Next(); ok || tuple.Columns() != len(columns) {
		t.Fatalf("%x: has more than its %d columns", tuple, len(columns))
	}
	return tuple
}

// FuzzDecode: nothing panics, and what is accepted is the one encoding of what it means. The second half is what makes
// the first trustworthy: a decoder that skipped a byte or misread a length could not give the input back.
func FuzzDecode(f *testing.F) {
	for _, tt := range layouts {
		f.Add(uint8(tt.version), tt.inBlock, raw(f, tt.layout))
	}
	for name, version := range map[string]uint8{"v1_text": 1, "v1_binary": 1, "v2_streaming": 2, "v3_two_phase": 3} {
		for _, data := range readCapture(f, name) {
			if env, err := ParseCopyData(data); err == nil && env.Kind == XLogData {
				f.Add(version, false, env.Payload)
				f.Add(version, true, env.Payload)
			}
		}
	}
	f.Fuzz(func(t *testing.T, version uint8, inStream bool, data []byte) {
		d := NewDecoder(1 + int(version-1)%MaxVersion)
		d.inStream = inStream && d.version >= 2
		e := Encoder{inStream: d.inStream}
		var m Message
		if err := d.Decode(data, &m); err != nil {
			de, ok := err.(*DecodeError)
			if !ok || de.Offset < 0 || de.Offset > len(data) || de.What == "" {
				t.Fatalf("%x: error %#v does not fit the message", data, err)
			}
			return
		}
		for _, tuple := range []Tuple{m.Old, m.New} {
			n, it := 0, tuple.Iter()
			for _, _, ok := it.Next(); ok; _, _, ok = it.Next() {
				n++
			}
			if n != tuple.Columns() {
				t.Fatalf("%x: %d columns, counted %d", data, tuple.Columns(), n)
			}
		}
		if got := e.Append(nil, &m); !bytes.Equal(got, data) || e.inStream != d.inStream {
			t.Fatalf("%x: encoded as %x", data, got)
		}
	})
}
