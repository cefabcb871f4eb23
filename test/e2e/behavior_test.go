package e2e

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirstream/weir/internal/pg"
	testenv "github.com/weirstream/weir/test/env"
)

// TestException: with schema.change.behavior=exception every change of a table stops the mirror, and it goes on when the
// user has made the change at the target.
func TestException(t *testing.T) {
	for name, c := range map[string]struct {
		sql    []string // at the source
		byHand []string // at the target; none: the tables are copied anew
	}{
		"a column is added":   {[]string{`ALTER TABLE a ADD COLUMN w int`, `UPDATE a SET w = 1 WHERE id = 1`}, []string{`ALTER TABLE a ADD COLUMN w int`}},
		"a column is renamed": {[]string{`ALTER TABLE a RENAME COLUMN v TO w`, `UPDATE a SET w = 'n' WHERE id = 1`}, []string{`ALTER TABLE a RENAME COLUMN v TO w`}},
		"a table is renamed":  {[]string{`ALTER TABLE a RENAME TO c`, `UPDATE c SET v = 'n' WHERE id = 1`}, []string{`ALTER TABLE a RENAME TO c`}},
		"two tables swap":     {[]string{`BEGIN; ALTER TABLE a RENAME TO c; ALTER TABLE b RENAME TO a; ALTER TABLE c RENAME TO b; COMMIT`, `UPDATE a SET v = 'n' WHERE id = 1`, `UPDATE b SET v = 'm' WHERE id = 2`}, nil},
		"a table moves":       {[]string{`ALTER TABLE a SET SCHEMA other`, `UPDATE other.a SET v = 'n' WHERE id = 1`}, []string{`CREATE SCHEMA other`, `ALTER TABLE a SET SCHEMA other`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, dst := pair(t, 15, 15)
			src.exec(t, twoTables, `CREATE SCHEMA other`, `CREATE TABLE gone(id int PRIMARY KEY)`)
			m := newMirror(t, src, dst, "*.*", "--set", "schema.change.behavior=exception")
			m.start()
			m.caughtUp()
			src.exec(t, c.sql...)
			if err := m.wait(waitLimit); err == nil {
				t.Fatal("the mirror did not stop")
			}
			m.server()
			m.failsWith("W1011")
			dst.exec(t, c.byHand...)
			src.exec(t, `DROP TABLE gone`, `CREATE TABLE fresh(id int PRIMARY KEY)`, `INSERT INTO fresh VALUES (1)`)
			if c.byHand == nil {
				m.mustCLI("sources", "refresh", "public.*", "--yes")
			}
			m.mustCLI("pipelines", "resume", m.name)
			m.caughtUp()
			dst.exec(t, `DROP TABLE gone`) // it stays where the source's was dropped, and a new one joins
			requireEqual(t, src, dst)
		})
	}
}

// TestTablesMove: a table gets another schema, with or without another name.
func TestTablesMove(t *testing.T) {
	for name, sql := range map[string]string{
		"to a schema that the target has":   `ALTER TABLE a SET SCHEMA "o ther"; UPDATE "o ther".a SET v = 'n' WHERE id = 1`,
		"to a new one":                      `CREATE SCHEMA fresh; ALTER TABLE a SET SCHEMA fresh; UPDATE fresh.a SET v = 'n' WHERE id = 1`,
		"and gets another name":             `ALTER TABLE a SET SCHEMA "o ther"; ALTER TABLE "o ther".a RENAME TO c; UPDATE "o ther".c SET v = 'n' WHERE id = 1`,
		"into the place of one that leaves": `ALTER TABLE "o ther".d SET SCHEMA public; ALTER TABLE a SET SCHEMA "o ther"; ALTER TABLE "o ther".a RENAME TO d; UPDATE "o ther".d SET v = 'n' WHERE id = 1; UPDATE d SET v = 'm' WHERE id = 1`,
	} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, killed %v", name, killed), func(t *testing.T) {
				t.Parallel()
				src, dst := pair(t, 15, 15)
				src.exec(t, twoTables, `CREATE SCHEMA "o ther"; CREATE TABLE "o ther".d(id int PRIMARY KEY, v text); INSERT INTO "o ther".d VALUES (1, 'd')`)
				m := newMirror(t, src, dst, "*.*")
				m.start()
				m.caughtUp()
				if killed {
					m.kill()
				}
				src.exec(t, sql)
				if killed {
					m.start()
				}
				m.caughtUp()
				requireEqual(t, src, dst)
			})
		}
	}
}

