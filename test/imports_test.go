// Package test holds what concerns the whole tree.
package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/weirstream/weir"

// floors is section 2 of docs/design.md: a package imports its own floor and those below. The longest prefix counts.
func floors() map[string]int {
	return map[string]int{
		"internal": 1, "engine/row": 1, "engine/changelog": 1, "engine/watermark": 1, "cdc/postgres/pgoutput": 1, "sql/parser": 1, "docs": 1,
		"engine/expr": 2, "engine/state": 2, "cdc/snapshot": 2, "raft": 2,
		"engine/dataflow": 3, "engine/exchange": 3, "engine/checkpoint": 3,
		"cdc": 4, "joins": 4, "engine/operator": 4, "engine/table": 4, "engine/window": 4, "engine/cep": 4, "sinks": 4,
		"engine/worker": 5, "sql/plan": 5, "stream": 5,
		"coordinator": 6, "sql/pgwire": 6, "ui": 6,
		"cmd": 7, "test": 7, "examples": 7, "internal/cli": 7, "internal/scratch": 7,
	}
}

func floorName(n int) string {
	return []string{"", "words", "machinery", "contract", "parts", "assembly", "control", "wiring"}[n]
}

// shells may use the machine directly: they are what Env is made of, or what no simulator runs.
func shells() []string {
	return []string{"cmd", "test", "examples", "internal/env", "internal/cli", "internal/scratch"}
}

// exception lets one package use one name, for a reason that is read in review.
type exception struct{ pkg, name, reason string }

func exceptions() []exception {
	return nil
}

