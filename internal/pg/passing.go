package pg

import (
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Vanished tells that something was dropped while the catalog was read. Queries see the catalog as it was when they
// began, and the functions that describe a thing as it is now.
func Vanished(err error) bool {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "XX000" {
		return false
	}
	// The server says these in English, whatever its language.
	return strings.HasPrefix(refused.Message, "cache lookup failed for ") || strings.HasPrefix(refused.Message, "could not open relation with OID ")
}

// RefusedHint is what can be done about a refusal that has to do with the server and not with what it was asked; "" if nothing
// is known.
func RefusedHint(err error) string {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return ""
	}
	switch refused.Code {
	case "25006":
		return "it takes no writes: it is a standby, or default_transaction_read_only is on; the mirror goes on when it does"
	case "53100":
		return "make room on its disk; the mirror goes on when there is"
	case "53200":
		return "it is short of memory; the mirror goes on when there is some"
	case "53300":
		return "raise its max_connections, or end connections that nobody needs; the mirror goes on then"
	}
	return ""
}

// Passing tells whether the same work can succeed on a new connection: the connection ended, or the server refused for
// what a restart, a failover, a lock or a moment's shortage can cause anywhere. What it says about the databases
// themselves is not passing, and neither is an error that came from elsewhere.
func Passing(err error) bool {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		switch refused.Code {
		case "40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300", "25006", "53100", "53200":
			return true
		}
		if Vanished(err) {
			return true
		}
		return strings.HasPrefix(refused.Code, "08")
	}
	var network *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, &network) || pgconn.SafeToRetry(err) // what was never sent: the connection had ended before
}
