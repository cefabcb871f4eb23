package pgwire

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/plan"
)

// column is a column of an answer.
type column struct {
	name string
	typ  row.Type
	pg   pgType
}

func columnsOf(s row.Schema) []column {
	out := make([]column, len(s)) // not nil: a query without columns has rows all the same
	for i, f := range s {
		out[i] = column{f.Name, f.Type, typeOf(f.Type)}
	}
	return out
}

func formatOf(formats []int16, i int) int16 {
	switch {
	case len(formats) == 0:
		return 0
	case len(formats) == 1:
		return formats[0]
	}
	return formats[i]
}

func describeRows(cols []column, formats []int16) *pgproto3.RowDescription {
	d := &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{}}
	for i, c := range cols {
		d.Fields = append(d.Fields, pgproto3.FieldDescription{Name: []byte(c.name), DataTypeOID: c.pg.oid, DataTypeSize: c.pg.size,
			TypeModifier: c.pg.mod, Format: formatOf(formats, i)})
	}
	return d
}

// portal is a statement that is being executed.
type portal struct {
	of        *prepared
	params    []plan.Param
	formats   []int16
	described bool     // the client has asked for the columns, or will not
	limit     int      // rows of this Execute; 0: all
	planned   *changed // of a statement that writes; nil: it is planned when it is executed
	alone     bool     // nothing else came with it
	kept      *kept
	sent      int // rows of kept
	total     int
}

// send sends the rows of a batch, each as often as its weight says.
func (x *session) send(o *portal, b *row.Batch) error {
	for k := range b.Rows() {
		i := b.At(k)
		x.encode(o, b, i)
		for range b.Weight(i) {
			x.back.Send(&pgproto3.DataRow{Values: x.values})
			o.total++
		}
	}
	return x.back.Flush()
}

// encode sets values to those of a row.
func (x *session) encode(o *portal, b *row.Batch, i int) {
	cols := o.of.columns
	x.scratch, x.values = x.scratch[:0], x.values[:0]
	var ends [64]int
	at := ends[:0]
	for c := range cols {
		v := b.Cols[c]
		if v.Nulls.Is(i) {
			at = append(at, -1)
			continue
		}
		if formatOf(o.formats, c) == 1 {
			x.scratch = appendBinary(x.scratch, cols[c].typ, v, i, x.zone)
		} else {
			x.scratch = appendText(x.scratch, cols[c].typ, v, i, x.zone)
		}
		at = append(at, len(x.scratch))
	}
	from := 0
	for _, end := range at {
		if end < 0 {
			x.values = append(x.values, nil)
			continue
		}
		x.values = append(x.values, x.scratch[from:end:end])
		from = end
	}
}

// answer executes a statement.
func (x *session) answer(ctx context.Context, p *prepared, o *portal) error {
	if p.change != nil {
		return x.write(ctx, p, o)
	}
	if p.copies != nil {
		return x.copyIn(ctx, p)
	}
	x.flushTag()
	x.again = nil
	if p.commits {
		if err := x.commit(ctx); err != nil {
			x.tx = idle
			x.release()
			return err
		}
	}
	if p.act != nil {
		if err := p.act(x); err != nil {
			return err
		}
	}
	if p.do != nil {
		if err := p.do(ctx, x); err != nil {
			return err
		}
	}
	if p.columns == nil {
		x.back.Send(&pgproto3.CommandComplete{CommandTag: []byte(p.tag)})
		return nil
	}
	if !o.described {
		x.back.Send(describeRows(p.columns, o.formats))
	}
	o.total = 0
	switch {
	case o.kept != nil: // another Execute
	case p.rows != nil:
		if o.limit == 0 {
			if err := x.send(o, p.rows(x)); err != nil {
				return err
			}
			return x.complete(p, o)
		}
		o.kept = newKept(p.types0(), nil, x.server.opts.ResultBytes)
		if err := o.kept.add(p.rows(x)); err != nil {
			return err
		}
	default:
		q, err := x.plan(p, o.params)
		if err != nil {
			return err
		}
		if len(q.Order) == 0 && o.limit == 0 {
			if err := x.run(ctx, q, p.locks, func(b *row.Batch) error { return x.send(o, b) }); err != nil {
				return err
			}
			return x.complete(p, o)
		}
		o.kept = newKept(q.Sinks[0].Tables[0].Schema.Types(), q.Order, x.server.opts.ResultBytes)
		if err := x.run(ctx, q, p.locks, o.kept.add); err != nil {
			o.kept = nil
			return err
		}
		o.kept.sort()
	}
	for o.sent < o.kept.len() && (o.limit == 0 || o.total < o.limit) {
		b, i := o.kept.at(o.sent)
		x.encode(o, b, i)
		x.back.Send(&pgproto3.DataRow{Values: x.values})
		o.sent++
		if o.total++; o.total%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := x.back.Flush(); err != nil {
				return err
			}
		}
	}
	if o.limit > 0 && o.total == o.limit && o.sent < o.kept.len() {
		x.back.Send(&pgproto3.PortalSuspended{})
		return nil
	}
	return x.complete(p, o)
}

