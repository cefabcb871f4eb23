package table

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weirstream/weir/engine/row"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// Existing are rows of an Insert whose key the table has already.
type Existing struct {
	At   []int32    // their places in the batch
	Rows *row.Batch // the table's rows of these keys, in the same order
}

// Insert adds the rows of a batch, each as often as its weight says. Rows whose key exists are not added, and returned.
func (tx *Tx) Insert(ctx context.Context, number int, b *row.Batch) (added int64, there Existing, err error) {
	t := tx.s.tables[number]
	if err := tx.Alive(); err != nil {
		return 0, there, err
	}
	for k := range b.Rows() {
		if err := t.fits(b, b.At(k)); err != nil {
			return 0, there, err
		}
	}
	if !t.keyed {
		for k := range b.Rows() {
			i := b.At(k)
			added += b.Weight(i)
			if err := tx.count(t, t.codec.Append(nil, b, i), b.Weight(i)); err != nil {
				return 0, there, err
			}
		}
		return added, there, nil
	}
	keys := &row.Batch{Len: b.Len, Sel: b.Sel}
	for _, c := range t.cols {
		keys.Cols = append(keys.Cols, b.Cols[c])
	}
	if _, err := tx.lookup(ctx, t, keys, true); err != nil {
		return 0, there, err
	}
	old := &rows{t: t}
	var key []byte
	for k := range b.Rows() {
		i := b.At(k)
		key = t.keyOf(key[:0], b, i)
		c := tx.cells[number][string(key)]
		if c.new != nil || b.Weight(i) > 1 {
			if c.new == nil {
				c.new = t.codec.Append(nil, b, i) // of equal rows the first is added
				added++
			}
			there.At = append(there.At, int32(i))
			old.rows, old.weights = append(old.rows, c.new), append(old.weights, 1)
			continue
		}
		c.new = t.codec.Append(nil, b, i)
		if err := tx.take(len(c.new)); err != nil {
			return 0, there, err
		}
		added++
	}
	if len(old.rows) > 0 {
		there.Rows = old.batch()
	}
	return added, there, nil
}

// count changes the number of a row of a table without a key.
func (tx *Tx) count(t *table, r []byte, n int64) error {
	if tx.bags[t.number] == nil {
		tx.bags[t.number] = map[string]int64{}
	}
	bag := tx.bags[t.number]
	k := string(r)
	if bag[k] += n; bag[k] == 0 {
		delete(bag, k)
	}
	return tx.take(len(k))
}

// Delete takes rows away that were read with Read, each as often as its weight says.
func (tx *Tx) Delete(number int, bs []*row.Batch) (int64, error) {
	t := tx.s.tables[number]
	n := int64(0)
	var key []byte
	for _, b := range bs {
		for k := range b.Rows() {
			i := b.At(k)
			n += b.Weight(i)
			if !t.keyed {
				if err := tx.count(t, t.codec.Append(nil, b, i), -b.Weight(i)); err != nil {
					return 0, err
				}
				continue
			}
			key = t.keyOf(key[:0], b, i)
			c, err := tx.cell(t, key, b, i)
			if err != nil {
				return 0, err
			}
			c.new = nil
		}
	}
	return n, nil
}

// cell is that of a row that was read.
func (tx *Tx) cell(t *table, key []byte, b *row.Batch, i int) (*cell, error) {
	if c := tx.cells[t.number][string(key)]; c != nil {
		return c, nil
	}
	if tx.cells[t.number] == nil {
		tx.cells[t.number] = map[string]*cell{}
	}
	c := &cell{old: t.codec.Append(nil, b, i)}
	c.new = c.old
	tx.cells[t.number][string(key)] = c
	return c, tx.take(len(key) + len(c.old))
}

// Update puts rows in the place of others that were read with Read. A batch has the table's columns twice: as they are,
// and as they are to be. once: a row may not be there twice, which ON CONFLICT DO UPDATE asks for.
func (tx *Tx) Update(ctx context.Context, number int, bs []*row.Batch, once bool) (int64, error) {
	t := tx.s.tables[number]
	width := len(t.types)
	var olds, news []*row.Batch
	for _, b := range bs {
		o, n := *b, *b
		o.Cols, n.Cols = b.Cols[:width:width], b.Cols[width:]
		olds, news = append(olds, &o), append(news, &n)
		for k := range b.Rows() {
			if err := t.fits(&n, b.At(k)); err != nil {
				return 0, err
			}
		}
	}
	if once {
		seen := map[string]bool{}
		for _, b := range olds {
			for k := range b.Rows() {
				key := string(t.keyOf(nil, b, b.At(k)))
				if seen[key] {
					return 0, &Fault{State: stateTwice, Message: "ON CONFLICT DO UPDATE command cannot affect row a second time",
						Hint: "Ensure that no rows proposed for insertion within the same command have duplicate constrained values."}
				}
				seen[key] = true
			}
		}
	}
	// All old rows go before the first new one comes: keys may be exchanged.
	n, err := tx.Delete(number, olds)
	if err != nil {
		return 0, err
	}
	for _, b := range news {
		_, there, err := tx.Insert(ctx, number, b)
		if err != nil {
			return 0, err
		}
		if len(there.At) > 0 {
			return 0, tx.Duplicate(number, b, int(there.At[0]))
		}
	}
	return n, nil
}

