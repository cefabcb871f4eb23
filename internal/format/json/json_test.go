package json_test

import (
	"bytes"
	stdjson "encoding/json"
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
	"github.com/weirstream/weir/internal/format/formattest"
	"github.com/weirstream/weir/internal/format/json"
	"github.com/weirstream/weir/internal/with"
	"github.com/weirstream/weir/test/nexmark"
)

// TestStories: "table" makes the format of a schema (first line) with options (further lines) and columns; "decode" reads a
// file, "encode" writes what it read before and reads that again.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		var f *json.Format
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
				o := json.ParseOptions(c)
				if err := c.End("format 'json'"); err != nil {
					return err.Error()
				}
				full, columns := schema, []int(nil)
				if d.HasArg("columns") {
					var names string
					d.ScanArgs(t, "columns", &names)
					schema = nil
					for name := range strings.SplitSeq(names, "+") {
						columns = append(columns, full.Index(name))
						schema = append(schema, full[full.Index(name)])
					}
				}
				var err error
				if f, err = json.New(full, columns, o); err != nil {
					return err.Error()
				}
				return "ok"
			case "decode":
				text := strings.NewReplacer("<TAB>", "\t", "<BAD>", "\xff").Replace(d.Input)
				b = row.NewBuilder(schema.Types())
				err := read(f, text, b)
				out := formattest.Lines(schema, b.Seal())
				if bad, ok := errors.AsType[*format.BadRecord](err); ok {
					out = append(out, fmt.Sprintf("error at line %d, byte %d: %v", bad.Line, bad.Offset, bad))
				} else if err != nil {
					out = append(out, err.Error())
				}
				return strings.Join(out, "\n")
			case "encode":
				out, err := f.NewEncoder().AppendRows(nil, &b.Batch)
				if err != nil {
					return err.Error()
				}
				for line := range bytes.Lines(out) {
					if !stdjson.Valid(line) {
						return string(out) + "is not JSON"
					}
				}
				again := row.NewBuilder(schema.Types())
				if err := read(f, string(out), again); err != nil {
					return string(out) + "cannot be read again: " + err.Error()
				}
				if !slices.Equal(formattest.Rows(schema, again.Seal()), formattest.Rows(schema, &b.Batch)) {
					return string(out) + "reads back as\n" + strings.Join(formattest.Lines(schema, &again.Batch), "\n")
				}
				return string(out)
			}
			return "unknown command"
		})
	})
}

