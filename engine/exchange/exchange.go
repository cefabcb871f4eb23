// Package exchange carries batches between tasks: an Inbox for each task, with a bounded queue for each of its upstream
// tasks and edges, and Senders that spread rows over the inboxes of a fragment's tasks.
//
// Queues are apart, so that a task which aligns on a barrier leaves those alone that are past it and goes on reading the
// others; with one shared queue, rows behind the barrier would block those before it. A full queue blocks its sender:
// that is the backpressure, and since fragments form no cycle, what blocks always waits for somebody further down.
package exchange

import (
	"context"
	"sync"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// Kind says what an Item is.
type Kind uint8

// The kinds.
const (
	Rows Kind = iota + 1
	Barrier
	End     // nothing follows in this queue
	Emptied // of the table whose rows the queue brings to Node
)

// Item is what a queue carries.
type Item struct {
	Kind  Kind
	Node  int // where Rows enter the receiving task, and at which port
	Port  int
	Batch *row.Batch
	Epoch dataflow.Epoch
	Gone  *dataflow.Emptied
	// Release gives the batch back to whoever made it; nil if it may be kept.
	Release func()
}

// Depth is how many items a queue holds.
const Depth = 8

// Inbox is a task's queues. One goroutine takes; each queue has one goroutine that puts.
type Inbox struct {
	mu struct {
		sync.Mutex
		queues []queue
		next   int // where the next take begins to look
	}
	filled chan struct{} // something was put
}

type queue struct {
	items  []Item
	held   bool // its barrier was taken: nothing more until Release
	ended  bool
	vacant chan struct{} // something was taken
}

// NewInbox returns an inbox of n queues.
func NewInbox(n int) *Inbox {
	in := &Inbox{filled: make(chan struct{}, 1)}
	in.mu.queues = make([]queue, n)
	for i := range in.mu.queues {
		in.mu.queues[i].vacant = make(chan struct{}, 1)
	}
	return in
}

// Put adds an item to queue q and blocks while it is full.
func (in *Inbox) Put(ctx context.Context, q int, it Item) error {
	for {
		in.mu.Lock()
		queue := &in.mu.queues[q]
		if len(queue.items) < Depth {
			queue.items = append(queue.items, it)
			in.mu.Unlock()
			select {
			case in.filled <- struct{}{}:
			default:
			}
			return nil
		}
		vacant := queue.vacant
		in.mu.Unlock()
		select {
		case <-vacant:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Take returns the next item of a queue that is not held, and which queue it came from; false if there is none. A queue
// whose barrier or end was taken is held.
func (in *Inbox) Take() (it Item, q int, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := len(in.mu.queues)
	for k := range n {
		q = (in.mu.next + k) % n
		queue := &in.mu.queues[q]
		if queue.held || len(queue.items) == 0 {
			continue
		}
		it = queue.items[0]
		copy(queue.items, queue.items[1:])
		queue.items[len(queue.items)-1] = Item{}
		queue.items = queue.items[:len(queue.items)-1]
		switch it.Kind {
		case Barrier:
			queue.held = true
		case End:
			queue.held, queue.ended = true, true
		}
		in.mu.next = (q + 1) % n
		select {
		case queue.vacant <- struct{}{}:
		default:
		}
		return it, q, true
	}
	return Item{}, 0, false
}

// Aligned tells whether every queue is held.
func (in *Inbox) Aligned() (aligned, ended bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	ended = true
	for i := range in.mu.queues {
		if !in.mu.queues[i].held {
			return false, false
		}
		ended = ended && in.mu.queues[i].ended
	}
	return true, ended
}

// Resume lets go of the queues that were held at a barrier.
func (in *Inbox) Resume() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range in.mu.queues {
		in.mu.queues[i].held = in.mu.queues[i].ended
	}
}

// Filled has a value when something was put since it was last read.
func (in *Inbox) Filled() <-chan struct{} { return in.filled }

// Fill is how many items wait, and how many could.
func (in *Inbox) Fill() (items, room int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range in.mu.queues {
		items += len(in.mu.queues[i].items)
	}
	return items, Depth * len(in.mu.queues)
}

// Target is where a Sender's rows arrive: a queue of a task's inbox, a node and a port there.
type Target struct {
	Inbox      *Inbox
	Queue      int
	Node, Port int
}

// Sender spreads the rows of an edge over its targets, the tasks of the receiving fragment in their order. It belongs to
// the sending task.
type Sender struct {
	ctx     context.Context
	how     dataflow.Routing
	key     []int
	codec   *row.KeyCodec
	types   []row.Type
	targets []Target
	open    []*row.Builder // rows on their way to each target
	spare   spares
	keys    row.Keys
	sel     [][]int32
}

// spares are builders whose batches have come back.
type spares struct {
	sync.Mutex
	free []*row.Builder
}

// NewSender returns a sender for an edge of rows of the types.
func NewSender(ctx context.Context, edge dataflow.Edge, types []row.Type, targets []Target) *Sender {
	return &Sender{ctx: ctx, how: edge.How, key: edge.Key, codec: edge.Codec, types: types, targets: targets,
		open: make([]*row.Builder, len(targets)), sel: make([][]int32, len(targets))}
}

// flushRows is from how many rows on a target's batch is sent before the end of the sender's work.
const flushRows = 1024

// Emit takes rows over: it copies them.
func (s *Sender) Emit(b *row.Batch) error {
	switch {
	case s.how == dataflow.Broadcast:
		for t := range s.targets {
			if err := s.add(t, b, nil); err != nil {
				return err
			}
		}
		return nil
	case s.how == dataflow.ToOne || len(s.targets) == 1:
		return s.add(0, b, nil)
	}
	s.codec.Hash(&s.keys, b, s.key)
	for t := range s.sel {
		s.sel[t] = s.sel[t][:0]
	}
	n := uint64(len(s.targets))
	for k := range b.Rows() {
		i := b.At(k)
		// The top bits of the hash choose the key group, and a task has a range of groups.
		t := (s.keys.Hash[i] >> 48) * n >> 16
		s.sel[t] = append(s.sel[t], int32(i))
	}
	for t := range s.targets {
		if len(s.sel[t]) > 0 {
			if err := s.add(t, b, s.sel[t]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Sender) add(t int, b *row.Batch, sel []int32) error {
	if s.open[t] == nil {
		s.open[t] = s.builder()
	}
	s.open[t].Append(b, sel)
	if s.open[t].Len >= flushRows {
		return s.flush(t)
	}
	return nil
}

func (s *Sender) builder() *row.Builder {
	s.spare.Lock()
	defer s.spare.Unlock()
	if n := len(s.spare.free); n > 0 {
		b := s.spare.free[n-1]
		s.spare.free = s.spare.free[:n-1]
		b.Reset()
		return b
	}
	b := row.NewBuilder(s.types)
	b.Reset()
	return b
}

func (s *Sender) flush(t int) error {
	b := s.open[t]
	s.open[t] = nil
	to := s.targets[t]
	return to.Inbox.Put(s.ctx, to.Queue, Item{Kind: Rows, Node: to.Node, Port: to.Port, Batch: b.Seal(), Release: func() {
		s.spare.Lock()
		s.spare.free = append(s.spare.free, b)
		s.spare.Unlock()
	}})
}

// Flush sends what is on its way.
func (s *Sender) Flush() error {
	for t, b := range s.open {
		if b != nil && b.Len > 0 {
			if err := s.flush(t); err != nil {
				return err
			}
		}
	}
	return nil
}

// Empty tells every target, behind what is on its way, that rows are gone.
func (s *Sender) Empty(e *dataflow.Emptied) error {
	if err := s.Flush(); err != nil {
		return err
	}
	for _, t := range s.targets {
		if err := t.Inbox.Put(s.ctx, t.Queue, Item{Kind: Emptied, Node: t.Node, Port: t.Port, Gone: e}); err != nil {
			return err
		}
	}
	return nil
}

// Barrier sends what is on its way and the barrier behind it, or the end.
func (s *Sender) Barrier(it Item) error {
	if err := s.Flush(); err != nil {
		return err
	}
	for _, t := range s.targets {
		if err := t.Inbox.Put(s.ctx, t.Queue, it); err != nil {
			return err
		}
	}
	return nil
}
