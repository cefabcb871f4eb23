package plan

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// Sequences gives the statements that set the target's sequences to where the source's stand: those of mirrored
// tables' columns, and those that no column owns in the schemas of mirrored tables. The log does not carry sequences,
// so this is done once, after the last write at the source. A sequence without owner that the target lacks is made;
// the notes name what could not be matched.
func Sequences(ctx context.Context, source, target pg.Querier, p *Plan) (set []pg.Statement, notes []string, err error) {
	tables := map[[2]string]*TablePlan{}
	schemas := map[string]bool{}
	for _, t := range p.Tables {
		tables[[2]string{t.Source.Schema, t.Source.Name}] = t
		schemas[t.Source.Schema] = true
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
	owned, byName := map[[3]string]pg.Sequence{}, map[[2]string]bool{}
	for _, s := range there {
		byName[[2]string{s.Schema, s.Name}] = true
		if s.OwnerColumn != "" {
			owned[[3]string{s.OwnerSchema, s.OwnerTable, s.OwnerColumn}] = s
		}
	}
	for _, s := range from {
		t := tables[[2]string{s.OwnerSchema, s.OwnerTable}]
		if t == nil && (s.OwnerColumn != "" || !schemas[s.Schema]) {
			continue
		}
		if !s.Readable {
			return nil, nil, errs.New(errs.SourcePreflight, "the role may not read sequence %s of the source", pg.Qualified(s.Schema, s.Name)).
				WithFix("GRANT SELECT ON SEQUENCE " + pg.Qualified(s.Schema, s.Name) + " TO CURRENT_USER;")
		}
		if t == nil {
			st := pg.Statement{What: "sequence " + pg.Qualified(s.Schema, s.Name)}
			if !byName[[2]string{s.Schema, s.Name}] {
				if !slices.Contains(targetSchemas, s.Schema) {
					targetSchemas = append(targetSchemas, s.Schema)
					st.SQL = append(st.SQL, "CREATE SCHEMA "+pg.Ident(s.Schema))
				}
				st.SQL = append(st.SQL, create(s))
			}
			st.SQL = append(st.SQL, setval(pg.Qualified(s.Schema, s.Name), s))
			set = append(set, st)
			continue
		}
		to, ok := owned[[3]string{t.Target.Name.Schema, t.Target.Name.Name, s.OwnerColumn}]
		if !ok {
			notes = append(notes, fmt.Sprintf("sequence %s of %s.%s has no counterpart: column %s of %s owns none on the target",
				pg.Qualified(s.Schema, s.Name), t.Source, s.OwnerColumn, pg.Ident(s.OwnerColumn), t.Target.Name))
			continue
		}
		name := pg.Qualified(to.Schema, to.Name)
		set = append(set, pg.Statement{What: "sequence " + name, SQL: []string{setval(name, s)}})
	}
	return set, notes, nil
}

func create(s pg.Sequence) string {
	sql := fmt.Sprintf("CREATE SEQUENCE %s AS %s INCREMENT BY %d MINVALUE %d MAXVALUE %d START WITH %d CACHE %d",
		pg.Qualified(s.Schema, s.Name), s.Type, s.Increment, s.Min, s.Max, s.Start, s.Cache)
	if s.Cycle {
		sql += " CYCLE"
	}
	return sql
}

// setval is exact: with is_called false the next value is last_value itself.
func setval(name string, s pg.Sequence) string {
	return "SELECT pg_catalog.setval(" + pg.Literal(name) + "::regclass, " + strconv.FormatInt(s.LastValue, 10) + ", " + strconv.FormatBool(s.IsCalled) + ")"
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
	var database string
	var readOnly, sees bool
	err := source.QueryRow(ctx, `
		SELECT current_database()::text,
		       coalesce((SELECT lower(split_part(c, '=', 2)) IN ('on', 'true', 'yes', '1')
		                 FROM pg_db_role_setting r, unnest(r.setconfig) c
		                 WHERE r.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) AND r.setrole = 0
		                   AND c LIKE 'default\_transaction\_read\_only=%'),
		                (SELECT setting = 'on' AND source NOT IN ('client', 'session') FROM pg_settings WHERE name = 'default_transaction_read_only')),
		       pg_has_role('pg_read_all_stats', 'USAGE')`).Scan(&database, &readOnly, &sees)
	if err != nil {
		return nil, fmt.Errorf("ask whether the source accepts writes: %w", err)
	}
	if !sees {
		out.Warn("cut.stats", errs.SourcePreflight, "GRANT pg_read_all_stats TO CURRENT_USER;", "the role sees only its own transactions: others may be writing")
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
