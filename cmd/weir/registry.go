package main

import (
	"context"
	"time"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/pg"
	"github.com/weirstream/weir/internal/secrets"
)

// engines is what commands do in this process, without a server. A nil function is answered with W6006, not built yet.
// URLs that come in here are complete: they hold passwords and must not be logged.
type engines struct {
	// Doctor checks what could go wrong before the first byte moves.
	Doctor func(ctx context.Context, e *env.Env, r doctorRequest) ([]api.Check, error)
	// Plan says what a mirror would do, and changes nothing.
	Plan func(ctx context.Context, e *env.Env, r planRequest) (*api.Plan, error)
	// Login opens a connection and ends it again.
	Login func(ctx context.Context, e *env.Env, cfg *pg.Config) error
	// Unmatched lists the globs that match no table of a source.
	Unmatched func(ctx context.Context, e *env.Env, source string, globs []string) ([]string, error)
	// Mirrored lists the tables of a source that a mirror takes, or would if they had what it needs of a table.
	Mirrored func(ctx context.Context, e *env.Env, source string, m api.MirrorSpec) ([]pg.TargetName, error)
	// Verify compares source and target row by row.
	Verify func(ctx context.Context, e *env.Env, r verifyRequest) (*api.VerifyReport, error)
	// Cutover makes the target ready to take over, or with DryRun lists the steps.
	Cutover func(ctx context.Context, e *env.Env, r cutoverRequest) (*cutoverReport, error)
	// Settle gives the target's sequences, foreign keys and names what the source's have, when the pipeline is paused.
	Settle func(ctx context.Context, e *env.Env, r cutoverRequest) ([]cutoverStep, error)
	// Node opens the state directory and runs its pipelines until Close.
	Node func(ctx context.Context, e *env.Env, o nodeOptions) (node, error)
	// Demo starts databases, a load and a mirror, and runs until ctx ends.
	Demo func(ctx context.Context, e *env.Env, o demoOptions) error
}

type doctorRequest struct {
	Source, Target string         // complete URLs; Target may be ""
	Mirror         api.MirrorSpec // tables and options that are meant; its URLs are references
	State          string         // state directory: a mirror of it may have begun
}

type planRequest struct {
	Source, Target string
	Mirror         api.MirrorSpec
	State          string // state directory: the names of slot and publication hold the installation's id
}

type verifyRequest struct {
	Running        bool // it is asked for a mirror that runs: its patterns are not new
	Source, Target string
	Mirror         api.MirrorSpec
	Parallelism    int                                     // 0: the engine's default
	Progress       func(table string, part float64, n int) // may be nil; n tables are still to come
}

type cutoverRequest struct {
	Source, Target string
	Pipeline       api.Pipeline
	DryRun         bool
	Force          bool                         // although somebody may write
	Progress       func(cutoverStep)            // may be nil; called after each step
	Resting        func(context.Context) error  // of Settle: an error if the pipeline is not paused any more
	Set            string                       // of Settle: how Cutover has set the sequences
	Slot           string                       // of Settle: the slot that the pipeline goes on from
	Publication    string                       // of the mirror, as far as it is known
	Durable        func(context.Context) pg.LSN // up to where the pipeline knows that the target has everything; may be nil
}

// cutoverStep is one thing that a cutover does.
type cutoverStep struct {
	Name    string `json:"name"`
	Says    string `json:"says"`
	SQL     string `json:"sql,omitempty"`
	Done    bool   `json:"done"`
	TookMS  int64  `json:"took_ms,omitempty"`
	Warning string `json:"warning,omitempty"`
}

type cutoverReport struct {
	Pipeline string        `json:"pipeline"`
	DryRun   bool          `json:"dry_run,omitempty"`
	Ready    bool          `json:"ready"` // the target holds everything, or would
	Position string        `json:"position,omitempty"`
	Steps    []cutoverStep `json:"steps"`

	set string // how the sequences were set
}

type nodeOptions struct {
	State       string
	Command     string   // what this process was started as
	Follows     []string // mirrors whose errors the command tells
	HTTPAddr    string   // "": the default, moving to a free port when it is taken
	PGAddr      string   // the same
	AllowRemote bool
	Secrets     *secrets.Store
	Options     map[string]string // options of scope server
	Version     string
	Commit      string
}

// node is a running weir in this process.
type node interface {
	// Addr is where its REST interface listens.
	Addr() string
	// PGAddr is where Postgres clients read views.
	PGAddr() string
	// Done is closed when the node cannot go on; Err says why.
	Done() <-chan struct{}
	Err() error
	// Close takes a last checkpoint of every pipeline and gives the state directory up.
	Close(ctx context.Context) error
}

type demoOptions struct {
	Dir      string // "": a temporary directory, removed at the end
	HTTPAddr string
	Rate     int           // changes per second
	For      time.Duration // 0: until interrupted
	Crash    bool          // end the worker again and again
	Say      func(format string, args ...any)
}

// registry lists what this binary is made of, by hand.
func registry() engines {
	return engines{Doctor: runDoctor, Plan: runPlan, Login: runLogin, Unmatched: unmatched, Mirrored: mirrored, Verify: runVerify, Cutover: runCutover, Settle: runSettle, Node: openNode, Demo: runDemo}
}
