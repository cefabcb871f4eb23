package e2e

import (
	"fmt"
	"testing"
	"time"

	testenv "github.com/weirstream/weir/test/env"
)

// TestQueryTables: partitioned tables, domains, enums, generated columns, names in mixed case and a publication of one's own
// with a condition, copied and then followed through TRUNCATE and changes of columns.
func TestQueryTables(t *testing.T) {
	versions := []testenv.Version{testenv.Oldest, testenv.Newest}
	if *soakFlag {
		versions = testenv.Versions()
	}
	for _, v := range versions {
		t.Run(fmt.Sprint(v), func(t *testing.T) {
			t.Parallel()
			tablesOf(t, v)
		})
	}
}

func tablesOf(t *testing.T, v testenv.Version) {
	src := newDB(t, source(t, v), "tables")
	partitioned, conditions := v >= 13, v >= 15
	src.exec(t, `CREATE TYPE mood AS ENUM ('good', 'bad')`, `CREATE DOMAIN cents AS int CHECK (VALUE >= 0)`,
		`CREATE TABLE "Odd names" ("Id" int PRIMARY KEY, mood mood, price cents, twice int GENERATED ALWAYS AS ("Id" * 2) STORED, note varchar(5))`,
		`INSERT INTO "Odd names" ("Id", mood, price, note) SELECT i, 'good', i, 'n' FROM generate_series(1, 50) i`)
	if partitioned {
		src.exec(t, `CREATE TABLE events (day int, id int, n bigint, PRIMARY KEY (day, id)) PARTITION BY RANGE (day)`,
			`CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10)`, `CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20)`,
			`INSERT INTO events SELECT i % 20, i, i FROM generate_series(1, 100) i`)
	} else {
		src.exec(t, `CREATE TABLE events (day int, id int, n bigint, PRIMARY KEY (day, id))`, `INSERT INTO events SELECT i % 20, i, i FROM generate_series(1, 100) i`)
	}
	own, where := "", ""
	if conditions {
		own, where = ", 'publication.name' = 'mine'", " WHERE \"Id\" > 10"
		src.exec(t, `CREATE PUBLICATION mine FOR TABLE events, "Odd names" WHERE ("Id" > 10) WITH (publish_via_partition_root)`)
	}
	with := func(table string) string {
		return fmt.Sprintf("WITH ('connector' = 'postgres-cdc', 'url' = '%s', 'table-name' = '%s'%s)", src.url, table, own)
	}
	q := newQueries(t, `
CREATE TABLE odd (`+"`Id`"+` INT, mood STRING, price INT, note STRING, PRIMARY KEY (`+"`Id`"+`) NOT ENFORCED) `+with("Odd names")+`;
CREATE TABLE events (`+"`day`"+` INT, id INT, n BIGINT, PRIMARY KEY (`+"`day`"+`, id) NOT ENFORCED) `+with("events")+`;
CREATE MATERIALIZED VIEW moods AS SELECT mood, COUNT(*) AS n, SUM(price) AS price, MAX(note) AS note FROM odd GROUP BY mood;
CREATE MATERIALIZED VIEW days AS SELECT `+"`day`"+`, COUNT(*) AS n, SUM(n) AS total FROM events GROUP BY `+"`day`"+`;
`)
	q.begin("--pg-addr", "127.0.0.1:0")
	same := func(what string) {
		t.Helper()
		eventually(t, 30*time.Second, what, func() (bool, string) {
			want := src.one(t, `SELECT coalesce(string_agg(concat_ws(' ', mood, n, price, note), ',' ORDER BY mood), '') FROM (SELECT mood::text, count(*) AS n, sum(price) AS price, max(note) AS note FROM "Odd names"`+where+` GROUP BY 1) x`) +
				"; " + src.one(t, `SELECT coalesce(string_agg(concat_ws(' ', day, n, total), ',' ORDER BY day), '') FROM (SELECT day, count(*) AS n, sum(n) AS total FROM events GROUP BY 1) x`)
			var moods, days *string // nothing of nothing is NULL
			err := q.psqlRow(t.Context(), "SELECT STRING_AGG(CONCAT_WS(' ', mood, CAST(n AS STRING), CAST(price AS STRING), note), ',' ORDER BY mood) FROM moods", &moods)
			if err == nil {
				err = q.psqlRow(t.Context(), "SELECT STRING_AGG(CONCAT_WS(' ', CAST(`day` AS STRING), CAST(n AS STRING), CAST(total AS STRING)), ',' ORDER BY `day`) FROM days", &days)
			}
			got := text(moods) + "; " + text(days)
			return err == nil && got == want, fmt.Sprint(err, "\n got ", got, "\nwant ", want)
		})
	}
	same("the first copy")
	for _, step := range []struct{ what, sql string }{
		{"changes", `UPDATE "Odd names" SET mood = 'bad' WHERE "Id" % 3 = 0; UPDATE events SET day = day + 10 WHERE day < 10 AND id % 2 = 0; DELETE FROM "Odd names" WHERE "Id" = 20; UPDATE "Odd names" SET "Id" = "Id" + 100 WHERE "Id" < 15`},
		{"a transaction that empties and fills", `BEGIN; INSERT INTO events VALUES (1, 1000, 1); TRUNCATE events; INSERT INTO events VALUES (2, 1000, 1), (12, 1001, 2); COMMIT`},
		{"wider types", `ALTER TABLE "Odd names" ALTER note TYPE text; ALTER TABLE "Odd names" ADD more int; UPDATE "Odd names" SET note = 'longer than before', more = 1 WHERE "Id" = 30`},
		{"nothing is left", `TRUNCATE "Odd names", events`},
		{"anew", `INSERT INTO "Odd names" ("Id", mood, price) VALUES (11, 'good', 1); INSERT INTO events VALUES (3, 1, 1)`},
	} {
		src.exec(t, step.sql)
		same(step.what)
	}
	q.stop()
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
