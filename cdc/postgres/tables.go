package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// tableShape is what the pipeline last knew of a table. It is stored with the position, so that a change made while
// weir was down is noticed when the table's next row describes itself. Column numbers stay the same when a column is
// renamed, which is how a rename is told from a drop and an add.
type tableShape struct {
	Schema  string        `json:"schema"`
	Name    string        `json:"name"`
	Version uint32        `json:"version"`
	Columns []columnShape `json:"columns"`
}

type columnShape struct {
	Attnum  int16  `json:"n"`
	Name    string `json:"name"`
	TypeOID uint32 `json:"type"`
	TypeMod int32  `json:"mod"`
}

func tableKey(oid uint32) string { return "table/" + strconv.FormatUint(uint64(oid), 10) }

func (t *tableShape) state(oid uint32) dataflow.StateChange {
	v, err := json.Marshal(t)
	if err != nil {
		panic(err) // a struct of strings and numbers
	}
	return dataflow.StateChange{Key: tableKey(oid), Value: v}
}

// shapeOf is the shape of a table as pgoutput will describe it: without generated columns, unless the publication
// sends them, which weir's does not, and without excluded ones.
func (s *Source) shapeOf(t *pg.Table) *tableShape {
	shape := &tableShape{Schema: t.Schema, Name: t.Name, Version: 1}
	if known := s.tables[t.OID]; known != nil && s.opts.KeepNames {
		shape.Schema, shape.Name = known.Schema, known.Name
	}
	for _, c := range t.Columns {
		if c.Generated != 0 || s.listed(t) && s.opts.Excluded(t.Schema, t.Name, c.Name) {
			continue
		}
		shape.Columns = append(shape.Columns, columnShape{Attnum: c.Attnum, Name: c.Name, TypeOID: c.Type.OID, TypeMod: c.Mod})
	}
	return shape
}

// listed tells whether the publication names the table's columns.
func (s *Source) listed(t *pg.Table) bool {
	// The server refuses an application's updates when a list lacks a column of the identity.
	if s.version < 150000 || t.Identity == 'f' {
		return false
	}
	for _, name := range t.IdentityKey {
		if s.opts.Excluded(t.Schema, t.Name, name) {
			return false
		}
	}
	for _, c := range t.Columns {
		if s.opts.Excluded(t.Schema, t.Name, c.Name) {
			return true
		}
	}
	return false
}

// resolve implements relationSource.
func (s *Source) resolve(m *pgoutput.RelationMsg, before *relation) (*relation, *changelog.SchemaChange, []dataflow.StateChange, error) {
	known := s.tables[m.ID]
	if known == nil {
		return &relation{msg: m}, nil, nil, nil
	}
	m = s.called(m)
	namespace := m.Namespace
	if namespace == "" {
		namespace = "pg_catalog"
	}
	if s.reader != nil && !s.opts.Includes(namespace, m.Name) && !(s.reader.inTx && s.reader.skip) {
		if s.reader.inBlock {
			return nil, nil, nil, ErrWriteAheadRefused
		}
		return &relation{msg: m}, nil, nil, s.leave(m.ID)
	}
	m, err := s.makeWay(m, namespace)
	if err != nil {
		return nil, nil, nil, err
	}
	if m.Namespace != "" {
		namespace = m.Namespace
	}
	if len(m.Columns) == 0 {
		// Rows without values cannot be written, and the next look at the catalog lets the table go. Should it have
		// columns again by then, the rows passed over here are missing, so it is copied again.
		s.again = append(s.again, m.ID)
		s.lookAgain.Store(true)
		return &relation{msg: m}, nil, nil, nil
	}
	if err := s.nameTypes(m); err != nil {
		return nil, nil, nil, err
	}
	r := &relation{msg: m, full: m.Identity == 'f'}
	if f := s.filters[m.ID]; f != nil {
		r.filter = f
	}
	now := known.next(m, namespace)
	if now == nil {
		r.rel = s.relationOf(m, namespace, known.Version)
		return r, nil, nil, nil
	}
	steps, err := s.diff(m, known, now, namespace)
	if err != nil {
		return nil, nil, nil, err
	}
	change := &changelog.SchemaChange{Steps: steps}
	if before != nil {
		change.Old = before.rel
	} else {
		change.Old = &changelog.Relation{ID: m.ID, Version: known.Version, Schema: known.Schema, Name: known.Name, Columns: s.oldColumns(known)}
	}
	r.rel = s.relationOf(m, namespace, now.Version)
	change.New = r.rel
	s.tables[m.ID] = now
	s.tableProgress(m.ID, func(p *TableProgress) { p.Schema, p.Name = now.Schema, now.Name })
	s.env.Log.Info("table changed its shape", "table", r.rel.String(), "steps", len(steps))
	state := []dataflow.StateChange{now.state(m.ID)}
	if slices.Contains(s.again, m.ID) {
		state = append(state, liveCopyState(m.ID, &liveCopy{}))
	}
	return r, change, state, nil
}

