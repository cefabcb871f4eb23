package pg_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/pg"
	testenv "github.com/weirstream/weir/test/env"
)

func TestMain(m *testing.M) { testenv.Main(m, testenv.CheckLeaks()) }

func server(t *testing.T, v testenv.Version) *testenv.Server {
	return testenv.Shared(t, v, testenv.FsyncOff())
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	cfg, err := pg.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pg.ConnectPgx(t.Context(), env.Real(nil), cfg, pg.ConnectOptions{AppName: "weir test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		at := ""
		if pe, ok := errors.AsType[*pgconn.PgError](err); ok && pe.Position > 0 {
			runes := []rune(sql)
			at = " at: " + string(runes[pe.Position-1:min(int(pe.Position)+200, len(runes))])
		}
		t.Fatalf("%.300s\n%v%s", sql, err, at)
	}
}

// everything fills a database with what its version can hold.
func everything(t *testing.T, conn *pgx.Conn, v testenv.Version) {
	t.Helper()
	exec(t, conn, "SET search_path = public")
	defer exec(t, conn, "SET search_path = pg_catalog")
	file, err := os.ReadFile("testdata/everything.sql")
	if err != nil {
		t.Fatal(err)
	}
	for i, section := range strings.Split(string(file), "--@") {
		if i > 0 {
			since, rest, _ := strings.Cut(section, "\n")
			n, err := strconv.Atoi(since)
			if err != nil {
				t.Fatal(err)
			}
			if int(v) < n {
				continue
			}
			section = rest
		}
		exec(t, conn, section)
	}
}

func loadAll(t *testing.T, conn *pgx.Conn) []*pg.Table {
	t.Helper()
	names, err := pg.ListTables(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	var oids []uint32
	for _, n := range names {
		oids = append(oids, n.OID)
	}
	tables, err := pg.LoadTables(t.Context(), conn, oids)
	if err != nil {
		t.Fatal(err)
	}
	if len(tables) != len(names) {
		t.Fatalf("%d tables of %d names", len(tables), len(names))
	}
	return tables
}

func find(t *testing.T, tables []*pg.Table, name string) *pg.Table {
	t.Helper()
	for _, x := range tables {
		if x.Name == name {
			return x
		}
	}
	t.Fatalf("no table %s", name)
	return nil
}

// run executes a statement the way a sink does, and checks that Exists is false before and true after.
func run(t *testing.T, conn *pgx.Conn, st pg.Statement) {
	t.Helper()
	var exists bool
	if err := conn.QueryRow(t.Context(), st.Exists).Scan(&exists); err != nil {
		t.Fatalf("%s: %s\n%v", st.What, st.Exists, err)
	}
	if exists {
		if !strings.HasPrefix(st.What, "schema ") && !strings.HasPrefix(st.What, "type \"information_schema\"") {
			t.Errorf("%s exists before it is made", st.What)
		}
		return
	}
	for _, sql := range st.SQL {
		exec(t, conn, sql)
	}
	if err := conn.QueryRow(t.Context(), st.Exists).Scan(&exists); err != nil || !exists {
		t.Errorf("%s was made and is not found by %s (%v)", st.What, st.Exists, err)
	}
}

// recreate makes all tables that a mirror can fill, under the names that rename gives, and returns them by source oid.
func recreate(t *testing.T, from, to *pgx.Conn, tables []*pg.Table, version int, rename func(*pg.Table) pg.TargetName) (map[uint32]*pg.Target, []string) {
	t.Helper()
	var mirrored []*pg.Table
	for _, x := range tables {
		if (x.Kind == 'r' || x.Kind == 'p') && x.Parent == 0 && x.Name != "row_typed" {
			mirrored = append(mirrored, x)
		}
	}
	var notes []string
	types, err := pg.LoadTypes(t.Context(), from, mirrored)
	if err != nil {
		t.Fatal(err)
	}
	installed, err := pg.LoadExtensions(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range pg.Extensions(mirrored, types, installed) {
		run(t, to, pg.CreateExtension(x))
	}
	opts := pg.TargetOptions{TargetVersion: version}
	create, typeNotes := pg.CreateTypes(types, opts)
	notes = append(notes, typeNotes...)
	for _, st := range create {
		run(t, to, st)
	}
	opts.Route = func(schema, table string) (string, string, bool) {
		i := slices.IndexFunc(mirrored, func(x *pg.Table) bool { return x.Schema == schema && x.Name == table })
		if i < 0 {
			return "", "", false
		}
		n := rename(mirrored[i])
		return n.Schema, n.Name, true
	}
	targets := map[uint32]*pg.Target{}
	for _, x := range mirrored {
		targets[x.OID] = &pg.Target{Source: x, Name: rename(x), Options: opts}
		for _, st := range targets[x.OID].Sequences() {
			run(t, to, st)
		}
	}
	for _, x := range mirrored {
		tg := targets[x.OID]
		run(t, to, pg.CreateSchema(tg.Name.Schema))
		run(t, to, tg.CreateTable())
		for _, n := range tg.Notes() {
			notes = append(notes, x.Name+": "+n)
		}
	}
	for _, x := range mirrored {
		tg := targets[x.OID]
		for _, st := range slices.Concat(tg.UniqueConstraints(), tg.SecondaryIndexes(), tg.Checks()) {
			run(t, to, st)
		}
	}
	for _, x := range mirrored {
		add, fkNotes := targets[x.OID].ForeignKeys(targets)
		for _, st := range add {
			run(t, to, st)
		}
		for _, n := range fkNotes {
			notes = append(notes, x.Name+": "+n)
		}
	}
	return targets, notes
}

// shape is what must be the same on both sides, without what the notes say stays behind.
func shape(tg *pg.Target, x *pg.Table, names bool) string {
	s := *x
	s.OID, s.RelTuples, s.Bytes, s.Kind, s.Persistence, s.Identity, s.IdentityKey = 0, 0, 0, 0, 0, 0, nil
	s.RLS, s.Inherits, s.Triggers, s.Parent, s.PartitionKey = false, false, 0, 0, ""
	s.PrimaryKey = nil // it is among the indexes
	s.Columns, s.Indexes, s.Checks, s.ForeignKeys = nil, nil, nil, nil
	for _, c := range x.Columns {
		if tg != nil && tg.Source == x && !slices.ContainsFunc(tg.Columns(), func(y pg.Column) bool { return y.Name == c.Name }) {
			continue
		}
		if tg != nil && tg.WhyNotDefault(&c) != "" {
			c.Default, c.DefaultNeeds = "", nil
		}
		c.Type = plainType(c.Type)
		c.Attnum = 0
		if c.Identity != 0 {
			c.Identity = 'd'
		}
		if !names {
			c.Default = regexp.MustCompile(`'(?:[^']|'')*'::regclass`).ReplaceAllString(c.Default, "SEQ")
		}
		plain := func(of *pg.Sequence) *pg.Sequence {
			seq := *of
			seq.OID = 0
			if !names {
				seq.Schema, seq.Name, seq.OwnerSchema, seq.OwnerTable = "", "", "", ""
			}
			return &seq
		}
		if c.Sequence != nil {
			c.Sequence = plain(c.Sequence)
		}
		c.Draws = slices.Clone(c.Draws)
		for i, s := range c.Draws {
			c.Draws[i] = plain(s)
		}
		s.Columns = append(s.Columns, c)
	}
	for _, i := range x.Indexes {
		if tg != nil && tg.WhyNotIndex(&i) != "" {
			continue
		}
		i.OID, i.ReplIdent, i.Needs = 0, false, nil
		slices.Sort(i.Uses)
		if i.Primary {
			i.Immediate = true
			i.ConstraintDef = strings.TrimSuffix(i.ConstraintDef, " DEFERRABLE INITIALLY DEFERRED")
		}
		i.Def = strings.Replace(i.Def, " ON ONLY ", " ON ", 1)
		if !names {
			i.Name, i.ConstraintName = "", ""
			i.Def = i.Def[strings.LastIndex(i.Def, " USING "):]
		}
		s.Indexes = append(s.Indexes, i)
	}
	for _, k := range x.Checks {
		if tg == nil || tg.WhyNotCheck(&k) == "" {
			k.Needs = nil
			slices.Sort(k.Columns)
			s.Checks = append(s.Checks, k)
		}
	}
	for _, k := range x.ForeignKeys {
		if k.Validated && k.Enforced {
			k.RefTable = 0
			if !names {
				k.RefSchema, k.RefName, k.Def = "", "", ""
			}
			s.ForeignKeys = append(s.ForeignKeys, k)
		}
	}
	if !names {
		s.Schema, s.Name = "", ""
		slices.SortFunc(s.Indexes, func(a, b pg.Index) int {
			return strings.Compare(fmt.Sprint(a.Unique, a.Def), fmt.Sprint(b.Unique, b.Def))
		})
	}
	out, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		panic(err)
	}
	return string(out)
}

// typeShapes describes the types of the tables that are mirrored.
func typeShapes(t *testing.T, conn *pgx.Conn, targets map[uint32]*pg.Target, tables []*pg.Table) string {
	t.Helper()
	var mirrored []*pg.Table
	for _, x := range tables {
		for _, tg := range targets {
			if tg.Source.Name == x.Name {
				mirrored = append(mirrored, x)
			}
		}
	}
	defs, err := pg.LoadTypes(t.Context(), conn, mirrored)
	if err != nil {
		t.Fatal(err)
	}
	for i := range defs {
		defs[i].Type = plainType(defs[i].Type)
		for j := range defs[i].Attributes {
			defs[i].Attributes[j].Type = plainType(defs[i].Attributes[j].Type)
		}
	}
	if len(defs) < 12 {
		t.Errorf("only %d types", len(defs))
	}
	slices.SortFunc(defs, func(a, b pg.TypeDef) int { return strings.Compare(a.Schema+"."+a.Name, b.Schema+"."+b.Name) })
	out, err := json.MarshalIndent(defs, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func plainType(t pg.Type) pg.Type {
	t.OID, t.Elem, t.Base, t.Relation, t.Collation = 0, 0, 0, 0, 0
	if t.ElemType != nil {
		e := plainType(*t.ElemType)
		t.ElemType = &e
	}
	if t.BaseType != nil {
		b := plainType(*t.BaseType)
		t.BaseType = &b
	}
	return t
}

// A database is described, made again from the description under its own names and under others, and described again:
// the descriptions are equal, apart from what the notes announced.
func TestRoundTrip(t *testing.T) {
	for _, v := range []testenv.Version{12, 15, 18} {
		t.Run(v.String(), func(t *testing.T) {
			s := server(t, v)
			from := connect(t, s.CreateDatabase(t, "from"))
			everything(t, from, v)
			tables := loadAll(t, from)
			num, _, err := pg.ServerVersion(t.Context(), from)
			if err != nil || num/10000 != int(v) {
				t.Fatalf("version %d, %v", num, err)
			}

			t.Run("same names", func(t *testing.T) {
				to := connect(t, s.CreateDatabase(t, "to"))
				targets, notes := recreate(t, from, to, tables, num, func(x *pg.Table) pg.TargetName { return pg.TargetName{Schema: x.Schema, Name: x.Name} })
				made := loadAll(t, to)
				compareShapes(t, targets, made, true)
				if want, got := typeShapes(t, from, targets, tables), typeShapes(t, to, targets, made); want != got {
					t.Errorf("types differ:\n%s", diff(want, got))
				}
				checkNotes(t, notes, v)
			})
			t.Run("renamed", func(t *testing.T) {
				to := connect(t, s.CreateDatabase(t, "to"))
				// All into one schema: names that were apart meet, and what they own must not collide.
				targets, _ := recreate(t, from, to, tables, num, func(x *pg.Table) pg.TargetName {
					return pg.TargetName{Schema: `one "schema"`, Name: pg.Shorten("Copy of " + x.Name)}
				})
				compareShapes(t, targets, loadAll(t, to), false)
			})
		})
	}
}

func compareShapes(t *testing.T, targets map[uint32]*pg.Target, made []*pg.Table, names bool) {
	t.Helper()
	for _, tg := range targets {
		i := slices.IndexFunc(made, func(x *pg.Table) bool { return x.Schema == tg.Name.Schema && x.Name == tg.Name.Name })
		if i < 0 {
			t.Errorf("%s is not on the target", tg.Name)
			continue
		}
		want, got := shape(tg, tg.Source, names), shape(nil, made[i], names)
		if want != got {
			t.Errorf("%s differs:\n%s", tg.Name, diff(want, got))
		}
	}
}

func diff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return "source:\n" + strings.Join(w[max(i-12, 0):min(i+6, len(w))], "\n") + "\ntarget:\n" + strings.Join(g[max(i-12, 0):min(i+6, len(g))], "\n")
		}
	}
	return "one is longer: " + strings.Join(append(w, g...)[min(len(w), len(g)):], "\n")
}

// A table goes from each end of the version range to the other.
func TestAcrossVersions(t *testing.T) {
	for _, pair := range [][2]testenv.Version{{12, 18}, {18, 12}, {18, 15}} {
		t.Run(fmt.Sprintf("%d to %d", pair[0], pair[1]), func(t *testing.T) {
			from := connect(t, server(t, pair[0]).CreateDatabase(t, "from"))
			to := connect(t, server(t, pair[1]).CreateDatabase(t, "to"))
			everything(t, from, min(pair[0], pair[1])) // types that only the newer knows have no counterpart
			if pair[0] == 18 {
				exec(t, from, `CREATE TABLE app.newer (id uuid DEFAULT uuidv7() PRIMARY KEY, a int, r daterange,
					v int GENERATED ALWAYS AS (a + 1) VIRTUAL, u uuid DEFAULT gen_random_uuid(),
					CONSTRAINT newer_nnd UNIQUE NULLS NOT DISTINCT (a), CONSTRAINT lax CHECK (a > 0) NOT ENFORCED,
					CONSTRAINT over UNIQUE (a, r WITHOUT OVERLAPS))`)
			}
			targets, notes := recreate(t, from, to, loadAll(t, from), int(pair[1])*10000, func(x *pg.Table) pg.TargetName {
				return pg.TargetName{Schema: x.Schema, Name: x.Name}
			})
			made := loadAll(t, to)
			for _, tg := range targets {
				x := find(t, made, tg.Name.Name)
				if len(x.Columns) != len(tg.Columns()) {
					t.Errorf("%s has %d columns, want %d", tg.Name, len(x.Columns), len(tg.Columns()))
				}
			}
			if pair[0] != 18 {
				return
			}
			want := []string{
				`newer: column "v" is stored on the target: virtual columns came with Postgres 18`,
				`newer: the default of column "id" is not created: uuidv7() came with Postgres 18`,
				`newer: index "over" is not created: WITHOUT OVERLAPS came with Postgres 18`,
				`newer: check "lax" is not created: the source does not enforce it`,
			}
			if pair[1] == 12 {
				want = append(want, `newer: the default of column "u" is not created: gen_random_uuid() came with Postgres 13`,
					`newer: index "newer_nnd" is not created: NULLS NOT DISTINCT came with Postgres 15`)
			}
			for _, w := range want {
				if !slices.Contains(notes, w) {
					t.Errorf("no note %q in\n%s", w, strings.Join(notes, "\n"))
				}
			}
		})
	}
}

func checkNotes(t *testing.T, notes []string, v testenv.Version) {
	t.Helper()
	want := []string{
		`defaults: column "always" is GENERATED BY DEFAULT on the target, so that rows keep the source's values`,
		`indexes: index "pattern" is not created: it needs collation app."C too"`,
		`needy: the default of column "f" is not created: it needs function app.twice(integer)`,
		`needy: column "g" is not mirrored: its expression needs function app.twice(integer)`,
		`needy: index "needy_f" is not created: it needs function app.twice(integer)`,
		`needy: check "cast_by_setting" is not created: its answer can differ from one day, setting or server to another`,
		`needy: check "clock" is not created: its answer can differ from one day, setting or server to another`,
		`needy: check "later" is not created: it was never validated: old rows may break it`,
		`needy: check "uses_function" is not created: it needs function app.twice(integer)`,
		`needy: check "whole" is not created: it passes the whole row`,
		`parts: it is partitioned by RANGE (at); the target gets one plain table`,
		`secured: row security policies are not created`,
		`secured: 1 trigger is not created`,
		`soft_pk: primary key "soft_pk_pkey" is not deferrable on the target`,
		`unlogged: it is unlogged: its changes are not in the log`,
		`inherited: it inherits from another table; the target's does not`,
		`child: foreign key "fk_later" is not created: it was never validated: old rows may break it`,
	}
	if v >= 18 {
		want = append(want, `since18: check "lax" is not created: the source does not enforce it`)
	}
	slices.Sort(want)
	slices.Sort(notes)
	if !slices.Equal(notes, want) {
		t.Errorf("notes\n%s\nwant\n%s", strings.Join(notes, "\n"), strings.Join(want, "\n"))
	}
}

func TestIntrospection(t *testing.T) {
	for _, v := range []testenv.Version{12, 15, 18} {
		t.Run(v.String(), func(t *testing.T) {
			conn := connect(t, server(t, v).CreateDatabase(t, "look"))
			everything(t, conn, v)
			exec(t, conn, "ANALYZE app.parts; CREATE TEMPORARY TABLE temporary (a int)")
			tables := loadAll(t, conn)
			for _, x := range tables {
				if x.Schema == "_weir" || x.Schema == "pg_catalog" || x.Name == "temporary" {
					t.Errorf("%s is listed", x)
				}
			}
			parts, leaf := find(t, tables, "parts"), find(t, tables, "parts_2_1")
			if !parts.PartitionRoot() || parts.RelTuples != 1001 || parts.Bytes < 8192*2 || leaf.Parent != parts.OID || find(t, tables, "parts_2").PartitionRoot() {
				t.Errorf("partitions: %+v\n%+v", parts, leaf)
			}
			for name, want := range map[string][]string{
				"types": {"id"}, "indexes": {"b"}, "keyless": {"a", "b"}, "silent": nil, "soft_pk": nil, "nothing": nil, "parts": {"at", "id"},
			} {
				if got := find(t, tables, name).IdentityKey; !slices.Equal(got, want) {
					t.Errorf("identity of %s is %q, want %q", name, got, want)
				}
			}
			if x := find(t, tables, "to_parts"); len(x.ForeignKeys) != 1 {
				t.Errorf("a foreign key to a partitioned table counts %d times", len(x.ForeignKeys))
			}
			if v >= 18 {
				x := find(t, tables, "since18")
				if x.Column("n").NotNull || x.Column("v").Generated != 'v' {
					t.Errorf("since18: %+v", x.Columns)
				}
			}
			def := find(t, tables, "defaults")
			if c := def.Column("d_seq"); c.UsesSequence || len(c.DefaultNeeds) != 0 || len(c.Draws) != 1 || c.Draws[0].OwnerColumn != "big" || !def.Column("big").Sequence.Shared {
				t.Errorf("a default that draws from another column's sequence: %+v", c)
			}
			if c := find(t, tables, "needy").Column("id"); len(c.DefaultNeeds) != 0 || len(c.Draws) != 1 || c.Draws[0].Name != "free" || c.Draws[0].OwnerTable != "" {
				t.Errorf("a default that draws from nobody's sequence: %+v", c)
			}
			if c := def.Column("gen"); !slices.Equal(c.GeneratedFrom, []string{"d_int"}) {
				t.Errorf("gen is generated from %q", c.GeneratedFrom)
			}

			// With a column left out, what uses it goes too.
			tg := &pg.Target{Source: def, Name: pg.TargetName{Schema: "x", Name: "y"}, Options: pg.TargetOptions{ExcludeColumns: []string{"d_int"}}}
			for _, c := range tg.Columns() {
				if c.Name == "gen" || c.Name == "d_int" {
					t.Errorf("column %s is mirrored without its origin", c.Name)
				}
			}
			idx := &pg.Target{Source: find(t, tables, "indexes"), Options: pg.TargetOptions{ExcludeColumns: []string{"c"}}}
			for _, st := range slices.Concat(idx.SecondaryIndexes(), idx.UniqueConstraints()) {
				for _, name := range []string{"expr", "partial", "hashed", "trgm", "pattern", "named_unique", "Mixed"} {
					if strings.Contains(st.What, name) {
						t.Errorf("%s is made without column c", st.What)
					}
				}
			}
			if _, ok := idx.PrimaryKey(); ok {
				t.Error("a primary key is made without a column it includes")
			}
		})
	}
}

// A session whose search_path hides schemas is refused, because SQL deparsed under it would mean other tables.
func TestSearchPathIsRequired(t *testing.T) {
	conn := connect(t, server(t, 15).CreateDatabase(t, "path"))
	exec(t, conn, "SET search_path = public")
	if _, err := pg.LoadTables(t.Context(), conn, []uint32{1}); err == nil || !strings.Contains(err.Error(), "search_path") {
		t.Fatalf("got %v", err)
	}
}

// counter counts statements.
type counter struct {
	pg.Querier
	n int
}

func (c *counter) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	c.n++
	return c.Querier.Query(ctx, sql, args...)
}

