package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	sink "github.com/weirstream/weir/sinks/postgres"
	testenv "github.com/weirstream/weir/test/env"
)

// TestLanes: with several lanes a transaction is not one commit, and every table is exact all the same, whatever happens
// to tables and servers.
func TestLanes(t *testing.T) {
	target := testenv.Postgres(t, 15, testenv.FsyncOff())
	src, dst := newDB(t, source(t, 15), "src"), newDB(t, target, "dst")
	src.exec(t,
		`CREATE TABLE a(id int PRIMARY KEY, n int, big text)`, `INSERT INTO a SELECT i, 0, repeat(md5(i::text), 100) FROM generate_series(1, 2000) i`,
		`CREATE TABLE b(id int PRIMARY KEY, n int)`, `INSERT INTO b SELECT i, 0 FROM generate_series(1, 2000) i`,
		`CREATE TABLE child(id int PRIMARY KEY, b int REFERENCES b)`, `INSERT INTO child SELECT i, i FROM generate_series(1, 500) i`,
		`CREATE TABLE u(id int PRIMARY KEY, name text UNIQUE)`, `INSERT INTO u SELECT i, 'n' || i FROM generate_series(1, 100) i`,
		`CREATE TABLE shape(id int PRIMARY KEY, v int)`, `INSERT INTO shape SELECT i, i FROM generate_series(1, 100) i`,
		`CREATE TABLE bag(a int, b text)`, `ALTER TABLE bag REPLICA IDENTITY FULL`, `CREATE TABLE filled(id int PRIMARY KEY, v text)`)
	m := newMirror(t, src, dst, "public.*", "--set", "sink.lanes=3", "--set", "on.missing.row=error", "--set", "snapshot.chunk.bytes=1MB")
	plan := m.mustCLI("mirror", src.url, dst.url, "--tables", "public.*", "--set", "sink.lanes=3", "--dry-run")
	if !strings.Contains(plan, "commits are not atomic: 3 lanes") {
		t.Errorf("the plan does not tell that commits are not atomic\n%s", plan)
	}
	m.start()
	// One transaction over all tables, with a row in each that no later one covers.
	rows := startProgram(t, src, func(i int) string {
		i++ // its rows have keys above those that are there
		return fmt.Sprintf(`BEGIN; UPDATE a SET n = %[1]d WHERE id = 1 + %[1]d %% 2000; INSERT INTO a VALUES (10000 + %[1]d, 1, NULL); INSERT INTO b VALUES (10000 + %[1]d, %[1]d);
			INSERT INTO child VALUES (10000 + %[1]d, 10000 + %[1]d); INSERT INTO bag VALUES (%[1]d, 'x'); DELETE FROM bag WHERE a = %[1]d - 5;
			UPDATE u SET name = 'tmp' WHERE id = 1; UPDATE u SET name = 'x%[1]d' WHERE id = 2; UPDATE u SET name = 'y%[1]d' WHERE id = 1;
			DELETE FROM filled WHERE id < %[1]d - 50; INSERT INTO filled VALUES (%[1]d, 'v'); COMMIT`, i)
	}, 0)
	// What concerns a table as a whole.
	shapes := startProgram(t, src, func(i int) string {
		i++
		row := fmt.Sprintf(`INSERT INTO shape(id) VALUES (%d)`, 1000+i)
		switch i % 6 {
		case 0:
			return fmt.Sprintf(`BEGIN; ALTER TABLE shape ADD COLUMN c%d int DEFAULT 7; %s; COMMIT`, i, row)
		case 1:
			return fmt.Sprintf(`CREATE TABLE made_%[1]d(id int PRIMARY KEY, v text); INSERT INTO made_%[1]d SELECT i, 'v' FROM generate_series(1, 300) i`, i)
		case 2:
			return fmt.Sprintf(`DROP TABLE IF EXISTS made_%d; CREATE TABLE IF NOT EXISTS made_%[1]d(id int PRIMARY KEY, w int); INSERT INTO made_%[1]d VALUES (%[2]d, 1)`, i-1, i)
		case 3:
			return fmt.Sprintf(`ALTER TABLE IF EXISTS made_%d RENAME TO renamed_%[1]d; INSERT INTO renamed_%[1]d(id) VALUES (1000); %[2]s`, i-2, row)
		case 4:
			return `BEGIN; TRUNCATE b, child; INSERT INTO b VALUES (1, 1); INSERT INTO child VALUES (1, 1); COMMIT`
		default:
			return fmt.Sprintf(`INSERT INTO a SELECT 1000000 + %d * 3000 + i, i, 'large' FROM generate_series(1, 3000) i; UPDATE shape SET v = %[1]d`, i)
		}
	}, 100*time.Millisecond)
	for i := range 9 {
		<-time.After(1200 * time.Millisecond)
		switch i % 3 {
		case 0:
			m.kill()
			m.start()
		case 1:
			if err := target.Restart(testenv.Immediate); err != nil {
				t.Fatal(err)
			}
		default:
			_, _ = target.Run(t.Context(), "postgres", `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'weir%' ORDER BY random() LIMIT 1`)
		}
	}
	rows.stop(t)
	shapes.stop(t)
	src.exec(t, `INSERT INTO shape(id) VALUES (0)`)
	m.caughtUpWithin(2 * waitLimit)
	requireEqual(t, src, dst)
	requireConsistent(t, m)
	for _, lane := range dst.query(t, `SELECT s.sink, count(*) FROM "_weir"."state" s WHERE s.key LIKE 'table/%' GROUP BY 1 ORDER BY 1`) {
		t.Logf("lane %s has %s tables", lane[0], lane[1])
	}
	if n := dst.one(t, `SELECT count(DISTINCT sink) FROM "_weir"."state" WHERE key LIKE 'table/%'`); n != "3" {
		t.Errorf("%s lanes have tables, want 3", n)
	}

	// A copy of one table beside the stream, and what a paused mirror is told for later.
	m.mustCLI("sources", "refresh", "public.u", "--yes")
	src.exec(t, `UPDATE u SET name = 'z' || id`)
	m.caughtUp()
	requireEqual(t, src, dst)
	m.stop()
	m.args = append(m.args, "--set", "sink.lanes=2")
	m.run(append([]string{"mirror", src.url, dst.url, "--name", m.name, "--state", m.state, "--http-addr", "127.0.0.1:0"}, m.args...)...)
	if err := m.wait(waitLimit); err == nil || !strings.Contains(m.logTail(5), "sink.lanes") {
		t.Errorf("another number of lanes: %v\n%s", err, m.logTail(5))
	}
}

