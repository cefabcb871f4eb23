// Package testenv promises a real database server in about a second, and that nothing of it is left when the test ends.
//
// A test names a version and gets a running Postgres of that version, listening on 127.0.0.1 only, with logical
// replication switched on. A version that is not on this machine is fetched; if that cannot be done the test fails with
// the command that would repair it. A test never skips, because a skipped test looks like a passed one.
//
// Nothing is left behind: t.Cleanup stops and deletes a server, a watcher process does the same when the test process
// dies without cleaning up, and the next start sweeps what even the watcher did not get to. That and the servers are
// internal/scratch, which knows nothing of tests; this package adds the versions, the helpers and the proxy.
//
// The package also breaks things on purpose: Kill ends a server as a power cut would, and a Proxy between client and
// server cuts, stalls or swallows what passes.
//
// It is a shell package: it uses the operating system directly, and only tests and the benchmarks import it.
package testenv
