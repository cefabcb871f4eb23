package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/pg"
	testenv "github.com/weirstream/weir/test/env"
)

const twoTables = `CREATE TABLE a(id int PRIMARY KEY, v text); INSERT INTO a SELECT i, 'a' || i FROM generate_series(1, 1000) i;
	CREATE TABLE b(id int PRIMARY KEY, v text); INSERT INTO b SELECT i, 'b' || i FROM generate_series(1, 1000) i`

// live is a mirror of two tables that has caught up.
func live(t *testing.T, args ...string) *mirror {
	t.Helper()
	src, dst := pair(t, 15, 15)
	src.exec(t, twoTables)
	m := newMirror(t, src, dst, "public.*", args...)
	m.start()
	m.caughtUp()
	return m
}

func TestLifecycle(t *testing.T) {
	t.Parallel()
	t.Run("a state directory has one owner", func(t *testing.T) {
		m := live(t)
		_, errOut, code := m.cli("server", "--http-addr", "127.0.0.1:0")
		if code == 0 || !strings.Contains(errOut, "W5001") {
			t.Fatalf("a second process: exit code %d\n%s", code, errOut)
		}
		for _, name := range []string{m.name, "another"} {
			_, errOut, code := m.cli("mirror", m.src.url, m.dst.url, "--name", name, "--until-caught-up")
			if code == 0 || !strings.Contains(errOut, "W5001") || !strings.Contains(errOut, "weir mirror already runs") {
				t.Fatalf("mirror %s in a second process: exit code %d\n%s", name, code, errOut)
			}
		}
		m.src.exec(t, `INSERT INTO a VALUES (5000, 'still at work')`)
		m.caughtUp()
		requireEqual(t, m.src, m.dst)
		// The mirror is not what its command says any more.
		m.mustCLI("pipelines", "tables", "remove", m.name, "public.b", "--yes")
		m.stop()
		if !strings.Contains(m.log(), "weir server --state "+m.state+" goes on from here") {
			t.Errorf("after its tables were changed it ended with\n%s", m.logTail(3))
		}
	})

	t.Run("pause, resume, delete", func(t *testing.T) {
		m := live(t)
		m.stop()
		m.server()
		m.caughtUp()
		m.mustCLI("pipelines", "pause", m.name, "--wait")
		m.src.exec(t, `INSERT INTO a VALUES (5000, 'while paused')`, `DELETE FROM b WHERE id < 10`)
		if got := m.dst.one(t, `SELECT count(*) FROM a WHERE id = 5000`); got != "0" {
			t.Fatal("a paused pipeline wrote")
		}
		if got := m.src.one(t, `SELECT active FROM pg_replication_slots WHERE slot_name = '`+m.slot()+`'`); got != "f" {
			t.Fatal("a paused pipeline still reads its slot")
		}
		m.mustCLI("pipelines", "resume", m.name)
		m.caughtUp()
		requireEqual(t, m.src, m.dst)
		requireConsistent(t, m)
		var view struct{ Name string }
		if err := json.Unmarshal([]byte(m.mustCLI("pipelines", "get", m.name, "-o", "json")), &view); err != nil || view.Name != m.name {
			t.Fatalf("pipelines get: %v %+v", err, view)
		}
		m.mustCLI("pipelines", "delete", m.name, "--yes", "--wait")
		for _, left := range []struct {
			in  db
			sql string
		}{
			{m.src, `SELECT count(*) FROM pg_replication_slots WHERE database = current_database()`},
			{m.src, `SELECT count(*) FROM pg_publication`},
			{m.dst, `SELECT count(*) FROM "_weir"."ledger"`},
			{m.dst, `SELECT count(*) FROM "_weir"."state"`},
		} {
			if got := left.in.one(t, left.sql); got != "0" {
				t.Errorf("%s = %s after a delete", left.sql, got)
			}
		}
		if got := m.dst.one(t, `SELECT count(*) FROM a`); got != "1001" {
			t.Errorf("the copy has %s rows after a delete, want all of them", got)
		}
	})

	t.Run("refresh repairs a table while others stream", func(t *testing.T) {
		m := live(t)
		d := startCounter(t, m.src, `UPDATE b SET v = v || 'x' WHERE id = 1; UPDATE a SET v = 'n' WHERE id = 2`)
		m.dst.exec(t, `DELETE FROM a WHERE id % 3 = 0`, `UPDATE a SET v = 'damaged' WHERE id % 5 = 0`, `INSERT INTO a VALUES (-7, 'not of the source')`)
		m.mustCLI("sources", "refresh", "public.a", "--yes")
		eventually(t, waitLimit, "the refreshed table is repaired", func() (bool, string) {
			got := m.dst.one(t, `SELECT count(*) || ' ' || count(*) FILTER (WHERE v = 'damaged') FROM a`)
			return got == "1000 0", got
		})
		d.stop(t)
		m.caughtUp()
		requireEqual(t, m.src, m.dst)
	})

	t.Run("refresh repairs a table that a pipeline failed at", func(t *testing.T) {
		m := live(t)
		m.stop()
		m.server()
		m.caughtUp()
		m.dst.exec(t, `INSERT INTO a VALUES (5000, 'not of the source')`, `DELETE FROM a WHERE id = 3`)
		m.src.exec(t, `INSERT INTO a VALUES (5000, 'in the way')`, `UPDATE a SET id = 7000 WHERE id = 4`, `INSERT INTO b VALUES (5000, 'behind it')`)
		m.failsWith("W4003")
		if _, errOut, code := m.cli("sources", "refresh", "public.nowhere", "--yes"); code == 0 || !strings.Contains(errOut, "W1016") {
			t.Fatalf("an unknown table: exit code %d\n%s", code, errOut)
		}
		m.mustCLI("sources", "refresh", "public.a", "--yes")
		m.mustCLI("pipelines", "resume", m.name)
		m.caughtUp()
		eventually(t, waitLimit, "the refreshed table is repaired", func() (bool, string) {
			got := m.dst.one(t, `SELECT count(*) || ' ' || count(*) FILTER (WHERE v = 'in the way') FROM a`)
			return got == "1001 1", got
		})
		m.src.exec(t, `DELETE FROM a WHERE id < 10`)
		m.caughtUp()
		requireEqual(t, m.src, m.dst)
	})

	t.Run("refresh gets past a change that the target refused", func(t *testing.T) {
		for name, c := range map[string]struct{ before, sql, mend []string }{
			"a view": {[]string{`CREATE VIEW vw AS SELECT v FROM a`}, []string{`ALTER TABLE a ADD q int`, `ALTER TABLE a ALTER v TYPE varchar(9)`, `INSERT INTO a VALUES (5000, '2', 3)`}, []string{`DROP VIEW vw`}},
			"a row":  {[]string{`INSERT INTO a VALUES (99999, 'no number')`}, []string{`UPDATE a SET v = '1'`, `ALTER TABLE a ALTER v TYPE int USING v::int`, `ALTER TABLE a ADD q int`, `INSERT INTO a VALUES (5000, 2, 3)`}, nil},
			"a name": {[]string{`ALTER TABLE a ADD w text`}, []string{`ALTER TABLE a RENAME v TO w`, `ALTER TABLE a ADD q int`, `UPDATE a SET q = 4`}, []string{`ALTER TABLE a DROP w`}},
		} {
			t.Run(name, func(t *testing.T) {
				for _, lanes := range []string{"1", "2"} {
					m := live(t, "--set", "sink.lanes="+lanes)
					m.stop()
					m.server()
					m.caughtUp()
					m.mustCLI("pipelines", "pause", m.name)
					m.dst.exec(t, c.before...)
					m.src.exec(t, c.sql...)
					m.src.exec(t, `INSERT INTO b VALUES (5000, 'behind it')`)
					m.mustCLI("pipelines", "resume", m.name)
					m.failsWith("W4003")
					m.mustCLI("sources", "refresh", "public.a", "--yes")
					m.dst.exec(t, c.mend...)
					m.mustCLI("pipelines", "resume", m.name)
					m.caughtUp()
					requireEqual(t, m.src, m.dst)
					m.src.exec(t, `DELETE FROM a WHERE id < 10`)
					m.caughtUp()
					requireEqual(t, m.src, m.dst)
					m.stop()
				}
			})
		}
	})

	t.Run("columns that are something else before they are read", func(t *testing.T) {
		m := live(t)
		m.src.exec(t, `BEGIN; ALTER TABLE a ADD COLUMN x int DEFAULT 1; UPDATE a SET x = id WHERE id % 2 = 0; ALTER TABLE a RENAME COLUMN x TO y; INSERT INTO a VALUES (5000, 'n', 5); COMMIT`,
			`CREATE TABLE c(id int PRIMARY KEY, v text); INSERT INTO c SELECT i, 'c' FROM generate_series(1, 100) i`)
		m.caughtUp()
		requireEqual(t, m.src, m.dst)
		m.stop()
		m.src.exec(t, `ALTER TABLE b ADD COLUMN x int DEFAULT 1; UPDATE b SET x = 2 WHERE id = 1`, `ALTER TABLE b RENAME x TO y; UPDATE b SET y = 3 WHERE id = 2`,
			// The default that the catalog shows came behind the column.
			`ALTER TABLE c ADD COLUMN late int`, `ALTER TABLE c ALTER late SET DEFAULT 5; INSERT INTO c(id) VALUES (1000)`)
		m.start()
		m.caughtUp()
		requireEqual(t, m.src, m.dst)
	})

	t.Run("a table added later is copied", func(t *testing.T) {
		m := live(t)
		d := startCounter(t, m.src, `UPDATE b SET v = v || 'x' WHERE id = 1`)
		m.src.exec(t, `CREATE TABLE late(id int PRIMARY KEY, v text)`, `INSERT INTO late SELECT i, 'x' FROM generate_series(1, 50000) i`)
		m.src.exec(t, `UPDATE late SET v = 'y' WHERE id % 100 = 0`, `DELETE FROM late WHERE id % 1000 = 1`)
		d.stop(t)
		m.caughtUp()
		requireEqual(t, m.src, m.dst)
	})

	t.Run("a new table without a key does not join before it has one", func(t *testing.T) {
		m := live(t)
		m.src.exec(t, `CREATE TABLE nk(a int, b text)`, `INSERT INTO nk SELECT i, 'x' FROM generate_series(1, 100) i`)
		eventually(t, waitLimit, "weir says so", func() (bool, string) {
			return strings.Contains(m.log(), "no primary key"), m.logTail(5)
		})
		m.src.exec(t, `UPDATE nk SET b = 'y'`, `ALTER TABLE nk REPLICA IDENTITY FULL`, `DELETE FROM nk WHERE a = 3`)
		m.caughtUp()
		requireEqual(t, m.src, m.dst)
	})

	t.Run("a cut-over", func(t *testing.T) {
		src, dst := pair(t, 15, 15)
		src.exec(t, `CREATE TABLE a(id serial PRIMARY KEY, v text)`, `CREATE SEQUENCE own START 100`, `INSERT INTO a(v) SELECT 'v' FROM generate_series(1, 500)`, `SELECT nextval('own')`)
		m := newMirror(t, src, dst, "public.*")
		m.start()
		m.caughtUp()
		m.stop()
		m.server()
		m.caughtUp()
		d := startCounter(t, src, `INSERT INTO a(v) VALUES ('w')`)
		if out, errOut, code := m.cli("mirror", "cutover", m.name, "--yes"); code != 10 || !strings.Contains(errOut, "is connected and may write") {
			t.Errorf("while somebody writes: exit code %d\n%s%s", code, out, errOut)
		} else if strings.Contains(errOut, "✓ writes") {
			t.Errorf("what it stops at is shown as done:\n%s", errOut)
		}
		d.stop(t)
		m.caughtUp()
		src.exec(t, `ALTER DATABASE "`+src.name+`" SET default_transaction_read_only = on`) // as docs/mirror.md advises
		eventually(t, waitLimit, "the cut-over is done", func() (bool, string) {
			out, errOut, code := m.cli("mirror", "cutover", m.name, "--yes") // the writer's session may still be ending
			return code == 0, out + errOut
		})
		requireEqual(t, src, dst)
		src.srv.Exec(t, "postgres", `ALTER DATABASE "`+src.name+`" RESET default_transaction_read_only`)
		for _, sql := range []string{`SELECT nextval('a_id_seq')`, `SELECT nextval('own')`} {
			if want, got := src.one(t, sql), dst.one(t, sql); got != want {
				t.Errorf("%s: %s, at the source %s", sql, got, want)
			}
		}
		if got := src.one(t, `SELECT count(*) FROM pg_replication_slots WHERE database = current_database()`); got != "0" {
			t.Errorf("%s slots are left", got)
		}
	})

	t.Run("until caught up", func(t *testing.T) {
		src, dst := pair(t, 15, 15)
		src.exec(t, twoTables, `CREATE TABLE parent(id int PRIMARY KEY, code text UNIQUE)`, `CREATE TABLE child(id int PRIMARY KEY, p int REFERENCES parent)`, `CREATE INDEX ON child(p)`,
			`INSERT INTO parent SELECT i, 'c' || i FROM generate_series(1, 30000) i`, `INSERT INTO child SELECT i, i FROM generate_series(1, 30000) i`)
		m := newMirror(t, src, dst, "public.*")
		const built = `SELECT string_agg(c, ' ' ORDER BY c) FROM (SELECT conname AS c FROM pg_constraint WHERE connamespace = 'public'::regnamespace
			UNION SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid::regclass::text IN ('a', 'b', 'parent', 'child')) x`
		for i := range 4 {
			// What is there when the command begins is there when it ends: tables too, with all that belongs to them.
			src.exec(t, fmt.Sprintf(`CREATE TABLE late_%[1]d(id int PRIMARY KEY, v text); INSERT INTO late_%[1]d SELECT i, 'v' FROM generate_series(1, 5000) i`, i))
			if i == 1 {
				m.start()
				eventually(t, waitLimit, "it copies", func() (bool, string) {
					v, err := m.view()
					return err == nil && v.Status.Phase != api.PhasePrepare, fmt.Sprint(err)
				})
				m.kill()
			}
			m.args = append(m.args[:len(m.args):len(m.args)], "--until-caught-up")
			m.start()
			if err := m.wait(waitLimit); err != nil {
				t.Fatalf("%v\n%s", err, m.logTail(20))
			}
			m.args = m.args[:len(m.args)-1]
			requireEqual(t, src, dst)
			if want, got := src.one(t, built), dst.one(t, built); want != got {
				t.Fatalf("round %d: the target has %s, want %s", i, got, want)
			}
		}
	})

	t.Run("a login that is refused ends a new mirror", func(t *testing.T) {
		src, dst := pair(t, 15, 15)
		m := newMirror(t, src, dst, "public.*")
		m.src.url = strings.Replace(src.url, "/"+src.name, "/nowhere", 1)
		m.start()
		if err := m.wait(20 * time.Second); err == nil || !strings.Contains(m.log(), "nowhere") || m.cmd.ProcessState.ExitCode() != 3 {
			t.Errorf("%v\n%s", err, m.logTail(10))
		}
	})

	t.Run("the same mirror from another state directory is refused", func(t *testing.T) {
		m := live(t)
		m.src.exec(t, `CREATE TABLE f(a int)`, `ALTER TABLE f REPLICA IDENTITY FULL`, `INSERT INTO f VALUES (1)`)
		m.caughtUp()
		second := newMirror(t, m.src, m.dst, "public.*")
		second.start()
		if err := second.wait(waitLimit); err == nil || !strings.Contains(second.log(), "W1002") || !strings.Contains(second.log(), "already holds rows") {
			t.Errorf("a second one: %v\n%s", err, second.logTail(10))
		}
		m.src.exec(t, `INSERT INTO f VALUES (2)`)
		m.caughtUp()
		requireEqual(t, m.src, m.dst)
	})

	t.Run("a table without columns breaks nothing", func(t *testing.T) {
		src, dst := pair(t, 15, 15)
		src.exec(t, twoTables, `CREATE TABLE bare()`, `ALTER TABLE bare REPLICA IDENTITY FULL`, `INSERT INTO bare DEFAULT VALUES`)
		m := newMirror(t, src, dst, "public.*")
		m.start()
		m.caughtUp()
		// Also one that loses its last column: it leaves, and joins again with its next one.
		m.src.exec(t, `CREATE TABLE lost(v text)`, `ALTER TABLE lost REPLICA IDENTITY FULL`, `INSERT INTO lost VALUES ('x')`)
		rows := func(want string) {
			eventually(t, waitLimit, "the rows of lost are "+want, func() (bool, string) {
				if m.dst.one(t, `SELECT to_regclass('lost') IS NULL`) == "t" {
					return false, "no table"
				}
				got := m.dst.one(t, `SELECT count(*) || ' ' || count(v) FROM lost`)
				return got == want, got
			})
		}
		rows("1 1")
		m.src.exec(t, `ALTER TABLE lost DROP COLUMN v`, `INSERT INTO lost DEFAULT VALUES`, `INSERT INTO bare DEFAULT VALUES`, `INSERT INTO a VALUES (5000, 'behind them')`)
		eventually(t, waitLimit, "the table leaves", func() (bool, string) {
			got := m.src.one(t, `SELECT count(*) FROM pg_publication_tables WHERE tablename = 'lost'`)
			return got == "0", got
		})
		m.src.exec(t, `ALTER TABLE lost ADD COLUMN v text DEFAULT 'y'`, `INSERT INTO b VALUES (5000, 'behind them')`)
		rows("2 2")
		m.caughtUp()
		for _, table := range []string{"a", "b", "lost"} {
			requireTableEqual(t, src, dst, table, table)
		}
	})

	t.Run("a target table dropped by hand is named", func(t *testing.T) {
		m := live(t)
		m.stop()
		m.server()
		m.caughtUp()
		m.dst.exec(t, `DROP TABLE a`)
		m.src.exec(t, `INSERT INTO a VALUES (5000, 'nowhere to go')`)
		var info *api.ErrorInfo
		eventually(t, waitLimit, "the pipeline fails", func() (bool, string) {
			v, err := m.view()
			if err != nil {
				return false, err.Error()
			}
			info = v.Status.Error
			return v.Status.Phase == api.PhaseFailed, describe(v.Status)
		})
		if info == nil || !strings.HasPrefix(info.Code, "W4") || !strings.Contains(info.Message, `a`) {
			t.Fatalf("error %+v, want one of the target that names the table", info)
		}
	})

	t.Run("a dropped slot is named", func(t *testing.T) {
		m := live(t)
		m.stop()
		m.src.exec(t, `SELECT pg_drop_replication_slot('`+m.slot()+`')`, `INSERT INTO a VALUES (5000, 'lost')`)
		m.server()
		m.failsWith("W1003")
		if got := m.dst.one(t, `SELECT count(*) FROM a`); got != "1000" {
			t.Fatal("the target changed although changes are missing")
		}
	})

	t.Run("a slot moved by somebody else is named", func(t *testing.T) {
		m := live(t)
		m.stop()
		slot := m.slot()
		m.src.exec(t, `INSERT INTO a VALUES (5000, 'stolen')`)
		m.src.exec(t, `SELECT pg_replication_slot_advance('`+slot+`', pg_current_wal_lsn())`)
		m.server()
		m.failsWith("W1004")
	})

	t.Run("the exit code and the message of a failure", func(t *testing.T) {
		m := live(t)
		m.stop()
		m.src.exec(t, `SELECT pg_drop_replication_slot('`+m.slot()+`')`)
		m.start()
		if err := m.wait(waitLimit); err == nil {
			t.Fatal("weir mirror ended well although its slot is gone")
		}
		if !strings.Contains(m.log(), "error[W1003]") {
			t.Fatalf("no W1003 in\n%s", m.logTail(10))
		}
		last := m.log()[strings.LastIndex(m.log(), "=== start"):]
		if n := strings.Count(last, "does not exist any more"); n != 1 || !strings.Contains(last, "weir pipelines delete NAME --wait") {
			t.Errorf("the error is told %d times, or not how to copy anew, in\n%s", n, last)
		}
	})

	t.Run("a delete that may not log in says so", func(t *testing.T) {
		server := source(t, 15)
		src, dst := newDB(t, server, "src"), newDB(t, server, "dst")
		src.exec(t, twoTables)
		role := src.name + "_leaves"
		src.exec(t, `CREATE ROLE `+pg.Ident(role)+` LOGIN SUPERUSER`)
		t.Cleanup(func() { src.exec(t, `DROP ROLE `+pg.Ident(role)) })
		as := src
		as.url = server.URLFor(role, server.Addr(), src.name)
		m := served(t, as, dst)
		src.exec(t, `ALTER ROLE `+pg.Ident(role)+` NOLOGIN`)
		_, errOut, code := m.cli("pipelines", "delete", m.name, "--yes", "--wait")
		if code != 3 || !strings.Contains(errOut, "error[W1001]") || !strings.Contains(errOut, "not permitted to log in") || !strings.Contains(errOut, "weir pipelines delete "+m.name+" --force") {
			t.Errorf("exit code %d\n%s", code, errOut)
		}
		if got := m.mustCLI("pipelines", "get", m.name); !strings.Contains(got, "not permitted to log in") || !strings.Contains(got, "--force") || strings.Contains(got, "…") {
			t.Errorf("pipelines get cuts the error:\n%s", got)
		}
		src.exec(t, `ALTER ROLE `+pg.Ident(role)+` LOGIN`)
		m.mustCLI("pipelines", "delete", m.name, "--yes", "--wait")
	})
}

