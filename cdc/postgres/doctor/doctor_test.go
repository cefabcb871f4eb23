package doctor_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirstream/weir/cdc/postgres/doctor"
	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
	testenv "github.com/weirstream/weir/test/env"
)

func TestMain(m *testing.M) { testenv.Main(m, testenv.CheckLeaks()) }

func server(t *testing.T, v testenv.Version) *testenv.Server {
	return testenv.Shared(t, v, testenv.FsyncOff())
}

func config(t *testing.T, url string) *pg.Config {
	t.Helper()
	cfg, err := pg.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func check(t *testing.T, url string, opts doctor.Options) []api.Check {
	t.Helper()
	checks, err := doctor.Check(t.Context(), env.Real(nil), config(t, url), opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		if c.Side != "source" || c.Message == "" || c.Severity == api.SeverityOK && c.Fix != "" || c.Severity != api.SeverityOK && c.Code == "" {
			t.Errorf("badly made finding: %+v", c)
		}
	}
	return checks
}

// of gives the findings of one check; a check must have left at least one line.
func of(t *testing.T, checks []api.Check, id string) []api.Check {
	t.Helper()
	var out []api.Check
	for _, c := range checks {
		if c.ID == id {
			out = append(out, c)
		}
	}
	if len(out) == 0 {
		t.Fatalf("no line of %s among %d", id, len(checks))
	}
	return out
}

func pick(t *testing.T, spec api.MirrorSpec) *selection.Selection {
	t.Helper()
	s, err := selection.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// role makes a role that may log in and nothing more, and drops it when the test ends.
func role(t *testing.T, s *testenv.Server, db, attributes string) (name, url string) {
	t.Helper()
	name = "role_" + strings.ToLower(strings.NewReplacer("/", "_", " ", "_").Replace(t.Name()))
	name = pg.Shorten(name)
	s.Exec(t, "postgres", "CREATE ROLE "+pg.Ident(name)+" LOGIN "+attributes)
	t.Cleanup(func() {
		_, err := s.Run(context.Background(), db, "DROP OWNED BY "+pg.Ident(name)+" CASCADE", "DROP ROLE "+pg.Ident(name))
		if err != nil {
			t.Error(err)
		}
	})
	return name, s.URLFor(name, s.Addr(), db)
}

// repair runs the SQL of findings the way a user pastes it: line by line, on a replication connection what belongs there.
func repair(t *testing.T, s *testenv.Server, db string, checks []api.Check) {
	t.Helper()
	restart := false
	for _, c := range checks {
		if c.Fix == "" {
			t.Fatalf("%s has no repair: %s", c.ID, c.Message)
		}
		for _, line := range strings.Split(c.Fix, "\n") {
			sql, comment, _ := strings.Cut(line, "-- ")
			restart = restart || strings.Contains(comment, "restart the server")
			if sql = strings.TrimSpace(sql); sql == "" {
				continue
			}
			if strings.HasPrefix(sql, "ALTER_REPLICATION_SLOT") {
				conn, err := pg.Connect(t.Context(), env.Real(nil), config(t, s.URL(db)), pg.ConnectOptions{Replication: true})
				if err != nil {
					t.Fatal(err)
				}
				_, err = conn.Exec(t.Context(), strings.TrimSuffix(sql, ";")).ReadAll()
				if err != nil {
					t.Errorf("%s: %v", sql, err)
				}
				conn.Close(t.Context())
				continue
			}
			s.Exec(t, db, sql)
		}
	}
	if restart {
		if err := s.Restart(testenv.Fast); err != nil {
			t.Fatal(err)
		}
	}
}

// fails wants every finding of a check at the given severity.
func fails(t *testing.T, checks []api.Check, id string, severity api.Severity, words string) []api.Check {
	t.Helper()
	found := of(t, checks, id)
	var all []string
	for _, c := range found {
		if c.Severity != severity {
			t.Errorf("%s is %s, want %s: %s", id, c.Severity, severity, c.Message)
		}
		all = append(all, c.Message)
	}
	if text := strings.Join(all, "\n"); !strings.Contains(text, words) {
		t.Errorf("%s does not say %q: %s", id, words, text)
	}
	return found
}

func passes(t *testing.T, checks []api.Check, id string) {
	t.Helper()
	fails(t, checks, id, api.SeverityOK, "")
}

// Where weir's own name for a publication is not known, the repair makes one that can be given.
func TestPublicationWithoutName(t *testing.T) {
	s := server(t, 15)
	url := s.CreateDatabase(t, "src")
	db := testenv.DatabaseOf(t, url)
	s.Exec(t, db, "CREATE TABLE t (id int PRIMARY KEY)")
	name, as := role(t, s, db, "REPLICATION")
	s.Exec(t, db, "GRANT SELECT ON t TO "+pg.Ident(name))
	plain := "weir_" + db
	fails(t, check(t, as, doctor.Options{}), "pg.tables", api.SeverityOK, "1 table is taken")
	found := fails(t, check(t, as, doctor.Options{}), "pg.publication", api.SeverityFatal, "give --set publication.name="+plain)
	if !strings.HasPrefix(found[0].Fix, "CREATE PUBLICATION "+pg.Ident(plain)+" FOR TABLE") {
		t.Errorf("the repair is %s", found[0].Fix)
	}
	repair(t, s, db, found)
	fails(t, check(t, as, doctor.Options{}), "pg.publication", api.SeverityFatal,
		"publication "+plain+" is there and is role postgres's; --set publication.name="+plain+" makes the mirror use it")
	passes(t, check(t, as, doctor.Options{Publication: plain}), "pg.publication")
}

// story is one way to break a source: the check notices, and its own SQL repairs it.
type story struct {
	name     string
	since    testenv.Version // 0: any
	setup    []string        // as superuser, in the test's database
	as       string          // attributes of the role that asks; "": the superuser
	grant    []string        // with %s for that role
	spec     api.MirrorSpec
	opts     func(o *doctor.Options, db string)
	id       string
	severity api.Severity
	words    string
	// repairs is false for what no SQL can repair.
	hopeless bool
	another  string // the repair makes this publication, to be given in place of the one at hand
}

const published = "CREATE PUBLICATION p FOR TABLE t"

func withPublication(o *doctor.Options, _ string) { o.Publication = "p" }

// givenPublication is one that the user named: it has to be as the mirror wants it, for weir adds nothing.
func givenPublication(o *doctor.Options, _ string) { o.Publication, o.KeepPublication = "p", true }

func onlyEU(table string) api.MirrorSpec {
	return api.MirrorSpec{Filters: []api.Filter{{Table: table, Where: "r = 'eu'"}}}
}

func stories() []story {
	filtered := "CREATE TABLE t (id int, r text, PRIMARY KEY (id, r))"
	rolled := func(o *doctor.Options, db string) { o.Slot = "weir_" + db }
	createSlot := "SELECT pg_create_logical_replication_slot('weir_' || current_database(), 'pgoutput')"
	return []story{
		{name: "role may not replicate", as: "NOREPLICATION", id: "pg.role", severity: api.SeverityFatal, words: "may not replicate"},
		{name: "replication refused", as: "NOREPLICATION", id: "pg.replication", severity: api.SeverityFatal, words: "no replication connection"},
		{name: "schema closed", as: "REPLICATION", setup: []string{`CREATE SCHEMA "Wei rd"`, `CREATE TABLE "Wei rd"."T ""1""" (id int PRIMARY KEY)`},
			id: "pg.select", severity: api.SeverityFatal, words: `may not use schema Wei rd`},
		{name: "table unreadable", as: "REPLICATION", setup: []string{"CREATE TABLE t (id int PRIMARY KEY, secret text)"},
			id: "pg.select", severity: api.SeverityFatal, words: "may not read public.t"},
		{name: "column unreadable", as: "REPLICATION", setup: []string{"CREATE TABLE t (id int PRIMARY KEY, secret text, other text)"}, grant: []string{"GRANT SELECT (id, secret) ON t TO %s"},
			id: "pg.select", severity: api.SeverityFatal, words: "may not read public.t"},
		{name: "row security", as: "REPLICATION", setup: []string{"CREATE TABLE t (id int PRIMARY KEY)", "ALTER TABLE t ENABLE ROW LEVEL SECURITY", "GRANT SELECT ON t TO PUBLIC"},
			id: "pg.rls", severity: api.SeverityFatal, words: "row security hides rows of public.t"},
		{name: "not the owner", as: "REPLICATION", setup: []string{"CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE u (id int PRIMARY KEY)"}, opts: withPublication,
			id: "pg.publication", severity: api.SeverityFatal, words: "does not exist"},
		{name: "table not published", as: "REPLICATION", setup: []string{"CREATE TABLE t (id int PRIMARY KEY)", `CREATE TABLE "u 2" (id int PRIMARY KEY)`, published}, opts: withPublication,
			id: "pg.publication", severity: api.SeverityFatal, words: "does not hold public.u 2"},
		{name: "deletes not published", setup: []string{"CREATE TABLE t (id int PRIMARY KEY)", published + " WITH (publish = 'insert, update')"}, opts: withPublication,
			id: "pg.publication", severity: api.SeverityFatal, words: "leaves out delete, truncate"},
		{name: "rows filtered", since: 15, setup: []string{"CREATE TABLE t (id int PRIMARY KEY)", published + " WHERE (id > 5)"}, opts: withPublication,
			id: "pg.publication", severity: api.SeverityFatal, words: "sends only the rows"},
		{name: "rows filtered by its owner", since: 15, setup: []string{"CREATE TABLE t (id int PRIMARY KEY)", published + " WHERE (id > 5)"}, opts: givenPublication,
			id: "pg.publication", severity: api.SeverityFatal, words: `the fix removes that row filter, for everybody who reads the publication; to keep it as it is, give the mirror --filter "public.t: (id > 5)", or leave publication.name unset`},
		{name: "rows and columns left out by its owner", since: 15, setup: []string{"CREATE TABLE t (id int PRIMARY KEY, a int, b int)", published + " (id) WHERE (id > 5)"}, opts: givenPublication,
			id: "pg.publication", severity: api.SeverityFatal, words: "the fix removes that row filter, and removes its list of columns, for"},
		{name: "columns left out by its owner", since: 15, setup: []string{"CREATE TABLE t (id int PRIMARY KEY, a int, b int)", published + " (id)"}, opts: givenPublication,
			id: "pg.publication", severity: api.SeverityFatal, words: `the fix removes its list of columns, for everybody who reads the publication; to keep it as it is, give the mirror --exclude-column "public.t.a,public.t.b", or`},
		{name: "deletes left out by its owner", setup: []string{"CREATE TABLE t (id int PRIMARY KEY)", published + " WITH (publish = 'insert, update')"}, opts: givenPublication,
			id: "pg.publication", severity: api.SeverityFatal, words: "leaves out delete, truncate; with the fix it sends them to everybody who reads it; to keep it as it is, leave publication.name unset"},
		{name: "rows not filtered", since: 15, setup: []string{filtered, published}, opts: givenPublication, spec: onlyEU("public.t"),
			id: "pg.publication", severity: api.SeverityFatal, words: "sends all rows of public.t"},
		{name: "rows filtered in another way", since: 15, setup: []string{filtered, published + " WHERE (r = 'us')"}, opts: givenPublication, spec: onlyEU("public.t"),
			id: "pg.publication", severity: api.SeverityFatal, words: "the mirror takes those where r = 'eu'"},
		{name: "a root not filtered", since: 15, setup: []string{filtered + " PARTITION BY LIST (r)", "CREATE TABLE t1 PARTITION OF t FOR VALUES IN ('eu')", published + " WITH (publish_via_partition_root = true)"},
			opts: givenPublication, spec: onlyEU("public.t"), id: "pg.publication", severity: api.SeverityFatal, words: "sends all rows of public.t"},
		{name: "a filter and every table", since: 15, setup: []string{filtered, "CREATE PUBLICATION p FOR ALL TABLES"}, opts: givenPublication, spec: onlyEU("public.t"),
			id: "pg.publication", severity: api.SeverityFatal, words: "give --set publication.name=p_weir", another: "p_weir"},
		{name: "a filter and a schema", since: 15, setup: []string{filtered, "CREATE PUBLICATION p FOR TABLES IN SCHEMA public, TABLE t WHERE (r = 'eu')"}, opts: givenPublication, spec: onlyEU("public.t"),
			id: "pg.publication", severity: api.SeverityFatal, words: "takes every table of schema public", another: "p_weir"},
		{name: "a table that nobody adds", setup: []string{"CREATE TABLE t (id int PRIMARY KEY)", `CREATE TABLE "u.2" (id int PRIMARY KEY)`, published}, opts: givenPublication,
			id: "pg.publication", severity: api.SeverityFatal, words: `does not hold public."u.2", and a publication that is given`},
		{name: "columns left out", since: 15, setup: []string{"CREATE TABLE t (id int PRIMARY KEY, a int, b int)", published + " (id, b)"}, opts: withPublication,
			id: "pg.publication", severity: api.SeverityFatal, words: "leaves out columns of public.t: a"},
		{name: "partitions published by leaf", since: 13, setup: []string{"CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (9)", published}, opts: withPublication,
			id: "pg.viaroot", severity: api.SeverityFatal, words: "under the names of partitions"},
		{name: "publication after slot", setup: []string{"CREATE TABLE t (id int PRIMARY KEY)", createSlot, "CREATE TABLE u (id int PRIMARY KEY)", published},
			opts: func(o *doctor.Options, db string) { o.Publication = "p"; o.Slot = "weir_" + db },
			id:   "pg.pub_order", severity: api.SeverityWarning, words: "was made or changed after slot"},
		{name: "no primary key", setup: []string{"CREATE TABLE t (a int)"}, id: "pg.identity", severity: api.SeverityFatal, words: "no primary key"},
		{name: "a unique index serves", setup: []string{"CREATE TABLE t (a int NOT NULL, b int)", "CREATE UNIQUE INDEX nullable ON t (b)", `CREATE UNIQUE INDEX "the one" ON t (a)`},
			id: "pg.identity", severity: api.SeverityFatal, words: "no primary key"},
		{name: "identity nothing", setup: []string{"CREATE TABLE t (a int PRIMARY KEY)", "ALTER TABLE t REPLICA IDENTITY NOTHING"}, id: "pg.identity", severity: api.SeverityFatal, words: "NOTHING"},
		{name: "identity index dropped", setup: []string{"CREATE TABLE t (a int NOT NULL)", "CREATE UNIQUE INDEX i ON t (a)", "ALTER TABLE t REPLICA IDENTITY USING INDEX i", "DROP INDEX i"},
			id: "pg.identity", severity: api.SeverityFatal, words: "index of its replica identity is gone"},
		{name: "deferrable key", setup: []string{"CREATE TABLE t (a int PRIMARY KEY DEFERRABLE)"}, id: "pg.identity", severity: api.SeverityFatal, words: "deferrable"},
		{name: "partition without key", setup: []string{"CREATE TABLE t (a int) PARTITION BY RANGE (a)", "CREATE TABLE leaf PARTITION OF t FOR VALUES FROM (0) TO (9)"},
			id: "pg.identity", severity: api.SeverityFatal, words: "public.leaf"},
		{name: "a partition told by another index", since: 13, setup: []string{"CREATE TABLE t (a int, k int, x int NOT NULL, PRIMARY KEY (a, k)) PARTITION BY LIST (k)", "CREATE TABLE leaf PARTITION OF t FOR VALUES IN (1)",
			"CREATE UNIQUE INDEX i ON leaf (x)", "ALTER TABLE leaf REPLICA IDENTITY USING INDEX i"}, id: "pg.identity", severity: api.SeverityFatal, words: "partition public.leaf of public.t tells its rows apart by x, and public.t by a, k"},
		{name: "a partition told by less than whole rows", since: 13, setup: []string{"CREATE TABLE t (a int NOT NULL, k int) PARTITION BY LIST (k)", "CREATE TABLE leaf PARTITION OF t FOR VALUES IN (1)",
			"ALTER TABLE leaf ADD PRIMARY KEY (a)", "ALTER TABLE t REPLICA IDENTITY FULL"}, id: "pg.identity", severity: api.SeverityFatal, words: "public.t by whole rows"},
		{name: "generated in identity", since: 18, setup: []string{"CREATE TABLE t (a int, g int GENERATED ALWAYS AS (a + 1) STORED)", "ALTER TABLE t REPLICA IDENTITY FULL", published}, opts: withPublication,
			id: "pg.identity_gen", severity: api.SeverityFatal, words: "generated column"},
		{name: "large values", setup: []string{"CREATE TABLE t (a int PRIMARY KEY, b text)"}, opts: func(o *doctor.Options, _ string) { o.FullRows = true },
			id: "pg.toast", severity: api.SeverityWarning, words: "large values"},
		{name: "unlogged", setup: []string{"CREATE UNLOGGED TABLE t (a int PRIMARY KEY)", "CREATE TABLE u (a int PRIMARY KEY)"}, id: "pg.kind", severity: api.SeverityWarning, words: "unlogged"},
		{name: "no columns", setup: []string{"CREATE TABLE t ()", "CREATE TABLE u (a int PRIMARY KEY)"}, id: "pg.kind", severity: api.SeverityWarning, words: "no columns", hopeless: true},
		{name: "a named view", setup: []string{"CREATE VIEW v AS SELECT 1", "CREATE TABLE u (a int PRIMARY KEY)"}, spec: api.MirrorSpec{Tables: []string{"public.v,public.u"}},
			id: "pg.kind", severity: api.SeverityFatal, words: "it is a view", hopeless: true},
		{name: "no table", spec: api.MirrorSpec{Tables: []string{"public.ordres"}}, setup: []string{"CREATE TABLE orders (id int PRIMARY KEY)"},
			id: "pg.tables", severity: api.SeverityFatal, words: "take no table", hopeless: true},
		{name: "a pattern without table", spec: api.MirrorSpec{Tables: []string{"public.orders,gone.*"}}, setup: []string{"CREATE TABLE orders (id int PRIMARY KEY)"},
			id: "pg.tables", severity: api.SeverityWarning, words: "1 table is taken, and nothing matches gone.*", hopeless: true},
		{name: "a filter without table", spec: api.MirrorSpec{Filters: []api.Filter{{Table: "public.ordres", Where: "id > 0"}}}, setup: []string{"CREATE TABLE orders (id int PRIMARY KEY)"},
			id: "pg.tables", severity: api.SeverityFatal, words: "did you mean public.orders?", hopeless: true},
		{name: "an excluded column that is not there", spec: api.MirrorSpec{Exclude: []string{"public.orders.emial"}}, setup: []string{"CREATE TABLE orders (id int PRIMARY KEY, email text)"},
			id: "pg.tables", severity: api.SeverityFatal, words: "did you mean public.orders.email?", hopeless: true},
		{name: "nondeterministic key", setup: []string{"CREATE COLLATION ci (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false)", "CREATE TABLE t (a text COLLATE ci PRIMARY KEY)"},
			id: "pg.collation", severity: api.SeverityWarning, words: "different texts are equal", hopeless: true},
		{name: "collation version", setup: []string{`CREATE COLLATION "de DE" (PROVIDER = icu, LOCALE = 'de')`, `CREATE TABLE t (a text COLLATE "de DE" PRIMARY KEY)`, "UPDATE pg_collation SET collversion = '0' WHERE collname = 'de DE'"},
			id: "pg.collation", severity: api.SeverityWarning, words: "version 0, now"},
		{name: "filter outside the identity", since: 15, setup: []string{"CREATE TABLE t (id int PRIMARY KEY, region text)"}, spec: api.MirrorSpec{Filters: []api.Filter{{Table: "public.t", Where: "region = 'eu'"}}},
			id: "pg.filter", severity: api.SeverityFatal, words: "outside its replica identity"},
		{name: "filter with a slip", since: 15, setup: []string{"CREATE TABLE t (id int PRIMARY KEY)"}, spec: api.MirrorSpec{Filters: []api.Filter{{Table: "public.t", Where: "regoin = 'eu'"}}},
			id: "pg.filter", severity: api.SeverityFatal, words: "regoin", hopeless: true},
		{name: "filter with a function that may change", since: 15, setup: []string{"CREATE TABLE t (id int PRIMARY KEY)"}, spec: api.MirrorSpec{Filters: []api.Filter{{Table: "public.t", Where: "now() > now()"}}},
			id: "pg.filter", severity: api.SeverityFatal, words: "built-in mutable functions are not allowed", hopeless: true},
		{name: "filter with a function of the user's", since: 15, setup: []string{"CREATE FUNCTION yes(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true'", "CREATE TABLE t (id int PRIMARY KEY)"},
			spec: api.MirrorSpec{Filters: []api.Filter{{Table: "public.t", Where: "public.yes(id)"}}},
			id:   "pg.filter", severity: api.SeverityFatal, words: "User-defined or built-in mutable functions", hopeless: true},
		{name: "filter over a type of the user's", since: 15, setup: []string{"CREATE TYPE mood AS ENUM ('ok')", `CREATE TABLE "t.1" (id int PRIMARY KEY, m mood)`, `ALTER TABLE "t.1" REPLICA IDENTITY FULL`},
			spec: api.MirrorSpec{Filters: []api.Filter{{Table: `public."t.1"`, Where: "m = 'ok'"}}},
			id:   "pg.filter", severity: api.SeverityFatal, words: "User-defined", hopeless: true},
		{name: "filter over a system column", since: 15, setup: []string{"CREATE TABLE t (id int PRIMARY KEY)"}, spec: api.MirrorSpec{Filters: []api.Filter{{Table: "public.t", Where: "xmin <> '1'"}}},
			id: "pg.filter", severity: api.SeverityFatal, words: "xmin", hopeless: true},
		{name: "filter with a subquery", since: 15, setup: []string{"CREATE TABLE t (id int PRIMARY KEY)"}, spec: api.MirrorSpec{Filters: []api.Filter{{Table: "public.t", Where: "id IN (SELECT 1)"}}},
			id: "pg.filter", severity: api.SeverityFatal, words: "is refused", hopeless: true},
		{name: "slot of a standby", setup: []string{"SELECT pg_create_physical_replication_slot('weir_' || current_database())"}, opts: rolled,
			id: "pg.slot", severity: api.SeverityFatal, words: "somebody else's"},
		{name: "slot ahead", setup: []string{createSlot}, opts: func(o *doctor.Options, db string) {
			o.Slot, o.Stored = "weir_"+db, &doctor.Stored{Position: 1}
		}, id: "pg.slot_gap", severity: api.SeverityFatal, words: "changes are gone", hopeless: true},
		{name: "slot gone", opts: func(o *doctor.Options, db string) { o.Slot, o.Stored = "weir_"+db, &doctor.Stored{Position: 1} },
			id: "pg.slot", severity: api.SeverityFatal, words: "is gone", hopeless: true},
		{name: "another server", opts: func(o *doctor.Options, _ string) { o.Stored = &doctor.Stored{System: "123", Timeline: 1} },
			id: "pg.identity_sys", severity: api.SeverityFatal, words: "another server", hopeless: true},
		{name: "forgotten slot", setup: []string{"SELECT pg_create_logical_replication_slot('weir_old_' || current_database(), 'pgoutput')"}, opts: rolled,
			id: "pg.orphan", severity: api.SeverityWarning, words: "nobody reads it"},
	}
}

func TestFindingsAndTheirRepair(t *testing.T) {
	for _, v := range []testenv.Version{12, 15, 18} {
		t.Run(v.String(), func(t *testing.T) {
			s := server(t, v)
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
	db := testenv.DatabaseOf(t, s.CreateDatabase(t, "src"))
	for _, sql := range st.setup {
		s.Exec(t, db, sql)
	}
	url := s.URL(db)
	if st.as != "" {
		var name string
		name, url = role(t, s, db, st.as)
		for _, g := range st.grant {
			s.Exec(t, db, fmt.Sprintf(g, pg.Ident(name)))
		}
	}
	opts := doctor.Options{Selection: pick(t, st.spec)}
	if st.opts != nil {
		st.opts(&opts, db)
	}
	found := fails(t, check(t, url, opts), st.id, st.severity, st.words)
	if st.hopeless {
		return
	}
	repair(t, s, db, found)
	if st.another != "" {
		opts.Publication = st.another
	}
	if st.id == "pg.select" || st.id == "pg.publication" {
		// Opening a schema shows what is closed inside.
		if more := of(t, check(t, url, opts), st.id); more[0].Severity != api.SeverityOK {
			repair(t, s, db, more)
		}
	}
	passes(t, check(t, url, opts), st.id)
}

// A server with nothing wrong has one passing line for each check, and warnings only where the version warrants them.
func TestHealthyServer(t *testing.T) {
	for _, v := range []testenv.Version{12, 15, 18} {
		t.Run(v.String(), func(t *testing.T) {
			s := testenv.Postgres(t, v, testenv.FsyncOff())
			if v > 12 {
				s.Exec(t, "postgres", "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'", "SELECT pg_reload_conf()")
			}
			url := s.CreateDatabase(t, "shop")
			s.Exec(t, testenv.DatabaseOf(t, url), "CREATE TABLE a (id int PRIMARY KEY, b text)")
			checks := check(t, url, doctor.Options{Slot: "weir_x", Publication: "weir_x"})
			seen := map[string]bool{}
			for _, c := range checks {
				if seen[c.ID] {
					t.Errorf("%s has more than one line", c.ID)
				}
				seen[c.ID] = true
				old := v == 12 && (c.ID == "pg.version" || c.ID == "pg.keep") && c.Severity == api.SeverityWarning
				if c.Severity != api.SeverityOK && !old {
					t.Errorf("%s: %s: %s", c.ID, c.Severity, c.Message)
				}
			}
			if len(seen) != 30 {
				t.Errorf("%d checks left a line", len(seen))
			}
		})
	}
}

func TestServerSettings(t *testing.T) {
	s := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSetting("wal_level", "replica"), testenv.WithSetting("max_wal_senders", "2"))
	opts := doctor.Options{Slot: "weir_x"}
	checks := check(t, s.URL("postgres"), opts)
	repair(t, s, "postgres", fails(t, checks, "pg.wal_level", api.SeverityFatal, "wal_level is replica"))
	repair(t, s, "postgres", fails(t, checks, "pg.keep", api.SeverityWarning, "max_slot_wal_keep_size is -1"))
	checks = check(t, s.URL("postgres"), opts)
	passes(t, checks, "pg.wal_level")
	passes(t, checks, "pg.keep")

	conn := replication(t, s)
	defer conn.Close(context.Background())
	repair(t, s, "postgres", fails(t, check(t, s.URL("postgres"), opts), "pg.free", api.SeverityFatal, "1 of 2 wal senders are in use"))
	passes(t, check(t, s.URL("postgres"), opts), "pg.free")

	s.Exec(t, "postgres", "ALTER SYSTEM SET max_replication_slots = 1")
	if err := s.Restart(testenv.Fast); err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "postgres", "SELECT pg_create_physical_replication_slot('other')")
	repair(t, s, "postgres", fails(t, check(t, s.URL("postgres"), opts), "pg.free", api.SeverityFatal, "the only replication slot is taken"))
	passes(t, check(t, s.URL("postgres"), opts), "pg.free")

	s.Exec(t, "postgres", "ALTER SYSTEM SET synchronous_standby_names = 'other'", "SELECT pg_reload_conf()")
	fails(t, check(t, s.URL("postgres"), opts), "pg.sync", api.SeverityWarning, "commits wait for standbys (other)")
}

func replication(t *testing.T, s *testenv.Server) interface{ Close(context.Context) error } {
	t.Helper()
	conn, err := pg.Connect(t.Context(), env.Real(nil), config(t, s.URL("postgres")), pg.ConnectOptions{Replication: true})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestSlotUnderWay(t *testing.T) {
	s := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSetting("max_slot_wal_keep_size", "96MB"), testenv.WithSetting("min_wal_size", "32MB"), testenv.WithSetting("max_wal_size", "48MB"))
	s.Exec(t, "postgres", "SELECT pg_create_logical_replication_slot('weir_s', 'pgoutput')", "CREATE PUBLICATION weir_s FOR ALL TABLES", "CREATE TABLE t (id int PRIMARY KEY, b text)")
	opts := doctor.Options{Slot: "weir_s", Publication: "weir_s"}
	conn, err := pg.Connect(t.Context(), env.Real(nil), config(t, s.URL("postgres")), pg.ConnectOptions{Replication: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	conn.Frontend().Send(&pgproto3.Query{String: `START_REPLICATION SLOT "weir_s" LOGICAL 0/0 (proto_version '1', publication_names 'weir_s')`})
	if err := conn.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	for {
		msg, err := conn.ReceiveMessage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := msg.(*pgproto3.CopyBothResponse); ok {
			break
		}
	}
	running := opts
	running.Running = true
	passes(t, check(t, s.URL("postgres"), running), "pg.slot")
	repair(t, s, "postgres", fails(t, check(t, s.URL("postgres"), opts), "pg.slot", api.SeverityFatal, "is in use by process"))
	eventually(t, func() bool { return of(t, check(t, s.URL("postgres"), opts), "pg.slot")[0].Severity == api.SeverityOK })

	// Log is kept: first half of the limit, then more than the server is willing to keep.
	s.Exec(t, "postgres", "SELECT pg_switch_wal()", "INSERT INTO t VALUES (1)", "SELECT pg_switch_wal()", "INSERT INTO t VALUES (2)", "SELECT pg_switch_wal()", "INSERT INTO t VALUES (3)", "SELECT pg_switch_wal()", "INSERT INTO t VALUES (4)")
	repair(t, s, "postgres", fails(t, check(t, s.URL("postgres"), opts), "pg.slot_age", api.SeverityWarning, "MB of log, and at 96 MB it is lost"))
	passes(t, check(t, s.URL("postgres"), opts), "pg.slot_age")
	s.Exec(t, "postgres", "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
	for i := range 6 {
		s.Exec(t, "postgres", fmt.Sprintf("INSERT INTO t VALUES (%d)", 10+i), "SELECT pg_switch_wal()")
	}
	s.Exec(t, "postgres", "CHECKPOINT", "CHECKPOINT")
	repair(t, s, "postgres", fails(t, check(t, s.URL("postgres"), opts), "pg.slot", api.SeverityFatal, "is lost"))
	passes(t, check(t, s.URL("postgres"), opts), "pg.slot")
}

func eventually(t *testing.T, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen within 20 s")
		}
	}
}

func TestStandbyAndFailover(t *testing.T) {
	s := testenv.Postgres(t, 15, testenv.FsyncOff())
	standby := s.Standby(t)
	fails(t, check(t, standby.URL("postgres"), doctor.Options{}), "pg.recovery", api.SeverityFatal, "connect to the primary")

	s18 := testenv.Postgres(t, 18, testenv.FsyncOff())
	s18.Exec(t, "postgres", "SELECT pg_create_physical_replication_slot('standby')", "SELECT pg_create_logical_replication_slot('weir_s', 'pgoutput')",
		"ALTER SYSTEM SET idle_replication_slot_timeout = '1h'", "SELECT pg_reload_conf()")
	opts := doctor.Options{Slot: "weir_s"}
	checks := check(t, s18.URL("postgres"), opts)
	repair(t, s18, "postgres", fails(t, checks, "pg.failover", api.SeverityWarning, "stays behind at a failover"))
	repair(t, s18, "postgres", fails(t, checks, "pg.keep", api.SeverityWarning, "idle_replication_slot_timeout is 1h0m0s"))
	checks = check(t, s18.URL("postgres"), opts)
	passes(t, checks, "pg.failover")
	passes(t, checks, "pg.keep")
}

func TestLongTransactions(t *testing.T) {
	s := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSetting("max_prepared_transactions", "2"))
	s.Exec(t, "postgres", "CREATE TABLE t (id int)")
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "postgres", "BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'it''s'")
	opts := doctor.Options{LongTx: time.Millisecond}
	found := fails(t, check(t, s.URL("postgres"), opts), "pg.longtx", api.SeverityWarning, "making a slot waits")
	if len(found) != 2 {
		t.Fatalf("%d transactions found: %+v", len(found), found)
	}
	repair(t, s, "postgres", found)
	eventually(t, func() bool {
		return of(t, check(t, s.URL("postgres"), opts), "pg.longtx")[0].Severity == api.SeverityOK
	})
}

func TestEncodingAndCollationOfTheDatabase(t *testing.T) {
	s := testenv.Postgres(t, 15, testenv.FsyncOff())
	s.Exec(t, "postgres", "CREATE DATABASE raw ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
		"CREATE DATABASE german LOCALE_PROVIDER icu ICU_LOCALE 'de' TEMPLATE template0",
		"UPDATE pg_database SET datcollversion = '1' WHERE datname = 'german'")
	fails(t, check(t, s.URL("raw"), doctor.Options{}), "pg.encoding", api.SeverityWarning, "SQL_ASCII")
	repair(t, s, "german", fails(t, check(t, s.URL("german"), doctor.Options{}), "pg.collation", api.SeverityWarning, "made with version 1"))
	passes(t, check(t, s.URL("german"), doctor.Options{}), "pg.collation")
}

func TestOldVersionWarns(t *testing.T) {
	fails(t, check(t, server(t, 12).URL("postgres"), doctor.Options{}), "pg.version", api.SeverityWarning, "only when it has committed")
}

func TestFiltersNeed15(t *testing.T) {
	s := server(t, 12)
	url := s.CreateDatabase(t, "src")
	s.Exec(t, testenv.DatabaseOf(t, url), "CREATE TABLE t (id int PRIMARY KEY)")
	found := fails(t, check(t, url, doctor.Options{Selection: pick(t, api.MirrorSpec{Filters: []api.Filter{{Table: "*.t", Where: "id > 1"}}})}),
		"pg.filter", api.SeverityFatal, "needs Postgres 15")
	if found[0].Code != string(errs.RowFilterUnsupport) {
		t.Errorf("code %s", found[0].Code)
	}
}

// A filter is tried beside the table: whoever works on the table is not in the way, and nothing of the trial stays.
func TestFilterIsTriedAside(t *testing.T) {
	s := server(t, 15)
	url := s.CreateDatabase(t, "src")
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	s.Exec(t, testenv.DatabaseOf(t, url), "CREATE TABLE t (id int PRIMARY KEY)")
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	with := func(where string) doctor.Options {
		return doctor.Options{Selection: pick(t, api.MirrorSpec{Filters: []api.Filter{{Table: "*.t", Where: where}}})}
	}
	passes(t, check(t, url, with("id > abs(-1)")), "pg.filter")
	fails(t, check(t, url, with("id > random()")), "pg.filter", api.SeverityFatal, "mutable functions")
	var left int
	if err := conn.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'weir%')").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d objects are left: %v", left, err)
	}
}

