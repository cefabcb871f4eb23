package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirstream/weir/internal/errs"
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
		t.Errorf("%s differs (go test ./internal/cli -update):\n--- got\n%s\n--- want\n%s", name, got, want)
	}
}

type boat struct {
	Name  string   `json:"name"`
	Tons  int64    `json:"tons"`
	Crew  []string `json:"crew"`
	Flags string   `json:"flags"`
}

// screen is a program with its input and output in memory.
type screen struct {
	app      *App
	out, err bytes.Buffer
	env      map[string]string
	fail     error
	seen     *Call
}

func newScreen() *screen {
	s := &screen{env: map[string]string{}}
	boats := List[boat]{
		Rows:  []boat{{"ann", 12_400, []string{"x", "y"}, "true"}, {"beatrix", 3, nil, "a,b"}},
		Name:  func(b boat) string { return b.Name },
		Empty: "no boats",
		Columns: []Column[boat]{
			{Head: "NAME", Cell: func(b boat) string { return b.Name }},
			{Head: "GROSS TONS", Right: true, Cell: func(b boat) string { return Count(b.Tons) }, Raw: func(b boat) string { return fmt.Sprint(b.Tons) }},
			{Head: "FLAGS", Wide: true, Cell: func(b boat) string { return b.Flags }},
		},
	}
	s.app = &App{
		Name: "fleet", Short: "fleet keeps boats", Long: "A program for tests.", Version: "fleet 1", Planned: []string{"submarines", "--deep"},
		IO: IO{In: strings.NewReader(""), Out: &s.out, Err: &s.err,
			Getenv: func(k string) (string, bool) { v, ok := s.env[k]; return v, ok },
			Now:    func() time.Time { return time.Unix(1000, 0) },
			Sleep: func(ctx context.Context, d time.Duration) error {
				timer := time.NewTimer(d)
				defer timer.Stop()
				select {
				case <-timer.C:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}},
		Commands: []Command{
			{Name: "boats", Aliases: []string{"b"}, Short: "Boats", Subs: []Command{
				{Name: "list", Aliases: []string{"ls"}, Short: "List boats", Uses: UsesWatch, Run: func(ctx context.Context, c *Call) error {
					return c.Watch(ctx, func(_ context.Context, c *Call) error { return PrintList(c, boats) })
				}},
				{Name: "get", Short: "Show a boat", Args: []Arg{{Name: "NAME", Help: "a boat", Complete: func(context.Context, *Call) []string { return []string{"ann", "beatrix"} }}},
					Run: func(_ context.Context, c *Call) error {
						return PrintRecord(c, boats.Rows[0], c.Arg(0), func(w io.Writer) { fmt.Fprintf(w, "boat %s\n", c.Arg(0)) })
					}},
				{Name: "sink", Short: "Sink a boat", Args: []Arg{{Name: "NAME"}}, Uses: UsesYes | UsesDryRun, Run: func(_ context.Context, c *Call) error {
					if err := c.Confirm("sinks " + c.Arg(0)); err != nil {
						return err
					}
					c.Next("swim")
					return nil
				}},
			}},
			{Name: "sail", Short: "Sail", Long: "Goes from one place\nto others, with a.b and .c.", Args: []Arg{{Name: "FROM", Help: "a harbour"}, {Name: "TO", Many: true, Optional: true}},
				Flags: []Flag{{Name: "knots", Short: "k", Kind: IntFlag, Value: "N", Default: "5", Help: "speed"},
					{Name: "rig", Values: []string{"sloop", "ketch"}, Default: "sloop", Help: "kind of rig"},
					{Name: "via", Kind: ListFlag, Value: "PLACE", Help: "a place on the way"}},
				Uses:     UsesWait,
				Examples: []Example{{"fleet sail a b", "from a to b"}},
				Run: func(_ context.Context, c *Call) error {
					s.seen = c
					return s.fail
				}},
			{Name: "secretly", Short: "Hidden", Hidden: true, Run: func(context.Context, *Call) error { return nil }},
			{Name: "help", Short: "Help", Args: []Arg{{Name: "TOPIC", Optional: true, Many: true}}, Run: func(_ context.Context, c *Call) error { return c.App.PrintHelp(c) }},
		},
	}
	return s
}

func (s *screen) run(args ...string) int { return s.app.Main(context.Background(), args) }

func TestHelpAndDocs(t *testing.T) {
	for name, args := range map[string][]string{
		"help_root": {}, "help_group": {"boats"}, "help_sail": {"sail", "--help"}, "help_words": {"help", "boats", "sink"}, "help_code": {"help", "w6001"},
	} {
		s := newScreen()
		if code := s.run(args...); code != 0 || s.err.Len() > 0 {
			t.Errorf("%s: exit code %d, %s", name, code, s.err.String())
		}
		golden(t, name, s.out.String())
	}
	s := newScreen()
	golden(t, "markdown", s.app.Markdown())
	var man strings.Builder
	for _, name := range []string{"fleet.1", "fleet-sail.1"} {
		man.WriteString(s.app.Man()[name])
	}
	golden(t, "man", man.String())
	if _, ok := s.app.Man()["fleet-secretly.1"]; ok {
		t.Error("a hidden command has a manual page")
	}
}

func TestBadCommandLines(t *testing.T) {
	for _, c := range []struct {
		args       []string
		code       errs.Code
		text, hint string
	}{
		{[]string{"boat"}, errs.BadFlag, `fleet has no command "boat"`, "did you mean boats?"},
		{[]string{"boats", "lst"}, errs.BadFlag, `fleet boats has no command "lst"`, "did you mean list?"},
		{[]string{"zeppelin"}, errs.BadFlag, `fleet has no command "zeppelin"`, "`fleet help` lists the commands"},
		{[]string{"submarines"}, errs.NotBuiltYet, "fleet submarines is not built yet", ""},
		{[]string{"sail", "a", "--deep"}, errs.NotBuiltYet, "--deep is not built yet", ""},
		{[]string{"sail", "a", "--knot", "3"}, errs.BadFlag, "fleet sail has no flag --knot", "did you mean --knots?"},
		{[]string{"sail", "a", "-z"}, errs.BadFlag, "fleet sail has no flag -z", "`fleet sail --help` lists the flags"},
		{[]string{"sail", "a", "--knots", "fast"}, errs.BadFlag, `--knots does not take "fast"`, "it wants a whole number"},
		{[]string{"sail", "a", "--knots"}, errs.BadFlag, "--knots needs a value", ""},
		{[]string{"sail", "a", "--rig", "slop"}, errs.BadFlag, `--rig does not take "slop": it wants one of sloop, ketch`, "did you mean sloop?"},
		{[]string{"sail", "a", "-o", "jsn"}, errs.BadFlag, `--output does not take "jsn"`, "did you mean json?"},
		{[]string{"sail"}, errs.BadFlag, "fleet sail needs FROM", "usage: fleet sail FROM [TO...] [flags]"},
		{[]string{"boats", "get", "a", "b"}, errs.BadFlag, `fleet boats get does not take a further argument "b"`, "usage: fleet boats get NAME"},
		{[]string{"boats", "get", "a", "--dry-run"}, errs.BadFlag, "fleet boats get has no flag --dry-run", "`fleet boats get --help` lists the flags"},
		{[]string{"help", "bots"}, errs.BadFlag, `fleet has no command "bots"`, "did you mean boats?"},
		{[]string{"help", "W9999"}, errs.BadFlag, "there is no error code W9999", ""},
	} {
		s := newScreen()
		code := s.run(c.args...)
		got := s.err.String()
		if code != ExitRejected || s.out.Len() > 0 || !strings.HasPrefix(got, "error["+string(c.code)+"]: "+c.text) {
			t.Errorf("%v: exit code %d, out %q, err\n%s", c.args, code, s.out.String(), got)
		}
		if c.hint != "" && !strings.Contains(got, "  hint: "+c.hint+"\n") {
			t.Errorf("%v: want the hint %q in\n%s", c.args, c.hint, got)
		}
	}
}

func TestErrorsInJSON(t *testing.T) {
	for _, o := range [][]string{{"-o", "json"}, {"-ojson"}, {"--output=json"}, {"--output", "ndjson"}} {
		s := newScreen()
		s.run(append([]string{"sail", "a", "--knot", "3"}, o...)...)
		want := `{"code":"W6001","message":"fleet sail has no flag --knot","hint":"did you mean --knots?"}` + "\n"
		if s.err.String() != want || s.out.Len() > 0 {
			t.Errorf("%v: %s", o, s.err.String())
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
		says string
	}{
		{nil, 0, ""},
		{errors.New("odd"), 1, "error[W3001]: odd\n"},
		{errs.New(errs.TargetRejected, "x"), 1, "error[W4003]"},
		{errs.New(errs.AddressBusy, "x"), 1, "error[W6005]"},
		{errs.New(errs.SQLSyntax, "x"), 2, "error[W2001]"},
		{errs.New(errs.SourcePreflight, "x"), 2, "error[W1002]"},
		{errs.New(errs.PipelineNotFound, "x"), 2, "error[W3002]"},
		{fmt.Errorf("wrapped: %w", errs.New(errs.SourceUnreachable, "x")), 3, "error[W1001]"},
		{errs.New(errs.NotReachable, "x"), 3, "error[W5003]"},
		{errTimeout{2 * time.Minute}, 4, "error[W3005]: waited 2m in vain"},
		{No("they differ"), 10, "they differ\n"},
		{Exit{10}, 10, ""},
		{errs.New(errs.NotCaughtUp, "x"), 10, "error[W3005]"},
		{context.Canceled, 130, "interrupted\n"},
	} {
		s := newScreen()
		s.fail = c.err
		code := s.run("sail", "a")
		if code != c.want || !strings.HasPrefix(s.err.String(), c.says) || c.says == "" && s.err.Len() > 0 {
			t.Errorf("%v: exit code %d, want %d; printed %q", c.err, code, c.want, s.err.String())
		}
	}
}

func TestFlagsReachTheCommand(t *testing.T) {
	s := newScreen()
	if code := s.run("sail", "a", "b", "c", "-k", "7", "--via", "x,y", "--via", "z", "--timeout", "3s", "--rig=ketch", "-q"); code != 0 {
		t.Fatal(s.err.String())
	}
	c := s.seen
	if got := fmt.Sprintln(c.Args, c.Int("knots"), c.List("via"), c.Duration("timeout"), c.Text("rig"), c.Quiet, c.Given("rig"), c.Given("output"), c.Path, c.Arg(7)); got !=
		"[a b c] 7 [x,y z] 3s ketch true true false fleet sail \n" {
		t.Errorf("got %s", got)
	}
}

func TestFormats(t *testing.T) {
	var b strings.Builder
	for _, f := range formats() {
		s := newScreen()
		if code := s.run("boats", "ls", "-o", f); code != 0 {
			t.Fatal(s.err.String())
		}
		fmt.Fprintf(&b, "== list %s\n%s", f, s.out.String())
		s = newScreen()
		if code := s.run("b", "get", "ann", "-o", f); code != 0 {
			t.Fatal(s.err.String())
		}
		fmt.Fprintf(&b, "== get %s\n%s", f, s.out.String())
	}
	golden(t, "formats", b.String())
}

func TestEmptyLists(t *testing.T) {
	for format, want := range map[string][2]string{"table": {"", "none\n"}, "json": {"[]\n", ""}, "yaml": {"[]\n", ""}, "ndjson": {"", ""}, "csv": {"a\n", ""}, "name": {"", ""}} {
		var out, stderr bytes.Buffer
		c := &Call{IO: IO{Out: &out, Err: &stderr}, Format: format}
		err := PrintList(c, List[int]{Empty: "none", Columns: []Column[int]{{Head: "A", Cell: func(int) string { return "" }}}})
		if err != nil || out.String() != want[0] || stderr.String() != want[1] {
			t.Errorf("%s: %q, %q, %v", format, out.String(), stderr.String(), err)
		}
	}
}

func TestConfirm(t *testing.T) {
	for _, c := range []struct {
		name, input string
		terminal    bool
		args        []string
		code        int
		says        string
	}{
		{"yes flag", "", false, []string{"--yes"}, 0, "next: swim\n"},
		{"nobody to ask", "y\n", false, nil, 2, "error[W6001]: sinks ann: this needs --yes when nobody can be asked\n"},
		{"yes", "yes\n", true, nil, 0, "sinks ann\ngo on? [y/N] next: swim\n"},
		{"no", "n\n", true, nil, 10, "sinks ann\ngo on? [y/N] nothing was changed\n"},
		{"end of input", "", true, nil, 10, "sinks ann\ngo on? [y/N] nothing was changed\n"},
		{"quiet", "", false, []string{"-y", "-q"}, 0, ""},
		{"json", "", false, []string{"-y", "-o", "json"}, 0, ""},
	} {
		s := newScreen()
		s.app.IO.In = strings.NewReader(c.input)
		s.app.IO.InTerminal, s.app.IO.ErrTerminal = c.terminal, c.terminal
		code := s.run(append([]string{"boats", "sink", "ann"}, c.args...)...)
		if got := s.err.String(); code != c.code || !strings.HasPrefix(got, c.says) || c.says == "" && got != "" {
			t.Errorf("%s: exit code %d, %q", c.name, code, got)
		}
	}
}

func TestCompletion(t *testing.T) {
	complete := func(args ...string) string {
		s := newScreen()
		s.run(append([]string{"__complete"}, args...)...)
		lines, _, _ := strings.Cut(s.out.String(), "\n:")
		return lines
	}
	for want, args := range map[string][]string{
		"ann\nbeatrix":   {"boats", "get", ""},
		"beatrix":        {"b", "get", "b"},
		"sloop\nketch":   {"sail", "a", "--rig", ""},
		"json":           {"sail", "a", "-o", "j"},
		"boats\tBoats":   {"bo"},
		"--knots\tspeed": {"sail", "--kn"},
	} {
		if got := complete(args...); got != want {
			t.Errorf("%v completes to %q, want %q", args, got, want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "pwsh"} {
		s := newScreen()
		if err := s.app.Completion(shell); err != nil || !strings.Contains(s.out.String(), "fleet") {
			t.Errorf("%s: %v", shell, err)
		}
	}
	if err := newScreen().app.Completion("tcsh"); !errs.Is(err, errs.BadFlag) {
		t.Errorf("tcsh: %v", err)
	}
}

func TestWatchAndWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen()
		s.app.IO.OutTerminal = true
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if code := s.app.Main(ctx, []string{"boats", "list", "--watch"}); code != 0 {
			t.Errorf("exit code %d: %s", code, s.err.String())
		}
		if n := strings.Count(s.out.String(), "\x1b[H\x1b[2JNAME"); n != 3 {
			t.Errorf("%d screens in five seconds, want 3:\n%q", n, s.out.String())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScreen()
		s.app.Commands[1].Run = func(ctx context.Context, c *Call) error {
			wait, cancel := c.Waiting(ctx)
			defer cancel()
			<-wait.Done()
			return Waited(wait, wait.Err())
		}
		if code := s.run("sail", "a", "--wait", "--timeout", "90s"); code != ExitTimeout || !strings.Contains(s.err.String(), "waited 1m30s in vain") {
			t.Errorf("exit code %d: %s", code, s.err.String())
		}
	})
}

func TestVersionFlag(t *testing.T) {
	s := newScreen()
	if code := s.run("--version"); code != 0 || s.out.String() != "fleet 1\n" {
		t.Errorf("%d %q", code, s.out.String())
	}
}

func TestColours(t *testing.T) {
	for _, c := range []struct {
		env      map[string]string
		terminal bool
		args     []string
		want     bool
	}{
		{nil, true, nil, true}, {nil, false, nil, false}, {map[string]string{"NO_COLOR": "1"}, true, nil, false},
		{map[string]string{"TERM": "dumb"}, true, nil, false}, {nil, true, []string{"--no-color"}, false},
	} {
		s := newScreen()
		s.env = c.env
		s.app.IO.OutTerminal = c.terminal
		s.run(append([]string{"sail", "a"}, c.args...)...)
		if got := s.seen.Paint(Bad, "x") != "x"; got != c.want {
			t.Errorf("%+v: coloured %v", c, got)
		}
	}
}

func TestUnits(t *testing.T) {
	for want, got := range map[string]string{
		"–": Bytes(-1), "0 B": Bytes(0), "1023 B": Bytes(1023), "1 KiB": Bytes(1024), "1.5 KiB": Bytes(1536), "1 MiB": Bytes(1<<20 - 1),
		"118 GiB": Bytes(118 << 30), "8 EiB": Bytes(1<<63 - 1),
		"999": Count(999), "1k": Count(1000), "12.4k": Count(12_400), "1M": Count(999_990), "184k": Count(184_220),
		"0.3 rows/s": RowRate(0.3), "12.4k rows/s": RowRate(12_432), "55 MiB/s": ByteRate(55 << 20), "0 rows/s": RowRate(0),
		"180ms": Took(180 * time.Millisecond), "40µs": Took(40 * time.Microsecond), "2m10s": Took(130 * time.Second), "3d4h": Took(76 * time.Hour),
		"1.5s": Took(1500 * time.Millisecond), "59s": Took(59*time.Second + 900*time.Millisecond), "1h": Took(time.Hour + 20*time.Second),
		"now": Ago(time.Unix(10, 0), time.Unix(11, 0)), "9s ago": Ago(time.Unix(10, 0), time.Unix(1, 0)), "1 table": Plural(1, "table"), "2 tables": Plural(2, "table"),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if Millis(-1) != Unknown || Seconds(-1) != Unknown || Ago(time.Unix(9, 0), time.Time{}) != Unknown || RowRate(-1) != Unknown {
		t.Error("what is not known is not shown as such")
	}
}

func TestTableAlignment(t *testing.T) {
	tab := Table{Head: []string{"A", "BB"}, Right: []bool{false, true}, Rows: [][]string{{paint(Good, "ü"), "1"}, {"long", paint(Bad, "22") + paint(Warn, "3")}}}
	want := "A      BB\n\x1b[32mü\x1b[0m       1\nlong  \x1b[31m22\x1b[0m\x1b[33m3\x1b[0m\n"
	if got := tab.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
