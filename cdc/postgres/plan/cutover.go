package plan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// Sequences gives the statements that set the target's sequences to where the source's stand: those of mirrored
// tables' columns, those that mirrored tables' defaults draw from, and those that no column owns in the schemas of
// mirrored tables. The log does not carry sequences, so this is done once, after the last write at the source. Where the
// target lacks one that none of its columns owns, it is made; the notes name what could not be matched.
func Sequences(ctx context.Context, source, target pg.Querier, p *Plan) (set []pg.Statement, notes []string, err error) {
	tables := map[[2]string]*TablePlan{}
	schemas := map[string]bool{}
	drawn := map[uint32]pg.TargetName{} // by the source's OID
	for _, t := range p.Tables {
		tables[[2]string{t.Source.Schema, t.Source.Name}] = t
		schemas[t.Source.Schema] = true
		for _, d := range t.Target.Drawn() {
			drawn[d.OID] = d.Name
		}
	}
	from, err := pg.LoadSequences(ctx, source)
	if err != nil {
		return nil, nil, fmt.Errorf("sequences of the source: %w", err)
	}
	there, err := pg.LoadSequences(ctx, target)
	if err != nil {
		return nil, nil, fmt.Errorf("sequences of the target: %w", err)
	}
	var targetSchemas []string
	if err := target.QueryRow(ctx, "SELECT ARRAY(SELECT nspname::text FROM pg_namespace)").Scan(&targetSchemas); err != nil {
		return nil, nil, fmt.Errorf("schemas of the target: %w", err)
	}
	owned, byName := map[[3]string]pg.TargetName{}, map[pg.TargetName]bool{}
	for _, s := range there {
		name := pg.TargetName{Schema: s.Schema, Name: s.Name}
		byName[name] = true
		if s.OwnerColumn != "" {
			owned[[3]string{s.OwnerSchema, s.OwnerTable, s.OwnerColumn}] = name
		}
	}
	for i := range from {
		s := &from[i]
		t := tables[[2]string{s.OwnerSchema, s.OwnerTable}]
		name, draws := drawn[s.OID]
		if t == nil && !draws && (s.OwnerColumn != "" || !schemas[s.Schema]) {
			continue
		}
		if !s.Readable {
			var role string
			if err := source.QueryRow(ctx, "SELECT current_user::text").Scan(&role); err != nil {
				return nil, nil, fmt.Errorf("ask for the role at the source: %w", err)
			}
			return nil, nil, errs.New(errs.SourcePreflight, "the role may not read sequence %s of the source", pg.Qualified(s.Schema, s.Name)).
				WithFix("GRANT SELECT ON SEQUENCE " + pg.Qualified(s.Schema, s.Name) + " TO " + pg.Ident(role) + ";")
		}
		if t != nil {
			own, ok := owned[[3]string{t.Target.Name.Schema, t.Target.Name.Name, s.OwnerColumn}]
			if ok {
				set = append(set, pg.Statement{What: "sequence " + own.String(), SQL: []string{setval(own, s)}})
			} else if !draws {
				notes = append(notes, fmt.Sprintf("sequence %s of %s.%s has no counterpart: column %s of %s owns none on the target",
					pg.Qualified(s.Schema, s.Name), t.Source, s.OwnerColumn, pg.Ident(s.OwnerColumn), t.Target.Name))
			}
			if !draws || own == name {
				continue
			}
		}
		if !draws {
			name = pg.TargetName{Schema: s.Schema, Name: s.Name}
		}
		if why := p.noSequence[name]; why != "" {
			notes = append(notes, fmt.Sprintf("sequence %s is not set: %s", pg.Qualified(s.Schema, s.Name), why))
			continue
		}
		st := pg.Statement{What: "sequence " + name.String()}
		if !byName[name] {
			if !slices.Contains(targetSchemas, name.Schema) {
				targetSchemas = append(targetSchemas, name.Schema)
				st.SQL = append(st.SQL, pg.CreateSchema(name.Schema).SQL...)
			}
			st.SQL = append(st.SQL, pg.CreateSequence(name, s).SQL...)
		}
		st.SQL = append(st.SQL, setval(name, s))
		set = append(set, st)
	}
	return set, notes, nil
}

