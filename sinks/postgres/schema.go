package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// Behavior says what a change of a source table's shape does to the target. The meanings are Flink CDC's.
type Behavior string

// The behaviours.
const (
	Evolve    Behavior = "evolve"     // apply it, or stop
	TryEvolve Behavior = "try_evolve" // apply it; what the target refuses is passed over and later rows are fitted
	Lenient   Behavior = "lenient"    // only what loses nothing: adds are nullable, drops and renames keep the old column
	Ignore    Behavior = "ignore"     // the target's shape stays; rows are fitted to it
	Exception Behavior = "exception"  // stop
)

// leavesOut tells whether source columns that the target's table does not have are not written.
func (b Behavior) leavesOut() bool { return b == TryEvolve || b == Ignore }

// evolve applies a change at its place in the epoch's transaction and reshapes the table for the rows behind it.
//
// The target's catalog cannot be asked for the new shape, because the change is in a transaction that only the data
// connection sees and that has not ended; the shape is what it was, stepped.
func (t *Target) evolve(ctx context.Context, change *changelog.SchemaChange) error {
	rel := change.New
	if rel == nil {
		rel = change.Old
	}
	schema, name, ok := t.opts.Route(rel.Schema, rel.Name)
	if !ok {
		return nil
	}
	// Other sessions have no transaction open on a table whose shape changes: its lock would have kept the change from
	// happening. They learn the new shape when they next need it.
	for _, s := range t.spare {
		s.forget(rel.ID)
	}
	for _, step := range change.Steps {
		switch step.Kind {
		case changelog.CreateTable:
			return t.createTable(ctx, change, schema, name)
		case changelog.DropTable:
			return t.dropTable(change.Old, schema, name)
		}
	}
	if t.opts.SchemaChange == Exception {
		if ok, err := t.alreadyFits(ctx, change, schema, name); ok || err != nil {
			return err // the user changed the target, as asked
		}
		return errs.New(errs.SourceSchemaChange, "table %s changed its shape: %s", rel, describe(change)).
			WithHint("schema.change.behavior is exception: change the target, then weir pipelines resume NAME; if that is refused because rows from before the change are in the same transaction, or the table need not be changed by hand, have it copied anew before: weir sources refresh '%s'", pg.Qualified(rel.Schema, rel.Name))
	}
	if len(change.Steps) > 0 && change.Steps[0].Kind == changelog.StepAside {
		return t.stepAside(ctx, change.Old)
	}
	old := t.tables[rel.ID]
	if old == nil {
		if change.Old == nil {
			return nil
		}
		var err error
		if old, err = t.resolve(ctx, t.session, change.Old); err != nil {
			return err
		}
	}
	t.settleChecks(old)
	spec := (&shape{*old.spec}).clone()
	from := [2]string{old.schema, old.name}
	if change.Old != nil {
		from[0], from[1], _ = t.opts.Route(change.Old.Schema, change.Old.Name)
	}
	if from != [2]string{schema, name} && t.opts.SchemaChange != Lenient && t.opts.SchemaChange != Ignore {
		for _, sql := range RenameTable(rel.ID, pg.TargetName{Schema: old.schema, Name: old.name}, pg.TargetName{Schema: schema, Name: name}) {
			t.ddl(sql)
		}
		t.freed[from] = true
	} else {
		schema, name = old.schema, old.name
	}
	target := pg.Qualified(schema, name)
	dropped := map[string]bool{}
	steps := change.Steps
	if t.opts.SchemaChange == Evolve || t.opts.SchemaChange == TryEvolve {
		steps = untangle(steps, spec.has)
	}
	for _, step := range steps {
		if err := t.step(target, spec, change, step, dropped); err != nil {
			return err
		}
	}
	_, err := t.adoptShape(change.New, schema, name, spec, dropped)
	return err
}

