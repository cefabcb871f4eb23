// Package typed reads tables of a Postgres database as a source of queries: typed columns in place of the server's own
// encoding, whole transactions, and one consistent first copy.
//
// It stands on the Source of mirrors, which knows how to read a database: copy, slot, publication, positions, restarts.
// This package asks it for the tables and columns that a query needs and turns what it says into batches.
//
// # What a table gives
//
// A table with a key gives changes by key, for operator.Normalize: the row that a key has now (+1), or that it has none
// any more (-1, and only the key's columns count). The server tells no old rows of such a table, and leaves out large
// values that an update does not change; a last column, BIGINT NOT NULL, tells which: see Table.Types and
// operator.Normalize. A table without a key has REPLICA IDENTITY FULL and gives a changelog: whole rows that come and go.
//
// # The first copy
//
// The slot's own snapshot holds exactly what the stream does not bring. All tables are read under it, and no boundary is
// given before the last of them is read: the copy is one epoch, views show nothing of it until it is complete, and then
// what the database had at one moment. So tables agree with each other in every cut, also in the first. The price is that
// a crash meanwhile has the copy begin again, and that other sources of the pipeline wait for it.
//
// # What stops it
//
// A change of shape of a column in use, a dropped table and TRUNCATE end the source with an error that names the table:
// what has been computed from it would be wrong from there on. Changes of columns that the query does not use are none.
package typed

