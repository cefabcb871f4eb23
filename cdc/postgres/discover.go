package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// What happens to the catalog while the log is read: tables that come and go, and orders from outside, obeyed between two
// transactions.

// command is an order to the receiving goroutine, obeyed between two transactions.
type command struct {
	at        time.Time      // when the catalog was looked at
	present   []pg.TableName // the selected tables that exist now
	columns   []listedColumn // of tables that are published with a list of columns
	listing   *listing
	elsewhere bool // a standby seems to be on a new timeline
	parts     []partition
	refresh   []string                  // patterns; none: every table
	done      chan error                // of refresh; buffered
	tables    *atomic.Pointer[[]uint32] // of refresh: those that are copied, before done is told
}

func (s *Source) wake() {
	s.feed.interrupt()
}

// discover looks for new and dropped tables on a connection of its own.
func (s *Source) discover() {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.Background())
		}
	}()
	var last []pg.TableName
	var lastColumns []listedColumn
	var lastListing *listing
	var lastParts []partition
	for first := true; first || s.env.Clock.Sleep(s.ctx, s.opts.DiscoveryPeriod) == nil; first = false {
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pg.ConnectPgx(s.ctx, s.env, s.opts.Config, pg.ConnectOptions{AppName: appName + " discovery"}); err != nil {
				continue // the stream will say what is wrong with the server
			}
		}
		at := s.env.Clock.Now()
		var end string
		if err := conn.QueryRow(s.ctx, "SELECT "+s.walNow()).Scan(&end); err != nil {
			continue
		}
		if lsn, err := pg.ParseLSN(end); err == nil {
			s.progress.LogEnd.Store(uint64(lsn))
			s.progress.heard.Store(s.env.Clock.Now().UnixNano())
		}
		names, err := s.selected(s.ctx, conn)
		if err != nil {
			continue
		}
		columns, err := s.listedColumns(s.ctx, conn)
		if err != nil {
			continue
		}
		sent, err := s.listing(s.ctx, conn)
		if err != nil {
			continue
		}
		parts, err := s.partitions(s.ctx, conn)
		if err != nil {
			continue
		}
		elsewhere := false
		if s.standby {
			timeline, err := s.timelineOfStandby(s.ctx, conn)
			elsewhere = err == nil && timeline > s.timeline.Load()
		}
		pending := s.copying.Load() || elsewhere
		if sent.equal(lastListing) && slices.EqualFunc(parts, lastParts, samePartition) && slices.EqualFunc(names, last, sameTable) && slices.Equal(columns, lastColumns) && !pending && !s.lookAgain.Swap(false) {
			s.progress.Looked.Store(at.UnixNano())
			continue
		}
		select {
		case s.commands <- command{at: at, present: names, columns: columns, listing: sent, elsewhere: elsewhere, parts: parts}:
			last, lastColumns, lastListing, lastParts = names, columns, sent, parts
			s.wake()
		default: // the last one has not been obeyed yet
		}
	}
}

// attend runs the orders that came, and one chunk of a copy that is under way. A chunk makes the stream wait, so the
// stream gets as long to itself afterwards.
func (s *Source) attend() error {
	if err := s.obey(); err != nil {
		return err
	}
	if len(s.again) > 0 {
		if _, err := s.copyAgain(s.again); err != nil {
			return err
		}
		s.again = nil
	}
	if !s.copying.Load() {
		return nil
	}
	now := s.env.Clock.Now()
	if wait := s.nextChunk.Sub(now); wait > 0 {
		s.feed.interruptIn(wait)
		return nil
	}
	err := s.copyChunk()
	end := s.env.Clock.Now()
	s.nextChunk = end.Add(max(end.Sub(now), time.Millisecond))
	if err == nil && s.copying.Load() {
		s.feed.interruptIn(s.nextChunk.Sub(end))
	}
	return err
}

