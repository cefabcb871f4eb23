package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/checkpoint"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// story is what happened, in order, as source and target saw it.
type story struct {
	mu    sync.Mutex
	lines []string
}

func (s *story) tell(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *story) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

func stateText(state []dataflow.StateChange) string {
	var out []string
	for _, c := range state {
		out = append(out, c.Key+"="+string(c.Value))
	}
	return strings.Join(out, " ")
}

// tape is a Source that gives what a test puts in.
type tape struct {
	story    *story
	messages chan dataflow.Message
	fail     chan error
	openErr  error
}

func newTape(s *story) *tape {
	return &tape{story: s, messages: make(chan dataflow.Message, 64), fail: make(chan error, 1)}
}

func (s *tape) Open(_ context.Context, state dataflow.State) error {
	s.story.tell("source open at %q", state["position"])
	return s.openErr
}

func (s *tape) Read(ctx context.Context) (dataflow.Message, error) {
	select {
	case m := <-s.messages:
		return m, nil
	case err := <-s.fail:
		return dataflow.Message{}, err
	case <-ctx.Done():
		return dataflow.Message{}, ctx.Err()
	}
}

func (s *tape) Confirm(state []dataflow.StateChange) { s.story.tell("confirm %s", stateText(state)) }

func (s *tape) Close(context.Context) error {
	s.story.tell("source close")
	return nil
}

// desk is a Target whose words a test gives.
type desk struct {
	story    *story
	acks     chan dataflow.Ack
	restored dataflow.Restored
	// auto: every cut is visible and durable at once.
	auto             bool
	writeErr, cutErr error
	loaded           chan struct{} // closed lets loads go on; nil: they never wait
}

func newDesk(s *story) *desk { return &desk{story: s, acks: make(chan dataflow.Ack, 64), auto: true} }

func (d *desk) Open(_ context.Context, gen dataflow.Generation) (dataflow.Restored, error) {
	d.story.tell("target open generation %d", gen)
	return d.restored, nil
}

func (d *desk) Write(_ context.Context, m dataflow.Message) error {
	if d.writeErr != nil {
		return d.writeErr
	}
	d.story.tell("write %s", [...]string{"", "rows", "schema", "truncate", "chunk", "mark", "open rows", "open abort", "open commit", "end"}[m.Kind])
	return nil
}

func (d *desk) Commit(_ context.Context, cut dataflow.Cut) error {
	d.story.tell("cut %d %s", cut.Checkpoint, stateText(cut.State))
	if d.auto {
		d.acks <- dataflow.Ack{Checkpoint: cut.Checkpoint}
		d.acks <- dataflow.Ack{Checkpoint: cut.Checkpoint, Durable: true}
	}
	return d.cutErr
}

func (d *desk) Acks() <-chan dataflow.Ack { return d.acks }

func (d *desk) Close(context.Context) error {
	d.story.tell("target close")
	return nil
}

