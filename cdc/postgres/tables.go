package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/cdc/snapshot"
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
// sends them, which weir's does not, and without those that it leaves out.
func (s *Source) shapeOf(t *pg.Table) *tableShape {
	shape := &tableShape{Schema: t.Schema, Name: t.Name, Version: 1}
	if known := s.tables[t.OID]; known != nil && s.opts.KeepNames {
		shape.Schema, shape.Name = known.Schema, known.Name
	}
	for _, c := range t.Columns {
		if c.Generated != 0 || !s.sends(t, &c) {
			continue
		}
		shape.Columns = append(shape.Columns, columnShape{Attnum: c.Attnum, Name: c.Name, TypeOID: c.Type.OID, TypeMod: c.Mod})
	}
	return shape
}

// sends tells whether the publication sends a column. Somebody else's may send excluded ones, which the target passes over.
func (s *Source) sends(t *pg.Table, column *pg.Column) bool {
	if columns, known := s.sent[t.OID]; known {
		return columns == nil || slices.Contains(columns, column.Name)
	}
	if list, known := s.lists[t.OID]; known && !s.opts.KeepPublication {
		return list == nil || slices.Contains(list, column.Attnum)
	}
	return !s.listed(t) || !s.leaves(t, column)
}

// listed tells whether weir's own publication names the table's columns.
func (s *Source) listed(t *pg.Table) bool {
	// The server refuses an application's updates when a list lacks a column of the identity.
	if s.version < 150000 || t.Identity == 'f' {
		return false
	}
	left := false
	for i := range t.Columns {
		c := &t.Columns[i]
		if !s.leaves(t, c) {
			continue
		}
		if slices.Contains(t.IdentityKey, c.Name) {
			return false
		}
		left = left || c.Generated == 0
	}
	return left
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
	if s.reader != nil && s.reader.inBlock && known.next(m, namespace) != nil {
		return nil, nil, nil, ErrWriteAheadRefused // nobody else sees it before that commits, nor does the catalog show it
	}
	if err := s.visible(); err != nil {
		return nil, nil, nil, err
	}
	if s.reader != nil && !s.opts.Includes(namespace, m.Name) {
		return &relation{msg: m}, nil, nil, s.leave(m.ID)
	}
	described := m
	m, err := s.makeWay(m, namespace)
	if err != nil {
		return nil, nil, nil, err
	}
	if m == nil {
		return &relation{msg: described}, nil, nil, nil
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
	shared, err := s.sharesKey(m)
	if err != nil {
		return nil, nil, nil, err
	}
	now := known.next(m, namespace)
	attrs, gone, err := s.attributes(m.ID, now != nil)
	if err != nil {
		return nil, nil, nil, err
	}
	relisted := false
	if now != nil {
		if s.opts.Join != nil && s.usersType(known, now) {
			if err := s.opts.Join(s.ctx, []uint32{m.ID}); err != nil {
				return nil, nil, nil, err
			}
		}
		relisted = s.relisted(m.ID, known, now, attrs)
		if !relisted {
			err = s.align(m, known, now, namespace, attrs)
		}
		if err == nil && (relisted || s.sent[m.ID] != nil) {
			err = s.learnList(m.ID) // its columns may have other names in it, too
		}
	} else {
		now = known.renewed(attrs, gone, s.xid())
		if s.reader != nil && s.reader.inTx && (now != nil && s.sendsLeft(m.ID, known) || now == nil && s.mayBear(m.ID, known, attrs)) {
			return s.setAside(m)
		}
		if now == nil {
			r.rel = s.relationOf(m, namespace, known)
			r.rel.KeyShared = shared
			return r, nil, nil, nil
		}
		s.env.Log.Info("a column was dropped, and added again under its name; the table is copied again", "table", namespace+"."+m.Name)
		s.copyLater(m.ID)
		attrs, gone, err = s.attributes(m.ID, true)
	}
	inTx := s.reader != nil && s.reader.inTx
	if inTx && (errs.Is(err, errs.SourceSchemaChange) || err == nil && !relisted && s.mayShow(m.ID, known, now, attrs)) {
		return s.setAside(m)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	left := s.noteLeft(m.ID, s.outward(m, now, namespace))
	steps, err := s.diff(m, known, now, namespace, attrs, gone, s.left[m.ID])
	if err != nil {
		return nil, nil, nil, err
	}
	change := &changelog.SchemaChange{Steps: steps}
	// What was described before may have been passed over, or told another name than the table has at the target.
	if before != nil && before.rel != nil && before.rel.Schema == known.Schema && before.rel.Name == known.Name {
		change.Old = before.rel
	} else {
		change.Old = s.describedAs(m.ID, known)
	}
	r.rel = s.relationOf(m, namespace, now)
	r.rel.KeyShared = shared
	change.New = r.rel
	s.tables[m.ID] = now
	s.tableProgress(m.ID, func(p *TableProgress) { p.Schema, p.Name = now.Schema, now.Name })
	s.env.Log.Info("table changed its shape", "table", r.rel.String(), "steps", fmt.Sprint(steps))
	state := append(left, now.state(m.ID))
	if slices.Contains(s.again, m.ID) {
		state = append(state, liveCopyState(m.ID, s.anotherCopy(m.ID)))
	}
	if f := s.filters[m.ID]; f != nil && !f.follow(now) {
		anew, err := s.beginAnew(m.ID)
		if err != nil {
			return nil, nil, nil, err
		}
		state = append(state, anew...)
		r.filter = s.filters[m.ID]
	}
	// The change may be guessed, or follow one that was: then rows at the target may not be what they are taken for.
	c := s.copies[m.ID]
	change.Replaced = slices.Contains(s.again, m.ID) || c != nil && (c.Again || !c.Done && len(c.Chunks) == 0)
	r.rel.Recopied = r.rel.Recopied || change.Replaced
	return r, change, state, nil
}

// sharesKey tells whether rows of a table may have one key until their transaction ends: it has no primary key that is
// checked at once. Where the identity is a key it has one like that.
func (s *Source) sharesKey(m *pgoutput.RelationMsg) (shared bool, err error) {
	if m.Identity != 'f' {
		return false, nil
	}
	err = s.ctl.QueryRow(s.ctx, `SELECT NOT EXISTS (SELECT FROM pg_index WHERE indrelid = $1::oid AND indisprimary AND indimmediate)`, fmt.Sprint(m.ID)).Scan(&shared)
	if err != nil {
		return false, s.lost(err)
	}
	return shared, nil
}

// setAside is for a description of which nobody can tell how the table came to it, because it has changed again since, where
// a guess will not do. The rows behind it are passed over, and the table is copied as it is by then.
func (s *Source) setAside(m *pgoutput.RelationMsg) (*relation, *changelog.SchemaChange, []dataflow.StateChange, error) {
	err := s.startOver(m.ID)
	return &relation{msg: m, filter: s.filters[m.ID]}, nil, nil, err
}

// startOver implements relationSource.
func (s *Source) startOver(id uint32) error {
	anew, err := s.beginAnew(id)
	if err != nil {
		return err
	}
	return s.send(dataflow.Message{Kind: dataflow.KindMark, State: anew})
}

// usersType tells whether a column has a type that no column had and that users make: the target may not have it.
func (s *Source) usersType(known, now *tableShape) bool {
	return slices.ContainsFunc(now.Columns, func(c columnShape) bool {
		return s.types[c.TypeOID][0] != "pg_catalog" && !slices.ContainsFunc(known.Columns, func(k columnShape) bool { return k.TypeOID == c.TypeOID })
	})
}

// filterOf implements relationSource.
func (s *Source) filterOf(id uint32) rowFilter {
	if f := s.filters[id]; f != nil {
		return f
	}
	return nil
}

// renewed implements relationSource.
func (s *Source) renewed(oid uint32) (bool, error) {
	known := s.tables[oid]
	if known == nil {
		return false, nil
	}
	if err := s.visible(); err != nil {
		return false, err
	}
	if r := s.reader.rels[oid]; r != nil && r.rel != nil {
		if shared, err := s.sharesKey(r.msg); err != nil || shared != r.rel.KeyShared {
			return err == nil, err
		}
	}
	attrs, gone, err := s.attributes(oid, false)
	return err == nil && (known.renewed(attrs, gone, s.xid()) != nil || s.mayBear(oid, known, attrs)), err
}

// xid is the number of the transaction at hand, 0 outside of one.
func (s *Source) xid() uint32 {
	if s.reader == nil || !s.reader.inTx {
		return 0
	}
	return s.reader.xid
}

// visibleWait bounds the wait for a transaction that is in the log and that nobody sees yet: a standby on which its commit
// waits may be away for long, and may wait for us.
const visibleWait = 10 * time.Second

// visible waits until the catalog shows what the transaction at hand did. The server sends a transaction when its commit is
// in the log, which is a moment before others see it, and longer if the commit waits for a standby.
func (s *Source) visible() error {
	if s.reader == nil || !s.reader.inTx || s.reader.xid == s.seen || s.standby {
		return nil // a standby sends what it has applied
	}
	begin := s.env.Clock.Now()
	for {
		var text string
		if err := s.ctl.QueryRow(s.ctx, "SELECT "+s.currentSnapshot()).Scan(&text); err != nil {
			return s.lost(err)
		}
		view, err := snapshot.ParseView(text)
		if err != nil {
			return err
		}
		if view.Sees(s.reader.xid, false) {
			break
		}
		if s.env.Clock.Now().Sub(begin) > visibleWait {
			s.env.Log.Warn("the catalog does not show a transaction that is in the log; its commit waits, perhaps for a standby", "xid", s.reader.xid)
			break
		}
		if err := s.env.Clock.Sleep(s.ctx, time.Millisecond); err != nil {
			return err
		}
	}
	s.seen = s.reader.xid
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

func (s *Source) oldColumns(oid uint32, t *tableShape) []changelog.Column {
	var cols []changelog.Column
	for _, c := range t.Columns {
		n := s.types[c.TypeOID]
		cols = append(cols, changelog.Column{Name: c.Name, TypeOID: c.TypeOID, TypeMod: c.TypeMod, TypeSchema: n[0], TypeName: n[1], LeftOut: s.leftOut(oid, t.Schema, t.Name, c.Name, c.Attnum)})
	}
	return cols
}

// recopies tells whether a copy of a table is to come or not complete.
func (s *Source) recopies(oid uint32) bool {
	c := s.copies[oid]
	return slices.Contains(s.again, oid) || c != nil && (c.Again || !c.Done)
}

// relationOf is a description whose columns are those of shape.
func (s *Source) relationOf(m *pgoutput.RelationMsg, namespace string, shape *tableShape) *changelog.Relation {
	rel := &changelog.Relation{ID: m.ID, Version: shape.Version, Schema: namespace, Name: m.Name, Binary: s.binary, Recopied: s.recopies(m.ID)}
	switch m.Identity {
	case 'n':
		rel.Identity = changelog.IdentityNothing
	case 'f':
		rel.Identity = changelog.IdentityFull
	default:
		rel.Identity = changelog.IdentityKey
	}
	keyed := false
	for i, c := range m.Columns {
		n := s.types[c.TypeOID]
		rel.Columns = append(rel.Columns, changelog.Column{
			Name: c.Name, TypeOID: c.TypeOID, TypeMod: c.TypeMod, Key: c.Key, TypeSchema: n[0], TypeName: n[1],
			LeftOut: s.leftOut(m.ID, shape.Schema, shape.Name, c.Name, shape.Columns[i].Attnum),
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

// relisted tells whether somebody else's publication sends other excluded columns than before and nothing more has
// changed, and gives now's columns their numbers then. Their order tells nothing: a column that was there all along turns
// up in front of known ones.
func (s *Source) relisted(oid uint32, known, now *tableShape, attrs []attribute) bool {
	if !s.opts.KeepPublication {
		return false
	}
	next := slices.Clone(now.Columns)
	kept := 0
	for i := range next {
		c := &next[i]
		same := func(k columnShape) bool { return k.Name == c.Name && k.TypeOID == c.TypeOID && k.TypeMod == c.TypeMod }
		if at := slices.IndexFunc(known.Columns, same); at >= 0 {
			c.Attnum = known.Columns[at].Attnum
			kept++
			continue
		}
		at := slices.IndexFunc(attrs, func(a attribute) bool { return a.name == c.Name && a.typ == c.TypeOID && a.mod == c.TypeMod })
		if at < 0 || !s.leftOut(oid, known.Schema, known.Name, c.Name, attrs[at].num) {
			return false
		}
		c.Attnum = attrs[at].num
	}
	gone := 0
	for _, k := range known.Columns {
		if s.leftOut(oid, known.Schema, known.Name, k.Name, k.Attnum) && !slices.ContainsFunc(now.Columns, func(c columnShape) bool { return c.Name == k.Name }) {
			gone++
		}
	}
	if known.Schema != now.Schema || known.Name != now.Name || kept+gone != len(known.Columns) {
		return false
	}
	now.Columns = next
	return true
}

// learnList asks which columns of a table are sent.
func (s *Source) learnList(oid uint32) error {
	p, err := pg.LoadPublication(s.ctx, s.ctl, s.opts.Publication)
	if err != nil {
		return s.lost(err)
	}
	if p != nil {
		s.sent[oid] = p.Tables[oid].Columns
	}
	return nil
}

// copyLater has the table copied again behind the transaction at hand.
func (s *Source) copyLater(oid uint32) {
	if !slices.Contains(s.again, oid) {
		s.again = append(s.again, oid)
	}
}

// lost says that the control connection failed.
func (s *Source) lost(err error) error {
	if bad := notUTF8(err); bad != nil {
		return bad
	}
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
	if !slices.Contains([]string{"table", "copy", "done", "bounds", "ahead", "parts", "left"}, kind) {
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
		if (t.Kind == 'r' || t.Kind == 'p') && !t.Apart && t.Persistence == 'p' && t.Parent == 0 && s.opts.Includes(t.Schema, t.Name) {
			out = append(out, t)
		}
	}
	return out, nil
}
