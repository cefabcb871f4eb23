package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
)

// Terminal is the process's own standard input, output, environment and clock.
func Terminal() IO {
	in, out, stderr := int(os.Stdin.Fd()), int(os.Stdout.Fd()), int(os.Stderr.Fd())
	return IO{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.LookupEnv,
		InTerminal: term.IsTerminal(in), OutTerminal: term.IsTerminal(out), ErrTerminal: term.IsTerminal(stderr),
		Width: func() int {
			for _, fd := range []int{out, stderr} {
				if w, _, err := term.GetSize(fd); err == nil {
					return w
				}
			}
			return 0
		},
		ReadSecret: func() (string, error) {
			b, err := term.ReadPassword(in)
			fmt.Fprintln(os.Stderr)
			return string(b), err
		},
		Now: time.Now,
		Sleep: func(ctx context.Context, d time.Duration) error {
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-t.C:
				return nil
			}
		},
	}
}

// errSignal is why a context ended; the exit code remembers which signal it was.
type errSignal struct{ sig syscall.Signal }

func (e errSignal) Error() string { return e.sig.String() }

// Process runs the command line of this process. The first interrupt asks the command to end well (a last checkpoint);
// the second ends the process at once with 130 or 143.
func (a *App) Process() int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	// The goroutine ends with the process: it has to be there for the second signal whatever the command does.
	go func() {
		first := true
		for s := range signals {
			sig, _ := s.(syscall.Signal)
			if !first {
				os.Exit(exitSignal + int(sig))
			}
			first = false
			fmt.Fprintln(a.IO.Err, "stopping; once more to end at once")
			cancel(errSignal{sig})
		}
	}()
	code := a.Main(ctx, os.Args[1:])
	var s errSignal
	if code == exitSignal+2 && errors.As(context.Cause(ctx), &s) {
		return exitSignal + int(s.sig)
	}
	return code
}
