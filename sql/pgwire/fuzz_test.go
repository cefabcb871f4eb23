package pgwire

import (
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
)

// FuzzSplit: the pieces of a text lie in it one behind another, and hold everything but space, comments and semicolons.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"SELECT 1; SELECT ';' -- ;\n; /* ; */", `SELECT "a;b", 'it''s'`, "'", "/*", ";;", "`;`"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at := 0
		for _, p := range split(s) {
			if p.begin < at || !strings.HasPrefix(s[p.begin:], p.text) || p.text == "" {
				t.Fatalf("%q: piece %q at %d behind %d", s, p.text, p.begin, at)
			}
			between := s[at:p.begin]
			if !blank(strings.ReplaceAll(between, ";", " ")) && at > 0 {
				t.Fatalf("%q: %q is in no piece", s, between)
			}
			at = p.begin + len(p.text)
			words(p.text, 3)
			shapeOf(p.text)
		}
	})
}

// FuzzNumeric: what is read from a binary number is written again as it was, but for zeros.
func FuzzNumeric(f *testing.F) {
	for _, s := range []string{"0", "1", "-1", "12345.6789", "0.0001", "10000", "99999999.00010", "-0.5", "123456789012345678901234567890.12345678"} {
		f.Add(appendNumeric(nil, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := numericText(b)
		if !ok {
			return
		}
		x, valid := new(big.Rat).SetString(s)
		if !valid {
			t.Fatalf("%x is %q, which is no number", b, s)
		}
		again, ok := numericText(appendNumeric(nil, s))
		if y, valid := new(big.Rat).SetString(again); !ok || !valid || x.Cmp(y) != 0 {
			t.Fatalf("%x is %s and comes back as %s", b, s, again)
		}
	})
}

func TestNumeric(t *testing.T) {
	for _, s := range []string{"0", "1", "-1", "12345.6789", "0.0001", "10000", "99999999.00010", "-0.5", "0.00", "123456789012345678901234567890.12345678"} {
		if got, ok := numericText(appendNumeric(nil, s)); !ok || got != s {
			t.Errorf("%s comes back as %s", s, got)
		}
	}
}

// FuzzParameter: a value in any form and of any type is taken or refused, and never takes anything else along.
func FuzzParameter(f *testing.F) {
	f.Add(uint32(oidInt8), []byte{0, 0, 0, 0, 0, 0, 0, 1}, true)
	f.Add(uint32(oidNumeric), appendNumeric(nil, "1.5"), true)
	f.Add(uint32(oidBytea), []byte(`\x00ff`), false)
	f.Add(uint32(oidTimestamptz), []byte("2024-01-01 00:00:00+02"), false)
	f.Fuzz(func(t *testing.T, oid uint32, b []byte, binary bool) {
		typ, ok := rowType(oid)
		if !ok || typ.Kind == row.Null {
			return
		}
		v := &row.Vector{}
		if binary {
			ok = parseBinary(v, typ, oid, b, time.UTC)
		} else {
			ok = parseText(v, typ, b, time.UTC)
		}
		if !ok {
			return
		}
		if n := len(v.Int64) + len(v.Float64) + len(v.Decimal) + len(v.Spans); n != 1 {
			t.Fatalf("%x of type %d made %d values", b, oid, n)
		}
		appendText(nil, typ, v, 0, time.UTC)
		appendBinary(nil, typ, v, 0, time.UTC)
	})
}

// FuzzSession: whatever a client sends behind its greeting, no session panics and every one ends.
func FuzzSession(f *testing.F) {
	message := func(ms ...pgproto3.FrontendMessage) []byte {
		var b []byte
		for _, m := range ms {
			b, _ = m.Encode(b)
		}
		return b
	}
	f.Add(message(&pgproto3.Query{String: "SELECT 1; SHOW ALL"}))
	f.Add(message(&pgproto3.Parse{Query: "SELECT $1", ParameterOIDs: []uint32{20}}, &pgproto3.Bind{Parameters: [][]byte{[]byte("7")}}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Sync{}))
	f.Add(message(&pgproto3.Parse{Query: "SELECT relname FROM pg_class"}, &pgproto3.Describe{ObjectType: 'S'}, &pgproto3.Close{ObjectType: 'S'}, &pgproto3.Flush{}, &pgproto3.Terminate{}))
	f.Add(message(&pgproto3.Query{String: "BEGIN; SELECT nothing; COMMIT"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := env.Real(slog.New(slog.DiscardHandler))
		s := New(e, Options{Version: "fuzz"})
		server, client := net.Pipe()
		x := newSession(s, server, 1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer server.Close()
			x.serve()
		}()
		var answer []byte
		read := make(chan struct{})
		go func() {
			defer close(read)
			buf := make([]byte, 4096)
			for {
				n, err := client.Read(buf)
				answer = append(answer, buf[:n]...)
				if err != nil {
					return
				}
			}
		}()
		hello, _ := (&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "weir"}}).Encode(nil)
		_ = client.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := client.Write(hello); err == nil {
			_, _ = client.Write(b)
		}
		client.Close()
		<-done
		<-read
		if strings.Contains(string(answer), "the session failed") {
			t.Fatalf("%q\n%q", b, answer)
		}
		e.Wait()
	})
}
