package testenv

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"
)

// childVariable makes the test binary a program that starts a server and waits to be killed (TestOwnerDies).
const childVariable = "WEIR_TEST_ENV_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		runChild()
		return
	}
	Main(m, CheckLeaks())
}

func runChild() {
	s, err := startTemporary(context.Background(), 15, Config{FsyncOff: true})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(s.Dir, s.mu.process.pid(), s.guard.cmd.Process.Pid)
	_, _ = io.Copy(io.Discard, os.Stdin) // until killed
}
