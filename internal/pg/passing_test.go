package pg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestPassing(t *testing.T) {
	client, server := net.Pipe()
	_ = server.Close()
	_ = client.Close()
	_, closed := client.Read(make([]byte, 1))
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"nothing":                {nil, false},
		"administrator":          {&pgconn.PgError{Code: "57P01"}, true},
		"deadlock":               {fmt.Errorf("add: %w", &pgconn.PgError{Code: "40P01"}), true},
		"dropped meanwhile":      {fmt.Errorf("read indexes: %w", &pgconn.PgError{Code: "XX000", Message: "cache lookup failed for index 16400"}), true},
		"damaged":                {&pgconn.PgError{Code: "XX000", Message: "invalid page in block 7"}, false},
		"connection":             {&pgconn.PgError{Code: "08006"}, true},
		"no right":               {&pgconn.PgError{Code: "42501"}, false},
		"no such table":          {&pgconn.PgError{Code: "42P01"}, false},
		"end of the stream":      {fmt.Errorf("read: %w", io.ErrUnexpectedEOF), true},
		"closed pipe":            {fmt.Errorf("read: %w", closed), false}, // io.ErrClosedPipe: no socket of a server
		"closed socket":          {fmt.Errorf("read: %w", net.ErrClosed), true},
		"reset":                  {fmt.Errorf("read: %w", &net.OpError{Op: "read", Err: errors.New("connection reset by peer")}), true},
		"something of our own":   {errors.New("no table"), false},
		"the end of the context": {context.Canceled, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Passing(c.err); got != c.want {
				t.Errorf("Passing(%v) = %v", c.err, got)
			}
		})
	}
}
