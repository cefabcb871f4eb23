package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	testenv "github.com/weirstream/weir/test/env"
)

// TestColumnsComeBack: a column goes and another one of its name comes, or one has a name only for a moment. The log tells
// names and types of columns; which column it is that has a name, the catalog tells, and of the present only.
func TestColumnsComeBack(t *testing.T) {
	cases := map[string][]string{ // T is the table
		"another type":                          {`ALTER TABLE T DROP b`, `ALTER TABLE T ADD b text`, `UPDATE T SET v = 100 WHERE id = 1`},
		"another type, with a default":          {`ALTER TABLE T DROP b`, `ALTER TABLE T ADD b text NOT NULL DEFAULT 'new'`, `UPDATE T SET v = 100 WHERE id = 1`},
		"a type that its values do not fit":     {`ALTER TABLE T DROP k, ADD k int DEFAULT 5`, `UPDATE T SET b = 3 WHERE id = 2`},
		"two whose values do not fit":           {`ALTER TABLE T DROP v, DROP k, ADD k int, ADD v text`, `INSERT INTO T (id) VALUES (4000)`},
		"the same type of the last":             {`ALTER TABLE T DROP k`, `ALTER TABLE T ADD k text`, `UPDATE T SET v = 100 WHERE id = 1`},
		"another type, and a row of either":     {`ALTER TABLE T ADD n int`, `INSERT INTO T (id, n) VALUES (4000, 5)`, `ALTER TABLE T DROP n`, `ALTER TABLE T ADD n text DEFAULT 'x'`, `INSERT INTO T (id) VALUES (4001)`},
		"another type, that a row does not fit": {`ALTER TABLE T ADD n text`, `INSERT INTO T (id, n) VALUES (4000, 'x')`, `ALTER TABLE T DROP n`, `ALTER TABLE T ADD n int`, `INSERT INTO T (id, n) VALUES (4001, 5)`},
		"the same type":                         {`ALTER TABLE T DROP b`, `ALTER TABLE T ADD b int`, `UPDATE T SET v = 100 WHERE id = 1`},
		"the same type, in one transaction":     {`BEGIN; UPDATE T SET b = 7 WHERE id = 2; ALTER TABLE T DROP b; ALTER TABLE T ADD b int; UPDATE T SET v = 100 WHERE id = 1; COMMIT`},
		"the same type, in a large transaction": {`BEGIN; UPDATE T SET v = v + 1; ALTER TABLE T DROP k; ALTER TABLE T ADD k text; UPDATE T SET v = v + 1 WHERE id % 2 = 0; COMMIT`},
		"without its unique index":              {`ALTER TABLE T DROP u`, `ALTER TABLE T ADD u int`, `UPDATE T SET u = 1 WHERE id < 5`},
		"renamed for a moment":                  {`BEGIN; ALTER TABLE T RENAME v TO w; UPDATE T SET w = 7 WHERE id = 3; ALTER TABLE T DROP w; COMMIT`},
		"renamed for a moment, then a row":      {`BEGIN; ALTER TABLE T RENAME v TO w; UPDATE T SET w = 7 WHERE id = 3; ALTER TABLE T DROP w; COMMIT`, `UPDATE T SET b = 9 WHERE id = 4`},
		"the last one renamed for a moment":     {`BEGIN; ALTER TABLE T RENAME u TO w; UPDATE T SET w = 7000 WHERE id = 3; ALTER TABLE T DROP w; COMMIT`},
		"the key renamed as well":               {`BEGIN; ALTER TABLE T RENAME id TO key; ALTER TABLE T RENAME v TO w; UPDATE T SET w = 7 WHERE key = 3; ALTER TABLE T DROP w; COMMIT`, `UPDATE T SET b = 9 WHERE key = 4`},
		"dropped, and another renamed to it":    {`ALTER TABLE T DROP b`, `ALTER TABLE T RENAME v TO b`, `UPDATE T SET b = 100 WHERE id = 1`},
		"a name borne by two":                   {`ALTER TABLE T RENAME b TO w`, `UPDATE T SET w = 77 WHERE id = 5`, `ALTER TABLE T DROP w`, `ALTER TABLE T ADD w int`},
		"come back twice":                       {`ALTER TABLE T DROP b`, `ALTER TABLE T ADD b int`, `UPDATE T SET b = 77 WHERE id = 6`, `ALTER TABLE T DROP b`, `ALTER TABLE T ADD b int`},
		"three go round":                        {`BEGIN; ALTER TABLE T RENAME v TO x; ALTER TABLE T RENAME b TO v; ALTER TABLE T RENAME u TO b; ALTER TABLE T RENAME x TO u; UPDATE T SET b = 10000 WHERE id = 1; COMMIT`},
		"two change places":                     {`BEGIN; ALTER TABLE T RENAME v TO x; ALTER TABLE T RENAME b TO v; ALTER TABLE T RENAME x TO b; UPDATE T SET b = 100 WHERE id = 1; COMMIT`},
	}
	names := slices.Sorted(maps.Keys(cases))
	for mode, set := range map[string][]string{
		"followed": {}, "with full old rows": {}, "while weir is away": {}, "with lanes": {"--set", "sink.lanes=2"}, "try_evolve": {"--set", "schema.change.behavior=try_evolve"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			src, dst := pair(t, 15, 15)
			for i := range names {
				src.exec(t, fmt.Sprintf(`CREATE TABLE t%d(id int PRIMARY KEY, v int, b int, u int UNIQUE, k text); INSERT INTO t%[1]d SELECT i, i, i, i, 'k' FROM generate_series(1, 3000) i`, i))
			}
			if mode == "with full old rows" {
				for i := range names {
					src.exec(t, fmt.Sprintf(`ALTER TABLE t%d REPLICA IDENTITY FULL`, i))
				}
			}
			m := newMirror(t, src, dst, "public.*", set...)
			m.start()
			m.caughtUp()
			if mode == "while weir is away" {
				m.kill()
			}
			for i, name := range names {
				t.Logf("t%d: %s", i, name)
				for _, sql := range cases[name] {
					src.exec(t, strings.ReplaceAll(sql, " T ", fmt.Sprintf(" t%d ", i)))
				}
			}
			if mode == "while weir is away" {
				m.start()
			}
			m.caughtUp()
			for i, name := range names { // a DROP COLUMN is told with the next row
				if name == "the same type, in a large transaction" {
					continue // its end tells
				}
				key := "id"
				if name == "the key renamed as well" {
					key = "key"
				}
				src.exec(t, fmt.Sprintf(`DELETE FROM t%d WHERE %s = 3000`, i, key))
			}
			m.caughtUp()
			requireEqual(t, src, dst)
			requireConsistent(t, m)
		})
	}
}

