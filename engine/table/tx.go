package table

import (
	"bytes"
	"context"

	"github.com/weirstream/weir/engine/row"
)

// Tx is a transaction. It belongs to one goroutine, and ends with Commit or Rollback.
type Tx struct {
	s       *Sequencer
	from    Base
	base    uint64 // the last transaction that the epoch has
	head    uint64 // the last one that is seen
	first   bool   // it holds the gate
	over    bool
	dead    bool // guarded by the sequencer's lock: what it reads is not kept any more
	bytes   int64
	cells   []map[string]*cell
	bags    []map[string]int64 // of tables without a key: by how much the number of a row is changed
	scanned []bool             // tables that a write depends on as a whole
}

// cell is a key that the transaction depends on: its row in the snapshot and what the transaction made of it. nil: none.
type cell struct {
	old, new []byte
}

// Begin begins a transaction over a pinned epoch. With latest it sees what was accepted since, too, which is what a
// statement wants that only writes; without, it sees exactly the epoch, as the views of that epoch do. With first nobody
// else commits until it has ended: that is for one that has lost to others too often.
func (s *Sequencer) Begin(ctx context.Context, pin func(context.Context) (Base, error), latest, first bool) (*Tx, error) {
	if first {
		select {
		case s.gate <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for {
		from, err := pin(ctx)
		if err != nil {
			if first {
				<-s.gate
			}
			return nil, err
		}
		s.mu.Lock()
		tx := &Tx{s: s, from: from, base: s.seqAt(from.Epoch()), head: s.mu.head, first: first}
		if tx.base < s.mu.pruned {
			s.mu.Unlock()
			from.Release() // a newer epoch has become durable meanwhile
			continue
		}
		if !latest {
			tx.head = tx.base
		}
		s.mu.open[tx] = struct{}{}
		s.mu.Unlock()
		n := len(s.tables)
		tx.cells, tx.bags, tx.scanned = make([]map[string]*cell, n), make([]map[string]int64, n), make([]bool, n)
		return tx, nil
	}
}

// Sequencer is whose transaction it is.
func (tx *Tx) Sequencer() *Sequencer { return tx.s }

// Base is the epoch that it reads.
func (tx *Tx) Base() Base { return tx.from }

// Written tells whether it has changed anything.
func (tx *Tx) Written() bool {
	for i := range tx.bags {
		if len(tx.bags[i]) > 0 {
			return true
		}
		for _, c := range tx.cells[i] {
			if !bytes.Equal(c.old, c.new) {
				return true
			}
		}
	}
	return false
}

func tooOld() error {
	return &Fault{State: stateTooOld, Message: "snapshot too old: what the transaction reads is not kept any more",
		Hint: "write in shorter transactions"}
}

// Alive is why the transaction cannot go on, nil if it can.
func (tx *Tx) Alive() error {
	tx.s.mu.Lock()
	defer tx.s.mu.Unlock()
	switch {
	case tx.s.mu.ended:
		return &Fault{State: stateEnded, Message: "the pipeline has ended, and the transaction with it"}
	case tx.dead:
		return tooOld()
	}
	return nil
}

// take counts bytes that the transaction keeps.
func (tx *Tx) take(n int) error {
	if tx.bytes += int64(n) + versionBytes; tx.bytes > tx.s.opts.TxBytes {
		mib := tx.s.opts.TxBytes >> 20
		return &Fault{State: stateTooLarge, Message: "the transaction is too large", Hint: "write in several transactions",
			Detail: "what it changes takes more than the " + itoa(mib) + " MiB that one may keep"}
	}
	return nil
}

// Read gives the rows of a table as the transaction sees them, its own changes with them, to f; with keys only those
// of the keys. If the transaction depends on what is read, since a write is made of it, it fails when somebody else
// changes one of the keys, or without keys the table.
func (tx *Tx) Read(ctx context.Context, number int, keys *row.Batch, depends bool, f func(*row.Batch) error) error {
	if err := tx.Alive(); err != nil {
		return err
	}
	t := tx.s.tables[number]
	switch {
	case keys != nil && t.keyed:
		cells, err := tx.lookup(ctx, t, keys, depends)
		if err != nil {
			return err
		}
		out := &rows{t: t}
		for _, c := range cells {
			if c != nil && c.new != nil {
				if err := out.add(c.new, 1, f); err != nil {
					return err
				}
			}
		}
		return out.flush(f)
	case t.keyed:
		tx.scanned[number] = tx.scanned[number] || depends
		return tx.scanKeyed(ctx, t, f)
	default:
		tx.scanned[number] = tx.scanned[number] || depends
		return tx.scanBag(ctx, t, f)
	}
}

// lookup gives the cell of each key, nil for those that were among the keys before.
func (tx *Tx) lookup(ctx context.Context, t *table, keys *row.Batch, depends bool) ([]*cell, error) {
	cols := make([]int, len(keys.Cols))
	for i := range cols {
		cols[i] = i
	}
	own := tx.cells[t.number]
	if own == nil {
		own = map[string]*cell{}
		tx.cells[t.number] = own
	}
	n := keys.Rows()
	out := make([]*cell, n)
	seen := make(map[string]*cell, n)
	missing := make([]int32, 0, n)
	var key []byte
	o := &tx.s.mu.over[t.number]
	tx.s.mu.Lock()
	for k := range n {
		i := keys.At(k)
		key = t.key.Append(key[:0], keys, cols, i)
		if seen[string(key)] != nil {
			continue
		}
		c := own[string(key)]
		if c == nil {
			c = &cell{}
			if r, known := at(o.rows[string(key)], tx.head); known {
				c.old, c.new = r, r
			} else {
				missing = append(missing, int32(i))
			}
		}
		seen[string(key)] = c
		out[k] = c
	}
	tx.s.mu.Unlock()
	if len(missing) > 0 {
		part := *keys
		part.Sel = missing
		if err := tx.from.Read(ctx, t.number, &part, func(b *row.Batch) error {
			for k := range b.Rows() {
				i := b.At(k)
				key = t.keyOf(key[:0], b, i)
				if c := seen[string(key)]; c != nil {
					c.old = t.codec.Append(nil, b, i)
					c.new = c.old
				}
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	if depends {
		for k, c := range seen {
			if own[k] == nil {
				own[k] = c
				if err := tx.take(len(k) + len(c.old)); err != nil {
					return nil, err
				}
			}
		}
	}
	return out, nil
}

// scanKeyed reads a table with a key as a whole.
func (tx *Tx) scanKeyed(ctx context.Context, t *table, f func(*row.Batch) error) error {
	over := map[string][]byte{}
	tx.s.mu.Lock()
	for k, vs := range tx.s.mu.over[t.number].rows {
		if r, known := at(vs, tx.head); known {
			over[k] = r
		}
	}
	tx.s.mu.Unlock()
	for k, c := range tx.cells[t.number] {
		if !bytes.Equal(c.old, c.new) {
			over[k] = c.new
		}
	}
	var key []byte
	var sel []int32
	if err := tx.from.Read(ctx, t.number, nil, func(b *row.Batch) error {
		if len(over) == 0 {
			return f(b)
		}
		part := *b
		sel = sel[:0]
		for k := range b.Rows() {
			i := b.At(k)
			key = t.keyOf(key[:0], b, i)
			if _, ok := over[string(key)]; !ok {
				sel = append(sel, int32(i))
			}
		}
		if len(sel) == 0 {
			return nil
		}
		part.Sel = sel
		return f(&part)
	}); err != nil {
		return err
	}
	out := &rows{t: t}
	for _, r := range over {
		if r != nil {
			if err := out.add(r, 1, f); err != nil {
				return err
			}
		}
	}
	return out.flush(f)
}

// scanBag reads a table without a key.
func (tx *Tx) scanBag(ctx context.Context, t *table, f func(*row.Batch) error) error {
	over := map[string]int64{}
	tx.s.mu.Lock()
	for k, vs := range tx.s.mu.over[t.number].rows {
		if n := sum(vs, tx.base, tx.head); n != 0 {
			over[k] = n
		}
	}
	tx.s.mu.Unlock()
	for k, n := range tx.bags[t.number] {
		over[k] += n
	}
	out := &rows{t: t}
	var r []byte
	if err := tx.from.Read(ctx, t.number, nil, func(b *row.Batch) error {
		if len(over) == 0 {
			return f(b)
		}
		for k := range b.Rows() {
			i := b.At(k)
			r = t.codec.Append(r[:0], b, i)
			w := b.Weight(i) + over[string(r)]
			delete(over, string(r))
			if w > 0 {
				if err := out.add(bytes.Clone(r), w, f); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for k, n := range over {
		if n > 0 {
			if err := out.add([]byte(k), n, f); err != nil {
				return err
			}
		}
	}
	return out.flush(f)
}

// rows collects binary rows into batches.
type rows struct {
	t       *table
	rows    [][]byte
	weights []int64
}

func (r *rows) add(b []byte, weight int64, f func(*row.Batch) error) error {
	r.rows, r.weights = append(r.rows, b), append(r.weights, weight)
	if len(r.rows) < row.MaxBatch {
		return nil
	}
	return r.flush(f)
}

func (r *rows) flush(f func(*row.Batch) error) error {
	if len(r.rows) == 0 {
		return nil
	}
	b := r.batch()
	r.rows, r.weights = r.rows[:0], r.weights[:0]
	return f(b)
}

func (r *rows) batch() *row.Batch {
	b := row.NewBuilder(r.t.types)
	b.Reset()
	for c := range b.Cols {
		r.t.codec.Decode(b.Cols[c], 0, c, r.rows)
	}
	for _, w := range r.weights {
		b.EndRow(w)
	}
	return b.Seal()
}

// Rollback ends the transaction, if it has not ended. Nothing of it is left.
func (tx *Tx) Rollback() {
	if tx.over {
		return
	}
	tx.over = true
	tx.from.Release()
	s := tx.s
	s.mu.Lock()
	delete(s.mu.open, tx)
	s.prune()
	s.moved()
	s.mu.Unlock()
	if tx.first {
		<-s.gate
	}
}
