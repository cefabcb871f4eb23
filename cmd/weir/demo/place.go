package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/scratch"
)

// place is the directory of a demo and the two servers in it.
type place struct {
	dir            string
	keep           bool
	source, target *scratch.Server
}

// findPostgres gives the programs of the best Postgres here, after installing one if that is possible.
func findPostgres(ctx context.Context, say func(string, ...any)) (*scratch.Programs, error) {
	found, err := scratch.Find(ctx)
	if errors.Is(err, scratch.ErrNotInstalled) && scratch.CanInstall() {
		say("there is no Postgres here; installing it with apt-get (it stays when the demo has ended)")
		// Version 15, or what this release of Debian or Ubuntu calls its Postgres.
		if err = scratch.AptInstall(ctx, "postgresql-15", "postgresql"); err == nil {
			found, err = scratch.Find(ctx)
		}
	}
	switch {
	case err == nil:
		return found[0], nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, errs.New(errs.SourceUnreachable, "the demo needs the programs of a Postgres server, version %s or newer", scratch.Oldest).
		WithDetail("%v", err).
		WithHint("install one (Debian, Ubuntu: apt-get install -y postgresql; Red Hat: dnf install -y postgresql-server; macOS: brew install postgresql) " +
			"or run the demo in a container: docker run --rm -it -v \"$(command -v weir)\":/usr/local/bin/weir:ro postgres:15 weir demo").
		Because(err)
}

// open makes the directory and starts both servers in it. On failure nothing is left.
func open(ctx context.Context, o Options, programs *scratch.Programs) (_ *place, err error) {
	p := &place{dir: o.Dir, keep: o.Dir != ""}
	if p.keep {
		err = claim(p.dir)
	} else {
		p.dir, err = scratch.MakeDir(ctx, "weir-demo-")
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	var g errgroup.Group // not with a context of its own: the servers take ctx along for their start only
	for name, server := range map[string]**scratch.Server{"source": &p.source, "target": &p.target} {
		g.Go(func() (err error) {
			*server, err = scratch.Start(ctx, scratch.Options{
				Programs: programs, Dir: filepath.Join(p.dir, name), Remove: !p.keep,
				// Nobody needs these data after a crash of the machine.
				Config: scratch.Config{FsyncOff: true, Settings: map[string]string{"max_wal_size": "4GB", "jit": "off"}},
			})
			if err != nil {
				return fmt.Errorf("start the %s: %w", name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return p, nil
}

// claim takes a directory that holds nothing yet: the demo deletes nothing that it has not made.
func claim(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return os.MkdirAll(dir, 0o755)
	case err != nil:
		return errs.New(errs.BadFlag, "--dir %s: %v", dir, err).Because(err)
	case len(entries) > 0:
		return errs.New(errs.BadFlag, "--dir %s is not empty", dir).WithHint("name a directory that does not exist yet")
	}
	return nil
}

// weirDir is where the mirror works.
func (p *place) weirDir() string { return filepath.Join(p.dir, "weir") }

// close ends the servers and, unless it is to be kept, deletes the directory.
func (p *place) close() error {
	var err error
	for _, s := range []*scratch.Server{p.source, p.target} {
		if s != nil {
			err = errors.Join(err, s.Close())
		}
	}
	if p.keep {
		return err
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}
