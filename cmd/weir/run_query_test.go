package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/secrets"
	"github.com/weirstream/weir/sql/parser"
)

const totals = `CREATE TABLE bid (id BIGINT, price BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '10');
CREATE TABLE total (id BIGINT, n BIGINT) WITH ('connector' = 'print');
INSERT INTO total SELECT id, COUNT(*) FROM bid GROUP BY id;
`

func (f *fixture) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRunQueries: a file's queries are one pipeline, named by the file, that ends the command when it has finished.
func TestRunQueries(t *testing.T) {
	f := newFixture(t)
	f.node()
	file := f.file(t, "my totals.sql", "SET 'parallelism.default' = '3';\nSET 'table.exec.mini-batch.enabled' = 'true';\n"+totals)
	done := api.PipelineStatus{Phase: api.PhaseFinished, Query: &api.QueryStatus{Sources: []api.Flow{{Rows: 10}}, Sinks: []api.Flow{{Rows: 7}}}}
	f.scripts["my_totals"] = []api.PipelineStatus{{Phase: api.PhaseLive}, done}
	f.want(t, 0, "run", file)
	if !slices.Contains(f.calls, "create query my_totals") {
		t.Errorf("calls %v", f.calls)
	}
	q := f.views["my_totals"].Query
	if q == nil || q.Options["parallelism"] != "3" || len(q.Options) != 1 || q.Dir != "" || strings.Contains(q.SQL, "SET") || !strings.Contains(q.SQL, "INSERT INTO") {
		t.Fatalf("made %+v", q)
	}
	for _, says := range []string{"reads   bid (datagen)", "writes  total (print)", "ends when its sources have no more to give", "my_totals finished in", "10 rows read, 7 written",
		"table.exec.mini-batch.enabled is Flink's and changes nothing here"} {
		if !strings.Contains(f.err.String(), says) {
			t.Errorf("it lacks %q:\n%s", says, f.err.String())
		}
	}

	// The same again, and others.
	f.calls = nil
	f.scripts["my_totals"] = []api.PipelineStatus{done}
	f.want(t, 0, "run", file)
	f.want(t, 0, "run", f.file(t, "my totals.sql", "SET 'parallelism' = '3';\n-- the same\n"+strings.ToLower(totals[:6])+totals[6:]))
	if len(f.calls) > 0 {
		t.Errorf("the same again did %v", f.calls)
	}
	f.want(t, 2, "run", f.file(t, "my totals.sql", "SET 'parallelism' = '3';\n"+strings.ReplaceAll(totals, "COUNT(*)", "SUM(price)")))
	if !strings.Contains(f.err.String(), "different: the text") {
		t.Errorf("another text: %s", f.err.String())
	}
	f.want(t, 2, "run", file, "--set", "state.key-groups=16")
	if !strings.Contains(f.err.String(), "option state.key-groups") {
		t.Errorf("other options: %s", f.err.String())
	}
	f.calls = nil
	f.want(t, 0, "run", f.file(t, "my totals.sql", totals))
	if want := []string{"update my_totals map[]"}; !slices.Equal(f.calls, want) || !strings.Contains(f.err.String(), "takes its new options") {
		t.Errorf("another parallelism: calls %q, printed %s", f.calls, f.err.String())
	}
	files := strings.ReplaceAll(totals, "'print'", "'filesystem', 'format' = 'csv', 'sink.changelog' = 'true', 'path' = 'out'")
	f.scripts["here"] = []api.PipelineStatus{done}
	f.want(t, 0, "run", f.file(t, "here.sql", files))
	if q := f.views["here"].Query; q == nil || q.Dir != f.dir {
		t.Errorf("with a relative path: %+v", q)
	}
	f.views["shop"] = coordinator.PipelineView{Pipeline: api.Pipeline{Name: "shop", Desired: api.WantRunning}}
	f.want(t, 2, "run", file, "--name", "shop")
	if !strings.Contains(f.err.String(), "exists and is a mirror") {
		t.Errorf("a mirror's name: %s", f.err.String())
	}
	f.want(t, 2, "run", file, "--name", "a b")
	f.want(t, 2, "run", file, "--until-caught-up")
	f.want(t, 2, "run", f.file(t, "mirror.sql", "CREATE MIRROR m FROM 'postgres://a/b' TO 'postgres://c/d';"), "--name", "x")
	f.want(t, 2, "run", f.file(t, "bad.sql", strings.ReplaceAll(totals, "number-of-rows", "number-of-row")))
	if s := f.err.String(); !strings.Contains(s, "bad.sql:1:") || !strings.Contains(s, "number-of-rows") {
		t.Errorf("a misspelt option: %s", s)
	}
}

func TestExplain(t *testing.T) {
	f := newFixture(t)
	file := f.file(t, "totals.sql", totals)
	text := f.want(t, 0, "explain", file)
	if !strings.Contains(text, "aggregate") || text != f.want(t, 0, "run", file, "--dry-run") {
		t.Errorf("explained:\n%s", text)
	}
	var r explainRecord
	if err := json.Unmarshal([]byte(f.want(t, 0, "explain", file, "-o", "json")), &r); err != nil || r.Pipeline != "totals" || !r.Bounded || len(r.Sources) != 1 || len(r.Sinks) != 1 || r.Plan == "" {
		t.Errorf("%+v, %v", r, err)
	}
	f.want(t, 2, "explain", f.file(t, "m.sql", "CREATE MIRROR m FROM 'postgres://a/b' TO 'postgres://c/d';"))
	if len(f.calls) > 0 {
		t.Errorf("it did %v", f.calls)
	}
}

