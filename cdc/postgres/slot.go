package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// slotInfo is a row of pg_replication_slots.
type slotInfo struct {
	plugin, database string
	active           bool
	activePID        int32
	walStatus        string
	confirmed        pg.LSN
	restart          pg.LSN
}

func (s *Source) slot(ctx context.Context, conn *pgx.Conn) (*slotInfo, error) {
	status := "'reserved'"
	if s.version >= 130000 {
		status = "coalesce(wal_status, 'reserved')"
	}
	var info slotInfo
	var confirmed, restart string
	err := conn.QueryRow(ctx, `SELECT coalesce(plugin, ''), coalesce(database, ''), active, coalesce(active_pid, 0), `+status+`,
		coalesce(confirmed_flush_lsn, '0/0')::text, coalesce(restart_lsn, '0/0')::text
		FROM pg_replication_slots WHERE slot_name = $1`, s.opts.Slot).
		Scan(&info.plugin, &info.database, &info.active, &info.activePID, &info.walStatus, &confirmed, &restart)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, s.lost(err)
	}
	if info.confirmed, err = pg.ParseLSN(confirmed); err != nil {
		return nil, err
	}
	info.restart, err = pg.ParseLSN(restart)
	return &info, err
}

// checkSlot refuses to go on where changes between our position and the slot's would be missing.
func (s *Source) checkSlot(ctx context.Context, position pg.LSN) error {
	info, err := s.slot(ctx, s.ctl)
	if err != nil {
		return err
	}
	switch {
	case info == nil:
		return errs.New(errs.SlotLost, "slot %q does not exist any more on %s", s.opts.Slot, s.opts.Config.Server()).
			WithDetail("what was committed since the last checkpoint cannot be read")
	case info.plugin != "pgoutput" || info.database != s.opts.Config.Database():
		return errs.New(errs.SlotLost, "slot %q is not ours: plugin %s, database %s", s.opts.Slot, info.plugin, info.database)
	case info.walStatus == "lost":
		return errs.New(errs.SlotLost, "slot %q has lost WAL that it still needed", s.opts.Slot).
			WithDetail("max_slot_wal_keep_size bounds what a slot keeps: raise it before the new copy")
	case info.confirmed > position:
		return errs.New(errs.SlotGap, "slot %q was moved to %s, past our position %s", s.opts.Slot, info.confirmed, position).
			WithDetail("changes between the two are missing at the target: somebody else read the slot, or the target was put back to an older state")
	}
	if !info.active {
		return nil
	}
	return s.takeSlot(ctx, info)
}

// takeSlot ends an older reader of ours that still hangs on the slot: its walsender blocks for up to
// wal_sender_timeout after its client has died. Anybody else's reader is left alone.
func (s *Source) takeSlot(ctx context.Context, info *slotInfo) error {
	for attempt := range 100 {
		var app string
		err := s.ctl.QueryRow(ctx, `SELECT application_name FROM pg_stat_activity WHERE pid = $1::int`, info.activePID).Scan(&app)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return s.lost(err)
		}
		if err == nil && app != appName {
			return errs.New(errs.SlotInUse, "slot %q is read by %q (pid %d)", s.opts.Slot, app, info.activePID).
				WithHint("each mirror needs a slot of its own: --set slot.name=…")
		}
		if attempt%20 == 0 {
			if _, err := s.ctl.Exec(ctx, `SELECT pg_terminate_backend($1::int)`, info.activePID); err != nil {
				return s.lost(err)
			}
		}
		if err := s.env.Clock.Sleep(ctx, slotPoll); err != nil {
			return err
		}
		next, err := s.slot(ctx, s.ctl)
		if err != nil || next == nil || !next.active {
			return err
		}
		info = next
	}
	return errs.New(errs.SlotInUse, "slot %q stays in use by pid %d", s.opts.Slot, info.activePID)
}

