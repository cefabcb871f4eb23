package doctor

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// table is a table to be mirrored or a partition of one.
type table struct {
	oid, root    uint32
	schema, name string
	kind         string
	identity     string // replica identity: d n f i
	owned        bool   // our role owns it, or may act as who does
	usage, read  bool
	rls          bool
	force        bool
	columns      []string // that the log can carry: neither dropped nor generated
	unreadable   []string
	generated    int // generated columns
	virtual      int
	inKey        int // generated columns of the identity index
	toast        int // columns that may be stored out of line
	primary      bool
	deferrable   bool // the primary key
	identIndex   bool // REPLICA IDENTITY USING INDEX and the index is there
	candidate    string
	nondeterm    string   // a key column's collation that takes different texts for equal
	key          []string // columns of the identity, without FULL
	keyTypes     []string
	columnTypes  []string
}

func (t *table) sql() string    { return pg.Qualified(t.schema, t.name) }
func (t *table) String() string { return pg.DottedName(t.schema, t.name) }
func (t *table) isRoot() bool   { return t.oid == t.root }

func (d *doctor) loadTables(ctx context.Context) (err error) {
	if d.names, err = pg.ListTables(ctx, d.conn); err != nil {
		return err
	}
	d.picked, d.left = d.opts.Selection.Pick(d.names)
	oids := make([]string, len(d.picked))
	for i, t := range d.picked {
		oids[i] = strconv.FormatUint(uint64(t.OID), 10)
	}
	// A partition has its own replica identity, and an update is checked against that; so partitions are asked too. Of a
	// table that is dropped at this moment the rights are unknown, and nothing is to be said.
	return d.rows(ctx, "read tables", `
		WITH sel AS MATERIALIZED (SELECT c.oid, c.relkind FROM unnest($1::text::oid[]) u(oid) JOIN pg_class c ON c.oid = u.oid),
		rel AS MATERIALIZED (
		    SELECT s.oid AS root, s.oid FROM sel s
		    UNION ALL
		    SELECT s.oid, p.relid::oid FROM sel s, pg_partition_tree(s.oid) p WHERE s.relkind = 'p' AND p.isleaf
		)
		SELECT r.root, c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relreplident::text,
		       pg_has_role(c.relowner, 'USAGE'), coalesce(has_schema_privilege(n.oid, 'USAGE'), true), coalesce(has_table_privilege(c.oid, 'SELECT'), true),
		       c.relrowsecurity AND row_security_active(c.oid), c.relforcerowsecurity,
		       coalesce(a.columns, '{}'), coalesce(a.types, '{}'), coalesce(a.unreadable, '{}'), coalesce(a.generated, 0)::int, coalesce(a.virtual, 0)::int,
		       coalesce(a.toast, 0)::int,
		       coalesce(i.primary_, false), coalesce(i.deferrable_, false), coalesce(i.ident, false), coalesce(i.candidate, ''),
		       coalesce(i.nondeterm, ''), coalesce(k.key, '{}'), coalesce(k.types, '{}'), coalesce(k.generated, 0)::int
		FROM rel r
		JOIN pg_class c ON c.oid = r.oid
		JOIN pg_namespace n ON n.oid = c.relnamespace
		LEFT JOIN LATERAL (
		    SELECT array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attgenerated = '') AS columns,
		           array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) FILTER (WHERE a.attgenerated = '') AS types,
		           array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE NOT has_column_privilege(a.attrelid, a.attnum, 'SELECT')) AS unreadable,
		           count(*) FILTER (WHERE a.attgenerated <> '') AS generated,
		           count(*) FILTER (WHERE a.attgenerated = 'v') AS virtual,
		           count(*) FILTER (WHERE a.attstorage IN ('x', 'e', 'm') AND a.attlen = -1) AS toast
		    FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		) a ON true
		LEFT JOIN LATERAL (
		    SELECT bool_or(x.indisprimary AND x.indisvalid) AS primary_,
		           bool_or(x.indisprimary AND NOT x.indimmediate) AS deferrable_,
		           bool_or(x.indisreplident AND x.indisvalid) AS ident,
		           min(y.relname::text) FILTER (WHERE x.indisunique AND x.indimmediate AND x.indisvalid AND x.indpred IS NULL
		               AND 0 <> ALL (x.indkey::int2[]) AND NOT EXISTS (
		                   SELECT FROM pg_attribute a WHERE a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey::int2[]) AND NOT a.attnotnull)) AS candidate,
		           min(l.collname::text) FILTER (WHERE x.indisprimary OR x.indisreplident) AS nondeterm
		    FROM pg_index x JOIN pg_class y ON y.oid = x.indexrelid
		    LEFT JOIN pg_collation l ON l.oid = ANY (x.indcollation) AND NOT l.collisdeterministic
		    WHERE x.indrelid = c.oid AND x.indislive
		) i ON true
		LEFT JOIN LATERAL (
		    SELECT array_agg(a.attname::text ORDER BY a.attnum) AS key, array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) AS types,
		           count(*) FILTER (WHERE a.attgenerated <> '') AS generated
		    FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1])
		    WHERE x.indrelid = c.oid AND x.indisvalid AND x.indimmediate
		      AND (c.relreplident = 'd' AND x.indisprimary OR c.relreplident = 'i' AND x.indisreplident)
		) k ON true
		ORDER BY n.nspname, c.relname`,
		func(r pgx.Rows) error {
			var t table
			if err := r.Scan(&t.root, &t.oid, &t.schema, &t.name, &t.kind, &t.identity, &t.owned, &t.usage, &t.read, &t.rls, &t.force,
				&t.columns, &t.columnTypes, &t.unreadable, &t.generated, &t.virtual, &t.toast, &t.primary, &t.deferrable, &t.identIndex,
				&t.candidate, &t.nondeterm, &t.key, &t.keyTypes, &t.inKey); err != nil {
				return err
			}
			d.tables = append(d.tables, t)
			return nil
		}, "{"+strings.Join(oids, ",")+"}")
}

