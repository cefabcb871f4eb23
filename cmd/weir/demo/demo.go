// Package demo shows weir at work on databases of its own, and proves on the screen what it claims.
//
// It starts two Postgres servers, builds a shop in one of them, lets customers in, mirrors it into the other with weir in
// a process of its own, kills that process while it works, starts it again, closes the shop and compares. Meanwhile an
// independent reader looks at the target: whenever it looks, payments, orders and items add up to the same sum, because
// every transaction of the shop keeps that so. Then it runs examples/orders: three databases, a join of two of them kept up
// to date in the third, with a reader and a kill of its own.
//
// What it says is true of this run: nothing is printed that was not measured. It fails if the two sides differ, if one look
// was off, or if a part of it cannot be done. It leaves no process and no directory behind, also when it is interrupted,
// and, by watchers of their own, when it is killed.
package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/env"
)

// Options says how the demo goes. The zero value of a field means its default.
type Options struct {
	Dir      string        // keep everything in this directory, which must be empty; "": a temporary one that is deleted
	HTTPAddr string        // where the mirror serves REST; "": weir's default
	Rate     int           // rows that customers write per second; default 500
	For      time.Duration // how long the shop stays open after the copy; default 30s
	Crash    bool          // kill the mirror during the copy, and every few seconds
	Rows     int           // rows of the shop when it opens; default 200,000
	Program  string        // weir itself; default: the program of this process
	Say      func(format string, args ...any)
}

func (o *Options) defaults() error {
	if o.Rate <= 0 {
		o.Rate = 500
	}
	if o.For <= 0 {
		o.For = 30 * time.Second
	}
	if o.Rows <= 0 {
		o.Rows = 200_000
	}
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	if o.Program == "" {
		program, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the program of this process: %w", err)
		}
		o.Program = program
	}
	if o.Dir != "" {
		dir, err := filepath.Abs(o.Dir)
		if err != nil {
			return err
		}
		o.Dir = dir
	}
	return nil
}

// pipeline is the name of the mirror.
const pipeline = "shop"

// Run shows the demo. Its error is nil only if both sides were equal at the end and at every look before.
func Run(ctx context.Context, e *env.Env, o Options) (err error) {
	if err := o.defaults(); err != nil {
		return err
	}
	began := e.Clock.Now()
	programs, err := findPostgres(ctx, o.Say)
	if err != nil {
		return err
	}
	o.Say("starting two Postgres %s servers (%s)", programs.Exact, programs.Bin)
	p, err := open(ctx, o, programs)
	if err != nil {
		// A Ctrl-C reaches initdb, too, and may reach it first.
		if serr := e.Clock.Sleep(ctx, 100*time.Millisecond); serr != nil {
			o.Say("interrupted; nothing is left")
			return serr
		}
		return err
	}
	defer func() {
		closed := p.close()
		if closed == nil && ctx.Err() != nil {
			o.Say("interrupted; servers and mirror have ended, %s", map[bool]string{true: "the directory stays", false: "nothing is left"}[p.keep])
		}
		err = errors.Join(err, closed)
	}()
	s := &story{Options: o, env: e, place: p, began: began, shop: sizesFor(o.Rows)}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.mirror.close()) }()
	if err := s.show(ctx); err != nil {
		return err
	}
	if err := s.queries(ctx); err != nil {
		return err
	}
	s.say("took %s", cli.Took(e.Clock.Now().Sub(began).Round(time.Second)))
	if o.Dir != "" {
		o.Say("kept: %s (data of both servers, state and log of the mirror)", o.Dir)
	}
	o.Say("next: weir run examples/orders/orders.sql, as its README says")
	o.Say("next: weir mirror postgres://USER@HOST/DATABASE postgres://USER@HOST/COPY --dry-run")
	return nil
}

// show runs the shop, the reader and the story next to each other; the first that fails ends all.
func (s *story) show(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	open, closeShop := context.WithCancel(ctx)
	defer closeShop()
	look, stopLooking := context.WithCancel(ctx)
	defer stopLooking()
	shopClosed := make(chan struct{})
	g.Go(func() error {
		defer close(shopClosed)
		return s.traffic.run(open)
	})
	copied := make(chan struct{})
	g.Go(func() error {
		select {
		case <-copied:
			return s.reader.run(look)
		case <-look.Done():
			return nil
		}
	})
	g.Go(func() error {
		defer stopLooking()
		defer closeShop()
		return s.tell(ctx, copied, func() { closeShop(); <-shopClosed })
	})
	return g.Wait()
}
