package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	testenv "github.com/weirstream/weir/test/env"
)

// simple has statements sent as they are, as psql does.
const simple = "default_query_exec_mode=simple_protocol"

// TestQueryAttach: while transfers go through a bank in Postgres, views are made and dropped over psql on the pipeline
// that reads it. In every transaction, before, during and after, all views agree; a kill -9 on the way leaves the view or
// none; and what is dropped gives its state back.
func TestQueryAttach(t *testing.T) {
	const accounts, branches, money = 400, 8, 400 * 1000
	t.Parallel()
	src := newDB(t, source(t, testenv.Version(15)), "attach")
	src.exec(t, `CREATE TABLE accounts (id int PRIMARY KEY, branch int NOT NULL, balance bigint NOT NULL)`,
		fmt.Sprintf(`INSERT INTO accounts SELECT i, i %% %d, 1000 FROM generate_series(1, %d) i`, branches, accounts))
	q := newQueries(t, fmt.Sprintf(`
CREATE TABLE accounts (id INT, branch INT, balance BIGINT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'postgres-cdc', 'url' = '%s', 'table-name' = 'accounts');
CREATE MATERIALIZED VIEW acc AS SELECT id, branch, balance FROM accounts;
`, src.url))
	q.begin("--pg-addr", "127.0.0.1:0")
	// What each view has to say while the bank has what it has.
	sums := map[string]string{
		"acc":    "SELECT COALESCE(SUM(balance), 0) FROM acc",
		"totals": "SELECT COALESCE(SUM(balance), 0) FROM totals",
		"pairs":  fmt.Sprintf("SELECT COALESCE(SUM(balance), 0) / %d FROM pairs", accounts/branches),
		"extra":  "SELECT COALESCE(SUM(balance), 0) FROM extra",
	}
	makes := map[string]string{
		"totals": "CREATE MATERIALIZED VIEW totals AS SELECT branch, SUM(balance) AS balance FROM acc GROUP BY branch",
		"pairs":  "CREATE MATERIALIZED VIEW pairs AS SELECT a.id, b.id AS other, b.balance FROM accounts a JOIN accounts b ON a.branch = b.branch",
		"extra":  "CREATE MATERIALIZED VIEW extra AS SELECT t.branch, a.id, a.balance FROM totals t JOIN acc a ON t.branch = a.branch",
	}
	do := func(sql string) error {
		began := time.Now()
		defer func() { t.Logf("%.40s took %s", sql, time.Since(began).Round(time.Millisecond)) }()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		conn, err := q.psql(ctx, simple)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, sql)
		return err
	}
	var mu sync.RWMutex // a read holds it, so that nothing is dropped that it is about to read
	there := []string{"acc"}
	set := func(names ...string) {
		mu.Lock()
		defer mu.Unlock()
		there = names
	}
	read := func(ctx context.Context) error {
		conn, err := q.psql(ctx, simple)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		mu.RLock()
		defer mu.RUnlock()
		names := there
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			for _, name := range names {
				var sum int64
				if err := tx.QueryRow(ctx, sums[name]).Scan(&sum); err != nil {
					return err
				}
				if sum != money {
					return fmt.Errorf("view %s has %d of %d", name, sum, money)
				}
			}
			return nil
		})
	}
	eventually(t, 30*time.Second, "the view has the first copy", func() (bool, string) {
		err := read(t.Context())
		return err == nil, fmt.Sprint(err)
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var work sync.WaitGroup
	var transfers, reads, overtaken, down atomic.Int64
	var worst atomic.Int64 // between two reads that went well, in µs, while nothing was killed
	work.Go(func() {
		last := time.Now()
		again := time.NewTicker(5 * time.Millisecond)
		defer again.Stop()
		for ctx.Err() == nil {
			killed := down.Load() > 0
			err := read(ctx)
			var pg *pgconn.PgError
			switch {
			case err == nil:
				reads.Add(1)
				if now := time.Now(); !killed && down.Load() == 0 {
					worst.Store(max(worst.Load(), now.Sub(last).Microseconds()))
				}
				last = time.Now()
			case ctx.Err() != nil:
			case errors.As(err, &pg) && pg.Code == "40001":
				overtaken.Add(1)
			case errors.As(err, &pg) && (pg.Code == "55000" || pg.Code == "42P01") && down.Load() > 0, !errors.As(err, &pg) && down.Load() > 0:
				last = time.Now()
				<-again.C // it is down, or starts
			default:
				t.Errorf("a reader meets: %v", err)
				return
			}
		}
	})
	work.Go(func() {
		r := rand.New(rand.NewPCG(1, 1))
		for ctx.Err() == nil {
			amount := r.IntN(100)
			src.exec(t, fmt.Sprintf("BEGIN; UPDATE accounts SET balance = balance - %d WHERE id = %d; UPDATE accounts SET balance = balance + %d WHERE id = %d; COMMIT",
				amount, 1+r.IntN(accounts), amount, 1+r.IntN(accounts)))
			transfers.Add(1)
		}
	})
	more := func(n int64) {
		from := transfers.Load()
		eventually(t, time.Minute, "the bank works", func() (bool, string) { return transfers.Load() >= from+n, "" })
	}
	states := func() string { return q.mustCLI("state", "size", "totals", "-o", "json", "--state", q.state) }
	more(5)
	for _, name := range []string{"totals", "pairs"} {
		if err := do(makes[name]); err != nil {
			t.Fatalf("make %s: %v", name, err)
		}
		mu.Lock()
		set := append([]string{}, there...)
		there = append(set, name)
		mu.Unlock()
		more(5)
	}
	for n := range 3 {
		made := make(chan error, 1)
		go func() { made <- do(makes["extra"]) }()
		wait := time.NewTimer(time.Duration(5+n*25) * time.Millisecond)
		<-wait.C
		down.Add(1)
		q.kill()
		err := <-made
		q.begin("--pg-addr", "127.0.0.1:0")
		eventually(t, 30*time.Second, "the views are there again", func() (bool, string) {
			err := read(t.Context())
			return err == nil, fmt.Sprint(err)
		})
		down.Add(-1)
		conn, cerr := q.psql(t.Context(), simple)
		if cerr != nil {
			t.Fatal(cerr)
		}
		var sum int64
		var pg *pgconn.PgError
		rerr := conn.QueryRow(t.Context(), sums["extra"]).Scan(&sum)
		_ = conn.Close(t.Context())
		t.Logf("killed: the statement says %v, the view then %d, %v", err, sum, rerr)
		switch {
		case rerr == nil && sum != money:
			t.Errorf("after a kill the view has %d", sum)
		case rerr != nil && (!errors.As(rerr, &pg) || pg.Code != "42P01"):
			t.Errorf("after a kill the view cannot be read: %v", rerr)
		case rerr != nil && err == nil:
			t.Error("a view that was made is not there")
		}
		if err := do("DROP MATERIALIZED VIEW IF EXISTS extra"); err != nil {
			t.Fatal(err)
		}
	}
	if err := do(makes["extra"]); err != nil {
		t.Fatal(err)
	}
	set("acc", "totals", "pairs", "extra")
	more(5)
	if err := do("DROP MATERIALIZED VIEW totals"); err == nil {
		t.Error("a view is dropped that another reads")
	}
	eventually(t, 10*time.Second, "there is state", func() (bool, string) { s := states(); return strings.Contains(s, "view totals"), s })
	set("acc", "pairs")
	if err := do("DROP MATERIALIZED VIEW totals CASCADE"); err != nil {
		t.Fatal(err)
	}
	more(3)
	eventually(t, 10*time.Second, "state is given back", func() (bool, string) {
		s := states()
		return !strings.Contains(s, "view totals") && strings.Contains(s, "view pairs"), s
	})
	cancel()
	work.Wait()
	t.Logf("%d reads, %d overtaken by a change, %d transfers; the longest wait of a reader was %s", reads.Load(), overtaken.Load(), transfers.Load(), time.Duration(worst.Load())*time.Microsecond)
	if reads.Load() < 20 {
		t.Errorf("only %d reads", reads.Load())
	}
	q.stop()
}
