package pg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Publication is one as the catalog has it.
type Publication struct {
	Name      string
	Owned     bool // our role owns it, or may act as who does
	All       bool // FOR ALL TABLES
	ViaRoot   bool
	Generated string               // publish_generated_columns: n none, s stored; "" before 18
	Off       []string             // insert, update, delete, truncate: what it leaves out
	Schemas   map[string]bool      // FOR TABLES IN SCHEMA
	Tables    map[uint32]Published // by OID: those under whose names it sends
}

// Published is what a publication sends of a table.
type Published struct {
	// Columns are those of an explicit list, else nil. Without one the server names all that there are when it is asked,
	// which may be more or fewer than a moment before.
	Columns []string
	Filter  string
}

// LoadPublication reads a publication; nil: there is none of that name.
func LoadPublication(ctx context.Context, q Querier, name string) (*Publication, error) {
	p := &Publication{Name: name, Schemas: map[string]bool{}, Tables: map[uint32]Published{}}
	var on [4]bool
	var bySchema bool
	err := q.QueryRow(ctx, `
		SELECT pg_has_role(p.pubowner, 'USAGE'), p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate,
		       coalesce((to_jsonb(p) ->> 'pubviaroot')::bool, false), coalesce(to_jsonb(p) ->> 'pubgencols', ''),
		       to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL
		FROM pg_publication p WHERE p.pubname = $1::text`, name).
		Scan(&p.Owned, &p.All, &on[0], &on[1], &on[2], &on[3], &p.ViaRoot, &p.Generated, &bySchema)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read publication %s: %w", name, err)
	}
	for i, action := range []string{"insert", "update", "delete", "truncate"} {
		if !on[i] {
			p.Off = append(p.Off, action)
		}
	}
	if bySchema { // from 15 on
		var schema string
		rows, err := q.Query(ctx, `SELECT n.nspname::text FROM pg_publication_namespace s JOIN pg_publication p ON p.oid = s.pnpubid
			JOIN pg_namespace n ON n.oid = s.pnnspid WHERE p.pubname = $1::text`, name)
		if err == nil {
			_, err = pgx.ForEachRow(rows, []any{&schema}, func() error { p.Schemas[schema] = true; return nil })
		}
		if err != nil {
			return nil, fmt.Errorf("read the schemas of publication %s: %w", name, err)
		}
	}
	rows, err := q.Query(ctx, `
		SELECT c.oid::int8, coalesce(CASE WHEN to_jsonb(r) ->> 'prattrs' IS NOT NULL THEN to_jsonb(t) ->> 'attnames' END, ''),
		       coalesce(to_jsonb(t) ->> 'rowfilter', '')
		FROM pg_publication_tables t JOIN pg_publication p ON p.pubname = t.pubname
		JOIN pg_namespace n ON n.nspname = t.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
		LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid WHERE t.pubname = $1::text`, name)
	if err == nil {
		var oid int64
		var columns, filter string
		_, err = pgx.ForEachRow(rows, []any{&oid, &columns, &filter}, func() error {
			x := Published{Filter: filter}
			p.Tables[uint32(oid)] = x
			if columns == "" {
				return nil
			}
			err := json.Unmarshal([]byte(columns), &x.Columns)
			p.Tables[uint32(oid)] = x
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the tables of publication %s: %w", name, err)
	}
	return p, nil
}

// Whole tells whether the publication takes every table of a schema by itself. None of them can have a row filter then,
// whatever else it says of the table.
func (p *Publication) Whole(schema string) bool { return p.All || p.Schemas[schema] }

// Wanted is what a mirror takes of a table.
type Wanted struct {
	OID            uint32
	Schema, Name   string
	Partitioned    bool
	Columns, Types []string // that the log can carry, excluded ones too
	Excluded       func(column string) bool
	Filter         string
	List           []string // of the columns, as weir's own publication has it; nil: without one
}

// Item is the table as it stands behind FOR TABLE.
func (w Wanted) Item() string {
	item := w.named()
	if w.List != nil {
		item += " (" + Idents(w.List) + ")"
	}
	if w.Filter != "" {
		item += " WHERE (" + w.Filter + ")"
	}
	return item
}

// named leaves out the tables that inherit from it. A partitioned one cannot be named without its partitions.
func (w Wanted) named() string {
	if w.Partitioned {
		return Qualified(w.Schema, w.Name)
	}
	return "ONLY " + Qualified(w.Schema, w.Name)
}

// Repair is the SQL that makes the publication send what is wanted of a table. There is none where it takes the whole
// schema.
func (p *Publication) Repair(w Wanted) string {
	if p.Whole(w.Schema) {
		return ""
	}
	name := Ident(p.Name)
	add := "ALTER PUBLICATION " + name + " ADD TABLE " + w.Item() + ";"
	if _, there := p.Tables[w.OID]; !there {
		return add
	}
	return "ALTER PUBLICATION " + name + " DROP TABLE " + w.named() + ";\n" + add
}

// ConditionError is the server's refusal of the condition that the mirror was given.
type ConditionError struct{ Err error }

func (e *ConditionError) Error() string { return e.Err.Error() }
func (e *ConditionError) Unwrap() error { return e.Err }

// Differs says how what the publication sends of a table is not what is wanted of it: other rows, or fewer columns. More
// columns do no harm. "": it does not differ. Price is what Repair changes for everybody else who reads the publication,
// and how the mirror can take what there is instead.
//
// The stream is what the publication sends, and a first copy is what the mirror's filter lets through, so that a table with
// two different filters would end up as neither.
func (p *Publication) Differs(ctx context.Context, q Querier, w Wanted) (why, price string, err error) {
	x, table := p.Tables[w.OID], DottedName(w.Schema, w.Name)
	unlisted := ""
	if x.Columns != nil && w.List == nil {
		unlisted = ", and removes its list of columns"
	}
	filter := "give the mirror --filter " + shellWord(table+": "+x.Filter)
	if x.Filter != w.Filter {
		same, err := w.same(ctx, q, x.Filter)
		switch {
		case err != nil:
			return "", "", err
		case same:
		case x.Filter == "" && p.Whole(w.Schema):
			return fmt.Sprintf("publication %s takes every table of schema %s, so that it sends all rows of %s, and the mirror takes only those where %s",
				p.Name, w.Schema, table, w.Filter), "", nil
		case x.Filter == "":
			return fmt.Sprintf("publication %s sends all rows of %s, and the mirror takes only those where %s", p.Name, table, w.Filter),
				priced("puts the mirror's filter into it"+unlisted, ""), nil
		case w.Filter == "":
			return fmt.Sprintf("publication %s sends only the rows of %s where %s", p.Name, table, x.Filter), priced("removes that row filter"+unlisted, filter), nil
		default:
			return fmt.Sprintf("publication %s sends the rows of %s where %s, and the mirror takes those where %s", p.Name, table, x.Filter, w.Filter),
				priced("replaces its row filter by the mirror's"+unlisted, filter), nil
		}
	}
	var lacks []string
	for _, c := range w.Columns {
		if x.Columns != nil && !slices.Contains(x.Columns, c) && !w.Excluded(c) {
			lacks = append(lacks, c)
		}
	}
	if len(lacks) == 0 {
		return "", "", nil
	}
	var exclude []string
	for _, c := range lacks {
		exclude = append(exclude, table+"."+dotted(c))
	}
	does := "removes its list of columns"
	if w.List != nil {
		does = "replaces its list of columns by the mirror's"
	}
	return fmt.Sprintf("publication %s leaves out columns of %s: %s", p.Name, table, strings.Join(lacks, ", ")),
		priced(does, "give the mirror --exclude-column "+shellWord(strings.Join(exclude, ","))), nil
}

func priced(does, instead string) string {
	if instead != "" {
		instead += ", or "
	}
	return "the fix " + does + ", for everybody who reads the publication; to keep it as it is, " + instead + WithoutName
}

// WithoutName is what always spares a publication of the user's own.
const WithoutName = "leave publication.name unset, and weir makes a publication of its own"

// shellWord quotes a text for a shell.
func shellWord(s string) string {
	if !strings.ContainsAny(s, "\"$`\\!") {
		return `"` + s + `"`
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// same tells whether the table's filter and another one are one condition.
func (w Wanted) same(ctx context.Context, q Querier, other string) (bool, error) {
	ours, err := Condition(ctx, q, w.Name, w.Columns, w.Types, w.Filter)
	if err != nil {
		if refused(err) {
			return false, &ConditionError{err}
		}
		return false, err
	}
	theirs, err := Condition(ctx, q, w.Name, w.Columns, w.Types, other)
	if refused(err) {
		return false, nil // it is about a column that a mirror cannot ask for, such as a generated one
	}
	return ours == theirs, err
}

func refused(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && !Passing(err)
}

// Condition gives a condition over a row of the given columns in the words of the server, which has resolved names and
// types and reckoned what is constant. Two conditions with one text are one condition; "" is the one that is always true.
//
// The row is of NULLs, so that neither a right to the table nor an index, a partition or a statistic of it plays a part;
// OFFSET keeps the server from putting them into the condition.
func Condition(ctx context.Context, q Querier, table string, columns, types []string, where string) (string, error) {
	if where == "" {
		where = "true"
	}
	fields := make([]string, len(columns))
	for i := range columns {
		fields[i] = "NULL::" + types[i] + " AS " + Ident(columns[i])
	}
	// The filter may end in a comment.
	rows, err := q.Query(ctx, fmt.Sprintf("EXPLAIN (COSTS OFF) SELECT FROM (SELECT %s OFFSET 0) AS %s WHERE (%s\n)", strings.Join(fields, ", "), Ident(table), where))
	if err != nil {
		return "", err
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return strings.Join(lines, "\n"), err
}
