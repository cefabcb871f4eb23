package state

import (
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
	m, err := s.Map(name, codec, BlobField, v)
	v.of = m
	return &Rows{m}, err
}

// Row is the row of an entry, empty if none was set; it is valid until another is.
func (r *Rows) Row(e Ref) []byte { return r.Blob(r.Value(e)) }

// Set replaces the row of an entry, which was touched before.
func (r *Rows) Set(e Ref, b []byte) { r.SetBlob(r.Value(e), b) }

// rowValues keeps the row in place of its Ref.
type rowValues struct {
	arena *arena
	of    *Map
}

func (v *rowValues) Append(dst, value []byte) []byte { return append(dst, v.arena.blob(value)...) }

func (v *rowValues) Load(value, kept []byte) error {
	if len(value) != BlobField {
		return fmt.Errorf("a value of %d bytes for a row", len(value))
	}
	v.of.SetBlob(value, kept)
	return nil
}

func (v *rowValues) Release(value []byte) { v.of.SetBlob(value, nil) }
