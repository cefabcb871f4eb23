package state

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// addLog is the changes of bags that take retractions since the last checkpoint, in the order in which they came. It grows
// by chunks, which are used again, so that nothing is moved; a delta's records lie in one, too. An add is
//
//	u32 length of the record's key | u32 length of the row | i32 weight | record key, without the checkpoint | row
//
// A row of a bag that takes retractions has one add in a checkpoint: what comes later changes its weight, and one of
// weight 0 says nothing.
type addLog struct {
	chunks [][]byte
	used   int // chunks in use; the last of them is written to
	bytes  int
}

const (
	addHeader    = 12
	addKeyLen    = 0
	addRowLen    = 4
	addWeight    = 8
	logChunkBits = 20
	logChunk     = 1 << logChunkBits
)

// place of an add: the chunk's number, and where in it.
type addPlace struct{ chunk, off uint32 }

func (l *addLog) reset() {
	for i := range l.used {
		l.chunks[i] = l.chunks[i][:0]
	}
	if spare := 2*l.used + 8; len(l.chunks) > spare { // they were needed once
		clear(l.chunks[spare:])
		l.chunks = l.chunks[:spare]
	}
	l.used, l.bytes = 0, 0
}

// room returns a chunk that takes n more bytes. An add that is longer than a chunk has one of its own.
func (l *addLog) room(n int) int {
	if l.used > 0 {
		if c := l.chunks[l.used-1]; cap(c)-len(c) >= n {
			return l.used - 1
		}
	}
	if l.used == len(l.chunks) {
		l.chunks = append(l.chunks, nil)
	}
	if cap(l.chunks[l.used]) < n {
		l.chunks[l.used] = make([]byte, 0, max(n, logChunk))
	}
	l.used++
	return l.used - 1
}

// append adds an add; key appends the bytes of the record's key, which are n.
func (l *addLog) append(prefix [recordPrefix]byte, key, r []byte, w int32) addPlace {
	n := addHeader + recordPrefix + len(key) + len(r)
	i := l.room(n)
	c := l.chunks[i]
	at := len(c)
	c = c[:at+n]
	binary.LittleEndian.PutUint32(c[at+addKeyLen:], uint32(recordPrefix+len(key)))
	binary.LittleEndian.PutUint32(c[at+addRowLen:], uint32(len(r)))
	binary.LittleEndian.PutUint32(c[at+addWeight:], uint32(w))
	copy(c[at+addHeader:], prefix[:])
	copy(c[at+addHeader+recordPrefix:], key)
	copy(c[at+addHeader+recordPrefix+len(key):], r)
	l.chunks[i] = c
	l.bytes += n
	return addPlace{uint32(i), uint32(at)}
}

// change adds w to the weight of an add.
func (l *addLog) change(p addPlace, w int32) {
	b := l.chunks[p.chunk][p.off+addWeight:]
	binary.LittleEndian.PutUint32(b, uint32(int32(binary.LittleEndian.Uint32(b))+w))
}

func (l *addLog) key(p addPlace) []byte {
	c := l.chunks[p.chunk][p.off:]
	return c[addHeader : addHeader+binary.LittleEndian.Uint32(c)]
}

// value is the add's weight, the length of its row and the row: a piece of a bag's value.
func (l *addLog) appendValue(dst []byte, p addPlace) []byte {
	c := l.chunks[p.chunk][p.off:]
	k, n := binary.LittleEndian.Uint32(c), binary.LittleEndian.Uint32(c[addRowLen:])
	dst = append(dst, c[addWeight:addWeight+4]...)
	dst = binary.LittleEndian.AppendUint32(dst, n)
	return append(dst, c[addHeader+k:addHeader+k+n]...)
}

// sortKey is the first 16 bytes of a record's key, by which most comparisons are decided without a look at it.
type sortKey struct {
	hi, lo uint64
	addPlace
}

func keyPrefix(k []byte) (hi, lo uint64) {
	if len(k) >= 16 {
		return binary.BigEndian.Uint64(k), binary.BigEndian.Uint64(k[8:])
	}
	var b [16]byte
	copy(b[:], k)
	return binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])
}

// list appends the adds that say something, in their order.
func (l *addLog) list(order []sortKey) []sortKey {
	for i := range l.used {
		c := l.chunks[i]
		for p := 0; p < len(c); {
			k, n := binary.LittleEndian.Uint32(c[p:]), binary.LittleEndian.Uint32(c[p+addRowLen:])
			if binary.LittleEndian.Uint32(c[p+addWeight:]) != 0 {
				s := sortKey{addPlace: addPlace{uint32(i), uint32(p)}}
				s.hi, s.lo = keyPrefix(c[p+addHeader : p+addHeader+int(k)])
				order = append(order, s)
			}
			p += addHeader + int(k+n)
		}
	}
	return order
}

// sortByKey sorts by the prefixes and, where they are equal, as rest says; what is equal stays in its order. The top 16
// bits are those of a hash: many keys are counted by them first, into spare, and what is left is short runs. It returns
// what is sorted, and the other of the two.
func sortByKey(order, spare []sortKey, rest func(x, y sortKey) int) (sorted, other []sortKey) {
	compare := func(x, y sortKey) int {
		switch {
		case x.hi != y.hi:
			return cmp.Compare(x.hi, y.hi)
		case x.lo != y.lo:
			return cmp.Compare(x.lo, y.lo)
		}
		return rest(x, y)
	}
	if len(order) < 1<<14 {
		slices.SortStableFunc(order, compare)
		return order, spare
	}
	var ends [1 << 16]uint32
	for i := range order {
		ends[order[i].hi>>48]++
	}
	sum := uint32(0)
	for i, n := range ends {
		ends[i] = sum
		sum += n
	}
	if cap(spare) < len(order) {
		spare = make([]sortKey, len(order)+len(order)/8)
	}
	spare = spare[:len(order)]
	for _, s := range order {
		at := &ends[s.hi>>48]
		spare[*at] = s
		*at++
	}
	begin := uint32(0)
	for _, end := range ends {
		if end-begin > 1 {
			slices.SortStableFunc(spare[begin:end], compare)
		}
		begin = end
	}
	return spare, order[:0]
}
