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
// A table is copied in ranges of its integer key, and each is a transaction of this source: behind it a cut may be made, and
// stores that the range was read. So a copy takes the memory of a range, checkpoints are made during it, and after a crash
// only what was not read is read. A table without a one-column integer key is one range. Where that is long, or the keys of
// a range lie closer than it was thought, a cut may come in its midst; the range is then emptied and read anew if a crash
// follows (Emptied). That needs a table with a key; one without is read in one epoch.
//
// The ranges of a start are read under one view of the database; the first start has the slot's own, which holds exactly
// what the stream does not bring, later ones leave out of the stream what their view saw (package postgres). Tables agree
// with each other when the stream is past all of that, which a message tells (Consistent, dataflow.Agreeing): until then
// nobody sees what is computed of them, so every epoch that can be seen is of one moment of the database.
//
// # What changes in the database
//
// TRUNCATE empties a table with a key at its place in the transaction. Of a table without one nobody knows the rows: it
// stops the source. Columns that are not used may come and go. A column in use may get a type that holds the values of the
// old one in the same form (INT to BIGINT, VARCHAR(10) to TEXT, NUMERIC(8, 2) to NUMERIC(12, 2)), as long as the declared
// type takes them: the rows that are there do not change by that, unless the statement changes them by USING, which the log
// does not tell. Any other change of a column in use, and a dropped table, end the source with an error that names them:
// what has been computed would be wrong from there on.
package typed

import (
	"context"
	"sync/atomic"
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
	// SnapshotOnly: the source ends behind the first copy, and takes slot and publication away when that is stored.
	SnapshotOnly bool
	// RangeBytes and RangeRows are about how large a range of the first copy is, whichever is less; default 8 MiB, and any
	// number of rows.
	RangeBytes, RangeRows int64
	// PartialRows is how many rows of a range are read before a cut is allowed in its midst; default 65,536.
	PartialRows int
	Tables      []Table
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

	copied  bool
	agrees  bool                   // the tables do, with each other
	pending []dataflow.StateChange // to be stored with the next boundary
	copier  copier
	next    []dataflow.Message // to be given before anything else
	stored  atomic.Bool        // that the tables agree

	message   dataflow.Message // of the stream, being turned into batches
	entry     int              // how far
	tx        int              // whose the entry is, of the transactions that end in the message
	unflushed bool             // it is turned, and its last batches and its boundary are still to be given
	lent      int              // table of the batch that was given last, or -1
}

// table is a Table with what is under construction.
type table struct {
	Table
	oid    uint32
	filter string // SQL of the condition under which rows are published; "": all are
	batch  *row.Builder
	read   []reader // by column
	op     int64    // µs since 1970 at which the transaction at hand was committed; 0 in the first copy
}

// New returns a Source that Open connects.
func New(e *env.Env, opts Options) *Source {
	if opts.RangeBytes == 0 {
		opts.RangeBytes = 8 << 20
	}
	if opts.PartialRows == 0 {
		opts.PartialRows = 1 << 16
	}
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
	if s.opts.SnapshotOnly && postgres.Agreed(state) {
		s.agrees = true
		s.stored.Store(true)
		return nil // it has ended; the slot is gone, or goes with Close
	}
	identity, err := s.check(ctx)
	if err != nil {
		return err
	}
	s.inner = postgres.New(s.env, postgres.Options{
		Config: s.opts.Config, Slot: s.opts.Slot, Publication: s.opts.Publication, KeepPublication: s.opts.KeepPublication,
		Includes: func(schema, name string) bool { _, ok := s.byName[[2]string{schema, name}]; return ok },
		Excluded: func(schema, name, column string) bool {
			i, ok := s.byName[[2]string{schema, name}]
			// What somebody else's publication sends comes anyway. That a column is left out, rather than not read, would only make
			// the source careful about what may show under another name.
			return ok && !s.opts.KeepPublication && s.tables[i].Columns.Index(column) < 0 && !identity[i][column]
		},
		Filter: func(schema, name string) string {
			if i, ok := s.byName[[2]string{schema, name}]; ok {
				return s.tables[i].filter
			}
			return ""
		},
		Text: true, NoCopy: s.opts.LatestOffset, RangeBytes: s.opts.RangeBytes, RangeRows: s.opts.RangeRows, HeartbeatPeriod: s.opts.HeartbeatPeriod, StatusPeriod: s.opts.StatusPeriod,
	})
	if err := s.inner.Open(ctx, state); err != nil {
		return err
	}
	s.copied, s.agrees = s.inner.Copied(), s.inner.Agrees()
	if s.copied {
		return nil
	}
	return s.beginCopy(ctx, state)
}

