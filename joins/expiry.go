package joins

import (
	"encoding/binary"
	"fmt"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// expiry lets the rows of keys go that nothing has touched for some time, which is what STATE_TTL asks for. The join
// forgets them: what they gave stays given, and what comes later does not meet them.
//
// Time is that of barriers, in buckets. A key's bucket is a row of a state of its own beside the rows: that state stays in
// memory as long as the key does, for every barrier goes through a slice of it.
//
// A retraction of a row that is gone must not take anything back: what it would meet may be another row than those which
// its row once met. Whether a row is gone is known when the epoch's inserts are there, so retractions wait for the
// barrier, and then are taken one by one.
type expiry struct {
	index   *Index
	store   *state.Store
	bucket  int64 // µs
	keep    int64 // buckets that a key stays behind the one in which it was touched last
	now     int64 // the bucket
	clock   int64 // of the last barrier
	touched *state.Bag
	refs    []state.Ref
	waiting []*row.Builder
	spare   []*row.Builder
	first   int // the range of the top 16 bits of hashes that the task owns
	behind  int
	next    int // the first of them that the sweep comes to next
	gone    []state.Ref
	row     [8]byte
}

// bucketsOfTTL is in how many steps time goes on until a key expires: it stays up to one step longer than asked.
const bucketsOfTTL = 8

func newExpiry(task dataflow.Task, x *Index) (*expiry, error) {
	e := &expiry{index: x, store: task.State(), bucket: max(x.o.TTL/bucketsOfTTL, 1), clock: task.Clock()}
	e.keep, e.now = max(x.o.TTL/e.bucket, 1), e.clock/e.bucket
	from := func(i int) int { return (i<<16 + task.Count() - 1) / task.Count() }
	e.first, e.behind = from(task.Index()), from(task.Index()+1)
	e.next = e.first
	var err error
	if e.touched, err = task.State().Bag(x.o.Name+"/touched", x.o.Codec, true); err != nil {
		return nil, err
	}
	e.touched.Keys().KeepResident()
	return e, nil
}

// hold keeps the retractions of a delta for the barrier.
func (e *expiry) hold(d *delta) {
	took := false
	x := e.index
	x.keyed, x.keyless = x.keyed[:0], x.keyless[:0]
	for k := range d.Rows() {
		i := d.At(k)
		if d.Weight(i) < 0 {
			x.keyless = append(x.keyless, int32(i))
			took = true
		} else {
			x.keyed = append(x.keyed, int32(i))
		}
	}
	if !took {
		return
	}
	n := len(e.waiting)
	if n == 0 || e.waiting[n-1].Len+len(x.keyless) > row.MaxBatch {
		var to *row.Builder
		if k := len(e.spare); k > 0 {
			to, e.spare = e.spare[k-1], e.spare[:k-1]
		} else {
			to = row.NewBuilder(x.o.Input)
		}
		to.Reset()
		e.waiting = append(e.waiting, to)
		n++
	}
	e.waiting[n-1].Append(&d.Batch, x.keyless)
	if d.Sel = x.keyed; len(x.keyed) == 0 {
		d.Batch = row.Batch{}
	}
}

// touch notes that the keys of a delta are in use.
func (e *expiry) touch(d *delta) error {
	e.refs = grow(e.refs, d.Len)
	if err := e.touched.Keys().FindOrAdd(&d.keys, &d.Batch, e.refs); err != nil {
		return err
	}
	for k := range d.Rows() {
		i := d.At(k)
		ref, hash := e.refs[i], d.keys.Hash[i]
		if n := e.touched.First(ref); n != 0 {
			was := e.touched.Row(n)
			if bucketOf(was) >= e.now {
				continue
			}
			copy(e.row[:], was)
			if err := e.touched.Add(ref, hash, e.row[:], -1); err != nil {
				return err
			}
		}
		binary.BigEndian.PutUint64(e.row[:], uint64(e.now))
		if err := e.touched.Add(ref, hash, e.row[:], 1); err != nil {
			return err
		}
	}
	return nil
}

func bucketOf(r []byte) int64 { return int64(binary.BigEndian.Uint64(r)) }

// barrier takes the retractions that have waited, and goes through a slice of the keys.
func (e *expiry) barrier(clock int64) error {
	for _, w := range e.waiting {
		if err := e.retract(w.Seal()); err != nil {
			return err
		}
		e.spare = append(e.spare, w)
	}
	e.waiting = e.waiting[:0]
	// All keys in the time of a bucket.
	slice := e.behind - e.first
	if passed := clock - e.clock; passed < e.bucket {
		slice = int(int64(slice) * max(passed, 0) / e.bucket)
	}
	e.clock, e.now = max(e.clock, clock), max(e.now, clock/e.bucket)
	for slice > 0 && e.behind > e.first {
		n, err := e.sweep(slice)
		if err != nil {
			return fmt.Errorf("index %s: expire: %w", e.index.o.Name, err)
		}
		slice -= n
	}
	return nil
}

// retract takes rows out one by one, each as often as it is there.
func (e *expiry) retract(b *row.Batch) error {
	x := e.index
	sel := make([]int32, 1)
	for i := range b.Len {
		d := &x.delta
		d.Batch = *b
		sel[0] = int32(i)
		d.Sel = sel
		x.o.Codec.Hash(&d.keys, &d.Batch, x.o.Key)
		d.refs = grow(d.refs, d.Len)
		if err := x.bag.Keys().Find(&d.keys, &d.Batch, d.refs); err != nil {
			return fmt.Errorf("index %s: find the keys: %w", x.o.Name, err)
		}
		if d.refs[i] == 0 {
			continue
		}
		x.encode()
		n := x.bag.Find(d.refs[i], d.keys.Hash[i], d.bytes(int32(i)))
		if n == 0 {
			continue
		}
		b.Weights[i] = max(b.Weights[i], -x.bag.Weight(n))
		if err := x.pass(); err != nil {
			return err
		}
	}
	return nil
}

// sweep lets the expired keys go whose hashes begin with the bits that come next, up to n of them, all of one key group.
// It returns how many it went through.
func (e *expiry) sweep(n int) (int, error) {
	group := e.store.GroupOf(uint64(e.next) << 48)
	to := e.next
	for to < e.behind && to-e.next < n && e.store.GroupOf(uint64(to)<<48) == group {
		if err := e.touched.Load(uint16(to)); err != nil {
			return 0, err
		}
		to++
	}
	e.gone = e.gone[:0]
	keys := e.touched.Keys()
	err := keys.Group(group, func(r state.Ref) error {
		if top := int(keys.Hash(r) >> 48); top < e.next || top >= to {
			return nil
		}
		if n := e.touched.First(r); n != 0 && bucketOf(e.touched.Row(n)) < e.now-e.keep {
			e.gone = append(e.gone, r)
		}
		return nil
	})
	for _, r := range e.gone {
		if err == nil {
			err = e.forget(r)
		}
	}
	n = to - e.next
	if e.next = to; e.next >= e.behind {
		e.next = e.first
	}
	return n, err
}

// forget takes a key's rows out, without a word to any join.
func (e *expiry) forget(r state.Ref) error {
	x, hash := e.index, e.touched.Keys().Hash(r)
	ref, err := x.bag.Keys().FindEntry(e.touched.Keys(), r)
	if err != nil {
		return err
	}
	if ref != 0 {
		for n := x.bag.First(ref); n != 0; n = x.bag.First(ref) {
			x.delta.heap = append(x.delta.heap[:0], x.bag.Row(n)...)
			if err := x.bag.Add(ref, hash, x.delta.heap, -x.bag.Weight(n)); err != nil {
				return err
			}
		}
	}
	copy(e.row[:], e.touched.Row(e.touched.First(r)))
	return e.touched.Add(r, hash, e.row[:], -1)
}
