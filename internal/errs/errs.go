// Package errs is the error record that every surface of weir shows alike: the command line, REST, the console and the
// Postgres protocol render the same code, message, detail, hint and position. The code is stable, has a page in
// docs/errors, and is what scripts test for.
package errs

import (
	"errors"
	"fmt"
	"strings"
)

// Code is W and four digits: 1 sources, 2 SQL, 3 engine, 4 sinks, 5 cluster, 6 configuration. codes.go lists them all.
type Code string

// Error is one record. Message says what failed with names in it; Detail what was found; Hint what to do; Fix holds
// SQL or a command that can be pasted.
type Error struct {
	Code    Code      `json:"code"`
	Message string    `json:"message"`
	Detail  string    `json:"detail,omitempty"`
	Hint    string    `json:"hint,omitempty"`
	Fix     string    `json:"fix,omitempty"`
	Pos     *Position `json:"position,omitempty"`
	Cause   error     `json:"-"`
	// Final: trying again without a change by the user is of no use, although errors of the code often pass.
	Final bool `json:"-"`
	// Learned: what stood in the way is known now, and the next start does it another way. Nothing has to be waited for.
	Learned bool `json:"-"`
	// Unbegun: it came before anything was made for the pipeline that it ended.
	Unbegun bool `json:"-"`
}

// Position is a place in a file the user wrote. Line and Column count from 1; Column counts runes.
type Position struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Source string `json:"source,omitempty"` // the text of that line
}

// copyAnew is how a mirror begins again from nothing.
const copyAnew = "only a new copy repairs that: weir pipelines delete NAME --wait, empty its tables on the target, and give the same weir mirror command again; weir help W1003 tells more"

// usual are hints of codes whose errors mostly come with nothing better; WithHint replaces them.
var usual = map[Code]string{
	SourceUnreachable: "check host, port, user and TLS mode with psql from this machine; weir doctor names the step that fails",
	SlotLost:          copyAnew,
	SlotGap:           copyAnew,
	TargetUnreachable: "check host, port, user and TLS mode with psql from this machine; weir doctor names the step that fails",
	TargetRejected:    "change what the target refuses and resume, or have the table copied anew: weir sources refresh TABLE",
	TargetTable:       "make the table on the target as the message says and resume, or route it elsewhere with --route",
	UnknownOption:     "docs/options.md lists every option with its values; weir config list shows those in force",
}

// New makes a record with a formatted message, as fmt.Errorf does; an error among args becomes the cause.
func New(code Code, format string, args ...any) *Error {
	e := &Error{Code: code, Message: fmt.Errorf(format, args...).Error(), Hint: usual[code]}
	for _, a := range args {
		if err, ok := a.(error); ok {
			e.Cause = err
		}
	}
	return e
}

// WithDetail, WithHint, WithFix, At and Because return e, so that a record reads as one expression.
func (e *Error) WithDetail(format string, args ...any) *Error {
	e.Detail = fmt.Sprintf(format, args...)
	return e
}

// WithHint sets what the user can do.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// WithFix sets SQL or a command that repairs the cause. It is not formatted: identifiers come in quoted.
func (e *Error) WithFix(fix string) *Error { e.Fix = fix; return e }

// At sets the position in the user's file.
func (e *Error) At(p Position) *Error { e.Pos = &p; return e }

// Because sets the cause that errors.Is and errors.As look at.
func (e *Error) Because(err error) *Error { e.Cause = err; return e }

// Error is one line: the message, the cause if the message does not hold it, and the code.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	if e.Cause != nil && !strings.Contains(e.Message, e.Cause.Error()) {
		b.WriteString(": ")
		b.WriteString(e.Cause.Error())
	}
	fmt.Fprintf(&b, " (%s)", e.Code)
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// As finds the first record in err's chain.
func As(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// Is tells whether err's chain holds a record with the code.
func Is(err error, code Code) bool {
	e, ok := As(err)
	return ok && e.Code == code
}

// From returns err's record, or one that wraps it under the given code.
func From(err error, code Code) *Error {
	if e, ok := As(err); ok {
		return e
	}
	return &Error{Code: code, Message: err.Error(), Cause: err}
}

// Render is the form for people: code and message, place with caret, detail, hint, fix and where to read more.
func (e *Error) Render() string {
	var b strings.Builder
	msg := e.Message
	if e.Cause != nil && !strings.Contains(msg, e.Cause.Error()) {
		msg += ": " + e.Cause.Error()
	}
	fmt.Fprintf(&b, "error[%s]: %s\n", e.Code, msg)
	if p := e.Pos; p != nil {
		fmt.Fprintf(&b, "  --> %s:%d:%d\n", p.File, p.Line, p.Column)
		if p.Source != "" {
			num := fmt.Sprint(p.Line)
			fmt.Fprintf(&b, "  %s | %s\n", num, p.Source)
			fmt.Fprintf(&b, "  %s | %s^\n", strings.Repeat(" ", len(num)), strings.Repeat(" ", max(p.Column-1, 0)))
		}
	}
	if e.Detail != "" && !strings.Contains(msg, e.Detail) {
		fmt.Fprintf(&b, "  detail: %s\n", e.Detail)
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, "  hint: %s\n", e.Hint)
	}
	for _, line := range strings.Split(e.Fix, "\n") {
		if line != "" {
			fmt.Fprintf(&b, "  fix:  %s\n", line)
		}
	}
	fmt.Fprintf(&b, "  more: weir help %s\n", e.Code)
	return b.String()
}
