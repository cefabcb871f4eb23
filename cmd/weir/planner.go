package main

import (
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/plan"
)

// planSQL makes a program of a file.
func planSQL(string, string, plan.Environment) (*plan.Program, error) {
	return nil, errs.New(errs.NotBuiltYet, "the planner is not built yet")
}
