package plan

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/engine/state/statetest"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// resumed is a feed that goes on behind the transaction at which its state stands, and gives the first limit of them.
type resumed struct {
	feed
	all   []map[string][]change
	limit int
	done  int
}

func (r *resumed) Open(ctx context.Context, st dataflow.State) error {
	if v := st["at"]; v != nil {
		r.done = int(binary.LittleEndian.Uint32(v))
	}
	r.epochs = r.all[:r.limit]
	r.at = r.done
	return r.feed.Open(ctx, st)
}

func (r *resumed) Read(ctx context.Context) (dataflow.Message, error) {
	m, err := r.feed.Read(ctx)
	if m.Kind == dataflow.KindMark {
		m.State[0].Value = binary.LittleEndian.AppendUint32(nil, uint32(r.at))
	}
	return m, err
}

// attic keeps checkpoints over the starts of a pipeline.
type attic struct {
	t    *testing.T
	mu   sync.Mutex
	kv   *statetest.Backing
	ids  map[string]uint32
	next uint32
	last dataflow.Checkpoint
	meta []byte
	gone int // states that were forgotten
}

func (a *attic) Restored() (dataflow.Checkpoint, []byte) { return a.last, a.meta }
func (a *attic) Backing() state.Backing                  { return a }
func (a *attic) Absorbed() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return uint64(a.last)
}
func (a *attic) Commit(_ context.Context, c dataflow.Checkpoint, deltas []*state.Delta, _, meta []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range deltas {
		a.kv.Apply(a.t, d)
	}
	a.last, a.meta = c, meta
	return nil
}
func (a *attic) Unpublished() []dataflow.Checkpoint         { return nil }
func (a *attic) Outbox(dataflow.Checkpoint) ([]byte, error) { return nil, nil }
func (a *attic) Published(dataflow.Checkpoint)              {}
func (a *attic) Empty(id uint32) bool                       { a.mu.Lock(); defer a.mu.Unlock(); return a.kv.Empty(id) }
func (a *attic) Get(dst, key []byte) ([]byte, bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.kv.Get(dst, key)
}
func (a *attic) Scan(p []byte, f func(k, v []byte) error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.kv.Scan(p, f)
}

// ScanState is part of state.RangeScanner.
func (a *attic) ScanState(id uint32, first, behind int, f func(k, v []byte) error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.kv.Scan(nil, func(k, v []byte) error {
		if top, of := state.RecordState(k); of != id || top < first || top >= behind {
			return nil
		}
		return f(k, v)
	})
}
func (a *attic) ID(name string) (uint32, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ids[name] == 0 {
		a.next++
		a.ids[name] = a.next
	}
	return a.ids[name], nil
}

// Forget leaves the records where they are: nothing may find them under another number.
func (a *attic) Forget(keep func(string) bool) (int, error) {
	for name := range a.ids {
		if !keep(name) {
			delete(a.ids, name)
			a.gone++
		}
	}
	return a.gone, nil
}

func addedEnvironment(added ...string) Environment {
	e := testEnvironment()
	bounded := func(map[string]string) bool { return true }
	e.Connectors["cdc"] = Kind{Source: true, Changelog: true, Upsert: true, Bounded: bounded, Group: func(map[string]string) string { return "cdc" }}
	e.Added = added
	return e
}

const addedFile = `
CREATE TABLE a (id INT NOT NULL, g INT, x INT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'rows');
CREATE TABLE b (id INT NOT NULL, g INT, y INT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'rows');
CREATE TABLE u (id INT NOT NULL, g INT, z INT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'cdc');
CREATE TABLE l (g INT, x INT) WITH ('connector' = 'log');
CREATE MATERIALIZED VIEW ma AS SELECT id, g, x FROM a;
CREATE MATERIALIZED VIEW mb AS SELECT id, g, y FROM b WHERE y > 2;
CREATE MATERIALIZED VIEW ml AS SELECT g, x + 1 AS x FROM l;
CREATE MATERIALIZED VIEW su AS SELECT g, SUM(z) AS z FROM u GROUP BY g;
CREATE MATERIALIZED VIEW ab AS SELECT a.id, b.id AS other, a.x, b.y FROM a JOIN b ON a.g = b.g;
CREATE VIEW pv AS SELECT g, x * 2 AS x FROM ma WHERE x > 1;
`

