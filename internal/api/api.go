// Package api holds the records that REST, the command line and the catalog share. Their JSON form is the interface of
// /api/v1: fields are added, never renamed. No field ever holds a secret: connections carry references.
package api

import "time"

// Connection names a database. URL never holds a password: it was moved to a secret and left as ${secret:NAME}.
type Connection struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// MirrorSpec is what CREATE MIRROR and `weir mirror` ask for.
type MirrorSpec struct {
	Name    string            `json:"name"`
	Source  Connection        `json:"source"`
	Target  Connection        `json:"target"`
	Tables  []string          `json:"tables"`            // globs over schema.table
	Except  []string          `json:"except,omitempty"`  // globs over schema.table
	Routes  []Route           `json:"routes,omitempty"`  // first match wins
	Exclude []string          `json:"exclude,omitempty"` // columns: schema.table.column globs
	Filters []Filter          `json:"filters,omitempty"`
	Options map[string]string `json:"options,omitempty"` // keys as in docs/options.md
}

// Route renames: From is a glob over schema.table whose stars fill the stars of To in order.
type Route struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Filter keeps the rows of a table (a glob) for which the SQL condition is true.
type Filter struct {
	Table string `json:"table"`
	Where string `json:"where"`
}

// QuerySpec is a pipeline of SQL queries: what `weir run` makes of a file that has some.
type QuerySpec struct {
	Name    string            `json:"name"`
	File    string            `json:"file"`              // what errors call the text
	SQL     string            `json:"sql"`               // secrets are references; comments and statements for mirrors are blanks
	Added   []string          `json:"added,omitempty"`   // statements that SQL sessions have added, in order
	Dir     string            `json:"dir,omitempty"`     // relative paths of files begin there
	Options map[string]string `json:"options,omitempty"` // keys as in docs/options.md
}

// Desired is what the user wants of a pipeline.
type Desired string

// The desired states.
const (
	WantRunning Desired = "running"
	WantPaused  Desired = "paused"
	WantDeleted Desired = "deleted"
)

// Pipeline is the catalog's record of one pipeline: a mirror, or with Query a pipeline of queries.
type Pipeline struct {
	ID         string     `json:"id"` // 32 hex digits, never reused; the name may be
	Name       string     `json:"name"`
	Version    uint64     `json:"version"` // of the definition
	Mirror     MirrorSpec `json:"mirror,omitzero"`
	Query      *QuerySpec `json:"query,omitempty"`
	Desired    Desired    `json:"desired"`
	Generation uint64     `json:"generation"`
	CreatedAt  time.Time  `json:"created_at"`
}

// Phase is where a pipeline or one of its tables stands.
type Phase string

// The phases, in their usual order.
const (
	PhaseStarting Phase = "starting"
	PhasePrepare  Phase = "prepare"
	PhaseCopy     Phase = "copy"
	PhaseCatchUp  Phase = "catch-up"
	PhaseLive     Phase = "live"
	PhasePaused   Phase = "paused"
	PhaseRetrying Phase = "retrying" // failed, and will be started again
	PhaseFailed   Phase = "failed"   // failed, and needs the user
	PhaseStopped  Phase = "stopped"
	PhaseFinished Phase = "finished" // its sources had no more to give
)

// PipelineStatus is what a running pipeline tells about itself. Rates are per second over the last few seconds.
type PipelineStatus struct {
	Phase       Phase     `json:"phase"`
	Since       time.Time `json:"since"`
	Checkpoint  uint64    `json:"checkpoint"`
	Durable     uint64    `json:"durable_checkpoint"`
	RowsTotal   int64     `json:"rows_total"` // applied since the process started
	RowsPerSec  float64   `json:"rows_per_sec"`
	BytesPerSec float64   `json:"bytes_per_sec"`
	LagBytes    int64     `json:"lag_bytes"`          // -1: unknown
	LagMS       int64     `json:"lag_ms"`             // age of the oldest commit not yet visible; -1: unknown
	Position    string    `json:"position,omitempty"` // of the source's log, visible at the target
	// DurablePosition is what a crash of the target cannot take back.
	DurablePosition string        `json:"durable_position,omitempty"`
	Error           *ErrorInfo    `json:"error,omitempty"`
	Restarts        int           `json:"restarts"`
	Lanes           int           `json:"lanes,omitempty"` // connections that commit; above 1 a commit is not one cut of the source
	Tables          []TableStatus `json:"tables,omitempty"`
	Query           *QueryStatus  `json:"query,omitempty"` // of a pipeline of queries that runs
	// Building: unique and foreign keys and the indexes of the first copy are not there yet.
	Building bool `json:"building,omitempty"`
	// CatalogAt is when the source's catalog was last looked at and had no table that is not among Tables; zero: not yet.
	CatalogAt time.Time `json:"catalog_at,omitzero"`
	UpdatedAt time.Time `json:"updated_at"`
}

