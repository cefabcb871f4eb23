package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// Names change hands: a new table is filled and put into the old one's place, or two tables swap. The log tells a table's
// name with its next row, so it tells of the new table at once, and of the old one perhaps never; at the target the name
// is still taken. The catalog says where all of them are by now. They are brought there together: whoever has another
// name steps aside, then each takes its own.
//
// The catalog may be ahead of the log. A description from between then has a name that is not the table's any more; when
// that name is taken, the catalog is asked again, and the description counts under the present one.

// moved is a table that stepped aside and takes its name when the table that was described has taken its own.
type moved struct {
	oid uint32
	to  pg.TargetName
}

// NamesMoved ends a source with NamesApart. Whoever runs it brings the target's tables, and what is stored of them, to
// Names, and starts it again: names that have moved already need no change in the stream.
type NamesMoved struct {
	Names map[uint32]pg.TargetName // of the mirrored tables that exist, by OID, as the catalog has them
}

func (e *NamesMoved) Error() string { return "names of tables changed hands" }

// Renamed is a table's stored state under another name.
func Renamed(state []byte, name pg.TargetName) ([]byte, error) {
	t := &tableShape{}
	if err := json.Unmarshal(state, t); err != nil {
		return nil, errs.New(errs.StateCorrupt, "stored shape of a table: %w", err).Because(err)
	}
	t.Schema, t.Name, t.Version = name.Schema, name.Name, t.Version+1
	return json.Marshal(t)
}

// StateKeys are the keys of a table's state, that of its shape first.
func StateKeys(oid uint32) []string {
	return []string{tableKey(oid), liveCopyState(oid, nil).Key, leftState(oid, nil).Key}
}

func (t *tableShape) name() pg.TargetName { return pg.TargetName{Schema: t.Schema, Name: t.Name} }

// called is m, or with KeepNames m under the name that its table has had from the beginning.
func (s *Source) called(m *pgoutput.RelationMsg) *pgoutput.RelationMsg {
	known := s.tables[m.ID]
	if !s.opts.KeepNames || known == nil || known.Schema == m.Namespace && known.Name == m.Name {
		return m
	}
	kept := *m
	kept.Namespace, kept.Name = known.Schema, known.Name
	return &kept
}

// keepsName tells whether a table that is mirrored keeps a name that another has by now, which can then not join: the
// target would have both under one name.
func (s *Source) keepsName(t pg.TableName) bool {
	for oid, known := range s.tables {
		if s.opts.KeepNames && oid != t.OID && known.Schema == t.Schema && known.Name == t.Name {
			return true
		}
	}
	return false
}

// makeWay clears the name that m gives its table, if another mirrored table has it. It returns m, or m with the name that
// the catalog has; nil if that has no such table any more.
func (s *Source) makeWay(m *pgoutput.RelationMsg, namespace string) (*pgoutput.RelationMsg, error) {
	name := pg.TargetName{Schema: namespace, Name: m.Name}
	if s.reader == nil || s.reader.inBlock || s.tables[m.ID].name() == name {
		return m, nil
	}
	present, err := s.clearName(m.ID, name)
	if present == nil || err != nil {
		return m, err
	}
	own, exists := present[m.ID]
	if !exists {
		return nil, nil // dropped since, and let go with the others
	}
	if own == name {
		return m, nil
	}
	called := *m
	called.Namespace, called.Name = own.Schema, own.Name
	return &called, nil
}

// clearName has the other tables step aside that are called otherwise by now, if one of them has the name that table oid
// gets. It returns the present names, nil if the name was free.
func (s *Source) clearName(oid uint32, name pg.TargetName) (map[uint32]pg.TargetName, error) {
	taken := false
	for other, t := range s.tables {
		taken = taken || other != oid && t.name() == name
	}
	if !taken {
		return nil, nil
	}
	present, err := s.presentNames()
	if err != nil {
		return nil, err
	}
	if _, exists := present[oid]; !exists {
		oid = 0 // the name that it has is perhaps another's by now, too
	}
	return present, s.clearNames(present, oid)
}

// clearNames has all tables step aside that are called otherwise by now, but for one; see takeNames.
func (s *Source) clearNames(present map[uint32]pg.TargetName, but uint32) error {
	if err := s.reader.flush(); err != nil {
		return err
	}
	for _, oid := range slices.Sorted(maps.Keys(s.tables)) {
		now, exists := present[oid]
		if oid == but || exists && now == s.tables[oid].name() {
			continue
		}
		if s.opts.NamesApart {
			return &NamesMoved{Names: present}
		}
		if err := s.stepAside(oid, now, exists); err != nil {
			return err
		}
	}
	return nil
}

// leave lets go of a table that exists under a name that is not selected. The target keeps its rows under the old name,
// unless another table has that by now: then they step aside, and takeNames has to follow.
func (s *Source) leave(oid uint32) error {
	present, err := s.presentNames()
	if err != nil {
		return err
	}
	name := s.tables[oid].name()
	var taken bool
	if err := s.ctl.QueryRow(s.ctx, `SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2 AND c.oid <> $3::oid)`,
		name.Schema, name.Name, fmt.Sprint(oid)).Scan(&taken); err != nil {
		return s.lost(err)
	}
	if taken && !s.opts.KeepNames {
		return s.clearNames(present, 0)
	}
	s.env.Log.Info("table leaves", "table", name.String(), "now", present[oid].String())
	s.unpublish(oid)
	s.forgetTable(oid)
	return s.send(dataflow.Message{Kind: dataflow.KindMark, State: []dataflow.StateChange{{Key: tableKey(oid)}, liveCopyState(oid, nil), leftState(oid, nil)}})
}

