package typed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
	"github.com/weirstream/weir/sinks/postgres"
)

const hintMend = "change the table, or rows in the source; then start the pipeline again: it goes on with this checkpoint, and nothing of it is written yet"

// explain finds out which row the server did not take, if it tells no more than that there was one.
func (s *Sink) explain(ctx context.Context, err error, p *piece) error {
	var refused *pgconn.PgError
	if p == nil || s.conn.IsClosed() || !errors.As(err, &refused) || ctx.Err() != nil {
		return err
	}
	switch refused.Code[:2] {
	case "22", "23":
	default:
		return err
	}
	e := errs.New(errs.TargetRejected, "table %s does not take a row: %s", p.t, refused.Message).Because(err).WithHint(hintMend)
	column := refused.ColumnName
	if refused.Code[:2] == "22" || column != "" {
		if key, col := s.find(ctx, p); key != "" {
			e.Message = fmt.Sprintf("table %s does not take the row with %s: %s", p.t, key, refused.Message)
			if column == "" {
				column = col
			}
		}
	}
	if column != "" && !strings.Contains(refused.Message, `"`+column+`"`) {
		e.Message += fmt.Sprintf(" (column %s)", column)
	}
	e.Detail = refused.Detail
	switch refused.Code {
	case "23505":
		e = e.WithHint("another row holds the value: two rows of the result have it, or one that is not the pipeline's. Mend that and start the pipeline again; a constraint that is DEFERRABLE lets values move between rows")
		if p.t.cascades {
			e = e.WithHint("a value that moves between rows needs a DEFERRABLE constraint here, because a foreign key with ON DELETE actions points at the table. Then start the pipeline again")
		}
	case "23503":
		e = e.WithHint("the row that it refers to comes later or not at all. Make the foreign key DEFERRABLE, so that it is looked at when the checkpoint is complete, or drop it; then start the pipeline again")
	}
	return e
}

// find looks for the first row of a piece that the server does not take by itself, and for the column. It leaves nothing
// behind.
func (s *Sink) find(ctx context.Context, p *piece) (key, column string) {
	conn := s.conn.PgConn()
	run := func(sql string) bool {
		_, err := conn.Exec(ctx, sql).ReadAll()
		return err == nil
	}
	if !run("ROLLBACK") {
		return "", ""
	}
	defer run("ROLLBACK")
	name := p.t.put
	if p.del {
		name = p.t.del
	}
	params := p.params()
	takes := func(lo, hi int) bool {
		ok := run("BEGIN") && conn.ExecPrepared(ctx, name, rowOf(params, lo, hi), []int16{1}, nil).Read().Err == nil
		return run("ROLLBACK") && ok
	}
	lo, hi := 0, count(params[0])
	if takes(lo, hi) {
		return "", "" // together with what came before only
	}
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; takes(lo, mid) {
			lo = mid
		} else {
			hi = mid
		}
	}
	one := rowOf(params, lo, hi)
	key = s.keyText(ctx, p, one)
	for i, c := range p.columns() {
		x := &p.t.coders[c]
		test := fmt.Sprintf("SELECT u.c0%s FROM %s", x.same, unnest(1))
		if x.length > 0 {
			test = fmt.Sprintf("SELECT 1/(pg_catalog.length(u.c0) <= %d)::int FROM %s", x.length, unnest(1))
		}
		if conn.ExecParams(ctx, test, one[i:i+1], []uint32{oids[x.wire][1]}, []int16{1}, nil).Read().Err != nil {
			return key, p.t.Columns[c].Name
		}
	}
	return key, ""
}

// keyText names a row by its key, or by all it has.
func (s *Sink) keyText(ctx context.Context, p *piece, one [][]byte) string {
	var names, values []string
	for i, c := range p.columns() {
		if !p.del && p.t.Key != nil && !slices.Contains(p.t.Key, c) {
			continue
		}
		names = append(names, p.t.Columns[c].Name)
		r := s.conn.PgConn().ExecParams(ctx, "SELECT u.c0::text FROM "+unnest(1), one[i:i+1], []uint32{oids[p.t.coders[c].wire][1]}, []int16{1}, nil).Read()
		v := "NULL"
		if r.Err == nil && len(r.Rows) == 1 && r.Rows[0][0] != nil {
			v = string(r.Rows[0][0])
		}
		const enough = 80
		if x := []rune(v); len(x) > enough {
			v = string(x[:enough]) + "…"
		}
		values = append(values, v)
	}
	return "(" + strings.Join(names, ", ") + ") = (" + strings.Join(values, ", ") + ")"
}

// wrap gives an error its code.
func (s *Sink) wrap(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errs.As(err); ok {
		return err
	}
	server := s.opts.Config.Server()
	var refused *pgconn.PgError
	switch {
	case !errors.As(err, &refused):
		return errs.New(errs.TargetUnreachable, "lost %s: %w", server, err).Because(err)
	case postgres.IsFenced(err):
		return errs.New(errs.Fenced, "%s refused generation %d: %s", server, s.gen, refused.Message).Because(err).
			WithHint("another weir took the pipeline over")
	case pg.Passing(refused):
		e := errs.New(errs.TargetUnreachable, "%s: %s", server, refused.Message).Because(err)
		if hint := pg.RefusedHint(err); hint != "" {
			e = e.WithHint("%s", hint)
		}
		return e
	}
	e := errs.New(errs.TargetRejected, "%s refused what it was sent: %s", server, refused.Message).Because(err).WithHint(hintMend)
	if refused.TableName != "" {
		e.Message = fmt.Sprintf("table %s.%s refused a change: %s", refused.SchemaName, refused.TableName, refused.Message)
	}
	e.Detail = strings.TrimSpace(refused.Detail + " " + refused.Where)
	return e
}
