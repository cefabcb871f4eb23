package pgwire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/table"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/sql/plan"
)

const tablesSQL = `
CREATE TABLE accounts (id BIGINT, owner STRING NOT NULL, balance DECIMAL(12, 2), PRIMARY KEY (id) NOT ENFORCED);
CREATE TABLE history (who BIGINT, what VARCHAR(5), at TIMESTAMP(3), day DATE, ok BOOLEAN, f DOUBLE, raw BYTES);
CREATE TABLE seats (train INT, seat STRING, taken BOOLEAN, PRIMARY KEY (train, seat) NOT ENFORCED);
CREATE MATERIALIZED VIEW total AS SELECT SUM(balance) AS total, COUNT(*) AS n FROM accounts;
`

// newTables is a pipeline of internal tables with a server over it.
func newTables(t testing.TB, sql string, parallelism int) *bed {
	t.Helper()
	p, err := plan.Build("tables.sql", sql, plan.Environment{Parallelism: parallelism})
	if err != nil {
		t.Fatal(err)
	}
	e := env.Real(slog.New(slog.DiscardHandler))
	s := &p.Sources[0]
	if len(p.Sources) != 1 || s.Connector != plan.TableConnector || p.Bounded {
		t.Fatalf("sources %+v, bounded %v", p.Sources, p.Bounded)
	}
	var defs []table.Def
	var types [][]row.Type
	for i := range s.Tables {
		defs = append(defs, table.Def{Name: s.Tables[i].Name, Schema: s.Tables[i].Schema, Key: s.Tables[i].Key})
		types = append(types, s.Tables[i].Types())
	}
	seq := table.New(e, defs, table.Options{})
	b := &bed{t: t, pipeline: keyed.New(e, keyed.Options{Graph: p.Graph, Parallelism: parallelism, CheckpointInterval: time.Hour,
		Sources: []keyed.Source{{Name: s.Name, Source: seq, Tables: types}}})}
	var views []View
	for _, v := range p.Views {
		views = append(views, View{Name: v.Name, Pipeline: "tables", Schema: v.Schema, Key: v.Key, Keyed: b.pipeline, Node: v.Node, Table: v.Table, Tables: seq})
	}
	views = append(views, View{Name: "stopped", Pipeline: "other", Schema: p.Views[0].Schema, Table: true})
	b.server = New(e, Options{Listen: "127.0.0.1:0", Version: "test", Views: func() []View { return views }})
	b.run(e)
	return b
}

// answer is what a statement gives, as text: rows, tags and errors.
func answer(c *pgconn.PgConn, sql string) string {
	var out strings.Builder
	r := c.Exec(context.Background(), sql)
	for r.NextResult() {
		rr := r.ResultReader()
		for rr.NextRow() {
			for i, v := range rr.Values() {
				if i > 0 {
					out.WriteString(" | ")
				}
				if v == nil {
					v = []byte("NULL")
				}
				out.Write(v)
			}
			out.WriteString("\n")
		}
		if tag, err := rr.Close(); err == nil {
			fmt.Fprintln(&out, tag)
		}
	}
	if err := r.Close(); err != nil {
		var e *pgconn.PgError
		if !errors.As(err, &e) {
			return err.Error()
		}
		fmt.Fprintf(&out, "ERROR %s: %s\n", e.Code, e.Message)
		if e.Detail != "" {
			fmt.Fprintf(&out, "detail: %s\n", e.Detail)
		}
		if e.Hint != "" {
			fmt.Fprintf(&out, "hint: %s\n", e.Hint)
		}
	}
	return out.String()
}

// TestTableStories runs the stories of testdata/tables: each statement with what a client is told. A story has a pipeline
// of its own; sessions are named.
func TestTableStories(t *testing.T) {
	datadriven.Walk(t, "testdata/tables", func(t *testing.T, path string) {
		b := newTables(t, tablesSQL, 2)
		sessions := map[string]*pgx.Conn{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			name := "a"
			d.MaybeScanArgs(t, "session", &name)
			c := sessions[name]
			if c == nil {
				c = b.connect("")
				sessions[name] = c
			}
			switch d.Cmd {
			case "sql":
				return answer(c.PgConn(), d.Input)
			case "copy":
				statement, data, _ := strings.Cut(d.Input, "\n")
				tag, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(data+"\n"), statement)
				var e *pgconn.PgError
				if errors.As(err, &e) {
					return fmt.Sprintf("ERROR %s: %s\n", e.Code, e.Message)
				}
				if err != nil {
					return err.Error()
				}
				return tag.String() + "\n"
			}
			return "unknown command " + d.Cmd
		})
	})
}

