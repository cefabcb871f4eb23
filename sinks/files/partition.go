package files

import "github.com/weirstream/weir/engine/row"

// defaultPartition is the directory of NULL and of the empty string, as in Flink and Hive.
const defaultPartition = "__DEFAULT_PARTITION__"

// appendDirectory appends the directory of row i, such as day=2026-01-01/hour=3.
func (t *table) appendDirectory(dst []byte, b *row.Batch, i int) []byte {
	for k, c := range t.parts {
		if k > 0 {
			dst = append(dst, '/')
		}
		dst = append(escape(dst, []byte(t.Schema[c].Name)), '=')
		start := len(dst)
		if !b.Cols[c].Nulls.Is(i) {
			dst = row.AppendText(dst, t.Schema[c].Type, b.Cols[c], i, nil)
		}
		if len(dst) == start {
			dst = append(dst, defaultPartition...)
			continue
		}
		value := string(dst[start:])
		dst = escape(dst[:start], []byte(value))
	}
	return dst
}

// escape appends text with the characters that a directory's name must not have, or that stand for something else in
// it, as % and two hexadecimal digits.
func escape(dst, text []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range text {
		switch {
		case c < 0x20, c == 0x7f, c == '"', c == '#', c == '%', c == '\'', c == '*', c == '/', c == ':', c == '=', c == '?', c == '\\', c == '{', c == '[', c == ']', c == '^':
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
