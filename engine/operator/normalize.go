package operator

import (
	"bytes"
	"math/bits"
	"slices"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/invariants"
)

// Normalize makes a changelog of changes by key, whose source does not know the old rows: it is the table's index by its
// primary key, and keeps the row of each key.
//
// A row of weight +1 says that this is the row of its key from now on, whether there was one or not; one of weight -1
// that the key has no row any more, of which only the key columns count. What a key had before is retracted with exactly
// the bytes that were emitted, on arrival, and a change that changes nothing is not passed on. A source that says the same
// twice, or takes away what is not there, does no harm.
//
// With Unsent the input has one more column behind the table's, BIGINT NOT NULL, that tells what the source left out. In
// a row of weight +1 bit c stands for column c, whose value is then the one that the key's row has already. UnsentMoved in
// a row of weight -1 says that the next row of the input is the same row under another key, and that what it leaves out
// is in the row that goes. That holds only where one task has both keys; elsewhere the second row finds nothing to be
// completed from and is refused.
type Normalize struct {
	Node string
	// Input are the types of the table's columns, without the one of Unsent. They are those of the output, too.
	Input  []row.Type
	Key    []int
	Unsent bool
}

// UnsentMoved marks the first half of a change of key whose second half leaves something out.
const UnsentMoved = int64(-1)

// MaxUnsent is how many columns, counted from the first, Normalize can complete.
const MaxUnsent = 64

type normalize struct {
	spec    Normalize
	out     dataflow.Emitter
	store   *state.Store
	key     *row.KeyCodec
	codec   *row.Codec
	bag     *state.Bag // of each key one row, or none
	keys    row.Keys
	refs    []state.Ref
	puts    []int32 // rows of weight +1
	goes    []int32 // and of -1
	row     []byte
	old     []byte
	moved   []byte // what the row before took away, if it goes on under another key
	isMoved bool
	// Of the top 16 bits of hashes, which ones are the task's.
	first, behind int
	whole         *row.Builder // a row that is being completed
	sel           [1]int32
	one           [1][]byte
	// What is to be emitted, until it is decoded column by column.
	heap    []byte
	spans   []row.Span
	weights []int64
	rows    [][]byte
	emit    *row.Builder
}

// NewNormalize returns a task's instance.
func NewNormalize(spec Normalize, task dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
	var key []row.Type
	for _, c := range spec.Key {
		key = append(key, spec.Input[c])
	}
	n := &normalize{spec: spec, out: out, store: task.State(), key: row.GroupKey(key), codec: row.NewCodec(spec.Input), whole: row.NewBuilder(spec.Input), emit: row.NewBuilder(spec.Input)}
	var err error
	n.bag, err = n.store.Bag(spec.Node+"/rows", n.key, true)
	n.first, n.behind = owned(task.Index(), task.Count())
	return n, err
}

// Process takes rows in.
func (n *normalize) Process(_ int, b *row.Batch) error {
	n.key.Hash(&n.keys, b, n.spec.Key)
	n.refs = grow(n.refs, b.Len)
	if err := n.find(b); err != nil {
		return err
	}
	for k := range b.Rows() {
		i := b.At(k)
		unsent := int64(0)
		if n.spec.Unsent {
			unsent = b.Cols[len(n.spec.Input)].Int64[i]
		}
		if err := n.change(b, i, n.refs[i], b.Weight(i) > 0, unsent); err != nil {
			return err
		}
		if len(n.spans) >= row.MaxBatch-1 {
			if err := n.flush(); err != nil {
				return err
			}
		}
	}
	return n.flush()
}

// find looks the keys up, and adds those that get a row. An entry of a key that has none and gets none would stay.
func (n *normalize) find(b *row.Batch) error {
	if b.Weights == nil {
		return n.bag.Keys().FindOrAdd(&n.keys, b, n.refs)
	}
	n.puts, n.goes = n.puts[:0], n.goes[:0]
	for k := range b.Rows() {
		if i := b.At(k); b.Weights[i] > 0 {
			n.puts = append(n.puts, int32(i))
		} else {
			n.goes = append(n.goes, int32(i))
		}
	}
	part := *b
	if part.Sel = n.puts; len(n.puts) > 0 { // an empty selection may be nil, which means all
		if err := n.bag.Keys().FindOrAdd(&n.keys, &part, n.refs); err != nil {
			return err
		}
	}
	if part.Sel = n.goes; len(n.goes) == 0 {
		return nil
	}
	return n.bag.Keys().Find(&n.keys, &part, n.refs)
}

