package pgwire

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/table"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
	"github.com/weirstream/weir/sql/plan"
)

// prepareChange understands a statement that writes an internal table.
func (x *session) prepareChange(text string, oids []uint32) (*prepared, error) {
	st, err := parser.ParseStatement("", text)
	if err != nil {
		return nil, err
	}
	p := &prepared{text: text, change: st}
	var params []plan.Param
	for _, oid := range oids {
		t, ok := rowType(oid)
		if !ok {
			return nil, fail("0A000", "parameters of type %d are not taken", oid)
		}
		params = append(params, plan.Param{Type: t})
	}
	c, err := x.planChange(p, params)
	if err != nil {
		return nil, err
	}
	p.types, p.planned = c.Params, c
	if c.Returning != nil {
		p.columns = columnsOf(c.Returning.Schema)
	}
	p.tellParameters(oids)
	return p, nil
}

// changed is a planned change with the table that it is about.
type changed struct {
	*plan.Change
	statement parser.Statement
	view      View
	number    int
	served    *served // of Query
}

// planChange plans a statement over the views and tables that there are now.
func (x *session) planChange(p *prepared, params []plan.Param) (*changed, error) {
	s := &served{relations: map[string]relation{}}
	list := x.relations(s)
	c, err := plan.Changes(p.text, p.change, x.environment(), list, params)
	if err != nil {
		return nil, x.explain(err)
	}
	r := s.relations[c.Table]
	if len(r.twice) > 1 {
		return nil, inTwo(c.Table, r.twice)
	}
	out := &changed{Change: c, statement: p.change, view: r.view}
	if c.Query != nil {
		s.Served = c.Query
		if err := s.onePipeline(r.view.Pipeline); err != nil {
			return nil, err
		}
		out.served = s
	}
	if r.view.Tables == nil || r.view.Keyed == nil {
		return out, nil // it does not run: that is told when it is executed
	}
	if out.number = r.view.Tables.Table(c.Table); out.number < 0 {
		return nil, fail("42P01", "table %q has just been changed", c.Table)
	}
	return out, nil
}

// attempts is how often a statement that is a transaction of its own is tried before it goes first.
const attempts = 3

// write executes a statement that writes. Outside of a block it is a transaction of its own, or one with the statements
// that the client sent with it.
func (x *session) write(ctx context.Context, p *prepared, o *portal) error {
	x.flushTag()
	c := o.planned
	if c == nil {
		var err error
		if c, err = x.planChange(p, o.params); err != nil {
			return err
		}
	}
	if x.tx == inBlock && x.readOnly {
		return fail("25006", "cannot execute %s in a read-only transaction", parser.Keywords(p.change))
	}
	if x.tx == idle && x.writes == nil && o.alone {
		for try := 0; ; try++ {
			err := x.begin(ctx, c.view, true, try >= attempts)
			var done *result
			if err == nil {
				done, err = x.apply(ctx, c)
			}
			if err == nil {
				err = x.commit(ctx)
			}
			x.release()
			if conflict(err) && try < 2*attempts {
				continue
			}
			if err != nil {
				return err
			}
			if err := x.sendResult(p, o, done); err != nil {
				return err
			}
			x.flushTag()
			return nil
		}
	}
	first := x.writes == nil
	if first {
		if err := x.begin(ctx, c.view, true, false); err != nil {
			return err
		}
	} else if x.writes.Sequencer() != c.view.Tables {
		if err := x.writes.Alive(); err != nil {
			return err
		}
		return errs.New(errs.NotBuiltYet, "a transaction over tables of two pipelines is not built yet").
			WithDetail("table %s is one of pipeline %s", c.Table, c.view.Pipeline).WithHint("define the tables in one file")
	}
	done, err := x.apply(ctx, c)
	if err != nil {
		return err
	}
	if err := x.sendResult(p, o, done); err != nil {
		return err
	}
	if x.tx == idle && first && p.columns == nil {
		x.again = func(ctx context.Context) error { // its answer is held back until it is known how it ends
			done, err := x.apply(ctx, c)
			if err == nil {
				x.held = &pgproto3.CommandComplete{CommandTag: []byte(done.tag)}
			}
			return err
		}
		x.againOf = c.view
		return nil
	}
	x.again = nil
	x.flushTag()
	return nil
}

