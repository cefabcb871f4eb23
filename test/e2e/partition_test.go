package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// TestPartitionIdentity: a row of a partition comes under its root's name, with what the partition's own replica identity
// tells of the row before.
func TestPartitionIdentity(t *testing.T) {
	cases := []struct {
		name  string
		setup []string
		while []string // weir runs; what it cannot follow
		fix   string   // "": it can
	}{
		{name: "a key, whole rows", setup: []string{`CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)`, `CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)`,
			`ALTER TABLE p ADD PRIMARY KEY (id, k)`, `ALTER TABLE p1 REPLICA IDENTITY FULL`}},
		{name: "whole rows, whole rows", setup: []string{`CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)`, `CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)`,
			`ALTER TABLE p REPLICA IDENTITY FULL`, `ALTER TABLE p1 REPLICA IDENTITY FULL`, `ALTER TABLE p2 REPLICA IDENTITY FULL`}},
		{name: "nothing, whole rows", setup: []string{`CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)`, `CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)`,
			`ALTER TABLE p1 REPLICA IDENTITY FULL`, `ALTER TABLE p2 REPLICA IDENTITY FULL`}},
		{name: "a key, another index", setup: []string{`ALTER TABLE p ADD PRIMARY KEY (id, k)`, `CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)`},
			while: []string{`CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)`, `CREATE UNIQUE INDEX px ON p1 (x)`, `ALTER TABLE p1 REPLICA IDENTITY USING INDEX px`},
			fix:   `ALTER TABLE "public"."p1" REPLICA IDENTITY DEFAULT;`},
		{name: "a key, another index from now on", setup: []string{`ALTER TABLE p ADD PRIMARY KEY (id, k)`, `CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)`,
			`CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)`, `CREATE UNIQUE INDEX px ON p1 (x)`},
			while: []string{`UPDATE p SET x = x + 10000`, `ALTER TABLE p1 REPLICA IDENTITY USING INDEX px`},
			fix:   `ALTER TABLE "public"."p1" REPLICA IDENTITY DEFAULT;`},
		{name: "whole rows, a key", setup: []string{`ALTER TABLE p REPLICA IDENTITY FULL`, `CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)`, `ALTER TABLE p2 REPLICA IDENTITY FULL`},
			while: []string{`CREATE TABLE p1 (id int PRIMARY KEY, k int NOT NULL, x int NOT NULL, v text)`, `ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1)`},
			fix:   `ALTER TABLE "public"."p1" REPLICA IDENTITY FULL;`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			src, dst := pair(t, 15, 15)
			src.exec(t, `CREATE TABLE p (id int NOT NULL, k int NOT NULL, x int NOT NULL, v text) PARTITION BY LIST (k)`)
			src.exec(t, c.setup...)
			src.exec(t, `INSERT INTO p SELECT i, 2, i, repeat(md5(i::text), 200) FROM generate_series(1, 300) i`)
			others := `INSERT INTO p SELECT i, 1, i, repeat(md5(i::text), 200) FROM generate_series(301, 600) i`
			if c.fix == "" {
				src.exec(t, others)
			}
			m := served(t, src, dst)
			if c.fix != "" {
				src.exec(t, c.while...)
				src.exec(t, others)
			}
			src.exec(t, `UPDATE p SET id = id + 1000 WHERE id % 3 = 0`, `UPDATE p SET x = x + 1000 WHERE id % 5 = 0`, `UPDATE p SET v = 'new' WHERE id % 7 = 0`,
				`UPDATE p SET k = 3 - k WHERE id % 50 = 0`, `DELETE FROM p WHERE id % 4 = 0`)
			if c.fix != "" {
				if e := m.failsWith("W1008"); e.Fix != c.fix {
					t.Errorf("the mirror stops with %+v, want the fix %s", e, c.fix)
				}
				src.exec(t, c.fix, `UPDATE p SET v = 'newer' WHERE id % 11 = 0`)
				m.mustCLI("sources", "refresh", "public.p", "--yes")
				m.mustCLI("pipelines", "resume", m.name)
			}
			m.caughtUp()
			src.exec(t, `UPDATE p SET id = id + 5000 WHERE id % 9 = 0`, `DELETE FROM p WHERE id % 8 = 3`)
			m.caughtUp()
			requireEqual(t, src, dst)
		})
	}
}

