package pgoutput

import "encoding/binary"

// The kinds of a column in a tuple.
const (
	ColumnNull      = 'n' // NULL; in an old key also: not part of the key
	ColumnUnchanged = 'u' // a large value the statement left as it was, not sent
	ColumnText      = 't' // output of the type's output function
	ColumnBinary    = 'b' // output of the type's send function
)

// Tuple is a row as sent: an int16 count, then the columns. Tuples come from Decode, which has checked them to the last
// byte; that is why reading one reports no errors. A nil Tuple has no columns.
type Tuple []byte

// Columns is the number of columns in the tuple.
func (t Tuple) Columns() int {
	if len(t) < 2 {
		return 0
	}
	return int(binary.BigEndian.Uint16(t))
}

// Iter returns an iterator that stands before the first column.
func (t Tuple) Iter() ColumnIter {
	if len(t) < 2 {
		return ColumnIter{}
	}
	return ColumnIter{rest: t[2:]}
}

// ColumnIter walks the columns of a tuple in order. It is small and meant to be kept in a local variable.
type ColumnIter struct {
	rest []byte // columns not yet returned; the count is not needed, since Decode cut the tuple at its last column
}

// Next returns the next column, or ok = false after the last. The value is nil for ColumnNull and ColumnUnchanged, not
// nil but possibly empty for the others, and aliases the tuple.
func (it *ColumnIter) Next() (kind byte, value []byte, ok bool) {
	rest := it.rest
	if len(rest) == 0 {
		return 0, nil, false
	}
	kind = rest[0]
	if kind == ColumnNull || kind == ColumnUnchanged {
		it.rest = rest[1:]
		return kind, nil, true
	}
	end := 5 + int(binary.BigEndian.Uint32(rest[1:]))
	it.rest = rest[end:]
	return kind, rest[5:end:end], true
}

// tupleEnd checks the tuple that starts at b[at] and returns the offset behind it. If the tuple is malformed it returns
// the offset of the fault and what it is. This is where decoding a row spends its time.
func tupleEnd(b []byte, at int) (end int, fault string) {
	if len(b)-at < 2 {
		return at, "column count is cut short"
	}
	n := int(int16(binary.BigEndian.Uint16(b[at:])))
	if n < 0 {
		return at, "column count is negative"
	}
	at += 2
	for ; n > 0; n-- {
		if at >= len(b) {
			return at, "tuple ends before its last column"
		}
		switch b[at] {
		case ColumnText, ColumnBinary:
			if len(b)-at < 5 {
				return at, "column length is cut short"
			}
			// Through int32, so that a negative length becomes a huge uint and one comparison refuses both.
			size := int(int32(binary.BigEndian.Uint32(b[at+1:])))
			if uint(size) > uint(len(b)-at-5) {
				return at, "column value is cut short"
			}
			at += 5 + size
		case ColumnNull, ColumnUnchanged:
			at++
		default:
			return at, "unknown kind of column"
		}
	}
	return at, ""
}
