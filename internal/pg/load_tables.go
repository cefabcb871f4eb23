package pg

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// LoadTables describes the given relations, in the order of oids; one that no longer exists is left out. Whatever their
// number it runs a fixed handful of queries. They see one state of the catalog only inside a REPEATABLE READ
// transaction, and even there the server's deparsing functions see the newest.
func LoadTables(ctx context.Context, q Querier, oids []uint32) ([]*Table, error) {
	l := newTableLoader(ctx, q, oids)
	return l.load(oids, l.tables, l.columns, l.sequences, l.shared, l.indexes, l.constraints, l.needs)
}

// LoadShapes is LoadTables without what only matters to making the table elsewhere, which takes most of the time: its
// sequences, check constraints and foreign keys, and what their expressions and the columns' need.
func LoadShapes(ctx context.Context, q Querier, oids []uint32) ([]*Table, error) {
	l := newTableLoader(ctx, q, oids)
	return l.load(oids, l.tables, l.columns, l.indexes)
}

// PeekShapes is LoadShapes that waits for nobody who has a table locked, which may be ourselves in another session: there
// are no definitions and defaults, and sizes are those that the last ANALYZE or VACUUM saw, without partitions.
func PeekShapes(ctx context.Context, q Querier, oids []uint32) ([]*Table, error) {
	l := newTableLoader(ctx, q, oids)
	l.peek = true
	return l.load(oids, l.tables, l.columns, l.indexes)
}

func newTableLoader(ctx context.Context, q Querier, oids []uint32) *tableLoader {
	return &tableLoader{ctx: ctx, q: q, list: oidList(oids), byOID: map[uint32]*Table{}, pages: map[uint32]pageCount{}}
}

func (l *tableLoader) load(oids []uint32, steps ...func() error) ([]*Table, error) {
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	var out []*Table
	for _, oid := range oids {
		if t := l.byOID[oid]; t != nil {
			l.finish(t)
			out = append(out, t)
		}
	}
	return out, nil
}

type tableLoader struct {
	ctx   context.Context
	q     Querier
	list  string
	byOID map[uint32]*Table
	types map[uint32]*Type
	pages map[uint32]pageCount
	peek  bool // nothing that locks
}

// sizes is SQL for what a table takes. The functions that measure it lock it.
func (l *tableLoader) sizes() string {
	if l.peek {
		return `SELECT c.relpages * current_setting('block_size')::int8 AS bytes, c.relpages * current_setting('block_size')::int8 AS heap,
		               c.relpages AS pages, greatest(c.reltuples, 0)::float8 AS tuples`
	}
	return `
		    SELECT sum(pg_table_size(l.oid)) AS bytes, sum(pg_relation_size(l.oid)) AS heap, sum(l.relpages) AS pages,
		           sum(greatest(l.reltuples, 0)::float8) AS tuples
		    FROM (SELECT c.relkind, c.relpages, c.reltuples, c.oid WHERE c.relkind <> 'p'
		          UNION ALL
		          SELECT x.relkind, x.relpages, x.reltuples, x.oid
		          FROM pg_partition_tree(CASE WHEN c.relkind = 'p' THEN c.oid END) p JOIN pg_class x ON x.oid = p.relid) l
		    WHERE l.relkind IN ('r', 'm')`
}

// printed is SQL for the text of a definition. The functions that print them lock the table that it is about.
func (l *tableLoader) printed(call string) string {
	if l.peek {
		return "''"
	}
	return "coalesce(" + call + ", '')"
}

// pageCount is what the row estimate is made of: what the last ANALYZE saw and how large the heap is now.
type pageCount struct {
	heapBytes, blockSize int64
	relPages             int32
	relTuples            float64
}

func (l *tableLoader) query(sql string) (pgx.Rows, error) { return l.q.Query(l.ctx, sql, l.list) }