// filterOf implements relationSource.
func (s *Source) filterOf(id uint32) rowFilter {
	if f := s.filters[id]; f != nil {
		return f
	}
	return nil
}

// reshapes implements relationSource.
func (s *Source) reshapes(m *pgoutput.RelationMsg) bool {
	m = s.called(m)
	known, namespace := s.tables[m.ID], m.Namespace
	if namespace == "" {
		namespace = "pg_catalog"
	}
	return known != nil && known.next(m, namespace) != nil
}

// next is the shape that m describes, nil if it is t itself.
func (t *tableShape) next(m *pgoutput.RelationMsg, namespace string) *tableShape {
	same := t.Schema == namespace && t.Name == m.Name && len(t.Columns) == len(m.Columns)
	for i := 0; same && i < len(m.Columns); i++ {
		a, b := &t.Columns[i], &m.Columns[i]
		same = a.Name == b.Name && a.TypeOID == b.TypeOID && a.TypeMod == b.TypeMod
	}
	if same {
		return nil
	}
	now := &tableShape{Schema: namespace, Name: m.Name, Version: t.Version + 1}
	for _, c := range m.Columns {
		now.Columns = append(now.Columns, columnShape{Name: c.Name, TypeOID: c.TypeOID, TypeMod: c.TypeMod})
	}
	return now
}

func (s *Source) oldColumns(t *tableShape) []changelog.Column {
	var cols []changelog.Column
	for _, c := range t.Columns {
		n := s.types[c.TypeOID]
		cols = append(cols, changelog.Column{Name: c.Name, TypeOID: c.TypeOID, TypeMod: c.TypeMod, TypeSchema: n[0], TypeName: n[1]})
	}
	return cols
}

func (s *Source) relationOf(m *pgoutput.RelationMsg, namespace string, version uint32) *changelog.Relation {
	rel := &changelog.Relation{ID: m.ID, Version: version, Schema: namespace, Name: m.Name, Binary: s.binary}
	switch m.Identity {
	case 'n':
		rel.Identity = changelog.IdentityNothing
	case 'f':
		rel.Identity = changelog.IdentityFull
	default:
		rel.Identity = changelog.IdentityKey
	}
	keyed := false
	for _, c := range m.Columns {
		n := s.types[c.TypeOID]
		rel.Columns = append(rel.Columns, changelog.Column{
			Name: c.Name, TypeOID: c.TypeOID, TypeMod: c.TypeMod, Key: c.Key, TypeSchema: n[0], TypeName: n[1],
		})
		keyed = keyed || c.Key
	}
	if !keyed && rel.Identity == changelog.IdentityKey {
		rel.Identity = changelog.IdentityNothing
	}
	return rel
}

