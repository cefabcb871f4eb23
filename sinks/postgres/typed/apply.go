package typed

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/zeebo/xxh3"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sinks/postgres"
)

type keyHash = xxh3.Uint128

// piece is one statement with its parameters: rows to be put, or keys to be deleted.
type piece struct {
	t    *table
	del  bool
	cols []array
	n    int
	dead []int // rows that do not count any more
}

// place is a row of a piece.
type place struct {
	p *piece
	n int
}

const (
	// pieceBytes is how large the parameters of a statement get before it is sent.
	pieceBytes = 4 << 20
	// pieceRows is how many keys of rows that move are in a piece.
	pieceRows = 8192
	// group is how many rows are encoded, column by column, before the bytes are looked at.
	group = 64
	// underWay is how many statements are sent ahead of the replies. They are kept until then, to find the row that the
	// server does not take.
	underWay = 6
)

func (p *piece) columns() []int {
	if p.del {
		return p.t.Key
	}
	return p.t.all(nil)
}

func (p *piece) bytes() (n int) {
	for i := range p.cols {
		n += len(p.cols[i].buf)
	}
	return n
}

func (s *Sink) piece(t *table, del bool) *piece {
	p := &piece{}
	if n := len(s.free); n > 0 {
		p, s.free = s.free[n-1], s.free[:n-1]
	}
	p.t, p.del, p.n, p.dead = t, del, 0, p.dead[:0]
	n := len(t.Columns)
	if del {
		n = len(t.Key)
	}
	for len(p.cols) < n {
		p.cols = append(p.cols, array{})
	}
	p.cols = p.cols[:n]
	for i := range p.cols {
		p.cols[i].reset()
	}
	return p
}

// add appends the rows at of a batch.
func (p *piece) add(b *row.Batch, at []int32) error {
	for i, c := range p.columns() {
		if err := p.cols[i].add(&p.t.coders[c], &p.t.Columns[c].Type, b.Cols[c], at); err != nil {
			return errs.New(errs.TargetRejected, "table %s, column %s: %w", p.t, p.t.Columns[c].Name, err).WithHint(hintMend)
		}
	}
	p.n += len(at)
	return nil
}

func (p *piece) params() [][]byte {
	params := make([][]byte, len(p.cols))
	for i, c := range p.columns() {
		p.cols[i].seal(oids[p.t.coders[c].wire][0], p.n)
		params[i] = p.cols[i].buf
	}
	return params
}

// pending is the key that a batch ended with, to be deleted: the row that takes its place may come with the next batch.
type pending struct {
	last *piece // of one row
	key  []byte
	rows []int32 // scratch
}

// attempt is one transaction under way.
type attempt struct {
	s      *Sink
	ctx    context.Context
	p      *pgconn.Pipeline
	sent   []*piece // whose replies have not been read; nil stands for another statement
	failed *piece   // that the server refused
	// deletes and puts of guarded tables wait for the end; moved are the keys of rows that change.
	deletes, puts, moved []*piece
}

// publish applies a checkpoint in one transaction.
func (s *Sink) publish(ctx context.Context, c dataflow.Checkpoint, changes dataflow.Changes) error {
	if err := s.hit(FailBeforeRows); err != nil {
		return err
	}
	a := &attempt{s: s, ctx: ctx, p: s.conn.PgConn().StartPipeline(ctx)}
	err := a.run(c, changes)
	if err == nil {
		return a.p.Close()
	}
	// The connection goes back to its normal state, if it can, so that the row in question can be looked for.
	_ = a.p.Sync()
	_ = a.p.Close()
	return s.explain(ctx, err, a.failed)
}

