package options

import "slices"

// Kind is the type of an option's value.
type Kind string

// The kinds. Sizes and durations follow Flink and Postgres: 1 kB is 1024 bytes, and "10 s", "10s" and "10 sec" are one.
const (
	Bool     Kind = "boolean"
	Int      Kind = "integer"
	Duration Kind = "duration"
	Size     Kind = "size"
	Text     Kind = "text"
	Enum     Kind = "enum"
)

// Scope is what an option belongs to.
type Scope string

// The scopes. A pipeline's options are stored with it; a server's hold for the process.
const (
	Pipeline Scope = "pipeline"
	Server   Scope = "server"
)

// Option describes one key.
type Option struct {
	Key     string
	Aliases []string // Flink's or Flink CDC's key for the same thing
	Kind    Kind
	Values  []string // of an Enum
	Default string   // "" means what Help says
	Min     int64    // of Int, Size (bytes) and Duration (nanoseconds); 0: no bound
	Max     int64
	Scope   Scope
	Help    string
}

const (
	kB = int64(1) << 10
	mB = kB << 10
	gB = mB << 10

	ms     = int64(1_000_000)
	second = 1000 * ms
	minute = 60 * second
	hour   = 60 * minute
)

// All lists the options in the order of docs/options.md.
func All() []Option {
	return []Option{
		{Key: "checkpoint.interval", Aliases: []string{"execution.checkpointing.interval"}, Kind: Duration, Default: "50ms", Min: ms, Max: hour, Scope: Pipeline,
			Help: "How often the state becomes durable and sinks publish, at most. Without changes there is no checkpoint."},
		{Key: "schema.change.behavior", Kind: Enum, Values: []string{"evolve", "try_evolve", "lenient", "ignore", "exception"}, Default: "evolve", Scope: Pipeline,
			Help: "What a schema change of the source does to the target. evolve applies it and stops the pipeline if the target refuses; try_evolve goes on with the old columns if the target refuses; lenient never drops or narrows anything on the target (a dropped column stays and becomes nullable, a rename adds a column); ignore leaves the target alone; exception stops the pipeline at the first change."},
		{Key: "slot.name", Kind: Text, Scope: Pipeline,
			Help: "Replication slot to use. Default: weir_<database>_<8 hex digits of the installation>, made when missing."},
		{Key: "publication.name", Kind: Text, Scope: Pipeline,
			Help: "Publication to use. Default: the slot's default name, made when missing. A publication given here is used as it is and never changed."},
		{Key: "snapshot.mode", Aliases: []string{"debezium.snapshot.mode"}, Kind: Enum, Values: []string{"initial", "never", "only", "when_needed"}, Default: "initial", Scope: Pipeline,
			Help: "The first copy. initial copies, then follows; never follows from the slot's position, the target being filled already; only copies and ends; when_needed is initial and also copies again when the log the slot needed is gone."},
		{Key: "snapshot.parallelism", Kind: Int, Default: "4", Min: 1, Max: 64, Scope: Pipeline,
			Help: "How many chunks are copied at once."},
		{Key: "snapshot.chunk.bytes", Kind: Size, Default: "64 MB", Min: mB, Max: 4 * gB, Scope: Pipeline,
			Help: "About how much of a table one chunk holds. A chunk is what is copied again after a crash."},
		{Key: "sink.lanes", Kind: Int, Default: "1", Min: 1, Max: 64, Scope: Pipeline,
			Help: "Transactions that write to the target side by side. With 1 every source transaction becomes visible on the target as a whole; with more each lane is exact by itself, but not atomic with the others."},
		{Key: "sink.batch.bytes", Kind: Size, Default: "4 MB", Min: 4 * kB, Max: gB, Scope: Pipeline,
			Help: "How many bytes of changes are sent to the target at once, at most. A larger source transaction takes several sends, still in one transaction."},
		{Key: "sink.synchronous_commit", Kind: Enum, Values: []string{"off", "on", "remote_write", "remote_apply"}, Default: "on", Scope: Pipeline,
			Help: "synchronous_commit of the target's transactions, with Postgres's meanings. With off the source is confirmed only for what the target has flushed since, so that a crash of the target loses nothing."},
		{Key: "on.missing.row", Kind: Enum, Values: []string{"warn", "error", "upsert"}, Default: "warn", Scope: Pipeline,
			Help: "What happens when an update or delete finds no row on the target: count it and go on, stop the pipeline, or write the row of the update."},
		{Key: "soft.delete.column", Kind: Text, Scope: Pipeline,
			Help: "Column of the target's tables that takes the time of the delete, or true, in place of deleting the row. Default: rows are deleted."},
		{Key: "heartbeat.interval", Aliases: []string{"debezium.heartbeat.interval"}, Kind: Duration, Default: "10s", Min: 100 * ms, Max: hour, Scope: Pipeline,
			Help: "How often an idle source is moved forward, so that its server can remove log that nobody needs."},
		{Key: "discovery.interval", Aliases: []string{"scan.newly-added-table.interval"}, Kind: Duration, Default: "30s", Min: second, Max: 24 * hour, Scope: Pipeline,
			Help: "How often the source is asked for new tables that match the globs."},
		{Key: "memory.limit", Aliases: []string{"taskmanager.memory.process.size"}, Kind: Size, Min: 64 * mB, Scope: Server,
			Help: "Budget for queues, buffers, caches and state. Default: 60 % of the machine's or the cgroup's memory."},
		{Key: "spill.dir", Aliases: []string{"io.tmp.dirs"}, Kind: Text, Scope: Server,
			Help: "Where transactions larger than their share of memory wait for their commit. Default: spill in the state directory."},
		{Key: "spill.bytes", Kind: Size, Default: "64 MB", Min: mB, Max: 16 * gB, Scope: Pipeline,
			Help: "Size above which a transaction that has not committed yet goes to disk."},
	}
}

// Find returns the option of a key or an alias.
func Find(key string) (Option, bool) {
	for _, o := range All() {
		if o.Key == key || slices.Contains(o.Aliases, key) {
			return o, true
		}
	}
	return Option{}, false
}

// Keys lists all keys and aliases, keys first.
func Keys() []string {
	var keys, aliases []string
	for _, o := range All() {
		keys = append(keys, o.Key)
		aliases = append(aliases, o.Aliases...)
	}
	return append(keys, aliases...)
}