// createSlot makes the slot and exports the snapshot that begins where it begins. The snapshot lives as long as conn
// runs no other command.
//
// The server waits for every transaction that has a number when it is asked; a client that gives up leaves it at work
// and the slot appears later, so there is no time limit here and a slot left over is dropped at the next start.
func (s *Source) createSlot(ctx context.Context, conn *pgconn.PgConn) (consistent pg.LSN, snapshot string, err error) {
	sql := "CREATE_REPLICATION_SLOT " + pg.Ident(s.opts.Slot) + " LOGICAL pgoutput EXPORT_SNAPSHOT"
	if s.version >= 170000 && s.opts.Failover {
		sql = "CREATE_REPLICATION_SLOT " + pg.Ident(s.opts.Slot) + " LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER)"
	}
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		var e *pgconn.PgError
		if errors.As(err, &e) && e.Code == "42710" {
			return 0, "", errs.New(errs.SlotInUse, "slot %q exists already", s.opts.Slot).Because(err)
		}
		return 0, "", errs.New(errs.SourceStream, "create slot %q: %w", s.opts.Slot, err).Because(err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 3 {
		return 0, "", errs.New(errs.SourceProtocol, "create slot %q: unexpected answer", s.opts.Slot)
	}
	row := results[0].Rows[0]
	consistent, err = pg.ParseLSN(string(row[1]))
	return consistent, string(row[2]), err
}

// dropStaleSlot removes a slot of ours that no stored position belongs to: a first start that died before its first
// cut left it.
func (s *Source) dropStaleSlot(ctx context.Context) error {
	info, err := s.slot(ctx, s.ctl)
	if err != nil || info == nil {
		return err
	}
	if info.active {
		if err := s.takeSlot(ctx, info); err != nil {
			return err
		}
	}
	s.env.Log.Warn("dropping a slot left by a start that did not get far", "slot", s.opts.Slot)
	_, err = s.ctl.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, s.opts.Slot)
	if err != nil {
		return errs.New(errs.SlotInUse, "drop slot %q: %w", s.opts.Slot, err).Because(err)
	}
	return nil
}

// publish makes the publication cover exactly the given tables. It must be there before the slot: a slot reads its WAL
// with the publications as they were then.
func (s *Source) publish(ctx context.Context, tables []*pg.Table) error {
	var exists, all bool
	err := s.ctl.QueryRow(ctx, `SELECT true, puballtables FROM pg_publication WHERE pubname = $1`, s.opts.Publication).Scan(&exists, &all)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return s.lost(err)
	}
	var items []string
	for _, t := range tables {
		items = append(items, s.publishItem(t))
	}
	if !exists && s.resumed {
		return errs.New(errs.PublicationMissing, "publication %q is gone from %s", s.opts.Publication, s.opts.Config.Server()).
			WithDetail("what was written since then is not in the slot's stream, and some servers leave it out without a word").
			WithHint("a publication made again does not help an older slot; copy anew, as weir help W1003 tells")
	}
	if !exists {
		sql := "CREATE PUBLICATION " + pg.Ident(s.opts.Publication)
		if len(items) > 0 {
			sql += " FOR TABLE " + strings.Join(items, ", ")
		}
		if s.version >= 130000 {
			sql += " WITH (publish_via_partition_root = true)"
		}
		err := s.changePublication(ctx, sql, oidsOf(tables), true)
		if err != nil && err != errTableGone {
			return errs.New(errs.PublicationMissing, "create publication %q: %w", s.opts.Publication, err).Because(err).
				WithFix(sql + ";")
		}
		return err
	}
	if all || s.opts.KeepPublication {
		return s.covered(ctx, tables, false)
	}
	have := map[uint32]bool{}
	rows, err := s.ctl.Query(ctx, `SELECT prrelid::int8 FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1`, s.opts.Publication)
	if err != nil {
		return s.lost(err)
	}
	var oid int64
	if _, err := pgx.ForEachRow(rows, []any{&oid}, func() error { have[uint32(oid)] = true; return nil }); err != nil {
		return s.lost(err)
	}
	var add []string
	for i, t := range tables {
		// One that is known and missing is left to the stream; see relist.go.
		if known := s.resumed && s.reader == nil && s.tables[t.OID] != nil; !have[t.OID] && !known {
			add = append(add, items[i])
		}
		delete(have, t.OID)
	}
	if len(add) > 0 {
		sql := "ALTER PUBLICATION " + pg.Ident(s.opts.Publication) + " ADD TABLE " + strings.Join(add, ", ")
		err := s.changePublication(ctx, sql, oidsOf(tables), true)
		if err != nil && err != errTableGone {
			return errs.New(errs.PublicationMissing, "add tables to publication %q: %w", s.opts.Publication, err).Because(err).WithFix(sql + ";")
		}
		if err != nil {
			return err
		}
	}
	if s.reader == nil && !s.resumed {
		return s.covered(ctx, tables, true) // somebody may have made it beforehand, as the doctor advises
	}
	return nil
}

