package operator

import "github.com/weirstream/weir/engine/row"

// keptRows collects binary rows that lie in a bag's backing and gives them on as batches.
type keptRows struct {
	codec *row.Codec
	out   *row.Builder
	one   [1][]byte
	f     func(*row.Batch) error
}

func (k *keptRows) add(r []byte, weight int64) error {
	if err := k.codec.Check(r); err != nil {
		return err
	}
	k.one[0] = r
	for c := range k.out.Cols {
		k.codec.Decode(k.out.Cols[c], k.out.Len, c, k.one[:])
	}
	k.out.EndRow(weight)
	if k.out.Len == row.MaxBatch {
		return k.flush()
	}
	return nil
}

func (k *keptRows) flush() error {
	if k.out.Len == 0 {
		return nil
	}
	err := k.f(k.out.Seal())
	k.out.Reset()
	return err
}

// Kept is part of dataflow.Keeper: the view's rows, which are those of its input.
func (v *View) Kept(f func(*row.Batch) error) error {
	k := keptRows{codec: v.codec, out: row.NewBuilder(v.spec.Types), f: f}
	k.out.Reset()
	if err := v.bag.Kept(v.first, v.behind, k.add); err != nil {
		return err
	}
	return k.flush()
}

// Kept is part of dataflow.Keeper: the table's rows, as they were emitted.
func (n *normalize) Kept(f func(*row.Batch) error) error {
	k := keptRows{codec: n.codec, out: row.NewBuilder(n.spec.Input), f: f}
	k.out.Reset()
	if err := n.bag.Kept(n.first, n.behind, k.add); err != nil {
		return err
	}
	return k.flush()
}