// untangle lets columns that take each other's names do so one after the other: one whose name is wanted before it gets its
// new one has a name for as long that no column has or gets; has tells those of the target.
func untangle(steps []changelog.SchemaStep, has func(name string) bool) []changelog.SchemaStep {
	bears := map[string]bool{} // names of columns that are still to be renamed
	taken := map[string]bool{}
	for _, s := range steps {
		taken[s.Column], taken[s.NewName] = true, true
		if s.Kind == changelog.RenameColumn {
			bears[s.Column] = true
		}
	}
	free := func() string {
		for n := 1; ; n++ {
			if name := fmt.Sprintf("aside_%d", n); !taken[name] && !has(name) {
				taken[name] = true
				return name
			}
		}
	}
	out := make([]changelog.SchemaStep, 0, len(steps))
	aside := map[string]string{}
	for _, s := range steps {
		if s.Kind == changelog.RenameColumn {
			delete(bears, s.Column)
			if bears[s.NewName] {
				delete(bears, s.NewName)
				aside[s.NewName] = free()
				out = append(out, changelog.SchemaStep{Kind: changelog.RenameColumn, Column: s.NewName, NewName: aside[s.NewName]})
			}
			if name, ok := aside[s.Column]; ok {
				s.Column = name
			}
		}
		out = append(out, s)
	}
	return out
}

// RenameTable is the SQL that gives a table, known by its number at the source, another name, schema or both. Between two
// steps it has a name that nobody else has.
func RenameTable(id uint32, from, to pg.TargetName) []string {
	var sql []string
	alter := func(name pg.TargetName, what string) { sql = append(sql, "ALTER TABLE "+name.String()+" "+what) }
	now := from
	if from.Schema != to.Schema {
		if from.Name != to.Name {
			if now.Name = asideName(id, to.Name); now != from { // it may have stepped aside before
				alter(from, "RENAME TO "+pg.Ident(now.Name))
			}
		}
		// Asked first: IF NOT EXISTS needs the right to make schemas also where there is nothing to make.
		sql = append(sql, "DO $weir_schema$ BEGIN IF to_regnamespace("+pg.Literal(pg.Ident(to.Schema))+") IS NULL THEN EXECUTE "+
			pg.Literal("CREATE SCHEMA "+pg.Ident(to.Schema))+"; END IF; END $weir_schema$")
		alter(now, "SET SCHEMA "+pg.Ident(to.Schema))
		now.Schema = to.Schema
	}
	if now.Name != to.Name {
		alter(now, "RENAME TO "+pg.Ident(to.Name))
	}
	return sql
}

// StepAside is the name that a table has while another takes its own.
func StepAside(id uint32, name pg.TargetName) pg.TargetName {
	return pg.TargetName{Schema: name.Schema, Name: asideName(id, name.Name)}
}

// DropTable is the SQL that drops a table of the target. The source has no foreign key left that points to it, and no
// default that draws from a sequence of its columns; one whose going the log did not tell is here still. A view that
// somebody made here is not ours to drop.
func DropTable(name pg.TargetName) []string {
	return []string{
		"DO $weir_keys$ DECLARE k record; BEGIN FOR k IN SELECT conrelid::regclass AS rel, conname FROM pg_constraint WHERE contype = 'f' AND confrelid = to_regclass(" +
			pg.Literal(name.String()) + ") AND conrelid <> confrelid AND conparentid = 0 LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', k.rel, k.conname); END LOOP; END $weir_keys$",
		"DO $weir_defaults$ DECLARE d record; BEGIN FOR d IN SELECT x.adrelid::regclass AS rel, a.attname FROM pg_depend o" +
			" JOIN pg_class s ON s.oid = o.objid AND s.relkind = 'S'" +
			" JOIN pg_depend u ON u.classid = 'pg_attrdef'::regclass AND u.refclassid = 'pg_class'::regclass AND u.refobjid = s.oid" +
			" JOIN pg_attrdef x ON x.oid = u.objid JOIN pg_attribute a ON a.attrelid = x.adrelid AND a.attnum = x.adnum" +
			" WHERE o.classid = 'pg_class'::regclass AND o.refclassid = 'pg_class'::regclass AND o.deptype IN ('a', 'i') AND o.refobjsubid > 0" +
			" AND o.refobjid = to_regclass(" + pg.Literal(name.String()) + ") AND x.adrelid <> o.refobjid" +
			" LOOP EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP DEFAULT', d.rel, d.attname); END LOOP; END $weir_defaults$",
		"DROP TABLE IF EXISTS " + name.String(),
	}
}

