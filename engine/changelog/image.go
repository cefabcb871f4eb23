package changelog

import "encoding/binary"

// Kinds of a value in an Image.
const (
	ValueNull   = 'n'
	ValueUnsent = 'u' // the source left it out: it is as it was
	ValueText   = 't'
	ValueBinary = 'b'
)

// Columns is the number of columns of the image.
func (im Image) Columns() int {
	if len(im) < 2 {
		return 0
	}
	return int(binary.BigEndian.Uint16(im))
}

// ImageIter walks an Image's values. The image must be well formed: sources validate what they received.
type ImageIter struct {
	rest []byte
}

// Iter starts at the first column.
func (im Image) Iter() ImageIter {
	if len(im) < 2 {
		return ImageIter{}
	}
	return ImageIter{rest: im[2:]}
}

// Next returns the next column's kind and bytes; raw is the value with its length in front, as COPY BINARY and array
// elements have it, and is nil for kinds without bytes. Past the end the kind is 0.
func (it *ImageIter) Next() (kind byte, raw []byte) {
	if len(it.rest) == 0 {
		return 0, nil
	}
	kind = it.rest[0]
	if kind == ValueNull || kind == ValueUnsent {
		it.rest = it.rest[1:]
		return kind, nil
	}
	n := 5 + int(binary.BigEndian.Uint32(it.rest[1:]))
	raw = it.rest[1:n:n]
	it.rest = it.rest[n:]
	return kind, raw
}

// HasUnsent tells whether the source left a column out.
func (im Image) HasUnsent() bool {
	for it := im.Iter(); ; {
		switch kind, _ := it.Next(); kind {
		case 0:
			return false
		case ValueUnsent:
			return true
		}
	}
}

// AppendMerged appends now with every unsent value taken from before.
func AppendMerged(dst []byte, now, before Image) []byte {
	dst = append(dst, now[:2]...)
	a, b := now.Iter(), before.Iter()
	for {
		kind, raw := a.Next()
		oldKind, oldRaw := b.Next()
		if kind == 0 {
			return dst
		}
		if kind == ValueUnsent && oldKind != 0 {
			kind, raw = oldKind, oldRaw
		}
		dst = append(dst, kind)
		dst = append(dst, raw...)
	}
}
