package dataflow

import (
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// Graph is what sql/plan and stream build and engine/worker runs: nodes joined by edges, numbered so that every edge
// comes from a node of a smaller number.
type Graph struct {
	Nodes []Node
}

// Node is an operator of the graph, of which every task of its fragment has an instance.
type Node struct {
	// ID tells the node's state from that of others over restarts and changes of the query: a hash of what the node
	// computes and of its inputs' IDs. Two nodes of one ID are one node.
	ID string
	// Kind and Detail are the line of EXPLAIN: "join", "inner on auction = id".
	Kind, Detail string
	Inputs       []Edge
	// Schema is what the node emits.
	Schema row.Schema
	// Key are the columns of Schema that are different for every row at the end of an epoch; nil if none are known.
	Key []int
	// Append: the node emits inserts only.
	Append bool
	// Single: one task alone runs the node.
	Single bool
	// Make returns a task's instance, which passes its rows to out. nil for a node that only reads (Source) or only
	// writes (Sink).
	Make func(task Task, out Emitter) (Operator, error)
	// Source makes node the place where a table of a source enters the graph.
	Source *SourceTable
	// Sink makes the node the place where rows leave it.
	Sink *SinkTable
	// States are the names of the states that the operator opens, for `weir state size`.
	States []string
	// Keeps says whose present rows can be read back from the node's state: see Keeper.
	Keeps Keeping
}

// Keeping says which rows a node has kept.
type Keeping uint8

// What a node may have kept.
const (
	KeepsNothing Keeping = iota
	KeepsInput           // those of its one input
	KeepsOutput          // those that it has emitted
)

// Keeper is an Operator of a node that keeps rows.
type Keeper interface {
	// Kept gives the rows that the last checkpoint held, with weights above 0, batch by batch, each lent for the call. It is
	// called before the first row and the first barrier.
	Kept(f func(*row.Batch) error) error
}

// Edge is an input of a node.
type Edge struct {
	From int
	// How rows find their task where there are several.
	How Routing
	// Key are the columns, of the node at From, by whose hash rows find their task; Codec makes the hash.
	Key   []int
	Codec *row.KeyCodec
}

// Routing is how an edge spreads rows over tasks.
type Routing uint8

// The ways.
const (
	Forward   Routing = iota // rows stay in their task
	ByKey                    // to the owner of the key's hash
	Broadcast                // to every task
	ToOne                    // to the first task
	Probe                    // no rows: the node finds the one at From in its task (Task.Peer)
)

// SourceTable is a table of a source: which source of the pipeline, which of its tables.
type SourceTable struct {
	Source, Table int
	// Ordered: what a row means depends on those before it, so that all of them go through one task.
	Ordered bool
}

// SinkTable is a table of a sink: which sink of the pipeline, which of its tables.
type SinkTable struct {
	Sink, Table int
	// Key are the columns of the sink's primary key: changes of an epoch are netted by it.
	Key []int
}

// Task is what an operator's instance may use of the task that it lives in.
type Task interface {
	// Index is the task's number, Count how many there are of the fragment.
	Index() int
	Count() int
	// State is the task's state; an operator opens its own with Node.ID.
	State() *state.Store
	// Peer is the instance of another node in the same task: the index that a join probes.
	Peer(node int) Operator
	// Clock is the reading of the last barrier, or of the start.
	Clock() int64
	// Fault takes over a row whose evaluation failed: it goes to the view's error stream with its weight.
	Fault(f Fault)
}

// Fault is a row whose evaluation failed.
type Fault struct {
	Node    string
	Code    string
	Message string
	Weight  int64
}

// Emitter passes a batch on. The batch is lent for the length of the call.
type Emitter interface {
	Emit(b *row.Batch) error
}

// Operator is an instance of a node in a task, called by one goroutine. It keeps nothing of a batch behind the call.
//
// Filter, projection, union and inner join emit on arrival; all others change their state on arrival, and at the
// barrier emit what the epoch changed: f(state N) - f(state N-1) for each key that was touched. Within an epoch a
// weight may be negative; at the barrier no row of a multiset is.
type Operator interface {
	// Process takes rows of input port.
	Process(port int, b *row.Batch) error
	// Barrier ends the epoch, after the Barrier of every node before this one.
	Barrier(e Epoch) error
}

// Emptier is an Operator that keeps the rows of a table with a key, and gives them up when the table is emptied. It is
// called between two batches.
type Emptier interface {
	Empty(e *Emptied) error
}

// Epoch is the stretch between two barriers, told at its end.
type Epoch struct {
	N uint64
	// Clock is the one reading of the clock that the epoch has, in µs since 1970. It never goes back.
	Clock int64
	// Checkpoint: the epoch is also made durable.
	Checkpoint bool
}
