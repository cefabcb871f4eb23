package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/weirstream/weir/internal/errs"
)

// Help is the text for a command named by its words, and whether there is such a command.
func (a *App) Help(path []string) (string, bool) {
	c, full, ok := a.find(path)
	if !ok {
		return "", false
	}
	var b strings.Builder
	b.WriteString(c.Short + "\n")
	if c.Long != "" {
		b.WriteString("\n" + wrap(c.Long, 100) + "\n")
	}
	b.WriteString("\nUsage\n")
	if c.Run != nil {
		fmt.Fprintf(&b, "  %s\n", c.usage(full))
	}
	if len(c.Subs) > 0 {
		fmt.Fprintf(&b, "  %s COMMAND\n", full)
	}
	section(&b, "Commands", subRows(c))
	section(&b, "Arguments", argRows(c))
	section(&b, "Flags", flagRows(c.flags()))
	if len(path) == 0 {
		section(&b, "Flags of every command", flagRows(globals()))
		b.WriteString("\nExit codes\n  0 done · 1 failure · 2 rejected input · 3 environment unreachable · 4 wait timed out · 10 the answer is no\n")
	}
	if len(c.Examples) > 0 {
		b.WriteString("\nExamples\n")
		for _, e := range c.Examples {
			fmt.Fprintf(&b, "  %s\n", e.Line)
			if e.Says != "" {
				fmt.Fprintf(&b, "      %s\n", e.Says)
			}
		}
	}
	if len(path) > 0 {
		fmt.Fprintf(&b, "\n`%s help` lists the flags of every command.\n", a.Name)
	} else {
		fmt.Fprintf(&b, "\n`%s help COMMAND` shows one command, `%s help W1003` explains an error.\n", a.Name, a.Name)
	}
	return b.String(), true
}

// PrintHelp is the help command: of nothing, a command, or an error code. A code's entry is a record, for which -o holds;
// a command's help is text.
func (a *App) PrintHelp(call *Call) error {
	words := call.Args
	if len(words) == 1 {
		if e, ok := errs.Lookup(words[0]); ok {
			return PrintRecord(call, e, string(e.Code), func(w io.Writer) { fmt.Fprint(w, e.Text()) })
		}
		if w := strings.ToUpper(words[0]); len(w) == 5 && w[0] == 'W' && strings.Trim(w[1:], "0123456789") == "" {
			return errs.New(errs.BadFlag, "there is no error code %s", w)
		}
	}
	text, ok := a.Help(words)
	if !ok {
		c, full, _ := a.find(words)
		return a.unknownCommand(c, full, words[len(strings.Fields(full))-1])
	}
	_, err := fmt.Fprint(a.IO.Out, text)
	return err
}

func section(b *strings.Builder, title string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	t := Table{Rows: rows}
	fmt.Fprintf(b, "\n%s\n", title)
	for _, line := range strings.Split(strings.TrimRight(t.String(), "\n"), "\n") {
		fmt.Fprintf(b, "  %s\n", line)
	}
}

func subRows(c *Command) [][]string {
	var rows [][]string
	for _, s := range c.Subs {
		if s.Hidden {
			continue
		}
		name := s.Name
		if len(s.Aliases) > 0 {
			name += " (" + strings.Join(s.Aliases, ", ") + ")"
		}
		rows = append(rows, []string{name, s.Short})
	}
	return rows
}

func argRows(c *Command) [][]string {
	var rows [][]string
	for _, a := range c.Args {
		rows = append(rows, []string{a.Name, a.help()})
	}
	return rows
}

func (a Arg) help() string {
	if len(a.Values) > 0 {
		return strings.TrimSpace(a.Help + " (" + strings.Join(a.Values, ", ") + ")")
	}
	return a.Help
}

func flagRows(flags []Flag) [][]string {
	var rows [][]string
	for _, f := range flags {
		rows = append(rows, []string{f.spelling(), f.describe()})
	}
	return rows
}

func (f Flag) spelling() string {
	s := "    --" + f.Name
	if f.Short != "" {
		s = "-" + f.Short + ", --" + f.Name
	}
	if f.Kind != BoolFlag {
		s += " " + f.value()
	}
	return s
}

func (f Flag) value() string {
	if f.Value != "" {
		return f.Value
	}
	return strings.ToUpper(f.Name)
}

func (f Flag) describe() string {
	s := f.Help
	if len(f.Values) > 0 {
		s += ": " + strings.Join(f.Values, ", ")
	}
	if f.Default != "" && f.Kind != BoolFlag {
		s += " (default " + f.Default + ")"
	}
	return s
}

func wrap(s string, width int) string {
	var out []string
	for _, line := range strings.Split(s, "\n") {
		for len(line) > width {
			i := strings.LastIndexByte(line[:width], ' ')
			if i <= 0 {
				break
			}
			out, line = append(out, line[:i]), line[i+1:]
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}