// TestTypeOfColumnWithDefault: a default that the server does not cast by itself has to go before the column gets another
// type, at the target as at the source.
func TestTypeOfColumnWithDefault(t *testing.T) {
	cases := []struct{ column, change string }{
		{`text DEFAULT 'ok'`, `ALTER TABLE T ALTER v DROP DEFAULT, ALTER v TYPE mood USING v::mood, ALTER v SET DEFAULT 'ok'`},
		{`int DEFAULT 1`, `ALTER TABLE T ALTER v DROP DEFAULT, ALTER v TYPE boolean USING v::boolean, ALTER v SET DEFAULT true`},
		{`int DEFAULT 1`, `ALTER TABLE T ALTER v DROP DEFAULT, ALTER v TYPE text; UPDATE T SET id = -id; ALTER TABLE T ALTER v TYPE boolean USING v::boolean, ALTER v SET DEFAULT false`},
		{`text DEFAULT 'x'`, `ALTER TABLE T ALTER v DROP DEFAULT, ALTER v TYPE bytea USING v::bytea, ALTER v SET DEFAULT '\x01'`},
		{`boolean DEFAULT true`, `ALTER TABLE T ALTER v DROP DEFAULT, ALTER v TYPE int USING v::int`},
		{`varchar(10) DEFAULT 'v'`, `ALTER TABLE T ALTER v TYPE text`},
		{`int GENERATED ALWAYS AS IDENTITY`, `ALTER TABLE T ALTER v TYPE bigint`},
		{`serial`, `ALTER TABLE T ALTER v TYPE bigint`},
	}
	fallback := `SELECT coalesce(pg_get_expr(adbin, adrelid), 'NULL') FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
		WHERE attrelid = 'tN'::regclass AND attname = 'v'`
	src, dst := pair(t, 15, 15)
	src.exec(t, `CREATE TYPE mood AS ENUM ('sad', 'ok')`)
	in := func(sql string, n int) string {
		return strings.NewReplacer(" T ", fmt.Sprintf(" t%d ", n), "tN", fmt.Sprintf("t%d", n)).Replace(sql)
	}
	for i, c := range cases {
		src.exec(t, in(`CREATE TABLE T (id int PRIMARY KEY, v `+c.column+`); INSERT INTO T (id) SELECT generate_series(1, 100)`, i))
	}
	m := newMirror(t, src, dst, "public.*")
	m.start()
	m.caughtUp()
	for i, c := range cases {
		src.exec(t, in(c.change+`; INSERT INTO T (id) VALUES (1000)`, i))
	}
	m.caughtUp()
	requireEqual(t, src, dst)
	for i, c := range cases {
		if got, want := dst.one(t, in(fallback, i)), src.one(t, in(fallback, i)); got != want {
			t.Errorf("%s: %s: the default is %s at the target, want %s", c.column, c.change, got, want)
		}
	}
}