func (c *counter) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	c.n++
	return c.Querier.QueryRow(ctx, sql, args...)
}

func TestQueriesDoNotGrowWithTables(t *testing.T) {
	conn := connect(t, server(t, 15).CreateDatabase(t, "many"))
	exec(t, conn, `SET search_path = public; DO $$ BEGIN FOR i IN 1..600 LOOP
		EXECUTE format('CREATE TABLE t%s (id serial PRIMARY KEY, a text DEFAULT %L, b int UNIQUE CHECK (b > 0))', i, 'x');
		END LOOP; END $$; SET search_path = pg_catalog`)
	q := &counter{Querier: conn}
	names, err := pg.ListTables(t.Context(), q)
	if err != nil || len(names) != 600 {
		t.Fatalf("%d tables, %v", len(names), err)
	}
	var oids []uint32
	for _, n := range names {
		oids = append(oids, n.OID)
	}
	tables, err := pg.LoadTables(t.Context(), q, oids)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = pg.LoadTypes(t.Context(), q, tables); err != nil {
		t.Fatal(err)
	}
	sequences, err := pg.LoadSequences(t.Context(), q)
	if err != nil || len(sequences) != 600 {
		t.Fatalf("%d sequences, %v", len(sequences), err)
	}
	if q.n > 15 {
		t.Errorf("%d queries for 600 tables", q.n)
	}
}

