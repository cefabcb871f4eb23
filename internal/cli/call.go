package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/weirstream/weir/internal/errs"
)

// IO is where a program reads and writes.
type IO struct {
	In     io.Reader
	Out    io.Writer
	Err    io.Writer
	Getenv func(string) (string, bool)

	InTerminal  bool
	OutTerminal bool
	ErrTerminal bool
	Width       func() int             // of the terminal; 0: unknown
	ReadSecret  func() (string, error) // from the terminal, without echo
	Now         func() time.Time
	Sleep       func(ctx context.Context, d time.Duration) error
}

// Call is one run of a command.
type Call struct {
	IO
	App    *App
	Path   string // weir pipelines list
	Args   []string
	Format string
	Quiet  bool
	flags  *pflag.FlagSet
}

// Arg is the i-th argument or "".
func (c *Call) Arg(i int) string {
	if i < len(c.Args) {
		return c.Args[i]
	}
	return ""
}

// Text, Bool, Int, Duration and List give a flag's value. A flag that the command does not have is the zero value, which
// lets one function serve several commands.
func (c *Call) Text(name string) string {
	v, _ := c.flags.GetString(name)
	return v
}

// Bool is the value of a BoolFlag.
func (c *Call) Bool(name string) bool {
	v, _ := c.flags.GetBool(name)
	return v
}

// Int is the value of an IntFlag.
func (c *Call) Int(name string) int {
	v, _ := c.flags.GetInt(name)
	return v
}

// Duration is the value of a DurationFlag.
func (c *Call) Duration(name string) time.Duration {
	v, _ := c.flags.GetDuration(name)
	return v
}

// List is the value of a ListFlag.
func (c *Call) List(name string) []string {
	v, _ := c.flags.GetStringArray(name)
	return v
}

// Given tells whether the user gave the flag.
func (c *Call) Given(name string) bool { return c.flags.Changed(name) }

// Human tells whether a person reads the output, so that notes and colours are welcome.
func (c *Call) Human() bool { return c.Format == FormatTable || c.Format == FormatWide }

// Note prints a line beside the data: on standard error, and nothing with --quiet.
func (c *Call) Note(format string, args ...any) {
	if !c.Quiet && c.Human() {
		fmt.Fprintf(c.Err, format+"\n", args...)
	}
}

// Next prints the one line that tells a person what to do next.
func (c *Call) Next(format string, args ...any) { c.Note("next: "+format, args...) }

// Style is a colour with a meaning.
type Style uint8

// The styles.
const (
	Plain Style = iota
	Good
	Warn
	Bad
	Faint
)

// Paint colours a text if the output is a terminal and colours are wanted.
func (c *Call) Paint(s Style, text string) string {
	if !c.OutTerminal || !c.Colour() {
		return text
	}
	return paint(s, text)
}

// Colour tells whether colours are wanted where the output is a terminal.
func (c *Call) Colour() bool {
	off, _ := c.Getenv("NO_COLOR")
	term, _ := c.Getenv("TERM")
	return !c.Bool("no-color") && off == "" && term != "dumb"
}

func paint(s Style, text string) string {
	code := map[Style]string{Good: "32", Warn: "33", Bad: "31", Faint: "2"}[s]
	if code == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Confirm says what will be destroyed and asks. Where nobody can be asked it refuses without --yes. An answer other
// than yes is an "answer is no", exit code 10.
func (c *Call) Confirm(effect string) error {
	if c.Bool("yes") {
		return nil
	}
	if !c.InTerminal || !c.ErrTerminal {
		return errs.New(errs.BadFlag, "%s: this needs --yes when nobody can be asked", effect)
	}
	fmt.Fprintf(c.Err, "%s\ngo on? [y/N] ", effect)
	// Byte by byte, so that what comes after the answer is left for others.
	var answer strings.Builder
	for b := make([]byte, 1); answer.Len() < 100; {
		n, err := c.In.Read(b)
		if n == 1 && b[0] != '\n' {
			answer.WriteByte(b[0])
		}
		if err != nil || n == 1 && b[0] == '\n' {
			break
		}
	}
	switch strings.ToLower(strings.TrimSpace(answer.String())) {
	case "y", "yes":
		return nil
	}
	return No("nothing was changed")
}

const watchPeriod = 2 * time.Second

// Watch runs show once, or with --watch again and again until ctx ends. On a terminal each showing replaces the one
// before; elsewhere one follows the other.
func (c *Call) Watch(ctx context.Context, show func(ctx context.Context, c *Call) error) error {
	if !c.Bool("watch") {
		return show(ctx, c)
	}
	for {
		var buf bytes.Buffer
		once := *c
		once.Out = &buf
		if err := show(ctx, &once); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if c.OutTerminal && c.Human() {
			fmt.Fprint(c.Out, "\x1b[H\x1b[2J")
		}
		if _, err := c.Out.Write(buf.Bytes()); err != nil {
			return err
		}
		if c.Sleep(ctx, watchPeriod) != nil {
			return nil // interrupting is how a watch ends
		}
	}
}

// Waiting bounds ctx by --timeout. The error of a wait that took longer is told by Waited.
func (c *Call) Waiting(ctx context.Context) (context.Context, context.CancelFunc) {
	if d := c.Duration("timeout"); d > 0 {
		return context.WithTimeoutCause(ctx, d, errTimeout{d})
	}
	return context.WithCancel(ctx)
}

// Waited turns the end of a wait into its error: exit code 4 if --timeout has passed.
func Waited(ctx context.Context, err error) error {
	if cause, ok := context.Cause(ctx).(errTimeout); ok && err != nil {
		return cause
	}
	return err
}

type errTimeout struct{ d time.Duration }

func (e errTimeout) Error() string { return fmt.Sprintf("waited %s in vain", Took(e.d)) }