func (d *doctor) checkTables(ctx context.Context) error {
	if err := d.checkPicked(ctx); err != nil {
		return err
	}
	d.checkKinds()
	d.checkSelect()
	d.checkRLS()
	d.checkReplicaIdentity()
	d.checkToast()
	return d.checkCollations(ctx)
}

func (d *doctor) checkPicked(ctx context.Context) error {
	unmatched := d.opts.Selection.Unmatched(d.names)
	err := d.opts.Selection.Check(d.names, func() ([]pg.ColumnName, error) { return pg.ListColumns(ctx, d.conn, d.names) })
	bad, ok := errs.As(err)
	if err != nil && !ok {
		return err
	}
	taken := api.Counted(len(d.picked), "table is taken", "tables are taken")
	switch {
	case len(d.picked) == 0:
		d.out.Fatal("pg.tables", errs.NoTables, "", "the patterns take no table that can be mirrored; database %s has %s", d.server.database, api.Counted(len(d.names), "table", "tables"))
	case bad != nil && bad.Hint != "":
		d.out.Fatal("pg.tables", bad.Code, "", "%s; %s", bad.Message, bad.Hint)
	case bad != nil:
		d.out.Fatal("pg.tables", bad.Code, "", "%s", bad.Message)
	case len(unmatched) > 0:
		d.out.Warn("pg.tables", errs.NoTables, "", "%s, and nothing matches %s", taken, strings.Join(unmatched, ", "))
	default:
		d.out.OK("pg.tables", "%s", taken)
	}
	return nil
}

