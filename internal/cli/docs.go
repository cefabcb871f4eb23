package cli

import (
	"fmt"
	"strings"
)

// each visits the commands that are shown, in the order of the table, parents first.
func (a *App) each(visit func(path string, c *Command)) {
	var walk func(parent string, c *Command)
	walk = func(parent string, c *Command) {
		path := strings.TrimSpace(parent + " " + c.Name)
		visit(path, c)
		for i := range c.Subs {
			if !c.Subs[i].Hidden {
				walk(path, &c.Subs[i])
			}
		}
	}
	walk("", &Command{Name: a.Name, Short: a.Short, Long: a.Long, Subs: a.Commands})
}

// Markdown is docs/cli.md.
func (a *App) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The command line\n\n%s. This page is made from the same table as `%s help`.\n\n## Flags of every command\n\n", a.Short, a.Name)
	markdownFlags(&b, globals())
	b.WriteString("\n## Exit codes\n\n| Code | Meaning |\n|---|---|\n")
	for _, row := range exitTable() {
		fmt.Fprintf(&b, "| %s | %s |\n", row[0], row[1])
	}
	a.each(func(path string, c *Command) {
		if path == a.Name {
			return
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n", path, c.Short)
		if len(c.Aliases) > 0 {
			fmt.Fprintf(&b, "\nAlso: `%s`.\n", strings.Join(c.Aliases, "`, `"))
		}
		if c.Long != "" {
			b.WriteString("\n" + c.Long + "\n")
		}
		if c.Run != nil {
			fmt.Fprintf(&b, "\n```text\n%s\n```\n", c.usage(path))
		}
		for i, arg := range c.Args {
			if i == 0 {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "- `%s` %s\n", arg.Name, arg.help())
		}
		if flags := c.flags(); len(flags) > 0 {
			b.WriteByte('\n')
			markdownFlags(&b, flags)
		}
		if len(c.Examples) > 0 {
			b.WriteString("\n```sh\n")
			for _, e := range c.Examples {
				if e.Says != "" {
					fmt.Fprintf(&b, "# %s\n", e.Says)
				}
				fmt.Fprintf(&b, "%s\n", e.Line)
			}
			b.WriteString("```\n")
		}
	})
	return b.String()
}

func exitTable() [][2]string {
	return [][2]string{
		{"0", "done"},
		{"1", "failure"},
		{"2", "rejected input: the command line, a file, or a preflight finding"},
		{"3", "environment unreachable: the source, the target or the server does not answer"},
		{"4", "wait timed out"},
		{"10", "the answer is no: a difference was found, the target has not caught up, a question was declined"},
		{"130, 143", "interrupted before it was done (130), or ended at once by a second signal"},
	}
}

func markdownFlags(b *strings.Builder, flags []Flag) {
	b.WriteString("| Flag | Meaning |\n|---|---|\n")
	for _, f := range flags {
		fmt.Fprintf(b, "| `%s` | %s |\n", strings.TrimSpace(f.spelling()), strings.ReplaceAll(f.describe(), "|", "\\|"))
	}
}

// Man gives the manual pages by file name.
func (a *App) Man() map[string]string {
	pages := map[string]string{}
	a.each(func(path string, c *Command) {
		name := strings.ReplaceAll(path, " ", "-")
		var b strings.Builder
		fmt.Fprintf(&b, ".TH %s 1\n.SH NAME\n%s \\- %s\n.SH SYNOPSIS\n", roff(strings.ToUpper(name)), roff(name), roff(c.Short))
		if c.Run != nil {
			fmt.Fprintf(&b, ".B %s\n", roff(c.usage(path)))
		} else {
			fmt.Fprintf(&b, ".B %s COMMAND\n", roff(path))
		}
		if c.Long != "" {
			fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n", roff(c.Long))
		}
		manRows(&b, "COMMANDS", subRows(c))
		manRows(&b, "ARGUMENTS", argRows(c))
		manRows(&b, "OPTIONS", flagRows(c.flags()))
		manRows(&b, "COMMON OPTIONS", flagRows(globals()))
		if len(c.Examples) > 0 {
			b.WriteString(".SH EXAMPLES\n")
			for _, e := range c.Examples {
				fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(e.Line), roff(e.Says))
			}
		}
		b.WriteString(".SH EXIT STATUS\n")
		for _, row := range exitTable() {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(row[0]), roff(row[1]))
		}
		pages[name+".1"] = b.String()
	})
	return pages
}

func manRows(b *strings.Builder, title string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	for _, r := range rows {
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(strings.TrimSpace(r[0])), roff(r[1]))
	}
}

// roff escapes what the formatter would take for a command of its own.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			l = `\&` + l
		}
		if l == "" {
			l = ".PP"
		}
		lines[i] = l
	}
	return strings.Join(lines, "\n")
}