func conflict(err error) bool {
	var f *table.Fault
	return errors.As(err, &f) && f.Conflict()
}

// flushTag sends the answer that was held back.
func (x *session) flushTag() {
	if x.held != nil {
		x.back.Send(x.held)
		x.held = nil
	}
}

// settle ends the transaction of statements outside of a block.
func (x *session) settle() {
	if x.tx != idle || x.writes == nil {
		x.flushTag()
		return
	}
	ctx, done := x.working()
	defer done()
	err := x.commit(ctx)
	for try := 1; conflict(err) && x.again != nil && try < 2*attempts; try++ {
		x.release()
		if err = x.begin(ctx, x.againOf, true, try >= attempts); err == nil {
			err = x.again(ctx)
		}
		if err == nil {
			err = x.commit(ctx)
		}
	}
	if err != nil {
		x.held = nil
		x.report(err, "", 0)
	}
	x.again = nil
	x.flushTag()
}

// begin begins the session's transaction over the tables of a view's pipeline.
func (x *session) begin(ctx context.Context, v View, latest, first bool) error {
	if v.Keyed == nil || v.Tables == nil {
		return notRunning(v)
	}
	if err := x.sameStart(v); err != nil {
		return err
	}
	nodes := make([]int, len(v.Tables.Tables()))
	for _, o := range x.server.opts.Views() {
		if o.Tables == v.Tables && o.Table {
			nodes[v.Tables.Table(o.Name)] = o.Node
		}
	}
	tx, err := v.Tables.Begin(ctx, func(ctx context.Context) (table.Base, error) {
		if pin := x.pins[v.Keyed]; pin != nil { // not of this transaction: nothing has been read yet
			pin.Release()
			delete(x.pins, v.Keyed)
		}
		pin, err := v.Keyed.Pin(ctx)
		if err != nil {
			return nil, err
		}
		x.pins[v.Keyed], x.reads[v.Pipeline] = pin, v.Keyed
		return pinned{pin, nodes}, nil
	}, latest, first)
	if err != nil {
		return err
	}
	x.writes = tx
	return nil
}

// commit ends the session's transaction. What it read is let go of.
func (x *session) commit(ctx context.Context) error {
	if x.writes == nil {
		return nil
	}
	err := x.writes.Commit(ctx)
	x.writes = nil
	return err
}

// result is what a statement that writes has done.
type result struct {
	tag  string
	rows *kept // of RETURNING
}

func (x *session) sendResult(p *prepared, o *portal, done *result) error {
	if p.columns != nil {
		if !o.described {
			x.back.Send(describeRows(p.columns, o.formats))
		}
		for i := range done.rows.len() {
			b, at := done.rows.at(i)
			x.encode(o, b, at)
			x.back.Send(&pgproto3.DataRow{Values: x.values})
		}
	}
	x.held = &pgproto3.CommandComplete{CommandTag: []byte(done.tag)}
	return nil
}

