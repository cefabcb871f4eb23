package pg

import (
	"fmt"
	"slices"
	"strings"
)

// Statement is one step of making something on a target. Steps are run again after a crash, so each can be asked
// whether it is done: Exists is a query for one boolean. IF NOT EXISTS would not do: half of what is made here does not
// have it, and CREATE SCHEMA IF NOT EXISTS wants the right to create even a schema that is there.
type Statement struct {
	What   string   // for people: index "app"."orders_at_idx"
	Exists string   // "" when it has to be run each time
	SQL    []string // to be run in one transaction
}

// TargetName is where a table goes.
type TargetName struct{ Schema, Name string }

func (n TargetName) String() string { return Qualified(n.Schema, n.Name) }

// Target is a source's table under its name on a target. Its methods render the DDL and nothing else; they ask no
// server.
//
// The target's table takes everything that decides what a row can hold, and of the rest what cannot make it refuse a
// row that the source accepted. So a check that calls now() or was never validated stays behind, as does anything
// that uses functions the target does not have. Notes lists what stays behind.
//
// A partitioned source table becomes one plain table: its rows arrive under the root's name, and how the target should
// be partitioned is not the source's to say. Whoever wants partitions creates the table before the mirror does.
type Target struct {
	Source  *Table
	Name    TargetName
	Options TargetOptions
}

// TargetOptions fits a table to its target. The zero value means a target with the newest version, every extension
// where the source has it, and every collation.
type TargetOptions struct {
	ExcludeColumns    []string
	WithoutPrimaryKey bool              // PrimaryKey adds it later
	SoftDelete        string            // name of an added timestamptz column, NULL while the row lives
	DeferForeignKeys  bool              // check them at commit, whatever the source does
	TargetVersion     int               // server_version_num; 0 the newest
	Extensions        map[string]string // the target's, name to schema; nil: as at the source
	MissingCollations map[string]bool   // as in Column.Collation: the target does not have them
	IndexSalt         string            // not "": indexes and constraints get names that end with a hash of it
	// Route tells where a source's table goes, for the sequences that its columns own; nil: tables keep their names.
	Route      func(schema, table string) (toSchema, toTable string, ok bool)
	NoSequence map[TargetName]string // sequences that the target cannot have, and why
}

// CreateSchema makes a schema.
func CreateSchema(name string) Statement {
	return Statement{
		What:   "schema " + Ident(name),
		Exists: "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = " + Literal(name) + ")",
		SQL:    []string{"CREATE SCHEMA " + Ident(name)},
	}
}

// CreateExtension installs an extension in a schema of the same name as at the source. Where it is installed already,
// in whatever schema, it stays: TargetOptions.Extensions tells the columns where that is.
func CreateExtension(x Extension) Statement {
	sql := []string{"CREATE EXTENSION IF NOT EXISTS " + Ident(x.Name)}
	switch x.Schema {
	case "pg_catalog":
	case "", "public": // not the first of the search_path, which is pg_catalog
		sql[0] += " WITH SCHEMA public"
	default:
		sql = []string{"CREATE SCHEMA IF NOT EXISTS " + Ident(x.Schema), sql[0] + " WITH SCHEMA " + Ident(x.Schema)}
	}
	return Statement{
		What:   "extension " + Ident(x.Name),
		Exists: "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = " + Literal(x.Name) + ")",
		SQL:    sql,
	}
}

// Columns are those that the target's table has, without the soft-delete column. A generated column is left out with
// the columns it is made from, and when its expression cannot be evaluated on the target: as a plain column it would
// stay empty, because sources do not send generated values.
func (t *Target) Columns() []Column {
	var out []Column
	for _, c := range t.Source.Columns {
		if t.whyNotColumn(&c) == "" {
			out = append(out, c)
		}
	}
	return out
}

func (t *Target) whyNotColumn(c *Column) string {
	if slices.Contains(t.Options.ExcludeColumns, c.Name) {
		return "excluded"
	}
	if c.Generated == 0 {
		return ""
	}
	for _, from := range c.GeneratedFrom {
		if slices.Contains(t.Options.ExcludeColumns, from) {
			return fmt.Sprintf("it is generated from %s, which is excluded", Ident(from))
		}
	}
	if missing := t.missing(c.DefaultNeeds); missing != "" {
		return "its expression needs " + missing
	}
	return t.olderThan(c.Default)
}

