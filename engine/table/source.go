package table

import (
	"context"
	"encoding/binary"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// source is what Read has in hand.
type source struct {
	messages []dataflow.Message
	rows     [][]byte
}

// Open is part of dataflow.Source.
func (s *Sequencer) Open(_ context.Context, state dataflow.State) error {
	seq := uint64(0)
	if v := state[seqKey]; len(v) == 8 {
		seq = binary.BigEndian.Uint64(v)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.head, s.mu.durable, s.mu.pruned = seq, seq, seq
	s.mu.epochs = []epoch{{0, seq}}
	return nil
}

// atOnce is about how many rows Read takes at once from transactions that wait.
const atOnce = 64 << 10

// Read is part of dataflow.Source. Transactions that wait come together, with a boundary behind the last.
func (s *Sequencer) Read(ctx context.Context) (dataflow.Message, error) {
	for len(s.source.messages) == 0 {
		select {
		case <-s.work:
			s.take()
		case <-ctx.Done():
			return dataflow.Message{}, ctx.Err()
		case <-s.ended:
			return dataflow.Message{}, &Fault{State: stateEnded, Message: "the pipeline has ended"}
		}
	}
	m := s.source.messages[0]
	s.source.messages = s.source.messages[1:]
	return m, nil
}

// take makes messages of the transactions that wait.
func (s *Sequencer) take() {
	s.mu.Lock()
	n, rows := 0, 0
	for n < len(s.mu.queue) && rows < atOnce {
		for _, cs := range s.mu.queue[n].changes {
			rows += len(cs)
		}
		n++
	}
	txs := s.mu.queue[:n:n]
	if s.mu.queue = s.mu.queue[n:]; len(s.mu.queue) > 0 {
		s.poke()
	} else {
		s.mu.queue = nil
	}
	s.mu.Unlock()
	if n == 0 {
		return
	}
	src := &s.source
	src.messages = nil
	for _, t := range s.tables {
		var b *row.Builder
		src.rows = src.rows[:0]
		flush := func() {
			if len(src.rows) == 0 {
				return
			}
			for c := range b.Cols {
				t.codec.Decode(b.Cols[c], 0, c, src.rows)
			}
			src.messages = append(src.messages, dataflow.Message{Kind: dataflow.KindBatch, Table: t.number, Batch: b.Seal()})
			src.rows = src.rows[:0]
		}
		for _, tx := range txs {
			for _, c := range tx.changes[t.number] {
				if len(src.rows) == 0 {
					b = row.NewBuilder(t.types)
					b.Reset()
				}
				src.rows = append(src.rows, c.row)
				b.EndRow(c.weight)
				if len(src.rows) == row.MaxBatch {
					flush()
				}
			}
		}
		flush()
	}
	seq := txs[n-1].seq
	last := &src.messages[len(src.messages)-1]
	last.Boundary, last.Urgent = true, true
	last.State = []dataflow.StateChange{{Key: seqKey, Value: binary.BigEndian.AppendUint64(nil, seq)}}
}

func (s *Sequencer) poke() {
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// Lasting is part of dataflow.Lasting.
func (s *Sequencer) Lasting() {}

// Visible is part of dataflow.Follower.
func (s *Sequencer) Visible(n uint64, changed []dataflow.StateChange) {
	seq := seqOf(changed)
	if seq == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.epochs = append(s.mu.epochs, epoch{n, seq})
}

// moved wakes who waits for something to be durable or to end. The caller has locked.
func (s *Sequencer) moved() {
	close(s.mu.moved)
	s.mu.moved = make(chan struct{})
}

// Durable is part of dataflow.Follower.
func (s *Sequencer) Durable(changed []dataflow.StateChange) {
	seq := seqOf(changed)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.durable = max(s.mu.durable, seq)
	n := 0
	for ; n < len(s.mu.waiting) && s.mu.waiting[n].seq <= s.mu.durable; n++ {
		s.mu.waiting[n].done <- nil
	}
	s.mu.waiting = s.mu.waiting[n:]
	s.prune()
	s.moved()
}

// Confirm is part of dataflow.Source.
func (s *Sequencer) Confirm([]dataflow.StateChange) {}

// Close is part of dataflow.Source. What was accepted and is not durable has an outcome that only the next start knows.
func (s *Sequencer) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.ended {
		return nil
	}
	s.mu.ended = true
	close(s.ended)
	for _, w := range s.mu.waiting {
		w.done <- &Fault{State: stateUnknown, Message: "the pipeline ended before the transaction was known to be durable",
			Hint: "it is there as a whole or not at all: look when the pipeline runs again"}
	}
	s.mu.waiting, s.mu.queue = nil, nil
	s.moved()
	return nil
}
