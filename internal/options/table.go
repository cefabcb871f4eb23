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
	SlotName Kind = "slot name"
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
		{Key: "checkpoint.interval", Aliases: []string{"execution.checkpointing.interval"}, Kind: Duration, Default: "0s", Min: 0, Max: hour, Scope: Pipeline,
			Help: "The shortest time between two checkpoints. 0s makes one whenever the last is done and changes wait: at once under low load, in larger ones as the load grows. Without changes there is none. A pipeline of queries takes 50ms unless it is set."},
		{Key: "parallelism", Aliases: []string{"parallelism.default"}, Kind: Int, Default: "1", Min: 1, Max: 256, Scope: Pipeline,
			Help: "How many tasks work on each part of a query, each on its share of the keys. A pipeline may be started again with another value."},
		{Key: "state.key-groups", Kind: Int, Default: "256", Min: 1, Max: 65536, Scope: Pipeline,
			Help: "Into how many groups the keys of a query's state are divided, a power of two. Tables grow by the group, and a group moves between tasks as a whole."},
		{Key: "table.local-time-zone", Kind: Text, Scope: Pipeline,
			Help: "The time zone of a query's local times, such as Europe/Berlin. Default: UTC."},
		{Key: "schema.change.behavior", Kind: Enum, Values: []string{"evolve", "try_evolve", "lenient", "ignore", "exception"}, Default: "evolve", Scope: Pipeline,
			Help: "What a schema change of the source does to the target. evolve applies it and stops the pipeline if the target refuses; try_evolve goes on with the old columns if the target refuses; lenient never drops or narrows anything on the target (a dropped column stays and becomes nullable, a rename adds a column); ignore leaves the target alone; exception stops the pipeline at the first change."},
		{Key: "slot.name", Kind: SlotName, Scope: Pipeline,
			Help: "Replication slot to use. Default: weir_<database>_<8 hex digits of the installation>_<6 of the pipeline's name>, made when missing."},
		{Key: "slot.failover", Kind: Bool, Default: "false", Scope: Pipeline,
			Help: "From Postgres 17 on: make the slot one that standbys keep in step, so that a promoted standby can be read from where the primary ended. A source that is older ignores it."},
		{Key: "slot.shared", Kind: Bool, Default: "true", Scope: Pipeline,
			Help: "Read one slot together with other mirrors of the same database in this process, as long as all of them keep up, so that the server decodes its log once. A mirror that falls behind goes on with its own slot by itself. Mirrors with left-out columns, row filters, slot.name, publication.name or slot.failover, and sources that are standbys, do not share."},
		{Key: "slot.ring.bytes", Kind: Size, Default: "16 MB", Min: mB, Max: gB, Scope: Pipeline,
			Help: "How much of a shared slot's stream is held in memory for the mirrors that read it. One that falls behind by more goes on with its own slot. The largest value of those who share counts."},
		{Key: "publication.name", Kind: Text, Scope: Pipeline,
			Help: "Publication to use. Default: the slot's default name, made when missing. A publication given here is used as it is and never changed."},
		{Key: "snapshot.mode", Aliases: []string{"debezium.snapshot.mode"}, Kind: Enum, Values: []string{"initial", "never"}, Default: "initial", Scope: Pipeline,
			Help: "The first copy. initial copies, then follows; never only follows from the moment the mirror is made, the target being filled already."},
		{Key: "snapshot.parallelism", Kind: Int, Default: "2", Min: 1, Max: 64, Scope: Pipeline,
			Help: "How many ranges of tables are copied at once. Each takes a connection on either side."},
		{Key: "snapshot.chunk.bytes", Kind: Size, Default: "64 MB", Min: mB, Max: 4 * gB, Scope: Pipeline,
			Help: "About how much of a table with an integer key one range of the first copy holds. A range is what is copied again after a crash; a table without an integer key is one range."},
		{Key: "sink.batch.bytes", Kind: Size, Default: "8 MB", Min: 4 * kB, Max: gB, Scope: Pipeline,
			Help: "How many bytes of changes are held before they are sent into the target's open transaction, at most. A larger source transaction takes several sends, still in one transaction."},
		{Key: "sink.lanes", Kind: Int, Default: "1", Min: 1, Max: 16, Scope: Pipeline,
			Help: "On how many connections changes are committed at the target. With more than one the tables are shared out among them and a transaction of the source is not one commit: a reader may see it in some tables before the others. Every table stays exact. It cannot be changed later. Large transactions are not written ahead then, and the slot is not shared."},
		{Key: "sink.synchronous_commit", Kind: Enum, Values: []string{"off", "on", "remote_write", "remote_apply"}, Default: "off", Scope: Pipeline,
			Help: "synchronous_commit of the target's transactions, with Postgres's meanings. With off, which is also what Postgres's own subscriptions use, the source is confirmed only what the target has flushed since, so that a crash of the target loses nothing."},
		{Key: "on.missing.row", Kind: Enum, Values: []string{"warn", "error"}, Default: "warn", Scope: Pipeline,
			Help: "What happens when an update or delete finds no row on the target, because somebody else changed it: count it (column missing of `weir pipelines get`) and go on, or stop the pipeline behind the checkpoint that met it."},
		{Key: "soft.delete.column", Kind: Text, Scope: Pipeline,
			Help: "A timestamptz column of the target's tables that takes the time of the delete, in place of deleting the row. Tables that weir makes get it; others must have it. Default: rows are deleted."},
		{Key: "heartbeat.interval", Aliases: []string{"debezium.heartbeat.interval"}, Kind: Duration, Default: "10s", Min: 100 * ms, Max: hour, Scope: Pipeline,
			Help: "How often the position of an idle source moves forward, so that its server can remove log that nobody needs."},
		{Key: "discovery.interval", Aliases: []string{"scan.newly-added-table.interval"}, Kind: Duration, Default: "2s", Min: 100 * ms, Max: 24 * hour, Scope: Pipeline,
			Help: "How often the source is asked for tables that are new or gone."},
		{Key: "memory.limit", Aliases: []string{"taskmanager.memory.process.size"}, Kind: Size, Min: 64 * mB, Scope: Server,
			Help: "What the process's memory is held to. Default: 160 MB, which is what mirrors need; 60 % of the machine's or the control group's once a pipeline of queries runs. The state of a pipeline of queries has half of it in memory, outside the collector's heap, and the rest on disk."},
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
