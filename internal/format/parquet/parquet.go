// Package parquet reads and writes rows as Apache Parquet files. Columns are scalars; reading takes the pages of the
// columns asked for only, and the types of the file are made those of the table where nothing can be lost by it.
package parquet

import (
	"cmp"
	"io"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format"
	"github.com/weirstream/weir/internal/with"
)

// Options configures a format.
type Options struct {
	Compression string // SNAPPY, the default, ZSTD, GZIP or UNCOMPRESSED
}

// ParseOptions reads the options parquet.* of a table's WITH clause.
func ParseOptions(c *with.Clause) Options {
	return Options{Compression: c.Choice("parquet.compression", "SNAPPY", "SNAPPY", "ZSTD", "GZIP", "UNCOMPRESSED")}
}

// Format is Parquet files of a table.
type Format struct {
	schema  row.Schema
	columns []int
	opts    Options
}

var _ format.Format = (*Format)(nil)

// New returns the format for files with the columns of schema, found by their names. Reading gives the columns whose
// places are given, in that order; nil means all.
func New(schema row.Schema, columns []int, opts Options) (*Format, error) {
	for _, f := range schema {
		switch f.Type.Kind {
		case row.Array, row.Map, row.Multiset, row.Struct, row.Null:
			return nil, errs.New(errs.NotBuiltYet, "parquet cannot hold column %s of type %s yet", f.Name, f.Type).WithHint("scalars can be written; use json for nested values")
		}
	}
	if columns == nil {
		columns = make([]int, len(schema))
		for i := range columns {
			columns[i] = i
		}
	}
	return &Format{schema, columns, opts}, nil
}

// Extension is parquet.
func (f *Format) Extension() string { return "parquet" }

func (f *Format) codec() compress.Codec {
	switch f.opts.Compression {
	case "ZSTD":
		return &parquet.Zstd
	case "GZIP":
		return &parquet.Gzip
	case "UNCOMPRESSED":
		return &parquet.Uncompressed
	}
	return &parquet.Snappy
}

// group is a file's columns in the order of the table, where the library would sort them by name.
type group struct {
	parquet.Group
	place map[string]int
}

// Fields are the columns.
func (g group) Fields() []parquet.Field {
	fields := g.Group.Fields()
	slices.SortFunc(fields, func(a, b parquet.Field) int { return cmp.Compare(g.place[a.Name()], g.place[b.Name()]) })
	return fields
}

// node is the type of a column in files that are written.
func node(t row.Type) parquet.Node {
	var n parquet.Node
	switch t.Kind {
	case row.Boolean:
		n = parquet.Leaf(parquet.BooleanType)
	case row.TinyInt:
		n = parquet.Int(8)
	case row.SmallInt:
		n = parquet.Int(16)
	case row.Int, row.IntervalMonths:
		n = parquet.Int(32)
	case row.BigInt, row.IntervalTime:
		n = parquet.Int(64)
	case row.Float:
		n = parquet.Leaf(parquet.FloatType)
	case row.Double:
		n = parquet.Leaf(parquet.DoubleType)
	case row.Decimal:
		physical := parquet.FixedLenByteArrayType(16)
		if t.Precision <= 9 {
			physical = parquet.Int32Type
		} else if t.Precision <= 18 {
			physical = parquet.Int64Type
		}
		n = parquet.Decimal(t.Scale, t.Precision, physical)
	case row.Bytes:
		n = parquet.Leaf(parquet.ByteArrayType)
	case row.Date:
		n = parquet.Date()
	case row.Time:
		n = parquet.TimeAdjusted(unit(t.Precision), false)
	case row.Timestamp, row.TimestampLTZ:
		n = parquet.TimestampAdjusted(unit(t.Precision), t.Kind == row.TimestampLTZ)
	case row.UUID:
		n = parquet.UUID()
	case row.JSON:
		n = parquet.JSON()
	default:
		n = parquet.String()
	}
	if n.Type().Kind() == parquet.ByteArray {
		// The library's choice, lengths apart from the bytes, is what several readers do not know or read wrongly (Flink's
		// and DuckDB's JSON); all know this one.
		n = parquet.Encoded(n, &parquet.Plain)
	}
	if !t.NotNull {
		n = parquet.Optional(n)
	}
	return n
}

func unit(precision int) parquet.TimeUnit {
	switch {
	case precision <= 3:
		return parquet.Millisecond
	case precision <= 6:
		return parquet.Microsecond
	}
	return parquet.Nanosecond
}

// rowsPerGroup bounds what a writer keeps in memory.
const rowsPerGroup = 128 << 10

// NewWriter begins a file. Its end, without which it cannot be read, is written by Close.
func (f *Format) NewWriter(w io.Writer) (format.Writer, error) {
	g := group{parquet.Group{}, map[string]int{}}
	for i, c := range f.schema {
		g.Group[c.Name], g.place[c.Name] = node(c.Type), i
	}
	out := parquet.NewGenericWriter[any](w, parquet.NewSchema("row", g), parquet.Compression(f.codec()), parquet.MaxRowsPerRowGroup(rowsPerGroup),
		parquet.CreatedBy("weir", "1", ""))
	return &writer{schema: f.schema, out: out}, nil
}
