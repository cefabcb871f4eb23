package errs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
)

// constants reads the codes from the source, so that a code added without an entry is noticed.
func constants(t *testing.T) map[string]Code {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]Code{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, name := range spec.Names {
			value, err := strconv.Unquote(spec.Values[i].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatalf("%s: %v", name.Name, err)
			}
			codes[name.Name] = Code(value)
		}
		return true
	})
	return codes
}

func TestCatalogHoldsEveryCode(t *testing.T) {
	codes := constants(t)
	if len(codes) < 40 {
		t.Fatalf("only %d codes were found in codes.go", len(codes))
	}
	seen := map[string]bool{}
	for _, e := range Catalog() {
		if codes[e.Name] != e.Code {
			t.Errorf("entry %s %s: codes.go says %q", e.Code, e.Name, codes[e.Name])
		}
		if seen[e.Name] {
			t.Errorf("%s has two entries", e.Name)
		}
		seen[e.Name] = true
		if e.Title == "" || e.Meaning == "" || e.Do == "" || e.Code.Part() == "" {
			t.Errorf("entry %s is not complete", e.Code)
		}
	}
	for name, code := range codes {
		if !seen[name] {
			t.Errorf("%s (%s) has no entry in catalog.go", name, code)
		}
	}
	if !sort.SliceIsSorted(Catalog(), func(i, j int) bool { return Catalog()[i].Code < Catalog()[j].Code }) {
		t.Error("the catalog is not in order")
	}
}

func TestPagesAreCurrent(t *testing.T) {
	dir := filepath.Join("..", "..", "docs", "errors")
	want := map[string]string{"README.md": IndexMarkdown()}
	for _, e := range Catalog() {
		want[string(e.Code)+".md"] = e.Markdown()
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := want[f.Name()]; !ok {
			t.Errorf("docs/errors/%s belongs to no code", f.Name())
		}
	}
	for name, text := range want {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != text {
			t.Errorf("docs/errors/%s is not current; run `make docs`", name)
		}
	}
}

func TestLookupAndText(t *testing.T) {
	e, ok := Lookup("w1003")
	if !ok || e.Code != SlotLost {
		t.Fatalf("Lookup(w1003) = %v, %v", e, ok)
	}
	text := e.Text()
	if !strings.HasPrefix(text, "W1003: the replication slot is lost\n\nWhat it means\n  The source server removed log") {
		t.Errorf("text begins\n%s", text)
	}
	for _, line := range strings.Split(text, "\n") {
		if len(line) > 100 {
			t.Errorf("line of %d characters: %s", len(line), line)
		}
	}
	for _, code := range []Code{SlotLost, SlotGap} {
		if hint := New(code, "x").Hint; !strings.Contains(hint, "weir pipelines delete NAME --wait") {
			t.Errorf("%s does not say how to copy anew: %q", code, hint)
		}
	}
	if _, ok := Lookup("W9999"); ok {
		t.Error("W9999 was found")
	}
}
