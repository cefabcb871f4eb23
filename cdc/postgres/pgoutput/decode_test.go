package pgoutput

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// raw writes bytes readably: words in quotes are text, all others hexadecimal.
func raw(t testing.TB, layout string) []byte {
	t.Helper()
	var b []byte
	for _, word := range strings.Fields(layout) {
		if text, ok := strings.CutPrefix(word, "'"); ok {
			b = append(b, strings.TrimSuffix(text, "'")...)
			continue
		}
		part, err := hex.DecodeString(word)
		if err != nil {
			t.Fatalf("%q: %v", word, err)
		}
		b = append(b, part...)
	}
	return b
}

// Layouts are written out by hand from the protocol's documentation, field by field.
var layouts = []struct {
	name    string
	version int
	inBlock bool
	layout  string
	want    Message
}{
	{"begin", 1, false, "'B' 00000016b374d848 0000000000000001 000002e4",
		Message{Kind: Begin, LSN: 0x16b374d848, Time: 1, Xid: 740}},
	{"commit", 1, false, "'C' 00 00000016b374d848 00000016b374d878 fffffffffffffffe",
		Message{Kind: Commit, LSN: 0x16b374d848, EndLSN: 0x16b374d878, Time: -2}},
	{"origin", 1, false, "'O' 0000000000000abc 'eu-west' 00",
		Message{Kind: Origin, LSN: 0xabc, Origin: []byte("eu-west")}},
	{"origin in a block has no xid", 2, true, "'O' 0000000000000abc 00",
		Message{Kind: Origin, LSN: 0xabc, Origin: []byte{}}},
	{"relation", 1, false, "'R' 00004001 'public' 00 't' 00 'd' 0002" +
		" 01 'id' 00 00000017 ffffffff  00 'name' 00 00000413 00000024",
		Message{Kind: Relation, Relation: &RelationMsg{ID: 16385, Namespace: "public", Name: "t", Identity: 'd',
			Columns: []Column{{true, "id", 23, -1}, {false, "name", 1043, 36}}}}},
	{"relation in a block", 2, true, "'R' 00000301 00004001 00 't' 00 'i' 0000",
		Message{Kind: Relation, Xid: 769, Relation: &RelationMsg{ID: 16385, Name: "t", Identity: 'i', Columns: []Column{}}}},
	{"type", 1, false, "'Y' 00004002 'public' 00 'mood' 00",
		Message{Kind: Type, Type: &TypeMsg{ID: 16386, Namespace: "public", Name: "mood"}}},
	{"type in a block", 2, true, "'Y' 00000301 00004002 00 'int4' 00",
		Message{Kind: Type, Xid: 769, Type: &TypeMsg{ID: 16386, Name: "int4"}}},
	{"insert of every column kind", 1, false, "'I' 00004001 'N' 0005 't' 00000002 '17' 'n' 'u' 'b' 00000001 ff 't' 00000000",
		Message{Kind: Insert, RelationID: 16385,
			New: Tuple("\x00\x05t\x00\x00\x00\x0217nub\x00\x00\x00\x01\xfft\x00\x00\x00\x00")}},
	{"insert without columns", 1, false, "'I' 00004001 'N' 0000",
		Message{Kind: Insert, RelationID: 16385, New: Tuple{0, 0}}},
	{"insert in a block", 2, true, "'I' 00000301 00004001 'N' 0001 'n'",
		Message{Kind: Insert, Xid: 769, RelationID: 16385, New: Tuple("\x00\x01n")}},
	{"update", 1, false, "'U' 00004001 'N' 0001 'u'",
		Message{Kind: Update, RelationID: 16385, New: Tuple("\x00\x01u")}},
	{"update of a key", 1, false, "'U' 00004001 'K' 0002 't' 00000001 '1' 'n' 'N' 0002 't' 00000001 '2' 'u'",
		Message{Kind: Update, RelationID: 16385, OldKind: 'K',
			Old: Tuple("\x00\x02t\x00\x00\x00\x011n"), New: Tuple("\x00\x02t\x00\x00\x00\x012u")}},
	{"update with the old row in a block", 2, true, "'U' 00000301 00004001 'O' 0001 'n' 'N' 0001 'n'",
		Message{Kind: Update, Xid: 769, RelationID: 16385, OldKind: 'O', Old: Tuple("\x00\x01n"), New: Tuple("\x00\x01n")}},
	{"delete by key", 1, false, "'D' 00004001 'K' 0001 't' 00000001 '1'",
		Message{Kind: Delete, RelationID: 16385, OldKind: 'K', Old: Tuple("\x00\x01t\x00\x00\x00\x011")}},
	{"delete with the old row", 1, false, "'D' 00004001 'O' 0001 'n'",
		Message{Kind: Delete, RelationID: 16385, OldKind: 'O', Old: Tuple("\x00\x01n")}},
	{"truncate", 1, false, "'T' 00000002 03 00004001 00004002",
		Message{Kind: Truncate, Flags: 3, Cascade: true, RestartIdentity: true, Relations: []uint32{16385, 16386}}},
	{"truncate restart only in a block", 2, true, "'T' 00000301 00000001 02 00004001",
		Message{Kind: Truncate, Xid: 769, Flags: 2, RestartIdentity: true, Relations: []uint32{16385}}},
	{"truncate cascade only", 1, false, "'T' 00000001 01 00004001",
		Message{Kind: Truncate, Flags: 1, Cascade: true, Relations: []uint32{16385}}},
	{"message", 1, false, "'M' 01 0000000000000abc 'weir' 00 00000003 'a' 00 'b'",
		Message{Kind: LogicalMessage, Flags: 1, Transactional: true, LSN: 0xabc, Prefix: []byte("weir"), Content: []byte("a\x00b")}},
	{"empty message in a block", 2, true, "'M' 00000301 00 0000000000000abc 00 00000000",
		Message{Kind: LogicalMessage, Xid: 769, LSN: 0xabc, Prefix: []byte{}, Content: []byte{}}},
	{"stream start", 2, false, "'S' 00000300 01",
		Message{Kind: StreamStart, Xid: 768, Flags: 1, FirstSegment: true}},
	{"stream start, later segment", 2, false, "'S' 00000300 00",
		Message{Kind: StreamStart, Xid: 768}},
	{"stream stop", 2, true, "'E'",
		Message{Kind: StreamStop}},
	{"stream commit", 2, false, "'c' 00000300 00 0000000000000abc 0000000000000abd 0000000000000007",
		Message{Kind: StreamCommit, Xid: 768, LSN: 0xabc, EndLSN: 0xabd, Time: 7}},
	{"stream abort", 2, false, "'A' 00000300 00000301",
		Message{Kind: StreamAbort, Xid: 768, SubXid: 769}},
	{"stray stream abort of Postgres 18", 1, false, "'A' 00000300 00000300",
		Message{Kind: StreamAbort, Xid: 768, SubXid: 768}},
	{"stream abort without parallel", 4, false, "'A' 00000300 00000301",
		Message{Kind: StreamAbort, Xid: 768, SubXid: 769}},
	{"stream abort with parallel", 4, false, "'A' 00000300 00000301 0000000000000abc 0000000000000007",
		Message{Kind: StreamAbort, Xid: 768, SubXid: 769, HasAbortLSN: true, LSN: 0xabc, Time: 7}},
	{"begin prepare", 3, false, "'b' 0000000000000abc 0000000000000abd 0000000000000007 00000300 'g1' 00",
		Message{Kind: BeginPrepare, LSN: 0xabc, EndLSN: 0xabd, Time: 7, Xid: 768, GID: []byte("g1")}},
	{"prepare", 3, false, "'P' 00 0000000000000abc 0000000000000abd 0000000000000007 00000300 'g1' 00",
		Message{Kind: Prepare, LSN: 0xabc, EndLSN: 0xabd, Time: 7, Xid: 768, GID: []byte("g1")}},
	{"commit prepared", 3, false, "'K' 00 0000000000000abc 0000000000000abd 0000000000000007 00000300 'g1' 00",
		Message{Kind: CommitPrepared, LSN: 0xabc, EndLSN: 0xabd, Time: 7, Xid: 768, GID: []byte("g1")}},
	{"rollback prepared", 3, false, "'r' 00 0000000000000abc 0000000000000abd 0000000000000007 0000000000000008 00000300 'g1' 00",
		Message{Kind: RollbackPrepared, LSN: 0xabc, EndLSN: 0xabd, PrepareTime: 7, Time: 8, Xid: 768, GID: []byte("g1")}},
	{"stream prepare", 3, false, "'p' 00 0000000000000abc 0000000000000abd 0000000000000007 00000300 'g1' 00",
		Message{Kind: StreamPrepare, LSN: 0xabc, EndLSN: 0xabd, Time: 7, Xid: 768, GID: []byte("g1")}},
}

