// Package cli is the command line's one table. A program is a slice of Commands; the parser, the help, the completion of
// four shells, the manual pages and docs/cli.md are all made from it, so that none of them can say something else than
// the program does.
//
// It is a shell package: it reads the terminal, the clock and signals. What a command does belongs elsewhere.
package cli

import "context"

// Command is one row of the table.
type Command struct {
	Name     string
	Aliases  []string
	Short    string // one line without a full stop
	Long     string // paragraphs
	Args     []Arg
	Flags    []Flag
	Uses     Uses
	Examples []Example
	Hidden   bool
	Subs     []Command
	Run      func(ctx context.Context, c *Call) error // nil: only Subs
}

// Arg is one positional argument.
type Arg struct {
	Name     string // in capitals
	Help     string
	Optional bool
	Many     bool // the last one may repeat
	Values   []string
	Complete Completer
}

// Completer gives live candidates. It is called with a short deadline and may fail silently: completion must not print.
type Completer func(ctx context.Context, c *Call) []string

// FlagKind is the type of a flag's value.
type FlagKind uint8

// The kinds.
const (
	TextFlag FlagKind = iota
	BoolFlag
	IntFlag
	DurationFlag
	ListFlag // may be given several times
)

// Flag is one option of a command.
type Flag struct {
	Name     string
	Short    string // one letter
	Kind     FlagKind
	Value    string // what stands for the value in help: GLOB
	Default  string
	Values   []string // the only ones allowed
	Help     string
	Complete Completer
}

// Uses says which of the flags that mean the same everywhere a command honours. A command does not take the others: a
// --dry-run that is silently ignored destroys something.
type Uses uint8

// The shared flags.
const (
	UsesWatch  Uses = 1 << iota // --watch
	UsesWait                    // --wait and --timeout
	UsesDryRun                  // --dry-run
	UsesYes                     // --yes
	UsesSet                     // --set
)

// Example is a command line and what it does.
type Example struct {
	Line string
	Says string
}

// Formats of -o.
const (
	FormatTable  = "table"
	FormatWide   = "wide"
	FormatJSON   = "json"
	FormatYAML   = "yaml"
	FormatNDJSON = "ndjson"
	FormatCSV    = "csv"
	FormatName   = "name"
)

func formats() []string {
	return []string{FormatTable, FormatWide, FormatJSON, FormatYAML, FormatNDJSON, FormatCSV, FormatName}
}

// globals are the flags of every command.
func globals() []Flag {
	return []Flag{
		{Name: "output", Short: "o", Value: "FORMAT", Default: FormatTable, Values: formats(), Help: "form of the output"},
		{Name: "addr", Value: "HOST:PORT", Help: "server to talk to (default: the one of --state; without either 127.0.0.1:7070)"},
		{Name: "state", Value: "DIR", Default: "weir-state", Help: "state directory"},
		{Name: "quiet", Short: "q", Kind: BoolFlag, Help: "print results and errors only"},
		{Name: "no-color", Kind: BoolFlag, Help: "no colours (also: the environment variable NO_COLOR)"},
		{Name: "log-level", Value: "LEVEL", Default: "warn", Values: []string{"debug", "info", "warn", "error"}, Help: "what is logged to standard error"},
		{Name: "log-format", Value: "FORMAT", Default: "text", Values: []string{"text", "json"}, Help: "form of the log"},
	}
}

func (u Uses) flags() []Flag {
	var out []Flag
	add := func(bit Uses, flags ...Flag) {
		if u&bit != 0 {
			out = append(out, flags...)
		}
	}
	add(UsesSet, Flag{Name: "set", Kind: ListFlag, Value: "KEY=VALUE", Help: "set an option (docs/options.md); may be given several times"})
	add(UsesDryRun, Flag{Name: "dry-run", Kind: BoolFlag, Help: "show what would be done and change nothing"})
	add(UsesYes, Flag{Name: "yes", Short: "y", Kind: BoolFlag, Help: "do not ask; needed when nobody can be asked"})
	add(UsesWatch, Flag{Name: "watch", Short: "w", Kind: BoolFlag, Help: "show again every two seconds until interrupted"})
	add(UsesWait, Flag{Name: "wait", Kind: BoolFlag, Help: "return only when it is done"},
		Flag{Name: "timeout", Kind: DurationFlag, Value: "DURATION", Default: "5m", Help: "how long to wait; exit code 4 after that"})
	return out
}

// flags are all flags of the command except the global ones.
func (c *Command) flags() []Flag { return append(append([]Flag{}, c.Flags...), c.Uses.flags()...) }

// usage is the command line in short form, after the path.
func (c *Command) usage(path string) string {
	s := path
	for _, a := range c.Args {
		name := a.Name
		if a.Many {
			name += "..."
		}
		if a.Optional {
			name = "[" + name + "]"
		}
		s += " " + name
	}
	if len(c.flags()) > 0 {
		s += " [flags]"
	}
	return s
}