// nameTypes learns the names of a relation's types. With values in binary it also checks that the types are still such
// that binary is exact; otherwise the stream has to be read again as text.
func (s *Source) nameTypes(m *pgoutput.RelationMsg) error {
	var missing []uint32
	for _, c := range m.Columns {
		if _, ok := s.types[c.TypeOID]; !ok && !slices.Contains(missing, c.TypeOID) {
			missing = append(missing, c.TypeOID)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	rows, err := s.ctl.Query(s.ctx, `SELECT t.oid::int8, n.nspname, t.typname, t.typtype::text FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
		WHERE t.oid = ANY ($1::oid[])`, oidArray(missing))
	if err != nil {
		return s.lost(err)
	}
	var oid int64
	var schema, name, kind string
	_, err = pgx.ForEachRow(rows, []any{&oid, &schema, &name, &kind}, func() error {
		s.types[uint32(oid)] = [2]string{schema, name}
		if s.binary && (schema != "pg_catalog" || kind != "b" || !streamBinary(pg.Type{OID: uint32(oid), Schema: schema, Name: name, Kind: kind[0]})) {
			return ErrTextNeeded
		}
		return nil
	})
	if err == ErrTextNeeded {
		return err
	}
	if err != nil {
		return s.lost(err)
	}
	for _, oid := range missing {
		if _, ok := s.types[oid]; !ok {
			s.types[oid] = [2]string{"pg_catalog", "text"} // a type that has been dropped since: its values come as text
		}
	}
	return nil
}

func oidArray(oids []uint32) string {
	b := []byte{'{'}
	for i, o := range oids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(o), 10)
	}
	return string(append(b, '}'))
}

// streamBinary tells whether a column's values may come in binary. Arrays may not, although exact: a target applies
// updates through arrays of values, and arrays of arrays are something else in Postgres. Neither may ranges that users
// made: a value is sent under the number of its type, and theirs differs from server to server. Enums are their labels.
func streamBinary(t pg.Type) bool {
	base := &t
	for base.BaseType != nil {
		base = base.BaseType
	}
	return pg.BinaryExact(t) && !base.Array && (base.Builtin() || base.Kind == 'e')
}

// attribute is a column as the catalog has it now.
type attribute struct {
	num       int16
	name      string
	typ       uint32
	mod       int32
	formatted string
	notNull   bool
	def       *string
	missing   *string // the value of rows that were there before the column; nil if they were rewritten
	generated bool
	rewritten bool // the table has been written anew at some time
	root      bool // of a partitioned table
}