// TestPartitionedTableWaits: a table that appears joins when each of its partitions tells which rows change.
func TestPartitionedTableWaits(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, `CREATE TABLE first (id int PRIMARY KEY)`)
	m := served(t, src, dst)
	src.exec(t, `CREATE TABLE p (id int NOT NULL, k int NOT NULL) PARTITION BY LIST (k); ALTER TABLE p REPLICA IDENTITY FULL;
		CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); ALTER TABLE p1 ADD PRIMARY KEY (id); INSERT INTO p SELECT i, 1 FROM generate_series(1, 100) i`)
	eventually(t, waitLimit, "the table waits", func() (bool, string) {
		log := m.logTail(3)
		return strings.Contains(log, `partition=public.p1`) && strings.Contains(log, "REPLICA IDENTITY FULL;"), log
	})
	src.exec(t, `DELETE FROM p WHERE id % 2 = 0`, `ALTER TABLE p1 REPLICA IDENTITY FULL`, `DELETE FROM p WHERE id % 3 = 0`)
	m.caughtUp()
	src.exec(t, `DELETE FROM p WHERE id % 5 = 0`)
	m.caughtUp()
	requireEqual(t, src, dst)
}

// TestPartitionTruncated: the log does not tell of a TRUNCATE of a partition alone, nor of the rows of a table that is
// attached. The whole table is copied again; not so where partitions are written anew, or the whole table is truncated.
func TestPartitionTruncated(t *testing.T) {
	cases := []struct {
		name  string
		sql   []string // @ is the table, @1 its first partition
		again bool
	}{
		{"truncated", []string{`TRUNCATE @1`}, true},
		{"truncated and filled", []string{`TRUNCATE @1`, `INSERT INTO @ SELECT i, 1 FROM generate_series(1001, 1010) i`}, true},
		{"below another partition", []string{`TRUNCATE @3a`}, true},
		{"attached with rows", []string{`CREATE TABLE @4 (LIKE @ INCLUDING ALL)`, `INSERT INTO @4 SELECT i, 4 FROM generate_series(1, 10) i`, `ALTER TABLE @ ATTACH PARTITION @4 FOR VALUES IN (4)`}, true},
		{"made", []string{`CREATE TABLE @4 PARTITION OF @ FOR VALUES IN (4)`, `INSERT INTO @ SELECT i, 4 FROM generate_series(1, 10) i`}, false},
		{"written anew", []string{`VACUUM FULL @1`, `CLUSTER @2 USING @2_pkey`}, false},
		{"another type", []string{`ALTER TABLE @ ALTER id TYPE bigint`, `INSERT INTO @ VALUES (1001, 1)`}, false},
		{"all of it", []string{`TRUNCATE @`, `INSERT INTO @ SELECT i, 1 FROM generate_series(1, 10) i`}, false},
	}
	name := func(i int) string { return fmt.Sprintf("p%d_", i) }
	for _, mode := range []string{"followed", "while weir is away"} {
		for _, large := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, large values %v", mode, large), func(t *testing.T) {
				t.Parallel()
				src, dst := pair(t, 15, 15)
				more := ""
				if large {
					more = ", v text DEFAULT 'v'"
				}
				for i := range cases {
					src.exec(t, strings.ReplaceAll(`CREATE TABLE @ (id int, k int`+more+`, PRIMARY KEY (id, k)) PARTITION BY LIST (k); CREATE TABLE @1 PARTITION OF @ FOR VALUES IN (1);
						CREATE TABLE @2 PARTITION OF @ FOR VALUES IN (2); CREATE TABLE @3 PARTITION OF @ FOR VALUES IN (3, 5) PARTITION BY LIST (k);
						CREATE TABLE @3a PARTITION OF @3 FOR VALUES IN (3); INSERT INTO @ SELECT i, 1 + i % 3 FROM generate_series(1, 300) i; ANALYZE @`, "@", name(i)))
				}
				// One that is to be attached must not join by itself before.
				m := newMirror(t, src, dst, "public.*", "--except", "public.*_4")
				m.start()
				m.caughtUp()
				if mode != "followed" {
					m.kill()
				}
				for i, c := range cases {
					for _, sql := range c.sql {
						src.exec(t, strings.ReplaceAll(sql, "@", name(i)))
					}
				}
				if mode != "followed" {
					m.start()
				}
				rows := func(d db) (counts string) {
					for i := range cases {
						counts += d.one(t, `SELECT count(*) FROM `+name(i)) + " "
					}
					return counts
				}
				want := rows(src)
				eventually(t, waitLimit, "the tables are copied again", func() (bool, string) { got := rows(dst); return got == want, got + "want " + want })
				m.caughtUp()
				requireEqual(t, src, dst)
				for i, c := range cases {
					if c.name == "written anew" && mode != "followed" || c.name == "another type" && !large {
						continue // it looks the same
					}
					if got := strings.Contains(m.log(), "table=public."+name(i)); got != c.again {
						t.Errorf("%s: copied again %v, want %v", c.name, got, c.again)
					}
				}
			})
		}
	}
}

