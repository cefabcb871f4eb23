package rest

import (
	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/raft"
)

// Version is what runs.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go,omitempty"`
}

// Status is the node's own.
type Status struct {
	Version      Version           `json:"version"`
	Installation string            `json:"installation"`
	Ready        bool              `json:"ready"`
	Reason       string            `json:"reason,omitempty"` // why it is not ready
	Raft         raft.Stats        `json:"raft"`
	Pipelines    map[api.Phase]int `json:"pipelines"` // how many are in each phase
}

// PipelineList is the answer to GET /pipelines.
type PipelineList struct {
	Pipelines []coordinator.PipelineView `json:"pipelines"`
}

// StateList is the answer to GET /pipelines/{name}/state/{node}.
type StateList struct {
	States []api.StateEntries `json:"states"`
}

// SourceList is the answer to GET /sources.
type SourceList struct {
	Sources []api.SourceStatus `json:"sources"`
}

// RefreshRequest names the tables to copy anew; none means all.
type RefreshRequest struct {
	Tables []string `json:"tables,omitempty"`
}

// DoctorRequest is a mirror to check: one that exists, or one that is described.
type DoctorRequest struct {
	Pipeline string          `json:"pipeline,omitempty"`
	Mirror   *api.MirrorSpec `json:"mirror,omitempty"`
}

// DoctorReport is what was found.
type DoctorReport struct {
	Checks []api.Check `json:"checks"`
}

// PlanRequest describes the mirror to plan.
type PlanRequest struct {
	Mirror api.MirrorSpec `json:"mirror"`
}

// Problem is an error as RFC 9457 has it, with weir's error record in it.
type Problem struct {
	Type     string         `json:"type"` // urn:weir:error:W3002
	Title    string         `json:"title"`
	Status   int            `json:"status"`
	Code     string         `json:"code"`
	Detail   string         `json:"detail,omitempty"`
	Hint     string         `json:"hint,omitempty"`
	Fix      string         `json:"fix,omitempty"`
	Position *errs.Position `json:"position,omitempty"`
}
