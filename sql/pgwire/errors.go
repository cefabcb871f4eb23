package pgwire

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirstream/weir/engine/table"
	"github.com/weirstream/weir/internal/errs"
)

// stateError is an error that has a SQLSTATE and no code of weir: it is about the protocol or the session.
type stateError struct {
	state, message, hint string
}

func (e *stateError) Error() string { return e.message }

func fail(state, format string, args ...any) *stateError {
	return &stateError{state: state, message: fmt.Sprintf(format, args...)}
}

func (e *stateError) withHint(hint string) *stateError { e.hint = hint; return e }

// state is the SQLSTATE for a code.
func state(e *errs.Error) string {
	switch e.Code {
	case errs.SQLSyntax:
		return "42601"
	case errs.SQLNotBuilt, errs.NotBuiltYet:
		return "0A000"
	case errs.SQLUnknownName:
		if strings.Contains(e.Message, "column") {
			return "42703"
		}
		return "42P01"
	case errs.SQLTypeMismatch:
		return "42804"
	case errs.SQLUnknownFunction:
		return "42883"
	case errs.SQLGrouping:
		return "42803"
	case errs.EvalRange:
		return "22003"
	case errs.EvalDivisionByZero:
		return "22012"
	case errs.EvalCast:
		return "22P02"
	case errs.EvalArgument:
		return "22023"
	case errs.QueryMemory:
		return "53200"
	case errs.SnapshotTooOld:
		return "72000"
	case errs.SQLUpdates:
		return "42809"
	case errs.PipelineState:
		return "55000"
	}
	return "XX000"
}

// response is an error as clients get it. Text is what the statement's positions count in, which begins at the character
// begin of what the client sent.
func response(err error, text string, begin int) *pgproto3.ErrorResponse {
	r := &pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "XX000", Message: err.Error()}
	var s *stateError
	var f *table.Fault
	switch e, coded := errs.As(err); {
	case errors.As(err, &s):
		r.Code, r.Message, r.Hint = s.state, s.message, s.hint
	case errors.As(err, &f):
		r.Code, r.Message, r.Detail, r.Hint = f.State, f.Message, f.Detail, f.Hint
	case coded:
		r.Code, r.Message, r.Hint = state(e), e.Message, e.Hint
		r.Detail = strings.TrimSpace(e.Detail + " [" + string(e.Code) + "]")
		if e.Pos != nil {
			r.Position = int32(begin + offset(text, e.Pos.Line, e.Pos.Column) + 1)
		}
	case errors.Is(err, context.Canceled):
		r.Code, r.Message = "57014", "canceling statement due to user request"
	case errors.Is(err, context.DeadlineExceeded):
		r.Code, r.Message = "57014", "canceling statement due to statement timeout"
	}
	return r
}

// offset is how many characters of text lie before a line and column, both counted from 1.
func offset(text string, line, column int) int {
	n := 0
	for ; line > 1; line-- {
		i := strings.IndexByte(text, '\n')
		if i < 0 {
			break
		}
		n += utf8.RuneCountInString(text[:i+1])
		text = text[i+1:]
	}
	return n + column - 1
}
