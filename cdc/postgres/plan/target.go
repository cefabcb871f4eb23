package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// readTarget fits the tables to the target and learns which of them are there.
func (m *maker) readTarget(ctx context.Context, e *env.Env, cfg *pg.Config) error {
	conn, err := connect(ctx, e, cfg, errs.TargetUnreachable, "target")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := m.describeTarget(ctx, conn); err != nil {
		if _, ok := errs.As(err); ok {
			return err
		}
		return fmt.Errorf("plan: read target %s: %w", cfg.Server(), err)
	}
	return nil
}

func (m *maker) describeTarget(ctx context.Context, conn *pgx.Conn) error {
	version, _, err := pg.ServerVersion(ctx, conn)
	if err != nil {
		return err
	}
	m.opts = pg.TargetOptions{TargetVersion: version, Route: m.p.route, SoftDelete: m.spec.Options["soft.delete.column"], Extensions: map[string]string{}}
	installed, err := pg.LoadExtensions(ctx, conn)
	if err != nil {
		return err
	}
	for name, x := range installed {
		m.opts.Extensions[name] = x.Schema
	}
	var replica bool
	var available, schemas []string
	err = conn.QueryRow(ctx, `SELECT ARRAY(SELECT name::text FROM pg_available_extensions), ARRAY(SELECT nspname::text FROM pg_namespace),
		(SELECT rolsuper FROM pg_roles WHERE rolname = current_user), current_user::text`).Scan(&available, &schemas, &replica, &m.role)
	if err != nil {
		return fmt.Errorf("read what the target offers: %w", err)
	}
	m.there = map[string]bool{}
	for _, name := range schemas {
		m.there[pg.CreateSchema(name).What] = true
	}
	m.available = map[string]bool{}
	for _, name := range available {
		m.available[name] = true
	}
	if version >= 150000 && !replica {
		if err := conn.QueryRow(ctx, "SELECT has_parameter_privilege('session_replication_role', 'SET')").Scan(&replica); err != nil {
			return fmt.Errorf("read the target role's rights: %w", err)
		}
	}
	// As a replica the session checks no foreign keys. Otherwise they are checked, and within a transaction rows may
	// come in any order.
	m.opts.DeferForeignKeys = !replica
	if err := m.collations(ctx, conn); err != nil {
		return err
	}
	if err := m.existing(ctx, conn); err != nil {
		return err
	}
	return m.sequences(ctx, conn)
}

// route is Selection.Route for tables that the mirror takes.
func (p *Plan) route(schema, table string) (toSchema, toTable string, ok bool) {
	if !p.Selection.Includes(schema, table) {
		return "", "", false
	}
	toSchema, toTable = p.Selection.Route(schema, table)
	return toSchema, toTable, true
}