// TestCatalogContradictsLog: the log describes a table without a column that has been there all along, as the catalog has
// it; servers have been seen to, behind a crash. Nobody can tell what the rows mean: they are passed over, and the table is
// copied anew. Here the catalog is forged.
func TestCatalogContradictsLog(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, `CREATE TABLE t(id int PRIMARY KEY, v int, b int); INSERT INTO t SELECT i, i, i FROM generate_series(1, 3000) i`,
		`CREATE TABLE quiet(id int PRIMARY KEY); INSERT INTO quiet VALUES (1)`)
	m := newMirror(t, src, dst, "public.*")
	m.start()
	m.caughtUp()
	m.kill()
	src.exec(t, `ALTER TABLE t DROP b`, `UPDATE t SET v = v + 1 WHERE id % 3 = 0`, `DELETE FROM t WHERE id % 7 = 0`, `INSERT INTO quiet VALUES (2)`,
		`SET allow_system_table_mods = on; UPDATE pg_attribute SET attname = 'b', atttypid = 'int'::regtype, attisdropped = false WHERE attrelid = 't'::regclass AND attnum = 3`,
		`UPDATE t SET v = v + 1 WHERE id % 5 = 0`)
	m.start()
	m.caughtUp()
	src.exec(t, `UPDATE t SET b = 0 WHERE id = 1`)
	m.caughtUp()
	requireEqual(t, src, dst)
	requireConsistent(t, m)
}

// TestCatalogBehindLog: a transaction is sent when its commit is in the log, and others see it, and so what it did to the
// catalog, only when it has ended. A commit that waits for a standby shows the moment between the two for as long as one
// likes.
func TestCatalogBehindLog(t *testing.T) {
	server := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSetting("cluster_name", "source"))
	src, dst := newDB(t, server, "src"), newDB(t, target(t, 15), "dst")
	changes := []string{
		`ALTER TABLE t0 DROP b; UPDATE t0 SET v = 100 WHERE id = 1`,
		`ALTER TABLE t1 DROP b; ALTER TABLE t1 ADD b int; UPDATE t1 SET v = 100 WHERE id = 1`,
		`ALTER TABLE t2 ADD c int NOT NULL DEFAULT 5; UPDATE t2 SET v = 100 WHERE id = 1`,
		`ALTER TABLE t3 RENAME v TO w; UPDATE t3 SET w = 100 WHERE id = 1`,
		`CREATE TYPE mood AS ENUM ('sad', 'ok'); ALTER TABLE t4 ADD m mood DEFAULT 'ok'; UPDATE t4 SET v = 100 WHERE id = 1`,
		`ALTER TABLE t5 RENAME TO x; ALTER TABLE t6 RENAME TO t5; ALTER TABLE x RENAME TO t6; UPDATE t5 SET v = 100 WHERE id = 1; UPDATE t6 SET v = 101 WHERE id = 2`,
	}
	for i := range 7 {
		src.exec(t, fmt.Sprintf(`CREATE TABLE t%d(id int PRIMARY KEY, v int, b int); INSERT INTO t%[1]d SELECT i, i, i FROM generate_series(1, %d) i`, i, 100+i))
	}
	m := newMirror(t, src, dst, "public.*", "--set", "discovery.interval=1h")
	m.start()
	m.caughtUp()
	src.exec(t, `ALTER ROLE postgres SET synchronous_commit = local`, `ALTER SYSTEM SET synchronous_standby_names = 'nobody'`, `SELECT pg_reload_conf()`)
	var done sync.WaitGroup
	for _, sql := range changes {
		conn, err := pgx.Connect(t.Context(), src.url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.Background()) }()
		done.Go(func() {
			if _, err := conn.PgConn().Exec(t.Context(), `SET synchronous_commit = on; BEGIN; `+sql+`; COMMIT`).ReadAll(); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, waitLimit, "the commits wait", func() (bool, string) {
		got := src.one(t, `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)
		return got == fmt.Sprint(len(changes)), got
	})
	<-time.After(time.Second) // weir has read them by now
	src.exec(t, `ALTER SYSTEM RESET synchronous_standby_names`, `SELECT pg_reload_conf()`)
	done.Wait()
	m.caughtUp()
	requireEqual(t, src, dst)
	requireConsistent(t, m)
}