// change gives key, whose entry is r, the i-th row of b, or none.
func (n *normalize) change(b *row.Batch, i int, r state.Ref, put bool, unsent int64) error {
	wasMoved := n.isMoved
	n.isMoved = false
	node := n.bag.First(r)
	if node != 0 {
		n.old = append(n.old[:0], n.bag.Row(node)...)
	}
	if !put {
		if n.isMoved = unsent == UnsentMoved && node != 0; n.isMoved {
			n.moved = append(n.moved[:0], n.old...)
		}
		if node == 0 {
			return nil
		}
		n.gather(n.old, -1)
		return n.bag.Add(r, n.keys.Hash[i], n.old, -1)
	}
	switch {
	case unsent == 0:
		n.row = n.codec.AppendColumns(n.row[:0], b.Cols, i)
	case wasMoved:
		n.complete(b, i, n.moved, uint64(unsent))
	case node != 0:
		n.complete(b, i, n.old, uint64(unsent))
	default:
		return errs.New(errs.SourceStream, "%s: a row comes without the value of its column %d, and the row before it is not known", n.spec.Node, bits.TrailingZeros64(uint64(unsent))).
			WithHint("the source leaves out large values that an update does not change. That needs the table's rows from its first copy on, and a change of a primary key needs ALTER TABLE ... REPLICA IDENTITY FULL")
	}
	if node != 0 {
		if bytes.Equal(n.old, n.row) {
			return nil
		}
		n.gather(n.old, -1)
		if err := n.bag.Add(r, n.keys.Hash[i], n.old, -1); err != nil {
			return err
		}
	}
	n.gather(n.row, 1)
	return n.bag.Add(r, n.keys.Hash[i], n.row, 1)
}

// complete makes n.row of the i-th row of b and of what it leaves out, which is in old.
func (n *normalize) complete(b *row.Batch, i int, old []byte, unsent uint64) {
	n.whole.Reset()
	n.one[0], n.sel[0] = old, int32(i)
	for c := range n.spec.Input {
		if c < MaxUnsent && unsent&(1<<c) != 0 {
			n.codec.Decode(n.whole.Cols[c], 0, c, n.one[:])
		} else {
			n.whole.Cols[c].Gather(n.spec.Input[c].Layout(), 0, b.Cols[c], n.sel[:], 1)
		}
	}
	n.row = n.codec.AppendColumns(n.row[:0], n.whole.Cols, 0)
}

// gather puts a row into what is emitted next.
func (n *normalize) gather(r []byte, w int64) {
	n.spans = append(n.spans, row.Span{Off: uint32(len(n.heap)), Len: uint32(len(r))})
	n.heap = append(n.heap, r...)
	n.weights = append(n.weights, w)
}

// flush emits what was gathered.
func (n *normalize) flush() error {
	if len(n.spans) == 0 {
		return nil
	}
	n.rows = slices.Grow(n.rows[:0], len(n.spans))
	for _, s := range n.spans {
		n.rows = append(n.rows, n.heap[s.Off:s.Off+s.Len])
	}
	n.emit.Reset()
	for c := range n.spec.Input {
		n.codec.Decode(n.emit.Cols[c], 0, c, n.rows)
	}
	for _, w := range n.weights {
		n.emit.EndRow(w)
	}
	n.heap, n.spans, n.weights = n.heap[:0], n.spans[:0], n.weights[:0]
	return n.out.Emit(n.emit.Seal())
}

// Barrier ends the epoch.
func (n *normalize) Barrier(dataflow.Epoch) error {
	invariants.Check(!n.isMoved, "%s: a barrier between the two halves of a change of key", n.spec.Node)
	return nil
}