func TestSequences(t *testing.T) {
	for _, v := range []testenv.Version{12, 18} {
		conn := connect(t, server(t, v).CreateDatabase(t, "seq"))
		everything(t, conn, v)
		exec(t, conn, `SELECT nextval('app.free'), nextval('app.free'); SELECT setval('app.defaults_id_seq', 100, false)`)
		list, err := pg.LoadSequences(t.Context(), conn, "app")
		if err != nil {
			t.Fatal(err)
		}
		byName := map[string]pg.Sequence{}
		for _, s := range list {
			byName[s.Name] = s
		}
		if s := byName["free"]; s.LastValue != 2 || !s.IsCalled || s.OwnerTable != "" || !s.Readable || s.Type != "bigint" {
			t.Errorf("free: %+v", s)
		}
		if s := byName["defaults_id_seq"]; s.LastValue != 100 || s.IsCalled || s.OwnerTable != "defaults" || s.OwnerColumn != "id" || s.Identity {
			t.Errorf("serial: %+v", s)
		}
		if s := byName["defaults_by_default_seq"]; s.LastValue != 7 || s.Increment != -3 || !s.Cycle || !s.Identity || s.Cache != 4 {
			t.Errorf("identity: %+v", s)
		}
	}
}

func TestSequenceWithoutTheRight(t *testing.T) {
	s := server(t, 15)
	url := s.CreateDatabase(t, "norights")
	admin := connect(t, url)
	role := "reader_" + strings.ToLower(testenv.DatabaseOf(t, url))
	exec(t, admin, "CREATE SEQUENCE public.a; CREATE SEQUENCE public.b; CREATE ROLE "+pg.Ident(role)+" LOGIN; GRANT SELECT ON SEQUENCE public.b TO "+pg.Ident(role))
	conn := connect(t, url)
	exec(t, conn, "SET ROLE "+pg.Ident(role))
	list, err := pg.LoadSequences(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Readable || !list[1].Readable || list[1].LastValue != 1 {
		t.Errorf("%+v", list)
	}
	id, err := pg.SystemIdentity(t.Context(), conn)
	if err != nil || id.System == "" {
		t.Errorf("a role without rights reads %+v, %v", id, err)
	}
}

func TestIdentityIsTheSameOnBothWays(t *testing.T) {
	for _, v := range []testenv.Version{12, 18} {
		s := server(t, v)
		url := s.CreateDatabase(t, "ident")
		cfg, err := pg.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		bySQL, err := pg.SystemIdentity(t.Context(), connect(t, url))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pg.Connect(t.Context(), env.Real(nil), cfg, pg.ConnectOptions{AppName: "weir", Replication: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		byWalsender, err := pg.IdentifySystem(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		if bySQL.System != byWalsender.System || bySQL.Timeline != byWalsender.Timeline || bySQL.Database != byWalsender.Database ||
			bySQL.Flushed == 0 || byWalsender.Flushed < bySQL.Flushed {
			t.Errorf("SQL says %+v, the walsender %+v", bySQL, byWalsender)
		}
	}
}

// The session settings win over what the role, the database and the URL say, on plain and on replication connections.
func TestSessionSettings(t *testing.T) {
	for _, v := range []testenv.Version{12, 15, 18} {
		s := server(t, v)
		url := s.CreateDatabase(t, "settings")
		db := pg.Ident(testenv.DatabaseOf(t, url))
		admin := connect(t, url)
		for _, set := range []string{"datestyle = 'SQL, DMY'", "intervalstyle = iso_8601", "extra_float_digits = -5", "bytea_output = escape",
			"timezone = 'Asia/Tokyo'", "search_path = public", "statement_timeout = 1234", "lock_timeout = 1234", "array_nulls = off",
			"standard_conforming_strings = off", "quote_all_identifiers = on", "idle_in_transaction_session_timeout = 999"} {
			exec(t, admin, "ALTER DATABASE "+db+" SET "+set)
		}
		if v >= 17 {
			exec(t, admin, "ALTER DATABASE "+db+" SET transaction_timeout = 99999; ALTER DATABASE "+db+" SET idle_session_timeout = 99999")
		}
		cfg, err := pg.ParseURL(url + "&TimeZone=Europe/Paris&application_name=mine")
		if !strings.Contains(url, "?") {
			cfg, err = pg.ParseURL(url + "?TimeZone=Europe/Paris&application_name=mine")
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, replication := range []bool{false, true} {
			conn, err := pg.Connect(t.Context(), env.Real(nil), cfg, pg.ConnectOptions{AppName: "weir mirror", Replication: replication,
				Settings: map[string]string{"work_mem": "7MB"}})
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"datestyle": "ISO, MDY", "intervalstyle": "postgres", "extra_float_digits": "3", "bytea_output": "hex",
				"timezone": "UTC", "search_path": "pg_catalog", "statement_timeout": "0", "lock_timeout": "0", "array_nulls": "on", "lc_monetary": "C",
				"standard_conforming_strings": "on", "quote_all_identifiers": "off", "application_name": "weir mirror", "work_mem": "7MB",
				"client_encoding": "UTF8", "idle_in_transaction_session_timeout": "0"}
			if v >= 17 {
				want["transaction_timeout"], want["idle_session_timeout"] = "0", "0"
			}
			for name, value := range want {
				if got := show(t, conn, name); got != value {
					t.Errorf("Postgres %s, replication %v: %s is %q, want %q", v, replication, name, got, value)
				}
			}
			conn.Close(context.Background())
		}
	}
}

// target_session_attrs judges the server, not the sessions that weir wants read-only; those are read-only all the same.
// Of several hosts the one that is meant is found.
func TestSessionAttributes(t *testing.T) {
	primary := testenv.Postgres(t, 15, testenv.FsyncOff())
	standby := primary.Standby(t)
	down := testenv.NewProxy(t, primary.Addr())
	if err := down.Refuse(true); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		hosts, attrs string
		standby      bool
	}{
		{primary.Addr(), "read-write", false},
		{primary.Addr(), "primary", false},
		{down.Addr() + "," + primary.Addr(), "read-write", false},
		{down.Addr() + "," + primary.Addr(), "any", false},
		{standby.Addr() + "," + primary.Addr(), "read-write", false},
		{primary.Addr() + "," + standby.Addr(), "read-only", true},
	} {
		cfg, err := pg.ParseURL("postgres://postgres@" + c.hosts + "/postgres?sslmode=disable&target_session_attrs=" + c.attrs)
		if err != nil {
			t.Fatal(err)
		}
		for _, value := range []string{"on", "off"} {
			conn, err := pg.ConnectPgx(t.Context(), env.Real(nil), cfg, pg.ConnectOptions{Settings: map[string]string{"default_transaction_read_only": value}})
			if err != nil {
				t.Errorf("%s of %s, read-only %s: %v", c.attrs, c.hosts, value, err)
				continue
			}
			var recovers bool
			if err := conn.QueryRow(t.Context(), "SELECT pg_is_in_recovery()").Scan(&recovers); err != nil || recovers != c.standby {
				t.Errorf("%s of %s leads to a standby: %v, %v", c.attrs, c.hosts, recovers, err)
			}
			if got := show(t, conn.PgConn(), "default_transaction_read_only"); got != value {
				t.Errorf("%s of %s: default_transaction_read_only is %s, want %s", c.attrs, c.hosts, got, value)
			}
			conn.Close(context.Background())
		}
	}
}

func show(t *testing.T, conn *pgconn.PgConn, name string) string {
	t.Helper()
	res, err := conn.Exec(t.Context(), "SHOW "+name).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return string(res[0].Rows[0][0])
}

func TestConnectErrorHasNoPassword(t *testing.T) {
	s := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithPassword("alice", "right"))
	cfg, err := pg.ParseURL(pg.WithPassword(s.URLFor("alice", s.Addr(), "postgres"), "wr@ng/secret"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = pg.Connect(t.Context(), env.Real(nil), cfg, pg.ConnectOptions{})
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), cfg.Server()) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}

// What Ident, Qualified and Literal make is read back by every server as what went in.
func TestQuotingIsReadBack(t *testing.T) {
	hostile := []string{`x`, `"`, `""`, `'`, `''`, `\`, `\'`, `\\'`, `$1`, `$$`, `%s`, "a\nb", "\t", ` `, `;--`, `/*`, `*/`, `E'x'`, `U&"\0041"`,
		`select`, `ÄÖ`, `🐘`, `a.b`, `"; DROP TABLE x; --`, "\x01", strings.Repeat("é", 31) + "x", `\x41`, `''\''`}
	for _, v := range []testenv.Version{12, 18} {
		conn := connect(t, server(t, v).CreateDatabase(t, "quote"))
		for _, scs := range []string{"on", "off"} {
			exec(t, conn, "SET standard_conforming_strings = "+scs+"; SET escape_string_warning = off")
			for _, s := range hostile {
				res, err := conn.PgConn().Exec(t.Context(), "SELECT "+pg.Literal(s)+" AS "+pg.Ident(s)).ReadAll()
				if err != nil {
					t.Fatalf("%q: %v", s, err)
				}
				if got := string(res[0].Rows[0][0]); got != s {
					t.Errorf("literal %q is read as %q", s, got)
				}
				if got := res[0].FieldDescriptions[0].Name; got != s {
					t.Errorf("name %q is read as %q", s, got)
				}
			}
		}
		for i, s := range hostile {
			exec(t, conn, "CREATE SCHEMA "+pg.Ident(s))
			exec(t, conn, "CREATE TABLE "+pg.Qualified(s, hostile[len(hostile)-1-i])+" ("+pg.Ident(s)+" int)")
		}
		names, err := pg.ListTables(t.Context(), conn)
		if err != nil || len(names) != len(hostile) {
			t.Errorf("%d tables, %v", len(names), err)
		}
	}
}

// TestPeek: a shape is read of tables that somebody has locked, who may be waiting for the reader.
func TestPeek(t *testing.T) {
	for _, v := range []testenv.Version{12, 15, 18} {
		t.Run(v.String(), func(t *testing.T) {
			url := server(t, v).CreateDatabase(t, "peek")
			holder, reader := connect(t, url), connect(t, url)
			everything(t, holder, v)
			var oids []uint32
			tables, err := pg.ListTables(t.Context(), reader)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range tables {
				oids = append(oids, x.OID)
			}
			want, err := pg.LoadShapes(t.Context(), reader, oids)
			if err != nil {
				t.Fatal(err)
			}
			exec(t, holder, "BEGIN")
			locked := 0
			for _, x := range tables {
				if x.Kind == 'r' || x.Kind == 'p' {
					exec(t, holder, "LOCK TABLE "+pg.Qualified(x.Schema, x.Name)+" IN ACCESS EXCLUSIVE MODE")
					locked++
				}
			}
			if locked == 0 {
				t.Fatal("nothing is locked")
			}
			exec(t, reader, "SET lock_timeout = '1ms'")
			got, err := pg.PeekShapes(t.Context(), reader, oids)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(want) {
				t.Fatalf("%d tables, want %d", len(got), len(want))
			}
			for i, x := range want {
				x.Bytes, got[i].Bytes, x.RelTuples, got[i].RelTuples = 0, 0, 0, 0
				x.PartitionKey = ""
				for k := range x.Columns {
					x.Columns[k].Default = ""
				}
				for k := range x.Indexes {
					x.Indexes[k].Def, x.Indexes[k].ConstraintDef = "", ""
				}
				a, err := json.Marshal(x)
				if err != nil {
					t.Fatal(err)
				}
				b, err := json.Marshal(got[i])
				if err != nil {
					t.Fatal(err)
				}
				if string(a) != string(b) {
					t.Errorf("%s\nis %s\nnot %s", x, b, a)
				}
			}
			exec(t, holder, "ROLLBACK")
		})
	}
}

// TestKeysOfAView: keys are those of the view that the columns are read in, and stand as the server prints them.
func TestKeysOfAView(t *testing.T) {
	for _, v := range []testenv.Version{12, 15, 18} {
		t.Run(fmt.Sprint(v), func(t *testing.T) {
			url := server(t, v).CreateDatabase(t, "view")
			other, conn := connect(t, url), connect(t, url)
			nulls := ""
			if v >= 15 {
				nulls = " NULLS NOT DISTINCT"
			}
			exec(t, other, `CREATE TABLE public.t(a int, "B c" int, d int, e int, PRIMARY KEY ("B c", a) INCLUDE (d) DEFERRABLE INITIALLY DEFERRED,
				CONSTRAINT u UNIQUE`+nulls+` (d, e) WITH (fillfactor = 70), CONSTRAINT w UNIQUE (a) DEFERRABLE)`)
			var oid uint32
			printed := map[string]string{}
			var name, def string
			rows, err := conn.Query(t.Context(), `SELECT conrelid, conname::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'public.t'::regclass AND contype IN ('p', 'u')`)
			if err == nil {
				_, err = pgx.ForEachRow(rows, []any{&oid, &name, &def}, func() error { printed[name] = def; return nil })
			}
			if err != nil {
				t.Fatal(err)
			}
			keys := func(q pg.Querier) map[string]string {
				tables, err := pg.LoadTables(t.Context(), q, []uint32{oid})
				if err != nil {
					t.Fatal(err)
				}
				out := map[string]string{}
				for _, x := range tables[0].Indexes {
					out[x.ConstraintName] = x.ConstraintDef
				}
				return out
			}
			plain := strings.NewReplacer(`"a"`, "a", `"d"`, "d", `"e"`, "e")
			tx, err := conn.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
			if err != nil {
				t.Fatal(err)
			}
			before := keys(tx)
			for name, def := range before {
				if got := plain.Replace(def); got != printed[name] {
					t.Errorf("%s: %s, the server has %s", name, got, printed[name])
				}
			}
			if len(before) != len(printed) {
				t.Errorf("%d keys, want %d", len(before), len(printed))
			}
			exec(t, other, `ALTER TABLE public.t RENAME a TO z`)
			if again := keys(tx); !maps.Equal(before, again) {
				t.Errorf("a column was renamed: %v, was %v", again, before)
			}
		})
	}
}
