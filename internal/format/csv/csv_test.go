package csv_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cockroachdb/datadriven"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/format"
	"github.com/weirstream/weir/internal/format/csv"
	"github.com/weirstream/weir/internal/format/formattest"
	"github.com/weirstream/weir/internal/with"
	"github.com/weirstream/weir/test/nexmark"
)

// TestStories: "table" makes the format of a schema (first line) with options (further lines) and columns; "decode" reads a
// file, "encode" writes what it read before and reads that again.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		var f *csv.Format
		var schema row.Schema
		var b *row.Builder
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "table":
				head, rest, _ := strings.Cut(d.Input, "\n")
				schema = formattest.Schema(head)
				values := map[string]string{}
				for line := range strings.Lines(rest) {
					k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
					values[k] = v
				}
				c := with.New(values, nil)
				o := csv.ParseOptions(c)
				if err := c.End("format 'csv'"); err != nil {
					return err.Error()
				}
				var columns []int
				if d.HasArg("columns") {
					var names string
					d.ScanArgs(t, "columns", &names)
					full := schema
					schema = nil
					for name := range strings.SplitSeq(names, "+") {
						columns = append(columns, full.Index(name))
						schema = append(schema, full[full.Index(name)])
					}
					var err error
					if f, err = csv.New(full, columns, o); err != nil {
						return err.Error()
					}
					return "ok"
				}
				var err error
				if f, err = csv.New(schema, nil, o); err != nil {
					return err.Error()
				}
				return "ok"
			case "decode":
				text := strings.NewReplacer("<CR>", "\r", "<TAB>", "\t", "<BAD>", "\xff").Replace(d.Input)
				var out []string
				b = row.NewBuilder(schema.Types())
				err := read(f, text, b)
				out = append(formattest.Lines(schema, b.Seal()), out...)
				if bad, ok := errors.AsType[*format.BadRecord](err); ok {
					out = append(out, fmt.Sprintf("error at line %d, byte %d: %v", bad.Line, bad.Offset, bad))
				} else if err != nil {
					out = append(out, err.Error())
				}
				return strings.Join(out, "\n")
			case "encode":
				var out bytes.Buffer
				w, err := f.NewWriter(&out)
				if err != nil {
					return err.Error()
				}
				if err := errors.Join(w.Write(&b.Batch), w.Close()); err != nil {
					return err.Error()
				}
				again := row.NewBuilder(schema.Types())
				if err := read(f, out.String(), again); err != nil {
					return out.String() + "cannot be read again: " + err.Error()
				}
				if !slices.Equal(formattest.Lines(schema, again.Seal()), formattest.Lines(schema, &b.Batch)) {
					return out.String() + "reads back as\n" + strings.Join(formattest.Lines(schema, &again.Batch), "\n")
				}
				return out.String()
			}
			return "unknown command"
		})
	})
}

// read reads a whole file.
func read(f *csv.Format, text string, b *row.Builder) error {
	r, err := f.NewReader(format.File{Stream: strings.NewReader(text)}, format.Position{})
	if err != nil {
		return err
	}
	for {
		if err := r.Read(b, 1000); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
	}
}

const all = `a BOOLEAN, b TINYINT, c SMALLINT, d INT, e BIGINT, f FLOAT, g DOUBLE, h DECIMAL(38, 4), i DECIMAL(5, 2), j NUMERIC, k STRING, l CHAR(7),
	m VARCHAR(3), n BYTES, o DATE, p TIME(0), q TIMESTAMP(3), r TIMESTAMP_LTZ(9), s MONTHS, t SECONDS, u UUID, v JSON, w STRING NOT NULL`

// What is written reads back the same, from any place on, in pieces of any size, with any way of protecting text.
func TestRoundTrip(t *testing.T) {
	schema := formattest.Schema(all)
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		o := csv.DefaultOptions()
		o.HasNull, o.Null = true, []string{"", "NULL", "n/a"}[r.IntN(3)]
		o.Delimiter = []byte{',', ';', '\t', '|'}[r.IntN(4)]
		o.Header = r.IntN(2) == 0
		o.AllowComments = r.IntN(2) == 0
		if r.IntN(3) == 0 {
			o.Escape = '\\'
		}
		f, err := csv.New(schema, nil, o)
		if err != nil {
			t.Fatal(err)
		}
		b := formattest.Batch(r, schema, 1+r.IntN(40))
		var out bytes.Buffer
		w, err := f.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Write(b), w.Close()); err != nil {
			t.Fatal(err)
		}
		want := formattest.Rows(schema, b)
		var at format.Position
		var got []string
		for {
			file := format.File{Stream: iotest.HalfReader(bytes.NewReader(out.Bytes()))}
			if r.IntN(2) == 0 {
				file = format.File{ReaderAt: bytes.NewReader(out.Bytes()), Size: int64(out.Len())}
			}
			rd, err := f.NewReader(file, at)
			if err != nil {
				t.Fatal(err)
			}
			back := row.NewBuilder(schema.Types())
			err = rd.Read(back, 1+r.IntN(10))
			got = append(got, formattest.Rows(schema, back.Seal())...)
			if at = rd.Position(); errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("round %d, %+v: %v\n%s", round, o, err, out.String())
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("round %d, %+v: %d rows read back as %d\n%s", round, o, len(want), len(got), out.String())
		}
		if n := int64(bytes.Count(out.Bytes(), []byte("\n"))); at.Line != n || at.Offset != int64(out.Len()) {
			t.Errorf("ends at %+v, the file has %d bytes and %d lines", at, out.Len(), n)
		}
	}
}

