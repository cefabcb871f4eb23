package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/errs"
)

// serverCommand is the command whose process takes mirrors from others.
const serverCommand = "server"

func (p *program) server(ctx context.Context, c *cli.Call) error {
	if p.engines.Node == nil {
		return notBuilt(c)
	}
	set, err := p.options(c)
	if err != nil {
		return err
	}
	e := p.env(c)
	n, err := p.engines.Node(ctx, e, p.nodeOptions(c, p.store(c, e), set))
	if err != nil {
		return err
	}
	c.Note("weir %s  http://%s  postgres://weir@%s/weir  state %s", p.version, n.Addr(), n.PGAddr(), state(c))
	select {
	case <-ctx.Done():
	case <-n.Done():
		err = n.Err()
	}
	next := ""
	if err == nil {
		next = sameCommand
	}
	if cerr := p.close(c, e, n, next); err == nil {
		err = cerr
	}
	return err
}

func (p *program) demo(ctx context.Context, c *cli.Call) error {
	if p.engines.Demo == nil {
		return notBuilt(c)
	}
	return p.engines.Demo(ctx, p.env(c), demoOptions{Dir: c.Text("dir"), HTTPAddr: c.Text("http-addr"), Rate: c.Int("rate"),
		For: c.Duration("for"), Crash: c.Bool("crash"), Say: func(format string, args ...any) { fmt.Fprintf(c.Out, format+"\n", args...) }})
}

type versionRecord struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	System  string `json:"system"`
	Server  string `json:"server,omitempty"` // "": none answers
}

func (p *program) versionLine() string {
	details := []string{runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	if p.commit != "" {
		details = append([]string{p.commit}, details...)
	}
	return fmt.Sprintf("weir %s (%s)", p.version, strings.Join(details, ", "))
}

func (p *program) showVersion(ctx context.Context, c *cli.Call) error {
	v := versionRecord{Version: p.version, Commit: p.commit, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	err := p.withClient(c, func(cl client) error {
		s, err := cl.Version(ctx)
		v.Server = s.Version
		return err
	})
	// Without a server this is not an error, unless one was named.
	if err != nil && (addr(c) != "" || !errs.Is(err, errs.NotReachable)) {
		return err
	}
	return cli.PrintRecord(c, v, v.Version, func(w io.Writer) {
		fmt.Fprint(w, p.versionLine())
		if v.Server != "" {
			fmt.Fprintf(w, "  server %s", v.Server)
		}
		fmt.Fprintln(w)
	})
}