// TestLanesCrash ends weir between two lanes at a cut of the test's choosing.
func TestLanesCrash(t *testing.T) {
	for name, c := range map[string]struct{ sql, check string }{
		"a TRUNCATE of tables that refer to each other": {`TRUNCATE parent, child`, `SELECT (SELECT count(*) FROM parent) + (SELECT count(*) FROM child)`},
		"rows that refer to each other":                 {`BEGIN; INSERT INTO parent VALUES (5000); INSERT INTO child VALUES (5000, 5000); COMMIT`, `SELECT count(*) FROM child`},
		"changes of shape":                              {`BEGIN; ALTER TABLE parent ADD COLUMN p int DEFAULT 1; ALTER TABLE child ADD COLUMN c int; INSERT INTO parent VALUES (5000); INSERT INTO child VALUES (5000, 5000); COMMIT`, `SELECT count(c) FROM child`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, dst := pair(t, 15, 15)
			src.exec(t, `CREATE TABLE parent(id int PRIMARY KEY)`, `CREATE TABLE child(id int PRIMARY KEY, parent int REFERENCES parent)`,
				`INSERT INTO parent SELECT i FROM generate_series(1, 100) i`, `INSERT INTO child SELECT i, i FROM generate_series(1, 100) i`)
			m := newMirror(t, src, dst, "public.*", "--set", "sink.lanes=2")
			m.start()
			m.caughtUp()
			m.stop()
			m.env = []string{"WEIR_FAILPOINTS=" + string(sink.FailBetweenLanes) + "=kill@1"}
			src.exec(t, c.sql)
			m.start()
			if err := m.wait(waitLimit); err == nil {
				t.Fatal("weir was not ended between the lanes")
			}
			m.env = nil
			src.exec(t, `INSERT INTO parent VALUES (6000)`, `INSERT INTO child(id, parent) VALUES (6000, 6000)`)
			m.start()
			m.caughtUp()
			requireEqual(t, src, dst)
			requireConsistent(t, m)
			if want, got := src.one(t, c.check), dst.one(t, c.check); want != got {
				t.Errorf("%s: source %s, target %s", c.check, want, got)
			}
		})
	}
}
