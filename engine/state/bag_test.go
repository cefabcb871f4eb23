package state

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/weirstream/weir/engine/row"
)

// TestBagIndex takes keys over the size from which on their rows are indexed and back to nothing, many times: the index
// has exactly the rows of the keys that say so, and what went away is not there any more.
func TestBagIndex(t *testing.T) {
	s, err := New(Options{Groups: 4})
	must(t, err)
	defer s.Close()
	types := []row.Type{{Kind: row.BigInt, NotNull: true}}
	rows, codec := row.NewBuilder(types), row.GroupKey(types)
	rows.Reset()
	for i := range int64(8) {
		rows.Cols[0].Int64 = append(rows.Cols[0].Int64, i)
		rows.EndRow(1)
	}
	batch := rows.Seal()
	b, err := s.Bag("b", codec, true)
	must(t, err)
	keys, refs := hashed(codec, batch)
	r := rand.New(rand.NewPCG(3, 3))
	model := make([]map[string]int64, batch.Len)
	for i := range model {
		model[i] = map[string]int64{}
	}
	most, emptied := 0, 0
	for step := range 4000 {
		must(t, b.Keys().FindOrAdd(&keys, batch, refs))
		i := r.IntN(batch.Len)
		text, w := fmt.Sprint("row", r.IntN(3*listRows)), int64(1)
		switch {
		case i == 0: // this one has many for long, so that its values below are written anew
			if model[i][text] > 0 && len(model[i]) > listRows+1 {
				w = -model[i][text]
			}
		case step/200%2 == 1 && len(model[i]) > 0: // for a while rows only go
			for text = range model[i] {
				break
			}
			w = -model[i][text]
		}
		must(t, b.Add(refs[i], keys.Hash[i], []byte(text), w))
		if model[i][text] += w; model[i][text] == 0 {
			if delete(model[i], text); len(model[i]) == 0 {
				emptied++
			}
		}
		most = max(most, len(model[i]))
		inIndex := 0
		for k, ref := range refs {
			rows := s.arena.u32(ref, entryValue+bagRows)
			if rows&indexed != 0 {
				inIndex += b.Count(ref)
			}
			if rows == indexed || b.Count(ref) != len(model[k]) || b.Count(ref) > listRows && rows&indexed == 0 {
				t.Fatalf("step %d: key %d says %x, it has %d rows", step, k, rows, len(model[k]))
			}
			for text, w := range model[k] {
				if n := b.Find(ref, keys.Hash[k], []byte(text)); n == 0 || b.Weight(n) != w {
					t.Fatalf("step %d: key %d, %s of weight %d is not found", step, k, text, w)
				}
			}
		}
		used := 0
		for g := range b.index {
			used += int(b.index[g].used)
		}
		if used != inIndex {
			t.Fatalf("step %d: the index has %d rows, the keys that use it %d", step, used, inIndex)
		}
		if step%50 == 49 {
			s.NextEpoch()
			var d Delta
			s.TakeDelta(&d, uint64(step))
			for k, ref := range refs { // entries without rows are freed
				if n := len(model[k]); n > 0 && binary.LittleEndian.Uint32(s.arena.bytes(ref, entryValue+bagSince, 4)) > 1<<20 {
					t.Fatalf("step %d: a key of %d rows counts too many changes below", step, n)
				}
			}
		}
	}
	if most <= listRows || emptied == 0 {
		t.Fatalf("the test reached %d rows and emptied %d keys", most, emptied)
	}
}

func hashed(codec *row.KeyCodec, b *row.Batch) (row.Keys, []Ref) {
	var keys row.Keys
	codec.Hash(&keys, b, []int{0})
	return keys, make([]Ref, b.Len)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
