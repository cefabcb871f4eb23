package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/cdc/snapshot"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// Copies beside the stream: a table that joined, or one that is copied again.
//
// The reader stands still between two transactions while a chunk is read, so the chunk takes its place in the stream:
// what was delivered before is older than the chunk's view (or the view is refused), and of what comes behind, the
// view's own transactions are dropped for the chunk's keys until the stream is past the log's end as it was after the
// read. Between chunks the stream goes on. Nothing is locked, and nothing larger than a message is held in memory.

// liveCopy is one table's copy beside the stream, as stored.
type liveCopy struct {
	First  bool        `json:"first,omitempty"`  // the target has no rows of the table that count yet
	Done   bool        `json:"done,omitempty"`   // every chunk was read
	Floor  uint64      `json:"floor,omitempty"`  // views must hold every transaction below it
	Key    int16       `json:"key,omitempty"`    // number of the column whose values bound the chunks
	Chunks []liveChunk `json:"chunks,omitempty"` // read so far, as long as their views matter
	// Again: another copy is wanted. It waits until the stream has passed the views of this one, because where it has not
	// come by yet, rows of this one stand at the target, and the stream may not bring to them what they hold already.
	Again bool `json:"again,omitempty"`

	reshaped pg.LSN // where the log stood when a change of shape was seen that the stream has not brought
}

type liveChunk struct {
	Through *int64 `json:"through,omitempty"`
	View    string `json:"view"`
	High    string `json:"high"`
}

const liveCopyKey = "copy/"

func liveCopyState(oid uint32, c *liveCopy) dataflow.StateChange {
	key := liveCopyKey + strconv.FormatUint(uint64(oid), 10)
	if c == nil {
		return dataflow.StateChange{Key: key}
	}
	v, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return dataflow.StateChange{Key: key, Value: v}
}

