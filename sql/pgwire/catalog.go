package pgwire

import (
	"hash/fnv"
	"slices"
	"strings"

	"github.com/weirstream/weir/engine/row"
)

// The system catalog has two faces. Small tables of it are relations like the views, and queries over them are planned and
// run by the engine. psql's own queries use Postgres's functions and operators all over; they are known by their shape (see
// shapes.go).

// systemTable is a table of the catalog.
type systemTable struct {
	name   string
	schema row.Schema
	rows   func(x *session) *row.Batch
}

// oidOf is the object id of a view. It depends on the name alone, so that it is the same from one query to the next.
func oidOf(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return 16384 + h.Sum32()%1_000_000_000
}

const (
	publicOID = 2200
	systemOID = 11
	ownerOID  = 10
)

// views are the views by name. Of several of one name the first is shown.
func (x *session) views() []View {
	out := slices.Clone(x.server.opts.Views())
	slices.SortStableFunc(out, func(a, b View) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(out, func(a, b View) bool { return a.Name == b.Name })
}

func systemTables() []systemTable {
	str := row.Type{Kind: row.String}
	num := row.Type{Kind: row.BigInt}
	yes := row.Type{Kind: row.Boolean}
	table := func(name string, schema row.Schema, rows func(x *session) [][]any) systemTable {
		return systemTable{name, schema, func(x *session) *row.Batch { return batchOf(schema.Types(), rows(x)) }}
	}
	none := func(*session) [][]any { return nil }
	eachView := func(f func(v View) []any) func(x *session) [][]any {
		return func(x *session) (out [][]any) {
			for _, v := range x.views() {
				out = append(out, f(v))
			}
			return out
		}
	}
	eachColumn := func(f func(v View, i int, c column) []any) func(x *session) [][]any {
		return func(x *session) (out [][]any) {
			for _, v := range x.views() {
				for i, c := range columnsOf(v.Schema) {
					out = append(out, f(v, i, c))
				}
			}
			return out
		}
	}
	// of lists tables, or views.
	of := func(tables bool) func(x *session) [][]any {
		return func(x *session) (out [][]any) {
			for _, v := range x.views() {
				if v.Table == tables {
					out = append(out, []any{schema, v.Name, "weir"})
				}
			}
			return out
		}
	}
	return []systemTable{
		table("pg_class", row.Schema{{Name: "oid", Type: num}, {Name: "relname", Type: str}, {Name: "relnamespace", Type: num}, {Name: "relkind", Type: str}, {Name: "relowner", Type: num}, {Name: "relnatts", Type: num}},
			eachView(func(v View) []any {
				return []any{oidOf(v.Name), v.Name, publicOID, relkind(v), ownerOID, len(v.Schema)}
			})),
		table("pg_namespace", row.Schema{{Name: "oid", Type: num}, {Name: "nspname", Type: str}, {Name: "nspowner", Type: num}},
			func(*session) [][]any {
				return [][]any{{systemOID, "pg_catalog", ownerOID}, {publicOID, schema, ownerOID}}
			}),
		table("pg_attribute", row.Schema{{Name: "attrelid", Type: num}, {Name: "attname", Type: str}, {Name: "atttypid", Type: num}, {Name: "attnum", Type: num}, {Name: "attnotnull", Type: yes}, {Name: "atttypmod", Type: num}, {Name: "attisdropped", Type: yes}},
			eachColumn(func(v View, i int, c column) []any {
				return []any{oidOf(v.Name), c.name, c.pg.oid, i + 1, c.typ.NotNull, int64(c.pg.mod), false}
			})),
		table("pg_type", row.Schema{{Name: "oid", Type: num}, {Name: "typname", Type: str}, {Name: "typnamespace", Type: num}, {Name: "typlen", Type: num}, {Name: "typtype", Type: str}},
			func(*session) (out [][]any) {
				for _, t := range []struct {
					oid  uint32
					name string
					size int
				}{{oidBool, "bool", 1}, {oidBytea, "bytea", -1}, {oidName, "name", 64}, {oidInt8, "int8", 8}, {oidInt2, "int2", 2}, {oidInt4, "int4", 4}, {oidText, "text", -1},
					{oidOID, "oid", 4}, {oidJSON, "json", -1}, {oidFloat4, "float4", 4}, {oidFloat8, "float8", 8}, {oidBPChar, "bpchar", -1}, {oidVarchar, "varchar", -1}, {oidDate, "date", 4},
					{oidTime, "time", 8}, {oidTimestamp, "timestamp", 8}, {oidTimestamptz, "timestamptz", 8}, {oidInterval, "interval", 16}, {oidNumeric, "numeric", -1}, {oidUUID, "uuid", 16}} {
					out = append(out, []any{t.oid, t.name, systemOID, t.size, "b"})
				}
				return out
			}),
		table("pg_matviews", row.Schema{{Name: "schemaname", Type: str}, {Name: "matviewname", Type: str}, {Name: "matviewowner", Type: str}},
			of(false)),
		table("pg_tables", row.Schema{{Name: "schemaname", Type: str}, {Name: "tablename", Type: str}, {Name: "tableowner", Type: str}}, of(true)),
		table("pg_views", row.Schema{{Name: "schemaname", Type: str}, {Name: "viewname", Type: str}, {Name: "viewowner", Type: str}}, none),
		table("pg_database", row.Schema{{Name: "oid", Type: num}, {Name: "datname", Type: str}, {Name: "datallowconn", Type: yes}, {Name: "datistemplate", Type: yes}},
			func(*session) [][]any { return [][]any{{1, database, true, false}} }),
		table("pg_indexes", row.Schema{{Name: "schemaname", Type: str}, {Name: "tablename", Type: str}, {Name: "indexname", Type: str}}, none),
		table("information_schema.schemata", row.Schema{{Name: "catalog_name", Type: str}, {Name: "schema_name", Type: str}},
			func(*session) [][]any { return [][]any{{database, schema}} }),
		table("information_schema.tables", row.Schema{{Name: "table_catalog", Type: str}, {Name: "table_schema", Type: str}, {Name: "table_name", Type: str}, {Name: "table_type", Type: str}},
			eachView(func(v View) []any {
				if v.Table {
					return []any{database, schema, v.Name, "BASE TABLE"}
				}
				return []any{database, schema, v.Name, "VIEW"}
			})),
		table("information_schema.columns", row.Schema{{Name: "table_catalog", Type: str}, {Name: "table_schema", Type: str}, {Name: "table_name", Type: str}, {Name: "column_name", Type: str},
			{Name: "ordinal_position", Type: num}, {Name: "is_nullable", Type: str}, {Name: "data_type", Type: str}},
			eachColumn(func(v View, i int, c column) []any {
				nullable := "YES"
				if c.typ.NotNull {
					nullable = "NO"
				}
				name, _, _ := strings.Cut(typeName(c.pg.oid, -1), "(")
				return []any{database, schema, v.Name, c.name, i + 1, nullable, name}
			})),
	}
}
