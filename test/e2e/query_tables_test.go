package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/cmd/weir/query"
	"github.com/weirstream/weir/engine/state/disk"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/raft"
)

// psql is a connection to the running weir, which may be down; settings are those of the URL.
func (q *queries) psql(ctx context.Context, settings ...string) (*pgx.Conn, error) {
	b, err := os.ReadFile(filepath.Join(q.state, "endpoints.json"))
	if err != nil {
		return nil, err
	}
	var at struct {
		PG string `json:"pg"`
	}
	if err := json.Unmarshal(b, &at); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return pgx.Connect(ctx, "postgres://weir@"+at.PG+"/weir?"+strings.Join(settings, "&"))
}

// teller is a client that moves money. Each transfer notes itself in the journal under the teller's next number.
type teller struct {
	q     *queries
	id    int
	conn  *pgx.Conn
	r     *rand.Rand
	acked []int // numbers that were acknowledged
}

const tablesMoney = 40 * 100

// do runs f on a connection, and on another one when that has gone, until it has an outcome. known is what to ask where
// the outcome is not known.
func (c *teller) do(ctx context.Context, f func() error, known func() (bool, error)) (bool, error) {
	unknown := false
	for ctx.Err() == nil {
		if c.conn == nil || c.conn.IsClosed() {
			conn, err := c.q.psql(ctx)
			if err != nil {
				select {
				case <-time.After(10 * time.Millisecond):
				case <-ctx.Done():
				}
				continue
			}
			c.conn = conn
		}
		if unknown {
			there, err := known()
			if err != nil {
				_ = c.conn.Close(ctx)
				continue
			}
			if there {
				return false, nil
			}
			unknown = false
		}
		err := f()
		var e *pgconn.PgError
		switch {
		case err == nil:
			return true, nil
		case errors.As(err, &e) && e.Code == "40001":
		case errors.As(err, &e) && e.Code == "42P01": // the pipeline has not been started yet
			<-time.After(10 * time.Millisecond)
		case errors.As(err, &e) && !strings.HasPrefix(e.Code, "08") && !strings.HasPrefix(e.Code, "57") && !strings.HasPrefix(e.Code, "55"):
			return false, err
		default: // weir is gone, or goes
			unknown = true
			_ = c.conn.Close(ctx)
		}
	}
	return false, ctx.Err()
}

// transfer moves money and notes number n. It tells whether that was acknowledged.
func (c *teller) transfer(ctx context.Context, n int) (bool, error) {
	from, to, amount := c.r.IntN(40), c.r.IntN(40), c.r.IntN(50)
	return c.do(ctx, func() error {
		return pgx.BeginFunc(ctx, c.conn, func(tx pgx.Tx) error {
			if n%2 == 0 { // by what it has read
				var balance int64
				if err := tx.QueryRow(ctx, "SELECT balance FROM accounts WHERE id = $1", from).Scan(&balance); err != nil {
					return err
				}
				if _, err := tx.Exec(ctx, "UPDATE accounts SET balance = $2 WHERE id = $1", from, balance-int64(amount)); err != nil {
					return err
				}
			} else if _, err := tx.Exec(ctx, "UPDATE accounts SET balance = balance - $2 WHERE id = $1", from, amount); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "UPDATE accounts SET balance = balance + $2 WHERE id = $1", to, amount); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "INSERT INTO journal VALUES ($1, $2, $3, $4, $5)", c.id, n, from, to, amount)
			return err
		})
	}, func() (bool, error) {
		var there int64
		err := c.conn.QueryRow(ctx, "SELECT COUNT(*) FROM journal WHERE teller = $1 AND n = $2", c.id, n).Scan(&there)
		return there == 1, err
	})
}