// Refresh copies tables again while everything streams: those that match the patterns, all without any. It returns when the copies are under way.
func (s *Source) Refresh(ctx context.Context, patterns []string) error {
	if !s.streaming.Load() {
		return errs.New(errs.PipelineState, "the mirror does not stream yet").
			WithHint("ask again when weir pipelines get shows that it catches up or is live")
	}
	c := command{refresh: patterns, done: make(chan error, 1), tables: &atomic.Pointer[[]uint32]{}}
	select {
	case s.commands <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return errStops
	}
	s.wake()
	select {
	case err := <-c.done:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return errStops
	}
	// Whoever asked may rely on it only when the target has stored that they did.
	for !s.notes.hasAll(c.tables.Load()) {
		select {
		case <-s.ctx.Done():
			return errStops
		default:
		}
		if err := s.env.Clock.Sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// errStops answers those who ask a source that is ending.
var errStops = errs.New(errs.PipelineState, "the mirror is about to start again, and may not have taken this up").
	WithHint("ask again when weir pipelines get shows that it catches up or is live")

// RefreshLater is Refresh for a Source that does not run: what has to be stored for it, so that the tables are copied at its
// next start. Nothing of theirs is read before that, since one of their changes may be why it does not run. With follow
// the target's table is brought to the source's shape then; otherwise the table joins anew, and what is there has to fit.
func RefreshLater(state dataflow.State, patterns []string, follow bool) (changes []dataflow.StateChange, err error) {
	if state[liveKey] == nil {
		return nil, errs.New(errs.PipelineState, "the first copy is not complete").WithHint("it goes on when the pipeline is resumed")
	}
	shapes, err := loadShapes(state)
	if err != nil {
		return nil, err
	}
	oids, err := meant(shapes, patterns)
	if err != nil {
		return nil, err
	}
	for _, oid := range oids {
		if follow {
			changes = append(changes, liveCopyState(oid, &liveCopy{First: true}))
		} else {
			changes = append(changes, liveCopyState(oid, nil), dataflow.StateChange{Key: tableKey(oid)})
		}
		for key := range state {
			if strings.HasPrefix(key, fmt.Sprintf("%s%d/", doneKey, oid)) {
				changes = append(changes, dataflow.StateChange{Key: key})
			}
		}
	}
	return changes, nil
}

// meant are the tables that a user names by patterns; without any, all.
func meant(shapes map[uint32]*tableShape, patterns []string) ([]uint32, error) {
	oids := slices.Sorted(maps.Keys(shapes))
	if len(patterns) == 0 {
		return oids, nil
	}
	names := make([]pg.TargetName, len(oids))
	for i, oid := range oids {
		names[i] = pg.TargetName{Schema: shapes[oid].Schema, Name: shapes[oid].Name}
	}
	found, err := selection.Find(patterns, names)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(oids, func(oid uint32) bool {
		return !slices.Contains(found, pg.TargetName{Schema: shapes[oid].Schema, Name: shapes[oid].Name})
	}), nil
}

// sealView makes the transactions that a view holds as ended known to the log on disk. A server that crashes gives the
// numbers of which its log knows nothing to others once more, and the view would take the new transactions for the old
// ones, which were rolled back and whose end nobody had waited for.
func (s *Source) sealView(ctx context.Context) error {
	if s.standby {
		return nil // its log is another server's
	}
	_, err := s.ctl.PgConn().Exec(ctx, `BEGIN; SET LOCAL synchronous_commit = local; SELECT pg_logical_emit_message(true, 'weir', ''); COMMIT`).ReadAll()
	var e *pgconn.PgError
	if errors.As(err, &e) {
		s.env.Log.Debug("the source's log was not flushed behind a view", "error", err)
		_, err = s.ctl.PgConn().Exec(ctx, "ROLLBACK").ReadAll()
	}
	if err != nil {
		return s.lost(err)
	}
	return nil
}

// horizon is the number below which every transaction may have written without the publication's latest change.
func (s *Source) horizon() (uint64, error) {
	var view string
	if err := s.ctl.QueryRow(s.ctx, "SELECT "+s.currentSnapshot()).Scan(&view); err != nil {
		return 0, s.lost(err)
	}
	v, err := snapshot.ParseView(view)
	return v.Xmax, err
}

func (s *Source) beginRefresh(c command) error {
	oids, err := meant(s.tables, c.refresh)
	if err != nil {
		return err
	}
	s.notes.forget(oids)
	noted, err := s.copyAgain(oids)
	c.tables.Store(&noted)
	return err
}

// copyAgain begins a new copy of tables that the target has, and tells those that are there.
func (s *Source) copyAgain(oids []uint32) (noted []uint32, err error) {
	specs, err := pg.PeekShapes(s.ctx, s.ctl, oids) // the stream waits for nobody's lock
	if err != nil {
		return nil, s.lost(err)
	}
	if err := s.reader.flush(); err != nil {
		return nil, err
	}
	// Noted before it begins: a copy that was asked for is made, also after a crash.
	state := positionState(s.reader.position)
	for _, t := range specs {
		state = append(state, liveCopyState(t.OID, s.anotherCopy(t.OID)))
	}
	if err := s.send(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: state}); err != nil {
		return nil, err
	}
	for _, t := range specs {
		s.specs[t.OID] = t
		s.copies[t.OID] = s.anotherCopy(t.OID)
		s.tableProgress(t.OID, func(p *TableProgress) { p.Copying, p.Done, p.sent, p.Rows, p.Bytes = true, false, false, 0, 0 })
	}
	s.copying.Store(true)
	return oidsOf(specs), nil
}

// anotherCopy is what has to be stored for a table that is to be copied again: a new copy, or a note in that which is under
// way. One that was made before the stream began has no note but its filter.
func (s *Source) anotherCopy(oid uint32) *liveCopy {
	switch c := s.copies[oid]; {
	case c != nil && len(c.Chunks) > 0:
		more := *c
		more.Again = true
		return &more
	case c != nil:
		return c // it has not begun yet
	case s.filters[oid] != nil:
		return &liveCopy{Done: true, Again: true}
	}
	return &liveCopy{}
}

// chunkRows is how many rows of a table with an integer key are read while the stream stands still.
const chunkRows = 20000

// copyChunk reads the next chunk of one table that is being copied.
func (s *Source) copyChunk() error {
	var oids []uint32
	for oid, c := range s.copies {
		if !c.Done && !s.unlisted[oid] {
			oids = append(oids, oid)
		}
	}
	if len(oids) == 0 {
		s.copying.Store(false)
		return nil
	}
	slices.Sort(oids)
	for _, oid := range oids {
		copied, err := s.copyOne(oid, s.copies[oid])
		if err != nil {
			return err
		}
		if copied {
			return nil
		}
	}
	return nil
}

// copyOne reads a chunk of the table; false when the database does not allow it yet.
func (s *Source) copyOne(oid uint32, c *liveCopy) (bool, error) {
	if err := s.env.Fail.Hit(FailChunk); err != nil {
		return false, s.failpoint(err)
	}
	if err := s.reader.flush(); err != nil {
		return false, err
	}
	var table string
	err := s.ctl.QueryRow(s.ctx, `SELECT $1::oid::regclass::text FROM pg_class WHERE oid = $1::oid`, fmt.Sprint(oid)).Scan(&table)
	if errors.Is(err, pgx.ErrNoRows) {
		delete(s.copies, oid) // dropped meanwhile
		if s.tables[oid] == nil {
			s.forgetTable(oid) // it had not joined yet, so nobody lets it go
		}
		return true, nil
	}
	if err != nil {
		return false, s.lost(err)
	}
	conn, err := pg.ConnectPgx(s.ctx, s.env, s.opts.Config, pg.ConnectOptions{AppName: appName + " chunk"})
	if err != nil {
		return false, s.lost(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	// The lock comes before the view: a table that is written anew between the two would look empty. It waits only for
	// a moment, because the stream stands still meanwhile.
	for _, sql := range []string{"SET lock_timeout = '1s'", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "LOCK TABLE " + table + " IN ACCESS SHARE MODE"} {
		_, err := conn.Exec(s.ctx, sql)
		var e *pgconn.PgError
		if errors.As(err, &e) && (e.Code == "55P03" || e.Code == "42P01") {
			return false, nil // altered, renamed or dropped at this moment
		}
		if err != nil {
			return false, s.lost(err)
		}
	}
	var text string
	if err := conn.QueryRow(s.ctx, "SELECT "+s.currentSnapshot()).Scan(&text); err != nil {
		return false, s.lost(err)
	}
	view, err := snapshot.ParseView(text)
	if err != nil {
		return false, err
	}
	if len(s.reader.open) > 0 {
		return false, nil // their rows were sent, and a chunk would meet them half-way
	}
	if view.Xmin < c.Floor || !s.delivered.Allows(view, s.standby) {
		return false, nil // somebody who may have written unseen is still at work; asked again soon
	}
	if err := s.sealView(s.ctx); err != nil {
		return false, err
	}
	specs, err := pg.LoadTables(s.ctx, conn, []uint32{oid})
	if pg.Vanished(err) || err == nil && len(specs) == 0 {
		return false, nil
	}
	if err != nil {
		return false, s.lost(err)
	}
	t, shape := specs[0], s.shapeOf(specs[0])
	if len(shape.Columns) == 0 {
		delete(s.copies, oid) // it lost its last column meanwhile; the next look lets it go
		s.lookAgain.Store(true)
		return true, nil
	}
	if s.tables[oid] == nil && !supplies(s.specs[oid], t) {
		s.forgetTable(oid) // it joins anew, so that the target gets the schema and the types
		s.lookAgain.Store(true)
		return true, nil
	}
	if known := s.tables[oid]; known != nil && !sameColumns(known, shape) {
		// Catching up asks the catalog on another connection, which may have to queue for the table behind somebody who
		// waits for this one.
		_ = conn.Close(context.Background())
		return true, s.catchUpShape(t, c)
	}
	return true, s.sendChunk(conn, t, shape, c, view)
}

// sendChunk puts a chunk into the stream. The connection holds a lock of the table: nothing here may ask for another one
// elsewhere.
func (s *Source) sendChunk(conn *pgx.Conn, t *pg.Table, shape *tableShape, c *liveCopy, view snapshot.View) error {
	var learned []dataflow.StateChange
	var relabelled *changelog.SchemaChange
	if known := s.tables[t.OID]; known != nil {
		shape.Version = known.Version
		// The catalog numbers the columns; a change that could not be told for sure has numbered them as it could.
		if !slices.Equal(known.Columns, shape.Columns) {
			if steps := s.relabel(t, known, shape); len(steps) > 0 {
				relabelled = &changelog.SchemaChange{Old: s.describedAs(t.OID, known), Steps: steps, Replaced: true}
			}
			learned = s.leaveColumns(t) // by what is known, which is about to change
			known.Columns = shape.Columns
			learned = append(learned, known.state(t.OID))
		}
	} else {
		learned = s.leaveColumns(t)
	}
	rel := s.relationFromSpec(t, shape)
	state := append([]dataflow.StateChange{}, positionState(s.reader.position)...)
	if relabelled != nil {
		relabelled.New = rel
		if err := s.send(dataflow.Message{Kind: dataflow.KindSchema, State: learned, Schema: relabelled}); err != nil {
			return err
		}
	}
	if s.tables[t.OID] == nil {
		if _, err := s.clearName(t.OID, shape.name()); err != nil {
			return err
		}
		s.tables[t.OID] = shape
		if err := s.send(dataflow.Message{Kind: dataflow.KindSchema, State: append(learned, shape.state(t.OID)),
			Schema: &changelog.SchemaChange{New: rel, Steps: []changelog.SchemaStep{{Kind: changelog.CreateTable}}, Origin: t}}); err != nil {
			return err
		}
		if err := s.takeNames(); err != nil {
			return err
		}
	}
	key := integerKey(t)
	if key != nil && !slices.ContainsFunc(shape.Columns, func(c columnShape) bool { return c.Attnum == key.Attnum }) {
		key = nil
	}
	switch {
	case len(c.Chunks) == 0 && key != nil:
		c.Key = key.Attnum
	case len(c.Chunks) > 0 && (key == nil || key.Attnum != c.Key):
		anew, err := s.beginAnew(t.OID)
		if err != nil {
			return err
		}
		return s.send(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: slices.Concat(state, learned, anew)})
	}
	chunk := &dataflow.Chunk{Rel: rel, Replace: true}
	where, order := "", ""
	if key != nil {
		chunk.Key = []string{key.Name}
		if n := len(c.Chunks); n > 0 && c.Chunks[n-1].Through != nil {
			after := *c.Chunks[n-1].Through
			chunk.After = []string{strconv.FormatInt(after, 10)}
			where = fmt.Sprintf("%s > %d", pg.Ident(key.Name), after)
		}
		var through *int64
		from := only(t)
		if where != "" {
			from += " WHERE " + where
		}
		err := conn.QueryRow(s.ctx, fmt.Sprintf("SELECT %[1]s::int8 FROM %[2]s ORDER BY %[1]s OFFSET %[3]d LIMIT 1", pg.Ident(key.Name), from, chunkRows-1)).Scan(&through)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return s.lost(err)
		}
		if through != nil {
			chunk.Through = []string{strconv.FormatInt(*through, 10)}
			if where != "" {
				where += " AND "
			}
			where += fmt.Sprintf("%s <= %d", pg.Ident(key.Name), *through)
			c.Chunks = append(c.Chunks, liveChunk{Through: through, View: view.String()})
		} else {
			c.Chunks = append(c.Chunks, liveChunk{View: view.String()})
			c.Done = true
		}
	} else {
		c.Chunks = append(c.Chunks, liveChunk{View: view.String()})
		c.Done = true
	}
	rows, bytes, err := s.readChunk(conn, t, rel, shape, chunk, where+order)
	if err != nil {
		return err
	}
	var high string
	if err := s.ctl.QueryRow(s.ctx, "SELECT "+s.walNow()).Scan(&high); err != nil {
		return s.lost(err)
	}
	c.Chunks[len(c.Chunks)-1].High = high
	if err := s.armLive(t.OID); err != nil {
		return err
	}
	state = append(append(state, learned...), liveCopyState(t.OID, c))
	s.tableProgress(t.OID, func(p *TableProgress) {
		p.Schema, p.Name = shape.Schema, shape.Name  // it may have got another name since it was seen first
		p.EstRows, p.EstBytes = t.RelTuples, t.Bytes // measured under the chunk's lock, which a look before cannot wait for
		p.Rows, p.Bytes = p.Rows+rows, p.Bytes+bytes
		p.Copying, p.Done, p.sent = true, false, c.Done
	})
	return s.send(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: state})
}

