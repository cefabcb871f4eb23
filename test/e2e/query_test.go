package e2e

import (
	"encoding/csv"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/cmd/weir/query"
	"github.com/weirstream/weir/engine/state/disk"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/raft"
)

// queries is `weir run` of a file in a directory of its own, in which the file's relative paths begin.
type queries struct {
	*mirror
}

func newQueries(t *testing.T, sql string) *queries {
	t.Helper()
	m := newMirror(t, db{}, db{}, "")
	m.name, m.dir = "totals", t.TempDir()
	q := &queries{m}
	q.write("totals.sql", sql)
	return q
}

// write makes a file appear as a whole.
func (q *queries) write(name, text string) {
	q.t.Helper()
	path := filepath.Join(q.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		q.t.Fatal(err)
	}
	hidden := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(hidden, []byte(text), 0o644); err != nil {
		q.t.Fatal(err)
	}
	if err := os.Rename(hidden, path); err != nil {
		q.t.Fatal(err)
	}
}

func (q *queries) begin(args ...string) {
	q.t.Helper()
	q.run(append([]string{"run", filepath.Join(q.dir, "totals.sql"), "--state", q.state, "--http-addr", "127.0.0.1:0"}, args...)...)
}

// net adds up a changelog of files: its rows with their weights.
func (q *queries) net(dir string) map[string]int {
	q.t.Helper()
	out := map[string]int{}
	q.checkpoints(dir, out, func(string) {})
	return out
}

// checkpoints adds the files of each checkpoint to rows, in their order, and calls after behind each.
func (q *queries) checkpoints(dir string, rows map[string]int, after func(checkpoint string)) {
	q.t.Helper()
	files, err := filepath.Glob(filepath.Join(q.dir, dir, "part-*"))
	if err != nil {
		q.t.Fatal(err)
	}
	out := rows
	of := func(path string) string {
		checkpoint, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), "part-"), "-")
		return checkpoint
	}
	for i, path := range files { // a checkpoint's number has as many digits as any other's
		f, err := os.Open(path)
		if err != nil {
			q.t.Fatal(err)
		}
		rows, err := csv.NewReader(f).ReadAll()
		_ = f.Close()
		if err != nil {
			q.t.Fatalf("%s: %v", path, err)
		}
		for _, r := range rows {
			w := 1
			if r[0] == "-D" {
				w = -1
			}
			row := strings.Join(r[1:], ",")
			if out[row] += w; out[row] == 0 {
				delete(out, row)
			}
		}
		if i+1 == len(files) || of(files[i+1]) != of(path) {
			after(of(path))
		}
	}
}

// ends waits until the process has ended by itself, with exit code 0.
func (q *queries) ends() {
	q.t.Helper()
	if err := q.wait(30 * time.Second); err != nil {
		q.t.Fatalf("weir run ended with %v\n%s", err, q.logTail(40))
	}
}

