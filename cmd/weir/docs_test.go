package main

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// snippet is a fenced block of a page.
type snippet struct {
	path, lang, text string
	line             int
}

// documentation reads the pages of the tree, and the fenced blocks in them.
func documentation(t *testing.T) (pages map[string]string, snippets []snippet) {
	t.Helper()
	pages = map[string]string{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".git") || d.Name() == "testdata" || d.Name() == "node_modules" || d.Name() == "build") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		pages[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range pages {
		var open *snippet
		for i, line := range strings.Split(text, "\n") {
			fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
			switch {
			case isFence && open == nil:
				open = &snippet{path: path, lang: fence, line: i + 2}
			case isFence:
				snippets = append(snippets, *open)
				open = nil
			case open != nil:
				open.text += line + "\n"
			}
		}
		if open != nil {
			t.Errorf("%s:%d: the block has no end", path, open.line)
		}
	}
	return pages, snippets
}

// quotedCommand is a command line in running text.
var quotedCommand = regexp.MustCompile("`((?:bin/)?weir [^`\n]+)`")

// TestDocumentedCommands parses every command line of the documentation with the command table. Nothing is run.
func TestDocumentedCommands(t *testing.T) {
	pages, snippets := documentation(t)
	n := 0
	try := func(where, line string) {
		for _, words := range commandsOf(line) {
			n++
			if err := parses(words); err != "" {
				t.Errorf("%s: %s\n%s", where, strings.Join(words, " "), err)
			}
		}
	}
	for _, s := range snippets {
		if s.lang != "sh" && s.lang != "ini" {
			continue
		}
		for _, line := range strings.Split(s.text, "\n") {
			try(s.path, strings.TrimPrefix(strings.TrimSpace(line), "ExecStart="))
		}
	}
	for path, text := range pages {
		for _, m := range quotedCommand.FindAllStringSubmatch(text, -1) {
			// In running text a command may stand for all of its kind, and the design speaks of what is not built yet.
			if !strings.HasSuffix(path, "design.md") && !strings.HasSuffix(path, "style.md") && strings.ContainsAny(m[1], "-$/'") {
				try(path, m[1])
			}
		}
	}
	if n < 60 {
		t.Errorf("only %d command lines were found", n)
	}
}

// parses runs a command line through the table with every command's work taken out, and gives what is wrong with it.
func parses(words []string) string {
	var out, errText bytes.Buffer
	app := (&program{version: "test"}).app(cli.IO{
		In: strings.NewReader(""), Out: &out, Err: &errText, Getenv: func(string) (string, bool) { return "", false },
	})
	ran := false
	var disarm func([]cli.Command)
	disarm = func(commands []cli.Command) {
		for i := range commands {
			if commands[i].Run != nil {
				commands[i].Run = func(context.Context, *cli.Call) error { ran = true; return nil }
			}
			disarm(commands[i].Subs)
		}
	}
	disarm(app.Commands)
	if code := app.Main(context.Background(), words); code != 0 {
		return errText.String()
	}
	if help := words[len(words)-1] == "--help"; !ran && !help {
		return "this is not a whole command"
	}
	return ""
}

// TestParses proves that the check can fail.
func TestParses(t *testing.T) {
	for _, line := range []string{"mirror a", "mirror a b --tabels x", "mirorr a b", "pipelines", "mirror a b -o xml", "mirror a b c"} {
		if parses(strings.Fields(line)) == "" {
			t.Errorf("weir %s passes", line)
		}
	}
	for _, line := range []string{"mirror a b -t x --set k=v", "pl ls -w", "mirror --help"} {
		if err := parses(strings.Fields(line)); err != "" {
			t.Errorf("weir %s: %s", line, err)
		}
	}
	got := commandsOf(`A=b weir x 'a b' "c # d" && bin/weir y | jq . > z # weir no`)
	if len(got) != 2 || strings.Join(got[0], "|") != "x|a b|c # d" || strings.Join(got[1], "|") != "y" {
		t.Errorf("read %q", got)
	}
}

// commandsOf takes the words of every weir command out of a line of shell, as far as documentation needs a shell.
func commandsOf(line string) (commands [][]string) {
	var words []string
	var word strings.Builder
	started, quote := false, rune(0)
	end := func() {
		if started {
			words = append(words, word.String())
		}
		word.Reset()
		started = false
	}
	finish := func() {
		end()
		for len(words) > 0 && strings.Contains(words[0], "=") && !strings.HasPrefix(words[0], "-") {
			words = words[1:] // VARIABLE=value in front of the command
		}
		if len(words) > 0 && (words[0] == "weir" || words[0] == "bin/weir" || strings.HasSuffix(words[0], "/bin/weir")) {
			commands = append(commands, words[1:])
		}
		words = nil
	}
	redirected := false
	for _, r := range line {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, started = r, true
		case r == '#' && !started:
			finish()
			return commands
		case r == '|' || r == '&' || r == ';':
			if redirected {
				end()
				words = words[:len(words)-1]
				redirected = false
			}
			finish()
		case r == '>' || r == '<':
			end()
			redirected = true
		case r == ' ' || r == '\t':
			if redirected && started {
				end()
				words = words[:len(words)-1]
				redirected = false
				continue
			}
			end()
		default:
			word.WriteRune(r)
			started = true
		}
	}
	if redirected && started {
		word.Reset()
		started = false
	}
	finish()
	return commands
}

// TestDocumentedFiles parses the files of mirrors that the documentation shows.
func TestDocumentedFiles(t *testing.T) {
	_, snippets := documentation(t)
	n := 0
	for _, s := range snippets {
		if s.lang != "sql" || !strings.Contains(s.text, "CREATE MIRROR") {
			continue
		}
		n++
		if _, err := parser.Parse(s.path, s.text); err != nil {
			t.Errorf("%s:%d: %v", s.path, s.line, err)
		}
	}
	if n == 0 {
		t.Error("no file was found")
	}
}

var codePattern = regexp.MustCompile(`\bW\d{4}\b`)

// TestDocumentedCodes looks every error code up that a page mentions.
func TestDocumentedCodes(t *testing.T) {
	pages, _ := documentation(t)
	n := 0
	for path, text := range pages {
		for _, code := range codePattern.FindAllString(text, -1) {
			n++
			if _, ok := errs.Lookup(code); !ok {
				t.Errorf("%s: there is no error %s", path, code)
			}
		}
	}
	if n < 60 {
		t.Errorf("only %d codes were found", n)
	}
}