// addable are queries that a running pipeline takes.
var addable = []string{
	"SELECT g, COUNT(*) AS n, SUM(x) AS s, MAX(x) AS m FROM ma GROUP BY g",
	"SELECT m.id, n.id AS other, n.y FROM ma m JOIN mb n ON m.g = n.g",
	"SELECT m.id, n.id AS other FROM ma m JOIN ma n ON m.g = n.g",
	"SELECT m.id, n.id AS other, n.x FROM ma m LEFT JOIN ma n ON m.g = n.g AND m.x < n.x",
	"SELECT m.id, n.id AS other, n.y FROM ma m FULL JOIN mb n ON m.g = n.g",
	"SELECT id, x FROM ma m WHERE EXISTS (SELECT 1 FROM mb WHERE mb.g = m.g)",
	"SELECT id, x FROM ma m WHERE NOT EXISTS (SELECT 1 FROM mb WHERE mb.g = m.g AND mb.y > m.x)",
	"SELECT g, MAX(z) AS z, COUNT(DISTINCT z) AS d FROM u GROUP BY g",
	"SELECT u.id, s.z FROM u JOIN su s ON u.g = s.g",
	"SELECT u.id, v.id AS other FROM u JOIN u AS v ON u.g = v.g AND u.z <= v.z",
	"SELECT DISTINCT g FROM ma",
	"SELECT g, x FROM ma UNION ALL SELECT g, y FROM mb UNION ALL SELECT g, x FROM ml",
	"SELECT id, g, x FROM (SELECT id, g, x, ROW_NUMBER() OVER (PARTITION BY g ORDER BY x DESC, id) AS r FROM ma) WHERE r <= 2",
	"SELECT g, SUM(x) AS x FROM pv GROUP BY g",
	"SELECT other, COUNT(*) AS n FROM ab GROUP BY other",
	"SELECT ab.id, ma.x FROM ab JOIN ma ON ab.other = ma.id",
	"SELECT ml.g, v.n FROM ml JOIN (VALUES (1, 'one'), (2, 'two')) AS v (g, n) ON ml.g = v.g",
	"SELECT g, COUNT(*) AS n FROM ml GROUP BY g",
	"SELECT m.id, b.y FROM ma m JOIN mb b ON m.g = b.g JOIN u ON u.g = b.g",
	"SELECT COUNT(*) AS n, SUM(x) AS x FROM ma",
	"SELECT id, g FROM ma WHERE x = (SELECT MAX(x) FROM ma)",
}

func randomChanges(r *rand.Rand, epochs int) []map[string][]change {
	live := map[string]map[int][]string{"a": {}, "b": {}, "u": {}}
	var out []map[string][]change
	for range epochs {
		e := map[string][]change{}
		for range 1 + r.IntN(8) {
			table := []string{"a", "b", "u", "l"}[r.IntN(4)]
			vals := []string{fmt.Sprint(r.IntN(12)), fmt.Sprint(r.IntN(4)), fmt.Sprint(r.IntN(6))}
			if r.IntN(8) == 0 {
				vals[1] = "NULL"
			}
			if table == "l" {
				e[table] = append(e[table], change{vals[1:], 1})
				continue
			}
			var id int
			fmt.Sscan(vals[0], &id)
			if old := live[table][id]; old != nil {
				if table != "u" || r.IntN(3) == 0 {
					e[table] = append(e[table], change{old, -1})
				}
				delete(live[table], id)
				if r.IntN(3) == 0 && table != "u" {
					continue
				}
			}
			e[table] = append(e[table], change{vals, 1})
			live[table][id] = vals
		}
		out = append(out, e)
	}
	return out
}

