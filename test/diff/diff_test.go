// Package diff asks random queries twice: weir keeps the answer up to date while a random history of changes passes, and
// Postgres computes it anew after each transaction. Both have to be the same at every transaction's end: incremental is
// batch.
package diff

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/plan"
	testenv "github.com/weirstream/weir/test/env"
)

var (
	queries = flag.Int("queries", 300, "how many random queries are compared")
	seed    = flag.Uint64("seed", 1, "of the first schema; each schema has the next")
	crashes = flag.Int("crashes", 1, "how often each query is run through crashes")
	at      = flag.Int("case", -1, "only this query of the first schema")
)

func TestMain(m *testing.M) { testenv.Main(m, testenv.CheckLeaks()) }

const queriesPerSchema = 10

// scenario is a schema with a history, in a database of its own.
type scenario struct {
	tables  []*table
	history []transaction
	pg      *pgconn.PgConn
	calm    bool // nothing crashes
}

func (s *scenario) ddl() string {
	var b strings.Builder
	for _, t := range s.tables {
		b.WriteString(t.flink())
	}
	return b.String()
}

func (s *scenario) exec(sql string) error {
	_, err := s.pg.Exec(context.Background(), sql).ReadAll()
	return err
}

func (s *scenario) create() error {
	sql := "DROP SCHEMA public CASCADE; CREATE SCHEMA public;"
	for _, t := range s.tables {
		sql += t.postgres() + ";"
	}
	return s.exec(sql)
}

// load makes the tables what they are after n transactions.
func (s *scenario) load(n int) error {
	var b strings.Builder
	for _, t := range s.tables {
		fmt.Fprintf(&b, "DELETE FROM %s;", t.name)
		for _, vs := range contents(s.history, n, t) {
			var lits []string
			for i, v := range vs {
				lits = append(lits, classNamed(t.columns[i].class).literal(v).text(true))
			}
			fmt.Fprintf(&b, "INSERT INTO %s VALUES (%s);", t.name, strings.Join(lits, ", "))
		}
	}
	return s.exec(b.String())
}

// answer is Postgres's to a query over the tables as they are.
func (s *scenario) answer(sql string, schema row.Schema) (string, error) {
	r := s.pg.ExecParams(context.Background(), sql, nil, nil, nil, nil).Read()
	if r.Err != nil {
		return "", r.Err
	}
	rows := map[string]int64{}
	for _, vs := range r.Rows {
		var texts []string
		for i, v := range vs {
			text := "NULL"
			if v != nil {
				text = canonical(schema[i].Type.Kind, string(v))
			}
			texts = append(texts, text)
		}
		rows[strings.Join(texts, "|")]++
	}
	return dump(rows), nil
}

// verdict is how a query ended: same, refused, or different, with what is to be seen.
type verdict struct {
	refused error // by weir, as not built yet
	invalid error // Postgres fails: it tells nothing
	failure string
}

// compile plans the query.
func (s *scenario) compile(q *node) (p *plan.Program, v verdict) {
	p, err := build(s.ddl(), q.text(false))
	if e, ok := errs.As(err); ok && (e.Code == errs.NotBuiltYet || e.Code == errs.SQLNotBuilt) {
		return nil, verdict{refused: err}
	}
	if err != nil {
		return nil, verdict{failure: "weir refuses it: " + err.Error()}
	}
	return p, verdict{}
}