// TestTableParameters writes over the extended protocol: with parameters, in batches, and by COPY in binary form.
func TestTableParameters(t *testing.T) {
	b := newTables(t, tablesSQL, 1)
	c := b.connect("")
	ctx := t.Context()
	at := time.Date(2024, 2, 29, 1, 2, 3, 500_000_000, time.UTC)
	exec := func(sql string, args ...any) int64 {
		t.Helper()
		tag, err := c.Exec(ctx, sql, args...)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return tag.RowsAffected()
	}
	if n := exec("INSERT INTO history VALUES ($1, $2, $3, $4, $5, $6, $7)", 1, "one", at, at, true, 1.5, []byte{0, 255}); n != 1 {
		t.Errorf("%d rows", n)
	}
	exec("INSERT INTO history (who, what) VALUES ($1, $2), ($3, NULL)", 2, "two", 3)
	exec("UPDATE history SET f = f + $1, ok = $2 WHERE who = $3", 0.25, false, 1)
	if got, want := rowsText(c, "SELECT * FROM history ORDER BY who"), "1 one 2024-02-29 01:02:03.5 +0000 UTC 2024-02-29 00:00:00 +0000 UTC false 1.75 [0 255]\n2 two <nil> <nil> <nil> <nil> <nil>\n3 <nil> <nil> <nil> <nil> <nil> <nil>"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// RETURNING, and what follows from a parameter's place.
	var id int64
	var balance string
	if err := c.QueryRow(ctx, "INSERT INTO accounts (id, owner, balance) VALUES ($1, $2, $3) RETURNING id, CAST(balance AS STRING)", 7, "ann", "12.50").Scan(&id, &balance); err != nil || id != 7 || balance != "12.50" {
		t.Errorf("%d, %s, %v", id, balance, err)
	}
	if n := exec("INSERT INTO accounts VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET balance = accounts.balance + excluded.balance WHERE accounts.owner = $4", 7, "x", 1, "ann"); n != 1 {
		t.Errorf("%d rows", n)
	}
	if n := exec("DELETE FROM accounts WHERE id IN ($1, $2) AND balance > $3", 7, 8, 100); n != 0 {
		t.Errorf("%d rows", n)
	}
	// A batch up to Sync is one transaction.
	batch := &pgx.Batch{}
	for i := range 5 {
		batch.Queue("INSERT INTO accounts VALUES ($1, 'b', 1)", 100+i)
	}
	batch.Queue("INSERT INTO accounts VALUES (102, 'b', 1)")
	var e *pgconn.PgError
	if err := c.SendBatch(ctx, batch).Close(); !errors.As(err, &e) || e.Code != "23505" {
		t.Errorf("a batch with a key twice: %v", err)
	}
	batch = &pgx.Batch{}
	for i := range 5 {
		batch.Queue("INSERT INTO accounts VALUES ($1, 'b', 1)", 100+i)
	}
	if err := c.SendBatch(ctx, batch).Close(); err != nil {
		t.Error(err)
	}
	var rows [][]any
	for i := range 10_000 {
		rows = append(rows, []any{int64(1000 + i), "c", nil})
	}
	if n, err := c.CopyFrom(ctx, pgx.Identifier{"accounts"}, []string{"id", "owner", "balance"}, pgx.CopyFromRows(rows)); n != 10_000 || err != nil {
		t.Errorf("COPY: %d, %v", n, err)
	}
	if _, err := c.CopyFrom(ctx, pgx.Identifier{"accounts"}, []string{"id", "owner"}, pgx.CopyFromRows([][]any{{int64(5), "d"}, {int64(1000), "d"}})); !errors.As(err, &e) || e.Code != "23505" {
		t.Errorf("COPY of a key that is there: %v", err)
	}
	if got := rowsText(c, "SELECT n, CAST(total AS STRING) FROM total"); got != "10006 18.50" {
		t.Errorf("in the end %s", got)
	}
}

