package parquet_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	lib "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/format"
	"github.com/weirstream/weir/internal/format/formattest"
	"github.com/weirstream/weir/internal/format/parquet"
	"github.com/weirstream/weir/test/nexmark"
)

const all = `a BOOLEAN, b TINYINT, c SMALLINT, d INT, e BIGINT, f FLOAT, g DOUBLE, h DECIMAL(38, 4), i DECIMAL(5, 2), z DECIMAL(15, 3), j NUMERIC, k STRING, l CHAR(7),
	m VARCHAR(3), n BYTES, o DATE, p TIME(0), p2 TIME(6), q TIMESTAMP(3), q2 TIMESTAMP(6), r TIMESTAMP_LTZ(9), s MONTHS, t SECONDS, u UUID, v JSON, w STRING NOT NULL, x BIGINT NOT NULL`

func encode(t testing.TB, f *parquet.Format, batches ...*row.Batch) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := f.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		if err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func read(f *parquet.Format, data []byte, at format.Position, b *row.Builder, limit int) (format.Position, error) {
	r, err := f.NewReader(format.File{ReaderAt: bytes.NewReader(data), Size: int64(len(data))}, at)
	if err != nil {
		return at, err
	}
	err = r.Read(b, limit)
	return r.Position(), errors.Join(err, r.Close())
}