// diff explains how known became now, which is what a rename, a drop, an add or a change of type did to it.
//
// The log tells only the new columns. Which of them are old ones is told by their numbers in the catalog, which outlive
// renames. The catalog shows the present, later than the log, so it is used only for what cannot have changed since: a
// column that exists now has existed all along, and the log lists columns in the order of their numbers. Where that
// leaves two readings any is taken that keeps the key, and the table is copied again, for the reading may lose values.
func (s *Source) diff(m *pgoutput.RelationMsg, known, now *tableShape, namespace string) ([]changelog.SchemaStep, error) {
	attrs, err := s.attributes(m.ID)
	if err != nil {
		return nil, err
	}
	switch {
	case known.align(now, attrs):
	case known.alignByName(now, attrs, m):
		s.env.Log.Info("how a table changed its columns cannot be told any more; it is copied again", "table", namespace+"."+m.Name)
		s.copyLater(m.ID)
	default:
		return nil, errs.New(errs.SourceSchemaChange,
			"table %s.%s changed its columns, and how cannot be told any more, because it has changed again since", namespace, m.Name).
			WithHint("make the same change on the target by hand, then copy the table again: weir sources refresh '%s'", selection.Quote(pg.TargetName{Schema: namespace, Name: m.Name}))
	}
	sent := slices.DeleteFunc(slices.Clone(attrs), func(a attribute) bool { return a.generated || s.opts.Excluded(namespace, m.Name, a.name) })
	if known.hides(now, sent) {
		s.env.Log.Info("a new column has another name by now, and what its rows were given cannot be told; the table is copied again", "table", namespace+"."+m.Name)
		s.copyLater(m.ID)
	}
	byNumber := map[int16]*attribute{}
	for i := range attrs {
		byNumber[attrs[i].num] = &attrs[i]
	}
	var steps []changelog.SchemaStep
	if known.Schema != now.Schema || known.Name != now.Name {
		steps = append(steps, changelog.SchemaStep{Kind: changelog.RenameTable, NewName: now.Name})
	}
	formatted := func(c *columnShape) (string, error) {
		if a := byNumber[c.Attnum]; a != nil && a.typ == c.TypeOID && a.mod == c.TypeMod {
			return a.formatted, nil
		}
		var f *string
		if err := s.ctl.QueryRow(s.ctx, `SELECT format_type($1::oid, $2::int4)`, fmt.Sprint(c.TypeOID), c.TypeMod).Scan(&f); err != nil {
			return "", s.lost(err)
		}
		if f == nil {
			return "text", nil
		}
		return *f, nil
	}
	// Drops first: a new column may have a dropped one's name.
	for _, k := range known.Columns {
		if !slices.ContainsFunc(now.Columns, func(c columnShape) bool { return c.Attnum == k.Attnum }) {
			steps = append(steps, changelog.SchemaStep{Kind: changelog.DropColumn, Column: k.Name})
		}
	}
	var added []*columnShape
	for i := range now.Columns {
		c := &now.Columns[i]
		at := slices.IndexFunc(known.Columns, func(k columnShape) bool { return k.Attnum == c.Attnum })
		if at < 0 {
			added = append(added, c)
			continue
		}
		k := &known.Columns[at]
		typ, err := formatted(c)
		if err != nil {
			return nil, err
		}
		if k.Name != c.Name {
			steps = append(steps, changelog.SchemaStep{Kind: changelog.RenameColumn, Column: k.Name, NewName: c.Name, Type: typ})
		}
		if k.TypeOID != c.TypeOID || k.TypeMod != c.TypeMod {
			steps = append(steps, changelog.SchemaStep{Kind: changelog.AlterType, Column: c.Name, Type: typ})
		}
	}
	for _, c := range added {
		typ, err := formatted(c)
		if err != nil {
			return nil, err
		}
		step := changelog.SchemaStep{Kind: changelog.AddColumn, Column: c.Name, Type: typ}
		if a := byNumber[c.Attnum]; a != nil {
			step.NotNull = a.notNull
			switch {
			case a.missing != nil:
				step.Default = pg.Literal(*a.missing) + "::" + typ
			case a.def == nil:
			case isLiteral(*a.def) && a.root:
				step.Default = *a.def // its partitions know better; nobody asks them
			case isLiteral(*a.def) && !a.rewritten:
				// The default came after the column: rows that were there have none.
			default:
				// Each row got a value of its own, or the table was written anew since: only the rows can tell.
				s.copyLater(m.ID)
			}
			if a.def != nil {
				step.NewDefault = *a.def
			}
		}
		steps = append(steps, step)
	}
	return steps, nil
}

// copyLater has the table copied again behind the transaction at hand.
func (s *Source) copyLater(oid uint32) {
	if !slices.Contains(s.again, oid) {
		s.again = append(s.again, oid)
	}
}

// hides tells whether a column that is new in now may be there today under another name, so that the catalog does not
// tell what it gave to the rows that were there. now has its numbers; attrs are the columns that the log can show.
func (t *tableShape) hides(now *tableShape, attrs []attribute) bool {
	var newest, last int16
	for _, k := range t.Columns {
		newest = max(newest, k.Attnum)
	}
	found := map[int16]bool{}
	unnamed := false
	for _, c := range now.Columns {
		if slices.ContainsFunc(t.Columns, func(k columnShape) bool { return k.Attnum == c.Attnum }) {
			continue
		}
		if slices.ContainsFunc(attrs, func(a attribute) bool { return a.num == c.Attnum && a.name == c.Name }) {
			found[c.Attnum], last = true, max(last, c.Attnum)
		} else {
			unnamed = true
		}
	}
	for _, a := range attrs {
		// One behind all that were found came later than this change, unless one is missing.
		if a.num > newest && !found[a.num] && (unnamed || a.num < last) {
			return true
		}
	}
	return false
}