func (d *doctor) checkKinds() {
	var found []api.Check
	for _, l := range d.left {
		if l.Part {
			continue
		}
		severity, fix := api.SeverityWarning, ""
		if l.Named {
			severity = api.SeverityFatal
		}
		if l.Table.Kind == 'r' && l.Table.Persistence == 'u' {
			fix = "ALTER TABLE " + pg.Qualified(l.Table.Schema, l.Table.Name) + " SET LOGGED;"
		}
		found = append(found, finding(severity, errs.TableUnsupported, l.Table.String(), fix, "%s is left out: %s", l.Table, l.Why))
	}
	d.out.Each("pg.kind", found, "every relation taken is a table whose changes are logged")
}

func (d *doctor) checkSelect() {
	var found []api.Check
	schemas := map[string]bool{}
	role := pg.Ident(d.server.role)
	for i := range d.tables {
		t := &d.tables[i]
		if !t.isRoot() {
			continue
		}
		if !t.usage && !schemas[t.schema] {
			schemas[t.schema] = true
			found = append(found, finding(api.SeverityFatal, errs.SourcePreflight, t.schema,
				"GRANT USAGE ON SCHEMA "+pg.Ident(t.schema)+" TO "+role+";", "role %s may not use schema %s", d.server.role, t.schema))
		}
		if t.read || !slices.ContainsFunc(t.unreadable, func(c string) bool { return !d.opts.Selection.Excluded(t.schema, t.name, c) }) {
			continue
		}
		found = append(found, finding(api.SeverityFatal, errs.SourcePreflight, t.String(),
			"GRANT SELECT ON "+t.sql()+" TO "+role+";", "role %s may not read %s", d.server.role, t))
	}
	d.out.Each("pg.select", found, "role %s may read every table", d.server.role)
}

func (d *doctor) checkRLS() {
	var found []api.Check
	for i := range d.tables {
		if t := &d.tables[i]; t.isRoot() && t.rls {
			found = append(found, finding(api.SeverityFatal, errs.SourcePreflight, t.String(), "ALTER ROLE "+pg.Ident(d.server.role)+" BYPASSRLS;",
				"row security hides rows of %s from role %s: the copy would lack rows whose changes are streamed", t, d.server.role))
		}
	}
	d.out.Each("pg.rls", found, "row security hides nothing from role %s", d.server.role)
}

// checkReplicaIdentity is about the source's own applications: once a table is published, Postgres refuses their
// updates and deletes of rows that it could not name in the log.
func (d *doctor) checkReplicaIdentity() {
	var found []api.Check
	roots := map[uint32]*table{}
	for i := range d.tables {
		if t := &d.tables[i]; t.isRoot() {
			roots[t.oid] = t
		}
	}
	for i := range d.tables {
		t := &d.tables[i]
		why, to := t.unidentified()
		if why != "" {
			found = append(found, finding(api.SeverityFatal, errs.SourcePreflight, t.String(), "ALTER TABLE "+t.sql()+" REPLICA IDENTITY "+to+";",
				"%s cannot tell its rows apart (%s): once it is published, UPDATE and DELETE on it fail", t, why))
			continue
		}
		root := roots[t.root]
		if t.isRoot() || d.server.version < 130000 || t.kind == "f" || t.identity == "f" || root.identity != "f" && len(root.key) > 0 && covers(t.key, root.key) {
			continue
		}
		// The log has the root's name, and of an old row what the partition's identity says.
		to, key := "FULL", "whole rows"
		switch {
		case root.identity == "d" && len(root.key) > 0:
			to = "DEFAULT"
			fallthrough
		case root.identity != "f" && len(root.key) > 0:
			key = strings.Join(root.key, ", ")
		}
		found = append(found, finding(api.SeverityFatal, errs.TableUnsupported, t.String(), "ALTER TABLE "+t.sql()+" REPLICA IDENTITY "+to+";",
			"partition %s of %s tells its rows apart by %s, and %[2]s by %[4]s: UPDATE and DELETE on it would be lost", t, root, strings.Join(t.key, ", "), key))
	}
	d.out.Each("pg.identity", found, "every table has a replica identity")
}

func covers(has, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(c string) bool { return !slices.Contains(has, c) })
}

