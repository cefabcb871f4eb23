package state

import (
	"math/rand/v2"
	"testing"
)

// TestSizesFit: no class is smaller than what it was asked for or wastes more than an eighth.
func TestSizesFit(t *testing.T) {
	last := -1
	for n := 1; n < 1<<22; n += 1 + n/97 {
		c, size := class(n)
		if size < n || size > n+n/8+2*unit || c < last || c >= numClasses {
			t.Fatalf("%d bytes: class %d of %d bytes, after class %d", n, c, size, last)
		}
		if _, again := class(size); again != size {
			t.Fatalf("class of %d bytes has %d", size, again)
		}
		last = c
	}
}

// TestBlocksApart: no two blocks overlap, what is handed out is counted, and large blocks that were freed are used for
// small ones.
func TestBlocksApart(t *testing.T) {
	a, err := newArena()
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	r := rand.New(rand.NewPCG(1, 2))
	type block struct {
		at   Ref
		n    int
		mark byte
	}
	var blocks []block
	var live uint64
	empty := a.live()
	alloc := func(n int) {
		_, size := class(n)
		b := block{a.alloc(n), n, byte(r.Uint32())}
		for i := range a.bytes(b.at, 0, size) {
			a.bytes(b.at, 0, size)[i] = b.mark
		}
		blocks, live = append(blocks, b), live+uint64(size)
	}
	free := func(i int) {
		b := blocks[i]
		_, size := class(b.n)
		for _, c := range a.bytes(b.at, 0, size) {
			if c != b.mark {
				t.Fatalf("a block of %d bytes was written to by another", b.n)
			}
		}
		a.release(b.at, b.n)
		blocks[i], live = blocks[len(blocks)-1], live-uint64(size)
		blocks = blocks[:len(blocks)-1]
	}
	for round := range 20 {
		for range 40 {
			alloc(1 + r.IntN(1<<(4+r.IntN(16))))
		}
		for range 1000 {
			if len(blocks) > 0 && r.IntN(2) == 0 {
				free(r.IntN(len(blocks)))
			} else {
				alloc(1 + r.IntN(3000))
			}
		}
		if a.live() != live+empty {
			t.Fatalf("round %d: %d bytes are counted, %d handed out", round, a.live()-empty, live)
		}
	}
	for len(blocks) > 0 {
		free(0)
	}
	alloc(1 << 20)
	free(0)
	before := a.next
	for range 200 {
		alloc(4 << 10)
	}
	if a.next != before {
		t.Errorf("%d bytes more were taken for small blocks while a large one was free", a.next-before)
	}
}
