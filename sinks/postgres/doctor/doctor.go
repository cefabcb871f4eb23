// Package doctor asks a target Postgres everything that could stop a mirror from writing into it, and gives with each
// finding the SQL that repairs it.
//
// It only reads, and asks about all tables at once. Tables that do not exist yet are no finding, as long as they can be
// made; those that exist must fit the source's, because a value that does not fit stops the stream much later.
// docs/doctor.md describes every check by its id.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// Options says what will be written. The zero value of a field means its default.
type Options struct {
	Tables     []*pg.Target // as planned; none: only the server is asked
	Types      []pg.TypeDef
	Extensions []pg.Extension
	// Source tells the source's server and database, to notice a mirror into itself; empty: not known.
	Source pg.Identity
	// Selected tells whether the mirror would take a table of the source. Default: the tables in Tables.
	Selected    func(schema, table string) bool
	Connections int  // that the mirror opens. Default 4
	Copies      bool // the mirror begins with a copy of the tables
}

// Check runs all checks. A server that cannot be reached is a finding; an error means that the checks themselves could
// not be carried out.
func Check(ctx context.Context, e *env.Env, cfg *pg.Config, opts Options) ([]api.Check, error) {
	if opts.Connections == 0 {
		opts.Connections = 4
	}
	if opts.Selected == nil {
		taken := map[[2]string]bool{}
		for _, t := range opts.Tables {
			taken[[2]string{t.Source.Schema, t.Source.Name}] = true
		}
		opts.Selected = func(schema, table string) bool { return taken[[2]string{schema, table}] }
	}
	d := &doctor{env: e, cfg: cfg, opts: opts, out: api.NewFindings("target")}
	if err := d.run(ctx); err != nil {
		return d.out.List(), fmt.Errorf("check target %s: %w", cfg.Server(), err)
	}
	return d.out.List(), nil
}

const (
	appName          = "weir doctor"
	statementTimeout = "20000" // milliseconds
)

type doctor struct {
	env  *env.Env
	cfg  *pg.Config
	opts Options
	out  *api.Findings

	conn   *pgx.Conn
	server server
	tables []*table // those of opts.Tables that exist
	itself bool     // the target is the source's own database
}