// copyStored is told what the target has made durable. A copy is complete for whoever looks on when its last chunk is there,
// not when it is on its way.
func (s *Source) copyStored(c dataflow.StateChange) {
	if !strings.HasPrefix(c.Key, liveCopyKey) || c.Value != nil && !bytes.Contains(c.Value, []byte(`"done":true`)) {
		return
	}
	if oid, ok := StateTable(c.Key); ok {
		s.tableProgress(oid, func(p *TableProgress) {
			if p.sent {
				p.Copying, p.Done, p.sent = false, true, false
			}
		})
	}
}

// beginAnew begins a copy again from the start, because the key that bounded its chunks is gone, and with it the means to
// tell which changes they hold. Until a chunk replaces them, the rows at the target do not count: no change is brought. It
// returns what has to be stored.
func (s *Source) beginAnew(oid uint32) ([]dataflow.StateChange, error) {
	floor, err := s.horizon()
	if err != nil {
		return nil, err
	}
	s.env.Log.Info("changes of a table cannot be brought any more; it is copied again from the start", "table", s.tables[oid].name().String())
	c := &liveCopy{First: true, Floor: floor}
	s.copies[oid] = c
	s.copying.Store(true)
	s.tableProgress(oid, func(p *TableProgress) { p.Copying, p.Done, p.sent, p.Rows, p.Bytes = true, false, false, 0, 0 })
	return append(s.forgetRanges(oid), liveCopyState(oid, c)), s.armLive(oid)
}

