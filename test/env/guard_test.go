package testenv

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestCleanupLeavesNothing(t *testing.T) {
	var s *Server
	var pid int
	t.Run("killed", func(t *testing.T) {
		s = Postgres(t, 15, FsyncOff())
		pid = s.PID()
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
	})
	if alive(pid) || exists(s.Dir) {
		t.Errorf("server alive %t, directory exists %t", alive(pid), exists(s.Dir))
	}
}
