package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/api"
)

// TestNamesChangeHands: a table takes the name that another one had, as deployments do that fill a new table and put it
// into the old one's place. The log tells of the first only; the second may get no row for long.
func TestNamesChangeHands(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"the old table steps aside": `BEGIN; ALTER TABLE a RENAME TO a_old; ALTER TABLE b RENAME TO a; COMMIT`,
		"the old table is dropped":  `BEGIN; DROP TABLE a; ALTER TABLE b RENAME TO a; COMMIT`,
		"two swap":                  `BEGIN; ALTER TABLE a RENAME TO c; ALTER TABLE b RENAME TO a; ALTER TABLE c RENAME TO b; COMMIT`,
		"three go round":            `BEGIN; CREATE TABLE d(id int PRIMARY KEY, v text); ALTER TABLE a RENAME TO e; ALTER TABLE b RENAME TO a; ALTER TABLE d RENAME TO b; ALTER TABLE e RENAME TO d; COMMIT`,
	} {
		t.Run(name, func(t *testing.T) {
			for i, lanes := range []string{"1", "1", "2", "3"} {
				killed := i%2 == 1
				m := live(t, "--set", "discovery.interval=3s", "--set", "sink.lanes="+lanes)
				if killed {
					m.kill()
				}
				m.src.exec(t, sql, `INSERT INTO a VALUES (9000, 'the new one')`, `UPDATE a SET v = 'changed' WHERE id < 10`)
				if killed {
					m.start()
				}
				m.caughtUp()
				requireEqual(t, m.src, m.dst)
				m.src.exec(t, `INSERT INTO a VALUES (9001, 'later')`)
				m.caughtUp()
				requireEqual(t, m.src, m.dst)
				m.stop()
			}
		})
	}
}

// TestNamesOfOthers: a table leaves by getting a name that is not selected, and another one takes its old name. What is
// done about the first must not concern the second.
func TestNamesOfOthers(t *testing.T) {
	for name, c := range map[string]struct{ look, row string }{
		"noticed in the catalog":  {look: "300ms"},
		"noticed by the old one":  {"1h", `INSERT INTO a_old VALUES (8000, 'of the old one')`},
		"noticed by the new one":  {"1h", `INSERT INTO a VALUES (8000, 'of the new one')`},
		"both in one transaction": {"1h", `BEGIN; INSERT INTO a VALUES (8000, 'of the new one'); ALTER TABLE a ADD COLUMN w int DEFAULT 5; INSERT INTO a_old VALUES (8000, 'of the old one'); COMMIT`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, dst := pair(t, 15, 15)
			src.exec(t, twoTables)
			m := newMirror(t, src, dst, "public.*", "--except", "public.*_old", "--set", "discovery.interval="+c.look)
			m.start()
			m.caughtUp()
			src.exec(t, `BEGIN; ALTER TABLE a RENAME TO a_old; ALTER TABLE b RENAME TO a; COMMIT`)
			if c.row == "" {
				eventually(t, waitLimit, "the old table leaves", func() (bool, string) {
					v, err := m.view()
					return err == nil && len(v.Status.Tables) == 1, fmt.Sprint(v, err)
				})
			} else {
				src.exec(t, c.row)
			}
			src.exec(t, `INSERT INTO a VALUES (9000, 'the new one')`, `UPDATE a SET v = 'changed' WHERE id < 10`, `INSERT INTO a VALUES (9001, 'the last')`)
			eventually(t, waitLimit, "the new table's rows come", func() (bool, string) {
				if !m.running() {
					t.Fatalf("weir is not running\n%s", m.logTail(30))
				}
				if dst.one(t, `SELECT to_regclass('a') IS NULL`) == "t" {
					return false, "the name is free"
				}
				got := dst.one(t, `SELECT count(*) FROM a WHERE id = 9001`)
				return got == "1", got
			})
			requireTableEqual(t, src, dst, "public.a", "public.a")
			requireConsistent(t, m)
		})
	}
}

// TestNewTableForOneThatLeft: a table is put away under a name that is not selected, and one with other columns is made in
// its place.
func TestNewTableForOneThatLeft(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, twoTables)
	m := newMirror(t, src, dst, "public.*", "--except", "public.*_old")
	m.start()
	m.caughtUp()
	src.exec(t, `BEGIN; ALTER TABLE a RENAME TO a_old; CREATE TABLE a(id int PRIMARY KEY, more int); INSERT INTO a SELECT i, i FROM generate_series(1, 20) i; COMMIT`)
	eventually(t, waitLimit, "the new table's rows come", func() (bool, string) {
		if !m.running() {
			t.Fatalf("weir is not running\n%s", m.logTail(30))
		}
		if dst.one(t, `SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('a') AND attname = 'more'`) == "0" {
			return false, "the old one has the name"
		}
		got := dst.one(t, `SELECT count(*) FROM a`)
		return got == "20", got
	})
	requireTableEqual(t, src, dst, "public.a", "public.a")
	if got := dst.one(t, `SELECT count(*) FROM pg_class WHERE relname LIKE 'aside_%_a' AND relkind = 'r'`); got != "1" {
		t.Errorf("%s tables keep the old one's rows, want 1", got)
	}
}

