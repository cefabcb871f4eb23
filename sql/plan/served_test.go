package plan

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// TestServe: what a served query's plan says besides its graph: columns, order, parameters, and the keys that are looked
// up.
func TestServe(t *testing.T) {
	long, text := row.Type{Kind: row.BigInt}, row.Type{Kind: row.String}
	relations := []Relation{
		{Name: "one", Schema: row.Schema{{Name: "id", Type: long}, {Name: "name", Type: text}, {Name: "n", Type: row.Type{Kind: row.Int, NotNull: true}}}, Key: []int{0}},
		{Name: "two", Schema: row.Schema{{Name: "a", Type: text}, {Name: "b", Type: long}, {Name: "c", Type: long}}, Key: []int{0, 1}},
		{Name: "bag", Schema: row.Schema{{Name: "x", Type: long}}},
	}
	for _, c := range []struct{ sql, want string }{
		{"SELECT id, n FROM one", "id, n"},
		{"SELECT id, n FROM one WHERE id = 7", "id, n; one: 7"},
		{"SELECT n FROM one WHERE 7 = id AND n > 3", "n; one: 7"},
		{"SELECT n FROM one WHERE id IN (1, 2, 3)", "n; one: 1, 2, 3"},
		{"SELECT n FROM one WHERE id IN (3, 1, 3)", "n; one: 3, 1"},
		{"SELECT n FROM one WHERE id = 1 OR id = 2", "n"},
		{"SELECT n FROM one WHERE id > 1", "n"},
		{"SELECT n FROM one WHERE id = 1 AND id = 2", "n; one: 1"},
		{"SELECT n FROM one WHERE id = NULL", "n"},
		{"SELECT n FROM one WHERE n = 1", "n"},
		{"SELECT n FROM one WHERE id = 3.0", "n"},
		{"SELECT x.n FROM one x, one y WHERE x.id = 1 AND y.id = 2", "n"},
		{"SELECT n FROM one LEFT JOIN two ON one.id = two.b WHERE one.id = 1", "n; one: 1"},
		{"SELECT one.n FROM two, one WHERE one.id = two.b AND one.id = 1 AND two.a = 'p'", "n; two: p 1; one: 1"},
		{"SELECT one.n FROM one JOIN two ON one.id = two.b JOIN bag ON bag.x = one.id WHERE bag.x = 1 AND two.a = 'p'", "n; one: 1; two: p 1"},
		{"SELECT n, (SELECT SUM(c) FROM two WHERE b < one.id) AS s FROM one WHERE id = 5", "n, s; one: 5"},
		{"SELECT x.n FROM one x JOIN one y ON x.id = y.id WHERE x.id = 1", "n; one: 1"},
		{"SELECT n FROM one WHERE id = 1 AND EXISTS (SELECT 1 FROM two WHERE two.b = one.id AND two.a IN ('p', 'q'))", "n; one: 1; two: p 1, q 1"},
		{"SELECT c FROM two WHERE a = 'p'", "c"},
		{"SELECT c FROM two WHERE a = 'p' AND b = 2", "c; two: p 2"},
		{"SELECT c FROM two WHERE a IN ('p', 'q') AND b IN (1, 2)", "c; two: p 1, q 1, p 2, q 2"},
		{"SELECT s FROM (SELECT id, n + 1 AS s FROM one) WHERE id = 5", "s; one: 5"},
		{"SELECT COUNT(*) AS c FROM one WHERE id = 5 GROUP BY n", "c; one: 5"},
		{"SELECT id FROM one WHERE id = $1", "id; $1 BIGINT"},
		{"SELECT id FROM one WHERE name LIKE $2 AND n BETWEEN $1 AND $3", "id; $1 INT, $2 STRING, $3 INT"},
		{"SELECT CAST($1 AS DATE) AS d, $2 AS s FROM one LIMIT $3", "d, s; $1 DATE, $2 STRING, $3 BIGINT"},
		{"SELECT id FROM one ORDER BY n DESC, 1", "id; order 1 desc last, 0"},
		{"SELECT id, n FROM one ORDER BY n NULLS LAST LIMIT 3", "id, n; order 1 last"},
		{"WITH w AS (SELECT id FROM one ORDER BY n) SELECT id FROM w ORDER BY id", "id; order 0"},
		{"SELECT id FROM one UNION ALL SELECT x FROM bag ORDER BY id", "id; order 0"},
		{"SELECT x FROM bag WHERE x = 1", "x"},
		{"SELECT 1 AS a", "a"},
		{"VALUES (1, 'x')", "EXPR$0, EXPR$1"},
		{"SELECT nothing FROM one", "W2003"},
		{"SELECT id FROM none", "W2003"},
		{"SELECT id FROM one LIMIT -1", "W2001"},
	} {
		q, err := parser.ParseQuery("", c.sql)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Serve(c.sql, q, Environment{}, relations, nil)
		got := ""
		if e, ok := errs.As(err); ok {
			got = string(e.Code)
		} else if err != nil {
			t.Fatal(err)
		} else {
			got = servedText(s)
		}
		if got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.sql, got, c.want)
		}
	}
}

func servedText(s *Served) string {
	var cols []string
	for _, f := range s.Columns {
		cols = append(cols, f.Name)
	}
	out := []string{strings.Join(cols, ", ")}
	var params []string
	for i, p := range s.Params {
		params = append(params, fmt.Sprintf("$%d %s", i+1, p.Nullable()))
	}
	if params != nil {
		out = append(out, strings.Join(params, ", "))
	}
	var order []string
	for _, o := range s.Order {
		x := fmt.Sprint(o.Column)
		if o.Desc {
			x += " desc"
		}
		if o.NullsLast {
			x += " last"
		}
		order = append(order, x)
	}
	if order != nil {
		out = append(out, "order "+strings.Join(order, ", "))
	}
	for i := range s.Sources {
		b := s.Keys[i]
		if b == nil {
			continue
		}
		var keys []string
		for k := range b.Len {
			var values []string
			for _, v := range b.Cols {
				if len(v.Spans) > 0 {
					values = append(values, string(v.Bytes(k)))
				} else {
					values = append(values, fmt.Sprint(v.Int64[k]))
				}
			}
			keys = append(keys, strings.Join(values, " "))
		}
		out = append(out, s.Sources[i].Name+": "+strings.Join(keys, ", "))
	}
	return strings.Join(out, "; ")
}
