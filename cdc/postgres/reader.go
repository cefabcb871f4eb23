package postgres

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// reader turns decoded pgoutput messages into messages of the dataflow. It does no I/O of its own: what needs the
// catalog goes through relations.
//
// Transactions arrive whole and in commit order. Rows go out as they come, also before their transaction's end was
// read, since it has committed; but the message that allows a cut goes out only behind a commit. A batch leaves when
// nothing more is waiting to be read or when it is full, preferably at a commit.
type reader struct {
	relations relationSource
	emit      func(dataflow.Message) error
	pool      changelog.Pool
	rows      *changelog.Rows
	batch     uint64 // number of rows
	dec       *pgoutput.Decoder
	msg       pgoutput.Message
	rels      map[uint32]*relation
	last      *relation

	inTx      bool
	skip      bool // the transaction was applied before
	xid       uint32
	position  pg.LSN // end of the last transaction that was read
	emitted   pg.LSN // position of the last message that allowed a cut
	commit    time.Time
	began     time.Time // commit of the transaction at hand, which its beginning tells
	delivered func(xid uint32)

	// In-progress transactions, sent ahead of their commit. Between Stream Start and Stop rows belong to block, and in
	// it to the subtransaction sub.
	block, sub uint32
	inBlock    bool
	open       map[uint32]bool
	told       map[uint32][]*pgoutput.RelationMsg // descriptions that came in them

	// stale holds descriptions that came before our place in a shared stream. They say how later rows are to be read,
	// but nothing about when a shape changed: each is looked at when its table's next row comes.
	stale map[uint32]*pgoutput.RelationMsg
	// ahead are tables whose target has more than our position tells, and up to where: a target that commits in lanes was
	// ended between two of them. level is the furthest; behind it there are none. final is the commit record of the
	// transaction at hand.
	ahead        map[uint32]pg.LSN
	level, final pg.LSN

	// emptied are tables that the log said were truncated, and the transaction that did it last.
	emptied map[uint32]uint32

	// root and leaf are the latest two descriptions, until a row comes: of a partitioned table the server describes the root
	// and then the partition, and the row behind them is the partition's under the root's number.
	root, leaf *pgoutput.RelationMsg

	// changes counts those of the transaction at hand. When it is sent a second time, on another stream, repeat of them
	// are passed over.
	changes, repeat int
	repeating       bool
}

// relationSource resolves relation messages against the catalog. change is not nil when rows of an earlier shape came
// before; a nil relation is one that is not mirrored.
type relationSource interface {
	resolve(m *pgoutput.RelationMsg, before *relation) (r *relation, change *changelog.SchemaChange, state []dataflow.StateChange, err error)
	// filterOf is the filter of a table that is being copied, or nil; reshapes tells whether m is news.
	filterOf(id uint32) rowFilter
	reshapes(m *pgoutput.RelationMsg) bool
	// renewed tells whether the table is another one under the same description: a column was dropped and added again, or
	// its key is checked at another time.
	renewed(id uint32) (bool, error)
	// startOver is for a table that is being copied when a change does not tell the key any more that bounds its ranges.
	startOver(id uint32) error
	// partition is told how one of a table's partitions describes itself. counts: the rows behind it are not passed over.
	partition(root, leaf *pgoutput.RelationMsg, counts bool) error
	// takeNames follows a change that resolve gave: tables that made way for it are renamed.
	takeNames() error
}

// relation is a table of the stream.
type relation struct {
	msg  *pgoutput.RelationMsg
	rel  *changelog.Relation // nil: not mirrored
	full bool
	// filter drops rows that a copy has seen, or will see; nil when the table is simply live.
	filter rowFilter

	batch uint64 // cache: index in the batch of this number; batches are recycled, so the pointer would not do
	index uint32
}

// rowFilter judges one change of a table that is being copied. seen: the copy holds the transaction's effect on the
// row, or will.
type rowFilter interface {
	drop(xid uint32, img changelog.Image) (bool, error)
	// dropAll is drop for what concerns the whole table. emptied is what a TRUNCATE does to the copy: it empties all of the
	// table, or the ranges that did not see it; key is the place of their key among the columns.
	dropAll(xid uint32) bool
	emptied(xid uint32) (whole bool, key int, rest []keyRange)
}