func (a *attempt) run(c dataflow.Checkpoint, changes dataflow.Changes) error {
	for _, t := range a.s.tables {
		clear(t.latest)
	}
	for _, sql := range []string{"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", "SET CONSTRAINTS ALL DEFERRED"} {
		if err := a.say(sql); err != nil {
			return err
		}
	}
	for {
		table, b, err := changes.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := a.batch(a.s.tables[table], b); err != nil {
			return err
		}
	}
	for _, t := range a.s.tables {
		if err := a.deleteRest(t); err != nil {
			return err
		}
	}
	if err := a.guarded(); err != nil {
		return err
	}
	a.p.SendQueryParams(postgres.PublishSQL, [][]byte{[]byte(a.s.opts.Pipeline), []byte(a.s.opts.Sink), strconv.AppendUint(nil, uint64(a.s.gen), 10), strconv.AppendUint(nil, uint64(c), 10)},
		[]uint32{oidText, oidText, oidInt8, oidInt8}, nil, nil)
	a.sent = append(a.sent, nil)
	if err := a.p.Flush(); err != nil { // a crash here finds everything at the server
		return err
	}
	if err := a.s.hit(FailBeforeCommit); err != nil {
		return err
	}
	if err := a.say("COMMIT"); err != nil {
		return err
	}
	if err := a.settle(); err != nil {
		return err
	}
	return a.s.hit(FailAfterCommit)
}

// batch turns a batch into statements.
func (a *attempt) batch(t *table, b *row.Batch) error {
	if t.Key == nil {
		return a.adds(t, b)
	}
	// Of several changes of one key the last one counts.
	clear(t.seen)
	t.hash, t.rows = t.hash[:0], t.rows[:0]
	n := b.Rows()
	for k := range n {
		i := b.At(k)
		for _, c := range t.Key {
			if b.Cols[c].Nulls.Is(i) {
				return errs.New(errs.TargetRejected, "a row for table %s has NULL in column %s of its key", t, t.Columns[c].Name).
					WithHint("leave such rows out: WHERE %s IS NOT NULL", t.Columns[c].Name)
			}
		}
		t.key = t.keys.Append(t.key[:0], b, t.Key, i)
		h := xxh3.Hash128(t.key)
		t.hash = append(t.hash, h)
		t.seen[h] = int32(k)
		if k == 0 {
			if err := a.resolveLast(t, b.Weight(i) > 0); err != nil {
				return err
			}
		}
	}
	// What goes and what comes in a batch are other keys. Of several checkpoints that are published as one, a later batch may
	// bring back what an earlier one took, so nothing but the last key waits for the next batch.
	gone := t.gone.rows[:0]
	for k := range n {
		i, comes, last := b.At(k), b.Weight(b.At(k)) > 0, int(t.seen[t.hash[k]]) == k
		switch {
		case last && comes:
			t.rows = append(t.rows, int32(i))
		case last && k == n-1: // the row that takes its place may be the next batch's first
			t.key = t.keys.Append(t.key[:0], b, t.Key, i)
			t.gone.key = append(t.gone.key[:0], t.key...)
			t.gone.last = a.s.piece(t, true)
			if err := t.gone.last.add(b, []int32{int32(i)}); err != nil {
				return err
			}
		case last:
			gone = append(gone, int32(i))
		case !comes && t.guarded:
			if err := a.moves(t, b, i); err != nil {
				return err
			}
		}
	}
	t.gone.rows = gone
	if len(gone) > 0 {
		p := a.s.piece(t, true)
		if err := p.add(b, gone); err != nil {
			return err
		}
		if err := a.sendDelete(p); err != nil {
			return err
		}
	}
	return a.putRows(t, b, t.rows)
}

// resolveLast decides what becomes of the key that the batch before ended with, now that the first key of the next is in
// t.key.
func (a *attempt) resolveLast(t *table, comes bool) error {
	last := t.gone.last
	if last == nil {
		return nil
	}
	t.gone.last = nil
	if comes && slices.Equal(t.gone.key, t.key) {
		if t.guarded {
			a.moved = append(a.moved, last)
		} else {
			a.s.free = append(a.s.free, last)
		}
		return nil
	}
	return a.sendDelete(last)
}

// moves notes the key of a row of a guarded table that changes.
func (a *attempt) moves(t *table, b *row.Batch, i int) error {
	return a.moving(t).add(b, []int32{int32(i)})
}

