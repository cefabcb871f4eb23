package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/weirstream/weir/coordinator"
	rest "github.com/weirstream/weir/coordinator/http"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/options"
	"github.com/weirstream/weir/internal/secrets"
)

// program is what the commands share.
type program struct {
	engines         engines
	dial            func(e *env.Env, o rest.ClientOptions) (client, error)
	environment     func(log *slog.Logger) *env.Env
	getwd           func() (string, error)
	version, commit string
}

// client is what the commands ask of a server.
type client interface {
	Addr() string
	Close()
	Version(ctx context.Context) (rest.Version, error)
	Pipelines(ctx context.Context) ([]coordinator.PipelineView, error)
	Pipeline(ctx context.Context, name string) (coordinator.PipelineView, error)
	CreateMirror(ctx context.Context, m api.MirrorSpec) (coordinator.PipelineView, error)
	CreateQuery(ctx context.Context, q api.QuerySpec) (coordinator.PipelineView, error)
	Update(ctx context.Context, name string, change coordinator.Change) (coordinator.PipelineView, error)
	Delete(ctx context.Context, name string, o rest.DeleteOptions) error
	Pause(ctx context.Context, name string) (coordinator.PipelineView, error)
	Resume(ctx context.Context, name string) (coordinator.PipelineView, error)
	Sources(ctx context.Context) ([]api.SourceStatus, error)
	Source(ctx context.Context, name string) (api.SourceStatus, error)
	RefreshSource(ctx context.Context, name string, tables []string) error
	Tail(ctx context.Context, pipeline, view string, each func(api.TailLine) error) error
	StateEntries(ctx context.Context, pipeline, node, key string) ([]api.StateEntries, error)
}

func dialREST(e *env.Env, o rest.ClientOptions) (client, error) {
	c, err := rest.NewClient(e, o)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func realEnvironment(log *slog.Logger) *env.Env { return env.Real(log) }

// env is the machine with the log that the flags ask for.
func (p *program) env(c *cli.Call) *env.Env {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Text("log-level"))); err != nil {
		level = slog.LevelWarn
	}
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(c.Err, o)
	if c.Text("log-format") == "json" {
		h = slog.NewJSONHandler(c.Err, o)
	}
	return p.environment(slog.New(h))
}

// state and addr are the flags, or else WEIR_STATE and WEIR_ADDR.
func state(c *cli.Call) string {
	if v, ok := c.Getenv("WEIR_STATE"); ok && v != "" && !c.Given("state") {
		return v
	}
	return c.Text("state")
}

func addr(c *cli.Call) string {
	if v, ok := c.Getenv("WEIR_ADDR"); ok && v != "" && !c.Given("addr") {
		return v
	}
	return c.Text("addr")
}

// withClient runs do with a client of the server that the flags name.
func (p *program) withClient(c *cli.Call, do func(client) error) error {
	v, _ := c.Getenv("WEIR_STATE")
	cl, err := p.dial(p.env(c), rest.ClientOptions{Addr: addr(c), State: state(c), Named: c.Given("state") || v != ""})
	if err != nil {
		return err
	}
	defer cl.Close()
	return do(cl)
}

// running finds a server that already owns the state directory. nil: none.
func (p *program) running(ctx context.Context, c *cli.Call, e *env.Env) (client, error) {
	if addr(c) == "" {
		if _, err := coordinator.ReadEndpoints(e.FS, state(c)); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	cl, err := p.dial(e, rest.ClientOptions{Addr: addr(c), State: state(c)})
	if err != nil {
		return nil, err
	}
	if _, err := cl.Version(ctx); err != nil {
		cl.Close()
		if addr(c) == "" && errs.Is(err, errs.NotReachable) {
			return nil, nil // endpoints.json was left behind by a process that was killed
		}
		return nil, err
	}
	return cl, nil
}

// store is the state directory's secrets; with dry it is a store in memory that reads nothing from disk but what exists.
func (p *program) store(c *cli.Call, e *env.Env) *secrets.Store {
	return secrets.Open(e, secrets.Options{Dir: e.FS.PathJoin(state(c), "secrets"), Getenv: c.Getenv})
}

func notBuilt(c *cli.Call) error { return errs.New(errs.NotBuiltYet, "%s is not built yet", c.Path) }

// projectFile holds settings for all pipelines started in its directory.
const projectFile = "weir.yaml"

// layers are the settings in force: --set, the environment, then those of a file (may be empty), weir.yaml.
func (p *program) layers(c *cli.Call, file ...options.Layer) ([]options.Layer, error) {
	flags, err := options.FromFlags(c.List("set"))
	if err != nil {
		return nil, err
	}
	out := append([]options.Layer{flags, options.FromEnv(c.Getenv)}, file...)
	dir, err := p.getwd()
	if err != nil {
		return nil, fmt.Errorf("find the working directory: %w", err)
	}
	text, err := readLimited(filepath.Join(dir, projectFile), 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	project, err := options.FromYAML(projectFile, text)
	if err != nil {
		return nil, err
	}
	return append(out, project), nil
}

func (p *program) options(c *cli.Call, file ...options.Layer) (options.Set, error) {
	layers, err := p.layers(c, file...)
	if err != nil {
		return options.Set{}, err
	}
	return options.Resolve(layers...)
}

// readLimited reads a file of the user's.
func readLimited(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errs.New(errs.BadFlag, "there is no file %s", path).Because(err)
	case err != nil:
		return nil, errs.New(errs.BadFlag, "read %s: %v", path, err).Because(err)
	case info.IsDir():
		return nil, errs.New(errs.BadFlag, "%s is a directory", path)
	case info.Size() > limit:
		return nil, errs.New(errs.BadFlag, "%s has %s; the limit is %s", path, cli.Bytes(info.Size()), cli.Bytes(limit))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.New(errs.BadFlag, "read %s: %v", path, err).Because(err)
	}
	return b, nil
}

// split takes comma-separated lists apart. A comma inside quotes belongs to a name; globs have no braces that could hold one.
func split(lists []string) []string {
	var out []string
	for _, l := range lists {
		quoted, start := false, 0
		for i := 0; i <= len(l); i++ {
			if i < len(l) {
				quoted = quoted != (l[i] == '"') // a doubled quote inside quotes changes nothing
				if quoted || l[i] != ',' {
					continue
				}
			}
			if s := strings.TrimSpace(l[start:i]); s != "" {
				out = append(out, s)
			}
			start = i + 1
		}
	}
	return out
}