// ErrorInfo is the error record as JSON.
type ErrorInfo struct {
	Code    string    `json:"code"`
	Message string    `json:"message"`
	Detail  string    `json:"detail,omitempty"`
	Hint    string    `json:"hint,omitempty"`
	Fix     string    `json:"fix,omitempty"`
	At      time.Time `json:"at"`
	Unbegun bool      `json:"unbegun,omitempty"` // nothing had been made for the pipeline, here or at its databases
}

// TableStatus is one table's progress.
type TableStatus struct {
	Source     string  `json:"source"` // schema.table
	Target     string  `json:"target"`
	Phase      Phase   `json:"phase"`
	Rows       int64   `json:"rows"`
	RowsTotal  int64   `json:"rows_total"` // estimate; -1 unknown
	Bytes      int64   `json:"bytes"`
	BytesTotal int64   `json:"bytes_total"`
	RowsPerSec float64 `json:"rows_per_sec"`
	ETASeconds int64   `json:"eta_seconds"` // -1 unknown
	Inserts    int64   `json:"inserts"`
	Updates    int64   `json:"updates"`
	Deletes    int64   `json:"deletes"`
	Missing    int64   `json:"missing"` // updates and deletes whose row the target did not have
	Note       string  `json:"note,omitempty"`
}

// SourceStatus is one source database as its server sees it.
type SourceStatus struct {
	Name             string    `json:"name"`
	Pipeline         string    `json:"pipeline"`
	Server           string    `json:"server"` // host:port/database
	ServerVersion    string    `json:"server_version"`
	Slot             string    `json:"slot"`
	Publication      string    `json:"publication"`
	SlotActive       bool      `json:"slot_active"`
	SlotState        string    `json:"slot_state"` // reserved, extended, unreserved, lost
	LagBytes         int64     `json:"lag_bytes"`
	LagMS            int64     `json:"lag_ms"`
	WALRetainedBytes int64     `json:"wal_retained_bytes"`
	WALLimitBytes    int64     `json:"wal_limit_bytes"` // -1: no limit, the disk can fill
	ConfirmedLSN     string    `json:"confirmed_lsn"`
	CurrentLSN       string    `json:"current_lsn"`
	SharedWith       []string  `json:"shared_with,omitempty"` // pipelines that read the slot together, this one included
	RingBytes        int64     `json:"ring_bytes"`            // what is held in memory for them
	UpdatedAt        time.Time `json:"updated_at,omitzero"`   // zero: it did not answer
}

// Severity of a finding.
type Severity string

// The severities. A fatal finding makes doctor exit with 2.
const (
	SeverityOK      Severity = "ok"
	SeverityWarning Severity = "warning"
	SeverityFatal   Severity = "fatal"
)

// Check is one finding of the doctor.
type Check struct {
	ID       string   `json:"id"`   // pg.wal_level
	Side     string   `json:"side"` // source or target
	Object   string   `json:"object,omitempty"`
	Severity Severity `json:"severity"`
	Code     string   `json:"code,omitempty"`
	Message  string   `json:"message"`
	Fix      string   `json:"fix,omitempty"` // SQL that repairs it
}

// Plan is what a mirror would do.
type Plan struct {
	Pipeline    string      `json:"pipeline"`
	Slot        string      `json:"slot"`
	Publication string      `json:"publication"`
	Tables      []PlanTable `json:"tables"`
	DDL         []string    `json:"ddl"` // to run on the target before the copy
	AfterCopy   []string    `json:"after_copy"`
	Rows        int64       `json:"rows"`
	Bytes       int64       `json:"bytes"`
	EstSeconds  int64       `json:"est_seconds"`
	Notes       []string    `json:"notes,omitempty"`
	Checks      []Check     `json:"checks"`
}

// PlanTable is one table of a Plan.
type PlanTable struct {
	Source string   `json:"source"`
	Target string   `json:"target"`
	Rows   int64    `json:"rows"`
	Bytes  int64    `json:"bytes"`
	Key    []string `json:"key,omitempty"`
	Exists bool     `json:"exists"`
	Notes  []string `json:"notes,omitempty"`
}

// Command is an order to a running pipeline.
type Command struct {
	Verb   string   `json:"verb"` // refresh, add-tables, remove-tables
	Tables []string `json:"tables,omitempty"`
}
