package operator

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/internal/invariants"
)

// TopN keeps, of each partition, the rows at the places Offset+1 to Offset+Limit of an order: Top-N, LIMIT with ORDER BY
// and deduplication (Limit 1). The order ends in the row's bytes, so that places are the same whatever came first; a row
// of weight 3 takes three places.
type TopN struct {
	Node      string
	Input     []row.Type
	Partition []int
	Order     []int
	OrderKeys []row.KeyColumn
	Limit     int64 // negative: no limit
	Offset    int64
	// Rank adds the place, from 1, as a last column.
	Rank bool
	// Retract: the input may hold weights other than positive ones. Otherwise only the rows that are in the result are
	// kept.
	Retract bool
}

// Types of the output.
func (s *TopN) Types() []row.Type {
	types := slices.Clone(s.Input)
	if s.Rank {
		types = append(types, row.Type{Kind: row.BigInt, NotNull: true})
	}
	return types
}

// A row in the bag is the length of its order key in four bytes, the key, and the binary row.
type topN struct {
	spec    TopN
	task    dataflow.Task
	out     dataflow.Emitter
	part    *row.KeyCodec
	order   *row.KeyCodec
	codec   *row.Codec
	bag     *state.Bag
	keys    row.Keys
	refs    []state.Ref
	touched []topTouched
	heap    []byte // the results before the epoch, one row behind the other
	places  []row.Span
	before  [][]byte
	after   [][]byte
	ranked  []topRow
	row     []byte
	evicted []byte
	emit    *row.Builder
	one     [1][]byte
}

type topTouched struct {
	partition state.Ref
	from, to  int32 // its rows in places
}

type topRow struct {
	bytes  []byte
	weight int64
}

// NewTopN returns a task's instance.
func NewTopN(spec TopN, task dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
	var part []row.Type
	for _, c := range spec.Partition {
		part = append(part, spec.Input[c])
	}
	t := &topN{spec: spec, task: task, out: out, part: row.GroupKey(part), order: row.NewKeyCodec(spec.OrderKeys, false), codec: row.NewCodec(spec.Input), emit: row.NewBuilder(spec.Types())}
	if spec.Limit < 0 {
		t.spec.Retract = true // nothing may be let go of
	}
	if !t.spec.Retract && t.spec.Limit == 1 && t.spec.Offset == 0 {
		return newKeepOne(t, task)
	}
	var err error
	t.bag, err = task.State().Bag(spec.Node+"/rows", t.part, true)
	return t, err
}

// Process takes rows in.
func (t *topN) Process(_ int, b *row.Batch) error {
	t.part.Hash(&t.keys, b, t.spec.Partition)
	t.refs = grow(t.refs, b.Len)
	keys := t.bag.Keys()
	if err := keys.FindOrAdd(&t.keys, b, t.refs); err != nil {
		return err
	}
	for k := range b.Rows() {
		i := b.At(k)
		p, w := t.refs[i], b.Weight(i)
		t.row = append(t.row[:0], 0, 0, 0, 0)
		t.row = t.order.Append(t.row, b, t.spec.Order, i)
		binary.LittleEndian.PutUint32(t.row, uint32(len(t.row)-4))
		if !t.spec.Retract && int64(t.bag.Count(p)) >= t.spec.Limit+t.spec.Offset {
			// The order key alone often tells that the row has no place.
			worst, sum := t.worst(p)
			if c := bytes.Compare(t.row[4:], orderKey(t.bag.Row(worst))); c > 0 {
				continue
			}
			t.row = t.codec.Append(t.row, b, i)
			if compareTop(t.row, t.bag.Row(worst)) >= 0 {
				continue
			}
			t.touch(p)
			if sum+w-t.bag.Weight(worst) >= t.spec.Limit+t.spec.Offset {
				t.evicted = append(t.evicted[:0], t.bag.Row(worst)...)
				if err := t.bag.Add(p, t.keys.Hash[i], t.evicted, -t.bag.Weight(worst)); err != nil {
					return err
				}
			}
		} else {
			t.touch(p)
			t.row = t.codec.Append(t.row, b, i)
		}
		if err := t.bag.Add(p, t.keys.Hash[i], t.row, w); err != nil {
			return err
		}
	}
	return nil
}

func orderKey(r []byte) []byte { return r[4 : 4+binary.LittleEndian.Uint32(r)] }

// compareTop orders rows: by their order keys, then by their bytes.
func compareTop(a, b []byte) int {
	n, m := 4+binary.LittleEndian.Uint32(a), 4+binary.LittleEndian.Uint32(b)
	if c := bytes.Compare(a[4:n], b[4:m]); c != 0 {
		return c
	}
	return bytes.Compare(a[n:], b[m:])
}

