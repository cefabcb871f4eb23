package diff

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	testenv "github.com/weirstream/weir/test/env"
)

// written are queries that the generator does not come to, over t (a, b, s) and u (a, c, s).
func written() []string {
	return []string{
		"SELECT t.a, (SELECT SUM(u.c) FROM u WHERE u.a = t.a AND u.c > 1) AS x FROM t",
		"SELECT t.a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND EXISTS (SELECT 1 FROM t AS w WHERE w.b = u.c))",
		"SELECT t.a FROM t WHERE t.b NOT IN (SELECT u.c FROM u WHERE u.a = t.a)",
		"SELECT t.a FROM t WHERE t.b NOT IN (SELECT u.c FROM u)",
		"SELECT t.a FROM t WHERE NOT (t.b IN (SELECT u.c FROM u WHERE u.c IS NOT NULL))",
		"SELECT COUNT(*) AS n, SUM(a) AS x FROM t WHERE FALSE",
		"SELECT SUM(a) AS x FROM t HAVING COUNT(*) > 2",
		"SELECT 1 AS x FROM t HAVING COUNT(*) > 2",
		"SELECT a FROM t WHERE a IN (SELECT u.a FROM u GROUP BY u.a HAVING COUNT(*) > 1)",
		"SELECT a FROM t WHERE a IN (SELECT MAX(u.a) FROM u GROUP BY u.c)",
		"SELECT a, b FROM t WHERE a = (SELECT MAX(u.a) FROM u WHERE u.c < (SELECT MAX(w.b) FROM t AS w))",
		"SELECT t.a, u.c FROM t LEFT JOIN u ON FALSE",
		"SELECT t.a, u.c FROM t LEFT JOIN u ON t.b > 1",
		"SELECT t.a, u.c FROM t LEFT JOIN u ON t.a = u.a AND t.b > 1 AND u.c > 1",
		"SELECT t.a, u.c FROM t LEFT JOIN u ON t.a = u.a WHERE u.c IS NULL",
		"SELECT t.a, u.c FROM t LEFT JOIN u ON t.a = u.a WHERE u.c > 1",
		"SELECT t.a, u.c FROM t FULL JOIN u ON t.a = u.a WHERE t.b > 1",
		"SELECT t.a, u.c FROM t FULL JOIN u ON t.a = u.a WHERE COALESCE(t.a, u.a) > 1",
		"SELECT t.a, u.c, w.b FROM t LEFT JOIN u ON t.a = u.a LEFT JOIN t AS w ON u.c = w.b",
		"SELECT t.a, u.c, w.b FROM t LEFT JOIN (u JOIN t AS w ON u.c = w.b) ON t.a = u.a",
		"SELECT COUNT(DISTINCT a) FILTER (WHERE b > 1) AS x, COUNT(DISTINCT a) AS y, SUM(DISTINCT a) AS z FROM t",
		"SELECT a + 1 AS k, a + 1 + SUM(b) AS x FROM t GROUP BY a + 1",
		"SELECT CASE WHEN a > 2 THEN 'big' ELSE 's' END AS k, COUNT(*) AS n FROM t GROUP BY CASE WHEN a > 2 THEN 'big' ELSE 's' END",
		"SELECT x.a, y.n FROM t AS x, (SELECT COUNT(*) AS n FROM u) AS y",
		"SELECT a FROM t WHERE a NOT IN (1, 2, NULL)",
		"SELECT a FROM t WHERE NOT (a > 1 AND b > 1)",
		"SELECT a FROM t WHERE (a > 1) IS NOT TRUE",
		"SELECT a, b FROM t WHERE (a, b) IN (SELECT a, c FROM u)",
		"SELECT a FROM t UNION SELECT c FROM u UNION ALL SELECT a FROM t",
		"SELECT a FROM t UNION ALL SELECT c FROM u EXCEPT SELECT b FROM t",
		"SELECT a FROM t INTERSECT SELECT c FROM u UNION SELECT 99",
		"SELECT a FROM t UNION ALL SELECT 1.5",
		"SELECT MAX(n) AS x FROM (SELECT COUNT(*) AS n FROM t GROUP BY a) AS q",
		"SELECT n, COUNT(*) AS m FROM (SELECT a, COUNT(*) AS n FROM t GROUP BY a) AS q GROUP BY n",
		"SELECT DISTINCT a, COUNT(*) AS n FROM t GROUP BY a, b",
		"SELECT a, s FROM (SELECT DISTINCT a, s FROM t) AS q WHERE s LIKE 'a%'",
		"SELECT COUNT(*) AS n FROM t, u",
		"SELECT COUNT(*) AS n FROM (SELECT DISTINCT s FROM t) AS q",
		"SELECT 1 AS x",
		"SELECT (SELECT MAX(a) FROM t) AS x, (SELECT MIN(c) FROM u) AS y",
		"SELECT a, MIN(s) AS x, MAX(s) AS y FROM t GROUP BY a",
		"SELECT MAX(s) AS y FROM t WHERE a > 100",
		"SELECT t.s || u.s AS x FROM t JOIN u ON t.s = u.s AND t.a < u.a",
		"SELECT x.a, y.a AS b FROM t AS x JOIN t AS y ON x.b = y.b AND x.a < y.a",
		"WITH q AS (SELECT a, COUNT(*) AS n FROM t GROUP BY a) SELECT x.a, y.n FROM q AS x LEFT JOIN q AS y ON x.a = y.a + 1",
		"WITH q AS (SELECT a FROM t), r AS (SELECT a FROM q WHERE a > 1) SELECT COUNT(*) AS n FROM q WHERE a IN (SELECT a FROM r)",
		"SELECT a, b FROM t WHERE b = (SELECT MAX(w.b) FROM t AS w WHERE w.a = t.a)",
		"SELECT a FROM t WHERE b > (SELECT AVG(w.b) FROM t AS w WHERE w.a > 100)",
		"SELECT t.a FROM t WHERE (SELECT COUNT(*) FROM u WHERE u.a = t.a) > (SELECT COUNT(*) FROM u WHERE u.c = t.b)",
		"SELECT SUM(x) AS x FROM (SELECT t.a, (SELECT COUNT(*) FROM u WHERE u.a = t.a) AS x FROM t) AS q",
		"SELECT a, b FROM t WHERE (a, b) NOT IN (SELECT a, c FROM u)",
		"SELECT t.a, t.b FROM t WHERE (t.a, t.b) IN (SELECT u.a, u.c FROM u WHERE u.s = t.s)",
		"SELECT t.a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE t.b IN (SELECT w.a FROM t AS w))",
		"SELECT * FROM t JOIN u USING (s, a)",
		"SELECT * FROM u RIGHT JOIN t USING (a, s)",
		"SELECT t.a, (SELECT u.c FROM u WHERE u.a = t.a ORDER BY u.c NULLS FIRST LIMIT 1) AS x FROM t",
		"SELECT t.a FROM t WHERE t.b IN (SELECT u.c FROM u WHERE u.a = t.a ORDER BY u.c NULLS FIRST LIMIT 1)",
		"SELECT x.a FROM (SELECT a, b FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a)) AS x WHERE x.b > 1",
		"SELECT t.a FROM t WHERE EXISTS (SELECT 1 FROM u JOIN t AS w ON u.c = w.b WHERE u.a = t.a)",
		"SELECT t.a FROM t WHERE t.a > 1 OR EXISTS (SELECT 1 FROM u WHERE u.a = t.a)",
		"SELECT t.a, t.a IN (SELECT c FROM u) AS x FROM t",
		"SELECT t.a, t.a NOT IN (SELECT c FROM u WHERE u.a = t.b) AS x FROM t",
		"SELECT t.a, (t.a, t.b) IN (SELECT u.a, u.c FROM u) AS x, EXISTS (SELECT 1 FROM u WHERE u.a < t.a) AS y FROM t",
		"SELECT t.a FROM t WHERE CASE WHEN EXISTS (SELECT 1 FROM u WHERE u.a = t.a) THEN t.b > 1 ELSE t.b IN (SELECT c FROM u) END",
		"SELECT t.a FROM t WHERE NOT (t.a IN (SELECT c FROM u) OR t.b IN (SELECT a FROM u))",
		"SELECT t.a FROM t WHERE (t.a NOT IN (SELECT c FROM u)) IS NULL",
		"SELECT t.a FROM t WHERE t.a > ALL (SELECT c FROM u WHERE u.a = t.b)",
		"SELECT t.a FROM t WHERE t.a = ANY (SELECT c FROM u)",
		"SELECT t.a, t.a <= ALL (SELECT c FROM u) AS x, t.a <> ANY (SELECT c FROM u) AS y FROM t",
		"SELECT t.a, (SELECT SUM(u.c + t.b) FROM u WHERE u.a = t.a) AS x FROM t",
		"SELECT t.a, (SELECT COUNT(*) FROM u WHERE u.a < t.a) AS x FROM t",
		"SELECT t.a, (SELECT SUM(u.c) FROM u WHERE u.a < t.a OR u.c = t.b) AS x FROM t",
		"SELECT t.a, (SELECT MAX(u.c) + t.b FROM u WHERE u.a <> t.a) AS x FROM t WHERE t.b > (SELECT COUNT(*) FROM u WHERE u.c > t.a)",
		"SELECT t.a FROM t WHERE EXISTS (SELECT COUNT(*) FROM u WHERE u.a = t.a)",
		"SELECT t.a FROM t WHERE NOT EXISTS (SELECT COUNT(*) FROM u WHERE u.a = t.a HAVING COUNT(*) > 1)",
		"SELECT t.a FROM t WHERE t.b IN (SELECT COUNT(*) FROM u WHERE u.a = t.a)",
		"SELECT t.a, (SELECT COUNT(*) FROM u WHERE u.a = t.a HAVING COUNT(*) > 0) AS x FROM t",
		"SELECT t.a, (SELECT x FROM (SELECT u.c AS x FROM u WHERE u.a = t.a UNION SELECT t.b) AS q ORDER BY x NULLS FIRST LIMIT 1) AS x FROM t",
		"SELECT t.a FROM t WHERE EXISTS (SELECT u.c FROM u WHERE u.a = t.a EXCEPT SELECT t.b)",
		"SELECT t.a FROM t WHERE t.b IN (SELECT u.c FROM u WHERE u.a = t.a UNION ALL SELECT w.a FROM t AS w WHERE w.b < t.a)",
		"SELECT t.a FROM t WHERE t.b IN (VALUES (1), (2)) OR t.a IN (SELECT 3)",
		"SELECT t.a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND EXISTS (SELECT 1 FROM t AS w WHERE w.b = u.c AND w.a = t.a))",
		"SELECT t.a, (SELECT COUNT(*) FROM u WHERE u.c > (SELECT COUNT(*) FROM t AS w WHERE w.a = t.a AND w.b <> u.a)) AS x FROM t",
		"SELECT t.a, q.n FROM t CROSS JOIN LATERAL (SELECT COUNT(*) AS n FROM u WHERE u.a = t.a) AS q",
		"SELECT t.a, q.c FROM t, LATERAL (SELECT u.c FROM u WHERE u.a = t.a ORDER BY u.c NULLS FIRST LIMIT 2) AS q",
		"SELECT t.a, q.c, q.b FROM t LEFT JOIN LATERAL (SELECT u.c, t.b + 1 AS b FROM u WHERE u.a > t.a ORDER BY u.c NULLS FIRST LIMIT 1) AS q ON TRUE",
		"SELECT t.a, q.c FROM t LEFT JOIN LATERAL (SELECT u.c FROM u WHERE u.a = t.a) AS q ON q.c > t.b",
		"SELECT t.a, q.x, r.y FROM t, LATERAL (SELECT t.a + 1 AS x) AS q, LATERAL (SELECT COUNT(*) AS y FROM u WHERE u.c = q.x) AS r",
		"SELECT * FROM t CROSS JOIN LATERAL (SELECT MAX(u.c) FROM u WHERE u.a = t.a) AS q(m)",
		"SELECT a FROM t INTERSECT ALL SELECT c FROM u",
		"SELECT a FROM t EXCEPT ALL SELECT c FROM u",
		"SELECT a, b FROM t EXCEPT ALL (SELECT a, c FROM u INTERSECT ALL SELECT b, a FROM t)",
		"SELECT a, SUM(b) AS x FROM t GROUP BY a HAVING SUM(b) > (SELECT AVG(c) FROM u)",
		"SELECT a, COUNT(*) + (SELECT COUNT(*) FROM u) AS x FROM t GROUP BY a",
		"SELECT COUNT(*) AS n, (SELECT MAX(c) FROM u) AS x FROM t",
		"SELECT 1 AS x FROM t HAVING 1 > 0",
		"SELECT a, b = ANY (ARRAY[1, 2, NULL]) AS x, b <> ALL (ARRAY[1, 2]) AS y FROM t WHERE a < ANY (ARRAY[3, b])",
		"SELECT a, COUNT(*) AS n FROM t GROUP BY a HAVING a IN (SELECT c FROM u) OR COUNT(*) NOT IN (SELECT c FROM u)",
		"SELECT a, SUM(b) > ALL (SELECT c FROM u) AS x, EXISTS (SELECT 1 FROM u WHERE c > 2) AS y FROM t GROUP BY a HAVING MAX(b) < (SELECT MAX(c) FROM u)",
		"SELECT t.a, (SELECT SUM(u.c) FROM u WHERE u.a <= t.a HAVING SUM(u.c) IN (SELECT w.b FROM t AS w)) AS x FROM t",
		"SELECT a, (a, COUNT(*)) NOT IN (SELECT a, c FROM u) AS x FROM t GROUP BY a",
		"SELECT t.a FROM t WHERE t.b = (SELECT MAX(q.x) FROM (SELECT u.c + t.a AS x FROM u) AS q)",
		"SELECT t.a, (SELECT q.c FROM (SELECT u.c, ROW_NUMBER() OVER (ORDER BY u.c NULLS FIRST, u.s, u.a NULLS FIRST) AS rn FROM u WHERE u.a = t.a) AS q WHERE rn = 1) AS x FROM t",
		"SELECT * FROM t FULL JOIN u USING (a, s)",
		"SELECT /*+ STATE_TTL('t' = '1 d', 'u' = '12 h') */ t.a, u.c FROM t JOIN u ON t.a = u.a",
		"SELECT /*+ STATE_TTL('x' = '1 d') */ x.a, y.b FROM t AS x JOIN t AS y ON x.a = y.a AND x.b < y.b",
		"SELECT /*+ STATE_TTL('x' = '1 d', 'y' = '1d', 'u' = '1d') */ x.a, y.b, u.c FROM t AS x JOIN t AS y ON x.a = y.a JOIN u ON u.a = x.a",
		"SELECT q.a, COUNT(*) AS n FROM (SELECT /*+ STATE_TTL('t' = '1 d', 'u' = '12 h') */ t.a, u.c FROM t JOIN u ON t.a = u.a WHERE t.b > 0) AS q JOIN u ON q.c = u.a GROUP BY q.a",
		"SELECT t.a, u.c FROM t JOIN u ON t.a = u.a AND (t.b IN (SELECT w.c FROM u AS w) OR u.c = (SELECT MIN(w.b) FROM t AS w WHERE w.s = t.s))",
		"SELECT a, t.a AS x, u.a AS y, c FROM t FULL JOIN u USING (a) WHERE a > 1",
		"SELECT * FROM t NATURAL FULL JOIN u",
		"SELECT DISTINCT a FROM t WHERE EXISTS (SELECT DISTINCT u.c FROM u WHERE u.c > t.a) OR b = 1",
		"SELECT SUM(CASE WHEN t.a IN (SELECT c FROM u) THEN 1 ELSE 0 END) AS n FROM t",
		"SELECT t.b IN (SELECT c FROM u) AS k, COUNT(*) AS n FROM t GROUP BY t.b IN (SELECT c FROM u)",
	}
}

