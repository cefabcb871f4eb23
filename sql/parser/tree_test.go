package parser

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/weirstream/weir/internal/errs"
)

// TestDepth: nesting of every kind ends in an error, and long chains do not nest.
func TestDepth(t *testing.T) {
	const deep = 15_000
	for name, c := range map[string][3]string{
		"parentheses": {"SELECT ", "(", "1"},
		"signs":       {"SELECT ", "- ", "1"},
		"not":         {"SELECT ", "NOT ", "1"},
		"calls":       {"SELECT ", "f(", "1"},
		"named":       {"SELECT ", "f(a => ", "1"},
		"case":        {"SELECT ", "CASE WHEN ", "1"},
		"subscripts":  {"SELECT a", "[a", "1"},
		"arrays":      {"SELECT ", "ARRAY[", "1"},
		"json":        {"SELECT ", "JSON_OBJECT(KEY a VALUE ", "1"},
		"subqueries":  {"SELECT ", "(SELECT ", "1"},
		"queries":     {"", "(", "SELECT 1"},
		"with":        {"", "WITH a AS (", "SELECT 1"},
		"derived":     {"", "SELECT 1 FROM (", "t"},
		"tables":      {"SELECT 1 FROM ", "(", "t"},
		"joins":       {"SELECT 1 FROM a", " JOIN a", " ON b"},
		"types":       {"SELECT CAST(a AS ", "ARRAY<", "INT"},
		"rows":        {"SELECT CAST(a AS ", "ROW<a ", "INT"},
		"patterns":    {"SELECT 1 FROM t MATCH_RECOGNIZE (PATTERN (", "(", "A"},
		"groups":      {"SELECT 1 FROM t GROUP BY ", "GROUPING SETS (", "A"},
		"match":       {"SELECT 1 FROM t", " MATCH_RECOGNIZE (PATTERN (A))", ""},
		"chain":       {"SELECT a", " + a", ""},
		"dots":        {"SELECT f()", ".a", ""},
		"casts":       {"SELECT a", "::INT", ""},
		"dimensions":  {"SELECT a::INT", "[]", ""},
		"unions":      {"SELECT 1", " UNION SELECT 1", ""},
		"cross":       {"SELECT 1 FROM a", " CROSS JOIN a", ""},
		"likes":       {"SELECT a", " LIKE a", ""},
		"is":          {"SELECT a", " IS NULL", ""},
		"zones":       {"SELECT a", " AT TIME ZONE a", ""},
	} {
		_, err := Parse("x.sql", c[0]+strings.Repeat(c[1], deep)+c[2])
		e, ok := errs.As(err)
		if !ok || !strings.Contains(e.Message, "deep") && !strings.Contains(e.Message, "long") {
			t.Errorf("%s: %.200v", name, err)
		}
	}
	for _, text := range []string{
		"SELECT " + strings.Repeat("(", 400) + "1" + strings.Repeat(")", 400),
		"SELECT 1 WHERE a = 1" + strings.Repeat(" OR a = 1", 5000),
		"SELECT 1 WHERE a IN (1" + strings.Repeat(", 1", 100_000) + ")",
		"SELECT 1" + strings.Repeat(", CASE WHEN a THEN b END", 20_000),
		"SELECT 1" + strings.Repeat(" UNION ALL SELECT 1", 5000),
		strings.Repeat("SELECT 1;", 20_000),
	} {
		script, err := Parse("x.sql", text)
		if err != nil {
			t.Errorf("%.60s...: %v", text, err)
			continue
		}
		if again, err := Parse("x.sql", Print(script)); err != nil || !same(script, again) {
			t.Errorf("%.60s...: does not come back: %v", text, err)
		}
	}
}

func TestEntryPoints(t *testing.T) {
	if q, err := ParseQuery("q", "SELECT a FROM t;"); err != nil || PrintNode(q) != "SELECT a\nFROM t" {
		t.Errorf("query: %v, %v", q, err)
	}
	if x, err := ParseExpr("x", "a+1 -- c"); err != nil || PrintNode(x) != "a + 1" {
		t.Errorf("expression: %v, %v", x, err)
	}
	for _, text := range []string{"", "a b", "a;", "SELECT 1"} {
		if x, err := ParseExpr("x", text); err == nil || x != nil {
			t.Errorf("the expression %q parses as %v", text, x)
		}
	}
	for _, text := range []string{"", "a", "SELECT 1; SELECT 2", "INSERT INTO t SELECT 1"} {
		if q, err := ParseQuery("q", text); err == nil || q != nil {
			t.Errorf("the query %q parses as %v", text, q)
		}
	}
}

// TestParams: question marks count anew in every statement.
func TestParams(t *testing.T) {
	s, err := Parse("x.sql", "SELECT ?, ?; SELECT ?; SELECT $3, $1;")
	if err != nil {
		t.Fatal(err)
	}
	if got := Print(s); got != "SELECT $1, $2;\nSELECT $1;\nSELECT $3, $1;\n" {
		t.Error(got)
	}
	for _, text := range []string{"SELECT $0", "SELECT $65536", "SELECT ?, $1", "SELECT $99999999999999999999"} {
		if _, err := Parse("x.sql", text); err == nil {
			t.Errorf("%s parses", text)
		}
	}
}