func (t *Target) lacks(columns []string) string {
	for _, name := range columns {
		if c := t.Source.Column(name); c != nil && t.whyNotColumn(c) != "" {
			return name
		}
	}
	return ""
}

// missing names the first object that the target cannot be expected to have.
func (t *Target) missing(needs []Need) string {
	for _, n := range needs {
		if n.Extension == "" {
			return n.Object
		}
		if t.Options.Extensions != nil && t.Options.Extensions[n.Extension] == "" {
			return "extension " + n.Extension
		}
	}
	return ""
}

// olderThan knows the functions of defaults that came after 12. A false hit, inside a constant, costs a default.
func (t *Target) olderThan(expr string) string {
	for _, f := range []struct {
		name    string
		version int
	}{{"gen_random_uuid(", 130000}, {"uuidv4(", 180000}, {"uuidv7(", 180000}, {"date_bin(", 140000}, {"random_normal(", 160000}} {
		if t.older(f.version) && strings.Contains(expr, f.name) {
			return fmt.Sprintf("%s) came with Postgres %d", f.name, f.version/10000)
		}
	}
	return ""
}

func (t *Target) older(version int) bool {
	return t.Options.TargetVersion != 0 && t.Options.TargetVersion < version
}

func (t *Target) renamed() bool {
	return t.Name.Schema != t.Source.Schema || t.Name.Name != t.Source.Name
}

// object is the target's name for an index or a sequence. They share one namespace per schema with tables. Under the
// source's names they cannot collide; under new ones two tables that had their own schemas may meet in one, so the name
// then carries a hash of where it comes from, and stays the same at every run.
func (t *Target) object(name string) string {
	if !t.renamed() {
		return name
	}
	return withHash(name, t.Source.Schema+"\x00"+t.Source.Name+"\x00"+name)
}

// index is the target's name for an index or a constraint.
func (t *Target) index(name string) string {
	if t.Options.IndexSalt == "" {
		return t.object(name)
	}
	return withHash(name, t.Options.IndexSalt+"\x00"+name)
}

// Unsalted gives the source's indexes their names without salt, one statement each: where a name turns out to be taken,
// that index keeps the salted one.
func (t *Target) Unsalted() (sql []string) {
	for _, x := range t.Source.Indexes {
		if plain, salted := t.object(x.Name), t.index(x.Name); plain != salted {
			sql = append(sql, "ALTER INDEX IF EXISTS "+Qualified(t.Name.Schema, salted)+" RENAME TO "+Ident(plain))
		}
	}
	return sql
}

// GivenName is an index or a sequence that has a name of ours on the target, in the schema of its table.
type GivenName struct {
	Sequence     bool
	Name, Source string
}

// GivenNames are the indexes and sequences of the table that do not have the source's names.
func (t *Target) GivenNames() (given []GivenName) {
	add := func(g GivenName) {
		if g.Name != g.Source {
			given = append(given, g)
		}
	}
	for _, x := range t.Source.Indexes {
		add(GivenName{Name: t.object(x.Name), Source: x.Name})
	}
	for i := range t.Source.Columns {
		if s := t.Source.Columns[i].Sequence; s != nil {
			add(GivenName{Sequence: true, Name: t.object(s.Name), Source: s.Name})
		}
	}
	return given
}

// CreateTable makes the table, with its primary key unless that is wanted later, and the sequences of its serial
// columns.
//
// Identity columns become BY DEFAULT where the source has ALWAYS: rows come with the source's values, and ALWAYS
// refuses those in UPDATE and in COPY-like inserts without OVERRIDING.
func (t *Target) CreateTable() Statement {
	st := Statement{What: "table " + t.Name.String(), Exists: relationExists(t.Name.Schema, t.Name.Name, "r, p, f")}
	var lines, owned []string
	for _, c := range t.Columns() {
		lines = append(lines, t.column(&c))
		if c.UsesSequence && c.Generated == 0 && t.whyNotDefault(&c) == "" {
			name := t.Sequence(c.Sequence)
			st.SQL = append(st.SQL, c.Sequence.create(name, c.Sequence.Shared)) // who else draws from it may have made it
			owned = append(owned, "ALTER SEQUENCE "+name.String()+" OWNED BY "+t.Name.String()+"."+Ident(c.Name))
		}
	}
	if s := t.Options.SoftDelete; s != "" {
		lines = append(lines, Ident(s)+" timestamp with time zone")
	}
	if pk := t.Source.PrimaryKey; pk != nil && !t.Options.WithoutPrimaryKey && t.whyNotIndex(pk) == "" {
		lines = append(lines, t.constraint(pk))
	}
	body := ""
	if len(lines) > 0 {
		body = "\n\t" + strings.Join(lines, ",\n\t") + "\n"
	}
	st.SQL = append(st.SQL, "CREATE TABLE "+t.Name.String()+" ("+body+")")
	st.SQL = append(st.SQL, owned...)
	return st
}