// TestQueryTablesBank: clients move money between the rows of an internal table, while others read a view over it and weir
// is killed with kill -9. The total is the same at every read; what was acknowledged is there after each restart; what was
// not is there as a whole or not at all.
func TestQueryTablesBank(t *testing.T) {
	q := newQueries(t, `
CREATE TABLE accounts (id INT, balance BIGINT NOT NULL, PRIMARY KEY (id) NOT ENFORCED);
CREATE TABLE journal (teller INT, n INT, debit INT, credit INT, amount INT, PRIMARY KEY (teller, n) NOT ENFORCED);
CREATE MATERIALIZED VIEW total AS SELECT SUM(balance) AS balance, COUNT(*) AS accounts FROM accounts;
`)
	begin := func() { q.begin("--pg-addr", "127.0.0.1:0", "--set", "parallelism=2") }
	begin()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	boss := &teller{q: q}
	var values []string
	for i := range 40 {
		values = append(values, fmt.Sprintf("(%d, 100)", i))
	}
	if _, err := boss.do(ctx, func() error {
		_, err := boss.conn.Exec(ctx, "INSERT INTO accounts VALUES "+strings.Join(values, ", ")+" ON CONFLICT DO NOTHING")
		return err
	}, func() (bool, error) { return false, nil }); err != nil {
		t.Fatal(err)
	}

	var acked atomic.Int64
	working, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	var tellers []*teller
	for id := range 8 {
		c := &teller{q: q, id: id, r: rand.New(rand.NewPCG(uint64(id), 3))}
		tellers = append(tellers, c)
		work.Go(func() {
			for n := 0; working.Err() == nil; n++ {
				ok, err := c.transfer(ctx, n)
				if err != nil {
					t.Errorf("teller %d: %v", id, err)
					return
				}
				if ok {
					c.acked = append(c.acked, n)
					acked.Add(1)
				}
			}
		})
	}
	reads := 0
	seen := int64(0) // of the journal; it never becomes less, not over a crash either
	work.Go(func() {
		c := &teller{q: q}
		again := time.NewTicker(5 * time.Millisecond)
		defer again.Stop()
		for working.Err() == nil {
			<-again.C
			var viewed, counted, accounts, notes int64
			if _, err := c.do(ctx, func() error {
				return pgx.BeginFunc(ctx, c.conn, func(tx pgx.Tx) error {
					if err := tx.QueryRow(ctx, "SELECT balance, accounts FROM total").Scan(&viewed, &accounts); err != nil {
						return err
					}
					if err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM journal").Scan(&notes); err != nil {
						return err
					}
					return tx.QueryRow(ctx, "SELECT SUM(balance) FROM accounts").Scan(&counted)
				})
			}, func() (bool, error) { return false, nil }); err != nil {
				t.Errorf("reader: %v", err)
				return
			}
			if viewed != tablesMoney || counted != tablesMoney || accounts != 40 {
				t.Errorf("the view says %d, the table %d in %d accounts", viewed, counted, accounts)
				return
			}
			if notes < seen {
				t.Errorf("the journal had %d rows, and now has %d", seen, notes)
				return
			}
			seen = notes
			reads++
		}
	})
	for k := range int64(3) {
		eventually(t, 20*time.Second, "the bank works", func() (bool, string) { return acked.Load() >= 70*(k+1), fmt.Sprint(acked.Load()) })
		q.kill()
		begin()
	}
	more := acked.Load()
	eventually(t, 20*time.Second, "the bank works on", func() (bool, string) { return acked.Load() >= more+50, "" })
	stop()
	work.Wait()
	q.kill()
	begin()

	balances, noted := map[int]int64{}, map[[2]int]bool{}
	for i := range 40 {
		balances[i] = 100
	}
	got := map[int]int64{}
	if _, err := boss.do(ctx, func() error {
		clear(got)
		rows, err := boss.conn.Query(ctx, "SELECT teller, n, debit, credit, amount FROM journal")
		if err != nil {
			return err
		}
		var id, n, from, to int
		var amount int64
		if _, err := pgx.ForEachRow(rows, []any{&id, &n, &from, &to, &amount}, func() error {
			noted[[2]int{id, n}] = true
			balances[from] -= amount
			balances[to] += amount
			return nil
		}); err != nil {
			return err
		}
		if rows, err = boss.conn.Query(ctx, "SELECT id, balance FROM accounts"); err != nil {
			return err
		}
		_, err = pgx.ForEachRow(rows, []any{&id, &amount}, func() error {
			got[id] = amount
			return nil
		})
		return err
	}, func() (bool, error) { return false, nil }); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(balances) {
		t.Errorf("the accounts have %v, and by the journal %v", got, balances)
	}
	for _, c := range tellers {
		for _, n := range c.acked {
			if !noted[[2]int{c.id, n}] {
				t.Errorf("transfer %d of teller %d was acknowledged and is not there", n, c.id)
			}
		}
	}
	if reads < 5 {
		t.Errorf("only %d reads", reads)
	}
	out := q.mustCLI("views", "list")
	for _, want := range []string{"KIND", "accounts  table", "total     view"} {
		if !strings.Contains(out, want) {
			t.Errorf("weir views list printed\n%s", out)
		}
	}
	scraped, err := q.rest("GET", "/metrics")
	if err != nil || !strings.Contains(string(scraped), `weir_table_transactions_total{pipeline="totals",result="ok"}`) {
		// The last start has committed nothing: the counter comes with the first transaction.
		if _, err := boss.conn.Exec(ctx, "UPDATE accounts SET balance = balance + 1"); err != nil {
			t.Error(err)
		}
		if scraped, err = q.rest("GET", "/metrics"); err != nil || !strings.Contains(string(scraped), `weir_table_transactions_total{pipeline="totals",result="ok"} 1`) {
			t.Errorf("metrics: %v", err)
		}
	}
	q.stop()
	t.Logf("%d transfers acknowledged, %d reads", acked.Load(), reads)
}

