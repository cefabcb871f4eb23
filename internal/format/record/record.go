// Package record is the one framing of the files and log entries that weir writes: whoever reads a record knows what
// it is, which version wrote it, that it is whole and that no bit of it has changed.
//
// Everything that comes off a disk or a wire passes the bounded reader here before anything interprets it. A lying
// length costs no more memory than the bytes that really follow. docs/formats/record.md shows the bytes.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Magic tells the formats apart. docs/formats/record.md lists those in use.
type Magic [4]byte

func (m Magic) String() string { return string(m[:]) }

// HeaderSize is the number of bytes before the payload.
const HeaderSize = 16

// What can be wrong with a record. A caller decides differently by them: a torn last record of a log is the end of the
// log, a checksum that fails is a disk that lies, and a newer version asks for a newer weir.
var (
	ErrTorn     = errors.New("record ends early")
	ErrMagic    = errors.New("not a record of this kind")
	ErrVersion  = errors.New("record was written by a newer version")
	ErrTooLarge = errors.New("record is larger than its limit")
	ErrChecksum = errors.New("record fails its checksum")
	ErrReserved = errors.New("reserved bytes of the record are set")
)

// Format is one kind of record: what a reader accepts.
type Format struct {
	Magic   Magic
	Version uint16 // written by Append, and the largest a reader understands
	Limit   int    // largest payload in bytes
}

// checksum is CRC32C, which the machines weir runs on compute in hardware. MakeTable returns the same table each time.
func checksum(header, payload []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, table, header), table, payload)
}

// Append adds one record to dst. A payload above the limit is the caller's defect, because no reader would take it
// back: it panics.
func (f Format) Append(dst, payload []byte) []byte {
	if len(payload) > f.Limit {
		panic(fmt.Sprintf("record %s: payload of %d bytes is above the limit of %d", f.Magic, len(payload), f.Limit))
	}
	start := len(dst)
	dst = append(dst, f.Magic[:]...)
	dst = binary.LittleEndian.AppendUint16(dst, f.Version)
	dst = binary.LittleEndian.AppendUint16(dst, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	dst = binary.LittleEndian.AppendUint32(dst, checksum(dst[start:start+12], payload))
	return append(dst, payload...)
}

// Record is what a reader gives: the payload, and the version that wrote it.
type Record struct {
	Version uint16
	Payload []byte
}

type header struct {
	version uint16
	length  int
	sum     uint32
}

func (f Format) parse(b []byte) (header, error) {
	if Magic(b[:4]) != f.Magic {
		return header{}, fmt.Errorf("%w: starts with %q, want %q", ErrMagic, b[:4], f.Magic)
	}
	h := header{
		version: binary.LittleEndian.Uint16(b[4:]),
		sum:     binary.LittleEndian.Uint32(b[12:]),
	}
	// Versions begin at 1, so a block of zeros after a magic is not taken for a record.
	if h.version == 0 || h.version > f.Version {
		return header{}, fmt.Errorf("%w: version %d, this one reads up to %d", ErrVersion, h.version, f.Version)
	}
	if reserved := binary.LittleEndian.Uint16(b[6:]); reserved != 0 {
		return header{}, fmt.Errorf("%w: %#x", ErrReserved, reserved)
	}
	length := binary.LittleEndian.Uint32(b[8:])
	if uint64(length) > uint64(f.Limit) {
		return header{}, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, length, f.Limit)
	}
	h.length = int(length)
	return h, nil
}

// Decode reads the record at the start of b. The payload aliases b; rest is what follows the record.
func (f Format) Decode(b []byte) (rec Record, rest []byte, err error) {
	if len(b) < HeaderSize {
		return Record{}, b, fmt.Errorf("%w: %d bytes of a header of %d", ErrTorn, len(b), HeaderSize)
	}
	h, err := f.parse(b[:HeaderSize])
	if err != nil {
		return Record{}, b, err
	}
	body := b[HeaderSize:]
	if len(body) < h.length {
		return Record{}, b, fmt.Errorf("%w: %d bytes of a payload of %d", ErrTorn, len(body), h.length)
	}
	payload := body[:h.length:h.length]
	if checksum(b[:12], payload) != h.sum {
		return Record{}, b, ErrChecksum
	}
	return Record{Version: h.version, Payload: payload}, body[h.length:], nil
}

// DecodeOne reads b as exactly one record.
func (f Format) DecodeOne(b []byte) (Record, error) {
	rec, rest, err := f.Decode(b)
	if err != nil {
		return Record{}, err
	}
	if len(rest) > 0 {
		return Record{}, fmt.Errorf("%w: %d bytes follow it", ErrMagic, len(rest))
	}
	return rec, nil
}

// Read reads the next record of r. It returns io.EOF only where a record could have begun, and ErrTorn inside one. The
// payload is fresh memory, allocated as the bytes arrive.
func (f Format) Read(r io.Reader) (Record, error) {
	var hb [HeaderSize]byte
	switch n, err := io.ReadFull(r, hb[:]); {
	case err == io.EOF:
		return Record{}, io.EOF
	case err == io.ErrUnexpectedEOF:
		return Record{}, fmt.Errorf("%w: %d bytes of a header of %d", ErrTorn, n, HeaderSize)
	case err != nil:
		return Record{}, fmt.Errorf("read record %s: %w", f.Magic, err)
	}
	h, err := f.parse(hb[:])
	if err != nil {
		return Record{}, err
	}
	payload, err := readGrowing(r, h.length)
	if err != nil {
		return Record{}, fmt.Errorf("read record %s: %w", f.Magic, err)
	}
	if checksum(hb[:12], payload) != h.sum {
		return Record{}, ErrChecksum
	}
	return Record{Version: h.version, Payload: payload}, nil
}

// readGrowing reads n bytes in steps that double, so that memory follows what is really there.
func readGrowing(r io.Reader, n int) ([]byte, error) {
	const first = 64 << 10
	buf := make([]byte, 0, min(n, first))
	for len(buf) < n {
		step := min(n-len(buf), max(len(buf), first))
		if cap(buf)-len(buf) < step {
			grown := make([]byte, len(buf), len(buf)+step)
			copy(grown, buf)
			buf = grown
		}
		piece := buf[len(buf) : len(buf)+step]
		got, err := io.ReadFull(r, piece)
		buf = buf[:len(buf)+got]
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, fmt.Errorf("%w: %d bytes of a payload of %d", ErrTorn, len(buf), n)
		}
		if err != nil {
			return nil, err
		}
	}
	return buf, nil
}