func (t *Target) column(c *Column) string {
	var b strings.Builder
	b.WriteString(Ident(c.Name) + " " + t.Options.moved(&c.Type, c.FormattedType))
	if c.Collation != "" && !t.Options.MissingCollations[c.Collation] {
		b.WriteString(" COLLATE " + c.Collation)
	}
	switch {
	case c.Generated != 0:
		kind := " STORED"
		if c.Generated == 'v' && !t.older(180000) {
			kind = " VIRTUAL"
		}
		b.WriteString(" GENERATED ALWAYS AS (" + c.Default + ")" + kind)
	case c.Identity != 0:
		b.WriteString(" GENERATED BY DEFAULT AS IDENTITY")
		if s := c.Sequence; s != nil {
			b.WriteString(" (SEQUENCE NAME " + t.Sequence(s).String() + " " + s.options() + ")")
		}
	case c.Default != "" && t.whyNotDefault(c) == "":
		b.WriteString(" DEFAULT " + t.defaultSQL(c))
	}
	if c.NotNull {
		b.WriteString(" NOT NULL")
	}
	return b.String()
}

// AddNullable adds a column to a table that is there, with no default: rows that are there have no value of it.
func (t *Target) AddNullable(c *Column) string {
	plain := *c
	plain.NotNull, plain.Identity = false, 0
	if c.Generated == 0 {
		plain.Default = ""
	}
	return "ALTER TABLE " + t.Name.String() + " ADD COLUMN IF NOT EXISTS " + t.column(&plain)
}

// moved puts the target's schema of an extension in place of the source's in front of a type. A user's domain over an
// extension's type stays in its own schema.
func (o *TargetOptions) moved(typ *Type, formatted string) string {
	member := typ.named()
	from, to := member.Schema, o.Extensions[member.Extension]
	if member.Extension == "" || to == "" {
		return formatted
	}
	for _, prefix := range []string{Ident(from) + ".", from + "."} {
		if rest, ok := strings.CutPrefix(formatted, prefix); ok && from != to {
			if to == "pg_catalog" {
				return rest
			}
			return Ident(to) + "." + rest
		}
	}
	return formatted
}

func (t *Target) whyNotDefault(c *Column) string {
	if missing := t.missing(c.DefaultNeeds); missing != "" {
		return "it needs " + missing
	}
	// The default may name an extension's type or function by a schema that the target uses for something else.
	exts := []string{c.Type.extension()}
	for _, n := range c.DefaultNeeds {
		exts = append(exts, n.Extension)
	}
	if why := t.misplaced(exts, c.Default); why != "" {
		return why
	}
	for _, s := range c.sequences() {
		name := t.Sequence(s)
		switch {
		case !strings.Contains(c.Default, s.inDefault()):
			return "its sequence is named in an unknown way"
		case s.Identity && s != c.Sequence:
			return fmt.Sprintf("it draws from the identity column %s of %s", Ident(s.OwnerColumn), Qualified(s.OwnerSchema, s.OwnerTable))
		case t.Options.NoSequence[name] != "":
			return t.Options.NoSequence[name]
		}
	}
	return t.olderThan(c.Default)
}

// sequences are those that the default draws from.
func (c *Column) sequences() []*Sequence {
	if !c.UsesSequence {
		return c.Draws
	}
	return append([]*Sequence{c.Sequence}, c.Draws...)
}

// defaultSQL is the default with the target's names of sequences.
func (t *Target) defaultSQL(c *Column) string {
	var names []string
	for _, s := range c.sequences() {
		names = append(names, s.inDefault(), Literal(t.Sequence(s).String())+"::regclass")
	}
	return strings.NewReplacer(names...).Replace(c.Default)
}

