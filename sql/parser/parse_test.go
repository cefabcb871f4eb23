package parser

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/weirstream/weir/internal/errs"
)

// The stories in testdata: `parse` prints the canonical form of a script, `expr` the tree of an expression before it, and
// both the error as the user sees it.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "parse":
				script, err := Parse("mirror.sql", d.Input)
				if err != nil {
					return rendered(err)
				}
				var b strings.Builder
				for _, s := range script.Statements {
					fmt.Fprintf(&b, "%d:%d %T\n", s.Position().Line, s.Position().Column, s)
				}
				return b.String() + Print(script)
			case "expr":
				x, err := ParseExpr("x.sql", d.Input)
				if err != nil {
					return rendered(err)
				}
				return dump(reflect.ValueOf(x)) + "\n" + PrintNode(x) + "\n"
			}
			return "unknown command " + d.Cmd
		})
	})
}

func rendered(err error) string {
	e, ok := errs.As(err)
	if !ok {
		return "not an error record: " + err.Error()
	}
	return e.Render()
}

// dump writes a tree with all that is not empty, so that a story shows what was read and not only how it prints.
func dump(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		return dump(v.Elem())
	case reflect.Slice:
		if b, ok := v.Interface().([]byte); ok {
			return fmt.Sprintf("%x", b)
		}
		if n, ok := v.Interface().(Name); ok {
			return n.String()
		}
		var parts []string
		for i := range v.Len() {
			parts = append(parts, dump(v.Index(i)))
		}
		return "[" + strings.Join(parts, " ") + "]"
	case reflect.Struct:
		switch x := v.Interface().(type) {
		case Ident:
			return quoteIdent(x.Text)
		case Literal:
			return quoteString(x.Text)
		}
		var parts []string
		for i := range v.NumField() {
			f := v.Field(i)
			if f.Type() != reflect.TypeFor[Pos]() && !f.IsZero() {
				part := dump(f)
				if f.Kind() == reflect.Bool {
					part = v.Type().Field(i).Name
				}
				parts = append(parts, part)
			}
		}
		return v.Type().Name() + "(" + strings.Join(parts, " ") + ")"
	}
	return fmt.Sprint(v.Interface())
}

// storyTexts are the inputs of all stories; expressions are made queries of.
func storyTexts(t testing.TB) []string {
	paths, err := filepath.Glob("testdata/stories/*")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	var out []string
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split("\n"+string(b), "\nparse\n")[1:] {
			input, _, _ := strings.Cut(block, "\n----")
			out = append(out, input)
		}
		for _, block := range strings.Split("\n"+string(b), "\nexpr\n")[1:] {
			input, _, _ := strings.Cut(block, "\n----")
			out = append(out, "SELECT "+input)
		}
	}
	return out
}

// TestStoriesPrintBack: what the stories hold comes back from its printed form.
func TestStoriesPrintBack(t *testing.T) {
	n := 0
	for _, text := range storyTexts(t) {
		script, err := Parse("x.sql", text)
		if err != nil {
			continue
		}
		n++
		printed := Print(script)
		again, err := Parse("x.sql", printed)
		if err != nil {
			t.Errorf("%v\n%s", err, printed)
		} else if !same(script, again) {
			t.Errorf("read\n%s\nprinted\n%s\nand read back\n%s", text, printed, Print(again))
		} else if twice := Print(again); twice != printed {
			t.Errorf("printed\n%s\nand then\n%s", printed, twice)
		}
	}
	if n < 50 {
		t.Errorf("only %d stories parse", n)
	}
}

func same(a, b *Script) bool {
	if len(a.Statements) != len(b.Statements) {
		return false
	}
	for i := range a.Statements {
		if !Equal(a.Statements[i], b.Statements[i]) {
			return false
		}
	}
	return true
}