// moving is a piece for keys of rows that change.
func (a *attempt) moving(t *table) *piece {
	n := len(a.moved)
	if n == 0 || a.moved[n-1].t != t || a.moved[n-1].n >= pieceRows {
		a.moved = append(a.moved, a.s.piece(t, true))
		n++
	}
	return a.moved[n-1]
}

// deleteRest deletes the key that is still held.
func (a *attempt) deleteRest(t *table) error {
	last := t.gone.last
	if t.gone.last = nil; last == nil {
		return nil
	}
	return a.sendDelete(last)
}

func (a *attempt) sendDelete(p *piece) error {
	if p.t.guarded {
		a.deletes = append(a.deletes, p)
		return a.supersede(p)
	}
	return a.send(p)
}

// supersede notes what a piece of a guarded table does to each key, and that what was to be done before does not count:
// several checkpoints may be published as one, and only what the last of them says may meet the other indexes.
func (a *attempt) supersede(p *piece) error {
	t := p.t
	next := make([]int, len(t.Key)) // where each key column's element begins
	for x := range next {
		next[x] = arrayHeader
	}
	for i := range p.n {
		t.key = t.key[:0]
		for x, c := range t.Key {
			if !p.del {
				x = c
			}
			e := element(p.cols[x].buf, &next[slices.Index(t.Key, c)])
			t.key = append(t.key, e...)
		}
		h := xxh3.Hash128(t.key)
		if old, ok := t.latest[h]; ok {
			old.p.dead = append(old.p.dead, old.n)
			if old.p.del && !p.del { // it is there, and changes
				m := a.moving(t)
				for x := range m.cols {
					m.cols[x].buf = append(m.cols[x].buf, cut(old.p.cols[x].buf, old.n, old.n+1)[arrayHeader:]...)
				}
				m.n++
			}
		}
		t.latest[h] = place{p, i}
	}
	return nil
}

// living are the pieces without the rows that do not count any more.
func living(pieces []*piece) []*piece {
	for _, p := range pieces {
		if len(p.dead) == 0 {
			continue
		}
		slices.Sort(p.dead)
		for x := range p.cols {
			at := arrayHeader
			kept, dead := p.cols[x].buf[:arrayHeader], p.dead
			for i := range p.n {
				e := element(p.cols[x].buf, &at)
				if len(dead) > 0 && dead[0] == i {
					dead = dead[1:]
					continue
				}
				kept = append(kept, e...)
			}
			p.cols[x].buf = kept
		}
		p.n -= len(p.dead)
		p.dead = p.dead[:0]
	}
	return slices.DeleteFunc(pieces, func(p *piece) bool { return p.n == 0 })
}

// putRows sends rows of a batch.
func (a *attempt) putRows(t *table, b *row.Batch, at []int32) error {
	for len(at) > 0 {
		p := a.s.piece(t, false)
		for len(at) > 0 && p.bytes() < pieceBytes {
			n := min(group, len(at))
			if err := p.add(b, at[:n]); err != nil {
				return err
			}
			at = at[n:]
		}
		if t.guarded {
			a.puts = append(a.puts, p)
			if err := a.supersede(p); err != nil {
				return err
			}
			continue
		}
		if err := a.send(p); err != nil {
			return err
		}
	}
	return nil
}

// adds appends rows to a table without a key, as often as each weighs.
func (a *attempt) adds(t *table, b *row.Batch) error {
	t.rows = t.rows[:0]
	for k := range b.Rows() {
		i := b.At(k)
		if b.Weight(i) < 0 {
			return errs.New(errs.EngineInternal, "a row is to be taken from table %s, which has no key", t)
		}
		for range b.Weight(i) {
			if t.rows = append(t.rows, int32(i)); len(t.rows) == row.MaxBatch {
				if err := a.putRows(t, b, t.rows); err != nil {
					return err
				}
				t.rows = t.rows[:0]
			}
		}
	}
	return a.putRows(t, b, t.rows)
}

// say sends a statement without parameters.
func (a *attempt) say(sql string) error {
	a.p.SendQueryParams(sql, nil, nil, nil, nil)
	a.sent = append(a.sent, nil)
	return nil
}