// unpublish takes a table that leaves out of the publication; its rows would go on being sent for nothing.
func (s *Source) unpublish(oid uint32) {
	if s.opts.KeepPublication {
		return
	}
	// Its name is asked for here: that which is known may be another table's by now.
	var name string
	err := s.ctl.QueryRow(s.ctx, `SELECT oid::regclass::text FROM pg_class WHERE oid = $1::oid`, fmt.Sprint(oid)).Scan(&name)
	if errors.Is(err, pgx.ErrNoRows) {
		return // dropped by now
	}
	if err == nil {
		err = s.changePublication(s.ctx, "ALTER PUBLICATION "+pg.Ident(s.opts.Publication)+" DROP TABLE "+name, []uint32{oid}, false)
	}
	if err != nil {
		s.env.Log.Warn("a table that left stays in the publication", "table", name, "oid", oid, "error", err)
	}
}

func (s *Source) presentNames() (map[uint32]pg.TargetName, error) {
	rows, err := s.ctl.Query(s.ctx, `SELECT c.oid::int8, n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = ANY ($1::oid[])`, oidArray(slices.Collect(maps.Keys(s.tables))))
	if err != nil {
		return nil, s.lost(err)
	}
	present := map[uint32]pg.TargetName{}
	var oid int64
	var name pg.TargetName
	if _, err := pgx.ForEachRow(rows, []any{&oid, &name.Schema, &name.Name}, func() error {
		present[uint32(oid)] = name
		return nil
	}); err != nil {
		return nil, s.lost(err)
	}
	return present, nil
}

// stepAside takes a table's old name from it at the target. One that is gone, or not meant any more under its new name,
// leaves the mirror.
func (s *Source) stepAside(oid uint32, now pg.TargetName, exists bool) error {
	old := s.describedAs(oid, s.tables[oid])
	leave := []dataflow.StateChange{{Key: tableKey(oid)}, liveCopyState(oid, nil), leftState(oid, nil)}
	m := dataflow.Message{Kind: dataflow.KindSchema, Schema: &changelog.SchemaChange{Old: old, New: old, Steps: []changelog.SchemaStep{{Kind: changelog.StepAside}}}}
	switch {
	case !exists:
		m.Schema.New, m.Schema.Steps[0].Kind, m.State = nil, changelog.DropTable, leave
		s.forgetTable(oid)
	case !s.opts.Includes(now.Schema, now.Name):
		m.State = leave
		s.unpublish(oid)
		s.forgetTable(oid)
	default:
		s.moving = append(s.moving, moved{oid, now})
	}
	s.env.Log.Info("a table's name was taken by another", "table", old.String(), "dropped", !exists, "now", now.String())
	return s.send(m)
}

// takeNames gives the tables that stepped aside their names.
func (s *Source) takeNames() error {
	moving := s.moving
	s.moving = nil
	for _, mv := range moving {
		known := s.tables[mv.oid]
		next := *known
		next.Schema, next.Name, next.Version = mv.to.Schema, mv.to.Name, known.Version+1
		s.tables[mv.oid] = &next
		if r := s.reader.rels[mv.oid]; r != nil && r.rel != nil {
			called := *r.msg
			called.Namespace, called.Name = next.Schema, next.Name
			rel := s.relationOf(&called, next.Schema, &next)
			rel.KeyShared = r.rel.KeyShared
			s.reader.rels[mv.oid] = &relation{msg: &called, rel: rel, full: r.full, filter: r.filter}
			s.reader.last = nil
		}
		s.tableProgress(mv.oid, func(p *TableProgress) { p.Schema, p.Name = next.Schema, next.Name })
		if err := s.send(dataflow.Message{Kind: dataflow.KindSchema, State: []dataflow.StateChange{next.state(mv.oid)},
			Schema: &changelog.SchemaChange{Old: s.describedAs(mv.oid, known), New: s.describedAs(mv.oid, &next),
				Steps: []changelog.SchemaStep{{Kind: changelog.RenameTable, NewName: next.Name}}}}); err != nil {
			return fmt.Errorf("rename %s: %w", known.name(), err)
		}
	}
	return nil
}

// describedAs is a table without its identity, which a change of its name does not need.
func (s *Source) describedAs(oid uint32, t *tableShape) *changelog.Relation {
	return &changelog.Relation{ID: oid, Version: t.Version, Schema: t.Schema, Name: t.Name, Binary: s.binary, Columns: s.oldColumns(oid, t)}
}

// forgetTable drops what is known of a table; its rows are passed over from here on.
func (s *Source) forgetTable(oid uint32) {
	delete(s.tables, oid)
	delete(s.copies, oid)
	delete(s.filters, oid)
	delete(s.unlisted, oid)
	delete(s.left, oid)
	delete(s.conditions, oid)
	if rel := s.reader.rels[oid]; rel != nil {
		s.reader.rels[oid] = &relation{msg: rel.msg}
		s.reader.last = nil
	}
	s.progress.mu.Lock()
	delete(s.progress.tables, oid)
	s.progress.mu.Unlock()
}
