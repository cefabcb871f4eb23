package main

import (
	"context"

	"github.com/weirstream/weir/cmd/weir/demo"
	"github.com/weirstream/weir/internal/env"
)

func runDemo(ctx context.Context, e *env.Env, o demoOptions) error {
	return demo.Run(ctx, e, demo.Options{Dir: o.Dir, HTTPAddr: o.HTTPAddr, Rate: o.Rate, For: o.For, Crash: o.Crash, Say: o.Say})
}