func (d *desk) Load(ctx context.Context, _ int, r dataflow.Range, _ dataflow.RangeStream, state func(int64) []dataflow.StateChange, _ func(int64)) (int64, error) {
	if d.loaded != nil {
		select {
		case <-d.loaded:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	d.story.tell("load %s %s", r.ID, stateText(state(3)))
	return 3, nil
}

func (d *desk) FinishConstraints(context.Context) error { return nil }

func (d *desk) FinishTable(_ context.Context, _ int, rel *changelog.Relation, beside bool) error {
	d.story.tell("finish table %s, beside others %v", rel.Name, beside)
	return nil
}

func (d *desk) FinishCopy(context.Context) error {
	d.story.tell("finish copy")
	return nil
}

// copying is a tape with a first copy.
type copying struct {
	*tape
	copied  bool
	ranges  []dataflow.Range
	openErr error
}

func (c *copying) Copied() bool { return c.copied }

func (c *copying) Ranges(context.Context) ([]dataflow.Range, []dataflow.StateChange, error) {
	return c.ranges, position("start"), nil
}

func (c *copying) OpenRange(_ context.Context, _ int, r dataflow.Range) (dataflow.RangeStream, error) {
	return emptyRange{}, c.openErr
}

func (c *copying) RangeState(r dataflow.Range, rows int64) []dataflow.StateChange {
	return []dataflow.StateChange{{Key: "done/" + r.ID, Value: []byte(fmt.Sprint(rows))}}
}

func (c *copying) CopyDone(context.Context) ([]dataflow.StateChange, error) {
	return []dataflow.StateChange{{Key: "live", Value: []byte("1")}}, nil
}

type emptyRange struct{}

func (emptyRange) Format() string                       { return "pgcopy-text" }
func (emptyRange) Columns() []string                    { return nil }
func (emptyRange) Next(context.Context) ([]byte, error) { return nil, io.EOF }
func (emptyRange) Rows() int64                          { return 0 }
func (emptyRange) Close() error                         { return nil }

func position(v string) []dataflow.StateChange {
	return []dataflow.StateChange{{Key: "position", Value: []byte(v)}}
}

func rows(at string) dataflow.Message {
	m := dataflow.Message{Kind: dataflow.KindRows, Rows: &changelog.Rows{Arena: make([]byte, 10)}, Boundary: at != ""}
	if at != "" {
		m.State = position(at)
	}
	return m
}

// scene is a Pipe at work inside a bubble.
type scene struct {
	*testing.T
	story  *story
	source *tape
	target *desk
	pipe   *Pipe
	done   chan error
	cancel context.CancelFunc
}

func play(t *testing.T, source dataflow.Source, s *story, target *desk, epochs checkpoint.Options) *scene {
	ctx, cancel := context.WithCancel(t.Context())
	tp, _ := source.(*tape)
	if c, ok := source.(*copying); ok {
		tp = c.tape
	}
	x := &scene{T: t, story: s, source: tp, target: target, done: make(chan error, 1), cancel: cancel}
	x.pipe = New(env.Real(nil), Options{Source: source, Target: target, Generation: 4, Epochs: epochs})
	go func() { x.done <- x.pipe.Run(ctx) }()
	synctest.Wait()
	return x
}

// give lets the Pipe read a message and settle.
func (x *scene) give(messages ...dataflow.Message) {
	for _, m := range messages {
		x.source.messages <- m
		synctest.Wait()
	}
}

func (x *scene) ack(acks ...dataflow.Ack) {
	for _, a := range acks {
		x.target.acks <- a
		synctest.Wait()
	}
}

func (x *scene) end() error {
	x.Helper()
	synctest.Wait()
	select {
	case err := <-x.done:
		return err
	default:
		x.Fatalf("still running:\n%s", x.story)
		return nil
	}
}

func (x *scene) want(lines ...string) {
	x.Helper()
	if got := x.story.String(); got != strings.Join(lines, "\n") {
		x.Fatalf("got\n  %s\nwant\n  %s", strings.ReplaceAll(got, "\n", "\n  "), strings.Join(lines, "\n  "))
	}
}

func bubble(t *testing.T, name string, fn func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, fn) })
}