// What is written reads back the same, whole or from any row on, with any columns.
func TestRoundTrip(t *testing.T) {
	schema := formattest.Schema(all)
	r := rand.New(rand.NewPCG(1, 2))
	for _, codec := range []string{"", "ZSTD", "GZIP", "UNCOMPRESSED"} {
		f, err := parquet.New(schema, nil, parquet.Options{Compression: codec})
		if err != nil {
			t.Fatal(err)
		}
		var batches []*row.Batch
		var want []string
		for range 4 {
			b := formattest.Batch(r, schema, 50+r.IntN(300))
			b.Sel = []int32{}
			for i := range b.Len {
				if r.IntN(4) > 0 {
					b.Sel = append(b.Sel, int32(i))
				}
			}
			batches, want = append(batches, b), append(want, formattest.Rows(schema, b)...)
		}
		data := encode(t, f, batches...)
		var at format.Position
		var got []string
		for {
			b := row.NewBuilder(schema.Types())
			at, err = read(f, data, at, b, 1+r.IntN(200))
			got = append(got, formattest.Rows(schema, b.Seal())...)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%s: %d rows read back as %d, or others", codec, len(want), len(got))
		}
		in, err := lib.OpenFile(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range in.Root().Columns() {
			if c.Name() != schema[i].Name {
				t.Errorf("column %d of the file is %s, want %s", i, c.Name(), schema[i].Name)
			}
		}
		some := []int{9, 0, 25}
		f, err = parquet.New(schema, some, parquet.Options{})
		if err != nil {
			t.Fatal(err)
		}
		part := row.Schema{schema[9], schema[0], schema[25]}
		b := row.NewBuilder(part.Types())
		if _, err := read(f, data, format.Position{}, b, 10); err != nil {
			t.Fatal(err)
		}
		first := row.Batch{Len: batches[0].Len, Sel: batches[0].Sel[:10], Cols: []*row.Vector{batches[0].Cols[9], batches[0].Cols[0], batches[0].Cols[25]}}
		if !slices.Equal(formattest.Rows(part, b.Seal()), formattest.Rows(part, &first)) {
			t.Errorf("three columns of %s: %v", codec, formattest.Lines(part, &b.Batch))
		}
	}
}

// A file that is longer than a row group is read on from any row.
func TestRowGroups(t *testing.T) {
	schema := formattest.Schema("id BIGINT NOT NULL, name STRING")
	f, err := parquet.New(schema, nil, parquet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const rows = 300_000
	var batches []*row.Batch
	for n := int64(0); n < rows; {
		b := row.NewBuilder(schema.Types())
		for range min(row.MaxBatch, rows-n) {
			b.Cols[0].Int64 = append(b.Cols[0].Int64, n)
			b.Cols[1].AppendString(fmt.Sprint(n % 1000))
			b.EndRow(1)
			n++
		}
		batches = append(batches, b.Seal())
	}
	data := encode(t, f, batches...)
	for _, at := range []int64{0, 1, 131_071, 131_072, 200_000, rows - 1, rows} {
		b := row.NewBuilder(schema.Types())
		end, err := read(f, data, format.Position{Offset: at}, b, 5)
		if at == rows {
			if !errors.Is(err, io.EOF) || b.Len != 0 {
				t.Errorf("at the end: %d rows, %v", b.Len, err)
			}
			continue
		}
		if err != nil || b.Len == 0 || end.Offset != at+int64(b.Len) {
			t.Fatalf("at %d: %d rows to %d, %v", at, b.Len, end.Offset, err)
		}
		for i := range b.Len {
			if n := at + int64(i); b.Cols[0].Int64[i] != n || string(b.Cols[1].Bytes(i)) != fmt.Sprint(n%1000) {
				t.Fatalf("row %d is %d, %s", n, b.Cols[0].Int64[i], b.Cols[1].Bytes(i))
			}
		}
	}
	if _, err := read(f, data, format.Position{Offset: rows + 1}, row.NewBuilder(schema.Types()), 5); err == nil {
		t.Error("a position behind the end is taken")
	}
}

// Files of other writers: other widths and units, 96-bit timestamps, missing columns.
func TestForeign(t *testing.T) {
	type foreign struct {
		Small int32            `parquet:"small"`
		Cents int64            `parquet:"cents,decimal(2:10)"`
		Nanos int64            `parquet:"nanos,timestamp(nanosecond)"`
		Old   deprecated.Int96 `parquet:"old"`
		Ratio float32          `parquet:"ratio"`
		Tags  []string         `parquet:"tags,list"`
		Name  *string          `parquet:"name,optional"`
	}
	name := "ann"
	var out bytes.Buffer
	w := lib.NewGenericWriter[foreign](&out)
	if _, err := w.Write([]foreign{
		{Small: 7, Cents: 1234, Nanos: 1_767_225_600_123_456_789, Old: deprecated.Int96{1_000_000_000, 0, 2_440_588 + 1}, Ratio: 0.5, Name: &name},
		{Small: -200, Cents: -5, Nanos: -1, Old: deprecated.Int96{0, 0, 2_440_588 - 1}, Ratio: -1, Tags: []string{"x"}},
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ schema, want string }{
		{"small BIGINT, cents DECIMAL(12,3), nanos TIMESTAMP(3), old TIMESTAMP(6), ratio DOUBLE, name STRING, more INT",
			"7 | 12.340 | 2026-01-01 00:00:00.123 | 1970-01-02 00:00:01.000000 | 0.5 | ann | NULL\n-200 | -0.050 | 1969-12-31 23:59:59.999 | 1969-12-31 00:00:00.000000 | -1.0 | NULL | NULL"},
		{"small TINYINT", "row 2: column small: -200 is out of range of TINYINT"},
		{"name STRING NOT NULL", "row 2: column name: NULL in a column that is NOT NULL"},
		{"cents DECIMAL(10,1)", "cannot be read as DECIMAL(10, 1)"},
		{"ratio INT", "cannot be read as INT"},
		{"small STRING", "cannot be read as STRING"},
		{"tags STRING", "column tags: nested values cannot be read yet"},
		{"more INT NOT NULL", "column more: the file does not have it"},
	} {
		schema := formattest.Schema(c.schema)
		f, err := parquet.New(schema, nil, parquet.Options{})
		if err != nil {
			t.Fatal(err)
		}
		b := row.NewBuilder(schema.Types())
		_, err = read(f, out.Bytes(), format.Position{}, b, 10)
		got := strings.Join(formattest.Lines(schema, b.Seal()), "\n")
		if bad, ok := errors.AsType[*format.BadRecord](err); ok {
			got += fmt.Sprintf("row %d: %v", bad.Row, bad)
		} else if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s\nwant %s", c.schema, got, c.want)
		}
	}
}

// A damaged file is an error or other rows, never a panic, and leaves whole rows behind.
func TestDamaged(t *testing.T) {
	schema := formattest.Schema("a BIGINT, b STRING, c DECIMAL(38,2), d TIMESTAMP(3)")
	f, err := parquet.New(schema, nil, parquet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	data := encode(t, f, formattest.Batch(r, schema, 200))
	failed := 0
	for n := range 1500 {
		bad := slices.Clone(data)
		for range 1 + r.IntN(3) {
			bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
		}
		if n%5 == 0 {
			bad = bad[:r.IntN(len(bad))]
		}
		b := row.NewBuilder(schema.Types())
		if _, err := read(f, bad, format.Position{}, b, 1000); err != nil {
			failed++
		}
		for c, typ := range schema.Types() {
			v := b.Cols[c]
			n := map[row.Layout]int{row.LayoutInt64: len(v.Int64), row.LayoutDecimal: len(v.Decimal), row.LayoutBytes: len(v.Spans)}[typ.Layout()]
			if n != b.Len {
				t.Fatalf("column %d has %d values of %d rows", c, n, b.Len)
			}
		}
	}
	if failed < 500 {
		t.Errorf("only %d damaged files were noticed", failed)
	}
}

func bids(b *testing.B) (*parquet.Format, []*row.Batch, int) {
	b.Helper()
	schema := nexmark.Schema(nexmark.Bid)
	f, err := parquet.New(schema, nil, parquet.Options{})
	if err != nil {
		b.Fatal(err)
	}
	p, err := nexmark.Prepare(nexmark.Options{Count: 100_000, Tables: []nexmark.Table{{Kind: nexmark.Bid}}})
	if err != nil {
		b.Fatal(err)
	}
	s, err := p.Source(0, 1)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Open(b.Context(), nil); err != nil {
		b.Fatal(err)
	}
	var batches []*row.Batch
	rows := 0
	for {
		m, err := s.Read(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if m.Batch == nil {
			return f, batches, rows
		}
		batches, rows = append(batches, m.Batch), rows+m.Batch.Len
	}
}

func BenchmarkWrite(b *testing.B) {
	f, batches, rows := bids(b)
	b.ReportAllocs()
	for b.Loop() {
		b.SetBytes(int64(len(encode(b, f, batches...))))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
}

func BenchmarkRead(b *testing.B) {
	f, batches, rows := bids(b)
	data := encode(b, f, batches...)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	out := row.NewBuilder(nexmark.Schema(nexmark.Bid).Types())
	for b.Loop() {
		r, err := f.NewReader(format.File{ReaderAt: bytes.NewReader(data), Size: int64(len(data))}, format.Position{})
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			out.Reset()
			err = r.Read(out, row.MaxBatch)
		}
		if !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
}