// Sequence is the target's name of a sequence that a default draws from. One that a column owns goes where the column's
// table goes; the others belong to no table and keep their names, as types do. The name does not depend on which tables
// are there already, so that a table which joins later finds what an earlier one draws from.
func (t *Target) Sequence(s *Sequence) TargetName {
	for i := range t.Source.Columns {
		if own := t.Source.Columns[i].Sequence; own != nil && own.OID == s.OID {
			return TargetName{t.Name.Schema, t.object(s.Name)}
		}
	}
	if s.OwnerTable != "" && t.Options.Route != nil {
		if schema, name, ok := t.Options.Route(s.OwnerSchema, s.OwnerTable); ok {
			owner := Target{Source: &Table{Schema: s.OwnerSchema, Name: s.OwnerTable}, Name: TargetName{schema, name}}
			return TargetName{schema, owner.object(s.Name)}
		}
	}
	return TargetName{s.Schema, s.Name}
}

// Drawn is a sequence under its name on the target.
type Drawn struct {
	*Sequence
	Name TargetName
}

// Drawn are the sequences that no CREATE TABLE can be trusted to bring in time: those that a column's default draws from
// and that the column does not own. An identity column's own sequence is made with its table only.
func (t *Target) Drawn() []Drawn {
	var out []Drawn
	for _, c := range t.Columns() {
		for _, s := range c.Draws {
			if !s.Identity {
				out = append(out, Drawn{s, t.Sequence(s)})
			}
		}
	}
	return out
}

// Sequences makes the drawn sequences of defaults that the target's table has, before any table.
func (t *Target) Sequences() []Statement {
	var out []Statement
	for _, c := range t.Columns() {
		if t.whyNotDefault(&c) != "" {
			continue
		}
		for _, s := range c.Draws {
			name := t.Sequence(s)
			out = append(out, CreateSchema(name.Schema), CreateSequence(name, s))
		}
	}
	return out
}

// CreateSequence makes a sequence that no column owns.
func CreateSequence(name TargetName, s *Sequence) Statement {
	return Statement{What: "sequence " + name.String(), Exists: relationExists(name.Schema, name.Name, "S"), SQL: []string{s.create(name, false)}}
}

func (s *Sequence) create(name TargetName, orNot bool) string {
	sql := "CREATE SEQUENCE "
	if orNot {
		sql += "IF NOT EXISTS "
	}
	return sql + name.String() + " AS " + s.Type + " " + s.options()
}

// SetDefault gives a column of the target's table the source's default, or its identity, and makes the sequences that
// this needs. It is for people: the target may lack what the default needs besides.
func (t *Target) SetDefault(c *Column) (sql []string, makes []Drawn) {
	table, column := "ALTER TABLE "+t.Name.String(), "ALTER COLUMN "+Ident(c.Name)
	if c.Identity != 0 {
		add := table + " " + column + " SET NOT NULL, " + column + " ADD GENERATED BY DEFAULT AS IDENTITY"
		if s := c.Sequence; s != nil {
			name := t.Sequence(s)
			add += " (SEQUENCE NAME " + name.String() + " " + s.options() + ")"
			makes = append(makes, Drawn{s, name})
		}
		return []string{add}, makes
	}
	for _, s := range c.sequences() {
		if !s.Identity {
			name := t.Sequence(s)
			sql = append(sql, s.create(name, true))
			makes = append(makes, Drawn{s, name})
		}
	}
	sql = append(sql, table+" "+column+" SET DEFAULT "+t.defaultSQL(c))
	if c.UsesSequence {
		sql = append(sql, "ALTER SEQUENCE "+t.Sequence(c.Sequence).String()+" OWNED BY "+t.Name.String()+"."+Ident(c.Name))
	}
	return sql, makes
}

// misplaced tells when an expression names something by a schema in which the target does not have these extensions.
func (t *Target) misplaced(exts []string, expr string) string {
	for _, ext := range exts {
		to, known := t.Options.Extensions[ext]
		inPlace := strings.Contains(expr, to+".") || strings.Contains(expr, Ident(to)+".")
		if known && strings.Contains(expr, ".") && !inPlace {
			return "extension " + ext + " is in another schema on the target"
		}
	}
	return ""
}

// inDefault is how the server writes a sequence inside an expression, with standard_conforming_strings on.
func (s *Sequence) inDefault() string {
	return "'" + strings.ReplaceAll(s.regclass, "'", "''") + "'::regclass"
}

