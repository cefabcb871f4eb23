package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	testenv "github.com/weirstream/weir/test/env"
)

// TestQueryBank is a bank in Postgres whose transfers are transactions, a view of the balances by branch and one of the
// total, and readers over the Postgres protocol: whenever the view can be read, the branches and the total agree and the
// total is what the bank has, also across kill -9. In the end the view is what the source says.
func TestQueryBank(t *testing.T) {
	src := newDB(t, source(t, testenv.Version(15)), "bank")
	src.exec(t, `CREATE TABLE branches (id int PRIMARY KEY, name text NOT NULL)`,
		`CREATE TABLE accounts (id int PRIMARY KEY, branch int NOT NULL, balance bigint NOT NULL)`,
		`INSERT INTO branches SELECT i, 'branch ' || i FROM generate_series(1, 10) i`,
		`INSERT INTO accounts SELECT i, i % 10 + 1, 1000 FROM generate_series(1, 500) i`)
	with := func(table string) string {
		return fmt.Sprintf("WITH ('connector' = 'postgres-cdc', 'url' = '%s', 'table-name' = '%s')", src.url, table)
	}
	q := newQueries(t, `
CREATE TABLE branches (id INT, name STRING, PRIMARY KEY (id) NOT ENFORCED) `+with("branches")+`;
CREATE TABLE accounts (id INT, branch INT, balance BIGINT, PRIMARY KEY (id) NOT ENFORCED) `+with("accounts")+`;
CREATE MATERIALIZED VIEW by_branch AS SELECT b.name, SUM(a.balance) AS balance FROM accounts a JOIN branches b ON a.branch = b.id GROUP BY b.name;
CREATE MATERIALIZED VIEW total AS SELECT SUM(balance) AS balance FROM by_branch;
`)
	begin := func() { q.begin("--pg-addr", "127.0.0.1:0") }
	begin()
	read := func(ctx context.Context) (branches, total int64, err error) {
		b, err := os.ReadFile(filepath.Join(q.state, "endpoints.json"))
		if err != nil {
			return 0, 0, err
		}
		var at struct {
			PG string `json:"pg"`
		}
		if err := json.Unmarshal(b, &at); err != nil {
			return 0, 0, err
		}
		conn, err := pgx.Connect(ctx, "postgres://weir@"+at.PG+"/weir")
		if err != nil {
			return 0, 0, err
		}
		defer func() { _ = conn.Close(ctx) }()
		err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if err := tx.QueryRow(ctx, "SELECT COALESCE(SUM(balance), 0) FROM by_branch").Scan(&branches); err != nil {
				return err
			}
			return tx.QueryRow(ctx, "SELECT COALESCE(SUM(balance), 0) FROM total").Scan(&total)
		})
		return branches, total, err
	}
	const money = 500 * 1000
	eventually(t, 30*time.Second, "the view has the first copy", func() (bool, string) {
		b, total, err := read(t.Context())
		return err == nil && b == money && total == money, fmt.Sprint(b, total, err)
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var work sync.WaitGroup
	reads := 0
	work.Go(func() {
		again := time.NewTicker(10 * time.Millisecond)
		defer again.Stop()
		for ctx.Err() == nil {
			b, total, err := read(ctx)
			if err != nil {
				<-again.C // it is down, or starts
				continue
			}
			if b != total || b != money {
				t.Errorf("branches have %d, the total is %d", b, total)
				return
			}
			reads++
		}
	})
	var transfers atomic.Int64
	work.Go(func() {
		r := rand.New(rand.NewPCG(1, 1))
		for range 300 {
			amount := r.IntN(100)
			src.exec(t, fmt.Sprintf("BEGIN; UPDATE accounts SET balance = balance - %d WHERE id = %d; UPDATE accounts SET balance = balance + %d WHERE id = %d; COMMIT",
				amount, 1+r.IntN(500), amount, 1+r.IntN(500)))
			transfers.Add(1)
		}
	})
	for k := range int64(3) {
		eventually(t, time.Minute, "the bank works", func() (bool, string) { return transfers.Load() >= 80*(k+1), "" })
		q.kill()
		begin()
	}
	eventually(t, 30*time.Second, "the view has every transfer", func() (bool, string) {
		want := src.one(t, "SELECT string_agg(balance::text, ',' ORDER BY name) FROM (SELECT b.name, sum(balance) AS balance FROM accounts a JOIN branches b ON b.id = a.branch GROUP BY 1) x")
		got, _ := branchesOf(t, q)
		return got == want, got + "\n" + want
	})
	cancel()
	work.Wait()
	if reads < 10 {
		t.Errorf("only %d reads", reads)
	}
	q.stop()
}

func branchesOf(t *testing.T, q *queries) (string, error) {
	b, err := os.ReadFile(filepath.Join(q.state, "endpoints.json"))
	if err != nil {
		return "", err
	}
	var at struct {
		PG string `json:"pg"`
	}
	if err := json.Unmarshal(b, &at); err != nil {
		return "", err
	}
	conn, err := pgx.Connect(t.Context(), "postgres://weir@"+at.PG+"/weir")
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var s string
	err = conn.QueryRow(t.Context(), "SELECT STRING_AGG(CAST(balance AS STRING), ',' ORDER BY name) FROM by_branch").Scan(&s)
	return s, err
}