// unreadPatience is how long the reader of a slot may take to let go of it.
const unreadPatience = 10 * time.Second

// Unread counts the transactions in the log that changed the plan's tables and committed behind a position. It reads the
// slot of a mirror that rests, and does not move it.
func Unread(ctx context.Context, e *env.Env, source pg.Querier, slot, publication string, behind pg.LSN, p *Plan) (n int, err error) {
	tables := make([]int64, len(p.Tables))
	for i, t := range p.Tables {
		tables[i] = int64(t.Source.OID)
	}
	// Insert, Update and Delete name their table in the four bytes behind their letter; a Truncate names several. The last
	// message of a transaction is its commit, which stands at the place that a position names.
	const look = `SELECT count(*)::int FROM (
		SELECT bool_or(lsn > $4::pg_lsn) AS behind, bool_or(get_byte(data, 0) = 84 OR get_byte(data, 0) IN (73, 85, 68) AND
			(get_byte(data, 1)::int8 << 24) + (get_byte(data, 2) << 16) + (get_byte(data, 3) << 8) + get_byte(data, 4) = ANY ($3::int8[])) AS wrote
		FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', $2)
		GROUP BY xid) t WHERE wrote AND behind`
	for began := e.Clock.Now(); ; {
		err = source.QueryRow(ctx, look, slot, pg.Ident(publication), tables, behind.String()).Scan(&n)
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "55006" || e.Clock.Now().Sub(began) > unreadPatience {
			return n, err
		}
		if err := e.Clock.Sleep(ctx, 100*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// Lacking is a column of the target without the default that the source's column has.
type Lacking struct {
	Table  pg.TargetName
	Column string
	SQL    []string // sets it; may need what the target does not have
}

// Defaults finds the mirrored columns of which the target has no default, whatever kept it from having one: tables that
// users made, columns that were added, functions that the target does not have. One that it has otherwise is its own
// business.
func Defaults(ctx context.Context, source, target pg.Querier, p *Plan) ([]Lacking, error) {
	schemas, names := p.targets()
	rows, err := target.Query(ctx, `
		SELECT (u.n - 1)::int, ARRAY(SELECT a.attname::text FROM pg_attribute a
		           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.atthasdef AND a.attidentity = '')
		FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u(schema, name, n)
		JOIN pg_namespace s ON s.nspname = u.schema
		JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = u.name ORDER BY 1`, schemas, names)
	if err != nil {
		return nil, fmt.Errorf("read the target's defaults: %w", err)
	}
	var out []Lacking
	makes := map[int][]pg.Drawn{} // by the place in out
	var i int
	var without []string
	_, err = pgx.ForEachRow(rows, []any{&i, &without}, func() error {
		t := &p.Tables[i].Target
		for _, c := range t.Columns() {
			if c.Generated == 0 && (c.Default != "" || c.Identity != 0) && slices.Contains(without, c.Name) {
				sql, sequences := t.SetDefault(&c)
				if len(sequences) > 0 {
					makes[len(out)] = sequences
				}
				out = append(out, Lacking{t.Name, c.Name, sql})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the target's defaults: %w", err)
	}
	if len(makes) == 0 {
		return out, nil
	}
	from, err := pg.LoadSequences(ctx, source)
	if err != nil {
		return nil, fmt.Errorf("sequences of the source: %w", err)
	}
	there, err := pg.LoadSequences(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("sequences of the target: %w", err)
	}
	for i, sequences := range makes {
		for _, d := range sequences {
			at := slices.IndexFunc(from, func(s pg.Sequence) bool { return s.OID == d.OID && s.Readable })
			if at >= 0 && !slices.ContainsFunc(there, func(s pg.Sequence) bool { return s.Schema == d.Name.Schema && s.Name == d.Name.Name }) {
				out[i].SQL = append(out[i].SQL, setval(d.Name, &from[at])) // Sequences has passed it
			}
		}
	}
	return out, nil
}

// targets are the names of the target's tables, in the order of Tables.
func (p *Plan) targets() (schemas, names []string) {
	for _, t := range p.Tables {
		schemas, names = append(schemas, t.Target.Name.Schema), append(names, t.Target.Name.Name)
	}
	return schemas, names
}

// Settling gives something of the target what the source's has; Undo makes it what it was.
type Settling struct {
	pg.Statement
	Undo string
}

// ForeignKeys gives the statements that take back what a plan did to foreign keys because the target's role may not turn
// their checks off. That may be long ago, so the target is asked. The notes name those that somebody else has to do.
func ForeignKeys(ctx context.Context, target pg.Querier, p *Plan) (settle []Settling, notes []string, err error) {
	mirrored := map[uint32]*pg.Target{}
	for _, t := range p.Tables {
		mirrored[t.Source.OID] = &t.Target
	}
	schemas, names := p.targets()
	rows, err := target.Query(ctx, `
		SELECT (u.n - 1)::int, k.conname::text, k.confupdtype::text, k.confdeltype::text, pg_get_constraintdef(k.oid), pg_has_role(c.relowner, 'USAGE')
		FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u(schema, name, n)
		JOIN pg_namespace s ON s.nspname = u.schema
		JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = u.name
		JOIN pg_constraint k ON k.conrelid = c.oid
		WHERE k.contype = 'f' AND k.condeferred AND k.conparentid = 0 ORDER BY 1, 2`, schemas, names)
	if err != nil {
		return nil, nil, fmt.Errorf("read the target's foreign keys: %w", err)
	}
	var i int
	var have pg.Constraint
	var onUpdate, onDelete string
	var may bool
	_, err = pgx.ForEachRow(rows, []any{&i, &have.Name, &onUpdate, &onDelete, &have.Def, &may}, func() error {
		have.OnUpdate, have.OnDelete = onUpdate[0], onDelete[0]
		t := p.Tables[i]
		at := slices.IndexFunc(t.Source.ForeignKeys, func(k pg.Constraint) bool { return k.Name == have.Name })
		if at < 0 {
			return nil
		}
		k := &t.Source.ForeignKeys[at]
		sql, undo := t.Target.SettleForeignKey(k, mirrored[k.RefTable], have)
		switch {
		case sql == "":
		case !may:
			notes = append(notes, fmt.Sprintf("foreign key %s of %s is another role's: %s;", pg.Ident(have.Name), t.Target.Name, sql))
		default:
			settle = append(settle, Settling{pg.Statement{What: "foreign key " + pg.Ident(have.Name) + " of " + t.Target.Name.String(), SQL: []string{sql}}, undo})
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the target's foreign keys: %w", err)
	}
	return settle, notes, nil
}

// setval is exact: with is_called false the next value is last_value itself.
func setval(name pg.TargetName, s *pg.Sequence) string {
	return "SELECT pg_catalog.setval(" + pg.Literal(name.String()) + "::regclass, " + strconv.FormatInt(s.LastValue, 10) + ", " + strconv.FormatBool(s.IsCalled) + ")"
}

func collect(ctx context.Context, q pg.Querier, sql string) (found []api.Check, err error) {
	rows, err := q.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		c := api.Check{Severity: api.SeverityWarning, Code: string(errs.SourcePreflight)}
		if err := rows.Scan(&c.Object, &c.Message, &c.Fix); err != nil {
			return nil, err
		}
		found = append(found, c)
	}
	return found, rows.Err()
}

// Writers tells what can still write to the source, for the moment before a cut-over: transactions under way, prepared
// ones, and whether new ones may begin. The statistics view hides other roles' transactions from a role without
// pg_read_all_stats; the finding says so.
func Writers(ctx context.Context, source *pgx.Conn) ([]api.Check, error) {
	out := api.NewFindings("source")
	for _, q := range []struct{ id, what, passed, sql string }{
		{"cut.writers", "transactions", "no transaction is writing", `
			SELECT pid::text, 'process ' || pid || ' of ' || coalesce(usename, '?') || ' (' || application_name || ') is writing',
			       'SELECT pg_terminate_backend(' || pid || ');'
			FROM pg_stat_activity WHERE datname = current_database() AND backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start`},
		{"cut.prepared", "prepared transactions", "no transaction is prepared", `
			SELECT gid, 'transaction ' || gid || ' is prepared and may commit at any time', 'ROLLBACK PREPARED ' || quote_literal(gid) || '; -- or COMMIT PREPARED'
			FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared`},
		{"cut.sessions", "sessions", "no application is connected", `
			SELECT pid::text, 'process ' || pid || ' of ' || coalesce(usename, '?') || ' (' || application_name || ') is connected and may write',
			       'SELECT pg_terminate_backend(' || pid || ');'
			FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
			  AND application_name NOT LIKE 'weir%' ORDER BY pid`},
	} {
		found, err := collect(ctx, source, q.sql)
		if err != nil {
			return nil, fmt.Errorf("look for %s: %w", q.what, err)
		}
		out.Each(q.id, found, "%s", q.passed)
	}
	var database, role string
	var readOnly, sees bool
	err := source.QueryRow(ctx, `
		SELECT current_database()::text, current_user::text,
		       coalesce((SELECT lower(split_part(c, '=', 2)) IN ('on', 'true', 'yes', '1')
		                 FROM pg_db_role_setting r, unnest(r.setconfig) c
		                 WHERE r.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) AND r.setrole = 0
		                   AND c LIKE 'default\_transaction\_read\_only=%'),
		                (SELECT setting = 'on' AND source NOT IN ('client', 'session') FROM pg_settings WHERE name = 'default_transaction_read_only')),
		       pg_has_role('pg_read_all_stats', 'USAGE')`).Scan(&database, &role, &readOnly, &sees)
	if err != nil {
		return nil, fmt.Errorf("ask whether the source accepts writes: %w", err)
	}
	if !sees {
		out.Warn("cut.stats", errs.SourcePreflight, "GRANT pg_read_all_stats TO "+pg.Ident(role)+";", "the role sees only its own transactions: others may be writing")
	} else {
		out.OK("cut.stats", "the role sees all transactions")
	}
	if !readOnly {
		db := pg.Ident(database)
		out.Warn("cut.readonly", errs.SourcePreflight, "ALTER DATABASE "+db+" SET default_transaction_read_only = on;",
			"database %s still accepts writes from new sessions: stop the applications, or make it read-only and end their sessions", database)
	} else {
		out.OK("cut.readonly", "new sessions in database %s are read-only unless they ask for more", database)
	}
	return out.List(), nil
}

// Names gives the statements by which indexes and sequences of tables that were routed elsewhere get the source's names,
// as far as these are free. They have others while the mirror runs, since a table that joins later must not find its name
// taken.
func Names(ctx context.Context, target pg.Querier, p *Plan) (settle []Settling, err error) {
	type object struct{ schema, name string }
	var given []pg.GivenName
	var of []object
	var schemas, names []string
	for _, t := range p.Tables {
		for _, g := range t.Target.GivenNames() {
			given, of = append(given, g), append(of, object{t.Target.Name.Schema, g.Name})
			schemas, names = append(schemas, t.Target.Name.Schema, t.Target.Name.Schema), append(names, g.Name, g.Source)
		}
	}
	if len(given) == 0 {
		return nil, nil
	}
	rows, err := target.Query(ctx, `
		SELECT DISTINCT n.nspname::text, c.relname::text, pg_has_role(c.relowner, 'USAGE') FROM unnest($1::text[], $2::text[]) u(schema, name)
		JOIN pg_namespace n ON n.nspname = u.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = u.name`, schemas, names)
	if err != nil {
		return nil, fmt.Errorf("read the target's names: %w", err)
	}
	mine := map[object]bool{} // those that are taken; true: by what our role may rename
	var o object
	var may bool
	if _, err := pgx.ForEachRow(rows, []any{&o.schema, &o.name, &may}, func() error { mine[o] = may; return nil }); err != nil {
		return nil, fmt.Errorf("read the target's names: %w", err)
	}
	for i, g := range given {
		now, to := of[i], object{of[i].schema, g.Source}
		if _, taken := mine[to]; taken || !mine[now] {
			continue
		}
		delete(mine, now)
		mine[to] = true
		kind := "INDEX"
		if g.Sequence {
			kind = "SEQUENCE"
		}
		rename := func(from, to string) string {
			return "ALTER " + kind + " " + pg.Qualified(now.schema, from) + " RENAME TO " + pg.Ident(to)
		}
		settle = append(settle, Settling{pg.Statement{What: "the name of " + pg.Qualified(now.schema, g.Name), SQL: []string{rename(g.Name, g.Source)}}, rename(g.Source, g.Name)})
	}
	return settle, nil
}