func TestDecodeLayouts(t *testing.T) {
	var m Message // one for all, as a reader has it: nothing of one message may be left in the next
	for _, tt := range layouts {
		t.Run(tt.name, func(t *testing.T) {
			data := raw(t, tt.layout)
			// Newer versions add kinds, they do not change the old ones.
			for version := tt.version; version <= MaxVersion; version++ {
				d := NewDecoder(version)
				d.inStream = tt.inBlock
				if err := d.Decode(data, &m); err != nil {
					t.Fatalf("version %d: %v", version, err)
				}
				requireEqual(t, &m, tt.want)
			}
			e := Encoder{inStream: tt.inBlock}
			if got := e.Append([]byte("before"), &tt.want); string(got) != "before"+string(data) {
				t.Errorf("encoded as %x, want %x", got, data)
			}
		})
	}
}

// requireEqual compares all fields, but not the length of the memory that Relations keeps for its next use.
func requireEqual(t interface {
	Helper()
	Fatalf(string, ...any)
}, got *Message, want Message) {
	t.Helper()
	g := *got
	if len(g.Relations) == 0 {
		g.Relations = nil
	}
	if !reflect.DeepEqual(g, want) {
		t.Fatalf("decoded %+v\nwant    %+v", g, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		version int
		inBlock bool
		layout  string
		offset  int
		what    string
	}{
		{"nothing", 1, false, "", 0, "message is empty"},
		{"unknown kind", 4, false, "'X' 00", 0, "unknown kind of message"},
		{"unknown kind in a block", 4, true, "'X' 00000000", 0, "unknown kind of message"},
		{"streaming under version 1", 1, false, "'S' 00000300 01", 0, "not part of protocol version 1"},
		{"two-phase under version 2", 2, false, "'b' 00", 0, "not part of protocol version 2"},
		{"stop without start", 2, false, "'E'", 0, "not inside a stream block"},
		{"start in a block", 2, true, "'S' 00000300 01", 0, "not allowed inside a stream block"},
		{"begin in a block", 2, true, "'B' 00000016b374d848 0000000000000001 000002e4", 0, "not allowed inside a stream block"},
		{"abort in a block", 2, true, "'A' 00000300 00000301", 0, "not allowed inside a stream block"},
		{"no xid in a block", 2, true, "'I' 000003", 1, "xid is cut short"},
		{"stop with bytes behind", 2, true, "'E' 00", 1, "bytes after the end of the message"},
		{"begin cut short", 1, false, "'B' 00000016b374d848 00000000", 9, "commit time is cut short"},
		{"commit with a flag", 1, false, "'C' 01 00000016b374d848 00000016b374d878 0000000000000000", 1, "unknown flag"},
		{"origin without end", 1, false, "'O' 0000000000000abc 'eu'", 9, "origin name has no end"},
		{"abort with position before version 4", 3, false, "'A' 00000300 00000301 0000000000000abc 0000000000000007",
			9, "bytes after the end of the message"},
		{"abort with half a position", 4, false, "'A' 00000300 00000301 0000000000000abc 00000000", 17, "abort time is cut short"},
		{"truncate says more than it has", 1, false, "'T' 40000000 00 00004001", 6, "list of relations does not fill the message"},
		{"truncate says 2^32-1", 1, false, "'T' ffffffff 00 00004001", 6, "list of relations does not fill the message"},
		{"truncate says less than it has", 1, false, "'T' 00000001 00 00004001 00004002", 6, "list of relations does not fill the message"},
		{"truncate with unknown flag", 1, false, "'T' 00000001 04 00004001", 5, "unknown flag"},
		{"message of negative length", 1, false, "'M' 01 0000000000000abc 00 ffffffff", 11, "content is cut short"},
		{"message with unknown flag", 1, false, "'M' 02 0000000000000abc 00 00000000", 1, "unknown flag"},
		{"relation of unknown identity", 1, false, "'R' 00004001 00 't' 00 'x' 0000", 8, "unknown replica identity"},
		{"relation of negative columns", 1, false, "'R' 00004001 00 't' 00 'd' ffff", 9, "number of columns does not fit the message"},
		{"relation of too many columns", 1, false, "'R' 00004001 00 't' 00 'd' 7fff 00 'a' 00 00000017 ffffffff",
			9, "number of columns does not fit the message"},
		{"relation with unknown column flag", 1, false, "'R' 00004001 00 't' 00 'd' 0001 02 'a' 00 00000017 ffffffff", 11, "unknown flag"},
		{"relation whose column name has no end", 1, false, "'R' 00004001 00 't' 00 'd' 0001 00 'abcdefghijk'", 12, "column name has no end"},
		{"relation with bytes behind", 1, false, "'R' 00004001 00 't' 00 'd' 0000 00", 11, "bytes after the end of the message"},
		{"insert cut short", 1, false, "'I' 00004001", 1, "relation is cut short"},
		{"insert of an old tuple", 1, false, "'I' 00004001 'K' 0000", 5, "Insert has an old tuple"},
		{"insert of something", 1, false, "'I' 00004001 'X' 0000", 5, "expected a new tuple"},
		{"update without new tuple", 1, false, "'U' 00004001 'K' 0001 'n'", 9, "new tuple is missing"},
		{"update with two old tuples", 1, false, "'U' 00004001 'K' 0001 'n' 'O' 0001 'n'", 9, "expected a new tuple"},
		{"delete of a new tuple", 1, false, "'D' 00004001 'N' 0000", 5, "expected an old tuple"},
		{"delete with a new tuple", 1, false, "'D' 00004001 'K' 0000 'N' 0000", 8, "bytes after the end of the message"},
		{"tuple without count", 1, false, "'I' 00004001 'N' 00", 6, "column count is cut short"},
		{"tuple of negative count", 1, false, "'I' 00004001 'N' 8000 'n'", 6, "column count is negative"},
		{"tuple of too few columns", 1, false, "'I' 00004001 'N' 0002 'n'", 9, "tuple ends before its last column"},
		{"tuple of too many columns", 1, false, "'I' 00004001 'N' 0001 'n' 'n'", 9, "bytes after the end of the message"},
		{"column of unknown kind", 1, false, "'I' 00004001 'N' 0001 'x'", 8, "unknown kind of column"},
		{"column length cut short", 1, false, "'I' 00004001 'N' 0001 't' 000000", 8, "column length is cut short"},
		{"column value cut short", 1, false, "'I' 00004001 'N' 0001 't' 00000002 'a'", 8, "column value is cut short"},
		{"column of negative length", 1, false, "'I' 00004001 'N' 0001 't' ffffffff 'a'", 8, "column value is cut short"},
		{"column of the largest length", 1, false, "'I' 00004001 'N' 0001 'b' 7fffffff 'a'", 8, "column value is cut short"},
		{"fault in the old tuple", 1, false, "'U' 00004001 'O' 0002 'n' 'N' 0002 'n' 'n'", 9, "unknown kind of column"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := NewDecoder(tt.version)
			d.inStream = tt.inBlock
			data := raw(t, tt.layout)
			requireDecodeError(t, d, data)
			de := d.Decode(data, new(Message)).(*DecodeError)
			if de.Offset != tt.offset || de.What != tt.what {
				t.Errorf("got byte %d: %s\nwant byte %d: %s", de.Offset, de.What, tt.offset, tt.what)
			}
			if d.inStream != tt.inBlock {
				t.Error("a refused message moved the edge of a stream block")
			}
		})
	}
}