// TestJoinsUnderTakenName: a table joins under the name of one that was renamed and has got no row since.
func TestJoinsUnderTakenName(t *testing.T) {
	for name, def := range map[string]string{"other columns": `k int PRIMARY KEY, w int`, "the same columns": `id int PRIMARY KEY, v text`} {
		t.Run(name, func(t *testing.T) {
			src, dst := pair(t, 15, 15)
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY, v text)`, `INSERT INTO a SELECT i, 'old' FROM generate_series(1, 10) i`)
			m := newMirror(t, src, dst, "public.*")
			m.start()
			m.caughtUp()
			src.exec(t, `BEGIN; ALTER TABLE a RENAME TO old; CREATE TABLE a(`+def+`); INSERT INTO a SELECT i FROM generate_series(5, 20) i; COMMIT`)
			m.caughtUp()
			src.exec(t, `INSERT INTO old VALUES (100, 'later')`)
			m.caughtUp()
			requireEqual(t, src, dst)
		})
	}
}

// TestJoinsElsewhere: a table that joins gets another schema, or a column of another type, before its first rows are read.
// The target must have that schema and that type by then.
func TestJoinsElsewhere(t *testing.T) {
	for name, change := range map[string]string{
		"a schema": `CREATE SCHEMA shop; ALTER TABLE joining SET SCHEMA shop`,
		"a type":   `CREATE TYPE mood AS ENUM ('sad', 'ok'); ALTER TABLE joining ADD m mood DEFAULT 'ok'`,
		"a name":   `ALTER TABLE joining RENAME TO joined`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, dst := pair(t, 15, 15)
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY)`)
			m := newMirror(t, src, dst, "public.*,shop.*", "--log-level", "info", "--set", "discovery.interval=300ms")
			m.start()
			m.caughtUp()
			// Who began to write before the table was published keeps its copy waiting.
			conn, err := pgx.Connect(t.Context(), src.url)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.Background()) }()
			if _, err := conn.PgConn().Exec(t.Context(), `BEGIN; INSERT INTO a VALUES (1)`).ReadAll(); err != nil {
				t.Fatal(err)
			}
			src.exec(t, `CREATE TABLE joining(id int PRIMARY KEY)`, `INSERT INTO joining SELECT generate_series(1, 100)`)
			eventually(t, waitLimit, "the table joins", func() (bool, string) {
				return strings.Contains(m.log(), "table joins"), m.logTail(3)
			})
			src.exec(t, change)
			if _, err := conn.PgConn().Exec(t.Context(), `COMMIT`).ReadAll(); err != nil {
				t.Fatal(err)
			}
			m.caughtUp()
			requireEqual(t, src, dst)
			requireConsistent(t, m)
		})
	}
}

// TestNamesKept: where the target does not follow renames, a table's rows go on to where they went, also after a restart
// and when another table has its name by now.
func TestNamesKept(t *testing.T) {
	for _, behavior := range []string{"lenient", "ignore"} {
		t.Run(behavior, func(t *testing.T) {
			t.Parallel()
			m := live(t, "--set", "schema.change.behavior="+behavior, "--set", "discovery.interval=300ms")
			m.src.exec(t, `INSERT INTO a VALUES (7001, 'a')`, `INSERT INTO b VALUES (7002, 'b')`)
			for _, again := range []func(){func() {}, func() { m.kill(); m.start() }} {
				m.src.exec(t, `BEGIN; ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE x RENAME TO b; COMMIT`)
				m.src.exec(t, `UPDATE a SET v = 'changed' WHERE id < 10`, `UPDATE b SET v = 'changed' WHERE id BETWEEN 20 AND 30`)
				again()
				m.caughtUp()
				m.src.exec(t, `DELETE FROM a WHERE id = 5`, `DELETE FROM b WHERE id = 25`)
				m.caughtUp()
			}
			requireEqual(t, m.src, m.dst) // it was swapped twice
			m.src.exec(t, `BEGIN; ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE x RENAME TO b; COMMIT`,
				`INSERT INTO a VALUES (7003, 'b')`, `INSERT INTO b VALUES (7004, 'a')`)
			m.mustCLI("sources", "refresh", "public.a", "--yes")
			m.caughtUp()
			requireTableEqual(t, m.src, m.dst, "public.a", "public.b")
			requireTableEqual(t, m.src, m.dst, "public.b", "public.a")
			m.src.exec(t, `ALTER TABLE a RENAME TO b_old`, `CREATE TABLE a(id int PRIMARY KEY, v text)`, `INSERT INTO a VALUES (1, 'none of theirs')`, `INSERT INTO b_old VALUES (7005, 'b')`)
			eventually(t, waitLimit, "the renamed table goes on", func() (bool, string) {
				got := m.dst.one(t, `SELECT count(*) FROM b WHERE id = 7005`)
				return got == "1", got
			})
			requireTableEqual(t, m.src, m.dst, "public.b_old", "public.b")
			requireTableEqual(t, m.src, m.dst, "public.b", "public.a")
		})
	}
}

