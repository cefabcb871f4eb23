package print_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/with"
	"github.com/weirstream/weir/sinks/print"
)

type change struct {
	table int
	batch *row.Batch
}

type changes []change

func (c *changes) Next() (int, *row.Batch, error) {
	if len(*c) == 0 {
		return 0, nil, io.EOF
	}
	first := (*c)[0]
	*c = (*c)[1:]
	return first.table, first.batch, nil
}

func schema() row.Schema {
	return row.Schema{{Name: "id", Type: row.Type{Kind: row.Int}}, {Name: "name", Type: row.Type{Kind: row.String}}, {Name: "ok", Type: row.Type{Kind: row.Boolean}},
		{Name: "at", Type: row.Type{Kind: row.Timestamp, Precision: 3}}}
}

// TestPrint: "table" with the arguments key and a WITH clause of one option a line makes a sink; "publish" has a change a
// line, its weight first, - for NULL; an empty line ends a batch.
func TestPrint(t *testing.T) {
	var out bytes.Buffer
	var s *print.Sink
	datadriven.RunTest(t, "testdata/print", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "table":
			values := map[string]string{}
			for line := range strings.Lines(d.Input) {
				k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
				values[k] = v
			}
			var key []int
			if d.HasArg("key") {
				key = []int{0}
			}
			o, err := print.ParseOptions(schema(), key, with.New(values, nil))
			if err != nil {
				return err.Error()
			}
			s = print.New(&out, o)
			at, err := s.Open(context.Background(), 1, 7)
			return fmt.Sprintf("open at %d, %v, standard error %v", at, err, o.StandardError)
		case "publish":
			var c changes
			for part := range strings.SplitSeq(d.Input, "\n-\n") {
				b := row.NewBuilder(schema().Types())
				for line := range strings.Lines(part) {
					var weight int64
					fields := strings.Split(strings.TrimSpace(line), " ")
					if _, err := fmt.Sscan(fields[0], &weight); err != nil {
						t.Fatal(err)
					}
					for i, typ := range schema().Types() {
						if fields[i+1] == "-" {
							b.Cols[i].AppendNull(typ.Layout())
						} else if err := row.ParseText(b.Cols[i], typ, []byte(fields[i+1]), nil); err != nil {
							t.Fatal(err)
						}
					}
					b.EndRow(weight)
				}
				c = append(c, change{0, b.Seal()})
			}
			out.Reset()
			if err := s.Publish(context.Background(), 8, &c); err != nil {
				return err.Error()
			}
			return out.String()
		}
		return "unknown command"
	})
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestPrintFails(t *testing.T) {
	s := print.New(broken{}, print.Options{Schema: schema()[:1]})
	b := row.NewBuilder(schema()[:1].Types())
	b.Cols[0].Int64 = append(b.Cols[0].Int64, 1)
	b.EndRow(1)
	if err := s.Publish(context.Background(), 1, &changes{{0, b.Seal()}}); !errs.Is(err, errs.TargetUnreachable) {
		t.Errorf("a broken pipe: %v", err)
	}
}

var _ dataflow.Changes = (*changes)(nil)