func (s *Sequence) options() string {
	cycle := "NO CYCLE"
	if s.Cycle {
		cycle = "CYCLE"
	}
	return fmt.Sprintf("INCREMENT BY %d MINVALUE %d MAXVALUE %d START WITH %d CACHE %d %s", s.Increment, s.Min, s.Max, s.Start, s.Cache, cycle)
}

// PrimaryKey adds the primary key to a table made without it; ok is false when there is none to add.
func (t *Target) PrimaryKey() (st Statement, ok bool) {
	pk := t.Source.PrimaryKey
	if pk == nil || t.whyNotIndex(pk) != "" {
		return Statement{}, false
	}
	return t.addConstraint(pk), true
}

// UniqueConstraints adds unique and exclusion constraints. Unique indexes without a constraint are among
// SecondaryIndexes.
func (t *Target) UniqueConstraints() []Statement {
	var out []Statement
	for i := range t.Source.Indexes {
		if x := &t.Source.Indexes[i]; x.ConstraintName != "" && !x.Primary && t.whyNotIndex(x) == "" {
			out = append(out, t.addConstraint(x))
		}
	}
	return out
}

// SecondaryIndexes makes the indexes that back no constraint.
func (t *Target) SecondaryIndexes() []Statement {
	var out []Statement
	for i := range t.Source.Indexes {
		x := &t.Source.Indexes[i]
		if x.ConstraintName != "" || t.whyNotIndex(x) != "" {
			continue
		}
		name := t.index(x.Name)
		sql, _ := retargetIndex(x.Def, name, t.Name) // whyNotIndex has tried
		out = append(out, Statement{
			What:   "index " + Qualified(t.Name.Schema, name),
			Exists: relationExists(t.Name.Schema, name, "i, I"),
			SQL:    []string{sql},
		})
	}
	return out
}

func (t *Target) addConstraint(x *Index) Statement {
	name := t.index(x.ConstraintName)
	return Statement{
		What:   "constraint " + Ident(name) + " of " + t.Name.String(),
		Exists: t.constraintExists(name),
		SQL:    []string{"ALTER TABLE " + t.Name.String() + " ADD " + t.constraint(x)},
	}
}

// constraint is a table constraint. A deferrable primary key is made immediate: Postgres takes no deferrable constraint
// as the arbiter of an upsert.
func (t *Target) constraint(x *Index) string {
	def := x.ConstraintDef
	if x.Primary {
		def = strings.TrimSuffix(strings.TrimSuffix(def, " INITIALLY DEFERRED"), " DEFERRABLE")
	}
	return "CONSTRAINT " + Ident(t.index(x.ConstraintName)) + " " + def
}

func (t *Target) whyNotIndex(x *Index) string {
	if !x.Valid {
		return "it is not valid on the source"
	}
	if c := t.lacks(x.Uses); c != "" {
		return "it uses column " + Ident(c) + ", which is not mirrored"
	}
	if missing := t.missing(x.Needs); missing != "" {
		return "it needs " + missing
	}
	if t.Options.SoftDelete != "" && !x.Primary && (x.Unique || x.Exclusion) {
		return "rows marked as deleted would stand in its way"
	}
	if x.NullsNotDistinct && t.older(150000) {
		return "NULLS NOT DISTINCT came with Postgres 15"
	}
	if x.Exclusion && x.Unique && t.older(180000) {
		return "WITHOUT OVERLAPS came with Postgres 18"
	}
	if x.ConstraintName == "" {
		if _, err := retargetIndex(x.Def, x.Name, t.Name); err != nil {
			return err.Error()
		}
	}
	return ""
}

// Checks adds the check constraints that every row of the source passes on any server.
func (t *Target) Checks() []Statement {
	var out []Statement
	for i := range t.Source.Checks {
		k := &t.Source.Checks[i]
		if t.whyNotCheck(k) != "" {
			continue
		}
		out = append(out, Statement{
			What:   "check " + Ident(k.Name) + " of " + t.Name.String(),
			Exists: t.constraintExists(k.Name),
			SQL:    []string{"ALTER TABLE " + t.Name.String() + " ADD CONSTRAINT " + Ident(k.Name) + " " + k.Def},
		})
	}
	return out
}

