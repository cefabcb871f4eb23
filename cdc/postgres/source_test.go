package postgres

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/weirstream/weir/cdc/snapshot"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/pg"
)

// TestKeepaliveInsideTransaction: a server answers in the middle of what it sends. When that lets go of a copy's filter,
// the note of it is a boundary, which must not fall into a transaction.
func TestKeepaliveInsideTransaction(t *testing.T) {
	view, err := snapshot.ParseView("10:20:")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		inTx, inBlock bool
		open          map[uint32]bool
		settles       bool
	}{
		"between transactions":             {settles: true},
		"inside of a transaction":          {inTx: true},
		"inside of a block of an open one": {inBlock: true, open: map[uint32]bool{7: true}},
		"beside an open one":               {open: map[uint32]bool{7: true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Source{ctx: context.Background(), out: make(chan dataflow.Message, 10), consistent: true,
				filters: map[uint32]*tableFilter{1: {ranges: []filterRange{{view: &view, high: 100}}}}}
			s.reader = &reader{inTx: c.inTx, inBlock: c.inBlock, open: c.open, emit: s.send, rels: map[uint32]*relation{}}
			if err := s.keepalive(200); err != nil {
				t.Fatal(err)
			}
			if settled := len(s.filters) == 0; settled != c.settles || !settled && len(s.out) > 0 {
				t.Errorf("filter gone: %v, messages: %d", settled, len(s.out))
			}
			if c.inTx || c.inBlock {
				if err := s.send(dataflow.Message{Kind: dataflow.KindMark, Boundary: true}); err == nil {
					t.Error("a boundary was let through")
				}
			}
		})
	}
}

// TestBoundaryBehindItsRows: a note with a position may not overtake rows in front of that position.
func TestBoundaryBehindItsRows(t *testing.T) {
	s := &Source{ctx: context.Background(), out: make(chan dataflow.Message, 10)}
	s.reader = &reader{emit: s.send, rows: &changelog.Rows{}, position: 200}
	s.reader.rows.Append(s.reader.rows.UseRelation(&changelog.Relation{ID: 1}), changelog.Insert, false, nil, changelog.Image{0, 0})
	note := dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: positionState(200)}
	if err := s.send(note); err == nil {
		t.Fatal("a boundary overtook rows that belong before it")
	}
	if err := s.reader.flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.send(note); err != nil {
		t.Fatal(err)
	}
	if first := <-s.out; first.Kind != dataflow.KindRows || !first.Boundary {
		t.Errorf("the first message is of kind %v", first.Kind)
	}
}

// TestAnotherCopyWaits: a table of which a copy is under way is copied once more behind it. The rows of the first one are
// at the target and may be further than the stream; without its views the stream would bring them what they hold.
func TestAnotherCopyWaits(t *testing.T) {
	for name, c := range map[string]struct {
		now  *liveCopy // under way; nil: the filter is one of the first copy
		want liveCopy  // behind the order
	}{
		"made, and not passed":         {&liveCopy{Done: true, Chunks: []liveChunk{{View: "5:5:", High: "0/64"}}}, liveCopy{Done: true, Again: true, Chunks: []liveChunk{{View: "5:5:", High: "0/64"}}}},
		"of the first copy":            {nil, liveCopy{Done: true, Again: true}},
		"half made, of a table's rows": {&liveCopy{First: true, Chunks: []liveChunk{{View: "5:5:", High: "0/64"}}}, liveCopy{First: true, Again: true, Chunks: []liveChunk{{View: "5:5:", High: "0/64"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Source{ctx: context.Background(), out: make(chan dataflow.Message, 10), consistent: true, env: env.Real(nil),
				filters: map[uint32]*tableFilter{}, copies: map[uint32]*liveCopy{}, tables: map[uint32]*tableShape{7: shape(col(1, "id", 23))}}
			s.reader = &reader{emit: s.send, rels: map[uint32]*relation{}}
			if c.now != nil {
				s.copies[7] = c.now
				if err := s.armLive(7); err != nil {
					t.Fatal(err)
				}
			} else {
				s.filters[7] = &tableFilter{ranges: []filterRange{{view: &snapshot.View{Xmin: 5, Xmax: 5}, high: 100}}}
			}
			s.copies[7] = s.anotherCopy(7)
			if !reflect.DeepEqual(*s.copies[7], c.want) {
				t.Fatalf("noted: %+v", *s.copies[7])
			}
			if again := s.anotherCopy(7); !reflect.DeepEqual(*again, c.want) {
				t.Errorf("ordered twice: %+v", *again)
			}
			if drop, err := s.filters[7].drop(4, changelog.Image{0, 0}); err != nil || !drop {
				t.Errorf("what the copy holds is let through: %v", err)
			}
			if c.now != nil && !c.now.Done {
				return
			}
			if err := s.settle(50); err != nil || s.filters[7] == nil {
				t.Fatalf("the stream has not passed it: %v", err)
			}
			if err := s.settle(200); err != nil || s.filters[7] != nil {
				t.Fatalf("the stream has passed it: %v", err)
			}
			if s.copies[7] == nil || !reflect.DeepEqual(*s.copies[7], liveCopy{}) || !s.copying.Load() {
				t.Errorf("the next copy does not begin: %+v", s.copies[7])
			}
			if m := <-s.out; len(m.State) < 2 || string(m.State[len(m.State)-1].Value) != "{}" {
				t.Errorf("nothing is noted: %+v", m.State)
			}
		})
	}
}

// TestReached: a target that has all that was sent has also what came behind without rows, and no target has more than that.
func TestReached(t *testing.T) {
	s := &Source{}
	s.progress.sent.Store(100)
	s.progress.nothing.Store(150)
	for at, want := range map[pg.LSN]pg.LSN{40: 40, 99: 99, 100: 150, 120: 150, 160: 160} {
		if got := s.Reached(at); got != want {
			t.Errorf("a target at %d has reached %d, want %d", at, got, want)
		}
	}
}

// TestSilence: a server that is not heard of may have committed since then.
func TestSilence(t *testing.T) {
	s := &Source{opts: Options{DiscoveryPeriod: 2 * time.Second}}
	now := time.Unix(1000, 0)
	if got := s.Silence(now); got != 0 {
		t.Errorf("before the first word: %v", got)
	}
	for after, want := range map[time.Duration]time.Duration{
		0: 0, 2 * time.Second: 0, 5 * time.Second: 0, 6 * time.Second: 6 * time.Second, time.Minute: time.Minute,
	} {
		s.progress.heard.Store(now.Add(-after).UnixNano())
		if got := s.Silence(now); got != want {
			t.Errorf("%v after the last word: %v, want %v", after, got, want)
		}
	}
}