func (l *tableLoader) tables() error {
	var searchPath string
	if err := l.q.QueryRow(l.ctx, `SELECT current_setting('search_path')`).Scan(&searchPath); err != nil {
		return fmt.Errorf("read search_path: %w", err)
	}
	if searchPath != "pg_catalog" {
		// Deparsed SQL would lack schemas, and a target would be built from it in whatever schema comes first.
		return fmt.Errorf("introspection needs search_path = pg_catalog, the session has %q", searchPath)
	}
	rows, err := l.query(`
		SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, c.relreplident::text,
		       c.relrowsecurity,
		       NOT c.relispartition AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid),
		       (SELECT count(*) FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal)::int,
		       CASE WHEN c.relispartition THEN coalesce(pg_partition_root(c.oid)::oid, 0::oid) ELSE 0::oid END,
		       CASE WHEN c.relkind = 'p' THEN ` + l.printed("pg_get_partkeydef(c.oid)") + ` ELSE '' END,
		       coalesce(s.bytes, 0)::int8, coalesce(s.heap, 0)::int8, coalesce(s.pages, 0)::int4,
		       coalesce(s.tuples, -1)::float8, current_setting('block_size')::int8
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		LEFT JOIN LATERAL (` + l.sizes() + `) s ON true
		WHERE c.oid IN (SELECT unnest($1::text::oid[]))`)
	_, err = collect(rows, err, "read tables", func(scan func(...any) error) (*Table, error) {
		t := &Table{}
		var p pageCount
		var kind, persistence, identity string
		err := scan(&t.OID, &t.Schema, &t.Name, &kind, &persistence, &identity, &t.RLS, &t.Inherits, &t.Triggers,
			&t.Parent, &t.PartitionKey, &t.Bytes, &p.heapBytes, &p.relPages, &p.relTuples, &p.blockSize)
		t.Kind, t.Persistence, t.Identity = first(kind), first(persistence), first(identity)
		l.byOID[t.OID], l.pages[t.OID] = t, p
		return t, err
	})
	return err
}

func (l *tableLoader) columns() error {
	// PG 18 can hold a NOT NULL that old rows break (NOT VALID); its pg_constraint entries of type n exist only there.
	rows, err := l.query(`
		SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod),
		       CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation
		            THEN (SELECT quote_ident(n.nspname) || '.' || quote_ident(k.collname)
		                  FROM pg_collation k JOIN pg_namespace n ON n.oid = k.collnamespace WHERE k.oid = a.attcollation)
		            ELSE '' END,
		       a.attcollation, a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'n'
		                                    AND k.conkey[1] = a.attnum AND NOT k.convalidated),
		       ` + l.printed("pg_get_expr(d.adbin, d.adrelid)") + `, a.attidentity::text, a.attgenerated::text, a.attstorage::text
		FROM pg_attribute a
		JOIN pg_type t ON t.oid = a.atttypid
		LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		WHERE a.attrelid IN (SELECT unnest($1::text::oid[])) AND a.attnum > 0 AND NOT a.attisdropped
		ORDER BY a.attrelid, a.attnum`)
	var typeOIDs []uint32
	_, err = collect(rows, err, "read columns", func(scan func(...any) error) (struct{}, error) {
		var c Column
		var rel uint32
		var identity, generated, storage string
		err := scan(&rel, &c.Attnum, &c.Name, &c.Type.OID, &c.Mod, &c.FormattedType, &c.Collation, &c.collation,
			&c.NotNull, &c.Default, &identity, &generated, &storage)
		c.Identity, c.Generated, c.Storage = first(identity), first(generated), first(storage)
		if t := l.byOID[rel]; t != nil {
			t.Columns = append(t.Columns, c)
			typeOIDs = append(typeOIDs, c.Type.OID)
		}
		return struct{}{}, err
	})
	if err != nil {
		return err
	}
	if l.types, err = loadTypeGraph(l.ctx, l.q, typeOIDs); err != nil {
		return err
	}
	for _, t := range l.byOID {
		for i := range t.Columns {
			if typ := l.types[t.Columns[i].Type.OID]; typ != nil {
				t.Columns[i].Type = *typ
			}
		}
	}
	return nil
}