func (t *Target) whyNotCheck(k *Constraint) string {
	switch {
	case !k.Enforced:
		return "the source does not enforce it"
	case !k.Validated:
		return "it was never validated: old rows may break it"
	case k.Volatile:
		return "its answer can differ from one day, setting or server to another"
	case k.WholeRow:
		return "it passes the whole row"
	}
	if c := t.lacks(k.Columns); c != "" {
		return "it uses column " + Ident(c) + ", which is not mirrored"
	}
	if missing := t.missing(k.Needs); missing != "" {
		return "it needs " + missing
	}
	return t.olderThan(k.Def)
}

// ForeignKeys adds the foreign keys between mirrored tables, which are given by the source's oid, and tells which stay
// behind. They are added when all tables are filled.
func (t *Target) ForeignKeys(mirrored map[uint32]*Target) (add []Statement, notes []string) {
	for i := range t.Source.ForeignKeys {
		k := &t.Source.ForeignKeys[i]
		ref := mirrored[k.RefTable]
		if why := t.whyNotForeignKey(k, ref); why != "" {
			notes = append(notes, fmt.Sprintf("foreign key %s is not created: %s", Ident(k.Name), why))
			continue
		}
		add = append(add, Statement{
			What:   "foreign key " + Ident(k.Name) + " of " + t.Name.String(),
			Exists: t.constraintExists(k.Name),
			SQL:    []string{"ALTER TABLE " + t.Name.String() + " ADD CONSTRAINT " + Ident(k.Name) + " " + t.foreignKey(k, ref.Name)},
		})
	}
	return add, notes
}

func (t *Target) whyNotForeignKey(k *Constraint, ref *Target) string {
	switch {
	case ref == nil:
		return Qualified(k.RefSchema, k.RefName) + " is not mirrored, or not with all its rows"
	case !k.Enforced:
		return "the source does not enforce it"
	case !k.Validated:
		return "it was never validated: old rows may break it"
	case k.Period && t.older(180000):
		return "PERIOD came with Postgres 18"
	}
	if c := t.lacks(k.Columns); c != "" {
		return "it uses column " + Ident(c) + ", which is not mirrored"
	}
	for i := range ref.Source.Indexes {
		x := &ref.Source.Indexes[i]
		if x.Unique && !x.Predicate && sameColumns(x.Columns, k.RefColumns) && ref.whyNotIndex(x) == "" {
			return ""
		}
	}
	return "the unique key it points to is not on the target"
}

// SettleForeignKey gives a foreign key that the target checks at commit (TargetOptions.DeferForeignKeys) what the
// source's has, "" when that is the same. Actions cannot be added to a constraint, so one that lacks them is made anew. ref
// is nil when the table that it points to is not mirrored. have is the target's, its Def with names in full; undo makes it
// so again.
func (t *Target) SettleForeignKey(k *Constraint, ref *Target, have Constraint) (sql, undo string) {
	alter := "ALTER TABLE " + t.Name.String() + " "
	again := alter + "DROP CONSTRAINT " + Ident(k.Name) + ", ADD CONSTRAINT " + Ident(k.Name) + " "
	change := alter + "ALTER CONSTRAINT " + Ident(k.Name) + " "
	acts := k.OnUpdate != 'a' || k.OnDelete != 'a'
	switch {
	case acts && ref != nil && have.OnUpdate == 'a' && have.OnDelete == 'a':
		as := *t
		as.Options.DeferForeignKeys = false
		return again + as.foreignKey(k, ref.Name), again + have.Def
	case !k.Deferrable:
		return change + "NOT DEFERRABLE", change + "DEFERRABLE INITIALLY DEFERRED"
	case !k.Deferred:
		return change + "DEFERRABLE INITIALLY IMMEDIATE", change + "DEFERRABLE INITIALLY DEFERRED"
	}
	return "", ""
}

// sameColumns: a foreign key may list the columns of the key in another order.
func sameColumns(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for _, c := range a {
		if !slices.Contains(b, c) {
			return false
		}
	}
	return true
}

