package operator

import (
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// Cursor is how far a scan of a view's part has come; the zero value is its beginning.
type Cursor struct {
	group, part, parts int
	loaded             int // of the group's ranges of hash: how many are in memory
}

// Pin lets readers pin epochs: p tells which. It is called before the first row.
func (v *View) Pin(p *Pins) { v.undo.pins = p }

// defaultPartRows is about how many keys a scan reads before it asks whether that is enough.
const defaultPartRows = 1024

// Scan appends rows of the view as of a pinned epoch to out, from the cursor on, until enough says so: it is asked every
// thousand keys or so. It returns true behind the last row.
func (v *View) Scan(epoch uint64, c *Cursor, out *row.Builder, enough func(rows int) bool) (end bool, err error) {
	r := reader{view: v, out: out}
	for ; c.group < v.store.Groups(); c.group, c.part, c.parts, c.loaded = c.group+1, 0, 0, 0 {
		if c.parts == 0 {
			if ready, err := v.load(c, func() bool { return enough(len(r.rows)) }); err != nil || !ready {
				r.flush()
				return false, err
			}
			c.parts = 1
			for v.bag.Keys().GroupLen(c.group) > c.parts*v.partRows {
				c.parts *= 2
			}
		}
		for ; c.part < c.parts; c.part++ {
			if enough(len(r.rows)) {
				r.flush()
				return false, nil
			}
			if err := r.part(epoch, c); err != nil {
				return false, err
			}
		}
	}
	r.flush()
	return true, nil
}

// loadAtLeast is how many ranges of hash a slice loads, if there are any to load.
const loadAtLeast = 32

// load brings what the task owns of the cursor's group into memory, and says whether all of it is there.
func (v *View) load(c *Cursor, enough func() bool) (ready bool, err error) {
	if !v.bag.Keys().Below(c.group) {
		return true, nil
	}
	if v.loaded == nil {
		v.loaded = make([]uint64, 1<<16/64)
	}
	ranges, done := 1<<16/v.store.Groups(), 0
	for ; c.loaded < ranges; c.loaded++ {
		top := c.group*ranges + c.loaded
		if top < v.first || top >= v.behind || v.loaded[top>>6]&(1<<(top&63)) != 0 {
			continue
		}
		// A search for a few rows is most of the work, and done once: a slice does some of them whatever the time.
		if done++; done > loadAtLeast && enough() {
			return false, nil
		}
		if err := v.bag.Load(uint16(top)); err != nil {
			return false, err
		}
		v.loaded[top>>6] |= 1 << (top & 63)
	}
	return true, nil
}

// Lookup appends the rows of the keys, whose columns are KeyTypes, as of a pinned epoch to out.
func (v *View) Lookup(epoch uint64, keys *row.Batch, out *row.Builder) error {
	r := reader{view: v, out: out}
	cols := make([]int, len(v.spec.Key))
	for i := range cols {
		cols[i] = i
	}
	v.key.Hash(&v.keys, keys, cols)
	v.refs = grow(v.refs, keys.Len)
	if err := v.bag.Keys().Find(&v.keys, keys, v.refs); err != nil {
		return err
	}
	for k := range keys.Rows() {
		i := keys.At(k)
		v.scratch = v.key.Append(v.scratch[:0], keys, cols, i)
		old := v.undo.groups[v.store.GroupOf(v.keys.Hash[i])][string(v.scratch)].at(epoch)
		if old != nil {
			r.version(old)
			continue
		}
		r.key(v.refs[i])
	}
	r.flush()
	return nil
}

// KeyHash sets keys to those of a batch whose columns are KeyTypes. Any goroutine may ask.
func (v *View) KeyHash(keys *row.Keys, b *row.Batch) {
	cols := make([]int, len(b.Cols))
	for i := range cols {
		cols[i] = i
	}
	v.key.Hash(keys, b, cols)
}

// reader collects binary rows and decodes them column by column.
type reader struct {
	view    *View
	out     *row.Builder
	rows    [][]byte // the view's own memory
	weights []int64
}

func (r *reader) key(key state.Ref) {
	b := r.view.bag
	for n := b.First(key); n != 0; n = b.Next(n) {
		r.rows, r.weights = append(r.rows, b.Row(n)), append(r.weights, b.Weight(n))
	}
}

func (r *reader) version(v *version) {
	_ = v.each(func(w int64, b []byte) error {
		r.rows, r.weights = append(r.rows, b), append(r.weights, w)
		return nil
	})
}

// part reads the piece of the group at which the cursor stands.
func (r *reader) part(epoch uint64, c *Cursor) error {
	v := r.view
	m := v.bag.Keys()
	old := v.undo.groups[c.group]
	if err := m.Part(c.group, c.part, c.parts, func(key state.Ref) error {
		if len(old) > 0 {
			v.scratch = append(v.scratch[:0], m.Key(v.scratch[:0], key)...)
			if old[string(v.scratch)].at(epoch) != nil {
				return nil
			}
		}
		r.key(key)
		return nil
	}); err != nil {
		return err
	}
	// The keys that were changed since stand at the piece where they would be, or might have been, in the view.
	for k, vs := range old {
		at := vs.at(epoch)
		if at == nil {
			continue
		}
		hash := row.HashBytes([]byte(k))
		if v.key.IntKey() {
			hash = row.HashInt(row.IntFromKey([]byte(k), v.key.IntKeyWidth()))
		}
		if state.PartOf(hash, c.parts) == c.part {
			r.version(at)
		}
	}
	return nil
}

// flush decodes what was collected.
func (r *reader) flush() {
	codec := r.view.codec
	for c := range r.out.Cols {
		codec.Decode(r.out.Cols[c], r.out.Len, c, r.rows)
	}
	for _, w := range r.weights {
		r.out.EndRow(w)
	}
	r.rows, r.weights = r.rows[:0], r.weights[:0]
}