// forgetRanges lets go of the notes of a table's first copy.
func (s *Source) forgetRanges(oid uint32) (state []dataflow.StateChange) {
	for id := range s.copy.done {
		if strings.HasPrefix(id, strconv.FormatUint(uint64(oid), 10)+"/") {
			delete(s.copy.done, id)
			state = append(state, dataflow.StateChange{Key: doneKey + id})
		}
	}
	return state
}

// catchUpShape lets the stream bring a change of shape that it has not brought yet; the chunk is read behind it. But the
// stream describes a table only with its next row: when it has passed the moment at which the change was seen, nobody
// has written since, and the change is made without it.
func (s *Source) catchUpShape(t *pg.Table, c *liveCopy) error {
	if c.reshaped == 0 {
		var end string
		if err := s.ctl.QueryRow(s.ctx, "SELECT "+s.walNow()).Scan(&end); err != nil {
			return s.lost(err)
		}
		var err error
		c.reshaped, err = pg.ParseLSN(end)
		return err
	}
	if s.reader.position < c.reshaped {
		return nil
	}
	c.reshaped = 0
	rel := s.relationFromSpec(t, s.shapeOf(t))
	m := &pgoutput.RelationMsg{ID: t.OID, Namespace: t.Schema, Name: t.Name, Identity: t.Identity}
	for _, col := range rel.Columns {
		m.Columns = append(m.Columns, pgoutput.Column{Name: col.Name, TypeOID: col.TypeOID, TypeMod: col.TypeMod, Key: col.Key})
	}
	delete(s.reader.rels, t.OID) // it may be a description that was passed over
	err := s.reader.relation(m)
	if known := s.tables[t.OID]; c.First && known != nil && errs.Is(err, errs.SourceSchemaChange) {
		s.lookAgain.Store(true) // nobody can tell how it changed: the target's goes, and the table joins anew
		return s.drop(t.OID, known)
	}
	if err != nil {
		return err
	}
	// A cut is allowed here, as it is behind every transaction.
	return s.send(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: positionState(s.reader.position)})
}