func read(f *json.Format, text string, b *row.Builder) error {
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
	m VARCHAR(3), n BYTES, o DATE, p TIME(0), q TIMESTAMP(3), r TIMESTAMP_LTZ(9), s MONTHS, t SECONDS, u UUID, v JSON, w STRING NOT NULL,
	x ARRAY<ROW<a INT, b ARRAY<STRING>>>, y MAP<STRING, ARRAY<DOUBLE>>, z ROW<a STRING, b MAP<STRING, BIGINT>, c ROW<d DATE>>`

// What is written is JSON, and reads back the same from any place on, in pieces of any size.
func TestRoundTrip(t *testing.T) {
	schema := formattest.Schema(all)
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 40 {
		f, err := json.New(schema, nil, json.Options{ISO: r.IntN(2) == 0, IgnoreNullFields: r.IntN(2) == 0})
		if err != nil {
			t.Fatal(err)
		}
		b := formattest.Batch(r, schema, 1+r.IntN(30))
		var out bytes.Buffer
		w, err := f.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Write(b), w.Close()); err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(out.Bytes()) {
			if !stdjson.Valid(line) {
				t.Fatalf("not JSON: %s", line)
			}
		}
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
				t.Fatalf("round %d: %v\n%s", round, err, out.String())
			}
		}
		if want := formattest.Rows(schema, b); !slices.Equal(got, want) {
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("round %d: line %d reads back otherwise\n%s", round, i, out.String())
				}
			}
		}
	}
}

// FuzzDecode: whatever is a JSON object is read or said to hold a bad value; nothing else is taken.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"a":1,"b":"x","c":[1,null],"d":{"a":{"b":[true]}},"e":{"k":1,"k":2}}`, `{"b":"\ud83d\ude00\u0000\n","a":null}`, `{}`, ` {"a" : -1e2 , "z":[{},[]]} `,
		`{"a":01}`, `{"a":1,}`, `{"b":"\x"}`, `{"a":1}{`, `{"b":"\ud800x"}`, `[]`, `null`, `{"a":1.}`, "{\"b\":\"\xff\"}", `{"d":{"a":[[[[`,
	} {
		f.Add(s)
	}
	schema := formattest.Schema("a BIGINT, b STRING, c ARRAY<INT>, d JSON, e MAP<STRING, INT>, f ROW<a INT, b STRING>")
	strict, err := json.New(schema, nil, json.Options{})
	if err != nil {
		f.Fatal(err)
	}
	lenient, err := json.New(schema, nil, json.Options{IgnoreParseErrors: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b := row.NewBuilder(schema.Types())
		bad := strict.NewDecoder().Record(b, []byte(text))
		valid := stdjson.Valid([]byte(text)) && strings.ToValidUTF8(text, "?") == text
		object := strings.HasPrefix(strings.TrimLeft(text, " \t\r\n"), "{")
		if bad == nil && (b.Len > 1 || b.Len == 1 && !(valid && object)) {
			t.Fatalf("%q is taken", text)
		}
		if b.Len == 1 {
			out, err := strict.NewEncoder().AppendRows(nil, b.Seal())
			if err != nil {
				t.Fatal(err)
			}
			again := row.NewBuilder(schema.Types())
			if bad := strict.NewDecoder().Record(again, out); bad != nil || formattest.Rows(schema, again.Seal())[0] != formattest.Rows(schema, &b.Batch)[0] {
				t.Fatalf("%q reads back otherwise: %v", out, bad)
			}
		}
		b.Reset()
		bad = lenient.NewDecoder().Record(b, []byte(text))
		deep := strings.Count(text, "[")+strings.Count(text, "{") >= 200
		if valid && object && bad != nil && !deep {
			t.Fatalf("%q is refused: %v", text, bad)
		}
		for i, c := range b.Cols {
			n := len(c.Int64) + len(c.Spans)
			if n != b.Len || len(c.Nulls) > (n+63)/64 {
				t.Fatalf("%q leaves %d values in column %d of %d rows", text, n, i, b.Len)
			}
		}
	})
}

func bids(b *testing.B, nested bool) ([]byte, int) {
	p := nexmark.NewPrinter(nexmark.NewGenerator(1, 100_000), 0)
	var text []byte
	rows := 0
	for n := range int64(20_000) {
		line := p.AppendJSON(nil)
		if nexmark.KindOf(n) != nexmark.Bid {
			continue
		}
		if !nested {
			line = append(bytes.TrimSuffix(bytes.TrimPrefix(line, []byte(`{"event_type":2,"bid":`)), []byte("}\n")), '\n')
		}
		text, rows = append(text, line...), rows+1
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	return text, rows
}

func BenchmarkDecode(b *testing.B) {
	bid := nexmark.Schema(nexmark.Bid)
	for _, c := range []struct {
		name   string
		schema row.Schema
		nested bool
	}{
		{"flat", bid, false},
		{"two", row.Schema{bid[0], bid[5]}, false},
		{"nested", row.Schema{{Name: "event_type", Type: row.Type{Kind: row.Int}}, {Name: "bid", Type: row.Type{Kind: row.Struct, Fields: bid}}}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			text, rows := bids(b, c.nested)
			f, err := json.New(c.schema, nil, json.Options{})
			if err != nil {
				b.Fatal(err)
			}
			out := row.NewBuilder(c.schema.Types())
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
	text, rows := bids(b, false)
	f, err := json.New(nexmark.Schema(nexmark.Bid), nil, json.Options{})
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
		if dst, err = e.AppendRows(dst[:0], &out.Batch); err != nil || !bytes.Equal(dst, text) {
			b.Fatal(err, len(dst), len(text))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
}
