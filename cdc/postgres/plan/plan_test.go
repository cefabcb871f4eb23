package plan_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cdc/postgres/plan"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
	testenv "github.com/weirstream/weir/test/env"
)

func TestMain(m *testing.M) { testenv.Main(m, testenv.CheckLeaks()) }

type pair struct {
	t        *testing.T
	s        *testenv.Server
	from, to string // URLs
}

func newPair(t *testing.T, v testenv.Version) *pair {
	s := testenv.Shared(t, v, testenv.FsyncOff())
	return &pair{t, s, s.CreateDatabase(t, "src"), s.CreateDatabase(t, "dst")}
}

func (p *pair) src(sql ...string) {
	p.t.Helper()
	p.s.Exec(p.t, testenv.DatabaseOf(p.t, p.from), sql...)
}

func (p *pair) dst(sql ...string) {
	p.t.Helper()
	p.s.Exec(p.t, testenv.DatabaseOf(p.t, p.to), sql...)
}

func (p *pair) query(sql string) string {
	p.t.Helper()
	var out []string
	for _, row := range p.s.Query(p.t, testenv.DatabaseOf(p.t, p.to), sql) {
		out = append(out, strings.Join(row, "|"))
	}
	return strings.Join(out, "\n")
}

func (p *pair) config(url string) *pg.Config {
	p.t.Helper()
	cfg, err := pg.ParseURL(url)
	if err != nil {
		p.t.Fatal(err)
	}
	return cfg
}