// keyRange is what lies above after and not above through; nil bounds are open.
type keyRange struct{ after, through *int64 }

// chunk has the target empty the range.
func (k keyRange) chunk(rel *changelog.Relation, key int) *dataflow.Chunk {
	c := &dataflow.Chunk{Rel: rel, Replace: true, Key: []string{rel.Columns[key].Name}}
	if k.after != nil {
		c.After = []string{strconv.FormatInt(*k.after, 10)}
	}
	if k.through != nil {
		c.Through = []string{strconv.FormatInt(*k.through, 10)}
	}
	return c
}

// A batch is sent at the first commit past batchGoal bytes, and in any case past batchMax.
const (
	batchGoal = 128 << 10
	batchMax  = 512 << 10
	batchRows = 4096
)

const positionKey = "position"

func positionState(lsn pg.LSN) []dataflow.StateChange {
	return []dataflow.StateChange{{Key: positionKey, Value: []byte(lsn.String())}}
}

// ErrWriteAheadRefused: an open transaction did something that cannot be written ahead of its commit. The stream is
// read again with transactions sent whole.
var ErrWriteAheadRefused = errors.New("transactions must be sent whole")

// step takes one XLogData payload.
func (r *reader) step(payload []byte) error {
	if err := r.dec.Decode(payload, &r.msg); err != nil {
		return errs.New(errs.SourceProtocol, "%w", err).Because(err)
	}
	m := &r.msg
	switch m.Kind {
	case pgoutput.Insert, pgoutput.Update, pgoutput.Delete:
		if r.repeat > 0 {
			r.repeat--
			return nil
		}
		r.changes++
		return r.row(m)
	case pgoutput.Begin:
		if r.repeating {
			return r.beginAgain(m)
		}
		r.inTx, r.xid, r.changes, r.began = true, m.Xid, 0, m.CommitTime()
		r.root, r.leaf = nil, nil
		// The commit record of the last transaction ends where ours may begin, so the comparison is strict.
		r.skip = pg.LSN(m.LSN) < r.position
		if r.final = pg.LSN(m.LSN); r.final >= r.level {
			r.ahead = nil
		}
	case pgoutput.Commit:
		if r.repeat > 0 || r.repeating {
			return errs.New(errs.SourceProtocol, "transaction %d came with fewer changes the second time", r.xid)
		}
		r.inTx = false
		if end := pg.LSN(m.EndLSN); end > r.position {
			r.position = end
		}
		r.commit = m.CommitTime()
		if r.delivered != nil {
			r.delivered(r.xid)
		}
		if r.rows != nil && len(r.rows.Entries) > 0 {
			r.rows.Txs = append(r.rows.Txs, changelog.Tx{End: len(r.rows.Entries), Xid: r.xid, Commit: r.commit})
			if r.rows.Bytes() >= batchGoal || len(r.rows.Entries) >= batchRows {
				return r.flush()
			}
		}
	case pgoutput.Relation:
		if r.repeat > 0 {
			return nil // heard the first time, and perhaps changed since within the transaction
		}
		if r.inBlock {
			if r.told == nil {
				r.told = map[uint32][]*pgoutput.RelationMsg{}
			}
			r.told[r.block] = append(r.told[r.block], m.Relation)
		}
		r.root, r.leaf, r.last = r.leaf, m.Relation, nil
		return r.relation(m.Relation)
	case pgoutput.Truncate:
		r.root, r.leaf = nil, nil
		if r.inBlock {
			return ErrWriteAheadRefused
		}
		if r.repeat > 0 {
			r.repeat--
			return nil
		}
		r.changes++
		return r.truncate(m)
	case pgoutput.StreamStart:
		if err := r.flush(); err != nil {
			return err
		}
		r.inBlock, r.block, r.sub, r.skip = true, m.Xid, m.Xid, false
		r.open[m.Xid] = true
	case pgoutput.StreamStop:
		err := r.flushOpen()
		r.inBlock = false
		return err
	case pgoutput.StreamAbort:
		if !r.open[m.Xid] {
			return nil // of a transaction that was never sent: a stray one that 18 sends
		}
		// What committed before may have gone out in part; nothing of another transaction may come between.
		if err := r.flush(); err != nil {
			return err
		}
		if m.SubXid == m.Xid {
			delete(r.open, m.Xid)
			delete(r.told, m.Xid)
		}
		return r.emit(dataflow.Message{Kind: dataflow.KindOpenAbort, Tx: m.Xid, Sub: m.SubXid})
	case pgoutput.StreamCommit:
		return r.commitOpen(m)
	case pgoutput.Type, pgoutput.Origin, pgoutput.LogicalMessage:
		// Types are looked up by number; messages are other people's.
	default:
		return errs.New(errs.SourceProtocol, "the server sent %s, which was not asked for", m.Kind)
	}
	return nil
}

