package pgoutput

import (
	"bytes"
	"math"
	"reflect"
	"testing"
	"time"
)

func TestParseCopyData(t *testing.T) {
	for _, tt := range []struct {
		layout string
		want   Envelope
	}{
		{"'w' 0000000000000abc 0000000000000abd 0000000000000007 'E'",
			Envelope{Kind: XLogData, WALStart: 0xabc, WALEnd: 0xabd, SendTime: 7, Payload: []byte("E")}},
		{"'w' 0000000000000000 0000000000000abd ffffffffffffffff",
			Envelope{Kind: XLogData, WALEnd: 0xabd, SendTime: -1, Payload: []byte{}}},
		{"'k' 0000000000000abd 0000000000000007 01",
			Envelope{Kind: Keepalive, WALEnd: 0xabd, SendTime: 7, ReplyRequested: true}},
		{"'k' 0000000000000abd 0000000000000007 00",
			Envelope{Kind: Keepalive, WALEnd: 0xabd, SendTime: 7}},
	} {
		data := raw(t, tt.layout)
		got, err := ParseCopyData(data)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, %v\nwant %+v", tt.layout, got, err, tt.want)
		}
		if back := AppendEnvelope(nil, tt.want); !bytes.Equal(back, data) {
			t.Errorf("%s: encoded as %x", tt.layout, back)
		}
		for cut := range data {
			// XLogData may end anywhere in its payload; that is for Decode to judge.
			if tt.want.Kind == XLogData && cut >= 25 {
				continue
			}
			if _, err := ParseCopyData(data[:cut]); err == nil {
				t.Errorf("%s: accepted its first %d bytes", tt.layout, cut)
			}
		}
	}
	for _, layout := range []string{"'k' 0000000000000abd 0000000000000007 00 00", "'x' 00", "'r' 00"} {
		if e, err := ParseCopyData(raw(t, layout)); err == nil {
			t.Errorf("%s: accepted as %+v", layout, e)
		}
	}
}

func TestStatusUpdate(t *testing.T) {
	got := AppendStatusUpdate([]byte{0xff}, 3, 2, 1, -1, true)
	want := raw(t, "ff 'r' 0000000000000003 0000000000000002 0000000000000001 ffffffffffffffff 01")
	if !bytes.Equal(got, want) {
		t.Fatalf("got  %x\nwant %x", got, want)
	}
	status, err := ParseStatusUpdate(got[1:])
	if want := (Status{3, 2, 1, -1, true}); err != nil || status != want {
		t.Errorf("parsed %+v, %v; want %+v", status, err, want)
	}
	for _, data := range [][]byte{nil, got[1:34], append(got[1:], 0), AppendEnvelope(nil, Envelope{Kind: Keepalive})} {
		if s, err := ParseStatusUpdate(data); err == nil {
			t.Errorf("%x: accepted as %+v", data, s)
		}
	}
	if quiet := AppendStatusUpdate(nil, 3, 2, 1, 0, false); len(quiet) != 34 || quiet[33] != 0 {
		t.Errorf("without reply: %x", quiet)
	}
}

func TestLSN(t *testing.T) {
	for _, tt := range []struct {
		text string
		lsn  LSN
		back string // empty if the same
	}{
		{"16/B374D848", 0x16b374d848, ""},
		{"0/0", 0, ""},
		{"0/1", 1, ""},
		{"1/0", 1 << 32, ""},
		{"FFFFFFFF/FFFFFFFF", math.MaxUint64, ""},
		{"16/b374d848", 0x16b374d848, "16/B374D848"},
		{"0/0153C3D0", 0x153c3d0, "0/153C3D0"},
	} {
		lsn, err := ParseLSN(tt.text)
		if err != nil || lsn != tt.lsn {
			t.Errorf("%s: got %#x, %v", tt.text, uint64(lsn), err)
		}
		back := tt.back
		if back == "" {
			back = tt.text
		}
		if tt.lsn.String() != back {
			t.Errorf("%#x: got %s, want %s", uint64(tt.lsn), tt.lsn, back)
		}
	}
	for _, text := range []string{"", "/", "1", "1/", "/1", "1/2/3", "000000001/0", "0/123456789", "+1/0", "-1/0", "0x1/0", "1_0/0", " 1/0", "G/0"} {
		if lsn, err := ParseLSN(text); err == nil {
			t.Errorf("%q: accepted as %v", text, lsn)
		}
	}
}

func TestTimes(t *testing.T) {
	for _, tt := range []struct {
		micros int64
		want   string
	}{
		{0, "2000-01-01T00:00:00Z"},
		{-1, "1999-12-31T23:59:59.999999Z"},
		{34488306789000, "2001-02-03T04:05:06.789Z"},
	} {
		if got := TimeOf(tt.micros).Format(time.RFC3339Nano); got != tt.want {
			t.Errorf("%d: got %s, want %s", tt.micros, got, tt.want)
		}
	}
	for _, micros := range []int64{0, 1, -1, 1e6, -1e6, -1e6 - 1, 845_000_000_123_456, math.MinInt64 / 2, math.MaxInt64 / 2} {
		if back := MicrosOf(TimeOf(micros)); back != micros {
			t.Errorf("%d came back as %d", micros, back)
		}
	}
	// The ends of int64 are 292,000 years away; adding the epoch in microseconds would wrap to the other side.
	if y := TimeOf(math.MaxInt64).Year(); y < 200_000 {
		t.Errorf("the last timestamp is in the year %d", y)
	}
	m := Message{Kind: Commit, Time: 34488306789000}
	if !m.CommitTime().Equal(time.Date(2001, 2, 3, 4, 5, 6, 789e6, time.UTC)) {
		t.Errorf("commit time is %v", m.CommitTime())
	}
}