import (
	"context"
	"io"
	"time"

	"github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// Options configures a Source.
type Options struct {
	Config            *pg.Config
	Slot, Publication string // both required
	// KeepPublication: the publication is somebody else's; tables are not added to it.
	KeepPublication bool
	// LatestOffset: no first copy; the stream begins at the end of the log (scan.startup.mode).
	LatestOffset bool
	Tables       []Table
	// HeartbeatPeriod is how often an idle position moves, StatusPeriod how often the server is told of it; default 10 s.
	HeartbeatPeriod, StatusPeriod time.Duration
}

// Table is a table as it is asked for.
type Table struct {
	Schema, Name string
	// Columns are those that are wanted, by the names that they have in the database; of a table with a key, the key's
	// are among them.
	Columns row.Schema
	// Key are the columns of the primary key, by their places in Columns; nil: the table has none.
	Key []int
	// Metadata are the columns that are no columns of the database but something about the row: one of MetadataKeys.
	Metadata map[int]string
}

// Types are those of the batches that the table gives: its columns, and with a key the mask of what was not sent.
func (t Table) Types() []row.Type {
	types := t.Columns.Types()
	if t.Key != nil {
		types = append(types, row.Type{Kind: row.BigInt, NotNull: true})
	}
	return types
}

func (t Table) String() string { return pg.DottedName(t.Schema, t.Name) }

// Source implements dataflow.Source.
type Source struct {
	env    *env.Env
	opts   Options
	inner  *postgres.Source
	life   context.Context // of ranges, which are read over several calls
	stop   context.CancelFunc
	tables []*table
	byName map[[2]string]int
	byRel  map[*changelog.Relation]*shape

	ranges     []dataflow.Range // still to be copied
	copied     bool
	consistent bool                   // boundaries may be given
	pending    []dataflow.StateChange // to be stored with the next boundary
	stream     *copyStream            // the range that is being read

	message   dataflow.Message // of the stream, being turned into batches
	entry     int              // how far
	unflushed bool             // it is turned, and its last batches and its boundary are still to be given
	lent      int              // table of the batch that was given last, or -1
}

// table is a Table with what is under construction.
type table struct {
	Table
	oid   uint32
	batch *row.Builder
	read  []reader // by column
}

// New returns a Source that Open connects.
func New(e *env.Env, opts Options) *Source {
	s := &Source{env: e.With("part", "source"), opts: opts, byName: map[[2]string]int{}, byRel: map[*changelog.Relation]*shape{}, lent: -1}
	for i := range opts.Tables {
		t := &table{Table: opts.Tables[i]}
		t.batch = row.NewBuilder(t.Types())
		t.batch.Reset()
		s.tables = append(s.tables, t)
		s.byName[[2]string{t.Schema, t.Name}] = i
	}
	return s
}

// Inner is the source that reads the database, for what it tells about lag and progress. It is nil before Open.
func (s *Source) Inner() *postgres.Source { return s.inner }

// Open implements dataflow.Source.
func (s *Source) Open(ctx context.Context, state dataflow.State) error {
	s.life, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	identity, err := s.check(ctx)
	if err != nil {
		return err
	}
	s.inner = postgres.New(s.env, postgres.Options{
		Config: s.opts.Config, Slot: s.opts.Slot, Publication: s.opts.Publication, KeepPublication: s.opts.KeepPublication,
		Includes: func(schema, name string) bool { _, ok := s.byName[[2]string{schema, name}]; return ok },
		Excluded: func(schema, name, column string) bool {
			i, ok := s.byName[[2]string{schema, name}]
			return ok && s.tables[i].Columns.Index(column) < 0 && !identity[i][column]
		},
		Text: true, NoCopy: s.opts.LatestOffset, HeartbeatPeriod: s.opts.HeartbeatPeriod, StatusPeriod: s.opts.StatusPeriod,
	})
	if err := s.inner.Open(ctx, state); err != nil {
		return err
	}
	// What is stored was stored at a boundary, which is behind the copy.
	s.copied, s.consistent = s.inner.Copied(), len(state) > 0
	if s.copied {
		return nil
	}
	var initial []dataflow.StateChange
	if s.ranges, initial, err = s.inner.Ranges(ctx); err != nil {
		return err
	}
	s.pending = append(s.pending, initial...)
	return nil
}

// Read implements dataflow.Source.
func (s *Source) Read(ctx context.Context) (dataflow.Message, error) {
	if s.lent >= 0 {
		s.tables[s.lent].batch.Reset()
		s.lent = -1
	}
	for !s.copied {
		if m, ok, err := s.copy(ctx); ok || err != nil {
			return m, err
		}
	}
	for {
		if s.message.Rows != nil || s.unflushed {
			if m, ok, err := s.turn(); ok || err != nil {
				return m, err
			}
		}
		m, err := s.inner.Read(ctx)
		if err != nil {
			return dataflow.Message{}, err
		}
		s.message, s.entry = m, 0
		s.pending = append(s.pending, m.State...)
		switch m.Kind {
		case dataflow.KindRows:
		case dataflow.KindMark:
			if m.Consistent {
				s.consistent = true
			}
			s.unflushed = m.Boundary
		case dataflow.KindEnd:
			return m, nil
		case dataflow.KindSchema:
			if err := s.reshaped(m.Schema); err != nil {
				return dataflow.Message{}, err
			}
		case dataflow.KindTruncate:
			if err := s.truncated(m.Truncate); err != nil {
				return dataflow.Message{}, err
			}
		case dataflow.KindChunk:
			return dataflow.Message{}, errs.New(errs.SourceSchemaChange, "table %s was changed while it was copied", m.Chunk.Rel).
				WithHint("the copy begins again by itself; leave the shape of the table alone meanwhile")
		default:
			return dataflow.Message{}, errs.New(errs.EngineInternal, "the source of %s gave a message of kind %d", s.opts.Config.Server(), m.Kind)
		}
	}
}

// copy reads the first copy on. When it says false, nothing is to be given yet.
func (s *Source) copy(ctx context.Context) (dataflow.Message, bool, error) {
	if s.stream != nil {
		return s.copyRange(ctx)
	}
	if len(s.ranges) > 0 {
		r := s.ranges[0]
		stream, err := s.inner.OpenRange(s.life, 0, r)
		if err != nil {
			return dataflow.Message{}, false, err
		}
		i, ok := s.byName[[2]string{r.Rel.Schema, r.Rel.Name}]
		if !ok {
			return dataflow.Message{}, false, errs.New(errs.EngineInternal, "table %s is copied and was not asked for", r.Rel)
		}
		s.stream = &copyStream{s: stream, table: i, places: s.tables[i].places(stream.Columns())}
		return dataflow.Message{}, false, nil
	}
	state, err := s.inner.CopyDone(ctx)
	if err != nil {
		return dataflow.Message{}, false, err
	}
	s.pending = append(s.pending, state...)
	s.copied = true
	return dataflow.Message{}, false, nil
}

// copyRange gives the next batch of the range that is being read.
func (s *Source) copyRange(ctx context.Context) (dataflow.Message, bool, error) {
	t := s.tables[s.stream.table]
	err := s.stream.fill(ctx, t)
	if err != nil && err != io.EOF {
		return dataflow.Message{}, false, err
	}
	if err == io.EOF {
		if err := s.stream.s.Close(); err != nil {
			return dataflow.Message{}, false, err
		}
		s.pending = append(s.pending, s.inner.RangeState(s.ranges[0], s.stream.s.Rows())...)
		s.ranges = s.ranges[1:]
		s.stream = nil
	}
	if t.batch.Len == 0 {
		return dataflow.Message{}, false, nil
	}
	return s.give(s.byName[[2]string{t.Schema, t.Name}], false), true, nil
}

// give lends the batch of table i.
func (s *Source) give(i int, boundary bool) dataflow.Message {
	s.lent = i
	m := dataflow.Message{Kind: dataflow.KindBatch, Table: i, Batch: s.tables[i].batch.Seal(), Commit: s.message.Commit}
	if boundary {
		s.end(&m)
	}
	return m
}

// end makes m the last message of what was read.
func (s *Source) end(m *dataflow.Message) {
	s.unflushed = false
	if m.Boundary = s.consistent && s.message.Boundary; m.Boundary {
		m.State, s.pending = s.pending, nil
	}
}

// turn turns the stream's message into batches. When it says false, nothing is left of it.
func (s *Source) turn() (dataflow.Message, bool, error) {
	if rows := s.message.Rows; rows != nil {
		for ; s.entry < len(rows.Entries); s.entry++ {
			full, err := s.change(rows, &rows.Entries[s.entry])
			if err != nil {
				return dataflow.Message{}, false, err
			}
			if full >= 0 {
				s.entry++
				return s.give(full, false), true, nil
			}
		}
		rows.Release()
		s.message.Rows, s.unflushed = nil, true
	}
	last := -1
	for i, t := range s.tables {
		if t.batch.Len == 0 {
			continue
		}
		if last >= 0 {
			return s.give(last, false), true, nil
		}
		last = i
	}
	if last >= 0 {
		return s.give(last, true), true, nil
	}
	m := dataflow.Message{Kind: dataflow.KindMark, Commit: s.message.Commit}
	s.end(&m)
	return m, m.Boundary, nil
}

// Confirm implements dataflow.Source.
func (s *Source) Confirm(state []dataflow.StateChange) { s.inner.Confirm(state) }

// Close implements dataflow.Source.
func (s *Source) Close(ctx context.Context) error {
	if s.stop != nil {
		s.stop()
	}
	if s.inner == nil {
		return nil
	}
	if s.stream != nil {
		_ = s.stream.s.Close() // its goroutine may wait for somebody to take what it has read
	}
	return s.inner.Close(ctx)
}

var _ dataflow.Source = (*Source)(nil)
