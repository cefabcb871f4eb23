package files_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format"
	"github.com/weirstream/weir/internal/format/formattest"
	"github.com/weirstream/weir/internal/format/parquet"
	"github.com/weirstream/weir/internal/format/record"
	"github.com/weirstream/weir/internal/with"
	"github.com/weirstream/weir/sinks/files"
	"github.com/weirstream/weir/test/conform"
)

// batch reads rows, a line each: the weight, then the columns; - is NULL.
func batch(t *testing.T, s row.Schema, text string) *row.Batch {
	t.Helper()
	b := row.NewBuilder(s.Types())
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		var weight int64
		if _, err := fmt.Sscan(fields[0], &weight); err != nil {
			t.Fatal(err)
		}
		for i, f := range s {
			if fields[i+1] == "-" {
				b.Cols[i].AppendNull(f.Type.Layout())
			} else if err := row.ParseText(b.Cols[i], f.Type, []byte(fields[i+1]), nil); err != nil {
				t.Fatal(err)
			}
		}
		b.EndRow(weight)
	}
	return b.Seal()
}

// tree gives the files below dir by their paths.
func tree(t *testing.T, fs vfs.FS, dir string, all bool) map[string]string {
	t.Helper()
	out := map[string]string{}
	names, err := fs.List(dir)
	if err != nil {
		return out
	}
	for _, name := range names {
		if name[0] == '.' && !all {
			continue
		}
		path := fs.PathJoin(dir, name)
		info, err := fs.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			for p, text := range tree(t, fs, path, all) {
				out[p] = text
			}
			continue
		}
		f, err := fs.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		out[path] = string(text)
	}
	return out
}

func parse(t *testing.T, schema row.Schema, partitions []string, values map[string]string) (files.Options, error) {
	t.Helper()
	return files.ParseOptions(schema, partitions, with.New(values, nil))
}

func TestConform(t *testing.T) {
	schema := formattest.Schema("id INT, day STRING")
	for _, c := range []struct {
		name   string
		tables int
		parts  []string
		size   string
	}{{"one file", 1, nil, ""}, {"partitions", 1, []string{"day"}, ""}, {"two tables", 2, nil, ""}, {"many files", 1, nil, "1b"}} {
		t.Run(c.name, func(t *testing.T) {
			rows := func(n dataflow.Checkpoint, table int) string {
				return fmt.Sprintf("1 %d%d1 x\n1 %d%d2 y\n2 %d%d3 x\n", n, table, n, table, n, table)
			}
			conform.TestFileSink(t, conform.FileSink{
				New: func(t *testing.T, e *env.Env) dataflow.Sink {
					var tables []files.Options
					for i := range c.tables {
						values := map[string]string{"path": fmt.Sprintf("/out/t%d", i), "format": "csv"}
						if c.size != "" {
							values["sink.rolling-policy.file-size"] = c.size
						}
						o, err := parse(t, schema, c.parts, values)
						if err != nil {
							t.Fatal(err)
						}
						tables = append(tables, o)
					}
					s, err := files.New(e, tables...)
					if err != nil {
						t.Fatal(err)
					}
					return s
				},
				Changes: func(n dataflow.Checkpoint) dataflow.Changes {
					b := &conform.Batches{}
					for table := range c.tables {
						for line := range strings.Lines(rows(n, table)) {
							b.Tables, b.Rows = append(b.Tables, table), append(b.Rows, batch(t, schema, line))
						}
					}
					return b
				},
				Visible: func(t *testing.T, fs vfs.FS) []string {
					var out []string
					for path, text := range tree(t, fs, "/out", false) {
						for line := range strings.Lines(text) {
							_, table, _ := strings.Cut(path, "/t")
							id, _, _ := strings.Cut(strings.TrimSpace(line), ",")
							out = append(out, table[:1]+" "+id)
						}
					}
					return out
				},
				Want: func(n dataflow.Checkpoint) []string {
					var out []string
					for k := dataflow.Checkpoint(1); k <= n; k++ {
						for table := range c.tables {
							for _, id := range []int{1, 2, 3, 3} {
								out = append(out, fmt.Sprintf("%d %d%d%d", table, k, table, id))
							}
						}
					}
					return out
				},
				Whole: c.name == "one file",
				Apart: c.tables > 1,
			})
		})
	}
}

