package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"time"
	"runtime/pprof"

	cdc "github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/worker"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/pg"
	sink "github.com/weirstream/weir/sinks/postgres"
)

func main() {
	e := env.Real(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	src, err := pg.ParseURL(os.Args[1])
	if err != nil {
		panic(err)
	}
	dst, err := pg.ParseURL(os.Args[2])
	if err != nil {
		panic(err)
	}
	gen, _ := strconv.Atoi(os.Args[3])
	if p := os.Getenv("PROF"); p != "" {
		f, _ := os.Create(p)
		pprof.StartCPUProfile(f)
		defer pprof.StopCPUProfile()
	}
	mem := sink.NewMemory()
	text := false
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for ; ctx.Err() == nil; gen++ {
		s := cdc.New(e, cdc.Options{Config: src, Slot: "weir_lab", Publication: "weir_lab", Includes: func(s, t string) bool { return s == "public" }, NoCopy: os.Getenv("NOCOPY") != "", WriteAhead: os.Getenv("WA") != "" && mem.WriteAhead(), Text: text})
		t := sink.New(e, sink.Options{Config: dst, Pipeline: "lab", Memory: mem, Route: func(s, t string) (string, string, bool) { return s, t, true }})
		p := worker.New(e, worker.Options{Source: s, Target: t, Generation: dataflow.Generation(gen)})
		go func() {
			<-ctx.Done()
			p.Stop()
		}()
		done := make(chan bool)
		go func() {
			var last worker.Status
			for {
				select {
				case <-done:
					return
				case <-time.After(time.Second):
				}
				st := p.Status()
				fmt.Printf("phase %d cp %d/%d rows %d (+%d) MB %d pos %s\n", st.Phase, st.Checkpoint, st.Durable, st.Rows, st.Rows-last.Rows, st.Bytes>>20, st.Visible["position"])
				last = st
			}
		}()
		err := p.Run(context.Background())
		close(done)
		fmt.Println("end:", err)
		if errors.Is(err, cdc.ErrTextNeeded) {
			text = true
		}
		if errors.Is(err, cdc.ErrWriteAheadRefused) {
			mem.RefuseWriteAhead()
		}
	}
}