func (l *tableLoader) sequences() error {
	rows, err := l.query(`
		SELECT d.refobjid, d.refobjsubid::int2, ` + sequenceColumns + `
		FROM pg_depend d
		JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
		JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_sequence s ON s.seqrelid = c.oid
		WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.objsubid = 0
		  AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0 AND d.refobjid IN (SELECT unnest($1::text::oid[]))
		ORDER BY c.oid`)
	_, err = collect(rows, err, "read sequences of columns", func(scan func(...any) error) (struct{}, error) {
		var rel uint32
		var attnum int16
		seq := &Sequence{}
		if err := scan(append([]any{&rel, &attnum}, seq.fields()...)...); err != nil {
			return struct{}{}, err
		}
		if t := l.byOID[rel]; t != nil {
			if c := t.byAttnum(attnum); c != nil {
				seq.OwnerSchema, seq.OwnerTable, seq.OwnerColumn, seq.Identity = t.Schema, t.Name, c.Name, c.Identity != 0
				c.Sequence = seq // of several drawn chooses the default's own
			}
		}
		return struct{}{}, nil
	})
	return err
}

// shared finds out from whose sequences other columns' defaults draw too. A partition has its root's defaults.
func (l *tableLoader) shared() error {
	owner := map[uint32]*Column{}
	var oids []uint32
	for _, t := range l.byOID {
		for i := range t.Columns {
			if s := t.Columns[i].Sequence; s != nil {
				owner[s.OID] = &t.Columns[i]
				oids = append(oids, s.OID)
			}
		}
	}
	rows, err := l.q.Query(l.ctx, `
		SELECT u.refobjid, x.adrelid, x.adnum::int2
		FROM pg_depend u JOIN pg_attrdef x ON x.oid = u.objid JOIN pg_class y ON y.oid = x.adrelid
		WHERE u.classid = 'pg_attrdef'::regclass AND u.refclassid = 'pg_class'::regclass
		  AND u.refobjid IN (SELECT unnest($1::text::oid[])) AND NOT y.relispartition`, oidList(oids))
	_, err = collect(rows, err, "read who draws from sequences", func(scan func(...any) error) (struct{}, error) {
		var seq, rel uint32
		var attnum int16
		if err := scan(&seq, &rel, &attnum); err != nil {
			return struct{}{}, err
		}
		c := owner[seq]
		if t := l.byOID[rel]; t == nil || t.byAttnum(attnum) != c {
			c.Sequence.Shared = true
		}
		return struct{}{}, nil
	})
	return err
}

// drawn resolves what defaults use besides their columns' own sequences: other sequences, or something else of pg_class.
func (l *tableLoader) drawn(used []dependency) error {
	if len(used) == 0 {
		return nil
	}
	type owned struct {
		Sequence
		rel    uint32
		attnum int16
	}
	found := map[uint32]*owned{}
	var oids []uint32
	for _, d := range used {
		oids = appendNew(oids, d.object)
	}
	rows, err := l.q.Query(l.ctx, `
		SELECT coalesce(o.refobjid, 0), coalesce(o.refobjsubid, 0)::int2, coalesce(tn.nspname::text, ''), coalesce(t.relname::text, ''),
		       coalesce(a.attname::text, ''), coalesce(o.deptype = 'i', false), `+sequenceColumns+sequenceOwner+`
		WHERE c.oid IN (SELECT unnest($1::text::oid[]))`, oidList(oids))
	_, err = collect(rows, err, "read sequences of defaults", func(scan func(...any) error) (struct{}, error) {
		s := &owned{}
		err := scan(append([]any{&s.rel, &s.attnum, &s.OwnerSchema, &s.OwnerTable, &s.OwnerColumn, &s.Identity}, s.fields()...)...)
		found[s.OID] = s
		return struct{}{}, err
	})
	if err != nil {
		return err
	}
	for _, d := range used {
		t := l.byOID[d.rel]
		c, s := t.byAttnum(d.num), found[d.object]
		switch {
		case s == nil:
			t.depend(d)
		case s.rel == d.rel && s.attnum == d.num: // it owns several
			s.Shared = true // perhaps; shared has asked about another
			c.Sequence, c.UsesSequence = &s.Sequence, true
		default:
			c.Draws = append(c.Draws, &s.Sequence)
		}
	}
	return nil
}

