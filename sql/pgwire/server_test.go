package pgwire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/sql/plan"
)

// bank is a source of transfers, each a transaction of two rows whose amounts sum to zero.
type bank struct {
	accounts, count int64
	at              int64
	half            bool
	b               *row.Builder
}

func (s *bank) Open(context.Context, dataflow.State) error {
	s.b = row.NewBuilder([]row.Type{{Kind: row.BigInt, NotNull: true}, {Kind: row.BigInt, NotNull: true}})
	return nil
}

func (s *bank) Read(ctx context.Context) (dataflow.Message, error) {
	if err := ctx.Err(); err != nil {
		return dataflow.Message{}, err
	}
	if s.at == s.count {
		<-ctx.Done()
		return dataflow.Message{}, ctx.Err()
	}
	account, amount := s.at%s.accounts, -(s.at%7 + 1)
	if s.half {
		account, amount = (s.at*31+1)%s.accounts, -amount
		s.at++
	}
	s.b.Reset()
	s.b.Cols[0].Int64, s.b.Cols[1].Int64 = append(s.b.Cols[0].Int64, account), append(s.b.Cols[1].Int64, amount)
	s.b.EndRow(1)
	m := dataflow.Message{Kind: dataflow.KindBatch, Batch: s.b.Seal(), Boundary: s.half}
	if s.half {
		m.State = []dataflow.StateChange{{Key: "at", Value: []byte{1}}}
	}
	s.half = !s.half
	return m, nil
}

func (s *bank) Confirm([]dataflow.StateChange) {}
func (s *bank) Close(context.Context) error    { return nil }

const bankSQL = `
CREATE TABLE transfers (account BIGINT NOT NULL, amount BIGINT NOT NULL) WITH ('connector' = 'bank');
CREATE MATERIALIZED VIEW balances AS SELECT account, SUM(amount) AS balance, COUNT(*) AS moves FROM transfers GROUP BY account;
CREATE MATERIALIZED VIEW total AS SELECT SUM(balance) AS total, COUNT(*) AS accounts FROM balances;
CREATE MATERIALIZED VIEW things AS SELECT * FROM (VALUES
  (1, CAST(1 AS SMALLINT), CAST(1 AS BIGINT), TRUE, CAST(1.5 AS FLOAT), CAST(-0.25 AS DOUBLE), CAST(12.30 AS DECIMAL(10, 2)), 'one', DATE '2024-02-29', TIMESTAMP '2024-02-29 01:02:03.5', X'00ff'),
  (2, CAST(NULL AS SMALLINT), CAST(NULL AS BIGINT), CAST(NULL AS BOOLEAN), CAST(NULL AS FLOAT), CAST(NULL AS DOUBLE), CAST(NULL AS DECIMAL(10, 2)), CAST(NULL AS STRING), CAST(NULL AS DATE), CAST(NULL AS TIMESTAMP(6)), CAST(NULL AS BYTES)),
  (3, CAST(-3 AS SMALLINT), CAST(9007199254740993 AS BIGINT), FALSE, CAST(3 AS FLOAT), CAST(1e300 AS DOUBLE), CAST(-0.05 AS DECIMAL(10, 2)), 'it''s three', DATE '1969-12-31', TIMESTAMP '1969-12-31 23:59:59', X'')
) AS t (n, small, big, yes, f, d, dec, s, day, at, raw);
`

// bed is a pipeline with a server over it.
type bed struct {
	t        testing.TB
	addr     string
	pipeline *keyed.Pipeline
	server   *Server
	mu       sync.Mutex
	queries  int
}

