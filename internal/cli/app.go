package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
)

// App is a program.
type App struct {
	Name     string
	Short    string
	Long     string
	Version  string
	Commands []Command
	Planned  []string // words and --flags of the design that this release does not have: W6006 in place of "unknown"
	IO       IO
}

// Main runs a command line and returns the exit code.
func (a *App) Main(ctx context.Context, args []string) int {
	root := a.Tree()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil {
		report(a.IO.Err, err, formatIn(args))
	}
	return ExitCode(err)
}

// formatIn finds -o by itself, because an error may be about the very flags.
func formatIn(args []string) string {
	for i, arg := range args {
		if arg == "--" {
			break
		}
		for _, name := range []string{"--output", "-o"} {
			if arg == name && i+1 < len(args) {
				return args[i+1]
			}
			if v, ok := strings.CutPrefix(arg, name); ok && v != "" {
				return strings.TrimPrefix(v, "=")
			}
		}
	}
	return FormatTable
}

// Tree is the table as the parser's commands.
func (a *App) Tree() *cobra.Command {
	root := a.node("", &Command{Name: a.Name, Short: a.Short, Long: a.Long, Subs: a.Commands})
	for _, f := range globals() {
		define(root.PersistentFlags(), f)
		a.completeFlag(root, f)
	}
	root.Version = a.Version
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetOut(a.IO.Out)
	root.SetErr(a.IO.Err)
	root.SetIn(a.IO.In)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(a.flagError)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		if text, ok := a.Help(strings.Fields(cmd.CommandPath())[1:]); ok {
			fmt.Fprint(a.IO.Out, text)
		}
	})
	// The table has a help command of its own; the parser's must not take its place.
	for _, c := range root.Commands() {
		if c.Name() == "help" {
			root.SetHelpCommand(c)
		}
	}
	return root
}

func (a *App) node(parent string, c *Command) *cobra.Command {
	path := strings.TrimSpace(parent + " " + c.Name)
	cmd := &cobra.Command{
		Use: c.Name, Aliases: c.Aliases, Short: c.Short, Long: c.Long, Hidden: c.Hidden,
		SilenceErrors: true, SilenceUsage: true, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return a.run(cmd, c, path, args) },
	}
	for _, f := range c.flags() {
		define(cmd.Flags(), f)
		a.completeFlag(cmd, f)
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(c.Args) == 0 || len(args) >= len(c.Args) && !c.Args[len(c.Args)-1].Many {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		arg := c.Args[min(len(args), len(c.Args)-1)]
		return a.candidates(cmd, path, args, arg.Values, arg.Complete, prefix)
	}
	for i := range c.Subs {
		cmd.AddCommand(a.node(path, &c.Subs[i]))
	}
	return cmd
}

func define(set *pflag.FlagSet, f Flag) {
	// pflag takes the word in backquotes for the value's name.
	help := f.Help
	switch f.Kind {
	case BoolFlag:
		set.BoolP(f.Name, f.Short, f.Default == "true", help)
	case IntFlag:
		n, _ := strconv.Atoi(f.Default)
		set.IntP(f.Name, f.Short, n, help)
	case DurationFlag:
		d, _ := time.ParseDuration(f.Default)
		set.DurationP(f.Name, f.Short, d, help)
	case ListFlag:
		set.StringArrayP(f.Name, f.Short, nil, help)
	default:
		set.StringP(f.Name, f.Short, f.Default, help)
	}
}

// completionPatience is short: a shell that hangs on Tab is worse than one that completes nothing.
const completionPatience = time.Second