func (l *tableLoader) indexes() error {
	// The functions that print definitions see the present: one without text was dropped since this view was taken. What
	// makes a key is written here, with the names that its columns have in this view.
	// indnullsnotdistinct came with 15; to_jsonb of the row asks for it in a way that older servers understand too.
	rows, err := l.query(`
		SELECT i.indrelid, i.indexrelid, c.relname::text, i.indisunique, i.indisprimary, i.indisexclusion,
		       i.indisvalid AND i.indisready, i.indimmediate, i.indisreplident,
		       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false), i.indpred IS NOT NULL,
		       NOT EXISTS (SELECT FROM pg_collation k WHERE k.oid = ANY (i.indcollation) AND NOT k.collisdeterministic),
		       i.indkey::int2[], i.indnkeyatts, ` + l.printed("pg_get_indexdef(i.indexrelid)") + `,
		       coalesce(k.conname::text, ''), ` + l.printed("pg_get_constraintdef(k.oid)") + `,
		       coalesce(k.condeferrable, false), coalesce(k.condeferred, false)
		FROM pg_index i
		JOIN pg_class c ON c.oid = i.indexrelid
		LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
		WHERE i.indrelid IN (SELECT unnest($1::text::oid[])) AND i.indislive
		ORDER BY i.indrelid, NOT i.indisprimary, c.relname`)
	_, err = collect(rows, err, "read indexes", func(scan func(...any) error) (struct{}, error) {
		var x Index
		var rel uint32
		var keys []int16
		var keyCount int16
		var deferrable, deferred bool
		err := scan(&rel, &x.OID, &x.Name, &x.Unique, &x.Primary, &x.Exclusion, &x.Valid, &x.Immediate, &x.ReplIdent,
			&x.NullsNotDistinct, &x.Predicate, &x.Deterministic, &keys, &keyCount, &x.Def, &x.ConstraintName, &x.ConstraintDef, &deferrable, &deferred)
		if err != nil {
			return struct{}{}, err
		}
		if t := l.byOID[rel]; t != nil && (x.Def != "" || l.peek) {
			names := t.names(keys)
			x.Columns = names[:min(int(keyCount), len(names))]
			for _, name := range names {
				x.use(name)
			}
			if x.ConstraintName != "" && !x.Exclusion && !l.peek {
				x.ConstraintDef = x.keyDef(names[len(x.Columns):], deferrable, deferred)
			}
			t.Indexes = append(t.Indexes, x)
		}
		return struct{}{}, nil
	})
	return err
}

// keyDef is the primary key or unique constraint that the index backs.
func (i *Index) keyDef(include []string, deferrable, deferred bool) string {
	def := "UNIQUE"
	switch {
	case i.Primary:
		def = "PRIMARY KEY"
	case i.NullsNotDistinct:
		def += " NULLS NOT DISTINCT"
	}
	def += " (" + Idents(i.Columns) + ")"
	if len(include) > 0 {
		def += " INCLUDE (" + Idents(include) + ")"
	}
	if deferrable {
		def += " DEFERRABLE"
	}
	if deferred {
		def += " INITIALLY DEFERRED"
	}
	return def
}

