package joins

import (
	"errors"
	"fmt"
	"slices"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// Kind is what a join does with rows that match and rows that do not.
type Kind uint8

// The kinds. Left, Right and Full preserve the rows of a side, or both, with NULLs in place of the other's columns where
// nothing matches. Semi gives the left rows that match something, Anti those that match nothing, Mark all of them with
// MarkColumn.
const (
	Inner Kind = iota + 1
	Left
	Right
	Full
	Semi
	Anti
	Mark
)

// MarkColumn stands among the Output of a Mark join: a BOOLEAN that tells whether the left row matches something.
var MarkColumn = Column{Input: -1}

// Options describes a Regular.
type Options struct {
	// Name begins the names of its states, which it has only if it has a Condition and is not Inner: see States.
	Name string
	Kind Kind
	// Left and Right are indexes of the same task (Task.Peer), made with codecs of the same types. For a self-join they
	// may be the same. A join is made after every join whose rows come to one of its indexes, which is so where operators
	// are made in the graph's order.
	Left, Right *Index
	// Output are the columns that it emits. Those of Semi, Anti and Mark are the left side's.
	Output []Column
	// Condition may be nil. It gets batches of the columns Tested.
	Condition Condition
	Tested    []Column
}

// States are the names of the states that a join of that name and kind opens besides its indexes.
func States(name string, kind Kind, condition bool) []string {
	var names []string
	for side, suffix := range [2]string{"/left", "/right"} {
		if condition && kind.counts(side) {
			names = append(names, name+suffix)
		}
	}
	return names
}

// counts tells whether what the join does with a row of a side depends on how many match it.
func (k Kind) counts(side int) bool {
	switch k {
	case Left, Semi, Anti, Mark:
		return side == 0
	case Right:
		return side == 1
	}
	return k == Full
}

// Regular joins two indexes. It has no input of its own.
//
// Matched pairs are emitted on arrival: the delta of one side times the other side, weights multiplied, so that a
// retraction takes back exactly the pairs that its row once made. Everything else depends on whether a row matches
// nothing or something, which only holds at the barrier, where the change of the epoch is emitted.
//
// Without a Condition all rows of a key match the same, so the sum of the other side's weights before and after the
// epoch decides for the key as a whole (barrierByKey). With one, the matches of each row are counted: for each side that
// depends on them the join keeps a bag that has, under the key, each row with the sum of the weights of its pairs. That
// is the projection of the pairs to the side, and like them a sum of what the deltas add: a row that goes away takes its
// matches along without anybody looking for them, and a row is without a match exactly if it is not in the bag
// (barrierByRow).
type Regular struct {
	o       Options
	inputs  [2]*Index
	tuples  *tuples
	given   []bool        // what rows are given by themselves: those with a match, those without
	emits   bool          // pairs go out
	counted [2]*state.Bag // by side: the weights of each row's pairs
	touched [2]*touched   // of the counted sides
	numbers []int32       // of the delta's rows, in the touched of its side
	refs    []state.Ref   // the other side's entries of the delta's keys
	probe   keys          // at the barrier
	nulls   nulls
	without row.Batch
}

// keys are looked up at the barrier.
type keys struct {
	row.Keys
	sel, rest []int32
}

// NewRegular attaches a join to its indexes.
func NewRegular(task dataflow.Task, out dataflow.Emitter, o Options) (*Regular, error) {
	j := &Regular{o: o, inputs: [2]*Index{o.Left, o.Right}}
	if o.Kind < Inner || o.Kind > Mark {
		return nil, fmt.Errorf("join %s: kind %d", o.Name, o.Kind)
	}
	if err := sameKeys(j.inputs[:]); err != nil {
		return nil, fmt.Errorf("join %s: %w", o.Name, err)
	}
	if o.Kind != Inner && (o.Left.expiry != nil || o.Right.expiry != nil) {
		return nil, fmt.Errorf("join %s: only an inner join may forget rows", o.Name)
	}
	var err error
	if j.tuples, err = newTuples(out, j.inputs[:], o.Output, o.Condition, o.Tested); err != nil {
		return nil, err
	}
	switch j.emits = o.Kind < Semi; o.Kind {
	case Semi:
		j.given = []bool{true}
	case Mark:
		j.given = []bool{true, false}
	default:
		j.given = []bool{false}
	}
	if !j.emits {
		for _, c := range o.Output {
			if c.Input != 0 && (o.Kind != Mark || c != MarkColumn) {
				return nil, fmt.Errorf("join %s: a semi, anti or mark join has no columns of the right side", o.Name)
			}
		}
	}
	j.without.Cols = make([]*row.Vector, len(o.Output))
	states := States(o.Name, o.Kind, o.Condition != nil)
	for side, x := range j.inputs {
		switch {
		case !o.Kind.counts(side):
		case o.Condition == nil:
			x.track(true)
			j.inputs[1-side].track(false)
		case !x.o.Retract:
			return nil, fmt.Errorf("join %s: index %s does not take retractions, which a condition needs", o.Name, x.o.Name)
		default:
			if j.counted[side], err = task.State().Bag(states[0], x.o.Codec, true); err != nil {
				return nil, err
			}
			j.touched[side], states = &touched{}, states[1:]
		}
	}
	o.Left.attach(&end{j, 0}, false)
	o.Right.attach(&end{j, 1}, o.Left == o.Right)
	return j, nil
}

// sameKeys tells whether the indexes can be matched by the bytes of their keys.
func sameKeys(inputs []*Index) error {
	first := inputs[0].o
	for _, x := range inputs[1:] {
		if a, b := first.Codec, x.o.Codec; a.IntKey() != b.IntKey() || !slices.EqualFunc(a.Columns(), b.Columns(), sameKey) || first.NullsMatch != x.o.NullsMatch {
			return fmt.Errorf("the keys of indexes %s and %s have different types", first.Name, x.o.Name)
		}
	}
	return nil
}

func sameKey(a, b row.KeyColumn) bool {
	return a.Type.Same(b.Type) && a.Desc == b.Desc && a.NullsLast == b.NullsLast
}

// end is a join's port at one of its indexes.
type end struct {
	join *Regular
	side int
}

func (e *end) matched(d *delta) error       { return e.join.matched(e.side, d) }
func (e *end) unmatched(b *row.Batch) error { return e.join.unmatched(e.side, b) }

// matched pairs a side's delta with the other side.
func (j *Regular) matched(side int, d *delta) error {
	if !j.emits && j.o.Condition == nil {
		return nil
	}
	other := 1 - side
	bag, t := j.inputs[other].bag, j.tuples
	j.refs = grow(j.refs, d.Len)
	if err := bag.Keys().Find(&d.keys, &d.Batch, j.refs); err != nil {
		return fmt.Errorf("join %s: probe index %s: %w", j.o.Name, j.inputs[other].o.Name, err)
	}
	if own := j.touched[side]; own != nil {
		j.numbers = grow(j.numbers, d.Len)
		for k := range d.Rows() {
			i := d.At(k)
			n := own.find(d.refs[i], d.keys.Hash[i], d.bytes(int32(i)))
			own.rows[n].weight += d.Weight(i)
			j.numbers[i] = int32(n)
		}
	}
	bag.Near(&d.Batch, j.refs)
	t.begin(side, d)
	for k := range d.Rows() {
		i := d.At(k)
		w := d.Weight(i)
		for n := bag.First(j.refs[i]); n != 0; n = bag.Next(n) {
			if t.full() {
				if err := j.flush(false); err != nil {
					return err
				}
			}
			t.at = append(t.at, int32(i))
			t.rows[other] = append(t.rows[other], bag.Row(n))
			t.weights = append(t.weights, w*bag.Weight(n))
		}
	}
	return j.flush(true)
}

// flush tests the pairs, counts them, and emits them when there are enough, or all if no more come.
func (j *Regular) flush(all bool) error {
	t := j.tuples
	first := t.passed
	if err := t.test(); err != nil {
		return fmt.Errorf("join %s: condition: %w", j.o.Name, err)
	}
	own, other := t.from, 1-t.from
	if c := j.touched[own]; c != nil {
		for k := first; k < t.passed; k++ {
			c.rows[j.numbers[t.at[k]]].matches += t.weights[k]
		}
	}
	if c := j.touched[other]; c != nil {
		for k := first; k < t.passed; k++ {
			i := t.at[k]
			c.rows[c.find(j.refs[i], t.delta.keys.Hash[i], t.rows[other][k])].matches += t.weights[k]
		}
	}
	switch {
	case !j.emits:
		t.clear()
	case all || t.passed > row.MaxBatch/2:
		return t.emit()
	}
	return nil
}

// unmatched passes on rows with a NULL in the key, which match nothing, now or ever.
func (j *Regular) unmatched(side int, b *row.Batch) error {
	if j.o.Kind == Semi || !j.o.Kind.counts(side) {
		return nil
	}
	return emitUnmatched(j.tuples, &j.without, &j.nulls, side, b)
}

func emitUnmatched(t *tuples, out *row.Batch, nulls *nulls, input int, b *row.Batch) error {
	out.Len, out.Sel, out.Weights = b.Len, b.Sel, b.Weights
	for k, c := range t.output.cols {
		switch {
		case c == MarkColumn:
			out.Cols[k] = nulls.no(b.Len)
		case c.Input == input:
			out.Cols[k] = b.Cols[c.Column]
		default:
			out.Cols[k] = nulls.of(t.inputs[c.Input].o.Input[c.Column].Layout(), b.Len)
		}
	}
	return t.out.Emit(out)
}

// Process is never called: what a join gets, it gets from its indexes.
func (j *Regular) Process(int, *row.Batch) error {
	return errors.New("a join has no input beside its indexes")
}

// Barrier emits what the epoch changed of the rows without a match, and of a Semi join of those with one.
func (j *Regular) Barrier(e dataflow.Epoch) error {
	j.tuples.clock = e.Clock
	for side := range j.inputs {
		var err error
		switch {
		case !j.o.Kind.counts(side):
		case j.counted[side] != nil:
			err = j.barrierByRow(side)
		default:
			err = j.barrierByKey(side, e.N)
		}
		if err != nil {
			return fmt.Errorf("join %s: %w", j.o.Name, err)
		}
	}
	return nil
}

// single adds a row of a side, beside which NULLs stand for the other, and of a Mark join whether it has a match.
func (j *Regular) single(side int, match bool, r []byte, w int64) error {
	t := j.tuples
	if t.full() {
		if err := t.emit(); err != nil {
			return err
		}
	}
	t.rows[side] = append(t.rows[side], r)
	t.rows[1-side] = append(t.rows[1-side], j.inputs[1-side].null)
	t.weights = append(t.weights, w)
	if j.o.Kind == Mark {
		m := int64(0)
		if match {
			m = 1
		}
		t.marks = append(t.marks, m)
	}
	return nil
}

// barrierByKey goes through the keys that changed on either side.
func (j *Regular) barrierByKey(side int, epoch uint64) error {
	own, other := j.inputs[side], j.inputs[1-side]
	changed, cause := own.changes.of(epoch), other.changes.of(epoch)
	j.tuples.begin(-1, nil)
	err := j.eachKey(changed, other, func(n int, ref state.Ref) error {
		now := other.bag.Sum(ref)
		return j.key(side, changed.refs[n], n, cause.sum(ref, now) != 0, now != 0)
	})
	if err != nil {
		return err
	}
	// What changed on both sides is done.
	err = j.eachKey(cause, own, func(n int, ref state.Ref) error {
		if ref == 0 || changed != nil && changed.find(ref) >= 0 {
			return nil
		}
		return j.key(side, ref, -1, cause.sums[n] != 0, other.bag.Sum(cause.refs[n]) != 0)
	})
	if err != nil {
		return err
	}
	return j.tuples.emit()
}

// eachKey calls f with the number of each changed key and its entry in x, 0 if it has none.
func (j *Regular) eachKey(c *changes, x *Index, f func(n int, ref state.Ref) error) error {
	if c == nil {
		return nil
	}
	for from := 0; from < len(c.refs); from += row.MaxBatch {
		to := min(from+row.MaxBatch, len(c.refs))
		keys, batch := c.slice(from, to)
		j.refs = grow(j.refs, to-from)
		if err := x.bag.Keys().Find(keys, batch, j.refs); err != nil {
			return fmt.Errorf("probe index %s: %w", x.o.Name, err)
		}
		for n := from; n < to; n++ {
			if err := f(n, j.refs[n-from]); err != nil {
				return err
			}
		}
	}
	return nil
}

// key gives the change of a key's rows of one side: the side's entry is ref and its number among the changed keys n, -1
// if it did not change; the key matched something before, and does now.
func (j *Regular) key(side int, ref state.Ref, n int, before, now bool) error {
	for _, match := range j.given {
		if err := j.keyGiven(side, ref, n, match, before == match, now == match); err != nil {
			return err
		}
	}
	return nil
}

// keyGiven is key for rows that have, or have not, a match: they were given before the epoch, and are now.
func (j *Regular) keyGiven(side int, ref state.Ref, n int, match, was, is bool) error {
	x := j.inputs[side]
	all, delta := int64(0), false
	switch {
	case was && is:
		delta = true
	case is:
		all = 1
	case was: // what there was before the epoch: what there is without what came
		all, delta = -1, true
	}
	if all != 0 {
		for r := x.bag.First(ref); r != 0; r = x.bag.Next(r) {
			if err := j.single(side, match, x.bag.Row(r), all*x.bag.Weight(r)); err != nil {
				return err
			}
		}
	}
	if !delta || n < 0 {
		return nil
	}
	for r := x.changes.first[n]; r >= 0; r = x.changes.rows[r].next {
		if err := j.single(side, match, x.changes.row(r), x.changes.rows[r].weight); err != nil {
			return err
		}
	}
	return nil
}

// barrierByRow goes through the rows of a side that changed, or whose matches did, brings their counts up to date, and
// gives the change of each.
func (j *Regular) barrierByRow(side int) error {
	x, counted, rows := j.inputs[side], j.counted[side], j.touched[side]
	j.tuples.begin(-1, nil)
	for from := 0; from < len(rows.rows); from += row.MaxBatch {
		to := min(from+row.MaxBatch, len(rows.rows))
		if err := j.findCounts(side, from, to); err != nil {
			return fmt.Errorf("state %s: %w", j.o.Name, err)
		}
		for n := from; n < to; n++ {
			t, r := &rows.rows[n], rows.row(n)
			ref := j.refs[n-from]
			before := int64(0)
			if c := counted.Find(ref, t.keyHash, r); c != 0 {
				before = counted.Weight(c)
			}
			if t.matches != 0 {
				if err := counted.Add(ref, t.keyHash, r, t.matches); err != nil {
					return err
				}
			}
			weight := int64(0)
			if c := x.bag.Find(t.key, t.keyHash, r); c != 0 {
				weight = x.bag.Weight(c)
			}
			for _, match := range j.given {
				w := int64(0)
				if match == (before+t.matches != 0) {
					w = weight
				}
				if match == (before != 0) {
					w -= weight - t.weight
				}
				if w == 0 {
					continue
				}
				if err := j.single(side, match, r, w); err != nil {
					return err
				}
			}
		}
	}
	err := j.tuples.emit()
	rows.reset()
	return err
}

// findCounts sets refs to the entries of some touched rows' keys among the counts. Entries are made only for rows that
// are about to be added: one without a row would never be taken away.
func (j *Regular) findCounts(side, from, to int) error {
	x, counted, rows := j.inputs[side], j.counted[side], j.touched[side].rows[from:to]
	k, ints := &j.probe, x.o.Codec.IntKey()
	k.Hash, k.Int, k.Spans, k.Heap, k.sel, k.rest = k.Hash[:0], k.Int[:0], k.Spans[:0], k.Heap[:0], k.sel[:0], k.rest[:0]
	for n := range rows {
		t := &rows[n]
		k.Hash = append(k.Hash, t.keyHash)
		if ints {
			k.Int = append(k.Int, x.bag.Keys().IntKey(t.key))
		} else {
			key := x.bag.Keys().Key(nil, t.key)
			k.Spans = append(k.Spans, row.Span{Off: uint32(len(k.Heap)), Len: uint32(len(key))})
			k.Heap = append(k.Heap, key...)
		}
		if t.matches != 0 {
			k.sel = append(k.sel, int32(n))
		} else {
			k.rest = append(k.rest, int32(n))
		}
	}
	j.refs = grow(j.refs, len(rows))
	if len(k.sel) > 0 {
		if err := counted.Keys().FindOrAdd(&k.Keys, &row.Batch{Len: len(rows), Sel: k.sel}, j.refs); err != nil {
			return err
		}
	}
	if len(k.rest) > 0 {
		return counted.Keys().Find(&k.Keys, &row.Batch{Len: len(rows), Sel: k.rest}, j.refs)
	}
	return nil
}
