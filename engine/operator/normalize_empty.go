package operator

import (
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// Empty implements dataflow.Emptier: it retracts the rows that the task has of the table, all of them or those of a range,
// as if each key had been taken away. What lies below memory is brought in a range of hashes at a time; of a row that is
// gone its key stays in memory until the next checkpoint.
func (n *normalize) Empty(e *dataflow.Emptied) error {
	n.isMoved = false
	keys := n.bag.Keys()
	ranges := 1 << 16 / n.store.Groups()
	for g := range n.store.Groups() {
		if keys.Below(g) {
			for top := max(g*ranges, n.first); top < min((g+1)*ranges, n.behind); top++ {
				if err := n.bag.Load(uint16(top)); err != nil {
					return err
				}
			}
		}
		if err := keys.Part(g, 0, 1, func(key state.Ref) error { return n.emptyKey(key, keys.Hash(key), e) }); err != nil {
			return err
		}
	}
	return n.flush()
}

// emptyKey takes a key's row away, if it is meant.
func (n *normalize) emptyKey(key state.Ref, hash uint64, e *dataflow.Emptied) error {
	node := n.bag.First(key)
	if node == 0 {
		return nil
	}
	n.old = append(n.old[:0], n.bag.Row(node)...)
	if !e.All() {
		n.whole.Reset()
		v := n.whole.Cols[e.Column]
		n.one[0] = n.old
		n.codec.Decode(v, 0, e.Column, n.one[:])
		if at := v.Int64[0]; e.After != nil && at <= *e.After || e.Through != nil && at > *e.Through {
			return nil
		}
	}
	n.gather(n.old, -1)
	if err := n.bag.Add(key, hash, n.old, -1); err != nil {
		return err
	}
	if len(n.spans) == row.MaxBatch {
		return n.flush()
	}
	return nil
}