// TestTableBank: clients move money between accounts in blocks and in single statements, and try again when they are told
// to. Whenever somebody looks, the total is what it was, and in the end each account is what its transfers made of it.
func TestTableBank(t *testing.T) {
	const accounts, clients, transfers = 20, 6, 60
	b := newTables(t, tablesSQL, 2)
	setup := b.connect("")
	var values []string
	for i := range accounts {
		values = append(values, fmt.Sprintf("(%d, 'o', 100)", i))
	}
	if got := answer(setup.PgConn(), "INSERT INTO accounts VALUES "+strings.Join(values, ", ")); got != "INSERT 0 20\n" {
		t.Fatal(got)
	}
	var mu sync.Mutex
	moved := map[int]int{}
	retries := 0
	var work, look sync.WaitGroup
	done := make(chan struct{})
	for n := range clients {
		c := b.connect("")
		work.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), 7))
			for range transfers {
				from, to, amount := r.IntN(accounts), r.IntN(accounts), 1+r.IntN(20)
				way := r.IntN(3)
				for {
					err := transfer(c, way, from, to, amount)
					var e *pgconn.PgError
					if errors.As(err, &e) && e.Code == "40001" {
						mu.Lock()
						retries++
						mu.Unlock()
						continue
					}
					if err != nil {
						t.Errorf("transfer: %v", err)
						return
					}
					break
				}
				mu.Lock()
				moved[from] -= amount
				moved[to] += amount
				mu.Unlock()
			}
		})
	}
	reads := 0
	c := b.connect("")
	look.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if got := rowsText(c, "SELECT CAST(t.total AS STRING), CAST(SUM(a.balance) AS STRING), COUNT(*) FROM accounts a CROSS JOIN total t GROUP BY t.total"); got != "2000.00 2000.00 20" {
				t.Errorf("somebody saw %s", got)
				return
			}
			reads++
		}
	})
	work.Wait()
	close(done)
	look.Wait()
	for i := range accounts {
		if got, want := rowsText(setup, "SELECT CAST(balance AS STRING) FROM accounts WHERE id = $1", i), fmt.Sprintf("%d.00", 100+moved[i]); got != want {
			t.Errorf("account %d has %s, want %s", i, got, want)
		}
	}
	if retries == 0 || reads == 0 {
		t.Errorf("%d retries, %d reads", retries, reads)
	}
}

// transfer moves money in one of three ways: by one statement; by two that compute; and by reading first.
func transfer(c *pgx.Conn, way, from, to, amount int) error {
	ctx := context.Background()
	if way == 0 {
		_, err := c.Exec(ctx, "UPDATE accounts SET balance = balance + CASE WHEN id = $1 THEN 0 - CAST($3 AS INT) ELSE $3 END WHERE id IN ($1, $2) AND CAST($1 AS INT) <> $2", from, to, amount)
		return err
	}
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if way == 1 {
			if _, err := tx.Exec(ctx, "UPDATE accounts SET balance = balance - $2 WHERE id = $1", from, amount); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "UPDATE accounts SET balance = balance + $2 WHERE id = $1", to, amount)
			return err
		}
		for _, side := range []struct{ id, by int }{{from, -amount}, {to, amount}} {
			var balance float64
			if err := tx.QueryRow(ctx, "SELECT CAST(balance AS DOUBLE) FROM accounts WHERE id = $1", side.id).Scan(&balance); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "UPDATE accounts SET balance = $2 WHERE id = $1", side.id, int(balance)+side.by); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestTableRetries: single statements that all want one row succeed, whoever else does.
func TestTableRetries(t *testing.T) {
	const clients, each = 8, 30
	b := newTables(t, tablesSQL, 1)
	if got := answer(b.connect("").PgConn(), "INSERT INTO accounts VALUES (1, 'o', 0)"); got != "INSERT 0 1\n" {
		t.Fatal(got)
	}
	var work sync.WaitGroup
	for n := range clients {
		c := b.connect("")
		work.Go(func() {
			for range each {
				var err error
				if n%2 == 0 {
					_, err = c.Exec(context.Background(), "UPDATE accounts SET balance = balance + 1 WHERE id = 1")
				} else {
					_, err = c.PgConn().Exec(context.Background(), "UPDATE accounts SET balance = balance + 1 WHERE owner = 'o'").ReadAll()
				}
				if err != nil {
					t.Errorf("client %d: %v", n, err)
					return
				}
			}
		})
	}
	work.Wait()
	if got := rowsText(b.connect(""), "SELECT CAST(balance AS STRING) FROM accounts"); got != fmt.Sprintf("%d.00", clients*each) {
		t.Errorf("in the end %s", got)
	}
}

// TestTablePsql: what psql shows of tables, and its \copy.
func TestTablePsql(t *testing.T) {
	if _, err := exec.LookPath("psql"); err != nil {
		t.Fatal("psql is needed: apt-get install postgresql-client")
	}
	b := newTables(t, tablesSQL, 1)
	psql := func(input string) string {
		cmd := exec.CommandContext(t.Context(), "psql", "-X", "-A", "postgres://weir@"+b.addr+"/weir")
		cmd.Stdin = strings.NewReader(input)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Error(err)
		}
		return string(out)
	}
	got := psql(`\dt
\dm
\d seats
\copy accounts from stdin csv header
id,owner,balance
1,"ann, the first",1.5
2,bob,
\.
SELECT * FROM accounts ORDER BY id;
`)
	for _, want := range []string{"public|accounts|table|weir", "public|total|materialized view|weir", `"seats_pkey" PRIMARY KEY, hash (train, seat)`, "COPY 2", "1|ann, the first|1.50\n2|bob|\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("not found: %s\nin\n%s", want, got)
		}
	}
}