func TestDecodeErrorText(t *testing.T) {
	err := NewDecoder(1).Decode([]byte("I\x00\x00\x40\x01X"), new(Message))
	if want := "decode pgoutput Insert message: byte 5: expected a new tuple"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	err = NewDecoder(1).Decode([]byte{0x7f}, new(Message))
	if want := "decode pgoutput kind 0x7f message: byte 0: unknown kind of message"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestStreamBlock(t *testing.T) {
	outside, inside := raw(t, "'I' 00004001 'N' 0001 'n'"), raw(t, "'I' 00000301 00004001 'N' 0001 'n'")
	start, stop := raw(t, "'S' 00000300 01"), raw(t, "'E'")
	d := NewDecoder(2)
	var m Message
	decode := func(data []byte, wantXid uint32) {
		t.Helper()
		if err := d.Decode(data, &m); err != nil {
			t.Fatal(err)
		}
		if m.Xid != wantXid {
			t.Errorf("%v has xid %d, want %d", m.Kind, m.Xid, wantXid)
		}
	}
	decode(outside, 0)
	requireDecodeError(t, d, inside)
	decode(start, 768)
	decode(inside, 769)
	requireDecodeError(t, d, outside)
	decode(stop, 0)
	decode(outside, 0)

	decode(start, 768)
	d.Reset() // the connection broke inside the block
	decode(outside, 0)
}

func TestNewDecoderVersions(t *testing.T) {
	for version, ok := range map[int]bool{-1: false, 0: false, 1: true, 4: true, 5: false} {
		func() {
			defer func() {
				if panicked := recover() != nil; panicked == ok {
					t.Errorf("version %d: panicked = %t", version, panicked)
				}
			}()
			NewDecoder(version)
		}()
	}
}

// TestDecodeAliases proves that slices are the input and not a copy, and that appending to one cannot reach what comes
// after it, be it the next field or the next message in the connection's buffer.
func TestDecodeAliases(t *testing.T) {
	decode := func(layout string) ([]byte, Message) {
		t.Helper()
		buffer := append(raw(t, layout), "next"...)
		var m Message
		if err := NewDecoder(3).Decode(buffer[:len(buffer)-4], &m); err != nil {
			t.Fatal(err)
		}
		return buffer, m
	}
	check := func(buffer []byte, fields ...[]byte) {
		t.Helper()
		before := string(buffer)
		for _, field := range fields {
			_ = append(field, '!')
			if string(buffer) != before {
				t.Fatalf("appending to %q changed the input to %q", field, buffer)
			}
		}
		clear(buffer)
		for _, field := range fields {
			if len(bytes.Trim(field, "\x00")) > 0 {
				t.Errorf("%q is a copy", field)
			}
		}
	}
	buffer, m := decode("'U' 00004001 'K' 0002 't' 00000001 '1' 'n' 'N' 0002 't' 00000001 '2' 'b' 00000001 '3'")
	it := m.New.Iter()
	_, first, _ := it.Next()
	_, second, _ := it.Next()
	check(buffer, m.Old, m.New, first, second)

	buffer, m = decode("'M' 01 0000000000000abc 'weir' 00 00000003 'abc'")
	check(buffer, m.Prefix, m.Content)
	buffer, m = decode("'O' 0000000000000abc 'eu-west' 00")
	check(buffer, m.Origin)
	buffer, m = decode("'P' 00 0000000000000abc 0000000000000abd 0000000000000007 00000300 'g1' 00")
	check(buffer, m.GID)
}

// TestRelationOwnsItsMemory is the other side of it: descriptions are kept for as long as the connection lives.
func TestRelationOwnsItsMemory(t *testing.T) {
	var m Message
	data := raw(t, "'R' 00004001 'public' 00 't' 00 'd' 0001 01 'id' 00 00000017 ffffffff")
	if err := NewDecoder(1).Decode(data, &m); err != nil {
		t.Fatal(err)
	}
	kept := m.Relation
	clear(data)
	if err := NewDecoder(1).Decode(raw(t, "'E'"), &m); err == nil {
		t.Fatal("a stray stop was accepted")
	}
	if !kept.Equal(&RelationMsg{16385, "public", "t", 'd', []Column{{true, "id", 23, -1}}}) {
		t.Errorf("description changed with the input: %+v", kept)
	}
}

func TestRelationEqual(t *testing.T) {
	base := func() *RelationMsg {
		return &RelationMsg{1, "s", "t", 'd', []Column{{true, "id", 23, -1}, {false, "x", 25, -1}}}
	}
	if !base().Equal(base()) {
		t.Error("equal descriptions differ")
	}
	for name, change := range map[string]func(*RelationMsg){
		"id":        func(r *RelationMsg) { r.ID = 2 },
		"namespace": func(r *RelationMsg) { r.Namespace = "" },
		"name":      func(r *RelationMsg) { r.Name = "u" },
		"identity":  func(r *RelationMsg) { r.Identity = 'f' },
		"key":       func(r *RelationMsg) { r.Columns[1].Key = true },
		"column":    func(r *RelationMsg) { r.Columns[1].Name = "y" },
		"type":      func(r *RelationMsg) { r.Columns[1].TypeOID = 1043 },
		"modifier":  func(r *RelationMsg) { r.Columns[1].TypeMod = 8 },
		"dropped":   func(r *RelationMsg) { r.Columns = r.Columns[:1] },
	} {
		other := base()
		change(other)
		if base().Equal(other) || other.Equal(base()) {
			t.Errorf("%s: different descriptions are equal", name)
		}
	}
	var none *RelationMsg
	if none.Equal(base()) || base().Equal(none) || !none.Equal(nil) {
		t.Error("nil equals only nil")
	}
}

func TestTupleIter(t *testing.T) {
	var tuple Tuple
	if it := tuple.Iter(); tuple.Columns() != 0 || it.rest != nil {
		t.Error("a nil tuple has columns")
	}
	tuple = tuple.AppendColumn(ColumnText, []byte("a")).AppendColumn(ColumnNull, nil).
		AppendColumn(ColumnBinary, nil).AppendColumn(ColumnUnchanged, nil)
	if tuple.Columns() != 4 {
		t.Errorf("%d columns, want 4", tuple.Columns())
	}
	it := tuple.Iter()
	for _, want := range []struct {
		kind  byte
		value []byte
		ok    bool
	}{{'t', []byte("a"), true}, {'n', nil, true}, {'b', []byte{}, true}, {'u', nil, true}, {0, nil, false}, {0, nil, false}} {
		kind, value, ok := it.Next()
		if kind != want.kind || !reflect.DeepEqual(value, want.value) || ok != want.ok {
			t.Errorf("got %c %#v %t, want %c %#v %t", kind, value, ok, want.kind, want.value, want.ok)
		}
	}
}

// TestDecodeAllocations: only descriptions of relations and types may allocate once Message has been used.
func TestDecodeAllocations(t *testing.T) {
	var m Message
	for _, tt := range layouts {
		data := raw(t, tt.layout)
		d := NewDecoder(MaxVersion)
		want := 0.0
		switch Kind(data[0]) {
		case Relation:
			want = 3 // the description, its columns, all of its names
		case Type:
			want = 2
		}
		got := testing.AllocsPerRun(100, func() {
			d.inStream = tt.inBlock
			if err := d.Decode(data, &m); err != nil {
				t.Fatal(err)
			}
		})
		if got > want {
			t.Errorf("%s: %v allocations, want at most %v", tt.name, got, want)
		}
	}
}

// TestHostileCountsAllocateLittle: a count is a claim; memory follows only from bytes that are there.
func TestHostileCountsAllocateLittle(t *testing.T) {
	columns := append(raw(t, "'R' 00004001 00 't' 00 'd' 7fff"), make([]byte, 32766*minColumnSize)...)
	fits := append(raw(t, "'R' 00004001 00 't' 00 'd' 7fff"), make([]byte, 32767*minColumnSize)...)
	relations := append(raw(t, "'T' ffffffff 00"), make([]byte, 1<<10)...)
	for name, data := range map[string][]byte{
		"one column missing": columns,
		"all columns empty":  fits,
		"truncate":           relations,
		"short truncate":     raw(t, "'T' ffffffff 00"),
		"content":            raw(t, "'M' 01 0000000000000abc 00 7fffffff"),
		"value":              raw(t, "'I' 00004001 'N' 7fff 't' 7fffffff"),
	} {
		d := NewDecoder(1)
		const runs = 10
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			err := d.Decode(data, new(Message))
			if accepted := err == nil; accepted != (name == "all columns empty") {
				t.Fatalf("%s: %v", name, err)
			}
		}
		runtime.ReadMemStats(&after)
		perRun := int(after.TotalAlloc-before.TotalAlloc) / runs
		// A Message and its DecodeError are what even one byte costs.
		if limit := 1024 + 16*len(data); perRun > limit {
			t.Errorf("%s: %d bytes of input allocated %d, limit %d", name, len(data), perRun, limit)
		}
	}
}
