package main

import (
	"context"

	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/options"
)

// app is the command table. Everything that is said about a command is said here.
func (p *program) app(io cli.IO) *cli.App {
	urlHelp := "a database: postgres://USER@HOST:PORT/DATABASE, libpq's key=value form, or a connection's name"
	source := cli.Arg{Name: "SOURCE", Help: urlHelp}
	target := cli.Arg{Name: "TARGET", Help: urlHelp}
	pipeline := cli.Arg{Name: "NAME", Help: "a pipeline", Complete: p.pipelineNames}
	globs := cli.Arg{Name: "TABLES", Help: "globs over schema.table", Many: true}
	name := cli.Flag{Name: "name", Value: "NAME", Help: "name of the pipeline (default mirror_<source database>)"}
	httpAddr := cli.Flag{Name: "http-addr", Value: "HOST:PORT", Help: "where to serve REST and metrics (default 127.0.0.1:7070, or the next free port)"}
	pgAddr := cli.Flag{Name: "pg-addr", Value: "HOST:PORT", Help: "where Postgres clients read views (default 127.0.0.1:7071, or the next free port)"}

	a := &cli.App{
		Name: "weir", Short: "weir mirrors databases exactly once", Version: p.versionLine(), IO: io,
		Long:    "One binary: a tool that mirrors one database into another, and a server that keeps mirrors running.",
		Planned: planned(),
	}
	a.Commands = []cli.Command{
		{Name: "demo", Short: "Show weir at work on databases of its own",
			Long: "Starts two Postgres servers with a shop under load, mirrors one into the other and verifies the copy; then joins orders of one database with payments of another, and keeps a report of them in a third (examples/orders). Everything lies in a temporary directory and is gone at the end.",
			Flags: []cli.Flag{
				{Name: "dir", Value: "DIR", Help: "keep everything in this directory, which must be empty"},
				{Name: "rate", Kind: cli.IntFlag, Value: "N", Default: "500", Help: "changes per second"},
				{Name: "for", Kind: cli.DurationFlag, Value: "DURATION", Help: "how long the shop is open after the copy (default: 30s)"},
				{Name: "crash", Kind: cli.BoolFlag, Help: "kill the mirror during the copy and every few seconds, to show that nothing is lost or doubled"},
				httpAddr},
			Examples: []cli.Example{{Line: "weir demo --crash", Says: "kill it again and again and verify the copy"}},
			Run:      p.demo},
		{Name: "doctor", Short: "Check what could go wrong before the first byte moves",
			Long: "Every finding says what was looked at; one that needs something done comes with the SQL that does it. A mirror of that name in the state directory that has begun is asked about with its slot. Exit code 2 when a finding is fatal, 3 when a server cannot be reached or does not let the role in.",
			Args: []cli.Arg{source, {Name: "TARGET", Help: urlHelp, Optional: true}}, Flags: append(selectionFlags(), name), Uses: cli.UsesSet,
			Examples: []cli.Example{
				{Line: "weir doctor postgres://shop/shop postgres://copy/shop"},
				{Line: "weir doctor postgres://shop/shop -o json | jq '.[] | select(.severity == \"fatal\")'", Says: "findings for a script"}},
			Run: p.doctor},
		{Name: "mirror", Short: "Mirror a database into another and keep it equal",
			Long: "Checks both sides, copies the tables and then follows every change until interrupted. Started again with the same arguments it goes on where it was. Passwords in URLs are moved to the secrets of the state directory before anything else happens. If weir server runs on the state directory, the mirror is handed to it; another weir mirror or weir run there refuses it. With -o json or -o ndjson each change of its phase is a record on standard output.",
			Args: []cli.Arg{source, target},
			Flags: append(selectionFlags(), name, httpAddr, pgAddr,
				cli.Flag{Name: "until-caught-up", Kind: cli.BoolFlag, Help: "end with exit code 0 when everything that the source had committed when the mirror went live, and so also all it had when this command began, is durable on the target"}),
			Uses: cli.UsesSet | cli.UsesDryRun,
			Examples: []cli.Example{
				{Line: "weir mirror postgres://shop/shop postgres://copy/shop --tables 'public.*' --dry-run", Says: "see what would be done"},
				{Line: "weir mirror postgres://shop/shop postgres://copy/shop --tables 'public.*' --except 'public.tmp_*' --route 'public.*=mirror.*'"},
				{Line: "weir mirror postgres://shop/shop postgres://copy/shop --until-caught-up && weir mirror verify postgres://shop/shop postgres://copy/shop"}},
			Run: p.mirror,
			Subs: []cli.Command{
				{Name: "verify", Short: "Compare source and target row by row",
					Long: "Reads both sides by ranges of the key and looks again at rows that differ, because changes may be on their way. Exit code 0 when all tables are equal, 10 when they differ.",
					Args: []cli.Arg{source, target},
					Flags: append(selectionFlags(),
						cli.Flag{Name: "parallelism", Kind: cli.IntFlag, Value: "N", Default: "4", Help: "ranges compared at once"}),
					Uses:     cli.UsesSet,
					Examples: []cli.Example{{Line: "weir mirror verify postgres://shop/shop postgres://copy/shop --tables 'public.*'"}},
					Run:      p.verify},
				{Name: "cutover", Short: "Make the target ready to take over from the source",
					Long: "Waits until the target holds every change, sets sequences, compares every row, gives foreign keys what the source has and ends the mirror. Stop writes to the source first.",
					Args: []cli.Arg{pipeline}, Uses: cli.UsesDryRun | cli.UsesYes | cli.UsesWait,
					Flags:    []cli.Flag{{Name: "force", Kind: cli.BoolFlag, Help: "go on although sessions are connected to the source that may write"}},
					Examples: []cli.Example{{Line: "weir mirror cutover mirror_shop --dry-run", Says: "list the steps"}},
					Run:      p.cutover},
			}},
		{Name: "run", Short: "Run the pipelines of an SQL file",
			Long:  "The queries of a file (CREATE TABLE, INSERT INTO, CREATE MATERIALIZED VIEW) are one pipeline, and each CREATE MIRROR is one of its own. A pipeline of queries whose sources end by themselves ends with them; everything else runs until interrupted, makes a last checkpoint then, and goes on from it when the same command is given again. A file that means something else is refused: what its pipeline has kept belongs to the queries that it had.",
			Args:  []cli.Arg{{Name: "FILE", Help: "SQL: CREATE TABLE, INSERT INTO, CREATE MATERIALIZED VIEW, CREATE CONNECTION, CREATE MIRROR, SET"}},
			Flags: []cli.Flag{{Name: "name", Value: "NAME", Help: "name of the pipeline of queries (default: the file's base name)"}, httpAddr, pgAddr, {Name: "until-caught-up", Kind: cli.BoolFlag, Help: "end with exit code 0 when all its mirrors have caught up: what their sources had committed when each went live, and so also when this command began, is durable on the targets"}},
			Uses:  cli.UsesSet | cli.UsesDryRun,
			Examples: []cli.Example{{Line: "weir run totals.sql --set parallelism=2"}, {Line: "weir run mirror.sql"},
				{Line: "weir run mirror.sql --dry-run", Says: "see what would be done"}},
			Run: p.run},
		{Name: "explain", Short: "Show how the queries of an SQL file are kept up to date",
			Args: []cli.Arg{{Name: "FILE", Help: "SQL with queries"}}, Uses: cli.UsesSet,
			Flags:    []cli.Flag{{Name: "name", Value: "NAME", Help: "name of the pipeline (default: the file's base name)"}},
			Examples: []cli.Example{{Line: "weir explain totals.sql"}}, Run: p.explain},
		{Name: "server", Short: "Keep pipelines running", Long: "Serves REST and metrics, starts the pipelines of its state directory and keeps them running until it is told to stop.",
			Flags: []cli.Flag{httpAddr, pgAddr, {Name: "allow-remote-without-authentication", Kind: cli.BoolFlag, Help: "serve an address beyond loopback although anybody who reaches it may do anything"}},
			Uses:  cli.UsesSet,
			Run:   p.server},
		{Name: "pipelines", Aliases: []string{"pipeline", "pl"}, Short: "Pipelines of a server", Subs: []cli.Command{
			{Name: "list", Aliases: []string{"ls"}, Short: "List pipelines", Uses: cli.UsesWatch, Run: p.pipelinesList},
			{Name: "get", Short: "Show one pipeline and its tables", Args: []cli.Arg{pipeline}, Uses: cli.UsesWatch, Run: p.pipelinesGet},
			{Name: "pause", Short: "Stop a pipeline with a last checkpoint", Long: "The slot stays and keeps the source's log, which grows meanwhile.", Args: []cli.Arg{pipeline}, Uses: cli.UsesWait, Run: p.pipelinesPause},
			{Name: "resume", Short: "Start a paused or failed pipeline", Args: []cli.Arg{pipeline}, Uses: cli.UsesWait, Run: p.pipelinesResume},
			{Name: "delete", Short: "Delete a pipeline, its slot and its ledger", Long: "The tables on the target stay.", Args: []cli.Arg{pipeline},
				Flags: []cli.Flag{{Name: "force", Kind: cli.BoolFlag, Help: "delete although the databases cannot be cleaned up; a slot that stays behind keeps the source's log"}},
				Uses:  cli.UsesYes | cli.UsesDryRun | cli.UsesWait, Run: p.pipelinesDelete},
			{Name: "tables", Short: "Tables of a running mirror", Subs: []cli.Command{
				{Name: "add", Short: "Add tables while the others keep running", Args: []cli.Arg{pipeline, globs}, Run: p.tablesAdd},
				{Name: "remove", Aliases: []string{"rm"}, Short: "Stop mirroring tables; their copies stay", Args: []cli.Arg{pipeline, globs}, Uses: cli.UsesYes, Run: p.tablesRemove},
			}},
		}},
		{Name: "sources", Aliases: []string{"source", "src"}, Short: "Source databases as their servers see them", Subs: []cli.Command{
			{Name: "list", Aliases: []string{"ls"}, Short: "List sources with slot, lag and retained log", Uses: cli.UsesWatch, Run: p.sourcesList},
			{Name: "get", Short: "Show one source", Args: []cli.Arg{{Name: "SOURCE", Help: "a source or its pipeline", Complete: p.sourceNames}}, Uses: cli.UsesWatch, Run: p.sourcesGet},
			{Name: "refresh", Short: "Copy tables anew while the others keep running", Long: "Tables are named by globs as in --tables, with names that hold a dot or a star in quotes. A pipeline that is paused or has failed copies them when it is resumed, and passes over what the log holds of them until then.",
				Args:  []cli.Arg{{Name: "TABLE", Help: "schema.table", Many: true}},
				Flags: []cli.Flag{{Name: "source", Value: "SOURCE", Help: "the source, if there are several", Complete: p.sourceNames}},
				Uses:  cli.UsesYes, Run: p.sourcesRefresh},
		}},
		{Name: "views", Aliases: []string{"view"}, Short: "Materialized views of pipelines of queries", Subs: []cli.Command{
			{Name: "list", Aliases: []string{"ls"}, Short: "List views with their columns and keys", Uses: cli.UsesWatch, Run: p.viewsList},
			{Name: "tail", Short: "Print the rows of a view, and then what changes, epoch by epoch", Long: "A row that comes is marked +, one that goes -; an update is both, in one epoch. With -o json every line is an object of its own. It ends when it is interrupted, when the pipeline ends or is started anew, and with an error when it cannot keep up.",
				Args:  []cli.Arg{{Name: "VIEW", Help: "a materialized view", Complete: p.viewNames}},
				Flags: []cli.Flag{{Name: "pipeline", Value: "PIPELINE", Help: "the view's pipeline, if several have one of that name", Complete: p.pipelineNames}},
				Run:   p.viewsTail},
		}},
		{Name: "checkpoints", Aliases: []string{"checkpoint"}, Short: "Checkpoints of pipelines of queries", Subs: []cli.Command{
			{Name: "list", Aliases: []string{"ls"}, Short: "List the last checkpoints of a pipeline that this process has made",
				Args: []cli.Arg{pipeline}, Uses: cli.UsesWatch, Run: p.checkpointsList},
		}},
		{Name: "state", Short: "State of pipelines of queries", Subs: []cli.Command{
			{Name: "size", Short: "Show what the state of each operator takes, as of the last checkpoint",
				Args: []cli.Arg{pipeline}, Uses: cli.UsesWatch, Run: p.stateSize},
			{Name: "get", Short: "Show what the state of a view or an operator has for a key", Long: "The key is the values of its columns, with commas in between. What lies there is shown as of now, also what is not visible yet: rows as rows where their columns are known, and as bytes elsewhere.",
				Args: []cli.Arg{pipeline, {Name: "NODE", Help: "a view, an operator's ID or the beginning of one, or a kind such as aggregate"}, {Name: "KEY", Help: "a key"}}, Run: p.stateGet},
		}},
		{Name: "secrets", Aliases: []string{"secret"}, Short: "Secrets of a state directory", Long: "Files that only their owner can read; definitions refer to them as ${secret:NAME}.", Subs: []cli.Command{
			{Name: "set", Short: "Store a secret read from the terminal or standard input", Long: "It is not an argument, because arguments are visible to every user of the machine and stay in the shell's history.",
				Args:     []cli.Arg{{Name: "NAME", Help: "letters, digits, _ and -", Complete: p.secretNames}},
				Examples: []cli.Example{{Line: "weir secrets set shop_password < password.txt"}}, Run: p.secretsSet},
			{Name: "list", Aliases: []string{"ls"}, Short: "List the names", Run: p.secretsList},
			{Name: "delete", Aliases: []string{"rm"}, Short: "Delete a secret", Args: []cli.Arg{{Name: "NAME", Help: "a secret", Complete: p.secretNames}}, Uses: cli.UsesYes, Run: p.secretsDelete},
		}},
		{Name: "config", Short: "Options and where they come from", Subs: []cli.Command{
			{Name: "explain", Short: "Show an option, its value in force and where that comes from",
				Args: []cli.Arg{{Name: "KEY", Help: "an option", Complete: func(context.Context, *cli.Call) []string { return options.Keys() }}},
				Uses: cli.UsesSet, Run: p.configExplain},
			{Name: "list", Aliases: []string{"ls"}, Short: "List all options with their values in force", Uses: cli.UsesSet, Run: p.configList},
		}},
		{Name: "debug", Short: "Look into weir's own formats", Subs: []cli.Command{
			{Name: "sql", Short: "Print an SQL file as weir reads it", Args: []cli.Arg{{Name: "FILE"}}, Run: p.debugSQL},
			{Name: "records", Short: "Print the records of a file in the state directory, with their checksums",
				Args:  []cli.Arg{{Name: "FILE"}},
				Flags: []cli.Flag{{Name: "bytes", Kind: cli.IntFlag, Value: "N", Default: "32", Help: "bytes of each payload to show"}}, Run: p.debugRecords},
			{Name: "raft", Short: "Print the entries of raft's log, which weir must not be using",
				Args:  []cli.Arg{{Name: "STATE", Help: "a state directory"}},
				Flags: []cli.Flag{{Name: "bytes", Kind: cli.IntFlag, Value: "N", Default: "120", Help: "bytes of each entry to show"}}, Run: p.debugRaft},
			{Name: "delta", Short: "Print the checkpoints in a file of the state log, or the records of one",
				Args: []cli.Arg{{Name: "FILE", Help: "a file named *.delta"}},
				Flags: []cli.Flag{{Name: "checkpoint", Value: "N", Help: "print the records of this checkpoint"},
					{Name: "bytes", Kind: cli.IntFlag, Value: "N", Default: "32", Help: "bytes of each value to show"}}, Run: p.debugDelta},
		}},
		{Name: "completion", Short: "Print the completion script of a shell",
			Args: []cli.Arg{{Name: "SHELL", Values: []string{"bash", "zsh", "fish", "pwsh"}}},
			Examples: []cli.Example{{Line: "weir completion bash > /etc/bash_completion.d/weir"},
				{Line: "weir completion zsh > \"${fpath[1]}/_weir\""}},
			Run: func(_ context.Context, c *cli.Call) error { return c.App.Completion(c.Arg(0)) }},
		{Name: "help", Short: "Explain a command or an error code",
			Args:     []cli.Arg{{Name: "TOPIC", Help: "a command's words, or a code such as W1003", Optional: true, Many: true}},
			Examples: []cli.Example{{Line: "weir help W1003"}, {Line: "weir help pipelines delete"}},
			Run:      func(_ context.Context, c *cli.Call) error { return c.App.PrintHelp(c) }},
		{Name: "version", Short: "Show the version of this binary and of the server", Run: p.showVersion},
		{Name: "docs", Short: "Write the manual pages and the generated documentation", Subs: []cli.Command{
			{Name: "markdown", Short: "docs/cli.md, docs/options.md and docs/errors below DIR", Args: []cli.Arg{{Name: "DIR"}}, Run: p.docsMarkdown},
			{Name: "man", Short: "Manual pages", Args: []cli.Arg{{Name: "DIR"}}, Run: p.docsMan},
		}},
	}
	return a
}

// planned are the words of the design that this release does not have.
func planned() []string {
	return []string{"apply", "backup", "bench", "cluster", "connectors", "ctx", "deploy", "dev", "dlq", "fmt", "generate",
		"import", "init", "lint", "logs", "lsp", "mcp", "plan", "preview", "raft", "savepoints", "sinks", "sql", "support", "tap", "test",
		"top", "ui", "upgrade", "workers",
		"--ctx", "--explain", "--join", "--node-addr", "--role"}
}