func (r *reader) row(m *pgoutput.Message) error {
	if r.skip || r.ahead != nil && r.holds(m.RelationID) {
		if r.leaf != nil {
			return r.partition(m, false)
		}
		return nil
	}
	rel := r.last
	if rel == nil || rel.msg.ID != m.RelationID {
		var err error
		if rel, err = r.described(m.RelationID); err != nil {
			return err
		}
		if rel == nil {
			return errs.New(errs.SourceProtocol, "a row of relation %d came before its description", m.RelationID)
		}
		if r.leaf != nil {
			if err := r.partition(m, true); err != nil {
				return err
			}
		}
		r.last = rel
	}
	if rel.rel == nil {
		return nil
	}
	op := changelog.Insert
	switch m.Kind {
	case pgoutput.Update:
		op = changelog.Update
	case pgoutput.Delete:
		op = changelog.Delete
	}
	if rel.filter != nil {
		err := r.filtered(rel, op, m)
		if err == errNoKey && r.inBlock {
			return ErrWriteAheadRefused
		}
		if err == errNoKey {
			return r.relations.startOver(rel.msg.ID)
		}
		return err
	}
	return r.append(rel, op, m)
}

// partition looks at the descriptions in front of a row.
func (r *reader) partition(m *pgoutput.Message, counts bool) error {
	root, leaf := r.root, r.leaf
	r.root, r.leaf = nil, nil
	if root == nil || root.ID != m.RelationID || leaf.ID == root.ID {
		return nil
	}
	if f := r.relations.filterOf(root.ID); f != nil && counts {
		xid := r.xid
		if r.inBlock {
			xid = r.block
		}
		counts = !f.dropAll(xid)
	}
	return r.relations.partition(root, leaf, counts)
}

// commitOpen ends a transaction that was sent ahead.
func (r *reader) commitOpen(m *pgoutput.Message) error {
	if !r.open[m.Xid] {
		return errs.New(errs.SourceProtocol, "transaction %d ended and had not begun", m.Xid)
	}
	told := r.told[m.Xid]
	delete(r.open, m.Xid)
	delete(r.told, m.Xid)
	if pg.LSN(m.EndLSN) <= r.position {
		return r.emit(dataflow.Message{Kind: dataflow.KindOpenAbort, Tx: m.Xid, Sub: m.Xid})
	}
	if err := r.flush(); err != nil {
		return err
	}
	r.position, r.emitted = pg.LSN(m.EndLSN), pg.LSN(m.EndLSN)
	r.commit = m.CommitTime()
	if r.delivered != nil {
		r.delivered(m.Xid)
	}
	if err := r.emit(dataflow.Message{Kind: dataflow.KindOpenCommit, Tx: m.Xid, Boundary: true, State: positionState(r.position), Commit: r.commit}); err != nil {
		return err
	}
	return r.tellAgain(m.Xid, told)
}