// Agrees implements dataflow.Agreeing.
func (s *Source) Agrees() bool { return s.agrees }

// Read implements dataflow.Source.
func (s *Source) Read(ctx context.Context) (dataflow.Message, error) {
	if s.lent >= 0 {
		s.tables[s.lent].batch.Reset()
		s.lent = -1
	}
	for {
		if len(s.next) > 0 {
			m := s.next[0]
			s.next = s.next[1:]
			return m, nil
		}
		if s.agrees && s.opts.SnapshotOnly && s.message.Rows == nil && !s.unflushed {
			return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, nil
		}
		if !s.copied {
			if m, ok, err := s.copy(ctx); ok || err != nil {
				return m, err
			}
			continue
		}
		if s.message.Rows != nil || s.unflushed {
			if m, ok, err := s.turn(); ok || err != nil {
				return m, err
			}
		}
		m, err := s.inner.Read(ctx)
		if err != nil {
			return dataflow.Message{}, err
		}
		s.message, s.entry, s.tx = m, 0, 0
		s.pending = append(s.pending, m.State...)
		switch m.Kind {
		case dataflow.KindRows:
		case dataflow.KindMark:
			s.agrees = s.agrees || m.Consistent
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
			if err := s.chunk(m.Chunk); err != nil {
				return dataflow.Message{}, err
			}
		default:
			return dataflow.Message{}, errs.New(errs.EngineInternal, "the source of %s gave a message of kind %d", s.opts.Config.Server(), m.Kind)
		}
	}
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
	m.Consistent = s.message.Consistent
	if m.Boundary = s.message.Boundary; m.Boundary {
		m.State, s.pending = s.pending, nil
	}
}

// turn turns the stream's message into batches. When it says false, nothing is left of it.
func (s *Source) turn() (dataflow.Message, bool, error) {
	if rows := s.message.Rows; rows != nil {
		for ; s.entry < len(rows.Entries); s.entry++ {
			for s.tx < len(rows.Txs) && rows.Txs[s.tx].End <= s.entry {
				s.tx++
			}
			commit := s.message.Commit // of one whose end is in a later message
			if s.tx < len(rows.Txs) {
				commit = rows.Txs[s.tx].Commit
			}
			full, err := s.change(rows, &rows.Entries[s.entry], commit)
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
func (s *Source) Confirm(state []dataflow.StateChange) {
	if postgres.AgreedBy(state) {
		s.stored.Store(true)
	}
	if s.inner != nil {
		s.inner.Confirm(state)
	}
}

// Close implements dataflow.Source.
func (s *Source) Close(ctx context.Context) error {
	if s.stop != nil {
		s.stop()
	}
	s.copier.close()
	if s.inner != nil {
		if err := s.inner.Close(ctx); err != nil {
			return err
		}
	}
	if !s.opts.SnapshotOnly || !s.stored.Load() {
		return nil
	}
	conn, err := pg.ConnectPgx(ctx, s.env, s.opts.Config, pg.ConnectOptions{AppName: "weir source end"})
	if err != nil {
		s.env.Log.Warn("the slot of a copy that is complete stays", "slot", s.opts.Slot, "error", err)
		return nil
	}
	defer func() { _ = conn.Close(ctx) }()
	publication := s.opts.Publication
	if s.opts.KeepPublication {
		publication = ""
	}
	if err := postgres.Drop(ctx, conn, s.opts.Slot, publication); err != nil {
		s.env.Log.Warn("the slot of a copy that is complete stays", "slot", s.opts.Slot, "error", err)
	}
	return nil
}

var (
	_ dataflow.Source   = (*Source)(nil)
	_ dataflow.Agreeing = (*Source)(nil)
)
