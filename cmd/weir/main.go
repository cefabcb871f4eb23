// Command weir mirrors databases exactly once. One binary is the tool, the embedded engine and the server.
//
// This package is wiring: it turns the command line into calls of the engine (registry.go) or of a running server, and
// answers into text. Each command is one function over those two interfaces, so that its tests need neither.
package main

import (
	"os"

	"github.com/weirstream/weir/internal/cli"
)

// version and commit are set by the linker.
var (
	version = "devel"
	commit  = ""
)

func main() {
	p := &program{engines: registry(), dial: dialREST, version: version, commit: commit, environment: realEnvironment, getwd: os.Getwd}
	os.Exit(p.app(cli.Terminal()).Process())
}
