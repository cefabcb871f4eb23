package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/zeebo/xxh3"

	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/internal/format/record"
)

// A frame is a head and a body of pieces; docs/formats/delta.md shows the bytes.
var (
	headFormat  = record.Format{Magic: record.Magic{'W', 'D', 'L', 'H'}, Version: 1, Limit: 1 << 20}
	pieceFormat = record.Format{Magic: record.Magic{'W', 'D', 'L', 'P'}, Version: 1, Limit: 1 << 30}
)

// pieceBytes is what a piece holds unless one record or name alone is longer. A reader takes memory for that much at once.
const pieceBytes = 64 << 10

// What the payload of a piece begins with. The pieces of a body come in this order.
const (
	pieceMeta   = 'm'
	pieceNames  = 'n'
	pieceOutbox = 'o'
	pieceRun    = 'R' // begins a run of sorted records
	pieceMore   = 'r' // goes on with it
)

// head is what is known of a frame without its body.
type head struct {
	space       uint32
	checkpoint  uint64
	previous    uint64 // the checkpoint that this one builds on; 0: none
	outbox      uint64 // the newest one before it that has an outbox which was not published when this was written; 0: none
	published   uint64 // then
	bodyBytes   int64
	metaBytes   uint64
	outboxBytes uint64
	records     uint64
	recordBytes uint64   // keys and values
	digest      [16]byte // of the body, and of the table's digest
	table       uint64   // number of the table that has the records; 0: they are in the body
	tableBytes  int64
	tableDigest [16]byte
	runs        []int64 // where in the body each begins
	name        string  // the pipeline's; for people
}

func (h *head) append(dst []byte) []byte {
	p := make([]byte, 0, headFixed+len(h.name)+8*len(h.runs))
	p = binary.LittleEndian.AppendUint32(p, h.space)
	for _, v := range []uint64{h.checkpoint, h.previous, h.outbox, h.published, uint64(h.bodyBytes), h.metaBytes, h.outboxBytes, h.records, h.recordBytes} {
		p = binary.LittleEndian.AppendUint64(p, v)
	}
	p = append(p, h.digest[:]...)
	p = binary.LittleEndian.AppendUint64(p, h.table)
	p = binary.LittleEndian.AppendUint64(p, uint64(h.tableBytes))
	p = append(p, h.tableDigest[:]...)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(h.runs)))
	for _, at := range h.runs {
		p = binary.LittleEndian.AppendUint64(p, uint64(at))
	}
	p = append(p, h.name...)
	return headFormat.Append(dst, p)
}

// headFixed is the length of a head's payload without runs and name.
const headFixed = 4 + 9*8 + 16 + 8 + 8 + 16 + 4

var errHead = errors.New("the head of a frame does not fit together")

// parse reads the payload of a head.
func (h *head) parse(p []byte) error {
	if len(p) < headFixed {
		return fmt.Errorf("%w: %d bytes", errHead, len(p))
	}
	h.space = binary.LittleEndian.Uint32(p)
	var body uint64
	for i, v := range []*uint64{&h.checkpoint, &h.previous, &h.outbox, &h.published, &body, &h.metaBytes, &h.outboxBytes, &h.records, &h.recordBytes} {
		*v = binary.LittleEndian.Uint64(p[4+8*i:])
	}
	copy(h.digest[:], p[76:])
	h.table = binary.LittleEndian.Uint64(p[92:])
	table := binary.LittleEndian.Uint64(p[100:])
	copy(h.tableDigest[:], p[108:])
	runs := binary.LittleEndian.Uint32(p[124:])
	p = p[headFixed:]
	if uint64(len(p)) < 8*uint64(runs) || body > math.MaxInt64/2 || table > math.MaxInt64/2 {
		return fmt.Errorf("%w: %d runs in %d bytes, a body of %d, a table of %d", errHead, runs, len(p), body, table)
	}
	h.tableBytes = int64(table)
	h.bodyBytes = int64(body)
	h.runs = make([]int64, runs)
	for i := range h.runs {
		at := binary.LittleEndian.Uint64(p[8*i:])
		if at >= body || i > 0 && int64(at) <= h.runs[i-1] {
			return fmt.Errorf("%w: run %d at %d of %d", errHead, i, at, body)
		}
		h.runs[i] = int64(at)
	}
	h.name = string(p[8*runs:])
	if h.checkpoint == 0 || h.previous >= h.checkpoint || h.outbox >= h.checkpoint {
		return fmt.Errorf("%w: checkpoint %d builds on %d, with an outbox of %d before it", errHead, h.checkpoint, h.previous, h.outbox)
	}
	return nil
}

// encoder makes the body of a frame.
type encoder struct {
	body  []byte
	piece []byte // the payload of the piece that is being filled
	h     head
	err   error
}

func (e *encoder) reset() {
	e.body, e.piece, e.h, e.err = e.body[:0], e.piece[:0], head{}, nil
}

// end closes the piece.
func (e *encoder) end() {
	if len(e.piece) > pieceFormat.Limit {
		e.err = fmt.Errorf("a record of %d bytes; a piece of the log takes %d", len(e.piece), pieceFormat.Limit)
	} else if len(e.piece) > 0 {
		e.body = pieceFormat.Append(e.body, e.piece)
	}
	e.piece = e.piece[:0]
}