func (a *App) candidates(cmd *cobra.Command, path string, args, values []string, live Completer, prefix string) ([]string, cobra.ShellCompDirective) {
	if values == nil && live == nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	if live != nil {
		parent := cmd.Context()
		if parent == nil {
			parent = context.Background()
		}
		ctx, cancel := context.WithTimeout(parent, completionPatience)
		defer cancel()
		call := a.call(cmd, path, args)
		values = append(slices.Clone(values), live(ctx, call)...)
	}
	var out []string
	for _, v := range values {
		if strings.HasPrefix(v, prefix) {
			out = append(out, v)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *App) completeFlag(cmd *cobra.Command, f Flag) {
	if f.Values == nil && f.Complete == nil {
		return
	}
	// It fails only for a flag that does not exist or is registered twice, which the tree's own test would see.
	_ = cmd.RegisterFlagCompletionFunc(f.Name, func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return a.candidates(cmd, cmd.CommandPath(), args, f.Values, f.Complete, prefix)
	})
}

func (a *App) call(cmd *cobra.Command, path string, args []string) *Call {
	c := &Call{IO: a.IO, App: a, Path: path, Args: args, flags: cmd.Flags()}
	c.Format, c.Quiet = c.Text("output"), c.Bool("quiet")
	return c
}

func (a *App) run(cmd *cobra.Command, c *Command, path string, args []string) error {
	for _, f := range append(globals(), c.flags()...) {
		if f.Values == nil {
			continue
		}
		if v, _ := cmd.Flags().GetString(f.Name); v != "" && !slices.Contains(f.Values, v) {
			e := errs.New(errs.BadFlag, "--%s does not take %q: it wants one of %s", f.Name, v, strings.Join(f.Values, ", "))
			e.Hint = nearest.Hint(v, f.Values)
			return e
		}
	}
	if c.Run == nil {
		if len(args) > 0 {
			return a.unknownCommand(c, path, args[0])
		}
		text, _ := a.Help(strings.Fields(path)[1:])
		fmt.Fprint(a.IO.Out, text)
		return nil
	}
	if err := a.checkArgs(c, path, args); err != nil {
		return err
	}
	return c.Run(cmd.Context(), a.call(cmd, path, args))
}

func (a *App) checkArgs(c *Command, path string, args []string) error {
	usage := func(e *errs.Error) error {
		if e.Hint == "" {
			e.Hint = "usage: " + c.usage(path)
		}
		return e
	}
	required, many := 0, false
	for _, arg := range c.Args {
		if !arg.Optional {
			required++
		}
		many = many || arg.Many
	}
	if len(args) < required {
		e := errs.New(errs.BadFlag, "%s needs %s", path, c.Args[len(args)].Name)
		if c.Args[len(args)].Help != "" {
			e = e.WithDetail("%s is %s", c.Args[len(args)].Name, c.Args[len(args)].Help)
		}
		if len(args) == 1 && len(c.Subs) > 0 {
			e.Hint = a.nearSub(c, args[0])
		}
		return usage(e)
	}
	if len(args) > len(c.Args) && !many {
		e := errs.New(errs.BadFlag, "%s does not take a further argument %q", path, args[len(c.Args)])
		if len(c.Subs) > 0 {
			e.Hint = a.nearSub(c, args[0])
		}
		return usage(e)
	}
	for i, arg := range args {
		spec := c.Args[min(i, len(c.Args)-1)]
		if spec.Values != nil && !slices.Contains(spec.Values, arg) {
			e := errs.New(errs.BadFlag, "%s does not take %q: it wants one of %s", spec.Name, arg, strings.Join(spec.Values, ", "))
			e.Hint = nearest.Hint(arg, spec.Values)
			return usage(e)
		}
	}
	return nil
}

func (a *App) nearSub(c *Command, word string) string { return nearest.Hint(word, subNames(c)) }

func subNames(c *Command) []string {
	var names, aliases []string
	for i := range c.Subs {
		if !c.Subs[i].Hidden {
			names = append(names, c.Subs[i].Name)
			aliases = append(aliases, c.Subs[i].Aliases...)
		}
	}
	return append(names, aliases...)
}

func (a *App) unknownCommand(c *Command, path, word string) error {
	if path == a.Name && slices.Contains(a.Planned, word) {
		return errs.New(errs.NotBuiltYet, "%s %s is not built yet", path, word).WithHint("`%s help` shows what this release has", a.Name)
	}
	e := errs.New(errs.BadFlag, "%s has no command %q", path, word)
	if hint := a.nearSub(c, word); hint != "" {
		return e.WithHint("%s", hint)
	}
	return e.WithHint("`%s help%s` lists the commands", a.Name, strings.TrimPrefix(path, a.Name))
}

func (a *App) flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
	switch {
	case errors.As(err, &unknown):
		name := "--" + unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			name = "-" + unknown.GetSpecifiedName()
		}
		if slices.Contains(a.Planned, name) {
			return errs.New(errs.NotBuiltYet, "%s is not built yet", name)
		}
		e := errs.New(errs.BadFlag, "%s has no flag %s", cmd.CommandPath(), name)
		if hint := nearest.Hint(name, known); hint != "" && strings.HasPrefix(name, "--") {
			return e.WithHint("%s", hint)
		}
		return e.WithHint("`%s --help` lists the flags", cmd.CommandPath())
	case errors.As(err, &missing):
		return errs.New(errs.BadFlag, "--%s needs a value", missing.GetFlag().Name)
	case errors.As(err, &invalid):
		return errs.New(errs.BadFlag, "--%s does not take %q", invalid.GetFlag().Name, invalid.GetValue()).
			WithHint("it wants a %s", kindName(invalid.GetFlag().Value.Type()))
	}
	return errs.New(errs.BadFlag, "%s: %v", cmd.CommandPath(), err).Because(err)
}

func kindName(pflagType string) string {
	switch pflagType {
	case "bool":
		return "true or false"
	case "int":
		return "whole number"
	case "duration":
		return "duration such as 30s or 5m"
	}
	return pflagType
}

// find walks the table. Aliases count.
func (a *App) find(path []string) (*Command, string, bool) {
	at, full := &Command{Name: a.Name, Short: a.Short, Long: a.Long, Subs: a.Commands}, a.Name
	for _, word := range path {
		i := slices.IndexFunc(at.Subs, func(c Command) bool { return c.Name == word || slices.Contains(c.Aliases, word) })
		if i < 0 {
			return at, full, false
		}
		at = &at.Subs[i]
		full += " " + at.Name
	}
	return at, full, true
}

// Completion writes the script for a shell.
func (a *App) Completion(shell string) error {
	root := a.Tree()
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(a.IO.Out, true)
	case "zsh":
		return root.GenZshCompletion(a.IO.Out)
	case "fish":
		return root.GenFishCompletion(a.IO.Out, true)
	case "pwsh", "powershell":
		return root.GenPowerShellCompletionWithDesc(a.IO.Out)
	}
	return errs.New(errs.BadFlag, "there is no completion for %q", shell).WithHint("bash, zsh, fish and pwsh are there")
}