// FuzzDecode: no text makes the decoder panic; what it reads can be written and reads back the same; and it reads the same
// however the text is cut into pieces.
func FuzzDecode(f *testing.F) {
	f.Add("1,2.5,abc,1;2,2026-01-01 00:00:00\n", true, false)
	f.Add("1,,\"a\"\"b\nc\",,\r\n\n#x\n", false, true)
	f.Add("\\,,x\\n,\"", true, true)
	schema := formattest.Schema("a INT, b DECIMAL(6,2), c STRING, d ARRAY<INT>, e TIMESTAMP(3)")
	f.Fuzz(func(t *testing.T, text string, escape, ignore bool) {
		if len(text) > 500 {
			return // reading it in pieces of three bytes takes the square of that
		}
		o := csv.DefaultOptions()
		o.HasNull, o.Null, o.IgnoreParseErrors = true, "NULL", ignore
		if escape {
			o.Escape = '\\'
		}
		c, err := csv.New(schema, nil, o)
		if err != nil {
			t.Fatal(err)
		}
		b := row.NewBuilder(schema.Types())
		whole := read(c, text, b)
		want := formattest.Rows(schema, b.Seal())
		d := c.NewDecoder()
		cut := row.NewBuilder(schema.Types())
		used := 0
		for n := 0; n <= len(text); n += 3 {
			more, _, err := d.Decode(cut, []byte(text[used:n]), false, 1000)
			used += more
			if err != nil {
				break
			}
		}
		if _, _, err := d.Decode(cut, []byte(text[used:]), true, 1000); (err == nil) != (whole == nil) {
			t.Fatalf("in pieces: %v, whole: %v", err, whole)
		}
		if got := formattest.Rows(schema, cut.Seal()); !slices.Equal(got, want) && len(want) < 1000 {
			t.Fatalf("in pieces %q, whole %q", got, want)
		}
		out, err := c.NewEncoder().AppendRows(nil, &b.Batch)
		if err != nil {
			t.Fatal(err)
		}
		again := row.NewBuilder(schema.Types())
		if err := read(c, string(out), again); err != nil || !slices.Equal(formattest.Rows(schema, again.Seal()), want) {
			t.Fatalf("%q reads back otherwise: %v", out, err)
		}
	})
}

func bids(b *testing.B) ([]byte, int) {
	p := nexmark.NewPrinter(nexmark.NewGenerator(1, 100_000), 0)
	var text []byte
	rows := 0
	for range 20_000 {
		line, k := p.AppendCSV(nil)
		if k == nexmark.Bid {
			text, rows = append(text, line...), rows+1
		}
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	return text, rows
}

func BenchmarkDecode(b *testing.B) {
	for _, c := range []struct {
		name    string
		columns []int
	}{{"all", nil}, {"two", []int{0, 5}}} {
		b.Run(c.name, func(b *testing.B) {
			text, rows := bids(b)
			schema := nexmark.Schema(nexmark.Bid)
			f, err := csv.New(schema, c.columns, csv.DefaultOptions())
			if err != nil {
				b.Fatal(err)
			}
			types := schema.Types()
			if c.columns != nil {
				types = []row.Type{types[0], types[5]}
			}
			out := row.NewBuilder(types)
			d := f.NewDecoder()
			for b.Loop() {
				for used := 0; used < len(text); {
					out.Reset()
					n, _, err := d.Decode(out, text[used:], true, row.MaxBatch)
					if err != nil {
						b.Fatal(err)
					}
					used += n
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	text, rows := bids(b)
	f, err := csv.New(nexmark.Schema(nexmark.Bid), nil, csv.DefaultOptions())
	if err != nil {
		b.Fatal(err)
	}
	out := row.NewBuilder(nexmark.Schema(nexmark.Bid).Types())
	if _, _, err := f.NewDecoder().Decode(out, text, true, rows); err != nil {
		b.Fatal(err)
	}
	out.Seal()
	e := f.NewEncoder()
	var dst []byte
	for b.Loop() {
		if dst, err = e.AppendRows(dst[:0], &out.Batch); err != nil || len(dst) != len(text) {
			b.Fatal(err, len(dst), len(text))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
}