// tellAgain looks at descriptions once more when their transaction has committed. Before, the catalog did not show what it
// did, and a column that is another one under the same description is told by nothing else.
func (r *reader) tellAgain(xid uint32, told []*pgoutput.RelationMsg) error {
	r.inTx, r.xid = true, xid
	changed := false
	for _, m := range told {
		anew, err := r.relations.renewed(m.ID)
		if err != nil {
			return err
		}
		if anew {
			changed = true
			if err := r.relation(m); err != nil {
				return err
			}
		}
	}
	if r.inTx = false; !changed {
		return nil
	}
	return r.emit(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: positionState(r.position)})
}

// flushOpen sends the rows gathered for the block's current subtransaction.
func (r *reader) flushOpen() error {
	rows := r.rows
	r.rows = nil
	if rows == nil {
		return nil
	}
	return r.emit(dataflow.Message{Kind: dataflow.KindOpenRows, Rows: rows, Tx: r.block, Sub: r.sub})
}

func (r *reader) append(rel *relation, op changelog.Op, m *pgoutput.Message) error {
	if r.inBlock && m.Xid != r.sub {
		if err := r.flushOpen(); err != nil {
			return err
		}
		r.sub = m.Xid
	}
	if r.rows == nil {
		r.rows = r.pool.Get()
		r.batch++
	}
	if rel.batch != r.batch {
		rel.batch, rel.index = r.batch, r.rows.UseRelation(rel.rel)
	}
	img := changelog.Image(m.New)
	if rel.full && op == changelog.Update && img.HasUnsent() {
		// The old row is complete under FULL, and the new one still leaves out large values that did not change.
		img = changelog.AppendMerged(nil, img, changelog.Image(m.Old))
	}
	r.rows.Append(rel.index, op, m.OldKind == 'K', changelog.Image(m.Old), img)
	switch {
	case r.inBlock && r.rows.Bytes() >= batchGoal:
		return r.flushOpen()
	case r.rows.Bytes() >= batchMax:
		return r.flush()
	}
	return nil
}

// filtered judges the halves of a change by themselves: an update may move a row from one range of a copy to another.
func (r *reader) filtered(rel *relation, op changelog.Op, m *pgoutput.Message) error {
	if r.inBlock {
		r.xid = r.block
	}
	switch {
	case op == changelog.Insert, op == changelog.Update && m.Old == nil:
		drop, err := rel.filter.drop(r.xid, changelog.Image(m.New))
		if err != nil || drop {
			return err
		}
	case op == changelog.Delete:
		drop, err := rel.filter.drop(r.xid, changelog.Image(m.Old))
		if err != nil || drop {
			return err
		}
	default:
		dropOld, err := rel.filter.drop(r.xid, changelog.Image(m.Old))
		if err != nil {
			return err
		}
		dropNew, err := rel.filter.drop(r.xid, changelog.Image(m.New))
		if err != nil {
			return err
		}
		switch {
		case dropOld && dropNew:
			return nil
		case dropNew:
			del := *m
			del.New = nil
			return r.append(rel, changelog.Delete, &del)
		case dropOld:
			// The copy no longer held the old row, or does not hold it yet, and does not know the new one.
			if changelog.Image(m.New).HasUnsent() && m.OldKind != 'O' {
				return errs.New(errs.SourceStream, "a row of %s moved between ranges of its copy without its large values", rel.rel).
					WithHint("copy the table again: weir sources refresh '%s'", selection.Quote(pg.TargetName{Schema: rel.rel.Schema, Name: rel.rel.Name}))
			}
			ins := *m
			if ins.OldKind == 'O' {
				ins.New = pgoutput.Tuple(changelog.AppendMerged(nil, changelog.Image(m.New), changelog.Image(m.Old)))
			}
			ins.Old, ins.OldKind = nil, 0
			return r.append(rel, changelog.Insert, &ins)
		}
	}
	return r.append(rel, op, m)
}

// describe notes how a table's later rows are to be read.
func (r *reader) describe(m *pgoutput.RelationMsg) {
	if rel := r.rels[m.ID]; rel != nil && rel.msg.Equal(m) {
		delete(r.stale, m.ID)
		return
	}
	if r.stale == nil {
		r.stale = map[uint32]*pgoutput.RelationMsg{}
	}
	delete(r.rels, m.ID)
	r.stale[m.ID], r.last = m, nil
}