// sequences finds out of those that are to be made before the tables which the target cannot have: a default is not worth
// a mirror that does not begin.
func (m *maker) sequences(ctx context.Context, conn *pgx.Conn) error {
	var schemas, names []string
	for _, t := range m.p.Tables {
		target := t.Target
		target.Options.Route = m.p.route
		for _, d := range target.Drawn() {
			schemas, names = append(schemas, d.Name.Schema), append(names, d.Name.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, `
		SELECT u.schema, u.name, coalesce(c.relkind::text, ''),
		       CASE WHEN s.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE') ELSE has_schema_privilege(s.oid, 'CREATE') END
		FROM unnest($1::text[], $2::text[]) u(schema, name)
		LEFT JOIN pg_namespace s ON s.nspname = u.schema
		LEFT JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = u.name`, schemas, names)
	if err != nil {
		return fmt.Errorf("look for sequences: %w", err)
	}
	defer rows.Close()
	m.opts.NoSequence = map[pg.TargetName]string{}
	m.p.noSequence = m.opts.NoSequence
	for rows.Next() {
		var name pg.TargetName
		var kind string
		var may bool
		if err := rows.Scan(&name.Schema, &name.Name, &kind, &may); err != nil {
			return fmt.Errorf("look for sequences: %w", err)
		}
		switch {
		case kind == "S":
			m.there[pg.CreateSequence(name, &pg.Sequence{}).What] = true
		case kind != "":
			m.opts.NoSequence[name] = fmt.Sprintf("%s on the target is not a sequence", name)
		case !may:
			m.opts.NoSequence[name] = fmt.Sprintf("role %s may not make sequence %s on the target", pg.Ident(m.role), name)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("look for sequences: %w", err)
	}
	return nil
}

// collations finds those that neither the target has nor the plan makes.
func (m *maker) collations(ctx context.Context, conn *pgx.Conn) error {
	var have []string
	err := conn.QueryRow(ctx, `
		SELECT ARRAY(SELECT quote_ident(n.nspname) || '.' || quote_ident(l.collname)
		             FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace
		             WHERE l.collencoding IN (-1, (SELECT encoding FROM pg_database WHERE datname = current_database())))`).Scan(&have)
	if err != nil {
		return fmt.Errorf("read the target's collations: %w", err)
	}
	known := map[string]bool{}
	for _, c := range have {
		known[c] = true
	}
	for _, d := range m.p.Types {
		if d.Collation != nil {
			known[quoted(d.Schema)+"."+quoted(d.Name)] = true
		}
	}
	m.opts.MissingCollations = map[string]bool{}
	miss := func(c string) {
		if c != "" && !known[c] {
			m.opts.MissingCollations[c] = true
		}
	}
	for _, t := range m.tables {
		for _, c := range t.Columns {
			miss(c.Collation)
		}
	}
	for _, d := range m.p.Types {
		miss(d.Collate)
		for _, a := range d.Attributes {
			miss(a.Collate)
		}
	}
	return nil
}

// quoted is the server's quote_ident: names that need no quotes get none. A name that is a keyword keeps its quotes
// there and none here; such a collation is then taken for missing, and its columns get the default one.
func quoted(name string) string {
	plain := name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" && (name[0] < '0' || name[0] > '9')
	if plain {
		return name
	}
	return pg.Ident(name)
}

// existing asks for all tables in one query which are there and which of those are unfinished copies of this very
// table.
func (m *maker) existing(ctx context.Context, conn *pgx.Conn) error {
	var schemas, names []string
	for _, t := range m.tables {
		schema, name := m.p.Selection.Route(t.Schema, t.Name)
		exclude, err := m.excluded(t)
		if err != nil {
			return err
		}
		if s := m.opts.SoftDelete; s != "" && t.Column(s) != nil {
			return errs.New(errs.BadPattern, "soft.delete.column is %s, and table %s has a column of that name", pg.Ident(s), t)
		}
		m.p.Tables = append(m.p.Tables, &TablePlan{
			Source:  t,
			Target:  pg.Target{Source: t, Name: pg.TargetName{Schema: schema, Name: name}, Options: pg.TargetOptions{ExcludeColumns: exclude}},
			Key:     slices.Clone(keyOf(t)),
			EstRows: t.RelTuples, EstBytes: t.Bytes,
			small: t.RelTuples < smallRows && t.Bytes < smallBytes,
		})
		schemas, names = append(schemas, schema), append(names, name)
	}
	rows, err := conn.Query(ctx, `
		SELECT (u.n - 1)::int, c.relkind::text, coalesce(obj_description(c.oid, 'pg_class'), '')
		FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u(schema, name, n)
		JOIN pg_namespace s ON s.nspname = u.schema
		JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = u.name`, schemas, names)
	if err != nil {
		return fmt.Errorf("look for tables: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var i int
		var kind, comment string
		if err := rows.Scan(&i, &kind, &comment); err != nil {
			return fmt.Errorf("look for tables: %w", err)
		}
		t := m.p.Tables[i]
		if kind != "r" && kind != "p" && !m.judged {
			return errs.New(errs.TargetTable, "%s on the target is not a table, so %s cannot go there", t.Target.Name, t.Source).
				WithHint("route the table elsewhere, or leave it out with except")
		}
		t.Exists = true
		t.Unfinished = comment == m.p.markOf(t.Source.String()) || m.names != nil && strings.HasPrefix(comment, mark) && strings.HasSuffix(comment, m.p.owner())
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("look for tables: %w", err)
	}
	return nil
}
