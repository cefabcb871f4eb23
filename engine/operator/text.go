package operator

import (
	"bytes"
	"encoding/binary"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// text is the value of Min or Max over input that only grows, where values have no fixed length. The accumulator has a
// blob with the key bytes of the best value, so that values compare as bytes, and the first eight of them, which decide
// most comparisons where it is.
type text struct {
	codec *row.KeyCodec
	max   bool
	cols  [1]int
	key   []byte
	out   [1]*row.Vector
	one   [1][]byte
}

const accFront = accValue + state.BlobField

func newText(a *accumulator) *text {
	return &text{codec: row.GroupKey([]row.Type{a.in.Required()}), max: a.call.Func == Max, cols: [1]int{a.call.Arg}}
}

// add takes the value of row i of b in; acc is the accumulator, one of the values of groups.
func (t *text) add(groups *state.Map, acc []byte, b *row.Batch, i int) {
	t.key = t.codec.Append(t.key[:0], b, t.cols[:], i)
	front := keyFront(t.key)
	blob := acc[accValue : accValue+state.BlobField]
	if n := int(binary.LittleEndian.Uint32(blob[4:])); n > 0 {
		switch old := binary.BigEndian.Uint64(acc[accFront:]); {
		case front > old && !t.max, front < old && t.max:
			return
		case front != old:
		case n == len(t.key) && n <= 8:
			return
		default:
			if c := bytes.Compare(t.key, groups.Blob(blob)); c == 0 || c > 0 != t.max {
				return
			}
		}
	}
	groups.SetBlob(blob, t.key)
	binary.BigEndian.PutUint64(acc[accFront:], front)
}

// keyFront is the first eight bytes of a key as a number that orders like them.
func keyFront(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

// result appends the value whose key bytes these are.
func (t *text) result(out *row.Vector, key []byte) {
	t.out[0], t.one[0] = out, append(t.one[0][:0], key...)
	if err := t.codec.Decode(t.out[:], len(out.Spans), t.one[:]); err != nil {
		panic("state of an aggregate: " + err.Error())
	}
}
