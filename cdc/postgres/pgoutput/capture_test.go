package pgoutput

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestCaptures decodes what a real Postgres 15 sent for the scripts in testdata/captures. How the bytes were taken, and
// how to take them again from another version, stands in testdata/capture.
func TestCaptures(t *testing.T) {
	datadriven.Walk(t, "testdata/captures", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, td *datadriven.TestData) string {
			var version int
			td.ScanArgs(t, "proto_version", &version)
			d := NewDecoder(version)
			var out strings.Builder
			for _, data := range readCapture(t, filepath.Base(path)) {
				env, err := ParseCopyData(data)
				if err != nil {
					t.Fatal(err)
				}
				if got := AppendEnvelope(nil, env); !bytes.Equal(got, data) {
					t.Errorf("envelope encodes as %x, was %x", got, data)
				}
				if env.Kind == Keepalive {
					fmt.Fprintf(&out, "keepalive reply=%t\n", env.ReplyRequested)
					continue
				}
				e := Encoder{inStream: d.inStream}
				var m Message
				if err := d.Decode(env.Payload, &m); err != nil {
					t.Fatalf("%x: %v", env.Payload, err)
				}
				if got := e.Append(nil, &m); !bytes.Equal(got, env.Payload) {
					t.Errorf("%v encodes as %x, was %x", m.Kind, got, env.Payload)
				}
				fmt.Fprintf(&out, "%-9v %s\n", env.WALStart, describe(&m))
			}
			return out.String()
		})
	})
}

// TestCapturedMessagesCutShort cuts every captured message at every byte and adds one: none of it may pass.
func TestCapturedMessagesCutShort(t *testing.T) {
	versions := map[string]int{"v1_text": 1, "v1_binary": 1, "v2_streaming": 2, "v3_two_phase": 3}
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			d := NewDecoder(version)
			var m Message
			for _, data := range readCapture(t, name) {
				env, err := ParseCopyData(data)
				if err != nil {
					t.Fatal(err)
				}
				if env.Kind == Keepalive {
					continue
				}
				before := *d
				for cut := range env.Payload {
					requireDecodeError(t, d, env.Payload[:cut])
				}
				requireDecodeError(t, d, append(bytes.Clone(env.Payload), 0))
				if *d != before {
					t.Fatalf("refused messages changed the decoder from %+v to %+v", before, *d)
				}
				if err := d.Decode(env.Payload, &m); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func requireDecodeError(t *testing.T, d *Decoder, data []byte) {
	t.Helper()
	var m Message
	err := d.Decode(data, &m)
	var de *DecodeError
	if !errors.As(err, &de) {
		t.Fatalf("%x: decoded as %+v with error %v", data, m, err)
	}
	if de.Offset < 0 || de.Offset > len(data) || de.What == "" || len(data) > 0 && de.Kind != Kind(data[0]) {
		t.Fatalf("%x: error %+v does not fit the message", data, *de)
	}
}

func readCapture(t testing.TB, name string) [][]byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	var messages [][]byte
	for len(data) > 0 {
		n := binary.BigEndian.Uint32(data)
		messages = append(messages, data[4:4+n:4+n])
		data = data[4+n:]
	}
	if len(messages) == 0 {
		t.Fatalf("capture %s is empty", name)
	}
	return messages
}

// describe writes every field that the kind has.
func describe(m *Message) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%c %v", m.Kind, m.Kind)
	if m.Xid != 0 {
		fmt.Fprintf(&b, " xid=%d", m.Xid)
	}
	at := func() string { return m.CommitTime().Format(time.RFC3339Nano) }
	switch m.Kind {
	case Begin:
		fmt.Fprintf(&b, " final=%v at=%s", m.LSN, at())
	case Commit, StreamCommit:
		fmt.Fprintf(&b, " lsn=%v end=%v at=%s", m.LSN, m.EndLSN, at())
	case Origin:
		fmt.Fprintf(&b, " %q lsn=%v", m.Origin, m.LSN)
	case Relation:
		r := m.Relation
		fmt.Fprintf(&b, " %d %s.%s identity=%c", r.ID, r.Namespace, r.Name, r.Identity)
		for _, c := range r.Columns {
			key := ""
			if c.Key {
				key = " key"
			}
			fmt.Fprintf(&b, "\n            %s type=%d mod=%d%s", c.Name, c.TypeOID, c.TypeMod, key)
		}
	case Type:
		fmt.Fprintf(&b, " %d %q.%s", m.Type.ID, m.Type.Namespace, m.Type.Name)
	case Insert, Update, Delete:
		fmt.Fprintf(&b, " %d", m.RelationID)
		if m.OldKind != 0 {
			fmt.Fprintf(&b, " %c(%s)", m.OldKind, describeTuple(m.Old))
		}
		if m.New != nil {
			fmt.Fprintf(&b, " N(%s)", describeTuple(m.New))
		}
	case Truncate:
		fmt.Fprintf(&b, " %v cascade=%t restart=%t", m.Relations, m.Cascade, m.RestartIdentity)
	case LogicalMessage:
		fmt.Fprintf(&b, " lsn=%v transactional=%t %q %q", m.LSN, m.Transactional, m.Prefix, m.Content)
	case StreamStart:
		fmt.Fprintf(&b, " first=%t", m.FirstSegment)
	case StreamAbort:
		fmt.Fprintf(&b, " sub=%d", m.SubXid)
		if m.HasAbortLSN {
			fmt.Fprintf(&b, " lsn=%v at=%s", m.LSN, at())
		}
	case BeginPrepare, Prepare, CommitPrepared, StreamPrepare:
		fmt.Fprintf(&b, " %q lsn=%v end=%v at=%s", m.GID, m.LSN, m.EndLSN, at())
	case RollbackPrepared:
		fmt.Fprintf(&b, " %q prepare-end=%v rollback-end=%v prepared=%s at=%s", m.GID, m.LSN, m.EndLSN,
			TimeOf(m.PrepareTime).Format(time.RFC3339Nano), at())
	}
	return b.String()
}

func describeTuple(t Tuple) string {
	var columns []string
	it := t.Iter()
	for kind, value, ok := it.Next(); ok; kind, value, ok = it.Next() {
		s := string(kind)
		switch {
		case len(value) > 60:
			s += fmt.Sprintf(":%q... %d bytes", value[:3], len(value))
		case kind == ColumnText:
			s += ":" + strconv.Quote(string(value))
		case kind == ColumnBinary:
			s += fmt.Sprintf(":%x", value)
		}
		columns = append(columns, s)
	}
	if len(columns) != t.Columns() {
		return fmt.Sprintf("BROKEN: %d columns, counted %d", t.Columns(), len(columns))
	}
	return strings.Join(columns, " ")
}