func (s *Source) obey() error {
	for {
		select {
		case c := <-s.commands:
			var err error
			if c.done != nil {
				err = s.beginRefresh(c)
				c.done <- err
				if _, isRecord := errs.As(err); isRecord && !errs.Is(err, errs.SourceUnreachable) {
					err = nil // the asker was told
				}
			} else {
				if err = s.follow(c.present); err == nil {
					err = s.listAnew(c.columns)
				}
				if err == nil {
					err = s.relist(c.listing)
				}
				if err == nil {
					err = s.followPartitions(c.parts)
				}
				if err == nil && c.elsewhere {
					err = s.followTimeline()
				}
				if err == nil && !s.lookAgain.Load() {
					s.progress.Looked.Store(c.at.UnixNano())
				}
			}
			if err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// follow takes up tables that appeared and lets go of those that are gone.
func (s *Source) follow(present []pg.TableName) error {
	var fresh []pg.TableName
	have := map[uint32]bool{}
	for _, t := range present {
		have[t.OID] = true
		if s.tables[t.OID] != nil || s.copies[t.OID] != nil {
			continue
		}
		if s.keepsName(t) {
			if !s.waiting[t.OID] {
				s.waiting[t.OID] = true
				s.env.Log.Warn("a new table does not join, because an older one of its name, renamed or dropped since, still has that name at the target; see schema.change.behavior", "table", t.String())
			}
			s.lookAgain.Store(true)
			continue
		}
		fresh = append(fresh, t)
	}
	for oid, shape := range s.tables {
		if have[oid] || s.tables[oid] == nil {
			continue // it may have gone with one that was let go before
		}
		if err := s.letGo(oid, shape); err != nil {
			return err
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	var oids []uint32
	for _, t := range fresh {
		oids = append(oids, t.OID)
	}
	specs, err := s.present(oids)
	if specs == nil || err != nil {
		return err
	}
	if specs, err = s.identified(specs); len(specs) == 0 || err != nil {
		return err
	}
	oids = oids[:0]
	for _, t := range specs {
		oids = append(oids, t.OID)
	}
	for _, t := range specs {
		if s.binary {
			for _, c := range t.Columns {
				if c.Generated == 0 && !streamBinary(c.Type) {
					return ErrTextNeeded
				}
			}
		}
	}
	if s.opts.Join != nil {
		if err := s.opts.Join(s.ctx, oids); err != nil {
			return err
		}
	}
	if err := s.publish(s.ctx, specs); err == errTableGone {
		s.lookAgain.Store(true)
		return nil
	} else if err != nil {
		return err
	}
	if err := s.learnPublished(s.ctx); err != nil {
		return err
	}
	floor, err := s.horizon()
	if err != nil {
		return err
	}
	for _, t := range specs {
		s.env.Log.Info("table joins", "table", t.String())
		s.specs[t.OID] = t
		s.copies[t.OID] = &liveCopy{First: true, Floor: floor}
		s.progress.mu.Lock()
		s.progress.tables[t.OID] = &TableProgress{Schema: t.Schema, Name: t.Name, EstRows: t.RelTuples, EstBytes: t.Bytes, Copying: true}
		s.progress.mu.Unlock()
	}
	s.copying.Store(true)
	return nil
}

// identified leaves out tables whose rows cannot be told apart: once such a table is published the server refuses every
// UPDATE and DELETE of the application, or, where only partitions of it are like that, does not tell which row it was. They
// join when they have got an identity.
func (s *Source) identified(specs []*pg.Table) ([]*pg.Table, error) {
	var out []*pg.Table
	for _, t := range specs {
		why, args := "", []any{"table", t.String()}
		if t.Identity != 'f' && len(t.IdentityKey) == 0 {
			why = "it has no primary key; it joins when it has one, or REPLICA IDENTITY FULL"
		} else if t.Kind == 'p' {
			poor, err := s.poorPartitions(t.OID)
			if err != nil {
				return nil, err
			}
			if len(poor) > 0 {
				why = "a partition of it has another replica identity; it joins when that is mended"
				args = append(args, "partition", pg.DottedName(poor[0].name.Schema, poor[0].name.Name), "fix", mendPartition(poor[0].name, t.Identity))
			}
		}
		if why == "" {
			out = append(out, t)
			delete(s.waiting, t.OID)
			continue
		}
		if !s.waiting[t.OID] {
			s.waiting[t.OID] = true
			s.env.Log.Warn("a new table does not join, because "+why, args...)
		}
		s.lookAgain.Store(true)
	}
	return out, nil
}

// present describes tables as they are now. Nil: one was dropped at this moment, and the catalog is looked at again.
func (s *Source) present(oids []uint32) ([]*pg.Table, error) {
	specs, err := pg.PeekShapes(s.ctx, s.ctl, oids) // the stream waits for nobody's lock
	if pg.Vanished(err) {
		s.lookAgain.Store(true)
		return nil, nil
	}
	if err != nil {
		return nil, s.lost(err)
	}
	return specs, nil
}

// listedColumn is a column of a table that is published with a list of columns.
type listedColumn struct {
	table  uint32
	num    int16
	name   string
	listed bool
}

// listedColumns reads them. A list does not grow with its table: values of a column that is added later would stay
// behind without a word.
func (s *Source) listedColumns(ctx context.Context, conn *pgx.Conn) ([]listedColumn, error) {
	if s.version < 150000 {
		return nil, nil
	}
	rows, err := conn.Query(ctx, `SELECT r.prrelid::int8, a.attnum, a.attname, a.attnum = ANY (r.prattrs::int2[])
		FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid JOIN pg_attribute a ON a.attrelid = r.prrelid
		WHERE p.pubname = $1 AND r.prattrs IS NOT NULL AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
		ORDER BY 1, a.attnum`, s.opts.Publication)
	if err != nil {
		return nil, err
	}
	var out []listedColumn
	var oid int64
	var c listedColumn
	_, err = pgx.ForEachRow(rows, []any{&oid, &c.num, &c.name, &c.listed}, func() error {
		c.table = uint32(oid)
		out = append(out, c)
		return nil
	})
	return out, err
}

// listAnew publishes columns that were added to tables with a list, and copies these tables again, because rows written
// meanwhile came without them.
//
// The copy is noted before the list changes: a new column can be described only behind that, so that a crash finds
// either the note, or a column that is not known yet and the same way open again.
func (s *Source) listAnew(columns []listedColumn) error {
	if err := s.leaveListed(columns); err != nil {
		return err
	}
	var oids []uint32
	for _, c := range columns {
		known := s.tables[c.table]
		if known == nil || s.leftOut(c.table, known.Schema, known.Name, c.name, c.num) || slices.Contains(oids, c.table) ||
			c.listed && slices.ContainsFunc(known.Columns, func(k columnShape) bool { return k.Name == c.name }) {
			continue
		}
		if s.copies[c.table] != nil || s.filters[c.table] != nil {
			s.lookAgain.Store(true) // its copy may be of the old list; when that is done
			continue
		}
		oids = append(oids, c.table)
	}
	if len(oids) == 0 {
		return nil
	}
	specs, err := s.present(oids)
	if specs == nil || err != nil {
		return err
	}
	if s.opts.KeepPublication {
		// Its owner has to add them; then they are seen to be listed, and the table is copied again.
		if err := s.covered(s.ctx, specs, false); err != nil {
			return err
		}
		_, err := s.copyAgain(oids)
		return err
	}
	if err := s.reader.flush(); err != nil {
		return err
	}
	for _, t := range specs {
		c := &liveCopy{}
		state := append(positionState(s.reader.position), liveCopyState(t.OID, c))
		if err := s.send(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: state}); err != nil {
			return err
		}
		name := pg.Ident(s.opts.Publication)
		item, err := s.publishAnew(t)
		if err != nil {
			return err
		}
		sql := "ALTER PUBLICATION " + name + " DROP TABLE " + pg.Qualified(t.Schema, t.Name) + "; ALTER PUBLICATION " + name + " ADD TABLE " + item
		if err := s.changePublication(s.ctx, sql, []uint32{t.OID}, true); err == errTableGone {
			s.lookAgain.Store(true)
			continue
		} else if err != nil {
			return errs.New(errs.SourceStream, "publish the new columns of %s: %w", t, err).Because(err)
		}
		if err := s.learnPublished(s.ctx); err != nil {
			return err
		}
		if c.Floor, err = s.horizon(); err != nil {
			return err
		}
		s.env.Log.Info("new columns are published, and the table is copied again", "table", t.String())
		s.specs[t.OID], s.copies[t.OID] = t, c
		s.tableProgress(t.OID, func(p *TableProgress) { p.Copying, p.Done, p.sent, p.Rows, p.Bytes = true, false, false, 0, 0 })
	}
	s.copying.Store(true)
	return nil
}

// sameTable ignores the columns, whose changes the stream tells.
func sameTable(a, b pg.TableName) bool {
	return a.OID == b.OID && a.Schema == b.Schema && a.Name == b.Name && a.Kind == b.Kind && a.Persistence == b.Persistence && a.Parent == b.Parent
}

func samePartition(a, b partition) bool {
	return a.root == b.root && a.oid == b.oid && a.files == b.files
}

// letGo ends the mirroring of a table that was dropped, that was renamed out of the selection, or that lost its last
// column: the target keeps the rows then, and when the table has a column again it joins anew.
func (s *Source) letGo(oid uint32, shape *tableShape) error {
	var exists bool
	if err := s.ctl.QueryRow(s.ctx, `SELECT EXISTS (SELECT FROM pg_class WHERE oid = $1::oid)`, fmt.Sprint(oid)).Scan(&exists); err != nil {
		return s.lost(err)
	}
	// Under load rows of transactions that ended are still gathered, and the note below carries a position behind them.
	if err := s.reader.flush(); err != nil {
		return err
	}
	if exists {
		if err := s.leave(oid); err != nil {
			return err
		}
		if err := s.takeNames(); err != nil {
			return err
		}
		return s.send(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: positionState(s.reader.position)})
	}
	s.env.Log.Info("table leaves", "table", shape.name().String(), "dropped", true)
	return s.drop(oid, shape)
}

// drop forgets a table, and has the target drop its own. Nothing gathered waits to be sent.
func (s *Source) drop(oid uint32, shape *tableShape) error {
	old := s.describedAs(oid, shape)
	s.forgetTable(oid)
	return s.send(dataflow.Message{Kind: dataflow.KindSchema, Boundary: true,
		State:  append(positionState(s.reader.position), dataflow.StateChange{Key: tableKey(oid)}, liveCopyState(oid, nil), leftState(oid, nil)),
		Schema: &changelog.SchemaChange{Old: old, Steps: []changelog.SchemaStep{{Kind: changelog.DropTable}}}})
}
