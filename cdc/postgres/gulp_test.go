package postgres

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/weirstream/weir/internal/env"
)

// socketPair returns our end of a TCP connection, read in gulps, and the server's.
func socketPair(t *testing.T) (*gulpConn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := env.Real(slog.New(slog.DiscardHandler))
	ours, err := e.Net.DialSmall(t.Context(), "tcp", l.Addr().String(), gulpReceiveBuffer)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	g := newGulpConn(ours, e.Clock)
	if g.quiet == nil && runtime.GOOS == "linux" {
		t.Fatal("the socket is not a quiet one")
	}
	t.Cleanup(func() { _ = g.Close(); _ = theirs.Close() })
	return g, theirs
}

func TestGulpsBringEverything(t *testing.T) {
	g, server := socketPair(t)
	want := make([]byte, 3<<20)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	go func() {
		for at, n := 0, 1; at < len(want); at, n = at+n, (n*5+3)%4000+1 {
			n = min(n, len(want)-at)
			if _, err := server.Write(want[at : at+n]); err != nil {
				return
			}
		}
		_ = server.Close()
	}()
	got, err := io.ReadAll(g)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes of %d, error %v", len(got), len(want), err)
	}
}

func TestGulpWrites(t *testing.T) {
	g, server := socketPair(t)
	want := bytes.Repeat([]byte("feedback"), 1<<18) // more than the sockets hold: writes have to wait
	go func() {
		_, _ = g.Write(want)
		_ = g.Close()
	}()
	got, err := io.ReadAll(server)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the server read %d bytes of %d, error %v", len(got), len(want), err)
	}
}

// TestGulpIsInterrupted: a wait ends by a deadline and by closing, and goes on after the deadline is taken away.
func TestGulpIsInterrupted(t *testing.T) {
	g, server := socketPair(t)
	type result struct {
		text string
		err  error
	}
	results := make(chan result)
	read := func() {
		p := make([]byte, 100)
		n, err := g.Read(p)
		results <- result{string(p[:n]), err}
	}
	go read()
	<-time.After(20 * time.Millisecond)
	_ = g.SetReadDeadline(time.Unix(1, 0))
	if r := <-results; !errors.Is(r.err, os.ErrDeadlineExceeded) {
		t.Fatalf("a deadline in the past: %+v", r)
	}
	_ = g.SetReadDeadline(time.Time{})
	for _, text := range []string{"one", "two", "three"} {
		go read()
		<-time.After(5 * time.Millisecond)
		if _, err := server.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if r := <-results; r.err != nil || r.text != text {
			t.Fatalf("after the deadline: %+v", r)
		}
	}
	go read()
	<-time.After(20 * time.Millisecond)
	_ = g.Close()
	if r := <-results; r.err == nil {
		t.Fatalf("read from a closed connection: %+v", r)
	}
	if _, err := g.Write([]byte("x")); err == nil {
		t.Fatal("wrote to a closed connection")
	}
}

func TestGulpWriteDeadline(t *testing.T) {
	g, _ := socketPair(t)
	_ = g.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := g.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("nobody reads: %v", err)
	}
}

// TestGulpPauses: the pauses follow what came in during the last one.
func TestGulpPauses(t *testing.T) {
	clock := env.Real(slog.New(slog.DiscardHandler)).Clock
	g := &gulpConn{clock: clock, fresh: clock.Now()}
	if g.busy() {
		t.Error("what follows a first row at once is waited for without a pause")
	}
	g.fresh = g.fresh.Add(-time.Second)
	if !g.busy() || g.level != 0 {
		t.Error("a trickle is read at the shortest pause")
	}
	for range 10 {
		g.paused = gulpPauses[g.level]
		g.pending = gulpLoad * int(g.paused/time.Millisecond)
		if !g.busy() {
			t.Fatal("load without a pause")
		}
	}
	if g.level != len(gulpPauses)-1 {
		t.Errorf("steady load has level %d", g.level)
	}
	for range 10 {
		g.paused, g.pending = gulpPauses[g.level], 1
		if !g.busy() {
			t.Fatal("a trickle without a pause")
		}
	}
	if g.level != 0 {
		t.Errorf("after the load, level %d", g.level)
	}
	if g.paused, g.pending = gulpPauses[0], 0; g.busy() {
		t.Error("nothing came, and the connection does not block")
	}
}