// TestPartitionReloaded: a partition is truncated and filled with rows of the same keys. The target, which has the old
// ones, refuses them, and that is how weir gets to know.
func TestPartitionReloaded(t *testing.T) {
	for _, lanes := range []string{"1", "2"} {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("lanes %s, weir away %v", lanes, away), func(t *testing.T) {
				t.Parallel()
				src, dst := pair(t, 15, 15)
				src.exec(t, `CREATE TABLE p(id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)`,
					`INSERT INTO p SELECT i, 1 + i % 2, 'v' FROM generate_series(1, 2000) i`, `CREATE TABLE other(id int PRIMARY KEY); INSERT INTO other VALUES (1)`)
				m := newMirror(t, src, dst, "public.*", "--route", "public.p=public.parts", "--set", "discovery.interval=10s", "--set", "sink.lanes="+lanes)
				m.start()
				m.caughtUp()
				for range 2 {
					if away {
						m.kill()
					}
					src.exec(t, `BEGIN; CREATE TEMP TABLE rows ON COMMIT DROP AS SELECT * FROM p1; TRUNCATE p1; INSERT INTO p SELECT id, k, v || 'x' FROM rows WHERE id % 3 > 0; COMMIT`,
						`INSERT INTO other SELECT max(id) + 1 FROM other`, `UPDATE p SET v = v || 'y' WHERE id % 10 = 4`)
					if away {
						m.start()
					}
					want := src.one(t, `SELECT md5(string_agg(p::text, '|' ORDER BY id)) FROM p`)
					eventually(t, waitLimit, "the table is copied again", func() (bool, string) {
						got := dst.one(t, `SELECT md5(string_agg(p::text, '|' ORDER BY id)) FROM parts p`)
						return got == want, got
					})
				}
				m.caughtUp()
				requireConsistent(t, m)
			})
		}
	}
}

