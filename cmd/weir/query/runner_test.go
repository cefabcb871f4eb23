package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state/disk"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/raft"
	"github.com/weirstream/weir/sql/plan"
)

// manifests is the catalog, as far as one pipeline needs it.
type manifests struct {
	mu    sync.Mutex
	last  coordinator.Checkpoint
	fails error // of the next, which is not accepted
	lost  bool  // the next is accepted, and its answer lost
}

func (m *manifests) RecordCheckpoint(_ context.Context, c coordinator.Checkpoint) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.Generation != m.last.Generation {
		return errs.New(errs.Fenced, "generation %d is not %d", c.Generation, m.last.Generation)
	}
	if m.fails != nil {
		err := m.fails
		m.fails = nil
		return err
	}
	if c.Checkpoint <= m.last.Checkpoint {
		return errs.New(errs.PipelineState, "checkpoint %d is not above %d", c.Checkpoint, m.last.Checkpoint)
	}
	m.last = c
	if m.lost {
		m.lost = false
		return fmt.Errorf("the leader is gone: %w", raft.ErrUnknown)
	}
	return nil
}

func (m *manifests) LastCheckpoint(context.Context, string) (coordinator.Checkpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last, nil
}

// tap is a source that gives the numbers it is told to, and goes on where it was.
type tap struct {
	from *tapState
	b    *row.Builder
	at   int64
}

// tapState outlives the taps: what was given, by position.
type tapState struct {
	mu    sync.Mutex
	given []int64
	more  chan struct{}
	ended bool
}

func (s *tapState) give(values ...int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = append(s.given, values...)
	close(s.more)
	s.more = make(chan struct{})
}

func (s *tapState) finish() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.give()
}

func (t *tap) Open(_ context.Context, st dataflow.State) error {
	t.b = row.NewBuilder([]row.Type{{Kind: row.BigInt}})
	if v := st["at"]; v != nil {
		fmt.Sscan(string(v), &t.at)
	}
	return nil
}

func (t *tap) Read(ctx context.Context) (dataflow.Message, error) {
	for {
		t.from.mu.Lock()
		given, more, ended := t.from.given, t.from.more, t.from.ended
		t.from.mu.Unlock()
		if int(t.at) < len(given) {
			t.b.Reset()
			t.b.Cols[0].Int64 = append(t.b.Cols[0].Int64, given[t.at])
			t.b.EndRow(1)
			t.at++
			return dataflow.Message{Kind: dataflow.KindBatch, Batch: t.b.Seal(), Boundary: true,
				State: []dataflow.StateChange{{Key: "at", Value: []byte(fmt.Sprint(t.at))}}}, nil
		}
		if ended {
			return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return dataflow.Message{}, ctx.Err()
		}
	}
}

func (t *tap) Confirm([]dataflow.StateChange) {}
func (t *tap) Close(context.Context) error    { return nil }

// shelf is a sink whose rows outlive the sinks.
type shelf struct {
	mu   sync.Mutex
	last dataflow.Checkpoint
	rows map[int64]int64
	err  error // of the next publish, which does nothing

	changed chan struct{} // has a value when something was published since it was last read
}

func (s *shelf) Open(context.Context, dataflow.Generation, dataflow.Checkpoint) (dataflow.Checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, nil
}

func (s *shelf) Publish(_ context.Context, c dataflow.Checkpoint, changes dataflow.Changes) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.err; err != nil {
		s.err = nil
		return err
	}
	for {
		_, b, err := changes.Next()
		if err != nil {
			break
		}
		for k := range b.Rows() {
			i := b.At(k)
			v := b.Cols[0].Int64[i]
			if s.rows[v] += b.Weight(i); s.rows[v] == 0 {
				delete(s.rows, v)
			}
		}
	}
	s.last = c
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return nil
}

func (s *shelf) Close(context.Context) error { return nil }

func (s *shelf) holds() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.rows)
}

type bench struct {
	t      *testing.T
	env    *env.Env
	runner *Runner
	m      *manifests
	tap    *tapState
	shelf  *shelf
	p      api.Pipeline

	removed []string // what was asked to be removed outside
	away    error    // and why it cannot be
}

func newBench(t *testing.T, fs vfs.FS) *bench {
	b := &bench{t: t, m: &manifests{}, tap: &tapState{more: make(chan struct{})}, shelf: &shelf{rows: map[int64]int64{}, changed: make(chan struct{}, 1)}}
	b.env = env.Real(slog.New(slog.DiscardHandler))
	b.env.FS = fs
	b.p = api.Pipeline{ID: "p1", Name: "sums", Query: &api.QuerySpec{Name: "sums", File: "sums.sql", Options: map[string]string{"checkpoint.interval": "0s", "parallelism": "2"}, SQL: `
		CREATE TABLE numbers (x BIGINT) WITH ('connector' = 'tap');
		CREATE TABLE sums (total BIGINT) WITH ('connector' = 'shelf');
		INSERT INTO sums SELECT SUM(x) FROM numbers;`}}
	b.open()
	return b
}