// unidentified tells why the server would refuse updates and deletes of a table, and the identity that it could have; ""
// if it does not.
func (t *table) unidentified() (why, to string) {
	switch {
	case t.identity == "f", len(t.key) > 0, t.kind == "f", t.kind == "p" && t.identity == "d":
		return "", "" // the root of partitions needs none of its own: each partition is asked
	case t.identity == "n":
		why = "its replica identity is NOTHING"
	case t.identity == "i":
		why = "the index of its replica identity is gone"
	case t.deferrable:
		why = "its primary key is deferrable"
	default:
		why = "it has no primary key"
	}
	switch {
	case t.primary && !t.deferrable:
		return why, "DEFAULT"
	case t.candidate != "":
		return why, "USING INDEX " + pg.Ident(t.candidate)
	}
	return why, "FULL"
}

func (d *doctor) checkToast() {
	var found []api.Check
	n := 0
	for i := range d.tables {
		t := &d.tables[i]
		if t.toast == 0 || t.identity == "f" {
			continue
		}
		n++
		if d.opts.FullRows {
			found = append(found, finding(api.SeverityWarning, errs.SourcePreflight, t.String(), "ALTER TABLE "+t.sql()+" REPLICA IDENTITY FULL;",
				"an update of %s does not send large values that it leaves as they are, and this pipeline needs whole rows", t))
		}
	}
	d.out.Each("pg.toast", found, "%s without unchanged large values; the target keeps those it has", api.Counted(n, "table may send updates", "tables may send updates"))
}

func (d *doctor) checkCollations(ctx context.Context) error {
	var found []api.Check
	if d.server.collation != "" {
		db := pg.Ident(d.server.database)
		found = append(found, finding(api.SeverityWarning, errs.SourcePreflight, d.server.database,
			"REINDEX DATABASE "+db+";\nALTER DATABASE "+db+" REFRESH COLLATION VERSION;",
			"the order of text has changed under the database (%s): indexes may not find every row", d.server.collation))
	}
	oids := make([]string, 0, len(d.tables))
	for i := range d.tables {
		t := &d.tables[i]
		oids = append(oids, strconv.FormatUint(uint64(t.oid), 10))
		if t.nondeterm != "" {
			found = append(found, finding(api.SeverityWarning, errs.SourcePreflight, t.String(), "",
				"the key of %s has collation %s, for which different texts are equal: a row is found by any of its spellings", t, t.nondeterm))
		}
	}
	err := d.rows(ctx, "read collations", `
		SELECT quote_ident(n.nspname) || '.' || quote_ident(l.collname), l.collversion, pg_collation_actual_version(l.oid),
		       min(c.oid::regclass::text), string_agg(DISTINCT 'REINDEX INDEX ' || x.indexrelid::regclass || ';', E'\n')
		FROM unnest($1::text::oid[]) u(oid) JOIN pg_class c ON c.oid = u.oid JOIN pg_index x ON x.indrelid = c.oid
		JOIN pg_collation l ON l.oid = ANY (x.indcollation) AND l.oid <> 100
		JOIN pg_namespace n ON n.oid = l.collnamespace
		WHERE x.indisunique AND l.collversion <> pg_collation_actual_version(l.oid)
		GROUP BY l.oid, n.nspname, l.collname, l.collversion`,
		func(r pgx.Rows) error {
			var collation, was, is, table, reindex string
			if err := r.Scan(&collation, &was, &is, &table, &reindex); err != nil {
				return err
			}
			found = append(found, finding(api.SeverityWarning, errs.SourcePreflight, collation,
				reindex+"\nALTER COLLATION "+collation+" REFRESH VERSION;",
				"the order of collation %s has changed (version %s, now %s): keys of %s and perhaps others may not be found", collation, was, is, table))
			return nil
		}, "{"+strings.Join(oids, ",")+"}")
	if err != nil {
		return err
	}
	d.out.Each("pg.collation", found, "the order of text is as the indexes know it")
	return nil
}