// TestExampleQuery runs examples/query as its README says.
func TestExampleQuery(t *testing.T) {
	example := filepath.Join("..", "..", "examples", "query")
	q := newQueries(t, "")
	for _, name := range []string{"cities.sql", "orders/1.csv", "people/1.csv"} {
		b, err := os.ReadFile(filepath.Join(example, name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "cities.sql" {
			name = "totals.sql"
		}
		q.write(name, string(b))
	}
	q.begin()
	shows := func(want string) {
		t.Helper()
		eventually(t, 20*time.Second, want, func() (bool, string) {
			got := fmt.Sprint(q.net("cities"))
			return got == want, got
		})
	}
	shows("map[oslo,1,3.00:1 rome,2,19.75:1]")
	q.write("people/2.csv", "cid,oslo\n")
	q.write("orders/2.csv", "4,cid,5.00\n")
	shows("map[oslo,2,8.00:1 rome,2,19.75:1]")
	q.stop()
}

const regions = 7

// TestQueryToTheEnd: sources that end make a pipeline that ends, and what it wrote is the answer. The same command again
// has nothing to do.
func TestQueryToTheEnd(t *testing.T) {
	const rows = 20_000
	q := newQueries(t, `
-- bids of regions, of which a file knows the names
SET 'parallelism.default' = '2';
SET 'execution.runtime-mode' = 'streaming';
CREATE TABLE bid (id BIGINT, price BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '100000000',
	'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '20000',
	'fields.price.kind' = 'sequence', 'fields.price.start' = '1', 'fields.price.end' = '20000');
CREATE TABLE region (n BIGINT, name STRING) WITH ('connector' = 'filesystem', 'path' = 'region', 'format' = 'csv');
CREATE TABLE total (name STRING, bids BIGINT, money BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv', 'sink.changelog' = 'true');
INSERT INTO total SELECT r.name, COUNT(*), SUM(b.price) FROM bid b JOIN region r ON MOD(b.id, 7) = r.n GROUP BY r.name;
`)
	var names strings.Builder
	for n := range regions {
		fmt.Fprintf(&names, "%d,region %d\n", n, n)
	}
	q.write("region/names.csv", names.String())
	run := func() {
		q.begin()
		q.ends()
	}
	run()
	want := map[string]int{}
	for n := range int64(regions) {
		count, sum := int64(0), int64(0)
		for id := int64(1); id <= rows; id++ {
			if id%regions == n {
				count++
				sum += id
			}
		}
		want[fmt.Sprintf("region %d,%d,%d", n, count, sum)] = 1
	}
	if got := q.net("out"); !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if log := q.log(); !strings.Contains(log, "totals finished in") || !strings.Contains(log, "execution.runtime-mode is Flink's") {
		t.Errorf("printed\n%s", log)
	}
	run()
	if got := q.net("out"); !maps.Equal(got, want) {
		t.Errorf("after a second run: %v", got)
	}

	// A server goes on with it, and takes the same file from another command.
	q.server()
	file := filepath.Join(q.dir, "totals.sql")
	if out, note, code := q.cli("run", file); code != 0 || !strings.Contains(note, "handed to the weir that runs at") || !strings.Contains(note, "totals finished in") {
		t.Errorf("handed to a server: exit code %d\n%s%s", code, out, note)
	}

	// The place where it writes is its own: the checkpoints of another pipeline would be taken for its own. And of one that
	// came before, which is the same.
	refused := func(args ...string) {
		t.Helper()
		if out, note, code := q.cli(append([]string{"run", file}, args...)...); code != 1 || !strings.Contains(note, "error[W4009]") || !strings.Contains(note, "holds what another pipeline has written") {
			t.Errorf("with another pipeline's directory %v: exit code %d\n%s%s", args, code, out, note)
		}
	}
	refused("--name", "again")
	q.mustCLI("pipelines", "delete", "totals", "--yes", "--wait")
	refused()
	if got := q.net("out"); !maps.Equal(got, want) {
		t.Errorf("after others tried to write there: %v", got)
	}
	if err := os.RemoveAll(filepath.Join(q.dir, "out")); err != nil {
		t.Fatal(err)
	}
	if out, note, code := q.cli("run", file); code != 0 || !strings.Contains(note, "totals finished in") || !maps.Equal(q.net("out"), want) {
		t.Errorf("anew: exit code %d\n%s%s", code, out, note)
	}
}

// cities is a join and an aggregate over two directories that are watched. Its files come in bit by bit.
type cities struct {
	*queries
	r          *rand.Rand
	city       map[string]string // by person
	orders     map[string]money  // by person
	files, ids int
}

type money struct{ n, total int64 }

func newCities(t *testing.T, seed uint64, set string) *cities {
	t.Helper()
	return &cities{r: rand.New(rand.NewPCG(seed, 2)), city: map[string]string{}, orders: map[string]money{}, queries: newQueries(t, set+`
CREATE TABLE orders (id BIGINT, who STRING, amount BIGINT) WITH ('connector' = 'filesystem', 'path' = 'orders', 'format' = 'csv', 'source.monitor-interval' = '50 ms');
CREATE TABLE people (who STRING, city STRING) WITH ('connector' = 'filesystem', 'path' = 'people', 'format' = 'csv', 'source.monitor-interval' = '50 ms');
CREATE TABLE cities (city STRING, n BIGINT, total BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv', 'sink.changelog' = 'true');
INSERT INTO cities SELECT p.city, COUNT(*), SUM(o.amount) FROM orders o JOIN people p ON o.who = p.who GROUP BY p.city;
`)}
}

// add makes a file appear in each directory.
func (q *cities) add() {
	q.files++
	var o, p strings.Builder
	for range 200 {
		q.ids++
		who, amount := fmt.Sprintf("p%d", q.r.IntN(300)), q.r.Int64N(1000)
		fmt.Fprintf(&o, "%d,%s,%d\n", q.ids, who, amount)
		q.orders[who] = money{q.orders[who].n + 1, q.orders[who].total + amount}
	}
	for range 5 {
		who := fmt.Sprintf("p%d", q.r.IntN(300))
		if q.city[who] == "" {
			q.city[who] = fmt.Sprintf("city %d", q.r.IntN(12))
			fmt.Fprintf(&p, "%s,%s\n", who, q.city[who])
		}
	}
	q.write(fmt.Sprintf("orders/%04d.csv", q.files), o.String())
	q.write(fmt.Sprintf("people/%04d.csv", q.files), p.String())
}

// answer is the query over all files.
func (q *cities) answer() map[string]int {
	sums := map[string]money{}
	for who, s := range q.orders {
		if c := q.city[who]; c != "" {
			sums[c] = money{sums[c].n + s.n, sums[c].total + s.total}
		}
	}
	out := map[string]int{}
	for c, s := range sums {
		out[fmt.Sprintf("%s,%d,%d", c, s.n, s.total)] = 1
	}
	return out
}

// settles waits until what was written adds up to the answer.
func (q *cities) settles(what string) {
	q.t.Helper()
	eventually(q.t, 30*time.Second, what, func() (bool, string) {
		got, want := q.net("out"), q.answer()
		return maps.Equal(got, want), fmt.Sprintf("got %v, want %v", got, want)
	})
}

// lawful looks at what was there after each checkpoint: of each city one row, and no order that was not counted before is
// missing. To be asked while nothing is being written.
func (q *cities) lawful() {
	q.t.Helper()
	rows, seen, before := map[string]int{}, 0, int64(0)
	q.checkpoints("out", rows, func(checkpoint string) {
		seen++
		orders, of := int64(0), map[string]int{}
		for row, weight := range rows {
			var n int64
			city, rest, _ := strings.Cut(row, ",")
			if of[city]++; weight != 1 || of[city] > 1 {
				q.t.Errorf("after checkpoint %s: %q has weight %d, and is one of %d rows of its city", checkpoint, row, weight, of[city])
			}
			if _, err := fmt.Sscanf(rest, "%d,", &n); err != nil {
				q.t.Errorf("row %q: %v", row, err)
			}
			orders += n
		}
		if orders < before {
			q.t.Errorf("after checkpoint %s there are %d orders, and there were %d before", checkpoint, orders, before)
		}
		before = orders
	})
	if seen < 3 {
		q.t.Errorf("only %d checkpoints", seen)
	}
}

// TestQueryAtEachPoint: a crash at any point of a checkpoint loses nothing and writes nothing twice.
func TestQueryAtEachPoint(t *testing.T) {
	points := append(disk.FailPoints(), query.FailPrepared, query.FailCommitted, query.FailPublished, raft.FailUnknown)
	for n, p := range points {
		switch p {
		case disk.FailTable, disk.FailIngest, disk.FailFlush, disk.FailDelete:
			continue // they come with much more state
		}
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			q := newCities(t, uint64(n), "SET 'parallelism.default' = '2';\nSET 'checkpoint.interval' = '0s';\n")
			q.env = []string{fmt.Sprintf("WEIR_FAILPOINTS=%s=kill@%d", p, 5+n%4)}
			q.add()
			q.begin()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for range 1000 {
				if !q.running() {
					break
				}
				<-tick.C
				if q.files < 60 {
					q.add()
				}
			}
			if err := q.wait(10 * time.Second); err == nil || !strings.Contains(q.log(), failpoint.ErrKill.Error()) {
				t.Fatalf("weir ended with %v, not by the crash point", err)
			}
			q.env = nil
			q.add()
			q.begin()
			q.settles("after the crash")
			q.add()
			q.settles("and on")
			q.stop()
			q.lawful()
		})
	}
}

