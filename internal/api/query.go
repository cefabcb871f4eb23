package api

import "time"

// QueryStatus is what a pipeline of queries tells about itself. Counts of rows are since it was started.
type QueryStatus struct {
	Epoch       uint64  `json:"epoch"`       // visible
	Published   uint64  `json:"published"`   // checkpoint that every sink has
	EpochMS     float64 `json:"epoch_ms"`    // of the last epoch, from its barrier until it was visible
	StateBytes  int64   `json:"state_bytes"` // in memory
	Faults      int64   `json:"faults"`      // rows whose evaluation failed, less those that were taken back
	QueueItems  int64   `json:"queue_items"` // batches that wait in the queues between tasks
	QueueRoom   int64   `json:"queue_room"`  // how many they hold
	Parallelism int     `json:"parallelism"`
	Sources     []Flow  `json:"sources"`
	Sinks       []Flow  `json:"sinks"`
	Views       []View  `json:"views"`
	// States are as of the last checkpoint.
	States []StateSize `json:"states"`
	// Checkpoints are the last ones of this process, the newest first.
	Checkpoints []CheckpointInfo `json:"checkpoints"`
}

// Flow is a source or a sink of a pipeline of queries.
type Flow struct {
	Name       string  `json:"name"`
	Connector  string  `json:"connector"`
	Rows       int64   `json:"rows"`
	RowsPerSec float64 `json:"rows_per_sec"`
}

// View is a materialized view or an internal table.
type View struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"` // view or table
	Columns []Column `json:"columns"`
	Key     []string `json:"key"`
	Rows    int64    `json:"rows"` // -1: unknown
}

// Column is a column of a view.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// StateSize is what one state of an operator takes, over all tasks.
type StateSize struct {
	Operator string `json:"operator"` // its kind and what it does, as in EXPLAIN
	State    string `json:"state"`
	Entries  int64  `json:"entries"`
	Rows     int64  `json:"rows,omitempty"`
	Bytes    int64  `json:"bytes"` // in memory
}

// CheckpointInfo is a checkpoint that was made.
type CheckpointInfo struct {
	Checkpoint uint64    `json:"checkpoint"`
	At         time.Time `json:"at"`      // when it was durable
	TookMS     float64   `json:"took_ms"` // from its barrier until then
	Bytes      int64     `json:"bytes"`
}
