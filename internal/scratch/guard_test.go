package scratch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestOwnerDies kills a process that has started a server, with SIGKILL. In the first case its guard ends the server,
// in the second the guard is dead as well and the next start of any server does it.
func TestOwnerDies(t *testing.T) {
	for _, name := range []string{"guard", "sweep"} {
		t.Run(name, func(t *testing.T) {
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), childVariable+"=1")
			stdin, err := child.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			stdout, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			var dir string
			var server, guard int
			line, _ := bufio.NewReader(stdout).ReadString('\n')
			if _, err := fmt.Sscan(line, &dir, &server, &guard); err != nil {
				t.Fatalf("child says %q: %v", line, err)
			}
			if name == "sweep" {
				if err := syscall.Kill(guard, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = child.Wait()
			if name == "sweep" {
				if !alive(server) {
					t.Fatal("the server ended without anybody's doing")
				}
				tempDir(t) // sweeps
				if alive(server) || exists(dir) {
					t.Errorf("after the sweep: server alive %t, directory exists %t", alive(server), exists(dir))
				}
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), startLimit)
			defer cancel()
			err = Poll(ctx, time.Millisecond, func() (bool, error) { return !alive(server) && !exists(dir), nil })
			if err != nil {
				t.Errorf("server alive %t, directory exists %t: %v", alive(server), exists(dir), err)
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestPortStaysReservedWhileNobodyListens(t *testing.T) {
	p, err := ReservePort(0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	seen := map[int]bool{p.Number: true}
	for range 200 {
		other, err := ReservePort(0)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Release()
		if seen[other.Number] {
			t.Fatalf("port %d was given away twice", other.Number)
		}
		seen[other.Number] = true
	}
}

func TestOnceFillsOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	failed := errors.New("failed")
	if err := Once(t.Context(), dir, func(string) error { return failed }); !errors.Is(err, failed) || exists(dir) {
		t.Fatalf("a failed attempt: error %v, directory exists %t", err, exists(dir))
	}
	var calls atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			err := Once(t.Context(), dir, func(tmp string) error {
				calls.Add(1)
				return os.WriteFile(filepath.Join(tmp, "file"), nil, 0o644)
			})
			if err != nil || !exists(filepath.Join(dir, "file")) {
				t.Errorf("error %v, file exists %t", err, exists(filepath.Join(dir, "file")))
			}
		})
	}
	wg.Wait()
	if calls.Load() != 1 {
		t.Errorf("filled %d times", calls.Load())
	}
}
