package dataflow

import (
	"context"

	"github.com/weirstream/weir/engine/row"
)

// Sink publishes the changes of checkpoints to one place outside: a database, a folder, a topic set. It holds one or
// more tables, counted from 0 in the order in which it was made with them. The changes of a checkpoint lie in the
// pipeline's log (the outbox) and come to the sink after the checkpoint is committed, so a sink has no rows to keep and
// no vote: it may be asked for the same checkpoint again after a crash, and has to tell whether it is published already.
//
// One goroutine calls it.
type Sink interface {
	// Open raises the fence to gen, ends whoever published before, and returns the last checkpoint that is published, 0
	// if none is. A sink that cannot tell (a terminal) returns resume, the last one that this process knows of.
	Open(ctx context.Context, gen Generation, resume Checkpoint) (Checkpoint, error)
	// Publish makes the changes visible, all at once where the place allows. It is called in rising order; numbers may be
	// left out where nothing changed. An error leaves open whether it happened: the sink is closed and opened again,
	// which answers that.
	Publish(ctx context.Context, c Checkpoint, changes Changes) error
	// Close returns after everything that Open started has ended. It follows an Open that failed, too.
	Close(ctx context.Context) error
}

// Changes are the rows of a checkpoint in the order in which they are to be applied.
type Changes interface {
	// Next returns the next rows of a table, lent until the following Next, and io.EOF behind the last. Of a keyed
	// table a batch has, for each key, at most a retraction and an insert, in this order.
	Next() (table int, b *row.Batch, err error)
}

// Discarder is a Sink to which nothing of the past matters: rows go to it as they come and are not kept in the outbox.
type Discarder interface {
	// Discard is called from every task, each with a number of its own.
	Discard(task, table int, b *row.Batch)
}
