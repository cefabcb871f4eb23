package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/weirstream/weir/cmd/weir/demo"
	"github.com/weirstream/weir/internal/env"
)

func main() {
	var o demo.Options
	flag.StringVar(&o.Program, "p", "", "")
	flag.StringVar(&o.Dir, "dir", "", "")
	flag.BoolVar(&o.Crash, "crash", false, "")
	flag.DurationVar(&o.For, "for", 0, "")
	flag.IntVar(&o.Rows, "rows", 0, "")
	flag.IntVar(&o.Rate, "rate", 0, "")
	flag.Parse()
	o.Say = func(f string, a ...any) { fmt.Printf(f+"\n", a...) }
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	b := time.Now()
	err := demo.Run(ctx, env.Real(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))), o)
	fmt.Println("error:", err, time.Since(b))
}