// supplies tells whether what a table needed besides itself when it was looked at is all that it needs now.
func supplies(then, now *pg.Table) bool {
	return then != nil && then.Schema == now.Schema && !slices.ContainsFunc(now.Columns, func(c pg.Column) bool {
		return !slices.ContainsFunc(then.Columns, func(old pg.Column) bool { return old.Type.OID == c.Type.OID })
	})
}

func sameColumns(a, b *tableShape) bool {
	return a.Schema == b.Schema && a.Name == b.Name && slices.EqualFunc(a.Columns, b.Columns, func(x, y columnShape) bool {
		return x.Name == y.Name && x.TypeOID == y.TypeOID && x.TypeMod == y.TypeMod
	})
}

// relationFromSpec describes a table as its own R message will.
func (s *Source) relationFromSpec(t *pg.Table, shape *tableShape) *changelog.Relation {
	rel := &changelog.Relation{ID: t.OID, Version: shape.Version, Schema: shape.Schema, Name: shape.Name, Binary: s.binary, Identity: changelog.IdentityKey}
	if t.Identity == 'f' {
		rel.Identity = changelog.IdentityFull
	} else if len(t.IdentityKey) == 0 {
		rel.Identity = changelog.IdentityNothing
	}
	for _, c := range shape.Columns {
		col := t.Column(c.Name)
		s.types[c.TypeOID] = [2]string{col.Type.Schema, col.Type.Name}
		rel.Columns = append(rel.Columns, changelog.Column{
			Name: c.Name, TypeOID: c.TypeOID, TypeMod: c.TypeMod, TypeSchema: col.Type.Schema, TypeName: col.Type.Name,
			Key: slices.Contains(t.IdentityKey, c.Name), LeftOut: s.leaves(t, col),
		})
	}
	return rel
}