// TestPartitionSplit: the rows of a default partition go to others that are made for them. The target's table may be
// partitioned, too.
func TestPartitionSplit(t *testing.T) {
	for _, made := range []bool{false, true} {
		t.Run(fmt.Sprintf("the target's is partitioned %v", made), func(t *testing.T) {
			t.Parallel()
			src, dst := pair(t, 15, 15)
			src.exec(t, `CREATE TABLE m(id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE m0 PARTITION OF m FOR VALUES FROM (0) TO (100); CREATE TABLE md PARTITION OF m DEFAULT`,
				`INSERT INTO m SELECT i, 'v' FROM generate_series(1, 300) i`)
			if made {
				dst.exec(t, `CREATE TABLE m(id int PRIMARY KEY, v text) PARTITION BY HASH (id); CREATE TABLE h0 PARTITION OF m FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE h1 PARTITION OF m FOR VALUES WITH (MODULUS 2, REMAINDER 1)`)
			}
			m := newMirror(t, src, dst, "public.*", "--set", "discovery.interval=10s")
			m.start()
			m.caughtUp()
			for _, sql := range []string{
				`BEGIN; ALTER TABLE m DETACH PARTITION md; CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (100) TO (200); CREATE TABLE m2 PARTITION OF m DEFAULT; INSERT INTO m SELECT id, v || 'x' FROM md WHERE id % 5 > 0; DROP TABLE md; COMMIT`,
				`BEGIN; CREATE TEMP TABLE rows ON COMMIT DROP AS SELECT * FROM m0; TRUNCATE m0; INSERT INTO m SELECT id, v || 'y' FROM rows WHERE id % 3 > 0; COMMIT`,
			} {
				src.exec(t, sql)
				const rows = `SELECT md5(string_agg(m::text, '|' ORDER BY id)) FROM m`
				want := src.one(t, rows)
				eventually(t, waitLimit, "the table is copied again", func() (bool, string) { got := dst.one(t, rows); return got == want, got })
			}
			m.caughtUp()
			requireConsistent(t, m)
		})
	}
}

// TestPartitionsApart: Postgres 12 cannot publish a partitioned table. Each of its partitions is a table of its own.
func TestPartitionsApart(t *testing.T) {
	src, dst := pair(t, 12, 15)
	src.exec(t, `CREATE TABLE plain(id int PRIMARY KEY); INSERT INTO plain VALUES (1)`,
		`CREATE TABLE root(id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k); CREATE TABLE r1 PARTITION OF root FOR VALUES IN (1); CREATE TABLE r2 PARTITION OF root FOR VALUES IN (2, 3) PARTITION BY LIST (k); CREATE TABLE r2a PARTITION OF r2 FOR VALUES IN (2)`,
		`INSERT INTO root SELECT i, 1 + i % 2, 'v' FROM generate_series(1, 1000) i`)
	m := newMirror(t, src, dst, "public.*", "--set", "on.missing.row=error")
	out, errOut, code := m.cli("mirror", src.url, dst.url, "--tables", "public.*", "--dry-run")
	if code != 0 || !strings.Contains(out, "public.r2a") || strings.Contains(out, "public.root will be created") {
		t.Errorf("dry run: exit code %d\n%s%s", code, out, errOut)
	}
	m.start()
	m.caughtUp()
	src.exec(t, `UPDATE root SET k = 3 - k WHERE id % 3 = 0`, `DELETE FROM root WHERE id % 5 = 0`, `CREATE TABLE r3 PARTITION OF root FOR VALUES IN (5)`, `INSERT INTO root SELECT i, 5, 'new' FROM generate_series(1, 10) i`)
	rows := func(d db) string {
		counts := ""
		for _, name := range []string{"r1", "r2a", "r3"} {
			if d.one(t, `SELECT count(*) FROM pg_class WHERE relname = '`+name+`'`) == "1" {
				counts += name + " " + d.one(t, `SELECT count(*) || md5(string_agg(x::text, '|' ORDER BY id)) FROM `+name+` x`) + "; "
			}
		}
		return counts
	}
	want := rows(src)
	eventually(t, waitLimit, "the partitions are equal", func() (bool, string) { got := rows(dst); return got == want, got + "want " + want })
	requireConsistent(t, m)
	if out, errOut, code := m.cli("mirror", "verify", src.url, dst.url, "--tables", "public.*"); code != 0 {
		t.Errorf("verify: exit code %d\n%s%s", code, out, errOut)
	}
}