// TestNamesDuringCopy: a table or a column gets another name while the first copy is under way, and what is built over the
// copied rows is built under that name.
func TestNamesDuringCopy(t *testing.T) {
	const row = `INSERT INTO second VALUES (900000, 900000, 'later', 1)`
	for name, c := range map[string]struct {
		workers string // with 1 the table's turn has not come, with 2 it is copied already
		sql     []string
	}{
		"a table before its turn":               {"1", []string{`ALTER TABLE first RENAME TO second`}},
		"a table before its turn, with a row":   {"1", []string{`ALTER TABLE first RENAME TO second`, row}},
		"a table that is copied":                {"2", []string{`ALTER TABLE first RENAME TO second`, row}},
		"a table that is copied and its column": {"2", []string{`ALTER TABLE first RENAME TO second`, `ALTER TABLE second RENAME u TO w`, row}},
		"two tables that swap":                  {"2", []string{`BEGIN; ALTER TABLE first RENAME TO x; ALTER TABLE kept RENAME TO first; ALTER TABLE x RENAME TO kept; COMMIT`, `INSERT INTO kept VALUES (900000, 900000, 'later', 1)`}},
		"a table that is dropped":               {"1", []string{`DROP TABLE child`}},
	} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, killed %v", name, killed), func(t *testing.T) {
				t.Parallel()
				src, dst := pair(t, 15, 15)
				src.exec(t, `CREATE TABLE big(id int PRIMARY KEY, v text)`, `INSERT INTO big SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 40000) i`,
					`CREATE TABLE kept(id int PRIMARY KEY)`, `INSERT INTO kept SELECT i FROM generate_series(1, 100) i`,
					`CREATE TABLE first(id int PRIMARY KEY, u int UNIQUE, v text, kept int REFERENCES kept)`, `CREATE INDEX first_v ON first(v)`,
					`INSERT INTO first SELECT i, i, 'v', 1 + i % 100 FROM generate_series(1, 25000) i`,
					`CREATE TABLE child(id int PRIMARY KEY, first int REFERENCES first)`, `INSERT INTO child SELECT i, i FROM generate_series(1, 100) i`, `ANALYZE`)
				m := newMirror(t, src, dst, "public.*", "--set", "snapshot.parallelism="+c.workers, "--set", "snapshot.chunk.bytes=1MB")
				m.start()
				conn, err := pgx.Connect(t.Context(), dst.url)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close(context.Background()) }()
				eventually(t, waitLimit, "the copy stands still", func() (bool, string) {
					v, err := m.view()
					if err != nil || !slices.ContainsFunc(v.Status.Tables, func(tab api.TableStatus) bool { return tab.Source == "public.big" && tab.Bytes > 0 }) {
						return false, fmt.Sprint(err, v)
					}
					_, err = conn.PgConn().Exec(t.Context(), `BEGIN; LOCK TABLE big`).ReadAll()
					if err != nil {
						_, _ = conn.PgConn().Exec(t.Context(), `ROLLBACK`).ReadAll()
						return false, err.Error()
					}
					return true, ""
				})
				if c.workers == "2" {
					eventually(t, waitLimit, "the others are copied", func() (bool, string) {
						v, err := m.view()
						if err != nil {
							return false, err.Error()
						}
						for _, tab := range v.Status.Tables {
							if tab.Source != "public.big" && tab.Phase != api.PhaseCatchUp {
								return false, describe(v.Status)
							}
						}
						return true, ""
					})
				}
				src.exec(t, c.sql...)
				if killed {
					m.kill()
				}
				if _, err := conn.PgConn().Exec(t.Context(), `ROLLBACK`).ReadAll(); err != nil {
					t.Fatal(err)
				}
				if killed {
					m.start()
				}
				m.caughtUp()
				eventually(t, waitLimit, "the indexes are built", func() (bool, string) {
					v, err := m.view()
					return err == nil && !v.Status.Building, fmt.Sprint(err)
				})
				requireEqual(t, src, dst)
				for what, sql := range map[string]string{
					"indexes":     `SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1`,
					"constraints": `SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1::text, 2`,
				} {
					if want, got := fmt.Sprint(src.query(t, sql)), fmt.Sprint(dst.query(t, sql)); want != got {
						t.Errorf("%s: source %s\ntarget %s", what, want, got)
					}
				}
			})
		}
	}
}
