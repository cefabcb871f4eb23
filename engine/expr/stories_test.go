package expr

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// The clock of the stories: 2026-03-15 13:14:15.123456 UTC.
const storyClock = 1773580455123456

// TestStories: "table" defines the columns, name and type each, and rows below them with | between values and NULL for
// NULL. "eval" prints an expression a line: its text as SQL, its type and its value for each row. A fault is printed as !code message.
// Without table the expression is computed once. "filter" prints which rows are left.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var cols row.Schema
		batch := &row.Batch{Len: 1}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s := Settings{Rand: rand.NewPCG(1, 2)}
			if d.HasArg("zone") {
				var name string
				d.ScanArgs(t, "zone", &name)
				var err error
				if s.Zone, err = time.LoadLocation(name); err != nil {
					t.Fatal(err)
				}
			}
			var out strings.Builder
			switch d.Cmd {
			case "table":
				var err error
				if cols, batch, err = readTable(d.Input, s); err != nil {
					t.Fatalf("%s: %v", d.Pos, err)
				}
				return "ok\n"
			case "eval":
				for line := range strings.SplitSeq(d.Input, "\n") {
					e, err := parseExpr(line, cols)
					if err != nil {
						fmt.Fprintf(&out, "%s\n  error: %s\n", line, errorText(err))
						continue
					}
					fmt.Fprintf(&out, "%s  %s\n%s", e, e.Type(), evalText(t, e, batch, s))
				}
			case "filter":
				e, err := parseExpr(d.Input, cols)
				if err != nil {
					return errorText(err)
				}
				f, err := CompileFilter(e, s)
				if err != nil {
					return errorText(err)
				}
				sel, faults := f.Run(batch, storyClock, nil)
				fmt.Fprintf(&out, "%v\n", sel)
				for _, ft := range faults {
					fmt.Fprintf(&out, "row %d !%s %s\n", ft.Row, ft.Code, ft.Message)
				}
			}
			return out.String()
		})
	})
}

func errorText(err error) string {
	e, ok := errs.As(err)
	if !ok {
		return err.Error()
	}
	s := string(e.Code) + " " + e.Message
	if e.Hint != "" {
		s += "; hint: " + e.Hint
	}
	return s
}

func evalText(t *testing.T, e Expr, batch *row.Batch, s Settings) string {
	p, err := Compile([]Expr{e}, s)
	if err != nil {
		return "  error: " + errorText(err) + "\n"
	}
	res, faults := p.Run(batch, storyClock)
	failed := map[int]Fault{}
	for _, f := range faults {
		failed[int(f.Row)] = f
	}
	var out strings.Builder
	for k := range batch.Rows() {
		i := batch.At(k)
		if f, ok := failed[i]; ok {
			fmt.Fprintf(&out, "  !%s %s\n", f.Code, f.Message)
			if _, constant := e.(*Const); !constant && !res[0].Nulls.Is(i) {
				t.Errorf("%s: row %d has a fault and a value", e, i)
			}
			continue
		}
		fmt.Fprintf(&out, "  %s\n", cell(e.Type(), res[0], i, s.Zone))
		if res[0].Nulls.Is(i) && e.Type().NotNull {
			t.Errorf("%s is NULL in row %d, its type is %s", e, i, e.Type())
		}
	}
	return out.String()
}

func cell(t row.Type, v *row.Vector, i int, zone *time.Location) string {
	if v.Nulls.Is(i) {
		return "NULL"
	}
	text := row.AppendText(nil, t, v, i, zone)
	if t.Kind == row.Bytes {
		return fmt.Sprintf("X'%x'", text)
	}
	if len(text) > 200 {
		return fmt.Sprintf("%.40s... (%d bytes)", text, len(text))
	}
	if t.Kind == row.String && (len(text) == 0 || strings.TrimSpace(string(text)) != string(text) || strings.ContainsAny(string(text), "\n\t")) {
		return fmt.Sprintf("%q", text)
	}
	return string(text)
}

func readTable(input string, s Settings) (row.Schema, *row.Batch, error) {
	head, rest, _ := strings.Cut(input, "\n")
	var cols row.Schema
	for def := range strings.SplitSeq(head, ";") {
		name, typ, _ := strings.Cut(strings.TrimSpace(def), " ")
		p := &parser{toks: tokens(typ)}
		cols = append(cols, row.Field{Name: name, Type: p.typ()})
	}
	b := row.NewBuilder(cols.Types())
	for line := range strings.SplitSeq(rest, "\n") {
		if line == "" {
			continue
		}
		cells := strings.Split(line, "|")
		for i, c := range cols {
			text := strings.TrimSpace(cells[i])
			if text == "NULL" {
				b.Cols[i].AppendNull(c.Type.Layout())
				continue
			}
			if c.Type.Kind == row.String {
				text = strings.TrimSuffix(strings.TrimPrefix(text, "'"), "'")
			}
			switch c.Type.Kind {
			case row.Array, row.Map, row.Struct:
				e, err := parseExpr(text, nil)
				if err != nil {
					return nil, nil, err
				}
				if e, err = CastTo(e, c.Type, false); err != nil {
					return nil, nil, err
				}
				p, err := Compile([]Expr{e}, s)
				if err != nil {
					return nil, nil, err
				}
				v, _ := p.Run(&row.Batch{Len: 1}, 0)
				b.Cols[i].AppendBytes(v[0].Bytes(0))
				continue
			}
			if err := row.ParseText(b.Cols[i], c.Type, []byte(text), s.Zone); err != nil {
				return nil, nil, fmt.Errorf("%s %q: %w", c.Name, text, err)
			}
		}
		b.EndRow(1)
	}
	return cols, b.Seal(), nil
}