// asideName is a name that no other table of the target has; the server cuts long ones at their end.
func asideName(id uint32, name string) string { return fmt.Sprintf("aside_%d_%s", id, name) }

// step applies one column's change.
func (t *Target) step(target string, spec *shape, change *changelog.SchemaChange, step changelog.SchemaStep, unwritten map[string]bool) error {
	rel := change.New
	// without is what does the same to a table that has no rows.
	overRows := func(sql, without string) {
		if change.Replaced {
			sql = t.orWithout(target, spec.Kind, sql, without)
		}
		t.ddl(sql)
	}
	lenient, ignore := t.opts.SchemaChange == Lenient, t.opts.SchemaChange == Ignore
	switch step.Kind {
	case changelog.AddColumn:
		if ignore {
			_, again := unwritten[step.Column]
			unwritten[step.Column] = !again // the same change dropped it, and the target has it still
			return nil
		}
		if spec.has(step.Column) {
			return nil // already there: kept by an earlier lenient change, or made by hand
		}
		sql := "ALTER TABLE " + target + " ADD COLUMN IF NOT EXISTS " + pg.Ident(step.Column) + " " + step.Type
		if step.Default != "" {
			sql += " DEFAULT " + step.Default
		}
		if step.NotNull && step.Default != "" && !lenient {
			sql += " NOT NULL"
		}
		overRows(sql, sql)
		if step.NewDefault != "" && step.NewDefault != step.Default {
			// For whoever writes here after a cut-over. It may use what the target does not have, and then stays behind.
			t.tryDDL("ALTER TABLE " + target + " ALTER COLUMN " + pg.Ident(step.Column) + " SET DEFAULT " + step.NewDefault)
		}
		spec.add(rel, step.Column)
	case changelog.DropColumn:
		if ignore || lenient {
			if ignore && spec.has(step.Column) {
				unwritten[step.Column] = false
			}
			if lenient {
				t.ddl("ALTER TABLE " + target + " ALTER COLUMN " + pg.Ident(step.Column) + " DROP NOT NULL")
			}
			return nil
		}
		t.ddl("ALTER TABLE " + target + " DROP COLUMN IF EXISTS " + pg.Ident(step.Column))
		spec.remove(step.Column)
	case changelog.RenameColumn:
		switch {
		case ignore:
			unwritten[step.NewName] = true
		case lenient:
			t.ddl("ALTER TABLE " + target + " ADD COLUMN IF NOT EXISTS " + pg.Ident(step.NewName) + " " + step.Type)
			t.ddl("ALTER TABLE " + target + " ALTER COLUMN " + pg.Ident(step.Column) + " DROP NOT NULL")
			spec.add(rel, step.NewName)
		default:
			t.ddl("ALTER TABLE " + target + " RENAME COLUMN " + pg.Ident(step.Column) + " TO " + pg.Ident(step.NewName))
			spec.rename(step.Column, step.NewName)
		}
	case changelog.AlterType:
		if ignore || lenient {
			return nil // rows are cast to what the target has
		}
		column := pg.Ident(step.Column)
		keepsDefault := false // there is none that could go
		if c := spec.Column(step.Column); c != nil {
			keepsDefault = c.Identity != 0 || c.Generated != 0
		}
		overRows(alterType(target, column, step.Type, column+"::"+step.Type, keepsDefault), alterType(target, column, step.Type, "NULL", keepsDefault))
		if step.NewDefault != "" && !keepsDefault {
			t.tryDDL("ALTER TABLE " + target + " ALTER COLUMN " + column + " SET DEFAULT " + step.NewDefault)
		}
		spec.retype(rel, step.Column)
	case changelog.RenameTable:
	default:
		return errs.New(errs.SourceSchemaChange, "table %s: %s is not something a target can follow", rel, step.Kind)
	}
	return nil
}