// align gives now's columns their numbers; false when there is more than one reading.
func (t *tableShape) align(now *tableShape, attrs []attribute) bool {
	present := map[int16]*attribute{}
	byName := map[string]*attribute{}
	var newest int16
	for i := range attrs {
		present[attrs[i].num] = &attrs[i]
		byName[attrs[i].name] = &attrs[i]
	}
	inNow := func(name string) bool {
		return slices.ContainsFunc(now.Columns, func(c columnShape) bool { return c.Name == name })
	}
	var old []columnShape
	for _, k := range t.Columns {
		newest = max(newest, k.Attnum)
		// What exists now existed then. What does not was there then if its name was; had it been renamed before it
		// was dropped, the places below would not agree.
		if present[k.Attnum] != nil || inNow(k.Name) {
			old = append(old, k)
		}
	}
	if len(now.Columns) < len(old) {
		return false
	}
	for i := range now.Columns {
		c := &now.Columns[i]
		if i < len(old) {
			k := old[i]
			if c.Name != k.Name && slices.ContainsFunc(old, func(x columnShape) bool { return x.Name == c.Name }) && present[k.Attnum] == nil {
				return false
			}
			if c.Name != k.Name && present[k.Attnum] == nil {
				return false
			}
			c.Attnum = k.Attnum
			continue
		}
		if a := byName[c.Name]; a != nil && a.num > newest {
			c.Attnum = a.num
			continue
		}
		// New then and gone now: its number is one that nothing has any more. Any will do that is not taken.
		newest++
		for present[newest] != nil {
			newest++
		}
		c.Attnum = newest
	}
	return true
}

// alignByName gives now's columns the numbers of those that had their names; false when the key has got another.
func (t *tableShape) alignByName(now *tableShape, attrs []attribute, m *pgoutput.RelationMsg) bool {
	taken := map[int16]bool{}
	var newest int16
	for _, k := range t.Columns {
		taken[k.Attnum] = true
		newest = max(newest, k.Attnum)
	}
	for _, a := range attrs {
		taken[a.num] = true
	}
	for i := range now.Columns {
		c := &now.Columns[i]
		if at := slices.IndexFunc(t.Columns, func(k columnShape) bool { return k.Name == c.Name }); at >= 0 {
			c.Attnum = t.Columns[at].Attnum
			continue
		}
		if m.Columns[i].Key {
			return false
		}
		if at := slices.IndexFunc(attrs, func(a attribute) bool { return a.name == c.Name && a.num > newest }); at >= 0 {
			c.Attnum = attrs[at].num
			continue
		}
		c.Attnum = newest
		for taken[c.Attnum] {
			c.Attnum++
		}
		taken[c.Attnum] = true
	}
	return true
}

// literal is a constant as the server writes one: the same wherever and whenever it is evaluated.
var literal = regexp.MustCompile(`^(NULL|true|false|-?[0-9.]+|'([^']|'')*')(::[a-zA-Z_ ".0-9]+(\([0-9, ]+\))?(\[\])*)*$`)

func isLiteral(expr string) bool { return literal.MatchString(expr) }

