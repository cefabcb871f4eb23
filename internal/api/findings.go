package api

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/weirstream/weir/internal/errs"
)

// findingsPerCheck is how many objects one check lists one by one. The rest go into one finding that still holds the
// whole repair: a schema without rights makes thousands of findings, and a reader needs the first few and one script.
const findingsPerCheck = 20

// Findings collects what a doctor finds on one side. Every check leaves at least one line, a passing one too, so that
// a reader sees what was asked.
type Findings struct {
	side string
	list []Check
}

// Counted is one or many with its count in front: Counted(1, "table is taken", "tables are taken").
func Counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// NewFindings starts a list for a side: source or target.
func NewFindings(side string) *Findings { return &Findings{side: side} }

// OK notes that a check passed.
func (f *Findings) OK(id, format string, args ...any) {
	f.add(Check{ID: id, Severity: SeverityOK, Message: fmt.Sprintf(format, args...)})
}

// Warn notes something that can go wrong later.
func (f *Findings) Warn(id string, code errs.Code, fix, format string, args ...any) {
	f.add(Check{ID: id, Severity: SeverityWarning, Code: string(code), Message: fmt.Sprintf(format, args...), Fix: fix})
}

// Fatal notes what stops a mirror.
func (f *Findings) Fatal(id string, code errs.Code, fix, format string, args ...any) {
	f.add(Check{ID: id, Severity: SeverityFatal, Code: string(code), Message: fmt.Sprintf(format, args...), Fix: fix})
}

// Each adds the findings of one check about many objects, or one passing line when there are none.
func (f *Findings) Each(id string, found []Check, passed string, args ...any) {
	if len(found) == 0 {
		f.OK(id, passed, args...)
		return
	}
	for i, c := range found {
		if i == findingsPerCheck && len(found) > findingsPerCheck+1 {
			f.add(rest(id, found[i:]))
			return
		}
		c.ID = id
		f.add(c)
	}
}

func rest(id string, found []Check) Check {
	c := found[0]
	c.ID, c.Object = id, fmt.Sprintf("%d more", len(found))
	c.Message = fmt.Sprintf("%d more objects have the same problem", len(found))
	var fixes []string
	for _, x := range found {
		if x.Severity == SeverityFatal {
			c.Severity, c.Code = x.Severity, x.Code
		}
		if x.Fix != "" {
			fixes = append(fixes, x.Fix)
		}
	}
	c.Fix = strings.Join(fixes, "\n")
	return c
}

func (f *Findings) add(c Check) {
	c.Side = f.side
	f.list = append(f.list, c)
}

// List is everything found, in the order of the checks.
func (f *Findings) List() []Check { return f.list }

// Worst is the highest severity among findings.
func Worst(checks []Check) Severity {
	worst := SeverityOK
	for _, c := range checks {
		if c.Severity == SeverityFatal {
			return SeverityFatal
		}
		if c.Severity == SeverityWarning {
			worst = SeverityWarning
		}
	}
	return worst
}
