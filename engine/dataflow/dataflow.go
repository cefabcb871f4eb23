// Package dataflow is the contract between the engine and its parts: what a Source, a Target and the messages between
// them promise. engine/worker runs any of them; test/conform holds every one of them to this page.
//
// A pipeline's time is the epoch. A Source hands over messages in order and marks those after which no source
// transaction is open; only there may the worker cut. A cut takes along the source state that its messages carried, and
// whoever commits the cut stores rows and state in one atomic unit, so that a restart reads on exactly behind the rows
// that are visible.
package dataflow

import (
	"context"
	"time"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/row"
)

// Generation is minted by the catalog at each start, recovery or placement of a pipeline. Everything a worker does
// outside carries it, and whoever has seen a larger one refuses.
type Generation uint64

// Checkpoint numbers the cuts of a pipeline. It rises by one and no number returns.
type Checkpoint uint64

// State is what a source must get back to go on: its position, copy cursors, schema versions. Keys are the source's
// own; values are opaque to everybody else.
type State map[string][]byte

// StateChange sets a key, or deletes it when Value is nil.
type StateChange struct {
	Key   string
	Value []byte
}

// Kind tells which field of a Message is set.
type Kind uint8

// The kinds of messages.
const (
	KindRows       Kind = iota + 1 // Rows
	KindSchema                     // Schema
	KindTruncate                   // Truncate
	KindChunk                      // Chunk: rows of a table's copy
	KindMark                       // nothing but State and Boundary: a position moved without rows
	KindOpenRows                   // Rows of a transaction that has not committed yet: Tx names it
	KindOpenAbort                  // the open transaction Tx, or its subtransaction Sub, was rolled back
	KindOpenCommit                 // the open transaction Tx committed here
	KindEnd                        // the source has no more to give
	KindBatch                      // Batch: typed changes of table number Table
	KindEmptied                    // Emptied: rows of table number Table that are gone
)

// Message is what flows from a source to a target. Passing it on passes ownership of Rows.
type Message struct {
	Kind     Kind
	Rows     *changelog.Rows
	Schema   *changelog.SchemaChange
	Truncate *changelog.Truncate
	Chunk    *Chunk
	Tx, Sub  uint32

	// Batch is lent until the next Read. Its columns are those that the source was asked for, of the table that Table
	// counts in the order in which the source was given its tables.
	Batch *row.Batch
	Table int
	// Emptied stands between the batches of its table at its place.
	Emptied *Emptied

	// Boundary: no source transaction is open behind this message, so a cut may follow it.
	Boundary bool
	// Urgent: somebody waits until what came up to this message is durable, so the next cut had better be a checkpoint.
	Urgent bool
	// State is stored with the first cut at or behind this message.
	State []StateChange
	// Consistent: the first copy is complete and the stream is past everything that its ranges saw, so that from here on
	// the tables agree with each other. Sent once, alone.
	Consistent bool
	// Commit is the source's time of the last transaction in the message, zero if it has none.
	Commit time.Time
}

// Emptied takes rows of a table with a key away that are not named one by one: all of them, or those whose integer in the
// Column-th column lies in (After, Through]; nil bounds are open.
type Emptied struct {
	Column         int
	After, Through *int64
}

// All tells that no row of the table is left.
func (e *Emptied) All() bool { return e.After == nil && e.Through == nil }

// Chunk is a key range of a table that is copied while its log streams. Its rows are inserts.
type Chunk struct {
	Rel *changelog.Relation
	// Replace: the range may already hold rows, which the chunk replaces.
	Replace bool
	// Key names the columns that bound the range (After, Through] and holds their values as text; nil bounds are open,
	// and without Key the chunk is the whole table.
	Key            []string
	After, Through []string
}

// Source reads one database or topic set. One task calls it from a single goroutine, except Confirm and Status, which
// may be called from another.
type Source interface {
	// Open connects and gets ready to read behind what state tells; an empty state means from the beginning. The
	// source must refuse, with a named error, to go on where something between would be missing.
	Open(ctx context.Context, state State) error
	// Read returns the next message and blocks until there is one or ctx ends. The caller owns it.
	Read(ctx context.Context) (Message, error)
	// Confirm: every target has made the cut that stored state durable. A slot moves only here; moved earlier, a crash
	// loses rows. It does not block on the network.
	Confirm(state []StateChange)
	// Close ends what Open started and returns after its goroutines have left. It follows an Open that failed, too.
	Close(ctx context.Context) error
}

// Lasting is a Source whose batches are never used again: they need not be copied to be kept.
type Lasting interface {
	Lasting()
}

// Follower is a Source that is told how far its cuts have come. The worker calls from goroutines of its own, which must
// not be blocked; changed is what the messages before the cut carried.
type Follower interface {
	// Visible: every task has passed the epoch, which nobody can have read before. Until its changes are durable, readers
	// get an older one.
	Visible(epoch uint64, changed []StateChange)
	// Durable: the checkpoint that has the changes is committed. The sinks may not have published it yet.
	Durable(changed []StateChange)
}