func (p *pair) conn(url string) *pgx.Conn {
	p.t.Helper()
	conn, err := pg.ConnectPgx(p.t.Context(), env.Real(nil), p.config(url), pg.ConnectOptions{AppName: "weir test"})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (p *pair) try(spec api.MirrorSpec) (*plan.Plan, error) {
	return plan.Make(p.t.Context(), env.Real(nil), plan.Request{Spec: spec, Source: p.config(p.from), Target: p.config(p.to), Pipeline: cmp.Or(spec.Name, "p")})
}

func (p *pair) make(spec api.MirrorSpec) *plan.Plan {
	p.t.Helper()
	made, err := p.try(spec)
	if err != nil {
		p.t.Fatal(err)
	}
	return made
}

func (p *pair) prepare(made *plan.Plan) {
	p.t.Helper()
	var conns []*pgx.Conn
	for range min(made.Makers(), 3) {
		conns = append(conns, p.conn(p.to))
	}
	if err := made.Prepare(p.t.Context(), conns...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) finish(made *plan.Plan) {
	p.t.Helper()
	if err := made.Finish(p.t.Context(), p.conn(p.to)); err != nil {
		p.t.Fatal(err)
	}
}

const objects = `
	SELECT 'column', c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
	WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
	UNION ALL SELECT 'index', indexdef FROM pg_indexes WHERE schemaname = 'public'
	UNION ALL SELECT 'constraint', conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
	ORDER BY 1, 2`

var shop = []string{
	"CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL, email text UNIQUE)",
	"CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int REFERENCES customers, total numeric(10,2) CHECK (total >= 0), at timestamptz DEFAULT now())",
	"CREATE INDEX orders_at ON orders (at) WHERE total > 0",
	"CREATE TABLE log (line text)",
}

// The whole way: an empty target becomes a copy of the source's tables, in two steps that can be repeated.
func TestMakePrepareFinish(t *testing.T) {
	for _, v := range []testenv.Version{12, 15, 18} {
		t.Run(v.String(), func(t *testing.T) {
			p := newPair(t, v)
			p.src(shop...)
			spec := api.MirrorSpec{Name: "m", Options: map[string]string{"slot.name": "s1", "publication.name": "p1"}}
			made := p.make(spec)
			if made.API.Pipeline != "m" || made.API.Slot != "s1" || made.API.Publication != "p1" || len(made.Tables) != 3 || len(made.API.Tables) != 3 {
				t.Errorf("plan: %+v", made.API)
			}
			if made.Tables[1].Source.Name != "log" || made.Tables[1].Key != nil || !slices.Equal(made.Tables[0].Key, []string{"id"}) {
				t.Errorf("keys: %v of %s, %v", made.Tables[1].Key, made.Tables[1].Source, made.Tables[0].Key)
			}
			if ddl := strings.Join(made.API.DDL, "\n"); strings.Contains(ddl, "CREATE SCHEMA") || !strings.Contains(ddl, "CREATE TABLE") {
				t.Errorf("the target has its schema, and the plan shows\n%s", ddl)
			}
			if made.SourceIdentity.System == "" {
				t.Error("the source's identity is unknown")
			}
			p.prepare(made)
			p.prepare(made)
			if got := p.query(objects); strings.Contains(got, "orders_at") || !strings.Contains(got, "customers_pkey") {
				t.Errorf("before the copy the target has\n%s", got)
			}
			if p.query("SELECT obj_description('orders'::regclass, 'pg_class')") == "NULL" {
				t.Error("the table carries no mark")
			}

			// A crash, and a new plan: the tables are there, and what is owed is still known.
			again := p.make(spec)
			for _, tab := range again.Tables {
				if !tab.Exists || !tab.Unfinished {
					t.Errorf("%s: exists %t, unfinished %t", tab.Source, tab.Exists, tab.Unfinished)
				}
			}
			p.finish(again)
			p.finish(again)
			source := p.s.Query(t, testenv.DatabaseOf(t, p.from), objects)
			var want []string
			for _, row := range source {
				want = append(want, strings.Join(row, "|"))
			}
			if got := p.query(objects); got != strings.Join(want, "\n") {
				t.Errorf("the target has\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}
			if got := p.query("SELECT count(*) FROM pg_description d JOIN pg_class c ON c.oid = d.objoid WHERE c.relnamespace = 'public'::regnamespace AND d.classoid = 'pg_class'::regclass"); got != "0" {
				t.Errorf("%s marks are left", got)
			}

			// A finished copy owes nothing, and neither does a table that the user made.
			p.src("CREATE TABLE own (id int PRIMARY KEY, a int UNIQUE)")
			p.dst("CREATE TABLE own (id int PRIMARY KEY, a int)")
			done := p.make(spec)
			if len(done.After) != 0 {
				t.Errorf("after a finished copy it would still run %v", done.API.AfterCopy)
			}
			before := p.query(objects)
			p.prepare(done)
			p.finish(done)
			if got := p.query(objects); got != before {
				t.Errorf("the target changed to\n%s", got)
			}
		})
	}
}

// What a start that did not get far left on the target goes, also tables that the source has dropped since; rows and
// other mirrors' tables stay.
func TestDiscard(t *testing.T) {
	p := newPair(t, 15)
	p.src("CREATE TABLE keep (id int PRIMARY KEY)", "CREATE TABLE gone (id int PRIMARY KEY)", "CREATE TABLE filled (id int PRIMARY KEY)", "CREATE TABLE other (id int PRIMARY KEY)")
	p.prepare(p.make(api.MirrorSpec{Name: "mine", Except: []string{"public.other"}}))
	p.prepare(p.make(api.MirrorSpec{Name: "other", Tables: []string{"public.other"}}))
	p.dst("INSERT INTO filled VALUES (1)")
	p.src("DROP TABLE gone", "DROP TABLE filled", "DROP TABLE other", "ALTER TABLE keep ADD COLUMN d int NOT NULL DEFAULT 1, ALTER id TYPE bigint")
	conn := p.conn(p.to)
	if _, err := p.make(api.MirrorSpec{Name: "mine"}).Discard(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if got := p.query("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1"); got != "filled\nother" {
		t.Errorf("the target has\n%s", got)
	}
}

// Every kind of type, index and constraint that internal/pg knows goes through a plan.
func TestEverything(t *testing.T) {
	for _, v := range []testenv.Version{12, 15, 18} {
		t.Run(v.String(), func(t *testing.T) {
			p := newPair(t, v)
			file, err := os.ReadFile(filepath.Join("..", "..", "..", "internal", "pg", "testdata", "everything.sql"))
			if err != nil {
				t.Fatal(err)
			}
			for i, section := range strings.Split(string(file), "--@") {
				var since int
				if i > 0 {
					if _, err := fmt.Sscan(section, &since); err != nil {
						t.Fatal(err)
					}
					_, section, _ = strings.Cut(section, "\n")
				}
				if int(v) >= since {
					p.src(section)
				}
			}
			spec := api.MirrorSpec{Except: []string{"app.row_typed"}}
			made := p.make(spec)
			p.prepare(made)
			p.finish(made)
			if again := p.make(spec); len(again.After) > 0 || slices.ContainsFunc(again.Tables, func(x *plan.TablePlan) bool { return !x.Exists }) {
				t.Errorf("the second plan would still do %v", again.API.AfterCopy)
			}
			for _, want := range []string{"app.a_view is left out: it is a view", "app.unlogged is left out: it is unlogged", "the estimate assumes"} {
				if !slices.ContainsFunc(made.API.Notes, func(n string) bool { return strings.Contains(n, want) }) {
					t.Errorf("no note says %q: %q", want, made.API.Notes)
				}
			}
		})
	}
}

// A user's type over an extension's is made after the extension, and stays in its own schema wherever the target has the
// extension.
func TestTypesOverExtensions(t *testing.T) {
	source := []string{
		"CREATE EXTENSION citext", "CREATE SCHEMA app",
		"CREATE DOMAIN em AS citext NOT NULL DEFAULT 'x@y' CHECK (VALUE ~ '@')", "CREATE DOMAIN ems AS citext[]", "CREATE DOMAIN app.em2 AS em",
		"CREATE TYPE mood AS ENUM ('sad', 'glad')",
		"CREATE TYPE app.pair AS (e em, l citext, m mood[])", "CREATE TYPE app.low AS RANGE (SUBTYPE = citext)",
		"CREATE TABLE tt (id int PRIMARY KEY, e em, a em[], b ems, c app.em2, p app.pair, pp app.pair[], m mood[], r app.low, x citext[])",
		"INSERT INTO tt VALUES (1, 'A@b', '{a@b}', '{q,r}', 'c@d', ROW('e@f', 'g', '{sad}'), ARRAY[ROW('e@f', 'g', '{glad}')::app.pair], '{sad}', '[a,b]', '{k}')",
	}
	columns := `SELECT string_agg(format_type(atttypid, atttypmod), ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'tt'::regclass AND attnum > 0`
	for name, c := range map[string]struct{ target, want string }{
		"made by the plan": {"", "integer,em,em[],ems,app.em2,app.pair,app.pair[],mood[],app.low,citext[]"},
		"had in another schema": {"CREATE SCHEMA ext; CREATE EXTENSION citext WITH SCHEMA ext",
			"integer,em,em[],ems,app.em2,app.pair,app.pair[],mood[],app.low,ext.citext[]"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, 15)
			p.src(source...)
			if c.target != "" {
				p.dst(c.target)
			}
			made := p.make(api.MirrorSpec{})
			p.prepare(made)
			p.finish(made)
			if got := p.query(columns); got != c.want {
				t.Errorf("columns %s, want %s", got, c.want)
			}
			if got := p.query("SELECT count(*) FROM pg_constraint WHERE contypid = 'em'::regtype AND contype = 'c'"); (got == "1") != (c.target == "") {
				t.Errorf("%s checks of the domain", got)
			}
			if noted := strings.Contains(strings.Join(made.API.Notes, "\n"), `check "em_check" is not created: extension citext is in another schema`); noted != (c.target != "") {
				t.Errorf("notes: %q", made.API.Notes)
			}
		})
	}
}

func TestPartitionsRoutesAndColumns(t *testing.T) {
	p := newPair(t, 15)
	p.src("CREATE TABLE events (at date NOT NULL, id int NOT NULL, v text, secret text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at)",
		"CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
		"INSERT INTO events SELECT '2020-05-05', g FROM generate_series(1, 50000) g", "ANALYZE events_1",
		"CREATE TABLE small (id int PRIMARY KEY, at date, e int, FOREIGN KEY (at, e) REFERENCES events)")
	made := p.make(api.MirrorSpec{
		Routes:  []api.Route{{From: "public.*", To: "copy.m_*"}},
		Exclude: []string{"*.*.secret"},
		Filters: []api.Filter{{Table: "public.events", Where: "id > 5"}},
		Options: map[string]string{"soft.delete.column": "gone_at"},
	})
	if len(made.Tables) != 2 || made.Tables[0].EstRows < 40000 || made.API.Rows < 40000 || made.API.EstSeconds < 1 {
		t.Errorf("tables %d, rows %d, seconds %d", len(made.Tables), made.API.Rows, made.API.EstSeconds)
	}
	p.prepare(made)
	if got := p.query("SELECT conname FROM pg_constraint WHERE conrelid = 'copy.m_events'::regclass AND contype = 'p'"); got != "" {
		t.Errorf("a large table got its key before the copy: %s", got)
	}
	p.finish(made)
	want := "m_events|at,id,v,gone_at|1\nm_small|id,at,e,gone_at|1"
	if got := p.query(`SELECT c.relname, string_agg(a.attname, ',' ORDER BY a.attnum), (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid AND contype <> 'n')
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = 'copy'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 GROUP BY c.oid, c.relname ORDER BY 1`); got != want {
		t.Errorf("made\n%s\nwant\n%s", got, want)
	}
	// The foreign key stays behind, because not all rows that it points to come along.
	if notes := strings.Join(made.API.Tables[1].Notes, "; "); !strings.Contains(notes, "foreign key") {
		t.Errorf("notes of small: %s", notes)
	}
}

func TestRefusals(t *testing.T) {
	p := newPair(t, 15)
	p.src("CREATE TABLE a (id int PRIMARY KEY, gone text)", "CREATE SCHEMA b", "CREATE TABLE b.a (id int PRIMARY KEY)", "CREATE VIEW v AS SELECT 1", "CREATE TABLE bare ()", "INSERT INTO bare DEFAULT VALUES")
	p.dst("CREATE VIEW taken AS SELECT 1")
	for _, c := range []struct {
		spec api.MirrorSpec
		code errs.Code
		want string
	}{
		{api.MirrorSpec{Tables: []string{"public.x"}}, errs.NoTables, "no table"},
		{api.MirrorSpec{Exclude: []string{"public.a.gnoe"}}, errs.BadPattern, "public.a.gnoe of exclude matches no column"},
		{api.MirrorSpec{Filters: []api.Filter{{Table: "publik.a", Where: "id > 0"}}}, errs.BadPattern, "publik.a of filters matches no table"},
		{api.MirrorSpec{Tables: []string{"public.v"}}, errs.TableUnsupported, "view"},
		{api.MirrorSpec{Tables: []string{"public.bare"}}, errs.TableUnsupported, "no columns"},
		{api.MirrorSpec{Tables: []string{"b.a"}, Exclude: []string{"b.a.*"}}, errs.TableUnsupported, "all its columns"},
		{api.MirrorSpec{Routes: []api.Route{{From: "*.*", To: "c.*"}}}, errs.BadPattern, "would both go"},
		{api.MirrorSpec{Exclude: []string{"public.a.id"}}, errs.BadPattern, "part of the key"},
		{api.MirrorSpec{Tables: []string{"public.a"}, Routes: []api.Route{{From: "public.a", To: "public.taken"}}}, errs.TargetTable, "is not a table"},
		{api.MirrorSpec{Options: map[string]string{"soft.delete.column": "gone"}}, errs.BadPattern, "a column of that name"},
		{api.MirrorSpec{Tables: []string{"public.["}}, errs.BadPattern, "no ]"},
	} {
		if _, err := p.try(c.spec); !errs.Is(err, c.code) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s %q", c.spec, err, c.code, c.want)
		}
	}
	if made := p.make(api.MirrorSpec{Except: []string{"b.*"}}); len(made.Tables) != 1 || !slices.Contains(made.API.Notes, "public.bare is left out: it has no columns whose values are in the log") {
		t.Errorf("%d tables; notes %q", len(made.Tables), made.API.Notes)
	}
	if _, err := plan.Make(t.Context(), env.Real(nil), plan.Request{Source: p.config("postgres://x@127.0.0.1:1/x"), Target: p.config(p.to)}); !errs.Is(err, errs.SourceUnreachable) {
		t.Error(err)
	}
	if _, err := plan.Make(t.Context(), env.Real(nil), plan.Request{Spec: api.MirrorSpec{Except: []string{"b.*"}}, Source: p.config(p.from), Target: p.config("postgres://x@127.0.0.1:1/x")}); !errs.Is(err, errs.TargetUnreachable) {
		t.Error(err)
	}
}

// A table may be gone by the time a mirror starts again: then nothing is said of patterns that were about it.
func TestPatternsWithoutTable(t *testing.T) {
	p := newPair(t, 15)
	p.src("CREATE TABLE a (id int PRIMARY KEY, gone text)", "CREATE TABLE later (id int PRIMARY KEY)")
	r := plan.Request{Spec: api.MirrorSpec{Exclude: []string{"public.b.x"}, Filters: []api.Filter{{Table: "public.b", Where: "x > 0"}}}, Source: p.config(p.from), Target: p.config(p.to)}
	if _, err := plan.Make(t.Context(), env.Real(nil), r); !errs.Is(err, errs.BadPattern) {
		t.Errorf("at first: %v", err)
	}
	var a, later uint32
	if err := p.conn(p.from).QueryRow(t.Context(), "SELECT 'public.a'::regclass::oid, 'public.later'::regclass::oid").Scan(&a, &later); err != nil {
		t.Fatal(err)
	}
	resumed, err := plan.Resume(t.Context(), env.Real(nil), r, map[uint32]pg.TargetName{a: {Schema: "public", Name: "before"}})
	if err != nil || len(resumed.Tables) != 1 || resumed.Tables[0].Target.Name.Name != "before" {
		t.Errorf("on a restart: %v %+v", err, resumed)
	}
	if _, err := plan.Resume(t.Context(), env.Real(nil), r, nil); !errs.Is(err, errs.NoTables) {
		t.Errorf("on a restart without tables: %v", err)
	}
	for _, tables := range [][]uint32{nil, {later}} {
		if _, err := plan.MakeAt(t.Context(), env.Real(nil), r, "", tables); err != nil {
			t.Errorf("for %v: %v", tables, err)
		}
	}
	made := p.make(api.MirrorSpec{Except: []string{"public.tmp_*"}, Routes: []api.Route{{From: "publik.*", To: "copy.*"}}})
	notes := strings.Join(made.API.Notes, "\n")
	if !strings.Contains(notes, "except public.tmp_* matches no table") || !strings.Contains(notes, "route publik.* matches no table") {
		t.Errorf("notes:\n%s", notes)
	}
}

// One statement of many that is refused is named, and those before and after it in the batch are not lost.
func TestRefusedStatementIsNamed(t *testing.T) {
	p := newPair(t, 15)
	p.src(shop...)
	p.src("INSERT INTO customers (name, email) VALUES ('a', 'x')")
	spec := api.MirrorSpec{}
	made := p.make(spec)
	p.prepare(made)
	p.dst("INSERT INTO customers VALUES (1, 'a', 'x'), (2, 'b', 'x')")
	err := made.Finish(t.Context(), p.conn(p.to))
	e, ok := errs.As(err)
	if !ok || e.Code != errs.TargetDDL || !strings.Contains(e.Message, `"customers_email_key"`) || !strings.Contains(e.Hint, "resume") {
		t.Fatalf("%v", err)
	}
	p.dst("DELETE FROM customers WHERE id = 2")
	p.finish(p.make(spec))
	if got := p.query("SELECT count(*) FROM pg_constraint WHERE conname IN ('customers_email_key', 'orders_customer_fkey')"); got != "2" {
		t.Errorf("%s of 2 constraints after the repair", got)
	}
}

func TestFiveThousandTables(t *testing.T) {
	p := newPair(t, 15)
	for i := range 10 {
		p.src(fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP EXECUTE format('CREATE TABLE t%%s (id serial PRIMARY KEY, b text, c int)', i); EXECUTE format('CREATE INDEX ON t%%s (c)', i); END LOOP; END $$`, i*500, i*500+499))
	}
	lap := time.Now()
	done := func(what string, limit time.Duration) {
		took := time.Since(lap)
		t.Logf("%s: %s", what, took.Round(time.Millisecond))
		if took > limit {
			t.Errorf("%s took %s", what, took)
		}
		lap = time.Now()
	}
	made := p.make(api.MirrorSpec{})
	done("make", 40*time.Second)
	p.dst("CREATE TABLE t7 (id int PRIMARY KEY, b text, c int)", "CREATE TABLE t4000 (id int PRIMARY KEY, b text, c int)") // meanwhile
	p.prepare(made)
	done("prepare", 90*time.Second)
	p.prepare(made)
	done("prepare again", 25*time.Second)
	p.finish(made)
	done("finish", 60*time.Second)
	if got := p.query("SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'"); got != "10000" {
		t.Errorf("%s indexes", got)
	}
}

func TestSequences(t *testing.T) {
	p := newPair(t, 15)
	p.src(shop...)
	p.src("CREATE SEQUENCE free START 5", "SELECT nextval('free')", "CREATE SEQUENCE untouched START 7", "SELECT setval('customers_id_seq', 41)", "SELECT setval('orders_id_seq', 9, false)",
		"CREATE SCHEMA elsewhere", "CREATE SEQUENCE elsewhere.s", "CREATE TABLE left_out (id serial)")
	spec := api.MirrorSpec{Except: []string{"public.left_out"}, Routes: []api.Route{{From: "public.*", To: "app.*"}}}
	made := p.make(spec)
	p.prepare(made)
	from, to := p.conn(p.from), p.conn(p.to)
	set, notes, err := plan.Sequences(t.Context(), from, to, made)
	if err != nil || len(notes) != 0 || len(set) != 4 {
		t.Fatalf("%d statements, notes %q, %v", len(set), notes, err)
	}
	for _, st := range set {
		for _, sql := range st.SQL {
			if _, err := to.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := "41|t 9|f 5|t 7|f"
	got := p.query("SELECT last_value, is_called FROM "+set0(p, "customers", "id")) + " " + p.query("SELECT last_value, is_called FROM "+set0(p, "orders", "id")) +
		" " + p.query("SELECT last_value, is_called FROM public.free") + " " + p.query("SELECT last_value, is_called FROM public.untouched")
	if got != want {
		t.Errorf("sequences stand at %s, want %s", got, want)
	}
	// Again, later: what is there is only set.
	p.src("SELECT nextval('free')")
	set, _, err = plan.Sequences(t.Context(), from, to, made)
	if err != nil || slices.ContainsFunc(set, func(st pg.Statement) bool { return len(st.SQL) != 1 }) {
		t.Errorf("%+v, %v", set, err)
	}
	p.dst("ALTER SEQUENCE " + set0(p, "customers", "id") + " OWNED BY NONE")
	if _, notes, err = plan.Sequences(t.Context(), from, to, made); err != nil || len(notes) != 1 || !strings.Contains(notes[0], "customers") {
		t.Errorf("notes %q, %v", notes, err)
	}
}

func set0(p *pair, table, column string) string {
	return p.query(fmt.Sprintf("SELECT pg_get_serial_sequence('app.%s', '%s')", table, column))
}

// Sequences that no table brings are there before the tables that draw from them, and a default is kept wherever its
// sequence can be made.
func TestDefaultsOnSequencesOfOthers(t *testing.T) {
	p := newPair(t, 15)
	p.src("CREATE SCHEMA ids", "CREATE SEQUENCE sq START 10", "CREATE SEQUENCE ids.far INCREMENT BY 2",
		"CREATE TABLE b (id int PRIMARY KEY DEFAULT nextval('sq'), other int DEFAULT nextval('ids.far') + nextval('sq'))",
		"CREATE TABLE z (id serial PRIMARY KEY, v text)", // made after those that draw from its sequence
		"CREATE TABLE a (id int PRIMARY KEY DEFAULT nextval('z_id_seq'), own bigserial, twice bigint DEFAULT nextval('a_own_seq'))",
		"CREATE TABLE left_out (id serial PRIMARY KEY)", "CREATE TABLE c (id int PRIMARY KEY DEFAULT nextval('left_out_id_seq'))",
		"CREATE TABLE i (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)", "CREATE TABLE k (id int PRIMARY KEY DEFAULT nextval('i_id_seq'))",
		"INSERT INTO b SELECT FROM generate_series(1, 3)", "INSERT INTO a SELECT FROM generate_series(1, 4)", "INSERT INTO left_out SELECT FROM generate_series(1, 5)")
	for name, c := range map[string]struct {
		routes []api.Route
		schema string
		want   string
	}{
		"own names": {nil, "public", "a.id z_id_seq a.own a_own_seq a.twice a_own_seq b.id sq b.other ids.far+sq c.id left_out_id_seq z.id z_id_seq"},
		"routed":    {[]api.Route{{From: "public.*", To: "app.*"}}, "app", "a.id app.z_id_seq a.own app.a_own_seq a.twice app.a_own_seq b.id sq b.other ids.far+sq c.id left_out_id_seq z.id app.z_id_seq"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pair{t, p.s, p.from, p.s.CreateDatabase(t, "dst")}
			spec := api.MirrorSpec{Name: "m", Except: []string{"public.left_out"}, Routes: c.routes}
			p.prepare(p.make(spec))
			// A start that did not get far is taken back, although the tables depend on each other.
			if n, err := p.make(spec).Discard(t.Context(), p.conn(p.to)); err != nil || n != 6 {
				t.Fatalf("discarded %d, %v", n, err)
			}
			made := p.make(spec)
			p.prepare(made)
			p.finish(made)
			p.prepare(p.make(spec))
			got := p.query(`SELECT string_agg(c.relname || '.' || a.attname || ' ' || s.names, ' ' ORDER BY c.relname, a.attnum)
				FROM pg_attrdef x JOIN pg_class c ON c.oid = x.adrelid JOIN pg_attribute a ON a.attrelid = x.adrelid AND a.attnum = x.adnum,
				LATERAL (SELECT string_agg(regexp_replace(d.refobjid::regclass::text, '_[0-9a-f]{8}$', ''), '+' ORDER BY d.refobjid::regclass::text) AS names FROM pg_depend d
				         WHERE d.classid = 'pg_attrdef'::regclass AND d.objid = x.oid AND d.refobjid IN (SELECT seqrelid FROM pg_sequence)) s
				WHERE c.relnamespace = '` + c.schema + `'::regnamespace`)
			if got != c.want {
				t.Errorf("defaults\n%s\nwant\n%s", got, c.want)
			}
			for _, x := range made.API.Tables {
				noted := slices.ContainsFunc(x.Notes, func(n string) bool { return strings.Contains(n, "the default of") })
				if noted != (x.Source == "public.k") {
					t.Errorf("notes of %s: %q", x.Source, x.Notes)
				}
			}

			// The cut-over sets them all, and tells the default that is not there.
			from, to := p.conn(p.from), p.conn(p.to)
			set, notes, err := plan.Sequences(t.Context(), from, to, p.make(spec))
			if err != nil || len(notes) > 0 {
				t.Fatalf("%q %v", notes, err)
			}
			p.run(to, set)
			lacking, err := plan.Defaults(t.Context(), from, to, p.make(spec))
			if err != nil || len(lacking) != 1 || lacking[0].Column != "id" || lacking[0].Table.Name != "k" {
				t.Fatalf("%+v %v", lacking, err)
			}
			p.dst(lacking[0].SQL...)
			for _, table := range []string{"a", "b", "c", "k", "z"} {
				p.dst("INSERT INTO " + c.schema + "." + table + " SELECT")
			}
			next := p.query(`SELECT a.id || ' ' || a.own || ' ' || a.twice || ' ' || b.id || ' ' || b.other || ' ' || c.id || ' ' || k.id || ' ' || z.id FROM ` + strings.ReplaceAll("S.a, S.b, S.c, S.k, S.z", "S", c.schema))
			if want := "5 9 10 16 24 6 1 6"; next != want {
				t.Errorf("the first rows behind the cut-over have %s, want %s", next, want)
			}
		})
	}
}

func (p *pair) run(conn *pgx.Conn, statements []pg.Statement) {
	p.t.Helper()
	for _, st := range statements {
		for _, sql := range st.SQL {
			if _, err := conn.Exec(p.t.Context(), sql); err != nil {
				p.t.Fatalf("%s: %v", sql, err)
			}
		}
	}
}

// A table that joins later gets its sequences first; one that cannot be made does not keep a mirror from beginning.
func TestSequencesOfLateTables(t *testing.T) {
	p := newPair(t, 15)
	p.src("CREATE TABLE z (id serial PRIMARY KEY)")
	p.prepare(p.make(api.MirrorSpec{}))
	p.src("CREATE SEQUENCE sq", "CREATE TABLE late (id int PRIMARY KEY DEFAULT nextval('sq'), z int DEFAULT nextval('z_id_seq'))")
	var late uint32
	if err := p.conn(p.from).QueryRow(t.Context(), "SELECT 'public.late'::regclass::oid").Scan(&late); err != nil {
		t.Fatal(err)
	}
	r := plan.Request{Source: p.config(p.from), Target: p.config(p.to), Pipeline: "p"}
	supply := func() error {
		now, err := plan.MakeAt(t.Context(), env.Real(nil), r, "", []uint32{late})
		if err != nil {
			t.Fatal(err)
		}
		_, err = now.Supply(t.Context(), p.conn(p.to))
		return err
	}
	for range 2 {
		if err := supply(); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.query("SELECT string_agg(seqrelid::regclass::text, ' ' ORDER BY seqrelid::regclass::text) FROM pg_sequence"); got != "sq z_id_seq" {
		t.Errorf("the target has %s", got)
	}
	p.dst("DROP SEQUENCE sq", "CREATE VIEW sq AS SELECT 1")
	if err := supply(); !errs.Is(err, errs.TargetDDL) || !strings.Contains(err.Error(), `"public"."sq" on the target is not a sequence`) {
		t.Errorf("a sequence that cannot be made: %v", err)
	}
	made := p.make(api.MirrorSpec{})
	p.prepare(made)
	if notes := strings.Join(made.API.Tables[0].Notes, "\n"); !strings.Contains(notes, `the default of column "id" is not created: "public"."sq" on the target is not a sequence`) {
		t.Errorf("notes of %s: %s", made.API.Tables[0].Source, notes)
	}
	set, notes, err := plan.Sequences(t.Context(), p.conn(p.from), p.conn(p.to), p.make(api.MirrorSpec{}))
	if err != nil || len(set) != 1 || len(notes) != 1 || !strings.Contains(notes[0], "is not a sequence") {
		t.Errorf("%d set, notes %q, %v", len(set), notes, err)
	}
}

// The SQL that the cut-over shows for a default which the target lacks is all that it takes.
func TestLackingDefaults(t *testing.T) {
	p := newPair(t, 15)
	p.src("CREATE SEQUENCE sq", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 7'",
		"CREATE TABLE a (id serial PRIMARY KEY, i int GENERATED ALWAYS AS IDENTITY, s int DEFAULT nextval('sq'), n text DEFAULT 'x', f int DEFAULT f(), plain int, kept int DEFAULT 1)",
		"INSERT INTO a SELECT FROM generate_series(1, 6)")
	p.dst("CREATE TABLE a (id int PRIMARY KEY, i int, s int, n text, f int, plain int, kept int DEFAULT 2)")
	from, to, made := p.conn(p.from), p.conn(p.to), p.make(api.MirrorSpec{})
	lacking, err := plan.Defaults(t.Context(), from, to, made)
	if err != nil {
		t.Fatal(err)
	}
	var columns []string
	p.dst("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 7'")
	for _, l := range lacking {
		columns = append(columns, l.Column)
		p.dst(l.SQL...)
	}
	if got := strings.Join(columns, " "); got != "id i s n f" {
		t.Errorf("columns %s lack their default", got)
	}
	p.dst("INSERT INTO a SELECT")
	if got := p.query("SELECT * FROM a"); got != "7|7|7|x|7|NULL|2" {
		t.Errorf("the first row is %s", got)
	}
	if lacking, err = plan.Defaults(t.Context(), from, to, made); err != nil || len(lacking) > 0 {
		t.Errorf("still lacking %+v, %v", lacking, err)
	}
}

// Foreign keys that were made for a role which may not turn them off become the source's.
func TestForeignKeysAreSettled(t *testing.T) {
	p := newPair(t, 15)
	p.src("CREATE TABLE a (id int PRIMARY KEY)",
		`CREATE TABLE b (id int PRIMARY KEY, v int CONSTRAINT plain REFERENCES a, w int CONSTRAINT later REFERENCES a DEFERRABLE,
			x int CONSTRAINT same REFERENCES a DEFERRABLE INITIALLY DEFERRED, y int CONSTRAINT acts REFERENCES a ON DELETE CASCADE ON UPDATE SET NULL DEFERRABLE)`)
	role := "limited_" + strings.ToLower(testenv.DatabaseOf(t, p.to))
	p.dst("CREATE ROLE "+role, "GRANT CREATE ON SCHEMA public TO "+role)
	limited := *p
	limited.to = p.to + "&options=-c%20role%3D" + role
	if !strings.Contains(p.to, "?") {
		limited.to = p.to + "?options=-c%20role%3D" + role
	}
	made := limited.make(api.MirrorSpec{})
	notes := strings.Join(made.API.Notes, "\n")
	if !strings.Contains(notes, "foreign keys are DEFERRABLE INITIALLY DEFERRED") || !strings.Contains(notes, role) {
		t.Errorf("notes:\n%s", notes)
	}
	if notes := strings.Join(p.make(api.MirrorSpec{}).API.Notes, "\n"); strings.Contains(notes, "foreign keys") {
		t.Errorf("notes for a role that may:\n%s", notes)
	}
	limited.prepare(made)
	limited.finish(made)
	keys := `SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' ORDER BY 1`
	if got := p.query(keys); strings.Count(got, "DEFERRABLE INITIALLY DEFERRED") != 4 {
		t.Fatalf("made\n%s", got)
	}
	settle, also, err := plan.ForeignKeys(t.Context(), limited.conn(limited.to), limited.make(api.MirrorSpec{}))
	if err != nil || len(settle) != 3 || len(also) > 0 {
		t.Fatalf("%+v %q %v", settle, also, err)
	}
	before := p.query(keys)
	var there, back []pg.Statement
	for _, s := range settle {
		there, back = append(there, s.Statement), append(back, pg.Statement{What: s.What, SQL: []string{s.Undo}})
	}
	p.run(limited.conn(limited.to), there)
	p.run(limited.conn(limited.to), back)
	if got := p.query(keys); got != before {
		t.Errorf("undone\n%s\nwant\n%s", got, before)
	}
	p.run(limited.conn(limited.to), there)
	want := &pair{t, p.s, p.from, p.from}
	if got, want := p.query(keys), want.query(keys); got != want {
		t.Errorf("settled\n%s\nwant\n%s", got, want)
	}
	if settle, _, err = plan.ForeignKeys(t.Context(), p.conn(p.to), p.make(api.MirrorSpec{})); err != nil || len(settle) > 0 {
		t.Errorf("again %+v %v", settle, err)
	}
}

func TestWriters(t *testing.T) {
	s := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSetting("max_prepared_transactions", "2"))
	p := &pair{t: t, s: s, from: s.URL("postgres")}
	p.src("CREATE TABLE t (id int)")
	busy, err := pgx.Connect(t.Context(), p.from+"&application_name=shop")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close(context.Background())
	if _, err := busy.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	p.src("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'two'")
	conn := p.conn(p.from)
	bad := func() map[string]string {
		checks, err := plan.Writers(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		fixes := map[string]string{}
		seen := map[string]bool{}
		for _, c := range checks {
			seen[c.ID] = true
			if c.Severity != api.SeverityOK {
				fixes[c.ID] = c.Fix
			}
		}
		if len(seen) != 5 {
			t.Errorf("%d checks", len(seen))
		}
		return fixes
	}
	found := bad()
	if len(found) != 4 || found["cut.stats"] != "" {
		t.Fatalf("found %v", found)
	}
	for _, fix := range found {
		sql, _, _ := strings.Cut(fix, " -- ")
		p.src(sql)
	}
	deadline := time.Now().Add(10 * time.Second)
	for found = bad(); len(found) > 0; found = bad() {
		if time.Now().After(deadline) {
			t.Fatalf("after the repair: %v", found)
		}
	}
	if _, err := s.Run(t.Context(), "postgres", "INSERT INTO t VALUES (3)"); err == nil {
		t.Error("a new session still writes")
	}
}
