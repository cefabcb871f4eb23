// Package table keeps internal tables: those of a CREATE TABLE without a connector, whose rows clients write.
//
// All internal tables of a pipeline are one source, the Sequencer, and its transactions are messages like those of any
// database's log: whole, in one order. What keeps the rows is the pipeline's own state, and what makes a transaction
// durable is the checkpoint that it is in; there is no journal beside it, so nothing has to be replayed, and a commit
// costs what a checkpoint costs. Transactions that wait while one is being made go with the next.
//
// A transaction (Tx) reads a snapshot: the rows of an epoch that is held, with what was accepted since laid over them. It
// writes into memory of its own, and is compared with what others have done when it commits: if a row that it has read or
// written was changed since its snapshot, it fails and may be tried again. So no one waits for a lock, and a client that
// goes away leaves nothing behind.
package table

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
)

// Def is a table.
type Def struct {
	Name   string
	Schema row.Schema
	Key    []int // of the primary key; nil: rows may be equal
}

// Options configures a Sequencer. The zero value of a field means its default.
type Options struct {
	// TxBytes is how much a transaction may read by key and write; default 256 MiB.
	TxBytes int64
	// KeptBytes is how much accepted transactions may take in memory until they are durable and no transaction needs them
	// any more; default 256 MiB. Beyond it transactions that have been open since before end, and then commits wait.
	KeptBytes int64
	// OnCommit is told how long a commit took until it was durable, or until it failed; nil: nobody is.
	OnCommit func(took time.Duration, failed bool)
}

// Fault is why a statement or a transaction cannot be. State is the SQLSTATE that Postgres has for it.
type Fault struct {
	State, Message, Detail, Hint string
}

func (f *Fault) Error() string { return f.Message }

// Conflict tells that another transaction came first, so that this one may be tried again.
func (f *Fault) Conflict() bool { return f.State == stateConflict }

// The SQLSTATEs.
const (
	stateTooLong  = "22001"
	stateNotNull  = "23502"
	stateUnique   = "23505"
	stateTwice    = "21000"
	stateConflict = "40001"
	stateTooOld   = "72000"
	stateTooLarge = "54000"
	stateEnded    = "57P01"
	stateUnknown  = "08007"
)

// Base is an epoch of the pipeline that is held: the rows of all tables as they were then.
type Base interface {
	Epoch() uint64
	// Read gives the rows of a table, with their weights, to f; with keys, whose columns are those of the table's key, only
	// the rows of these. Batches are lent.
	Read(ctx context.Context, table int, keys *row.Batch, f func(*row.Batch) error) error
	Release()
}

// Sequencer puts the transactions of a pipeline's internal tables into one order and is the source that they enter by.
// It is made for one start of the pipeline.
type Sequencer struct {
	env    *env.Env
	opts   Options
	tables []*table
	work   chan struct{} // something was accepted
	// gate is held by whoever accepts, and by a transaction that has lost to others too often and goes first now.
	gate   chan struct{}
	ended  chan struct{} // closed by Close
	source source

	mu struct {
		sync.Mutex
		head    uint64 // the last transaction that was accepted
		durable uint64
		epochs  []epoch // which epochs had new transactions, rising
		pruned  uint64  // what lies over the epochs begins behind it
		over    []overlay
		trail   []step // what the overlays hold, in order
		bytes   int64  // of it
		queue   []*accepted
		waiting []waiter
		open    map[*Tx]struct{}
		moved   chan struct{} // closed when durable rises or a transaction ends
		ended   bool
	}
}

// epoch is an epoch with the last transaction that it has.
type epoch struct{ n, seq uint64 }

// step is a change in an overlay.
type step struct {
	seq   uint64
	table int
	key   string
	bytes int64
}

type waiter struct {
	seq  uint64
	done chan error
}

// accepted is a transaction that is on its way into the pipeline.
type accepted struct {
	seq     uint64
	changes [][]change // by table
}

// change is a binary row with its weight.
type change struct {
	row    []byte
	weight int64
}

// table is a Def with its codecs.
type table struct {
	Def
	types  []row.Type
	keys   []row.Type
	cols   []int // of the key; of a table without one all
	codec  *row.Codec
	key    *row.KeyCodec
	keyed  bool
	number int
}

// New returns a Sequencer of tables, which the pipeline numbers in this order.
func New(e *env.Env, defs []Def, o Options) *Sequencer {
	if o.TxBytes == 0 {
		o.TxBytes = 256 << 20
	}
	if o.KeptBytes == 0 {
		o.KeptBytes = 256 << 20
	}
	s := &Sequencer{env: e, opts: o, work: make(chan struct{}, 1), gate: make(chan struct{}, 1), ended: make(chan struct{})}
	for i, d := range defs {
		t := &table{Def: d, types: d.Schema.Types(), cols: d.Key, keyed: d.Key != nil, number: i}
		if !t.keyed {
			for c := range d.Schema {
				t.cols = append(t.cols, c)
			}
		}
		for _, c := range t.cols {
			t.keys = append(t.keys, t.types[c])
		}
		t.codec, t.key = row.NewCodec(t.types), row.GroupKey(t.keys)
		s.tables = append(s.tables, t)
	}
	s.mu.over = make([]overlay, len(defs))
	for i := range s.mu.over {
		s.mu.over[i].rows = map[string][]version{}
	}
	s.mu.open, s.mu.moved = map[*Tx]struct{}{}, make(chan struct{})
	return s
}

// Tables are the tables, in order.
func (s *Sequencer) Tables() []Def {
	var out []Def
	for _, t := range s.tables {
		out = append(out, t.Def)
	}
	return out
}

// Table is the number of a table, -1 if there is none of the name.
func (s *Sequencer) Table(name string) int {
	for i, t := range s.tables {
		if t.Name == name {
			return i
		}
	}
	return -1
}

// keyOf appends the key of row i of a batch with all columns.
func (t *table) keyOf(dst []byte, b *row.Batch, i int) []byte { return t.key.Append(dst, b, t.cols, i) }

const seqKey = "transaction"

func seqOf(changed []dataflow.StateChange) uint64 {
	seq := uint64(0)
	for _, c := range changed {
		if c.Key == seqKey && len(c.Value) == 8 {
			seq = max(seq, binary.BigEndian.Uint64(c.Value))
		}
	}
	return seq
}
