// Package golden runs each program of testdata in three ways that have to come to the same: straight through; with a
// checkpoint after every epoch and a crash at every place where one can hurt; and stopped and restored with other numbers
// of tasks. What they come to is written in the file.
//
// The pipelines are run by what `weir run` runs them with, on a file system that forgets at a crash what was not synced.
package golden

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/weirstream/weir/sql/plan"
	"github.com/weirstream/weir/test/nexmark"
)

// TestGolden: the files are read with
//
//	sql                     the program, whose tables have the connectors `history` and `out`
//	history                 lines `TABLE + a, b, c` and `TABLE - a, b, c`; an empty line ends a transaction
//	history random=N seed=S N random transactions on all tables
//	run                     all three ways; the answer are the tables' rows
//	nexmark query=Q events=N   a query of the benchmark over its stream; the answer is how many rows there are, and their sum
func TestGolden(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		t.Parallel()
		c := &golden{t: t}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "sql":
				c.sql = d.Input
				c.program = c.plan(d)
			case "history":
				c.history, c.events = nil, 0
				if d.HasArg("random") {
					var n, seed int
					d.ScanArgs(t, "random", &n)
					d.ScanArgs(t, "seed", &seed)
					c.history = randomHistory(rand.New(rand.NewPCG(uint64(seed), 3)), c.program, n)
				}
				c.history = append(c.history, parseHistory(t, c.program, d)...)
				return fmt.Sprintf("%d transactions\n", len(c.history))
			case "nexmark":
				var name string
				d.ScanArgs(t, "query", &name)
				d.ScanArgs(t, "events", &c.events)
				c.sql = nexmarkSQL(t, name)
				c.program = c.plan(d)
				return c.run(true)
			case "run":
				return c.run(false)
			default:
				d.Fatalf(t, "what is %q?", d.Cmd)
			}
			return ""
		})
	})
}

// golden is a program with its input.
type golden struct {
	t       *testing.T
	sql     string
	program *plan.Program
	history []transaction
	events  int
}

func (c *golden) plan(d *datadriven.TestData) *plan.Program {
	p, err := plan.Build("golden.sql", c.sql, plan.Environment{Connectors: kinds()})
	if err != nil {
		d.Fatalf(c.t, "%v", err)
	}
	return p
}

// nexmarkSQL is a program that writes the answer of a query of the benchmark as it is.
func nexmarkSQL(t *testing.T, name string) string {
	for _, q := range nexmark.Queries() {
		if q.Name != name {
			continue
		}
		p, err := plan.Build("nexmark.sql", nexmark.DDL()+"CREATE MATERIALIZED VIEW v AS "+q.SQL+";", plan.Environment{Connectors: kinds()})
		if err != nil {
			t.Fatal(err)
		}
		var columns []string
		for i, f := range p.Views[0].Schema {
			columns = append(columns, fmt.Sprintf("c%d %s", i, f.Type))
		}
		return nexmark.DDL() + "CREATE TABLE answer (" + strings.Join(columns, ", ") + ") WITH ('connector' = 'out');\nINSERT INTO answer " + q.SQL + ";"
	}
	t.Fatalf("the benchmark has no query %s", name)
	return ""
}

func (c *golden) run(sums bool) string {
	straight := newWorld(c)
	straight.once("1h", 1)
	want := straight.answer(sums)

	crashing := newWorld(c)
	crashing.paced = true
	if crashes := crashing.throughCrashes(); crashes < 3 {
		c.t.Errorf("only %d crashes", crashes)
	}
	if got := crashing.answer(sums); got != want {
		c.t.Errorf("through crashes:\n%swant:\n%s", got, want)
	}

	moved := newWorld(c)
	moved.paced = true
	if moves := moved.throughParallelisms(3, 1, 2, 4, 1); moves == 0 {
		c.t.Error("it was at its end before another number of tasks was tried")
	}
	if got := moved.answer(sums); got != want {
		c.t.Errorf("with other numbers of tasks:\n%swant:\n%s", got, want)
	}
	return want
}

// answer is what the sinks hold.
func (w *world) answer(sums bool) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out strings.Builder
	for _, s := range w.c.program.Sinks {
		table := w.shelves[s.Name].rows
		var lines []string
		for text, n := range table {
			if n < 0 {
				w.c.t.Errorf("%s has %d times %s", s.Name, n, text)
			}
			for range n {
				lines = append(lines, text+"\n")
			}
		}
		sort.Strings(lines)
		if sums {
			h := fnv.New64a()
			for _, l := range lines {
				h.Write([]byte(l))
			}
			fmt.Fprintf(&out, "%s: %d rows, sum %016x\n", s.Name, len(lines), h.Sum64())
			continue
		}
		fmt.Fprintf(&out, "%s:\n%s", s.Name, strings.Join(lines, ""))
	}
	return out.String()
}

// throughCrashes runs the program to its end, with a crash at each hit of each place in turn, and tells how many there
// were.
func (w *world) throughCrashes() (crashes int) {
	r := rand.New(rand.NewPCG(7, 7))
	for ; ; crashes++ {
		if crashes > 300 {
			w.c.t.Fatal("no end")
		}
		w.mu.Lock()
		w.crashIn = 1 + r.IntN(10)
		if crashes >= 40 {
			w.crashIn = 0 // enough; the rest goes through
		}
		w.mu.Unlock()
		if w.once("0s", 1+crashes%2) {
			return crashes
		}
	}
}

// throughParallelisms runs the program and stops it gracefully after some checkpoints, to go on with the next number of
// tasks; the last number stays.
func (w *world) throughParallelisms(ps ...int) (moves int) {
	for i := 0; ; i++ {
		w.mu.Lock()
		w.stopIn = 2
		if i >= len(ps)-1 {
			w.stopIn = 0
		}
		w.mu.Unlock()
		if w.once("0s", ps[min(i, len(ps)-1)]) {
			return i
		}
	}
}

// once runs the pipeline until it ends, which is true, or until it is stopped or has crashed.
func (w *world) once(interval string, parallelism int) bool {
	life := w.begin()
	defer life.end()
	run, err := life.start(interval, parallelism)
	if err != nil {
		w.c.t.Fatal(err)
	}
	select {
	case <-run.Done():
		err := run.Err()
		if life.isDead() {
			return false
		}
		if err != nil {
			w.c.t.Fatal(err)
		}
		return true
	case <-life.stop:
		if err := run.Stop(context.Background()); err != nil {
			w.c.t.Fatal(err)
		}
		return false // if it was at its end, the next one finds that out
	}
}
