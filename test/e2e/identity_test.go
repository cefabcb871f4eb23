package e2e

import (
	"fmt"
	"testing"
	"time"
)

// TestIdentityChanges: rows are found by another key than a moment before, also within one transaction. What is pending
// at the target is found by the key that it came with.
func TestIdentityChanges(t *testing.T) {
	changes := map[string][]string{
		"from an index to the key": {`DELETE FROM ri WHERE id = 11`, `ALTER TABLE ri REPLICA IDENTITY DEFAULT`, `DELETE FROM ri WHERE id = 12`},
		"within a transaction": {`BEGIN; DELETE FROM ri WHERE id BETWEEN 10 AND 20; UPDATE ri SET v = 'x' WHERE id < 5; ALTER TABLE ri REPLICA IDENTITY DEFAULT;
			UPDATE ri SET v = 'y' WHERE id BETWEEN 4 AND 8; ALTER TABLE ri REPLICA IDENTITY FULL; UPDATE ri SET id = id + 100 WHERE id > 30; DELETE FROM ri WHERE id = 131; COMMIT`},
		"the row moves under both": {`UPDATE ri SET k = k + 1000 WHERE id = 7`, `ALTER TABLE ri REPLICA IDENTITY DEFAULT`, `UPDATE ri SET v = 'default' WHERE id = 20`, `UPDATE ri SET id = 70 WHERE id = 7`},
		"two indexes in turn": {`UPDATE ri SET l = l + 1000 WHERE id = 3`, `UPDATE ri SET k = k + 1000 WHERE id = 3`, `ALTER TABLE ri REPLICA IDENTITY USING INDEX ri_l_key`,
			`UPDATE ri SET l = l + 1000 WHERE id = 3`, `DELETE FROM ri WHERE id = 4`, `ALTER TABLE ri REPLICA IDENTITY USING INDEX ri_k_key`, `DELETE FROM ri WHERE id = 3`},
		"another primary key": {`ALTER TABLE ri REPLICA IDENTITY DEFAULT`,
			`BEGIN; DELETE FROM ri WHERE id = 10; UPDATE ri SET id = 4000 WHERE id = 40; ALTER TABLE ri DROP CONSTRAINT ri_pkey; ALTER TABLE ri ADD PRIMARY KEY (k); DELETE FROM ri WHERE k = 11; UPDATE ri SET k = 5000 WHERE k = 40; COMMIT`},
	}
	for name, sql := range changes {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, weir away %v", name, away), func(t *testing.T) {
				t.Parallel()
				src, dst := pair(t, 15, 15)
				src.exec(t, `CREATE TABLE ri(id int PRIMARY KEY, k int NOT NULL UNIQUE, l int NOT NULL UNIQUE, v text); INSERT INTO ri SELECT g, g, g, 'v' FROM generate_series(1, 50) g`,
					`ALTER TABLE ri REPLICA IDENTITY USING INDEX ri_k_key`)
				m := newMirror(t, src, dst, "public.*", "--set", "on.missing.row=error")
				m.start()
				m.caughtUp()
				if away {
					m.kill()
				}
				src.exec(t, sql...)
				if away {
					m.start()
				}
				m.caughtUp()
				requireEqual(t, src, dst)
				requireConsistent(t, m)
			})
		}
	}
}

// TestIdentityAlternates: single deletes while the identity goes to and fro, and the table is copied.
func TestIdentityAlternates(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, `CREATE TABLE ri(id int PRIMARY KEY, k int NOT NULL UNIQUE, v text); INSERT INTO ri SELECT g, -g, 'v' FROM generate_series(1, 3000) g; INSERT INTO ri SELECT g, -g, repeat(md5(g::text), 10) FROM generate_series(10000, 20000) g`)
	m := newMirror(t, src, dst, "public.*", "--set", "on.missing.row=error", "--set", "snapshot.chunk.bytes=1MB")
	m.start()
	m.caughtUp()
	m.stop()
	m.server()
	m.caughtUp()
	d := startProgram(t, src, func(n int) string {
		return fmt.Sprintf(`DELETE FROM ri WHERE id = %d; UPDATE ri SET k = k - 100000, v = 'w' WHERE id = %d`, n+1, 3000-n)
	}, time.Millisecond)
	for range 8 {
		d.more(t, 50)
		src.exec(t, `ALTER TABLE ri REPLICA IDENTITY USING INDEX ri_k_key`)
		m.mustCLI("sources", "refresh", "public.ri", "--yes")
		d.more(t, 50)
		src.exec(t, `ALTER TABLE ri REPLICA IDENTITY DEFAULT`)
	}
	d.stop(t)
	m.caughtUp()
	requireEqual(t, src, dst)
	requireConsistent(t, m)
}

