package operator

import (
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

// View is a task's part of a materialized view.
type View struct {
	spec  Materialize
	codec *row.Codec
	key   *row.KeyCodec
	bag   *state.Bag
	keys  row.Keys
	refs  []state.Ref
	row   []byte
}

// NewMaterialize returns a task's instance, a *View. It passes rows on to nobody.
func NewMaterialize(spec Materialize, task dataflow.Task, _ dataflow.Emitter) (dataflow.Operator, error) {
	v := &View{spec: spec, codec: row.NewCodec(spec.Types)}
	if spec.Key == nil {
		for i := range spec.Types {
			v.spec.Key = append(v.spec.Key, i)
		}
	}
	var types []row.Type
	for _, c := range v.spec.Key {
		types = append(types, spec.Types[c])
	}
	v.key = row.GroupKey(types)
	var err error
	if v.bag, err = task.State().Bag(spec.Node+"/rows", v.key, true); err != nil {
		return nil, err
	}
	v.bag.Keys().KeepResident()
	return v, nil
}

// Process takes rows in.
func (v *View) Process(_ int, b *row.Batch) error {
	v.key.Hash(&v.keys, b, v.spec.Key)
	v.refs = grow(v.refs, b.Len)
	if err := v.bag.Keys().FindOrAdd(&v.keys, b, v.refs); err != nil {
		return err
	}
	for k := range b.Rows() {
		i := b.At(k)
		v.row = v.codec.Append(v.row[:0], b, i)
		if err := v.bag.Add(v.refs[i], v.keys.Hash[i], v.row, b.Weight(i)); err != nil {
			return err
		}
	}
	return nil
}

// Barrier does nothing: the rows are there.
func (v *View) Barrier(dataflow.Epoch) error { return nil }
