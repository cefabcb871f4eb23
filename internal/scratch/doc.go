// Package scratch promises a real Postgres server in a few seconds, and that nothing of it is left when it is closed or
// when this process ends, however it ends.
//
// It uses the programs of a Postgres that is on the machine (Find), or installs the distribution's package where root
// may do that (Install). A server listens on 127.0.0.1 only, with logical replication switched on, as the user postgres
// when this process runs as root.
//
// Close stops and deletes a server. A watcher process does the same when this process dies without cleaning up
// (guard.go); servers in directories of their own are also swept by the next start (rundir.go).
//
// It is a shell package: it uses the operating system directly. Tests reach it through test/env, `weir demo` uses it as
// it is. It knows nothing of the testing package, so that the binary does not carry that.
package scratch