func newBed(t testing.TB, accounts, count int64, o keyed.Options) *bed {
	t.Helper()
	p, err := plan.Build("bank.sql", bankSQL, plan.Environment{Connectors: map[string]plan.Kind{"bank": {Source: true}}, Parallelism: o.Parallelism})
	if err != nil {
		t.Fatal(err)
	}
	e := env.Real(slog.New(slog.DiscardHandler))
	o.Graph = p.Graph
	for i := range p.Sources {
		s := &p.Sources[i]
		ks := keyed.Source{Name: s.Name, Tables: [][]row.Type{s.Tables[0].Types()}, Source: &bank{accounts: accounts, count: count}}
		if s.Connector == "values" {
			ks.Source = operator.NewConstant(s.Rows)
		}
		o.Sources = append(o.Sources, ks)
	}
	b := &bed{t: t, pipeline: keyed.New(e, o)}
	var views []View
	for _, v := range p.Views {
		views = append(views, View{Name: v.Name, Pipeline: "bank", Schema: v.Schema, Key: v.Key, Keyed: b.pipeline, Node: v.Node})
	}
	views = append(views, View{Name: "stopped", Pipeline: "other", Schema: p.Views[0].Schema})
	b.server = New(e, Options{Listen: "127.0.0.1:0", Version: "test", Views: func() []View { return views }, ResultBytes: 32 << 20, OnQuery: func(time.Duration, bool) {
		b.mu.Lock()
		b.queries++
		b.mu.Unlock()
	}})
	b.run(e)
	return b
}

// run runs the pipeline and the server until the test ends.
func (b *bed) run(e *env.Env) {
	t := b.t
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.pipeline.Run(ctx) }()
	var err error
	if b.addr, err = b.server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.server.Close(); err != nil {
			t.Error(err)
		}
		b.pipeline.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		cancel()
		e.Wait()
	})
}

// settled waits until all transfers are visible.
func (b *bed) settled(c *pgx.Conn, moves int64) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		var n *int64
		if err := c.QueryRow(ctx, "SELECT SUM(moves) FROM balances").Scan(&n); err != nil {
			b.t.Fatal(err)
		}
		if n != nil && *n == moves {
			return
		}
		<-time.After(time.Millisecond)
	}
}

