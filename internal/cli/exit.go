package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/weirstream/weir/internal/errs"
)

// The exit codes. Scripts rely on them: a finding (10) never looks like a failure (1), and a wrong command line (2)
// never like a server that is away (3).
const (
	ExitDone        = 0
	ExitFailure     = 1
	ExitRejected    = 2
	ExitUnreachable = 3
	ExitTimeout     = 4
	ExitNo          = 10
	exitSignal      = 128 // plus the number of the signal
)

// Exit ends a command with a code and no message of its own: what is to be said was said.
type Exit struct{ Code int }

func (e Exit) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// No is the answer no: exit code 10, with a line that is not an error.
func No(says string) error { return answerNo{says} }

type answerNo struct{ says string }

func (a answerNo) Error() string { return a.says }

// Refused is the answer no with a record that says why: exit code 10.
func Refused(e *errs.Error) error { return refused{e} }

type refused struct{ record *errs.Error }

func (r refused) Error() string { return r.record.Error() }
func (r refused) Unwrap() error { return r.record }

// ExitCode is the code that an error ends the process with.
func ExitCode(err error) int {
	var exit Exit
	var no answerNo
	var ref refused
	var timeout errTimeout
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &exit):
		return exit.Code
	case errors.As(err, &no), errors.As(err, &ref):
		return ExitNo
	case errors.As(err, &timeout):
		return ExitTimeout
	case errors.Is(err, context.Canceled):
		return exitSignal + 2
	}
	e, ok := errs.As(err)
	if !ok {
		return ExitFailure
	}
	switch e.Code {
	case errs.SourceUnreachable, errs.TargetUnreachable, errs.NotReachable:
		return ExitUnreachable
	case errs.NotCaughtUp:
		return ExitNo
	case errs.SourcePreflight, errs.NoTables, errs.TableUnsupported, errs.RowFilterUnsupport, errs.TableUnknown,
		errs.PipelineNotFound, errs.PipelineExists, errs.PipelineState:
		return ExitRejected
	}
	if e.Code[1] == '2' || e.Code[1] == '6' && e.Code != errs.AddressBusy {
		return ExitRejected
	}
	return ExitFailure
}

// report writes the error where people and programs look for it: standard error, as text or as the record.
func report(w io.Writer, err error, format string) {
	var exit Exit
	var no answerNo
	switch {
	case err == nil || errors.As(err, &exit):
		return
	case errors.As(err, &no):
		if format == FormatTable || format == FormatWide {
			fmt.Fprintln(w, no.says)
		}
		return
	case errors.Is(err, context.Canceled):
		if _, ok := errs.As(err); !ok {
			fmt.Fprintln(w, "interrupted")
			return
		}
	}
	e, ok := errs.As(err)
	if !ok {
		e = errs.From(err, errs.EngineInternal)
		var timeout errTimeout
		if errors.As(err, &timeout) {
			e = errs.New(errs.NotCaughtUp, "%s", timeout.Error()).WithHint("--timeout DURATION waits longer")
		}
	}
	if format != FormatJSON && format != FormatNDJSON && format != FormatYAML {
		fmt.Fprint(w, e.Render())
		return
	}
	record := *e
	if e.Cause != nil {
		record.Message = causeIn(e)
	}
	b, jerr := json.Marshal(record)
	if jerr != nil {
		fmt.Fprint(w, e.Render())
		return
	}
	fmt.Fprintf(w, "%s\n", b)
}

// causeIn is the message with the cause that Render would add to it.
func causeIn(e *errs.Error) string {
	text := e.Error()
	return text[:len(text)-len(fmt.Sprintf(" (%s)", e.Code))]
}