// compare runs q and compares it with want, which is Postgres's answers by the number of transactions.
func (s *scenario) compare(t testing.TB, r *rand.Rand, p *plan.Program, want []string) (v verdict) {
	defer func() {
		if x := recover(); x != nil {
			v.failure = fmt.Sprint("panic: ", x)
		}
	}()
	reads := false // a program that reads no table is not stepped
	for _, source := range p.Sources {
		reads = reads || source.Connector != "values"
	}
	for _, parallelism := range []int{1, 3} {
		got, err := stepped(p, s.history, parallelism)
		if err != nil {
			return verdict{failure: fmt.Sprintf("%d tasks: %v", parallelism, err)}
		}
		for n := 1; n < len(got); n++ {
			if got[n] != want[n] && (reads || n == len(got)-1) {
				return verdict{failure: fmt.Sprintf("%d tasks, after %d transactions\nweir:\n%s\nPostgres:\n%s", parallelism, n, got[n], want[n])}
			}
		}
	}
	for range *crashes {
		if s.calm {
			break
		}
		got, runs, err := crashing(t, r, p, s.history)
		if err != nil {
			return verdict{failure: fmt.Sprintf("with crashes: %v\n%s", err, runs)}
		}
		if got != want[len(want)-1] {
			return verdict{failure: fmt.Sprintf("with crashes, in the end\nweir:\n%s\nPostgres:\n%s\n%s", got, want[len(want)-1], runs)}
		}
	}
	return verdict{}
}

// judge does all of it for one query, for shrinking and for one case.
func (s *scenario) judge(t testing.TB, r *rand.Rand, q *node) verdict {
	p, v := s.compile(q)
	if p == nil {
		// It is a mistake of weir's only if Postgres takes it.
		if v.refused == nil {
			if _, err := s.answer(q.text(true), make(row.Schema, 100)); err != nil {
				return verdict{invalid: err}
			}
		}
		return v
	}
	want := make([]string, len(s.history)+1)
	for n := 1; n < len(want); n++ {
		if err := s.load(n); err != nil {
			return verdict{invalid: err}
		}
		var err error
		if want[n], err = s.answer(q.text(true), p.Sinks[0].Tables[0].Schema); err != nil {
			return verdict{invalid: err}
		}
	}
	return s.compare(t, r, p, want)
}

func kindOf(failure string) string {
	kind, _, _ := strings.Cut(failure, ":")
	if i := strings.Index(failure, "W20"); i >= 0 {
		kind += failure[i : i+5]
	}
	if strings.Contains(failure, "Postgres:") {
		return "different"
	}
	return kind
}

func (s *scenario) shrink(t testing.TB, q *node, was string) string {
	if strings.HasPrefix(was, "with crashes") {
		return was // it depends on time: what does not fail again may fail the next time
	}
	tries := 0
	last := was
	fails := func() bool {
		if tries++; tries > 600 {
			return false
		}
		v := s.judge(t, rand.New(rand.NewPCG(1, 1)), q)
		if v.failure != "" && kindOf(v.failure) == kindOf(was) {
			last = v.failure
			return true
		}
		return false
	}
	shrink(q, fails)
	full := s.history
	for i := len(s.history) - 1; i >= 0; i-- {
		for name := range full[i] {
			for k := len(s.history[i][name]) - 1; k >= 0; k-- {
				old := s.history[i][name]
				s.history[i][name] = append(append([]change(nil), old[:k]...), old[k+1:]...)
				if !s.sound() || !fails() {
					s.history[i][name] = old
				}
			}
		}
	}
	shrink(q, fails)
	return last
}

// sound: no table has a row a negative number of times, nor two of a key.
func (s *scenario) sound() bool {
	for _, t := range s.tables {
		count := map[string]int64{}
		for _, x := range s.history {
			for _, c := range x[t.name] {
				count[strings.Join(c.values, "|")] += c.weight
			}
			keys := map[string]bool{}
			for row, n := range count {
				if n < 0 {
					return false
				}
				if n > 0 && t.key > 0 {
					k := strings.Join(strings.SplitN(row, "|", t.key+1)[:t.key], "|")
					if n > 1 || keys[k] {
						return false
					}
					keys[k] = true
				}
			}
		}
	}
	return true
}

func (s *scenario) story(q *node) string {
	var b strings.Builder
	b.WriteString(s.ddl())
	for i, x := range s.history {
		for _, t := range s.tables {
			for _, c := range x[t.name] {
				fmt.Fprintf(&b, "%d: %s %+d %s\n", i+1, t.name, c.weight, strings.Join(c.values, ", "))
			}
		}
	}
	fmt.Fprintf(&b, "query: %s\nPostgres: %s\n", q.text(false), q.text(true))
	if p, err := build(s.ddl(), q.text(false)); err == nil {
		b.WriteString(p.Explain())
	}
	return b.String()
}

