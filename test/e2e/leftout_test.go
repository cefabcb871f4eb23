package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	testenv "github.com/weirstream/weir/test/env"
)

// TestLeftOutRenamed: a column that is left out stays so when it or its table gets another name, and so does one that was
// added; one that is mirrored stays mirrored when it gets the name of one that is not.
func TestLeftOutRenamed(t *testing.T) {
	for name, c := range map[string]struct {
		version     testenv.Version
		also        string // of the source, before the mirror begins
		publication bool
	}{
		"not sent":                                 {version: 15},
		"sent by an older server":                  {version: 12},
		"sent in full":                             {version: 15, also: `ALTER TABLE a REPLICA IDENTITY FULL`},
		"a publication of the user's":              {version: 15, also: `CREATE PUBLICATION p FOR TABLE a`, publication: true},
		"a publication of the user's, with a list": {version: 15, also: `CREATE PUBLICATION p FOR TABLE a (id, secret, v)`, publication: true},
		"a publication of the user's, not with it": {version: 15, also: `CREATE PUBLICATION p FOR TABLE a (id, v)`, publication: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, dst := pair(t, c.version, 15)
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY, secret text, v text); INSERT INTO a SELECT i, 'leak', 'v' || i FROM generate_series(1, 100) i`)
			if c.also != "" {
				src.exec(t, c.also)
			}
			args := []string{"--exclude-column", "public.a.secret", "--set", "discovery.interval=300ms"}
			if c.publication {
				args = append(args, "--set", "publication.name=p")
			}
			m := newMirror(t, src, dst, "public.*", args...)
			m.start()
			m.caughtUp()
			m.stop()
			m.server()
			m.caughtUp()

			table, columns := "a", "id, v"
			same := func(step string) {
				t.Helper()
				m.caughtUp()
				sum := `SELECT md5(string_agg(x::text, ',' ORDER BY id)) FROM (SELECT ` + columns + ` FROM ` + table + `) x`
				eventually(t, waitLimit, "the tables are equal", func() (bool, string) {
					rows, err := dst.srv.Run(t.Context(), dst.name, sum)
					return err == nil && len(rows) == 1 && src.one(t, sum) == rows[0][0], step
				})
				var given []string
				for _, row := range dst.query(t, `SELECT attname FROM pg_attribute WHERE attrelid = '`+table+`'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`) {
					given = append(given, row[0])
				}
				if got := strings.Join(given, ", "); got != columns {
					t.Fatalf("%s: the target has the columns %s, want %s", step, got, columns)
				}
				if got := dst.one(t, `SELECT count(*) FROM `+table+` x WHERE x::text LIKE '%leak%'`); got != "0" {
					t.Fatalf("%s: %s rows hold what is to be left out", step, got)
				}
			}
			write := func() {
				t.Helper()
				src.exec(t, `UPDATE `+table+` SET v = v || 'x' WHERE id % 3 = 0`, `INSERT INTO `+table+`(id, v) SELECT max(id) + 1, 'new' FROM `+table, `DELETE FROM `+table+` WHERE id = (SELECT min(id) FROM `+table+`)`)
			}
			src.exec(t, `ALTER TABLE a RENAME secret TO other`, `UPDATE a SET other = 'leak more' WHERE id < 20`)
			write()
			same("renamed")
			src.exec(t, `SELECT pg_sleep(1)`) // for some looks at the catalog
			m.mustCLI("sources", "refresh", "public.a", "--yes")
			write()
			same("copied again")

			m.kill()
			src.exec(t, `ALTER TABLE a RENAME other TO third`, `UPDATE a SET third = 'leak again'`)
			write()
			m.server()
			same("renamed while weir was away")

			if !c.publication { // whose list is the user's business
				src.exec(t, `ALTER TABLE a ADD secret text DEFAULT 'leak'`)
				write()
				m.caughtUp()
				src.exec(t, `SELECT pg_sleep(1)`, `ALTER TABLE a RENAME secret TO fourth`, `UPDATE a SET fourth = 'leak'`)
				write()
				same("added and renamed")
				m.kill()
				src.exec(t, `ALTER TABLE a RENAME third TO gone`, `UPDATE a SET gone = 'leak' WHERE id % 2 = 0`, `ALTER TABLE a DROP gone`, `ALTER TABLE a ADD gone text DEFAULT 'plain'`,
					`UPDATE a SET gone = 'mine' WHERE id % 5 = 0`)
				columns = "id, v, gone"
				write()
				m.server()
				same("gone, and another one of its name")
			}
			more := strings.TrimPrefix(columns, "id, v")

			src.exec(t, `ALTER TABLE a RENAME TO b`)
			table = "b"
			write()
			same("its table renamed")
			m.mustCLI("pipelines", "pause", m.name, "--wait")
			m.mustCLI("sources", "refresh", "public.b", "--yes")
			m.mustCLI("pipelines", "resume", m.name)
			write()
			same("copied again after a pause")

			src.exec(t, `ALTER TABLE b RENAME TO a`)
			table = "a"
			src.exec(t, `ALTER TABLE a RENAME v TO secret; UPDATE a SET secret = secret || 'y'; INSERT INTO a(id, secret) VALUES (9000, 'z')`)
			columns = "id, secret" + more
			same("a mirrored one gets the name")
			src.exec(t, `ALTER TABLE a RENAME secret TO v`, `UPDATE a SET v = v || 'z' WHERE id = 50`)
			columns = "id, v" + more
			same("and another one")
			requireConsistent(t, m)
			m.cutsOver()
		})
	}
}

// TestLeftOutComesAndGoes: a table is published with a list of columns or without one, as it happens to have columns that
// are left out when that is made, and what is sent changes while a copy waits for others.
func TestLeftOutComesAndGoes(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, `CREATE TABLE t(id int PRIMARY KEY, a text, secret text); CREATE TABLE keep(id int PRIMARY KEY, secret text); INSERT INTO t VALUES (1, 'a', 'leak')`)
	m := newMirror(t, src, dst, "public.*", "--exclude-column", "public.*.secret*")
	m.start()
	m.caughtUp()
	other, err := pgx.Connect(t.Context(), src.url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close(context.Background()) }()
	if _, err := other.Exec(t.Context(), `BEGIN; INSERT INTO keep VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	src.exec(t, `ALTER TABLE t DROP secret; ALTER TABLE t ADD n1 int; INSERT INTO t(id, n1) VALUES (3, 1)`, `SELECT pg_sleep(1)`,
		`ALTER TABLE t ADD secret5 text; INSERT INTO t(id, secret5) VALUES (6, 'leak')`, `ALTER TABLE t ADD n4 int; INSERT INTO t(id) VALUES (9)`, `SELECT pg_sleep(1)`)
	if _, err := other.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	const sum = `SELECT md5(string_agg(x::text, ',' ORDER BY id)) FROM (SELECT id, a, n1, n4 FROM t) x`
	same := func() {
		t.Helper()
		m.caughtUp()
		eventually(t, waitLimit, "the tables are equal", func() (bool, string) {
			rows, err := dst.srv.Run(t.Context(), dst.name, sum)
			return err == nil && rows[0][0] == src.one(t, sum), m.logTail(5)
		})
		if got := dst.one(t, `SELECT count(*) FROM t x WHERE x::text LIKE '%leak%'`); got != "0" {
			t.Fatalf("%s rows hold what is to be left out", got)
		}
	}
	same()
	src.exec(t, `UPDATE t SET n4 = id, secret5 = 'leak'`)
	m.kill()
	src.exec(t, `UPDATE t SET n4 = -id`)
	m.start()
	same()
}

// TestLeftOutForAMoment: a column that is left out comes and goes while the mirror rests, of a table with full old rows.
func TestLeftOutForAMoment(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, `CREATE TABLE t(id int PRIMARY KEY, a text); ALTER TABLE t REPLICA IDENTITY FULL; CREATE TABLE keep(id int PRIMARY KEY, secret text)`)
	m := newMirror(t, src, dst, "public.*", "--exclude-column", "public.*.secret*")
	m.start()
	m.caughtUp()
	m.stop()
	m.server()
	m.caughtUp()
	m.mustCLI("pipelines", "pause", m.name, "--wait")
	src.exec(t, `ALTER TABLE t ADD secret1 int; INSERT INTO t(id, secret1) VALUES (2, 1); ALTER TABLE t DROP secret1`)
	m.mustCLI("pipelines", "resume", m.name)
	m.caughtUp()
	m.mustCLI("pipelines", "pause", m.name, "--wait")
	src.exec(t, `INSERT INTO t(id) VALUES (3)`)
	m.mustCLI("sources", "refresh", "public.t", "--yes")
	m.mustCLI("pipelines", "resume", m.name)
	m.caughtUp()
	requireTableEqual(t, src, dst, "public.t", "public.t")
}