// TestNotYet: what is asked of a mirror while it starts is refused, not lost and not the end of the server.
func TestNotYet(t *testing.T) {
	m := live(t)
	m.stop()
	m.server()
	m.caughtUp()
	for range 5 {
		m.mustCLI("pipelines", "pause", m.name, "--wait")
		m.mustCLI("pipelines", "resume", m.name)
		out, errOut, code := m.cli("sources", "refresh", "public.a", "--yes")
		if code != 0 && !strings.Contains(errOut, "W3004") {
			t.Fatalf("refresh of a mirror that starts: exit code %d\n%s%s", code, out, errOut)
		}
	}
	m.caughtUp()
	requireEqual(t, m.src, m.dst)
}

// TestDropsReferenced: a table goes to which a foreign key points, with the table of that key or without it.
func TestDropsReferenced(t *testing.T) {
	for name, sql := range map[string]string{"alone": `DROP TABLE parent CASCADE`, "with its child": `DROP TABLE parent, child`,
		"and the parent is emptied": `DROP TABLE child; TRUNCATE parent`, "or its key only": `ALTER TABLE child DROP CONSTRAINT child_parent_fkey; TRUNCATE parent`} {
		t.Run(name, func(t *testing.T) {
			src, dst := pair(t, 15, 15)
			src.exec(t, `CREATE TABLE parent(id int PRIMARY KEY)`, `CREATE TABLE child(id int PRIMARY KEY, parent int REFERENCES parent)`, `CREATE TABLE stays(id int PRIMARY KEY)`,
				`INSERT INTO parent VALUES (1), (2)`, `INSERT INTO child VALUES (1, 1)`)
			m := newMirror(t, src, dst, "public.*")
			m.start()
			m.caughtUp()
			src.exec(t, sql, `INSERT INTO stays VALUES (1)`)
			m.caughtUp()
			requireEqual(t, src, dst)
		})
	}
}

// TestFirstMistake: a first command that cannot work leaves nothing, so that the corrected one does.
func TestFirstMistake(t *testing.T) {
	t.Parallel()
	src, dst := pair(t, 15, 15)
	src.exec(t, twoTables)
	m := newMirror(t, src, dst, "public.*")
	wrongUser, err := url.Parse(src.url)
	if err != nil {
		t.Fatal(err)
	}
	wrongUser.User = url.UserPassword("nobody_here", "secret")
	for name, args := range map[string][]string{
		"no such table":  {src.url, dst.url, "--tables", "public.nope"},
		"a wrong user":   {wrongUser.String(), dst.url},
		"a wrong target": {src.url, "postgres://127.0.0.1:1/x"},
		"a bad option":   {src.url, dst.url, "--set", "slot.name=Not-A-Slot"},
		"no database":    {"mysql://a:secret@127.0.0.1/x", dst.url},
	} {
		m.run(append([]string{"mirror", "--name", m.name, "--state", m.state, "--http-addr", "127.0.0.1:0"}, args...)...)
		if err := m.wait(waitLimit); err == nil {
			t.Fatalf("%s: no error\n%s", name, m.logTail(5))
		}
	}
	if left, err := filepath.Glob(filepath.Join(m.state, "secrets", "*")); err != nil || len(left) > 0 {
		t.Errorf("secrets of refused commands: %v %v", left, err)
	}
	m.start()
	m.caughtUp()
	requireEqual(t, src, dst)
}

