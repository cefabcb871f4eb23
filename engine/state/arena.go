package state

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"github.com/weirstream/weir/internal/invariants"
)

// Ref is a place in an arena, counted in units of 16 bytes; 0 is none.
type Ref uint32

const (
	unitBits = 4
	unit     = 1 << unitBits
	// small blocks have a class for each number of units, larger ones eight classes for each power of two.
	smallUnits = 64
	numClasses = smallUnits + 8*26
)

// arena is the memory of a task's state: one range of addresses outside Go's heap, of which the front is in use. Freed
// blocks are kept in lists by size and used again. It is reserved at once and backed by memory as it is written to, so
// that a Ref is an offset, growing copies nothing, and the garbage collector has nothing to look at.
type arena struct {
	mem       []byte // as far as it is committed
	whole     []byte // the reserved range
	next      uint64 // bytes handed out from the front
	free      [numClasses]Ref
	freeBytes uint64
	// A large block that was freed and that no other of its size was wanted for is cut up from the front: tables leave such
	// blocks behind when they grow.
	cut, cutEnd uint64
	large       uint64 // bytes in free blocks of at least cutUnits
}

// cutUnits is from which size on free blocks may be cut up.
const cutUnits = 64 << 10 >> unitBits

// commitStep is how much memory is made accessible at a time.
const commitStep = 1 << 20

func newArena() (*arena, error) {
	whole, err := reserve(1 << (32 + unitBits))
	if err != nil {
		return nil, err
	}
	// Refs 0 and 1 are none and ghost: the first units are never handed out.
	return &arena{whole: whole, next: 2 * unit}, nil
}

func (a *arena) close() {
	release(a.whole)
	a.whole, a.mem = nil, nil
}

// live is how many bytes are handed out and not freed.
func (a *arena) live() uint64 { return a.next - a.freeBytes }

// class is the size class for n bytes and its size in bytes.
func class(n int) (c int, size int) {
	u := (n + unit - 1) >> unitBits
	if u <= smallUnits {
		u = max(u, 1)
		return u - 1, u << unitBits
	}
	// u-1 has the form 1xyz...: the three bits behind the first choose the class, sizes are rounded up to the next.
	shift := bits.Len(uint(u-1)) - 4
	step := (u-1)>>shift + 1 // 9 to 16
	return smallUnits + (shift-3)*8 + step - 9, step << shift << unitBits
}

// alloc returns a block of at least n bytes; what it holds is undefined.
func (a *arena) alloc(n int) Ref {
	c, size := class(n)
	if r := a.free[c]; r != 0 {
		a.free[c] = Ref(binary.LittleEndian.Uint32(a.at(r)))
		a.freeBytes -= uint64(size)
		if size >= cutUnits<<unitBits {
			a.large -= uint64(size)
		}
		return r
	}
	if size < cutUnits<<unitBits {
		if a.cutEnd-a.cut < uint64(size) && a.large > 0 {
			a.cutUp()
		}
		if a.cutEnd-a.cut >= uint64(size) {
			r := Ref(a.cut >> unitBits)
			a.cut += uint64(size)
			a.freeBytes -= uint64(size)
			return r
		}
	}
	at := a.next
	a.next += uint64(size)
	if a.next > uint64(len(a.mem)) {
		a.commit()
	}
	return Ref(at >> unitBits)
}

// cutUp takes the largest free block to be cut up. What is left of the last one becomes blocks of its own.
func (a *arena) cutUp() {
	for a.cut < a.cutEnd {
		units := min(int((a.cutEnd-a.cut)>>unitBits), smallUnits)
		a.push(Ref(a.cut>>unitBits), units-1)
		a.cut += uint64(units) << unitBits
	}
	first, _ := class(cutUnits << unitBits)
	for c := numClasses - 1; c >= first; c-- {
		if r := a.free[c]; r != 0 {
			size := classSize(c)
			a.free[c] = Ref(binary.LittleEndian.Uint32(a.at(r)))
			a.large -= uint64(size)
			a.cut = uint64(r) << unitBits
			a.cutEnd = a.cut + uint64(size)
			return
		}
	}
}

func (a *arena) push(r Ref, c int) {
	binary.LittleEndian.PutUint32(a.at(r), uint32(a.free[c]))
	a.free[c] = r
}

// classSize is the size of the blocks of a class.
func classSize(c int) int {
	if c < smallUnits {
		return (c + 1) << unitBits
	}
	shift, step := (c-smallUnits)/8+3, (c-smallUnits)%8+9
	return step << shift << unitBits
}

func (a *arena) commit() {
	want := min((a.next+max(commitStep, a.next/8)+commitStep-1)&^(commitStep-1), uint64(len(a.whole)))
	if a.next > want {
		panic("state: a task's state takes more than its range of addresses")
	}
	commit(a.whole[len(a.mem):want])
	a.mem = a.whole[:want]
}

// release gives a block of n bytes back.
func (a *arena) release(r Ref, n int) {
	c, size := class(n)
	a.push(r, c)
	a.freeBytes += uint64(size)
	if size >= cutUnits<<unitBits {
		a.large += uint64(size)
	}
	invariants.Poison(a.bytes(r, 4, size-4))
}

// at is the memory from r on.
func (a *arena) at(r Ref) []byte { return a.mem[uint64(r)<<unitBits:] }

// bytes are n bytes at offset off of the block r.
func (a *arena) bytes(r Ref, off, n int) []byte {
	p := uint64(r)<<unitBits + uint64(off)
	return a.mem[p : p+uint64(n) : p+uint64(n)]
}

// words is the block as slots of a hash table. Blocks are aligned to 16 bytes and arenas to pages.
func (a *arena) words(r Ref, n int) []uint64 {
	b := a.bytes(r, 0, n*8)
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

func (a *arena) u32(r Ref, off int) uint32 { return binary.LittleEndian.Uint32(a.bytes(r, off, 4)) }
func (a *arena) setU32(r Ref, off int, v uint32) {
	binary.LittleEndian.PutUint32(a.bytes(r, off, 4), v)
}
