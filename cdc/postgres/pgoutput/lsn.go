package pgoutput

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// LSN is a position in a server's write-ahead log, counted in bytes. Zero is no position.
type LSN uint64

// String writes the position as Postgres does before version 19: two hexadecimal halves without leading zeros.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// ParseLSN reads the form "16/B374D848". It takes what Postgres's pg_lsn type takes: one to eight digits of either case
// on both sides, so also the padded form of Postgres 19.
func ParseLSN(s string) (LSN, error) {
	high, low, found := strings.Cut(s, "/")
	if !found {
		return 0, fmt.Errorf("parse LSN %q: no '/' between its two halves", s)
	}
	var lsn uint64
	for _, half := range [...]string{high, low} {
		v, err := strconv.ParseUint(half, 16, 32)
		if err != nil || len(half) > 8 {
			return 0, fmt.Errorf("parse LSN %q: %q is not one to eight hexadecimal digits", s, half)
		}
		lsn = lsn<<32 | v
	}
	return LSN(lsn), nil
}

// epochSeconds is 2000-01-01 UTC, from which Postgres counts its microseconds.
const epochSeconds = 946_684_800

// TimeOf converts a timestamp of the protocol.
func TimeOf(micros int64) time.Time {
	// Split before shifting the epoch: the sum in microseconds overflows for the far ends of int64.
	return time.Unix(epochSeconds+micros/1e6, micros%1e6*1e3).UTC()
}

// MicrosOf is the inverse of TimeOf, rounding down to microseconds.
func MicrosOf(t time.Time) int64 {
	return (t.Unix()-epochSeconds)*1e6 + int64(t.Nanosecond()/1e3)
}