// TestQueryTablesAtEachPoint: a crash at any point of a checkpoint keeps what was acknowledged, and of what was not at most
// the one transaction that was on its way, in the table and in a view over it.
func TestQueryTablesAtEachPoint(t *testing.T) {
	for n, p := range append(disk.FailPoints(), query.FailPrepared, query.FailCommitted, query.FailPublished, raft.FailUnknown) {
		switch p {
		case disk.FailTable, disk.FailIngest, disk.FailFlush, disk.FailDelete:
			continue // they come with much more state
		}
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			q := newQueries(t, `
CREATE TABLE notes (n INT, PRIMARY KEY (n) NOT ENFORCED);
CREATE MATERIALIZED VIEW counted AS SELECT COUNT(*) AS n, COALESCE(SUM(n), 0) AS total FROM notes;
`)
			q.env = []string{fmt.Sprintf("WEIR_FAILPOINTS=%s=kill@%d", p, 8+n%4)}
			begin := func() { q.begin("--pg-addr", "127.0.0.1:0") }
			begin()
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			defer cancel()
			c := &teller{q: q}
			acked := 0
			insert := func() (sent, ok bool) {
				var err error
				if c.conn == nil {
					if c.conn, err = q.psql(ctx); err != nil {
						return false, false
					}
				}
				_, err = c.conn.Exec(ctx, "INSERT INTO notes VALUES ($1)", acked)
				var e *pgconn.PgError
				if errors.As(err, &e) && e.Code == "23505" { // its answer was another error, and it is there
					return true, true
				}
				return !errors.As(err, &e), err == nil // weir itself says that it is not running yet, or not any more
			}
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for q.running() && ctx.Err() == nil {
				sent, ok := insert()
				if ok {
					acked++
				} else if sent {
					break
				}
				<-tick.C
			}
			if err := q.wait(10 * time.Second); err == nil || !strings.Contains(q.log(), failpoint.ErrKill.Error()) {
				t.Fatalf("weir ended with %v behind %d notes, not by the crash point", err, acked)
			}
			q.env, c.conn = nil, nil
			begin()
			var rows, sum, viewed, viewedSum int
			if _, err := c.do(ctx, func() error {
				return pgx.BeginFunc(ctx, c.conn, func(tx pgx.Tx) error {
					if err := tx.QueryRow(ctx, "SELECT COUNT(*), COALESCE(SUM(n), 0) FROM notes").Scan(&rows, &sum); err != nil {
						return err
					}
					return tx.QueryRow(ctx, "SELECT n, total FROM counted").Scan(&viewed, &viewedSum)
				})
			}, func() (bool, error) { return false, nil }); err != nil {
				t.Fatal(err)
			}
			if rows < acked || rows > acked+1 || sum != rows*(rows-1)/2 || viewed != rows || viewedSum != sum {
				t.Errorf("%d were acknowledged; the table has %d with the sum %d, the view says %d and %d", acked, rows, sum, viewed, viewedSum)
			}
			acked = rows
			if _, ok := insert(); !ok {
				t.Error("it does not go on")
			}
			q.stop()
		})
	}
}