// send sends a piece and reads the reply of an earlier one, so that an error is heard of soon.
func (a *attempt) send(p *piece) error {
	name := p.t.put
	if p.del {
		name = p.t.del
	}
	a.p.SendQueryPrepared(name, p.params(), []int16{1}, nil)
	a.p.SendFlushRequest()
	a.sent = append(a.sent, p)
	if err := a.p.Flush(); err != nil {
		return err
	}
	for len(a.sent) > underWay {
		if err := a.reply(); err != nil {
			return err
		}
	}
	return nil
}

// reply reads the reply of the first statement that has none yet.
func (a *attempt) reply() error {
	p := a.sent[0]
	a.sent = a.sent[1:]
	res, err := a.p.GetResults()
	if r, ok := res.(*pgconn.ResultReader); ok && err == nil {
		_, err = r.Close()
	}
	if err == nil && res == nil {
		err = errors.New("the server does not answer a statement")
	}
	if err != nil {
		a.failed = p
		return err
	}
	if p != nil && !p.t.guarded {
		a.s.free = append(a.s.free, p)
	}
	return nil
}

// settle sends a Sync and reads every reply up to it.
func (a *attempt) settle() error {
	if err := a.p.Sync(); err != nil {
		return err
	}
	for len(a.sent) > 0 {
		if err := a.reply(); err != nil {
			return err
		}
	}
	res, err := a.p.GetResults()
	if _, ok := res.(*pgconn.PipelineSync); err == nil && !ok {
		err = errors.New("the server does not answer a Sync")
	}
	return err
}

// guarded writes the tables of which unique values may move between rows: keys that go first, then the rest. If that is
// refused because a value moves between rows that stay, it begins again, and the rows that change are taken out first.
func (a *attempt) guarded() error {
	if len(a.deletes)+len(a.puts) == 0 {
		return nil
	}
	a.deletes, a.puts = living(a.deletes), living(a.puts)
	defer func() {
		a.s.free = slices.Concat(a.s.free, a.deletes, a.puts, a.moved)
		a.deletes, a.puts, a.moved = nil, nil, nil
	}()
	if err := a.say("SAVEPOINT weir"); err != nil {
		return err
	}
	if err := a.settle(); err != nil {
		return err // of what was sent before
	}
	first := a.sendAll(a.deletes, a.puts)
	if first == nil {
		first = a.settle()
	}
	if first == nil {
		return nil
	}
	var refused *pgconn.PgError
	if !errors.As(first, &refused) || refused.Code != "23505" && refused.Code != "23P01" || len(a.moved) == 0 {
		return first
	}
	var out []*piece
	for _, p := range a.moved {
		switch {
		case !p.t.cascades:
			out = append(out, p)
		case p.t.Schema == refused.SchemaName && p.t.Name == refused.TableName:
			return first // rows of other tables would go with those that are taken out
		}
	}
	failed := a.failed
	a.sent, a.failed = nil, nil
	if err := a.resync(); err != nil {
		return first
	}
	if err := a.say("ROLLBACK TO SAVEPOINT weir"); err != nil {
		return err
	}
	if err := a.sendAll(a.deletes, out, a.puts); err != nil {
		return err
	}
	if err := a.settle(); err != nil {
		if a.failed == nil {
			a.failed = failed
		}
		return err
	}
	return nil
}

func (a *attempt) sendAll(lists ...[]*piece) error {
	for _, list := range lists {
		for _, p := range list {
			if err := a.send(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// resync reads on until the server has answered every Sync.
func (a *attempt) resync() error {
	if err := a.p.Sync(); err != nil {
		return err
	}
	for {
		res, err := a.p.GetResults()
		var refused *pgconn.PgError
		if err != nil && !errors.As(err, &refused) {
			return err
		}
		if res == nil && err == nil {
			return nil
		}
	}
}

// rowOf is one row of a piece's parameters.
func rowOf(params [][]byte, lo, hi int) [][]byte {
	out := make([][]byte, len(params))
	for i := range params {
		out[i] = cut(params[i], lo, hi)
	}
	return out
}

// count is how many elements a sealed array has.
func count(b []byte) int { return int(binary.BigEndian.Uint32(b[12:])) }
