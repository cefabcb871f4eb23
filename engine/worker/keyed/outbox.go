package keyed

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// sinkNode collects, in a task, what goes to a sink's table until the checkpoint, which nets it: of each key at most one
// row is taken away and one put in its place, whatever happened in between. Of a table without a key, equal rows are
// netted. Rows that nothing takes away keep their order.
type sinkNode struct {
	node    *dataflow.Node
	codec   *row.Codec
	key     *row.KeyCodec // nil: none
	entries []sinkEntry
	heap    []byte
	signed  bool // a weight was not positive
	order   []int32
	rows    int64
}

// sinkEntry is a row in the heap, behind its key. The place is no row.Span: a checkpoint may hold more than 4 GiB.
type sinkEntry struct {
	at       int
	key, row uint32 // lengths
	weight   int64
}

func newSinkNode(n *dataflow.Node) *sinkNode {
	s := &sinkNode{node: n, codec: row.NewCodec(n.Schema.Types())}
	if n.Sink.Key != nil {
		var types []row.Type
		for _, c := range n.Sink.Key {
			types = append(types, n.Schema[c].Type)
		}
		s.key = row.GroupKey(types)
	}
	return s
}

// Process takes rows in.
func (s *sinkNode) Process(_ int, b *row.Batch) error {
	for k := range b.Rows() {
		i := b.At(k)
		e := sinkEntry{at: len(s.heap), weight: b.Weight(i)}
		s.signed = s.signed || e.weight < 1
		if s.key != nil {
			s.heap = s.key.Append(s.heap, b, s.node.Sink.Key, i)
		}
		e.key = uint32(len(s.heap) - e.at)
		at := len(s.heap)
		s.heap = s.codec.Append(s.heap, b, i)
		e.row = uint32(len(s.heap) - at)
		s.entries = append(s.entries, e)
		s.rows++
	}
	return nil
}

// Barrier does nothing: checkpoints are published, not epochs.
func (s *sinkNode) Barrier(dataflow.Epoch) error { return nil }

func (s *sinkNode) keyOf(e *sinkEntry) []byte { return s.heap[e.at : e.at+int(e.key)] }

func (s *sinkNode) rowOf(e *sinkEntry) []byte {
	at := e.at + int(e.key)
	return s.heap[at : at+int(e.row)]
}

// An outbox is a list of
//
//	u16 sink | u16 table | i64 weight | u32 length | binary row
//
// in the order in which the changes are to be applied.
const outboxHeader = 16

// take appends what the checkpoint changed to the outbox, and begins anew.
func (s *sinkNode) take(outbox []byte) []byte {
	add := func(w int64, r []byte) {
		outbox = binary.LittleEndian.AppendUint16(outbox, uint16(s.node.Sink.Sink))
		outbox = binary.LittleEndian.AppendUint16(outbox, uint16(s.node.Sink.Table))
		outbox = binary.LittleEndian.AppendUint64(outbox, uint64(w))
		outbox = binary.LittleEndian.AppendUint32(outbox, uint32(len(r)))
		outbox = append(outbox, r...)
	}
	if !s.signed {
		for i := range s.entries {
			add(s.entries[i].weight, s.rowOf(&s.entries[i]))
		}
	} else {
		s.order = s.order[:0]
		for i := range s.entries {
			s.order = append(s.order, int32(i))
		}
		slices.SortFunc(s.order, func(x, y int32) int {
			a, b := &s.entries[x], &s.entries[y]
			if c := bytes.Compare(s.keyOf(a), s.keyOf(b)); c != 0 {
				return c
			}
			if c := bytes.Compare(s.rowOf(a), s.rowOf(b)); c != 0 {
				return c
			}
			return cmp.Compare(x, y)
		})
		// Equal rows become one; then, key by key, what goes comes before what is put in its place.
		net := s.order[:0]
		for i := 0; i < len(s.order); {
			first := s.order[i]
			e := &s.entries[first]
			for i++; i < len(s.order) && bytes.Equal(s.keyOf(&s.entries[s.order[i]]), s.keyOf(e)) && bytes.Equal(s.rowOf(&s.entries[s.order[i]]), s.rowOf(e)); i++ {
				e.weight += s.entries[s.order[i]].weight
			}
			if e.weight != 0 {
				net = append(net, first)
			}
		}
		slices.SortStableFunc(net, func(x, y int32) int {
			a, b := &s.entries[x], &s.entries[y]
			if c := bytes.Compare(s.keyOf(a), s.keyOf(b)); c != 0 {
				return c
			}
			return cmp.Compare(a.weight, b.weight)
		})
		for _, i := range net {
			add(s.entries[i].weight, s.rowOf(&s.entries[i]))
		}
	}
	s.entries, s.heap, s.signed = s.entries[:0], s.heap[:0], false
	return outbox
}

