package state

import "encoding/binary"

// BlobField is the length of a field of a Map's value that refers to bytes of any length: u32 Ref | u32 length. Zero is
// no bytes.
const BlobField = 8

// Blob is the bytes that a field of one of the map's values refers to, valid until others are set.
func (m *Map) Blob(field []byte) []byte { return m.store.arena.blob(field) }

// SetBlob makes a field of one of the map's values refer to a copy of b. Nothing else frees what it refers to: where the
// entry goes, Values.Release sets it to nothing.
func (m *Map) SetBlob(field, b []byte) { m.bytes += m.store.arena.setBlob(field, b) }

func (a *arena) blob(field []byte) []byte {
	at, n := Ref(binary.LittleEndian.Uint32(field)), int(binary.LittleEndian.Uint32(field[4:]))
	if at == 0 {
		return nil
	}
	return a.bytes(at, 0, n)
}

// setBlob returns by how much it grew.
func (a *arena) setBlob(field, b []byte) (grown int64) {
	at, n := Ref(binary.LittleEndian.Uint32(field)), int(binary.LittleEndian.Uint32(field[4:]))
	was, _ := class(n)
	is, _ := class(len(b))
	if at != 0 && (was != is || len(b) == 0) {
		a.release(at, n)
		grown -= int64(n)
		at = 0
	}
	if at == 0 && len(b) > 0 {
		at = a.alloc(len(b))
		grown += int64(len(b))
	}
	if at != 0 {
		copy(a.bytes(at, 0, len(b)), b)
	}
	binary.LittleEndian.PutUint32(field, uint32(at))
	binary.LittleEndian.PutUint32(field[4:], uint32(len(b)))
	return grown
}
