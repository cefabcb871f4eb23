// Package plan turns SQL into graphs: it resolves names and types, decides how each query is kept up to date, and says
// all of that in EXPLAIN.
package plan

import (
	"math/rand/v2"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// Program is what a file of SQL comes to: one graph with the sources that it reads, the sinks that it writes and the
// views that are served.
type Program struct {
	Graph   *dataflow.Graph
	Sources []Source
	Sinks   []Sink
	Views   []View
	// Objects are what the statements make, in order.
	Objects []Object
	// Settings are the SET statements, in order.
	Settings []*parser.Set
	// Warnings are about what works and may not be meant: state that grows without bound.
	Warnings []*errs.Error
	// Bounded: every source ends by itself.
	Bounded bool
}

// Source is a source that the graph reads: a database with several tables, a folder, a generator.
type Source struct {
	// Name tells the source's state from that of others over restarts.
	Name      string
	Connector string
	// Options are those of the tables' WITH that name the source; of all its tables they are the same.
	Options map[string]string
	Tables  []SourceTable
	// First: it ends by itself, and is read to its end before any other source: rows are looked up in it.
	First bool
	// Rows are those of VALUES, whose connector is called "values".
	Rows *row.Batch
	Pos  parser.Pos // of the first table
}

// SourceTable is a table of a source. Several uses of one table in the graph are one.
type SourceTable struct {
	Name    string
	Options map[string]string // all of WITH
	// Schema are the table's physical and metadata columns; Columns are those that the graph needs, in the order in which
	// it gets them.
	Schema   row.Schema
	Metadata map[int]string // column: its metadata key
	Columns  []int
	Key      []int // PRIMARY KEY
	// Filter is over Schema: a row for which it is FALSE or NULL changes nothing in the graph, which asks it again. nil:
	// every row may. A row for which it fails has to be given. A source may leave such rows out where it knows the whole row: inserts, and a first copy, if what comes
	// later of a row that was left out is a whole row, too.
	Filter expr.Expr
	// FilterByKey: Filter speaks of nothing but the key, so that a row that it leaves out never counts.
	FilterByKey bool
	// Unsent: the source gives changes by key, with one more column behind the others that tells what it left out; see
	// operator.Normalize.
	Unsent bool
	Pos    parser.Pos
}

// Types are the columns that the graph gets.
func (t *SourceTable) Types() []row.Type {
	types := make([]row.Type, len(t.Columns))
	for i, c := range t.Columns {
		types[i] = t.Schema[c].Type
	}
	if t.Unsent {
		types = append(types, row.Type{Kind: row.BigInt, NotNull: true})
	}
	return types
}

// Sink is a place that the graph writes to.
type Sink struct {
	Name      string
	Connector string
	Options   map[string]string
	Tables    []SinkTable
	Pos       parser.Pos
}

// SinkTable is a table of a sink.
type SinkTable struct {
	Name    string
	Options map[string]string
	Schema  row.Schema
	Key     []int
	// Append: it gets inserts only.
	Append      bool
	PartitionBy []int
	Pos         parser.Pos
}

// View is a materialized view that is served: its rows are those of the node, kept by the operator there.
type View struct {
	Name   string
	Node   int // an operator.Materialize
	Schema row.Schema
	Key    []int // nil: rows may be equal
	// Table: it is the rows of an internal table, which clients write.
	Table bool
}

// TableConnector is the connector of the one source of all internal tables, those without a connector of their own.
const TableConnector = "table"

// Object is a table or a view that a program has, or an INSERT.
type Object struct {
	Name string // of an INSERT that of its table
	Kind parser.ObjectKind
	// Connector is a table's; "" if it has none.
	Connector string
	// Reads are the tables and views that its definition names; an INSERT's own table is one of them.
	Reads []string
	// Added is which of the statements of Environment.Added it came from, from 1; 0: from the file.
	Added int
}

// ObjectInsert is the kind of an INSERT.
const ObjectInsert parser.ObjectKind = "INSERT"

// Kind is what a connector lets a table be.
type Kind struct {
	Source, Sink bool
	// Changelog: as a source it gives updates and deletes, too; Upsert: without the old row, so that the table's key makes
	// a changelog of it.
	Changelog, Upsert bool
	// SinkChangelog: as a sink it takes retractions; with a key, or also without one.
	SinkChangelog, SinkKeyless bool
	// Bounded tells, from a table's options, whether the source ends by itself.
	Bounded func(options map[string]string) bool
	// Group names the source or sink that a table belongs to: tables of one group are read or written through one reader
	// or writer. nil: each table is its own.
	Group func(options map[string]string) string
	// Check refuses options that the connector does not know or take; nil: none are checked.
	Check func(options map[string]string) *errs.Error
}

// Environment is what a file is planned against.
type Environment struct {
	// Connectors by name.
	Connectors map[string]Kind
	// Zone is the session's time zone; default UTC.
	Zone *time.Location
	// Parallelism decides nothing but which edges are worth cutting; default 1.
	Parallelism int
	// Now is the clock of a statement that is answered at once, in microseconds since 1970.
	Now int64
	// Added are statements that were added to the file after its pipeline had begun, one each, in order. They leave the
	// nodes of everything before them as they are: see added.go.
	Added []string
	// Rand feeds RAND and UUID where a statement is answered at once; nil: they cannot be used.
	Rand rand.Source
}
