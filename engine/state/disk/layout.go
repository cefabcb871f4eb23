package disk

import (
	"encoding/binary"
	"fmt"

	"github.com/weirstream/weir/internal/format/record"
)

// Every key in Pebble begins with four bytes. 0 is the Disk's own space. A pipeline with number n has two: 2n for what is
// known of it and 2n+1 for its records, which lie behind each other, so that it goes with one range.
type space uint32

func (s space) meta(kind byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, 2*uint32(s)), kind)
}

func (s space) data() [4]byte {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 2*uint32(s)+1)
	return b
}

// bounds are those of everything the pipeline has.
func (s space) bounds() (from, to []byte) {
	return binary.BigEndian.AppendUint32(nil, 2*uint32(s)), binary.BigEndian.AppendUint32(nil, 2*uint32(s)+2)
}

// What follows the four bytes in the Disk's own space, and in a pipeline's first.
const (
	keyLayout = 'v' // one byte, layoutVersion
	keySpaces = 'x' // u32: the number that the next new pipeline gets
	keyName   = 'n' // and the pipeline's name: u32, its number

	keyStateID   = 'i' // and the name of a state: u32, its number
	keyPublished = 'p' // u64: the checkpoint up to which outboxes are published
	keyStamp     = 's' // a stamp
)

const layoutVersion = 1

func stateIDKey(s space, name string) []byte { return append(s.meta(keyStateID), name...) }

// stamp says up to which checkpoint Pebble has a pipeline's deltas, and what that checkpoint held beside them. It is
// written together with the delta.
type stamp struct {
	frame  Frame
	outbox uint64 // the newest checkpoint up to this one that has an outbox which may not be published; 0: none
	meta   []byte
}

var stampFormat = record.Format{Magic: record.Magic{'W', 'D', 'S', 'T'}, Version: 1, Limit: 1 << 30}

const stampHead = 8 + 8 + 8 + 16

func (s *stamp) encode() []byte {
	p := make([]byte, 0, stampHead+len(s.meta))
	p = binary.LittleEndian.AppendUint64(p, s.frame.Checkpoint)
	p = binary.LittleEndian.AppendUint64(p, s.outbox)
	p = binary.LittleEndian.AppendUint64(p, uint64(s.frame.Bytes))
	p = append(p, s.frame.Digest[:]...)
	p = append(p, s.meta...)
	return stampFormat.Append(nil, p)
}

func (s *stamp) decode(b []byte) error {
	r, err := stampFormat.DecodeOne(b)
	if err != nil {
		return err
	}
	p := r.Payload
	if len(p) < stampHead {
		return fmt.Errorf("%w: a stamp of %d bytes", record.ErrTorn, len(p))
	}
	s.frame.Checkpoint = binary.LittleEndian.Uint64(p)
	s.outbox = binary.LittleEndian.Uint64(p[8:])
	s.frame.Bytes = int64(binary.LittleEndian.Uint64(p[16:]))
	copy(s.frame.Digest[:], p[24:])
	s.meta = append([]byte(nil), p[stampHead:]...)
	return nil
}