// TestForeignKeysAct: a role that may not be a replica has the target's foreign keys checked. Rows whose checks wait for the
// end of the epoch must not keep it from altering or emptying tables.
func TestForeignKeysAct(t *testing.T) {
	src := newDB(t, source(t, 15), "src")
	server := testenv.Postgres(t, 15, testenv.FsyncOff())
	dst := newDB(t, server, "dst")
	dst.exec(t, `CREATE ROLE plain LOGIN`, `GRANT CREATE ON DATABASE `+pg.Ident(dst.name)+` TO plain`, `GRANT CREATE ON SCHEMA public TO plain`)
	src.exec(t, `CREATE TABLE p(id int PRIMARY KEY, v text)`, `CREATE TABLE d(id int PRIMARY KEY, p int REFERENCES p ON DELETE CASCADE)`,
		`CREATE TABLE e(id int PRIMARY KEY, d int REFERENCES d ON UPDATE CASCADE)`,
		`INSERT INTO p SELECT i, 'v' FROM generate_series(1, 100) i`, `INSERT INTO d SELECT i, i FROM generate_series(1, 100) i`, `INSERT INTO e SELECT i, i FROM generate_series(1, 50) i`)
	plain := dst
	plain.url = server.URLFor("plain", server.Addr(), dst.name)
	m := newMirror(t, src, plain, "public.*", "--set", "on.missing.row=error")
	m.start()
	m.caughtUp()
	built := func() (bool, string) {
		got := dst.one(t, `SELECT count(*) FROM pg_constraint WHERE contype = 'f'`)
		return got == "2", got
	}
	eventually(t, waitLimit, "the foreign keys are there", built)
	m.kill()
	src.exec(t, `INSERT INTO d VALUES (1000, 1)`, `ALTER TABLE d ADD q int`, `INSERT INTO d VALUES (1001, 2, 3)`,
		`BEGIN; INSERT INTO e VALUES (1000, 1000); TRUNCATE e; INSERT INTO e VALUES (2000, 1001); COMMIT`,
		`INSERT INTO p VALUES (1000, 'w')`, `INSERT INTO d VALUES (1002, 1000)`, `ALTER TABLE p RENAME TO pp`, `INSERT INTO pp VALUES (1001, 'x')`,
		`UPDATE d SET id = 5000 WHERE id = 1001`, `ALTER TABLE e ALTER id TYPE bigint`, `INSERT INTO e VALUES (3000, 5000)`,
		`BEGIN; INSERT INTO d VALUES (6000, 7); ALTER TABLE d RENAME TO x; ALTER TABLE e RENAME TO d; ALTER TABLE x RENAME TO e; INSERT INTO e VALUES (6001, 8); INSERT INTO d VALUES (6000, 6001); COMMIT`,
		`DELETE FROM pp WHERE id BETWEEN 60 AND 70`)
	m.start()
	m.caughtUp()
	requireEqual(t, src, dst)
	m.mustCLI("sources", "refresh", "public.pp", "--yes")
	m.caughtUp()
	requireEqual(t, src, dst)
	src.exec(t, `INSERT INTO pp VALUES (7000, 'z')`, `INSERT INTO e VALUES (7001, 7000)`, `TRUNCATE pp CASCADE`)
	m.caughtUp()
	requireEqual(t, src, dst)
	requireConsistent(t, m)
}

// TestExceptionWithinTransaction: rows from before a change that come with it in one transaction do not fit the target that
// has the change already. The error says so, and what it names helps.
func TestExceptionWithinTransaction(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, twoTables)
	m := newMirror(t, src, dst, "public.*", "--set", "schema.change.behavior=exception")
	m.start()
	m.caughtUp()
	src.exec(t, `BEGIN; INSERT INTO a VALUES (7001, 'before'); ALTER TABLE a RENAME v TO w; INSERT INTO a VALUES (7002, 'behind'); UPDATE b SET v = 'too' WHERE id = 1; COMMIT`)
	if err := m.wait(waitLimit); err == nil {
		t.Fatal("the mirror did not stop")
	}
	m.server()
	const refresh = `weir sources refresh '"public"."a"'`
	if e := m.failsWith("W1011"); !strings.Contains(e.Hint, refresh) {
		t.Errorf("the hint does not name %s: %+v", refresh, e)
	}
	dst.exec(t, `ALTER TABLE a RENAME v TO w`)
	m.mustCLI("pipelines", "resume", m.name)
	if e := m.failsWith("W4008"); !strings.Contains(e.Hint, refresh) {
		t.Errorf("the hint does not name %s: %+v", refresh, e)
	}
	m.mustCLI("sources", "refresh", `"public"."a"`, "--yes")
	m.mustCLI("pipelines", "resume", m.name)
	m.caughtUp()
	requireEqual(t, src, dst)
	src.exec(t, `INSERT INTO a VALUES (7003, 'later')`)
	m.caughtUp()
	requireEqual(t, src, dst)
	requireConsistent(t, m)
}

