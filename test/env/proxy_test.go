package testenv

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// echoServer answers every byte with itself, and has answered all it got before it closes.
func echoServer(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func echo(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v; want %q", got, err, text)
	}
}

func TestProxyCut(t *testing.T) {
	p := NewProxy(t, echoServer(t))
	conn := dial(t, p.Addr())
	echo(t, conn, "before")
	p.Cut()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after Cut: %v, want a reset", err)
	}
	echo(t, dial(t, p.Addr()), "after")
}

func TestProxyRefuse(t *testing.T) {
	p := NewProxy(t, echoServer(t))
	conn := dial(t, p.Addr())
	echo(t, conn, "before")
	for range 3 {
		if err := p.Refuse(true); err != nil {
			t.Fatal(err)
		}
		if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v, want refused", err)
		}
		echo(t, conn, "old connections live")
		if err := p.Refuse(false); err != nil {
			t.Fatal(err)
		}
		echo(t, dial(t, p.Addr()), "after")
	}
}

func TestProxyPause(t *testing.T) {
	p := NewProxy(t, echoServer(t))
	conn := dial(t, p.Addr())
	echo(t, conn, "before")
	p.Pause(true)
	if _, err := conn.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 4)); !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
		t.Errorf("read %d bytes during the pause, error %v", n, err)
	}
	p.Pause(false)
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "late" {
		t.Errorf("after the pause: %q, %v", got, err)
	}
	p.Pause(true)
	if _, err := conn.Write([]byte("never")); err != nil {
		t.Fatal(err)
	}
	p.Close() // ends connections that stall; the test would hang otherwise
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestProxyBoundsConnections(t *testing.T) {
	p := NewProxy(t, echoServer(t))
	p.mu.Lock()
	for range maxLinks {
		p.mu.links[&link{done: make(chan struct{}), client: &net.TCPConn{}}] = struct{}{}
	}
	p.mu.Unlock()
	conn, err := net.Dial("tcp", p.Addr())
	if err == nil { // the reset may come while the client still dials
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("connection %d: %v, want a reset", maxLinks+1, err)
	}
}

func TestProxyDropsReplyOfAnyServer(t *testing.T) {
	p := NewProxy(t, echoServer(t))
	other, conn := dial(t, p.Addr()), dial(t, p.Addr())
	done := p.DropReplyAfter(func(b []byte) bool { return bytes.Contains(b, []byte("COMMIT")) })
	echo(t, other, "nothing special")
	echo(t, conn, "begin")
	if _, err := conn.Write([]byte("COMMIT")); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) || len(rest) > 0 {
		t.Errorf("got %q, %v; want a reset", rest, err)
	}
	<-done
	echo(t, other, "COMMIT") // happens once
}

func TestProxyDropsReplyOfCommit(t *testing.T) {
	s := Shared(t, 15)
	url := s.CreateDatabase(t, "commit")
	db := DatabaseOf(t, url)
	s.Exec(t, db, "CREATE TABLE n (i int)")
	p := NewProxy(t, s.Addr())
	for round := range 10 {
		conn, err := pgx.Connect(t.Context(), s.URLFor("postgres", p.Addr(), db))
		if err != nil {
			t.Fatal(err)
		}
		done := p.DropReplyAfter(func(b []byte) bool { return bytes.Contains(b, []byte("commit")) })
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), "INSERT INTO n VALUES ($1)", round); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(t.Context()); err == nil {
			t.Fatal("the client heard of its commit")
		}
		<-done
		conn.Close(t.Context())
		rows, err := s.Run(t.Context(), db, "SELECT count(*) FROM n")
		if err != nil {
			t.Fatal(err)
		}
		if want := round + 1; rows[0][0] != strconv.Itoa(want) {
			t.Fatalf("round %d: %s rows, want %d: the commit did not happen", round, rows[0][0], want)
		}
	}
	conn, err := pgx.Connect(t.Context(), s.URLFor("postgres", p.Addr(), db))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "commit"); err != nil {
		t.Errorf("after all rules are used up: %v", err)
	}
	conn.Close(t.Context())
}
