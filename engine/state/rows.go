package state

import (
	"encoding/binary"
	"fmt"

	"github.com/weirstream/weir/engine/row"
)

// Rows holds one row of any length for each key. A checkpoint keeps the row that is there then, however often it was
// replaced.
type Rows struct {
	*Map
}

// Rows opens the state of that name.
func (s *Store) Rows(name string, codec *row.KeyCodec) (*Rows, error) {
	v := &rowValues{arena: s.arena}
	m, err := s.Map(name, codec, 8, v)
	v.of = m
	return &Rows{m}, err
}

// Row is the row of an entry, empty if none was set; it is valid until another is.
func (r *Rows) Row(e Ref) []byte {
	v := r.Value(e)
	at, n := Ref(binary.LittleEndian.Uint32(v)), int(binary.LittleEndian.Uint32(v[4:]))
	if at == 0 {
		return nil
	}
	return r.store.arena.bytes(at, 0, n)
}

// Set replaces the row of an entry, which was touched before.
func (r *Rows) Set(e Ref, b []byte) {
	v := r.Value(e)
	at, n := Ref(binary.LittleEndian.Uint32(v)), int(binary.LittleEndian.Uint32(v[4:]))
	a := r.store.arena
	was, _ := class(n)
	is, _ := class(len(b))
	if at != 0 && was != is {
		a.release(at, n)
		r.bytes -= int64(n)
		at = 0
	}
	if at == 0 {
		at = a.alloc(len(b))
		r.bytes += int64(len(b))
	}
	copy(a.bytes(at, 0, len(b)), b)
	binary.LittleEndian.PutUint32(v, uint32(at))
	binary.LittleEndian.PutUint32(v[4:], uint32(len(b)))
}

// rowValues keeps the row in place of its Ref.
type rowValues struct {
	arena *arena
	of    *Map
}

func (v *rowValues) Append(dst, value []byte) []byte {
	at, n := Ref(binary.LittleEndian.Uint32(value)), int(binary.LittleEndian.Uint32(value[4:]))
	if at == 0 {
		return dst
	}
	return append(dst, v.arena.bytes(at, 0, n)...)
}

func (v *rowValues) Load(value, kept []byte) error {
	if len(value) != 8 {
		return fmt.Errorf("a value of %d bytes for a row", len(value))
	}
	if len(kept) == 0 {
		return nil
	}
	at := v.arena.alloc(len(kept))
	v.of.bytes += int64(len(kept))
	copy(v.arena.bytes(at, 0, len(kept)), kept)
	binary.LittleEndian.PutUint32(value, uint32(at))
	binary.LittleEndian.PutUint32(value[4:], uint32(len(kept)))
	return nil
}

func (v *rowValues) Release(value []byte) {
	if at := Ref(binary.LittleEndian.Uint32(value)); at != 0 {
		n := int(binary.LittleEndian.Uint32(value[4:]))
		v.arena.release(at, n)
		v.of.bytes -= int64(n)
	}
}
