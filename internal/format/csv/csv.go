// Package csv reads and writes rows as comma separated values, with the options of Flink's csv format.
//
// A field without quotes is NULL if it is the null literal, or if it is empty and of a type whose values are never empty:
// every one but strings and bytes. So what the encoder writes reads back the same, NULL strings included where a null
// literal is set. Within arrays and rows there are no quotes: an array of one empty string reads back as one without any.
package csv

import (
	"io"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format"
	"github.com/weirstream/weir/internal/with"
)

// Options configures a format. DefaultOptions has Flink's defaults.
type Options struct {
	Delimiter         byte
	Quote             byte // 0: quotes are characters like others
	Escape            byte // 0: a quote within quotes is doubled
	ArrayDelimiter    byte // between the elements of an ARRAY and the fields of a ROW
	AllowComments     bool // lines that begin with # do not count
	IgnoreParseErrors bool // a bad field is NULL, a bad record is left out
	HasNull           bool
	Null              string // how NULL is written, without quotes
	// Header: the first line of a file names its columns, in any order; writing begins with such a line.
	Header bool
	Zone   *time.Location // of a TIMESTAMP_LTZ that is written without a zone; default UTC
}

// DefaultOptions are those of a table that sets none.
func DefaultOptions() Options { return Options{Delimiter: ',', Quote: '"', ArrayDelimiter: ';'} }

// ParseOptions reads the options csv.* of a table's WITH clause.
func ParseOptions(c *with.Clause) Options {
	o := DefaultOptions()
	o.Delimiter = c.Char("csv.field-delimiter", o.Delimiter)
	o.Quote = c.Char("csv.quote-character", o.Quote)
	if c.Bool("csv.disable-quote-character", false) {
		if c.Has("csv.quote-character") {
			c.Fail("csv.disable-quote-character", errs.New(errs.UnknownOption, "'csv.quote-character' is set although 'csv.disable-quote-character' is true").WithHint("leave one of the two out"))
		}
		o.Quote = 0
	}
	if o.Escape = c.Char("csv.escape-character", 0); o.Escape == o.Quote {
		o.Escape = 0 // doubling is what that says
	}
	o.ArrayDelimiter = c.Char("csv.array-element-delimiter", o.ArrayDelimiter)
	o.AllowComments = c.Bool("csv.allow-comments", false)
	o.IgnoreParseErrors = c.Bool("csv.ignore-parse-errors", false)
	o.HasNull = c.Has("csv.null-literal")
	o.Null = c.Text("csv.null-literal", "")
	o.Header = c.Bool("csv.header", false)
	for _, p := range [...]struct {
		key string
		b   byte
	}{{"csv.quote-character", o.Quote}, {"csv.escape-character", o.Escape}, {"csv.array-element-delimiter", o.ArrayDelimiter}} {
		// The array delimiter may be the field delimiter by default, where nothing is nested.
		if p.b == o.Delimiter && c.Has(p.key) || p.b == '\n' || p.b == '\r' {
			c.Fail(p.key, errs.New(errs.UnknownOption, "option '%s' is a character that ends a field", p.key).WithHint("choose another one"))
		}
	}
	if o.Delimiter == '\n' || o.Delimiter == '\r' {
		c.Fail("csv.field-delimiter", errs.New(errs.UnknownOption, "option 'csv.field-delimiter' is a character that ends a line").WithHint("choose another one"))
	}
	return o
}

// Format is CSV files of a table.
type Format struct {
	schema  row.Schema
	columns []int
	opts    Options
}

var _ format.Format = (*Format)(nil)

// New returns the format for files with the columns of schema. Reading gives the columns whose places are given, in that
// order; nil means all.
func New(schema row.Schema, columns []int, opts Options) (*Format, error) {
	for _, f := range schema {
		if !supported(f.Type, true) {
			return nil, errs.New(errs.NotBuiltYet, "csv cannot hold column %s of type %s", f.Name, f.Type).
				WithHint("scalars, arrays and rows of scalars can be written; use json for the others")
		}
		if (f.Type.Kind == row.Array || f.Type.Kind == row.Struct) && opts.ArrayDelimiter == opts.Delimiter {
			return nil, errs.New(errs.UnknownOption, "csv cannot hold column %s: its elements and the fields have the same delimiter %q", f.Name, opts.Delimiter).
				WithHint("set 'csv.array-element-delimiter'")
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

func supported(t row.Type, nested bool) bool {
	switch t.Kind {
	case row.Map, row.Multiset, row.Null:
		return false
	case row.Array:
		return nested && supported(*t.Elem, false)
	case row.Struct:
		for _, f := range t.Fields {
			if !nested || !supported(f.Type, false) {
				return false
			}
		}
	}
	return true
}

// Extension is csv.
func (f *Format) Extension() string { return "csv" }

// NewReader reads a file.
func (f *Format) NewReader(file format.File, at format.Position) (format.Reader, error) {
	return format.NewTextReader(f.NewDecoder(), file, at)
}

// NewWriter writes a file.
func (f *Format) NewWriter(w io.Writer) (format.Writer, error) {
	return format.NewTextWriter(f.NewEncoder(), w), nil
}
