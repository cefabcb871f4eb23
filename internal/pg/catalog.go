package pg

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Querier is what introspection needs of a connection; *pgx.Conn, pgx.Tx and pools have it. Its session must have the
// search_path of ConnectPgx, because the server leaves out of its SQL the schemas that are in it.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// LedgerSchema holds weir's own tables in users' databases. It is never mirrored.
const LedgerSchema = "_weir"

// TableName is one entry of ListTables.
type TableName struct {
	OID          uint32
	Schema, Name string
	Kind         byte     // r table, p partitioned root, f foreign table, v view, m materialized view
	Persistence  byte     // p permanent, u unlogged
	Parent       uint32   // the topmost partitioned table it is a partition of, 0 if it is none
	Apart        bool     // a partitioned table of a server before 13, which can publish only its partitions: they are tables of their own
	Columns      []string // without generated ones, which the log does not carry
}

func (t TableName) String() string { return DottedName(t.Schema, t.Name) }

// Table is one relation as the catalog describes it now, which is not necessarily as older WAL means it.
type Table struct {
	OID          uint32
	Schema, Name string
	Kind         byte
	Persistence  byte  // p permanent, u unlogged, t temporary
	RelTuples    int64 // an estimate; for a partitioned root the sum of its partitions
	Bytes        int64 // heap and TOAST, without indexes
	Identity     byte  // replica identity: d default, n nothing, f full, i index
	RLS          bool
	Inherits     bool   // a child by INHERITS, not by partitioning
	Triggers     int    // user triggers
	Parent       uint32 // the topmost partitioned table, 0 if it is no partition
	PartitionKey string // of a partitioned table: "RANGE (at)"

	Columns     []Column // in order, dropped ones left out
	PrimaryKey  *Index   // also in Indexes
	Indexes     []Index
	ForeignKeys []Constraint
	Checks      []Constraint
	// IdentityKey holds the columns by which an update or delete names its row: the primary key, the index chosen by
	// REPLICA IDENTITY, or with FULL all columns; nil when there is none, and then the source refuses updates of a
	// published table.
	IdentityKey []string
}

func (t *Table) String() string { return DottedName(t.Schema, t.Name) }

// PartitionRoot tells whether the table is partitioned itself and not a partition of another.
func (t *Table) PartitionRoot() bool { return t.Kind == 'p' && t.Parent == 0 }

// Column finds a column by name.
func (t *Table) Column(name string) *Column {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i]
		}
	}
	return nil
}

// Column is one column.
type Column struct {
	Attnum        int16
	Name          string
	Type          Type
	Mod           int32
	FormattedType string // SQL: type and modifier, with schema unless built in
	Collation     string // quoted and qualified; "" when it is the type's own
	NotNull       bool   // and so in every row: a NOT NULL that was never validated does not count
	Default       string // SQL of the default, or of a generated column's expression
	DefaultNeeds  []Need // what the default uses beyond built-ins, the column's own type and sequences
	Identity      byte   // 0, a always, d by default
	Generated     byte   // 0, s stored, v virtual
	GeneratedFrom []string
	Storage       byte
	Sequence      *Sequence   // owned by the column
	UsesSequence  bool        // the default draws from Sequence
	Draws         []*Sequence // others that the default draws from

	collation uint32
}

// Need is an object that an expression uses and that a target may not have.
type Need struct {
	Object    string // as the server describes it: "function app.f(integer)"
	Extension string // that it belongs to, "" if none
}

// Index is an index with the constraint that it backs, if any.
type Index struct {
	OID              uint32
	Name             string
	Unique           bool
	Primary          bool
	Exclusion        bool // of EXCLUDE and of WITHOUT OVERLAPS: no arbiter for upserts even where Unique is set
	Valid            bool
	Immediate        bool // not of a deferrable constraint
	ReplIdent        bool
	NullsNotDistinct bool
	Predicate        bool
	Deterministic    bool     // equal under the key's collations means equal bytes
	Columns          []string // key columns; "" for an expression
	Uses             []string // every column that the key, INCLUDE, expressions or predicate mention
	Def              string   // CREATE INDEX
	ConstraintName   string
	ConstraintDef    string
	Needs            []Need
}

// Arbiter tells whether the index can be the key of an upsert: one row at most for any values of plain columns.
func (i *Index) Arbiter() bool {
	if !i.Unique || !i.Valid || !i.Immediate || i.Predicate || i.Exclusion {
		return false
	}
	for _, c := range i.Columns {
		if c == "" {
			return false
		}
	}
	return true
}

// Constraint is a check or a foreign key; what an index enforces is an Index.
type Constraint struct {
	Name       string
	Columns    []string
	Def        string
	Validated  bool
	Enforced   bool
	Deferrable bool
	Deferred   bool

	// Of a check.
	Volatile bool // something in it is not immutable: the answer may differ on another server or another day
	WholeRow bool // it passes the row itself and so names the table
	Needs    []Need

	// Of a foreign key.
	RefTable           uint32
	RefSchema, RefName string
	RefColumns         []string
	Match              byte // s simple, f full, p partial
	OnUpdate, OnDelete byte // a no action, r restrict, c cascade, n set null, d set default
	OnDeleteColumns    []string
	Period             bool // temporal: the last column is a period
}

