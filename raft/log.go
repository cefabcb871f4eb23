package raft

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// newLogger gives the library's messages to slog. What it calls information is chatter to an operator of a node that
// works, so it goes to debug.
func newLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Output: io.Discard, Level: hclog.Error})
	l.RegisterSink(sink{log})
	return l
}

type sink struct{ log *slog.Logger }

func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Warn:
		to = slog.LevelWarn
	case hclog.Error:
		to = slog.LevelError
	}
	s.log.Log(context.Background(), to, msg, args...)
}