func (b *bench) open() {
	b.runner = NewRunner(b.env, Options{
		Dir: "/state/engine", Plan: plan.Build, Expand: func(s string) (string, error) { return s, nil },
		Manifests: func(context.Context) (Manifests, error) { return b.m, nil },
		Known:     func(id string) bool { return id == b.p.ID },
		Connectors: map[string]Connector{
			"tap": {Kind: plan.Kind{Source: true}, Source: func(Make, plan.Source) (dataflow.Source, error) { return &tap{from: b.tap}, nil },
				RemoveSource: func(_ context.Context, m Make, s plan.Source) error {
					b.removed = append(b.removed, m.Pipeline.ID+" "+s.Name)
					return b.away
				}},
			"shelf": {Kind: plan.Kind{Sink: true, SinkChangelog: true, SinkKeyless: true},
				Sink: func(Make, plan.Sink) (dataflow.Sink, error) { return b.shelf, nil }},
		},
	})
}

func (b *bench) start() coordinator.Running {
	b.t.Helper()
	b.m.mu.Lock()
	b.m.last.Generation++
	gen := b.m.last.Generation
	b.m.mu.Unlock()
	r, err := b.runner.Start(context.Background(), b.p, dataflow.Generation(gen))
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bench) shows(want string) {
	b.t.Helper()
	late := time.After(10 * time.Second)
	for b.shelf.holds() != want {
		select {
		case <-b.shelf.changed:
		case <-late:
			b.t.Fatalf("the sink holds %s, want %s", b.shelf.holds(), want)
		}
	}
}

func (b *bench) ended(r coordinator.Running) error {
	b.t.Helper()
	select {
	case <-r.Done():
	case <-time.After(10 * time.Second):
		b.t.Fatal("it does not end")
	}
	return r.Err()
}

func (b *bench) stop(r coordinator.Running) {
	b.t.Helper()
	if err := r.Stop(context.Background()); err != nil {
		b.t.Error(err)
	}
}