// TestQueryThroughCrashes: weir is killed again and again while files come in, and the changes that it has written add up
// to the answer.
func TestQueryThroughCrashes(t *testing.T) {
	q := newCities(t, 4, "")
	add, settles, r := q.add, q.settles, q.r
	add()
	q.begin()
	settles("the first files")
	for range 5 {
		tick := time.NewTicker(20 * time.Millisecond)
		for range 5 + r.IntN(40) {
			add()
			<-tick.C
		}
		tick.Stop()
		q.kill()
		add()
		q.begin()
	}
	settles("after five crashes")

	// What is told of it.
	v, err := q.view()
	s := v.Status.Query
	if err != nil || v.Query == nil || s == nil || v.Status.Phase != api.PhaseLive || len(s.Checkpoints) == 0 || s.StateBytes == 0 || len(s.States) == 0 || len(s.Sources) != 2 || len(s.Sinks) != 1 {
		t.Errorf("status %+v, %v", v, err)
	}
	for _, c := range []struct{ args, says string }{
		{"pipelines list", "totals"}, {"pipelines get totals", "cities"}, {"checkpoints list totals", "CHECKPOINT"}, {"state size totals", "aggregate"}, {"views list", ""},
	} {
		if out := q.mustCLI(strings.Fields(c.args)...); !strings.Contains(out, c.says) {
			t.Errorf("weir %s printed\n%s", c.args, out)
		}
	}
	scraped, err := q.rest("GET", "/metrics")
	if metrics := string(scraped); err != nil || !strings.Contains(metrics, `weir_checkpoint_seconds_count{pipeline="totals"}`) || !strings.Contains(metrics, `weir_source_rows_total{pipeline="totals",source="`) {
		t.Errorf("metrics: %v\n%s", err, metrics)
	}

	q.stop()
	add()
	q.begin()
	settles("after an interrupt")
	q.mustCLI("pipelines", "pause", "totals", "--wait")
	add()
	q.mustCLI("pipelines", "resume", "totals", "--wait")
	settles("after a pause")
	q.stop()
	q.lawful()

	// A file that means the same goes on, one that means something else is refused.
	text, err := os.ReadFile(filepath.Join(q.dir, "totals.sql"))
	if err != nil {
		t.Fatal(err)
	}
	q.write("totals.sql", "-- the same\n"+strings.ReplaceAll(string(text), "INSERT INTO", "insert  into"))
	add()
	q.begin()
	settles("with a comment")
	q.stop()
	add()
	q.begin("--set", "parallelism=3")
	settles("with more tasks")
	if v, err := q.view(); err != nil || v.Status.Query == nil || v.Status.Query.Parallelism != 3 {
		t.Errorf("with --set parallelism=3: %+v, %v", v.Status.Query, err)
	}
	add()
	settles("and on")
	q.stop()
	q.lawful()
	q.write("totals.sql", strings.ReplaceAll(string(text), "COUNT(*)", "COUNT(o.amount) + 1"))
	q.begin()
	if err := q.wait(20 * time.Second); err == nil || !strings.Contains(q.logTail(20), "pipeline totals exists with another definition") {
		t.Errorf("a changed file: %v\n%s", err, q.logTail(20))
	}
	q.write("totals.sql", string(text))
	q.begin()
	add()
	settles("with the old text")
	q.mustCLI("pipelines", "delete", "totals", "--yes", "--wait")
	if err := q.wait(20 * time.Second); err != nil {
		t.Errorf("after the delete weir run ended with %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(q.dir, "out", "part-*")); len(left) == 0 {
		t.Error("the delete took what was written")
	}
}

// TestQueryMistakes: what is wrong is told with its place, and leaves no pipeline behind.
func TestQueryMistakes(t *testing.T) {
	tables := "CREATE TABLE a (x BIGINT) WITH ('connector' = 'filesystem', 'path' = 'a', 'format' = 'csv');\nCREATE TABLE p (x BIGINT) WITH ('connector' = 'print');\n"
	q := newQueries(t, "")
	for _, c := range []struct{ sql, says string }{
		{tables + "INSERT INTO p SELECT y FROM a;", "totals.sql:3:22"},
		{tables + "INSERT INTO p SELEC x FROM a;", "totals.sql:3:15"},
		{strings.ReplaceAll(tables, "'path'", "'pat'") + "INSERT INTO p SELECT x FROM a;", "totals.sql:1:1"},
		{tables + "CREATE TABLE b (x BIGINT) WITH ('connector' = 'filesistem');\nINSERT INTO b SELECT x FROM a;", "totals.sql:3:"},
		{"SET 'parallelism' = 'many';\n" + tables + "INSERT INTO p SELECT x FROM a;", "totals.sql:1:5"},
		{tables, "has nothing to run"},
		{tables + "INSERT INTO p SELECT x FROM a;", "error[W1018]"}, // and after it there is no pipeline that would be another
		{strings.ReplaceAll(tables, "'a'", "'b'") + "INSERT INTO p SELECT x FROM a;", "error[W1018]"},
	} {
		q.write("totals.sql", c.sql)
		q.begin()
		err := q.wait(20 * time.Second)
		code := -1
		if q.cmd.ProcessState != nil {
			code = q.cmd.ProcessState.ExitCode()
		}
		log := q.log()
		log = log[strings.LastIndex(log, "=== start"):]
		if err == nil || code != 2 && !strings.Contains(c.says, "W1018") || !strings.Contains(log, c.says) {
			t.Errorf("%s\nended with %d, %v, and printed\n%s\nwant %s", c.sql, code, err, log, c.says)
		}
	}
}
