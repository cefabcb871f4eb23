package keyed

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/exchange"
	"github.com/weirstream/weir/engine/row"
)

// feeder reads a source and puts its rows into the tasks where its tables enter. One goroutine reads, which may block for
// long; another passes on and cuts, so that a barrier never waits for a row.
type feeder struct {
	p        *Pipeline
	number   int
	source   dataflow.Source
	tables   [][]entry    // by table: where its rows enter
	inboxes  []inboxQueue // every task that gets rows of this source
	messages chan dataflow.Message
	cuts     chan dataflow.Epoch
	open     chan struct{}  // closed when rows may pass
	state    dataflow.State // as of the last cut
	pending  []dataflow.StateChange
	rows     atomic.Int64
	agrees   bool         // its tables, with each other
	urgent   atomic.Int64 // messages for whose durability somebody waits
	turn     int
	spare    copies
}

// entry is a node at which a table enters, in each task of its fragment.
type entry struct {
	node    int
	ordered bool
	tasks   []inboxQueue
}

// of is the task that gets the next batch of a table, if turn counts batches.
func (e *entry) of(table, turn int) inboxQueue {
	if e.ordered {
		turn = table
	}
	return e.tasks[turn%len(e.tasks)]
}

type inboxQueue struct {
	inbox *exchange.Inbox
	queue int
}

// read hands the source's messages over until its end. After an error it leaves the channel open: feed takes a closed one
// for the end of the source, where it may cut, but an error may come in the middle of a transaction.
func (f *feeder) read(ctx context.Context) error {
	_, lasting := f.source.(dataflow.Lasting)
	for {
		m, err := f.source.Read(ctx)
		if err != nil {
			return err
		}
		if m.Kind == dataflow.KindBatch && !lasting {
			m.Batch = f.spare.keep(f.p.opts.Sources[f.number].Tables[m.Table], m.Batch)
		}
		select {
		case f.messages <- m:
		case <-ctx.Done():
			return ctx.Err()
		}
		if m.Kind == dataflow.KindEnd {
			close(f.messages)
			return nil
		}
	}
}

// feed passes messages on and cuts the stream where no transaction is open.
func (f *feeder) feed(ctx context.Context) error {
	// What is whole from the beginning has a first message before the first epoch ends.
	_, whole := f.source.(dataflow.Whole)
	boundary := !whole
	var cut *dataflow.Epoch
	var messages <-chan dataflow.Message
	open := f.open
	for {
		if cut == nil {
			select {
			case e := <-f.cuts:
				cut = &e
			default:
			}
		}
		if cut != nil && boundary {
			if err := f.barrier(ctx, *cut); err != nil {
				return err
			}
			cut = nil
			continue
		}
		wanted := f.cuts
		if cut != nil {
			wanted = nil
		}
		from := messages
		var room <-chan struct{}
		if boundary {
			if room = f.p.pressure.waits(); room != nil {
				from = nil
			}
		}
		select {
		case <-room:
		case m, ok := <-from:
			if !ok {
				// Cuts go on, but not behind the half of a transaction, if the source failed in one: until the
				// pipeline has ended for it, a checkpoint could still be made.
				messages = nil
				continue
			}
			boundary = m.Boundary || m.Kind == dataflow.KindEnd
			f.pending = append(f.pending, m.State...)
			f.agrees = f.agrees || m.Consistent || m.Kind == dataflow.KindEnd
			switch m.Kind {
			case dataflow.KindEmptied:
				if err := f.emptied(ctx, m); err != nil {
					return err
				}
				f.p.stirred()
			case dataflow.KindBatch:
				if err := f.rowsOf(ctx, m); err != nil {
					return err
				}
				f.p.stirred()
			case dataflow.KindEnd:
				f.p.end(f.number)
			case dataflow.KindMark:
				if len(m.State) > 0 {
					f.p.stirred()
				}
			default:
				return unexpected(f.p.opts.Sources[f.number].Name, m.Kind)
			}
			if m.Urgent {
				f.urgent.Add(1)
				f.p.hurried()
			}
		case <-open:
			messages, open = f.messages, nil
		case e := <-wanted:
			cut = &e
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// emptied tells each node at which a table enters that some of its rows are gone.
func (f *feeder) emptied(ctx context.Context, m dataflow.Message) error {
	for _, e := range f.tables[m.Table] {
		if !e.ordered {
			return unexpected(f.p.opts.Sources[f.number].Name, m.Kind)
		}
		to := e.of(m.Table, 0)
		if err := to.inbox.Put(ctx, to.queue, exchange.Item{Kind: exchange.Emptied, Node: e.node, Gone: m.Emptied}); err != nil {
			return err
		}
	}
	return nil
}

// rowsOf gives a batch to a task of each node at which its table enters, the tasks taking turns where order means nothing.
func (f *feeder) rowsOf(ctx context.Context, m dataflow.Message) error {
	f.rows.Add(int64(m.Batch.Rows()))
	entries := f.tables[m.Table]
	release := f.spare.release(m.Batch, len(entries))
	if len(entries) == 0 && release != nil {
		release()
	}
	f.turn++
	for _, e := range entries {
		to := e.of(m.Table, f.turn)
		if err := to.inbox.Put(ctx, to.queue, exchange.Item{Kind: exchange.Rows, Node: e.node, Batch: m.Batch, Release: release}); err != nil {
			return err
		}
	}
	return nil
}

func (f *feeder) barrier(ctx context.Context, e dataflow.Epoch) error {
	for _, c := range f.pending {
		if c.Value == nil {
			delete(f.state, c.Key)
		} else {
			f.state[c.Key] = c.Value
		}
	}
	changed := f.pending
	f.pending = nil
	for _, q := range f.inboxes {
		if err := q.inbox.Put(ctx, q.queue, exchange.Item{Kind: exchange.Barrier, Epoch: e}); err != nil {
			return err
		}
	}
	c := cutDone{source: f.number, epoch: e.N, changed: changed, agrees: f.agrees, urgent: f.urgent.Load()}
	if e.Checkpoint {
		c.state = maps.Clone(f.state)
	}
	select {
	case f.p.cutDone <- c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// copies keeps batches that their source will use again, in builders that come back.
type copies struct {
	mu   sync.Mutex
	free map[*row.Type][]*row.Builder // by the table's types
	of   map[*row.Batch]*kept
}

type kept struct {
	builder *row.Builder
	types   *row.Type
	readers atomic.Int32
}

func (c *copies) keep(types []row.Type, b *row.Batch) *row.Batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.free == nil {
		c.free, c.of = map[*row.Type][]*row.Builder{}, map[*row.Batch]*kept{}
	}
	var id *row.Type
	if len(types) > 0 {
		id = &types[0]
	}
	var to *row.Builder
	if free := c.free[id]; len(free) > 0 {
		to, c.free[id] = free[len(free)-1], free[:len(free)-1]
	} else {
		to = row.NewBuilder(types)
	}
	to.Reset()
	to.Append(b, nil)
	batch := to.Seal()
	c.of[batch] = &kept{builder: to, types: id}
	return batch
}

// release is what the last of a batch's readers calls; nil if the batch need not come back.
func (c *copies) release(b *row.Batch, readers int) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.of[b]
	if k == nil {
		return nil
	}
	k.readers.Store(int32(max(readers, 1)))
	return func() {
		if k.readers.Add(-1) > 0 {
			return
		}
		c.mu.Lock()
		delete(c.of, b)
		c.free[k.types] = append(c.free[k.types], k.builder)
		c.mu.Unlock()
	}
}
