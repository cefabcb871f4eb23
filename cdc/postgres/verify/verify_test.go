package verify_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/cdc/postgres/verify"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
	testenv "github.com/weirstream/weir/test/env"
)

func TestMain(m *testing.M) { testenv.Main(m, testenv.CheckLeaks()) }

type pair struct {
	t        *testing.T
	a, b     *testenv.Server
	from, to string // URLs
}

func newPair(t *testing.T, from, to testenv.Version) *pair {
	p := &pair{t: t, a: testenv.Shared(t, from, testenv.FsyncOff()), b: testenv.Shared(t, to, testenv.FsyncOff())}
	p.from, p.to = p.a.CreateDatabase(t, "src"), p.b.CreateDatabase(t, "dst")
	return p
}

func (p *pair) src(sql ...string) {
	p.t.Helper()
	p.a.Exec(p.t, testenv.DatabaseOf(p.t, p.from), sql...)
}
func (p *pair) dst(sql ...string) { p.t.Helper(); p.b.Exec(p.t, testenv.DatabaseOf(p.t, p.to), sql...) }
func (p *pair) both(sql ...string) {
	p.t.Helper()
	p.src(sql...)
	p.dst(sql...)
}

func config(t *testing.T, url string) *pg.Config {
	t.Helper()
	cfg, err := pg.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// settle is short: nothing lags unless the test makes it.
const settle = 200 * time.Millisecond

func (p *pair) run(r verify.Request) *verify.Report {
	p.t.Helper()
	r.Source, r.Target = config(p.t, p.from), config(p.t, p.to)
	if r.Settle == 0 {
		r.Settle = settle
	}
	report, err := verify.Run(p.t.Context(), env.Real(nil), r)
	if err != nil {
		p.t.Fatal(err)
	}
	return report
}

// lines puts a report into words, sorted as it is.
func lines(r *verify.Report) string {
	var b strings.Builder
	value := func(v *string) string {
		if v == nil {
			return "NULL"
		}
		return fmt.Sprintf("%q", *v)
	}
	for _, x := range r.Tables {
		if x.Error != "" {
			fmt.Fprintf(&b, "%s: %s\n", x.Source, x.Error)
		}
		for _, d := range x.Diffs {
			fmt.Fprintf(&b, "%s %s", x.Source, d.Kind)
			for _, k := range d.Key {
				fmt.Fprintf(&b, " %s", value(k.Source))
				if value(k.Source) != value(k.Target) {
					fmt.Fprintf(&b, "/%s", value(k.Target))
				}
			}
			for _, c := range d.Columns {
				fmt.Fprintf(&b, " %s=%s/%s", c.Name, value(c.Source), value(c.Target))
			}
			if d.SourceCount > 1 || d.TargetCount > 1 {
				fmt.Fprintf(&b, " %dx/%dx", d.SourceCount, d.TargetCount)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func (p *pair) want(r *verify.Report, want string) {
	p.t.Helper()
	want = strings.TrimPrefix(want, "\n")
	if got := lines(r); got != want {
		p.t.Errorf("the report says\n%s\nwant\n%s", got, want)
	}
	if r.Equal != (want == "") || r.Unsettled != 0 {
		p.t.Errorf("equal: %t, unsettled: %d", r.Equal, r.Unsettled)
	}
	n := int64(strings.Count(want, "\n"))
	if r.Differing != n && !strings.Contains(want, ": ") {
		p.t.Errorf("%d differing rows counted, want %d", r.Differing, n)
	}
}

func select_(t *testing.T, spec api.MirrorSpec) *selection.Selection {
	t.Helper()
	s, err := selection.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFindsEveryDifference(t *testing.T) {
	for _, v := range [][2]testenv.Version{{12, 18}, {15, 15}, {18, 12}} {
		t.Run(fmt.Sprintf("%s to %s", v[0], v[1]), func(t *testing.T) {
			p := newPair(t, v[0], v[1])
			p.both(
				"CREATE TABLE keyed (id int PRIMARY KEY, a text, b text)",
				"INSERT INTO keyed SELECT g, 'a' || g, NULL FROM generate_series(1, 20000) g",
				"CREATE TABLE keyless (a int, b text, j json)",
				"INSERT INTO keyless SELECT g % 900, 'x', '{\"a\": 1}' FROM generate_series(1, 5000) g",
				"CREATE TABLE pairs (a int, b date, c float8, PRIMARY KEY (a, b))",
				"INSERT INTO pairs SELECT g % 7, date '2020-01-01' + g, g / 3.0 FROM generate_series(1, 3000) g",
				"CREATE TABLE nothing (id int PRIMARY KEY)")
			r := p.run(verify.Request{RangeRows: 1000})
			p.want(r, "")
			if r.Rows != 28000 || r.Ranges < 25 {
				t.Errorf("%d rows in %d ranges", r.Rows, r.Ranges)
			}
			p.dst("UPDATE keyed SET a = 'other' WHERE id = 17",
				"UPDATE keyed SET b = '' WHERE id = 1000",
				"DELETE FROM keyed WHERE id IN (1, 20000)",
				"INSERT INTO keyed VALUES (-5, 'low'), (30000, 'high')",
				"UPDATE pairs SET c = c + 1e-9 WHERE a = 3 AND b = '2020-01-04'",
				"DELETE FROM keyless WHERE ctid IN (SELECT ctid FROM keyless WHERE a = 5 LIMIT 2)",
				"INSERT INTO keyless VALUES (NULL, '', NULL)",
				"INSERT INTO nothing VALUES (1)")
			p.src("INSERT INTO keyless VALUES (NULL, NULL, NULL)")
			p.want(p.run(verify.Request{RangeRows: 1000}), `
public.keyed extra NULL/"-5" id=NULL/"-5" a=NULL/"low" b=NULL/NULL
public.keyed extra NULL/"30000" id=NULL/"30000" a=NULL/"high" b=NULL/NULL
public.keyed missing "1"/NULL id="1"/NULL a="a1"/NULL b=NULL/NULL
public.keyed changed "1000" b=NULL/""
public.keyed changed "17" a="a17"/"other"
public.keyed missing "20000"/NULL id="20000"/NULL a="a20000"/NULL b=NULL/NULL
public.keyless extra a=NULL/NULL b=NULL/"" j=NULL/NULL
public.keyless missing a=NULL/NULL b=NULL/NULL j=NULL/NULL
public.keyless changed a="5"/"5" b="x"/"x" j="{\"a\": 1}"/"{\"a\": 1}" 6x/4x
public.nothing extra NULL/"1" id=NULL/"1"
public.pairs changed "3" "2020-01-04" c="1"/"1.000000001"
`)
		})
	}
}

// Keys that a server takes for equal though they are written differently are one row, which differs.
func TestEqualKeysWrittenDifferently(t *testing.T) {
	p := newPair(t, 15, 15)
	p.both("CREATE TABLE n (k numeric PRIMARY KEY, a int)", "CREATE TABLE f (k float8 PRIMARY KEY, a int)",
		"CREATE EXTENSION citext", "CREATE TABLE c (k citext PRIMARY KEY, a int)",
		"INSERT INTO n SELECT g, g FROM generate_series(2, 500) g", "INSERT INTO f SELECT g, g FROM generate_series(2, 500) g", "INSERT INTO c SELECT g, g FROM generate_series(2, 500) g")
	p.src("INSERT INTO n VALUES (1.0, 1)", "INSERT INTO f VALUES ('-0', 1)", "INSERT INTO c VALUES ('Key', 1)")
	p.dst("INSERT INTO n VALUES (1.00, 1)", "INSERT INTO f VALUES ('0', 1)", "INSERT INTO c VALUES ('kEY', 1)")
	p.want(p.run(verify.Request{RangeRows: 100}), `
public.c changed "Key"/"kEY" k="Key"/"kEY"
public.f changed "-0"/"0" k="-0"/"0"
public.n changed "1.0"/"1.00" k="1.0"/"1.00"
`)
}

// Two collations order text differently, so a range of one side would be another set on the other.
func TestTextKeysUnderDifferentCollations(t *testing.T) {
	for _, c := range [][2]string{{`"C"`, `"C"`}, {`"en-x-icu"`, `"C"`}, {`"C"`, `"de-x-icu"`}, {`"default"`, `"sv-x-icu"`}} {
		t.Run(c[0]+" "+c[1], func(t *testing.T) {
			p := newPair(t, 15, 15)
			p.src("CREATE TABLE t (k text COLLATE " + c[0] + " PRIMARY KEY, v int)")
			p.dst("CREATE TABLE t (k text COLLATE " + c[1] + " PRIMARY KEY, v int)")
			p.both("INSERT INTO t SELECT (ARRAY['a','B','ä','Z','z','_','','Å','-','É'])[1 + g % 10] || g || (ARRAY['x','Y',' '])[1 + g % 3], g FROM generate_series(1, 9000) g", "ANALYZE t",
				"CREATE TYPE mood AS ENUM ('low')", "CREATE TABLE e (m mood PRIMARY KEY)")
			p.src("ALTER TYPE mood ADD VALUE 'high'", "ALTER TYPE mood ADD VALUE 'mid' BEFORE 'high'")
			p.dst("ALTER TYPE mood ADD VALUE 'mid' BEFORE 'low'", "ALTER TYPE mood ADD VALUE 'high' BEFORE 'mid'")
			p.both("INSERT INTO e VALUES ('low'), ('mid'), ('high')")
			p.want(p.run(verify.Request{RangeRows: 500}), "")
			p.dst("UPDATE t SET v = -1 WHERE v = 4711", "DELETE FROM t WHERE v = 8", "INSERT INTO t VALUES ('Öl', 0)", "DELETE FROM e WHERE m = 'mid'")
			p.want(p.run(verify.Request{RangeRows: 500}), `
public.e missing "mid"/NULL m="mid"/NULL
public.t extra NULL/"Öl" k=NULL/"Öl" v=NULL/"0"
public.t missing "-8 "/NULL k="-8 "/NULL v="8"/NULL
public.t changed "B4711Y" v="4711"/"-1"
`)
		})
	}
}

func TestSelectionIsRespected(t *testing.T) {
	p := newPair(t, 15, 15)
	p.src("CREATE TABLE users (id int PRIMARY KEY, name text, password text, region text, loud text GENERATED ALWAYS AS (upper(name)) STORED)", "CREATE TABLE skipped (id int PRIMARY KEY)",
		"INSERT INTO users SELECT g, 'n' || g, 'secret', CASE WHEN g % 2 = 0 THEN 'eu' ELSE 'us' END FROM generate_series(1, 1000) g", "CREATE VIEW v AS SELECT 1")
	p.dst("CREATE SCHEMA copy", "CREATE TABLE copy.m_users (id bigint PRIMARY KEY, name varchar, region text, extra int DEFAULT 5, gone timestamptz)",
		"INSERT INTO copy.m_users SELECT g, 'n' || g, 'eu' FROM generate_series(2, 1000, 2) g",
		"INSERT INTO copy.m_users VALUES (1, 'deleted at the source', 'eu', 5, now())")
	spec := api.MirrorSpec{Except: []string{"*.skipped"}, Exclude: []string{"*.users.password"}, Routes: []api.Route{{From: "public.*", To: "copy.m_*"}},
		Filters: []api.Filter{{Table: "public.users", Where: "users.region = 'eu' -- only ours"}}}
	r := p.run(verify.Request{Selection: select_(t, spec), SoftDelete: "gone", RangeRows: 100})
	p.want(r, "")
	if r.Rows != 500 || r.Tables[0].Target != "copy.m_users" || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "public.v is not compared") {
		t.Errorf("%+v", r)
	}
	if want := []string{`generated column "loud" is on the source only`, `column "extra" is on the target only`}; !slices.Equal(r.Tables[0].Notes, want) {
		t.Errorf("notes of the table: %q, want %q", r.Tables[0].Notes, want)
	}
	p.dst("UPDATE copy.m_users SET gone = now() WHERE id = 500")
	p.want(p.run(verify.Request{Selection: select_(t, spec), SoftDelete: "gone", RangeRows: 100}), `
public.users missing "500"/NULL id="500"/NULL name="n500"/NULL region="eu"/NULL
`)
}

func TestWhatCannotBeComparedIsNotEqual(t *testing.T) {
	p := newPair(t, 15, 15)
	p.both("CREATE TABLE fine (id int PRIMARY KEY)")
	p.src("CREATE TABLE absent (id int PRIMARY KEY)", "CREATE TABLE narrow (id int PRIMARY KEY, a int)", "CREATE TABLE odd (id int PRIMARY KEY, a point)", "INSERT INTO odd VALUES (1, '(1,2)')",
		"CREATE TABLE small (id int PRIMARY KEY, a bigint, b text)", "INSERT INTO small VALUES (1, 3000000000, 'b')")
	p.dst("CREATE TABLE narrow (id int PRIMARY KEY)", "CREATE TABLE odd (id int PRIMARY KEY, a date)",
		"CREATE TABLE small (id int PRIMARY KEY, a int, b text)")
	p.want(p.run(verify.Request{}), `
public.absent: the target has no table "public"."absent"
public.narrow: the target's table has no column "a"
public.odd: a value does not fit the target's type of "a" (point, at the target date): source: ERROR: cannot cast type point to date (SQLSTATE 42846)
public.small: a value does not fit the target's type of "a" (bigint, at the target integer): source: ERROR: integer out of range (SQLSTATE 22003)
`)
	_, err := verify.Run(t.Context(), env.Real(nil), verify.Request{Source: config(t, p.from), Target: config(t, p.to), Selection: select_(t, api.MirrorSpec{Tables: []string{"x.y"}})})
	if !errs.Is(err, errs.NoTables) {
		t.Errorf("comparing nothing: %v", err)
	}
	_, err = verify.Run(t.Context(), env.Real(nil), verify.Request{Source: config(t, p.from), Target: config(t, "postgres://x@127.0.0.1:1/x")})
	if !errs.Is(err, errs.TargetUnreachable) {
		t.Errorf("no target: %v", err)
	}
}

func TestDifferencesAreCapped(t *testing.T) {
	p := newPair(t, 15, 15)
	p.both("CREATE TABLE t (id int PRIMARY KEY, a text)", "CREATE TABLE u (id int PRIMARY KEY)")
	p.src("INSERT INTO t SELECT g, repeat('é', 5000) FROM generate_series(1, 10000) g", "INSERT INTO u SELECT generate_series(1, 10)")
	r := p.run(verify.Request{RangeRows: 1000, MaxDiffRows: 10})
	x := r.Tables[0]
	if r.Equal || x.Differing != 10 || len(x.Diffs) != 10 || !x.More || x.SourceRows != 10000 || x.TargetRows != 0 {
		t.Errorf("%d differing, %d listed, more %t, rows %d and %d", x.Differing, len(x.Diffs), x.More, x.SourceRows, x.TargetRows)
	}
	if v := *x.Diffs[0].Columns[1].Source; !strings.HasPrefix(v, strings.Repeat("é", 1000)+"… (5000 characters") {
		t.Errorf("a long value is shown as %.50s (%d bytes)", v, len(v))
	}
	if y := r.Tables[1]; y.Differing != 10 || y.More {
		t.Errorf("exactly as many as are listed: %d, more %t", y.Differing, y.More)
	}
}

// Every type, written by one version and read by another, has one text and one hash.
func TestEveryTypeAcrossVersions(t *testing.T) {
	for _, v := range [][2]testenv.Version{{12, 18}, {18, 12}, {15, 18}} {
		t.Run(fmt.Sprintf("%s to %s", v[0], v[1]), func(t *testing.T) {
			p := newPair(t, v[0], v[1])
			p.both(common(t), everyValue)
			p.want(p.run(verify.Request{}), "")
		})
	}
}

// common is the part of internal/pg's test schema that all versions understand.
func common(t *testing.T) string {
	file, err := os.ReadFile(filepath.Join("..", "..", "..", "internal", "pg", "testdata", "everything.sql"))
	if err != nil {
		t.Fatal(err)
	}
	sql, _, _ := strings.Cut(string(file), "--@")
	return sql
}

const everyValue = `
INSERT INTO app.types (id, c_int2, c_float4, c_float8, c_numeric, c_money, c_text, c_char, c_bytea, c_bool, c_date, c_ts, c_tstz, c_time, c_timetz, c_interval,
	c_uuid, c_json, c_jsonb, c_xml, c_ints, c_texts, c_moods, c_int4range, c_tstzrange, c_comp, c_enum, c_bit3, c_inet, c_cidr, c_mac, c_point, c_path, c_tsv, c_tsq, c_hstore, c_citext, c_lsn, c_regclass)
VALUES (1, -32768, '1.17549435e-38', '4.9e-324', '0.000', '-92233720368547758.08', E'\U0001F418 \\ "', 'a', '\x00ff', true, '4713-01-01 BC', 'infinity', '0044-03-15 12:00:00+00 BC', '24:00', '23:59:59.999999+15:59:59', '1 mon -1 day 23:59:60',
	'ffffffff-ffff-ffff-ffff-ffffffffffff', '{"a":1, "a":2}', '{"b": 1e3, "a": [null]}', '<a/>', '{1,NULL,3}', '{{"NULL",NULL},{"a b",""}}', '{"it''s \"good\" \\o/",""}', '[1,5)', '["2020-01-01 00:00+05",)',
	ROW(ROW(1.50, 'x,"', 'sad'), ARRAY[ROW(NULL, '', 'sad')::app.inner_c], 'k=>"v w"'), 'ok, fine', '101', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '(1.1,-0)', '[(0,0),(1,1)]', 'a:1 b:2A', 'a & !b', 'b=>NULL, a=>"1"', 'CiText', '16/B374D848', 'app.types'),
	(2, NULL, 'NaN', '-Infinity', 'NaN', NULL, '', '', '', false, 'infinity', '294276-12-31 23:59:59.999999', '-infinity', NULL, NULL, '-178000000 years', NULL, NULL, NULL, NULL, '{}', NULL, NULL, 'empty', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, '', '', NULL, NULL);
INSERT INTO app.defaults DEFAULT VALUES;
UPDATE app.defaults SET d_now = '2020-01-01', d_cur = '2020-01-01';
INSERT INTO "We""ird Schema"."Täble ""x"" 'y' \ %s;--" ("ID", "co""l", "a b", "tab	char") VALUES (1, 'x', 1, 2);
`

// Writers change both sides, the target some hundred statements later. No row is called different that is only on its
// way; a row that really differs is found among them.
func TestUnderSteadyWrites(t *testing.T) {
	p := newPair(t, 15, 15)
	p.both("CREATE TABLE t (id int PRIMARY KEY, a int, b text)", "CREATE TABLE k (a int, b text)", "CREATE TABLE s (k text PRIMARY KEY, a int)",
		"INSERT INTO t SELECT g, 0, 'x' FROM generate_series(1, 5000) g", "INSERT INTO k SELECT g, 'x' FROM generate_series(1, 2000) g", "INSERT INTO s SELECT 'k' || g, 0 FROM generate_series(1, 2000) g")
	stop := p.write(t, 40)
	check := func(want string) {
		t.Helper()
		r := p.run(verify.Request{RangeRows: 500, Settle: 1500 * time.Millisecond})
		if r.Unsettled > 3 { // as many as are hot
			t.Errorf("%d rows are undecided", r.Unsettled)
		}
		r.Unsettled = 0
		p.want(r, want)
	}
	check("")
	p.dst("UPDATE t SET b = 'wrong' WHERE id = 4999", "DELETE FROM s WHERE k = 'k1999'", "INSERT INTO k VALUES (-1, 'more')")
	check(`
public.k extra a=NULL/"-1" b=NULL/"more"
public.s missing "k1999"/NULL k="k1999"/NULL a="0"/NULL
public.t changed "4999" b="x"/"wrong"
`)
	statements, rechecked := stop(), int64(0)
	r := p.run(verify.Request{})
	for _, x := range r.Tables {
		rechecked += x.Rechecked
	}
	t.Logf("%d statements on each side", statements)
	if statements < 500 || rechecked != 3 {
		t.Errorf("%d statements, %d rows looked at twice after the writers had stopped", statements, rechecked)
	}
}

// write changes rows on both sides until stop is called, on the target lag statements later. Rows above 4900 and their
// like stay as they are, for the test's own changes.
func (p *pair) write(t *testing.T, lag int) (stop func() int) {
	connect := func(url string) *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	a, b := connect(p.from), connect(p.to)
	quit, done := make(chan struct{}), make(chan int)
	var failed error
	go func() {
		rng := rand.New(rand.NewPCG(1, 2))
		var log []string
		n, applied := 0, 0
		defer func() { a.Close(context.Background()); b.Close(context.Background()); done <- n }()
		run := func(c *pgx.Conn, sql string) bool {
			_, err := c.Exec(context.Background(), sql)
			failed = err
			return err == nil
		}
		for {
			select {
			case <-quit:
				for ; applied < len(log); applied++ {
					if !run(b, log[applied]) {
						return
					}
				}
				return
			default:
			}
			id := 1 + rng.IntN(4900)
			sql := ""
			switch n % 7 {
			case 0:
				sql = fmt.Sprintf("INSERT INTO t VALUES (%d, %d, 'x') ON CONFLICT (id) DO UPDATE SET a = %d", id, n, n)
			case 1:
				sql = fmt.Sprintf("DELETE FROM t WHERE id = %d", id)
			case 2:
				sql = fmt.Sprintf("INSERT INTO k VALUES (%d, 'y')", id)
			case 3:
				sql = fmt.Sprintf("DELETE FROM k WHERE a = %d", id)
			case 4:
				sql = fmt.Sprintf("UPDATE s SET a = %d WHERE k = 'k%d'", n, id%1900)
			default:
				sql = fmt.Sprintf("UPDATE t SET a = a + 1 WHERE id = %d", 1+n%3) // three hot rows
			}
			if !run(a, sql) {
				return
			}
			log = append(log, sql)
			n++
			if len(log)-applied > lag {
				if !run(b, log[applied]) {
					return
				}
				applied++
			}
		}
	}()
	return func() int {
		close(quit)
		n := <-done
		if failed != nil {
			t.Fatal(failed)
		}
		return n
	}
}

// With a position to wait for, nothing is judged by time.
func TestCaughtUpReplacesWaiting(t *testing.T) {
	p := newPair(t, 15, 15)
	p.both("CREATE TABLE t (id int PRIMARY KEY, a int)", "INSERT INTO t SELECT g, 0 FROM generate_series(1, 100) g")
	p.src("UPDATE t SET a = 1 WHERE id IN (5, 6)")
	calls := 0
	begin := time.Now()
	r := p.run(verify.Request{Settle: time.Hour, CaughtUp: func(_ context.Context, position pg.LSN) error {
		if calls++; position == 0 {
			t.Error("no position to wait for")
		}
		p.dst("UPDATE t SET a = 1 WHERE id = 5") // the target arrives, but for one row
		return nil
	}})
	p.want(r, `
public.t changed "6" a="1"/"0"
`)
	if calls < 2 || time.Since(begin) > 20*time.Second {
		t.Errorf("%d waits in %s", calls, time.Since(begin))
	}
}

// What a user has just written is checked; what a mirror was started with may be about a table that is gone.
func TestPatternsWithoutTable(t *testing.T) {
	p := newPair(t, 15, 15)
	p.both("CREATE TABLE a (id int PRIMARY KEY, v text)")
	r := verify.Request{Source: config(t, p.from), Target: config(t, p.to), Settle: settle, Selection: select_(t, api.MirrorSpec{Exclude: []string{"public.a.w"}})}
	if _, err := verify.Run(t.Context(), env.Real(nil), r); err != nil {
		t.Error(err)
	}
	r.Check = true
	if _, err := verify.Run(t.Context(), env.Real(nil), r); !errs.Is(err, errs.BadPattern) {
		t.Error(err)
	}
}
