package golden

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/cmd/weir/query"
	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state/disk"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/sql/plan"
	"github.com/weirstream/weir/test/nexmark"
)

// world is what outlives a process: the disk, the catalog, the places that sinks write to.
type world struct {
	c     *golden
	paced bool // sources wait now and then for what they have given to be published

	mu      sync.Mutex
	fs      *vfs.MemFS
	last    coordinator.Checkpoint
	shelves map[string]*shelf
	life    *life
	crashIn int // hits of a crash point until the crash; 0: none
	stopIn  int // checkpoints until a graceful stop; 0: none
}

// shelf is the content of a sink.
type shelf struct {
	last dataflow.Checkpoint
	rows map[string]int64
}

// crashPoints are the places of one process where a crash can hurt, beside those of the world's own parts.
var crashPoints = []failpoint.Point{
	query.FailPrepared, query.FailCommitted, query.FailPublished,
	disk.FailTable, disk.FailAppended, disk.FailSync, disk.FailSynced, disk.FailAbsorb, disk.FailIngest, disk.FailAbsorbed,
}

func newWorld(c *golden) *world {
	w := &world{c: c, fs: vfs.NewCrashableMem(), shelves: map[string]*shelf{}}
	for _, s := range c.program.Sinks {
		w.shelves[s.Name] = &shelf{rows: map[string]int64{}}
	}
	return w
}

// life is a process.
type life struct {
	w      *world
	env    *env.Env
	runner *query.Runner
	dead   bool // guarded by w.mu
	died   chan struct{}
	stop   chan struct{} // closed when enough checkpoints have been made
}

var errCrash = errors.New("the process is gone")

func (w *world) begin() *life {
	l := &life{w: w, died: make(chan struct{}), stop: make(chan struct{})}
	l.env = env.Real(slog.New(slog.DiscardHandler))
	l.env.FS = w.fs
	l.env.Crash = func(reason error) { w.c.t.Errorf("it crashed by itself: %v", reason) }
	for _, p := range crashPoints {
		l.env.Fail.Arm(p, func() error { return l.hit() })
	}
	w.mu.Lock()
	w.life = l
	w.mu.Unlock()
	l.runner = query.NewRunner(l.env, query.Options{
		Dir: "/state/engine", Plan: plan.Build, Expand: func(s string) (string, error) { return s, nil }, StateMemory: 1 << 20,
		Manifests: func(context.Context) (query.Manifests, error) { return l, nil },
		Known:     func(string) bool { return true },
		Connectors: map[string]query.Connector{
			"history": {Kind: kinds()["history"], Source: l.history},
			"nexmark": {Kind: kinds()["nexmark"], Source: l.nexmark},
			"out": {Kind: kinds()["out"], Sink: func(_ query.Make, s plan.Sink) (dataflow.Sink, error) {
				var types [][]row.Type
				for _, t := range s.Tables {
					types = append(types, t.Schema.Types())
				}
				return &sink{l: l, at: w.shelves[s.Name], types: types[0]}, nil
			}},
		},
	})
	return l
}

// kinds are the connectors: `history` gives changes of its tables in whole transactions, and `out` takes everything.
func kinds() map[string]plan.Kind {
	ends := func(map[string]string) bool { return true }
	return map[string]plan.Kind{
		"history": {Source: true, Changelog: true, Bounded: ends, Group: func(map[string]string) string { return "history" }},
		"nexmark": {Source: true, Bounded: ends, Group: func(map[string]string) string { return "nexmark" }},
		"out":     {Sink: true, SinkChangelog: true, SinkKeyless: true},
	}
}

func (l *life) start(interval string, parallelism int) (coordinator.Running, error) {
	l.w.mu.Lock()
	l.w.last.Generation++
	gen := l.w.last.Generation
	l.w.mu.Unlock()
	p := api.Pipeline{ID: "golden", Name: "golden", Query: &api.QuerySpec{Name: "golden", File: "golden.sql", SQL: l.w.c.sql,
		Options: map[string]string{"checkpoint.interval": interval, "parallelism": fmt.Sprint(parallelism), "state.key-groups": "16"}}}
	return l.runner.Start(context.Background(), p, dataflow.Generation(gen))
}

// end follows the end of the pipeline.
func (l *life) end() {
	if err := l.runner.Close(); err != nil && !l.isDead() {
		l.w.c.t.Error(err)
	}
	l.env.Wait()
}

func (l *life) isDead() bool {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.dead
}

// hit is a place where the process may end: from here on nothing that it does counts, and what it had not synced is gone.
func (l *life) hit() error {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.hitLocked()
}

func (l *life) hitLocked() error {
	w := l.w
	if l.dead {
		return errCrash
	}
	if w.crashIn == 0 {
		return nil
	}
	if w.crashIn--; w.crashIn > 0 {
		return nil
	}
	l.dead = true
	close(l.died)
	w.fs = w.fs.CrashClone(vfs.CrashCloneCfg{})
	return errCrash
}