// alterType is the SQL that gives a column another type. The server casts a default only where it casts by itself; one that
// it cannot cast goes, as it had to go at the source.
func alterType(target, column, typ, using string, keepsDefault bool) string {
	alter := "ALTER TABLE " + target + " "
	as := "ALTER COLUMN " + column + " TYPE " + typ + " USING " + using
	if keepsDefault {
		return alter + as
	}
	return "DO $weir_type$ BEGIN EXECUTE " + pg.Literal(alter+as) + "; EXCEPTION WHEN datatype_mismatch THEN EXECUTE " +
		pg.Literal(alter+"ALTER COLUMN "+column+" DROP DEFAULT, "+as) + "; END $weir_type$"
}

// orWithout is a statement that changes a table or, if the table's rows are why it is refused, empties it and runs another
// then. Types between which there is no cast are such a reason. Where a foreign key that is checked holds on to the rows,
// they stay and so does the refusal.
func (t *Target) orWithout(target string, kind byte, sql, without string) string {
	only := target
	if kind != 'p' {
		only = "ONLY " + target
	}
	held := "RAISE"
	if t.replica {
		held = "DELETE FROM " + only
	}
	return "DO $weir_replaced$ BEGIN EXECUTE " + pg.Literal(sql) + "; EXCEPTION WHEN data_exception OR integrity_constraint_violation OR cannot_coerce THEN" +
		" IF EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = to_regclass(" + pg.Literal(target) + ") AND conrelid <> confrelid) THEN " +
		held + "; ELSE TRUNCATE " + only + "; END IF; EXECUTE " + pg.Literal(without) + "; END $weir_replaced$"
}

// ddl runs a statement in the epoch's transaction; with try_evolve a refusal is passed over.
func (t *Target) ddl(sql string) {
	if t.opts.SchemaChange == TryEvolve {
		t.tryDDL(sql)
		return
	}
	t.app.begin()
	t.wire.statement(sql, expectation{})
}

// tryDDL runs a statement and passes over its refusal.
func (t *Target) tryDDL(sql string) {
	t.app.begin()
	sql = "DO $weir_ddl$ BEGIN EXECUTE " + pg.Literal(sql) +
		"; EXCEPTION WHEN OTHERS THEN RAISE WARNING 'weir passed over: %', SQLERRM; END $weir_ddl$"
	t.wire.statement(sql, expectation{})
}

// stepAside renames a table out of the way. Nobody reads the name: it is gone before the epoch ends, unless the source
// has let the table go.
func (t *Target) stepAside(ctx context.Context, rel *changelog.Relation) error {
	if t.opts.SchemaChange == Lenient || t.opts.SchemaChange == Ignore {
		return nil
	}
	tab, err := t.resolve(ctx, t.session, rel)
	if err != nil || tab == nil {
		return err
	}
	t.settleChecks(tab)
	name := asideName(rel.ID, tab.name)
	t.ddl("ALTER TABLE " + tab.qualified() + " RENAME TO " + pg.Ident(name))
	t.freed[[2]string{tab.schema, tab.name}] = true
	_, err = t.adopt(t.session, rel, tab.schema, name, tab.spec)
	return err
}

func (t *Target) dropTable(rel *changelog.Relation, schema, name string) error {
	if t.opts.SchemaChange == Evolve || t.opts.SchemaChange == TryEvolve {
		t.settleChecks(&table{schema: schema, name: name})
		for _, sql := range DropTable(pg.TargetName{Schema: schema, Name: name}) {
			t.ddl(sql)
		}
		t.freed[[2]string{schema, name}] = true
	}
	t.forget(rel.ID)
	return nil
}

func (s *session) forget(id uint32) {
	delete(s.tables, id)
	for r := range s.byRel {
		if r.ID == id {
			delete(s.byRel, r)
		}
	}
}