func (x *session) complete(p *prepared, o *portal) error {
	tag := p.tag
	if tag == "" {
		tag = fmt.Sprint("SELECT ", o.total)
	}
	x.back.Send(&pgproto3.CommandComplete{CommandTag: []byte(tag)})
	return nil
}

// run answers a query from the views as the session sees them. With depends the answer is written: see table.Tx.
func (x *session) run(ctx context.Context, q *served, depends bool, out func(*row.Batch) error) error {
	once := keyed.Once{Graph: q.Graph, Types: q.Sinks[0].Tables[0].Schema.Types(), MemoryBytes: x.server.opts.QueryBytes}
	for n := range q.Graph.Nodes {
		if q.Graph.Nodes[n].Sink != nil {
			once.Append = q.Graph.Nodes[n].Append
		}
	}
	for i := range q.Sources {
		src := &q.Sources[i]
		if src.Connector == "values" {
			once.Sources = append(once.Sources, []keyed.Rows{func(f func(*row.Batch) error) error { return f(src.Rows) }})
			continue
		}
		var tables []keyed.Rows
		for j := range src.Tables {
			t := &src.Tables[j]
			// The graph gets the columns that it needs.
			narrow := func(f func(*row.Batch) error) func(*row.Batch) error {
				return func(b *row.Batch) error {
					part := *b
					part.Cols = make([]*row.Vector, len(t.Columns))
					for k, c := range t.Columns {
						part.Cols[k] = b.Cols[c]
					}
					return f(&part)
				}
			}
			r := q.relations[t.Name]
			if r.system != nil {
				tables = append(tables, func(f func(*row.Batch) error) error { return narrow(f)(r.system(x)) })
				continue
			}
			read, err := x.reader(ctx, r.view, q.Keys[i], depends)
			if err != nil {
				return err
			}
			tables = append(tables, func(f func(*row.Batch) error) error { return read(narrow(f)) })
		}
		once.Sources = append(once.Sources, tables)
	}
	return keyed.RunOnce(ctx, x.server.env, once, out)
}

// kept is a result in memory.
type kept struct {
	types  []row.Type
	order  []plan.OrderColumn
	key    *row.KeyCodec
	cols   []int
	chunks []*row.Builder
	refs   []ref
	heap   []byte // keys
	bytes  int64
	limit  int64
}

// ref is a row: its place, and its key in the heap.
type ref struct {
	chunk, row int32
	off, len   uint32
}

func newKept(types []row.Type, order []plan.OrderColumn, limit int64) *kept {
	k := &kept{types: types, order: order, limit: limit}
	if len(order) > 0 {
		var cols []row.KeyColumn
		for _, o := range order {
			k.cols = append(k.cols, o.Column)
			cols = append(cols, row.KeyColumn{Type: types[o.Column], Desc: o.Desc, NullsLast: o.NullsLast})
		}
		k.key = row.NewKeyCodec(cols, false)
	}
	return k
}

func (k *kept) add(b *row.Batch) error {
	n := len(k.chunks)
	if n == 0 || k.chunks[n-1].Len+b.Rows() > row.MaxBatch {
		c := row.NewBuilder(k.types)
		c.Reset()
		k.chunks = append(k.chunks, c)
		n++
	}
	c := k.chunks[n-1]
	first := c.Len
	c.Append(b, nil)
	before := len(k.heap)
	for i := first; i < c.Len; i++ {
		r := ref{chunk: int32(n - 1), row: int32(i), off: uint32(len(k.heap))}
		if k.key != nil {
			k.heap = k.key.Append(k.heap, &c.Batch, k.cols, i)
			r.len = uint32(len(k.heap)) - r.off
		}
		for range c.Weight(i) {
			k.refs = append(k.refs, r)
			k.bytes += 16
		}
	}
	k.bytes += int64(len(k.heap) - before)
	for col, t := range k.types {
		switch t.Layout() {
		case row.LayoutBytes:
			for _, s := range c.Cols[col].Spans[first:] {
				k.bytes += int64(s.Len) + 8
			}
		case row.LayoutDecimal:
			k.bytes += 16 * int64(c.Len-first)
		default:
			k.bytes += 8 * int64(c.Len-first)
		}
	}
	if k.bytes > k.limit {
		return errs.New(errs.QueryMemory, "the result is larger than the %d MiB that may be kept of one", k.limit>>20).
			WithHint("add a LIMIT, or leave out ORDER BY and fetch without a cursor: then the rows are sent as they come")
	}
	return nil
}

func (k *kept) sort() {
	for _, c := range k.chunks {
		c.Seal()
	}
	if k.key != nil {
		slices.SortStableFunc(k.refs, func(a, b ref) int {
			return bytes.Compare(k.heap[a.off:a.off+a.len], k.heap[b.off:b.off+b.len])
		})
	}
}

func (k *kept) len() int { return len(k.refs) }

func (k *kept) at(i int) (*row.Batch, int) {
	r := k.refs[i]
	return &k.chunks[r.chunk].Batch, int(r.row)
}