// RecordCheckpoint is the catalog's.
func (l *life) RecordCheckpoint(_ context.Context, c coordinator.Checkpoint) error {
	w := l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := l.hitLocked(); err != nil {
		return err
	}
	if c.Generation != w.last.Generation || c.Checkpoint <= w.last.Checkpoint {
		w.c.t.Errorf("checkpoint %d of generation %d behind %d of %d", c.Checkpoint, c.Generation, w.last.Checkpoint, w.last.Generation)
	}
	w.last = c
	if w.stopIn > 0 {
		if w.stopIn--; w.stopIn == 0 {
			close(l.stop)
		}
	}
	return l.hitLocked()
}

// LastCheckpoint is the catalog's.
func (l *life) LastCheckpoint(context.Context, string) (coordinator.Checkpoint, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.w.last, nil
}

// sink writes to a shelf.
type sink struct {
	l     *life
	at    *shelf
	types []row.Type
}

func (s *sink) Open(context.Context, dataflow.Generation, dataflow.Checkpoint) (dataflow.Checkpoint, error) {
	s.l.w.mu.Lock()
	defer s.l.w.mu.Unlock()
	return s.at.last, nil
}

func (s *sink) Publish(_ context.Context, c dataflow.Checkpoint, changes dataflow.Changes) error {
	w := s.l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := s.l.hitLocked(); err != nil {
		return err
	}
	if c <= s.at.last || c > dataflow.Checkpoint(w.last.Checkpoint) {
		w.c.t.Errorf("checkpoint %d is published behind %d while %d is committed", c, s.at.last, w.last.Checkpoint)
	}
	for {
		_, b, err := changes.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		for k := range b.Rows() {
			i := b.At(k)
			var vs []string
			for col, t := range s.types {
				v := "NULL"
				if !b.Cols[col].Nulls.Is(i) {
					v = string(row.AppendText(nil, t, b.Cols[col], i, time.UTC))
				}
				vs = append(vs, v)
			}
			text := strings.Join(vs, ", ")
			if s.at.rows[text] += b.Weight(i); s.at.rows[text] == 0 {
				delete(s.at.rows, text)
			}
		}
	}
	for text, n := range s.at.rows {
		if n < 0 {
			w.c.t.Errorf("after checkpoint %d: %d times %s", c, n, text)
		}
	}
	s.at.last = c
	return s.l.hitLocked()
}

func (s *sink) Close(context.Context) error { return nil }

// history makes the source of the program's tables.
func (l *life) history(_ query.Make, s plan.Source) (dataflow.Source, error) {
	f := &feed{history: l.w.c.history, tables: s.Tables}
	for _, t := range s.Tables {
		f.b = append(f.b, row.NewBuilder(t.Types()))
	}
	return l.pace(f), nil
}

func (l *life) nexmark(_ query.Make, s plan.Source) (dataflow.Source, error) {
	o := nexmark.Options{Seed: 1, TPS: 100_000, Count: int64(l.w.c.events)}
	for _, t := range s.Tables {
		x := nexmark.Table{}
		for k := nexmark.Person; k <= nexmark.Bid; k++ {
			if k.String() == t.Options["table"] {
				x.Kind = k
			}
		}
		x.Columns = append(x.Columns, names(t)...)
		o.Tables = append(o.Tables, x)
	}
	n, err := nexmark.New(o, nil)
	if err != nil {
		return nil, err
	}
	return l.pace(n), nil
}

// paced is a source that waits, after every few transactions, until what it has given is published, so that a crash
// finds it midway.
type paced struct {
	dataflow.Source
	l       *life
	given   int
	pending string // the last state that was given
	mu      sync.Mutex
	done    string        // the last that was confirmed
	more    chan struct{} // has a value when done has changed
}

func (l *life) pace(s dataflow.Source) dataflow.Source {
	if !l.w.paced {
		return s
	}
	return &paced{Source: s, l: l, more: make(chan struct{}, 1)}
}

func (p *paced) Read(ctx context.Context) (dataflow.Message, error) {
	if p.given > 0 && p.given%2 == 0 {
		for {
			p.mu.Lock()
			done := p.done
			p.mu.Unlock()
			if done == p.pending {
				break
			}
			select {
			case <-p.more:
			case <-p.l.died:
				return dataflow.Message{}, errCrash
			case <-ctx.Done():
				return dataflow.Message{}, ctx.Err()
			}
		}
	}
	m, err := p.Source.Read(ctx)
	if m.Boundary {
		p.given++
	}
	if len(m.State) > 0 {
		p.pending = string(m.State[len(m.State)-1].Value)
	}
	return m, err
}

func (p *paced) Confirm(state []dataflow.StateChange) {
	p.Source.Confirm(state)
	p.mu.Lock()
	p.done = string(state[len(state)-1].Value)
	p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
}
