package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/pg"
	testenv "github.com/weirstream/weir/test/env"
)

// mirrorOf copies what the statements make and returns the running mirror.
func mirrorOf(t *testing.T, sv, tv testenv.Version, setup ...string) *mirror {
	t.Helper()
	src, dst := pair(t, sv, tv)
	src.exec(t, setup...)
	m := newMirror(t, src, dst, "*.*")
	m.start()
	m.caughtUp()
	return m
}

// after runs statements at the source, lets the mirror catch up and compares everything.
func (m *mirror) after(statements ...string) {
	m.t.Helper()
	m.src.exec(m.t, statements...)
	m.caughtUp()
	requireEqual(m.t, m.src, m.dst)
}

func (m *mirror) crash() { m.kill(); m.start() }

// position is what the ledger holds.
func (m *mirror) position() pg.LSN {
	m.t.Helper()
	lsn, err := pg.ParseLSN(m.dst.one(m.t, `SELECT convert_from(value, 'UTF8') FROM "_weir"."state" WHERE key = 'position'`))
	if err != nil {
		m.t.Fatal(err)
	}
	return lsn
}

func (m *mirror) confirmed() pg.LSN {
	m.t.Helper()
	lsn, err := pg.ParseLSN(m.src.one(m.t, `SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()`))
	if err != nil {
		m.t.Fatal(err)
	}
	return lsn
}

const big = `CREATE TABLE big(id int PRIMARY KEY, n int, m int, body text, note text); ALTER TABLE big ALTER body SET STORAGE EXTERNAL; ALTER TABLE big ALTER note SET STORAGE EXTERNAL;
	INSERT INTO big SELECT i, 0, 0, repeat(md5(i::text), 100), repeat(md5(i::text || 'n'), 100) FROM generate_series(1, 100) i`

