// Command mirror promises a fair race between weir and the logical replication built into Postgres: the same two servers
// on the same machine, the same rows, in turns, one attached at a time, and no figure without equal contents at the end.
//
// It prints medians and their ratios, writes them to a file for other programs, and exits with 1 if a floor is missed or
// a replica differs from its source.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/weirstream/weir/test/bench/internal/lab"
	"github.com/weirstream/weir/test/bench/internal/proc"
	"github.com/weirstream/weir/test/bench/internal/report"
)

// version of the servers: the one that comes from the distribution, built the way most users' servers are.
const version = 15

type flags struct {
	weir  string
	out   string
	dir   string
	runs  int
	quick bool
	only  []int
	set   []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "mirror benchmark:", err)
		os.Exit(1)
	case !ok:
		os.Exit(1)
	}
}

func parse(args []string) (f flags, err error) {
	set := flag.NewFlagSet("mirror", flag.ContinueOnError)
	set.StringVar(&f.weir, "weir", "bin/weir", "the weir binary")
	set.StringVar(&f.out, "out", "build/bench/mirror.json", "where the figures go; the table lies beside it as .txt")
	set.StringVar(&f.dir, "dir", "", "directory of the servers, kept afterwards (default: a temporary one)")
	set.IntVar(&f.runs, "runs", 5, "runs of each side, in turns")
	set.BoolVar(&f.quick, "quick", false, "small sizes and one run, to try the benchmark itself; floors are not judged")
	set.Func("only", "numbers of the works to run, 1 to 10, comma-separated (default: all); memory is told with any of them", func(text string) error {
		for word := range strings.SplitSeq(text, ",") {
			id, err := strconv.Atoi(word)
			if err != nil || id < 1 || id >= memoryWork {
				return fmt.Errorf("%q is not a number from 1 to %d", word, memoryWork-1)
			}
			f.only = append(f.only, id)
		}
		return nil
	})
	set.Func("set", "KEY=VALUE option for weir; may be given several times (default: weir's defaults)", func(text string) error {
		f.set = append(f.set, text)
		return nil
	})
	if err := set.Parse(args); err != nil {
		return f, err
	}
	if f.quick && !given(set, "runs") {
		f.runs = 1
	}
	if f.runs < 1 {
		return f, fmt.Errorf("-runs %d: at least one run is needed", f.runs)
	}
	f.weir, err = exec.LookPath(f.weir)
	if err != nil {
		return f, fmt.Errorf("find weir: %w; hint: go build -o bin/weir ./cmd/weir", err)
	}
	f.weir, err = filepath.Abs(f.weir)
	return f, err
}

func given(set *flag.FlagSet, name string) (yes bool) {
	set.Visit(func(f *flag.Flag) { yes = yes || f.Name == name })
	return yes
}

func run(ctx context.Context, args []string) (ok bool, err error) {
	f, err := parse(args)
	if err != nil {
		return false, err
	}
	// Before the servers start: the load average is that of the machine without us.
	machine, err := proc.Machine()
	if err != nil {
		return false, err
	}
	pair, err := lab.Start(ctx, version, f.dir)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, pair.Close()) }()
	head, err := header(ctx, f, pair, machine)
	if err != nil {
		return false, err
	}
	b := &bench{pair: pair, flags: f}
	var records []report.Record
	for _, w := range works(sizesOf(f.quick)) {
		if len(f.only) > 0 && !slices.Contains(f.only, w.id) {
			continue
		}
		records = append(records, b.race(ctx, w)...)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
	if len(b.peaks) > 0 {
		memory := line{Line: report.Line{
			Work: fmt.Sprintf("%d peak memory of weir in any work", memoryWork), Unit: "MiB", Floor: report.Floor{Most: 256}}}
		records = append(records, b.judged(memory).Judge([]float64{slices.Max(b.peaks)}, nil))
	}
	if err := report.Write(f.out, head, records); err != nil {
		return false, err
	}
	return report.OK(records), report.Print(os.Stdout, head, records)
}

// header says what a reader has to know to repeat or to doubt the figures.
func header(ctx context.Context, f flags, pair *lab.Pair, machine string) ([]string, error) {
	settings, err := pair.Shown(ctx)
	if err != nil {
		return nil, err
	}
	name, err := exec.CommandContext(ctx, f.weir, "version", "--state", filepath.Join(pair.Dir(), "none")).Output()
	if err != nil {
		return nil, fmt.Errorf("ask weir for its version: %w", err)
	}
	inForce, err := weirOptions(ctx, f, pair)
	if err != nil {
		return nil, err
	}
	head := []string{
		"weir against Postgres's built-in logical replication",
		"machine  " + machine,
		"servers  both, on this machine, TCP over 127.0.0.1: " + settings,
		"peer     CREATE SUBSCRIPTION with its defaults (synchronous_commit=off, streaming=off, binary=off); its tables and keys were made before the clock started; it is resumed when its launcher would not make it wait",
		"weir     " + strings.TrimSpace(string(name)) + "; " + inForce + "; it makes tables and keys itself, on the clock, which starts with its process",
		fmt.Sprintf("runs     %d of each side, in turns, medians; ratios above 1: weir is better", f.runs),
	}
	if f.quick {
		head = append(head, "QUICK    small sizes, no floors: this shows that the benchmark works, not how fast anything is")
	}
	return head, nil
}

// weirOptions asks weir itself which values of the options that matter here are in force.
func weirOptions(ctx context.Context, f flags, pair *lab.Pair) (string, error) {
	args := []string{"config", "list", "--output", "csv", "--state", filepath.Join(pair.Dir(), "none")}
	for _, set := range f.set {
		args = append(args, "--set", set)
	}
	out, err := exec.CommandContext(ctx, f.weir, args...).Output()
	if err != nil {
		return "", fmt.Errorf("ask weir for its options: %w", err)
	}
	var shown []string
	for line := range strings.Lines(string(out)) {
		key, rest, _ := strings.Cut(strings.TrimSpace(line), ",")
		value, _, _ := strings.Cut(rest, ",")
		if slices.Contains([]string{"checkpoint.interval", "snapshot.parallelism", "snapshot.chunk.bytes", "sink.lanes", "sink.batch.bytes",
			"sink.synchronous_commit", "spill.bytes", "memory.limit"}, key) {
			shown = append(shown, key+"="+value)
		}
	}
	return strings.Join(shown, " "), nil
}