// blob adds bytes that are one whole, in pieces.
func (e *encoder) blob(kind byte, b []byte) {
	for len(b) > 0 {
		n := min(len(b), pieceBytes-1)
		e.piece = append(append(e.piece, kind), b[:n]...)
		e.end()
		b = b[n:]
	}
}

// nameID is the number of a state.
type nameID struct {
	name string
	id   uint32
}

func (e *encoder) names(names []nameID) {
	for _, n := range names {
		if len(e.piece) == 0 {
			e.piece = append(e.piece, pieceNames)
		}
		e.piece = binary.LittleEndian.AppendUint32(e.piece, n.id)
		e.piece = binary.AppendUvarint(e.piece, uint64(len(n.name)))
		e.piece = append(e.piece, n.name...)
		if len(e.piece) >= pieceBytes {
			e.end()
		}
	}
	e.end()
}

// delta adds the records of a sorted delta as a run.
func (e *encoder) delta(d *state.Delta) {
	if d.Empty() || e.err != nil {
		return
	}
	at := int64(len(e.body))
	e.piece = append(e.piece, pieceRun)
	records := e.h.records
	err := d.Records(func(r state.Record) error {
		n := 1 + 2*binary.MaxVarintLen32 + len(r.Key) + len(r.Value)
		if len(e.piece) > 1 && len(e.piece)+n > pieceBytes {
			e.end()
			e.piece = append(e.piece, pieceMore)
		}
		e.piece = append(e.piece, byte(r.Op))
		e.piece = binary.AppendUvarint(e.piece, uint64(len(r.Key)))
		e.piece = binary.AppendUvarint(e.piece, uint64(len(r.Value)))
		e.piece = append(e.piece, r.Key...)
		e.piece = append(e.piece, r.Value...)
		e.h.records++
		e.h.recordBytes += uint64(len(r.Key) + len(r.Value))
		return e.err
	})
	e.end()
	if e.err == nil {
		e.err = err
	}
	if e.h.records > records {
		e.h.runs = append(e.h.runs, at)
	} else {
		e.body = e.body[:at] // nothing came of it
	}
}

func (e *encoder) finish() {
	e.h.bodyBytes = int64(len(e.body))
	e.h.digest = digest(e.body, &e.h)
}

// digest is that of a body, and of the table which has its records.
func digest(body []byte, h *head) [16]byte {
	if h.table == 0 {
		return xxh3.Hash128(body).Bytes()
	}
	var x xxh3.Hasher
	_, _ = x.Write(body)
	_, _ = x.Write(h.tableDigest[:])
	return x.Sum128().Bytes()
}

// pieces reads a stretch of a body. What it gives is fresh memory.
type pieces struct {
	in *io.SectionReader
}

func readPieces(f io.ReaderAt, from, to int64) pieces {
	return pieces{io.NewSectionReader(f, from, to-from)}
}

// next is io.EOF at the end of the stretch.
func (p pieces) next() (kind byte, data []byte, err error) {
	r, err := pieceFormat.Read(p.in)
	if err != nil {
		return 0, nil, err
	}
	if len(r.Payload) == 0 {
		return 0, nil, fmt.Errorf("%w: an empty piece", errBody)
	}
	return r.Payload[0], r.Payload[1:], nil
}

// offset is how far into the stretch it is.
func (p pieces) offset() int64 {
	at, _ := p.in.Seek(0, io.SeekCurrent)
	return at
}

var errBody = errors.New("the body of a frame does not fit together")

func parseNames(b []byte, f func(nameID)) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return fmt.Errorf("%w: a name's number", errBody)
		}
		id := binary.LittleEndian.Uint32(b)
		n, k := binary.Uvarint(b[4:])
		if k <= 0 || n > uint64(len(b)-4-k) {
			return fmt.Errorf("%w: a name's length", errBody)
		}
		b = b[4+k:]
		f(nameID{string(b[:n]), id})
		b = b[n:]
	}
	return nil
}

// parseRecord takes a record off the front of b; what it gives aliases b.
func parseRecord(b []byte) (r state.Record, rest []byte, err error) {
	op := state.Op(b[0])
	key, k := binary.Uvarint(b[1:])
	if k <= 0 || op < state.Set || op > state.DeleteBelow {
		return r, nil, fmt.Errorf("%w: operation %d, or the length of its key", errBody, op)
	}
	b = b[1+k:]
	value, k := binary.Uvarint(b)
	if k <= 0 || key > uint64(len(b)-k) || value > uint64(len(b)-k)-key || op == state.DeleteBelow && key < 8 {
		return r, nil, fmt.Errorf("%w: a key of %d bytes and a value of %d in %d", errBody, key, value, len(b))
	}
	b = b[k:]
	return state.Record{Op: op, Key: b[:key:key], Value: b[key : key+value : key+value]}, b[key+value:], nil
}

// run reads the records of one run.
type run struct {
	pieces
	begun  bool
	data   []byte
	record state.Record // after next
}

// next tells whether there is a record.
func (r *run) next() (bool, error) {
	for len(r.data) == 0 {
		kind, data, err := r.pieces.next()
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		want := byte(pieceRun)
		if r.begun {
			want = pieceMore
		}
		if kind != want {
			return false, fmt.Errorf("%w: a piece %q where %q follows", errBody, kind, want)
		}
		r.data, r.begun = data, true
	}
	var err error
	r.record, r.data, err = parseRecord(r.data)
	return err == nil, err
}