// The same condition in other words is the same condition; excluded columns may be sent or not.
func TestPublicationsThatFit(t *testing.T) {
	s := server(t, 15)
	for name, publication := range map[string]string{
		"as written":        "FOR TABLE t WHERE (r = 'eu')",
		"in other words":    "FOR TABLE t WHERE (((t.r)) = 'e'||'u'::text)",
		"without a column":  "FOR TABLE t (id, r, v) WHERE (r = 'eu')",
		"with it all":       "FOR TABLE t (id, r, v, secret) WHERE (r = 'eu')",
		"through the root":  "FOR TABLE root WHERE (r = 'eu') WITH (publish_via_partition_root = true)",
		"a condition on it": "FOR TABLE g WHERE (r = 'eu')",
	} {
		t.Run(name, func(t *testing.T) {
			url := s.CreateDatabase(t, "src")
			table := strings.Fields(publication)[2]
			s.Exec(t, testenv.DatabaseOf(t, url), "CREATE TABLE t (id int, r text, secret text, v text, PRIMARY KEY (id, r))",
				"CREATE TABLE root (LIKE t, PRIMARY KEY (id, r)) PARTITION BY LIST (r)", "CREATE TABLE leaf PARTITION OF root FOR VALUES IN ('eu')",
				`CREATE TABLE g ("id" int, r varchar(9) COLLATE "C", d int GENERATED ALWAYS AS (id + 1) STORED, PRIMARY KEY (id, r))`, "CREATE PUBLICATION p "+publication)
			spec := onlyEU("public." + table)
			if spec.Tables = []string{"public." + table}; table == "t" {
				spec.Exclude = []string{"public.t.secret"}
			}
			passes(t, check(t, url, doctor.Options{Selection: pick(t, spec), Publication: "p", KeepPublication: true}), "pg.publication")
		})
	}
}