// TestLifeOfAQuery: a pipeline goes on behind its last checkpoint, whatever ended it, and an end that is its own is told.
func TestLifeOfAQuery(t *testing.T) {
	fs := vfs.NewMem()
	b := newBench(t, fs)
	r := b.start()
	b.shows("map[0:1]") // NULL: the sum of no rows
	b.tap.give(1, 2)
	b.shows("map[3:1]")
	st := r.Status()
	if q := st.Query; st.Phase != api.PhaseLive || q == nil || q.Parallelism != 2 || len(q.Checkpoints) == 0 || q.Sources[0].Rows != 2 || q.Sinks[0].Rows == 0 || len(q.States) == 0 || q.States[0].Operator == "" {
		t.Errorf("status %+v, %+v", st, st.Query)
	}
	b.stop(r)

	r = b.start()
	b.tap.give(3)
	b.shows("map[6:1]")

	// The answer to a proposal is lost: the pipeline ends, and its successor finds out that it was accepted.
	b.m.mu.Lock()
	b.m.lost = true
	b.m.mu.Unlock()
	b.tap.give(4)
	if err := b.ended(r); !errors.Is(err, raft.ErrUnknown) {
		t.Errorf("after a lost answer: %v", err)
	}
	r = b.start()
	b.shows("map[10:1]")

	// It is refused for a reason that passes: nothing of it counts.
	b.m.mu.Lock()
	b.m.fails = errors.New("no leader")
	b.m.mu.Unlock()
	b.tap.give(5)
	if err := b.ended(r); err == nil {
		t.Error("a refused checkpoint was taken for one")
	}
	b.shows("map[10:1]")
	r = b.start()
	b.shows("map[15:1]")

	// A sink fails after the commit: the next start publishes first.
	b.shelf.mu.Lock()
	b.shelf.err = errs.New(errs.TargetUnreachable, "the shelf is away")
	b.shelf.mu.Unlock()
	b.tap.give(6)
	if err := b.ended(r); !errs.Is(err, errs.TargetUnreachable) {
		t.Errorf("after a failed publish: %v", err)
	}
	r = b.start()
	b.shows("map[21:1]")

	// A newer owner is there: this one ends, fenced.
	b.m.mu.Lock()
	b.m.last.Generation++
	b.m.mu.Unlock()
	b.tap.give(7)
	if err := b.ended(r); !errs.Is(err, errs.Fenced) {
		t.Errorf("with a newer owner: %v", err)
	}

	// The process ends, another opens the same state.
	if err := b.runner.Close(); err != nil {
		t.Fatal(err)
	}
	b.open()
	r = b.start()
	b.shows("map[28:1]")
	b.tap.finish()
	if err := b.ended(r); err != nil {
		t.Errorf("at the end of its source: %v", err)
	}
	if n := r.Status().RowsTotal; n != 1 {
		t.Errorf("the last start read %d rows, want the one that no checkpoint had", n)
	}

	// Removed, it begins anew.
	b.away = errs.New(errs.SourceUnreachable, "the tap is away")
	if err := b.runner.Remove(context.Background(), b.p); !errs.Is(err, errs.SourceUnreachable) {
		t.Errorf("what cannot be removed outside: %v", err)
	}
	b.away = nil
	for range 2 {
		if err := b.runner.Remove(context.Background(), b.p); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(b.removed); got != "[p1 numbers p1 numbers]" {
		t.Errorf("outside was removed %s", got)
	}
	b.m.mu.Lock()
	b.m.last.Checkpoint = 0
	b.m.mu.Unlock()
	b.shelf.mu.Lock()
	b.shelf.last, b.shelf.rows = 0, map[int64]int64{}
	b.shelf.mu.Unlock()
	r = b.start()
	if err := b.ended(r); err != nil || b.shelf.holds() != "map[28:1]" {
		t.Errorf("anew: %v, %s", err, b.shelf.holds())
	}
	if err := b.runner.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestStateOfAnother: a state directory whose parts do not belong together is refused, and a pipeline that the catalog
// does not know loses its state.
func TestStateOfAnother(t *testing.T) {
	fs := vfs.NewMem()
	b := newBench(t, fs)
	r := b.start()
	b.tap.give(1)
	b.shows("map[1:1]")
	b.stop(r)
	good := b.m.last
	b.m.last.Digest = strings.Repeat("0", 32)
	if err := b.ended(b.start()); !errs.Is(err, errs.StateLogDamaged) {
		t.Errorf("with another digest: %v", err)
	}
	good.Generation = b.m.last.Generation
	b.m.last = good
	b.m.last.Checkpoint += 5
	if err := b.ended(b.start()); !errs.Is(err, errs.StateLogDamaged) {
		t.Errorf("with a checkpoint that is not there: %v", err)
	}
	good.Generation = b.m.last.Generation
	b.m.last = good
	r = b.start()
	b.tap.give(2)
	b.shows("map[3:1]")
	b.stop(r)
	if err := b.runner.Close(); err != nil {
		t.Fatal(err)
	}

	b.p.ID = "p2"
	b.m.last = coordinator.Checkpoint{}
	b.shelf.last = 0
	b.open()
	r = b.start()
	b.shows("map[3:1]")
	b.stop(r)
	if err := b.runner.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(b.env, "/state/engine", disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(d.Pipelines()); got != "[p2]" {
		t.Errorf("the state is that of %s", got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestNothingBegun: what fails before the first checkpoint says that nothing was made.
func TestNothingBegun(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	for _, sql := range []string{"INSERT INTO nowhere SELECT 1;", "CREATE TABLE a (x BIGINT) WITH ('connector' = 'nothing');"} {
		p := b.p
		p.Query = &api.QuerySpec{Name: "sums", File: "sums.sql", SQL: sql}
		_, err := b.runner.Start(context.Background(), p, 1)
		if e, ok := errs.As(err); !ok || !e.Unbegun || e.Pos == nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	p := b.p
	p.Query = &api.QuerySpec{Name: "sums", File: "sums.sql", SQL: b.p.Query.SQL, Options: map[string]string{"state.key-groups": "100"}}
	if _, err := b.runner.Start(context.Background(), p, 1); !errs.Is(err, errs.UnknownOption) {
		t.Errorf("100 key groups: %v", err)
	}
	if err := b.runner.Remove(context.Background(), b.p); err != nil {
		t.Errorf("removing what never ran: %v", err)
	}
	if l, err := b.env.FS.List("/state/engine"); err == nil {
		t.Errorf("a node that ran nothing has made %v", l)
	}
	if err := b.runner.Close(); err != nil {
		t.Error(err)
	}
}

// TestRowsThatFail: while a row cannot be evaluated nothing reaches the sink, also by the next process; and the end of the
// input, behind which nothing can take the row back, is an error.
func TestRowsThatFail(t *testing.T) {
	fs := vfs.NewMem()
	b := newBench(t, fs)
	b.p.Query.SQL = strings.Replace(b.p.Query.SQL, "SUM(x)", "SUM(60 / x)", 1)
	r := b.start()
	b.tap.give(1, 2)
	b.shows("map[90:1]")
	for _, x := range []int64{0, 3} {
		b.tap.give(x)
		rows := r.Status().RowsTotal
		for late := time.After(10 * time.Second); r.Status().Query.Faults != 1 || x == 3 && r.Status().RowsTotal == rows && rows < 2; {
			select {
			case <-late:
				t.Fatalf("faults %d, rows %d", r.Status().Query.Faults, r.Status().RowsTotal)
			case <-time.After(time.Millisecond):
			}
		}
		b.stop(r)
		if err := b.runner.Close(); err != nil {
			t.Fatal(err)
		}
		b.open()
		r = b.start()
	}
	if got := b.shelf.holds(); got != "map[90:1]" {
		t.Errorf("with a row that failed the sink got %s", got)
	}
	b.tap.finish()
	if err := b.ended(r); !errs.Is(err, errs.EvalDivisionByZero) {
		t.Errorf("at the end: %v", err)
	}
	if got := b.shelf.holds(); got != "map[90:1]" {
		t.Errorf("in the end the sink got %s", got)
	}
	if err := b.runner.Close(); err != nil {
		t.Fatal(err)
	}
}
