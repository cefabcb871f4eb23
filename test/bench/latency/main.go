// Command latency measures how long after its commit in Postgres a row can be read in a joined view: single-row orders,
// thousands of transactions a second, joined with their customers, and a reader over the Postgres protocol that asks all the
// time how far the view is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/weirstream/weir/test/bench/internal/proc"
	"github.com/weirstream/weir/test/bench/internal/report"
)

type flags struct {
	weir    string
	out     string
	rate    int
	seconds int
	runs    int
	set     string
}

func main() {
	var f flags
	flag.StringVar(&f.weir, "weir", "bin/weir", "the weir binary")
	flag.StringVar(&f.out, "out", "build/bench/latency.json", "where the figures go")
	flag.IntVar(&f.rate, "rate", 5000, "transactions a second")
	flag.IntVar(&f.seconds, "seconds", 10, "that are measured, after three of warm-up")
	flag.IntVar(&f.runs, "runs", 3, "runs")
	flag.StringVar(&f.set, "set", "", "SET statements for the pipeline")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, f)
	if err != nil {
		fmt.Fprintln(os.Stderr, "latency benchmark:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, f flags) (ok bool, err error) {
	if f.weir, err = filepath.Abs(f.weir); err != nil {
		return false, err
	}
	machine, err := proc.Machine()
	if err != nil {
		return false, err
	}
	work := fmt.Sprintf("commit to visible, %d transactions/s", f.rate)
	lines := []report.Line{
		{Work: work + ", p50", Unit: "ms", Floor: report.Floor{Most: 5}},
		{Work: work + ", p99", Unit: "ms", Floor: report.Floor{Most: 20}},
		{Work: "transactions/s", Unit: "1/s", Higher: true, Floor: report.Floor{Least: 0.9 * float64(f.rate)}},
		{Work: "CPU of weir", Unit: "cores"},
	}
	figures := make([][]float64, len(lines))
	for n := range f.runs {
		r, err := measure(ctx, f)
		if err != nil {
			return false, fmt.Errorf("run %d: %w", n+1, err)
		}
		p50, p99 := report.Percentile(r.latencyMS, 0.5), report.Percentile(r.latencyMS, 0.99)
		fmt.Printf("run %d: %d transactions/s, p50 %.1f ms, p90 %.1f, p99 %.1f ms, worst %.1f ms; weir took %.2f cores, %d reads\n", n+1, r.rate, p50,
			report.Percentile(r.latencyMS, 0.9), p99, report.Percentile(r.latencyMS, 1), r.cores, r.reads)
		for i, v := range []float64{p50, p99, float64(r.rate), r.cores} {
			figures[i] = append(figures[i], v)
		}
	}
	var records []report.Record
	for i, l := range lines {
		records = append(records, l.Judge(figures[i], nil))
	}
	header := []string{machine, fmt.Sprintf("%d runs of %d s. The source's fsync is off, so that its disk is not measured.", f.runs, f.seconds)}
	err = errors.Join(report.Print(os.Stdout, header, records), report.Write(f.out, header, records))
	return report.OK(records), err
}

// warmUp is how long the writer works before latency counts.
const warmUp = 3 * time.Second
