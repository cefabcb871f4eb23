// Command nexgen writes the Nexmark stream to files, for runs of several engines over the same events, or prints its
// checksum.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/weirstream/weir/test/nexmark"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "nexgen:", err)
		os.Exit(1)
	}
}

func run() error {
	out := flag.String("out", "", "folder to write into")
	form := flag.String("form", "json", "json: events.jsonl; csv: person.csv, auction.csv, bid.csv; sum: only print a checksum")
	first := flag.Int64("first", 0, "number of the first event")
	count := flag.Int64("count", 1_000_000, "events")
	seed := flag.Uint64("seed", 1, "seed")
	tps := flag.Int64("tps", 100_000, "events per second of event time")
	flag.Parse()
	if *count < 0 || *first < 0 || *tps < 1 {
		return errors.New("-count and -first must not be negative, -tps must be positive")
	}
	gen := nexmark.NewGenerator(*seed, *tps)
	var names []string
	switch *form {
	case "sum":
		fmt.Printf("%016x\n", nexmark.Sum(gen, *first, *count))
		return nil
	case "json":
		names = []string{"events.jsonl"}
	case "csv":
		names = []string{"person.csv", "auction.csv", "bid.csv"}
	default:
		return fmt.Errorf("-form %s: want json, csv or sum", *form)
	}
	if *out == "" {
		return errors.New("-out names the folder to write into")
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	files := make([]*os.File, len(names))
	writers := make([]*bufio.Writer, len(names))
	for i, name := range names {
		f, err := os.Create(filepath.Join(*out, name))
		if err != nil {
			return err
		}
		files[i], writers[i] = f, bufio.NewWriterSize(f, 1<<20)
	}
	p := nexmark.NewPrinter(gen, *first)
	var line []byte
	for range *count {
		var kind nexmark.Kind
		if len(names) == 1 {
			line = p.AppendJSON(line[:0])
		} else {
			line, kind = p.AppendCSV(line[:0])
		}
		if _, err := writers[kind].Write(line); err != nil {
			return err
		}
	}
	for i, w := range writers {
		if err := errors.Join(w.Flush(), files[i].Close()); err != nil {
			return err
		}
	}
	return nil
}