func (t *Target) foreignKey(k *Constraint, ref TargetName) string {
	list := func(columns []string) string {
		if !k.Period || len(columns) == 0 {
			return "(" + Idents(columns) + ")"
		}
		last := len(columns) - 1
		return "(" + Idents(columns[:last]) + ", PERIOD " + Ident(columns[last]) + ")"
	}
	sql := "FOREIGN KEY " + list(k.Columns) + " REFERENCES " + ref.String() + " " + list(k.RefColumns)
	if k.Match == 'f' {
		sql += " MATCH FULL"
	}
	actions := map[byte]string{'r': "RESTRICT", 'c': "CASCADE", 'n': "SET NULL", 'd': "SET DEFAULT"}
	if t.Options.DeferForeignKeys {
		// The source sends the effects of its actions as changes of their own, so the target's need not act; and
		// RESTRICT cannot wait for the commit.
		return sql + " DEFERRABLE INITIALLY DEFERRED"
	}
	if a := actions[k.OnUpdate]; a != "" {
		sql += " ON UPDATE " + a
	}
	if a := actions[k.OnDelete]; a != "" {
		sql += " ON DELETE " + a
		if len(k.OnDeleteColumns) > 0 && !t.older(150000) {
			sql += " (" + Idents(k.OnDeleteColumns) + ")"
		}
	}
	if k.Deferrable {
		sql += " DEFERRABLE"
	}
	if k.Deferred {
		sql += " INITIALLY DEFERRED"
	}
	return sql
}

// Notes tells what of the source's table the target's will not have, or has otherwise. It does not repeat what the
// user asked for.
func (t *Target) Notes() []string {
	s := t.Source
	var out []string
	note := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	switch {
	case s.Kind == 'v', s.Kind == 'm', s.Kind == 'f':
		note("it is a %s: its changes are not in the log", map[byte]string{'v': "view", 'm': "materialized view", 'f': "foreign table"}[s.Kind])
	case s.Persistence == 'u':
		note("it is unlogged: its changes are not in the log")
	case s.Kind == 'p':
		note("it is partitioned by %s; the target gets one plain table", s.PartitionKey)
	case s.Inherits:
		note("it inherits from another table; the target's does not")
	}
	if s.RLS {
		note("row security policies are not created")
	}
	switch {
	case s.Triggers == 1:
		note("1 trigger is not created")
	case s.Triggers > 1:
		note("%d triggers are not created", s.Triggers)
	}
	for i := range s.Columns {
		t.noteColumn(&s.Columns[i], note)
	}
	for i := range s.Indexes {
		x := &s.Indexes[i]
		if why := t.whyNotIndex(x); why != "" {
			note("%s %s is not created: %s", map[bool]string{true: "primary key", false: "index"}[x.Primary], Ident(x.Name), why)
		} else if x.Primary && !x.Immediate {
			note("primary key %s is not deferrable on the target", Ident(x.Name))
		}
	}
	for i := range s.Checks {
		if why := t.whyNotCheck(&s.Checks[i]); why != "" {
			note("check %s is not created: %s", Ident(s.Checks[i].Name), why)
		}
	}
	return out
}

func (t *Target) noteColumn(c *Column, note func(string, ...any)) {
	if why := t.whyNotColumn(c); why != "" {
		if why != "excluded" {
			note("column %s is not mirrored: %s", Ident(c.Name), why)
		}
		return
	}
	if c.Collation != "" && t.Options.MissingCollations[c.Collation] {
		note("column %s gets the default collation: the target has no %s", Ident(c.Name), c.Collation)
	}
	switch {
	case c.Identity == 'a':
		note("column %s is GENERATED BY DEFAULT on the target, so that rows keep the source's values", Ident(c.Name))
	case c.Generated == 'v' && t.older(180000):
		note("column %s is stored on the target: virtual columns came with Postgres 18", Ident(c.Name))
	case c.Generated == 0 && c.Default != "":
		if why := t.whyNotDefault(c); why != "" {
			note("the default of column %s is not created: %s", Ident(c.Name), why)
		}
	}
}

func relationExists(schema, name, kinds string) string {
	var list []string
	for _, k := range strings.Split(kinds, ", ") {
		list = append(list, Literal(k))
	}
	return "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = " +
		Literal(schema) + " AND c.relname = " + Literal(name) + " AND c.relkind IN (" + strings.Join(list, ", ") + "))"
}

func (t *Target) constraintExists(name string) string {
	return "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid " +
		"JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = " + Literal(t.Name.Schema) +
		" AND c.relname = " + Literal(t.Name.Name) + " AND k.conname = " + Literal(name) + ")"
}
