package doctor_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
	"github.com/weirstream/weir/sinks/postgres/doctor"
	testenv "github.com/weirstream/weir/test/env"
)

func TestMain(m *testing.M) { testenv.Main(m, testenv.CheckLeaks()) }

func config(t *testing.T, url string) *pg.Config {
	t.Helper()
	cfg, err := pg.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pg.ConnectPgx(t.Context(), env.Real(nil), config(t, url), pg.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func check(t *testing.T, url string, opts doctor.Options) []api.Check {
	t.Helper()
	checks, err := doctor.Check(t.Context(), env.Real(nil), config(t, url), opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		if c.Side != "target" || c.Message == "" || c.Severity == api.SeverityOK && c.Fix != "" || c.Severity != api.SeverityOK && c.Code == "" {
			t.Errorf("badly made finding: %+v", c)
		}
	}
	return checks
}

// fails wants every line of a check at the given severity.
func fails(t *testing.T, checks []api.Check, id string, severity api.Severity, words string) []api.Check {
	t.Helper()
	var found []api.Check
	var all []string
	for _, c := range checks {
		if c.ID != id {
			continue
		}
		found = append(found, c)
		if c.Severity != severity {
			t.Errorf("%s is %s, want %s: %s", id, c.Severity, severity, c.Message)
		}
		all = append(all, c.Message)
	}
	if text := strings.Join(all, "\n"); len(found) == 0 || !strings.Contains(text, words) {
		t.Errorf("%s does not say %q: %s", id, words, text)
	}
	return found
}

func passes(t *testing.T, checks []api.Check, id string) {
	t.Helper()
	fails(t, checks, id, api.SeverityOK, "")
}

// repair runs the SQL of findings line by line, as if pasted.
func repair(t *testing.T, s *testenv.Server, db string, checks []api.Check) {
	t.Helper()
	restart := false
	for _, c := range checks {
		if c.Fix == "" {
			t.Fatalf("%s has no repair: %s", c.ID, c.Message)
		}
		var session []string
		for _, line := range strings.Split(c.Fix, "\n") {
			sql, comment, _ := strings.Cut(line, "-- ")
			restart = restart || strings.Contains(comment, "restart the server")
			if sql = strings.TrimSpace(sql); sql != "" {
				session = append(session, sql)
			}
		}
		s.Exec(t, db, session...)
	}
	if restart {
		if err := s.Restart(testenv.Fast); err != nil {
			t.Fatal(err)
		}
	}
}

// planned describes a source the way a plan does, without its DDL.
func planned(t *testing.T, url string, opts pg.TargetOptions) doctor.Options {
	t.Helper()
	conn := connect(t, url)
	defer conn.Close(context.Background())
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
	out := doctor.Options{}
	if out.Types, err = pg.LoadTypes(t.Context(), conn, tables); err != nil {
		t.Fatal(err)
	}
	installed, err := pg.LoadExtensions(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	out.Extensions = pg.Extensions(tables, out.Types, installed)
	if out.Source, err = pg.SystemIdentity(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	for _, x := range tables {
		out.Tables = append(out.Tables, &pg.Target{Source: x, Name: pg.TargetName{Schema: x.Schema, Name: x.Name}, Options: opts})
	}
	return out
}

// story is a target that does not fit: the check notices, and its own SQL repairs it.
type story struct {
	name     string
	since    testenv.Version
	src, dst []string
	as       string // attributes of the role that asks; "": the superuser
	grant    []string
	soft     string
	id       string
	severity api.Severity
	words    string
	hopeless bool
}

func stories() []story {
	table := []string{`CREATE TABLE "T t" (id int PRIMARY KEY, a text, b numeric(10,2))`}
	return []story{
		{name: "database closed", src: table, as: "CREATEDB", id: "tgt.create", severity: api.SeverityFatal, words: `may not create schema "_weir"`},
		{name: "schema closed", src: table, dst: []string{"REVOKE CREATE ON SCHEMA public FROM PUBLIC"}, as: "CREATEDB", grant: []string{"GRANT CREATE ON DATABASE %d TO %s"},
			id: "tgt.create", severity: api.SeverityFatal, words: `may not create tables in schema "public"`},
		{name: "table closed", src: table, dst: table, as: "CREATEDB", id: "tgt.write", severity: api.SeverityFatal, words: "SELECT, INSERT, UPDATE, DELETE, TRUNCATE"},
		{name: "somebody else's table", src: table, dst: append([]string{`CREATE ROLE "own er"`}, append(table, `ALTER TABLE "T t" OWNER TO "own er"`)...), as: "CREATEDB",
			id: "tgt.owner", severity: api.SeverityWarning, words: "does not own"},
		{name: "a superuser's table", src: table, dst: table, as: "CREATEDB", grant: []string{`GRANT CREATE ON DATABASE %d TO %s; GRANT ALL ON "T t" TO %s`},
			id: "tgt.owner", severity: api.SeverityWarning, words: "does not own"},
		{name: "row security", src: table, dst: append(table, `ALTER TABLE "T t" ENABLE ROW LEVEL SECURITY`), as: "CREATEDB", id: "tgt.rls", severity: api.SeverityFatal, words: "row security"},
		{name: "a view in the way", src: table, dst: []string{`CREATE VIEW "T t" AS SELECT 1`}, id: "tgt.kind", severity: api.SeverityFatal, words: "is not a table", hopeless: true},
		{name: "column missing", src: table, dst: []string{`CREATE TABLE "T t" (id int PRIMARY KEY)`}, id: "tgt.columns", severity: api.SeverityFatal, words: `lacks column "b" numeric(10,2)`},
		{name: "column generated", since: 13, src: table, dst: []string{`CREATE TABLE "T t" (id int PRIMARY KEY, a text GENERATED ALWAYS AS ('x') STORED, b numeric(10,2))`}, id: "tgt.columns", severity: api.SeverityFatal, words: "is generated on the target"},
		{name: "column more strict", src: table, dst: []string{`CREATE TABLE "T t" (id int PRIMARY KEY, a text NOT NULL, b numeric(10,2))`}, id: "tgt.columns", severity: api.SeverityWarning, words: "NOT NULL on the target only"},
		{name: "column that only the target has", src: table, dst: []string{`CREATE TABLE "T t" (id int PRIMARY KEY, a text, b numeric(10,2), c int NOT NULL, d int NOT NULL DEFAULT 1)`}, id: "tgt.columns", severity: api.SeverityFatal, words: `column "c"`},
		{name: "no soft-delete column", src: table, dst: table, soft: "gone at", id: "tgt.columns", severity: api.SeverityFatal, words: "marks deleted rows"},
		{name: "another type", src: table, dst: []string{`CREATE TABLE "T t" (id int PRIMARY KEY, a text, b timestamptz)`}, id: "tgt.types", severity: api.SeverityFatal, words: "another kind"},
		{name: "a narrower type", src: table, dst: []string{`CREATE TABLE "T t" (id smallint PRIMARY KEY, a varchar(5), b numeric(11,1))`}, id: "tgt.types", severity: api.SeverityWarning, words: "smallint on the target"},
		{name: "no key", src: table, dst: []string{`CREATE TABLE "T t" (id int, a text, b numeric(10,2))`}, id: "tgt.pk", severity: api.SeverityFatal, words: `no unique index over the key "id"`},
		{name: "another key", src: table, dst: []string{`CREATE TABLE "T t" (id int, a text PRIMARY KEY, b numeric(10,2))`}, id: "tgt.pk", severity: api.SeverityFatal, words: `no unique index`},
		{name: "a deferrable key", src: table, dst: []string{`CREATE TABLE "T t" (id int PRIMARY KEY DEFERRABLE, a text, b numeric(10,2))`}, id: "tgt.pk", severity: api.SeverityFatal, words: `no unique index`},
		{name: "rows in the way", src: table, dst: append(table, `INSERT INTO "T t" VALUES (1)`), id: "tgt.empty", severity: api.SeverityFatal, words: "already holds rows"},
		{name: "rows, perhaps another mirror's", src: table, dst: append(table, `INSERT INTO "T t" VALUES (1)`, "CREATE SCHEMA _weir", "CREATE TABLE _weir.ledger AS SELECT 1"),
			id: "tgt.empty", severity: api.SeverityWarning, words: "already holds rows", hopeless: true}, // its repair is a comment: run as it is, it empties nobody's mirror
		{name: "rows behind a mirror that is gone", src: table, dst: append(table, `INSERT INTO "T t" VALUES (1)`, "CREATE SCHEMA _weir", "CREATE TABLE _weir.ledger(pipeline text)"),
			id: "tgt.empty", severity: api.SeverityFatal, words: "already holds rows"},
		{name: "one more unique key", src: table, dst: append(table, `CREATE UNIQUE INDEX "u u" ON "T t" (a)`, `ALTER TABLE "T t" ADD CONSTRAINT uc UNIQUE (b)`), id: "tgt.unique", severity: api.SeverityWarning, words: "on the target only"},
		{name: "a trigger for replicas", src: table, dst: append(table, "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
			`CREATE TRIGGER "g g" BEFORE INSERT ON "T t" FOR EACH ROW EXECUTE FUNCTION f()`, `ALTER TABLE "T t" ENABLE ALWAYS TRIGGER "g g"`),
			id: "tgt.triggers", severity: api.SeverityWarning, words: "fire for mirrored rows"},
		{name: "a trigger and no right to silence it", src: table, dst: append(table, "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
			`CREATE TRIGGER "g g" BEFORE INSERT ON "T t" FOR EACH ROW EXECUTE FUNCTION f()`), as: "CREATEDB",
			id: "tgt.triggers", severity: api.SeverityWarning, words: "may not set session_replication_role"},
		{name: "an extension not allowed", src: []string{"CREATE EXTENSION hstore", "CREATE TABLE t (id int PRIMARY KEY, v hstore)"}, as: "CREATEDB",
			id: "tgt.extensions", severity: api.SeverityFatal, words: "hstore"},
		{name: "enum labels missing", src: []string{"CREATE TYPE mood AS ENUM ('bad', 'so so', 'it''s')", "CREATE TABLE t (id int PRIMARY KEY, m mood)"}, dst: []string{"CREATE TYPE mood AS ENUM ('so so')"},
			id: "tgt.enum", severity: api.SeverityFatal, words: "lacks 2 labels"},
		{name: "few connections for the role", src: table, as: "CONNECTION LIMIT 2", id: "tgt.connections", severity: api.SeverityFatal, words: "may have 2 connections"},
		{name: "read-only", src: table, dst: []string{"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$"},
			id: "tgt.recovery", severity: api.SeverityFatal, words: "read-only by default"},
	}
}

func TestFindingsAndTheirRepair(t *testing.T) {
	for _, v := range []testenv.Version{12, 15, 18} {
		t.Run(v.String(), func(t *testing.T) {
			s := testenv.Shared(t, v, testenv.FsyncOff())
			for _, st := range stories() {
				if v < st.since {
					continue
				}
				t.Run(st.name, func(t *testing.T) { st.run(t, s) })
			}
		})
	}
}

func (st story) run(t *testing.T, s *testenv.Server) {
	from, to := s.CreateDatabase(t, "src"), s.CreateDatabase(t, "dst")
	db := testenv.DatabaseOf(t, to)
	for _, sql := range st.src {
		s.Exec(t, testenv.DatabaseOf(t, from), sql)
	}
	for _, sql := range st.dst {
		s.Exec(t, db, sql)
	}
	if strings.Contains(strings.Join(st.dst, ""), `"own er"`) {
		t.Cleanup(func() {
			if _, err := s.Run(context.Background(), db, `DROP OWNED BY "own er" CASCADE`, `DROP ROLE "own er"`); err != nil {
				t.Error(err)
			}
		})
	}
	if st.as != "" {
		s.Exec(t, "postgres", `CREATE ROLE "the writer" LOGIN `+st.as)
		t.Cleanup(func() {
			if _, err := s.Run(context.Background(), db, `DROP OWNED BY "the writer" CASCADE`, `DROP ROLE "the writer"`); err != nil {
				t.Error(err)
			}
		})
		for _, g := range st.grant {
			s.Exec(t, db, strings.NewReplacer("%d", pg.Ident(db), "%s", `"the writer"`).Replace(g))
		}
		to = s.URLFor("the writer", s.Addr(), db)
	}
	opts := planned(t, from, pg.TargetOptions{SoftDelete: st.soft})
	opts.Copies = true
	found := fails(t, check(t, to, opts), st.id, st.severity, st.words)
	if st.hopeless {
		return
	}
	repair(t, s, db, found)
	passes(t, check(t, to, opts), st.id)
}

// A target that is empty, and one that has the source's tables, pass every check.
func TestFittingTargets(t *testing.T) {
	for _, v := range []testenv.Version{12, 15, 18} {
		t.Run(v.String(), func(t *testing.T) {
			s := testenv.Shared(t, v, testenv.FsyncOff())
			tables := []string{"CREATE TYPE mood AS ENUM ('a', 'b')", "CREATE DOMAIN pos AS int CHECK (VALUE > 0)",
				"CREATE TABLE a (id int PRIMARY KEY, u text UNIQUE, m mood, p pos, n numeric(10,2), g int GENERATED ALWAYS AS (1) STORED, l text[])",
				"CREATE TABLE b (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int REFERENCES a)", "CREATE TABLE c (x int)"}
			wider := []string{"CREATE TYPE mood AS ENUM ('a', 'x', 'b')",
				"CREATE TABLE a (id bigint PRIMARY KEY, u text UNIQUE, m mood, p bigint, n numeric(20,4), g int, l text[], extra timestamptz DEFAULT now())",
				"CREATE TABLE b (id text PRIMARY KEY, a numeric)", "CREATE TABLE c (x int, own int)"}
			from := s.CreateDatabase(t, "src")
			s.Exec(t, testenv.DatabaseOf(t, from), tables...)
			opts := planned(t, from, pg.TargetOptions{})
			for _, target := range [][]string{nil, tables, wider} {
				to := s.CreateDatabase(t, "dst")
				if len(target) > 0 {
					s.Exec(t, testenv.DatabaseOf(t, to), target...)
				}
				seen := map[string]bool{}
				for _, c := range check(t, to, opts) {
					if c.Severity != api.SeverityOK || seen[c.ID] {
						t.Errorf("%s: %s: %s", c.ID, c.Severity, c.Message)
					}
					seen[c.ID] = true
				}
				if len(seen) != 20 {
					t.Errorf("%d checks left a line", len(seen))
				}
			}
		})
	}
}

func TestLoop(t *testing.T) {
	s := testenv.Shared(t, 15, testenv.FsyncOff())
	url := s.CreateDatabase(t, "both")
	s.Exec(t, testenv.DatabaseOf(t, url), "CREATE TABLE a (id int PRIMARY KEY)", "INSERT INTO a VALUES (1)")
	opts := planned(t, url, pg.TargetOptions{})
	opts.Copies = true
	checks := check(t, url, opts)
	fails(t, checks, "tgt.loop", api.SeverityFatal, "would read what it writes")
	for _, c := range checks {
		if strings.Contains(c.Fix, "TRUNCATE") {
			t.Errorf("%s would have the source's rows go: %s", c.ID, c.Fix)
		}
	}
	opts.Tables[0].Name.Schema = "copy"
	passes(t, check(t, url, opts), "tgt.loop")
	opts.Selected = func(schema, _ string) bool { return true } // *.* takes the copy too, once it is there
	fails(t, check(t, url, opts), "tgt.loop", api.SeverityFatal, "would read what it writes")
	fails(t, check(t, url, doctor.Options{Source: opts.Source}), "tgt.loop", api.SeverityFatal, "own database")
}

func TestServer(t *testing.T) {
	s := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSetting("max_connections", "10"), testenv.WithSetting("superuser_reserved_connections", "1"), testenv.WithSetting("max_locks_per_transaction", "10"), testenv.WithSetting("max_wal_senders", "4"))
	opts := doctor.Options{Connections: 11}
	for i := range 30 {
		opts.Tables = append(opts.Tables, &pg.Target{Source: &pg.Table{Schema: "public", Name: fmt.Sprint("t", i)}, Name: pg.TargetName{Schema: "public", Name: fmt.Sprint("t", i)}})
	}
	checks := check(t, s.URL("postgres"), opts)
	found := append(fails(t, checks, "tgt.connections", api.SeverityFatal, "max_connections is 10"), fails(t, checks, "tgt.locks", api.SeverityWarning, "room for 100")...)
	repair(t, s, "postgres", found)
	checks = check(t, s.URL("postgres"), opts)
	passes(t, checks, "tgt.connections")
	passes(t, checks, "tgt.locks")

	standby := s.Standby(t)
	fails(t, check(t, standby.URL("postgres"), doctor.Options{}), "tgt.recovery", api.SeverityFatal, "standby")
	s.Exec(t, "postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0", "ALTER DATABASE latin CONNECTION LIMIT 1", "CREATE ROLE small LOGIN")
	checks = check(t, s.URLFor("small", s.Addr(), "latin"), doctor.Options{})
	fails(t, checks, "tgt.encoding", api.SeverityWarning, "LATIN1")
	repair(t, s, "postgres", fails(t, checks, "tgt.connections", api.SeverityFatal, "database latin may have 1"))
	passes(t, check(t, s.URLFor("small", s.Addr(), "latin"), doctor.Options{}), "tgt.connections")
}

func TestUnreachable(t *testing.T) {
	checks := check(t, "postgres://nobody@127.0.0.1:1/x?sslmode=disable", doctor.Options{})
	if c := fails(t, checks, "tgt.connect", api.SeverityFatal, "127.0.0.1:1/x")[0]; c.Code != string(errs.TargetUnreachable) || len(checks) != 1 {
		t.Errorf("%+v", checks)
	}
}

// The answer about a missing extension is the same whoever asks: nobody can create it.
func TestExtensionNotOnTheMachine(t *testing.T) {
	s := testenv.Shared(t, 15, testenv.FsyncOff())
	opts := doctor.Options{Extensions: []pg.Extension{{Name: "from_mars", Schema: "public", Required: true}}}
	fails(t, check(t, s.CreateDatabase(t, "dst"), opts), "tgt.extensions", api.SeverityFatal, "is not on the target's machine")
	opts.Extensions[0].Required = false
	fails(t, check(t, s.CreateDatabase(t, "dst"), opts), "tgt.extensions", api.SeverityWarning, "is not on the target's machine")
}

func TestManyTables(t *testing.T) {
	s := testenv.Shared(t, 15, testenv.FsyncOff())
	from, to := s.CreateDatabase(t, "src"), s.CreateDatabase(t, "dst")
	for i := range 4 {
		for _, url := range []string{from, to} {
			s.Exec(t, testenv.DatabaseOf(t, url), fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP EXECUTE format('CREATE TABLE t%%s (id int PRIMARY KEY, b text)', i); END LOOP; END $$`, i*500, i*500+499))
		}
	}
	opts := planned(t, from, pg.TargetOptions{})
	begin := time.Now()
	checks := check(t, to, opts)
	took := time.Since(begin)
	t.Logf("2,000 existing tables in %s", took.Round(time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	passes(t, checks, "tgt.columns")
}