// volatileCheck finds out of a stored expression whether all of it is immutable. The catalog does not say so; but the
// node tree names every function by oid, and constants in it are lists of bytes, so no string a user wrote can look
// like a node.
const volatileCheck = `(k.conbin::text LIKE '%{SQLVALUEFUNCTION %'
	OR EXISTS (SELECT FROM regexp_matches(k.conbin::text, ':(?:op)?funcid (\d+)', 'g') m
	           JOIN pg_proc p ON p.oid = m[1]::oid WHERE p.provolatile <> 'i')
	OR EXISTS (SELECT FROM regexp_matches(k.conbin::text, ':resulttype (\d+) :resultcollid', 'g') m
	           JOIN pg_type y ON y.oid = m[1]::oid JOIN pg_proc p ON p.oid = y.typinput WHERE p.provolatile <> 'i'))`

func (l *tableLoader) constraints() error {
	// A foreign key to a partitioned table has a shadow for each partition, with a parent on the same table; one that a
	// partition inherits has its parent on another and is the partition's own.
	rows, err := l.query(`
		SELECT k.conrelid, k.conname::text, k.contype::text, coalesce(k.conkey, '{}'), coalesce(pg_get_constraintdef(k.oid), ''),
		       k.convalidated, coalesce((to_jsonb(k) ->> 'conenforced')::bool, true), k.condeferrable, k.condeferred,
		       CASE WHEN k.contype = 'c' THEN ` + volatileCheck + ` ELSE false END,
		       coalesce(k.conbin::text ~ ':varattno 0 ', false),
		       k.confrelid, coalesce(n.nspname::text, ''), coalesce(c.relname::text, ''),
		       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY o(num, pos)
		             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = o.num ORDER BY o.pos),
		       k.confmatchtype::text, k.confupdtype::text, k.confdeltype::text,
		       ARRAY(SELECT o.num::int2 FROM jsonb_array_elements_text(
		             CASE jsonb_typeof(to_jsonb(k) -> 'confdelsetcols') WHEN 'array' THEN to_jsonb(k) -> 'confdelsetcols' ELSE '[]' END) o(num)),
		       coalesce((to_jsonb(k) ->> 'conperiod')::bool, false)
		FROM pg_constraint k
		LEFT JOIN pg_class c ON c.oid = k.confrelid
		LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
		LEFT JOIN pg_constraint p ON p.oid = k.conparentid
		WHERE k.conrelid IN (SELECT unnest($1::text::oid[])) AND k.contype IN ('c', 'f') AND (p.oid IS NULL OR p.conrelid <> k.conrelid)
		ORDER BY k.conrelid, k.conname`)
	_, err = collect(rows, err, "read constraints", func(scan func(...any) error) (struct{}, error) {
		var c Constraint
		var rel uint32
		var kind, match, onUpdate, onDelete string
		var keys, setColumns []int16
		err := scan(&rel, &c.Name, &kind, &keys, &c.Def, &c.Validated, &c.Enforced, &c.Deferrable, &c.Deferred,
			&c.Volatile, &c.WholeRow, &c.RefTable, &c.RefSchema, &c.RefName, &c.RefColumns, &match, &onUpdate, &onDelete,
			&setColumns, &c.Period)
		if err != nil {
			return struct{}{}, err
		}
		c.Match, c.OnUpdate, c.OnDelete = first(match), first(onUpdate), first(onDelete)
		t := l.byOID[rel]
		if t == nil || c.Def == "" {
			return struct{}{}, nil
		}
		c.Columns, c.OnDeleteColumns = t.names(keys), t.names(setColumns)
		if kind == "c" {
			t.Checks = append(t.Checks, c)
		} else {
			t.ForeignKeys = append(t.ForeignKeys, c)
		}
		return struct{}{}, nil
	})
	return err
}

