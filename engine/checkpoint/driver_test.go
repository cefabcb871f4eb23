package checkpoint

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weirstream/weir/engine/dataflow"
)

func TestDue(t *testing.T) {
	start := time.Unix(0, 0)
	type wrote struct {
		bytes                    int
		effects, state, boundary bool
	}
	rows, inside := wrote{10, true, true, true}, wrote{10, true, false, false}
	mark := wrote{0, false, true, true}
	for _, c := range []struct {
		name     string
		inFlight int
		wrote    []wrote
		age      time.Duration
		more     bool
		cut      bool
		wait     time.Duration
	}{
		{name: "nothing was written"},
		{name: "rows after a pause", wrote: []wrote{rows}, cut: true},
		{name: "rows after a pause, more to come", wrote: []wrote{rows}, more: true, cut: true},
		{name: "inside a transaction", wrote: []wrote{rows, inside}},
		{name: "at its end", wrote: []wrote{inside, rows}, cut: true},
		{name: "few rows behind a cut", inFlight: 1, wrote: []wrote{rows}},
		{name: "enough rows behind a cut", inFlight: 1, wrote: []wrote{rows, {95, true, true, true}}, cut: true},
		{name: "enough rows, too many cuts", inFlight: 2, wrote: []wrote{rows, {95, true, true, true}}},
		{name: "a position that just moved", wrote: []wrote{mark}, wait: time.Second},
		{name: "a position that moved before", wrote: []wrote{mark}, age: 400 * time.Millisecond, wait: 600 * time.Millisecond},
		{name: "a position that moved long ago", wrote: []wrote{mark}, age: time.Second, cut: true},
		{name: "rows may follow the position", wrote: []wrote{mark}, age: time.Second, more: true, wait: time.Second},
		{name: "nothing ever followed it", wrote: []wrote{mark}, age: 2 * time.Second, more: true, cut: true},
		{name: "a position behind a cut", inFlight: 1, wrote: []wrote{mark}, age: time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := NewDriver(Options{GoalBytes: 100, MarkPeriod: time.Second}, 7)
			for range c.inFlight {
				d.Wrote(start, 1, true, true, true)
				d.Cut(start)
			}
			for _, w := range c.wrote {
				d.Wrote(start, w.bytes, w.effects, w.state, w.boundary)
			}
			cut, wait := d.Due(start.Add(c.age), c.more)
			if cut != c.cut || wait != c.wait {
				t.Errorf("cut %t, wait %s; want %t, %s", cut, wait, c.cut, c.wait)
			}
			if d.Pending() != (len(c.wrote) > 0) || d.Idle() != (c.inFlight == 0) {
				t.Errorf("pending %t, idle %t", d.Pending(), d.Idle())
			}
		})
	}
}

func TestIntervalSpacesCuts(t *testing.T) {
	now := time.Unix(1000, 0)
	d := NewDriver(Options{Interval: time.Second}, 0)
	d.Wrote(now, 1, true, true, true)
	if cut, _ := d.Due(now, false); !cut {
		t.Fatal("the first cut waits for an interval that nothing began")
	}
	d.Cut(now)
	d.Acked(dataflow.Ack{Checkpoint: 1})
	d.Wrote(now, 1, true, true, true)
	if cut, wait := d.Due(now.Add(300*time.Millisecond), false); cut || wait != 700*time.Millisecond {
		t.Errorf("cut %t, wait %s", cut, wait)
	}
	if cut, _ := d.Due(now.Add(time.Second), false); !cut {
		t.Error("no cut behind the interval")
	}
}

