package doctor

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// server is what one round of questions tells about it.
type server struct {
	version     int
	versionText string
	recovery    bool
	settings    map[string]string // in the units of pg_settings
	slots       int
	hasSlot     bool // a slot of our name exists
	senders     int
	role        string
	super       bool
	replication bool
	bypassRLS   bool
	database    string
	mayCreate   bool // CREATE on the database
	encoding    string
	collation   string // of the database, when its version changed under it: "was 1, is 2"
	provider    provider
}

func (s *server) number(setting string) int {
	n, err := strconv.Atoi(s.settings[setting])
	if err != nil {
		return 0
	}
	return n
}

func (d *doctor) loadServer(ctx context.Context) error {
	s := &d.server
	s.settings = map[string]string{}
	err := d.rows(ctx, "read settings", `
		SELECT name, setting FROM pg_settings WHERE name IN ('wal_level', 'max_replication_slots', 'max_wal_senders',
			'max_slot_wal_keep_size', 'idle_replication_slot_timeout', 'synchronous_standby_names')`,
		func(r pgx.Rows) error {
			var name, setting string
			err := r.Scan(&name, &setting)
			s.settings[name] = setting
			return err
		})
	if err != nil {
		return err
	}
	var roles []string
	var member bool
	err = d.conn.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(),
		       (SELECT count(*) FROM pg_replication_slots)::int,
		       EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1::text),
		       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender')::int,
		       r.rolname::text, r.rolsuper, r.rolreplication, r.rolbypassrls, current_database()::text,
		       has_database_privilege(current_database(), 'CREATE'), current_setting('server_encoding'),
		       ARRAY(SELECT p.rolname::text FROM pg_roles p WHERE p.rolname = ANY ($2::text[])),
		       EXISTS (SELECT FROM pg_roles p WHERE p.rolname = 'rds_replication' AND pg_has_role(p.oid, 'MEMBER'))
		FROM pg_roles r WHERE r.rolname = current_user`, d.opts.Slot, providerRoles()).Scan(
		&s.version, &s.versionText, &s.recovery, &s.slots, &s.hasSlot, &s.senders, &s.role, &s.super, &s.replication,
		&s.bypassRLS, &s.database, &s.mayCreate, &s.encoding, &roles, &member)
	if err != nil {
		return fmt.Errorf("read the server's state: %w", err)
	}
	s.provider = recognise(roles)
	s.replication = s.replication || s.super || member
	if s.version >= 150000 {
		err = d.conn.QueryRow(ctx, `
			SELECT coalesce((SELECT 'it was made with version ' || d.datcollversion || ', the system now has ' || v.actual
			                 FROM pg_database_collation_actual_version(d.oid) v(actual) WHERE v.actual <> d.datcollversion), '')
			FROM pg_database d WHERE d.datname = current_database()`).Scan(&s.collation)
		if err != nil {
			return fmt.Errorf("read the database's collation: %w", err)
		}
	}
	return nil
}

func (d *doctor) checkServer(context.Context) error {
	s := &d.server
	d.out.OK("pg.connect", "connected to %s as %s%s", d.cfg.Server(), s.role, s.provider.phrase())
	switch {
	case s.version < 120000:
		d.out.Fatal("pg.version", errs.SourcePreflight, "", "Postgres %s is too old: 12 is the oldest that weir reads", s.versionText)
	case s.version < 140000:
		d.out.Warn("pg.version", errs.SourcePreflight, "", "Postgres %s sends a transaction only when it has committed, however large it is; from 14 on it is sent while it runs", s.versionText)
	default:
		d.out.OK("pg.version", "Postgres %s", s.versionText)
	}
	if s.settings["wal_level"] != "logical" {
		d.out.Fatal("pg.wal_level", errs.SourcePreflight, s.provider.walLevelFix(),
			"wal_level is %s: the log does not hold what logical decoding needs", s.settings["wal_level"])
	} else {
		d.out.OK("pg.wal_level", "wal_level is logical")
	}
	d.checkRecovery()
	d.checkFree()
	d.checkRole()
	d.checkKeep()
	if names := s.settings["synchronous_standby_names"]; names != "" {
		d.out.Warn("pg.sync", errs.SourcePreflight, "",
			"commits wait for standbys (%s): a row can be in the stream before a query sees it; the copy allows for that and may read some ranges twice", names)
	} else {
		d.out.OK("pg.sync", "commits wait for no standby")
	}
	if s.encoding == "SQL_ASCII" {
		d.out.Warn("pg.encoding", errs.SourcePreflight, "",
			"the database's encoding is SQL_ASCII: nothing has checked its text, and the target will refuse what is not UTF-8")
	} else {
		d.out.OK("pg.encoding", "encoding is %s", s.encoding)
	}
	return nil
}

func (d *doctor) checkRecovery() {
	s := &d.server
	switch {
	case s.recovery && s.version < 160000:
		d.out.Fatal("pg.recovery", errs.SourcePreflight, "", "the server is a standby, and before Postgres 16 only a primary decodes: connect to the primary")
	case s.recovery:
		d.out.Warn("pg.recovery", errs.SourcePreflight, "",
			"the server is a standby: the publication has to be made on its primary, and making a slot waits until the primary logs its running transactions (SELECT pg_log_standby_snapshot() there)")
	default:
		d.out.OK("pg.recovery", "the server is a primary")
	}
}

// checkFree wants one slot and two senders: the stream, and one more for the moment in which a broken connection has
// not been noticed yet.
func (d *doctor) checkFree() {
	s := &d.server
	var found, fixes []string
	maxSlots, maxSenders := s.number("max_replication_slots"), s.number("max_wal_senders")
	if !s.hasSlot && s.slots >= maxSlots {
		why := fmt.Sprintf("all %d replication slots are taken", maxSlots)
		switch maxSlots {
		case 0:
			why = "max_replication_slots is 0, so there can be no replication slot"
		case 1:
			why = "the only replication slot is taken"
		}
		found = append(found, why)
		fixes = append(fixes, fmt.Sprintf("ALTER SYSTEM SET max_replication_slots = %d;", maxSlots+5))
	}
	if d.opts.Running {
		maxSenders++
	}
	if s.senders+2 > maxSenders {
		found = append(found, fmt.Sprintf("%d of %s wal senders are in use and two are needed", s.senders, s.settings["max_wal_senders"]))
		fixes = append(fixes, fmt.Sprintf("ALTER SYSTEM SET max_wal_senders = %d;", s.senders+5))
	}
	if len(found) > 0 {
		d.out.Fatal("pg.free", errs.SourcePreflight, s.provider.systemFix(fixes, true), "%s", strings.Join(found, "; "))
		return
	}
	d.out.OK("pg.free", "%d of %s replication slots and %d of %s wal senders are in use", s.slots,
		s.settings["max_replication_slots"], s.senders, s.settings["max_wal_senders"])
}

func (d *doctor) checkRole() {
	s := &d.server
	if !s.replication {
		d.out.Fatal("pg.role", errs.SourcePreflight, s.provider.replicationFix(s.role), "role %s may not replicate", s.role)
		return
	}
	d.out.OK("pg.role", "role %s may replicate", s.role)
}

func (d *doctor) checkKeep() {
	s := &d.server
	var found, fixes []string
	switch keep, ok := s.settings["max_slot_wal_keep_size"]; {
	case !ok:
		found = append(found, fmt.Sprintf("Postgres %d keeps log for a stopped pipeline without limit, until its disk is full", s.version/10000))
	case keep == "-1":
		found = append(found, "max_slot_wal_keep_size is -1: log is kept for a stopped pipeline until the disk is full")
		fixes = append(fixes, "ALTER SYSTEM SET max_slot_wal_keep_size = '64GB'; -- less than the free disk space")
	}
	if idle := s.number("idle_replication_slot_timeout"); idle > 0 { // seconds
		found = append(found, fmt.Sprintf("idle_replication_slot_timeout is %s: a pipeline paused for longer has to copy everything again",
			time.Duration(idle)*time.Second))
		fixes = append(fixes, "ALTER SYSTEM SET idle_replication_slot_timeout = 0;")
	}
	if len(found) > 0 {
		fix := ""
		if len(fixes) > 0 {
			fix = s.provider.systemFix(fixes, false)
		}
		d.out.Warn("pg.keep", errs.SourcePreflight, fix, "%s", strings.Join(found, "; "))
		return
	}
	d.out.OK("pg.keep", "max_slot_wal_keep_size is %s MB", s.settings["max_slot_wal_keep_size"])
}

// checkPooler compares whom we are connected to with who answers. A pooler that hands out another backend for each
// transaction shows another process; one that keeps us on a backend still invents the process id of the handshake.
func (d *doctor) checkPooler(ctx context.Context) error {
	pids := map[uint32]bool{}
	for range 3 {
		var pid uint32
		if err := d.conn.QueryRow(ctx, "SELECT pg_backend_pid()::int8").Scan(&pid); err != nil {
			return fmt.Errorf("read the backend's process id: %w", err)
		}
		pids[pid] = true
	}
	switch {
	case len(pids) > 1:
		d.out.Fatal("pg.pooler", errs.SourcePreflight, "", "a connection pooler is in between and changes the backend: connect to the server itself%s", d.server.provider.directHint())
	case !pids[d.conn.PgConn().PID()]:
		d.out.Warn("pg.pooler", errs.SourcePreflight, "", "a proxy or pooler is in between; it must pass replication connections%s", d.server.provider.directHint())
	default:
		d.out.OK("pg.pooler", "connected to the server itself")
	}
	return nil
}

// checkReplication proves the right to replicate by using it.
func (d *doctor) checkReplication(ctx context.Context) error {
	conn, err := pg.Connect(ctx, d.env, d.cfg, pg.ConnectOptions{AppName: appName, Replication: true})
	if err == nil {
		var id pg.Identity
		if id, err = pg.IdentifySystem(ctx, conn); err == nil {
			d.identity = &id
		}
		_ = conn.Close(context.WithoutCancel(ctx))
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.out.Fatal("pg.replication", errs.SourcePreflight, d.replicationFix(err), "no replication connection: %v", err)
		d.out.OK("pg.identity_sys", "not asked without a replication connection")
		return nil
	}
	d.out.OK("pg.replication", "a replication connection works")
	d.checkIdentity()
	return nil
}

func (d *doctor) replicationFix(err error) string {
	switch {
	case strings.Contains(err.Error(), "pg_hba.conf"):
		return fmt.Sprintf("-- in pg_hba.conf: host %s %s ADDRESS scram-sha-256\nSELECT pg_reload_conf();", pg.Ident(d.server.database), pg.Ident(d.server.role))
	case !d.server.replication:
		return d.server.provider.replicationFix(d.server.role)
	}
	return ""
}

func (d *doctor) checkIdentity() {
	st := d.opts.Stored
	switch {
	case st == nil || st.System == "":
		d.out.OK("pg.identity_sys", "system %s, timeline %d", d.identity.System, d.identity.Timeline)
	case st.System != d.identity.System:
		d.out.Fatal("pg.identity_sys", errs.SourceReplaced, "",
			"this is another server: the pipeline has read from system %s, this is %s; copy all tables again", st.System, d.identity.System)
	case st.Timeline != 0 && st.Timeline != d.identity.Timeline:
		d.out.Fatal("pg.identity_sys", errs.SourceReplaced, "",
			"the server was promoted or restored: the pipeline has read timeline %d, this is %d; unless its slot was carried over, copy all tables again", st.Timeline, d.identity.Timeline)
	default:
		d.out.OK("pg.identity_sys", "system and timeline are those the pipeline has read from")
	}
}
