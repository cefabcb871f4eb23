package state_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/engine/state/statetest"
)

// TestAgainstModel drives a map and two bags with random keys, rows, checkpoints and restarts, and compares them with Go
// maps; from the last checkpoint after each restart.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(45) {
		r := rand.New(rand.NewPCG(seed, 7))
		types := []row.Type{{Kind: row.BigInt, NotNull: true}}
		if seed%2 == 1 {
			types = []row.Type{{Kind: row.String}, {Kind: row.Int}}
		}
		codec := row.GroupKey(types)
		groups := []int{1, 4, 256}[seed%3]
		backing := statetest.New()
		type model struct {
			values map[string]int64
			bag    map[string]map[string]int64
			grow   map[string][]string
		}
		clone := func(m model) model {
			c := model{map[string]int64{}, map[string]map[string]int64{}, map[string][]string{}}
			for k, v := range m.values {
				c.values[k] = v
			}
			for k, v := range m.bag {
				c.bag[k] = map[string]int64{}
				for kk, vv := range v {
					c.bag[k][kk] = vv
				}
			}
			for k, v := range m.grow {
				c.grow[k] = slices.Clone(v)
			}
			return c
		}
		limit := []uint64{0, 1, 3000, 6000}[seed/3%4]
		now := clone(model{})
		saved := clone(now)
		var s *state.Store
		var m *state.Map
		var bag, grow *state.Bag
		open := func() {
			var err error
			if s, err = state.New(state.Options{Groups: groups, Backing: backing, MemoryBytes: limit}); err != nil {
				t.Fatal(err)
			}
			m, err = s.Map("m", codec, 8, nil)
			if err == nil {
				bag, err = s.Bag("b", codec, true)
			}
			if err == nil {
				grow, err = s.Bag("g", codec, false)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		open()
		var pending []*state.Delta // taken and not yet in the backing, as in life
		checkpoint, absorbed := uint64(0), uint64(0)
		absorb := func(n int) {
			for range n {
				backing.Apply(t, pending[0])
				pending = pending[1:]
				absorbed++
			}
		}
		var keys row.Keys
		for step := range 300 {
			b := row.NewBuilder(types)
			b.Reset()
			n := 1 + r.IntN(40)
			for range n {
				k := r.Int64N(30)
				if seed%2 == 1 {
					if k%5 == 0 {
						b.Cols[0].AppendNull(row.LayoutBytes)
					} else {
						b.Cols[0].AppendString(fmt.Sprint("key", k%7))
					}
					b.Cols[1].Int64 = append(b.Cols[1].Int64, k%3)
				} else {
					b.Cols[0].Int64 = append(b.Cols[0].Int64, k)
				}
				b.EndRow(1)
			}
			batch := b.Seal()
			cols := []int{0, 1}[:len(types)]
			codec.Hash(&keys, batch, cols)
			name := func(i int) string { return string(codec.Append(nil, batch, cols, i)) }
			refs := make([]state.Ref, batch.Len)
			switch r.IntN(5) {
			case 0: // the map
				must(t, m.FindOrAdd(&keys, batch, refs))
				for i := range batch.Len {
					m.Touch(refs[i])
					v := m.Value(refs[i])
					binary.LittleEndian.PutUint64(v, binary.LittleEndian.Uint64(v)+uint64(i+1))
					now.values[name(i)] += int64(i + 1)
				}
			case 1: // away with one
				must(t, m.Find(&keys, batch, refs))
				if refs[0] != 0 {
					m.Remove(refs[0])
				}
				delete(now.values, name(0))
			case 2, 3:
				must(t, bag.Keys().FindOrAdd(&keys, batch, refs))
				for i := range batch.Len {
					text, w := fmt.Sprint("row", r.IntN(6)), r.Int64N(3)-1
					if w == 0 {
						w = -1
					}
					must(t, bag.Add(refs[i], keys.Hash[i], []byte(text), w))
					k := name(i)
					if now.bag[k] == nil {
						now.bag[k] = map[string]int64{}
					}
					if now.bag[k][text] += w; now.bag[k][text] == 0 {
						delete(now.bag[k], text)
					}
				}
			case 4:
				must(t, grow.Keys().FindOrAdd(&keys, batch, refs))
				for i := range batch.Len {
					text := fmt.Sprint("row", step)
					must(t, grow.Add(refs[i], keys.Hash[i], []byte(text), 1))
					now.grow[name(i)] = append(now.grow[name(i)], text)
				}
			}
			s.NextEpoch()
			switch r.IntN(8) {
			case 0, 1:
				checkpoint++
				d := &state.Delta{}
				s.TakeDelta(d, checkpoint)
				pending = append(pending, d)
				saved = clone(now)
			case 3:
				absorb(r.IntN(len(pending) + 1))
				s.Absorbed(absorbed)
				s.Evict()
			case 4:
				s.Evict()
			case 2:
				absorb(len(pending))
				s.Close()
				open()
				now = clone(saved)
			}
			// Every key of the batch is as the model says.
			must(t, m.Find(&keys, batch, refs))
			for i := range batch.Len {
				want, ok := now.values[name(i)]
				if ok != (refs[i] != 0) || ok && int64(binary.LittleEndian.Uint64(m.Value(refs[i]))) != want {
					t.Fatalf("seed %d step %d: key %q has entry %d, want %v %d", seed, step, name(i), refs[i], ok, want)
				}
			}
			must(t, bag.Keys().Find(&keys, batch, refs))
			for i := range batch.Len {
				got := map[string]int64{}
				for n := bag.First(refs[i]); n != 0; n = bag.Next(n) {
					got[string(bag.Row(n))] += bag.Weight(n)
				}
				if want := now.bag[name(i)]; fmt.Sprint(got) != fmt.Sprint(want) || bag.Count(refs[i]) != len(want) {
					t.Fatalf("seed %d step %d: key %q holds %v, want %v", seed, step, name(i), got, want)
				}
			}
			must(t, grow.Keys().Find(&keys, batch, refs))
			for i := range batch.Len {
				var got []string
				for n := grow.First(refs[i]); n != 0; n = grow.Next(n) {
					got = append(got, string(grow.Row(n)))
				}
				if want := now.grow[name(i)]; fmt.Sprint(got) != fmt.Sprint(want) || grow.Sum(refs[i]) != int64(len(want)) {
					t.Fatalf("seed %d step %d: key %q has grown to %v, want %v", seed, step, name(i), got, want)
				}
			}
		}
		s.Close()
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func intKeys(n int, of func(i int) int64) (*row.Batch, *row.KeyCodec) {
	types := []row.Type{{Kind: row.BigInt, NotNull: true}}
	b := row.NewBuilder(types)
	b.Reset()
	for i := range n {
		b.Cols[0].Int64 = append(b.Cols[0].Int64, of(i))
		b.EndRow(1)
	}
	return b.Seal(), row.GroupKey(types)
}

// TestNoAllocations: what exists is found and changed without an allocation.
func TestNoAllocations(t *testing.T) {
	s, err := state.New(state.Options{})
	must(t, err)
	defer s.Close()
	b, codec := intKeys(1000, func(i int) int64 { return int64(i * 7919) })
	m, err := s.Map("m", codec, 8, nil)
	must(t, err)
	bag, err := s.Bag("b", codec, true)
	must(t, err)
	var keys row.Keys
	refs := make([]state.Ref, b.Len)
	var d state.Delta
	text := []byte("some row")
	work := func() {
		codec.Hash(&keys, b, []int{0})
		must(t, m.FindOrAdd(&keys, b, refs))
		for _, r := range refs {
			m.Touch(r)
		}
		must(t, bag.Keys().FindOrAdd(&keys, b, refs))
		for i, r := range refs {
			must(t, bag.Add(r, keys.Hash[i], text, 1))
			must(t, bag.Add(r, keys.Hash[i], text, -1))
		}
		s.NextEpoch()
		s.TakeDelta(&d, 1)
	}
	work()
	work()
	work()
	if n := testing.AllocsPerRun(20, work); n > 0 {
		t.Errorf("%v allocations for 1000 rows", n)
	}
}

func BenchmarkMapInt(b *testing.B) {
	for _, n := range []int64{1e5, 1e6, 1e7} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, _ := state.New(state.Options{Volatile: true})
			defer s.Close()
			r := rand.New(rand.NewPCG(1, 1))
			batch, codec := intKeys(1024, func(int) int64 { return 0 })
			m, _ := s.Map("m", codec, 16, nil)
			refs := make([]state.Ref, 1024)
			var keys row.Keys
			fill := func(of func(i int) int64) {
				for i := range batch.Len {
					batch.Cols[0].Int64[i] = of(i)
				}
				codec.Hash(&keys, batch, []int{0})
				_ = m.FindOrAdd(&keys, batch, refs)
				for _, ref := range refs {
					v := m.Value(ref)
					binary.LittleEndian.PutUint64(v, binary.LittleEndian.Uint64(v)+1)
				}
			}
			for at := int64(0); at < n; at += 1024 {
				fill(func(i int) int64 { return at + int64(i) })
			}
			for b.Loop() {
				fill(func(int) int64 { return r.Int64N(n) })
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1024, "ns/row")
			b.ReportMetric(float64(s.MemoryBytes())/float64(m.Len()), "B/key")
		})
	}
}