// attributes reads a table's columns as they are now.
func (s *Source) attributes(oid uint32) ([]attribute, error) {
	rows, err := s.ctl.Query(s.ctx, `SELECT a.attnum, a.attname, a.atttypid::int8, a.atttypmod, format_type(a.atttypid, a.atttypmod), a.attnotnull,
			pg_get_expr(d.adbin, d.adrelid), a.attgenerated <> '',
			CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END, c.relfilenode <> c.oid, c.relkind = 'p'
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, fmt.Sprint(oid))
	if err != nil {
		return nil, s.lost(err)
	}
	var attrs []attribute
	var a attribute
	var typ int64
	_, err = pgx.ForEachRow(rows, []any{&a.num, &a.name, &typ, &a.mod, &a.formatted, &a.notNull, &a.def, &a.generated, &a.missing, &a.rewritten, &a.root}, func() error {
		a.typ = uint32(typ)
		attrs = append(attrs, a)
		a.def, a.missing = nil, nil
		return nil
	})
	if err != nil {
		return nil, s.lost(err)
	}
	return attrs, nil
}

// lost says that the control connection failed.
func (s *Source) lost(err error) error {
	return errs.New(errs.SourceUnreachable, "source %s: %w", s.opts.Config.Server(), err).Because(err)
}

// aheadKey + OID is given by a target that commits in lanes: how far the table is, where that is further than position.
const aheadKey = "ahead/"

func restoreAhead(state dataflow.State) (map[uint32]pg.LSN, error) {
	var ahead map[uint32]pg.LSN
	for key, value := range state {
		if !strings.HasPrefix(key, aheadKey) {
			continue
		}
		oid, ok := StateTable(key)
		at, err := pg.ParseLSN(string(value))
		if !ok || err != nil {
			return nil, errs.New(errs.StateCorrupt, "stored position %q of %q", value, key)
		}
		if ahead == nil {
			ahead = map[uint32]pg.LSN{}
		}
		ahead[oid] = at
	}
	return ahead, nil
}

// StateTable tells which table a key of the state is about, by its OID; false: it is about all of them.
func StateTable(key string) (oid uint32, ok bool) {
	kind, rest, _ := strings.Cut(key, "/")
	if !slices.Contains([]string{"table", "copy", "done", "bounds", "ahead"}, kind) {
		return 0, false
	}
	rest, _, _ = strings.Cut(rest, "/")
	n, err := strconv.ParseUint(rest, 10, 32)
	return uint32(n), err == nil
}

// KnownTable is a table as the pipeline last knew it.
type KnownTable struct {
	Name    pg.TargetName // at the source
	Version uint32        // grows with every change of name or columns; 1 at first
}

// KnownTables reads the tables from a stored state, by OID.
func KnownTables(state dataflow.State) (map[uint32]KnownTable, error) {
	shapes, err := loadShapes(state)
	known := make(map[uint32]KnownTable, len(shapes))
	for oid, t := range shapes {
		known[oid] = KnownTable{Name: t.name(), Version: t.Version}
	}
	return known, err
}

func loadShapes(state dataflow.State) (map[uint32]*tableShape, error) {
	tables := map[uint32]*tableShape{}
	for key, value := range state {
		var oid uint32
		if n, err := fmt.Sscanf(key, "table/%d", &oid); n != 1 || err != nil {
			continue
		}
		shape := &tableShape{}
		if err := json.Unmarshal(value, shape); err != nil {
			return nil, errs.New(errs.StateCorrupt, "stored shape of table %d: %w", oid, err).Because(err)
		}
		tables[oid] = shape
	}
	return tables, nil
}

// selected lists the tables that the mirror means, as the catalog has them now. A partitioned table stands for its
// partitions, except on 12, which cannot publish one: there each partition is a table of its own.
func (s *Source) selected(ctx context.Context, conn *pgx.Conn) ([]pg.TableName, error) {
	names, err := pg.ListTables(ctx, conn)
	if err != nil {
		return nil, err
	}
	var out []pg.TableName
	for _, t := range names {
		if !slices.ContainsFunc(t.Columns, func(c string) bool { return !s.opts.Excluded(t.Schema, t.Name, c) }) {
			continue // there is nothing to write; it joins when it gets a column
		}
		if s.version < 130000 {
			if t.Kind == 'r' && t.Persistence == 'p' && s.opts.Includes(t.Schema, t.Name) {
				out = append(out, t)
			}
			continue
		}
		if (t.Kind == 'r' || t.Kind == 'p') && t.Persistence == 'p' && t.Parent == 0 && s.opts.Includes(t.Schema, t.Name) {
			out = append(out, t)
		}
	}
	return out, nil
}
