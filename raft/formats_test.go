package raft

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	hraft "github.com/hashicorp/raft"

	"github.com/weirstream/weir/internal/format/record"
)

func sampleLog() *hraft.Log {
	return &hraft.Log{
		Index: 7, Term: 3, Type: hraft.LogCommand, Data: []byte("decide"), Extensions: []byte("ext"),
		AppendedAt: time.Unix(1700000000, 42),
	}
}

func TestLogEntriesRoundTrip(t *testing.T) {
	for _, want := range []*hraft.Log{sampleLog(), {Index: 1, Term: 1, Type: hraft.LogNoop}} {
		var got hraft.Log
		if err := decodeLog(encodeLog(want), &got); err != nil {
			t.Fatal(err)
		}
		if got.Index != want.Index || got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) ||
			!bytes.Equal(got.Extensions, want.Extensions) || !got.AppendedAt.Equal(want.AppendedAt) {
			t.Errorf("%+v became %+v", want, got)
		}
	}
}

// sampleSnapshot is a snapshot of more than one piece.
func sampleSnapshot(t interface{ Fatal(...any) }) []byte {
	k := snapSink{
		meta:  hraft.SnapshotMeta{Version: hraft.SnapshotVersionMax, ID: "x", Index: 9, Term: 2},
		state: bytes.Repeat([]byte("weir"), snapPiece.Limit/3),
	}
	var b bytes.Buffer
	if err := k.encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSnapshotFilesRoundTrip(t *testing.T) {
	b := sampleSnapshot(t)
	meta, err := verifySnapshot(bytes.NewReader(b))
	if err != nil || meta.Index != 9 || meta.Term != 2 || meta.Size != int64(snapPiece.Limit/3*4) {
		t.Fatalf("%+v, %v", meta, err)
	}
	r, err := newSnapReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	state, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(state, bytes.Repeat([]byte("weir"), snapPiece.Limit/3)) {
		t.Fatalf("%d bytes, %v", len(state), err)
	}
}

// Pieces that are whole each, but one is missing, twice there or followed by something.
func TestSnapshotThatIsNotWholeIsNoticed(t *testing.T) {
	b := sampleSnapshot(t)
	_, rest, err := snapHead.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	head := b[:len(b)-len(rest)]
	_, after, err := snapPiece.Decode(rest)
	if err != nil {
		t.Fatal(err)
	}
	first := rest[:len(rest)-len(after)]
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"piece missing":   {join(head, after), record.ErrChecksum},
		"piece twice":     {join(head, first, first, after), record.ErrChecksum},
		"tail missing":    {join(head, first), record.ErrTorn},
		"bytes after":     {join(b, []byte{0}), record.ErrChecksum},
		"nothing":         {nil, record.ErrTorn},
		"unknown piece":   {join(head, snapPiece.Append(nil, []byte("?"))), record.ErrMagic},
		"a piece of none": {join(head, snapPiece.Append(nil, nil)), record.ErrTorn},
	} {
		if _, err := verifySnapshot(bytes.NewReader(c.b)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestLogStoreKeepsItsRange(t *testing.T) {
	e, _ := testEnv(vfs.NewMem())
	fs := e.FS
	if err := record.MkdirAll(fs, "/log", 0o700); err != nil {
		t.Fatal(err)
	}
	open := func() *store {
		s, err := openStore(fs, "/log", newGuard(e))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	expect := func(first, last uint64) {
		t.Helper()
		f, err1 := s.FirstIndex()
		l, err2 := s.LastIndex()
		if err := errors.Join(err1, err2); err != nil || f != first || l != last {
			t.Fatalf("the log spans %d to %d, want %d to %d (%v)", f, l, first, last, err)
		}
	}
	expect(0, 0)
	var logs []*hraft.Log
	for i := uint64(5); i <= 20; i++ {
		logs = append(logs, &hraft.Log{Index: i, Term: 1, Data: []byte{byte(i)}})
	}
	if err := s.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	expect(5, 20)
	if err := s.DeleteRange(5, 9); err != nil { // after a snapshot
		t.Fatal(err)
	}
	expect(10, 20)
	if err := s.DeleteRange(18, 20); err != nil { // overruled
		t.Fatal(err)
	}
	expect(10, 17)
	if err := errors.Join(s.SetUint64([]byte("CurrentTerm"), 9), s.close()); err != nil {
		t.Fatal(err)
	}
	s = open()
	expect(10, 17)
	var l hraft.Log
	if err := s.GetLog(17, &l); err != nil || l.Index != 17 || l.Data[0] != 17 {
		t.Errorf("entry 17 is %+v, %v", l, err)
	}
	if err := s.GetLog(18, &l); !errors.Is(err, hraft.ErrLogNotFound) {
		t.Errorf("entry 18: %v", err)
	}
	if v, err := s.GetUint64([]byte("CurrentTerm")); err != nil || v != 9 {
		t.Errorf("term %d, %v", v, err)
	}
	if v, err := s.GetUint64([]byte("absent")); err != nil || v != 0 {
		t.Errorf("absent value %d, %v", v, err)
	}
	if err := s.DeleteRange(10, 17); err != nil {
		t.Fatal(err)
	}
	expect(0, 0)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}

func FuzzDecodeLog(f *testing.F) {
	f.Add(encodeLog(sampleLog()))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l hraft.Log
		if err := decodeLog(b, &l); err != nil {
			return
		}
		if !bytes.Equal(encodeLog(&l), b) {
			t.Fatalf("%x does not encode to its bytes", b)
		}
	})
}

func FuzzVerifySnapshot(f *testing.F) {
	f.Add(sampleSnapshot(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		meta, err := verifySnapshot(bytes.NewReader(b))
		if err == nil && meta.Size > int64(len(b)) {
			t.Fatalf("%d bytes of state in %d", meta.Size, len(b))
		}
	})
}