// What cannot be reached comes with what helps.
func TestHintsOfAFailedConnection(t *testing.T) {
	s := server(t, 15)
	for name, c := range map[string]struct{ url, hint string }{
		"no such database": {s.URL("nowhere"), "the name of the database"},
		"no such role":     {s.URLFor("nobody_here", s.Addr(), "postgres"), "the name of the role"},
		"nothing there":    {"postgres://nobody@127.0.0.1:1/x?sslmode=disable", "nothing listens there"},
	} {
		t.Run(name, func(t *testing.T) {
			fails(t, check(t, c.url, doctor.Options{}), "pg.connect", api.SeverityFatal, c.hint)
		})
	}
}

func TestUnreachable(t *testing.T) {
	checks := check(t, "postgres://nobody@127.0.0.1:1/x?sslmode=disable", doctor.Options{})
	if c := fails(t, checks, "pg.connect", api.SeverityFatal, "127.0.0.1:1/x")[0]; c.Code != string(errs.SourceUnreachable) || len(checks) != 1 {
		t.Errorf("%+v", checks)
	}
}

// What a provider's server asks for differs in who grants and where settings are.
func TestProviders(t *testing.T) {
	for _, c := range []struct{ role, provider, walLevel string }{
		{"rds_superuser", "RDS", "rds.logical_replication"},
		{"cloudsqlsuperuser", "Cloud SQL", "cloudsql.logical_decoding"},
		{"alloydbsuperuser", "AlloyDB", "alloydb.logical_decoding"},
		{"azure_pg_admin", "Azure", "server parameters"},
		{"supabase_admin", "Supabase", "support"},
		{"neon_superuser", "Neon", "project"},
	} {
		t.Run(c.provider, func(t *testing.T) {
			s := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSetting("wal_level", "replica"))
			s.Exec(t, "postgres", "CREATE ROLE "+c.role, "CREATE ROLE app LOGIN")
			url := s.URLFor("app", s.Addr(), "postgres")
			checks := check(t, url, doctor.Options{})
			fails(t, checks, "pg.connect", api.SeverityOK, c.provider)
			if f := fails(t, checks, "pg.wal_level", api.SeverityFatal, "replica"); !strings.Contains(f[0].Fix, c.walLevel) {
				t.Errorf("fix: %s", f[0].Fix)
			}
			if f := fails(t, checks, "pg.keep", api.SeverityWarning, "max_slot_wal_keep_size"); strings.Contains(f[0].Fix, "ALTER SYSTEM") {
				t.Errorf("fix: %s", f[0].Fix)
			}
			found := fails(t, checks, "pg.role", api.SeverityFatal, "may not replicate")
			if c.role == "rds_superuser" {
				if found[0].Fix != `GRANT rds_replication TO "app";` {
					t.Errorf("fix: %s", found[0].Fix)
				}
				s.Exec(t, "postgres", "CREATE ROLE rds_replication")
			}
			repair(t, s, "postgres", found)
			passes(t, check(t, url, doctor.Options{}), "pg.role")
		})
	}
}