// fits tells a NULL where none may be, and a text that is too long for its column.
func (t *table) fits(b *row.Batch, i int) error {
	for c := range t.types {
		if t.types[c].NotNull && b.Cols[c].Nulls.Is(i) {
			var vs []string
			for k, typ := range t.types {
				vs = append(vs, valueText(typ, b.Cols[k], i))
			}
			return &Fault{State: stateNotNull, Message: "null value in column \"" + t.Schema[c].Name + "\" of relation \"" + t.Name + "\" violates not-null constraint",
				Detail: "Failing row contains (" + strings.Join(vs, ", ") + ")."}
		}
		if typ := t.types[c]; typ.Kind == row.String && typ.Precision > 0 && !b.Cols[c].Nulls.Is(i) {
			if v := b.Cols[c].Bytes(i); len(v) > typ.Precision && utf8.RuneCount(v) > typ.Precision {
				what := "character varying"
				if typ.Fixed {
					what = "character"
				}
				return &Fault{State: stateTooLong, Message: "value too long for type " + what + "(" + itoa(int64(typ.Precision)) + ")", Detail: "It is meant for column " + t.Schema[c].Name + "."}
			}
		} else if typ.Kind == row.Bytes && typ.Precision > 0 && !b.Cols[c].Nulls.Is(i) && len(b.Cols[c].Bytes(i)) > typ.Precision {
			return &Fault{State: stateTooLong, Message: "value too long for type bytea(" + itoa(int64(typ.Precision)) + ")", Detail: "It is meant for column " + t.Schema[c].Name + "."}
		}
	}
	return nil
}

func valueText(t row.Type, v *row.Vector, i int) string {
	if v.Nulls.Is(i) {
		return "null"
	}
	s := string(row.AppendText(nil, t, v, i, time.UTC))
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "") + "..."
	}
	return s
}

// Duplicate says that the key of row i of a batch exists already.
func (tx *Tx) Duplicate(number int, b *row.Batch, i int) error {
	t := tx.s.tables[number]
	var names, vs []string
	for _, c := range t.cols {
		names, vs = append(names, t.Schema[c].Name), append(vs, valueText(t.types[c], b.Cols[c], i))
	}
	return &Fault{State: stateUnique, Message: "duplicate key value violates unique constraint \"" + t.Name + "_pkey\"",
		Detail: "Key (" + strings.Join(names, ", ") + ")=(" + strings.Join(vs, ", ") + ") already exists."}
}

// Commit ends the transaction and returns when it is durable. Its rows are visible then.
func (tx *Tx) Commit(ctx context.Context) error {
	if tx.over {
		return nil
	}
	s := tx.s
	defer tx.Rollback() // of what was not accepted; it lets go of the snapshot
	if !tx.Written() {
		return tx.Alive()
	}
	began := s.env.Clock.Now()
	done, err := tx.accept(ctx)
	tx.Rollback()
	if err == nil {
		select {
		case err = <-done:
		case <-ctx.Done():
			err = &Fault{State: stateUnknown, Message: "canceled while the transaction was being made durable", Hint: "it may or may not be kept: look"}
		}
	}
	if s.opts.OnCommit != nil {
		s.opts.OnCommit(s.env.Clock.Now().Sub(began), err != nil)
	}
	return err
}

// accept gives the transaction its place, if nothing that it depends on was changed since its snapshot.
func (tx *Tx) accept(ctx context.Context) (<-chan error, error) {
	s := tx.s
	if !tx.first {
		select {
		case s.gate <- struct{}{}:
			defer func() { <-s.gate }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.mu.bytes > s.opts.KeptBytes && !s.mu.ended {
		for other := range s.mu.open {
			if other != tx && other.base < s.mu.durable {
				other.dead = true
			}
		}
		s.prune()
		if s.mu.bytes <= s.opts.KeptBytes || s.mu.durable == s.mu.head {
			break
		}
		moved := s.mu.moved
		s.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			s.mu.Lock()
			return nil, ctx.Err()
		}
		s.mu.Lock()
	}
	switch {
	case s.mu.ended:
		return nil, &Fault{State: stateEnded, Message: "the pipeline has ended: nothing of the transaction is kept"}
	case tx.dead:
		return nil, tooOld()
	}
	for i, t := range s.tables {
		o := &s.mu.over[i]
		conflict := tx.scanned[i] && o.last > tx.head
		for k := range tx.cells[i] {
			if vs := o.rows[k]; len(vs) > 0 && vs[len(vs)-1].seq > tx.head {
				conflict = true
			}
		}
		if conflict {
			return nil, &Fault{State: stateConflict, Message: "could not serialize access due to concurrent update",
				Detail: "Another transaction has changed what this one has read of table " + t.Name + ".", Hint: "The transaction might succeed if retried."}
		}
	}
	s.mu.head++
	seq := s.mu.head
	a := &accepted{seq: seq, changes: make([][]change, len(s.tables))}
	for i, t := range s.tables {
		for k, c := range tx.cells[i] {
			if bytes.Equal(c.old, c.new) && (c.old == nil) == (c.new == nil) {
				continue
			}
			if c.old != nil {
				a.changes[i] = append(a.changes[i], change{c.old, -1})
			}
			if c.new != nil {
				a.changes[i] = append(a.changes[i], change{c.new, 1})
			}
			s.put(t, seq, k, version{row: c.new})
		}
		for k, n := range tx.bags[i] {
			a.changes[i] = append(a.changes[i], change{[]byte(k), n})
			s.put(t, seq, k, version{delta: n})
		}
	}
	s.mu.queue = append(s.mu.queue, a)
	done := make(chan error, 1)
	s.mu.waiting = append(s.mu.waiting, waiter{seq, done})
	s.poke()
	return done, nil
}