// readChunk sends the chunk's rows, the first message with its range, in bounded batches. bytes is the size of their values.
func (s *Source) readChunk(conn *pgx.Conn, t *pg.Table, rel *changelog.Relation, shape *tableShape, chunk *dataflow.Chunk, where string) (n, bytes int64, err error) {
	var cols []string
	for _, c := range shape.Columns {
		cols = append(cols, pg.Ident(c.Name))
	}
	f, err := s.filter(s.ctx, conn, t)
	if err != nil {
		return 0, 0, err
	}
	if f != "" {
		if where != "" {
			where += " AND "
		}
		where += "(" + f + ")"
	}
	sql := "SELECT " + strings.Join(cols, ", ") + " FROM " + only(t)
	if where != "" {
		sql += " WHERE " + where
	}
	format, kind := int16(0), byte(changelog.ValueText)
	if s.binary {
		format, kind = 1, changelog.ValueBinary
	}
	if err := s.send(dataflow.Message{Kind: dataflow.KindChunk, Chunk: chunk}); err != nil {
		return 0, 0, err
	}
	rr := conn.PgConn().ExecParams(s.ctx, sql, nil, nil, nil, []int16{format})
	batch := s.reader.pool.Get()
	index := batch.UseRelation(rel)
	var img []byte
	for rr.NextRow() {
		img = appendImage(img[:0], rr.Values(), kind)
		batch.Append(index, changelog.Insert, false, nil, img)
		n, bytes = n+1, bytes+int64(len(img))
		if batch.Bytes() >= batchGoal {
			if err := s.send(dataflow.Message{Kind: dataflow.KindRows, Rows: batch}); err != nil {
				return n, bytes, err
			}
			batch = s.reader.pool.Get()
			index = batch.UseRelation(rel)
		}
	}
	if _, err := rr.Close(); err != nil {
		batch.Release()
		return n, bytes, s.lost(err)
	}
	if len(batch.Entries) == 0 {
		batch.Release()
		return n, bytes, nil
	}
	return n, bytes, s.send(dataflow.Message{Kind: dataflow.KindRows, Rows: batch})
}

func appendImage(dst []byte, values [][]byte, kind byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(values)))
	for _, v := range values {
		if v == nil {
			dst = append(dst, changelog.ValueNull)
			continue
		}
		dst = append(dst, kind)
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(v)))
		dst = append(dst, v...)
	}
	return dst
}

// armLive makes the filter of a table from its copy's chunks.
func (s *Source) armLive(oid uint32) error {
	c := s.copies[oid]
	f := &tableFilter{num: c.Key, open: !c.Done, first: c.First, standby: s.standby}
	for _, ch := range c.Chunks {
		view, err := snapshot.ParseView(ch.View)
		if err != nil {
			return errs.New(errs.StateCorrupt, "stored copy of table %d: %w", oid, err).Because(err)
		}
		high, err := pg.ParseLSN(ch.High)
		if err != nil {
			return errs.New(errs.StateCorrupt, "stored copy of table %d: %w", oid, err).Because(err)
		}
		f.ranges = append(f.ranges, filterRange{through: ch.Through, view: &view, high: high})
	}
	if known := s.tables[oid]; known != nil && !f.follow(known) {
		return errs.New(errs.StateCorrupt, "stored copy of table %d: it has no column %d", oid, c.Key)
	}
	s.setFilter(oid, f)
	return nil
}