func (t *Target) createTable(ctx context.Context, change *changelog.SchemaChange, schema, name string) error {
	err := error(errs.New(errs.TargetTable, "the target has no table %s", pg.Qualified(schema, name)))
	if !t.freed[[2]string{schema, name}] { // what the catalog says of one that this epoch took away is no longer so
		var there *pg.Table
		if there, err = t.loadTable(ctx, schema, name); err == nil {
			return t.takeTable(change, schema, name, there)
		}
	}
	if !errs.Is(err, errs.TargetTable) {
		return err
	}
	src, ok := change.Origin.(*pg.Table)
	if !ok {
		return err
	}
	delete(t.freed, [2]string{schema, name})
	to := t.planned(src, change.New, schema, name)
	// A table that had the name before may still be here under another one, with the indexes that were named after it.
	var indexes []string
	for _, x := range src.Indexes {
		indexes = append(indexes, x.Name)
	}
	var taken bool
	if err := t.ctl.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = ANY ($2))`,
		schema, indexes).Scan(&taken); err != nil {
		return err
	}
	if taken {
		to.Options.IndexSalt = fmt.Sprint(src.OID)
	}
	statements := append([]pg.Statement{to.CreateTable()}, to.UniqueConstraints()...)
	statements = append(statements, to.SecondaryIndexes()...)
	for _, st := range statements {
		for _, sql := range st.SQL {
			t.ddl(sql)
		}
	}
	// The names may be free here: who had them was dropped in this very transaction.
	for _, sql := range to.Unsalted() {
		t.tryDDL(sql)
	}
	spec := *src
	spec.Schema, spec.Name, spec.Columns = schema, name, to.Columns()
	_, err = t.adopt(t.session, change.New, schema, name, &spec)
	return err
}

// planned is a table that joins as it should be at the target. The types and schemas that it needs are made by the plan of
// the mirror, before the table joins it.
func (t *Target) planned(src *pg.Table, rel *changelog.Relation, schema, name string) pg.Target {
	to := pg.Target{Source: src, Name: pg.TargetName{Schema: schema, Name: name}, Options: pg.TargetOptions{SoftDelete: t.opts.SoftDelete, Route: t.opts.Route}}
	for _, c := range src.Columns {
		// The log carries no generated ones.
		at := slices.IndexFunc(rel.Columns, func(r changelog.Column) bool { return r.Name == c.Name })
		if c.Generated != 0 && t.opts.Excluded(src.Schema, src.Name, c.Name) || c.Generated == 0 && (at < 0 || rel.Columns[at].LeftOut) {
			to.Options.ExcludeColumns = append(to.Options.ExcludeColumns, c.Name)
		}
	}
	return to
}

// takeTable lets a table that joins have the one of the target that is there: made by hand, of a copy that was begun before
// a restart, or a dropped one's that stayed. A lenient target is to hold all that both have had: it gets the columns that it
// lacks, and those of which the source's table knows nothing need no value any more.
func (t *Target) takeTable(change *changelog.SchemaChange, schema, name string, there *pg.Table) error {
	src, ok := change.Origin.(*pg.Table)
	if !ok {
		return nil
	}
	to := t.planned(src, change.New, schema, name)
	spec := (&shape{*there}).clone()
	var lacking []string
	for _, c := range to.Columns() {
		if there.Column(c.Name) != nil {
			continue
		}
		if t.opts.SchemaChange == Lenient {
			t.ddl(to.AddNullable(&c))
			spec.Columns = append(spec.Columns, c)
		} else if c.Generated == 0 {
			lacking = append(lacking, c.Name)
		}
	}
	if len(lacking) > 0 && t.opts.SchemaChange.leavesOut() {
		t.env.Log.Warn("columns of a table that joins are not written, because the target's table of its name lacks them", "table", to.Name.String(), "columns", lacking, "schema.change.behavior", t.opts.SchemaChange)
	}
	if t.opts.SchemaChange != Lenient {
		return nil
	}
	for _, c := range there.Columns {
		if c.NotNull && c.Identity == 0 && c.Generated == 0 && src.Column(c.Name) == nil {
			t.ddl("ALTER TABLE " + to.Name.String() + " ALTER COLUMN " + pg.Ident(c.Name) + " DROP NOT NULL")
		}
	}
	_, err := t.adoptShape(change.New, schema, name, spec, nil)
	return err
}

// alreadyFits tells whether the target has every column of the new shape, and takes it then. A table that was renamed
// has no namesake left; where names change hands nothing tells what the user has done.
func (t *Target) alreadyFits(ctx context.Context, change *changelog.SchemaChange, schema, name string) (bool, error) {
	if change.New == nil || len(change.Steps) > 0 && change.Steps[0].Kind == changelog.StepAside {
		return false, nil
	}
	if old := change.Old; old != nil {
		oldSchema, oldName, _ := t.opts.Route(old.Schema, old.Name)
		if [2]string{oldSchema, oldName} != [2]string{schema, name} {
			_, err := t.loadTable(ctx, oldSchema, oldName)
			if !errs.Is(err, errs.TargetTable) {
				return false, err
			}
		}
	}
	spec, err := t.loadTable(ctx, schema, name)
	if errs.Is(err, errs.TargetTable) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, c := range change.New.Columns {
		if spec.Column(c.Name) == nil && !c.LeftOut {
			return false, nil
		}
	}
	_, err = t.adopt(t.session, change.New, schema, name, spec)
	return err == nil, err
}

// describe is a change in words.
func describe(change *changelog.SchemaChange) string {
	var parts []string
	for _, s := range change.Steps {
		part := s.Kind.String()
		if s.Column != "" {
			part += " " + pg.Ident(s.Column)
		}
		if s.NewName != "" {
			part += " to " + pg.Ident(s.NewName)
		}
		if s.Type != "" {
			part += " " + s.Type
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// shape is a target table's columns as the open transaction has them.
type shape struct{ pg.Table }

func (s *shape) clone() *shape {
	c := *s
	c.Columns = append([]pg.Column{}, s.Columns...)
	return &c
}

func (s *shape) has(name string) bool { return s.Column(name) != nil }

func (s *shape) add(rel *changelog.Relation, name string) {
	if !s.has(name) {
		s.Columns = append(s.Columns, pg.Column{Name: name, Type: relationType(rel, name)})
	}
}

func (s *shape) remove(name string) {
	kept := s.Columns[:0]
	for _, c := range s.Columns {
		if c.Name != name {
			kept = append(kept, c)
		}
	}
	s.Columns = kept
}

func (s *shape) rename(from, to string) {
	if c := s.Column(from); c != nil {
		c.Name = to
	}
	if s.PrimaryKey != nil {
		pk := *s.PrimaryKey
		pk.Columns = append([]string{}, pk.Columns...)
		for i := range pk.Columns {
			if pk.Columns[i] == from {
				pk.Columns[i] = to
			}
		}
		s.PrimaryKey = &pk
	}
}

func (s *shape) retype(rel *changelog.Relation, name string) {
	if c := s.Column(name); c != nil {
		c.Type = relationType(rel, name)
	}
}

// relationType is the type of a relation's column as the target knows it: built-in types have the same number on both
// sides, others go by their name and as text.
func relationType(rel *changelog.Relation, name string) pg.Type {
	for _, c := range rel.Columns {
		if c.Name != name {
			continue
		}
		return pg.Type{OID: c.TypeOID, Schema: c.TypeSchema, Name: c.TypeName, Kind: 'b', Array: strings.HasPrefix(c.TypeName, "_")}
	}
	return pg.Type{OID: textOID, Schema: "pg_catalog", Name: "text", Kind: 'b'}
}

// adoptShape takes the new shape; columns in unwritten exist at the source only.
func (t *Target) adoptShape(rel *changelog.Relation, schema, name string, spec *shape, unwritten map[string]bool) (*table, error) {
	for c, so := range unwritten {
		if !so {
			continue
		}
		t.unwritten[[3]string{rel.Schema, rel.Name, c}] = true
	}
	return t.adopt(t.session, rel, schema, name, &spec.Table)
}