// TestSecretsOfQueries: nothing that is a secret leaves for the catalog, and what refers to one is known.
func TestSecretsOfQueries(t *testing.T) {
	memory := func() *secrets.Store { return secrets.Open(env.Real(nil), secrets.Options{}) }
	q, err := sealQuery(api.QuerySpec{Name: "q", File: "q.sql", SQL: "CREATE TABLE a (x BIGINT) WITH ('connector' = 'jdbc', 'password' = 'hunter2'); INSERT INTO b SELECT x FROM a;"},
		memory())
	if err != nil || strings.Contains(q.SQL, "hunter2") || !strings.Contains(q.SQL, "${secret:q_a_password}") {
		t.Fatalf("%s, %v", q.SQL, err)
	}
	if names := secretsIn(api.Pipeline{Query: &q}); !slices.Equal(names, []string{"q_a_password"}) {
		t.Errorf("it refers to %v", names)
	}
	// A refused definition changes no secret.
	f := newFixture(t)
	call := &cli.Call{IO: cli.IO{Getenv: func(string) (string, bool) { return "", false }}}
	e := env.Real(nil)
	store := memory()
	if err := store.Set("q_a_password", secrets.NewValue("old")); err != nil {
		t.Fatal(err)
	}
	define := func(password string) queryDefinition {
		script, err := parser.Parse("q.sql", "CREATE TABLE a (x BIGINT) WITH ('connector' = 'jdbc', 'password' = '"+password+"'); INSERT INTO b SELECT x FROM a;")
		if err != nil {
			t.Fatal(err)
		}
		d := definitions{queries: []queryDefinition{{spec: api.QuerySpec{Name: "q", File: "q.sql"}, script: script}}}
		if err := d.sealAll(e, call, store, true); err != nil {
			t.Fatal(err)
		}
		return d.queries[0]
	}
	f.views["q"] = coordinator.PipelineView{Pipeline: api.Pipeline{Name: "q", Desired: api.WantRunning, Query: &api.QuerySpec{Name: "q", SQL: "SELECT 1;"}}}
	if _, err := ensureQuery(t.Context(), call, f, define("new"), "weir-state"); !errs.Is(err, errs.PipelineExists) {
		t.Errorf("another text: %v", err)
	}
	if v, err := store.Get("q_a_password"); err != nil || v.Reveal() != "old" {
		t.Errorf("a refused definition has set the secret: %s, %v", v.Reveal(), err)
	}
	delete(f.views, "q")
	if _, err := ensureQuery(t.Context(), call, f, define("new"), "weir-state"); err != nil {
		t.Error(err)
	}
	if v, err := store.Get("q_a_password"); err != nil || v.Reveal() != "new" || strings.Contains(f.views["q"].Query.SQL, "new") {
		t.Errorf("a new definition: %s, %v, %+v", v.Reveal(), err, f.views["q"].Query)
	}
	for _, bad := range []api.QuerySpec{{Name: "q", SQL: "SELECT FROM"}, {Name: "q", SQL: "SET 'a' = 'b';"}, {Name: "q", SQL: q.SQL, Options: map[string]string{"no.such": "x"}}} {
		if _, err := sealQuery(bad, memory()); err == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
}

// TestLooksAtQueries: what a pipeline of queries tells is shown by the commands about it.
func TestLooksAtQueries(t *testing.T) {
	f := newFixture(t)
	st := api.PipelineStatus{Phase: api.PhaseLive, Durable: 12, RowsTotal: 1500, LagBytes: -1, LagMS: -1, UpdatedAt: testNow, Since: testNow.Add(-time.Minute), Query: &api.QueryStatus{
		Epoch: 40, EpochMS: 1.5, StateBytes: 3 << 20, Faults: 2, Parallelism: 2,
		Sources: []api.Flow{{Name: "bid", Connector: "datagen", Rows: 1500}}, Sinks: []api.Flow{{Name: "total", Connector: "print", Rows: 70}},
		Views:       []api.View{{Name: "v", Kind: "view", Columns: []api.Column{{Name: "id", Type: "BIGINT"}}, Key: []string{"id"}, Rows: -1}},
		States:      []api.StateSize{{Operator: "aggregate by id", State: "groups", Entries: 10, Bytes: 2048}},
		Checkpoints: []api.CheckpointInfo{{Checkpoint: 12, At: testNow.Add(-3 * time.Second), TookMS: 4.5, Bytes: 4096}},
	}}
	f.views["totals"] = coordinator.PipelineView{Pipeline: api.Pipeline{ID: "1", Name: "totals", Desired: api.WantRunning, CreatedAt: testNow.Add(-time.Hour),
		Query: &api.QuerySpec{Name: "totals", File: "totals.sql", Dir: "/srv/sql", SQL: totals}}, Status: st}
	f.views["shop"] = coordinator.PipelineView{Pipeline: api.Pipeline{ID: "2", Name: "shop"}}
	var b strings.Builder
	for _, args := range []string{"pipelines get totals", "views list", "checkpoints list totals", "state size totals", "pipelines delete totals --dry-run"} {
		b.WriteString("weir " + args + "\n" + f.want(t, 0, strings.Fields(args)...) + "\n")
	}
	golden(t, "queries", b.String())
	f.want(t, 2, "state", "size", "shop")
	v := f.views["totals"]
	v.Status = api.PipelineStatus{Phase: api.PhasePaused}
	f.views["totals"] = v
	f.want(t, 2, "checkpoints", "list", "totals")
}
