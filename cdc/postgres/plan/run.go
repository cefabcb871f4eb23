package plan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

const (
	// existsPerQuery bounds the length of a query that asks for many statements at once.
	existsPerQuery = 250
	// tablesPerTx keeps the locks of transactions at work at the same time well below what a server with default settings
	// can hold: a table locks itself, its TOAST table and that one's index, its key and its sequences.
	tablesPerTx = 250
	// stepsPerTx groups what is built over small tables.
	stepsPerTx = 100
)

// Prepare runs Before: schemas, extensions, types and sequences in one transaction of the first connection, tables in a few of all
// of them, at once. What is there is passed over.
func (p *Plan) Prepare(ctx context.Context, conns ...*pgx.Conn) error {
	if err := p.runAll(ctx, conns[0], p.setup, len(p.setup), false); err != nil {
		return err
	}
	// A server makes tables at the speed of one of its processors, most of it in the file system.
	parts := make(chan []pg.Statement, len(p.create))
	for part := range slices.Chunk(p.create, max(1, tablesPerTx/len(conns))) {
		parts <- part
	}
	close(parts)
	g, ctx := errgroup.WithContext(ctx)
	for _, conn := range conns {
		g.Go(func() error {
			for part := range parts {
				if err := p.run(ctx, conn, part, false); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// Makers is the number of connections that Prepare can make use of.
func (p *Plan) Makers() int { return len(p.create)/tablesPerTx + 1 }

// Supply makes what tables need besides themselves: schemas, extensions, sequences and types, with the labels that enums
// have got since. It tells whether an enum got any.
func (p *Plan) Supply(ctx context.Context, conn *pgx.Conn) (labels bool, err error) {
	for _, t := range p.Tables {
		// Whoever makes a table that joins does not know what this plan leaves out.
		for _, d := range t.Target.Drawn() {
			if why := p.noSequence[d.Name]; why != "" && !t.Exists {
				return false, errs.New(errs.TargetDDL, "a default of %s needs sequence %s: %s", t.Source, d.Name, why)
			}
		}
	}
	if err := p.runAll(ctx, conn, p.setup, len(p.setup), false); err != nil {
		return false, err
	}
	for _, x := range p.Types {
		if x.Kind != 'e' {
			continue
		}
		var have []string
		if err := conn.QueryRow(ctx, `SELECT coalesce(array_agg(e.enumlabel::text ORDER BY e.enumsortorder), '{}') FROM pg_enum e
			JOIN pg_type t ON t.oid = e.enumtypid JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = $1 AND t.typname = $2`,
			x.Schema, x.Name).Scan(&have); err != nil {
			return labels, fmt.Errorf("read the labels of %s: %w", pg.Qualified(x.Schema, x.Name), err)
		}
		if len(have) == 0 {
			continue // not an enum there
		}
		for _, sql := range pg.AddEnumLabels(x.Schema, x.Name, have, x.Labels) {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return labels, refused(conn, pg.Statement{What: "a label of " + pg.Qualified(x.Schema, x.Name), SQL: []string{sql}}, err)
			}
			labels = true
		}
	}
	return labels, nil
}

// Discard drops the tables that an earlier start made and did not get to fill: nothing says that they still look like
// the source's, or that the source still has them. It is for a mirror whose ledger is empty.
func (p *Plan) Discard(ctx context.Context, conn *pgx.Conn) (dropped int, err error) {
	names, err := p.unfinished(ctx, conn)
	if err != nil {
		return dropped, err
	}
	var held []string // something of another table depends on it: a default that draws from its sequence
	for _, name := range names {
		var filled bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+name.String()+")").Scan(&filled); err != nil {
			return dropped, fmt.Errorf("look into %s: %w", name, err)
		}
		if filled {
			continue // somebody else's rows
		}
		if _, err := conn.Exec(ctx, "DROP TABLE "+name.String()); err != nil {
			var pgErr *pgconn.PgError
			if errors.As(err, &pgErr) && pgErr.Code == "2BP01" {
				held = append(held, name.String())
				continue
			}
			return dropped, errs.New(errs.TargetDDL, "drop the unfinished table %s: %w", name, err)
		}
		dropped++
	}
	if len(held) > 0 { // all at once they may depend on each other
		if _, err := conn.Exec(ctx, "DROP TABLE "+strings.Join(held, ", ")); err != nil {
			return dropped, errs.New(errs.TargetDDL, "drop the unfinished tables %s: %w", strings.Join(held, ", "), err)
		}
	}
	return dropped + len(held), nil
}

// unfinished are the target's tables that carry this pipeline's mark.
func (p *Plan) unfinished(ctx context.Context, conn *pgx.Conn) ([]pg.TargetName, error) {
	rows, err := conn.Query(ctx, `SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND starts_with(obj_description(c.oid, 'pg_class'), $1)
		AND right(obj_description(c.oid, 'pg_class'), $2) = $3 ORDER BY c.oid`, mark, utf8.RuneCountInString(p.owner()), p.owner())
	if err != nil {
		return nil, fmt.Errorf("look for unfinished tables: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowToStructByPos[pg.TargetName])
	if err != nil {
		return nil, fmt.Errorf("look for unfinished tables: %w", err)
	}
	return names, nil
}

// FinishKeys makes the primary keys that tables were created without: what the stream needs.
func (p *Plan) FinishKeys(ctx context.Context, conn *pgx.Conn) error {
	if p.keys == 0 {
		return nil
	}
	return p.build(ctx, conn, p.steps[:p.keys], buildMemory)
}

// FinishKey is FinishKeys for one table of the target. Several may be built at once; beside tells that others are still
// being copied. A table that is not very large is then built without the server's parallel workers: those take half as
// much again of the processor in all, for a time that nobody waits for.
func (p *Plan) FinishKey(ctx context.Context, conn *pgx.Conn, table pg.TargetName, beside bool) error {
	i := slices.IndexFunc(p.steps[:p.keys], func(s step) bool { return s.table.Target.Name == table })
	if i < 0 {
		return nil
	}
	workers := "RESET max_parallel_maintenance_workers"
	if beside && p.steps[i].table.EstBytes < manyWorkers {
		workers = "SET max_parallel_maintenance_workers = 0"
	}
	if _, err := conn.Exec(ctx, workers); err != nil {
		return fmt.Errorf("finish the copy: %w", err)
	}
	return p.build(ctx, conn, p.steps[i:i+1], buildMemory/2)
}

// manyWorkers is the size from which a key is built with all workers that the server gives: it could be what the copy
// ends with.
const manyWorkers = 1 << 30

// buildMemory is what one build of an index may take of the target's memory: more than the server's default makes it a
// good deal faster.
const buildMemory = 256 << 20

// Finish runs After and takes the marks off the tables. Indexes of large tables are built one by one, so that an
// interruption costs one of them.
func (p *Plan) Finish(ctx context.Context, conn *pgx.Conn) error {
	if err := p.build(ctx, conn, p.steps, buildMemory); err != nil {
		return err
	}
	marked, err := p.unfinished(ctx, conn)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(marked, tablesPerTx) {
		var sql []string
		for _, name := range part {
			sql = append(sql, "COMMENT ON TABLE "+name.String()+" IS NULL")
		}
		if _, err := conn.PgConn().Exec(ctx, strings.Join(sql, ";\n")).ReadAll(); err != nil {
			return errs.New(errs.TargetDDL, "take the marks off finished tables: %w", err)
		}
	}
	return nil
}

// build runs steps, those of small tables many at a time.
func (p *Plan) build(ctx context.Context, conn *pgx.Conn, steps []step, memory int64) error {
	if _, err := conn.Exec(ctx, fmt.Sprintf("SELECT set_config('maintenance_work_mem', '%dkB', false) WHERE pg_size_bytes(current_setting('maintenance_work_mem')) < %d", memory>>10, memory)); err != nil {
		return fmt.Errorf("finish the copy: %w", err)
	}
	for i := 0; i < len(steps); {
		end := i + 1
		for steps[i].small && end < len(steps) && steps[end].small && end-i < existsPerQuery*4 {
			end++
		}
		group := make([]pg.Statement, 0, end-i)
		for _, s := range steps[i:end] {
			group = append(group, s.Statement)
		}
		if err := p.runAll(ctx, conn, group, stepsPerTx, true); err != nil {
			return err
		}
		i = end
	}
	return nil
}

// runAll runs the statements whose objects are missing, perTx of them in one transaction and one round trip. For ahead see
// oneByOne.
func (p *Plan) runAll(ctx context.Context, conn *pgx.Conn, statements []pg.Statement, perTx int, ahead bool) error {
	missing, err := notYet(ctx, conn, statements)
	if err != nil {
		return err
	}
	if len(missing) == 0 {
		return nil
	}
	for part := range slices.Chunk(missing, perTx) {
		if err := p.run(ctx, conn, part, ahead); err != nil {
			return err
		}
	}
	return nil
}

// run runs the statements in one transaction, and if they do not go together one after another, those of them whose
// objects are missing.
func (p *Plan) run(ctx context.Context, conn *pgx.Conn, statements []pg.Statement, ahead bool) error {
	var sql []string
	for _, st := range statements {
		sql = append(sql, st.SQL...)
	}
	_, err := conn.PgConn().Exec(ctx, strings.Join(sql, ";\n")).ReadAll() // one simple query is one transaction
	if err == nil {
		return nil
	}
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || ctx.Err() != nil {
		return fmt.Errorf("prepare the target: %w", err)
	}
	return p.oneByOne(ctx, conn, statements, ahead)
}

// oneByOne finds the statement that is to blame. It may find none, when what stood in the way has passed. What is built
// over the copy may need a column that the source has by now and the stream has not brought yet; with ahead it is left
// out, as it is for a column that is added later.
func (p *Plan) oneByOne(ctx context.Context, conn *pgx.Conn, statements []pg.Statement, ahead bool) error {
	for _, st := range statements {
		done, err := exist(ctx, conn, []pg.Statement{st})
		if err != nil {
			return err
		}
		if done[0] {
			continue
		}
		if _, err := conn.PgConn().Exec(ctx, strings.Join(st.SQL, ";\n")).ReadAll(); err != nil {
			var pgErr *pgconn.PgError
			if ahead && errors.As(err, &pgErr) && slices.Contains(notYetSo, pgErr.Code) {
				p.log.Warn("the target goes without it, because the source's table has changed since", "what", st.What, "sql", strings.Join(st.SQL, "; "), "error", pgErr.Message)
				continue
			}
			return refused(conn, st, err)
		}
	}
	return nil
}

// notYetSo are what the target says when the source's tables have changed since: a column that is not there, or a name
// that another table still has.
var notYetSo = []string{"42703", "42P16", "42P07", "42P01"}

func refused(conn *pgx.Conn, st pg.Statement, err error) error {
	e := errs.New(errs.TargetDDL, "make %s on the target: %w", st.What, err).WithDetail("%s", strings.Join(st.SQL, ";\n"))
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		switch pgErr.Code {
		case "42501":
			e.WithHint("role %s lacks a right on the target; weir doctor names it", conn.Config().User)
		case "53200":
			e.WithHint("raise max_locks_per_transaction of the target")
		case "23503", "23505", "23514":
			e.WithHint("rows that the copy brought break it: compare them with the source's, then resume")
		}
	}
	return e
}

// notYet gives the statements that have to run, each once.
func notYet(ctx context.Context, conn *pgx.Conn, statements []pg.Statement) ([]pg.Statement, error) {
	seen := map[string]bool{}
	statements = slices.DeleteFunc(slices.Clone(statements), func(st pg.Statement) bool {
		again := seen[st.What]
		seen[st.What] = true
		return again
	})
	var missing []pg.Statement
	for part := range slices.Chunk(statements, existsPerQuery) {
		done, err := exist(ctx, conn, part)
		if err != nil {
			return nil, err
		}
		for i, st := range part {
			if !done[i] {
				missing = append(missing, st)
			}
		}
	}
	return missing, nil
}

func exist(ctx context.Context, conn *pgx.Conn, statements []pg.Statement) ([]bool, error) {
	questions := make([]string, len(statements))
	for i, st := range statements {
		questions[i] = "false"
		if st.Exists != "" {
			questions[i] = "(" + st.Exists + ")"
		}
	}
	var done []bool
	if err := conn.QueryRow(ctx, "SELECT ARRAY["+strings.Join(questions, ",\n")+"]::bool[]").Scan(&done); err != nil {
		return nil, fmt.Errorf("ask the target what is there: %w", err)
	}
	return done, nil
}
