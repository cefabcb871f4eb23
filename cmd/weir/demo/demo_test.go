package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/scratch"
	testenv "github.com/weirstream/weir/test/env"
)

// childVariable makes the test binary a demo with the weir that it names, for a test that kills it.
const childVariable = "DEMO_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if program := os.Getenv(childVariable); program != "" {
		err := Run(context.Background(), seeded(1), Options{Program: program, Rows: 5000, For: time.Hour, HTTPAddr: "127.0.0.1:0",
			Say: func(format string, args ...any) { fmt.Printf(format+"\n", args...) }})
		fmt.Println("error", err)
		os.Exit(1)
	}
	testenv.Main(m, testenv.CheckLeaks())
}

// seeded is the real machine with chance that can be repeated.
func seeded(seed uint64) *env.Env {
	e := env.Real(slog.New(slog.DiscardHandler))
	e.Rand = seededRand(seed)
	return e
}

type seededRand uint64

func (r seededRand) Stream(name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(uint64(r), h.Sum64()))
}

// TestDemo shows the demo with the real binary: to its end, and broken off in the two ways a user can do that. The
// machine's temporary directory is one of its own, which must be empty afterwards.
func TestDemo(t *testing.T) {
	program := filepath.Join(testenv.TempDir(t), "weir")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/weirstream/weir/cmd/weir").CombinedOutput(); err != nil {
		t.Fatalf("build weir: %v\n%s", err, out)
	}
	options := func(t *testing.T, said *transcript) Options {
		return Options{Program: program, Rows: 20_000, For: 6 * time.Second, HTTPAddr: "127.0.0.1:0", Say: func(format string, args ...any) {
			line := fmt.Sprintf(format, args...)
			t.Log(line)
			said.add(line)
		}}
	}
	t.Run("to the end", func(t *testing.T) {
		tmp := emptyTemp(t)
		var said transcript
		if err := Run(t.Context(), seeded(1), options(t, &said)); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Postgres ", "source: psql 'postgres://", "target: psql 'postgres://", "REST and metrics: http://127.0.0.1:",
			"kill -9 ", "the same command again", "ALTER TABLE customers", "the shop closes: ", "caught up after", "never off; the mirror was killed once",
			"equal: 7 tables", "$ weir run orders.sql", "kill -9 ", "the report is what both databases say"} {
			if !said.has(want) {
				t.Errorf("it did not say %q", want)
			}
		}
		if last := said.last(); !strings.HasPrefix(last, "next: ") {
			t.Errorf("its last line is %q", last)
		}
		nothingLeft(t, tmp)
	})
	for _, at := range []string{"starting two Postgres", "all tables are copied"} {
		t.Run("interrupted: "+at, func(t *testing.T) {
			tmp := emptyTemp(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			said := transcript{at: at, do: cancel}
			if err := Run(ctx, seeded(2), options(t, &said)); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want that it was canceled", err)
			}
			if !said.has("nothing is left") {
				t.Error("it did not say that nothing is left")
			}
			nothingLeft(t, tmp)
		})
	}
	t.Run("the mirror cannot start", func(t *testing.T) {
		tmp := emptyTemp(t)
		var said transcript
		o := options(t, &said)
		o.HTTPAddr = "127.0.0.1:1:1"
		if err := Run(t.Context(), seeded(3), o); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1:1") {
			t.Errorf("error %v does not say what the mirror said", err)
		}
		nothingLeft(t, tmp)
	})
	t.Run("killed", func(t *testing.T) {
		tmp := emptyTemp(t)
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childVariable+"="+program)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		defer child.Process.Kill()
		reached := false
		for lines := bufio.NewScanner(out); lines.Scan() && !reached; {
			t.Log(lines.Text())
			reached = strings.Contains(lines.Text(), "all tables are copied")
		}
		if !reached {
			t.Fatal("it ended before the tables were copied")
		}
		if err := child.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err = scratch.Poll(ctx, 20*time.Millisecond, func() (bool, error) {
			return len(left(t, tmp)) == 0, nil
		})
		if err != nil {
			t.Errorf("left: %v", left(t, tmp))
		}
	})
}

// transcript is what a demo has said. At a line it may do something.
type transcript struct {
	at string
	do func()
	mu struct {
		sync.Mutex
		lines []string
	}
}

func (s *transcript) add(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.lines = append(s.mu.lines, line)
	if s.do != nil && strings.Contains(line, s.at) {
		s.do()
	}
}

func (s *transcript) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(strings.Join(s.mu.lines, "\n"), text)
}

func (s *transcript) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.lines) == 0 {
		return ""
	}
	return s.mu.lines[len(s.mu.lines)-1]
}

// emptyTemp gives the demo a temporary directory of its own.
func emptyTemp(t *testing.T) string {
	dir := testenv.TempDir(t)
	tmp := filepath.Join(dir, "t")
	if err := errors.Join(os.Mkdir(tmp, 0o755), os.Chmod(tmp, 0o1777)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", tmp)
	return tmp
}

func nothingLeft(t *testing.T, tmp string) {
	t.Helper()
	if l := left(t, tmp); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
}

// left lists files in the directory and processes that work in it.
func left(t *testing.T, tmp string) (out []string) {
	entries, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	dirs, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range dirs {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, tmp) {
			out = append(out, link+" "+cwd)
		}
	}
	return out
}