// Whole is a Source that is as it is from the beginning, such as VALUES: it gives its rows at once, and no epoch has less
// of it than all.
type Whole interface {
	Whole()
}

// Agreeing is a Source whose tables need not agree with each other from the beginning, because their first copy takes more
// than one epoch. What is computed of them until then is seen by nobody.
type Agreeing interface {
	// Agrees tells, behind Open, whether they agree from there on; otherwise a Message will say Consistent.
	Agrees() bool
	// Copied is how many rows of the first copy have been read by now, of about how many; of 0 if it is not known. It may be
	// called at any time.
	Copied() (rows, of int64)
}

// Preparer is what a Source may have besides: the part of Open that needs no state, which the caller may let run while
// it finds the state out. Close follows it also when Open does not.
type Preparer interface {
	Prepare(ctx context.Context) error
}

// Cut is the end of an epoch.
type Cut struct {
	Checkpoint Checkpoint
	Clock      time.Time
	State      []StateChange
	// Durable: nothing goes on before the cut is durable, so it had better be made so at once.
	Durable bool
}

// Restored is what the last committed cut left behind.
type Restored struct {
	Checkpoint Checkpoint
	State      State
}

// Ack is a target's word about a cut, in order of checkpoints.
type Ack struct {
	Checkpoint Checkpoint
	Durable    bool // survives a crash of the target; without it the cut is only visible
	Err        error
	Rows       int64
	Busy       time.Duration // how long the target worked on the epoch
}

// Target is a sink that is the truth of its pipeline: it stores positions in the same transaction as the rows, and
// that transaction is the commit point. (Sinks behind a prepared outbox have their own contract.)
type Target interface {
	// Open raises the fence to gen, ends whoever held it before, and returns what the last cut stored.
	Open(ctx context.Context, gen Generation) (Restored, error)
	// Write takes m over. It may block while the target is slow; it must not make anything visible.
	Write(ctx context.Context, m Message) error
	// Commit makes everything written since the last Commit visible at once, together with the cut. It returns when
	// the work is handed over; the outcome comes as an Ack. After an Ack with an error the Target must be closed and
	// opened again, which decides by the ledger what became of the cuts in flight.
	Commit(ctx context.Context, cut Cut) error
	// Acks is closed by Close. A cut is acknowledged as visible once, and as durable once.
	Acks() <-chan Ack
	Close(ctx context.Context) error
}

// Range is a piece of the first copy that runs beside the stream: a table, or part of it, read under one view of the
// source. Ranges of one Copier are independent of each other.
type Range struct {
	ID       string // unique in the pipeline and stable over restarts
	Rel      *changelog.Relation
	EstRows  int64
	EstBytes int64
}

// RangeStream yields a range in a format that the loader understands as a whole, such as Postgres's COPY.
type RangeStream interface {
	// Format is "pgcopy-binary" or "pgcopy-text"; Columns are in the order of the stream.
	Format() string
	Columns() []string
	// Next returns the next piece, valid until the next call, or io.EOF. Pieces need not end with a row.
	Next(ctx context.Context) ([]byte, error)
	// Rows is how many rows the stream held, known after io.EOF.
	Rows() int64
	Close() error
}

// Copier is a Source that can copy ranges in parallel before its stream starts. The worker loads every range that
// Ranges returns before the first Read.
type Copier interface {
	// Copied tells that the state of CopyDone is stored: nothing of the first copy is left to do.
	Copied() bool
	// Ranges is what is left to copy; empty when the first copy is complete. State is stored with a cut before the
	// first range is loaded.
	Ranges(ctx context.Context) (ranges []Range, state []StateChange, err error)
	// OpenRange may be called from several goroutines at once, each with a number of its own, the worker's.
	OpenRange(ctx context.Context, worker int, r Range) (RangeStream, error)
	// RangeState is stored by the loader in the transaction that makes the range's rows durable.
	RangeState(r Range, rows int64) []StateChange
	// CopyDone is called after the last range; its state is stored with a cut before the first Read.
	CopyDone(ctx context.Context) ([]StateChange, error)
}

// TableFinisher is a Loader that builds what a table needs as soon as its last range is loaded, while others are still
// being copied. FinishCopy does what was not done. beside: others still are, so that the machine has enough to do.
type TableFinisher interface {
	FinishTable(ctx context.Context, worker int, rel *changelog.Relation, beside bool) error
}

// Loader is a Target that can load ranges on connections of its own. It may be called from several goroutines at once.
type Loader interface {
	// Load stores the range and state in one transaction under the fence. progress is told about rows as they pass.
	Load(ctx context.Context, worker int, r Range, s RangeStream, state func(rows int64) []StateChange, progress func(bytes int64)) (rows int64, err error)
	// FinishCopy builds what the stream needs and the copy was faster without: primary keys.
	FinishCopy(ctx context.Context) error
	// FinishConstraints builds the rest, which can be true only of tables that agree with each other: unique and
	// foreign keys. It is called at a message that says Consistent, with nothing in flight, and may be called again.
	FinishConstraints(ctx context.Context) error
}