// TestExceptionKeepsWhatCommitted: rows that committed before a change are not thrown away with the stop, also when they are
// read together with it: the target has them when the user makes the change there.
func TestExceptionKeepsWhatCommitted(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, twoTables)
	m := newMirror(t, src, dst, "public.*", "--set", "schema.change.behavior=exception")
	m.start()
	m.caughtUp()
	m.kill()
	src.exec(t, `INSERT INTO a VALUES (7001, 'before')`, `UPDATE b SET v = 'before' WHERE id < 10`, `ALTER TABLE a RENAME v TO w`, `INSERT INTO a VALUES (7002, 'behind')`)
	m.server()
	m.failsWith("W1011")
	if got := dst.one(t, `SELECT (SELECT v FROM a WHERE id = 7001) || (SELECT count(*) FROM b WHERE v = 'before')`); got != "before9" {
		t.Errorf("the target has %q of what committed before the change", got)
	}
	dst.exec(t, `ALTER TABLE a RENAME v TO w`)
	m.mustCLI("pipelines", "resume", m.name)
	m.caughtUp()
	requireEqual(t, src, dst)
	requireConsistent(t, m)
}

// TestTableComesAgain: where a dropped table stays at the target, another one of its name takes its place. A lenient target
// gets the columns that it lacks; for one whose shape stays the log says what is not written.
func TestTableComesAgain(t *testing.T) {
	for name, args := range map[string][]string{"lenient": {"schema.change.behavior=lenient"}, "lenient, lanes": {"schema.change.behavior=lenient", "sink.lanes=2"},
		"ignore": {"schema.change.behavior=ignore"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, dst := pair(t, 15, 15)
			src.exec(t, twoTables, `CREATE TABLE again(id int PRIMARY KEY, kept text, old text NOT NULL, n int GENERATED ALWAYS AS IDENTITY)`, `INSERT INTO again VALUES (1, 'k', 'o'), (2, 'k', 'o')`)
			m := newMirror(t, src, dst, "public.*")
			for _, a := range args {
				m.args = append(m.args, "--set", a)
			}
			m.start()
			m.caughtUp()
			if name == "ignore" {
				dst.exec(t, `ALTER TABLE again ALTER old DROP NOT NULL`)
			}
			src.exec(t, `CREATE TYPE mood AS ENUM ('glad', 'sad')`, `BEGIN; DROP TABLE again; CREATE TABLE again(id int PRIMARY KEY, kept text, fresh mood NOT NULL, twice int GENERATED ALWAYS AS (id * 2) STORED, no serial); COMMIT`,
				`INSERT INTO again(id, kept, fresh) SELECT i, 'l', 'sad' FROM generate_series(2, 100) i`)
			m.caughtUp()
			src.exec(t, `INSERT INTO again(id, kept, fresh) VALUES (1000, 'm', 'glad')`, `UPDATE again SET fresh = 'glad' WHERE id < 10`)
			m.kill()
			src.exec(t, `DELETE FROM again WHERE id = 20`, `ALTER TABLE again ADD COLUMN late int`, `INSERT INTO again(id, kept, fresh, late) VALUES (1001, 'n', 'sad', 5)`)
			m.start()
			m.caughtUp()
			columns := "id, kept, fresh, twice, no, late"
			if name == "ignore" {
				columns = "id, kept"
				if says := m.log(); !strings.Contains(says, "are not written") || !strings.Contains(says, "[fresh no]") {
					t.Error("the log does not tell what is not written")
				}
			}
			rows := `SELECT string_agg(s::text, '; ' ORDER BY id) FROM (SELECT ` + columns + ` FROM again) s`
			if want, got := src.one(t, rows), dst.one(t, rows); got != want {
				t.Errorf("the target has %s\nwant %s", got, want)
			}
			requireTableEqual(t, src, dst, "public.a", "public.a")
		})
	}
}