// TestWritten compares the written queries over a few histories.
func TestWritten(t *testing.T) {
	ctx := context.Background()
	pg, err := pgconn.Connect(ctx, testenv.Shared(t, 15, testenv.FsyncOff()).CreateDatabase(t, "written"))
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close(ctx)
	for seed := range uint64(2) {
		r := rand.New(rand.NewPCG(seed, 3))
		s := &scenario{pg: pg, calm: seed == 0, tables: []*table{
			{name: "t", columns: []tableColumn{{name: "a", typ: "INT", class: "int"}, {name: "b", typ: "INT", class: "int"}, {name: "s", typ: "STRING", class: "string"}}},
			{name: "u", key: int(seed), columns: []tableColumn{{name: "a", typ: "INT", class: "int", notNull: seed > 0}, {name: "c", typ: "BIGINT", class: "int"}, {name: "s", typ: "STRING", class: "string", notNull: true}}},
		}}
		s.history = randomHistory(r, s.tables)
		if _, err := pg.Exec(ctx, "SET client_min_messages = warning; SET jit = off").ReadAll(); err != nil {
			t.Fatal(err)
		}
		if err := s.create(); err != nil {
			t.Fatal(err)
		}
		for _, q := range written() {
			switch v := s.judge(t, r, of("query", q, "")); {
			case v.refused != nil:
				t.Logf("%s\n%v", q, v.refused)
			case v.invalid != nil:
				t.Errorf("%s\nPostgres: %v", q, v.invalid)
			case v.failure != "":
				t.Errorf("%s\n%s", q, v.failure)
			}
		}
	}
}