// BenchmarkTableUpdate is what a point update costs, over prepared statements, without a disk.
func BenchmarkTableUpdate(b *testing.B) {
	bed := newTables(b, tablesSQL, 1)
	c := bed.connect("")
	if got := answer(c.PgConn(), "INSERT INTO accounts VALUES (1, 'o', 0)"); got != "INSERT 0 1\n" {
		b.Fatal(got)
	}
	for b.Loop() {
		if _, err := c.Exec(context.Background(), "UPDATE accounts SET balance = balance + $1 WHERE id = $2", 1, 1); err != nil {
			b.Fatal(err)
		}
	}
}

// TestParametersAreAsGiven: a parameter is compared and stored like the same literal, neither cut nor rounded to the type
// of what it stands beside.
func TestParametersAreAsGiven(t *testing.T) {
	b := newTables(t, `
CREATE TABLE w (id BIGINT, s VARCHAR(5), n DECIMAL(10, 2), k CHAR(3), at TIMESTAMP(0), PRIMARY KEY (id) NOT ENFORCED);
CREATE TABLE wk (s VARCHAR(5), x INT, PRIMARY KEY (s) NOT ENFORCED);
`, 1)
	binary, text := b.connect(""), b.connect("&default_query_exec_mode=exec")
	ctx := t.Context()
	for _, sql := range []string{"INSERT INTO w VALUES (1, 'hello', 1.24, 'abc', TIMESTAMP '2026-01-01 00:00:00')", "INSERT INTO wk VALUES ('hello', 1)"} {
		if _, err := binary.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ where, literal, given string }{
		{"s = %s", "'hello world'", "hello world"}, {"s = %s", "'hello'", "hello"}, {"s <> %s", "'hello world'", "hello world"},
		{"s IN (%s, 'x')", "'hello world'", "hello world"}, {"s BETWEEN %s AND 'z'", "'hello world'", "hello world"},
		{"n = %s", "1.239", "1.239"}, {"n > %s", "1.239", "1.239"}, {"n < %s", "1.2400000000000000001", "1.2400000000000000001"},
		{"n = %s", "1.24", "1.240"}, {"n > %s", "-5", "-5"}, {"k = %s", "'abcd'", "abcd"}, {"k = %s", "'abc'", "abc"},
		{"CASE WHEN s = %s THEN 1 ELSE 0 END = 1", "'hello world'", "hello world"}, {"n + %s > 1.248", "0.009", "0.009"},
	} {
		want := rowsText(binary, "SELECT id FROM w WHERE "+fmt.Sprintf(c.where, c.literal))
		for name, conn := range map[string]*pgx.Conn{"described": binary, "as text": text} {
			if got := rowsText(conn, "SELECT id FROM w WHERE "+fmt.Sprintf(c.where, "$1"), c.given); got != want {
				t.Errorf("%s, %s: %q, and with the literal %q", fmt.Sprintf(c.where, c.given), name, got, want)
			}
		}
	}
	for _, sql := range []string{"UPDATE wk SET x = 9 WHERE s = $1", "DELETE FROM wk WHERE s = $1"} {
		if tag, err := binary.Exec(ctx, sql, "hello world"); err != nil || tag.RowsAffected() != 0 {
			t.Errorf("%s: %v, %v", sql, tag, err)
		}
	}
	for _, sql := range []string{"INSERT INTO wk VALUES ($1, 1)", "UPDATE w SET s = $1", "INSERT INTO w (id, k) VALUES (2, $1)"} {
		var e *pgconn.PgError
		if _, err := binary.Exec(ctx, sql, "too long"); !errors.As(err, &e) || e.Code != "22001" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if _, err := binary.CopyFrom(ctx, pgx.Identifier{"wk"}, []string{"s", "x"}, pgx.CopyFromRows([][]any{{"waytoolong", int32(1)}})); err == nil {
		t.Error("COPY takes a text that is too long")
	}
	if _, err := binary.PgConn().CopyFrom(ctx, strings.NewReader("waytoolong,1\n"), "COPY wk FROM STDIN WITH (FORMAT csv)"); err == nil {
		t.Error("COPY from CSV takes a text that is too long")
	}
	if got := rowsText(binary, "SELECT s, x FROM wk"); got != "hello 1" {
		t.Errorf("in the end %s", got)
	}
}
