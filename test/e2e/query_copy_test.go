package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirstream/weir/internal/api"
	testenv "github.com/weirstream/weir/test/env"
)

// psqlRow reads one row of a query over the Postgres protocol of a pipeline that runs.
func (q *queries) psqlRow(ctx context.Context, sql string, into ...any) error {
	conn, err := q.psql(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return conn.QueryRow(ctx, sql).Scan(into...)
}

// TestQueryCopy is a bank that is copied while it works, by a weir that is killed three times meanwhile: each start reads
// what the ones before did not, nobody sees a part of the bank, and neither does what a sink was given at any checkpoint.
// Then a table is emptied and filled anew.
func TestQueryCopy(t *testing.T) {
	src := newDB(t, source(t, testenv.Version(17)), "copied")
	const rows, money = 200_000, 200_000 * 100
	src.exec(t, `CREATE TABLE branches (name text PRIMARY KEY, region text NOT NULL)`,
		`CREATE TABLE accounts (id int PRIMARY KEY, branch text NOT NULL, balance bigint NOT NULL)`,
		`INSERT INTO branches SELECT 'b' || i, 'r' || i % 5 FROM generate_series(0, 99) i`,
		`INSERT INTO accounts SELECT i, 'b' || i % 100, 100 FROM generate_series(1, 200000) i`, `ANALYZE`)
	with := func(table string) string {
		return fmt.Sprintf("WITH ('connector' = 'postgres-cdc', 'url' = '%s', 'table-name' = '%s', 'scan.incremental.snapshot.chunk.size' = '5000')", src.url, table)
	}
	q := newQueries(t, `
SET 'parallelism.default' = '2';
SET 'checkpoint.interval' = '0s';
CREATE TABLE branches (name STRING, region STRING, PRIMARY KEY (name) NOT ENFORCED) `+with("branches")+`;
CREATE TABLE accounts (id INT, branch STRING, balance BIGINT, PRIMARY KEY (id) NOT ENFORCED) `+with("accounts")+`;
CREATE TABLE out (region STRING, balance BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv', 'sink.changelog' = 'true');
CREATE MATERIALIZED VIEW by_region AS SELECT b.region, SUM(a.balance) AS balance, COUNT(*) AS n FROM accounts a JOIN branches b ON a.branch = b.name GROUP BY b.region;
INSERT INTO out SELECT region, balance FROM by_region;
`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var work sync.WaitGroup
	pause := make(chan struct{}) // closed when the bank is to stand still
	work.Go(func() {
		r := rand.New(rand.NewPCG(4, 2))
		for n := 0; ; n++ {
			select {
			case <-pause:
				return
			default:
			}
			a, b := 1+r.IntN(rows), 1+r.IntN(rows)
			// Now and then an account goes on under another number, in the first range of the copy.
			sql := fmt.Sprintf("UPDATE accounts SET balance = balance - %[3]d WHERE id IN (%[1]d, -%[1]d); UPDATE accounts SET balance = balance + %[3]d WHERE id IN (%[2]d, -%[2]d);", a, b, r.IntN(50))
			if n%10 == 0 {
				sql += fmt.Sprintf("UPDATE accounts SET id = -id WHERE id = %d;", 1+r.IntN(rows))
			}
			src.exec(t, "BEGIN; "+sql+" COMMIT")
		}
	})
	reads, told := 0, 0
	work.Go(func() {
		again := time.NewTicker(10 * time.Millisecond)
		defer again.Stop()
		for ctx.Err() == nil {
			var sum int64
			err := q.psqlRow(ctx, "SELECT COALESCE(SUM(balance), 0) FROM by_region", &sum)
			switch {
			case err == nil && sum != money:
				t.Errorf("a reader sees %d, and the bank has %d", sum, money)
				return
			case err == nil:
				reads++
			case strings.Contains(err.Error(), "first copy"):
				told++
			}
			<-again.C
		}
	})
	for k := range 3 {
		q.env = []string{fmt.Sprintf("WEIR_FAILPOINTS=query.committed=kill@%d", 3+k)}
		q.begin("--pg-addr", "127.0.0.1:0", "--log-level", "info")
		eventually(t, 20*time.Second, "weir is killed", func() (bool, string) { return !q.running(), "" })
		if k == 0 {
			if files, _ := filepath.Glob(filepath.Join(q.dir, "out", "part-*")); len(files) > 0 {
				t.Errorf("a part of the bank was published: %v", files)
			}
		}
		q.kill()
	}
	q.env = nil
	q.begin("--pg-addr", "127.0.0.1:0", "--log-level", "info")
	eventually(t, 20*time.Second, "the copy is complete", func() (bool, string) {
		v, err := q.view()
		return err == nil && v.Status.Phase == api.PhaseLive && reads > 10, fmt.Sprint(v.Status.Phase, err, reads)
	})
	starts := regexp.MustCompile(`msg="first copy".* ranges=(\d+)`).FindAllStringSubmatch(q.log(), -1)
	left := 1 << 30
	for _, s := range starts {
		ranges, err := strconv.Atoi(s[1])
		if err != nil || ranges > left || ranges == left && left > 0 {
			t.Errorf("the starts had these ranges to copy: %v", starts)
		}
		left = ranges
	}
	if len(starts) < 3 {
		t.Errorf("only %d starts had something to copy", len(starts))
	}
	close(pause)
	same := func(what string) {
		t.Helper()
		eventually(t, 20*time.Second, what, func() (bool, string) {
			want := src.one(t, "SELECT string_agg(region || ' ' || balance || ' ' || n, ',' ORDER BY region) FROM (SELECT b.region, sum(a.balance) AS balance, count(*) AS n FROM accounts a JOIN branches b ON a.branch = b.name GROUP BY 1) x")
			var got *string
			err := q.psqlRow(t.Context(), "SELECT STRING_AGG(region || ' ' || CAST(balance AS STRING) || ' ' || CAST(n AS STRING), ',' ORDER BY region) FROM by_region", &got)
			return err == nil && got != nil && *got == want, fmt.Sprint(err, got, want)
		})
	}
	same("the view is what the source says")
	cancel()
	work.Wait()
	src.exec(t, "BEGIN; TRUNCATE branches; INSERT INTO branches SELECT 'b' || i, 's' || i % 3 FROM generate_series(0, 99) i; COMMIT")
	same("the view follows a TRUNCATE")
	q.stop()
	seen, sums := 0, map[string]int{}
	q.checkpoints("out", sums, func(checkpoint string) {
		seen++
		sum := int64(0)
		for row, weight := range sums {
			var balance int64
			_, text, _ := strings.Cut(row, ",")
			if _, err := fmt.Sscan(text, &balance); err != nil || weight != 1 {
				t.Errorf("checkpoint %s: row %q of weight %d: %v", checkpoint, row, weight, err)
			}
			sum += balance
		}
		if sum != money {
			t.Errorf("behind checkpoint %s the sink has %d", checkpoint, sum)
		}
	})
	t.Logf("%d reads, %d readers were told of the copy, %d checkpoints were published", reads, told, seen)
	if seen < 3 {
		t.Errorf("only %d checkpoints were published", seen)
	}
}

// TestQuerySnapshot: with scan.startup.mode = snapshot the pipeline ends behind the first copy, with the answer, and leaves no
// slot; the same command again has nothing to do.
func TestQuerySnapshot(t *testing.T) {
	src := newDB(t, source(t, testenv.Version(17)), "once")
	src.exec(t, `CREATE TABLE words (word text PRIMARY KEY, n int)`, `INSERT INTO words SELECT 'w' || i, i FROM generate_series(1, 100) i`)
	q := newQueries(t, fmt.Sprintf(`
CREATE TABLE words (word STRING, n INT, PRIMARY KEY (word) NOT ENFORCED) WITH ('connector' = 'postgres-cdc', 'url' = '%s', 'table-name' = 'words', 'scan.startup.mode' = 'snapshot');
CREATE TABLE out (total BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv', 'sink.changelog' = 'true');
INSERT INTO out SELECT SUM(n) FROM words;
`, src.url))
	for range 2 {
		q.begin()
		q.ends()
		if got := fmt.Sprint(q.net("out")); got != "map[5050:1]" {
			t.Errorf("got %s", got)
		}
	}
	if n := src.one(t, "SELECT count(*)::text FROM pg_replication_slots WHERE database = current_database()"); n != "0" {
		t.Errorf("%s slots are left", n)
	}
}