// apply makes the change in the session's transaction.
func (x *session) apply(ctx context.Context, c *changed) (*result, error) {
	done := &result{}
	now := x.server.env.Clock.Now().UnixMicro()
	if c.Returning != nil {
		done.rows = newKept(c.Returning.Schema.Types(), nil, x.server.opts.ResultBytes)
	}
	tell := func(b *row.Batch) error {
		if c.Returning == nil || b.Rows() == 0 {
			return nil
		}
		return c.Returning.Run(b, now, done.rows.add)
	}
	bs := c.Values
	if bs == nil {
		found, err := x.changing(ctx, c, now)
		if err != nil {
			return nil, err
		}
		bs = found
	}
	width := len(c.view.Schema)
	n := int64(0)
	var err error
	switch c.Kind {
	case plan.Insert:
		for _, b := range bs {
			added, err := x.insert(ctx, c, b, now, tell)
			if err != nil {
				return nil, err
			}
			n += added
		}
		done.tag = fmt.Sprint("INSERT 0 ", n)
	case plan.Update:
		if n, err = x.writes.Update(ctx, c.number, bs, false); err != nil {
			return nil, err
		}
		for _, b := range bs {
			if err := tell(half(b, width)); err != nil {
				return nil, err
			}
		}
		done.tag = fmt.Sprint("UPDATE ", n)
	case plan.Delete:
		if n, err = x.writes.Delete(c.number, bs); err != nil {
			return nil, err
		}
		for _, b := range bs {
			if err := tell(b); err != nil {
				return nil, err
			}
		}
		done.tag = fmt.Sprint("DELETE ", n)
		if _, all := c.statement.(*parser.Truncate); all {
			done.tag = "TRUNCATE TABLE"
		}
	}
	if done.rows != nil {
		done.rows.sort()
	}
	return done, nil
}

// half is the new rows of a batch of old and new ones.
func half(b *row.Batch, width int) *row.Batch {
	out := *b
	out.Cols = b.Cols[width:]
	return &out
}

// changing finds the rows that the change is about, all of them before the first is changed.
func (x *session) changing(ctx context.Context, c *changed, now int64) ([]*row.Batch, error) {
	var k *kept
	var err error
	if c.Direct != nil {
		k = newKept(c.Direct.Schema.Types(), nil, x.server.opts.QueryBytes)
		err = x.writes.Read(ctx, c.number, c.Direct.Keys, true, func(b *row.Batch) error { return c.Direct.Run(b, now, k.add) })
	} else {
		k = newKept(c.Query.Columns.Types(), nil, x.server.opts.QueryBytes)
		err = x.run(ctx, c.served, true, k.add)
	}
	if err != nil {
		return nil, err
	}
	k.sort()
	var out []*row.Batch
	for _, chunk := range k.chunks {
		out = append(out, &chunk.Batch)
	}
	return out, nil
}

// insert adds the rows of a batch, and does what is to be done where keys exist.
func (x *session) insert(ctx context.Context, c *changed, b *row.Batch, now int64, tell func(*row.Batch) error) (int64, error) {
	added, there, err := x.writes.Insert(ctx, c.number, b)
	if err != nil {
		return 0, err
	}
	if len(there.At) == 0 {
		return added, tell(b)
	}
	if c.Upsert.Update == nil && !c.Upsert.Ignore {
		return 0, x.writes.Duplicate(c.number, b, int(there.At[0]))
	}
	fresh := *b
	fresh.Sel = make([]int32, 0, b.Rows())
	for k, next := 0, 0; k < b.Rows(); k++ {
		if i := int32(b.At(k)); next < len(there.At) && there.At[next] == i {
			next++
		} else {
			fresh.Sel = append(fresh.Sel, i)
		}
	}
	if err := tell(&fresh); err != nil {
		return 0, err
	}
	if c.Upsert.Update == nil {
		return added, nil
	}
	excluded := row.NewBuilder(c.view.Schema.Types())
	excluded.Reset()
	excluded.Append(b, there.At)
	pairs := *there.Rows
	pairs.Cols = append(append([]*row.Vector(nil), there.Rows.Cols...), excluded.Seal().Cols...)
	width := len(c.view.Schema)
	k := newKept(c.Upsert.Update.Schema.Types(), nil, x.server.opts.QueryBytes)
	if err := c.Upsert.Update.Run(&pairs, now, k.add); err != nil {
		return 0, err
	}
	k.sort()
	for _, chunk := range k.chunks {
		n, err := x.writes.Update(ctx, c.number, []*row.Batch{&chunk.Batch}, true)
		if err != nil {
			return 0, err
		}
		added += n
		if err := tell(half(&chunk.Batch, width)); err != nil {
			return 0, err
		}
	}
	return added, nil
}