// needs reads from pg_depend what defaults, generated columns, indexes and checks use. Objects that every server has
// are pinned and have no entry, so an entry is exactly what a target might lack; no SQL has to be understood here.
func (l *tableLoader) needs() error {
	rows, err := l.query(`
		WITH o(kind, rel, name, num, classid, objid, objsubid) AS (
		    SELECT 'default', d.adrelid, '', d.adnum, 'pg_attrdef'::regclass, d.oid, 0
		    FROM pg_attrdef d WHERE d.adrelid IN (SELECT unnest($1::text::oid[]))
		    UNION ALL -- before 15 a generated column's dependencies are those of the column
		    SELECT 'default', a.attrelid, '', a.attnum, 'pg_class'::regclass, a.attrelid, a.attnum
		    FROM pg_attribute a WHERE a.attrelid IN (SELECT unnest($1::text::oid[])) AND a.attgenerated <> ''
		    UNION ALL
		    SELECT 'index', i.indrelid, c.relname::text, 0, 'pg_class'::regclass, i.indexrelid, 0
		    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid IN (SELECT unnest($1::text::oid[]))
		    UNION ALL -- what an index uses may be recorded with its constraint only
		    SELECT 'index', k.conrelid, c.relname::text, 0, 'pg_constraint'::regclass, k.oid, 0
		    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conindid
		    WHERE k.conrelid IN (SELECT unnest($1::text::oid[])) AND k.contype IN ('p', 'u', 'x')
		    UNION ALL
		    SELECT 'check', k.conrelid, k.conname::text, 0, 'pg_constraint'::regclass, k.oid, 0
		    FROM pg_constraint k WHERE k.conrelid IN (SELECT unnest($1::text::oid[])) AND k.contype = 'c'
		)
		SELECT o.kind, o.rel, o.name, o.num::int2, r.relname::text, d.refobjid, d.refobjsubid::int2,
		       CASE WHEN d.refclassid = 'pg_class'::regclass AND d.refobjid = o.rel THEN ''
		            ELSE pg_describe_object(d.refclassid, d.refobjid, 0) END,
		       coalesce(x.extname::text, '')
		FROM o
		JOIN pg_depend d ON d.classid = o.classid AND d.objid = o.objid AND d.objsubid = o.objsubid
		JOIN pg_class r ON r.oid = d.refclassid
		LEFT JOIN pg_depend e ON e.classid = d.refclassid AND e.objid = d.refobjid AND e.objsubid = 0 AND e.deptype = 'e'
		LEFT JOIN pg_extension x ON x.oid = e.refobjid
		WHERE d.refclassid NOT IN ('pg_constraint'::regclass, 'pg_extension'::regclass, 'pg_namespace'::regclass)
		ORDER BY 1, 2, 3, 4, 8`)
	var used []dependency
	_, err = collect(rows, err, "read dependencies", func(scan func(...any) error) (struct{}, error) {
		var d dependency
		if err := scan(&d.kind, &d.rel, &d.name, &d.num, &d.class, &d.object, &d.sub, &d.description, &d.extension); err != nil {
			return struct{}{}, err
		}
		switch t := l.byOID[d.rel]; {
		case t == nil:
		case d.kind == "default" && d.class == "pg_class" && d.object != t.OID && !t.owns(d.num, d.object):
			used = append(used, d)
		default:
			t.depend(d)
		}
		return struct{}{}, nil
	})
	if err != nil {
		return err
	}
	return l.drawn(used)
}

// owns tells whether a sequence is the column's.
func (t *Table) owns(column int16, sequence uint32) bool {
	c := t.byAttnum(column)
	return c == nil || c.Sequence != nil && c.Sequence.OID == sequence
}

// dependency is one row of pg_depend: the default of column num, or the index or check called name, uses an object.
type dependency struct {
	kind, name, class      string
	description, extension string
	rel, object            uint32
	num, sub               int16
}

