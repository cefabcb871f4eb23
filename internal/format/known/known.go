// Package known finds the file format that a table's option 'format' names.
package known

import (
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/format"
	"github.com/weirstream/weir/internal/format/csv"
	"github.com/weirstream/weir/internal/format/json"
	"github.com/weirstream/weir/internal/format/parquet"
	"github.com/weirstream/weir/internal/with"
)

// Parse reads 'format' and the options that belong to it. Columns are the places in schema of what reading gives; nil
// means all. A nil format comes with an error in c, or with the one returned.
func Parse(schema row.Schema, columns []int, c *with.Clause) (format.Format, error) {
	if c.Required("format") == "" {
		return nil, nil
	}
	switch c.Choice("format", "", "csv", "json", "parquet") {
	case "csv":
		return csv.New(schema, columns, csv.ParseOptions(c))
	case "parquet":
		return parquet.New(schema, columns, parquet.ParseOptions(c))
	case "json":
		return json.New(schema, columns, json.ParseOptions(c))
	}
	return nil, nil
}