func TestStream(t *testing.T) {
	bubble(t, "confirmed only when durable", func(t *testing.T) {
		s := &story{}
		d := newDesk(s)
		d.auto, d.restored = false, dataflow.Restored{Checkpoint: 7, State: dataflow.State{"position": []byte("a")}}
		x := play(t, newTape(s), s, d, checkpoint.Options{})
		x.give(rows("b"), rows(""), rows("c"))
		x.ack(dataflow.Ack{Checkpoint: 8, Rows: 2})
		if got := x.pipe.Status(); got.Checkpoint != 8 || got.Durable != 7 || string(got.Visible["position"]) != "b" || got.Rows != 2 {
			t.Errorf("status %+v", got)
		}
		x.ack(dataflow.Ack{Checkpoint: 9}, dataflow.Ack{Checkpoint: 8, Durable: true}, dataflow.Ack{Checkpoint: 9, Durable: true})
		x.pipe.Stop()
		if err := x.end(); err != nil {
			t.Error(err)
		}
		x.want("target open generation 4", `source open at "a"`, "write rows", "cut 8 position=b", "write rows", "write rows",
			"cut 9 position=c", "confirm position=b", "confirm position=c", "source close", "target close")
	})
	bubble(t, "one durable word for several cuts", func(t *testing.T) {
		s := &story{}
		d := newDesk(s)
		d.auto = false
		x := play(t, newTape(s), s, d, checkpoint.Options{GoalBytes: 1})
		x.give(rows("b"), rows("c"))
		x.ack(dataflow.Ack{Checkpoint: 1}, dataflow.Ack{Checkpoint: 2}, dataflow.Ack{Checkpoint: 2, Durable: true})
		x.pipe.Stop()
		if err := x.end(); err != nil {
			t.Error(err)
		}
		x.want("target open generation 4", `source open at ""`, "write rows", "cut 1 position=b", "write rows", "cut 2 position=c",
			"confirm position=b", "confirm position=c", "source close", "target close")
	})
	bubble(t, "rows gather behind a cut", func(t *testing.T) {
		s := &story{}
		d := newDesk(s)
		d.auto = false
		x := play(t, newTape(s), s, d, checkpoint.Options{})
		x.give(rows("b"), rows("c"), rows("d"))
		x.ack(dataflow.Ack{Checkpoint: 1})
		x.want("target open generation 4", `source open at ""`, "write rows", "cut 1 position=b", "write rows", "write rows", "cut 2 position=d")
		x.cancel()
		if err := x.end(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	bubble(t, "a mark waits for its period", func(t *testing.T) {
		s := &story{}
		x := play(t, newTape(s), s, newDesk(s), checkpoint.Options{MarkPeriod: time.Second})
		x.give(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: position("m")})
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		if strings.Contains(s.String(), "cut") {
			t.Error("cut early")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		x.want("target open generation 4", `source open at ""`, "write mark", "cut 1 position=m", "confirm position=m")
		x.cancel()
		_ = x.end()
	})
	bubble(t, "the last change of a key is stored", func(t *testing.T) {
		s := &story{}
		d := newDesk(s)
		d.auto = false
		x := play(t, newTape(s), s, d, checkpoint.Options{})
		second := rows("c")
		second.State = append(second.State, dataflow.StateChange{Key: "k", Value: []byte("1")}, dataflow.StateChange{Key: "k", Value: []byte("2")})
		x.give(rows("b"), second, rows("d"))
		x.ack(dataflow.Ack{Checkpoint: 1})
		if !strings.Contains(s.String(), "cut 2 position=d k=2") {
			t.Errorf("got\n%s", s)
		}
		x.cancel()
		_ = x.end()
	})
}

func TestEnds(t *testing.T) {
	bubble(t, "stop cuts what is whole", func(t *testing.T) {
		s := &story{}
		d := newDesk(s)
		d.auto = false
		x := play(t, newTape(s), s, d, checkpoint.Options{})
		x.give(rows("b"), rows("c"))
		x.pipe.Stop()
		synctest.Wait()
		x.ack(dataflow.Ack{Checkpoint: 1}, dataflow.Ack{Checkpoint: 2}, dataflow.Ack{Checkpoint: 2, Durable: true})
		if err := x.end(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(s.String(), "cut 2 position=c\nconfirm position=b\nconfirm position=c\nsource close") {
			t.Errorf("got\n%s", s)
		}
	})
	bubble(t, "stop drops half a transaction", func(t *testing.T) {
		s := &story{}
		x := play(t, newTape(s), s, newDesk(s), checkpoint.Options{})
		x.give(rows(""))
		x.pipe.Stop()
		x.pipe.Stop() // twice is once
		if err := x.end(); err != nil {
			t.Error(err)
		}
		x.want("target open generation 4", `source open at ""`, "write rows", "source close", "target close")
	})
	bubble(t, "the source ends", func(t *testing.T) {
		s := &story{}
		x := play(t, newTape(s), s, newDesk(s), checkpoint.Options{})
		x.give(rows("b"), dataflow.Message{Kind: dataflow.KindEnd})
		if err := x.end(); err != nil {
			t.Error(err)
		}
	})
	broken := errors.New("broken")
	bubble(t, "the source fails", func(t *testing.T) {
		s := &story{}
		x := play(t, newTape(s), s, newDesk(s), checkpoint.Options{})
		x.source.fail <- broken
		if err := x.end(); !errors.Is(err, broken) {
			t.Error(err)
		}
		x.want("target open generation 4", `source open at ""`, "source close", "target close")
	})
	bubble(t, "the source does not open", func(t *testing.T) {
		s := &story{}
		tp := newTape(s)
		tp.openErr = broken
		x := play(t, tp, s, newDesk(s), checkpoint.Options{})
		if err := x.end(); !errors.Is(err, broken) {
			t.Error(err)
		}
		x.want("target open generation 4", `source open at ""`, "source close", "target close")
	})
	bubble(t, "the target tells its error", func(t *testing.T) {
		s := &story{}
		x := play(t, newTape(s), s, newDesk(s), checkpoint.Options{})
		x.ack(dataflow.Ack{Err: broken})
		if err := x.end(); !errors.Is(err, broken) {
			t.Error(err)
		}
	})
	bubble(t, "the target's word beats a broken pipe", func(t *testing.T) {
		s := &story{}
		d := newDesk(s)
		d.auto = false
		d.cutErr = errors.New("write: broken pipe")
		d.acks <- dataflow.Ack{Checkpoint: 1}
		d.acks <- dataflow.Ack{Err: broken}
		x := &scene{T: t, story: s, source: newTape(s), target: d, done: make(chan error, 1)}
		r := &run{Pipe: New(env.Real(nil), Options{Source: x.source, Target: d}), driver: checkpoint.NewDriver(checkpoint.Options{}, 0)}
		if err := r.failure(d.cutErr); !errors.Is(err, broken) {
			t.Error(err)
		}
		if err := r.failure(d.cutErr); !errors.Is(err, d.cutErr) {
			t.Error(err)
		}
	})
	bubble(t, "the target closes", func(t *testing.T) {
		s := &story{}
		x := play(t, newTape(s), s, newDesk(s), checkpoint.Options{})
		close(x.target.acks)
		if err := x.end(); !errs.Is(err, errs.TargetUnreachable) {
			t.Error(err)
		}
	})
	bubble(t, "a write fails", func(t *testing.T) {
		s := &story{}
		d := newDesk(s)
		d.writeErr = broken
		x := play(t, newTape(s), s, d, checkpoint.Options{})
		x.give(rows("b"))
		if err := x.end(); !errors.Is(err, broken) {
			t.Error(err)
		}
	})
}

func TestWriteAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &story{}
		d := newDesk(s)
		d.auto = false
		x := play(t, newTape(s), s, d, checkpoint.Options{})
		open := dataflow.Message{Kind: dataflow.KindOpenRows, Tx: 9, Sub: 9, Rows: &changelog.Rows{}}
		x.give(rows("b"), rows("c"), open)
		if strings.Contains(s.String(), "write open rows") {
			t.Fatal("rows of an open transaction were written before what they build on was visible")
		}
		x.ack(dataflow.Ack{Checkpoint: 1})
		if strings.Contains(s.String(), "write open rows") {
			t.Fatal("one of two cuts was visible")
		}
		x.ack(dataflow.Ack{Checkpoint: 2})
		x.give(dataflow.Message{Kind: dataflow.KindOpenCommit, Tx: 9, Boundary: true, State: position("d")}, rows("e"))
		x.ack(dataflow.Ack{Checkpoint: 3})
		x.want("target open generation 4", `source open at ""`, "write rows", "cut 1 position=b", "write rows", "cut 2 position=c", "write open rows",
			"write open commit", "cut 3 position=d", "write rows", "cut 4 position=e")
		x.cancel()
		_ = x.end()
	})
}

func TestCopy(t *testing.T) {
	table := &changelog.Relation{ID: 1, Name: "t"}
	ranges := []dataflow.Range{{ID: "small", Rel: table, EstBytes: 1}, {ID: "large", Rel: table, EstBytes: 9}}
	bubble(t, "in its order", func(t *testing.T) {
		s := &story{}
		d := newDesk(s)
		x := play(t, &copying{tape: newTape(s), ranges: ranges[1:]}, s, d, checkpoint.Options{})
		x.give(rows("b"))
		x.want("target open generation 4", `source open at ""`, "cut 1 position=start", "confirm position=start", "load large done/large=3", "finish table t, beside others false", "finish copy",
			"cut 2 live=1", "confirm live=1", "write rows", "cut 3 position=b", "confirm position=b")
		if got := x.pipe.Status(); got.Rows != 3 || got.Phase != PhaseCatchUp {
			t.Errorf("status %+v", got)
		}
		x.cancel()
		_ = x.end()
	})
	bubble(t, "a table is finished behind its last range, while others are copied", func(t *testing.T) {
		s := &story{}
		d := newDesk(s)
		other := dataflow.Range{ID: "other", Rel: &changelog.Relation{ID: 2, Name: "u"}, EstBytes: 1}
		x := play(t, &copying{tape: newTape(s), ranges: append(slices.Clone(ranges), other)}, s, d, checkpoint.Options{})
		x.give(rows("b"))
		story := s.String()
		if strings.Count(story, "finish table t,") != 1 || strings.Count(story, "finish table u,") != 1 || strings.Count(story, "beside others false") != 1 {
			t.Errorf("each table is to be finished once, and only the last beside none\n%s", story)
		}
		for _, load := range []string{"load large", "load small"} {
			if at := strings.Index(story, load); at < 0 || at > strings.Index(story, "finish table t,") {
				t.Errorf("the table was finished before %q\n%s", load, story)
			}
		}
		x.cancel()
		_ = x.end()
	})
	bubble(t, "nothing is loaded before the plan is durable", func(t *testing.T) {
		s := &story{}
		d := newDesk(s)
		d.auto = false
		x := play(t, &copying{tape: newTape(s), ranges: ranges}, s, d, checkpoint.Options{})
		x.ack(dataflow.Ack{Checkpoint: 1})
		if strings.Contains(s.String(), "load") {
			t.Error("loaded")
		}
		x.ack(dataflow.Ack{Checkpoint: 1, Durable: true})
		if !strings.Contains(s.String(), "load large") || !strings.Contains(s.String(), "load small") {
			t.Errorf("got\n%s", s)
		}
		x.cancel()
		_ = x.end()
	})
	bubble(t, "done before", func(t *testing.T) {
		s := &story{}
		x := play(t, &copying{tape: newTape(s), ranges: ranges, copied: true}, s, newDesk(s), checkpoint.Options{})
		x.give(rows("b"))
		x.want("target open generation 4", `source open at ""`, "write rows", "cut 1 position=b", "confirm position=b")
		x.cancel()
		_ = x.end()
	})
	bubble(t, "stopped", func(t *testing.T) {
		s := &story{}
		d := newDesk(s)
		d.loaded = make(chan struct{})
		many := slices.Repeat(ranges, 4)
		x := play(t, &copying{tape: newTape(s), ranges: many}, s, d, checkpoint.Options{})
		x.pipe.Stop()
		close(d.loaded)
		if err := x.end(); !errors.Is(err, ErrStopped) {
			t.Errorf("%v\n%s", err, s)
		}
		if n := strings.Count(s.String(), "load "); n != 2 {
			t.Errorf("%d ranges were loaded; each worker was to end the one it had", n)
		}
	})
	bubble(t, "fails", func(t *testing.T) {
		s := &story{}
		broken := errors.New("broken")
		x := play(t, &copying{tape: newTape(s), ranges: ranges, openErr: broken}, s, newDesk(s), checkpoint.Options{})
		if err := x.end(); !errors.Is(err, broken) {
			t.Error(err)
		}
		if strings.Contains(s.String(), "finish copy") {
			t.Error("a copy that failed was finished")
		}
	})
}
