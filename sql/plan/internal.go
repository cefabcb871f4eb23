package plan

import (
	"slices"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// internal makes a table of a CREATE TABLE without a connector.
func (b *binder) internal(t *table, s *parser.CreateTable) error {
	if len(s.Properties) > 0 {
		return b.fail(errs.SQLConnector, s.Properties[0].Key.Pos, "WITH names no connector").
			WithHint("'connector' = '...' says where the rows are; without WITH the table is kept here, and written with INSERT over psql")
	}
	for _, c := range s.Columns {
		if c.Computed != nil || c.Metadata != nil {
			return b.fail(errs.NotBuiltYet, c.Pos, "a computed or metadata column of a table without a connector is not built yet").
				WithHint("compute it in a view over the table")
		}
	}
	if s.PartitionedBy != nil || s.Distribution != nil {
		return b.fail(errs.NotBuiltYet, s.Pos, "PARTITIONED BY and DISTRIBUTED of a table without a connector are not built yet")
	}
	t.connector = TableConnector
	t.kind = Kind{Source: true, Changelog: true, Group: func(map[string]string) string { return "internal tables" }}
	return nil
}

// keep adds the rows of an internal table to what is kept and can be read.
func (b *binder) keep(views []*view, s *parser.CreateTable) []*view {
	name := s.Name.Last().Text
	o := b.catalog.objects[name]
	if o == nil || o.table == nil || o.table.connector != TableConnector {
		return views
	}
	views = slices.DeleteFunc(views, func(v *view) bool { return v.internal && v.name == name })
	return append(views, &view{name: name, rel: o.table.scan, internal: true, pos: o.table.pos})
}
