package errs

import (
	"fmt"
	"strings"
)

// Entry is what `weir help CODE` and docs/errors say about a code.
type Entry struct {
	Code    Code   `json:"code"`
	Name    string `json:"-"` // the constant in codes.go
	Title   string `json:"title"`
	Meaning string `json:"meaning"`
	Do      string `json:"do"`
}

// Lookup finds a code's entry. Case does not count.
func Lookup(code string) (Entry, bool) {
	for _, e := range Catalog() {
		if strings.EqualFold(string(e.Code), code) {
			return e, true
		}
	}
	return Entry{}, false
}

// Part names the part of weir that a code's first digit stands for.
func (c Code) Part() string {
	if len(c) != 5 {
		return ""
	}
	switch c[1] {
	case '1':
		return "sources"
	case '2':
		return "SQL"
	case '3':
		return "engine"
	case '4':
		return "sinks"
	case '5':
		return "cluster and state"
	case '6':
		return "configuration"
	}
	return ""
}

// Text is the entry for a terminal.
func (e Entry) Text() string {
	return fmt.Sprintf("%s: %s\n\nWhat it means\n%s\n\nWhat to do\n%s\n", e.Code, e.Title, indent(e.Meaning), indent(e.Do))
}

// Markdown is the entry's page in docs/errors.
func (e Entry) Markdown() string {
	return fmt.Sprintf("# %s: %s\n\nPart: %s\n\n## What it means\n\n%s\n\n## What to do\n\n%s\n",
		e.Code, e.Title, e.Code.Part(), e.Meaning, e.Do)
}

// IndexMarkdown is docs/errors/README.md.
func IndexMarkdown() string {
	var b strings.Builder
	b.WriteString("# Error codes\n\nA code once released keeps its meaning. `weir help CODE` prints the same text.\n")
	part := ""
	for _, e := range Catalog() {
		if p := e.Code.Part(); p != part {
			part = p
			fmt.Fprintf(&b, "\n## %s\n\n", strings.ToUpper(p[:1])+p[1:])
		}
		fmt.Fprintf(&b, "- [%s](%s.md) %s\n", e.Code, e.Code, e.Title)
	}
	return b.String()
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(wrap(s, 96), "\n", "\n  ")
}

