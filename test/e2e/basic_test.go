package e2e

import (
	"fmt"
	"testing"

	testenv "github.com/weirstream/weir/test/env"
)

// source and target are the servers that tests which do not restart them share. The small decoding memory makes the
// source send many transactions before their end.
func source(t testing.TB, v testenv.Version) *testenv.Server {
	t.Helper()
	opts := []testenv.Option{testenv.FsyncOff(), testenv.WithSetting("cluster_name", "source")}
	if v >= 13 {
		opts = append(opts, testenv.WithSetting("logical_decoding_work_mem", "64kB"))
	}
	return testenv.Shared(t, v, opts...)
}

func target(t testing.TB, v testenv.Version) *testenv.Server {
	t.Helper()
	return testenv.Shared(t, v, testenv.FsyncOff(), testenv.WithSetting("cluster_name", "target"))
}

// pair makes a source and a target database on servers of the given versions.
func pair(t testing.TB, sv, tv testenv.Version) (src, dst db) {
	t.Helper()
	return newDB(t, source(t, sv), "src"), newDB(t, target(t, tv), "dst")
}

// TestBasic is the story of the manual: copy, follow, stop, go on. Between every two neighbouring ages of servers.
func TestBasic(t *testing.T) {
	pairs := [][2]testenv.Version{{15, 15}, {12, 18}, {18, 12}}
	if *soakFlag {
		pairs = nil
		for _, s := range testenv.Versions() {
			for _, d := range testenv.Versions() {
				pairs = append(pairs, [2]testenv.Version{s, d})
			}
		}
	}
	for _, p := range pairs {
		t.Run(fmt.Sprintf("%s-to-%s", p[0], p[1]), func(t *testing.T) {
			src, dst := pair(t, p[0], p[1])
			src.exec(t, `CREATE TABLE item(id int PRIMARY KEY, name text, price numeric(10,2), at timestamptz DEFAULT now())`,
				`INSERT INTO item SELECT i, 'item ' || i, i / 7.0 FROM generate_series(1, 5000) i`,
				`CREATE TABLE part(id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region)`,
				`CREATE TABLE part_a PARTITION OF part FOR VALUES IN ('a')`, `CREATE TABLE part_b PARTITION OF part FOR VALUES IN ('b')`,
				`INSERT INTO part SELECT i, CASE i % 2 WHEN 0 THEN 'a' ELSE 'b' END, 'x' FROM generate_series(1, 100) i`)
			if p[0] < 13 {
				// 12 cannot publish a partitioned table; each partition is a table of its own there, and so at the target.
				src.exec(t, `DROP TABLE part`)
			}
			m := newMirror(t, src, dst, "public.*")
			m.start()
			m.caughtUp()
			requireEqual(t, src, dst)
			src.exec(t, `UPDATE item SET price = price * 2 WHERE id % 3 = 0`, `DELETE FROM item WHERE id % 10 = 0`,
				`INSERT INTO item VALUES (100001, 'late', NULL)`, `UPDATE item SET id = id + 1000000 WHERE id < 20`)
			if p[0] >= 13 {
				src.exec(t, `UPDATE part SET region = 'b' WHERE id < 10`)
			}
			m.caughtUp()
			requireEqual(t, src, dst)
			m.stop()
			src.exec(t, `INSERT INTO item SELECT i, 'down', 1 FROM generate_series(200000, 210000) i`, `TRUNCATE item`,
				`INSERT INTO item SELECT i, 'after', 1 FROM generate_series(1, 100) i`)
			m.start()
			m.caughtUp()
			requireEqual(t, src, dst)
			requireConsistent(t, m)
		})
	}
}
