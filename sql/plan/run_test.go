package plan

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// change is a row of a table of the tests, as text by column, with its weight.
type change struct {
	values []string // "NULL" is NULL
	weight int64
}

// feed is a dataflow.Source over what happens to the tables of a test, epoch by epoch: an epoch's changes of all tables
// are one transaction.
type feed struct {
	epochs []map[string][]change
	tables []SourceTable
	at     int
	table  int
	b      []*row.Builder
	// step is asked before each transaction.
	step func(n int)
}

func (f *feed) Open(context.Context, dataflow.State) error {
	for _, t := range f.tables {
		f.b = append(f.b, row.NewBuilder(t.Types()))
	}
	return nil
}

func (f *feed) Read(ctx context.Context) (dataflow.Message, error) {
	for {
		if f.at == len(f.epochs) {
			return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, nil
		}
		if f.table == len(f.tables) {
			f.table = 0
			f.at++
			return dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: []dataflow.StateChange{{Key: "at", Value: []byte{1}}}}, nil
		}
		if f.table == 0 && f.step != nil {
			f.step(f.at)
		}
		t := f.tables[f.table]
		changes := f.epochs[f.at][t.Name]
		f.table++
		if len(changes) == 0 {
			continue
		}
		b := f.b[f.table-1]
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
			if t.Unsent {
				b.Cols[len(t.Columns)].Int64 = append(b.Cols[len(t.Columns)].Int64, 0)
			}
			b.EndRow(c.weight)
		}
		return dataflow.Message{Kind: dataflow.KindBatch, Batch: b.Seal(), Table: f.table - 1}, nil
	}
}

func (f *feed) Confirm([]dataflow.StateChange) {}
func (f *feed) Close(context.Context) error    { return nil }

// collected is a sink that adds its tables up.
type collected struct {
	mu     sync.Mutex
	types  [][]row.Type
	tables []map[string]int64
}

func (c *collected) Open(context.Context, dataflow.Generation, dataflow.Checkpoint) (dataflow.Checkpoint, error) {
	return 0, nil
}

func (c *collected) Publish(_ context.Context, _ dataflow.Checkpoint, changes dataflow.Changes) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		table, b, err := changes.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for k := range b.Rows() {
			i := b.At(k)
			var vs []string
			for col, t := range c.types[table] {
				if b.Cols[col].Nulls.Is(i) {
					vs = append(vs, "NULL")
					continue
				}
				vs = append(vs, string(row.AppendText(nil, t, b.Cols[col], i, time.UTC)))
			}
			text := strings.Join(vs, "|")
			if c.tables[table][text] += b.Weight(i); c.tables[table][text] == 0 {
				delete(c.tables[table], text)
			}
		}
	}
}

func (c *collected) Close(context.Context) error { return nil }

func (c *collected) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return dump(c.tables[0])
}

func dump(m map[string]int64) string {
	var lines []string
	for k, w := range m {
		if w == 1 {
			lines = append(lines, k)
		} else {
			lines = append(lines, fmt.Sprintf("%s x%d", k, w))
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func testEnvironment() Environment {
	return Environment{Connectors: map[string]Kind{
		"rows": {Source: true, Changelog: true, Bounded: func(map[string]string) bool { return true }, Group: func(map[string]string) string { return "rows" }},
		"log":  {Source: true, Bounded: func(map[string]string) bool { return true }, Group: func(map[string]string) string { return "log" }},
		"live": {Source: true}, // never ends
		"out":  {Sink: true, SinkChangelog: true, SinkKeyless: true},
	}}
}

// runProgram runs a program whose one sink is collected.
func runProgram(t testing.TB, p *Program, epochs []map[string][]change, parallelism int, step func(int)) *collected {
	t.Helper()
	e := env.Real(slog.New(slog.DiscardHandler))
	o := keyed.Options{Graph: p.Graph, Parallelism: parallelism, Groups: 16}
	for i := range p.Sources {
		s := &p.Sources[i]
		ks := keyed.Source{Name: s.Name, First: s.First}
		for j := range s.Tables {
			ks.Tables = append(ks.Tables, s.Tables[j].Types())
		}
		if s.Connector == "values" {
			ks.Source = operator.NewConstant(s.Rows)
		} else {
			ks.Source = &feed{epochs: epochs, tables: s.Tables, step: step}
		}
		o.Sources = append(o.Sources, ks)
	}
	c := &collected{}
	for _, s := range p.Sinks {
		k := keyed.Sink{Name: s.Name, Sink: c}
		for _, x := range s.Tables {
			k.Tables = append(k.Tables, x.Schema.Types())
			c.types, c.tables = append(c.types, x.Schema.Types()), append(c.tables, map[string]int64{})
		}
		o.Sinks = append(o.Sinks, k)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := keyed.New(e, o).Run(ctx); err != nil {
		if errs.Is(err, errs.EvalDivisionByZero) && len(c.tables[0]) == 0 { // nothing was written
			c.tables[0][string(errs.EvalDivisionByZero)] = 1
			return c
		}
		t.Fatal(err)
	}
	e.Wait()
	return c
}