func (b *bed) connect(more string) *pgx.Conn {
	b.t.Helper()
	c, err := pgx.Connect(context.Background(), "postgres://weir@"+b.addr+"/weir?sslmode=prefer"+more)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// rowsText is what a query gives, as text.
func rowsText(c *pgx.Conn, sql string, args ...any) string {
	rows, err := c.Query(context.Background(), sql, args...)
	if err != nil {
		return errorText(err)
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		vs, err := rows.Values()
		if err != nil {
			return "ERROR " + err.Error()
		}
		line := fmt.Sprint(vs)
		lines = append(lines, line[1:len(line)-1])
	}
	if err := rows.Err(); err != nil {
		return errorText(err)
	}
	return strings.Join(lines, "\n")
}

func errorText(err error) string {
	var p *pgconn.PgError
	if errors.As(err, &p) {
		return fmt.Sprintf("ERROR %s %s at %d hint: %s", p.Code, p.Message, p.Position, p.Hint)
	}
	return "ERROR " + err.Error()
}

// TestReadersSeeMoneyConserved: every read of every reader sees a total of zero, and in a block both views agree.
func TestReadersSeeMoneyConserved(t *testing.T) {
	b := newBed(t, 200, 1<<60, keyed.Options{Parallelism: 2})
	var wg sync.WaitGroup
	until := time.Now().Add(1500 * time.Millisecond)
	reads := make([]int, 3)
	for i := range reads {
		c := b.connect("")
		wg.Add(1)
		go func() {
			defer wg.Done()
			ctx := context.Background()
			for time.Now().Before(until) {
				var sum, n *int64
				if err := c.QueryRow(ctx, "SELECT SUM(balance), COUNT(*) FROM balances").Scan(&sum, &n); err != nil {
					t.Error(err)
					return
				}
				if sum != nil && *sum != 0 {
					t.Errorf("the balances sum to %d", *sum)
					return
				}
				tx, err := c.Begin(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				var moves, again, accounts, total, count *int64
				err = errors.Join(tx.QueryRow(ctx, "SELECT SUM(moves), COUNT(*) FROM balances").Scan(&moves, &count),
					tx.QueryRow(ctx, "SELECT total, accounts FROM total").Scan(&total, &accounts),
					tx.QueryRow(ctx, "SELECT SUM(moves) FROM balances").Scan(&again),
					tx.Commit(ctx))
				if err != nil {
					t.Error(err)
					return
				}
				if total != nil && (*total != 0 || *accounts != *count || *moves != *again) {
					t.Errorf("in one block: total %d, accounts %d and %d, moves %d and %d", *total, *accounts, *count, *moves, *again)
					return
				}
				reads[i]++
			}
		}()
	}
	wg.Wait()
	t.Logf("reads: %v, rows in: %d", reads, b.pipeline.Status().RowsIn)
	if reads[0] < 5 || b.queries == 0 {
		t.Errorf("only %v reads, %d queries were counted", reads, b.queries)
	}
}

// TestQueries: what comes back, by both protocols and in both formats.
func TestQueries(t *testing.T) {
	b := newBed(t, 4, 100, keyed.Options{})
	extended, simple := b.connect(""), b.connect("&default_query_exec_mode=simple_protocol")
	b.settled(extended, 200)
	for _, c := range []struct{ sql, want string }{
		{"SELECT 1", "1"},
		{"SELECT 1 AS a, 'x' AS b", "1 x"},
		{"SELECT account, moves FROM balances ORDER BY account", "0 50\n1 50\n2 50\n3 50"},
		{"SELECT account FROM balances ORDER BY account DESC LIMIT 2", "3\n2"},
		{"SELECT account FROM balances ORDER BY moves, -account", "3\n2\n1\n0"},
		{"SELECT account FROM public.balances WHERE account = 2", "2"},
		{"SELECT account FROM weir.public.balances WHERE account IN (1, 3, 9) ORDER BY 1", "1\n3"},
		{"SELECT COUNT(*) FROM balances a JOIN balances b ON a.account = b.account WHERE a.account = 1", "1"},
		{"WITH w AS (SELECT account FROM balances WHERE account < 2) SELECT account FROM w ORDER BY account", "0\n1"},
		{"SELECT total, accounts FROM total", "0 4"},
		{"SELECT n, small, big, yes, f, d FROM things ORDER BY n", "1 1 1 true 1.5 -0.25\n2 <nil> <nil> <nil> <nil> <nil>\n3 -3 9007199254740993 false 3 1e+300"},
		{"SELECT s, raw FROM things ORDER BY n", "one [0 255]\n<nil> <nil>\nit's three []"},
		{"SELECT dec FROM things WHERE n = 3", "{-5 -2 false finite true}"},
		{"SELECT day, at FROM things ORDER BY n", "2024-02-29 00:00:00 +0000 UTC 2024-02-29 01:02:03.5 +0000 UTC\n<nil> <nil>\n1969-12-31 00:00:00 +0000 UTC 1969-12-31 23:59:59 +0000 UTC"},
		{"SELECT n FROM things WHERE s IS NULL", "2"},
		{"SELECT version()", "PostgreSQL 15.0 (weir test)"},
		{"SELECT current_schema(), current_database(), current_user", "public weir weir"},
		{"SHOW TimeZone", "UTC"},
		{"SELECT relname FROM pg_class ORDER BY relname", "balances\nstopped\nthings\ntotal"},
		{"SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_name = 'total' ORDER BY ordinal_position", "total bigint YES\naccounts bigint NO"},
		{"SELECT nothing FROM balances", "ERROR 42703 there is no column nothing at 8 hint: the columns here are account, balance, moves"},
		{"SELECT 1\nFROM balancs", "ERROR 42P01 there is no table or view balancs at 15 hint: did you mean balances?"},
		{"SELECT * FROM transfers", "ERROR 42P01 there is no table or view transfers at 15 hint: views can be read: balances, stopped, things, total"},
		{"SELECT * FROM stopped", "ERROR 55000 view stopped cannot be read: pipeline other is not running at 0 hint: weir pipelines get other shows why"},
		{"SELECT 1 / (account - account) FROM balances", "ERROR 22012"},
		{"SELEC 1", `ERROR 42601 syntax error at or near "SELEC" at 0 hint: views are read with SELECT`},
		{"SELECT 1 +", "ERROR 42601"},
		{"INSERT INTO balances VALUES (1)", "ERROR 42809 balances is a view and cannot be written at 13 hint: its rows follow from what it reads: change that"},
		{"SET nonsense = 1", "ERROR 42704"},
	} {
		for name, conn := range map[string]*pgx.Conn{"extended": extended, "simple": simple} {
			got := rowsText(conn, c.sql)
			if got != c.want && !(strings.HasPrefix(c.want, "ERROR") && len(c.want) < 20 && strings.HasPrefix(got, c.want)) {
				t.Errorf("%s, %s:\n%s\nwant\n%s", c.sql, name, got, c.want)
			}
		}
	}
}

// TestParameters: their types are told by what stands beside them, and values come in both formats.
func TestParameters(t *testing.T) {
	b := newBed(t, 4, 100, keyed.Options{})
	for _, mode := range []string{"cache_statement", "describe_exec", "exec"} {
		c := b.connect("&default_query_exec_mode=" + mode)
		b.settled(c, 200)
		for _, q := range []struct {
			sql  string
			args []any
			want string
		}{
			{"SELECT account FROM balances WHERE account = $1", []any{int64(2)}, "2"},
			{"SELECT account FROM balances WHERE account BETWEEN $1 AND $2 ORDER BY 1", []any{int64(1), int64(2)}, "1\n2"},
			{"SELECT account FROM balances WHERE account IN ($1, $2) ORDER BY 1", []any{int64(3), int64(0)}, "0\n3"},
			{"SELECT account FROM balances WHERE account IN ($1, $2)", []any{int64(3), int64(3)}, "3"},
			{"SELECT n FROM things WHERE s = $1", []any{"it's three"}, "3"},
			{"SELECT n FROM things WHERE s LIKE $1", []any{"o%"}, "1"},
			{"SELECT n FROM things WHERE d < $1", []any{0.0}, "1"},
			{"SELECT account FROM balances ORDER BY account LIMIT $1 OFFSET $2", []any{int64(2), int64(1)}, "1\n2"},
			{"SELECT account FROM balances WHERE account = CAST($1 AS BIGINT)", []any{int64(1)}, "1"},
		} {
			if got := rowsText(c, q.sql, q.args...); got != q.want {
				t.Errorf("%s %v in mode %s: %s, want %s", q.sql, q.args, mode, got, q.want)
			}
		}
	}
	// Types that only the described statement can tell.
	c := b.connect("")
	for _, q := range []struct {
		sql  string
		arg  any
		want string
	}{
		{"SELECT n FROM things WHERE day = $1", time.Date(1969, 12, 31, 0, 0, 0, 0, time.UTC), "3"},
		{"SELECT n FROM things WHERE at > $1", time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), "1"},
		{"SELECT n FROM things WHERE dec = $1", "12.30", "1"},
		{"SELECT n FROM things WHERE yes = $1", false, "3"},
		{"SELECT n FROM things WHERE small = $1", int16(-3), "3"},
		{"SELECT n FROM things WHERE n = $1", nil, ""},
	} {
		if got := rowsText(c, q.sql, q.arg); got != q.want {
			t.Errorf("%s %v: %s, want %s", q.sql, q.arg, got, q.want)
		}
	}
}

// TestBlocks: a block that fails can only be ended, and statements of one message are one block.
func TestBlocks(t *testing.T) {
	b := newBed(t, 4, 100, keyed.Options{})
	c := b.connect("&default_query_exec_mode=simple_protocol")
	ctx := context.Background()
	steps := []struct{ sql, tag, state string }{
		{"BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN", ""},
		{"SELECT account FROM balances WHERE account = 1", "SELECT 1", ""},
		{"SELECT nothing", "", "42703"},
		{"SELECT 1", "", "25P02"},
		{"COMMIT", "ROLLBACK", ""},
		{"SELECT 1; SELECT 1; -- and no more", "SELECT 1", ""},
		{"START TRANSACTION READ ONLY", "START TRANSACTION", ""},
		{"ROLLBACK", "ROLLBACK", ""},
		{"SET TIME ZONE 'Europe/Berlin'", "SET", ""},
		{"SET statement_timeout TO '5s'", "SET", ""},
		{"RESET ALL", "RESET", ""},
		{"DISCARD ALL", "DISCARD ALL", ""},
		{"", "", ""},
	}
	b.settled(c, 200)
	for _, s := range steps {
		tag, err := c.Exec(ctx, s.sql)
		var p *pgconn.PgError
		if errors.As(err, &p) != (s.state != "") || p != nil && p.Code != s.state || p == nil && tag.String() != s.tag {
			t.Errorf("%s: %s, %v", s.sql, tag, err)
		}
	}
	if got := b.server.opts.Views()[0].Keyed; got.Status().Epoch == 0 {
		t.Error("no epoch")
	}
}

// TestPortals: rows come in parts, as a driver with a fetch size asks for them.
func TestPortals(t *testing.T) {
	b := newBed(t, 50, 100, keyed.Options{})
	c := b.connect("")
	b.settled(c, 200)
	ctx := context.Background()
	if _, err := c.Exec(ctx, "BEGIN"); err != nil {
		t.Fatal(err)
	}
	f := c.PgConn().Frontend()
	f.SendParse(&pgproto3.Parse{Query: "SELECT account FROM balances"})
	f.SendBind(&pgproto3.Bind{})
	for range 3 {
		f.SendExecute(&pgproto3.Execute{MaxRows: 20})
	}
	f.SendSync(&pgproto3.Sync{})
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	var got []string
	rows := 0
	for done := false; !done; {
		m, err := f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3.")
		switch name {
		case "DataRow":
			rows++
			continue
		case "ReadyForQuery":
			done = true
		}
		got = append(got, fmt.Sprint(name, rows))
	}
	want := "[ParseComplete0 BindComplete0 PortalSuspended20 PortalSuspended40 CommandComplete50 ReadyForQuery50]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestCancel: a query ends when the client asks for it, and the session goes on.
func TestCancel(t *testing.T) {
	b := newBed(t, 3000, 3000, keyed.Options{})
	c := b.connect("")
	b.settled(c, 6000)
	const slow = "SELECT COUNT(*) FROM balances a, balances b, balances c WHERE a.moves + b.moves + c.moves > 0 AND a.account + b.account > c.account"
	go func() {
		<-time.After(100 * time.Millisecond)
		_ = c.PgConn().CancelRequest(context.Background())
	}()
	began := time.Now()
	if got := rowsText(c, slow); !strings.HasPrefix(got, "ERROR 57014") {
		t.Errorf("got %s", got)
	}
	t.Logf("canceled after %v", time.Since(began))
	if got := rowsText(c, "SELECT 1"); got != "1" {
		t.Errorf("afterwards: %s", got)
	}
}

// TestPsql: the commands that people type first.
func TestPsql(t *testing.T) {
	path, err := exec.LookPath("psql")
	if err != nil {
		t.Fatal("psql is needed: apt-get install postgresql-client")
	}
	b := newBed(t, 4, 100, keyed.Options{})
	b.settled(b.connect(""), 200)
	run := func(commands ...string) string {
		args := []string{"-X", "-d", "postgres://weir@" + b.addr + "/weir"}
		for _, c := range commands {
			args = append(args, "-c", c)
		}
		out, err := exec.Command(path, args...).CombinedOutput()
		if err != nil && commands[0] != `\d none` {
			t.Errorf("psql %v: %v\n%s", commands, err, out)
		}
		return string(out)
	}
	for _, c := range []struct {
		command string
		want    []string
	}{
		{`\d`, []string{"List of relations", "public | balances | materialized view | weir", "public | total "}},
		{`\dm`, []string{"balances"}},
		{`\dt`, []string{"Did not find any relations"}},
		{`\dv`, []string{"Did not find any relations"}},
		{`\d balances`, []string{`Materialized view "public.balances"`, "account | bigint |           | not null", "moves   | bigint", `"balances_key" UNIQUE, hash (account)`}},
		{`\d+ balances`, []string{"account"}},
		{`\d bal*`, []string{"public.balances"}},
		{`\d none`, []string{`Did not find any relation named "none"`}},
		{`\l`, []string{"weir"}},
		{`\dn`, []string{"public"}},
		{`\conninfo`, []string{`database "weir"`}},
		{"SELECT account, moves FROM balances ORDER BY account", []string{" account | moves", "       0 |    50", "(4 rows)"}},
		{"SELECT n, dec, s, at, raw FROM things ORDER BY n", []string{`1 | 12.30 | one        | 2024-02-29 01:02:03.5 | \x00ff`, "-0.05 | it's three"}},
	} {
		got := run(c.command)
		for _, w := range c.want {
			if !strings.Contains(got, w) {
				t.Errorf("psql %s lacks %q:\n%s", c.command, w, got)
			}
		}
	}
	out, err := exec.Command(path, "-X", "-d", "postgres://weir@"+b.addr+"/weir", "-c", "SELECT account,\n  nothing FROM balances").CombinedOutput()
	if want := "LINE 2:   nothing FROM balances\n          ^"; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("an error does not show its place: %v\n%s", err, out)
	}
}

// BenchmarkPoint is a lookup by key in a view of 100,000 rows, as drivers do it.
func BenchmarkPoint(b *testing.B) {
	x := newBed(b, 100_000, 200_000, keyed.Options{})
	c := x.connect("")
	x.settled(c, 400_000)
	ctx := context.Background()
	for b.Loop() {
		var n int64
		if err := c.QueryRow(ctx, "SELECT moves FROM balances WHERE account = $1", int64(4711)).Scan(&n); err != nil {
			b.Fatal(err)
		}
	}
}

// TestLimits: a query that would take too much ends alone, and so does a client too many.
func TestLimits(t *testing.T) {
	b := newBed(t, 3000, 3000, keyed.Options{})
	b.server.opts.QueryBytes, b.server.opts.ResultBytes, b.server.opts.MaxClients = 4<<20, 1<<20, 1
	c := b.connect("")
	b.settled(c, 6000)
	for sql, want := range map[string]string{
		"SELECT DISTINCT a.account, b.account FROM balances a, balances b":                                     "ERROR 53200 the query needs more than the 4 MiB",
		"SELECT a.account FROM balances a, balances b ORDER BY 1":                                              "ERROR 53200 the result is larger than the 1 MiB",
		"SELECT COUNT(*) FROM balances a LEFT JOIN balances b ON a.moves >= b.moves WHERE a.account IN (1, 2)": "",
	} {
		if got := rowsText(c, sql); !strings.HasPrefix(got, want) || want == "" && strings.HasPrefix(got, "ERROR") {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	_, err := pgx.Connect(context.Background(), "postgres://weir@"+b.addr+"/weir?sslmode=disable")
	if err == nil || !strings.Contains(err.Error(), "53300") {
		t.Errorf("one client too many got %v", err)
	}
	if _, err := pgx.Connect(context.Background(), "postgres://weir@"+b.addr+"/shop"); err == nil {
		t.Error("a database that is not there was connected to")
	}
}
