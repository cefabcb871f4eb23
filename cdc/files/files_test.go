package files_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/zstd"

	"github.com/weirstream/weir/cdc/files"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format/formattest"
	"github.com/weirstream/weir/internal/format/parquet"
	"github.com/weirstream/weir/internal/with"
	"github.com/weirstream/weir/test/conform"
	"github.com/weirstream/weir/test/nexmark"
)

// write makes a file, packed as its name says.
func write(t testing.TB, fs vfs.FS, path string, text []byte) {
	t.Helper()
	switch {
	case strings.HasSuffix(path, ".gz"):
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		text = b.Bytes()
	case strings.HasSuffix(path, ".zst"):
		z, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		text = z.EncodeAll(text, nil)
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := fs.MkdirAll(fs.PathDir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create(path+".tmp", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := fs.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
}

func source(t testing.TB, fs vfs.FS, schema row.Schema, partitions []string, values map[string]string) *files.Source {
	t.Helper()
	o, err := files.ParseOptions(schema, nil, partitions, with.New(values, nil))
	if err != nil {
		t.Fatal(err)
	}
	return open(t, fs, o)
}

func open(t testing.TB, fs vfs.FS, o files.Options) *files.Source {
	t.Helper()
	e := env.Real(nil)
	e.FS = fs
	s, err := files.New(e, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConform(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := func(n int, header bool) []byte {
		var b bytes.Buffer
		if header {
			b.WriteString("name,id\n")
		}
		for range n {
			if header {
				fmt.Fprintf(&b, "\"n\n%d\",%d\n", r.IntN(1000), r.IntN(1000))
			} else {
				fmt.Fprintf(&b, "{\"id\":%d,\"name\":\"%s\"}\n", r.IntN(1000), strings.Repeat("x", r.IntN(40)))
			}
		}
		return b.Bytes()
	}
	schema := formattest.Schema("day DATE NOT NULL, id INT, name STRING")
	for _, format := range []string{"csv", "json", "parquet"} {
		t.Run(format, func(t *testing.T) {
			fs := vfs.NewMem()
			for i, suffix := range []string{"", ".gz", ".zst", ""} {
				for _, n := range []int{0, 1, 5_000, 12_345} {
					if format == "parquet" {
						write(t, fs, fmt.Sprintf("/in/day=2026-01-0%d/f%d.parquet", i+1, n), parquetFile(t, formattest.Batch(r, schema[1:], n)))
						continue
					}
					write(t, fs, fmt.Sprintf("/in/day=2026-01-0%d/f%d.%s%s", i+1, n, format, suffix), text(n, format == "csv"))
				}
			}
			conform.TestTypedSource(t, conform.TypedSource{
				Tables: [][]row.Type{schema.Types()},
				New: func(t *testing.T) dataflow.Source {
					values := map[string]string{"path": "/in", "format": format}
					if format == "csv" {
						values["csv.header"] = "true"
					}
					return source(t, fs, schema, []string{"day"}, values)
				},
				Cuts: 5,
			})
		})
	}
}

func parquetFile(t *testing.T, b *row.Batch) []byte {
	t.Helper()
	f, err := parquet.New(formattest.Schema("id INT, name STRING"), nil, parquet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := f.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Write(b), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestStories: "write" makes files (a line "== path" before each), "table" a source of a schema (first line) with options
// (further lines); "read" reads it to its end and shows the rows and the state, from the state before with "again".
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		fs := vfs.NewMem()
		var s *files.Source
		var schema row.Schema
		state := dataflow.State{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "write":
				for part := range strings.SplitSeq(d.Input, "== ") {
					if name, text, ok := strings.Cut(part, "\n"); ok {
						write(t, fs, name, []byte(text))
					}
				}
				return ""
			case "table":
				head, rest, _ := strings.Cut(d.Input, "\n")
				schema = formattest.Schema(head)
				values := map[string]string{}
				for line := range strings.Lines(rest) {
					k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
					values[k] = v
				}
				var parts []string
				var columns []int
				if d.HasArg("partitioned") {
					var names string
					d.ScanArgs(t, "partitioned", &names)
					parts = strings.Split(names, "+")
				}
				full := schema
				if d.HasArg("columns") {
					var names string
					d.ScanArgs(t, "columns", &names)
					schema = nil
					for name := range strings.SplitSeq(names, "+") {
						columns = append(columns, full.Index(name))
						schema = append(schema, full[full.Index(name)])
					}
				}
				o, err := files.ParseOptions(full, columns, parts, with.New(values, nil))
				if err != nil {
					return err.Error()
				}
				s = open(t, fs, o)
				return "ok"
			case "read":
				if !d.HasArg("again") {
					state = dataflow.State{}
				}
				return readAll(t, s, schema, state)
			}
			return "unknown command"
		})
	})
}

func readAll(t *testing.T, s *files.Source, schema row.Schema, state dataflow.State) string {
	ctx := context.Background()
	var out strings.Builder
	defer func() {
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	if err := s.Open(ctx, state); err != nil {
		return err.Error()
	}
	for {
		m, err := s.Read(ctx)
		if err != nil {
			e, ok := errs.As(err)
			if !ok {
				return out.String() + "no error for users: " + err.Error()
			}
			return out.String() + e.Render()
		}
		if m.Kind == dataflow.KindEnd {
			break
		}
		if m.Batch != nil {
			for _, line := range formattest.Lines(schema, m.Batch) {
				fmt.Fprintln(&out, line)
			}
		}
		for _, c := range m.State {
			state[c.Key] = c.Value
			fmt.Fprintf(&out, "  %s = %v\n", c.Key, c.Value)
		}
	}
	return out.String()
}

// New files are found while the source runs; what is hidden is not.
func TestMonitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		write(t, fs, "/in/b.csv", []byte("1\n2\n"))
		s := source(t, fs, formattest.Schema("id INT"), nil, map[string]string{"path": "/in", "format": "csv", "source.monitor-interval": "10 s"})
		ctx, cancel := context.WithCancel(context.Background())
		if err := s.Open(ctx, nil); err != nil {
			t.Fatal(err)
		}
		got := make(chan string, 10)
		go func() {
			defer close(got)
			for {
				m, err := s.Read(ctx)
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					return
				}
				if m.Batch != nil {
					got <- strings.Join(formattest.Lines(formattest.Schema("id INT"), m.Batch), " ")
				}
			}
		}()
		if rows := <-got; rows != "1 2" {
			t.Errorf("first %s", rows)
		}
		write(t, fs, "/in/a.csv", []byte("3\n"))
		write(t, fs, "/in/.c.csv", []byte("4\n"))
		write(t, fs, "/in/_d.csv", []byte("5\n"))
		start := time.Now()
		if rows := <-got; rows != "3" || time.Since(start) > 10*time.Second {
			t.Errorf("then %s after %v", rows, time.Since(start))
		}
		time.Sleep(time.Minute)
		cancel()
		for rows := range got {
			t.Errorf("and %s", rows)
		}
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// Splits read each file once.
func TestSplits(t *testing.T) {
	fs := vfs.NewMem()
	var want []string
	for i := range 30 {
		write(t, fs, fmt.Sprintf("/in/%d.csv", i), fmt.Appendf(nil, "%d\n", i))
		want = append(want, fmt.Sprint(i))
	}
	schema := formattest.Schema("id INT")
	var got []string
	for split := range 3 {
		o, err := files.ParseOptions(schema, nil, nil, with.New(map[string]string{"path": "/in/*.csv", "format": "csv"}, nil))
		if err != nil {
			t.Fatal(err)
		}
		o.Split, o.Splits = split, 3
		n := len(got)
		for line := range strings.Lines(readAll(t, open(t, fs, o), schema, dataflow.State{})) {
			if line[0] != ' ' {
				got = append(got, strings.TrimSpace(line))
			}
		}
		if len(got) == n {
			t.Errorf("split %d reads nothing", split)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func BenchmarkRead(b *testing.B) {
	p := nexmark.NewPrinter(nexmark.NewGenerator(1, 100_000), 0)
	var text []byte
	for range 100_000 {
		if line, k := p.AppendCSV(nil); k == nexmark.Bid {
			text = append(text, line...)
		}
	}
	fs := vfs.Default
	dir := b.TempDir()
	write(b, fs, dir+"/bid.csv", text)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		s := source(b, fs, nexmark.Schema(nexmark.Bid), nil, map[string]string{"path": dir, "format": "csv"})
		if err := s.Open(context.Background(), nil); err != nil {
			b.Fatal(err)
		}
		for {
			m, err := s.Read(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			if m.Kind == dataflow.KindEnd {
				break
			}
		}
		if err := s.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
