package postgres

import (
	"encoding/binary"

	"github.com/weirstream/weir/engine/changelog"
)

// copyBinaryHeader opens a COPY BINARY stream: signature, flags, no extension. (COPY, "Binary Format")
var copyBinaryHeader = []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")

// appendCopyBinary re-frames an image as a COPY BINARY tuple: the values' bytes are the same in both, so nothing is
// decoded. cols is the table's; columns without a name are left out.
func appendCopyBinary(dst []byte, img changelog.Image, cols []column, written int) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(written))
	it := img.Iter()
	for i := range cols {
		kind, raw := it.Next()
		if cols[i].name == "" {
			continue
		}
		if kind == changelog.ValueBinary || kind == changelog.ValueText {
			dst = append(dst, raw...)
			continue
		}
		dst = append(dst, 0xff, 0xff, 0xff, 0xff)
	}
	return dst
}

// appendCopyText writes an image as a line of COPY's text format.
func appendCopyText(dst []byte, img changelog.Image, cols []column) []byte {
	it := img.Iter()
	first := true
	for i := range cols {
		kind, raw := it.Next()
		if cols[i].name == "" {
			continue
		}
		if !first {
			dst = append(dst, '\t')
		}
		first = false
		if kind != changelog.ValueText && kind != changelog.ValueBinary {
			dst = append(dst, '\\', 'N')
			continue
		}
		dst = appendEscaped(dst, raw[4:])
	}
	return append(dst, '\n')
}

// appendEscaped copies runs of ordinary bytes and escapes what COPY's text format gives a meaning.
func appendEscaped(dst, v []byte) []byte {
	from := 0
	for i, c := range v {
		if c > '\r' && c != '\\' {
			continue
		}
		var esc byte
		switch c {
		case '\\':
			esc = '\\'
		case '\n':
			esc = 'n'
		case '\r':
			esc = 'r'
		case '\t':
			esc = 't'
		default:
			continue
		}
		dst = append(dst, v[from:i]...)
		dst = append(dst, '\\', esc)
		from = i + 1
	}
	return append(dst, v[from:]...)
}

// arrays builds one binary array parameter for each of some columns, over many rows at once.
type arrays struct {
	cols []int    // columns of the relation, in order of parameters
	at   []int    // column of the relation -> first index into bufs, -1 if unused
	also []int    // column of the relation -> second index (a key column is also set), -1 if unused
	bufs [][]byte // elements so far
	null []bool
	rows int
}

func (a *arrays) start(width int, cols []int) {
	a.cols = cols
	a.rows = 0
	a.at, a.also = resize(a.at, width), resize(a.also, width)
	for i := range a.at {
		a.at[i], a.also[i] = -1, -1
	}
	for len(a.bufs) < len(cols) {
		a.bufs = append(a.bufs, nil)
		a.null = append(a.null, false)
	}
	for i, c := range cols {
		a.bufs[i] = a.bufs[i][:0]
		a.null[i] = false
		if a.at[c] < 0 {
			a.at[c] = i
		} else {
			a.also[c] = i
		}
	}
}

func resize(s []int, n int) []int {
	if cap(s) < n {
		return make([]int, n)
	}
	return s[:n]
}

// add appends a row's values.
func (a *arrays) add(img changelog.Image) {
	a.rows++
	it := img.Iter()
	for c := range a.at {
		kind, raw := it.Next()
		i := a.at[c]
		if i < 0 {
			continue
		}
		a.put(i, kind, raw)
		if j := a.also[c]; j >= 0 {
			a.put(j, kind, raw)
		}
	}
}

func (a *arrays) put(i int, kind byte, raw []byte) {
	if kind == changelog.ValueBinary || kind == changelog.ValueText {
		a.bufs[i] = append(a.bufs[i], raw...)
		return
	}
	a.bufs[i] = append(a.bufs[i], 0xff, 0xff, 0xff, 0xff)
	a.null[i] = true
}

// bind sends the arrays as the parameters of a prepared statement.
func (a *arrays) bind(w *wire, name string, cols []column) {
	at := w.bindStart(name, len(a.cols), 1)
	for i, c := range a.cols {
		w.uint32(20 + len(a.bufs[i]))
		w.uint32(1) // dimensions
		if a.null[i] {
			w.uint32(1)
		} else {
			w.uint32(0)
		}
		w.uint32(int(cols[c].elem))
		w.uint32(a.rows)
		w.uint32(1) // lower bound
		w.out = append(w.out, a.bufs[i]...)
	}
	w.bindEnd(at)
}
