// Package pg is the vocabulary that the Postgres source and the Postgres target share: positions, quoting, connection
// strings, what a server's catalog says about tables and types, and the DDL that makes the same table elsewhere.
//
// Two promises hold for everything in it. Whatever a table, column or type is called, the SQL made here names exactly
// it; and no error, log line or printed URL made here holds a password.
package pg

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in a server's write-ahead log, in bytes since its beginning. Positions of two servers, or of two
// timelines of one, cannot be compared.
type LSN uint64

// String is the server's own form: two hexadecimal halves.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN reads the server's form, with or without leading zeros.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	h, errHi := parseHalf(hi)
	l, errLo := parseHalf(lo)
	if !ok || errHi != nil || errLo != nil {
		return 0, fmt.Errorf("%q is not an LSN: want two hexadecimal numbers of up to 8 digits, like 16/B374D848", s)
	}
	return LSN(h<<32 | l), nil
}

func parseHalf(s string) (uint64, error) {
	if len(s) > 8 || strings.HasPrefix(s, "+") {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(s, 16, 32)
}