// ListTables lists everything that a mirror's pattern could mean, also what cannot be mirrored, so that a user who
// names a view learns that it is one. System schemas, weir's own, temporary tables and the tables of extensions are
// not in it.
func ListTables(ctx context.Context, q Querier) ([]TableName, error) {
	rows, err := q.Query(ctx, `
		SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text,
		       CASE WHEN c.relispartition AND v.num >= 130000 THEN coalesce(pg_partition_root(c.oid)::oid, 0::oid) ELSE 0::oid END,
		       c.relkind = 'p' AND v.num < 130000,
		       ARRAY(SELECT a.attname::text FROM pg_attribute a
		             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, (SELECT current_setting('server_version_num')::int AS num) v
		WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND c.relpersistence <> 't'
		  AND n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', `+Literal(LedgerSchema)+`)
		  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
		                  AND d.objsubid = 0 AND d.deptype = 'e')
		ORDER BY 2, 3`)
	return collect(rows, err, "list tables", func(scan func(...any) error) (TableName, error) {
		var t TableName
		var kind, persistence string
		err := scan(&t.OID, &t.Schema, &t.Name, &kind, &persistence, &t.Parent, &t.Apart, &t.Columns)
		t.Kind, t.Persistence = first(kind), first(persistence)
		return t, err
	})
}

// ColumnName is a column of a relation of ListTables.
type ColumnName struct {
	Table uint32
	Name  string
}

// ListColumns lists the columns of relations, ordered by the relation's OID.
func ListColumns(ctx context.Context, q Querier, tables []TableName) ([]ColumnName, error) {
	oids := make([]uint32, len(tables))
	for i, t := range tables {
		oids[i] = t.OID
	}
	rows, err := q.Query(ctx, `
		SELECT attrelid, attname::text FROM pg_attribute
		WHERE attrelid = ANY ($1::oid[]) AND attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum`, oids)
	return collect(rows, err, "list columns", func(scan func(...any) error) (c ColumnName, err error) {
		err = scan(&c.Table, &c.Name)
		return c, err
	})
}

// ServerVersion gives 150018 and "15.18 (Debian ...)".
func ServerVersion(ctx context.Context, q Querier) (num int, text string, err error) {
	err = q.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_version')`).Scan(&num, &text)
	if err != nil {
		return 0, "", fmt.Errorf("read the server's version: %w", err)
	}
	return num, text, nil
}

// Identity tells one server's history from another's. Positions are comparable only while both fields are equal; a
// promotion raises the timeline, a restore or another server changes the system.
type Identity struct {
	System   string
	Timeline int32
	Flushed  LSN // end of the log that is on disk
	Database string
}

// SystemIdentity asks over SQL. Its timeline is that of the last checkpoint: right after a promotion it may still be
// the old one, where IdentifySystem already knows the new.
func SystemIdentity(ctx context.Context, q Querier) (Identity, error) {
	var id Identity
	var flushed string
	err := q.QueryRow(ctx, `
		SELECT s.system_identifier::text, c.timeline_id, current_database()::text,
		       CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_flush_lsn() END::text
		FROM pg_control_system() s, pg_control_checkpoint() c`).Scan(&id.System, &id.Timeline, &id.Database, &flushed)
	if err != nil {
		return Identity{}, fmt.Errorf("read the server's identity: %w", err)
	}
	if id.Flushed, err = ParseLSN(flushed); err != nil {
		return Identity{}, fmt.Errorf("read the server's identity: %w", err)
	}
	return id, nil
}

// IdentifySystem asks a walsender. It ends a snapshot exported on the same connection, as every command does.
func IdentifySystem(ctx context.Context, conn *pgconn.PgConn) (Identity, error) {
	results, err := conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		return Identity{}, fmt.Errorf("IDENTIFY_SYSTEM: %w", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 4 {
		return Identity{}, fmt.Errorf("IDENTIFY_SYSTEM: the server answered in an unknown form")
	}
	row := results[0].Rows[0]
	timeline, err := strconv.ParseInt(string(row[1]), 10, 32)
	if err != nil {
		return Identity{}, fmt.Errorf("IDENTIFY_SYSTEM: timeline: %w", err)
	}
	flushed, err := ParseLSN(string(row[2]))
	if err != nil {
		return Identity{}, fmt.Errorf("IDENTIFY_SYSTEM: %w", err)
	}
	return Identity{System: string(row[0]), Timeline: int32(timeline), Flushed: flushed, Database: string(row[3])}, nil
}

// TimelineHistory asks a walsender for the history file of a timeline above 1. Whoever may replicate may ask.
func TimelineHistory(ctx context.Context, conn *pgconn.PgConn, timeline int32) ([]byte, error) {
	results, err := conn.Exec(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", timeline)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("TIMELINE_HISTORY %d: %w", timeline, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 2 {
		return nil, fmt.Errorf("TIMELINE_HISTORY %d: the server answered in an unknown form", timeline)
	}
	return results[0].Rows[0][1], nil
}

// collect reads all rows and says on error what was being done.
func collect[T any](rows pgx.Rows, err error, what string, one func(scan func(...any) error) (T, error)) ([]T, error) {
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := one(rows.Scan)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return out, nil
}

// oidList is an oid array in text. As a parameter it is cast by the SQL ($1::text::oid[]) and so means the same in
// every query mode of pgx, which knows no Go type for oid[]. The queries unnest it: "= ANY" over thousands of oids is
// compared one by one for each row where the planner chooses to scan.
func oidList(oids []uint32) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, oid := range oids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(uint64(oid), 10))
	}
	b.WriteByte('}')
	return b.String()
}

// first is the only byte of a "char" column, 0 when it is empty.
func first(s string) byte {
	if s == "" {
		return 0
	}
	return s[0]
}
