package query

import (
	"strings"
	"testing"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/secrets"
	"github.com/weirstream/weir/sql/parser"
)

const mixed = `-- password hunter2
SET 'parallelism' = '2';
CREATE CONNECTION shop WITH ('url' = 'postgres://ann:hunter2@db/shop');
CREATE TABLE a (x BIGINT, y STRING) WITH ('connector' = 'jdbc', 'url' = 'jdbc:postgresql://ann:hunter2@db/shop', 'password' = 'hunter2');
CREATE MIRROR m FROM shop TO 'postgres://bob:hunter2@db/copy';
CREATE TABLE b (x BIGINT) WITH ('connector' = 'kafka', 'properties.sasl.jaas.config' = 'Login required username="u" password="hunter2";',
	'other' = 'https://u:hunter2@host/path', 'kept' = '${env:PW}', 'plain' = 'https://host/path?x=1', 'secret' = '${secret:mine}');
INSERT INTO b /*+ OPTIONS('token' = 'hunter2') */ SELECT x FROM a;
`

func parse(t *testing.T, text string) *parser.Script {
	t.Helper()
	s, err := parser.Parse("x.sql", text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// No secret is in what is stored, wherever it stood, and putting the references back gives the text that was meant.
func TestSeal(t *testing.T) {
	store := secrets.Open(env.Real(nil), secrets.Options{Getenv: func(string) (string, bool) { return "", false }})
	text, err := Seal("p", Queries(parse(t, mixed)), store)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "hunter2") || strings.Contains(text, "CREATE MIRROR") || strings.Contains(text, "SET ") || strings.Contains(text, "CONNECTION") {
		t.Errorf("sealed:\n%s", text)
	}
	for _, part := range []string{"'kept' = '${env:PW}'", "'plain' = 'https://host/path?x=1'", "'secret' = '${secret:mine}'", "jdbc:postgresql://ann:${secret:"} {
		if !strings.Contains(text, part) {
			t.Errorf("sealed, it lacks %s:\n%s", part, text)
		}
	}
	names := Secrets(text)
	if len(names) != 6 {
		t.Errorf("it refers to %v in\n%s", names, text)
	}
	for _, n := range names {
		if n == "mine" {
			continue
		}
		if v, err := store.Get(n); err != nil || !strings.Contains(v.Reveal(), "hunter2") {
			t.Errorf("secret %s is %q, %v", n, v.Reveal(), err)
		}
	}
	again, err := Seal("p", parse(t, text), store)
	if err != nil || again != text {
		t.Errorf("sealed twice: %v\n%s", err, again)
	}
}

// Every statement that is planned stands where it stood in the file.
func TestPlannedKeepsPlaces(t *testing.T) {
	text := "\ufeff" + mixed
	planned := Planned(parse(t, text), text)
	if strings.Contains(planned, "MIRROR") || strings.Contains(planned, "CONNECTION") {
		t.Errorf("planned:\n%s", planned)
	}
	was, is := parse(t, mixed), parse(t, planned)
	i := 0
	for _, s := range was.Statements {
		switch s.(type) {
		case *parser.CreateConnection, *parser.CreateMirror:
			continue
		}
		if i >= len(is.Statements) || is.Statements[i].Position() != s.Position() || !parser.Equal(is.Statements[i], s) {
			t.Fatalf("statement %d of\n%s", i, planned)
		}
		i++
	}
	if i != len(is.Statements) {
		t.Errorf("%d statements, want %d", len(is.Statements), i)
	}
}

func TestQueriesAreFound(t *testing.T) {
	for text, want := range map[string]bool{
		"SET 'a' = 'b';": false,
		"CREATE TABLE a (x INT) WITH ('c' = 'd');": false,
		"CREATE TABLE a (x INT);":                  true,
		"INSERT INTO a SELECT 1;":                  true,
		"EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT 1; INSERT INTO b SELECT 2; END;": true,
		"CREATE MATERIALIZED VIEW v AS SELECT 1;":                                          true,
		"CREATE MIRROR m FROM 'postgres://a/b' TO 'postgres://c/d';":                       false,
	} {
		if got := Queries(parse(t, text)) != nil; got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestDifferences(t *testing.T) {
	a := api.QuerySpec{Name: "p", SQL: "x", Dir: "/d"}
	for _, c := range []struct {
		b    api.QuerySpec
		says string
	}{
		{a, ""},
		{api.QuerySpec{File: "other.sql", SQL: "x", Dir: "/d", Options: map[string]string{"parallelism": "1"}}, ""},
		{api.QuerySpec{SQL: "y", Dir: "/d"}, "the text"},
		{api.QuerySpec{SQL: "x", Dir: "/e"}, "the directory where relative paths begin, /d and /e"},
		{api.QuerySpec{SQL: "x", Dir: "/d", Options: map[string]string{"parallelism": "8", "checkpoint.interval": "1s"}}, ""},
		{api.QuerySpec{SQL: "x", Dir: "/d", Options: map[string]string{"state.key-groups": "64"}}, "option state.key-groups"},
	} {
		if got := strings.Join(Differences(a, c.b), "; "); got != c.says {
			t.Errorf("%+v: %q, want %q", c.b, got, c.says)
		}
	}
}

func TestForeign(t *testing.T) {
	for key, want := range map[string]bool{
		"execution.checkpointing.interval": false, "parallelism.default": false, "table.local-time-zone": false, "paralelism": false,
		"table.exec.mini-batch.enabled": true, "sql-client.execution.result-mode": true, "pipeline.name": true,
	} {
		if Foreign(key) != want {
			t.Errorf("%s is taken for Flink's: %v", key, !want)
		}
	}
}

func TestExpanded(t *testing.T) {
	in := map[string]string{"a": "x", "b": "${secret:one}"}
	out, err := expanded(in, func(s string) (string, error) { return strings.ReplaceAll(s, "${secret:one}", "1"), nil })
	if err != nil || out["b"] != "1" || in["b"] == "1" {
		t.Errorf("%v, %v", out, err)
	}
	_, err = expanded(in, func(string) (string, error) { return "", errs.New(errs.SecretMissing, "there is no secret one") })
	if !errs.Is(err, errs.SecretMissing) || !strings.Contains(err.Error(), "option 'b': there is no secret one") {
		t.Error(err)
	}
}