// A pooler shows itself by another process id, or by refusing replication.
func TestPooler(t *testing.T) {
	s := server(t, 15)
	for _, c := range []struct {
		refuse   bool
		severity api.Severity
	}{{true, api.SeverityFatal}, {false, api.SeverityOK}} {
		addr := pooler(t, s.Addr(), c.refuse)
		checks := check(t, s.URLFor("postgres", addr, "postgres"), doctor.Options{})
		fails(t, checks, "pg.pooler", api.SeverityWarning, "pooler is in between")
		fails(t, checks, "pg.replication", c.severity, "replication")
	}
}

// pooler passes connections on, with a process id of its own in the handshake, as pgbouncer does.
func pooler(t *testing.T, server string, refuseReplication bool) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	serve := func(client net.Conn) {
		defer client.Close()
		backend := pgproto3.NewBackend(client, client)
		msg, err := backend.ReceiveStartupMessage()
		start, ok := msg.(*pgproto3.StartupMessage)
		if err != nil || !ok {
			return
		}
		if start.Parameters["replication"] != "" && refuseReplication {
			backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: replication"})
			_ = backend.Flush()
			return
		}
		up, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		defer up.Close()
		frontend := pgproto3.NewFrontend(up, up)
		frontend.Send(start)
		if frontend.Flush() != nil {
			return
		}
		for {
			msg, err := frontend.Receive()
			if err != nil {
				return
			}
			if k, ok := msg.(*pgproto3.BackendKeyData); ok {
				k.ProcessID = 1
			}
			backend.Send(msg)
			if backend.Flush() != nil {
				return
			}
			if _, ok := msg.(*pgproto3.ReadyForQuery); ok {
				break
			}
		}
		wg.Add(1)
		go func() { defer wg.Done(); defer up.Close(); _, _ = io.Copy(up, client) }()
		_, _ = io.Copy(client, up)
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Add(1)
			go func() { defer wg.Done(); serve(c) }()
		}
	}()
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

