package golden

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/sql/plan"
)

// transaction are the changes of a transaction by table, in order.
type transaction map[string][]change

type change struct {
	weight int64
	values []string // NULL is NULL
}

// tables are those of the program that have a history.
func tables(p *plan.Program) (out []plan.SourceTable) {
	for _, s := range p.Sources {
		if s.Connector == "history" {
			out = append(out, s.Tables...)
		}
	}
	return out
}

func names(t plan.SourceTable) (out []string) {
	for _, c := range t.Columns {
		out = append(out, t.Schema[c].Name)
	}
	return out
}

func parseHistory(t *testing.T, p *plan.Program, d *datadriven.TestData) (out []transaction) {
	this := transaction{}
	end := func() {
		if len(this) > 0 {
			out = append(out, this)
			this = transaction{}
		}
	}
	for line := range strings.Lines(d.Input) {
		line = strings.TrimSpace(line)
		if line == "" {
			end()
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		sign, values, _ := strings.Cut(rest, " ")
		i := slices.IndexFunc(tables(p), func(t plan.SourceTable) bool { return t.Name == name })
		if i < 0 || sign != "+" && sign != "-" {
			d.Fatalf(t, "%q is not TABLE + VALUES or TABLE - VALUES of a table that is read", line)
		}
		c := change{weight: 1}
		if sign == "-" {
			c.weight = -1
		}
		for v := range strings.SplitSeq(values, ",") {
			c.values = append(c.values, strings.TrimSpace(v))
		}
		if want := len(tables(p)[i].Schema); len(c.values) != want {
			d.Fatalf(t, "%q has %d values, the table has %d columns", line, len(c.values), want)
		}
		this[name] = append(this[name], c)
	}
	end()
	return out
}

// randomHistory changes every table, with few values so that rows meet: a table with a key has each key once at most, in
// others rows come several times.
func randomHistory(r *rand.Rand, p *plan.Program, n int) (out []transaction) {
	live := map[string][][]string{}
	for range n {
		x := transaction{}
		for _, t := range tables(p) {
			for range r.IntN(4) {
				rows := live[t.Name]
				if len(rows) > 0 && r.IntN(4) == 0 {
					i := r.IntN(len(rows))
					x[t.Name] = append(x[t.Name], change{-1, rows[i]})
					live[t.Name] = slices.Delete(slices.Clone(rows), i, i+1)
					continue
				}
				var values []string
				for c, f := range t.Schema {
					values = append(values, randomValue(r, f.Type, slices.Contains(t.Key, c)))
				}
				same := func(other []string) bool {
					return !slices.ContainsFunc(t.Key, func(c int) bool { return other[c] != values[c] })
				}
				if len(t.Key) > 0 {
					if i := slices.IndexFunc(rows, same); i >= 0 { // an update
						x[t.Name] = append(x[t.Name], change{-1, rows[i]})
						rows = slices.Delete(slices.Clone(rows), i, i+1)
					}
				}
				x[t.Name] = append(x[t.Name], change{1, values})
				live[t.Name] = append(slices.Clone(rows), values)
			}
		}
		out = append(out, x)
	}
	return out
}

func randomValue(r *rand.Rand, t row.Type, key bool) string {
	if !t.NotNull && !key && r.IntN(8) == 0 {
		return "NULL"
	}
	switch t.Kind {
	case row.Boolean:
		return strconv.FormatBool(r.IntN(2) == 0)
	case row.TinyInt, row.SmallInt, row.Int, row.BigInt:
		return strconv.Itoa(r.IntN(12) - 2)
	case row.Decimal:
		return fmt.Sprintf("%d.%0*d", r.IntN(9), t.Scale, 5)[:2+t.Scale]
	case row.Float, row.Double:
		return strconv.FormatFloat(float64(r.IntN(20))/4, 'g', -1, 64)
	case row.Timestamp, row.TimestampLTZ:
		return time.Date(2026, 3, 1, 10, r.IntN(20), 0, 0, time.UTC).Format("2006-01-02 15:04:05")
	case row.Date:
		return time.Date(2026, 3, 1+r.IntN(9), 0, 0, 0, 0, time.UTC).Format("2006-01-02")
	default:
		return string(rune('a' + r.IntN(5)))
	}
}

// feed is a source over a history.
type feed struct {
	history []transaction
	tables  []plan.SourceTable
	b       []*row.Builder
	at      int // the transaction
	table   int // what of it comes next
}

func (f *feed) Open(_ context.Context, st dataflow.State) error {
	if v := st["at"]; v != nil {
		f.at, _ = strconv.Atoi(string(v))
	}
	return nil
}

func (f *feed) Read(ctx context.Context) (dataflow.Message, error) {
	if err := ctx.Err(); err != nil {
		return dataflow.Message{}, err
	}
	if f.at == len(f.history) {
		return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, nil
	}
	for ; f.table < len(f.tables); f.table++ {
		t := f.tables[f.table]
		changes := f.history[f.at][t.Name]
		if len(changes) == 0 {
			continue
		}
		b := f.b[f.table]
		b.Reset()
		for _, c := range changes {
			for i, col := range t.Columns {
				typ := t.Schema[col].Type
				if c.values[col] == "NULL" {
					b.Cols[i].AppendNull(typ.Layout())
				} else if err := row.ParseText(b.Cols[i], typ, []byte(c.values[col]), time.UTC); err != nil {
					return dataflow.Message{}, err
				}
			}
			b.EndRow(c.weight)
		}
		f.table++
		return dataflow.Message{Kind: dataflow.KindBatch, Batch: b.Seal(), Table: f.table - 1}, nil
	}
	f.at, f.table = f.at+1, 0
	return dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: []dataflow.StateChange{{Key: "at", Value: []byte(strconv.Itoa(f.at))}}}, nil
}

func (f *feed) Confirm([]dataflow.StateChange) {}
func (f *feed) Close(context.Context) error    { return nil }
