package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestQueryDDL tells a story over psql to a server that began with nothing: tables and views are made, read, replaced and
// dropped, what cannot be is refused with a reason, and all of it is there again after kill -9.
func TestQueryDDL(t *testing.T) {
	t.Parallel()
	q := newQueries(t, "")
	q.name = "weir"
	begin := func() {
		q.run("server", "--state", q.state, "--http-addr", "127.0.0.1:0", "--pg-addr", "127.0.0.1:0")
		eventually(t, 20*time.Second, "the server answers", func() (bool, string) {
			conn, err := q.psql(t.Context(), simple)
			if err == nil {
				_ = conn.Close(t.Context())
			}
			return err == nil, fmt.Sprint(err)
		})
	}
	begin()
	// says is what a statement comes to: its rows, its tag, or its error with detail and hint; behind notices.
	says := func(sql string) string {
		t.Helper()
		at, err := q.psql(t.Context(), simple)
		if err != nil {
			t.Fatal(err)
		}
		c := at.Config()
		_ = at.Close(t.Context())
		var out []string
		c.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { out = append(out, "notice: "+n.Message) }
		conn, err := pgx.ConnectConfig(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(t.Context()) }()
		results, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
		for _, r := range results {
			for _, row := range r.Rows {
				var cells []string
				for _, v := range row {
					cells = append(cells, string(v))
				}
				out = append(out, strings.Join(cells, "|"))
			}
			if len(r.FieldDescriptions) == 0 && r.Err == nil {
				out = append(out, r.CommandTag.String())
			}
		}
		if e, ok := err.(*pgconn.PgError); ok {
			out = append(out, "error: "+e.Message)
			if e.Detail != "" {
				out = append(out, "detail: "+e.Detail)
			}
		} else if err != nil {
			t.Fatal(err)
		}
		return strings.Join(out, "\n")
	}
	tell := func(story [][2]string) {
		t.Helper()
		for _, s := range story {
			if got := says(s[0]); !strings.Contains(got, s[1]) {
				t.Errorf("%s\nsays\n%s\nwant\n%s", s[0], got, s[1])
			}
		}
	}
	tell([][2]string{
		{"CREATE TABLE acc (id INT PRIMARY KEY, town STRING, balance BIGINT NOT NULL)", "CREATE TABLE"},
		{"INSERT INTO acc VALUES (1, 'oslo', 10), (2, 'rome', 20), (3, 'oslo', 30)", "INSERT 0 3"},
		{"CREATE MATERIALIZED VIEW towns AS SELECT town, SUM(balance) AS balance FROM acc GROUP BY town", "CREATE MATERIALIZED VIEW"},
		{"SELECT town, balance FROM towns ORDER BY town", "oslo|40\nrome|20"},
		{"UPDATE acc SET balance = balance + 5 WHERE id = 2", "UPDATE 1"},
		{"SELECT balance FROM towns WHERE town = 'rome'", "25"},
		{"CREATE VIEW rich AS SELECT * FROM towns WHERE balance > 30", "CREATE VIEW"},
		{"CREATE MATERIALIZED VIEW pairs AS SELECT a.town AS a, b.town AS b FROM rich a JOIN towns b ON a.town <> b.town", "CREATE MATERIALIZED VIEW"},
		{"SELECT * FROM pairs", "oslo|rome"},
		{"CREATE MATERIALIZED VIEW pairs AS SELECT 1 AS one", "error: pairs exists already, in pipeline weir"},
		{"CREATE MATERIALIZED VIEW IF NOT EXISTS pairs AS SELECT 1 AS one", `notice: materialized view "pairs" already exists, skipping`},
		{"CREATE OR REPLACE MATERIALIZED VIEW pairs AS SELECT b.town AS b FROM rich a JOIN towns b ON a.town = b.town", "CREATE MATERIALIZED VIEW"},
		{"SELECT * FROM pairs", "oslo"},
		{"CREATE MATERIALIZED VIEW v AS SELECT nothing FROM acc", "error: there is no column nothing"},
		{"CREATE MATERIALIZED VIEW v AS SELECT * FROM nowhere", "error: there is no table or view nowhere"},
		{"CREATE TABLE t (a INT) WITH ('connector' = 'nothing')", "error: there is no connector 'nothing'"},
		{"CREATE TABLE numbers (n INT, m INT) WITH ('connector' = 'datagen', 'rows-per-second' = '10', 'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '3')", "CREATE TABLE"},
		{"CREATE MATERIALIZED VIEW counted AS SELECT COUNT(*) AS n FROM numbers", "CREATE MATERIALIZED VIEW"},
		{"CREATE MATERIALIZED VIEW again AS SELECT * FROM numbers", "error: nothing has kept the rows that table numbers has given so far"},
		{"CREATE TABLE far (id INT, town STRING, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'postgres-cdc', 'hostname' = '127.0.0.1', 'port' = '1', 'username' = 'u', 'password' = 'hidden', 'database-name' = 'd', 'schema-name' = 'public', 'table-name' = 'far')", "CREATE TABLE"},
		{"CREATE MATERIALIZED VIEW farther AS SELECT far.id, towns.balance FROM far JOIN towns ON far.town = towns.town", "error: "},
		{"SELECT COUNT(*) FROM farther", "error: there is no table or view farther"},
		{"SELECT town, balance FROM towns ORDER BY town", "oslo|40\nrome|25"},
		{"DROP TABLE far", "DROP TABLE"},
		{"CREATE TABLE gone (town STRING, balance BIGINT, PRIMARY KEY (town) NOT ENFORCED) WITH ('connector' = 'blackhole')", "CREATE TABLE"},
		{"INSERT INTO gone SELECT town, balance FROM towns", "INSERT 0 0"},
		{"INSERT INTO gone SELECT town, balance FROM towns", "error: that statement runs already"},
		{"INSERT INTO nowhere SELECT 1", "error: there is no table nowhere to write to"},
		{"BEGIN; CREATE VIEW x AS SELECT 1 AS one; COMMIT", "error: CREATE VIEW cannot run inside a transaction block"},
		{"DROP TABLE acc", "error: table acc cannot be dropped: others depend on it\ndetail: materialized view towns; view rich; materialized view pairs; INSERT INTO gone"},
		{"DROP VIEW towns", "error: towns is a materialized view"},
		{"DROP VIEW nothing", "error: there is no view nothing"},
		{"DROP VIEW IF EXISTS nothing", `notice: view "nothing" does not exist, skipping`},
		{"DROP MATERIALIZED VIEW pairs", "DROP MATERIALIZED VIEW"},
		{"SELECT * FROM pairs", "error: there is no table or view pairs"},
	})
	q.kill()
	begin()
	eventually(t, 20*time.Second, "the numbers are counted", func() (bool, string) {
		got := says("SELECT n FROM counted")
		return got == "3", got
	})
	tell([][2]string{
		{"SELECT town, balance FROM towns ORDER BY town", "oslo|40\nrome|25"},
		{"DELETE FROM acc WHERE id = 1", "DELETE 1"},
		{"SELECT town, balance FROM towns ORDER BY town", "oslo|30\nrome|25"},
		{"DROP TABLE acc CASCADE", "notice: drop cascades to materialized view towns"},
		{"CREATE TABLE acc (id INT PRIMARY KEY)", "CREATE TABLE"},
		{"SELECT COUNT(*) FROM acc", "0"},
		{"DROP TABLE acc; DROP TABLE gone; DROP TABLE numbers CASCADE", "notice: drop cascades to materialized view counted\nDROP TABLE\nDROP TABLE\nDROP TABLE"},
	})
	if out := q.mustCLI("pipelines", "list", "-o", "name", "--state", q.state); strings.TrimSpace(out) != "" {
		t.Errorf("something is left:\n%s", out)
	}
	q.stop()
}