// wrap breaks lines at spaces. Lines that are short already stay as they are.
func wrap(s string, width int) string {
	var out []string
	for _, line := range strings.Split(s, "\n") {
		for len(line) > width {
			i := strings.LastIndexByte(line[:width], ' ')
			if i <= 0 {
				break
			}
			out, line = append(out, line[:i]), line[i+1:]
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// Catalog lists every code in order. A test compares it with codes.go and with docs/errors.
func Catalog() []Entry {
	return []Entry{
		{SourceUnreachable, "SourceUnreachable", "the source database does not answer",
			"weir could not open a connection to the source, or lost it and could not open another. A running pipeline keeps trying with growing pauses; its slot keeps the log, so nothing is lost while the slot's WAL limit holds.",
			"Check host, port, TLS mode and firewall with psql from the same machine. Check that the user may log in and, for replication, that pg_hba.conf admits the connection. `weir doctor SOURCE` names the step that fails."},
		{SourcePreflight, "SourcePreflight", "the source is not ready to be mirrored",
			"At least one check of the source is fatal: a setting such as wal_level, a missing privilege, no free replication slot, or a table that cannot be mirrored as it is. Nothing was changed.",
			"Run `weir doctor SOURCE TARGET`: each finding comes with the SQL that repairs it. Some settings need a restart of the server; the finding says so."},
		{SlotLost, "SlotLost", "the replication slot is lost",
			"The source server removed log that the slot still needed, usually because max_slot_wal_keep_size was exceeded while weir was stopped or slow, or because someone dropped the slot. The changes in that log cannot be read any more, so going on would silently lose rows; weir stops instead.",
			"Only a new copy repairs this, and `weir sources refresh` cannot make it, because what is missing concerns every table. Raise max_slot_wal_keep_size if it was exceeded. Then `weir pipelines delete NAME --wait`, empty or drop the pipeline's tables on the target, and give the same `weir mirror` command again. A first copy does not replace rows: where some are left it stops at the first duplicate key (W4003), and a table without a key would hold them twice. If `weir mirror` has ended, start `weir server` on the same state directory for the delete. `weir sources list` shows how much log a slot keeps and where the limit is, also while a pipeline is paused or has failed."},
		{SlotGap, "SlotGap", "the slot starts after the position that the target holds",
			"The slot can deliver changes only from a later position than the last one the target has. The changes between the two are missing. This follows a slot that was dropped and made again, advanced by hand, or a failover to a standby that did not carry the slot.",
			"Only a new copy repairs this: delete the pipeline, empty or drop its tables on the target and mirror again, as `weir help W1003` tells. On Postgres 17 and later create failover slots and list them in synchronized_standby_slots, so that a failover keeps the position."},
		{SlotInUse, "SlotInUse", "another process reads the replication slot",
			"The server reports that the slot is active for another backend. Either another weir (or another tool) uses the same slot, or the server has not yet noticed that an old connection is gone.",
			"Find the reader: SELECT pid, application_name, client_addr FROM pg_stat_replication. If it is an old connection of weir it ends by wal_sender_timeout; weir keeps trying. If it is another program, give this pipeline a slot of its own with --set slot.name=NAME."},
		{SourceReplaced, "SourceReplaced", "the source is not the database that the mirror began with",
			"The system identifier, the timeline or the database differs from what the pipeline recorded: a restored backup, a promoted standby that was behind what is mirrored, or a URL that now points elsewhere. Positions of one server mean nothing on another.",
			"Point the connection back at the original server. If the change is intended, delete the pipeline, empty or drop its tables on the target and mirror again from the new server, as `weir help W1003` tells."},
		{PublicationMissing, "PublicationMissing", "the publication does not exist or does not cover the tables",
			"weir reads through a publication. It was dropped, or it does not hold a table that the pipeline mirrors, or it sends other rows or fewer columns of one than the pipeline takes: a publication named by publication.name is used as it is.",
			"Let weir create it (leave publication.name unset and grant CREATE on the database), or run the SQL in the message as the owner of the tables, `weir pipelines resume NAME`, and copy anew what the message names: `weir sources refresh TABLE`. Without the refresh the target keeps the rows and columns that the publication sent, or left out, until then."},
		{TableUnsupported, "TableUnsupported", "a table cannot be mirrored as it is",
			"The table has something that the log does not carry or that cannot be applied exactly: for example no key and REPLICA IDENTITY DEFAULT while it receives updates, an unlogged or temporary table, a column type that the target lacks, or a partition whose own replica identity does not cover its root's.",
			"Follow the fix in the message, often ALTER TABLE ... REPLICA IDENTITY FULL or a primary key, or leave the table out with --except. Where the mirror was running, copy the table anew as well, so that it gets past the place in the log: `weir sources refresh TABLE`, then `weir pipelines resume NAME`."},
		{NoTables, "NoTables", "no table matches",
			"The globs of --tables and --except together select no table of the source database. System schemas and weir's own schema _weir are never selected.",
			"Check the spelling and the schema: 'public.*' selects one schema, '*.*' all of them. `weir mirror SOURCE TARGET --tables '...' --dry-run` lists what is selected."},
		{SourceProtocol, "SourceProtocol", "the source sent something that does not follow the replication protocol",
			"A message of the log stream could not be decoded. Applying the rest would mean guessing, so the pipeline stops at the last whole transaction.",
			"Check for a proxy between weir and the server: it must pass replication connections unchanged. Otherwise this is a defect of weir; report it with the message."},
		{SourceSchemaChange, "SourceSchemaChange", "a schema change that the target does not follow",
			"The source changed a table in a way that schema.change.behavior does not let through, or that cannot be carried out on the target without losing data.",
			"Make the change on the target by hand and resume the pipeline, or choose another schema.change.behavior: evolve follows what it can, lenient keeps the target a superset, ignore leaves the target alone."},
		{RowFilterUnsupport, "RowFilterUnsupport", "a row filter cannot be used",
			"The condition in --filter or WHERE TABLE cannot be evaluated for every change: it names columns that are not part of the replica identity, calls a function that the server forbids in publications, or the server is older than Postgres 15.",
			"Use only columns of the key, or set REPLICA IDENTITY FULL on the table. Functions must be immutable and built in."},
		{SourceStream, "SourceStream", "the change stream broke off",
			"The replication connection ended: the server was restarted, closed the stream, or the network failed. No change is lost; the slot keeps what was not confirmed.",
			"Nothing, if it happens once: weir connects again. If it repeats, look at the server's log at that time and at wal_sender_timeout. A mirror that stops because a database in SQL_ASCII holds text that is not UTF-8 waits for you: put the rows right at the source, then copy anew (`weir pipelines delete NAME --wait`, empty its tables on the target, and the same `weir mirror` again), because the log keeps the old bytes."},
		{TableUnknown, "TableUnknown", "the table is not part of the pipeline",
			"A command or an entry of the log names a table that the pipeline does not mirror.",
			"`weir pipelines get NAME` lists its tables; `weir pipelines tables add NAME TABLE` adds one while the others keep running."},
		{SourceRecord, "SourceRecord", "a record of a source cannot be read",
			"A line, row or message of a source does not fit its format or the columns of its table: broken CSV or JSON, a number out of range, NULL in a column that is NOT NULL. The message names the file, the line and the column.",
			"Correct the record, or the column's type, and resume the pipeline: it goes on with the same record. With the format's ignore-parse-errors a bad field is NULL and a bad record is left out."},
		{SourceFile, "SourceFile", "a file of a source cannot be read",
			"The path of a filesystem table does not exist, holds nothing that matches, or a file of it cannot be opened, is damaged, or has changed since it was read in part.",
			"Check the path and its permissions for the user that weir runs as. Files of a table are written elsewhere and renamed into its directory when they are complete; a file that is there must not change."},

		{SQLSyntax, "SQLSyntax", "the SQL text cannot be read",
			"At the marked place something else was expected.",
			"Look at the caret and the hint. Strings take single quotes ('it''s'), identifiers double quotes or backticks, and a statement ends with a semicolon."},
		{SQLNotBuilt, "SQLNotBuilt", "a statement that this release does not run yet",
			"The statement is known Flink SQL, but this release of weir has no implementation for it. The rest of the file was not started, because half a pipeline would be worse than none.",
			"Take the statement out, or use a release that has it; CHANGELOG.md says what each one brings."},
		{SQLUnknownName, "SQLUnknownName", "a name that nothing defines",
			"The statement refers to a connection, table or column that neither the file nor the catalog knows.",
			"Check the spelling against the hint, or create it first: CREATE CONNECTION must stand before the statement that uses it."},
		{EvalRange, "EvalRange", "a number does not fit its type",
			"For a row the result of an expression is outside of what its type holds: an integer overflow, a DECIMAL with too many digits before the point, a date beyond the calendar. weir does not wrap around or cut, because a wrong number is worse than none.",
			"Compute in a wider type: CAST(x AS BIGINT), CAST(x AS DECIMAL(38, 4)) or CAST(x AS DOUBLE) inside the expression, before the operation that overflows. TRY_CAST gives NULL where a cast does not fit."},
		{EvalDivisionByZero, "EvalDivisionByZero", "division by zero",
			"For a row the divisor of / or % was 0.",
			"Guard it: x / NULLIF(y, 0) is NULL there, and CASE WHEN y <> 0 THEN x / y END is computed only for the rows that take the branch."},
		{EvalCast, "EvalCast", "a value cannot be cast",
			"For a row CAST met a value that the target type does not have: text that is not a number, a date that does not exist.",
			"TRY_CAST gives NULL for such values. The message shows the value; look for it at the source."},
		{EvalArgument, "EvalArgument", "a function cannot take a value",
			"For a row an argument is outside of what the function is defined for: the logarithm of a negative number, a path that is not a JSON path, a result that would be larger than a value may be.",
			"Guard the call with CASE, or repair the value at the source."},
		{SQLTypeMismatch, "SQLTypeMismatch", "types that do not go together",
			"An operator, a function, a cast or an INSERT was given types that it has no rule for. The message says what was given and what is taken.",
			"Cast one side: CAST(x AS T) converts wherever Flink SQL can, TRY_CAST gives NULL for values that have no counterpart."},
		{SQLUnknownFunction, "SQLUnknownFunction", "no function of that name",
			"The statement calls a function that weir does not have.",
			"Check the spelling against the hint; SHOW FUNCTIONS lists what there is."},
		{SQLGrouping, "SQLGrouping", "a column or aggregate that does not fit the grouping",
			"With GROUP BY or an aggregate, each row of the result stands for a group: a column that is not grouped by has no single value there, and an aggregate may stand in SELECT, HAVING and ORDER BY only.",
			"Add the column to GROUP BY, or aggregate it (MAX, MIN, ...). Compute an aggregate of an aggregate in a subquery of FROM."},
		{SQLConnector, "SQLConnector", "a table or view that cannot be made as it is written",
			"The connector is not known, an option is given twice or is wrong, a name is taken, or a table is read or written that its connector only writes or reads.",
			"The hint names what is known. Flink's option names work as they are."},
		{SQLUpdates, "SQLUpdates", "a query changes rows, and the table takes only inserts",
			"The result of an aggregate, an outer join or a Top-N changes as its input grows: rows are taken back and replaced. The table's connector can only add rows, or it has no primary key by which to find the row that is replaced.",
			"Declare a PRIMARY KEY (..) NOT ENFORCED on the table, write to a connector that takes changes, or serve the result with CREATE MATERIALIZED VIEW."},
		{SQLUnbounded, "SQLUnbounded", "state that grows without bound",
			"A warning: what the query has to remember grows with its input for as long as it runs.",
			"If that is not meant, add a condition that says which rows belong together, or a bound on time."},

		{EngineInternal, "EngineInternal", "something failed that weir has no better name for",
			"An unexpected failure. What is durable stays so: a pipeline goes on from its last checkpoint.",
			"Read the cause in the message. If it does not point at your environment, report it with the message and the log lines around it."},
		{PipelineNotFound, "PipelineNotFound", "no pipeline of that name",
			"The catalog of this server or state directory has no pipeline of that name.",
			"`weir pipelines list` shows the names. Check --addr and --state: each state directory has a catalog of its own."},
		{PipelineExists, "PipelineExists", "a pipeline of that name exists with another definition",
			"Starting it again with the same definition would resume it, but the definition given differs from the stored one.",
			"Choose another name with --name, or delete the old one with `weir pipelines delete NAME`. Tables are added and removed with `weir pipelines tables`."},
		{PipelineState, "PipelineState", "the pipeline is in a state that does not allow this",
			"For example a cut-over of a pipeline that is paused or has failed, a refresh while a mirror is being prepared or its first copy is not complete, or adding tables to one that is being deleted.",
			"`weir pipelines get NAME` shows its phase and its last error. `weir pipelines resume NAME` starts one that is paused or whose cause of failure is gone."},
		{NotCaughtUp, "NotCaughtUp", "the target has not caught up with the source",
			"The command needs a target that holds everything the source has committed, and changes are still on their way.",
			"Wait for the phase live with a lag of zero (`weir pipelines get NAME --watch`), stop writes to the source, and try again; --timeout makes the command wait longer."},

		{SnapshotTooOld, "SnapshotTooOld", "snapshot too old",
			"A reader holds an epoch of the views: a transaction block, or a query whose result is being fetched. While it does, the old rows of everything that changes are kept for it. It held the epoch for too long, or too much changed meanwhile, so the old rows were given up and what the reader would get now would not be of one moment.",
			"Read again. Keep transaction blocks short, and do not pause while a large result is fetched; a result that is wanted in full and slowly is better written out by a sink."},
		{QueryMemory, "QueryMemory", "a query needs too much memory",
			"A query of a Postgres client keeps what it joins, groups or sorts in memory while it runs, and that became more than one query may take. The pipelines are not touched by it.",
			"Ask for less: a narrower condition, fewer columns, no ORDER BY over everything. What is asked again and again is better a view of its own, which is kept up to date beside the others."},
		{TargetUnreachable, "TargetUnreachable", "the target database does not answer",
			"weir could not open a connection to the target, or lost it and could not open another, or it takes no writes for now: it is read-only, a standby, or its disk is full. A running pipeline keeps trying; no change is lost or applied twice meanwhile.",
			"Where the message is about a disk or a read-only transaction, make room, or let the target take writes. Otherwise check host, port, TLS mode, user and the target's connection limit. `weir doctor SOURCE TARGET` names the step that fails."},
		{Fenced, "Fenced", "a newer run of the pipeline owns the target",
			"The ledger on the target carries a higher generation: the same pipeline was started elsewhere; or the same one, which a copy of the state directory has counted up to as well. This run refuses to write, which is what keeps every row exactly once.",
			"Nothing, if the other run is intended. Otherwise stop that one; the next start here takes the target back."},
		{TargetRejected, "TargetRejected", "the target refused a change",
			"The target answered with an error that will not go away by trying again: a violated constraint, a missing privilege, a trigger that raises, a value out of range. The checkpoint that holds the change was rolled back as a whole.",
			"The message holds the server's own words, the table and the key. Repair the cause on the target and `weir pipelines resume NAME`: it goes on with the same change. Where rows of a table are in the way, `weir sources refresh TABLE` before that copies it anew and passes them over. A view over a column, or whatever else the message names, has to go first. Duplicate keys in the first copy mean that the target's tables were not empty: `weir pipelines delete NAME --wait`, empty or drop them, and mirror again. Do not empty them and resume: ranges that are copied already would not come again."},
		{TargetDDL, "TargetDDL", "a statement that prepares the target failed",
			"Creating a schema, table, index or type on the target failed. The message holds the statement.",
			"Grant CREATE on the database and schema, or create the object by hand; objects that exist and fit are used as they are."},
		{TargetRowMissing, "TargetRowMissing", "an update or delete found no row on the target",
			"The target lacks a row that the source has changed or deleted. Somebody else wrote to the target, or the table was filled by other means. on.missing.row decides whether this stops the pipeline (error), or is only counted (warn).",
			"Run `weir mirror verify SOURCE TARGET` to see how far the two differ, and take write privileges on the target away from others. `weir sources refresh TABLE` copies the table again; a pipeline that has failed does so when it is resumed (`weir pipelines resume NAME`)."},
		{TargetConflict, "TargetConflict", "changes collide with rows on the target",
			"Rows of one transaction pass through states that the target's unique constraints do not allow in the order used, or rows are there that the mirror did not write. weir learns from the first refusal, which the log tells at level info, and starts again at once with an order that takes touched rows out before it puts them back; this error says that it did not help either.",
			"Make unique constraints that the source does not have deferrable or drop them on the target, and check for rows that others wrote."},
		{TargetTable, "TargetTable", "a table on the target does not fit",
			"The target's table is missing, or lacks a column, or has a column whose type cannot take the source's values, or a required column that the source does not have.",
			"Follow the fix in the message, or drop the table and let the mirror create it, or route the source's table to another name with --route."},
		{TargetFile, "TargetFile", "a file of a target cannot be written",
			"Creating, writing, syncing or renaming a file in the directory of a filesystem table failed. A checkpoint's files become visible by renaming, so a reader sees none that is half written. A directory in which another pipeline has written is refused: its checkpoints would be taken for those of this one.",
			"Check free space and the permissions of the directory for the user that weir runs as. The pipeline tries again; a checkpoint that is already there is not written twice. Give each pipeline a directory of its own, and empty it, hidden files too, before a pipeline that was deleted is made again."},
		{InsertOnly, "InsertOnly", "the target takes only inserts",
			"The query changes or takes back rows that it gave before, and this target can only add rows: to write a new row without taking the old one away would leave both.",
			"Write the changes themselves with 'sink.changelog' = 'true', which adds a column op; or write to a target that updates by key; or make the query insert-only, for example by a window."},

		{StateLocked, "StateLocked", "another process uses the state directory",
			"A state directory belongs to one process at a time. Two would overwrite each other's catalog.",
			"Use the running one (client commands find it by --state; a weir server also takes the mirrors of weir mirror and weir run), stop it, or give this one a directory of its own with --state DIR."},
		{StateCorrupt, "StateCorrupt", "a file in the state directory is damaged",
			"A checksum or a length does not match. weir does not guess at what a damaged file meant.",
			"Restore the state directory from a copy. If there is none, move it away and start again: mirrors keep their position on the target, so what is lost is the list of pipelines and the secrets. Check the disk."},
		{NotReachable, "NotReachable", "no weir server answers",
			"A command that talks to a running weir found none at the address it tried.",
			"Start one with `weir server`, `weir run` or `weir mirror`, or name it with --addr HOST:PORT or by its state directory with --state DIR."},
		{RaftFailed, "RaftFailed", "the replicated catalog cannot take a decision",
			"The catalog's log could not be written, or no leader could be elected in time. Pipelines that run go on until they need a decision.",
			"Read the cause: a full or failing disk on a single node, lost peers in a cluster."},
		{DiskFailed, "DiskFailed", "the disk failed",
			"Reading, writing or syncing a file of the state directory failed. After a failed sync nothing about that file can be trusted, so the process ends rather than go on.",
			"Check free space, quotas and the disk's health, then start weir again: it recovers from the last checkpoint."},
		{StateLogDamaged, "StateLogDamaged", "the state log is damaged",
			"Joins and aggregates keep their state on disk in two places: tables, and a log of what each checkpoint changed, which reaches further. A part of the log that the last checkpoint needs is missing or fails its checksum, or tables and log do not belong to the checkpoint that the catalog names, for example because only one of them was restored from a backup. The message names the file and the place in it. weir does not go on with a state that may be wrong.",
			"Check the disk. Restore the whole state directory from a copy that was made while weir was stopped. If there is none, delete the pipeline and create it again: it then reads its sources from the beginning. `weir debug delta FILE` shows what can be read of the log."},

		{BadFlag, "BadFlag", "the command line cannot be used as given",
			"An unknown command or flag, a missing argument, or a value that the flag does not take.",
			"`weir help COMMAND` shows arguments, flags and examples; the hint names the nearest spelling."},
		{BadURL, "BadURL", "not a connection string",
			"A source or target is named by a URL or by libpq's key=value form, and this text is neither; or a file that it names with sslrootcert, sslcert or sslkey cannot be read.",
			"Write postgres://USER@HOST:PORT/DATABASE?sslmode=require. Inside user and password write @ as %40, / as %2F and % as %25."},
		{SecretMissing, "SecretMissing", "a secret that nothing defines",
			"A reference ${secret:NAME} or ${env:NAME} has no value: the state directory holds no such secret, or the environment no such variable.",
			"`weir secrets set NAME` stores one (it reads the value from the terminal or from standard input). `weir secrets list` shows the names. Check --state: secrets belong to a state directory."},
		{UnknownOption, "UnknownOption", "an option that does not exist or a value it does not take",
			"Options are checked before anything starts, because a misspelled option that is ignored is worse than an error.",
			"`weir config explain KEY` shows type, default and meaning; docs/options.md lists all of them; the hint names the nearest one."},
		{AddressBusy, "AddressBusy", "an address is in use",
			"Another process listens on the address that was asked for by name. A busy default port moves to the next free one by itself.",
			"Stop the other process or choose another address, for example --http-addr 127.0.0.1:0 for any free port."},
		{NotBuiltYet, "NotBuiltYet", "not built yet",
			"The design of weir has this, this release does not.",
			"CHANGELOG.md says what each release brings."},
		{BadPattern, "BadPattern", "a pattern cannot be used",
			"A glob over tables or columns, or the pair of globs of a route, does not make sense: a missing schema, an empty part, or a route whose stars do not match up. Or it is a pattern of --exclude-column or --filter that matches nothing the source has, so that what was to stay would be copied.",
			"Tables are named schema.table and columns schema.table.column; * stands for any text within one part and ? for one character; the stars of a route's left side fill those of its right side in order. Quote patterns so that the shell leaves them alone."},
	}
}