func TestBrokenTargetsAreNoticed(t *testing.T) {
	now := time.Unix(0, 0)
	for name, acks := range map[string][]dataflow.Ack{
		"skipped":                {{Checkpoint: 9}},
		"twice":                  {{Checkpoint: 8}, {Checkpoint: 8}},
		"durable before visible": {{Checkpoint: 8, Durable: true}},
		"durable goes back":      {{Checkpoint: 8}, {Checkpoint: 9}, {Checkpoint: 9, Durable: true}, {Checkpoint: 8, Durable: true}},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDriver(Options{}, 7)
			for range 2 {
				d.Wrote(now, 1, true, true, true)
				d.Cut(now)
			}
			defer func() {
				if recover() == nil {
					t.Error("nobody noticed")
				}
			}()
			for _, a := range acks {
				d.Acked(a)
			}
		})
	}
	t.Run("cut inside a transaction", func(t *testing.T) {
		d := NewDriver(Options{}, 0)
		d.Wrote(now, 1, true, false, false)
		defer func() {
			if recover() == nil {
				t.Error("nobody noticed")
			}
		}()
		d.Cut(now)
	})
}

// TestAnyOrder drives a Driver through any order of messages, acks and time and checks what the worker relies on.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		opts := Options{
			GoalBytes:  rapid.IntRange(1, 200).Draw(t, "goal"),
			InFlight:   rapid.IntRange(1, 4).Draw(t, "in flight"),
			MarkPeriod: time.Duration(rapid.IntRange(1, 1000).Draw(t, "mark period")) * time.Millisecond,
			Interval:   time.Duration(rapid.IntRange(0, 300).Draw(t, "interval")) * time.Millisecond,
		}
		restored := dataflow.Checkpoint(rapid.IntRange(0, 5).Draw(t, "restored"))
		d := NewDriver(opts, restored)
		now := time.Unix(1000, 0)
		var boundary, effects, state bool
		last, visible, durable := restored, restored, restored
		due := func(more bool) (bool, time.Duration) {
			cut, wait := d.Due(now, more)
			if cut && (!boundary || !effects && !state || int(last-visible) >= opts.InFlight) {
				t.Fatalf("cut: at a boundary %t, effects %t, state %t, %d in flight of %d", boundary, effects, state, last-visible, opts.InFlight)
			}
			if wait < 0 || cut && wait != 0 {
				t.Fatalf("cut %t, wait %s", cut, wait)
			}
			if !cut {
				return false, wait
			}
			if n := d.Cut(now); n != last+1 {
				t.Fatalf("checkpoint %d follows %d", n, last)
			}
			last++
			effects, state = false, false
			return true, 0
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				e, s := rapid.Bool().Draw(t, "effects"), rapid.Bool().Draw(t, "state")
				boundary = rapid.Bool().Draw(t, "boundary")
				d.Wrote(now, rapid.IntRange(0, 100).Draw(t, "bytes"), e, s, boundary)
				effects, state = effects || e, state || s
			case 2:
				if visible < last {
					visible++
					d.Acked(dataflow.Ack{Checkpoint: visible})
				}
			case 3:
				if durable < visible {
					durable = visible
					d.Acked(dataflow.Ack{Checkpoint: durable, Durable: true})
				}
			case 4:
				now = now.Add(time.Duration(rapid.IntRange(0, 800).Draw(t, "pass")) * time.Millisecond)
			}
			due(rapid.Bool().Draw(t, "more"))
			if d.Visible() != visible || d.Durable() != durable || d.Pending() != (effects || state) {
				t.Fatalf("visible %d, durable %d, pending %t; want %d, %d, %t", d.Visible(), d.Durable(), d.Pending(), visible, durable, effects || state)
			}
		}
		// Now the transaction ends and the target answers: whatever was written is cut in the end, although more
		// messages without rows keep coming, and by waiting no longer than the Driver said.
		d.Wrote(now, 0, false, true, true)
		state, boundary = true, true
		for visible < last {
			visible++
			d.Acked(dataflow.Ack{Checkpoint: visible})
		}
		for range 10 {
			cut, wait := due(true)
			if cut {
				return
			}
			if wait == 0 {
				t.Fatal("nothing in flight, something written, and only an event could bring a cut")
			}
			now = now.Add(wait)
			d.Wrote(now, 0, false, true, true)
		}
		t.Fatal("never cut")
	})
}
