package api

import "time"

// VerifyReport is what comparing a source with its target found. Counts are of the moments at which each piece was
// read: while rows are written, those of the two sides may differ without any row being wrong.
type VerifyReport struct {
	Equal      bool          `json:"equal"`
	StartedAt  time.Time     `json:"started_at"`
	FinishedAt time.Time     `json:"finished_at"`
	Rows       int64         `json:"rows"` // of the source
	Ranges     int64         `json:"ranges"`
	Differing  int64         `json:"differing_rows"`
	Unsettled  int64         `json:"unsettled_rows"`
	Tables     []VerifyTable `json:"tables"`
	Notes      []string      `json:"notes,omitempty"`
}

// VerifyTable is the result of one table.
type VerifyTable struct {
	Source     string `json:"source"`
	Target     string `json:"target"`
	Equal      bool   `json:"equal"`
	Keyless    bool   `json:"keyless,omitempty"`
	SourceRows int64  `json:"source_rows"`
	TargetRows int64  `json:"target_rows"`
	Ranges     int64  `json:"ranges"`
	// Rechecked rows differed at first and were looked at again; most of them were on their way.
	Rechecked int64 `json:"rechecked_rows"`
	Differing int64 `json:"differing_rows"`
	// Unsettled rows changed all the time, while the target showed versions that the source had had before.
	Unsettled int64 `json:"unsettled_rows"`
	// More: counting differences ended at the limit; there are, or may be, others.
	More  bool         `json:"more,omitempty"`
	Diffs []VerifyDiff `json:"diffs,omitempty"`
	Error string       `json:"error,omitempty"`
	Notes []string     `json:"notes,omitempty"`
}

// VerifyKind says how a row differs.
type VerifyKind string

// The kinds of differences.
const (
	VerifyChanged VerifyKind = "changed" // both sides have the row, with other values
	VerifyMissing VerifyKind = "missing" // the target lacks it
	VerifyExtra   VerifyKind = "extra"   // only the target has it
)

// VerifyDiff is one row that differs. Of a row without a key, SourceCount and TargetCount tell how often each side
// has it.
type VerifyDiff struct {
	Kind        VerifyKind     `json:"kind"`
	Key         []VerifyColumn `json:"key,omitempty"`
	Columns     []VerifyColumn `json:"columns"`
	SourceCount int64          `json:"source_count"`
	TargetCount int64          `json:"target_count"`
}

// VerifyColumn is a column's value as text on both sides; nil is NULL, or that the side has no such row. Long values
// are cut.
type VerifyColumn struct {
	Name   string  `json:"name"`
	Source *string `json:"source"`
	Target *string `json:"target"`
}
