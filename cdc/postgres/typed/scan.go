package typed

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
	"github.com/weirstream/weir/internal/pg"
)

// Scan reads tables as they are at one moment, and ends. Nothing has to be set up at the server, and views can be read,
// too. It gives no boundary before the last row, so that a pipeline has all of it or nothing; what it has read once is
// not read again by later starts.
type Scan struct {
	env    *env.Env
	config *pg.Config
	tables []*table
	conn   *pgx.Conn
	rows   pgx.Rows
	next   int // table to be read
	lent   bool
	done   bool
	told   bool // that it is done
}

// scanned is the state's key that says that everything was read.
const scanned = "scanned"

// NewScan returns a Scan that Open connects. Keys of the tables are not looked at.
func NewScan(e *env.Env, config *pg.Config, tables []Table) *Scan {
	s := &Scan{env: e.With("part", "source"), config: config}
	for _, x := range tables {
		x.Key = nil
		t := &table{Table: x, batch: row.NewBuilder(x.Types())}
		t.batch.Reset()
		s.tables = append(s.tables, t)
	}
	return s
}

// Open implements dataflow.Source.
func (s *Scan) Open(ctx context.Context, state dataflow.State) error {
	if s.done = state[scanned] != nil; s.done {
		s.told = true
		return nil
	}
	var err error
	if s.conn, err = pg.ConnectPgx(ctx, s.env, s.config, pg.ConnectOptions{AppName: "weir scan"}); err != nil {
		return errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", s.config.Server(), err).Because(err)
	}
	if _, err := s.conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return s.lost(err)
	}
	for _, t := range s.tables {
		if err := s.look(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (s *Scan) lost(err error) error {
	return errs.New(errs.SourceUnreachable, "source %s: %w", s.config.Server(), err).Because(err)
}

// look decides how a table's columns are read.
func (s *Scan) look(ctx context.Context, t *table) error {
	var oid *uint32
	if err := s.conn.QueryRow(ctx, `SELECT to_regclass($1::text)::oid`, pg.Qualified(t.Schema, t.Name)).Scan(&oid); err != nil {
		return s.lost(err)
	}
	if oid == nil {
		return errs.New(errs.SourcePreflight, "there is no table %s in %s", t, s.config.Server()).WithHint("'table-name' = 'schema.table' names it, and case counts")
	}
	specs, err := pg.PeekShapes(ctx, s.conn, []uint32{*oid})
	if err != nil {
		return s.lost(err)
	}
	if len(specs) == 0 {
		return errs.New(errs.SourcePreflight, "%s in %s is no table", t, s.config.Server())
	}
	t.read = make([]reader, len(t.Columns))
	for c, col := range t.Columns {
		have := specs[0].Column(col.Name)
		if have == nil {
			var all []string
			for _, x := range specs[0].Columns {
				all = append(all, x.Name)
			}
			e := errs.New(errs.SQLUnknownName, "table %s has no column %s", t, col.Name).WithHint("it has %s; case counts", strings.Join(all, ", "))
			if hint := nearest.Hint(col.Name, all); hint != "" {
				e = e.WithHint("%s", hint)
			}
			return e
		}
		if t.read[c], err = readerOf(have, col.Type); err != nil {
			return errs.New(errs.SQLTypeMismatch, "column %s of table %s is %s in the database and declared as %s", col.Name, t, have.FormattedType, col.Type).WithHint("%v", err)
		}
	}
	return nil
}

// Read implements dataflow.Source.
func (s *Scan) Read(ctx context.Context) (dataflow.Message, error) {
	for !s.done {
		if s.rows == nil {
			if s.next == len(s.tables) {
				s.done = true
				break
			}
			if err := s.begin(ctx, s.tables[s.next]); err != nil {
				return dataflow.Message{}, err
			}
		}
		t := s.tables[s.next]
		if s.lent {
			t.batch.Reset()
			s.lent = false
		}
		full, err := s.fill(t)
		if err != nil {
			return dataflow.Message{}, err
		}
		table := s.next
		if !full {
			s.rows = nil
			s.next++
		}
		if t.batch.Len > 0 {
			s.lent = full
			return dataflow.Message{Kind: dataflow.KindBatch, Table: table, Batch: t.batch.Seal()}, nil
		}
	}
	if !s.told {
		s.told = true
		return dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: []dataflow.StateChange{{Key: scanned, Value: []byte{1}}}}, nil
	}
	return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, nil
}

func (s *Scan) begin(ctx context.Context, t *table) (err error) {
	var cols []string
	for _, c := range t.Columns {
		cols = append(cols, pg.Ident(c.Name))
	}
	sql := "SELECT " + strings.Join(cols, ", ") + " FROM " + pg.Qualified(t.Schema, t.Name)
	if s.rows, err = s.conn.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		return s.lost(err)
	}
	return nil
}

// fill reads rows until the batch is full.
func (s *Scan) fill(t *table) (full bool, err error) {
	for t.batch.Len < row.MaxBatch {
		if !s.rows.Next() {
			if err := s.rows.Err(); err != nil {
				return false, s.lost(fmt.Errorf("read table %s: %w", t, err))
			}
			return false, nil
		}
		for c, text := range s.rows.RawValues() {
			if err := t.read[c].append(t, c, text, text == nil); err != nil {
				return false, err
			}
		}
		t.endRow(1, 0)
	}
	return true, nil
}

// Confirm implements dataflow.Source.
func (s *Scan) Confirm([]dataflow.StateChange) {}

// Close implements dataflow.Source.
func (s *Scan) Close(ctx context.Context) error {
	if s.conn == nil {
		return nil
	}
	_ = s.conn.Close(ctx)
	return nil
}

var _ dataflow.Source = (*Scan)(nil)
