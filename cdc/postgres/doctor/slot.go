package doctor

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

type slot struct {
	plugin, kind, database string
	active                 int64 // pid, 0: nobody
	status                 string
	reason                 string // why it was invalidated
	confirmed              string
	retained               int64
	temporary              bool
	failover               bool
}

// position is the end of the log, on a standby the end of what it has.
const position = `CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END`

func (d *doctor) checkSlot(ctx context.Context) error {
	s, err := d.look(ctx, d.opts.Slot)
	if err != nil {
		return err
	}
	if s == nil && d.opts.Shared != "" {
		if err := d.takeShared(ctx, &s); err != nil {
			return err
		}
	}
	d.checkSlotState(s)
	if err := d.checkGap(s); err != nil {
		return err
	}
	d.checkAge(s)
	return d.checkFailover(ctx, s)
}

// takeShared looks at the shared slot in place of an own one that is not there. A pipeline that has never begun has no
// publication either; its slot is still to be made.
func (d *doctor) takeShared(ctx context.Context, s **slot) error {
	var begun bool
	err := d.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1::text)`, d.opts.Publication).Scan(&begun)
	if err != nil {
		return fmt.Errorf("look for the publication: %w", err)
	}
	shared, err := d.look(ctx, d.opts.Shared)
	if err != nil || !begun || shared == nil || shared.plugin != "pgoutput" || shared.database != d.server.database {
		return err
	}
	*s, d.opts.Slot, d.opts.Running = shared, d.opts.Shared, true
	return nil
}

func (d *doctor) look(ctx context.Context, name string) (s *slot, err error) {
	err = d.rows(ctx, "read the slot", `
		SELECT coalesce(s.plugin::text, ''), s.slot_type, coalesce(s.database::text, ''), coalesce(s.active_pid, 0)::int8,
		       coalesce(to_jsonb(s) ->> 'wal_status', ''),
		       coalesce(to_jsonb(s) ->> 'invalidation_reason', CASE WHEN (to_jsonb(s) ->> 'conflicting')::bool THEN 'conflict' END, ''),
		       coalesce(s.confirmed_flush_lsn::text, '0/0'), coalesce(pg_wal_lsn_diff(`+position+`, s.restart_lsn), 0)::int8,
		       s.temporary, coalesce((to_jsonb(s) ->> 'failover')::bool, false)
		FROM pg_replication_slots s WHERE s.slot_name = $1::text`,
		func(r pgx.Rows) error {
			s = &slot{}
			return r.Scan(&s.plugin, &s.kind, &s.database, &s.active, &s.status, &s.reason, &s.confirmed, &s.retained, &s.temporary, &s.failover)
		}, name)
	return s, err
}

func (d *doctor) checkSlotState(s *slot) {
	const id = "pg.slot"
	name := d.opts.Slot
	drop := "SELECT pg_drop_replication_slot(" + pg.Literal(name) + ");"
	again := drop + " -- then copy all tables again"
	positioned := d.opts.Stored != nil && d.opts.Stored.Position != 0
	switch {
	case s == nil && positioned:
		d.out.Fatal(id, errs.SlotLost, "", "slot %s is gone, and with it the changes since %s: copy all tables again", name, d.opts.Stored.Position)
	case s == nil:
		d.out.OK(id, "the slot is created at the start")
	case s.kind != "logical" || s.plugin != "pgoutput" || s.temporary:
		d.out.Fatal(id, errs.SourcePreflight, drop, "slot %s is somebody else's (%s, %s%s): drop it if nobody needs it, or choose another slot.name", name, s.kind, s.plugin, map[bool]string{true: ", temporary"}[s.temporary])
	case s.database != d.server.database:
		d.out.Fatal(id, errs.SourcePreflight, drop, "slot %s belongs to database %s, not %s: drop it if nobody needs it, or choose another slot.name", name, s.database, d.server.database)
	case s.status == "lost" || s.reason != "":
		d.out.Fatal(id, errs.SlotLost, again, "slot %s is lost%s: the server dropped log that it needed", name, because(s.reason))
	case s.active != 0 && !d.opts.Running:
		d.out.Fatal(id, errs.SlotInUse, "SELECT pg_terminate_backend("+strconv.FormatInt(s.active, 10)+");",
			"slot %s is in use by process %d: stop that reader first", name, s.active)
	case s.status == "unreserved":
		d.out.Warn(id, errs.SlotLost, "", "slot %s is about to be lost: the server may drop the log it needs at the next checkpoint; resume the pipeline now", name)
	default:
		d.out.OK(id, "slot %s can be read from %s", name, s.confirmed)
	}
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

// checkGap: a slot that stands ahead of us skips silently what lies between.
func (d *doctor) checkGap(s *slot) error {
	const id = "pg.slot_gap"
	if s == nil || d.opts.Stored == nil || d.opts.Stored.Position == 0 {
		d.out.OK(id, "no stored position to compare with")
		return nil
	}
	confirmed, err := pg.ParseLSN(s.confirmed)
	if err != nil {
		return fmt.Errorf("read the position of slot %s: %w", d.opts.Slot, err)
	}
	if confirmed > d.opts.Stored.Position {
		d.out.Fatal(id, errs.SlotGap, "SELECT pg_drop_replication_slot("+pg.Literal(d.opts.Slot)+"); -- then copy all tables again",
			"slot %s stands at %s, behind which the pipeline (at %s) has not read: somebody else has used it, and changes are gone", d.opts.Slot, confirmed, d.opts.Stored.Position)
		return nil
	}
	d.out.OK(id, "the slot stands at or before the pipeline's position")
	return nil
}

// warnRetained is how much kept log is worth a word where no limit is set.
const warnRetained = 16 << 30

func (d *doctor) checkAge(s *slot) {
	const id = "pg.slot_age"
	keepMB, err := strconv.ParseInt(d.server.settings["max_slot_wal_keep_size"], 10, 64)
	limited := err == nil && keepMB >= 0
	limit := int64(warnRetained)
	if limited {
		limit = keepMB << 20 / 2
	}
	switch {
	case s == nil || s.retained <= limit:
		d.out.OK(id, "little log is kept for the slot")
	case limited:
		d.out.Warn(id, errs.SourcePreflight, d.server.provider.systemFix([]string{fmt.Sprintf("ALTER SYSTEM SET max_slot_wal_keep_size = '%dMB';", max(s.retained>>20*4, keepMB*2))}, false),
			"slot %s holds %d MB of log, and at %d MB it is lost: resume the pipeline, or raise max_slot_wal_keep_size", d.opts.Slot, s.retained>>20, keepMB)
	default:
		d.out.Warn(id, errs.SourcePreflight, "SELECT pg_drop_replication_slot("+pg.Literal(d.opts.Slot)+"); -- only if the pipeline is given up",
			"slot %s holds %d GB of log: resume the pipeline before the disk is full", d.opts.Slot, s.retained>>30)
	}
}

// checkFailover wants the slot on the standbys too, where there are any.
func (d *doctor) checkFailover(ctx context.Context, s *slot) error {
	const id = "pg.failover"
	if s == nil || d.server.version < 170000 || d.server.recovery || s.failover {
		d.out.OK(id, "%s", map[bool]string{true: "the slot follows a failover", false: "nothing to ask"}[s != nil && s.failover])
		return nil
	}
	var standbys int
	err := d.conn.QueryRow(ctx, `SELECT count(*)::int FROM pg_replication_slots WHERE slot_type = 'physical'`).Scan(&standbys)
	if err != nil {
		return fmt.Errorf("count standbys: %w", err)
	}
	if standbys == 0 {
		d.out.OK(id, "the server has no standby")
		return nil
	}
	d.out.Warn(id, errs.SourcePreflight, "ALTER_REPLICATION_SLOT "+pg.Ident(d.opts.Slot)+" (FAILOVER true); -- on a replication connection, while the pipeline is paused",
		"the server has %s and slot %s stays behind at a failover: everything would be copied again", api.Counted(standbys, "standby", "standbys"), d.opts.Slot)
	return nil
}

func (d *doctor) checkOrphans(ctx context.Context) error {
	var found []api.Check
	err := d.rows(ctx, "look for forgotten slots", `
		SELECT s.slot_name::text, coalesce(pg_wal_lsn_diff(`+position+`, s.restart_lsn), 0)::int8
		FROM pg_replication_slots s
		WHERE s.slot_type = 'logical' AND NOT s.active AND s.database = current_database()
		  AND starts_with(s.slot_name::text, $1::text) AND s.slot_name <> $2::text AND s.slot_name <> $3::text ORDER BY 1`,
		func(r pgx.Rows) error {
			var name string
			var retained int64
			if err := r.Scan(&name, &retained); err != nil {
				return err
			}
			found = append(found, finding(api.SeverityWarning, errs.SourcePreflight, name, "SELECT pg_drop_replication_slot("+pg.Literal(name)+");",
				"slot %s is one of weir's, nobody reads it, and it holds %d MB of log: drop it unless its pipeline is only paused", name, retained>>20))
			return nil
		}, d.opts.SlotPrefix, d.opts.Slot, d.opts.Shared)
	if err != nil {
		return err
	}
	d.out.Each("pg.orphan", found, "no forgotten slot holds log")
	return nil
}

// checkTransactions: making a slot waits for every transaction that has a number.
func (d *doctor) checkTransactions(ctx context.Context) error {
	var found []api.Check
	seconds := d.opts.LongTx.Seconds()
	err := d.rows(ctx, "look for long transactions", `
		SELECT a.pid::int8, coalesce(a.usename::text, ''), coalesce(a.datname::text, ''), extract(epoch FROM now() - a.xact_start)::int8
		FROM pg_stat_activity a
		WHERE a.backend_xid IS NOT NULL AND a.xact_start < now() - make_interval(secs => $1::text::float8) ORDER BY a.xact_start`,
		func(r pgx.Rows) error {
			var pid, age int64
			var user, database string
			if err := r.Scan(&pid, &user, &database, &age); err != nil {
				return err
			}
			found = append(found, finding(api.SeverityWarning, errs.SourcePreflight, strconv.FormatInt(pid, 10),
				fmt.Sprintf("SELECT pg_terminate_backend(%d);", pid),
				"process %d of %s in database %s has had a transaction open for %d s: making a slot waits for its end", pid, user, database, age))
			return nil
		}, strconv.FormatFloat(seconds, 'f', 3, 64))
	if err != nil {
		return err
	}
	err = d.rows(ctx, "look for prepared transactions", `
		SELECT p.gid, p.database::text, extract(epoch FROM now() - p.prepared)::int8 FROM pg_prepared_xacts p
		WHERE p.prepared < now() - make_interval(secs => $1::text::float8) ORDER BY p.prepared`,
		func(r pgx.Rows) error {
			var gid, database string
			var age int64
			if err := r.Scan(&gid, &database, &age); err != nil {
				return err
			}
			found = append(found, finding(api.SeverityWarning, errs.SourcePreflight, gid, "ROLLBACK PREPARED "+pg.Literal(gid)+"; -- or COMMIT PREPARED, in database "+database,
				"transaction %s in database %s has been prepared for %d s and not ended: making a slot waits for it", gid, database, age))
			return nil
		}, strconv.FormatFloat(seconds, 'f', 3, 64))
	if err != nil {
		return err
	}
	d.out.Each("pg.longtx", found, "no transaction is older than %s", d.opts.LongTx)
	return nil
}
