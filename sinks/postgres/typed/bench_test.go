package typed_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/sinks/postgres/typed"
)

// rows gives n rows of the accounts, beginning with one, in batches as the outbox does.
type rows struct {
	at, end int64
	update  bool
	b       *row.Builder
}

func (r *rows) Next() (int, *row.Batch, error) {
	if r.at == r.end {
		return 0, nil, io.EOF
	}
	r.b.Reset()
	add := func(balance, weight int64) {
		r.b.Cols[0].Int64 = append(r.b.Cols[0].Int64, r.at)
		r.b.Cols[1].AppendString("owner")
		r.b.Cols[2].Int64 = append(r.b.Cols[2].Int64, balance)
		r.b.EndRow(weight)
	}
	for ; r.at < r.end && r.b.Len < row.MaxBatch-1; r.at++ {
		if r.update {
			add(r.at, -1)
		}
		add(r.at+1, 1)
	}
	return 0, r.b.Seal(), nil
}

// BenchmarkPublish writes checkpoints of 10,000 rows: new ones, and changes of them. Beside it stand the same rows by COPY
// and by INSERT .. ON CONFLICT of generated rows, which have no protocol to pass.
func BenchmarkPublish(b *testing.B) {
	const size = 10_000
	report := func(b *testing.B, n int) {
		b.ReportMetric(float64(n)*size/b.Elapsed().Seconds(), "rows/s")
	}
	for _, c := range []string{"new", "changed", "copy", "insert"} {
		b.Run(c, func(b *testing.B) {
			d := newDatabase(b, "CREATE TABLE accounts (id bigint PRIMARY KEY, owner text, balance bigint)")
			tables := []typed.Table{accounts()}
			s, _ := d.open(tables...)
			r := &rows{b: row.NewBuilder(tables[0].Columns.Types())}
			n := 0
			if c == "changed" {
				d.exec(fmt.Sprintf("INSERT INTO accounts SELECT i, 'owner', i FROM generate_series(0, %d) i; ANALYZE accounts", 100*size))
			}
			for b.Loop() {
				from := int64(n) * size
				n++
				switch c {
				case "new", "changed":
					r.update = c == "changed"
					if r.update {
						from %= 100 * size
					}
					r.at, r.end = from, from+size
					if err := s.Publish(context.Background(), dataflow.Checkpoint(n), r); err != nil {
						b.Fatal(err)
					}
				case "copy":
					var text strings.Builder
					for i := range int64(size) {
						fmt.Fprintf(&text, "%d\towner\t%d\n", from+i, i)
					}
					if _, err := d.conn.PgConn().CopyFrom(context.Background(), strings.NewReader(text.String()), "COPY accounts FROM STDIN"); err != nil {
						b.Fatal(err)
					}
				case "insert":
					d.exec(fmt.Sprintf("INSERT INTO accounts SELECT i, 'owner', i FROM generate_series(%d, %d) i ON CONFLICT (id) DO UPDATE SET owner = EXCLUDED.owner, balance = EXCLUDED.balance", from, from+size-1))
				}
			}
			report(b, n)
		})
	}
}
