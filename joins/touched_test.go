package joins

import (
	"encoding/binary"
	"testing"

	"github.com/weirstream/weir/engine/state"
)

// TestTouchedForgets: after a reset, of a full table or a nearly empty one, nothing is found and no slot is taken.
func TestTouchedForgets(t *testing.T) {
	var s touched
	for _, n := range []int{1000, 3, 60, 0, 200, 1} {
		for i := range n {
			r := binary.BigEndian.AppendUint64(nil, uint64(i%7))
			key := state.Ref(1 + i/7)
			if at := s.find(key, uint64(key), r); at != i {
				t.Fatalf("row %d of %d has number %d", i, n, at)
			}
			if at := s.find(key, uint64(key), r); at != i {
				t.Fatalf("row %d of %d is found as %d", i, n, at)
			}
		}
		s.reset()
		for _, slot := range s.slots {
			if slot != 0 {
				t.Fatalf("after %d rows a slot is left", n)
			}
		}
	}
}
