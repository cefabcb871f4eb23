package plan

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// TestStories runs testdata: tables are made by "table", filled by "rows", and asked by "query", whose answer is that of
// one and of three tasks. "explain" and "error" show what comes of a query instead.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var ddl []string
		var epochs []map[string][]change
		reset := func() { ddl, epochs = nil, []map[string][]change{{}} }
		reset()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "tables":
				reset()
				ddl = append(ddl, d.Input)
				return ""
			case "rows":
				var name string
				d.ScanArgs(t, "table", &name)
				for _, line := range strings.Split(d.Input, "\n") {
					if line == "----" {
						continue
					}
					w := int64(1)
					if rest, ok := strings.CutPrefix(line, "-"); ok && d.HasArg("changes") {
						w, line = -1, rest
					}
					var vs []string
					for _, v := range strings.Split(line, ",") {
						vs = append(vs, strings.TrimSpace(v))
					}
					last := epochs[len(epochs)-1]
					last[name] = append(last[name], change{vs, w})
				}
				return ""
			case "epoch":
				epochs = append(epochs, map[string][]change{})
				return ""
			case "query", "explain", "error":
				text := strings.Join(ddl, "\n") + "\n"
				p, err := buildQuery(text, d.Input)
				if err != nil {
					if e, ok := errs.As(err); ok && d.Cmd == "error" {
						return e.Render()
					}
					if d.Cmd == "error" {
						return err.Error()
					}
					d.Fatalf(t, "%v", err)
				}
				if d.Cmd == "explain" {
					return p.Explain()
				}
				if d.Cmd == "error" {
					return "no error\n"
				}
				one := runProgram(t, p, epochs, 1, nil).String()
				if three := runProgram(t, p, epochs, 3, nil).String(); three != one {
					return fmt.Sprintf("one task:\n%s\nthree tasks:\n%s\n", one, three)
				}
				return one + "\n"
			}
			d.Fatalf(t, "no command %s", d.Cmd)
			return ""
		})
	})
}

// buildQuery plans a query into a sink that takes its columns as they are.
func buildQuery(ddl, query string) (*Program, error) {
	if strings.HasPrefix(strings.ToUpper(strings.TrimSpace(query)), "CREATE") || strings.HasPrefix(strings.ToUpper(strings.TrimSpace(query)), "INSERT") {
		return Build("test.sql", ddl+query, testEnvironment())
	}
	s, err := querySchema(ddl, query)
	if err != nil {
		return nil, err
	}
	var cols, names []string
	for i, f := range s {
		n := f.Type
		n.NotNull = false
		cols = append(cols, "c"+strconv.Itoa(i)+" "+n.String())
		names = append(names, "c"+strconv.Itoa(i))
	}
	return Build("test.sql", ddl+"CREATE VIEW v ("+strings.Join(names, ", ")+") AS\n"+query+";\nCREATE TABLE result ("+strings.Join(cols, ", ")+") WITH ('connector' = 'out');\nINSERT INTO result SELECT * FROM v;", testEnvironment())
}

// querySchema is the columns of a query over the tables of ddl.
func querySchema(ddl, query string) (row.Schema, error) {
	script, err := parser.Parse("test.sql", ddl)
	if err != nil {
		return nil, err
	}
	b := &binder{env: testEnvironment(), file: "test.sql", text: query, catalog: &catalog{objects: map[string]*object{}}}
	for _, s := range script.Statements {
		if err := b.createTable(s.(*parser.CreateTable)); err != nil {
			return nil, err
		}
	}
	q, err := parser.ParseQuery("test.sql", query)
	if err != nil {
		return nil, err
	}
	r, err := b.query(q, around{})
	if err != nil {
		return nil, err
	}
	return r.columns(), nil
}