// TestSoftDeleteRefresh: copying a table again takes nothing from the target. What the source does not have is marked, with
// the time of its delete if that is known, and rows that are marked keep no table from being copied.
func TestSoftDeleteRefresh(t *testing.T) {
	for _, role := range []string{"may be a replica", "may not"} {
		for name, shape := range map[string]string{"running": "", "paused": "", "paused and reshaped": `ALTER TABLE p ADD w int DEFAULT 5; ALTER TABLE p ALTER v TYPE varchar(20)`} {
			t.Run(role+", "+name, func(t *testing.T) {
				t.Parallel()
				src, dst := pair(t, 15, 15)
				to := dst
				if role == "may not" {
					to = limited(t, dst)
				}
				src.exec(t, `CREATE TABLE p(id int PRIMARY KEY, v text)`, `CREATE TABLE c(id int PRIMARY KEY, p int REFERENCES p)`,
					`INSERT INTO p SELECT i, 'v' FROM generate_series(1, 10) i`, `INSERT INTO c SELECT i, i FROM generate_series(1, 8) i`)
				m := served(t, src, to, "--set", "soft.delete.column=gone")
				eventually(t, waitLimit, "the foreign key is there", func() (bool, string) {
					got := dst.one(t, `SELECT count(*) FROM pg_constraint WHERE contype = 'f'`)
					return got == "1", got
				})
				src.exec(t, `DELETE FROM c WHERE id < 4`, `DELETE FROM p WHERE id < 4`)
				m.caughtUp()
				const marked = `SELECT string_agg(id || ' ' || gone, ',' ORDER BY id) FROM p WHERE gone IS NOT NULL AND id < 99`
				before := dst.one(t, marked)
				dst.exec(t, `INSERT INTO p VALUES (99, 'not of the source')`, `UPDATE p SET v = 'changed' WHERE id = 5`)
				if name != "running" {
					m.mustCLI("pipelines", "pause", m.name, "--wait")
				}
				if shape != "" {
					src.exec(t, shape)
				}
				m.mustCLI("sources", "refresh", "public.p", "--yes")
				if name != "running" {
					m.mustCLI("pipelines", "resume", m.name)
				}
				m.caughtUp()
				if got := dst.one(t, `SELECT string_agg(id::text, ',' ORDER BY id) FROM p WHERE gone IS NULL AND v = 'v'`); got != "4,5,6,7,8,9,10" {
					t.Errorf("rows that live: %s", got)
				}
				if got := dst.one(t, marked); got != before {
					t.Errorf("rows that are marked: %s, want %s", got, before)
				}
				if got := dst.one(t, `SELECT count(*) FROM p WHERE id = 99 AND gone IS NOT NULL`); got != "1" {
					t.Errorf("%s rows are marked that the source never had, want 1", got)
				}
				src.exec(t, `INSERT INTO p(id, v) VALUES (2, 'back')`, `INSERT INTO c VALUES (20, 2)`)
				m.caughtUp()
				if got := dst.one(t, `SELECT v FROM p WHERE id = 2 AND gone IS NULL`); got != "back" {
					t.Errorf("a row that comes back: %s", got)
				}
			})
		}
	}
}

// TestRefreshReshapes: a row that stands in the way of a change of shape goes when its table is copied again, also where
// other tables refer to it, unless the target checks that they do.
func TestRefreshReshapes(t *testing.T) {
	for _, may := range []bool{true, false} {
		t.Run(fmt.Sprintf("may be a replica %v", may), func(t *testing.T) {
			t.Parallel()
			src, dst := pair(t, 15, 15)
			to := dst
			if !may {
				to = limited(t, dst)
			}
			src.exec(t, `CREATE TABLE p(id int PRIMARY KEY, v text)`, `CREATE TABLE c(id int PRIMARY KEY, p int REFERENCES p)`,
				`INSERT INTO p SELECT i, i FROM generate_series(1, 100) i`, `INSERT INTO c SELECT i, i FROM generate_series(1, 50) i`)
			m := served(t, src, to)
			m.mustCLI("pipelines", "pause", m.name, "--wait")
			dst.exec(t, `UPDATE p SET v = 'no number' WHERE id = 7`)
			src.exec(t, `ALTER TABLE p ALTER v TYPE int USING v::int`, `INSERT INTO p VALUES (200, 5)`)
			m.mustCLI("sources", "refresh", "public.p", "--yes")
			m.mustCLI("pipelines", "resume", m.name)
			if !may {
				if e := m.failsWith("W4003"); !strings.Contains(e.Message, "no number") {
					t.Errorf("the mirror stops with %+v", e)
				}
				dst.exec(t, `UPDATE p SET v = '7' WHERE id = 7`)
				m.mustCLI("pipelines", "resume", m.name)
			}
			m.caughtUp()
			requireEqual(t, src, dst)
		})
	}
}

// limited is the database for a role that may not set session_replication_role.
func limited(t *testing.T, d db) db {
	t.Helper()
	role := "limited_" + d.name
	d.exec(t, `CREATE ROLE "`+role+`" LOGIN`, `GRANT CREATE ON DATABASE "`+d.name+`" TO "`+role+`"`, `GRANT CREATE, USAGE ON SCHEMA public TO "`+role+`"`)
	d.url = d.srv.URLFor(role, d.srv.Addr(), d.name)
	return d
}