// TestMistypedPassword: a wrong password in a command for a mirror that runs in a server is refused, and the mirror still
// gets in when it connects again. One that was changed is taken.
func TestMistypedPassword(t *testing.T) {
	server := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSuperuserPassword("right"))
	src, dst := newDB(t, server, "src"), newDB(t, server, "dst")
	src.exec(t, twoTables)
	m := newMirror(t, src, dst, "public.*")
	m.run("server", "--state", m.state, "--http-addr", "127.0.0.1:0")
	eventually(t, waitLimit, "the server answers", func() (bool, string) {
		_, err := m.rest("GET", "/api/v1/version")
		return err == nil, fmt.Sprint(err)
	})
	mirror := func(source, target string) (string, int) {
		t.Helper()
		_, errOut, code := m.cli(append([]string{"mirror", source, target, "--name", m.name, "--until-caught-up"}, m.args...)...)
		return errOut, code
	}
	if errOut, code := mirror(src.url, dst.url); code != 0 {
		t.Fatalf("the first command: exit code %d\n%s", code, errOut)
	}
	for code, urls := range map[string][2]string{
		"W1001": {pg.WithPassword(src.url, "mistyped"), dst.url},
		"W4001": {src.url, pg.WithPassword(dst.url, "mistyped")},
	} {
		errOut, exit := mirror(urls[0], urls[1])
		if exit != 3 || !strings.Contains(errOut, "error["+code+"]") || !strings.Contains(errOut, "password authentication failed") || strings.Contains(errOut, "mistyped") {
			t.Errorf("a wrong password: exit code %d, want 3 by %s\n%s", exit, code, errOut)
		}
	}
	if err := server.Restart(testenv.Fast); err != nil {
		t.Fatal(err)
	}
	m.caughtUp()
	m.mustCLI("pipelines", "pause", m.name, "--wait")
	server.Exec(t, "postgres", "ALTER ROLE postgres PASSWORD 'changed'")
	if errOut, code := mirror(pg.WithPassword(src.url, "changed"), pg.WithPassword(dst.url, "changed")); code != 0 {
		t.Errorf("a changed password: exit code %d\n%s", code, errOut)
	}
}