func (d *doctor) run(ctx context.Context) (err error) {
	d.conn, err = pg.ConnectPgx(ctx, d.env, d.cfg, pg.ConnectOptions{AppName: appName, Settings: map[string]string{
		"statement_timeout": statementTimeout,
		"jit":               "off", // compiling a query about a large catalog takes longer than the query
	}})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.out.Fatal("tgt.connect", errs.TargetUnreachable, "", "%s", pg.Hinted(err))
		return nil
	}
	defer func() { _ = d.conn.Close(context.WithoutCancel(ctx)) }()
	for _, step := range []func(context.Context) error{
		d.loadServer, d.checkServer, d.checkPooler, d.checkLoop, d.checkExtensions, d.checkEnums, d.checkCreate, d.loadTables, d.checkTables, d.checkEmpty,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// OfServer tells whether a check is about the server alone, whatever the tables.
func OfServer(id string) bool {
	return slices.Contains([]string{"tgt.connect", "tgt.version", "tgt.recovery", "tgt.connections", "tgt.encoding", "tgt.pooler"}, id)
}

func finding(severity api.Severity, code errs.Code, object, fix, format string, args ...any) api.Check {
	return api.Check{Severity: severity, Code: string(code), Object: object, Fix: fix, Message: fmt.Sprintf(format, args...)}
}

func (d *doctor) rows(ctx context.Context, what, sql string, one func(pgx.Rows) error, args ...any) error {
	rows, err := d.conn.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := one(rows); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// server is what one round of questions tells about it.
type server struct {
	version            int
	versionText        string
	recovery, readOnly bool
	role, database     string
	super, bypassRLS   bool
	replica            bool // session_replication_role can be set
	createDB           bool // CREATE on the database
	encoding           string
	free               int // connections left for our role
	why                string
	raise              string // SQL that makes more
	lockSlots          int
	perTransaction     int
	schemas            map[string]bool // CREATE is allowed in it
}

func (d *doctor) loadServer(ctx context.Context) error {
	s := &d.server
	var maxConn, reserved, used, roleLimit, roleUsed, dbLimit, dbUsed, prepared int
	err := d.conn.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(),
		       current_setting('transaction_read_only')::bool, r.rolname::text, current_database()::text, r.rolsuper, r.rolbypassrls,
		       has_database_privilege(current_database(), 'CREATE'), current_setting('server_encoding'),
		       current_setting('max_connections')::int,
		       CASE WHEN r.rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::int
		            + coalesce(current_setting('reserved_connections', true), '0')::int END,
		       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int,
		       CASE WHEN r.rolsuper THEN -1 ELSE r.rolconnlimit END, (SELECT count(*) FROM pg_stat_activity WHERE usesysid = r.oid AND backend_type = 'client backend')::int,
		       CASE WHEN r.rolsuper THEN -1 ELSE b.datconnlimit END, (SELECT count(*) FROM pg_stat_activity WHERE datid = b.oid AND backend_type = 'client backend')::int,
		       current_setting('max_locks_per_transaction')::int, current_setting('max_prepared_transactions')::int
		FROM pg_roles r, pg_database b WHERE r.rolname = current_user AND b.datname = current_database()`).Scan(
		&s.version, &s.versionText, &s.recovery, &s.readOnly, &s.role, &s.database, &s.super, &s.bypassRLS, &s.createDB, &s.encoding,
		&maxConn, &reserved, &used, &roleLimit, &roleUsed, &dbLimit, &dbUsed, &s.perTransaction, &prepared)
	if err != nil {
		return fmt.Errorf("read the server's state: %w", err)
	}
	s.lockSlots = s.perTransaction * (maxConn + prepared)
	// The doctor's own connection will be free again.
	s.free, s.why = maxConn-reserved-used+1, fmt.Sprintf("max_connections is %d, %d of them in use", maxConn, used)
	s.raise = fmt.Sprintf("ALTER SYSTEM SET max_connections = %d;\n-- then restart the server", maxConn+2*d.opts.Connections)
	if free := roleLimit - roleUsed + 1; roleLimit >= 0 && free < s.free {
		s.free, s.why = free, fmt.Sprintf("role %s may have %s", s.role, api.Counted(roleLimit, "connection", "connections"))
		s.raise = fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT %d;", pg.Ident(s.role), roleUsed+2*d.opts.Connections)
	}
	if free := dbLimit - dbUsed + 1; dbLimit >= 0 && free < s.free {
		s.free, s.why = free, fmt.Sprintf("database %s may have %s", s.database, api.Counted(dbLimit, "connection", "connections"))
		s.raise = fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT %d;", pg.Ident(s.database), dbUsed+2*d.opts.Connections)
	}
	s.replica = s.super
	if s.version >= 150000 && !s.super {
		if err := d.conn.QueryRow(ctx, "SELECT has_parameter_privilege('session_replication_role', 'SET')").Scan(&s.replica); err != nil {
			return fmt.Errorf("read the role's rights: %w", err)
		}
	}
	s.schemas = map[string]bool{}
	return d.rows(ctx, "read schemas", "SELECT nspname::text, has_schema_privilege(oid, 'CREATE') FROM pg_namespace", func(r pgx.Rows) error {
		var name string
		var create bool
		err := r.Scan(&name, &create)
		s.schemas[name] = create
		return err
	})
}

func (d *doctor) checkServer(context.Context) error {
	s := &d.server
	d.out.OK("tgt.connect", "connected to %s as %s", d.cfg.Server(), s.role)
	if s.version < 120000 {
		d.out.Fatal("tgt.version", errs.TargetRejected, "", "Postgres %s is too old: 12 is the oldest that weir writes to", s.versionText)
	} else {
		d.out.OK("tgt.version", "Postgres %s", s.versionText)
	}
	switch {
	case s.recovery:
		d.out.Fatal("tgt.recovery", errs.TargetRejected, "", "the server is a standby: connect to its primary")
	case s.readOnly:
		d.out.Fatal("tgt.recovery", errs.TargetRejected,
			"SET default_transaction_read_only = off;\nALTER ROLE "+pg.Ident(s.role)+" IN DATABASE "+pg.Ident(s.database)+" SET default_transaction_read_only = off;",
			"transactions are read-only by default in database %s", s.database)
	default:
		d.out.OK("tgt.recovery", "the server accepts writes")
	}
	if s.free < d.opts.Connections {
		d.out.Fatal("tgt.connections", errs.TargetRejected, s.raise, "%s and %d are needed: %s", api.Counted(max(s.free, 0), "connection is free", "connections are free"), d.opts.Connections, s.why)
	} else {
		d.out.OK("tgt.connections", "%s", api.Counted(s.free, "connection is free", "connections are free"))
	}
	// A transaction may touch every table, and locks each with its TOAST table and indexes.
	if need := 4 * len(d.opts.Tables); need > s.lockSlots {
		d.out.Warn("tgt.locks", errs.TargetRejected, fmt.Sprintf("ALTER SYSTEM SET max_locks_per_transaction = %d;\n-- then restart the server", s.perTransaction*(need/s.lockSlots+1)),
			"one transaction over all %d tables takes about %d locks, and the server has room for %d", len(d.opts.Tables), need, s.lockSlots)
	} else {
		d.out.OK("tgt.locks", "the server has room for %d locks", s.lockSlots)
	}
	if s.encoding != "UTF8" {
		d.out.Warn("tgt.encoding", errs.TargetRejected, "", "the database's encoding is %s: characters that it lacks stop the mirror", s.encoding)
	} else {
		d.out.OK("tgt.encoding", "encoding is UTF8")
	}
	return nil
}

// checkPooler: the target's session has settings and prepared statements, and a pooler that changes backends between
// transactions loses them.
func (d *doctor) checkPooler(ctx context.Context) error {
	var pid uint32
	if err := d.conn.QueryRow(ctx, "SELECT pg_backend_pid()::int8").Scan(&pid); err != nil {
		return fmt.Errorf("read the backend's process id: %w", err)
	}
	if pid != d.conn.PgConn().PID() {
		d.out.Warn("tgt.pooler", errs.TargetRejected, "", "a proxy or pooler is in between: it must keep a session on one backend (session mode)")
		return nil
	}
	d.out.OK("tgt.pooler", "connected to the server itself")
	return nil
}

// checkLoop: what is written into a database that is also read, under a name that is also read, comes back for ever.
func (d *doctor) checkLoop(ctx context.Context) error {
	const id = "tgt.loop"
	if d.opts.Source.System == "" {
		d.out.OK(id, "the source's identity is not known")
		return nil
	}
	here, err := pg.SystemIdentity(ctx, d.conn)
	if err != nil {
		if d.conn.IsClosed() {
			return err
		}
		d.out.OK(id, "the role may not read the server's identity")
		return nil
	}
	if here.System != d.opts.Source.System || here.Database != d.opts.Source.Database {
		d.out.OK(id, "source and target are two databases")
		return nil
	}
	d.itself = true
	var found []api.Check
	for _, t := range d.opts.Tables {
		if d.opts.Selected(t.Name.Schema, t.Name.Name) {
			found = append(found, finding(api.SeverityFatal, errs.TargetTable, t.Name.Schema+"."+t.Name.Name, "",
				"the target is the source's own database, and the mirror would read what it writes to %s: route it to a schema that the patterns leave out", t.Name))
		}
	}
	if len(d.opts.Tables) == 0 {
		found = append(found, finding(api.SeverityFatal, errs.TargetTable, here.Database, "", "the target is the source's own database"))
	}
	d.out.Each(id, found, "the target is the source's own database, and no table is both read and written")
	return nil
}

func (d *doctor) checkExtensions(ctx context.Context) error {
	type offer struct{ installed, available, trusted bool }
	offers := map[string]offer{}
	err := d.rows(ctx, "read extensions", `
		SELECT a.name::text, a.installed_version IS NOT NULL,
		       coalesce((SELECT bool_or((to_jsonb(v) ->> 'trusted')::bool) FROM pg_available_extension_versions v WHERE v.name = a.name), false)
		FROM pg_available_extensions a`,
		func(r pgx.Rows) error {
			var name string
			o := offer{available: true}
			err := r.Scan(&name, &o.installed, &o.trusted)
			offers[name] = o
			return err
		})
	if err != nil {
		return err
	}
	var found []api.Check
	for _, x := range d.opts.Extensions {
		o := offers[x.Name]
		severity := api.SeverityWarning
		needed := "a default, index or check"
		if x.Required {
			severity, needed = api.SeverityFatal, "a column's type"
		}
		switch {
		case o.installed:
		case !o.available:
			found = append(found, finding(severity, errs.TargetDDL, x.Name, "", "extension %s, which %s needs, is not on the target's machine: install its package there", x.Name, needed))
		case d.server.super, o.trusted && d.server.createDB: // the plan creates it
		default:
			found = append(found, finding(severity, errs.TargetDDL, x.Name, strings.Join(pg.CreateExtension(x).SQL, ";\n")+";",
				"extension %s, which %s needs, is not installed, and role %s may not create it", x.Name, needed, d.server.role))
		}
	}
	d.out.Each("tgt.extensions", found, "%s needed and can be had", api.Counted(len(d.opts.Extensions), "extension is", "extensions are"))
	return nil
}

// checkEnums: a value whose label the target's type lacks stops the stream.
func (d *doctor) checkEnums(ctx context.Context) error {
	have := map[[2]string][]string{}
	err := d.rows(ctx, "read enums", `
		SELECT n.nspname::text, t.typname::text, ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
		FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype = 'e'`,
		func(r pgx.Rows) error {
			var name [2]string
			var labels []string
			err := r.Scan(&name[0], &name[1], &labels)
			have[name] = labels
			return err
		})
	if err != nil {
		return err
	}
	var found []api.Check
	for _, x := range d.opts.Types {
		labels, ok := have[[2]string{x.Schema, x.Name}]
		if x.Kind != 'e' || !ok {
			continue
		}
		if sql := pg.AddEnumLabels(x.Schema, x.Name, labels, x.Labels); len(sql) > 0 {
			found = append(found, finding(api.SeverityFatal, errs.TargetTable, x.Schema+"."+x.Name, strings.Join(sql, ";\n")+";",
				"enum %s on the target lacks %s", pg.Qualified(x.Schema, x.Name), api.Counted(len(sql), "label", "labels")))
		}
	}
	d.out.Each("tgt.enum", found, "enums on the target have the source's labels")
	return nil
}

// checkCreate: the ledger's schema, and schemas of tables that are not there yet.
func (d *doctor) checkCreate(ctx context.Context) error {
	var schemas, names []string
	for _, t := range d.opts.Tables {
		schemas, names = append(schemas, t.Name.Schema), append(names, t.Name.Name)
	}
	exists := make([]bool, len(names))
	err := d.rows(ctx, "look for tables", `
		SELECT (u.n - 1)::int FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u(schema, name, n)
		JOIN pg_namespace s ON s.nspname = u.schema JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = u.name`,
		func(r pgx.Rows) error {
			var i int
			err := r.Scan(&i)
			if err == nil {
				exists[i] = true
			}
			return err
		}, schemas, names)
	if err != nil {
		return err
	}
	need := map[string]bool{pg.LedgerSchema: true}
	order := []string{pg.LedgerSchema}
	for i, s := range schemas {
		if !exists[i] && !need[s] {
			need[s] = true
			order = append(order, s)
		}
	}
	var found []api.Check
	role, database := pg.Ident(d.server.role), pg.Ident(d.server.database)
	for _, s := range order {
		create, ok := d.server.schemas[s]
		switch {
		case !ok && !d.server.createDB:
			found = append(found, finding(api.SeverityFatal, errs.TargetDDL, s, "GRANT CREATE ON DATABASE "+database+" TO "+role+";",
				"role %s may not create schema %s in database %s", d.server.role, pg.Ident(s), d.server.database))
		case ok && !create:
			found = append(found, finding(api.SeverityFatal, errs.TargetDDL, s, "GRANT USAGE, CREATE ON SCHEMA "+pg.Ident(s)+" TO "+role+";",
				"role %s may not create tables in schema %s", d.server.role, pg.Ident(s)))
		}
	}
	if _, there := d.server.schemas[pg.LedgerSchema]; there {
		var lacks bool
		err := d.conn.QueryRow(ctx, `SELECT coalesce(bool_or(NOT has_schema_privilege(relnamespace, 'USAGE') OR NOT has_table_privilege(oid, 'SELECT')
			OR NOT has_table_privilege(oid, 'INSERT') OR NOT has_table_privilege(oid, 'UPDATE') OR NOT has_table_privilege(oid, 'DELETE')), false)
			FROM pg_class WHERE relkind = 'r' AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)`, pg.LedgerSchema).Scan(&lacks)
		if err != nil {
			return fmt.Errorf("look at the ledger's rights: %w", err)
		}
		if lacks {
			schema := pg.Ident(pg.LedgerSchema)
			found = append(found, finding(api.SeverityFatal, errs.TargetDDL, pg.LedgerSchema,
				"GRANT USAGE ON SCHEMA "+schema+" TO "+role+";\nGRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "+schema+" TO "+role+";",
				"role %s may not use the ledger of other mirrors in schema %s", d.server.role, schema))
		}
	}
	d.out.Each("tgt.create", found, "role %s may create what is missing in %s", d.server.role, api.Counted(len(order), "schema", "schemas"))
	return nil
}
