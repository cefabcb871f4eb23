package keyed

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/engine/state/statetest"
)

// told is a source of transfers that come when they are asked for, and a sink, which note what they are told.
type told struct {
	bank
	give   chan bool // urgent
	urgent bool
	events chan string
}

func (s *told) Read(ctx context.Context) (dataflow.Message, error) {
	if s.half {
		m, err := s.bank.Read(ctx)
		m.Urgent = s.urgent
		return m, err
	}
	select {
	case s.urgent = <-s.give:
		return s.bank.Read(ctx)
	case <-ctx.Done():
		return dataflow.Message{}, ctx.Err()
	}
}

func at(changed []dataflow.StateChange) string {
	var out []string
	for _, c := range changed {
		out = append(out, fmt.Sprint(binary.LittleEndian.Uint64(c.Value)))
	}
	return strings.Join(out, ",")
}

func (s *told) Visible(_ uint64, changed []dataflow.StateChange) {
	s.events <- "visible " + at(changed)
}
func (s *told) Durable(changed []dataflow.StateChange) { s.events <- "durable " + at(changed) }
func (s *told) Confirm(changed []dataflow.StateChange) { s.events <- "confirm " + at(changed) }

type toldSink struct {
	nothing
	events chan string
}

func (s *toldSink) Publish(context.Context, dataflow.Checkpoint, dataflow.Changes) error {
	s.events <- "publish"
	return nil
}

// TestUrgent: a source is told when an epoch is visible, and when it is durable before sinks publish it; somebody who waits
// makes the next checkpoint come at once, and what nobody waits for leaves it to its interval.
func TestUrgent(t *testing.T) {
	events := make(chan string, 100)
	s := &told{bank: bank{count: 1 << 20, seed: 1}, give: make(chan bool), events: events}
	g := bankGraph()
	p := runPipeline(Options{Graph: g, CheckpointInterval: time.Hour, Groups: 16,
		Sources: []Source{{Name: "bank", Source: s, Tables: [][]row.Type{transferTypes}}},
		Sinks:   []Sink{{Name: "sink", Sink: &toldSink{events: events}, Tables: [][]row.Type{g.Nodes[3].Schema.Types(), g.Nodes[4].Schema.Types()}}},
		Durable: &memory{t: t, backing: statetest.New(), outboxes: map[dataflow.Checkpoint][]byte{}}})
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			select {
			case got := <-events:
				if got != w {
					t.Fatalf("%q came, want %q", got, w)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%q did not come", w)
			}
		}
	}
	s.give <- false
	expect("visible 1")
	s.give <- true
	expect("visible 2", "durable 1,2", "publish", "confirm 1,2")
	s.give <- false
	expect("visible 3")
	s.give <- true
	expect("visible 4", "durable 3,4", "publish", "confirm 3,4")
	s.give <- false
	expect("visible 5")
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	expect("durable 5", "publish", "confirm 5")
	if len(events) > 0 {
		t.Errorf("and %q", <-events)
	}
}

// slow is a Durable whose commits wait for a word.
type slow struct {
	*memory
	word chan struct{}
}

func (s *slow) Commit(ctx context.Context, c dataflow.Checkpoint, deltas []*state.Delta, outbox, meta []byte) error {
	select {
	case <-s.word:
		return s.memory.Commit(ctx, c, deltas, outbox, meta)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestReadersSeeWhatIsDurable: readers do not get transactions of a Follower that a crash could take back, and get all others
// without waiting for the disk.
func TestReadersSeeWhatIsDurable(t *testing.T) {
	events := make(chan string, 100)
	s := &told{bank: bank{count: 1 << 20, seed: 1}, give: make(chan bool), events: events}
	g, balances, total := viewGraph()
	word := make(chan struct{})
	p := runPipeline(Options{Graph: g, CheckpointInterval: time.Hour, Groups: 16, Parallelism: 2,
		Sources: []Source{{Name: "bank", Source: s, Tables: [][]row.Type{transferTypes}}},
		Durable: &slow{&memory{t: t, backing: statetest.New(), outboxes: map[dataflow.Checkpoint][]byte{}}, word}})
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			select {
			case got := <-events:
				if got != w {
					t.Fatalf("%q came, want %q", got, w)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%q did not come", w)
			}
		}
	}
	shows := func(transfers int64) *Pin {
		t.Helper()
		want := map[int64]int64{}
		for n := range transfers {
			from, to, amount, _ := s.transfer(n)
			want[from] -= amount
			want[to] += amount
		}
		pin, err := p.Pin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rows, err := checkBank(t.Context(), pin, balances, total)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(rows) != fmt.Sprint(want) {
			t.Errorf("readers see %v, want what %d transfers make: %v", rows, transfers, want)
		}
		return pin
	}
	shows(0).Release()
	s.give <- true
	expect("visible 1")
	first := shows(0)
	s.give <- true
	expect("visible 2")
	s.give <- false
	expect("visible 3")
	shows(0).Release()
	word <- struct{}{}
	// The second may have come into the epoch of a checkpoint of its own, or into one between.
	expect("durable 1")
	expect("confirm 1")
	shows(1).Release()
	s.give <- false
	expect("visible 4")
	second := shows(1)
	word <- struct{}{}
	for got := ""; !strings.HasPrefix(got, "confirm 2,3"); got = <-events {
	}
	for _, pin := range []*Pin{first, second} {
		if _, err := checkBank(t.Context(), pin, balances, total); err != nil {
			t.Error(err)
		}
		pin.Release()
	}
	done := make(chan error, 1)
	go func() { done <- p.stop() }()
	word <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
