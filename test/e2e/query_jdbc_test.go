package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cmd/weir/query"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/sinks/postgres/typed"
	testenv "github.com/weirstream/weir/test/env"
)

// TestQueryPostgresSink is a bank in one database whose balances by owner, and their total, are kept in two tables of
// another. weir is killed at random and at each point of a publish. Whenever somebody reads both tables in a transaction
// they agree and the total is what the bank has; in the end they are what SQL on the source says.
func TestQueryPostgresSink(t *testing.T) {
	t.Parallel()
	src, dst := newDB(t, source(t, testenv.Version(15)), "bank"), newDB(t, target(t, testenv.Version(15)), "report")
	src.exec(t, `CREATE TABLE owners (id int PRIMARY KEY, name text NOT NULL)`,
		`CREATE TABLE accounts (id int PRIMARY KEY, owner int NOT NULL, balance bigint NOT NULL)`,
		`INSERT INTO owners SELECT i, 'owner ' || i FROM generate_series(1, 20) i`,
		`INSERT INTO accounts SELECT i, i % 20 + 1, 1000 FROM generate_series(1, 200) i`)
	dst.exec(t, `CREATE SCHEMA report`, `CREATE TABLE report.owners (name varchar(20) PRIMARY KEY, accounts int NOT NULL, balance numeric(12, 2))`,
		`CREATE TABLE total (one int PRIMARY KEY, balance bigint, moves bigint)`)
	from := func(table string) string {
		return fmt.Sprintf("WITH ('connector' = 'postgres-cdc', 'url' = '%s', 'table-name' = '%s')", src.url, table)
	}
	to := func(table string) string {
		return fmt.Sprintf("WITH ('connector' = 'jdbc', 'url' = '%s', 'table-name' = '%s', 'sink.buffer-flush.interval' = '1s')", dst.url, table)
	}
	q := newQueries(t, `
CREATE TABLE owners (id INT, name STRING, PRIMARY KEY (id) NOT ENFORCED) `+from("owners")+`;
CREATE TABLE accounts (id INT, owner INT, balance BIGINT, PRIMARY KEY (id) NOT ENFORCED) `+from("accounts")+`;
CREATE TABLE by_owner (name STRING, accounts BIGINT, balance DECIMAL(12, 2), PRIMARY KEY (name) NOT ENFORCED) `+to("report.owners")+`;
CREATE TABLE total (one INT, balance BIGINT, PRIMARY KEY (one) NOT ENFORCED) `+to("total")+`;
EXECUTE STATEMENT SET BEGIN
INSERT INTO by_owner SELECT o.name, COUNT(*), CAST(SUM(a.balance) AS DECIMAL(12, 2)) FROM accounts a JOIN owners o ON a.owner = o.id GROUP BY o.name;
INSERT INTO total SELECT 1, SUM(balance) FROM accounts;
END;
`)
	const money = 200 * 1000
	read := func(ctx context.Context) (owners, total int64, err error) {
		conn, err := pgx.Connect(ctx, dst.url)
		if err != nil {
			return 0, 0, err
		}
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		err = conn.QueryRow(ctx, "SELECT coalesce((SELECT sum(balance) FROM report.owners), 0)::bigint, coalesce((SELECT sum(balance) FROM total), 0)::bigint").Scan(&owners, &total)
		return owners, total, err
	}
	q.begin()
	eventually(t, 30*time.Second, "the first copy is there", func() (bool, string) {
		owners, total, err := read(t.Context())
		return err == nil && owners == money && total == money, fmt.Sprint(owners, total, err, q.logTail(5))
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var work sync.WaitGroup
	reads := 0
	work.Go(func() {
		for ctx.Err() == nil {
			owners, total, err := read(ctx)
			if ctx.Err() != nil {
				return
			}
			if err != nil || owners != money || total != money {
				t.Errorf("owners have %d, the total is %d, %v", owners, total, err)
				return
			}
			reads++
		}
	})
	var moves atomic.Int64
	work.Go(func() {
		r := rand.New(rand.NewPCG(1, 1))
		for ctx.Err() == nil {
			amount := r.IntN(100)
			src.exec(t, fmt.Sprintf("BEGIN; UPDATE accounts SET balance = balance - %d WHERE id = %d; UPDATE accounts SET balance = balance + %d, owner = 1 + %d WHERE id = %d; COMMIT",
				amount, 1+r.IntN(200), amount, r.IntN(20), 1+r.IntN(200)))
			moves.Add(1)
		}
	})
	more := func(n int64) {
		t.Helper()
		at := moves.Load()
		eventually(t, time.Minute, "the bank works", func() (bool, string) { return moves.Load() >= at+n, "" })
	}
	for range 2 {
		more(50)
		q.kill()
		q.begin()
	}
	q.kill()
	for n, p := range append(typed.FailPoints(), query.FailPrepared, query.FailCommitted, query.FailPublished) {
		q.env = []string{fmt.Sprintf("WEIR_FAILPOINTS=%s=kill@%d", p, 1+n%3)}
		q.begin()
		if err := q.wait(30 * time.Second); err == nil || !strings.Contains(q.log(), failpoint.ErrKill.Error()) {
			t.Fatalf("weir ended with %v, not at %s\n%s", err, p, q.logTail(20))
		}
	}
	q.env = nil
	q.begin()
	more(20)
	cancel()
	work.Wait()
	const want = "SELECT string_agg(concat_ws(':', name, n, balance), ',' ORDER BY name COLLATE \"C\") FROM (SELECT name, count(*) AS n, sum(balance)::numeric(12, 2) AS balance FROM accounts a JOIN owners o ON o.id = a.owner GROUP BY 1) x"
	const got = "SELECT string_agg(concat_ws(':', name, accounts, balance), ',' ORDER BY name COLLATE \"C\") FROM report.owners"
	eventually(t, 30*time.Second, "the tables have every transfer", func() (bool, string) {
		w, g := src.one(t, want), dst.one(t, got)
		return w == g, g + "\n" + w
	})
	if reads < 20 {
		t.Errorf("only %d reads", reads)
	}

	// What a table does not take stops the pipeline before it; mended, it goes on and has everything.
	src.exec(t, `UPDATE owners SET name = 'a name that is much too long' WHERE id = 7`, `UPDATE accounts SET balance = balance + 1 WHERE id = 3`)
	if err := q.wait(30 * time.Second); err == nil || !strings.Contains(q.logTail(20), "report.owners does not take the row with (name) = (a name that is much too long)") {
		t.Fatalf("weir ended with %v\n%s", err, q.logTail(20))
	}
	if owners, total, err := read(t.Context()); owners != money || total != money || err != nil {
		t.Errorf("a part of a checkpoint is there: %d %d %v", owners, total, err)
	}
	dst.exec(t, `ALTER TABLE report.owners ALTER name TYPE text`)
	q.begin()
	eventually(t, 30*time.Second, "the tables have what was refused", func() (bool, string) {
		w, g := src.one(t, want), dst.one(t, got)
		return w == g, g + "\n" + w
	})
	q.mustCLI("pipelines", "delete", "totals", "--yes", "--wait")
	if err := q.wait(20 * time.Second); err != nil {
		t.Errorf("after the delete weir run ended with %v", err)
	}
	if n := dst.one(t, `SELECT count(*)::text FROM "_weir".ledger`); n != "0" {
		t.Errorf("the delete left %s rows in the ledger", n)
	}
}
