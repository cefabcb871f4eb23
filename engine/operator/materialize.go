package operator

import (
	"sync"
	"sync/atomic"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// Materialize keeps the rows of a view, so that they can be read: by key, or all of them.
type Materialize struct {
	Node  string
	Types []row.Type
	// Key are columns that no two rows of the view share; nil: rows may be equal.
	Key []int
}

// View is a task's part of a materialized view. The rows stand still between barriers: what an epoch brings waits, and is
// applied at the barrier, so that what is read between two barriers is the view at the first of them. While somebody has
// an epoch pinned, the old rows of keys that change are kept as well (see undo).
type View struct {
	spec     Materialize
	codec    *row.Codec
	key      *row.KeyCodec
	store    *state.Store
	bag      *state.Bag
	keys     row.Keys
	refs     []state.Ref
	spans    []row.Span
	heap     []byte
	scratch  []byte
	waiting  []*row.Builder // rows of the epoch
	spare    []*row.Builder
	undo     undo
	partRows int
	epoch    uint64 // whose barrier is worked on
	// Of the top 16 bits of hashes, which ones are the task's.
	first, behind int
	taps          atomic.Pointer[[]*Tap] // who follows the view; nil: nobody
	tapping       sync.Mutex             // held to change taps
	loaded        []uint64               // a bit for each 16 bits of hash whose keys are all in memory; nil where none lie below
}

// NewMaterialize returns a task's instance, a *View. It passes rows on to nobody.
func NewMaterialize(spec Materialize, task dataflow.Task, _ dataflow.Emitter) (dataflow.Operator, error) {
	v := &View{spec: spec, codec: row.NewCodec(spec.Types), store: task.State(), partRows: defaultPartRows}
	v.first, v.behind = owned(task.Index(), task.Count())
	if spec.Key == nil {
		for i := range spec.Types {
			v.spec.Key = append(v.spec.Key, i)
		}
	}
	v.key = row.GroupKey(v.KeyTypes())
	var err error
	if v.bag, err = v.store.Bag(spec.Node+"/rows", v.key, true); err != nil {
		return nil, err
	}
	v.bag.Keys().KeepResident()
	return v, nil
}

// owned is the range of the top 16 bits of hashes that a task owns: exchange sends it those b with b*count>>16 == index.
func owned(index, count int) (first, behind int) {
	from := func(i int) int { return (i<<16 + count - 1) / count }
	return from(index), from(index + 1)
}

// KeyTypes are the types of the columns by which rows are looked up: the view's key, or all columns if it has none. Any
// goroutine may ask.
func (v *View) KeyTypes() []row.Type {
	var types []row.Type
	for _, c := range v.spec.Key {
		types = append(types, v.spec.Types[c])
	}
	return types
}

// Types are the types of the view's columns. Any goroutine may ask.
func (v *View) Types() []row.Type { return v.spec.Types }

// Process takes rows in. They wait for the barrier.
func (v *View) Process(_ int, b *row.Batch) error {
	n := len(v.waiting)
	if n == 0 || v.waiting[n-1].Len+b.Rows() > row.MaxBatch {
		var to *row.Builder
		if k := len(v.spare); k > 0 {
			to, v.spare = v.spare[k-1], v.spare[:k-1]
		} else {
			to = row.NewBuilder(v.spec.Types)
		}
		to.Reset()
		v.waiting = append(v.waiting, to)
		n++
	}
	v.waiting[n-1].Append(b, nil)
	return nil
}

// spareBuilders is how many a view keeps from one epoch to the next.
const spareBuilders = 16

// Barrier makes the view that of the epoch.
func (v *View) Barrier(e dataflow.Epoch) error {
	v.undo.begin(e.N)
	v.epoch = e.N
	for _, w := range v.waiting {
		if err := v.apply(w.Seal()); err != nil {
			return err
		}
		if len(v.spare) < spareBuilders {
			v.spare = append(v.spare, w)
		}
	}
	clear(v.waiting)
	v.waiting = v.waiting[:0]
	return nil
}

func (v *View) apply(b *row.Batch) error {
	v.key.Hash(&v.keys, b, v.spec.Key)
	v.refs, v.spans, v.heap = grow(v.refs, b.Len), grow(v.spans, b.Len), v.heap[:0]
	if err := v.bag.Keys().FindOrAdd(&v.keys, b, v.refs); err != nil {
		return err
	}
	if v.undo.on {
		for k := range b.Rows() {
			i := b.At(k)
			v.keep(v.refs[i], v.keys.Hash[i])
		}
	}
	for k := range b.Rows() {
		i := b.At(k)
		at := len(v.heap)
		v.heap = v.codec.Append(v.heap, b, i)
		v.spans[i] = row.Span{Off: uint32(at), Len: uint32(len(v.heap) - at)}
	}
	if taps := v.taps.Load(); taps != nil {
		for k := range b.Rows() {
			i := b.At(k)
			for _, t := range *taps {
				t.add(v.epoch, b.Weight(i), v.heap[v.spans[i].Off:v.spans[i].Off+v.spans[i].Len])
			}
		}
	}
	return v.bag.AddAll(b, &v.keys, v.refs, v.spans, v.heap)
}

// keep puts the rows that a key has aside, before the first change of the epoch.
func (v *View) keep(key state.Ref, hash uint64) {
	v.scratch = append(v.scratch[:0], v.bag.Keys().Key(v.scratch[:0], key)...)
	put, wanted := v.undo.wants(v.store.GroupOf(hash), v.scratch)
	if !wanted {
		return
	}
	for n := v.bag.First(key); n != 0; n = v.bag.Next(n) {
		put.add(v.bag.Weight(n), v.bag.Row(n))
	}
	v.undo.took(put)
}
