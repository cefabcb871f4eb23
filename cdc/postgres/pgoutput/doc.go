// Package pgoutput reads the messages of Postgres's logical replication plugin, without copying them.
//
// Decode accepts the messages that Postgres 12 to 18 sends under protocol versions 1 to 4 and refuses every malformed one
// with a DecodeError: every length is checked, every byte is accounted for, and a flag no version defines is an error
// rather than a guess. A message that was accepted can therefore be used without further checks,
// and encoding it again gives the bytes that came in. Row messages cost no allocation; their tuples alias the input.
//
// The package has no connection and no memory beyond one fact: whether the messages stand inside a stream block.
// Grouping rows into transactions, knowing relations and confirming positions is its caller's work. The protocol leaves
// some traps there, which are written down here because the bytes do not show them.
//
// # Row images
//
// A tuple lists all published columns of its relation in the order of the last Relation message. Four kinds of column
// exist: text and binary values, null, and unchanged.
//
//   - An old tuple of kind 'K' is a key, not a row. Columns outside the replica identity are sent as 'n' to fill their
//     place; they are absent, and reading them as NULL would wipe the target's values. Only 'O' (REPLICA IDENTITY FULL)
//     is the whole old row.
//   - 'u' is a large value that the statement did not touch and the server therefore did not read. Under FULL the value
//     stands in Old, which is always complete; otherwise it is unknown here and whoever applies the row has to leave the
//     column alone.
//   - An Update carries an old key only if the key changed, or if the key is stored out of line, in which case New may
//     have 'u' for the key itself. A changed key is one update: split into delete and insert it would lose the values
//     that are 'u' in New.
//   - An update that moves a row to another partition arrives as Delete and Insert. One that takes it out of a row
//     filter arrives as Delete alone, one that brings it in as Insert alone.
//   - In binary mode a type without a send function still comes as text, column by column, so the kind of each value
//     decides, not the option.
//
// # Relations and types
//
// There are no DDL messages. A Relation comes before the first row of a table on a connection and after anything that
// invalidated the server's cache, also in the middle of a transaction. ANALYZE, VACUUM or CREATE INDEX are enough, so
// most repetitions are identical: compare with RelationMsg.Equal before concluding that a schema changed. The empty
// namespace means pg_catalog. Under a publication via the partition root the leaf is described too but rows name the
// root. A Type names what a column's OID alone does not; for a domain it carries the domain's OID with the name of the
// base type. Nothing is sent for new enum labels, comments, defaults or nullability.
//
// # Transactions and positions
//
// Transactions arrive in commit order, so the positions of rows run backwards from one transaction to the next; the
// order of a row is its transaction's end LSN and its place in it. Begin already knows where the commit record starts
// (LSN), Commit also where it ends (EndLSN). The end is what a consumer stores and confirms: after confirming the start
// the server sends the transaction again. The commit of the next transaction may start exactly where this one ends,
// hence a transaction is already applied if and only if its end is at or below the stored position. Relation and Type
// travel at position 0/0, and so does a Begin that an Origin follows; its time is then that of the origin's commit.
//
// A non-transactional LogicalMessage is sent when the server meets it, in front of the Begin of the transaction that
// wrote it, and stands even if that transaction rolls back.
//
// # Streamed transactions
//
// From protocol version 2 on a large transaction may be sent before it ends, in blocks between StreamStart and
// StreamStop; whole transactions may stand between two blocks. Within a block Relation, Type, Insert, Update, Delete
// and Truncate say in Xid which subtransaction wrote them, while StreamStart, StreamCommit and StreamAbort name the top
// one. StreamAbort with SubXid equal to Xid drops the whole transaction; otherwise it drops what that subtransaction
// wrote and keeps the rest. Subtransactions nested in it get aborts of their own, innermost first. A Relation is
// announced anew in every streamed transaction that uses it and again outside, because no side knows yet which of them
// will commit. Without streaming, rolled back subtransactions never reach the wire.
//
// A LogicalMessage in a block also has an Xid, but of the top transaction, whoever wrote it. No abort of a savepoint
// takes it back: with streaming, a transactional message does not prove that its savepoint was kept.
//
// Postgres 18 may send a StreamAbort for a transaction of which nothing was streamed, even under version 1. It decodes
// under every version, and a consumer ignores an abort of a transaction it does not know.
package pgoutput