// TestNodePositions: every node of every story begins where it says, and lies within its parent.
func TestNodePositions(t *testing.T) {
	n := 0
	for _, text := range storyTexts(t) {
		script, err := Parse("x.sql", text)
		if err != nil {
			continue
		}
		for _, s := range script.Statements {
			Walk(s, func(node Node) bool {
				at := node.Position()
				n++
				if at.Line < 1 || at.Column < 1 || at.Offset >= len(text) || at.Offset < s.Position().Offset {
					t.Errorf("%T stands at %+v in\n%s", node, at, text)
					return false
				}
				rest := text[at.Offset:]
				var want string
				switch node := node.(type) {
				case *ColumnRef:
					want = node.Name[0].Text
				case *NumberLit:
					if want = node.Text; strings.HasPrefix(rest, "ROW") { // FETCH FIRST ROW ONLY
						want = "ROW"
					}
				case *Select:
					want = "SELECT"
				case *Case:
					want = "CASE"
				case *Alter:
					want = "ALTER"
				}
				rest = strings.TrimLeft(rest, "`\"")
				if len(rest) < len(want) || !strings.EqualFold(rest[:min(len(want), len(rest))], want) && !strings.Contains(want, "`") {
					t.Errorf("%T should begin with %s, stands at %.20q", node, want, rest)
				}
				return true
			})
		}
	}
	if n < 1000 {
		t.Errorf("only %d nodes", n)
	}
}

// TestOperatorPositions: errors about an operator can point at it.
func TestOperatorPositions(t *testing.T) {
	text := "SELECT a +\n b FROM t\n LEFT JOIN u ON a  = b UNION SELECT 1"
	q, err := ParseQuery("x.sql", text)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	Walk(q, func(n Node) bool {
		v := reflect.ValueOf(n).Elem()
		if f := v.FieldByName("OpPos"); f.IsValid() {
			at := f.Interface().(Pos)
			got = append(got, fmt.Sprintf("%d:%d %s", at.Line, at.Column, strings.Fields(text[at.Offset:])[0]))
		}
		return true
	})
	if want := "3:24 UNION, 1:10 +, 3:2 LEFT, 3:20 ="; strings.Join(got, ", ") != want {
		t.Errorf("%s, want %s", strings.Join(got, ", "), want)
	}
}

func TestWalkStops(t *testing.T) {
	x, err := ParseExpr("x", "f(a, (SELECT b)) + c")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	Walk(x, func(n Node) bool {
		if c, ok := n.(*ColumnRef); ok {
			names = append(names, c.Name.String())
		}
		_, sub := n.(*Subquery)
		return !sub
	})
	if strings.Join(names, " ") != "a c" {
		t.Errorf("visited %v", names)
	}
}

func TestEqual(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"a + 1", "(a)   +\n1", true},
		{"a + 1", "a + 2", false},
		{"f(a)", "f(a, a)", false},
		{"f(a)", "F(a)", false},
		{"a", "1", false},
		{"CASE WHEN a THEN b END", "CASE WHEN a THEN b ELSE c END", false},
		{"X'00'", "X'01'", false},
		{"CAST(a AS CHAR(3))", "CAST(a AS CHAR(4))", false},
		{"CAST(a AS CHAR(3))", "CAST(a AS CHAR)", false},
	} {
		a, err := ParseExpr("a", c.a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := ParseExpr("b", c.b)
		if err != nil {
			t.Fatal(err)
		}
		if Equal(a, b) != c.want || Equal(b, a) != c.want {
			t.Errorf("Equal(%s, %s) is not %v", c.a, c.b, c.want)
		}
	}
}

func TestOptions(t *testing.T) {
	s, err := Parse("x.sql", `SET 'password' = 'a';
		CREATE TABLE t (a INT) WITH ('password' = 'b') AS SELECT * FROM u /*+ OPTIONS('password' = 'c', 'x' = 'y') */;
		ALTER TABLE t SET ('password' = 'd');`)
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range s.Statements {
		Options(st, func(key string, value *string) {
			if key == "password" {
				*value = "***"
			}
		})
	}
	if got := Print(s); strings.Count(got, "'password' = '***'") != 4 || !strings.Contains(got, "'x' = 'y'") {
		t.Error(got)
	}
}

// TestKeywords: every kind of statement has a name, and a story.
func TestKeywords(t *testing.T) {
	seen := map[string]bool{}
	for _, text := range storyTexts(t) {
		script, err := Parse("x.sql", text)
		if err != nil {
			continue
		}
		for _, s := range script.Statements {
			k := Keywords(s)
			seen[k] = true
			if k == "this statement" {
				t.Errorf("%T has no name", s)
			}
		}
	}
	if len(seen) < 35 {
		t.Errorf("only %d kinds of statements have stories: %v", len(seen), seen)
	}
}

// TestBrokenStories: with any one word taken out, doubled or put in the place of the next one, a story gives an error at a
// place, or something that comes back from its printed form.
func TestBrokenStories(t *testing.T) {
	failed, parsed := 0, 0
	try := func(text string) {
		script, err := Parse("x.sql", text)
		if err != nil {
			failed++
			if e, ok := errs.As(err); !ok || e.Pos == nil || e.Pos.Line < 1 || e.Pos.Column < 1 || e.Message == "" {
				t.Errorf("%v\n%s", err, text)
			}
			return
		}
		parsed++
		printed := Print(script)
		if again, err := Parse("x.sql", printed); err != nil || !same(script, again) {
			t.Errorf("%v\n%s\nis printed\n%s", err, text, printed)
		}
	}
	for _, text := range storyTexts(t) {
		tokens, err := (&lexer{file: "x.sql", text: text}).tokens()
		if err != nil {
			continue
		}
		for i := range len(tokens) - 1 {
			from, to := tokens[i].pos.Offset, tokens[i+1].pos.Offset
			one := text[from:to] + " "
			try(text[:from] + " " + text[to:])
			try(text[:from] + one + one + text[to:])
			try(text[:from])
			if i+2 < len(tokens) {
				next := tokens[i+2].pos.Offset
				try(text[:from] + text[to:next] + " " + one + text[next:])
			}
		}
	}
	if failed < 5000 || parsed < 500 {
		t.Errorf("%d failed, %d parsed", failed, parsed)
	}
}
