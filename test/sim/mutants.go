package sim

// mutant is a deliberately broken variant of a model or of what stands between it and the worker. The checks must catch
// each; one that survives shows a hole in the simulator, not a sound variant.
type mutant uint8

const (
	sound               mutant = iota
	mutantDurableEarly         // the target calls a commit durable as soon as it is visible
	mutantConfirmRead          // the slot moves when a transaction was read
	mutantNeverConfirm         // the slot never moves
	mutantNoFence              // the ledger does not look at the generation
	mutantNoPrevious           // the ledger does not look at the checkpoint before
	mutantStateApart           // rows and position are two transactions
	mutantCutInside            // a cut may follow any message
	mutantSlotPosition         // a restart begins at the slot's position, not at the stored one
	mutantNoFilter             // what a later view of the copy has seen is applied again
	mutantNullUnsent           // a value that was not sent becomes NULL
	mutantOpenVisible          // rows of open transactions become visible with the next cut
	mutantKeepAborted          // rows of rolled-back subtransactions stay
	mutantChunkAdds            // a chunk does not replace what its range holds
	mutantOldGeneration        // every start uses the first generation
	mutantNoSync               // the disk of the raft log forgets what was synced
	mutants
)

func (m mutant) String() string {
	return [...]string{"sound", "durable on visible", "confirm on read", "never confirm", "fence not checked",
		"previous checkpoint not checked", "position apart from rows", "cut inside a transaction", "restart at the slot's position",
		"later view not filtered", "unsent becomes null", "open rows visible", "aborted subtransaction kept", "chunk adds",
		"generation reused", "disk forgets syncs"}[m]
}
