package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirstream/weir/internal/format/record"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test ./cmd/weir -update):\n--- got\n%s\n--- want\n%s", name, got, want)
	}
}

func TestDebugRecords(t *testing.T) {
	f := newFixture(t)
	file := filepath.Join(f.dir, "records")
	a := record.Format{Magic: record.Magic{'W', 'A', 'A', 'A'}, Version: 1, Limit: 100}
	b := record.Format{Magic: record.Magic{'W', 'B', 'B', 'B'}, Version: 3, Limit: 100}
	bytes := b.Append(a.Append(nil, []byte("hello")), []byte("a longer payload that is cut\n"))
	write := func(text []byte) {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(bytes)
	golden(t, "records", f.want(t, 0, "debug", "records", file, "--bytes", "8"))
	bytes[len(bytes)-1]++
	write(bytes)
	f.want(t, 1, "debug", "records", file)
	if !strings.Contains(f.err.String(), "error[W5002]") || !strings.Contains(f.err.String(), "offset 21: record fails its checksum") || !strings.Contains(f.out.String(), "WAAA") {
		t.Errorf("printed %s%s", f.out.String(), f.err.String())
	}
	write(bytes[:len(bytes)-3])
	f.want(t, 1, "debug", "records", file)
	write([]byte("ab"))
	f.want(t, 1, "debug", "records", file)
}