// The check's claim about 18 is the server's own behaviour.
func TestVirtualColumnsInTheIdentity(t *testing.T) {
	s := server(t, 18)
	url := s.CreateDatabase(t, "src")
	db := testenv.DatabaseOf(t, url)
	s.Exec(t, db, "CREATE TABLE t (a int PRIMARY KEY, b int, v int GENERATED ALWAYS AS (a + 1) VIRTUAL)", "ALTER TABLE t REPLICA IDENTITY FULL", published, "INSERT INTO t VALUES (1, 1)")
	if _, err := s.Run(t.Context(), db, "UPDATE t SET b = 2"); err == nil {
		t.Error("the server accepts the update")
	}
	opts := doctor.Options{Publication: "p"}
	repair(t, s, db, fails(t, check(t, url, opts), "pg.identity_gen", api.SeverityFatal, "virtual"))
	passes(t, check(t, url, opts), "pg.identity_gen")
	s.Exec(t, db, "UPDATE t SET b = 2")
}

// Five thousand tables are asked in one go, and a flood of equal findings is one line with the whole repair.
func TestManyTables(t *testing.T) {
	s := server(t, 15)
	url := s.CreateDatabase(t, "many")
	db := testenv.DatabaseOf(t, url)
	for i := range 10 {
		s.Exec(t, db, fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP EXECUTE format('CREATE TABLE t%%s (id int, b text, c timestamptz)', i); END LOOP; END $$`, i*500, i*500+499))
	}
	begin := time.Now()
	checks := check(t, url, doctor.Options{Publication: "p", Slot: "weir_many"})
	took := time.Since(begin)
	t.Logf("5,000 tables in %s", took.Round(time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("5,000 tables took %s", took)
	}
	found := fails(t, checks, "pg.identity", api.SeverityFatal, "4980 more objects")
	if len(found) != 21 || strings.Count(found[20].Fix, "\n") != 4979 {
		t.Errorf("%d findings, the last one repairs %d", len(found), strings.Count(found[20].Fix, "\n")+1)
	}
	repair(t, s, db, found[:1])
	if got := of(t, check(t, url, doctor.Options{}), "pg.identity"); !strings.Contains(got[20].Message, "4979 more") {
		t.Errorf("after one repair: %s", got[20].Message)
	}
}