// worst is the last row of a partition and the sum of all weights.
func (t *topN) worst(p state.Ref) (worst state.Ref, sum int64) {
	for n := t.bag.First(p); n != 0; n = t.bag.Next(n) {
		sum += t.bag.Weight(n)
		if worst == 0 || compareTop(t.bag.Row(n), t.bag.Row(worst)) > 0 {
			worst = n
		}
	}
	return worst, sum
}

// touch puts a partition's result aside before its first change in an epoch.
func (t *topN) touch(p state.Ref) {
	if !t.bag.Keys().Touch(p) {
		return
	}
	from := len(t.places)
	for _, r := range t.result(t.before[:0], p) {
		t.places = append(t.places, row.Span{Off: uint32(len(t.heap)), Len: uint32(len(r))})
		t.heap = append(t.heap, r...)
	}
	t.touched = append(t.touched, topTouched{p, int32(from), int32(len(t.places))})
}

// result appends the rows of a partition that have a place, in order.
func (t *topN) result(to [][]byte, p state.Ref) [][]byte {
	t.ranked = t.ranked[:0]
	for n := t.bag.First(p); n != 0; n = t.bag.Next(n) {
		w := t.bag.Weight(n)
		if w > 0 {
			t.ranked = append(t.ranked, topRow{t.bag.Row(n), w})
		}
	}
	end := t.spec.Limit + t.spec.Offset
	if len(t.ranked) > 1 {
		slices.SortFunc(t.ranked, func(a, b topRow) int { return compareTop(a.bytes, b.bytes) })
	}
	place := int64(0)
	for _, r := range t.ranked {
		for range r.weight {
			if t.spec.Limit >= 0 && place == end {
				return to
			}
			if place++; place > t.spec.Offset {
				to = append(to, r.bytes)
			}
		}
	}
	return to
}

// Barrier emits what the epoch changed.
func (t *topN) Barrier(dataflow.Epoch) error {
	t.emit.Reset()
	for _, p := range t.touched {
		if invariants.Enabled {
			for n := t.bag.First(p.partition); n != 0; n = t.bag.Next(n) {
				invariants.Check(t.bag.Weight(n) > 0, "%s: a row of weight %d at a barrier", t.spec.Node, t.bag.Weight(n))
			}
		}
		t.before = t.before[:0]
		for _, s := range t.places[p.from:p.to] {
			t.before = append(t.before, t.heap[s.Off:s.Off+s.Len])
		}
		t.after = t.result(t.after[:0], p.partition)
		var err error
		if t.spec.Rank {
			err = t.diffRanked()
		} else {
			err = t.diff()
		}
		if err != nil {
			return err
		}
	}
	t.touched, t.heap, t.places = t.touched[:0], t.heap[:0], t.places[:0]
	return t.flush()
}

// diff emits the difference of two ordered lists.
func (t *topN) diff() error {
	i, j := 0, 0
	for i < len(t.before) || j < len(t.after) {
		c := 0
		switch {
		case i == len(t.before):
			c = 1
		case j == len(t.after):
			c = -1
		default:
			c = compareTop(t.before[i], t.after[j])
		}
		var err error
		switch {
		case c == 0:
			i, j = i+1, j+1
		case c < 0:
			err = t.append(t.before[i], 0, -1)
			i++
		default:
			err = t.append(t.after[j], 0, 1)
			j++
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// diffRanked emits the places whose row is another.
func (t *topN) diffRanked() error {
	for i := range max(len(t.before), len(t.after)) {
		place := t.spec.Offset + int64(i) + 1
		if i < len(t.before) && i < len(t.after) && bytes.Equal(t.before[i], t.after[i]) {
			continue
		}
		if i < len(t.before) {
			if err := t.append(t.before[i], place, -1); err != nil {
				return err
			}
		}
		if i < len(t.after) {
			if err := t.append(t.after[i], place, 1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *topN) append(r []byte, place, w int64) error {
	t.one[0] = r[4+binary.LittleEndian.Uint32(r):]
	n := len(t.spec.Input)
	for c := range n {
		t.codec.Decode(t.emit.Cols[c], t.emit.Len, c, t.one[:])
	}
	if t.spec.Rank {
		t.emit.Cols[n].Int64 = append(t.emit.Cols[n].Int64, place)
	}
	t.emit.EndRow(w)
	if t.emit.Len == row.MaxBatch {
		return t.flush()
	}
	return nil
}

func (t *topN) flush() error {
	if t.emit.Len == 0 {
		return nil
	}
	err := t.out.Emit(t.emit.Seal())
	t.emit.Reset()
	return err
}
