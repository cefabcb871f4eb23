package joins

import (
	"errors"
	"fmt"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// StarOptions describes a Star.
type StarOptions struct {
	// Inputs are two or more different indexes of the same task with codecs of the same types.
	Inputs []*Index
	// Left tells of each input whether it is joined by LEFT JOIN onto the first, so that NULLs stand for it where it has
	// no row of the key; nil if none is. The first never is.
	Left []bool
	// Output are the columns that it emits.
	Output []Column
}

// Star joins any number of indexes on one key, and keeps nothing besides: where a chain of joins has the rows of each
// step in an index of its own, a star goes from a delta to all other inputs at once.
//
// The join is a product P of the inputs' rows of a key, X0 · X1 · … · Xn, linear in each of them. When input i changes by
// d, P changes by X0 · … · d · … · Xn, with all others as they stand. Indexes handle one delta at a time and no index
// stands twice in a star, so every delta meets the others either before or after any other delta is applied, never in
// between, and the changes add up to P after all of them minus P before: the order in which they came decides which of
// two deltas contributes their product, the later one, and nothing else. (An index that stood twice would change two
// factors at once, of which each would need the other at another time than the rest.)
//
// An input that is joined by LEFT JOIN stands in the product as X' = X, or the NULL row if X is empty. That is no sum of
// what deltas add, so a star with such an input speaks at the barrier, of the keys that changed. There the same argument
// is used for one key and the whole epoch: let the inputs change one after the other in their order. When it is input
// i's turn, those before it are as they are now, those behind it as they were, and its own change is that of its rows,
// and of the NULL row where it became empty or ceased to be. What an input was is what it is and the negative of what the
// epoch changed.
type Star struct {
	o       StarOptions
	tuples  *tuples
	left    bool // some input is
	refs    [][]state.Ref
	cursors []cursor
	nulls   nulls
	without row.Batch
}

// NewStar attaches a join to its indexes. The order in which joins are made is that of NewRegular. It has no state.
func NewStar(out dataflow.Emitter, o StarOptions) (*Star, error) {
	j := &Star{o: o, refs: make([][]state.Ref, len(o.Inputs)), cursors: make([]cursor, len(o.Inputs))}
	if len(o.Inputs) < 2 || o.Left != nil && (len(o.Left) != len(o.Inputs) || o.Left[0]) {
		return nil, fmt.Errorf("star join of %d inputs, of which %v by LEFT JOIN", len(o.Inputs), o.Left)
	}
	if err := sameKeys(o.Inputs); err != nil {
		return nil, fmt.Errorf("star join: %w", err)
	}
	for i, x := range o.Inputs {
		j.left = j.left || o.Left != nil && o.Left[i]
		if x.expiry != nil && o.Left != nil {
			return nil, fmt.Errorf("star join: only inner joins may forget rows")
		}
		for _, other := range o.Inputs[:i] {
			if x == other {
				return nil, fmt.Errorf("star join: index %s stands in it twice", x.o.Name)
			}
		}
	}
	var err error
	if j.tuples, err = newTuples(out, o.Inputs, o.Output, nil, nil); err != nil {
		return nil, err
	}
	j.without.Cols = make([]*row.Vector, len(o.Output))
	for i, x := range o.Inputs {
		if j.left {
			x.track(true)
		}
		x.attach(&ray{j, i}, false)
	}
	return j, nil
}

// ray is a star's port at one of its indexes.
type ray struct {
	join  *Star
	input int
}

func (r *ray) matched(d *delta) error {
	if r.join.left {
		return nil
	}
	return r.join.matched(r.input, d)
}

func (r *ray) unmatched(b *row.Batch) error {
	j := r.join
	if r.input != 0 {
		return nil
	}
	for i := range j.o.Inputs[1:] {
		if j.o.Left == nil || !j.o.Left[i+1] {
			return nil
		}
	}
	return emitUnmatched(j.tuples, &j.without, &j.nulls, 0, b)
}

// matched emits a delta times all other inputs.
func (j *Star) matched(input int, d *delta) error {
	for i, x := range j.o.Inputs {
		if i == input {
			continue
		}
		j.refs[i] = grow(j.refs[i], d.Len)
		if err := x.bag.Keys().Find(&d.keys, &d.Batch, j.refs[i]); err != nil {
			return fmt.Errorf("star join: probe index %s: %w", x.o.Name, err)
		}
	}
	t := j.tuples
	t.begin(input, d)
rows:
	for k := range d.Rows() {
		at := d.At(k)
		for i, x := range j.o.Inputs {
			if i == input {
				continue
			}
			ref := j.refs[i][at]
			if j.cursors[i] = (cursor{bag: x.bag, first: x.bag.First(ref)}); j.cursors[i].first == 0 {
				continue rows
			}
		}
		j.cursors[input] = cursor{fixed: d.Weight(at)}
		if err := j.product(int32(at)); err != nil {
			return err
		}
	}
	return t.emit()
}

// product adds the combinations of the cursors' rows. at is the place of the delta's row, if there is a delta.
func (j *Star) product(at int32) error {
	t, n := j.tuples, len(j.cursors)
	for i := range j.cursors {
		if !j.cursors[i].rewind() {
			return nil
		}
	}
	for {
		if t.full() {
			if err := t.emit(); err != nil {
				return err
			}
		}
		w := int64(1)
		for i := range j.cursors {
			c := &j.cursors[i]
			w *= c.weight
			if i == t.from {
				t.at = append(t.at, at)
			} else {
				t.rows[i] = append(t.rows[i], c.row)
			}
		}
		t.weights = append(t.weights, w)
		// The last input goes on; one that is at its end begins anew and lets the one before it go on.
		i := n - 1
		for ; i >= 0 && !j.cursors[i].next(); i-- {
			j.cursors[i].rewind()
		}
		if i < 0 {
			return nil
		}
	}
}

// Process is never called: what a join gets, it gets from its indexes.
func (j *Star) Process(int, *row.Batch) error {
	return errors.New("a join has no input beside its indexes")
}

// Barrier emits what the epoch changed, if an input is joined by LEFT JOIN.
func (j *Star) Barrier(e dataflow.Epoch) error {
	if !j.left {
		return nil
	}
	j.tuples.begin(-1, nil)
	for i := range j.o.Inputs {
		if err := j.barrier(i, e.N); err != nil {
			return err
		}
	}
	return j.tuples.emit()
}

// barrier goes through the keys that an input changed and none before it.
func (j *Star) barrier(input int, epoch uint64) error {
	c := j.o.Inputs[input].changes.of(epoch)
	if c == nil {
		return nil
	}
	for from := 0; from < len(c.refs); from += row.MaxBatch {
		to := min(from+row.MaxBatch, len(c.refs))
		keys, batch := c.slice(from, to)
		for i, x := range j.o.Inputs {
			j.refs[i] = grow(j.refs[i], to-from)
			if err := x.bag.Keys().Find(keys, batch, j.refs[i]); err != nil {
				return fmt.Errorf("star join: probe index %s: %w", x.o.Name, err)
			}
		}
	keys:
		for n := range to - from {
			for i, x := range j.o.Inputs[:input] {
				if earlier := x.changes.of(epoch); earlier != nil && j.refs[i][n] != 0 && earlier.find(j.refs[i][n]) >= 0 {
					continue keys
				}
			}
			if err := j.key(n, epoch); err != nil {
				return err
			}
		}
	}
	return nil
}

// key emits what the epoch changed in the product of a key, whose entries are the n-th refs.
func (j *Star) key(n int, epoch uint64) error {
	for i, x := range j.o.Inputs {
		changes, ref := x.changes.of(epoch), j.refs[i][n]
		if changes == nil || ref == 0 || changes.find(ref) < 0 {
			continue
		}
		for k, y := range j.o.Inputs {
			j.cursors[k] = j.at(k, y, j.refs[k][n], epoch, k-i)
		}
		if err := j.product(0); err != nil {
			return err
		}
	}
	return nil
}

// at is the factor of an input in its key's product: as it is when the sign is below 0, as it was when it is above, and
// what changed when it is 0.
func (j *Star) at(input int, x *Index, ref state.Ref, epoch uint64, sign int) cursor {
	c := cursor{bag: x.bag, null: x.null, changed: -1}
	changes, at := x.changes.of(epoch), -1
	if changes != nil && ref != 0 {
		at = changes.find(ref)
	}
	if at >= 0 && sign >= 0 {
		c.changes, c.changed, c.times = changes, changes.first[at], 1
	}
	if sign > 0 {
		c.times = -1
	}
	if sign != 0 {
		c.first = x.bag.First(ref)
	}
	if j.o.Left[input] {
		now := x.bag.Sum(ref)
		if sign <= 0 && now == 0 {
			c.nulls++
		}
		if before := changes.sum(ref, now); before == 0 {
			switch {
			case sign > 0: // it had no row: what there is came with the epoch
				c.nulls, c.first, c.changed = 1, 0, -1
			case sign == 0:
				c.nulls--
			}
		}
	}
	return c
}
