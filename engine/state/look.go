package state

import (
	"strings"

	"github.com/weirstream/weir/engine/row"
)

// Look calls f with what every state whose name begins with prefix has for a key: rows with their weights, or one value
// with weight 0; the bytes are lent for the call. key makes the key for a state's codec, as the one row of a batch; nil: the
// state has other keys. owns tells by the key's hash whether the task has it.
func (s *Store) Look(prefix string, key func(c *row.KeyCodec) *row.Batch, owns func(hash uint64) bool, f func(state string, bytes []byte, weight int64)) error {
	for _, m := range s.maps {
		if !strings.HasPrefix(m.name, prefix) {
			continue
		}
		b := key(m.codec)
		if b == nil {
			continue
		}
		cols := make([]int, len(b.Cols))
		for i := range cols {
			cols[i] = i
		}
		var keys row.Keys
		m.codec.Hash(&keys, b, cols)
		if !owns(keys.Hash[0]) {
			continue
		}
		refs := make([]Ref, 1)
		if err := m.Find(&keys, b, refs); err != nil {
			return err
		}
		switch {
		case refs[0] == 0:
		case m.bag != nil:
			for n := m.bag.First(refs[0]); n != 0; n = m.bag.Next(n) {
				f(m.name, m.bag.Row(n), m.bag.Weight(n))
			}
		default:
			v := m.Value(refs[0])
			if m.values != nil {
				v = m.values.Append(nil, v)
			}
			f(m.name, v, 0)
		}
	}
	return nil
}