// served runs a program up to a transaction and reads its views.
func served(t *testing.T, p *Program, d keyed.Durable, epochs []map[string][]change, limit, parallelism int) map[string]string {
	t.Helper()
	e := env.Real(slog.New(slog.DiscardHandler))
	o := keyed.Options{Graph: p.Graph, Parallelism: parallelism, Groups: 16, Stay: true, Durable: d}
	for i := range p.Sources {
		s := &p.Sources[i]
		ks := keyed.Source{Name: s.Name}
		for j := range s.Tables {
			ks.Tables = append(ks.Tables, s.Tables[j].Types())
		}
		if s.Connector == "values" {
			ks.Source = operator.NewConstant(s.Rows)
		} else {
			ks.Source = &resumed{feed: feed{tables: s.Tables}, all: epochs, limit: limit}
		}
		o.Sources = append(o.Sources, ks)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	pipe := keyed.New(e, o)
	done := make(chan error, 1)
	go func() { done <- pipe.Run(ctx) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !pipe.Status().Ended {
		select {
		case err := <-done:
			t.Fatal(err)
		case <-tick.C:
		}
	}
	pin, err := pipe.Pin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, v := range p.Views {
		rows := map[string]int64{}
		if err := pin.Read(ctx, v.Node, nil, func(b *row.Batch) error {
			for k := range b.Rows() {
				i := b.At(k)
				var vs []string
				for c, f := range v.Schema {
					if b.Cols[c].Nulls.Is(i) {
						vs = append(vs, "NULL")
						continue
					}
					vs = append(vs, string(row.AppendText(nil, f.Type, b.Cols[c], i, time.UTC)))
				}
				rows[strings.Join(vs, "|")] += b.Weight(i)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		out[v.Name] = dump(rows)
	}
	pin.Release()
	pipe.Stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	e.Wait()
	return out
}

// TestAddedIsAsFromTheBeginning: statements that are added while a pipeline runs, one after the other, give what they
// would have given had they been there from the beginning; those before them keep what they have.
func TestAddedIsAsFromTheBeginning(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 77))
			epochs := randomChanges(r, 24)
			store := &attic{t: t, kv: statetest.New(), ids: map[string]uint32{}}
			var added []string
			at := 0
			var was *Program
			for step := range 5 {
				if step > 0 {
					q := addable[(int(seed)*4+step*5+r.IntN(3))%len(addable)]
					if step == 3 && r.IntN(2) == 0 {
						q = "SELECT * FROM v1 UNION ALL SELECT * FROM v1"
					}
					added = append(added, fmt.Sprintf("CREATE MATERIALIZED VIEW v%d AS %s", step, q))
					if step == 4 && r.IntN(2) == 0 {
						added = append(added[:1:1], added[2:]...) // the second goes
					}
				}
				p, err := Build("f.sql", addedFile, addedEnvironment(added...))
				if err != nil {
					t.Fatalf("%s: %v", strings.Join(added, "\n"), err)
				}
				if was != nil {
					if err := p.Follows(was); err != nil {
						t.Fatal(err)
					}
					if n := p.Lacks(was); n != nil && step < 4 {
						t.Fatalf("%s changes %s %s", added[len(added)-1], n.Kind, n.Detail)
					}
				}
				was = p
				at += r.IntN(6)
				if step == 4 {
					at = len(epochs)
				}
				got := served(t, p, store, epochs, at, 1+r.IntN(3))
				want := served(t, p, nil, epochs, at, 1)
				for name, rows := range want {
					if got[name] != rows {
						t.Fatalf("after %d transactions %s has\n%s\nwant\n%s\nadded:\n%s", at, name, got[name], rows, strings.Join(added, "\n"))
					}
				}
				// A start without a change is one, too.
				if step == 2 {
					served(t, p, store, epochs, at, 1+r.IntN(3))
				}
			}
		})
	}
}

// TestAddedRefused: what has to be computed from rows that nobody kept is refused before anything is changed.
func TestAddedRefused(t *testing.T) {
	base, err := Build("f.sql", addedFile, addedEnvironment())
	if err != nil {
		t.Fatal(err)
	}
	old := map[string]bool{}
	for _, n := range base.Graph.Nodes {
		old[n.ID] = true
	}
	for _, c := range []struct{ statement, want string }{
		{"CREATE MATERIALIZED VIEW v AS SELECT * FROM l", "nothing has kept the rows that table l"},
		{"CREATE MATERIALIZED VIEW v AS SELECT COUNT(*) AS n FROM b", "nothing has kept the rows that table b"},
		{"CREATE MATERIALIZED VIEW ma AS SELECT 1 AS one", "ma exists already"},
		{"CREATE MATERIALIZED VIEW v AS SELECT * FROM nobody", "there is no table or view nobody"},
		{"INSERT INTO ma SELECT * FROM a", "there is no table ma to write to"},
		{"DROP TABLE a", "cannot be added"},
		{"CREATE MATERIALIZED VIEW v AS SELECT ma.id FROM ma JOIN l FOR SYSTEM_TIME AS OF PROCTIME() ON ma.g = l.g", "not built yet"},
	} {
		p, err := Build("f.sql", addedFile, addedEnvironment(c.statement))
		if err == nil {
			err = p.Follows(base)
		}
		if err == nil {
			err = keyed.Fillable(p.Graph, old)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.statement, err, c.want)
		}
		if _, coded := errs.As(err); !coded {
			t.Errorf("%s: %v has no code", c.statement, err)
		}
	}
	narrow := strings.Replace(addedFile, "SELECT g, SUM(z) AS z FROM u", "SELECT g, COUNT(*) AS z FROM u", 1)
	if _, err := Build("f.sql", narrow, addedEnvironment("CREATE MATERIALIZED VIEW v AS SELECT z FROM u")); err == nil || !strings.Contains(err.Error(), "does not keep column z") {
		t.Errorf("a column that is not kept: %v", err)
	}
}