// TestPasswordStaysSecret gives weir a password that nobody could write by chance, lets it run, fail and answer, and
// then looks for it everywhere.
func TestPasswordStaysSecret(t *testing.T) {
	const canary = "Zx9-canary-Qw7"
	server := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSuperuserPassword(canary))
	src, dst := newDB(t, server, "src"), newDB(t, server, "dst")
	src.exec(t, twoTables)
	if !strings.Contains(src.url, canary) {
		t.Fatalf("the URL has no password: %s", src.url)
	}
	m := newMirror(t, src, dst, "public.*")
	m.start()
	m.caughtUp()
	var seen []string
	look := func(where, text string) {
		if strings.Contains(text, canary) {
			seen = append(seen, where)
		}
	}
	for _, path := range []string{"/api/v1/pipelines", "/api/v1/pipelines/" + m.name, "/api/v1/sources", "/api/v1/status", "/metrics", "/api/v1/version"} {
		b, err := m.rest("GET", path)
		if err != nil {
			t.Errorf("GET %s: %v", path, err)
		}
		look("REST "+path, string(b))
	}
	look("pg_stat_activity", fmt.Sprint(src.query(t, `SELECT application_name, query FROM pg_stat_activity WHERE pid <> pg_backend_pid()`)))
	apps := fmt.Sprint(src.query(t, `SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname LIKE 'src%' OR datname LIKE 'dst%'`))
	for _, want := range []string{"weir source", "weir target"} {
		if !strings.Contains(apps, want) {
			t.Errorf("no %q among the application names %s", want, apps)
		}
	}
	look("the ledger", fmt.Sprint(dst.query(t, `SELECT encode(value, 'escape') FROM "_weir"."state"`)))
	// Make it fail where errors print connections.
	if err := server.Stop(testenv.Fast); err != nil {
		t.Fatal(err)
	}
	eventually(t, waitLimit, "the pipeline notices that its servers are gone", func() (bool, string) {
		v, err := m.view()
		if err != nil {
			return false, err.Error()
		}
		b, _ := json.Marshal(v)
		look("the status of a failure", string(b))
		return v.Status.Phase == api.PhaseRetrying && v.Status.Error != nil, describe(v.Status)
	})
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	m.caughtUp()
	m.stop()
	look("the log", m.log())
	out, errOut, _ := m.cli("secrets", "list")
	look("secrets list", out+errOut)
	found := false
	err := filepath.WalkDir(m.state, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !strings.Contains(string(b), canary) {
			return nil
		}
		rel, _ := filepath.Rel(m.state, path)
		if !strings.HasPrefix(rel, "secrets") {
			seen = append(seen, rel)
			return nil
		}
		found = true
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has the mode %v", rel, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) > 0 {
		t.Errorf("the password is in: %s", strings.Join(seen, ", "))
	}
	if !found {
		t.Error("the password is not among the secrets either: the search finds nothing")
	}
}

// startCounter runs one statement again and again.
func startCounter(t *testing.T, d db, sql string) *driver {
	t.Helper()
	return startProgram(t, d, func(int) string { return sql }, time.Millisecond)
}