// TestIncrementalIsBatch compares random queries. A failure prints the smallest case that still fails, and the seed.
func TestIncrementalIsBatch(t *testing.T) {
	server := testenv.Shared(t, 15, testenv.FsyncOff())
	ctx := context.Background()
	pg, err := pgconn.Connect(ctx, server.CreateDatabase(t, "diff"))
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close(ctx)
	if _, err := pg.Exec(ctx, "SET client_min_messages = warning; SET jit = off").ReadAll(); err != nil {
		t.Fatal(err)
	}
	refused := map[string]int{}
	asked, refusals, invalid := 0, 0, 0
	for n := uint64(0); asked < *queries && !(*at >= 0 && n > 0); n++ {
		r := rand.New(rand.NewPCG(*seed+n, 17))
		s := &scenario{tables: randomTables(r), pg: pg}
		s.history = randomHistory(r, s.tables)
		if err := s.create(); err != nil {
			t.Fatal(err)
		}
		type question struct {
			number int
			q      *node
			p      *plan.Program
			want   []string
		}
		var open []*question
		fail := func(number int, q *node, failure string) {
			before := q.text(false)
			failure = s.shrink(t, q, failure)
			t.Errorf("-seed %d -case %d\n%s\n%s\nbefore it was shrunk: %s", *seed+n, number, failure, s.story(q), before)
		}
		type failed struct {
			number int
			q      *node
			text   string
		}
		var failures []failed
		for number := range queriesPerSchema {
			g := &generator{r: r, tables: s.tables}
			q := g.query(g.outputs(), 2)
			if *at >= 0 && number != *at {
				continue
			}
			asked++
			p, v := s.compile(q)
			switch {
			case v.refused != nil:
				refusals++
				e, _ := errs.As(v.refused)
				refused[e.Message]++
			case v.failure != "":
				if _, err := s.answer(q.text(true), make(row.Schema, 100)); err != nil {
					invalid++
					t.Logf("neither takes it: %v\n%s\n%v", err, q.text(true), v.failure)
				} else {
					failures = append(failures, failed{number, q, v.failure})
				}
			default:
				open = append(open, &question{number, q, p, make([]string, len(s.history)+1)})
			}
		}
		for k := 1; k <= len(s.history); k++ {
			if err := s.load(k); err != nil {
				t.Fatal(err)
			}
			for i, x := range open {
				if x == nil {
					continue
				}
				if x.want[k], err = s.answer(x.q.text(true), x.p.Sinks[0].Tables[0].Schema); err != nil {
					var pe *pgconn.PgError
					if !errors.As(err, &pe) {
						t.Fatal(err)
					}
					invalid++
					t.Logf("Postgres does not take it: %v\n%s", err, x.q.text(true))
					open[i] = nil
				}
			}
		}
		for _, x := range open {
			if x == nil {
				continue
			}
			if v := s.compare(t, r, x.p, x.want); v.failure != "" {
				failures = append(failures, failed{x.number, x.q, v.failure})
			}
		}
		for _, f := range failures {
			history := make([]transaction, len(s.history))
			for i, x := range s.history {
				history[i] = transaction{}
				for name, cs := range x {
					history[i][name] = cs
				}
			}
			fail(f.number, f.q, f.text)
			s.history = history
		}
		if t.Failed() && len(failures) > 0 && *queries <= 300 {
			break
		}
	}
	t.Logf("%d queries, %d refused, %d invalid", asked, refusals, invalid)
	for m, n := range refused {
		t.Logf("refused %d times: %s", n, m)
	}
	if refusals*20 > asked {
		t.Errorf("%d of %d queries are refused as not built yet, more than 5 %%", refusals, asked)
	}
}
