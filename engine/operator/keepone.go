package operator

import (
	"bytes"
	"encoding/binary"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// keepOne is a TopN of one place over rows that are only added: deduplication. It keeps the first row of each partition
// and nothing else.
type keepOne struct {
	spec    TopN
	out     dataflow.Emitter
	part    *row.KeyCodec
	order   *row.KeyCodec
	codec   *row.Codec
	rows    *state.Rows
	keys    row.Keys
	refs    []state.Ref
	touched []keptOne
	heap    []byte // the rows before the epoch
	row     []byte
	emit    *row.Builder
	before  [][]byte
	after   [][]byte
}

type keptOne struct {
	partition state.Ref
	before    row.Span
}

func newKeepOne(t *topN, task dataflow.Task) (dataflow.Operator, error) {
	k := &keepOne{spec: t.spec, out: t.out, part: t.part, order: t.order, codec: t.codec, emit: t.emit}
	var err error
	k.rows, err = task.State().Rows(t.spec.Node+"/rows", t.part)
	return k, err
}

// Process takes rows in.
func (k *keepOne) Process(_ int, b *row.Batch) error {
	k.part.Hash(&k.keys, b, k.spec.Partition)
	k.refs = grow(k.refs, b.Len)
	if err := k.rows.FindOrAdd(&k.keys, b, k.refs); err != nil {
		return err
	}
	for n := range b.Rows() {
		i := b.At(n)
		p := k.refs[i]
		k.row = append(k.row[:0], 0, 0, 0, 0)
		k.row = k.order.Append(k.row, b, k.spec.Order, i)
		binary.LittleEndian.PutUint32(k.row, uint32(len(k.row)-4))
		kept := k.rows.Row(p)
		if kept != nil {
			if bytes.Compare(k.row[4:], orderKey(kept)) > 0 {
				continue
			}
		}
		k.row = k.codec.Append(k.row, b, i)
		if kept != nil && compareTop(k.row, kept) >= 0 {
			continue
		}
		if k.rows.Touch(p) {
			t := keptOne{partition: p, before: row.Span{Off: uint32(len(k.heap)), Len: uint32(len(kept))}}
			k.heap = append(k.heap, kept...)
			k.touched = append(k.touched, t)
		}
		k.rows.Set(p, k.row)
	}
	return nil
}

// Barrier emits the rows that were replaced and those in their places.
func (k *keepOne) Barrier(dataflow.Epoch) error {
	for from := 0; from < len(k.touched); from += row.MaxBatch / 2 {
		k.before, k.after = k.before[:0], k.after[:0]
		for _, t := range k.touched[from:min(from+row.MaxBatch/2, len(k.touched))] {
			if t.before.Len > 0 {
				old := k.heap[t.before.Off : t.before.Off+t.before.Len]
				k.before = append(k.before, old[4+binary.LittleEndian.Uint32(old):])
			}
			r := k.rows.Row(t.partition)
			k.after = append(k.after, r[4+binary.LittleEndian.Uint32(r):])
		}
		if err := k.send(); err != nil {
			return err
		}
	}
	k.touched, k.heap = k.touched[:0], k.heap[:0]
	return nil
}

func (k *keepOne) send() error {
	k.emit.Reset()
	n := len(k.before)
	for c := range k.spec.Input {
		k.codec.Decode(k.emit.Cols[c], 0, c, k.before)
		k.codec.Decode(k.emit.Cols[c], n, c, k.after)
	}
	for range k.before {
		k.emit.EndRow(-1)
	}
	for range k.after {
		k.emit.EndRow(1)
	}
	if k.spec.Rank {
		c := k.emit.Cols[len(k.spec.Input)]
		for range n + len(k.after) {
			c.Int64 = append(c.Int64, 1)
		}
	}
	return k.out.Emit(k.emit.Seal())
}