func TestMirrorPrintParsesBack(t *testing.T) {
	text := rapid.String().Filter(func(s string) bool { return !strings.ContainsRune(s, 0) })
	full := text.Filter(func(s string) bool { return s != "" })
	lit := rapid.Custom(func(t *rapid.T) Literal { return Literal{Text: text.Draw(t, "text")} })
	ident := rapid.Custom(func(t *rapid.T) Ident {
		return Ident{Text: rapid.OneOf(full, rapid.SampledFrom([]string{"shop", "from", "TO", "a$1", "1a"})).Draw(t, "name")}
	})
	end := rapid.Custom(func(t *rapid.T) Endpoint {
		if rapid.Bool().Draw(t, "named") {
			return Endpoint{Name: ident.Draw(t, "n")}
		}
		return Endpoint{URL: Literal{Text: full.Draw(t, "url")}}
	})
	some := func(t *rapid.T, name string) []Literal {
		if l := rapid.SliceOfN(lit, 0, 3).Draw(t, name); len(l) > 0 {
			return l
		}
		return nil
	}
	properties := func(t *rapid.T, atLeast int) []Property {
		var out []Property
		for _, key := range rapid.SliceOfNDistinct(text, atLeast, 3, rapid.ID[string]).Draw(t, "keys") {
			out = append(out, Property{Literal{Text: key}, lit.Draw(t, "value")})
		}
		return out
	}
	rapid.Check(t, func(t *rapid.T) {
		mirror := &CreateMirror{Name: ident.Draw(t, "name"), From: end.Draw(t, "from"), To: end.Draw(t, "to"),
			Tables: some(t, "tables"), Except: some(t, "except"), ExcludeColumns: some(t, "columns"), Properties: properties(t, 0)}
		for range rapid.IntRange(0, 3).Draw(t, "routes") {
			mirror.Routes = append(mirror.Routes, Route{lit.Draw(t, "from"), lit.Draw(t, "to")})
		}
		for range rapid.IntRange(0, 3).Draw(t, "filters") {
			mirror.Filters = append(mirror.Filters, Filter{lit.Draw(t, "table"), lit.Draw(t, "where")})
		}
		want := &Script{Statements: []Statement{
			&Set{Key: lit.Draw(t, "key"), Value: lit.Draw(t, "value")},
			&CreateConnection{Name: ident.Draw(t, "conn"), Properties: properties(t, 1)},
			mirror,
		}}
		got, err := Parse("x.sql", Print(want))
		if err != nil {
			t.Fatalf("%v\n%s", err, Print(want))
		}
		if !same(got, want) {
			t.Fatalf("printed\n%s\nand read back\n%s", Print(want), Print(got))
		}
	})
}

func TestPositions(t *testing.T) {
	text := "SET 'a' = 'b';\n\n/* x\n */ CREATE MIRROR \"Ü\" FROM 'ß' TO copy\n\tTABLES 'p.*';"
	s, err := Parse("x.sql", text)
	if err != nil {
		t.Fatal(err)
	}
	m := s.Statements[1].(*CreateMirror)
	for _, c := range []struct {
		name      string
		got       Pos
		line, col int
		begins    string
	}{
		{"statement", m.Pos, 4, 5, "CREATE"},
		{"name", m.Name.Pos, 4, 19, `"Ü"`},
		{"from", m.From.Pos(), 4, 28, "'ß'"},
		{"to", m.To.Pos(), 4, 35, "copy"},
		{"tables", m.Tables[0].Pos, 5, 9, "'p.*'"},
	} {
		if c.got.Line != c.line || c.got.Column != c.col || !strings.HasPrefix(text[c.got.Offset:], c.begins) {
			t.Errorf("%s stands at %+v, want %d:%d", c.name, c.got, c.line, c.col)
		}
	}
	if p := Locate("x.sql", text, m.Tables[0].Pos); p.Source != " TABLES 'p.*';" || p.Line != 5 {
		t.Errorf("Locate = %+v", p)
	}
}

func TestErrorsHideSecrets(t *testing.T) {
	for _, text := range []string{
		"CREATE MIRROR m FROM 'postgres://ann:hun@ter2é@db/shop' X b;",
		"CREATE MIRROR m FROM 'postgres:ann:hunter2@db/shop' X b;",
		"CREATE MIRROR m FROM 'postgresql:/ann:hunter2@db/shop' X b;",
		"CREATE MIRROR m FROM a 'postgres://ann:hunter2@db/shop';",
		"CREATE CONNECTION c WITH ('password' = 'hunter2' 'x' = 'y');",
		"CREATE MIRROR m FROM 'host=db password=hunter2' X b;",
		"CREATE MIRROR m FROM 'postgres://db/shop?password=hunter2&a=b' X b;",
		"CREATE CONNECTION c WITH ('url' = 'postgres://ann:hunter2@db",
	} {
		_, err := Parse("x.sql", text)
		e, ok := errs.As(err)
		if !ok {
			t.Fatalf("%s: %v", text, err)
		}
		if r := e.Render(); strings.Contains(r, "ter2") {
			t.Errorf("leaked:\n%s", r)
		}
		if got, want := len([]rune(e.Pos.Source)), len([]rune(text)); got != want {
			t.Errorf("the line shown has %d characters, that of the file %d", got, want)
		}
	}
}

func TestTooLarge(t *testing.T) {
	if _, err := Parse("x.sql", strings.Repeat(" ", MaxBytes+1)); !errs.Is(err, errs.SQLSyntax) {
		t.Errorf("error %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range storyTexts(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		script, err := Parse("x.sql", text)
		if err != nil {
			e, ok := errs.As(err)
			if !ok || e.Pos == nil || e.Pos.Line < 1 || e.Pos.Column < 1 {
				t.Fatalf("an error without a place: %v", err)
			}
			return
		}
		again, err := Parse("x.sql", Print(script))
		if err != nil {
			t.Fatalf("the printed form does not parse: %v\n%s", err, Print(script))
		}
		if !same(script, again) {
			t.Fatalf("the printed form means something else:\n%s\n%s", text, Print(again))
		}
	})
}