// TestFailureCatalogue holds one test for each way in which readers of Postgres are known to lose, double or spoil rows.
// The letters: P reads the log, S copies, D follows changes of shape, T writes. docs/limits.md lists the entries that
// cannot be provoked from outside.
func TestFailureCatalogue(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"P1 position confirmed inside a transaction", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, v text)`)
			for i := range 4 {
				m.src.exec(t, fmt.Sprintf(`INSERT INTO a SELECT %d + i, repeat('x', 100) FROM generate_series(1, 20000) i`, i*20000))
				m.crash()
				eventually(t, waitLimit, "the ledger answers", func() (bool, string) { requireConsistent(t, m); return true, "" })
			}
			m.after(`UPDATE a SET v = 'y' WHERE id % 7 = 0`)
		}},
		{"P2 events that share one position", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, v text)`)
			conn, err := pgx.Connect(context.Background(), m.src.url)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.Background()) }()
			for part := range 3 {
				var rows strings.Builder
				for i := range 5000 {
					fmt.Fprintf(&rows, "%d\tcopied\n", part*5000+i)
				}
				if _, err := conn.PgConn().CopyFrom(context.Background(), strings.NewReader(rows.String()), `COPY a FROM STDIN`); err != nil {
					t.Fatal(err)
				}
				m.crash()
			}
			m.after()
		}},
		{"P4 P5 nothing is read twice after a stop", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, v text)`)
			m.after(`INSERT INTO a SELECT i, 'x' FROM generate_series(1, 100) i`, `UPDATE a SET v = 'y'`)
			m.stop()
			if m.confirmed() > m.position() {
				t.Fatalf("the slot stands at %s, the ledger at %s", m.confirmed(), m.position())
			}
			m.start()
			m.caughtUp()
			v, err := m.view()
			if err != nil {
				t.Fatal(err)
			}
			for _, tab := range v.Status.Tables {
				if n := tab.Inserts + tab.Updates + tab.Deletes; n != 0 {
					t.Errorf("%d changes were applied again", n)
				}
			}
		}},
		{"P6 a slot moved past the stored position", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY)`)
			m.stop()
			m.src.exec(t, `INSERT INTO a VALUES (1)`, `SELECT pg_replication_slot_advance('`+m.slot()+`', pg_current_wal_lsn())`)
			m.server()
			m.failsWith("W1004")
		}},
		{"P7 the log of other databases is let go", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY)`)
			other := newDB(t, m.src.srv, "other")
			other.exec(t, `CREATE TABLE busy(v text)`, `INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1, 5000)`)
			goal, err := pg.ParseLSN(other.one(t, `SELECT pg_current_wal_insert_lsn()`))
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, waitLimit, "the slot moves while its tables are idle", func() (bool, string) {
				at := m.confirmed()
				return at >= goal, at.String()
			})
		}},
		{"P8 P9 a slow target does not cost the connection", func(t *testing.T) {
			server := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSetting("wal_sender_timeout", "2s"))
			src, dst := newDB(t, server, "src"), newDB(t, target(t, 15), "dst")
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY, v int)`, `INSERT INTO a VALUES (1, 0)`)
			m := newMirror(t, src, dst, "public.*")
			m.start()
			m.caughtUp()
			pid := src.one(t, `SELECT pid FROM pg_stat_replication`)
			conn, err := pgx.Connect(context.Background(), dst.url)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.Background()) }()
			if _, err := conn.PgConn().Exec(context.Background(), `BEGIN; LOCK TABLE a`).ReadAll(); err != nil {
				t.Fatal(err)
			}
			src.exec(t, `UPDATE a SET v = 1`, `SELECT pg_sleep(6)`)
			if now := src.one(t, `SELECT string_agg(pid::text, ',') FROM pg_stat_replication`); now != pid {
				t.Errorf("the walsender was %s and is %s: the connection was lost", pid, now)
			}
			if _, err := conn.PgConn().Exec(context.Background(), `ROLLBACK`).ReadAll(); err != nil {
				t.Fatal(err)
			}
			m.after(`UPDATE a SET v = 2`)
		}},
		{"P9 a server that never asks still learns the position", func(t *testing.T) {
			server := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSetting("wal_sender_timeout", "0"))
			src, dst := newDB(t, server, "src"), newDB(t, target(t, 15), "dst")
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY)`)
			m := newMirror(t, src, dst, "public.*")
			m.start()
			m.caughtUp()
			m.after(`INSERT INTO a VALUES (1)`)
			goal := m.position()
			eventually(t, waitLimit, "the slot is confirmed", func() (bool, string) { at := m.confirmed(); return at >= goal, at.String() })
		}},
		{"P10 P14 unchanged large values stay", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, big)
			m.after(`UPDATE big SET n = 1 WHERE id < 10`,
				`BEGIN; UPDATE big SET n = 2, body = 'short' WHERE id = 11; UPDATE big SET m = 3 WHERE id = 11; UPDATE big SET note = repeat('q', 3000) WHERE id = 12; UPDATE big SET n = 4 WHERE id = 12;
				 UPDATE big SET body = repeat('r', 4000) WHERE id = 13; UPDATE big SET id = 1013 WHERE id = 13; UPDATE big SET m = 5 WHERE id = 1013; COMMIT`,
				`BEGIN; INSERT INTO big VALUES (200, 0, 0, repeat('s', 5000), NULL); UPDATE big SET n = 6 WHERE id = 200; UPDATE big SET id = 201 WHERE id = 200; COMMIT`,
				`UPDATE big SET id = id + 2000 WHERE id BETWEEN 20 AND 30`)
		}},
		{"P11 full identity with large values", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, big, `ALTER TABLE big REPLICA IDENTITY FULL`,
				`CREATE TABLE bag(a int, body text); ALTER TABLE bag ALTER body SET STORAGE EXTERNAL; ALTER TABLE bag REPLICA IDENTITY FULL; INSERT INTO bag SELECT i % 3, repeat(md5((i % 3)::text), 200) FROM generate_series(1, 12) i`)
			m.after(`UPDATE big SET n = n + 1`, `UPDATE big SET id = -id WHERE id < 10`, `UPDATE bag SET a = a + 10 WHERE ctid IN (SELECT ctid FROM bag LIMIT 4)`,
				`DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE a = 1 LIMIT 1)`)
		}},
		{"P12 P27 the key is all that a delete and a new key tell", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, v text NOT NULL, w int NOT NULL)`, `INSERT INTO a SELECT i, 'v', i FROM generate_series(1, 100) i`)
			m.after(`UPDATE a SET id = id + 1000 WHERE id < 50`, `DELETE FROM a WHERE id > 90 AND id < 1000`, `BEGIN; UPDATE a SET id = 1 WHERE id = 1001; UPDATE a SET id = 2000 WHERE id = 1; DELETE FROM a WHERE id = 2000; COMMIT`)
		}},
		{"P13 a key stored out of line", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(k text PRIMARY KEY, n int, v text)`, `ALTER TABLE a ALTER k SET STORAGE EXTERNAL`, `ALTER TABLE a SET (toast_tuple_target = 128)`,
				`INSERT INTO a SELECT repeat(md5(i::text), 40), i, 'v' FROM generate_series(1, 20) i`)
			m.after(`UPDATE a SET n = n + 1`, `UPDATE a SET k = k || 'x', v = 'w' WHERE n % 3 = 0`, `DELETE FROM a WHERE n % 5 = 0`)
		}},
		{"P15 a table that cannot be published is refused", func(t *testing.T) {
			src, dst := pair(t, 15, 15)
			src.exec(t, `CREATE TABLE keyless(v text)`, `INSERT INTO keyless VALUES ('x')`)
			m := newMirror(t, src, dst, "public.*")
			m.start()
			if err := m.wait(waitLimit); err == nil || !strings.Contains(m.log(), "W1002") || !strings.Contains(m.log(), "REPLICA IDENTITY") {
				t.Fatalf("weir ended with %v\n%s", err, m.logTail(10))
			}
			src.exec(t, `UPDATE keyless SET v = 'y'`) // the application is not disturbed
		}},
		{"P16 a publication made again", func(t *testing.T) {
			for _, v := range []testenv.Version{15, 18} {
				m := mirrorOf(t, v, 15, `CREATE TABLE a(id int PRIMARY KEY)`)
				if v == 18 {
					// Under a running stream as well.
					name := m.src.one(t, `SELECT pubname FROM pg_publication`)
					m.stop()
					m.server()
					m.caughtUp()
					m.src.exec(t, `DROP PUBLICATION "`+name+`"`, `INSERT INTO a VALUES (1)`)
					m.failsWith("W1007")
					continue
				}
				m.stop()
				name := m.src.one(t, `SELECT pubname FROM pg_publication`)
				m.src.exec(t, `DROP PUBLICATION "`+name+`"`, `INSERT INTO a VALUES (1)`)
				m.server()
				info := m.failsWith("W1007")
				if info.Message == "" {
					t.Error("no message")
				}
				if got := m.dst.one(t, `SELECT count(*) FROM a`); got != "0" {
					t.Errorf("the target has %s rows, although what was written without a publication cannot be read", got)
				}
			}
		}},
		{"P17 an added table brings the rows it has", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY)`)
			m.stop()
			m.src.exec(t, `CREATE TABLE later(id int PRIMARY KEY, v text)`, `INSERT INTO later SELECT i, 'x' FROM generate_series(1, 5000) i`, `DELETE FROM later WHERE id < 100`)
			m.start()
			m.after(`UPDATE later SET v = 'y' WHERE id % 9 = 0`)
		}},
		{"P18 each mirror has its own slot", func(t *testing.T) {
			src, one := pair(t, 15, 15)
			two := newDB(t, target(t, 15), "two")
			src.exec(t, twoTables)
			a, b := newMirror(t, src, one, "public.*"), newMirror(t, src, two, "public.*")
			a.start()
			b.start()
			a.caughtUp()
			b.caughtUp()
			b.stop()
			src.exec(t, `UPDATE a SET v = 'while the other is down'`)
			a.caughtUp()
			requireEqual(t, src, one)
			b.start()
			b.caughtUp()
			requireEqual(t, src, two)
		}},
		{"P19 a slot that lost its log", func(t *testing.T) {
			server := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSetting("max_slot_wal_keep_size", "1MB"), testenv.WithSetting("min_wal_size", "32MB"), testenv.WithSetting("max_wal_size", "48MB"))
			src, dst := newDB(t, server, "src"), newDB(t, target(t, 15), "dst")
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY, v text)`)
			m := newMirror(t, src, dst, "public.*")
			m.start()
			m.caughtUp()
			m.stop()
			eventually(t, waitLimit, "the slot is lost", func() (bool, string) {
				src.exec(t, `INSERT INTO a SELECT coalesce(max(id), 0) + i, repeat('x', 1000) FROM a, generate_series(1, 1) i GROUP BY i`, `SELECT pg_switch_wal()`, `CHECKPOINT`)
				s := src.one(t, `SELECT wal_status FROM pg_replication_slots`)
				return s == "lost", s
			})
			m.server()
			m.failsWith("W1003")
		}},
		{"P20 a slot made again by hand", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY)`)
			m.stop()
			slot := m.slot()
			m.src.exec(t, `SELECT pg_drop_replication_slot('`+slot+`')`, `INSERT INTO a VALUES (1)`, `SELECT pg_create_logical_replication_slot('`+slot+`', 'pgoutput')`)
			m.server()
			m.failsWith("W1004")
		}},
		{"P21 a copy made again takes rows away", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, v text)`, `INSERT INTO a SELECT i, 'v' FROM generate_series(1, 100) i`,
				`CREATE TABLE k(id text PRIMARY KEY, v text)`, `INSERT INTO k SELECT 'k' || i, 'v' FROM generate_series(1, 100) i`)
			m.dst.exec(t, `INSERT INTO a SELECT i, 'extra' FROM generate_series(1000, 1100) i`, `INSERT INTO k VALUES ('extra', NULL)`, `DELETE FROM k WHERE id = 'k7'`)
			m.mustCLI("sources", "refresh", "public.a", "public.k", "--yes")
			eventually(t, waitLimit, "the extra rows go", func() (bool, string) {
				got := m.dst.one(t, `SELECT (SELECT count(*) FROM a) || ' ' || (SELECT count(*) FROM k)`)
				return got == "100 100", got
			})
			m.after()
		}},
		{"P22 P30 partitions are their root", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE p(id int, r text, v text, PRIMARY KEY (id, r)) PARTITION BY LIST (r)`, `CREATE TABLE pa PARTITION OF p FOR VALUES IN ('a')`,
				`CREATE TABLE pb PARTITION OF p FOR VALUES IN ('b') PARTITION BY RANGE (id)`, `CREATE TABLE pb1 PARTITION OF pb FOR VALUES FROM (0) TO (50)`, `CREATE TABLE pb2 PARTITION OF pb FOR VALUES FROM (50) TO (1000)`,
				`INSERT INTO p SELECT i, chr(97 + i % 2), 'v' FROM generate_series(1, 100) i`)
			m.after(`UPDATE p SET r = 'b' WHERE id < 20`, `UPDATE pb SET id = id + 100 WHERE id < 10`, `DELETE FROM pb2 WHERE id > 90`, `INSERT INTO pa VALUES (500, 'a', 'direct')`,
				`CREATE TABLE pc PARTITION OF p FOR VALUES IN ('c')`, `INSERT INTO p VALUES (1, 'c', 'new')`, `TRUNCATE p`, `INSERT INTO p VALUES (2, 'c', 'after')`)
			v, err := m.view()
			if err != nil {
				t.Fatal(err)
			}
			if len(v.Status.Tables) != 1 || v.Status.Tables[0].Source != "public.p" {
				t.Errorf("the mirror holds %+v, want only the root", v.Status.Tables)
			}
		}},
		{"P23 P28 savepoints rolled back, in short and long transactions", func(t *testing.T) {
			for _, v := range []testenv.Version{15, 18} {
				m := mirrorOf(t, v, 15, `CREATE TABLE a(id int PRIMARY KEY, v text)`, `INSERT INTO a SELECT i, 'v' FROM generate_series(1, 5000) i`)
				m.after(`BEGIN; INSERT INTO a VALUES (10001, 'kept'); SAVEPOINT s; INSERT INTO a VALUES (10002, 'never'); ROLLBACK TO s; INSERT INTO a VALUES (10003, 'kept'); COMMIT`,
					`BEGIN; UPDATE a SET v = 'one'; SAVEPOINT s; UPDATE a SET v = 'never'; SAVEPOINT inner_one; DELETE FROM a; ROLLBACK TO s; UPDATE a SET v = 'two' WHERE id % 2 = 0; RELEASE s; UPDATE a SET v = 'three' WHERE id % 3 = 0; COMMIT`,
					`BEGIN; DELETE FROM a; ROLLBACK`, `BEGIN; UPDATE a SET v = 'four'; SAVEPOINT s; DELETE FROM a; ROLLBACK TO s; ROLLBACK`, `UPDATE a SET v = 'five' WHERE id = 1`)
			}
		}},
		{"P25 another server behind the same address", func(t *testing.T) {
			first, second := testenv.Postgres(t, 15, testenv.FsyncOff()), testenv.Postgres(t, 15, testenv.FsyncOff())
			src, dst := newDB(t, first, "src"), newDB(t, target(t, 15), "dst")
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY)`)
			address := newRelay(t, first.Addr())
			src.url = first.URLFor("postgres", address.addr, src.name)
			m := newMirror(t, src, dst, "public.*")
			m.start()
			m.caughtUp()
			m.stop()
			second.Exec(t, "postgres", `CREATE DATABASE "`+src.name+`"`)
			second.Exec(t, src.name, `CREATE TABLE a(id int PRIMARY KEY)`, `SELECT pg_create_logical_replication_slot('`+m.slot()+`', 'pgoutput')`)
			address.move(second.Addr())
			m.server()
			m.failsWith("W1006")
		}},
		{"P26 a slot waits for open transactions and leaves no orphan", func(t *testing.T) {
			// A server of its own: an open transaction holds up every slot that is made on it.
			server := testenv.Postgres(t, 15, testenv.FsyncOff())
			src, dst := newDB(t, server, "src"), newDB(t, target(t, 15), "dst")
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY)`)
			conn, err := pgx.Connect(context.Background(), src.url)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.Background()) }()
			if _, err := conn.PgConn().Exec(context.Background(), `BEGIN; INSERT INTO a VALUES (1)`).ReadAll(); err != nil {
				t.Fatal(err)
			}
			m := newMirror(t, src, dst, "public.*")
			m.start()
			waiting := `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CREATE_REPLICATION_SLOT%' AND state = 'active'`
			eventually(t, waitLimit, "weir waits for its slot", func() (bool, string) { n := src.one(t, waiting); return n == "1", n })
			m.crash()
			eventually(t, waitLimit, "weir waits for its slot again", func() (bool, string) { n := src.one(t, waiting); return n != "0", n })
			if _, err := conn.PgConn().Exec(context.Background(), `COMMIT`).ReadAll(); err != nil {
				t.Fatal(err)
			}
			m.caughtUp()
			requireEqual(t, src, dst)
			m.slot() // exactly one
		}},
		{"P29 repeated descriptions change nothing", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, v text)`)
			m.after(`INSERT INTO a VALUES (1, 'x')`)
			shape := `SELECT convert_from(value, 'UTF8') FROM "_weir"."state" WHERE key LIKE 'table/%'`
			before := m.dst.one(t, shape)
			m.after(`ANALYZE a`, `UPDATE a SET v = 'y'`, `CREATE INDEX ON a(v)`, `DROP INDEX a_v_idx`, `UPDATE a SET v = 'z'`, `ALTER TABLE a ALTER v SET DEFAULT 'd'`, `INSERT INTO a(id) VALUES (2)`, `VACUUM a`, `DELETE FROM a WHERE id = 1`)
			if got := m.dst.one(t, shape); got != before {
				t.Errorf("the stored shape was %s and is %s", before, got)
			}
		}},
		{"S1 S2 S4 S7 a copy beside writers", func(t *testing.T) {
			src, dst := pair(t, 15, 15)
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY, n int, pad text)`, `INSERT INTO a SELECT i, 0, repeat('p', 200) FROM generate_series(1, 40000) i`)
			d := startProgram(t, src, func(n int) string {
				return fmt.Sprintf(`BEGIN; UPDATE a SET n = n + 1 WHERE id %% 1000 = %d; DELETE FROM a WHERE id = %d; INSERT INTO a VALUES (%d, 1, 'new') ON CONFLICT DO NOTHING; UPDATE a SET id = id + 1000000 WHERE id = %d; COMMIT`,
					n%1000, n*13%40000, 50000+n, n*17%40000)
			}, time.Millisecond)
			d.more(t, 20)
			m := newMirror(t, src, dst, "public.*", "--set", "snapshot.chunk.bytes=1MB")
			m.start()
			m.caughtUp()
			d.more(t, 50)
			d.stop(t)
			m.caughtUp()
			requireEqual(t, src, dst)
		}},
		{"S2 S6 S7 S12 copies beside the stream, with keys that move and large values", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, n int, body text)`, `ALTER TABLE a ALTER body SET STORAGE EXTERNAL`, `ALTER TABLE a REPLICA IDENTITY FULL`,
				`INSERT INTO a SELECT i, 0, repeat(md5(i::text), 80) FROM generate_series(1, 3000) i`, `INSERT INTO a SELECT i, 0, 's' FROM generate_series(3001, 60000) i`)
			d := startProgram(t, m.src, func(n int) string {
				return fmt.Sprintf(`BEGIN; UPDATE a SET n = n + 1 WHERE id %% 997 = %d; UPDATE a SET id = -id WHERE id = %d; UPDATE a SET id = id + 100000 WHERE id = %d; DELETE FROM a WHERE id = %d; COMMIT`,
					n%997, n*7%60000, n*11%3000, n*19%60000)
			}, time.Millisecond)
			// The lock first: else this and the mirror may wait for each other's rows.
			m.dst.exec(t, `BEGIN; LOCK TABLE a IN EXCLUSIVE MODE; DELETE FROM a WHERE id % 2 = 0; COMMIT`)
			m.mustCLI("sources", "refresh", "public.a", "--yes")
			d.more(t, 100)
			m.crash()
			d.more(t, 100)
			d.stop(t)
			m.caughtUp()
			requireEqual(t, m.src, m.dst)
		}},
		{"S5 text keys under any collation", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(k text COLLATE "en-x-icu" PRIMARY KEY, v int)`, `INSERT INTO a SELECT chr(65 + i % 26) || chr(97 + i % 26) || i || CASE i % 3 WHEN 0 THEN 'ü' ELSE '-' END, i FROM generate_series(1, 5000) i`)
			d := startProgram(t, m.src, func(n int) string {
				return fmt.Sprintf(`UPDATE a SET v = v + 1, k = k || 'x' WHERE v %% 500 = %d AND length(k) < 30`, n%500)
			}, time.Millisecond)
			m.mustCLI("sources", "refresh", "public.a", "--yes")
			d.more(t, 50)
			d.stop(t)
			m.caughtUp()
			requireEqual(t, m.src, m.dst)
		}},
		{"S9 the copy's snapshot dies", func(t *testing.T) {
			src, dst := pair(t, 15, 15)
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY, pad text)`, `INSERT INTO a SELECT i, repeat('p', 500) FROM generate_series(1, 60000) i`, `CREATE TABLE b(id int PRIMARY KEY, v int)`, `INSERT INTO b SELECT i, 0 FROM generate_series(1, 100) i`)
			m := newMirror(t, src, dst, "public.*", "--set", "snapshot.chunk.bytes=1MB")
			m.start()
			eventually(t, waitLimit, "the copy runs", func() (bool, string) {
				n := src.one(t, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'`)
				return n != "0", n
			})
			src.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
			src.exec(t, `UPDATE b SET v = 1`, `DELETE FROM a WHERE id % 10 = 0`, `UPDATE a SET id = id + 100000 WHERE id < 100`)
			m.caughtUp()
			requireEqual(t, src, dst)
		}},
		{"S11 a commit that is not visible yet", func(t *testing.T) {
			// A transaction whose commit waits for a standby is in the log, and no view sees it.
			server := testenv.Postgres(t, 15, testenv.FsyncOff())
			src, dst := newDB(t, server, "src"), newDB(t, target(t, 15), "dst")
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY, v text)`, `INSERT INTO a SELECT i, 'old' FROM generate_series(1, 100) i`)
			m := newMirror(t, src, dst, "public.*")
			m.start()
			m.caughtUp()
			server.Exec(t, "postgres", `ALTER SYSTEM SET synchronous_standby_names = 'nobody'`, `SELECT pg_reload_conf()`)
			conn, err := pgx.Connect(context.Background(), src.url)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := conn.PgConn().Exec(context.Background(), `UPDATE a SET v = 'new'`).ReadAll()
				done <- err
			}()
			eventually(t, waitLimit, "the commit waits", func() (bool, string) {
				n := src.one(t, `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)
				return n == "1", n
			})
			m.mustCLI("sources", "refresh", "public.a", "--yes")
			eventually(t, waitLimit, "the update arrives", func() (bool, string) { n := dst.one(t, `SELECT count(*) FROM a WHERE v = 'new'`); return n == "100", n })
			for range 20 {
				src.exec(t, `SELECT pg_sleep(0.05)`)
				if n := dst.one(t, `SELECT count(*) FROM a WHERE v = 'old'`); n != "0" {
					t.Fatalf("%s rows went back to what they were", n)
				}
			}
			server.Exec(t, "postgres", `ALTER SYSTEM RESET synchronous_standby_names`, `SELECT pg_reload_conf()`)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			_ = conn.Close(context.Background())
			m.caughtUp()
			requireEqual(t, src, dst)
		}},
		{"D1 D2 D7 columns added, with and without defaults, beside rows", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, v text)`, `INSERT INTO a SELECT i, 'v' FROM generate_series(1, 100) i`)
			m.after(`ALTER TABLE a ADD COLUMN w int`, `UPDATE a SET w = id WHERE id < 10`, `ALTER TABLE a ADD COLUMN x text NOT NULL DEFAULT 'it''s'`, `INSERT INTO a(id) VALUES (200)`,
				`BEGIN; INSERT INTO a(id) VALUES (201); ALTER TABLE a ADD COLUMN y timestamptz DEFAULT '2020-01-01'; INSERT INTO a(id, y) VALUES (202, NULL); COMMIT`, `UPDATE a SET id = -id WHERE id < 5`)
		}},
		{"D1 columns added to a table with a column left out", func(t *testing.T) {
			src, dst := pair(t, 15, 15)
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY, secret text, v text)`, `INSERT INTO a VALUES (1, 's', 'v')`)
			m := newMirror(t, src, dst, "public.*", "--exclude-column", "public.a.secret")
			m.start()
			m.caughtUp()
			src.exec(t, `ALTER TABLE a ADD COLUMN w int`, `INSERT INTO a VALUES (2, 's', 'v', 22)`)
			m.caughtUp()
			eventually(t, 20*time.Second, "the added column arrives", func() (bool, string) {
				rows, err := dst.srv.Run(context.Background(), dst.name, `SELECT coalesce(w, -1) FROM a WHERE id = 2`)
				return err == nil && fmt.Sprint(rows) == "[[22]]", fmt.Sprint(rows, err)
			})
		}},
		{"D3 columns added to a table under another name, when nothing may be lost", func(t *testing.T) {
			src, dst := pair(t, 15, 15)
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY, v text)`, `INSERT INTO a VALUES (1, 'v')`)
			m := newMirror(t, src, dst, "public.*", "--route", "public.*=copy.the_*", "--set", "schema.change.behavior=lenient")
			m.start()
			m.caughtUp()
			src.exec(t, `ALTER TABLE a ADD COLUMN w int`, `INSERT INTO a VALUES (2, 'v', 2)`, `ALTER TABLE a RENAME v TO x`, `INSERT INTO a VALUES (3, 'y', 3)`)
			m.caughtUp()
			if got := fmt.Sprint(dst.query(t, `SELECT id, v, w, x FROM copy.the_a ORDER BY id`)); got != "[[1 v NULL NULL] [2 v 2 NULL] [3 NULL 3 y]]" {
				t.Errorf("the target has %s", got)
			}
		}},
		{"D4 a dropped column that was NOT NULL", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, gone text NOT NULL, v text)`, `INSERT INTO a VALUES (1, 'g', 'v')`)
			m.after(`ALTER TABLE a DROP COLUMN gone`, `INSERT INTO a VALUES (2, 'v')`)
		}},
		{"D4 a dropped column that stays, when nothing may be lost", func(t *testing.T) {
			src, dst := pair(t, 15, 15)
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY, gone text NOT NULL, v text)`, `INSERT INTO a VALUES (1, 'g', 'v')`)
			m := newMirror(t, src, dst, "public.*", "--set", "schema.change.behavior=lenient")
			m.start()
			m.caughtUp()
			src.exec(t, `ALTER TABLE a DROP COLUMN gone`, `INSERT INTO a VALUES (2, 'w')`)
			m.caughtUp()
			if got := fmt.Sprint(dst.query(t, `SELECT id, gone, v FROM a ORDER BY id`)); got != "[[1 g v] [2 NULL w]]" {
				t.Errorf("the target has %s", got)
			}
		}},
		{"D5 shapes that change while weir is down", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, v text, w int)`, `INSERT INTO a SELECT i, 'v', i FROM generate_series(1, 100) i`)
			m.stop()
			m.src.exec(t, `ALTER TABLE a ADD COLUMN x int DEFAULT 3`, `UPDATE a SET x = 4 WHERE id = 1`, `ALTER TABLE a RENAME v TO name`, `UPDATE a SET name = 'n' WHERE id = 2`, `ALTER TABLE a ALTER w TYPE bigint`, `UPDATE a SET w = 5000000000 WHERE id = 3`)
			m.start()
			m.after(`INSERT INTO a VALUES (200, 'z', 1, 2)`)
		}},
		{"D6 a rename keeps the values", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, old text)`, `INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 100) i`)
			m.after(`ALTER TABLE a RENAME old TO new`, `UPDATE a SET new = 'x' WHERE id = 1`, `ALTER TABLE a RENAME TO b`, `INSERT INTO b VALUES (200, 'y')`, `ALTER TABLE b RENAME id TO key`, `UPDATE b SET key = -key WHERE key < 10`)
		}},
		{"D8 generated columns", func(t *testing.T) {
			for _, v := range []testenv.Version{15, 18} {
				m := mirrorOf(t, v, 15, `CREATE TABLE a(id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED)`, `INSERT INTO a(id, n) SELECT i, i FROM generate_series(1, 100) i`)
				m.after(`UPDATE a SET n = n + 1`, `INSERT INTO a(id, n) VALUES (200, 7)`, `DELETE FROM a WHERE id < 5`)
			}
		}},
		{"D9 types and tables that rewrite", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, n int, v varchar(10))`, `INSERT INTO a SELECT i, i, 'v' FROM generate_series(1, 1000) i`)
			m.after(`ALTER TABLE a ALTER n TYPE numeric(10,2)`, `UPDATE a SET n = n / 3`, `ALTER TABLE a ALTER v TYPE text`, `UPDATE a SET v = repeat('x', 50) WHERE id = 1`, `VACUUM FULL a`, `CLUSTER a USING a_pkey`, `ALTER TABLE a ALTER id TYPE bigint`, `INSERT INTO a VALUES (5000000000, 1, 'big')`)
		}},
		{"D10 a refresh after a change that no row has told", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, v text)`, `INSERT INTO a SELECT i, 'v' FROM generate_series(1, 100) i`)
			m.src.exec(t, `ALTER TABLE a ADD COLUMN w int DEFAULT 9`)
			m.dst.exec(t, `DELETE FROM a WHERE id < 50`)
			m.mustCLI("sources", "refresh", "public.a", "--yes")
			m.after(`UPDATE a SET w = 10 WHERE id = 99`)
		}},
		{"D11 a table dropped and made again under its name", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, v text)`, `INSERT INTO a SELECT i, 'v' FROM generate_series(1, 100) i`)
			m.src.exec(t, `DROP TABLE a`, `CREATE TABLE a(id int PRIMARY KEY, other int)`, `INSERT INTO a SELECT i, i FROM generate_series(1, 50) i`)
			eventually(t, waitLimit, "the new table is copied", func() (bool, string) {
				rows, err := m.dst.srv.Run(context.Background(), m.dst.name, `SELECT count(other) FROM a`)
				return err == nil && fmt.Sprint(rows) == "[[50]]", fmt.Sprint(rows, err)
			})
			m.after(`UPDATE a SET other = 0`)
		}},
		{"D12 a new table with a new type in a new schema", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY)`)
			m.after(`CREATE SCHEMA fresh`, `CREATE TYPE fresh.mood AS ENUM ('sad', 'happy')`, `CREATE TABLE fresh.t(id int PRIMARY KEY, m fresh.mood)`, `INSERT INTO fresh.t VALUES (1, 'sad')`)
			m.after(`ALTER TYPE fresh.mood ADD VALUE 'so so' BEFORE 'happy'`, `INSERT INTO fresh.t VALUES (2, 'so so')`)
		}},
		{"T2 unique values change places", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY DEFERRED, body text)`, `ALTER TABLE a ALTER body SET STORAGE EXTERNAL`,
				`INSERT INTO a SELECT i, i, repeat(md5(i::text), 100) FROM generate_series(1, 20) i`, `CREATE TABLE b(id int PRIMARY KEY, u text UNIQUE)`, `INSERT INTO b SELECT i, 'u' || i FROM generate_series(1, 20) i`)
			m.after(`UPDATE a SET u = 21 - u`, `BEGIN; UPDATE b SET u = 'tmp' WHERE id = 1; UPDATE b SET u = 'u1' WHERE id = 2; UPDATE b SET u = 'u2' WHERE id = 1; COMMIT`,
				`BEGIN; DELETE FROM b WHERE id = 3; INSERT INTO b VALUES (100, 'u3'); UPDATE b SET u = 'u4x' WHERE id = 4; INSERT INTO b VALUES (101, 'u4'); COMMIT`, `UPDATE a SET id = id + 1000`)
		}},
		{"T4 more values than a statement may have", func(t *testing.T) {
			cols := make([]string, 60)
			for i := range cols {
				cols[i] = fmt.Sprintf("c%d int DEFAULT %d", i, i)
			}
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, `+strings.Join(cols, ", ")+`)`)
			m.after(`INSERT INTO a(id) SELECT i FROM generate_series(1, 20000) i`, `UPDATE a SET c0 = id, c59 = -id`, `DELETE FROM a WHERE id % 2 = 0`)
		}},
		{"T5 what text cannot hold", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, j json, b bytea)`, `INSERT INTO a VALUES (1, '"\u0000"', '\x00')`)
			m.after(`INSERT INTO a VALUES (2, '{"k": "\u0000\ud83d\ude00"}', '\x0000ff')`, `UPDATE a SET j = '"\u0000\u0000"' WHERE id = 1`)
		}},
		{"T7 one key many times in one transaction", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE a(id int PRIMARY KEY, v text)`, `INSERT INTO a VALUES (1, 'x'), (2, 'y')`)
			m.after(`BEGIN; UPDATE a SET v = 'a' WHERE id = 1; UPDATE a SET v = 'b' WHERE id = 1; DELETE FROM a WHERE id = 1; INSERT INTO a VALUES (1, 'c'); UPDATE a SET id = 3 WHERE id = 1; UPDATE a SET id = 1 WHERE id = 2;
				UPDATE a SET id = 2 WHERE id = 3; UPDATE a SET v = v || '!'; COMMIT`, `BEGIN; INSERT INTO a VALUES (9, 'in'); DELETE FROM a WHERE id = 9; COMMIT`)
		}},
		{"T8 triggers and foreign keys do not act twice", func(t *testing.T) {
			m := mirrorOf(t, 15, 15, `CREATE TABLE parent(id int PRIMARY KEY)`, `CREATE TABLE child(id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE)`,
				`INSERT INTO parent SELECT generate_series(1, 50)`, `INSERT INTO child SELECT i, i % 50 + 1 FROM generate_series(1, 500) i`)
			m.after(`DELETE FROM parent WHERE id < 10`, `UPDATE parent SET id = id + 1000 WHERE id < 20`, `BEGIN; INSERT INTO child VALUES (1000, NULL); INSERT INTO parent VALUES (9999); UPDATE child SET p = 9999 WHERE id = 1000; COMMIT`, `TRUNCATE parent, child`)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t)
		})
	}
}