// changes is the part of an outbox that is one sink's.
type changes struct {
	rest   []byte
	sink   int
	codecs []*row.Codec // of the sink's tables
	out    []*row.Builder
	one    [1][]byte
}

func newChanges(outbox []byte, sink int, tables [][]row.Type) *changes {
	c := &changes{rest: outbox, sink: sink}
	for _, t := range tables {
		c.codecs = append(c.codecs, row.NewCodec(t))
		c.out = append(c.out, row.NewBuilder(t))
	}
	return c
}

// empty tells whether nothing of the outbox is the sink's.
func (c *changes) empty() bool {
	for rest := c.rest; len(rest) >= outboxHeader; rest = rest[outboxHeader+int(binary.LittleEndian.Uint32(rest[12:])):] {
		if int(binary.LittleEndian.Uint16(rest)) == c.sink {
			return false
		}
	}
	return true
}

// Next is part of dataflow.Changes.
func (c *changes) Next() (int, *row.Batch, error) {
	table := -1
	for len(c.rest) > 0 {
		if len(c.rest) < outboxHeader || int(binary.LittleEndian.Uint32(c.rest[12:])) > len(c.rest)-outboxHeader {
			return 0, nil, fmt.Errorf("the outbox ends in the middle of a row")
		}
		n := int(binary.LittleEndian.Uint32(c.rest[12:]))
		t := int(binary.LittleEndian.Uint16(c.rest[2:]))
		if int(binary.LittleEndian.Uint16(c.rest)) == c.sink {
			if t >= len(c.codecs) {
				return 0, nil, fmt.Errorf("the outbox has table %d of sink %d, which has %d", t, c.sink, len(c.codecs))
			}
			if table < 0 {
				table = t
				c.out[t].Reset()
			}
			if t != table || c.out[t].Len == row.MaxBatch {
				break
			}
			r := c.rest[outboxHeader : outboxHeader+n]
			if err := c.codecs[t].Check(r); err != nil {
				return 0, nil, fmt.Errorf("outbox: %w", err)
			}
			c.one[0] = r
			for col := range c.out[t].Cols {
				c.codecs[t].Decode(c.out[t].Cols[col], c.out[t].Len, col, c.one[:])
			}
			c.out[t].EndRow(int64(binary.LittleEndian.Uint64(c.rest[4:])))
		}
		c.rest = c.rest[outboxHeader+n:]
	}
	if table < 0 {
		return 0, nil, io.EOF
	}
	return table, c.out[table].Seal(), nil
}

// discardNode hands rows to a sink that keeps nothing.
type discardNode struct {
	to                dataflow.Discarder
	task, sink, table int
	rows              int64 // since the last barrier
}

func (d *discardNode) Process(_ int, b *row.Batch) error {
	d.rows += int64(b.Rows())
	d.to.Discard(d.task, d.table, b)
	return nil
}

func (d *discardNode) Barrier(dataflow.Epoch) error { return nil }