// changePublication runs sql, which names tables, and keeps its result if that is about the tables that are meant:
// afterwards all of them are in the publication, or none. Another table may have got a name since the catalog was read.
func (s *Source) changePublication(ctx context.Context, sql string, oids []uint32, in bool) error {
	want := 0
	if in {
		want = len(oids)
	}
	patience := ""
	if s.reader != nil {
		// The stream stands still meanwhile, perhaps with a lock for which the holder of this one waits.
		patience = "SET LOCAL lock_timeout = '1s'; "
	}
	results, err := s.ctl.PgConn().Exec(ctx, "BEGIN; "+patience+sql+"; SELECT count(*) FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = "+
		pg.Literal(s.opts.Publication)+" AND r.prrelid = ANY ("+pg.Literal(oidArray(oids))+"::oid[])").ReadAll()
	end := "ROLLBACK"
	if err == nil {
		if last := results[len(results)-1].Rows; len(last) == 1 && string(last[0][0]) == strconv.Itoa(want) {
			end = "COMMIT"
		}
	}
	if _, eerr := s.ctl.PgConn().Exec(ctx, end).ReadAll(); eerr != nil {
		return s.lost(eerr)
	}
	var e *pgconn.PgError
	switch {
	case errors.As(err, &e) && e.Code == "42703" && e.Position == 0: // of a list; a filter's would have a place in the statement
		return errTableGone
	case errors.As(err, &e) && slices.Contains([]string{"42P01", "42704", "42710", "3F000", "55P03"}, e.Code):
		return errTableGone
	case err != nil:
		return err
	case end == "ROLLBACK":
		return errTableGone
	}
	return nil
}

func oidsOf(tables []*pg.Table) []uint32 {
	oids := make([]uint32, len(tables))
	for i, t := range tables {
		oids[i] = t.OID
	}
	return oids
}

// errTableGone: a table was dropped, or it or a column was renamed, between the look at the catalog and its use. Looking again helps.
var errTableGone = errs.New(errs.SourceStream, "a table was dropped, or it or a column was renamed, while the publication was changed")

// covered refuses a publication that was there before and sends something else than the mirror takes: too little would be
// lost, and with other row filters than the copy's the target would end up as neither. own: it has weir's name.
func (s *Source) covered(ctx context.Context, tables []*pg.Table, own bool) error {
	p, err := pg.LoadPublication(ctx, s.ctl, s.opts.Publication)
	if err != nil {
		return s.lost(err)
	}
	if p == nil {
		return errs.New(errs.PublicationMissing, "publication %q is gone from %s", s.opts.Publication, s.opts.Config.Server())
	}
	if len(p.Off) > 0 {
		return errs.New(errs.PublicationMissing, "publication %q leaves out %s", p.Name, strings.Join(p.Off, ", ")).
			WithFix("ALTER PUBLICATION " + pg.Ident(p.Name) + " SET (publish = 'insert, update, delete, truncate');")
	}
	for _, t := range tables {
		if t.Kind == 'p' && !p.ViaRoot && s.version >= 130000 {
			return errs.New(errs.PublicationMissing, "publication %q sends changes of %s under the names of its partitions", p.Name, t).
				WithFix("ALTER PUBLICATION " + pg.Ident(p.Name) + " SET (publish_via_partition_root = true);")
		}
		w := s.wanted(t)
		x, ok := p.Tables[t.OID]
		if !ok {
			return s.uncovered(ctx, p, w)
		}
		why, price, err := p.Differs(ctx, s.ctl, w)
		var ours *pg.ConditionError
		switch {
		case errors.As(err, &ours):
			return errs.New(errs.RowFilterUnsupport, "the filter of %s is refused: %w", t, err).Because(err)
		case err != nil:
			return s.lost(err)
		case why == "" && own && (x.Columns == nil) != (w.List == nil):
			why = fmt.Sprintf("publication %s names other columns of %s than the mirror takes", p.Name, t)
		}
		if why != "" {
			return s.narrowed(p, w, why, price)
		}
		if !own {
			s.sent[t.OID] = x.Columns
		}
		if known := s.tables[t.OID]; x.Columns != nil && s.live && s.reader == nil && known != nil && s.grown(t, known) {
			s.copyLater(t.OID) // rows written before the column was listed came without it
		}
	}
	return nil
}

