package expr

import (
	"testing"

	"github.com/weirstream/weir/engine/row"
)

// TestText: different constants have different texts, which operator ids and common parts rest on; and the forms are SQL.
func TestText(t *testing.T) {
	for _, c := range []struct{ a, b string }{
		{"ARRAY['a, b']", "ARRAY['a', 'b']"},
		{"ARRAY['NULL']", "ARRAY[NULL]"},
		{"MAP['a', 'b=c']", "MAP['a=b', 'c']"},
		{"ROW('1')", "ROW(1)"},
		{"1", "1.0"},
		{"1.0", "1.00"},
		{"CAST(1 AS BIGINT)", "1"},
		{"CAST(1 AS DOUBLE)", "CAST(1 AS FLOAT)"},
		{"X'61'", "'a'"},
		{"'DATE'", "DATE '2024-01-01'"},
		{"TIMESTAMP '2024-01-01 00:00:00.0'", "TIMESTAMP '2024-01-01 00:00:00.00'"},
		{"CAST(NULL AS INT)", "NULL"},
		{"CAST('a' AS CHAR(1))", "'a'"},
	} {
		var texts [2]string
		for k, s := range []string{c.a, c.b} {
			e, err := parseExpr(s, nil)
			if err != nil {
				t.Fatal(err)
			}
			if e, err = Fold(e, Settings{}); err != nil {
				t.Fatal(err)
			}
			if _, ok := e.(*Const); !ok {
				t.Errorf("%s is not constant", s)
			}
			texts[k] = e.String()
		}
		if texts[0] == texts[1] {
			t.Errorf("%s and %s are both %s", c.a, c.b, texts[0])
		}
	}
	x, y := &Column{0, kind(row.Int), "x"}, &Column{1, kind(row.Int), "x"}
	p, err := Compile([]Expr{&Call{builtins()["+"], []Expr{x, x}, kind(row.Int)}, &Call{builtins()["+"], []Expr{y, y}, kind(row.Int)}}, Settings{})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := p.Run(&row.Batch{Len: 1, Cols: []*row.Vector{{Int64: []int64{1}}, {Int64: []int64{5}}}}, 0)
	if out[0].Int64[0] != 2 || out[1].Int64[0] != 10 {
		t.Errorf("columns of one name are taken for one column: %v %v", out[0].Int64, out[1].Int64)
	}
}

// TestTree covers what planners do with trees.
func TestTree(t *testing.T) {
	cols := row.Schema{{Name: "a", Type: kind(row.Int)}, {Name: "b", Type: kind(row.Int)}, {Name: "s", Type: kind(row.String)}}
	e, err := parseExpr("CASE WHEN a > 1 AND s LIKE 'x%' THEN b ELSE a + 1 END", cols)
	if err != nil {
		t.Fatal(err)
	}
	if got := Columns(e); len(got) != 3 {
		t.Errorf("columns %v", got)
	}
	if !Deterministic(e) || !CanFault(e) || ReadsClock(e) {
		t.Errorf("deterministic %v, can fault %v, reads clock %v", Deterministic(e), CanFault(e), ReadsClock(e))
	}
	moved := Shift(e, []int{4, 5, 6})
	if got := Columns(moved); got[0] != 4 || got[2] != 6 || moved.String() != e.String() {
		t.Errorf("shifted: %s over %v", moved, got)
	}
	if got := Columns(e); got[0] != 0 {
		t.Errorf("Shift changed its argument: %v", got)
	}
	put := Substitute(e, []Expr{Int(kind(row.Int), 7), &Column{0, kind(row.Int), "b"}, &Column{1, kind(row.String), "s"}})
	if want := "CASE WHEN ((7 > 1) AND (s LIKE 'x%')) THEN b ELSE (7 + 1) END"; put.String() != want {
		t.Errorf("%s, want %s", put, want)
	}
	folded, err := Fold(put, Settings{})
	if err != nil {
		t.Fatal(err)
	}
	if want := "CASE WHEN (s LIKE 'x%') THEN b ELSE 8 END"; folded.String() != want {
		t.Errorf("%s, want %s", folded, want)
	}
	now, err := Resolve("now", nil)
	if err != nil {
		t.Fatal(err)
	}
	if Deterministic(now) || !ReadsClock(now) {
		t.Error("NOW() is said to be deterministic")
	}
	if len(Functions()) < 170 {
		t.Errorf("only %d functions", len(Functions()))
	}
	if _, err := Compile([]Expr{mustParse(t, "RAND()")}, Settings{}); err == nil {
		t.Error("RAND compiles without a source")
	}
}

func mustParse(t *testing.T, s string) Expr {
	t.Helper()
	e, err := parseExpr(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestInterval(t *testing.T) {
	for _, c := range []struct{ text, from, to, want string }{
		{"10", "SECOND", "", "+0 00:00:10.000"},
		{"1.5", "SECOND", "", "+0 00:00:01.500"},
		{"-3", "DAYS", "", "-3 00:00:00.000"},
		{"1-6", "YEAR", "MONTH", "+1-06"},
		{"-1-6", "YEAR", "MONTH", "-1-06"},
		{"2", "WEEK", "", "+14 00:00:00.000"},
		{"2", "QUARTER", "", "+0-06"},
		{"1 10:30:00.25", "DAY", "SECOND", "+1 10:30:00.250"},
		{"1 10", "DAY", "HOUR", "+1 10:00:00.000"},
		{"90:30", "MINUTE", "SECOND", "+0 01:30:30.000"},
		{"500", "MILLISECOND", "", "+0 00:00:00.500"},
		{"1-12", "YEAR", "MONTH", ""},
		{"1.5", "DAY", "", ""},
		{"1 24:00:00", "DAY", "SECOND", ""},
		{"1", "SECOND", "DAY", ""},
		{"", "DAY", "", ""},
		{"1", "FORTNIGHT", "", ""},
		{"1", "DAY", "MONTH", ""},
		{"999999999999999999", "DAY", "", ""},
		{"- 1", "DAY", "", ""},
	} {
		got, err := Interval(c.text, c.from, c.to)
		if err != nil {
			if c.want != "" {
				t.Errorf("INTERVAL '%s' %s %s: %v", c.text, c.from, c.to, err)
			}
			continue
		}
		if text := string(row.AppendText(nil, got.T, got.Vec, 0, nil)); text != c.want {
			t.Errorf("INTERVAL '%s' %s %s is %s, want %s", c.text, c.from, c.to, text, c.want)
		}
	}
}

// TestSharedParts: a view over a view over a view may use each column twice; what stands for 2^60 nodes is 60 steps.
func TestSharedParts(t *testing.T) {
	var e Expr = &Column{0, kind(row.BigInt), ""}
	for range 60 {
		c, err := Resolve("+", []Expr{e, e})
		if err != nil {
			t.Fatal(err)
		}
		e = c
	}
	p, err := Compile([]Expr{e, e}, Settings{})
	if err != nil {
		t.Fatal(err)
	}
	out, faults := p.Run(&row.Batch{Len: 1, Cols: []*row.Vector{{Int64: []int64{1}}}}, 0)
	if len(p.steps) != 60 || len(faults) != 0 || out[1].Int64[0] != 1<<60 || len(Columns(e)) != 1 || !CanFault(e) {
		t.Errorf("%d steps, %v, %v", len(p.steps), out[1].Int64, faults)
	}
}