// More directories than files may be open at once.
func TestManyPartitions(t *testing.T) {
	e := env.Real(nil)
	e.FS = vfs.NewMem()
	schema := formattest.Schema("id INT, part INT")
	o, err := parse(t, schema, []string{"part"}, map[string]string{"path": "/out", "format": "csv"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := files.New(e, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(context.Background(), 1, 0); err != nil {
		t.Fatal(err)
	}
	changes := &conform.Batches{}
	want := map[string]int{}
	for n := range 3 {
		b := row.NewBuilder(schema.Types())
		for i := range 700 {
			b.Cols[0].Int64 = append(b.Cols[0].Int64, int64(n*1000+i))
			b.Cols[1].Int64 = append(b.Cols[1].Int64, int64(i%350))
			b.EndRow(1)
			want[fmt.Sprintf("/out/part=%d/ %d", i%350, n*1000+i)]++
		}
		changes.Tables, changes.Rows = append(changes.Tables, 0), append(changes.Rows, b.Seal())
	}
	if err := s.Publish(context.Background(), 1, changes); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for path, text := range tree(t, e.FS, "/out", false) {
		for line := range strings.Lines(text) {
			got[path[:strings.LastIndexByte(path, '/')+1]+" "+strings.TrimSpace(line)]++
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d rows are there, want %d", len(got), len(want))
	}
}

// A format that keeps rows until its file ends is published in the same way.
func TestParquet(t *testing.T) {
	e := env.Real(nil)
	e.FS = vfs.NewMem()
	schema := formattest.Schema("id INT, day STRING")
	o, err := parse(t, schema, []string{"day"}, map[string]string{"path": "/out", "format": "parquet"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := files.New(e, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(context.Background(), 1, 0); err != nil {
		t.Fatal(err)
	}
	changes := &conform.Batches{Tables: []int{0, 0}, Rows: []*row.Batch{batch(t, schema, "1 1 a\n1 2 b\n"), batch(t, schema, "2 3 a\n")}}
	if err := s.Publish(context.Background(), 1, changes); err != nil {
		t.Fatal(err)
	}
	f, err := parquet.New(schema[:1], nil, parquet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for path, text := range tree(t, e.FS, "/out", false) {
		r, err := f.NewReader(format.File{ReaderAt: strings.NewReader(text), Size: int64(len(text))}, format.Position{})
		if err != nil {
			t.Fatal(err)
		}
		b := row.NewBuilder(schema[:1].Types())
		if err := r.Read(b, 10); err != nil {
			t.Fatal(err)
		}
		got[path] = strings.Join(formattest.Lines(schema[:1], b.Seal()), " ")
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	want := map[string]string{"/out/day=a/part-00000000000000000001-0.parquet": "1 3 3", "/out/day=b/part-00000000000000000001-1.parquet": "2"}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestStories: "table" makes a sink of a schema (first line) with options (further lines); "open" and "publish" are the
// sink's methods; "tree" shows the files.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		e := env.Real(nil)
		e.FS = vfs.NewMem()
		var schema row.Schema
		var s *files.Sink
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
				var parts []string
				if d.HasArg("partitioned") {
					var names string
					d.ScanArgs(t, "partitioned", &names)
					parts = strings.Split(names, "+")
				}
				o, err := parse(t, schema, parts, values)
				if err != nil {
					return err.Error()
				}
				if d.HasArg("pipeline") {
					d.ScanArgs(t, "pipeline", &o.Pipeline)
				}
				if s, err = files.New(e, o); err != nil {
					return err.Error()
				}
				return "ok"
			case "open":
				var gen uint64
				d.ScanArgs(t, "generation", &gen)
				last, err := s.Open(context.Background(), dataflow.Generation(gen), 0)
				if err != nil {
					return err.Error()
				}
				return fmt.Sprintf("checkpoint %d", last)
			case "publish":
				var c uint64
				d.ScanArgs(t, "checkpoint", &c)
				changes := &conform.Batches{}
				for part := range strings.SplitSeq(d.Input, "\n-\n") {
					changes.Tables, changes.Rows = append(changes.Tables, 0), append(changes.Rows, batch(t, schema, part))
				}
				if err := s.Publish(context.Background(), dataflow.Checkpoint(c), changes); err != nil {
					if r, ok := errs.As(err); ok {
						return err.Error() + "\n" + r.Hint
					}
					return err.Error()
				}
				return "ok"
			case "tree":
				all := tree(t, e.FS, "/", d.HasArg("all"))
				var out bytes.Buffer
				var paths []string
				for p := range all {
					paths = append(paths, p)
				}
				slices.Sort(paths)
				for _, p := range paths {
					fmt.Fprintf(&out, "%s\n", p)
					if strings.HasSuffix(p, ".weir-ledger") {
						fmt.Fprintf(&out, "  %s, %s\n", all[p][:4], all[p][record.HeaderSize:])
						continue
					}
					for line := range strings.Lines(all[p]) {
						fmt.Fprintf(&out, "  %s", line)
					}
				}
				return out.String()
			case "write":
				f, err := e.FS.Create(d.CmdArgs[0].Key, vfs.WriteCategoryUnspecified)
				if err != nil {
					return err.Error()
				}
				if _, err := f.Write([]byte(d.Input)); err != nil {
					return err.Error()
				}
				return fmt.Sprint(f.Close())
			case "remove":
				return fmt.Sprint(e.FS.Remove(d.CmdArgs[0].Key))
			}
			return "unknown command"
		})
	})
}