func (s *Source) setFilter(oid uint32, f *tableFilter) {
	if f == nil {
		delete(s.filters, oid)
	} else {
		s.filters[oid] = f
	}
	if s.reader == nil {
		return
	}
	if rel := s.reader.rels[oid]; rel != nil {
		if f == nil {
			rel.filter = nil
			if rel.rel != nil && rel.rel.Recopied && !s.recopies(oid) {
				complete := *rel.rel
				complete.Recopied = false
				rel.rel, rel.batch = &complete, 0
			}
		} else {
			rel.filter = f
		}
		// A table that joined while its rows already described themselves was not ours then.
		if f != nil && rel.rel == nil && !s.reshapes(rel.msg) {
			delete(s.reader.rels, oid)
			if r, _, _, err := s.resolve(rel.msg, nil); err == nil {
				s.reader.rels[oid] = r
			}
			s.reader.last = nil
		}
	}
}

// settle lets go of filters that the stream has passed.
func (s *Source) settle(position pg.LSN) error {
	if len(s.filters) == 0 || s.reader.inTx || s.reader.inBlock {
		return nil
	}
	var state []dataflow.StateChange
	for oid, f := range s.filters {
		if !f.past(position) {
			continue
		}
		s.setFilter(oid, nil)
		switch c := s.copies[oid]; {
		case c != nil && c.Again:
			s.copies[oid] = &liveCopy{Floor: c.Floor} // which may have risen since: see relist
			s.copying.Store(true)
			state = append(state, liveCopyState(oid, s.copies[oid]))
		case c != nil:
			delete(s.copies, oid)
			state = append(state, liveCopyState(oid, nil))
		}
		state = append(state, s.forgetRanges(oid)...)
	}
	if len(state) == 0 {
		return nil
	}
	// The notes go with a position that is past them, or a restart would read what they guarded against again.
	if err := s.reader.flush(); err != nil {
		return err
	}
	if position > s.reader.position {
		s.reader.position, s.reader.emitted = position, position
	}
	if err := s.send(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: append(positionState(s.reader.position), state...)}); err != nil {
		return err
	}
	return s.agree()
}

// agree says so, once, when the first copy and the stream agree: no range is left whose view the stream has not passed,
// and no lane of the target is further than others.
func (s *Source) agree() error {
	if s.consistent || len(s.filters) > 0 || len(s.copies) > 0 || s.reader.level > 0 {
		return nil
	}
	if err := s.reader.flush(); err != nil {
		return err
	}
	s.consistent = true
	return s.send(dataflow.Message{Kind: dataflow.KindMark, Consistent: true, Boundary: true,
		State: append(positionState(s.reader.position), dataflow.StateChange{Key: consistentKey, Value: []byte("1")})})
}

// restoreLive takes up copies beside the stream after a restart.
func (s *Source) restoreLive(state dataflow.State) error {
	for key, value := range state {
		if !strings.HasPrefix(key, liveCopyKey) {
			continue
		}
		oid, err := strconv.ParseUint(key[len(liveCopyKey):], 10, 32)
		if err != nil {
			return errs.New(errs.StateCorrupt, "stored key %q", key)
		}
		c := &liveCopy{}
		if err := json.Unmarshal(value, c); err != nil {
			return errs.New(errs.StateCorrupt, "stored copy of table %d: %w", oid, err).Because(err)
		}
		if c.Done && c.Again && len(c.Chunks) == 0 {
			if s.filters[uint32(oid)] != nil { // of the first copy
				s.copies[uint32(oid)] = c
				s.tableProgress(uint32(oid), func(p *TableProgress) { p.Copying, p.Done = true, false })
				continue
			}
			c = &liveCopy{}
		}
		if len(c.Chunks) == 0 {
			// Whoever may have written under an earlier publication still runs, or has ended.
			floor, err := s.horizon()
			if err != nil {
				return err
			}
			c.Floor = max(c.Floor, floor)
		}
		s.copies[uint32(oid)] = c
		if err := s.armLive(uint32(oid)); err != nil {
			return err
		}
		if !c.Done {
			s.copying.Store(true)
			s.tableProgress(uint32(oid), func(p *TableProgress) { p.Copying, p.Done = true, false })
		}
	}
	return nil
}

// seedDelivered notes where the database stands, for what an earlier process has delivered: all of that is below.
func (s *Source) seedDelivered(ctx context.Context) error {
	var view string
	if err := s.ctl.QueryRow(ctx, "SELECT "+s.currentSnapshot()).Scan(&view); err != nil {
		return s.lost(err)
	}
	v, err := snapshot.ParseView(view)
	if err != nil {
		return err
	}
	s.delivered.Floor = v.Xmax
	return nil
}