// forbidden are the names through which code reaches the machine behind Env's back. "*" forbids a package except for
// the names in allowed.
func forbidden() map[string][]string {
	return map[string][]string{
		"time":         {"Now", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Since", "Until"},
		"math/rand":    {"*"},
		"math/rand/v2": {"*"},
		"crypto/rand":  {"*"},
		"os":           {"*"},
		"os/exec":      {"*"},
		"os/signal":    {"*"},
		"io/ioutil":    {"*"},
		"net": {"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialUnix", "DialIP", "Dialer", "Listen", "ListenPacket", "ListenTCP", "ListenUDP",
			"ListenUnix", "ListenConfig", "ListenIP", "LookupHost", "LookupIP", "LookupAddr", "LookupPort", "LookupCNAME", "LookupSRV", "LookupTXT",
			"Resolver", "DefaultResolver", "ResolveTCPAddr", "ResolveUDPAddr", "Interfaces", "InterfaceAddrs"},
		"net/http": {"Get", "Head", "Post", "PostForm", "ListenAndServe", "ListenAndServeTLS", "DefaultClient", "DefaultTransport"},
	}
}

// allowed are constants, types and errors, and generators that are as random as their seed.
func allowed() map[string][]string {
	rand := []string{"Rand", "Source", "PCG", "ChaCha8", "Zipf", "New", "NewPCG", "NewChaCha8", "NewZipf", "NewSource"}
	return map[string][]string{
		"os": {"ErrNotExist", "ErrExist", "ErrPermission", "ErrClosed", "ErrDeadlineExceeded", "ErrInvalid", "ErrProcessDone", "IsNotExist", "IsExist",
			"FileMode", "FileInfo", "ModePerm", "ModeDir", "ModeType", "PathError", "SyscallError", "DirEntry", "PathSeparator", "DevNull",
			"O_RDONLY", "O_WRONLY", "O_RDWR", "O_APPEND", "O_CREATE", "O_EXCL", "O_SYNC", "O_TRUNC", "File"},
		"math/rand": rand, "math/rand/v2": rand,
	}
}

// inTree tells whether pkg is prefix or lies below it.
func inTree(pkg, prefix string) bool { return pkg == prefix || strings.HasPrefix(pkg, prefix+"/") }

func floorOf(pkg string) (floor int, prefix string) {
	for p, f := range floors() {
		if inTree(pkg, p) && len(p) > len(prefix) {
			floor, prefix = f, p
		}
	}
	return floor, prefix
}

// partOf is the part that a package of floor 4 belongs to: cdc/postgres/doctor is part of cdc/postgres.
func partOf(pkg string) string {
	words := strings.Split(pkg, "/")
	if words[0] == "joins" {
		return "joins"
	}
	return strings.Join(words[:min(2, len(words))], "/")
}

// refuseImport says why a package must not import another of this module, or "".
func refuseImport(from, to string) string {
	have, _ := floorOf(from)
	want, _ := floorOf(to)
	switch {
	case have == 0:
		return fmt.Sprintf("%s is on no floor: name it in docs/design.md section 2 and in test/imports_test.go", from)
	case want == 0:
		return fmt.Sprintf("%s imports %s, which is on no floor: name it in docs/design.md section 2 and in test/imports_test.go", from, to)
	case want > have:
		return fmt.Sprintf("%s (floor %d, %s) imports %s (floor %d, %s): imports go down, so that the lower one can be tested and understood without the upper; declare an interface where it is consumed",
			from, have, floorName(have), to, want, floorName(want))
	case have == 4 && want == 4 && partOf(from) != partOf(to):
		return fmt.Sprintf("%s imports %s: parts never import each other, so that each can be replaced; what they share belongs to a floor below", from, to)
	}
	return ""
}

// refuseUse says why a package must not use a name of the standard library, or "".
func refuseUse(pkg, lib, name string, inTest bool) string {
	if inTest {
		if lib == "time" && name == "Sleep" {
			return fmt.Sprintf("a test of %s calls time.Sleep: wait for the condition, or use testing/synctest; a sleep is too short on a busy machine and too long on every other", pkg)
		}
		return ""
	}
	if slices.ContainsFunc(shells(), func(s string) bool { return inTree(pkg, s) }) {
		return ""
	}
	names := forbidden()[lib]
	if !slices.Contains(names, name) && (!slices.Contains(names, "*") || slices.Contains(allowed()[lib], name)) {
		return ""
	}
	if slices.ContainsFunc(exceptions(), func(e exception) bool { return e.pkg == pkg && e.name == path.Base(lib)+"."+name }) {
		return ""
	}
	return fmt.Sprintf("%s uses %s.%s: time, chance, disk, network and goroutines come from *env.Env, so that a simulator owns all of them", pkg, lib, name)
}

// inspect lists what is wrong with one file.
func inspect(pkg string, fset *token.FileSet, f *ast.File, inTest bool) []string {
	var out []string
	report := func(n ast.Node, why string) {
		if why != "" {
			out = append(out, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), why))
		}
	}
	libs := map[string]string{} // name in the file -> import path
	// In a test whose clock is virtual a sleep takes no time.
	virtual := inTest && slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` })
	for _, spec := range f.Imports {
		lib, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		if to, ours := strings.CutPrefix(lib, module+"/"); ours {
			if !inTest { // tests may reach up and sideways: test/env, other parts to compare with
				report(spec, refuseImport(pkg, to))
			}
			continue
		}
		if forbidden()[lib] == nil {
			continue
		}
		name := path.Base(lib)
		if name == "v2" {
			name = "rand"
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if name == "." {
			report(spec, "a dot import of "+lib+" hides what is used of it")
		}
		libs[name] = lib
	}
	goAllowed := inTest || slices.ContainsFunc(shells(), func(s string) bool { return inTree(pkg, s) }) ||
		slices.ContainsFunc(exceptions(), func(e exception) bool { return e.pkg == pkg && e.name == "go" })
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			if !goAllowed {
				report(n, pkg+" has a go statement: Env.Go starts goroutines, so that they are awaited and a panic in one is not silent")
			}
		case *ast.SelectorExpr:
			// An identifier that the parser has resolved is a variable of that name, not the package.
			if x, ok := n.X.(*ast.Ident); ok && libs[x.Name] != "" && x.Obj == nil {
				if why := refuseUse(pkg, libs[x.Name], n.Sel.Name, inTest); !virtual || n.Sel.Name != "Sleep" {
					report(n, why)
				}
			}
		}
		return true
	})
	return out
}

func TestImportsAndMachine(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); file != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || name == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, rel, text, parser.ParseComments)
		if err != nil {
			t.Errorf("%v", err)
			return nil
		}
		files++
		for _, problem := range inspect(path.Dir(rel), fset, f, strings.HasSuffix(rel, "_test.go")) {
			t.Error(problem)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Errorf("only %d files were found below %s", files, root)
	}
}

func TestExceptionsAreReasoned(t *testing.T) {
	for _, e := range exceptions() {
		if e.pkg == "" || e.name == "" || len(e.reason) < 20 {
			t.Errorf("exception %+v has no reason", e)
		}
	}
}

// The rules themselves: each line is a package, a file of it, and what must be said about it.
func TestRules(t *testing.T) {
	head := "package x\n"
	for _, c := range []struct{ pkg, text, want string }{
		{"engine/changelog", `import "` + module + `/engine/dataflow"`, "engine/changelog (floor 1, words) imports engine/dataflow (floor 3, contract)"},
		{"raft", `import "` + module + `/coordinator"`, "imports go down"},
		{"cdc/postgres", `import "` + module + `/sinks/postgres"`, "parts never import each other"},
		{"cdc/postgres", `import "` + module + `/cdc/mysql"`, "parts never import each other"},
		{"cdc/postgres/doctor", `import "` + module + `/cdc/postgres/selection"`, ""},
		{"cdc/postgres", `import "` + module + `/cdc/postgres/pgoutput"`, ""},
		{"joins", `import "` + module + `/engine/window"`, "parts never import each other"},
		{"coordinator/http", `import "` + module + `/coordinator"`, ""},
		{"internal/secrets", `import "` + module + `/internal/cli"`, "floor 7, wiring"},
		{"newpart", `import "` + module + `/internal/env"`, "newpart is on no floor"},
		{"cmd/weir", `import "` + module + `/newpart"`, "newpart, which is on no floor"},
		{"cmd/weir", `import "` + module + `/coordinator/http"`, ""},
		{"raft", "import \"time\"\nvar x = time.Now()", "raft uses time.Now"},
		{"raft", "import clock \"time\"\nvar x = clock.Since", "raft uses time.Since"},
		{"raft", "import \"time\"\nvar x time.Duration = time.Second", ""},
		{"raft", "import \"time\"\nfunc f(time struct{ Now int }) int { return time.Now }", ""},
		{"cmd/weir", "import \"time\"\nvar x = time.Now()", ""},
		{"internal/env", "import \"os\"\nfunc f() { go os.Exit(1) }", ""},
		{"raft", "import \"os\"\nvar x = os.Getenv(\"A\")", "raft uses os.Getenv"},
		{"raft", "import \"os\"\nvar x = os.ErrNotExist", ""},
		{"raft", "import \"math/rand/v2\"\nvar x = rand.IntN(3)", "math/rand/v2.IntN"},
		{"raft", "import \"math/rand/v2\"\nvar x *rand.Rand = rand.New(rand.NewPCG(1, 2))", ""},
		{"raft", "import \"crypto/rand\"\nvar x = rand.Reader", "crypto/rand.Reader"},
		{"raft", "import \"net\"\nvar x, _ = net.Dial(\"tcp\", \"\")", "net.Dial"},
		{"raft", "import \"net\"\nvar x net.Conn; var y = net.JoinHostPort(\"\", \"\")", ""},
		{"raft", "import . \"os\"\nvar x = Getenv", "a dot import of os"},
		{"raft", "func f() { go f() }", "raft has a go statement"},
		{"internal/cli", "func f() { go f() }", ""},
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, "x.go", head+c.text, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(inspect(c.pkg, fset, f, false), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s:\n%s\nsaid %q, want %q", c.pkg, c.text, got, c.want)
		}
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "x_test.go", head+"import \"time\"\nfunc f() { go f(); time.Sleep(time.Now().Sub(time.Now())) }", 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := inspect("raft", fset, f, true); len(got) != 1 || !strings.Contains(got[0], "calls time.Sleep") {
		t.Errorf("a test that sleeps: %v", got)
	}
	f, err = parser.ParseFile(fset, "x_test.go", head+"import (\"time\"; \"testing/synctest\")\nfunc f() { synctest.Test(nil, nil); time.Sleep(1) }", 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := inspect("raft", fset, f, true); len(got) != 0 {
		t.Errorf("a test that sleeps in virtual time: %v", got)
	}
}