// described is a table whose row came.
func (r *reader) described(id uint32) (*relation, error) {
	if rel := r.rels[id]; rel != nil || len(r.stale) == 0 || r.stale[id] == nil {
		return rel, nil
	}
	err := r.relation(r.stale[id])
	return r.rels[id], err
}

// repeatTx is told that the transaction at hand comes again from its beginning.
func (r *reader) repeatTx() { r.repeating = true }

func (r *reader) beginAgain(m *pgoutput.Message) error {
	if m.Xid != r.xid {
		return errs.New(errs.SourceProtocol, "transaction %d came where %d was to come again", m.Xid, r.xid)
	}
	r.repeating, r.repeat = false, r.changes
	return nil
}

// restart is told that another stream begins behind our position. What was sent ahead of its commit is sent again.
func (r *reader) restart() error {
	if r.inBlock {
		r.rows.Release()
		r.rows, r.inBlock = nil, false
	}
	r.inTx, r.skip = false, false
	r.root, r.leaf = nil, nil
	r.dec.Reset()
	if err := r.flush(); err != nil {
		return err
	}
	for _, xid := range slices.Sorted(maps.Keys(r.open)) {
		if err := r.emit(dataflow.Message{Kind: dataflow.KindOpenAbort, Tx: xid, Sub: xid}); err != nil {
			return err
		}
	}
	clear(r.open)
	clear(r.told)
	return nil
}

// holds tells that the target has the table's rows of the transaction at hand.
func (r *reader) holds(id uint32) bool { return r.final < r.ahead[id] }

func (r *reader) relation(m *pgoutput.RelationMsg) error {
	if r.inTx && (r.skip || r.ahead != nil && r.holds(m.ID)) {
		r.describe(m) // an older shape than the one that is stored, perhaps: looked at when a row of it counts
		return nil
	}
	delete(r.stale, m.ID)
	before := r.rels[m.ID]
	if before != nil && before.msg.Equal(m) {
		// Servers repeat descriptions freely, and also behind a change.
		if anew, err := r.relations.renewed(m.ID); err != nil || !anew {
			return err
		}
	}
	if f := r.relations.filterOf(m.ID); f != nil && (r.inTx || r.inBlock) && r.relations.reshapes(m) {
		// A shape from before the view that the table was copied under: its rows are in the copy, in the later shape.
		xid := r.xid
		if r.inBlock {
			xid = r.block
		}
		if f.dropAll(xid) {
			r.rels[m.ID], r.last = &relation{msg: m, filter: f}, nil // the next description takes the filter over
			return nil
		}
	}
	for i, c := range m.Columns {
		// A server that lost its view of its own catalog at a crash describes such columns now and then. What it makes of
		// the rows is as wrong; when the log is read again it has another view.
		if c.Name == "" || c.TypeOID == 0 {
			return errs.New(errs.SourceStream, "the server described table %s.%s with a column %d that has no name or no type; reading again", m.Namespace, m.Name, i+1)
		}
	}
	if r.inTx && !r.inBlock && r.changes == 0 && r.relations.reshapes(m) {
		// What was gathered is of transactions before this one, of which nothing was sent: it may be cut off here, and then
		// a target that refuses the change has everything that was committed before.
		r.inTx = false
		err := r.flush()
		r.inTx = true
		if err != nil {
			return err
		}
	}
	rel, change, state, err := r.relations.resolve(m, before)
	if err != nil {
		return err
	}
	if before != nil {
		rel.filter = before.filter
	}
	r.rels[m.ID] = rel
	r.last = nil
	if change == nil {
		return r.relations.takeNames()
	}
	if r.inBlock {
		return ErrWriteAheadRefused // the change is seen by its own transaction only, until that commits
	}
	if err := r.flush(); err != nil {
		return err
	}
	if err := r.emit(dataflow.Message{Kind: dataflow.KindSchema, Schema: change, State: state}); err != nil {
		return err
	}
	return r.relations.takeNames()
}