// TestKeyCheckedLate: a primary key that is deferrable lets rows share a key for a while, so that only all of a row's
// values tell it. An exclusion constraint has no row that comes before another.
func TestKeyCheckedLate(t *testing.T) {
	for _, lanes := range []string{"1", "2"} {
		t.Run("lanes "+lanes, func(t *testing.T) {
			t.Parallel()
			src, dst := pair(t, 15, 15)
			src.exec(t, `CREATE TABLE late(id int PRIMARY KEY DEFERRABLE, v text, big text); ALTER TABLE late REPLICA IDENTITY FULL; ALTER TABLE late ALTER big SET STORAGE EXTERNAL`,
				`INSERT INTO late SELECT i, 'v' || i, repeat(md5(i::text), 200) FROM generate_series(1, 100) i`,
				`CREATE TABLE turned(id int PRIMARY KEY, v text); ALTER TABLE turned REPLICA IDENTITY FULL; INSERT INTO turned SELECT i, 'v' || i FROM generate_series(1, 100) i`,
				`CREATE EXTENSION btree_gist`, `CREATE TABLE booking(id int PRIMARY KEY, room int, during tsrange, EXCLUDE USING gist (room WITH =, during WITH &&))`,
				`INSERT INTO booking SELECT i, i % 3, tsrange(timestamp '2026-01-01' + i * interval '1 hour', timestamp '2026-01-01' + (i + 3) * interval '1 hour') FROM generate_series(1, 60) i`)
			dst.exec(t, `CREATE EXTENSION btree_gist`)
			m := newMirror(t, src, dst, "public.*", "--set", "on.missing.row=error", "--set", "sink.lanes="+lanes)
			m.start()
			m.caughtUp()
			for _, sql := range []string{
				`UPDATE late SET id = 101 - id`, `UPDATE late SET id = id + 1`, `UPDATE late SET id = id - 1, v = v || 'x' WHERE id % 2 = 0 OR true`,
				`BEGIN; SET CONSTRAINTS ALL DEFERRED; INSERT INTO late VALUES (7, 'new', NULL); DELETE FROM late WHERE id = 7 AND v <> 'new'; INSERT INTO late VALUES (8, 'a', 'b'), (8, 'a', 'b'); DELETE FROM late WHERE id = 8; COMMIT`,
				`ALTER TABLE turned DROP CONSTRAINT turned_pkey, ADD PRIMARY KEY (id) DEFERRABLE; UPDATE turned SET id = 101 - id`,
				`UPDATE turned SET id = 102 - id`,
				`BEGIN; CREATE TEMP TABLE two ON COMMIT DROP AS SELECT * FROM booking WHERE id IN (3, 6); UPDATE booking SET during = 'empty' WHERE id = 3;
					UPDATE booking SET during = (SELECT during FROM two WHERE two.id = 3) WHERE id = 6; UPDATE booking SET during = (SELECT during FROM two WHERE two.id = 6) WHERE id = 3; COMMIT`,
				`BEGIN; DELETE FROM booking WHERE id = 9; UPDATE booking SET during = during + during WHERE id = 12; INSERT INTO booking SELECT 1000, room, tsrange(upper(during), upper(during) + interval '1 minute') FROM booking WHERE id = 60; COMMIT`,
			} {
				src.exec(t, sql)
			}
			m.caughtUp()
			requireEqual(t, src, dst)
			m.kill()
			src.exec(t, `UPDATE late SET id = 200 - id`, `UPDATE late SET id = id + 1`, `DELETE FROM late WHERE id % 7 = 0`, `UPDATE late SET id = 300 - id`,
				`UPDATE booking SET during = tsrange(lower(during) + interval '1 year', upper(during) + interval '1 year')`,
				`UPDATE booking SET room = room + 10`)
			m.start()
			m.caughtUp()
			requireEqual(t, src, dst)
			requireConsistent(t, m)
		})
	}
}