// grown tells whether a table that is published with a list of columns has one that is not known yet.
func (s *Source) grown(t *pg.Table, known *tableShape) bool {
	return slices.ContainsFunc(t.Columns, func(c pg.Column) bool {
		return c.Generated == 0 && !s.leaves(t, &c) &&
			!slices.ContainsFunc(known.Columns, func(k columnShape) bool { return k.Attnum == c.Attnum })
	})
}

// uncovered says that a table is not in the publication, unless it is not in the database any more either.
func (s *Source) uncovered(ctx context.Context, p *pg.Publication, w pg.Wanted) error {
	var there bool
	if err := s.ctl.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_class WHERE oid = $1::oid)`, fmt.Sprint(w.OID)).Scan(&there); err != nil {
		return s.lost(err)
	}
	if !there {
		return errTableGone
	}
	return errs.New(errs.PublicationMissing, "publication %q does not cover %s", p.Name, pg.DottedName(w.Schema, w.Name)).WithFix(p.Repair(w))
}

func (s *Source) narrowed(p *pg.Publication, w pg.Wanted, why, price string) error {
	e := errs.New(errs.PublicationMissing, "%s", why).WithFix(p.Repair(w))
	if s.opts.KeepPublication {
		e.Detail = price
	}
	switch {
	case p.Whole(w.Schema):
		e.WithHint("only a publication FOR TABLE … WHERE (…) has filters; weir doctor writes one")
	case s.resumed || s.reader != nil:
		e.WithHint("what was written while the publication was as it is now stays as it was sent: when the mirror runs again, copy the table anew: weir sources refresh '%s'",
			selection.Quote(pg.TargetName{Schema: w.Schema, Name: w.Name}))
	}
	return e
}

// wanted is what the mirror takes of a table.
func (s *Source) wanted(t *pg.Table) pg.Wanted {
	w := pg.Wanted{OID: t.OID, Schema: t.Schema, Name: t.Name, Partitioned: t.Kind == 'p',
		Excluded: func(column string) bool { return s.leaves(t, t.Column(column)) }}
	for _, c := range t.Columns {
		if c.Generated != 0 {
			continue
		}
		w.Columns, w.Types = append(w.Columns, c.Name), append(w.Types, c.FormattedType)
	}
	if s.listed(t) {
		w.List = slices.DeleteFunc(slices.Clone(w.Columns), w.Excluded)
	}
	if s.version >= 150000 {
		w.Filter = s.opts.Filter(t.Schema, t.Name)
	}
	return w
}

// publishItem is one table of FOR TABLE, from 15 on with its columns and row filter.
func (s *Source) publishItem(t *pg.Table) string { return s.wanted(t).Item() }

// publishAnew is publishItem for a table that is mirrored.
func (s *Source) publishAnew(t *pg.Table) (string, error) {
	w := s.wanted(t)
	var err error
	if s.version >= 150000 {
		w.Filter, err = s.filter(s.ctx, s.ctl, t)
	}
	return w.Item(), err
}

// Drop removes the pipeline's slot and publication. It is idempotent.
func Drop(ctx context.Context, conn *pgx.Conn, slot, publication string) error {
	// A database that was made read-only for a cut-over is so by its sessions' default.
	if _, err := conn.Exec(ctx, `SET default_transaction_read_only = off`); err != nil {
		return fmt.Errorf("write to the source's catalog: %w", err)
	}
	if _, err := conn.Exec(ctx, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active`, slot); err != nil {
		return fmt.Errorf("end the reader of slot %q: %w", slot, err)
	}
	var err error
	for range 50 {
		if _, err = conn.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1`, slot); err == nil {
			break
		}
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != "55006" {
			break
		}
		// The walsender that was told to end is still there; the server can wait for us.
		if _, serr := conn.Exec(ctx, `SELECT pg_sleep(0.1)`); serr != nil {
			return serr
		}
	}
	if err != nil {
		return fmt.Errorf("drop slot %q: %w", slot, err)
	}
	if publication == "" {
		return nil
	}
	if _, err := conn.Exec(ctx, "DROP PUBLICATION IF EXISTS "+pg.Ident(publication)); err != nil {
		return fmt.Errorf("drop publication %q: %w", publication, err)
	}
	return nil
}