func (r *reader) truncate(m *pgoutput.Message) error {
	for _, id := range m.Relations {
		if r.emptied == nil {
			r.emptied = map[uint32]uint32{}
		}
		r.emptied[id] = r.xid
	}
	if r.skip {
		return nil
	}
	var tr changelog.Truncate
	var parts []*dataflow.Chunk // of tables whose copy saw the truncate in part
	for _, id := range m.Relations {
		if r.ahead != nil && r.holds(id) {
			tr.ByDelete = true // the others' TRUNCATE would be refused where this one refers to them
			continue
		}
		rel, err := r.described(id)
		if err != nil {
			return err
		}
		if rel == nil || rel.rel == nil {
			continue
		}
		if rel.filter != nil {
			whole, key, rest := rel.filter.emptied(r.xid)
			for _, part := range rest {
				parts = append(parts, part.chunk(rel.rel, key))
			}
			if !whole {
				tr.ByDelete = true
				continue
			}
		}
		tr.Relations = append(tr.Relations, rel.rel)
	}
	if len(tr.Relations) == 0 && len(parts) == 0 {
		return nil
	}
	tr.Cascade, tr.RestartIdentity = m.Cascade, m.RestartIdentity
	if err := r.flush(); err != nil {
		return err
	}
	for _, part := range parts {
		if err := r.emit(dataflow.Message{Kind: dataflow.KindChunk, Chunk: part}); err != nil {
			return err
		}
	}
	if len(tr.Relations) == 0 {
		return nil
	}
	return r.emit(dataflow.Message{Kind: dataflow.KindTruncate, Truncate: &tr})
}

// flush sends what was gathered. Outside of a transaction it also carries the position, even without rows.
func (r *reader) flush() error {
	rows := r.rows
	r.rows = nil
	boundary := !r.inTx
	if rows != nil && len(rows.Entries) == 0 {
		rows.Release()
		rows = nil
	}
	if rows == nil {
		if !boundary || r.position == r.emitted {
			return nil
		}
		// Something without rows came before: a truncate, a change of shape, or rows that were not for us.
		r.emitted = r.position
		return r.emit(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: positionState(r.position), Commit: r.commit})
	}
	m := dataflow.Message{Kind: dataflow.KindRows, Rows: rows, Boundary: boundary, Commit: r.commit}
	if !boundary {
		m.Commit = r.began // its last rows are of the transaction at hand
	}
	if boundary {
		m.State = positionState(r.position)
		r.emitted = r.position
	}
	return r.emit(m)
}

// pause sends what was gathered because nothing more is waiting.
func (r *reader) pause() error {
	if r.inBlock {
		return nil // the block's end is on its way
	}
	return r.flush()
}

// levelled tells, once, that the stream has passed everything that some of the target's lanes had before others.
func (r *reader) levelled() bool {
	if r.level == 0 || r.position < r.level || r.inTx {
		return false
	}
	r.level, r.ahead = 0, nil
	return true
}

// mayCut refuses a boundary that would not hold: inside of a transaction, or ahead of rows that were read and not sent.
// A cut there would be a position without its rows, which a crash before the next cut turns into a loss.
func (r *reader) mayCut() error {
	switch {
	case r.inTx || r.inBlock:
		return errs.New(errs.EngineInternal, "a boundary inside of a transaction at %s", r.position)
	case r.rows != nil && len(r.rows.Entries) > 0:
		return errs.New(errs.EngineInternal, "a boundary at %s ahead of %d rows that belong before it", r.position, len(r.rows.Entries))
	}
	return nil
}

// between tells whether no transaction is unfinished.
func (r *reader) between() bool { return !r.inTx && !r.inBlock && len(r.open) == 0 }

// idle is told the server's position when nothing more is waiting and no transaction is half read. When nothing has moved
// ours for long, the position goes on by itself, so that a quiet database does not keep a busy server's WAL.
func (r *reader) idle(end pg.LSN) error {
	// Transactions that are open commit behind it, and are sent again as a whole to whoever begins there. A server that
	// stops waits for this word, also while one is open that a crash before has left without an end.
	if r.inTx || r.inBlock || end <= r.position {
		return nil
	}
	r.position = end
	return r.flush()
}