func (t *Table) depend(d dependency) {
	need := Need{Object: d.description, Extension: d.extension}
	own := d.class == "pg_class" && d.object == t.OID
	switch d.kind {
	case "default":
		c := t.byAttnum(d.num)
		switch {
		case c == nil:
		case own:
			if d.sub > 0 && d.sub != c.Attnum {
				c.GeneratedFrom = appendNew(c.GeneratedFrom, t.names([]int16{d.sub})...)
			}
		case d.class == "pg_type" && c.Type.has(d.object):
		case d.class == "pg_collation" && (c.Type.collates(d.object) || c.collation == d.object):
		case d.class == "pg_class" && t.owns(d.num, d.object):
			c.UsesSequence = true
		default:
			c.DefaultNeeds = appendNew(c.DefaultNeeds, need)
		}
	case "index":
		for i := range t.Indexes {
			if x := &t.Indexes[i]; x.Name == d.name {
				switch {
				case own && d.sub > 0:
					x.use(t.names([]int16{d.sub})[0])
				case own, t.columnsHave(d), d.class == "pg_class":
				default:
					x.Needs = appendNew(x.Needs, need)
				}
			}
		}
	case "check":
		for i := range t.Checks {
			if c := &t.Checks[i]; c.Name == d.name {
				switch {
				case own && d.sub > 0:
					c.Columns = appendNew(c.Columns, t.names([]int16{d.sub})...)
				case own, t.columnsHave(d):
				default:
					c.Needs = appendNew(c.Needs, need)
				}
			}
		}
	}
}

// columnsHave: types and collations of columns are made on the target before anything that uses them.
func (t *Table) columnsHave(d dependency) bool {
	return slices.ContainsFunc(t.Columns, func(c Column) bool {
		return d.class == "pg_type" && c.Type.has(d.object) ||
			d.class == "pg_collation" && (c.Type.collates(d.object) || c.collation == d.object)
	})
}

func (l *tableLoader) finish(t *Table) {
	t.RelTuples = l.pages[t.OID].estimate(t)
	for i := range t.Indexes {
		x := &t.Indexes[i]
		if x.Primary {
			t.PrimaryKey = x
		}
		if x.Primary && t.Identity == 'd' && x.Immediate || x.ReplIdent && t.Identity == 'i' {
			t.IdentityKey = x.Columns
		}
	}
	if t.Identity == 'f' {
		for _, c := range t.Columns {
			if c.Generated == 0 {
				t.IdentityKey = append(t.IdentityKey, c.Name)
			}
		}
	}
}

// estimate scales what ANALYZE counted to the present size, as the planner does. A table that was never analyzed is
// divided by a guess of its row width.
func (p pageCount) estimate(t *Table) int64 {
	if p.heapBytes <= 0 {
		return 0
	}
	if p.relTuples > 0 && p.relPages > 0 {
		return int64(p.relTuples / float64(p.relPages) * float64(p.heapBytes) / float64(p.blockSize))
	}
	width := int64(28) // row header and line pointer
	for _, c := range t.Columns {
		if c.Type.Len > 0 {
			width += int64(c.Type.Len)
		} else {
			width += 32 // the planner's own guess for a type of no fixed length
		}
	}
	return max(p.heapBytes/width, 1)
}

func (t *Table) byAttnum(num int16) *Column {
	for i := range t.Columns {
		if t.Columns[i].Attnum == num {
			return &t.Columns[i]
		}
	}
	return nil
}

// names turns attribute numbers into names; 0, an expression, becomes "".
func (t *Table) names(nums []int16) []string {
	out := make([]string, len(nums))
	for i, n := range nums {
		if c := t.byAttnum(n); c != nil {
			out[i] = c.Name
		}
	}
	return out
}

func (i *Index) use(column string) {
	if column != "" {
		i.Uses = appendNew(i.Uses, column)
	}
}

// has tells whether oid is t or part of t.
func (t *Type) has(oid uint32) (found bool) {
	t.reach(func(x *Type) { found = found || x.OID == oid })
	return found
}

func (t *Type) collates(oid uint32) (found bool) {
	t.reach(func(x *Type) { found = found || x.Collation == oid })
	return found
}

func appendNew[T comparable](list []T, values ...T) []T {
	for _, v := range values {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}
