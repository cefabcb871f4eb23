// Package json reads and writes rows as lines of JSON objects, with the options of Flink's json format.
//
// The decoder goes over a line once, writes the columns asked for into vectors and checks everything else on the way: a
// line that is not JSON is an error wherever the mistake is.
package json

import (
	"io"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format"
	"github.com/weirstream/weir/internal/with"
)

// NullKey is what the encoder does about a map's key that is NULL.
type NullKey uint8

// The ways.
const (
	FailNullKey NullKey = iota
	DropNullKey
)

// Options configures a format. The zero value has Flink's defaults.
type Options struct {
	IgnoreParseErrors  bool // a bad field is NULL, a bad line is left out
	FailOnMissingField bool // else a field that is not there is NULL
	ISO                bool // times are written with a T instead of a space; both are read
	IgnoreNullFields   bool // when writing
	NullKey            NullKey
	Zone               *time.Location // of a TIMESTAMP_LTZ that is written without a zone; default UTC
}

// ParseOptions reads the options json.* of a table's WITH clause.
func ParseOptions(c *with.Clause) Options {
	o := Options{
		IgnoreParseErrors:  c.Bool("json.ignore-parse-errors", false),
		FailOnMissingField: c.Bool("json.fail-on-missing-field", false),
		ISO:                c.Choice("json.timestamp-format.standard", "SQL", "SQL", "ISO-8601") == "ISO-8601",
		IgnoreNullFields:   c.Bool("json.encode.ignore-null-fields", false),
	}
	if c.Choice("json.map-null-key.mode", "FAIL", "FAIL", "DROP") == "DROP" {
		o.NullKey = DropNullKey
	}
	c.Bool("json.encode.decimal-as-plain-number", true) // they always are
	if o.IgnoreParseErrors && o.FailOnMissingField {
		c.Fail("json.fail-on-missing-field", errs.New(errs.UnknownOption, "'json.fail-on-missing-field' and 'json.ignore-parse-errors' cannot both be true").WithHint("leave one of the two out"))
	}
	return o
}

// Format is JSON files of a table.
type Format struct {
	schema  row.Schema
	columns []int
	opts    Options
}

var _ format.Format = (*Format)(nil)

// New returns the format for files of objects with the fields of schema. Reading gives the columns whose places are given,
// in that order; nil means all.
func New(schema row.Schema, columns []int, opts Options) (*Format, error) {
	for _, f := range schema {
		if !supported(f.Type) {
			return nil, errs.New(errs.NotBuiltYet, "json cannot hold column %s of type %s", f.Name, f.Type).WithHint("the keys of a MAP must be strings, numbers or times")
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

func supported(t row.Type) bool {
	switch t.Kind {
	case row.Null:
		return false
	case row.Array:
		return supported(*t.Elem)
	case row.Map, row.Multiset:
		key, value := row.MapTypes(t)
		switch key.Kind {
		case row.Array, row.Map, row.Multiset, row.Struct, row.Bytes, row.JSON:
			return false
		}
		return supported(key) && supported(value)
	case row.Struct:
		for _, f := range t.Fields {
			if !supported(f.Type) {
				return false
			}
		}
	}
	return true
}

// Extension is json.
func (f *Format) Extension() string { return "json" }

// NewReader reads a file.
func (f *Format) NewReader(file format.File, at format.Position) (format.Reader, error) {
	return format.NewTextReader(f.NewDecoder(), file, at)
}

// NewWriter writes a file.
func (f *Format) NewWriter(w io.Writer) (format.Writer, error) {
	return format.NewTextWriter(f.NewEncoder(), w), nil
}
