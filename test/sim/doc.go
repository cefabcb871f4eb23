// Package sim runs weir's own worker, epoch driver, coordinator and raft log in one process, with virtual time, disks
// that crash and databases that lie, and proves at every visible commit that the target equals the source at the stored
// position.
//
// Real here: engine/worker.Pipe, engine/checkpoint, coordinator (catalog, supervisor, back-off), raft (hashicorp/raft
// over Pebble). Models: the source and the target database. The models pass test/conform, the suite of the real parts,
// and keep those parts' protocols: a slot that goes on only when told and never back, transactions in commit order, open
// ones sent ahead, ranges copied under views; a ledger that one statement moves under a fence, commits that a crash of
// the server may take back, newest first, until they are flushed, requests that arrive after their client has died.
//
// A seed makes a Plan: what the users of the source do and what breaks, each with its virtual time. A Plan is fixed by
// its seed and printed with -v or on failure, and
//
//	go test ./test/sim -run TestSeed -seed 17 -v
//
// runs it again. How far that repeats: the plan exactly, and every random choice, which comes from streams named after
// the object and its number. The order in which goroutines run is not repeated: synctest shuffles it on purpose and the
// stock runtime has no seed for it. A failure that depends on that order may need several runs of its seed (-repeat).
//
// All runs of a process share one bubble, because Pebble keeps pooled objects with channels and dies when they pass
// from one bubble to another; TestSeeds and TestMutants therefore start processes of the test binary.
//
// Each fault, and each crash point of sinks/DESIGN.md that a mirror has, is counted where it takes effect; a set of runs
// that never met one fails. mutants.go holds deliberately broken variants that the same checks must catch.
package sim