// checkFilters asks the server to plan each condition, over the table and over the columns that deletes carry.
func (d *doctor) checkFilters(ctx context.Context) error {
	var found []api.Check
	n := 0
	for i := range d.tables {
		t := &d.tables[i]
		where := d.opts.Selection.Filter(t.schema, t.name)
		if !t.isRoot() || where == "" {
			continue
		}
		n++
		if d.server.version < 150000 {
			found = append(found, finding(api.SeverityFatal, errs.RowFilterUnsupport, t.String(), "",
				"the filter of %s needs Postgres 15, which can evaluate it while decoding", t))
			continue
		}
		if err := d.condition(ctx, t, t.columns, t.columnTypes, where); err != nil {
			if ctx.Err() != nil || d.conn.IsClosed() {
				return err
			}
			found = append(found, finding(api.SeverityFatal, errs.RowFilterUnsupport, t.String(), "", "the filter of %s is refused: %v", t, err))
			continue
		}
		refusal, err := d.unpublishable(ctx, t, where)
		if err != nil {
			return err
		}
		if refusal != "" {
			found = append(found, finding(api.SeverityFatal, errs.RowFilterUnsupport, t.String(), "", "the filter of %s is refused: %s", t, refusal))
			continue
		}
		if t.identity == "f" {
			continue
		}
		if err := d.condition(ctx, t, t.key, t.keyTypes, where); err != nil {
			if ctx.Err() != nil || d.conn.IsClosed() {
				return err
			}
			found = append(found, finding(api.SeverityFatal, errs.RowFilterUnsupport, t.String(), "ALTER TABLE "+t.sql()+" REPLICA IDENTITY FULL;",
				"the filter of %s uses columns outside its replica identity (%s): UPDATE and DELETE on it would fail", t, strings.Join(t.key, ", ")))
		}
	}
	d.out.Each("pg.filter", found, "%s that the server understands", api.Counted(n, "filter is a condition", "filters are conditions"))
	return nil
}

// unpublishable says why no publication takes a filter that the server understands, as one with a function that is not
// immutable or not built in. Only making one tells. It is made over a stand-in for the table, in a transaction that is
// rolled back: CREATE PUBLICATION locks its tables against vacuum and wants their owner. Where the role may make nothing
// the server is not asked, and pg.publication has its say.
func (d *doctor) unpublishable(ctx context.Context, t *table, where string) (refusal string, err error) {
	given := d.opts.KeepPublication && d.pub != nil // it has its filter
	if given || !d.server.mayCreate || d.server.recovery {
		return "", nil
	}
	conn := d.conn.PgConn()
	name := "weir_probe_" + strconv.FormatUint(uint64(conn.PID()), 10)
	defer func() {
		if _, rerr := conn.Exec(ctx, "ROLLBACK").ReadAll(); err == nil {
			err = rerr
		}
	}()
	_, err = conn.Exec(ctx, "BEGIN READ WRITE; SET LOCAL lock_timeout = '1s'; SET LOCAL client_min_messages = 'error'; CREATE SCHEMA "+pg.Ident(name)+
		"; CREATE TABLE "+pg.Qualified(name, t.name)+" (LIKE "+t.sql()+")").ReadAll()
	if err == nil {
		item := pg.Wanted{Schema: name, Name: t.name, Filter: where}.Item()
		if _, err = conn.Exec(ctx, "CREATE PUBLICATION "+pg.Ident(name)+" FOR TABLE "+item).ReadAll(); err != nil && !conn.IsClosed() && !pg.Passing(err) {
			var e *pgconn.PgError
			if errors.As(err, &e) {
				return strings.TrimSuffix(e.Message+": "+e.Detail, ": "), nil
			}
		}
	}
	if conn.IsClosed() || ctx.Err() != nil {
		return "", err
	}
	return "", nil // what the server has against the probe itself says nothing about the filter
}

func (d *doctor) condition(ctx context.Context, t *table, columns, types []string, where string) error {
	_, err := pg.Condition(ctx, d.conn, t.name, columns, types, where)
	return err
}
