package pg

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Sequence is a sequence's definition and, from LoadSequences, where it stands.
type Sequence struct {
	OID          uint32
	Schema, Name string
	Type         string // smallint, integer or bigint
	Start        int64
	Increment    int64
	Min, Max     int64
	Cache        int64
	Cycle        bool

	OwnerSchema, OwnerTable, OwnerColumn string // "" when no column owns it
	Identity                             bool   // made by GENERATED ... AS IDENTITY
	Shared                               bool   // of a column's own: other columns' defaults draw from it too

	Readable  bool // the role may read it; LastValue and IsCalled mean something
	LastValue int64
	IsCalled  bool // false: the next value is LastValue itself

	regclass string // as the server writes it inside a default
}

const sequenceColumns = `c.oid, n.nspname::text, c.relname::text, format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement,
	s.seqmin, s.seqmax, s.seqcache, s.seqcycle, c.oid::regclass::text`

// sequenceOwner joins the column that owns the sequence, as o, t, tn and a: NULL where none does.
const sequenceOwner = `
		FROM pg_class c
		JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_sequence s ON s.seqrelid = c.oid
		LEFT JOIN pg_depend o ON o.classid = 'pg_class'::regclass AND o.objid = c.oid AND o.objsubid = 0
		     AND o.refclassid = 'pg_class'::regclass AND o.refobjsubid > 0 AND o.deptype IN ('a', 'i')
		LEFT JOIN pg_class t ON t.oid = o.refobjid
		LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
		LEFT JOIN pg_attribute a ON a.attrelid = o.refobjid AND a.attnum = o.refobjsubid`

func (s *Sequence) fields() []any {
	return []any{&s.OID, &s.Schema, &s.Name, &s.Type, &s.Start, &s.Increment, &s.Min, &s.Max, &s.Cache, &s.Cycle, &s.regclass}
}

// sequencesPerQuery bounds the length of one statement; reading a sequence's value means naming it as a table.
const sequencesPerQuery = 500

// LoadSequences reads the sequences of the given schemas, or of all schemas of users, with the values they stand at.
// Sequences are not part of any snapshot: each value is the newest at its moment.
func LoadSequences(ctx context.Context, q Querier, schemas ...string) ([]Sequence, error) {
	rows, err := q.Query(ctx, `
		SELECT `+sequenceColumns+`,
		       coalesce(tn.nspname::text, ''), coalesce(t.relname::text, ''), coalesce(a.attname::text, ''),
		       coalesce(a.attidentity <> '', false), coalesce(has_sequence_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'), false)`+sequenceOwner+`
		WHERE c.relkind = 'S' AND c.relpersistence <> 't'
		  AND n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', `+Literal(LedgerSchema)+`)
		  AND (cardinality($1::text[]) = 0 OR n.nspname = ANY ($1::text[]))
		  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
		ORDER BY 2, 3`, append([]string{}, schemas...))
	out, err := collect(rows, err, "read sequences", func(scan func(...any) error) (Sequence, error) {
		var s Sequence
		err := scan(append(s.fields(), &s.OwnerSchema, &s.OwnerTable, &s.OwnerColumn, &s.Identity, &s.Readable)...)
		return s, err
	})
	if err != nil {
		return nil, err
	}
	readable := map[int]bool{}
	for i := range out {
		if out[i].Readable {
			readable[i] = true
		}
	}
	for part := range slices.Chunk(sortedKeys(readable), sequencesPerQuery) {
		var sql []string
		for _, i := range part {
			sql = append(sql, "SELECT "+strconv.Itoa(i)+"::int, last_value, is_called FROM "+Qualified(out[i].Schema, out[i].Name))
		}
		rows, err := q.Query(ctx, strings.Join(sql, " UNION ALL "))
		_, err = collect(rows, err, "read values of sequences", func(scan func(...any) error) (struct{}, error) {
			var i int
			var value int64
			var called bool
			if err := scan(&i, &value, &called); err != nil {
				return struct{}{}, err
			}
			out[i].LastValue, out[i].IsCalled = value, called
			return struct{}{}, nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
